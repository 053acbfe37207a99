//! Reading what is left of a store: the archive first, then the log, then of the index what nothing else says.
//!
//! Every row is read whole once (body, payload, vector), so that what is noted here can be copied later.
//! Of segments without a directory the definitions are read before the rows: which collection a group
//! belongs to is told by another version of one of its entries, by the index, or by the only collection
//! whose vectors fit.
//!
//! Never: writes, or believes the index against archive and log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::bytes::codec::footer;
use crate::bytes::codec::op::decode_op;
use crate::io::Disk;
use crate::organs::archive::carve::{Carving, Opened, open_damaged};
use crate::organs::archive::{self, BodyReader, Row, Segment};
use crate::organs::catalog::{Catalog, Snapshot};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::{CollectionId, EntryId, Key, Lsn, Timestamp};
use crate::words::options::{CollectionSpec, Element};
use crate::words::record::{CollectionDef, Op, Place, Tombstone};

use super::{Lost, Older, SalvageReport};

mod index;
mod log;

/// Page cache of the source's index.
const CACHE_BYTES: usize = 1 << 20;
/// Rows read at once: 128 bytes each.
const ROWS_AT_ONCE: u32 = 256;
/// Ids of a group that are asked about to find its collection.
const IDS_ASKED: usize = 256;

/// Where a version of an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// In the archive.
    Row(Place),
    /// In the log: segment, offset and length of the operation.
    Log(u64, u64, u32),
    /// It was removed.
    Gone,
}

/// The newest whole version of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Best {
    /// Its LSN.
    pub version: Lsn,
    /// Its collection.
    pub collection: CollectionId,
    /// Where it stands.
    pub at: Where,
}

/// A row that is damaged.
struct Wound {
    place: Place,
    offset: u64,
    what: String,
    collection: Option<CollectionId>,
    of: Option<(EntryId, Lsn)>,
    key: Option<Key>,
}

/// All that is whole.
pub struct Sources {
    /// Archive segments by number, each as far as it can be read.
    pub segments: BTreeMap<u64, Arc<Segment>>,
    /// By id.
    pub best: BTreeMap<EntryId, Best>,
    /// Current definitions.
    pub collections: BTreeMap<CollectionId, CollectionDef>,
    /// Current settings, by name.
    pub settings: BTreeMap<Arc<str>, Op>,
    /// Last requests, by client.
    pub requests: BTreeMap<u64, Op>,
    /// Collections that were dropped.
    pub dropped: BTreeSet<CollectionId>,
    /// The id the next new entry takes, as far as it is known.
    pub next_id: u64,
    /// The number the next new collection takes.
    pub next_collection: u32,
    /// What there is to say.
    pub report: SalvageReport,
    /// The last removal: after it nothing was written, perhaps.
    pub last_removal: Option<Tombstone>,
    applied: Lsn,
    wounds: Vec<Wound>,
    /// Whether all of the archive could be read so far.
    archive_is_whole: bool,
    /// Dimension and element type of the vectors of a collection, and its oldest version.
    shapes: BTreeMap<CollectionId, (Option<u32>, Element, Lsn)>,
}

/// Reads them. `progress` is called with the number of entries found so far.
pub fn read(
    disk: &Arc<dyn Disk>,
    store_id: [u8; 16],
    progress: &mut dyn FnMut(u64),
) -> Result<Sources> {
    let mut sources = Sources {
        segments: BTreeMap::new(),
        best: BTreeMap::new(),
        collections: BTreeMap::new(),
        settings: BTreeMap::new(),
        requests: BTreeMap::new(),
        dropped: BTreeSet::new(),
        next_id: 1,
        next_collection: 1,
        report: SalvageReport::default(),
        last_removal: None,
        applied: Lsn(0),
        wounds: Vec::new(),
        archive_is_whole: true,
        shapes: BTreeMap::new(),
    };
    let index = Catalog::open_read_only(disk, CACHE_BYTES).ok();
    let index = index.as_ref().and_then(|catalog| catalog.snapshot().ok());
    let carvings = sources.open_segments(&**disk, store_id)?;
    let numbers: Vec<u64> = sources.segments.keys().copied().collect();
    for number in numbers {
        sources.read_rows(number);
        progress(sources.best.len() as u64);
    }
    log::read(&mut sources, &**disk, store_id, !carvings.is_empty(), progress)?;
    if let Some(index) = &index {
        index::ask(&mut sources, index);
    }
    for (number, carving) in carvings {
        sources.read_carved(number, carving, index.as_ref())?;
        progress(sources.best.len() as u64);
    }
    sources.judge_wounds(index.as_ref());
    sources.finish();
    Ok(sources)
}

/// Operations of segments, decoded or not, and where what is no operation stands.
#[derive(Default)]
struct Ops {
    whole: Vec<(Lsn, Result<Op, String>)>,
    damaged: Vec<u64>,
}

impl Sources {
    /// Opens all segments, applies their operations, and leaves out those that are superseded.
    /// Answers those without a directory.
    fn open_segments(
        &mut self,
        disk: &dyn Disk,
        store_id: [u8; 16],
    ) -> Result<Vec<(u64, Carving)>> {
        let mut carvings = Vec::new();
        for number in archive::list(disk)? {
            let file = archive::file_name(number);
            self.report.files += 1;
            match open_damaged(disk, number, store_id) {
                Ok(Opened::Listed(segment, error)) => {
                    if let Some(error) = error {
                        self.report.notes.push(format!("read by its footer alone: {error}"));
                    }
                    self.segments.insert(number, Arc::new(segment));
                }
                Ok(Opened::Carved(carving, error)) => {
                    self.archive_is_whole = false;
                    self.report.notes.push(format!("read row by row: {error}"));
                    carvings.push((number, carving));
                }
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Io) => {
                    self.archive_is_whole = false;
                    self.report.lose_file(&file, error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        self.leave_out_superseded(carvings.is_empty());
        for (number, segment) in self.segments.clone() {
            let footer = segment.footer();
            self.next_id = self.next_id.max(footer.next_id);
            self.next_collection = self.next_collection.max(footer.next_collection);
            self.applied = self.applied.max(footer.covers.map_or(Lsn(0), |(_, last)| last));
            let mut ops = Ops::default();
            let Ops { whole, damaged } = &mut ops;
            let outcome = segment.visit_whole_ops(
                &mut |lsn, bytes| whole.push((lsn, decode(lsn, bytes))),
                &mut |at| damaged.push(at),
            );
            self.take_ops(number, ops, outcome.map(|_| true));
        }
        for (number, carving) in &carvings {
            let mut ops = Ops::default();
            let Ops { whole, damaged } = &mut ops;
            let outcome = carving
                .visit_ops(&mut |lsn, bytes| whole.push((lsn, decode(lsn, bytes))), &mut |at| {
                    damaged.push(at)
                });
            let last = ops.whole.iter().map(|(lsn, _)| *lsn).max().unwrap_or(Lsn(0));
            self.applied = self.applied.max(last);
            self.take_ops(*number, ops, outcome);
        }
        Ok(carvings)
    }

    /// By the same words of footers as an open. `all` are listed: none is without a directory.
    fn leave_out_superseded(&mut self, all: bool) {
        let crcs: BTreeMap<u64, u32> = self.segments.iter().map(|(n, s)| (*n, s.crc())).collect();
        let newest = self.segments.iter().next_back();
        let newest = newest.map(|(number, segment)| (*number, segment.footer().beside));
        let supersedes = self.segments.values().flat_map(|s| s.footer().supersedes.clone());
        let superseded: Vec<u64> = supersedes
            .filter(|(number, crc)| crcs.get(number) == Some(crc))
            .map(|(number, _)| number)
            .collect();
        self.segments.retain(|number, _| !superseded.contains(number));
        let Some((newest, beside)) = newest.filter(|_| all && self.archive_is_whole) else {
            return;
        };
        let others = self.segments.iter().filter(|(number, _)| **number != newest);
        if footer::digest(others.map(|(number, s)| (*number, s.crc()))) != beside {
            self.archive_is_whole = false;
            let message = "the newest segment was sealed beside others than there are: one is \
                           missing, or files of two times are mixed";
            self.report.lose_file(archive::FOLDER, message);
        }
    }

    fn take_ops(&mut self, number: u64, ops: Ops, outcome: Result<bool>) {
        let file = archive::file_name(number);
        for at in ops.damaged {
            self.archive_is_whole = false;
            self.lose_at(&file, at, "an operation is damaged");
        }
        for (lsn, op) in ops.whole {
            match op {
                Ok(op) => self.take_op(&op),
                Err(what) => self.lose_at(&file, 0, &format!("operation {lsn}: {what}")),
            }
        }
        match outcome {
            Ok(true) => {}
            Ok(false) => {
                let what = "without its directory nothing tells whether all of it was found";
                self.lose_at(&file, 0, what);
            }
            Err(error) => {
                self.archive_is_whole = false;
                self.lose_at(&file, 0, &error.to_string());
            }
        }
    }

    fn lose_at(&mut self, file: &str, offset: u64, what: &str) {
        let (file, what) = (file.to_owned(), what.to_owned());
        self.report.lose(Lost { file, offset, what, lsns: None, id: None, key: None });
    }

    /// Takes note of an operation that is no record.
    fn take_op(&mut self, op: &Op) {
        self.report.last_lsn = self.report.last_lsn.max(op.lsn());
        match op {
            Op::Delete(tombstone) => {
                let Tombstone { id, collection, version, .. } = tombstone;
                let gone = Best { version: *version, collection: *collection, at: Where::Gone };
                self.note(*id, gone);
                if self.last_removal.as_ref().is_none_or(|last| last.version < *version) {
                    self.last_removal = Some(tombstone.clone());
                }
            }
            Op::Define(def) => {
                let known = self.collections.get(&def.id);
                if known.is_none_or(|known| known.version < def.version) {
                    self.collections.insert(def.id, def.clone());
                }
            }
            Op::DropCollection { collection, .. } => {
                self.dropped.insert(*collection);
            }
            Op::Setting { name, .. } => {
                if self.settings.get(name).is_none_or(|known| known.lsn() < op.lsn()) {
                    self.settings.insert(Arc::clone(name), op.clone());
                }
            }
            Op::Request { client, .. } => {
                if self.requests.get(client).is_none_or(|known| known.lsn() < op.lsn()) {
                    self.requests.insert(*client, op.clone());
                }
            }
            Op::Put(_) => {}
        }
    }

    /// Takes note of a version that is whole: the highest LSN wins.
    fn note(&mut self, id: EntryId, best: Best) {
        self.report.last_lsn = self.report.last_lsn.max(best.version);
        self.next_id = self.next_id.max(id.0.saturating_add(1));
        if self.best.get(&id).is_none_or(|known| known.version < best.version) {
            self.best.insert(id, best);
        }
    }

    /// Takes note of what the vectors of a collection are.
    fn shape(&mut self, collection: CollectionId, dim: u32, element: Element, version: Lsn) {
        let seen = self.shapes.entry(collection).or_insert((None, element, version));
        seen.2 = seen.2.min(version);
        if dim > 0 {
            (seen.0, seen.1) = (Some(dim), element);
        }
    }

    /// Reads every row of a segment whole.
    fn read_rows(&mut self, number: u64) {
        let Some(segment) = self.segments.get(&number).cloned() else { return };
        for (group, index) in segment.footer().groups.iter().zip(0u16..) {
            let mut reader = BodyReader::new(&segment, index);
            let mut from = 0;
            while from < group.rows {
                let count = ROWS_AT_ONCE.min(group.rows - from);
                let mut rows = Vec::new();
                let read = segment.rows(index, from, count, &mut rows);
                for at in from..from + count {
                    let row = match (&read, rows.get((at - from) as usize)) {
                        (Ok(()), Some(row)) => Ok(row.clone()),
                        // Row by row, so that a damaged one does not hide its neighbours.
                        _ => segment.row(index, at),
                    };
                    let place = Place { segment: number, group: index, row: at };
                    self.read_row(&segment, &mut reader, group.collection, place, row);
                }
                from += count;
            }
            self.shape(group.collection, group.dim, group.element, group.min_version);
        }
    }

    fn read_row(
        &mut self,
        segment: &Segment,
        reader: &mut BodyReader<'_>,
        collection: CollectionId,
        place: Place,
        row: Result<Row>,
    ) {
        let offset = segment.row_offset(place.group, place.row, 1).unwrap_or(0);
        let known = Some(collection).filter(|collection| collection.0 > 0);
        let mut wound =
            Wound { place, offset, what: String::new(), collection: known, of: None, key: None };
        let whole = row.and_then(|row| {
            wound.of = Some((row.id, row.version));
            let body = reader.body(&row)?;
            wound.key = Some(body.key);
            segment.check_payload(reader, place.group, &row)?;
            segment.vector(place.group, &row)?;
            let message = "the collection of its group is not known";
            known.ok_or_else(|| Error::corrupt(message))?;
            Ok(Best { version: row.version, collection, at: Where::Row(place) })
        });
        match (whole, wound.of) {
            (Ok(best), Some((id, _))) => self.note(id, best),
            (Err(error), _) => {
                self.archive_is_whole = false;
                wound.what = error.message().to_owned();
                self.wounds.push(wound);
            }
            (Ok(_), None) => {}
        }
    }

    /// Reads the rows of a segment without a directory.
    fn read_carved(
        &mut self,
        number: u64,
        carving: Carving,
        index: Option<&Snapshot>,
    ) -> Result<()> {
        let mut known = Vec::new();
        for (at, group) in carving.groups().iter().enumerate() {
            let told: BTreeSet<CollectionId> =
                group.ids.iter().take(IDS_ASKED).filter_map(|id| self.whose(*id, index)).collect();
            let mut fitting = Vec::new();
            for def in self.collections.values() {
                let (dim, element) = (def.spec.dim.unwrap_or(0), def.spec.element);
                if !group.has_vectors || carving.fits(at, dim, element)? {
                    fitting.push((def.id, dim, element));
                }
            }
            let choice = match told.len() {
                // A dropped one might have been just like it.
                0 if fitting.len() == 1 && self.dropped.is_empty() => fitting.first().copied(),
                1 => fitting.iter().find(|(id, ..)| told.contains(id)).copied(),
                _ => None,
            };
            known.push(choice);
        }
        for at in 0..known.len() {
            if known.get(at).is_some_and(Option::is_none) {
                let choice = self.dropped_between(&known, at).map(|id| (id, 0, Element::F32));
                known.splice(at..=at, [choice]);
            }
        }
        self.segments.insert(number, Arc::new(carving.finish(&known)?));
        self.read_rows(number);
        Ok(())
    }

    /// The dropped collection that a group is of: groups stand in the order of their collections, and
    /// no other is between its neighbours.
    fn dropped_between(
        &self,
        known: &[Option<(CollectionId, u32, Element)>],
        at: usize,
    ) -> Option<CollectionId> {
        let numbers = |known: &[Option<(CollectionId, u32, Element)>]| {
            known.iter().flatten().map(|(id, ..)| id.0).collect::<Vec<_>>()
        };
        let before = numbers(known.get(..at)?).last().copied().unwrap_or(0);
        let behind = numbers(known.get(at..)?).first().copied().unwrap_or(self.next_collection);
        let mut between = (before.saturating_add(1)..behind).map(CollectionId);
        let first = between.next().filter(|id| self.dropped.contains(id))?;
        between.all(|id| self.dropped.contains(&id)).then_some(first)
    }

    /// The collection of an entry, by another version of it or by the index.
    fn whose(&self, id: EntryId, index: Option<&Snapshot>) -> Option<CollectionId> {
        let told = || Some(index?.locate(id).ok()??.collection);
        self.best.get(&id).map(|best| best.collection).or_else(told)
    }

    /// Which damaged rows are a loss: not those that are superseded, removed, or there once more.
    fn judge_wounds(&mut self, index: Option<&Snapshot>) {
        let mut wounds = std::mem::take(&mut self.wounds);
        if let Some(index) = index.filter(|_| wounds.iter().any(|wound| wound.of.is_none())) {
            index::identify(&mut wounds, index);
        }
        for wound in wounds {
            if wound.collection.is_some_and(|collection| self.dropped.contains(&collection)) {
                continue;
            }
            let best = wound.of.and_then(|(id, _)| Some((id, *self.best.get(&id)?)));
            match (wound.of, best) {
                (Some((_, version)), Some((_, best))) if best.version >= version => {}
                (Some((_, damaged)), Some((id, best))) if best.at != Where::Gone => {
                    let (key, version) = (wound.key, best.version);
                    self.report.step_back(Older { id, key, version, damaged });
                }
                _ => self.report.lose(Lost {
                    file: archive::file_name(wound.place.segment),
                    offset: wound.offset,
                    what: wound.what,
                    lsns: None,
                    id: wound.of.map(|(id, _)| id),
                    key: wound.key,
                }),
            }
        }
    }

    /// What is left of dropped collections goes, and what lost its definition gets another.
    fn finish(&mut self) {
        let dropped = &self.dropped;
        self.best.retain(|_, best| !dropped.contains(&best.collection));
        self.collections.retain(|id, _| !dropped.contains(id));
        let live = self.best.values().filter(|best| best.at != Where::Gone);
        let used: BTreeSet<CollectionId> = live.map(|best| best.collection).collect();
        for (id, (dim, element, version)) in std::mem::take(&mut self.shapes) {
            if let Some(def) = self.collections.get_mut(&id) {
                def.spec.dim = def.spec.dim.or(dim);
            } else if used.contains(&id) {
                let mut name = format!("collection-{}", id.0);
                while self.collections.values().any(|def| *def.name == *name) {
                    name.push('x');
                }
                let what = format!("the definition of collection {}, now named {name}", id.0);
                self.report.lose_file(archive::FOLDER, what);
                let spec = CollectionSpec { dim, element, ..CollectionSpec::default() };
                let (name, created) = (Arc::from(name), Timestamp(0));
                self.collections.insert(id, CollectionDef { id, name, spec, version, created });
            }
        }
        for best in self.best.values() {
            match best.at {
                Where::Gone => self.report.removed += 1,
                Where::Row(_) => self.report.entries += 1,
                Where::Log(..) => {
                    self.report.entries += 1;
                    self.report.from_log += 1;
                }
            }
        }
        self.report.collections = self.collections.len() as u64;
        self.report.settings = self.settings.len() as u64;
        self.report.requests = self.requests.len() as u64;
    }
}

fn decode(lsn: Lsn, bytes: &[u8]) -> Result<Op, String> {
    decode_op(lsn, bytes, None).map_err(|error| error.to_string())
}
