//! Rot: one byte of one file of a small store is flipped, or a sector is zeroed, set back to what it
//! was, or put in another's place, and the store is opened.
//!
//! 1. `patient` makes a store with segments, an index, columns, packed codes and a log that is not
//!    archived, and keeps what its files held on the way; its process is killed.
//! 2. `damage` lists what can happen to its files. For every damage the disk is copied, damaged and
//!    opened. An answer is the right one or a typed error that names a file; nothing is missing
//!    without an error, nothing comes back that was deleted, nothing panics.
//! 3. Searches never fail: they find every entry that is whole, and say so when one is missing.
//! 4. Where the answer is an error, the deep verification finds the damage too.
//!
//! The end of the log is the exception that every log has: damage after which no whole frame stands
//! looks like a write that a power cut tore, so the state without it is right as well. A flip in a hint
//! (the process number in `LOCK`) or in space that nothing uses changes nothing.
//!
//! `cargo test` takes one bit of every byte; `PMLL_FLIPS=8` takes all eight, every content that a sector
//! ever had, and more sectors to change places with.

mod damage;
mod patient;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::flips::damage::{Effort, Kind, damages};
use crate::flips::patient::{Answer, Patient};

const THREADS: usize = 2;
/// Failures after which the sweep stops.
const FAILURES_MAX: usize = 5;
/// Damages there are at least.
const DAMAGES_MIN: usize = 60_000;

#[test]
fn damage_is_healed_or_named() {
    let begun = Instant::now();
    let effort = Effort::from_env();
    let threads = std::env::var("PMLL_FLIPS_THREADS").map_or(THREADS, |n| n.parse().unwrap());
    let patient = Patient::make();
    let cases = damages(&patient, effort);
    let names = patient.disk.file_names();
    for kind in ["archive/", "arena/", "columns/", "wal/", "index.redb", "store.toml"] {
        assert!(names.iter().any(|name| name.starts_with(kind)), "no {kind} in {names:?}");
    }
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let answers = Mutex::new(BTreeMap::<_, u64>::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((file, damage)) = cases.get(next.fetch_add(1, Ordering::AcqRel)) {
                    let answer = catch_unwind(AssertUnwindSafe(|| patient.examine(file, damage)));
                    let answer = answer.unwrap_or_else(|_| Err("panicked".to_owned()));
                    match answer {
                        Ok(answer) => {
                            let folder = file.split('/').next().unwrap_or(file);
                            let key = (folder, damage.kind(), answer);
                            *answers.lock().unwrap().entry(key).or_default() += 1;
                        }
                        Err(why) => {
                            let why = format!("{file}, {damage:?}: {why}");
                            failures.lock().unwrap().push(why);
                        }
                    }
                    if failures.lock().unwrap().len() >= FAILURES_MAX {
                        break;
                    }
                }
            });
        }
    });
    let answers = answers.into_inner().unwrap();
    let failures = failures.into_inner().unwrap();
    let tried: u64 = answers.values().sum();
    println!(
        "flips: {tried} damages to {} files in {:.0} s, {effort:?}; {}; {}; {}; {} violations",
        names.len(),
        begun.elapsed().as_secs_f64(),
        sums(&answers, |(_, kind, _)| format!("{kind:?}")),
        sums(&answers, |(folder, ..)| folder.to_string()),
        sums(&answers, |(.., answer)| format!("{answer:?}")),
        failures.len()
    );
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n\n"));
    assert!(cases.len() >= DAMAGES_MIN, "only {} damages", cases.len());
    for kind in [Kind::Flip, Kind::Zero, Kind::Stale, Kind::Swap] {
        assert!(answers.keys().any(|(_, tried, _)| *tried == kind), "no {kind:?}");
    }
    let named = |folder, answer| answers.keys().any(|(f, _, a)| (*f, *a) == (folder, answer));
    assert!(named("archive", Answer::Named), "no damage to a payload: {answers:?}");
}

/// How many of each, in words.
fn sums<K>(counts: &BTreeMap<K, u64>, name: impl Fn(&K) -> String) -> String {
    let mut sums = BTreeMap::<_, u64>::new();
    for (key, count) in counts {
        *sums.entry(name(key)).or_default() += count;
    }
    sums.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
}
