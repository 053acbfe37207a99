//! The collection handle: one set of entries with a dimension and a metric.

use std::sync::Arc;

use crate::bytes::promise::Promise;
use crate::controller::pressure::Why;
use crate::face::batch::Batch;
use crate::face::store::Store;
use crate::organs::columns::Access;
use crate::organs::columns::moves::LevelMove;
use crate::pure::filter::Filter;
use crate::tiers::assemble::{self, Want};
use crate::tiers::probe::Scope;
use crate::tiers::{Copy, View};
use crate::verbs::browse::{self, Scan, ScanPage};
use crate::verbs::search::{self, CountAccess, Hits, Near, Query};
use crate::words::entry::{Draft, Entry, Patch, Receipt};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::{CollectionId, EntryId, Key, KeyPath, Lsn, Namespace, Timestamp};
use crate::words::options::{CollectionSpec, Element};
use crate::words::record::CollectionDef;

/// A named set of entries in a store.
///
/// Cheap to clone; keeps its store open. A handle may stand on a namespace: then `get`, `put` and
/// `delete` use exactly that one, `scan`, `count` and `search` cover it and everything below.
///
/// ```
/// # use pmll::{Draft, Namespace, Store};
/// # let dir = tempfile::tempdir()?;
/// let notes = Store::open(dir.path().join("memory"))?.collection("notes")?;
/// let mine = notes.in_namespace(Namespace::new("user/7")?);
/// mine.put("a", Draft::text("hello"))?;
/// assert!(notes.get("a")?.is_none());
/// assert_eq!(notes.count(None)?, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Collection {
    store: Store,
    id: CollectionId,
    name: Arc<str>,
    namespace: Namespace,
}

impl Collection {
    pub(crate) fn new(store: Store, def: &CollectionDef) -> Collection {
        let (id, name) = (def.id, Arc::clone(&def.name));
        Collection { store, id, name, namespace: Namespace::root() }
    }

    pub(crate) fn id(&self) -> CollectionId {
        self.id
    }

    pub(crate) fn store_id(&self) -> [u8; 16] {
        self.store.engine().store_id
    }

    /// What its vectors are made of: settled when it is created, for ever. Of a dropped one nothing is written.
    pub(crate) fn element(&self) -> Element {
        let view = self.store.engine().view.load();
        view.collections.get(&self.id).map_or_else(Element::default, |def| def.spec.element)
    }

    pub(crate) fn path(&self, key: &[u8]) -> Result<KeyPath> {
        let (collection, namespace) = (self.id, self.namespace.clone());
        Ok(KeyPath { collection, namespace, key: Key::new(key)? })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace the handle stands on.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// A handle that stands on a namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: Namespace) -> Collection {
        Collection { namespace, ..self.clone() }
    }

    /// Dimension, metric, element type and model, as settled so far.
    pub fn spec(&self) -> Result<CollectionSpec> {
        Ok(self.def(&*self.view()?)?.spec.clone())
    }

    /// Settles the model's name. Errors with `Invalid`, naming both, when it is another already.
    pub fn set_model(&self, model: &str) -> Result<()> {
        self.store.collection_with(&self.name, CollectionSpec::new().model(model))?;
        Ok(())
    }

    fn view(&self) -> Result<Arc<View>> {
        self.store.engine().check_open()?;
        Ok(self.store.engine().view.load_full())
    }

    fn def(&self, view: &View) -> Result<Arc<CollectionDef>> {
        view.collections.get(&self.id).cloned().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("collection {} was dropped", self.name))
        })
    }

    fn now(&self) -> Timestamp {
        self.store.engine().clock.now()
    }

    fn access(&self, id: EntryId) -> Access {
        self.store.engine().columns.get(id)
    }

    fn one(&self, batch: Batch) -> Result<Receipt> {
        let receipts = self.store.write(batch)?;
        receipts.first().copied().ok_or_else(|| Error::internal("a write returned no receipt"))
    }

    /// Inserts or replaces. Id, creation time, access count and pin of an existing entry survive;
    /// version and update time change. Returns when it is durable.
    pub fn put(&self, key: impl AsRef<[u8]>, draft: Draft) -> Result<Receipt> {
        self.one(Batch::new().put(self, key, draft))
    }

    /// Inserts; `Exists` when the key is taken.
    pub fn insert(&self, key: impl AsRef<[u8]>, draft: Draft) -> Result<Receipt> {
        self.one(Batch::new().insert(self, key, draft))
    }

    /// Inserts under a key made of the new entry's id.
    pub fn add(&self, draft: Draft) -> Result<(Key, Receipt)> {
        let receipt = self.one(Batch::new().add(self, draft))?;
        Ok((Key::new(format!("id-{}", receipt.id))?, receipt))
    }

    /// Replaces exactly this version; with `None`, inserts only if absent. `Exists` otherwise.
    pub fn put_if(
        &self,
        key: impl AsRef<[u8]>,
        version: Option<Lsn>,
        draft: Draft,
    ) -> Result<Receipt> {
        self.one(Batch::new().put_if(self, key, version, draft))
    }

    /// Changes some fields; `NotFound` when there is no entry.
    pub fn update(&self, key: impl AsRef<[u8]>, patch: Patch) -> Result<Receipt> {
        self.one(Batch::new().update(self, key, patch))
    }

    /// Queues a put; the promise resolves when it is durable.
    pub fn submit_put(&self, key: impl AsRef<[u8]>, draft: Draft) -> Result<Promise> {
        self.store.submit(Batch::new().put(self, key, draft))
    }

    /// Removes; false when there is no entry.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.one(Batch::new().delete(self, key))?.removed)
    }

    /// Pins (never demoted below int8) or unpins; false when there is no entry.
    pub fn pin(&self, key: impl AsRef<[u8]>, pinned: bool) -> Result<bool> {
        match self.update(key, Patch::default().pinned(pinned)) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Counts one access without reading; false when there is no entry.
    pub fn touch(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.store.engine().check_writable()?;
        let found = self.live(&*self.view()?, key.as_ref())?;
        if let Some(copy) = &found {
            self.count_access(copy);
        }
        Ok(found.is_some())
    }

    fn count_access(&self, copy: &Copy) {
        if !self.store.engine().options.read_only {
            self.store.engine().columns.touch(copy.id(), self.now());
            self.store.engine().save_columns_if_due();
        }
    }

    /// The live, unexpired copy under a key.
    fn live(&self, view: &View, key: &[u8]) -> Result<Option<Copy>> {
        self.def(view)?;
        let now = self.now();
        let copy = view.get(&self.path(key)?)?;
        Ok(copy.filter(|copy| !copy.expired(now)))
    }

    fn read(&self, view: &View, key: &[u8], want: Want, counts: bool) -> Result<Option<Entry>> {
        let Some(copy) = self.live(view, key)? else { return Ok(None) };
        if counts {
            self.count_access(&copy);
        }
        let def = self.def(view)?;
        assemble::entry(view, &copy, &def, &|id| self.access(id), want).map(Some)
    }

    /// The entry under a key, whole and exact. Counts one access.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Entry>> {
        let want = Want { vector: true, payload: true };
        self.read(&*self.view()?, key.as_ref(), want, true)
    }

    /// The entry of this collection, and of this namespace or below, with an identity: what
    /// [`Collection::search_ids`] answers. Whole and exact; counts one access.
    pub fn get_id(&self, id: EntryId) -> Result<Option<Entry>> {
        let view = self.view()?;
        let def = self.def(&view)?;
        let Some(copy) = view.copy(id)?.filter(|copy| copy.collection() == Some(self.id)) else {
            return Ok(None);
        };
        let access = |id| self.access(id);
        if !self.scope(&view, &def, &access).admits(&copy, None, None)? {
            return Ok(None);
        }
        self.count_access(&copy);
        let want = Want { vector: true, payload: true };
        assemble::entry(&view, &copy, &def, &access, want).map(Some)
    }

    /// Several entries as of one moment, in the order of the keys. Counts one access each.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Entry>>> {
        let view = self.view()?;
        let want = Want { vector: true, payload: true };
        keys.iter().map(|key| self.read(&view, key.as_ref(), want, true)).collect()
    }

    /// The entry under a key without its vector. Counts no access.
    pub fn peek(&self, key: impl AsRef<[u8]>) -> Result<Option<Entry>> {
        let want = Want { vector: false, payload: true };
        self.read(&*self.view()?, key.as_ref(), want, false)
    }

    /// Whether there is an entry under a key. Counts no access.
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.live(&*self.view()?, key.as_ref())?.is_some())
    }

    /// Why an entry stands where it stands: score, rank, threshold, and what would move it. Counts no
    /// access. `None` when there is no entry. Writes of the log that are not archived yet are
    /// archived first, as only what is archived has a rank; a read-only store answers `None` for them.
    ///
    /// Cost: a pass over 128 bytes an entry of the store.
    pub fn why(&self, key: impl AsRef<[u8]>) -> Result<Option<Why>> {
        let engine = self.store.engine();
        let Some(copy) = self.live(&*self.view()?, key.as_ref())? else { return Ok(None) };
        if !engine.options.read_only && self.view()?.shadows(copy.id()) {
            engine.archive_all()?;
        }
        engine.why(copy.id())
    }

    /// The last moves of an entry between levels, oldest first. Counts no access. A store remembers
    /// its newest moves, at most 4,096 over all entries, so there may be none of an entry that moved.
    pub fn moves(&self, key: impl AsRef<[u8]>) -> Result<Vec<LevelMove>> {
        let found = self.live(&*self.view()?, key.as_ref())?;
        let moved = self.store.engine().moved.lock();
        Ok(found.map(|copy| moved.of(copy.id())).unwrap_or_default())
    }

    /// A page of entries in the order of (namespace, key), or against it. Counts no access.
    pub fn scan(&self, scan: Scan) -> Result<ScanPage> {
        let view = self.view()?;
        let def = self.def(&view)?;
        browse::scan(&self.scope(&view, &def, &|id| self.access(id)), &scan)
    }

    /// Number of unexpired entries, all or those that match. Counts no access.
    pub fn count(&self, filter: Option<&Filter>) -> Result<u64> {
        let view = self.view()?;
        let def = self.def(&view)?;
        browse::count(&self.scope(&view, &def, &|id| self.access(id)), filter)
    }

    fn scope<'a>(
        &'a self,
        view: &'a View,
        def: &'a CollectionDef,
        access: assemble::Accesses<'a>,
    ) -> Scope<'a> {
        let (namespace, now) = (&self.namespace, self.now());
        Scope { view, def, namespace, now, access, stores: self.store.engine().stores() }
    }

    /// The entries nearest to a query, over all tiers, best first.
    pub fn search(&self, query: impl Into<Query>) -> Result<Hits> {
        let (view, query) = (self.view()?, query.into());
        let def = self.def(&view)?;
        let hits = search::run(&self.scope(&view, &def, &|id| self.access(id)), &query)?;
        self.remember(&query, hits.iter().map(|hit| (hit.entry.id, hit.cosine)));
        Ok(hits)
    }

    /// The same without reading the entries: for callers who go on choosing, by other scores or
    /// with other stores, and then read a few by [`Collection::get_id`]. An entry that cannot be read
    /// is among the answers here, and an error there. Counts accesses like a search.
    ///
    /// Cost: less than a search by one read of the archive and its decompression for each hit that is
    /// not in RAM.
    pub fn search_ids(&self, query: impl Into<Query>) -> Result<Hits<Near>> {
        let (view, query) = (self.view()?, query.into());
        let def = self.def(&view)?;
        let hits = search::run_ids(&self.scope(&view, &def, &|id| self.access(id)), &query)?;
        self.remember(&query, hits.iter().map(|near| (near.id, near.cosine)));
        Ok(hits)
    }

    /// What a search teaches, about its hits and what it missed: soft state, in RAM.
    fn remember(&self, query: &Query, hits: impl Iterator<Item = (EntryId, Option<f32>)>) {
        let engine = self.store.engine();
        engine.make_pieces_if_wanted();
        if engine.options.read_only {
            return;
        }
        let now = self.now();
        let counted = match query.count_access {
            CountAccess::None => 0,
            CountAccess::Top1 => 1,
            CountAccess::All => usize::MAX,
        };
        let hits: Vec<_> = hits.collect();
        hits.iter().take(counted).for_each(|(id, _)| engine.columns.touch(*id, now));
        engine
            .columns
            .resemble(hits.iter().filter_map(|(id, cosine)| Some((*id, (*cosine)?))), now);
        engine.save_columns_if_due();
    }

    /// Several searches as of one moment, in the order of the queries.
    pub fn search_many(&self, queries: &[Query]) -> Result<Vec<Hits>> {
        let view = self.view()?;
        let def = self.def(&view)?;
        let access = |id| self.access(id);
        let scope = self.scope(&view, &def, &access);
        let mut all = Vec::with_capacity(queries.len());
        for query in queries {
            let hits = search::run(&scope, query)?;
            self.remember(query, hits.iter().map(|hit| (hit.entry.id, hit.cosine)));
            all.push(hits);
        }
        Ok(all)
    }
}
