//! What the budget costs and what it does not: bytes, never content.

use std::path::Path;

use pmll::{Batch, CountAccess, Depth, Draft, Exactness, Policy, Query, Scan};

use super::{BATCH, Outcome, Passages, fill, forget_peak, half, open, peak_kib, resident_kib};

/// Every passage is byte for byte what was put, whatever moved, and after a reopen.
pub fn equal(data: &Path) -> Outcome<()> {
    let passages = Passages::load(data)?;
    let rows: Vec<_> =
        passages.texts.iter().cloned().zip(passages.vectors.iter().cloned()).collect();
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("store");
    let budget = passages.f32_bytes() * 12 / 100;
    let store = open(&path, budget)?;
    fill(&store, "passages", half(), &rows)?;
    let mut moves = 0;
    for budget in [budget, 4 << 20, 64 << 20, budget] {
        store.set_budget(budget)?;
        for policy in [Policy::Watermark, Policy::Paper, Policy::Watermark] {
            moves += store.compress_with(policy)?.moves;
        }
        store.recompress()?;
    }
    store.close()?;
    let store = open(&path, budget)?;
    let collection = store.collection("passages")?;
    let mut seen = 0;
    let mut scan = Scan::new().with_vector(true).limit(1000);
    loop {
        let page = collection.scan(scan)?;
        for entry in &page.entries {
            let row: usize = entry.key.as_str().unwrap_or_default().parse()?;
            let (text, vector) = rows.get(row).ok_or("a row that was never put")?;
            let same = entry.payload[..] == *text.as_bytes()
                && entry.vector.as_deref().is_some_and(|found| {
                    found.iter().map(|v| v.to_bits()).eq(vector.iter().map(|v| v.to_bits()))
                });
            if !same {
                return Err(format!("row {row} changed").into());
            }
            seen += 1;
        }
        let Some(cursor) = page.cursor else { break };
        scan = Scan::new().with_vector(true).limit(1000).cursor(cursor);
    }
    let report = store.verify(Depth::Deep)?;
    assert!(report.is_whole() && seen == rows.len(), "{seen} rows, {:?}", report.problems);
    println!(
        "equal: {seen} of {} entries byte for byte after {moves} moves and a reopen",
        rows.len()
    );
    Ok(())
}

const DIM: usize = 384;
/// 240 MB of f32.
const ROWS: usize = 156_250;
const BUDGET_BYTES: u64 = 8 << 20;

/// The vector and payload of a row, from its number alone.
fn row(number: usize) -> (String, Vec<f32>) {
    let mut state = number as u64 + 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f32 / (1_u64 << 31) as f32 - 0.5
    };
    let vector = (0..DIM).map(|_| next()).collect();
    (format!("row {number} of a session that never ends"), vector)
}

/// Thirty times as much as the budget.
pub fn overcommit() -> Outcome<()> {
    let before_kib = peak_kib();
    let dir = tempfile::tempdir()?;
    let store = open(&dir.path().join("store"), BUDGET_BYTES)?;
    let session = store.collection("session")?;
    // The hard cap, and what one batch may add before it is seen.
    let capped = BUDGET_BYTES * 95 / 100 + (BATCH * (DIM * 4 + 1024)) as u64;
    let mut most = 0;
    let mut payload_bytes = 0;
    for from in (0..ROWS).step_by(BATCH) {
        let mut batch = Batch::new();
        for number in from..ROWS.min(from + BATCH) {
            let (text, vector) = row(number);
            payload_bytes += text.len() as u64;
            batch = batch.put(&session, number.to_string(), Draft::text(text).vector(vector));
        }
        store.write(batch)?;
        let counted = store.counted_bytes()?;
        most = most.max(counted);
        assert!(counted <= capped, "{counted} bytes counted after {from} rows");
    }
    let peak_so_far = peak_kib();
    let before_pass_kib = resident_kib();
    forget_peak();
    let report = store.compress()?;
    let scratch_kib = peak_kib().saturating_sub(before_pass_kib);
    for number in (0..ROWS).step_by(997) {
        let (text, vector) = row(number);
        let entry = session.get(number.to_string())?.ok_or("a row is missing")?;
        assert!(entry.payload[..] == *text.as_bytes() && entry.vector == Some(vector));
    }
    let (mut hit, mut of) = (0, 0);
    for number in (0..20).map(|n| n * 7_801) {
        let (_, mut vector) = row(number);
        vector.iter_mut().zip(row(number + 1).1).for_each(|(v, noise)| *v += noise);
        let query = Query::vector(vector).k(10).count_access(CountAccess::None);
        let exact = session.search(query.clone().exactness(Exactness::Exact))?;
        let staged = session.search(query)?;
        of += exact.len();
        let is_true = |id| exact.iter().any(|hit| hit.entry.id == id);
        hit += staged.iter().filter(|hit| is_true(hit.entry.id)).count();
    }
    let stats = store.stats()?;
    let live = (ROWS * DIM * 4) as u64 + payload_bytes;
    let peak = peak_kib().max(peak_so_far);
    println!(
        "overcommit: {ROWS} rows, {} MB of f32 under {} MiB: {}, most counted {most} of {BATCH}-row batches each \
         looked at (asserted at most {capped}), peak resident {peak} KiB ({before_kib} KiB before; bound {}; a \
         run needs {scratch_kib} KiB more than it finds), disk {} bytes = {:.2} of f32 + payload, \
         recall@10 on noise {:.3}",
        ROWS * DIM * 4 / 1_000_000,
        BUDGET_BYTES >> 20,
        report.outcome.name(),
        (BUDGET_BYTES >> 10) + (32 << 10),
        stats.disk.total,
        stats.disk.total as f64 / live as f64,
        hit as f64 / of as f64
    );
    assert!(peak <= (BUDGET_BYTES >> 10) + (32 << 10), "the process grew beyond its bound");
    Ok(())
}
