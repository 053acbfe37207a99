//! Files that do not belong together: of a newer format, of another store, of another time.
//!
//! What is truth (log, archive) is refused, and the directory stays as it is; what is derived (arena,
//! columns) is left out and made anew.

use std::sync::Arc;

use pmll::io::sim::{Profile, SimDisk};
use pmll::io::{Disk, OpenMode};
use pmll::{Depth, Draft, ErrorKind, Options, Store};

use crate::support::{ManualClock, Rng, assert_same, dump, open, tiny, try_open};

fn read_only() -> Options {
    Options { read_only: true, ..tiny() }
}

/// Another chapter of a store: some entries, most of them archived.
fn chapter(store: &Store, number: u64) {
    let mut rng = Rng(number);
    let notes = store.collection("notes").unwrap();
    for n in 0..20 {
        let draft = Draft::text(rng.text(8)).vector(rng.vector(16));
        notes.put(format!("k{number}-{n}"), draft).unwrap();
    }
    store.checkpoint().unwrap();
    notes.get(format!("k{number}-1")).unwrap();
    notes.put(format!("logged-{number}"), Draft::text("in the log")).unwrap();
}

/// A closed store with two archive segments, a log, an arena block and columns.
fn filled(clock: &Arc<ManualClock>) -> SimDisk {
    let disk = SimDisk::new(0);
    let store = open(&disk, clock);
    chapter(&store, 1);
    chapter(&store, 2);
    store.compress_with(pmll::Policy::Paper).unwrap();
    store.close().unwrap();
    disk
}

fn names(disk: &SimDisk, folder: &str) -> Vec<String> {
    disk.file_names().into_iter().filter(|name| name.starts_with(folder)).collect()
}

/// Puts these bytes under a name, in place of what may be there.
fn put_file(disk: &SimDisk, name: &str, bytes: &[u8]) {
    let _ = disk.remove(name);
    let file = disk.open(name, OpenMode::CreateNew).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(name.rsplit_once('/').map_or("", |(folder, _)| folder)).unwrap();
}

/// Refused whoever opens it, and not a byte is changed.
#[track_caller]
fn assert_refused(disk: &SimDisk, clock: &Arc<ManualClock>, kind: ErrorKind, file: &str) {
    // All but the process number in LOCK, which is a hint; and the index, which is derived, may be
    // tidied by its own open before a mixture is found.
    let is_kept = |n: &String| n != "LOCK" && (kind == ErrorKind::Version || n != "index.redb");
    let files = || {
        // What a reader finds, synced or not.
        let shown = disk.crash_images(Profile::Kill, 1).remove(0);
        let named = |name: String| (shown.durable_bytes(&name), name);
        disk.file_names().into_iter().filter(is_kept).map(named).collect::<Vec<_>>()
    };
    let before = files();
    for options in [tiny(), read_only()] {
        let error = try_open(disk, clock, options).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(file), "{file}: {error}");
    }
    assert!(files() == before, "{file}: something was written");
}

/// The format number of a header of 64 bytes, with the CRC that its writer would have given it.
fn newer(disk: &SimDisk, name: &str) {
    let mut header = disk.durable_bytes(name).unwrap()[..64].to_vec();
    header[8..12].copy_from_slice(&7u32.to_le_bytes());
    let crc = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    disk.set_bytes(name, 0, &header).unwrap();
}

#[test]
fn a_newer_format_of_a_file_is_refused_and_left_alone() {
    let clock = ManualClock::new();
    let original = filled(&clock);
    for folder in ["wal/", "archive/"] {
        for name in names(&original, folder) {
            let disk = original.fork_now();
            newer(&disk, &name);
            assert_refused(&disk, &clock, ErrorKind::Version, &name);
        }
    }
}

#[test]
fn a_newer_format_of_a_derived_file_costs_nothing() {
    let clock = ManualClock::new();
    let original = filled(&clock);
    let whole = dump(&open(&original.fork_now(), &clock));
    let (blocks, columns) = (names(&original, "arena/"), names(&original, "columns/"));
    assert!(!blocks.is_empty() && !columns.is_empty());
    for name in blocks.iter().chain(&columns) {
        let disk = original.fork_now();
        if name.starts_with("arena/") {
            newer(&disk, name);
        } else {
            // Its magic stands at the end, or at the start of a list.
            let mut bytes = disk.durable_bytes(name).unwrap();
            if let Some(at) = bytes.windows(7).position(|part| part == b"pmllcol") {
                bytes[at + 7] = b'9';
                let list = bytes.len() - 40;
                assert_eq!(at, list, "the tail has 40 bytes");
            } else {
                bytes[7] = b'9';
            }
            disk.set_bytes(name, 0, &bytes).unwrap();
        }
        let store = open(&disk, &clock);
        assert_same(&dump(&store), &whole, name);
        assert!(store.verify(Depth::Deep).unwrap().is_whole(), "{name}");
    }
}

#[test]
fn files_of_two_stores_are_not_mixed() {
    let clock = ManualClock::new();
    let (mine, other) = (filled(&clock), filled(&clock));
    let whole = dump(&open(&mine.fork_now(), &clock));
    for folder in ["wal/", "archive/", "arena/", "columns/"] {
        for name in names(&other, folder) {
            let disk = mine.fork_now();
            put_file(&disk, &name, &other.durable_bytes(&name).unwrap());
            if folder == "wal/" || folder == "archive/" {
                assert_refused(&disk, &clock, ErrorKind::Corrupt, &name);
                continue;
            }
            let store = open(&disk, &clock);
            assert_same(&dump(&store), &whole, &name);
            assert!(store.verify(Depth::Deep).unwrap().is_whole(), "{name}");
        }
    }
    // An index of another store names files that are not these; it is made anew.
    let disk = mine.fork_now();
    put_file(&disk, "index.redb", &other.durable_bytes("index.redb").unwrap());
    let store = open(&disk, &clock);
    assert_same(&dump(&store), &whole, "the other's index");
    assert!(store.verify(Depth::Deep).unwrap().is_whole());
}

/// Two copies of one store went their own ways, and an archive segment of one came into the other.
#[test]
fn archive_segments_of_two_times_are_not_mixed() {
    let clock = ManualClock::new();
    let first = filled(&clock);
    let second = first.fork_now();
    for (disk, chapters) in [(&first, 3..6), (&second, 7..9)] {
        let store = open(disk, &clock);
        chapters.for_each(|number| chapter(&store, number));
        store.close().unwrap();
    }
    let mut mixed = 0;
    let newest = names(&first, "archive/").pop().unwrap();
    for name in names(&second, "archive/").into_iter().filter(|name| *name != newest) {
        let (theirs, ours) = (second.durable_bytes(&name), first.durable_bytes(&name));
        if ours.is_none() || theirs == ours {
            continue;
        }
        for index in [true, false] {
            let disk = first.fork_now();
            put_file(&disk, &name, &theirs.clone().unwrap());
            if !index {
                disk.remove("index.redb").unwrap();
                disk.sync_dir("").unwrap();
            }
            assert_refused(
                &disk,
                &clock,
                ErrorKind::Corrupt,
                "other archive segments than there are",
            );
            mixed += 1;
        }
    }
    assert!(mixed >= 2, "{mixed}");
}

/// The one mixture that no other file contradicts: the newest segment, of a fork of this store.
#[test]
fn an_index_is_not_believed_about_a_segment_it_does_not_name() {
    let clock = ManualClock::new();
    let first = filled(&clock);
    let second = first.fork_now();
    for (disk, number) in [(&first, 3), (&second, 7)] {
        let store = open(disk, &clock);
        let notes = store.collection("notes").unwrap();
        notes.put("last", Draft::text(format!("chapter {number}"))).unwrap();
        store.checkpoint().unwrap();
        store.close().unwrap();
    }
    let newest = names(&first, "archive/").pop().unwrap();
    assert_eq!(names(&second, "archive/").pop().unwrap(), newest);
    put_file(&first, &newest, &second.durable_bytes(&newest).unwrap());
    let store = open(&first, &clock);
    let warnings = store.stats().unwrap().warnings;
    assert!(warnings.iter().any(|text| text.contains("names another file")), "{warnings:?}");
    let report = store.verify(Depth::Deep).unwrap();
    assert!(report.is_whole(), "{:?}", report.problems);
}
