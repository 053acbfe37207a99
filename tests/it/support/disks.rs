//! Disks around a disk: one that can be made to wait, one that lets nothing be written.
//!
//! [`GateDisk`] holds every file sync back while its gate is closed. A write that waits there was
//! taken up and is not durable yet, for as long as a test likes; what was submitted behind it is
//! still in the queue. [`SealedDisk`] refuses every call that would change something, as a file
//! system that is mounted read-only does, and counts the attempts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use pmll::io::{Disk, File, OpenMode};

/// A gate that is forgotten lets through after this time, so that a test that fails also ends.
const PATIENCE: Duration = Duration::from_secs(20);

/// A disk whose syncs wait while the gate is closed.
#[derive(Clone, Debug)]
pub(crate) struct GateDisk {
    below: Arc<dyn Disk>,
    gate: Arc<Gate>,
    folder: &'static str,
}

#[derive(Debug, Default)]
struct Gate {
    reads: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    waiting: u64,
    passed: u64,
}

impl GateDisk {
    /// An open gate before a disk.
    pub(crate) fn new(below: impl Disk + 'static) -> GateDisk {
        GateDisk::of(below, "")
    }

    /// A gate for the files of one folder alone.
    pub(crate) fn of(below: impl Disk + 'static, folder: &'static str) -> GateDisk {
        GateDisk { below: Arc::new(below), gate: Arc::default(), folder }
    }

    /// From now on syncs wait.
    pub(crate) fn close_gate(&self) {
        self.gate.state.lock().closed = true;
    }

    /// Lets everybody through.
    pub(crate) fn open_gate(&self) {
        self.gate.state.lock().closed = false;
        self.gate.changed.notify_all();
    }

    /// Returns when somebody waits at the gate.
    pub(crate) fn until_somebody_waits(&self) {
        let mut state = self.gate.state.lock();
        while state.waiting == 0 {
            let waited = self.gate.changed.wait_for(&mut state, PATIENCE);
            assert!(!waited.timed_out(), "nobody came to the gate");
        }
    }

    /// How many pieces of files were read so far.
    pub(crate) fn reads(&self) -> u64 {
        self.gate.reads.load(Ordering::SeqCst)
    }

    /// How many syncs went through so far.
    pub(crate) fn passed(&self) -> u64 {
        self.gate.state.lock().passed
    }
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock();
        state.waiting += 1;
        self.changed.notify_all();
        while state.closed && !self.changed.wait_for(&mut state, PATIENCE).timed_out() {}
        state.waiting -= 1;
        state.passed += 1;
    }
}

impl Disk for GateDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let below = self.below.open(name, mode)?;
        if !name.starts_with(self.folder) {
            return Ok(below);
        }
        Ok(Arc::new(GateFile { below, gate: Arc::clone(&self.gate) }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.below.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.below.remove(name)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.below.list(folder)
    }

    fn create_dir(&self, folder: &str) -> io::Result<()> {
        self.below.create_dir(folder)
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        self.below.sync_dir(folder)
    }

    fn free_bytes(&self) -> Option<u64> {
        self.below.free_bytes()
    }
}

#[derive(Debug)]
struct GateFile {
    below: Arc<dyn File>,
    gate: Arc<Gate>,
}

impl File for GateFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.gate.reads.fetch_add(1, Ordering::SeqCst);
        self.below.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.below.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.below.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.gate.pass();
        self.below.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.below.try_lock()
    }

    fn try_lock_shared(&self) -> io::Result<bool> {
        self.below.try_lock_shared()
    }
}

/// A disk that is mounted read-only.
#[derive(Clone, Debug)]
pub(crate) struct SealedDisk {
    below: Arc<dyn Disk>,
    attempts: Arc<AtomicU64>,
}

impl SealedDisk {
    /// Seals a disk.
    pub(crate) fn new(below: impl Disk + 'static) -> SealedDisk {
        SealedDisk { below: Arc::new(below), attempts: Arc::default() }
    }

    /// How many calls would have changed something.
    pub(crate) fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::SeqCst)
    }

    fn refuse<T>(&self) -> io::Result<T> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the disk is sealed"))
    }
}

impl Disk for SealedDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        if mode != OpenMode::Read {
            return self.refuse();
        }
        let below = self.below.open(name, mode)?;
        Ok(Arc::new(SealedFile { below, disk: self.clone() }))
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        self.refuse()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        self.refuse()
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.below.list(folder)
    }

    fn create_dir(&self, _: &str) -> io::Result<()> {
        self.refuse()
    }

    fn sync_dir(&self, _: &str) -> io::Result<()> {
        self.refuse()
    }

    fn free_bytes(&self) -> Option<u64> {
        Some(0)
    }
}

#[derive(Debug)]
struct SealedFile {
    below: Arc<dyn File>,
    disk: SealedDisk,
}

impl File for SealedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.below.read_at(buf, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        self.disk.refuse()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        self.disk.refuse()
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.refuse()
    }

    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.below.try_lock()
    }

    fn try_lock_shared(&self) -> io::Result<bool> {
        self.below.try_lock_shared()
    }
}
