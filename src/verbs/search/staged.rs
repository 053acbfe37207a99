//! The staged search: sketches choose, codes rank, exact vectors settle.
//!
//! 1. Every archived group of the collection: scores of its sketches against the query, by table
//!    look-ups; rows that died or that the filter's mask keeps out do not count; the best
//!    candidates of all groups are kept. Sketches stand in RAM as far as their share of the budget
//!    goes, the rest is read from disk, 1,024 rows at a time.
//! 2. Each candidate: its row (alive, not superseded in RAM, not expired, passes what a mask cannot
//!    say), then its codes, from the arena if it is warm, else by one small read of the archive.
//! 3. The best of those: their exact vectors, from RAM if they are hot, else from the archive.
//!
//! If too many candidates fall away at step 2, the search begins again with four times as many, so
//! that expired or superseded rows cost time, never answers. A row whose codes are damaged goes to
//! step 3 all the same. Equal scores go to the lower id at every step; one thread does it all: the
//! answer depends on nothing but the data.
//!
//! Never: looks at only some of the tiers, or answers with a score of a sketch.

use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::bytes::codec::codes::{self, CHUNK_ROWS};
use crate::organs::archive::{BodyReader, Row};
use crate::pure::kernel::{self, PreparedQuery};
use crate::pure::quant::{Bits, CodeQuery};
use crate::pure::sketch::{SketchLayout, SketchQuery};
use crate::pure::topk::TopK;
use crate::tiers::Copy;
use crate::tiers::cache::GroupKey;
use crate::tiers::cold::{ColdRow, ColdSegment};
use crate::tiers::probe::Scope;
use crate::words::error::{ErrorKind, Result};
use crate::words::id::EntryId;
use crate::words::record::Place;

use super::{Found, Query, Score};

/// How many go from stage to stage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Widths {
    /// Candidates that sketches choose.
    pub candidates: usize,
    /// Of those, how many exact vectors settle; 0 to answer with the scores of codes.
    pub settled: usize,
}

/// A group of the archive that is searched.
struct Ground<'a> {
    segment: &'a Arc<ColdSegment>,
    group: u16,
    vectors: usize,
    mask: Option<Arc<RoaringBitmap>>,
}

/// A candidate that proved to be an answer, with its score by codes.
struct Ranked {
    copy: Copy,
    place: Place,
    bits: u8,
}

/// A candidate with its score and id.
type Scored = (f32, EntryId, Ranked);

/// Offers the best archived rows to `best`.
pub(super) fn run(
    scope: &Scope<'_>,
    query: &Query,
    prepared: &PreparedQuery,
    widths: Widths,
    best: &mut TopK<(Found, Score)>,
) -> Result<()> {
    let mut grounds = Vec::new();
    for (segment, group) in scope.view.cold.groups(scope.def.id) {
        let footer = &segment.segment.footer().groups;
        let vectors = footer.get(usize::from(group)).map_or(0, |g| g.vectors as usize);
        if vectors > 0 {
            let mask = mask(scope, query, segment, group)?;
            if mask.as_ref().is_none_or(|mask| !mask.is_empty()) {
                grounds.push(Ground { segment, group, vectors, mask });
            }
        }
    }
    let rows: usize = grounds.iter().map(|ground| ground.vectors).sum();
    let mut candidates = widths.candidates;
    loop {
        let chosen = choose(scope, prepared, &grounds, candidates)?;
        let all = chosen.len() < candidates || candidates >= rows;
        let (ranked, lost) = rank(scope, query, prepared, &grounds, &chosen)?;
        // One in four may fall away before the choice is too narrow to trust.
        if all || lost * 4 <= chosen.len() {
            return settle(scope, query, prepared, widths, ranked, best);
        }
        candidates = candidates.saturating_mul(4);
    }
}

/// Stage 1: the best rows by sketch, best first: (ground, row).
fn choose(
    scope: &Scope<'_>,
    prepared: &PreparedQuery,
    grounds: &[Ground<'_>],
    count: usize,
) -> Result<Vec<(usize, u32)>> {
    let spec = &scope.def.spec;
    let Some(layout) = SketchLayout::new(prepared.vector().len(), spec.metric) else {
        return Ok(Vec::new());
    };
    let mut top: TopK<(usize, u32)> = TopK::new(count);
    let mut scorer: Option<(Vec<f32>, SketchQuery)> = None;
    let mut scores = vec![0.0; CHUNK_ROWS];
    let mut blocks = Vec::new();
    // Ids are not known yet: the order of rows in the archive breaks ties of sketches.
    let mut order = 0u64;
    for (number, ground) in grounds.iter().enumerate() {
        let file = &ground.segment.segment;
        let mean = file.sketch_mean(ground.group)?;
        if scorer.as_ref().is_none_or(|(known, _)| *known != mean) {
            let query = SketchQuery::new(layout, &mean, prepared.vector());
            scorer = Some((mean, query));
        }
        let Some((_, sketch)) = &scorer else { continue };
        let Some(dead) = ground.segment.dead.get(usize::from(ground.group)) else { continue };
        let key = GroupKey { segment: file.number(), group: ground.group };
        let kept = match scope.stores.sketches.get(&key) {
            None if scope.stores.sketches.has_room(
                layout.blocks_bytes(ground.vectors) as u64,
                scope.stores.sketch_bytes_max,
            ) =>
            {
                let made = || {
                    let all = file.sketches(ground.group, layout)?;
                    let bytes = all.capacity() as u64;
                    Ok((all, bytes))
                };
                let bytes_max = scope.stores.sketch_bytes_max;
                Some(scope.stores.sketches.get_or_make(&key, bytes_max, made)?)
            }
            kept => kept,
        };
        for (chunk, from) in (0..ground.vectors).step_by(CHUNK_ROWS).enumerate() {
            let rows = (ground.vectors - from).min(CHUNK_ROWS);
            let bytes = match &kept {
                Some(all) => {
                    let at = layout.blocks_bytes(from);
                    all.get(at..at + layout.blocks_bytes(rows)).unwrap_or_default()
                }
                None => {
                    file.sketch_chunk(ground.group, layout, chunk, &mut blocks)?;
                    &blocks
                }
            };
            let Some(scores) = scores.get_mut(..rows) else { continue };
            sketch.score_blocks(bytes, scores);
            for (score, row) in scores.iter().zip(from as u32..) {
                order += 1;
                if *score >= top.threshold()
                    && !dead.contains(row)
                    && ground.mask.as_ref().is_none_or(|mask| mask.contains(row))
                {
                    top.offer(*score, EntryId(order), (number, row));
                }
            }
        }
    }
    Ok(top.into_sorted().into_iter().map(|(_, _, at)| at).collect())
}

/// Stage 2: what the candidates are worth by their codes, and how many of them are no answers.
fn rank(
    scope: &Scope<'_>,
    query: &Query,
    prepared: &PreparedQuery,
    grounds: &[Ground<'_>],
    chosen: &[(usize, u32)],
) -> Result<(Vec<Scored>, usize)> {
    let spec = &scope.def.spec;
    let Some(eight) = codes::layout(prepared.vector().len() as u32) else {
        return Ok((Vec::new(), 0));
    };
    let by_eight = CodeQuery::new(eight, spec.metric, prepared.vector());
    let mut by_four = None;
    let mut ranked = Vec::with_capacity(chosen.len());
    let mut lost = 0;
    let mut buffer = Vec::new();
    for (number, at) in chosen {
        let Some(ground) = grounds.get(*number) else { continue };
        let file = &ground.segment.segment;
        let row = file.row(ground.group, *at)?;
        if !is_answer(scope, query, ground, &row)? {
            lost += 1;
            continue;
        }
        let (id, version) = (row.id, row.version);
        let place = Place { segment: file.number(), group: ground.group, row: *at };
        let hot = scope.view.levels.resident(id, version);
        let exact = hot.and_then(|hot| hot.record.vector.as_deref());
        let (score, bits) = if let Some(vector) = exact {
            (kernel::score(spec.metric, prepared, vector, row.norm), 32)
        } else if let Some(code) = scope.view.levels.code(scope.def.id, id, version)
            && let Ok(bytes) = code.block.block.row(code.row)
        {
            if code.block.block.bits() == 4 {
                let four = by_four.get_or_insert_with(|| {
                    CodeQuery::new(eight.with_bits(Bits::Four), spec.metric, prepared.vector())
                });
                (four.score(bytes), 4)
            } else {
                (by_eight.score(bytes), 8)
            }
        } else {
            match file.code(ground.group, *at, &mut buffer) {
                Ok(()) => (by_eight.score(&buffer), 8),
                // The exact vector stands for itself; best of all, so that it is looked at.
                Err(error) if error.kind() == ErrorKind::Corrupt => (f32::INFINITY, 0),
                Err(error) => return Err(error),
            }
        };
        let copy = match hot {
            Some(hot) => Copy::Hot(hot.clone()),
            None => Copy::Cold(ColdRow { segment: Arc::clone(ground.segment), place, row }),
        };
        ranked.push((score, id, Ranked { copy, place, bits }));
    }
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    Ok((ranked, lost))
}

/// Whether a live row of the archive may be answered: what no mask says.
fn is_answer(scope: &Scope<'_>, query: &Query, ground: &Ground<'_>, row: &Row) -> Result<bool> {
    if scope.view.shadows(row.id)
        || scope.view.levels.hides(row.id)
        || row.expires.is_some_and(|expires| expires <= scope.now)
    {
        return Ok(false);
    }
    if ground.mask.is_some() {
        return Ok(true);
    }
    let place =
        Place { segment: ground.segment.segment.number(), group: ground.group, row: row.number };
    let copy = Copy::Cold(ColdRow { segment: Arc::clone(ground.segment), place, row: row.clone() });
    scope.admits(&copy, query.filter.as_ref(), None)
}

/// Stage 3: exact scores of the best, or the scores of codes when nobody asked for exact ones.
fn settle(
    scope: &Scope<'_>,
    query: &Query,
    prepared: &PreparedQuery,
    widths: Widths,
    ranked: Vec<Scored>,
    best: &mut TopK<(Found, Score)>,
) -> Result<()> {
    let spec = &scope.def.spec;
    let enters = |score: f32| query.min_score.is_none_or(|min| score >= min);
    for (nth, (score, id, ranked)) in ranked.into_iter().enumerate() {
        if widths.settled > 0 && nth >= widths.settled {
            break;
        }
        let found = match &ranked.copy {
            Copy::Hot(_) => Found::Resident(ranked.copy.clone()),
            Copy::Cold(cold) => Found::Cold(Arc::clone(&cold.segment), ranked.place),
        };
        if widths.settled == 0 && ranked.bits > 0 {
            if enters(score) {
                let exact = ranked.bits == 32;
                best.offer(score, id, (found, Score { bits: ranked.bits, exact }));
            }
            continue;
        }
        let score = match &ranked.copy {
            Copy::Hot(_) => score,
            Copy::Cold(cold) => {
                let Some(vector) = cold.vector()? else { continue };
                kernel::score(spec.metric, prepared, &vector, kernel::norm(&vector))
            }
        };
        if enters(score) {
            best.offer(
                score,
                id,
                (found, Score { bits: super::exact_bits(spec.element), exact: true }),
            );
        }
    }
    Ok(())
}

/// The rows that a filter and a namespace let pass, if that can be said of the rows alone. `None`
/// when nothing was asked, or when the question depends on more than the rows.
fn mask(
    scope: &Scope<'_>,
    query: &Query,
    segment: &Arc<ColdSegment>,
    group: u16,
) -> Result<Option<Arc<RoaringBitmap>>> {
    let filter = query.filter.as_ref();
    let needs = filter.map(crate::pure::filter::Filter::needs).unwrap_or_default();
    if (filter.is_none() && scope.namespace.is_root()) || needs.last_access || needs.tier {
        return Ok(None);
    }
    let question = filter.map(|filter| filter.to_json().to_string()).unwrap_or_default();
    let question = format!("{}\0{question}", scope.namespace.as_str());
    let file = &segment.segment;
    let key = (GroupKey { segment: file.number(), group }, Arc::from(question.as_str()));
    let make = || {
        let mut passing = RoaringBitmap::new();
        let vectors = file.footer().groups.get(usize::from(group)).map_or(0, |g| g.vectors);
        let mut bodies = BodyReader::new(file, group);
        let mut rows = Vec::new();
        for from in (0..vectors).step_by(CHUNK_ROWS) {
            rows.clear();
            file.rows(group, from, (vectors - from).min(CHUNK_ROWS as u32), &mut rows)?;
            for row in rows.drain(..) {
                let number = row.number;
                let place = Place { segment: file.number(), group, row: number };
                let copy = Copy::Cold(ColdRow { segment: Arc::clone(segment), place, row });
                // Expiry is asked again of each candidate: a mask outlives the moment.
                if scope.passes(&copy, filter, Some(&mut bodies))? {
                    passing.insert(number);
                }
            }
        }
        passing.optimize();
        let bytes = passing.serialized_size() as u64 + question.len() as u64;
        Ok((passing, bytes))
    };
    scope.stores.masks.get_or_make(&key, scope.stores.mask_bytes_max, make).map(Some)
}
