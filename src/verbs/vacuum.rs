//! Vacuum: gives the bytes of dead rows back, a bounded step at a time.
//!
//! A step takes a few segments as victims: those with more than a quarter of their rows dead, and
//! runs of small ones. Their live rows, and the operations that still matter, go into one new
//! segment whose footer names the victims and their CRCs. That footer is the durable record that
//! they are superseded; then one catalog transaction flips the rows; then the files go. A crash
//! between any two of these leaves either the victims or their replacement, both valid.
//!
//! Which operations still matter: the current definition of a live collection, the current value
//! of a setting, the last request of a client, every drop of a collection, and a tombstone as long
//! as any segment that stays may hold an older version of its id.
//!
//! Never: removes an entry. Expiry is decided by [`ripe`] and logged like any delete.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;

use crate::bytes::codec::op::decode_op;
use crate::io::Disk;
use crate::organs::archive::{self, BodyReader, NewSegment, PayloadReader, Segment};
use crate::tiers::View;
use crate::tiers::cold::{Cold, ColdSegment};
use crate::tiers::mover::{self, Flip, Ground, meta};
use crate::words::error::{Error, Result};
use crate::words::id::{KeyPath, Lsn, Timestamp};
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
}

/// What one step wrote.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step {
    /// Rows of the new segment.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// Bytes of live rows one step holds in RAM: the scratch a pass may take beside the budget.
const STEP_BYTES_MAX: u64 = 8 << 20;
/// A segment below this size is worth merging with its neighbours.
const SMALL_BYTES: u64 = 1 << 20;
/// Small segments one merge needs at least: merging two into one again and again would copy every
/// byte once per checkpoint.
const SMALL_RUN_MIN: usize = 8;
/// How long an expired entry stays readable by a clock that jumps back, on the monotonic clock.
const EXPIRY_GRACE: Duration = Duration::from_secs(24 * 3600);

/// Numbers and sizes, for a report.
pub fn count(cold: &Cold, report: impl FnOnce(u64, u64)) {
    let bytes = cold.segments.values().map(|s| s.segment.bytes()).sum();
    report(cold.segments.len() as u64, bytes);
}

/// The victims of the next step; empty when nothing is worth it.
pub fn plan(cold: &Cold) -> Vec<Arc<ColdSegment>> {
    let mut victims = Vec::new();
    let mut bytes = 0;
    for segment in cold.segments.values() {
        let rows = segment.rows();
        // Strictly above a quarter; a segment of operations only is the small runs' business.
        if rows > 0 && (rows - segment.live_rows()) * 4 > rows {
            let size = live_bytes(segment);
            if !victims.is_empty() && bytes + size > STEP_BYTES_MAX {
                break;
            }
            bytes += size;
            victims.push(Arc::clone(segment));
        }
    }
    if !victims.is_empty() {
        return victims;
    }
    small(cold, SMALL_RUN_MIN)
}

/// The same on a full disk: the one segment that gives back the most for what has to be written
/// anew first, so that each step makes room for the next.
pub fn thrifty(cold: &Cold) -> Vec<Arc<ColdSegment>> {
    let worth = cold.segments.values().filter(|segment| {
        let rows = segment.rows();
        rows > 0 && (rows - segment.live_rows()) * 4 > rows
    });
    worth.min_by_key(|segment| live_bytes(segment)).map(Arc::clone).into_iter().collect()
}

/// Bytes that a merge of this segment has to write, as far as its rows are of one size.
fn live_bytes(segment: &ColdSegment) -> u64 {
    segment.segment.bytes() * segment.live_rows() / segment.rows().max(1)
}

/// A run of small segments to be merged, if there are at least so many: each segment keeps its
/// directory in RAM, so a store that is written under a small budget must not gather them.
pub fn small(cold: &Cold, at_least: usize) -> Vec<Arc<ColdSegment>> {
    let mut victims = Vec::new();
    let mut bytes = 0;
    for segment in cold.segments.values().filter(|s| s.segment.bytes() < SMALL_BYTES) {
        let size = live_bytes(segment);
        if bytes + size > STEP_BYTES_MAX {
            break;
        }
        bytes += size;
        victims.push(Arc::clone(segment));
    }
    if victims.len() < at_least { Vec::new() } else { victims }
}

/// Payloads that stay in the archive are read there, piece by piece.
struct ColdPayloads<'a>(&'a Cold);

impl PayloadReader for ColdPayloads<'_> {
    fn read(&self, record: &Record, offset: u64, buf: &mut [u8]) -> Result<()> {
        let Payload::InArchive(place) = &record.payload else {
            return Err(Error::internal(format!("entry {} is not in the archive", record.id)));
        };
        let segment = self.0.segments.get(&place.segment).ok_or_else(|| {
            Error::internal(format!("segment {} left while it was merged", place.segment))
        })?;
        segment.segment.payload_at(record.collection, place, offset, buf)
    }
}

/// Runs one step: writes the replacement and flips the catalog. The files go afterwards, with
/// [`remove`], when the new state is published.
pub fn run(ground: &Ground<'_>, view: &View, victims: &[Arc<ColdSegment>]) -> Result<(Cold, Step)> {
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
    let mut ops: BTreeMap<Lsn, Vec<u8>> = BTreeMap::new();
    for victim in victims {
        for (index, group) in victim.segment.footer().groups.iter().enumerate() {
            let group_index = u16::try_from(index).unwrap_or(u16::MAX);
            let Some(dead) = victim.dead.get(index) else { continue };
            if !collections.contains_key(&group.collection) {
                continue;
            }
            let mut rows = Vec::new();
            victim.segment.rows(group_index, 0, group.rows, &mut rows)?;
            let mut bodies = BodyReader::new(&victim.segment, group_index);
            for (row, at) in rows.into_iter().zip(0..) {
                if dead.contains(at) {
                    continue;
                }
                let record = bodies.record(&row)?;
                records.push(record);
            }
        }
        for (lsn, bytes) in victim.segment.ops()? {
            let op = decode_op(lsn, &bytes, None).map_err(|e| {
                let file = archive::file_name(victim.segment.number());
                Error::corrupt(format!("{file}: operation {lsn}: {e}"))
            })?;
            if still_matters(view, victims, &op)? {
                ops.insert(lsn, bytes);
            }
        }
    }
    records.sort_by_key(|r| (r.collection, r.id));
    let rows: Vec<&Record> = records.iter().collect();
    let ops: Vec<(Lsn, Vec<u8>)> = ops.into_iter().collect();
    let supersedes: Vec<(u64, u32)> =
        victims.iter().map(|v| (v.segment.number(), v.segment.crc())).collect();
    let number = cold.catalog.meta(meta::NEXT_SEGMENT)?.unwrap_or(1);
    mover::discard_unlisted(ground.disk, cold, number)?;
    let applied = Lsn(cold.catalog.meta(meta::APPLIED_LSN)?.unwrap_or(0));
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
            beside: cold.digest(|number| supersedes.iter().all(|(gone, _)| *gone != number)),
            supersedes: &supersedes,
        },
        &ColdPayloads(cold),
    )?;
    let segment = Segment::open(ground.disk, number, ground.store_id)?;
    let mut flip = Flip::begin(ground.catalog, cold)?;
    flip.add(ColdSegment::new(segment));
    for (record, place) in rows.iter().zip(&sealed.places) {
        flip.update.put_id(record.id, &mover::located(record, *place))?;
    }
    flip.update.put_meta(meta::NEXT_SEGMENT, number.saturating_add(1))?;
    let removed: Vec<u64> = supersedes.iter().map(|(number, _)| *number).collect();
    let next = flip.commit(ground.catalog, &removed)?;
    Ok((next, Step { rows: rows.len() as u64, bytes: sealed.bytes }))
}

/// Removes the files of superseded segments, each durably: were one to come back after its
/// replacement has itself been replaced, its dead rows would come back with it.
pub fn remove(disk: &dyn Disk, victims: &[Arc<ColdSegment>]) -> Result<()> {
    for victim in victims {
        archive::remove(disk, victim.segment.number())?;
    }
    Ok(())
}

fn still_matters(view: &View, victims: &[Arc<ColdSegment>], op: &Op) -> Result<bool> {
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
        Op::Delete(tombstone) => Ok(may_hold_older(&view.cold, victims, tombstone)),
        Op::Put(_) => Ok(false),
    }
}

/// Whether a segment that stays may hold a row of this id older than the tombstone.
fn may_hold_older(cold: &Cold, victims: &[Arc<ColdSegment>], tombstone: &Tombstone) -> bool {
    let is_victim = |number| victims.iter().any(|v| v.segment.number() == number);
    cold.segments
        .iter()
        .filter(|(number, _)| !is_victim(**number))
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
