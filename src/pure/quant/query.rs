//! A query prepared for one layout of packed rows, and the scores of rows against it.
//!
//! The query is rounded once to integers of 16 bits, `q = scale * t`, |t| <= 32,512. Then
//!
//! `q . decoded = scale * sum over groups of (min * sum(t) + step * sum(t * code))`
//!
//! where both inner sums are integers: they come out the same in any order, so every instruction
//! set gives the same score to the bit. What stands outside is done in f64, group after group in
//! order, and rounded to f32 once. The rounding of the query costs at most `scale / 2` a value,
//! 1/65,024 of its largest value: nothing beside the error of the codes.
//!
//! Byte dot products want a query of 8 bits: `t = 256 * high + low`, both halves kept (for AVX-512). For
//! 4-bit codes the halves of a byte are apart by one value, so values at even and at odd places are
//! kept apart. Scores are finite, higher is better, never NaN, whatever bytes a row holds.
#![allow(unsafe_code)]

#[cfg(target_arch = "aarch64")]
use super::neon;
use super::{Bits, CONSTANTS_BYTES, NORM_BYTES, RowLayout, pack, scalar};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::pure::{Level, Simd, Wide};
use crate::words::options::Metric;

/// Asks for the bytes of a row, which some work later will be scored. Elsewhere than on x86-64 it does
/// nothing.
#[inline]
#[allow(unused_unsafe)] // Prefetching is unsafe for the oldest compiler supported, safe for newer ones.
pub fn fetch(row: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in row.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction; a prefetch reads nothing the program can see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

/// 127 * 256: the high byte of a rounded value stays within -127 to 127.
pub(super) const QUERY_MAX: f64 = 32_512.0;

/// A query with what scoring of packed rows needs of it.
#[derive(Clone, Debug)]
pub struct CodeQuery {
    layout: RowLayout,
    metric: Metric,
    simd: Simd,
    scale: f64,
    norm: f64,
    /// Sum of the rounded values of each group.
    sums: Box<[f64]>,
    pub(super) parts: Parts,
}

/// The rounded query, in the order of the codes' bytes: for 8 bits all of it in `even`, for 4 bits
/// the values at even places there and those at odd places in `odd`.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) even: Rounded,
    pub(super) odd: Rounded,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Rounded {
    /// All values.
    pub(super) whole: Box<[i16]>,
    /// Their high and low bytes, 64 at a time; every group begins a new pair and ends in zeros. For
    /// the one kernel that multiplies bytes.
    #[cfg(target_arch = "x86_64")]
    pub(super) halves: Box<[Halves]>,
}

#[cfg(target_arch = "x86_64")]
pub(super) type Halves = [[i8; HALF]; 2];
/// Values of which the halves stand together: one register of bytes.
#[cfg(target_arch = "x86_64")]
pub(super) const HALF: usize = 64;

impl Rounded {
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
    fn new(whole: Vec<i16>, group: usize) -> Rounded {
        Rounded {
            #[cfg(target_arch = "x86_64")]
            halves: Rounded::halves(&whole, group),
            whole: whole.into(),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn halves(whole: &[i16], group: usize) -> Box<[Halves]> {
        let mut halves = Vec::with_capacity(whole.len().div_ceil(HALF));
        for values in whole.chunks(group).flat_map(|group| group.chunks(HALF)) {
            let mut pair = [[0; HALF]; 2];
            let [highs, lows] = &mut pair;
            for ((value, high), low) in values.iter().zip(highs).zip(lows) {
                // Not above 32,512: 128 more has room.
                *high = (value.wrapping_add(128) >> 8) as i8;
                *low = *value as i8;
            }
            halves.push(pair);
        }
        halves.into()
    }

    /// The values of one group.
    #[inline(always)]
    pub(super) fn group(&self, layout: RowLayout, index: usize) -> &[i16] {
        &self.whole[index * layout.bits().code_bytes(layout.group())..]
    }

    /// The halves of one group.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn group_halves(&self, layout: RowLayout, index: usize) -> &[Halves] {
        &self.halves[index * layout.bits().code_bytes(layout.group()).div_ceil(HALF)..]
    }
}

impl CodeQuery {
    /// Prepares `query` for rows of `layout`.
    ///
    /// # Panics
    /// When the query has not the dimension of the layout.
    #[must_use]
    pub fn new(layout: RowLayout, metric: Metric, query: &[f32]) -> CodeQuery {
        CodeQuery::with_simd(layout, metric, query, Simd::best())
    }

    /// The same for one instruction set.
    ///
    /// # Panics
    /// When the query has not the dimension of the layout.
    #[must_use]
    pub fn with_simd(layout: RowLayout, metric: Metric, query: &[f32], simd: Simd) -> CodeQuery {
        assert_eq!(query.len(), layout.dim(), "dimension of the query");
        // Sizes of finite values are in the order of their bits, which compilers compare many at a time.
        let largest = query.iter().map(|q| q.abs().to_bits()).max().unwrap_or(0);
        let largest = f32::from_bits(largest);
        let scale = f64::from(largest) / QUERY_MAX;
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let rounded = query.rounded(inverse);
        let group_sum = |group: &[i16]| group.iter().map(|t| i64::from(*t)).sum::<i64>() as f64;
        let group_bytes = layout.bits().code_bytes(layout.group());
        let places = |from: usize| {
            let mut values: Vec<i16> = rounded.iter().copied().skip(from).step_by(2).collect();
            // An odd dimension: the last byte has a high half, which is 0.
            values.resize(layout.dim().div_ceil(2), 0);
            Rounded::new(values, group_bytes)
        };
        let sums = rounded.chunks(layout.group()).map(group_sum).collect();
        let parts = match layout.bits() {
            Bits::Eight => {
                Parts { even: Rounded::new(rounded, group_bytes), odd: Rounded::default() }
            }
            Bits::Four => Parts { even: places(0), odd: places(1) },
        };
        CodeQuery { layout, metric, simd, scale, norm: query.norm_wide(), sums, parts }
    }

    /// The layout of the rows it can score.
    #[must_use]
    pub fn layout(&self) -> RowLayout {
        self.layout
    }

    /// Score of one packed row: cosine in [-1, 1] (0 when either norm is zero), dot product, or
    /// negative squared distance, of the query and the decoded row.
    ///
    /// # Panics
    /// When the row has not the length of the layout.
    #[must_use]
    pub fn score(&self, row: &[u8]) -> f32 {
        let mut score = 0.0;
        self.score_rows(row, std::slice::from_mut(&mut score));
        score
    }

    /// How far the score of a row may lie from that of the vector it was made of, but once in some
    /// hundred times: three standard deviations of the sum of all roundings, which are even within
    /// half a step.
    ///
    /// # Panics
    /// When the row has not the length of the layout.
    #[must_use]
    pub fn slack(&self, row: &[u8]) -> f32 {
        assert_eq!(row.len(), self.layout.row_bytes(), "bytes of the row");
        let step = match self.layout.groups() {
            1 => pack::constants(row, 0).1.max(0.0),
            groups => (0..groups).map(|group| pack::constants(row, group).1).fold(0.0, f32::max),
        };
        // The error of the dot product: each value is off by step / sqrt(12) on average.
        let dot = 3.0 * f64::from(step) / 12.0_f64.sqrt() * self.norm;
        slack(self.metric, dot, self.norm * f64::from(pack::norm(row)))
    }

    /// Scores of rows that lie one after the other.
    ///
    /// # Panics
    /// When `rows` is not `scores.len()` rows long.
    pub fn score_rows(&self, rows: &[u8], scores: &mut [f32]) {
        assert_eq!(rows.len(), scores.len() * self.layout.row_bytes(), "bytes of the rows");
        match self.simd.level() {
            Level::Scalar => scalar::score_rows(self, rows, scores),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Simd` of this level exists only where AVX2 was found.
            Level::Avx2 => unsafe { avx2::score_rows(self, rows, scores) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Simd` of this level exists only where these parts of AVX-512 were found.
            Level::Avx512 => unsafe { avx512::score_rows(self, rows, scores) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: a `Simd` of this level exists only where NEON was found.
            Level::Neon => unsafe { neon::score_rows(self, rows, scores) },
        }
    }

    /// Scores of four rows that lie anywhere: less than four single ones take where a kernel knows how to use the
    /// query for all of them.
    ///
    /// # Panics
    /// When a row has not the length of the layout.
    #[must_use]
    pub fn score_four(&self, rows: [&[u8]; 4]) -> [f32; 4] {
        let row_bytes = self.layout.row_bytes();
        assert!(rows.iter().all(|row| row.len() == row_bytes), "bytes of the rows");
        #[cfg(target_arch = "x86_64")]
        if self.simd.level() == Level::Avx512 && self.has_bytes_of_one_group() {
            // SAFETY: a `Simd` of this level exists only where these parts of AVX-512 were found.
            return unsafe { avx512::score_four(self, rows) };
        }
        rows.map(|row| self.score(row))
    }

    /// Whether the codes are bytes, and one set of constants serves a row, as in a store.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn has_bytes_of_one_group(&self) -> bool {
        self.layout.groups() == 1 && self.layout.bits() == Bits::Eight
    }

    /// The score of a row of one group, of which `product` is the sum of the products of codes and query.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn of_one_group(&self, row: &[u8], product: i64) -> f32 {
        let (norm, constants) = row.split_at(NORM_BYTES);
        let (min, step) = pack::take_constants(constants);
        let dot = f64::from(min) * self.sums[0] + f64::from(step) * product as f64;
        // As if the sum over all groups had begun with it.
        self.finish((0.0 + dot) * self.scale, f64::from(pack::norm(norm)))
    }

    /// The loop around a kernel: `sum(codes, group)` is the sum of the products of a group's codes
    /// with the query.
    #[inline(always)]
    pub(super) fn each_row(
        &self,
        rows: &[u8],
        scores: &mut [f32],
        sum: impl Fn(&[u8], usize) -> i64,
    ) {
        let layout = self.layout;
        let group_bytes = layout.bits().code_bytes(layout.group());
        let row_bytes = layout.row_bytes();
        let mut rows = rows;
        // Cut off piece by piece: iterators over chunks divide first, which costs as much as a row.
        for score in scores {
            let (row, rest) = rows.split_at(row_bytes);
            rows = rest;
            let (header, mut codes) = row.split_at(layout.codes_at());
            let (norm, mut constants) = header.split_at(NORM_BYTES);
            let mut dot = 0.0;
            for (group, sums) in self.sums.iter().enumerate() {
                let (own_constants, rest) = constants.split_at(CONSTANTS_BYTES);
                constants = rest;
                let (own_codes, rest) = codes.split_at(codes.len().min(group_bytes));
                codes = rest;
                let (min, step) = pack::take_constants(own_constants);
                dot += f64::from(min) * sums + f64::from(step) * sum(own_codes, group) as f64;
            }
            *score = self.finish(dot * self.scale, f64::from(pack::norm(norm)));
        }
    }

    #[inline(always)]
    fn finish(&self, dot: f64, norm: f64) -> f32 {
        finish(self.metric, self.norm, dot, norm)
    }

    pub(super) fn metric(&self) -> Metric {
        self.metric
    }

    pub(super) fn simd(&self) -> Simd {
        self.simd
    }

    /// What a unit of the rounded values is.
    pub(super) fn scale(&self) -> f64 {
        self.scale
    }

    pub(super) fn norm(&self) -> f64 {
        self.norm
    }
}

/// The score of a row of this norm, of its dot product with a query.
#[inline(always)]
pub(super) fn finish(metric: Metric, query_norm: f64, dot: f64, norm: f64) -> f32 {
    if !dot.is_finite() || !norm.is_finite() {
        // Only a damaged row does this: the worst score there is.
        return if metric == Metric::Cosine { -1.0 } else { f32::MIN };
    }
    let score = match metric {
        Metric::Dot => dot,
        Metric::Cosine => {
            let norms = query_norm * norm;
            let cosine = if norms == 0.0 { 0.0 } else { dot / norms };
            return cosine.clamp(-1.0, 1.0) as f32 + 0.0;
        }
        // Below zero by cancellation only.
        Metric::L2 => -(query_norm * query_norm - 2.0 * dot + norm * norm).max(0.0),
    };
    score.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32 + 0.0
}

/// How far a score is off, of what the dot product is off by; `norms` is the product of both norms.
#[inline(always)]
pub(super) fn slack(metric: Metric, dot: f64, norms: f64) -> f32 {
    let slack = match metric {
        Metric::Dot => dot,
        Metric::Cosine => {
            if norms > 0.0 {
                dot / norms
            } else {
                2.0
            }
        }
        Metric::L2 => 2.0 * dot,
    };
    if slack.is_nan() { f32::MAX } else { slack.min(f64::from(f32::MAX)) as f32 }
}
