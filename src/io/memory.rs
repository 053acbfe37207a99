//! A disk that lives in RAM and is gone with its last clone.
//!
//! For tests, examples and stores that need not outlive the process. It behaves as the other disks
//! do (open modes, replacing renames, handles that outlive a removal, one lock per file) and
//! promises nothing about crashes: `io::sim` (feature `sim`) is the disk for that.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::lock::{Hold, Lock};
use super::{Disk, File, OpenMode, name};

/// A directory in RAM. Clones share it.
///
/// ```
/// use pmll::io::{Disk, MemoryDisk, OpenMode};
/// let disk = MemoryDisk::new();
/// disk.open("hello", OpenMode::CreateNew)?.write_at(b"world", 0)?;
/// let same = disk.clone();
/// assert_eq!(same.open("hello", OpenMode::Read)?.len()?, 5);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    names: Arc<Mutex<Names>>,
}

#[derive(Debug, Default)]
struct Names {
    files: BTreeMap<String, Arc<Contents>>,
    folders: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Contents {
    bytes: RwLock<Vec<u8>>,
    lock: Mutex<Lock>,
}

impl MemoryDisk {
    /// An empty directory.
    #[must_use]
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }
}

impl Names {
    /// Refuses a file whose folder is missing, or whose name is a folder's.
    fn check(&self, folder: &str, name: &str) -> io::Result<()> {
        if !folder.is_empty() && !self.folders.contains(folder) {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no folder {folder}")));
        }
        if self.folders.contains(name) {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, format!("{name} is a folder")));
        }
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let (folder, _) = name::split(name)?;
        let mut names = self.names.lock();
        names.check(folder, name)?;
        let contents = match (names.files.get(name), mode) {
            (Some(_), OpenMode::CreateNew) => {
                let message = format!("{name} is there already");
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
            }
            (Some(contents), _) => Arc::clone(contents),
            (None, OpenMode::CreateNew) => {
                Arc::clone(names.files.entry(name.to_owned()).or_default())
            }
            (None, _) => return Err(missing(name)),
        };
        let writable = mode != OpenMode::Read;
        Ok(Arc::new(MemoryFile { contents, writable, hold: Mutex::default() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (folder, ..) = name::split_rename(from, to)?;
        let mut names = self.names.lock();
        names.check(folder, from)?;
        names.check(folder, to)?;
        let contents = names.files.remove(from).ok_or_else(|| missing(from))?;
        names.files.insert(to.to_owned(), contents);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let (folder, _) = name::split(name)?;
        let mut names = self.names.lock();
        names.check(folder, name)?;
        names.files.remove(name).map(|_| ()).ok_or_else(|| missing(name))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        name::check_folder(folder)?;
        let names = self.names.lock();
        let mut found: Vec<String> = names
            .files
            .keys()
            .filter_map(|path| match path.rsplit_once('/') {
                Some((parent, leaf)) => (parent == folder).then(|| leaf.to_owned()),
                None => folder.is_empty().then(|| path.clone()),
            })
            .collect();
        if folder.is_empty() {
            found.extend(names.folders.iter().cloned());
        }
        found.sort_unstable();
        Ok(found)
    }

    fn create_dir(&self, folder: &str) -> io::Result<()> {
        name::check_folder(folder)?;
        let mut names = self.names.lock();
        if names.files.contains_key(folder) {
            let message = format!("{folder} is a file");
            return Err(io::Error::new(io::ErrorKind::NotADirectory, message));
        }
        if !folder.is_empty() {
            names.folders.insert(folder.to_owned());
        }
        Ok(())
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        name::check_folder(folder)?;
        if folder.is_empty() || self.names.lock().folders.contains(folder) {
            return Ok(());
        }
        Err(missing(folder))
    }

    fn free_bytes(&self) -> Option<u64> {
        None
    }
}

/// A handle. The lock it may hold goes with it.
#[derive(Debug)]
struct MemoryFile {
    contents: Arc<Contents>,
    writable: bool,
    hold: Mutex<Hold>,
}

impl MemoryFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "the file was opened to read"))
    }
}

impl File for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.contents.bytes.read();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = bytes.get(start..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        if bytes.is_empty() {
            return Ok(());
        }
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let end = start.checked_add(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut all = self.contents.bytes.write();
        if all.len() < end {
            resize(&mut all, end)?;
        }
        all.get_mut(start..end).ok_or(io::ErrorKind::FileTooLarge)?.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        resize(&mut self.contents.bytes.write(), len)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.contents.bytes.read().len() as u64)
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(self.contents.lock.lock().exchange(&mut self.hold.lock(), Hold::Exclusive))
    }

    fn try_lock_shared(&self) -> io::Result<bool> {
        Ok(self.contents.lock.lock().exchange(&mut self.hold.lock(), Hold::Shared))
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        self.contents.lock.lock().exchange(self.hold.get_mut(), Hold::None);
    }
}

/// Grows or cuts; a length the machine cannot hold is an error instead of an abort.
fn resize(bytes: &mut Vec<u8>, len: usize) -> io::Result<()> {
    let more = len.saturating_sub(bytes.len());
    bytes.try_reserve(more).map_err(|_| io::ErrorKind::StorageFull)?;
    bytes.resize(len, 0);
    Ok(())
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"))
}
