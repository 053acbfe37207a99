//! Settling: the index moves keys that came lately to where they stay, behind a checkpoint.
//!
//! 1. The index says whether that pays by now, and how many at once (`organs/catalog/keys`).
//! 2. Each stretch is a commit of its own. After it readers get a snapshot in which its rows have moved: the
//!    pages that they left are free once nobody looks at the index as it was.
//! 3. It ends when all are moved; and before that when a close waits, or when three quarters of what may be
//!    unarchived are, so that no writer waits for it. What is left stays due.
//!
//! No part of the checkpoint before it: a failure is no error of that one, and what was not moved is
//! found where it is.
//!
//! Never: changes what the index answers.

use std::sync::Arc;

use crate::controller::engine::Engine;
use crate::tiers::View;
use crate::tiers::cold::Cold;
use crate::words::error::Result;

impl Engine {
    /// See the file's story. The caller holds `maintenance`, as whoever changes the archive of a view does.
    pub(super) fn settle_keys(&self) {
        if let Err(error) = self.try_settle_keys() {
            tracing::warn!(%error, "the index did not move keys that came lately");
        }
    }

    fn try_settle_keys(&self) -> Result<()> {
        let due = self.with_ground(|ground| ground.catalog.rows_to_settle())?;
        let (Some(rows), mut left) = (due, 1) else { return Ok(()) };
        let full = self.log_bytes_max() / 4 * 3;
        let may_go_on = || !self.queue.lock().closed && !self.is_unarchived(full);
        while left > 0 && may_go_on() {
            let catalog = self.with_ground(|ground| {
                left = ground.catalog.settle_some(rows)?;
                ground.catalog.snapshot()
            })?;
            let segments = self.view.load().cold.segments.clone();
            let cold = Arc::new(Cold { catalog, segments });
            self.publish(|view| View { cold: Arc::clone(&cold), ..view.clone() });
        }
        Ok(())
    }
}
