//! The first writes of an opened log: making true what the scan found.
//!
//! After a clean close there is nothing to do. Otherwise, in this order:
//! 1. An ambiguous tail is copied to `wal/NNNNNNNNNN.torn`, synced, before anything covers it.
//! 2. The segment is written anew, from what was read, under a temporary name. Its frames may be in
//!    the page cache only: an earlier sync may have failed and left its pages marked clean, and then
//!    a sync alone would say Ok about bytes that are not on disk. Not in place: a power cut may leave
//!    noise where something was being written, and these bytes were acknowledged.
//! 3. A segment that must not be continued gets a footer behind its last batch.
//! 4. It is synced and takes the old one's place, name and all; only then may a later segment be
//!    created, or a new write be acknowledged.
//!
//! On a disk without room for the copy the bytes are written over themselves instead, and the name is made
//! durable: a disk that keeps or writes a sector whole cannot do harm by that, and a full store must be opened.
//!
//! The footer claims nothing about earlier syncs, as step 4 is still ahead when it is written.
//! Whatever step a crash interrupts, the next scan reads the same records.

use std::sync::Arc;

use crate::bytes::codec::log::{Kind, LAG_MAX};
use crate::io::{Disk, File, OpenMode};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::safeguard::Safeguard;

use super::active::{Active, Failed};
use super::{FOLDER, Scan, TEMPORARY, Tail, TornTail, file_name};

/// How much is copied at once.
const PIECE_BYTES: usize = 256 << 10;

/// Writes what the scan asks for. The result is the segment to go on with, if it can be.
pub fn mend(disk: &dyn Disk, scan: &Scan) -> Result<Option<Active>> {
    if let Some(torn) = &scan.torn {
        tracing::warn!(
            file = torn.file,
            offset = torn.offset,
            bytes = torn.bytes,
            ambiguous = torn.ambiguous,
            last_lsn = scan.last_lsn.0,
            "the log ends in a batch that is not whole; it is cut off"
        );
        if torn.ambiguous {
            save_aside(disk, torn)?;
        }
    }
    let Some(tail) = &scan.tail else { return Ok(None) };
    let name = file_name(tail.header.number);
    let file = disk
        .open(&name, OpenMode::ReadWrite)
        .map_err(|e| Error::io(format_args!("open {name}"), e))?;
    let at_tail = scan.clean.then_some(Kind::Close);
    if scan.clean && !tail.spent {
        return Ok(Some(Active::reopen(file, &tail.header, tail.at, tail.bytes, at_tail)));
    }
    let temporary = format!("{name}{TEMPORARY}");
    let active = match copy(disk, tail, &*file, &temporary) {
        Ok(copy) => {
            let renamed = disk.rename(&temporary, &name);
            renamed.map_err(|e| Error::io(format_args!("rename {temporary}"), e))?;
            let synced = Safeguard::MendDirSync.keep(|| disk.sync_dir(FOLDER));
            synced.map_err(|e| Error::io(format_args!("sync {FOLDER}/"), e))?;
            copy
        }
        Err(error) => {
            let _ = disk.remove(&temporary); // Best effort: the next open tries again.
            if error.kind() != ErrorKind::Full {
                return Err(error);
            }
            let mut active =
                Active::reopen(Arc::clone(&file), &tail.header, tail.at, tail.bytes, None);
            finish(&mut active, tail, &*file, tail.unsynced_from)?;
            // The batch that began it may have come before its name was durable.
            let synced = Safeguard::MendDirSync.keep(|| disk.sync_dir(FOLDER));
            synced.map_err(|e| Error::io(format_args!("sync {FOLDER}/"), e))?;
            active
        }
    };
    Ok((!tail.spent && !tail.footer).then_some(active))
}

/// A copy of a segment up to its tail, synced, under another name.
fn copy(disk: &dyn Disk, tail: &Tail, from: &dyn File, temporary: &str) -> Result<Active> {
    let file = disk
        .open(temporary, OpenMode::CreateNew)
        .map_err(|e| Error::io(format_args!("create {temporary}"), e))?;
    let mut active = Active::reopen(file, &tail.header, tail.at, tail.at, None);
    finish(&mut active, tail, from, 0)?;
    Ok(active)
}

/// Writes everything from `start` to the tail again, ends the segment if it must not be continued,
/// and syncs.
fn finish(active: &mut Active, tail: &Tail, from: &dyn File, start: u64) -> Result<()> {
    let mut buffer = Vec::new();
    let mut at = start;
    while at < tail.at {
        let len = usize::try_from(tail.at - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        buffer.resize(len, 0);
        let read = from.read_exact_at(&mut buffer, at);
        read.map_err(|e| {
            Error::io(format_args!("read {} at {at}", file_name(tail.header.number)), e)
        })?;
        active.write(&buffer, at).map_err(error)?;
        at += len as u64;
    }
    if tail.spent && !tail.footer {
        // Lag unknown: the footer is no evidence that anything before it was synced.
        active.put_frame(Kind::Footer, LAG_MAX, tail.last_lsn, tail.last_batch).map_err(error)?;
    }
    active.sync(Safeguard::MendSync).map_err(error)
}

/// Copies a tail that may be damage rather than a cut write. The first copy stays: after a crash
/// in between, the footer may already stand in a later one.
fn save_aside(disk: &dyn Disk, torn: &TornTail) -> Result<()> {
    let path = format!("{}.torn", torn.file.trim_end_matches(".wal"));
    let what = |e| Error::io(format_args!("save the end of {} as {path}", torn.file), e);
    if disk.open(&path, OpenMode::Read).is_ok() {
        return Ok(());
    }
    let temporary = format!("{path}.tmp");
    match disk.remove(&temporary) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(what(e)),
        _ => {}
    }
    let source = disk.open(&torn.file, OpenMode::Read).map_err(what)?;
    let copy = disk.open(&temporary, OpenMode::CreateNew).map_err(what)?;
    let mut buffer = vec![0; PIECE_BYTES];
    let mut done = 0;
    while done < torn.bytes {
        let len = usize::try_from(torn.bytes - done).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let piece = buffer.get_mut(..len).unwrap_or_default();
        let read = source.read_at(piece, torn.offset + done).map_err(what)?;
        if read == 0 {
            break;
        }
        copy.write_at(piece.get(..read).unwrap_or_default(), done).map_err(what)?;
        done += read as u64;
    }
    Safeguard::TornSync.keep(|| copy.sync()).map_err(what)?;
    disk.rename(&temporary, &path).map_err(what)?;
    Safeguard::TornDirSync.keep(|| disk.sync_dir(FOLDER)).map_err(what)?;
    tracing::warn!(file = path, "saved what was cut off; it may hold acknowledged records");
    Ok(())
}

fn error(failed: Failed) -> Error {
    match failed {
        Failed::Write(error) | Failed::Fatal(error) => error,
    }
}
