//! The store against a plain map: whatever is called in whatever order, both answer alike.
//!
//! `ops` says what may be called, `world` does each write to both sides, `reads` compares every
//! answer with the naive one, `upkeep` compares the whole content around checkpoints, vacuums,
//! reopenings and crashes. Here the calls are drawn: short runs by proptest, which shrinks what
//! fails, and long ones from seeds, which fill several archive segments. To go on from a seed that
//! failed, or to run longer:
//!
//! `PMLL_SEED=7 PMLL_OPS=200000 cargo test --test it model::long_runs`

use std::sync::Arc;

use pmll::io::MemoryDisk;
use pmll::{CollectionSpec, Draft, Element, Metric, Query};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::support::{ManualClock, Rng, open};

mod ops;
mod reads;
mod upkeep;
mod world;

use ops::Op;
use world::World;

/// Calls of all long runs together, unless the environment says otherwise.
const OPS: usize = 50_000;
const SEEDS: [u64; 4] = [1, 2, 3, 4];

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn short_runs_agree_with_a_plain_map(calls in prop::collection::vec(ops::op(), 1..80)) {
        let mut world = World::new(0);
        for call in &calls {
            world.run(call);
        }
        world.upkeep(&Op::Reopen);
        world.check_files("at the end");
    }
}

#[test]
fn long_runs_agree_with_a_plain_map() {
    let seeds = number("PMLL_SEED").map_or(SEEDS.to_vec(), |seed| vec![seed]);
    let all = number("PMLL_OPS").map_or(OPS, |ops| usize::try_from(ops).unwrap());
    let ops = all.div_ceil(seeds.len());
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(seed) = seeds.get(n) else { break };
                    long_run(*seed, ops);
                }
            });
        }
    });
}

/// Says how to come back here when a run panics.
struct Trace<'a> {
    seed: u64,
    call: usize,
    op: Option<&'a Op>,
}

impl Drop for Trace<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("PMLL_SEED={}: failed at call {}: {:?}", self.seed, self.call, self.op);
        }
    }
}

fn long_run(seed: u64, ops: usize) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = ops::op();
    let mut world = World::new(seed);
    let mut most_segments = 0;
    for call in 0..ops {
        let op = strategy.new_tree(&mut runner).unwrap().current();
        let trace = Trace { seed, call, op: Some(&op) };
        world.run(&op);
        if call % 500 == 499 {
            world.check("every now and then");
            most_segments = most_segments.max(world.store().stats().unwrap().archive_segments);
        }
        if call % 5_000 == 4_999 {
            world.check_files("every now and then");
        }
        drop(trace);
    }
    world.upkeep(&Op::Reopen);
    world.check_files("at the end");
    assert!(ops < 5_000 || most_segments > 3, "a run should go through several segments");
}

/// The model's vectors are exact on purpose. These are not, so that a wrong kernel shows.
#[test]
fn search_finds_the_nearest_of_random_vectors() {
    let mut rng = Rng(11);
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let store = open(&MemoryDisk::new(), &ManualClock::new());
        let spec = CollectionSpec::new().dim(33).metric(metric);
        let collection = store.collection_with("v", spec).unwrap();
        let vectors: Vec<Vec<f32>> = (0..600).map(|_| rng.vector(33)).collect();
        for (n, vector) in vectors.iter().enumerate() {
            collection.put(format!("{n}"), Draft::text("").vector(vector.clone())).unwrap();
            if n % 250 == 0 {
                store.checkpoint().unwrap();
            }
        }
        for _ in 0..20 {
            let query = rng.vector(33);
            let mut best: Vec<(f64, usize)> =
                vectors.iter().enumerate().map(|(n, v)| (wide(metric, &query, v), n)).collect();
            best.sort_by(|a, b| b.0.total_cmp(&a.0));
            let hits = collection.search(Query::vector(query).k(25)).unwrap();
            assert_eq!(hits.len(), 25);
            for (hit, (score, _)) in hits.iter().zip(&best) {
                assert!((f64::from(hit.score) - score).abs() < 1e-5, "{metric:?}: {score}");
                let n: usize = hit.entry.key.as_str().unwrap().parse().unwrap();
                let own = best.iter().find(|(_, other)| *other == n).unwrap().0;
                assert!((f64::from(hit.score) - own).abs() < 1e-5, "{metric:?}: {own} of {n}");
            }
        }
    }
}

/// The definition, in f64.
fn wide(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        a.iter().zip(b).map(|(x, y)| f(f64::from(*x), f64::from(*y))).sum()
    };
    match metric {
        Metric::Dot => sum(&|x, y| x * y),
        Metric::L2 => -sum(&|x, y| (x - y) * (x - y)),
        Metric::Cosine => sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt(),
    }
}

#[test]
fn an_f16_collection_rounds_before_the_log() {
    let (disk, clock) = (MemoryDisk::new(), ManualClock::new());
    let store = open(&disk, &clock);
    let spec = CollectionSpec::new().element(Element::F16);
    let halves = store.collection_with("h", spec).unwrap();
    let vector = Rng(5).vector(50);
    let rounded: Vec<f32> = vector.iter().map(|v| half::f16::from_f32(*v).to_f32()).collect();
    assert_ne!(vector, rounded);
    halves.put("a", Draft::text("").vector(vector)).unwrap();
    let read = |collection: &pmll::Collection| collection.get("a").unwrap().unwrap().vector;
    assert_eq!(read(&halves).as_ref(), Some(&rounded), "in RAM");
    drop((halves, store));
    let store = open(&disk, &clock);
    let halves = store.find_collection("h").unwrap().unwrap();
    assert_eq!(read(&halves).as_ref(), Some(&rounded), "from the log");
    store.checkpoint().unwrap();
    assert_eq!(read(&halves).as_ref(), Some(&rounded), "from the archive");
    let _ = Arc::new(store);
}
