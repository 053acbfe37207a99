//! Verify: are the files whole, and do they agree with each other?
//!
//! `Fast` reads headers, footers, lengths and the log; `Deep` also reads every row, frame and
//! vector of the archive under its CRC, every row of the catalog, and compares: each id the
//! catalog names stands where it says, in the version it says; each key leads to its id and back;
//! as many rows live as the catalog names; it has the collections, settings and requests that the
//! archive has. Problems are collected, not thrown, so one damaged file does not hide another.
//!
//! Never: writes, repairs, or stops at the first problem.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::bytes::codec::codes;
use crate::bytes::codec::op::decode_op;
use crate::io::Disk;
use crate::organs::arena::cells;
use crate::organs::{archive, arena, wal};
use crate::pure::quant::{self, Bits};
use crate::tiers::View;
use crate::tiers::cold::Cold;
use crate::tiers::mover::decode_stored;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::{CollectionId, EntryId, KeyPath, Lsn};
use crate::words::options::ArenaAccess;
use crate::words::record::Op;

/// How far [`crate::Store::verify`] looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// Headers, footers, lengths, the log. Cost: independent of the archive's size but for one
    /// small read a segment.
    #[default]
    Fast,
    /// Everything. Cost: reads every byte once.
    Deep,
}

/// What verify found.
///
/// ```
/// # use pmll::{Depth, Store};
/// # let dir = tempfile::tempdir()?;
/// let store = Store::open(dir.path().join("memory"))?;
/// assert!(store.verify(Depth::Deep)?.is_whole());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Live entries seen.
    pub entries: u64,
    /// Files read.
    pub files: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// What is wrong; empty when nothing is.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The file it is in.
    pub file: String,
    /// What it is.
    pub message: String,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.problems.is_empty()
    }

    fn add(&mut self, file: &str, error: &Error) {
        self.problems.push(Problem { file: file.to_owned(), message: error.to_string() });
    }
}

/// Checks the log alone: it ends where the view does. Nobody may write to it meanwhile: what a
/// writer is at looks like damage to whoever reads half of it.
pub fn log(disk: &dyn Disk, store_id: [u8; 16], view: &View) -> VerifyReport {
    let mut report = VerifyReport::default();
    check_log(disk, store_id, view, &mut report);
    report
}

/// Checks everything else against a view of the same files, and adds it to what is known of the log.
pub fn run(
    disk: &dyn Disk,
    store_id: [u8; 16],
    view: &View,
    depth: Depth,
    mut report: VerifyReport,
) -> Result<VerifyReport> {
    for id in view.collections.keys() {
        report.entries += view.entries(*id)?;
    }
    for (number, cold) in &view.cold.segments {
        let file = archive::file_name(*number);
        report.files += 1;
        report.bytes += cold.segment.bytes();
        // Through a new handle: what is on disk under that name now, not what was opened.
        match archive::Segment::open(disk, *number, store_id) {
            Ok(segment) if segment.crc() != cold.segment.crc() => {
                report.add(&file, &Error::corrupt("the file was exchanged for another"));
            }
            Ok(segment) if depth == Depth::Deep => {
                for error in segment.verify() {
                    report.add(&file, &error);
                }
            }
            Ok(_) => {}
            Err(error) => report.add(&file, &error),
        }
    }
    for block in view.levels.blocks.values() {
        report.files += 1;
        report.bytes += block.block.bytes();
        if let Err(error) = check_block(disk, store_id, view, &block.block, depth) {
            report.add(&arena::file_name(block.block.number()), &error);
        }
    }
    for cells in view.levels.cells.values() {
        report.files += 1;
        report.bytes += cells.bytes();
        if let Err(error) = check_cells(disk, store_id, view, cells.number(), depth) {
            report.add(&cells::file_name(cells.number()), &error);
        }
    }
    if depth == Depth::Deep {
        report.files += 1;
        check_catalog(view, &mut report);
    }
    Ok(report)
}

/// What is on disk under a block's name is whole, and its codes are those of the archive.
fn check_block(
    disk: &dyn Disk,
    store_id: [u8; 16],
    view: &View,
    block: &arena::Block,
    depth: Depth,
) -> Result<()> {
    let file = arena::Block::open(disk, block.number(), store_id, ArenaAccess::Read)?;
    if depth == Depth::Fast {
        return Ok(());
    }
    let (mut wide, mut narrow) = (Vec::new(), Vec::new());
    for row in 0..file.rows() {
        let codes = file.row(row)?;
        let Some((id, version)) = file.id_version(row) else { continue };
        // Rows of an older version are dead; they go when the block is packed.
        let Some(cold) = view.cold.row(id)?.filter(|cold| cold.row.version == version) else {
            continue;
        };
        cold.segment.segment.code(cold.place.group, cold.place.row, &mut wide)?;
        let eight = codes::layout(file.dim())
            .ok_or_else(|| Error::internal(format!("block {} has no layout", file.number())))?;
        let expected = if file.bits() == 4 {
            narrow.resize(eight.with_bits(Bits::Four).row_bytes(), 0);
            quant::narrow(eight, &wide, &mut narrow);
            &narrow
        } else {
            &wide
        };
        if codes != expected.as_slice() {
            return Err(Error::corrupt(format!("the codes of entry {id} are not the archive's")));
        }
    }
    Ok(())
}

/// A file of cells is whole, and has each living row of its sources once.
fn check_cells(
    disk: &dyn Disk,
    store_id: [u8; 16],
    view: &View,
    number: u64,
    depth: Depth,
) -> Result<()> {
    let file = cells::Cells::open(disk, number, store_id)?;
    if depth == Depth::Fast {
        return Ok(());
    }
    file.all_blocks()?;
    let refs: RoaringBitmap = file.tables.refs.iter().copied().collect();
    if refs.len() != u64::from(file.header.rows) {
        return Err(Error::corrupt("a row stands in two cells"));
    }
    let mut base = 0;
    for source in &file.tables.sources {
        // One that was merged since is nobody's source any more.
        let segment = view.cold.segments.get(&source.segment);
        if let Some(segment) = segment.filter(|s| s.segment.crc() == source.crc) {
            let dead = segment.dead.get(usize::from(source.group));
            let lives = |row: &u32| dead.is_none_or(|dead| !dead.contains(*row));
            if let Some(row) =
                (0..source.vectors).filter(lives).find(|row| !refs.contains(base + row))
            {
                let (segment, group) = (source.segment, source.group);
                let message =
                    format!("row {row} of group {group} of segment {segment} is in no cell");
                return Err(Error::corrupt(message));
            }
        }
        base += source.vectors;
    }
    Ok(())
}

fn check_log(disk: &dyn Disk, store_id: [u8; 16], view: &View, report: &mut VerifyReport) {
    let applied = view.cold.catalog.meta(crate::tiers::mover::meta::APPLIED_LSN);
    let scanned = applied.and_then(|applied| {
        let applied = crate::words::id::Lsn(applied.unwrap_or(0));
        wal::replay(disk, store_id, applied, &mut |_| Ok(()))
    });
    match scanned {
        Ok(scan) => {
            report.files += disk.list(wal::FOLDER).map_or(0, |names| names.len() as u64);
            report.bytes += scan.bytes;
            if scan.last_lsn < view.lsn {
                let message =
                    format!("the log ends at LSN {}, the store is at {}", scan.last_lsn, view.lsn);
                report.add("wal", &Error::corrupt(message));
            }
        }
        Err(error) => report.add("wal", &error),
    }
}

fn check_catalog(view: &View, report: &mut VerifyReport) {
    const FILE: &str = "index.redb";
    for error in view.cold.catalog.verify() {
        report.add(FILE, &error);
    }
    let mut named = 0;
    match view.cold.catalog.ids(EntryId(0)) {
        Ok(ids) => {
            for item in ids {
                let checked = item.and_then(|(id, located)| {
                    if located.place.is_none() {
                        return Ok(());
                    }
                    named += 1;
                    check_id(view, id)
                });
                if let Err(error) = checked {
                    report.add(FILE, &error);
                    if error.kind() != ErrorKind::Corrupt {
                        return;
                    }
                }
            }
        }
        Err(error) => return report.add(FILE, &error),
    }
    let live: u64 = view.cold.segments.values().map(|s| s.live_rows()).sum();
    if live != named {
        let message = format!("the archive has {live} live rows, the index names {named}");
        report.add(FILE, &Error::corrupt(message));
    }
    match view.cold.catalog.key_count() {
        Ok(keys) if keys != named => {
            let message = format!("the index has {keys} keys for {named} entries");
            report.add(FILE, &Error::corrupt(message));
        }
        Ok(_) => {}
        Err(error) => report.add(FILE, &error),
    }
    if let Err(error) = check_ledger(&view.cold) {
        report.add(FILE, &error);
    }
}

/// What the archive says of collections, settings and requests, the catalog knows in that version or
/// a later one. A segment that does not read has been told by itself.
fn check_ledger(cold: &Cold) -> Result<()> {
    let mut newest: BTreeMap<Name, Op> = BTreeMap::new();
    for (number, listed) in &cold.segments {
        let Ok(ops) = listed.segment.ops() else { continue };
        for (lsn, bytes) in ops {
            let op = decode_op(lsn, &bytes, None).map_err(|e| {
                let file = archive::file_name(*number);
                Error::corrupt(format!("{file}: operation {lsn}: {e}"))
            })?;
            let name = match &op {
                Op::Define(def) => Name::Collection(def.id),
                Op::DropCollection { collection, .. } => Name::Collection(*collection),
                Op::Setting { name, .. } => Name::Setting(Arc::clone(name)),
                Op::Request { client, .. } => Name::Client(*client),
                Op::Put(_) | Op::Delete(_) => continue,
            };
            if newest.get(&name).is_none_or(|known| known.lsn() <= lsn) {
                newest.insert(name, op);
            }
        }
    }
    let catalog = &cold.catalog;
    let reaches = |stored: Option<Vec<u8>>, lsn: Lsn| match stored {
        Some(bytes) => decode_stored(&bytes).map(|known| known.lsn() >= lsn),
        None => Ok(false),
    };
    for (name, op) in newest {
        let is_known = match &op {
            Op::Define(def) => reaches(catalog.collection(def.id)?, op.lsn())?,
            Op::DropCollection { collection, .. } => catalog.collection(*collection)?.is_none(),
            Op::Setting { name, .. } => reaches(catalog.setting(name)?, op.lsn())?,
            Op::Request { client, sequence, .. } => catalog.request(*client)? >= Some(*sequence),
            Op::Put(_) | Op::Delete(_) => true,
        };
        if !is_known {
            return Err(Error::corrupt(format!(
                "{name:?} is older than in the archive, which has it of LSN {}",
                op.lsn()
            )));
        }
    }
    Ok(())
}

/// What an operation that is no entry is about.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Collection(CollectionId),
    Setting(Arc<str>),
    Client(u64),
}

/// The row of an id says the same id and version, lives, and its key leads back to it.
fn check_id(view: &View, id: EntryId) -> Result<()> {
    let Some(row) = view.cold.row(id)? else { return Ok(()) };
    let dead = row.segment.dead.get(usize::from(row.place.group));
    if dead.is_some_and(|dead| dead.contains(row.place.row)) {
        return Err(Error::corrupt(format!("entry {id} stands in a row that is marked dead")));
    }
    let group = row.segment.segment.footer().groups.get(usize::from(row.place.group));
    let Some(collection) = group.map(|g| g.collection) else {
        return Err(Error::corrupt(format!("entry {id} stands in a group that is not there")));
    };
    let body = row.body()?;
    let path = KeyPath { collection, namespace: body.namespace, key: body.key };
    if view.cold.find(&path)? != Some(id) {
        return Err(Error::corrupt(format!(
            "the key {} of entry {id} does not lead to it",
            path.key
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::codec::op::encode_op;
    use crate::io::MemoryDisk;
    use crate::organs::archive::{NewSegment, PayloadReader, write_segment};
    use crate::organs::catalog::Catalog;
    use crate::tiers::cold::ColdSegment;
    use crate::tiers::mover::{Flip, apply_ledger};
    use crate::words::record::Record;

    struct Nothing;

    impl PayloadReader for Nothing {
        fn read(&self, _: &Record, _: u64, _: &mut [u8]) -> Result<()> {
            Err(Error::internal("there are no payloads"))
        }
    }

    #[test]
    fn a_setting_that_is_older_than_in_the_archive_is_seen() {
        const STORE: [u8; 16] = [4; 16];
        let setting = |value: &str, version| Op::Setting {
            name: "policy.rho".into(),
            value: value.into(),
            version: Lsn(version),
        };
        let mut bytes = Vec::new();
        encode_op(&setting("30", 2), &[], &mut bytes);
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        disk.create_dir(archive::FOLDER).unwrap();
        let new = NewSegment {
            number: 1,
            store_id: STORE,
            covers: Some((Lsn(1), Lsn(2))),
            next_id: 1,
            next_collection: 1,
            rows: &[],
            shapes: &|_| None,
            ops: &[(Lsn(2), bytes)],
            beside: crate::bytes::codec::footer::digest(std::iter::empty()),
            supersedes: &[],
        };
        write_segment(&*disk, &new, &Nothing).unwrap();
        let catalog = Catalog::create(&disk, 1 << 20).unwrap();
        let empty = Cold { catalog: catalog.snapshot().unwrap(), segments: BTreeMap::new() };
        let known = |version| {
            let mut flip = Flip::begin(&catalog, &empty).unwrap();
            flip.add(ColdSegment::new(archive::Segment::open(&*disk, 1, STORE).unwrap()));
            apply_ledger(&mut flip, &setting("20", version)).unwrap();
            check_ledger(&flip.commit(&catalog, &[]).unwrap())
        };
        known(2).unwrap();
        let error = known(1).unwrap_err();
        assert!(error.message().contains("older than in the archive"), "{error}");
    }
}
