//! The n-th best of some scores, by counting.
//!
//! How many scores reach a value is counted many at a time and without a branch, a tenth of a nanosecond each; to move
//! scores until the n-th stands in its place, as selecting does, takes twenty times as long. So the value is halved in
//! on: between one that n scores reach and one that fewer reach, both as integers in the order of scores, until n
//! reach it, or until nothing lies between. Of four hundred scores that takes some nine counts.
//!
//! Never: moves a score; what scores are of is no matter here.

#![allow(unsafe_code)]

use crate::pure::{Level, Simd};

/// An integer for each score that is not a NaN, in the order of [`f32::total_cmp`].
fn rank(score: f32) -> i32 {
    let bits = score.to_bits().cast_signed();
    // Negative ones descend with their bits.
    bits ^ ((bits >> 31) & i32::MAX)
}

fn of_rank(rank: i32) -> f32 {
    f32::from_bits((rank ^ ((rank >> 31) & i32::MAX)).cast_unsigned())
}

/// Scores that are looked at side by side: what folds one score after the other waits for each.
const LANES: usize = 16;

/// Folds scores to one, in any order.
#[inline(always)]
fn folded(scores: &[f32], from: f32, fold: impl Fn(f32, f32) -> f32) -> f32 {
    let (many, rest) = scores.as_chunks::<LANES>();
    let mut lanes = [from; LANES];
    for some in many {
        lanes.iter_mut().zip(some).for_each(|(lane, score)| *lane = fold(*lane, *score));
    }
    lanes.into_iter().chain(rest.iter().copied()).fold(from, fold)
}

/// The n-th best score, of which `floor` is known to be no better, or negative infinity. `None` where there are fewer,
/// and for an n of 0. There are no NaNs and no negative zeros.
pub(super) fn nth_best(scores: &[f32], n: usize, floor: f32) -> Option<f32> {
    nth_best_with(scores, n, floor, Simd::best())
}

fn nth_best_with(scores: &[f32], n: usize, floor: f32, simd: Simd) -> Option<f32> {
    match simd.level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Simd` of this level exists only where AVX2 was found.
        Level::Avx2 => unsafe { avx2(scores, n, floor) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Simd` of this level exists only where AVX-512 was found.
        Level::Avx512 => unsafe { avx512(scores, n, floor) },
        _ => halved_in_on(scores, n, floor),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(scores: &[f32], n: usize, floor: f32) -> Option<f32> {
    halved_in_on(scores, n, floor)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx2")]
fn avx512(scores: &[f32], n: usize, floor: f32) -> Option<f32> {
    halved_in_on(scores, n, floor)
}

/// What all of them do: compilers make of its loops what the instruction set has.
#[inline(always)]
fn halved_in_on(scores: &[f32], n: usize, floor: f32) -> Option<f32> {
    if n == 0 || scores.len() < n {
        return None;
    }
    let best = folded(scores, f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    let worst = folded(scores, best, |a, b| if b < a { b } else { a });
    // So many reach the low one, and fewer than n what is above the high one.
    let (mut low, mut high) = (rank(floor).max(rank(worst)), rank(best));
    while low < high {
        // The upper middle, without overflow: it is above the low one.
        let middle = low + high.abs_diff(low).div_ceil(2).cast_signed();
        let value = of_rank(middle);
        let reach = scores.iter().map(|score| u32::from(*score >= value)).sum::<u32>() as usize;
        if reach == n {
            let least = |a, b| if b < a && b >= value { b } else { a };
            return Some(folded(scores, best, least));
        }
        if reach > n {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Some(of_rank(low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a sort says, for each n, and whatever is said of it before.
    fn agrees(scores: &[f32]) {
        let mut sorted = scores.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        for simd in Simd::all() {
            for (at, nth) in sorted.iter().enumerate() {
                let worse = sorted[at..].iter().copied();
                for floor in [f32::NEG_INFINITY].into_iter().chain(worse) {
                    let found = nth_best_with(scores, at + 1, floor, simd);
                    assert_eq!(found, Some(*nth), "{simd:?} {at} {floor}");
                }
            }
            assert_eq!(nth_best_with(scores, 0, f32::NEG_INFINITY, simd), None);
            assert_eq!(nth_best_with(scores, scores.len() + 1, f32::NEG_INFINITY, simd), None);
        }
    }

    proptest! {
        #[test]
        fn it_is_where_a_sort_puts_it(
            few in prop::collection::vec(-3..4_i8, 0..60),
            any in prop::collection::vec(any::<i32>(), 0..60),
        ) {
            agrees(&few.into_iter().map(f32::from).collect::<Vec<f32>>());
            let any = any.into_iter().map(of_rank).filter(|score| !score.is_nan());
            agrees(&any.map(|score| score + 0.0).collect::<Vec<f32>>());
        }
    }

    #[test]
    fn the_ends_of_the_scale_are_scores_like_others() {
        agrees(&[f32::NEG_INFINITY, f32::MIN, -1e-45, 0.0, 1e-45, f32::MAX, f32::INFINITY]);
        agrees(&[f32::INFINITY; 3]);
        agrees(&[f32::NEG_INFINITY; 3]);
    }

    #[test]
    fn ranks_are_in_the_order_of_scores() {
        let scores = [f32::NEG_INFINITY, f32::MIN, -1.0, -1e-45, 0.0, 1e-45, 1.0, f32::INFINITY];
        assert!(scores.is_sorted_by(|a, b| rank(*a) < rank(*b)));
        assert!(scores.iter().all(|score| of_rank(rank(*score)).to_bits() == score.to_bits()));
    }
}
