//! Choosing: the rows whose sketches are nearest to the query, over all archived groups.
//!
//! 1. Rows that stand in cells: of those cells whose centroids are near enough for the recall that is
//!    asked for ([`super::cells`]).
//! 2. All other rows, group by group. Sketches stand in RAM as far as their share of the budget goes,
//!    the rest is read from disk, 1,024 rows at a time.
//!
//! Rows that died or that the filter's mask keeps out do not count. The best of all are kept, and all
//! that score the same as the last of them.
//!
//! Damaged bytes: rows without a whole sketch are named, to be scanned.
//!
//! Never: reads a row, or leaves out one whose sketch scores among the best it looked at.

use std::ops::Range;
use std::sync::Arc;

use crate::bytes::codec::codes::CHUNK_ROWS;
use crate::pure::sketch::{SketchLayout, SketchQuery};
use crate::tiers::cache::{GroupKey, GroupSketches};
use crate::words::error::Result;

use super::gather::{Candidate, Gather, Run};
use super::ground::Ground;
use super::hits::whole;
use super::{Search, cells};

/// What sketches chose.
pub(super) struct Chosen {
    /// The candidates with their scores, the best first.
    pub rows: Vec<(f32, Candidate)>,
    /// Rows whose sketches are damaged.
    pub unsketched: Vec<(u32, Range<u32>)>,
    /// Whether more rows score the same as the last one than may be looked at.
    pub crowded: bool,
}

/// The best rows by sketch. `pruned` says that cells beyond the margin need not be looked at.
pub(super) fn choose(
    search: &Search<'_>,
    grounds: &[Ground<'_>],
    count: usize,
    pruned: bool,
) -> Result<Chosen> {
    let counts = |(number, row): Candidate| {
        grounds.get(number as usize).is_some_and(|ground| !ground.keeps_out(row))
    };
    let rows = || grounds.iter().map(|ground| ground.vectors);
    let cells = search.scope.view.levels.cells.get(&search.scope.def.id);
    let references = cells.map_or(0, |cells| cells.tables.refs.len() as u32);
    let gather_all = || Gather::new(count, search.wanted(), references, rows(), counts);
    let mut gather = gather_all();
    let mut covered = Vec::new();
    if let Some(cells) = cells {
        match cells::offer(search, cells, grounds, pruned, &mut gather) {
            Ok(grounds) => covered = grounds,
            // Their rows have sketches of their own, and the next checkpoint makes cells anew.
            Err(error) => {
                tracing::warn!(%error, "a collection is searched without its cells");
                cells.set_broken();
                gather = gather_all();
            }
        }
    }
    let mut unsketched = Vec::new();
    let layout = SketchLayout::new(search.dim(), search.scope.def.spec.metric);
    let mut scorer: Option<(Vec<f32>, SketchQuery)> = None;
    let mut blocks = Vec::new();
    for (number, ground) in (0_u32..).zip(grounds) {
        let Some(layout) = layout else { continue };
        if covered.get(number as usize) == Some(&true) {
            continue;
        }
        let file = &ground.segment.segment;
        let kept = kept_sketches(search, ground, layout)?;
        let read = match &kept {
            Some(_) => Vec::new(),
            None => match whole(file.sketch_mean(ground.group))? {
                Ok(mean) => mean,
                Err(_) => {
                    unsketched.push((number, 0..ground.vectors));
                    continue;
                }
            },
        };
        let mean = kept.as_ref().map_or(&read, |kept| &kept.mean);
        let query = search.prepared.vector();
        match &mut scorer {
            Some((known, sketch)) if *known != *mean => {
                sketch.set_mean(mean, query);
                known.clone_from(mean);
            }
            Some(_) => {}
            None => scorer = Some((mean.clone(), SketchQuery::new(layout, mean, query))),
        }
        let Some((_, sketch)) = &scorer else { continue };
        for (chunk, from) in (0..ground.vectors).step_by(CHUNK_ROWS).enumerate() {
            let rows = (ground.vectors - from).min(CHUNK_ROWS as u32);
            let (bytes, next) = match &kept {
                Some(all) => {
                    let blocks = all.blocks.get(layout.blocks_bytes(from as usize)..);
                    let len = layout.blocks_bytes(rows as usize);
                    blocks.and_then(|blocks| blocks.split_at_checked(len)).unwrap_or_default()
                }
                None => {
                    let read = file.sketch_chunk(ground.group, layout, chunk, &mut blocks);
                    if whole(read)?.is_err() {
                        unsketched.push((number, from..from + rows));
                        continue;
                    }
                    (blocks.as_slice(), [].as_slice())
                }
            };
            let run = Run::Rows(number, from..from + rows);
            gather.add(&run, |scores| sketch.score_blocks(bytes, next, scores));
        }
    }
    let (rows, crowded) = gather.into_sorted();
    Ok(Chosen { rows, unsketched, crowded })
}

/// The sketches of a group, if they are in RAM or there is room for them.
fn kept_sketches(
    search: &Search<'_>,
    ground: &Ground<'_>,
    layout: SketchLayout,
) -> Result<Option<Arc<GroupSketches>>> {
    let (file, stores) = (&ground.segment.segment, search.scope.stores);
    let (cache, bytes_max) = (&stores.caches.sketches, stores.shares.sketch_bytes_max);
    let key = key(ground);
    let mean_bytes = size_of::<f32>() * layout.dim();
    let bytes = (layout.blocks_bytes(ground.vectors as usize) + mean_bytes) as u64;
    let kept = cache.get(&key);
    if kept.is_some() || !cache.has_room(bytes, bytes_max) {
        return Ok(kept);
    }
    let made = || {
        let mean = file.sketch_mean(ground.group)?;
        Ok((GroupSketches { mean, blocks: file.sketches(ground.group, layout)? }, bytes))
    };
    // Damaged ones are not kept: the chunks that are whole are read each time.
    Ok(whole(cache.get_or_make(&key, bytes_max, made))?.ok())
}

pub(super) fn key(ground: &Ground<'_>) -> GroupKey {
    GroupKey { segment: ground.segment.segment.number(), group: ground.group }
}
