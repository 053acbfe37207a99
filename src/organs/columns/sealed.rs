//! One sealed file of the columns: rows sorted by id, in blocks with a checksum each.
//!
//! ```text
//! block 0..n   4,096 bytes: 113 rows of 36, row count u32, zeros (20), CRC u32
//! index        the first id of every block, u64 each
//! tail         40 bytes: magic, number u64, covers u64, rows u64, blocks u32, CRC u32 over index
//!              and tail
//! row          id u64, last access i64 (microseconds), count u32, heat f32 (decayed count), gap u32
//!              (seconds between the last two accesses; the greatest value for none), near_s u32 (when
//!              the next was seen, in seconds), near u16 (greatest cosine to a query, in units of
//!              1/65,535), flags u16 (bit 0: removed)
//! ```
//!
//! Everything is little-endian. A block's CRC also covers the file's number and the block's, so
//! that a block of another file or place does not verify. The file is written under a temporary
//! name, synced, renamed; it never changes afterwards. Only the index stays in RAM; a look-up
//! reads one block.
//!
//! Never: decides which file counts, or merges.

use std::io;
use std::sync::Arc;

use crate::bytes::codec::cursor::{Put, Reader, Short};
use crate::io::{Disk, File, OpenMode, join};
use crate::organs::columns::row::Row;
use crate::words::error::{Error, Result};
use crate::words::id::{EntryId, Timestamp};
use crate::words::safeguard::Safeguard;

/// The folder of the columns.
pub const FOLDER: &str = "columns";
const SUFFIX: &str = ".col";
const TEMPORARY: &str = ".col.tmp";
const MAGIC: &[u8; 8] = b"pmllcol2";
const BLOCK_BYTES: usize = 4096;
const ROW_BYTES: usize = 36;
/// Rows of a full block.
pub const BLOCK_ROWS: usize = (BLOCK_BYTES - 16) / ROW_BYTES;
const COUNT_AT: usize = BLOCK_ROWS * ROW_BYTES;
const CRC_AT: usize = BLOCK_BYTES - 4;
const TAIL_BYTES: usize = 40;
const REMOVED: u16 = 1;
/// Blocks gathered before a write, so that a large file is written in a few calls.
const WRITE_BYTES: usize = 64 * BLOCK_BYTES;

/// An open sealed file.
#[derive(Debug)]
pub struct Sealed {
    file: Arc<dyn File>,
    number: u64,
    covers: u64,
    rows: u64,
    bytes: u64,
    /// First id of every block.
    index: Vec<u64>,
}

/// Name of a sealed file in the folder.
pub fn file_name(number: u64) -> String {
    format!("{number:010}{SUFFIX}")
}

/// The number in a sealed file's name, `None` for any other name.
pub fn number_of(name: &str) -> Option<u64> {
    digits(name.strip_suffix(SUFFIX)?)
}

/// Whether a crash left this name behind while a sealed file was being written.
pub fn is_temporary(name: &str) -> bool {
    name.strip_suffix(TEMPORARY).and_then(digits).is_some()
}

fn digits(text: &str) -> Option<u64> {
    let plain = text.len() >= 10 && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// Writes rows, sorted by id, as one sealed file that stands for all files numbered from `covers`
/// up to its own number. Durable when it returns.
pub fn write(
    disk: &dyn Disk,
    number: u64,
    covers: u64,
    rows: impl Iterator<Item = Row>,
) -> Result<Sealed> {
    let path = join(FOLDER, &file_name(number));
    let temporary = format!("{path}.tmp");
    let written = write_temporary(disk, &temporary, number, covers, rows).and_then(|()| {
        disk.rename(&temporary, &path)?;
        Safeguard::ColumnsDirSync.keep(|| disk.sync_dir(FOLDER))
    });
    if let Err(error) = written {
        // Best effort: neither name may count, as the caller will write the same rows again.
        let _ = disk.remove(&temporary);
        let _ = disk.remove(&path);
        return Err(Error::io(format!("write {path}"), error));
    }
    Sealed::open(disk, number)
}

fn write_temporary(
    disk: &dyn Disk,
    temporary: &str,
    number: u64,
    covers: u64,
    rows: impl Iterator<Item = Row>,
) -> io::Result<()> {
    match disk.remove(temporary) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let file = disk.open(temporary, OpenMode::CreateNew)?;
    let (mut out, mut offset) = (Vec::with_capacity(WRITE_BYTES), 0u64);
    let mut index: Vec<u64> = Vec::new();
    let (mut in_block, mut total) = (0usize, 0u64);
    for row in rows {
        if in_block == 0 {
            index.push(row.id.0);
        }
        put_row(&mut out, &row);
        in_block += 1;
        total += 1;
        if in_block == BLOCK_ROWS {
            end_block(&mut out, number, index.len(), in_block);
            in_block = 0;
            if out.len() >= WRITE_BYTES {
                file.write_at(&out, offset)?;
                offset += out.len() as u64;
                out.clear();
            }
        }
    }
    if in_block > 0 {
        end_block(&mut out, number, index.len(), in_block);
    }
    let tail_from = out.len();
    for first in &index {
        out.put_u64(*first);
    }
    out.put_bytes(MAGIC);
    out.put_u64(number);
    out.put_u64(covers);
    out.put_u64(total);
    let blocks = u32::try_from(index.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    out.put_u32(blocks);
    let crc = crc32fast::hash(out.get(tail_from..).unwrap_or_default());
    out.put_u32(crc);
    file.write_at(&out, offset)?;
    Safeguard::ColumnsSync.keep(|| file.sync())
}

fn put_row(out: &mut Vec<u8>, row: &Row) {
    out.put_u64(row.id.0);
    out.put_i64(row.last.0);
    out.put_u32(row.count);
    out.put_f32(row.heat);
    out.put_u32(row.gap_s);
    out.put_u32(row.near_s);
    out.put_u16(row.near);
    out.put_u16(if row.removed { REMOVED } else { 0 });
}

/// Fills the block that ends `out` up to its size and closes it; `blocks` counts it already.
fn end_block(out: &mut Vec<u8>, number: u64, blocks: usize, rows: usize) {
    let start = out.len() - rows * ROW_BYTES;
    out.resize(start + COUNT_AT, 0);
    out.put_u32(rows as u32);
    out.resize(start + CRC_AT, 0);
    let body = out.get(start..).unwrap_or_default();
    let crc = block_crc(number, blocks as u64 - 1, body);
    out.put_u32(crc);
}

fn block_crc(number: u64, block: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&block.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

impl Sealed {
    /// Opens a sealed file and checks its tail and index. Errors with `Corrupt` or `Io`.
    pub fn open(disk: &dyn Disk, number: u64) -> Result<Sealed> {
        let path = join(FOLDER, &file_name(number));
        let io_error = |e| Error::io(format!("read {path}"), e);
        let damaged =
            |what: &str, at: u64| Error::corrupt(format!("{path}: {what} at offset {at}"));
        let file = disk.open(&path, OpenMode::Read).map_err(io_error)?;
        let bytes = file.len().map_err(io_error)?;
        let tail_at = bytes.checked_sub(TAIL_BYTES as u64);
        let tail_at = tail_at.ok_or_else(|| damaged("it is too short", 0))?;
        let mut tail = [0; TAIL_BYTES];
        file.read_exact_at(&mut tail, tail_at).map_err(io_error)?;
        let stated = Tail::read(&tail).map_err(|short| damaged(&short.to_string(), tail_at))?;
        let blocks_bytes = u64::from(stated.blocks) * BLOCK_BYTES as u64;
        let index_bytes = u64::from(stated.blocks) * 8;
        // The length decides before the index is allocated: no number asks for more than is there.
        if &stated.magic != MAGIC
            || stated.number != number
            || stated.covers > number
            || blocks_bytes + index_bytes != tail_at
            || stated.rows > u64::from(stated.blocks) * BLOCK_ROWS as u64
        {
            return Err(damaged("the tail is not one of this file", tail_at));
        }
        let index_len = usize::try_from(index_bytes).unwrap_or(usize::MAX);
        let mut all = vec![0; index_len];
        file.read_exact_at(&mut all, blocks_bytes).map_err(io_error)?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&all);
        hasher.update(tail.split_last_chunk::<4>().map_or(&[], |(body, _)| body));
        if Safeguard::ColumnsTailCrc.finds(hasher.finalize() != stated.crc) {
            return Err(damaged("the index does not match its checksum", blocks_bytes));
        }
        let mut index = Vec::with_capacity(stated.blocks as usize);
        let mut reader = Reader::new(&all);
        while let Ok(first) = reader.u64() {
            index.push(first);
        }
        if !index.is_sorted() {
            return Err(damaged("the index is not sorted", blocks_bytes));
        }
        Ok(Sealed { file, number, covers: stated.covers, rows: stated.rows, bytes, index })
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The lowest number of the files it stands for.
    pub fn covers(&self) -> u64 {
        self.covers
    }

    /// Rows in it.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Length of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Blocks in it.
    pub fn blocks(&self) -> usize {
        self.index.len()
    }

    /// RAM it takes.
    pub fn resident_bytes(&self) -> u64 {
        (self.index.capacity() * 8) as u64
    }

    /// The row of an id. Errors with `Corrupt` when its block is damaged.
    pub fn find(&self, id: EntryId) -> Result<Option<Row>> {
        let Some(block) = self.index.partition_point(|first| *first <= id.0).checked_sub(1) else {
            return Ok(None);
        };
        let mut bytes = [0; BLOCK_BYTES];
        let count = self.read_block(block, &mut bytes)?;
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            let row = self.row(block, &bytes, middle)?;
            match row.id.cmp(&id) {
                std::cmp::Ordering::Equal => return Ok(Some(row)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    /// Appends the rows of one block.
    pub fn block(&self, block: usize, out: &mut Vec<Row>) -> Result<()> {
        let mut bytes = [0; BLOCK_BYTES];
        let count = self.read_block(block, &mut bytes)?;
        for row in 0..count {
            out.push(self.row(block, &bytes, row)?);
        }
        Ok(())
    }

    fn damaged(&self, block: usize) -> Error {
        let path = join(FOLDER, &file_name(self.number));
        let at = block * BLOCK_BYTES;
        Error::corrupt(format!("{path}: a block does not match its checksum at offset {at}"))
    }

    /// Reads and checks a block; how many rows it has.
    fn read_block(&self, block: usize, bytes: &mut [u8; BLOCK_BYTES]) -> Result<usize> {
        let at = block as u64 * BLOCK_BYTES as u64;
        let path = || join(FOLDER, &file_name(self.number));
        self.file.read_exact_at(bytes, at).map_err(|e| Error::io(format!("read {}", path()), e))?;
        let (body, stored) = bytes.split_last_chunk::<4>().ok_or_else(|| self.damaged(block))?;
        debug_assert_eq!(body.len(), CRC_AT);
        let differs = u32::from_le_bytes(*stored) != block_crc(self.number, block as u64, body);
        if Safeguard::ColumnsBlockCrc.finds(differs) {
            return Err(self.damaged(block));
        }
        let mut reader = Reader::new(body);
        let count = reader.skip(COUNT_AT).and_then(|()| reader.u32());
        match count {
            Ok(count) if count as usize <= BLOCK_ROWS => Ok(count as usize),
            _ => Err(self.damaged(block)),
        }
    }

    fn row(&self, block: usize, bytes: &[u8], row: usize) -> Result<Row> {
        let read = || -> Result<Row, Short> {
            let mut reader = Reader::new(bytes);
            reader.skip(row * ROW_BYTES)?;
            Ok(Row {
                id: EntryId(reader.u64()?),
                last: Timestamp(reader.i64()?),
                count: reader.u32()?,
                // A checksum vouches for the bytes, nobody for the sense of what an older build wrote.
                heat: Some(reader.f32()?).filter(|heat| heat.is_finite()).unwrap_or(0.0).max(0.0),
                gap_s: reader.u32()?,
                near_s: reader.u32()?,
                near: reader.u16()?,
                removed: reader.u16()? & REMOVED != 0,
            })
        };
        read().map_err(|_| self.damaged(block))
    }
}

struct Tail {
    magic: [u8; 8],
    number: u64,
    covers: u64,
    rows: u64,
    blocks: u32,
    crc: u32,
}

impl Tail {
    fn read(bytes: &[u8]) -> Result<Tail, Short> {
        let mut reader = Reader::new(bytes);
        Ok(Tail {
            magic: reader.array()?,
            number: reader.u64()?,
            covers: reader.u64()?,
            rows: reader.u64()?,
            blocks: reader.u32()?,
            crc: reader.u32()?,
        })
    }
}
