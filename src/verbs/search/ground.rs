//! The ground a search goes over: the archived groups of its collection, and which rows count.
//!
//! A row counts when it lives and the mask of the filter lets it pass. Where the mask cannot be
//! asked because the row or its body is damaged, the row counts until somebody needs it: only then
//! is the damage worth telling.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::bytes::codec::codes::CHUNK_ROWS;
use crate::organs::archive::{BodyReader, Row};
use crate::pure::filter::Filter;
use crate::tiers::cache::{GroupKey, Mask};
use crate::tiers::cold::{ColdRow, ColdSegment};
use crate::tiers::{Copy, View};
use crate::words::error::Result;
use crate::words::id::Lsn;
use crate::words::record::Place;

use super::Search;
use super::hits::{Found, whole};

/// A group of the archive that is searched.
pub(super) struct Ground<'a> {
    /// Its segment.
    pub segment: &'a Arc<ColdSegment>,
    /// Its number in the segment.
    pub group: u16,
    /// Rows with a vector: the first of the group.
    pub vectors: u32,
    dead: &'a RoaringBitmap,
    mask: Option<Arc<Mask>>,
}

/// The groups of a collection that hold vectors.
pub(super) fn grounds<'a>(search: &Search<'a>) -> Vec<Ground<'a>> {
    let cold = &search.scope.view.cold;
    cold.groups(search.scope.def.id)
        .filter_map(|(segment, group)| {
            let dead = segment.dead.get(usize::from(group))?;
            let vectors = segment.segment.footer().groups.get(usize::from(group))?.vectors;
            (vectors > 0).then_some(Ground { segment, group, vectors, dead, mask: None })
        })
        .collect()
}

/// The hottest copy of a row of the archive.
pub(super) fn hottest(view: &View, segment: &Arc<ColdSegment>, place: Place, row: Row) -> Copy {
    match view.levels.resident(row.id, row.version) {
        Some(hot) => Copy::Hot(hot.clone()),
        None => Copy::Cold(ColdRow { segment: Arc::clone(segment), place, row }),
    }
}

impl Ground<'_> {
    /// Whether a row is out of the question.
    pub fn keeps_out(&self, row: u32) -> bool {
        self.dead.contains(row) || self.mask.as_ref().is_some_and(|mask| mask.keeps_out(row))
    }

    /// Whether it keeps no row out.
    pub fn is_open(&self) -> bool {
        self.dead.is_empty() && self.mask.is_none()
    }

    /// Whether the mask has said that a row passes.
    pub fn lets_pass(&self, row: u32) -> bool {
        self.mask.as_ref().is_some_and(|mask| mask.passing.contains(row))
    }

    /// How many rows the mask leaves, dead ones included.
    pub fn left(&self) -> u64 {
        let mask = self.mask.as_ref();
        mask.map_or(u64::from(self.vectors), |mask| mask.passing.len() + mask.unsure.len())
    }

    /// The rows that the mask leaves; none without a mask.
    pub fn rows_left(&self) -> impl Iterator<Item = u32> {
        let masks = self.mask.iter();
        let rows = masks.flat_map(|mask| mask.passing.iter().chain(mask.unsure.iter()));
        rows.filter(|row| !self.dead.contains(*row))
    }

    /// Whether any row is left.
    pub fn is_empty(&self) -> bool {
        let mask = self.mask.as_ref();
        mask.is_some_and(|mask| mask.passing.is_empty() && mask.unsure.is_empty())
    }

    /// The versions that its rows are of.
    pub fn versions(&self) -> RangeInclusive<Lsn> {
        let group = self.segment.segment.footer().groups.get(usize::from(self.group));
        group.map_or(Lsn(1)..=Lsn(0), |group| group.min_version..=group.max_version)
    }

    /// Where a row is found that no copy in RAM stands for.
    pub fn found(&self, row: u32) -> Found {
        let (segment, group) = (self.segment.segment.number(), self.group);
        Found::Cold(Arc::clone(self.segment), Place { segment, group, row })
    }

    /// The hottest copy of a row.
    pub fn copy(&self, view: &View, row: Row) -> Copy {
        let (segment, group) = (self.segment.segment.number(), self.group);
        hottest(view, self.segment, Place { segment, group, row: row.number }, row)
    }

    /// Replaces `out` by those of some rows that are whole.
    pub fn whole_rows(&self, numbers: Range<u32>, out: &mut Vec<Row>) -> Result<()> {
        self.segment.segment.whole_rows(self.group, numbers, out)
    }

    /// Asks every row whether the filter and the namespace let it pass, or remembers that.
    pub fn make_mask(&mut self, search: &Search<'_>) -> Result<()> {
        let (scope, filter) = (search.scope, search.query.filter.as_ref());
        let question = filter.map(|filter| filter.to_json().to_string()).unwrap_or_default();
        let question = format!("{}\0{question}", scope.namespace.as_str());
        let key = GroupKey { segment: self.segment.segment.number(), group: self.group };
        let key = (key, Arc::from(question.as_str()));
        let make = || {
            let mask = self.mask(search, filter)?;
            let bytes = mask.bytes() + question.len() as u64;
            Ok((mask, bytes))
        };
        let mask = scope.stores.caches.masks.get_or_make(
            &key,
            scope.stores.shares.mask_bytes_max,
            make,
        )?;
        self.mask = Some(mask);
        Ok(())
    }

    fn mask(&self, search: &Search<'_>, filter: Option<&Filter>) -> Result<Mask> {
        let (mut passing, mut unsure) = (RoaringBitmap::new(), RoaringBitmap::new());
        let mut bodies = BodyReader::new(&self.segment.segment, self.group);
        let mut rows = Vec::new();
        for from in (0..self.vectors).step_by(CHUNK_ROWS) {
            let numbers = from..self.vectors.min(from.saturating_add(CHUNK_ROWS as u32));
            unsure.insert_range(numbers.clone());
            self.whole_rows(numbers, &mut rows)?;
            for row in rows.drain(..) {
                let number = row.number;
                let copy = self.copy(search.scope.view, row);
                // Expiry is asked again of each candidate: a mask outlives the moment.
                if let Ok(passes) = whole(search.scope.passes(&copy, filter, Some(&mut bodies)))? {
                    unsure.remove(number);
                    if passes {
                        passing.insert(number);
                    }
                }
            }
        }
        passing.optimize();
        unsure.optimize();
        Ok(Mask { passing, unsure })
    }
}
