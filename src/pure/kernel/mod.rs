//! Kernels: how near two vectors are. Higher is nearer, for every metric, and never NaN.
//!
//! A query is prepared once ([`PreparedQuery`]) and scored against many vectors ([`score`]), whose
//! norms the caller keeps beside them. The common case is one f32 sum, whose order `scalar`
//! specifies: every instruction set gives the same bits. A result
//! that f32 could not hold (a sum that overflowed, norms so large or small that their
//! squares leave the range) is computed again in f64 and brought back to the nearest finite f32:
//! slow, rare, and still an order.
//!
//! Nothing here checks lengths or finiteness: `put` and `search` did, at the door.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use crate::pure::{Level, Simd, Wide};
use crate::words::options::Metric;

/// Norms in this range keep cosine in plain f32: products of two vectors stay below 1e30, and what
/// vanishes below 1e-38 is no part of a norm product of at least 1e-24.
const PLAIN_NORMS: std::ops::RangeInclusive<f32> = 1e-12..=1e15;

/// Dot product. Slices of different length count up to the shorter one. May overflow to an
/// infinity, or to NaN where infinities of both signs meet.
#[must_use]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    dot_with(Simd::best(), a, b)
}

/// Squared Euclidean distance; lengths and overflow as in [`dot`].
#[must_use]
pub fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    squared_distance_with(Simd::best(), a, b)
}

/// Euclidean norm, rounded to f32: 0 exactly for a vector of zeros, never NaN for finite values,
/// at most `f32::MAX`.
#[must_use]
pub fn norm(a: &[f32]) -> f32 {
    let square = dot(a, a);
    // Inside this range no product that matters was lost below 1e-38 or beyond 1e38.
    if (1e-24..=1e30).contains(&square) {
        return square.sqrt();
    }
    scalar::saturate(a.dot_wide(a).sqrt())
}

/// [`dot`] with one instruction set.
#[inline]
#[must_use]
pub fn dot_with(simd: Simd, a: &[f32], b: &[f32]) -> f32 {
    match simd.level() {
        Level::Scalar => scalar::dot(a, b),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Simd` of this level exists only where AVX2 was found.
        Level::Avx2 => unsafe { avx2::dot(a, b) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Simd` of this level exists only where AVX-512 was found.
        Level::Avx512 => unsafe { avx512::dot(a, b) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: a `Simd` of this level exists only where NEON was found.
        Level::Neon => unsafe { neon::dot(a, b) },
    }
}

#[inline]
fn squared_distance_with(simd: Simd, a: &[f32], b: &[f32]) -> f32 {
    match simd.level() {
        Level::Scalar => scalar::squared_distance(a, b),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in `dot_with`.
        Level::Avx2 => unsafe { avx2::squared_distance(a, b) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in `dot_with`.
        Level::Avx512 => unsafe { avx512::squared_distance(a, b) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as in `dot_with`.
        Level::Neon => unsafe { neon::squared_distance(a, b) },
    }
}

/// A query vector with what every comparison needs of it.
#[derive(Clone, Debug)]
pub struct PreparedQuery {
    vector: Box<[f32]>,
    norm: f32,
}

impl PreparedQuery {
    /// Its length.
    pub fn norm(&self) -> f32 {
        self.norm
    }

    /// Takes a copy of the vector, whose values must be finite, and computes its norm.
    #[must_use]
    pub fn new(vector: &[f32]) -> PreparedQuery {
        PreparedQuery { vector: vector.into(), norm: norm(vector) }
    }

    /// The query itself.
    #[must_use]
    pub fn vector(&self) -> &[f32] {
        &self.vector
    }
}

/// Score of one vector, higher is better: cosine in [-1, 1] (0 when either norm is zero), dot
/// product, or negative squared distance.
///
/// `norm` is [`norm`] of `vector`; only cosine looks at it. The result is finite for finite
/// values, and never negative zero, so that equal scores compare equal in any way of comparing.
#[must_use]
pub fn score(metric: Metric, query: &PreparedQuery, vector: &[f32], norm: f32) -> f32 {
    let q = query.vector();
    let score = match metric {
        Metric::Cosine => cosine(query, vector, norm),
        Metric::Dot => {
            let sum = dot(q, vector);
            if sum.is_finite() { sum } else { scalar::saturate(q.dot_wide(vector)) }
        }
        Metric::L2 => {
            let sum = squared_distance(q, vector);
            let wide = || scalar::saturate(q.squared_distance_wide(vector));
            -(if sum.is_finite() { sum } else { wide() })
        }
    };
    score + 0.0
}

fn cosine(query: &PreparedQuery, vector: &[f32], norm: f32) -> f32 {
    if query.norm == 0.0 || norm == 0.0 {
        return 0.0;
    }
    if PLAIN_NORMS.contains(&query.norm) && PLAIN_NORMS.contains(&norm) {
        return (dot(query.vector(), vector) / (query.norm * norm)).clamp(-1.0, 1.0);
    }
    let q = query.vector();
    let norms = (q.dot_wide(q) * vector.dot_wide(vector)).sqrt();
    // The norm said "not zero" where the values do not: a damaged norm must not make a NaN.
    if norms == 0.0 {
        return 0.0;
    }
    scalar::saturate(q.dot_wide(vector) / norms).clamp(-1.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::L2];

    fn scored(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
        score(metric, &PreparedQuery::new(a), b, norm(b))
    }

    /// The definitions, in f64.
    fn naive(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
        let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
            a.iter().zip(b).map(|(x, y)| f(f64::from(*x), f64::from(*y))).sum()
        };
        match metric {
            Metric::Dot => sum(&|x, y| x * y),
            Metric::L2 => -sum(&|x, y| (x - y) * (x - y)),
            Metric::Cosine => {
                let norms = (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt();
                if norms == 0.0 { 0.0 } else { sum(&|x, y| x * y) / norms }
            }
        }
    }

    fn any_finite() -> impl Strategy<Value = f32> {
        prop_oneof![
            4 => -2.0_f32..2.0,
            2 => any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |v| v.is_finite()),
            1 => prop::sample::select(vec![0.0, -0.0, f32::MAX, f32::MIN, 1e-45, 1e-20, -1e25]),
        ]
    }

    proptest! {
        #[test]
        fn scores_are_finite_and_near_the_definition(
            pairs in prop::collection::vec((any_finite(), any_finite()), 1..60),
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            for metric in METRICS {
                let got = scored(metric, &a, &b);
                prop_assert!(got.is_finite(), "{metric:?} {got}");
                prop_assert!(got.to_bits() != (-0.0_f32).to_bits());
                let expected = naive(metric, &a, &b).clamp(f32::MIN.into(), f32::MAX.into());
                // Terms may cancel: the error is relative to the sum of their sizes.
                let size: f64 = match metric {
                    Metric::Cosine => 1.0,
                    Metric::Dot => a.iter().zip(&b)
                        .map(|(x, y)| (f64::from(*x) * f64::from(*y)).abs()).sum(),
                    Metric::L2 => expected.abs(),
                };
                prop_assert!(
                    (f64::from(got) - expected).abs() <= 3e-6 * size + 1e-35,
                    "{metric:?}: {got} for {expected}"
                );
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_bits_of_the_specification() {
        let value = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 173.0 - 2.9;
        for dim in (0..=130).chain([384, 768, 1024]) {
            let a: Vec<f32> = (0..dim).map(value).collect();
            let b: Vec<f32> = (0..dim).map(|i| value(i * 31 + 5)).collect();
            for simd in Simd::all() {
                let dot = dot_with(simd, &a, &b);
                assert_eq!(dot.to_bits(), scalar::dot(&a, &b).to_bits(), "{dim} {simd:?}");
                let far = squared_distance_with(simd, &a, &b);
                assert_eq!(far.to_bits(), scalar::squared_distance(&a, &b).to_bits());
                // One longer, one shorter.
                assert_eq!(dot_with(simd, &a, &b[..dim / 2]), scalar::dot(&a[..dim / 2], &b));
            }
        }
    }

    #[test]
    fn norm_holds_at_the_ends_of_the_range() {
        assert_eq!(norm(&[]), 0.0);
        assert_eq!(norm(&[0.0, -0.0]), 0.0);
        let tiny = f32::from_bits(1);
        assert_eq!(norm(&[tiny]), tiny);
        assert_eq!(norm(&[-3e-20, 4e-20]), 5e-20);
        assert_eq!(norm(&[3e20, 4e20]), 5e20);
        assert_eq!(norm(&[f32::MAX; 65_536]), f32::MAX);
    }

    #[test]
    fn known_scores() {
        let (x, y) = ([1.0, 0.0], [3.0, 4.0]);
        assert_eq!(scored(Metric::Cosine, &x, &y), 0.6);
        assert_eq!(scored(Metric::Dot, &x, &y), 3.0);
        assert_eq!(scored(Metric::L2, &x, &y), -20.0);
        assert_eq!(scored(Metric::Cosine, &x, &[0.0, 0.0]), 0.0);
        assert_eq!(scored(Metric::Cosine, &[0.0, 0.0], &y), 0.0);
        assert_eq!(scored(Metric::Cosine, &[1e-30, 0.0], &[1e-30, 1e-30]), 0.5_f32.sqrt());
        assert_eq!(scored(Metric::Cosine, &[f32::MAX; 2], &[f32::MAX, f32::MIN]), 0.0);
        assert_eq!(scored(Metric::Dot, &[f32::MAX; 2], &[f32::MAX, f32::MIN]), 0.0);
        assert_eq!(scored(Metric::Dot, &[f32::MAX; 2], &[f32::MIN; 2]), f32::MIN);
        assert_eq!(scored(Metric::L2, &[f32::MAX; 2], &[f32::MIN; 2]), f32::MIN);
    }

    #[test]
    fn a_wrong_norm_makes_no_nan() {
        let zero = PreparedQuery::new(&[0.0, 0.0]);
        let one = PreparedQuery::new(&[1.0, 0.0]);
        for norm in [0.0, 1.0, 1e-30, f32::INFINITY, f32::NAN, -1.0] {
            assert_eq!(score(Metric::Cosine, &zero, &[1.0, 0.0], norm), 0.0);
            assert_eq!(score(Metric::Cosine, &one, &[0.0, 0.0], norm), 0.0);
        }
    }
}
