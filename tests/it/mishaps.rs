//! Mishaps that are nobody's fault and must not cost a store: a file that cannot be removed or read,
//! a disk that is full when the store is opened, a page of the index that rots while it is in use.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pmll::io::sim::SimDisk;
use pmll::io::{Disk, MemoryDisk, read_whole};
use pmll::{Depth, Draft, ErrorKind, Lsn, Options, Store};

use crate::support::hooks::HookDisk;
use crate::support::{ManualClock, Model, Rng, assert_same, dump, open, tiny, try_dump, try_open};

/// A switch that tests throw and hooks look at.
#[derive(Clone, Default)]
struct Switch(Arc<AtomicBool>);

impl Switch {
    fn set(&self, on: bool) {
        self.0.store(on, Ordering::SeqCst);
    }

    fn is_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A segment of its own for each of these rounds, with rows of which the next rounds kill half.
fn segments(store: &Store, rounds: std::ops::Range<u32>) {
    let notes = store.collection("notes").unwrap();
    for round in rounds {
        for n in 0..20 {
            notes
                .put(format!("k{round}-{n}"), Draft::text(format!("text {n} of {round}")))
                .unwrap();
        }
        store.checkpoint().unwrap();
        for n in 0..10 {
            notes.delete(format!("k{round}-{n}")).unwrap();
        }
    }
}

/// The first file of a merge stays, as nothing removes it; the file that says so is merged itself.
#[test]
fn a_segment_that_cannot_be_removed_does_not_come_back() {
    let (below, clock, stuck) = (MemoryDisk::new(), ManualClock::new(), Switch::default());
    let switch = stuck.clone();
    let disk = HookDisk::new(below.clone(), move |call, name| {
        let fails = call == "remove" && name == "archive/0000000001.seg" && switch.is_on();
        if fails { Err(io::Error::other("no permission")) } else { Ok(()) }
    });
    let store = open(&disk, &clock);
    segments(&store, 0..3);
    stuck.set(true);
    let error = store.vacuum().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    for more in 3..6 {
        segments(&store, more..more + 1);
        let _ = store.vacuum();
    }
    let before = dump(&store);
    assert_eq!(before.len(), 60);
    drop(store);
    // As long as it lies there, and after it has gone.
    for on in [true, false] {
        stuck.set(on);
        let copy = try_open(&disk, &clock, tiny()).unwrap();
        assert_same(&dump(&copy), &before, "opened again");
        assert!(copy.verify(Depth::Deep).unwrap().is_whole());
        copy.close().unwrap();
        assert_eq!(below.list("archive").unwrap()[0] == "0000000001.seg", on);
    }
    let store = open(&disk, &clock);
    store.vacuum().unwrap();
    assert_same(&dump(&store), &before, "merged at last");
    store.close().unwrap();
    assert_same(&dump(&open(&below, &clock)), &before, "and opened");
}

#[test]
fn a_replay_holds_one_descriptor_for_the_payloads_of_a_segment() {
    let (below, clock) = (MemoryDisk::new(), ManualClock::new());
    let opened = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&opened);
    let disk = HookDisk::new(below, move |call, name| {
        count.fetch_add(u64::from(call == "open" && name.ends_with(".wal")), Ordering::SeqCst);
        Ok(())
    });
    let store = try_open(&disk, &clock, Options { budget_bytes: None, ..tiny() }).unwrap();
    let notes = store.collection("notes").unwrap();
    for n in 0..30 {
        notes.put(format!("k{n}"), Draft::bytes(vec![n; 70_000])).unwrap();
    }
    drop(notes);
    store.close().unwrap();
    let segments = disk.list("wal").unwrap().len() as u64;
    opened.store(0, Ordering::SeqCst);
    let store = try_open(&disk, &clock, Options { budget_bytes: None, ..tiny() }).unwrap();
    let opened = opened.load(Ordering::SeqCst);
    assert!(opened <= 4 * segments + 4, "{opened} opens of {segments} segments");
    let notes = store.collection("notes").unwrap();
    for n in 0..30 {
        assert_eq!(notes.get(format!("k{n}")).unwrap().unwrap().payload, vec![n; 70_000]);
    }
}

/// A process dies with more in its log than may stay in RAM, on a disk without a byte left.
#[test]
fn a_store_that_died_on_a_full_disk_opens_and_gets_smaller() {
    for with_reserve in [true, false] {
        let (disk, clock) = (SimDisk::new(1), ManualClock::new());
        let large = || Options { budget_bytes: Some(64 << 20), ..tiny() };
        let store = try_open(&disk, &clock, large()).unwrap();
        let notes = store.collection("notes").unwrap();
        let mut rng = Rng(1);
        for n in 0..500 {
            notes.put(format!("k{n}"), Draft::bytes(rng.bytes(2_000))).unwrap();
        }
        let before = dump(&store);
        let disk = disk.fork_now();
        if !with_reserve {
            disk.remove("RESERVE").unwrap();
        }
        disk.set_capacity(Some(disk.used_bytes()));
        let store = open(&disk, &clock);
        assert_same(&dump(&store), &before, "opened on a full disk");
        if !with_reserve {
            let told = store.stats().unwrap().warnings;
            assert!(told.iter().any(|warning| warning.contains("full")), "{told:?}");
            // Somebody else frees what one checkpoint takes.
            disk.set_capacity(Some(disk.used_bytes() + (2 << 20)));
        }
        let notes = store.collection("notes").unwrap();
        for n in 0..400 {
            assert!(notes.delete(format!("k{n}")).unwrap());
        }
        store.checkpoint().unwrap();
        store.vacuum().unwrap();
        notes.put("after", Draft::text("room again")).unwrap();
        assert_eq!(dump(&store).len(), 101);
        assert!(store.verify(Depth::Deep).unwrap().is_whole());
        drop((notes, store));
        assert_eq!(dump(&open(&disk, &clock)).len(), 101);
    }
}

/// The disk has room for so many more writes to the index, and then for none, while a store with more
/// in its log than may stay in RAM is opened.
#[test]
fn a_store_opens_without_room_for_its_index() {
    for allowed in (0..60).step_by(3) {
        let (below, clock, full) = (MemoryDisk::new(), ManualClock::new(), Switch::default());
        let (switch, left) = (full.clone(), AtomicU64::new(allowed));
        let disk = HookDisk::new(below.clone(), move |call, name| {
            let grows = name == "index.redb" && ["write", "set_len"].contains(&call);
            let takes =
                || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
            if grows && switch.is_on() && takes().is_err() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        });
        let large = || Options { budget_bytes: Some(64 << 20), ..tiny() };
        let store = try_open(&below, &clock, large()).unwrap();
        let notes = store.collection("notes").unwrap();
        for n in 0..400 {
            notes.put(format!("k{n}"), Draft::text("a".repeat(500))).unwrap();
        }
        let before = dump(&store);
        drop(notes);
        store.close().unwrap();
        full.set(true);
        let context = format!("{allowed} writes");
        let store = open(&disk, &clock);
        assert_same(&dump(&store), &before, &context);
        full.set(false);
        let notes = store.collection("notes").unwrap();
        notes.put("after", Draft::text("room again")).unwrap();
        notes.delete("after").unwrap();
        store.checkpoint().unwrap();
        assert_same(&dump(&store), &before, &context);
        let report = store.verify(Depth::Deep).unwrap();
        assert!(report.is_whole(), "{context}: {:?}", report.problems);
        drop(notes);
        store.close().unwrap();
        assert_same(&dump(&open(&below, &clock)), &before, &context);
    }
}

/// The budget that a store was given is the one it is opened under, in all its shares.
#[test]
fn a_store_is_opened_under_its_own_budget() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let default = || Options { budget_bytes: None, ..tiny() };
    let store = open(&disk, &clock);
    let notes = store.collection("notes").unwrap();
    for n in 0..20_000 {
        notes.put(format!("k{n:05}"), Draft::text("a")).unwrap();
    }
    store.checkpoint().unwrap();
    store.set_budget(1 << 20).unwrap();
    drop(notes);
    store.close().unwrap();
    // Once with the setting in the log, once with it in the archive.
    for _ in 0..2 {
        let store = try_open(&disk, &clock, default()).unwrap();
        assert_eq!(store.stats().unwrap().budget_bytes, 1 << 20);
        for n in 0..20_000 {
            assert!(store.collection("notes").unwrap().contains(format!("k{n:05}")).unwrap());
        }
        let counted = store.stats().unwrap().counted_bytes;
        assert!(counted <= 1 << 20, "{counted} bytes are counted against 1 MiB");
        store.checkpoint().unwrap();
        store.close().unwrap();
    }
}

/// A bad sector in a derived file is read as an error of the disk.
#[test]
fn derived_files_that_cannot_be_read_are_made_anew() {
    let (below, clock, bad) = (MemoryDisk::new(), ManualClock::new(), Switch::default());
    let mut rng = Rng(3);
    let store = open(&below, &clock);
    let notes = store.collection("notes").unwrap();
    for n in 0..400 {
        let draft = Draft::bytes(rng.bytes(900)).vector(rng.vector(64));
        notes.put(format!("k{n}"), draft).unwrap();
    }
    store.compress().unwrap();
    let before = dump(&store);
    drop(notes);
    store.close().unwrap();
    assert!(!below.list("arena").unwrap().is_empty(), "there is a block to be damaged");
    for file in ["index.redb", "arena/"] {
        let switch = bad.clone();
        let disk = HookDisk::new(below.clone(), move |call, name| {
            // What a maker that was cut off left is removed at every opening.
            let made = call == "create" || (call == "remove" && !name.ends_with(".tmp"));
            if name.starts_with(file) && made {
                switch.set(false);
            }
            let fails = call == "read" && name.starts_with(file) && switch.is_on();
            if fails { Err(io::Error::other("bad sector")) } else { Ok(()) }
        });
        for read_only in [true, false] {
            bad.set(true);
            let store = try_open(&disk, &clock, Options { read_only, ..tiny() }).unwrap();
            let told = store.stats().unwrap().warnings;
            assert!(told.iter().any(|warning| warning.contains("bad sector")), "{told:?}");
            assert_same(&dump(&store), &before, file);
            store.close().unwrap();
        }
        bad.set(false);
        let store = open(&below, &clock);
        assert_same(&dump(&store), &before, file);
        assert!(store.verify(Depth::Deep).unwrap().is_whole());
        store.close().unwrap();
    }
}

/// Flips a bit in every page of the index that a lookup needs and the open did not.
#[test]
fn a_page_of_the_index_that_rots_in_use_is_healed() {
    for background in [false, true] {
        let (disk, clock) = (SimDisk::new(5), ManualClock::new());
        let options = || Options { background, ..tiny() };
        let store = try_open(&disk, &clock, options()).unwrap();
        let notes = store.collection("notes").unwrap();
        for n in 0..8_000 {
            notes.put(format!("k{n:05}"), Draft::text("a")).unwrap();
        }
        store.checkpoint().unwrap();
        drop(notes);
        store.close().unwrap();
        let store = try_open(&disk, &clock, options()).unwrap();
        let notes = store.collection("notes").unwrap();
        let pages = read_whole(&disk, "index.redb", 1 << 30).unwrap().len() as u64 / 4096;
        // All but the headers, the pages of checksums, and the root that is in the cache.
        for page in (3..pages).filter(|page| page % 1025 != 2) {
            disk.flip_bit("index.redb", page * 4096 + 2_000, 3).unwrap();
        }
        let first = notes.get("k04000").unwrap_err();
        assert_eq!(first.kind(), ErrorKind::Corrupt);
        let mut tries = 0;
        let entry = loop {
            match notes.get("k04000") {
                Ok(entry) => break entry.unwrap(),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}"),
            }
            tries += 1;
            assert!(background && tries < 1000, "it stays broken");
            std::thread::sleep(std::time::Duration::from_millis(10));
        };
        assert_eq!(entry.text(), Some("a"));
        assert_eq!(notes.count(None).unwrap(), 8_000);
        notes.put("k04000", Draft::text("b")).unwrap();
        store.checkpoint().unwrap();
        let report = store.verify(Depth::Deep).unwrap();
        assert!(report.is_whole(), "{:?}", report.problems);
        let told = store.stats().unwrap().warnings;
        assert!(told.iter().any(|warning| warning.contains("rebuilt")), "{told:?}");
    }
}

/// The same page, met by an open that carries a long log into the archive.
#[test]
fn a_page_of_the_index_that_rots_is_healed_by_an_open() {
    let (disk, clock) = (SimDisk::new(5), ManualClock::new());
    let large = || Options { budget_bytes: Some(64 << 20), ..tiny() };
    let store = try_open(&disk, &clock, large()).unwrap();
    let notes = store.collection("notes").unwrap();
    for round in 0..2 {
        for n in 0..6_000 {
            notes.put(format!("k{n:05}"), Draft::text(format!("round {round}"))).unwrap();
        }
        if round == 0 {
            store.checkpoint().unwrap();
        }
    }
    let before = dump(&store);
    drop(notes);
    store.close().unwrap();
    let pages = read_whole(&disk, "index.redb", 1 << 30).unwrap().len() as u64 / 4096;
    let (mut healed, mut met_later) = (0, 0);
    for page in (3..pages).step_by(7) {
        let disk = disk.fork_now();
        disk.flip_bit("index.redb", page * 4096 + 2_000, 3).unwrap();
        let store = open(&disk, &clock);
        let found = try_dump(&store).or_else(|error| {
            // The open had no need of this page. Who meets it is told, and the next one finds it healed.
            assert_eq!(error.kind(), ErrorKind::Corrupt, "page {page}: {error}");
            met_later += 1;
            try_dump(&store)
        });
        assert_same(&found.unwrap(), &before, &format!("page {page}"));
        let told = store.stats().unwrap().warnings;
        healed += u32::from(told.iter().any(|warning| warning.contains("rebuilt")));
    }
    assert!(healed > 5 && met_later < 3, "{healed} were healed, {met_later} not by the open");
}

/// After a kill, redb reads pages when it closes that nobody asked for before.
#[test]
fn a_page_of_the_index_that_rots_is_no_matter_for_a_close() {
    let (disk, clock) = (SimDisk::new(5), ManualClock::new());
    let store = open(&disk, &clock);
    let notes = store.collection("notes").unwrap();
    for round in 0..3 {
        for n in 0..300 {
            notes.put(format!("k{n:05}"), Draft::text(format!("round {round}"))).unwrap();
        }
        store.checkpoint().unwrap();
    }
    let others = |mut all: Model| {
        all.retain(|path, _| path.2 != b"k00007");
        all
    };
    let before = others(dump(&store));
    let killed = disk.fork_now();
    let pages = read_whole(&killed, "index.redb", 1 << 30).unwrap().len() as u64 / 4096;
    for page in 3..pages {
        let disk = killed.fork_now();
        disk.flip_bit("index.redb", page * 4096 + 20, 3).unwrap();
        for _ in 0..2 {
            open(&disk, &clock).close().unwrap_or_else(|error| panic!("page {page}: {error}"));
        }
        let store = open(&disk, &clock);
        let notes = store.collection("notes").unwrap();
        // What meets the page first fails, and has the index made anew.
        let put = || notes.put("k00007", Draft::text("round 2"));
        put().or_else(|_| put()).unwrap_or_else(|error| panic!("page {page}: {error}"));
        store.checkpoint().or_else(|_| store.checkpoint()).unwrap();
        assert_eq!(notes.count(None).or_else(|_| notes.count(None)).unwrap(), 300, "page {page}");
        let all = try_dump(&store).or_else(|_| try_dump(&store)).unwrap();
        assert_same(&others(all), &before, &format!("page {page}"));
        assert!(store.verify(Depth::Deep).unwrap().is_whole(), "page {page}");
    }
}

/// One damaged segment is left out of a vacuum, and all others are worked on.
#[test]
fn a_vacuum_goes_round_a_damaged_segment() {
    let (disk, clock) = (SimDisk::new(6), ManualClock::new());
    let store = open(&disk, &clock);
    segments(&store, 0..4);
    store.checkpoint().unwrap();
    // Into the bodies of the second one, which no open reads.
    disk.flip_bit("archive/0000000002.seg", 100, 1).unwrap();
    let report = store.vacuum().unwrap();
    assert!(report.rows_moved >= 30, "{report:?}");
    assert!(report.bytes_after < report.bytes_before, "{report:?}");
    let told = store.stats().unwrap().warnings;
    assert!(told.iter().any(|warning| warning.contains("0000000002.seg")), "{told:?}");
    assert!(disk.file_names().contains(&"archive/0000000002.seg".to_owned()));
    let notes = store.collection("notes").unwrap();
    for round in [0, 2, 3] {
        for n in 10..20 {
            assert!(notes.get(format!("k{round}-{n}")).unwrap().is_some());
        }
    }
    // It is no different the next time.
    store.vacuum().unwrap();
}

#[test]
fn a_verify_beside_writers_finds_nothing_wrong() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    let options = Options { budget_bytes: Some(4 << 20), ..Options::default() };
    let store = Store::builder(&path).options(options).open().unwrap();
    let notes = store.collection("notes").unwrap();
    let done = Switch::default();
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let (notes, done) = (&notes, &done);
            scope.spawn(move || {
                let mut n = 0;
                while !done.is_on() {
                    notes
                        .put(format!("{writer}-{}", n % 500), Draft::text("x".repeat(3_000)))
                        .unwrap();
                    n += 1;
                }
            });
        }
        let mut problems = Vec::new();
        // Some forty checkpoints.
        while store.stats().unwrap().applied_lsn < Lsn(6_000) {
            problems
                .extend(store.verify(Depth::Fast).unwrap().problems.into_iter().map(|p| p.message));
            let files = pmll::inspect::Files::open(&path).unwrap();
            problems.extend(files.log().into_iter().flat_map(|report| report.problems));
        }
        done.set(true);
        assert!(problems.is_empty(), "{problems:?}");
    });
}

/// What one step of a vacuum holds in RAM goes by the decoded size: these rows are mostly nothing on
/// disk, and each step of them makes one new segment.
#[test]
fn a_vacuum_of_what_compresses_well_goes_in_steps() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let options = || Options { budget_bytes: Some(512 << 20), ..tiny() };
    let store = try_open(&disk, &clock, options()).unwrap();
    let notes = store.collection("notes").unwrap();
    for n in 0..600 {
        notes.put(format!("k{n}"), Draft::bytes(vec![7; 60_000])).unwrap();
    }
    store.checkpoint().unwrap();
    for n in 0..200 {
        notes.delete(format!("k{n}")).unwrap();
    }
    let report = store.vacuum().unwrap();
    assert_eq!(report.rows_moved, 400);
    // 400 rows of 60 kB are 24 MB, and a step holds 8 MiB.
    assert!(report.segments_after >= 3, "{report:?}");
    let before = dump(&store);
    assert_eq!(before.len(), 400);
    assert!(store.verify(Depth::Deep).unwrap().is_whole());
    drop(notes);
    store.close().unwrap();
    disk.remove("index.redb").unwrap();
    let store = try_open(&disk, &clock, options()).unwrap();
    assert_same(&dump(&store), &before, "rebuilt");
}
