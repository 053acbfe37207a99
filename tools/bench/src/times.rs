//! How a search is timed: one query after the other on one thread.
//!
//! 200 queries to warm up, then three passes over all of them; the pass with the middle p50 counts.
//! The query is made ready and the answer is taken apart outside of the time. Recall is taken from
//! the same answers that were timed, so a fast wrong answer cannot hide.

use std::time::Instant;

use crate::Outcome;
use crate::data::K;

const WARM_UP: usize = 200;
const PASSES: usize = 3;

/// One pass over the queries.
pub struct Pass {
    pub recall: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

/// Runs the passes. `ready` makes the input of a query, `ask` is timed, `rows` reads the answer.
pub fn passes<Q, A>(
    queries: &[Vec<f32>],
    truth: &[Vec<i64>],
    ready: impl Fn(&[f32]) -> Q,
    ask: impl Fn(Q) -> Outcome<A>,
    rows: impl Fn(&A) -> Vec<i64>,
) -> Outcome<Pass> {
    for query in queries.iter().take(WARM_UP) {
        ask(ready(query))?;
    }
    let mut all = Vec::new();
    for _ in 0..PASSES {
        let mut times_us = Vec::with_capacity(queries.len());
        let mut hits = 0;
        for (query, truth) in queries.iter().zip(truth) {
            let query = ready(query);
            let before = Instant::now();
            let answer = ask(query)?;
            times_us.push(before.elapsed().as_secs_f64() * 1e6);
            hits += found(&rows(&answer), truth)?;
        }
        let recall = hits as f64 / (times_us.len() * K) as f64;
        times_us.sort_by(f64::total_cmp);
        let (p50_us, p99_us) = (percentile(&times_us, 50), percentile(&times_us, 99));
        all.push(Pass { recall, p50_us, p99_us });
    }
    all.sort_by(|a, b| a.p50_us.total_cmp(&b.p50_us));
    Ok(all.swap_remove(PASSES / 2))
}

/// How many of the true best ten an answer has. An answer of another length is an error.
pub fn found(rows: &[i64], truth: &[i64]) -> Outcome<usize> {
    let distinct: std::collections::BTreeSet<_> = rows.iter().collect();
    if rows.len() != K || distinct.len() != K {
        return Err(format!("{} rows were answered, {K} different ones asked", rows.len()).into());
    }
    Ok(rows.iter().filter(|row| truth.contains(row)).count())
}

/// Nearest rank.
pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// The middle value; of an even number, the upper one of the middle two.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_repeats_a_row_or_lacks_one_is_no_answer() {
        let truth: Vec<i64> = (0..10).collect();
        assert_eq!(found(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 99], &truth).unwrap(), 9);
        assert!(found(&[0, 0, 2, 3, 4, 5, 6, 7, 8, 9], &truth).is_err());
        assert!(found(&truth[..9], &truth).is_err());
    }

    #[test]
    fn recall_is_that_of_the_timed_answers() {
        let queries = vec![vec![0.0]; 4];
        let truth: Vec<Vec<i64>> = vec![(0..10).collect(); 4];
        let half = |_: &Vec<f32>| (5..15).collect();
        let pass = passes(&queries, &truth, <[f32]>::to_vec, Ok, half).unwrap();
        assert_eq!(pass.recall, 0.5);
        assert!(pass.p50_us <= pass.p99_us);
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let sorted: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!((percentile(&sorted, 50), percentile(&sorted, 99)), (500.0, 990.0));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[]), None);
    }
}
