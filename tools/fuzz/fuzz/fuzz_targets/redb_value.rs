//! cargo-fuzz's way into `pmll_fuzz::redb_value`.
#![no_main]

// The store turns panics of redb into errors, so a panic counts only when it leaves the body.
libfuzzer_sys::fuzz_target!(
    init: drop(std::panic::take_hook()),
    |data: &[u8]| pmll_fuzz::redb_value::body(data)
);
