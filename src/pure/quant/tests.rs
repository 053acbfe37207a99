//! Tests of the quantiser against definitions written as slowly as possible.

use super::pack::{constants, norm};
use super::*;
use crate::pure::Simd;
use crate::words::options::Metric;
use proptest::prelude::*;

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::L2];

fn packed(layout: RowLayout, vector: &[f32]) -> Vec<u8> {
    let mut row = vec![0xA5; layout.row_bytes()];
    encode(layout, vector, &mut row);
    row
}

fn unpacked(layout: RowLayout, row: &[u8]) -> Vec<f32> {
    let mut vector = vec![f32::NAN; layout.dim()];
    decode(layout, row, &mut vector);
    vector
}

fn codes_of(layout: RowLayout, row: &[u8]) -> Vec<u8> {
    let codes = &row[layout.codes_at()..];
    let both = |byte: &u8| [byte & 15, byte >> 4];
    let mut codes: Vec<u8> = match layout.bits() {
        Bits::Eight => codes.to_vec(),
        Bits::Four => codes.iter().flat_map(both).collect(),
    };
    codes.truncate(layout.dim());
    codes
}

/// floor((v - min) / step + 0.5), clamped, without a division: how many midpoints lie at or below.
fn code_by_the_book(bits: Bits, min: f32, step: f32, value: f32) -> u8 {
    let above = f64::from(value) - f64::from(min);
    let midpoint = |code: u8| (f64::from(code) + 0.5) * f64::from(step);
    if step == 0.0 {
        return 0;
    }
    (0..bits.code_max()).filter(|code| above >= midpoint(*code)).count() as u8
}

fn any_finite() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |v| v.is_finite())
}

fn vectors() -> impl Strategy<Value = Vec<f32>> {
    let wild = prop_oneof![
        4 => -2.0_f32..2.0,
        1 => any_finite(),
        1 => prop::sample::select(vec![0.0, -0.0, f32::MAX, f32::MIN, 1e-45, -1e-45, 1e-20]),
    ];
    // Many values on or beside midpoints, where rounding decides.
    let grid = (-300..300_i32).prop_map(|n| n as f32 / 64.0);
    // Close together, so that steps are tiny beside the values.
    let near = (0..40_u32).prop_map(|ulps| f32::from_bits(1.5_f32.to_bits() + ulps));
    let tiny = (0..2000_u32).prop_map(f32::from_bits);
    prop_oneof![
        4 => prop::collection::vec(-1.0_f32..1.0, 1..200),
        2 => prop::collection::vec(wild, 1..200),
        2 => prop::collection::vec(grid, 1..200),
        1 => prop::collection::vec(near, 1..80),
        1 => prop::collection::vec(tiny, 1..80),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn codes_are_those_of_the_formula(vector in vectors(), group in prop::sample::select(vec![0, 64, 128])) {
        for bits in [Bits::Eight, Bits::Four] {
            let layout = RowLayout::new(vector.len(), group, bits).unwrap();
            let row = packed(layout, &vector);
            for (i, (value, code)) in vector.iter().zip(codes_of(layout, &row)).enumerate() {
                let (min, step) = constants(&row, i / layout.group());
                prop_assert_eq!(code, code_by_the_book(bits, min, step, *value), "value {}", i);
            }
        }
    }

    #[test]
    fn a_decoded_value_is_within_half_a_step(vector in vectors(), group in prop::sample::select(vec![0, 64])) {
        for bits in [Bits::Eight, Bits::Four] {
            let layout = RowLayout::new(vector.len(), group, bits).unwrap();
            let row = packed(layout, &vector);
            let decoded = unpacked(layout, &row);
            for (i, (value, back)) in vector.iter().zip(&decoded).enumerate() {
                let (min, step) = constants(&row, i / layout.group());
                let error = (f64::from(*value) - f64::from(*back)).abs();
                // Half a step, the rounding of the decoded value to f32, the rounding of v - min
                // to f64.
                let size = f64::from(value.abs().max(back.abs()).max(min.abs()));
                let bound = f64::from(step) / 2.0 + size * f64::from(f32::EPSILON) / 2.0 + 1e-45;
                prop_assert!(error <= bound * (1.0 + 1e-9), "{value} became {back}, step {step}");
                prop_assert!(back.is_finite());
            }
            let square: f64 = decoded.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
            let expected = square.sqrt().min(f64::from(f32::MAX));
            let kept = f64::from(norm(&row));
            prop_assert!((kept - expected).abs() <= 3e-7 * expected + 1e-44, "{kept} {expected}");
        }
    }

    #[test]
    fn narrowing_equals_quantising_the_original(vector in vectors(), group in prop::sample::select(vec![0, 64])) {
        let eight = RowLayout::new(vector.len(), group, Bits::Eight).unwrap();
        let four = eight.with_bits(Bits::Four);
        let mut narrowed = vec![0xA5; four.row_bytes()];
        narrow(eight, &packed(eight, &vector), &mut narrowed);
        prop_assert_eq!(narrowed, packed(four, &vector));
    }

    #[test]
    fn damaged_rows_and_values_never_panic_and_never_score_nan(
        bytes in prop::collection::vec(any::<u8>(), 4 + 8 + 70),
        query in prop::collection::vec(any_finite(), 70),
        odd in prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
        mut headers in prop::collection::vec(any::<u32>().prop_map(f32::from_bits), 3),
    ) {
        let layout = RowLayout::new(70, 0, Bits::Eight).unwrap();
        let mut row = bytes;
        headers[0] = if headers[0] > 1.0 { f32::NAN } else { headers[0] };
        for (i, value) in headers.iter().enumerate() {
            row[4 * i..4 * i + 4].copy_from_slice(&value.to_le_bytes());
        }
        for metric in METRICS {
            let score = CodeQuery::new(layout, metric, &query).score(&row);
            prop_assert!(score.is_finite() && score.to_bits() != (-0.0_f32).to_bits());
        }
        let four = layout.with_bits(Bits::Four);
        let mut narrowed = vec![0; four.row_bytes()];
        narrow(layout, &row, &mut narrowed);
        let mut values = query;
        values[3] = odd;
        for layout in [layout, four] {
            let row = packed(layout, &values);
            unpacked(layout, &row);
            prop_assert!(CodeQuery::new(layout, Metric::Dot, &values[..]).score(&row).is_finite());
        }
    }
}

#[test]
fn known_codes_and_bytes() {
    let layout = RowLayout::new(3, 0, Bits::Four).unwrap();
    let row = packed(layout, &[-1.0, 16.0, 254.0]);
    assert_eq!(norm(&row), (1.0 + 256.0 + 64_516.0_f32).sqrt());
    assert_eq!(constants(&row, 0), (-1.0, 17.0));
    assert_eq!(row[12..], [0x10, 0x0F]);
    assert_eq!(unpacked(layout, &row), [-1.0, 16.0, 254.0]);

    let eight = layout.with_bits(Bits::Eight);
    let row = packed(eight, &[0.0, 0.5, 255.0]);
    assert_eq!(constants(&row, 0), (0.0, 1.0));
    assert_eq!(row[12..], [0, 1, 255]);
}

/// A product with a reciprocal falls short of many midpoints by its last bit; the codes must not.
#[test]
fn a_value_on_a_midpoint_goes_up() {
    let layout = RowLayout::new(257, 0, Bits::Eight).unwrap();
    for step in (1..401).chain(16_385..16_485).step_by(2) {
        // 15 bits of step and 9 of midpoint: all of this is exact in f32.
        let step = step as f32;
        let midpoints = (0..255).map(|code| (code as f32 + 0.5) * step);
        let vector: Vec<f32> = [0.0, 255.0 * step].into_iter().chain(midpoints).collect();
        let row = packed(layout, &vector);
        assert_eq!(constants(&row, 0), (0.0, step));
        let expected: Vec<u8> = [0, 255].into_iter().chain(1..=255).collect();
        assert_eq!(codes_of(layout, &row), expected, "step {step}");
    }
}

#[test]
fn a_step_of_zero_decodes_to_the_minimum_exactly() {
    for value in [0.1, -3.7, f32::MAX, 1e-45] {
        for bits in [Bits::Eight, Bits::Four] {
            let layout = RowLayout::new(5, 0, bits).unwrap();
            let row = packed(layout, &[value; 5]);
            assert_eq!(constants(&row, 0), (value, 0.0));
            assert_eq!(unpacked(layout, &row), [value; 5]);
        }
    }
}

#[test]
fn the_widest_range_is_no_special_case() {
    let layout = RowLayout::new(3, 0, Bits::Eight).unwrap();
    let row = packed(layout, &[f32::MIN, f32::MAX, 0.0]);
    let (min, step) = constants(&row, 0);
    assert_eq!(min, f32::MIN);
    let back = unpacked(layout, &row);
    assert_eq!(back[..2], [f32::MIN, f32::MAX]);
    assert!(back[2].abs() <= step * 0.5001);
    assert_eq!(norm(&row), f32::MAX);
}

#[test]
fn lengths_follow_from_the_layout() {
    let row_bytes = |dim, group, bits| RowLayout::new(dim, group, bits).map(RowLayout::row_bytes);
    assert_eq!(row_bytes(384, 0, Bits::Eight), Some(4 + 8 + 384));
    assert_eq!(row_bytes(384, 384, Bits::Four), Some(4 + 8 + 192));
    assert_eq!(row_bytes(384, 64, Bits::Eight), Some(4 + 6 * 8 + 384));
    assert_eq!(row_bytes(130, 64, Bits::Four), Some(4 + 3 * 8 + 65));
    assert_eq!(row_bytes(5, 64, Bits::Four), Some(4 + 8 + 3));
    assert_eq!(row_bytes(0, 0, Bits::Eight), None);
    assert_eq!(row_bytes(DIM_MAX, 0, Bits::Eight), Some(12 + DIM_MAX));
    assert_eq!(row_bytes(DIM_MAX + 1, 0, Bits::Eight), None);
    assert_eq!(row_bytes(384, 48, Bits::Eight), None);
}

/// Deterministic values in -1 to 1, a few of them far larger, as real embeddings have.
fn values(dim: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    (0..dim)
        .map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = (state >> 8) as f32 / 8_388_608.0 - 1.0;
            if i % 97 == 5 { 9.0 * value } else { value }
        })
        .collect()
}

fn layouts() -> impl Iterator<Item = RowLayout> {
    let dims = (1..=130).chain([384, 768, 1024, 2051]);
    let kinds = [(0, Bits::Eight), (0, Bits::Four), (64, Bits::Eight), (64, Bits::Four)];
    dims.flat_map(move |dim| kinds.map(|(group, bits)| RowLayout::new(dim, group, bits).unwrap()))
}

#[test]
fn every_instruction_set_gives_the_scores_of_the_specification() {
    println!("instruction sets: {:?}", Simd::all());
    for layout in layouts() {
        let rows: Vec<u8> =
            (0..7).flat_map(|seed| packed(layout, &values(layout.dim(), seed + 7))).collect();
        let query = values(layout.dim(), 1);
        for metric in METRICS {
            let scores = Simd::all().into_iter().map(|simd| {
                let mut scores = [f32::NAN; 7];
                let query = CodeQuery::with_simd(layout, metric, &query, simd);
                query.score_rows(&rows, &mut scores);
                let row = |n: usize| &rows[n * layout.row_bytes()..][..layout.row_bytes()];
                let four = query.score_four([5, 2, 6, 0].map(row)).map(f32::to_bits);
                assert_eq!(four, [5, 2, 6, 0].map(|n: usize| scores[n].to_bits()));
                (0..7).for_each(|n| assert_eq!(query.score(row(n)), scores[n]));
                scores.map(f32::to_bits)
            });
            let scores: Vec<_> = scores.collect();
            assert!(scores.iter().all(|s| *s == scores[0]), "{layout:?} {metric:?} {scores:x?}");
        }
    }
}

#[test]
fn the_largest_sums_do_not_overflow() {
    for (dim, bits) in [(DIM_MAX, Bits::Eight), (DIM_MAX, Bits::Four), (4097, Bits::Eight)] {
        let layout = RowLayout::new(dim, 0, bits).unwrap();
        for sign in [1.0, -1.0] {
            let mut vector = vec![1.0; dim];
            vector[0] = 0.0;
            let row = packed(layout, &vector);
            for simd in Simd::all() {
                let query = CodeQuery::with_simd(layout, Metric::Dot, &vec![sign; dim], simd);
                let score = query.score(&row);
                let expected = sign * (dim - 1) as f32;
                assert!((score - expected).abs() <= 1e-5 * expected.abs(), "{score} {simd:?}");
            }
        }
    }
}

#[test]
fn scores_are_those_of_the_decoded_row() {
    for layout in layouts() {
        let vector = values(layout.dim(), 3);
        let row = packed(layout, &vector);
        let decoded = unpacked(layout, &row);
        let query = values(layout.dim(), 4);
        let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
            query.iter().zip(&decoded).map(|(q, d)| f(f64::from(*q), f64::from(*d))).sum()
        };
        let norms = (sum(&|q, _| q * q) * sum(&|_, d| d * d)).sqrt();
        for metric in METRICS {
            let expected = match metric {
                Metric::Dot => sum(&|q, d| q * d),
                Metric::Cosine if norms == 0.0 => 0.0,
                Metric::Cosine => sum(&|q, d| q * d) / norms,
                Metric::L2 => -sum(&|q, d| (q - d) * (q - d)),
            };
            let got = f64::from(CodeQuery::new(layout, metric, &query).score(&row));
            // The query is rounded to 1/32,512 of its largest value; f32 at the end.
            let largest = query.iter().fold(0.0_f32, |a, q| a.max(q.abs()));
            let rounding = f64::from(largest) / 65_024.0
                * decoded.iter().map(|d| f64::from(d.abs())).sum::<f64>();
            let slack = match metric {
                Metric::Dot => rounding,
                Metric::Cosine => rounding / norms.max(1e-30),
                Metric::L2 => 2.0 * rounding,
            };
            let float = 1e-6 * (1.0 + expected.abs() + norms);
            assert!(
                (got - expected).abs() <= slack + float,
                "{layout:?} {metric:?} {got} {expected}"
            );
        }
    }
}

#[test]
fn a_zero_norm_scores_zero_under_cosine() {
    let layout = RowLayout::new(4, 0, Bits::Eight).unwrap();
    let (zero, one) = (packed(layout, &[0.0; 4]), packed(layout, &[0.0, 1.0, 0.0, 0.0]));
    assert_eq!(CodeQuery::new(layout, Metric::Cosine, &[1.0; 4]).score(&zero), 0.0);
    assert_eq!(CodeQuery::new(layout, Metric::Cosine, &[0.0; 4]).score(&one), 0.0);
    assert_eq!(CodeQuery::new(layout, Metric::L2, &[0.0; 4]).score(&zero), 0.0);
}
