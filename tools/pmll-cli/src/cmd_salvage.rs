//! `salvage`: what is whole in a damaged store, carried into a new one.

use std::path::PathBuf;

use clap::Args;
use pmll::{Lost, Salvage, SalvageProgress, SalvageReport};
use serde_json::{Value, json};

use crate::open::Context;
use crate::output::{Failure, Outcome, one_line, table};

/// Lines of a list that people get to see; --json has all of them.
const SHOWN: usize = 20;

/// Copy what is whole in a damaged store into a new one
///
/// For a store that does not open, or that `verify` finds damaged. Nothing is written to DIR. Everything
/// that can be read is copied: entries with ids, versions and times, collections, settings. What is lost
/// is listed by file and place, and the command then ends with code 5.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll salvage memory --dry-run          # what could be saved; writes nothing
  pmll salvage memory --out saved
  pmll salvage memory --out saved --json | jq .lost")]
pub struct SalvageArgs {
    /// Directory of the damaged store
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Directory of the new store, which must be missing or empty
    #[arg(long, value_name = "NEW", required_unless_present = "dry_run")]
    out: Option<PathBuf>,
    /// Only say what could be saved
    #[arg(long, short = 'n')]
    dry_run: bool,
}

pub fn run(args: &SalvageArgs, context: &Context) -> Outcome {
    let bar = context.voice.bar(None, "reading");
    let shown = bar.clone();
    let mut salvage = Salvage::open(&args.dir)?.watch(move |progress| match progress {
        SalvageProgress::Copied(copied, of) => {
            shown.set_message("copying");
            shown.set_length(of);
            shown.set_position(copied);
        }
        SalvageProgress::Found(found) => shown.set_position(found),
        _ => {}
    });
    let out = args.out.as_ref().filter(|_| !args.dry_run);
    let report = match out {
        Some(out) => salvage.copy_to(out),
        None => salvage.survey(),
    };
    bar.finish_and_clear();
    let report = report?;
    let mut object = json(&report);
    object["store"] = args.dir.to_string_lossy().into();
    object["out"] = out.map_or(Value::Null, |out| out.to_string_lossy().into());
    context.voice.say(&object, || text(&report))?;
    if report.is_complete() {
        return Ok(());
    }
    let (lost, older) = (report.lost_total, report.older_total);
    Err(Failure::corrupt(format!("{lost} losses, and {older} entries in an older version")))
}

fn json(report: &SalvageReport) -> Value {
    let lost = |lost: &Lost| {
        let lsns = lost.lsns.map(|(first, last)| json!([first.0, last.map(|last| last.0)]));
        json!({
            "file": lost.file, "offset": lost.offset, "what": lost.what, "lsns": lsns,
            "id": lost.id.map(|id| id.0), "key": lost.key.as_ref().map(ToString::to_string),
        })
    };
    let older = |older: &pmll::Older| {
        json!({
            "id": older.id.0, "key": older.key.as_ref().map(ToString::to_string),
            "version": older.version.0, "damaged": older.damaged.0,
        })
    };
    json!({
        "complete": report.is_complete(),
        "entries": report.entries,
        "from_log": report.from_log,
        "removed": report.removed,
        "collections": report.collections,
        "settings": report.settings,
        "requests": report.requests,
        "last_lsn": report.last_lsn.0,
        "files": report.files,
        "lost": report.lost.iter().map(lost).collect::<Vec<_>>(),
        "lost_total": report.lost_total,
        "older": report.older.iter().map(older).collect::<Vec<_>>(),
        "older_total": report.older_total,
        "notes": report.notes,
    })
}

fn text(report: &SalvageReport) -> String {
    let row = |name: &str, value: u64| vec![name.to_owned(), value.to_string()];
    let mut out = table(&[
        row("entries from the archive", report.entries.saturating_sub(report.from_log)),
        row("entries from the log", report.from_log),
        row("removed entries", report.removed),
        row("collections", report.collections),
        row("settings", report.settings),
        row("files read", report.files),
        row("lost", report.lost_total),
        row("in an older version", report.older_total),
    ]);
    let mut rows = Vec::new();
    for lost in report.lost.iter().take(SHOWN) {
        let lsns = lost.lsns.map(|(first, last)| match last {
            Some(last) => format!("LSN {first} to {last}"),
            None => format!("LSN {first} on"),
        });
        let entry = match (lost.id, &lost.key) {
            (Some(id), Some(key)) => format!("entry {id}, key {}", one_line(&key.to_string(), 60)),
            (Some(id), None) => format!("entry {id}"),
            _ => String::new(),
        };
        let place = format!("{} at {}", lost.file, lost.offset);
        rows.push(vec!["lost".to_owned(), place, lsns.unwrap_or(entry), one_line(&lost.what, 200)]);
    }
    for older in report.older.iter().take(SHOWN) {
        let key = older.key.as_ref().map_or(String::new(), |key| one_line(&key.to_string(), 60));
        let versions = format!("version {} instead of {}", older.version, older.damaged);
        rows.push(vec!["older".to_owned(), format!("entry {}", older.id), key, versions]);
    }
    out += &table(&rows);
    for note in report.notes.iter().take(SHOWN) {
        out += &format!("note: {}\n", one_line(note, 300));
    }
    let listed = report.lost.len().min(SHOWN) + report.older.len().min(SHOWN);
    let all = report.lost_total + report.older_total;
    if listed as u64 != all {
        out += &format!("{listed} of {all} shown; --json lists more\n");
    }
    out
}
