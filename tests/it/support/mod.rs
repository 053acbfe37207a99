//! What the tests of the store share: a clock that is moved by hand, a plain map that stands for
//! the whole content of a store, small inputs from a seed, and ways to open one.
//!
//! The map ([`Model`]) is the specification: whatever a store went through, [`dump`] of it must be
//! the map that the same calls made of an empty one. `dump` reads through paged scans, the way a
//! caller would, and so sees what a caller sees: no expired entries, none of dropped collections.
//!
//! Never: reads the machine's clock or its randomness. A failing test names its seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use pmll::io::Disk;
use pmll::{
    Clock, Collection, Draft, Entry, EntryId, Lsn, Options, Patch, Result, Scan, Store, Timestamp,
};
use serde_json::{Map, Value};

pub(crate) mod disks;
pub(crate) mod hooks;
pub(crate) mod sections;

/// A clock that stands still until it is told to move.
#[derive(Debug)]
pub(crate) struct ManualClock {
    wall_us: AtomicI64,
    elapsed_us: AtomicU64,
}

/// Where the wall clock of a test begins: 2026-11-21T00:00:00Z.
pub(crate) const START: Timestamp = Timestamp(1_795_219_200_000_000);

impl ManualClock {
    /// A clock at [`START`].
    pub(crate) fn new() -> Arc<ManualClock> {
        Arc::new(ManualClock { wall_us: AtomicI64::new(START.0), elapsed_us: AtomicU64::new(0) })
    }

    /// Sets the wall clock alone, either way: somebody corrected it.
    pub(crate) fn set_now(&self, now: Timestamp) {
        self.wall_us.store(now.0, Ordering::SeqCst);
    }

    /// Lets time pass on both clocks.
    pub(crate) fn advance(&self, by: Duration) {
        let us = u64::try_from(by.as_micros()).unwrap();
        self.elapsed_us.fetch_add(us, Ordering::SeqCst);
        self.wall_us.fetch_add(i64::try_from(us).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall_us.load(Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.elapsed_us.load(Ordering::SeqCst))
    }
}

/// Collection, namespace and key of an entry.
pub(crate) type Path = (String, String, Vec<u8>);

/// The whole content of a store.
pub(crate) type Model = BTreeMap<Path, ModelEntry>;

/// An entry without what is soft (access counts) and what depends on where it stands (its tier).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ModelEntry {
    pub(crate) id: EntryId,
    pub(crate) version: Lsn,
    pub(crate) payload: Vec<u8>,
    pub(crate) vector: Option<Vec<f32>>,
    pub(crate) attributes: Map<String, Value>,
    pub(crate) at: Timestamp,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) session: Option<String>,
    pub(crate) sequence: Option<u64>,
    pub(crate) salience: Option<f32>,
    pub(crate) pinned: bool,
}

impl ModelEntry {
    /// What an entry read from a store amounts to.
    pub(crate) fn of(entry: Entry) -> ModelEntry {
        ModelEntry {
            id: entry.id,
            version: entry.version,
            payload: entry.payload,
            vector: entry.vector,
            attributes: entry.attributes,
            at: entry.at,
            created: entry.created,
            updated: entry.updated,
            expires: entry.expires,
            session: entry.session,
            sequence: entry.sequence,
            salience: entry.salience,
            pinned: entry.pinned,
        }
    }

    /// What a put makes of a draft, given what stood under the key before.
    pub(crate) fn put(
        draft: &Draft,
        old: Option<&ModelEntry>,
        now: Timestamp,
        (id, version): (EntryId, Lsn),
    ) -> ModelEntry {
        ModelEntry {
            id,
            version,
            payload: draft.payload.clone(),
            vector: draft.vector.clone(),
            attributes: draft.attributes.clone(),
            at: draft.at.unwrap_or(now),
            created: old.map_or(now, |old| old.created),
            updated: now,
            expires: draft.expires.or_else(|| draft.ttl.map(|ttl| now.plus(ttl))),
            session: draft.session.clone(),
            sequence: draft.sequence,
            salience: draft.salience,
            pinned: draft.pinned.unwrap_or(old.is_some_and(|old| old.pinned)),
        }
    }

    /// What an update makes of it.
    pub(crate) fn update(&mut self, patch: &Patch, now: Timestamp, version: Lsn) {
        let patch = patch.clone();
        self.version = version;
        self.updated = now;
        self.payload = patch.payload.unwrap_or_else(|| std::mem::take(&mut self.payload));
        self.vector = patch.vector.unwrap_or_else(|| self.vector.take());
        for (name, value) in patch.attributes {
            if value.is_null() {
                self.attributes.shift_remove(&name);
            } else {
                self.attributes.insert(name, value);
            }
        }
        self.at = patch.at.unwrap_or(self.at);
        self.expires = patch.expires.unwrap_or(self.expires);
        self.session = patch.session.unwrap_or_else(|| self.session.take());
        self.salience = patch.salience.unwrap_or(self.salience);
        self.pinned = patch.pinned.unwrap_or(self.pinned);
    }

    /// Whether its time has passed.
    pub(crate) fn expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// Everything a caller can see in a store.
pub(crate) fn dump(store: &Store) -> Model {
    try_dump(store).expect("a whole store can be read")
}

/// The same where reading may fail.
pub(crate) fn try_dump(store: &Store) -> Result<Model> {
    let mut all = Model::new();
    for info in store.collections()? {
        let collection = store.find_collection(&info.name)?.expect("it was listed");
        for entry in pages(&collection, &Scan::new().limit(50).with_vector(true))? {
            let path = path_of(&info.name, &entry);
            let again = all.insert(path.clone(), ModelEntry::of(entry));
            assert!(again.is_none(), "a scan gave {path:?} twice");
        }
    }
    Ok(all)
}

/// Collection, namespace and key of an entry that was read.
pub(crate) fn path_of(collection: &str, entry: &Entry) -> Path {
    let (namespace, key) = (entry.namespace.as_str(), entry.key.as_bytes());
    (collection.to_owned(), namespace.to_owned(), key.to_vec())
}

/// All pages of a scan, one after the other.
pub(crate) fn pages(collection: &Collection, scan: &Scan) -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    let mut page = collection.scan(scan.clone())?;
    loop {
        all.append(&mut page.entries);
        match page.cursor {
            Some(cursor) => page = collection.scan(scan.clone().cursor(cursor))?,
            None => return Ok(all),
        }
    }
}

/// Says where two contents differ instead of printing both.
pub(crate) fn assert_same(found: &Model, expected: &Model, context: &str) {
    for (path, entry) in expected {
        match found.get(path) {
            None => panic!("{context}: {path:?} (entry {}) is missing", entry.id),
            Some(other) => assert_eq!(other, entry, "{context}: {path:?} differs"),
        }
    }
    for (path, entry) in found {
        assert!(expected.contains_key(path), "{context}: {path:?} should not be there: {entry:?}");
    }
}

/// The least budget and no thread of its own, so that checkpoints come often and a run repeats.
pub(crate) fn tiny() -> Options {
    Options { budget_bytes: Some(1 << 20), background: false, ..Options::default() }
}

/// Opens with [`tiny`] settings.
pub(crate) fn open<D: Disk + Clone + 'static>(disk: &D, clock: &Arc<ManualClock>) -> Store {
    try_open(disk, clock, tiny()).expect("the store opens")
}

/// Opens with any settings.
pub(crate) fn try_open<D: Disk + Clone + 'static>(
    disk: &D,
    clock: &Arc<ManualClock>,
    options: Options,
) -> Result<Store> {
    let clock: Arc<dyn Clock> = clock.clone();
    Store::builder("test").disk(Arc::new(disk.clone())).clock(clock).options(options).open()
}

/// Small numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    /// The next 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.bits() % end as u64).unwrap()
    }

    /// A vector of values in [-1, 1).
    pub(crate) fn vector(&mut self, dim: usize) -> Vec<f32> {
        (0..dim).map(|_| (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    /// Some words.
    pub(crate) fn text(&mut self, words: usize) -> String {
        const WORDS: [&str; 8] =
            ["violin", "harbour", "Caroline", "seven", "of", "the", "evening", "\u{fc}ber"];
        let words: Vec<&str> = (0..words).map(|_| WORDS[self.below(WORDS.len())]).collect();
        words.join(" ")
    }

    /// Bytes that do not compress.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.bits().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}
