//! organs/catalog/mod
