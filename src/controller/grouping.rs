//! Grouping: when the sketches of a collection are grouped into cells, and how cells come to count.
//!
//! Cells are made after a checkpoint and after a run of the compressor, as soon as a collection has
//! enough rows, and again when they miss a quarter of them; at the end of a run that somebody asked for, and on
//! the same thread, when they miss a thirty-second (`tiers/grouper`). The new file is on disk before
//! anybody sees it, the view is exchanged, and only then the old file goes. A failure costs time in
//! searches, never an answer, so it is a warning, and is not tried again until a collection has grown by
//! an eighth.
//!
//! A large collection takes seconds. What is grouped are sealed segments, so no lock is held meanwhile but
//! that of grouping itself; a checkpoint that comes due is made in between, and closing ends it.
//!
//! Cells say where each row is, in RAM: where that takes more than an eighth of the budget there are none.
//!
//! Never: makes two at once, or holds a reader or a writer up.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::controller::engine::Engine;
use crate::organs::arena::cells::{self, Cells};
use crate::pure::policy::{Policy, TRIGGER_SHARE};
use crate::tiers::View;
use crate::tiers::grouper::{self, Missed};
use crate::words::error::Result;
use crate::words::record::CollectionDef;

/// What cells keep in RAM may take this part of the budget.
const CELLS_PART: u64 = 8;

/// Whether a budget has room for what cells keep in RAM.
pub fn fit(resident_bytes: u64, budget_bytes: u64) -> bool {
    resident_bytes <= budget_bytes / CELLS_PART
}

impl Engine {
    /// Starts a grouping if a collection has need of it: on the background thread, or here when there
    /// is none.
    pub fn group_if_due(&self) {
        if self.options.background {
            if !self.options.read_only && self.grouping_is_due(Missed::Much) {
                self.wake.notify(|wish| wish.group = true);
            }
        } else {
            self.group(Missed::Much);
        }
    }

    fn grouping_is_due(&self, missed: Missed) -> bool {
        let view = self.view.load();
        view.collections.values().any(|def| self.has_need(&view, def, missed))
    }

    fn has_need(&self, view: &View, def: &CollectionDef, missed: Missed) -> bool {
        let cells = view.levels.cells.get(&def.id).filter(|cells| !cells.is_broken());
        let rows_min = self.options.cells_rows_min;
        let due = grouper::is_due(&view.cold, def, cells.map(AsRef::as_ref), rows_min, missed);
        let Some(rows) = due else { return false };
        let tried = self.grouped.lock().get(&def.id).copied();
        tried.is_none_or(|tried| rows.abs_diff(tried) > tried / 8)
            && fit(grouper::resident_bytes(def, rows), self.budget_bytes())
    }

    /// Groups what has need of it, unless somebody is at it.
    pub fn group(&self, missed: Missed) {
        if self.options.read_only || self.poison.is_set() || !self.grouping_is_due(missed) {
            return;
        }
        let Some(_one_at_a_time) = self.grouping.try_lock() else { return };
        // It may have been closed, and opened by somebody else, before this began.
        if self.check_writable().is_err() {
            return;
        }
        let view = self.view.load_full();
        let due: Vec<_> =
            view.collections.values().filter(|def| self.has_need(&view, def, missed)).collect();
        for def in due {
            if let Some(rows) = grouper::is_due(&view.cold, def, None, 0, missed) {
                self.grouped.lock().insert(def.id, rows);
            }
            // The archive as it is by now.
            let view = self.view.load_full();
            if let Err(error) = self.group_one(&view, def, missed) {
                tracing::warn!(%error, "collection {} is searched without cells", def.name);
            }
        }
    }

    fn group_one(&self, view: &View, def: &CollectionDef, missed: Missed) -> Result<()> {
        let number = self.next_block.fetch_add(1, Ordering::AcqRel);
        let stop = || self.stops_grouping();
        let made = grouper::group(&*self.disk, self.store_id, &view.cold, def, number, &stop)?;
        let Some(made) = made.map(Arc::new) else { return Ok(()) };
        self.written.arena.fetch_add(made.bytes(), Ordering::AcqRel);
        let before = {
            // Every change of the levels is made under this lock.
            let _alone = self.maintenance.lock();
            self.check_writable()?;
            let before = self.view.load_full();
            self.publish(|view| {
                let mut levels = (*view.levels).clone();
                if view.collections.contains_key(&def.id) {
                    levels.cells.insert(def.id, Arc::clone(&made));
                }
                View { levels: Arc::new(levels), ..view.clone() }
            });
            before
        };
        self.spare_down_to((self.budget_bytes() as f64 * TRIGGER_SHARE) as u64);
        // What damaged codes keep out stays out: no reason to make the same cells with every run.
        let rows_min = self.options.cells_rows_min;
        if grouper::is_due(&view.cold, def, Some(&made), rows_min, missed).is_none() {
            self.grouped.lock().remove(&def.id);
        }
        self.caches.grouped(&made);
        self.sweep_cells(&before);
        let counts = |view: &View| view.levels.cells.values().any(|c| c.number() == made.number());
        if !counts(&self.view.load()) {
            // The collection was dropped meanwhile.
            cells::remove(&*self.disk, made.number())?;
        }
        Ok(())
    }

    /// Whether a grouping is to end. Asked every few milliseconds of one, it writes what was submitted and
    /// makes the checkpoint that came due meanwhile: the thread that would do so may be this one.
    fn stops_grouping(&self) -> bool {
        let (closed, is_waited_for) = {
            let queue = self.queue.lock();
            (queue.closed, queue.waits())
        };
        if closed || self.poison.is_set() {
            return true;
        }
        if is_waited_for {
            self.drain();
        }
        if self.checkpoint_is_due() {
            let archived = self.archive_all().map(drop);
            let done = archived.and_then(|()| match self.is_over(TRIGGER_SHARE) {
                true => self.run(Policy::Watermark).map(drop),
                false => Ok(()),
            });
            if let Err(error) = done {
                self.note_checkpoint_error(error);
                return true;
            }
        }
        false
    }

    /// Lets cells go that the budget has no room for.
    pub fn fit_cells(&self) {
        let budget = self.budget_bytes();
        let fits = |cells: &Cells| fit(cells.resident_bytes(), budget);
        if self.view.load().levels.cells.values().all(|cells| fits(cells)) {
            return;
        }
        let _alone = self.maintenance.lock();
        // It may have been closed, and opened by somebody else, while this waited.
        if self.check_open().is_err() {
            return;
        }
        let before = self.view.load_full();
        self.publish(|view| {
            let mut levels = (*view.levels).clone();
            levels.cells.retain(|_, cells| fits(cells));
            View { levels: Arc::new(levels), ..view.clone() }
        });
        self.sweep_cells(&before);
    }

    /// Lets go of the cells that `before` had and the view has no more: of bodies in RAM, and of files.
    pub fn sweep_cells(&self, before: &View) {
        let view = self.view.load_full();
        let lives = |number: &u64| view.levels.cells.values().any(|c| c.number() == *number);
        self.caches.cells.retain(lives);
        if self.options.read_only {
            return;
        }
        for old in before.levels.cells.values().map(|cells| cells.number()).filter(|n| !lives(n)) {
            // What stays is a stale copy, and goes with the next open.
            if let Err(error) = cells::remove(&*self.disk, old) {
                tracing::warn!(%error, "a file of cells was left behind");
            }
        }
    }
}
