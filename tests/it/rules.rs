//! What scores go by, seen from outside: times of events, accesses that grow old, and the rules that a
//! user sets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pmll::inspect::scores;
use pmll::io::MemoryDisk;
use pmll::{Batch, Draft, ErrorKind, Options, Query, Store, Timestamp};
use serde_json::json;

use crate::support::ManualClock;

const HOUR: i64 = 3_600_000_000;

fn open(disk: &MemoryDisk, clock: &Arc<ManualClock>) -> Store {
    let options = Options { background: false, ..Options::default() };
    let clock: Arc<dyn pmll::Clock> = clock.clone();
    let builder = Store::builder("rules").disk(Arc::new(disk.clone()));
    builder.clock(clock).options(options).open().unwrap()
}

/// So many entries, an hour apart, the last one at `last`.
fn fill(store: &Store, name: &str, entries: i64, last: Timestamp) {
    let notes = store.collection(name).unwrap();
    let put = |batch: Batch, n| {
        let draft = Draft::text(format!("entry {n}")).vector([n as f32, 1.0]);
        batch.put(&notes, format!("k{n}"), draft.at(Timestamp(last.0 - (entries - 1 - n) * HOUR)))
    };
    store.write((0..entries).fold(Batch::new(), put)).unwrap();
    store.checkpoint().unwrap();
}

fn totals(store: &Store) -> Vec<f32> {
    scores(store).unwrap().iter().map(|s| s.score.total).collect()
}

fn distinct(scores: &[f32]) -> usize {
    scores.iter().map(|s| s.to_bits()).collect::<BTreeSet<u32>>().len()
}

#[test]
fn an_access_to_old_material_makes_no_other_entry_older() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    let notes = store.collection("notes").unwrap();
    // 2023-05-08, three and a half years before the clock.
    fill(&store, "notes", 500, Timestamp(1_683_504_000_000_000));
    let before = totals(&store);
    assert!(distinct(&before) >= 100);
    notes.get("k3").unwrap();
    notes.search(Query::vector([9.0, 1.0]).k(1)).unwrap();
    let after = totals(&store);
    let raised = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    assert!((1..=2).contains(&raised), "{raised} of 500 changed");
    assert!(distinct(&after) >= 100 && after[3] > before[3]);
}

#[test]
fn a_clock_that_was_wrong_once_makes_no_other_entry_older() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    let notes = store.collection("notes").unwrap();
    let now = pmll::Clock::now(&*clock);
    fill(&store, "notes", 500, now);
    (0..4).for_each(|_| drop(notes.get("k7").unwrap()));
    let before = totals(&store);
    // In 2099 an entry is put and others are read.
    clock.set_now(Timestamp(4_070_908_800_000_000));
    notes.put("late", Draft::text("late").vector([1.0, 2.0])).unwrap();
    notes.get("k9").unwrap();
    clock.set_now(now);
    store.checkpoint().unwrap();
    let after = totals(&store);
    let changed: Vec<usize> = (0..500).filter(|n| before[*n] != after[*n]).collect();
    assert_eq!(changed, [9]);
}

#[test]
fn two_accesses_long_ago_are_no_two_accesses_within_a_half_life() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    let notes = store.collection("notes").unwrap();
    fill(&store, "notes", 400, pmll::Clock::now(&*clock));
    let frequency = |key: &str| notes.why(key).unwrap().unwrap().score.frequency;
    (0..15).for_each(|_| drop(notes.get("k1").unwrap()));
    assert!((frequency("k1") - 0.5).abs() < 1e-3, "ln 16 / ln 256");
    clock.advance(Duration::from_secs(300 * 86_400));
    notes.get("k2").unwrap();
    assert!(frequency("k1") < 0.01, "ten half-lives of somebody else's accesses later");
    notes.get("k1").unwrap();
    let one = frequency("k2");
    assert!((frequency("k1") - one).abs() < 0.01, "one access does not bring the others back");
    assert_eq!(notes.get("k1").unwrap().unwrap().access_count, 17, "shown exactly");
}

#[test]
fn rules_are_settings_that_last_and_may_differ_by_collection() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    let now = pmll::Clock::now(&*clock);
    fill(&store, "a", 100, now);
    fill(&store, "b", 100, now);
    let why = |store: &Store, name: &str| {
        store.find_collection(name).unwrap().unwrap().why("k0").unwrap().unwrap()
    };
    let (a, b) = (why(&store, "a"), why(&store, "b"));
    assert_eq!(a.score, b.score);
    for (name, value) in [
        ("rho", json!(1.5)),
        ("weights.a", json!([1, 1, 1])),
        ("half_life_s", json!(0)),
        ("age.b", json!("calendar")),
    ] {
        assert_eq!(store.set_setting(name, value).unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(why(&store, "a"), a, "what is refused changes nothing");
    // 99 hours are a half-life.
    store.set_setting("half_life_s.a", json!(99 * 3600)).unwrap();
    store.set_setting("weights.a", json!([1, 0, 0])).unwrap();
    store.set_setting("rho", json!(0.5)).unwrap();
    store.set_setting("rho.b", json!(0.1)).unwrap();
    let check = |store: &Store| {
        let changed = why(store, "a");
        assert!((changed.score.total - 0.5).abs() < 1e-3, "{changed:?}");
        assert_eq!(why(store, "b").score, b.score, "the other goes on as before");
        let protected = store.plan().unwrap().protected;
        assert_eq!(protected, 60, "half of one, a tenth of the other");
    };
    check(&store);
    store.close().unwrap();
    let store = open(&disk, &clock);
    check(&store);
    // By the wall clock idle weeks count.
    clock.advance(Duration::from_secs(99 * 3600));
    check(&store);
    store.set_setting("age", json!("wall")).unwrap();
    assert!((why(&store, "a").score.total - 0.25).abs() < 1e-3);
    for name in ["half_life_s.a", "weights.a", "rho", "rho.b", "age"] {
        store.set_setting(name, json!(null)).unwrap();
    }
    assert_eq!(why(&store, "a").score, a.score);
}
