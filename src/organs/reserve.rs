//! The reserve: room that is kept on disk for the day when the disk is full.
//!
//! A store on a full disk must be able to get smaller, but a delete is a record in the log, and a
//! checkpoint and a vacuum write before they remove. So a file of zeros, `RESERVE`, is kept beside
//! the others. What makes room gives it up when it finds the disk full, and goes on with the bytes
//! that come free.
//!
//! 1. [`Reserve::ensure`] makes the file, or makes it longer, and syncs it: blocks that a file
//!    system has only promised could be promised to somebody else after a crash.
//! 2. [`Reserve::give_up`] removes it.
//! 3. Whoever writes anything else calls `ensure` first: as long as the file is too short and cannot
//!    be made longer, only what makes room goes on.
//! 4. While it is missing, and room for it cannot be had, every 256th removal is followed by giving back what
//!    was removed ([`Reserve::is_due`]): later there may be no room left to do so.
//!
//! Never: holds data, decides who may use the bytes, gets shorter.

use std::io;

use parking_lot::Mutex;

use crate::io::{Disk, OpenMode};
use crate::words::error::{Error, Result};
use crate::words::safeguard::Safeguard;

/// Name of the file.
pub const FILE: &str = "RESERVE";

const BYTES_MIN: u64 = 64 << 10;

/// Bytes to be kept when so many bytes of the log are not archived: what a checkpoint of them may
/// write, codes and sketches included (at most half as much again), and something for the index and
/// a few removals. A power of two, so that a growing log does not make a new length at every write;
/// a store that never held much in its log keeps 64 KiB.
#[must_use]
pub fn bytes_for(log_bytes: u64) -> u64 {
    BYTES_MIN.saturating_add(log_bytes.saturating_mul(3) / 2).min(64 << 20).next_power_of_two()
}

/// Of so many removals without a reserve one is followed by an attempt to have it again: enough of them
/// to have emptied a piece of the archive.
const ATTEMPT_EVERY: u32 = 256;

/// How long the file is, as far as this owner knows. Shared by all writers of a store.
#[derive(Debug, Default)]
pub struct Reserve(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    bytes: u64,
    /// It was given up, or there was no room for it.
    is_missing: bool,
    /// Removals since.
    removals: u32,
}

impl Reserve {
    /// That of a store that is being opened. When an earlier owner left none, the first removal tries to
    /// have it again: whoever opens a full store to remove one entry may not come to a second.
    pub fn found(disk: &dyn Disk) -> Reserve {
        let len = disk.open(FILE, OpenMode::Read).and_then(|file| file.len());
        let is_missing = len.map_or(true, |len| len < BYTES_MIN);
        Reserve(Mutex::new(Kept { bytes: 0, is_missing, removals: ATTEMPT_EVERY - 1 }))
    }

    /// Makes sure that so many bytes are kept. Costs nothing when they are. Errors with `Full` when
    /// there is no room for them, else with `Io`; what was kept before is kept still.
    pub fn ensure(&self, disk: &dyn Disk, bytes: u64) -> Result<()> {
        let mut kept = self.0.lock();
        if kept.bytes >= bytes || Safeguard::Reserve.is_off() {
            return Ok(());
        }
        let made = make(disk, bytes);
        // Whatever else is in its way is no reason to make room.
        kept.is_missing = made.as_ref().is_err_and(is_full);
        made.map_err(|e| Error::io(format!("keep a reserve of {bytes} bytes in {FILE}"), e))?;
        kept.bytes = bytes;
        Ok(())
    }

    /// Removes the file, so that its bytes can be used. False when it was not there.
    pub fn give_up(&self, disk: &dyn Disk) -> bool {
        let mut kept = self.0.lock();
        (kept.bytes, kept.is_missing) = (0, true);
        disk.remove(FILE).is_ok()
    }

    /// Counts a removal that went through. True when the reserve is missing and it is time to give back
    /// what was removed, so that it can be had again: later there may be no room to do so.
    pub fn is_due(&self) -> bool {
        let mut kept = self.0.lock();
        kept.removals = if kept.is_missing { kept.removals + 1 } else { 0 };
        kept.removals >= ATTEMPT_EVERY && {
            kept.removals = 0;
            true
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn make(disk: &dyn Disk, bytes: u64) -> io::Result<()> {
    let file = match disk.open(FILE, OpenMode::ReadWrite) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => disk.open(FILE, OpenMode::CreateNew),
        other => other,
    }?;
    let before = file.len()?;
    if before >= bytes {
        return Ok(());
    }
    if let Err(error) = file.allocate(before, bytes) {
        // The last bytes of the disk are for those that share it.
        let _ = file.set_len(before);
        return Err(error);
    }
    Safeguard::ReserveSync.keep(|| file.sync())?;
    Safeguard::ReserveDirSync.keep(|| disk.sync_dir(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::MemoryDisk;
    use crate::io::sim::SimDisk;
    use crate::words::error::ErrorKind;

    #[test]
    fn it_grows_is_given_up_once_and_is_made_again() {
        let disk = MemoryDisk::new();
        let len = || disk.open(FILE, OpenMode::Read).unwrap().len().unwrap();
        let reserve = Reserve::default();
        assert!(!reserve.give_up(&disk), "there is none yet");
        reserve.ensure(&disk, 100_000).unwrap();
        assert_eq!(len(), 100_000);
        reserve.ensure(&disk, 50_000).unwrap();
        assert_eq!(len(), 100_000, "it never gets shorter");
        assert!(reserve.give_up(&disk) && !reserve.give_up(&disk));
        assert!(disk.list("").unwrap().is_empty());
        reserve.ensure(&disk, 100_000).unwrap();
        // The next owner finds it, gives it up without having asked for it, and makes another.
        let next = Reserve::default();
        next.ensure(&disk, 200_000).unwrap();
        assert_eq!(len(), 200_000);
        assert!(Reserve::default().give_up(&disk));
    }

    #[test]
    fn without_room_there_is_an_error_and_what_was_kept_stays() {
        let disk = SimDisk::new(1);
        disk.set_capacity(Some(150_000));
        let reserve = Reserve::default();
        reserve.ensure(&disk, 100_000).unwrap();
        assert_eq!(reserve.ensure(&disk, 200_000).unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(disk.used_bytes(), 100_000);
        disk.set_capacity(None);
        reserve.ensure(&disk, 200_000).unwrap();
        assert_eq!(disk.used_bytes(), 200_000);
    }

    #[test]
    fn the_length_follows_the_log_in_few_steps() {
        assert_eq!(bytes_for(0), 64 << 10);
        assert_eq!(bytes_for(1 << 10), 128 << 10);
        assert_eq!(bytes_for(100 << 10), 256 << 10);
        assert_eq!(bytes_for(u64::MAX), 64 << 20);
    }
}
