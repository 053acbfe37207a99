//! Levels 0 and 1 of what is archived: exact copies in RAM, and codes in the mapped arena.
//!
//! The archive holds every entry whole; what stands here is faster and may be lost at any time.
//! Level 0 is a persistent map from id to record, so that a view and its successor share it. Level
//! 1 is a list of sealed blocks, each sorted by id. Nothing else says where an entry's code is: a
//! copy counts when its version is the one the archive has, so a copy that is stale, or whose
//! block was lost, is simply not found, and the archive answers.
//!
//! `hot` is intent: the ids that belong in Level 0, whether or not they are back in RAM since the
//! store was opened.
//!
//! Never: decides what moves, reads the archive, removes a file.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use imbl::OrdMap;
use roaring::RoaringTreemap;

use crate::organs::arena::Block;
use crate::organs::arena::cells::Cells;
use crate::tiers::hot::{Hot, MemTable, Slot, bytes_of};
use crate::words::id::{CollectionId, EntryId, Lsn, Timestamp};
use crate::words::limits;
use crate::words::record::{Payload, Record};
use crate::words::safeguard::Safeguard;
use crate::words::tier::Tier;

/// A sealed block and the ids it spans.
#[derive(Debug)]
pub struct WarmBlock {
    /// The file.
    pub block: Block,
    first: EntryId,
    last: EntryId,
}

impl WarmBlock {
    /// Takes a block up; `None` when it holds no row or is not sorted by id.
    pub fn new(block: Block) -> Option<WarmBlock> {
        let ids = || (0..block.rows()).filter_map(|at| Some(block.id_version(at)?.0));
        let (first, last) = (ids().next()?, ids().last()?);
        ids().is_sorted_by(|a, b| a < b).then_some(WarmBlock { block, first, last })
    }

    /// The row of an id, and its version.
    pub fn find(&self, id: EntryId) -> Option<(usize, Lsn)> {
        if !(self.first..=self.last).contains(&id) {
            return None;
        }
        let (mut low, mut high) = (0, self.block.rows());
        while low < high {
            let middle = low.midpoint(high);
            let (found, version) = self.block.id_version(middle)?;
            match found.cmp(&id) {
                std::cmp::Ordering::Equal => return Some((middle, version)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

/// A code in the arena.
#[derive(Clone, Copy, Debug)]
pub struct Code<'a> {
    /// Where.
    pub block: &'a WarmBlock,
    /// Its row there.
    pub row: usize,
}

/// The faster copies of archived entries.
#[derive(Clone, Debug, Default)]
pub struct Levels {
    resident: OrdMap<EntryId, Hot>,
    resident_bytes: u64,
    /// Ids that belong in Level 0.
    pub hot: Arc<RoaringTreemap>,
    /// The arena's blocks by number.
    pub blocks: BTreeMap<u64, Arc<WarmBlock>>,
    /// Sketches grouped into cells, by collection.
    pub cells: BTreeMap<CollectionId, Arc<Cells>>,
    /// Ids that searches leave out, by the literal policy only.
    hidden: Option<Arc<RoaringTreemap>>,
}

/// Whether a record with this payload may stay in RAM. A large one is inline for as long as its write
/// is under way.
fn may_be_resident(payload: &Payload) -> bool {
    matches!(payload, Payload::Inline(_)) && payload.len() <= limits::PAYLOAD_RESIDENT_BYTES_MAX
}

impl Levels {
    /// The exact copy of an entry, if it is in RAM in this version.
    pub fn resident(&self, id: EntryId, version: Lsn) -> Option<&Hot> {
        self.resident.get(&id).filter(|hot| hot.record.version == version)
    }

    /// The exact copy of an entry whose archived row is of one of these versions. No other one can be
    /// there: whatever archives a version takes the copy along, or lets it go.
    pub fn resident_of(&self, id: EntryId, versions: &RangeInclusive<Lsn>) -> Option<&Hot> {
        self.resident.get(&id).filter(|hot| versions.contains(&hot.record.version))
    }

    /// All exact copies, in order of id.
    pub fn residents(&self) -> impl Iterator<Item = &Hot> {
        self.resident.values()
    }

    /// How many there are.
    pub fn resident_len(&self) -> usize {
        self.resident.len()
    }

    /// Keeps an exact copy. A payload above 64 KiB keeps the whole entry out: it may not stay in
    /// RAM, and its place in the log or the archive is not for ever.
    pub fn keep(&mut self, record: &Arc<Record>) {
        if !may_be_resident(&record.payload) {
            return;
        }
        let hot = Hot { record: Arc::clone(record), log: None };
        self.resident_bytes += bytes_of(record);
        if let Some(old) = self.resident.insert(record.id, hot) {
            self.resident_bytes = self.resident_bytes.saturating_sub(bytes_of(&old.record));
        }
    }

    /// Takes over what a checkpoint has archived: records that were in RAM stay there, and belong
    /// to Level 0 until a pass says otherwise; what was removed goes.
    pub fn take_over(&mut self, table: Option<&MemTable>) {
        let hot = Arc::make_mut(&mut self.hot);
        let mut kept = Vec::new();
        for (id, slot) in table.into_iter().flat_map(MemTable::slots) {
            match slot {
                Slot::Live(live) if may_be_resident(&live.record.payload) => {
                    hot.insert(id.0);
                    kept.push(Arc::clone(&live.record));
                }
                _ => {
                    hot.remove(id.0);
                    if let Some(old) = self.resident.remove(id) {
                        self.resident_bytes =
                            self.resident_bytes.saturating_sub(bytes_of(&old.record));
                    }
                }
            }
        }
        kept.iter().for_each(|record| self.keep(record));
    }

    /// Lets the exact copies of collections that were dropped go.
    pub fn retain(&mut self, lives: impl Fn(CollectionId) -> bool) {
        let dropped: Vec<EntryId> = self
            .residents()
            .filter(|hot| !lives(hot.record.collection))
            .map(|hot| hot.record.id)
            .collect();
        self.cells.retain(|collection, _| lives(*collection));
        for id in dropped {
            self.let_go(id);
            Arc::make_mut(&mut self.hot).remove(id.0);
        }
    }

    /// Lets the exact copies of entries go whose time has passed: no survey sees them any more, and
    /// the archive keeps them until they are vacuumed.
    pub fn let_go_of_expired(&mut self, now: Timestamp) {
        let expired = |hot: &&Hot| hot.record.expires.is_some_and(|expires| expires <= now);
        let expired: Vec<EntryId> = self.residents().filter(expired).map(|h| h.record.id).collect();
        for id in expired {
            self.let_go(id);
            Arc::make_mut(&mut self.hot).remove(id.0);
        }
    }

    /// Lets an exact copy go.
    pub fn let_go(&mut self, id: EntryId) {
        if let Some(old) = self.resident.remove(&id) {
            self.resident_bytes = self.resident_bytes.saturating_sub(bytes_of(&old.record));
        }
    }

    /// The code of an entry in this version; of two, the one in the newer block.
    pub fn code(&self, collection: CollectionId, id: EntryId, version: Lsn) -> Option<Code<'_>> {
        self.blocks.values().rev().find_map(|block| {
            if block.block.collection() != collection {
                return None;
            }
            let (row, found) = block.find(id)?;
            (!Safeguard::ArenaVersion.finds(found != version)).then_some(Code { block, row })
        })
    }

    /// The hottest level that holds an archived entry, or is meant to.
    pub fn tier(&self, collection: CollectionId, id: EntryId, version: Lsn) -> Tier {
        if self.resident(id, version).is_some() || self.hot.contains(id.0) {
            Tier::Hot
        } else if self.code(collection, id, version).is_some() {
            Tier::Warm
        } else {
            Tier::Cold
        }
    }

    /// Hides these from searches; nothing when the policy hides nothing.
    pub fn hide(&mut self, hidden: Option<RoaringTreemap>) {
        self.hidden = hidden.map(Arc::new);
    }

    /// Whether searches leave anything out.
    pub fn hides_any(&self) -> bool {
        self.hidden.is_some()
    }

    /// Whether searches leave an entry out.
    pub fn hides(&self, id: EntryId) -> bool {
        self.hidden.as_ref().is_some_and(|hidden| hidden.contains(id.0))
    }

    /// Bytes of the exact copies.
    pub fn hot_bytes(&self) -> u64 {
        self.resident_bytes
    }

    /// Bytes of the blocks, each whole: rows nobody needs leave RAM only with their block.
    pub fn warm_bytes(&self) -> u64 {
        self.blocks.values().map(|block| block.block.bytes()).sum()
    }

    /// Bytes of both, of the set of hot ids, and of what says where cells have their rows.
    pub fn bytes(&self) -> u64 {
        let cells: u64 = self.cells.values().map(|cells| cells.resident_bytes()).sum();
        self.hot_bytes() + self.warm_bytes() + self.hot.serialized_size() as u64 + cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::codec::block::BlockHeader;
    use crate::bytes::codec::codes;
    use crate::io::{Disk, MemoryDisk};
    use crate::organs::arena::{self, NewBlock};
    use crate::pure::quant::encode;
    use crate::words::options::ArenaAccess;

    #[test]
    fn a_code_counts_in_its_own_version_alone() {
        let disk = MemoryDisk::new();
        disk.create_dir(arena::FOLDER).unwrap();
        let (store_id, collection) = ([3; 16], CollectionId(1));
        let layout = codes::layout(4).unwrap();
        let mut row = vec![0; layout.row_bytes()];
        encode(layout, &[1.0, -2.0, 3.0, 0.5], &mut row);
        let header = BlockHeader {
            store_id,
            number: 1,
            collection,
            dim: 4,
            group: layout.group() as u32,
            bits: 8,
            rows: 1,
            row_bytes: layout.row_bytes() as u32,
        };
        let rows = [(EntryId(7), Lsn(5))];
        arena::write_block(&disk, &NewBlock { header, rows: &rows, codes: &row }).unwrap();
        let block = Block::open(&disk, 1, store_id, ArenaAccess::Read).unwrap();
        let mut levels = Levels::default();
        levels.blocks.insert(1, Arc::new(WarmBlock::new(block).unwrap()));
        assert!(levels.code(collection, EntryId(7), Lsn(5)).is_some());
        assert!(levels.code(collection, EntryId(7), Lsn(6)).is_none(), "it was written again");
        assert!(levels.code(collection, EntryId(8), Lsn(5)).is_none());
        assert_eq!(levels.tier(collection, EntryId(7), Lsn(6)), Tier::Cold);
    }
}
