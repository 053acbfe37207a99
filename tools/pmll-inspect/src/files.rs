//! The files of a store as tables: one row a file, its facts, and what is wrong with it.
//!
//! A damaged file is a row with a problem, and exit code 5 at the end, after everything was shown.

use std::path::Path;

use pmll::inspect::{FileReport, Files};
use pmll_cli::output::{Failure, Outcome, Voice, one_line, size, table};
use serde_json::{Value, json};

/// Which files.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// The log.
    Wal,
    /// Blocks of codes.
    Arena,
    /// Segments.
    Archive {
        /// Whether every byte is checked.
        deep: bool,
    },
    /// Access counts and hot ids.
    Columns,
    /// The index.
    Catalog,
}

/// Shows them.
pub fn show(dir: &Path, kind: Kind, voice: Voice) -> Outcome {
    let files = open(dir, voice)?;
    let mut reports = match kind {
        Kind::Wal => files.log(),
        Kind::Arena => files.arena(),
        Kind::Archive { deep: false } => files.archive(),
        Kind::Archive { deep: true } => files.archive_deep(),
        Kind::Columns => files.columns(),
        Kind::Catalog => vec![files.catalog()?],
    };
    let object = json!({
        "in_use": files.in_use(),
        "store_id": files.store_id(),
        "store_id_from": store_id_from(&files),
        "problems": problems(&reports).count(),
        "files": reports.iter().map(report_json).collect::<Value>(),
    });
    voice.say(&object, || text(&reports))?;
    reports.insert(0, files.store_file());
    damage(&reports)
}

/// The files of a store, and remarks on how they can be read.
pub fn open(dir: &Path, voice: Voice) -> Result<Files, Failure> {
    let files = Files::open(dir)?;
    if files.in_use() {
        voice.note("note: another process has this store open; files are shown as they are");
    }
    if let Some(from) = store_id_from(&files) {
        let problems = files.store_file().problems.join("; ");
        voice.note(&format!("note: {problems}; the identity of the store is that of {from}"));
    }
    Ok(files)
}

/// The file that stands in for a damaged `store.toml`.
pub fn store_id_from(files: &Files) -> Option<String> {
    Some(files.store_file().facts.get("store_id_from")?.as_str()?.to_owned())
}

/// What is wrong, over all files.
pub fn problems(reports: &[FileReport]) -> impl Iterator<Item = &String> {
    reports.iter().flat_map(|report| &report.problems)
}

/// The failure that ends a command that showed damage.
fn damage(reports: &[FileReport]) -> Outcome {
    match problems(reports).next() {
        None => Ok(()),
        Some(first) => Err(Failure::corrupt(format!(
            "{} damaged places; the first: {first}",
            problems(reports).count()
        ))
        .hint("`pmll verify` compares the files with each other as well")),
    }
}

fn report_json(report: &FileReport) -> Value {
    json!({
        "file": report.file,
        "bytes": report.bytes,
        "facts": report.facts,
        "problems": report.problems,
    })
}

fn text(reports: &[FileReport]) -> String {
    if reports.is_empty() {
        return "no files".to_owned();
    }
    let mut rows = Vec::new();
    for report in reports {
        let facts: Vec<String> = report
            .facts
            .iter()
            .filter_map(|(name, value)| Some(format!("{name} {}", brief(value)?)))
            .collect();
        rows.push(vec![report.file.clone(), size(report.bytes), facts.join(", ")]);
        for problem in &report.problems {
            rows.push(vec![String::new(), "DAMAGED".to_owned(), one_line(problem, 200)]);
        }
    }
    table(&rows)
}

/// A fact on a line; long lists, and objects within objects, are for `--json`.
fn brief(value: &Value) -> Option<String> {
    const SHOWN_MAX: usize = 4;
    match value {
        Value::Null => None,
        Value::String(text) => Some(one_line(text, 60)),
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) if items.len() > SHOWN_MAX => Some(items.len().to_string()),
        Value::Array(items) => Some(items.iter().filter_map(brief).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let field =
                |(name, value): (&String, &Value)| Some(format!("{name} {}", brief(value)?));
            Some(format!("({})", fields.iter().filter_map(field).collect::<Vec<_>>().join(", ")))
        }
        other => Some(other.to_string()),
    }
}
