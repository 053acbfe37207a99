//! Reading the log: every committed operation after the applied LSN, in order, and how it ends.
//!
//! 1. Read all segment headers. Start at the last segment that begins at or before the LSN after
//!    the applied one: whatever older segments hold is archived, gaps between them included.
//! 2. Walk the frames. Operations are decoded as they come and handed out when the commit frame of
//!    their batch verifies, so memory holds one batch and one window of the file.
//! 3. At a frame that does not verify: blank to the end of the last segment is the end of the log (of
//!    a recycled one: blank as far as a frame would reach, and no frame behind); otherwise look through
//!    what lies behind ([`survey`](super::survey)), go on behind it if all it can have held is archived, or
//!    ask for the [`verdict`](super::verdict).
//! 4. From segment to segment numbers and LSNs must continue without a gap.
//!
//! Nothing here writes: a log that is refused stays as it was found.

use crate::bytes::codec::log::{
    Commit, FRAME_BYTES, Frame, HEADER_BYTES, HeaderError, Kind, Seed, SegmentHeader,
};
use crate::bytes::codec::op::decode_op;
use crate::io::Disk;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::Lsn;
use crate::words::limits;
use crate::words::record::Op;
use crate::words::safeguard::Safeguard;

use super::survey::{
    Asked, BATCH_END_BYTES, Window, has_hole, is_blank, is_end, lacks_footer, survey,
};
use super::verdict::{Evidence, Verdict, judge};
use super::{Scan, Sealed, Tail, TornTail, file_name, list};

const FIRST_FRAME: u64 = HEADER_BYTES as u64;
const FRAME: u64 = FRAME_BYTES as u64;

/// Reads the log of a store and visits, in order, every committed operation with an LSN greater
/// than `applied`. Writes nothing.
///
/// Errors with `Corrupt` when acknowledged records are damaged or missing, naming file, offset and
/// LSNs; with `Version` when a newer build wrote the log; with whatever `visit` returns.
/// Operations before the error have been visited by then.
pub fn replay(
    disk: &dyn Disk,
    store_id: [u8; 16],
    applied: Lsn,
    visit: &mut dyn FnMut(Op) -> Result<()>,
) -> Result<Scan> {
    let mut heads = Vec::new();
    for number in list(disk)? {
        heads.push(read_head(disk, number, &store_id)?);
    }
    let begins_in_time =
        |head: &Head| head.header.is_some_and(|h| h.first_lsn.0 <= applied.0.saturating_add(1));
    let mut scan = Scan {
        last_lsn: applied,
        last_batch: 0,
        clean: false,
        torn: None,
        notes: Vec::new(),
        ops: 0,
        bytes: 0,
        sealed: Vec::new(),
        tail: None,
        // Numbers never come back, even if the removal of old segments was not durable: none of
        // them is larger than its first LSN.
        next_number: applied.0.saturating_add(1),
    };
    let Some(start) = heads.iter().rposition(begins_in_time) else {
        return start_afresh(heads, scan, applied);
    };
    // Older segments hold nothing that is not applied.
    for (head, next) in heads.iter().zip(heads.iter().skip(1)).take(start) {
        let last_lsn = next.header.map_or(applied, |h| Lsn(h.first_lsn.0 - 1));
        scan.sealed.push(Sealed { number: head.number, last_lsn, bytes: head.bytes });
    }
    let mut position = Position::default();
    let mut left = heads.iter().skip(start).peekable();
    while let Some(head) = left.next() {
        scan.next_number = head.number.saturating_add(1);
        let next = left.peek();
        let Some(header) = head.header else {
            let mut window = Window::open(disk, file_name(head.number))?;
            if next.is_none() && is_blank(&mut window, FIRST_FRAME)? {
                // Cut short while it was created: its header is synced before it has its name.
                scan.next_number = head.number;
                break;
            }
            return Err(Error::corrupt(format!(
                "{}: the segment header is damaged; records from LSN {} on are behind it",
                window.name(),
                position.lsn.0.saturating_add(1),
            )));
        };
        if let Some(last) = scan.sealed.last().filter(|_| position.is_known)
            && Safeguard::LogGap.finds(
                last.number.checked_add(1) != Some(head.number)
                    || position.lsn.0.checked_add(1) != Some(header.first_lsn.0),
            )
        {
            return Err(Error::corrupt(format!(
                "{}: a gap in the log: LSN {} to {} are missing (segment {} came before)",
                file_name(head.number),
                position.lsn.0.saturating_add(1),
                header.first_lsn.0.saturating_sub(1),
                last.number,
            )));
        }
        position = Position {
            lsn: Lsn(header.first_lsn.0 - 1),
            batch: header.first_batch - 1,
            is_known: true,
        };
        let later = next.map(|next| next.header.map_or(Lsn(0), |h| h.first_lsn));
        let mut walk = Walk {
            window: Window::open(disk, file_name(head.number))?,
            header,
            seed: header.seed(),
            applied,
            position,
            later,
            next_header: next.and_then(|next| next.header),
            at: FIRST_FRAME,
            batch: Batch::default(),
            unsynced_from: FIRST_FRAME,
            damaged: false,
            scan: &mut scan,
        };
        let end = walk.run(visit)?;
        let (damaged, unsynced_from) = (walk.damaged, walk.unsynced_from);
        position = walk.position;
        scan.last_batch = position.batch;
        let is_unused = next.is_none() && end.at == FIRST_FRAME && !scan.clean;
        if next.is_some() || end.footer {
            let bytes = head.bytes;
            scan.sealed.push(Sealed { number: head.number, last_lsn: position.lsn, bytes });
        }
        if is_unused {
            // No batch was ever whole in it, so its creation may have failed in a way that later
            // syncs do not make up for. It is created again, under the same number.
            scan.next_number = head.number;
        } else if next.is_none_or(|next| next.header.is_none()) {
            scan.tail = Some(Tail {
                header,
                at: end.at,
                footer: end.footer,
                spent: damaged || scan.torn.is_some() || position.lsn < applied,
                unsynced_from,
                last_lsn: position.lsn,
                last_batch: position.batch,
                bytes: head.bytes,
            });
        }
    }
    scan.last_lsn = position.lsn.max(applied);
    Ok(scan)
}

/// No segment begins in time: fine when there is none, or one that was never finished.
fn start_afresh(heads: Vec<Head>, mut scan: Scan, applied: Lsn) -> Result<Scan> {
    match heads.as_slice() {
        [] => {
            scan.clean = true;
            Ok(scan)
        }
        [Head { number, header: None, is_blank: true, .. }] => {
            scan.next_number = *number;
            Ok(scan)
        }
        _ if Safeguard::LogStart.is_off() => Ok(scan),
        [first, ..] => Err(Error::corrupt(match first.header {
            Some(header) => format!(
                "{}: a gap in the log: it starts at LSN {}, but LSN {} to {} are archived nowhere",
                file_name(first.number),
                header.first_lsn,
                applied.0.saturating_add(1),
                header.first_lsn.0.saturating_sub(1),
            ),
            None => format!("{}: the segment header is damaged", file_name(first.number)),
        })),
    }
}

/// A segment before it is walked.
struct Head {
    number: u64,
    bytes: u64,
    /// `None` when it is damaged or was never written.
    header: Option<SegmentHeader>,
    /// Whether nothing stands behind a header that is `None`.
    is_blank: bool,
}

fn read_head(disk: &dyn Disk, number: u64, store_id: &[u8; 16]) -> Result<Head> {
    let mut window = Window::open(disk, file_name(number))?;
    let header = match SegmentHeader::decode(window.get(0, HEADER_BYTES)?) {
        Ok(header) => Some(header).filter(|h| {
            h.number == number && h.store_id == *store_id && h.first_lsn.0 > 0 && h.first_batch > 0
        }),
        Err(HeaderError::Bad) => None,
        Err(HeaderError::Format(format)) => {
            return Err(Error::new(
                ErrorKind::Version,
                format!("{}: log format {format:#x} is unknown to this build", window.name()),
            ));
        }
    };
    let is_blank = header.is_none() && is_blank(&mut window, FIRST_FRAME)?;
    Ok(Head { number, bytes: window.len(), header, is_blank })
}

/// How far the log is whole.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    lsn: Lsn,
    batch: u64,
    is_known: bool,
}

/// A batch whose commit frame has not come yet.
#[derive(Default)]
struct Batch {
    start: u64,
    count: u32,
    /// Bytes of the operations.
    bytes: u64,
    crc: crc32fast::Hasher,
    /// Only those that will be visited.
    ops: Vec<Op>,
}

/// Where a segment ended.
struct End {
    /// Where the next frame would go; behind the footer.
    at: u64,
    footer: bool,
}

/// One segment being read.
struct Walk<'a> {
    window: Window,
    header: SegmentHeader,
    seed: Seed,
    applied: Lsn,
    position: Position,
    later: Option<Lsn>,
    next_header: Option<SegmentHeader>,
    at: u64,
    batch: Batch,
    unsynced_from: u64,
    damaged: bool,
    scan: &'a mut Scan,
}

impl Walk<'_> {
    fn run(&mut self, visit: &mut dyn FnMut(Op) -> Result<()>) -> Result<End> {
        loop {
            let Some(frame) = self.whole_frame()? else {
                match self.broken(None)? {
                    Some(end) => return Ok(end),
                    None => continue,
                }
            };
            match frame.kind {
                Kind::Op => self.take_op(&frame)?,
                Kind::Commit => self.take_commit(&frame, visit)?,
                Kind::Footer | Kind::AckMark | Kind::Close => {
                    if self.batch.count > 0
                        || frame.lsn != self.position.lsn
                        || frame.batch != self.position.batch
                        || frame.len > 0
                    {
                        return Err(self.out_of_order(&frame));
                    }
                    if frame.lag == 0 {
                        self.unsynced_from = self.at;
                    }
                    if frame.kind == Kind::Footer {
                        return Ok(End { at: self.at + FRAME, footer: true });
                    }
                    // A mark or a close stands at the tail: the next batch would overwrite it.
                    if self.later.is_none() && self.is_end(self.at + FRAME)? {
                        self.scan.clean = frame.kind == Kind::Close && frame.lag == 0;
                        return Ok(End { at: self.at, footer: false });
                    }
                    if let Some(end) = self.broken(Some(frame))? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    /// The frame that stands here, when header and payload verify.
    fn whole_frame(&mut self) -> Result<Option<Frame>> {
        let (seed, at) = (self.seed, self.at);
        let Some(frame) = Frame::decode(seed, at, self.window.get(at, FRAME_BYTES)?) else {
            return Ok(None);
        };
        let len = frame.len as usize;
        if len > limits::BATCH_BYTES_MAX {
            return Ok(None);
        }
        let payload = self.window.get(at + FRAME, len)?;
        Ok(frame.has_payload(seed, at, payload).then_some(frame))
    }

    fn take_op(&mut self, frame: &Frame) -> Result<()> {
        if self.batch.count == 0 {
            self.batch.start = self.at;
            if frame.lag <= 1 {
                self.unsynced_from = self.at;
            }
        }
        let lsn = self.position.lsn.0.checked_add(u64::from(self.batch.count) + 1);
        let skips =
            lsn != Some(frame.lsn.0) || self.position.batch.checked_add(1) != Some(frame.batch);
        if Safeguard::LogOrder.finds(skips)
            || self.batch.count as usize >= limits::BATCH_OPS_MAX
            || self.batch.bytes + u64::from(frame.len) > limits::BATCH_BYTES_MAX as u64
        {
            return Err(self.out_of_order(frame));
        }
        self.batch.count += 1;
        self.batch.bytes += u64::from(frame.len);
        let header = self.window.get(self.at, FRAME_BYTES)?;
        self.batch.crc.update(header);
        if frame.lsn > self.applied || Safeguard::LogApplied.is_off() {
            let place = (self.header.number, self.at + FRAME);
            let bytes = self.window.get(self.at + FRAME, frame.len as usize)?;
            let op = decode_op(frame.lsn, bytes, Some(place)).map_err(|e| {
                let kind = if e.is_newer() { ErrorKind::Version } else { ErrorKind::Corrupt };
                let file = self.window.name();
                Error::new(kind, format!("{file}: record {} at offset {}: {e}", frame.lsn, self.at))
            })?;
            self.batch.ops.push(op);
        }
        self.at += FRAME + u64::from(frame.len);
        Ok(())
    }

    fn take_commit(
        &mut self,
        frame: &Frame,
        visit: &mut dyn FnMut(Op) -> Result<()>,
    ) -> Result<()> {
        let commit = Commit::decode(self.window.get(self.at + FRAME, frame.len as usize)?);
        let batch = std::mem::take(&mut self.batch);
        let first = self.position.lsn.0.saturating_add(1);
        let last = self.position.lsn.0.saturating_add(u64::from(batch.count));
        let is_right = commit.is_ok_and(|c| {
            let differs = c.batch_crc != batch.crc.finalize();
            c.count == batch.count
                && c.first_lsn.0 == first
                && !Safeguard::LogBatchCrc.finds(differs)
        });
        if batch.count == 0
            || !is_right
            || frame.lsn.0 != last
            || self.position.batch.checked_add(1) != Some(frame.batch)
        {
            return Err(self.out_of_order(frame));
        }
        self.position.lsn = frame.lsn;
        self.position.batch = frame.batch;
        self.at += FRAME + u64::from(frame.len);
        if !batch.ops.is_empty() {
            self.scan.bytes += self.at - batch.start;
        }
        for op in batch.ops {
            self.scan.ops += 1;
            visit(op)?;
        }
        Ok(())
    }

    /// Nothing whole stands here, or (`mark`) a mark with more behind it. `None` says to go on from
    /// the new place; an error refuses the log.
    fn broken(&mut self, mark: Option<Frame>) -> Result<Option<End>> {
        let in_batch = self.batch.count > 0;
        let from = if mark.is_some() { self.at + FRAME } else { self.at };
        if self.later.is_none() && !in_batch && self.is_end(from)? {
            return Ok(Some(End { at: self.at, footer: false }));
        }
        let asked = self.asked();
        let found = survey(&mut self.window, from, &asked)?;
        let cut = if in_batch { self.batch.start } else { self.at };
        if let Some(resume) = found.resume {
            // What was archived before it was ever synced is cut off by a crash like anything else
            // that was not: damage is what was whole once, by the word of a later sync.
            let was_whole = self.later.is_some() || found.synced_through > asked.last_batch;
            if was_whole {
                self.note(format!(
                    "{}: damage at offset {}, of records up to LSN {} that are all archived",
                    self.window.name(),
                    self.at,
                    resume.lsn
                ));
            }
            self.damaged = true;
            self.batch = Batch::default();
            self.position.lsn = resume.lsn;
            self.position.batch = resume.batch;
            self.at = resume.at;
            return Ok(None);
        }
        let next = self.next_header.map(|h| h.first_lsn.0);
        if next.is_some() && next == self.position.lsn.0.checked_add(1) && !in_batch {
            // The next segment goes on with the next record: nothing but the footer can be wrong.
            if !lacks_footer(&mut self.window, self.at, &asked)? {
                self.note(format!("{}: the footer at offset {cut} is damaged", self.window.name()));
            }
            return Ok(Some(End { at: cut, footer: false }));
        }
        // What is not whole reaches at least to the end of a commit frame that is not there.
        let frames_end = found.frames_end.max(self.at);
        let batch_end = found.written_end.max(frames_end).max(self.at + BATCH_END_BYTES);
        let evidence = Evidence {
            last_lsn: self.position.lsn,
            batch: self.position.batch.saturating_add(1),
            applied: self.applied,
            later_segment: self.later,
            synced_through: found.synced_through,
            acked_lsn: found.acked_lsn,
            is_short: batch_end > self.window.len(),
            // A mark that still stands says that the batch over it did not arrive.
            has_hole: mark.is_some() || has_hole(&mut self.window, cut, batch_end)?,
        };
        // Behind a batch in a recycled segment stand bytes that nobody wants to see again.
        let written_end = match self.header.recycled {
            true => batch_end.min(self.window.len()),
            false => found.written_end,
        };
        let file = self.window.name().to_owned();
        match judge(&evidence) {
            Verdict::Rot(first, last) if !Safeguard::LogVerdict.is_off() => {
                Err(Error::corrupt(format!(
                    "{file}: damage at offset {} and acknowledged records behind it: LSN {first} to \
                 {last} are at stake",
                    self.at
                )))
            }
            verdict => {
                self.scan.torn = Some(TornTail {
                    file,
                    offset: cut,
                    bytes: written_end.saturating_sub(cut).max(self.at - cut),
                    ambiguous: verdict == Verdict::Ambiguous,
                });
                Ok(Some(End { at: cut, footer: false }))
            }
        }
    }

    fn asked(&self) -> Asked {
        Asked {
            seed: self.seed,
            last_lsn: self.position.lsn,
            last_batch: self.position.batch,
            applied: self.applied,
            recycled: self.header.recycled,
        }
    }

    fn is_end(&mut self, from: u64) -> Result<bool> {
        let asked = self.asked();
        is_end(&mut self.window, from, &asked)
    }

    fn note(&mut self, note: String) {
        self.damaged = true;
        self.scan.notes.push(note);
    }

    fn out_of_order(&self, frame: &Frame) -> Error {
        Error::corrupt(format!(
            "{}: the frame at offset {} ({:?}, LSN {}, batch {}) does not continue LSN {}, batch {}",
            self.window.name(),
            self.at,
            frame.kind,
            frame.lsn,
            frame.batch,
            self.position.lsn,
            self.position.batch,
        ))
    }
}
