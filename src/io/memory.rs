//! io/memory
