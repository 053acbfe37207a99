//! Floor 1, pure: arithmetic and rules over plain values; no files, no clock, no threads of its own.

pub mod filter;
pub mod kernel;
mod lines;
pub mod margins;
pub mod policy;
pub mod quant;
pub mod score;
mod simd;
pub mod sketch;
pub mod topk;
mod wide;

#[cfg(test)]
mod recall;

pub use lines::Lines;
pub use simd::{Level, Simd};
pub use wide::Wide;
