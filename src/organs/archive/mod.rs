//! The archive: sealed segments, the second truth. Every entry that left the log lies here once.
//!
//! A segment `archive/NNNNNNNNNN.seg` is written in one go ([`writer`]): temporary name, sync,
//! rename, sync of the folder. From then on it never changes. It is columnar, one group per
//! collection:
//!
//! ```text
//! exact vectors | codes | sketches (fixed strides) | body frames | payload frames | their tables | rows (128 bytes)
//! ```
//!
//! so that a search reads vectors alone, a filter rows and bodies, an answer one small frame of
//! payloads. [`segment`] opens one and answers single rows and blocks of them, [`frames`] reads
//! what is compressed, [`vectors`] the exact values, [`verify`] reads everything.
//!
//! What stays in RAM for an open segment is its footer (some 300 bytes per collection) and one bit
//! per 64 vectors; frame tables and rows are read when asked for.
//!
//! Every byte is under a CRC that is checked before the byte is used; a damaged one is
//! `Corrupt` naming file and offset, for that row only. The archive decides nothing: it does not
//! know which version of an entry is the live one, never merges, and removes a segment only when it
//! is told to.

use std::io;

use crate::io::Disk;
use crate::words::error::{Error, Result};
use crate::words::safeguard::Safeguard;

mod ahead;
pub mod carve;
pub mod codes;
pub mod frames;
pub mod segment;
mod sink;
pub mod sketches;
mod stand_ins;
pub mod vectors;
pub mod verify;
pub mod writer;

#[cfg(test)]
mod tests;

pub use crate::bytes::codec::row::Row;
pub use ahead::ask_for;
pub use frames::BodyReader;
pub use segment::Segment;
pub use writer::{NewSegment, PayloadReader, Sealed, Shape, write_segment};

/// The folder of the segments.
pub const FOLDER: &str = "archive";
const SUFFIX: &str = ".seg";
const TEMPORARY: &str = ".tmp";
const DIGITS: usize = 10;
/// Largest segment number: what ten digits can say.
pub const NUMBER_MAX: u64 = 9_999_999_999;

/// Name of a segment's file.
#[must_use]
pub fn file_name(number: u64) -> String {
    format!("{FOLDER}/{number:010}{SUFFIX}")
}

/// Numbers of all sealed segments, ascending. Other names in the folder are ignored.
pub fn list(disk: &dyn Disk) -> Result<Vec<u64>> {
    let names = disk.list(FOLDER).map_err(|e| Error::io(format!("list {FOLDER}"), e))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name, SUFFIX)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes the names of all segments durable, as far as they are not.
pub fn sync_names(disk: &dyn Disk) -> Result<()> {
    let synced = Safeguard::ArchiveDirSync.keep(|| disk.sync_dir(FOLDER));
    synced.map_err(|e| Error::io(format!("sync {FOLDER}"), e))
}

/// Removes a segment for good. One that is gone already is no error.
pub fn remove(disk: &dyn Disk, number: u64) -> Result<()> {
    let name = file_name(number);
    remove_if_there(disk, &name)?;
    sync_names(disk)
}

/// Removes what writers that were cut off left behind: `NNNNNNNNNN.seg.tmp` and nothing else.
/// Answers how many there were.
pub fn remove_strays(disk: &dyn Disk) -> Result<u64> {
    let names = disk.list(FOLDER).map_err(|e| Error::io(format!("list {FOLDER}"), e))?;
    let mut removed = 0;
    for name in names {
        let Some(stem) = name.strip_suffix(TEMPORARY) else { continue };
        if number_of(stem, SUFFIX).is_some() {
            remove_if_there(disk, &format!("{FOLDER}/{name}"))?;
            removed += 1;
        }
    }
    if removed > 0 {
        sync_names(disk)?;
    }
    Ok(removed)
}

fn remove_if_there(disk: &dyn Disk, name: &str) -> Result<()> {
    match disk.remove(name) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {name}"), e))
        }
        _ => Ok(()),
    }
}

fn number_of(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    let whole = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    if whole { digits.parse().ok() } else { None }
}
