//! Brief rows: 3 bits a value, made of a row of 8 bits, to say which of some hundred candidates are worth more.
//!
//! Where a budget has no room for the codes of all rows, it may have room for these: 156 bytes of 384 values, where
//! codes of 8 bits take 396 and of 4 bits 204. They are kept in RAM alone, and made anew when they are wanted.
//!
//! # A row
//!
//! What the vector x has beside the mean of its group is kept, `r = x - |x| mean`, the mean being of vectors of length
//! 1: values that all rows share would take the few levels there are. A value is kept as
//! `k = clamp(floor(r / step), -4, 3)`, with a step of 0.586 times the root of the mean square of all: what a
//! uniform code of eight levels loses least with, of normally distributed values (J. Max, "Quantizing for minimum
//! distortion", 1960). It stands for `factor * (k + 1/2)`, and the factor is such that the row is right about its own
//! direction: with v all of the `k + 1/2`, `factor = |r|^2 / (v . r)`, so that what it is off by stands at a right
//! angle to r, and is `error = sqrt(factor^2 |v|^2 - |r|^2)` long. Along a direction that has nothing to do
//! with it that comes to `error / sqrt(dim)`, one standard deviation. Normally distributed values make an error of a
//! fifth of |r|; what goes beyond a quarter comes of values that were cut off, in which queries may be as large as
//! rows: it counts whole.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | norm of the row of 8 bits, f32 |
//! | 4 | factor, f32 |
//! | 4 | slack: how far `r . q` may be off for a q of length 1, f32 |
//! | (dim + 3) / 4 = l | the two low bits of `k + 4`: of value i at the bits 2 (i / l) of byte i % l |
//! | (dim + 7) / 8 = h | the high bit: of value i at bit i / h of byte i % h |
//!
//! # A score
//!
//! The query is rounded to bytes, which puts a cosine off by some 0.0005, where three bits put it off by 0.01. Sums of
//! products are whole numbers, so that every instruction set gives the same score.
//!
//! Never: is written to a file, or the last word about a score.
#![allow(unsafe_code)]

#[cfg(target_arch = "aarch64")]
use super::neon;
use super::query::{self, CodeQuery};
use super::{Bits, NORM_BYTES, RowLayout, pack, scalar};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::pure::{Level, Simd, Wide};
use crate::words::limits::DIM_MAX;
use crate::words::options::Metric;

/// Norm, factor and slack.
const HEADER_BYTES: usize = 12;
/// A step over the root of the mean square.
const STEP: f64 = 0.586;
/// Bits a value.
pub const BRIEF_BITS: u8 = 3;
const LEVELS: usize = 1 << BRIEF_BITS;
/// 1.5 * 2^23: of values as large the last bit is a unit.
const LAST_BITS: f32 = 12_582_912.0;
/// Bits that stand together, and the one that does not.
pub(super) const LOW_BITS: u32 = 2;
pub(super) const HIGH_BITS: u32 = 1;
/// The longest register of bytes: so many zeros stand behind a query.
pub(super) const PAD: usize = 64;
/// Standard deviations of its error that a row is trusted to.
const TRUST: f64 = 2.5;
/// The part of a row's length that the error of normally distributed values stays below.
const NORMAL_ERROR: f64 = 0.25;

// Sums of products have room in 32 bits.
const _: () = assert!(DIM_MAX * 255 * (2 * LEVELS - 1) <= i32::MAX as usize);

/// How brief rows of one kind are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BriefLayout {
    whole: RowLayout,
}

impl BriefLayout {
    /// Brief rows made of rows of this layout: 8 bits, one set of constants.
    ///
    /// # Panics
    /// When it is another one.
    #[must_use]
    pub fn of(whole: RowLayout) -> BriefLayout {
        assert!(whole.groups() == 1 && whole.bits() == Bits::Eight, "rows to be made brief");
        BriefLayout { whole }
    }

    /// Bytes of a row.
    #[must_use]
    pub const fn row_bytes(self) -> usize {
        HEADER_BYTES + self.low_bytes() + self.high_bytes()
    }

    const fn low_bytes(self) -> usize {
        self.whole.dim().div_ceil(4)
    }

    const fn high_bytes(self) -> usize {
        self.whole.dim().div_ceil(8)
    }
}

/// Makes the brief rows of a group; keeps what it works with.
#[derive(Clone, Debug)]
pub struct BriefMaker<'a> {
    layout: BriefLayout,
    mean: &'a [f32],
    /// What the row has beside the mean, the `k + 1/2` of it, and the `k + 4`.
    left: Vec<f32>,
    kept: Vec<f32>,
    levels: Vec<u8>,
}

impl<'a> BriefMaker<'a> {
    /// Makes rows of this layout, less a mean of vectors scaled to length 1.
    ///
    /// # Panics
    /// When the mean has not the dimension of the layout.
    #[must_use]
    pub fn new(layout: BriefLayout, mean: &'a [f32]) -> BriefMaker<'a> {
        let dim = layout.whole.dim();
        assert_eq!(mean.len(), dim, "dimension of the mean");
        // Behind the values there are as many zeros as the last bytes have places.
        let levels = vec![0; 8 * layout.high_bytes()];
        BriefMaker { layout, mean, left: vec![0.0; dim], kept: vec![0.0; dim], levels }
    }

    /// Writes the brief row of a row of 8 bits.
    ///
    /// # Panics
    /// When a row has not the length of its layout.
    pub fn make(&mut self, row: &[u8], brief: &mut [u8]) {
        let (layout, dim) = (self.layout, self.layout.whole.dim());
        let lengths = (row.len(), brief.len());
        assert_eq!(lengths, (layout.whole.row_bytes(), layout.row_bytes()), "row lengths");
        let (norm, (min, unit)) = (pack::norm(row), pack::constants(row, 0));
        let codes = &row[layout.whole.codes_at()..];
        // In f32, many values at a time: what it rounds is nothing beside what three bits leave out.
        for ((left, code), mean) in self.left.iter_mut().zip(codes).zip(self.mean) {
            *left = min + unit * f32::from(*code) - norm * mean;
        }
        let len = self.left.norm_wide();
        let step = STEP * len / (dim as f64).sqrt();
        let inverse = if step > 0.0 { (1.0 / step) as f32 } else { 0.0 };
        let levels = self.levels.iter_mut().zip(&mut self.kept);
        for (left, (level, kept)) in self.left.iter().zip(levels) {
            // The whole number next to a half less is the floor, and stands in the last bits of so large a value: a
            // cast would be done value by value.
            let place = (left * inverse + 3.5).clamp(0.0, 7.0) + LAST_BITS;
            *level = (place.to_bits() & (LEVELS as u32 - 1)) as u8;
            *kept = (place - LAST_BITS) - 3.5;
        }
        let own = self.kept.dot_wide(&self.left);
        let factor = if own > 0.0 { len * len / own } else { 0.0 };
        let (kept, square) = (factor * self.kept.norm_wide(), len * len);
        let error = (kept * kept - square).max(0.0).sqrt();
        let slack = TRUST * error / (dim as f64).sqrt() + (error - NORMAL_ERROR * len).max(0.0);
        let (header, bits) = brief.split_at_mut(HEADER_BYTES);
        let values = [norm, factor as f32, slack as f32];
        for (bytes, value) in header.chunks_exact_mut(4).zip(values) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        let (low, high) = bits.split_at_mut(layout.low_bytes());
        put_fields::<LOW_BITS>(&self.levels, 0, low);
        put_fields::<HIGH_BITS>(&self.levels, LOW_BITS, high);
    }
}

/// Puts so many bits of each level, those from one on, into bytes.
fn put_fields<const BITS: u32>(levels: &[u8], from: u32, bytes: &mut [u8]) {
    bytes.fill(0);
    let len = bytes.len();
    for (nth, levels) in (0..8 / BITS).zip(levels.chunks_exact(len)) {
        for (byte, level) in bytes.iter_mut().zip(levels) {
            *byte |= (level >> from & ((1 << BITS) - 1)) << (nth * BITS);
        }
    }
}

/// A query prepared for brief rows.
#[derive(Clone, Debug)]
pub struct BriefQuery {
    layout: BriefLayout,
    metric: Metric,
    simd: Simd,
    /// What a step of the rounded values is.
    scale: f64,
    norm: f64,
    /// Half of what a level is above the lowest, times the sum of all values.
    offset: f64,
    /// How far rounding may put a dot product with a row of length 1 off.
    rounding: f64,
    values: Box<[i8]>,
}

impl BriefQuery {
    /// The query for rows that are made of those that `query` scores: 8 bits, one set of constants.
    ///
    /// # Panics
    /// When those are others.
    #[must_use]
    pub fn of(query: &CodeQuery) -> BriefQuery {
        let layout = BriefLayout::of(query.layout());
        // 32,512 is 127 times 256.
        let high = |value: &i16| ((i32::from(*value) + 128) >> 8) as i8;
        let mut values: Vec<i8> = query.parts.even.whole.iter().map(high).collect();
        let sum: i32 = values.iter().map(|value| i32::from(*value)).sum();
        values.resize(values.len() + 8 + PAD, 0);
        let offset = f64::from(sum) * (LEVELS as f64 - 1.0) / 2.0;
        let (metric, simd, norm) = (query.metric(), query.simd(), query.norm());
        let scale = query.scale() * 256.0;
        let rounding = TRUST * scale / 12.0_f64.sqrt();
        BriefQuery { layout, metric, simd, scale, norm, offset, rounding, values: values.into() }
    }

    /// The score of a row, as that of [`CodeQuery`], and how far it may lie from that of the row it was made of, but
    /// once in some eighty times. `base` is the dot product of the query and the mean that the row is without.
    ///
    /// # Panics
    /// When the row has not the length of the layout.
    #[must_use]
    pub fn score(&self, row: &[u8], base: f64) -> (f32, f32) {
        assert_eq!(row.len(), self.layout.row_bytes(), "bytes of the row");
        let (header, bits) = row.split_at(HEADER_BYTES);
        let (low, high) = bits.split_at(self.layout.low_bytes());
        let sum = match self.simd.level() {
            Level::Scalar => scalar::brief(low, high, &self.values),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Simd` of this level exists only where AVX2 was found.
            Level::Avx2 => unsafe { avx2::brief(low, high, &self.values) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Simd` of this level exists only where these parts of AVX-512 were found.
            Level::Avx512 => unsafe { avx512::brief(low, high, &self.values) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: a `Simd` of this level exists only where NEON was found.
            Level::Neon => unsafe { neon::brief(low, high, &self.values) },
        };
        let norm = f64::from(pack::norm(header));
        let (factor, slack) = pack::take_constants(&header[NORM_BYTES..]);
        let left = f64::from(factor) * (f64::from(sum) - self.offset) * self.scale;
        let dot = norm * base + left;
        // What is left of a vector is not much longer than it.
        let off = f64::from(slack) * self.norm + self.rounding * norm;
        let slack = query::slack(self.metric, off, self.norm * norm);
        (query::finish(self.metric, self.norm, dot, norm), slack)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pure::quant::{decode, encode};

    fn whole(dim: usize) -> RowLayout {
        RowLayout::new(dim, 0, Bits::Eight).unwrap()
    }

    /// Normally distributed values, the same with every run.
    fn normal(seed: u64, dim: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut even = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        (0..dim).map(|_| (0..12).map(|_| even()).sum::<f32>() - 6.0).collect()
    }

    fn brief_of(layout: RowLayout, mean: &[f32], vector: &[f32]) -> (Vec<u8>, Vec<u8>) {
        let mut row = vec![0; layout.row_bytes()];
        encode(layout, vector, &mut row);
        let brief = BriefLayout::of(layout);
        let mut made = vec![0; brief.row_bytes()];
        BriefMaker::new(brief, mean).make(&row, &mut made);
        (row, made)
    }

    /// What a brief row stands for beside the mean, by its description alone.
    fn read(dim: usize, brief: &[u8]) -> Vec<f64> {
        let factor = f32::from_le_bytes(brief[4..8].try_into().unwrap());
        let (low, high) = (dim.div_ceil(4), dim.div_ceil(8));
        let bits = &brief[12..];
        let value = |i: usize| {
            let two = bits[i % low] >> (2 * (i / low)) & 3;
            let one = bits[low + i % high] >> (i / high) & 1;
            f64::from(factor) * (f64::from(two + 4 * one) - 4.0 + 0.5)
        };
        (0..dim).map(value).collect()
    }

    #[test]
    fn every_instruction_set_scores_as_the_description_says_at_every_length() {
        for dim in (1..200).chain([383, 384, 385, 768, 1024, 1536]) {
            let layout = whole(dim);
            let (vector, query) = (normal(dim as u64, dim), normal(7 + dim as u64, dim));
            let mean: Vec<f32> = normal(1, dim).iter().map(|v| v * 0.3 / dim as f32).collect();
            let (row, brief) = brief_of(layout, &mean, &vector);
            let base = mean.dot_wide(&query);
            for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
                let score = |simd| {
                    let query = CodeQuery::with_simd(layout, metric, &query, simd);
                    BriefQuery::of(&query).score(&brief, base)
                };
                let all: Vec<(f32, f32)> = Simd::all().into_iter().map(score).collect();
                assert!(all.iter().all(|one| *one == all[0]), "{dim} {metric:?}: {all:?}");
                let norm = f64::from(pack::norm(&row));
                let values = read(dim, &brief).into_iter().zip(&query);
                let left: f64 = values.map(|(v, q)| v * f64::from(*q)).sum();
                let (dot, norms) = (norm * base + left, norm * query.norm_wide());
                let squares = norm.powi(2) + query.norm_wide().powi(2);
                let expected = match metric {
                    Metric::Cosine => (dot / norms).clamp(-1.0, 1.0),
                    Metric::Dot => dot,
                    Metric::L2 => -(squares - 2.0 * dot).max(0.0),
                };
                // The query is rounded to a 127th of its largest value, which adds up over all of them.
                let unit = if metric == Metric::Cosine { 1.0 } else { norms };
                let off = (f64::from(all[0].0) - expected).abs();
                assert!(off <= 0.012 * unit, "{dim} {metric:?}: {} {expected}", all[0].0);
            }
        }
    }

    #[test]
    fn a_row_is_right_about_its_own_direction_and_knows_how_far_it_is_off() {
        let (layout, none) = (whole(384), [0.0; 384]);
        for seed in 0..50 {
            let (row, brief) = brief_of(layout, &none, &normal(seed, 384));
            let mut vector = vec![0.0; 384];
            decode(layout, &row, &mut vector);
            let own = read(384, &brief);
            let dot: f64 = own.iter().zip(&vector).map(|(a, b)| a * f64::from(*b)).sum();
            let square = vector.norm_wide().powi(2);
            assert!((dot / square - 1.0).abs() < 1e-5, "{dot} {square}");
            let off: f64 = own.iter().zip(&vector).map(|(a, b)| (a - f64::from(*b)).powi(2)).sum();
            // Max: a uniform code of eight levels loses 0.03744 of the square; made right along x, a little more.
            assert!((0.025..0.05).contains(&(off / square)), "{}", off / square);
            let slack = f64::from(f32::from_le_bytes(brief[8..12].try_into().unwrap()));
            let expected = 2.5 * off.sqrt() / 384.0_f64.sqrt();
            assert!((slack / expected - 1.0).abs() < 1e-3, "{slack} {expected}");
        }
    }

    /// How many of 2,000 brief scores lie further from those of 8 bits than they say, and the widest that they say.
    fn beyond(shared: &[f32], mean: &[f32]) -> (usize, f32) {
        let layout = whole(384);
        let with = |values: Vec<f32>| -> Vec<f32> {
            values.iter().zip(shared).map(|(value, shared)| value + shared).collect()
        };
        let (mut beyond, mut wide) = (0, 0.0_f32);
        for seed in 0..2000 {
            let (vector, other) = (normal(seed, 384), normal(seed + 5000, 384));
            // Hits of a search: cosines up to 0.9.
            let part = (seed % 10) as f32 / 5.0;
            let query = with(vector.iter().zip(&other).map(|(v, o)| part * v + o).collect());
            let (row, brief) = brief_of(layout, mean, &with(vector));
            let base = mean.dot_wide(&query);
            let query = CodeQuery::new(layout, Metric::Cosine, &query);
            let (score, slack) = BriefQuery::of(&query).score(&brief, base);
            beyond += usize::from((score - query.score(&row)).abs() > slack);
            wide = wide.max(slack);
        }
        (beyond, wide)
    }

    #[test]
    fn scores_lie_within_the_slack_of_those_of_eight_bits_but_for_one_in_eighty() {
        let (beyond, wide) = beyond(&[0.0; 384], &[0.0; 384]);
        assert!((1..=50).contains(&beyond), "{beyond} of 2000");
        assert!(wide < 0.035, "{wide}");
    }

    #[test]
    fn what_all_rows_share_is_the_means_and_what_no_mean_knows_widens_the_slack() {
        // Two values of each row, and of each query, that are 12 and 8 standard deviations of the others.
        let mut shared = [0.0; 384];
        (shared[5], shared[300]) = (12.0, -8.0);
        let none = [0.0; 384];
        let (far, wide) = beyond(&shared, &none);
        assert!(far <= 50 && wide > 0.05, "{far} of 2000, {wide}");
        let norm = (384.0_f32 + 12.0 * 12.0 + 8.0 * 8.0).sqrt();
        let mean = shared.map(|value| value / norm);
        let (far, wide) = beyond(&shared, &mean);
        assert!(far <= 50 && wide < 0.035, "{far} of 2000, {wide}");
    }

    #[test]
    fn rows_of_zeros_of_one_value_and_of_extremes_have_finite_scores() {
        let all = [0.0, 1.0, -1.0, f32::MIN_POSITIVE, 1e-30, 1e18, f32::MAX];
        for dim in [1, 2, 63, 64, 65, 384] {
            for (value, lone) in all.into_iter().flat_map(|value| [(value, false), (value, true)]) {
                let mut vector = vec![if lone { 0.0 } else { value }; dim];
                vector[dim - 1] = value;
                for mean in [0.0, 1.0 / (dim as f32).sqrt()] {
                    let mean = vec![mean; dim];
                    let (_, brief) = brief_of(whole(dim), &mean, &vector);
                    let query = normal(3, dim);
                    let base = mean.dot_wide(&query);
                    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
                        let query = CodeQuery::new(whole(dim), metric, &query);
                        let (score, slack) = BriefQuery::of(&query).score(&brief, base);
                        let is_known = score.is_finite() && slack.is_finite() && slack >= 0.0;
                        assert!(is_known, "{value} {dim} {metric:?}: {score} {slack}");
                        if value == 0.0 && metric == Metric::Cosine {
                            assert_eq!(score, 0.0);
                        }
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_scored_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 12 + 40),
            seed in any::<u64>(),
        ) {
            // 105 values: 27 and 14 bytes of codes; the row of 8 bits is any bytes, too.
            let layout = whole(105);
            let row: Vec<u8> = bytes.iter().cycle().take(layout.row_bytes()).copied().collect();
            let brief = BriefLayout::of(layout);
            let mut made = vec![0; brief.row_bytes()];
            BriefMaker::new(brief, &[0.1; 105]).make(&row, &mut made);
            let any: Vec<u8> = bytes.iter().cycle().take(made.len()).copied().collect();
            for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
                let query = BriefQuery::of(&CodeQuery::new(layout, metric, &normal(seed, 105)));
                for row in [&made, &any] {
                    let (score, slack) = query.score(row, 0.3);
                    prop_assert!(score.is_finite() && !slack.is_nan());
                }
            }
        }
    }
}
