//! Gathering: the best of very many scores, at the price of one look at each.
//!
//! 1. [`Gather::add`] takes the scores of a run of rows.
//! 2. Those that reach the score of the last of the best so far, sixteen compared at once, are gathered by their
//!    places: some 1,100 of 20,000 for the 150 best, since cells come the nearest first. Where not all rows of a
//!    run count, each of them is asked.
//! 3. The [`Sieve`] keeps the best of these by their numbers, and tells what the last of the hits scores.
//! 4. Which rows the best are is looked up at the end.
//!
//! Never: leaves out a row that counts and scores among the best, or as the last of them.

use std::ops::Range;

use crate::pure::topk::Sieve;

use super::cells::Homes;

/// A candidate: the number of the ground and the row.
pub(super) type Candidate = (u32, u32);

/// So many candidates that score the same as the last one are looked at besides; where there are
/// more, the scan takes less time. 4,096 take about 5 ms.
const TIES_MAX: usize = 4096;

/// Which rows stand behind a run of scores.
pub(super) enum Run {
    /// Rows of a ground, by its number.
    Rows(u32, Range<u32>),
    /// Those that stand at these places of all references.
    References(Range<u32>),
}

/// The best rows of all that are added and count.
pub(super) struct Gather<'a, C> {
    counts: C,
    /// For each ground the rows of those before it, and the references.
    before: Vec<u32>,
    /// Where references lead.
    pub homes: Homes<'a>,
    /// References by their places, rows by their numbers over all grounds behind these.
    top: Sieve,
    /// So many of them may be hits.
    few: usize,
    /// Scores of a run.
    scores: Vec<f32>,
}

impl<'a, C: Fn(Candidate) -> bool> Gather<'a, C> {
    /// Room for the best `count` rows, of which `few` may be hits, of grounds that have so many rows each, and of
    /// so many references; all of these have 32 bits to be numbered with. `counts` says whether a row does.
    pub fn new(
        count: usize,
        few: usize,
        references: u32,
        rows: impl Iterator<Item = u32>,
        counts: C,
    ) -> Gather<'a, C> {
        let before = rows.scan(references, |sum, rows| {
            let before = *sum;
            *sum = sum.saturating_add(rows);
            Some(before)
        });
        Gather {
            counts,
            before: before.collect(),
            homes: Homes::default(),
            top: Sieve::new(count, TIES_MAX),
            few: few.min(count),
            scores: Vec::new(),
        }
    }

    /// Adds a run of rows with the scores that `score` writes.
    pub fn add(&mut self, run: &Run, score: impl FnOnce(&mut [f32])) {
        let rows = run.rows();
        // It never shrinks, so that it is filled with zeros once.
        self.scores.resize(rows.max(self.scores.len()), 0.0);
        score(self.scores.get_mut(..rows).unwrap_or_default());
        let scores = self.scores.get(..rows).unwrap_or_default();
        let first = match run {
            Run::Rows(ground, rows) => {
                self.before.get(*ground as usize).map_or(0, |before| before + rows.start)
            }
            Run::References(places) => places.start,
        };
        if matches!(run, Run::References(_)) && self.homes.all_count() {
            self.top.offer_all(scores, first, |_| true);
        } else {
            let (homes, counts) = (&self.homes, &self.counts);
            let counts = |number| homes.candidate(run, number - first).is_some_and(counts);
            self.top.offer_all(scores, first, counts);
        }
    }

    /// The score of the last of the hits so far.
    pub fn last_hit(&mut self) -> Option<f32> {
        self.top.nth(self.few)
    }

    /// The best of all, the best first, and whether too many scored like the last one.
    pub fn into_sorted(self) -> (Vec<(f32, Candidate)>, bool) {
        let (sorted, crowded) = self.top.into_sorted();
        // First a look at all references, which are anywhere, so that they arrive together.
        let known: Vec<Option<u32>> =
            sorted.iter().map(|best| self.homes.reference(best.1)).collect();
        let candidate = |((score, number), reference): ((f32, u32), Option<u32>)| {
            if let Some(reference) = reference {
                return Some((score, self.homes.of_reference(reference)?));
            }
            let after = self.before.partition_point(|before| *before <= number);
            let ground = after.checked_sub(1)?;
            Some((score, (ground as u32, number - self.before.get(ground)?)))
        };
        (sorted.into_iter().zip(known).filter_map(candidate).collect(), crowded)
    }
}

impl Run {
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

    /// Gathers rows in runs, and says which of those that count are the best, and the second best early on.
    fn gathered(
        rows: u32,
        run_rows: u32,
        n: usize,
        score: impl Fn(u32) -> f32,
        counts: impl Fn(u32) -> bool,
    ) -> (Vec<u32>, Option<f32>) {
        let grounds = [5, 0, 2, rows].into_iter();
        let few = n.min(2);
        let mut gather =
            Gather::new(n, few, 0, grounds, |(ground, row)| ground == 3 && counts(row));
        let mut early = None;
        for from in (0..rows).step_by(run_rows as usize) {
            let run = from..rows.min(from + run_rows);
            gather.add(&Run::Rows(3, run.clone()), |scores| {
                scores.iter_mut().zip(run).for_each(|(of, row)| *of = score(row));
            });
            let last = gather.last_hit();
            early = early.or_else(|| last.map(|nth| (run_rows + from, nth)));
        }
        if let Some((seen, nth)) = early {
            let best = best(seen.min(rows), few, &score, &counts);
            assert_eq!(Some(nth), best.get(few - 1).map(|row| score(*row)));
        }
        let (kept, crowded) = gather.into_sorted();
        assert!(!crowded && kept.is_sorted_by(|a, b| a.0 >= b.0));
        assert!(kept.iter().all(|(_, (ground, _))| *ground == 3));
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
    fn references_lead_to_their_rows_and_rows_stand_behind_them() {
        // Grounds of 3, 4 and 5 rows, of which the first and the last are in cells, with 2 rows that are gone between.
        let references = [6, 0, 3, 9, 2, 5, 4, 1, 8, 7];
        let bases = [(0, Some(0)), (3, None), (5, Some(2))];
        let leads = |place: u32| match references[place as usize] {
            gone @ 3..=4 => Err(gone),
            reference @ 0..3 => Ok((0, reference)),
            reference => Ok((2, reference - 5)),
        };
        for all_count in [false, true] {
            let mut gather = Gather::new(6, 2, 10, [3, 4, 5].into_iter(), |row| row != (2, 4));
            // Of those that all count none are gone.
            let bases = if all_count { [(0, Some(0)), (3, Some(7)), (5, Some(2))] } else { bases };
            gather.homes = Homes::new(&references, &bases, all_count);
            // The last place of a run has the highest score; then two rows score like places 8 and 9.
            for run in [0..4, 4..10] {
                gather.add(&Run::References(run.clone()), |scores| {
                    scores.iter_mut().zip(run).for_each(|(score, place)| *score = place as f32);
                });
            }
            gather.add(&Run::Rows(1, 1..4), |scores| scores.copy_from_slice(&[8.0, 0.5, 9.0]));
            assert_eq!(gather.last_hit(), Some(9.0));
            let (best, crowded) = gather.into_sorted();
            let place = |place: u32| (place as f32, leads(place).unwrap());
            let mut wanted = vec![place(9), (9.0, (1, 3)), place(8), (8.0, (1, 1)), place(7)];
            wanted.extend(match all_count {
                true => vec![(6.0, (7, 1))],
                false => vec![place(5)],
            });
            assert_eq!((best, crowded), (wanted, false), "{all_count}");
        }
        // Place 3 leads to a row that does not count.
        let mut gather = Gather::new(6, 2, 10, [3, 4, 5].into_iter(), |row| row != (2, 4));
        gather.homes = Homes::new(&references, &bases, false);
        gather.add(&Run::References(2..4), |scores| scores.fill(1.0));
        assert!(gather.into_sorted().0.is_empty(), "one is gone, one kept out");
    }

    #[test]
    fn the_last_of_the_hits_is_known_early() {
        let (_, nth) = gathered(40_000, 100, 15, score, |_| true);
        assert!(nth.is_some());
        assert_eq!(gathered(40_000, 100, 15, score, |row| row == 77).1, None, "there is no second");
    }
}
