//! Figures that pmll is to keep to, measured without rivals.
//!
//! One file a figure. Each fills a store, checks what it answers, and prints a table of what was measured
//! beside the bar. A bar that is missed is printed as missed and is no failure of the command: it
//! measures, and people judge.

pub mod busy;
pub mod edge;
pub mod passes;
pub mod stores;
pub mod wear;

use std::path::{Path, PathBuf};

use pmll::{Batch, Collection, CountAccess, Draft, Query, Store};

use crate::data::{self, K};
use crate::store::BATCH;
use crate::{Outcome, machine};

/// Bytes of a mebibyte.
const MIB: f64 = (1 << 20) as f64;

/// A table of figures and their bars.
pub struct Figures(());

impl Figures {
    /// Prints machine and head.
    pub fn begin(what: &str, folder: &Path) -> Figures {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let kind = machine::file_system(folder).unwrap_or_else(|| "unknown".to_owned());
        println!("{what}: {}, {cores} core(s), {kind}", machine::processor());
        println!("| figure | measured | bar | |");
        println!("|---|---|---|---|");
        Figures(())
    }

    /// A figure that is to be at most so much.
    pub fn at_most(&self, what: &str, value: f64, bar: f64) {
        println!("| {what} | {value:.2} | <= {bar} | {} |", met(value <= bar));
    }

    /// A figure that is to be at least so much.
    pub fn at_least(&self, what: &str, value: f64, bar: f64) {
        println!("| {what} | {value:.2} | >= {bar} | {} |", met(value >= bar));
    }

    /// A figure without a bar.
    pub fn plain(&self, what: &str, value: f64) {
        println!("| {what} | {value:.2} | | |");
    }

    /// Words.
    pub fn note(&self, what: &str, words: &str) {
        println!("| {what} | {words} | | |");
    }
}

fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "missed" }
}

/// A folder for stores: below the one that was given, else temporary.
fn folder(given: Option<&PathBuf>) -> Outcome<tempfile::TempDir> {
    match given {
        Some(given) => {
            std::fs::create_dir_all(given)?;
            Ok(tempfile::tempdir_in(given)?)
        }
        None => Ok(tempfile::tempdir()?),
    }
}

/// Whether there is data; says so where there is none.
fn has_data(data: &Path) -> bool {
    let there = data::is_there(data);
    if !there {
        println!("skipped: no data at {}; give --data or set PMLL_DATA", data.display());
    }
    there
}

/// Puts passages in durable batches, row `n` as the `n`-th entry.
fn fill(store: &Store, collection: &Collection, data: &Path, rows: usize) -> Outcome<()> {
    let (vectors, texts) = (data::passages(data, rows)?, data::texts(data, rows)?);
    let all: Vec<_> = vectors.iter().zip(&texts).enumerate().collect();
    for chunk in all.chunks(BATCH) {
        let mut batch = Batch::new();
        for (row, (vector, text)) in chunk {
            let draft = Draft::text(text.as_str()).vector(vector.as_slice());
            batch = batch.put(collection, row.to_string(), draft);
        }
        store.write(batch)?;
    }
    Ok(())
}

/// A query for ids that leaves no trace.
fn query(vector: &[f32]) -> Query {
    Query::vector(vector).k(K).with_payload(false).count_access(CountAccess::None)
}
