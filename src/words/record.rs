//! What the log and the archive hold: operations, and the record of one entry.
//!
//! A [`Record`] is the whole truth about an entry at one version: whoever has the record with the
//! highest version of an id needs no older one. That makes replay, rebuild and merging of segments
//! one rule ("the highest LSN wins") and is why `update` and `pin` write a whole record again.

use std::sync::Arc;

use crate::words::id::{CollectionId, EntryId, Key, Lsn, Namespace, Timestamp};
use crate::words::options::CollectionSpec;

/// Everything about one entry at one version.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The collection it belongs to.
    pub collection: CollectionId,
    /// Its identity.
    pub id: EntryId,
    /// LSN of the operation that wrote this version.
    pub version: Lsn,
    /// Its namespace; root when none was given.
    pub namespace: Namespace,
    /// Its key.
    pub key: Key,
    /// Exact vector. In an f16 collection every value is already rounded to f16.
    pub vector: Option<Arc<[f32]>>,
    /// Whether the vector is stored with two bytes a value (an f16 collection).
    pub half: bool,
    /// Payload bytes, or where they are.
    pub payload: Payload,
    /// Attributes: the text of one JSON object, `{}` when there are none.
    pub attributes: Arc<str>,
    /// Event time: the caller's, or the time of the first write.
    pub at: Timestamp,
    /// Wall clock of the first write.
    pub created: Timestamp,
    /// Wall clock of the last write.
    pub updated: Timestamp,
    /// When it hides, if ever.
    pub expires: Option<Timestamp>,
    /// Session it belongs to.
    pub session: Option<Arc<str>>,
    /// Position in its session.
    pub sequence: Option<u64>,
    /// The caller's semantic value in [0, 1].
    pub salience: Option<f32>,
    /// Whether it may never be demoted below int8.
    pub pinned: bool,
}

/// Payload bytes, or the place to read them from: payloads above
/// [`PAYLOAD_RESIDENT_BYTES_MAX`](crate::words::limits::PAYLOAD_RESIDENT_BYTES_MAX) never stay in RAM.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// In RAM.
    Inline(Arc<[u8]>),
    /// In a log segment, at a byte offset.
    InLog(PayloadPlace),
    /// In an archive segment; `offset` is the row's number there.
    InArchive(PayloadPlace),
}

/// Where a large payload lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadPlace {
    /// Number of the log or archive segment.
    pub segment: u64,
    /// Byte offset in a log segment; row number in an archive segment.
    pub offset: u64,
    /// Length in bytes.
    pub len: u32,
    /// CRC-32 of the bytes.
    pub crc: u32,
}

impl Payload {
    /// Length of the payload in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Payload::Inline(bytes) => bytes.len(),
            Payload::InLog(place) | Payload::InArchive(place) => place.len as usize,
        }
    }
}

/// One operation of the log. Its LSN stands in the frame that carries it.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A new version of an entry.
    Put(Record),
    /// An entry is gone from this LSN on.
    Delete(Tombstone),
    /// A collection exists with this definition (also a change of it).
    Define(CollectionDef),
    /// A collection and everything in it is gone from this LSN on.
    DropCollection {
        /// Which one.
        collection: CollectionId,
        /// LSN of the operation.
        version: Lsn,
    },
    /// A setting of the store: a name and the text of a JSON value.
    Setting {
        /// Dotted name, such as `budget_bytes`.
        name: Arc<str>,
        /// JSON text.
        value: Arc<str>,
        /// LSN of the operation.
        version: Lsn,
    },
    /// The last request number of a client, so that a retried request is applied once.
    Request {
        /// The client's own random number.
        client: u64,
        /// The number of its request.
        sequence: u64,
        /// LSN of the operation.
        version: Lsn,
    },
}

impl Op {
    /// LSN of the operation.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        match self {
            Op::Put(record) => record.version,
            Op::Delete(tombstone) => tombstone.version,
            Op::Define(def) => def.version,
            Op::DropCollection { version, .. }
            | Op::Setting { version, .. }
            | Op::Request { version, .. } => *version,
        }
    }
}

/// Why an entry was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// By `delete`.
    Deleted,
    /// By vacuum, because its time had passed.
    Expired,
}

/// The mark that an entry is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Tombstone {
    /// The collection it was in.
    pub collection: CollectionId,
    /// Its identity.
    pub id: EntryId,
    /// LSN of the removal.
    pub version: Lsn,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its key.
    pub key: Key,
    /// Why it is gone.
    pub removal: Removal,
}

/// A collection as the log and the archive know it.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionDef {
    /// Its number.
    pub id: CollectionId,
    /// Its name.
    pub name: Arc<str>,
    /// Dimension, metric, element type and model.
    pub spec: CollectionSpec,
    /// LSN of this definition.
    pub version: Lsn,
    /// Wall clock of its creation.
    pub created: Timestamp,
}

/// Where a row of the archive is: segment number, group (one per collection) and row in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Number of the archive segment.
    pub segment: u64,
    /// Group in the segment.
    pub group: u16,
    /// Row in the group.
    pub row: u32,
}
