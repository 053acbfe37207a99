//! The decoders on stable: their examples, the kept corpus, and seeded mutations.
//!
//! An example must be read, and read as well after its checksums were made right: so the code that makes
//! them right is held against the encoders. What is kept under `corpus/parsers/NAME` was wrong once.
//!
//! The same inputs by the million: `cargo run --profile fast -p pmll-fuzz -- parsers`.
#![allow(clippy::unwrap_used)]

use std::panic::catch_unwind;
use std::path::Path;

use pmll_fuzz::chance::Chance;
use pmll_fuzz::parsers::{self, Parser};

const MUTATIONS: usize = 4_000;

/// What a parser says of an input; a panic or a broken rule fails.
#[track_caller]
fn read(parser: &Parser, input: &[u8]) -> bool {
    let shown = || input.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match catch_unwind(|| (parser.read)(input)) {
        Ok(Ok(was_read)) => was_read,
        Ok(Err(rule)) => panic!("{}: {rule}: {}", parser.name, shown()),
        Err(_) => panic!("{} panics on {}", parser.name, shown()),
    }
}

#[test]
fn every_example_is_read_and_so_is_one_with_checksums_made_right() {
    for parser in parsers::all() {
        assert!(!parser.seeds.is_empty(), "{} has no examples", parser.name);
        for (number, seed) in parser.seeds.iter().enumerate() {
            assert!(read(&parser, seed), "{}: example {number} is refused", parser.name);
            if let Some(seal) = parser.seal {
                let mut sealed = seed.clone();
                let _ = seal(&mut sealed);
                assert!(sealed == *seed, "{}: example {number} has other checksums", parser.name);
            }
        }
    }
}

#[test]
fn kept_inputs_and_mutations_break_no_rule() {
    for mut parser in parsers::all() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/parsers").join(parser.name);
        let mut kept = 0;
        for file in folder.read_dir().into_iter().flatten() {
            let mut input = std::fs::read(file.unwrap().path()).unwrap();
            read(&parser, &input);
            if let Some(seal) = parser.seal {
                let _ = seal(&mut input);
                read(&parser, &input);
            }
            kept += 1;
        }
        let (mut chance, mut good) = (Chance::new(20_260), 0);
        for _ in 0..MUTATIONS / parser.every as usize {
            let input = parsers::next(&parser, &mut chance);
            if read(&parser, &input) {
                good += 1;
                parsers::keep(&mut parser, input, &mut chance);
            }
        }
        println!("{}: {kept} kept inputs, {good} mutations read", parser.name);
        assert!(good > 0, "{} reads nothing: its checksums are not made right", parser.name);
    }
}
