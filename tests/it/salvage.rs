//! Salvage: a store that was damaged in every way, carried into a new one.
//!
//! 1. One store is filled: two collections, two archive segments, a log, removals, a dropped collection,
//!    large payloads in both. Every version that was ever acknowledged is remembered.
//! 2. A copy is damaged and salvaged from a disk that refuses every call that would change something.
//! 3. The new store opens and verifies deep; what it holds is what was written, and what it lacks is named.

use std::collections::BTreeMap;
use std::sync::Arc;

use pmll::io::sim::SimDisk;
use pmll::io::{Disk, MemoryDisk};
use pmll::{Batch, Collection, Depth, Draft, ErrorKind, Options, Salvage, SalvageReport, Store};
use serde_json::json;

use crate::support::disks::SealedDisk;
use crate::support::{
    ManualClock, Model, ModelEntry, Path, Rng, assert_same, dump, open, path_of, try_open,
};

/// Every version of every entry that was ever acknowledged.
type History = BTreeMap<Path, Vec<ModelEntry>>;

fn roomy() -> Options {
    Options { budget_bytes: Some(32 << 20), background: false, ..Options::default() }
}

struct Writer {
    collection: Collection,
    history: History,
}

impl Writer {
    fn put(&mut self, key: &str, draft: Draft) {
        self.collection.put(key, draft).unwrap();
        let entry = self.collection.get(key).unwrap().unwrap();
        let path = path_of(self.collection.name(), &entry);
        self.history.entry(path).or_default().push(ModelEntry::of(entry));
    }
}

/// A store with archive and log; everything in it, and everything that ever was.
fn filled() -> (SimDisk, Arc<ManualClock>, Model, History) {
    let (disk, clock) = (SimDisk::new(0), ManualClock::new());
    let store = try_open(&disk, &clock, roomy()).unwrap();
    let mut rng = Rng(11);
    let mut notes =
        Writer { collection: store.collection("notes").unwrap(), history: History::new() };
    let mut plain =
        Writer { collection: store.collection("plain").unwrap(), history: History::new() };
    let mut gone =
        Writer { collection: store.collection("gone").unwrap(), history: History::new() };
    gone.put("a", Draft::text("of a collection that is dropped"));
    store.set_setting("mine", json!({"answer": 42})).unwrap();
    for n in 0..90 {
        let draft = Draft::text(rng.text(12)).vector(rng.vector(16)).attr("n", n);
        notes.put(&format!("k{n}"), draft.session("s").salience(0.5));
        plain.put(&format!("p{n}"), Draft::text(rng.text(6)));
    }
    notes.put("large-archived", Draft::bytes(rng.bytes(300_000)));
    store.checkpoint().unwrap();
    for n in 0..30 {
        notes.put(&format!("k{n}"), Draft::text(rng.text(9)).vector(rng.vector(16)));
        notes.put(&format!("m{n}"), Draft::text(rng.text(9)).vector(rng.vector(16)));
    }
    notes.collection.delete("k60").unwrap();
    plain.collection.delete("p40").unwrap();
    store.drop_collection("gone").unwrap();
    store.write(Batch::new().request(7, 3)).unwrap();
    store.checkpoint().unwrap();
    for n in 0..30 {
        notes.put(&format!("k{}", n + 20), Draft::text(rng.text(9)).vector(rng.vector(16)));
        plain.put(&format!("q{n}"), Draft::text(rng.text(4)));
    }
    notes.put("large-logged", Draft::bytes(rng.bytes(200_000)));
    notes.collection.delete("k7").unwrap();
    plain.put("last", Draft::text("last"));
    let whole = dump(&store);
    let mut history = notes.history;
    history.extend(plain.history);
    history.extend(gone.history);
    drop((notes.collection, plain.collection, gone.collection));
    store.close().unwrap();
    (disk, clock, whole, history)
}

/// Salvages; the source must be as before, the result whole.
#[track_caller]
fn save(disk: &SimDisk, clock: &Arc<ManualClock>) -> (SalvageReport, Store) {
    let (before, sealed) = (disk.image_hash(), SealedDisk::new(disk.clone()));
    let target = MemoryDisk::new();
    let mut salvage = Salvage::on(Arc::new(sealed.clone())).unwrap();
    let surveyed = salvage.survey().unwrap();
    let report = salvage.copy_onto(Arc::new(target.clone())).unwrap();
    assert_eq!((sealed.attempts(), disk.image_hash()), (0, before), "the source was touched");
    assert_eq!((surveyed.lost, surveyed.entries), (report.lost.clone(), report.entries));
    let store = open(&target, clock);
    let verified = store.verify(Depth::Deep).unwrap();
    assert!(verified.is_whole(), "{:?}", verified.problems);
    (report, store)
}

/// A place in a file where these bytes stand.
fn find(disk: &SimDisk, file: &str, bytes: &[u8]) -> u64 {
    let whole = disk.durable_bytes(file).unwrap();
    whole.windows(bytes.len()).position(|part| part == bytes).expect("they are there") as u64
}

fn segments(disk: &SimDisk, folder: &str) -> Vec<String> {
    disk.file_names().into_iter().filter(|name| name.starts_with(folder)).collect()
}

#[test]
fn an_undamaged_store_is_the_same_afterwards() {
    let (disk, clock, whole, _) = filled();
    let (report, store) = save(&disk, &clock);
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.entries, whole.len() as u64);
    assert_same(&dump(&store), &whole, "salvaged");
    assert_eq!(store.setting("mine").unwrap(), Some(json!({"answer": 42})));
    assert_eq!(store.find_collection("notes").unwrap().unwrap().spec().unwrap().dim, Some(16));
    // The history goes on where it was: the request is known, LSNs and ids go up.
    let notes = store.collection("notes").unwrap();
    store.write(Batch::new().put(&notes, "again", Draft::text("x")).request(7, 3)).unwrap();
    assert!(!notes.contains("again").unwrap(), "it was applied before");
    let receipt = notes.put("new", Draft::text("n")).unwrap();
    assert!(whole.values().all(|e| e.version < receipt.version && e.id < receipt.id));
}

#[test]
fn one_flipped_byte_of_the_log_costs_its_batch_alone() {
    let (disk, clock, mut whole, _) = filled();
    let entry = whole.iter().find(|(path, _)| path.2 == b"q11").map(|(_, e)| e.clone()).unwrap();
    let log = segments(&disk, "wal/").pop().unwrap();
    disk.flip_bit(&log, find(&disk, &log, b"q11"), 3).unwrap();
    let error = try_open(&disk, &clock, roomy()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let (report, store) = save(&disk, &clock);
    assert_eq!(report.lost_total, 1, "{report:?}");
    assert_eq!(report.lost[0].file, log);
    assert_eq!(report.lost[0].lsns, Some((entry.version, Some(entry.version))));
    whole.retain(|path, _| path.2 != b"q11");
    assert_same(&dump(&store), &whole, "without the batch");
}

#[test]
fn an_older_version_stands_in_for_a_damaged_one() {
    let (disk, clock, mut whole, history) = filled();
    let (path, newest) = whole.iter().find(|(path, _)| path.2 == b"k3").unwrap();
    let (path, newest) = (path.clone(), newest.clone());
    let vector: Vec<u8> = newest.vector.unwrap().iter().flat_map(|v| v.to_le_bytes()).collect();
    let second = segments(&disk, "archive/").pop().unwrap();
    disk.flip_bit(&second, find(&disk, &second, &vector), 0).unwrap();
    let (report, store) = save(&disk, &clock);
    assert_eq!((report.lost_total, report.older_total), (0, 1), "{report:?}");
    let first = history[&path][0].clone();
    let older = &report.older[0];
    assert_eq!((older.id, older.version, older.damaged), (first.id, first.version, newest.version));
    assert_eq!(older.key.as_ref().unwrap().as_bytes(), b"k3");
    whole.insert(path, first);
    assert_same(&dump(&store), &whole, "with the older version");
}

/// Two collections in each segment, one of them without vectors.
#[test]
fn a_segment_without_its_footer_gives_up_its_rows() {
    for lost in [1, 400, 4096] {
        for (which, file) in segments(&filled().0, "archive/").into_iter().enumerate() {
            let (disk, clock, whole, _) = filled();
            let len = disk.durable_bytes(&file).unwrap().len() as u64;
            // The last byte of the footer is one of a CRC: it may be any.
            disk.flip_bit(&file, len - 33, 5).unwrap();
            if lost > 1 {
                disk.set_bytes(&file, len - 432, &[0xA5; 399]).unwrap();
            }
            if lost == 4096 {
                // The index, which could say whose the rows are, as well as the header.
                disk.set_bytes("index.redb", 0, &[0x5A; 8192]).unwrap();
                disk.set_bytes(&file, 0, &[0xA5; 64]).unwrap();
            }
            assert_eq!(try_open(&disk, &clock, roomy()).unwrap_err().kind(), ErrorKind::Corrupt);
            let (report, store) = save(&disk, &clock);
            let found = dump(&store);
            let context = format!("segment {which}, {lost} bytes: {report:?}");
            if lost == 1 {
                assert!(report.is_complete(), "{context}");
                assert_same(&found, &whole, &context);
            } else if lost == 400 {
                // In the second one the operations before the footer are hit as well.
                assert_eq!(report.is_complete(), which == 0, "{context}");
                assert!(whole.iter().all(|(path, e)| found.get(path) == Some(e)), "{context}");
            } else {
                // A group that no other version of an entry tells the collection of is given up, by name.
                let missing = whole.keys().filter(|path| !found.contains_key(*path)).count();
                assert!(missing as u64 <= report.lost_total, "{context}");
                let notes = whole.iter().filter(|(path, _)| path.0 == "notes");
                assert!(notes.clone().all(|(path, e)| found.get(path) == Some(e)), "{context}");
            }
        }
    }
}

#[test]
fn a_store_without_its_first_file_is_still_known() {
    let (disk, clock, whole, _) = filled();
    disk.remove("store.toml").unwrap();
    disk.sync_dir("").unwrap();
    let (report, store) = save(&disk, &clock);
    assert!(report.is_complete() && !report.notes.is_empty(), "{report:?}");
    assert_same(&dump(&store), &whole, "by a header");
}

#[test]
fn derived_files_do_not_matter() {
    let (disk, clock, whole, _) = filled();
    let mut rng = Rng(5);
    let derived = |name: &String| {
        ["index", "arena/", "columns/"].iter().any(|folder| name.starts_with(folder))
    };
    for name in disk.file_names().iter().filter(|name| derived(name)) {
        let len = disk.durable_bytes(name).unwrap().len();
        disk.set_bytes(name, 0, &rng.bytes(len)).unwrap();
    }
    let (report, store) = save(&disk, &clock);
    assert!(report.is_complete(), "{report:?}");
    assert_same(&dump(&store), &whole, "without derived files");
}

#[test]
fn what_was_removed_stays_removed() {
    let (disk, clock, _, _) = filled();
    let (report, store) = save(&disk, &clock);
    assert!(report.removed >= 3, "{report:?}");
    for (collection, key) in [("notes", "k60"), ("notes", "k7"), ("plain", "p40")] {
        let collection = store.find_collection(collection).unwrap().unwrap();
        assert!(collection.get(key).unwrap().is_none(), "{key}");
    }
    assert!(store.find_collection("gone").unwrap().is_none());
}

/// The log still holds the first half of what the archive was made of.
#[test]
fn what_the_archive_has_the_log_need_not_say_again() {
    let (disk, clock) = (SimDisk::new(0), ManualClock::new());
    let store = try_open(&disk, &clock, roomy()).unwrap();
    let notes = store.collection("notes").unwrap();
    notes.put("brief", Draft::text("written and removed before it was archived")).unwrap();
    let old = segments(&disk, "wal/").pop().unwrap();
    let bytes = disk.durable_bytes(&old).unwrap();
    notes.delete("brief").unwrap();
    notes.put("kept", Draft::text("kept")).unwrap();
    store.checkpoint().unwrap();
    notes.put("later", Draft::text("later")).unwrap();
    let whole = dump(&store);
    drop(notes);
    store.close().unwrap();
    if !segments(&disk, "wal/").contains(&old) {
        let file = disk.open(&old, pmll::io::OpenMode::CreateNew).unwrap();
        file.write_at(&bytes, 0).unwrap();
        file.sync().unwrap();
        disk.sync_dir("wal").unwrap();
    }
    let (report, store) = save(&disk, &clock);
    assert!(report.is_complete(), "{report:?}");
    assert_same(&dump(&store), &whole, "with an old log segment");
}

#[test]
fn a_target_that_is_taken_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let (source, target) = (parent.path().join("source"), parent.path().join("target"));
    let store = Store::open(&source).unwrap();
    store.collection("notes").unwrap().put("a", Draft::text("one")).unwrap();
    assert_eq!(pmll::salvage(&source, &target).unwrap_err().kind(), ErrorKind::Locked);
    store.close().unwrap();
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("other"), "somebody's").unwrap();
    for taken in [&target, &source, &source.join("inside"), &source.join("wal")] {
        let error = pmll::salvage(&source, taken).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{}: {error}", taken.display());
    }
    assert!(!source.join("inside").exists());
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 1);
    let missing = pmll::salvage(parent.path().join("none"), parent.path().join("new"));
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(pmll::salvage(&source, parent.path().join("new")).unwrap().is_complete());
    // While it is being salvaged nobody writes to it.
    let salvage = Salvage::open(&source).unwrap();
    assert_eq!(Store::open(&source).unwrap_err().kind(), ErrorKind::Locked);
    drop(salvage);
    assert_eq!(Store::open(&source).unwrap().collections().unwrap().len(), 1);
}

#[test]
fn whatever_is_flipped_nothing_wrong_is_saved() {
    let (whole_disk, clock, whole, history) = filled();
    let files: Vec<(String, usize)> = whole_disk
        .file_names()
        .into_iter()
        .map(|name| (whole_disk.durable_bytes(&name).unwrap(), name))
        .map(|(bytes, name)| (name, bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1)))
        .filter(|(_, used)| *used > 0)
        .collect();
    let (mut saved, mut incomplete, mut refused) = (0, 0, 0);
    for seed in 0..200 {
        let mut rng = Rng(seed);
        let disk = whole_disk.fork_now();
        for _ in 0..=seed % 4 {
            let (file, used) = &files[rng.below(files.len())];
            let at = rng.below(*used) as u64;
            match rng.below(4) {
                // A sector of garbage.
                0 => {
                    let len = 512.min(used - at as usize);
                    disk.set_bytes(file, at, &rng.bytes(len)).unwrap();
                }
                _ => disk.flip_bit(file, at, u8::try_from(rng.below(8)).unwrap()).unwrap(),
            }
        }
        let target = MemoryDisk::new();
        let salvaged = Salvage::on(Arc::new(SealedDisk::new(disk)))
            .and_then(|mut salvage| salvage.copy_onto(Arc::new(target.clone())));
        let report = match salvaged {
            Ok(report) => report,
            Err(error) => {
                // What store.toml names as its format may be of a newer build.
                assert_eq!(error.kind(), ErrorKind::Version, "seed {seed}: {error}");
                refused += 1;
                continue;
            }
        };
        let store = open(&target, &clock);
        assert!(store.verify(Depth::Deep).unwrap().is_whole(), "seed {seed}");
        let found = dump(&store);
        for (path, entry) in &found {
            let known = history.get(path).is_some_and(|versions| versions.contains(entry));
            assert!(known, "seed {seed}: {path:?} was never so: {entry:?}");
        }
        if report.is_complete() {
            assert_same(&found, &whole, &format!("seed {seed}, said to be complete: {report:?}"));
        } else {
            incomplete += 1;
        }
        saved += found.len();
    }
    assert!(refused < 20 && incomplete > 30, "{refused} {incomplete}");
    let all = whole.len() * (200 - refused);
    assert!(saved * 100 > all * 95, "{saved} of {all}");
}
