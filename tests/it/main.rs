//! The integration tests, one binary: `cargo test --test it`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at the first surprise")]

mod beside;
mod brief;
mod cells;
mod clocks;
mod closing;
mod crash;
mod cuts;
mod faults;
mod flips;
mod footprint;
mod format;
mod full;
mod input;
mod keys;
mod levels;
mod mishaps;
mod mixtures;
mod model;
mod owners;
mod rebuild;
mod rules;
mod sabotage;
mod salvage;
mod search;
mod spare;
mod support;
mod sweep;
mod tidy;
mod turns;
mod vacuum;
mod writes;
