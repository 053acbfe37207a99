//! organs/wal/mod
