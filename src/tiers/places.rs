//! Where the codes of a group's rows stand in the arena.
//!
//! The arena's blocks are sorted by id, and a search has row numbers. Going from one to the other takes
//! a read of the row and a search in every block; for the few hundred candidates of a query that is
//! most of the time. So it is done once for a whole group, and kept: four bytes a row.
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
use crate::tiers::levels::{Levels, WarmBlock};
use crate::words::error::Result;
use crate::words::id::CollectionId;

/// Bytes of a place.
pub const PLACE_BYTES: u64 = 4;
/// No code.
const NONE: u32 = u32::MAX;

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
}

/// Places of the codes of a group, by row. The default is right for no blocks.
#[derive(Debug, Default)]
pub struct Places {
    numbers: Box<[u64]>,
    /// Counted over all blocks in their order.
    at: Box<[u32]>,
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
        for from in (0..vectors).step_by(ROWS_AT_ONCE as usize) {
            rows(from, vectors.min(from.saturating_add(ROWS_AT_ONCE)), &mut found)?;
            for row in &found {
                if row.expires.is_none() {
                    unsure.remove(row.number);
                }
                let Some(code) = levels.code(collection, row.id, row.version) else { continue };
                let Ok(nth) = shelf.numbers.binary_search(&code.block.block.number()) else {
                    continue;
                };
                let before = shelf.before.get(nth).copied().unwrap_or(NONE);
                let place = u32::try_from(code.row).unwrap_or(NONE).saturating_add(before);
                if let Some(slot) = at.get_mut(row.number as usize) {
                    *slot = place;
                }
            }
        }
        Ok(Places { numbers: shelf.numbers.as_slice().into(), at: at.into(), unsure })
    }

    /// Whether these are the places in these blocks.
    pub fn fits(&self, shelf: &Shelf<'_>) -> bool {
        *self.numbers == *shelf.numbers
    }

    /// Bytes they take.
    pub fn bytes(&self) -> u64 {
        let tables = size_of_val(&*self.numbers) + size_of_val(&*self.at);
        (tables + self.unsure.serialized_size()) as u64
    }

    /// Whether a row is whole and never expires.
    pub fn lasts(&self, row: u32) -> bool {
        !self.unsure.contains(row)
    }

    /// The block that holds the codes of a row, and the row there. The shelf must fit.
    pub fn code<'a>(&self, shelf: &Shelf<'a>, row: u32) -> Option<(&'a WarmBlock, usize)> {
        let place = *self.at.get(row as usize)?;
        if place == NONE {
            return None;
        }
        let nth = shelf.before.partition_point(|before| *before <= place).checked_sub(1)?;
        let block = *shelf.blocks.get(nth)?;
        Some((block, (place - shelf.before.get(nth)?) as usize))
    }
}
