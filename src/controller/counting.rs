//! Counting: which bytes stand against the budget, and what of it is free.
//!
//! Everything that is resident because of the data is counted: records, codes, caches, directories, the index's
//! cache. Of the caches the codes of the archive are spare: whoever finds too much counted lets them go
//! first, so that they never start a run of the compressor, nor keep a write out.
//!
//! Never: waits for anybody, moves an entry.

use std::sync::atomic::Ordering;

use crate::controller::engine::Engine;
use crate::controller::piecing::PIECES_REST;
use crate::organs::catalog::Catalog;
use crate::pure::policy::{TARGET_SHARE, TRIGGER_SHARE};
use crate::tiers::View;
use crate::tiers::probe::Stores;

impl Engine {
    /// Bytes kept resident because of the data. Waits for nobody.
    pub fn counted_bytes(&self) -> u64 {
        let view = self.view.load();
        let [catalog, log, room] = &self.last_seen;
        if let Some(slot) = self.catalog.try_lock() {
            let stand_in = self.stand_in.lock().as_ref().map_or(0, Catalog::resident_bytes);
            let bytes = slot.as_ref().map_or(0, Catalog::resident_bytes) + stand_in;
            catalog.store(bytes, Ordering::Release);
            room.store(slot.as_ref().map_or(0, Catalog::room_bytes), Ordering::Release);
        }
        if let Some(slot) = self.wal.try_lock() {
            let bytes = slot.as_ref().map_or(0, |wal| wal.resident_bytes() as u64);
            log.store(bytes, Ordering::Release);
        }
        let queued = self.queue.lock().bytes;
        view.hot_bytes()
            + view.ledger_bytes()
            + view.cold.resident_bytes()
            + view.levels.bytes()
            + self.caches.bytes()
            + self.columns.resident_bytes()
            + self.moved.lock().resident_bytes()
            + catalog.load(Ordering::Acquire)
            + log.load(Ordering::Acquire)
            + queued
    }

    /// Bytes that the catalog's cache may still take, as of the last count.
    pub fn catalog_room_bytes(&self) -> u64 {
        let [.., room] = &self.last_seen;
        room.load(Ordering::Acquire)
    }

    /// Whether more than this share of the budget is counted, after what is spare made room.
    pub fn is_over(&self, share: f64) -> bool {
        self.is_over_with(0, share)
    }

    /// The same with so many bytes more.
    pub fn is_over_with(&self, bytes: u64, share: f64) -> bool {
        let most = (self.budget_bytes() as f64 * share) as u64;
        if self.counted_bytes() + bytes <= most {
            return false;
        }
        self.spare_down_to(most.saturating_sub(bytes));
        self.counted_bytes() + bytes > most
    }

    /// Lets go of what is spare until no more than this is counted, as far as it reaches.
    pub fn spare_down_to(&self, bytes_max: u64) {
        let over = self.counted_bytes().saturating_sub(bytes_max);
        if over > 0 && self.caches.pieces.bytes() > 0 {
            self.rest_pieces();
            self.caches.spare(over);
        }
    }

    /// The same at the end of a run, which holds for a while whatever searches want.
    pub fn spare_after_run(&self, bytes_max: u64) {
        self.rest_pieces();
        self.spare_down_to(bytes_max);
    }

    fn rest_pieces(&self) {
        *self.pieces_rest_until.lock() = self.clock.elapsed().saturating_add(PIECES_REST);
    }

    /// What is counted without what is spare.
    pub fn needed_bytes(&self) -> u64 {
        self.counted_bytes().saturating_sub(self.caches.pieces.bytes())
    }

    /// What a run of the compressor aims at.
    pub fn target_bytes(&self) -> u64 {
        (self.budget_bytes() as f64 * TARGET_SHARE) as u64
    }

    /// What is needed, with caches counted as if all that they may hold were there: sketches find every
    /// entry, and entries make room for them before a search asks; and a plan that went by what a cache
    /// holds just now would be followed by others that move a few entries each.
    pub(super) fn claimed_bytes(&self, view: &View) -> u64 {
        let claimed = self.caches.claimed_bytes(view, self.budget_bytes());
        self.needed_bytes() + claimed + self.catalog_room_bytes()
    }

    /// The caches of searches, with their shares of the budget; none gets what would start a run of
    /// the compressor. What is spare goes as far as its share is less than it has.
    pub fn stores(&self) -> Stores<'_> {
        let (budget, caches) = (self.budget_bytes(), &self.caches);
        let others = self.counted_bytes().saturating_sub(caches.bytes());
        let room = ((budget as f64 * TRIGGER_SHARE) as u64).saturating_sub(others);
        let claimed = caches.claimed_bytes(&self.view.load(), budget);
        let shares = caches.shares(budget, room, claimed);
        caches.pieces.shrink(shares.piece_bytes_max);
        Stores { caches, shares }
    }
}
