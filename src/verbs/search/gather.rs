//! Gathering: the best of very many scores, at the price of one look at each.
//!
//! 1. [`Gather::add`] takes the scores of a run of rows.
//! 2. A sample of the scores says what the n-th best of all is about; a floor somewhat below leaves some 400
//!    of 30,000 for the 150 best, and what lies below it costs one comparison of sixteen at once.
//! 3. Only of those left it is asked which rows they are and whether they count. If they turn out to be fewer
//!    than n, all are asked: the floor decides how long it takes, never what is found.
//!
//! Scores are taken in batches, so that memory is bounded; the [`Sieve`] keeps the best over all of them.
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
/// Of so many scores one is in the sample; of few all are.
const SAMPLE_EVERY: usize = 16;
const SAMPLED_MIN: usize = 1024;
/// So many scores are gathered before the best are sorted out: 64 KiB.
const BATCH_ROWS: usize = 16_384;

/// Which rows stand behind a run of scores.
pub(super) enum Run<'a> {
    /// Rows of a ground, by its number.
    Rows(u32, Range<u32>),
    /// References of a cell.
    References(&'a [u32]),
}

/// The best rows of all that are added and count.
pub(super) struct Gather<'a, C> {
    counts: C,
    /// Where references lead.
    pub homes: Homes,
    count: usize,
    top: Sieve<Candidate>,
    /// Scores of the batch.
    scores: Vec<f32>,
    /// The runs of the batch, and where they begin.
    runs: Vec<(usize, Run<'a>)>,
}

impl<'a, C: Fn(Candidate) -> bool> Gather<'a, C> {
    /// Room for the best so many. `counts` says whether a row does.
    pub fn new(count: usize, counts: C) -> Gather<'a, C> {
        Gather {
            counts,
            homes: Homes::default(),
            count,
            top: Sieve::new(count, TIES_MAX),
            scores: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// Adds a run of rows with the scores that `score` writes.
    pub fn add(&mut self, run: Run<'a>, rows: usize, score: impl FnOnce(&mut [f32])) {
        let from = self.scores.len();
        self.scores.resize(from + rows, 0.0);
        score(self.scores.get_mut(from..).unwrap_or_default());
        self.runs.push((from, run));
        if self.scores.len() >= BATCH_ROWS {
            self.sort_out();
        }
    }

    /// The score of the n-th best so far, or less, once there are so many that it says something of all.
    pub fn nth_best(&self, n: usize) -> Option<f32> {
        if self.top.threshold() > f32::NEG_INFINITY {
            return self.top.nth_best(n);
        }
        if self.scores.len() < 2 * self.count {
            return None;
        }
        let mut some = self.best(n);
        let at = n.checked_sub(1).filter(|at| *at < some.len())?;
        Some(some.select_nth_unstable_by(at, |a, b| b.0.total_cmp(&a.0)).1.0)
    }

    /// The best of all, in no order, and whether too many scored like the last one.
    pub fn into_kept(mut self) -> (Vec<(f32, Candidate)>, bool) {
        self.sort_out();
        self.top.into_kept()
    }

    fn sort_out(&mut self) {
        for (score, candidate) in self.best(self.count) {
            self.top.offer(score, candidate);
        }
        if self.count < BATCH_ROWS / 4 {
            // A threshold for the next batch; where so many are kept that finding it costs more than it
            // saves, it comes by itself.
            self.top.shrink();
        }
        self.scores.clear();
        self.runs.clear();
    }

    /// The best n of the batch that count, and some others.
    fn best(&self, n: usize) -> Vec<(f32, Candidate)> {
        let least = self.top.threshold();
        let floor = self.floor(n);
        let some = self.above(floor.max(least));
        if floor > least && some.len() < n { self.above(least) } else { some }
    }

    /// A score that some more than n rows of the batch reach, most likely.
    fn floor(&self, n: usize) -> f32 {
        let every = if self.scores.len() < SAMPLED_MIN { 1 } else { SAMPLE_EVERY };
        let mut sample: Vec<f32> = self.scores.iter().copied().step_by(every).collect();
        // Three standard deviations of how many of the n best are in the sample; and some do not count.
        let share = n as f32 / every as f32;
        let at = (share + 3.0 * share.sqrt()) as usize + 2;
        if at >= sample.len() {
            return f32::NEG_INFINITY;
        }
        *sample.select_nth_unstable_by(at, |a, b| b.total_cmp(a)).1
    }

    /// The rows of the batch that count and score so much.
    fn above(&self, floor: f32) -> Vec<(f32, Candidate)> {
        let (mut found, mut places) = (Vec::new(), Vec::new());
        let ends = self.runs.iter().skip(1).map(|(from, _)| *from).chain([self.scores.len()]);
        for ((from, run), end) in self.runs.iter().zip(ends) {
            places.clear();
            reaching(self.scores.get(*from..end).unwrap_or_default(), floor, &mut places);
            for at in &places {
                if let (Some(score), Some(candidate)) =
                    (self.scores.get(from + *at as usize), self.candidate(run, *at))
                {
                    found.push((*score, candidate));
                }
            }
        }
        found
    }

    /// The row at a place of a run, if there is one and it counts.
    fn candidate(&self, run: &Run<'_>, at: u32) -> Option<Candidate> {
        let candidate = match run {
            Run::Rows(number, rows) => {
                let row = rows.start + at;
                rows.contains(&row).then_some((*number, row))?
            }
            Run::References(references) => {
                self.homes.of_reference(*references.get(at as usize)?)?
            }
        };
        (self.counts)(candidate).then_some(candidate)
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
            gather.add(Run::Rows(3, run.clone()), run.len(), |scores| {
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
        assert_eq!(gathered(20, 10, 15, score, |_| true).1, None);
    }
}
