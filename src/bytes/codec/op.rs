//! Byte form of one operation: what the log's frames and the archive's operation section carry.
//!
//! An operation starts with its kind, the version of that kind's layout, and flags; then come the
//! fixed fields, the lengths, and the variable parts. All numbers are little-endian.
//!
//! ```text
//! put      kind=1 ver=1 flags:u16 collection:u32 id:u64 at:i64 created:i64 updated:i64
//!          [expires:i64] [sequence:u64] [salience:f32] [session_len:u32] [vector_len:u32]
//!          namespace_len:u16 key_len:u16 attributes_len:u32 payload_len:u32 payload_crc:u32
//!          namespace key [session] attributes [vector] payload
//! delete   kind=2 ver=1 flags:u16 collection:u32 id:u64 removal:u8 namespace_len:u16 key_len:u16
//!          namespace key
//! define   kind=3 ver=1 flags:u16 collection:u32 created:i64 metric:u8 element:u8 [dim:u32]
//!          [model_len:u32] name_len:u32 [model] name
//! drop     kind=4 ver=1 flags:u16 collection:u32
//! setting  kind=5 ver=1 flags:u16 name_len:u32 value_len:u32 name value
//! request  kind=6 ver=1 flags:u16 client:u64 sequence:u64
//! ```
//!
//! A part in brackets is there when its flag is set. The payload stands last, so that a large one
//! can be written from where it is and read later in place: its offset is the end of the operation
//! less its length. `payload_crc` is a plain CRC-32 of the payload alone; it is what a reader that
//! comes back for the payload checks. The rest is covered by whoever carries the operation.
//!
//! The LSN is not here: it stands in the frame. Decoding believes nothing: unknown kinds, versions
//! and flags, values beyond the limits, and bytes left over are errors, never guesses.

use std::fmt;
use std::sync::Arc;

use crate::bytes::codec::cursor::{BadText, Put, Reader, Short};
use crate::words::id::{CollectionId, EntryId, Key, Lsn, Namespace, Timestamp};
use crate::words::limits;
use crate::words::options::{CollectionSpec, Element, Metric};
use crate::words::record::{CollectionDef, Op, Payload, PayloadPlace, Record, Removal, Tombstone};

const KIND_PUT: u8 = 1;
const KIND_DELETE: u8 = 2;
const KIND_DEFINE: u8 = 3;
const KIND_DROP: u8 = 4;
const KIND_SETTING: u8 = 5;
const KIND_REQUEST: u8 = 6;

/// Version of every kind's layout so far; each kind counts on its own when it changes.
const VERSION: u8 = 1;

const PUT_VECTOR: u16 = 1;
const PUT_HALF: u16 = 1 << 1;
const PUT_EXPIRES: u16 = 1 << 2;
const PUT_SESSION: u16 = 1 << 3;
const PUT_SEQUENCE: u16 = 1 << 4;
const PUT_SALIENCE: u16 = 1 << 5;
const PUT_PINNED: u16 = 1 << 6;
const PUT_FLAGS: u16 = (1 << 7) - 1;

const DEFINE_DIM: u16 = 1;
const DEFINE_MODEL: u16 = 1 << 1;
const DEFINE_FLAGS: u16 = (1 << 2) - 1;

/// Why bytes are not an operation this build understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They end too early.
    Short(Short),
    /// A text is not UTF-8; the number is where it starts.
    NotUtf8(usize),
    /// The kind is unknown: written by a newer build.
    Kind(u8),
    /// The version of a known kind is unknown: written by a newer build.
    Version(u8, u8),
    /// Unknown flag bits of a kind are set: written by a newer build.
    Flags(u8, u16),
    /// A value stands outside what a writer may write; the text says which.
    Value(String),
    /// The payload does not have the CRC-32 that stands before it.
    PayloadCrc,
    /// So many bytes are left over.
    Trailing(usize),
}

impl DecodeError {
    /// Whether a newer build wrote this, as far as one can tell; everything else is damage.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        matches!(self, DecodeError::Kind(_) | DecodeError::Version(..) | DecodeError::Flags(..))
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Short(short) => short.fmt(f),
            DecodeError::NotUtf8(at) => write!(f, "text at byte {at} is not UTF-8"),
            DecodeError::Kind(kind) => write!(f, "operation kind {kind} is unknown"),
            DecodeError::Version(kind, version) => {
                write!(f, "version {version} of operation kind {kind} is unknown")
            }
            DecodeError::Flags(kind, flags) => {
                write!(f, "operation kind {kind} has unknown flags in {flags:#06x}")
            }
            DecodeError::Value(what) => f.write_str(what),
            DecodeError::PayloadCrc => f.write_str("the payload's CRC differs"),
            DecodeError::Trailing(left) => write!(f, "{left} bytes are left over"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl From<Short> for DecodeError {
    fn from(short: Short) -> DecodeError {
        DecodeError::Short(short)
    }
}

impl From<BadText> for DecodeError {
    fn from(bad: BadText) -> DecodeError {
        match bad {
            BadText::Short(short) => DecodeError::Short(short),
            BadText::NotUtf8(at) => DecodeError::NotUtf8(at),
        }
    }
}

/// Length in bytes of an operation with this payload: exactly what [`encode_op`] appends.
#[must_use]
pub fn encoded_len(op: &Op, payload: &[u8]) -> usize {
    match op {
        Op::Put(r) => {
            let vector = r.vector.as_ref().map_or(0, |v| 4 + v.len() * if r.half { 2 } else { 4 });
            let session = r.session.as_ref().map_or(0, |s| 4 + s.len());
            // 40 fixed bytes before the optional fields, 16 bytes of lengths and CRC after them.
            40 + if r.expires.is_some() { 8 } else { 0 }
                + if r.sequence.is_some() { 8 } else { 0 }
                + if r.salience.is_some() { 4 } else { 0 }
                + 16
                + r.namespace.as_str().len()
                + r.key.as_bytes().len()
                + r.attributes.len()
                + session
                + vector
                + payload.len()
        }
        Op::Delete(t) => 21 + t.namespace.as_str().len() + t.key.as_bytes().len(),
        Op::Define(d) => {
            let dim = if d.spec.dim.is_some() { 4 } else { 0 };
            let model = d.spec.model.as_ref().map_or(0, |m| 4 + m.len());
            22 + dim + model + d.name.len()
        }
        Op::DropCollection { .. } => 8,
        Op::Setting { name, value, .. } => 12 + name.len() + value.len(),
        Op::Request { .. } => 20,
    }
}

/// Appends the byte form of an operation. `payload` is the payload of a put, wherever its record
/// says it lies; other operations have none.
pub fn encode_op(op: &Op, payload: &[u8], out: &mut Vec<u8>) {
    encode_head(op, payload, out);
    if matches!(op, Op::Put(_)) {
        out.put_bytes(payload);
    }
}

/// Appends everything of an operation but the payload bytes, which the caller writes right behind.
pub fn encode_head(op: &Op, payload: &[u8], out: &mut Vec<u8>) {
    match op {
        Op::Put(record) => encode_put(record, payload, out),
        Op::Delete(tombstone) => {
            head(KIND_DELETE, 0, out);
            out.put_u32(tombstone.collection.0);
            out.put_u64(tombstone.id.0);
            out.put_u8(match tombstone.removal {
                Removal::Deleted => 0,
                Removal::Expired => 1,
            });
            put_name_lengths(&tombstone.namespace, &tombstone.key, out);
            out.put_bytes(tombstone.namespace.as_str().as_bytes());
            out.put_bytes(tombstone.key.as_bytes());
        }
        Op::Define(def) => {
            let dim = if def.spec.dim.is_some() { DEFINE_DIM } else { 0 };
            let model = if def.spec.model.is_some() { DEFINE_MODEL } else { 0 };
            head(KIND_DEFINE, dim | model, out);
            out.put_u32(def.id.0);
            out.put_i64(def.created.0);
            out.put_u8(match def.spec.metric {
                Metric::Cosine => 0,
                Metric::Dot => 1,
                Metric::L2 => 2,
            });
            out.put_u8(match def.spec.element {
                Element::F32 => 0,
                Element::F16 => 1,
            });
            if let Some(dim) = def.spec.dim {
                out.put_u32(dim);
            }
            if let Some(model) = &def.spec.model {
                out.put_u32(len_u32(model.len()));
            }
            out.put_u32(len_u32(def.name.len()));
            if let Some(model) = &def.spec.model {
                out.put_bytes(model.as_bytes());
            }
            out.put_bytes(def.name.as_bytes());
        }
        Op::DropCollection { collection, .. } => {
            head(KIND_DROP, 0, out);
            out.put_u32(collection.0);
        }
        Op::Setting { name, value, .. } => {
            head(KIND_SETTING, 0, out);
            out.put_u32(len_u32(name.len()));
            out.put_u32(len_u32(value.len()));
            out.put_bytes(name.as_bytes());
            out.put_bytes(value.as_bytes());
        }
        Op::Request { client, sequence, .. } => {
            head(KIND_REQUEST, 0, out);
            out.put_u64(*client);
            out.put_u64(*sequence);
        }
    }
}

fn encode_put(record: &Record, payload: &[u8], out: &mut Vec<u8>) {
    let flag = |is_set: bool, bit: u16| if is_set { bit } else { 0 };
    let flags = flag(record.vector.is_some(), PUT_VECTOR)
        | flag(record.half, PUT_HALF)
        | flag(record.expires.is_some(), PUT_EXPIRES)
        | flag(record.session.is_some(), PUT_SESSION)
        | flag(record.sequence.is_some(), PUT_SEQUENCE)
        | flag(record.salience.is_some(), PUT_SALIENCE)
        | flag(record.pinned, PUT_PINNED);
    head(KIND_PUT, flags, out);
    out.put_u32(record.collection.0);
    out.put_u64(record.id.0);
    out.put_i64(record.at.0);
    out.put_i64(record.created.0);
    out.put_i64(record.updated.0);
    if let Some(expires) = record.expires {
        out.put_i64(expires.0);
    }
    if let Some(sequence) = record.sequence {
        out.put_u64(sequence);
    }
    if let Some(salience) = record.salience {
        out.put_f32(salience);
    }
    if let Some(session) = &record.session {
        out.put_u32(len_u32(session.len()));
    }
    if let Some(vector) = &record.vector {
        out.put_u32(len_u32(vector.len()));
    }
    put_name_lengths(&record.namespace, &record.key, out);
    out.put_u32(len_u32(record.attributes.len()));
    out.put_u32(len_u32(payload.len()));
    out.put_u32(crc32fast::hash(payload));
    out.put_bytes(record.namespace.as_str().as_bytes());
    out.put_bytes(record.key.as_bytes());
    if let Some(session) = &record.session {
        out.put_bytes(session.as_bytes());
    }
    out.put_bytes(record.attributes.as_bytes());
    if let Some(vector) = &record.vector {
        put_vector(vector, record.half, out);
    }
}

fn head(kind: u8, flags: u16, out: &mut Vec<u8>) {
    out.put_u8(kind);
    out.put_u8(VERSION);
    out.put_u16(flags);
}

/// Lengths are below 4 GiB by far: the limits and the batch limit are checked before encoding.
fn len_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Both types hold at most 1,024 bytes by construction.
fn put_name_lengths(namespace: &Namespace, key: &Key, out: &mut Vec<u8>) {
    out.put_u16(u16::try_from(namespace.as_str().len()).unwrap_or(u16::MAX));
    out.put_u16(u16::try_from(key.as_bytes().len()).unwrap_or(u16::MAX));
}

/// Grows once, then fills: the loops below become plain copies and vector conversions.
fn put_vector(vector: &[f32], half: bool, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + vector.len() * if half { 2 } else { 4 }, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    if half {
        for (place, value) in room.chunks_exact_mut(2).zip(vector) {
            place.copy_from_slice(&half::f16::from_f32(*value).to_le_bytes());
        }
    } else {
        for (place, value) in room.chunks_exact_mut(4).zip(vector) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// Reads an operation back; `bytes` is all of it. `place` is the log segment's number and the file
/// offset of `bytes[0]`: with it, payloads above
/// [`PAYLOAD_RESIDENT_BYTES_MAX`](limits::PAYLOAD_RESIDENT_BYTES_MAX) are left where they are.
pub fn decode_op(lsn: Lsn, bytes: &[u8], place: Option<(u64, u64)>) -> Result<Op, DecodeError> {
    let mut reader = Reader::new(bytes);
    let kind = reader.u8()?;
    let version = reader.u8()?;
    let flags = reader.u16()?;
    let known = match kind {
        KIND_PUT => PUT_FLAGS,
        KIND_DEFINE => DEFINE_FLAGS,
        KIND_DELETE | KIND_DROP | KIND_SETTING | KIND_REQUEST => 0,
        other => return Err(DecodeError::Kind(other)),
    };
    if version != VERSION {
        return Err(DecodeError::Version(kind, version));
    }
    if flags & !known != 0 {
        return Err(DecodeError::Flags(kind, flags));
    }
    let op = match kind {
        KIND_PUT => Op::Put(decode_put(lsn, flags, &mut reader, place)?),
        KIND_DELETE => Op::Delete(decode_delete(lsn, &mut reader)?),
        KIND_DEFINE => Op::Define(decode_define(lsn, flags, &mut reader)?),
        KIND_DROP => Op::DropCollection { collection: CollectionId(reader.u32()?), version: lsn },
        KIND_SETTING => {
            let name_len = reader.u32()? as usize;
            let value_len = reader.u32()? as usize;
            let name = Arc::from(reader.str(name_len)?);
            Op::Setting { name, value: Arc::from(reader.str(value_len)?), version: lsn }
        }
        _ => Op::Request { client: reader.u64()?, sequence: reader.u64()?, version: lsn },
    };
    match reader.left() {
        0 => Ok(op),
        left => Err(DecodeError::Trailing(left)),
    }
}

fn decode_put(
    lsn: Lsn,
    flags: u16,
    reader: &mut Reader<'_>,
    place: Option<(u64, u64)>,
) -> Result<Record, DecodeError> {
    let has = |bit: u16| flags & bit != 0;
    let half = has(PUT_HALF);
    let collection = CollectionId(reader.u32()?);
    let id = EntryId(reader.u64()?);
    let at = Timestamp(reader.i64()?);
    let created = Timestamp(reader.i64()?);
    let updated = Timestamp(reader.i64()?);
    let expires = if has(PUT_EXPIRES) { Some(Timestamp(reader.i64()?)) } else { None };
    let sequence = if has(PUT_SEQUENCE) { Some(reader.u64()?) } else { None };
    let salience = if has(PUT_SALIENCE) { Some(reader.f32()?) } else { None };
    if let Some(s) = salience.filter(|s| !(0.0..=1.0).contains(s)) {
        return Err(DecodeError::Value(format!("salience {s} is outside 0 to 1")));
    }
    let session_len = if has(PUT_SESSION) {
        Some(at_most("session", reader.u32()?, limits::SESSION_BYTES_MAX)?)
    } else {
        None
    };
    let dim = if has(PUT_VECTOR) {
        Some(at_most("vector", reader.u32()?, limits::DIM_MAX)?)
    } else {
        None
    };
    let namespace_len = usize::from(reader.u16()?);
    let key_len = usize::from(reader.u16()?);
    let attributes_len = at_most("attributes", reader.u32()?, limits::ATTRIBUTES_BYTES_MAX)?;
    let payload_len = reader.u32()?;
    let payload_crc = reader.u32()?;
    at_most("payload", payload_len, limits::PAYLOAD_BYTES_MAX)?;
    let namespace = decode_namespace(reader, namespace_len)?;
    let key = decode_key(reader, key_len)?;
    let session = match session_len {
        Some(len) => Some(Arc::from(reader.str(len)?)),
        None => None,
    };
    let attributes = Arc::from(reader.str(attributes_len)?);
    let vector = match dim {
        Some(dim) => Some(decode_vector(reader, dim, half)?),
        None => None,
    };
    let payload_at = reader.position() as u64;
    let payload = reader.bytes(payload_len as usize)?;
    if crc32fast::hash(payload) != payload_crc {
        return Err(DecodeError::PayloadCrc);
    }
    let payload = match place {
        Some((segment, offset)) if payload.len() > limits::PAYLOAD_RESIDENT_BYTES_MAX => {
            let offset = offset
                .checked_add(payload_at)
                .ok_or_else(|| DecodeError::Value("the payload's offset overflows".into()))?;
            Payload::InLog(PayloadPlace { segment, offset, len: payload_len, crc: payload_crc })
        }
        _ => Payload::Inline(Arc::from(payload)),
    };
    Ok(Record {
        collection,
        id,
        version: lsn,
        namespace,
        key,
        vector,
        half,
        payload,
        attributes,
        at,
        created,
        updated,
        expires,
        session,
        sequence,
        salience,
        pinned: has(PUT_PINNED),
    })
}

fn decode_delete(lsn: Lsn, reader: &mut Reader<'_>) -> Result<Tombstone, DecodeError> {
    let collection = CollectionId(reader.u32()?);
    let id = EntryId(reader.u64()?);
    let removal = match reader.u8()? {
        0 => Removal::Deleted,
        1 => Removal::Expired,
        other => return Err(DecodeError::Value(format!("removal reason {other} is unknown"))),
    };
    let namespace_len = usize::from(reader.u16()?);
    let key_len = usize::from(reader.u16()?);
    let namespace = decode_namespace(reader, namespace_len)?;
    let key = decode_key(reader, key_len)?;
    Ok(Tombstone { collection, id, version: lsn, namespace, key, removal })
}

fn decode_define(
    lsn: Lsn,
    flags: u16,
    reader: &mut Reader<'_>,
) -> Result<CollectionDef, DecodeError> {
    let id = CollectionId(reader.u32()?);
    let created = Timestamp(reader.i64()?);
    let metric = match reader.u8()? {
        0 => Metric::Cosine,
        1 => Metric::Dot,
        2 => Metric::L2,
        other => return Err(DecodeError::Value(format!("metric {other} is unknown"))),
    };
    let element = match reader.u8()? {
        0 => Element::F32,
        1 => Element::F16,
        other => return Err(DecodeError::Value(format!("element type {other} is unknown"))),
    };
    let dim = if flags & DEFINE_DIM != 0 { Some(reader.u32()?) } else { None };
    let model_len = if flags & DEFINE_MODEL != 0 { Some(reader.u32()? as usize) } else { None };
    let name_len = at_most("collection name", reader.u32()?, limits::NAME_BYTES_MAX)?;
    let model = match model_len {
        Some(len) => Some(reader.str(len)?.to_owned()),
        None => None,
    };
    let name = Arc::from(reader.str(name_len)?);
    let spec = CollectionSpec { dim, metric, element, model };
    spec.check().map_err(|e| DecodeError::Value(e.message().to_owned()))?;
    Ok(CollectionDef { id, name, spec, version: lsn, created })
}

fn at_most(what: &str, value: u32, limit: usize) -> Result<usize, DecodeError> {
    let value = value as usize;
    if value > limit {
        return Err(DecodeError::Value(format!("{what} of {value}; the limit is {limit}")));
    }
    Ok(value)
}

fn decode_namespace(reader: &mut Reader<'_>, len: usize) -> Result<Namespace, DecodeError> {
    let text = reader.str(len)?;
    Namespace::new(text).map_err(|e| DecodeError::Value(e.message().to_owned()))
}

fn decode_key(reader: &mut Reader<'_>, len: usize) -> Result<Key, DecodeError> {
    let bytes = reader.bytes(len)?;
    Key::new(bytes).map_err(|e| DecodeError::Value(e.message().to_owned()))
}

fn decode_vector(
    reader: &mut Reader<'_>,
    dim: usize,
    half: bool,
) -> Result<Arc<[f32]>, DecodeError> {
    if dim == 0 {
        return Err(DecodeError::Value("a vector has no values".into()));
    }
    // Both products stay small: dim is at most 65,536. Chunks of a constant size turn into arrays.
    let vector: Arc<[f32]> = if half {
        let (values, _) = reader.bytes(dim * 2)?.as_chunks::<2>();
        values.iter().map(|v| half::f16::from_le_bytes(*v).to_f32()).collect()
    } else {
        let (values, _) = reader.bytes(dim * 4)?.as_chunks::<4>();
        values.iter().map(|v| f32::from_le_bytes(*v)).collect()
    };
    match vector.iter().position(|v| !v.is_finite()) {
        Some(at) => Err(DecodeError::Value(format!("value {at} of a vector is not finite"))),
        None => Ok(vector),
    }
}

#[cfg(test)]
mod tests;
