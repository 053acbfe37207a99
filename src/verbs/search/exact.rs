//! The exact search: every vector of the archive, and every record that only the log has.
//!
//! Archived vectors go by in blocks of at most 1 MiB: they are read, never loaded whole. A row whose
//! score would enter the best k is then looked at: is it live, not superseded in RAM, not expired,
//! does it pass the filter. Looking only at would-be hits keeps filters and row reads off the path
//! of the many.

use std::sync::Arc;

use crate::organs::archive::BodyReader;
use crate::pure::kernel::{self, PreparedQuery};
use crate::pure::topk::TopK;
use crate::tiers::Copy;
use crate::tiers::cold::ColdRow;
use crate::tiers::probe::Scope;
use crate::words::error::Result;
use crate::words::record::Place;

use super::{Found, Query, Score, exact_bits};

/// Vectors of a block take at most this much scratch.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Rows of a block at most: the row table of a block is 128 bytes a row.
const BLOCK_ROWS_MAX: u32 = 512;

fn enters(query: &Query, best: &TopK<(Found, Score)>, score: f32) -> bool {
    query.min_score.is_none_or(|min| score >= min) && score >= best.threshold()
}

/// Offers archived rows to `best`.
pub(super) fn archived(
    scope: &Scope<'_>,
    query: &Query,
    prepared: &PreparedQuery,
    best: &mut TopK<(Found, Score)>,
) -> Result<()> {
    let dim = prepared.vector().len();
    let block = u32::try_from(BLOCK_BYTES_MAX / (dim * 4)).unwrap_or(1).clamp(1, BLOCK_ROWS_MAX);
    let exact = Score { bits: exact_bits(scope.def.spec.element), exact: true };
    let mut vectors = Vec::new();
    let mut rows = Vec::new();
    let mut scores: Vec<f32> = Vec::new();
    for (segment, group) in scope.view.cold.groups(scope.def.id) {
        let Some(dead) = segment.dead.get(usize::from(group)) else { continue };
        let count =
            segment.segment.footer().groups.get(usize::from(group)).map_or(0, |g| g.vectors);
        let mut bodies = BodyReader::new(&segment.segment, group);
        let mut from = 0;
        while from < count {
            let take = block.min(count - from);
            vectors.clear();
            segment.segment.vectors(group, from, take, &mut vectors)?;
            scores.clear();
            scores.extend(vectors.chunks_exact(dim).map(|v| score(scope, prepared, v)));
            rows.clear();
            for (score, at) in scores.iter().copied().zip(from..) {
                if !enters(query, best, score) || dead.contains(at) {
                    continue;
                }
                if rows.is_empty() {
                    segment.segment.rows(group, from, take, &mut rows)?;
                }
                let Some(row) = rows.get((at - from) as usize) else { continue };
                if scope.view.shadows(row.id) || scope.view.levels.hides(row.id) {
                    continue;
                }
                let place = Place { segment: segment.segment.number(), group, row: at };
                let copy =
                    Copy::Cold(ColdRow { segment: Arc::clone(segment), place, row: row.clone() });
                if scope.admits(&copy, query.filter.as_ref(), Some(&mut bodies))? {
                    best.offer(score, row.id, (Found::Cold(Arc::clone(segment), place), exact));
                }
            }
            from += take;
        }
    }
    Ok(())
}

/// Offers the records that are not archived yet.
pub(super) fn logged(
    scope: &Scope<'_>,
    query: &Query,
    prepared: &PreparedQuery,
    best: &mut TopK<(Found, Score)>,
) -> Result<()> {
    let exact = Score { bits: exact_bits(scope.def.spec.element), exact: true };
    for hot in scope.view.hot(scope.def.id) {
        let Some(vector) = &hot.record.vector else { continue };
        // A record logged before its collection settled on another dimension cannot exist; one
        // from a damaged file can, and has no score.
        if vector.len() != prepared.vector().len() {
            continue;
        }
        let score = score(scope, prepared, vector);
        if enters(query, best, score)
            && scope.admits(&Copy::Hot(hot.clone()), query.filter.as_ref(), None)?
        {
            best.offer(score, hot.record.id, (Found::Logged(hot.record.id), exact));
        }
    }
    Ok(())
}

fn score(scope: &Scope<'_>, prepared: &PreparedQuery, vector: &[f32]) -> f32 {
    kernel::score(scope.def.spec.metric, prepared, vector, kernel::norm(vector))
}
