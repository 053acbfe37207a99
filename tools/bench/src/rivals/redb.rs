//! redb: default settings, one write transaction with `Durability::Immediate` a put or a batch.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::Outcome;
use crate::puts::{Engine, Record, Tally};

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("bench");

pub struct Redb(Database);

impl Redb {
    pub fn open(dir: &Path) -> Outcome<Redb> {
        let database = Database::create(dir.join("bench.redb"))?;
        let transaction = database.begin_write()?;
        transaction.open_table(TABLE)?;
        transaction.commit()?;
        Ok(Redb(database))
    }
}

impl Engine for Redb {
    fn put(&self, key: u64, record: &Record) -> Outcome<()> {
        let transaction = self.0.begin_write()?;
        transaction.open_table(TABLE)?.insert(key, record.value().as_slice())?;
        Ok(transaction.commit()?)
    }

    fn put_many(&self, first: u64, records: &[Record]) -> Outcome<()> {
        let transaction = self.0.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, record) in (first..).zip(records) {
                table.insert(key, record.value().as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn tally(&self) -> Outcome<Tally> {
        let mut tally = Tally::default();
        for item in self.0.begin_read()?.open_table(TABLE)?.iter()? {
            let (_, value) = item?;
            tally.rows += 1;
            tally.bytes += value.value().len() as u64;
        }
        Ok(tally)
    }
}
