//! The scan: every vector of some rows of the archive, and every record that only the log has.
//!
//! Archived vectors go by in blocks of at most 1 MiB: they are read, never loaded whole. A row whose
//! score would enter the best k is then looked at: is it live, not superseded in RAM, not expired,
//! does it pass the filter. Looking only at would-be hits keeps filters and row reads off the path
//! of the many. `Exactness::Codes` scans codes instead.
//!
//! A block with damage in it is gone through row by row, and each row is scored by what is whole of
//! it: its exact copy in RAM, its vector, its codes.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::organs::archive::BodyReader;
use crate::tiers::Copy;
use crate::words::error::{Error, Result};

use super::Search;
use super::ground::Ground;
use super::hits::{Answers, Found, Score, whole};

/// Vectors of a block take at most this much scratch.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Rows of a block at most: the row table of a block is 128 bytes a row.
const BLOCK_ROWS_MAX: u32 = 512;
/// Rows that are tried together in a block with damage: vectors are checked by so many.
const PART_ROWS: u32 = 64;

/// Offers all rows of these groups.
pub(super) fn all(
    search: &Search<'_>,
    grounds: &[Ground<'_>],
    answers: &mut Answers,
) -> Result<()> {
    for ground in grounds {
        range(search, ground, 0..ground.vectors, answers)?;
    }
    Ok(())
}

/// Offers some rows of a group.
pub(super) fn range(
    search: &Search<'_>,
    ground: &Ground<'_>,
    numbers: Range<u32>,
    answers: &mut Answers,
) -> Result<()> {
    let scope = search.scope;
    let block = u32::try_from(BLOCK_BYTES_MAX / (search.dim() * 4)).unwrap_or(1);
    let block = block.clamp(1, BLOCK_ROWS_MAX);
    let file = &ground.segment.segment;
    let mut bodies = BodyReader::new(file, ground.group);
    let mut scored = Scored::default();
    let mut rows = Vec::new();
    for from in numbers.clone().step_by(block as usize) {
        let part = from..numbers.end.min(from.saturating_add(block));
        scored.fill(search, ground, part.clone(), answers)?;
        rows.clear();
        let mut read = false;
        for (score, at) in scored.scores.iter().copied().zip(from..) {
            if !answers.enters(score) || ground.keeps_out(at) {
                continue;
            }
            if !read {
                ground.whole_rows(part.clone(), &mut rows)?;
                read = true;
            }
            let row = match rows.binary_search_by_key(&at, |row| row.number) {
                Ok(index) => rows.get(index).cloned().map(Ok),
                Err(_) => None,
            };
            let row = match row {
                Some(row) => row,
                None => whole(file.row(ground.group, at))?,
            };
            let row = match row {
                Ok(row) => row,
                Err(damage) => {
                    answers.lose(score, damage);
                    continue;
                }
            };
            if scope.view.shadows(row.id) || scope.view.levels.hides(row.id) {
                continue;
            }
            let (id, copy) = (row.id, ground.copy(scope.view, row));
            let admitted = scope.admits(&copy, search.query.filter.as_ref(), Some(&mut bodies));
            match (whole(admitted)?, scored.odd.get(&at)) {
                (Ok(false), _) => {}
                (Ok(true), None) => answers.offer(score, id, copy.into(), search.usual()),
                (Ok(true), Some(Ok(of))) => answers.offer(score, id, copy.into(), *of),
                (Ok(true), Some(Err(damage))) => answers.lose(score, damage.clone()),
                (Err(damage), _) => answers.lose(score, damage),
            }
        }
    }
    Ok(())
}

/// Scores of the rows of a block.
#[derive(Default)]
struct Scored {
    scores: Vec<f32>,
    /// Rows that were not scored by what is usual, or that cannot be scored: infinity stands for
    /// their score, so that they are looked at.
    odd: BTreeMap<u32, Result<Score, Error>>,
    vectors: Vec<f32>,
    code: Vec<u8>,
}

impl Scored {
    fn fill(
        &mut self,
        search: &Search<'_>,
        ground: &Ground<'_>,
        numbers: Range<u32>,
        answers: &mut Answers,
    ) -> Result<()> {
        self.scores.clear();
        self.odd.clear();
        if search.by_codes() {
            return numbers.into_iter().try_for_each(|at| self.one(search, ground, at, answers));
        }
        if self.vectors(search, ground, numbers.clone())? {
            return Ok(());
        }
        for from in numbers.clone().step_by(PART_ROWS as usize) {
            let part = from..numbers.end.min(from.saturating_add(PART_ROWS));
            if !self.vectors(search, ground, part.clone())? {
                part.into_iter().try_for_each(|at| self.one(search, ground, at, answers))?;
            }
        }
        Ok(())
    }

    /// Scores rows by their vectors, read at once; false when something of them is damaged.
    fn vectors(
        &mut self,
        search: &Search<'_>,
        ground: &Ground<'_>,
        at: Range<u32>,
    ) -> Result<bool> {
        self.vectors.clear();
        let count = at.end.saturating_sub(at.start);
        let file = &ground.segment.segment;
        let read = whole(file.vectors(ground.group, at.start, count, &mut self.vectors))?.is_ok();
        if read {
            let vectors = self.vectors.chunks_exact(search.dim());
            self.scores.extend(vectors.map(|vector| search.exact(vector)));
        }
        Ok(read)
    }

    /// Scores a row by what is whole of it.
    fn one(
        &mut self,
        search: &Search<'_>,
        ground: &Ground<'_>,
        at: u32,
        answers: &mut Answers,
    ) -> Result<()> {
        let mut exact = || {
            let score = search.exact_of(ground, at)?;
            Ok((score, Score::exact(search.scope.def.spec.element)))
        };
        let mut coded = || Ok((search.code_of(ground, at, &mut self.code)?, Score::coded(8)));
        let (first, second): (&mut dyn FnMut() -> _, &mut dyn FnMut() -> _) =
            if search.by_codes() { (&mut coded, &mut exact) } else { (&mut exact, &mut coded) };
        let worth = match whole(first())? {
            Ok(worth) => Ok(worth),
            Err(damage) => match whole(second())? {
                Ok(worth) => {
                    answers.heal(damage);
                    Ok(worth)
                }
                Err(_) => Err(damage),
            },
        };
        self.scores.push(worth.as_ref().map_or(f32::INFINITY, |(score, _)| *score));
        match worth {
            Ok((_, of)) if of == search.usual() => {}
            other => drop(self.odd.insert(at, other.map(|(_, of)| of))),
        }
        Ok(())
    }
}

/// Offers the records that are not archived yet.
pub(super) fn logged(search: &Search<'_>, answers: &mut Answers) -> Result<()> {
    let scope = search.scope;
    for hot in scope.view.hot(scope.def.id) {
        let Some(vector) = &hot.record.vector else { continue };
        // A record logged before its collection settled on another dimension cannot exist; one
        // from a damaged file can, and has no score.
        if vector.len() != search.dim() {
            continue;
        }
        let score = search.exact(vector);
        if !answers.enters(score) {
            continue;
        }
        let (copy, of) = (Copy::Hot(hot.clone()), Score::exact(scope.def.spec.element));
        match whole(scope.admits(&copy, search.query.filter.as_ref(), None))? {
            Ok(true) => answers.offer(score, hot.record.id, Found::Hot(hot.clone()), of),
            Ok(false) => {}
            Err(damage) => answers.lose(score, damage),
        }
    }
    Ok(())
}
