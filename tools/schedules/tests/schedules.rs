//! Group commit under a model checker: shuttle chooses who runs at every lock and condition of it.
//!
//! `tools/schedules/run.sh` runs it; without its `--cfg shuttle` there is nothing here. The real engine runs,
//! over a disk in memory and without a background thread. What runs between two locks is one step, so races
//! of atomics alone are not tried. A schedule in which everybody sleeps fails.
//!
//! `PMLL_SCHEDULES=n` tries n of them for every test. A failing one is printed; shuttle replays it.
#![cfg(shuttle)]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pmll::io::MemoryDisk;
use pmll::{Batch, Clock, Collection, Draft, Durability, ErrorKind, Options, Store, Timestamp};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner, thread};

const SCHEDULES: usize = 4_000;

#[derive(Debug)]
struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_000_000)
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// Every look at it takes a while, so syncs do as well, and writers wait for each other.
#[derive(Debug, Default)]
struct SlowClock(AtomicU64);

impl Clock for SlowClock {
    fn now(&self) -> Timestamp {
        StillClock.now()
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.0.fetch_add(50, Ordering::AcqRel))
    }
}

fn fresh() -> (Store, Collection) {
    fresh_by(Arc::new(StillClock))
}

fn fresh_by(clock: Arc<dyn Clock>) -> (Store, Collection) {
    let options = Options { background: false, budget_bytes: Some(1 << 20), ..Options::default() };
    let store = Store::builder("schedules")
        .disk(Arc::new(MemoryDisk::new()))
        .clock(clock)
        .options(options)
        .open()
        .unwrap();
    let notes = store.collection("notes").unwrap();
    (store, notes)
}

/// Tries schedules: half of them random, half with few changes at the worst places (PCT).
fn try_schedules(name: &str, body: impl Fn() + Send + Sync + 'static) {
    let wanted = std::env::var("PMLL_SCHEDULES").ok().and_then(|text| text.parse().ok());
    let each = wanted.unwrap_or(SCHEDULES).div_ceil(2);
    let body = Arc::new(body);
    let config = || {
        let mut config = Config::new();
        // redb's frames are deep.
        config.stack_size = 1 << 20;
        config
    };
    let again = Arc::clone(&body);
    let random = Runner::new(RandomScheduler::new_from_seed(20_260, each), config());
    let mut tried = random.run(move || again());
    let few = Runner::new(PctScheduler::new_from_seed(20_260, 3, each), config());
    tried += few.run(move || body());
    println!("schedules: {name}: {tried}");
}

#[test]
fn every_request_ends_exactly_once_and_nobody_sleeps_for_ever() {
    try_schedules("requests", || {
        let (store, notes) = fresh();
        let writers: Vec<_> = (0..3_u8)
            .map(|n| {
                let (store, notes) = (store.clone(), notes.clone());
                thread::spawn(move || {
                    let version = notes.put([b'w', n], Draft::text("one")).unwrap().version;
                    assert_eq!(notes.peek([b'w', n]).unwrap().unwrap().version, version);
                    let promise = store
                        .submit(Batch::new().durability(Durability::Buffer).put(
                            &notes,
                            [b's', n],
                            Draft::text("two"),
                        ))
                        .unwrap();
                    let waiter = promise.clone();
                    let waiting = thread::spawn(move || waiter.wait().map(|all| all[0].version));
                    let cancelled = promise.cancel();
                    let found = notes.peek([b's', n]).unwrap().map(|entry| entry.version);
                    match waiting.join().unwrap() {
                        Ok(version) => assert!(!cancelled && found == Some(version)),
                        Err(error) => {
                            assert!(cancelled && found.is_none());
                            assert_eq!(error.kind(), ErrorKind::Cancelled);
                        }
                    }
                    version
                })
            })
            .collect();
        let mut versions: Vec<_> = writers.into_iter().map(|w| w.join().unwrap()).collect();
        versions.sort();
        versions.dedup();
        assert_eq!(versions.len(), 3);
        let promises = store.stats().unwrap().promises;
        assert_eq!((promises.pending, promises.failed, promises.expired), (0, 0, 0));
        store.close().unwrap();
    });
}

#[test]
fn a_close_lets_nobody_wait() {
    try_schedules("close", || {
        let (store, notes) = fresh();
        let writers: Vec<_> = (0..2_u8)
            .map(|n| {
                let notes = notes.clone();
                thread::spawn(move || match notes.put([n], Draft::text("x")) {
                    Ok(_) => true,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Closed);
                        false
                    }
                })
            })
            .collect();
        let closing = store.clone();
        let closer = thread::spawn(move || closing.close().unwrap());
        for writer in writers {
            writer.join().unwrap();
        }
        closer.join().unwrap();
        assert_eq!(notes.put("late", Draft::text("x")).unwrap_err().kind(), ErrorKind::Closed);
    });
}

#[test]
fn readers_see_published_states_in_order() {
    try_schedules("readers", || {
        let (store, notes) = fresh();
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let (notes, acknowledged) = (notes.clone(), Arc::clone(&acknowledged));
                thread::spawn(move || {
                    for _ in 0..2 {
                        let receipt = notes.put("one", Draft::text("x")).unwrap();
                        acknowledged.fetch_max(receipt.version.0, Ordering::AcqRel);
                    }
                })
            })
            .collect();
        let reader = {
            let (notes, acknowledged) = (notes.clone(), Arc::clone(&acknowledged));
            thread::spawn(move || {
                let mut last = 0;
                for _ in 0..6 {
                    let told = acknowledged.load(Ordering::Acquire);
                    let seen = notes.peek("one").unwrap().map_or(0, |entry| entry.version.0);
                    assert!(seen >= told && seen >= last, "{seen} after {told} and {last}");
                    last = seen;
                    thread::yield_now();
                }
            })
        };
        let checkpointer = {
            let store = store.clone();
            thread::spawn(move || assert!(store.checkpoint().is_ok()))
        };
        for task in writers.into_iter().chain([reader, checkpointer]) {
            task.join().unwrap();
        }
        store.close().unwrap();
    });
}

#[test]
fn writers_that_wait_for_each_other_are_all_served() {
    try_schedules("gathering", || {
        let (store, notes) = fresh_by(Arc::new(SlowClock::default()));
        let writers: Vec<_> = (0..3_u8)
            .map(|n| {
                let notes = notes.clone();
                // They leave one after the other: who waits for one that is gone goes on without it.
                thread::spawn(move || {
                    for turn in 0..=n {
                        let version = notes.put([n, turn], Draft::text("x")).unwrap().version;
                        let seen = notes.peek([n, turn]).unwrap().map(|entry| entry.version);
                        assert_eq!(seen, Some(version));
                    }
                })
            })
            .collect();
        let promise =
            store.submit(Batch::new().put(&notes, "submitted", Draft::text("y"))).unwrap();
        promise.wait().unwrap();
        for writer in writers {
            writer.join().unwrap();
        }
        assert_eq!(notes.count(None).unwrap(), 7);
        store.close().unwrap();
    });
}

#[test]
fn a_close_ends_the_waiting_for_others() {
    try_schedules("gathering and close", || {
        let (store, notes) = fresh_by(Arc::new(SlowClock::default()));
        let writers: Vec<_> = (0..2_u8)
            .map(|n| {
                let notes = notes.clone();
                thread::spawn(move || {
                    let mut written = 0;
                    while written < 3 {
                        match notes.put([n, written], Draft::text("x")) {
                            Ok(_) => written += 1,
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::Closed);
                                break;
                            }
                        }
                    }
                })
            })
            .collect();
        let closing = store.clone();
        let closer = thread::spawn(move || closing.close().unwrap());
        for task in writers.into_iter().chain([closer]) {
            task.join().unwrap();
        }
    });
}
