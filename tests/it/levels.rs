//! Three levels and the compressor, seen from outside.
//!
//! Whatever a run moves, every entry stays byte for byte what was put, every search finds it, and
//! the budget holds. What is important stays near, an idle store stays as it is, and the answer
//! depends on nothing but the data: not on threads, not on who asked before.

use std::collections::BTreeMap;
use std::time::Duration;

use pmll::inspect::{Scored, scores};
use pmll::io::MemoryDisk;
use pmll::{
    Batch, CountAccess, Depth, Draft, EntryId, Exactness, Options, Outcome, Policy, Query,
    Standing, Store, Tier, Timestamp,
};

use crate::support::{ManualClock, Rng, assert_same, dump};

const BUDGET_BYTES: u64 = 1 << 20;
const DIM: usize = 32;

fn open(disk: &MemoryDisk, clock: &std::sync::Arc<ManualClock>) -> Store {
    let options =
        Options { background: false, budget_bytes: Some(BUDGET_BYTES), ..Options::default() };
    let clock: std::sync::Arc<dyn pmll::Clock> = clock.clone();
    let disk = std::sync::Arc::new(disk.clone());
    Store::builder("levels").disk(disk).clock(clock).options(options).open().unwrap()
}

/// Puts so many entries, a second of event time apart, the last one now.
fn fill(store: &Store, entries: u64, clock: &ManualClock) {
    let notes = store.collection("notes").unwrap();
    let mut rng = Rng(7);
    let now = pmll::Clock::now(clock).0;
    for from in (0..entries).step_by(256) {
        let mut batch = Batch::new();
        for n in from..entries.min(from + 256) {
            let age = i64::try_from(entries - 1 - n).unwrap() * 3_600_000_000;
            let draft = Draft::text(format!("entry {n}: {}", rng.text(8)))
                .vector(rng.vector(DIM))
                .attr("n", n)
                .at(Timestamp(now - age));
            batch = batch.put(&notes, format!("k{n}"), draft);
        }
        store.write(batch).unwrap();
    }
}

fn standings(store: &Store) -> BTreeMap<EntryId, Standing> {
    scores(store).unwrap().into_iter().map(|s| (s.id, s.standing)).collect()
}

#[test]
fn a_budget_holds_and_every_entry_comes_back() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    let notes = store.collection("notes").unwrap();
    notes.put("pinned", Draft::text("never far").vector([0.5; DIM]).pinned(true)).unwrap();
    // 6,000 entries take 2.4 MB in Level 0: more than twice the budget.
    for round in 0..6 {
        fill(&store, 1000 * (round + 1), &clock);
        let stats = store.stats().unwrap();
        assert!(stats.counted_bytes <= BUDGET_BYTES, "{stats:?}");
    }
    let before = dump(&store);
    assert_eq!(before.len(), 6001);
    let report = store.compress().unwrap();
    assert_eq!(report.outcome, Outcome::TargetMet, "{report:?}");
    assert!(report.counted_bytes_after <= BUDGET_BYTES * 6 / 10, "{report:?}");
    assert_eq!(store.plan().unwrap().moves, 0, "a run leaves nothing to do");
    assert_eq!(store.compress().unwrap().moves, 0);
    let stats = store.stats().unwrap();
    let entries: Vec<u64> = stats.tiers.iter().map(|tier| tier.entries).collect();
    assert_eq!(entries.iter().sum::<u64>(), 6001);
    assert!(entries.iter().all(|n| *n > 100), "every level is in use: {entries:?}");
    let [hot, warm, cold] = stats.tiers;
    let fidelity = warm.fidelity.unwrap();
    assert!((0.98..1.0).contains(&fidelity.mean) && fidelity.worst < fidelity.mean, "{warm:?}");
    assert_eq!(warm.int8.entries + warm.int4.entries, warm.entries);
    for width in [warm.int8, warm.int4].iter().filter(|width| width.entries > 0) {
        let its = width.fidelity.unwrap();
        assert!(its.worst >= fidelity.worst && (1..128).contains(&its.samples), "{warm:?}");
    }
    for exact in [hot, cold] {
        let fidelity = exact.fidelity.unwrap();
        assert_eq!((fidelity.mean, fidelity.worst), (1.0, 1.0), "{exact:?}");
    }
    let all = scores(&store).unwrap();
    let sum = |all: &mut dyn Iterator<Item = &Scored>| -> f64 {
        all.map(|scored| f64::from(scored.score.total)).sum()
    };
    let is_cold = |scored: &&Scored| scored.standing == Standing::Cold;
    let mass = sum(&mut all.iter().filter(is_cold)) / sum(&mut all.iter());
    assert!(mass > 0.01 && (stats.cold_score_mass - mass).abs() < 1e-9, "{mass}: {stats:?}");
    assert_eq!(store.counted_bytes().unwrap(), stats.counted_bytes);
    assert_eq!(stats.entries_not_archived, 0);
    assert_same(&dump(&store), &before, "after runs");
    assert!(notes.peek("pinned").unwrap().unwrap().tier <= Tier::Warm);

    let report = store.recompress().unwrap();
    assert!(report.bytes_written > 0);
    assert_same(&dump(&store), &before, "packed anew");
    let stood = standings(&store);
    assert!(store.verify(Depth::Deep).unwrap().is_whole());
    store.close().unwrap();
    let store = open(&disk, &clock);
    assert_same(&dump(&store), &before, "opened again");
    assert_eq!(standings(&store), stood, "entries stand where they stood");
}

#[test]
fn a_level_without_a_vector_has_no_fidelity() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    let fidelity = |store: &Store| store.stats().unwrap().tiers.map(|tier| tier.fidelity.is_some());
    assert_eq!(fidelity(&store), [false; 3], "nothing is there");
    let notes = store.collection("notes").unwrap();
    notes.put("text", Draft::text("no vector")).unwrap();
    assert_eq!((fidelity(&store), store.stats().unwrap().entries_not_archived), ([false; 3], 1));
    store.checkpoint().unwrap();
    assert_eq!((fidelity(&store), store.stats().unwrap().entries_not_archived), ([false; 3], 0));
    notes.put("vector", Draft::text("zeros").vector([0.0; DIM])).unwrap();
    assert_eq!(fidelity(&store), [true, false, false], "in the log");
    store.checkpoint().unwrap();
    assert_eq!(store.stats().unwrap().tiers[0].fidelity.unwrap().worst, 1.0, "it is exact");
    assert_eq!(store.stats().unwrap().cold_score_mass, 0.0);
}

#[test]
fn a_larger_budget_lets_important_entries_back_up() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    fill(&store, 5000, &clock);
    store.compress().unwrap();
    let notes = store.collection("notes").unwrap();
    let down = standings(&store).into_iter().find(|(_, s)| *s == Standing::Cold).unwrap().0;
    let key = format!("k{}", down.0 - 1);
    assert_eq!(notes.peek(&key).unwrap().unwrap().tier, Tier::Cold);
    for _ in 0..3 {
        notes.get(&key).unwrap();
    }
    let why = notes.why(&key).unwrap().unwrap();
    assert_eq!((why.standing, why.planned), (Standing::Cold, Standing::Hot), "{why:?}");
    store.set_budget(8 << 20).unwrap();
    let report = store.compress().unwrap();
    assert!(report.promoted > 0, "{report:?}");
    assert_eq!(notes.peek(&key).unwrap().unwrap().tier, Tier::Hot);
    let moves = notes.moves(&key).unwrap();
    let last = moves.last().unwrap();
    assert_eq!((last.from, last.to), (Standing::Cold, Standing::Hot), "{moves:?}");
    drop(notes);
    store.close().unwrap();
    let store = open(&disk, &clock);
    assert_eq!(store.collection("notes").unwrap().moves(&key).unwrap(), moves, "after a reopen");
    store.set_budget(1 << 20).unwrap();
    assert_eq!(store.compress().unwrap().outcome, Outcome::TargetMet);
    assert!(store.set_budget(1 << 19).is_err(), "below the least budget");
}

#[test]
fn searches_find_everything_at_every_level() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    fill(&store, 4000, &clock);
    store.compress().unwrap();
    let notes = store.collection("notes").unwrap();
    let mut rng = Rng(99);
    let (mut found, mut wanted) = (0, 0);
    let mut seen = BTreeMap::new();
    for _ in 0..50 {
        let query = Query::vector(rng.vector(DIM)).k(10).count_access(CountAccess::None);
        let exact = notes.search(query.clone().exactness(Exactness::Exact)).unwrap();
        let staged = notes.search(query).unwrap();
        let ids: Vec<u64> = exact.iter().map(|hit| hit.entry.id.0).collect();
        wanted += ids.len();
        found += staged.iter().filter(|hit| ids.contains(&hit.entry.id.0)).count();
        for hit in &*staged {
            assert!(hit.exact);
            *seen.entry(hit.entry.tier).or_insert(0) += 1;
        }
    }
    // Random vectors of 32 dimensions are as hard as it gets for sketches.
    assert!(found as f64 >= 0.95 * wanted as f64, "{found} of {wanted}");
    assert_eq!(seen.len(), 3, "hits of all levels: {seen:?}");
}

#[test]
fn paper_literal_hides_and_the_next_run_shows_again() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    fill(&store, 500, &clock);
    let notes = store.collection("notes").unwrap();
    let all = |store: &Store| {
        let notes = store.collection("notes").unwrap();
        notes.search(Query::vector([0.1; DIM]).k(1000)).unwrap().len()
    };
    let report = store.compress_with(Policy::PaperLiteral).unwrap();
    assert_eq!(all(&store) as u64, report.protected);
    assert_eq!(notes.count(None).unwrap(), 500, "hidden from searches, not gone");
    store.compress().unwrap();
    assert_eq!(all(&store), 500);
}

#[test]
fn who_asks_for_codes_gets_eight_bits_of_entries_that_have_four_in_the_arena() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    let notes = store.collection("notes").unwrap();
    let mut rng = Rng(7);
    let batch = (0..4000).fold(Batch::new(), |batch, n| {
        let salience = if n < 10 { 1.0 } else { 0.5 };
        let draft = Draft::text("").vector(rng.vector(DIM)).salience(salience);
        batch.put(&notes, format!("k{n}"), draft)
    });
    store.write(batch).unwrap();
    store.set_setting("weights", serde_json::json!([0.0, 0.0, 1.0])).unwrap();
    store.set_setting("rho", 1e-6.into()).unwrap();
    store.compress_with(Policy::Paper).unwrap();
    let stood = standings(&store);
    let narrow = stood.values().filter(|standing| **standing == Standing::Warm4).count();
    assert_eq!(narrow, 3990, "all but the important ones have four bits");
    let (mut found, mut rng) = (0, Rng(17));
    for _ in 0..200 {
        let query = Query::vector(rng.vector(DIM)).count_access(CountAccess::None);
        let exact = notes.search_ids(query.clone().exactness(Exactness::Exact)).unwrap();
        let codes = notes.search_ids(query.exactness(Exactness::Codes(0.99))).unwrap();
        assert!(codes.iter().all(|near| near.bits == if near.exact { 32 } else { 8 }), "{codes:?}");
        found += codes.iter().filter(|near| exact.iter().any(|e| e.id == near.id)).count();
    }
    assert!(found >= 1960, "{found} of 2000");
}

#[test]
fn an_idle_month_moves_nothing() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    fill(&store, 4000, &clock);
    store.compress().unwrap();
    let (stood, then) = (standings(&store), scores(&store).unwrap());
    clock.advance(Duration::from_secs(30 * 86_400));
    assert_eq!(store.plan().unwrap().moves, 0);
    assert_eq!(store.compress().unwrap().moves, 0);
    let now = scores(&store).unwrap();
    assert!(then.iter().zip(&now).all(|(a, b)| a.score == b.score), "age is activity time");
    store.close().unwrap();
    clock.advance(Duration::from_secs(30 * 86_400));
    let store = open(&disk, &clock);
    assert_eq!(store.compress().unwrap().moves, 0);
    assert_eq!(standings(&store), stood);
    let distinct: std::collections::BTreeSet<u32> =
        scores(&store).unwrap().iter().map(|s| s.score.total.to_bits()).collect();
    assert!(distinct.len() >= 100, "{} scores", distinct.len());
}

#[test]
fn a_thousand_identical_queries_push_no_other_entry_more_than_a_step() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    fill(&store, 4000, &clock);
    let notes = store.collection("notes").unwrap();
    let query = || Query::vector(Rng(3).vector(DIM)).k(10);
    // Before the run, so that what searches keep in RAM counts in it.
    let hits: Vec<EntryId> =
        notes.search(query()).unwrap().iter().map(|hit| hit.entry.id).collect();
    store.compress().unwrap();
    let before = standings(&store);
    for _ in 0..1000 {
        notes.search(query()).unwrap();
    }
    store.compress().unwrap();
    let after = standings(&store);
    let step = |s: Standing| {
        [Standing::Hot, Standing::Warm8, Standing::Warm4, Standing::Cold]
            .iter()
            .position(|x| *x == s)
            .unwrap()
    };
    for (id, was) in before {
        if !hits.contains(&id) {
            let moved = step(after[&id]).abs_diff(step(was));
            assert!(moved <= 1, "entry {id} went from {was:?} to {:?}", after[&id]);
        }
    }
}

/// Everything that a run and a search decide.
fn decided(threads: usize) -> (Vec<Scored>, Vec<Vec<(EntryId, u32)>>) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
        let store = open(&disk, &clock);
        // Above the size from which on scores are computed in parallel.
        fill(&store, 20_000, &clock);
        store.compress().unwrap();
        let notes = store.collection("notes").unwrap();
        let mut rng = Rng(5);
        let answers = (0..20)
            .map(|_| {
                let hits = notes.search(Query::vector(rng.vector(DIM)).k(20)).unwrap();
                hits.iter().map(|hit| (hit.entry.id, hit.score.to_bits())).collect()
            })
            .collect();
        store.compress().unwrap();
        (scores(&store).unwrap(), answers)
    })
}

#[test]
fn two_threads_and_eight_decide_the_same() {
    let (two, eight) = (decided(2), decided(8));
    assert_eq!(two.0.len(), 20_000);
    assert!(two.0 == eight.0, "scores and levels");
    assert_eq!(two.1, eight.1, "answers");
}

#[test]
fn expired_entries_do_not_hold_the_budget() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    let notes = store.collection("notes").unwrap();
    let hour = Duration::from_secs(3600);
    for from in (0..600).step_by(100) {
        let batch = (from..from + 100).fold(Batch::new(), |batch, n| {
            let draft = Draft::text("x".repeat(1000)).vector([0.5; DIM]).ttl(hour);
            batch.put(&notes, format!("short-{n}"), draft)
        });
        store.write(batch).unwrap();
    }
    store.checkpoint().unwrap();
    let held = store.stats().unwrap().tiers[0].bytes;
    assert!(held > BUDGET_BYTES / 4, "{held}");
    clock.advance(2 * hour);
    store.compress().unwrap();
    assert_eq!(store.stats().unwrap().tiers[0].resident, 0);
    assert_eq!(notes.count(None).unwrap(), 0);
    // A clock that is set back shows them again: nothing was removed.
    clock.set_now(Timestamp(pmll::Clock::now(&*clock).0 - 7_200_000_000));
    assert_eq!(notes.count(None).unwrap(), 600);
}

#[test]
fn small_segments_do_not_gather() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    let notes = store.collection("notes").unwrap();
    for n in 0..200 {
        notes.put(format!("single-{n}"), Draft::text("one").vector([0.1; DIM])).unwrap();
        store.checkpoint().unwrap();
    }
    let before = dump(&store);
    assert!(store.stats().unwrap().archive_segments > 100);
    store.compress().unwrap();
    let stats = store.stats().unwrap();
    assert!(stats.archive_segments <= 32, "{} segments", stats.archive_segments);
    assert_same(&dump(&store), &before, "merged");
}
