//! The one seam to the operating system: directories and files as the store needs them.
//!
//! Everything above (log, archive, columns, and redb through `organs/catalog`) reaches the disk
//! only through [`Disk`] and [`File`]. Three implementations: [`mod@file`] (the operating system),
//! [`memory`] (no disk at all, for tests and examples), `sim` (a disk that remembers what was
//! synced and can crash, tear, reorder and fail).
//!
//! Names are relative to the store's directory, use `/`, and are made by the store itself, never
//! from caller data: at most one folder deep, such as `wal/0000000001.wal`.
//!
//! What the store assumes of a disk, and no more:
//! 1. `sync` returned Ok: contents and length of the file survive a power cut.
//! 2. `sync_dir` returned Ok: names created, renamed or removed in that folder survive.
//! 3. `rename` replaces the target atomically.
//! 4. Writing bytes does not damage other bytes (power-safe overwrite).
//!
//! Unsynced writes may be kept, dropped or torn in any combination and order.

use std::io;
use std::sync::Arc;

use crate::words::safeguard::Safeguard;

pub mod file;
mod lock;
pub mod map;
pub mod memory;
mod name;
pub mod pages;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
#[cfg(test)]
mod tests;

pub use file::FileDisk;
pub use map::Bytes;
pub use memory::MemoryDisk;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; only reads.
    Read,
    /// Must exist; reads and writes.
    ReadWrite,
    /// Must not exist; created empty, with owner-only permissions.
    CreateNew,
}

/// A directory that holds one store.
///
/// Implementations are cheap to share and safe to use from several threads.
pub trait Disk: Send + Sync + std::fmt::Debug {
    /// Opens a regular file. Never follows a symbolic link. `NotFound` and `AlreadyExists` are
    /// reported by their error kinds.
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// Renames within one folder, replacing the target. Durable after `sync_dir` of the folder.
    /// Names in two different folders are `InvalidInput`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file name. Handles that are open keep working.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Names (not paths) in a folder, sorted; `""` is the store's directory itself. A folder that
    /// does not exist is empty.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Creates a folder if it is missing, with owner-only permissions.
    fn create_dir(&self, folder: &str) -> io::Result<()>;

    /// Makes creations, renames and removals in a folder durable; `""` is the store's directory,
    /// and syncs its parent as well, so that the store's own name survives.
    fn sync_dir(&self, folder: &str) -> io::Result<()>;

    /// Takes the exclusive lock of an open file without waiting; false when another handle has it,
    /// of this process or of another. It is held until this handle is dropped, and taking it again
    /// through the same handle is no error.
    fn try_lock(&self, file: &Arc<dyn File>) -> io::Result<bool> {
        file.try_lock()
    }

    /// The same for the shared lock: any number of handles hold it together, and none while another
    /// one has the exclusive lock.
    fn try_lock_shared(&self, file: &Arc<dyn File>) -> io::Result<bool> {
        file.try_lock_shared()
    }

    /// Bytes free for this user, if the disk can tell.
    fn free_bytes(&self) -> Option<u64>;
}

/// An open file. All methods take `&self`; offsets are absolute.
pub trait File: Send + Sync + std::fmt::Debug {
    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`, growing the file as needed. On an error any part may
    /// have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes sure that there are blocks for `from..to`, growing the file with zeros. Costs a write of
    /// them where the disk knows no better way.
    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        write_zeros(&|zeros, at| self.write_at(zeros, at), from, to)
    }

    /// Makes contents and length durable.
    fn sync(&self) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the length is zero.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Takes the exclusive lock of the file; see [`Disk::try_lock`]. A disk without locks says
    /// `Unsupported`.
    fn try_lock(&self) -> io::Result<bool> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this disk has no locks"))
    }

    /// Takes the shared lock of the file; see [`Disk::try_lock_shared`]. A disk that has only the
    /// exclusive one gives that: fewer get in, and nobody wrongly.
    fn try_lock_shared(&self) -> io::Result<bool> {
        self.try_lock()
    }

    /// The bytes of a sealed file, which nobody writes any more: mapped where that is safe, else read.
    fn map(&self) -> io::Result<Bytes> {
        let mut bytes =
            vec![0; usize::try_from(self.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(Bytes::read(bytes))
    }

    /// Fills the whole of `buf` from `offset` if that takes no wait for the medium, and says whether it did. A
    /// disk that cannot tell reads in any case. An error here may be none later.
    fn read_if_cached(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        self.read_exact_at(buf, offset)?;
        Ok(true)
    }

    /// Says that some bytes will be read soon, so that the system may fetch them. Costs about 0.3 us; does
    /// nothing where there is no such call, and has no error that anybody could act upon.
    fn will_read(&self, offset: u64, len: usize) {
        let _ = (offset, len);
    }

    /// Fills the whole of `buf` from `offset`; a short file is `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let read = self.read_at(buf, offset)?;
        if read < buf.len() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("file ends {} bytes early", buf.len() - read),
            ));
        }
        Ok(())
    }
}

/// Zeros that are written at once.
const ZEROS_BYTES: usize = 16 << 10;

/// Writes zeros over `from..to`, a piece at a time.
fn write_zeros(write: &dyn Fn(&[u8], u64) -> io::Result<()>, from: u64, to: u64) -> io::Result<()> {
    let zeros = [0; ZEROS_BYTES];
    let mut at = from;
    while at < to {
        let piece = usize::try_from(to - at).unwrap_or(ZEROS_BYTES).min(ZEROS_BYTES);
        write(zeros.get(..piece).unwrap_or(&zeros), at)?;
        at += piece as u64;
    }
    Ok(())
}

/// Writes a small file so that it is there whole or not at all: temporary name, sync, rename, sync
/// of the folder.
pub fn write_atomic(disk: &dyn Disk, folder: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let path = join(folder, name);
    let temporary = format!("{path}.tmp");
    match disk.remove(&temporary) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let file = disk.open(&temporary, OpenMode::CreateNew)?;
    file.write_at(bytes, 0)?;
    Safeguard::SmallFileSync.keep(|| file.sync())?;
    disk.rename(&temporary, &path)?;
    Safeguard::SmallFileDirSync.keep(|| disk.sync_dir(folder))
}

/// Reads a whole file of at most `bytes_max` bytes; a longer one is `InvalidData`.
pub fn read_whole(disk: &dyn Disk, name: &str, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = disk.open(name, OpenMode::Read)?;
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    if len > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{name} has {len} bytes, more than the {bytes_max} it may have"),
        ));
    }
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// `folder/name`, or just `name` in the store's directory.
#[must_use]
pub fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}
