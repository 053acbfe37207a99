//! Beside each other: writers, readers, searches, the compressor, and a budget that changes.
//!
//! What runs at once must come out as if one had waited for the other: every acknowledged entry is
//! there, the levels are those of the last run, no file is left that nothing uses, and what is
//! counted is what is held.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pmll::io::{Disk, MemoryDisk};
use pmll::{Batch, CountAccess, Depth, Draft, ErrorKind, Options, Query, Store, SystemClock};

use crate::support::disks::GateDisk;
use crate::support::{Rng, dump};

const DIM: usize = 32;

fn open(disk: &MemoryDisk, options: Options) -> Store {
    let disk = std::sync::Arc::new(disk.clone());
    let clock = std::sync::Arc::new(SystemClock::default());
    Store::builder("beside").disk(disk).clock(clock).options(options).open().unwrap()
}

fn budget(bytes: u64) -> Options {
    Options { budget_bytes: Some(bytes), ..Options::default() }
}

/// Puts entries from a seed under keys of one writer.
fn write(store: &Store, writer: u64, entries: std::ops::Range<u64>) {
    let notes = store.collection("notes").unwrap();
    let mut rng = Rng(writer * 1000 + entries.start);
    for n in entries {
        let draft = Draft::text(rng.text(20)).vector(rng.vector(DIM)).attr("n", n);
        notes.put(format!("{writer}-{n}"), draft).unwrap();
    }
}

#[test]
fn runs_beside_writers_leave_what_the_last_run_made() {
    let disk = MemoryDisk::new();
    let store = open(&disk, budget(1 << 20));
    write(&store, 0, 0..1500);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (1..3)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || write(store, writer, 0..1500))
            })
            .collect();
        let done = &done;
        let store = &store;
        scope.spawn(move || {
            let notes = store.collection("notes").unwrap();
            let mut rng = Rng(77);
            while !done.load(Ordering::Acquire) {
                let query = Query::vector(rng.vector(DIM)).count_access(CountAccess::None);
                assert_eq!(notes.search(query).unwrap().len(), 10);
            }
        });
        scope.spawn(move || {
            while !done.load(Ordering::Acquire) {
                store.compress().unwrap();
            }
        });
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Release);
        assert!(ended.iter().all(Result::is_ok));
    });
    store.compress().unwrap();
    let report = store.verify(Depth::Deep).unwrap();
    assert!(report.is_whole(), "{:?}", report.problems);
    let stats = store.stats().unwrap();
    assert_eq!(stats.entries, 4500);
    assert!(stats.counted_bytes <= stats.budget_bytes * 6 / 10, "{stats:?}");
    // A block that a writer's stale view had brought back would be a file more than is counted.
    assert_eq!(stats.disk.arena, stats.tiers[1].bytes, "{:?}", disk.list("arena").unwrap());
    let before = dump(&store);
    store.close().unwrap();
    assert_eq!(dump(&open(&disk, budget(1 << 20))), before);
}

#[test]
fn a_write_under_way_when_a_run_ends_does_not_undo_it() {
    let memory = MemoryDisk::new();
    let arena = GateDisk::of(memory.clone(), "arena/");
    let disk = GateDisk::of(arena.clone(), "wal/");
    let options = Options { background: false, ..budget(1 << 20) };
    let store = Store::builder("beside").disk(std::sync::Arc::new(disk.clone()));
    let store = store.options(options).open().unwrap();
    write(&store, 0, 0..1500);
    store.checkpoint().unwrap();
    std::thread::scope(|scope| {
        arena.close_gate();
        let run = scope.spawn(|| store.compress().unwrap());
        arena.until_somebody_waits();
        // The run has begun; now a writer takes the view, and is held up before it publishes.
        disk.close_gate();
        let writer = scope.spawn(|| write(&store, 1, 0..1));
        disk.until_somebody_waits();
        arena.open_gate();
        assert!(run.join().unwrap().moves > 0);
        disk.open_gate();
        writer.join().unwrap();
    });
    let report = store.verify(Depth::Deep).unwrap();
    assert!(report.is_whole(), "{:?}", report.problems);
    let stats = store.stats().unwrap();
    assert_eq!(stats.disk.arena, stats.tiers[1].bytes, "{:?}", memory.list("arena").unwrap());
    assert!(stats.counted_bytes <= stats.budget_bytes * 7 / 10, "{stats:?}");
}

#[test]
fn batches_beyond_the_logs_share_are_let_in_one_after_the_other() {
    let disk = MemoryDisk::new();
    let store = open(&disk, budget(1 << 20));
    let notes = store.collection("notes").unwrap();
    // Each takes half of the budget, twice the share of the log, while runs go on behind them.
    let mut rng = Rng(11);
    for nth in 0..24 {
        let batch = (0..256).fold(pmll::Batch::new(), |batch, n| {
            let draft = Draft::text(rng.text(10)).vector(rng.vector(384));
            batch.put(&notes, format!("{nth}-{n}"), draft)
        });
        store.write(batch).unwrap();
    }
    store.compress().unwrap();
    let stats = store.stats().unwrap();
    assert_eq!(stats.entries, 24 * 256);
    assert!(stats.counted_bytes <= stats.budget_bytes, "{stats:?}");
}

#[test]
fn a_smaller_budget_is_kept_at_once_whatever_searches_had_filled() {
    let disk = MemoryDisk::new();
    let store = open(&disk, Options { background: false, ..budget(64 << 20) });
    for writer in 0..8 {
        write(&store, writer, 0..2500);
    }
    store.checkpoint().unwrap();
    let notes = store.collection("notes").unwrap();
    let mut rng = Rng(5);
    for n in 0..200 {
        notes.search(Query::vector(rng.vector(DIM))).unwrap();
        notes.get(format!("1-{n}")).unwrap().unwrap();
    }
    assert!(store.stats().unwrap().counted_bytes > 4 << 20);
    store.set_budget(1 << 20).unwrap();
    let stats = store.stats().unwrap();
    assert!(stats.counted_bytes <= 1 << 20, "{stats:?}");
    // And it is written and searched as before.
    write(&store, 9, 0..500);
    assert_eq!(notes.search(Query::vector(rng.vector(DIM))).unwrap().len(), 10);
    assert_eq!(store.stats().unwrap().entries, 20_500);
    assert!(store.verify(Depth::Deep).unwrap().is_whole());
}

#[test]
fn no_write_is_refused_while_something_can_go_down() {
    // What was wrong hung on the moment at which the buffer grew: it showed in every second run or so.
    let dir = tempfile::tempdir().unwrap();
    let store = Store::builder(dir.path().join("s")).options(budget(1 << 20)).open().unwrap();
    let notes = store.collection("notes").unwrap();
    let mut rng = Rng(5);
    for _ in 0..2_500 {
        let mut batch = Batch::new();
        for _ in 0..4 {
            // One in 50 is so large that the log's buffer grows to a fifth of the budget.
            let long =
                if rng.below(50) == 0 { 60_000 + rng.below(140_000) } else { rng.below(900) };
            let draft = Draft::bytes(rng.bytes(long));
            batch = batch.put(&notes, format!("{}", rng.below(1500)), draft);
        }
        store.write(batch).unwrap();
    }
    let stats = store.stats().unwrap();
    assert!(stats.compressor.runs > 0, "nothing had to go down");
}

#[test]
fn the_cap_holds_and_a_store_that_is_stuck_says_so_at_once_and_lets_removals_through() {
    let disk = MemoryDisk::new();
    let wait = Duration::from_secs(20);
    let store = open(&disk, Options { full_wait_max: wait, ..budget(1 << 20) });
    let notes = store.collection("notes").unwrap();
    let mut rng = Rng(1);
    let mut pinned = 0;
    // Pinned entries stay warm with 8 bits: 2,048 values are more than 2 KB each.
    let mut fill = || -> usize {
        let error = loop {
            let draft = Draft::text("pinned").vector(rng.vector(2048)).pinned(true);
            match notes.put(format!("{pinned}"), draft) {
                Ok(_) => pinned += 1,
                Err(error) => break error,
            }
            let counted = store.stats().unwrap().counted_bytes;
            assert!(counted <= 1 << 20, "{counted} bytes after {pinned} entries");
        };
        assert_eq!(error.kind(), ErrorKind::Full);
        pinned
    };
    // What was under way on the background thread may make room for a few more.
    let mut filled = fill();
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let more = fill();
        if more == filled {
            break;
        }
        filled = more;
    }
    let begun = std::time::Instant::now();
    let runs = store.stats().unwrap().compressor.runs;
    for n in 0..50 {
        let draft = Draft::text("one more").vector(rng.vector(2048)).pinned(true);
        assert_eq!(notes.put(format!("more-{n}"), draft).unwrap_err().kind(), ErrorKind::Full);
    }
    let runs = store.stats().unwrap().compressor.runs - runs;
    assert!(runs < 10, "{runs} runs for 50 writes that had no chance");
    assert!(begun.elapsed() < wait, "nobody waits for what does not come");
    store.sync().unwrap();
    for n in 0..pinned / 2 {
        assert!(notes.delete(format!("{n}")).unwrap());
    }
    notes.put("room", Draft::text("again").vector(rng.vector(2048))).unwrap();
}
