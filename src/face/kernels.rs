//! The kernels by themselves, for benchmarks (feature `sim`): `benches/` times them row by row, and counts
//! their instructions, one instruction set after the other.
//!
//! What a kernel takes and promises is said where it is defined. Never: part of the interface of the
//! crate.

pub use crate::pure::{Level, Simd, kernel, quant, score, sketch};
pub use crate::words::rule::Weights;
