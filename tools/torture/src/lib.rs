//! Crash tests of pmll stores, for the project's own tests, for `pmll crash-test` and by hand.
//!
//! [`simulate()`] cuts a scripted workload off at every call of a simulated disk. Its parts are public
//! because other tests play the same script: [`model`] says what must be there, [`script`] does it,
//! [`oracle`] judges what a disk holds, [`generate`](generate::generate) draws other workloads.
//!
//! [`kill`](kill::kill) kills real processes over a real directory: [`workload`] says what the n-th
//! step is, [`writer`] plays it until it dies, [`check`] finds the state a store is in.
//!
//! Everything here works through the public interface of the `pmll` crate.

pub mod check;
pub mod derived;
pub mod generate;
pub mod kill;
pub mod model;
pub mod oracle;
pub mod script;
pub mod shrink;
pub mod simulate;
pub mod workload;
pub mod writer;

pub use simulate::{SimulateOptions, SimulateProgress, SimulateReport, simulate};
