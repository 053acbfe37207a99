//! One change of the index: everything in it becomes visible and durable together, or not at all.
//!
//! An update sees its own rows. Its commit writes the pages, syncs, names the new root, syncs
//! again; only then does it return. A failed commit leaves the last one in place; the catalog has
//! to be opened again afterwards (`Catalog::failure` says why).
//!
//! Never: commits without syncs, or half.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redb::{
    Durability, Key as RowKey, ReadableTable, Table as OpenTable, TableDefinition, Value,
    WriteTransaction,
};

use crate::organs::catalog::backend::{Health, PAGE_BYTES};
use crate::organs::catalog::keys::{self, KeyTables, Moves, Put};
use crate::organs::catalog::tables::{
    self, KeyRange, Located, NUMBER_BYTES, Table, key_row, open_bytes, open_located, open_number,
    seal_bytes, seal_located, seal_number,
};
use crate::organs::catalog::{Guarded, guard, is_damage, redb_error};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::{CollectionId, EntryId, Namespace};

/// Meta row with how many rows of `recent` were written since it last was empty.
pub(super) const RECENT_WRITTEN: &str = "recent_written";
/// Meta row with the bytes of the rows of `recent`, about.
pub(super) const RECENT_BYTES: &str = "recent_bytes";

/// See the file's story. Dropping it without `commit` changes nothing.
pub struct Update {
    transaction: Guarded<WriteTransaction>,
    health: Arc<Health>,
    /// Keys that came into `recent`.
    put: Cell<Put>,
    /// Bytes of pages that are held back until the commit.
    bytes_max: u64,
}

/// A live entry for [`Update::put_entries`]; its collection stands in `located`.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    /// Its namespace.
    pub namespace: &'a Namespace,
    /// Its key.
    pub key: &'a [u8],
    /// Its identity.
    pub id: EntryId,
    /// Where it is.
    pub located: Located,
}

impl fmt::Debug for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Update")
    }
}

impl Update {
    /// Sets how it will be committed. Runs inside [`guard`] by its caller.
    pub(super) fn new(
        mut transaction: WriteTransaction,
        health: Arc<Health>,
        bytes_max: u64,
    ) -> Result<Update> {
        let set = transaction.set_durability(Durability::Immediate);
        set.map_err(|e| Error::internal(format!("index.redb: {e}")))?;
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        let transaction = Guarded::new(transaction);
        Ok(Update { transaction, health, put: Cell::default(), bytes_max })
    }

    /// Opens a table of this transaction and runs `call` on it.
    fn with<K: RowKey + 'static, V: Value + 'static, T>(
        &self,
        table: TableDefinition<'static, K, V>,
        call: impl FnOnce(OpenTable<'_, K, V>) -> Result<T, Error>,
    ) -> Result<T> {
        self.noted(guard(|| {
            let opened = self.transaction.get()?.open_table(table);
            call(opened.map_err(|e| redb_error(&self.health, e))?)
        }))
    }

    /// Opens both tables of keys and runs `call` on them.
    fn with_keys<T>(&self, call: impl FnOnce(KeyTables<'_>) -> Result<T>) -> Result<T> {
        self.noted(guard(|| {
            let transaction = self.transaction.get()?;
            let open = |table| transaction.open_table(table);
            let keys = open(tables::KEYS).map_err(|e| redb_error(&self.health, e))?;
            let recent = open(tables::RECENT).map_err(|e| redb_error(&self.health, e))?;
            call(KeyTables { keys, recent, health: &self.health })
        }))
    }

    /// Lets keys name ids: rows of a table of keys.
    fn name(&self, rows: &BTreeMap<Vec<u8>, EntryId>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let bytes = rows.keys().map(|row| keys::row_bytes(row)).sum::<u64>();
        let gathers = self.moves()?.gathers(bytes / rows.len() as u64);
        let put = self.with_keys(|mut tables| tables.put(rows, gathers))?;
        let known = self.put.get();
        self.put.set(Put { rows: known.rows + put.rows, bytes: known.bytes + put.bytes });
        Ok(())
    }

    fn moves(&self) -> Result<Moves> {
        Ok(Moves {
            counts: self.with_keys(|tables| tables.counts())?,
            written: self.get_meta(RECENT_WRITTEN)?.unwrap_or(0),
            recent_bytes: self.get_meta(RECENT_BYTES)?.unwrap_or(0),
            bytes_max: self.bytes_max,
        })
    }

    /// Counts what new keys cost, and moves those that came lately if it pays and this commit can: see `keys`.
    fn count_recent(&self) -> Result<()> {
        let Put { rows, bytes } = self.put.get();
        if rows == 0 {
            return Ok(());
        }
        let mut moves = self.moves()?;
        let [recent, _] = moves.counts;
        // At most a page for each row.
        let row_bytes = (bytes / rows).max(1);
        let page_rows = (PAGE_BYTES as u64).div_ceil(row_bytes);
        let written = rows.saturating_mul(page_rows).min(recent);
        moves.written = moves.written.saturating_add(written);
        moves.recent_bytes = moves.recent_bytes.saturating_add(bytes);
        self.put_meta(RECENT_WRITTEN, moves.written)?;
        self.put_meta(RECENT_BYTES, moves.recent_bytes)?;
        match moves.rows_at_once() {
            Some(rows) if rows >= recent => self.move_recent(rows).map(drop),
            _ => Ok(()),
        }
    }

    /// Moves the first so many of the keys that came lately to where they stay. Answers how many are left.
    pub(super) fn move_recent(&self, rows: u64) -> Result<u64> {
        let moves = self.moves()?;
        let left = self.with_keys(|mut tables| tables.move_some(rows))?;
        let bytes = moves.recent_bytes / moves.counts[0].max(1) * left;
        self.put_meta(RECENT_BYTES, bytes)?;
        // While any are left it stays due, as it began.
        let [_, keys] = self.with_keys(|tables| tables.counts())?;
        self.put_meta(RECENT_WRITTEN, if left == 0 { 0 } else { moves.written.max(keys) })?;
        Ok(left)
    }

    /// Notes damage that redb knows nothing of, as of a value that is another row's. Without that the index would not
    /// be made anew, and who changes it would fail again and again.
    fn noted<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && error.kind() == ErrorKind::Corrupt
        {
            let mut failure = self.health.failure.lock();
            let note = || (std::io::ErrorKind::InvalidData, error.to_string());
            let (kind, _) = failure.get_or_insert_with(note);
            // After a call that failed redb may say anything.
            self.health.is_rotten.fetch_or(is_damage(*kind), Ordering::AcqRel);
            self.health.is_broken.store(true, Ordering::Release);
        }
        result
    }

    fn fail(&self, error: redb::StorageError) -> Error {
        redb_error(&self.health, error)
    }

    /// Makes every table, so that a snapshot finds them all.
    pub(super) fn create_tables(&self) -> Result<()> {
        self.with(tables::KEYS, |_| Ok(()))?;
        self.with(tables::RECENT, |_| Ok(()))?;
        self.with(tables::IDS, |_| Ok(()))?;
        self.with(tables::SEGMENTS, |_| Ok(()))?;
        self.with(tables::COLLECTIONS, |_| Ok(()))?;
        self.with(tables::SETTINGS, |_| Ok(()))?;
        self.with(tables::REQUESTS, |_| Ok(()))?;
        self.with(tables::EXPIRING, |_| Ok(()))?;
        self.with(tables::META, |_| Ok(()))
    }

    fn put_number(
        &self,
        table: TableDefinition<'static, u64, [u8; NUMBER_BYTES]>,
        name: Table,
        key: u64,
        number: u64,
    ) -> Result<()> {
        let value = seal_number(name, &key.to_le_bytes(), number);
        self.with(table, |mut t| t.insert(key, value).map(drop).map_err(|e| self.fail(e)))
    }

    fn remove<K: RowKey + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
        key: K::SelfType<'_>,
    ) -> Result<bool> {
        self.with(table, |mut t| {
            let removed = t.remove(key).map_err(|e| self.fail(e))?;
            Ok(removed.is_some())
        })
    }

    /// Lets keys of a collection name ids, whatever they named before. Of two that are the same the later one counts.
    pub fn put_keys<'k>(
        &self,
        collection: CollectionId,
        keys: impl IntoIterator<Item = (&'k Namespace, &'k [u8], EntryId)>,
    ) -> Result<()> {
        let row = |(namespace, key, id): (&Namespace, &[u8], EntryId)| {
            (key_row(collection, namespace.as_str(), key), id)
        };
        self.name(&keys.into_iter().map(row).collect())
    }

    /// Lets a key name this id, whatever it named before.
    #[cfg(test)]
    pub fn put_key(
        &self,
        collection: CollectionId,
        namespace: &Namespace,
        key: &[u8],
        id: EntryId,
    ) -> Result<()> {
        self.put_keys(collection, [(namespace, key, id)])
    }

    /// Removes a key, but only if it still names this id; false when it does not.
    pub fn del_key(
        &self,
        collection: CollectionId,
        namespace: &Namespace,
        key: &[u8],
        id: EntryId,
    ) -> Result<bool> {
        let row = key_row(collection, namespace.as_str(), key);
        self.with_keys(|mut tables| tables.remove(&row, id))
    }

    /// Removes every key of a collection and tells the ids they named; how many there were.
    pub fn drop_keys(
        &self,
        collection: CollectionId,
        told: &mut dyn FnMut(EntryId),
    ) -> Result<u64> {
        let Some((low, high)) = KeyRange::all().rows(collection) else { return Ok(0) };
        let bounds = (low.as_ref().map(Vec::as_slice), high.as_ref().map(Vec::as_slice));
        self.with_keys(|mut tables| {
            let mut count = 0;
            for (table, open) in tables.both() {
                for row in open.range::<&[u8]>(bounds).map_err(|e| self.fail(e))? {
                    let (row, value) = row.map_err(|e| self.fail(e))?;
                    told(EntryId(open_number(table, row.value(), &value.value())?));
                    count += 1;
                }
                open.retain_in::<&[u8], _>(bounds, |_, _| false).map_err(|e| self.fail(e))?;
            }
            Ok(count)
        })
    }

    /// The id that a key names.
    #[cfg(test)]
    pub fn get_key(
        &self,
        collection: CollectionId,
        namespace: &Namespace,
        key: &[u8],
    ) -> Result<Option<EntryId>> {
        let row = key_row(collection, namespace.as_str(), key);
        self.with_keys(|tables| Ok(tables.find(&row)?.map(|(id, _)| id)))
    }

    /// Sets what is known about an id.
    pub fn put_id(&self, id: EntryId, located: &Located) -> Result<()> {
        let value = seal_located(id, located);
        self.with(tables::IDS, |mut t| t.insert(id.0, value).map(drop).map_err(|e| self.fail(e)))
    }

    /// Forgets an id altogether; false when it was not known.
    pub fn del_id(&self, id: EntryId) -> Result<bool> {
        self.remove(tables::IDS, id.0)
    }

    /// `put_key` and `put_id` for many entries at once, at a half to a quarter of their cost: each
    /// table is opened once and takes its rows in its own order. Of two entries with the same key
    /// the later one in the list keeps it.
    pub fn put_entries(&self, entries: &[NewEntry<'_>]) -> Result<()> {
        let row = |e: &NewEntry<'_>| key_row(e.located.collection, e.namespace.as_str(), e.key);
        self.name(&entries.iter().map(|e| (row(e), e.id)).collect())?;
        let mut ids: Vec<(EntryId, &Located)> =
            entries.iter().map(|e| (e.id, &e.located)).collect();
        ids.sort_by_key(|(id, _)| *id);
        self.with(tables::IDS, |mut t| {
            for (id, located) in &ids {
                t.insert(id.0, seal_located(*id, located)).map_err(|e| self.fail(e))?;
            }
            Ok(())
        })
    }

    /// What is known about an id.
    pub fn get_id(&self, id: EntryId) -> Result<Option<Located>> {
        self.with(tables::IDS, |t| {
            let found = t.get(id.0).map_err(|e| self.fail(e))?;
            found.map(|value| open_located(id, &value.value())).transpose()
        })
    }

    /// Sets the caller's bytes of a segment.
    pub fn put_segment(&self, number: u64, bytes: &[u8]) -> Result<()> {
        let value = seal_bytes(Table::Segments, &number.to_le_bytes(), bytes);
        self.with(tables::SEGMENTS, |mut t| {
            t.insert(number, value.as_slice()).map(drop).map_err(|e| self.fail(e))
        })
    }

    /// Removes a segment; false when it was not known.
    pub fn del_segment(&self, number: u64) -> Result<bool> {
        self.remove(tables::SEGMENTS, number)
    }

    /// The caller's bytes of a segment.
    #[cfg(test)]
    pub fn get_segment(&self, number: u64) -> Result<Option<Vec<u8>>> {
        let key = number.to_le_bytes();
        self.with(tables::SEGMENTS, |t| {
            let found = t.get(number).map_err(|e| self.fail(e))?;
            found
                .map(|value| Ok(open_bytes(Table::Segments, &key, value.value())?.to_vec()))
                .transpose()
        })
    }

    /// Sets the caller's bytes of a collection.
    pub fn put_collection(&self, collection: CollectionId, bytes: &[u8]) -> Result<()> {
        let value = seal_bytes(Table::Collections, &collection.0.to_le_bytes(), bytes);
        self.with(tables::COLLECTIONS, |mut t| {
            t.insert(collection.0, value.as_slice()).map(drop).map_err(|e| self.fail(e))
        })
    }

    /// Removes a collection; false when it was not known.
    pub fn del_collection(&self, collection: CollectionId) -> Result<bool> {
        self.remove(tables::COLLECTIONS, collection.0)
    }

    /// Sets the caller's bytes of a setting.
    pub fn put_setting(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let value = seal_bytes(Table::Settings, name.as_bytes(), bytes);
        self.with(tables::SETTINGS, |mut t| {
            t.insert(name, value.as_slice()).map(drop).map_err(|e| self.fail(e))
        })
    }

    /// Sets the last request number of a client.
    pub fn put_request(&self, client: u64, sequence: u64) -> Result<()> {
        self.put_number(tables::REQUESTS, Table::Requests, client, sequence)
    }

    /// Notes the uptime in ms at which an id was first seen expired.
    pub fn put_expiring(&self, id: EntryId, uptime_ms: u64) -> Result<()> {
        self.put_number(tables::EXPIRING, Table::Expiring, id.0, uptime_ms)
    }

    /// Forgets that; false when it was not known.
    pub fn del_expiring(&self, id: EntryId) -> Result<bool> {
        self.remove(tables::EXPIRING, id.0)
    }

    /// The caller's bytes of a collection.
    pub fn get_collection(&self, collection: CollectionId) -> Result<Option<Vec<u8>>> {
        let key = collection.0.to_le_bytes();
        self.with(tables::COLLECTIONS, |t| {
            let found = t.get(collection.0).map_err(|e| self.fail(e))?;
            found
                .map(|value| Ok(open_bytes(Table::Collections, &key, value.value())?.to_vec()))
                .transpose()
        })
    }

    /// The caller's bytes of a setting.
    pub fn get_setting(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.with(tables::SETTINGS, |t| {
            let found = t.get(name).map_err(|e| self.fail(e))?;
            let key = name.as_bytes();
            found
                .map(|value| Ok(open_bytes(Table::Settings, key, value.value())?.to_vec()))
                .transpose()
        })
    }

    fn get_number(
        &self,
        table: TableDefinition<'static, u64, [u8; NUMBER_BYTES]>,
        name: Table,
        key: u64,
    ) -> Result<Option<u64>> {
        self.with(table, |t| {
            let found = t.get(key).map_err(|e| self.fail(e))?;
            found.map(|value| open_number(name, &key.to_le_bytes(), &value.value())).transpose()
        })
    }

    /// The last request number of a client.
    pub fn get_request(&self, client: u64) -> Result<Option<u64>> {
        self.get_number(tables::REQUESTS, Table::Requests, client)
    }

    /// The uptime in ms at which an id was first seen expired.
    pub fn get_expiring(&self, id: EntryId) -> Result<Option<u64>> {
        self.get_number(tables::EXPIRING, Table::Expiring, id.0)
    }

    /// Sets a number of the store.
    pub fn put_meta(&self, name: &str, number: u64) -> Result<()> {
        let value = seal_number(Table::Meta, name.as_bytes(), number);
        self.with(tables::META, |mut t| t.insert(name, value).map(drop).map_err(|e| self.fail(e)))
    }

    /// A number of the store.
    pub fn get_meta(&self, name: &str) -> Result<Option<u64>> {
        self.with(tables::META, |t| {
            let found = t.get(name).map_err(|e| self.fail(e))?;
            let key = name.as_bytes();
            found.map(|value| open_number(Table::Meta, key, &value.value())).transpose()
        })
    }

    /// Makes it all visible to later snapshots, and durable. Errors with `Full`, `Io` or
    /// `Corrupt`; nothing of it is visible then.
    pub fn commit(mut self) -> Result<()> {
        self.count_recent()?;
        guard(|| {
            let transaction = self.transaction.take()?;
            transaction.commit().map_err(|e| redb_error(&self.health, e))
        })
    }
}
