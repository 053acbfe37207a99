//! The pmll command.
fn main() {}
