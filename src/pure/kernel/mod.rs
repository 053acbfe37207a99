//! pure/kernel/mod
