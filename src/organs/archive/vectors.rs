//! Exact vectors: one at a time with its CRC, or in blocks for exact scans.
//!
//! Vectors have a fixed stride, so a block is one read straight into the caller's floats. The CRC
//! of a vector stands in its row. It is checked when the vector is first read; one bit remembers it,
//! so that later scans pay nothing, and who knows the row's number need not read the row.
//!
//! Values of two bytes are widened to f32, which is exact.

use std::sync::atomic::{AtomicU64, Ordering};

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::bytes::codec::row::{ROW_BYTES, Row};
use crate::bytes::codec::segment::SectionKind;
use crate::words::error::Result;
use crate::words::options::Element;
use crate::words::safeguard::Safeguard;

use super::segment::Segment;

/// Vectors that a word of [`Checked`] speaks of.
const BLOCK: u32 = 64;

/// Which of a group's vectors were checked since the segment was opened.
pub(super) struct Checked(Box<[AtomicU64]>);

impl Checked {
    pub(super) fn new(vectors: u32) -> Checked {
        Checked((0..vectors.div_ceil(BLOCK)).map(|_| AtomicU64::new(0)).collect())
    }

    pub(super) fn resident_bytes(&self) -> usize {
        self.0.len() * size_of::<AtomicU64>()
    }

    /// Whether all of `first..last`, which lie in one block, were checked.
    fn get(&self, first: u32, last: u32) -> bool {
        let word = self.0.get((first / BLOCK) as usize);
        word.is_some_and(|word| !word.load(Ordering::Relaxed) & bits(first, last) == 0)
    }

    fn set(&self, first: u32, last: u32) {
        if let Some(word) = self.0.get((first / BLOCK) as usize) {
            word.fetch_or(bits(first, last), Ordering::Relaxed);
        }
    }
}

/// The bits of `first..last`, which lie in one block.
fn bits(first: u32, last: u32) -> u64 {
    let count = last.saturating_sub(first);
    u64::MAX.checked_shr(BLOCK.saturating_sub(count)).unwrap_or(0) << (first % BLOCK)
}

impl Segment {
    /// Reads the exact vector of row `number`, if it was checked before: by its number alone. Says whether it was;
    /// only then `out` is that vector.
    pub fn checked_vector(&self, group: u16, number: u32, out: &mut Vec<f32>) -> Result<bool> {
        let checked = self.checked.get(usize::from(group));
        if !checked.is_some_and(|checked| checked.get(number, number.saturating_add(1))) {
            return Ok(false);
        }
        let (offset, _) = self.vector_place(group, number)?;
        out.resize(self.group(group)?.dim as usize, 0.0);
        widen(self.group(group)?.element, out, |bytes| self.read(bytes, offset))?;
        Ok(true)
    }

    /// Whether the exact vector of row `number` can be read without a wait for the medium. If not, it will be
    /// read soon, and the row: on a disk that is asked for many at once, they arrive together.
    pub fn fetch_vector(&self, group: u16, number: u32) -> bool {
        // What is wrong, the read says.
        let places = (self.row_offset(group, number, 1), self.vector_place(group, number));
        let (Ok(row), Ok((vector, stride))) = places else { return true };
        if !matches!(self.file.read_if_cached(&mut [0], vector), Ok(false)) {
            return true;
        }
        self.file.will_read(row, ROW_BYTES);
        self.file.will_read(vector, stride);
        false
    }

    /// Where the exact vector of row `number` stands, if the row has one, and its bytes.
    pub(super) fn vector_place(&self, group: u16, number: u32) -> Result<(u64, usize)> {
        let stride = self.group(group)?.stride();
        let vectors = self.section(group, SectionKind::Vectors)?.offset;
        Ok((vectors + u64::from(number) * stride as u64, stride))
    }

    /// The exact vector of a row, or `None` when it has none.
    pub fn vector(&self, group: u16, row: &Row) -> Result<Option<Vec<f32>>> {
        let Some(index) = row.vector_index else { return Ok(None) };
        let stride = self.group(group)?.stride();
        let section = self.section(group, SectionKind::Vectors)?;
        let offset = section.offset + u64::from(index) * stride as u64;
        if index >= section.items {
            return Err(self.damaged(section.offset, format!("there is no vector {index}")));
        }
        let mut values = vec![0.0; self.group(group)?.dim as usize];
        widen(self.group(group)?.element, &mut values, |bytes| {
            self.read(bytes, offset)?;
            self.check_vector(group, row, bytes, offset)
        })?;
        if let Some(checked) = self.checked.get(usize::from(group)) {
            checked.set(index, index.saturating_add(1));
        }
        Ok(Some(values))
    }

    /// Appends the values of vectors `from .. from + count` of a group to `out`, `dim` floats each.
    /// Vector numbers are row numbers. On an error `out` is as before.
    pub fn vectors(&self, group: u16, from: u32, count: u32, out: &mut Vec<f32>) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let section = self.section(group, SectionKind::Vectors)?;
        let end = from.checked_add(count).filter(|end| *end <= section.items).ok_or_else(|| {
            self.damaged(section.offset, format!("there are no vectors {from} + {count}"))
        })?;
        let (dim, element) = (self.group(group)?.dim as usize, self.group(group)?.element);
        let values = count as usize * dim;
        let start = out.len();
        out.resize(start + values, 0.0);
        let result = match out.get_mut(start..) {
            Some(space) => widen(element, space, |bytes| self.block(group, from, end, bytes)),
            None => Ok(()),
        };
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    /// Reads the stored bytes of vectors `from..end` and checks those of blocks not checked yet.
    fn block(&self, group: u16, from: u32, end: u32, bytes: &mut [u8]) -> Result<()> {
        let stride = self.group(group)?.stride();
        let section = self.section(group, SectionKind::Vectors)?;
        let checked = self.checked.get(usize::from(group));
        let offset = section.offset + u64::from(from) * stride as u64;
        self.read(bytes, offset)?;
        let mut rows = Vec::new();
        for block in from / BLOCK..end.div_ceil(BLOCK) {
            let block_end = block.saturating_add(1).saturating_mul(BLOCK);
            let (first, last) = (from.max(block * BLOCK), end.min(block_end));
            if checked.is_some_and(|c| c.get(first, last)) {
                continue;
            }
            rows.clear();
            self.rows(group, first, last - first, &mut rows)?;
            let part = bytes.get((first - from) as usize * stride..).unwrap_or_default();
            for (row, vector) in rows.iter().zip(part.chunks_exact(stride)) {
                let at = section.offset + u64::from(row.number) * stride as u64;
                self.check_vector(group, row, vector, at)?;
            }
            if let Some(checked) = checked {
                checked.set(first, last);
            }
        }
        Ok(())
    }

    pub(super) fn check_vector(&self, group: u16, row: &Row, bytes: &[u8], at: u64) -> Result<()> {
        let index = u64::from(row.number);
        let differs = self.seed.crc(SectionKind::Vectors, group, index, bytes) != row.vector_crc;
        if !Safeguard::ArchiveVectorCrc.finds(differs) {
            return Ok(());
        }
        Err(self.damaged(at, format!("CRC of the vector of row {} differs", row.number)))
    }
}

/// Fills `values` from stored bytes: `fill` gets the space for them, and reads and checks them
/// there.
fn widen(
    element: Element,
    values: &mut [f32],
    fill: impl FnOnce(&mut [u8]) -> Result<()>,
) -> Result<()> {
    match element {
        Element::F32 => {
            fill(bytemuck::cast_slice_mut(values))?;
            if cfg!(target_endian = "big") {
                values.iter_mut().for_each(|v| *v = f32::from_bits(v.to_bits().swap_bytes()));
            }
        }
        Element::F16 => {
            let mut halves = vec![f16::ZERO; values.len()];
            fill(bytemuck::cast_slice_mut(&mut halves))?;
            if cfg!(target_endian = "big") {
                halves.iter_mut().for_each(|v| *v = f16::from_bits(v.to_bits().swap_bytes()));
            }
            halves.convert_to_f32_slice(values);
        }
    }
    Ok(())
}
