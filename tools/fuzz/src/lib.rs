//! Fuzz targets as plain functions: bytes in, nothing out, a panic when the contract is broken.
//!
//! The contract of every body: whatever the bytes, the store answers with a value or a typed error.
//! It never panics, and needs no more than [`TIME_MAX`] and [`BYTES_MAX`] for it.
//!
//! 1. `base` builds one small valid store a process, and reads everything of a store.
//! 2. `edits` turns fuzz bytes into changes of a valid file. `seal` and `pages` make its checksums
//!    right again, so that hostile numbers reach the decoders behind them.
//! 3. One module a target. cargo-fuzz calls them from `fuzz/fuzz_targets`, and `tests/replay.rs`
//!    calls them with the kept corpus and with seeded mutations of valid inputs.
//!
//! 4. `parsers` has the decoders one by one, through `pmll::decoders`; `main.rs` runs them by the million.

use std::time::Duration;

pub mod archive_frame;
mod base;
pub mod chance;
mod edits;
pub mod import_and_rpc;
pub mod open_dir;
pub mod ops_vs_model;
mod pages;
pub mod parsers;
pub mod redb_value;
mod seal;
pub mod segment_open;
pub mod wal_replay;
pub mod wal_scan;

/// Most time for one input, on an idle machine with optimised code.
pub const TIME_MAX: Duration = Duration::from_millis(100);
/// Most memory for one input beyond what the input itself takes.
pub const BYTES_MAX: usize = 64 << 20;

/// One fuzz target.
pub struct Target {
    /// Its name: that of the module, of the cargo-fuzz target and of the folder of its corpus.
    pub name: &'static str,
    /// The body.
    pub body: fn(&[u8]),
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "wal_scan", body: wal_scan::body, seeds: wal_scan::seeds },
    Target { name: "wal_replay", body: wal_replay::body, seeds: wal_replay::seeds },
    Target { name: "segment_open", body: segment_open::body, seeds: segment_open::seeds },
    Target { name: "archive_frame", body: archive_frame::body, seeds: archive_frame::seeds },
    Target { name: "redb_value", body: redb_value::body, seeds: redb_value::seeds },
    Target { name: "open_dir", body: open_dir::body, seeds: open_dir::seeds },
    Target { name: "ops_vs_model", body: ops_vs_model::body, seeds: ops_vs_model::seeds },
    Target { name: "import_and_rpc", body: import_and_rpc::body, seeds: import_and_rpc::seeds },
];
