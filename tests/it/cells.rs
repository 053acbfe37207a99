//! Cells: sketches grouped by nearness cost no answer, whatever becomes of their file or their rows.
//!
//! A store of 4,000 entries in 40 heaps is grouped as soon as it is archived. Searches that look into a
//! part of the cells are held against exact ones: while rows come and go, after their segments are merged,
//! after opening again, and with a damaged file of cells, or another store's.

use pmll::io::sim::SimDisk;
use pmll::io::{Disk, OpenMode};
use pmll::{
    Batch, Clock, CollectionSpec, CountAccess, Depth, Draft, Exactness, Filter, Metric, Options,
    Query, Store,
};

use crate::support::{ManualClock, Rng, sections, try_open};

const DIM: usize = 32;
const HEAPS: usize = 40;
const ENTRIES: usize = 4000;
/// The kind of section that codes are in, as docs/FORMAT.md numbers them.
const CODES: u8 = 8;

fn open_with(disk: &SimDisk, budget_bytes: u64, read_only: bool) -> Store {
    let options = Options {
        background: false,
        budget_bytes: Some(budget_bytes),
        cells_rows_min: 3000,
        read_only,
        ..Options::default()
    };
    try_open(disk, &ManualClock::new(), options).unwrap()
}

fn open(disk: &SimDisk) -> Store {
    open_with(disk, 64 << 20, false)
}

/// A vector of a heap.
fn vector(heap: usize, rng: &mut Rng) -> Vec<f32> {
    let middle = Rng(1000 + heap as u64).vector(DIM);
    middle.iter().zip(rng.vector(DIM)).map(|(m, x)| m + 0.6 * x).collect()
}

fn fill(store: &Store, from: usize, to: usize) {
    let notes = store.collection("notes").unwrap();
    let mut rng = Rng(from as u64 + 3);
    let mut batch = Batch::new();
    for n in from..to {
        let draft = Draft::text(format!("{n}")).vector(vector(n % HEAPS, &mut rng));
        batch = batch.put(&notes, format!("k{n}"), draft.attr("heap", n % HEAPS));
    }
    store.write(batch).unwrap();
    store.checkpoint().unwrap();
}

/// Of the ten nearest to each of 200 questions, which part a search finds.
fn recall(store: &Store, exactness: Exactness) -> f64 {
    let mut rng = Rng(77);
    let questions = (0..200).map(|n| vector(n % HEAPS, &mut rng));
    recall_of(store, questions, exactness, None)
}

/// The same of other questions, with a filter that lets all pass: no filter is answered by a part of the cells.
fn recall_of(
    store: &Store,
    questions: impl Iterator<Item = Vec<f32>>,
    exactness: Exactness,
    filter: Option<&Filter>,
) -> f64 {
    let notes = store.collection("notes").unwrap();
    let (mut found, mut of) = (0, 0);
    for question in questions {
        let ids = |exactness| -> Vec<u64> {
            let mut query = Query::vector(question.clone()).exactness(exactness);
            if let Some(filter) = filter {
                query = query.filter(filter.clone());
            }
            let near = notes.search_ids(query.count_access(CountAccess::None)).unwrap();
            assert!(near.damaged().is_empty(), "{:?}", near.damaged());
            near.iter().map(|near| near.id.0).collect()
        };
        let (exact, got) = (ids(Exactness::Exact), ids(exactness));
        assert_eq!((exact.len(), got.len()), (10, 10));
        found += exact.iter().filter(|id| got.contains(id)).count();
        of += exact.len();
    }
    f64::from(found as u32) / f64::from(of as u32)
}

fn finds_all_it_should(store: &Store) {
    for (target, least) in [(0.999, 0.995), (0.99, 0.985), (0.9, 0.9)] {
        let recall = recall(store, Exactness::Target(target));
        assert!(recall >= least, "{recall} where {target} was asked for");
    }
    for (target, least) in [(0.99, 0.98), (0.95, 0.945), (0.9, 0.9)] {
        let recall = recall(store, Exactness::Codes(target));
        assert!(recall >= least, "{recall} where {target} of codes was asked for");
    }
    assert!(store.verify(Depth::Deep).unwrap().is_whole());
}

fn cells(disk: &SimDisk) -> Vec<String> {
    disk.file_names().into_iter().filter(|name| name.ends_with(".cel")).collect()
}

fn grouped() -> SimDisk {
    let disk = SimDisk::new(5);
    let store = open(&disk);
    fill(&store, 0, ENTRIES);
    store.close().unwrap();
    assert_eq!(cells(&disk).len(), 1);
    disk
}

#[test]
fn a_part_of_the_cells_gives_the_recall_that_was_asked_for() {
    let disk = grouped();
    finds_all_it_should(&open(&disk));
    // The smallest budget: no body has room in RAM, and few codes.
    finds_all_it_should(&open_with(&disk, 1 << 20, false));
}

/// A grouped store of as many vectors as `vectors` gives.
fn grouped_of(vectors: impl Iterator<Item = Vec<f32>>) -> Store {
    let disk = SimDisk::new(8);
    let store = open(&disk);
    let notes = store.collection("notes").unwrap();
    let batch = vectors.enumerate().fold(Batch::new(), |batch, (n, vector)| {
        batch.put(&notes, format!("k{n}"), Draft::text("x").vector(vector).attr("all", 1))
    });
    store.write(batch).unwrap();
    store.checkpoint().unwrap();
    assert_eq!(cells(&disk).len(), 1);
    store
}

#[test]
fn few_dimensions_and_no_heaps_cost_no_recall() {
    // The fewer the dimensions, the nearer do sketches make the best look. How many they lose themselves is another
    // matter: the same search through all cells says.
    let all = Filter::parse(r#"{"all": 1}"#).unwrap();
    for dim in [8, 16, 64] {
        let mut rng = Rng(dim as u64);
        let store = grouped_of((0..10_000).map(|_| rng.vector(dim)));
        for exactness in [Exactness::Target, Exactness::Codes] {
            let found = [0.99, 0.95, 0.9].map(|target| {
                let recall = |filter| {
                    let mut rng = Rng(99);
                    let questions = (0..200).map(|_| rng.vector(dim));
                    recall_of(&store, questions, exactness(target), filter)
                };
                let (part, whole) = (recall(None), recall(Some(&all)));
                let least = whole - f64::from(1.0 - target) - 0.005;
                let of = exactness(target);
                assert!(part >= least, "{part} where all cells give {whole}, {of:?}, {dim} values");
                part
            });
            // Who asks for less has less looked at.
            assert!(found.is_sorted_by(|a, b| a > b), "{found:?}, {dim} values");
        }
    }
}

#[test]
fn a_question_from_the_other_side_is_answered_as_well() {
    // All cosines are negative: nothing was measured there, so all cells are looked into.
    let positive =
        |rng: &mut Rng| -> Vec<f32> { rng.vector(DIM).iter().map(|x| x.abs()).collect() };
    let mut rng = Rng(4);
    let store = grouped_of((0..ENTRIES).map(|_| positive(&mut rng)));
    let questions = (0..100).map(|_| positive(&mut rng).iter().map(|x| -x).collect());
    let recall = recall_of(&store, questions, Exactness::Target(0.99), None);
    assert!(recall >= 0.97, "{recall}");
}

#[test]
fn cells_that_the_last_owner_had_no_time_for_are_made_after_an_open() {
    let disk = SimDisk::new(7);
    let options = Options { budget_bytes: Some(64 << 20), ..Options::default() };
    let hasty = Options { background: false, cells_rows_min: u64::MAX, ..options.clone() };
    let store = try_open(&disk, &ManualClock::new(), hasty).unwrap();
    fill(&store, 0, ENTRIES);
    store.close().unwrap();
    assert!(cells(&disk).is_empty());
    let options = Options { cells_rows_min: 3000, ..options };
    let store = try_open(&disk, &ManualClock::new(), options).unwrap();
    let begun = std::time::Instant::now();
    while cells(&disk).is_empty() {
        assert!(begun.elapsed().as_secs() < 60, "no cells");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    store.close().unwrap();
}

#[test]
fn a_run_that_was_asked_for_puts_the_last_rows_into_cells_too() {
    let disk = grouped();
    let store = open(&disk);
    let before = cells(&disk);
    // Less than a quarter, more than a thirty-second.
    fill(&store, ENTRIES, ENTRIES + ENTRIES / 16);
    assert_eq!(
        cells(&disk),
        before,
        "a checkpoint leaves them to the sketches that the archive has"
    );
    store.compress().unwrap();
    let after = cells(&disk);
    assert!(after.len() == 1 && after != before, "{after:?}");
    // Now nothing is missing.
    store.compress().unwrap();
    assert_eq!(cells(&disk), after);
    finds_all_it_should(&store);
}

#[test]
fn a_search_of_what_is_all_in_ram_reads_nothing() {
    let disk = SimDisk::new(6);
    let store = open(&disk);
    let notes = store.collection("notes").unwrap();
    let soon = ManualClock::new().now().plus(std::time::Duration::from_secs(60));
    let mut batch = Batch::new();
    let mut rng = Rng(3);
    for n in 0..ENTRIES {
        let draft = Draft::text(format!("{n}")).vector(vector(n % HEAPS, &mut rng));
        let draft = if n % 7 == 0 { draft.expires(soon) } else { draft };
        batch = batch.put(&notes, format!("k{n}"), draft);
    }
    store.write(batch).unwrap();
    store.checkpoint().unwrap();
    let stats = store.stats().unwrap();
    assert_eq!(stats.tiers[0].resident, ENTRIES as u64);
    // The first searches find out what is where.
    finds_all_it_should(&store);
    let (before, mut rng) = (disk.read_count(), Rng(78));
    for n in 0..100 {
        let query = Query::vector(vector(n % HEAPS, &mut rng)).count_access(CountAccess::None);
        assert_eq!(notes.search_ids(query).unwrap().len(), 10);
    }
    assert_eq!(disk.read_count() - before, 0);
}

#[test]
fn a_read_only_store_goes_by_them_and_writes_nothing() {
    let disk = grouped();
    let before = disk.file_names();
    finds_all_it_should(&open_with(&disk, 64 << 20, true));
    assert_eq!(disk.file_names(), before);
}

#[test]
fn rows_that_come_and_go_are_found_and_not_found() {
    let disk = grouped();
    let store = open(&disk);
    let notes = store.collection("notes").unwrap();
    // In no cell, and too few to group anew.
    fill(&store, ENTRIES, ENTRIES + 500);
    let first = cells(&disk);
    finds_all_it_should(&store);
    // Superseded in RAM, then in the archive; deleted.
    let mut rng = Rng(11);
    for n in (0..ENTRIES).step_by(9) {
        let draft = Draft::text("moved").vector(vector((n + 1) % HEAPS, &mut rng));
        notes.put(format!("k{n}"), draft).unwrap();
    }
    (1..ENTRIES).step_by(13).for_each(|n| assert!(notes.delete(format!("k{n}")).unwrap()));
    finds_all_it_should(&store);
    store.checkpoint().unwrap();
    finds_all_it_should(&store);
    assert_eq!(cells(&disk), first, "still good enough");
    store.close().unwrap();
    let store = open(&disk);
    finds_all_it_should(&store);
    // As much again: now they are made anew, and the old file goes.
    fill(&store, ENTRIES + 500, 2 * ENTRIES);
    let second = cells(&disk);
    assert!(second.len() == 1 && second != first, "{second:?}");
    finds_all_it_should(&store);
    // Their segments are merged into others.
    store.vacuum().unwrap();
    finds_all_it_should(&store);
    store.compress().unwrap();
    finds_all_it_should(&store);
}

#[test]
fn the_best_of_those_that_are_left_are_found() {
    let disk = grouped();
    let notes = open(&disk).collection("notes").unwrap();
    // A heap of its own, tighter than what a sketch tells apart from the rest.
    let middle = Rng(9).vector(DIM);
    let mut rng = Rng(10);
    for n in 0..16 {
        let near: Vec<f32> =
            middle.iter().zip(rng.vector(DIM)).map(|(m, x)| m + 0.02 * x).collect();
        notes.put(format!("near{n}"), Draft::text("near").vector(near)).unwrap();
    }
    let store = open_again(&disk, notes);
    let notes = store.collection("notes").unwrap();
    for n in [1, 4, 6, 7, 11] {
        assert!(notes.delete(format!("near{n}")).unwrap());
    }
    for k in [1, 2, 5, 10, 11, 12, 16, 100, 101] {
        let ids = |exactness| -> Vec<u64> {
            let query = Query::vector(middle.clone()).exactness(exactness).k(k);
            notes.search_ids(query).unwrap().iter().map(|near| near.id.0).collect()
        };
        let (exact, got) = (ids(Exactness::Exact), ids(Exactness::Target(0.99)));
        assert_eq!((exact.len(), got.len()), (k, k));
        assert_eq!(got[..k.min(11)], exact[..k.min(11)], "k = {k}");
    }
}

/// The store closed and opened again, all of it archived.
fn open_again(disk: &SimDisk, notes: pmll::Collection) -> Store {
    drop(notes);
    let store = open(disk);
    store.checkpoint().unwrap();
    store
}

#[test]
fn damage_that_a_search_meets_is_met_once() {
    let disk = grouped();
    let name = cells(&disk).remove(0);
    let len = disk.durable_bytes(&name).unwrap().len() as u64;
    disk.flip_bit(&name, len - 2, 2).unwrap();
    let store = open(&disk);
    assert!(recall(&store, Exactness::Target(0.99)) >= 0.985);
    // One checkpoint later they are made anew.
    fill(&store, 0, 1);
    let second = cells(&disk);
    assert!(second.len() == 1 && second[0] != name, "{second:?}");
    finds_all_it_should(&store);
}

#[test]
fn a_budget_that_has_no_room_for_them_has_none() {
    let disk = SimDisk::new(5);
    let store = open_with(&disk, 8 << 20, false);
    let notes = store.collection("notes").unwrap();
    // 40,000 references take 160 KB, more than an eighth of a MiB.
    let mut batch = Batch::new();
    for n in 0..40_000 {
        let angle = n as f32;
        let draft = Draft::text("").vector([angle.sin(), angle.cos()]);
        batch = batch.put(&notes, format!("k{n}"), draft);
        if n % 500 == 499 {
            store.write(std::mem::replace(&mut batch, Batch::new())).unwrap();
        }
    }
    store.checkpoint().unwrap();
    assert_eq!(cells(&disk).len(), 1);
    store.set_budget(1 << 20).unwrap();
    assert!(cells(&disk).is_empty(), "they are let go of");
    drop(notes);
    store.close().unwrap();
    let store = open_with(&disk, 1 << 20, false);
    let notes = store.collection("notes").unwrap();
    notes.put("one more", Draft::text("").vector([1.0, 0.0])).unwrap();
    store.checkpoint().unwrap();
    assert!(cells(&disk).is_empty(), "and not made again");
}

#[test]
fn a_filter_is_answered_whole_through_cells() {
    let disk = grouped();
    let notes = open(&disk).collection("notes").unwrap();
    let mut rng = Rng(5);
    for filter in [r#"{"heap": 3}"#, r#"{"heap": {"$lt": 20}}"#] {
        let question = vector(3, &mut rng);
        let ids = |exactness| -> Vec<u64> {
            let query = Query::vector(question.clone()).exactness(exactness).k(20);
            let query = query.filter(Filter::parse(filter).unwrap());
            notes.search_ids(query).unwrap().iter().map(|near| near.id.0).collect()
        };
        let (exact, got) = (ids(Exactness::Exact), ids(Exactness::Target(0.99)));
        assert_eq!(exact.len(), 20);
        let missing = exact.iter().filter(|id| !got.contains(id)).count();
        assert!(missing <= 1, "{filter}: {missing} of 20");
    }
}

#[test]
fn damage_to_cells_costs_time_and_no_answer() {
    let disk = grouped();
    let name = cells(&disk).remove(0);
    let len = disk.durable_bytes(&name).unwrap().len() as u64;
    for at in [9, 60, 130, 4000, len / 2, len - 2] {
        let disk = disk.fork_now();
        disk.flip_bit(&name, at, 2).unwrap();
        let store = open(&disk);
        let recall = recall(&store, Exactness::Target(0.99));
        assert!(recall >= 0.985, "byte {at}: {recall}");
        let whole = store.verify(Depth::Deep).unwrap();
        let told = whole.problems.iter().any(|problem| problem.file == name);
        // What an open meets is left out with a warning; what it does not read, verify names.
        assert!(told || !store.stats().unwrap().warnings.is_empty(), "byte {at}");
        drop(store);
    }
}

#[test]
fn a_group_with_damaged_codes_is_no_reason_to_make_the_same_cells_again() {
    let disk = grouped();
    let store = open(&disk);
    fill(&store, ENTRIES, ENTRIES + ENTRIES / 8);
    store.close().unwrap();
    let last = disk.file_names().into_iter().filter(|name| name.starts_with("archive/")).max();
    let last = last.unwrap();
    let (at, len) = sections::of(&disk, &last, CODES);
    disk.flip_bit(&last, at + len / 2, 3).unwrap();
    let store = open(&disk);
    let before = cells(&disk);
    store.compress().unwrap();
    let made = cells(&disk);
    assert!(made.len() == 1 && made != before, "{made:?}");
    store.compress().unwrap();
    assert_eq!(cells(&disk), made);
    let recall = recall(&store, Exactness::Target(0.99));
    assert!(recall >= 0.985, "{recall}");
}

#[test]
fn cells_of_another_store_or_of_no_collection_are_left_out() {
    let (disk, other) = (grouped(), SimDisk::new(6));
    let store = open(&other);
    fill(&store, 1, ENTRIES + 1);
    store.close().unwrap();
    let (own, foreign) = (cells(&disk).remove(0), cells(&other).remove(0));
    let bytes = other.durable_bytes(&foreign).unwrap();
    disk.remove(&own).unwrap();
    let file = disk.open(&own, OpenMode::CreateNew).unwrap();
    file.write_at(&bytes, 0).unwrap();
    file.sync().unwrap();
    let store = open(&disk);
    assert!(!store.stats().unwrap().warnings.is_empty());
    finds_all_it_should(&store);
    // The next checkpoint makes them anew.
    fill(&store, 0, 1);
    assert_eq!(cells(&disk).len(), 1);
    store.drop_collection("notes").unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();
    drop(open(&disk));
    assert!(cells(&disk).is_empty());
}

#[test]
fn other_metrics_have_none() {
    let disk = SimDisk::new(8);
    let store = open(&disk);
    let spec = CollectionSpec::new().metric(Metric::Dot);
    store.collection_with("notes", spec).unwrap();
    fill(&store, 0, ENTRIES);
    assert!(cells(&disk).is_empty());
}
