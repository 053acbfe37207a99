//! Refill: after an open, Level 0 gets back what belongs there.
//!
//! Which entries are hot is kept on disk, their exact copies are not. The background thread reads
//! them back, some at a time and its other work in between, until the target is reached. Meanwhile
//! they answer from the archive, as right as ever.
//!
//! Never: brings up what a run has let go of in between, or stops at an entry that is damaged.

use std::sync::Arc;

use crate::controller::engine::Engine;
use crate::tiers::View;
use crate::tiers::levels::Levels;
use crate::words::error::Result;
use crate::words::id::EntryId;

/// Entries of one turn.
const REFILL_ENTRIES: usize = 256;

impl Engine {
    /// Reads back into RAM some of what is hot and is not there, as after an open, no further than
    /// the target. True when more may follow: a turn is short, so that checkpoints and closing get
    /// theirs.
    pub fn refill(&self) -> bool {
        let mut from = self.refilled_to.lock();
        let hot = Arc::clone(&self.view.load().levels.hot);
        let mut ids = hot.iter();
        ids.advance_to(*from);
        let ids: Vec<u64> = ids.take(REFILL_ENTRIES).collect();
        let Some(last) = ids.last() else { return false };
        *from = last.saturating_add(1);
        self.refill_some(&ids)
    }

    /// False when the target is reached, or the store is closing.
    fn refill_some(&self, ids: &[u64]) -> bool {
        let _one_at_a_time = self.maintenance.lock();
        if self.queue.lock().closed || self.check_writable().is_err() {
            return false;
        }
        let view = self.view.load_full();
        let mut levels = (*view.levels).clone();
        let room = self.target_bytes().saturating_sub(self.needed_bytes()) + levels.hot_bytes();
        let mut fits = true;
        for id in ids.iter().map(|id| EntryId(*id)) {
            // A run in between may have let it go.
            if view.shadows(id) || !levels.hot.contains(id.0) {
                continue;
            }
            fits = levels.hot_bytes() < room;
            if !fits {
                break;
            }
            match refill_one(&view, &mut levels, id) {
                Ok(()) => {}
                // It answers from the archive, or says there what is wrong.
                Err(error) => tracing::warn!(%error, "hot entry {id} is not back in RAM"),
            }
        }
        let levels = Arc::new(levels);
        self.publish(|view| View { levels: Arc::clone(&levels), ..view.clone() });
        self.spare_down_to(self.target_bytes());
        fits
    }
}

fn refill_one(view: &View, levels: &mut Levels, id: EntryId) -> Result<()> {
    if let Some(row) = view.cold.row(id)?
        && levels.resident(id, row.row.version).is_none()
    {
        levels.keep(&Arc::new(row.record()?));
    }
    Ok(())
}
