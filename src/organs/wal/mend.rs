//! The first writes of an opened log: making true what the scan found.
//!
//! After a clean close there is nothing to do. Otherwise, in this order:
//! 1. An ambiguous tail is copied to `wal/NNNNNNNNNN.torn`, synced, before anything covers it.
//! 2. Every frame that may be in the page cache only is written again from what was read: an
//!    earlier sync may have failed and left its pages marked clean, and then a sync alone would say
//!    Ok about bytes that are not on disk. Header and name need no such care: a segment that holds
//!    a batch was created by syncs that succeeded, and one that holds none is created again.
//! 3. A segment that must not be continued gets a footer behind its last batch.
//! 4. One sync makes all of that durable; only then may a later segment be created, or a new write
//!    be acknowledged.
//!
//! The footer claims nothing about earlier syncs, as step 4 is still ahead when it is written.
//! Whatever step a crash interrupts, the next scan reads the same records.

use crate::bytes::codec::log::{Kind, LAG_MAX};
use crate::io::{Disk, OpenMode};
use crate::words::error::{Error, Result};

use super::active::{Active, Failed};
use super::{FOLDER, Scan, Tail, TornTail, file_name};

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
    let mut active = Active::reopen(file, &tail.header, tail.at, tail.bytes, at_tail);
    if scan.clean && !tail.spent {
        return Ok(Some(active));
    }
    rewrite(&active, tail, &name)?;
    if tail.spent && !tail.footer {
        // Lag unknown: the footer is no evidence that anything before it was synced.
        let footer = active.put_frame(Kind::Footer, LAG_MAX, tail.last_lsn, tail.last_batch);
        footer.map_err(error)?;
    }
    active.sync().map_err(error)?;
    Ok((!tail.spent && !tail.footer).then_some(active))
}

fn rewrite(active: &Active, tail: &Tail, name: &str) -> Result<()> {
    let mut buffer = Vec::new();
    let mut from = tail.unsynced_from;
    while from < tail.at {
        let len = usize::try_from(tail.at - from).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        buffer.resize(len, 0);
        let read = active.file.read_exact_at(&mut buffer, from);
        read.map_err(|e| Error::io(format_args!("read {name} at {from}"), e))?;
        active.write(&buffer, from).map_err(error)?;
        from += len as u64;
    }
    Ok(())
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
    copy.sync().map_err(what)?;
    disk.rename(&temporary, &path).map_err(what)?;
    disk.sync_dir(FOLDER).map_err(what)?;
    tracing::warn!(file = path, "saved what was cut off; it may hold acknowledged records");
    Ok(())
}

fn error(failed: Failed) -> Error {
    match failed {
        Failed::Write(error) | Failed::Fatal(error) => error,
    }
}
