//! One script, run on every disk: what the store may rely on, whatever is below.

use std::io::ErrorKind;
use std::sync::Arc;

use super::*;

fn on_every_disk(script: impl Fn(&dyn Disk)) {
    let parent = tempfile::tempdir().unwrap();
    script(&FileDisk::create(&parent.path().join("store")).unwrap());
    script(&MemoryDisk::new());
    script(&sim::SimDisk::new(1));
}

fn kind<T>(result: io::Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("should have failed"),
        Err(e) => e.kind(),
    }
}

fn whole(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn opening() {
    on_every_disk(|disk| {
        assert_eq!(kind(disk.open("a", OpenMode::Read)), ErrorKind::NotFound);
        assert_eq!(kind(disk.open("a", OpenMode::ReadWrite)), ErrorKind::NotFound);
        let file = disk.open("a", OpenMode::CreateNew).unwrap();
        assert_eq!(file.len().unwrap(), 0);
        assert_eq!(kind(disk.open("a", OpenMode::CreateNew)), ErrorKind::AlreadyExists);
        file.write_at(b"abc", 0).unwrap();
        let read_only = disk.open("a", OpenMode::Read).unwrap();
        assert_eq!(whole(&*read_only), b"abc");
        assert!(read_only.write_at(b"x", 0).is_err());
        assert!(read_only.set_len(0).is_err());
        assert_eq!(whole(&*disk.open("a", OpenMode::ReadWrite).unwrap()), b"abc");
        for bad in ["", "..", "../a", "/a", "a/b/c", "a/", "x\0y"] {
            assert_eq!(kind(disk.open(bad, OpenMode::CreateNew)), ErrorKind::InvalidInput);
        }
    });
}

#[test]
fn reading_and_writing() {
    on_every_disk(|disk| {
        let file = disk.open("a", OpenMode::CreateNew).unwrap();
        file.write_at(b"hello", 3).unwrap();
        assert_eq!(whole(&*file), b"\0\0\0hello");
        file.write_at(b"J", 3).unwrap();
        file.write_at(b"", 100).unwrap();
        assert_eq!(whole(&*file), b"\0\0\0Jello");
        let mut buf = [9; 4];
        assert_eq!(file.read_at(&mut buf, 6).unwrap(), 2);
        assert_eq!(buf, *b"lo\x09\x09");
        assert_eq!(file.read_at(&mut buf, 8).unwrap(), 0);
        assert_eq!(file.read_at(&mut buf, 1 << 40).unwrap(), 0);
        assert_eq!(kind(file.read_exact_at(&mut buf, 5)), ErrorKind::UnexpectedEof);
        file.set_len(4).unwrap();
        file.set_len(6).unwrap();
        assert_eq!(whole(&*file), b"\0\0\0J\0\0", "what was cut must not come back");
        let big: Vec<u8> = (0..70_000_u32).map(|i| (i % 251) as u8).collect();
        file.write_at(&big, 4095).unwrap();
        assert_eq!(&whole(&*file)[4095..], &big[..]);
        assert_eq!(file.len().unwrap(), 74_095);
        file.sync().unwrap();
        assert!(file.write_at(b"x", u64::MAX).is_err());
        assert!(file.write_at(b"xy", u64::MAX - 1).is_err());
        assert_eq!(file.len().unwrap(), 74_095);
    });
}

#[test]
fn names() {
    on_every_disk(|disk| {
        assert_eq!(disk.list("wal").unwrap(), [""; 0], "a missing folder is empty");
        assert_eq!(kind(disk.open("wal/1", OpenMode::CreateNew)), ErrorKind::NotFound);
        assert_eq!(kind(disk.sync_dir("wal")), ErrorKind::NotFound);
        disk.create_dir("wal").unwrap();
        disk.create_dir("wal").unwrap();
        disk.create_dir("").unwrap();
        for (name, text) in [("wal/2", "two"), ("wal/1", "one"), ("top", "top")] {
            let file = disk.open(name, OpenMode::CreateNew).unwrap();
            file.write_at(text.as_bytes(), 0).unwrap();
        }
        assert_eq!(disk.list("wal").unwrap(), ["1", "2"]);
        assert_eq!(disk.list("").unwrap(), ["top", "wal"]);
        let replaced = disk.open("wal/2", OpenMode::ReadWrite).unwrap();
        disk.rename("wal/1", "wal/2").unwrap();
        assert_eq!(disk.list("wal").unwrap(), ["2"]);
        assert_eq!(whole(&*disk.open("wal/2", OpenMode::Read).unwrap()), b"one");
        replaced.write_at(b"T", 0).unwrap();
        assert_eq!(whole(&*replaced), b"Two", "a handle outlives its name");
        disk.remove("wal/2").unwrap();
        assert_eq!(kind(disk.remove("wal/2")), ErrorKind::NotFound);
        assert_eq!(kind(disk.rename("wal/2", "wal/3")), ErrorKind::NotFound);
        assert_eq!(kind(disk.rename("top", "wal/top")), ErrorKind::InvalidInput);
        assert!(disk.remove("wal").is_err(), "folders are not removed");
        assert!(disk.create_dir("top").is_err());
        assert!(disk.open("wal", OpenMode::Read).is_err());
        assert!(disk.open("top/x", OpenMode::CreateNew).is_err());
        disk.sync_dir("wal").unwrap();
        disk.sync_dir("").unwrap();
    });
}

#[test]
fn what_is_read_without_a_wait_is_what_stands_there() {
    on_every_disk(|disk| {
        let file = disk.open("top", OpenMode::CreateNew).unwrap();
        let bytes: Vec<u8> = (0..9000_u32).map(|n| n as u8).collect();
        file.write_at(&bytes, 0).unwrap();
        file.sync().unwrap();
        let mut some = vec![0; 5000];
        file.will_read(3000, some.len());
        // Whether it has to wait is the system's affair, but it was written just now: of some tries one succeeds.
        assert!((0..100).any(|_| file.read_if_cached(&mut some, 3000).unwrap()));
        assert_eq!(some, bytes[3000..8000]);
        // Beyond the end: never taken for read.
        let beyond = file.read_if_cached(&mut some, 8000);
        assert!(matches!(&beyond, Ok(false) | Err(_)), "{beyond:?}");
    });
}

#[test]
fn one_lock_at_a_time() {
    on_every_disk(|disk| {
        let first = disk.open("LOCK", OpenMode::CreateNew).unwrap();
        let second = disk.open("LOCK", OpenMode::ReadWrite).unwrap();
        assert!(disk.try_lock(&first).unwrap());
        assert!(disk.try_lock(&first).unwrap(), "again by the same handle");
        assert!(!disk.try_lock(&second).unwrap());
        let kept = Arc::clone(&first);
        drop(first);
        assert!(!disk.try_lock(&second).unwrap(), "a clone still holds it");
        drop(kept);
        assert!(disk.try_lock(&second).unwrap());
    });
}

#[test]
fn a_lock_is_shared_or_held_alone() {
    on_every_disk(|disk| {
        disk.open("LOCK", OpenMode::CreateNew).unwrap();
        let open = || disk.open("LOCK", OpenMode::Read).unwrap();
        let (one, two, writer) = (open(), open(), open());
        assert!(disk.try_lock_shared(&one).unwrap());
        assert!(disk.try_lock_shared(&one).unwrap(), "again by the same handle");
        assert!(disk.try_lock_shared(&two).unwrap());
        assert!(!disk.try_lock(&writer).unwrap());
        drop(one);
        assert!(!disk.try_lock(&writer).unwrap(), "the other one still reads");
        drop(two);
        assert!(disk.try_lock(&writer).unwrap());
        let late = open();
        assert!(!disk.try_lock_shared(&late).unwrap() && !disk.try_lock(&late).unwrap());
        drop(writer);
        assert!(disk.try_lock_shared(&late).unwrap());
    });
}

#[test]
fn small_files_are_written_whole() {
    on_every_disk(|disk| {
        disk.create_dir("columns").unwrap();
        disk.open("columns/a.tmp", OpenMode::CreateNew).unwrap();
        write_atomic(disk, "columns", "a", b"first").unwrap();
        write_atomic(disk, "columns", "a", b"second").unwrap();
        write_atomic(disk, "", "b", b"").unwrap();
        assert_eq!(read_whole(disk, "columns/a", 6).unwrap(), b"second");
        assert_eq!(kind(read_whole(disk, "columns/a", 5)), ErrorKind::InvalidData);
        assert_eq!(read_whole(disk, "b", 0).unwrap(), b"");
        assert_eq!(disk.list("columns").unwrap(), ["a"]);
    });
}
