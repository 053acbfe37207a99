//! The operating system's disk, watched: bytes written by kind of file, and syncs that take longer.
//!
//! Everything goes on to `pmll::io::FileDisk`; nothing is kept back or changed. Bytes of zeros are counted
//! apart from others, and room that is set aside without being written apart from both. A sync may be made
//! to last longer, as that of flash does: it returns when the real one is done and its time has passed.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pmll::io::{Bytes, Disk, File, FileDisk, OpenMode};

/// What was written to one kind of file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// Writes that hold something.
    pub bytes: u64,
    /// Writes of nothing but zeros.
    pub zeros: u64,
    /// Room set aside by a call that writes nothing.
    pub aside: u64,
    /// Syncs of the file or its folder.
    pub syncs: u64,
}

#[derive(Debug, Default)]
struct Counts {
    by_kind: Mutex<BTreeMap<String, Writes>>,
    sync_us: AtomicU64,
}

impl Counts {
    fn add(&self, kind: &str, add: impl FnOnce(&mut Writes)) {
        let mut all = self.by_kind.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(kind) {
            Some(writes) => add(writes),
            None => add(all.entry(kind.to_owned()).or_default()),
        }
    }

    fn sync(&self, kind: &str, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let begun = Instant::now();
        let done = sync();
        self.add(kind, |writes| writes.syncs += 1);
        let least = Duration::from_micros(self.sync_us.load(Ordering::Relaxed));
        std::thread::sleep(least.saturating_sub(begun.elapsed()));
        done
    }
}

/// Folder and suffix, such as `arena/blk`; a file of the root is its own kind.
fn kind(name: &str) -> String {
    let name = name.trim_end_matches(".tmp");
    match name.split_once('/') {
        Some((folder, leaf)) => match leaf.rsplit_once('.') {
            Some((_, suffix)) => format!("{folder}/{suffix}"),
            None => folder.to_owned(),
        },
        None => name.to_owned(),
    }
}

/// A directory that is watched.
#[derive(Debug)]
pub struct Watched {
    disk: FileDisk,
    counts: Arc<Counts>,
}

impl Watched {
    /// Watches a directory, made if it is missing.
    pub fn create(path: &Path) -> io::Result<Arc<Watched>> {
        let disk = if path.exists() { FileDisk::open(path)? } else { FileDisk::create(path)? };
        Ok(Arc::new(Watched { disk, counts: Arc::default() }))
    }

    /// From now on a sync takes at least this long.
    pub fn slow_syncs(&self, least: Duration) {
        let least_us = u64::try_from(least.as_micros()).unwrap_or(u64::MAX);
        self.counts.sync_us.store(least_us, Ordering::Relaxed);
    }

    /// What was written so far, by kind of file.
    pub fn writes(&self) -> BTreeMap<String, Writes> {
        self.counts.by_kind.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Disk for Watched {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let (file, counts) = (self.disk.open(name, mode)?, Arc::clone(&self.counts));
        Ok(Arc::new(WatchedFile { file, counts, kind: kind(name) }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.disk.list(folder)
    }

    fn create_dir(&self, folder: &str) -> io::Result<()> {
        self.disk.create_dir(folder)
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        let kind = if folder.is_empty() { "folder" } else { folder };
        self.counts.sync(kind, || self.disk.sync_dir(folder))
    }

    fn free_bytes(&self) -> Option<u64> {
        self.disk.free_bytes()
    }
}

#[derive(Debug)]
struct WatchedFile {
    file: Arc<dyn File>,
    counts: Arc<Counts>,
    kind: String,
}

impl File for WatchedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn read_if_cached(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        self.file.read_if_cached(buf, offset)
    }

    fn will_read(&self, offset: u64, len: usize) {
        self.file.will_read(offset, len);
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let zeros = bytes.iter().all(|byte| *byte == 0);
        self.counts.add(&self.kind, |writes| {
            let counter = if zeros { &mut writes.zeros } else { &mut writes.bytes };
            *counter += bytes.len() as u64;
        });
        self.file.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        self.counts.add(&self.kind, |writes| writes.aside += to.saturating_sub(from));
        self.file.allocate(from, to)
    }

    fn sync(&self) -> io::Result<()> {
        self.counts.sync(&self.kind, || self.file.sync())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }

    fn try_lock_shared(&self) -> io::Result<bool> {
        self.file.try_lock_shared()
    }

    fn map(&self) -> io::Result<Bytes> {
        self.file.map()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_counted_by_kind_and_syncs_take_their_time() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Watched::create(&dir.path().join("store")).unwrap();
        disk.create_dir("wal").unwrap();
        let file = disk.open("wal/1.wal.tmp", OpenMode::CreateNew).unwrap();
        file.write_at(b"abc", 0).unwrap();
        file.write_at(&[0; 5], 3).unwrap();
        disk.slow_syncs(Duration::from_millis(20));
        let begun = Instant::now();
        file.sync().unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(20));
        let expected = Writes { bytes: 3, zeros: 5, aside: 0, syncs: 1 };
        assert_eq!(disk.writes(), BTreeMap::from([("wal/wal".to_owned(), expected)]));
        assert_eq!(
            (kind("RESERVE"), kind("arena/0001.cel")),
            ("RESERVE".into(), "arena/cel".into())
        );
    }
}
