//! The integration tests, one binary: `cargo test --test it`.

// Helpers of tests may unwrap; clippy grants it by itself in `#[test]` functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod closing;
mod crash;
mod format;
mod input;
mod model;
mod rebuild;
mod support;
mod tidy;
mod writes;
