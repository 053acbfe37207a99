//! A store and the plain map beside it. Every write goes to both, and both must answer alike.
//!
//! The map is changed only after the store answered, because ids and versions come from there; that
//! they are the right ones (dense ids, growing versions, an old id kept) is checked on the way. A
//! write that fails must fail for the reason the map says, and must leave no trace.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pmll::io::sim::SimDisk;
use pmll::{
    Batch, Clock, Collection, Draft, EntryId, ErrorKind, Lsn, Receipt, Result, Store, Timestamp,
};
use serde_json::Value;

use super::ops::{self, At, COLLECTIONS, Guess, NAMESPACES, Op, Step};
use crate::support::{ManualClock, Model, ModelEntry, Path, open};

/// A store under test, and what it should hold.
pub(super) struct World {
    pub(super) disk: SimDisk,
    pub(super) clock: Arc<ManualClock>,
    pub(super) store: Option<Store>,
    pub(super) model: Model,
    pub(super) settings: BTreeMap<String, Value>,
    pub(super) handles: [Option<Collection>; 3],
    /// Entries that a vacuum met expired: their version then, and when.
    pub(super) seen_expired: BTreeMap<EntryId, (Lsn, Duration)>,
    next_id: u64,
    version: Lsn,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let (disk, clock) = (SimDisk::new(seed), ManualClock::new());
        let store = Some(open(&disk, &clock));
        World {
            disk,
            clock,
            store,
            model: Model::new(),
            settings: BTreeMap::new(),
            handles: [None, None, None],
            seen_expired: BTreeMap::new(),
            next_id: 1,
            version: Lsn(0),
        }
    }

    pub(super) fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The collection's handle at its root; the collection is made if it is missing.
    pub(super) fn handle(&mut self, number: usize) -> Collection {
        if self.handles[number].is_none() {
            let spec = ops::spec(number);
            let made = self.store().collection_with(COLLECTIONS[number], spec.clone()).unwrap();
            assert_eq!(made.spec().unwrap(), spec);
            self.handles[number] = Some(made);
        }
        self.handles[number].clone().unwrap()
    }

    pub(super) fn handle_at(&mut self, at: At) -> Collection {
        self.handle(at.collection).in_namespace(at.namespace())
    }

    pub(super) fn path(at: At) -> Path {
        let (collection, namespace) = (COLLECTIONS[at.collection], NAMESPACES[at.namespace]);
        (collection.to_owned(), namespace.to_owned(), ops::key(at.key))
    }

    /// What a caller sees under a path.
    pub(super) fn visible(&self, path: &Path) -> Option<&ModelEntry> {
        self.model.get(path).filter(|entry| !entry.expired(self.now()))
    }

    /// Runs one call on both sides.
    pub(super) fn run(&mut self, op: &Op) {
        match op {
            Op::Write(step) => self.write(vec![step.clone()], false),
            Op::Batch(steps) => self.write(steps.clone(), true),
            Op::DeleteNth(n) => self.delete_nth(*n),
            Op::Pin(at, pinned) => self.pin(*at, *pinned),
            Op::Set(name, value) => self.set(&format!("s{name}"), *value),
            Op::Drop(collection) => self.drop_collection(*collection),
            Op::Advance(by) => self.clock.advance(*by),
            Op::Back(by) => {
                let us = i64::try_from(by.as_micros()).unwrap();
                self.clock.set_now(Timestamp(self.now().0 - us));
            }
            Op::Checkpoint
            | Op::Compress(_)
            | Op::Recompress
            | Op::Vacuum
            | Op::Reopen
            | Op::Kill
            | Op::PowerLoss(_) => {
                self.upkeep(op);
            }
            reading => self.read(reading),
        }
    }

    fn write(&mut self, steps: Vec<Step>, batch: bool) {
        let steps: Vec<Step> = steps.into_iter().map(|step| self.looked_up(step)).collect();
        for step in &steps {
            self.handle(step.at().collection);
        }
        let outcome = if batch { self.call_batch(&steps) } else { self.call(&steps[0]) };
        let (next_id, version) = (self.next_id, self.version);
        let mut undo = Vec::new();
        let mut expected = Ok(());
        for (index, step) in steps.iter().enumerate() {
            let receipt = outcome.as_ref().ok().map(|receipts| receipts[index]);
            match self.expect(step, receipt) {
                Ok(previous) => undo.push(previous),
                Err(kind) => {
                    expected = Err(kind);
                    break;
                }
            }
        }
        match (&outcome, expected) {
            (Ok(receipts), Ok(())) => assert_eq!(receipts.len(), steps.len()),
            (Err(error), Err(kind)) => {
                assert_eq!(error.kind(), kind, "{error} for {steps:?}");
                for (path, old) in undo.into_iter().rev() {
                    match old {
                        Some(entry) => self.model.insert(path, entry),
                        None => self.model.remove(&path),
                    };
                }
                (self.next_id, self.version) = (next_id, version);
            }
            (outcome, expected) => panic!("{outcome:?}, but expected {expected:?}: {steps:?}"),
        }
    }

    /// The step with what it needs of the present state: a caller reads a version, then writes.
    fn looked_up(&self, step: Step) -> Step {
        match step.fitted() {
            Step::PutIf(at, guess, draft) => {
                let version = self.visible(&World::path(at)).map(|entry| entry.version);
                let asked = match guess {
                    Guess::Absent => None,
                    Guess::Right => version,
                    Guess::Wrong => Some(Lsn(version.map_or(1, |version| version.0 - 1))),
                    Guess::Version(version) => version,
                };
                Step::PutIf(at, Guess::Version(asked), draft)
            }
            other => other,
        }
    }

    /// One step through the collection's own methods.
    fn call(&mut self, step: &Step) -> Result<Vec<Receipt>> {
        let handle = self.handle_at(step.at());
        let key = ops::key(step.at().key);
        let receipt = match step {
            Step::Put(_, draft) => handle.put(key, draft.clone())?,
            Step::Insert(_, draft) => handle.insert(key, draft.clone())?,
            Step::PutIf(_, Guess::Version(asked), draft) => {
                handle.put_if(key, *asked, draft.clone())?
            }
            Step::Update(_, patch) => handle.update(key, patch.clone())?,
            Step::Add(_, draft) => {
                let (key, receipt) = handle.add(draft.clone())?;
                assert_eq!(key.as_bytes(), format!("id-{}", receipt.id).as_bytes());
                receipt
            }
            // A batch answers a delete with its receipt, and knows no vectors of other lengths.
            Step::PutIf(..) | Step::Delete(_) | Step::Bad(_) => {
                return self.call_batch(std::slice::from_ref(step));
            }
        };
        Ok(vec![receipt])
    }

    fn call_batch(&mut self, steps: &[Step]) -> Result<Vec<Receipt>> {
        let mut batch = Batch::new();
        for step in steps {
            let handle = self.handle_at(step.at());
            let key = ops::key(step.at().key);
            batch = match step {
                Step::Put(_, draft) => batch.put(&handle, key, draft.clone()),
                Step::Insert(_, draft) => batch.insert(&handle, key, draft.clone()),
                Step::PutIf(_, Guess::Version(asked), draft) => {
                    batch.put_if(&handle, key, *asked, draft.clone())
                }
                Step::PutIf(..) => unreachable!("versions are looked up before the call"),
                Step::Update(_, patch) => batch.update(&handle, key, patch.clone()),
                Step::Delete(_) => batch.delete(&handle, key),
                Step::Add(_, draft) => batch.add(&handle, draft.clone()),
                Step::Bad(_) => batch.put(&handle, key, Draft::text("").vector([1.0; 4])),
            };
        }
        self.store().write(batch)
    }

    /// Does one step to the map, and says what stood there before. Without a receipt (the write
    /// failed at this step or a later one) only the verdict counts.
    fn expect(
        &mut self,
        step: &Step,
        receipt: Option<Receipt>,
    ) -> Result<(Path, Option<ModelEntry>), ErrorKind> {
        let now = self.now();
        let mut path = World::path(step.at());
        if let Step::Add(..) = step {
            path.2 = format!("id-{}", self.next_id).into_bytes();
        }
        // What is expired does not count as there, and its id is not used again.
        let old = self.visible(&path).cloned();
        match step {
            Step::Bad(_) => return Err(ErrorKind::Invalid),
            Step::Insert(..) | Step::Add(..) if old.is_some() => return Err(ErrorKind::Exists),
            Step::PutIf(_, Guess::Version(asked), _)
                if *asked != old.as_ref().map(|entry| entry.version) =>
            {
                return Err(ErrorKind::Exists);
            }
            Step::Update(..) if old.is_none() => return Err(ErrorKind::NotFound),
            _ => {}
        }
        let id = old.as_ref().map_or(EntryId(self.next_id), |entry| entry.id);
        let version = receipt.map_or(self.version, |receipt| receipt.version);
        let new = match step {
            Step::Put(_, draft)
            | Step::Insert(_, draft)
            | Step::PutIf(_, _, draft)
            | Step::Add(_, draft) => Some(ModelEntry::put(draft, old.as_ref(), now, (id, version))),
            Step::Update(_, patch) => old.clone().map(|mut entry| {
                entry.update(patch, now, version);
                entry
            }),
            Step::Delete(_) | Step::Bad(_) => None,
        };
        if let Some(receipt) = receipt {
            let (made, removed) = (new.is_some() && old.is_none(), new.is_none() && old.is_some());
            assert_eq!((receipt.created, receipt.removed), (made, removed), "{step:?}");
            if new.is_some() || removed {
                assert_eq!(receipt.id, id, "{step:?}");
                assert!(version > self.version, "{step:?}: {version} after {}", self.version);
                self.version = version;
            } else {
                assert_eq!((receipt.id, receipt.version), (EntryId(0), Lsn(0)), "{step:?}");
            }
        }
        self.next_id += u64::from(new.is_some() && old.is_none());
        let previous = match new {
            Some(entry) => self.model.insert(path.clone(), entry),
            None => self.model.remove(&path),
        };
        Ok((path, previous))
    }

    fn delete_nth(&mut self, n: usize) {
        let Some(path) = self.model.keys().nth(n % self.model.len().max(1)).cloned() else {
            return;
        };
        let number = COLLECTIONS.iter().position(|name| *name == path.0).unwrap();
        let namespace = pmll::Namespace::new(&path.1).unwrap();
        let seen = self.visible(&path).is_some();
        let deleted = self.handle(number).in_namespace(namespace).delete(&path.2).unwrap();
        assert_eq!(deleted, seen, "{path:?}");
        self.model.remove(&path);
    }

    fn pin(&mut self, at: At, pinned: bool) {
        let path = World::path(at);
        let seen = self.visible(&path).is_some();
        let handle = self.handle_at(at);
        assert_eq!(handle.pin(ops::key(at.key), pinned).unwrap(), seen);
        if seen {
            let version = handle.peek(ops::key(at.key)).unwrap().unwrap().version;
            assert!(version > self.version);
            self.version = version;
            let now = self.now();
            let entry = self.model.get_mut(&path).unwrap();
            (entry.pinned, entry.version, entry.updated) = (pinned, version, now);
        }
    }

    fn set(&mut self, name: &str, value: Option<u32>) {
        let value = value.map_or(Value::Null, Value::from);
        self.store().set_setting(name, value.clone()).unwrap();
        match value {
            Value::Null => self.settings.remove(name),
            value => self.settings.insert(name.to_owned(), value),
        };
        assert_eq!(self.store().setting(name).unwrap().as_ref(), self.settings.get(name));
    }

    fn drop_collection(&mut self, number: usize) {
        let name = COLLECTIONS[number];
        let stale = self.handle(number);
        assert!(self.store().drop_collection(name).unwrap());
        assert!(!self.store().drop_collection(name).unwrap());
        assert_eq!(stale.count(None).unwrap_err().kind(), ErrorKind::NotFound);
        let late = stale.put("late", Draft::text("late")).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::NotFound);
        self.handles[number] = None;
        self.model.retain(|path, _| path.0 != name);
    }
}
