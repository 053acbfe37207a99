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
    let files = Files::open(dir)?;
    if files.in_use() {
        voice.note("note: another process has this store open; sealed files are shown as they are");
    }
    let reports = match kind {
        Kind::Wal => files.log(),
        Kind::Arena => files.arena(),
        Kind::Archive { deep: false } => files.archive(),
        Kind::Archive { deep: true } => files.archive_deep(),
        Kind::Columns => files.columns(),
        Kind::Catalog => vec![files.catalog()?],
    };
    let object: Value = reports.iter().map(report_json).collect();
    voice.say(&object, || text(&reports))?;
    damage(&reports)
}

/// The failure that ends a command that showed damage.
fn damage(reports: &[FileReport]) -> Outcome {
    let problems: Vec<&String> = reports.iter().flat_map(|report| &report.problems).collect();
    match problems.first() {
        None => Ok(()),
        Some(first) => {
            Err(Failure::corrupt(format!("{} damaged places; the first: {first}", problems.len()))
                .hint("`pmll verify` compares the files with each other as well"))
        }
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

/// A fact on a line; lists of objects are for `--json`.
fn brief(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(one_line(text, 60)),
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) if items.iter().any(Value::is_object) => Some(items.len().to_string()),
        Value::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(k, v)| format!("{k} {v}")).collect();
            Some(format!("({})", fields.join(", ")))
        }
        other => Some(other.to_string()),
    }
}
