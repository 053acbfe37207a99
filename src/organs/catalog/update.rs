//! One change of the index: everything in it becomes visible and durable together, or not at all.
//!
//! An update sees its own rows. Its commit writes the pages, syncs, names the new root, syncs
//! again; only then does it return. A failed commit leaves the last one in place; the catalog has
//! to be opened again afterwards (`Catalog::failure` says why).
//!
//! Never: commits without syncs, or half.

use std::fmt;
use std::sync::Arc;

use redb::{
    Durability, Key as RowKey, ReadableTable, Table as OpenTable, TableDefinition, Value,
    WriteTransaction,
};

use crate::organs::catalog::backend::Health;
use crate::organs::catalog::tables::{
    self, KeyRange, Located, NUMBER_BYTES, Table, key_row, open_bytes, open_located, open_number,
    seal_bytes, seal_located, seal_number,
};
use crate::organs::catalog::{Guarded, guard, redb_error};
use crate::words::error::{Error, Result};
use crate::words::id::{CollectionId, EntryId, Namespace};

/// See the file's story. Dropping it without `commit` changes nothing.
pub struct Update {
    transaction: Guarded<WriteTransaction>,
    health: Arc<Health>,
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
    pub(super) fn new(mut transaction: WriteTransaction, health: Arc<Health>) -> Result<Update> {
        let set = transaction.set_durability(Durability::Immediate);
        set.map_err(|e| Error::internal(format!("index.redb: {e}")))?;
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        Ok(Update { transaction: Guarded::new(transaction), health })
    }

    /// Opens a table of this transaction and runs `call` on it.
    fn with<K: RowKey + 'static, V: Value + 'static, T>(
        &self,
        table: TableDefinition<'static, K, V>,
        call: impl FnOnce(OpenTable<'_, K, V>) -> Result<T, Error>,
    ) -> Result<T> {
        guard(|| {
            let opened = self.transaction.get()?.open_table(table);
            call(opened.map_err(|e| redb_error(&self.health, e))?)
        })
    }

    fn fail(&self, error: redb::StorageError) -> Error {
        redb_error(&self.health, error)
    }

    /// Makes every table, so that a snapshot finds them all.
    pub(super) fn create_tables(&self) -> Result<()> {
        self.with(tables::KEYS, |_| Ok(()))?;
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

    /// Lets a key name this id, whatever it named before.
    pub fn put_key(
        &self,
        collection: CollectionId,
        namespace: &Namespace,
        key: &[u8],
        id: EntryId,
    ) -> Result<()> {
        let row = key_row(collection, namespace.as_str(), key);
        let value = seal_number(Table::Keys, &row, id.0);
        self.with(tables::KEYS, |mut t| {
            t.insert(row.as_slice(), value).map(drop).map_err(|e| self.fail(e))
        })
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
        self.with(tables::KEYS, |mut t| {
            let named = match t.get(row.as_slice()).map_err(|e| self.fail(e))? {
                Some(value) => open_number(Table::Keys, &row, &value.value())?,
                None => return Ok(false),
            };
            if named != id.0 {
                return Ok(false);
            }
            let removed = t.remove(row.as_slice()).map_err(|e| self.fail(e))?;
            Ok(removed.is_some())
        })
    }

    /// Removes every key of a collection and tells the ids they named; how many there were.
    pub fn drop_keys(
        &self,
        collection: CollectionId,
        told: &mut dyn FnMut(EntryId),
    ) -> Result<u64> {
        let Some((low, high)) = KeyRange::all().rows(collection) else { return Ok(0) };
        let bounds = (low.as_ref().map(Vec::as_slice), high.as_ref().map(Vec::as_slice));
        self.with(tables::KEYS, |mut t| {
            let mut count = 0;
            for row in t.range::<&[u8]>(bounds).map_err(|e| self.fail(e))? {
                let (row, value) = row.map_err(|e| self.fail(e))?;
                told(EntryId(open_number(Table::Keys, row.value(), &value.value())?));
                count += 1;
            }
            t.retain_in::<&[u8], _>(bounds, |_, _| false).map_err(|e| self.fail(e))?;
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
        self.with(tables::KEYS, |t| {
            let found = t.get(row.as_slice()).map_err(|e| self.fail(e))?;
            let number = found.map(|value| open_number(Table::Keys, &row, &value.value()));
            Ok(number.transpose()?.map(EntryId))
        })
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
        let mut keys: Vec<(Vec<u8>, EntryId)> = entries
            .iter()
            .map(|e| (key_row(e.located.collection, e.namespace.as_str(), e.key), e.id))
            .collect();
        keys.sort_by(|a, b| a.0.cmp(&b.0));
        self.with(tables::KEYS, |mut t| {
            for (row, id) in &keys {
                let value = seal_number(Table::Keys, row, id.0);
                t.insert(row.as_slice(), value).map_err(|e| self.fail(e))?;
            }
            Ok(())
        })?;
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
        guard(|| {
            let transaction = self.transaction.take()?;
            transaction.commit().map_err(|e| redb_error(&self.health, e))
        })
    }
}
