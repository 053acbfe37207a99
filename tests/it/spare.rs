//! Codes that searches keep are spare: they are counted, and nothing else has to make room for them.
//!
//! Two stores take the same writes under a budget that fills up; one is searched all the while. It
//! counts more, never more than the budget, and its compressor runs when that of the other one does.

use pmll::io::sim::SimDisk;
use pmll::{Batch, CountAccess, Draft, Options, Query, Store};

use crate::support::{ManualClock, Rng, try_open};

const DIM: usize = 64;
const BUDGET_BYTES: u64 = 12 << 20;
/// Entries of a batch.
const ENTRIES: usize = 250;

fn open(disk: &SimDisk) -> Store {
    let options = Options {
        background: false,
        budget_bytes: Some(BUDGET_BYTES),
        cells_rows_min: u64::MAX,
        ..Options::default()
    };
    try_open(disk, &ManualClock::new(), options).unwrap()
}

fn put(store: &Store, batch: usize) {
    let notes = store.collection("notes").unwrap();
    let mut rng = Rng(batch as u64 + 1);
    let mut all = Batch::new();
    for n in 0..ENTRIES {
        let draft = Draft::text("a note of some length").vector(rng.vector(DIM));
        all = all.put(&notes, format!("{batch}-{n}"), draft);
    }
    store.write(all).unwrap();
    store.checkpoint().unwrap();
}

fn search(store: &Store) {
    let notes = store.collection("notes").unwrap();
    let mut rng = Rng(99);
    for _ in 0..20 {
        let query = Query::vector(rng.vector(DIM)).count_access(CountAccess::None);
        assert_eq!(notes.search_ids(query).unwrap().len(), 10);
    }
}

#[test]
fn codes_that_searches_keep_move_no_entry_and_keep_no_write_out() {
    let (searched, other) = (SimDisk::new(1), SimDisk::new(2));
    let (searched, other) = (open(&searched), open(&other));
    let (mut kept_bytes_max, mut part_max) = (0, 0.0_f64);
    let (mut other_bytes, mut was_next, mut hot_after_run) = (0, false, [None; 2]);
    for batch in 0.. {
        put(&searched, batch);
        put(&other, batch);
        let (a, b) = (searched.stats().unwrap(), other.stats().unwrap());
        assert!(a.counted_bytes <= BUDGET_BYTES * 8 / 10, "batch {batch}: {}", a.counted_bytes);
        // What else searches need in RAM, sketches above all, is not spare: it may start a run a batch earlier.
        let next_bytes = 2 * b.counted_bytes - other_bytes;
        let is_next = a.compressor.runs == 1 && next_bytes > BUDGET_BYTES * 8 / 10;
        let (a_runs, b_runs) = (a.compressor.runs, b.compressor.runs);
        assert!(
            a_runs == b_runs || (is_next && !was_next),
            "batch {batch}: {a_runs} and {b_runs} runs"
        );
        (other_bytes, was_next) = (b.counted_bytes, a_runs != b_runs);
        for (hot, stats) in hot_after_run.iter_mut().zip([&a, &b]) {
            if stats.compressor.runs > 0 {
                hot.get_or_insert(stats.tiers[0].entries);
            }
        }
        if let [Some(a_hot), Some(b_hot)] = hot_after_run {
            // What a run moves depends on the last kilobyte.
            assert!(a_hot.abs_diff(b_hot) * 20 < b_hot, "batch {batch}: {a_hot} and {b_hot}");
            break;
        }
        // Fewer rows are compared exactly. Once the trigger is near, there are only writes: what was kept
        // is still there then.
        if batch * ENTRIES > 2048 && b.counted_bytes < BUDGET_BYTES * 72 / 100 {
            search(&searched);
            let counted_bytes = searched.stats().unwrap().counted_bytes;
            kept_bytes_max = kept_bytes_max.max(counted_bytes - b.counted_bytes);
            part_max = part_max.max(counted_bytes as f64 / BUDGET_BYTES as f64);
        }
    }
    assert!(kept_bytes_max > 400_000, "{kept_bytes_max}");
    // Beyond the target of a run, and never up to where one begins.
    assert!((0.7..0.8).contains(&part_max), "{part_max}");
}
