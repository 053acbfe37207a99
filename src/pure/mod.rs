//! Floor 1, pure: arithmetic and rules over plain values; no files, no clock, no threads of its own.

pub mod filter;
pub mod kernel;
pub mod topk;
