//! Times of one search after another on one thread: everything in RAM or Level 1, and at 12 %.
//!
//! Stated, not compared: what a search is measured against has benches of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use pmll::{Collection, CountAccess, Policy, Query};

use super::{Outcome, Passages, fill, half, open, overlap};

const K: usize = 10;
const WARM_UP: usize = 200;
const QUERIES: usize = 1000;
/// Codes of all passages and all sketches fit with much to spare.
const LARGE_BYTES: u64 = 512 << 20;
const RECALL_MIN: f64 = 0.99;

/// Prints a row a budget.
pub fn run(data: &Path) -> Outcome<()> {
    let passages = Passages::load(data)?;
    let rows: Vec<_> =
        passages.texts.iter().cloned().zip(passages.vectors.iter().cloned()).collect();
    println!(
        "times: {} passages, {QUERIES} queries one after the other after {WARM_UP} to warm up, k = {K}",
        rows.len()
    );
    println!(
        "| budget | L0 | L1 | L2 | counted | p50 us | p99 us | recall@{K} |\n|---|---|---|---|---|---|---|---|"
    );
    let twelve = passages.f32_bytes() * 12 / 100;
    // `Paper` packs codes whatever the budget says: `Watermark` would keep all in RAM.
    for (name, budget, policy) in
        [("large", LARGE_BYTES, Policy::Paper), ("12 %", twelve, Policy::Watermark)]
    {
        let dir = tempfile::tempdir()?;
        let store = open(&dir.path().join("store"), budget)?;
        fill(&store, "passages", half(), &rows)?;
        store.compress_with(policy)?;
        let collection = store.collection("passages")?;
        for vector in passages.queries.iter().take(WARM_UP) {
            search(&collection, vector)?;
        }
        let (mut times, mut found) = (Vec::new(), Vec::new());
        for vector in passages.queries.iter().take(QUERIES) {
            let (time, ids) = search(&collection, vector)?;
            times.push(time);
            found.push(ids);
        }
        times.sort_unstable();
        let stats = store.stats()?;
        let [hot, warm, cold] = stats.tiers.map(|tier| tier.entries);
        let recall = overlap(&found, &passages.truth);
        println!(
            "| {name} | {hot} | {warm} | {cold} | {} | {:.1} | {:.1} | {recall:.4} |",
            stats.counted_bytes,
            percentile(&times, 50),
            percentile(&times, 99)
        );
        assert!(budget == twelve || cold == 0, "not everything is warm");
        assert!(recall >= RECALL_MIN, "recall {recall}");
    }
    Ok(())
}

/// How long a search takes, and the row numbers it answers.
fn search(collection: &Collection, vector: &[f32]) -> Outcome<(Duration, Vec<i64>)> {
    let query = Query::vector(vector).k(K).with_payload(false).count_access(CountAccess::None);
    let started = Instant::now();
    let hits = collection.search(query)?;
    let time = started.elapsed();
    // Keys are row numbers, and were put in their order.
    Ok((time, hits.iter().map(|hit| hit.entry.id.0 as i64 - 1).collect()))
}

/// Nearest rank, in microseconds.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    let time = sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default();
    time.as_secs_f64() * 1e6
}
