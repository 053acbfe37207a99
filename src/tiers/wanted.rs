//! Pieces that searches want.
//!
//! A search that finds no piece of a candidate says so and goes on: reading half a megabyte and making a thousand rows
//! brief takes a millisecond and more, and on a disk that has to be waited for the search's own reads would stand
//! behind it. Somebody else makes what is wanted, for the searches after it.
//!
//! Never: makes one.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::tiers::GroupKey;

/// So many may be wanted at a time. What is left out is wanted again by the next search that misses it.
const WANTED_MAX: usize = 1024;

/// A piece, by its group and its first row there.
pub type PieceKey = (GroupKey, u32);

/// The pieces that searches have wanted and nobody has made.
#[derive(Debug, Default)]
pub struct WantedPieces {
    keys: Mutex<Keys>,
    /// Whether any waits, for those who ask after every search.
    any: AtomicBool,
}

#[derive(Debug, Default)]
struct Keys {
    waiting: BTreeSet<PieceKey>,
    /// Those that somebody is at.
    under_way: BTreeSet<PieceKey>,
}

impl WantedPieces {
    /// Wants a piece, unless somebody is at it.
    pub fn want(&self, key: PieceKey) {
        let mut keys = self.keys.lock();
        if keys.waiting.len() < WANTED_MAX && !keys.under_way.contains(&key) {
            keys.waiting.insert(key);
            self.any.store(true, Ordering::Release);
        }
    }

    /// Whether any waits for being made.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// One that waits. It is nobody else's until it is [`done`](Self::done).
    #[must_use]
    pub fn take(&self) -> Option<PieceKey> {
        let mut keys = self.keys.lock();
        let key = keys.waiting.pop_first();
        keys.under_way.extend(key);
        self.any.store(!keys.waiting.is_empty(), Ordering::Release);
        key
    }

    /// Says that one was made, or is not to be; the next search that misses it may want it again.
    pub fn done(&self, key: &PieceKey) {
        self.keys.lock().under_way.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_wanted_once_until_it_is_done() {
        let wanted = WantedPieces::default();
        let (a, b) = (GroupKey { segment: 1, group: 0 }, GroupKey { segment: 1, group: 2 });
        assert!(!wanted.is_any() && wanted.take().is_none());
        for key in [(b, 0), (a, 1024), (b, 0), (a, 1024)] {
            wanted.want(key);
        }
        assert_eq!(wanted.take(), Some((a, 1024)));
        wanted.want((a, 1024));
        assert_eq!((wanted.is_any(), wanted.take(), wanted.is_any()), (true, Some((b, 0)), false));
        wanted.want((b, 0));
        assert!(!wanted.is_any() && wanted.take().is_none(), "somebody is at both");
        wanted.done(&(a, 1024));
        wanted.want((a, 1024));
        assert_eq!((wanted.is_any(), wanted.take()), (true, Some((a, 1024))));
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let wanted = WantedPieces::default();
        let key = |segment| (GroupKey { segment, group: 0 }, 0);
        (0..2 * WANTED_MAX as u64).for_each(|segment| wanted.want(key(segment)));
        assert_eq!(std::iter::from_fn(|| wanted.take()).count(), WANTED_MAX);
        assert!(!wanted.is_any());
    }
}
