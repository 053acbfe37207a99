//! Faults: a scripted workload during which calls of the disk fail, once, some times, or for ever.
//!
//! 1. An undisturbed run of the crash suite's script counts the calls and says what each does; `rig`
//!    lists every call with every fault that fits it, reads and looks at names and lengths included.
//! 2. For each of them, `play` runs the script again, and goes on after what fails: the errors are
//!    typed, the live store shows what it acknowledged and nothing else, writes come back when the
//!    reason is gone, and are `Poisoned` after a failed sync of the log.
//! 3. At the end the disk is judged by the crash suite's oracle: as a killed process leaves it, as a
//!    power cut leaves it, and as a power cut leaves it after the next owner's first checkpoint.
//!    Nothing acknowledged is missing.
//!
//! `cargo test` takes every case; one in `FULL_EVERY` plays the whole script, the others begin with the
//! leg of the fault and end a few acts behind it. With `PMLL_FAULTS=all` all play the whole script.
//! `PMLL_FAULTS_PAIRS=n` adds n pairs of faults, chosen by `PMLL_FAULTS_SEED`; `PMLL_FAULTS=pairs` takes them
//! alone. A failing case prints as
//! its calls in words.

mod play;
mod rig;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use pmll_torture::workload::Random;

use crate::faults::play::{Play, Reach};
use crate::faults::rig::{Case, Script};

const THREADS: u64 = 2;
/// Failures after which the sweep stops.
const FAILURES_MAX: usize = 5;
/// Cases there are at least.
const CASES_MIN: usize = 10_000;
/// One case of so many plays the whole script; no divisor of the distance between like calls.
const FULL_EVERY: usize = 29;
/// Most calls between the faults of most pairs: the second hits what mends the first.
const NEAR: u64 = 40;

fn number(name: &str, unset: u64) -> u64 {
    let Ok(text) = std::env::var(name) else { return unset };
    text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number"))
}

/// Faults two by two: any case, and another one close behind it or anywhere.
fn pairs(all: &[Case], wanted: u64, seed: u64) -> Vec<Vec<Case>> {
    let mut random = Random(seed);
    let mut any = || all[random.within(0, all.len() as u64) as usize];
    let mut pairs: Vec<Vec<Case>> = (0..wanted).map(|_| vec![any(), any()]).collect();
    for pair in &mut pairs {
        let (first, near) = (pair[0], random.within(0, 4) > 0);
        let is_alike = std::mem::discriminant(&first.kind) == std::mem::discriminant(&pair[1].kind);
        if near && is_alike {
            pair[1].call = first.call + random.within(1, NEAR);
        }
    }
    pairs
}

#[test]
fn every_call_fails_and_nothing_acknowledged_is_lost() {
    let begun = Instant::now();
    let script = Script::measure().expect("the script runs undisturbed");
    let all = script.cases();
    let which = std::env::var("PMLL_FAULTS").unwrap_or_default();
    let every = which == "all";
    let seed = number("PMLL_FAULTS_SEED", 1);
    let pairs = pairs(&all, number("PMLL_FAULTS_PAIRS", 0), seed);
    let reach =
        |n: usize| if every || n.is_multiple_of(FULL_EVERY) { Reach::Full } else { Reach::Short };
    let wanted = if which == "pairs" { 0 } else { all.len() };
    let singles = all.iter().take(wanted).enumerate().map(|(n, case)| (vec![*case], reach(n)));
    let chosen: Vec<(Vec<Case>, Reach)> =
        singles.chain(pairs.iter().map(|pair| (pair.clone(), Reach::Short))).collect();
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..number("PMLL_FAULTS_THREADS", THREADS) {
            scope.spawn(|| {
                while let Some((cases, reach)) = chosen.get(next.fetch_add(1, Ordering::AcqRel)) {
                    let run = || Play::run(&script, cases, *reach);
                    let played = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
                        let text = panic.downcast_ref::<String>().map(String::as_str);
                        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                        Err(format!("panicked: {}", text.unwrap_or("?")))
                    });
                    let mut failures = failures.lock().unwrap_or_else(|e| e.into_inner());
                    if let Err(why) = played {
                        failures.push(format!("{}, {reach:?}: {why}", script.describe(cases)));
                    }
                    if failures.len() >= FAILURES_MAX {
                        break;
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(|e| e.into_inner());
    let mut counts = BTreeMap::new();
    for case in chosen.iter().flat_map(|(cases, _)| cases) {
        *counts.entry(format!("{:?}", case.kind)).or_insert(0_u64) += 1;
    }
    println!(
        "faults: {} runs in {:.0} s: {wanted} of {} cases ({} over the whole script; {} calls, {} reads, {} \
         looks; {counts:?}), {} pairs, seed {seed}; {} violations",
        next.into_inner().min(chosen.len()),
        begun.elapsed().as_secs_f64(),
        all.len(),
        chosen.iter().filter(|(_, reach)| *reach == Reach::Full).count(),
        script.counts.calls,
        script.counts.reads,
        script.counts.looks,
        pairs.len(),
        failures.len()
    );
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n\n"));
    assert!(all.len() >= CASES_MIN, "only {} cases", all.len());
}
