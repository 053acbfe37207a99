//! Inspection: what each file of a store says of itself, without opening the store.
//!
//! One function per kind of file. Each decodes what it can, goes on after a damage and says where
//! it is: a damaged file is one more row with a problem, never an error for the whole. So a store
//! that does not open, or that another process has open, still shows what it is made of. A file that
//! its owner removed since it was listed is said to be gone, which is no damage.
//!
//! Never: writes, takes the lock, or follows a pointer from one file into another; but for the rows
//! of a segment that are dead, which only the index knows.

mod identity;
mod log;

use std::collections::BTreeMap;
use std::io::ErrorKind::NotFound;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::io::{Disk, OpenMode, join};
use crate::organs::archive::{self, Segment};
use crate::organs::arena::cells::{self, Cells};
use crate::organs::arena::{self, Block};
use crate::organs::catalog::Catalog;
use crate::organs::columns::{self, sealed};
use crate::tiers::cold::ColdSegment;
use crate::tiers::mover::meta;
use crate::words::error::{Error, Result};
use crate::words::options::ArenaAccess;

pub use identity::{Identity, identity};
pub use log::log;

/// Page cache of the index while it is looked at.
const CACHE_BYTES: usize = 1 << 20;

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
        let mut report = FileReport { file, bytes: 0, facts: Map::new(), problems: Vec::new() };
        match disk.open(&report.file, OpenMode::Read).and_then(|open| open.len()) {
            Ok(bytes) => report.bytes = bytes,
            Err(error) if error.kind() == NotFound => report.fact(GONE, true),
            Err(error) => report.problem(&Error::io(format!("open {}", report.file), error)),
        }
        report
    }

    fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    fn problem(&mut self, error: &Error) {
        self.problems.push(error.to_string());
    }

    /// Something could not be read: the file is gone by now, or damaged.
    fn trouble(&mut self, disk: &dyn Disk, error: &Error) {
        match disk.open(&self.file, OpenMode::Read) {
            Err(gone) if gone.kind() == NotFound => self.fact(GONE, true),
            _ => self.problem(error),
        }
    }

    /// Whether its owner removed it between listing and reading.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.facts.contains_key(GONE)
    }
}

/// The fact that a file went between listing and reading.
const GONE: &str = "gone_meanwhile";

/// The names in a folder, or the row that says why there are none.
fn names(disk: &dyn Disk, folder: &str) -> Result<Vec<String>, Vec<FileReport>> {
    disk.list(folder).map_err(|error| {
        let problems = vec![Error::io(format!("list {folder}"), error).to_string()];
        vec![FileReport { file: folder.to_owned(), bytes: 0, facts: Map::new(), problems }]
    })
}

/// The files of a folder, those with the names of their kind with their numbers; others are left over.
fn files(
    disk: &dyn Disk,
    folder: &str,
    file_name: fn(u64) -> String,
) -> Result<Vec<(FileReport, Option<u64>)>, Vec<FileReport>> {
    let file = |name: String| {
        let file = join(folder, &name);
        let digits = name.split('.').next().and_then(|digits| digits.parse().ok());
        let number = digits.filter(|number| file_name(*number) == file);
        let mut report = FileReport::new(disk, file);
        if number.is_none() {
            let is_spare = name.ends_with(".wal.spare");
            report.fact("kind", if is_spare { "spare" } else { "left over" });
        }
        (report, number)
    };
    Ok(names(disk, folder)?.into_iter().map(file).collect())
}

/// The archive: a row per segment. `deep` reads every byte. With `index`, which is only for a store that
/// nobody has open, dead rows are counted.
pub fn archive(
    disk: &Arc<dyn Disk>,
    store_id: [u8; 16],
    deep: bool,
    index: bool,
) -> Vec<FileReport> {
    let files = match files(&**disk, archive::FOLDER, archive::file_name) {
        Ok(files) => files,
        Err(reports) => return reports,
    };
    // An index that cannot be read is a matter of its own view.
    let listed = index.then(|| listed_segments(disk).ok()).flatten();
    let report = |(mut report, number): (FileReport, Option<u64>)| {
        let Some(number) = number.filter(|_| !report.is_gone()) else { return report };
        let segment = match Segment::open(&**disk, number, store_id) {
            Ok(segment) => segment,
            Err(error) => {
                report.trouble(&**disk, &error);
                if let Ok(header) = identity::segment_header(&**disk, &report.file) {
                    report.fact("header_whole", header.number == number);
                }
                return report;
            }
        };
        let known = listed.as_ref().map(|listed| listed.get(&number));
        let cold = match known.flatten().map(|bytes| ColdSegment::decode(segment, bytes)) {
            None => Segment::open(&**disk, number, store_id).map(ColdSegment::new),
            Some(Err(error)) => {
                report.problem(&error);
                Segment::open(&**disk, number, store_id).map(ColdSegment::new)
            }
            Some(cold) => cold,
        };
        match cold {
            Ok(cold) => segment_facts(&mut report, &cold, known.map(|known| known.is_some()), deep),
            Err(error) => report.trouble(&**disk, &error),
        }
        report
    };
    files.into_iter().map(report).collect()
}

/// What the index says of each segment.
fn listed_segments(disk: &Arc<dyn Disk>) -> Result<BTreeMap<u64, Vec<u8>>> {
    Catalog::open_read_only(disk, CACHE_BYTES)?.snapshot()?.segments()?.collect()
}

fn segment_facts(report: &mut FileReport, cold: &ColdSegment, listed: Option<bool>, deep: bool) {
    let (segment, footer) = (&cold.segment, cold.segment.footer());
    report.fact("rows", cold.rows());
    report.fact("vectors", footer.groups.iter().map(|g| u64::from(g.vectors)).sum::<u64>());
    // What the index does not list, it knows no dead rows of.
    if listed == Some(true) {
        report.fact("dead", cold.rows().saturating_sub(cold.live_rows()));
    }
    if let Some(listed) = listed {
        report.fact("listed", listed);
    }
    report.fact("operations", footer.ops.map_or(0, |section| section.items));
    report.fact("crc", format!("{:08x}", segment.crc()));
    if let Some((first, last)) = footer.covers {
        report.fact("first_lsn", first.0);
        report.fact("last_lsn", last.0);
    }
    let supersedes: Vec<u64> = footer.supersedes.iter().map(|(number, _)| *number).collect();
    report.fact("supersedes", supersedes);
    let group = |(nth, group): (usize, &crate::bytes::codec::footer::Group)| {
        let section = |s: &crate::bytes::codec::segment::Section| {
            let place = json!({"offset": s.offset, "bytes": s.len, "items": s.items});
            (format!("{:?}", s.kind).to_lowercase(), place)
        };
        let dead = cold.dead.get(nth).map(roaring::RoaringBitmap::len);
        json!({
            "collection": group.collection.0,
            "dim": group.dim,
            "rows": group.rows,
            "dead": dead.filter(|_| listed == Some(true)),
            "vectors": group.vectors,
            "first_id": group.min_id.0,
            "last_id": group.max_id.0,
            "sections": group.sections.iter().map(section).collect::<Map<String, Value>>(),
        })
    };
    report.fact("groups", footer.groups.iter().enumerate().map(group).collect::<Vec<Value>>());
    if deep {
        segment.verify().iter().for_each(|error| report.problem(error));
    }
}

/// The arena: a row per block, its codes checked. A block whose header is whole says what it was meant
/// to hold, whatever became of the rest.
pub fn arena(disk: &dyn Disk, store_id: [u8; 16]) -> Vec<FileReport> {
    let files = match files(disk, arena::FOLDER, arena::file_name) {
        Ok(files) => files,
        Err(reports) => return reports,
    };
    let report = |(report, number): (FileReport, Option<u64>)| {
        let mut report = match cells_number(&report.file) {
            Some(number) => return cells(disk, store_id, number),
            None => report,
        };
        let Some(number) = number.filter(|_| !report.is_gone()) else { return report };
        if let Ok(header) = identity::block_header(disk, &report.file) {
            report.fact("collection", header.collection.0);
            report.fact("bits", header.bits);
            report.fact("dim", header.dim);
            report.fact("group", header.group);
            report.fact("rows", header.rows);
            report.fact("row_bytes", header.row_bytes);
        }
        match Block::open(disk, number, store_id, ArenaAccess::Read) {
            Ok(block) => {
                for (name, row) in [("first_id", 0), ("last_id", block.rows().saturating_sub(1))] {
                    if let Some((id, _)) = block.id_version(row) {
                        report.fact(name, id.0);
                    }
                }
                let versions = (0..block.rows()).filter_map(|row| Some(block.id_version(row)?.1.0));
                report.fact("last_version", versions.max());
                if let Err(error) = block.row(0) {
                    report.problem(&error);
                }
            }
            Err(error) => report.trouble(disk, &error),
        }
        report
    };
    files.into_iter().map(report).collect()
}

/// The number of a file of cells.
fn cells_number(file: &str) -> Option<u64> {
    let digits = file.strip_prefix(arena::FOLDER)?.strip_prefix('/')?.split('.').next()?;
    digits.parse().ok().filter(|number| cells::file_name(*number) == file)
}

/// A file of cells, its sketches checked.
fn cells(disk: &dyn Disk, store_id: [u8; 16], number: u64) -> FileReport {
    let mut report = FileReport::new(disk, cells::file_name(number));
    if report.is_gone() {
        return report;
    }
    match Cells::open(disk, number, store_id) {
        Ok(cells) => {
            report.fact("collection", cells.header.collection.0);
            report.fact("dim", cells.header.dim);
            report.fact("cells", cells.header.cells);
            report.fact("rows", cells.header.rows);
            report.fact("sources", cells.header.sources);
            if let Err(error) = cells.all_blocks() {
                report.problem(&error);
            }
        }
        Err(error) => report.trouble(disk, &error),
    }
    report
}

/// The columns: a row per file, every block read, and one for the set of hot ids.
pub fn columns(disk: &dyn Disk, store_id: [u8; 16]) -> Vec<FileReport> {
    let names = match names(disk, sealed::FOLDER) {
        Ok(names) => names,
        Err(reports) => return reports,
    };
    let report = |name: String| {
        let mut report = FileReport::new(disk, join(sealed::FOLDER, &name));
        if report.is_gone() {
            return report;
        }
        match sealed::number_of(&name) {
            Some(number) => match sealed::Sealed::open(disk, number) {
                Ok(file) => column_facts(&mut report, &file),
                Err(error) => report.trouble(disk, &error),
            },
            None if name == columns::hot::NAME => {
                report.fact("kind", "hot");
                match columns::hot::read(disk, store_id) {
                    Ok(hot) => {
                        report.fact("rows", hot.len());
                        report.fact("first_id", hot.min());
                        report.fact("last_id", hot.max());
                    }
                    Err(error) => report.trouble(disk, &error),
                }
            }
            None if name == columns::moves::NAME => {
                report.fact("kind", "moves");
                match columns::moves::read(disk, store_id) {
                    Ok(moves) => report.fact("rows", moves),
                    Err(error) => report.trouble(disk, &error),
                }
            }
            None => report.fact("kind", "left over"),
        }
        report
    };
    names.into_iter().map(report).collect()
}

fn column_facts(report: &mut FileReport, file: &sealed::Sealed) {
    report.fact("kind", if file.covers() == 0 { "snapshot" } else { "delta" });
    report.fact("rows", file.rows());
    report.fact("blocks", file.blocks());
    report.fact("stands_for_from", file.covers());
    let (mut readable, mut removed, mut accesses) = (0_u64, 0_u64, 0_u64);
    let (mut rows, mut last) = (Vec::new(), None);
    for block in 0..file.blocks() {
        rows.clear();
        if let Err(error) = file.block(block, &mut rows) {
            report.problem(&error);
            continue;
        }
        readable += rows.len() as u64;
        for row in &rows {
            removed += u64::from(row.removed);
            accesses = accesses.saturating_add(u64::from(row.count));
            last = last.max(Some(row.last.0));
        }
    }
    report.fact("rows_readable", readable);
    report.fact("rows_removed", removed);
    report.fact("accesses", accesses);
    report.fact("last_access_us", last);
}

/// The index. Only for a store that nobody has open: its pages change while it is in use. A table that
/// cannot be read costs its own facts only.
pub fn catalog(disk: &Arc<dyn Disk>) -> FileReport {
    let mut report = FileReport::new(&**disk, "index.redb".to_owned());
    if report.is_gone() {
        return report;
    }
    let snapshot =
        Catalog::open_read_only(disk, CACHE_BYTES).and_then(|catalog| catalog.snapshot());
    let snapshot = match snapshot {
        Ok(snapshot) => snapshot,
        Err(error) => {
            report.problem(&error);
            return report;
        }
    };
    fn count(mut rows: impl Iterator<Item = Result<(u64, u64)>>) -> Result<u64> {
        rows.try_fold(0, |count, row| row.map(|_| count + 1))
    }
    let segments = || -> Result<Vec<u64>> { snapshot.segments()?.map(|row| Ok(row?.0)).collect() };
    let facts: [(&str, Result<Value>); 7] = [
        ("ids", snapshot.id_count().map(Value::from)),
        ("keys", snapshot.key_count().map(Value::from)),
        ("segments", segments().map(Value::from)),
        ("collections", snapshot.collections().map(|rows| rows.len().into())),
        ("settings", snapshot.settings().map(|rows| rows.len().into())),
        ("clients", snapshot.requests().and_then(count).map(Value::from)),
        ("seen_expired", snapshot.expiring().and_then(count).map(Value::from)),
    ];
    let numbers = [meta::APPLIED_LSN, meta::NEXT_SEGMENT, meta::UPTIME_MS]
        .map(|name| (name, snapshot.meta(name).map(Value::from)));
    for (name, value) in facts.into_iter().chain(numbers) {
        // What is wrong is said once, by the walk over everything.
        if let Ok(value) = value
            && !value.is_null()
        {
            report.fact(name, value);
        }
    }
    snapshot.verify().iter().for_each(|error| report.problem(error));
    report
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::io::{File, MemoryDisk};

    const STORE: [u8; 16] = [7; 16];

    /// A disk that lists files which are gone when they are opened.
    #[derive(Debug)]
    struct Ghosts(MemoryDisk);

    impl Disk for Ghosts {
        fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
            self.0.open(name, mode)
        }
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }
        fn list(&self, folder: &str) -> io::Result<Vec<String>> {
            let suffix = match folder {
                "wal" => "wal",
                "archive" => "seg",
                "arena" => "blk",
                _ => "col",
            };
            Ok(vec![format!("0000000003.{suffix}"), format!("0000000004.{suffix}.tmp")])
        }
        fn create_dir(&self, folder: &str) -> io::Result<()> {
            self.0.create_dir(folder)
        }
        fn sync_dir(&self, folder: &str) -> io::Result<()> {
            self.0.sync_dir(folder)
        }
        fn free_bytes(&self) -> Option<u64> {
            None
        }
    }

    #[test]
    fn a_file_that_goes_between_listing_and_reading_is_no_damage() {
        let disk: Arc<dyn Disk> = Arc::new(Ghosts(MemoryDisk::new()));
        let mut logged = log(&*disk, STORE, true);
        let replayed = logged.pop().unwrap();
        assert_eq!(replayed.file, "wal");
        for reports in [
            logged,
            archive(&disk, STORE, true, false),
            arena(&*disk, STORE),
            columns(&*disk, STORE),
        ] {
            assert_eq!(reports.len(), 2);
            for report in reports {
                assert!(report.is_gone() && report.problems.is_empty(), "{report:?}");
            }
        }
        assert!(catalog(&disk).is_gone());
    }
}
