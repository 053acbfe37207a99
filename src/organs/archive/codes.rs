//! Codes of a segment's vectors: int8 rows that rank candidates without their exact vectors.
//!
//! Each row stands by itself, with a CRC behind it, so that a candidate costs one small read (400
//! bytes at 384 dimensions, where the exact vector takes 1,536). The rows are the quantiser's, bound
//! to their place like everything in a segment; whoever needs 4-bit codes narrows these.

use crate::bytes::codec::codes::{CRC_BYTES, stride};
use crate::bytes::codec::segment::SectionKind;
use crate::words::error::Result;
use crate::words::safeguard::Safeguard;

use super::segment::Segment;

impl Segment {
    /// Replaces `row` by the packed 8-bit codes of a row, laid out by
    /// [`layout`](crate::bytes::codec::codes::layout).
    pub fn code(&self, group: u16, number: u32, row: &mut Vec<u8>) -> Result<()> {
        let offset = self.code_offset(group, number, row)?;
        self.read(row, offset)?;
        self.check_code(group, number, row, offset)
    }

    /// The same if that takes no wait for the medium; says whether it did. If not, they are on their way, and
    /// `row` holds no codes.
    pub fn code_if_cached(&self, group: u16, number: u32, row: &mut Vec<u8>) -> Result<bool> {
        let offset = self.code_offset(group, number, row)?;
        let is_read = self.read_if_cached(row, offset)?;
        match is_read {
            true => self.check_code(group, number, row, offset)?,
            false => self.file.will_read(offset, row.len()),
        }
        Ok(is_read)
    }

    /// Where the codes of a row stand; `row` gets room for them and their CRC.
    fn code_offset(&self, group: u16, number: u32, row: &mut Vec<u8>) -> Result<u64> {
        let section = self.section(group, SectionKind::Codes)?;
        let stride = stride(self.group(group)?.dim);
        if number >= section.items {
            return Err(self.damaged(section.offset, format!("there are no codes {number}")));
        }
        row.resize(stride, 0);
        Ok(section.offset + u64::from(number) * stride as u64)
    }

    /// Checks and takes away the CRC behind the codes of a row.
    fn check_code(&self, group: u16, number: u32, row: &mut Vec<u8>, offset: u64) -> Result<()> {
        let (codes, crc) = row.split_last_chunk::<CRC_BYTES>().unwrap_or((&[], &[0; CRC_BYTES]));
        let expected = self.seed.crc(SectionKind::Codes, group, u64::from(number), codes);
        if Safeguard::ArchiveCodeCrc.finds(*crc != expected.to_le_bytes()) {
            return Err(self.damaged(offset, format!("CRC of the codes of row {number} differs")));
        }
        let len = codes.len();
        row.truncate(len);
        Ok(())
    }

    /// Replaces `rows` by the packed 8-bit codes of rows `from .. from + count` of a group.
    pub fn codes(&self, group: u16, from: u32, count: u32, rows: &mut Vec<u8>) -> Result<()> {
        let section = self.section(group, SectionKind::Codes)?;
        let stride = stride(self.group(group)?.dim);
        if from.checked_add(count).is_none_or(|end| end > section.items) {
            let message = format!("there are no codes {from} + {count}");
            return Err(self.damaged(section.offset, message));
        }
        let offset = section.offset + u64::from(from) * stride as u64;
        let mut bytes = vec![0; count as usize * stride];
        self.read(&mut bytes, offset)?;
        rows.clear();
        for (row, number) in bytes.chunks_exact(stride.max(1)).zip(from..) {
            let Some((row, crc)) = row.split_last_chunk::<CRC_BYTES>() else { continue };
            let expected = self.seed.crc(SectionKind::Codes, group, u64::from(number), row);
            if Safeguard::ArchiveCodeCrc.finds(*crc != expected.to_le_bytes()) {
                let at = offset + u64::from(number - from) * stride as u64;
                let message = format!("CRC of the codes of row {number} differs");
                return Err(self.damaged(at, message));
            }
            rows.extend_from_slice(row);
        }
        Ok(())
    }

    /// Whether the codes of some rows can be read without a wait for the medium, as the last of them
    /// says. If not, they will be read soon.
    pub fn fetch_codes(&self, group: u16, from: u32, count: u32) -> bool {
        let stride = self.group(group).map(|group| stride(group.dim));
        // What is wrong, the read says.
        let (Ok(section), Ok(stride)) = (self.section(group, SectionKind::Codes), stride) else {
            return true;
        };
        self.fetch(section.offset + u64::from(from) * stride as u64, count as usize * stride)
    }
}
