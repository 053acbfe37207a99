//! Byte forms: what stands in files, decided by explicit encoders, read by decoders that take bytes.

pub mod block;
pub mod body;
pub mod cells;
pub mod codes;
pub mod cursor;
pub mod footer;
#[cfg(test)]
mod format_tests;
pub mod log;
pub mod op;
pub mod row;
pub mod segment;
