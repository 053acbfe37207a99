//! Writing: when a write counts, who sees it, and what becomes of it when time, callers, disks and
//! other threads get in between.
//!
//! Time is moved by hand, and a gate before the disk holds syncs back, so that "queued", "taken up"
//! and "durable" are states a test can stand in. Threads are real where the point is that there are
//! several.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use pmll::io::MemoryDisk;
use pmll::io::sim::{Fault, Profile, SimDisk};
use pmll::{
    Batch, Collection, Draft, Durability, ErrorKind, Namespace, Options, Promise, Query, Scan,
    Store, Timestamp,
};

use crate::support::disks::GateDisk;
use crate::support::{ManualClock, Rng, START, open, pages, tiny, try_open};

/// With a thread of its own, as stores are by default.
fn threaded() -> Options {
    Options { background: true, ..tiny() }
}

/// A store behind a gate, with one write held at it: taken up, not durable.
struct Held {
    gate: GateDisk,
    clock: Arc<ManualClock>,
    store: Store,
    notes: Collection,
    first: Promise,
}

fn held() -> Held {
    // Of the log alone: who submits the first write makes the reserve, and would wait for its sync.
    let (gate, clock) = (GateDisk::of(MemoryDisk::new(), "wal/"), ManualClock::new());
    let store = try_open(&gate, &clock, threaded()).unwrap();
    let notes = store.collection("notes").unwrap();
    gate.close_gate();
    let first = notes.submit_put("first", Draft::text("1")).unwrap();
    gate.until_somebody_waits();
    Held { gate, clock, store, notes, first }
}

#[test]
fn a_write_is_seen_when_it_is_durable_and_not_before() {
    let Held { gate, notes, first, .. } = held();
    let second = notes.submit_put("second", Draft::text("2")).unwrap();
    assert!(!first.is_done() && !second.is_done());
    assert!(first.seq() < second.seq());
    assert!(first.wait_timeout(Duration::from_millis(20)).is_none());
    assert!(!notes.contains("first").unwrap() && !notes.contains("second").unwrap());
    assert_eq!(notes.count(None).unwrap(), 0);
    gate.open_gate();
    let receipts = second.wait().unwrap();
    assert!(receipts[0].created && second.is_done() && first.is_done());
    assert!(first.wait().unwrap()[0].version < receipts[0].version);
    assert_eq!(notes.get("second").unwrap().unwrap().version, receipts[0].version);
    assert_eq!(second.wait_timeout(Duration::ZERO).unwrap().unwrap(), receipts);
}

#[test]
fn a_queued_write_can_be_taken_back_and_one_under_way_cannot() {
    let Held { gate, store, notes, first, .. } = held();
    let second = notes.submit_put("second", Draft::text("2")).unwrap();
    let third = notes.submit_put("third", Draft::text("3")).unwrap();
    assert!(!first.cancel(), "it is being written");
    assert!(second.cancel() && !second.cancel());
    assert_eq!(second.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    gate.open_gate();
    third.wait().unwrap();
    assert!(first.wait().is_ok() && !third.cancel());
    assert!(notes.contains("first").unwrap() && notes.contains("third").unwrap());
    assert!(!notes.contains("second").unwrap());
    let promises = store.stats().unwrap().promises;
    assert_eq!((promises.cancelled, promises.pending, promises.expired), (1, 0, 0));
}

#[test]
fn a_deadline_that_passes_in_the_queue_writes_nothing() {
    let Held { gate, clock, store, notes, first } = held();
    let put = |key: &str| Batch::new().put(&notes, key, Draft::text("late"));
    let ten = Duration::from_secs(10);
    let early = store.submit(put("early").deadline(ten)).unwrap();
    let late = store.submit(put("late").deadline(ten + Duration::from_micros(1))).unwrap();
    // The wall clock jumps; deadlines do not go by it.
    clock.set_now(Timestamp(START.0 + 1_000_000_000_000));
    clock.advance(ten);
    gate.open_gate();
    assert_eq!(early.wait().unwrap_err().kind(), ErrorKind::Expired);
    late.wait().unwrap();
    first.wait().unwrap();
    assert!(!notes.contains("early").unwrap() && notes.contains("late").unwrap());
    assert_eq!(store.stats().unwrap().promises.expired, 1);
    let error = store.write(put("now").deadline(Duration::ZERO)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Expired);
}

#[test]
fn dropping_a_promise_cancels_nothing() {
    let Held { gate, clock, store, notes, first } = held();
    drop(first);
    for n in 0..20 {
        drop(notes.submit_put(format!("{n}"), Draft::text("kept")).unwrap());
    }
    gate.open_gate();
    drop(notes);
    // Closing sees through what is queued.
    store.close().unwrap();
    let store = try_open(&gate, &clock, threaded()).unwrap();
    assert_eq!(store.collection("notes").unwrap().count(None).unwrap(), 21);
}

struct Flag(AtomicU64);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_promise_is_a_future() {
    let Held { gate, notes, first, .. } = held();
    let flag = Arc::new(Flag(AtomicU64::new(0)));
    let waker = Waker::from(flag.clone());
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(first.clone());
    for _ in 0..3 {
        assert!(future.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(flag.0.load(Ordering::SeqCst), 0);
    gate.open_gate();
    first.wait().unwrap();
    notes.submit_put("next", Draft::text("")).unwrap().wait().unwrap();
    assert_eq!(flag.0.load(Ordering::SeqCst), 1, "woken once");
    match future.as_mut().poll(&mut context) {
        Poll::Ready(Ok(receipts)) => assert!(receipts[0].created),
        other => panic!("{other:?}"),
    }
}

#[test]
fn eight_writers_share_syncs_and_lose_nothing_to_a_power_cut() {
    const THREADS: usize = 8;
    const WRITES: usize = 60;
    let (disk, clock) = (SimDisk::new(4), ManualClock::new());
    let store = try_open(&disk, &clock, threaded()).unwrap();
    let notes = store.collection("notes").unwrap();
    let acked = parking_lot::Mutex::new(BTreeSet::new());
    let (acked, notes, images) = (&acked, &notes, parking_lot::Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for n in 0..WRITES {
                    let key = format!("{thread}-{n}");
                    notes.put(&key, Draft::text(&key)).unwrap();
                    assert!(notes.contains(&key).unwrap(), "acknowledged, so visible");
                    acked.lock().insert(key);
                }
            });
        }
        // The power fails again and again meanwhile; what was acknowledged before must be there.
        for _ in 0..12 {
            let known = acked.lock().clone();
            images.lock().push((known, disk.crash_images(Profile::Posix, 6)));
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    images.lock().push((acked.lock().clone(), disk.crash_images(Profile::Posix, 30)));
    let mut opened = 0;
    for (known, images) in images.into_inner() {
        for image in images {
            let store = open(&image, &clock);
            let notes = store.find_collection("notes").unwrap().unwrap();
            for key in &known {
                let entry = notes.get(key).unwrap();
                let text = entry.as_ref().and_then(|entry| entry.text());
                assert_eq!(text, Some(key.as_str()), "{}: {key} was acknowledged", image.label());
            }
            opened += 1;
        }
    }
    assert!(opened > 12);
    assert_eq!(notes.count(None).unwrap(), (THREADS * WRITES) as u64);
    let promises = store.stats().unwrap().promises;
    assert_eq!((promises.pending, promises.failed), (0, 0));
}

/// A group of writers behind one gate is synced at once, not one after the other.
#[test]
fn what_waits_together_is_synced_together() {
    let Held { gate, notes, first, .. } = held();
    let waiting: Vec<Promise> =
        (0..50).map(|n| notes.submit_put(format!("{n}"), Draft::text("")).unwrap()).collect();
    let syncs = gate.passed();
    gate.open_gate();
    for promise in &waiting {
        promise.wait().unwrap();
    }
    first.wait().unwrap();
    let syncs = gate.passed() - syncs;
    assert!(syncs <= 10, "{syncs} syncs for 50 waiting writes");
}

#[test]
fn readers_see_a_batch_whole_or_not_at_all() {
    let clock = ManualClock::new();
    let store = try_open(&MemoryDisk::new(), &clock, threaded()).unwrap();
    let (left, right) = (store.collection("left").unwrap(), store.collection("right").unwrap());
    let below = left.in_namespace(Namespace::new("a/b").unwrap());
    let done = AtomicBool::new(false);
    let keys: Vec<String> = (0..5).map(|n| format!("k{n}")).collect();
    let write = |round: u64| {
        let draft = || Draft::text(format!("{round}")).vector([1.0, 0.0]).attr("round", round);
        let batch = keys.iter().fold(Batch::new(), |batch, key| batch.put(&left, key, draft()));
        let batch = batch.put(&below, "deep", draft()).put(&right, "r", draft());
        store.write(batch).unwrap();
    };
    write(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::SeqCst) {
                    let texts: BTreeSet<String> = left
                        .get_many(&keys)
                        .unwrap()
                        .into_iter()
                        .map(|entry| entry.unwrap().text().unwrap().to_owned())
                        .collect();
                    assert_eq!(texts.len(), 1, "a get_many saw parts of two batches: {texts:?}");
                    let page = left.scan(Scan::new()).unwrap();
                    let rounds: BTreeSet<u64> = page
                        .entries
                        .iter()
                        .map(|entry| entry.attributes["round"].as_u64().unwrap())
                        .collect();
                    assert_eq!((page.entries.len(), rounds.len()), (6, 1), "{rounds:?}");
                    let round = *rounds.first().unwrap();
                    assert!(round >= last, "time went back from {last} to {round}");
                    last = round;
                    // Written with the others, in another collection: never older than what was
                    // seen there before.
                    let other = right.peek("r").unwrap().unwrap();
                    assert!(other.attributes["round"].as_u64().unwrap() >= round);
                    let hits = left.search(Query::vector([1.0, 0.0])).unwrap();
                    let texts: BTreeSet<&str> =
                        hits.iter().map(|hit| hit.entry.text().unwrap()).collect();
                    assert_eq!((hits.len(), texts.len()), (6, 1), "{texts:?}");
                }
            });
        }
        for round in 1..400 {
            write(round);
            if round % 100 == 50 {
                store.checkpoint().unwrap();
            }
        }
        done.store(true, Ordering::SeqCst);
    });
}

#[test]
fn a_batch_is_there_whole_or_not_at_all_after_a_crash() {
    let (disk, clock) = (SimDisk::new(9), ManualClock::new());
    let store = open(&disk, &clock);
    let (left, right) = (store.collection("left").unwrap(), store.collection("right").unwrap());
    disk.record();
    for round in 0..6 {
        let draft = || Draft::text(format!("{round}")).vector(Rng(round).vector(40));
        let batch = (0..20).fold(Batch::new(), |b, n| b.put(&left, format!("{n}"), draft()));
        store.write(batch.put(&right, "r", draft()).delete(&left, format!("{round}"))).unwrap();
    }
    let run = disk.recording().unwrap();
    let (mut seen, limits) = (
        std::collections::HashSet::new(),
        pmll::io::sim::Limits { images: 40, ..pmll::io::sim::Limits::default() },
    );
    for op in run.first_op()..=run.end_op() {
        for image in run.distinct_images_at(op, Profile::Posix, &limits, &mut seen) {
            let store = open(&image, &clock);
            let left = store.find_collection("left").unwrap().unwrap();
            let right = store.find_collection("right").unwrap().unwrap();
            let texts: BTreeSet<String> = pages(&left, &Scan::new())
                .unwrap()
                .iter()
                .map(|entry| entry.text().unwrap().to_owned())
                .collect();
            let context = format!("{} ({})", image.label(), run.describe(op));
            match right.get("r").unwrap() {
                None => assert!(texts.is_empty(), "{context}: {texts:?}"),
                Some(entry) => {
                    assert_eq!(Vec::from_iter(texts), [entry.text().unwrap()], "{context}");
                    assert_eq!(left.count(None).unwrap(), 19, "{context}");
                }
            }
        }
    }
    assert!(seen.len() > 50, "{} images", seen.len());
}

#[test]
fn a_request_is_applied_once_however_often_it_comes() {
    let (disk, clock) = (SimDisk::new(0), ManualClock::new());
    let mut store = open(&disk, &clock);
    let mut notes = store.collection("notes").unwrap();
    let batch = |notes: &Collection, sequence: u64| {
        let text = Draft::text(format!("{sequence}"));
        Batch::new().request(77, sequence).put(notes, "a", text).add(notes, Draft::text("added"))
    };
    for sequence in 1..=6 {
        let receipts = store.write(batch(&notes, sequence)).unwrap();
        assert_eq!(receipts.len(), 2, "one receipt per step about an entry");
        match sequence {
            2 => drop(store.checkpoint().unwrap()),
            3 => {
                drop(notes);
                store.close().unwrap();
                store = open(&disk, &clock);
                notes = store.collection("notes").unwrap();
            }
            4 => drop(store.vacuum().unwrap()),
            5 => {
                store = open(&disk.fork_now(), &clock);
                notes = store.collection("notes").unwrap();
            }
            _ => {}
        }
        for again in 1..=sequence {
            assert!(store.write(batch(&notes, again)).unwrap().is_empty(), "{again}");
        }
        assert_eq!(notes.count(None).unwrap(), sequence + 1);
        assert_eq!(notes.get("a").unwrap().unwrap().text(), Some(&*format!("{sequence}")));
    }
    // Of another client, and one that fails: it may come again.
    let other = Batch::new().request(78, 1).insert(&notes, "a", Draft::text("taken"));
    assert_eq!(store.write(other).unwrap_err().kind(), ErrorKind::Exists);
    let other = Batch::new().request(78, 1).put(&notes, "b", Draft::text("free"));
    assert_eq!(store.write(other).unwrap().len(), 1);
}

#[test]
fn buffered_writes_survive_a_kill_and_after_a_sync_a_power_cut() {
    let (disk, clock) = (SimDisk::new(2), ManualClock::new());
    let options = Options { durability: Durability::Buffer, ..tiny() };
    let store = try_open(&disk, &clock, options).unwrap();
    let notes = store.collection("notes").unwrap();
    store.sync().unwrap();
    for n in 0..30 {
        notes.put(format!("{n}"), Draft::text("buffered")).unwrap();
    }
    let count = |disk: &SimDisk| {
        let store = open(disk, &clock);
        let notes = store.find_collection("notes").unwrap().unwrap();
        notes.count(None).unwrap()
    };
    assert_eq!(count(&disk.fork_now()), 30, "a killed process loses nothing");
    let images = disk.crash_images(Profile::Posix, 40);
    let counts: BTreeSet<u64> = images.iter().map(count).collect();
    assert!(counts.first() < Some(&30), "buffered writes are not synced: {counts:?}");
    for image in &images {
        // What is left is the beginning of what was written, in order.
        let (left, store) = (count(image), open(image, &clock));
        let notes = store.find_collection("notes").unwrap().unwrap();
        assert!((0..left).all(|n| notes.contains(format!("{n}")).unwrap()), "{}", image.label());
    }
    store.sync().unwrap();
    for image in disk.crash_images(Profile::Posix, 40) {
        assert_eq!(count(&image), 30, "{}", image.label());
    }
    // One batch may ask for more than the store's default, and takes all before it along.
    notes.put("30", Draft::text("buffered")).unwrap();
    let batch = Batch::new().put(&notes, "31", Draft::text("synced")).durability(Durability::Sync);
    store.write(batch).unwrap();
    for image in disk.crash_images(Profile::Posix, 40) {
        assert_eq!(count(&image), 32, "{}", image.label());
    }
}

#[test]
fn a_failed_sync_poisons_writes_until_the_store_is_opened_again() {
    for fault in [Fault::SyncFails, Fault::Eio] {
        let (disk, clock) = (SimDisk::new(3), ManualClock::new());
        let store = open(&disk, &clock);
        let notes = store.collection("notes").unwrap();
        notes.put("a", Draft::text("one")).unwrap();
        disk.fail_at(disk.op_count(), fault, false);
        let error = notes.put("b", Draft::text("two")).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned), "{error:?}");
        assert!(!notes.contains("b").unwrap(), "a write that failed is not seen");
        for _ in 0..2 {
            let error = notes.put("c", Draft::text("three")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Poisoned, "{error:?}");
            assert_eq!(store.sync().unwrap_err().kind(), ErrorKind::Poisoned);
            assert_eq!(store.checkpoint().unwrap_err().kind(), ErrorKind::Poisoned);
        }
        assert_eq!(notes.get("a").unwrap().unwrap().text(), Some("one"), "reads go on");
        drop(notes);
        assert!(store.close().is_err(), "closing says that something failed");
        let store = open(&disk, &clock);
        let notes = store.collection("notes").unwrap();
        assert_eq!(notes.get("a").unwrap().unwrap().text(), Some("one"));
        assert!(!notes.contains("c").unwrap());
        notes.put("d", Draft::text("four")).unwrap();
        for image in disk.crash_images(Profile::Posix, 20) {
            let store = open(&image, &clock);
            assert!(store.collection("notes").unwrap().contains("d").unwrap());
        }
    }
}
