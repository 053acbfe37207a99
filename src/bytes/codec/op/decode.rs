//! Reading an operation back from bytes that may be anything.
//!
//! Decoding believes nothing: unknown kinds, versions and flags, values beyond the limits, and
//! bytes left over are errors, never guesses. Unknown kinds, versions and flags are told from
//! damage, since a newer build may have written them. Memory is asked for only for bytes that are
//! there.

use std::fmt;
use std::sync::Arc;

use crate::bytes::codec::cursor::{BadText, Reader, Short};
use crate::words::id::{CollectionId, EntryId, Key, Lsn, Namespace, Timestamp};
use crate::words::limits;
use crate::words::options::{CollectionSpec, Element, Metric};
use crate::words::record::{CollectionDef, Op, Payload, PayloadPlace, Record, Removal, Tombstone};
use crate::words::safeguard::Safeguard;

use super::{
    DEFINE_DIM, DEFINE_FLAGS, DEFINE_MODEL, KIND_DEFINE, KIND_DELETE, KIND_DROP, KIND_PUT,
    KIND_REQUEST, KIND_SETTING, PUT_EXPIRES, PUT_FLAGS, PUT_HALF, PUT_PINNED, PUT_SALIENCE,
    PUT_SEQUENCE, PUT_SESSION, PUT_VECTOR, VERSION,
};

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
    /// So many bytes are left over.
    Trailing(usize),
    /// The payload does not have the CRC-32 that stands before it.
    PayloadCrc,
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
            DecodeError::PayloadCrc => f.write_str("the payload's CRC differs"),
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
    let id = entry_id(reader)?;
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
    // The frame around it was checked when it was read as one; whoever reads the operation again later,
    // as a salvage does, has this check alone.
    if Safeguard::OpPayloadCrc.finds(crc32fast::hash(payload) != payload_crc) {
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
    let id = entry_id(reader)?;
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

fn entry_id(reader: &mut Reader<'_>) -> Result<EntryId, DecodeError> {
    match reader.u64()? {
        id if id > limits::COUNT_MAX => Err(DecodeError::Value(format!("id {id} is too large"))),
        id => Ok(EntryId(id)),
    }
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
