//! pure/filter/mod
