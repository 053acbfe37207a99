//! The ends of things: closing under readers and writers, dropping the last handle, a budget that
//! is used up, entries whose time has passed, and counts that outlive the process.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pmll::io::MemoryDisk;
use pmll::io::sim::{Fault, SimDisk};
use pmll::{
    CountAccess, Depth, Draft, EntryId, ErrorKind, Options, Query, Scan, Store, Timestamp,
    VacuumReport,
};

use crate::support::disks::GateDisk;
use crate::support::{ManualClock, Rng, START, assert_same, dump, open, pages, tiny, try_open};

fn threaded() -> Options {
    Options { background: true, ..tiny() }
}

#[test]
fn readers_at_work_finish_when_the_store_is_closed() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = try_open(&disk, &clock, threaded()).unwrap();
    let notes = store.collection("notes").unwrap();
    let mut rng = Rng(1);
    for n in 0..300 {
        let draft = Draft::text(rng.text(10)).vector(rng.vector(8));
        notes.put(format!("{n}"), draft).unwrap();
    }
    store.checkpoint().unwrap();
    notes.put("late", Draft::text("in RAM")).unwrap();
    let reads = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (notes, reads) = (notes.clone(), &reads);
            scope.spawn(move || {
                // Whole answers, then `Closed`, and nothing else.
                loop {
                    let outcome = match thread {
                        0 => notes.count(None).map(|count| assert_eq!(count, 301)),
                        1 => pages(&notes, &Scan::new().limit(100))
                            .map(|entries| assert_eq!(entries.len(), 301)),
                        _ => notes
                            .search(Query::vector([1.0; 8]).k(300))
                            .map(|hits| assert_eq!(hits.len(), 300)),
                    };
                    match outcome {
                        Ok(()) => reads.fetch_add(1, Ordering::SeqCst),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
                            break;
                        }
                    };
                }
            });
        }
        while reads.load(Ordering::SeqCst) < 20 {
            std::thread::yield_now();
        }
        store.clone().close().unwrap();
    });
    let kinds = [
        notes.put("x", Draft::text("")).unwrap_err().kind(),
        notes.get("1").unwrap_err().kind(),
        store.stats().unwrap_err().kind(),
        store.sync().unwrap_err().kind(),
        store.checkpoint().unwrap_err().kind(),
        store.vacuum().unwrap_err().kind(),
        store.collections().unwrap_err().kind(),
        notes.submit_put("x", Draft::text("")).unwrap_err().kind(),
    ];
    assert_eq!(kinds, [ErrorKind::Closed; 8]);
    store.clone().close().unwrap();
    // The old handles are still there, and yet the directory is free.
    assert_eq!(open(&disk, &clock).collection("notes").unwrap().count(None).unwrap(), 301);
}

#[test]
fn writers_at_work_are_served_or_told() {
    for round in 0..8 {
        let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
        let store = try_open(&disk, &clock, threaded()).unwrap();
        let notes = store.collection("notes").unwrap();
        let acked = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (notes, acked) = (notes.clone(), &acked);
                scope.spawn(move || {
                    for n in 0.. {
                        let draft = Draft::text("served");
                        let outcome = match thread {
                            0 => notes
                                .submit_put(format!("{thread}-{n}"), draft)
                                .and_then(|promise| promise.wait().map(drop)),
                            _ => notes.put(format!("{thread}-{n}"), draft).map(drop),
                        };
                        match outcome {
                            Ok(()) => acked.fetch_add(1, Ordering::SeqCst),
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
                                break;
                            }
                        };
                    }
                });
            }
            while acked.load(Ordering::SeqCst) < 10 * round {
                std::thread::yield_now();
            }
            store.clone().close().unwrap();
        });
        let again = open(&disk, &clock);
        let count = again.collection("notes").unwrap().count(None).unwrap();
        assert_eq!(count, acked.load(Ordering::SeqCst), "acknowledged and there, both or none");
    }
}

#[test]
fn what_was_submitted_before_a_close_is_written() {
    let (gate, clock) = (GateDisk::of(MemoryDisk::new(), "wal/"), ManualClock::new());
    let store = try_open(&gate, &clock, threaded()).unwrap();
    let notes = store.collection("notes").unwrap();
    gate.close_gate();
    std::thread::scope(|scope| {
        // Somebody who leads by waiting for its own write.
        scope.spawn(|| notes.put("led", Draft::text("")).unwrap());
        gate.until_somebody_waits();
        let queued = notes.submit_put("queued", Draft::text("")).unwrap();
        let closing = scope.spawn(|| store.clone().close());
        std::thread::sleep(Duration::from_millis(30));
        assert!(!closing.is_finished(), "closing waits for what is queued");
        gate.open_gate();
        closing.join().unwrap().unwrap();
        queued.wait().unwrap();
    });
    let store = open(&gate, &clock);
    assert_eq!(store.collection("notes").unwrap().count(None).unwrap(), 2);
}

#[test]
fn a_close_waits_for_the_grouping_that_a_caller_runs() {
    let (gate, clock) = (GateDisk::of(MemoryDisk::new(), "arena/"), ManualClock::new());
    let options = Options { cells_rows_min: 100, ..tiny() };
    let store = try_open(&gate, &clock, options).unwrap();
    let notes = store.collection("notes").unwrap();
    for n in 0..120 {
        notes.put(format!("k{n}"), Draft::text("").vector([n as f32, 1.0])).unwrap();
    }
    gate.close_gate();
    std::thread::scope(|scope| {
        // The file of cells is written and not synced; whoever opens the store now would meet it.
        let grouping = scope.spawn(|| store.checkpoint());
        gate.until_somebody_waits();
        let closing = scope.spawn(|| store.clone().close());
        std::thread::sleep(Duration::from_millis(100));
        assert!(!closing.is_finished(), "closing waits for who writes");
        gate.open_gate();
        let opened = Instant::now();
        closing.join().unwrap().unwrap();
        // Neither waits for the other until its patience, which is ten seconds, is at its end.
        assert!(opened.elapsed() < Duration::from_secs(5), "{:?}", opened.elapsed());
        grouping.join().unwrap().unwrap();
    });
    let store = open(&gate, &clock);
    assert_eq!(store.collection("notes").unwrap().count(None).unwrap(), 120);
}

#[test]
fn dropping_the_last_handle_closes_in_order() {
    let (disk, clock) = (SimDisk::new(0), ManualClock::new());
    for options in [tiny(), threaded()] {
        let store = try_open(&disk, &clock, options).unwrap();
        let notes = store.collection("notes").unwrap();
        drop(store);
        notes.put("a", Draft::text("through a collection")).unwrap();
        drop(notes.submit_put("b", Draft::text("nobody waits")).unwrap());
        let whole = 2;
        drop(notes);
        let images = disk.crash_images(pmll::io::sim::Profile::Posix, 10);
        for image in images.iter().chain([&disk]) {
            let store = open(image, &clock);
            assert_eq!(store.collection("notes").unwrap().count(None).unwrap(), whole);
            assert!(store.stats().unwrap().warnings.is_empty());
        }
    }
}

#[test]
fn writers_faster_than_the_archive_wait_and_memory_stays_bounded() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let options = Options { full_wait_max: Duration::from_secs(120), ..threaded() };
    let store = try_open(&disk, &clock, options).unwrap();
    let notes = store.collection("notes").unwrap();
    let (done, most) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                most.fetch_max(store.stats().unwrap().counted_bytes, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let writers: Vec<_> = (0..4)
            .map(|thread| {
                let notes = &notes;
                scope.spawn(move || {
                    let mut rng = Rng(thread);
                    for n in 0..500 {
                        let draft = Draft::bytes(rng.bytes(2_000)).vector(rng.vector(64));
                        notes.put(format!("{thread}-{n}"), draft).unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    // 2,000 entries of some 2,800 bytes are five times the budget.
    assert_eq!(notes.count(None).unwrap(), 2_000);
    let stats = store.stats().unwrap();
    // Several checkpoints; how many segments they left is up to the merges that followed.
    assert!(stats.archive_segments > 0 && stats.applied_lsn.0 > 1_000, "{stats:?}");
    let most = most.load(Ordering::SeqCst);
    assert!(most <= 1 << 20, "{most} bytes were resident under a budget of 1 MiB");
}

#[test]
fn a_writer_that_waits_too_long_for_room_is_told_why() {
    let (disk, clock) = (SimDisk::new(1), ManualClock::new());
    let options = Options { full_wait_max: Duration::from_millis(200), ..threaded() };
    let store = try_open(&disk, &clock, options).unwrap();
    let notes = store.collection("notes").unwrap();
    let mut rng = Rng(0);
    let mut whole = dump(&store);
    let mut outcome = Ok(());
    disk.fail_at(disk.op_count() + 40, Fault::Enospc, true);
    for n in 0..2_000 {
        match notes.put(format!("{n}"), Draft::bytes(rng.bytes(2_000))) {
            Ok(_) => whole = dump(&store),
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error:?}");
    assert_same(&dump(&store), &whole, "reads go on");
    disk.clear_faults();
    notes.put("room", Draft::text("again")).unwrap();
    store.checkpoint().unwrap();
}

#[test]
fn gets_and_touches_count_and_searches_as_asked() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let mut store = open(&disk, &clock);
    let count = |store: &Store, key: &str| {
        let entry = store.collection("notes").unwrap().peek(key).unwrap().unwrap();
        (entry.access_count, entry.last_access)
    };
    let notes = store.collection("notes").unwrap();
    notes.put("a", Draft::text("one").vector([1.0])).unwrap();
    notes.put("b", Draft::text("two").vector([1.0])).unwrap();
    clock.advance(Duration::from_secs(60));
    for _ in 0..3 {
        notes.get("a").unwrap();
    }
    notes.get_many(&["a", "b", "missing"]).unwrap();
    assert!(notes.touch("a").unwrap() && !notes.touch("missing").unwrap());
    notes.peek("b").unwrap();
    notes.contains("b").unwrap();
    notes.scan(Scan::new()).unwrap();
    notes.count(None).unwrap();
    notes.search(Query::vector([1.0]).count_access(CountAccess::None)).unwrap();
    notes.put("a", Draft::text("one again")).unwrap();
    let minute = Timestamp(START.0 + 60_000_000);
    assert_eq!(count(&store, "a"), (5, minute), "a replaced entry keeps its count");
    assert_eq!(count(&store, "b"), (1, minute));
    notes.search(vec![1.0]).unwrap();
    assert_eq!((count(&store, "a").0, count(&store, "b").0), (5, 2), "the best hit");
    notes.search(Query::vector([1.0]).count_access(CountAccess::All)).unwrap();
    drop(notes);
    store.close().unwrap();
    store = open(&disk, &clock);
    assert_eq!((count(&store, "a"), count(&store, "b")), ((5, minute), (3, minute)));
    let notes = store.collection("notes").unwrap();
    notes.delete("b").unwrap();
    notes.put("b", Draft::text("another entry")).unwrap();
    assert_eq!(count(&store, "b").0, 0, "a new entry under an old key starts from nothing");
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn an_expired_entry_hides_at_once_and_goes_after_its_grace() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    // The monotonic clock may have started long before the store.
    clock.advance(HOUR * 1_000);
    let mut store = open(&disk, &clock);
    let notes = store.collection("notes").unwrap();
    let first = notes.put("a", Draft::text("short").ttl(HOUR)).unwrap().id;
    notes.put("b", Draft::text("long").ttl(HOUR * 100)).unwrap();
    drop(notes);
    let vacuum = |store: &mut Store| -> VacuumReport {
        let report = store.vacuum().unwrap();
        // The hours count over all openings.
        store.clone().close().unwrap();
        *store = open(&disk, &clock);
        report
    };
    let ids = |store: &Store| -> Vec<EntryId> { dump(store).values().map(|e| e.id).collect() };
    clock.advance(HOUR - Duration::from_micros(1));
    assert_eq!(ids(&store).len(), 2);
    clock.advance(Duration::from_micros(1));
    assert_eq!(ids(&store).len(), 1, "hidden exactly at its time");
    assert_eq!(vacuum(&mut store).expired, 0, "seen for the first time");
    clock.advance(HOUR * 23);
    assert_eq!(vacuum(&mut store).expired, 0);
    // Somebody notices that the clock was wrong: it is all there.
    let now = pmll::Clock::now(&*clock);
    clock.set_now(START);
    assert_eq!(ids(&store).len(), 2, "a clock that is set back shows it again");
    clock.set_now(now);
    clock.advance(HOUR + Duration::from_secs(1));
    assert_eq!(vacuum(&mut store).expired, 1);
    clock.set_now(START);
    assert_eq!(ids(&store).len(), 1, "and then it is gone");
    let notes = store.collection("notes").unwrap();
    assert!(notes.insert("a", Draft::text("new")).unwrap().id > first);
    assert!(store.verify(Depth::Deep).unwrap().is_whole());
}

#[test]
fn a_clock_that_was_wrong_twice_removes_nothing() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    let notes = store.collection("notes").unwrap();
    notes.put("a", Draft::text("a year").ttl(HOUR * 24 * 365)).unwrap();
    for _ in 0..3 {
        let right = pmll::Clock::now(&*clock);
        clock.set_now(Timestamp(i64::MAX));
        assert_eq!(store.vacuum().unwrap().expired, 0);
        clock.set_now(right);
        clock.advance(HOUR * 48);
        assert_eq!(store.vacuum().unwrap().expired, 0);
        assert!(notes.contains("a").unwrap());
    }
}

#[test]
fn an_expired_entry_is_not_there_for_writers_either() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    let notes = store.collection("notes").unwrap();
    let short = |text: &str| Draft::text(text).ttl(HOUR).pinned(true);
    for round in ["in RAM", "archived"] {
        let old = notes.put("a", short("old")).unwrap();
        notes.put("b", short("old")).unwrap();
        notes.put("c", short("old")).unwrap();
        if round == "archived" {
            store.checkpoint().unwrap();
        }
        clock.advance(HOUR);
        let missing = notes.update("a", pmll::Patch::default().attr("n", 1)).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound, "{round}");
        assert!(!notes.pin("a", false).unwrap() && !notes.touch("a").unwrap());
        let stale = notes.put_if("a", Some(old.version), Draft::text("")).unwrap_err();
        assert_eq!(stale.kind(), ErrorKind::Exists, "{round}");
        let new = notes.insert("a", Draft::text("new")).unwrap();
        assert!(new.created && new.id > old.id, "{round}");
        assert!(!notes.get("a").unwrap().unwrap().pinned, "{round}: nothing is inherited");
        assert!(notes.put("b", Draft::text("new")).unwrap().created, "{round}");
        assert!(!notes.delete("c").unwrap(), "{round}");
        clock.set_now(START);
        assert_eq!(notes.get("a").unwrap().unwrap().id, new.id, "{round}");
        assert!(!notes.contains("c").unwrap(), "{round}: deleted, though nobody saw it");
        assert_eq!(notes.count(None).unwrap(), 2, "{round}");
        for key in ["a", "b"] {
            notes.delete(key).unwrap();
        }
    }
    store.vacuum().unwrap();
    assert!(store.verify(Depth::Deep).unwrap().is_whole());
}

#[test]
fn collections_dropped_under_a_vacuum_stay_dropped() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = try_open(&disk, &clock, threaded()).unwrap();
    let kept = store.collection("kept").unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..60 {
                let passing = store.collection("passing").unwrap();
                for n in 0..20 {
                    passing.put(format!("{n}"), Draft::text("passing")).unwrap();
                    kept.put(format!("{n}"), Draft::text(format!("{round}"))).unwrap();
                }
                if round % 2 == 0 {
                    store.checkpoint().unwrap();
                }
                assert!(store.drop_collection("passing").unwrap());
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            store.vacuum().unwrap();
        }
    });
    store.checkpoint().unwrap();
    assert!(store.verify(Depth::Deep).unwrap().is_whole());
    let whole = dump(&store);
    assert_eq!(whole.len(), 20);
    drop(kept);
    store.close().unwrap();
    let store = open(&disk, &clock);
    assert_same(&dump(&store), &whole, "opened again");
    assert!(store.find_collection("passing").unwrap().is_none());
}

#[test]
fn a_reader_says_how_much_of_the_log_is_not_archived() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = try_open(&disk, &clock, tiny()).unwrap();
    store.collection("notes").unwrap().put("a", Draft::text("one")).unwrap();
    let written = store.stats().unwrap().log_bytes;
    assert!(written > 0);
    store.close().unwrap();
    let reader = try_open(&disk, &clock, Options { read_only: true, ..tiny() }).unwrap();
    assert_eq!(reader.stats().unwrap().log_bytes, written);
}
