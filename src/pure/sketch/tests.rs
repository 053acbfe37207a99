//! Tests of the sketches: layout, estimator, and every kernel against the specification.

use super::scorer::SketchQuery;
use super::*;
use crate::pure::Simd;
use proptest::prelude::*;

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::L2];

/// Deterministic values in -1 to 1, every 97th larger.
fn values(dim: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    (0..dim)
        .map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = (state >> 8) as f32 / 8_388_608.0 - 1.0;
            if i % 97 == 5 { 5.0 * value } else { value }
        })
        .collect()
}

fn blocks_of(layout: SketchLayout, mean: &[f32], vectors: &[Vec<f32>]) -> Vec<u8> {
    // Places without a row hold rubbish on purpose.
    let mut blocks = vec![0xA7; layout.blocks_bytes(vectors.len())];
    let mut row = vec![0xA7; layout.row_bytes()];
    for (i, vector) in vectors.iter().enumerate() {
        encode(layout, mean, vector, &mut row);
        let block = &mut blocks[i / BLOCK_ROWS * layout.block_bytes()..][..layout.block_bytes()];
        place(layout, &row, block, i % BLOCK_ROWS);
    }
    blocks
}

fn scores_of(query: &SketchQuery, blocks: &[u8], rows: usize) -> Vec<f32> {
    let mut scores = vec![f32::NAN; rows];
    query.score_blocks(blocks, &[], &mut scores);
    scores
}

/// The estimate as the story has it, in f64, from the bytes of a row.
fn by_the_book(layout: SketchLayout, mean: &[f32], query: &[f32], row: &[u8]) -> f64 {
    let length = query.norm_wide();
    let factor_byte = row[layout.sign_bytes()];
    if length == 0.0 || factor_byte == 0 {
        return 0.0;
    }
    let mut cosine = 0.0;
    for i in 0..layout.dim() {
        let q = f64::from(query[i]) / length;
        let sign = if row[i / 8] >> (i % 8) & 1 == 1 { 1.0 } else { -1.0 };
        let f = f64::from(factor(factor_byte)) / (layout.dim() as f64).sqrt();
        cosine += q * (f64::from(mean[i]) + f * sign);
    }
    cosine
}

#[test]
fn every_instruction_set_gives_the_scores_of_the_specification() {
    println!("instruction sets: {:?}", Simd::all());
    for dim in (1..=130).chain([384, 768, 1024]) {
        for metric in METRICS {
            let layout = SketchLayout::new(dim, metric).unwrap();
            let mean: Vec<f32> = values(dim, 99).iter().map(|m| m * 0.02).collect();
            // Six blocks, and a half one after them, where some of them are asked for ahead; else two.
            // Some of the rows are zeros.
            let rows: usize = if dim % 16 == 0 { 416 } else { 160 };
            let vector = |i| if i % 13 == 5 { vec![0.0; dim] } else { values(dim, i) };
            let vectors: Vec<Vec<f32>> = (0..).map(vector).take(rows).collect();
            let blocks = blocks_of(layout, &mean, &vectors);
            let query = values(dim, 1234);
            let all: Vec<Vec<u32>> = Simd::all()
                .into_iter()
                .map(|simd| {
                    let query = SketchQuery::with_simd(layout, &mean, &query, simd);
                    let scores = scores_of(&query, &blocks, vectors.len());
                    for first in [0, 1, 2, rows / BLOCK_ROWS] {
                        // Some blocks, then those that were said to be next.
                        let (mut parts, at) = (vec![0.0; rows], first * BLOCK_ROWS);
                        let (now, next) = blocks.split_at(layout.blocks_bytes(at));
                        query.score_blocks(now, next, &mut parts[..at]);
                        query.score_blocks(next, &[], &mut parts[at..]);
                        assert_eq!(parts, scores, "dim {dim} {metric:?} {first}");
                    }
                    scores.iter().map(|s| s.to_bits()).collect()
                })
                .collect();
            assert!(all.iter().all(|scores| *scores == all[0]), "dim {dim} {metric:?}");
        }
    }
}

#[test]
fn another_mean_is_as_good_as_a_query_prepared_for_it() {
    for metric in METRICS {
        let layout = SketchLayout::new(130, metric).unwrap();
        let [first, second]: [Vec<f32>; 2] =
            [99, 77].map(|seed| values(130, seed).iter().map(|m| m * 0.02).collect());
        let vectors: Vec<Vec<f32>> = (0..70).map(|i| values(130, i)).collect();
        let blocks = blocks_of(layout, &second, &vectors);
        for query in [values(130, 1234), vec![0.0; 130]] {
            let mut set = SketchQuery::new(layout, &first, &query);
            set.set_mean(&second, &query);
            let prepared = SketchQuery::new(layout, &second, &query);
            assert_eq!(scores_of(&set, &blocks, 70), scores_of(&prepared, &blocks, 70));
            let mut without = SketchQuery::without_mean(layout, &query);
            let zeros = SketchQuery::new(layout, &[0.0; 130], &query);
            assert_eq!(scores_of(&without, &blocks, 70), scores_of(&zeros, &blocks, 70));
            without.set_mean(&second, &query);
            assert_eq!(scores_of(&without, &blocks, 70), scores_of(&prepared, &blocks, 70));
        }
    }
}

#[test]
fn long_vectors_do_not_overflow() {
    // More than 256 windows of 48, and a query whose sums are as large as they come.
    for dim in [12_288, 12_289, 40_000, DIM_MAX] {
        let layout = SketchLayout::new(dim, Metric::Cosine).unwrap();
        let mean = vec![0.0; dim];
        let vectors = [vec![1.0; dim], vec![-1.0; dim], values(dim, 5)];
        let blocks = blocks_of(layout, &mean, &vectors);
        for simd in Simd::all() {
            let query = SketchQuery::with_simd(layout, &mean, &vectors[0], simd);
            let scores = scores_of(&query, &blocks, 3);
            let rounding = 0.13;
            assert!((scores[0] - 1.0).abs() < rounding && (scores[1] + 1.0).abs() < rounding);
            let query = SketchQuery::with_simd(layout, &mean, &vectors[2], simd);
            let first = SketchQuery::with_simd(layout, &mean, &vectors[2], Simd::all()[0]);
            assert_eq!(scores_of(&query, &blocks, 3), scores_of(&first, &blocks, 3), "{simd:?}");
        }
    }
}

#[test]
fn scores_are_near_the_estimate_in_f64() {
    for dim in (1..=130).chain([384, 768, 1024]) {
        let mean: Vec<f32> = values(dim, 99).iter().map(|m| m * 0.02).collect();
        let vectors: Vec<Vec<f32>> = (0..70).map(|i| values(dim, i)).collect();
        let query = values(dim, 1234);
        let length = query.norm_wide();
        let largest = query
            .chunks(48)
            .map(|w| w.iter().map(|q| f64::from(q.abs())).sum::<f64>())
            .fold(0.0, f64::max);
        for metric in METRICS {
            let layout = SketchLayout::new(dim, metric).unwrap();
            let blocks = blocks_of(layout, &mean, &vectors);
            let prepared = SketchQuery::new(layout, &mean, &query);
            let scores = scores_of(&prepared, &blocks, vectors.len());
            let mut row = vec![0; layout.row_bytes()];
            for (vector, score) in vectors.iter().zip(scores) {
                encode(layout, &mean, vector, &mut row);
                let cosine = by_the_book(layout, &mean, &query, &row);
                let size = vector.norm_wide();
                // Half a unit of rounding a value, all on one side at worst.
                let f = f64::from(factor(row[layout.sign_bytes()])) / (dim as f64).sqrt();
                let slack = f * dim as f64 * largest / length / 231.0 / 2.0 + 1e-5;
                let (expected, slack) = match metric {
                    Metric::Cosine => (cosine, slack),
                    Metric::Dot => (cosine * length * size, slack * length * size),
                    Metric::L2 => (
                        2.0 * cosine * length * size - length * length - size * size,
                        2.0 * slack * length * size,
                    ),
                };
                let error = (f64::from(score) - expected).abs();
                assert!(error <= slack + 1e-4 * (1.0 + expected.abs()), "{dim} {metric:?} {error}");
            }
        }
    }
}

#[test]
fn the_estimate_is_right_for_the_vector_itself_and_near_for_others() {
    let dim = 384;
    let layout = SketchLayout::new(dim, Metric::Cosine).unwrap();
    let mean = vec![0.0; dim];
    // No large values at fixed places: the signs of those would be worth more than the others.
    let even = |seed| values(dim, seed).iter().map(|v| v.clamp(-1.0, 1.0)).collect();
    let vectors: Vec<Vec<f32>> = (0..200).map(|i| even(2 * i + 1)).collect();
    let blocks = blocks_of(layout, &mean, &vectors);
    let cosine = |a: &[f32], b: &[f32]| {
        let dot: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        dot / a.norm_wide() / b.norm_wide()
    };
    let (mut square, mut sum) = (0.0, 0.0);
    for (i, vector) in vectors.iter().enumerate() {
        let scores = scores_of(&SketchQuery::new(layout, &mean, vector), &blocks, 200);
        // 1/64 of rounding in the factor, and the rounding of the query.
        assert!((scores[i] - 1.0).abs() < 0.03, "{i}: {}", scores[i]);
        for (j, other) in vectors.iter().enumerate().filter(|(j, _)| *j != i) {
            let error = f64::from(scores[j]) - cosine(vector, other);
            square += error * error;
            sum += error;
        }
    }
    let pairs = 200.0 * 199.0;
    let (deviation, bias) = (f64::sqrt(square / pairs), sum / pairs);
    assert!(deviation < 0.04 && bias.abs() < 0.002, "off by {deviation}, bias {bias}");
}

#[test]
fn zero_vectors_and_queries_have_their_place() {
    let dim = 20;
    for metric in METRICS {
        let layout = SketchLayout::new(dim, metric).unwrap();
        let mean = vec![0.3; dim];
        let one = values(dim, 3);
        let blocks = blocks_of(layout, &mean, &[vec![0.0; dim], one.clone()]);
        let scores = scores_of(&SketchQuery::new(layout, &mean, &one), &blocks, 2);
        let square = one.norm_wide() * one.norm_wide();
        let expected = if metric == Metric::L2 { -square as f32 } else { 0.0 };
        assert_eq!(scores[0], expected);
        let scores = scores_of(&SketchQuery::new(layout, &mean, &vec![0.0; dim]), &blocks, 2);
        assert_eq!(scores[0], 0.0);
        let expected = if metric == Metric::L2 { -square as f32 } else { 0.0 };
        assert!((scores[1] - expected).abs() <= 1e-5 * expected.abs());
    }
}

#[test]
fn known_bytes() {
    let layout = SketchLayout::new(9, Metric::Dot).unwrap();
    assert_eq!((layout.row_bytes(), layout.block_bytes()), (7, 448));
    let mut row = [0xFF; 7];
    encode(layout, &[0.0; 9], &[1.0, -1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, 1.0], &mut row);
    // |r|^2 / sum |r_i| = 1/3, times sqrt(9) = 1 = 2^(4 - 4), so exponent bits 4 and fraction 0.
    assert_eq!(row, [0b1000_1101, 1, 4 << 5, 0, 0, 0x40, 0x40]);
    assert_eq!(factor(4 << 5), 1.0);
    assert_eq!([factor_code(0.0), factor_code(1e-9), factor_code(1e9)], [1, 1, 255]);
    assert_eq!(SketchLayout::new(384, Metric::Cosine).unwrap().row_bytes(), 49);
    assert_eq!(SketchLayout::new(0, Metric::Cosine), None);
    assert_eq!(SketchLayout::new(DIM_MAX + 1, Metric::Cosine), None);
}

proptest! {
    #[test]
    fn rows_come_back_out_of_blocks(
        dim in 1..60_usize, with_norms in any::<bool>(), slot in 0..64_usize, seed in any::<u32>(),
    ) {
        let metric = if with_norms { Metric::L2 } else { Metric::Cosine };
        let layout = SketchLayout::new(dim, metric).unwrap();
        let mut block = vec![0x5A; layout.block_bytes()];
        let mut row = vec![0; layout.row_bytes()];
        let mut others = vec![0; layout.row_bytes()];
        encode(layout, &vec![0.1; dim], &values(dim, seed), &mut row);
        place(layout, &row, &mut block, slot);
        let mut back = vec![0; layout.row_bytes()];
        take(layout, &block, slot, &mut back);
        prop_assert_eq!(&back, &row);
        for other in (0..64).filter(|other| *other != slot) {
            take(layout, &block, other, &mut others);
            prop_assert!(others.iter().all(|byte| *byte == 0x5A));
        }
    }

    #[test]
    fn any_bytes_and_any_query_give_finite_scores(
        blocks in prop::collection::vec(any::<u8>(), 64 * (9 + 1 + 4)),
        query in prop::collection::vec(any::<u32>().prop_map(f32::from_bits), 70),
    ) {
        let query: Vec<f32> = query.iter().map(|q| if q.is_finite() { *q } else { f32::MAX }).collect();
        for metric in [Metric::Dot, Metric::L2] {
            let layout = SketchLayout::new(70, metric).unwrap();
            for simd in Simd::all() {
                let prepared = SketchQuery::with_simd(layout, &[0.05; 70], &query, simd);
                for score in scores_of(&prepared, &blocks, 64) {
                    prop_assert!(score.is_finite() && score.to_bits() != (-0.0_f32).to_bits());
                }
            }
        }
        let layout = SketchLayout::new(70, Metric::Cosine).unwrap();
        let mut row = vec![0; layout.row_bytes()];
        encode(layout, &[0.05; 70], &[f32::NAN; 70], &mut row);
        encode(layout, &[0.05; 70], &[f32::INFINITY; 70], &mut row);
    }
}
