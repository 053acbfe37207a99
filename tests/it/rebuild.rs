//! Everything but the log and the archive is derived: a store that lost its index, its columns and
//! its arena, or got an old index back, is the same store.
//!
//! Each test makes a history (several segments, replaced and deleted entries, reused keys, dropped
//! collections, settings, namespaces, large payloads), notes what a caller sees, takes derived
//! files away while the store is closed, and opens it again: the same ids, keys and values, no
//! deleted entry back, no old version on top, no id given twice. A crash in the middle of such an
//! opening is only another thing to recover from.

use std::sync::Arc;

use pmll::io::sim::{Limits, Profile, SimDisk};
use pmll::io::{Disk, MemoryDisk, OpenMode, read_whole};
use pmll::{
    Batch, CollectionSpec, Depth, Draft, Element, EntryId, ErrorKind, Metric, Namespace, Patch,
    Store,
};
use serde_json::{Value, json};

use crate::support::{ManualClock, Model, Rng, assert_same, dump, open, tiny, try_open};

const INDEX: &str = "index.redb";
const DERIVED_FOLDERS: [&str; 2] = ["columns", "arena"];

/// What of a closed store is taken away.
fn forget_derived(disk: &dyn Disk) {
    match disk.remove(INDEX) {
        Ok(()) => {}
        Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::NotFound),
    }
    for folder in DERIVED_FOLDERS {
        for name in disk.list(folder).unwrap() {
            disk.remove(&format!("{folder}/{name}")).unwrap();
        }
    }
}

fn index_of(disk: &dyn Disk) -> Vec<u8> {
    read_whole(disk, INDEX, 1 << 30).unwrap()
}

fn put_back(disk: &dyn Disk, index: &[u8]) {
    let file = disk.open(INDEX, OpenMode::ReadWrite).unwrap();
    file.set_len(0).unwrap();
    file.write_at(index, 0).unwrap();
    file.sync().unwrap();
}

/// What must be the same afterwards.
#[derive(Clone, Debug)]
struct Seen {
    entries: Model,
    settings: Vec<(String, Value)>,
    specs: Vec<(String, CollectionSpec, u64)>,
    last_lsn: pmll::Lsn,
}

fn look(store: &Store) -> Seen {
    let listed = store.collections().unwrap();
    Seen {
        entries: dump(store),
        settings: store.settings().unwrap(),
        specs: listed.into_iter().map(|info| (info.name, info.spec, info.entries)).collect(),
        last_lsn: store.stats().unwrap().last_lsn,
    }
}

fn assert_unchanged(store: &Store, before: &Seen, context: &str) {
    let after = look(store);
    assert_same(&after.entries, &before.entries, context);
    assert_eq!(after.settings, before.settings, "{context}");
    assert_eq!(after.specs, before.specs, "{context}");
    assert_eq!(after.last_lsn, before.last_lsn, "{context}");
    let report = store.verify(Depth::Deep).unwrap();
    assert!(report.is_whole(), "{context}: {:?}", report.problems);
    assert_eq!(report.entries, before.entries.len() as u64, "{context}");
}

/// One chapter of a history; chapter numbers differ in what they replace and remove.
fn chapter(store: &Store, number: u64) {
    let mut rng = Rng(number);
    let notes = store.collection_with("notes", CollectionSpec::new().dim(8)).unwrap();
    let half = CollectionSpec::new().dim(4).element(Element::F16).metric(Metric::L2);
    let halves = store.collection_with("halves", half).unwrap();
    let below = notes.in_namespace(Namespace::new("user/7").unwrap());
    for n in 0..30 {
        let draft = Draft::text(rng.text(12)).vector(rng.vector(8)).attr("chapter", number);
        notes.put(format!("k{}", rng.below(60)), draft).unwrap();
        let draft = Draft::text(rng.text(5)).session("s").sequence(n);
        below.put(format!("k{}", rng.below(40)), draft).unwrap();
        let draft = Draft::bytes(rng.bytes(40)).vector(rng.vector(4));
        halves.put(format!("h{}", rng.below(50)), draft).unwrap();
    }
    for _ in 0..12 {
        notes.delete(format!("k{}", rng.below(60))).unwrap();
        below.delete(format!("k{}", rng.below(40))).unwrap();
    }
    for _ in 0..6 {
        match notes.update(format!("k{}", rng.below(60)), Patch::default().attr("late", number)) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), ErrorKind::NotFound),
        }
    }
    notes.put("large", Draft::bytes(vec![u8::try_from(number).unwrap(); 100_000])).unwrap();
    notes.pin("large", number.is_multiple_of(2)).unwrap();
    store.set_setting("chapter", json!(number)).unwrap();
    store.set_setting(&format!("only-{number}"), json!({ "n": number })).unwrap();
    store.set_setting(&format!("only-{}", number.saturating_sub(2)), Value::Null).unwrap();
    // A collection that lives through one chapter, under a name that comes back.
    let passing = store.collection("passing").unwrap();
    for n in 0..5 {
        passing.put(format!("p{n}"), Draft::text(rng.text(3))).unwrap();
    }
    if number % 3 != 1 {
        store.checkpoint().unwrap();
        store.drop_collection("passing").unwrap();
    }
    let batch = Batch::new().request(number % 2, number).put(&notes, "request", Draft::text("r"));
    store.write(batch).unwrap();
}

/// A history of some chapters with a checkpoint after each.
fn history(
    disk: &(impl Disk + Clone + 'static),
    clock: &Arc<ManualClock>,
    vacuums: &[u64],
) -> Seen {
    let store = open(disk, clock);
    for number in 1..=8 {
        chapter(&store, number);
        store.checkpoint().unwrap();
        if vacuums.contains(&number) {
            store.vacuum().unwrap();
        }
    }
    let seen = look(&store);
    store.close().unwrap();
    seen
}

#[test]
fn a_store_without_its_derived_files_is_the_same_store() {
    for vacuums in [&[][..], &[8], &[4], &[2, 5], &[1, 2, 3, 4, 5, 6, 7, 8]] {
        let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
        let before = history(&disk, &clock, vacuums);
        let segments = disk.list("archive").unwrap().len();
        assert!(segments >= if vacuums.is_empty() { 8 } else { 1 });
        for round in 0..2 {
            forget_derived(&disk);
            let store = open(&disk, &clock);
            let context = format!("vacuums {vacuums:?}, round {round}");
            assert_unchanged(&store, &before, &context);
            assert_eq!(disk.list("archive").unwrap().len(), segments, "{context}");
            store.close().unwrap();
        }
    }
}

#[test]
fn and_so_it_is_with_unarchived_records_in_its_log() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    history(&disk, &clock, &[3]);
    let store = open(&disk, &clock);
    chapter(&store, 9);
    let notes = store.find_collection("notes").unwrap().unwrap();
    notes.delete("k1").unwrap();
    notes.put("k1", Draft::text("a new entry under an old key")).unwrap();
    let before = look(&store);
    assert!(store.stats().unwrap().log_bytes > 0);
    drop(notes);
    store.close().unwrap();
    forget_derived(&disk);
    assert_unchanged(&open(&disk, &clock), &before, "with a log");
}

#[test]
fn what_was_removed_stays_removed_and_ids_are_not_given_twice() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    let notes = store.collection("notes").unwrap();
    let first: Vec<EntryId> =
        (0..20).map(|n| notes.put(format!("k{n}"), Draft::text("old")).unwrap().id).collect();
    store.checkpoint().unwrap();
    for n in 0..20 {
        notes.put(format!("k{n}"), Draft::text("new")).unwrap();
    }
    store.checkpoint().unwrap();
    for n in 0..19 {
        assert!(notes.delete(format!("k{n}")).unwrap());
    }
    // The last id ever given belongs to an entry that nothing but the id counter remembers.
    let last = notes.put("last", Draft::text("gone soon")).unwrap().id;
    notes.delete("last").unwrap();
    store.vacuum().unwrap();
    drop(notes);
    store.close().unwrap();
    forget_derived(&disk);
    let store = open(&disk, &clock);
    let notes = store.find_collection("notes").unwrap().unwrap();
    assert_eq!(notes.count(None).unwrap(), 1);
    let kept = notes.get("k19").unwrap().unwrap();
    assert_eq!((kept.id, kept.text()), (first[19], Some("new")));
    for n in 0..19 {
        assert!(!notes.contains(format!("k{n}")).unwrap(), "k{n} came back");
    }
    assert!(notes.put("next", Draft::text("")).unwrap().id > last);
    assert!(store.drop_collection("notes").unwrap());
    store.checkpoint().unwrap();
    store.close().unwrap();
    forget_derived(&disk);
    let store = open(&disk, &clock);
    assert!(store.collections().unwrap().is_empty());
    assert_eq!(store.collection("notes").unwrap().count(None).unwrap(), 0);
}

/// The removals lie in a small segment that is merged away; what they remove lies in a large one
/// that is not worth rewriting, and would come back without them.
#[test]
fn removals_outlive_the_segment_they_were_written_in() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    let (notes, passing) =
        (store.collection("notes").unwrap(), store.collection("passing").unwrap());
    for n in 0..100 {
        notes.put(format!("k{n}"), Draft::text("one of many")).unwrap();
    }
    for n in 0..5 {
        passing.put(format!("p{n}"), Draft::text("dropped soon")).unwrap();
    }
    store.set_setting("kept", json!("old")).unwrap();
    store.set_setting("removed", json!("old")).unwrap();
    store.write(Batch::new().request(5, 1).put(&notes, "r", Draft::text("1"))).unwrap();
    store.checkpoint().unwrap();
    for n in 0..5 {
        assert!(notes.delete(format!("k{n}")).unwrap());
        notes.put(format!("k{}", 10 + n), Draft::text("replaced")).unwrap();
        notes.put(format!("short-{n}"), Draft::text("makes its segment worth a vacuum")).unwrap();
    }
    assert!(store.drop_collection("passing").unwrap());
    store.set_setting("kept", json!("new")).unwrap();
    store.set_setting("removed", Value::Null).unwrap();
    store.write(Batch::new().request(5, 9).put(&notes, "r", Draft::text("9"))).unwrap();
    store.checkpoint().unwrap();
    for n in 0..5 {
        assert!(notes.delete(format!("short-{n}")).unwrap());
    }
    for round in 0..3 {
        let report = store.vacuum().unwrap();
        assert!(report.rows_moved < 50, "the large segment stays: {report:?}");
        assert!(round > 0 || report.rows_moved >= 6, "the small one is merged: {report:?}");
        notes.put("another", Draft::text("so that there is something to merge")).unwrap();
    }
    let before = look(&store);
    assert_eq!(before.entries.len(), 97);
    drop((notes, passing));
    store.close().unwrap();
    forget_derived(&disk);
    let store = open(&disk, &clock);
    assert_unchanged(&store, &before, "rebuilt");
    let notes = store.collection("notes").unwrap();
    let again = Batch::new().request(5, 9).put(&notes, "r", Draft::text("again"));
    assert!(store.write(again).unwrap().is_empty(), "the request is still known");
}

#[test]
fn a_request_applied_before_is_not_applied_again() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    history(&disk, &clock, &[6]);
    forget_derived(&disk);
    let store = open(&disk, &clock);
    let notes = store.find_collection("notes").unwrap().unwrap();
    for (client, sequence, again) in [(0, 8, true), (0, 2, true), (1, 7, true), (1, 8, false)] {
        let batch = Batch::new().request(client, sequence).put(&notes, "r", Draft::text(""));
        let receipts = store.write(batch).unwrap();
        assert_eq!(receipts.is_empty(), again, "request {sequence} of client {client}");
    }
}

/// Copies of the index are taken after every chapter; each is put back under the final archive.
#[test]
fn an_old_index_is_rolled_forward() {
    for vacuums in [&[][..], &[8], &[4], &[3, 6], &[5, 6, 7, 8]] {
        let (disk, clock) = (SimDisk::new(0), ManualClock::new());
        let mut copies = Vec::new();
        for number in 1..=8 {
            let store = open(&disk, &clock);
            chapter(&store, number);
            if number.is_multiple_of(2) {
                store.checkpoint().unwrap();
            }
            if vacuums.contains(&number) {
                store.vacuum().unwrap();
            }
            store.close().unwrap();
            copies.push(index_of(&disk));
        }
        let store = open(&disk, &clock);
        let before = look(&store);
        store.close().unwrap();
        for (index, copy) in copies.iter().enumerate() {
            let context = format!("vacuums {vacuums:?}, the index of chapter {}", index + 1);
            let disk = disk.fork_now();
            put_back(&disk, copy);
            let store = open(&disk, &clock);
            assert_unchanged(&store, &before, &context);
            // And it goes on from there.
            let fresh = store.collection("fresh").unwrap();
            let id = fresh.insert("f", Draft::text("")).unwrap().id;
            assert!(before.entries.values().all(|entry| entry.id < id), "{context}");
            drop(fresh);
            store.drop_collection("fresh").unwrap();
            store.vacuum().unwrap();
            store.close().unwrap();
            assert_same(&dump(&open(&disk, &clock)), &before.entries, &context);
        }
    }
}

/// Only the small and many are merged: the first segment stays, the later ones become one. An index
/// from before them knows nothing of their rows, which is no sign that they were deleted.
#[test]
fn an_old_index_takes_up_rows_that_were_merged_since() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    let notes = store.collection("notes").unwrap();
    for n in 0..100 {
        notes.put(format!("first-{n}"), Draft::text("kept")).unwrap();
    }
    store.checkpoint().unwrap();
    drop(notes);
    store.close().unwrap();
    let old = index_of(&disk);
    let store = open(&disk, &clock);
    let notes = store.collection("notes").unwrap();
    for n in 0..40 {
        notes.put(format!("second-{n}"), Draft::text("half of them go")).unwrap();
    }
    store.checkpoint().unwrap();
    for n in 0..20 {
        notes.delete(format!("second-{n}")).unwrap();
    }
    let report = store.vacuum().unwrap();
    assert!(report.rows_moved > 0 && report.rows_moved < 100, "{report:?}");
    let before = look(&store);
    drop(notes);
    store.close().unwrap();
    put_back(&disk, &old);
    assert_unchanged(&open(&disk, &clock), &before, "merged since");
}

#[test]
fn a_rebuild_that_is_cut_short_is_begun_again() {
    let (disk, clock) = (SimDisk::new(1), ManualClock::new());
    let before = history(&disk, &clock, &[3, 6]);
    forget_derived(&disk);
    disk.sync_dir("").unwrap();
    disk.sync_dir("columns").unwrap();
    let start = disk.fork_now();
    start.record();
    open(&start, &clock).close().unwrap();
    let run = start.recording().unwrap();
    let limits = Limits { images: 6, ..Limits::default() };
    let mut seen = std::collections::HashSet::new();
    let step = ((run.end_op() - run.first_op()) / 60).max(1);
    let mut op = run.first_op();
    while op < run.end_op() {
        for profile in [Profile::Kill, Profile::Posix] {
            for image in run.distinct_images_at(op, profile, &limits, &mut seen) {
                let context = format!("{} ({})", image.label(), run.describe(op));
                assert_unchanged(&open(&image, &clock), &before, &context);
            }
        }
        op += step;
    }
    assert!(seen.len() > 30, "{} images", seen.len());
}

#[test]
fn a_segment_that_is_lost_is_missed_even_without_an_index() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    history(&disk, &clock, &[3]);
    forget_derived(&disk);
    let names = disk.list("archive").unwrap();
    assert!(names.len() > 2, "{names:?}");
    let (newest, elders) = names.split_last().unwrap();
    for gone in elders {
        let name = format!("archive/{gone}");
        let bytes = read_whole(&disk, &name, 1 << 30).unwrap();
        disk.remove(&name).unwrap();
        let error = try_open(&disk, &clock, tiny()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "without {gone}: {error}");
        assert!(error.to_string().contains(newest), "{error}");
        disk.open(&name, OpenMode::CreateNew).unwrap().write_at(&bytes, 0).unwrap();
    }
    open(&disk, &clock);
}
