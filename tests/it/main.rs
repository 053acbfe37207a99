//! The integration tests, one binary: `cargo test --test it`.

mod closing;
mod input;
mod crash;
mod model;
mod rebuild;
mod support;
mod tidy;
mod writes;
