//! One row of the archive's row table: 128 bytes, all of an entry that is of fixed size.
//!
//! ```text
//!   0 id u64           40 updated i64         80 body: frame u32, offset u32, length u32
//!   8 version u64      48 expires i64         92 payload: frame u32, offset u32, length u32
//!  16 at i64           56 sequence u64       104 payload CRC u32
//!  24 fingerprint u64  64 salience f32       108 body CRC u32
//!  32 created i64      68 norm f32           112 flags u32
//!                      72 vector number u32  116 zeros (8)
//!                      76 vector CRC u32     124 row CRC u32
//! ```
//!
//! A row answers everything a filter or a scan asks about times, pins and versions, and says where
//! the rest lies, so that neither bodies nor payloads are decompressed for it. Its CRC is seeded
//! with its place (store, segment, group, row number) and is checked before a field is looked at.
//! The row's CRCs of vector, body and payload make a mixed-up frame as visible as a flipped bit.

use crate::bytes::codec::cursor::{Put, Reader};
use crate::bytes::codec::segment::{Damage, SectionKind, Seed};
use crate::words::id::{EntryId, Key, Lsn, Namespace, Timestamp};
use crate::words::limits;
use crate::words::safeguard::Safeguard;

/// Length of a row.
pub const ROW_BYTES: usize = 128;
/// "No vector", "no frame".
const NONE: u32 = u32::MAX;
const CRC_AT: usize = ROW_BYTES - 4;

const PINNED: u32 = 1;
const SESSION: u32 = 1 << 1;
const EXPIRES: u32 = 1 << 2;
const SEQUENCE: u32 = 1 << 3;
const SALIENCE: u32 = 1 << 4;
const HALF: u32 = 1 << 5;
const PIECES: u32 = 1 << 6;
const KNOWN: u32 = (1 << 7) - 1;

/// Where decompressed bytes lie: a frame of the section, and the place inside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Number of the frame; of the first one when the bytes are spread over several.
    pub frame: u32,
    /// First byte in the decompressed frame.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its number in its group. Not stored: the place says it.
    pub number: u32,
    /// Identity of the entry.
    pub id: EntryId,
    /// LSN of the write.
    pub version: Lsn,
    /// Event time.
    pub at: Timestamp,
    /// [`fingerprint`] of namespace and key.
    pub fingerprint: u64,
    /// Time of the first write.
    pub created: Timestamp,
    /// Time of the last write.
    pub updated: Timestamp,
    /// When it hides.
    pub expires: Option<Timestamp>,
    /// Position in its session.
    pub sequence: Option<u64>,
    /// The caller's semantic value.
    pub salience: Option<f32>,
    /// Euclidean norm of the vector; 0 without one.
    pub norm: f32,
    /// Number of its vector in the group, which equals the row number; `None` without one.
    pub vector_index: Option<u32>,
    /// CRC of the stored vector bytes.
    pub vector_crc: u32,
    /// Where the body is.
    pub body: Span,
    /// CRC-32 of the body.
    pub body_crc: u32,
    /// Where the payload is; `None` when it is empty.
    pub payload: Option<Span>,
    /// CRC-32 of the payload.
    pub payload_crc: u32,
    /// Whether it is pinned.
    pub pinned: bool,
    /// Whether it has a session.
    pub has_session: bool,
    /// Whether the record was of an f16 collection.
    pub half: bool,
    /// Whether the payload fills frames of its own, one after the other.
    pub pieces: bool,
}

impl Row {
    /// A row with a vector that never expires, for tests.
    #[cfg(test)]
    pub fn example(number: u32, id: u64) -> Row {
        let at = Timestamp(0);
        Row {
            number,
            id: EntryId(id),
            version: Lsn(id),
            at,
            fingerprint: 0,
            created: at,
            updated: at,
            expires: None,
            sequence: None,
            salience: None,
            norm: 1.0,
            vector_index: Some(number),
            vector_crc: 0,
            body: Span { frame: 0, offset: 0, len: 0 },
            body_crc: 0,
            payload: None,
            payload_crc: 0,
            pinned: false,
            has_session: false,
            half: false,
            pieces: false,
        }
    }

    /// Length of the payload in bytes.
    #[must_use]
    pub fn payload_len(&self) -> u32 {
        self.payload.map_or(0, |span| span.len)
    }

    /// Appends the 128 bytes of this row as row `self.number` of `group`.
    pub fn encode(&self, seed: Seed, group: u16, out: &mut Vec<u8>) {
        let start = out.len();
        let flags = [
            (self.pinned, PINNED),
            (self.has_session, SESSION),
            (self.expires.is_some(), EXPIRES),
            (self.sequence.is_some(), SEQUENCE),
            (self.salience.is_some(), SALIENCE),
            (self.half, HALF),
            (self.pieces, PIECES),
        ];
        let flags = flags.iter().filter(|(set, _)| *set).fold(0, |all, (_, bit)| all | bit);
        out.put_u64(self.id.0);
        out.put_u64(self.version.0);
        out.put_i64(self.at.0);
        out.put_u64(self.fingerprint);
        out.put_i64(self.created.0);
        out.put_i64(self.updated.0);
        out.put_i64(self.expires.map_or(0, |t| t.0));
        out.put_u64(self.sequence.unwrap_or(0));
        out.put_f32(self.salience.unwrap_or(0.0));
        out.put_f32(self.norm);
        out.put_u32(self.vector_index.unwrap_or(NONE));
        out.put_u32(self.vector_crc);
        put_span(self.body, out);
        put_span(self.payload.unwrap_or(Span { frame: NONE, offset: 0, len: 0 }), out);
        out.put_u32(self.payload_crc);
        out.put_u32(self.body_crc);
        out.put_u32(flags);
        out.put_u64(0);
        let bytes = out.get(start..).unwrap_or_default();
        let crc = seed.crc(SectionKind::Rows, group, u64::from(self.number), bytes);
        out.put_u32(crc);
    }

    /// Reads row `number` of `group`, whose table has `vectors` rows with a vector.
    pub fn decode(
        bytes: &[u8],
        seed: Seed,
        group: u16,
        number: u32,
        vectors: u32,
    ) -> Result<Row, Damage> {
        let (Some(body), true) = (bytes.get(..CRC_AT), bytes.len() == ROW_BYTES) else {
            return Err(Damage::new(format!("row {number} has {} bytes", bytes.len())));
        };
        let stored = Reader::new(bytes.get(CRC_AT..).unwrap_or_default()).u32()?;
        let differs = stored != seed.crc(SectionKind::Rows, group, u64::from(number), body);
        if Safeguard::ArchiveRowCrc.finds(differs) {
            return Err(Damage::new(format!("CRC of row {number} differs")));
        }
        Row::fields(body, number, vectors)
            .map_err(|damage| Damage::new(format!("row {number}: {damage}")))
    }

    fn fields(bytes: &[u8], number: u32, vectors: u32) -> Result<Row, Damage> {
        let mut reader = Reader::new(bytes);
        let id = EntryId(reader.u64()?);
        let version = Lsn(reader.u64()?);
        let at = Timestamp(reader.i64()?);
        let fingerprint = reader.u64()?;
        let created = Timestamp(reader.i64()?);
        let updated = Timestamp(reader.i64()?);
        let expires = Timestamp(reader.i64()?);
        let sequence = reader.u64()?;
        let salience = reader.f32()?;
        let norm = reader.f32()?;
        let vector_index = reader.u32()?;
        let vector_crc = reader.u32()?;
        let body = span(&mut reader)?;
        let payload = span(&mut reader)?;
        let payload_crc = reader.u32()?;
        let body_crc = reader.u32()?;
        let flags = reader.u32()?;
        if flags & !KNOWN != 0 || reader.u64()? != 0 {
            return Err(Damage::new(format!("flags {flags:#x} or reserved bytes are unknown")));
        }
        let has = |bit| flags & bit != 0;
        if vector_index != if number < vectors { number } else { NONE } {
            return Err(Damage::new(format!("vector number {vector_index}")));
        }
        if (has(SALIENCE) && !(0.0..=1.0).contains(&salience)) || !norm.is_finite() || norm < 0.0 {
            return Err(Damage::new(format!("salience {salience}, norm {norm}")));
        }
        if payload.len as usize > limits::PAYLOAD_BYTES_MAX
            || (payload.frame == NONE) != (payload.len == 0)
        {
            return Err(Damage::new(format!("a payload of {} bytes", payload.len)));
        }
        Ok(Row {
            number,
            id,
            version,
            at,
            fingerprint,
            created,
            updated,
            expires: has(EXPIRES).then_some(expires),
            sequence: has(SEQUENCE).then_some(sequence),
            salience: has(SALIENCE).then_some(salience),
            norm,
            vector_index: (vector_index != NONE).then_some(vector_index),
            vector_crc,
            body,
            body_crc,
            payload: (payload.frame != NONE).then_some(payload),
            payload_crc,
            pinned: has(PINNED),
            has_session: has(SESSION),
            half: has(HALF),
            pieces: has(PIECES),
        })
    }
}

fn put_span(span: Span, out: &mut Vec<u8>) {
    out.put_u32(span.frame);
    out.put_u32(span.offset);
    out.put_u32(span.len);
}

fn span(reader: &mut Reader<'_>) -> Result<Span, Damage> {
    Ok(Span { frame: reader.u32()?, offset: reader.u32()?, len: reader.u32()? })
}

/// 64-bit hash of a namespace and a key, the same on every machine: FNV-1a with a final mix.
///
/// It lets a rebuild compare keys without decompressing bodies. It finds candidates; equal
/// fingerprints prove nothing.
#[must_use]
pub fn fingerprint(namespace: &Namespace, key: &Key) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let bytes = namespace.as_str().bytes().chain([0]).chain(key.as_bytes().iter().copied());
    for byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    // FNV leaves the high bits of short keys weak; the multiply-shift spreads them.
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            number: 3,
            id: EntryId(7),
            version: Lsn(9),
            at: Timestamp(-5),
            fingerprint: 11,
            created: Timestamp(12),
            updated: Timestamp(13),
            expires: Some(Timestamp(0)),
            sequence: None,
            salience: Some(0.5),
            norm: 1.0,
            vector_index: Some(3),
            vector_crc: 17,
            body: Span { frame: 0, offset: 5, len: 6 },
            body_crc: 18,
            payload: None,
            payload_crc: 0,
            pinned: true,
            has_session: true,
            half: false,
            pieces: false,
        }
    }

    #[test]
    fn a_row_is_bound_to_its_place() {
        let seed = Seed::new([1; 16], 4);
        let mut bytes = Vec::new();
        row().encode(seed, 2, &mut bytes);
        assert_eq!(bytes.len(), ROW_BYTES);
        assert_eq!(Row::decode(&bytes, seed, 2, 3, 4), Ok(row()));
        assert!(Row::decode(&bytes, seed, 2, 2, 4).is_err(), "another row");
        assert!(Row::decode(&bytes, seed, 1, 3, 4).is_err(), "another group");
        assert!(Row::decode(&bytes, Seed::new([1; 16], 5), 2, 3, 4).is_err(), "another segment");
        assert!(Row::decode(&bytes, Seed::new([2; 16], 4), 2, 3, 4).is_err(), "another store");
        assert!(Row::decode(&bytes, seed, 2, 3, 3).is_err(), "a vector that cannot be");
        assert!(Row::decode(&bytes[1..], seed, 2, 3, 4).is_err(), "short");
    }

    #[test]
    fn every_flipped_bit_of_a_row_is_seen() {
        let seed = Seed::new([1; 16], 4);
        let mut bytes = Vec::new();
        row().encode(seed, 2, &mut bytes);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Row::decode(&bytes, seed, 2, 3, 4).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn fingerprints_tell_namespace_from_key() {
        let print = |ns: &str, key: &str| {
            fingerprint(&Namespace::new(ns).unwrap(), &Key::new(key).unwrap())
        };
        assert_ne!(print("a", "b"), print("", "ab"));
        assert_ne!(print("", "1"), print("", "2"));
        assert_eq!(print("user/7", "k"), print("user/7", "k"));
    }
}
