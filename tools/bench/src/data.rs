//! The passages, their texts, the queries, and the true neighbours.
//!
//! For all passages the truth is the shared file. For the first `n` of them, and for the filter, it
//! is computed once by comparing every vector, and kept in the state folder as an `.npy` file that
//! the rivals in Python read as well. Row numbers there are f32: exact far beyond these counts.
//!
//! More rows than there are passages are made on the spot, from a seed: each lies between two passages
//! that follow each other closely, which are mostly of one article, with noise of a quarter of its length.
//!
//! Queries are never changed, and rows are normalised to unit length in f32 for subjects that
//! compare by inner product; the data is normalised already but for its rounding to f16.

use std::path::{Path, PathBuf};

use pmll_cli::lines::{Line, Lines};
use pmll_cli::npy::{NpyReader, NpyWriter};

use crate::Outcome;

/// Hits of a search.
pub const K: usize = 10;
/// The attribute of a row is its number modulo this.
pub const CLASSES: usize = 100;
/// The class that is asked for.
pub const CLASS: usize = 7;

const PASSAGES: &str = "wikitext_passages.f16.npy";
const QUERIES: &str = "wikitext_queries.f16.npy";
const TRUTH: &str = "wikitext_gt.i32.npy";
const TEXTS: &str = "wikitext_passages.txt.zst";

/// Whether the folder holds the data.
pub fn is_there(data: &Path) -> bool {
    [PASSAGES, QUERIES, TRUTH, TEXTS].iter().all(|name| data.join(name).exists())
}

/// The first rows of the passages.
pub fn passages(data: &Path, rows: usize) -> Outcome<Vec<Vec<f32>>> {
    let mut file = NpyReader::open(&data.join(PASSAGES))?;
    let there = rows.min(file.rows() as usize);
    let mut all: Vec<Vec<f32>> =
        (0..there as u64).map(|row| file.row(row)).collect::<Result<_, _>>()?;
    let mut random = Random(20_261_129);
    while all.len() < rows {
        let from = random.below(there as u64) as usize;
        let next = (from + 1 + random.below(4) as usize) % there;
        let part = 0.3 + 0.4 * random.unit();
        let between = all[from].iter().zip(&all[next]).map(|(a, b)| part * a + (1.0 - part) * b);
        let between = unit(&between.collect::<Vec<f32>>());
        let noise: Vec<f32> = between.iter().map(|_| random.unit() - 0.5).collect();
        let noisy = between.iter().zip(unit(&noise)).map(|(x, noise)| x + NOISE * noise);
        all.push(unit(&noisy.collect::<Vec<f32>>()));
    }
    Ok(all)
}

/// Length of the noise, where vectors have length 1.
const NOISE: f32 = 0.25;

/// Splitmix64, from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32
    }
}

/// All queries.
pub fn queries(data: &Path) -> Outcome<Vec<Vec<f32>>> {
    let mut file = NpyReader::open(&data.join(QUERIES))?;
    Ok((0..file.rows()).map(|row| file.row(row)).collect::<Result<_, _>>()?)
}

/// The first query alone.
pub fn first_query(data: &Path) -> Outcome<Vec<f32>> {
    Ok(NpyReader::open(&data.join(QUERIES))?.row(0)?)
}

/// The texts of the first rows; rows that are made have those of the passages over again.
pub fn texts(data: &Path, rows: usize) -> Outcome<Vec<String>> {
    let mut lines = Lines::open(&data.join(TEXTS))?;
    let mut texts = Vec::new();
    while texts.len() < rows {
        match lines.next_row()? {
            Some((_, Line::Text(text))) => texts.push(String::from_utf8(text)?),
            Some((_, Line::Object(_))) => return Err("the passages are lines of text".into()),
            None => break,
        }
    }
    let there = texts.len();
    if there == 0 {
        return Err("there are no texts".into());
    }
    (there..rows).for_each(|row| texts.push(texts[row % there].clone()));
    Ok(texts)
}

/// Writes the texts as plain lines, for rivals that cannot unpack them.
pub fn unpack_texts(data: &Path, state: &Path, rows: usize) -> Outcome<()> {
    let path = state.join("texts.txt");
    if !path.exists() {
        let unfinished = path.with_extension("unfinished");
        std::fs::write(&unfinished, texts(data, rows)?.join("\n"))?;
        std::fs::rename(unfinished, path)?;
    }
    Ok(())
}

/// The vector scaled to unit length.
pub fn unit(vector: &[f32]) -> Vec<f32> {
    let norm = dot(vector, vector).sqrt();
    vector.iter().map(|v| v / norm.max(f32::MIN_POSITIVE)).collect()
}

/// The true best ten of each query, best first. With `filtered`, among rows of the asked class.
pub fn truth(data: &Path, state: &Path, rows: usize, filtered: bool) -> Outcome<Vec<Vec<i64>>> {
    let mut shared = NpyReader::open(&data.join(TRUTH))?;
    if !filtered && rows as u64 == NpyReader::open(&data.join(PASSAGES))?.rows() {
        let all = (0..shared.rows()).map(|row| shared.numbers(row));
        return Ok(all
            .map(|best| best.map(|best| best.into_iter().take(K).collect()))
            .collect::<Result<_, _>>()?);
    }
    let path = truth_path(state, rows, filtered);
    if !path.exists() {
        compute(data, &path, rows, filtered)?;
    }
    let mut file = NpyReader::open(&path)?;
    let all = (0..file.rows()).map(|row| file.row(row));
    Ok(all
        .map(|best| best.map(|best| best.iter().map(|row| *row as i64).collect()))
        .collect::<Result<_, _>>()?)
}

fn truth_path(state: &Path, rows: usize, filtered: bool) -> PathBuf {
    let kind = if filtered { "filtered" } else { "all" };
    state.join(format!("truth-{kind}-{rows}.npy"))
}

/// Compares every vector with every query: cosine in f32, ties to the lower row.
fn compute(data: &Path, path: &Path, rows: usize, filtered: bool) -> Outcome<()> {
    let units: Vec<(usize, Vec<f32>)> = passages(data, rows)?
        .iter()
        .enumerate()
        .filter(|(row, _)| !filtered || row % CLASSES == CLASS)
        .map(|(row, vector)| (row, unit(vector)))
        .collect();
    if units.len() < K {
        return Err(format!("{rows} rows leave fewer than {K} to find").into());
    }
    // Under another name until it is whole: a run that is stopped leaves no half a truth.
    let unfinished = path.with_extension("unfinished");
    let mut file = NpyWriter::create(&unfinished, K, false)?;
    for query in queries(data)? {
        let mut scores: Vec<(f32, usize)> =
            units.iter().map(|(row, vector)| (dot(vector, &query), *row)).collect();
        let order = |a: &(f32, usize), b: &(f32, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        scores.select_nth_unstable_by(K - 1, order);
        scores.truncate(K);
        scores.sort_by(order);
        let best: Vec<f32> = scores.iter().map(|(_, row)| *row as f32).collect();
        file.push(&best)?;
    }
    file.finish()?;
    std::fs::rename(unfinished, path)?;
    Ok(())
}

/// Sixteen sums at once, which the compiler turns into vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let (a, b) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
    for (a, b) in a.zip(b) {
        for ((sum, x), y) in sums.iter_mut().zip(a).zip(b) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f32>() + rest
}
