//! Where in a run of scores stand those that reach a floor.
//!
//! Sixteen are compared at once and make sixteen bits. Where none of them reaches it, which is nearly always,
//! that is all; AVX-512 writes the places without asking, since a wrong guess costs more than that. Scalar is
//! the specification: a score reaches a floor that it equals; NaN reaches none.
//!
//! Never: says which of them are the best.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::pure::{Level, Simd};

/// Scores that are compared at once.
const AT_ONCE: usize = 16;

/// Puts the places of all scores that reach `floor` behind `places`, ascending.
pub(super) fn reaching(scores: &[f32], floor: f32, places: &mut Vec<u32>) {
    reaching_with(scores, floor, places, Simd::best());
}

fn reaching_with(scores: &[f32], floor: f32, places: &mut Vec<u32>, simd: Simd) {
    match simd.level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Simd` of this level exists only where AVX2 was found.
        Level::Avx2 => unsafe { avx2(scores, floor, places) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Simd` of this level exists only where AVX-512 was found.
        Level::Avx512 => unsafe { avx512(scores, floor, places) },
        _ => each(scores, floor, places, |scores| bits(scores, floor)),
    }
}

/// The loop around a comparison of sixteen scores.
#[inline(always)]
fn each(
    scores: &[f32],
    floor: f32,
    places: &mut Vec<u32>,
    bits_of: impl Fn(&[f32; AT_ONCE]) -> u32,
) {
    let (sixteens, rest) = scores.as_chunks::<AT_ONCE>();
    let mut note = |mut bits: u32, from: u32| {
        while bits != 0 {
            places.push(from + bits.trailing_zeros());
            bits &= bits - 1;
        }
    };
    let mut from = 0;
    for sixteen in sixteens {
        note(bits_of(sixteen), from);
        from += AT_ONCE as u32;
    }
    note(bits(rest, floor), from);
}

/// A bit for each score that reaches the floor.
#[inline(always)]
fn bits(scores: &[f32], floor: f32) -> u32 {
    // First whether there is one, which compilers turn into a few instructions.
    if !scores.iter().fold(false, |any, score| any | (*score >= floor)) {
        return 0;
    }
    scores.iter().rev().fold(0, |bits, score| 2 * bits + u32::from(*score >= floor))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(scores: &[f32], floor: f32, places: &mut Vec<u32>) {
    let floors = _mm256_set1_ps(floor);
    each(scores, floor, places, |sixteen| {
        let eights = sixteen.as_chunks::<8>().0;
        let half = |eight: &[f32; 8]| {
            // SAFETY: the array covers the 32 bytes read; the load needs no alignment.
            let eight = unsafe { _mm256_loadu_ps(eight.as_ptr()) };
            _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(eight, floors)).cast_unsigned()
        };
        half(&eights[0]) | (half(&eights[1]) << 8)
    });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,popcnt")]
fn avx512(scores: &[f32], floor: f32, places: &mut Vec<u32>) {
    let floors = _mm512_set1_ps(floor);
    let mut at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    // Each store writes sixteen places behind those that count: as many as scores so far, at most.
    places.reserve(scores.len());
    let (sixteens, rest) = scores.as_chunks::<AT_ONCE>();
    let mut len = places.len();
    for sixteen in sixteens {
        // SAFETY: the array covers the 64 bytes read; the load needs no alignment.
        let sixteen = unsafe { _mm512_loadu_ps(sixteen.as_ptr()) };
        let reach = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(sixteen, floors);
        let reaching = _mm512_maskz_compress_epi32(reach, at);
        // SAFETY: `len` grew by 16 at most for each 16 scores before these, so that there is reserved room for
        // 16 places behind it; the store needs no alignment.
        unsafe { _mm512_storeu_si512(places.as_mut_ptr().add(len).cast(), reaching) };
        len += reach.count_ones() as usize;
        at = _mm512_add_epi32(at, _mm512_set1_epi32(AT_ONCE as i32));
    }
    // SAFETY: the places up to `len` were written, and `len` is within what was reserved.
    unsafe { places.set_len(len) };
    let from = AT_ONCE * sixteens.len();
    let reaching = rest.iter().zip(from as u32..).filter(|(score, _)| **score >= floor);
    places.extend(reaching.map(|(_, at)| at));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_instruction_set_finds_the_same(
            scores in prop::collection::vec(-3..4_i8, 0..100), floor in -4..5_i8,
        ) {
            let odd = |score: i8| if score == -3 { f32::NAN } else { f32::from(score) };
            let scores: Vec<f32> = scores.into_iter().map(odd).collect();
            let floor = f32::from(floor);
            let reaches = |at: &u32| scores[*at as usize] >= floor;
            let mut wanted = vec![7];
            wanted.extend((0..scores.len() as u32).filter(reaches));
            for simd in Simd::all() {
                let mut places = vec![7];
                reaching_with(&scores, floor, &mut places, simd);
                prop_assert_eq!(&places, &wanted, "{:?}", simd);
            }
        }
    }
}
