//! The fuzz targets on stable: the kept corpus, and seeded mutations of valid inputs.
//!
//! Held against the contract are panics, memory and time; time with a generous factor, as a debug build on
//! a busy machine is slow. A failure prints target and input, in hexadecimal digits; a file with those bytes
//! under `corpus/TARGET` keeps it.
//!
//! One test, one thread: what is measured must not be another test's.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use pmll_fuzz::chance::{Chance, mutated};
use pmll_fuzz::{BYTES_MAX, TARGETS, Target};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Twenty times the contract.
const PATIENCE: Duration = pmll_fuzz::TIME_MAX.saturating_mul(20);
/// Most time for the mutations of one target; slow machines try fewer.
const SHARE: Duration = Duration::from_millis(1500);
/// Mutations of one target.
const MUTATIONS: u64 = 4_000;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Runs one input. The time it took, or what is wrong.
fn run(target: &Target, input: &[u8]) -> Duration {
    let name = target.name;
    MEMORY.reset_peak_usage();
    let (before, begun) = (MEMORY.current_usage(), Instant::now());
    let outcome = catch_unwind(|| (target.body)(input));
    let (took, bytes) = (begun.elapsed(), MEMORY.peak_usage().saturating_sub(before));
    assert!(outcome.is_ok(), "{name} panics on {}", hex(input));
    assert!(took <= PATIENCE, "{name} takes {took:?} for {}", hex(input));
    assert!(bytes <= BYTES_MAX, "{name} takes {bytes} bytes of memory for {}", hex(input));
    took
}

fn corpus(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_target_keeps_its_contract() {
    for target in TARGETS {
        // The base store is built now, so that nobody pays for it below.
        (target.body)(&[0]);
        let (mut slowest, mut tried) = (Duration::ZERO, 0_u64);
        let mut inputs = (target.seeds)();
        let files = corpus(target.name);
        inputs.extend(files.iter().map(|path| std::fs::read(path).unwrap()));
        for input in &inputs {
            slowest = slowest.max(run(target, input));
        }
        let begun = Instant::now();
        while tried < MUTATIONS && begun.elapsed() < SHARE {
            let mut chance = Chance::new(tried);
            let input = inputs[chance.below(inputs.len())].clone();
            let other = inputs[chance.below(inputs.len())].clone();
            slowest = slowest.max(run(target, &mutated(input, &other, &mut chance)));
            tried += 1;
        }
        println!(
            "{}: {} seeds, {} kept inputs, {tried} mutations, slowest {slowest:?}",
            target.name,
            inputs.len() - files.len(),
            files.len(),
        );
        assert!(tried >= 20, "{}: only {tried} mutations in {SHARE:?}", target.name);
    }
}

#[test]
#[ignore = "takes long: cargo test --release -p pmll-fuzz long -- --ignored --nocapture"]
fn long_search() {
    let seconds = std::env::var("PMLL_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let only = std::env::var("PMLL_FUZZ_TARGET").ok();
    for target in TARGETS {
        if only.as_deref().is_some_and(|name| name != target.name) {
            continue;
        }
        let inputs = (target.seeds)();
        let (begun, mut tried, mut slowest) = (Instant::now(), 1 << 32, Duration::ZERO);
        while begun.elapsed() < Duration::from_secs(seconds.unwrap_or(20)) {
            let mut chance = Chance::new(tried);
            let input = inputs[chance.below(inputs.len())].clone();
            let other = inputs[chance.below(inputs.len())].clone();
            slowest = slowest.max(run(target, &mutated(input, &other, &mut chance)));
            tried += 1;
        }
        println!("{}: {} mutations, slowest {slowest:?}", target.name, tried - (1 << 32));
    }
}

#[test]
#[ignore = "writes the seeds into PMLL_FUZZ_SEEDS: cargo test -p pmll-fuzz seeds -- --ignored"]
fn seeds_for_cargo_fuzz() {
    let Ok(folder) = std::env::var("PMLL_FUZZ_SEEDS") else { return };
    let write = |name: &str, seeds: &[Vec<u8>]| {
        let folder = Path::new(&folder).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed).unwrap();
        }
    };
    for target in TARGETS {
        write(target.name, &(target.seeds)());
    }
    for parser in pmll_fuzz::parsers::all() {
        // The byte in front says whether checksums are made right.
        let seeds: Vec<_> = parser.seeds.iter().map(|seed| [&[1], &seed[..]].concat()).collect();
        write(&format!("parser_{}", parser.name), &seeds);
    }
}
