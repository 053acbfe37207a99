//! Clocks that are wrong: one that jumps ten years either way at every act, one that stands still.
//!
//! The same acts under each of them make the same store, but for the times in it: order comes from LSNs,
//! and what was acknowledged survives a power cut whatever the clock says.

use std::sync::Arc;
use std::time::Duration;

use pmll::io::sim::{Profile, SimDisk};
use pmll::{Depth, Draft, Patch, Query, Timestamp};

use crate::support::{ManualClock, Model, Rng, START, assert_same, dump, open};

const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What a clock does before act n.
type Tick = fn(&ManualClock, u64);

fn steady(clock: &ManualClock, _: u64) {
    clock.advance(Duration::from_secs(1));
}

fn stuck(_: &ManualClock, _: u64) {}

/// Ten years ahead, ten years back, at random; the monotonic clock goes on.
fn jumping(clock: &ManualClock, act: u64) {
    clock.advance(Duration::from_secs(1));
    let years = TEN_YEARS.as_micros() as i64 * (Rng(act).below(3) as i64 - 1);
    clock.set_now(Timestamp(START.0 + years));
}

/// A content without its times.
fn timeless(mut content: Model) -> Model {
    for entry in content.values_mut() {
        (entry.at, entry.created, entry.updated) = (START, START, START);
    }
    content
}

/// Everything after every act, ids in the order of a search, and what a power cut leaves of it.
fn run(tick: Tick) -> (Vec<Model>, Vec<Vec<u64>>) {
    let (disk, clock) = (SimDisk::new(0), ManualClock::new());
    let (mut states, mut found) = (Vec::new(), Vec::new());
    let mut store = open(&disk, &clock);
    let mut rng = Rng(17);
    for act in 0..120 {
        tick(&clock, act);
        let notes = store.collection("notes").unwrap();
        let key = format!("k{}", rng.below(40));
        match act % 10 {
            8 => drop(notes.delete(&key).unwrap()),
            9 if notes.contains(&key).unwrap() => {
                let mut patch = Patch::default();
                patch.payload = Some(rng.bytes(20));
                notes.update(&key, patch).unwrap();
            }
            _ => {
                let draft = Draft::text(rng.text(6)).vector(rng.vector(8));
                notes.put(&key, draft.salience(0.5)).unwrap();
            }
        }
        match act {
            30 | 60 | 90 => drop(store.checkpoint().unwrap()),
            50 => drop(store.compress().unwrap()),
            70 => drop(store.vacuum().unwrap()),
            _ => {}
        }
        drop(notes);
        let now = dump(&store);
        if act % 13 == 0 {
            for image in disk.crash_images(Profile::Posix, 3) {
                let clock = Arc::clone(&clock);
                assert_same(&dump(&open(&image, &clock)), &now, &format!("act {act}, a power cut"));
            }
            store.close().unwrap();
            tick(&clock, act + 1000);
            store = open(&disk, &clock);
        }
        states.push(timeless(now));
        let notes = store.collection("notes").unwrap();
        let hits = notes.search(Query::vector(vec![0.5; 8]).k(10)).unwrap();
        found.push(hits.iter().map(|hit| hit.entry.id.0).collect());
    }
    assert!(store.verify(Depth::Deep).unwrap().is_whole());
    (states, found)
}

#[test]
fn a_wrong_clock_changes_nothing_but_times() {
    let (states, found) = run(steady);
    for (name, tick) in [("stuck", stuck as Tick), ("jumping", jumping)] {
        let (others, hits) = run(tick);
        for (act, (other, state)) in others.iter().zip(&states).enumerate() {
            assert_same(other, state, &format!("{name} clock, act {act}"));
        }
        assert_eq!(hits, found, "{name}");
    }
}
