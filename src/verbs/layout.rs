//! The store's directory: entering it, creating it, refusing what is not ours.
//!
//! A directory is a store when it holds a valid `store.toml`. Creation writes that file last and
//! atomically, so a crash before leaves a directory with nothing in it but our own empty names,
//! which the next open completes. Any other directory that is not empty is left alone: we never
//! scribble into somebody's files. `LOCK` is never removed; its lock, not its presence, counts,
//! and the pid inside is only a hint for people.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::io::{Disk, File, OpenMode, read_whole, write_atomic};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::options::Options;
use crate::words::safeguard::Safeguard;

/// Version of the format this build reads and writes. `0-dev` changes without notice and is
/// refused by every build that writes another.
pub const FORMAT: &str = "0-dev";
/// Name of the file that makes a directory a store.
pub const STORE_FILE: &str = "store.toml";
/// Name of the lock file.
pub const LOCK_FILE: &str = "LOCK";
/// Folders of a store.
pub const FOLDERS: [&str; 4] = ["wal", "archive", "arena", "columns"];

/// The id every file of the store carries.
pub type StoreId = [u8; 16];
/// The lock file, locked as long as it is open.
pub type Lock = Option<Arc<dyn File>>;

const STORE_FILE_BYTES_MAX: usize = 64 << 10;

/// What `store.toml` says. This is a text file for people as well, so serde decides its form.
#[derive(Debug, Serialize, Deserialize)]
struct StoreFile {
    format: String,
    id: String,
    /// Feature bits a reader must know.
    #[serde(default)]
    required: Vec<String>,
    /// CRC-32 of the lines above, so that a flipped bit is not another store.
    crc: u32,
}

impl StoreFile {
    fn checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for part in std::iter::once(&self.format).chain([&self.id]).chain(&self.required) {
            hasher.update(part.as_bytes());
            hasher.update(&[0]);
        }
        hasher.finalize()
    }
}

/// Enters the directory: takes the lock, creates the store if allowed, reads its id. The lock is
/// held as long as the returned file lives; it is absent only for a read-only open of a store
/// that has no lock file.
pub fn enter(disk: &dyn Disk, options: &Options) -> Result<(StoreId, Lock)> {
    // Before anything is touched: a format we do not know is left byte for byte as it is.
    look(disk, options)?;
    let lock = lock(disk, options.read_only)?;
    // Again: whoever had the lock between the two may have made the store.
    let Some(id) = look(disk, options)? else {
        return Ok((create(disk)?, lock));
    };
    if !options.read_only {
        make_folders(disk)?;
    }
    Ok((id, lock))
}

/// Makes the folders that are missing. All of their names are durable afterwards, whoever made them:
/// it may have died before it synced them.
fn make_folders(disk: &dyn Disk) -> Result<()> {
    for folder in FOLDERS {
        disk.create_dir(folder).map_err(|e| Error::io(format!("create {folder}"), e))?;
    }
    let synced = Safeguard::FoldersSync.keep(|| disk.sync_dir(""));
    synced.map_err(|e| Error::io("sync the store's directory", e))
}

/// The id of the store that is here; `None` where there is none and one may be made.
fn look(disk: &dyn Disk, options: &Options) -> Result<Option<StoreId>> {
    let names = disk.list("").map_err(|e| Error::io("list the store's directory", e))?;
    if names.iter().any(|n| n == STORE_FILE) {
        return read_store_file(disk).map(Some);
    }
    check_empty(disk, &names)?;
    if options.read_only || !options.create {
        return Err(Error::new(
            ErrorKind::NotFound,
            "there is no store here (no store.toml); open it with create to make one",
        ));
    }
    Ok(None)
}

/// The id of the store on a disk, without entering it. `NotFound` when there is none.
pub fn identity(disk: &dyn Disk) -> Result<StoreId> {
    let names = disk.list("").map_err(|e| Error::io("list the store's directory", e))?;
    if !names.iter().any(|name| name == STORE_FILE) {
        let message = "there is no store here (no store.toml)";
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    read_store_file(disk)
}

/// Whether an owner that writes holds the lock. Takes it, shared, for a moment to find out: two that
/// ask at once, or beside readers, are not in each other's way.
pub fn in_use(disk: &dyn Disk) -> Result<bool> {
    match disk.open(LOCK_FILE, OpenMode::Read) {
        Ok(file) => Ok(!disk.try_lock_shared(&file).map_err(|e| Error::io("lock LOCK", e))?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("open LOCK", e)),
    }
}

/// Takes the lock of a store as somebody who only reads, who may find it damaged. Nothing is written, not
/// even a lock file where there is none. `Locked` when somebody writes.
pub fn share(disk: &dyn Disk) -> Result<Lock> {
    lock(disk, true)
}

fn check_empty(disk: &dyn Disk, names: &[String]) -> Result<()> {
    for name in names {
        let ours = name == LOCK_FILE
            || *name == format!("{STORE_FILE}.tmp")
            || (FOLDERS.contains(&name.as_str())
                && disk.list(name).is_ok_and(|inside| inside.is_empty()));
        if !ours {
            return Err(Error::invalid(format!(
                "this directory is not a pmll store and not empty (it holds {name:?}); \
                 choose another, or an empty one. Nothing was written"
            )));
        }
    }
    Ok(())
}

fn lock(disk: &dyn Disk, read_only: bool) -> Result<Lock> {
    let mode = if read_only { OpenMode::Read } else { OpenMode::ReadWrite };
    let file = match disk.open(LOCK_FILE, mode) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && read_only => return Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            match disk.open(LOCK_FILE, OpenMode::CreateNew) {
                Ok(file) => file,
                // Somebody else created it between our two calls.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => disk
                    .open(LOCK_FILE, OpenMode::ReadWrite)
                    .map_err(|e| Error::io("open LOCK", e))?,
                Err(e) => return Err(Error::io("create LOCK", e)),
            }
        }
        Err(e) => return Err(Error::io("open LOCK", e)),
    };
    // Readers share the lock; whoever writes has it alone.
    let taken = if read_only { disk.try_lock_shared(&file) } else { disk.try_lock(&file) };
    if Safeguard::Lock.finds(!taken.map_err(|e| Error::io("lock LOCK", e))?) {
        if disk.try_lock_shared(&file).is_ok_and(|shared| shared) {
            // The hint in the file is about whoever wrote last, not about them.
            let message = "this store is open for reading elsewhere; close it there first";
            return Err(Error::new(ErrorKind::Locked, message));
        }
        let mut hint = [0; 20];
        let read = file.read_at(&mut hint, 0).unwrap_or(0);
        let pid = std::str::from_utf8(hint.get(..read).unwrap_or_default()).unwrap_or("").trim();
        let who = if pid.is_empty() { String::new() } else { format!(" (process {pid})") };
        return Err(Error::new(
            ErrorKind::Locked,
            format!("another owner has this store open{who}; close it there first"),
        ));
    }
    if !read_only {
        let pid = format!("{:<20}", std::process::id());
        // A hint only: a disk too full for it does not keep the store from being opened.
        let _ = file.write_at(pid.as_bytes(), 0);
    }
    Ok(Some(file))
}

fn create(disk: &dyn Disk) -> Result<[u8; 16]> {
    make_folders(disk)?;
    let id = crate::io::file::random_bytes().map_err(|e| Error::io("get random bytes", e))?;
    let mut file =
        StoreFile { format: FORMAT.to_owned(), id: hex(&id), required: Vec::new(), crc: 0 };
    file.crc = file.checksum();
    let text = toml::to_string(&file)
        .map_err(|e| Error::internal(format!("store.toml does not encode: {e}")))?;
    write_atomic(disk, "", STORE_FILE, text.as_bytes())
        .map_err(|e| Error::io(format!("write {STORE_FILE}"), e))?;
    Ok(id)
}

fn read_store_file(disk: &dyn Disk) -> Result<[u8; 16]> {
    let bytes = read_whole(disk, STORE_FILE, STORE_FILE_BYTES_MAX)
        .map_err(|e| Error::io(format!("read {STORE_FILE}"), e))?;
    let damaged = |what: &str| {
        Error::corrupt(format!("{STORE_FILE}: {what}; restore it from a copy of this store"))
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("is not text"))?;
    let table: toml::Table = toml::from_str(text).map_err(|e| damaged(e.message()))?;
    let newer = |format: &str, required: &[String]| {
        Error::new(
            ErrorKind::Version,
            format!(
                "{STORE_FILE} names format {format:?} with features {required:?}, this build knows \
                 {FORMAT:?}; use the build that wrote it. Nothing was written"
            ),
        )
    };
    // Before all else: what else a newer format has in this file, and how it is summed, is its own.
    match table.get("format").and_then(toml::Value::as_str) {
        Some(FORMAT) => {}
        Some(other) => return Err(newer(other, &[])),
        None => return Err(damaged("it names no format")),
    }
    let file: StoreFile = table.try_into().map_err(|e| damaged(e.message()))?;
    if Safeguard::StoreFileCrc.finds(file.crc != file.checksum()) {
        return Err(damaged("its CRC differs"));
    }
    if !file.required.is_empty() {
        return Err(newer(&file.format, &file.required));
    }
    unhex(&file.id).ok_or_else(|| damaged("its id is not 32 hexadecimal digits"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let mut out = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::{Profile, SimDisk};

    #[test]
    fn folders_are_durable_before_anything_stands_in_them() {
        let first = SimDisk::new(1);
        enter(&first, &Options::default()).unwrap();
        let bytes = read_whole(&first, STORE_FILE, STORE_FILE_BYTES_MAX).unwrap();
        // What a power cut during the creation may leave: the file, and no folder.
        let disk = SimDisk::new(2);
        write_atomic(&disk, "", STORE_FILE, &bytes).unwrap();
        enter(&disk, &Options::default()).unwrap();
        for image in disk.crash_images(Profile::Posix, 64) {
            let names = image.list("").unwrap();
            assert!(FOLDERS.iter().all(|f| names.iter().any(|n| n == f)), "{names:?}");
        }
    }
}
