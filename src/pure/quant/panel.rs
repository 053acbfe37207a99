//! Many queries at once: rows of 8-bit codes against a panel of queries of a byte a value.
//!
//! 1. Each query is rounded to whole numbers from -127 to 127, which puts a cosine off by some 0.0005: enough to
//!    say which of many centroids is nearest, or how near rows lie; searches take [`CodeQuery`](super::CodeQuery),
//!    whose 16 bits cost twice as much.
//! 2. A kernel multiplies a row with all queries, sums of whole numbers of 32 bits. AVX-512 takes sixteen queries a
//!    register, so that nothing is added up across one, and four rows by 64 queries at a time: each code that is
//!    loaded meets 64 queries, each query four rows. 2.4 ns for a row of 384 values and a query, where a row
//!    against one query takes 14 (Zen 4). Others go query by query.
//! 3. The score follows in f32, the same steps for all.
//!
//! Never: looks at anything but cosines, or takes rows with more than one set of constants.
#![allow(unsafe_code)]

#[cfg(target_arch = "aarch64")]
use super::neon;
use super::{Bits, CONSTANTS_BYTES, NORM_BYTES, RowLayout, pack, scalar};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::pure::{Level, Lines, Simd, Wide};
use crate::words::limits::DIM_MAX;

/// Queries of a register.
pub(super) const TOGETHER: usize = 16;
/// Values of each that stand together.
pub(super) const FEW: usize = 4;
/// The rounded values of sixteen queries at four places.
pub(super) type Places = [u8; TOGETHER * FEW];

/// What a rounded value does not exceed.
const VALUE_MAX: f64 = 127.0;

const _: () = assert!(DIM_MAX as i64 * 255 * VALUE_MAX as i64 <= i32::MAX as i64);

/// Queries, ready to be compared with rows.
#[derive(Debug)]
pub struct Panel {
    layout: RowLayout,
    simd: Simd,
    count: usize,
    /// Rounded values, for AVX-512: sixteen queries after sixteen, and of these four places after four.
    blocks: Lines,
    /// The same for all others: query after query.
    whole: Vec<i16>,
    /// Of each query the sum of its rounded values, and their unit over its length; zeros up to whole registers.
    pub(super) sums: Vec<f32>,
    pub(super) weights: Vec<f32>,
}

impl Panel {
    /// Prepares queries that stand one after the other for rows of bytes with one set of constants.
    ///
    /// # Panics
    /// When the rows are others, or `queries` is not a whole number of queries.
    #[must_use]
    pub fn new(layout: RowLayout, queries: &[f32]) -> Panel {
        Panel::with_simd(layout, queries, Simd::best())
    }

    fn with_simd(layout: RowLayout, queries: &[f32], simd: Simd) -> Panel {
        assert!(layout.groups() == 1 && layout.bits() == Bits::Eight, "rows of a panel");
        let dim = layout.dim();
        assert!(queries.len().is_multiple_of(dim), "values of the queries");
        let count = queries.len() / dim;
        let room = count.next_multiple_of(TOGETHER);
        let (mut sums, mut weights) = (vec![0.0; room], vec![0.0; room]);
        let mut whole = Vec::with_capacity(count * dim);
        for ((query, sum), weight) in queries.chunks_exact(dim).zip(&mut sums).zip(&mut weights) {
            let largest = query.iter().fold(0.0_f32, |largest, q| largest.max(q.abs()));
            let (unit, norm) = (f64::from(largest) / VALUE_MAX, query.norm_wide());
            let inverse = if unit > 0.0 { 1.0 / unit } else { 0.0 };
            whole.extend(query.rounded(inverse));
            let rounded = whole.get(whole.len() - dim..).unwrap_or_default();
            *sum = rounded.iter().map(|value| i32::from(*value)).sum::<i32>() as f32;
            *weight = if norm > 0.0 { (unit / norm) as f32 } else { 0.0 };
        }
        let blocks = match simd.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => in_blocks(&std::mem::take(&mut whole), dim, room),
            _ => Lines::zeros(0),
        };
        Panel { layout, simd, count, blocks, whole, sums, weights }
    }

    /// How many queries there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Scores that a row takes: those of the queries, and zeros up to whole registers.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.sums.len()
    }

    /// Cosines of rows and all queries, row by row, [`stride`](Self::stride) of each. A row of zeros has 0.
    ///
    /// # Panics
    /// When `rows` is not a whole number of rows, or `scores` has not so many of each.
    pub fn score_rows(&self, rows: &[u8], scores: &mut [f32]) {
        let row_bytes = self.layout.row_bytes();
        assert!(rows.len().is_multiple_of(row_bytes), "bytes of the rows");
        assert_eq!(scores.len(), rows.len() / row_bytes * self.stride(), "room for the scores");
        match self.simd.level() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Simd` of this level exists only where these parts of AVX-512 were found.
            Level::Avx512 => unsafe { avx512::score_panel(self, rows, scores) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Simd` of this level exists only where AVX2 was found.
            Level::Avx2 => self.each(rows, scores, |codes, queries, products| unsafe {
                avx2::products(codes, queries, products);
            }),
            #[cfg(target_arch = "aarch64")]
            // SAFETY: a `Simd` of this level exists only where NEON was found.
            Level::Neon => self.each(rows, scores, |codes, queries, products| unsafe {
                neon::products(codes, queries, products);
            }),
            Level::Scalar => self.each(rows, scores, scalar::products),
        }
    }

    /// The loop around a kernel that multiplies the codes of a row with all queries.
    fn each(&self, rows: &[u8], scores: &mut [f32], kernel: impl Fn(&[u8], &[i16], &mut [i64])) {
        let mut products = vec![0; self.count];
        let scores = scores.chunks_exact_mut(self.stride().max(1));
        for (row, scores) in rows.chunks_exact(self.layout.row_bytes()).zip(scores) {
            let of = RowOf::new(row);
            kernel(of.codes, &self.whole, &mut products);
            scores.fill(0.0);
            let queries = products.iter().zip(self.sums.iter().zip(&self.weights));
            for (score, (product, (sum, weight))) in scores.iter_mut().zip(queries) {
                *score = (of.min * sum + of.step * *product as f32) * weight;
            }
        }
    }

    /// The rounded values of so many blocks from the one at `from` on, each four places after four.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn blocks<const N: usize>(&self, from: usize) -> [&[Places]; N] {
        let places = self.layout.dim().div_ceil(FEW);
        let all = self.blocks.as_chunks().0;
        std::array::from_fn(|n| &all[(from + n) * places..][..places])
    }

    /// How the rows are laid out.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn layout(&self) -> RowLayout {
        self.layout
    }
}

/// Rounded values in the order that AVX-512 reads them in.
#[cfg(target_arch = "x86_64")]
fn in_blocks(whole: &[i16], dim: usize, room: usize) -> Lines {
    let block_bytes = dim.div_ceil(FEW) * size_of::<Places>();
    let mut blocks = Lines::zeros(room / TOGETHER * block_bytes);
    for (n, query) in whole.chunks_exact(dim).enumerate() {
        let block = &mut blocks[n / TOGETHER * block_bytes..][..block_bytes];
        for (places, values) in
            block.as_chunks_mut::<{ TOGETHER * FEW }>().0.iter_mut().zip(query.chunks(FEW))
        {
            for (place, value) in places[n % TOGETHER * FEW..].iter_mut().zip(values) {
                *place = *value as i8 as u8;
            }
        }
    }
    blocks
}

/// A row taken apart, scaled to length 1.
pub(super) struct RowOf<'a> {
    pub min: f32,
    pub step: f32,
    pub codes: &'a [u8],
}

impl RowOf<'_> {
    #[inline(always)]
    pub fn new(row: &[u8]) -> RowOf<'_> {
        let (head, codes) = row.split_at(NORM_BYTES + CONSTANTS_BYTES);
        let (min, step) = pack::take_constants(&head[NORM_BYTES..]);
        // In f64: the least length has no reciprocal in f32, and the largest values times a sum none either.
        let norm = f64::from(pack::norm(row));
        let inverse = if norm > 0.0 { 1.0 / norm } else { 0.0 };
        let scaled = |value: f32| (f64::from(value) * inverse) as f32;
        RowOf { min: scaled(min), step: scaled(step), codes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::quant::encode;
    use proptest::prelude::*;

    /// Numbers without order, from -1 up to 1.
    fn numbers(seed: u32, count: usize) -> Vec<f32> {
        let number = |n: u32| (n.wrapping_mul(2_654_435_761) ^ (n >> 3)).wrapping_mul(0x9e37_79b9);
        (0..count as u32).map(|n| (number(seed + n) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    fn cosine(a: &[f32], b: &[f32]) -> f64 {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let norms = (dot(a, a) * dot(b, b)).sqrt();
        if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
    }

    proptest! {
        #[test]
        fn every_instruction_set_finds_the_cosines(
            dim in 1..140_usize, rows in 0..11_usize, count in 0..90_usize, seed in 0..1_000_000_u32,
            is_zero in any::<bool>(), size in prop_oneof![Just(1.0_f32), Just(1e36), Just(1e-40)],
        ) {
            let layout = RowLayout::new(dim, 0, Bits::Eight).unwrap();
            let mut queries = numbers(seed, count * dim);
            if is_zero {
                // The first query and the last row have no direction.
                queries.iter_mut().take(dim).for_each(|value| *value = 0.0);
            }
            let mut vectors = numbers(seed ^ 77, rows * dim);
            vectors.iter_mut().for_each(|value| *value *= size);
            let zeros = if is_zero { dim } else { 0 };
            vectors.iter_mut().rev().take(zeros).for_each(|value| *value = 0.0);
            let mut packed = vec![0; rows * layout.row_bytes()];
            for (vector, row) in vectors.chunks(dim).zip(packed.chunks_mut(layout.row_bytes())) {
                encode(layout, vector, row);
            }
            let scalar = Panel::with_simd(layout, &queries, Simd::all()[0]);
            let mut wanted = vec![9.0; rows * scalar.stride()];
            scalar.score_rows(&packed, &mut wanted);
            for (row, scores) in vectors.chunks(dim).zip(wanted.chunks(scalar.stride().max(1))) {
                for (query, score) in queries.chunks(dim).zip(scores) {
                    // Of few values a rounding is a larger part; and there are few numbers of 1e-40.
                    let off = (f64::from(*score) - cosine(row, query)).abs();
                    prop_assert!(off < if size < 1e-9 { 0.2 } else { 0.02 }, "{} of {}", score, cosine(row, query));
                }
                prop_assert!(scores[count.min(scores.len())..].iter().all(|score| *score == 0.0));
            }
            for simd in Simd::all() {
                let panel = Panel::with_simd(layout, &queries, simd);
                prop_assert_eq!((panel.count(), panel.stride()), (count, scalar.stride()));
                let mut scores = vec![9.0; wanted.len()];
                panel.score_rows(&packed, &mut scores);
                let bits = |scores: &[f32]| scores.iter().map(|s| s.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(&scores), bits(&wanted), "{:?}", simd);
            }
        }
    }
}
