//! organs/archive/mod
