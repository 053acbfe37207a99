//! The log: every acknowledged write that is not archived yet.
//!
//! A log is a row of segments `wal/NNNNNNNNNN.wal`, numbered without gaps from some number on, each
//! written once from front to back and given back when the archive holds all of it. [`replay`] reads, [`Wal`] writes.
//!
//! How a batch gets there:
//! 1. `append` writes its operations and a commit frame over blocks that were filled with zeros
//!    before, so the sync that follows mostly has data to flush and no metadata.
//! 2. `sync` makes it durable. A failed sync poisons the log: nobody knows what reached the disk,
//!    so nothing is written behind it; opening again finds out and writes the tail anew.
//! 3. `mark_acked` leaves a mark, without a sync of its own, that step 2 had succeeded.
//!
//! A segment that is given back becomes a spare, and the next one is made of it (`spares.rs`): what it
//! held stays behind the end of the new one, under CRCs that no longer verify.
//!
//! How an opening store reads it: [`scan`] walks the frames and never writes. At the first frame
//! that does not verify it gathers evidence, and [`verdict`] says what it was: a write that was cut
//! short (nobody was told it succeeded; it is cut off), or damage to acknowledged records (refused;
//! nothing is changed). `Wal::open` then does the first write: [`mend`] closes a cut-off segment
//! with a footer and writes again what an interrupted process may have left in the page cache only.
//!
//! Invariants that the verdict rests on:
//! - A segment takes its name only after every batch of the one before it is synced, or that one is gone.
//!   The footer between them may be lost: where the next one goes on, it is not needed.
//! - Its header and first zeros are durable before it has its name, and so is the first batch, if it is
//!   written before. The name is durable before another batch is written, or the first acknowledged.
//! - Its number is larger than that of any segment before, and not larger than its first LSN. The
//!   two grow together, as a segment without a batch in it is never ended, but created again.
//! - Only the tail is ever overwritten, and only: marks and close frames by the next batch, parts
//!   of a failed batch by the footer that cuts them off.
//!
//! The log never knows what its operations mean, when they are applied, or who waits for them.

use std::sync::Arc;

use crate::io::{Disk, File, OpenMode, join};
use crate::words::error::{Error, Result};
use crate::words::id::Lsn;

mod active;
pub mod look;
mod mend;
mod reclaim;
mod scan;
mod spares;
mod survey;
mod verdict;
mod writer;

#[cfg(test)]
mod tests;

pub use scan::replay;
pub use writer::Wal;

/// Folder of the log.
pub const FOLDER: &str = "wal";

/// Smallest segment: a header, one small batch and a footer.
const SEGMENT_BYTES_MIN: u64 = 4096;

/// Settings of a log that is opened for writing.
#[derive(Clone, Copy, Debug)]
pub struct WalOptions {
    /// A segment of this length is full, in bytes; at least 4 KiB. A batch that is longer gets a
    /// segment of its own. Default 16 MiB.
    pub segment_bytes: u64,
    /// Segments are filled with zeros in pieces of this length, in bytes.
    /// Longer batches are written without filling. Default 1 MiB.
    pub zero_bytes: u64,
    /// A random number of this opening; it goes into the salt of every segment created. Default 0,
    /// which leaves the salt to differ by store, segment number and LSN alone.
    pub salt: u64,
}

impl Default for WalOptions {
    fn default() -> Self {
        WalOptions { segment_bytes: 16 << 20, zero_bytes: 1 << 20, salt: 0 }
    }
}

/// What a reading of the log found. Handing it to [`Wal::open`] continues the log from there.
#[derive(Clone, Debug)]
pub struct Scan {
    /// LSN of the last operation of the history: the last one committed in the log, or the applied
    /// one when the log ends before it.
    pub last_lsn: Lsn,
    /// Number of the last committed batch.
    pub last_batch: u64,
    /// Whether the log was closed in order: a close frame is the last thing in it, or there is no
    /// log at all.
    pub clean: bool,
    /// A batch that was cut short, if there is one.
    pub torn: Option<TornTail>,
    /// Damage that cost nothing, because the archive holds whatever stood there; for people.
    pub notes: Vec<String>,
    /// Operations visited.
    pub ops: u64,
    /// Bytes of the batches that held them.
    pub bytes: u64,
    /// Segments that are complete, oldest first.
    sealed: Vec<Sealed>,
    /// The last segment, when it can be continued or must be closed.
    tail: Option<Tail>,
    /// Number of the next segment to create.
    next_number: u64,
}

/// The end of a log that nobody was told is durable, and that is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub file: String,
    /// Where the batch starts that is not whole.
    pub offset: u64,
    /// Bytes from there to the last one that is not zero.
    pub bytes: u64,
    /// Whether it may as well be a damaged batch that had been acknowledged: nothing behind it says
    /// so, but nothing in it looks like a write that was cut short.
    pub ambiguous: bool,
}

/// A segment that nothing is appended to any more.
#[derive(Clone, Copy, Debug)]
struct Sealed {
    number: u64,
    /// Nothing in it is newer.
    last_lsn: Lsn,
    /// Length of its file.
    bytes: u64,
}

/// The last segment, as the scan left it.
#[derive(Clone, Copy, Debug)]
struct Tail {
    header: crate::bytes::codec::log::SegmentHeader,
    /// Where the next frame goes; behind the footer when there is one.
    at: u64,
    /// Whether a footer ends it.
    footer: bool,
    /// Whether it must not be continued: it is torn, damaged, or ends before the applied LSN.
    spent: bool,
    /// From here on, frames may be in the page cache only.
    unsynced_from: u64,
    /// LSN and batch that a footer would name.
    last_lsn: Lsn,
    last_batch: u64,
    /// Length of its file.
    bytes: u64,
}

/// Path of a segment in the store's directory.
#[must_use]
pub fn file_name(number: u64) -> String {
    join(FOLDER, &format!("{number:010}.wal"))
}

/// What the name of a segment ends in while it is being made.
const TEMPORARY: &str = ".tmp";

/// What it ends in while the file waits to become a later segment.
const SPARE: &str = ".spare";

/// Removes what makers of segments that were cut off left behind, and the spares of an earlier opening.
fn remove_strays(disk: &dyn Disk) -> Result<()> {
    let names = disk.list(FOLDER).map_err(|e| Error::io(format_args!("list {FOLDER}/"), e))?;
    for name in names {
        let stem = name.strip_suffix(TEMPORARY).or_else(|| name.strip_suffix(SPARE));
        if stem.and_then(parse_name).is_some() {
            let name = join(FOLDER, &name);
            disk.remove(&name).map_err(|e| Error::io(format_args!("remove {name}"), e))?;
        }
    }
    Ok(())
}

/// Opens a segment for reading payloads in place.
pub fn open_segment(disk: &dyn Disk, number: u64) -> Result<Arc<dyn File>> {
    let name = file_name(number);
    disk.open(&name, OpenMode::Read).map_err(|e| Error::io(format_args!("open {name}"), e))
}

/// Numbers of the segments that are there, in order. Other names are not ours and are ignored.
fn list(disk: &dyn Disk) -> Result<Vec<u64>> {
    let names = disk.list(FOLDER).map_err(|e| Error::io(format_args!("list {FOLDER}/"), e))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| parse_name(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The number in a segment's name: ten digits, more only when ten are not enough.
fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    let number = digits.parse().ok()?;
    (format!("{number:010}") == digits && number > 0).then_some(number)
}
