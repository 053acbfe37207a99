//! Faults: a scripted workload during which one call of the disk fails, once or for ever.
//!
//! 1. An undisturbed run of the crash suite's script counts the calls and says what each does.
//! 2. For every call and every fault that fits it, `play` runs the script again, and goes on after
//!    what fails: the errors are typed, the live store shows what it acknowledged and nothing else,
//!    writes come back when the reason is gone, and are `Poisoned` after a failed sync of the log.
//! 3. At the end the disk is judged by the crash suite's oracle: as a killed process leaves it, as a
//!    power cut leaves it, and as a power cut leaves it after the next owner's first checkpoint.
//!    Nothing acknowledged is missing.
//!
//! `cargo test` takes every second case, so that every kind of call is met; all of them run with
//! `PMLL_FAULTS=all`. A failing case prints as (call, fault, once or for ever) with the call in words.

mod play;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use pmll::io::sim::Fault;

use crate::faults::play::{Case, Kind, Play, Script};

const THREADS: usize = 2;
/// Failures after which the sweep stops.
const FAILURES_MAX: usize = 5;
/// Cases that a run without `PMLL_FAULTS=all` takes at least.
const CASES_MIN: usize = 2_000;

/// Whether a fault would fire at a call, going by its words.
fn fits(fault: Fault, call: &str) -> bool {
    let is = |word: &str| call.starts_with(word);
    match fault {
        Fault::Eio | Fault::Eintr => true,
        Fault::Enospc => is("write") || is("create") || is("set length"),
        Fault::ShortWrite => is("write"),
        Fault::SyncFails => is("sync"),
    }
}

/// Every case there is: mutating calls in order, then reads.
fn cases(script: &Script) -> Vec<Case> {
    let mut cases = Vec::new();
    for sticky in [false, true] {
        for fault in Fault::ALL {
            for (call, words) in (0..).zip(&script.calls) {
                if fits(fault, words) {
                    cases.push(Case { call, kind: Kind::Write(fault), sticky });
                }
            }
        }
        cases.extend((0..script.reads).map(|call| Case { call, kind: Kind::Read, sticky }));
    }
    cases
}

/// Every case of a call or fault that comes seldom, and of the others as many as are wanted.
fn sample(cases: Vec<Case>, wanted: usize) -> Vec<Case> {
    // Odd, and no divisor of the distance between like calls of neighbouring acts.
    let stride = (cases.len() / wanted).max(1);
    cases.into_iter().step_by(stride).collect()
}

#[test]
fn every_call_fails_and_nothing_acknowledged_is_lost() {
    let begun = Instant::now();
    let script = Script::measure().expect("the script runs undisturbed");
    let all = cases(&script);
    let every = std::env::var("PMLL_FAULTS").is_ok_and(|value| value == "all");
    let total = all.len();
    let chosen = if every { all } else { sample(all, CASES_MIN) };
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(case) = chosen.get(next.fetch_add(1, Ordering::AcqRel)) {
                    let played = catch_unwind(AssertUnwindSafe(|| Play::run(&script, *case)));
                    let played = played.unwrap_or_else(|panic| {
                        let text = panic.downcast_ref::<String>().map(String::as_str);
                        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                        Err(format!("panicked: {}", text.unwrap_or("?")))
                    });
                    let mut failures = failures.lock().unwrap_or_else(|e| e.into_inner());
                    if let Err(why) = played {
                        failures.push(format!("{}: {why}", script.describe(*case)));
                    }
                    if failures.len() >= FAILURES_MAX {
                        break;
                    }
                }
            });
        }
    });
    let mut counts = BTreeMap::new();
    for case in &chosen {
        *counts.entry(format!("{:?}", case.kind)).or_insert(0_u64) += 1;
    }
    println!(
        "faults: {} runs of {total} cases ({} calls, {} reads) in {:.0} s: {counts:?}",
        chosen.len(),
        script.calls.len(),
        script.reads,
        begun.elapsed().as_secs_f64()
    );
    let failures = failures.into_inner().unwrap_or_else(|e| e.into_inner());
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n\n"));
    assert!(chosen.len() >= CASES_MIN, "only {} cases", chosen.len());
}
