//! Centroids of packed rows, and which of them is nearest to each.
//!
//! Spherical k-means: rows and centroids are compared by cosine, so lengths play no part; a centroid is
//! the mean of its rows scaled to length 1, whose own length says how close together they are. Rows are
//! taken as their 8-bit codes say, a third of the memory of floats, and quicker to score.
//!
//! The first centroids are rows at even distances, and rounds are few: what a search needs are regions
//! that neighbours share, not the best ones. A centroid that no row is nearest to stays where it is.
//! Nothing is drawn at random, and threads share work by rows: the same rows give the same centroids.
//!
//! Never: looks at anything but cosines, or keeps the rows.

use rayon::prelude::*;

use super::panel::Panel;
use super::{RowLayout, decode, encode};

/// Rows of which all scores stand side by side, before the best of each are looked for: for 178 centroids they are
/// 49 KB.
const STRETCH_ROWS: usize = 64;

/// Centroids, ready to be compared with rows.
#[derive(Debug)]
pub struct Centroids {
    layout: RowLayout,
    /// `dim` values each.
    means: Vec<f32>,
    panel: Panel,
}

impl Centroids {
    /// Finds `count` centroids of packed rows of 8-bit codes in so many rounds.
    ///
    /// # Panics
    /// When `rows` is not a whole number of rows.
    #[must_use]
    pub fn find(layout: RowLayout, rows: &[u8], count: usize, rounds: usize) -> Centroids {
        let row_bytes = layout.row_bytes();
        assert!(rows.len().is_multiple_of(row_bytes), "bytes of the rows");
        let many = rows.len() / row_bytes;
        let count = count.min(many);
        let mut means = vec![0.0; count * layout.dim()];
        for (n, mean) in means.chunks_exact_mut(layout.dim()).enumerate() {
            let at = n * many / count * row_bytes;
            decode(layout, &rows[at..at + row_bytes], mean);
        }
        let mut centroids = Centroids::of(layout, means);
        for _ in 0..rounds {
            let nearest = centroids.nearest(rows);
            centroids = Centroids::of(layout, centroids.moved(rows, &nearest));
        }
        centroids
    }

    fn of(layout: RowLayout, means: Vec<f32>) -> Centroids {
        let panel = Panel::new(layout, &means);
        Centroids { layout, means, panel }
    }

    /// All of them, one after the other.
    #[must_use]
    pub fn means(&self) -> &[f32] {
        &self.means
    }

    /// Cosine of a vector and each of them, as the [`Panel`] has it of packed rows.
    ///
    /// # Panics
    /// When the vector has not the dimension of the rows.
    #[must_use]
    pub fn cosines(&self, vector: &[f32]) -> Vec<f32> {
        let mut packed = vec![0; self.layout.row_bytes()];
        encode(self.layout, vector, &mut packed);
        let mut cosines = vec![0.0; self.panel.stride()];
        self.panel.score_rows(&packed, &mut cosines);
        cosines.truncate(self.panel.count());
        cosines
    }

    /// For each row the centroid of the greatest cosine, of equal ones the first.
    ///
    /// # Panics
    /// When `rows` is not a whole number of rows.
    #[must_use]
    pub fn nearest(&self, rows: &[u8]) -> Vec<u16> {
        let row_bytes = self.layout.row_bytes();
        assert!(rows.len().is_multiple_of(row_bytes), "bytes of the rows");
        let mut nearest = vec![0; rows.len() / row_bytes];
        let stretches = nearest.par_chunks_mut(STRETCH_ROWS);
        let (stride, count) = (self.panel.stride(), self.panel.count());
        let room = || vec![0.0; STRETCH_ROWS * stride];
        let stretches = stretches.zip(rows.par_chunks(STRETCH_ROWS * row_bytes));
        stretches.for_each_init(room, |scores, (nearest, rows)| {
            let scores = &mut scores[..nearest.len() * stride];
            self.panel.score_rows(rows, scores);
            for (nearest, scores) in nearest.iter_mut().zip(scores.chunks_exact(stride.max(1))) {
                *nearest = first_of_best(&scores[..count]) as u16;
            }
        });
        nearest
    }

    /// The means of the rows nearest to each.
    fn moved(&self, rows: &[u8], nearest: &[u16]) -> Vec<f32> {
        let dim = self.layout.dim();
        let mut sums = vec![0.0_f32; self.means.len()];
        let mut counts = vec![0_u32; self.panel.count()];
        let mut values = vec![0.0; dim];
        for (row, nearest) in rows.chunks_exact(self.layout.row_bytes()).zip(nearest) {
            decode(self.layout, row, &mut values);
            let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
            if norm > 0.0 && norm.is_finite() {
                let at = usize::from(*nearest);
                counts[at] += 1;
                let sum = &mut sums[at * dim..][..dim];
                sum.iter_mut().zip(&values).for_each(|(sum, value)| *sum += value / norm);
            }
        }
        let all = sums.chunks_exact_mut(dim).zip(self.means.chunks_exact(dim)).zip(counts);
        for ((sum, old), count) in all {
            match count {
                0 => sum.copy_from_slice(old),
                _ => sum.iter_mut().for_each(|sum| *sum /= count as f32),
            }
        }
        sums
    }
}

/// Place of the greatest score, of equal ones the first; 0 when there is none.
fn first_of_best(scores: &[f32]) -> usize {
    const LANES: usize = 16;
    // Lanes that do not wait for each other; a comparison that a NaN loses.
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let (lanes, rest) = scores.as_chunks::<LANES>();
    let mut best = [f32::NEG_INFINITY; LANES];
    for sixteen in lanes {
        best.iter_mut().zip(sixteen).for_each(|(best, score)| *best = greater(*best, *score));
    }
    let best = best.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, greater);
    scores.iter().position(|score| *score == best).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::quant::Bits;

    fn packed(layout: RowLayout, vectors: &[[f32; 2]]) -> Vec<u8> {
        let mut rows = vec![0; vectors.len() * layout.row_bytes()];
        for (vector, row) in vectors.iter().zip(rows.chunks_exact_mut(layout.row_bytes())) {
            encode(layout, vector, row);
        }
        rows
    }

    #[test]
    fn two_heaps_have_a_centroid_each_whatever_the_lengths() {
        let layout = RowLayout::new(2, 0, Bits::Eight).unwrap();
        let heaps = [[9.0, 0.1], [2.0, 0.0], [0.0, 3.0], [1.0, -0.1], [0.1, 1.0], [0.0, 7.0]];
        let rows = packed(layout, &heaps);
        let centroids = Centroids::find(layout, &rows, 2, 8);
        let nearest = centroids.nearest(&rows);
        assert_eq!(nearest, [0, 0, 1, 0, 1, 1].map(|n: u16| n ^ nearest[0]));
        let lengths = centroids.means().chunks(2).map(|m| m[0].hypot(m[1]));
        assert!(lengths.into_iter().all(|length| (0.99..=1.0001).contains(&length)));
    }

    #[test]
    fn the_nearest_is_the_one_of_the_greatest_cosine() {
        let layout = RowLayout::new(2, 0, Bits::Eight).unwrap();
        let circle: Vec<[f32; 2]> = (0..300).map(|n| (n as f32).sin_cos().into()).collect();
        let rows = packed(layout, &circle);
        let centroids = Centroids::find(layout, &rows, 7, 3);
        let nearest = centroids.nearest(&rows);
        assert!((0..7).all(|cell| nearest.contains(&cell)));
        for (row, nearest) in rows.chunks_exact(layout.row_bytes()).zip(nearest) {
            let mut of_row = [0.0; 2];
            decode(layout, row, &mut of_row);
            let cosine =
                |mean: &[f32]| (mean[0] * of_row[0] + mean[1] * of_row[1]) / mean[0].hypot(mean[1]);
            let best = centroids.means().chunks(2).map(cosine).fold(f32::MIN, f32::max);
            let found = cosine(centroids.means().chunks(2).nth(usize::from(nearest)).unwrap());
            assert!(found > best - 1e-3, "{found} of {best}");
        }
    }

    #[test]
    fn rows_of_zeros_move_nothing() {
        let layout = RowLayout::new(2, 0, Bits::Eight).unwrap();
        let rows = packed(layout, &[[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]);
        let centroids = Centroids::find(layout, &rows, 5, 2);
        assert_eq!(centroids.means().len(), 6, "no more than rows");
        assert!(centroids.means().iter().all(|value| value.is_finite()));
    }
}
