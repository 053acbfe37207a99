//! Vacuum: which segments it takes, how many at once, and what has to be in the one it writes for them.
//!
//! That nothing is lost or comes back is asked with the index that the vacuum left, and with one that is
//! made anew from the archive alone.

use std::sync::Arc;

use pmll::io::{Disk, MemoryDisk, OpenMode};
use pmll::{Batch, Collection, Draft, Options, Store};

use crate::support::{ManualClock, Model, Rng, assert_same, dump, tiny, try_open};

/// Room for everything, so that nothing is archived or merged but when a test says so.
fn roomy() -> Options {
    Options { budget_bytes: Some(512 << 20), ..tiny() }
}

struct World {
    disk: MemoryDisk,
    clock: Arc<ManualClock>,
    store: Store,
}

impl World {
    fn new() -> World {
        let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
        let store = try_open(&disk, &clock, roomy()).unwrap();
        World { disk, clock, store }
    }

    fn notes(&self) -> Collection {
        self.store.collection("notes").unwrap()
    }

    /// So many entries of so many bytes in a segment of their own.
    fn segment(&self, name: &str, entries: usize, bytes: usize) {
        let notes = self.notes();
        for chunk in (0..entries).collect::<Vec<_>>().chunks(500) {
            let batch = chunk.iter().fold(Batch::new(), |batch, n| {
                batch.put(&notes, format!("{name}{n}"), Draft::bytes(vec![*n as u8 | 1; bytes]))
            });
            self.store.write(batch).unwrap();
        }
        self.store.checkpoint().unwrap();
    }

    fn delete(&self, name: &str, entries: std::ops::Range<usize>) {
        for n in entries {
            assert!(self.notes().delete(format!("{name}{n}")).unwrap());
        }
    }

    fn segments(&self) -> usize {
        self.disk.list("archive").unwrap().len()
    }

    /// The store with an index that is made from the archive alone.
    fn rebuilt(self) -> World {
        let World { disk, clock, store } = self;
        store.close().unwrap();
        disk.remove("index.redb").unwrap();
        let store = try_open(&disk, &clock, roomy()).unwrap();
        World { disk, clock, store }
    }

    /// Nothing but the order of the files has changed.
    fn still_holds(self, before: &Model) -> World {
        assert_same(&dump(&self.store), before, "after the vacuum");
        let world = self.rebuilt();
        assert_same(&dump(&world.store), before, "rebuilt");
        world
    }
}

#[test]
fn more_than_a_quarter_must_be_dead() {
    let world = World::new();
    // More rows than are read at once, in two groups, some of them with payloads that stay in the archive.
    let other = world.store.collection("other").unwrap();
    for n in 0..40 {
        other.put(format!("o{n}"), Draft::text(format!("other {n}"))).unwrap();
        world.notes().put(format!("large{n}"), Draft::bytes(vec![n; 70_000])).unwrap();
    }
    world.segment("k", 2320, 20);
    world.delete("k", 0..600);
    world.store.checkpoint().unwrap();
    let report = world.store.vacuum().unwrap();
    assert_eq!(report.rows_moved, 0, "600 of 2400 rows are a quarter");
    world.delete("k", 600..601);
    world.store.checkpoint().unwrap();
    let before = dump(&world.store);
    assert_eq!(before.len(), 1799);
    let report = world.store.vacuum().unwrap();
    assert_eq!(report.rows_moved, 1799, "{report:?}");
    world.still_holds(&before);
}

#[test]
fn a_step_takes_as_many_segments_as_it_may_hold() {
    for (rows, after) in [(20, 1), (80, 2)] {
        let world = World::new();
        for name in ["a", "b", "c"] {
            world.segment(name, rows, 60_000);
        }
        for name in ["a", "b", "c"] {
            world.delete(name, 0..rows * 3 / 8);
        }
        let before = dump(&world.store);
        let report = world.store.vacuum().unwrap();
        assert_eq!(report.rows_moved as usize, 3 * (rows - rows * 3 / 8));
        // Of 50 rows with 60 kB two segments fit into 8 MiB. The checkpoint that archives the deletions
        // makes one more, with nothing but them.
        assert_eq!(report.segments_after, after + 1, "{rows} rows: {report:?}");
        world.still_holds(&before);
    }
}

#[test]
fn eight_small_segments_become_one_and_seven_stay() {
    for (count, after) in [(7, 7), (8, 1)] {
        let world = World::new();
        for n in 0..count {
            world.segment(&format!("s{n}-"), 5, 100);
        }
        let before = dump(&world.store);
        assert_eq!(world.segments(), count);
        world.store.vacuum().unwrap();
        assert_eq!(world.segments(), after);
        world.still_holds(&before);
    }
}

#[test]
fn a_large_segment_is_no_small_one() {
    let world = World::new();
    // What compresses to nothing is small by its bytes and large by what a merge of it holds.
    for n in 0..8 {
        world.segment(&format!("s{n}-"), 40, 60_000);
    }
    let before = dump(&world.store);
    // Three of them fill a step, and a run of three is too short.
    world.store.vacuum().unwrap();
    assert_eq!(world.segments(), 8);
    world.still_holds(&before);
}

#[test]
fn a_deletion_is_kept_as_long_as_an_older_row_may_come_back() {
    let world = World::new();
    world.segment("old", 40, 20);
    world.segment("new", 40, 20);
    // The deletions stand with rows that die, and the rows they are about stay where they are.
    world.delete("old", 0..4);
    world.segment("mixed", 40, 20);
    world.delete("mixed", 0..20);
    world.store.checkpoint().unwrap();
    let before = dump(&world.store);
    assert_eq!(before.len(), 96);
    assert_eq!(world.store.vacuum().unwrap().rows_moved, 20);
    world.still_holds(&before);
}

#[test]
fn a_request_is_known_after_its_segment_was_merged() {
    let world = World::new();
    let notes = world.notes();
    let ask = |notes: &Collection| Batch::new().request(77, 1).add(notes, Draft::text("once"));
    world.store.write(ask(&notes)).unwrap();
    world.segment("k", 40, 20);
    world.delete("k", 0..20);
    world.store.checkpoint().unwrap();
    assert!(world.store.vacuum().unwrap().rows_moved > 0);
    let before = dump(&world.store);
    drop(notes);
    let world = world.still_holds(&before);
    world.store.write(ask(&world.notes())).unwrap();
    assert_same(&dump(&world.store), &before, "the same request again");
}

#[test]
fn a_segment_with_a_rotten_payload_is_left_as_it_is() {
    let world = World::new();
    let large = Rng(5).bytes(70_000);
    world.notes().put("large", Draft::bytes(large.clone())).unwrap();
    world.segment("k", 40, 20);
    world.delete("k", 0..20);
    world.store.checkpoint().unwrap();
    let World { disk, clock, store } = world;
    store.close().unwrap();
    let name = format!("archive/{}", disk.list("archive").unwrap()[0]);
    let file = disk.open(&name, OpenMode::ReadWrite).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let at = bytes.windows(64).position(|part| *part == large[..64]).expect("it stands there");
    file.write_at(&[!large[9]], at as u64 + 9).unwrap();
    let store = try_open(&disk, &clock, roomy()).unwrap();
    let report = store.vacuum().unwrap();
    assert_eq!((report.damaged, report.rows_moved), (1, 0), "{report:?}");
    assert!(store.collection("notes").unwrap().contains("k30").unwrap());
}

/// Every file that holds a piece of it.
fn holders(disk: &MemoryDisk, piece: &[u8]) -> Vec<String> {
    let folders = ["wal", "archive", "arena", "columns"].map(|folder| {
        let names = disk.list(folder).unwrap();
        names.into_iter().map(move |name| format!("{folder}/{name}"))
    });
    let names = folders.into_iter().flatten().chain(["index.redb".to_owned()]);
    names
        .filter(|name| {
            let file = disk.open(name, OpenMode::Read).unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes.windows(piece.len()).any(|part| part == piece)
        })
        .collect()
}

/// A segment of the log is used again for the next one, with what it held in it. What was deleted must
/// not stay there.
#[test]
fn what_was_deleted_is_in_no_file_after_a_vacuum() {
    const SECRET: &[u8] = b"nobody shall ever read this again";
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = try_open(&disk, &clock, tiny()).unwrap();
    let notes = store.collection("notes").unwrap();
    let fill = |name: &str, entries: usize, payload: &[u8]| {
        for n in 0..entries {
            notes.put(format!("{name}{n}"), Draft::bytes(payload)).unwrap();
        }
    };
    for later in 0..3 {
        let name = format!("secret{later}-");
        fill(&name, 400, &SECRET.repeat(8));
        store.checkpoint().unwrap();
        // Into a segment that held some of them, as far as it goes.
        fill("other", later, b"something else");
        let held = holders(&disk, SECRET);
        assert!(held.iter().any(|file| file.starts_with("wal/")), "{later}: {held:?}");
        for n in 0..400 {
            assert!(notes.delete(format!("{name}{n}")).unwrap());
        }
        store.vacuum().unwrap();
        assert_eq!(holders(&disk, SECRET), Vec::<String>::new(), "after vacuum {later}");
        fill("more", later * 3, b"something else");
        assert_eq!(holders(&disk, SECRET), Vec::<String>::new(), "and writes");
    }
    store.checkpoint().unwrap();
    drop(notes);
    store.close().unwrap();
    let held = holders(&disk, b"something else");
    assert!(held.iter().all(|file| file.starts_with("archive/")), "no old bytes: {held:?}");
    assert!(
        disk.list("wal").unwrap().iter().all(|name| name.ends_with(".wal")),
        "a close keeps none"
    );
}
