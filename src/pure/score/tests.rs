//! Examples by hand, the library's functions as the measure, and columns against single rows.

use super::*;

const DAY: i64 = 86_400_000_000;

fn frame() -> Frame {
    Frame { weights: Weights::default(), newest_us: 100 * DAY, half_life_us: 7 * DAY }
}

fn near(a: f32, b: f64) {
    assert!((f64::from(a) - b).abs() < 1e-6, "{a} is not {b}");
}

/// The formulas as they are written, by the library's functions.
fn by_library(frame: &Frame, inputs: Inputs) -> f64 {
    let age = frame.newest_us.saturating_sub(inputs.active_us).max(0) as f64;
    let recency = (-age / frame.half_life_us as f64).exp2();
    let frequency = (f64::from(inputs.heat).ln_1p() / 256_f64.ln()).min(1.0);
    let Weights { recency: a1, frequency: a2, semantic: a3 } = frame.weights;
    f64::from(a1) * recency
        + f64::from(a2) * frequency
        + f64::from(a3) * f64::from(inputs.semantic.clamp(0.0, 1.0))
}

/// Rows of all kinds.
fn rows(count: usize) -> Vec<Inputs> {
    let mut state = 11_u64;
    let mut next = |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let row = |_| Inputs {
        active_us: (next(110 * 86_400) * 1_000_000) as i64 + next(1_000_000) as i64,
        heat: next(300_000) as f32 / 1000.0,
        semantic: next(1_000_001) as f32 / 1e6,
    };
    (0..count).map(row).collect()
}

fn columns(rows: &[Inputs]) -> (Vec<i64>, Vec<f32>, Vec<f32>) {
    let active = rows.iter().map(|row| row.active_us).collect();
    let heat = rows.iter().map(|row| row.heat).collect();
    (active, heat, rows.iter().map(|row| row.semantic).collect())
}

#[test]
fn examples_by_hand() {
    let inputs = Inputs { active_us: 93 * DAY, heat: 15.0, semantic: 0.25 };
    let score = terms(&frame(), inputs);
    near(score.recency, 0.5);
    near(score.frequency, 0.5); // ln 16 / ln 256
    near(score.semantic, 0.25);
    near(score.total, 0.4 * 0.5 + 0.3 * 0.5 + 0.3 * 0.25);
    let full = Inputs { active_us: 100 * DAY, heat: 255.0, semantic: 1.0 };
    let score = terms(&frame(), full);
    assert_eq!((score.recency, score.frequency, score.semantic), (1.0, 1.0, 1.0));
    near(score.total, 1.0);
    // Thirty days after the last access 30 count as 15; before it they count in full.
    near(decayed(30.0, 70 * DAY, 100 * DAY), 15.0);
    assert_eq!(decayed(30.0, 101 * DAY, 100 * DAY), 30.0);
    assert_eq!(decayed(0.0, i64::MIN, i64::MAX), 0.0);
}

#[test]
fn what_is_out_of_range_is_clamped() {
    let wild = Inputs { active_us: i64::MAX, heat: f32::NAN, semantic: f32::NAN };
    let score = terms(&frame(), wild);
    assert_eq!((score.recency, score.frequency, score.semantic), (1.0, 0.0, 0.0));
    let wild = Inputs { active_us: i64::MIN, heat: f32::INFINITY, semantic: 9.0 };
    let score = terms(&frame(), wild);
    assert!(score.recency < 1e-30);
    assert_eq!((score.frequency, score.semantic), (1.0, 1.0));
    let wild = Inputs { active_us: 0, heat: -1.0, semantic: -1.0 };
    let tiny = Frame { half_life_us: 0, newest_us: i64::MAX, ..frame() };
    let score = terms(&tiny, wild);
    assert!(score.total < 1e-30);
    assert_eq!((score.frequency, score.semantic), (0.0, 0.0));
}

#[test]
fn the_polynomials_keep_to_the_functions() {
    for n in 0..=2_000_000 {
        let x = -f64::from(n) * 1e-5 * (1.0 + f64::from(n % 50));
        let wrong = (exp2(x.max(-1000.0)) - x.exp2()).abs();
        assert!(wrong <= 1e-8 * x.exp2() || x < -1000.0, "2^{x}");
        let y = 1.0 + f64::from(n) * 255.0 / 2e6;
        assert!((log2(y) - y.log2()).abs() < 1e-8, "log2 {y}");
    }
    assert_eq!((exp2(0.0), exp2(-1.0), log2(1.0), log2(256.0)), (1.0, 0.5, 0.0, 8.0));
    assert_eq!((float(0), float(FLOAT_BITS_MAX)), (0.0, FLOAT_BITS_MAX as f64));
}

#[test]
fn ranks_are_those_of_the_functions() {
    let rows = rows(20_000);
    let exact: Vec<f64> = rows.iter().map(|row| by_library(&frame(), *row)).collect();
    let found: Vec<f32> = rows.iter().map(|row| terms(&frame(), *row).total).collect();
    let order = |by: &dyn Fn(usize) -> f64| {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by(|a, b| by(*a).total_cmp(&by(*b)));
        order
    };
    let wanted = order(&|n| exact[n]);
    for (a, b) in order(&|n| f64::from(found[n])).into_iter().zip(wanted) {
        assert!((exact[a] - exact[b]).abs() < 2e-7, "{} and {} are no tie", exact[a], exact[b]);
    }
}

#[test]
fn columns_score_as_single_rows_on_one_thread_and_on_many() {
    let rows = rows(40_001);
    let (active_us, heat, semantic) = columns(&rows);
    let columns = Columns { active_us: &active_us, heat: &heat, semantic: &semantic };
    let mut found = vec![0.0; rows.len()];
    for threads in [1, 2, 8] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| scores(&frame(), &columns, &mut found));
        for (at, found) in found.iter().enumerate() {
            let one = terms(&frame(), rows[at]).total;
            assert_eq!(found.to_bits(), one.to_bits(), "row {at}, {threads} threads");
        }
    }
}

#[test]
fn what_is_ahead_of_the_clock_is_not_the_newest() {
    let newest = |times: &[i64], now| {
        let mut newest = Newest::default();
        times.iter().for_each(|us| newest.see(*us, now));
        newest.us()
    };
    assert_eq!(newest(&[3, 9, 70 * 365 * DAY], 10), 9);
    assert_eq!(newest(&[3, 9], 1), 9, "a clock before everything is the one that is wrong");
    assert_eq!(newest(&[], 1), 0);
}
