//! A session that never ends under a budget that does not move: turns keep coming, memory does
//! not grow, the old ones are still found and still exact.
//!
//! `cargo run --release --example long_session`

use pmll::{Batch, Draft, Options, Query, Store};

const TURNS: u64 = 20_000;
const DIM: usize = 64;

/// Something like an embedding: turns about one subject lie near each other.
fn embed(subject: u64, turn: u64) -> Vec<f32> {
    let wave = |seed: u64, i: usize| ((seed as f32 + 1.0) * (i as f32 + 0.5) * 0.618).sin();
    (0..DIM).map(|i| wave(subject, i) + 0.3 * wave(turn.wrapping_mul(7919), i)).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let options = Options { budget_bytes: Some(2 << 20), ..Options::default() };
    let store = Store::builder(dir.path().join("memory")).options(options).open()?;
    let turns = store.collection("turns")?;

    for from in (0..TURNS).step_by(200) {
        let mut batch = Batch::new();
        for turn in from..from + 200 {
            let subject = turn % 50;
            let draft = Draft::text(format!("turn {turn}: something about subject {subject}"))
                .vector(embed(subject, turn))
                .session(format!("day {}", turn / 1000))
                .sequence(turn);
            batch = batch.put(&turns, format!("t{turn}"), draft);
        }
        store.write(batch)?;
        if from % 4000 == 0 {
            let stats = store.stats()?;
            let [hot, warm, cold] = stats.tiers.map(|tier| tier.entries);
            println!(
                "{:>6} turns: {:>7} of {} bytes counted; L0 {hot}, L1 {warm}, L2 {cold}",
                stats.entries, stats.counted_bytes, stats.budget_bytes
            );
            assert!(stats.counted_bytes <= stats.budget_bytes);
        }
    }

    // Some are used again and again, and may stay near.
    for _ in 0..3 {
        turns.get("t7")?;
    }
    let report = store.compress()?;
    println!("{}: {} entries moved", report.outcome.name(), report.moves);
    let why = turns.why("t7")?.ok_or("the turn is there")?;
    println!(
        "t7 stands in {}, score {:.3}, rank {:?} of {}",
        why.standing.name(),
        why.score.total,
        why.rank,
        why.of
    );

    // The first turn, from the first day, exact as it was put.
    let first = turns.get("t0")?.ok_or("the turn is there")?;
    assert_eq!(first.vector, Some(embed(0, 0)));
    let hits = turns.search(Query::vector(embed(0, 0)).k(3))?;
    for hit in &hits[..] {
        println!("{:.3} {} ({})", hit.score, hit.entry.text().unwrap_or(""), hit.entry.tier);
    }
    assert_eq!(hits[0].entry.key, first.key);
    store.close()?;
    Ok(())
}
