//! Sketches of a segment's vectors: what a search scans to find its candidates.
//!
//! They are read a chunk of 1,024 rows at a time, or all at once by a reader that keeps them. The
//! mean that was taken away before the signs were stands in front; segments that follow each other
//! share it, so that a search prepares its query once.

use crate::bytes::codec::codes::{CHUNK_ROWS, CRC_BYTES, MEAN_INDEX, chunk_at};
use crate::bytes::codec::segment::SectionKind;
use crate::pure::sketch::SketchLayout;
use crate::words::error::Result;
use crate::words::safeguard::Safeguard;

use super::segment::Segment;

impl Segment {
    /// The mean of a group's sketches: `dim` values, of length at most 1.
    pub fn sketch_mean(&self, group: u16) -> Result<Vec<f32>> {
        let section = self.section(group, SectionKind::Sketches)?;
        let dim = self.group(group)?.dim as usize;
        let mut bytes = vec![0; dim * 4 + CRC_BYTES];
        self.read(&mut bytes, section.offset)?;
        self.check_sketches(group, MEAN_INDEX, &mut bytes, section.offset)?;
        Ok(bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect())
    }

    /// Replaces `blocks` by the sketches of rows `1024 * chunk ..` of a group, whole blocks of 64.
    pub fn sketch_chunk(
        &self,
        group: u16,
        layout: SketchLayout,
        chunk: usize,
        blocks: &mut Vec<u8>,
    ) -> Result<()> {
        let section = self.section(group, SectionKind::Sketches)?;
        let vectors = self.group(group)?.vectors as usize;
        let rows = vectors.saturating_sub(chunk * CHUNK_ROWS).min(CHUNK_ROWS);
        let offset = section.offset + chunk_at(layout, chunk);
        blocks.clear();
        blocks.resize(layout.blocks_bytes(rows) + CRC_BYTES, 0);
        self.read(blocks, offset)?;
        self.check_sketches(group, chunk as u64, blocks, offset)
    }

    /// All sketches of a group, whole blocks of 64.
    pub fn sketches(&self, group: u16, layout: SketchLayout) -> Result<Vec<u8>> {
        let vectors = self.group(group)?.vectors as usize;
        let mut all = Vec::with_capacity(layout.blocks_bytes(vectors));
        let mut blocks = Vec::new();
        for chunk in 0..vectors.div_ceil(CHUNK_ROWS) {
            self.sketch_chunk(group, layout, chunk, &mut blocks)?;
            all.extend_from_slice(&blocks);
        }
        Ok(all)
    }

    /// Takes the CRC off the end of `bytes` and checks it.
    fn check_sketches(&self, group: u16, index: u64, bytes: &mut Vec<u8>, at: u64) -> Result<()> {
        let crc = bytes.split_off(bytes.len().saturating_sub(CRC_BYTES));
        let counted = self.seed.crc(SectionKind::Sketches, group, index, bytes);
        if Safeguard::ArchiveSketchCrc.finds(crc != counted.to_le_bytes()) {
            return Err(self.damaged(at, "CRC of sketches differs"));
        }
        Ok(())
    }
}
