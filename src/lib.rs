//! pmll: a persistent, tiered memory store that an agent process opens as a directory.
#![deny(missing_docs)]

mod bytes;
pub mod io;
mod organs;
mod pure;
mod words;
