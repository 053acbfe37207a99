//! Schedules of group commit: all of it is in `tests/schedules.rs`, under `--cfg shuttle`.
//!
//! The package stands apart from the core crate because a build with that flag shares nothing with any
//! other, and should be as small as it can be: one crate, and what it needs itself.
