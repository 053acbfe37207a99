//! Where the codes of a group's rows stand in the arena.
//!
//! The arena's blocks are sorted by id, and a search has row numbers. Going from one to the other takes
//! a read of the row and a search in every block; for the few hundred candidates of a query that is
//! most of the time. So it is done once for a whole group, and kept: four bytes a row.
//!
//! A row without codes in the arena may stand in RAM, where its id finds it: in those four bytes is its
//! id then, counted from that of the group's first row. A store that has room for all has no codes in the
//! arena at all, and would read those of the archive for each candidate.
//!
//! A block never changes and its number never comes back, so the numbers of all blocks say whether
//! what is kept still holds. A row whose place is kept is of the version that the archive has there.
//!
//! What a row says besides and no view changes, whether it expires, is kept beside them as a set: then a
//! candidate whose codes are in a block need not have its row read at all.
//!
//! Never: holds a block alive, or is believed when the blocks are others.

use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::organs::archive::Row;
use crate::pure::quant;
use crate::tiers::levels::{Code, Levels, WarmBlock};
use crate::words::error::Result;
use crate::words::id::{CollectionId, EntryId};

/// Bytes of a place.
pub const PLACE_BYTES: u64 = 4;
/// Neither code nor id.
const NONE: u32 = u32::MAX;
/// Marks an id.
const ID: u32 = 1 << 31;

/// What is known of a row.
#[derive(Clone, Copy, Debug)]
pub enum Known<'a> {
    /// The block that holds its codes, and the row there.
    Code(&'a WarmBlock, usize),
    /// It has none; its id.
    Id(EntryId),
}

/// The blocks of a collection, in order of number.
#[derive(Debug)]
pub struct Shelf<'a> {
    blocks: Vec<&'a Arc<WarmBlock>>,
    numbers: Vec<u64>,
    /// Rows of the blocks before each.
    before: Vec<u32>,
}

impl<'a> Shelf<'a> {
    /// The blocks as they are.
    pub fn new(levels: &'a Levels, collection: CollectionId) -> Shelf<'a> {
        let mut shelf = Shelf { blocks: Vec::new(), numbers: Vec::new(), before: Vec::new() };
        let mut rows = 0_u32;
        for (number, block) in &levels.blocks {
            if block.block.collection() != collection {
                continue;
            }
            shelf.numbers.push(*number);
            shelf.before.push(rows);
            rows = rows.saturating_add(u32::try_from(block.block.rows()).unwrap_or(NONE));
            shelf.blocks.push(block);
        }
        shelf
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The row of a code, counted over all blocks.
    fn place(&self, code: Code<'_>) -> Option<u32> {
        let nth = self.numbers.binary_search(&code.block.block.number()).ok()?;
        u32::try_from(code.row).ok()?.checked_add(*self.before.get(nth)?)
    }
}

/// Places of the codes of a group, by row. The default has looked for none, and fits no shelf.
#[derive(Debug, Default)]
pub struct Places {
    numbers: Option<Box<[u64]>>,
    /// Counted over all blocks in their order; or ids.
    at: Box<[u32]>,
    /// What ids are counted from.
    first_id: u64,
    /// Rows that expire some time, or whose bytes are damaged.
    unsure: RoaringBitmap,
}

impl Places {
    /// Finds all codes of a group of `vectors` rows with vectors. `rows` gives those from the first to the
    /// second number that are whole.
    pub fn find(
        levels: &Levels,
        shelf: &Shelf<'_>,
        collection: CollectionId,
        vectors: u32,
        mut rows: impl FnMut(u32, u32, &mut Vec<Row>) -> Result<()>,
    ) -> Result<Places> {
        const ROWS_AT_ONCE: u32 = 512;
        let mut at = vec![NONE; vectors as usize];
        let mut found = Vec::new();
        let mut unsure: RoaringBitmap = (0..vectors).collect();
        let mut first_id: Option<u64> = None;
        for from in (0..vectors).step_by(ROWS_AT_ONCE as usize) {
            rows(from, vectors.min(from.saturating_add(ROWS_AT_ONCE)), &mut found)?;
            for row in &found {
                if row.expires.is_none() {
                    unsure.remove(row.number);
                }
                let first_id = *first_id.get_or_insert(row.id.0);
                let code = levels.code(collection, row.id, row.version);
                let place = match code {
                    Some(code) => shelf.place(code),
                    // Ids ascend with the numbers of rows.
                    None => row.id.0.checked_sub(first_id).and_then(|id| u32::try_from(id).ok()),
                };
                let mark = if code.is_none() { ID } else { 0 };
                if let Some(slot) = at.get_mut(row.number as usize) {
                    *slot =
                        place.filter(|place| *place < ID - 1).map_or(NONE, |place| place | mark);
                }
            }
        }
        let numbers = Some(shelf.numbers.as_slice().into());
        let first_id = first_id.unwrap_or(0);
        Ok(Places { numbers, at: at.into(), first_id, unsure })
    }

    /// Whether somebody has looked for them.
    pub fn are_known(&self) -> bool {
        self.numbers.is_some()
    }

    /// Whether these are the places in these blocks.
    pub fn fits(&self, shelf: &Shelf<'_>) -> bool {
        self.numbers.as_deref() == Some(&shelf.numbers)
    }

    /// Bytes they take.
    pub fn bytes(&self) -> u64 {
        let numbers = self.numbers.as_deref().map_or(0, size_of_val);
        let tables = numbers + size_of_val(&*self.at);
        (tables + self.unsure.serialized_size()) as u64
    }

    /// Whether a row is whole and never expires.
    pub fn lasts(&self, row: u32) -> bool {
        !self.unsure.contains(row)
    }

    /// Asks for what [`known`](Self::known) will look at, which some work later will be wanted.
    pub fn fetch(&self, row: u32) {
        let row = row as usize;
        quant::fetch(bytemuck::cast_slice(self.at.get(row..=row).unwrap_or_default()));
    }

    /// Where the codes of a row are, or its id. The shelf must fit.
    pub fn known<'a>(&self, shelf: &Shelf<'a>, row: u32) -> Option<Known<'a>> {
        let place = *self.at.get(row as usize)?;
        if place == NONE {
            return None;
        }
        if place & ID != 0 {
            return Some(Known::Id(EntryId(self.first_id.saturating_add(u64::from(place & !ID)))));
        }
        let nth = shelf.before.partition_point(|before| *before <= place).checked_sub(1)?;
        let block = *shelf.blocks.get(nth)?;
        Some(Known::Code(block, (place - shelf.before.get(nth)?) as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_codes_are_known_by_their_ids_as_far_as_those_fit() {
        let levels = Levels::default();
        let shelf = Shelf::new(&levels, CollectionId(1));
        assert!(!Places::default().fits(&shelf), "it has looked for nothing");
        assert!(!Places::default().are_known());
        let far = 7 + u64::from(ID);
        let ids = [7, 9, 1 << 20, far - 2, far - 1, u64::MAX];
        // Row 1 is damaged.
        let rows = |from: u32, end: u32, out: &mut Vec<Row>| {
            let numbers = (from..end).filter(|number| *number != 1);
            *out = numbers.map(|number| Row::example(number, ids[number as usize])).collect();
            out.iter_mut().filter(|row| row.number == 2).for_each(|row| row.expires = Some(row.at));
            Ok(())
        };
        let places = Places::find(&levels, &shelf, CollectionId(1), 6, rows).unwrap();
        assert!(places.fits(&shelf) && places.are_known());
        let known = |row| match places.known(&shelf, row) {
            Some(Known::Id(id)) => Some(id.0),
            Some(Known::Code(..)) => panic!("there are no codes"),
            None => None,
        };
        let found: Vec<Option<u64>> = (0..7).map(known).collect();
        assert_eq!(found, [Some(7), None, Some(1 << 20), Some(far - 2), None, None, None]);
        let last: Vec<bool> = (0..6).map(|row| places.lasts(row)).collect();
        assert_eq!(last, [true, false, false, true, true, true]);
    }
}
