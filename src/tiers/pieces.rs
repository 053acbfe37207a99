//! Pieces: what a search has to know of rows of the archive to leave nearly all of them alone.
//!
//! A piece is 1,024 rows of a group that stand one after the other: of each its codes, and four bytes that say whose it
//! is. Where there is room for the codes of all rows as they are, that is what is kept; else brief ones (156 bytes of
//! 384 values instead of 396), which say how near a row of that many is to a query to some 0.01: of 150 candidates some
//! twenty are so near that their exact vectors are read, and nothing else of them is.
//!
//! A row whose id is not kept here has its own say: it expires some day, its bytes are damaged, or its id is far from
//! that of the first.
//!
//! The pieces of a group stand in a [`Table`] that never changes, so that a search asks for it once: with a new piece
//! there is a new table. Pieces are spare: the least recently used group lets go of its own first.
//!
//! Never: reads one, or decides that it is to be there.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::bytes::codec::codes::CHUNK_ROWS;
use crate::organs::archive::Row;
use crate::pure::quant::RowLayout;
use crate::pure::quant::brief::{BriefLayout, BriefMaker};
use crate::tiers::GroupKey;
use crate::words::id::EntryId;

/// Bytes of an id.
const ID_BYTES: usize = size_of::<u32>();
/// Bytes of a piece besides those of its rows: its place in a table, and the heads of what it holds.
const MORE_BYTES: u64 = 160;
/// No id.
const NONE: u32 = u32::MAX;

/// How many bits the codes of a piece have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8, as in the archive.
    Whole,
    /// 3.
    Brief,
}

impl Width {
    /// Bytes of the pieces of so many rows of a group whose codes in the archive have this layout, without a
    /// [mean](Width::mean_bytes).
    #[must_use]
    pub fn bytes_of(self, layout: RowLayout, rows: u32) -> u64 {
        let pieces = u64::from(rows.div_ceil(CHUNK_ROWS as u32));
        u64::from(rows) * (self.code_bytes(layout) + ID_BYTES) as u64 + pieces * MORE_BYTES
    }

    /// Bytes of the mean that a piece may have to bring along.
    #[must_use]
    pub fn mean_bytes(self, layout: RowLayout) -> u64 {
        match self {
            Width::Whole => 0,
            Width::Brief => (layout.dim() * size_of::<f32>()) as u64,
        }
    }

    fn code_bytes(self, layout: RowLayout) -> usize {
        match self {
            Width::Whole => layout.row_bytes(),
            Width::Brief => BriefLayout::of(layout).row_bytes(),
        }
    }
}

/// Codes of a row, and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct KnownRow<'a> {
    /// Of how many bits its codes are.
    pub width: Width,
    /// The codes.
    pub codes: &'a [u8],
    /// The mean that brief ones are without; nothing beside whole ones. Equal means are one and the same slice, which
    /// those of nearly all groups of a collection are.
    pub mean: &'a [f32],
    id: [u8; ID_BYTES],
    first_id: u64,
}

impl KnownRow<'_> {
    /// Its id, if it is whole and never expires.
    #[must_use]
    pub fn id(&self) -> Option<EntryId> {
        let id = u32::from_le_bytes(self.id);
        (id != NONE).then(|| EntryId(self.first_id.saturating_add(u64::from(id))))
    }
}

/// Some rows of a group. The default knows of none.
#[derive(Clone, Debug, Default)]
pub struct Piece {
    width: Option<Width>,
    row_bytes: usize,
    /// Of each row its codes, and its id counted from the first.
    rows: Arc<[u8]>,
    first_id: u64,
    mean: Arc<[f32]>,
}

impl Piece {
    /// Makes it of all codes of 8 bits from row `from` on, of those rows that are whole, and, if it is to be brief, of
    /// the mean of its group.
    ///
    /// # Panics
    /// When it is to be brief, and the mean has not the dimension of the layout.
    #[must_use]
    pub fn new(
        width: Width,
        layout: RowLayout,
        from: u32,
        codes: &[u8],
        rows: &[Row],
        mean: &[f32],
    ) -> Piece {
        let row_bytes = width.code_bytes(layout) + ID_BYTES;
        let codes = codes.chunks_exact(layout.row_bytes());
        let mut bytes = vec![0; codes.len() * row_bytes];
        let mut maker =
            (width == Width::Brief).then(|| BriefMaker::new(BriefLayout::of(layout), mean));
        for (row, whole) in bytes.chunks_exact_mut(row_bytes).zip(codes) {
            let Some((codes, id)) = row.split_last_chunk_mut::<ID_BYTES>() else { continue };
            *id = NONE.to_le_bytes();
            match &mut maker {
                None => codes.copy_from_slice(whole),
                Some(maker) => maker.make(whole, codes),
            }
        }
        let first_id = rows.first().map_or(0, |row| row.id.0);
        for row in rows.iter().filter(|row| row.expires.is_none()) {
            let id = row.id.0.checked_sub(first_id).and_then(|id| u32::try_from(id).ok());
            let nth = row.number.checked_sub(from).map(|nth| nth as usize);
            let row = nth.and_then(|nth| bytes.get_mut(nth * row_bytes..)?.get_mut(..row_bytes));
            let slot = row.and_then(<[u8]>::split_last_chunk_mut::<ID_BYTES>);
            if let (Some((_, slot)), Some(id)) = (slot, id) {
                *slot = id.to_le_bytes();
            }
        }
        let (rows, mean) = (bytes.into(), mean.into());
        Piece { width: Some(width), row_bytes, rows, first_id, mean }
    }

    /// The bytes of a row, by its number in its group.
    #[inline]
    fn row(&self, number: u32) -> Option<&[u8]> {
        let nth = number as usize % CHUNK_ROWS;
        self.rows.get(nth * self.row_bytes..)?.get(..self.row_bytes)
    }

    fn is_whole(&self) -> bool {
        self.width == Some(Width::Whole)
    }

    /// What it takes besides its rows is counted as [`MORE_BYTES`]; means are counted apart.
    fn bytes(&self) -> u64 {
        self.rows.len() as u64 + MORE_BYTES
    }
}

/// The pieces of a group, as far as they are kept.
#[derive(Clone, Debug, Default)]
pub struct Table(Vec<Option<Piece>>);

impl Table {
    /// Of how many bits the codes of a row are, if they are kept.
    #[must_use]
    pub fn width_of(&self, row: u32) -> Option<Width> {
        self.piece(row)?.width
    }

    /// Whether the piece of a row is kept, though it may know nothing of it.
    #[must_use]
    pub fn has(&self, row: u32) -> bool {
        self.piece(row).is_some()
    }

    fn piece(&self, row: u32) -> Option<&Piece> {
        self.0.get(row as usize / CHUNK_ROWS)?.as_ref()
    }

    /// The bytes that [`row`](Self::row) will look at.
    #[inline]
    #[must_use]
    pub fn bytes_of(&self, row: u32) -> Option<&[u8]> {
        self.piece(row)?.row(row).filter(|bytes| !bytes.is_empty())
    }

    /// What is known of a row.
    #[inline]
    #[must_use]
    pub fn row(&self, row: u32) -> Option<KnownRow<'_>> {
        let piece = self.piece(row)?;
        let (codes, id) = piece.row(row)?.split_last_chunk::<ID_BYTES>()?;
        let (width, first_id) = (piece.width?, piece.first_id);
        Some(KnownRow { width, codes, mean: &piece.mean, id: *id, first_id })
    }
}

/// All pieces of a store.
#[derive(Debug, Default)]
pub struct Pieces(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    tables: HashMap<GroupKey, Kept>,
    /// The means of all pieces, each once, and perhaps one that only a search has still.
    means: Vec<Arc<[f32]>>,
    means_bytes: u64,
    /// Bytes of all pieces without their means.
    bytes: u64,
    /// Of these, pieces with codes of 8 bits.
    whole_bytes: u64,
    clock: u64,
}

#[derive(Debug, Default)]
struct Kept {
    table: Arc<Table>,
    used: u64,
}

/// Bytes of some pieces, and of those of 8 bits among them.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    bytes: u64,
    whole_bytes: u64,
}

impl Counted {
    fn of(piece: &Piece) -> Counted {
        let bytes = piece.bytes();
        Counted { bytes, whole_bytes: if piece.is_whole() { bytes } else { 0 } }
    }

    fn add(&mut self, other: Counted) {
        self.bytes += other.bytes;
        self.whole_bytes += other.whole_bytes;
    }
}

impl State {
    fn held_bytes(&self) -> u64 {
        self.bytes + self.means_bytes
    }

    fn may_have_room(&self, bytes: u64, bytes_max: u64, width: Width) -> bool {
        let go = if width == Width::Brief { self.whole_bytes } else { 0 };
        (self.held_bytes() - go).saturating_add(bytes) <= bytes_max
    }

    /// The mean that equals this one, if some piece has it: it takes no more bytes then, and who has scored one piece
    /// by it need not do so for the next.
    fn known_mean(&self, mean: &[f32]) -> Option<Arc<[f32]>> {
        self.means.iter().find(|known| ***known == *mean).map(Arc::clone)
    }

    /// Lets go of means that no piece has any more.
    fn drop_means(&mut self) {
        self.means.retain(|mean| Arc::strong_count(mean) > 1);
        self.means_bytes = self.means.iter().map(|mean| size_of_val(&**mean) as u64).sum();
    }

    fn let_go(&mut self, gone: Counted) {
        self.bytes -= gone.bytes;
        self.whole_bytes -= gone.whole_bytes;
    }
}

impl Pieces {
    /// The pieces of a group.
    #[must_use]
    pub fn get(&self, key: &GroupKey) -> Arc<Table> {
        let mut state = self.0.lock();
        state.clock += 1;
        let now = state.clock;
        let Some(kept) = state.tables.get_mut(key) else { return Arc::default() };
        kept.used = now;
        Arc::clone(&kept.table)
    }

    /// Keeps the piece that row `from` begins in the place of one of fewer bits, if all together take no more than
    /// `bytes_max`. Answers what is kept of its group.
    pub fn add(&self, key: &GroupKey, from: u32, mut piece: Piece, bytes_max: u64) -> Arc<Table> {
        let mut state = self.0.lock();
        let state = &mut *state;
        let known = state.known_mean(&piece.mean);
        let is_new = known.is_none() && !piece.mean.is_empty();
        piece.mean = known.unwrap_or(piece.mean);
        let mean_bytes = if is_new { size_of_val(&*piece.mean) as u64 } else { 0 };
        let (all, used) = (state.bytes, state.clock);
        let known = state.tables.get(key).map(|kept| &kept.table);
        let there = known.and_then(|table| table.piece(from));
        // One that knows nothing says of a brief one that there is none of 8 bits to be had.
        let is_better = there.is_none_or(|there| !there.is_whole() && piece.width != there.width);
        let gone = there.map(Counted::of).unwrap_or_default();
        let bytes = (all - gone.bytes).saturating_add(piece.bytes());
        let means_bytes = state.means_bytes + mean_bytes;
        if !is_better || bytes.saturating_add(means_bytes) > bytes_max {
            return known.map(Arc::clone).unwrap_or_default();
        }
        if is_new {
            state.means.push(Arc::clone(&piece.mean));
            state.means_bytes = means_bytes;
        }
        let whole_bytes = state.whole_bytes - gone.whole_bytes + Counted::of(&piece).whole_bytes;
        let kept = state.tables.entry(*key).or_insert_with(|| Kept { used, ..Kept::default() });
        // A search that holds the table goes on with the old one.
        let table = Arc::make_mut(&mut kept.table);
        let nth = from as usize / CHUNK_ROWS;
        table.0.resize(table.0.len().max(nth + 1), None);
        if let Some(slot) = table.0.get_mut(nth) {
            *slot = Some(piece);
        }
        let table = Arc::clone(&kept.table);
        (state.bytes, state.whole_bytes) = (bytes, whole_bytes);
        state.drop_means();
        table
    }

    /// Whether a piece of so many bytes would fit beside all others; a brief one makes those of 8 bits go.
    #[must_use]
    pub fn may_have_room(&self, bytes: u64, bytes_max: u64, width: Width) -> bool {
        self.0.lock().may_have_room(bytes, bytes_max, width)
    }

    /// Lets go until no more than this is kept, of the least recently used group first.
    pub fn shrink(&self, bytes_max: u64) {
        let mut state = self.0.lock();
        while state.held_bytes() > bytes_max {
            let oldest = state.tables.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| *key);
            let Some(oldest) = oldest else { break };
            let mut over = state.held_bytes() - bytes_max;
            let Some(kept) = state.tables.get_mut(&oldest) else { break };
            let (table, mut gone) = (Arc::make_mut(&mut kept.table), Counted::default());
            while over > 0
                && let Some(last) = table.0.pop()
            {
                let last = last.as_ref().map(Counted::of).unwrap_or_default();
                gone.add(last);
                over = over.saturating_sub(last.bytes);
            }
            if table.0.is_empty() {
                state.tables.remove(&oldest);
            }
            state.let_go(gone);
            state.drop_means();
        }
    }

    /// Whether so many bytes more fit, once as many pieces of 8 bits are let go of as brief ones need for it. Where all
    /// of those would not be enough, none goes.
    #[must_use]
    pub fn make_room(&self, bytes: u64, bytes_max: u64, width: Width) -> bool {
        let mut state = self.0.lock();
        if !state.may_have_room(bytes, bytes_max, width) {
            return false;
        }
        let over = state.held_bytes().saturating_add(bytes).saturating_sub(bytes_max);
        let mut gone = Counted::default();
        for kept in state.tables.values_mut() {
            if gone.bytes >= over {
                break;
            }
            if !kept.table.0.iter().flatten().any(Piece::is_whole) {
                continue;
            }
            for slot in &mut Arc::make_mut(&mut kept.table).0 {
                if gone.bytes < over
                    && let Some(piece) = slot.take_if(|piece| piece.is_whole())
                {
                    gone.add(Counted::of(&piece));
                }
            }
        }
        state.let_go(gone);
        true
    }

    /// Forgets the groups that do not belong any more.
    pub fn retain(&self, belongs: impl Fn(&GroupKey) -> bool) {
        let mut state = self.0.lock();
        state.tables.retain(|key, _| belongs(key));
        let mut all = Counted::default();
        let pieces = state.tables.values().flat_map(|kept| kept.table.0.iter().flatten());
        pieces.for_each(|piece| all.add(Counted::of(piece)));
        (state.bytes, state.whole_bytes) = (all.bytes, all.whole_bytes);
        state.drop_means();
    }

    /// Bytes of all that is kept.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.lock().held_bytes()
    }
}

#[cfg(test)]
mod tests;
