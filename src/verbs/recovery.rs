//! Recovery: from whatever files the last owner left to one view.
//!
//! Steps, each idempotent, so that a crash in the middle is only another thing to recover from:
//! 1. open the catalog; if it is missing or damaged, start an empty one (it is derived);
//! 2. read the footer of every sealed segment; leave out those that a sealed segment supersedes,
//!    and refuse when the newest one was sealed beside others than there are;
//! 3. if the catalog and the segments contradict each other, start an empty catalog;
//! 4. sync the names in the archive, then apply every segment the catalog does not list, in order
//!    of number, by LSN: the highest version of an id wins, never file order;
//! 5. remove what step 2 left out, as far as the disk lets it go;
//! 6. replay the log above the applied LSN, archiving as it goes so that memory stays bounded
//!    ([`replay`]).
//!
//! Never: deletes or cuts anything under `archive/` because the catalog does not mention it, and
//! in read-only mode writes anything at all (the rebuilt catalog then lives in RAM).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::bytes::codec::footer;
use crate::bytes::codec::op::decode_op;
use crate::io::Disk;
use crate::io::memory::MemoryDisk;
use crate::organs::archive::{self, Segment};
use crate::organs::catalog::{self, Catalog, Located, is_unusable};
use crate::tiers::cold::{Cold, ColdSegment};
use crate::tiers::mover::{self, Flip, meta};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::{EntryId, Lsn};
use crate::words::record::{Op, Place, Tombstone};
use crate::words::safeguard::Safeguard;

mod replay;
#[cfg(test)]
pub(in crate::verbs) mod tests;

pub use replay::{Recovered, Shares, recover};

/// Rows read at once while a segment is applied: 128 bytes each.
const ROWS_AT_ONCE: u32 = 1024;

/// The archive with a catalog that agrees with it.
pub struct Shelves {
    /// The catalog.
    pub catalog: Catalog,
    /// The state both are in.
    pub cold: Cold,
    /// Superseded segments that could not be removed.
    pub leftovers: Vec<u64>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Steps 1 to 5: brings catalog and archive into agreement, whatever happened to either. A running
/// store goes through it as well when its catalog failed: a segment may have been sealed whose
/// transaction did not return. `rotten` is what a reader met in the catalog that is there: opening
/// reads a few pages only, so it would be taken for whole.
pub fn recover_archive(
    disk: &Arc<dyn Disk>,
    store_id: [u8; 16],
    read_only: bool,
    cache_bytes: usize,
    rotten: Option<&Error>,
) -> Result<Shelves> {
    let mut warnings = Vec::new();
    if !read_only {
        archive::remove_strays(&**disk)?;
        catalog::remove_strays(&**disk)?;
    }
    let Found { segments, superseded, lost } = read_segments(&**disk, store_id)?;
    let on_disk = segments.union(&superseded).copied().collect();
    let opened = match rotten {
        Some(error) => Err(error.clone()),
        None if read_only => Catalog::open_read_only(disk, cache_bytes),
        None => Catalog::open(disk, cache_bytes),
    };
    let listed = match opened {
        Ok(catalog) => match list(catalog, &**disk, store_id, &on_disk, &segments) {
            Ok(listed) => Some(listed),
            Err(Unusable::Rebuild(error)) => {
                warnings.push(format!("index.redb was rebuilt from the archive: {error}"));
                None
            }
            Err(Unusable::Refuse(error)) => return Err(error),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if !segments.is_empty() {
                warnings.push("index.redb was missing and was rebuilt from the archive".into());
            }
            None
        }
        // Also one that a caller calls rotten.
        Err(error) if rotten.is_some() || is_unusable(&error) => {
            warnings.push(format!("index.redb was rebuilt from the archive: {error}"));
            None
        }
        Err(error) => return Err(error),
    };
    // After the catalog, which could name the file.
    if let Some(error) = lost {
        return Err(error);
    }
    let (catalog, cold) = match listed {
        Some(listed) => listed,
        None => {
            let home: Arc<dyn Disk> =
                if read_only { Arc::new(MemoryDisk::new()) } else { Arc::clone(disk) };
            let catalog = Catalog::create(&home, cache_bytes)?;
            let cold = Cold { catalog: catalog.snapshot()?, segments: BTreeMap::new() };
            (catalog, cold)
        }
    };
    let is_new = |number: &u64| !cold.segments.contains_key(number);
    if !read_only && (!superseded.is_empty() || segments.iter().any(is_new)) {
        // Their writer may have died before it synced their names. From here on the log lets go of
        // what they hold, and what they supersede is removed.
        archive::sync_names(&**disk)?;
    }
    let cold = match roll_forward(&catalog, cold, &**disk, store_id, &segments) {
        Err(error) if rotten.is_none() && catalog.rot().is_some() => {
            // Damage in a page that the open had not read. It would be met again at every open.
            drop(catalog);
            return recover_archive(disk, store_id, read_only, cache_bytes, Some(&error));
        }
        rolled => rolled?,
    };
    let mut leftovers = Vec::new();
    for number in superseded.iter().filter(|_| !read_only) {
        if let Err(error) = archive::remove(&**disk, *number) {
            warnings.push(format!("an archive segment that was merged is still there: {error}"));
            leftovers.push(*number);
        }
    }
    Ok(Shelves { catalog, cold, leftovers, warnings })
}

/// Applies the segments that the catalog does not list.
fn roll_forward(
    catalog: &Catalog,
    mut cold: Cold,
    disk: &dyn Disk,
    store_id: [u8; 16],
    segments: &BTreeSet<u64>,
) -> Result<Cold> {
    let known = Lsn(cold.catalog.meta(meta::APPLIED_LSN)?.unwrap_or(0));
    let was_cut_short = cold.catalog.meta(meta::MARKED)?.unwrap_or(0) != 0;
    let mut marks = BTreeSet::new();
    let mut applied = known;
    for number in segments {
        let segment = match cold.segments.get(number) {
            Some(listed) => Arc::clone(&listed.segment),
            None => {
                let segment = Segment::open(disk, *number, store_id)?;
                cold = apply_segment(catalog, cold, segment, known, &mut marks)?;
                match cold.segments.get(number) {
                    Some(listed) => Arc::clone(&listed.segment),
                    None => continue,
                }
            }
        };
        applied = applied.max(segment.footer().covers.map_or(Lsn(0), |(_, last)| last));
    }
    if was_cut_short || known == Lsn(0) {
        // Its marks are of segments that are listed by now.
        for item in cold.catalog.ids(EntryId(0))? {
            let (id, located) = item?;
            if located.place.is_none() {
                marks.insert(id);
            }
        }
    }
    if applied > known || was_cut_short || !marks.is_empty() {
        cold = finish(catalog, cold, applied, marks)?;
    }
    Ok(cold)
}

/// The sealed segments of a store.
struct Found {
    /// Numbers of those that count.
    segments: BTreeSet<u64>,
    /// Numbers of those that are superseded and not removed yet.
    superseded: BTreeSet<u64>,
    /// Why there should be others.
    lost: Option<Error>,
}

fn read_segments(disk: &dyn Disk, store_id: [u8; 16]) -> Result<Found> {
    let mut crcs = BTreeMap::new();
    let mut superseded = BTreeSet::new();
    let mut claims = Vec::new();
    let (mut beside, mut lost) = (None, None);
    for number in archive::list(disk)? {
        let segment = Segment::open(disk, number, store_id)?;
        crcs.insert(number, segment.crc());
        claims.extend(segment.footer().supersedes.iter().copied());
        // Ascending: what stays is the word of the newest.
        beside = Some(segment.footer().beside);
    }
    for (number, crc) in claims {
        match crcs.get(&number) {
            Some(found) if *found == crc => {
                superseded.insert(number);
            }
            Some(_) => {
                return Err(Error::corrupt(format!(
                    "{}: a newer segment supersedes a file of this name with another CRC; files \
                     of two stores or two times are mixed",
                    archive::file_name(number)
                )));
            }
            None => {}
        }
    }
    let counted = || crcs.iter().filter(|(number, _)| !superseded.contains(number));
    if let (Some((newest, _)), Some(beside)) = (counted().next_back(), beside) {
        let others = counted().filter(|(number, _)| *number != newest);
        let found = footer::digest(others.map(|(number, crc)| (*number, *crc)));
        if Safeguard::ArchiveBeside.finds(found != beside) {
            lost = Some(Error::corrupt(format!(
                "{} was sealed beside other archive segments than there are: one is missing, or \
                 files of two times are mixed; put the missing file back",
                archive::file_name(*newest)
            )));
        }
    }
    let segments = counted().map(|(number, _)| *number).collect();
    Ok(Found { segments, superseded, lost })
}

/// Why a catalog that opened is of no use.
enum Unusable {
    /// It is damaged or too old: the archive has all it takes to make another.
    Rebuild(Error),
    /// It knows of records that are nowhere; without it nobody would miss them.
    Refuse(Error),
}

impl From<Error> for Unusable {
    fn from(error: Error) -> Unusable {
        if is_unusable(&error) { Unusable::Rebuild(error) } else { Unusable::Refuse(error) }
    }
}

/// The catalog with the segments it lists, unless it speaks of others than there are.
/// `present` are all on disk, `counted` those that nothing supersedes.
fn list(
    catalog: Catalog,
    disk: &dyn Disk,
    store_id: [u8; 16],
    present: &BTreeSet<u64>,
    counted: &BTreeSet<u64>,
) -> Result<(Catalog, Cold), Unusable> {
    let snapshot = catalog.snapshot()?;
    let mut segments = BTreeMap::new();
    let mut missing = Vec::new();
    for item in snapshot.segments()? {
        let (number, bytes) = item?;
        if !present.contains(&number) {
            missing.push(number);
            continue;
        }
        let segment = Segment::open(disk, number, store_id)?;
        segments.insert(number, Arc::new(ColdSegment::decode(segment, &bytes)?));
    }
    if let Some(&number) = missing.first() {
        let file = archive::file_name(number);
        // A catalog from before a vacuum lists what that vacuum merged; the file that replaced it
        // is one this catalog does not list.
        if counted.iter().all(|n| segments.contains_key(n)) {
            return Err(Unusable::Refuse(Error::corrupt(format!(
                "{file} is missing: index.redb lists it and nothing replaced it; put it back"
            ))));
        }
        let message = format!("it lists {file}, which was merged since");
        return Err(Unusable::Rebuild(Error::corrupt(message)));
    }
    // A segment that is older than a listed one and yet not listed: some of what it holds may have
    // been deleted since, which only a rebuild over all of them can tell.
    let newest = segments.keys().next_back().copied().unwrap_or(0);
    if let Some(number) = counted.iter().find(|n| **n < newest && !segments.contains_key(n)) {
        let message = format!("it lists segment {newest} but not segment {number}");
        return Err(Unusable::Rebuild(Error::corrupt(message)));
    }
    // What the index says is archived was sealed before it said so, and no merge forgets how far the
    // archive goes: an index that is ahead of it holds pages of another time than its archive.
    let applied = snapshot.meta(meta::APPLIED_LSN)?.unwrap_or(0);
    let footers = segments.values().map(|listed: &Arc<ColdSegment>| listed.segment.footer());
    let archived = footers.filter_map(|footer| footer.covers).map(|(_, last)| last.0).max();
    if Safeguard::CatalogAhead.finds(applied > archived.unwrap_or(0)) {
        return Err(Unusable::Refuse(Error::corrupt(format!(
            "index.redb knows of records up to LSN {applied}, the archive ends at {}: a file is missing, \
             or the disk lost what it had synced; put the missing file back, or salvage",
            archived.unwrap_or(0)
        ))));
    }
    // An older state of the file passes every checksum. It shows in its numbers.
    for name in [meta::APPLIED_LSN, meta::NEXT_ID, meta::NEXT_COLLECTION, meta::UPTIME_MS] {
        snapshot.meta(name)?;
    }
    // The first segment and no numbers is what a crash of the first checkpoint leaves.
    let is_first = present.iter().all(|number| *number == 1);
    if snapshot.meta(meta::NEXT_SEGMENT)?.is_none() && !is_first {
        return Err(Unusable::Rebuild(Error::corrupt("it lacks its own numbers")));
    }
    Ok((catalog, Cold { catalog: snapshot, segments }))
}

/// Applies a sealed segment to the catalog by LSN. `known` is how far the catalog's history went
/// when recovery began: an id it does not have was deleted if its row is not newer than that, and
/// is new to it otherwise. In a rebuild `known` is 0, and stays 0 on disk until [`finish`], so that
/// a rebuild or roll-forward that is cut short goes on by the same rule.
fn apply_segment(
    catalog: &Catalog,
    cold: Cold,
    segment: Segment,
    known: Lsn,
    marks: &mut BTreeSet<EntryId>,
) -> Result<Cold> {
    let number = segment.number();
    let footer = segment.footer().clone();
    let segment = ColdSegment::new(segment);
    let reader = Arc::clone(&segment.segment);

    // One transaction for the whole segment: it is listed when, and only when, all of it counts.
    // Its rows start dead, so that a row can die like any other while its elders are compared.
    let mut dead = segment.dead.clone();
    for (bitmap, group) in dead.iter_mut().zip(&footer.groups) {
        bitmap.insert_range(0..group.rows);
    }
    let mut flip = Flip::begin(catalog, &cold)?;
    flip.add(segment.with_dead(dead));
    for (index, group) in footer.groups.iter().enumerate() {
        let group_index = u16::try_from(index).map_err(|_| {
            Error::corrupt(format!("{}: too many groups", archive::file_name(number)))
        })?;
        let mut from = 0;
        while from < group.rows {
            let count = ROWS_AT_ONCE.min(group.rows - from);
            let mut rows = Vec::new();
            reader.rows(group_index, from, count, &mut rows)?;
            let mut named = Vec::new();
            for (row, at) in rows.iter().zip(from..) {
                let place = Place { segment: number, group: group_index, row: at };
                let newer = match flip.update.get_id(row.id)? {
                    None => row.version > known || Safeguard::ArchiveApplied.is_off(),
                    // Of two copies of one version the later segment's is the one to keep: the
                    // other one's file is about to go.
                    Some(Located { version, place: old, .. }) => {
                        let newer = row.version >= version || Safeguard::ArchiveNewest.is_off();
                        if let (true, Some(old)) = (newer, old) {
                            flip.kill(old)?;
                        }
                        newer
                    }
                };
                if newer {
                    let body = reader.body(group_index, row)?;
                    named.push((body.namespace, body.key, row.id));
                    let located = Located {
                        collection: group.collection,
                        version: row.version,
                        place: Some(place),
                    };
                    flip.update.put_id(row.id, &located)?;
                    flip.revive(place)?;
                }
            }
            let keys = named.iter().map(|(namespace, key, id)| (namespace, key.as_bytes(), *id));
            flip.update.put_keys(group.collection, keys)?;
            from += count;
        }
    }

    let ops = reader.ops()?;
    for (lsn, bytes) in &ops {
        let op = decode_op(*lsn, bytes, None).map_err(|e| {
            Error::corrupt(format!("{}: operation {lsn}: {e}", archive::file_name(number)))
        })?;
        apply_op(&mut flip, &op, marks)?;
    }
    if !marks.is_empty() {
        flip.update.put_meta(meta::MARKED, 1)?;
    }
    let raise = |flip: &mut Flip<'_>, name: &str, value: u64| -> Result<()> {
        let known = flip.update.get_meta(name)?.unwrap_or(0);
        flip.update.put_meta(name, known.max(value))
    };
    raise(&mut flip, meta::NEXT_ID, footer.next_id)?;
    raise(&mut flip, meta::NEXT_COLLECTION, u64::from(footer.next_collection))?;
    raise(&mut flip, meta::NEXT_SEGMENT, number.saturating_add(1))?;
    let replaced: Vec<u64> = footer.supersedes.iter().map(|(number, _)| *number).collect();
    flip.commit(catalog, &replaced)
}

fn apply_op(flip: &mut Flip<'_>, op: &Op, marks: &mut BTreeSet<EntryId>) -> Result<()> {
    match op {
        Op::Delete(tombstone) => {
            let known = flip.update.get_id(tombstone.id)?;
            let is_older = known.as_ref().is_some_and(|l| l.version > tombstone.version);
            if Safeguard::TombstoneOrder.finds(is_older) {
                return Ok(());
            }
            if let Some(Located { place: Some(place), .. }) = known {
                flip.kill(place)?;
            }
            flip.update.del_key(
                tombstone.collection,
                &tombstone.namespace,
                tombstone.key.as_bytes(),
                tombstone.id,
            )?;
            // The mark stays until all segments are applied: an older row may come in a later file.
            let Tombstone { id, collection, version, .. } = tombstone;
            marks.insert(*id);
            let located = Located { collection: *collection, version: *version, place: None };
            flip.update.put_id(*id, &located)
        }
        Op::Define(def) => match flip.update.get_collection(def.id)? {
            Some(known) if version_of(&known)? >= def.version => Ok(()),
            _ => mover::apply_ledger(flip, op),
        },
        Op::Setting { name, version, .. } => match flip.update.get_setting(name)? {
            Some(known) if version_of(&known)? >= *version => Ok(()),
            _ => mover::apply_ledger(flip, op),
        },
        Op::Request { client, sequence, .. } => match flip.update.get_request(*client)? {
            Some(known) if known >= *sequence => Ok(()),
            _ => mover::apply_ledger(flip, op),
        },
        Op::DropCollection { .. } => mover::apply_ledger(flip, op),
        Op::Put(_) => Err(Error::corrupt("an archive segment holds a record among its operations")),
    }
}

/// Ends a rebuild or roll-forward: takes away the marks of deleted ids, and only now says that the
/// catalog knows everything up to `applied`.
fn finish(catalog: &Catalog, cold: Cold, applied: Lsn, marks: BTreeSet<EntryId>) -> Result<Cold> {
    let flip = Flip::begin(catalog, &cold)?;
    for id in marks {
        if flip.update.get_id(id)?.is_some_and(|located| located.place.is_none()) {
            flip.update.del_id(id)?;
        }
    }
    flip.update.put_meta(meta::APPLIED_LSN, applied.0)?;
    flip.update.put_meta(meta::MARKED, 0)?;
    flip.commit(catalog, &[])
}

fn version_of(bytes: &[u8]) -> Result<Lsn> {
    Ok(mover::decode_stored(bytes)?.lsn())
}
