//! Operations: what the log carries, and the archive's section of what is not a put.
//!
//! Each starts with kind, version and flags. A put is the whole truth about an entry, so it becomes an
//! `Entry` here, the same as a row of the archive does in its own module. Everything unknown is refused.

use half::f16;

use super::bytes::{Cursor, Read, crc, hold};

/// One entry at one version, wherever it was read from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    pub collection: u32,
    pub id: u64,
    pub version: u64,
    pub namespace: String,
    pub key: String,
    pub session: Option<String>,
    pub attributes: String,
    pub payload: Vec<u8>,
    pub vector: Option<Vec<f32>>,
    pub at: i64,
    pub created: i64,
    pub updated: i64,
    pub expires: Option<i64>,
    pub sequence: Option<u64>,
    pub salience: Option<f32>,
    pub pinned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Metric {
    Cosine,
    Dot,
    L2,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Define {
    pub collection: u32,
    pub name: String,
    pub created: i64,
    pub metric: Metric,
    pub half: bool,
    pub dimension: Option<u32>,
    pub model: Option<String>,
}

#[derive(Debug)]
pub enum Operation {
    Put(Box<Entry>),
    Delete { id: u64, expired: bool },
    Define(Define),
    Drop { collection: u32 },
    Setting { name: String, value: String },
    Request,
}

impl Operation {
    /// The bytes of one operation, which has this LSN.
    pub fn read(bytes: &[u8], lsn: u64) -> Read<Self> {
        let mut cursor = Cursor::new("operation", bytes);
        let (kind, version, flags) = (cursor.u8()?, cursor.u8()?, cursor.u16()?);
        hold(version == 1, || format!("operation: version {version} of kind {kind}"))?;
        let known = match kind {
            1 => 0b111_1111,
            3 => 0b11,
            _ => 0,
        };
        hold(flags & !known == 0, || format!("operation: flags {flags:#x} of kind {kind}"))?;
        let operation = match kind {
            1 => Self::Put(Box::new(put(&mut cursor, flags, lsn)?)),
            2 => delete(&mut cursor)?,
            3 => Self::Define(define(&mut cursor, flags)?),
            4 => Self::Drop { collection: cursor.u32()? },
            5 => {
                let (name, value) = (cursor.u32()?, cursor.u32()?);
                let name = cursor.text(name as usize)?;
                Self::Setting { name, value: cursor.text(value as usize)? }
            }
            6 => {
                let (_client, _sequence) = (cursor.u64()?, cursor.u64()?);
                Self::Request
            }
            _ => return Err(format!("operation: kind {kind}")),
        };
        cursor.end()?;
        Ok(operation)
    }
}

fn put(cursor: &mut Cursor, flags: u16, lsn: u64) -> Read<Entry> {
    let has = |flag: u16| flags & flag != 0;
    let mut entry = Entry { version: lsn, pinned: has(64), ..Entry::default() };
    entry.collection = cursor.u32()?;
    entry.id = cursor.u64()?;
    entry.at = cursor.i64()?;
    entry.created = cursor.i64()?;
    entry.updated = cursor.i64()?;
    if has(4) {
        entry.expires = Some(cursor.i64()?);
    }
    if has(16) {
        entry.sequence = Some(cursor.u64()?);
    }
    if has(32) {
        entry.salience = Some(cursor.f32()?);
    }
    let session = if has(8) { Some(cursor.u32()? as usize) } else { None };
    let values = if has(1) { Some(cursor.u32()? as usize) } else { None };
    let (namespace, key) = (cursor.u16()? as usize, cursor.u16()? as usize);
    let (attributes, payload) = (cursor.u32()? as usize, cursor.u32()? as usize);
    let payload_crc = cursor.u32()?;

    entry.namespace = cursor.text(namespace)?;
    entry.key = cursor.text(key)?;
    if let Some(length) = session {
        entry.session = Some(cursor.text(length)?);
    }
    entry.attributes = cursor.text(attributes)?;
    if let Some(values) = values {
        let bytes = cursor.take(values * if has(2) { 2 } else { 4 })?;
        entry.vector = Some(vector(bytes, has(2)));
    }
    entry.payload = cursor.take(payload)?.to_vec();
    hold(crc(&[&entry.payload]) == payload_crc, || format!("put {lsn}: CRC of the payload"))?;
    Ok(entry)
}

/// The values of a vector, f16 widened to f32.
pub fn vector(bytes: &[u8], half: bool) -> Vec<f32> {
    if half {
        let values = bytes.chunks_exact(2).map(|two| f16::from_le_bytes([two[0], two[1]]));
        return values.map(f16::to_f32).collect();
    }
    let values = bytes.chunks_exact(4);
    values.map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
}

fn delete(cursor: &mut Cursor) -> Read<Operation> {
    let (_collection, id, removal) = (cursor.u32()?, cursor.u64()?, cursor.u8()?);
    hold(removal < 2, || format!("delete: removal {removal}"))?;
    let (namespace, key) = (cursor.u16()?, cursor.u16()?);
    let (_namespace, _key) = (cursor.text(namespace as usize)?, cursor.text(key as usize)?);
    Ok(Operation::Delete { id, expired: removal == 1 })
}

fn define(cursor: &mut Cursor, flags: u16) -> Read<Define> {
    let (collection, created) = (cursor.u32()?, cursor.i64()?);
    let metric = match cursor.u8()? {
        0 => Metric::Cosine,
        1 => Metric::Dot,
        2 => Metric::L2,
        other => return Err(format!("define: metric {other}")),
    };
    let half = match cursor.u8()? {
        0 => false,
        1 => true,
        other => return Err(format!("define: element {other}")),
    };
    let dimension = if flags & 1 != 0 { Some(cursor.u32()?) } else { None };
    let model = if flags & 2 != 0 { Some(cursor.u32()? as usize) } else { None };
    let name = cursor.u32()? as usize;
    let model = match model {
        Some(length) => Some(cursor.text(length)?),
        None => None,
    };
    let name = cursor.text(name)?;
    Ok(Define { collection, name, created, metric, half, dimension, model })
}
