//! The f32 kernels with AVX-512: the sums of `scalar`, lane by lane, in two registers of sixteen.
//!
//! Multiplication and addition stay apart (no fused multiply-add), and the fold goes in the same
//! halves, so that every result has the bits of the specification.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::scalar::LANES;

#[target_feature(enable = "avx512f,avx2")]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    fold::<false>(a, b)
}

#[target_feature(enable = "avx512f,avx2")]
pub(super) fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    fold::<true>(a, b)
}

#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn fold<const DISTANCE: bool>(a: &[f32], b: &[f32]) -> f32 {
    let len = a.len().min(b.len());
    let (a, a_tail) = a.split_at(len).0.as_chunks::<LANES>();
    let (b, b_tail) = b.split_at(len).0.as_chunks::<LANES>();
    let mut lanes = [_mm512_setzero_ps(); 2];
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
    let sixteen = _mm512_add_ps(lanes[0], lanes[1]);
    let high = _mm512_castps_pd(sixteen);
    let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(high));
    let eight = _mm256_add_ps(_mm512_castps512_ps256(sixteen), high);
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn add<const DISTANCE: bool>(
    lanes: [__m512; 2],
    a: &[f32; LANES],
    b: &[f32; LANES],
) -> [__m512; 2] {
    [
        _mm512_add_ps(lanes[0], term::<DISTANCE>(load::<0>(a), load::<0>(b))),
        _mm512_add_ps(lanes[1], term::<DISTANCE>(load::<1>(a), load::<1>(b))),
    ]
}

#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn term<const DISTANCE: bool>(a: __m512, b: __m512) -> __m512 {
    if !DISTANCE {
        return _mm512_mul_ps(a, b);
    }
    let difference = _mm512_sub_ps(a, b);
    _mm512_mul_ps(difference, difference)
}

/// The register-th sixteen of the lanes' values.
#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn load<const REGISTER: usize>(values: &[f32; LANES]) -> __m512 {
    const { assert!(16 * REGISTER + 16 <= LANES) };
    // SAFETY: the array covers the sixteen values read, as asserted; the load needs no alignment.
    unsafe { _mm512_loadu_ps(values.as_ptr().add(16 * REGISTER)) }
}
