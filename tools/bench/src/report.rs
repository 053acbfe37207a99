//! What one measurement says, as it goes from a measuring process to the comparing one.
//!
//! One JSON object on one line of standard output; `rivals.py` prints the very same. A field that a
//! work does not measure is null. A wrong answer is never a report: the process fails and says why
//! on standard error, and the comparing process makes a row with `error` of it.

use serde::{Deserialize, Serialize};

/// One measurement of one subject.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// `search`, `filter`, `puts-1`, `puts-8`, `bulk` or `open`.
    pub work: String,
    /// What was measured.
    pub subject: String,
    /// Rows in the store, or written to it.
    pub rows: Option<u64>,
    /// Share of the true best ten that was found.
    pub recall: Option<f64>,
    /// Median time of one call.
    pub p50_us: Option<f64>,
    /// Time that 99 of 100 calls stay below.
    pub p99_us: Option<f64>,
    /// Rows or puts a second.
    pub rate_per_s: Option<f64>,
    /// Resident set after the measurement, less what it was before the index was loaded.
    pub resident_bytes: Option<u64>,
    /// Blocks that the files of the subject take on disk.
    pub disk_bytes: Option<u64>,
    /// Settings that were found, and what else a reader should know.
    pub note: Option<String>,
}

impl Report {
    /// A report of nothing yet.
    pub fn new(work: impl Into<String>, subject: &str) -> Report {
        Report { work: work.into(), subject: subject.to_owned(), ..Report::default() }
    }
}

/// A measurement as the comparing process keeps it, and as `--json` writes it.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which round, counted from 1.
    pub round: u32,
    /// Why there is no figure.
    pub error: Option<String>,
    #[serde(flatten)]
    pub report: Report,
}
