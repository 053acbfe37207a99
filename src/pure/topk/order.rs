//! Scores in order, the best first, put in order a piece at a time.
//!
//! 1. A score and the number of what it is of become one integer: the score's bits turned so that a
//!    higher score is a lower integer, then the number. Integers are compared without a branch.
//! 2. The best of those left are told from the others, and only they are sorted: most who ask for an order stop
//!    long before its end.
//!
//! Equal scores go to the lower number. Never: looks at what the scores are of.

/// Numbered scores, from the best down.
#[derive(Clone, Debug)]
pub struct Order {
    keys: Vec<u64>,
    /// Of the keys, those that are in order already, and those that were given out.
    sorted: usize,
    given: usize,
    at_once: usize,
}

/// Lower for a higher score, by [`f32::total_cmp`], and for a lower number.
fn key(score: f32, number: u32) -> u64 {
    let bits = score.to_bits();
    // Negative ones ascend with their bits, positive ones descend, and come before.
    let turned = if bits >> 31 == 0 { !bits & !(1 << 31) } else { bits };
    (u64::from(turned) << 32) | u64::from(number)
}

/// The score and the number of a key.
fn of_key(key: u64) -> (f32, u32) {
    let turned = (key >> 32) as u32;
    let bits = if turned >> 31 == 0 { !turned & !(1 << 31) } else { turned };
    (f32::from_bits(bits), key as u32)
}

/// Numbered scores, all of them, the best first.
pub(super) fn sorted(scores: &[f32], numbers: &[u32]) -> Vec<(f32, u32)> {
    let mut keys: Vec<u64> = scores.iter().zip(numbers).map(|(s, n)| key(*s, *n)).collect();
    keys.sort_unstable();
    keys.into_iter().map(of_key).collect()
}

impl Order {
    /// Takes them in any order, to sort `at_once` of them at a time.
    pub fn new(scores: impl IntoIterator<Item = (f32, u32)>, at_once: usize) -> Order {
        let keys = scores.into_iter().map(|(score, number)| key(score, number)).collect();
        Order { keys, sorted: 0, given: 0, at_once: at_once.max(1) }
    }

    /// The best of those left, as far as they are in order: at least one, if there is one.
    pub fn ahead(&mut self) -> impl Iterator<Item = (f32, u32)> {
        if self.given == self.sorted {
            let rest = self.keys.get_mut(self.sorted..).unwrap_or_default();
            if rest.len() > self.at_once {
                rest.select_nth_unstable(self.at_once);
            }
            let best = rest.len().min(self.at_once);
            rest.get_mut(..best).unwrap_or_default().sort_unstable();
            self.sorted += best;
        }
        self.keys.get(self.given..self.sorted).unwrap_or_default().iter().copied().map(of_key)
    }
}

impl Iterator for Order {
    type Item = (f32, u32);

    fn next(&mut self) -> Option<(f32, u32)> {
        let next = self.ahead().next()?;
        self.given += 1;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_order_of_a_sort(
            scores in prop::collection::vec(
                prop_oneof![4 => (-4..5_i8).prop_map(f32::from), 1 => any::<f32>()], 0..80,
            ),
            at_once in 0..12_usize,
        ) {
            let mut wanted: Vec<(f32, u32)> = scores.iter().copied().zip(0..).collect();
            wanted.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let mut order = Order::new(scores.iter().copied().zip(0..), at_once);
            for (score, number) in wanted {
                let ahead: Vec<_> = order.ahead().collect();
                prop_assert!(!ahead.is_empty() && ahead.len() <= at_once.max(1));
                let next = order.next().unwrap();
                prop_assert_eq!((next.0.to_bits(), next.1), (score.to_bits(), number));
                prop_assert_eq!((ahead[0].0.to_bits(), ahead[0].1), (score.to_bits(), number));
            }
            prop_assert_eq!(order.next(), None);
        }
    }
}
