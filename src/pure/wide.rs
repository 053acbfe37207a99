//! Sums in f64 of values in f32, and rounding to whole numbers.
//!
//! f32 values up to 3.4e38 square to 1.2e77, far inside f64: these serve vectors so large or small that f32
//! sums overflow or vanish, and what is computed once a query.
//!
//! Sums run in eight lanes: lane i takes the terms at i, i + 8, i + 16, .. in that order, and the lanes are
//! folded in halves. One lane alone waits four cycles for each addition, 0.5 us at 384 values. The order is
//! part of the result, the same on every machine.

const LANES: usize = 8;

/// Sums over f32 values, in f64.
pub trait Wide {
    /// Dot product. Slices of different length count up to the shorter one.
    fn dot_wide(&self, other: &[f32]) -> f64;

    /// Squared Euclidean distance; lengths as in [`dot_wide`](Wide::dot_wide).
    fn squared_distance_wide(&self, other: &[f32]) -> f64;

    /// Sum of the sizes of the values.
    fn sum_abs_wide(&self) -> f64;

    /// Each value times `factor`, rounded to the nearest whole number, of two the even one. The products have to
    /// have room in 16 bits.
    fn rounded(&self, factor: f64) -> Vec<i16>;

    /// Euclidean norm.
    fn norm_wide(&self) -> f64;
}

impl Wide for [f32] {
    fn dot_wide(&self, other: &[f32]) -> f64 {
        sum(self, other, |x, y| x * y)
    }

    fn squared_distance_wide(&self, other: &[f32]) -> f64 {
        sum(self, other, |x, y| (x - y) * (x - y))
    }

    fn sum_abs_wide(&self) -> f64 {
        sum(self, self, |x, _| x.abs())
    }

    fn rounded(&self, factor: f64) -> Vec<i16> {
        self.iter().map(|value| whole(f64::from(*value) * factor)).collect()
    }

    fn norm_wide(&self) -> f64 {
        self.dot_wide(self).sqrt()
    }
}

fn sum(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let len = a.len().min(b.len());
    let (a, a_tail) = a.split_at(len).0.as_chunks::<LANES>();
    let (b, b_tail) = b.split_at(len).0.as_chunks::<LANES>();
    let mut lanes = a.iter().zip(b).fold([0.0; LANES], |lanes, (a, b)| {
        std::array::from_fn(|i| lanes[i] + term(f64::from(a[i]), f64::from(b[i])))
    });
    for (lane, (a, b)) in lanes.iter_mut().zip(a_tail.iter().zip(b_tail)) {
        *lane += term(f64::from(*a), f64::from(*b));
    }
    let [l0, l1, l2, l3, h0, h1, h2, h3] = lanes;
    let [l0, l1, h0, h1] = [l0 + h0, l1 + h1, l2 + h2, l3 + h3];
    (l0 + h0) + (l1 + h1)
}

/// The nearest whole number, of two the even one, of a value within those of 16 bits.
///
/// Next to 1.5 * 2^52 the unit of an f64 is 1, so the addition rounds, and the low bits of the sum are the
/// number: compilers pack it, which they cannot do with a cast that has to mind what has no room.
#[inline(always)]
fn whole(value: f64) -> i16 {
    const UNITS_OF_ONE: f64 = 6_755_399_441_055_744.0;
    (value + UNITS_OF_ONE).to_bits() as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sums_are_those_of_one_lane(
            pairs in prop::collection::vec((-9.0_f32..9.0, -9.0_f32..9.0), 0..40), more in 0..3_usize,
        ) {
            let (mut a, b): (Vec<f32>, Vec<f32>) = pairs.iter().copied().unzip();
            a.extend(std::iter::repeat_n(5.0, more));
            let plain = |term: &dyn Fn(f64, f64) -> f64| -> f64 {
                pairs.iter().map(|(x, y)| term(f64::from(*x), f64::from(*y))).sum()
            };
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-12 * 40.0 * 400.0;
            prop_assert!(near(a.dot_wide(&b), plain(&|x, y| x * y)));
            prop_assert!(near(a.squared_distance_wide(&b), plain(&|x, y| (x - y).powi(2))));
            prop_assert!(near(b.sum_abs_wide(), plain(&|_, y| y.abs())));
            prop_assert!(near(b.norm_wide().powi(2), plain(&|_, y| y * y)));
        }

        #[test]
        fn whole_numbers_are_the_nearest(value in -32_767.0..32_767.0_f64) {
            prop_assert_eq!(f64::from(whole(value)), value.round_ties_even());
        }
    }

    #[test]
    fn sums_keep_their_order_to_the_bit() {
        let value = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 173.0 - 2.9;
        for len in 0..70 {
            let a: Vec<f32> = (0..len).map(value).collect();
            let b: Vec<f32> = (0..len).map(|i| value(i * 31 + 5)).collect();
            let mut lanes = vec![0.0_f64; 8];
            for i in 0..len {
                lanes[i % 8] += f64::from(a[i]) * f64::from(b[i]);
            }
            while lanes.len() > 1 {
                let half = lanes.len() / 2;
                lanes = (0..half).map(|i| lanes[i] + lanes[i + half]).collect();
            }
            assert_eq!(a.dot_wide(&b).to_bits(), lanes[0].to_bits(), "{len}");
        }
    }

    #[test]
    fn halves_go_to_the_even_one() {
        let halves = [-1.5, -0.5, 0.5, 1.5, 2.5, 32_766.5];
        assert_eq!(halves.map(whole), [-2, 0, 0, 2, 2, 32_766]);
        assert_eq!([-32_768.0, 32_767.0, -0.0].map(whole), [i16::MIN, i16::MAX, 0]);
    }
}
