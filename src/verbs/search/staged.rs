//! The staged search: sketches choose, codes rank, exact vectors settle.
//!
//! 1. [`choose`]: the rows whose sketches are nearest to the query, of those that count. If a filter leaves
//!    few, all of them.
//! 2. The candidates by their codes, from the arena if they are warm, else by one small read of the
//!    archive each; until their sketches say that none of those left can be among the best k. How far a
//!    score by codes may be off, their step says.
//! 3. From the best of those down: whether they are answers at all (alive, not superseded in RAM, not
//!    expired), and their exact vectors, from RAM or by one read; until the codes of those left say that
//!    none can be better than the last of k. Of a hundred candidates some twelve come this far. Who stands
//!    in the arena and never expires has no row read: the block says its id and version.
//!
//! If too many fall away at step 3, the search begins again with four times as many, so that expired
//! or superseded rows cost time, never answers. Where the stages cannot pay (few rows for the
//! candidates, most of them lost, a filter that asks for what no row says), the [`scan`] answers.
//! Equal scores go to the lower id at every step, or are all taken along; one thread does it all: the
//! answer depends on nothing but the data.
//!
//! Damaged bytes: rows without a whole sketch are scanned; a candidate without whole codes has its
//! exact vector read beside those that are settled; one without a whole vector is answered with the
//! score of its codes.
//!
//! Never: looks at only some of the tiers, or answers with a score of a sketch.

use std::sync::Arc;

use crate::organs::archive::Row;
use crate::pure::filter::Filter;
use crate::pure::quant::{self, Bits, CodeQuery};
use crate::pure::topk::TopK;
use crate::tiers::Copy;
use crate::tiers::levels::WarmBlock;
use crate::tiers::places::{Places, Shelf};
use crate::words::error::Result;
use crate::words::id::{EntryId, Lsn};
use crate::words::options::Metric;

use super::Search;
use super::choose::{Candidate, Chosen, choose, key};
use super::ground::{Ground, grounds};
use super::hits::{Answers, Found, Score, whole};
use super::scan;

/// What codes made of a candidate.
struct Ranked<'a> {
    candidate: Candidate,
    /// Its score by codes of so many bits; or why there is none.
    coded: Result<(f32, u8)>,
    /// What its exact score will not exceed, but for a case in some hundred.
    bound: f32,
    /// Where the arena has it, if its row has no more to say than the block.
    warm: Option<(&'a WarmBlock, usize)>,
}

/// Offers the best archived rows, by so many that sketches choose.
pub(super) fn run(search: &Search<'_>, candidates: usize, answers: &mut Answers) -> Result<()> {
    let mut grounds = grounds(search);
    let rows: usize = grounds.iter().map(|ground| ground.vectors as usize).sum();
    // A candidate costs as much as four rows that are scanned.
    let pays = |candidates: usize| candidates < rows / 4;
    let needs = search.query.filter.as_ref().map(Filter::needs).unwrap_or_default();
    let unmasked = needs.last_access || needs.tier;
    if unmasked || !(search.by_codes() || pays(candidates)) {
        return scan::all(search, &grounds, answers);
    }
    let masked = !search.is_unmasked();
    if masked {
        grounds.iter_mut().try_for_each(|ground| ground.make_mask(search))?;
        grounds.retain(|ground| !ground.is_empty());
    }
    let mut candidates = candidates;
    // How near the nearest of a part are, nobody has measured.
    let mut pruned = !masked && search.scope.view.levels.cells.contains_key(&search.scope.def.id);
    loop {
        let left = grounds.iter().map(Ground::left).sum::<u64>();
        let few = masked && left <= 8 * candidates as u64;
        let chosen = match few {
            true => all_left(&grounds),
            false => choose(search, &grounds, candidates, pruned)?,
        };
        if chosen.crowded {
            break;
        }
        if pruned && chosen.rows.len() < candidates {
            pruned = false;
            continue;
        }
        let all = chosen.rows.len();
        let mut wanted = search.wanted();
        let settled = loop {
            let ranked = rank(search, &grounds, &chosen.rows, wanted)?;
            let some = ranked.len() < all;
            let settled = settle(search, &grounds, ranked)?;
            // Those left out are none of the best `wanted`: enough, if no more than the spare were lost.
            if !some || settled.lost <= wanted - search.query.k {
                break settled;
            }
            wanted = search.query.k.saturating_add(2 * settled.lost);
        };
        let are_all = few || (!pruned && all < candidates && settled.asked == all);
        // One in four may fall away before the choice is too narrow to trust.
        let many = settled.asked.max(ASKED_MIN);
        if are_all || settled.lost <= many / 4 {
            *answers = settled.answers;
            for (ground, numbers) in chosen.unsketched {
                if let Some(ground) = grounds.get(ground) {
                    scan::range(search, ground, numbers, answers)?;
                }
            }
            return Ok(());
        }
        pruned = false;
        candidates = candidates.saturating_mul(4);
        if settled.lost > many / 4 * 3 || !pays(candidates) {
            break;
        }
    }
    scan::all(search, &grounds, answers)
}

/// All rows that a mask leaves.
fn all_left(grounds: &[Ground<'_>]) -> Chosen {
    let rows = grounds.iter().enumerate();
    let rows = rows.flat_map(|(number, ground)| {
        // No sketch was asked: any of them may be the best.
        ground.rows_left().map(move |row| (f32::INFINITY, (number, row)))
    });
    Chosen { rows: rows.collect(), unsketched: Vec::new(), crowded: false }
}

/// Where the codes of a group stand, if that is known or may be kept. Who asks first is sent to the
/// archive: an open store answers before it has read all rows.
fn kept_places(
    search: &Search<'_>,
    ground: &Ground<'_>,
    shelf: &Shelf<'_>,
) -> Result<Option<Arc<Places>>> {
    let (scope, key) = (search.scope, key(ground));
    let (cache, bytes_max) = (&scope.stores.caches.places, scope.stores.shares.place_bytes_max);
    match cache.get(&key) {
        _ if shelf.is_empty() => return Ok(None),
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

/// Candidates whose codes are asked for before the first of them is scored: codes stand anywhere in the
/// arena, and the processor fetches about as many lines at a time.
const AHEAD: usize = 16;
/// Of fewer that were settled, how many are lost says nothing about the others.
const ASKED_MIN: usize = 20;
/// Standard deviations that a sketch is trusted to.
const SKETCH_TRUST: f32 = 2.1;

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

/// Stage 2: what the candidates are worth by their codes, the best first. Candidates come in order of their
/// sketches; it ends where a sketch says that none of those left can be among the best `wanted`.
fn rank<'a>(
    search: &Search<'a>,
    grounds: &[Ground<'_>],
    chosen: &[(f32, Candidate)],
    wanted: usize,
) -> Result<Vec<Ranked<'a>>> {
    let (scope, metric) = (search.scope, search.scope.def.spec.metric);
    let shelf = Shelf::new(&scope.view.levels, scope.def.id);
    let mut places: Vec<Option<Option<Arc<Places>>>> = vec![None; grounds.len()];
    let slack_of_sketches = sketch_slack(search);
    let mut best = TopK::new(wanted);
    let mut ranked = Vec::with_capacity(chosen.len());
    let (mut by_four, mut code) = (None, Vec::new());
    let mut warm = Vec::with_capacity(AHEAD);
    for some in chosen.chunks(AHEAD) {
        if some.first().is_some_and(|(score, _)| score + slack_of_sketches < best.threshold()) {
            break;
        }
        warm.clear();
        for (_, (number, at)) in some {
            let (Some(ground), Some(known)) = (grounds.get(*number), places.get_mut(*number))
            else {
                warm.push(None);
                continue;
            };
            let places = match known {
                Some(places) => places,
                None => known.insert(kept_places(search, ground, &shelf)?),
            };
            let found = places.as_ref().and_then(|places| {
                let (block, row) = places.code(&shelf, *at)?;
                let codes = block.block.row(row).ok()?;
                quant::fetch(codes);
                Some((block, row, codes, places.lasts(*at)))
            });
            warm.push(found);
        }
        for ((_, candidate), warm) in some.iter().zip(&warm) {
            let Some(ground) = grounds.get(candidate.0) else { continue };
            let (coded, slack) = match warm {
                Some((block, _, codes, _)) if block.block.bits() == 4 => {
                    let query = by_four.get_or_insert_with(|| {
                        let layout = search.by_eight.layout().with_bits(Bits::Four);
                        CodeQuery::new(layout, metric, search.prepared.vector())
                    });
                    (Ok((query.score(codes), 4)), query.slack(codes))
                }
                Some((_, _, codes, _)) => {
                    (Ok((search.by_eight.score(codes), 8)), search.by_eight.slack(codes))
                }
                None => match whole(search.code_of(ground, candidate.1, &mut code))? {
                    Ok(score) => (Ok((score, 8)), search.by_eight.slack(&code)),
                    Err(damage) => (Err(damage), 0.0),
                },
            };
            // An exact vector stands for itself: who has no codes comes first.
            let bound = coded.as_ref().map_or(f32::INFINITY, |(score, _)| {
                // Which of equal ones counts, ids decide: here any order does.
                best.offer(score - slack, EntryId(ranked.len() as u64), ());
                if search.by_codes() { *score } else { score + slack }
            });
            let lasting = warm.filter(|(.., lasts)| *lasts);
            let warm = lasting.map(|(block, row, ..)| (block, row));
            ranked.push(Ranked { candidate: *candidate, coded, bound, warm });
        }
    }
    ranked.sort_unstable_by(|a, b| b.bound.total_cmp(&a.bound));
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

/// Stage 3: the best that are answers, with their exact scores: one after the other, until none of those
/// left can be better than the last of k.
fn settle<'a>(
    search: &'a Search<'a>,
    grounds: &[Ground<'_>],
    ranked: Vec<Ranked<'_>>,
) -> Result<Settled<'a>> {
    let mut settled = Settled { search, answers: search.answers(), asked: 0, lost: 0 };
    for one in ranked {
        if !settled.answers.enters(one.bound) {
            break;
        }
        let Some(ground) = grounds.get(one.candidate.0) else { continue };
        settled.asked += 1;
        settled.settle(ground, one)?;
    }
    Ok(settled)
}

struct Settled<'a> {
    search: &'a Search<'a>,
    answers: Answers,
    /// Candidates that were looked at.
    asked: usize,
    /// Of those, how many are no answers.
    lost: usize,
}

impl Settled<'_> {
    fn settle(&mut self, ground: &Ground<'_>, one: Ranked<'_>) -> Result<()> {
        let at = one.candidate.1;
        let mask_says = ground.lets_pass(at) || self.search.is_unmasked();
        let warm = one.warm.filter(|_| mask_says);
        match warm.and_then(|(block, row)| block.block.id_version(row)) {
            Some((id, version)) => self.settle_known(ground, at, id, version, one.coded),
            None => self.settle_row(ground, at, one.coded),
        }
    }

    /// Settles a candidate whose row need not be read.
    fn settle_known(
        &mut self,
        ground: &Ground<'_>,
        at: u32,
        id: EntryId,
        version: Lsn,
        coded: Result<(f32, u8)>,
    ) -> Result<()> {
        let (search, view) = (self.search, self.search.scope.view);
        if view.shadows(id) || view.levels.hides(id) {
            self.lost += 1;
            return Ok(());
        }
        let exact = Score::exact(search.scope.def.spec.element);
        let file = &ground.segment.segment;
        if let Some(hot) = view.levels.resident(id, version)
            && let Some(vector) = hot.record.vector.as_deref()
        {
            self.answers.offer(search.exact(vector), id, Found::Hot(hot.clone()), exact);
        } else if let (Ok((score, bits)), true) = (&coded, search.by_codes()) {
            self.answers.offer(*score, id, ground.found(at), Score::coded(*bits));
        } else if let Some(vector) = file.checked_vector(ground.group, at)? {
            self.answers.offer(search.exact(&vector), id, ground.found(at), exact);
        } else {
            return self.settle_row(ground, at, coded);
        }
        Ok(())
    }

    /// Settles a candidate by its row, with its score by codes of so many bits, or the damage of those.
    fn settle_row(&mut self, ground: &Ground<'_>, at: u32, coded: Result<(f32, u8)>) -> Result<()> {
        let (search, file) = (self.search, &ground.segment.segment);
        let exact = Score::exact(search.scope.def.spec.element);
        // What cannot be asked may be an answer: its codes say whether it would be a good one.
        let worth = coded.as_ref().map_or(f32::INFINITY, |(score, _)| *score);
        let row = match whole(file.row(ground.group, at))? {
            Ok(row) => row,
            Err(damage) => {
                self.answers.lose(worth, damage);
                return Ok(());
            }
        };
        let copy = ground.copy(search.scope.view, row.clone());
        match whole(is_answer(search, ground, &row, &copy))? {
            Ok(true) => {}
            Ok(false) => {
                self.lost += 1;
                return Ok(());
            }
            Err(damage) => {
                self.answers.lose(worth, damage);
                return Ok(());
            }
        }
        let id = row.id;
        if let Copy::Hot(hot) = &copy
            && let Some(vector) = hot.record.vector.as_deref()
        {
            self.answers.offer(search.exact(vector), id, copy.into(), exact);
            return Ok(());
        }
        if let (Ok((score, bits)), true) = (&coded, search.by_codes()) {
            self.answers.offer(*score, id, copy.into(), Score::coded(*bits));
            return Ok(());
        }
        match (whole(file.vector(ground.group, &row))?, coded) {
            (Ok(Some(vector)), coded) => {
                if let Err(damage) = coded {
                    self.answers.heal(damage);
                }
                self.answers.offer(search.exact(&vector), id, copy.into(), exact);
            }
            (Ok(None), _) => {}
            (Err(damage), Ok((score, bits))) => {
                self.answers.heal(damage);
                self.answers.offer(score, id, copy.into(), Score::coded(bits));
            }
            (Err(damage), Err(_)) => self.answers.lose(f32::INFINITY, damage),
        }
        Ok(())
    }
}
