//! Ranking: what candidates are worth before any exact vector is read.
//!
//! 1. Where a candidate's bytes are: an exact copy in RAM, codes in the arena, else those of the archive, by one
//!    small read. The [`Places`] of its group say so without a look at its row.
//! 2. Its score by them, and the bound that its exact score will not exceed.
//!
//! Candidates come in the order of their sketches, sixteen at a time; while sixteen are scored, the bytes
//! of the next ones arrive. It ends where a sketch says that none of those left can be among the best.
//!
//! Never: says whether a candidate is an answer.

use std::sync::Arc;

use crate::organs::archive::Row;
use crate::pure::quant::{self, Bits, CodeQuery};
use crate::pure::topk::TopK;
use crate::tiers::hot::Hot;
use crate::tiers::levels::WarmBlock;
use crate::tiers::places::{Known, Places, Shelf};
use crate::words::error::Result;
use crate::words::id::EntryId;
use crate::words::options::Metric;

use super::Search;
use super::choose::{Candidate, key};
use super::ground::Ground;
use super::hits::whole;

/// Candidates whose codes are asked for before the first of them is scored: codes stand anywhere in the
/// arena, and the processor fetches about as many lines at a time.
const AHEAD: usize = 16;
/// Standard deviations that a sketch is trusted to.
const SKETCH_TRUST: f32 = 2.1;

/// What stage 2 found out about a candidate.
pub(super) struct Ranked<'a> {
    pub candidate: Candidate,
    pub worth: Worth<'a>,
    /// Where the arena has it, if its row has no more to say than the block.
    pub warm: Option<(&'a WarmBlock, usize)>,
}

/// What a candidate is worth.
pub(super) enum Worth<'a> {
    /// Its exact copy in RAM has this score.
    Exact(f32, &'a Hot),
    /// Its codes of so many bits have this score; or why there is none.
    Coded(Result<(f32, u8)>),
}

/// The candidates that were ranked, and for each what its exact score will not exceed, but for a case in
/// some hundred.
pub(super) struct Ranking<'a> {
    pub ranked: Vec<Ranked<'a>>,
    pub bounds: Vec<(f32, u32)>,
}

/// How far a cosine may lie above what its sketch says. The estimate `f * (s . q)` errs by what of the query
/// lies along the difference of signs and values, at random directions with a standard deviation of
/// `sqrt(pi / 2 - 1) / sqrt(dim)` at most. Other metrics scale it by norms: there every candidate is ranked.
fn sketch_slack(search: &Search<'_>) -> f32 {
    match search.scope.def.spec.metric {
        Metric::Cosine => {
            SKETCH_TRUST * (std::f32::consts::FRAC_PI_2 - 1.0).sqrt() / (search.dim() as f32).sqrt()
        }
        Metric::Dot | Metric::L2 => f32::INFINITY,
    }
}

/// Where the codes of a group stand, or the ids of those without, if that is known or may be kept. Who asks
/// first is sent to the archive: an open store answers before it has read all rows.
fn kept_places(
    search: &Search<'_>,
    ground: &Ground<'_>,
    shelf: &Shelf<'_>,
) -> Result<Option<Arc<Places>>> {
    let (scope, key) = (search.scope, key(ground));
    let (cache, bytes_max) = (&scope.stores.caches.places, scope.stores.shares.place_bytes_max);
    match cache.get(&key) {
        _ if shelf.is_empty() && scope.view.levels.resident_len() == 0 => return Ok(None),
        Some(places) if places.fits(shelf) => return Ok(Some(places)),
        Some(_) => {}
        None => {
            cache.replace(&key, Arc::default(), 0, bytes_max);
            return Ok(None);
        }
    }
    let rows = |from, end, out: &mut Vec<Row>| ground.whole_rows(from..end, out);
    let collection = scope.def.id;
    let places = Places::find(&scope.view.levels, shelf, collection, ground.vectors, rows)?;
    let (bytes, places) = (places.bytes(), Arc::new(places));
    cache.replace(&key, Arc::clone(&places), bytes, bytes_max);
    Ok(Some(places))
}

/// A candidate of which bytes were asked for.
struct Asked<'a> {
    candidate: Candidate,
    bytes: Bytes<'a>,
}

/// What a candidate is scored by.
enum Bytes<'a> {
    /// Its exact vector in RAM.
    Ram(&'a Hot, &'a [f32]),
    /// The block and the row, its codes, and whether the row never expires.
    Arena(&'a WarmBlock, usize, &'a [u8], bool),
    /// Its codes in the archive.
    Archive,
}

/// Where the bytes of candidates are looked up.
struct Lookup<'a, 'b> {
    search: &'b Search<'a>,
    grounds: &'b [Ground<'a>],
    shelf: Shelf<'a>,
    /// Of each ground, once it was asked for.
    places: Vec<Option<Option<Arc<Places>>>>,
}

impl<'a> Lookup<'a, '_> {
    /// Finds what some candidates are scored by, and asks for the bytes.
    fn ask(&mut self, some: &[(f32, Candidate)], asked: &mut Vec<Asked<'a>>) -> Result<()> {
        asked.clear();
        for (_, candidate) in some {
            let bytes = self.find(*candidate)?.unwrap_or(Bytes::Archive);
            asked.push(Asked { candidate: *candidate, bytes });
        }
        Ok(())
    }

    fn find(&mut self, (number, at): Candidate) -> Result<Option<Bytes<'a>>> {
        let ground = self.grounds.get(number as usize);
        let (Some(ground), Some(known)) = (ground, self.places.get_mut(number as usize)) else {
            return Ok(None);
        };
        let places = match known {
            Some(places) => places,
            None => known.insert(kept_places(self.search, ground, &self.shelf)?),
        };
        let Some(places) = places else { return Ok(None) };
        Ok(match places.known(&self.shelf, at) {
            Some(Known::Code(block, row)) => block.block.row(row).ok().map(|codes| {
                quant::fetch(codes);
                Bytes::Arena(block, row, codes, places.lasts(at))
            }),
            // Who asks for scores by codes gets those of everybody.
            Some(Known::Id(id)) if !self.search.by_codes() => {
                let levels = &self.search.scope.view.levels;
                levels.resident_of(id, &ground.versions()).and_then(|hot| {
                    let vector = hot.record.vector.as_deref()?;
                    quant::fetch(bytemuck::cast_slice(vector));
                    Some(Bytes::Ram(hot, vector))
                })
            }
            _ => None,
        })
    }
}

/// Stage 2: what the candidates are worth by their codes. Candidates come in order of their sketches; it
/// ends where a sketch says that none of those left can be among the best `wanted`.
pub(super) fn rank<'a>(
    search: &Search<'a>,
    grounds: &[Ground<'a>],
    chosen: &[(f32, Candidate)],
    wanted: usize,
) -> Result<Ranking<'a>> {
    let (scope, metric) = (search.scope, search.scope.def.spec.metric);
    let shelf = Shelf::new(&scope.view.levels, scope.def.id);
    let mut lookup = Lookup { search, grounds, shelf, places: vec![None; grounds.len()] };
    let slack_of_sketches = sketch_slack(search);
    let mut best = TopK::new(wanted);
    let mut ranked = Vec::with_capacity(chosen.len());
    let mut bounds = Vec::with_capacity(chosen.len());
    let four = || {
        let layout = search.by_eight.layout().with_bits(Bits::Four);
        CodeQuery::new(layout, metric, search.prepared.vector())
    };
    let (mut by_four, mut code) = (None, Vec::new());
    let mut pieces = chosen.chunks(AHEAD);
    let (mut asked, mut next) = (Vec::with_capacity(AHEAD), Vec::with_capacity(AHEAD));
    let mut piece = pieces.next();
    lookup.ask(piece.unwrap_or_default(), &mut asked)?;
    while let Some(some) = piece {
        if some.first().is_some_and(|(score, _)| score + slack_of_sketches < best.threshold()) {
            break;
        }
        // While these are scored, the bytes of the next ones arrive.
        piece = pieces.next();
        lookup.ask(piece.unwrap_or_default(), &mut next)?;
        for Asked { candidate, bytes } in asked.drain(..) {
            let Some(ground) = grounds.get(candidate.0 as usize) else { continue };
            let mut warm = None;
            let (worth, score, slack) = match bytes {
                Bytes::Ram(hot, vector) => {
                    let score = search.exact(vector);
                    (Worth::Exact(score, hot), Some(score), 0.0)
                }
                Bytes::Arena(block, row, codes, lasts) => {
                    warm = lasts.then_some((block, row));
                    let (query, bits) = match block.block.bits() {
                        4 => (&*by_four.get_or_insert_with(four), 4),
                        _ => (&search.by_eight, 8),
                    };
                    let score = query.score(codes);
                    (Worth::Coded(Ok((score, bits))), Some(score), query.slack(codes))
                }
                Bytes::Archive => match whole(search.code_of(ground, candidate.1, &mut code))? {
                    Ok(score) => {
                        let slack = search.by_eight.slack(&code);
                        (Worth::Coded(Ok((score, 8))), Some(score), slack)
                    }
                    Err(damage) => (Worth::Coded(Err(damage)), None, 0.0),
                },
            };
            // An exact vector stands for itself: who has no codes comes first.
            let bound = score.map_or(f32::INFINITY, |score| {
                // Which of equal ones counts, ids decide: here any order does.
                best.offer(score - slack, EntryId(ranked.len() as u64), ());
                if search.by_codes() { score } else { score + slack }
            });
            bounds.push((bound, ranked.len() as u32));
            ranked.push(Ranked { candidate, worth, warm });
        }
        std::mem::swap(&mut asked, &mut next);
    }
    Ok(Ranking { ranked, bounds })
}
