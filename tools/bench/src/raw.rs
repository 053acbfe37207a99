//! The least a disk can do: records written into a file of zeros, each on disk when a put returns.
//!
//! `Raw` writes and syncs under one lock, as the disk would have it without a log that groups.
//! `Group` is a bare leader and followers: whoever finds nobody writing takes all that waits,
//! writes it in one piece, syncs once and wakes the others. Neither has checksums, keys to find
//! anything by, or a way to replay: they are limits, not engines. A put goes to the next slot of
//! the file, and from its end back to the front; a slot starts with a number that is never 0.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::Outcome;
use crate::puts::{Engine, RECORD_BYTES, Record, Tally};

/// Room for 75,000 records: two seconds at more than any rate that was seen.
const SLOTS: u64 = 75_000;
const ZEROS: usize = 1 << 20;

/// The file, which both kinds write.
struct Slots(File);

impl Slots {
    /// Opens the file, or makes it: zeros, written and synced, so that a put changes no metadata.
    fn open(dir: &Path) -> Outcome<Slots> {
        let path = dir.join("raw");
        let is_new = !path.exists();
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if is_new {
            let bytes = SLOTS as usize * RECORD_BYTES;
            let zeros = vec![0; ZEROS];
            for at in (0..bytes).step_by(ZEROS) {
                file.write_all_at(&zeros[..ZEROS.min(bytes - at)], at as u64)?;
            }
            file.sync_all()?;
        }
        Ok(Slots(file))
    }

    /// Writes whole records from slot `first` on, round the end of the file if need be, and syncs.
    fn write(&self, first: u64, records: &[u8]) -> std::io::Result<()> {
        let slot = first % SLOTS;
        let until_end = ((SLOTS - slot) as usize).saturating_mul(RECORD_BYTES).min(records.len());
        let (front, back) = records.split_at(until_end);
        self.0.write_all_at(front, slot * RECORD_BYTES as u64)?;
        if !back.is_empty() {
            self.0.write_all_at(back, 0)?;
        }
        self.0.sync_data()
    }

    fn tally(&self) -> Outcome<Tally> {
        let mut tally = Tally::default();
        let mut number = [0; 8];
        for slot in 0..SLOTS {
            self.0.read_exact_at(&mut number, slot * RECORD_BYTES as u64)?;
            if number != [0; 8] {
                tally.rows += 1;
                tally.bytes += RECORD_BYTES as u64;
            }
        }
        Ok(tally)
    }
}

/// A record with its number in place of its first bytes.
fn numbered(turn: u64, record: &Record) -> Vec<u8> {
    let mut value = record.value();
    value[..8].copy_from_slice(&(turn + 1).to_le_bytes());
    value
}

fn at_most_all(put: Tally) -> Tally {
    let rows = put.rows.min(SLOTS);
    Tally { rows, bytes: rows * RECORD_BYTES as u64 }
}

fn no_batches() -> Outcome<()> {
    Err("a bare file takes single puts only".into())
}

/// One write and one sync a put.
pub struct Raw {
    slots: Slots,
    next: Mutex<u64>,
}

impl Raw {
    pub fn open(dir: &Path) -> Outcome<Raw> {
        Ok(Raw { slots: Slots::open(dir)?, next: Mutex::new(0) })
    }
}

impl Engine for Raw {
    fn put(&self, _: u64, record: &Record) -> Outcome<()> {
        let mut next = self.next.lock().map_err(|_| "poisoned")?;
        self.slots.write(*next, &numbered(*next, record))?;
        *next += 1;
        Ok(())
    }

    fn put_many(&self, _: u64, _: &[Record]) -> Outcome<()> {
        no_batches()
    }

    fn tally(&self) -> Outcome<Tally> {
        self.slots.tally()
    }

    fn expected(&self, put: Tally) -> Tally {
        at_most_all(put)
    }
}

/// One write and one sync for all puts that wait.
pub struct Group {
    slots: Slots,
    queue: Mutex<Queue>,
    written: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Records that wait, one after the other.
    waiting: Vec<u8>,
    /// Records ever queued; the next one gets this number.
    queued: u64,
    /// Records below this number are on disk.
    durable: u64,
    /// Whether somebody writes.
    led: bool,
    /// What ended the writing for good.
    failed: Option<String>,
}

impl Group {
    pub fn open(dir: &Path) -> Outcome<Group> {
        Ok(Group {
            slots: Slots::open(dir)?,
            queue: Mutex::new(Queue::default()),
            written: Condvar::new(),
        })
    }

    fn lock(&self) -> Outcome<MutexGuard<'_, Queue>> {
        Ok(self.queue.lock().map_err(|_| "poisoned")?)
    }
}

impl Engine for Group {
    fn put(&self, _: u64, record: &Record) -> Outcome<()> {
        let mut queue = self.lock()?;
        let mine = queue.queued;
        queue.waiting.extend_from_slice(&numbered(mine, record));
        queue.queued += 1;
        loop {
            if let Some(failed) = &queue.failed {
                return Err(failed.clone().into());
            }
            if queue.durable > mine {
                return Ok(());
            }
            if queue.led {
                queue = self.written.wait(queue).map_err(|_| "poisoned")?;
                continue;
            }
            queue.led = true;
            let (first, until) = (queue.durable, queue.queued);
            let records = std::mem::take(&mut queue.waiting);
            drop(queue);
            let done = self.slots.write(first, &records);
            queue = self.lock()?;
            queue.led = false;
            match done {
                Ok(()) => queue.durable = until,
                Err(error) => queue.failed = Some(error.to_string()),
            }
            self.written.notify_all();
        }
    }

    fn put_many(&self, _: u64, _: &[Record]) -> Outcome<()> {
        no_batches()
    }

    fn tally(&self) -> Outcome<Tally> {
        self.slots.tally()
    }

    fn expected(&self, put: Tally) -> Tally {
        at_most_all(put)
    }
}
