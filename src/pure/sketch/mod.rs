//! Sign sketches: one bit a value, enough to choose a few hundred candidates out of many rows.
//!
//! A vector x is scaled to length 1, u = x / |x|; a mean of such vectors is taken away,
//! r = u - mean; the signs s of r are kept, and one byte for a factor. A query, at nearly full
//! precision, is scored by
//!
//! `u . q = mean . q + r . q`, with `r . q` estimated as `f * (s . q)`, `f = |r|^2 / sum |r_i|`.
//!
//! The factor makes the estimate right for r itself, and right on average for directions that lean
//! on no axis. Dot product and distance need the norm of x beside it: `x . q = |x| (u . q)`.
//!
//! # A row
//!
//! | bytes | what |
//! |---|---|
//! | (dim + 7) / 8 | bit i % 8 of byte i / 8 is set when r_i >= 0; unused bits 0 |
//! | 1 | the factor times sqrt(dim): 0 for a zero vector, else 3 bits of exponent and 5 of fraction, 1/16 to 16 |
//! | 4, unless the metric is cosine | the norm of x, f32 little-endian |
//!
//! # A block
//!
//! 64 rows, for scanning: byte j of row r stands at `64 * j + r`, so that one register holds one
//! byte of 64 rows; then 64 factors, then 64 norms. Rows move in and out by [`place`] and `take`.
//! Places of a block that hold no row may hold any bytes.
//!
//! Six low bits of each byte and the pairs of high bits of three bytes are both convenient indices of
//! six bits, and the halves of a byte are indices of four: the same block serves table look-ups of
//! either width (see [`scorer`]).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
pub mod scorer;
#[cfg(test)]
mod tests;

pub use scorer::SketchQuery;

use crate::pure::Wide;
use crate::words::limits::DIM_MAX;
use crate::words::options::Metric;

/// Rows of a block.
pub const BLOCK_ROWS: usize = 64;

const NORM_BYTES: usize = 4;
/// The factor byte is the high part of an f32 between 2^-4 and 2^4: what its bits are shifted by, and
/// what they are counted from.
const FACTOR_SHIFT: u32 = 18;
const FACTOR_BASE: u32 = (127 - 4) << 23;

/// How sketches of one collection are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SketchLayout {
    dim: usize,
    metric: Metric,
}

impl SketchLayout {
    /// Sketches of vectors of `dim` values; `None` for 0 or more than the limit of the store.
    #[must_use]
    pub const fn new(dim: usize, metric: Metric) -> Option<SketchLayout> {
        if dim == 0 || dim > DIM_MAX { None } else { Some(SketchLayout { dim, metric }) }
    }

    /// Values of a vector.
    #[must_use]
    pub const fn dim(self) -> usize {
        self.dim
    }

    /// Bytes of signs.
    #[must_use]
    pub const fn sign_bytes(self) -> usize {
        self.dim.div_ceil(8)
    }

    /// Bytes of a row.
    #[must_use]
    pub const fn row_bytes(self) -> usize {
        self.sign_bytes() + 1 + self.norm_bytes()
    }

    /// Bytes of a block of 64 rows, full or not.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        self.row_bytes() * BLOCK_ROWS
    }

    /// Bytes of the blocks that hold so many rows.
    #[must_use]
    pub const fn blocks_bytes(self, rows: usize) -> usize {
        rows.div_ceil(BLOCK_ROWS) * self.block_bytes()
    }

    const fn norm_bytes(self) -> usize {
        match self.metric {
            Metric::Cosine => 0,
            Metric::Dot | Metric::L2 => NORM_BYTES,
        }
    }

    const fn factors_at(self) -> usize {
        self.sign_bytes() * BLOCK_ROWS
    }

    const fn norms_at(self) -> usize {
        self.factors_at() + BLOCK_ROWS
    }
}

/// Writes the sketch of `vector`. `mean` is a mean of vectors scaled to length 1 (or zeros, which
/// costs recall); the rows of a block and the query must share it.
///
/// # Panics
/// When a length is not the layout's.
pub fn encode(layout: SketchLayout, mean: &[f32], vector: &[f32], row: &mut [u8]) {
    let lengths = (mean.len(), vector.len(), row.len());
    assert_eq!(lengths, (layout.dim, layout.dim, layout.row_bytes()), "lengths of a sketch");
    let norm = vector.norm_wide();
    let inverse = if norm > 0.0 { 1.0 / norm } else { 0.0 };
    let (signs, rest) = row.split_at_mut(layout.sign_bytes());
    let (mut sum, mut square) = (0.0_f64, 0.0_f64);
    for (byte, (values, mean)) in signs.iter_mut().zip(vector.chunks(8).zip(mean.chunks(8))) {
        *byte = 0;
        for (bit, (value, mean)) in values.iter().zip(mean).enumerate() {
            let left = f64::from(*value) * inverse - f64::from(*mean);
            sum += left.abs();
            square += left * left;
            *byte |= u8::from(left >= 0.0) << bit;
        }
    }
    let spread = if sum > 0.0 { square / sum * (layout.dim as f64).sqrt() } else { 0.0 };
    rest[0] = if norm > 0.0 { factor_code(spread as f32) } else { 0 };
    if layout.norm_bytes() > 0 {
        rest[1..].copy_from_slice(&(norm.min(f64::from(f32::MAX)) as f32).to_le_bytes());
    }
}

/// Puts a row at place `slot` of a block.
///
/// # Panics
/// When a length is not the layout's or `slot` is above 63.
pub fn place(layout: SketchLayout, row: &[u8], block: &mut [u8], slot: usize) {
    assert!(slot < BLOCK_ROWS, "slot {slot} of a block");
    assert_eq!((row.len(), block.len()), (layout.row_bytes(), layout.block_bytes()));
    let (planes, norms) = block.split_at_mut(layout.norms_at());
    let (bytes, norm) = row.split_at(layout.sign_bytes() + 1);
    for (plane, byte) in planes.chunks_exact_mut(BLOCK_ROWS).zip(bytes) {
        plane[slot] = *byte;
    }
    norms[slot * norm.len()..][..norm.len()].copy_from_slice(norm);
}

/// Reads the row at place `slot` of a block back.
///
/// # Panics
/// When a length is not the layout's or `slot` is above 63.
#[cfg(test)]
pub fn take(layout: SketchLayout, block: &[u8], slot: usize, row: &mut [u8]) {
    assert!(slot < BLOCK_ROWS, "slot {slot} of a block");
    assert_eq!((row.len(), block.len()), (layout.row_bytes(), layout.block_bytes()));
    let (planes, norms) = block.split_at(layout.norms_at());
    let (bytes, norm) = row.split_at_mut(layout.sign_bytes() + 1);
    for (plane, byte) in planes.chunks_exact(BLOCK_ROWS).zip(bytes) {
        *byte = plane[slot];
    }
    norm.copy_from_slice(&norms[slot * norm.len()..][..norm.len()]);
}

/// The nearest factor that a byte can say, never 0.
fn factor_code(factor: f32) -> u8 {
    let rounded = factor.to_bits().saturating_add(1 << (FACTOR_SHIFT - 1));
    (rounded.saturating_sub(FACTOR_BASE) >> FACTOR_SHIFT).clamp(1, 255) as u8
}

/// What a factor byte other than 0 says.
#[inline(always)]
fn factor(code: u8) -> f32 {
    f32::from_bits((u32::from(code) << FACTOR_SHIFT) + FACTOR_BASE)
}
