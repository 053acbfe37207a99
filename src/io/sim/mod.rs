//! io/sim/mod
