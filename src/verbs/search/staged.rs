//! The staged search: sketches choose, codes rank, exact vectors settle.
//!
//! 1. [`choose`]: the rows whose sketches are nearest to the query, of those that count. If a filter leaves
//!    few, all of them.
//! 2. [`rank`]: the candidates by their codes, or their exact copies in RAM; until their sketches say that
//!    none of those left can be among the best k. How far a score by codes may be off, they say themselves.
//! 3. From the best of those down: whether they are answers at all (alive, not superseded in RAM, not
//!    expired), and their exact vectors, from RAM or by one read; until the codes of those left say that
//!    none can be better than the last of k. Of a hundred candidates some twelve come this far, and twice as many where
//!    brief codes ranked them. Of who never expires no row is read where the block in the arena, or a piece of the
//!    archive that is kept, says its id. Where codes alone are asked for, what is not exact in RAM is answered with the
//!    score of its codes of 8 bits.
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

use crate::organs::archive::Row;
use crate::pure::filter::Filter;
use crate::pure::quant::brief::BRIEF_BITS;
use crate::pure::topk::Order;
use crate::tiers::Copy;
use crate::tiers::hot::Hot;
use crate::words::error::{Error, Result};
use crate::words::id::EntryId;

use super::Search;
use super::choose::{Chosen, choose};
use super::ground::{Ground, grounds};
use super::hits::{Answers, Found, Score, whole};
use super::lookup::FastCopy;
use super::rank::{Ranked, Ranking, rank};
use super::scan;

/// Offers the best archived rows, by so many that sketches choose.
pub(super) fn run(search: &Search<'_>, candidates: usize, answers: &mut Answers) -> Result<()> {
    let mut grounds = grounds(search);
    let rows: usize = grounds.iter().map(|ground| ground.vectors as usize).sum();
    // A candidate costs as much as four rows that are scanned.
    let pays = |candidates: usize| candidates < rows / 4;
    let needs = search.query.filter.as_ref().map(Filter::needs).unwrap_or_default();
    let unmasked = needs.last_access || needs.tier;
    // Choosing numbers the rows of all groups, and the references of cells, with 32 bits.
    let cells = search.scope.view.levels.cells.get(&search.scope.def.id);
    let references = cells.map_or(0, |cells| cells.tables.refs.len());
    let many = u32::try_from(rows.saturating_add(references)).is_err();
    if unmasked || many || !(search.by_codes() || pays(candidates)) {
        return scan::all(search, &grounds, answers);
    }
    let masked = !search.is_unmasked();
    if masked {
        grounds.iter_mut().try_for_each(|ground| ground.make_mask(search))?;
        grounds.retain(|ground| !ground.is_empty());
    }
    let mut candidates = candidates;
    // How near the nearest of a part are, nobody has measured.
    let mut pruned = !masked && cells.is_some();
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
            let some = ranked.ranked.len() < all;
            let settled = settle(search, &grounds, ranked)?;
            // Those left out are none of the best `wanted`: enough, if no more than the spare were lost.
            let no_answers = settled.lost + settled.damaged;
            if !some || no_answers <= wanted - search.query.k {
                break settled;
            }
            wanted = search.query.k.saturating_add(2 * no_answers);
        };
        let are_all = few || (!pruned && all < candidates && settled.asked == all);
        // One in four may fall away before the choice is too narrow to trust.
        let many = settled.asked.max(ASKED_MIN);
        if are_all || settled.lost <= many / 4 {
            *answers = settled.answers;
            for (ground, numbers) in chosen.unsketched {
                if let Some(ground) = grounds.get(ground as usize) {
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
    let rows = (0_u32..).zip(grounds);
    let rows = rows.flat_map(|(number, ground)| {
        // No sketch was asked: any of them may be the best.
        ground.rows_left().map(move |row| (f32::INFINITY, (number, row)))
    });
    Chosen { rows: rows.collect(), unsketched: Vec::new(), crowded: false }
}

/// Of fewer that were settled, how many are lost says nothing about the others.
const ASKED_MIN: usize = 20;
/// So many of the best bounds are put in order at a time: a search settles some twelve, and twice as many where brief
/// codes ranked them.
const SETTLED_AT_ONCE: usize = 32;

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
    ranking: Ranking<'_>,
) -> Result<Settled<'a>> {
    let Ranking { ranked, bounds, healed } = ranking;
    let mut answers = search.answers();
    answers.reserve();
    healed.into_iter().for_each(|damage| answers.heal(damage));
    let mut settled =
        Settled { search, answers, asked: 0, lost: 0, damaged: 0, vector: Vec::new() };
    let mut bounds = Order::new(bounds, SETTLED_AT_ONCE.max(search.wanted()));
    let mut waits = !search.by_codes();
    // Where brief codes ranked, more are settled; else to announce them all were reads for nothing.
    let are_brief = ranked.iter().any(|one| matches!(one.coded, Ok((_, BRIEF_BITS))));
    let told = if are_brief { usize::MAX } else { search.wanted() };
    for one in bounds.ahead().take(told).filter_map(|(_, number)| ranked.get(number as usize)) {
        if let FastCopy::Arena(block, row) = one.copy {
            block.block.fetch_id(row);
        }
        // Where the first is at hand the others are, most likely.
        waits = waits && must_wait(search, grounds, one);
        search.waits.set(search.waits.get() || waits);
    }
    for (bound, number) in bounds {
        if !settled.answers.enters(bound) {
            break;
        }
        let Some(one) = ranked.get(number as usize) else { continue };
        let Some(ground) = grounds.get(one.candidate.0 as usize) else { continue };
        settled.asked += 1;
        settled.settle(ground, one)?;
    }
    Ok(settled)
}

/// Whether a candidate's exact vector has to be waited for; then it is on its way.
fn must_wait(search: &Search<'_>, grounds: &[Ground<'_>], one: &Ranked<'_>) -> bool {
    let Some(ground) = grounds.get(one.candidate.0 as usize) else { return false };
    let levels = &search.scope.view.levels;
    let is_in_ram = match one.copy {
        FastCopy::Id(id) | FastCopy::Lasting(id) => {
            levels.resident_of(id, &ground.versions()).is_some()
        }
        FastCopy::Arena(..) | FastCopy::None => false,
    };
    !is_in_ram && !ground.segment.segment.fetch_vector(ground.group, one.candidate.1)
}

struct Settled<'a> {
    search: &'a Search<'a>,
    answers: Answers,
    /// Candidates that were looked at.
    asked: usize,
    /// Of those, how many are no answers.
    lost: usize,
    /// And how many cannot be asked, or have no vector.
    damaged: usize,
    /// Scratch: an exact vector.
    vector: Vec<f32>,
}

impl Settled<'_> {
    fn settle(&mut self, ground: &Ground<'_>, one: &Ranked<'_>) -> Result<()> {
        let at = one.candidate.1;
        let mask_says = ground.lets_pass(at) || self.search.is_unmasked();
        let copy = if mask_says { one.copy } else { FastCopy::None };
        match copy {
            FastCopy::Id(id) | FastCopy::Lasting(id) => {
                let levels = &self.search.scope.view.levels;
                if let Some(hot) = levels.resident_of(id, &ground.versions())
                    && let Some(vector) = hot.record.vector.as_deref()
                {
                    self.settle_hot(self.search.exact(vector), hot);
                    return Ok(());
                }
                if let FastCopy::Lasting(id) = copy {
                    return self.settle_known(ground, at, id, None, &one.coded);
                }
            }
            FastCopy::Arena(block, row) => {
                if let Some((id, version)) = block.block.id_version(row) {
                    let hot = self.search.scope.view.levels.resident(id, version);
                    return self.settle_known(ground, at, id, hot, &one.coded);
                }
            }
            FastCopy::None => {}
        }
        self.settle_row(ground, at, &one.coded)
    }

    /// Settles a candidate whose exact copy in RAM has said all.
    fn settle_hot(&mut self, score: f32, hot: &Hot) {
        let (scope, record) = (self.search.scope, &hot.record);
        let expired = record.expires.is_some_and(|expires| expires <= scope.now);
        if expired || scope.view.shadows(record.id) || scope.view.levels.hides(record.id) {
            self.lost += 1;
            return;
        }
        let exact = Score::exact(scope.def.spec.element);
        self.answers.offer(score, record.id, Found::Hot(hot.clone()), exact);
    }

    /// Settles a candidate whose row need not be read.
    fn settle_known(
        &mut self,
        ground: &Ground<'_>,
        at: u32,
        id: EntryId,
        hot: Option<&Hot>,
        coded: &Result<(f32, u8)>,
    ) -> Result<()> {
        let (search, view) = (self.search, self.search.scope.view);
        if view.shadows(id) || view.levels.hides(id) {
            self.lost += 1;
            return Ok(());
        }
        let exact = Score::exact(search.scope.def.spec.element);
        let file = &ground.segment.segment;
        if let Some(hot) = hot
            && let Some(vector) = hot.record.vector.as_deref()
        {
            self.answers.offer(search.exact(vector), id, Found::Hot(hot.clone()), exact);
        } else if let (Ok((score, bits)), true) = (coded, search.by_codes()) {
            self.answers.offer(*score, id, ground.found(at), Score::coded(*bits));
        } else if let Ok(true) = whole(file.checked_vector(ground.group, at, &mut self.vector))? {
            if let Err(damage) = coded {
                self.answers.heal(damage.clone());
            }
            self.answers.offer(search.exact(&self.vector), id, ground.found(at), exact);
        } else {
            return self.settle_row(ground, at, coded);
        }
        Ok(())
    }

    /// Settles a candidate by its row, with its score by codes of so many bits, or the damage of those.
    fn settle_row(
        &mut self,
        ground: &Ground<'_>,
        at: u32,
        coded: &Result<(f32, u8)>,
    ) -> Result<()> {
        let (search, file) = (self.search, &ground.segment.segment);
        let exact = Score::exact(search.scope.def.spec.element);
        // What brief codes say little of is often not good enough, as its vector says without its row.
        let mut exact_score = None;
        if let Ok((_, BRIEF_BITS)) = coded
            && let Ok(true) = whole(file.checked_vector(ground.group, at, &mut self.vector))?
        {
            let score = search.exact(&self.vector);
            if !self.answers.enters(score) {
                return Ok(());
            }
            exact_score = Some(score);
        }
        // What cannot be asked may be an answer: its vector or its codes say whether it would be a good one.
        let worth = || {
            let score = match coded {
                Ok((_, BRIEF_BITS)) if exact_score.is_none() => {
                    whole(search.code_of(ground, at, &mut Vec::new()))?.ok()
                }
                coded => coded.as_ref().ok().map(|(score, _)| *score),
            };
            Ok::<f32, Error>(exact_score.or(score).unwrap_or(f32::INFINITY))
        };
        let row = match whole(file.row(ground.group, at))? {
            Ok(row) => row,
            Err(damage) => {
                self.damaged += 1;
                self.answers.lose(worth()?, damage);
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
                self.damaged += 1;
                self.answers.lose(worth()?, damage);
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
        if let (Ok((score, bits)), true) = (coded, search.by_codes()) {
            self.answers.offer(*score, id, copy.into(), Score::coded(*bits));
            return Ok(());
        }
        if let Some(score) = exact_score {
            self.answers.offer(score, id, copy.into(), exact);
            return Ok(());
        }
        let damage = match whole(file.vector(ground.group, &row))? {
            Ok(Some(vector)) => {
                if let Err(damage) = coded {
                    self.answers.heal(damage.clone());
                }
                self.answers.offer(search.exact(&vector), id, copy.into(), exact);
                return Ok(());
            }
            Ok(None) => {
                self.damaged += 1;
                return Ok(());
            }
            Err(damage) => damage,
        };
        // Nobody is answered with a score of brief codes.
        let stand_in = match coded {
            Ok((_, BRIEF_BITS)) => {
                let score = whole(search.code_of(ground, at, &mut Vec::new()))?;
                score.ok().map(|score| (score, 8))
            }
            coded => coded.as_ref().ok().copied(),
        };
        if let Some((score, bits)) = stand_in {
            self.answers.heal(damage);
            self.answers.offer(score, id, copy.into(), Score::coded(bits));
        } else {
            self.damaged += 1;
            self.answers.lose(f32::INFINITY, damage);
        }
        Ok(())
    }
}
