//! All caches of a store, and the shares of its budget they may take.
//!
//! Sketches find everything and get two fifths; masks of filters and places of codes get a
//! thirty-second each. Shares are given out of what is free at the moment, so that no cache ever starts a
//! run of the compressor; and a run leaves room for what sketches and places will come to take.
//!
//! What is free besides is for codes of the archive, in pieces as searches ask for them, of 8 bits where there is room
//! for all rows, else brief ones: a candidate without codes in the arena costs a read else. They are spare: before
//! anything has to make room, they go.
//!
//! Never: fills a cache.

use crate::bytes::codec::cells::Source;
use crate::organs::arena::Bodies;
use crate::organs::arena::cells::Cells;
use crate::tiers::View;
use crate::tiers::cache::{Cache, GroupKey, Masks, Sketches};
use crate::tiers::pieces::Pieces;
use crate::tiers::places::{PLACE_BYTES, Places};
use crate::tiers::wanted::WantedPieces;

/// The sketches of whole files of cells, by number.
pub type CellBodies = Cache<u64, Bodies>;
/// Where the codes of a group's rows stand, by group.
pub type CodePlaces = Cache<GroupKey, Places>;

/// All caches of a store.
#[derive(Debug, Default)]
pub struct Caches {
    /// Masks of filters.
    pub masks: Masks,
    /// Sketches.
    pub sketches: Sketches,
    /// Sketches that are grouped.
    pub cells: CellBodies,
    /// Places of codes.
    pub places: CodePlaces,
    /// Codes of rows of the archive, and whose they are.
    pub pieces: Pieces,
    /// Those of them that searches miss.
    pub wanted: WantedPieces,
}

impl Caches {
    /// Bytes of all that is kept.
    pub fn bytes(&self) -> u64 {
        self.needed_bytes() + self.pieces.bytes()
    }

    /// The same without what is spare.
    fn needed_bytes(&self) -> u64 {
        self.masks.bytes() + self.sketches.bytes() + self.cells.bytes() + self.places.bytes()
    }

    /// Lets so many bytes go of what is spare, as far as there are so many.
    pub fn spare(&self, bytes: u64) {
        self.pieces.shrink(self.pieces.bytes().saturating_sub(bytes));
    }

    /// Lets go of what a budget has no share for.
    pub fn shrink(&self, budget_bytes: u64) {
        self.pieces.shrink(0);
        self.masks.shrink(budget_bytes / MASK_PART);
        let sketch_bytes_max = budget_bytes / SKETCH_PART * 2;
        self.cells.shrink(sketch_bytes_max);
        self.sketches.shrink(sketch_bytes_max.saturating_sub(self.cells.bytes()));
        self.places.shrink(budget_bytes / PLACE_PART);
    }

    /// What each may take of a budget of which so many bytes are free for all of them: sketches find
    /// everything and get two fifths, masks a thirty-second, places the same; codes what is left when
    /// sketches and places have come to take what they claim.
    pub fn shares(&self, budget_bytes: u64, room_bytes: u64, claimed_bytes: u64) -> Shares {
        let mask_bytes_max = room_bytes.min(budget_bytes / MASK_PART);
        let left = room_bytes - mask_bytes_max;
        let sketch_bytes_max = left.min(budget_bytes / SKETCH_PART * 2);
        let place_bytes_max = (left - sketch_bytes_max).min(budget_bytes / PLACE_PART);
        // One share for both kinds of sketches: what one has, the other has not.
        let cell_bytes_max = sketch_bytes_max.saturating_sub(self.sketches.bytes());
        let sketch_bytes_max = sketch_bytes_max.saturating_sub(self.cells.bytes());
        let others = self.needed_bytes() + claimed_bytes + budget_bytes / FREE_PART;
        let piece_bytes_max = room_bytes.saturating_sub(others);
        Shares {
            mask_bytes_max,
            sketch_bytes_max,
            cell_bytes_max,
            place_bytes_max,
            piece_bytes_max,
        }
    }

    /// What sketches and places of codes may still come to take: every search goes by them.
    pub fn claimed_bytes(&self, view: &View, budget_bytes: u64) -> u64 {
        let sketches = view.cold.sketch_bytes().min(budget_bytes / SKETCH_PART * 2);
        // Also while no codes are in the arena: a plan that found none would be followed by another.
        let places = (view.cold.vector_rows() * PLACE_BYTES).min(budget_bytes / PLACE_PART);
        let known = self.sketches.bytes() + self.cells.bytes();
        sketches.saturating_sub(known) + places.saturating_sub(self.places.bytes())
    }

    /// Lets go of what new cells stand for: the sketches of their sources.
    pub fn grouped(&self, cells: &Cells) {
        let stands_for = |key: &GroupKey| {
            let sources = &cells.tables.sources;
            let known = |source: &Source| (source.segment, source.group);
            sources.binary_search_by_key(&(key.segment, key.group), known).is_ok()
        };
        self.sketches.retain(|key| !stands_for(key));
    }

    /// Forgets the segments that are gone.
    pub fn retain(&self, lives: impl Fn(u64) -> bool) {
        self.sketches.retain(|key| lives(key.segment));
        self.masks.retain(|(key, _)| lives(key.segment));
        self.places.retain(|key| lives(key.segment));
        self.pieces.retain(|key| lives(key.segment));
    }
}

/// Codes leave this part free, for what others take between two looks: no cache ever starts a run.
const FREE_PART: u64 = 20;
/// Masks get this part of the budget.
const MASK_PART: u64 = 32;
/// Sketches get two of so many.
const SKETCH_PART: u64 = 5;
/// Places get this part: four bytes a row, where its codes take two hundred.
const PLACE_PART: u64 = 32;

/// Most bytes that each cache may take.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// Masks.
    pub mask_bytes_max: u64,
    /// Sketches.
    pub sketch_bytes_max: u64,
    /// Sketches that are grouped.
    pub cell_bytes_max: u64,
    /// Places of codes.
    pub place_bytes_max: u64,
    /// Codes of rows of the archive, in pieces.
    pub piece_bytes_max: u64,
}
