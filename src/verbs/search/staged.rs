//! The staged search: sketches choose, codes rank, exact vectors settle.
//!
//! 1. Every archived group of the collection: scores of its sketches against the query, by table
//!    look-ups; rows that died or that the filter's mask keeps out do not count; the best
//!    candidates of all groups are kept, and all that score the same as the last of them. Sketches
//!    stand in RAM as far as their share of the budget goes, the rest is read from disk, 1,024 rows
//!    at a time.
//! 2. Each candidate: its row (alive, not superseded in RAM, not expired), then its codes, from the
//!    arena if it is warm, else by one small read of the archive. A candidate in RAM has its exact
//!    score at once.
//! 3. The best of those: their exact vectors. Codes of 8 and of 4 bits are ranked apart, since one
//!    errs otherwise than the other.
//!
//! If too many candidates fall away at step 2, the search begins again with four times as many, so
//! that expired or superseded rows cost time, never answers. Where the stages cannot pay (few rows
//! for the candidates, most of them lost, a filter that asks for what no row says), the [`scan`]
//! answers. Equal scores go to the lower id at every step; one thread does it all: the answer
//! depends on nothing but the data.
//!
//! Damaged bytes: rows without a whole sketch are scanned; a candidate without whole codes has its
//! exact vector read beside those that are settled; one without a whole vector is answered with the
//! score of its codes.
//!
//! Never: looks at only some of the tiers, or answers with a score of a sketch.

use std::ops::Range;
use std::sync::Arc;

use crate::bytes::codec::codes::CHUNK_ROWS;
use crate::organs::archive::Row;
use crate::pure::filter::Filter;
use crate::pure::quant::{Bits, CodeQuery};
use crate::pure::sketch::{SketchLayout, SketchQuery};
use crate::pure::topk::{Sieve, TopK};
use crate::tiers::Copy;
use crate::tiers::cache::GroupKey;
use crate::words::error::Result;

use super::Search;
use super::ground::{Ground, grounds};
use super::hits::{Answers, Score, whole};
use super::scan;

/// So many candidates that score the same as the last one are looked at besides; where there are
/// more, the scan takes less time. 4,096 take about 5 ms.
const TIES_MAX: usize = 4096;

/// How many go from stage to stage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Widths {
    /// Candidates that sketches choose.
    pub candidates: usize,
    /// Of those, how many exact vectors settle; 0 to answer with the scores of codes.
    pub settled: usize,
}

/// What sketches chose.
struct Chosen {
    /// Ground and row.
    rows: Vec<(usize, u32)>,
    /// Rows whose sketches are damaged.
    unsketched: Vec<(usize, Range<u32>)>,
    /// Whether more rows score the same as the last one than may be looked at.
    crowded: bool,
}

/// What codes made of it.
struct Ranked {
    /// The best by codes of 8 and of 4 bits: the ground and the row.
    by_bits: [TopK<(usize, Row)>; 2],
    /// Answers that need no exact vector any more, and damage.
    answers: Answers,
    /// Candidates that are no answers.
    lost: usize,
}

/// Offers the best archived rows.
pub(super) fn run(search: &Search<'_>, widths: Widths, answers: &mut Answers) -> Result<()> {
    let mut grounds = grounds(search);
    let rows: usize = grounds.iter().map(|ground| ground.vectors as usize).sum();
    // A candidate costs as much as four rows that are scanned.
    let pays = |candidates: usize| candidates < rows / 4;
    let needs = search.query.filter.as_ref().map(Filter::needs).unwrap_or_default();
    let unmasked = needs.last_access || needs.tier;
    if unmasked || !(search.by_codes() || pays(widths.candidates)) {
        return scan::all(search, &grounds, answers);
    }
    if search.query.filter.is_some() || !search.scope.namespace.is_root() {
        grounds.iter_mut().try_for_each(|ground| ground.make_mask(search))?;
        grounds.retain(|ground| !ground.is_empty());
    }
    let mut candidates = widths.candidates;
    loop {
        let chosen = choose(search, &grounds, candidates)?;
        if chosen.crowded {
            break;
        }
        let ranked = rank(search, widths, &grounds, &chosen.rows)?;
        let left = chosen.rows.len() - ranked.lost;
        // One in four may fall away before the choice is too narrow to trust.
        if chosen.rows.len() < candidates || left >= candidates - candidates / 4 {
            *answers = ranked.answers;
            settle(search, &grounds, ranked.by_bits, answers)?;
            for (ground, numbers) in chosen.unsketched {
                if let Some(ground) = grounds.get(ground) {
                    scan::range(search, ground, numbers, answers)?;
                }
            }
            return Ok(());
        }
        candidates = candidates.saturating_mul(4);
        if left < chosen.rows.len() / 4 || !pays(candidates) {
            break;
        }
    }
    scan::all(search, &grounds, answers)
}

/// Stage 1: the best rows by sketch.
fn choose(search: &Search<'_>, grounds: &[Ground<'_>], count: usize) -> Result<Chosen> {
    let mut top: Sieve<(usize, u32)> = Sieve::new(count, TIES_MAX);
    let mut unsketched = Vec::new();
    let layout = SketchLayout::new(search.dim(), search.scope.def.spec.metric);
    let mut scorer: Option<(Vec<f32>, SketchQuery)> = None;
    let mut scores = vec![0.0; CHUNK_ROWS];
    let mut blocks = Vec::new();
    for (number, ground) in grounds.iter().enumerate() {
        let Some(layout) = layout else { continue };
        let file = &ground.segment.segment;
        let Ok(mean) = whole(file.sketch_mean(ground.group))? else {
            unsketched.push((number, 0..ground.vectors));
            continue;
        };
        if scorer.as_ref().is_none_or(|(known, _)| *known != mean) {
            let query = SketchQuery::new(layout, &mean, search.prepared.vector());
            scorer = Some((mean, query));
        }
        let Some((_, sketch)) = &scorer else { continue };
        let kept = kept_sketches(search, ground, layout)?;
        for (chunk, from) in (0..ground.vectors).step_by(CHUNK_ROWS).enumerate() {
            let rows = (ground.vectors - from).min(CHUNK_ROWS as u32);
            let bytes = match &kept {
                Some(all) => {
                    let at = layout.blocks_bytes(from as usize);
                    all.get(at..at + layout.blocks_bytes(rows as usize)).unwrap_or_default()
                }
                None => {
                    let read = file.sketch_chunk(ground.group, layout, chunk, &mut blocks);
                    if whole(read)?.is_err() {
                        unsketched.push((number, from..from + rows));
                        continue;
                    }
                    &blocks
                }
            };
            let Some(scores) = scores.get_mut(..rows as usize) else { continue };
            sketch.score_blocks(bytes, scores);
            for (score, row) in scores.iter().zip(from..) {
                if *score >= top.threshold() && !ground.keeps_out(row) {
                    top.offer(*score, (number, row));
                }
            }
        }
    }
    let (rows, crowded) = top.into_kept();
    Ok(Chosen { rows, unsketched, crowded })
}

/// The sketches of a group, if they are in RAM or there is room for them.
fn kept_sketches(
    search: &Search<'_>,
    ground: &Ground<'_>,
    layout: SketchLayout,
) -> Result<Option<Arc<Vec<u8>>>> {
    let (file, stores) = (&ground.segment.segment, search.scope.stores);
    let key = GroupKey { segment: file.number(), group: ground.group };
    let bytes = layout.blocks_bytes(ground.vectors as usize) as u64;
    let kept = stores.sketches.get(&key);
    if kept.is_some() || !stores.sketches.has_room(bytes, stores.sketch_bytes_max) {
        return Ok(kept);
    }
    let made = || {
        let all = file.sketches(ground.group, layout)?;
        let bytes = all.capacity() as u64;
        Ok((all, bytes))
    };
    // Damaged ones are not kept: the chunks that are whole are read each time.
    Ok(whole(stores.sketches.get_or_make(&key, stores.sketch_bytes_max, made))?.ok())
}

/// Stage 2: what the candidates are worth by their codes, and how many of them are no answers.
fn rank(
    search: &Search<'_>,
    widths: Widths,
    grounds: &[Ground<'_>],
    chosen: &[(usize, u32)],
) -> Result<Ranked> {
    let (scope, spec) = (search.scope, &search.scope.def.spec);
    let by_bits = [TopK::new(widths.settled), TopK::new(widths.settled)];
    let mut ranked = Ranked { by_bits, answers: search.answers(), lost: 0 };
    let mut by_four = None;
    let mut code = Vec::new();
    for (number, at) in chosen {
        let Some(ground) = grounds.get(*number) else { continue };
        let answers = &mut ranked.answers;
        let file = &ground.segment.segment;
        // What cannot be asked may be an answer: its codes say whether it would be a good one.
        let worth = |code: &mut Vec<u8>| -> Result<f32> {
            Ok(whole(search.code_of(ground, *at, code))?.unwrap_or(f32::INFINITY))
        };
        let row = match whole(file.row(ground.group, *at))? {
            Ok(row) => row,
            Err(damage) => {
                answers.lose(worth(&mut code)?, damage);
                continue;
            }
        };
        let copy = ground.copy(scope.view, row.clone());
        match whole(is_answer(search, ground, &row, &copy))? {
            Ok(true) => {}
            Ok(false) => {
                ranked.lost += 1;
                continue;
            }
            Err(damage) => {
                answers.lose(worth(&mut code)?, damage);
                continue;
            }
        }
        let (id, exact) = (row.id, Score::exact(spec.element));
        if let Copy::Hot(hot) = &copy
            && let Some(vector) = hot.record.vector.as_deref()
        {
            answers.offer(search.exact(vector), id, copy.into(), exact);
            continue;
        }
        let (score, bits) = if let Some(code) =
            scope.view.levels.code(scope.def.id, id, row.version)
            && let Ok(bytes) = code.block.block.row(code.row)
        {
            if code.block.block.bits() == 4 {
                let four = by_four.get_or_insert_with(|| {
                    let layout = search.by_eight.layout().with_bits(Bits::Four);
                    CodeQuery::new(layout, spec.metric, search.prepared.vector())
                });
                (four.score(bytes), 4)
            } else {
                (search.by_eight.score(bytes), 8)
            }
        } else {
            match whole(search.code_of(ground, *at, &mut code))? {
                Ok(score) => (score, 8),
                // The exact vector stands for itself, and takes no other candidate's place.
                Err(damage) => {
                    match whole(search.exact_of(ground, *at))? {
                        Ok(score) => {
                            answers.heal(damage);
                            answers.offer(score, id, copy.into(), exact);
                        }
                        Err(damage) => answers.lose(f32::INFINITY, damage),
                    }
                    continue;
                }
            }
        };
        let [by_eight, by_four] = &mut ranked.by_bits;
        if widths.settled == 0 {
            answers.offer(score, id, copy.into(), Score::coded(bits));
        } else {
            let of_its_kind = if bits == 4 { by_four } else { by_eight };
            of_its_kind.offer(score, id, (*number, row));
        }
    }
    Ok(ranked)
}

/// Whether a live row of the archive may be answered.
fn is_answer(search: &Search<'_>, ground: &Ground<'_>, row: &Row, copy: &Copy) -> Result<bool> {
    let scope = search.scope;
    if scope.view.shadows(row.id) || scope.view.levels.hides(row.id) || copy.expired(scope.now) {
        return Ok(false);
    }
    if ground.lets_pass(row.number) {
        return Ok(true);
    }
    scope.passes(copy, search.query.filter.as_ref(), None)
}

/// Stage 3: exact scores of the best.
fn settle(
    search: &Search<'_>,
    grounds: &[Ground<'_>],
    by_bits: [TopK<(usize, Row)>; 2],
    answers: &mut Answers,
) -> Result<()> {
    let exact = Score::exact(search.scope.def.spec.element);
    for (best, bits) in by_bits.into_iter().zip([8, 4]) {
        for (by_code, id, (number, row)) in best.into_sorted() {
            let Some(ground) = grounds.get(number) else { continue };
            let vector = ground.segment.segment.vector(ground.group, &row);
            let copy = ground.copy(search.scope.view, row);
            match whole(vector)? {
                Ok(Some(vector)) => answers.offer(search.exact(&vector), id, copy.into(), exact),
                Ok(None) => {}
                Err(damage) => {
                    answers.heal(damage);
                    answers.offer(by_code, id, copy.into(), Score::coded(bits));
                }
            }
        }
    }
    Ok(())
}
