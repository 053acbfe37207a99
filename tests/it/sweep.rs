//! What a run does about damage, dead rows and stale sets of ids: nothing of the kind stops it, and
//! nothing of it pushes living entries down.

use std::collections::BTreeMap;
use std::sync::Arc;

use pmll::inspect::scores;
use pmll::io::{Disk, File, MemoryDisk, OpenMode};
use pmll::{
    Batch, Collection, Draft, EntryId, ErrorKind, Options, Outcome, Standing, Store, Timestamp,
};

use crate::support::{ManualClock, Rng};

const DIM: usize = 32;
const LARGE: u64 = 64 << 20;

fn open(disk: &MemoryDisk, clock: &Arc<ManualClock>, budget_bytes: u64) -> Store {
    let options =
        Options { background: false, budget_bytes: Some(budget_bytes), ..Options::default() };
    let clock: Arc<dyn pmll::Clock> = clock.clone();
    Store::builder("sweep")
        .disk(Arc::new(disk.clone()))
        .clock(clock)
        .options(options)
        .open()
        .unwrap()
}

/// Event time of an entry: ten minutes apart, the last one now.
fn at(n: u64, entries: u64, clock: &ManualClock) -> Timestamp {
    Timestamp(pmll::Clock::now(clock).0 - (entries - 1 - n) as i64 * 600_000_000)
}

/// Puts so many entries and archives them; their vectors.
fn fill(notes: &Collection, store: &Store, entries: u64, clock: &ManualClock) -> Vec<Vec<f32>> {
    let mut rng = Rng(17);
    let vectors: Vec<Vec<f32>> = (0..entries).map(|_| rng.vector(DIM)).collect();
    let mut batch = Batch::new();
    for (n, vector) in vectors.iter().enumerate() {
        let draft = Draft::text(format!("entry {n}: {}", rng.text(8))).vector(vector.clone());
        batch = batch.put(notes, format!("k{n}"), draft.at(at(n as u64, entries, clock)));
    }
    store.write(batch).unwrap();
    store.checkpoint().unwrap();
    vectors
}

fn standings(store: &Store) -> BTreeMap<EntryId, Standing> {
    scores(store).unwrap().into_iter().map(|s| (s.id, s.standing)).collect()
}

/// The one archive segment of a store.
fn segment(disk: &MemoryDisk) -> (String, Vec<u8>) {
    let names = disk.list("archive").unwrap();
    assert_eq!(names.len(), 1, "{names:?}");
    let name = format!("archive/{}", names[0]);
    let file = disk.open(&name, OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    (name, bytes)
}

/// Where the only copy of these bytes begins.
fn find(bytes: &[u8], wanted: &[u8]) -> usize {
    let found: Vec<usize> = bytes
        .windows(wanted.len())
        .enumerate()
        .filter(|(_, w)| *w == wanted)
        .map(|f| f.0)
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

fn bytes_of(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Rot in the one segment of these entries: all codes, and some exact vectors. The file, and its bytes before.
fn rot<'v>(
    disk: &MemoryDisk,
    vectors: &'v [Vec<f32>],
    rotten: impl Iterator<Item = &'v Vec<f32>>,
) -> (Arc<dyn File>, Vec<u8>) {
    let (name, bytes) = segment(disk);
    let file = disk.open(&name, OpenMode::ReadWrite).unwrap();
    let last = find(&bytes, &bytes_of(&vectors[vectors.len() - 1]));
    file.write_at(&vec![0; 40 * vectors.len()], (last + DIM * 4 + 8) as u64).unwrap();
    for vector in rotten {
        let vector = find(&bytes, &bytes_of(vector));
        file.write_at(&[bytes[vector] ^ 1], vector as u64).unwrap();
    }
    (file, bytes)
}

/// What scores least can go nowhere, as its vectors have rotted. Others go instead, within the same run.
#[test]
fn what_damage_holds_keeps_nothing_else_from_making_room() {
    const ENTRIES: u64 = 1500;
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock, LARGE);
    let notes = store.collection("notes").unwrap();
    let vectors = fill(&notes, &store, ENTRIES, &clock);
    rot(&disk, &vectors, vectors[..600].iter());
    // A third of the entries has to go, fewer than are held.
    let counted = store.stats().unwrap().counted_bytes;
    store.set_budget(counted * 10 / 8).unwrap();
    let report = store.compress().unwrap();
    assert_eq!(report.outcome, Outcome::TargetMet, "{report:?}");
    assert!(report.damaged > 300 && report.damaged <= 600, "{report:?}");
    let stood = standings(&store);
    let hot =
        |from: u64, to: u64| (from..to).filter(|n| stood[&EntryId(n + 1)] == Standing::Hot).count();
    assert!(hot(0, 600) > 590, "{}", hot(0, 600));
    assert!((200..800).contains(&hot(600, ENTRIES)), "{}", hot(600, ENTRIES));
}

#[test]
fn rot_stops_neither_the_survey_nor_the_packing_nor_a_promotion() {
    const ENTRIES: u64 = 2600;
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock, LARGE);
    let notes = store.collection("notes").unwrap();
    let vectors = fill(&notes, &store, ENTRIES, &clock);
    // All codes, every 20th exact vector, and one row of the row table.
    let (file, bytes) = rot(&disk, &vectors, vectors.iter().step_by(20));
    let row = find(&bytes, &at(700, ENTRIES, &clock).0.to_le_bytes());
    file.write_at(&[bytes[row] ^ 1], row as u64).unwrap();

    store.set_budget(1 << 20).unwrap();
    let report = store.compress().unwrap();
    // The run that the budget began met the vectors, and others went instead; this one, if it moves any.
    assert!((1..132).contains(&report.damaged), "{report:?}");
    assert_eq!(report.outcome, Outcome::TargetMet, "{report:?}");
    assert!(report.counted_bytes_after <= report.counted_bytes_before, "{report:?}");
    let stood = standings(&store);
    assert_eq!(stood.len() as u64, ENTRIES - 1, "all but the entry whose row is damaged");
    for standings in [[Standing::Hot; 2], [Standing::Warm8, Standing::Warm4], [Standing::Cold; 2]] {
        assert!(stood.values().any(|s| standings.contains(s)), "{standings:?}");
    }
    let hot = |n: &u64| stood[&EntryId(n + 1)] == Standing::Hot;
    // Some of them may go to Cold, which takes no codes.
    let held = (0..1000).step_by(20).filter(|n| *n != 700 && hot(n)).count();
    assert!(held > 30, "what has no codes and no vector stays: {held} of 49");
    assert!((1..1000).step_by(20).all(|n| !hot(&n)), "its neighbours went");
    // One that rots in the archive cannot come back whole; others can.
    let cold = |n: &usize| stood.get(&EntryId(*n as u64 + 1)) == Some(&Standing::Cold);
    let rotten = (1..ENTRIES as usize).step_by(20).find(cold).unwrap();
    let whole = (2..ENTRIES as usize).step_by(20).find(cold).unwrap();
    let vector = find(&bytes, &bytes_of(&vectors[rotten]));
    file.write_at(&[bytes[vector] ^ 1], vector as u64).unwrap();
    for n in [rotten, whole] {
        (0..2).for_each(|_| notes.touch(format!("k{n}")).map(drop).unwrap());
    }
    store.set_budget(LARGE).unwrap();
    let report = store.compress().unwrap();
    assert!(report.promoted > 0 && report.damaged > 1, "{report:?}");
    let now = standings(&store);
    assert_eq!(now[&EntryId(whole as u64 + 1)], Standing::Hot);
    assert_eq!(now[&EntryId(rotten as u64 + 1)], Standing::Cold);
    assert_eq!(notes.get(format!("k{rotten}")).unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(store.recompress().is_ok(), "packing anew goes on as well");
}

#[test]
fn dead_rows_leave_before_living_entries_do() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock, LARGE);
    let notes = store.collection("notes").unwrap();
    let other = store.collection("other").unwrap();
    fill(&notes, &store, 3000, &clock);
    fill(&other, &store, 1000, &clock);
    store.set_budget(2 << 20).unwrap();
    assert_eq!(store.compress().unwrap().outcome, Outcome::TargetMet);
    let warm = |store: &Store| store.stats().unwrap().tiers[1].bytes;
    let before = warm(&store);
    let stood = standings(&store);
    assert!(before > 60_000 && stood.len() == 4000, "{before}");

    // Two of three go, one collection goes whole: nothing is left for a plan to do.
    for n in (0..3000).filter(|n| n % 3 > 0) {
        notes.delete(format!("k{n}")).unwrap();
    }
    store.drop_collection("other").unwrap();
    store.checkpoint().unwrap();
    let report = store.compress().unwrap();
    assert!(warm(&store) < before / 2, "{} of {before}: {report:?}", warm(&store));
    let now = standings(&store);
    assert_eq!(now.len(), 1000);
    for (id, standing) in now {
        assert!(standing <= stood[&id], "entry {id} went down from {:?}", stood[&id]);
    }
    let written = store.compress().unwrap().bytes_written;
    assert_eq!(written, 0, "nothing is left to sweep");
}

#[test]
fn an_id_that_is_called_hot_by_mistake_costs_nothing() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let hot_ids = |disk: &MemoryDisk| {
        let file = disk.open("columns/hot", OpenMode::Read).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let store = open(&disk, &clock, 1 << 20);
    let notes = store.collection("notes").unwrap();
    fill(&notes, &store, 500, &clock);
    store.close().unwrap();
    let stale = hot_ids(&disk);
    let store = open(&disk, &clock, 1 << 20);
    let notes = store.collection("notes").unwrap();
    let large = Draft::bytes(vec![7; 100_000]).vector([0.5; DIM]);
    notes.put("k7", large).unwrap();
    store.close().unwrap();
    // As after a crash between the checkpoint and the set.
    let file = disk.open("columns/hot", OpenMode::ReadWrite).unwrap();
    file.set_len(0).unwrap();
    file.write_at(&stale, 0).unwrap();
    let store = open(&disk, &clock, 1 << 20);
    let plan = store.plan().unwrap();
    assert_eq!((plan.passes, plan.outcome), (0, Outcome::TargetMet), "{plan:?}");
    assert!(plan.before.iter().all(|level| level.bytes < 1 << 20), "{plan:?}");
    store.compress().unwrap();
    assert_eq!(standings(&store).values().filter(|s| **s != Standing::Hot).count(), 1);
}
