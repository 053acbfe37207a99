//! Keys of entries: two tables that are answered as one.
//!
//! Keys come in no order, so those of one checkpoint touch nearly every page of a large table, and each of
//! these is written anew: 3.4 bytes of index for each byte put, at a million entries
//! (docs/decisions/0019-recent-keys.md). So:
//! 1. a key that is new goes into `recent`, which is small and is written anew instead;
//! 2. each commit that brought new keys adds what of `recent` it wrote to a count. When that reaches the rows of
//!    `keys`, moving all to there costs no more ([`Moves`]). With c keys a commit that is at some `sqrt(2 c n)` of n
//!    keys, and each key costs `sqrt(2 n / c)` rows instead of a page full of them;
//! 3. they are moved by that commit, before it writes them; where all at once do not fit into what redb's cache holds
//!    back until a commit, a stretch at a time with commits of their own, later
//!    ([`Catalog::settle_some`](super::Catalog::settle_some));
//! 4. a key that `keys` has is changed and removed there. So no key stands in both.
//!
//! New keys go into `keys` at once while `recent` is full, and where the cache is so small, or `keys` so large, that
//! what fills the one comes to fewer than two rows for each page of the other.
//!
//! Never: commits, or moves a key that stands in both tables.

use std::collections::BTreeMap;
use std::fmt;
use std::iter::Peekable;

use redb::{ReadableTable, ReadableTableMetadata, Table as OpenTable};

use super::backend::{Health, PAGE_BYTES};
use super::snapshot::Rows;
use super::tables::{NUMBER_BYTES, Table, open_number, seal_number};
use super::{FILE, redb_error};
use crate::words::error::{Error, Result};
use crate::words::id::{EntryId, KeyPath};

/// Rows moved at once, at least.
const ROWS_MIN: u64 = 64;

/// Bytes that a row takes in a page, about: with what the page says of it, and a third for what is free in pages that
/// rows come into at random.
pub(super) fn row_bytes(row: &[u8]) -> u64 {
    (row.len() + NUMBER_BYTES + 8) as u64 * 4 / 3
}

/// When rows are moved, and how many at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moves {
    /// Rows of `recent` and of `keys`.
    pub counts: [u64; 2],
    /// Rows of `recent` that were written since it last was empty.
    pub written: u64,
    /// Bytes of the rows of `recent`.
    pub recent_bytes: u64,
    /// Bytes of pages that one commit can hold back until its end.
    pub bytes_max: u64,
}

impl Moves {
    /// Whether new keys are to gather in `recent`: whether it has room, and as many as have come to two for each page
    /// of `keys`, so that moving them writes less than they would there.
    pub fn gathers(&self, row_bytes: u64) -> bool {
        let pages = self.counts[1].saturating_mul(row_bytes) / PAGE_BYTES as u64;
        let has_room = self.recent_bytes <= self.bytes_max;
        has_room && self.bytes_max / row_bytes.max(1) >= pages.saturating_mul(2)
    }

    /// How many rows of `recent` are to be moved at once, if they are: a stretch of it is as large a part of `keys`, as
    /// keys come from all over, and one half of the room is for the pages that it leaves.
    pub fn rows_at_once(&self) -> Option<u64> {
        let [recent, keys] = self.counts;
        let is_full = self.recent_bytes > self.bytes_max;
        if recent == 0 || !(is_full || self.written >= keys) {
            return None;
        }
        let row_bytes = (self.recent_bytes / recent).max(1);
        let rows = (self.bytes_max / 2 / row_bytes).saturating_mul(recent) / keys.max(recent);
        Some(rows.max(ROWS_MIN))
    }
}

/// What a put of keys came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Put {
    /// Rows that `recent` has more, and their bytes.
    pub rows: u64,
    pub bytes: u64,
}

/// A table of keys that is open for writing.
pub(super) type Open<'t> = OpenTable<'t, &'static [u8], [u8; NUMBER_BYTES]>;
/// The rows of one table of keys.
pub(super) type Part = Rows<&'static [u8], [u8; NUMBER_BYTES], (KeyPath, EntryId)>;

/// Both tables of a change.
pub(super) struct KeyTables<'t> {
    pub keys: Open<'t>,
    pub recent: Open<'t>,
    pub health: &'t Health,
}

impl<'t> KeyTables<'t> {
    fn fail(&self, error: redb::StorageError) -> Error {
        redb_error(self.health, error)
    }

    /// One after the other.
    pub fn both(&mut self) -> [(Table, &mut Open<'t>); 2] {
        [(Table::Recent, &mut self.recent), (Table::Keys, &mut self.keys)]
    }

    /// The id that a key names, and the table that says so.
    pub fn find(&self, row: &[u8]) -> Result<Option<(EntryId, Table)>> {
        for table in [Table::Recent, Table::Keys] {
            if let Some(id) = self.get(table, row)? {
                return Ok(Some((id, table)));
            }
        }
        Ok(None)
    }

    fn get(&self, table: Table, row: &[u8]) -> Result<Option<EntryId>> {
        let open = if table == Table::Recent { &self.recent } else { &self.keys };
        let found = open.get(row).map_err(|e| self.fail(e))?;
        let id = found.map(|value| open_number(table, row, &value.value())).transpose()?;
        Ok(id.map(EntryId))
    }

    /// Lets keys name ids; new ones come into `recent` if they are to gather there.
    ///
    /// All are looked up before one is written: for each page that redb has to read when its cache is full, it writes
    /// one out, to which the next row may have to be added.
    pub fn put(&mut self, rows: &BTreeMap<Vec<u8>, EntryId>, gathers: bool) -> Result<Put> {
        let mut changed: Vec<(Table, &[u8], EntryId)> = Vec::with_capacity(rows.len());
        let mut rest = Vec::with_capacity(rows.len());
        for (row, id) in rows {
            match self.get(Table::Keys, row)? {
                Some(named) if named == *id => {}
                Some(_) => changed.push((Table::Keys, row, *id)),
                None => rest.push((row, *id)),
            }
        }
        // Last what most will go to.
        let mut put = Put::default();
        for (row, id) in rest {
            match self.get(Table::Recent, row)? {
                Some(named) if named == id => {}
                Some(_) => changed.push((Table::Recent, row, id)),
                None if gathers => {
                    put.rows += 1;
                    put.bytes += row_bytes(row);
                    changed.push((Table::Recent, row, id));
                }
                None => changed.push((Table::Keys, row, id)),
            }
        }
        for (table, row, id) in changed {
            self.insert(table, row, id)?;
        }
        Ok(put)
    }

    fn insert(&mut self, table: Table, row: &[u8], id: EntryId) -> Result<()> {
        let value = seal_number(table, row, id.0);
        let open = if table == Table::Recent { &mut self.recent } else { &mut self.keys };
        let inserted = open.insert(row, value).map(drop);
        inserted.map_err(|e| redb_error(self.health, e))
    }

    /// Removes a key if it names this id; false when it does not.
    pub fn remove(&mut self, row: &[u8], id: EntryId) -> Result<bool> {
        let Some((_, table)) = self.find(row)?.filter(|(named, _)| *named == id) else {
            return Ok(false);
        };
        let open = if table == Table::Recent { &mut self.recent } else { &mut self.keys };
        let removed = open.remove(row).map(|removed| removed.is_some());
        removed.map_err(|e| redb_error(self.health, e))
    }

    /// Rows of `recent` and of `keys`.
    pub fn counts(&self) -> Result<[u64; 2]> {
        let (recent, keys) = (self.recent.len(), self.keys.len());
        Ok([recent.map_err(|e| self.fail(e))?, keys.map_err(|e| self.fail(e))?])
    }

    /// Moves the first so many rows of `recent` to `keys`. Answers how many are left. As in `put`, what will be
    /// written to is read before.
    pub fn move_some(&mut self, rows: u64) -> Result<u64> {
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        for row in self.recent.iter().map_err(|e| self.fail(e))?.take(rows) {
            let (row, _) = row.map_err(|e| self.fail(e))?;
            if self.keys.get(row.value()).map_err(|e| self.fail(e))?.is_some() {
                return Err(in_both(row.value().escape_ascii()));
            }
        }
        let mut last = None;
        for row in self.recent.iter().map_err(|e| redb_error(self.health, e))?.take(rows) {
            let (row, value) = row.map_err(|e| redb_error(self.health, e))?;
            let id = open_number(Table::Recent, row.value(), &value.value())?;
            let value = seal_number(Table::Keys, row.value(), id);
            let inserted = self.keys.insert(row.value(), value).map(drop);
            inserted.map_err(|e| redb_error(self.health, e))?;
            last = Some(row.value().to_vec());
        }
        if let Some(last) = last {
            let moved = self.recent.retain_in::<&[u8], _>(..=last.as_slice(), |_, _| false);
            moved.map_err(|e| redb_error(self.health, e))?;
        }
        Ok(self.counts()?[0])
    }
}

fn in_both(key: impl fmt::Display) -> Error {
    Error::corrupt(format!("{FILE}: key {key} stands in two tables"))
}

/// Keys with their ids, of both tables in one order. Ends after its first error.
pub struct Keys {
    parts: [Peekable<Part>; 2],
    reverse: bool,
    has_failed: bool,
}

impl Keys {
    /// The rows of both, which come in this order.
    pub(super) fn new(parts: [Part; 2], reverse: bool) -> Keys {
        Keys { parts: parts.map(Iterator::peekable), reverse, has_failed: false }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Iterator for Keys {
    type Item = Result<(KeyPath, EntryId)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let [one, other] = &mut self.parts;
        let item = match (one.peek(), other.peek()) {
            (None, _) => other.next(),
            (Some(Ok(a)), Some(Ok(b))) => match a.0.cmp(&b.0) {
                std::cmp::Ordering::Equal => Some(Err(in_both(&a.0.key))),
                order if order.is_lt() != self.reverse => one.next(),
                _ => other.next(),
            },
            (Some(Ok(_)), Some(Err(_))) => other.next(),
            _ => one.next(),
        };
        self.has_failed = matches!(item, Some(Err(_)));
        item
    }
}

#[cfg(test)]
mod tests;
