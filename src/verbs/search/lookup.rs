//! Looking up: where the bytes are that a candidate is scored by.
//!
//! In this order: its codes in the arena; its codes in a piece of the archive's that is kept; its exact copy in RAM;
//! its codes in the archive, one small read. The [`Places`] of its group say where codes stand in the arena, and which
//! rows have a copy in RAM, without a look at the row.
//!
//! Where no piece is kept of a candidate, and there is room for one, it says so: whoever makes pieces does it later.
//!
//! Never: scores anything, or makes a piece.

use std::sync::Arc;

use crate::bytes::codec::codes::CHUNK_ROWS;
use crate::organs::archive::Row;
use crate::pure::quant;
use crate::tiers::levels::WarmBlock;
use crate::tiers::pieces::{KnownRow, Table, Width};
use crate::tiers::places::{Known, PLACE_BYTES, Places, Shelf};
use crate::tiers::wanted::PieceKey;
use crate::words::error::Result;
use crate::words::id::EntryId;

use super::Search;
use super::choose::key;
use super::gather::Candidate;
use super::ground::Ground;
use super::piecer;

/// What places take besides four bytes and a bit a row: numbers of a few hundred blocks, and the heads of sets.
const PLACES_MORE_BYTES: u64 = 4096;

/// What settles a candidate without a look at its row.
#[derive(Clone, Copy)]
pub(super) enum FastCopy<'a> {
    /// Its id, by which an exact copy in RAM is found, if there is one.
    Id(EntryId),
    /// The same of a row that never expires.
    Lasting(EntryId),
    /// Its block in the arena and the row there, where its row has no more to say than the block.
    Arena(&'a WarmBlock, usize),
    /// Nothing.
    None,
}

/// A candidate of which bytes were asked for.
pub(super) struct Asked<'a> {
    pub candidate: Candidate,
    pub bytes: Bytes<'a>,
    pub copy: FastCopy<'a>,
}

/// What a candidate is scored by.
pub(super) enum Bytes<'a> {
    /// Its codes in the arena, of so many bits.
    Arena(&'a [u8], u8),
    /// Its codes in a piece that is kept.
    Piece,
    /// Its exact vector in RAM.
    Ram(&'a [f32]),
    /// Its codes as they were read from the archive, without a wait.
    Read(Vec<u8>),
    /// Its codes in the archive, which are on their way.
    Archive,
}

/// Where the bytes of candidates are looked up.
pub(super) struct Lookup<'a, 'b> {
    search: &'b Search<'a>,
    grounds: &'b [Ground<'a>],
    shelf: Shelf<'a>,
    /// Of each ground, once it was asked for.
    places: Vec<Option<Option<Arc<Places>>>>,
    pieces: Vec<Option<Arc<Table>>>,
    /// Of what width pieces are, once somebody asked.
    width: Option<Width>,
    /// Whether there may be room for one more piece.
    has_room: bool,
    /// The pieces that this ranking has wanted.
    wanted: Vec<PieceKey>,
}

impl<'a, 'b> Lookup<'a, 'b> {
    /// Looks up what a search asks for.
    pub fn new(search: &'b Search<'a>, grounds: &'b [Ground<'a>]) -> Lookup<'a, 'b> {
        let shelf = Shelf::new(&search.scope.view.levels, search.scope.def.id);
        let (places, pieces) = (vec![None; grounds.len()], vec![None; grounds.len()]);
        let (width, has_room, wanted) = (None, true, Vec::new());
        Lookup { search, grounds, shelf, places, pieces, width, has_room, wanted }
    }

    /// Finds what a candidate is scored by, and asks for the bytes.
    pub fn ask(&mut self, candidate: Candidate) -> Result<Asked<'a>> {
        let (bytes, copy) = self.find(candidate)?;
        Ok(Asked { candidate, bytes, copy })
    }

    /// Asks for what says where a candidate's codes stand, if that is known.
    pub fn look_ahead(&self, (number, at): Candidate) {
        if let Some(Some(Some(places))) = self.places.get(number as usize) {
            places.fetch(at);
        }
    }

    fn find(&mut self, (number, at): Candidate) -> Result<(Bytes<'a>, FastCopy<'a>)> {
        let Some(ground) = self.grounds.get(number as usize) else {
            return Ok((Bytes::Archive, FastCopy::None));
        };
        let (mut copy, mut in_arena) = (FastCopy::None, false);
        // Who asks for scores by codes has everybody ranked by those of 8 bits.
        let by_codes = self.search.by_codes();
        self.look_for_places(number, ground)?;
        if let Some(Some(Some(places))) = self.places.get(number as usize) {
            match places.known(&self.shelf, at) {
                Some(Known::Code(block, row)) => {
                    if let Ok(codes) = block.block.row(row) {
                        if places.lasts(at) {
                            copy = FastCopy::Arena(block, row);
                        }
                        let bits = block.block.bits();
                        if bits == 8 || !by_codes {
                            quant::fetch(codes);
                            return Ok((Bytes::Arena(codes, bits), copy));
                        }
                        in_arena = true;
                    }
                }
                Some(Known::Id(id)) => copy = FastCopy::Id(id),
                None => {}
            }
        }
        if let Some(pieces) = self.look_for_piece((number, at), in_arena, ground)
            && let Some(bytes) = pieces.bytes_of(at)
            && !(by_codes && pieces.width_of(at) == Some(Width::Brief))
        {
            quant::fetch(bytes);
            return Ok((Bytes::Piece, copy));
        }
        let levels = &self.search.scope.view.levels;
        if let (FastCopy::Id(id), false) = (copy, by_codes)
            && let Some(hot) = levels.resident_of(id, &ground.versions())
            && let Some(vector) = hot.record.vector.as_deref()
        {
            quant::fetch(bytemuck::cast_slice(vector));
            return Ok((Bytes::Ram(vector), copy));
        }
        let mut code = Vec::new();
        match ground.segment.segment.code_if_cached(ground.group, at, &mut code) {
            Ok(true) => Ok((Bytes::Read(code), copy)),
            // What is wrong with them is said when it is their turn, if that comes.
            Ok(false) | Err(_) => Ok((Bytes::Archive, copy)),
        }
    }

    fn look_for_places(&mut self, number: u32, ground: &Ground<'_>) -> Result<()> {
        if let Some(known) = self.places.get_mut(number as usize)
            && known.is_none()
        {
            *known = Some(kept_places(self.search, ground, &self.shelf)?);
        }
        Ok(())
    }

    /// What is known of a candidate whose bytes stand in a piece.
    pub fn in_piece(&self, (number, at): Candidate) -> Option<KnownRow<'_>> {
        let row = self.pieces.get(number as usize)?.as_ref()?.row(at)?;
        // Who asks for scores by codes gets those of 8 bits.
        (row.width == Width::Whole || !self.search.by_codes()).then_some(row)
    }

    /// The pieces of a ground that are kept. One that a candidate would want, and that there is room for, is said to be
    /// wanted: later searches find it.
    ///
    /// Of who has codes of 4 bits in the arena only those of 8 are of any use.
    fn look_for_piece(
        &mut self,
        (number, at): Candidate,
        in_arena: bool,
        ground: &Ground<'_>,
    ) -> Option<&Table> {
        let (stores, view) = (self.search.scope.stores, self.search.scope.view);
        let (cache, bytes_max) = (&stores.caches.pieces, stores.shares.piece_bytes_max);
        let known = self.pieces.get_mut(number as usize)?;
        let known = known.get_or_insert_with(|| cache.get(&key(ground)));
        let there = known.width_of(at);
        let is_best = there == Some(Width::Whole) || (there.is_none() && known.has(at));
        // Who is sent to the archive only because nobody has looked yet where codes stand needs no piece.
        let is_first = matches!(self.places.get(number as usize), Some(Some(Some(places))) if !places.are_known());
        if is_best || is_first || !self.has_room {
            return Some(known);
        }
        let width = *self.width.get_or_insert_with(|| piecer::width(&view.cold, bytes_max));
        if there != Some(width) && !(in_arena && width == Width::Brief) {
            let rows = CHUNK_ROWS as u32;
            let wanted = (key(ground), at / rows * rows);
            if self.wanted.contains(&wanted) {
                return Some(known);
            }
            let count = ground.vectors.saturating_sub(wanted.1).min(rows);
            let layout = self.search.by_eight.layout();
            let bytes = width.bytes_of(layout, count) + width.mean_bytes(layout);
            self.has_room = cache.may_have_room(bytes, bytes_max, width);
            if self.has_room {
                stores.caches.wanted.want(wanted);
                self.wanted.push(wanted);
            }
        }
        Some(known)
    }
}

/// Where the codes of a group stand, or the ids of those without, if that is known or may be kept. Who asks first gets
/// places that nobody has looked for, and is sent to the archive: an open store answers before it has read all rows.
fn kept_places(
    search: &Search<'_>,
    ground: &Ground<'_>,
    shelf: &Shelf<'_>,
) -> Result<Option<Arc<Places>>> {
    let (scope, key) = (search.scope, key(ground));
    let (cache, bytes_max) = (&scope.stores.caches.places, scope.stores.shares.place_bytes_max);
    // The set of rows that expire is a bit a row at most. What cannot be kept is not looked for.
    let rows = u64::from(ground.vectors);
    let has_room = || cache.has_room(rows * PLACE_BYTES + rows / 8 + PLACES_MORE_BYTES, bytes_max);
    match cache.get(&key) {
        _ if shelf.is_empty() && scope.view.levels.resident_len() == 0 => return Ok(None),
        Some(places) if places.fits(shelf) => return Ok(Some(places)),
        _ if !has_room() => return Ok(None),
        Some(_) => {}
        None => {
            cache.replace(&key, Arc::default(), 0, bytes_max);
            return Ok(Some(Arc::default()));
        }
    }
    let rows = |from, end, out: &mut Vec<Row>| ground.whole_rows(from..end, out);
    let collection = scope.def.id;
    let places = Places::find(&scope.view.levels, shelf, collection, ground.vectors, rows)?;
    let (bytes, places) = (places.bytes(), Arc::new(places));
    cache.replace(&key, Arc::clone(&places), bytes, bytes_max);
    Ok(Some(places))
}
