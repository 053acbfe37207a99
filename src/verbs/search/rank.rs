//! Ranking: what candidates are worth before any exact vector is read.
//!
//! 1. The [`Lookup`] says what bytes there are for a candidate: codes of 8, 4 or 3 bits, or an exact copy in RAM.
//! 2. Its score by them, and the bound that its exact score will not exceed.
//!
//! Candidates come in the order of their sketches; while some are scored, the bytes of the next ones
//! arrive, from memory or, all at once, from the disk. It ends where a sketch says that none of those left can
//! be among the best.
//!
//! Never: says whether a candidate is an answer.

use crate::pure::Wide;
use crate::pure::quant::brief::{BRIEF_BITS, BriefQuery};
use crate::pure::quant::{Bits, CodeQuery};
use crate::pure::topk::TopK;
use crate::tiers::pieces::Width;
use crate::words::error::{Error, Result};
use crate::words::id::EntryId;
use crate::words::options::Metric;

use super::Search;
use super::gather::Candidate;
use super::ground::Ground;
use super::hits::whole;
use super::lookup::{Asked, Bytes, FastCopy, Lookup};

/// Candidates whose codes are asked for before the first of them is scored: codes stand anywhere in the
/// arena, and the processor fetches about as many lines at a time.
const AHEAD: usize = 16;
/// And so many more candidates ahead, where its codes stand is asked for.
const PLACES_AHEAD: usize = 8;
/// Candidates that are scored together.
const TOGETHER: usize = 4;
/// When so many were scored, they are let go of.
const LET_GO_OF: usize = 256;
/// Standard deviations that a sketch is trusted to.
const SKETCH_TRUST: f32 = 2.1;

/// What is found out about a candidate.
pub(super) struct Ranked<'a> {
    pub candidate: Candidate,
    /// Its score by codes of so many bits; or why there is none.
    pub coded: Result<(f32, u8)>,
    pub copy: FastCopy<'a>,
}

/// The candidates that may be among the best, and for each what its exact score will not exceed, but for a case
/// in some hundred.
pub(super) struct Ranking<'a> {
    pub ranked: Vec<Ranked<'a>>,
    pub bounds: Vec<(f32, u32)>,
    /// The first damage that codes of 4 bits stood in for.
    pub healed: Option<Error>,
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

/// Stage 2: what the candidates are worth by their codes. Candidates come in order of their sketches; it
/// ends where a sketch says that none of those left can be among the best `wanted`.
pub(super) fn rank<'a>(
    search: &Search<'a>,
    grounds: &[Ground<'a>],
    chosen: &[(f32, Candidate)],
    wanted: usize,
) -> Result<Ranking<'a>> {
    let metric = search.scope.def.spec.metric;
    let mut lookup = Lookup::new(search, grounds);
    let mut by_brief = None;
    // What brief rows are without, the same for all of a ground; and by the mean's address, as nearly all
    // grounds share one.
    let mut bases: Vec<Option<f64>> = vec![None; grounds.len()];
    let mut means: Vec<(*const f32, f64)> = Vec::new();
    let slack_of_sketches = sketch_slack(search);
    let mut best = TopK::new(wanted);
    best.reserve();
    let room = chosen.len().min(LET_GO_OF);
    let (mut ranked, mut bounds) = (Vec::with_capacity(room), Vec::with_capacity(room));
    let four = || {
        let layout = search.by_eight.layout().with_bits(Bits::Four);
        CodeQuery::new(layout, metric, search.prepared.vector())
    };
    let (mut by_four, mut code, mut healed) = (None, Vec::new(), None);
    let may_enter = |sketch: f32, best: &TopK<()>| sketch + slack_of_sketches >= best.threshold();
    let mut coming = chosen.iter().enumerate();
    // Those that were scored stay at the front until there are many: moving the others up costs what scoring does.
    let mut asked: Vec<(f32, Asked<'_>)> = Vec::with_capacity(room + AHEAD);
    let mut scored = 0;
    loop {
        // While some are scored, the bytes of the next ones arrive.
        while asked.len() - scored < AHEAD
            && let Some((nth, (sketch, candidate))) = coming.next()
            && may_enter(*sketch, &best)
        {
            if let Some((_, later)) = chosen.get(nth + PLACES_AHEAD) {
                lookup.look_ahead(*later);
            }
            let one = lookup.ask(*candidate)?;
            search.waits.set(search.waits.get() || matches!(one.bytes, Bytes::Archive));
            asked.push((*sketch, one));
        }
        let some = asked.get(scored..).unwrap_or_default();
        let some = some.get(..TOGETHER).unwrap_or(some);
        if !some.first().is_some_and(|(sketch, _)| may_enter(*sketch, &best)) {
            break;
        }
        let mut known = [None; TOGETHER];
        let mut rows = [None; TOGETHER];
        for ((row, known), (_, one)) in rows.iter_mut().zip(&mut known).zip(some) {
            *row = match &one.bytes {
                Bytes::Arena(codes, 8) => Some(*codes),
                Bytes::Read(codes) => Some(codes.as_slice()),
                Bytes::Piece => {
                    *known = lookup.in_piece(one.candidate);
                    known.filter(|known| known.width == Width::Whole).map(|known| known.codes)
                }
                Bytes::Arena(..) | Bytes::Ram(_) | Bytes::Archive => None,
            };
        }
        let mut scores = [None; TOGETHER];
        if let [Some(a), Some(b), Some(c), Some(d)] = rows {
            scores = search.by_eight.score_four([a, b, c, d]).map(Some);
        }
        let found = rows.into_iter().zip(known).zip(scores);
        for ((_, one), ((row, known), score)) in some.iter().zip(found) {
            let Some(ground) = grounds.get(one.candidate.0 as usize) else { continue };
            let by_eight = |codes: &[u8]| {
                let score = score.unwrap_or_else(|| search.by_eight.score(codes));
                (Ok((score, 8)), search.by_eight.slack(codes))
            };
            let (coded, slack) = match (row, known, &one.bytes) {
                (Some(codes), ..) => by_eight(codes),
                (None, Some(brief), _) => {
                    let query = by_brief.get_or_insert_with(|| BriefQuery::of(&search.by_eight));
                    let mut base_of_mean = || {
                        let mean = brief.mean.as_ptr();
                        let known = means.iter().find(|(of, _)| *of == mean).map(|known| known.1);
                        known.unwrap_or_else(|| {
                            let base = search.prepared.vector().dot_wide(brief.mean);
                            means.push((mean, base));
                            base
                        })
                    };
                    let base = bases
                        .get_mut(one.candidate.0 as usize)
                        .map_or(0.0, |base| *base.get_or_insert_with(&mut base_of_mean));
                    let (score, slack) = query.score(brief.codes, base);
                    (Ok((score, BRIEF_BITS)), slack)
                }
                (None, None, Bytes::Arena(codes, _)) => {
                    let query = by_four.get_or_insert_with(four);
                    (Ok((query.score(codes), 4)), query.slack(codes))
                }
                (None, None, Bytes::Ram(vector)) => (Ok((search.exact(vector), 8)), 0.0),
                // What a piece holds stays while a ranking has it: that arm is for no panic's sake.
                (None, None, Bytes::Piece | Bytes::Read(_) | Bytes::Archive) => {
                    let file = &ground.segment.segment;
                    let read = whole(file.code(ground.group, one.candidate.1, &mut code))?;
                    match (read, in_four_bits(&one.copy)) {
                        (Ok(()), _) => by_eight(&code),
                        // Who asks for codes of 8 bits gets those of 4 where there are no others.
                        (Err(damage), Some(codes)) => {
                            healed.get_or_insert(damage);
                            let query = by_four.get_or_insert_with(four);
                            (Ok((query.score(codes), 4)), query.slack(codes))
                        }
                        (Err(damage), None) => (Err(damage), 0.0),
                    }
                }
            };
            let id = known.and_then(|known| known.id());
            let copy = id.map_or(one.copy, FastCopy::Lasting);
            // An exact vector stands for itself: who has no codes comes first.
            let bound = coded.as_ref().map_or(f32::INFINITY, |(score, _)| {
                // Which of equal ones counts, ids decide: here they need not be told apart.
                best.offer(score - slack, EntryId(0), ());
                if search.by_codes() { *score } else { score + slack }
            });
            // As many as are wanted are better for sure.
            if bound >= best.threshold() {
                bounds.push((bound, ranked.len() as u32));
                ranked.push(Ranked { candidate: one.candidate, coded, copy });
            }
        }
        scored += some.len();
        if scored >= LET_GO_OF {
            asked.drain(..scored);
            scored = 0;
        }
    }
    Ok(Ranking { ranked, bounds, healed })
}

/// Its codes of 4 bits in the arena, if it has such.
fn in_four_bits<'a>(copy: &FastCopy<'a>) -> Option<&'a [u8]> {
    match copy {
        FastCopy::Arena(block, row) if block.block.bits() == 4 => block.block.row(*row).ok(),
        _ => None,
    }
}
