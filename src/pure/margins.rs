//! Margins: how far below the best centroid cells are worth a look, measured on rows of the collection.
//!
//! 1. Some rows are asked as if they were queries: for every other row, how near it lies, and how far the
//!    centroid of its cell lies below the best one: its gap ([`Gaps`]).
//! 2. [`measure`] makes a table of that: for rows at a cosine of a level or more, the margin that a
//!    share of them keeps. Rows count such that every asked one weighs the same.
//! 3. A query whose k-th hit lies at some cosine wants exactly the rows that lie as near, so it takes the margin of
//!    that level ([`margin`]).
//!
//! The level is what makes rows speak for queries. Neighbours of a row may lie much nearer than those of a
//! query (near copies, passages of one text), and near neighbours share cells: at 300,000 rows between
//! passages the tenth neighbour lay at 0.69 from rows and 0.54 from queries. At one cosine both agree.
//!
//! Never: looks at vectors, or decides how sure a search has to be.

/// Levels of the cosine, evenly from 0 on.
pub const LEVELS: usize = 32;
/// Shares of the rows that margins are told for.
pub const SHARES: [f32; 8] = [0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999];
/// The widest margin: cosines differ by no more.
pub const MARGIN_MAX: f32 = 2.0;

/// Gaps are told apart by the 128th, up to 1; the last bin holds what is wider.
const BINS: usize = 129;
const BINS_A_UNIT: f32 = 128.0;
/// A level that fewer asked rows have a neighbour at has its margins from the one below, which are wider; and so
/// has a share beyond which fewer rows were seen.
const ASKED_MIN: u32 = 16;
const BEYOND_MIN: f64 = 2.0;

/// For each level the margins of [`SHARES`].
pub type Margins = [[f32; SHARES.len()]; LEVELS];

/// The gaps of the rows around one row, by level.
#[derive(Clone, Debug)]
pub struct Gaps {
    /// 8 KiB: hundreds of rows are asked at once.
    counts: Vec<u16>,
}

impl Default for Gaps {
    fn default() -> Gaps {
        Gaps { counts: vec![0; LEVELS * BINS] }
    }
}

impl Gaps {
    /// The bin of a gap. Rounded up, so that a margin holds whatever its bin does.
    #[must_use]
    pub fn bin(gap: f32) -> u8 {
        (gap.max(0.0) * BINS_A_UNIT).ceil().min((BINS - 1) as f32) as u8
    }

    /// Notes a row at this cosine, whose gap is of this bin. Below 0 no query looks for hits.
    #[inline]
    pub fn note(&mut self, cosine: f32, bin: u8) {
        if cosine >= 0.0 {
            let level = ((cosine * LEVELS as f32) as usize).min(LEVELS - 1);
            if let Some(count) = self.counts.get_mut(level * BINS + usize::from(bin)) {
                *count = count.saturating_add(1);
            }
        }
    }

    /// Adds its rows of a level to `counts`.
    fn add_level(&self, level: usize, counts: &mut [u32]) {
        let own = self.counts.get(level * BINS..).unwrap_or_default();
        counts.iter_mut().zip(own).for_each(|(sum, count)| *sum += u32::from(*count));
    }
}

/// The margins that rows who were asked say. They never rise with the level.
#[must_use]
pub fn measure(asked: &[Gaps]) -> Margins {
    let mut margins = [[None; SHARES.len()]; LEVELS];
    // Rows at a level or nearer, of each asked one.
    let mut nearer = vec![[0_u32; BINS]; asked.len()];
    let mut above = [0.0_f32; SHARES.len()];
    for (level, margins) in margins.iter_mut().enumerate().rev() {
        let (mut shares, mut count, mut seen) = ([0.0_f64; BINS], 0_u32, 0.0);
        for (gaps, nearer) in asked.iter().zip(&mut nearer) {
            gaps.add_level(level, nearer);
            let rows: u32 = nearer.iter().sum();
            if rows > 0 {
                (count, seen) = (count + 1, seen + f64::from(rows));
                let part = |rows_of: &u32| f64::from(*rows_of) / f64::from(rows);
                shares.iter_mut().zip(nearer).for_each(|(sum, rows)| *sum += part(rows));
            }
        }
        let all = margins.iter_mut().zip(&mut above).zip(SHARES.map(f64::from));
        for ((margin, above), share) in all {
            if count >= ASKED_MIN && seen * (1.0 - share) >= BEYOND_MIN {
                *above = above.max(quantile(&shares, share * f64::from(count)));
                *margin = Some(*above);
            }
        }
    }
    let mut below = [MARGIN_MAX; SHARES.len()];
    margins.map(|margins| {
        below.iter_mut().zip(margins).for_each(|(below, own)| *below = own.unwrap_or(*below));
        below
    })
}

/// The end of the bin with which the sum reaches `wanted`.
fn quantile(shares: &[f64], wanted: f64) -> f32 {
    let mut sum = 0.0;
    // Sums of many parts: one part in a billion may be lost to rounding.
    let bin = shares.iter().position(|share| {
        sum += share;
        sum >= wanted * (1.0 - 1e-9)
    });
    match bin {
        Some(bin) if bin + 1 < BINS => bin as f32 / BINS_A_UNIT,
        _ => MARGIN_MAX,
    }
}

/// The margin for so much of the hits when the last of them lies at this cosine; infinity when nothing was
/// measured for it. Between two levels, and two shares, it lies between theirs.
#[must_use]
pub fn margin(margins: &Margins, share: f32, last: f32) -> f32 {
    // Whoever asks for less than was measured gets that.
    let after = SHARES.partition_point(|known| *known < share);
    let of = |level: usize| -> Option<f32> {
        let margins = margins.get(level.min(LEVELS - 1))?;
        let above = *margins.get(after)?;
        let Some(before) = after.checked_sub(1) else { return Some(above) };
        let (low, high) = (SHARES.get(before)?, SHARES.get(after)?);
        let below = margins.get(before)?;
        Some(below + (above - below) * (share - low) / (high - low))
    };
    if last.is_nan() || last < 0.0 {
        return f32::INFINITY;
    }
    let place = last.min(1.0) * LEVELS as f32;
    let level = place as usize;
    match (of(level), of(level + 1)) {
        (Some(below), Some(above)) => below + (above - below) * (place - level as f32),
        _ => f32::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forty asked rows: some neighbours at 0.8 in the best cell, and others at 0.3 up to `far` away; half of
    /// the asked have a hundred times as many of those, which lie nearer.
    fn asked() -> Vec<Gaps> {
        let asked = |n: usize| {
            let mut gaps = Gaps::default();
            let (count, far) = if n.is_multiple_of(2) { (20_000, 0.2) } else { (200, 0.4) };
            (0..count).for_each(|row| gaps.note(0.3, Gaps::bin(row as f32 * far / count as f32)));
            (0..100).for_each(|_| gaps.note(0.8, Gaps::bin(0.0)));
            gaps.note(-0.2, Gaps::bin(1.9));
            gaps
        };
        (0..40).map(asked).collect()
    }

    #[test]
    fn margins_are_those_of_rows_as_near() {
        let margins = measure(&asked());
        // At 0.8 and beyond, where nobody was: the best cell.
        for last in [0.5, 0.78, 0.99, 1.0] {
            assert_eq!(margin(&margins, 0.99, last), 0.0, "{last}");
        }
        let near = |a: f32, b: f32| (a - b).abs() <= 1.5 / BINS_A_UNIT;
        // Every asked one weighs the same: 0.9 of all are all of the many (up to 0.2), and 0.8 of the others, of
        // which 100 of 300 lie in the best cell. By rows it were 0.18.
        let (low, high) = (margin(&margins, 0.9, 0.2), margin(&margins, 0.98, 0.2));
        assert!(near(low, 0.4 * (0.8 * 300.0 - 100.0) / 200.0), "{low}");
        assert!(near(high, 0.4 * (0.96 * 300.0 - 100.0) / 200.0), "{high}");
        let between = margin(&margins, 0.945, 0.2);
        assert!(low < between && between < high);
        assert_eq!(margin(&margins, 0.5, 0.2), low, "the least that was measured");
        // More than was measured, and hits on the other side: everything.
        assert_eq!(margin(&margins, 0.9999, 0.2), f32::INFINITY);
        assert_eq!(margin(&margins, 0.9, -0.1), f32::INFINITY);
        assert_eq!(margin(&margins, 0.9, f32::NAN), f32::INFINITY);
    }

    #[test]
    fn margins_never_rise_with_the_level() {
        // The nearest neighbours of each lie in another cell.
        let mut asked = asked();
        (0..10).for_each(|_| asked.iter_mut().for_each(|gaps| gaps.note(0.95, Gaps::bin(0.1))));
        let margins = measure(&asked);
        assert_eq!(margin(&margins, 0.9, 1.0), 13.0 / BINS_A_UNIT);
        let falls = |two: &[[f32; SHARES.len()]]| two[0].iter().zip(&two[1]).all(|(a, b)| a >= b);
        assert!(margins.windows(2).all(falls), "{margins:?}");
    }

    #[test]
    fn few_rows_say_nothing() {
        let margins = measure(&asked()[..ASKED_MIN as usize - 1]);
        assert!(margins.iter().flatten().all(|margin| *margin == MARGIN_MAX));
        // Of forty rows four lie beyond 0.9, and less than one beyond 0.99.
        let mut gaps = Gaps::default();
        gaps.note(0.6, Gaps::bin(0.25));
        let margins = measure(&vec![gaps; 40]);
        assert_eq!(margin(&margins, 0.9, 0.5), 0.25);
        assert_eq!(margin(&margins, 0.99, 0.5), MARGIN_MAX);
    }

    #[test]
    fn gaps_are_rounded_up() {
        for (gap, bin) in [(-1.0, 0), (0.0, 0), (1e-6, 1), (0.5, 64), (1.0, 128), (1.7, 128)] {
            assert_eq!(Gaps::bin(gap), bin, "{gap}");
        }
        let mut gaps = Gaps::default();
        gaps.note(1.0, Gaps::bin(1.7));
        let margins = measure(&vec![gaps; 2 * ASKED_MIN as usize]);
        assert_eq!(margin(&margins, 0.9, 0.1), MARGIN_MAX, "wider than bins tell");
    }
}
