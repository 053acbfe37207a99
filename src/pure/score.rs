//! Importance: what an entry is worth keeping near, in [0, 1].
//!
//! `s = a1 * recency + a2 * frequency + a3 * semantic`, each term in [0, 1], the weights summing to 1:
//!
//! - recency = 2^(-age / H). Age runs from the later of event and last access to the newest event of the
//!   collection, not to the wall clock, so that idle weeks, imports of old material and a wrong clock move
//!   nothing; an entry that was read after that event is of age 0.
//! - frequency = min(1, ln(1 + c) / ln 256), c = the count of accesses, each halved every [`HEAT_HALF_LIFE_US`]
//!   ([`decayed`]) up to the newest access or query of the collection.
//! - semantic = the caller's salience, or the greatest cosine to a query, halved likewise.
//!
//! What is newest, [`Newest`] says: a time that lies in the future of the run (a clock that was wrong once)
//! is nobody's newest.
//!
//! Formulas: DESIGN section 2. [`terms`] is the specification, [`scores`] the same arithmetic over columns:
//! no branches, powers and logarithms as polynomials, so that the compiler makes vector code of it. Additions
//! and products keep their order, so one thread and many, and every width of vectors, give the same bits.

use rayon::prelude::*;

use crate::words::rule::Weights;

/// Rows from which on several threads share the work.
const PARALLEL_ROWS_MIN: usize = 1 << 14;
/// Rows a thread takes at once.
const CHUNK_ROWS: usize = 1 << 12;

/// Time in which an access, and the nearness to a query, count half: 30 days.
pub const HEAT_HALF_LIFE_US: i64 = 30 * 86_400_000_000;
/// Accesses from which on frequency is 1.
const HEAT_FULL: f64 = 255.0;

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
    /// Decayed count of accesses.
    pub heat: f32,
    /// Salience or decayed greatest cosine; out of range or NaN counts as the nearest bound, or 0.
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
    /// 0 for none, 1 from 255 accesses on, where older ones count less.
    pub frequency: f32,
    /// Salience, or greatest cosine to a query, where older ones count less.
    pub semantic: f32,
    /// The weighed sum.
    pub total: f32,
}

/// The score of one entry.
#[must_use]
pub fn terms(frame: &Frame, inputs: Inputs) -> Score {
    Row::of(&Scale::of(frame), inputs.active_us, inputs.heat, inputs.semantic).score()
}

/// Columns of inputs, all of one length.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// [`Inputs::active_us`].
    pub active_us: &'a [i64],
    /// [`Inputs::heat`].
    pub heat: &'a [f32],
    /// [`Inputs::semantic`].
    pub semantic: &'a [f32],
}

/// Scores of all rows into `scores`, which has their number.
pub fn scores(frame: &Frame, columns: &Columns<'_>, scores: &mut [f32]) {
    let scale = Scale::of(frame);
    let fill = |first: usize, part: &mut [f32]| {
        let rows = first..first + part.len();
        let (Some(active), Some(heat), Some(semantic)) = (
            columns.active_us.get(rows.clone()),
            columns.heat.get(rows.clone()),
            columns.semantic.get(rows),
        ) else {
            return;
        };
        let inputs = active.iter().zip(heat).zip(semantic);
        for (score, ((active, heat), semantic)) in part.iter_mut().zip(inputs) {
            *score = Row::of(&scale, *active, *heat, *semantic).total as f32;
        }
    };
    if scores.len() < PARALLEL_ROWS_MIN {
        fill(0, scores);
        return;
    }
    let parts = scores.par_chunks_mut(CHUNK_ROWS).enumerate();
    parts.for_each(|(number, part)| fill(number * CHUNK_ROWS, part));
}

/// A count or nearness of `then`, as it stands `now`; times in microseconds.
#[must_use]
pub fn decayed(value: f32, then_us: i64, now_us: i64) -> f32 {
    let scale = Scale { newest_us: now_us, per_us: 1.0 / HEAT_HALF_LIFE_US as f64, a: [0.0; 3] };
    (f64::from(value) * scale.recency(then_us)) as f32
}

/// The newest of some times.
#[derive(Clone, Copy, Debug, Default)]
pub struct Newest {
    known: Option<i64>,
    /// Of those that are in the future.
    ahead: Option<i64>,
}

impl Newest {
    /// Looks at one more.
    pub fn see(&mut self, us: i64, now_us: i64) {
        let which = if us <= now_us { &mut self.known } else { &mut self.ahead };
        *which = (*which).max(Some(us));
    }

    /// The newest that is not in the future; when all are, it is now that is wrong, and the newest of
    /// all counts.
    #[must_use]
    pub fn us(self) -> i64 {
        self.known.or(self.ahead).unwrap_or(0)
    }
}

/// A frame as the arithmetic wants it.
#[derive(Clone, Copy)]
struct Scale {
    newest_us: i64,
    /// Halvings in a microsecond.
    per_us: f64,
    a: [f64; 3],
}

impl Scale {
    fn of(frame: &Frame) -> Scale {
        let Weights { recency, frequency, semantic } = frame.weights;
        Scale {
            newest_us: frame.newest_us,
            per_us: 1.0 / frame.half_life_us.max(1) as f64,
            a: [f64::from(recency), f64::from(frequency), f64::from(semantic)],
        }
    }

    #[inline(always)]
    fn recency(&self, since_us: i64) -> f64 {
        // Not below 0, so that the difference fits; and no more than 142 years, so that it is exact.
        let age = self.newest_us.wrapping_sub(since_us.min(self.newest_us)) as u64;
        exp2(greater(-float(age.min(FLOAT_BITS_MAX)) * self.per_us, -1000.0))
    }
}

/// The terms of an entry, unrounded.
struct Row {
    recency: f64,
    frequency: f64,
    semantic: f64,
    total: f64,
}

impl Row {
    #[inline(always)]
    fn of(scale: &Scale, active_us: i64, heat: f32, semantic: f32) -> Row {
        let recency = scale.recency(active_us);
        let heat = lesser(greater(f64::from(heat), 0.0), HEAT_FULL);
        let frequency = log2(1.0 + heat) * 0.125;
        let semantic = lesser(greater(f64::from(semantic), 0.0), 1.0);
        let [a1, a2, a3] = scale.a;
        let total = a1 * recency + a2 * frequency + a3 * semantic;
        Row { recency, frequency, semantic, total: lesser(greater(total, 0.0), 1.0) }
    }

    fn score(&self) -> Score {
        Score {
            recency: self.recency as f32,
            frequency: self.frequency as f32,
            semantic: self.semantic as f32,
            total: self.total as f32,
        }
    }
}

// `f64::max` asks for more than one instruction; these are one, and make the second of a NaN.
#[inline(always)]
fn greater(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

#[inline(always)]
fn lesser(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}

/// Bits of a fraction: integers up to here are exact in a float.
const FLOAT_BITS: u32 = 52;
const FLOAT_BITS_MAX: u64 = (1 << FLOAT_BITS) - 1;
/// 2^52, whose last bit is worth 1, and its bits.
const ONES: f64 = 4_503_599_627_370_496.0;

/// An integer below 2^52 as a float: as the fraction of a number whose last bit is worth 1. Vector units
/// have no instruction for it.
#[inline(always)]
fn float(integer: u64) -> f64 {
    f64::from_bits(ONES.to_bits() | integer) - ONES
}

/// 2^x for x in [-1000, 0], within 1e-8 of its value: 2^whole by the exponent's bits, 2^f for f in
/// [-0.5, 0.5] by the series of e^(f ln 2).
#[inline(always)]
fn exp2(x: f64) -> f64 {
    // Adding 1.5 * 2^52 rounds to a whole number, and leaves it in the last bits.
    const ROUND: f64 = 1.5 * ONES;
    const SERIES: [f64; 7] = [
        std::f64::consts::LN_2,
        0.240_226_506_959_100_7,
        0.055_504_108_664_821_58,
        0.009_618_129_107_628_477,
        0.001_333_355_814_642_844_3,
        0.000_154_035_303_933_816_1,
        0.000_015_252_733_804_059_84,
    ];
    let shifted = x + ROUND;
    let f = x - (shifted - ROUND);
    let [c1, c2, c3, c4, c5, c6, c7] = SERIES;
    let power = 1.0 + f * (c1 + f * (c2 + f * (c3 + f * (c4 + f * (c5 + f * (c6 + f * c7))))));
    power * f64::from_bits(shifted.to_bits().wrapping_add(1023) << FLOAT_BITS)
}

/// log2 of y in [1, 256], within 1e-8: the exponent, and for m in [sqrt 0.5, sqrt 2) the series of
/// ln m = 2 artanh((m - 1) / (m + 1)).
#[inline(always)]
fn log2(y: f64) -> f64 {
    const SQRT_HALF_BITS: u64 = std::f64::consts::FRAC_1_SQRT_2.to_bits();
    let above = y.to_bits().wrapping_sub(SQRT_HALF_BITS);
    let m = f64::from_bits((above & FLOAT_BITS_MAX).wrapping_add(SQRT_HALF_BITS));
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let ln = s * (2.0 + s2 * (2.0 / 3.0 + s2 * (0.4 + s2 * (2.0 / 7.0 + s2 * (2.0 / 9.0)))));
    float(above >> FLOAT_BITS) + ln * std::f64::consts::LOG2_E
}

#[cfg(test)]
mod tests;
