//! Choosing by cells: only the sketches near to the query are looked at.
//!
//! 1. Every centroid is scored, by its codes.
//! 2. Cells whose centroid lies within a margin below the best one are looked into, the best first. How wide it
//!    is was measured when the cells were made (`tiers/grouper`), for the recall a query asks for and the
//!    cosine of the last of its hits. What that is, the first cells say, and then the others: the margin gets
//!    narrower the more is known. A query that prunes nothing looks into all.
//! 3. Their sketches are scored with the centroid in the place of the mean. Bodies stand in RAM if all of
//!    them have room in their share of the budget; else each cell is one read.
//!
//! Of a cell those rows count whose segment is still there, and that nothing keeps out.
//!
//! Never: answers for a group that is not among the sources.

use std::sync::Arc;

use crate::organs::arena::Bodies;
use crate::organs::arena::cells::Cells;
use crate::pure::margins::margin;
use crate::pure::sketch::SketchQuery;
use crate::pure::topk::Order;
use crate::words::error::Result;

use super::gather::{Candidate, Gather, Run};
use super::ground::Ground;
use super::{Exactness, Search};

/// Of what may be missed this part may be missed by looking at too few cells, the rest by sketches and
/// codes, and by cells for which rows speak less well for queries: over fourteen groupings of 64,287 passages the
/// recall of 1,000 queries had a standard deviation of 0.0015 at 0.99 and of 0.004 at 0.95.
const MISSED_PART: f32 = 0.7;
/// What scores by codes of 8 bits miss of the best ten themselves: cells may miss so much less. Measured on passages:
/// docs/decisions/0020-codes-with-a-recall.md.
const MISSED_BY_CODES: f32 = 0.005;
/// For more than this no more cells are looked into: codes find 0.994 in all of them.
const FOUND_BY_CODES_MAX: f32 = 0.99;
/// How much the last of the best looks nearer than it is, times the dimension: the best of many estimates are
/// those that err upwards, by about the variance of the error, `(pi / 2 - 1) / dim`, for each standard deviation
/// that they stand out by. With three of it the cells of random vectors held what was asked for at 8 to 384
/// dimensions; without, 0.94 of 0.99 at 16.
const BIAS: f32 = 3.0 * (std::f32::consts::FRAC_PI_2 - 1.0);
/// The last hit is looked for again when so many times as many rows were seen.
const ASKED_EVERY: usize = 2;
/// Cells that are put in order at a time: at 64,287 rows half of all searches look into no more.
const CELLS_AT_ONCE: usize = 64;

/// Offers the rows of the cells worth a look, and says which grounds they are all rows of. On an error,
/// of which a damaged cell is one, some may have been offered.
pub(super) fn offer<'a, C: Fn(Candidate) -> bool>(
    search: &Search<'_>,
    cells: &'a Cells,
    grounds: &[Ground<'_>],
    pruned: bool,
    gather: &mut Gather<'a, C>,
) -> Result<Vec<bool>> {
    let mut covered = vec![false; grounds.len()];
    let Some(layout) = cells.header.sketches().filter(|layout| layout.dim() == search.dim()) else {
        return Ok(covered);
    };
    if cells.is_broken() {
        return Ok(covered);
    }
    gather.homes = Homes::of(cells, grounds, &mut covered);
    if !covered.contains(&true) {
        return Ok(covered);
    }
    let mut cosines = vec![0.0; cells.norms().len()];
    search.by_eight.score_rows(&cells.tables.centroids, &mut cosines);
    let best = cosines.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let share = share(search.query.exactness);
    let bias = BIAS / search.dim() as f32;
    let mut floor = f32::NEG_INFINITY;
    let near = cosines.into_iter().zip(0..);
    let near = near.filter(|(_, cell)| !cells.refs(*cell as usize).is_empty());
    let mut near = Order::new(near, CELLS_AT_ONCE).peekable();
    let (mut seen_rows, mut asked_at) = (0, 0);
    let kept = kept_blocks(search, cells)?;
    let mut sketch = SketchQuery::without_mean(layout, search.prepared.vector());
    let mut blocks = Vec::new();
    while let Some((cosine, cell)) = near.next() {
        if cosine < floor {
            break;
        }
        let cell = cell as usize;
        let (bytes, next) = match &kept {
            Some(all) => {
                let next = near.peek().map(|(_, next)| cells.blocks(*next as usize, all));
                (cells.blocks(cell, all), next.unwrap_or_default())
            }
            None => {
                cells.read(cell, &mut blocks)?;
                (blocks.as_slice(), [].as_slice())
            }
        };
        sketch.set_base(cosine * cells.norms().get(cell).copied().unwrap_or(0.0));
        gather.add(&Run::References(cells.places(cell)), |scores| {
            sketch.score_blocks(bytes, next, scores);
        });
        seen_rows += cells.refs(cell).len();
        if pruned
            && seen_rows >= ASKED_EVERY * asked_at
            && let Some(last) = gather.last_hit()
        {
            floor = floor.max(best - margin(&cells.tables.margins, share, last - bias));
            asked_at = seen_rows;
        }
    }
    Ok(covered)
}

/// Which share of the hits the cells have to hold.
fn share(exactness: Exactness) -> f32 {
    let missed = match exactness {
        Exactness::Target(recall) => 1.0 - recall,
        Exactness::Codes(recall) => 1.0 - recall.min(FOUND_BY_CODES_MAX) - MISSED_BY_CODES,
        Exactness::Exact => 0.0,
    };
    1.0 - missed * MISSED_PART
}

/// The blocks of all cells, if they are in RAM or there is room for them.
fn kept_blocks(search: &Search<'_>, cells: &Cells) -> Result<Option<Arc<Bodies>>> {
    let stores = search.scope.stores;
    let (cache, bytes_max) = (&stores.caches.cells, stores.shares.cell_bytes_max);
    let (number, bytes) = (cells.number(), cells.bodies_bytes());
    let kept = cache.get(&number);
    if kept.is_some() || !cache.has_room(bytes, bytes_max) {
        return Ok(kept);
    }
    cache.get_or_make(&number, bytes_max, || Ok((cells.all_blocks()?, bytes))).map(Some)
}

/// Where references lead.
#[derive(Default)]
pub(super) struct Homes<'a> {
    /// All references, cell by cell.
    references: &'a [u32],
    /// First reference of each source, and the ground it is, if it is still there.
    bases: Vec<(u32, Option<u32>)>,
    /// Whether all of them lead to rows that count: then none need be looked up, which for 1,100 rows of 20,000 is
    /// a tenth of a search.
    all_count: bool,
}

impl<'a> Homes<'a> {
    /// Marks the grounds that are sources.
    fn of(cells: &'a Cells, grounds: &[Ground<'_>], covered: &mut [bool]) -> Homes<'a> {
        let (mut base, mut all_count) = (0_u32, true);
        let mut bases = Vec::with_capacity(cells.tables.sources.len());
        for source in &cells.tables.sources {
            let key = |ground: &Ground<'_>| (ground.segment.segment.number(), ground.group);
            let found = grounds.binary_search_by_key(&(source.segment, source.group), key).ok();
            let same = |number: &usize| {
                let ground = grounds.get(*number);
                ground.is_some_and(|ground| {
                    ground.segment.segment.crc() == source.crc && ground.vectors == source.vectors
                })
            };
            let found = found.filter(same);
            if let Some(covered) = found.and_then(|number| covered.get_mut(number)) {
                *covered = true;
            }
            let ground = found.and_then(|number| grounds.get(number));
            all_count &= ground.is_some_and(Ground::is_open);
            bases.push((base, found.and_then(|number| u32::try_from(number).ok())));
            base = base.saturating_add(source.vectors);
        }
        Homes { references: &cells.tables.refs, bases, all_count }
    }

    /// References that lead to sources, each with the first reference and the ground that it is, if it is still there.
    #[cfg(test)]
    pub fn new(references: &'a [u32], bases: &[(u32, Option<u32>)], all_count: bool) -> Homes<'a> {
        Homes { references, bases: bases.into(), all_count }
    }

    /// Whether all references lead to rows that count.
    pub fn all_count(&self) -> bool {
        self.all_count
    }

    /// The row at a place of a run, if its ground is still there.
    pub fn candidate(&self, run: &Run, at: u32) -> Option<Candidate> {
        match run {
            Run::Rows(number, rows) => {
                let row = rows.start + at;
                rows.contains(&row).then_some((*number, row))
            }
            Run::References(places) => self.of_reference(self.reference(places.start + at)?),
        }
    }

    /// The reference at a place of all of them; `None` behind the last.
    pub fn reference(&self, place: u32) -> Option<u32> {
        self.references.get(place as usize).copied()
    }

    /// The row that a reference leads to, if its ground is still there.
    pub fn of_reference(&self, reference: u32) -> Option<Candidate> {
        let after = self.bases.partition_point(|(base, _)| *base <= reference);
        let (base, ground) = self.bases.get(after.checked_sub(1)?)?;
        Some(((*ground)?, reference - base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_more_has_more_of_the_hits_in_cells() {
        let near = |got: f32, wanted: f32| assert!((got - wanted).abs() < 1e-6, "{got} {wanted}");
        near(share(Exactness::Exact), 1.0);
        near(share(Exactness::Target(0.99)), 0.993);
        near(share(Exactness::Target(0.95)), 0.965);
        // By codes the same, of what codes leave; and no more than they can find.
        near(share(Exactness::Codes(0.95)), 0.9685);
        near(share(Exactness::Codes(0.99)), 0.9965);
        near(share(Exactness::Codes(1.0)), 0.9965);
        assert!(share(Exactness::Codes(1e-9)) > 0.0);
    }
}
