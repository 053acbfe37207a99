//! Importance: what an entry is worth keeping near, in [0, 1].
//!
//! `s = a1 * recency + a2 * frequency + a3 * semantic`, each term in [0, 1], the weights summing to 1:
//!
//! - recency = 2^(-age / H). Age is counted back from the newest event of the collection, not from
//!   the wall clock, so that idle weeks, imports of old material and a wrong clock move nothing.
//! - frequency = min(1, ln(1 + c) / ln 256), c = accesses, halved for every H since the last one.
//! - semantic = the caller's salience, or the greatest cosine to a query.
//!
//! Formulas: DESIGN section 2. Everything is computed in f64 and rounded once, row by row, so one
//! thread and many give the same bits; `terms` is the specification, `scores` the same over columns.

use rayon::prelude::*;

use crate::words::options::Weights;

/// Rows from which on several threads share the work.
const PARALLEL_ROWS_MIN: usize = 1 << 14;
/// Rows a thread takes at once.
const CHUNK_ROWS: usize = 1 << 12;

/// What all entries of a collection are measured by.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// How the terms are weighed.
    pub weights: Weights,
    /// The newest event, in microseconds: age 0.
    pub newest_us: i64,
    /// Time in which recency halves, in microseconds; more than 0.
    pub half_life_us: i64,
}

/// What one entry is measured on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs {
    /// The later of event time and last access, in microseconds.
    pub active_us: i64,
    /// Last access, in microseconds.
    pub accessed_us: i64,
    /// Accesses.
    pub count: u32,
    /// Salience or greatest cosine; out of range or NaN counts as the nearest bound, or 0.
    pub semantic: f32,
}

/// A score with its terms, before they are weighed.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let store = pmll::Store::open(dir.path().join("memory"))?;
/// # let notes = store.collection("notes")?;
/// # notes.put("a", pmll::Draft::text("one").salience(0.5))?;
/// let why = notes.why("a")?.expect("it is there");
/// assert_eq!(why.score.semantic, 0.5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Score {
    /// 1 for the newest, 0.5 one half-life before.
    pub recency: f32,
    /// 0 for none, 1 from 255 accesses on.
    pub frequency: f32,
    /// Salience, or greatest cosine to a query.
    pub semantic: f32,
    /// The weighed sum.
    pub total: f32,
}

/// The score of one entry.
#[must_use]
pub fn terms(frame: &Frame, inputs: Inputs) -> Score {
    let half_life = frame.half_life_us.max(1) as f64;
    let halvings = |since: i64| frame.newest_us.saturating_sub(since).max(0) as f64 / half_life;
    let recency = (-halvings(inputs.active_us)).exp2();
    let count = f64::from(inputs.count) * (-halvings(inputs.accessed_us)).exp2();
    let frequency = (count.ln_1p() / 256_f64.ln()).min(1.0);
    // NaN becomes 0: `max` answers the other operand.
    // Not `clamp`, which leaves NaN as it is: `max` makes 0 of it.
    #[allow(clippy::manual_clamp, reason = "NaN has to become 0")]
    let semantic = f64::from(inputs.semantic.max(0.0).min(1.0));
    let weights = frame.weights;
    let (a1, a2, a3) = (weights.recency(), weights.frequency(), weights.semantic());
    let total = f64::from(a1) * recency + f64::from(a2) * frequency + f64::from(a3) * semantic;
    Score {
        recency: recency as f32,
        frequency: frequency as f32,
        semantic: semantic as f32,
        total: total.clamp(0.0, 1.0) as f32,
    }
}

/// Columns of inputs, all of one length.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// [`Inputs::active_us`].
    pub active_us: &'a [i64],
    /// [`Inputs::accessed_us`].
    pub accessed_us: &'a [i64],
    /// [`Inputs::count`].
    pub counts: &'a [u32],
    /// [`Inputs::semantic`].
    pub semantic: &'a [f32],
}

impl Columns<'_> {
    fn row(&self, at: usize) -> Option<Inputs> {
        Some(Inputs {
            active_us: *self.active_us.get(at)?,
            accessed_us: *self.accessed_us.get(at)?,
            count: *self.counts.get(at)?,
            semantic: *self.semantic.get(at)?,
        })
    }
}

/// Scores of all rows into `scores`, which has their number.
pub fn scores(frame: &Frame, columns: &Columns<'_>, scores: &mut [f32]) {
    let fill = |first: usize, part: &mut [f32]| {
        for (score, at) in part.iter_mut().zip(first..) {
            *score = columns.row(at).map_or(0.0, |inputs| terms(frame, inputs).total);
        }
    };
    if scores.len() < PARALLEL_ROWS_MIN {
        fill(0, scores);
        return;
    }
    let parts = scores.par_chunks_mut(CHUNK_ROWS).enumerate();
    parts.for_each(|(number, part)| fill(number * CHUNK_ROWS, part));
}

/// The newest event of a collection: what age is counted from.
#[must_use]
pub fn newest_us(active_us: &[i64]) -> i64 {
    active_us.iter().copied().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    fn frame() -> Frame {
        Frame { weights: Weights::default(), newest_us: 100 * DAY, half_life_us: 7 * DAY }
    }

    fn near(a: f32, b: f64) {
        assert!((f64::from(a) - b).abs() < 1e-6, "{a} is not {b}");
    }

    #[test]
    fn examples_by_hand() {
        let inputs =
            Inputs { active_us: 93 * DAY, accessed_us: 100 * DAY, count: 15, semantic: 0.25 };
        let score = terms(&frame(), inputs);
        near(score.recency, 0.5);
        near(score.frequency, 0.5); // ln 16 / ln 256
        near(score.semantic, 0.25);
        near(score.total, 0.4 * 0.5 + 0.3 * 0.5 + 0.3 * 0.25);
        // Seven days after the last access 30 count as 15.
        let older = Inputs { accessed_us: 93 * DAY, count: 30, ..inputs };
        near(terms(&frame(), older).frequency, 0.5);
        let full = Inputs { active_us: 100 * DAY, count: 255, semantic: 1.0, ..inputs };
        near(terms(&frame(), full).total, 1.0);
    }

    #[test]
    fn what_is_out_of_range_is_clamped() {
        let wild = Inputs {
            active_us: i64::MAX,
            accessed_us: i64::MIN,
            count: u32::MAX,
            semantic: f32::NAN,
        };
        let score = terms(&frame(), wild);
        assert_eq!((score.recency, score.frequency, score.semantic), (1.0, 0.0, 0.0));
        let wild = Inputs { active_us: i64::MIN, accessed_us: i64::MAX, semantic: 9.0, ..wild };
        let score = terms(&frame(), wild);
        assert_eq!((score.recency, score.frequency, score.semantic), (0.0, 1.0, 1.0));
        assert!(Weights::new(0.4, 0.3, 0.4).is_err() && Weights::new(-0.1, 0.6, 0.5).is_err());
        assert!(Weights::new(f32::NAN, 0.5, 0.5).is_err() && Weights::new(0.0, 0.0, 1.0).is_ok());
    }

    #[test]
    fn columns_score_as_single_rows_on_one_thread_and_on_many() {
        let rows = 40_000;
        let active: Vec<i64> = (0..rows).map(|n| (n * 7919) % (100 * DAY)).collect();
        let accessed: Vec<i64> = (0..rows).map(|n| (n * 104_729) % (100 * DAY)).collect();
        let counts: Vec<u32> = (0..rows).map(|n| (n % 300) as u32).collect();
        let semantic: Vec<f32> = (0..rows).map(|n| (n % 101) as f32 / 100.0).collect();
        let columns = Columns {
            active_us: &active,
            accessed_us: &accessed,
            counts: &counts,
            semantic: &semantic,
        };
        let mut found = vec![0.0; rows as usize];
        for threads in [1, 2, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| scores(&frame(), &columns, &mut found));
            for (at, found) in found.iter().enumerate() {
                let one = terms(&frame(), columns.row(at).unwrap()).total;
                assert_eq!(found.to_bits(), one.to_bits(), "row {at}, {threads} threads");
            }
        }
    }
}
