//! organs/columns/mod
