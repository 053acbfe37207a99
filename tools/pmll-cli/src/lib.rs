//! The parts of the `pmll` command that other tools use as well: readers and writers of the
//! outside formats, and the model-free embedder.
//!
//! Nothing here opens a store. Everything streams: a file of any length is read and written in
//! constant memory.
//!
//! - [`npy`]: vectors in `.npy` files, row by row
//! - [`lines`]: entries in `.jsonl` and `.txt` files, plain or packed with zstd
//! - [`embed`]: `hash-384`, an embedder that needs no model
//! - [`output`], [`render`]: results, errors, exit codes and entries as people and programs read them
//! - [`time`]: times and durations as people write them
#![deny(missing_docs)]

pub mod embed;
pub mod fault;
pub mod lines;
pub mod npy;
pub mod output;
pub mod render;
pub mod time;
