//! Crashes: a scripted workload, cut off at every call, in every way a disk may be left.
//!
//! 1. `script` plays a workload on a recording disk; `model` says what must be there after each
//!    act; at the same time the live store is compared with it.
//! 2. At every call of the run, `images` below are built under each profile, and each distinct one
//!    is opened and judged by the `oracle`: the recovered state is one that was issued and not
//!    older than the last one acknowledged, byte for byte, and recovery is repeatable.
//! 3. Some images are crashed again at every call of their recovery.
//!
//! A failing case is printed as (leg, call, profile, label, seed) with the call in words.

pub(crate) mod model;
pub(crate) mod oracle;
pub(crate) mod script;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pmll::Clock;
use pmll::io::sim::{Limits, Profile, Recording, SimDisk};

use crate::crash::model::difference;
use crate::crash::oracle::{Oracle, Rigour, answers, observe};
use crate::crash::script::{HandClock, Moment, Run, START, open, play, script};

const SEED: u64 = 20_260;
/// Images at one point of the run. Together they make more than 20,000 distinct ones.
const PREFIX_IMAGES: usize = 40;
const EXT4_IMAGES: usize = 48;
const POSIX_IMAGES: usize = 224;
const POSIX_CHOICES: usize = 96;
const LYING_IMAGES: usize = 6;
/// Points of the run that are crashed on a lying disk: each builds images of all that was written.
const LYING_EVERY: u64 = 16;
/// Of so many images one is crashed again at every call of its recovery.
const NESTED_EVERY: u64 = 200;
const NESTED_IMAGES: usize = 4;
/// Of so many images one loses its index between its two opens.
const INDEXLESS_EVERY: u64 = 16;
const THREADS: usize = 2;
/// Failures after which a sweep stops: more of them say nothing new.
const FAILURES_MAX: usize = 5;

/// What a sweep has seen and counted.
#[derive(Default)]
struct Sweep {
    /// By hash of an image: the states it is in.
    seen: Mutex<HashMap<u128, Vec<usize>>>,
    distinct: AtomicU64,
    nested: AtomicU64,
    lying: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Sweep {
    fn fail(&self, text: String) {
        let mut failures = self.failures.lock().unwrap_or_else(|e| e.into_inner());
        failures.push(text);
    }

    fn is_over(&self) -> bool {
        self.failures.lock().unwrap_or_else(|e| e.into_inner()).len() >= FAILURES_MAX
    }

    /// The states of an image that was judged before.
    fn known(&self, hash: u128) -> Option<Vec<usize>> {
        self.seen.lock().unwrap_or_else(|e| e.into_inner()).get(&hash).cloned()
    }

    /// Judges all images of one point of a leg.
    fn point(&self, oracle: &Oracle<'_>, recording: &Recording, leg: usize, op: u64) {
        for profile in [Profile::Kill, Profile::Prefix, Profile::Ext4, Profile::Posix] {
            let images = match profile {
                Profile::Kill => 1,
                Profile::Prefix => PREFIX_IMAGES,
                Profile::Ext4 => EXT4_IMAGES,
                _ => POSIX_IMAGES,
            };
            let (random, torn) = (POSIX_CHOICES, POSIX_CHOICES);
            let limits = Limits { images, random, torn, seed: SEED };
            let window = oracle.window(leg, op, profile == Profile::Kill);
            for image in recording.images_at(op, profile, &limits) {
                let hash = image.image_hash();
                let verdict = match self.known(hash) {
                    Some(states) if states.iter().any(|k| window.contains(k)) => Ok(()),
                    Some(states) => Err(format!("is in states {states:?}, outside {window:?}")),
                    None => self.image(oracle, &image, leg, op, profile),
                };
                if let Err(why) = verdict {
                    self.fail(format!(
                        "leg {leg}, {}, seed {SEED}, next call: {}: {why}",
                        image.label(),
                        recording.describe(op)
                    ));
                }
            }
        }
        if op.is_multiple_of(LYING_EVERY) {
            self.lie(oracle, recording, leg, op);
        }
    }

    fn image(
        &self,
        oracle: &Oracle<'_>,
        image: &SimDisk,
        leg: usize,
        op: u64,
        profile: Profile,
    ) -> Result<(), String> {
        let hash = image.image_hash();
        let number = self.distinct.fetch_add(1, Ordering::AcqRel);
        let nested = number.is_multiple_of(NESTED_EVERY).then(|| image.fork_now());
        let rigour =
            if number % INDEXLESS_EVERY == 1 { Rigour::WithoutIndex } else { Rigour::Full };
        let window = oracle.window(leg, op, profile == Profile::Kill);
        let now = oracle.now(leg, op);
        let states = oracle.judge(image, &window, now, rigour)?;
        self.seen.lock().unwrap_or_else(|e| e.into_inner()).insert(hash, states.clone());
        match nested {
            Some(disk) => self.nest(oracle, &disk, &states),
            None => Ok(()),
        }
    }

    /// Crashes a recovery at each of its calls: the second recovery reaches the same state.
    fn nest(&self, oracle: &Oracle<'_>, disk: &SimDisk, states: &[usize]) -> Result<(), String> {
        let (Some(&low), Some(&high)) = (states.first(), states.last()) else { return Ok(()) };
        disk.record();
        let store = open(disk, &HandClock::new(START)).map_err(|e| format!("nested: {e:?}"))?;
        let recording = disk.recording().ok_or("no recording")?;
        drop(store);
        let limits = Limits { images: NESTED_IMAGES, seed: SEED, ..Limits::default() };
        for op in recording.first_op()..=recording.end_op() {
            for profile in [Profile::Kill, Profile::Posix] {
                for image in recording.images_at(op, profile, &limits) {
                    let hash = image.image_hash();
                    if self.known(hash).is_some() {
                        continue;
                    }
                    self.nested.fetch_add(1, Ordering::AcqRel);
                    let judged = oracle.judge(&image, &(low..=high), START, Rigour::Full);
                    let states = judged.map_err(|e| {
                        let call = recording.describe(op);
                        format!("crashed again ({}, next call: {call}): {e}", image.label())
                    })?;
                    let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
                    seen.insert(hash, states);
                }
            }
        }
        Ok(())
    }

    /// A disk that lied about its syncs: some earlier state, or a typed refusal.
    fn lie(&self, oracle: &Oracle<'_>, recording: &Recording, leg: usize, op: u64) {
        let limits = Limits { images: LYING_IMAGES, seed: SEED, ..Limits::default() };
        let everything = 0..=oracle.run.moments.len() - 1;
        for image in recording.images_at(op, Profile::Lying, &limits) {
            if self.known(image.image_hash()).is_some() {
                continue;
            }
            self.lying.fetch_add(1, Ordering::AcqRel);
            if let Err(why) = oracle.judge(&image, &everything, START, Rigour::Lying) {
                self.fail(format!("leg {leg}, {}, seed {SEED}: {why}", image.label()));
            }
        }
    }
}

/// Compares the live store with the model.
fn look(store: &pmll::Store, moment: &Moment, clock: &HandClock) -> Result<(), String> {
    let now = clock.now();
    clock.set(START);
    let found = observe(store)?;
    clock.set(now);
    match difference(&found, &moment.state) {
        why if why.is_empty() => answers(store, &moment.state, clock, now),
        why => Err(why),
    }
}

fn run() -> Run {
    match play(SEED, &script(), &look) {
        Ok(run) => run,
        Err(why) => panic!("the script does not even run: {why}"),
    }
}

#[test]
fn every_crash_leaves_a_state_that_was_issued_and_nothing_acknowledged_is_lost() {
    let run = run();
    let oracle = Oracle { run: &run };
    let sweep = Sweep::default();
    for (leg, disk) in run.disks.iter().enumerate() {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                // Each thread replays the run for itself, forward only.
                let recording = disk.recording().expect("every leg is recorded");
                let (sweep, oracle, next) = (&sweep, &oracle, &next);
                scope.spawn(move || {
                    loop {
                        let op = recording.first_op() + next.fetch_add(1, Ordering::AcqRel) as u64;
                        if op > recording.end_op() || sweep.is_over() {
                            break;
                        }
                        sweep.point(oracle, &recording, leg, op);
                    }
                });
            }
        });
    }
    let failures = sweep.failures.lock().unwrap_or_else(|e| e.into_inner());
    let (distinct, nested) = (sweep.distinct.into_inner(), sweep.nested.into_inner());
    println!(
        "crash: {distinct} distinct images, {nested} crashed again, {} of a lying disk, {} calls \
         in {} legs, {} acts, seed {SEED}",
        sweep.lying.into_inner(),
        run.disks.iter().map(SimDisk::op_count).sum::<u64>(),
        run.disks.len(),
        run.moments.len()
    );
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n\n"));
    assert!(distinct >= 20_000, "only {distinct} distinct images: the limits are too tight");
}
