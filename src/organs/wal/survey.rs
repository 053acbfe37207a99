//! Reading a segment piece by piece, and looking through what lies behind a damaged frame.
//!
//! [`Window`] serves small reads out of one buffer. [`survey`] is the search for evidence: it tries
//! every byte offset up to the end of the file, because damage breaks the chain of lengths. Frames
//! found there are judged by their header alone: a header that verifies was written to this place
//! of this segment, whatever became of its payload. So one pass is enough, whatever the bytes are.
//!
//! Nothing here decides; nothing writes.

use std::sync::Arc;

use crate::bytes::codec::log::{COMMIT_BYTES, Commit, FRAME_BYTES, Frame, Kind, Seed};
use crate::io::{Disk, File, OpenMode};
use crate::words::error::{Error, Result};
use crate::words::id::Lsn;
use crate::words::safeguard::Safeguard;

/// How much is read at once.
const WINDOW_BYTES: usize = 256 << 10;
/// What a disk writes whole or not at all, at the least.
const SECTOR_BYTES: u64 = 512;
/// So many zeros at the end of a batch are missing bytes, not values: a commit frame ends in CRCs.
const HOLE_BYTES_MIN: u64 = 16;
/// No log gets this far ahead; rejects most offsets before their CRC is computed.
const AHEAD_MAX: u64 = 1 << 40;
const ZEROS: [u8; 4096] = [0; 4096];

/// Reads of one file out of a buffer.
pub struct Window {
    name: String,
    file: Arc<dyn File>,
    len: u64,
    buffer: Vec<u8>,
    start: u64,
}

impl Window {
    /// Opens a file for reading.
    pub fn open(disk: &dyn Disk, name: String) -> Result<Window> {
        let file = disk
            .open(&name, OpenMode::Read)
            .map_err(|e| Error::io(format_args!("open {name}"), e))?;
        let len = file.len().map_err(|e| Error::io(format_args!("measure {name}"), e))?;
        Ok(Window { name, file, len, buffer: Vec::new(), start: 0 })
    }

    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its length.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// `len` bytes at an offset; fewer only where the file ends.
    pub fn get(&mut self, at: u64, len: usize) -> Result<&[u8]> {
        let left = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        let len = len.min(left);
        let inside = at
            .checked_sub(self.start)
            .and_then(|skip| usize::try_from(skip).ok())
            .filter(|skip| skip.checked_add(len).is_some_and(|end| end <= self.buffer.len()));
        let skip = match inside {
            Some(skip) => skip,
            None => {
                self.buffer.resize(len.max(WINDOW_BYTES).min(left), 0);
                self.start = at;
                let read = self
                    .file
                    .read_at(&mut self.buffer, at)
                    .map_err(|e| Error::io(format_args!("read {} at {at}", self.name), e))?;
                self.buffer.truncate(read);
                0
            }
        };
        let rest = self.buffer.get(skip..).unwrap_or_default();
        Ok(rest.get(..len).unwrap_or(rest))
    }
}

/// What lies behind an offset.
#[derive(Clone, Copy, Debug, Default)]
pub struct Survey {
    /// End of the last byte that is not zero; 0 when all are, and in a recycled segment, where old
    /// bytes stand behind what was written.
    pub written_end: u64,
    /// Where the frames that were found say that they end.
    pub frames_end: u64,
    /// Up to which batch a frame says the log was synced; and, among those that cover the batch in
    /// question, the newest record that may have been acknowledged.
    pub synced_through: u64,
    /// See `synced_through`.
    pub acked_lsn: Lsn,
    /// Batch of the last frame that says so.
    evidence_batch: u64,
    /// The last place to go on from without missing a record that is not applied.
    pub resume: Option<Resume>,
    /// First operation frame of the batch that is being passed.
    first_op: Option<(u64, Frame)>,
}

/// A place between two batches.
#[derive(Clone, Copy, Debug)]
pub struct Resume {
    /// Offset of the next frame.
    pub at: u64,
    /// Last record before it; all up to it are applied.
    pub lsn: Lsn,
    /// Last batch before it.
    pub batch: u64,
}

/// What the scan knows when it asks.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Seed of the segment's CRCs.
    pub seed: Seed,
    /// Last record and last batch before the damage.
    pub last_lsn: Lsn,
    /// See `last_lsn`.
    pub last_batch: u64,
    /// Everything up to here is in the archive.
    pub applied: Lsn,
    /// Whether the file was another segment before.
    pub recycled: bool,
}

/// Looks through everything from `from` to the end of the file.
pub fn survey(window: &mut Window, from: u64, asked: &Asked) -> Result<Survey> {
    let mut found = Survey::default();
    let mut at = from;
    while at < window.len {
        // Pieces overlap, so that a frame on the seam is seen whole by one of them.
        let piece = window.get(at, WINDOW_BYTES)?;
        if piece.is_empty() {
            break;
        }
        let step = match piece.len() {
            WINDOW_BYTES => WINDOW_BYTES - FRAME_BYTES - COMMIT_BYTES + 1,
            last => last,
        };
        look_through(piece, at, asked, &mut found);
        at += step as u64;
    }
    Ok(found)
}

fn look_through(piece: &[u8], start: u64, asked: &Asked, found: &mut Survey) {
    let Some(last) = piece.iter().rposition(|byte| *byte != 0) else { return };
    if !asked.recycled {
        found.written_end = found.written_end.max(start + last as u64 + 1);
    }
    for (i, bytes) in piece.windows(FRAME_BYTES).enumerate().take(last + 1) {
        let Some(frame) = plausible(bytes, asked, start + i as u64) else { continue };
        let offset = start + i as u64;
        let end = offset.saturating_add(FRAME_BYTES as u64 + u64::from(frame.len));
        found.frames_end = found.frames_end.max(end);
        found.synced_through = found.synced_through.max(frame.synced_through());
        if frame.synced_through() > asked.last_batch {
            // A batch was not synced when it was written, but what came before its first record
            // may have been; of that record its first frame tells best.
            let newest = match frame.kind {
                Kind::Op | Kind::Commit if frame.batch == found.evidence_batch => Lsn(0),
                Kind::Op => Lsn(frame.lsn.0.saturating_sub(1)),
                Kind::Commit | Kind::AckMark | Kind::Footer | Kind::Close => frame.lsn,
            };
            found.acked_lsn = found.acked_lsn.max(newest);
            found.evidence_batch = frame.batch;
        }
        let resume = match frame.kind {
            Kind::Op => {
                if found.first_op.is_none_or(|(_, first)| first.batch != frame.batch) {
                    found.first_op = Some((offset, frame));
                }
                None
            }
            Kind::Commit if frame.lsn > asked.applied => {
                let payload = piece.get(i + FRAME_BYTES..i + FRAME_BYTES + COMMIT_BYTES);
                batch_start(found.first_op, &frame, offset, payload, asked)
            }
            Kind::Commit => Some(Resume { at: end, lsn: frame.lsn, batch: frame.batch }),
            _ => Some(Resume { at: offset, lsn: frame.lsn, batch: frame.batch }),
        };
        let is_new = |r: &Resume| r.lsn > asked.last_lsn && r.lsn <= asked.applied;
        found.resume = resume.filter(is_new).or(found.resume);
    }
}

/// The place before a batch that is committed and not applied, when its first frame was seen: the
/// commit frame tells which record that must hold.
fn batch_start(
    first_op: Option<(u64, Frame)>,
    commit: &Frame,
    offset: u64,
    payload: Option<&[u8]>,
    asked: &Asked,
) -> Option<Resume> {
    let (at, first) = first_op.filter(|(_, first)| first.batch == commit.batch)?;
    let payload = payload.filter(|bytes| commit.has_payload(asked.seed, offset, bytes))?;
    let is_start = Commit::decode(payload).ok()?.first_lsn == first.lsn;
    let (lsn, batch) = (first.lsn.0.checked_sub(1)?, first.batch.checked_sub(1)?);
    is_start.then_some(Resume { at, lsn: Lsn(lsn), batch })
}

/// A frame at this offset, tried cheaply first.
pub fn plausible(bytes: &[u8], asked: &Asked, offset: u64) -> Option<Frame> {
    let kind = *bytes.get(4)?;
    if kind == 0 || kind > 5 {
        return None;
    }
    let number = |at: usize| bytes.get(at..)?.first_chunk::<8>().map(|b| u64::from_le_bytes(*b));
    let is_near = |value: u64, base: u64| value.wrapping_sub(base) < AHEAD_MAX;
    if !is_near(number(8)?, asked.last_lsn.0) || !is_near(number(16)?, asked.last_batch) {
        return None;
    }
    Frame::decode(asked.seed, offset, bytes)
}

/// Whether part of `from..to` was never written: a whole sector, or what lies of one in the range,
/// is zeros, or the range ends in zeros. Bytes beyond the end of the file are not looked at.
pub fn has_hole(window: &mut Window, from: u64, to: u64) -> Result<bool> {
    let mut at = from;
    let mut written_end = from;
    let stop = to.min(window.len);
    while at < stop {
        let sector_end = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
        let len = usize::try_from(sector_end.min(to) - at).unwrap_or(0);
        let piece = window.get(at, len)?;
        match piece.iter().rposition(|byte| *byte != 0) {
            Some(last) => written_end = at + last as u64 + 1,
            None => return Ok(true),
        }
        at = sector_end;
    }
    Ok(to.saturating_sub(written_end) >= HOLE_BYTES_MIN)
}

/// Whether everything from an offset to the end of the file is zeros.
pub fn is_blank(window: &mut Window, from: u64) -> Result<bool> {
    let mut at = from;
    while at < window.len {
        let piece = window.get(at, WINDOW_BYTES)?;
        if piece.is_empty() {
            break;
        }
        if !piece.chunks(ZEROS.len()).all(|c| ZEROS.get(..c.len()) == Some(c)) {
            return Ok(false);
        }
        at += piece.len() as u64;
    }
    Ok(true)
}

/// Whether the log ends at an offset: zeros from there to the end of the file. A recycled segment has
/// old bytes behind its end. There it is zeros in place of a frame, and no frame of this segment behind
/// them, which is what rot would leave of a batch whose first frame it made zeros.
pub fn is_end(window: &mut Window, from: u64, asked: &Asked) -> Result<bool> {
    if is_blank(window, from)? {
        return Ok(true);
    }
    let place = window.get(from, FRAME_BYTES)?;
    if !asked.recycled || ZEROS.get(..place.len()) != Some(place) {
        return Ok(false);
    }
    let found = survey(window, from, asked)?;
    Ok(!Safeguard::LogEnd.finds(found.frames_end > 0))
}

/// Whether the footer that is to stand at an offset never arrived, or not all of it. It is synced only if
/// something before it was not: a crash leaves what stood there, which is zeros, a mark or a close frame, or
/// sectors of these.
pub fn lacks_footer(window: &mut Window, at: u64, asked: &Asked) -> Result<bool> {
    let (seed, lsn, batch) = (asked.seed, asked.last_lsn, asked.last_batch);
    let frames = [Kind::Footer, Kind::AckMark, Kind::Close]
        .map(|kind| Frame::empty(kind, seed, at, 0, lsn, batch).encode(seed, at));
    let there = window.get(at, FRAME_BYTES)?.iter().enumerate();
    let is_of_one = |(nth, byte): (usize, &u8)| {
        *byte == 0 || frames.iter().any(|frame| frame.get(nth) == Some(byte))
    };
    Ok(there.into_iter().all(is_of_one))
}

/// The shortest end of a batch: its commit frame.
pub const BATCH_END_BYTES: u64 = (FRAME_BYTES + COMMIT_BYTES) as u64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::codec::log::SegmentHeader;
    use crate::io::MemoryDisk;

    #[test]
    fn a_commit_is_found_on_the_seam_between_two_windows() {
        let header = SegmentHeader {
            store_id: [1; 16],
            number: 1,
            first_lsn: Lsn(1),
            first_batch: 1,
            salt: 1,
            recycled: false,
        };
        let seed = header.seed();
        let asked =
            Asked { seed, last_lsn: Lsn(5), last_batch: 5, applied: Lsn(8), recycled: false };
        let mut payload = Vec::new();
        Commit { count: 3, first_lsn: Lsn(8), batch_crc: 0 }.encode(&mut payload);
        let seam = WINDOW_BYTES as u64;
        for offset in seam - 120..seam + 20 {
            let disk = MemoryDisk::new();
            let file = disk.open("x", OpenMode::CreateNew).unwrap();
            file.set_len(seam * 2).unwrap();
            let frame = |kind, at, lsn, payload: &[u8]| Frame {
                kind,
                len: payload.len() as u32,
                lag: 1,
                lsn: Lsn(lsn),
                batch: 7,
                payload_crc: seed.crc(at + FRAME_BYTES as u64, payload),
            };
            let op = frame(Kind::Op, 100, 8, b"");
            file.write_at(&op.encode(seed, 100), 100).unwrap();
            let commit = frame(Kind::Commit, offset, 10, &payload);
            file.write_at(&commit.encode(seed, offset), offset).unwrap();
            file.write_at(&payload, offset + FRAME_BYTES as u64).unwrap();
            let mut window = Window::open(&disk, "x".to_owned()).unwrap();
            let found = survey(&mut window, 0, &asked).unwrap();
            let resume = found.resume.unwrap();
            assert_eq!((resume.at, resume.lsn, resume.batch), (100, Lsn(7), 6), "at {offset}");
            assert_eq!(found.frames_end, offset + BATCH_END_BYTES);
            assert_eq!((found.synced_through, found.acked_lsn), (6, Lsn(7)));
        }
    }

    #[test]
    fn a_hole_is_a_sector_of_zeros_or_sixteen_at_the_end() {
        let hole = |bytes: &[u8], from: u64, to: u64| {
            let disk = MemoryDisk::new();
            disk.open("x", OpenMode::CreateNew).unwrap().write_at(bytes, 0).unwrap();
            let mut window = Window::open(&disk, "x".to_owned()).unwrap();
            has_hole(&mut window, from, to).unwrap()
        };
        let mut bytes = vec![1; 2048];
        for to in [1024, 1500, 1536, 2048] {
            assert!(!hole(&bytes, 100, to), "nothing is missing up to {to}");
        }
        // A sector with a single byte in it was written; without one it was not.
        bytes[512..1024].fill(0);
        bytes[700] = 1;
        assert!(!hole(&bytes, 100, 2000));
        bytes[700] = 0;
        assert!(hole(&bytes, 100, 2000));
        assert!(!hole(&bytes, 1024, 2000) && !hole(&bytes, 100, 512), "it is not in the range");
        bytes[1024 + 300..].fill(0);
        assert!(!hole(&bytes, 1024, 1024 + 300 + 15));
        assert!(hole(&bytes, 1024, 1024 + 300 + 16));
    }
}
