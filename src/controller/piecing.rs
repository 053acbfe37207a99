//! Piecing: who makes the pieces of the archive that searches want.
//!
//! The background thread, a few for each search that has wanted some: so much is read behind a search as searches are
//! made, and its other work comes in between. Where there is none, each search makes one after it has its answer, if
//! that is read without a wait. No lock is held: pieces are made of sealed segments, and whoever lets a segment go lets
//! its pieces go.
//!
//! Never: writes anything, or starts a run of the compressor.

use crate::controller::engine::Engine;
use crate::verbs::search;

/// Pieces for a search: half a megabyte is read for each, which takes a slow disk some 30 ms.
pub const PIECES_A_SEARCH: usize = 4;

impl Engine {
    /// Sees to it that what searches want gets made.
    pub fn make_pieces_if_wanted(&self) {
        if !self.caches.wanted.is_any() {
            return;
        }
        if self.options.background && !self.options.read_only {
            self.wake.notify(|wish| wish.pieces = true);
        } else {
            self.make_pieces(1, false);
        }
    }

    /// Makes so many of the pieces that are wanted, if there are so many. `may_wait` says whether the disk may be
    /// waited for.
    pub fn make_pieces(&self, at_most: usize, may_wait: bool) {
        let wanted = &self.caches.wanted;
        for _ in 0..at_most {
            if self.queue.lock().closed {
                return;
            }
            let Some(key) = wanted.take() else { return };
            let view = self.view.load_full();
            search::make_piece(&view.cold, &self.stores(), &key, may_wait);
            wanted.done(&key);
            // It may have gone meanwhile.
            let view = self.view.load();
            if !view.cold.segments.contains_key(&key.0.segment) {
                self.caches.pieces.retain(|of| view.cold.segments.contains_key(&of.segment));
            }
        }
    }
}
