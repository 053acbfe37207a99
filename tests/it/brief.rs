//! Brief codes: where a budget has room for three bits of each row, searches read little and find as much.
//!
//! Two stores take the same writes: 8,000 entries, two values of which are the same in all and far larger than the
//! others, as some models make them. One has room for everything; the budget of the other has room for brief codes of
//! all rows, and not for whole ones. Both are asked the same: as they are, and after entries were written over,
//! deleted, and went out of date.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pmll::io::sim::SimDisk;
use pmll::{Batch, Clock, Collection, CountAccess, Draft, Exactness, Near, Options, Query, Store};

use crate::support::{ManualClock, Rng, sections, try_open};

const DIM: usize = 64;
const HEAPS: usize = 80;
const ENTRIES: usize = 8000;
const QUESTIONS: usize = 200;
// Kinds of sections, as docs/FORMAT.md numbers them.
const CODES: u8 = 8;
const SKETCHES: u8 = 9;
/// Bytes of a row's codes and its id: of 8 bits, and of 3 with what stands beside a piece of them.
const WHOLE_BYTES: u64 = 4 + 8 + 64 + 4;
const BRIEF_BYTES: u64 = 12 + 16 + 8 + 4 + 1;

/// A vector of a heap, with the two values that all share.
fn vector(heap: usize, rng: &mut Rng) -> Vec<f32> {
    let middle = Rng(1000 + heap as u64).vector(DIM);
    let mut vector: Vec<f32> =
        middle.iter().zip(rng.vector(DIM)).map(|(m, x)| m + 0.6 * x).collect();
    (vector[5], vector[40]) = (6.0, -4.0);
    vector
}

fn open(disk: &SimDisk, clock: &Arc<ManualClock>, budget_bytes: u64) -> Store {
    open_with(disk, clock, budget_bytes, u64::MAX)
}

fn open_with(
    disk: &SimDisk,
    clock: &Arc<ManualClock>,
    budget_bytes: u64,
    cells_rows_min: u64,
) -> Store {
    let budget_bytes = Some(budget_bytes);
    let options = Options { background: false, budget_bytes, cells_rows_min, ..Options::default() };
    try_open(disk, clock, options).unwrap()
}

fn put(store: &Store, numbers: impl Iterator<Item = usize>, seed: u64, clock: &ManualClock) {
    let notes = store.collection("notes").unwrap();
    let mut batch = Batch::new();
    for n in numbers {
        let mut rng = Rng(seed * 1_000_000 + n as u64);
        let draft = Draft::text(format!("{n}"));
        let draft = draft.vector(vector((n + seed as usize) % HEAPS, &mut rng));
        let soon = clock.now().plus(Duration::from_secs(60));
        let draft = if n % 13 == 0 { draft.expires(soon) } else { draft };
        batch = batch.put(&notes, format!("k{n}"), draft);
    }
    store.write(batch).unwrap();
    store.checkpoint().unwrap();
}

fn ask(notes: &Collection, n: usize, exactness: Exactness) -> Vec<Near> {
    let question = vector(n % HEAPS, &mut Rng(5000 + n as u64));
    let query = Query::vector(question).exactness(exactness).count_access(CountAccess::None);
    let near = notes.search_ids(query).unwrap();
    assert!(near.damaged().is_empty(), "{:?}", near.damaged());
    near.iter().copied().collect()
}

/// Holds the answers of a store against those of one that has room for everything.
fn compare(small: &Store, large: &Store) {
    let notes = [small, large].map(|store| store.collection("notes").unwrap());
    let [small, large] = &notes;
    let (mut found, mut expected, mut coded) = (0, 0, 0);
    for n in 0..QUESTIONS {
        let got = ask(small, n, Exactness::Target(0.99));
        let exact = ask(large, n, Exactness::Exact);
        assert_eq!(got.len(), 10);
        assert!(got.iter().all(|near| near.exact && near.bits == 32));
        // Whatever is answered is an answer, with its score: those among the true ones have theirs.
        for near in &got {
            if let Some(same) = exact.iter().find(|same| same.id == near.id) {
                assert_eq!(near.score, same.score);
            }
            assert!(small.get_id(near.id).unwrap().is_some(), "{:?}", near.id);
            assert!(near.score <= exact[0].score);
        }
        let is_true = |near: &&Near| exact.iter().any(|same| same.id == near.id);
        found += got.iter().filter(is_true).count();
        expected += ask(large, n, Exactness::Target(0.99)).iter().filter(is_true).count();
        let codes = ask(small, n, Exactness::Codes(0.99));
        // Three bits are nobody's score; what stands in RAM has its own.
        assert!(codes.iter().all(|near| near.bits == if near.exact { 32 } else { 8 }), "{codes:?}");
        coded += codes.iter().filter(|near| !near.exact).count();
    }
    assert!(coded > QUESTIONS, "{coded}");
    // What the candidates of either miss hangs on the means of their groups.
    assert!(found * 100 >= expected * 99, "{found} of the true ones, the other {expected}");
}

#[test]
fn a_store_without_room_for_codes_answers_like_one_with_room_for_all() {
    let clock = ManualClock::new();
    let (disk, other) = (SimDisk::new(3), SimDisk::new(4));
    let (small, large) = (open(&disk, &clock, 3 << 20), open(&other, &clock, 64 << 20));
    for store in [&small, &large] {
        for from in (0..ENTRIES).step_by(500) {
            put(store, from..from + 500, 0, &clock);
        }
        store.compress().unwrap();
    }
    let rows = ENTRIES as u64;
    let notes = small.collection("notes").unwrap();
    // The first ones have sketches and a piece kept each.
    let first = disk.read_count();
    ask(&notes, 0, Exactness::Target(0.99));
    let first = disk.read_count() - first;
    let counted_bytes = small.stats().unwrap().counted_bytes;
    (0..20).for_each(|n| drop(ask(&notes, n, Exactness::Target(0.99))));
    let kept_bytes = small.stats().unwrap().counted_bytes - counted_bytes;
    assert!(kept_bytes >= rows * BRIEF_BYTES * 7 / 8, "{kept_bytes}");
    assert!(kept_bytes < rows * WHOLE_BYTES * 7 / 8, "{kept_bytes}");
    let later = disk.read_count();
    (0..20).for_each(|n| drop(ask(&notes, n, Exactness::Target(0.99))));
    let later = (disk.read_count() - later) / 20;
    assert!(later < 100 && first > 300, "{later} reads a search, {first} of the first");
    compare(&small, &large);

    // Some are written over, elsewhere, and go to the archive; then pieces are kept again, and more are written over,
    // deleted, and go out of date, which the rows that these are of do not know.
    for store in [&small, &large] {
        put(store, (0..ENTRIES).filter(|n| n % 10 == 3), 7, &clock);
        store.compress().unwrap();
    }
    (0..20).for_each(|n| drop(ask(&notes, n, Exactness::Target(0.99))));
    let best: Vec<_> = (0..60).map(|n| ask(&notes, n, Exactness::Target(0.99))[0].id).collect();
    let best: BTreeSet<_> = best
        .into_iter()
        .map(|id| notes.get_id(id).unwrap().unwrap().key.as_bytes().to_vec())
        .collect();
    for store in [&small, &large] {
        let notes = store.collection("notes").unwrap();
        for (n, key) in best.iter().enumerate() {
            match n % 2 {
                0 => drop(notes.delete(key).unwrap()),
                _ => {
                    let far = vector(n + HEAPS / 2, &mut Rng(n as u64));
                    notes.put(key, Draft::text("elsewhere").vector(far)).unwrap();
                }
            }
        }
    }
    compare(&small, &large);
    clock.advance(Duration::from_secs(3600));
    compare(&small, &large);
}

#[test]
fn what_cannot_be_kept_as_it_is_damaged_costs_no_answer() {
    let (clock, disk) = (ManualClock::new(), SimDisk::new(5));
    let store = open_with(&disk, &clock, 3 << 20, 1000);
    for from in (0..ENTRIES).step_by(500) {
        put(&store, from..from + 500, 0, &clock);
    }
    store.compress().unwrap();
    let notes = store.collection("notes").unwrap();
    let exact: Vec<_> = (0..QUESTIONS).map(|n| ask(&notes, n, Exactness::Exact)).collect();
    let answers = |store: &Store| {
        let notes = store.collection("notes").unwrap();
        let mut found = 0;
        for (n, exact) in exact.iter().enumerate() {
            // `ask` sees to it that nothing is said to be missing.
            let got = ask(&notes, n, Exactness::Target(0.99));
            assert!(got.len() == 10 && got.iter().all(|near| near.exact));
            found += got.iter().filter(|near| exact.iter().any(|e| e.id == near.id)).count();
        }
        found
    };
    let before = answers(&store);
    store.close().unwrap();
    // Cells have sketches of their own: nobody needs the mean for those.
    assert!(disk.file_names().iter().any(|name| name.ends_with(".cel")));
    // Of one segment in three the mean that brief codes are without, of one codes here and there.
    let names = disk.file_names().into_iter().filter(|name| name.starts_with("archive/"));
    let names: Vec<String> = names.collect();
    assert!(names.len() > 3, "{names:?}");
    for (nth, name) in names.iter().enumerate() {
        if nth % 3 == 0 {
            disk.flip_bit(name, sections::of(&disk, name, SKETCHES).0 + 7, 3).unwrap();
        } else if nth % 3 == 1 {
            let (offset, len) = sections::of(&disk, name, CODES);
            (100..len).step_by(4096).for_each(|at| disk.flip_bit(name, offset + at, 3).unwrap());
        }
    }
    // Nothing is hot after an open without a background thread: whole codes would have room in what there was.
    let store = open_with(&disk, &clock, 1 << 20, 1000);
    assert!(answers(&store) * 100 >= before * 99);
    // The same with all that could be kept.
    let found = answers(&store);
    assert!(found * 100 >= before * 99, "{found} of {before}");
}
