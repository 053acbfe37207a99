//! Salvage: a store that does not open, carried into a new one as far as it is whole.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::io::{Disk, FileDisk};
use crate::tiers::mover::Ground;
use crate::verbs::salvage::{copy, sources};
use crate::verbs::{inspect, layout, recovery};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::options::Options;

pub use crate::verbs::salvage::{Lost, Older, SalvageReport};

/// Page cache of the new store's index while it is made.
const CACHE_BYTES: usize = 1 << 20;

/// Copies what is whole in the store at `source` into a new store at `target`, and says what is not.
///
/// For a store that does not open, or that [`Store::verify`](crate::Store::verify) finds damaged.
/// Nothing is written to the source.
/// The target must be missing or empty; it becomes a store of its own. Ids, versions, times and settings
/// stay; access counts begin anew. See [`Salvage`] for more.
pub fn salvage(source: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<SalvageReport> {
    Salvage::open(source)?.copy_to(target)
}

/// How far a salvage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SalvageProgress {
    /// So many entries were found so far.
    Found(u64),
    /// So many were copied, of so many.
    Copied(u64, u64),
}

type Watcher = Box<dyn FnMut(SalvageProgress) + Send>;

/// A store to be salvaged. It is locked for others that write as long as this lives.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let store = pmll::Store::open(dir.path().join("memory"))?;
/// # store.collection("notes")?.put("a", pmll::Draft::text("one"))?;
/// # store.close()?;
/// let mut salvage = pmll::Salvage::open(dir.path().join("memory"))?;
/// assert!(salvage.survey()?.is_complete()); // reads everything, writes nothing
/// salvage.copy_to(dir.path().join("saved"))?;
/// let saved = pmll::Store::open(dir.path().join("saved"))?;
/// assert!(saved.collection("notes")?.contains("a")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Salvage {
    disk: Arc<dyn Disk>,
    path: Option<PathBuf>,
    store_id: [u8; 16],
    stand_in: Option<String>,
    watcher: Option<Watcher>,
    _lock: layout::Lock,
}

impl fmt::Debug for Salvage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Salvage").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Salvage {
    /// Takes up the store at a path. Errors: `NotFound` when there is none, `Locked` when it is open for
    /// writing elsewhere, `Version` when a newer build wrote it, `Corrupt` when no file says whose it is.
    pub fn open(path: impl AsRef<Path>) -> Result<Salvage> {
        let path = path.as_ref();
        let disk = FileDisk::open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(ErrorKind::NotFound, format!("there is no store at {}", path.display()))
            }
            _ => Error::io(format!("open {}", path.display()), e),
        })?;
        let mut salvage = Salvage::on(Arc::new(disk))?;
        salvage.path = Some(path.to_owned());
        Ok(salvage)
    }

    /// Takes up the store on a disk.
    pub fn on(disk: Arc<dyn Disk>) -> Result<Salvage> {
        let lock = layout::share(&*disk)?;
        let said = layout::identity(&*disk);
        let found = inspect::identity(&*disk, layout::STORE_FILE, said)?;
        let stand_in = found.report.problems.first().cloned();
        let store_id = found.store_id;
        Ok(Salvage { disk, path: None, store_id, stand_in, watcher: None, _lock: lock })
    }

    /// Has `watch` called now and then with how far it is.
    #[must_use]
    pub fn watch(mut self, watch: impl FnMut(SalvageProgress) + Send + 'static) -> Salvage {
        self.watcher = Some(Box::new(watch));
        self
    }

    /// Reads everything and says what there is. Writes nothing.
    ///
    /// Cost: reads every byte of log and archive once; some 60 bytes of memory an entry.
    pub fn survey(&mut self) -> Result<SalvageReport> {
        Ok(self.read()?.report)
    }

    /// Copies what is whole into a new store at a path, which must be missing or empty and not inside the
    /// source. Errors with `Invalid` otherwise.
    ///
    /// Cost: reads the source twice; some 100 bytes of memory an entry, and 8 MiB.
    pub fn copy_to(&mut self, path: impl AsRef<Path>) -> Result<SalvageReport> {
        let path = path.as_ref();
        self.check_apart(path)?;
        let disk = match FileDisk::create(path) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => FileDisk::open(path),
            created => created,
        };
        let disk = disk.map_err(|e| match e.kind() {
            std::io::ErrorKind::NotADirectory => {
                Error::invalid(format!("{} is a file, not a directory", path.display()))
            }
            _ => Error::io(format!("make {}", path.display()), e),
        })?;
        self.copy_onto(Arc::new(disk))
    }

    /// Copies what is whole onto another disk, which must be empty. Errors with `Invalid` otherwise.
    pub fn copy_onto(&mut self, target: Arc<dyn Disk>) -> Result<SalvageReport> {
        let names = target.list("").map_err(|e| Error::io("list the new directory", e))?;
        if let Some(name) = names.first() {
            return Err(Error::invalid(format!(
                "the new directory is not empty (it holds {name:?}); choose another. Nothing was written"
            )));
        }
        let sources = self.read()?;
        let (store_id, _lock) = layout::enter(&*target, &Options::default())?;
        let shares = recovery::Shares {
            budget: &|_| 0,
            cache_bytes: |_| CACHE_BYTES,
            freeze_bytes: |_| u64::MAX,
        };
        let made = recovery::recover(&target, store_id, false, &shares)?;
        let ground = Ground { disk: &*target, store_id, catalog: &made.catalog };
        let (total, watcher) = (sources.report.entries, &mut self.watcher);
        let report = copy::copy(&*self.disk, &sources, &ground, made.view, &mut |copied| {
            if let Some(watch) = watcher {
                watch(SalvageProgress::Copied(copied, total));
            }
        })?;
        made.catalog.close()?;
        Ok(report)
    }

    fn read(&mut self) -> Result<sources::Sources> {
        let watcher = &mut self.watcher;
        let mut sources = sources::read(&self.disk, self.store_id, &mut |found| {
            if let Some(watch) = watcher {
                watch(SalvageProgress::Found(found));
            }
        })?;
        sources.report.notes.extend(self.stand_in.clone());
        Ok(sources)
    }

    /// A new store inside the old one would be a write to the old one.
    fn check_apart(&self, target: &Path) -> Result<()> {
        let Some(source) = self.path.as_ref().and_then(|path| path.canonicalize().ok()) else {
            return Ok(());
        };
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let inside = |path: &Path| path.canonicalize().is_ok_and(|path| path.starts_with(&source));
        match inside(parent.unwrap_or(Path::new("."))) || inside(target) {
            true => Err(Error::invalid(format!(
                "{} lies in the store that is to be salvaged; choose a place outside",
                target.display()
            ))),
            false => Ok(()),
        }
    }
}
