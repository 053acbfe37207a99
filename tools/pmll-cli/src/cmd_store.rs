//! `init`, `checkpoint`, `vacuum`, `verify`, `stats`: the store as a whole.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use pmll::{CollectionSpec, Depth, Element, Metric, Stats, Tier};
use serde_json::{Value, json};

use crate::open::{self, Context};
use crate::output::{Failure, Outcome, size, table};
use crate::render;

/// How vectors are compared, as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum MetricArg {
    Cosine,
    Dot,
    L2,
}

impl From<MetricArg> for Metric {
    fn from(metric: MetricArg) -> Metric {
        match metric {
            MetricArg::Cosine => Metric::Cosine,
            MetricArg::Dot => Metric::Dot,
            MetricArg::L2 => Metric::L2,
        }
    }
}

/// How exact values are stored, as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ElementArg {
    F32,
    F16,
}

impl From<ElementArg> for Element {
    fn from(element: ElementArg) -> Element {
        match element {
            ElementArg::F32 => Element::F32,
            ElementArg::F16 => Element::F16,
        }
    }
}

/// Make a store, and a collection in it if asked
///
/// Not needed before `put` and `import`, which make what is missing. With --budget the memory
/// budget is kept in the store.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll init memory
  pmll init memory --collection notes --dim 384 --metric cosine --budget 64MiB")]
pub struct InitArgs {
    /// Directory of the store
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Make this collection as well
    #[arg(long, value_name = "NAME")]
    collection: Option<String>,
    /// Values in a vector; the first vector decides when left out
    #[arg(long, requires = "collection")]
    dim: Option<u32>,
    /// How vectors are compared [default: cosine]
    #[arg(long, requires = "collection")]
    metric: Option<MetricArg>,
    /// How exact values are stored [default: f32]
    #[arg(long, requires = "collection")]
    element: Option<ElementArg>,
    /// Name of the embedding model
    #[arg(long, requires = "collection")]
    model: Option<String>,
}

pub fn init(args: &InitArgs, context: &Context) -> Outcome {
    let existed = open::exists(&args.dir);
    let store = open::create(context, &args.dir)?;
    if let Some(bytes) = context.budget {
        store.set_budget(bytes)?;
    }
    let mut collection = Value::Null;
    if let Some(name) = &args.collection {
        let mut spec = CollectionSpec::new();
        spec.dim = args.dim;
        spec.model.clone_from(&args.model);
        spec.metric = args.metric.map(Metric::from).unwrap_or_default();
        spec.element = args.element.map(Element::from).unwrap_or_default();
        let made = open::collection(&store, name, spec, args.metric.is_some())?;
        collection = open::spec_json(&made.spec()?);
        collection["name"] = name.as_str().into();
    }
    let budget = store.stats()?.budget_bytes;
    store.close()?;
    let object = json!({
        "store": args.dir.to_string_lossy(),
        "created": !existed,
        "budget_bytes": budget,
        "collection": collection,
    });
    context.voice.say(&object, || {
        let what = if existed { "already a store" } else { "made a store" };
        format!("{what}: {} (budget {})", args.dir.display(), size(budget))
    })
}

/// Carry what the log holds into the archive
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll checkpoint memory")]
pub struct CheckpointArgs {
    /// Directory of the store
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub fn checkpoint(args: &CheckpointArgs, context: &Context) -> Outcome {
    let store = open::write(context, &args.dir)?;
    let report = store.checkpoint()?;
    store.close()?;
    let object = json!({
        "entries": report.entries,
        "tombstones": report.tombstones,
        "bytes": report.bytes,
        "segment": report.segment,
    });
    context.voice.say(&object, || {
        format!("archived {} entries and {} removals", report.entries, report.tombstones)
    })
}

/// Give the bytes of removed and replaced entries back to the disk
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll vacuum memory")]
pub struct VacuumArgs {
    /// Directory of the store
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub fn vacuum(args: &VacuumArgs, context: &Context) -> Outcome {
    let store = open::write(context, &args.dir)?;
    let report = store.vacuum()?;
    store.close()?;
    let object = json!({
        "segments_before": report.segments_before,
        "segments_after": report.segments_after,
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
        "rows_moved": report.rows_moved,
        "expired": report.expired,
        "damaged": report.damaged,
    });
    context.voice.say(&object, || {
        let mut text = format!(
            "archive: {} before, {} after; {} expired entries removed",
            size(report.bytes_before),
            size(report.bytes_after),
            report.expired
        );
        if report.damaged > 0 {
            let files = report.damaged;
            text += &format!("; {files} segments left alone as they are damaged, see pmll verify");
        }
        text
    })
}

/// Check every file of the store; never writes
///
/// Reads every byte unless --fast. Exit code 5 when something is damaged.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll verify memory
  pmll verify memory --fast --json")]
pub struct VerifyArgs {
    /// Directory of the store
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Check headers, lengths and cross-references only
    #[arg(long, conflicts_with = "deep")]
    fast: bool,
    /// Read every byte; this is the default
    #[arg(long)]
    deep: bool,
}

pub fn verify(args: &VerifyArgs, context: &Context) -> Outcome {
    let store = open::read(context, &args.dir)?;
    let report = store.verify(if args.fast { Depth::Fast } else { Depth::Deep })?;
    let problems: Vec<Value> =
        report.problems.iter().map(|p| json!({"file": p.file, "message": p.message})).collect();
    let object = json!({
        "whole": report.is_whole(),
        "depth": if args.fast { "fast" } else { "deep" },
        "entries": report.entries,
        "files": report.files,
        "bytes": report.bytes,
        "problems": problems,
    });
    context.voice.say(&object, || {
        let mut text = format!(
            "{} entries in {} files ({}): {}\n",
            report.entries,
            report.files,
            size(report.bytes),
            if report.is_whole() { "whole" } else { "DAMAGED" }
        );
        for problem in &report.problems {
            text += &format!("  {}: {}\n", problem.file, problem.message);
        }
        text
    })?;
    match report.problems.first() {
        None => Ok(()),
        Some(first) => Err(Failure::corrupt(format!(
            "{} damaged places; the first: {}: {}",
            report.problems.len(),
            first.file,
            first.message
        ))),
    }
}

/// Sizes, counts and places
///
/// Fidelity is the cosine between what a tier answers from and the exact vectors: mean and worst over 64
/// entries of each width, spread over the tier.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll stats memory
  pmll stats memory --json | jq .disk_bytes.total")]
pub struct StatsArgs {
    /// Directory of the store
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub fn stats(args: &StatsArgs, context: &Context) -> Outcome {
    let stats = open::read(context, &args.dir)?.stats()?;
    context.voice.say(&stats_json(&stats), || stats_text(&stats))
}

fn stats_json(stats: &Stats) -> Value {
    let tiers: Vec<Value> = stats.tiers.iter().map(render::tier).collect();
    json!({
        "budget_bytes": stats.budget_bytes,
        "counted_bytes": stats.counted_bytes,
        "utilisation": stats.utilisation,
        "entries": stats.entries,
        "entries_not_archived": stats.entries_not_archived,
        "collections": stats.collections,
        "log_bytes": stats.log_bytes,
        "archive_segments": stats.archive_segments,
        "tiers": tiers,
        "cold_score_mass": stats.cold_score_mass,
        "disk_bytes": {
            "log": stats.disk.log,
            "archive": stats.disk.archive,
            "index": stats.disk.index,
            "arena": stats.disk.arena,
            "columns": stats.disk.columns,
            "reserve": stats.disk.reserve,
            "total": stats.disk.total,
        },
        "written": {
            "log": stats.written.log,
            "zero_filling": stats.written.zero_filling,
            "archive": stats.written.archive,
            "index": stats.written.index,
            "arena": stats.written.arena,
            "columns": stats.written.columns,
        },
        "bytes_written": stats.written.total(),
        "compressor": {
            "runs": stats.compressor.runs,
            "passes": stats.compressor.passes,
            "moves": stats.compressor.moves,
        },
        "promises": {
            "pending": stats.promises.pending,
            "committed": stats.promises.committed,
            "failed": stats.promises.failed,
            "cancelled": stats.promises.cancelled,
            "expired": stats.promises.expired,
        },
        "last_lsn": stats.last_lsn.0,
        "applied_lsn": stats.applied_lsn.0,
        "warnings": stats.warnings,
    })
}

fn stats_text(stats: &Stats) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("entries", format!("{} in {} collections", stats.entries, stats.collections)),
        row(
            "memory",
            format!(
                "{} of {} ({:.0} %)",
                size(stats.counted_bytes),
                size(stats.budget_bytes),
                stats.utilisation * 100.0
            ),
        ),
    ];
    for tier in &stats.tiers {
        let mut text = format!("{} entries, {}", tier.entries, size(tier.bytes));
        if tier.tier != Tier::Cold {
            text += &format!(", {} in memory", tier.resident);
        }
        if tier.tier == Tier::Warm {
            text += &format!(", {}", render::bits_text(tier));
        }
        if tier.fidelity.is_some() {
            text += &format!(", fidelity {}", render::fidelity_text(tier.fidelity));
        }
        rows.push(row(&tier.tier.to_string(), text));
    }
    let mass = format!("{:.1} % of the scores", stats.cold_score_mass * 100.0);
    rows.push(row("cold holds", mass));
    let disk = &stats.disk;
    rows.push(row(
        "disk",
        format!(
            "{} (log {}, archive {} in {} segments, index {}, arena {}, columns {}, reserve {})",
            size(disk.total),
            size(disk.log),
            size(disk.archive),
            stats.archive_segments,
            size(disk.index),
            size(disk.arena),
            size(disk.columns),
            size(disk.reserve)
        ),
    ));
    let not_archived = format!("{} entries, {}", stats.entries_not_archived, size(stats.log_bytes));
    rows.push(row("not archived", not_archived));
    let compressor = &stats.compressor;
    rows.push(row(
        "compressor",
        format!(
            "{} runs, {} passes, {} moves since it was opened",
            compressor.runs, compressor.passes, compressor.moves
        ),
    ));
    rows.push(row("last LSN", format!("{} (archived {})", stats.last_lsn, stats.applied_lsn)));
    for warning in &stats.warnings {
        rows.push(row("warning", warning.clone()));
    }
    table(&rows)
}
