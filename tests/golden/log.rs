//! The log: segments of frames, batches of operations.
//!
//! A segment is a header, frames, and zeros. Every checksum in it starts from the segment's seed and
//! covers the offset, so that a frame counts only where it was written. A batch counts when its commit
//! frame and all frames before it verify. Where the document says how a log that was cut off is read,
//! this reader is stricter: the store was closed, so whatever follows the last frame has to be zeros.

use super::bytes::{Cursor, Read, all_zeros, crc, crc_from, hold, part, same};
use super::operations::Operation;

const HEADER: usize = 64;
const FRAME: usize = 32;

#[derive(PartialEq, Debug)]
enum Kind {
    Operation,
    Commit,
    Mark,
    Footer,
    Close,
}

struct Frame<'a> {
    header: &'a [u8],
    kind: Kind,
    lag: u32,
    lsn: u64,
    batch: u64,
    payload: &'a [u8],
}

/// A segment of the log.
pub struct Segment {
    pub number: u64,
    pub first_lsn: u64,
    pub first_batch: u64,
    pub operations: Vec<(u64, Operation)>,
    pub batches: u64,
    pub footer: bool,
}

pub fn read(file: &[u8], store: &[u8; 16], number: u64) -> Read<Segment> {
    let what = format!("log segment {number}");
    let header = part(&what, file, 0, HEADER as u64)?;
    let mut cursor = Cursor::new(&what, header);
    cursor.expect("magic", b"pmll-wal")?;
    cursor.expect("format", &0xde01_u16.to_le_bytes())?;
    // A closed log holds no old bytes, whatever its files were before.
    let flags = cursor.u16()?;
    hold(flags <= 1, || format!("{what}: flags {flags:#x}"))?;
    cursor.expect("store", store)?;
    cursor.expect("number", &number.to_le_bytes())?;
    let (first_lsn, first_batch, salt) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
    same(&what, cursor.u32()?, crc(&[&header[..60]]))?;
    let seed = crc(&[store, &salt.to_le_bytes(), &number.to_le_bytes(), &first_lsn.to_le_bytes()]);

    let mut segment = Segment {
        number,
        first_lsn,
        first_batch,
        operations: Vec::new(),
        batches: 0,
        footer: false,
    };
    let mut open: Vec<Frame> = Vec::new();
    let mut at = HEADER;
    while at < file.len() && !all_zeros(&file[at..]) {
        let frame = frame(file, at, seed)?;
        at += FRAME + frame.payload.len();
        let (lsn, batch) = segment.next();
        let in_batch = matches!(frame.kind, Kind::Operation | Kind::Commit);
        let expected = if in_batch { batch } else { batch - 1 };
        hold(frame.batch == expected, || format!("{what}: batch {} of {expected}", frame.batch))?;
        hold(u64::from(frame.lag) <= frame.batch, || format!("{what}: lag {}", frame.lag))?;
        let expected = lsn + open.len() as u64 - u64::from(frame.kind != Kind::Operation);
        hold(frame.lsn == expected, || format!("{what}: LSN {} of {expected}", frame.lsn))?;
        match frame.kind {
            Kind::Operation => open.push(frame),
            Kind::Commit => segment.commit(&what, &frame, std::mem::take(&mut open))?,
            Kind::Mark | Kind::Footer | Kind::Close => {
                hold(frame.payload.is_empty(), || {
                    format!("{what}: {:?} with payload", frame.kind)
                })?;
                hold(open.is_empty(), || format!("{what}: {:?} in a batch", frame.kind))?;
                segment.footer = frame.kind == Kind::Footer;
                let rest = all_zeros(&file[at..]);
                hold(rest, || format!("{what}: bytes behind the last frame"))?;
            }
        }
    }
    hold(open.is_empty(), || format!("{what}: a batch without a commit frame"))?;
    Ok(segment)
}

impl Segment {
    /// LSN of the next operation and number of the next batch.
    pub fn next(&self) -> (u64, u64) {
        (self.first_lsn + self.operations.len() as u64, self.first_batch + self.batches)
    }

    fn commit(&mut self, what: &str, commit: &Frame, frames: Vec<Frame>) -> Read<()> {
        let mut cursor = Cursor::new(what, commit.payload);
        let (count, first, batch_crc) = (cursor.u32()?, cursor.u64()?, cursor.u32()?);
        cursor.end()?;
        hold(count as usize == frames.len() && count > 0, || format!("{what}: count {count}"))?;
        hold(first == frames[0].lsn, || format!("{what}: first LSN of a batch {first}"))?;
        let headers: Vec<&[u8]> = frames.iter().map(|frame| frame.header).collect();
        same(&format!("{what}: batch {}", commit.batch), batch_crc, crc(&headers))?;
        for frame in &frames {
            self.operations.push((frame.lsn, Operation::read(frame.payload, frame.lsn)?));
        }
        self.batches += 1;
        Ok(())
    }
}

fn frame(file: &[u8], at: usize, seed: u32) -> Read<Frame<'_>> {
    let what = format!("frame at {at:#x}");
    let header = part(&what, file, at as u64, FRAME as u64)?;
    let bound = |at: usize, bytes: &[u8]| crc_from(seed, &[&(at as u64).to_le_bytes(), bytes]);
    let mut cursor = Cursor::new(&what, header);
    let (length, word) = (cursor.u32()?, cursor.u32()?);
    let (lsn, batch, payload_crc) = (cursor.u64()?, cursor.u64()?, cursor.u32()?);
    same(&what, cursor.u32()?, bound(at, &header[..28]))?;
    let kind = match word & 0xff {
        1 => Kind::Operation,
        2 => Kind::Commit,
        3 => Kind::Mark,
        4 => Kind::Footer,
        5 => Kind::Close,
        other => return Err(format!("{what}: kind {other}")),
    };
    let start = at + FRAME;
    let payload = part(&what, file, start as u64, u64::from(length))?;
    same(&format!("{what}: payload"), payload_crc, bound(start, payload))?;
    Ok(Frame { header, kind, lag: word >> 8, lsn, batch, payload })
}
