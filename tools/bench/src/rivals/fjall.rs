//! fjall: default settings, `PersistMode::SyncData` after every put or with every batch.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::Outcome;
use crate::puts::{Engine, Record, Tally};

pub struct Fjall {
    database: Database,
    keyspace: Keyspace,
}

impl Fjall {
    pub fn open(dir: &Path) -> Outcome<Fjall> {
        let database = Database::builder(dir.join("fjall")).open()?;
        let keyspace = database.keyspace("bench", KeyspaceCreateOptions::default)?;
        Ok(Fjall { database, keyspace })
    }
}

impl Engine for Fjall {
    fn put(&self, key: u64, record: &Record) -> Outcome<()> {
        self.keyspace.insert(key.to_be_bytes(), record.value())?;
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    fn put_many(&self, first: u64, records: &[Record]) -> Outcome<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (key, record) in (first..).zip(records) {
            batch.insert(&self.keyspace, key.to_be_bytes(), record.value());
        }
        Ok(batch.commit()?)
    }

    fn tally(&self) -> Outcome<Tally> {
        let mut tally = Tally::default();
        for guard in self.keyspace.iter() {
            let (_, value) = guard.into_inner()?;
            tally.rows += 1;
            tally.bytes += value.len() as u64;
        }
        Ok(tally)
    }
}
