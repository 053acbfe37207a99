//! A disk around a disk that asks a test before every call: the test may let the call fail, count
//! it, or do something in its place before it goes on, as another process would.

use std::fmt;
use std::io;
use std::sync::Arc;

use pmll::io::{Disk, File, OpenMode};

type Hook = dyn Fn(&str, &str) -> io::Result<()> + Send + Sync;

/// See the file's story. The hook gets the call (`open`, `create`, `rename`, `remove`, `sync_dir`,
/// `lock`, `read`, `write`, `set_len`, `sync`) and the name it is about. `WouldBlock` for `read_if_cached`
/// says that the bytes are not in memory; `will_read` cannot fail.
#[derive(Clone)]
pub(crate) struct HookDisk {
    below: Arc<dyn Disk>,
    hook: Arc<Hook>,
}

impl HookDisk {
    /// A disk that asks this hook.
    pub(crate) fn new(
        below: impl Disk + 'static,
        hook: impl Fn(&str, &str) -> io::Result<()> + Send + Sync + 'static,
    ) -> HookDisk {
        HookDisk::over(Arc::new(below), hook)
    }

    /// The same over a disk of any kind.
    pub(crate) fn over(
        below: Arc<dyn Disk>,
        hook: impl Fn(&str, &str) -> io::Result<()> + Send + Sync + 'static,
    ) -> HookDisk {
        HookDisk { below, hook: Arc::new(hook) }
    }
}

impl fmt::Debug for HookDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HookDisk({:?})", self.below)
    }
}

impl Disk for HookDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        (self.hook)(if mode == OpenMode::CreateNew { "create" } else { "open" }, name)?;
        let below = self.below.open(name, mode)?;
        Ok(Arc::new(HookFile { below, name: name.to_owned(), hook: Arc::clone(&self.hook) }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        (self.hook)("rename", to)?;
        self.below.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        (self.hook)("remove", name)?;
        self.below.remove(name)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.below.list(folder)
    }

    fn create_dir(&self, folder: &str) -> io::Result<()> {
        self.below.create_dir(folder)
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        (self.hook)("sync_dir", folder)?;
        self.below.sync_dir(folder)
    }

    fn free_bytes(&self) -> Option<u64> {
        self.below.free_bytes()
    }
}

struct HookFile {
    below: Arc<dyn File>,
    name: String,
    hook: Arc<Hook>,
}

impl fmt::Debug for HookFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HookFile({})", self.name)
    }
}

impl File for HookFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        (self.hook)("read", &self.name)?;
        self.below.read_at(buf, offset)
    }

    fn read_if_cached(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        match (self.hook)("read_if_cached", &self.name) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            other => other.and_then(|()| self.read_exact_at(buf, offset)).map(|()| true),
        }
    }

    fn will_read(&self, offset: u64, len: usize) {
        let _ = (self.hook)("will_read", &self.name);
        self.below.will_read(offset, len);
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        (self.hook)("write", &self.name)?;
        self.below.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        (self.hook)("set_len", &self.name)?;
        self.below.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        (self.hook)("sync", &self.name)?;
        self.below.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }

    fn try_lock(&self) -> io::Result<bool> {
        (self.hook)("lock", &self.name)?;
        self.below.try_lock()
    }

    fn try_lock_shared(&self) -> io::Result<bool> {
        (self.hook)("lock", &self.name)?;
        self.below.try_lock_shared()
    }
}
