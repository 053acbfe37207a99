//! The quantiser: a vector as one code of 8 or 4 bits a value, and scores computed on the codes.
//!
//! Affine, by minimum and maximum of a group of values. A group is the whole vector (embeddings) or
//! a fixed number of values (key/value pairs, whose outlier channels would spoil the others). With
//! the constants of its group, `min` and `step`, a value v becomes
//! `c = clamp(floor((v - min) / step + 0.5), 0, L)`, L = 255 or 15, and comes back as
//! `min + step * c`. A step of 0 gives min exactly.
//!
//! # A packed row
//!
//! | bytes | what |
//! |---|---|
//! | 4 | norm of the decoded row, f32 |
//! | 8 for each group | min f32, step f32 |
//! | dim, or (dim + 1) / 2 | codes in the order of the values; 4-bit codes low nibble first |
//!
//! Everything little-endian; no padding but the last high nibble of an odd dimension, which is 0.
//! The norm is what cosine divides by and distance adds; kept, because it would cost as much
//! as the score itself.
//!
//! # Error
//!
//! `|v - decoded| <= step / 2`, and one rounding of the decoded value to f32. It holds without
//! exception because `step` is rounded up (so that `min + L * step` is never below the maximum), and
//! because codes are compared with the exact midpoints `(c + 0.5) * step` in f64.
//!
//! # From 8 bits to 4
//!
//! `c4 = (c8 + 8) div 17`, `step4 = 17 * step8`, the same min ([`narrow`]). Since 255 = 15 * 17 this
//! is exactly what quantising the original with 4 bits gives, so that going down in two steps loses
//! nothing over one. Exact also in floating point: a step has its five lowest bits zero, so 17 times
//! it is an f32.
//!
//! NaN and infinities are refused at the door; here they would give a useless row, never a panic.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod brief;
pub mod cluster;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
pub mod panel;
mod query;
mod scalar;
#[cfg(test)]
mod tests;

pub use pack::{decode, encode, narrow, norm};
pub use query::{CodeQuery, fetch};

use crate::words::limits::DIM_MAX;

/// Groups end at multiples of this, so that a group of 4-bit codes fills 32 bytes.
const GROUP_UNIT: usize = 64;
const NORM_BYTES: usize = 4;
const CONSTANTS_BYTES: usize = 8;

/// Width of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bits {
    /// One byte a value, 256 levels.
    Eight,
    /// Half a byte a value, 16 levels.
    Four,
}

impl Bits {
    /// Bytes that the codes of so many values take.
    #[must_use]
    pub const fn code_bytes(self, values: usize) -> usize {
        match self {
            Bits::Eight => values,
            Bits::Four => values.div_ceil(2),
        }
    }

    /// The highest code.
    #[must_use]
    pub const fn code_max(self) -> u8 {
        match self {
            Bits::Eight => 255,
            Bits::Four => 15,
        }
    }
}

/// How rows of one kind are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowLayout {
    dim: usize,
    group: usize,
    /// Kept, because finding it takes a division, and it is asked for with every row.
    groups: usize,
    bits: Bits,
}

impl RowLayout {
    /// Rows of `dim` values with constants for every `group` of them. A group of 0, or of `dim` or
    /// more, is the whole vector; any other must be a multiple of 64. `None` for another group, and
    /// for a dimension of 0 or above the limit of the store.
    #[must_use]
    pub const fn new(dim: usize, group: usize, bits: Bits) -> Option<RowLayout> {
        if dim == 0 || dim > DIM_MAX {
            return None;
        }
        if group == 0 || group >= dim {
            return Some(RowLayout { dim, group: dim, groups: 1, bits });
        }
        if !group.is_multiple_of(GROUP_UNIT) {
            return None;
        }
        Some(RowLayout { dim, group, groups: dim.div_ceil(group), bits })
    }

    /// Values of a row.
    #[must_use]
    pub const fn dim(self) -> usize {
        self.dim
    }

    /// Values that share constants: `dim` when all do.
    #[must_use]
    pub const fn group(self) -> usize {
        self.group
    }

    /// Width of the codes.
    #[must_use]
    pub const fn bits(self) -> Bits {
        self.bits
    }

    /// The same rows with codes of another width.
    #[must_use]
    pub const fn with_bits(self, bits: Bits) -> RowLayout {
        RowLayout { bits, ..self }
    }

    /// Groups of a row.
    #[must_use]
    pub const fn groups(self) -> usize {
        self.groups
    }

    /// Bytes of a row.
    #[must_use]
    pub const fn row_bytes(self) -> usize {
        self.codes_at() + self.bits.code_bytes(self.dim)
    }

    /// Where the codes begin in a row.
    #[must_use]
    pub const fn codes_at(self) -> usize {
        NORM_BYTES + CONSTANTS_BYTES * self.groups()
    }
}
