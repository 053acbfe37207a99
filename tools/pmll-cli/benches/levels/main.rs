//! What three levels under a budget come to, on real data.
//!
//! `cargo bench -p pmll-cli --bench levels [-- curve|passkey|overcommit|equal|locomo|times]`; without a word
//! all of them. Data is found through `PMLL_DATA`, default `../shared/data`; without it a line is
//! printed and nothing run. Every part checks its answers before it prints a number.
//!
//! Nothing here is timed against anybody: speed has benches of its own.

mod curve;
mod locomo;
mod memory;
mod passkey;
mod times;

use std::path::{Path, PathBuf};

use pmll::{Batch, CollectionSpec, Draft, Element, Options, Store};
use pmll_cli::lines::{Line, Lines};
use pmll_cli::npy::NpyReader;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Entries of one durable batch.
const BATCH: usize = 256;

fn main() -> Outcome<()> {
    // Cargo runs benches in the package's folder, and data lies beside the workspace.
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let data = std::env::var_os("PMLL_DATA").map_or(beside, PathBuf::from);
    if !data.join("wikitext_passages.f16.npy").exists() {
        println!("skipped: no data at {}; set PMLL_DATA", data.display());
        return Ok(());
    }
    let asked: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wants = |name: &str| asked.is_empty() || asked.iter().any(|word| word == name);
    if wants("curve") {
        curve::run(&data)?;
    }
    if wants("passkey") {
        passkey::run(&data)?;
    }
    if wants("equal") {
        memory::equal(&data)?;
    }
    if wants("overcommit") {
        memory::overcommit()?;
    }
    if wants("locomo") {
        locomo::run(&data)?;
    }
    if wants("times") {
        times::run(&data)?;
    }
    Ok(())
}

/// The passages: texts, vectors, queries, and the true best rows of each query.
struct Passages {
    texts: Vec<String>,
    vectors: Vec<Vec<f32>>,
    queries: Vec<Vec<f32>>,
    truth: Vec<Vec<i64>>,
}

impl Passages {
    fn load(data: &Path) -> Outcome<Passages> {
        let all = |name: &str| -> Outcome<Vec<Vec<f32>>> {
            let mut file = NpyReader::open(&data.join(name))?;
            Ok((0..file.rows()).map(|row| file.row(row)).collect::<Result<_, _>>()?)
        };
        let mut truth = NpyReader::open(&data.join("wikitext_gt.i32.npy"))?;
        Ok(Passages {
            texts: texts(data)?,
            vectors: all("wikitext_passages.f16.npy")?,
            queries: all("wikitext_queries.f16.npy")?,
            truth: (0..truth.rows()).map(|row| truth.numbers(row)).collect::<Result<_, _>>()?,
        })
    }

    /// Bytes of the vectors as f32.
    fn f32_bytes(&self) -> u64 {
        (self.vectors.len() * self.vectors.first().map_or(0, Vec::len) * 4) as u64
    }
}

fn texts(data: &Path) -> Outcome<Vec<String>> {
    let mut lines = Lines::open(&data.join("wikitext_passages.txt.zst"))?;
    let mut texts = Vec::new();
    while let Some((_, line)) = lines.next_row()? {
        match line {
            Line::Text(text) => texts.push(String::from_utf8(text)?),
            Line::Object(_) => return Err("the passages are lines of text".into()),
        }
    }
    Ok(texts)
}

/// Opens a store whose compressor runs in the calling thread: figures do not depend on luck.
fn open(dir: &Path, budget_bytes: u64) -> Outcome<Store> {
    let options =
        Options { budget_bytes: Some(budget_bytes), background: false, ..Options::default() };
    Ok(Store::builder(dir).options(options).open()?)
}

/// Puts texts and vectors under their row numbers.
fn fill(
    store: &Store,
    name: &str,
    spec: CollectionSpec,
    rows: &[(String, Vec<f32>)],
) -> Outcome<()> {
    let collection = store.collection_with(name, spec)?;
    for (nth, rows) in rows.chunks(BATCH).enumerate() {
        let mut batch = Batch::new();
        for (at, (text, vector)) in rows.iter().enumerate() {
            let key = (nth * BATCH + at).to_string();
            batch = batch.put(&collection, key, Draft::text(text).vector(vector.as_slice()));
        }
        store.write(batch)?;
    }
    Ok(())
}

fn half() -> CollectionSpec {
    CollectionSpec::new().element(Element::F16)
}

/// Highest resident set of this process so far, or since it was last forgotten, in KiB.
fn peak_kib() -> u64 {
    status_kib("VmHWM:")
}

/// Resident set of this process, in KiB.
fn resident_kib() -> u64 {
    status_kib("VmRSS:")
}

/// Starts the highest resident set anew. Where that is not possible it stays as it is.
fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn status_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// Share of the true best ten that was found, over as many queries as were asked.
fn overlap(found: &[Vec<i64>], truth: &[Vec<i64>]) -> f64 {
    let hits: usize = found
        .iter()
        .zip(truth)
        .map(|(found, truth)| {
            let best = truth.get(..10).unwrap_or_default();
            found.iter().filter(|row| best.contains(row)).count()
        })
        .sum();
    hits as f64 / (found.len() * 10) as f64
}
