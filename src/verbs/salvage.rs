//! Salvage: what is whole in the files of a store that does not open, carried into a new one.
//!
//! It is recovery with lenient sources, by the same rule: of an id the highest LSN that is whole wins.
//! 1. [`sources`] reads the archive and then the log, goes on behind every damage, and notes of each
//!    id where its newest whole version stands; nothing else stays in RAM.
//! 2. [`copy`] reads these again, oldest LSN first, into a table of at most 8 MiB, which the mover
//!    archives into the new store whenever it is full. Ids, versions and times stay what they were.
//!
//! What the archive holds, the log need not say again: below the applied LSN it may lack the removal
//! of what it has. There it is asked only when the archive is damaged.
//!
//! The index is asked last, and only for what no other file says: whose a damaged row was. Packed codes
//! and access counts are derived or soft, and stay behind.
//!
//! Never: writes to the source, or takes anything whose CRC differs.

use crate::words::id::{EntryId, Key, Lsn};

pub mod copy;
pub mod sources;

/// Places that a report lists; the others are counted.
const LISTED_MAX: usize = 10_000;

/// What a salvage found, and what it could not save.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let store = pmll::Store::open(dir.path().join("memory"))?;
/// store.collection("notes")?.put("a", pmll::Draft::text("one"))?;
/// store.close()?;
/// let report = pmll::salvage(dir.path().join("memory"), dir.path().join("saved"))?;
/// assert!(report.is_complete() && report.entries == 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Entries that are whole, each in the newest version that is.
    pub entries: u64,
    /// Of these, how many came from the log; the others came from the archive.
    pub from_log: u64,
    /// Entries whose removal was found; they stay removed.
    pub removed: u64,
    /// Definitions of collections.
    pub collections: u64,
    /// Settings.
    pub settings: u64,
    /// Remembered requests of clients.
    pub requests: u64,
    /// Highest LSN that was read.
    pub last_lsn: Lsn,
    /// Files that were read.
    pub files: u64,
    /// What is lost, the first 10,000.
    pub lost: Vec<Lost>,
    /// How many there are.
    pub lost_total: u64,
    /// Entries whose newest version is damaged and that have an older one, the first 10,000.
    pub older: Vec<Older>,
    /// How many there are.
    pub older_total: u64,
    /// What cost nothing, for people.
    pub notes: Vec<String>,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Lost {
    /// The file.
    pub file: String,
    /// Where the damage begins.
    pub offset: u64,
    /// What it is.
    pub what: String,
    /// First and last LSN of what the log lost there; the last is `None` when nothing tells.
    pub lsns: Option<(Lsn, Option<Lsn>)>,
    /// The entry, where it is known.
    pub id: Option<EntryId>,
    /// Its key, where it is known.
    pub key: Option<Key>,
}

/// An entry that goes back to an older version.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Older {
    /// The entry.
    pub id: EntryId,
    /// Its key.
    pub key: Option<Key>,
    /// The version that was whole.
    pub version: Lsn,
    /// The version that is damaged.
    pub damaged: Lsn,
}

impl SalvageReport {
    /// Whether nothing was lost.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lost_total == 0 && self.older_total == 0
    }

    fn lose(&mut self, lost: Lost) {
        self.lost_total += 1;
        if self.lost.len() < LISTED_MAX {
            self.lost.push(lost);
        }
    }

    fn lose_file(&mut self, file: &str, what: impl Into<String>) {
        let (file, what) = (file.to_owned(), what.into());
        self.lose(Lost { file, offset: 0, what, lsns: None, id: None, key: None });
    }

    fn step_back(&mut self, older: Older) {
        self.older_total += 1;
        if self.older.len() < LISTED_MAX {
            self.older.push(older);
        }
    }
}
