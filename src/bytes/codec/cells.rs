//! Cells: the sketches of a collection's archived rows, grouped by nearness.
//!
//! ```text
//! header (64): magic (8) | format u32 | cells u32 | store id (16) | number u64 | collection u32
//!             | dim u32 | rows u32 | sources u32 | zeros (4) | header CRC u32
//! tables:       sources x (segment u64, group u32, vectors u32, CRC u32) | cells x rows u32
//!             | cells x centroid (12 + dim bytes) | rows x reference u32 | margins (1,024) | tables CRC u32
//! bodies:       per cell: blocks of 64 sketches | CRC u32
//! ```
//!
//! Little-endian. A source is a group of a sealed segment; a row that stands at place p of the n-th
//! source has the reference p + the vectors of all sources before. References of a cell are ascending,
//! and stand in the order of its sketches. A centroid is a packed row of 8-bit codes; decoded, it is
//! the mean that was taken away from the sketches of its cell. Margins: for each of 32 levels of the cosine
//! of the last hit, and each of the shares [`SHARES`](crate::pure::margins::SHARES), how far below the best
//! centroid's cosine cells are worth a look; as f32.
//!
//! Vectors are compared by cosine: no other metric has cells. Checksums of tables and bodies begin with
//! store id, number and place, so that none verifies elsewhere. The file ends with the last CRC.

use crate::bytes::codec::codes;
use crate::bytes::codec::cursor::{Put, Reader};
use crate::bytes::codec::segment::Damage;
use crate::pure::margins::{MARGIN_MAX, Margins};
use crate::pure::sketch::SketchLayout;
use crate::words::id::CollectionId;
use crate::words::limits;
use crate::words::options::Metric;
use crate::words::safeguard::Safeguard;

/// First bytes of the file.
pub const MAGIC: [u8; 8] = *b"pmllCEL\n";
/// Format number; 0 is the development format, refused by every later build.
pub const FORMAT: u32 = 0;
/// Length of the header.
pub const HEADER_BYTES: usize = 64;
/// Length of a source.
pub const SOURCE_BYTES: usize = 20;
/// Most cells: their numbers take two bytes while rows are assigned.
pub const CELLS_MAX: u32 = 1 << 16;
/// Length of the margins.
pub const MARGINS_BYTES: usize = size_of::<Margins>();
const CRC_BYTES: usize = 4;

/// What a file of cells says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellsHeader {
    /// The store it belongs to.
    pub store_id: [u8; 16],
    /// Its number.
    pub number: u64,
    /// Whose rows are grouped.
    pub collection: CollectionId,
    /// Values of a vector.
    pub dim: u32,
    /// Number of cells, at least 1; some may be empty.
    pub cells: u32,
    /// Rows of all cells, at least 1.
    pub rows: u32,
    /// Number of sources, at least 1.
    pub sources: u32,
}

/// A group of the archive whose rows are in the cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Number of its segment.
    pub segment: u64,
    /// Its number there.
    pub group: u16,
    /// Its rows with a vector, of which those that were dead are in no cell.
    pub vectors: u32,
    /// CRC of the segment's footer: its identity.
    pub crc: u32,
}

/// What stands between header and bodies.
#[derive(Clone, Debug, PartialEq)]
pub struct Tables {
    /// The groups that are grouped, ascending.
    pub sources: Vec<Source>,
    /// Rows of each cell.
    pub rows: Vec<u32>,
    /// Packed rows of codes, one a cell.
    pub centroids: Vec<u8>,
    /// References, cell by cell.
    pub refs: Vec<u32>,
    /// How far to look.
    pub margins: Margins,
}

impl CellsHeader {
    /// Bytes of a centroid.
    #[must_use]
    pub fn centroid_bytes(&self) -> usize {
        codes::layout(self.dim).map_or(0, |layout| layout.row_bytes())
    }

    /// How sketches are laid out; every header that decodes has a layout.
    #[must_use]
    pub fn sketches(&self) -> Option<SketchLayout> {
        SketchLayout::new(self.dim as usize, Metric::Cosine)
    }

    /// Bytes of the tables with their CRC.
    #[must_use]
    pub fn tables_bytes(&self) -> u64 {
        let cells = u64::from(self.cells) * (4 + self.centroid_bytes() as u64);
        let sources = u64::from(self.sources) * SOURCE_BYTES as u64;
        sources + cells + 4 * u64::from(self.rows) + (MARGINS_BYTES + CRC_BYTES) as u64
    }

    /// Where the bodies begin.
    #[must_use]
    pub fn bodies_at(&self) -> u64 {
        HEADER_BYTES as u64 + self.tables_bytes()
    }

    fn check(&self) -> Result<(), Damage> {
        if self.cells == 0
            || self.cells > CELLS_MAX
            || self.rows == 0
            || self.sources == 0
            || self.sources > self.rows
            || self.dim == 0
            || self.dim as usize > limits::DIM_MAX
        {
            return Err(Damage::new("its counts contradict each other"));
        }
        Ok(())
    }

    fn crc(&self, part: u64, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.store_id);
        hasher.update(&self.number.to_le_bytes());
        hasher.update(&part.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize()
    }

    /// The header's bytes.
    pub fn encode(&self) -> Result<Vec<u8>, Damage> {
        self.check()?;
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.put_bytes(&MAGIC);
        out.put_u32(FORMAT);
        out.put_u32(self.cells);
        out.put_bytes(&self.store_id);
        out.put_u64(self.number);
        out.put_u32(self.collection.0);
        out.put_u32(self.dim);
        out.put_u32(self.rows);
        out.put_u32(self.sources);
        out.put_bytes(&[0; 4]);
        let crc = crc32fast::hash(&out);
        out.put_u32(crc);
        Ok(out)
    }

    /// Reads a header: format and fields. The format is told before the CRC is looked at, which a
    /// later one may compute otherwise.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<(u32, CellsHeader), Damage> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != MAGIC {
            return Err(Damage::new("it does not begin as a file of cells"));
        }
        let format = reader.u32()?;
        let cells = reader.u32()?;
        let header = CellsHeader {
            cells,
            store_id: reader.array()?,
            number: reader.u64()?,
            collection: CollectionId(reader.u32()?),
            dim: reader.u32()?,
            rows: reader.u32()?,
            sources: reader.u32()?,
        };
        if format != FORMAT {
            return Ok((format, header));
        }
        let (body, crc) = bytes.split_last_chunk::<CRC_BYTES>().unwrap_or((&[], &[0; 4]));
        if Safeguard::CellsHeaderCrc.finds(crc32fast::hash(body).to_le_bytes() != *crc) {
            return Err(Damage::new("header CRC differs"));
        }
        header.check()?;
        Ok((format, header))
    }
}

impl Tables {
    /// The bytes of the tables with their CRC.
    pub fn encode(&self, header: &CellsHeader) -> Result<Vec<u8>, Damage> {
        self.check(header)?;
        let mut out = Vec::with_capacity(header.tables_bytes() as usize);
        for source in &self.sources {
            out.put_u64(source.segment);
            out.put_u32(u32::from(source.group));
            out.put_u32(source.vectors);
            out.put_u32(source.crc);
        }
        self.rows.iter().for_each(|rows| out.put_u32(*rows));
        out.put_bytes(&self.centroids);
        self.refs.iter().for_each(|reference| out.put_u32(*reference));
        self.margins.iter().flatten().for_each(|margin| out.put_f32(*margin));
        let crc = header.crc(u64::MAX, &out);
        out.put_u32(crc);
        Ok(out)
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(header: &CellsHeader, bytes: &[u8]) -> Result<Tables, Damage> {
        if bytes.len() as u64 != header.tables_bytes() {
            return Err(Damage::new("tables of another length than the header says"));
        }
        let (body, crc) = bytes.split_last_chunk::<CRC_BYTES>().unwrap_or((&[], &[0; 4]));
        if Safeguard::CellsTablesCrc.finds(header.crc(u64::MAX, body).to_le_bytes() != *crc) {
            return Err(Damage::new("CRC of the tables differs"));
        }
        let mut reader = Reader::new(body);
        let mut sources = Vec::new();
        for _ in 0..header.sources {
            let (segment, group, vectors) = (reader.u64()?, reader.u32()?, reader.u32()?);
            let group = u16::try_from(group).map_err(|_| Damage::new("a group beyond all"))?;
            sources.push(Source { segment, group, vectors, crc: reader.u32()? });
        }
        let numbers = |bytes: &[u8]| -> Vec<u32> {
            bytes.as_chunks().0.iter().map(|four| u32::from_le_bytes(*four)).collect()
        };
        let rows = numbers(reader.bytes(header.cells as usize * 4)?);
        let centroids = header.cells as usize * header.centroid_bytes();
        let centroids = reader.bytes(centroids)?.to_vec();
        let refs = numbers(reader.bytes(header.rows as usize * 4)?);
        let mut margins = Margins::default();
        for margin in margins.iter_mut().flatten() {
            *margin = reader.f32()?;
        }
        let tables = Tables { sources, rows, centroids, refs, margins };
        tables.check(header)?;
        Ok(tables)
    }

    /// Whether the parts agree with each other and the header.
    fn check(&self, header: &CellsHeader) -> Result<(), Damage> {
        let contradict = |what: &str| Err(Damage::new(what));
        let is_sorted =
            self.sources.is_sorted_by(|a, b| (a.segment, a.group) < (b.segment, b.group));
        if self.sources.len() != header.sources as usize || !is_sorted {
            return contradict("its sources are not in order");
        }
        let vectors: u64 = self.sources.iter().map(|source| u64::from(source.vectors)).sum();
        let rows: u64 = self.rows.iter().map(|rows| u64::from(*rows)).sum();
        if vectors > u64::from(u32::MAX)
            || rows != u64::from(header.rows)
            || self.rows.len() != header.cells as usize
            || self.refs.len() != header.rows as usize
            || self.centroids.len() != header.cells as usize * header.centroid_bytes()
        {
            return contradict("its tables contradict its header");
        }
        if self.refs.iter().any(|reference| u64::from(*reference) >= vectors) {
            return contradict("a reference to no row");
        }
        let mut refs = self.refs.as_slice();
        for rows in &self.rows {
            let (own, rest) = refs.split_at((*rows as usize).min(refs.len()));
            refs = rest;
            if !own.is_sorted_by(|a, b| a < b) {
                return contradict("references of a cell that do not ascend");
            }
        }
        if !self.margins.iter().flatten().all(|margin| (0.0..=MARGIN_MAX).contains(margin)) {
            return contradict("a margin beyond all cosines");
        }
        Ok(())
    }
}

/// Bytes of the body of a cell of so many rows, with its CRC; none without rows.
#[must_use]
pub fn body_bytes(layout: SketchLayout, rows: u32) -> usize {
    if rows == 0 { 0 } else { layout.blocks_bytes(rows as usize) + CRC_BYTES }
}

/// Puts the CRC behind the blocks of a cell.
pub fn seal_body(header: &CellsHeader, cell: u32, blocks: &mut Vec<u8>) {
    let crc = header.crc(u64::from(cell), blocks);
    blocks.put_u32(crc);
}

/// The blocks of a cell, checked, of its whole body.
pub fn open_body<'a>(header: &CellsHeader, cell: u32, body: &'a [u8]) -> Result<&'a [u8], Damage> {
    let (blocks, crc) = body.split_last_chunk::<CRC_BYTES>().unwrap_or((&[], &[0; 4]));
    let differs = header.crc(u64::from(cell), blocks).to_le_bytes() != *crc;
    if Safeguard::CellsBodyCrc.finds(differs) {
        return Err(Damage::new(format!("CRC of cell {cell} differs")));
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (CellsHeader, Tables) {
        let header = CellsHeader {
            store_id: [7; 16],
            number: 3,
            collection: CollectionId(2),
            dim: 4,
            cells: 2,
            rows: 3,
            sources: 2,
        };
        let source = |segment, vectors| Source { segment, group: 0, vectors, crc: 8 };
        let tables = Tables {
            sources: vec![source(1, 2), source(4, 2)],
            rows: vec![1, 2],
            centroids: vec![9; 2 * 16],
            refs: vec![3, 0, 2],
            margins: [[0.5; 8]; 32],
        };
        (header, tables)
    }

    #[test]
    fn what_was_written_comes_back_and_every_flip_is_seen() {
        let (header, tables) = example();
        let head = header.encode().unwrap();
        let bytes = tables.encode(&header).unwrap();
        assert_eq!((head.len(), bytes.len() as u64), (HEADER_BYTES, header.tables_bytes()));
        let head: [u8; HEADER_BYTES] = head.try_into().unwrap();
        assert_eq!(CellsHeader::decode(&head).unwrap(), (FORMAT, header));
        assert_eq!(Tables::decode(&header, &bytes).unwrap(), tables);
        for at in 0..head.len() {
            let mut flipped = head;
            flipped[at] ^= 1;
            let read = CellsHeader::decode(&flipped);
            assert!(read.is_err() || read.unwrap().0 != FORMAT, "byte {at}");
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(Tables::decode(&header, &flipped).is_err(), "byte {at}");
        }
        let mut body = vec![5; 64];
        seal_body(&header, 1, &mut body);
        assert_eq!(open_body(&header, 1, &body).unwrap(), &[5; 64]);
        assert!(open_body(&header, 0, &body).is_err(), "another cell's");
    }

    #[test]
    fn tables_that_contradict_each_other_are_refused() {
        let (header, tables) = example();
        let mut beyond = tables.clone();
        beyond.refs[0] = 4;
        let mut unsorted = tables.clone();
        unsorted.sources.reverse();
        let mut wide = tables.clone();
        wide.margins[31][7] = 2.5;
        let mut twice = tables.clone();
        twice.refs[2] = 0;
        let mut fewer = tables;
        fewer.rows[0] = 0;
        for wrong in [beyond, unsorted, wide, twice, fewer] {
            assert!(wrong.encode(&header).is_err(), "{wrong:?}");
        }
    }
}
