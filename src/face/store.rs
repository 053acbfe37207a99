//! The store handle: opening, collections, batches, upkeep, closing.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::bytes::promise::Promise;
use crate::controller::commit::Request;
use crate::controller::engine::{BUDGET_SETTING, Engine, check_budget, default_budget_bytes};
use crate::controller::maintenance::CheckpointReport;
use crate::controller::pressure::CompressReport;
use crate::controller::stage::Step;
use crate::face::batch::Batch;
use crate::face::builder::Builder;
use crate::face::collection::Collection;
use crate::face::stats::{self, Stats};
use crate::pure::policy::Policy;
use crate::verbs::vacuum::VacuumReport;
use crate::verbs::verify::{self, Depth, VerifyReport};
use crate::words::entry::Receipt;
use crate::words::error::{Error, Result};
use crate::words::id::Timestamp;
use crate::words::limits;
use crate::words::options::{CollectionSpec, Durability};
use crate::words::rule;

/// An open store: a directory that remembers.
///
/// Cheap to clone, safe to share between threads; every method takes `&self`. When the last
/// handle (of the store or of any of its collections) is dropped, what is queued is written and
/// the log is marked as cleanly closed; [`Store::close`] does the same and says what failed.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use pmll::{Draft, Store};
/// let store = Store::open(dir.path().join("memory"))?;
/// store.collection("notes")?.put("a", Draft::text("hello"))?;
/// store.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Store(Arc<Handle>);

/// The last one to go closes the engine; the background thread holds the engine, never this.
#[derive(Debug)]
struct Handle {
    engine: Arc<Engine>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.engine.close() {
            tracing::error!(%error, "closing a dropped store failed");
        }
    }
}

/// A collection as [`Store::collections`] lists it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CollectionInfo {
    /// Its name.
    pub name: String,
    /// Dimension, metric, element type, model.
    pub spec: CollectionSpec,
    /// Wall clock of its creation.
    pub created: Timestamp,
    /// Live entries, expired ones included until vacuum takes them.
    pub entries: u64,
}

impl Store {
    /// Opens a store, making it if the directory is missing or empty. See [`Builder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        Store::builder(path).open()
    }

    /// Opens with other settings or components.
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(path.as_ref())
    }

    pub(crate) fn new(engine: Arc<Engine>) -> Store {
        Store(Arc::new(Handle { engine }))
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.0.engine
    }

    pub(crate) fn run(&self, steps: Vec<Step>) -> Result<Vec<Receipt>> {
        let durability = self.engine().options.durability;
        self.engine().write(Request { steps, durability, deadline: None, bytes: 512 })
    }

    /// Gets a collection, making it if it is missing. The first vector sets its dimension.
    pub fn collection(&self, name: &str) -> Result<Collection> {
        self.collection_with(name, CollectionSpec::default())
    }

    /// Gets a collection, making it as asked if it is missing. Errors with `Invalid`, naming
    /// both, when it has another dimension, metric, element type or model.
    pub fn collection_with(&self, name: &str, spec: CollectionSpec) -> Result<Collection> {
        check_name(name)?;
        spec.check()?;
        self.engine().check_open()?;
        let known = {
            let view = self.engine().view.load();
            let def = view.names.get(name).and_then(|id| view.collections.get(id)).cloned();
            def.map(|def| {
                crate::controller::stage::agree(&def, &spec).map(|agreed| agreed == def.spec)
            })
        };
        if !known.transpose()?.unwrap_or(false) {
            self.run(vec![Step::Define { name: name.to_owned(), spec }])?;
        }
        self.find_collection(name)?
            .ok_or_else(|| Error::internal(format!("collection {name} vanished as it was made")))
    }

    /// Gets a collection if it exists.
    pub fn find_collection(&self, name: &str) -> Result<Option<Collection>> {
        self.engine().check_open()?;
        let view = self.engine().view.load();
        Ok(view
            .names
            .get(name)
            .and_then(|id| view.collections.get(id))
            .map(|def| Collection::new(self.clone(), def)))
    }

    /// All collections by name.
    pub fn collections(&self) -> Result<Vec<CollectionInfo>> {
        self.engine().check_open()?;
        let view = self.engine().view.load_full();
        let mut all = Vec::new();
        for (name, id) in &view.names {
            if let Some(def) = view.collections.get(id) {
                all.push(CollectionInfo {
                    name: name.to_string(),
                    spec: def.spec.clone(),
                    created: def.created,
                    entries: view.entries(*id)?,
                });
            }
        }
        Ok(all)
    }

    /// Removes a collection and everything in it; false when there is none.
    pub fn drop_collection(&self, name: &str) -> Result<bool> {
        match self.find_collection(name)? {
            None => Ok(false),
            Some(collection) => {
                self.run(vec![Step::Drop { collection: collection.id() }])?;
                Ok(true)
            }
        }
    }

    /// Writes a batch and returns when it is durable as asked: one receipt per entry step.
    pub fn write(&self, batch: Batch) -> Result<Vec<Receipt>> {
        let engine = self.engine();
        engine.write(batch.into_request(engine.store_id, engine.options.durability)?)
    }

    /// Queues a batch; the promise resolves when it is durable as asked.
    pub fn submit(&self, batch: Batch) -> Result<Promise> {
        let engine = self.engine();
        engine.submit(batch.into_request(engine.store_id, engine.options.durability)?)
    }

    /// Returns when every write acknowledged so far, `Buffer` ones included, is on disk.
    pub fn sync(&self) -> Result<()> {
        let (steps, durability) = (Vec::new(), Durability::Sync);
        self.engine().write(Request { steps, durability, deadline: None, bytes: 0 })?;
        Ok(())
    }

    /// Carries what the log holds into the archive and gives the log's room back. Happens by
    /// itself; call it before a copy, or to have the next open replay nothing.
    pub fn checkpoint(&self) -> Result<CheckpointReport> {
        self.engine().checkpoint()
    }

    /// Moves entries down, the least important first, until no more than 60 % of the budget is counted;
    /// what proved important goes up while there is room. Happens by itself above 80 %. Nothing is
    /// deleted or changed: every entry stays exact in the archive. Reads and writes go on.
    ///
    /// Cost: one pass over 128 bytes an entry, and codes written for what enters Level 1. If more than a
    /// thirty-second of a large collection is in no cell, its cells are made anew: 57 bytes are written, and some
    /// 10 us spent, for each entry of 384 values.
    pub fn compress(&self) -> Result<CompressReport> {
        self.compress_with(Policy::default())
    }

    /// The same by another policy.
    pub fn compress_with(&self, policy: Policy) -> Result<CompressReport> {
        self.engine().compress(policy)
    }

    /// What [`Store::compress`] would do now. Changes nothing.
    pub fn plan(&self) -> Result<CompressReport> {
        self.plan_with(Policy::default())
    }

    /// What [`Store::compress_with`] would do now. Changes nothing.
    pub fn plan_with(&self, policy: Policy) -> Result<CompressReport> {
        self.engine().plan(policy)
    }

    /// Packs Level 1 anew from the archive: every block is written again, without dead rows.
    pub fn recompress(&self) -> Result<CompressReport> {
        self.engine().recompress()
    }

    /// Gives the bytes of removed and replaced entries back to the disk, and removes entries
    /// whose time passed more than 24 hours of running time ago. Reads and writes go on.
    pub fn vacuum(&self) -> Result<VacuumReport> {
        self.engine().vacuum()
    }

    /// Checks the files; never writes. Damage is reported, not returned as an error.
    pub fn verify(&self, depth: Depth) -> Result<VerifyReport> {
        let engine = self.engine();
        engine.check_open()?;
        // Nothing moves between files while they are compared.
        let _quiet = engine.maintenance.lock();
        let (view, log) = {
            // Writers wait for the log alone, which holds no more than a quarter of the budget.
            let _still = engine.wal.lock();
            let view = engine.view.load_full();
            let log = verify::log(&*engine.disk, engine.store_id, &view);
            (view, log)
        };
        verify::run(&*engine.disk, engine.store_id, &view, depth, log)
    }

    /// Sizes, counts, places.
    pub fn stats(&self) -> Result<Stats> {
        self.engine().check_open()?;
        stats::gather(self.engine())
    }

    /// Bytes kept resident because of the data: [`Stats::counted_bytes`] alone, at next to no cost.
    pub fn counted_bytes(&self) -> Result<u64> {
        self.engine().check_open()?;
        Ok(self.engine().counted_bytes())
    }

    /// A setting of the store.
    pub fn setting(&self, name: &str) -> Result<Option<Value>> {
        self.engine().check_open()?;
        Ok(self.engine().view.load().settings.get(name).cloned())
    }

    /// All settings by name.
    pub fn settings(&self) -> Result<Vec<(String, Value)>> {
        self.engine().check_open()?;
        let view = self.engine().view.load();
        Ok(view.settings.iter().map(|(n, v)| (n.to_string(), v.clone())).collect())
    }

    /// Sets a setting durably; null removes it. `budget_bytes` takes effect at once, these with the next
    /// run of the compressor:
    ///
    /// - `weights`: `[recency, frequency, semantic]`, each 0 or more, together 1 (0.4, 0.3, 0.3);
    /// - `half_life_s`: seconds in which recency halves, 1 or more (7 days);
    /// - `age`: `activity`, counted back from the newest event, or `wall`, from now (`activity`);
    /// - `rho`: share of the entries that is protected, above 0 and up to 1 (0.2).
    ///
    /// `NAME.COLLECTION` holds for one collection. Other names are the caller's own. Errors with `Invalid`
    /// when one of these takes no such value.
    pub fn set_setting(&self, name: &str, value: Value) -> Result<()> {
        check_name(name)?;
        check_value(name, &value)?;
        let engine = self.engine();
        let before = engine.budget_bytes();
        let budget = match (name, &value) {
            (BUDGET_SETTING, Value::Null) => default_budget_bytes(),
            (BUDGET_SETTING, value) => budget_of(value)?,
            _ => before,
        };
        engine.check_writable()?;
        // A larger one first: a store that is full has no room for the record that says so.
        if budget > before {
            engine.use_budget(budget)?;
        }
        let written = self.run(vec![Step::Set { name: name.to_owned(), value }]);
        let kept = if written.is_ok() { budget } else { before };
        if kept != engine.budget_bytes() {
            engine.use_budget(kept)?;
        }
        written.map(drop)
    }

    /// Changes the memory budget, for this process at once and for later opens durably. At least
    /// 1 MiB.
    pub fn set_budget(&self, bytes: u64) -> Result<()> {
        self.set_setting(BUDGET_SETTING, Value::from(bytes))
    }

    /// Writes what is queued, closes cleanly and says what failed. Other handles get `Closed`
    /// from then on; calls that are already reading finish.
    pub fn close(self) -> Result<()> {
        self.engine().close()
    }
}

fn budget_of(value: &Value) -> Result<u64> {
    let bytes = value.as_u64().ok_or_else(|| {
        Error::invalid(format!("{BUDGET_SETTING} takes a number of bytes, not {value}"))
    })?;
    check_budget(bytes)?;
    Ok(bytes)
}

/// A setting is stored as text: what cannot be read back from it is refused.
fn check_value(name: &str, value: &Value) -> Result<()> {
    let text = value.to_string();
    if text.len() > limits::ATTRIBUTES_BYTES_MAX {
        return Err(Error::invalid(format!(
            "setting {name} has {} bytes; the limit is {}",
            text.len(),
            limits::ATTRIBUTES_BYTES_MAX
        )));
    }
    if serde_json::from_str::<Value>(&text).is_err() {
        return Err(Error::invalid(format!("setting {name} is nested too deep")));
    }
    if value.is_null() { Ok(()) } else { rule::check(name, value) }
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > limits::NAME_BYTES_MAX || name.contains('\0') {
        return Err(Error::invalid(format!(
            "name {name:?} takes 1 to {} bytes without NUL",
            limits::NAME_BYTES_MAX
        )));
    }
    Ok(())
}
