//! A query prepared for sketches, and the scores of blocks against it.
//!
//! 1. The query is scaled to length 1 and rounded to integers, `q = unit * t`. The unit is chosen
//!    so that the |t| of any window of 48 values (six bytes of signs) sum to at most 255.
//! 2. A kernel computes, for each row, the sum of t where the bit is set, window by window: started
//!    at minus the window's negative values, the sum stays within a byte whatever the bits, and in
//!    whatever order they are added. So the kernels may look up four bits at once, or six, and still
//!    agree exactly; windows are summed in 16 or 32 bits.
//! 3. `s . q = unit * (2 * sum - total)`, and the score follows in f32 for cosine, f64 beyond.
//!
//! The rounding costs about 0.003 in cosine at 384 values, where the sketch itself is off by 0.04:
//! three times finer would need tables of 16 bits and change no recall. Scores are estimates: a
//! cosine may lie a little outside of [-1, 1] (it is not clamped, which would tie the nearest rows).
//! A zero vector has cosine 0. They are finite, never NaN, whatever bytes a block holds.
#![allow(unsafe_code)]

#[cfg(target_arch = "aarch64")]
use super::neon;
use super::{BLOCK_ROWS, NORM_BYTES, SketchLayout, factor, scalar};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::pure::{Level, Lines, Simd, Wide};
use crate::words::options::Metric;

/// Bytes of signs whose sum stays within a byte.
pub(super) const WINDOW_BYTES: usize = 6;
pub(super) const WINDOW: usize = 8 * WINDOW_BYTES;
/// 255 less half a unit of rounding for each value of a window.
const WINDOW_SUM: f64 = 255.0 - WINDOW as f64 / 2.0;
/// So many windows of 255 fit into 16 bits.
pub(super) const WINDOWS_MAX: usize = 256;

/// Entries of a table for half a byte of signs.
pub(super) const HALF_ENTRIES: usize = 16;

/// One byte of signs of each row of a block.
pub(super) type Plane = [u8; BLOCK_ROWS];
pub(super) type Window = [Plane; WINDOW_BYTES];
/// Sums of the rows of one block.
pub(super) type Sums = [i32; BLOCK_ROWS];

/// A query with what scoring of sketches needs of it.
#[derive(Clone, Debug)]
pub struct SketchQuery {
    layout: SketchLayout,
    simd: Simd,
    /// Norm of the query.
    norm: f64,
    /// Scaled query times mean.
    pub(super) base: f32,
    /// Unit of the rounding, over sqrt(dim).
    pub(super) scale: f32,
    /// What is added to twice a kernel's sum.
    pub(super) offset: i32,
    /// The rounded query, filled up with zeros to whole windows.
    pub(super) rounded: Box<[i16]>,
    /// For the kernels that look up: one table after the other, in the order they are used.
    pub(super) tables: Lines,
}

impl SketchQuery {
    /// Prepares `query` for sketches made with `mean`.
    ///
    /// # Panics
    /// When a length is not the layout's.
    #[must_use]
    pub fn new(layout: SketchLayout, mean: &[f32], query: &[f32]) -> SketchQuery {
        SketchQuery::with_simd(layout, mean, query, Simd::best())
    }

    /// The same without a mean, as if it were zeros: for who sets what it stands for later.
    ///
    /// # Panics
    /// When a length is not the layout's.
    #[must_use]
    pub fn without_mean(layout: SketchLayout, query: &[f32]) -> SketchQuery {
        SketchQuery::prepare(layout, query, Simd::best())
    }

    /// The same for one instruction set.
    ///
    /// # Panics
    /// When a length is not the layout's.
    #[must_use]
    pub fn with_simd(layout: SketchLayout, mean: &[f32], query: &[f32], simd: Simd) -> SketchQuery {
        let mut prepared = SketchQuery::prepare(layout, query, simd);
        prepared.set_mean(mean, query);
        prepared
    }

    fn prepare(layout: SketchLayout, query: &[f32], simd: Simd) -> SketchQuery {
        assert_eq!(query.len(), layout.dim, "length of a query");
        let norm = query.norm_wide();
        let inverse = if norm > 0.0 { 1.0 / norm } else { 0.0 };
        let largest = query.chunks(WINDOW).map(Wide::sum_abs_wide).fold(0.0, f64::max) * inverse;
        let unit = largest / WINDOW_SUM;
        let per_unit = if unit > 0.0 { inverse / unit } else { 0.0 };
        let mut rounded = query.rounded(per_unit);
        rounded.resize(layout.dim.next_multiple_of(WINDOW), 0);
        let total: i32 = rounded.iter().map(|t| i32::from(*t)).sum();
        let negative: i32 = rounded.iter().map(|t| i32::from(*t).min(0)).sum();
        SketchQuery {
            layout,
            simd,
            norm,
            base: 0.0,
            scale: (unit / (layout.dim as f64).sqrt()) as f32,
            offset: 2 * negative - total,
            tables: match simd.level() {
                Level::Scalar => Lines::zeros(0),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => half_tables(&rounded),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => avx512::tables(&rounded),
                #[cfg(target_arch = "aarch64")]
                Level::Neon => half_tables(&rounded),
            },
            rounded: rounded.into(),
        }
    }

    /// Takes blocks of another mean from here on, as if it had been prepared for it. `query` is the one
    /// that it was prepared from: only its dot product with the mean is new, no table.
    ///
    /// # Panics
    /// When a length is not the layout's.
    pub fn set_mean(&mut self, mean: &[f32], query: &[f32]) {
        let dim = self.layout.dim;
        assert_eq!((mean.len(), query.len()), (dim, dim), "lengths of a query");
        self.base = base(mean, query, if self.norm > 0.0 { 1.0 / self.norm } else { 0.0 });
    }

    /// The same, where the dot product of the mean with the query scaled to length 1 is known.
    pub fn set_base(&mut self, base: f32) {
        self.base = base;
    }

    /// The layout of the blocks it can score.
    #[must_use]
    pub fn layout(&self) -> SketchLayout {
        self.layout
    }

    /// Scores of the first `scores.len()` rows of `blocks`, higher is nearer: estimates of cosine,
    /// dot product, or negative squared distance. Blocks of `next` are scored after these, if they are known: a kernel
    /// may ask for them from memory.
    ///
    /// # Panics
    /// When `blocks` is not as many whole blocks as these rows take.
    pub fn score_blocks(&self, blocks: &[u8], next: &[u8], scores: &mut [f32]) {
        assert_eq!(blocks.len(), self.layout.blocks_bytes(scores.len()), "bytes of the blocks");
        match self.simd.level() {
            Level::Scalar => scalar::score_blocks(self, blocks, scores),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Simd` of this level exists only where AVX2 was found.
            Level::Avx2 => unsafe { avx2::score_blocks(self, blocks, scores) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Simd` of this level exists only where these parts of AVX-512 were found.
            Level::Avx512 => unsafe { avx512::score_blocks(self, blocks, next, scores) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: a `Simd` of this level exists only where NEON was found.
            Level::Neon => unsafe { neon::score_blocks(self, blocks, scores) },
        }
    }

    /// Bytes of one block that hold signs: those of whole windows, one array for each byte of a row,
    /// and what is left.
    #[inline(always)]
    pub(super) fn windows<'a>(&self, block: &'a [u8]) -> (&'a [Window], &'a [Plane]) {
        block[..self.layout.factors_at()].as_chunks::<BLOCK_ROWS>().0.as_chunks()
    }

    /// The loop around a kernel that goes block by block.
    #[inline(always)]
    pub(super) fn each_block(
        &self,
        blocks: &[u8],
        scores: &mut [f32],
        sums: impl Fn((&[Window], &[Plane])) -> Sums,
    ) {
        let blocks = blocks.chunks_exact(self.layout().block_bytes());
        for (block, scores) in blocks.zip(scores.chunks_mut(BLOCK_ROWS)) {
            self.finish(block, &sums(self.windows(block)), scores);
        }
    }

    /// Turns the sums of a block into scores; a last block may have fewer scores than rows.
    #[inline(always)]
    pub(super) fn finish(&self, block: &[u8], sums: &Sums, scores: &mut [f32]) {
        if let Ok(scores) = scores.try_into() {
            return self.finish_block(block, sums, scores);
        }
        let mut all = [0.0; BLOCK_ROWS];
        self.finish_block(block, sums, &mut all);
        scores.iter_mut().zip(all).for_each(|(score, of_all)| *score = of_all);
    }

    #[inline(always)]
    fn finish_block(&self, block: &[u8], sums: &Sums, scores: &mut [f32; BLOCK_ROWS]) {
        let factors_at = self.layout.factors_at();
        let (codes, norms) = block[factors_at..].split_at(BLOCK_ROWS);
        for ((score, sum), code) in scores.iter_mut().zip(sums).zip(codes) {
            let signed = (2 * sum + self.offset) as f32;
            let estimate = self.base + (factor(*code) * signed) * self.scale;
            *score = if *code == 0 { 0.0 } else { estimate } + 0.0;
        }
        let square = self.norm * self.norm;
        let norms = norms.as_chunks::<NORM_BYTES>().0.iter();
        let norms = norms.map(|bytes| f64::from(f32::from_le_bytes(*bytes)));
        match self.layout.metric {
            Metric::Cosine => {}
            Metric::Dot => {
                for (score, norm) in scores.iter_mut().zip(norms) {
                    *score = finite(f64::from(*score) * self.norm * norm);
                }
            }
            Metric::L2 => {
                for (score, norm) in scores.iter_mut().zip(norms) {
                    let dot = f64::from(*score) * self.norm * norm;
                    *score = finite(2.0 * dot - square - norm * norm);
                }
            }
        }
    }
}

/// Scaled query times mean.
fn base(mean: &[f32], query: &[f32], inverse: f64) -> f32 {
    (query.dot_wide(mean) * inverse) as f32
}

/// The nearest f32; the lowest for what only a damaged norm can give.
#[inline(always)]
fn finite(score: f64) -> f32 {
    let lowest = f64::from(f32::MIN);
    let score = if score.is_finite() { score } else { lowest };
    score.clamp(lowest, f64::from(f32::MAX)) as f32 + 0.0
}

/// A last window, filled up: the tables of what is not there are zeros, so any bytes will do.
#[inline(always)]
pub(super) fn filled_up(rest: &[Plane]) -> Window {
    let mut window = [[0; BLOCK_ROWS]; WINDOW_BYTES];
    window.iter_mut().zip(rest).for_each(|(plane, rest)| *plane = *rest);
    window
}

/// Two tables for each byte of signs, low half first, for kernels that look up four bits.
fn half_tables(rounded: &[i16]) -> Lines {
    let mut tables = vec![[0; HALF_ENTRIES]; rounded.len() / 4];
    for (values, table) in rounded.as_chunks::<4>().0.iter().zip(&mut tables) {
        fill_table(*values, table);
    }
    tables.as_flattened().into()
}

/// Writes the table of one index, whose lowest bit stands for the first of `values`: for each index
/// the sum of the values whose bits are set, less the sum of the negative ones.
#[inline(always)]
pub(super) fn fill_table<const VALUES: usize>(values: [i16; VALUES], table: &mut [u8]) {
    let negative: i16 = values.iter().map(|t| t.min(&0)).sum();
    table[0] = negative.unsigned_abs() as u8;
    for (bit, value) in values.into_iter().enumerate() {
        let (done, rest) = table.split_at_mut(1 << bit);
        // A window's sums stay within a byte; the value alone may be negative, hence wrapping.
        let value = value as u8;
        done.iter().zip(rest).for_each(|(from, to)| *to = from.wrapping_add(value));
    }
}
