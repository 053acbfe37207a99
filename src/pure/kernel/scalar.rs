//! The specification of the f32 kernels: what every faster version is compared with.
//!
//! Sums run in 32 lanes: lane i takes the products at i, i + 32, i + 64, .. in that order, a tail
//! shorter than 32 goes to the first lanes, and the lanes are folded in halves (32, 16, 8, 4, 2, 1).
//! The order is part of the result: floating-point addition does not associate, and the same
//! vectors must score the same on every machine and for every number of threads. No fused
//! multiply-add for the same reason.
//!
//! 32 lanes are two AVX-512 registers, four of AVX, eight of SSE or NEON: enough independent sums to
//! hide the latency of an addition (3 to 4 cycles) behind the loads that bound the loop, and few
//! enough to stay in 16 registers. The compiler packs these loops on any machine; `avx2` and
//! `avx512` do the same sums with wider registers, `neon` with its own.

/// Independent sums.
pub(super) const LANES: usize = 32;

/// Dot product. Slices of different length count up to the shorter one. May overflow to an
/// infinity, or to NaN where infinities of both signs meet.
#[must_use]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    fold_pairs(a, b, |x, y| x * y)
}

/// Squared Euclidean distance; lengths and overflow as in [`dot`].
#[must_use]
pub fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    fold_pairs(a, b, |x, y| {
        let difference = x - y;
        difference * difference
    })
}

/// The nearest finite f32.
#[must_use]
pub fn saturate(value: f64) -> f32 {
    value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
}

#[inline(always)]
fn fold_pairs(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let len = a.len().min(b.len());
    let (a, a_tail) = a.split_at(len).0.as_chunks::<LANES>();
    let (b, b_tail) = b.split_at(len).0.as_chunks::<LANES>();
    let mut lanes = a.iter().zip(b).fold([0.0; LANES], |lanes, (a, b)| add(lanes, a, b, &term));
    if !a_tail.is_empty() {
        // Padded with zeros, whose terms are zero. A lane starts at +0 and so never becomes -0: the
        // padding changes no bit.
        let (mut x, mut y) = ([0.0; LANES], [0.0; LANES]);
        x.iter_mut().zip(a_tail).for_each(|(x, a)| *x = *a);
        y.iter_mut().zip(b_tail).for_each(|(y, b)| *y = *b);
        lanes = add(lanes, &x, &y, &term);
    }
    let sixteen: [f32; 16] = std::array::from_fn(|i| lanes[i] + lanes[i + 16]);
    let eight: [f32; 8] = std::array::from_fn(|i| sixteen[i] + sixteen[i + 8]);
    let [l0, l1, l2, l3, h0, h1, h2, h3] = eight;
    let [l0, l1, h0, h1] = [l0 + h0, l1 + h1, l2 + h2, l3 + h3];
    (l0 + h0) + (l1 + h1)
}

/// One step of all lanes. Lanes go in and out by value and are never indexed by a variable: only so
/// they stay in registers (a tail that wrote to some lanes in place made the loop 2.6 times
/// slower, because the compiler kept half of the sums as single values).
#[inline(always)]
fn add(
    lanes: [f32; LANES],
    a: &[f32; LANES],
    b: &[f32; LANES],
    term: &impl Fn(f32, f32) -> f32,
) -> [f32; LANES] {
    std::array::from_fn(|i| lanes[i] + term(a[i], b[i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::Wide;
    use proptest::prelude::*;

    /// The order of the story above, written down as slowly as possible.
    fn dot_by_the_book(a: &[f32], b: &[f32]) -> f32 {
        let mut lanes = vec![0.0_f32; 32];
        for i in 0..a.len() {
            lanes[i % 32] += a[i] * b[i];
        }
        while lanes.len() > 1 {
            let half = lanes.len() / 2;
            lanes = (0..half).map(|i| lanes[i] + lanes[i + half]).collect();
        }
        lanes[0]
    }

    fn pair() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
        (0..70_usize).prop_flat_map(|len| {
            let side = prop::collection::vec(-100.0_f32..100.0, len);
            (side.clone(), side)
        })
    }

    proptest! {
        #[test]
        fn dot_keeps_its_order_to_the_bit((a, b) in pair()) {
            prop_assert_eq!(dot(&a, &b).to_bits(), dot_by_the_book(&a, &b).to_bits());
        }

        #[test]
        fn sums_are_near_the_wide_ones((a, b) in pair()) {
            // One rounding per term and one per addition on a lane of at most 5 terms plus 4
            // folds: 10 units in the last place of the sum of absolute terms is generous.
            let bound = |terms: f64| 10.0 * f64::from(f32::EPSILON) * terms + 1e-30;
            let size: f64 = a.iter().zip(&b).map(|(x, y)| f64::from((x * y).abs())).sum();
            prop_assert!((f64::from(dot(&a, &b)) - a.dot_wide(&b)).abs() <= bound(size));
            let wide = a.squared_distance_wide(&b);
            prop_assert!((f64::from(squared_distance(&a, &b)) - wide).abs() <= bound(wide));
        }
    }

    #[test]
    fn different_lengths_count_up_to_the_shorter() {
        let long: Vec<f32> = (0..40).map(|i| i as f32).collect();
        assert_eq!(dot(&long, &long[..33]), dot(&long[..33], &long[..33]));
        assert_eq!(squared_distance(&long[..5], &long), 0.0);
    }
}
