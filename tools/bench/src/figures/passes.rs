//! Rates of a run of the compressor, a core.
//!
//! Seconds are those that the process spent on a processor, so that a machine with other work tells the
//! same; beside them stand those that passed, which have the waiting for the disk in them. Pin it to one core
//! (`taskset -c 0`) to have both alike.
//!
//! 1. Passages are put into a store with room for all, archived, and none packed.
//! 2. `plan` surveys, scores and plans without moving anything: entries a second.
//! 3. A run by `Policy::Paper` packs four fifths of them, for the f32 of the entries packed. It reads the archive,
//!    quantises, writes blocks and syncs them. No cells are made meanwhile.
//! 4. The store is opened again as it usually is, and the next run groups all rows into cells: rows a second, for
//!    the time beyond that of a run that moves nothing.
//! 5. `recompress` writes every block anew: a run without a change of level.
//!
//! Checked: how many entries stand where, when there are cells, and that the best ten are found afterwards.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use pmll::{Options, Policy, Store, Tier};

use super::{Figures, fill, folder, has_data, query};
use crate::store::LARGE_BYTES;
use crate::times::{found, median};
use crate::{Outcome, data, machine};

const ENTRIES_PER_S_MIN: f64 = 300_000.0;
const MB_PER_S_MIN: f64 = 400.0;
const COLLECTION: &str = "passages";
const RECALL_MIN: f64 = 0.98;

#[derive(Args, Clone)]
pub struct PassesArgs {
    /// Folder of the passages, queries and true neighbours
    #[arg(long, value_name = "DIR", env = "PMLL_DATA", default_value = "../shared/data")]
    data: PathBuf,
    /// Entries
    #[arg(long, value_name = "N", default_value_t = 64_287)]
    rows: usize,
    /// Plans and runs that are timed
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where the store lies; else in a temporary folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

pub fn run(args: &PassesArgs) -> Outcome<()> {
    if !has_data(&args.data) {
        return Ok(());
    }
    let dir = folder(args.keep.as_ref())?;
    let truth = data::truth(&args.data, dir.path(), args.rows, false)?;
    let queries = data::queries(&args.data)?;
    let dim = queries.first().map_or(0, Vec::len);
    let figures = Figures::begin("passes", dir.path());
    let budget = LARGE_BYTES.max((args.rows * dim * 4 * 2) as u64);
    let options = Options { budget_bytes: Some(budget), background: false, ..Options::default() };
    let without_cells = Options { cells_rows_min: u64::MAX, ..options.clone() };
    let path = dir.path().join("store");
    let store = Store::builder(&path).options(without_cells).open()?;
    let collection = store.collection(COLLECTION)?;
    fill(&store, &collection, &args.data, args.rows)?;
    store.checkpoint()?;

    let plan = timed(args.rounds, || Ok(store.plan_with(Policy::Paper).map(drop)?))?;
    let rate = args.rows as f64 / plan.worked_s;
    figures.at_least("entries surveyed, scored and planned a second", rate, ENTRIES_PER_S_MIN);

    let first = timed(1, || Ok(store.compress_with(Policy::Paper).map(drop)?))?;
    let packed =
        store.stats()?.tiers.iter().find(|t| t.tier == Tier::Warm).map_or(0, |t| t.entries);
    if (packed as usize) < args.rows / 2 {
        return Err(format!("of {} entries {packed} were packed", args.rows).into());
    }
    let cells_files = || -> Outcome<usize> {
        let names = std::fs::read_dir(path.join("arena"))?.collect::<Result<Vec<_>, _>>()?;
        Ok(names.iter().filter(|file| file.path().extension().is_some_and(|e| e == "cel")).count())
    };
    drop(collection);
    store.close()?;
    let store = Store::builder(&path).options(options).open()?;
    let collection = store.collection(COLLECTION)?;
    let before = cells_files()?;
    let cells = timed(1, || Ok(store.compress_with(Policy::Paper).map(drop)?))?;
    let made = cells_files()?;
    if (before, made) != (0, 1) {
        return Err(format!("{before} files of cells before the run, {made} after it").into());
    }
    let again = timed(args.rounds, || Ok(store.recompress().map(drop)?))?;
    let still = timed(args.rounds, || Ok(store.compress_with(Policy::Paper).map(drop)?))?;
    let mb = packed as f64 * dim as f64 * 4.0 / 1e6;
    figures.plain("MB of f32 packed", mb);
    let all = [("plan", &plan), ("first run", &first), ("cells", &cells), ("packing anew", &again)];
    for (what, took) in all {
        let words = format!("{:.3} worked, {:.3} passed", took.worked_s, took.passed_s);
        figures.note(&format!("{what}: seconds"), &words);
    }
    figures.plain("run that moves nothing: seconds worked", still.worked_s);
    figures.at_least("MB of f32 packed a second, first run", mb / first.worked_s, MB_PER_S_MIN);
    figures.at_least("the same, packed anew", mb / again.worked_s, MB_PER_S_MIN);
    let grouping_s = cells.worked_s - still.worked_s;
    figures.plain("rows grouped into cells a second", args.rows as f64 / grouping_s);

    let mut hits = 0;
    for (vector, truth) in queries.iter().zip(&truth) {
        let near = collection.search_ids(query(vector))?;
        let rows: Vec<i64> = near.iter().map(|hit| hit.id.0 as i64 - 1).collect();
        hits += found(&rows, truth)?;
    }
    let recall = hits as f64 / (queries.len() * data::K) as f64;
    if recall < RECALL_MIN {
        return Err(format!("recall is {recall:.4} after the run").into());
    }
    figures.plain("recall afterwards", recall);
    drop(collection);
    Ok(store.close()?)
}

/// Medians of how long something took.
struct Took {
    worked_s: f64,
    passed_s: f64,
}

fn timed(rounds: u32, what: impl Fn() -> Outcome<()>) -> Outcome<Took> {
    let (mut worked, mut passed) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (worked_before, begun) = (machine::processor_seconds(), Instant::now());
        what()?;
        worked.push(machine::processor_seconds() - worked_before);
        passed.push(begun.elapsed().as_secs_f64());
    }
    let middle = |times: &[f64]| median(times).unwrap_or(f64::NAN);
    Ok(Took { worked_s: middle(&worked), passed_s: middle(&passed) })
}
