//! Rot: one byte of one file of a small store is flipped, or one sector zeroed, and it is opened.
//!
//! 1. The crash suite's script makes a store with segments, an index, a log that is not archived and
//!    columns; its process is killed.
//! 2. For every damage the disk is copied, damaged and opened. An answer is the right one or a typed
//!    error that names a file; nothing is missing without an error, nothing comes back that was
//!    deleted, nothing panics.
//! 3. Searches never fail: they find every entry that is whole, and say so when one is missing.
//! 4. Where the answer is an error, the deep verification finds the damage too.
//!
//! The last record of the log is the exception that every log has: damage to it looks like a write
//! that a power cut tore, so the state without it is right as well. A flip in a hint (the process
//! number in `LOCK`) or in space that nothing uses changes nothing.
//!
//! `cargo test` takes a part of the bytes of every file; all of them with `PMLL_FLIPS=all`.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use pmll::io::sim::SimDisk;
use pmll::{Collection, Depth, Draft, Error, ErrorKind, Exactness, Query, Scan, Store};

use pmll_torture::model::{Act, Shelf, State, difference};
use pmll_torture::oracle::{item, observe};
use pmll_torture::script::{HandClock, START, open, perform, script};

const THREADS: usize = 2;
/// Failures after which the sweep stops.
const FAILURES_MAX: usize = 5;
/// Flips of one file in a run without `PMLL_FLIPS=all`.
const FLIPS_A_FILE: usize = 700;
const SECTOR_BYTES: u64 = 512;

/// One damage.
#[derive(Clone, Debug)]
enum Damage {
    /// A byte and a bit of it.
    Flip(u64, u8),
    /// A sector becomes zeros.
    Zero(u64),
}

/// The store that is damaged, and what it must answer.
struct Patient {
    disk: SimDisk,
    /// Everything acknowledged.
    state: State,
    /// The same without the last record.
    before: State,
}

impl Patient {
    fn make() -> Patient {
        let disk = SimDisk::new(1);
        let clock = HandClock::new(START);
        let mut store = open(&disk, &clock).unwrap();
        let (mut before, mut state) = (State::default(), State::default());
        for act in script() {
            match act {
                // What expires is for other tests.
                Act::Wait(_) => {}
                Act::Kill | Act::Reopen => {
                    store.close().unwrap();
                    store = open(&disk, &clock).unwrap();
                }
                act => drop(perform(&store, &act).unwrap()),
            }
            before = std::mem::replace(&mut state, observe(&store).unwrap());
        }
        assert!(state.shelves.len() == 2 && state.lsn == before.lsn + 1);
        Patient { disk: disk.fork_now(), state, before }
    }

    /// Searches, by exact vectors and by codes, find every entry that has a vector, but for those
    /// that cannot be read whole; and they say so when one is missing.
    fn search(
        &self,
        collection: &Collection,
        shelf: &Shelf,
        dim: u32,
        unread: &BTreeSet<u64>,
    ) -> Result<(), String> {
        let vector: Vec<f32> = (0..dim).map(|i| 1.0 - i as f32 * 0.3).collect();
        let wanted = shelf.best(&vector);
        let query = || Query::vector(vector.clone()).k(1000);
        for exactness in [Exactness::default(), Exactness::Codes] {
            let hits = collection.search(query().exactness(exactness));
            let hits = hits.map_err(|error| format!("a search fails: {error:?}"))?;
            let ids: Vec<u64> = hits.iter().map(|hit| hit.entry.id.0).collect();
            let wrong = |why: &str| {
                let answer = format!("{exactness:?}: {ids:?} for {wanted:?}: {why}");
                Err(format!("{answer}; {:?}", hits.damaged()))
            };
            let found: BTreeSet<u64> = ids.iter().copied().collect();
            let missing: BTreeSet<u64> =
                wanted.iter().map(|(id, _)| *id).filter(|id| !found.contains(id)).collect();
            if found.len() + missing.len() != wanted.len() || found.len() != ids.len() {
                return wrong("more than there is");
            }
            if !missing.is_subset(unread) {
                return wrong("an entry that is whole is missing");
            }
            if !missing.is_empty() && hits.damaged().is_empty() {
                return wrong("one is missing silently");
            }
            let exact = hits.iter().all(|hit| hit.exact);
            let order = wanted.iter().map(|(id, _)| id).filter(|id| found.contains(*id));
            if exact && exactness != Exactness::Codes && !order.eq(&ids) {
                return wrong("another order");
            }
        }
        Ok(())
    }

    /// Damages a copy and asks it everything.
    fn examine(&self, file: &str, damage: &Damage) -> Result<Answer, String> {
        let disk = self.disk.fork_now();
        match *damage {
            Damage::Flip(offset, bit) => disk.flip_bit(file, offset, bit),
            Damage::Zero(offset) => {
                let len = disk.durable_bytes(file).map_or(0, |bytes| bytes.len() as u64);
                let bytes = vec![0; (len - offset).min(SECTOR_BYTES) as usize];
                disk.set_bytes(file, offset, &bytes)
            }
        }
        .map_err(|e| format!("no damage done: {e}"))?;
        let clock = HandClock::new(START);
        let store = match open(&disk, &clock) {
            Ok(store) => store,
            Err(error) => return refusal(file, &error).map(|()| Answer::Refused),
        };
        let mut problems = Vec::new();
        let found = match observe(&store) {
            Ok(found) => {
                let log = file.starts_with("wal/");
                if found != self.state && !(log && found == self.before) {
                    return Err(difference(&found, &self.state));
                }
                found
            }
            Err(why) => {
                if !why.contains("Corrupt") || !why.contains(file) {
                    return Err(format!("a scan fails without naming the file: {why}"));
                }
                problems.push(why);
                self.state.clone()
            }
        };
        for (name, shelf) in &found.shelves {
            let collection = match store.find_collection(name) {
                Ok(Some(collection)) => collection,
                Ok(None) => return Err(format!("{name} is gone")),
                Err(error) => {
                    refusal(file, &error)?;
                    continue;
                }
            };
            let mut unread = BTreeSet::new();
            for (place, wanted) in &shelf.items {
                let namespace = pmll::Namespace::new(&place.0).map_err(|e| format!("{e:?}"))?;
                match collection.in_namespace(namespace).get(&place.1) {
                    Ok(Some(entry)) if item(entry.clone()) == **wanted => {}
                    Ok(other) => return Err(format!("{place:?} became {other:?}")),
                    Err(error) => {
                        refusal(file, &error)?;
                        unread.insert(wanted.id);
                        problems.push(format!("{error:?}"));
                    }
                }
            }
            if let Some(dim) = shelf.spec.dim {
                self.search(&collection, shelf, dim, &unread)
                    .map_err(|why| format!("{name}: {why}"))?;
            }
            // Counting and paging end in an answer or an error, too.
            let page = collection.scan(Scan::new().limit(3).reverse(true));
            page.map(drop).or_else(|e| refusal(file, &e))?;
        }
        let report = store.verify(Depth::Deep).map_err(|e| format!("verify: {e:?}"))?;
        if !problems.is_empty() && report.is_whole() {
            return Err(format!("verify finds nothing, but {}", problems[0]));
        }
        keep_working(store)?;
        Ok(if problems.is_empty() { Answer::Right } else { Answer::Named })
    }
}

/// A write and a clean end: they succeed, or say why not.
fn keep_working(store: Store) -> Result<(), String> {
    let wrote =
        store.collection("notes").and_then(|c| c.put("fresh", Draft::text("after the rot")));
    let typed = |error: Error| match error.kind() {
        ErrorKind::Corrupt | ErrorKind::Io | ErrorKind::Poisoned => Ok(()),
        _ => Err(format!("a write fails with {error:?}")),
    };
    wrote.map(drop).or_else(typed)?;
    store.close().or_else(typed)
}

/// An error that a damaged file may be answered with.
fn refusal(file: &str, error: &Error) -> Result<(), String> {
    let text = error.to_string();
    // A store file that names another format is read as such before its checksum is asked.
    let typed = error.kind() == ErrorKind::Corrupt
        || (file == "store.toml" && error.kind() == ErrorKind::Version);
    // Damage to a segment's word for the others shows as a contradiction between the two.
    let folder = file.split('/').next().unwrap_or(file);
    if typed && text.contains(folder) {
        return Ok(());
    }
    Err(format!("answers {error:?}"))
}

/// What came of a damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    /// As if nothing had happened.
    Right,
    /// Some entries answer an error that names the file, all others are right.
    Named,
    /// The store does not open, and says why.
    Refused,
}

/// All damages to a file, or a part of them that is spread over it.
fn damages(len: u64, every: bool) -> Vec<Damage> {
    let stride = if every { 1 } else { (len / FLIPS_A_FILE as u64).max(1) | 1 };
    let flips = (0..len).step_by(stride as usize);
    let flips = flips.map(|at| Damage::Flip(at, (at / stride % 8) as u8));
    let sectors = (0..len).step_by(SECTOR_BYTES as usize).map(Damage::Zero);
    flips.chain(sectors).collect()
}

#[test]
fn damage_is_healed_or_named() {
    let begun = Instant::now();
    let every = std::env::var("PMLL_FLIPS").is_ok_and(|value| value == "all");
    let patient = Patient::make();
    let mut cases = Vec::new();
    let names = patient.disk.file_names();
    for name in &names {
        let bytes = patient.disk.durable_bytes(name).unwrap();
        // The zeros behind the end of a log are all alike: the first of them stand for all.
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at as u64 + 1);
        let len = (used + 2 * SECTOR_BYTES).min(bytes.len() as u64);
        cases.extend(damages(len, every).into_iter().map(|damage| (name.as_str(), damage)));
    }
    for kind in ["archive/", "arena/", "columns/", "wal/", "index.redb", "store.toml"] {
        assert!(names.iter().any(|name| name.starts_with(kind)), "no {kind} in {names:?}");
    }
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let answers = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((file, damage)) = cases.get(next.fetch_add(1, Ordering::AcqRel)) {
                    let answer = catch_unwind(AssertUnwindSafe(|| patient.examine(file, damage)));
                    let answer = answer.unwrap_or_else(|_| Err("panicked".to_owned()));
                    match answer {
                        Ok(answer) => {
                            let folder = file.split('/').next().unwrap_or(file);
                            *answers.lock().unwrap().entry((folder, answer)).or_insert(0_u64) += 1;
                        }
                        Err(why) => {
                            let mut failures = failures.lock().unwrap();
                            failures.push(format!("{file}, {damage:?}: {why}"));
                            if failures.len() >= FAILURES_MAX {
                                break;
                            }
                        }
                    }
                }
            });
        }
    });
    let answers = answers.into_inner().unwrap();
    println!(
        "flips: {} damages to {} files in {:.0} s: {answers:?}",
        cases.len(),
        names.len(),
        begun.elapsed().as_secs_f64()
    );
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n\n"));
    assert!(cases.len() >= 3_000, "only {} damages", cases.len());
    assert!(
        answers.contains_key(&("archive", Answer::Named)),
        "no damage to a payload: {answers:?}"
    );
}
