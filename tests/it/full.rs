//! A disk that is full: nothing acknowledged is lost, reads go on, and the store can get smaller.
//!
//! The simulated disk has an end. A store is filled until it answers `Full`, then asked everything,
//! emptied by half with the bytes of its reserve, and filled again. The same at the end of every
//! size of disk in a range, so that the end is met in every file the store writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use pmll::io::sim::{Fault, Profile, SimDisk};
use pmll::io::{Disk, OpenMode};
use pmll::{Clock, Depth, Draft, ErrorKind, Options, Scan, Store};

use crate::support::{ManualClock, Rng};

const BUDGET_BYTES: u64 = 1 << 20;

fn open(disk: &SimDisk, clock: &Arc<ManualClock>) -> Store {
    let options =
        Options { background: false, budget_bytes: Some(BUDGET_BYTES), ..Options::default() };
    let clock: Arc<dyn Clock> = Arc::clone(clock) as Arc<dyn Clock>;
    let disk = Arc::new(disk.clone());
    Store::builder("full").disk(disk).clock(clock).options(options).open().unwrap()
}

fn reserve_bytes(disk: &SimDisk) -> u64 {
    disk.open("RESERVE", OpenMode::Read).and_then(|file| file.len()).unwrap_or(0)
}

type Held = BTreeMap<String, Vec<u8>>;

/// Puts incompressible notes until the disk is full; keeps what was acknowledged.
fn fill(store: &Store, held: &mut Held, rng: &mut Rng, from: usize) -> usize {
    let notes = store.collection("notes").unwrap();
    for n in from..100_000 {
        let payload: Vec<u8> = (0..2000).map(|_| rng.bits() as u8).collect();
        let key = format!("k{n:06}");
        match notes.put(&key, Draft::bytes(payload.clone()).vector([n as f32, 1.0])) {
            Ok(_) => {
                held.insert(key, payload);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                return n;
            }
        }
    }
    panic!("the disk has no end");
}

fn check(store: &Store, held: &Held) {
    let notes = store.collection("notes").unwrap();
    let mut seen = Held::new();
    let mut scan = Scan::new().limit(500);
    loop {
        let page = notes.scan(scan).unwrap();
        for entry in page.entries {
            seen.insert(entry.key.as_str().unwrap().to_owned(), entry.payload);
        }
        let Some(cursor) = page.cursor else { break };
        scan = Scan::new().limit(500).cursor(cursor);
    }
    assert!(seen == *held, "{} entries are there, {} were acknowledged", seen.len(), held.len());
    assert!(!notes.search([1.0, 1.0].as_slice()).unwrap().is_empty());
}

#[test]
fn a_full_store_is_read_gets_smaller_and_is_written_again() {
    for capacity in (0..24).map(|n| 6_000_000 + n * 37_117) {
        let (disk, clock) = (SimDisk::new(3), ManualClock::new());
        let mut rng = Rng(capacity);
        let store = open(&disk, &clock);
        let mut held = Held::new();
        disk.set_capacity(Some(capacity));
        let next = fill(&store, &mut held, &mut rng, 0);
        assert!(next > 500, "full after {next} entries of a disk of {capacity} bytes");
        check(&store, &held);
        // More of the same does not help, and harms nothing.
        let refused = fill(&store, &mut held, &mut rng, next);
        check(&store, &held);

        let notes = store.collection("notes").unwrap();
        let half: Vec<String> = held.keys().take(held.len() / 2).cloned().collect();
        for key in half {
            let deleted = notes.delete(&key).unwrap_or_else(|error| {
                let disk = store.stats().map(|stats| stats.disk);
                panic!("{key} on a disk of {capacity} bytes, {next} put: {error}; {disk:?}")
            });
            assert!(deleted);
            held.remove(&key);
        }
        check(&store, &held);
        store.checkpoint().unwrap();
        store.vacuum().unwrap();
        check(&store, &held);
        let next = fill(&store, &mut held, &mut rng, refused);
        assert!(next > refused + 200, "room for {} more entries", next - refused);
        check(&store, &held);
        drop((notes, store));

        // Whoever opens it next finds all of it, with the disk as full as it was.
        let store = open(&disk, &clock);
        check(&store, &held);
        assert!(store.verify(Depth::Deep).unwrap().is_whole());
        disk.set_capacity(None);
        store.collection("notes").unwrap().put("after", Draft::text("room again")).unwrap();
        store.close().unwrap();
    }
}

/// What came free in a power cut is taken by somebody else before the store is opened again. The disk ends in
/// different places of what a store does.
#[test]
fn a_power_cut_on_a_full_disk_leaves_a_way_out() {
    for capacity in (0..6).map(|n| 6_000_000 + n * 61_331) {
        let (disk, clock) = (SimDisk::new(4), ManualClock::new());
        let store = open(&disk, &clock);
        disk.set_capacity(Some(capacity));
        let mut held = Held::new();
        fill(&store, &mut held, &mut Rng(4), 0);
        // The last image keeps nothing that was not synced.
        let cut = disk.crash_images(Profile::Posix, 2).pop().unwrap();
        cut.set_capacity(Some(cut.used_bytes()));
        let store = open(&cut, &clock);
        check(&store, &held);
        let notes = store.collection("notes").unwrap();
        let half: Vec<String> = held.keys().take(held.len() / 2).cloned().collect();
        for key in half {
            let deleted = notes.delete(&key);
            assert!(deleted.unwrap_or_else(|e| panic!("{key} on a disk of {capacity}: {e}")));
            held.remove(&key);
        }
        store.checkpoint().unwrap();
        store.vacuum().unwrap();
        check(&store, &held);
    }
}

/// The owner before took the reserve and could not make it again.
#[test]
fn who_opens_a_full_store_without_a_reserve_makes_room_by_removing() {
    let (disk, clock) = (SimDisk::new(5), ManualClock::new());
    let store = open(&disk, &clock);
    disk.set_capacity(Some(6_000_000));
    let mut held = Held::new();
    fill(&store, &mut held, &mut Rng(5), 0);
    drop(store);
    disk.remove("RESERVE").unwrap();
    disk.set_capacity(Some(disk.used_bytes() + (192 << 10)));
    let keys: Vec<String> = held.keys().take(held.len() / 4).cloned().collect();
    for part in keys.chunks(100) {
        // Each time by somebody who knows nothing of the one before.
        let store = open(&disk, &clock);
        let notes = store.collection("notes").unwrap();
        for key in part {
            assert!(notes.delete(key).unwrap_or_else(|error| panic!("{key}: {error}")));
            held.remove(key);
        }
    }
    let store = open(&disk, &clock);
    check(&store, &held);
    assert!(reserve_bytes(&disk) > 0, "it is back");
}

/// A removal is tried again after a checkpoint, and once more after a vacuum; a put is not, and leaves the
/// reserve alone.
#[test]
fn what_makes_room_is_tried_again_and_nothing_else() {
    let clock = ManualClock::new();
    let full_for = |calls: u64| {
        let disk = SimDisk::new(6);
        let store = open(&disk, &clock);
        let notes = store.collection("notes").unwrap();
        for n in 0..20 {
            notes.put(format!("k{n}"), Draft::text("note")).unwrap();
        }
        store.checkpoint().unwrap();
        // From here on: each attempt is one write of the log.
        disk.fail_times(disk.op_count(), Fault::Enospc, calls);
        (disk, notes)
    };
    let kind = |error: pmll::Error| error.kind();
    for (calls, wanted) in [(1, Ok(true)), (2, Ok(true)), (3, Err(ErrorKind::Full))] {
        let (disk, notes) = full_for(calls);
        assert_eq!(notes.delete("k7").map_err(kind), wanted, "{calls} calls");
        assert_eq!(disk.fault_counts(), [(calls, 0)]);
        assert_eq!(notes.get("k7").unwrap().is_some(), wanted.is_err());
    }
    let (disk, notes) = full_for(1);
    let reserve = reserve_bytes(&disk);
    assert_eq!(notes.put("k7", Draft::text("other")).map(drop).map_err(kind), Err(ErrorKind::Full));
    assert_eq!((reserve_bytes(&disk), reserve > 0), (reserve, true));
    assert_eq!(notes.get("k7").unwrap().unwrap().text(), Some("note"));
}
