//! Recall against resident bytes: the store from the floor up, and what simpler ways come to.
//!
//! Beside the store: all vectors as int8, all as int4 (affine min and max per vector, scored by
//! codes alone), and eviction of the oldest. `Paper` and `PaperLiteral` are the store's.

use std::path::Path;

use pmll::{CollectionSpec, CountAccess, Element, Exactness, Metric, Policy, Query, Store};

use super::{Outcome, Passages, fill, half, open, overlap};

const K: usize = 10;
/// Budgets, in percent of the f32 bytes.
const BUDGETS: [u64; 9] = [2, 4, 8, 12, 20, 40, 60, 80, 100];
/// Queries of the metrics on unnormalised vectors, where truth costs a full scan each.
const SCALED_QUERIES: usize = 300;
/// Queries of the literal policy.
const LITERAL_QUERIES: usize = 200;
/// From a budget of 12 % on.
const RECALL_MIN: f64 = 0.99;

/// Prints the curve.
pub fn run(data: &Path) -> Outcome<()> {
    let passages = Passages::load(data)?;
    let all = passages.f32_bytes();
    let rows: Vec<_> =
        passages.texts.iter().cloned().zip(passages.vectors.iter().cloned()).collect();
    let base = tempfile::tempdir()?;
    println!(
        "recall@{K} of {} queries on {} passages; f32 takes {all} bytes",
        passages.queries.len(),
        rows.len()
    );
    println!("| what | resident, % of f32 | recall@{K} |\n|---|---|---|");
    for percent in BUDGETS {
        let dir = base.path().join(percent.to_string());
        let budget = (all * percent / 100).max(1 << 20);
        let store = open(&dir, budget)?;
        fill(&store, "passages", half(), &rows)?;
        for policy in [Policy::Watermark, Policy::Paper, Policy::PaperLiteral] {
            store.compress_with(policy)?;
            // Each search of it looks further and further for what is hidden, and takes long.
            let queries = match policy {
                Policy::PaperLiteral => LITERAL_QUERIES,
                _ => passages.queries.len(),
            };
            let recall = recall(&store, &passages, queries)?;
            let counted = store.stats()?.counted_bytes;
            let share = 100.0 * counted as f64 / all as f64;
            let name = policy.name();
            println!(
                "| {name} at a budget of {percent} %, {queries} queries | {share:.1} | {recall:.4} |"
            );
            if policy == Policy::Watermark && percent >= 12 {
                assert!(recall >= RECALL_MIN, "recall {recall}");
            }
            // The others place entries by rank and width, whatever the budget says.
            let keeps = policy != Policy::Watermark || counted <= budget;
            assert!(keeps, "{counted} bytes counted under a budget of {budget}");
        }
        store.close()?;
        std::fs::remove_dir_all(&dir)?;
    }
    for bits in [8, 4] {
        let codes: Vec<Codes> = passages.vectors.iter().map(|v| Codes::of(v, bits)).collect();
        let decoded: Vec<Vec<f32>> = codes.iter().map(Codes::decode).collect();
        let found = brute(&decoded, &passages.queries);
        let share = 100.0 * (384.0 * f64::from(bits) / 8.0 + 12.0) / 1536.0;
        println!(
            "| everything as int{bits} | {share:.1} | {:.4} |",
            overlap(&found, &passages.truth)
        );
    }
    for percent in BUDGETS.into_iter().chain([59]) {
        let kept = rows.len() * percent as usize / 100;
        let oldest = (rows.len() - kept) as i64;
        let (mut hit, mut of) = (0, 0);
        for truth in &passages.truth {
            let truth = truth.iter().take(K);
            of += K;
            hit += truth.filter(|row| **row >= oldest).count();
        }
        let recall = hit as f64 / of as f64;
        println!("| exact, the oldest evicted | {percent}.0 | {recall:.4} |");
    }
    scaled(&passages, base.path())
}

/// The other metrics, on vectors whose lengths differ by up to four times.
fn scaled(passages: &Passages, base: &Path) -> Outcome<()> {
    let rows: Vec<(String, Vec<f32>)> = passages
        .texts
        .iter()
        .zip(&passages.vectors)
        .enumerate()
        .map(|(n, (text, vector))| {
            // Spread evenly by a multiplicative hash of the row number.
            let spread = (n as u32).wrapping_mul(2_654_435_769) as f32 / u32::MAX as f32;
            let scale = 0.5 + 1.5 * spread;
            (text.clone(), vector.iter().map(|v| v * scale).collect())
        })
        .collect();
    for (name, metric) in [("dot", Metric::Dot), ("l2", Metric::L2)] {
        let budget = passages.f32_bytes() * 12 / 100;
        let store = open(&base.join(name), budget)?;
        let spec = CollectionSpec::new().metric(metric).element(Element::F32);
        fill(&store, "passages", spec, &rows)?;
        store.compress()?;
        let collection = store.collection("passages")?;
        let (mut hit, mut of) = (0, 0);
        for vector in passages.queries.iter().take(SCALED_QUERIES) {
            let query = Query::vector(vector.as_slice()).k(K).count_access(CountAccess::None);
            let exact = collection.search(query.clone().exactness(Exactness::Exact))?;
            let staged = collection.search(query)?;
            of += exact.len();
            let is_true = |id| exact.iter().any(|hit| hit.entry.id == id);
            hit += staged.iter().filter(|hit| is_true(hit.entry.id)).count();
        }
        let share = 100.0 * store.stats()?.counted_bytes as f64 / passages.f32_bytes() as f64;
        let recall = hit as f64 / of as f64;
        println!("| watermark, {name}, lengths 0.5 to 2, budget 12 % | {share:.1} | {recall:.4} |");
        assert!(recall >= RECALL_MIN, "recall {recall} by {name}");
    }
    Ok(())
}

fn recall(store: &Store, passages: &Passages, queries: usize) -> Outcome<f64> {
    let collection = store.collection("passages")?;
    let mut found = Vec::new();
    for vector in passages.queries.iter().take(queries) {
        let query = Query::vector(vector.as_slice())
            .k(K)
            .with_payload(false)
            .count_access(CountAccess::None);
        let hits = collection.search(query)?;
        // Keys are row numbers, and were put in their order.
        found.push(hits.iter().map(|hit| hit.entry.id.0 as i64 - 1).collect());
    }
    Ok(overlap(&found, &passages.truth))
}

/// A vector as codes: `min + step * code`.
struct Codes {
    min: f32,
    step: f32,
    codes: Vec<u8>,
}

impl Codes {
    fn of(vector: &[f32], bits: u32) -> Codes {
        let min = vector.iter().copied().fold(f32::INFINITY, f32::min);
        let max = vector.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let levels = ((1_u32 << bits) - 1) as f32;
        let step = (max - min) / levels;
        let code = |v: &f32| ((v - min) / step + 0.5).floor().clamp(0.0, levels) as u8;
        Codes { min, step, codes: vector.iter().map(code).collect() }
    }

    /// At length 1, so that a product with a query orders as the cosine does.
    fn decode(&self) -> Vec<f32> {
        let vector: Vec<f32> =
            self.codes.iter().map(|c| self.min + self.step * f32::from(*c)).collect();
        let norm = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
        vector.iter().map(|v| v / norm).collect()
    }
}

/// The best rows of each query by products, best first.
fn brute(vectors: &[Vec<f32>], queries: &[Vec<f32>]) -> Vec<Vec<i64>> {
    let best = |query: &Vec<f32>| {
        let mut scored: Vec<(f32, i64)> = vectors
            .iter()
            .zip(0..)
            .map(|(v, row)| (v.iter().zip(query).map(|(a, b)| a * b).sum::<f32>(), row))
            .collect();
        scored.select_nth_unstable_by(K, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        scored.truncate(K);
        scored.into_iter().map(|(_, row)| row).collect()
    };
    queries.iter().map(best).collect()
}
