//! The packer: makes Level 1 what a plan says, in whole blocks.
//!
//! Steps of [`pack`]:
//! 1. each block keeps its place if enough of its rows are still wanted at its width; a block with
//!    more than a quarter of dead rows is a victim, and so is a small one when rows of its kind
//!    are to be written anyway;
//! 2. wanted rows that no kept block holds are written to new blocks in order of id: 8-bit codes as
//!    the archive has them, 4-bit codes narrowed from those, so no copy of a copy ever drifts;
//! 3. the caller publishes the new list of blocks, then removes the victims' files.
//!
//! A row whose codes are damaged is made from the exact vector, or else copied from the block that had
//! it; one that is damaged in every copy is left out and named, and the others go on.
//!
//! A crash before 3 leaves blocks beside each other that hold the same rows; both are right, and the
//! next pass packs one of them away. A row counts only in the version the archive has.
//!
//! Never: decides what is warm, changes a block, or removes a file that readers may still open.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bytes::codec::block::BlockHeader;
use crate::bytes::codec::codes;
use crate::io::Disk;
use crate::organs::archive::Segment;
use crate::organs::arena::{self, Block, NewBlock};
use crate::pure::quant::{self, Bits};
use crate::tiers::cold::Cold;
use crate::tiers::levels::WarmBlock;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::{CollectionId, EntryId, Lsn};
use crate::words::options::ArenaAccess;
use crate::words::record::Place;

/// An entry that shall stand in Level 1. Ordered as blocks are filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// Its collection.
    pub collection: CollectionId,
    /// Width of its codes: 8 or 4.
    pub bits: u8,
    /// The entry.
    pub id: EntryId,
    /// The version that is archived.
    pub version: Lsn,
    /// Where its codes are in the archive.
    pub place: Place,
}

/// Where blocks are written.
pub struct Yard<'a> {
    /// The store's files.
    pub disk: &'a dyn Disk,
    /// The store's identity.
    pub store_id: [u8; 16],
    /// How blocks are read back.
    pub access: ArenaAccess,
    /// Bytes of a block at most.
    pub block_bytes_max: usize,
}

/// What a packing made.
#[derive(Debug, Default)]
pub struct Packed {
    /// The blocks that count from now on.
    pub blocks: BTreeMap<u64, Arc<WarmBlock>>,
    /// Numbers of the blocks that do not any more.
    pub removed: Vec<u64>,
    /// Bytes written.
    pub bytes: u64,
    /// Entries that stand in no block, as every copy of their codes is damaged.
    pub skipped: Vec<EntryId>,
}

type Blocks = BTreeMap<u64, Arc<WarmBlock>>;

/// Fewest rows of a block, however small the budget.
const BLOCK_ROWS_MIN: usize = 64;
/// Bytes of codes that are read together, at most.
const STRETCH_BYTES: usize = 128 << 10;

/// Packs. `wanted` is sorted; `next` is a number no block has had.
pub fn pack(
    yard: &Yard<'_>,
    cold: &Cold,
    blocks: &Blocks,
    next: u64,
    wanted: &[Wanted],
) -> Result<Packed> {
    let mut packed = Packed::default();
    let mut held = vec![false; wanted.len()];
    let mut small = Vec::new();
    for (number, block) in blocks.iter().rev() {
        let rows: Vec<usize> = rows_wanted(block, wanted, &held);
        if is_victim(block, rows.len()) {
            packed.removed.push(*number);
            continue;
        }
        rows.iter().for_each(|at| set(&mut held, *at, true));
        packed.blocks.insert(*number, Arc::clone(block));
        if rows.len() * 2 < rows_max(yard, block.block.row_bytes()) {
            small.push((*number, rows));
        }
    }
    // A small block goes along with new rows of its kind, or small blocks would gather.
    for (number, rows) in small {
        let Some(kind) = rows.first().and_then(|at| wanted.get(*at)).map(kind) else { continue };
        if wanted.iter().zip(&held).any(|(w, held)| !held && self::kind(w) == kind) {
            rows.iter().for_each(|at| set(&mut held, *at, false));
            packed.blocks.remove(&number);
            packed.removed.push(number);
        }
    }
    let missing: Vec<Wanted> =
        wanted.iter().zip(&held).filter(|(_, held)| !**held).map(|(w, _)| *w).collect();
    fill(yard, cold, blocks, next, &missing, &mut packed)?;
    Ok(packed)
}

/// Packs every row into a new block, however good the old ones are.
pub fn pack_anew(
    yard: &Yard<'_>,
    cold: &Cold,
    blocks: &Blocks,
    next: u64,
    wanted: &[Wanted],
) -> Result<Packed> {
    let mut packed = Packed { removed: blocks.keys().copied().collect(), ..Packed::default() };
    fill(yard, cold, blocks, next, wanted, &mut packed)?;
    Ok(packed)
}

/// Whether [`pack`] would replace a block for its dead rows alone.
pub fn has_victims(blocks: &Blocks, wanted: &[Wanted]) -> bool {
    let mut held = vec![false; wanted.len()];
    blocks.values().rev().any(|block| {
        let rows = rows_wanted(block, wanted, &held);
        rows.iter().for_each(|at| set(&mut held, *at, true));
        is_victim(block, rows.len())
    })
}

/// A block goes when nothing in it is wanted, or more than a quarter of it is dead.
fn is_victim(block: &WarmBlock, wanted: usize) -> bool {
    let rows = block.block.rows();
    wanted == 0 || rows.saturating_sub(wanted) * 4 > rows
}

/// Writes the missing rows, sorted, into new blocks.
fn fill(
    yard: &Yard<'_>,
    cold: &Cold,
    old: &Blocks,
    next: u64,
    missing: &[Wanted],
    packed: &mut Packed,
) -> Result<()> {
    let mut number = next;
    for rows in missing.chunk_by(|a, b| kind(a) == kind(b)) {
        let Some(first) = rows.first() else { continue };
        let layout = layout(cold, first)?;
        for rows in rows.chunks(rows_max(yard, layout.row_bytes())) {
            let Some((block, bytes)) = write(yard, cold, old, number, rows, &mut packed.skipped)?
            else {
                continue;
            };
            packed.bytes += bytes;
            if let Some(block) = WarmBlock::new(block) {
                packed.blocks.insert(number, Arc::new(block));
            }
            number += 1;
        }
    }
    Ok(())
}

fn kind(wanted: &Wanted) -> (CollectionId, u8) {
    (wanted.collection, wanted.bits)
}

fn set(held: &mut [bool], at: usize, value: bool) {
    if let Some(held) = held.get_mut(at) {
        *held = value;
    }
}

fn rows_max(yard: &Yard<'_>, row_bytes: usize) -> usize {
    (yard.block_bytes_max / (row_bytes + 16)).max(BLOCK_ROWS_MIN)
}

/// Which of the wanted rows a block holds, in their version and width, and no newer block does.
fn rows_wanted(block: &WarmBlock, wanted: &[Wanted], held: &[bool]) -> Vec<usize> {
    let (collection, bits) = (block.block.collection(), block.block.bits());
    (0..block.block.rows())
        .filter_map(|row| {
            let (id, version) = block.block.id_version(row)?;
            let key = (collection, bits, id);
            let at = wanted.binary_search_by_key(&key, |w| (w.collection, w.bits, w.id)).ok()?;
            let same = wanted.get(at)?.version == version && !*held.get(at)?;
            same.then_some(at)
        })
        .collect()
}

/// How the rows of one kind are laid out.
fn layout(cold: &Cold, first: &Wanted) -> Result<quant::RowLayout> {
    let segment = cold.segments.get(&first.place.segment);
    let group = segment.and_then(|s| s.segment.footer().groups.get(usize::from(first.place.group)));
    let bits = if first.bits == 4 { Bits::Four } else { Bits::Eight };
    group
        .and_then(|g| codes::layout(g.dim))
        .map(|layout| layout.with_bits(bits))
        .ok_or_else(|| Error::internal(format!("entry {} has no codes", first.id)))
}

/// The codes of an entry in a block that has its version at this width, whole.
fn copy_in<'a>(blocks: &'a Blocks, wanted: &Wanted, bits: u8) -> Option<&'a [u8]> {
    let of_kind = |block: &&Arc<WarmBlock>| {
        (block.block.collection(), block.block.bits()) == (wanted.collection, bits)
    };
    blocks.values().rev().filter(of_kind).find_map(|block| {
        let (row, version) = block.find(wanted.id)?;
        let codes = block.block.row(row).ok()?;
        (version == wanted.version).then_some(codes)
    })
}

/// The 8-bit codes of an entry as the archive has them; made anew from its exact vector when they
/// are damaged.
fn read_code(
    segment: &Segment,
    layout: quant::RowLayout,
    wanted: &Wanted,
    row: &mut Vec<u8>,
) -> Result<()> {
    let Place { group, row: number, .. } = wanted.place;
    match segment.code(group, number, row) {
        Err(error) if error.kind() == ErrorKind::Corrupt => {}
        other => return other,
    }
    let found = segment.row(group, number)?;
    let vector = segment.vector(group, &found)?.filter(|vector| vector.len() == layout.dim());
    let vector =
        vector.ok_or_else(|| Error::internal(format!("entry {} has no vector", wanted.id)))?;
    row.resize(layout.row_bytes(), 0);
    quant::encode(layout, &vector, row);
    Ok(())
}

/// Codes of the archive that were read together: rows of a run stand side by side, and a call for each
/// was a third of the time of packing anew.
#[derive(Default)]
struct Stretch {
    group: (u64, u16),
    first: u32,
    codes: Vec<u8>,
    /// Up to here something is damaged: these are read one by one.
    odd_until: u32,
}

impl Stretch {
    /// The 8-bit codes of the first of `rows`, of which the others come next. `None` when it stands too much
    /// alone, or something around it is damaged: then it is read by itself.
    fn code(&mut self, segment: &Segment, rows: &[Wanted], row_bytes: usize) -> Option<&[u8]> {
        let Place { segment: number, group, row } = rows.first()?.place;
        let key = (number, group);
        if self.group != key {
            *self = Stretch { group: key, ..Stretch::default() };
        }
        if row < self.odd_until {
            return None;
        }
        if self.at(row, row_bytes).is_none() {
            self.codes.clear();
            let rows_max = (STRETCH_BYTES / row_bytes.max(1)) as u32;
            let near = |wanted: &&Wanted| {
                (wanted.place.segment, wanted.place.group) == key
                    && (row..row.saturating_add(rows_max)).contains(&wanted.place.row)
            };
            let near = rows.iter().take_while(near);
            let (wanted, last) = near.fold((0, row), |(n, last), w| (n + 1, last.max(w.place.row)));
            let count = last - row + 1;
            if wanted < 2 || wanted * 2 <= count {
                return None;
            }
            self.first = row;
            if segment.codes(group, row, count, &mut self.codes).is_err() {
                self.codes.clear();
                self.odd_until = last.saturating_add(1);
            }
        }
        self.at(row, row_bytes)
    }

    fn at(&self, row: u32, row_bytes: usize) -> Option<&[u8]> {
        let from = (row.checked_sub(self.first)? as usize).checked_mul(row_bytes)?;
        self.codes.get(from..from.checked_add(row_bytes)?)
    }
}

/// Writes a block; `None` when none of its rows can be had.
fn write(
    yard: &Yard<'_>,
    cold: &Cold,
    old: &Blocks,
    number: u64,
    rows: &[Wanted],
    skipped: &mut Vec<EntryId>,
) -> Result<Option<(Block, u64)>> {
    let first = rows.first().ok_or_else(|| Error::internal("a block without rows"))?;
    let to = layout(cold, first)?;
    let from = to.with_bits(Bits::Eight);
    let mut codes = Vec::with_capacity(rows.len() * to.row_bytes());
    let mut ids: Vec<(EntryId, Lsn)> = Vec::with_capacity(rows.len());
    let (mut row, mut narrow) = (Vec::new(), vec![0; to.row_bytes()]);
    let mut stretch = Stretch::default();
    for (n, wanted) in rows.iter().enumerate() {
        let segment = cold.segments.get(&wanted.place.segment).ok_or_else(|| {
            Error::internal(format!("segment {} left while it was packed", wanted.place.segment))
        })?;
        let coming = rows.get(n..).unwrap_or_default();
        let read = match stretch.code(&segment.segment, coming, from.row_bytes()) {
            Some(code) => {
                row.clear();
                row.extend_from_slice(code);
                Ok(())
            }
            None => read_code(&segment.segment, from, wanted, &mut row),
        };
        match read {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                if let Some(eight) = copy_in(old, wanted, 8) {
                    row.clear();
                    row.extend_from_slice(eight);
                } else if let Some(same) = copy_in(old, wanted, wanted.bits) {
                    codes.extend_from_slice(same);
                    ids.push((wanted.id, wanted.version));
                    continue;
                } else {
                    tracing::warn!(%error, "entry {} has no place in Level 1", wanted.id);
                    skipped.push(wanted.id);
                    continue;
                }
            }
            Err(error) => return Err(error),
        }
        ids.push((wanted.id, wanted.version));
        match to.bits() {
            Bits::Eight => codes.extend_from_slice(&row),
            Bits::Four => {
                quant::narrow(from, &row, &mut narrow);
                codes.extend_from_slice(&narrow);
            }
        }
    }
    if ids.is_empty() {
        return Ok(None);
    }
    let header = BlockHeader {
        store_id: yard.store_id,
        number,
        collection: first.collection,
        dim: to.dim() as u32,
        group: to.group() as u32,
        bits: first.bits,
        rows: ids.len() as u32,
        row_bytes: to.row_bytes() as u32,
    };
    let new = NewBlock { header, rows: &ids, codes: &codes };
    let bytes = arena::write_block(yard.disk, &new)?;
    let block = Block::open(yard.disk, number, yard.store_id, yard.access)?;
    Ok(Some((block, bytes)))
}
