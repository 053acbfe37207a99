//! cargo-fuzz's way into the parser `filter`.
#![no_main]

use std::sync::LazyLock;

use pmll_fuzz::parsers::{self, Parser};

static PARSER: LazyLock<Option<Parser>> = LazyLock::new(|| parsers::find("filter"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some(parser) = &*PARSER {
        parsers::body(parser, data);
    }
});
