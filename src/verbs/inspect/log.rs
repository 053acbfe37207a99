//! The log as a table: a row per segment file, frame by frame, and one for what a replay finds.
//!
//! The two may differ: a replay stops where records that were acknowledged are damaged, and a look goes
//! on behind it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::io::Disk;
use crate::organs::archive::{self, Segment};
use crate::organs::wal;
use crate::organs::wal::look::{self, Look, Meaning, Part};
use crate::verbs::inspect::{FileReport, files};
use crate::words::error::{Error, Result};
use crate::words::id::Lsn;

/// An owner archives and removes while somebody looks: so often is looked again.
const TRIES: usize = 3;

/// The log: a row per segment file, and one for what a replay finds.
///
/// A writer may be at work on it. What is half there is taken for damage by whoever reads it in that
/// moment; but damage stays where it is and a writer goes on, so of a log in use only what two
/// readings in a row find alike is told.
pub fn log(disk: &dyn Disk, store_id: [u8; 16], in_use: bool) -> Vec<FileReport> {
    let mut reports = read(disk, store_id, in_use);
    for _ in 0..READINGS_MAX {
        if !in_use || reports.iter().all(|report| report.problems.is_empty()) {
            break;
        }
        let again = read(disk, store_id, in_use);
        let told = |reports: &[FileReport]| -> Vec<_> {
            reports.iter().flat_map(|report| report.problems.clone()).collect()
        };
        let same = told(&reports) == told(&again);
        reports = again;
        if same {
            break;
        }
    }
    reports
}

/// Readings of a log that looks damaged and is another one every time.
const READINGS_MAX: usize = 20;

fn read(disk: &dyn Disk, store_id: [u8; 16], in_use: bool) -> Vec<FileReport> {
    let applied = applied(disk, store_id);
    let mut looks: BTreeMap<String, Result<Look>> =
        look::look(disk, applied).unwrap_or_default().into_iter().collect();
    let files = match files(disk, wal::FOLDER, wal::file_name) {
        Ok(files) => files,
        Err(reports) => return reports,
    };
    let mut reports = Vec::new();
    for (mut report, number) in files {
        match looks.remove(&report.file).filter(|_| !report.is_gone()) {
            Some(Ok(look)) => segment_facts(&mut report, &look, (store_id, number), in_use),
            Some(Err(error)) => report.trouble(disk, &error),
            None => {}
        }
        reports.push(report);
    }
    let bytes = reports.iter().map(|report| report.bytes).sum();
    reports.push(replayed(disk, store_id, bytes, in_use));
    reports
}

/// What the archive holds needs no log any more, and may have left it.
fn applied(disk: &dyn Disk, store_id: [u8; 16]) -> Lsn {
    archive::list(disk)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|number| Segment::open(disk, number, store_id).ok()?.footer().covers)
        .map(|(_, last)| last)
        .max()
        .unwrap_or(Lsn(0))
}

fn segment_facts(
    report: &mut FileReport,
    look: &Look,
    (store_id, number): ([u8; 16], Option<u64>),
    in_use: bool,
) {
    let file = report.file.clone();
    let Some(header) = look.header else {
        match look.blank {
            true => report.fact("kind", "blank"),
            false => report.problem(&Error::corrupt(format!(
                "{file}: the segment header is damaged at offset 0; without it no frame can be read"
            ))),
        }
        return;
    };
    if header.store_id != store_id || Some(header.number) != number {
        let message = "the header names another store or segment at offset 0";
        report.problem(&Error::corrupt(format!("{file}: {message}")));
    }
    report.fact("begins_at_lsn", header.first_lsn.0);
    report.fact("begins_at_batch", header.first_batch);
    for (name, value) in part(&look.whole) {
        report.fact(&name, value);
    }
    report.fact("used_bytes", look.used_bytes);
    report.fact("last_frame", look.last);
    if look.loose > 0 {
        report.fact("operations_without_commit", look.loose);
    }
    if look.wounds_total == 0 {
        return;
    }
    let wound = |wound: &look::Wound| {
        // A batch that its owner is writing looks like one that was cut short.
        let meaning = match wound.meaning {
            Meaning::Torn | Meaning::TornOrRotten if in_use => "being written",
            meaning => meaning.name(),
        };
        json!({"offset": wound.offset, "meaning": meaning, "goes_on_at": wound.resumes})
    };
    report.fact("damage", look.wounds.iter().map(wound).collect::<Vec<Value>>());
    report.fact("damaged_places", look.wounds_total);
    if look.behind.count() > 0 {
        report.fact("behind_damage", part(&look.behind));
    }
    for wound in look.wounds.iter().filter(|wound| wound.meaning == Meaning::Rotten) {
        let at = wound.offset;
        let message = format!("{file}: acknowledged records are damaged at offset {at}");
        report.problem(&Error::corrupt(message));
    }
}

fn part(part: &Part) -> Map<String, Value> {
    let mut facts = Map::new();
    facts.insert("operations".to_owned(), part.count().into());
    facts.insert("by_kind".to_owned(), json!(part.ops));
    facts.insert("batches".to_owned(), part.batches.into());
    if let Some((first, last)) = part.lsns {
        facts.insert("first_lsn".to_owned(), first.0.into());
        facts.insert("last_lsn".to_owned(), last.0.into());
    }
    facts
}

/// What an open would find.
fn replayed(disk: &dyn Disk, store_id: [u8; 16], bytes: u64, in_use: bool) -> FileReport {
    let mut report =
        FileReport { file: wal::FOLDER.to_owned(), bytes, facts: Map::new(), problems: Vec::new() };
    let mut tries = if in_use { TRIES } else { 1 };
    loop {
        tries -= 1;
        let applied = applied(disk, store_id);
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        let scanned = wal::replay(disk, store_id, applied, &mut |op| {
            *counts.entry(look::name_of(&op)).or_insert(0) += 1;
            Ok(())
        });
        if scanned.is_err() && tries > 0 {
            continue;
        }
        report.fact("archived_lsn", applied.0);
        match scanned {
            Ok(scan) => {
                report.fact("last_lsn", scan.last_lsn.0);
                report.fact("closed_cleanly", scan.clean);
                report.fact("operations", scan.ops);
                report.fact("operation_bytes", scan.bytes);
                if let Some(torn) = scan.torn {
                    let place = json!({
                        "file": torn.file, "offset": torn.offset, "bytes": torn.bytes,
                        "ambiguous": torn.ambiguous,
                    });
                    report.fact("torn", place);
                }
                report.fact("notes", scan.notes);
            }
            Err(error) => report.problem(&error),
        }
        report.fact("by_kind", json!(counts));
        return report;
    }
}
