//! Files as nobody wants them: of a newer format, on a read-only disk, on a full one, damaged.
//!
//! What is asked of the store: it says so with the right kind, it touches nothing it does not
//! understand, it never answers with something that was not written, and nothing acknowledged is
//! lost. A full disk is passing: reads go on, and writes work again when there is room.

use std::os::unix::fs::PermissionsExt;

use pmll::io::Disk;
use pmll::io::sim::{Fault, Profile, SimDisk};
use pmll::{Depth, Draft, ErrorKind, Options, Query, Store};

use super::{expect_error, tree};
use crate::support::disks::SealedDisk;
use crate::support::{ManualClock, Model, Rng, assert_same, dump, open, tiny, try_dump, try_open};

const FORMAT_FILE: &str = "store.toml";

fn read_only() -> Options {
    Options { read_only: true, ..tiny() }
}

/// Some entries in two archive segments, and some in the log.
fn fill(store: &Store) {
    let mut rng = Rng(3);
    let notes = store.collection("notes").unwrap();
    for n in 0..120 {
        let draft = Draft::text(rng.text(20)).vector(rng.vector(16)).attr("n", n);
        notes.put(format!("k{n}"), draft).unwrap();
        if n == 50 || n == 90 {
            store.checkpoint().unwrap();
        }
    }
    notes.put("large", Draft::bytes(rng.bytes(90_000))).unwrap();
    notes.delete("k7").unwrap();
}

/// A format file with another format or features, signed as its writer would.
fn format_file(original: &str, format: &str, required: &[&str]) -> String {
    let table: toml::Table = original.parse().unwrap();
    let id = table["id"].as_str().unwrap();
    let mut crc = crc32fast::Hasher::new();
    for part in [format, id].into_iter().chain(required.iter().copied()) {
        crc.update(part.as_bytes());
        crc.update(&[0]);
    }
    let crc = crc.finalize();
    format!("format = {format:?}\nid = {id:?}\nrequired = {required:?}\ncrc = {crc}\n")
}

#[test]
fn a_newer_format_is_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    let store = Store::open(&path).unwrap();
    fill(&store);
    let whole = dump(&store);
    store.close().unwrap();
    let file = path.join(FORMAT_FILE);
    let original = std::fs::read_to_string(&file).unwrap();
    let format = original.parse::<toml::Table>().unwrap()["format"].as_str().unwrap().to_owned();
    for (format, required) in [("7", &[][..]), (&*format, &["sketches"]), ("", &[])] {
        std::fs::write(&file, format_file(&original, format, required)).unwrap();
        let before = tree(&path);
        for options in [tiny(), read_only()] {
            let error = Store::builder(&path).options(options).open().unwrap_err();
            expect_error(&error, ErrorKind::Version, &[format]);
            assert_eq!(tree(&path), before);
        }
    }
    // The same bytes as the store itself writes are no newer format: the test signs as it does.
    std::fs::write(&file, format_file(&original, &format, &[])).unwrap();
    assert_same(&dump(&Store::open(&path).unwrap()), &whole, "own format");
}

#[test]
fn a_damaged_format_file_makes_no_other_store() {
    let (disk, clock) = (SimDisk::new(0), ManualClock::new());
    let store = open(&disk, &clock);
    fill(&store);
    let whole = dump(&store);
    store.close().unwrap();
    let len = disk.durable_bytes(FORMAT_FILE).unwrap().len() as u64;
    let mut refused = 0;
    for offset in 0..len {
        for bit in [0, 3, 6, 7] {
            let disk = disk.fork_now();
            disk.flip_bit(FORMAT_FILE, offset, bit).unwrap();
            let calls = disk.op_count();
            match try_open(&disk, &clock, tiny()) {
                Ok(store) => assert_same(&dump(&store), &whole, "a flip that means nothing"),
                Err(error) => {
                    let kinds = [ErrorKind::Corrupt, ErrorKind::Version];
                    assert!(kinds.contains(&error.kind()), "{error:?}");
                    assert!(error.to_string().contains("store"), "{error}");
                    assert_eq!(disk.op_count(), calls, "a store that is refused is not touched");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > len * 2, "{refused} of {}", len * 4);
}

/// Opens read-only on a disk that refuses to be changed; the content must be all there.
fn check_sealed(disk: &SimDisk, clock: &std::sync::Arc<ManualClock>, whole: &Model, case: &str) {
    let sealed = SealedDisk::new(disk.fork_now());
    let store = try_open(&sealed, clock, read_only()).unwrap();
    assert_same(&dump(&store), whole, case);
    let notes = store.find_collection("notes").unwrap().unwrap();
    notes.get("k1").unwrap().unwrap();
    assert_eq!(notes.search(Query::vector(vec![1.0; 16]).k(5)).unwrap().len(), 5);
    assert!(store.verify(Depth::Deep).unwrap().is_whole(), "{case}");
    let kinds = [
        notes.put("new", Draft::text("")).unwrap_err().kind(),
        notes.delete("k1").unwrap_err().kind(),
        notes.touch("k1").unwrap_err().kind(),
        store.collection("new").unwrap_err().kind(),
        store.drop_collection("notes").unwrap_err().kind(),
        store.set_budget(2 << 20).unwrap_err().kind(),
        store.checkpoint().unwrap_err().kind(),
        store.vacuum().unwrap_err().kind(),
        store.sync().unwrap_err().kind(),
    ];
    assert_eq!(kinds, [ErrorKind::ReadOnly; 9], "{case}");
    drop(notes);
    store.close().unwrap();
    assert_eq!(sealed.attempts(), 0, "{case}");
}

#[test]
fn a_read_only_store_is_read_whole_and_never_written() {
    let (disk, clock) = (SimDisk::new(0), ManualClock::new());
    let store = open(&disk, &clock);
    fill(&store);
    let whole = dump(&store);
    check_sealed(&disk, &clock, &whole, "after a crash");
    for image in disk.crash_images(Profile::Posix, 5) {
        check_sealed(&image, &clock, &whole, "after a power cut");
    }
    store.close().unwrap();
    check_sealed(&disk, &clock, &whole, "closed in order");
    disk.remove("index.redb").unwrap();
    check_sealed(&disk, &clock, &whole, "without its index");
    disk.remove("LOCK").unwrap();
    check_sealed(&disk, &clock, &whole, "without its lock file");
}

#[test]
fn a_read_only_directory_stays_as_it_is() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    let store = Store::open(&path).unwrap();
    fill(&store);
    let whole = dump(&store);
    store.close().unwrap();
    let before = tree(&path);
    let set = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set(0o500);
    let opened = Store::builder(&path).options(read_only()).open();
    let read = opened.and_then(|store| {
        let read = try_dump(&store)?;
        store.close()?;
        Ok(read)
    });
    set(0o700);
    assert_same(&read.unwrap(), &whole, "read-only");
    assert_eq!(tree(&path), before);
    let missing = parent.path().join("missing");
    let error = Store::builder(&missing).options(read_only()).open().unwrap_err();
    expect_error(&error, ErrorKind::NotFound, &["missing"]);
    assert!(!missing.exists());
}

/// The disk is full from some call on, then has room again.
#[test]
fn a_full_disk_fails_writes_and_loses_nothing() {
    let (disk, clock) = (SimDisk::new(0), ManualClock::new());
    let store = open(&disk, &clock);
    fill(&store);
    drop(store);
    let mut full = 0;
    for after in (0..60).chain([80, 100, 150, 250]) {
        let disk = disk.fork_now();
        let store = open(&disk, &clock);
        let notes = store.collection("notes").unwrap();
        let mut whole = dump(&store);
        disk.fail_at(disk.op_count() + after, Fault::Enospc, true);
        let mut rng = Rng(after);
        let context = format!("full after {after} calls");
        for n in 0..40 {
            let draft = Draft::bytes(rng.bytes(3_000)).vector(rng.vector(16));
            match notes.put(format!("late-{n}"), draft) {
                Ok(_) => whole = dump(&store),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Full, "{context}: {error:?}");
                    full += 1;
                }
            }
            if n == 20 {
                match store.checkpoint() {
                    Ok(_) => {}
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Full, "{context}: {error:?}");
                        full += 1;
                    }
                }
            }
            assert_same(&dump(&store), &whole, &context);
        }
        for image in disk.crash_images(Profile::Posix, 4) {
            image.clear_faults();
            assert_same(&dump(&open(&image, &clock)), &whole, &format!("{context}, then a crash"));
        }
        disk.clear_faults();
        notes.put("room", Draft::text("again")).unwrap_or_else(|e| panic!("{context}: {e:?}"));
        store.checkpoint().unwrap_or_else(|e| panic!("{context}: {e:?}"));
        let whole = dump(&store);
        drop(notes);
        store.close().unwrap_or_else(|e| panic!("{context}: {e:?}"));
        let store = open(&disk, &clock);
        assert_same(&dump(&store), &whole, &format!("{context}, opened again"));
        assert!(store.verify(Depth::Deep).unwrap().is_whole(), "{context}");
    }
    assert!(full > 1_000, "{full} calls met the full disk");
}

/// Reads everything there is in a store with a damaged byte. Whatever is answered must be right.
fn read_around(store: &Store, whole: &Model, file: &str, context: &str) -> (usize, usize) {
    let (mut right, mut refused) = (0, 0);
    let notes = store.find_collection("notes").unwrap().unwrap();
    for (path, expected) in whole {
        match notes.get(&path.2) {
            Ok(Some(entry)) => {
                assert_eq!(entry.payload, expected.payload, "{context}: {path:?}");
                assert_eq!(entry.vector, expected.vector, "{context}: {path:?}");
                assert_eq!(entry.attributes, expected.attributes, "{context}: {path:?}");
                right += 1;
            }
            Ok(None) => panic!("{context}: {path:?} is silently gone"),
            Err(error) => {
                expect_error(&error, ErrorKind::Corrupt, &[file, "offset"]);
                refused += 1;
            }
        }
    }
    match try_dump(store) {
        Ok(read) => assert_same(&read, whole, context),
        Err(error) => expect_error(&error, ErrorKind::Corrupt, &[file]),
    }
    let hits = notes.search(Query::vector(vec![1.0; 16]).k(1_000)).expect("a search goes on");
    let vectors = whole.values().filter(|entry| entry.vector.is_some()).count();
    // A damaged row that the log supersedes is named all the same: nobody can tell whose it is.
    let named = !hits.damaged().is_empty();
    assert!(hits.len() == vectors || (named && hits.len() < vectors), "{context}");
    hits.damaged().iter().for_each(|error| expect_error(error, ErrorKind::Corrupt, &[file]));
    assert!(notes.get("k7").unwrap().is_none(), "{context}: a deleted entry came back");
    (right, refused)
}

#[test]
fn a_damaged_byte_is_never_an_answer() {
    let (disk, clock) = (SimDisk::new(0), ManualClock::new());
    let store = open(&disk, &clock);
    fill(&store);
    let whole = dump(&store);
    store.close().unwrap();
    let mut rng = Rng(1);
    let (mut unopened, mut rights, mut refusals) = (0, 0, 0);
    let files = disk.file_names();
    assert!(files.iter().filter(|name| name.starts_with("archive/")).count() >= 2, "{files:?}");
    for file in files.iter().filter(|name| *name != "LOCK" && *name != FORMAT_FILE) {
        let bytes = disk.durable_bytes(file).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for _ in 0..120.min(used * 4) {
            let (offset, bit) = (rng.below(used) as u64, u8::try_from(rng.below(8)).unwrap());
            let disk = disk.fork_now();
            disk.flip_bit(file, offset, bit).unwrap();
            let context = format!("{file}, bit {bit} of byte {offset}");
            match try_open(&disk, &clock, tiny()) {
                Err(error) => {
                    expect_error(&error, ErrorKind::Corrupt, &[file]);
                    assert!(!file.starts_with("columns") && file != "index.redb", "{error}");
                    unopened += 1;
                }
                Ok(store) => {
                    let report = store.verify(Depth::Deep).unwrap();
                    let (right, refused) = read_around(&store, &whole, file, &context);
                    assert!(right > whole.len() / 2, "{context}: only {right} readable");
                    assert!(refused == 0 || !report.is_whole(), "{context}: verify saw nothing");
                    (rights, refusals) = (rights + right, refusals + refused);
                }
            }
        }
    }
    assert!(unopened > 50 && rights > 1_000 && refusals > 50, "{unopened} {rights} {refusals}");
}
