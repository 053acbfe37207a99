//! The staged search: sketches choose, codes rank, exact vectors settle.
//!
//! 1. [`choose`]: the rows whose sketches are nearest to the query, of those that count. If a filter leaves
//!    few, all of them.
//! 2. Each candidate by its codes, from the arena if it is warm, else by one small read of the
//!    archive. Codes of 8 and of 4 bits are ranked apart, since one errs otherwise than the other.
//! 3. The best of those: their rows (alive, not superseded in RAM, not expired), and their exact
//!    vectors, from RAM or by one read. Only here is anything read of a row but what scores it: of a
//!    hundred candidates twenty come this far.
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
use crate::pure::quant::{Bits, CodeQuery};
use crate::pure::topk::Sieve;
use crate::tiers::Copy;
use crate::tiers::places::{Places, Shelf};
use crate::words::error::{Error, Result};

use super::Search;
use super::choose::{Candidate, Chosen, TIES_MAX, choose, key};
use super::ground::{Ground, grounds};
use super::hits::{Answers, Score, whole};
use super::scan;

/// How many go from stage to stage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Widths {
    /// Candidates that sketches choose.
    pub candidates: usize,
    /// Of those, how many rows are read, and settled by their exact vectors unless codes are asked for.
    pub settled: usize,
}

/// What codes made of it.
struct Ranked {
    /// The best by codes of 8 and of 4 bits, with their scores.
    by_bits: [Vec<(f32, Candidate)>; 2],
    /// Candidates whose codes are damaged.
    uncoded: Vec<(Candidate, Error)>,
    crowded: bool,
}

impl Ranked {
    fn len(&self) -> usize {
        self.by_bits.iter().map(Vec::len).sum::<usize>() + self.uncoded.len()
    }
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
    let masked = search.query.filter.is_some() || !search.scope.namespace.is_root();
    if masked {
        grounds.iter_mut().try_for_each(|ground| ground.make_mask(search))?;
        grounds.retain(|ground| !ground.is_empty());
    }
    let mut widths = widths;
    // How near the nearest of a part are, nobody has measured.
    let mut pruned = !masked && search.scope.view.levels.cells.contains_key(&search.scope.def.id);
    loop {
        let left = grounds.iter().map(Ground::left).sum::<u64>();
        let chosen = match masked && left <= 4 * widths.candidates as u64 {
            true => all_left(&grounds),
            false => choose(search, &grounds, widths.candidates, pruned)?,
        };
        if chosen.crowded {
            break;
        }
        if pruned && chosen.rows.len() < widths.candidates {
            pruned = false;
            continue;
        }
        let ranked = rank(search, widths, &grounds, &chosen.rows)?;
        if ranked.crowded {
            break;
        }
        let asked = ranked.len();
        let are_all = chosen.rows.len() < widths.candidates && asked == chosen.rows.len();
        let (settled, lost) = settle(search, &grounds, ranked)?;
        // One in four may fall away before the choice is too narrow to trust.
        if are_all || lost <= asked / 4 {
            *answers = settled;
            for (ground, numbers) in chosen.unsketched {
                if let Some(ground) = grounds.get(ground) {
                    scan::range(search, ground, numbers, answers)?;
                }
            }
            return Ok(());
        }
        pruned = false;
        widths.candidates = widths.candidates.saturating_mul(4);
        widths.settled = widths.settled.saturating_mul(4);
        if lost > asked / 4 * 3 || !pays(widths.candidates) {
            break;
        }
    }
    scan::all(search, &grounds, answers)
}

/// All rows that a mask leaves.
fn all_left(grounds: &[Ground<'_>]) -> Chosen {
    let rows = grounds.iter().enumerate();
    let rows = rows.flat_map(|(number, ground)| ground.rows_left().map(move |row| (number, row)));
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

/// Stage 2: what the candidates are worth by their codes.
fn rank(
    search: &Search<'_>,
    widths: Widths,
    grounds: &[Ground<'_>],
    chosen: &[Candidate],
) -> Result<Ranked> {
    let (scope, metric) = (search.scope, search.scope.def.spec.metric);
    let shelf = Shelf::new(&scope.view.levels, scope.def.id);
    let mut places: Vec<Option<Option<Arc<Places>>>> = vec![None; grounds.len()];
    let mut by_bits = [Sieve::new(widths.settled, TIES_MAX), Sieve::new(widths.settled, TIES_MAX)];
    let mut uncoded = Vec::new();
    let mut by_four = None;
    let mut code = Vec::new();
    for candidate in chosen {
        let (number, at) = *candidate;
        let (Some(ground), Some(known)) = (grounds.get(number), places.get_mut(number)) else {
            continue;
        };
        let places = match known {
            Some(places) => places,
            None => known.insert(kept_places(search, ground, &shelf)?),
        };
        let warm = places.as_ref().and_then(|places| places.code(&shelf, at));
        let warm =
            warm.and_then(|(block, row)| Some((block.block.bits(), block.block.row(row).ok()?)));
        let [eight, four] = &mut by_bits;
        match warm {
            Some((4, bytes)) => {
                let query = by_four.get_or_insert_with(|| {
                    let layout = search.by_eight.layout().with_bits(Bits::Four);
                    CodeQuery::new(layout, metric, search.prepared.vector())
                });
                four.offer(query.score(bytes), *candidate);
            }
            Some((_, bytes)) => eight.offer(search.by_eight.score(bytes), *candidate),
            None => match whole(search.code_of(ground, at, &mut code))? {
                Ok(score) => eight.offer(score, *candidate),
                Err(damage) => uncoded.push((*candidate, damage)),
            },
        }
    }
    let [(eight, crowded), (four, crowded_too)] = by_bits.map(Sieve::into_kept);
    Ok(Ranked { by_bits: [eight, four], uncoded, crowded: crowded || crowded_too })
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

/// Stage 3: the best that are answers, with their exact scores, and how many are none.
fn settle(search: &Search<'_>, grounds: &[Ground<'_>], ranked: Ranked) -> Result<(Answers, usize)> {
    let mut settled = Settled { search, answers: search.answers(), lost: 0 };
    for (best, bits) in ranked.by_bits.into_iter().zip([8, 4]) {
        for (score, (number, at)) in best {
            let Some(ground) = grounds.get(number) else { continue };
            settled.settle(ground, at, Ok((score, bits)))?;
        }
    }
    // An exact vector stands for itself, and takes no other candidate's place.
    for ((number, at), damage) in ranked.uncoded {
        let Some(ground) = grounds.get(number) else { continue };
        settled.settle(ground, at, Err(damage))?;
    }
    Ok((settled.answers, settled.lost))
}

struct Settled<'a> {
    search: &'a Search<'a>,
    answers: Answers,
    /// Candidates that are no answers.
    lost: usize,
}

impl Settled<'_> {
    /// Settles a candidate with its score by codes of so many bits, or the damage of those.
    fn settle(&mut self, ground: &Ground<'_>, at: u32, coded: Result<(f32, u8)>) -> Result<()> {
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
