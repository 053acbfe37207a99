//! What stands in the index: its tables, and the byte form of every row.
//!
//! | table | key | value before its CRC |
//! |---|---|---|
//! | keys | collection u32 BE, namespace, 0x00, key | id u64 |
//! | recent | as in keys | as in keys |
//! | ids | id u64 | collection u32, version u64, state u8, segment u64, group u16, row u32 |
//! | segments | number u64 | the caller's bytes |
//! | collections | id u32 | the caller's bytes |
//! | settings | name | the caller's bytes |
//! | requests | client u64 | sequence u64 |
//! | expiring | id u64 | uptime in ms u64 |
//! | meta | name | u64 |
//!
//! Every value ends with a CRC-32 over the table's number, the row's key and the value, so that a
//! value never answers for another row, whatever moved it. Numbers in values are little-endian;
//! the collection in front of a key is big-endian because rows sort by their bytes. A namespace
//! holds no 0x00, so rows sort by (collection, namespace, key).
//!
//! Never: opens a table or a file; this is bytes only.

use std::ops::Bound;

use redb::TableDefinition;

use crate::words::error::{Error, Result};
use crate::words::id::{CollectionId, EntryId, Key, KeyPath, Lsn, Namespace};
use crate::words::record::Place;
use crate::words::safeguard::Safeguard;

/// Bytes of a sealed u64.
pub const NUMBER_BYTES: usize = 12;
/// Bytes of a row of `ids`.
pub const LOCATED_BYTES: usize = 31;

/// (collection, namespace, key) -> id.
pub const KEYS: TableDefinition<'static, &[u8], [u8; NUMBER_BYTES]> = TableDefinition::new("keys");
/// As [`KEYS`], for those that came lately.
pub const RECENT: TableDefinition<'static, &[u8], [u8; NUMBER_BYTES]> =
    TableDefinition::new("recent");
/// id -> where.
pub const IDS: TableDefinition<'static, u64, [u8; LOCATED_BYTES]> = TableDefinition::new("ids");
/// segment number -> bytes.
pub const SEGMENTS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("segments");
/// collection -> bytes.
pub const COLLECTIONS: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("collections");
/// name -> bytes.
pub const SETTINGS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("settings");
/// client -> last sequence.
pub const REQUESTS: TableDefinition<'static, u64, [u8; NUMBER_BYTES]> =
    TableDefinition::new("requests");
/// id -> uptime at which it was first seen expired.
pub const EXPIRING: TableDefinition<'static, u64, [u8; NUMBER_BYTES]> =
    TableDefinition::new("expiring");
/// name -> number.
pub const META: TableDefinition<'static, &str, [u8; NUMBER_BYTES]> = TableDefinition::new("meta");

/// Which table a value belongs to: the first byte under its CRC, and its name in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// [`KEYS`].
    Keys = 1,
    /// [`IDS`].
    Ids = 2,
    /// [`SEGMENTS`].
    Segments = 3,
    /// [`COLLECTIONS`].
    Collections = 4,
    /// [`SETTINGS`].
    Settings = 5,
    /// [`REQUESTS`].
    Requests = 6,
    /// [`EXPIRING`].
    Expiring = 7,
    /// [`META`].
    Meta = 8,
    /// [`RECENT`].
    Recent = 9,
}

/// What the index knows about an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// The collection it belongs to.
    pub collection: CollectionId,
    /// LSN of its last write, or of its removal.
    pub version: Lsn,
    /// Its row in the archive; `None` once it was removed.
    pub place: Option<Place>,
}

const DEAD: u8 = 0;
const LIVE: u8 = 1;

fn crc(table: Table, key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[table as u8]);
    // The length parts key and value, so that neither can lend a byte to the other.
    hasher.update(&(key.len() as u32).to_le_bytes());
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

fn damaged(table: Table, key: &[u8]) -> Error {
    Error::corrupt(format!(
        "index.redb: the row {} of table {table:?} does not match its checksum",
        key.escape_ascii()
    ))
}

/// A number as a value.
pub fn seal_number(table: Table, key: &[u8], number: u64) -> [u8; NUMBER_BYTES] {
    let mut out = [0; NUMBER_BYTES];
    let body = number.to_le_bytes();
    out[..8].copy_from_slice(&body);
    out[8..].copy_from_slice(&crc(table, key, &body).to_le_bytes());
    out
}

/// Reads [`seal_number`] back. Errors with `Corrupt`.
pub fn open_number(table: Table, key: &[u8], value: &[u8; NUMBER_BYTES]) -> Result<u64> {
    let (body, stored) = split(value).ok_or_else(|| damaged(table, key))?;
    let body = body.first_chunk::<8>().ok_or_else(|| damaged(table, key))?;
    if Safeguard::CatalogValueCrc.finds(stored != crc(table, key, body)) {
        return Err(damaged(table, key));
    }
    Ok(u64::from_le_bytes(*body))
}

/// The caller's bytes as a value.
pub fn seal_bytes(table: Table, key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 4);
    out.extend_from_slice(body);
    out.extend_from_slice(&crc(table, key, body).to_le_bytes());
    out
}

/// Reads [`seal_bytes`] back. Errors with `Corrupt`.
pub fn open_bytes<'v>(table: Table, key: &[u8], value: &'v [u8]) -> Result<&'v [u8]> {
    let (body, stored) = split(value).ok_or_else(|| damaged(table, key))?;
    if Safeguard::CatalogValueCrc.finds(stored != crc(table, key, body)) {
        return Err(damaged(table, key));
    }
    Ok(body)
}

fn split(value: &[u8]) -> Option<(&[u8], u32)> {
    let (body, stored) = value.split_last_chunk::<4>()?;
    Some((body, u32::from_le_bytes(*stored)))
}

/// A row of `ids`.
pub fn seal_located(id: EntryId, located: &Located) -> [u8; LOCATED_BYTES] {
    let mut out = [0; LOCATED_BYTES];
    out[..4].copy_from_slice(&located.collection.0.to_le_bytes());
    out[4..12].copy_from_slice(&located.version.0.to_le_bytes());
    if let Some(place) = located.place {
        out[12] = LIVE;
        out[13..21].copy_from_slice(&place.segment.to_le_bytes());
        out[21..23].copy_from_slice(&place.group.to_le_bytes());
        out[23..27].copy_from_slice(&place.row.to_le_bytes());
    }
    let sum = crc(Table::Ids, &id.0.to_le_bytes(), &out[..27]);
    out[27..].copy_from_slice(&sum.to_le_bytes());
    out
}

/// Reads [`seal_located`] back. Errors with `Corrupt`.
pub fn open_located(id: EntryId, value: &[u8; LOCATED_BYTES]) -> Result<Located> {
    let key = id.0.to_le_bytes();
    let body = open_bytes(Table::Ids, &key, value)?;
    let take = |at: usize| body.get(at..).and_then(|b| b.first_chunk::<8>()).copied();
    let wide = |at: usize| take(at).map_or(0, u64::from_le_bytes);
    let short = |at: usize| body.get(at..).and_then(|b| b.first_chunk::<4>()).copied();
    let narrow = |at: usize| short(at).map_or(0, u32::from_le_bytes);
    let group = body.get(21..23).and_then(|b| b.first_chunk::<2>()).copied();
    let place = match body.get(12) {
        Some(&LIVE) => Some(Place {
            segment: wide(13),
            group: group.map_or(0, u16::from_le_bytes),
            row: narrow(23),
        }),
        Some(&DEAD) => None,
        _ => return Err(damaged(Table::Ids, &key)),
    };
    Ok(Located { collection: CollectionId(narrow(0)), version: Lsn(wide(4)), place })
}

/// The row key of an entry's key.
pub fn key_row(collection: CollectionId, namespace: &str, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(4 + namespace.len() + 1 + key.len());
    row.extend_from_slice(&collection.0.to_be_bytes());
    row.extend_from_slice(namespace.as_bytes());
    row.push(0);
    row.extend_from_slice(key);
    row
}

/// Reads [`key_row`] back, limits checked. Errors with `Corrupt`.
pub fn open_key_row(row: &[u8]) -> Result<KeyPath> {
    let parts = || -> Option<KeyPath> {
        let (collection, path) = row.split_first_chunk::<4>()?;
        let nul = path.iter().position(|b| *b == 0)?;
        let namespace = std::str::from_utf8(path.get(..nul)?).ok()?;
        let namespace = Namespace::new(namespace).ok()?;
        let key = Key::new(path.get(nul + 1..)?).ok()?;
        let collection = CollectionId(u32::from_be_bytes(*collection));
        Some(KeyPath { collection, namespace, key })
    };
    parts().ok_or_else(|| damaged(Table::Keys, row))
}

/// Ends of a range of row keys.
pub type RowBounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// A stretch of the (namespace, key) order inside one collection.
///
/// Start from one of the first three and narrow it; narrowing never widens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// Bytes after the collection's four; `Unbounded` ends at the collection's.
    low: Bound<Vec<u8>>,
    high: Bound<Vec<u8>>,
}

impl KeyRange {
    /// Every key of a collection.
    #[must_use]
    pub fn all() -> KeyRange {
        KeyRange { low: Bound::Unbounded, high: Bound::Unbounded }
    }

    /// The keys of exactly this namespace.
    #[must_use]
    #[cfg(test)]
    pub fn of_namespace(namespace: &Namespace) -> KeyRange {
        KeyRange::with_prefix(namespace, &[])
    }

    /// The keys of the namespaces below this one, itself not included; empty below nothing.
    /// `of_namespace` stands before it in the order, though not next to it.
    #[must_use]
    pub fn below(namespace: &Namespace) -> KeyRange {
        if namespace.is_root() {
            // Every path but the empty one starts with a byte above 0x00.
            return KeyRange { low: Bound::Included(vec![1]), high: Bound::Unbounded };
        }
        // '0' follows '/' in the order of bytes.
        let path = namespace.as_str();
        KeyRange {
            low: Bound::Included(format!("{path}/").into_bytes()),
            high: Bound::Excluded(format!("{path}0").into_bytes()),
        }
    }

    /// The keys of exactly this namespace that start with these bytes.
    #[must_use]
    pub fn with_prefix(namespace: &Namespace, prefix: &[u8]) -> KeyRange {
        let low = tail(namespace, prefix);
        let high = match successor(low.clone()) {
            Some(high) => Bound::Excluded(high),
            None => Bound::Unbounded,
        };
        KeyRange { low: Bound::Included(low), high }
    }

    /// Drops what stands before this key.
    #[must_use]
    pub fn starting(self, namespace: &Namespace, key: &[u8]) -> KeyRange {
        self.raise(Bound::Included(tail(namespace, key)))
    }

    /// Drops this key and what stands before it.
    #[must_use]
    pub fn after(self, namespace: &Namespace, key: &[u8]) -> KeyRange {
        self.raise(Bound::Excluded(tail(namespace, key)))
    }

    /// Drops this key and what stands after it.
    #[must_use]
    pub fn before(mut self, namespace: &Namespace, key: &[u8]) -> KeyRange {
        let new = tail(namespace, key);
        // Exclusive is the stricter of two equal ends, so the smaller end wins and ties go to it.
        let keeps = matches!(&self.high, Bound::Included(b) | Bound::Excluded(b) if *b < new);
        if !keeps {
            self.high = Bound::Excluded(new);
        }
        self
    }

    fn raise(mut self, new: Bound<Vec<u8>>) -> KeyRange {
        let rank = |bound: &Bound<Vec<u8>>| match bound {
            Bound::Unbounded => None,
            Bound::Included(b) => Some((b.clone(), 0)),
            Bound::Excluded(b) => Some((b.clone(), 1)),
        };
        if rank(&new) > rank(&self.low) {
            self.low = new;
        }
        self
    }

    /// The bounds as row keys of one collection; `None` when nothing can lie between them.
    pub fn rows(&self, collection: CollectionId) -> Option<RowBounds> {
        let head = collection.0.to_be_bytes();
        let full = |tail: &Vec<u8>| [&head[..], tail].concat();
        let low = match &self.low {
            Bound::Unbounded => Bound::Included(head.to_vec()),
            Bound::Included(b) => Bound::Included(full(b)),
            Bound::Excluded(b) => Bound::Excluded(full(b)),
        };
        let high = match &self.high {
            Bound::Unbounded => match collection.0.checked_add(1) {
                Some(next) => Bound::Excluded(next.to_be_bytes().to_vec()),
                None => Bound::Unbounded,
            },
            Bound::Included(b) => Bound::Included(full(b)),
            Bound::Excluded(b) => Bound::Excluded(full(b)),
        };
        let empty = match (&low, &high) {
            (Bound::Included(a), Bound::Included(b)) => a > b,
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => {
                a >= b
            }
        };
        (!empty).then_some((low, high))
    }
}

fn tail(namespace: &Namespace, key: &[u8]) -> Vec<u8> {
    [namespace.as_str().as_bytes(), &[0], key].concat()
}

/// The smallest string after every string with this prefix.
fn successor(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    while let Some(last) = bytes.pop() {
        if last < u8::MAX {
            bytes.push(last + 1);
            return Some(bytes);
        }
    }
    None
}
