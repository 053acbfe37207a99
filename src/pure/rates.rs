//! How fast the kernels go through rows: a measurement, run by hand.
//!
//! `cargo test --release --lib pure::rates -- --ignored --nocapture`
//!
//! For each encoding and instruction set nanoseconds a row of 384 values and bytes a second, with the rows
//! of one chunk over and over (in the second-level cache) and with 64,287 rows, which are not; and beside
//! them the rate at which this core reads memory, measured in the same run. Medians of many passes. What
//! it takes to make codes of f32 is told in megabytes of f32 a second.

use std::hint::black_box;
use std::time::Instant;

use crate::pure::Simd;
use crate::pure::quant::{Bits, CodeQuery, RowLayout, encode};
use crate::pure::sketch::{SketchLayout, SketchQuery};
use crate::words::options::Metric;

const DIM: usize = 384;
const FEW: usize = 1024;
const MANY: usize = 64_287;
const PASSES: usize = 41;

/// Median nanoseconds of a pass.
fn median(mut pass: impl FnMut()) -> f64 {
    let mut times: Vec<u128> = (0..PASSES)
        .map(|_| {
            let begun = Instant::now();
            pass();
            begun.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    times[PASSES / 2] as f64
}

fn tell(what: &str, simd: &str, row_bytes: usize, mut score: impl FnMut(usize)) {
    let [few, many] = [FEW, MANY].map(|rows| median(|| score(rows)) / rows as f64);
    let rate = row_bytes as f64 / many;
    println!("{what:<8} {simd:<8} {few:>9.2} ns/row, {many:>7.2} of many ({rate:.1} GB/s)");
}

#[test]
#[ignore = "a measurement: cargo test --release --lib pure::rates -- --ignored --nocapture"]
fn nanoseconds_per_row() {
    let words = vec![1_u64; 32 << 20];
    let read = || {
        let mut sums = [0_u64; 16];
        for sixteen in words.as_chunks::<16>().0 {
            sums.iter_mut().zip(sixteen).for_each(|(sum, word)| *sum ^= word);
        }
        black_box(sums);
    };
    println!("memory reads {:.1} GB/s", (words.len() * 8) as f64 / median(read));

    let value = |n: usize| ((n * 2_654_435_761) % 1009) as f32 / 1009.0 - 0.5;
    let query: Vec<f32> = (0..DIM).map(value).collect();
    let mut scores = vec![0.0; MANY];
    for bits in [Bits::Eight, Bits::Four] {
        let layout = RowLayout::new(DIM, 0, bits).unwrap();
        let mut rows = vec![0; MANY * layout.row_bytes()];
        let values: Vec<f32> = (0..MANY + DIM).map(value).collect();
        let took = median(|| {
            for (row, values) in rows.chunks_exact_mut(layout.row_bytes()).zip(values.windows(DIM))
            {
                encode(layout, values, row);
            }
        });
        println!("{bits:?} of f32: {:.0} MB/s", (MANY * DIM * 4) as f64 * 1e3 / took);
        for simd in Simd::all() {
            let query = CodeQuery::with_simd(layout, Metric::Cosine, &query, simd);
            tell(&format!("{bits:?}"), &format!("{:?}", simd.level()), layout.row_bytes(), |n| {
                query.score_rows(&rows[..n * layout.row_bytes()], &mut scores[..n]);
                black_box(&scores);
            });
        }
    }
    let layout = SketchLayout::new(DIM, Metric::Cosine).unwrap();
    let mean = vec![0.0; DIM];
    let blocks: Vec<u8> =
        (0..layout.blocks_bytes(MANY)).map(|n| (value(n) * 255.0) as u8).collect();
    for simd in Simd::all() {
        let query = SketchQuery::with_simd(layout, &mean, &query, simd);
        tell("sketch", &format!("{:?}", simd.level()), layout.row_bytes(), |n| {
            query.score_blocks(&blocks[..layout.blocks_bytes(n)], &mut scores[..n]);
            black_box(&scores);
        });
    }
}
