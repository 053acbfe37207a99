//! The index file taken off its layer of page checksums, changed with redb, and put on it again, by
//! docs/FORMAT.md.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::edits::{self, Input};

use redb::{Database, ReadableDatabase, StorageBackend, TableDefinition};

const PAGE: usize = 4096;
const GROUP: usize = 1024;
const HEADER_AT: usize = 16;
const HEADER: usize = 480;

/// A row for a table: its number, key and value.
pub(crate) type Row = (u8, Vec<u8>, Vec<u8>);

/// Bytes that redb reads and writes.
#[derive(Clone, Debug)]
struct Plain(Arc<Mutex<Vec<u8>>>);

impl Plain {
    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Plain {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let bytes = self.bytes();
        let from = bytes.get(start..start.saturating_add(out.len()));
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes().resize(usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        crate::edits::put(&mut self.bytes(), offset as usize, data);
        Ok(())
    }
}

/// The index with these rows in its tables; `None` when it is not one.
pub(crate) fn with_rows(index: &[u8], rows: &[Row], sealed: bool) -> Option<Vec<u8>> {
    let plain = Plain(Arc::new(Mutex::new(unwrapped(index)?)));
    let database = Database::builder().create_with_backend(plain.clone()).ok()?;
    let write = database.begin_write().ok()?;
    for row in rows {
        let _ = insert(&write, row, sealed);
    }
    write.commit().ok()?;
    drop(database.begin_read());
    drop(database);
    let bytes = plain.bytes();
    Some(wrapped(&bytes))
}

/// The index with changes in redb's pages, under right checksums; `None` when it is not one.
pub(crate) fn edited(index: &[u8], input: &mut Input<'_>) -> Option<Vec<u8>> {
    let mut plain = unwrapped(index)?;
    // Where redb's pages begin and end decides nothing: half of the changes go to the first, which rule.
    let end = if input.u8().is_multiple_of(2) { 16 * PAGE } else { plain.len() };
    edits::apply(&mut plain, 0..end, input);
    Some(wrapped(&plain))
}

fn insert(write: &redb::WriteTransaction, row: &Row, sealed: bool) -> Option<()> {
    let (table, key, value) = row;
    match table {
        1 | 9 => {
            let name = if *table == 1 { "keys" } else { "recent" };
            let value = fixed(*table, key, value, sealed);
            let table = TableDefinition::<&[u8], [u8; 12]>::new(name);
            write.open_table(table).ok()?.insert(key.as_slice(), value).ok()?;
        }
        2 => {
            let table = TableDefinition::<u64, [u8; 31]>::new("ids");
            let (key, value) = (number(key), fixed(2, &number(key).to_le_bytes(), value, sealed));
            write.open_table(table).ok()?.insert(key, value).ok()?;
        }
        3 => {
            let table = TableDefinition::<u64, &[u8]>::new("segments");
            let (key, value) = (number(key), closed(3, &number(key).to_le_bytes(), value, sealed));
            write.open_table(table).ok()?.insert(key, value.as_slice()).ok()?;
        }
        4 => {
            let table = TableDefinition::<u32, &[u8]>::new("collections");
            let key = number(key) as u32;
            let value = closed(4, &key.to_le_bytes(), value, sealed);
            write.open_table(table).ok()?.insert(key, value.as_slice()).ok()?;
        }
        5 => {
            let table = TableDefinition::<&str, &[u8]>::new("settings");
            let value = closed(5, key, value, sealed);
            write
                .open_table(table)
                .ok()?
                .insert(std::str::from_utf8(key).ok()?, value.as_slice())
                .ok()?;
        }
        6 | 7 => {
            let name = if *table == 6 { "requests" } else { "expiring" };
            let definition = TableDefinition::<u64, [u8; 12]>::new(name);
            let (key, value) =
                (number(key), fixed(*table, &number(key).to_le_bytes(), value, sealed));
            write.open_table(definition).ok()?.insert(key, value).ok()?;
        }
        _ => {
            let table = TableDefinition::<&str, [u8; 12]>::new("meta");
            let value = fixed(8, key, value, sealed);
            write.open_table(table).ok()?.insert(std::str::from_utf8(key).ok()?, value).ok()?;
        }
    }
    Some(())
}

fn number(key: &[u8]) -> u64 {
    let mut wide = [0; 8];
    crate::edits::put(&mut wide, 0, key);
    u64::from_le_bytes(wide)
}

/// The value with its CRC behind it, or with what would be one.
fn closed(table: u8, key: &[u8], value: &[u8], sealed: bool) -> Vec<u8> {
    if !sealed {
        return value.to_vec();
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[table]);
    hasher.update(&(key.len() as u32).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    [value, &hasher.finalize().to_le_bytes()].concat()
}

fn fixed<const N: usize>(table: u8, key: &[u8], value: &[u8], sealed: bool) -> [u8; N] {
    let mut body = vec![0; N - 4];
    crate::edits::put(&mut body, 0, value);
    let mut whole = [0; N];
    crate::edits::put(&mut whole, 0, &closed(table, key, &body, sealed));
    whole
}

fn data_at(page: usize) -> usize {
    (2 + (page - 1) / GROUP + page) * PAGE
}

fn crc_at(page: usize) -> usize {
    (2 + (page - 1) / GROUP * (GROUP + 1)) * PAGE + (page - 1) % GROUP * 4
}

/// What redb wrote.
fn unwrapped(index: &[u8]) -> Option<Vec<u8>> {
    let mut plain = vec![0; PAGE];
    crate::edits::put(&mut plain, 0, index.get(HEADER_AT..HEADER_AT + HEADER)?);
    let mut page = 1;
    while let Some(bytes) = index.get(data_at(page)..data_at(page) + PAGE) {
        plain.extend_from_slice(bytes);
        page += 1;
    }
    Some(plain)
}

/// The file with right checksums over these pages.
fn wrapped(plain: &[u8]) -> Vec<u8> {
    let pages = plain.len() / PAGE;
    let mut index = vec![0; data_at(pages.max(2) - 1) + PAGE];
    for copy in 0..2_usize {
        let mut sector = [&b"pmllidx1"[..], &9_u64.to_le_bytes()].concat();
        sector.extend_from_slice(plain.get(..HEADER).unwrap_or_default());
        sector.resize(508, 0);
        let crc = page_crc(copy, &sector);
        sector.extend_from_slice(&crc.to_le_bytes());
        crate::edits::put(&mut index, copy * PAGE, &sector);
    }
    for (page, bytes) in plain.chunks_exact(PAGE).enumerate().skip(1) {
        if bytes.iter().any(|byte| *byte != 0) {
            crate::edits::put(&mut index, data_at(page), bytes);
            crate::edits::put(&mut index, crc_at(page), &page_crc(page, bytes).to_le_bytes());
        }
    }
    index
}

fn page_crc(page: usize, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(page as u64).to_le_bytes());
    hasher.update(bytes);
    hasher.finalize().max(1)
}
