//! Search where bytes are damaged, where many entries score the same, and where little passes.
//!
//! A store of 3,000 entries holds 30 that lie near the query, in a known order, and 2,970 that do not.
//! One kind of bytes of the archive is damaged, and the searches are held against what they said
//! before: the right entries, and a word for each that is missing.

use pmll::io::sim::SimDisk;
use pmll::{
    Batch, Collection, CountAccess, Draft, ErrorKind, Exactness, Filter, Hits, Namespace, Options,
    Patch, Policy, Query, Store,
};

use crate::support::disks::GateDisk;
use crate::support::{ManualClock, Rng, sections, try_open};

mod ids;
mod waits;

const DIM: usize = 32;
const ENTRIES: usize = 3000;
/// Every so many entries one is near; the n-th of them is nearer than the next.
const STEP: usize = 100;
const NEAR: usize = ENTRIES / STEP;

const EXACTNESSES: [Exactness; 5] = [
    Exactness::Exact,
    Exactness::Target(0.999),
    Exactness::Target(0.99),
    Exactness::Codes(0.99),
    Exactness::Codes(0.9),
];

// Kinds of sections, as docs/FORMAT.md numbers them.
const VECTORS: u8 = 1;
const ROWS: u8 = 2;
const BODIES: u8 = 3;
const PAYLOADS: u8 = 5;
const CODES: u8 = 8;
const SKETCHES: u8 = 9;

fn open(disk: &SimDisk) -> Store {
    let options = Options { background: false, budget_bytes: Some(64 << 20), ..Options::default() };
    try_open(disk, &ManualClock::new(), options).unwrap()
}

fn question() -> Vec<f32> {
    Rng(1).vector(DIM)
}

/// The same direction, of length 1.
fn scaled(vector: &[f32]) -> Vec<f32> {
    let norm = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    vector.iter().map(|v| v / norm).collect()
}

fn draft(n: usize, rng: &mut Rng) -> Draft {
    let (unit, noise) = (scaled(&question()), rng.vector(DIM));
    let dot: f32 = unit.iter().zip(&noise).map(|(q, x)| q * x).sum();
    let vector: Vec<f32> = if n.is_multiple_of(STEP) {
        let aside: Vec<f32> = noise.iter().zip(&unit).map(|(x, q)| x - dot * q).collect();
        let cosine = 0.99 - (n / STEP) as f32 * 0.015;
        let sine = (1.0 - cosine * cosine).sqrt();
        scaled(&aside).iter().zip(&unit).map(|(x, q)| sine * x + cosine * q).collect()
    } else {
        // At right angles, or beyond.
        noise.iter().map(|x| if dot > 0.0 { -x } else { *x }).collect()
    };
    Draft::text(format!("{n}: {}", rng.text(40))).vector(vector).attr("even", n / STEP % 2)
}

/// The archived store, closed, and its one segment.
fn patient() -> SimDisk {
    patient_of(|_| (), |_, draft| draft)
}

fn patient_of(set: impl Fn(&Store), with: impl Fn(usize, Draft) -> Draft) -> SimDisk {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    set(&store);
    let notes = store.collection("notes").unwrap();
    let mut rng = Rng(7);
    let mut batch = Batch::new();
    for n in 0..ENTRIES {
        batch = batch.put(&notes, format!("k{n}"), with(n, draft(n, &mut rng)));
    }
    store.write(batch).unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();
    disk
}

fn segment(disk: &SimDisk) -> String {
    let names = disk.file_names();
    let mut segments = names.into_iter().filter(|name| name.starts_with("archive/"));
    let first = segments.next().unwrap();
    assert!(segments.next().is_none(), "one segment");
    first
}

/// Where a section of the only group begins, and its length.
fn section(disk: &SimDisk, kind: u8) -> (u64, u64) {
    sections::of(disk, &segment(disk), kind)
}

/// Damages a byte of a section.
fn damage(disk: &SimDisk, kind: u8, at: u64) {
    let (offset, len) = section(disk, kind);
    assert!(at < len);
    disk.flip_bit(&segment(disk), offset + at, 3).unwrap();
}

/// Damages one row of a section of rows of the same length.
fn damage_row(disk: &SimDisk, kind: u8, row: usize) {
    let (_, len) = section(disk, kind);
    damage(disk, kind, row as u64 * (len / ENTRIES as u64) + 5);
}

fn search(notes: &Collection, exactness: Exactness, k: usize) -> Hits {
    let query = Query::vector(question()).k(k).exactness(exactness);
    notes.search(query.count_access(CountAccess::None)).unwrap()
}

fn keys(hits: &Hits) -> Vec<String> {
    hits.iter().map(|hit| hit.entry.key.display().to_string()).collect()
}

/// Keys of the n-th nearest.
fn near(which: impl IntoIterator<Item = usize>) -> Vec<String> {
    which.into_iter().map(|n| format!("k{}", n * STEP)).collect()
}

/// The n-th nearest is missing, and said to be.
fn misses(hits: &Hits, n: usize, file: &str) {
    let named = hits.damaged();
    assert_eq!(named.len(), 1, "{named:?}");
    assert_eq!(named[0].kind(), ErrorKind::Corrupt);
    let text = named[0].to_string();
    assert!(text.contains(file) && text.contains("offset"), "{text}");
    assert_eq!(keys(hits), near((0..11).filter(|at| *at != n).take(hits.len())));
}

#[test]
fn a_whole_store_finds_the_near_ones_in_their_order() {
    let store = open(&patient());
    let notes = store.collection("notes").unwrap();
    for exactness in EXACTNESSES {
        let hits = search(&notes, exactness, 10);
        assert_eq!(keys(&hits), near(0..10), "{exactness:?}");
        assert!(hits.damaged().is_empty());
        assert!(hits.iter().all(|hit| hit.exact != matches!(exactness, Exactness::Codes(_))));
    }
}

#[test]
fn damaged_sketches_cost_no_answer() {
    let whole = patient();
    let mean = DIM as u64 * 4 + 4;
    // The mean, and each of the three chunks of 1,024 rows: 16 blocks of 64 rows of 5 bytes, a CRC.
    for at in [7, mean + 9, mean + 5124 + 9, mean + 2 * 5124 + 9] {
        let disk = whole.fork_now();
        damage(&disk, SKETCHES, at);
        let store = open(&disk);
        let notes = store.collection("notes").unwrap();
        for exactness in EXACTNESSES {
            let hits = search(&notes, exactness, 10);
            assert_eq!(keys(&hits), near(0..10), "{exactness:?}, byte {at}");
            assert!(hits.damaged().is_empty(), "nothing is missing");
        }
    }
}

#[test]
fn a_damaged_vector_is_stood_in_for_by_its_codes() {
    let disk = patient();
    damage_row(&disk, VECTORS, 3 * STEP);
    let store = open(&disk);
    let notes = store.collection("notes").unwrap();
    for exactness in EXACTNESSES {
        let hits = search(&notes, exactness, 10);
        assert_eq!(keys(&hits), near(0..10), "{exactness:?}");
        assert!(hits.damaged().is_empty());
        for (nth, hit) in hits.iter().enumerate() {
            let coded = nth == 3 || matches!(exactness, Exactness::Codes(_));
            assert_eq!((hit.exact, hit.bits), if coded { (false, 8) } else { (true, 32) });
        }
    }
}

#[test]
fn codes_of_four_bits_stand_in_where_nothing_else_is_whole() {
    let rules = |store: &Store| {
        store.set_setting("weights", serde_json::json!([0.0, 0.0, 1.0])).unwrap();
        store.set_setting("rho", 1e-6.into()).unwrap();
    };
    let disk = patient_of(rules, |n, draft| draft.salience(if n == 1 { 1.0 } else { 0.5 }));
    let store = open(&disk);
    store.compress_with(Policy::Paper).unwrap();
    store.close().unwrap();
    damage_row(&disk, VECTORS, 3 * STEP);
    damage_row(&disk, CODES, 3 * STEP);
    damage_row(&disk, CODES, 4 * STEP);
    let store = open(&disk);
    let notes = store.collection("notes").unwrap();
    // The first search of all finds out where codes stand.
    search(&notes, Exactness::Target(0.99), 10);
    for exactness in [Exactness::Target(0.99), Exactness::Codes(0.99)] {
        let hits = search(&notes, exactness, 10);
        assert_eq!(keys(&hits), near(0..10), "{exactness:?}");
        assert!(hits.damaged().is_empty());
        let bits: Vec<u8> = hits.iter().map(|hit| hit.bits).collect();
        let by_codes = matches!(exactness, Exactness::Codes(_));
        let (of_third, of_fourth) = (4, if by_codes { 4 } else { 32 });
        assert_eq!((bits[3], bits[4]), (of_third, of_fourth), "{exactness:?}");
        let others = bits.iter().enumerate().filter(|(nth, _)| ![3, 4].contains(nth));
        assert!(others.clone().all(|(_, bits)| *bits == if by_codes { 8 } else { 32 }), "{bits:?}");
    }
}

#[test]
fn what_nothing_stands_in_for_is_left_out_and_named() {
    let whole = patient();
    let file = segment(&whole);
    for sections in [vec![VECTORS, CODES], vec![ROWS], vec![ROWS, CODES]] {
        let disk = whole.fork_now();
        sections.iter().for_each(|kind| damage_row(&disk, *kind, 3 * STEP));
        // Damage to what is no answer is nobody's business here.
        damage_row(&disk, ROWS, 3 * STEP + 1);
        let store = open(&disk);
        let notes = store.collection("notes").unwrap();
        for exactness in EXACTNESSES {
            let hits = search(&notes, exactness, 10);
            misses(&hits, 3, &file);
            assert_eq!(hits.len(), 10, "{sections:?}");
            // What would not be in the answer is not missing in it.
            if !sections.contains(&CODES) {
                assert!(search(&notes, exactness, 3).damaged().is_empty());
            }
        }
    }
}

#[test]
fn many_damaged_rows_take_nobodys_place() {
    let whole = patient();
    // More of the nearest than a search looks for besides.
    for (damaged, k) in [(4, 1), (8, 10), (20, 10)] {
        let disk = whole.fork_now();
        (0..damaged).for_each(|n| damage_row(&disk, ROWS, n * STEP));
        let store = open(&disk);
        let notes = store.collection("notes").unwrap();
        for exactness in EXACTNESSES {
            let hits = search(&notes, exactness, k);
            assert_eq!(keys(&hits), near(damaged..damaged + k), "{exactness:?}");
            assert_eq!(hits.damaged().len(), damaged, "{exactness:?}");
        }
    }
}

#[test]
fn a_damaged_payload_costs_its_entry_alone() {
    let disk = patient();
    let (_, len) = section(&disk, PAYLOADS);
    // Payloads come in the order of their entries: this is near the 15th of the near ones.
    damage(&disk, PAYLOADS, len / 2);
    let store = open(&disk);
    let notes = store.collection("notes").unwrap();
    for exactness in EXACTNESSES {
        let hits = search(&notes, exactness, NEAR);
        let bare = Query::vector(question()).k(NEAR).exactness(exactness).with_payload(false);
        let bare = notes.search(bare).unwrap();
        assert_eq!(keys(&bare), near(0..NEAR), "nobody asked for the payload");
        let lost: Vec<String> =
            keys(&bare).into_iter().filter(|key| notes.peek(key).is_err()).collect();
        assert!(lost.len() <= 1, "{lost:?}");
        assert_eq!(hits.damaged().len(), lost.len());
        let wanted: Vec<String> =
            near(0..NEAR).into_iter().filter(|key| !lost.contains(key)).collect();
        assert_eq!(keys(&hits), wanted);
    }
    // One that surely is in the frame.
    let (key, vector) = (0..ENTRIES)
        .map(|n| format!("k{n}"))
        .find(|key| notes.peek(key).is_err())
        .map(|key| {
            let n: usize = key[1..].parse().unwrap();
            let mut rng = Rng(7);
            let mut last = draft(0, &mut rng);
            (1..=n).for_each(|n| last = draft(n, &mut rng));
            (key, last.vector.unwrap())
        })
        .unwrap();
    for exactness in EXACTNESSES {
        let query = Query::vector(vector.clone()).k(10).exactness(exactness);
        let hits = notes.search(query.clone()).unwrap();
        assert!(!hits.damaged().is_empty() && !keys(&hits).contains(&key), "{exactness:?}");
        assert_eq!(hits.len() + hits.damaged().len(), 10);
        assert!(keys(&notes.search(query.with_payload(false)).unwrap()).contains(&key));
    }
}

#[test]
fn a_filter_that_cannot_be_asked_leaves_out_what_it_might_have_passed() {
    let disk = patient();
    let (_, len) = section(&disk, BODIES);
    damage(&disk, BODIES, len / 2);
    let store = open(&disk);
    let notes = store.collection("notes").unwrap();
    let even = Filter::parse(r#"{"even": 0}"#).unwrap();
    let lost: Vec<usize> = (0..ENTRIES).filter(|n| notes.peek(format!("k{n}")).is_err()).collect();
    assert!((1..400).contains(&lost.len()), "{}", lost.len());
    for exactness in EXACTNESSES {
        for _ in 0..2 {
            // The second time the mask is known.
            let query = Query::vector(question()).k(NEAR / 2).filter(even.clone());
            let hits = notes.search(query.exactness(exactness)).unwrap();
            let wanted = (0..NEAR).filter(|n| n % 2 == 0 && !lost.contains(&(n * STEP)));
            assert_eq!(keys(&hits)[..wanted.clone().count()], near(wanted), "{exactness:?}");
        }
        // All that the frame holds might have passed.
        let query = Query::vector(question()).k(ENTRIES).filter(even.clone());
        let hits = notes.search(query.exactness(exactness)).unwrap();
        assert_eq!(hits.damaged().len(), lost.len().min(32), "{exactness:?}");
        let below = notes.in_namespace(Namespace::new("none").unwrap());
        assert!(below.search(question()).unwrap().is_empty());
    }
}

#[test]
fn damaged_codes_take_nobodys_place() {
    let disk = patient();
    // More than any search settles, none of them near.
    (0..1000).filter(|n| n % STEP != 0).for_each(|n| damage_row(&disk, CODES, n));
    damage_row(&disk, CODES, 2 * STEP);
    let store = open(&disk);
    let notes = store.collection("notes").unwrap();
    for exactness in EXACTNESSES {
        let hits = search(&notes, exactness, 10);
        assert_eq!(keys(&hits), near(0..10), "{exactness:?}");
        assert!(hits.damaged().is_empty());
        assert!(hits[2].exact, "its vector is whole");
    }
}

#[test]
fn an_exact_copy_in_ram_stands_in_for_the_archive() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let notes = store.collection("notes").unwrap();
    let mut rng = Rng(7);
    for n in (0..ENTRIES).step_by(STEP) {
        notes.put(format!("k{n}"), draft(n, &mut rng)).unwrap();
    }
    store.checkpoint().unwrap();
    // Each section in its middle; the rows' own table is needed to know whose copy to look for.
    for kind in [VECTORS, CODES, SKETCHES, BODIES, PAYLOADS] {
        let (_, len) = section(&disk, kind);
        damage(&disk, kind, len / 2);
    }
    for exactness in EXACTNESSES {
        let hits = search(&notes, exactness, 10);
        assert_eq!(keys(&hits), near(0..10), "{exactness:?}");
        assert!(hits.damaged().is_empty());
    }
}

#[test]
fn filters_that_no_row_answers_are_right() {
    let store = open(&patient());
    let notes = store.collection("notes").unwrap();
    for n in [3, 5, 8] {
        notes.get(format!("k{}", n * STEP)).unwrap();
    }
    store.checkpoint().unwrap();
    let seen = r#"{"$and": [{"_last_access": {"$gte": 0}}, {"even": 1}]}"#;
    for exactness in EXACTNESSES {
        for (filter, wanted) in [
            // Where they are meant to be.
            (r#"{"_tier": "hot"}"#, near(0..10)),
            (r#"{"_tier": "warm"}"#, Vec::new()),
            (seen, near((0..20).filter(|n| n % 2 == 1))),
        ] {
            let query = Query::vector(question()).k(10).exactness(exactness);
            let hits = notes.search(query.filter(Filter::parse(filter).unwrap())).unwrap();
            assert_eq!(keys(&hits), wanted, "{exactness:?}, {filter}");
        }
    }
}

#[test]
fn candidates_that_all_fall_away_are_not_read_one_by_one() {
    let disk = GateDisk::new(patient());
    let options = Options { background: false, budget_bytes: Some(64 << 20), ..Options::default() };
    let store = try_open(&disk, &ManualClock::new(), options).unwrap();
    let notes = store.collection("notes").unwrap();
    for filter in [r#"{"_tier": "warm"}"#, r#"{"_last_access": {"$lt": 0}}"#] {
        let before = disk.reads();
        let query = Query::vector(question()).filter(Filter::parse(filter).unwrap());
        assert!(notes.search(query).unwrap().is_empty());
        let reads = disk.reads() - before;
        assert!(reads < 500, "{filter}: {reads} reads for {ENTRIES} rows");
    }
}

#[test]
fn the_most_hits_there_can_be_are_all_entries() {
    let store = open(&patient());
    let notes = store.collection("notes").unwrap();
    for exactness in EXACTNESSES {
        let hits = search(&notes, exactness, 1 << 20);
        assert_eq!(hits.len(), ENTRIES, "{exactness:?}");
        assert_eq!(keys(&hits)[..NEAR], near(0..NEAR));
    }
}

#[test]
fn most_candidates_may_be_out_of_date() {
    let clock = ManualClock::new();
    let disk = SimDisk::new(1);
    let options = Options { background: false, budget_bytes: Some(64 << 20), ..Options::default() };
    let store = try_open(&disk, &clock, options).unwrap();
    let notes = store.collection("notes").unwrap();
    let (mut rng, mut batch) = (Rng(7), Batch::new());
    let second = std::time::Duration::from_secs(1);
    for n in 0..ENTRIES {
        let draft = draft(n, &mut rng);
        let draft = if n < 10 * STEP || n % 7 != 0 { draft.ttl(second) } else { draft };
        batch = batch.put(&notes, format!("k{n}"), draft);
    }
    store.write(batch).unwrap();
    store.checkpoint().unwrap();
    clock.advance(2 * second);
    let wanted = near((10..NEAR).filter(|n| (n * STEP).is_multiple_of(7)));
    for exactness in EXACTNESSES {
        let hits = search(&notes, exactness, 10);
        assert_eq!(hits.len(), 10, "{exactness:?}");
        assert_eq!(keys(&hits)[..wanted.len()], wanted, "{exactness:?}");
    }
}

/// Ids of ten hits among entries that are all alike.
fn alike(notes: &Collection, exactness: Exactness) -> Vec<u64> {
    search(notes, exactness, 10).iter().map(|hit| hit.entry.id.0).collect()
}

#[test]
fn of_equal_ones_the_lowest_ids_are_hits_wherever_they_stand() {
    let disk = SimDisk::new(1);
    let mut store = open(&disk);
    let mut notes = store.collection("notes").unwrap();
    let (mut rng, mut batch) = (Rng(7), Batch::new());
    let twin: Vec<f32> = question().iter().map(|q| q * 0.7 + 0.01).collect();
    // From the fifth on every sixth is the same: 500 in all.
    for n in 0..ENTRIES {
        let mut draft = draft(n, &mut rng);
        if n % 6 == 5 {
            draft = draft.vector(twin.clone());
        } else if n.is_multiple_of(STEP) {
            draft = draft.vector(rng.vector(DIM));
        }
        batch = batch.put(&notes, format!("k{n}"), draft);
    }
    store.write(batch).unwrap();
    let lowest: Vec<u64> = (0..10).map(|n| 6 * n + 6).collect();
    let check = |notes: &Collection, when: &str| {
        // Codes give one of them another score than its exact copy in RAM has.
        for exactness in &EXACTNESSES[..3] {
            assert_eq!(alike(notes, *exactness), lowest, "{exactness:?} {when}");
        }
    };
    check(&notes, "in the log");
    store.checkpoint().unwrap();
    check(&notes, "in RAM and the archive");
    for (n, when) in [(17, "after an update"), (5, "after another"), (101, "and another")] {
        notes.update(format!("k{n}"), Patch::default().attr("seen", true)).unwrap();
        check(&notes, when);
        store.checkpoint().unwrap();
        check(&notes, when);
        store.close().unwrap();
        store = open(&disk);
        notes = store.collection("notes").unwrap();
        check(&notes, when);
    }
    store.vacuum().unwrap();
    check(&notes, "after a vacuum");
    store.close().unwrap();
    check(&open(&disk).collection("notes").unwrap(), "when all are cold");
}

#[test]
fn a_share_out_of_range_is_refused() {
    let store = open(&patient());
    let notes = store.collection("notes").unwrap();
    for share in [0.0, -0.5, 1.01, f32::NAN] {
        for exactness in [Exactness::Target(share), Exactness::Codes(share)] {
            let query = Query::vector(question()).exactness(exactness);
            let error = notes.search(query).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{exactness:?}: {error}");
        }
    }
}
