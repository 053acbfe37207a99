//! A consistent view of the index at one commit.
//!
//! It opens every table once, so that a lookup is one walk down a B-tree whose pages are mostly in
//! redb's cache: a few microseconds. Every value is checked against its own CRC before it is
//! answered; every page was checked when it came from the disk.
//!
//! Never: sees a later commit, or writes.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redb::{
    Key as RowKey, Range, ReadOnlyTable, ReadTransaction, ReadableTableMetadata, TableDefinition,
    Value,
};

use crate::organs::catalog::backend::Health;
use crate::organs::catalog::keys::Keys;
use crate::organs::catalog::tables::{
    self, KeyRange, LOCATED_BYTES, Located, NUMBER_BYTES, Table, key_row, open_bytes, open_key_row,
    open_located, open_number,
};
use crate::organs::catalog::{FILE, Guarded, guard, redb_error};
use crate::words::error::{Error, Result};
use crate::words::id::{CollectionId, EntryId, Namespace};
use crate::words::limits;

/// See the file's story. Cheap to share behind an `Arc`, not to make: some 10 microseconds.
pub struct Snapshot {
    tables: Guarded<Tables>,
    health: Arc<Health>,
}

struct Tables {
    keys: ReadOnlyTable<&'static [u8], [u8; NUMBER_BYTES]>,
    recent: ReadOnlyTable<&'static [u8], [u8; NUMBER_BYTES]>,
    ids: ReadOnlyTable<u64, [u8; LOCATED_BYTES]>,
    segments: ReadOnlyTable<u64, &'static [u8]>,
    collections: ReadOnlyTable<u32, &'static [u8]>,
    settings: ReadOnlyTable<&'static str, &'static [u8]>,
    requests: ReadOnlyTable<u64, [u8; NUMBER_BYTES]>,
    expiring: ReadOnlyTable<u64, [u8; NUMBER_BYTES]>,
    meta: ReadOnlyTable<&'static str, [u8; NUMBER_BYTES]>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Snapshot {
    /// Opens all tables. Runs inside [`guard`] by its caller.
    pub(super) fn new(transaction: &ReadTransaction, health: Arc<Health>) -> Result<Snapshot> {
        fn open<K: RowKey + 'static, V: Value + 'static>(
            transaction: &ReadTransaction,
            health: &Health,
            table: TableDefinition<'static, K, V>,
        ) -> Result<ReadOnlyTable<K, V>> {
            transaction.open_table(table).map_err(|e| redb_error(health, e))
        }
        let tables = Tables {
            keys: open(transaction, &health, tables::KEYS)?,
            recent: open(transaction, &health, tables::RECENT)?,
            ids: open(transaction, &health, tables::IDS)?,
            segments: open(transaction, &health, tables::SEGMENTS)?,
            collections: open(transaction, &health, tables::COLLECTIONS)?,
            settings: open(transaction, &health, tables::SETTINGS)?,
            requests: open(transaction, &health, tables::REQUESTS)?,
            expiring: open(transaction, &health, tables::EXPIRING)?,
            meta: open(transaction, &health, tables::META)?,
        };
        Ok(Snapshot { tables: Guarded::new(tables), health })
    }

    fn fail(&self, error: redb::StorageError) -> Error {
        redb_error(&self.health, error)
    }

    /// Whether the catalog failed, from which on it answers nothing more. Costs nothing to ask.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.health.is_broken.load(Ordering::Acquire)
            || self.health.is_rotten.load(Ordering::Acquire)
    }

    /// The id that a key names.
    pub fn find(
        &self,
        collection: CollectionId,
        namespace: &Namespace,
        key: &[u8],
    ) -> Result<Option<EntryId>> {
        let row = key_row(collection, namespace.as_str(), key);
        guard(|| {
            let tables = self.tables.get()?;
            for (table, open) in [(Table::Recent, &tables.recent), (Table::Keys, &tables.keys)] {
                if let Some(value) = open.get(row.as_slice()).map_err(|e| self.fail(e))? {
                    return Ok(Some(EntryId(open_number(table, &row, &value.value())?)));
                }
            }
            Ok(None)
        })
    }

    /// What is known about an id: `None` for one that was never there or is forgotten.
    pub fn locate(&self, id: EntryId) -> Result<Option<Located>> {
        guard(|| {
            let found = self.tables.get()?.ids.get(id.0).map_err(|e| self.fail(e))?;
            found.map(|value| open_located(id, &value.value())).transpose()
        })
    }

    /// The keys of a collection in the order of (namespace, key), or against it.
    pub fn keys(&self, collection: CollectionId, range: &KeyRange, reverse: bool) -> Result<Keys> {
        let Some((low, high)) = range.rows(collection) else {
            let none = || Rows::empty(self.health.clone());
            return Ok(Keys::new([none(), none()], reverse));
        };
        self.key_rows((as_slice(&low), as_slice(&high)), reverse)
    }

    fn key_rows(&self, bounds: (Bound<&[u8]>, Bound<&[u8]>), reverse: bool) -> Result<Keys> {
        let (recent, keys) = guard(|| {
            let tables = self.tables.get()?;
            let range = |table: &ReadOnlyTable<_, _>| {
                table.range::<&[u8]>(bounds).map_err(|e| self.fail(e))
            };
            Ok((range(&tables.recent)?, range(&tables.keys)?))
        })?;
        let health = || self.health.clone();
        let recent = Rows::new(recent, reverse, health(), |row: &[u8], value| {
            Ok((open_key_row(row)?, EntryId(open_number(Table::Recent, row, &value)?)))
        });
        let keys = Rows::new(keys, reverse, health(), |row: &[u8], value| {
            Ok((open_key_row(row)?, EntryId(open_number(Table::Keys, row, &value)?)))
        });
        Ok(Keys::new([recent, keys], reverse))
    }

    /// All ids from this one on, ascending, removed ones included.
    pub fn ids(&self, from: EntryId) -> Result<Ids> {
        let range = guard(|| self.tables.get()?.ids.range(from.0..).map_err(|e| self.fail(e)))?;
        Ok(Rows::new(range, false, self.health.clone(), |id, value| {
            Ok((EntryId(id), open_located(EntryId(id), &value)?))
        }))
    }

    /// The archive segments, ascending, with the caller's bytes.
    pub fn segments(&self) -> Result<Segments> {
        let range = guard(|| self.tables.get()?.segments.range(0u64..).map_err(|e| self.fail(e)))?;
        Ok(Rows::new(range, false, self.health.clone(), |number, value| {
            let bytes = open_bytes(Table::Segments, &number.to_le_bytes(), value)?;
            Ok((number, bytes.to_vec()))
        }))
    }

    /// The caller's bytes of one segment.
    #[cfg(test)]
    pub fn segment(&self, number: u64) -> Result<Option<Vec<u8>>> {
        guard(|| {
            let found = self.tables.get()?.segments.get(number).map_err(|e| self.fail(e))?;
            let key = number.to_le_bytes();
            found
                .map(|value| Ok(open_bytes(Table::Segments, &key, value.value())?.to_vec()))
                .transpose()
        })
    }

    /// The collections, ascending, with the caller's bytes.
    pub fn collections(&self) -> Result<Vec<(CollectionId, Vec<u8>)>> {
        let range =
            guard(|| self.tables.get()?.collections.range(0u32..).map_err(|e| self.fail(e)))?;
        let rows = Rows::new(range, false, self.health.clone(), |id: u32, value: &[u8]| {
            let bytes = open_bytes(Table::Collections, &id.to_le_bytes(), value)?;
            Ok((CollectionId(id), bytes.to_vec()))
        });
        rows.collect()
    }

    /// The caller's bytes of one collection.
    pub fn collection(&self, id: CollectionId) -> Result<Option<Vec<u8>>> {
        let key = id.0.to_le_bytes();
        guard(|| {
            let found = self.tables.get()?.collections.get(id.0).map_err(|e| self.fail(e))?;
            found
                .map(|value| Ok(open_bytes(Table::Collections, &key, value.value())?.to_vec()))
                .transpose()
        })
    }

    /// The settings by name, with the caller's bytes.
    pub fn settings(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let range =
            guard(|| self.tables.get()?.settings.range::<&str>(..).map_err(|e| self.fail(e)))?;
        let rows = Rows::new(range, false, self.health.clone(), |name: &str, value: &[u8]| {
            let bytes = open_bytes(Table::Settings, name.as_bytes(), value)?;
            Ok((name.to_owned(), bytes.to_vec()))
        });
        rows.collect()
    }

    /// The caller's bytes of one setting.
    pub fn setting(&self, name: &str) -> Result<Option<Vec<u8>>> {
        guard(|| {
            let found = self.tables.get()?.settings.get(name).map_err(|e| self.fail(e))?;
            let key = name.as_bytes();
            found
                .map(|value| Ok(open_bytes(Table::Settings, key, value.value())?.to_vec()))
                .transpose()
        })
    }

    /// The last request number of a client.
    pub fn request(&self, client: u64) -> Result<Option<u64>> {
        guard(|| {
            let found = self.tables.get()?.requests.get(client).map_err(|e| self.fail(e))?;
            let key = client.to_le_bytes();
            found.map(|value| open_number(Table::Requests, &key, &value.value())).transpose()
        })
    }

    /// The last request number of every client.
    pub fn requests(&self) -> Result<Numbers> {
        let range = guard(|| self.tables.get()?.requests.range(0u64..).map_err(|e| self.fail(e)))?;
        Ok(Rows::new(range, false, self.health.clone(), |client, value| {
            Ok((client, open_number(Table::Requests, &client.to_le_bytes(), &value)?))
        }))
    }

    /// Ids that were seen expired, with the uptime in ms at which they first were.
    pub fn expiring(&self) -> Result<Numbers> {
        let range = guard(|| self.tables.get()?.expiring.range(0u64..).map_err(|e| self.fail(e)))?;
        Ok(Rows::new(range, false, self.health.clone(), |id, value| {
            Ok((id, open_number(Table::Expiring, &id.to_le_bytes(), &value)?))
        }))
    }

    /// A number of the store by its name.
    pub fn meta(&self, name: &str) -> Result<Option<u64>> {
        let found = guard(|| {
            let found = self.tables.get()?.meta.get(name).map_err(|e| self.fail(e))?;
            let key = name.as_bytes();
            found.map(|value| open_number(Table::Meta, key, &value.value())).transpose()
        })?;
        match found {
            Some(number) if number > limits::COUNT_MAX => {
                Err(Error::corrupt(format!("{FILE}: {name} is {number}, which no store reaches")))
            }
            found => Ok(found),
        }
    }

    /// Number of keys, over all collections: that of live entries.
    pub fn key_count(&self) -> Result<u64> {
        let [recent, keys] = self.key_counts()?;
        Ok(recent.saturating_add(keys))
    }

    /// Rows of `recent` and of `keys`.
    pub(super) fn key_counts(&self) -> Result<[u64; 2]> {
        guard(|| {
            let tables = self.tables.get()?;
            let (recent, keys) = (tables.recent.len(), tables.keys.len());
            Ok([recent.map_err(|e| self.fail(e))?, keys.map_err(|e| self.fail(e))?])
        })
    }

    /// Number of ids, removed ones included.
    pub fn id_count(&self) -> Result<u64> {
        guard(|| self.tables.get()?.ids.len().map_err(|e| self.fail(e)))
    }

    /// Reads everything; see [`Catalog::verify`](super::Catalog::verify).
    pub fn verify(&self) -> Vec<Error> {
        fn walk<T>(rows: Result<impl Iterator<Item = Result<T>>>) -> Result<u64> {
            rows?.try_fold(0, |count, row| row.map(|_| count + 1))
        }
        let counted = |walked: Result<u64>, stated: Result<u64>, name: &str| {
            let (walked, stated) = (walked?, stated?);
            if walked == stated {
                return Ok(walked);
            }
            let what = format!("index.redb: table {name} states {stated} rows and has {walked}");
            Err(Error::corrupt(what))
        };
        let all_keys = self.key_rows((Bound::Unbounded, Bound::Unbounded), false);
        let all_meta = || {
            let range =
                guard(|| self.tables.get()?.meta.range::<&str>(..).map_err(|e| self.fail(e)))?;
            Ok(Rows::new(range, false, self.health.clone(), |name: &str, value| {
                open_number(Table::Meta, name.as_bytes(), &value)
            }))
        };
        let walked = [
            counted(walk(all_keys), self.key_count(), "keys"),
            counted(walk(self.ids(EntryId(0))), self.id_count(), "ids"),
            walk(self.segments()),
            self.collections().map(|rows| rows.len() as u64),
            self.settings().map(|rows| rows.len() as u64),
            walk(self.requests()),
            walk(self.expiring()),
            walk(all_meta()),
        ];
        walked.into_iter().filter_map(Result::err).collect()
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Unbounded => Bound::Unbounded,
        Bound::Included(bytes) => Bound::Included(bytes),
        Bound::Excluded(bytes) => Bound::Excluded(bytes),
    }
}

/// Ids with what is known about them.
pub type Ids = Rows<u64, [u8; LOCATED_BYTES], (EntryId, Located)>;
/// Segments with the caller's bytes.
pub type Segments = Rows<u64, &'static [u8], (u64, Vec<u8>)>;
/// Numbers by number.
pub type Numbers = Rows<u64, [u8; NUMBER_BYTES], (u64, u64)>;

/// How one row becomes an item.
type Decode<K, V, T> =
    for<'r> fn(<K as Value>::SelfType<'r>, <V as Value>::SelfType<'r>) -> Result<T>;

/// Rows of a table, decoded and checked one by one. Ends after its first error. It keeps its
/// snapshot's pages by itself and may outlive the [`Snapshot`].
pub struct Rows<K: RowKey + 'static, V: Value + 'static, T> {
    range: Guarded<Option<Range<'static, K, V>>>,
    reverse: bool,
    health: Arc<Health>,
    decode: Option<Decode<K, V, T>>,
}

impl<K: RowKey + 'static, V: Value + 'static, T> fmt::Debug for Rows<K, V, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rows")
    }
}

impl<K: RowKey + 'static, V: Value + 'static, T> Rows<K, V, T> {
    fn new(
        range: Range<'static, K, V>,
        reverse: bool,
        health: Arc<Health>,
        decode: Decode<K, V, T>,
    ) -> Self {
        Rows { range: Guarded::new(Some(range)), reverse, health, decode: Some(decode) }
    }

    fn empty(health: Arc<Health>) -> Self {
        Rows { range: Guarded::new(None), reverse: false, health, decode: None }
    }

    fn step(&mut self) -> Result<Option<T>> {
        let (range, decode) = (&mut self.range, self.decode);
        let (reverse, health) = (self.reverse, &self.health);
        guard(|| {
            let (Some(range), Some(decode)) = (range.get_mut()?.as_mut(), decode) else {
                return Ok(None);
            };
            let row = if reverse { range.next_back() } else { range.next() };
            let Some(row) = row else { return Ok(None) };
            let (key, value) = row.map_err(|e| redb_error(health, e))?;
            decode(key.value(), value.value()).map(Some)
        })
    }
}

impl<K: RowKey + 'static, V: Value + 'static, T> Iterator for Rows<K, V, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let item = self.step().transpose();
        if !matches!(item, Some(Ok(_))) {
            self.decode = None;
        }
        item
    }
}
