//! The simulator: a scripted workload, cut off at every call, in every way a disk may be left.
//!
//! 1. `script` plays a workload on a recording disk; `model` says what must be there after each
//!    act; at the same time the live store is compared with it.
//! 2. At every call of the run, images are built under each profile, and each distinct one is
//!    opened and judged by the `oracle`: the recovered state is one that was issued and not older
//!    than the last one acknowledged, byte for byte, and recovery is repeatable.
//! 3. Some images are crashed again at every call of their recovery.
//!
//! A failing case is told as (leg, call, profile, label, seed) with the call in words.
//! The workload is the script, or one drawn from a seed. The same
//! options make the same images; only the choice of those that are crashed again depends on which
//! thread came first.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pmll::Clock;
use pmll::io::sim::{Limits, Profile, Recording, SimDisk};

use crate::derived::Derived;
use crate::generate::generate;
use crate::model::{Act, difference};
use crate::oracle::{Expect, Oracle, Rigour, answers, observe};
use crate::script::{HandClock, Moment, START, open, play, script};

/// Images at one point of the run, at effort 1.
// At effort 3, which the gate takes, the script makes more than 150,000 distinct images of these.
const PREFIX_IMAGES: usize = 40;
const EXT4_IMAGES: usize = 54;
const POSIX_IMAGES: usize = 264;
/// Random choices, and as many torn ones, where not every subset is tried.
const POSIX_CHOICES: usize = 96;
const LYING_IMAGES: usize = 6;
/// Points of the run that are crashed on a lying disk: each builds images of all that was written.
const LYING_EVERY: u64 = 16;
const NESTED_IMAGES: usize = 4;
/// Of so many images one is salvaged, and loses derived files between its two opens.
const DERIVED_EVERY: u64 = 16;
/// Acts of a workload drawn at random.
const ACTS: usize = 80;
/// Failures after which a sweep stops: more of them say nothing new.
const FAILURES_MAX: usize = 5;

/// How much is tried, and by which choices.
#[derive(Clone, Debug)]
pub struct SimulateOptions {
    /// Multiplies the images at each point of the run.
    pub effort: u32,
    /// Seed of all choices.
    pub seed: u64,
    /// Threads that judge images.
    pub threads: usize,
    /// Of so many images one is crashed again at every call of its recovery; 0 for none.
    pub nested_every: u64,
    /// Judges only every n-th point of the run; 1 for all of them.
    pub every_call: u64,
    /// Seed of a workload drawn at random; 0 for the script.
    pub workload: u64,
}

impl Default for SimulateOptions {
    fn default() -> SimulateOptions {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        SimulateOptions {
            effort: 1,
            seed: 20_260,
            threads,
            nested_every: 180,
            every_call: 1,
            workload: 0,
        }
    }
}

/// How far a sweep is.
#[derive(Clone, Copy, Debug)]
pub struct SimulateProgress {
    /// Points of the run that were judged.
    pub points: u64,
    /// Points there are.
    pub points_of: u64,
    /// Distinct images so far, those crashed again included.
    pub images: u64,
}

/// What a sweep tried and found.
#[derive(Clone, Debug)]
pub struct SimulateReport {
    /// Distinct images that were opened and judged.
    pub distinct: u64,
    /// Distinct images of a crash during a recovery.
    pub nested: u64,
    /// Images of a disk that lies about its syncs.
    pub lying: u64,
    /// Mutating calls of the run.
    pub calls: u64,
    /// Parts of the run between kills.
    pub legs: usize,
    /// Acts of the run.
    pub acts: usize,
    /// Segments of the log that were made of an older one's file.
    pub recycled: usize,
    /// What was wrong, each with the way back to it.
    pub violations: Vec<String>,
}

/// Plays the script and judges every crash of it.
///
/// # Errors
/// The script does not even run: the live store differs from the model, in words.
pub fn simulate(
    options: &SimulateOptions,
    progress: &(dyn Fn(SimulateProgress) + Sync),
) -> Result<SimulateReport, String> {
    simulate_acts(options, &workload(options), progress)
}

/// The acts of the workload that these options ask for.
#[must_use]
pub fn workload(options: &SimulateOptions) -> Vec<Act> {
    match options.workload {
        0 => script(),
        seed => generate(seed, ACTS),
    }
}

/// The same for any acts.
///
/// # Errors
/// As [`simulate`].
pub fn simulate_acts(
    options: &SimulateOptions,
    acts: &[Act],
    progress: &(dyn Fn(SimulateProgress) + Sync),
) -> Result<SimulateReport, String> {
    let run = quietly(|| play(options.seed, acts, &look))?;
    let oracle = Oracle::new(&run);
    let sweep = Sweep::new(options);
    let stride = options.every_call.max(1);
    let mut legs = Vec::new();
    let mut recycled = 0;
    for disk in &run.disks {
        let recording = disk.recording().ok_or("a leg was not recorded")?;
        recycled += (recording.first_op()..recording.end_op())
            .filter(|op| makes_segment_of_spare(&recording.describe(*op)))
            .count();
        legs.push((recording.first_op(), recording.end_op()));
    }
    let points_of = legs.iter().map(|(first, end)| (end - first) / stride + 1).sum();
    let done = AtomicU64::new(0);
    for (leg, disk) in run.disks.iter().enumerate() {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..options.threads.max(1) {
                // Each thread replays the run for itself, forward only.
                let Some(recording) = disk.recording() else { continue };
                let (sweep, oracle, next, done) = (&sweep, &oracle, &next, &done);
                scope.spawn(move || {
                    loop {
                        let step = next.fetch_add(1, Ordering::AcqRel) as u64;
                        let op = recording.first_op() + step * stride;
                        if op > recording.end_op() || sweep.is_over() {
                            break;
                        }
                        quietly(|| sweep.point(oracle, &recording, leg, op));
                        let points = done.fetch_add(1, Ordering::AcqRel) + 1;
                        progress(SimulateProgress { points, points_of, images: sweep.images() });
                    }
                });
            }
        });
    }
    Ok(SimulateReport {
        distinct: sweep.distinct.into_inner(),
        nested: sweep.nested.into_inner(),
        lying: sweep.lying.into_inner(),
        calls: run.disks.iter().map(SimDisk::op_count).sum(),
        legs: run.disks.len(),
        acts: run.moments.len(),
        recycled,
        violations: sweep.failures.into_inner().unwrap_or_else(|e| e.into_inner()),
    })
}

fn makes_segment_of_spare(call: &str) -> bool {
    let names = call.strip_prefix("rename wal/").and_then(|names| names.split_once(" to "));
    names.is_some_and(|(from, to)| from.ends_with(".spare") && to.ends_with(".wal"))
}

/// What a sweep has seen and counted.
struct Sweep<'a> {
    options: &'a SimulateOptions,
    /// By hash of an image: the states it is in.
    seen: Mutex<HashMap<u128, Vec<usize>>>,
    distinct: AtomicU64,
    nested: AtomicU64,
    lying: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl<'a> Sweep<'a> {
    fn new(options: &'a SimulateOptions) -> Sweep<'a> {
        Sweep {
            options,
            seen: Mutex::default(),
            distinct: AtomicU64::new(0),
            nested: AtomicU64::new(0),
            lying: AtomicU64::new(0),
            failures: Mutex::default(),
        }
    }

    fn images(&self) -> u64 {
        self.distinct.load(Ordering::Acquire) + self.nested.load(Ordering::Acquire)
    }

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
        let (effort, seed) = (self.options.effort.max(1) as usize, self.options.seed);
        for profile in [Profile::Kill, Profile::Prefix, Profile::Ext4, Profile::Posix] {
            let images = match profile {
                Profile::Kill => 1,
                Profile::Prefix => PREFIX_IMAGES * effort,
                Profile::Ext4 => EXT4_IMAGES * effort,
                _ => POSIX_IMAGES * effort,
            };
            let choices = POSIX_CHOICES * effort;
            // At every other point torn sectors may hold neither what was there nor what was written.
            let noise = op.is_multiple_of(2);
            let limits = Limits { images, random: choices, torn: choices, noise, seed };
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
                        "leg {leg}, {}, seed {seed}, next call: {}: {why}",
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
        let every = self.options.nested_every;
        let again = every > 0 && number.is_multiple_of(every);
        let nested = again.then(|| image.fork_now());
        let round = number / DERIVED_EVERY;
        let derived = Derived::ALL[round as usize % Derived::ALL.len()];
        let rigour =
            if number % DERIVED_EVERY == 1 { Rigour::Without(derived) } else { Rigour::Full };
        let window = oracle.window(leg, op, profile == Profile::Kill);
        let now = oracle.now(leg, op);
        let whole_sectors = !op.is_multiple_of(2);
        let expect = Expect { quiet: oracle.quiet(leg, op), whole_sectors };
        let states = oracle.judge(image, &window, now, rigour, expect)?;
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
        let limits = Limits {
            images: NESTED_IMAGES,
            noise: true,
            seed: self.options.seed,
            ..Limits::default()
        };
        for op in recording.first_op()..=recording.end_op() {
            for profile in [Profile::Kill, Profile::Posix] {
                for image in recording.images_at(op, profile, &limits) {
                    let hash = image.image_hash();
                    if self.known(hash).is_some() {
                        continue;
                    }
                    self.nested.fetch_add(1, Ordering::AcqRel);
                    let judged =
                        oracle.judge(&image, &(low..=high), START, Rigour::Full, Expect::default());
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
        let seed = self.options.seed;
        let limits = Limits { images: LYING_IMAGES, noise: true, seed, ..Limits::default() };
        let everything = 0..=oracle.run.moments.len() - 1;
        for image in recording.images_at(op, Profile::Lying, &limits) {
            if self.known(image.image_hash()).is_some() {
                continue;
            }
            self.lying.fetch_add(1, Ordering::AcqRel);
            if let Err(why) =
                oracle.judge(&image, &everything, START, Rigour::Lying, Expect::default())
            {
                self.fail(format!("leg {leg}, {}, seed {seed}: {why}", image.label()));
            }
        }
    }
}

/// Without a log: the store warns of what it finds in an image, as often as there are images.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::new(), work)
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
