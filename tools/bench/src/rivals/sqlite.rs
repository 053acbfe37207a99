//! SQLite: WAL with `synchronous = FULL`, one transaction a put or a batch.
//!
//! Threads share one connection under a lock: connections of their own would wait for each other by
//! sleeping, which is slower.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use rusqlite::Connection;

use crate::Outcome;
use crate::puts::{Engine, Record, Tally};

const INSERT: &str = "INSERT OR REPLACE INTO bench (key, value) VALUES (?1, ?2)";

pub struct Sqlite(Mutex<Connection>);

impl Sqlite {
    pub fn open(dir: &Path) -> Outcome<Sqlite> {
        let connection = Connection::open(dir.join("bench.sqlite"))?;
        let mode: String =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(format!("the journal is {mode}, not wal").into());
        }
        connection.execute_batch(
            "PRAGMA synchronous = FULL;
             CREATE TABLE IF NOT EXISTS bench (key INTEGER PRIMARY KEY, value BLOB NOT NULL);",
        )?;
        Ok(Sqlite(Mutex::new(connection)))
    }

    fn lock(&self) -> Outcome<MutexGuard<'_, Connection>> {
        Ok(self.0.lock().map_err(|_| "poisoned")?)
    }
}

impl Engine for Sqlite {
    fn put(&self, key: u64, record: &Record) -> Outcome<()> {
        let connection = self.lock()?;
        connection.prepare_cached(INSERT)?.execute((key as i64, record.value()))?;
        Ok(())
    }

    fn put_many(&self, first: u64, records: &[Record]) -> Outcome<()> {
        let mut connection = self.lock()?;
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            for (key, record) in (first..).zip(records) {
                insert.execute((key as i64, record.value()))?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn tally(&self) -> Outcome<Tally> {
        let query = "SELECT count(*), coalesce(sum(length(value)), 0) FROM bench";
        let connection = self.lock()?;
        Ok(connection.query_row(query, [], |row| {
            let (rows, bytes): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok(Tally { rows: rows as u64, bytes: bytes as u64 })
        })?)
    }
}
