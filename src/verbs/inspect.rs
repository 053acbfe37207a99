//! Inspection: what each file of a store says of itself, without opening the store.
//!
//! One function per kind of file. Each decodes what it can, goes on after a damage and says where
//! it is: a damaged file is one more row with a problem, never an error for the whole. So a store
//! that does not open, or that another process has open, still shows what it is made of.
//!
//! Never: writes, takes the lock, or follows a pointer from one file into another.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::io::{Disk, OpenMode, join};
use crate::organs::archive::{self, Segment};
use crate::organs::arena::{self, Block};
use crate::organs::catalog::Catalog;
use crate::organs::columns::{self, sealed};
use crate::organs::wal;
use crate::tiers::mover::meta;
use crate::words::error::{Error, Result};
use crate::words::id::Lsn;
use crate::words::options::ArenaAccess;
use crate::words::record::Op;

/// What one file says of itself.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let store = pmll::Store::open(dir.path().join("memory"))?;
/// # store.collection("notes")?.put("a", pmll::Draft::text("one"))?;
/// # store.checkpoint()?;
/// # store.close()?;
/// let files = pmll::inspect::Files::open(dir.path().join("memory"))?;
/// let segments = files.archive();
/// assert_eq!(segments[0].facts["rows"], 1);
/// assert!(segments[0].problems.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FileReport {
    /// Path within the store.
    pub file: String,
    /// Its length; 0 when that cannot be read.
    pub bytes: u64,
    /// What was decoded, by name. Names are stable; a fact that cannot be had is absent.
    pub facts: Map<String, Value>,
    /// What is wrong with it, each with the place.
    pub problems: Vec<String>,
}

impl FileReport {
    fn new(disk: &dyn Disk, file: String) -> FileReport {
        let bytes = disk.open(&file, OpenMode::Read).and_then(|open| open.len()).unwrap_or(0);
        FileReport { file, bytes, facts: Map::new(), problems: Vec::new() }
    }

    fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    fn problem(&mut self, error: &Error) {
        self.problems.push(error.to_string());
    }
}

/// A list of files, or the row that says why there is none.
fn numbers(found: Result<Vec<u64>>, folder: &str) -> Result<Vec<u64>, Vec<FileReport>> {
    found.map_err(|error| {
        let (file, problems) = (folder.to_owned(), vec![error.to_string()]);
        vec![FileReport { file, bytes: 0, facts: Map::new(), problems }]
    })
}

/// Leaves out files that could not be read because their owner has removed them since they were listed.
fn lasting(disk: &dyn Disk, reports: impl Iterator<Item = FileReport>) -> Vec<FileReport> {
    let is_gone = |file: &str| {
        let opened = disk.open(file, OpenMode::Read);
        opened.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    reports.filter(|report| report.problems.is_empty() || !is_gone(&report.file)).collect()
}

/// The archive: a row per segment. `deep` reads every byte.
pub fn archive(disk: &dyn Disk, store_id: [u8; 16], deep: bool) -> Vec<FileReport> {
    let numbers = match numbers(archive::list(disk), archive::FOLDER) {
        Ok(numbers) => numbers,
        Err(reports) => return reports,
    };
    let report = |number| {
        let mut report = FileReport::new(disk, archive::file_name(number));
        let segment = match Segment::open(disk, number, store_id) {
            Ok(segment) => segment,
            Err(error) => {
                report.problem(&error);
                return report;
            }
        };
        let footer = segment.footer();
        report.fact("rows", footer.groups.iter().map(|g| u64::from(g.rows)).sum::<u64>());
        report.fact("vectors", footer.groups.iter().map(|g| u64::from(g.vectors)).sum::<u64>());
        report.fact("crc", format!("{:08x}", segment.crc()));
        if let Some((first, last)) = footer.covers {
            report.fact("first_lsn", first.0);
            report.fact("last_lsn", last.0);
        }
        let supersedes: Vec<u64> = footer.supersedes.iter().map(|(number, _)| *number).collect();
        report.fact("supersedes", supersedes);
        let groups: Vec<Value> = footer
            .groups
            .iter()
            .map(|group| {
                let sections: Map<String, Value> = group
                    .sections
                    .iter()
                    .map(|s| (format!("{:?}", s.kind).to_lowercase(), json!(s.len)))
                    .collect();
                json!({
                    "collection": group.collection.0,
                    "dim": group.dim,
                    "rows": group.rows,
                    "vectors": group.vectors,
                    "first_id": group.min_id.0,
                    "last_id": group.max_id.0,
                    "section_bytes": sections,
                })
            })
            .collect();
        report.fact("groups", groups);
        if deep {
            segment.verify().iter().for_each(|error| report.problem(error));
        }
        report
    };
    lasting(disk, numbers.into_iter().map(report))
}

/// The arena: a row per block, its codes checked.
pub fn arena(disk: &dyn Disk, store_id: [u8; 16]) -> Vec<FileReport> {
    let numbers = match numbers(arena::list(disk), arena::FOLDER) {
        Ok(numbers) => numbers,
        Err(reports) => return reports,
    };
    let report = |number| {
        let mut report = FileReport::new(disk, arena::file_name(number));
        match Block::open(disk, number, store_id, ArenaAccess::Read) {
            Ok(block) => {
                report.fact("collection", block.collection().0);
                report.fact("bits", block.bits());
                report.fact("dim", block.dim());
                report.fact("rows", block.rows());
                for (name, row) in [("first_id", 0), ("last_id", block.rows().saturating_sub(1))] {
                    if let Some((id, _)) = block.id_version(row) {
                        report.fact(name, id.0);
                    }
                }
                if let Err(error) = block.row(0) {
                    report.problem(&error);
                }
            }
            Err(error) => report.problem(&error),
        }
        report
    };
    lasting(disk, numbers.into_iter().map(report))
}

/// The columns: a row per file, every block read, and one for the set of hot ids.
pub fn columns(disk: &dyn Disk, store_id: [u8; 16]) -> Vec<FileReport> {
    let names = match disk.list(columns::sealed::FOLDER) {
        Ok(names) => names,
        Err(error) => {
            let error = Error::io(format!("list {}", sealed::FOLDER), error);
            return numbers(Err(error), sealed::FOLDER).err().unwrap_or_default();
        }
    };
    let mut reports = Vec::new();
    for name in names {
        let mut report = FileReport::new(disk, join(sealed::FOLDER, &name));
        match sealed::number_of(&name) {
            Some(number) => match sealed::Sealed::open(disk, number) {
                Ok(file) => {
                    let kind = if file.covers() == 0 { "snapshot" } else { "delta" };
                    report.fact("kind", kind);
                    report.fact("rows", file.rows());
                    report.fact("stands_for_from", file.covers());
                    let mut rows = Vec::new();
                    for block in 0..file.blocks() {
                        rows.clear();
                        if let Err(error) = file.block(block, &mut rows) {
                            report.problem(&error);
                        }
                    }
                }
                Err(error) => report.problem(&error),
            },
            None if name == columns::hot::NAME => {
                report.fact("kind", "hot");
                match columns::hot::read(disk, store_id) {
                    Ok(hot) => report.fact("rows", hot.len()),
                    Err(error) => report.problem(&error),
                }
            }
            None => report.fact("kind", "left over"),
        }
        reports.push(report);
    }
    lasting(disk, reports.into_iter())
}

/// The log: a row per segment file, and one for what a replay finds.
///
/// A writer may be at work on it. What is half there is taken for damage by whoever reads it in that
/// moment; but damage stays where it is and a writer goes on, so only what two readings in a row
/// find alike is told.
pub fn log(disk: &dyn Disk, store_id: [u8; 16]) -> Vec<FileReport> {
    let mut reports = read_log(disk, store_id);
    for _ in 0..LOG_READINGS_MAX {
        let is_whole = |r: &FileReport| r.problems.is_empty() && !r.facts.contains_key(TORN);
        if reports.iter().all(is_whole) {
            break;
        }
        let again = read_log(disk, store_id);
        let told = |reports: &[FileReport]| -> Vec<_> {
            let told = reports.iter().map(|r| (r.problems.clone(), r.facts.get(TORN).cloned()));
            told.collect()
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
const LOG_READINGS_MAX: usize = 20;
/// The fact about a batch that was cut short.
const TORN: &str = "torn";

fn read_log(disk: &dyn Disk, store_id: [u8; 16]) -> Vec<FileReport> {
    let names = match disk.list(wal::FOLDER) {
        Ok(names) => names,
        Err(error) => {
            let error = Error::io(format!("list {}", wal::FOLDER), error);
            return numbers(Err(error), wal::FOLDER).err().unwrap_or_default();
        }
    };
    let mut reports: Vec<FileReport> =
        names.iter().map(|name| FileReport::new(disk, join(wal::FOLDER, name))).collect();
    // What the archive holds needs no log any more, and may have left it.
    let applied = archive::list(disk)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|number| Segment::open(disk, number, store_id).ok()?.footer().covers)
        .map(|(_, last)| last)
        .max()
        .unwrap_or(Lsn(0));
    let mut counts: Map<String, Value> = Map::new();
    let mut replayed = FileReport {
        file: wal::FOLDER.to_owned(),
        bytes: reports.iter().map(|report| report.bytes).sum(),
        facts: Map::new(),
        problems: Vec::new(),
    };
    let scanned = wal::replay(disk, store_id, applied, &mut |op| {
        let count = counts.entry(name_of(&op)).or_insert(json!(0));
        *count = json!(count.as_u64().unwrap_or(0) + 1);
        Ok(())
    });
    replayed.fact("archived_lsn", applied.0);
    match scanned {
        Ok(scan) => {
            replayed.fact("last_lsn", scan.last_lsn.0);
            replayed.fact("closed_cleanly", scan.clean);
            replayed.fact("operations", scan.ops);
            replayed.fact("operation_bytes", scan.bytes);
            if let Some(torn) = scan.torn {
                replayed.fact(
                    TORN,
                    json!({"file": torn.file, "offset": torn.offset, "bytes": torn.bytes}),
                );
            }
            replayed.fact("notes", scan.notes);
        }
        Err(error) => replayed.problem(&error),
    }
    replayed.fact("by_kind", counts);
    reports.push(replayed);
    reports
}

fn name_of(op: &Op) -> &'static str {
    match op {
        Op::Put(_) => "put",
        Op::Delete(_) => "delete",
        Op::Define(_) => "define",
        Op::DropCollection { .. } => "drop",
        Op::Setting { .. } => "setting",
        Op::Request { .. } => "request",
    }
}

/// The index. Only for a store that nobody has open: its pages change while it is in use.
pub fn catalog(disk: &Arc<dyn Disk>) -> FileReport {
    const CACHE_BYTES: usize = 1 << 20;
    let mut report = FileReport::new(&**disk, "index.redb".to_owned());
    let read = Catalog::open_read_only(disk, CACHE_BYTES).and_then(|catalog| {
        let snapshot = catalog.snapshot()?;
        report.fact("ids", snapshot.id_count()?);
        report.fact("keys", snapshot.key_count()?);
        let segments: Result<Vec<u64>> = snapshot.segments()?.map(|row| Ok(row?.0)).collect();
        report.fact("segments", segments?);
        report.fact("collections", snapshot.collections()?.len());
        report.fact("settings", snapshot.settings()?.len());
        for name in [meta::APPLIED_LSN, meta::NEXT_SEGMENT, meta::UPTIME_MS] {
            if let Some(value) = snapshot.meta(name)? {
                report.fact(name, value);
            }
        }
        Ok(snapshot.verify())
    });
    match read {
        Ok(problems) => problems.iter().for_each(|error| report.problem(error)),
        Err(error) => report.problem(&error),
    }
    report
}
