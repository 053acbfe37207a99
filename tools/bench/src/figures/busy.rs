//! Searches while the compressor runs without pause, beside searches of the same store at rest.
//!
//! 1. Passages are put and compressed under a budget of so many per cent of their f32.
//! 2. Idle: after a pause, and all queries once to warm up, `--passes` times, each timed. In the pause and the
//!    warming up comes back what runs of the compressor made go.
//! 3. Busy: the same while another thread writes every block anew, again and again (`recompress`, the
//!    longest run there is), and surveys between.
//!
//! Idle and busy passes take turns, so that a machine whose speed drifts drifts for both. Every answer is
//! compared with the truth. On one core alone the searches would wait for the scheduler: give it two.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use pmll::{Collection, Options, Store};

use super::{Figures, fill, folder, has_data, query};
use crate::times::{found, percentile};
use crate::{Outcome, data};

/// Longer than a store waits before it makes anew what it let go of.
const PAUSE: Duration = Duration::from_millis(1500);
const RATIO_MAX: f64 = 2.0;
const RECALL_MIN: f64 = 0.98;
const COLLECTION: &str = "passages";

#[derive(Args, Clone)]
pub struct BusyArgs {
    /// Folder of the passages, queries and true neighbours
    #[arg(long, value_name = "DIR", env = "PMLL_DATA", default_value = "../shared/data")]
    data: PathBuf,
    /// Entries
    #[arg(long, value_name = "N", default_value_t = 64_287)]
    rows: usize,
    /// Budget, in per cent of the vectors as f32
    #[arg(long, value_name = "PERCENT", default_value_t = 40)]
    budget: usize,
    /// Passes over the queries, idle and busy each
    #[arg(long, value_name = "N", default_value_t = 5)]
    passes: usize,
    /// Where the store lies; else in a temporary folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

pub fn run(args: &BusyArgs) -> Outcome<()> {
    if !has_data(&args.data) {
        return Ok(());
    }
    let dir = folder(args.keep.as_ref())?;
    let truth = data::truth(&args.data, dir.path(), args.rows, false)?;
    let queries = data::queries(&args.data)?;
    let dim = queries.first().map_or(0, Vec::len);
    let budget = ((args.rows * dim * 4 * args.budget / 100) as u64).max(1 << 20);
    let options = Options { budget_bytes: Some(budget), ..Options::default() };
    let store = Store::builder(dir.path().join("store")).options(options).open()?;
    let collection = store.collection(COLLECTION)?;
    fill(&store, &collection, &args.data, args.rows)?;
    store.compress()?;

    let asked = Asked { collection: &collection, queries: &queries, truth: &truth };
    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    let runs = AtomicU64::new(0);
    for _ in 0..args.passes {
        std::thread::sleep(PAUSE);
        asked.pass()?;
        std::thread::sleep(PAUSE);
        idle.extend(asked.pass()?);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| -> Outcome<()> {
            let compressor = scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    let done = store.recompress().and_then(|_| store.compress());
                    done.map_err(|e| e.to_string())?;
                    runs.fetch_add(1, Ordering::AcqRel);
                }
                Ok::<_, String>(())
            });
            let pass = asked.pass();
            stop.store(true, Ordering::Release);
            compressor.join().map_err(|_| "the compressing thread panicked")??;
            busy.extend(pass?);
            Ok(())
        })?;
    }
    idle.sort_by(f64::total_cmp);
    busy.sort_by(f64::total_cmp);
    let figures = Figures::begin("busy", dir.path());
    let [hot, warm, cold] = store.stats()?.tiers.map(|tier| tier.entries);
    figures.note("entries", &format!("hot {hot}, warm {warm}, cold {cold}"));
    for (what, times) in [("idle", &idle), ("busy", &busy)] {
        for percent in [50, 99] {
            figures.plain(&format!("{what}: p{percent} us"), percentile(times, percent));
        }
        figures.plain(&format!("{what}: longest us"), times.last().copied().unwrap_or_default());
    }
    figures.plain("runs of the compressor meanwhile", runs.load(Ordering::Acquire) as f64);
    let ratio = percentile(&busy, 99) / percentile(&idle, 99);
    figures.at_most("p99 busy / idle", ratio, RATIO_MAX);
    drop(collection);
    Ok(store.close()?)
}

struct Asked<'a> {
    collection: &'a Collection,
    queries: &'a [Vec<f32>],
    truth: &'a [Vec<i64>],
}

impl Asked<'_> {
    /// Asks every query once; answers the times.
    fn pass(&self) -> Outcome<Vec<f64>> {
        let (mut times_us, mut hits) = (Vec::with_capacity(self.queries.len()), 0);
        for (vector, truth) in self.queries.iter().zip(self.truth) {
            let query = query(vector);
            let before = Instant::now();
            let near = self.collection.search_ids(query)?;
            times_us.push(before.elapsed().as_secs_f64() * 1e6);
            let rows: Vec<i64> = near.iter().map(|hit| hit.id.0 as i64 - 1).collect();
            hits += found(&rows, truth)?;
        }
        let recall = hits as f64 / (self.queries.len() * data::K) as f64;
        if recall < RECALL_MIN {
            return Err(format!("recall is {recall:.4}").into());
        }
        Ok(times_us)
    }
}
