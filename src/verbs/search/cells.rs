//! Choosing by cells: only the sketches near to the query are looked at.
//!
//! 1. Every centroid is scored, by its codes.
//! 2. Cells whose centroid lies within the reach below the best one are looked into, the best first, so
//!    that the threshold soon says something. How far that is was measured when the cells were made
//!    (`tiers/grouper`), for the recall a query asks for, and scaled by how far the k-th best of the first
//!    cells lies from the query; a query that prunes nothing looks into all.
//! 3. Their sketches are scored with the centroid in the place of the mean. Bodies stand in RAM if all of
//!    them have room in their share of the budget; else each cell is one read.
//!
//! Of a cell those rows count whose segment is still there, and that nothing keeps out.
//!
//! Never: answers for a group that is not among the sources.

use std::sync::Arc;

use crate::bytes::codec::cells::{HITS, RECALLS, aside};
use crate::organs::arena::cells::Cells;
use crate::pure::sketch::SketchQuery;
use crate::words::error::Result;

use super::gather::{Candidate, Gather, Run};
use super::ground::Ground;
use super::{Exactness, Search};

/// Of what may be missed this part may be missed by looking at too few cells, the rest by sketches and
/// codes.
const MISSED_PART: f32 = 0.8;

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
    let reach = if pruned { reach(search, cells) } else { f32::INFINITY };
    let mut near: Vec<(f32, usize)> = cosines.into_iter().zip(0..).collect();
    // The unit is at most 1.
    near.retain(|(cosine, cell)| *cosine >= best - reach && !cells.refs(*cell).is_empty());
    let mut least = f32::NEG_INFINITY;
    near.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let bodies = kept_bodies(search, cells)?;
    let mean = vec![0.0; search.dim()];
    let mut sketch = SketchQuery::new(layout, &mean, search.prepared.vector());
    let mut blocks = Vec::new();
    for (nth, (cosine, cell)) in near.iter().copied().enumerate() {
        if cosine < least {
            break;
        }
        let refs = cells.refs(cell);
        let (bytes, next) = match &bodies {
            Some(bodies) => {
                let next = near.get(nth + 1).map(|(_, cell)| cells.blocks(*cell, bodies));
                (cells.blocks(cell, bodies), next.unwrap_or_default())
            }
            None => {
                cells.read(cell, &mut blocks)?;
                (blocks.as_slice(), [].as_slice())
            }
        };
        sketch.set_base(cosine * cells.norms().get(cell).copied().unwrap_or(0.0));
        gather.add(Run::References(refs), refs.len(), |scores| {
            sketch.score_blocks_before(bytes, next, scores);
        });
        if reach.is_finite()
            && least == f32::NEG_INFINITY
            && let Some(last) = gather.nth_best(search.wanted())
        {
            least = best - reach * aside(last.clamp(0.0, 1.0));
        }
    }
    Ok(covered)
}

/// How far below the best centroid's cosine cells are worth a look, in units of [`aside`].
fn reach(search: &Search<'_>, cells: &Cells) -> f32 {
    let recall = match search.query.exactness {
        Exactness::Target(recall) => recall,
        Exactness::Codes => 0.99,
        Exactness::Exact => 1.0,
    };
    let share = 1.0 - (1.0 - recall) * MISSED_PART;
    if search.query.k > HITS {
        // Nobody has measured how far so many lie apart.
        return f32::INFINITY;
    }
    // Between two shares that were measured the reach lies between theirs.
    let mut below = (0.0, 0.0);
    for (known, reach) in RECALLS.into_iter().zip(cells.header.reaches) {
        if known >= share {
            let part = (share - below.0) / (known - below.0);
            return below.1 + (reach - below.1) * part;
        }
        below = (known, reach);
    }
    f32::INFINITY
}

/// All bodies, if they are in RAM or there is room for them.
fn kept_bodies(search: &Search<'_>, cells: &Cells) -> Result<Option<Arc<Vec<u8>>>> {
    let stores = search.scope.stores;
    let (cache, bytes_max) = (&stores.caches.cells, stores.shares.cell_bytes_max);
    let (number, bytes) = (cells.number(), cells.bodies_bytes());
    let kept = cache.get(&number);
    if kept.is_some() || !cache.has_room(bytes, bytes_max) {
        return Ok(kept);
    }
    cache.get_or_make(&number, bytes_max, || Ok((cells.bodies()?, bytes))).map(Some)
}

/// Where references lead.
#[derive(Default)]
pub(super) struct Homes {
    /// First reference of each source, and the ground it is, if it is still there.
    bases: Vec<(u32, Option<u32>)>,
}

impl Homes {
    /// Marks the grounds that are sources.
    fn of(cells: &Cells, grounds: &[Ground<'_>], covered: &mut [bool]) -> Homes {
        let mut base = 0_u32;
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
            bases.push((base, found.and_then(|number| u32::try_from(number).ok())));
            base = base.saturating_add(source.vectors);
        }
        Homes { bases }
    }

    pub fn of_reference(&self, reference: u32) -> Option<Candidate> {
        let after = self.bases.partition_point(|(base, _)| *base <= reference);
        let (base, ground) = self.bases.get(after.checked_sub(1)?)?;
        Some(((*ground)?, reference - base))
    }
}
