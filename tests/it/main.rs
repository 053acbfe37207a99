//! The integration tests, one binary: `cargo test --test it`.

mod closing;
mod crash;
mod input;
mod model;
mod rebuild;
mod support;
mod tidy;
mod writes;
