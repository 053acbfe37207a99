//! Vacuum: gives the bytes of dead rows back, a bounded step at a time.
//!
//! A step takes a few segments as victims: those with more than a quarter of their rows dead, and
//! runs of small ones. Their live rows, and the operations that still matter, go into one new
//! segment whose footer names the victims and their CRCs. That footer is the durable record that
//! they are superseded; then one catalog transaction flips the rows; then the files go. A crash
//! between any two of these leaves either the victims or their replacement, both valid. A victim that
//! cannot be read whole stays as it is, and the others are worked on.
//!
//! Which operations still matter: the current definition of a live collection, the current value
//! of a setting, the last request of a client, every drop of a collection, and a tombstone as long
//! as any segment that stays may hold an older version of its id.
//!
//! Never: removes an entry. Expiry is decided by [`ripe`] and logged like any delete.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;

use crate::bytes::codec::footer::Group;
use crate::bytes::codec::op::decode_op;
use crate::organs::archive::{self, BodyReader, NewSegment, PayloadReader, Row, Segment};
use crate::tiers::View;
use crate::tiers::cold::{Cold, ColdSegment};
use crate::tiers::hot;
use crate::tiers::mover::{self, Flip, Ground, meta};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::{CollectionId, KeyPath, Lsn, Timestamp};
use crate::words::limits;
use crate::words::record::{Op, Payload, Record, Tombstone};

/// What a vacuum did.
///
/// ```
/// # use pmll::{Draft, Store};
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::open(dir.path().join("memory"))?;
/// let notes = store.collection("notes")?;
/// notes.put("a", Draft::text("one"))?;
/// store.checkpoint()?;
/// notes.delete("a")?;
/// let report = store.vacuum()?;
/// assert!(report.bytes_after < report.bytes_before);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VacuumReport {
    /// Archive segments before.
    pub segments_before: u64,
    /// Archive segments after.
    pub segments_after: u64,
    /// Bytes of them before.
    pub bytes_before: u64,
    /// Bytes of them after.
    pub bytes_after: u64,
    /// Live rows that were written anew.
    pub rows_moved: u64,
    /// Entries removed because their time had passed, and the grace after it.
    pub expired: u64,
    /// Archive segments that were left as they are, because they cannot be read whole. The warnings
    /// of [`crate::Stats`] name them.
    pub damaged: u64,
}

/// What one step did.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Rows of the new segment.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Segments that it stands for. Their files have to go before any other segment is merged: were
    /// this one replaced while an older one lies there still, nobody would know that the older one
    /// does not count.
    pub superseded: Vec<u64>,
}

/// Bytes of live rows one step holds in RAM, decoded: the scratch a pass may take beside the budget.
const STEP_BYTES_MAX: u64 = 8 << 20;
/// A segment below this size is worth merging with its neighbours.
const SMALL_BYTES: u64 = 1 << 20;
/// Small segments one merge needs at least: merging two into one again and again would copy every
/// byte once per checkpoint.
const SMALL_RUN_MIN: usize = 8;
/// Rows read at once: 128 bytes each.
const ROWS_AT_ONCE: u32 = 1024;
/// How long an expired entry stays readable by a clock that jumps back, on the monotonic clock.
const EXPIRY_GRACE: Duration = Duration::from_secs(24 * 3600);

/// Segments that a run goes round because they cannot be read whole, and why.
pub type Damaged = BTreeMap<u64, Error>;

/// Numbers and sizes, for a report.
pub fn count(cold: &Cold, report: impl FnOnce(u64, u64)) {
    let bytes = cold.segments.values().map(|s| s.segment.bytes()).sum();
    report(cold.segments.len() as u64, bytes);
}

/// The victims of the next step; empty when nothing is worth it. Together they take no more RAM
/// than a step may, unless the first alone does: that one goes in several steps.
pub fn plan(cold: &Cold, damaged: &mut Damaged) -> Vec<Arc<ColdSegment>> {
    let mut victims = Vec::new();
    let mut bytes = 0;
    for segment in cold.segments.values().filter(|segment| is_worth_it(segment)) {
        let Some(size) = scratch_of(segment, damaged) else { continue };
        if !victims.is_empty() && bytes + size > STEP_BYTES_MAX {
            break;
        }
        bytes += size;
        victims.push(Arc::clone(segment));
    }
    if !victims.is_empty() {
        return victims;
    }
    small(cold, SMALL_RUN_MIN, damaged)
}

/// Strictly above a quarter is dead; a segment of operations only is the small runs' business.
fn is_worth_it(segment: &ColdSegment) -> bool {
    let rows = segment.rows();
    rows > 0 && (rows - segment.live_rows()) * 4 > rows
}

/// The same on a full disk: the one segment that gives back the most for what has to be written
/// anew first, so that each step makes room for the next.
pub fn thrifty(cold: &Cold, damaged: &mut Damaged) -> Vec<Arc<ColdSegment>> {
    let worth = cold
        .segments
        .iter()
        .filter(|(number, segment)| !damaged.contains_key(number) && is_worth_it(segment));
    // Bytes to be written, as far as the rows are of one size.
    let live_bytes = |s: &ColdSegment| s.segment.bytes() * s.live_rows() / s.rows().max(1);
    let cheapest = worth.map(|(_, segment)| segment).min_by_key(|segment| live_bytes(segment));
    cheapest.map(Arc::clone).into_iter().collect()
}

/// A run of small segments to be merged, if there are at least so many: each segment keeps its
/// directory in RAM, so a store that is written under a small budget must not gather them.
pub fn small(cold: &Cold, at_least: usize, damaged: &mut Damaged) -> Vec<Arc<ColdSegment>> {
    let mut victims = Vec::new();
    let mut bytes = 0;
    for segment in cold.segments.values().filter(|s| s.segment.bytes() < SMALL_BYTES) {
        let Some(size) = scratch_of(segment, damaged) else { continue };
        if bytes + size > STEP_BYTES_MAX {
            if victims.len() >= at_least {
                break;
            }
            // Too few fit before this one. It may be the first of a better run.
            victims.clear();
            bytes = 0;
        }
        if size <= STEP_BYTES_MAX {
            bytes += size;
            victims.push(Arc::clone(segment));
        }
    }
    if victims.len() < at_least { Vec::new() } else { victims }
}

/// Bytes of RAM that a merge of this segment takes; `None` for one that is damaged.
fn scratch_of(segment: &ColdSegment, damaged: &mut Damaged) -> Option<u64> {
    let number = segment.segment.number();
    if damaged.contains_key(&number) {
        return None;
    }
    let mut bytes = segment.segment.footer().ops.map_or(0, |section| section.len);
    let summed = visit_live(segment, &mut |_, group, row| {
        bytes += row_scratch(group, row);
        Ok(true)
    });
    match summed {
        Ok(_) => Some(bytes),
        Err(error) => {
            damaged.insert(number, error);
            None
        }
    }
}

/// Bytes of RAM that a row takes as a record.
fn row_scratch(group: &Group, row: &Row) -> u64 {
    let payload = Some(row.payload_len() as usize);
    let payload = payload.filter(|len| *len <= limits::PAYLOAD_RESIDENT_BYTES_MAX).unwrap_or(0);
    let vector = if row.vector_index.is_some() { group.dim as usize * 4 } else { 0 };
    hot::resident_bytes(payload, vector, row.body.len as usize)
}

/// Visits the live rows of a segment with the number of their group, until told to stop. False when
/// it was.
fn visit_live(
    segment: &ColdSegment,
    visit: &mut dyn FnMut(u16, &Group, &Row) -> Result<bool>,
) -> Result<bool> {
    let mut rows = Vec::new();
    for (index, group) in segment.segment.footer().groups.iter().enumerate() {
        let group_index = u16::try_from(index).unwrap_or(u16::MAX);
        let Some(dead) = segment.dead.get(index) else { continue };
        let mut from = 0;
        while from < group.rows {
            let count = ROWS_AT_ONCE.min(group.rows - from);
            rows.clear();
            segment.segment.rows(group_index, from, count, &mut rows)?;
            for (row, at) in rows.iter().zip(from..) {
                if !dead.contains(at) && !visit(group_index, group, row)? {
                    return Ok(false);
                }
            }
            from += count;
        }
    }
    Ok(true)
}

/// Payloads that stay in the archive are read there, piece by piece.
struct ColdPayloads<'a> {
    cold: &'a Cold,
    /// The segment that did not give one.
    failed: Cell<Option<u64>>,
}

impl PayloadReader for ColdPayloads<'_> {
    fn read(&self, record: &Record, offset: u64, buf: &mut [u8]) -> Result<()> {
        let Payload::InArchive(place) = &record.payload else {
            return Err(Error::internal(format!("entry {} is not in the archive", record.id)));
        };
        let segment = self.cold.segments.get(&place.segment).ok_or_else(|| {
            Error::internal(format!("segment {} left while it was merged", place.segment))
        })?;
        let read = segment.segment.payload_at(record.collection, place, offset, buf);
        read.inspect_err(|_| self.failed.set(Some(place.segment)))
    }
}

/// How a step ended.
pub enum Ran {
    /// The rows stand in a new segment, and the catalog says so.
    Merged(Arc<Cold>, Step),
    /// This victim cannot be read whole. Nothing was written; a step without it may do better.
    Damaged(u64, Error),
}

/// Whether an error says that what is on disk cannot be had.
fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Io)
}

/// What was read of a victim.
struct Gathered {
    records: Vec<Record>,
    ops: Vec<(Lsn, Vec<u8>)>,
    /// Whether these are all its live rows.
    whole: bool,
}

/// Reads live rows of a victim as long as they fit into a step; at least one. Its operations only
/// come with all of its rows.
fn gather(victim: &ColdSegment, is_known: impl Fn(CollectionId) -> bool) -> Result<Gathered> {
    let (mut records, mut bytes) = (Vec::new(), 0);
    let mut reader: Option<(u16, BodyReader<'_>)> = None;
    let whole = visit_live(victim, &mut |index, group, row| {
        if !is_known(group.collection) {
            return Ok(true);
        }
        bytes += row_scratch(group, row);
        if bytes > STEP_BYTES_MAX && !records.is_empty() {
            return Ok(false);
        }
        if reader.as_ref().is_none_or(|(of, _)| *of != index) {
            reader = Some((index, BodyReader::new(&victim.segment, index)));
        }
        if let Some((_, bodies)) = &mut reader {
            records.push(bodies.record(row)?);
        }
        Ok(true)
    })?;
    let ops = if whole { victim.segment.ops()? } else { Vec::new() };
    Ok(Gathered { records, ops, whole })
}

/// Runs one step: writes the replacement and flips the catalog. The files of what it superseded go
/// afterwards, when the new state is published.
///
/// A victim that is too large for one step gives a part of its rows to the new segment, in which they
/// count from now on, and is superseded by the step that takes the last of them.
pub fn run(ground: &Ground<'_>, view: &View, victims: &[Arc<ColdSegment>]) -> Result<Ran> {
    let cold = &*view.cold;
    // As the catalog knows them: rows of one that was dropped a moment ago must move along, because
    // the checkpoint that archives the drop will look for them.
    let mut collections = OrdMap::new();
    for (id, bytes) in cold.catalog.collections()? {
        if let Op::Define(def) = mover::decode_stored(&bytes)? {
            collections.insert(id, Arc::new(def));
        }
    }
    let mut records = Vec::new();
    let mut found = Vec::new();
    let mut supersedes: Vec<(u64, u32)> = Vec::new();
    for victim in victims {
        let number = victim.segment.number();
        let gathered = match gather(victim, |collection| collections.contains_key(&collection)) {
            Err(error) if is_damage(&error) => return Ok(Ran::Damaged(number, error)),
            gathered => gathered?,
        };
        records.extend(gathered.records);
        found.extend(gathered.ops.into_iter().map(|(lsn, bytes)| (number, lsn, bytes)));
        if gathered.whole {
            supersedes.push((number, victim.segment.crc()));
        }
    }
    let stays = |number| supersedes.iter().all(|(gone, _)| *gone != number);
    let mut ops: BTreeMap<Lsn, Vec<u8>> = BTreeMap::new();
    for (number, lsn, bytes) in found {
        let op = match decode_op(lsn, &bytes, None) {
            Ok(op) => op,
            Err(error) => {
                let file = archive::file_name(number);
                let error = Error::corrupt(format!("{file}: operation {lsn}: {error}"));
                return Ok(Ran::Damaged(number, error));
            }
        };
        if still_matters(view, &stays, &op)? {
            ops.insert(lsn, bytes);
        }
    }
    records.sort_by_key(|r| (r.collection, r.id));
    let rows: Vec<&Record> = records.iter().collect();
    let ops: Vec<(Lsn, Vec<u8>)> = ops.into_iter().collect();
    let number = cold.catalog.meta(meta::NEXT_SEGMENT)?.unwrap_or(1);
    mover::discard_unlisted(ground.disk, cold, number)?;
    let applied = Lsn(cold.catalog.meta(meta::APPLIED_LSN)?.unwrap_or(0));
    let payloads = ColdPayloads { cold, failed: Cell::new(None) };
    let sealed = archive::write_segment(
        ground.disk,
        &NewSegment {
            number,
            store_id: ground.store_id,
            // Nothing new of the log, but it says where the archive ends: when the segments that
            // said so are gone, this one still does.
            covers: Some((applied, applied)),
            next_id: view.next_id.0,
            next_collection: view.next_collection.0,
            rows: &rows,
            shapes: &mover::shapes_of(&collections, cold),
            ops: &ops,
            beside: cold.digest(stays),
            supersedes: &supersedes,
        },
        &payloads,
    );
    let sealed = match (sealed, payloads.failed.get()) {
        (Err(error), Some(number)) if is_damage(&error) => return Ok(Ran::Damaged(number, error)),
        (sealed, _) => sealed?,
    };
    let segment = Segment::open(ground.disk, number, ground.store_id)?;
    let mut flip = Flip::begin(ground.catalog, cold)?;
    flip.add(ColdSegment::new(segment));
    for (record, place) in rows.iter().zip(&sealed.places) {
        // Where the old row's segment stays, the row dies; elsewhere it goes with its segment.
        if let Some((_, old)) = cold.locate(record.id)?
            && stays(old.segment)
        {
            flip.kill(old)?;
        }
        flip.update.put_id(record.id, &mover::located(record, *place))?;
    }
    flip.update.put_meta(meta::NEXT_SEGMENT, number.saturating_add(1))?;
    let superseded: Vec<u64> = supersedes.iter().map(|(number, _)| *number).collect();
    let next = flip.commit(ground.catalog, &superseded)?;
    Ok(Ran::Merged(
        Arc::new(next),
        Step { rows: rows.len() as u64, bytes: sealed.bytes, superseded },
    ))
}

fn still_matters(view: &View, stays: &dyn Fn(u64) -> bool, op: &Op) -> Result<bool> {
    let current = |stored: Option<Vec<u8>>| -> Result<bool> {
        Ok(match stored {
            Some(bytes) => mover::decode_stored(&bytes)?.lsn() == op.lsn(),
            None => false,
        })
    };
    match op {
        Op::Define(def) => current(view.cold.catalog.collection(def.id)?),
        Op::Setting { name, .. } => current(view.cold.catalog.setting(name)?),
        Op::Request { client, sequence, .. } => {
            Ok(view.cold.catalog.request(*client)? == Some(*sequence))
        }
        Op::DropCollection { .. } => Ok(true),
        Op::Delete(tombstone) => Ok(may_hold_older(&view.cold, stays, tombstone)),
        Op::Put(_) => Ok(false),
    }
}

/// Whether a segment that stays may hold a row of this id older than the tombstone.
fn may_hold_older(cold: &Cold, stays: &dyn Fn(u64) -> bool, tombstone: &Tombstone) -> bool {
    cold.segments
        .iter()
        .filter(|(number, _)| stays(**number))
        .flat_map(|(_, segment)| &segment.segment.footer().groups)
        .any(|group| {
            group.collection == tombstone.collection
                && (group.min_id..=group.max_id).contains(&tombstone.id)
                && group.min_version < tombstone.version
        })
}

/// Archived entries that are expired by the wall clock, and have been seen so for the grace on
/// the monotonic clock: a wall clock that jumped ahead by mistake has that long to be set right.
pub fn ripe(
    ground: &Ground<'_>,
    view: &View,
    now: Timestamp,
    uptime_ms: u64,
) -> Result<Vec<(KeyPath, Lsn)>> {
    let grace_ms = u64::try_from(EXPIRY_GRACE.as_millis()).unwrap_or(u64::MAX);
    let mut ripe = Vec::new();
    let update = ground.catalog.begin()?;
    let mut seen_any = false;
    for segment in view.cold.segments.values() {
        for (index, group) in segment.segment.footer().groups.iter().enumerate() {
            let group_index = u16::try_from(index).unwrap_or(u16::MAX);
            let Some(dead) = segment.dead.get(index) else { continue };
            let mut rows = Vec::new();
            segment.segment.rows(group_index, 0, group.rows, &mut rows)?;
            for (row, at) in rows.iter().zip(0..) {
                if dead.contains(at) || view.shadows(row.id) {
                    continue;
                }
                let Some(expires) = row.expires else { continue };
                if expires > now {
                    // A clock that was set right: the grace begins anew when the time has come.
                    seen_any |= update.del_expiring(row.id)?;
                    continue;
                }
                match update.get_expiring(row.id)? {
                    None => {
                        update.put_expiring(row.id, uptime_ms)?;
                        seen_any = true;
                    }
                    Some(first) if uptime_ms.saturating_sub(first) >= grace_ms => {
                        let body = segment.segment.body(group_index, row)?;
                        update.del_expiring(row.id)?;
                        seen_any = true;
                        let path = KeyPath {
                            collection: group.collection,
                            namespace: body.namespace,
                            key: body.key,
                        };
                        ripe.push((path, row.version));
                    }
                    // The running time goes on counting, also over a crash.
                    Some(_) => seen_any = true,
                }
            }
        }
    }
    if seen_any {
        update.put_meta(meta::UPTIME_MS, uptime_ms)?;
        update.commit()?;
    }
    Ok(ripe)
}

#[cfg(test)]
mod tests;
