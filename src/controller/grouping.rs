//! Grouping: when the sketches of a collection are grouped into cells, and how cells come to count.
//!
//! Cells are made after a checkpoint and within a run of the compressor, as soon as a collection has
//! enough rows, and again when they miss too many of them (`tiers/grouper`): the same steps as for a
//! block of codes. The new file is on disk before anybody sees it, the view is exchanged, and only
//! then the old file goes. A failure costs time in searches, never an answer, so it is a warning.
//!
//! Never: makes two at once, or holds a reader up.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::controller::engine::Engine;
use crate::organs::arena::cells;
use crate::tiers::View;
use crate::tiers::grouper;
use crate::words::error::Result;
use crate::words::record::CollectionDef;

impl Engine {
    /// Starts a grouping if a collection has need of it: on the background thread, or here when there
    /// is none.
    pub fn group_if_due(&self) {
        if self.options.read_only || self.poison.is_set() || !self.grouping_is_due() {
            return;
        }
        if self.options.background {
            self.wake.notify(|wish| wish.group = true);
        } else {
            self.group();
        }
    }

    fn grouping_is_due(&self) -> bool {
        let view = self.view.load();
        view.collections.values().any(|def| self.has_need(&view, def))
    }

    fn has_need(&self, view: &View, def: &CollectionDef) -> bool {
        let cells = view.levels.cells.get(&def.id);
        let rows_min = self.options.cells_rows_min;
        grouper::is_due(&view.cold, def, cells.map(AsRef::as_ref), rows_min)
    }

    /// Groups what has need of it.
    pub fn group(&self) {
        let _one_at_a_time = self.maintenance.lock();
        // It may have been closed, and opened by somebody else, while this waited.
        if self.check_writable().is_ok() {
            self.group_all();
        }
    }

    /// The same for a caller that holds `maintenance`.
    pub(super) fn group_all(&self) {
        let view = self.view.load_full();
        let due: Vec<_> =
            view.collections.values().filter(|def| self.has_need(&view, def)).collect();
        for def in due {
            if let Err(error) = self.group_one(&view, def) {
                tracing::warn!(%error, "collection {} is searched without cells", def.name);
            }
        }
    }

    fn group_one(&self, view: &View, def: &CollectionDef) -> Result<()> {
        let number = self.next_block.fetch_add(1, Ordering::AcqRel);
        let made = grouper::group(&*self.disk, self.store_id, &view.cold, def, number)?;
        let Some(made) = made.map(Arc::new) else { return Ok(()) };
        self.written.arena.fetch_add(made.bytes(), Ordering::AcqRel);
        let old = view.levels.cells.get(&def.id);
        self.publish(|view| {
            let mut levels = (*view.levels).clone();
            levels.cells.insert(def.id, Arc::clone(&made));
            View { levels: Arc::new(levels), ..view.clone() }
        });
        self.caches.grouped(&made, old.map(|old| old.number()));
        if let Some(old) = old {
            // What stays is a stale copy, and goes with the next open.
            if let Err(error) = cells::remove(&*self.disk, old.number()) {
                tracing::warn!(%error, "a file of cells was left behind");
            }
        }
        Ok(())
    }
}
