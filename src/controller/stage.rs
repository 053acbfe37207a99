//! Staging: what a request's steps become as operations, worked out against a view.
//!
//! A step says what the caller wants ("put this under that key if it is absent"); staging looks
//! the key up, checks conditions and dimensions, takes ids and LSNs, and yields whole records.
//! Each operation is applied to the trial view at once, so a later step of the same batch sees
//! it. A step that fails fails its whole request; the caller throws the trial view away, so nothing
//! of it is seen or logged. Every step is checked before it changes anything, so a request of one step
//! needs no trial: where [`is_sure`] says so, it is staged on the view of the batch itself.
//!
//! Never: writes, publishes, reads the clock (the time is passed in).

use std::sync::Arc;

use serde_json::Value;

use crate::controller::prepared::{Prepared, attributes_text, exact};
use crate::tiers::{Copy, View, assemble};
use crate::words::entry::{Patch, Receipt};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::{CollectionId, EntryId, Key, KeyPath, Lsn, Namespace, Timestamp};
use crate::words::limits;
use crate::words::options::{CollectionSpec, Element};
use crate::words::record::{CollectionDef, Op, Payload, Record, Removal, Tombstone};

/// What must hold for a put to go ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Any,
    /// No live entry under the key.
    Absent,
    /// A live entry of exactly this version.
    Version(Lsn),
}

/// One thing a caller wants done.
#[derive(Clone, Debug)]
pub enum Step {
    /// Insert or replace. Without a key the entry gets one made of its id.
    Put {
        /// Where.
        collection: CollectionId,
        /// Where in it.
        namespace: Namespace,
        /// Under which key.
        key: Option<Key>,
        /// What.
        entry: Box<Prepared>,
        /// When.
        condition: Condition,
    },
    /// Change some fields.
    Update {
        /// The path.
        path: KeyPath,
        /// The change.
        patch: Box<Patch>,
    },
    /// Remove.
    Delete {
        /// The path.
        path: KeyPath,
    },
    /// Remove because its time has passed; does nothing when a newer version exists.
    Expire {
        /// The path.
        path: KeyPath,
        /// The version that expired.
        version: Lsn,
    },
    /// Create a collection, or agree with the one there is.
    Define {
        /// Its name.
        name: String,
        /// What it shall be; fields left open stay as they are.
        spec: CollectionSpec,
    },
    /// Remove a collection and all in it.
    Drop {
        /// Which.
        collection: CollectionId,
    },
    /// Set (or with null remove) a setting.
    Set {
        /// Its name.
        name: String,
        /// Its value.
        value: Value,
    },
    /// Do the batch only if this request of this client was not done before.
    Request {
        /// The client's number.
        client: u64,
        /// The request's number.
        sequence: u64,
    },
}

impl Step {
    /// Whether the store gets no larger by it.
    pub fn makes_room(&self) -> bool {
        match self {
            Step::Delete { .. }
            | Step::Expire { .. }
            | Step::Drop { .. }
            | Step::Request { .. } => true,
            Step::Put { .. } | Step::Update { .. } | Step::Define { .. } | Step::Set { .. } => {
                false
            }
        }
    }
}

/// Whether a request either fails before it changes the view, or fits a log batch whatever is in it: one
/// step about one entry. It logs three operations at most (the dimension, what expired, the record), whose parts
/// have limits that together are less than those of a batch by 46 MiB.
pub fn is_sure(steps: &[Step]) -> bool {
    matches!(
        steps,
        [Step::Put { .. } | Step::Update { .. } | Step::Delete { .. } | Step::Expire { .. }]
    )
}

/// An operation with the payload bytes the log shall carry.
pub type Logged = (Op, Arc<[u8]>);

/// Stages all steps of one request on `view`, pushing what to log to `ops`. One receipt per step
/// that is about an entry; none at all when the request was applied before.
pub fn stage(
    view: &mut View,
    steps: Vec<Step>,
    now: Timestamp,
    ops: &mut Vec<Logged>,
) -> Result<Vec<Receipt>> {
    let mut receipts = Vec::new();
    for step in steps {
        match step {
            Step::Put { collection, namespace, key, entry, condition } => {
                receipts.push(put(view, ops, now, collection, namespace, key, *entry, condition)?);
            }
            Step::Update { path, patch } => receipts.push(update(view, ops, now, path, *patch)?),
            Step::Delete { path } => receipts.push(delete(view, ops, now, path)?),
            Step::Expire { path, version } => expire(view, ops, path, version)?,
            Step::Define { name, spec } => define(view, ops, now, name, &spec)?,
            Step::Drop { collection } => {
                check_collection(view, collection)?;
                let version = view.lsn.next();
                log(view, ops, Op::DropCollection { collection, version }, Arc::from([]));
            }
            Step::Set { name, value } => {
                let version = view.lsn.next();
                let (name, value) = (Arc::from(name), Arc::from(value.to_string()));
                log(view, ops, Op::Setting { name, value, version }, Arc::from([]));
            }
            Step::Request { client, sequence } => {
                if view.requests.get(&client).is_some_and(|last| *last >= sequence) {
                    return Ok(Vec::new());
                }
                let version = view.lsn.next();
                log(view, ops, Op::Request { client, sequence, version }, Arc::from([]));
            }
        }
    }
    Ok(receipts)
}

fn log(view: &mut View, ops: &mut Vec<Logged>, op: Op, payload: Arc<[u8]>) {
    view.apply(op.clone(), None);
    ops.push((op, payload));
}

fn check_collection(view: &View, id: CollectionId) -> Result<Arc<CollectionDef>> {
    view.collections
        .get(&id)
        .cloned()
        .ok_or_else(|| Error::new(ErrorKind::NotFound, "the collection was dropped"))
}

#[allow(clippy::too_many_arguments, reason = "the fields of one step, unpacked once")]
fn put(
    view: &mut View,
    ops: &mut Vec<Logged>,
    now: Timestamp,
    collection: CollectionId,
    namespace: Namespace,
    key: Option<Key>,
    entry: Prepared,
    condition: Condition,
) -> Result<Receipt> {
    let def = check_collection(view, collection)?;
    let settled = agree_dim(&def, entry.vector.as_deref())?;
    if entry.element != def.spec.element {
        return Err(Error::internal("a put was prepared for a collection of another element type"));
    }
    let key = match key {
        Some(key) => key,
        None => Key::new(format!("id-{}", view.next_id))?,
    };
    let path = KeyPath { collection, namespace, key };
    let mut old = view.get(&path)?.map(|copy| head(&copy)).transpose()?;
    // What is expired is not there for anybody: the key gets a new entry with a new id.
    let expired = old.take_if(|old| old.expired(now));
    match (condition, &old) {
        (Condition::Absent, Some(_)) => {
            return Err(Error::new(
                ErrorKind::Exists,
                format!("key {} exists already; put replaces it, update changes it", path.key),
            ));
        }
        (Condition::Version(asked), found) => {
            let found = found.as_ref().map_or(Lsn(0), |old| old.version);
            if found != asked {
                return Err(Error::new(
                    ErrorKind::Exists,
                    format!("key {} has version {found}, not {asked}; read it again", path.key),
                ));
            }
        }
        _ => {}
    }
    settle(view, ops, &def, settled);
    if let Some(expired) = expired {
        bury(view, ops, path.clone(), expired.id, Removal::Expired);
    }
    let created = old.is_none();
    let id = old.as_ref().map_or(view.next_id, |old| old.id);
    let payload = entry.payload;
    let record = Record {
        collection,
        id,
        version: view.lsn.next(),
        namespace: path.namespace,
        key: path.key,
        vector: entry.vector,
        half: def.spec.element == Element::F16,
        payload: Payload::Inline(Arc::clone(&payload)),
        attributes: entry.attributes,
        at: entry.at.unwrap_or(now),
        created: old.as_ref().map_or(now, |old| old.created),
        updated: now,
        expires: entry.expires.or_else(|| entry.ttl.map(|ttl| now.plus(ttl))),
        session: entry.session,
        sequence: entry.sequence,
        salience: entry.salience,
        pinned: entry.pinned.unwrap_or(old.as_ref().is_some_and(|old| old.pinned)),
    };
    let receipt = Receipt { id, version: record.version, created, removed: false };
    log(view, ops, Op::Put(record), payload);
    Ok(receipt)
}

/// What survives a replacement.
struct Head {
    id: EntryId,
    version: Lsn,
    created: Timestamp,
    expires: Option<Timestamp>,
    pinned: bool,
}

impl Head {
    fn expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

fn head(copy: &Copy) -> Result<Head> {
    Ok(match copy {
        Copy::Hot(hot) => Head {
            id: hot.record.id,
            version: hot.record.version,
            created: hot.record.created,
            expires: hot.record.expires,
            pinned: hot.record.pinned,
        },
        Copy::Cold(cold) => Head {
            id: cold.row.id,
            version: cold.row.version,
            created: cold.row.created,
            expires: cold.row.expires,
            pinned: cold.row.pinned,
        },
    })
}

fn update(
    view: &mut View,
    ops: &mut Vec<Logged>,
    now: Timestamp,
    path: KeyPath,
    patch: Patch,
) -> Result<Receipt> {
    let def = check_collection(view, path.collection)?;
    let settled = agree_dim(&def, patch.vector.as_ref().and_then(Option::as_deref))?;
    let copy = match view.get(&path)? {
        Some(copy) if !head(&copy)?.expired(now) => Some(copy),
        _ => None,
    };
    let (mut record, payload) = match copy {
        None => {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("no entry has key {}; put makes one", path.key),
            ));
        }
        Some(Copy::Hot(hot)) => ((*hot.record).clone(), hot.payload()?),
        Some(Copy::Cold(cold)) => (cold.record()?, cold.payload()?),
    };
    let payload: Arc<[u8]> = Arc::from(patch.payload.unwrap_or(payload));
    if !patch.attributes.is_empty() {
        let mut attributes = assemble::attributes(&record.attributes)?;
        for (name, value) in patch.attributes {
            if value.is_null() {
                attributes.shift_remove(&name);
            } else {
                attributes.insert(name, value);
            }
        }
        record.attributes = attributes_text(&attributes)?;
    }
    if let Some(vector) = patch.vector {
        record.vector = vector.map(|v| exact(v, def.spec.element));
    }
    record.half = def.spec.element == Element::F16;
    record.at = patch.at.unwrap_or(record.at);
    record.expires = patch.expires.unwrap_or(record.expires);
    if let Some(session) = patch.session {
        record.session = session.map(Arc::from);
    }
    record.salience = patch.salience.unwrap_or(record.salience);
    record.pinned = patch.pinned.unwrap_or(record.pinned);
    settle(view, ops, &def, settled);
    record.updated = now;
    record.version = view.lsn.next();
    record.payload = Payload::Inline(Arc::clone(&payload));
    let receipt =
        Receipt { id: record.id, version: record.version, created: false, removed: false };
    log(view, ops, Op::Put(record), payload);
    Ok(receipt)
}

fn delete(
    view: &mut View,
    ops: &mut Vec<Logged>,
    now: Timestamp,
    path: KeyPath,
) -> Result<Receipt> {
    check_collection(view, path.collection)?;
    let nothing = Receipt { id: EntryId(0), version: Lsn(0), created: false, removed: false };
    let Some(copy) = view.get(&path)? else { return Ok(nothing) };
    let old = head(&copy)?;
    // An expired entry goes as well, for good, though the caller could not see it.
    let version = bury(view, ops, path, old.id, Removal::Deleted);
    if old.expired(now) {
        return Ok(nothing);
    }
    Ok(Receipt { id: old.id, version, created: false, removed: true })
}

fn expire(view: &mut View, ops: &mut Vec<Logged>, path: KeyPath, version: Lsn) -> Result<()> {
    if let Some(copy) = view.get(&path)? {
        let head = head(&copy)?;
        if head.version == version {
            bury(view, ops, path, head.id, Removal::Expired);
        }
    }
    Ok(())
}

fn bury(
    view: &mut View,
    ops: &mut Vec<Logged>,
    path: KeyPath,
    id: EntryId,
    removal: Removal,
) -> Lsn {
    let version = view.lsn.next();
    let KeyPath { collection, namespace, key } = path;
    let tombstone = Tombstone { collection, id, version, namespace, key, removal };
    log(view, ops, Op::Delete(tombstone), Arc::from([]));
    version
}

fn define(
    view: &mut View,
    ops: &mut Vec<Logged>,
    now: Timestamp,
    name: String,
    asked: &CollectionSpec,
) -> Result<()> {
    let existing = view.names.get(name.as_str()).and_then(|id| view.collections.get(id)).cloned();
    let def = match existing {
        None => {
            if view.collections.len() >= limits::COLLECTIONS_MAX {
                return Err(Error::invalid(format!(
                    "the store has {} collections, the most it takes",
                    limits::COLLECTIONS_MAX
                )));
            }
            CollectionDef {
                id: view.next_collection,
                name: Arc::from(name),
                spec: asked.clone(),
                version: view.lsn.next(),
                created: now,
            }
        }
        Some(def) => {
            let spec = agree(&def, asked)?;
            if spec == def.spec {
                return Ok(());
            }
            CollectionDef { spec, version: view.lsn.next(), ..(*def).clone() }
        }
    };
    log(view, ops, Op::Define(def), Arc::from([]));
    Ok(())
}

/// What a collection becomes when somebody asks for `asked`: open fields are filled, settled ones
/// must agree. Metric and element count as settled from the start unless the asker left them at
/// their defaults.
pub fn agree(def: &CollectionDef, asked: &CollectionSpec) -> Result<CollectionSpec> {
    let mut spec = def.spec.clone();
    let mismatch = |what: &str, has: &dyn std::fmt::Display, wants: &dyn std::fmt::Display| {
        Error::invalid(format!("collection {} has {what} {has}, not {wants}", def.name))
    };
    match (spec.dim, asked.dim) {
        (Some(has), Some(wants)) if has != wants => {
            return Err(mismatch("dimension", &has, &wants));
        }
        (None, Some(wants)) => spec.dim = Some(wants),
        _ => {}
    }
    match (&spec.model, &asked.model) {
        (Some(has), Some(wants)) if has != wants => return Err(mismatch("model", has, wants)),
        (None, Some(wants)) => spec.model = Some(wants.clone()),
        _ => {}
    }
    let default = CollectionSpec::default();
    if asked.metric != default.metric && asked.metric != spec.metric {
        return Err(mismatch("metric", &spec.metric.name(), &asked.metric.name()));
    }
    if asked.element != default.element && asked.element != spec.element {
        return Err(mismatch("element type", &"f32", &"f16"));
    }
    Ok(spec)
}

/// What a vector of this length makes of a collection that has no dimension yet.
fn agree_dim(def: &CollectionDef, vector: Option<&[f32]>) -> Result<Option<CollectionSpec>> {
    let Some(len) = vector.map(<[f32]>::len) else { return Ok(None) };
    let dim = u32::try_from(len).unwrap_or(u32::MAX);
    match def.spec.dim {
        Some(has) if has == dim => Ok(None),
        Some(has) => Err(Error::invalid(format!(
            "a vector has {len} values, but collection {} has dimension {has}",
            def.name
        ))),
        None => Ok(Some(CollectionSpec { dim: Some(dim), ..def.spec.clone() })),
    }
}

/// Gives a collection the dimension of its first vector.
fn settle(
    view: &mut View,
    ops: &mut Vec<Logged>,
    def: &CollectionDef,
    spec: Option<CollectionSpec>,
) {
    if let Some(spec) = spec {
        let def = CollectionDef { spec, version: view.lsn.next(), ..def.clone() };
        log(view, ops, Op::Define(def), Arc::from([]));
    }
}

#[cfg(test)]
mod tests;
