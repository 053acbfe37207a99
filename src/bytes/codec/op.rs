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
//! The LSN is not here: it stands in the frame. This file encodes, [`decode`] reads back.

use crate::bytes::codec::cursor::Put;
use crate::words::id::{Key, Namespace};
use crate::words::options::{Element, Metric};
use crate::words::record::{Op, Record, Removal};

mod decode;

pub use decode::decode_op;

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

#[cfg(test)]
mod tests;
