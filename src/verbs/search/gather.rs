//! Gathering: the best of very many scores, at the price of one look at each.
//!
//! 1. [`Gather::add`] takes the scores of a run of rows.
//! 2. Those that reach the score of the last of the best so far, sixteen compared at once, are asked which rows
//!    they are and whether they count: some 600 of 20,000 for the 150 best, since cells come the nearest first.
//! 3. The [`Sieve`] keeps the best of these.
//!
//! Never: leaves out a row that counts and scores among the best, or as the last of them.

use std::ops::Range;

use crate::pure::reach::reaching;
use crate::pure::topk::Sieve;

use super::cells::Homes;

/// A candidate: the number of the ground and the row. Eight bytes, since thousands are sorted out.
pub(super) type Candidate = (u32, u32);

/// So many candidates that score the same as the last one are looked at besides; where there are
/// more, the scan takes less time. 4,096 take about 5 ms.
const TIES_MAX: usize = 4096;

/// Which rows stand behind a run of scores.
pub(super) enum Run<'a> {
    /// Rows of a ground, by its number.
    Rows(u32, Range<u32>),
    /// References of a cell.
    References(&'a [u32]),
}

/// The best rows of all that are added and count.
pub(super) struct Gather<C> {
    counts: C,
    /// Where references lead.
    pub homes: Homes,
    top: Sieve<Candidate>,
    /// Scores of a run, and the places of those that are high enough.
    scores: Vec<f32>,
    places: Vec<u32>,
}

impl<C: Fn(Candidate) -> bool> Gather<C> {
    /// Room for the best so many. `counts` says whether a row does.
    pub fn new(count: usize, counts: C) -> Gather<C> {
        let top = Sieve::new(count, TIES_MAX);
        Gather { counts, homes: Homes::default(), top, scores: Vec::new(), places: Vec::new() }
    }

    /// Adds a run of rows with the scores that `score` writes.
    pub fn add(&mut self, run: &Run<'_>, score: impl FnOnce(&mut [f32])) {
        self.scores.resize(run.rows(), 0.0);
        score(&mut self.scores);
        self.places.clear();
        reaching(&self.scores, self.top.threshold(), &mut self.places);
        for at in &self.places {
            // The threshold may have risen meanwhile.
            if let Some(score) = self.scores.get(*at as usize)
                && *score >= self.top.threshold()
                && let Some(candidate) = self.homes.candidate(run, *at)
                && (self.counts)(candidate)
            {
                self.top.offer(*score, candidate);
            }
        }
    }

    /// The score of the n-th best so far.
    pub fn nth_best(&self, n: usize) -> Option<f32> {
        self.top.nth_best(n)
    }

    /// The best of all, in no order, and whether too many scored like the last one.
    pub fn into_kept(self) -> (Vec<(f32, Candidate)>, bool) {
        self.top.into_kept()
    }
}

impl Run<'_> {
    fn rows(&self) -> usize {
        match self {
            Run::Rows(_, rows) => rows.len(),
            Run::References(references) => references.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores without order; few of them twice.
    fn score(row: u32) -> f32 {
        (row.wrapping_mul(2_654_435_761) >> 8) as f32
    }

    /// Gathers rows in runs, and says which of those that count are the best, and the n-th best early on.
    fn gathered(
        rows: u32,
        run_rows: u32,
        n: usize,
        score: impl Fn(u32) -> f32,
        counts: impl Fn(u32) -> bool,
    ) -> (Vec<u32>, Option<f32>) {
        let mut gather = Gather::new(n, |(ground, row)| ground == 3 && counts(row));
        let mut early = None;
        for from in (0..rows).step_by(run_rows as usize) {
            let run = from..rows.min(from + run_rows);
            gather.add(&Run::Rows(3, run.clone()), |scores| {
                scores.iter_mut().zip(run).for_each(|(of, row)| *of = score(row));
            });
            early = early.or_else(|| gather.nth_best(2).map(|nth| (run_rows + from, nth)));
        }
        if let Some((seen, nth)) = early {
            assert_eq!(
                Some(nth),
                best(seen.min(rows), 2, &score, &counts).get(1).map(|r| score(*r))
            );
        }
        let (kept, crowded) = gather.into_kept();
        assert!(!crowded);
        let mut kept: Vec<u32> = kept.into_iter().map(|(_, (_, row))| row).collect();
        kept.sort_unstable();
        (kept, early.map(|(_, nth)| nth))
    }

    /// The n best rows that count, the best first, and those that score like the last.
    fn best(
        rows: u32,
        n: usize,
        score: impl Fn(u32) -> f32,
        counts: impl Fn(u32) -> bool,
    ) -> Vec<u32> {
        let mut all: Vec<u32> = (0..rows).filter(|row| counts(*row)).collect();
        all.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
        let last = all.get(n - 1).map(|row| score(*row));
        all.retain(|row| last.is_none_or(|last| score(*row) >= last));
        all
    }

    #[test]
    fn what_counts_is_found_however_little_it_is() {
        for (rows, run_rows) in [(40, 7), (900, 64), (5000, 250), (40_000, 333), (40_000, 40_000)] {
            for n in [1, 15, 150, 700] {
                // The last two: those that count are the worst by their scores, or all score the same but few.
                let some: [&dyn Fn(u32) -> bool; 4] =
                    [&|_| true, &|row| row % 50 == 3, &|_| false, &|row| score(row) < 1e6];
                for counts in some {
                    let mut wanted = best(rows, n, score, counts);
                    wanted.sort_unstable();
                    assert_eq!(gathered(rows, run_rows, n, score, counts).0, wanted, "{rows} {n}");
                }
                let coarse = |row: u32| score(row % 97);
                let mut wanted = best(rows, n, coarse, |_| true);
                wanted.sort_unstable();
                assert_eq!(gathered(rows, run_rows, n, coarse, |_| true).0, wanted, "{rows} {n}");
            }
        }
    }

    #[test]
    fn the_last_of_the_hits_is_known_early() {
        let (_, nth) = gathered(40_000, 100, 15, score, |_| true);
        assert!(nth.is_some());
        assert_eq!(gathered(40_000, 100, 15, score, |row| row == 77).1, None, "there is no second");
    }
}
