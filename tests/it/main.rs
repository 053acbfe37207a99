//! The integration tests, one binary: `cargo test --test it`.

mod crash;
mod tidy;
