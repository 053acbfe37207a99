//! The best k of a stream of scored entries, in O(k) memory.
//!
//! Better is the higher score; equal scores go to the lower id. That makes the answer a function
//! of the set of entries alone: not of the order they were met in, nor of how many threads
//! scored them. It never holds more than k entries.
//!
//! Where the ids are not known yet, a [`Sieve`] keeps the best k by some number and all that score the same as
//! the last of them, so that whoever knows the ids may decide.

mod nth;
mod order;
mod reach;

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::words::id::EntryId;

use nth::nth_best;
use order::sorted;
use reach::reaching;

pub use order::Order;

/// Room for no more than so many is taken at once: a k may be a million where there are ten rows.
const ROOM_MAX: usize = 512;

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
    /// Room for k entries; none for 0. Memory grows with what is kept, not with k, but for what is
    /// [reserved](TopK::reserve).
    #[must_use]
    pub fn new(k: usize) -> TopK<T> {
        TopK { k, heap: BinaryHeap::new() }
    }

    /// Makes room at once for k entries, or as many as are often kept: for who will keep some.
    pub fn reserve(&mut self) {
        self.heap.reserve(self.k.min(ROOM_MAX));
    }

    /// The score an entry needs: one with a lower score is not taken, one with this very score
    /// only if its id is lower than the last one's. Negative infinity until k are kept.
    #[inline]
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
    #[inline]
    pub fn offer(&mut self, score: f32, id: EntryId, item: T) -> bool {
        let score = if score.is_nan() { f32::NEG_INFINITY } else { score + 0.0 };
        // Most of those offered end here.
        if score < self.threshold() {
            return false;
        }
        self.take(score, id, item)
    }

    fn take(&mut self, score: f32, id: EntryId, item: T) -> bool {
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

/// Collects the best k of the numbers that are offered to it with scores, and up to a limit all that score the
/// same as the last of those.
#[derive(Clone, Debug)]
pub struct Sieve {
    k: usize,
    ties_max: usize,
    threshold: f32,
    /// The score that more than `ties_max` had too many of, the last time.
    crowded: Option<f32>,
    /// Scores, and for each the number of what it is of.
    scores: Vec<f32>,
    numbers: Vec<u32>,
    /// Scratch: where those scores stand in a run, or among those kept, that are high enough.
    places: Vec<u32>,
    /// So many are sorted out.
    full: usize,
    /// What [`Sieve::nth`] said the last time: it never gets less.
    nth: f32,
}

/// So many are gathered before the best k of them are chosen: few, so that the threshold soon says
/// something, and more than k, so that choosing is rare.
fn full(k: usize) -> usize {
    k.saturating_mul(2).saturating_add(128)
}

/// Keeps what stands at some places, which ascend.
fn keep<T: Copy>(all: &mut Vec<T>, places: &[u32]) {
    for (to, from) in places.iter().enumerate() {
        if let Some(kept) = all.get(*from as usize).copied()
            && let Some(slot) = all.get_mut(to)
        {
            *slot = kept;
        }
    }
    all.truncate(places.len());
}

impl Sieve {
    /// Room for k, and for `ties_max` that score the same as the last.
    #[must_use]
    pub fn new(k: usize, ties_max: usize) -> Sieve {
        let threshold = if k == 0 { f32::INFINITY } else { f32::NEG_INFINITY };
        let (crowded, full, nth) = (None, full(k), f32::NEG_INFINITY);
        let room = full.min(ROOM_MAX);
        let (scores, numbers) = (Vec::with_capacity(room), Vec::with_capacity(room));
        let places = Vec::with_capacity(room);
        Sieve { k, ties_max, threshold, crowded, scores, numbers, places, full, nth }
    }

    /// Takes the scores of a run, none of which is a negative zero. The first has the number `first`, the next the
    /// one after it. A NaN is not taken, nor is one whose number does not count.
    pub fn offer_all(&mut self, scores: &[f32], first: u32, counts: impl Fn(u32) -> bool) {
        if self.k == 0 {
            return;
        }
        self.places.clear();
        reaching(scores, self.threshold, &mut self.places);
        self.places.retain(|at| counts(first + at));
        let score = |at: &u32| scores.get(*at as usize).copied().unwrap_or(f32::NEG_INFINITY);
        self.scores.extend(self.places.iter().map(score));
        self.numbers.extend(self.places.iter().map(|at| first + at));
        if self.scores.len() >= self.full {
            self.shrink();
            // Twice what stayed: each offer pays for a constant number of steps here.
            self.full = self.scores.len().saturating_mul(2).max(full(self.k));
        }
    }

    /// The score of the n-th best so far; `None` while there are fewer, for an n of 0, and for one above k. It is
    /// meant to be asked for the same n each time.
    pub fn nth(&mut self, n: usize) -> Option<f32> {
        if n > self.k {
            return None;
        }
        // The n best of before are there still, so the n-th best of now is no worse than that of then.
        self.nth = nth_best(&self.scores, n, self.nth)?;
        Some(self.nth)
    }

    fn most(&self) -> usize {
        self.k.saturating_add(self.ties_max)
    }

    /// Lets go of what is not among the best k so far; the threshold is then the score of the last of them. Those
    /// that score like it stay, as far as there is room.
    fn shrink(&mut self) {
        if self.scores.len() <= self.k {
            return;
        }
        let Some(last) = nth_best(&self.scores, self.k, self.threshold) else { return };
        self.threshold = last;
        let mut best = std::mem::take(&mut self.places);
        best.clear();
        reaching(&self.scores, last, &mut best);
        if best.len() > self.most() {
            self.crowded = Some(last);
            let better = self.scores.iter().filter(|score| **score > last).count();
            let (mut room, scores) = (self.most() - better, &self.scores);
            best.retain(|at| {
                let is_last = scores.get(*at as usize) == Some(&last);
                let stays = !is_last || room > 0;
                room -= usize::from(is_last && stays);
                stays
            });
        }
        keep(&mut self.scores, &best);
        keep(&mut self.numbers, &best);
        self.places = best;
    }

    /// What was kept with its scores, the best first, and whether there were more of the last score
    /// than it has room for, so that some were left out.
    #[must_use]
    pub fn into_sorted(mut self) -> (Vec<(f32, u32)>, bool) {
        self.shrink();
        let crowded = self.crowded == Some(self.threshold);
        (sorted(&self.scores, &self.numbers), crowded)
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

    proptest! {
        #[test]
        fn a_sieve_keeps_all_that_score_like_the_last(
            scores in prop::collection::vec(-9..10_i8, 0..600), k in 0..8_usize,
            ties_max in 0..8_usize, n in 0..8_usize, runs in prop::collection::vec(0..90_usize, 0..9),
        ) {
            let nth_best = |n: usize, of: &[i8]| {
                let mut best = of.to_vec();
                best.sort_unstable_by(|a, b| b.cmp(a));
                n.checked_sub(1).and_then(|last| best.get(last)).copied()
            };
            let mut sieve = Sieve::new(k, ties_max);
            let all: Vec<f32> = scores.iter().copied().map(f32::from).collect();
            let (mut from, nth) = (0, n.min(k));
            for rows in runs {
                // Runs at once, and what is left one by one.
                let run = &all[from..all.len().min(from + rows)];
                sieve.offer_all(run, from as u32, |_| true);
                from += run.len();
                prop_assert_eq!(sieve.nth(nth), nth_best(nth, &scores[..from]).map(f32::from));
            }
            for (score, number) in all.iter().zip(0..).skip(from) {
                sieve.offer_all(&[*score], number, |_| true);
            }
            prop_assert_eq!(sieve.nth(nth), nth_best(nth, &scores).map(f32::from));
            prop_assert_eq!(sieve.nth(k + 1), None);
            let last = nth_best(k, &scores);
            let (sorted, crowded) = sieve.into_sorted();
            prop_assert!(sorted.is_sorted_by(|a, b| (b.0, a.1) < (a.0, b.1)));
            prop_assert!(sorted.iter().all(|(score, n)| *score == f32::from(scores[*n as usize])));
            let mut kept: Vec<usize> = sorted.into_iter().map(|(_, n)| n as usize).collect();
            kept.sort_unstable();
            let enough = |score: i8| k > 0 && last.is_none_or(|last| score >= last);
            let wanted: Vec<usize> = (0..scores.len()).filter(|at| enough(scores[*at])).collect();
            prop_assert_eq!(crowded, wanted.len() > k + ties_max);
            if crowded {
                prop_assert_eq!(kept.len(), k + ties_max);
                let better = wanted.iter().filter(|at| Some(scores[**at]) > last);
                prop_assert!(better.clone().all(|at| kept.contains(at)));
            } else {
                prop_assert_eq!(kept, wanted);
            }
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
