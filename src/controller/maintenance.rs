//! Maintenance: checkpoint and vacuum, one at a time, beside readers and writers.
//!
//! Checkpoint: freeze (the active table becomes the frozen one, under the log's lock, so that no
//! batch is half in each), archive it (`tiers/mover`), publish the new archive without the frozen
//! table, then give the log's segments back. Writers go on into a fresh table meanwhile.
//!
//! If archiving fails, the frozen table stays frozen and readable, the log keeps its records, and
//! the next checkpoint archives the same table first; unless the segment was sealed and only the
//! catalog failed: then the segment is applied as an open would do it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::controller::commit::Request;
use crate::controller::engine::Engine;
use crate::controller::stage::Step;
use crate::organs::catalog::Catalog;
use crate::organs::wal::Wal;
use crate::organs::{archive, columns, reserve};
use crate::tiers::View;
use crate::tiers::cold::{Cold, ColdSegment};
use crate::tiers::hot::MemTable;
use crate::tiers::mover::{self, Ground, Moved, meta};
use crate::verbs::recovery::{self, Shelves};
use crate::verbs::vacuum::{self, Damaged, Ran, VacuumReport};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::Lsn;
use crate::words::options::Durability;
use crate::words::safeguard::Safeguard;

/// Small segments that may stand beside each other under a budget that presses: some 20 KB of
/// directories.
const SMALL_SEGMENTS_MAX: usize = 32;

/// What a checkpoint did.
///
/// ```
/// # use pmll::{Draft, Store};
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::open(dir.path().join("memory"))?;
/// store.collection("notes")?.put("a", Draft::text("one"))?;
/// let report = store.checkpoint()?;
/// assert_eq!(report.entries, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// Entries carried from the log into the archive.
    pub entries: u64,
    /// Tombstones carried along.
    pub tombstones: u64,
    /// Bytes of archive segments written.
    pub bytes: u64,
    /// Number of the last segment written; `None` when there was nothing to do.
    pub segment: Option<u64>,
}

impl Engine {
    /// Whether enough is unarchived that a checkpoint should start: half of what may be.
    pub(super) fn checkpoint_is_due(&self) -> bool {
        self.is_unarchived(self.log_bytes_max() / 2)
    }

    /// Whether so many bytes are unarchived.
    pub(super) fn is_unarchived(&self, bytes: u64) -> bool {
        self.view.load().hot_bytes() >= bytes || self.log_bytes.load(Ordering::Acquire) >= bytes
    }

    /// Starts a checkpoint if one is due: on the background thread, or here when there is none.
    pub fn checkpoint_if_due(&self) {
        if self.options.read_only || self.poison.is_set() || !self.checkpoint_is_due() {
            return;
        }
        if self.options.background {
            self.wake.notify(|wish| wish.due = true);
        } else if let Err(error) = self.checkpoint() {
            self.note_checkpoint_error(error);
        }
    }

    /// Carries everything the log holds into the archive, and sees to the budget afterwards: what was
    /// the log's stays in RAM, as Level 0.
    pub fn checkpoint(&self) -> Result<CheckpointReport> {
        let report = self.archive_all()?;
        self.compress_if_due();
        self.group_if_due();
        Ok(report)
    }

    /// Carries everything the log holds into the archive.
    pub fn archive_all(&self) -> Result<CheckpointReport> {
        self.with_reserve(|| self.try_archive_all())
    }

    /// Runs what makes room; on a full disk once more, with the bytes of the reserve.
    pub fn with_reserve<T>(&self, run: impl Fn() -> Result<T>) -> Result<T> {
        match run() {
            Err(error) if error.kind() == ErrorKind::Full => {
                self.give_up_reserve();
                run()
            }
            other => other,
        }
    }

    /// Gives the bytes that are kept for a full disk to whoever is to make room on it.
    pub fn give_up_reserve(&self) {
        self.give_up_spares();
        self.reserve.give_up(&*self.disk);
    }

    /// Lets go of the log's spare files. Answers whether there were any.
    fn give_up_spares(&self) -> bool {
        self.wal.lock().as_mut().is_some_and(Wal::give_up_spares)
    }

    /// Makes the reserve again before anything is written that makes the store larger. Errors with
    /// `Full`; what else may keep the file from being made keeps no write out.
    pub fn keep_reserve(&self) -> Result<()> {
        let log_bytes = self.log_bytes.load(Ordering::Acquire);
        let ensure = || self.reserve.ensure(&*self.disk, reserve::bytes_for(log_bytes));
        let mut kept = ensure();
        if kept.as_ref().is_err_and(|e| e.kind() == ErrorKind::Full) && self.give_up_spares() {
            kept = ensure();
        }
        match kept {
            Err(error) if error.kind() != ErrorKind::Full => {
                tracing::warn!(%error, "no reserve is kept for a full disk");
                Ok(())
            }
            kept => kept,
        }
    }

    fn try_archive_all(&self) -> Result<CheckpointReport> {
        let _one_at_a_time = self.maintenance.lock();
        // It may have been closed, and opened by somebody else, while this waited.
        self.check_writable()?;
        self.revive_catalog()?;
        let mut report = CheckpointReport::default();
        // What a failed checkpoint left frozen comes first. What is written while this runs waits for the
        // next one: it would be a segment and a commit of the index for a handful of entries.
        let mut has_rest = self.view.load().frozen.is_some();
        while let Some(view) = self.freeze()? {
            let moved = self.archive(&view)?;
            report.entries += moved.entries;
            report.tombstones += moved.tombstones;
            report.bytes += moved.bytes;
            report.segment = moved.segment.or(report.segment);
            if !std::mem::take(&mut has_rest) {
                break;
            }
        }
        self.save_columns();
        if report.segment.is_some() {
            self.settle_keys();
        }
        Ok(report)
    }

    /// Saves the columns when what is new in them takes more than a sixty-fourth of the budget: a
    /// process that only reads makes no checkpoint that would do it.
    pub fn save_columns_if_due(&self) {
        if ((self.columns.fresh_rows() * columns::MAP_ROW_BYTES) as u64) < self.budget_bytes() / 64
        {
            return;
        }
        if self.options.background {
            self.wake.notify(|wish| wish.columns = true);
        } else {
            self.save_columns();
        }
    }

    /// Saves the columns. Soft state: losing it costs rank only, so a failure is no error.
    pub fn save_columns(&self) {
        if let Err(error) = self.columns.checkpoint() {
            self.warn(format!("access counts were not saved: {error}"));
        }
    }

    /// The view to archive: with the table that is frozen already, or that this call freezes.
    fn freeze(&self) -> Result<Option<Arc<View>>> {
        // The log's lock keeps leaders out, so the active table is whole.
        let wal = self.wal.lock();
        if wal.is_none() {
            return Err(Error::new(ErrorKind::Closed, "the store is closed"));
        }
        let current = self.view.load_full();
        if current.frozen.is_some() {
            return Ok(Some(current));
        }
        if current.active.is_empty() {
            return Ok(None);
        }
        self.publish(|view| View {
            frozen: Some(Arc::new(view.active.clone())),
            active: MemTable::default(),
            ..view.clone()
        });
        Ok(Some(self.view.load_full()))
    }

    fn archive(&self, view: &View) -> Result<Moved> {
        let (cold, moved) =
            self.with_ground(|ground| mover::archive(ground, view, self.uptime_ms()))?;
        let cold = Arc::new(cold);
        let table = view.frozen.clone();
        let before = self.view.load_full();
        self.publish(|view| {
            let mut levels = (*view.levels).clone();
            levels.take_over(table.as_deref());
            levels.retain(|collection| view.collections.contains_key(&collection));
            let (cold, levels) = (Arc::clone(&cold), Arc::new(levels));
            View { frozen: None, cold, levels, ..view.clone() }
        });
        self.sweep_cells(&before);
        self.written.archive.fetch_add(moved.bytes, Ordering::AcqRel);
        let applied = view.frozen.as_ref().map_or(view.lsn, |table| table.last());
        self.reclaim_log(applied)?;
        Ok(moved)
    }

    /// Lets the log go of what the archive and a committed catalog hold.
    fn reclaim_log(&self, applied: Lsn) -> Result<()> {
        if let Some(wal) = self.wal.lock().as_mut() {
            wal.reclaim(applied).inspect_err(|e| {
                if e.kind() != ErrorKind::Full {
                    self.poison.set(e);
                }
            })?;
            self.log_bytes.store(wal.unapplied_bytes(), Ordering::Release);
        }
        self.room.notify();
        Ok(())
    }

    /// Lets the log go of what it held before and keeps files of for use again, what was deleted among it.
    fn forget_log(&self) -> Result<()> {
        let mut wal = self.wal.lock();
        let Some(wal) = wal.as_mut().filter(|_| !Safeguard::LogForget.is_off()) else {
            return Ok(());
        };
        wal.forget_old().inspect_err(|e| {
            if wal.is_poisoned() {
                self.poison.set(e);
            }
        })
    }

    /// Runs something that needs the catalog; the caller holds `maintenance`, and has revived the
    /// catalog before it looked at the view.
    pub(super) fn with_ground<T>(&self, run: impl FnOnce(&Ground<'_>) -> Result<T>) -> Result<T> {
        let outcome = self.on_ground(run);
        if outcome.is_err()
            && let Err(error) = self.revive_catalog()
        {
            tracing::warn!(%error, "the index could not be opened again");
        }
        outcome
    }

    fn on_ground<T>(&self, run: impl FnOnce(&Ground<'_>) -> Result<T>) -> Result<T> {
        let catalog = self.catalog.lock();
        let catalog =
            catalog.as_ref().ok_or_else(|| Error::new(ErrorKind::Closed, "the store is closed"))?;
        run(&Ground { disk: &*self.disk, store_id: self.store_id, catalog })
    }

    /// redb answers nothing any more after a failed call. Opening the catalog again brings reads
    /// back and lets the next checkpoint try. What became of the transaction that failed, and of the
    /// segment it was to list, is found out as at every open. One that failed because it is damaged
    /// is made anew from the archive.
    ///
    /// While the disk does not let it be opened for writing, a stand-in that never writes answers
    /// the readers. The caller holds `maintenance`.
    fn revive_catalog(&self) -> Result<()> {
        let mut slot = self.catalog.lock();
        let failure = slot.as_ref().and_then(Catalog::failure);
        let whole = slot.is_some() && failure.is_none();
        if whole || self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        let rotten = slot.as_ref().and_then(Catalog::rot);
        // The old one first: two owners of one file would not know of each other's pages.
        drop(slot.take());
        let recover = |read_only| {
            let cache_bytes = self.catalog_cache_bytes();
            let rotten = rotten.as_ref();
            recovery::recover_archive(&self.disk, self.store_id, read_only, cache_bytes, rotten)
        };
        let shelves = match recover(self.options.read_only) {
            Ok(shelves) => shelves,
            Err(error) => {
                let Shelves { catalog, cold, .. } = recover(true).map_err(|_| error.clone())?;
                let cold = Arc::new(cold);
                // The frozen table stays: it is not archived before the real catalog says so.
                self.publish(|view| View { cold: Arc::clone(&cold), ..view.clone() });
                *self.stand_in.lock() = Some(catalog);
                return Err(error);
            }
        };
        let Shelves { catalog, cold, leftovers, warnings } = shelves;
        let applied = Lsn(cold.catalog.meta(meta::APPLIED_LSN)?.unwrap_or(0));
        let cold = Arc::new(cold);
        self.publish(|view| {
            let (done, frozen) = match view.frozen.clone() {
                Some(table) if table.last() <= applied => (Some(table), None),
                frozen => (None, frozen),
            };
            let mut levels = (*view.levels).clone();
            levels.take_over(done.as_deref());
            View { frozen, cold: Arc::clone(&cold), levels: Arc::new(levels), ..view.clone() }
        });
        *slot = Some(catalog);
        drop(slot);
        self.stand_in.lock().take();
        *self.leftovers.lock() = leftovers;
        warnings.into_iter().for_each(|warning| self.warn(warning));
        if self.poison.is_set() { Ok(()) } else { self.reclaim_log(applied) }
    }

    /// Has a broken index opened again, or made anew: on the background thread, or here when there is
    /// none and nobody is at work on it. From its first failure on it answers nothing. Whoever it
    /// failed has tried to open it again; this is for damage that a reader met, and for a disk that
    /// failed a second time on the way back.
    pub fn heal_if_broken(&self) {
        if !self.view.load().cold.catalog.is_broken() {
            return;
        }
        if self.options.background && !self.options.read_only {
            self.wake.notify(|wish| wish.heal = true);
        } else if let Some(_one_at_a_time) = self.maintenance.try_lock() {
            self.revive_or_note();
        }
    }

    /// Opens a broken index again, or makes it anew.
    pub fn heal(&self) {
        let _one_at_a_time = self.maintenance.lock();
        self.revive_or_note();
    }

    fn revive_or_note(&self) {
        if let Err(error) = self.revive_catalog() {
            tracing::warn!(%error, "the index could not be made anew");
        }
    }

    /// Gives dead bytes back to the disk, in steps of bounded size. Goes round segments that are
    /// damaged or cannot be read; with the latter it errors at the end.
    pub fn vacuum(&self) -> Result<VacuumReport> {
        self.checkpoint()?;
        let report = VacuumReport { expired: self.bury_expired()?, ..VacuumReport::default() };
        if report.expired > 0 {
            self.checkpoint()?;
        }
        self.forget_log()?;
        self.give_back(report)
    }

    /// The same without a look at what has expired, for a disk that is full: nothing is removed that the
    /// caller did not remove.
    pub fn give_back(&self, mut report: VacuumReport) -> Result<VacuumReport> {
        let _one_at_a_time = self.maintenance.lock();
        self.check_writable()?;
        self.revive_catalog()?;
        vacuum::count(&self.view.load().cold, |segments, bytes| {
            report.segments_before = segments;
            report.bytes_before = bytes;
        });
        let mut damaged = Damaged::new();
        report.rows_moved = match self.merge(&vacuum::plan, &mut damaged) {
            Err(error) if error.kind() == ErrorKind::Full => {
                self.give_up_reserve();
                self.revive_catalog()?;
                self.merge(&vacuum::thrifty, &mut damaged)?
            }
            moved => moved?,
        };
        report.damaged = damaged.len() as u64;
        let known = self.warnings();
        let told = damaged.values().map(|error| format!("left as it is by vacuum: {error}"));
        told.filter(|told| !known.contains(told)).for_each(|told| self.warn(told));
        vacuum::count(&self.view.load().cold, |segments, bytes| {
            report.segments_after = segments;
            report.bytes_after = bytes;
        });
        // The others are done. But what the disk could not read it may read the next time, which
        // damage never is.
        let unread = damaged.into_values().find(|error| error.kind() == ErrorKind::Io);
        unread.map_or(Ok(report), Err)
    }

    /// Merges small segments when many have gathered; the caller holds `maintenance`.
    pub fn merge_small(&self) -> Result<()> {
        let mut damaged = Damaged::new();
        let plan =
            |cold: &Cold, damaged: &mut Damaged| vacuum::small(cold, SMALL_SEGMENTS_MAX, damaged);
        self.merge(&plan, &mut damaged)?;
        for error in damaged.values() {
            tracing::warn!(%error, "a damaged archive segment was not merged");
        }
        Ok(())
    }

    /// Merges what `plan` names, step by step, until it names nothing. Answers the rows moved.
    fn merge(
        &self,
        plan: &dyn Fn(&Cold, &mut Damaged) -> Vec<Arc<ColdSegment>>,
        damaged: &mut Damaged,
    ) -> Result<u64> {
        let mut rows = 0;
        self.sweep()?;
        loop {
            let view = self.view.load_full();
            let plan = plan(&view.cold, damaged);
            // Closing waits for one step, not for all of them.
            if plan.is_empty() || self.queue.lock().closed {
                return Ok(rows);
            }
            let ran = self.with_ground(|ground| vacuum::run(ground, &view, &plan))?;
            let (cold, step) = match ran {
                Ran::Merged(cold, step) => (cold, step),
                Ran::Damaged(number, error) => {
                    damaged.insert(number, error);
                    continue;
                }
            };
            self.publish(|view| View { cold: Arc::clone(&cold), ..view.clone() });
            self.caches.retain(|segment| cold.segments.contains_key(&segment));
            self.written.archive.fetch_add(step.bytes, Ordering::AcqRel);
            rows += step.rows;
            // Only now: the catalog that names their replacement is on disk.
            self.leftovers.lock().extend(step.superseded);
            self.sweep()?;
        }
    }

    /// Removes the files of superseded segments, each durably. Nothing is merged while one of them
    /// stays: the segment that says that it does not count must not go before it.
    fn sweep(&self) -> Result<()> {
        let mut outcome = Ok(());
        self.leftovers.lock().retain(|number| match archive::remove(&*self.disk, *number) {
            Ok(()) => false,
            Err(error) => {
                outcome = Err(error);
                true
            }
        });
        outcome
    }

    /// Removes entries whose time passed at least the grace ago, seen on the monotonic clock.
    fn bury_expired(&self) -> Result<u64> {
        let ripe = {
            let _one_at_a_time = self.maintenance.lock();
            self.revive_catalog()?;
            let view = self.view.load_full();
            self.with_ground(|ground| {
                vacuum::ripe(ground, &view, self.clock.now(), self.uptime_ms())
            })?
        };
        let mut buried = 0;
        for chunk in ripe.chunks(1024) {
            let steps: Vec<Step> = chunk
                .iter()
                .map(|(path, version)| Step::Expire { path: path.clone(), version: *version })
                .collect();
            buried += steps.len() as u64;
            let durability = Durability::Sync;
            // Not `write`: on a full disk that would come back here.
            self.see_through(Request { steps, durability, deadline: None, bytes: 0 })?;
        }
        Ok(buried)
    }
}
