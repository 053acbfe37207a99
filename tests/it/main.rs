//! The integration tests, one binary: `cargo test --test it`.

mod crash;
mod model;
mod rebuild;
mod support;
mod tidy;
