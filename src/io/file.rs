//! io/file
