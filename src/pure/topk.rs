//! The best k of a stream of scored entries, in O(k) memory.
//!
//! Better is the higher score; equal scores go to the lower id. That makes the answer a function
//! of the set of entries alone: not of the order they were met in, nor of how many threads
//! scored them ([`TopK::merge`]). It never holds more than k entries.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::words::id::EntryId;

/// Collects the best k entries offered to it, each with something of the caller's.
#[derive(Clone, Debug)]
pub struct TopK<T> {
    k: usize,
    /// The worst kept entry on top.
    heap: BinaryHeap<Kept<T>>,
}

#[derive(Clone, Debug)]
struct Kept<T> {
    score: f32,
    id: EntryId,
    item: T,
}

/// `Greater` is worse, so that the heap's maximum is the first to go.
fn worse(a: (f32, EntryId), b: (f32, EntryId)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

impl<T> Ord for Kept<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        worse((self.score, self.id), (other.score, other.id))
    }
}

impl<T> PartialOrd for Kept<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Kept<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Kept<T> {}

impl<T> TopK<T> {
    /// Room for k entries; none for 0. Memory grows with what is kept, not with k.
    #[must_use]
    pub fn new(k: usize) -> TopK<T> {
        TopK { k, heap: BinaryHeap::new() }
    }

    /// The score an entry needs: one with a lower score is not taken, one with this very score
    /// only if its id is lower than the last one's. Negative infinity until k are kept.
    #[must_use]
    pub fn threshold(&self) -> f32 {
        match self.heap.peek() {
            _ if self.k == 0 => f32::INFINITY,
            Some(last) if self.heap.len() >= self.k => last.score,
            _ => f32::NEG_INFINITY,
        }
    }

    /// Takes the entry if it is among the best k so far; says whether it was taken. A NaN counts
    /// as negative infinity, negative zero as zero.
    pub fn offer(&mut self, score: f32, id: EntryId, item: T) -> bool {
        let score = if score.is_nan() { f32::NEG_INFINITY } else { score + 0.0 };
        if self.heap.len() < self.k {
            self.heap.push(Kept { score, id, item });
            return true;
        }
        match self.heap.peek_mut() {
            Some(mut last) if worse((score, id), (last.score, last.id)).is_lt() => {
                *last = Kept { score, id, item };
                true
            }
            _ => false,
        }
    }

    /// What was kept, best first.
    #[must_use]
    pub fn into_sorted(self) -> Vec<(f32, EntryId, T)> {
        let kept = self.heap.into_sorted_vec();
        kept.into_iter().map(|kept| (kept.score, kept.id, kept.item)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(k: usize, offered: &[(f32, u64)]) -> Vec<(f32, EntryId, ())> {
        let mut all: Vec<_> = offered.iter().map(|&(s, id)| (s, EntryId(id), ())).collect();
        all.sort_by(|a, b| b.0.partial_cmp(&a.0).expect("no NaN").then(a.1.cmp(&b.1)));
        all.truncate(k);
        all
    }

    proptest! {
        // Few distinct scores, so that ties are common.
        #[test]
        fn agrees_with_sorting(
            scores in prop::collection::vec(-3..4_i8, 0..60), k in 0..12_usize,
            rotate in 0..60_usize,
        ) {
            let mut offered: Vec<(f32, u64)> =
                scores.iter().enumerate().map(|(i, s)| (f32::from(*s) / 2.0, i as u64)).collect();
            let expected = naive(k, &offered);
            let start = rotate % offered.len().max(1);
            offered.rotate_left(start);

            let mut whole = TopK::new(k);
            for &(score, id) in &offered {
                let threshold = whole.threshold();
                let taken = whole.offer(score, EntryId(id), ());
                prop_assert!(!taken || score >= threshold);
                prop_assert!(taken || score <= threshold);
                prop_assert!(whole.heap.len() <= k);
                            }
            prop_assert_eq!(whole.into_sorted(), expected);
        }
    }

    #[test]
    fn odd_scores_have_their_place() {
        let mut top = TopK::new(4);
        top.offer(f32::NAN, EntryId(1), 'n');
        top.offer(0.0, EntryId(3), 'z');
        top.offer(-0.0, EntryId(2), 'm');
        top.offer(f32::INFINITY, EntryId(4), 'i');
        let order: String = top.into_sorted().into_iter().map(|(_, _, item)| item).collect();
        assert_eq!(order, "imzn");
    }

    #[test]
    fn room_for_none_takes_none() {
        let mut top = TopK::new(0);
        assert!(!top.offer(f32::INFINITY, EntryId(1), ()));
        assert!(top.heap.is_empty() && top.threshold() == f32::INFINITY);
    }
}
