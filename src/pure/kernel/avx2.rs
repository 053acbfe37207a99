//! The f32 kernels with AVX2: the sums of `scalar`, lane by lane, in four registers of eight.
//!
//! Multiplication and addition stay apart (no fused multiply-add), and the fold goes in the same
//! halves, so that every result has the bits of the specification.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::scalar::LANES;

#[target_feature(enable = "avx2")]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    fold::<false>(a, b)
}

#[target_feature(enable = "avx2")]
pub(super) fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    fold::<true>(a, b)
}

#[inline]
#[target_feature(enable = "avx2")]
fn fold<const DISTANCE: bool>(a: &[f32], b: &[f32]) -> f32 {
    let len = a.len().min(b.len());
    let (a, a_tail) = a.split_at(len).0.as_chunks::<LANES>();
    let (b, b_tail) = b.split_at(len).0.as_chunks::<LANES>();
    let mut lanes = [_mm256_setzero_ps(); 4];
    for (a, b) in a.iter().zip(b) {
        lanes = add::<DISTANCE>(lanes, a, b);
    }
    if !a_tail.is_empty() {
        // Zeros add +0 to lanes that are never -0: no bit changes.
        let (mut x, mut y) = ([0.0; LANES], [0.0; LANES]);
        x.iter_mut().zip(a_tail).for_each(|(x, a)| *x = *a);
        y.iter_mut().zip(b_tail).for_each(|(y, b)| *y = *b);
        lanes = add::<DISTANCE>(lanes, &x, &y);
    }
    let low = _mm256_add_ps(lanes[0], lanes[2]);
    let high = _mm256_add_ps(lanes[1], lanes[3]);
    let eight = _mm256_add_ps(low, high);
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn add<const DISTANCE: bool>(
    lanes: [__m256; 4],
    a: &[f32; LANES],
    b: &[f32; LANES],
) -> [__m256; 4] {
    [
        _mm256_add_ps(lanes[0], term::<DISTANCE>(load::<0>(a), load::<0>(b))),
        _mm256_add_ps(lanes[1], term::<DISTANCE>(load::<1>(a), load::<1>(b))),
        _mm256_add_ps(lanes[2], term::<DISTANCE>(load::<2>(a), load::<2>(b))),
        _mm256_add_ps(lanes[3], term::<DISTANCE>(load::<3>(a), load::<3>(b))),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn term<const DISTANCE: bool>(a: __m256, b: __m256) -> __m256 {
    if !DISTANCE {
        return _mm256_mul_ps(a, b);
    }
    let difference = _mm256_sub_ps(a, b);
    _mm256_mul_ps(difference, difference)
}

/// The register-th eight of the lanes' values.
#[inline]
#[target_feature(enable = "avx2")]
fn load<const REGISTER: usize>(values: &[f32; LANES]) -> __m256 {
    const { assert!(8 * REGISTER + 8 <= LANES) };
    // SAFETY: the array covers the eight values read, as asserted; the load needs no alignment.
    unsafe { _mm256_loadu_ps(values.as_ptr().add(8 * REGISTER)) }
}
