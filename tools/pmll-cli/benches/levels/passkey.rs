//! Passkeys: twenty needles among 100,000 made-up entries and all passages, after compression.
//!
//! Everything goes through the model-free embedder `hash-384`, so that needles compete by what they
//! say. Half of the needles hold digits, half a word; they stand at ten depths from 5 % to 95 %.

use std::path::Path;

use pmll::{CountAccess, Query};
use pmll_cli::embed;

use super::{Outcome, fill, half, open, texts};

const JUNK: usize = 100_000;
const SEED: u64 = 20_260;
const WORDS: [&str; 32] = [
    "river", "cloud", "engine", "paper", "window", "garden", "silver", "market", "letter",
    "bridge", "winter", "signal", "copper", "forest", "violin", "harbor", "candle", "meadow",
    "anchor", "mirror", "basket", "tunnel", "pepper", "marble", "ladder", "saddle", "thunder",
    "velvet", "walnut", "canyon", "lantern", "pebble",
];
const NAMES: [&str; 20] = [
    "Amalia",
    "Bertrand",
    "Cosima",
    "Dmitri",
    "Evangeline",
    "Ferdinand",
    "Gwendolyn",
    "Horatio",
    "Isolde",
    "Jericho",
    "Katarina",
    "Leopold",
    "Marguerite",
    "Nathaniel",
    "Ophelia",
    "Percival",
    "Quentin",
    "Rosalind",
    "Sebastian",
    "Theodora",
];

/// Puts, compresses, asks.
pub fn run(data: &Path) -> Outcome<()> {
    let mut state = SEED;
    let mut next = move |end: usize| {
        // splitmix64
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % end as u64) as usize
    };
    let mut all: Vec<String> = (0..JUNK)
        .map(|_| (0..8).map(|_| WORDS[next(WORDS.len())]).collect::<Vec<_>>().join(" "))
        .collect();
    all.extend(texts(data)?);
    let total = all.len();
    let mut needles = Vec::new();
    for (nth, name) in NAMES.iter().enumerate() {
        let secret = match nth % 2 {
            0 => format!("{:06}", next(1_000_000)),
            _ => format!("{}{}", WORDS[next(WORDS.len())], WORDS[next(WORDS.len())]),
        };
        let depth = 5 + (nth / 2) * 10;
        let text = format!("The pass key of {name} is {secret}. Remember it.");
        all.insert(total * depth / 100, text.clone());
        needles.push((format!("What is the pass key of {name}?"), text, depth));
    }
    let rows: Vec<(String, Vec<f32>)> = all
        .into_iter()
        .map(|text| {
            let vector = embed::embed(&text);
            (text, vector)
        })
        .collect();
    let f32_bytes = (rows.len() * 384 * 4) as u64;
    let dir = tempfile::tempdir()?;
    let store = open(&dir.path().join("store"), f32_bytes * 12 / 100)?;
    fill(&store, "haystack", half(), &rows)?;
    let report = store.compress()?;
    let haystack = store.collection("haystack")?;
    let (mut first, mut in_ten) = (0, 0);
    for (question, text, depth) in &needles {
        let query = Query::vector(embed::embed(question)).k(10).count_access(CountAccess::None);
        let hits = haystack.search(query)?;
        let at = hits.iter().position(|hit| hit.entry.text() == Some(text.as_str()));
        first += usize::from(at == Some(0));
        in_ten += usize::from(at.is_some());
        if at.is_none() {
            println!("missed at {depth} %: {text}");
        }
    }
    println!(
        "passkey: {} entries, budget 12 % of f32, {}, {} of {} counted: {in_ten} of {} needles in the first \
         ten, {first} first; seed {SEED}",
        rows.len(),
        report.outcome.name(),
        report.counted_bytes_after,
        report.budget_bytes,
        needles.len()
    );
    assert_eq!(in_ten, needles.len());
    Ok(())
}
