//! Looking into a store: its files one by one, and what the compressor thinks of each entry.
//!
//! [`Files`] reads the files of a store that need not be whole, nor closed; [`scores`] asks an open
//! one. Both are for people and tools: nothing here is needed to use a store.

use std::path::Path;
use std::sync::Arc;

use crate::face::store::Store;
use crate::io::{Disk, FileDisk};
use crate::pure::policy::Standing;
use crate::pure::score::Score;
use crate::verbs::inspect::{self, Identity};
use crate::verbs::layout;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::EntryId;

pub use crate::verbs::inspect::FileReport;

/// The files of a store, whether it is open elsewhere, damaged, or neither.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let store = pmll::Store::open(dir.path().join("memory"))?;
/// store.collection("notes")?.put("a", pmll::Draft::text("one"))?;
/// let files = pmll::inspect::Files::open(dir.path().join("memory"))?;
/// assert!(files.in_use());
/// assert_eq!(files.log().last().unwrap().facts["last_lsn"], 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Files {
    disk: Arc<dyn Disk>,
    identity: Identity,
    in_use: bool,
}

impl Files {
    /// Looks at a directory. Writes nothing and keeps no lock. When `store.toml` is damaged or missing,
    /// the identity of the store is taken from the first other file that still has it. Errors: `NotFound`
    /// when there is no store, `Corrupt` when no file says whose it is, `Version` when a newer build
    /// wrote the store.
    pub fn open(path: impl AsRef<Path>) -> Result<Files> {
        let path = path.as_ref();
        let disk = FileDisk::open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(ErrorKind::NotFound, format!("there is no store at {}", path.display()))
            }
            _ => Error::io(format!("open {}", path.display()), e),
        })?;
        Files::on(Arc::new(disk))
    }

    /// Looks at a disk.
    pub fn on(disk: Arc<dyn Disk>) -> Result<Files> {
        let identity = inspect::identity(&*disk, layout::STORE_FILE, layout::identity(&*disk))?;
        let in_use = layout::in_use(&*disk)?;
        Ok(Files { disk, identity, in_use })
    }

    /// Whether a process has the store open. Its log, archive and arena can be read all the same:
    /// sealed files never change, and the log only grows. A file that the owner removes meanwhile is
    /// a row with the fact `gone_meanwhile`.
    #[must_use]
    pub fn in_use(&self) -> bool {
        self.in_use
    }

    /// Identity of the store, 32 hexadecimal digits.
    #[must_use]
    pub fn store_id(&self) -> String {
        self.identity.store_id.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// `store.toml`. When it is damaged, its fact `store_id_from` names the file that stood in for it.
    #[must_use]
    pub fn store_file(&self) -> FileReport {
        self.identity.report.clone()
    }

    /// The log: a row per file, frame by frame, the last row what a replay finds.
    #[must_use]
    pub fn log(&self) -> Vec<FileReport> {
        inspect::log(&*self.disk, self.identity.store_id, self.in_use)
    }

    /// The archive: a row per segment, by its footer. Dead rows are known unless the store is in use.
    #[must_use]
    pub fn archive(&self) -> Vec<FileReport> {
        inspect::archive(&self.disk, self.identity.store_id, false, !self.in_use)
    }

    /// The same after reading every byte.
    #[must_use]
    pub fn archive_deep(&self) -> Vec<FileReport> {
        inspect::archive(&self.disk, self.identity.store_id, true, !self.in_use)
    }

    /// The arena: a row per block.
    #[must_use]
    pub fn arena(&self) -> Vec<FileReport> {
        inspect::arena(&*self.disk, self.identity.store_id)
    }

    /// The columns: a row per file.
    #[must_use]
    pub fn columns(&self) -> Vec<FileReport> {
        inspect::columns(&*self.disk, self.identity.store_id)
    }

    /// The index. `Locked` while the store is in use: its pages change under a reader.
    pub fn catalog(&self) -> Result<FileReport> {
        if self.in_use {
            let message = "the index is read only when no process has the store open";
            return Err(Error::new(ErrorKind::Locked, message));
        }
        Ok(inspect::catalog(&self.disk))
    }
}

/// What the compressor thinks of an archived entry.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let store = pmll::Store::open(dir.path().join("memory"))?;
/// # store.collection("notes")?.put("a", pmll::Draft::text("one"))?;
/// store.checkpoint()?;
/// let scored = pmll::inspect::scores(&store)?;
/// assert_eq!(scored[0].standing, pmll::Standing::Hot);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Scored {
    /// Its collection.
    pub collection: Arc<str>,
    /// The entry.
    pub id: EntryId,
    /// What it is worth, with the terms.
    pub score: Score,
    /// Where it stands.
    pub standing: Standing,
    /// Whether it is pinned.
    pub pinned: bool,
}

/// Scores of all archived entries that are not expired, by collection and id. What only the log
/// has so far is absent: it has no rank yet.
///
/// Cost: a pass over 128 bytes an entry, some 60 bytes of memory an entry.
pub fn scores(store: &Store) -> Result<Vec<Scored>> {
    let engine = store.engine();
    engine.check_open()?;
    let (view, run) = engine.scored()?;
    let survey = &run.survey;
    let mut all = Vec::with_capacity(survey.len());
    for stretch in &survey.collections {
        let def = view.collections.get(&stretch.collection);
        let name: Arc<str> = def.map_or_else(|| Arc::from(""), |def| Arc::clone(&def.name));
        for at in stretch.from..stretch.to {
            let (Some(id), Some(standing), Some(pinned)) =
                (survey.ids.get(at), survey.standing.get(at), survey.pinned.get(at))
            else {
                continue;
            };
            all.push(Scored {
                collection: Arc::clone(&name),
                id: *id,
                score: run.terms(at),
                standing: *standing,
                pinned: *pinned,
            });
        }
    }
    Ok(all)
}
