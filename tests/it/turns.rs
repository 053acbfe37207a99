//! Turns: who leads when several write at once, what one turn takes, and what a removal that fails costs.
//!
//! A gate before the log holds the leader in its turn, so that others are known to wait behind it.

use std::time::Duration;

use pmll::io::{Disk, MemoryDisk};
use pmll::{Batch, Draft, ErrorKind, Options, Patch, Promise, Store};

use crate::support::disks::GateDisk;
use crate::support::{ManualClock, tiny, try_open};

/// Longer than any turn takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn roomy(background: bool) -> Options {
    Options { budget_bytes: Some(4 << 30), background, ..tiny() }
}

fn gated(options: Options) -> (GateDisk, Store) {
    let gate = GateDisk::of(MemoryDisk::new(), "wal/");
    let store = try_open(&gate, &ManualClock::new(), options).unwrap();
    // The reserve and the collection are there before anybody waits.
    store.collection("notes").unwrap().put("before", Draft::text("0")).unwrap();
    (gate, store)
}

#[test]
fn a_promise_is_seen_through_behind_a_writer_that_leads() {
    let (gate, store) = gated(roomy(true));
    let notes = store.collection("notes").unwrap();
    gate.close_gate();
    std::thread::scope(|scope| {
        scope.spawn(|| notes.put("first", Draft::text("1")).unwrap());
        gate.until_somebody_waits();
        let promise = notes.submit_put("second", Draft::text("2")).unwrap();
        // The store's own thread wants to write it, and waits for the end of the turn.
        std::thread::sleep(Duration::from_millis(50));
        gate.open_gate();
        promise.wait_timeout(PATIENCE).expect("nobody writes it").unwrap();
    });
}

#[test]
fn one_turn_takes_writes_of_every_size() {
    let (gate, store) = gated(roomy(true));
    let notes = store.collection("notes").unwrap();
    gate.close_gate();
    let mut promises = vec![notes.submit_put("first", Draft::text("1")).unwrap()];
    gate.until_somebody_waits();
    for (n, bytes) in [10, 1000, 100, 100_000, 3 << 20, 3 << 20, 1].into_iter().enumerate() {
        promises.push(notes.submit_put(format!("{n}"), Draft::bytes(vec![7; bytes])).unwrap());
    }
    gate.open_gate();
    for promise in promises {
        promise.wait().unwrap();
    }
    assert_eq!(notes.count(None).unwrap(), 9);
}

/// What a pin brings along is known only when it is staged: the whole record is logged again.
#[test]
fn pins_of_large_records_are_written_in_several_batches() {
    const RECORDS: usize = 24;
    let (gate, store) = gated(roomy(true));
    let notes = store.collection("notes").unwrap();
    for n in 0..RECORDS {
        notes.put(format!("{n}"), Draft::bytes(vec![n as u8; 3 << 20])).unwrap();
    }
    gate.close_gate();
    let pin = |n: usize| {
        store
            .submit(Batch::new().update(&notes, format!("{n}"), Patch::default().pinned(true)))
            .unwrap()
    };
    let first = notes.submit_put("first", Draft::text("1")).unwrap();
    gate.until_somebody_waits();
    let pins: Vec<Promise> = (0..RECORDS).map(pin).collect();
    gate.open_gate();
    first.wait().unwrap();
    // Together they are longer than a batch may be.
    for promise in pins {
        promise.wait().unwrap();
    }
    assert!(notes.peek("7").unwrap().unwrap().pinned);
}

#[test]
fn what_waits_in_the_queue_counts_against_the_share_of_the_log() {
    let wait = Duration::from_millis(100);
    let options = Options { budget_bytes: Some(16 << 20), full_wait_max: wait, ..roomy(true) };
    let (gate, store) = gated(options);
    let notes = store.collection("notes").unwrap();
    gate.close_gate();
    let mut promises = vec![notes.submit_put("first", Draft::text("1")).unwrap()];
    gate.until_somebody_waits();
    let refused = (0..64).find_map(|n| {
        let put = notes.submit_put(format!("{n}"), Draft::bytes(vec![7; 1 << 20]));
        put.map(|promise| promises.push(promise)).err()
    });
    gate.open_gate();
    assert_eq!(refused.expect("64 MiB wait under a budget of 16").kind(), ErrorKind::Full);
    for promise in promises {
        promise.wait().unwrap();
    }
}

#[test]
fn a_removal_that_fails_for_another_reason_than_a_full_disk_makes_no_room() {
    let disk = MemoryDisk::new();
    let store = try_open(&disk, &ManualClock::new(), roomy(false)).unwrap();
    let notes = store.collection("notes").unwrap();
    notes.put("a", Draft::text("kept")).unwrap();
    let batch = Batch::new().delete(&notes, "a").deadline(Duration::ZERO);
    assert_eq!(store.write(batch).unwrap_err().kind(), ErrorKind::Expired);
    assert_eq!(disk.list("archive").unwrap().len(), 0, "no checkpoint");
}
