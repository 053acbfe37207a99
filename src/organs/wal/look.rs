//! Looking at segments one by one: what their frames hold, whole or not, and where they are damaged.
//!
//! [`replay`](super::replay) answers what a store may go by, and stops where it must refuse. This is for
//! people who want to see what there is: it goes on behind damage, at the next frame that verifies, and
//! counts what it finds there apart. A frame whose header verifies tells its own length, so damage of a
//! payload costs that record alone.
//!
//! What a damaged place means is said by the same evidence and the same [`judge`] as at an open.
//!
//! [`visit()`] does the same for a salvage, and hands out the batches that are whole.
//!
//! Never: writes, hands out a part of a batch, or decides anything.

use std::collections::BTreeMap;

use crate::bytes::codec::log::{
    Commit, FRAME_BYTES, Frame, HEADER_BYTES, HeaderError, Kind, SegmentHeader,
};
use crate::bytes::codec::op::decode_op;
use crate::io::Disk;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::Lsn;
use crate::words::limits;
use crate::words::record::Op;

use super::survey::{
    Asked, BATCH_END_BYTES, Window, has_hole, is_blank, is_end, lacks_footer, plausible, survey,
};
use super::verdict::{Evidence, Verdict, judge};
use super::{file_name, list};

mod visit;

pub use visit::{Logged, Met, visit};
use visit::{Sink, Take};

const FRAME: u64 = FRAME_BYTES as u64;
/// Damaged places of a segment that are judged, each by reading on to its end; the others are counted.
const WOUNDS_MAX: usize = 16;
/// How much is searched at once for the next frame.
const PIECE_BYTES: usize = 256 << 10;

/// What one segment holds.
#[derive(Debug, Default)]
pub struct Look {
    /// What it says of itself; `None` when that is damaged or was never written.
    pub header: Option<SegmentHeader>,
    /// Whether nothing was ever written to it, as after a creation that was cut off.
    pub blank: bool,
    /// Batches before the first damage.
    pub whole: Part,
    /// Batches behind damage.
    pub behind: Part,
    /// Operations whose batch has no commit frame, or one that does not fit them.
    pub loose: u64,
    /// Where the last frame ends.
    pub used_bytes: u64,
    /// What the last frame is.
    pub last: Option<&'static str>,
    /// Damaged places, the first ones.
    pub wounds: Vec<Wound>,
    /// How many there are.
    pub wounds_total: usize,
}

/// What some batches hold.
#[derive(Debug, Default)]
pub struct Part {
    /// Operations by kind; `damaged` when only the frame's header is whole.
    pub ops: BTreeMap<&'static str, u64>,
    /// Batches.
    pub batches: u64,
    /// First and last LSN.
    pub lsns: Option<(Lsn, Lsn)>,
}

impl Part {
    fn take(&mut self, name: &'static str, lsn: Lsn) {
        *self.ops.entry(name).or_insert(0) += 1;
        self.lsns = Some(self.lsns.map_or((lsn, lsn), |(a, b)| (a.min(lsn), b.max(lsn))));
    }

    /// All operations.
    pub fn count(&self) -> u64 {
        self.ops.values().sum()
    }

    fn add(&mut self, other: Part) {
        for (name, count) in other.ops {
            *self.ops.entry(name).or_insert(0) += count;
        }
        let lsns = [self.lsns, other.lsns].into_iter().flatten();
        self.lsns = lsns.reduce(|(a, b), (c, d)| (a.min(c), b.max(d)));
        self.batches += 1;
    }
}

/// A damaged place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wound {
    /// Where it begins.
    pub offset: u64,
    /// Where the next frame stands that verifies.
    pub resumes: Option<u64>,
    /// What it means.
    pub meaning: Meaning,
}

/// What a damaged place means for the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// All that stood there is in the archive.
    Archived,
    /// Only the end mark of the segment is damaged.
    Footer,
    /// A write that was cut short; nobody was told that it succeeded.
    Torn,
    /// That, or the last batch is rotten: nothing tells.
    TornOrRotten,
    /// Acknowledged records are damaged.
    Rotten,
}

impl Meaning {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Meaning::Archived => "archived",
            Meaning::Footer => "footer",
            Meaning::Torn => "torn",
            Meaning::TornOrRotten => "torn or rotten",
            Meaning::Rotten => "rotten",
        }
    }
}

/// The name of an operation's kind.
pub fn name_of(op: &Op) -> &'static str {
    match op {
        Op::Put(_) => "put",
        Op::Delete(_) => "delete",
        Op::Define(_) => "define",
        Op::DropCollection { .. } => "drop",
        Op::Setting { .. } => "setting",
        Op::Request { .. } => "request",
    }
}

/// Looks at every segment, oldest first. A file that cannot be read, or that a newer build wrote, is an
/// error beside its name; the others are looked at all the same.
pub fn look(disk: &dyn Disk, applied: Lsn) -> Result<Vec<(String, Result<Look>)>> {
    let mut heads = Vec::new();
    for number in list(disk)? {
        heads.push((number, read_header(disk, number)));
    }
    let mut looks = Vec::new();
    for (at, (number, header)) in heads.iter().enumerate() {
        let later = heads.get(at + 1).map(|(_, later)| match later {
            Ok(Some(header)) => header.first_lsn,
            _ => Lsn(0),
        });
        let look = match header {
            Ok(header) => look_at(disk, *number, *header, applied, later, None),
            Err(error) => Err(error.clone()),
        };
        looks.push((file_name(*number), look));
    }
    Ok(looks)
}

/// The headers of all segments, oldest first, by file; `None` for what cannot be read.
pub fn headers(disk: &dyn Disk) -> Result<Vec<(String, Option<SegmentHeader>)>> {
    let head = |number| (file_name(number), read_header(disk, number).ok().flatten());
    Ok(list(disk)?.into_iter().map(head).collect())
}

/// The header of a segment, whosoever it is; `None` when it does not verify.
fn read_header(disk: &dyn Disk, number: u64) -> Result<Option<SegmentHeader>> {
    let mut window = Window::open(disk, file_name(number))?;
    match SegmentHeader::decode(window.get(0, HEADER_BYTES)?) {
        Ok(header) => Ok(Some(header)),
        Err(HeaderError::Bad) => Ok(None),
        Err(HeaderError::Format(format)) => {
            let name = window.name();
            let message = format!("{name}: log format {format:#x} is unknown to this build");
            Err(Error::new(ErrorKind::Version, message))
        }
    }
}

fn look_at(
    disk: &dyn Disk,
    number: u64,
    header: Option<SegmentHeader>,
    applied: Lsn,
    later: Option<Lsn>,
    take: Option<Take<'_>>,
) -> Result<Look> {
    let mut window = Window::open(disk, file_name(number))?;
    let mut look = Look { header, ..Look::default() };
    let Some(header) = header else {
        look.blank = is_blank(&mut window, 0)?;
        return Ok(look);
    };
    let mut walk = Walk {
        window,
        number,
        asked: Asked {
            seed: header.seed(),
            last_lsn: Lsn(header.first_lsn.0.saturating_sub(1)),
            last_batch: header.first_batch.saturating_sub(1),
            applied,
            recycled: header.recycled,
        },
        later,
        at: HEADER_BYTES as u64,
        batch: Part::default(),
        batch_at: HEADER_BYTES as u64,
        after_mark: false,
        sink: take.map(Sink::new),
    };
    walk.run(&mut look)?;
    Ok(look)
}

struct Walk<'a> {
    window: Window,
    number: u64,
    /// The last batch that was committed, and what damage is judged by.
    asked: Asked,
    /// First LSN of the segment behind this one; 0 when its header cannot be read.
    later: Option<Lsn>,
    at: u64,
    /// Operations since the last commit frame, and where they begin.
    batch: Part,
    batch_at: u64,
    /// Whether the frame before was a mark, which every further batch overwrites.
    after_mark: bool,
    sink: Option<Sink<'a>>,
}

impl Walk<'_> {
    fn run(&mut self, look: &mut Look) -> Result<()> {
        look.used_bytes = self.at;
        loop {
            let (at, seed) = (self.at, self.asked.seed);
            let Some(frame) = Frame::decode(seed, at, self.window.get(at, FRAME_BYTES)?) else {
                if self.batch.count() == 0
                    && (is_end(&mut self.window, at, &self.asked)?
                        || self.goes_on() && lacks_footer(&mut self.window, at, &self.asked)?)
                {
                    break;
                }
                let resumes = self.next_frame(at.saturating_add(1))?;
                self.wound(look, resumes)?;
                // The chain is broken, and with it the batch.
                look.loose += std::mem::take(&mut self.batch).count();
                self.sink.iter_mut().for_each(Sink::tear);
                match resumes {
                    Some(resumes) => self.at = resumes,
                    None => break,
                }
                continue;
            };
            let end = at.saturating_add(FRAME).saturating_add(u64::from(frame.len));
            let payload = match frame.len as usize <= limits::BATCH_BYTES_MAX {
                true => self.window.get(at + FRAME, frame.len as usize)?,
                false => &[],
            };
            let mut whole_op = None;
            let name = match frame.kind {
                Kind::Op if !frame.has_payload(seed, at, payload) => "damaged",
                Kind::Op => match decode_op(frame.lsn, payload, Some((self.number, at + FRAME))) {
                    Ok(op) => name_of(whole_op.insert(op)),
                    Err(_) => "unknown",
                },
                Kind::Commit => "commit",
                Kind::AckMark => "mark",
                Kind::Footer => "footer",
                Kind::Close => "close",
            };
            let commit = match frame.kind {
                Kind::Commit if frame.has_payload(seed, at, payload) => {
                    Commit::decode(payload).ok()
                }
                _ => None,
            };
            if name == "damaged" || (frame.kind == Kind::Commit && commit.is_none()) {
                let within = end <= self.window.len();
                self.wound(look, Some(end).filter(|_| within))?;
            }
            self.after_mark = matches!(frame.kind, Kind::AckMark | Kind::Close);
            look.last = Some(if frame.kind == Kind::Op { "operation" } else { name });
            look.used_bytes = end.min(self.window.len());
            match frame.kind {
                Kind::Op => {
                    if self.batch.count() == 0 {
                        self.batch_at = at;
                    }
                    self.batch.take(name, frame.lsn);
                    if let Some(sink) = &mut self.sink {
                        let header = self.window.get(at, FRAME_BYTES)?;
                        sink.keep(self.number, at + FRAME, &frame, header, whole_op);
                    }
                }
                Kind::Commit => {
                    if let Some(sink) = &mut self.sink {
                        sink.hand_over(&frame, commit)?;
                    }
                    self.commit(look, &frame, commit);
                }
                Kind::Footer => break,
                Kind::AckMark | Kind::Close => {}
            }
            self.at = end;
            if end >= self.window.len() {
                break;
            }
        }
        look.loose += self.batch.count();
        match (&mut self.sink, self.batch.lsns) {
            (Some(sink), Some((_, last))) => (sink.take)(Met::Loose(last)),
            _ => Ok(()),
        }
    }

    fn commit(&mut self, look: &mut Look, frame: &Frame, commit: Option<Commit>) {
        let batch = std::mem::take(&mut self.batch);
        let fits = commit.is_some_and(|commit| {
            let first = batch.lsns.map(|(first, _)| first);
            u64::from(commit.count) == batch.count() && Some(commit.first_lsn) == first
        });
        match (fits, look.wounds_total) {
            (true, 0) => look.whole.add(batch),
            (true, _) => look.behind.add(batch),
            (false, _) => look.loose += batch.count(),
        }
        self.asked.last_lsn = frame.lsn;
        self.asked.last_batch = frame.batch;
    }

    /// Notes that nothing whole stands here.
    fn wound(&mut self, look: &mut Look, resumes: Option<u64>) -> Result<()> {
        look.wounds_total += 1;
        let mut meaning = Meaning::Rotten;
        if look.wounds.len() < WOUNDS_MAX {
            meaning = self.meaning()?;
            look.wounds.push(Wound { offset: self.at, resumes, meaning });
        }
        let Some(sink) = &mut self.sink else { return Ok(()) };
        if let Some((_, last)) = self.batch.lsns {
            (sink.take)(Met::Loose(last))?;
        }
        (sink.take)(Met::Damage { file: self.window.name(), offset: self.at, meaning })
    }

    /// Whether the next segment begins with the record behind the last one here.
    fn goes_on(&self) -> bool {
        let next = self.asked.last_lsn.0.checked_add(1);
        next.is_some() && self.later.map(|later| later.0) == next
    }

    /// By the evidence that an open goes by.
    fn meaning(&mut self) -> Result<Meaning> {
        let (at, applied, in_batch) = (self.at, self.asked.applied, self.batch.count() > 0);
        // An open does not read what lies before the first record that is not archived.
        if self.later.is_some_and(|later| later.0 > 0 && later.0 - 1 <= applied.0) {
            return Ok(Meaning::Archived);
        }
        let found = survey(&mut self.window, at, &self.asked)?;
        if found.resume.is_some() {
            return Ok(Meaning::Archived);
        }
        if !in_batch && self.goes_on() {
            return Ok(Meaning::Footer);
        }
        let cut = if in_batch { self.batch_at } else { at };
        let end = found.written_end.max(found.frames_end).max(at).max(at + BATCH_END_BYTES);
        let evidence = Evidence {
            last_lsn: self.asked.last_lsn,
            batch: self.asked.last_batch.saturating_add(1),
            applied,
            later_segment: self.later,
            synced_through: found.synced_through,
            acked_lsn: found.acked_lsn,
            is_short: end > self.window.len(),
            has_hole: self.after_mark || has_hole(&mut self.window, cut, end)?,
        };
        Ok(match judge(&evidence) {
            Verdict::Rot(..) => Meaning::Rotten,
            Verdict::Torn => Meaning::Torn,
            Verdict::Ambiguous => Meaning::TornOrRotten,
        })
    }

    /// The next place from `from` on where the header of a frame verifies.
    fn next_frame(&mut self, from: u64) -> Result<Option<u64>> {
        let mut start = from;
        while start.saturating_add(FRAME) <= self.window.len() {
            let asked = self.asked;
            let piece = self.window.get(start, PIECE_BYTES)?;
            let mut windows = piece.windows(FRAME_BYTES).zip(start..);
            if let Some((_, at)) = windows.find(|(b, at)| plausible(b, &asked, *at).is_some()) {
                return Ok(Some(at));
            }
            // Pieces overlap, so that a frame on the seam is seen whole by one of them.
            let step = piece.len().saturating_sub(FRAME_BYTES - 1).max(1);
            start = start.saturating_add(step as u64);
        }
        Ok(None)
    }
}
