//! The catalog: the store's index, a redb database in `index.redb` over checksummed pages.
//!
//! It answers "which id has this key", "where is this id", and keeps the lists that a store needs
//! at open: segments, collections, settings, last requests, counters. Everything in it is derived
//! from the log and the archive, so the answer to damage is always the same: `Corrupt`, and the
//! caller rebuilds. What this folder guarantees is that damage is never answered with anything
//! else: pages are checked below redb ([`backend`]), values above it ([`tables`]), and a panic of
//! redb on bytes it did not expect is caught and becomes `Corrupt`.
//!
//! Reading goes through a [`Snapshot`], writing through an [`Update`]; one writer at a time, any
//! number of readers, none waits for the other. A commit is durable when it returns: two syncs
//! (two-phase), the allocator's state with it, so that opening after a crash reads a few pages and
//! never walks the file.
//!
//! Never: decides what to do about damage, reads the archive, or changes the file when opened
//! read-only (see [`overlay`]).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redb::{Builder, Database, ReadableDatabase, StorageBackend};

use crate::io::{Disk, File, OpenMode};
use crate::organs::catalog::backend::{Health, PAGE_BYTES, PagedBackend, Unreadable};
use crate::organs::catalog::keys::Moves;
use crate::organs::catalog::overlay::OverlayFile;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::safeguard::Safeguard;

pub mod backend;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod flips;
mod keys;
pub mod overlay;
pub mod snapshot;
pub mod tables;
#[cfg(test)]
mod tests;
pub mod update;

pub use snapshot::Snapshot;
pub use tables::{KeyRange, Located};
pub use update::{NewEntry, Update};

/// The file's name in the store's directory.
pub const FILE: &str = "index.redb";
/// Its name while it is made.
const TEMPORARY: &str = "index.redb.tmp";
/// Meta row with the layout of the tables; another number means "rebuild".
const FORMAT_NAME: &str = "format";
const FORMAT: u64 = 2;

/// The index of one store. Dropping it closes it cleanly; `close` does the same and says so.
#[derive(Debug)]
pub struct Catalog {
    database: Guarded<Database>,
    health: Arc<Health>,
    file: Arc<dyn File>,
    cache_bytes: usize,
}

/// Removes what a maker of an index that was cut off left behind.
pub fn remove_strays(disk: &dyn Disk) -> Result<()> {
    match disk.remove(TEMPORARY) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {TEMPORARY}"), e))
        }
        _ => Ok(()),
    }
}

impl Catalog {
    /// Makes an empty index, in place of the one that may be there. Under its name stands a whole one
    /// at every moment, or none: a power cut in between is not taken for damage.
    ///
    /// `cache_bytes` bounds redb's page cache. Errors with `Io` or `Full`.
    pub fn create(disk: &Arc<dyn Disk>, cache_bytes: usize) -> Result<Catalog> {
        let made = Catalog::create_file(disk, cache_bytes);
        let Err(error) = &made else { return made };
        // Best effort, so that a full disk gets its room back; the next attempt tries again.
        let _ = disk.remove(TEMPORARY);
        if error.kind() == ErrorKind::Full && disk.remove(FILE).is_ok() {
            // The room of the old one, which is of no use, is enough for an empty one.
            return Catalog::create_file(disk, cache_bytes).inspect_err(|_| {
                let _ = disk.remove(TEMPORARY);
            });
        }
        made
    }

    fn create_file(disk: &Arc<dyn Disk>, cache_bytes: usize) -> Result<Catalog> {
        remove_strays(&**disk)?;
        let file = disk.open(TEMPORARY, OpenMode::CreateNew);
        let file = file.map_err(|e| Error::io(format!("create {TEMPORARY}"), e))?;
        let catalog = Catalog::start(file, cache_bytes, |file, health| {
            PagedBackend::new(FILE, file, health)
        })?;
        let update = catalog.begin()?;
        update.create_tables()?;
        update.put_meta(FORMAT_NAME, FORMAT)?;
        update.commit()?;
        let renamed = disk.rename(TEMPORARY, FILE);
        renamed.map_err(|e| Error::io(format!("rename {TEMPORARY}"), e))?;
        // The name is durable before anything relies on it, and the old index cannot come back.
        let synced = Safeguard::CatalogCreateDirSync.keep(|| disk.sync_dir(""));
        synced.map_err(|e| Error::io("sync the store's directory", e))?;
        Ok(catalog)
    }

    /// Opens the index. Errors with `NotFound` when there is none and with `Corrupt` when it is
    /// damaged or of another layout; the caller then rebuilds it with [`Catalog::create`].
    pub fn open(disk: &Arc<dyn Disk>, cache_bytes: usize) -> Result<Catalog> {
        Catalog::open_file(disk, cache_bytes, false)
    }

    /// Opens the index without ever changing its file: what redb writes stays in RAM.
    pub fn open_read_only(disk: &Arc<dyn Disk>, cache_bytes: usize) -> Result<Catalog> {
        Catalog::open_file(disk, cache_bytes, true)
    }

    fn open_file(disk: &Arc<dyn Disk>, cache_bytes: usize, read_only: bool) -> Result<Catalog> {
        let mode = if read_only { OpenMode::Read } else { OpenMode::ReadWrite };
        let file = disk.open(FILE, mode).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(ErrorKind::NotFound, format!("there is no {FILE}"))
            }
            _ => Error::io(format!("open {FILE}"), e),
        })?;
        let file = match read_only {
            false => file,
            true => {
                let overlay = OverlayFile::new(file);
                Arc::new(overlay.map_err(|e| Error::io(format!("read {FILE}"), e))?)
            }
        };
        let catalog = Catalog::start(file, cache_bytes, |file, health| {
            let backend = PagedBackend::new(FILE, file, health)?;
            // redb would take an empty file for a new database.
            backend.check_header()?;
            Ok(backend)
        })?;
        catalog.check_format()?;
        Ok(catalog)
    }

    /// Opens redb over a backend; the tests pass one without checksums to compare.
    fn start<B: StorageBackend>(
        file: Arc<dyn File>,
        cache_bytes: usize,
        backend: impl FnOnce(Arc<dyn File>, Arc<Health>) -> std::io::Result<B>,
    ) -> Result<Catalog> {
        let health = Arc::new(Health::default());
        let backend = backend(file.clone(), health.clone()).map_err(file_error)?;
        let database = guard(|| {
            let mut builder = Builder::new();
            builder.set_cache_size(cache_bytes);
            builder.create_with_backend(backend).map_err(|e| redb_error(&health, e))
        })?;
        Ok(Catalog { database: Guarded::new(database), health, file, cache_bytes })
    }

    fn check_format(&self) -> Result<()> {
        // Not by a snapshot: an index of another layout lacks tables that one opens.
        let format = guard(|| {
            let health = &self.health;
            let transaction = self.database.get()?.begin_read();
            let transaction = transaction.map_err(|e| redb_error(health, e))?;
            let meta = transaction.open_table(tables::META).map_err(|e| redb_error(health, e))?;
            let value = meta.get(FORMAT_NAME).map_err(|e| redb_error(health, e))?;
            let key = FORMAT_NAME.as_bytes();
            value.map(|v| tables::open_number(tables::Table::Meta, key, &v.value())).transpose()
        })?;
        if format != Some(FORMAT) {
            return Err(Error::corrupt(format!(
                "{FILE}: its layout is {format:?}, this build reads {FORMAT}"
            )));
        }
        Ok(())
    }

    /// A view of the last commit, consistent for its life. It keeps the pages it sees from being
    /// reused, so it should be replaced after a commit, not kept.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let health = &self.health;
        guard(|| {
            let transaction =
                self.database.get()?.begin_read().map_err(|e| redb_error(health, e))?;
            Snapshot::new(&transaction, health.clone())
        })
    }

    /// Starts a change; waits while another one is under way. Dropping it changes nothing.
    ///
    /// In a read-only catalog the change is visible to later snapshots and never reaches the file.
    pub fn begin(&self) -> Result<Update> {
        guard(|| {
            let transaction = self.database.get()?.begin_write();
            let transaction = transaction.map_err(|e| redb_error(&self.health, e))?;
            Update::new(transaction, self.health.clone(), self.write_bytes_max())
        })
    }

    /// What redb keeps of a change until its commit: a half of its cache.
    fn write_bytes_max(&self) -> u64 {
        self.cache_bytes as u64 / 2
    }

    /// Whether keys that came lately are to be moved to where they stay, and could not be by the commit that brought
    /// the last of them: how many at once. See `keys`.
    pub fn rows_to_settle(&self) -> Result<Option<u64>> {
        let view = self.snapshot()?;
        let number = |name| Ok::<u64, Error>(view.meta(name)?.unwrap_or(0));
        let moves = Moves {
            counts: view.key_counts()?,
            written: number(update::RECENT_WRITTEN)?,
            recent_bytes: number(update::RECENT_BYTES)?,
            bytes_max: self.write_bytes_max(),
        };
        Ok(moves.rows_at_once())
    }

    /// Moves so many of them: a commit of its own that changes no answer. Answers how many are left.
    pub fn settle_some(&self, rows: u64) -> Result<u64> {
        let update = self.begin()?;
        let left = update.move_recent(rows)?;
        update.commit()?;
        Ok(left)
    }

    /// Moves all of them, if any are to be moved.
    #[cfg(test)]
    pub fn settle(&self) -> Result<()> {
        if let Some(rows) = self.rows_to_settle()? {
            while self.settle_some(rows)? > 0 {}
        }
        Ok(())
    }

    /// Reads every row of every table and checks its value. The first error of a table ends that
    /// table; redb's latch may make the later ones repeat it.
    #[cfg(test)]
    pub fn verify(&self) -> Vec<Error> {
        match self.snapshot() {
            Ok(snapshot) => snapshot.verify(),
            Err(error) => vec![error],
        }
    }

    /// Closes cleanly. Snapshots that are still held answer `Closed` afterwards. Errors with what
    /// went wrong below redb since the open; everything committed is on disk either way.
    pub fn close(mut self) -> Result<()> {
        self.database.end()?;
        self.failure().map_or(Ok(()), Err)
    }

    /// The first failure below redb since the open. From then on everything fails: the catalog
    /// has to be opened again, or rebuilt when the kind is `Corrupt`.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        let failure = self.health.failure.lock();
        failure.as_ref().map(|(kind, message)| remembered(*kind, message))
    }

    /// The first failure, if the file has to be made anew: opening it again would meet it again.
    #[must_use]
    pub fn rot(&self) -> Option<Error> {
        self.failure().filter(|_| self.health.is_rotten.load(Ordering::Acquire))
    }

    /// Bytes written to the file since the open, checksums included.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.health.written.load(Ordering::Relaxed)
    }

    /// Length of the file in bytes; the disk may hold fewer, as free pages at its end are holes.
    pub fn file_bytes(&self) -> Result<u64> {
        self.file.len().map_err(|e| Error::io(format!("measure {FILE}"), e))
    }

    /// Most RAM that the page cache may take.
    #[must_use]
    pub fn cache_bytes(&self) -> usize {
        self.cache_bytes
    }

    /// RAM that the page cache has not taken yet and may: reading the index fills it.
    #[must_use]
    pub fn room_bytes(&self) -> u64 {
        let health = &self.health;
        let moved = health.read.load(Ordering::Relaxed) + health.written.load(Ordering::Relaxed);
        let most = health.used_pages.load(Ordering::Relaxed) * PAGE_BYTES as u64;
        most.min(self.cache_bytes as u64).saturating_sub(moved)
    }

    /// An upper bound of the RAM that grows with the index: the page cache, as far as it can be
    /// filled by now, and the CRC pages.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let health = &self.health;
        let moved = health.read.load(Ordering::Relaxed) + health.written.load(Ordering::Relaxed);
        let used = health.used_pages.load(Ordering::Relaxed) * PAGE_BYTES as u64;
        let checksums = health.crc_pages.load(Ordering::Relaxed) * PAGE_BYTES as u64;
        moved.min(used).min(self.cache_bytes as u64) + checksums
    }
}

/// Whether an error says that the file is of no use as it is: damaged, of another layout, or with
/// bytes that the disk cannot read. A file that cannot be opened or written says nothing of that.
#[must_use]
pub fn is_unusable(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<std::io::Error>());
    let inner = source.and_then(std::io::Error::get_ref);
    error.kind() == ErrorKind::Corrupt || inner.is_some_and(|e| e.is::<Unreadable>())
}

/// Runs calls into redb: a panic on a damaged page becomes `Corrupt`.
fn guard<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            let text = text.unwrap_or_else(|| "no message".to_owned());
            Err(Error::corrupt(format!("{FILE}: redb gave up on its pages: {text}")))
        }
    }
}

/// A value of redb whose drop runs code of redb, and so runs inside [`guard`] as well.
#[derive(Debug)]
struct Guarded<T>(Option<T>);

impl<T> Guarded<T> {
    fn new(value: T) -> Guarded<T> {
        Guarded(Some(value))
    }

    fn get(&self) -> Result<&T> {
        self.0.as_ref().ok_or_else(closed)
    }

    fn get_mut(&mut self) -> Result<&mut T> {
        self.0.as_mut().ok_or_else(closed)
    }

    /// Takes the value out, to end it by a call that consumes it.
    fn take(&mut self) -> Result<T> {
        self.0.take().ok_or_else(closed)
    }

    fn end(&mut self) -> Result<()> {
        let value = self.0.take();
        guard(|| {
            drop(value);
            Ok(())
        })
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!("closing {FILE}: {error}");
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, format!("{FILE} is closed"))
}

/// An error of redb in the store's words.
fn redb_error(health: &Health, error: impl Into<redb::Error>) -> Error {
    let failure =
        || health.failure.lock().as_ref().map(|(kind, message)| remembered(*kind, message));
    match error.into() {
        redb::Error::Io(e) => file_error(e),
        redb::Error::PreviousIo | redb::Error::LockPoisoned(_) => failure().unwrap_or_else(|| {
            Error::corrupt(format!("{FILE}: redb stopped; reopen or rebuild it"))
        }),
        // After a failure it was closed to be opened again, which failed as well.
        redb::Error::DatabaseClosed => failure().unwrap_or_else(closed),
        redb::Error::ValueTooLarge(bytes) => {
            Error::invalid(format!("a row of {FILE} would have {bytes} bytes"))
        }
        other => Error::corrupt(format!("{FILE}: {other}")),
    }
}

fn file_error(error: std::io::Error) -> Error {
    if is_damage(error.kind()) {
        return Error::corrupt(error.to_string());
    }
    Error::io(format!("use {FILE}"), error)
}

fn remembered(kind: std::io::ErrorKind, message: &str) -> Error {
    if is_damage(kind) {
        return Error::corrupt(message);
    }
    Error::io(format!("use {FILE} after an earlier failure"), std::io::Error::new(kind, message))
}

/// A short file is as damaged as a wrong one.
fn is_damage(kind: std::io::ErrorKind) -> bool {
    matches!(kind, std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof)
}
