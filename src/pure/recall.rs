//! A test of the pure floor as a whole: how many of the true ten nearest come out of the stages of a
//! search, on real embeddings.
//!
//! 1. Sketches of all rows choose candidates, 8-bit codes rank them, exact vectors settle the top.
//! 2. The same with codes alone, of 8 and of 4 bits.
//!
//! Always on the excerpt in `tests/data`; on the full set of 64,287 passages when the folder named by
//! `PMLL_DATA` (or `../shared/data`) has it, else a line says so. Everything is deterministic.

use std::path::{Path, PathBuf};

use crate::pure::kernel::{self, PreparedQuery};
use crate::pure::quant::{self, Bits, CodeQuery, RowLayout};
use crate::pure::sketch::{self, SketchLayout, SketchQuery};
use crate::pure::topk::TopK;
use crate::words::id::EntryId;
use crate::words::options::Metric;

const DIM: usize = 384;
const K: usize = 10;
const METRIC: Metric = Metric::Cosine;

/// Passages, queries, and for each query the rows of its nearest passages.
struct Set {
    passages: Vec<f32>,
    queries: Vec<f32>,
    truth: Vec<i32>,
    truth_width: usize,
}

/// Recall at 10, summed over queries.
#[derive(Debug, Default)]
struct Recalls {
    staged: f64,
    eight: f64,
    four: f64,
}

/// Header of a version 1.0 file: 10 bytes, and so many as the last two of them say.
fn body(path: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    assert_eq!(bytes[..8], *b"\x93NUMPY\x01\x00", "{}", path.display());
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes.drain(..header);
    bytes
}

fn halves(path: &Path) -> Vec<f32> {
    let value = |bytes: &[u8]| half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
    body(path).chunks_exact(2).map(value).collect()
}

fn integers(path: &Path) -> Vec<i32> {
    let value = |bytes: &[u8]| i32::from_le_bytes(bytes.try_into().unwrap());
    body(path).chunks_exact(4).map(value).collect()
}

/// The best rows of `scores`, equal scores by lower row.
fn best(count: usize, scores: impl Iterator<Item = (usize, f32)>) -> Vec<usize> {
    let mut top = TopK::new(count);
    for (row, score) in scores {
        top.offer(score, EntryId(row as u64), row);
    }
    top.into_sorted().into_iter().map(|(_, _, row)| row).collect()
}

fn recalls(set: &Set, every: usize, candidates: usize, settled: usize) -> Recalls {
    let rows = set.passages.len() / DIM;
    let mut mean = vec![0.0_f32; DIM];
    for passage in set.passages.chunks(DIM) {
        mean.iter_mut().zip(passage).for_each(|(m, v)| *m += v / rows as f32);
    }

    let layout = SketchLayout::new(DIM, METRIC).unwrap();
    let eight = RowLayout::new(DIM, 0, Bits::Eight).unwrap();
    let four = eight.with_bits(Bits::Four);
    let mut blocks = vec![0; layout.blocks_bytes(rows)];
    let mut eights = vec![0; rows * eight.row_bytes()];
    let mut fours = vec![0; rows * four.row_bytes()];
    let mut row = vec![0; layout.row_bytes()];
    for (i, passage) in set.passages.chunks(DIM).enumerate() {
        sketch::encode(layout, &mean, passage, &mut row);
        let block = &mut blocks[i / sketch::BLOCK_ROWS * layout.block_bytes()..];
        sketch::place(layout, &row, &mut block[..layout.block_bytes()], i % sketch::BLOCK_ROWS);
        let packed = &mut eights[i * eight.row_bytes()..][..eight.row_bytes()];
        quant::encode(eight, passage, packed);
        quant::narrow(eight, packed, &mut fours[i * four.row_bytes()..][..four.row_bytes()]);
    }

    let mut sums = Recalls::default();
    let mut scores = vec![0.0; rows];
    let mut count = 0.0;
    let asked = set.queries.chunks(DIM).zip(set.truth.chunks(set.truth_width)).step_by(every);
    for (query, truth) in asked {
        let found = |rows: &[usize]| {
            let hits = rows.iter().filter(|row| truth[..K].contains(&(**row as i32))).count();
            hits as f64 / K as f64
        };
        count += 1.0;
        SketchQuery::new(layout, &mean, query).score_blocks(&blocks, &[], &mut scores);
        let chosen = best(candidates, scores.iter().copied().enumerate());

        let codes = CodeQuery::new(eight, METRIC, query);
        let packed = |row: usize| &eights[row * eight.row_bytes()..][..eight.row_bytes()];
        let ranked = best(settled, chosen.iter().map(|row| (*row, codes.score(packed(*row)))));

        let exact = PreparedQuery::new(query);
        let exactly = |row: usize| {
            let passage = &set.passages[row * DIM..][..DIM];
            kernel::score(METRIC, &exact, passage, kernel::norm(passage))
        };
        sums.staged += found(&best(K, ranked.iter().map(|row| (*row, exactly(*row)))));

        codes.score_rows(&eights, &mut scores);
        sums.eight += found(&best(K, scores.iter().copied().enumerate()));
        CodeQuery::new(four, METRIC, query).score_rows(&fours, &mut scores);
        sums.four += found(&best(K, scores.iter().copied().enumerate()));
    }
    Recalls { staged: sums.staged / count, eight: sums.eight / count, four: sums.four / count }
}

#[track_caller]
fn hold(name: &str, recalls: &Recalls, staged: f64, eight: f64, four: f64) {
    println!("recall@10 on {name}: {recalls:.4?}");
    assert!(recalls.staged >= staged && recalls.eight >= eight && recalls.four >= four);
}

#[test]
fn the_stages_find_the_nearest_of_the_excerpt() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    if !folder.exists() {
        return println!("no {}: the packaged crate has no test data", folder.display());
    }
    let set = Set {
        passages: halves(&folder.join("passages.f16.npy")),
        queries: halves(&folder.join("queries.f16.npy")),
        truth: integers(&folder.join("truth.i32.npy")),
        truth_width: 10,
    };
    hold("2,800 passages", &recalls(&set, 1, 100, 32), 0.99, 0.985, 0.91);
}

#[test]
fn the_stages_find_the_nearest_of_the_full_set() {
    let folder = std::env::var_os("PMLL_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
        PathBuf::from,
    );
    if !folder.join("wikitext_passages.f16.npy").exists() {
        return println!("skipped: no wikitext_passages.f16.npy in {}", folder.display());
    }
    let set = Set {
        passages: halves(&folder.join("wikitext_passages.f16.npy")),
        queries: halves(&folder.join("wikitext_queries.f16.npy")),
        truth: integers(&folder.join("wikitext_gt.i32.npy")),
        truth_width: 100,
    };
    hold("64,287 passages", &recalls(&set, 5, 200, 32), 0.99, 0.985, 0.90);
}
