//! Keys that came lately are moved to where they stay behind a checkpoint: no part of it, and nothing is lost by it.
//!
//! The budget is the least one, so that the index moves them in stretches with commits of their own. Every call to
//! the disk in these fails once: the checkpoint stands, the index is opened again, and all entries are found.

use std::ops::Range;
use std::sync::Arc;

use pmll::io::sim::{Fault, SimDisk};
use pmll::{Batch, Depth, Draft, ErrorKind, Store};

use crate::support::{ManualClock, Model, assert_same, dump, open, try_dump};

/// Entries of a checkpoint.
const ENTRIES: u64 = 100;

fn put(store: &Store, round: u64) {
    let notes = store.collection("notes").unwrap();
    let mut batch = Batch::new();
    for n in round * ENTRIES..(round + 1) * ENTRIES {
        let key = format!("{:08x}", (n as u32).wrapping_mul(0x9E37_79B1));
        batch = batch.put(&notes, key, Draft::text(format!("note {n}")));
    }
    store.write(batch).unwrap();
}

/// The calls of a checkpoint that are of the index alone and behind all others.
fn calls_behind(disk: &SimDisk, clock: &Arc<ManualClock>) -> Range<u64> {
    let store = open(disk, clock);
    disk.record();
    store.checkpoint().unwrap();
    let run = disk.recording().unwrap();
    let is_index = |op: &u64| run.describe(*op).contains("index.redb");
    let behind = (run.first_op()..run.end_op()).rev().take_while(is_index).last();
    behind.unwrap_or(run.end_op())..run.end_op()
}

/// A store that died, whose next checkpoint has keys moved behind it, what is in it, and which calls move them.
fn before_a_move(clock: &Arc<ManualClock>) -> (SimDisk, Model, Range<u64>) {
    let mut disk = SimDisk::new(7);
    for round in 0..60 {
        let store = open(&disk, clock);
        store.checkpoint().unwrap();
        put(&store, round);
        let all = dump(&store);
        // As it was killed: a close would make the checkpoint.
        disk = disk.fork_now();
        drop(store);
        let calls = calls_behind(&disk.fork_now(), clock);
        // With three stretches or so.
        if calls.end - calls.start > 40 {
            return (disk, all, calls);
        }
    }
    panic!("no checkpoint had keys moved behind it");
}

#[test]
fn what_fails_behind_a_checkpoint_is_no_error_of_it() {
    let clock = ManualClock::new();
    let (disk, all, calls) = before_a_move(&clock);
    let mut failed = 0;
    for fault in Fault::ALL {
        for op in calls.clone() {
            let disk = disk.fork_now();
            let store = open(&disk, &clock);
            disk.fail_at(op, fault, false);
            let context = format!("{fault:?} at {op}");
            let report = store.checkpoint().unwrap_or_else(|e| panic!("{context}: {e}"));
            assert_eq!(report.entries, ENTRIES, "{context}");
            // A call that does not fit the fault passes it on; the last ones to nobody.
            failed += disk.fault_counts()[0].0;
            disk.clear_faults();
            let found = try_dump(&store).or_else(|error| {
                let kinds = [ErrorKind::Io, ErrorKind::Full, ErrorKind::Corrupt];
                assert!(kinds.contains(&error.kind()), "{context}: {error}");
                try_dump(&store)
            });
            assert_same(&found.unwrap(), &all, &context);
            put(&store, 100);
            store.checkpoint().unwrap_or_else(|e| panic!("{context}, the next one: {e}"));
            let report = store.verify(Depth::Deep).unwrap();
            assert!(report.is_whole(), "{context}: {:?}", report.problems);
            let notes = store.collection("notes").unwrap();
            assert_eq!(notes.count(None).unwrap(), all.len() as u64 + ENTRIES, "{context}");
        }
    }
    assert!(failed > 100, "{failed} calls failed");
}
