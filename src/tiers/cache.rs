//! Caches of what sealed segments say: masks of filters, sketches. Made once, kept while there is
//! room, gone with their segment.
//!
//! A row of the archive never changes, so neither does what a filter that asks for nothing but the
//! row says of it, nor its sketch. Both are looked at by every search, so the first one to need
//! them makes them and the others find them. Each cache has a share of the budget. Masks make room
//! by letting the least recently used go; sketches do not, because a search goes through all of
//! them: what does not fit is read from disk, and making room would only throw out what the next
//! step needs.
//!
//! Never: knows what a value means, or of rows that died; holds its lock while a value is made.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use roaring::RoaringBitmap;

use crate::words::error::Result;

/// A group of a sealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// Number of the segment.
    pub segment: u64,
    /// Group in it.
    pub group: u16,
}

/// What a filter says of the rows of a group.
#[derive(Debug, Default)]
pub struct Mask {
    /// Rows that pass.
    pub passing: RoaringBitmap,
    /// Rows that cannot be asked: their bytes are damaged.
    pub unsure: RoaringBitmap,
}

impl Mask {
    /// Whether a row does not pass.
    pub fn keeps_out(&self, row: u32) -> bool {
        !self.passing.contains(row) && !self.unsure.contains(row)
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> u64 {
        (self.passing.serialized_size() + self.unsure.serialized_size()) as u64
    }
}

/// Masks of groups, by the filter and namespace in their one written form.
pub type Masks = Cache<(GroupKey, Arc<str>), Mask>;
/// The sketches of a group.
#[derive(Debug)]
pub struct GroupSketches {
    /// The mean that was taken away from its vectors.
    pub mean: Vec<f32>,
    /// The sketches as they are stored.
    pub blocks: Vec<u8>,
}

/// Sketches by group.
pub type Sketches = Cache<GroupKey, GroupSketches>;
/// Bytes of a kept value besides its own: key, entry of the map, Arc.
const KEPT_BYTES: u64 = 160;

#[derive(Debug)]
struct Kept<V> {
    value: Arc<V>,
    bytes: u64,
    used: u64,
}

#[derive(Debug)]
struct State<K, V> {
    kept: HashMap<K, Kept<V>>,
    bytes: u64,
    clock: u64,
}

/// Values by key, in at most so many bytes.
#[derive(Debug)]
pub struct Cache<K, V>(Mutex<State<K, V>>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Cache<K, V> {
        Cache(Mutex::new(State { kept: HashMap::new(), bytes: 0, clock: 0 }))
    }
}

impl<K: Clone + Eq + Hash, V> Cache<K, V> {
    /// A value that is kept.
    pub fn get(&self, key: &K) -> Option<Arc<V>> {
        let mut state = self.0.lock();
        state.clock += 1;
        let now = state.clock;
        let kept = state.kept.get_mut(key)?;
        kept.used = now;
        Some(Arc::clone(&kept.value))
    }

    /// A value that is kept, or that `make` makes, together with its bytes. It is kept if it fits
    /// into `bytes_max` with all others, least recently used ones let go to make room.
    pub fn get_or_make(
        &self,
        key: &K,
        bytes_max: u64,
        make: impl FnOnce() -> Result<(V, u64)>,
    ) -> Result<Arc<V>> {
        if let Some(value) = self.get(key) {
            return Ok(value);
        }
        // Made without the lock: two searches may make the same value, and one is kept.
        let (value, bytes) = make()?;
        let value = Arc::new(value);
        let bytes = bytes.saturating_add(KEPT_BYTES);
        if bytes <= bytes_max {
            let mut state = self.0.lock();
            state.make_room(bytes_max - bytes);
            state.keep(key.clone(), Arc::clone(&value), bytes);
        }
        Ok(value)
    }

    /// Keeps a value in the place of the one there is, if it fits into `bytes_max` with all others.
    pub fn replace(&self, key: &K, value: Arc<V>, bytes: u64, bytes_max: u64) {
        let bytes = bytes.saturating_add(KEPT_BYTES);
        let mut state = self.0.lock();
        if let Some(old) = state.kept.remove(key) {
            state.bytes = state.bytes.saturating_sub(old.bytes);
        }
        if state.bytes.saturating_add(bytes) <= bytes_max {
            state.keep(key.clone(), value, bytes);
        }
    }

    /// Whether a value of so many bytes would fit beside all others.
    pub fn has_room(&self, bytes: u64, bytes_max: u64) -> bool {
        self.0.lock().bytes.saturating_add(bytes).saturating_add(KEPT_BYTES) <= bytes_max
    }

    /// Lets the least recently used go until no more than this is kept.
    pub fn shrink(&self, bytes_max: u64) {
        self.0.lock().make_room(bytes_max);
    }

    /// Forgets what does not belong any more.
    pub fn retain(&self, belongs: impl Fn(&K) -> bool) {
        let mut state = self.0.lock();
        state.kept.retain(|key, _| belongs(key));
        state.bytes = state.kept.values().map(|kept| kept.bytes).sum();
    }

    /// Bytes of all that is kept.
    pub fn bytes(&self) -> u64 {
        self.0.lock().bytes
    }
}

impl<K: Clone + Eq + Hash, V> State<K, V> {
    fn keep(&mut self, key: K, value: Arc<V>, bytes: u64) {
        let used = self.clock;
        self.bytes += bytes;
        if let Some(old) = self.kept.insert(key, Kept { value, bytes, used }) {
            self.bytes = self.bytes.saturating_sub(old.bytes);
        }
    }

    fn make_room(&mut self, bytes_max: u64) {
        while self.bytes > bytes_max {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(k, _)| k.clone());
            let Some(oldest) = oldest else { return };
            if let Some(old) = self.kept.remove(&oldest) {
                self.bytes = self.bytes.saturating_sub(old.bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(cache: &Cache<u64, u64>, key: u64, bytes_max: u64) -> bool {
        let mut made = false;
        let value = cache.get_or_make(&key, bytes_max, || {
            made = true;
            Ok((key * 10, 100))
        });
        assert_eq!(*value.unwrap(), key * 10);
        made
    }

    #[test]
    fn a_value_is_made_once_and_the_least_recently_used_goes_first() {
        let cache = Cache::default();
        assert!(ask(&cache, 1, 10_000));
        let one = cache.bytes();
        assert!(!ask(&cache, 1, 10_000));
        assert!(ask(&cache, 2, 2 * one));
        assert!(!ask(&cache, 1, 2 * one), "both fit");
        assert!(!cache.has_room(100, 2 * one) && cache.has_room(100, 3 * one));
        assert!(ask(&cache, 3, 2 * one));
        assert!(!ask(&cache, 1, 2 * one), "used later than the second");
        assert!(ask(&cache, 2, 2 * one), "it went");
        assert_eq!(cache.bytes(), 2 * one);
    }

    #[test]
    fn a_value_that_does_not_fit_is_not_kept_and_what_does_not_belong_goes() {
        let cache = Cache::default();
        assert!(ask(&cache, 1, 10));
        assert!(ask(&cache, 1, 10));
        assert_eq!(cache.bytes(), 0);
        ask(&cache, 1, 10_000);
        ask(&cache, 2, 10_000);
        cache.retain(|key| *key == 2);
        assert!(cache.get(&1).is_none() && cache.get(&2).is_some());
    }
}
