//! Replay: the log on top of the archive, in the memory that the budget allows.
//!
//! 1. [`recover_archive`] brings archive and catalog into agreement; the view starts from there.
//! 2. Every operation of the log above the applied LSN goes into the view's table, unless its vector is none
//!    that its collection can have: then the log is refused. A table that has
//!    its share of the budget is archived before the replay goes on. The budget is the caller's or
//!    the store's own, which an operation of the log may be about to change.
//! 3. On a full disk the reserve is given up, and archiving is tried once more. If that does not
//!    help, the table stays in RAM, frozen, and the rest of the log beside it: a store that does
//!    not open cannot be made smaller. If there is not even room for the catalog's own pages, one
//!    that never writes stands in for it.
//! 4. Were archive and catalog opened under another budget than the one that was found, they are
//!    opened again: the page cache takes a share of it.
//!
//! Never: gives up an operation of the log, holds more than one log file open beside those whose
//! payloads the table refers to.

use std::sync::Arc;

use imbl::OrdMap;

use crate::io::{Disk, File};
use crate::organs::catalog::Catalog;
use crate::organs::reserve::Reserve;
use crate::organs::wal::{self, Scan};
use crate::tiers::View;
use crate::tiers::cold::Cold;
use crate::tiers::hot::MemTable;
use crate::tiers::mover::{self, Ground, meta};
use crate::verbs::recovery::{Shelves, recover_archive};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::{CollectionId, EntryId, Lsn};
use crate::words::options::Element;
use crate::words::record::{Op, Payload};

/// What recovery found and made.
pub struct Recovered {
    /// The store as it stands.
    pub view: View,
    /// The catalog.
    pub catalog: Catalog,
    /// Whether the catalog only stands in for one that the disk has no room for: it never writes.
    pub is_stand_in: bool,
    /// Superseded segments that could not be removed.
    pub leftovers: Vec<u64>,
    /// Where the log ends.
    pub scan: Scan,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Who may have how much memory.
pub struct Shares<'a> {
    /// The budget, by what the store says of it; `None` while that is not known.
    pub budget: &'a dyn Fn(Option<&View>) -> u64,
    /// Of a budget: bytes of the catalog's page cache.
    pub cache_bytes: fn(u64) -> usize,
    /// Of a budget: bytes of a table that is to be archived.
    pub freeze_bytes: fn(u64) -> u64,
}

/// Recovers the store.
pub fn recover(
    disk: &Arc<dyn Disk>,
    store_id: [u8; 16],
    read_only: bool,
    shares: &Shares<'_>,
) -> Result<Recovered> {
    let cache_bytes = (shares.cache_bytes)((shares.budget)(None));
    let home = Home { disk, store_id, read_only };
    let (shelves, is_stand_in) = home.open(cache_bytes, None)?;
    let Shelves { catalog, cold, leftovers, warnings } = shelves;
    let view = view_of(cold)?;
    let uptime_ms = view.cold.catalog.meta(meta::UPTIME_MS)?.unwrap_or(0);
    let applied = view.lsn;
    let catalog = Some(catalog);
    let mut replay = Replay {
        home,
        cache_bytes,
        catalog,
        is_stand_in,
        leftovers,
        view,
        uptime_ms,
        warnings,
        log: None,
    };
    let scan = wal::replay(&**disk, store_id, applied, &mut |op| {
        check(&replay.view, &op)?;
        let log = replay.log_of(&op)?;
        replay.view.apply(op, log);
        let freeze_bytes = (shares.freeze_bytes)((shares.budget)(Some(&replay.view)));
        if replay.view.active.bytes() >= freeze_bytes { replay.archive() } else { Ok(()) }
    })?;
    let cache_bytes = (shares.cache_bytes)((shares.budget)(Some(&replay.view)));
    if cache_bytes != replay.cache_bytes {
        replay.cache_bytes = cache_bytes;
        replay.open_again()?;
    }
    let Replay { catalog, is_stand_in, leftovers, view, mut warnings, .. } = replay;
    let catalog = catalog.ok_or_else(|| Error::internal("a replay ended without a catalog"))?;
    if let Some(torn) = &scan.torn {
        warnings.push(format!(
            "{}: the last write was cut off by a crash at offset {}; {} unacknowledged bytes \
             were dropped{}",
            torn.file,
            torn.offset,
            torn.bytes,
            if torn.ambiguous { " and kept aside" } else { "" }
        ));
    }
    warnings.extend(scan.notes.iter().cloned());
    Ok(Recovered { view, catalog, is_stand_in, leftovers, scan, warnings })
}

/// Refuses a record whose vector its collection cannot have: the archive would not take it, ever. No store
/// writes one; a checksum says what was written, not that it makes sense.
pub(super) fn check(view: &View, op: &Op) -> Result<()> {
    let Op::Put(record) = op else { return Ok(()) };
    let Some(vector) = &record.vector else { return Ok(()) };
    let spec = view.collections.get(&record.collection).map(|def| &def.spec);
    let dim = spec.and_then(|spec| spec.dim).map(|dim| dim as usize);
    let rounded = record.half || spec.is_none_or(|spec| spec.element == Element::F32);
    if dim == Some(vector.len()) && rounded {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "the log's record {}: a vector of {} values is none of collection {}, whose dimension is {dim:?}",
        record.version,
        vector.len(),
        record.collection.0
    )))
}

/// The store that is being opened.
struct Home<'a> {
    disk: &'a Arc<dyn Disk>,
    store_id: [u8; 16],
    read_only: bool,
}

impl Home<'_> {
    /// Archive and catalog, and whether a stand-in is all there is room for.
    fn open(&self, cache_bytes: usize, rotten: Option<&Error>) -> Result<(Shelves, bool)> {
        let open =
            |read_only| recover_archive(self.disk, self.store_id, read_only, cache_bytes, rotten);
        let is_full = |error: &Error| error.kind() == ErrorKind::Full;
        match open(self.read_only) {
            Err(error) if is_full(&error) => {}
            opened => return opened.map(|shelves| (shelves, false)),
        }
        Reserve::default().give_up(&**self.disk);
        match open(self.read_only) {
            Err(error) if is_full(&error) => {
                let mut shelves = open(true)?;
                shelves
                    .warnings
                    .push(format!("index.redb is only read until there is room: {error}"));
                Ok((shelves, true))
            }
            opened => opened.map(|shelves| (shelves, false)),
        }
    }
}

/// A replay under way.
struct Replay<'a> {
    home: Home<'a>,
    cache_bytes: usize,
    /// Absent only while it is being opened again.
    catalog: Option<Catalog>,
    is_stand_in: bool,
    leftovers: Vec<u64>,
    view: View,
    uptime_ms: u64,
    warnings: Vec<String>,
    /// The log segment of the last large payload: the next one mostly lies there as well, and a
    /// descriptor for each would soon be all that a process may have.
    log: Option<(u64, Arc<dyn File>)>,
}

impl Replay<'_> {
    /// The file that holds the payload of this operation, if it stays there.
    fn log_of(&mut self, op: &Op) -> Result<Option<Arc<dyn File>>> {
        let Op::Put(record) = op else { return Ok(None) };
        let Payload::InLog(place) = &record.payload else { return Ok(None) };
        match &self.log {
            Some((number, file)) if *number == place.segment => Ok(Some(Arc::clone(file))),
            _ => {
                let file = wal::open_segment(&**self.home.disk, place.segment)?;
                self.log = Some((place.segment, Arc::clone(&file)));
                Ok(Some(file))
            }
        }
    }

    /// Carries the table into the archive. After a full disk it is not tried again.
    fn archive(&mut self) -> Result<()> {
        if self.home.read_only || self.is_stand_in || self.view.frozen.is_some() {
            return Ok(());
        }
        self.view.frozen = Some(Arc::new(std::mem::take(&mut self.view.active)));
        let first = self.archive_frozen();
        let outcome = match first {
            Err(error) if error.kind() == ErrorKind::Full => {
                Reserve::default().give_up(&**self.home.disk);
                self.revive()?;
                self.archive_frozen()
            }
            // A damaged page of the index is met here for the first time.
            Err(_) if self.catalog.as_ref().is_some_and(|catalog| catalog.rot().is_some()) => {
                self.revive()?;
                self.archive_frozen()
            }
            outcome => outcome,
        };
        match outcome {
            Err(error) if error.kind() == ErrorKind::Full => {
                self.revive()?;
                self.warnings.push(format!("the log was not archived and stays in RAM: {error}"));
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn archive_frozen(&mut self) -> Result<()> {
        let (Some(catalog), Some(_), false) = (&self.catalog, &self.view.frozen, self.is_stand_in)
        else {
            return Ok(());
        };
        let Home { disk, store_id, .. } = self.home;
        let ground = Ground { disk: &**disk, store_id, catalog };
        let (cold, _) = mover::archive(&ground, &self.view, self.uptime_ms)?;
        self.view.cold = Arc::new(cold);
        self.view.frozen = None;
        Ok(())
    }

    /// Opens a catalog again that failed: nothing else makes it answer.
    fn revive(&mut self) -> Result<()> {
        let failed = self.catalog.as_ref().is_none_or(|catalog| catalog.failure().is_some());
        if failed { self.open_again() } else { Ok(()) }
    }

    fn open_again(&mut self) -> Result<()> {
        // The old one first: two owners of one file would not know of each other's pages.
        let rotten = self.catalog.take().and_then(|catalog| catalog.rot());
        let (shelves, is_stand_in) = self.home.open(self.cache_bytes, rotten.as_ref())?;
        let Shelves { catalog, cold, leftovers, warnings } = shelves;
        if rotten.is_some() {
            self.warnings.extend(warnings);
        }
        let applied = Lsn(cold.catalog.meta(meta::APPLIED_LSN)?.unwrap_or(0));
        // Its segment may have been sealed, and is then applied by now; but what a stand-in applied
        // is not archived before the real one says so.
        self.view.frozen.take_if(|table| !is_stand_in && table.last() <= applied);
        self.view.cold = Arc::new(cold);
        self.catalog = Some(catalog);
        (self.is_stand_in, self.leftovers) = (is_stand_in, leftovers);
        Ok(())
    }
}

/// The view of a store whose log is empty.
fn view_of(cold: Cold) -> Result<View> {
    let cold = Arc::new(cold);
    let snapshot = &cold.catalog;
    let number = |name: &str| -> Result<Option<u64>> { snapshot.meta(name) };
    let next_collection = number(meta::NEXT_COLLECTION)?.unwrap_or(1);
    let mut view = View {
        lsn: Lsn(number(meta::APPLIED_LSN)?.unwrap_or(0)),
        active: MemTable::default(),
        frozen: None,
        collections: OrdMap::new(),
        names: OrdMap::new(),
        settings: OrdMap::new(),
        requests: snapshot.requests()?.collect::<Result<_>>()?,
        next_id: EntryId(number(meta::NEXT_ID)?.unwrap_or(1)),
        next_collection: CollectionId(u32::try_from(next_collection).unwrap_or(u32::MAX)),
        cold: Arc::clone(&cold),
        levels: Arc::default(),
        alive: Arc::new(()),
    };
    for (_, bytes) in snapshot.collections()? {
        view.apply_ledger(&mover::decode_stored(&bytes)?);
    }
    for (_, bytes) in snapshot.settings()? {
        view.apply_ledger(&mover::decode_stored(&bytes)?);
    }
    Ok(view)
}
