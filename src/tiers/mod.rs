//! Floor 4, tiers: every copy an entry can be answered from, behind one reading face.
//!
//! A [`View`] is the whole store at one LSN: the records of the log that are not archived yet
//! (`active`, and `frozen` while a checkpoint is on its way), the archive ([`cold::Cold`]), faster
//! copies of archived entries ([`levels::Levels`]), and the definitions. It is immutable; the writer
//! publishes the next one by one atomic swap. A reader takes the current view and keeps it for the
//! length of its call, so it sees every write up to its LSN wholly and none after, and waits for
//! nobody.
//!
//! The hottest copy answers: `active` before `frozen` before the archive.

use std::sync::Arc;

use imbl::OrdMap;
use serde_json::Value;

use crate::io::File;
use crate::words::error::Result;
use crate::words::id::{CollectionId, EntryId, KeyPath, Lsn, Timestamp};
use crate::words::record::{CollectionDef, Op};
use crate::words::tier::Tier;

pub mod assemble;
pub mod cache;
pub mod caches;
pub mod cold;
pub mod grouper;
pub mod hot;
pub mod levels;

pub mod mover;
pub mod packer;
pub mod pieces;
pub mod places;
pub mod probe;
pub mod wanted;

pub use cache::GroupKey;
use cold::{Cold, ColdRow};
use hot::{Hot, MemTable, Slot};
use levels::Levels;

/// The store at one LSN.
#[derive(Clone, Debug)]
pub struct View {
    /// LSN of the newest operation it contains.
    pub lsn: Lsn,
    /// Records since the last freeze.
    pub active: MemTable,
    /// Records a checkpoint is archiving.
    pub frozen: Option<Arc<MemTable>>,
    /// The archive as of the last checkpoint.
    pub cold: Arc<Cold>,
    /// Faster copies of what is archived.
    pub levels: Arc<Levels>,
    /// Definitions by number; dropped collections are absent.
    pub collections: OrdMap<CollectionId, Arc<CollectionDef>>,
    /// Numbers by name.
    pub names: OrdMap<Arc<str>, CollectionId>,
    /// Settings by name.
    pub settings: OrdMap<Arc<str>, Value>,
    /// Last request number per client.
    pub requests: OrdMap<u64, u64>,
    /// The id the next new entry takes.
    pub next_id: EntryId,
    /// The number the next new collection takes.
    pub next_collection: CollectionId,
    /// Shared by the views of one stretch of time: its count says how many of them are still read.
    pub alive: Arc<()>,
}

/// The hottest copy of an entry.
#[derive(Clone, Debug)]
pub enum Copy {
    /// In RAM.
    Hot(Hot),
    /// In the archive.
    Cold(ColdRow),
}

impl Copy {
    /// The entry's identity.
    pub fn id(&self) -> EntryId {
        match self {
            Copy::Hot(hot) => hot.record.id,
            Copy::Cold(cold) => cold.row.id,
        }
    }

    /// The collection it is of; `None` when its segment does not say, which no whole one does.
    pub fn collection(&self) -> Option<CollectionId> {
        match self {
            Copy::Hot(hot) => Some(hot.record.collection),
            Copy::Cold(cold) => {
                let groups = &cold.segment.segment.footer().groups;
                groups.get(usize::from(cold.place.group)).map(|group| group.collection)
            }
        }
    }

    /// Whether its time has passed. Exactly at its time an entry is hidden.
    pub fn expired(&self, now: Timestamp) -> bool {
        let expires = match self {
            Copy::Hot(hot) => hot.record.expires,
            Copy::Cold(cold) => cold.row.expires,
        };
        expires.is_some_and(|expires| expires <= now)
    }
}

impl View {
    /// About what collections, settings and remembered requests take: their maps are small, and
    /// counted by their number.
    pub fn ledger_bytes(&self) -> u64 {
        let (collections, settings) = (self.collections.len(), self.settings.len());
        (collections * 512 + settings * 256 + self.requests.len() * 64) as u64
    }

    /// Applies one operation. Commit and replay both go through here, so a replayed store cannot
    /// differ from the one that crashed. `log` is the file that holds a payload above 64 KiB.
    pub fn apply(&mut self, op: Op, log: Option<Arc<dyn File>>) {
        self.lsn = op.lsn();
        match &op {
            Op::Put(record) => {
                self.next_id = self.next_id.max(EntryId(record.id.0.saturating_add(1)));
            }
            Op::Delete(_) => {}
            other => self.apply_ledger(other),
        }
        self.active.apply(op, log);
    }

    /// Applies a definition, setting or request number to the resident maps only.
    pub fn apply_ledger(&mut self, op: &Op) {
        match op {
            Op::Define(def) => {
                let next = CollectionId(def.id.0.saturating_add(1));
                self.next_collection = self.next_collection.max(next);
                self.names.insert(Arc::clone(&def.name), def.id);
                self.collections.insert(def.id, Arc::new(def.clone()));
            }
            Op::DropCollection { collection, .. } => {
                if let Some(def) = self.collections.remove(collection) {
                    self.names.remove(&def.name);
                }
            }
            Op::Setting { name, value, .. } => {
                // The text was JSON when it was written and a CRC has vouched for it since.
                match serde_json::from_str::<Value>(value) {
                    Ok(Value::Null) | Err(_) => self.settings.remove(name),
                    Ok(value) => self.settings.insert(Arc::clone(name), value),
                };
            }
            Op::Request { client, sequence, .. } => {
                self.requests.insert(*client, *sequence);
            }
            Op::Put(_) | Op::Delete(_) => {}
        }
    }

    fn tables(&self) -> impl Iterator<Item = &MemTable> {
        std::iter::once(&self.active).chain(self.frozen.as_deref())
    }

    /// What the tables in RAM know about an id, newest first.
    pub fn slot(&self, id: EntryId) -> Option<&Slot> {
        self.tables().find_map(|table| table.slot(id))
    }

    /// Whether a row of the archive is superseded by something newer in RAM.
    pub fn shadows(&self, id: EntryId) -> bool {
        self.slot(id).is_some()
    }

    /// The id of a path.
    pub fn find(&self, path: &KeyPath) -> Result<Option<EntryId>> {
        for table in self.tables() {
            if let Some(known) = table.find(path) {
                return Ok(known);
            }
        }
        self.cold.find(path)
    }

    /// The hottest copy of an entry.
    pub fn copy(&self, id: EntryId) -> Result<Option<Copy>> {
        match self.slot(id) {
            Some(Slot::Live(hot)) => Ok(Some(Copy::Hot(hot.clone()))),
            Some(Slot::Dead(_)) => Ok(None),
            None => self.archived(id),
        }
    }

    /// The hottest copy of an entry that is in the archive.
    fn archived(&self, id: EntryId) -> Result<Option<Copy>> {
        let Some((located, _)) = self.cold.locate(id)? else { return Ok(None) };
        match self.levels.resident(id, located.version) {
            Some(hot) => Ok(Some(Copy::Hot(hot.clone()))),
            None => Ok(self.cold.row(id)?.map(Copy::Cold)),
        }
    }

    /// The level of a copy: the hottest one that holds its entry, or is meant to.
    pub fn tier(&self, collection: CollectionId, copy: &Copy) -> Tier {
        match copy {
            Copy::Hot(_) => Tier::Hot,
            Copy::Cold(cold) => self.levels.tier(collection, cold.row.id, cold.row.version),
        }
    }

    /// The hottest copy of what stands under a path.
    pub fn get(&self, path: &KeyPath) -> Result<Option<Copy>> {
        match self.find(path)? {
            Some(id) => self.copy(id),
            None => Ok(None),
        }
    }

    /// The live records in RAM of a collection, newest version of each, in order of id.
    pub fn hot(&self, collection: CollectionId) -> impl Iterator<Item = &Hot> {
        let active = self.active.slots().map(|(_, slot)| slot);
        let frozen = self
            .frozen
            .as_deref()
            .into_iter()
            .flat_map(|table| table.slots())
            .filter(|(id, _)| self.active.slot(**id).is_none())
            .map(|(_, slot)| slot);
        active.chain(frozen).filter_map(move |slot| match slot {
            Slot::Live(hot) if hot.record.collection == collection => Some(hot),
            _ => None,
        })
    }

    /// Live entries of a collection, expired ones included until they are vacuumed.
    pub fn entries(&self, collection: CollectionId) -> Result<u64> {
        let mut entries = self.cold.live_rows(collection);
        let frozen = self.frozen.as_deref().into_iter().flat_map(|table| table.slots());
        let frozen = frozen.filter(|(id, _)| self.active.slot(**id).is_none());
        for (id, slot) in self.active.slots().chain(frozen) {
            let (mine, live) = match slot {
                Slot::Live(hot) => (hot.record.collection == collection, true),
                Slot::Dead(tombstone) => (tombstone.collection == collection, false),
            };
            if !mine {
                continue;
            }
            let archived = self.cold.locate(*id)?.is_some();
            match (live, archived) {
                (true, false) => entries += 1,
                (false, true) => entries = entries.saturating_sub(1),
                _ => {}
            }
        }
        Ok(entries)
    }

    /// Bytes of the records in RAM.
    pub fn hot_bytes(&self) -> u64 {
        self.tables().map(MemTable::bytes).sum()
    }
}
