//! Writing: durable single puts, and all passages in durable batches.
//!
//! Every engine gets the same records, a vector and bytes, under the same keys; one that knows no
//! vectors stores both as one opaque value, made inside the time. After the measurement the engine
//! is closed and opened again, and the number of its rows and of their bytes is compared with what
//! was acknowledged, before any figure is reported.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pmll::{Batch, Collection, CollectionSpec, Draft, Element, Options, Scan, Store};

use crate::report::Report;
use crate::store::{BATCH, LARGE_BYTES};
use crate::times::percentile;
use crate::{Outcome, RunArgs, data, machine, raw};

/// Length of one round of single puts.
const ROUND: Duration = Duration::from_secs(2);
const DIM: usize = 384;
const PAYLOAD_BYTES: usize = 200;
/// A vector of 384 values and a payload of 200 bytes.
pub const RECORD_BYTES: usize = DIM * 4 + PAYLOAD_BYTES;
/// Records that single puts go round through.
const RECORDS: u64 = 64;
const COLLECTION: &str = "bench";

/// What is written: a vector and the bytes that belong to it.
pub struct Record {
    pub vector: Vec<f32>,
    pub payload: Vec<u8>,
}

impl Record {
    /// Vector and payload as one opaque value.
    pub fn value(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(self.len());
        for number in &self.vector {
            value.extend_from_slice(&number.to_le_bytes());
        }
        value.extend_from_slice(&self.payload);
        value
    }

    fn len(&self) -> usize {
        self.vector.len() * 4 + self.payload.len()
    }
}

/// Rows, and bytes of their values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub rows: u64,
    pub bytes: u64,
}

/// Something that keeps records. Every call returns when what it was given is on disk.
pub trait Engine: Sync {
    fn put(&self, key: u64, record: &Record) -> Outcome<()>;

    /// Puts records under `first`, `first + 1`, and so on, as one durable batch.
    fn put_many(&self, first: u64, records: &[Record]) -> Outcome<()>;

    /// What belongs to a bulk load but is no put.
    fn finish(&self) -> Outcome<()> {
        Ok(())
    }

    /// Counts what is there.
    fn tally(&self) -> Outcome<Tally>;

    /// What is to be seen there after these puts; all of them, but for a file that goes round.
    fn expected(&self, put: Tally) -> Tally {
        put
    }
}

/// Opens or creates an engine in a folder.
fn engine(subject: &str, dir: &Path) -> Outcome<Box<dyn Engine>> {
    match subject {
        "pmll" => Ok(Box::new(Pmll::open(dir, Element::F32, false)?)),
        "pmll+compress" => Ok(Box::new(Pmll::open(dir, Element::F32, true)?)),
        "pmll-f16" => Ok(Box::new(Pmll::open(dir, Element::F16, false)?)),
        "raw" => Ok(Box::new(raw::Raw::open(dir)?)),
        "raw-group" => Ok(Box::new(raw::Group::open(dir)?)),
        #[cfg(feature = "rivals")]
        "fjall" => Ok(Box::new(crate::rivals::fjall::Fjall::open(dir)?)),
        #[cfg(feature = "rivals")]
        "redb" => Ok(Box::new(crate::rivals::redb::Redb::open(dir)?)),
        #[cfg(feature = "rivals")]
        "sqlite" => Ok(Box::new(crate::rivals::sqlite::Sqlite::open(dir)?)),
        other => Err(format!("{other}: no such subject in this build").into()),
    }
}

/// Single durable puts on one or more threads.
pub fn puts(args: &RunArgs) -> Outcome<Report> {
    let dir = tempfile::tempdir_in(&args.state)?;
    let records: Vec<Record> = (0..RECORDS).map(record).collect();
    let first = &records[0];
    let subject = engine(&args.subject, dir.path())?;
    // The first put of a store makes its files.
    subject.put(u64::from(u32::MAX), first)?;
    let (rate_per_s, times_us) = timed(args.threads, |thread, turn| {
        let key = ((thread as u64) << 40) | turn;
        subject.put(key, &records[(turn % RECORDS) as usize])
    })?;
    let rows = times_us.len() as u64 + 1;
    let put = Tally { rows, bytes: rows * RECORD_BYTES as u64 };
    let disk_bytes = reopened(&args.subject, subject, dir.path(), put)?;
    Ok(Report {
        rows: Some(rows),
        p50_us: Some(percentile(&times_us, 50)),
        p99_us: Some(percentile(&times_us, 99)),
        rate_per_s: Some(rate_per_s),
        disk_bytes: Some(disk_bytes),
        ..Report::new(format!("puts-{}", args.threads), &args.subject)
    })
}

/// All rows in batches of 256, each durable before the next one.
pub fn bulk(args: &RunArgs) -> Outcome<Report> {
    let dir = tempfile::tempdir_in(&args.state)?;
    let vectors = data::passages(&args.data, args.rows)?;
    let texts = data::texts(&args.data, args.rows)?;
    let records: Vec<Record> = vectors
        .into_iter()
        .zip(texts)
        .map(|(vector, text)| Record { vector, payload: text.into_bytes() })
        .collect();
    let subject = engine(&args.subject, dir.path())?;
    let before_bytes = machine::resident_bytes();
    let before_cpu_s = machine::processor_seconds();
    let started = Instant::now();
    for (nth, batch) in records.chunks(BATCH).enumerate() {
        subject.put_many((nth * BATCH) as u64, batch)?;
    }
    subject.finish()?;
    let took = started.elapsed();
    let cpu_us_a_row = (machine::processor_seconds() - before_cpu_s) * 1e6 / args.rows as f64;
    let resident_bytes = machine::resident_bytes().saturating_sub(before_bytes);
    let bytes = records.iter().map(|record| record.len() as u64).sum();
    let put = Tally { rows: records.len() as u64, bytes };
    let disk_bytes = reopened(&args.subject, subject, dir.path(), put)?;
    Ok(Report {
        rows: Some(put.rows),
        rate_per_s: Some(put.rows as f64 / took.as_secs_f64()),
        resident_bytes: Some(resident_bytes),
        disk_bytes: Some(disk_bytes),
        note: Some(format!(
            "{:.0} B/row on disk, {cpu_us_a_row:.1} us of processor a row",
            disk_bytes as f64 / put.rows as f64
        )),
        ..Report::new("bulk", &args.subject)
    })
}

/// Closes, measures, opens again and counts.
fn reopened(name: &str, subject: Box<dyn Engine>, dir: &Path, put: Tally) -> Outcome<u64> {
    drop(subject);
    let disk_bytes = machine::disk_bytes(dir)?;
    let again = engine(name, dir)?;
    let (there, expected) = (again.tally()?, again.expected(put));
    if there != expected {
        return Err(format!("acknowledged {expected:?}, after reopening {there:?}").into());
    }
    Ok(disk_bytes)
}

/// Runs `call` on every thread until the time is up; `call` gets thread and turn. Answers calls a
/// second and the sorted times of all calls.
fn timed(
    threads: usize,
    call: impl Fn(usize, u64) -> Outcome<()> + Sync,
) -> Outcome<(f64, Vec<f64>)> {
    let done = AtomicU64::new(0);
    let start = Instant::now();
    let mut times_us: Vec<f64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (call, done) = (&call, &done);
                scope.spawn(move || {
                    let mut times_us = Vec::new();
                    let mut turn = 0;
                    while start.elapsed() < ROUND {
                        let before = Instant::now();
                        call(thread, turn).map_err(|e| e.to_string())?;
                        times_us.push(before.elapsed().as_secs_f64() * 1e6);
                        done.fetch_add(1, Ordering::Relaxed);
                        turn += 1;
                    }
                    Ok::<_, String>(times_us)
                })
            })
            .collect();
        let joined =
            workers.into_iter().map(|w| w.join().map_err(|_| "a worker panicked".to_owned()));
        joined.collect::<Result<Result<Vec<_>, _>, _>>().and_then(|all| all).map(|all| all.concat())
    })?;
    let rate_per_s = done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    times_us.sort_by(f64::total_cmp);
    Ok((rate_per_s, times_us))
}

/// A record that no compression makes smaller by much.
fn record(seed: u64) -> Record {
    // Knuth's generator; its upper bits are good enough to be incompressible.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 40
    };
    let vector = (0..DIM).map(|_| next() as f32 / (1 << 24) as f32 - 0.5).collect();
    let payload = (0..PAYLOAD_BYTES).map(|_| b' ' + (next() % 95) as u8).collect();
    Record { vector, payload }
}

/// pmll with its default settings, but for a budget that a bulk load does not fill.
struct Pmll {
    store: Store,
    collection: Collection,
    compress: bool,
}

impl Pmll {
    fn open(dir: &Path, element: Element, compress: bool) -> Outcome<Pmll> {
        let options = Options { budget_bytes: Some(LARGE_BYTES), ..Options::default() };
        let store = Store::builder(dir.join("store")).options(options).open()?;
        let spec = CollectionSpec::new().element(element);
        let collection = store.collection_with(COLLECTION, spec)?;
        Ok(Pmll { store, collection, compress })
    }

    fn draft(record: &Record) -> Draft {
        Draft::bytes(record.payload.as_slice()).vector(record.vector.as_slice())
    }
}

impl Engine for Pmll {
    fn put(&self, key: u64, record: &Record) -> Outcome<()> {
        self.collection.put(key.to_string(), Pmll::draft(record))?;
        Ok(())
    }

    fn put_many(&self, first: u64, records: &[Record]) -> Outcome<()> {
        let mut batch = Batch::new();
        for (key, record) in (first..).zip(records) {
            batch = batch.put(&self.collection, key.to_string(), Pmll::draft(record));
        }
        self.store.write(batch)?;
        Ok(())
    }

    fn finish(&self) -> Outcome<()> {
        if self.compress {
            self.store.compress()?;
        }
        Ok(())
    }

    fn tally(&self) -> Outcome<Tally> {
        let mut tally = Tally::default();
        let mut scan = Scan::new().with_vector(true);
        loop {
            let page = self.collection.scan(scan)?;
            for entry in &page.entries {
                let values = entry.vector.as_ref().map_or(0, Vec::len);
                tally.rows += 1;
                tally.bytes += (values * 4 + entry.payload.len()) as u64;
            }
            match page.cursor {
                Some(cursor) => scan = Scan::new().with_vector(true).cursor(cursor),
                None => break,
            }
        }
        let count = self.collection.count(None)?;
        if count != tally.rows {
            return Err(format!("count says {count}, a scan finds {}", tally.rows).into());
        }
        Ok(tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects() -> Vec<&'static str> {
        let mut all = vec!["pmll", "pmll+compress", "pmll-f16", "raw", "raw-group"];
        if cfg!(feature = "rivals") {
            all.extend(["fjall", "redb", "sqlite"]);
        }
        all
    }

    #[test]
    fn what_threads_put_is_counted_after_a_reopen() {
        for name in subjects() {
            let dir = tempfile::tempdir().unwrap();
            let subject = engine(name, dir.path()).unwrap();
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let subject = &subject;
                    scope.spawn(move || {
                        for turn in 0..5 {
                            subject.put(thread << 40 | turn, &record(turn)).unwrap();
                        }
                    });
                }
            });
            let put = Tally { rows: 20, bytes: 20 * RECORD_BYTES as u64 };
            assert!(reopened(name, subject, dir.path(), put).unwrap() > put.bytes / 2, "{name}");
            let more = Tally { rows: 21, ..put };
            let subject = engine(name, dir.path()).unwrap();
            let error = reopened(name, subject, dir.path(), more).unwrap_err().to_string();
            assert!(error.contains("after reopening"), "{name}: {error}");
        }
    }

    #[test]
    fn a_batch_is_counted_after_a_reopen() {
        for name in subjects().into_iter().filter(|name| !name.starts_with("raw")) {
            let dir = tempfile::tempdir().unwrap();
            let subject = engine(name, dir.path()).unwrap();
            let records: Vec<Record> = (0..BATCH as u64).map(record).collect();
            subject.put_many(0, &records).unwrap();
            subject.put_many(BATCH as u64, &records).unwrap();
            subject.finish().unwrap();
            let rows = 2 * BATCH as u64;
            let put = Tally { rows, bytes: rows * RECORD_BYTES as u64 };
            reopened(name, subject, dir.path(), put).unwrap();
        }
    }
}
