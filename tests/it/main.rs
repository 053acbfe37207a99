//! The integration tests, one binary: `cargo test --test it`.

mod tidy;
