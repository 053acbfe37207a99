//! Piecing: who makes the pieces of the archive that searches want.
//!
//! The background thread, a few for each search that has wanted some: so much is read behind a search as searches are
//! made, and its other work comes in between. Where there is none, each search makes one after it has its answer, if
//! that is read without a wait. No lock is held: pieces are made of sealed segments, and whoever lets a segment go lets
//! its pieces go.
//!
//! Where pieces had to go for a run of the compressor, for entries that come up, or for a write, the thread lets a
//! second pass before it makes others: while runs follow each other all that it made would go with the next one, and on
//! two cores searches waited for it. (What a search lets go of, because its caches have less of a share than before,
//! would have no room either.)
//!
//! Never: writes anything, or starts a run of the compressor.

use std::time::Duration;

use crate::controller::engine::Engine;
use crate::verbs::search;

/// Pieces for a search: half a megabyte is read for each, which takes a slow disk some 30 ms.
pub const PIECES_A_SEARCH: usize = 4;

/// So long the background thread makes no pieces when some had to go, by the monotonic clock. A run of the
/// compressor that packs 64,287 entries takes a tenth of it.
pub const PIECES_REST: Duration = Duration::from_secs(1);

impl Engine {
    /// Sees to it that what searches want gets made.
    pub fn make_pieces_if_wanted(&self) {
        if !self.caches.wanted.is_any() {
            return;
        }
        if !self.options.background || self.options.read_only {
            self.make_pieces(1, false);
        } else if self.have_pieces_rested() {
            self.wake.notify(|wish| wish.pieces = true);
        }
    }

    /// Whether no piece had to go lately.
    pub fn have_pieces_rested(&self) -> bool {
        self.clock.elapsed() >= *self.pieces_rest_until.lock()
    }

    /// Makes so many of the pieces that are wanted, if there are so many. `may_wait` says whether the disk may be
    /// waited for.
    pub fn make_pieces(&self, at_most: usize, may_wait: bool) {
        let wanted = &self.caches.wanted;
        for _ in 0..at_most {
            // Whoever may wait is the background thread. What is wanted stays wanted: a later search says so again.
            if self.queue.lock().closed || may_wait && !self.have_pieces_rested() {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::io::MemoryDisk;
    use crate::tiers::GroupKey;
    use crate::tiers::pieces::Piece;
    use crate::words::clock::Clock;
    use crate::words::id::Timestamp;
    use crate::words::options::Options;

    #[derive(Debug, Default)]
    struct Hands(Mutex<Duration>);

    impl Clock for Hands {
        fn now(&self) -> Timestamp {
            Timestamp(0)
        }

        fn elapsed(&self) -> Duration {
            *self.0.lock()
        }
    }

    fn open(background: bool) -> (Arc<Engine>, Arc<Hands>) {
        let clock = Arc::new(Hands::default());
        let options = Options { background, ..Options::default() };
        let told: Arc<dyn Clock> = clock.clone();
        (Engine::open(Arc::new(MemoryDisk::new()), told, options).unwrap(), clock)
    }

    const KEY: GroupKey = GroupKey { segment: 1, group: 0 };

    #[test]
    fn what_had_to_go_is_not_made_again_at_once() {
        let (engine, clock) = open(false);
        assert!(engine.have_pieces_rested());
        // Nothing goes where there is nothing, or where there is room.
        engine.spare_down_to(0);
        assert!(engine.have_pieces_rested());
        engine.caches.pieces.add(&KEY, 0, Piece::default(), u64::MAX);
        engine.spare_down_to(u64::MAX);
        assert!(engine.have_pieces_rested() && engine.caches.pieces.bytes() > 0);
        engine.spare_down_to(0);
        assert!(!engine.have_pieces_rested() && engine.caches.pieces.bytes() == 0);
        *clock.0.lock() = PIECES_REST - Duration::from_millis(1);
        assert!(!engine.have_pieces_rested());
        *clock.0.lock() = PIECES_REST;
        assert!(engine.have_pieces_rested());
    }

    #[test]
    fn the_thread_leaves_alone_what_is_wanted_meanwhile() {
        let (engine, clock) = open(true);
        let is_wanted = || engine.caches.wanted.is_any();
        engine.caches.pieces.add(&KEY, 0, Piece::default(), u64::MAX);
        engine.spare_down_to(0);
        engine.caches.wanted.want((KEY, 0));
        // Neither what a search says now counts, nor what one has said before.
        engine.make_pieces_if_wanted();
        engine.wake.notify(|wish| wish.pieces = true);
        std::thread::sleep(Duration::from_millis(50));
        assert!(is_wanted());
        *clock.0.lock() = PIECES_REST;
        engine.make_pieces_if_wanted();
        let start = std::time::Instant::now();
        while is_wanted() {
            assert!(start.elapsed() < Duration::from_secs(30), "nobody has looked");
            std::thread::sleep(Duration::from_millis(1));
        }
        engine.close().unwrap();
    }
}
