//! Crashes: the scripted workload of `tools/torture`, cut off at every call, in every way a disk may
//! be left. `PMLL_CRASH_EFFORT` multiplies the images at each call, `PMLL_CRASH_SEED` makes other
//! choices; a failing case prints its seed.

use std::time::Instant;

use pmll_torture::{SimulateOptions, simulate};

/// Images at each call, in multiples of the least, and what they make at least.
const EFFORT: u32 = 3;
const DISTINCT_MIN: u64 = 150_000;
const NESTED_MIN: u64 = 30_000;
/// Segments of the log that the workload makes of older ones, at least.
const RECYCLED_MIN: usize = 5;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn every_crash_leaves_a_state_that_was_issued_and_nothing_acknowledged_is_lost() {
    let begun = Instant::now();
    let effort = number("PMLL_CRASH_EFFORT").map_or(EFFORT, |n| u32::try_from(n).unwrap());
    let standard = SimulateOptions::default();
    let seed = number("PMLL_CRASH_SEED").unwrap_or(standard.seed);
    let options = SimulateOptions { effort, seed, threads: 2, ..standard };
    let report = simulate(&options, &|_| {}).unwrap_or_else(|why| panic!("{why}"));
    println!(
        "crash: {} distinct images, {} crashed again, {} of a lying disk, {} calls in {} legs, \
         {} acts, {} recycled segments, effort {effort}, seed {seed}, {:.0} s",
        report.distinct,
        report.nested,
        report.lying,
        report.calls,
        report.legs,
        report.acts,
        report.recycled,
        begun.elapsed().as_secs_f64()
    );
    assert!(report.violations.is_empty(), "\n{}\n", report.violations.join("\n\n"));
    assert!(report.recycled >= RECYCLED_MIN, "only {} recycled", report.recycled);
    let enough = report.distinct >= DISTINCT_MIN && report.nested >= NESTED_MIN;
    assert!(enough || effort < EFFORT, "too few images: {} and {}", report.distinct, report.nested);
}
