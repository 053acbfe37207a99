//! The parts of a row that vary in size, and the table of the frames they are compressed into.
//!
//! A body holds what a filter may ask for beyond the row: namespace, key, session and attributes.
//! Bodies lie one behind the other in frames of their own, so that a filter never decompresses a
//! payload:
//!
//! ```text
//! namespace len u16 | key len u16 | session len u8 | namespace | key | session | attributes (rest)
//! ```
//!
//! A frame table is an array of 24 bytes a frame with a CRC each, read one entry at a time: it
//! grows with the data, so it must not stay in RAM.
//!
//! ```text
//! offset in the file u64 | stored len u32 | decompressed len u32 | CRC of stored bytes u32 | CRC
//! ```
//!
//! A frame whose two lengths are equal is stored as it is: what zstd cannot shrink is not worth a
//! decoder's time. Nothing here compresses or reads files.

use std::sync::Arc;

use crate::bytes::codec::cursor::{BadText, Put, Reader};
use crate::bytes::codec::segment::{Damage, SectionKind, Seed};
use crate::words::id::{Key, Namespace};
use crate::words::limits;
use crate::words::record::Record;
use crate::words::safeguard::Safeguard;

/// Length of an entry of a frame table.
pub const TABLE_ENTRY_BYTES: usize = 24;
/// Lengths at the beginning of a body.
const HEAD_BYTES: usize = 5;
/// Longest body.
pub const BODY_BYTES_MAX: usize = HEAD_BYTES
    + limits::NAMESPACE_BYTES_MAX
    + limits::KEY_BYTES_MAX
    + limits::SESSION_BYTES_MAX
    + limits::ATTRIBUTES_BYTES_MAX;
/// Decompressed bytes a frame is filled to. Measured:
/// docs/decisions/0004-archive-segment-layout.md.
pub const FRAME_BYTES: usize = 4 << 10;
/// A payload longer than [`limits::PAYLOAD_RESIDENT_BYTES_MAX`] is cut into frames of this length.
pub const PIECE_BYTES: usize = 256 << 10;
/// Longest decompressed frame: no decoder allocates more for one.
pub const FRAME_BYTES_MAX: usize = 2 << 20;

// A frame holds at least one whole body or one piece.
const _: () = assert!(FRAME_BYTES_MAX >= BODY_BYTES_MAX && FRAME_BYTES_MAX >= PIECE_BYTES);
const _: () = assert!(PIECE_BYTES >= limits::PAYLOAD_RESIDENT_BYTES_MAX);
const _: () = assert!(limits::SESSION_BYTES_MAX <= u8::MAX as usize);

/// Namespace, key, session and attributes of an entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its key.
    pub key: Key,
    /// Session it belongs to.
    pub session: Option<Arc<str>>,
    /// JSON text of its attributes.
    pub attributes: Arc<str>,
}

/// A [`Body`] inside a decompressed frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BodyRef<'a> {
    /// Path of the namespace.
    pub namespace: &'a str,
    /// The key.
    pub key: &'a [u8],
    /// Session it belongs to.
    pub session: Option<&'a str>,
    /// JSON text of its attributes.
    pub attributes: &'a str,
}

impl BodyRef<'_> {
    /// An owned copy; errors when namespace or key are none that the store would have taken.
    pub fn to_body(self) -> Result<Body, Damage> {
        Ok(Body {
            namespace: Namespace::new(self.namespace).map_err(|e| Damage::new(e.message()))?,
            key: Key::new(self.key).map_err(|e| Damage::new(e.message()))?,
            session: self.session.map(Arc::from),
            attributes: Arc::from(self.attributes),
        })
    }
}

/// Length of the body of a record.
pub fn body_bytes(record: &Record) -> usize {
    let session = record.session.as_ref().map_or(0, |session| session.len());
    let path = record.namespace.as_str().len() + record.key.as_bytes().len();
    HEAD_BYTES + path + session + record.attributes.len()
}

/// Appends the body of a record; errors when a part is longer than the store takes.
pub fn encode_body(record: &Record, out: &mut Vec<u8>) -> Result<(), Damage> {
    let namespace = record.namespace.as_str();
    let key = record.key.as_bytes();
    let session = record.session.as_deref().unwrap_or_default();
    let len = |part: &str, len: usize, max: usize| match u16::try_from(len) {
        Ok(short) if len <= max => Ok(short),
        _ => Err(Damage::new(format!("a {part} of {len} bytes; the limit is {max}"))),
    };
    let namespace_len = len("namespace", namespace.len(), limits::NAMESPACE_BYTES_MAX)?;
    let key_len = len("key", key.len(), limits::KEY_BYTES_MAX)?;
    let session_len = len("session", session.len(), limits::SESSION_BYTES_MAX)?;
    if record.attributes.len() > limits::ATTRIBUTES_BYTES_MAX {
        return Err(Damage::new(format!("attributes of {} bytes", record.attributes.len())));
    }
    out.put_u16(namespace_len);
    out.put_u16(key_len);
    out.put_u8(u8::try_from(session_len).unwrap_or(u8::MAX));
    out.put_bytes(namespace.as_bytes());
    out.put_bytes(key);
    out.put_bytes(session.as_bytes());
    out.put_bytes(record.attributes.as_bytes());
    Ok(())
}

/// Reads a body. `has_session` comes from the row: an absent session is not an empty one.
pub fn decode_body(bytes: &[u8], has_session: bool) -> Result<BodyRef<'_>, Damage> {
    let mut reader = Reader::new(bytes);
    let namespace_len = usize::from(reader.u16()?);
    let key_len = usize::from(reader.u16()?);
    let session_len = usize::from(reader.u8()?);
    let text = |bad: BadText| Damage::new(bad.to_string());
    let namespace = reader.str(namespace_len).map_err(text)?;
    let key = reader.bytes(key_len)?;
    let session = reader.str(session_len).map_err(text)?;
    let attributes = reader.str(reader.left()).map_err(text)?;
    if key.is_empty() || (session_len > 0 && !has_session) {
        return Err(Damage::new("a body without a key, or with a session its row does not have"));
    }
    Ok(BodyRef { namespace, key, session: has_session.then_some(session), attributes })
}

/// Where a frame lies, and what to expect there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEntry {
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Stored length.
    pub len: u32,
    /// Decompressed length; equal to `len` when the bytes are stored as they are.
    pub raw: u32,
    /// CRC of the stored bytes, checked before a decoder sees them.
    pub crc: u32,
}

impl FrameEntry {
    /// Appends entry `index` of the table of this kind.
    pub fn encode(&self, seed: Seed, kind: SectionKind, group: u16, index: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u64(self.offset);
        out.put_u32(self.len);
        out.put_u32(self.raw);
        out.put_u32(self.crc);
        let bytes = out.get(start..).unwrap_or_default();
        let crc = seed.crc(kind, group, u64::from(index), bytes);
        out.put_u32(crc);
    }

    /// Reads entry `index`, and refuses lengths no writer makes.
    pub fn decode(
        bytes: &[u8],
        seed: Seed,
        kind: SectionKind,
        group: u16,
        index: u32,
    ) -> Result<FrameEntry, Damage> {
        let mut reader = Reader::new(bytes);
        let entry = FrameEntry {
            offset: reader.u64()?,
            len: reader.u32()?,
            raw: reader.u32()?,
            crc: reader.u32()?,
        };
        let covered = bytes.get(..TABLE_ENTRY_BYTES - 4).unwrap_or_default();
        let differs = reader.u32()? != seed.crc(kind, group, u64::from(index), covered);
        if Safeguard::ArchiveEntryCrc.finds(differs) {
            return Err(Damage::new(format!("CRC of the table entry of frame {index} differs")));
        }
        if entry.len == 0 || entry.len > entry.raw || entry.raw as usize > FRAME_BYTES_MAX {
            return Err(Damage::new(format!(
                "frame {index} of {} bytes for {}",
                entry.len, entry.raw
            )));
        }
        Ok(entry)
    }
}
