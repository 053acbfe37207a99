//! The mover: carries records from the log's tables into a sealed archive segment.
//!
//! Steps of [`archive`], the first half of the one commit procedure:
//! 1. take the frozen table: live records become rows, tombstones and ledger operations become
//!    the segment's operations;
//! 2. write, sync and name the segment (`organs/archive` does all three);
//! 3. one catalog transaction: rows of older versions become dead, ids and keys point at the new
//!    rows, the segment is listed, the applied LSN advances;
//! 4. return the next [`Cold`] for the caller to publish.
//!
//! A crash before 3 leaves a sealed segment the catalog does not list; `open` applies it by LSN.
//! Never: publishes, reclaims the log, or removes a file.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::bytes::codec::op::{decode_op, encode_op};
use crate::io::Disk;
use crate::organs::archive::{self, NewSegment, PayloadReader, Sealed, Segment, Shape};
use crate::organs::catalog::{Catalog, Located, NewEntry, Update};
use crate::tiers::View;
use crate::tiers::cold::{Cold, ColdSegment};
use crate::tiers::hot::{MemTable, Slot};
use crate::words::error::{Error, Result};
use crate::words::id::{CollectionId, Lsn};
use crate::words::record::{CollectionDef, Op, Place, Record};

/// Names of the catalog's numbers.
pub mod meta {
    /// Every operation up to this LSN is in the archive and the catalog.
    pub const APPLIED_LSN: &str = "applied_lsn";
    /// The id the next new entry takes.
    pub const NEXT_ID: &str = "next_id";
    /// The number the next new collection takes.
    pub const NEXT_COLLECTION: &str = "next_collection";
    /// The number the next segment takes; never falls, so no number names two files.
    pub const NEXT_SEGMENT: &str = "next_segment";
    /// Milliseconds this store has been open, over all opens.
    pub const UPTIME_MS: &str = "uptime_ms";
    /// 1 while a rebuild or roll-forward has marks of deleted ids in the catalog.
    pub const MARKED: &str = "marked";
}

/// Entries handed to the catalog at once: it sorts them, which is what makes it fast.
const ENTRIES_AT_ONCE: usize = 4096;

/// What one move did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moved {
    /// Records archived.
    pub entries: u64,
    /// Tombstones archived.
    pub tombstones: u64,
    /// Bytes of the new segment.
    pub bytes: u64,
    /// Its number; `None` when there was nothing to write.
    pub segment: Option<u64>,
}

/// One catalog transaction, and the rows that die with it.
pub struct Flip<'a> {
    /// The transaction.
    pub update: Update,
    cold: &'a Cold,
    added: BTreeMap<u64, ColdSegment>,
    dead: BTreeMap<u64, Vec<RoaringBitmap>>,
}

impl<'a> Flip<'a> {
    /// Begins one over the given state.
    pub fn begin(catalog: &'a Catalog, cold: &'a Cold) -> Result<Flip<'a>> {
        let update = catalog.begin()?;
        Ok(Flip { update, cold, added: BTreeMap::new(), dead: BTreeMap::new() })
    }

    /// Lists a new segment.
    pub fn add(&mut self, segment: ColdSegment) {
        self.added.insert(segment.segment.number(), segment);
    }

    /// Marks a row dead.
    pub fn kill(&mut self, place: Place) -> Result<()> {
        self.dead_rows(place)?.insert(place.row);
        Ok(())
    }

    /// Marks a row live again: recovery lists a segment with all rows dead and revives what counts.
    pub fn revive(&mut self, place: Place) -> Result<()> {
        self.dead_rows(place)?.remove(place.row);
        Ok(())
    }

    fn dead_rows(&mut self, place: Place) -> Result<&mut RoaringBitmap> {
        let Place { segment: number, group, .. } = place;
        let known = match self.added.get(&number) {
            Some(added) => added,
            None => self.cold.segments.get(&number).ok_or_else(|| {
                Error::corrupt(format!(
                    "index.redb names archive segment {number}, which is missing"
                ))
            })?,
        };
        let groups = self.dead.entry(number).or_insert_with(|| known.dead.clone());
        let count = groups.len();
        groups.get_mut(usize::from(group)).ok_or_else(|| {
            Error::corrupt(format!(
                "index.redb names group {group} of archive segment {number}, which has {count}"
            ))
        })
    }

    /// Writes the bitmaps and the list of segments, commits, and opens the state that follows.
    /// `removed` are the numbers of superseded segments.
    pub fn commit(self, catalog: &Catalog, removed: &[u64]) -> Result<Cold> {
        let Flip { update, cold, added, dead } = self;
        let mut segments = cold.segments.clone();
        let mut changed: BTreeMap<u64, Arc<ColdSegment>> =
            added.into_iter().map(|(number, segment)| (number, Arc::new(segment))).collect();
        for (number, bitmaps) in dead {
            if let Some(segment) = changed.get(&number).or_else(|| segments.get(&number)) {
                let segment = Arc::new(segment.with_dead(bitmaps));
                changed.insert(number, segment);
            }
        }
        changed.retain(|number, _| !removed.contains(number));
        for (number, segment) in changed {
            update.put_segment(number, &segment.encode())?;
            segments.insert(number, segment);
        }
        for number in removed {
            update.del_segment(*number)?;
            segments.remove(number);
        }
        update.commit()?;
        Ok(Cold { catalog: catalog.snapshot()?, segments })
    }
}

/// What the mover needs of the store.
pub struct Ground<'a> {
    /// The disk.
    pub disk: &'a dyn Disk,
    /// The store's id.
    pub store_id: [u8; 16],
    /// The catalog.
    pub catalog: &'a Catalog,
}

struct HotPayloads<'a>(&'a MemTable);

impl PayloadReader for HotPayloads<'_> {
    fn read(&self, record: &Record, offset: u64, buf: &mut [u8]) -> Result<()> {
        match self.0.slot(record.id) {
            Some(Slot::Live(hot)) => hot.read_payload(offset, buf),
            _ => Err(Error::internal(format!(
                "entry {} left its table while it was archived",
                record.id
            ))),
        }
    }
}

/// Archives the frozen table of a view. `view` must be the one that was published by the freeze:
/// its `cold` is the catalog's present state.
pub fn archive(ground: &Ground<'_>, view: &View, uptime_ms: u64) -> Result<(Cold, Moved)> {
    let table = view
        .frozen
        .as_deref()
        .ok_or_else(|| Error::internal("a checkpoint began without a frozen table"))?;
    let mut live: Vec<&Record> = Vec::with_capacity(table.len());
    let mut ops: Vec<(Lsn, Vec<u8>)> = Vec::new();
    let mut tombstones = Vec::new();
    for (id, slot) in table.slots() {
        match slot {
            // Rows of a dropped collection are gone with it.
            Slot::Live(hot) if view.collections.contains_key(&hot.record.collection) => {
                live.push(&hot.record);
            }
            Slot::Live(_) => {}
            // A tombstone is needed only where the archive has something to bury.
            Slot::Dead(tombstone) if view.cold.locate(*id)?.is_some() => {
                ops.push((tombstone.version, encode(&Op::Delete((**tombstone).clone()))));
                tombstones.push(tombstone);
            }
            Slot::Dead(_) => {}
        }
    }
    for op in table.ledger() {
        ops.push((op.lsn(), encode(op)));
    }
    ops.sort_by_key(|(lsn, _)| *lsn);
    live.sort_by_key(|record| (record.collection, record.id));

    let number = view.cold.catalog.meta(meta::NEXT_SEGMENT)?.unwrap_or(1);
    discard_unlisted(ground.disk, &view.cold, number)?;
    let first = Lsn(view.cold.catalog.meta(meta::APPLIED_LSN)?.unwrap_or(0)).next();
    let sealed = archive::write_segment(
        ground.disk,
        &NewSegment {
            number,
            store_id: ground.store_id,
            covers: Some((first, table.last())),
            next_id: view.next_id.0,
            next_collection: view.next_collection.0,
            rows: &live,
            shapes: &shapes_of(&view.collections, &view.cold),
            ops: &ops,
            beside: view.cold.digest(|_| true),
            supersedes: &[],
        },
        &HotPayloads(table),
    )?;
    let segment = Segment::open(ground.disk, number, ground.store_id)?;

    let mut flip = Flip::begin(ground.catalog, &view.cold)?;
    place_rows(&mut flip, &live, &sealed)?;
    for tombstone in &tombstones {
        if let Some((_, place)) = view.cold.locate(tombstone.id)? {
            flip.kill(place)?;
        }
        flip.update.del_id(tombstone.id)?;
        flip.update.del_expiring(tombstone.id)?;
        flip.update.del_key(
            tombstone.collection,
            &tombstone.namespace,
            tombstone.key.as_bytes(),
            tombstone.id,
        )?;
    }
    for op in table.ledger() {
        apply_ledger(&mut flip, op)?;
    }
    flip.update.put_meta(meta::APPLIED_LSN, table.last().0)?;
    flip.update.put_meta(meta::NEXT_ID, view.next_id.0)?;
    flip.update.put_meta(meta::NEXT_COLLECTION, u64::from(view.next_collection.0))?;
    flip.update.put_meta(meta::NEXT_SEGMENT, number.saturating_add(1))?;
    flip.update.put_meta(meta::UPTIME_MS, uptime_ms)?;
    flip.add(ColdSegment::new(segment));
    let cold = flip.commit(ground.catalog, &[])?;
    let moved = Moved {
        entries: live.len() as u64,
        tombstones: tombstones.len() as u64,
        bytes: sealed.bytes,
        segment: Some(number),
    };
    Ok((cold, moved))
}

/// Takes away what an earlier attempt at this number left: a segment whose catalog transaction
/// failed. Its records are still in the log, or in the segments it meant to supersede. Left lying,
/// it would be applied by a later open, after entries it holds were deleted.
pub fn discard_unlisted(disk: &dyn Disk, cold: &Cold, number: u64) -> Result<()> {
    if !cold.segments.contains_key(&number) && archive::list(disk)?.contains(&number) {
        archive::remove(disk, number)?;
    }
    Ok(())
}

/// Points ids and keys at the rows of a sealed segment; older rows of the same ids die.
pub fn place_rows(flip: &mut Flip<'_>, rows: &[&Record], sealed: &Sealed) -> Result<()> {
    let mut entries = Vec::with_capacity(rows.len().min(ENTRIES_AT_ONCE));
    for (record, place) in rows.iter().zip(&sealed.places) {
        if let Some((_, old)) = flip.cold.locate(record.id)? {
            flip.kill(old)?;
            // Seen expired was the version before this one.
            flip.update.del_expiring(record.id)?;
        }
        entries.push(NewEntry {
            namespace: &record.namespace,
            key: record.key.as_bytes(),
            id: record.id,
            located: located(record, *place),
        });
        if entries.len() == ENTRIES_AT_ONCE {
            flip.update.put_entries(&entries)?;
            entries.clear();
        }
    }
    flip.update.put_entries(&entries)
}

/// Where a record stands, as the catalog says it.
pub fn located(record: &Record, place: Place) -> Located {
    Located { collection: record.collection, version: record.version, place: Some(place) }
}

/// Applies a definition, setting or request number to the catalog.
pub fn apply_ledger(flip: &mut Flip<'_>, op: &Op) -> Result<()> {
    match op {
        Op::Define(def) => flip.update.put_collection(def.id, &stored(op)),
        Op::DropCollection { collection, .. } => {
            flip.update.del_collection(*collection)?;
            let mut gone = Vec::new();
            flip.update.drop_keys(*collection, &mut |id| gone.push(id))?;
            for id in gone {
                if let Some(Located { place: Some(place), .. }) = flip.update.get_id(id)? {
                    flip.kill(place)?;
                }
                flip.update.del_id(id)?;
            }
            Ok(())
        }
        Op::Setting { name, .. } => flip.update.put_setting(name, &stored(op)),
        Op::Request { client, sequence, .. } => flip.update.put_request(*client, *sequence),
        Op::Put(_) | Op::Delete(_) => Ok(()),
    }
}

/// What a segment has to know of the vectors of a collection.
pub fn shapes_of<'a>(
    collections: &'a imbl::OrdMap<CollectionId, Arc<CollectionDef>>,
    cold: &'a Cold,
) -> impl Fn(CollectionId) -> Option<Shape> + 'a {
    |id| {
        let spec = &collections.get(&id)?.spec;
        // A collection without vectors has no dimension yet: its rows have none either.
        let (dim, element, metric) = (spec.dim.unwrap_or(0), spec.element, spec.metric);
        Some(Shape { dim, element, metric, mean: cold.sketch_mean(id) })
    }
}

/// The catalog's form of an operation: its LSN, then the archive's form.
fn stored(op: &Op) -> Vec<u8> {
    let mut out = op.lsn().0.to_le_bytes().to_vec();
    encode_op(op, &[], &mut out);
    out
}

/// Reads the catalog's form back.
pub fn decode_stored(bytes: &[u8]) -> Result<Op> {
    let wrong = || Error::corrupt("index.redb: a definition or setting does not decode");
    let (lsn, rest) = bytes.split_first_chunk::<8>().ok_or_else(wrong)?;
    decode_op(Lsn(u64::from_le_bytes(*lsn)), rest, None).map_err(|_| wrong())
}

/// The archive's form of an operation; a record's payload is never encoded here.
pub fn encode(op: &Op) -> Vec<u8> {
    let mut out = Vec::new();
    encode_op(op, &[], &mut out);
    out
}
