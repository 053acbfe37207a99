//! A batch: steps over any entries and collections that happen together or not at all.

use std::time::Duration;

use serde_json::Value;

use crate::controller::commit::Request;
use crate::controller::prepared::Prepared;
use crate::controller::stage::{Condition, Step};
use crate::face::collection::Collection;
use crate::words::entry::{Draft, Patch};
use crate::words::error::{Error, Result};
use crate::words::id::{Key, Lsn};
use crate::words::options::Durability;

/// Steps that are written atomically: after a crash all of them are there, or none.
///
/// Arguments are checked when the batch is written; the first bad one fails the whole batch.
///
/// ```
/// # use pmll::{Batch, Draft, Store};
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::open(dir.path().join("memory"))?;
/// let (notes, people) = (store.collection("notes")?, store.collection("people")?);
/// let batch = Batch::new()
///     .put(&notes, "n1", Draft::text("met Caroline"))
///     .put(&people, "caroline", Draft::text("plays the violin"));
/// let receipts = store.write(batch)?;
/// assert_eq!(receipts.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "a batch does nothing until it is written"]
pub struct Batch {
    steps: Vec<Result<Step>>,
    durability: Option<Durability>,
    deadline: Option<Duration>,
    store: Option<[u8; 16]>,
    bytes: u64,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    fn push(mut self, collection: &Collection, bytes: usize, step: Result<Step>) -> Batch {
        let id = collection.store_id();
        let step = match self.store {
            Some(other) if other != id => {
                Err(Error::invalid("a batch names collections of two stores"))
            }
            _ => step,
        };
        self.store = Some(id);
        self.bytes += bytes as u64;
        self.steps.push(step);
        self
    }

    fn push_put(
        self,
        collection: &Collection,
        key: Option<&[u8]>,
        draft: Draft,
        condition: Condition,
    ) -> Batch {
        let bytes = draft_bytes(&draft);
        let step = Prepared::new(draft, collection.element()).and_then(|entry| {
            Ok(Step::Put {
                collection: collection.id(),
                namespace: collection.namespace().clone(),
                key: key.map(Key::new).transpose()?,
                entry: Box::new(entry),
                condition,
            })
        });
        self.push(collection, bytes, step)
    }

    /// Inserts or replaces; id, creation time, access count and pin of an existing entry survive.
    pub fn put(self, collection: &Collection, key: impl AsRef<[u8]>, draft: Draft) -> Batch {
        self.push_put(collection, Some(key.as_ref()), draft, Condition::Any)
    }

    /// Inserts; fails with `Exists` on a live key.
    pub fn insert(self, collection: &Collection, key: impl AsRef<[u8]>, draft: Draft) -> Batch {
        self.push_put(collection, Some(key.as_ref()), draft, Condition::Absent)
    }

    /// Inserts under a key made of the new id.
    pub fn add(self, collection: &Collection, draft: Draft) -> Batch {
        self.push_put(collection, None, draft, Condition::Absent)
    }

    /// Replaces exactly this version (`None`: only if absent); fails with `Exists` on another.
    pub fn put_if(
        self,
        collection: &Collection,
        key: impl AsRef<[u8]>,
        version: Option<Lsn>,
        draft: Draft,
    ) -> Batch {
        let condition = version.map_or(Condition::Absent, Condition::Version);
        self.push_put(collection, Some(key.as_ref()), draft, condition)
    }

    /// Changes some fields; fails with `NotFound` when there is no entry.
    pub fn update(self, collection: &Collection, key: impl AsRef<[u8]>, patch: Patch) -> Batch {
        let bytes = patch.payload.as_ref().map_or(0, Vec::len)
            + patch.vector.as_ref().and_then(Option::as_ref).map_or(0, |v| v.len() * 4)
            + 256;
        let step = patch.check().and_then(|()| {
            Ok(Step::Update { path: collection.path(key.as_ref())?, patch: Box::new(patch) })
        });
        self.push(collection, bytes, step)
    }

    /// Removes; a key that is not there is no error.
    pub fn delete(self, collection: &Collection, key: impl AsRef<[u8]>) -> Batch {
        let step = collection.path(key.as_ref()).map(|path| Step::Delete { path });
        self.push(collection, 256, step)
    }

    /// Makes a retry harmless: the batch is applied only if no batch with this or a later number
    /// of this client was. The receipts of a batch that was applied before are empty. Call it
    /// first; `client` is a random number the caller keeps.
    pub fn request(mut self, client: u64, sequence: u64) -> Batch {
        self.steps.insert(0, Ok(Step::Request { client, sequence }));
        self
    }

    /// Says when the batch counts as written; the store's default otherwise.
    pub fn durability(mut self, durability: Durability) -> Batch {
        self.durability = Some(durability);
        self
    }

    /// How long it may wait in the queue; after that it fails with `Expired`, unwritten.
    pub fn deadline(mut self, deadline: Duration) -> Batch {
        self.deadline = Some(deadline);
        self
    }

    /// Number of steps.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether it has no steps.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// About how many bytes it carries; the limit is 64 MiB.
    #[must_use]
    pub fn approx_bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn into_request(self, store: [u8; 16], default: Durability) -> Result<Request> {
        if self.store.is_some_and(|id| id != store) {
            return Err(Error::invalid("a batch names collections of another store"));
        }
        Ok(Request {
            steps: self.steps.into_iter().collect::<Result<_>>()?,
            durability: self.durability.unwrap_or(default),
            deadline: self.deadline,
            bytes: self.bytes,
        })
    }
}

/// Bytes of a draft: the variable parts, and a share for words and headers.
fn draft_bytes(draft: &Draft) -> usize {
    let vector = draft.vector.as_ref().map_or(0, |v| v.len() * 4);
    let attributes: usize = draft.attributes.iter().map(|(k, v)| k.len() + json_bytes(v)).sum();
    draft.payload.len() + vector + attributes + 512
}

/// About the length of a value as text.
fn json_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 3,
        Value::Array(values) => 2 + values.iter().map(json_bytes).sum::<usize>(),
        Value::Object(fields) => {
            2 + fields.iter().map(|(k, v)| k.len() + json_bytes(v)).sum::<usize>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
    }
}
