//! usearch: HNSW over i8 or bf16 values, connectivity 16, expansion 128 when adding.
//!
//! `build` adds all rows on every core, then tries search expansions from small to large and notes
//! the least one that reaches each recall on the measured queries themselves; that favours the
//! rival. The other works load what was built and search with the noted expansion. Where none
//! reaches the recall, searching is an error that names the best one found.

use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use crate::data::K;
use crate::report::Report;
use crate::search::{done_path, opened_report, reached};
use crate::times::{found, passes};
use crate::{Outcome, RunArgs, data, machine};

const EXPANSIONS: [usize; 6] = [48, 64, 96, 128, 192, 256];

/// What a subject's name says: `usearch-bf16-99`, or `usearch-bf16-load` for opening.
struct Kind {
    values: ScalarKind,
    file: &'static str,
    /// What stands behind the kind of values: a recall, or a way of opening.
    end: String,
}

impl Kind {
    fn of(subject: &str) -> Outcome<Kind> {
        let (kind, end) = subject.rsplit_once('-').unwrap_or_default();
        let (values, file) = match kind {
            "usearch-i8" => (ScalarKind::I8, "usearch-i8.index"),
            "usearch-bf16" => (ScalarKind::BF16, "usearch-bf16.index"),
            _ => return Err(format!("{subject}: no such subject").into()),
        };
        Ok(Kind { values, file, end: end.to_owned() })
    }

    fn target(&self) -> Outcome<f64> {
        Ok(self.end.parse::<f64>()? / 100.0)
    }

    fn index(&self, dim: usize) -> Outcome<Index> {
        Ok(Index::new(&IndexOptions {
            dimensions: dim,
            metric: MetricKind::IP,
            quantization: self.values,
            connectivity: 16,
            expansion_add: 128,
            expansion_search: 0,
            multi: false,
        })?)
    }

    fn path(&self, args: &RunArgs) -> PathBuf {
        args.state.join(self.file)
    }
}

/// The recall that each search expansion comes to.
#[derive(Serialize, Deserialize)]
struct Sweep(Vec<(usize, f64)>);

impl Sweep {
    fn load(args: &RunArgs, kind: &Kind) -> Outcome<Sweep> {
        Ok(serde_json::from_str(&std::fs::read_to_string(done_path(args, kind.file))?)?)
    }

    fn least(&self, target: f64) -> Outcome<usize> {
        let Sweep(tried) = self;
        if let Some((expansion, _)) = tried.iter().find(|(_, recall)| *recall >= target) {
            return Ok(*expansion);
        }
        let best = tried.iter().map(|(_, recall)| *recall).fold(0.0, f64::max);
        Err(format!(
            "no expansion up to {} reaches recall {target}; the best is {best:.4}",
            EXPANSIONS[EXPANSIONS.len() - 1]
        )
        .into())
    }
}

/// Builds the index that the subject searches in, unless a finished one stands there.
pub fn build(args: &RunArgs) -> Outcome<()> {
    let kind = Kind::of(&args.subject)?;
    let done = done_path(args, kind.file);
    if done.exists() {
        return Ok(());
    }
    let rows: Vec<Vec<f32>> =
        data::passages(&args.data, args.rows)?.iter().map(|row| data::unit(row)).collect();
    let index = kind.index(rows.first().map_or(0, Vec::len))?;
    let threads = std::thread::available_parallelism()?.get();
    index.reserve_capacity_and_threads(rows.len(), threads)?;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (index, rows) = (&index, &rows);
                scope.spawn(move || {
                    let mine = rows.iter().enumerate().skip(thread).step_by(threads);
                    for (row, vector) in mine {
                        index.add(row as u64, vector).map_err(|e| e.to_string())?;
                    }
                    Ok::<(), String>(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|w| w.join().map_err(|_| "a worker panicked")?)
    })?;
    let queries = data::queries(&args.data)?;
    let truth = data::truth(&args.data, &args.state, args.rows, false)?;
    let mut sweep = Vec::new();
    for expansion in EXPANSIONS {
        index.change_expansion_search(expansion);
        let mut hits = 0;
        for (query, truth) in queries.iter().zip(&truth) {
            hits += found(&answered(&index.search(query.as_slice(), K)?), truth)?;
        }
        sweep.push((expansion, hits as f64 / (queries.len() * K) as f64));
    }
    index.save(&kind.path(args).to_string_lossy())?;
    std::fs::write(done, serde_json::to_string(&Sweep(sweep))?)?;
    Ok(())
}

fn answered(matches: &usearch::ffi::Matches) -> Vec<i64> {
    matches.keys.iter().map(|key| *key as i64).collect()
}

/// Search with the least expansion that reaches the recall in the subject's name.
pub fn search(args: &RunArgs) -> Outcome<Report> {
    let kind = Kind::of(&args.subject)?;
    let target = kind.target()?;
    let expansion = Sweep::load(args, &kind)?.least(target)?;
    let queries = data::queries(&args.data)?;
    let truth = data::truth(&args.data, &args.state, args.rows, false)?;
    let before_bytes = machine::resident_bytes();
    let index = kind.index(queries.first().map_or(0, Vec::len))?;
    index.load(&kind.path(args).to_string_lossy())?;
    index.change_expansion_search(expansion);
    let ask = |query: Vec<f32>| Ok(index.search(query.as_slice(), K)?);
    let pass = passes(&queries, &truth, <[f32]>::to_vec, ask, answered)?;
    let resident_bytes = machine::resident_bytes().saturating_sub(before_bytes);
    complete(&index, args.rows)?;
    reached(pass.recall, target)?;
    Ok(Report {
        rows: Some(args.rows as u64),
        recall: Some(pass.recall),
        p50_us: Some(pass.p50_us),
        p99_us: Some(pass.p99_us),
        rate_per_s: Some(1e6 / pass.p50_us),
        resident_bytes: Some(resident_bytes),
        disk_bytes: Some(machine::disk_bytes(&kind.path(args))?),
        note: Some(format!("ef {expansion}; {}; no texts", index.hardware_acceleration())),
        ..Report::new("search", &args.subject)
    })
}

/// Opens by `load` or by `view`, as the subject's name ends, and searches once for recall 0.99, or
/// with the largest expansion where no smaller one reaches it.
pub fn open(args: &RunArgs, started: Instant) -> Outcome<Report> {
    let kind = Kind::of(&args.subject)?;
    let expansion = Sweep::load(args, &kind)?.least(0.99);
    let expansion = expansion.unwrap_or(EXPANSIONS[EXPANSIONS.len() - 1]);
    let query = data::first_query(&args.data)?;
    let index = kind.index(query.len())?;
    let path = kind.path(args);
    match kind.end.as_str() {
        "load" => index.load(&path.to_string_lossy())?,
        "view" => index.view(&path.to_string_lossy())?,
        other => return Err(format!("{other}: an index is opened by load or view").into()),
    }
    index.change_expansion_search(expansion);
    let matches = index.search(query.as_slice(), K)?;
    let time_us = started.elapsed().as_secs_f64() * 1e6;
    complete(&index, args.rows)?;
    let (disk_bytes, note) = (machine::disk_bytes(&path)?, format!("ef {expansion}; no texts"));
    opened_report(args, time_us, &answered(&matches), disk_bytes, note)
}

fn complete(index: &Index, rows: usize) -> Outcome<()> {
    if index.size() != rows {
        return Err(format!("{rows} rows were added, {} are there", index.size()).into());
    }
    Ok(())
}
