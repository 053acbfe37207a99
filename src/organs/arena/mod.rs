//! The arena: Level 1, sealed blocks of packed codes, mapped for reading.
//!
//! A block `arena/NNNNNNNNNN.blk` is filled in memory and written in one go: temporary name, sync,
//! rename, sync of the folder. From then on it never changes; what is not wanted any more goes with
//! its block. Each row says which version of which entry it is, so no pointer to a block stands
//! anywhere: a block that is lost, torn, stale or another store's is not used, and the archive
//! answers instead.
//!
//! The table of a block is checked when it is opened, its codes when they are first used.
//!
//! Never: knows what is wanted, reads the archive, changes a block.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::bytes::codec::block::{self, BlockHeader, FORMAT, HEADER_BYTES, Part};
use crate::bytes::codec::codes;
use crate::io::map::Bytes;
use crate::io::{Disk, File, OpenMode, join};
use crate::pure::quant::{self, Bits};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::{CollectionId, EntryId, Lsn};
use crate::words::options::ArenaAccess;
use crate::words::safeguard::Safeguard;

pub use bodies::Bodies;

mod bodies;
pub mod cells;
#[cfg(test)]
mod tests;

/// The folder of the blocks.
pub const FOLDER: &str = "arena";
const SUFFIX: &str = ".blk";
const TEMPORARY: &str = ".tmp";
const DIGITS: usize = 10;

const UNCHECKED: u8 = 0;
const WHOLE: u8 = 1;
const DAMAGED: u8 = 2;

/// What goes into a block.
#[derive(Clone, Copy, Debug)]
pub struct NewBlock<'a> {
    /// What it says of itself.
    pub header: BlockHeader,
    /// Whose the rows are, ascending by id.
    pub rows: &'a [(EntryId, Lsn)],
    /// Their codes, one after the other.
    pub codes: &'a [u8],
}

/// Name of a block's file.
#[must_use]
pub fn file_name(number: u64) -> String {
    format!("{FOLDER}/{number:010}{SUFFIX}")
}

/// Numbers of all sealed blocks, ascending. Other names in the folder are ignored.
pub fn list(disk: &dyn Disk) -> Result<Vec<u64>> {
    list_of(disk, SUFFIX)
}

fn list_of(disk: &dyn Disk, suffix: &str) -> Result<Vec<u64>> {
    let names = disk.list(FOLDER).map_err(|e| Error::io(format!("list {FOLDER}"), e))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name, suffix)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Writes and seals a block; when it returns Ok, the block survives a power cut. Answers its bytes.
pub fn write_block(disk: &dyn Disk, new: &NewBlock<'_>) -> Result<u64> {
    let name = file_name(new.header.number);
    let temporary = format!("{name}{TEMPORARY}");
    let bytes = block::encode(&new.header, new.rows, new.codes)
        .map_err(|damage| Error::internal(format!("{name}: {damage}")))?;
    let written = (|| {
        remove_if_there(disk, &temporary)?;
        let file = disk.open(&temporary, OpenMode::CreateNew)?;
        file.write_at(&bytes, 0)?;
        seal(disk, &*file, &name)
    })();
    if let Err(error) = written {
        // Best effort, so that a full disk gets its room back; what stays is no harm.
        let _ = disk.remove(&temporary);
        let _ = disk.remove(&name);
        return Err(Error::io(format!("write {name}"), error));
    }
    Ok(bytes.len() as u64)
}

/// Gives a file that is written whole its name, durably.
fn seal(disk: &dyn Disk, file: &dyn File, name: &str) -> io::Result<()> {
    Safeguard::ArenaSync.keep(|| file.sync())?;
    disk.rename(&format!("{name}{TEMPORARY}"), name)?;
    Safeguard::ArenaDirSync.keep(|| disk.sync_dir(FOLDER))
}

/// Removes a block. One that is gone already is no error, and one that comes back after a power cut
/// is none either: its rows are stale or right.
pub fn remove(disk: &dyn Disk, number: u64) -> Result<()> {
    remove_file(disk, &file_name(number))
}

fn remove_file(disk: &dyn Disk, name: &str) -> Result<()> {
    remove_if_there(disk, name).map_err(|e| Error::io(format!("remove {name}"), e))
}

/// Removes what writers that were cut off left behind.
pub fn remove_strays(disk: &dyn Disk) -> Result<()> {
    let names = disk.list(FOLDER).map_err(|e| Error::io(format!("list {FOLDER}"), e))?;
    for name in names {
        let is_one = |stem| [SUFFIX, cells::SUFFIX].iter().any(|s| number_of(stem, s).is_some());
        if name.strip_suffix(TEMPORARY).is_some_and(is_one) {
            remove_file(disk, &join(FOLDER, &name))?;
        }
    }
    Ok(())
}

fn remove_if_there(disk: &dyn Disk, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn number_of(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    let whole = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    if whole { digits.parse().ok() } else { None }
}

/// A sealed block, open for reading. `Send + Sync`; goes on working when its name is removed.
#[derive(Debug)]
pub struct Block {
    header: BlockHeader,
    bytes: Bytes,
    state: AtomicU8,
}

impl Block {
    /// Opens a block of this store and checks its header and table. Errors: `Io`, `Version` when a
    /// newer build wrote it, `Corrupt` when it is cut, damaged, misnamed or another store's.
    pub fn open(
        disk: &dyn Disk,
        number: u64,
        store_id: [u8; 16],
        access: ArenaAccess,
    ) -> Result<Block> {
        let name = file_name(number);
        let failed = |e| Error::io(format!("open {name}"), e);
        let damaged = |what: &dyn std::fmt::Display, at: usize| {
            Error::corrupt(format!("{name}: {what} at offset {at}"))
        };
        let file = disk.open(&name, OpenMode::Read).map_err(failed)?;
        let len = file.len().map_err(failed)?;
        if len < HEADER_BYTES as u64 || len > 2 * block::BLOCK_BYTES_MAX as u64 {
            return Err(damaged(&format!("a length of {len} bytes"), 0));
        }
        let mut head = [0; HEADER_BYTES];
        file.read_exact_at(&mut head, 0).map_err(failed)?;
        let (format, header) = BlockHeader::decode(&head).map_err(|d| damaged(&d, 0))?;
        if format != FORMAT {
            let message = format!("{name} has format {format}; this build reads {FORMAT}");
            return Err(Error::new(ErrorKind::Version, message));
        }
        let bits = if header.bits == 4 { Bits::Four } else { Bits::Eight };
        let row_bytes = codes::layout(header.dim).map(|l| l.with_bits(bits).row_bytes());
        if row_bytes != Some(header.row_bytes as usize) {
            return Err(damaged(&"rows of another length than its vectors have", 0));
        }
        if header.store_id != store_id || header.number != number {
            return Err(damaged(&"the header names another store or block", 0));
        }
        let bytes = match access {
            ArenaAccess::Map => file.map().map_err(failed)?,
            ArenaAccess::Read => {
                let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
                file.read_exact_at(&mut bytes, 0).map_err(failed)?;
                Bytes::read(bytes)
            }
        };
        block::table(&header, &bytes).map_err(|d| damaged(&d, HEADER_BYTES))?;
        block::codes(&header, &bytes).map_err(|d| damaged(&d, header.codes_at()))?;
        Ok(Block { header, bytes, state: AtomicU8::new(UNCHECKED) })
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.header.number
    }

    /// Whose entries it holds.
    #[must_use]
    pub fn collection(&self) -> CollectionId {
        self.header.collection
    }

    /// Bits a value: 8 or 4.
    #[must_use]
    pub fn bits(&self) -> u8 {
        self.header.bits
    }

    /// Values of a vector.
    #[must_use]
    pub fn dim(&self) -> u32 {
        self.header.dim
    }

    /// Bytes of a row of codes.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.header.row_bytes as usize
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.header.rows as usize
    }

    /// Bytes it keeps mapped or in RAM: the whole file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Which version of which entry a row is.
    #[must_use]
    pub fn id_version(&self, row: usize) -> Option<(EntryId, Lsn)> {
        if row >= self.rows() {
            return None;
        }
        block::entry(self.bytes.get(HEADER_BYTES..)?, row)
    }

    /// Asks for what [`id_version`](Self::id_version) will look at, which some work later will be wanted.
    pub fn fetch_id(&self, row: usize) {
        let at = HEADER_BYTES + row.saturating_mul(block::ENTRY_BYTES);
        quant::fetch(self.bytes.get(at..at + 1).unwrap_or_default());
    }

    /// The codes of a row. The first call checks the codes of the whole block; `Corrupt` from then
    /// on if they are damaged.
    pub fn row(&self, row: usize) -> Result<&[u8]> {
        if self.state.load(Ordering::Acquire) != WHOLE {
            self.check_codes()?;
        }
        let from = self.header.codes_at().saturating_add(row.saturating_mul(self.row_bytes()));
        (row < self.rows())
            .then(|| self.bytes.get(from..from.saturating_add(self.row_bytes())))
            .flatten()
            .ok_or_else(|| Error::internal(format!("block {} has no row {row}", self.number())))
    }

    /// Checks the codes of the whole block, once.
    #[cold]
    fn check_codes(&self) -> Result<()> {
        let damaged = |what: &dyn std::fmt::Display| {
            let (name, at) = (file_name(self.number()), self.header.codes_at());
            Error::corrupt(format!("{name}: {what} at offset {at}"))
        };
        let (codes, crc) = block::codes(&self.header, &self.bytes).map_err(|d| damaged(&d))?;
        let mut state = self.state.load(Ordering::Acquire);
        if state == UNCHECKED {
            let differs = self.header.crc(Part::Codes, codes) != crc;
            state = if Safeguard::ArenaCodesCrc.finds(differs) { DAMAGED } else { WHOLE };
            self.state.store(state, Ordering::Release);
        }
        if state == DAMAGED { Err(damaged(&"codes CRC differs")) } else { Ok(()) }
    }
}
