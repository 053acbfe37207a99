//! Byte form of the log: the segment header, and the frames that follow it to the segment's end.
//!
//! ```text
//! segment  header (64 bytes), frames, zeros up to the end of the file (recycled: some, then old bytes)
//! header   magic[8] format:u16 flags:u16 store[16] segment:u64 first_lsn:u64 first_batch:u64 salt:u64 crc:u32
//! frame    len:u32 kind:u8 lag:u24 lsn:u64 batch:u64 payload_crc:u32 header_crc:u32, payload[len]
//! commit   payload of a commit frame: count:u32 first_lsn:u64 batch_crc:u32
//! ```
//!
//! A batch is its operation frames and one commit frame, which counts them and covers their headers
//! (and, through the CRC in each header, their payloads). Acknowledgement mark, footer and close
//! frames carry no payload.
//!
//! Two things make a frame tell more than its contents:
//! - Every CRC of a frame starts from a seed of the segment's salt, number and store, and from the
//!   file offset of the bytes. Bytes of another segment, another store, or written to the wrong
//!   place never verify, and neither does a block of zeros (kind 0 does not exist).
//! - `lag` says how far syncing was behind when the frame was written: all batches up to
//!   `batch - lag` were on disk by then. So a valid frame proves which earlier batches had been
//!   acknowledged as durable, which is how damage is told from a write that was cut short.
//!
//! Nothing here reads files or judges; decoders take bytes and answer with what they are.

use crc32fast::Hasher;

use crate::bytes::codec::cursor::{Put, Reader, Short};
use crate::words::id::Lsn;
use crate::words::limits;
use crate::words::safeguard::Safeguard;

/// Length of the segment header; the first frame starts here.
pub const HEADER_BYTES: usize = 64;
/// Length of a frame without its payload.
pub const FRAME_BYTES: usize = 32;
/// Length of the payload of a commit frame.
pub const COMMIT_BYTES: usize = 16;
/// Largest `lag` that a frame can say; the writer syncs before it would need more.
pub const LAG_MAX: u32 = (1 << 24) - 1;

const MAGIC: [u8; 8] = *b"pmll-wal";
/// Format `0-dev`, without flags: refused by every build with another number.
const FORMAT: u32 = 0x0000_de01;
/// The same with the flag that says what the file was before.
const FORMAT_RECYCLED: u32 = FORMAT | 1 << 16;

/// First bytes of a segment: what it is, whose, and where in the history it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Store it belongs to.
    pub store_id: [u8; 16],
    /// Its number, also in its file name.
    pub number: u64,
    /// LSN of its first operation.
    pub first_lsn: Lsn,
    /// Number of its first batch.
    pub first_batch: u64,
    /// Random number, so that no two segments ever share their CRCs.
    pub salt: u64,
    /// Whether its file was another segment before, whose bytes may stand behind the end of this one.
    pub recycled: bool,
}

/// Why bytes are not a segment header of this format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// They are damaged, foreign, or were never written.
    Bad,
    /// They are whole, and of a format this build does not know.
    Format(u32),
}

impl From<Short> for HeaderError {
    fn from(_: Short) -> HeaderError {
        HeaderError::Bad
    }
}

impl SegmentHeader {
    /// Appends the 64 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_bytes(&MAGIC);
        out.put_u32(if self.recycled { FORMAT_RECYCLED } else { FORMAT });
        out.put_bytes(&self.store_id);
        out.put_u64(self.number);
        out.put_u64(self.first_lsn.0);
        out.put_u64(self.first_batch);
        out.put_u64(self.salt);
        let crc = crc32fast::hash(out.get(start..).unwrap_or_default());
        out.put_u32(crc);
    }

    /// Reads the first 64 of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderError> {
        let mut reader = Reader::new(bytes);
        let covered = reader.bytes(HEADER_BYTES - 4)?;
        let crc = reader.u32()?;
        let mut reader = Reader::new(covered);
        let differs = crc32fast::hash(covered) != crc;
        if reader.array()? != MAGIC || Safeguard::LogHeaderCrc.finds(differs) {
            return Err(HeaderError::Bad);
        }
        let format = reader.u32()?;
        let recycled = format == FORMAT_RECYCLED;
        if format != FORMAT && !recycled {
            return Err(HeaderError::Format(format));
        }
        let header = SegmentHeader {
            store_id: reader.array()?,
            number: reader.u64()?,
            first_lsn: Lsn(reader.u64()?),
            first_batch: reader.u64()?,
            salt: reader.u64()?,
            recycled,
        };
        let furthest = header.number.max(header.first_lsn.0).max(header.first_batch);
        if furthest > limits::COUNT_MAX { Err(HeaderError::Bad) } else { Ok(header) }
    }

    /// The seed of all CRCs of this segment's frames.
    #[must_use]
    pub fn seed(&self) -> Seed {
        let mut hasher = Hasher::new();
        hasher.update(&self.store_id);
        hasher.update(&self.salt.to_le_bytes());
        hasher.update(&self.number.to_le_bytes());
        hasher.update(&self.first_lsn.0.to_le_bytes());
        Seed(hasher.finalize())
    }
}

/// What the CRCs of one segment start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u32);

impl Seed {
    /// A CRC-32 that is bound to this segment and to the file offset of the bytes it will cover.
    #[must_use]
    pub fn hasher(self, offset: u64) -> Hasher {
        let mut hasher = Hasher::new_with_initial(self.0);
        hasher.update(&offset.to_le_bytes());
        hasher
    }

    /// The bound CRC-32 of `bytes` at `offset`.
    #[must_use]
    pub fn crc(self, offset: u64, bytes: &[u8]) -> u32 {
        let mut hasher = self.hasher(offset);
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One operation; the payload is its byte form.
    Op,
    /// End of a batch: the batch counts from here on.
    Commit,
    /// The batch before it was synced. Overwritten by the next batch.
    AckMark,
    /// End of a segment: nothing behind it counts.
    Footer,
    /// The store was closed here. Overwritten by the next batch.
    Close,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Kind::Op => 1,
            Kind::Commit => 2,
            Kind::AckMark => 3,
            Kind::Footer => 4,
            Kind::Close => 5,
        }
    }

    fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            1 => Some(Kind::Op),
            2 => Some(Kind::Commit),
            3 => Some(Kind::AckMark),
            4 => Some(Kind::Footer),
            5 => Some(Kind::Close),
            _ => None,
        }
    }
}

/// Header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Length of the payload behind it.
    pub len: u32,
    /// How many of the batches up to `batch` were not known to be synced; at most [`LAG_MAX`].
    pub lag: u32,
    /// LSN of the operation; of the last operation of the log so far, for other kinds.
    pub lsn: Lsn,
    /// Number of the batch it belongs to; of the last batch, for marks, footers and closes.
    pub batch: u64,
    /// CRC of the payload, bound to segment and offset.
    pub payload_crc: u32,
}

impl Frame {
    /// A frame without payload, to stand at `offset`.
    #[must_use]
    pub fn empty(kind: Kind, seed: Seed, offset: u64, lag: u32, lsn: Lsn, batch: u64) -> Frame {
        let payload_crc = seed.crc(offset.wrapping_add(FRAME_BYTES as u64), &[]);
        Frame { kind, len: 0, lag, lsn, batch, payload_crc }
    }

    /// All batches up to this one were on disk when the frame was written.
    #[must_use]
    pub fn synced_through(&self) -> u64 {
        self.batch.saturating_sub(u64::from(self.lag))
    }

    /// The 32 bytes of the header, to stand at `offset`.
    #[must_use]
    pub fn encode(&self, seed: Seed, offset: u64) -> [u8; FRAME_BYTES] {
        let mut bytes = [0; FRAME_BYTES];
        let (covered, crc) = bytes.split_at_mut(FRAME_BYTES - 4);
        let [lag_0, lag_1, lag_2, _] = self.lag.min(LAG_MAX).to_le_bytes();
        let mut at = 0;
        for part in [
            &self.len.to_le_bytes()[..],
            &[self.kind.byte(), lag_0, lag_1, lag_2],
            &self.lsn.0.to_le_bytes(),
            &self.batch.to_le_bytes(),
            &self.payload_crc.to_le_bytes(),
        ] {
            if let Some(place) = covered.get_mut(at..at + part.len()) {
                place.copy_from_slice(part);
            }
            at += part.len();
        }
        crc.copy_from_slice(&seed.crc(offset, covered).to_le_bytes());
        bytes
    }

    /// Reads the header that stands at `offset`; `None` when the bytes are not one of this segment
    /// written to this place. Says nothing about the payload.
    #[must_use]
    pub fn decode(seed: Seed, offset: u64, bytes: &[u8]) -> Option<Frame> {
        let (covered, crc) = bytes.get(..FRAME_BYTES)?.split_at(FRAME_BYTES - 4);
        let mut reader = Reader::new(covered);
        let len = reader.u32().ok()?;
        let kind = Kind::from_byte(reader.u8().ok()?)?;
        let differs = Reader::new(crc).u32().ok()? != seed.crc(offset, covered);
        if Safeguard::LogFrameCrc.finds(differs) {
            return None;
        }
        let [lag_0, lag_1, lag_2] = reader.array().ok()?;
        Some(Frame {
            kind,
            len,
            lag: u32::from_le_bytes([lag_0, lag_1, lag_2, 0]),
            lsn: Lsn(reader.u64().ok()?),
            batch: reader.u64().ok()?,
            payload_crc: reader.u32().ok()?,
        })
    }

    /// Whether the bytes behind the header, which stands at `offset`, are its payload.
    #[must_use]
    pub fn has_payload(&self, seed: Seed, offset: u64, payload: &[u8]) -> bool {
        let counted = || seed.crc(offset.wrapping_add(FRAME_BYTES as u64), payload);
        payload.len() == self.len as usize
            && !Safeguard::LogPayloadCrc.finds(counted() != self.payload_crc)
    }
}

/// Payload of a commit frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Operations in the batch.
    pub count: u32,
    /// LSN of the first; the last one's stands in the frame.
    pub first_lsn: Lsn,
    /// CRC over the headers of the operation frames, in order.
    pub batch_crc: u32,
}

impl Commit {
    /// The 16 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.count);
        out.put_u64(self.first_lsn.0);
        out.put_u32(self.batch_crc);
    }

    /// Reads exactly 16 bytes.
    pub fn decode(bytes: &[u8]) -> Result<Commit, Short> {
        let mut reader = Reader::new(bytes);
        Ok(Commit { count: reader.u32()?, first_lsn: Lsn(reader.u64()?), batch_crc: reader.u32()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            store_id: *b"0123456789abcdef",
            number: 7,
            first_lsn: Lsn(100),
            first_batch: 30,
            salt: 0x1122_3344_5566_7788,
            recycled: false,
        }
    }

    fn frame(seed: Seed, offset: u64, payload: &[u8]) -> Frame {
        Frame {
            kind: Kind::Op,
            len: payload.len() as u32,
            lag: 0x0003_0201,
            lsn: Lsn(101),
            batch: u64::MAX - 1,
            payload_crc: seed.crc(offset + FRAME_BYTES as u64, payload),
        }
    }

    #[test]
    fn a_header_comes_back_and_any_flipped_bit_is_seen() {
        let mut bytes = Vec::new();
        header().encode(&mut bytes);
        assert_eq!(bytes.len(), HEADER_BYTES);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        for at in 0..HEADER_BYTES {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(SegmentHeader::decode(&flipped), Err(HeaderError::Bad), "{at}");
            }
            assert_eq!(SegmentHeader::decode(&bytes[..at]), Err(HeaderError::Bad));
        }
    }

    #[test]
    fn numbers_that_no_store_reaches_are_refused() {
        for header in [
            SegmentHeader { first_lsn: Lsn(u64::MAX), ..header() },
            SegmentHeader { first_batch: u64::MAX, ..header() },
            SegmentHeader { number: u64::MAX, ..header() },
        ] {
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Bad));
        }
    }

    #[test]
    fn another_format_is_told_from_damage() {
        let mut bytes = Vec::new();
        header().encode(&mut bytes);
        bytes[8] = 9;
        let crc = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
        bytes.set_u32(HEADER_BYTES - 4, crc);
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Format(0x0000_de09)));
    }

    #[test]
    fn a_header_says_what_its_file_was_before() {
        let recycled = SegmentHeader { recycled: true, ..header() };
        let mut bytes = Vec::new();
        recycled.encode(&mut bytes);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(recycled));
        // A flag that nobody knows yet is a format of its own.
        bytes[10] = 3;
        let crc = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
        bytes.set_u32(HEADER_BYTES - 4, crc);
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Format(0x0003_de01)));
    }

    #[test]
    fn a_frame_verifies_only_where_it_was_written() {
        let seed = header().seed();
        let frame = frame(seed, 4096, b"payload");
        let bytes = frame.encode(seed, 4096);
        assert_eq!(Frame::decode(seed, 4096, &bytes), Some(frame));
        assert!(frame.has_payload(seed, 4096, b"payload"));
        assert!(!frame.has_payload(seed, 4096, b"payloaD"));
        assert!(!frame.has_payload(seed, 4096, b"payloa"));
        assert_eq!(Frame::decode(seed, 4097, &bytes), None);
        assert!(!frame.has_payload(seed, 8192, b"payload"));
        for other in [
            SegmentHeader { salt: 1, ..header() },
            SegmentHeader { number: 8, ..header() },
            SegmentHeader { store_id: [0; 16], ..header() },
        ] {
            assert_eq!(Frame::decode(other.seed(), 4096, &bytes), None);
        }
    }

    #[test]
    fn any_flipped_bit_of_a_frame_is_seen_and_zeros_are_none() {
        let seed = header().seed();
        let bytes = frame(seed, 64, b"x").encode(seed, 64);
        for at in 0..FRAME_BYTES {
            for bit in 0..8 {
                let mut flipped = bytes;
                flipped[at] ^= 1 << bit;
                assert_eq!(Frame::decode(seed, 64, &flipped), None, "{at}");
            }
        }
        for offset in 0..10_000 {
            assert_eq!(Frame::decode(seed, offset, &[0; FRAME_BYTES]), None);
        }
    }

    #[test]
    fn lag_tells_what_was_synced() {
        let seed = header().seed();
        let mark = Frame::empty(Kind::AckMark, seed, 64, 0, Lsn(5), 9);
        assert_eq!(mark.synced_through(), 9);
        assert!(mark.has_payload(seed, 64, &[]));
        assert_eq!(Frame { lag: 3, ..mark }.synced_through(), 6);
        assert_eq!(Frame { lag: LAG_MAX, ..mark }.synced_through(), 0);
    }

    #[test]
    fn a_commit_comes_back() {
        let commit = Commit { count: 3, first_lsn: Lsn(8), batch_crc: 77 };
        let mut bytes = Vec::new();
        commit.encode(&mut bytes);
        assert_eq!(bytes.len(), COMMIT_BYTES);
        assert_eq!(Commit::decode(&bytes), Ok(commit));
        assert!(Commit::decode(&bytes[1..]).is_err());
    }
}
