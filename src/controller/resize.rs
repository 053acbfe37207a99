//! Resize: the catalog's cache follows the budget down.
//!
//! redb takes the size of its page cache at its opening, so a cache that is too large for a smaller
//! budget goes by opening the catalog again. Readers go on meanwhile:
//! 1. a stand-in that never writes opens the same file, as of the last commit, and gets the readers;
//! 2. who still looks through the old one is waited for; then it closes, and opens small;
//! 3. the new one gets the readers, and the stand-in goes when the last of its own is done.
//!
//! If readers take too long, or the disk fails, everything stays as it is: the cache counts against
//! the budget, and the next open has the right size.
//!
//! Never: runs beside a checkpoint, changes a byte.

use std::sync::Arc;

use crate::controller::engine::Engine;
use crate::tiers::View;
use crate::tiers::cold::Cold;
use crate::verbs::recovery::{self, Shelves};
use crate::words::error::Result;

impl Engine {
    /// Makes the catalog's cache smaller if the budget asks for less than half of it.
    pub fn fit_catalog(&self) -> Result<()> {
        let _one_at_a_time = self.maintenance.lock();
        self.check_writable()?;
        let wanted = self.catalog_cache_bytes();
        let mut slot = self.catalog.lock();
        let fits =
            slot.as_ref().is_none_or(|c| c.cache_bytes() / 2 <= wanted || c.failure().is_some());
        if fits {
            return Ok(());
        }
        let before = Arc::clone(&self.view.load().cold);
        let recover = |read_only| {
            recovery::recover_archive(&self.disk, self.store_id, read_only, wanted, None)
        };
        let Shelves { catalog: stand_in, cold, .. } = recover(true)?;
        self.show(Arc::new(cold));
        if !self.outlasts_readers() {
            self.show(before);
            self.outlasts_readers();
            return Ok(());
        }
        *self.stand_in.lock() = Some(stand_in);
        if let Some(catalog) = slot.take() {
            catalog.close()?;
        }
        // What fails from here on, the next checkpoint mends: it finds no catalog and opens one.
        let Shelves { catalog, cold, .. } = recover(false)?;
        self.show(Arc::new(cold));
        *slot = Some(catalog);
        drop(slot);
        self.outlasts_readers();
        self.stand_in.lock().take();
        Ok(())
    }

    fn show(&self, cold: Arc<Cold>) {
        self.publish(|view| View { cold: Arc::clone(&cold), ..view.clone() });
    }
}
