//! The crates that pmll is compared with, each with the settings its documentation gives for the
//! same promise: a put that returned survives a power cut.
//!
//! LMDB is not here but in `rivals.py`: its Rust binding opens a store by an unsafe call, which the
//! house rules keep out of this repository.

pub mod fjall;
pub mod redb;
pub mod sqlite;
pub mod usearch;
