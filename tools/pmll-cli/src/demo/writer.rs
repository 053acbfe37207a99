//! The life that is killed: a process of its own that plays the session and says what is done.
//!
//! It opens the store, goes on at the step it is told, and prints a line when a step has returned:
//! `ack STEP MICROS` for writes, `found STEP MICROS right|wrong` for searches, `archived STEP
//! MICROS` for checkpoints, `compressed STEP MICROS MOVES` for runs of the compressor. A write is
//! acknowledged only after the store has returned from it, with `Durability::Sync`. One step is on
//! its way at a time, so that whoever reads the lines knows which single step may be in doubt when
//! they end.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pmll::{
    Batch, Collection, CollectionSpec, Draft, Element, Exactness, Hits, Options, Patch, Query,
    Store, Timestamp,
};

use super::data::{Data, K};
use super::plan::{self, Memory, Model, Plan, Step};
use super::{Outcome, Result};

/// Memory the store may take for data unless `--budget` says otherwise: the least there is, a
/// quarter of what the vectors need in f32.
pub const BUDGET_BYTES: u64 = 1 << 20;

/// How far two ways of summing 384 products may lie apart.
const SCORE_TOLERANCE: f64 = 1e-5;

/// What the writing process is told.
#[derive(Debug, clap::Args)]
pub struct WriterArgs {
    dir: PathBuf,
    data: PathBuf,
    seed: u64,
    budget: u64,
    /// First step to do.
    from: usize,
}

/// Opens the store of the demonstration.
pub fn open(dir: &Path, data: &Data, budget: u64) -> Result<(Store, Collection)> {
    let options = Options { budget_bytes: Some(budget), ..Options::default() };
    let store = Store::builder(dir).options(options).open()?;
    let spec = CollectionSpec::new()
        .dim(u32::try_from(data.dim()).unwrap_or(u32::MAX))
        .element(Element::F16)
        .model("all-MiniLM-L6-v2");
    let collection = store.collection_with("session", spec)?;
    Ok((store, collection))
}

/// Plays the session from a step on, until its end or until it is killed.
pub fn run(args: &WriterArgs) -> Outcome {
    let data = Data::load(Some(&args.data))?;
    let plan = Plan::new(args.seed, &data);
    let (store, collection) = open(&args.dir, &data, args.budget)?;
    let mut model = plan.model(args.from, &data);
    let mut out = std::io::stdout().lock();
    for (number, step) in plan.steps.iter().enumerate().skip(args.from) {
        let begun = Instant::now();
        let line = match step {
            Step::Search(query) => {
                let exactly = query_of(&data, *query).exactness(Exactness::Exact);
                let hits = collection.search(exactly)?;
                let micros = begun.elapsed().as_micros();
                let verdict =
                    if is_right(&hits, &model, &data, *query) { "right" } else { "wrong" };
                format!("found {number} {micros} {verdict}\n")
            }
            Step::Archive => {
                store.checkpoint()?;
                format!("archived {number} {}\n", begun.elapsed().as_micros())
            }
            Step::Compress => {
                let moves = store.compress()?.moves;
                format!("compressed {number} {} {moves}\n", begun.elapsed().as_micros())
            }
            step => {
                write(&store, &collection, &model, step, &data)?;
                format!("ack {number} {}\n", begun.elapsed().as_micros())
            }
        };
        out.write_all(line.as_bytes())?;
        out.flush()?;
        plan::apply(&mut model, step, &data);
    }
    store.close()?;
    Ok(())
}

/// The query as the demonstration asks it.
pub fn query_of(data: &Data, query: usize) -> Query {
    Query::vector(data.queries.get(query).cloned().unwrap_or_default()).k(K)
}

fn write(
    store: &Store,
    collection: &Collection,
    model: &Model,
    step: &Step,
    data: &Data,
) -> Result<()> {
    match step {
        Step::Remember(rows) => {
            let mut batch = Batch::new();
            for &row in rows {
                let draft = draft(&plan::passage(data, row), data);
                batch = batch.put(collection, plan::key(row), draft);
            }
            store.write(batch)?;
        }
        Step::Note(number, range) => {
            collection.put(plan::note_key(*number), draft(&plan::note(data, range), data))?;
        }
        Step::Reread(row) => {
            if let Some(memory) = model.get(&plan::key(*row)) {
                let patch = Patch::default().attr("read", plan::read_again(memory));
                collection.update(plan::key(*row), patch)?;
            }
        }
        Step::Pin(row) => {
            collection.pin(plan::key(*row), true)?;
        }
        Step::Forget(keys) => {
            let batch = keys.iter().fold(Batch::new(), |batch, key| batch.delete(collection, key));
            store.write(batch)?;
        }
        Step::Search(_) | Step::Archive | Step::Compress => {}
    }
    Ok(())
}

/// A memory as it is handed to the store.
pub fn draft(memory: &Memory, data: &Data) -> Draft {
    let draft = Draft::bytes(memory.payload.clone())
        .attributes(memory.attributes.clone())
        .session(memory.session.clone())
        .sequence(memory.sequence)
        .at(Timestamp(memory.at));
    match memory.row.and_then(|row| data.vectors.get(row)) {
        Some(vector) => draft.vector(vector.clone()),
        None => draft,
    }
}

/// Whether hits are the best that are remembered now, by comparing with every passage in f64.
fn is_right(hits: &Hits, model: &Model, data: &Data, query: usize) -> bool {
    let score = |row: usize| match (data.vectors.get(row), data.queries.get(query)) {
        (Some(vector), Some(query)) => cosine(vector, query),
        _ => f64::NEG_INFINITY,
    };
    let mut all: Vec<f64> = model.values().filter_map(|memory| memory.row).map(score).collect();
    all.sort_by(|a, b| b.total_cmp(a));
    all.truncate(K);
    let worst = all.last().copied().unwrap_or(f64::INFINITY) - SCORE_TOLERANCE;
    let mut keys: Vec<&[u8]> = hits.iter().map(|hit| hit.entry.key.as_bytes()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.len() == all.len()
        && hits.iter().all(|hit| {
            let memory = hit.entry.key.as_str().and_then(|key| model.get(key));
            memory.is_some_and(|memory| {
                memory.payload == hit.entry.payload && memory.row.map(score) >= Some(worst)
            })
        })
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let sum = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    sum(a, b) / (sum(a, a) * sum(b, b)).sqrt()
}
