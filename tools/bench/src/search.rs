//! The works on built indexes: building them, searching, filtered searching, and opening.
//!
//! Each runs in a process of its own. Queries and truth are loaded first and the resident set is
//! read then, so that what is added to it is the index and what searching it needs.

use std::path::PathBuf;
use std::time::Instant;

use crate::report::Report;
use crate::store::{Opened, Shape};
use crate::times::{found, passes};
use crate::{Outcome, RunArgs, data, machine};

/// Builds the index of a subject, unless a finished one stands there.
pub fn build(args: &RunArgs) -> Outcome<()> {
    // `build` names the work by the subject alone; a filtered store has a name of its own.
    let Some(shape) = Shape::of("build", &args.subject) else {
        #[cfg(feature = "rivals")]
        return crate::rivals::usearch::build(args);
        #[cfg(not(feature = "rivals"))]
        return Err(format!("{}: no such subject in this build", args.subject).into());
    };
    let (path, done) = (args.state.join(shape.folder), done_path(args, shape.folder));
    if done.exists() {
        return Ok(());
    }
    if path.exists() {
        std::fs::remove_dir_all(&path)?;
    }
    shape.build(&args.data, &path, args.rows)?;
    std::fs::write(done, "")?;
    Ok(())
}

/// A file that stands beside an index once it is whole.
pub fn done_path(args: &RunArgs, index: &str) -> PathBuf {
    args.state.join(format!("{index}.done"))
}

/// Search over everything.
pub fn search(args: &RunArgs) -> Outcome<Report> {
    match Shape::of("search", &args.subject) {
        Some(shape) => searched("search", shape, args),
        #[cfg(feature = "rivals")]
        None => crate::rivals::usearch::search(args),
        #[cfg(not(feature = "rivals"))]
        None => Err(format!("{}: no such subject in this build", args.subject).into()),
    }
}

/// Search among the hundredth part of the rows that has an attribute.
pub fn filter(args: &RunArgs) -> Outcome<Report> {
    let shape = Shape::of("filter", &args.subject)
        .ok_or_else(|| format!("{}: no such subject", args.subject))?;
    searched("filter", shape, args)
}

fn searched(work: &str, shape: Shape, args: &RunArgs) -> Outcome<Report> {
    let queries = data::queries(&args.data)?;
    let truth = data::truth(&args.data, &args.state, args.rows, work == "filter")?;
    let dim = queries.first().map_or(0, Vec::len);
    let before_bytes = machine::resident_bytes();
    let opened = shape.open(&args.state, args.rows, dim)?;
    let pass = passes(&queries, &truth, |q| opened.ready(q), |q| opened.ask(q), Opened::rows)?;
    let resident_bytes = machine::resident_bytes().saturating_sub(before_bytes);
    let note = opened.check(args.rows)?;
    let disk_bytes = machine::disk_bytes(&opened.path)?;
    opened.close()?;
    reached(pass.recall, f64::from(shape.target))?;
    Ok(Report {
        rows: Some(args.rows as u64),
        recall: Some(pass.recall),
        p50_us: Some(pass.p50_us),
        p99_us: Some(pass.p99_us),
        rate_per_s: Some(1e6 / pass.p50_us),
        resident_bytes: Some(resident_bytes),
        disk_bytes: Some(disk_bytes),
        note: Some(note),
        ..Report::new(work, &args.subject)
    })
}

/// Fails when a recall is below what the subject was asked for.
pub fn reached(recall: f64, target: f64) -> Outcome<()> {
    // The target goes through f32 on its way here.
    let target = (target * 1e4).round() / 1e4;
    if recall < target {
        return Err(format!("recall {recall:.4} is below the {target} that was asked for").into());
    }
    Ok(())
}

/// From the first line of `main` to the first whole answer.
pub fn open(args: &RunArgs, started: Instant) -> Outcome<Report> {
    let Some(shape) = Shape::of("open", &args.subject) else {
        #[cfg(feature = "rivals")]
        return crate::rivals::usearch::open(args, started);
        #[cfg(not(feature = "rivals"))]
        return Err(format!("{}: no such subject in this build", args.subject).into());
    };
    let query = data::first_query(&args.data)?;
    let opened = shape.open(&args.state, args.rows, query.len())?;
    let hits = opened.ask(opened.ready(&query))?;
    let time_us = started.elapsed().as_secs_f64() * 1e6;
    let note = opened.check(args.rows)?;
    let disk_bytes = machine::disk_bytes(&opened.path)?;
    let report = opened_report(args, time_us, &Opened::rows(&hits), disk_bytes, note)?;
    opened.close()?;
    Ok(report)
}

/// The report of an opening, after its one answer was compared with the truth.
pub fn opened_report(
    args: &RunArgs,
    time_us: f64,
    rows: &[i64],
    disk_bytes: u64,
    note: String,
) -> Outcome<Report> {
    /// Of ten. One answer says little about recall, but a wrong index has none of them.
    const FOUND_MIN: usize = 8;
    let truth = data::truth(&args.data, &args.state, args.rows, false)?;
    let truth = truth.first().ok_or("there is no truth")?;
    let found = found(rows, truth)?;
    if found < FOUND_MIN {
        return Err(format!("the first answer has {found} of the true best 10").into());
    }
    Ok(Report {
        rows: Some(args.rows as u64),
        recall: Some(found as f64 / data::K as f64),
        p50_us: Some(time_us),
        disk_bytes: Some(disk_bytes),
        note: Some(note),
        ..Report::new("open", &args.subject)
    })
}
