//! Floor 3, organs: each owns one kind of file and knows no other organ.

pub mod archive;
pub mod arena;
pub mod catalog;
pub mod columns;
pub mod reserve;
pub mod wal;
