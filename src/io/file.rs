//! The operating system's disk: one directory, reached through its descriptor.
//!
//! Every name is resolved relative to the directory that was opened, one part at a time and never
//! through a symbolic link, so nothing that happens to the path afterwards (a rename of a parent, a
//! link planted inside) makes the store touch a file elsewhere. Files are created 0600 and folders
//! 0700 by the very call that creates them; only regular files are opened. Reads and writes are
//! positioned, so handles are shared between threads without a cursor.
//!
//! A sync is `fdatasync`, which covers contents and length (on macOS the standard library asks for
//! a full flush of the drive). Calls interrupted by a signal are repeated. Sealed files are mapped
//! ([`super::map`]). Never changes permissions after creation, never deletes a folder.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Bytes, Disk, File, OpenMode, name};

/// Reading leaves no time of access behind, which would be a write for each day that a file is read on, and costs a
/// thirtieth of each read.
#[cfg(target_os = "linux")]
const UNNOTED: OFlags = OFlags::NOATIME;
#[cfg(not(target_os = "linux"))]
const UNNOTED: OFlags = OFlags::empty();

/// A directory of the operating system.
///
/// ```
/// use pmll::io::{Disk, FileDisk, OpenMode};
/// # let parent = tempfile::tempdir()?;
/// # let path = parent.path().join("store");
/// let disk = FileDisk::create(&path)?;
/// let file = disk.open("hello", OpenMode::CreateNew)?;
/// file.write_at(b"world", 0)?;
/// file.sync()?; // the contents are durable
/// disk.sync_dir("")?; // and so is the name
/// assert_eq!(disk.list("")?, ["hello"]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct FileDisk {
    root: OwnedFd,
}

impl FileDisk {
    /// Opens an existing directory. The path itself may lead through symbolic links; names inside
    /// never do. `NotFound` and `NotADirectory` are told by the error's kind.
    pub fn open(path: &Path) -> io::Result<FileDisk> {
        Ok(FileDisk { root: open_folder(CWD, path.as_os_str(), OFlags::empty())? })
    }

    /// Creates the directory with mode 0700 and syncs its parent, which must exist.
    /// `AlreadyExists` if there is something at the path.
    pub fn create(path: &Path) -> io::Result<FileDisk> {
        retry(|| rustix::fs::mkdirat(CWD, path, Mode::RWXU))?;
        let disk = FileDisk::open(path)?;
        disk.sync_dir("")?;
        Ok(disk)
    }

    /// Runs `work` with the descriptor of a folder.
    fn with_folder<T>(
        &self,
        folder: &str,
        work: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        if folder.is_empty() {
            return work(self.root.as_fd());
        }
        work(open_folder(self.root.as_fd(), OsStr::new(folder), OFlags::NOFOLLOW)?.as_fd())
    }
}

impl Disk for FileDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let (folder, leaf) = name::split(name)?;
        // NONBLOCK: a pipe planted under the name must be refused, not waited for. It has no
        // effect on regular files.
        let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK;
        let flags = flags
            | match mode {
                OpenMode::Read => OFlags::RDONLY,
                OpenMode::ReadWrite => OFlags::RDWR,
                OpenMode::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            };
        let open = |flags| {
            self.with_folder(folder, |at| {
                retry(|| rustix::fs::openat(at, leaf, flags, Mode::RUSR | Mode::WUSR))
            })
        };
        let owned = match mode {
            // Only the owner of a file may read it without a trace.
            OpenMode::Read => match open(flags | UNNOTED) {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => open(flags),
                other => other,
            },
            OpenMode::ReadWrite | OpenMode::CreateNew => open(flags),
        }?;
        let stat = rustix::fs::fstat(&owned)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name} is not a regular file"),
            ));
        }
        Ok(Arc::new(OsFile { file: owned.into() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (folder, from, to) = name::split_rename(from, to)?;
        self.with_folder(folder, |at| retry(|| rustix::fs::renameat(at, from, at, to)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let (folder, leaf) = name::split(name)?;
        self.with_folder(folder, |at| retry(|| rustix::fs::unlinkat(at, leaf, AtFlags::empty())))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        name::check_folder(folder)?;
        let listed = self.with_folder(folder, |at| {
            let mut names = Vec::new();
            for entry in Dir::read_from(at)? {
                // A name that is not UTF-8 is none of the store's.
                if let Ok(name) = entry?.file_name().to_str()
                    && name != "."
                    && name != ".."
                {
                    names.push(name.to_owned());
                }
            }
            names.sort_unstable();
            Ok(names)
        });
        match listed {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    fn create_dir(&self, folder: &str) -> io::Result<()> {
        name::check_folder(folder)?;
        if folder.is_empty() {
            return Ok(());
        }
        match retry(|| rustix::fs::mkdirat(&self.root, folder, Mode::RWXU)) {
            // Already there is fine, provided that it is a folder and no link to one.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.with_folder(folder, |_| Ok(()))
            }
            other => other,
        }
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        name::check_folder(folder)?;
        self.with_folder(folder, |at| retry(|| rustix::fs::fsync(at)))?;
        if folder.is_empty() {
            match open_folder(self.root.as_fd(), OsStr::new(".."), OFlags::empty()) {
                Ok(parent) => retry(|| rustix::fs::fsync(&parent))?,
                // A parent this user may not read was made by somebody else, who owns its sync.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::fstatvfs(&self.root).ok()?;
        stat.f_bavail.checked_mul(stat.f_frsize)
    }
}

/// An open regular file.
/// Whether only this machine can change the file: not on network and FUSE file systems, where a file
/// may be cut under a map. Numbers of `statfs(2)`; elsewhere than on Linux nothing is told and
/// files count as local.
fn is_local(file: &std::fs::File) -> bool {
    if cfg!(not(target_os = "linux")) {
        return true;
    }
    const NFS: u32 = 0x6969;
    const SMB: [u32; 3] = [0x517b, 0xff53_4d42, 0xfe53_4d42];
    const FUSE: u32 = 0x6573_5546;
    const PLAN9: u32 = 0x0102_1997;
    const CEPH: u32 = 0x00c3_6400;
    let Ok(stat) = rustix::fs::fstatfs(file) else { return false };
    // The type has another width on every architecture; the numbers have 32 bits.
    let kind = stat.f_type as u32;
    kind != NFS && !SMB.contains(&kind) && ![FUSE, PLAN9, CEPH].contains(&kind)
}

#[derive(Debug)]
struct OsFile {
    file: std::fs::File,
}

impl File for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset.checked_add(filled as u64).ok_or(io::ErrorKind::InvalidInput)?;
            match self.file.read_at(rest, at) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    #[cfg(target_os = "linux")]
    fn read_if_cached(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        use rustix::io::{ReadWriteFlags, preadv2};
        let wanted = buf.len();
        let mut space = [io::IoSliceMut::new(buf)];
        match preadv2(&self.file, &mut space, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) if read == wanted => Ok(true),
            // A part of it, or a signal came: also at the end of the file, which who reads on is told.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            // Not every file system has it, some sandboxes forbid it; and a true error comes again.
            Err(_) => self.read_exact_at(buf, offset).map(|()| true),
        }
    }

    #[cfg(target_os = "linux")]
    fn will_read(&self, offset: u64, len: usize) {
        use rustix::fs::{Advice, fadvise};
        // No length would mean all of the file. What a hint cannot do, the read does.
        if let Some(len) = std::num::NonZeroU64::new(len as u64) {
            let _ = fadvise(&self.file, offset, Some(len), Advice::WillNeed);
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    #[cfg(target_os = "linux")]
    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        let len = to.saturating_sub(from);
        match retry(|| fallocate(&self.file, FallocateFlags::empty(), from, len)) {
            // Not every file system has it.
            Err(e) if e.kind() == io::ErrorKind::Unsupported => {
                super::write_zeros(&|zeros, at| self.write_at(zeros, at), from, to)
            }
            other => other,
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn map(&self) -> io::Result<Bytes> {
        let len = usize::try_from(self.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if len > 0 && is_local(&self.file) {
            return Bytes::map(&self.file, len);
        }
        let mut bytes = vec![0; len];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(Bytes::read(bytes))
    }

    fn try_lock(&self) -> io::Result<bool> {
        taken(self.file.try_lock())
    }

    fn try_lock_shared(&self) -> io::Result<bool> {
        taken(self.file.try_lock_shared())
    }
}

fn taken(tried: Result<(), std::fs::TryLockError>) -> io::Result<bool> {
    match tried {
        Ok(()) => Ok(true),
        Err(std::fs::TryLockError::WouldBlock) => Ok(false),
        Err(std::fs::TryLockError::Error(e)) => Err(e),
    }
}

fn open_folder(at: BorrowedFd<'_>, name: &OsStr, more: OFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | more;
    retry(|| rustix::fs::openat(at, name, flags, Mode::empty()))
}

fn retry<T>(call: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
    rustix::io::retry_on_intr(call).map_err(io::Error::from)
}

/// Sixteen random bytes from the operating system.
pub(crate) fn random_bytes() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled +=
            retry(|| rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty()))?;
    }
    Ok(bytes)
}

/// Bytes of memory this process may use: the machine's, or the limit of its control group if that
/// is lower. `None` where neither can be read.
pub(crate) fn memory_bytes() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
    });
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    match (machine, group) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (machine, group) => machine.or(group),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn created_with_owner_only_permissions() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("store");
        let disk = FileDisk::create(&path).unwrap();
        disk.create_dir("wal").unwrap();
        disk.open("wal/1.wal", OpenMode::CreateNew).unwrap();
        let mode = |name: &str| std::fs::metadata(path.join(name)).unwrap().mode() & 0o777;
        assert_eq!((mode(""), mode("wal"), mode("wal/1.wal")), (0o700, 0o700, 0o600));
        let again = FileDisk::create(&path).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        let orphan = FileDisk::create(&path.join("no/parent")).unwrap_err();
        assert_eq!(orphan.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn follows_no_link_and_opens_no_special_file() {
        let parent = tempfile::tempdir().unwrap();
        let outside = parent.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("1.wal"), b"secret").unwrap();
        let path = parent.path().join("store");
        let disk = FileDisk::create(&path).unwrap();
        symlink(outside.join("1.wal"), path.join("link")).unwrap();
        symlink(&outside, path.join("wal")).unwrap();
        rustix::fs::mkfifoat(CWD, path.join("pipe"), Mode::RUSR | Mode::WUSR).unwrap();
        for mode in [OpenMode::Read, OpenMode::ReadWrite, OpenMode::CreateNew] {
            for name in ["link", "wal/1.wal", "pipe"] {
                assert!(disk.open(name, mode).is_err(), "{name} {mode:?}");
            }
        }
        assert!(disk.create_dir("wal").is_err());
        assert!(disk.list("wal").is_err());
        assert!(disk.rename("wal/1.wal", "wal/2.wal").is_err());
        assert!(disk.remove("wal/1.wal").is_err());
        assert_eq!(std::fs::read(outside.join("1.wal")).unwrap(), b"secret");
    }

    #[test]
    fn stays_with_its_directory_when_that_is_moved() {
        let parent = tempfile::tempdir().unwrap();
        let (old, new) = (parent.path().join("old"), parent.path().join("new"));
        let disk = FileDisk::create(&old).unwrap();
        std::fs::rename(&old, &new).unwrap();
        disk.open("x", OpenMode::CreateNew).unwrap().write_at(b"1", 0).unwrap();
        assert_eq!(std::fs::read(new.join("x")).unwrap(), b"1");
        disk.sync_dir("").unwrap();
        assert!(disk.free_bytes().unwrap() > 0);
    }

    #[test]
    fn a_parent_that_cannot_be_read_does_not_stop_a_sync() {
        let parent = tempfile::tempdir().unwrap();
        let disk = FileDisk::create(&parent.path().join("store")).unwrap();
        let set = |mode| {
            std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        set(0o300);
        let synced = disk.sync_dir("");
        set(0o700);
        synced.unwrap();
    }
}
