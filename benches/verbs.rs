//! What our own code takes of each verb: put, commit of a batch, checkpoint, compress, open, get, search.
//!
//! `cargo bench --bench verbs [-- WORD]`; `--help` says more (sample counts, times).
//!
//! 1. Passages of `tests/data`, 2,800 real ones with their vectors, are put into stores without a
//!    background thread, so that what is measured runs in the thread that is timed.
//! 2. Where the answer of the disk would hide the code (put, commit, checkpoint, compress) the store lies
//!    in a `MemoryDisk`. What users read from the page cache (open, get, search) lies in a folder.
//! 3. Each verb is checked, before it is timed or after, in which case a wrong answer ends the program
//!    before the time is printed.
//!
//! Never: a sync, which `durable_put` measures, or more rows than a small memory has, which
//! `pmll-bench compare` does.

// A benchmark that cannot go on says so by a panic: the harness takes no errors.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use divan::Bencher;
use divan::counter::ItemsCount;
use pmll::io::MemoryDisk;
use pmll::{
    Batch, Collection, CountAccess, Draft, EntryId, Exactness, Options, Policy, Query, Store, Tier,
};

const DIM: usize = 384;
const K: usize = 10;
/// Entries of a batch.
const BATCH: usize = 256;
/// Room for all of it, exact.
const BUDGET_BYTES: u64 = 64 << 20;
const NAME: &str = "passages";

fn main() {
    divan::main();
}

#[divan::bench(threads = [1, 8])]
fn put(bencher: Bencher) {
    let data = Data::read();
    let (store, entries) = in_memory();
    let number = AtomicU64::new(0);
    bencher
        .with_inputs(|| {
            let n = number.fetch_add(1, Ordering::Relaxed);
            (n.to_string(), data.draft(n as usize))
        })
        .bench_values(|(key, draft)| entries.put(key, draft).unwrap());
    assert_eq!(entries.count(None).unwrap(), number.into_inner());
    store.close().unwrap();
}

#[divan::bench]
fn commit_of_256(bencher: Bencher) {
    let data = Data::read();
    let (store, entries) = in_memory();
    let mut number = 0;
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| {
            number += BATCH;
            data.batch(&entries, number - BATCH..number)
        })
        .bench_local_values(|batch| store.write(batch).unwrap());
    assert_eq!(entries.count(None).unwrap(), number as u64);
    store.close().unwrap();
}

#[divan::bench(sample_count = 15, sample_size = 1)]
fn checkpoint(bencher: Bencher) {
    let data = Data::read();
    let log = || {
        let (store, entries) = in_memory();
        data.put_all(&store, &entries);
        store
    };
    let archived = log().checkpoint().unwrap();
    assert_eq!(archived.entries, data.rows() as u64);
    bencher.counter(ItemsCount::new(data.rows())).with_inputs(log).bench_local_values(|store| {
        store.checkpoint().unwrap();
        store
    });
}

#[divan::bench(sample_count = 15, sample_size = 1)]
fn compress(bencher: Bencher) {
    let data = Data::read();
    let exact = || {
        let (store, entries) = in_memory();
        data.put_all(&store, &entries);
        store.checkpoint().unwrap();
        store
    };
    let packed = |store: &Store| {
        store.compress_with(Policy::Paper).unwrap();
    };
    let store = exact();
    packed(&store);
    assert_packed(&store, data.rows());
    bencher.counter(ItemsCount::new(data.rows())).with_inputs(exact).bench_local_values(|store| {
        packed(&store);
        store
    });
}

/// To the first answer.
#[divan::bench(sample_count = 50, sample_size = 1)]
fn open(bencher: Bencher) {
    let data = Data::read();
    let dir = on_disk(&data);
    let query = &data.queries[..DIM];
    bencher.bench_local(|| {
        let (store, entries) = opened(dir.path());
        let hits = entries.search_ids(asked(query, Exactness::default())).unwrap();
        assert_eq!(hits.len(), K);
        Closing(Some(store))
    });
}

#[divan::bench]
fn get(bencher: Bencher) {
    let data = Data::read();
    let dir = on_disk(&data);
    let (store, entries) = opened(dir.path());
    let all = 0..data.rows();
    for n in all.clone() {
        assert_eq!(entries.peek(n.to_string()).unwrap().unwrap().text(), Some(&*data.texts[n]));
    }
    let mut number = all.cycle();
    bencher
        .with_inputs(|| number.next().unwrap_or_default().to_string())
        .bench_local_values(|key| entries.get(key).unwrap());
    store.close().unwrap();
}

#[divan::bench(args = ["codes 0.95", "codes 0.99", "0.95", "0.99", "exact"])]
fn search(bencher: Bencher, wanted: &str) {
    let share = wanted.trim_start_matches("codes ").parse::<f32>();
    let (exactness, recall_min) = match (wanted.starts_with("codes"), share) {
        (_, Err(_)) => (Exactness::Exact, 1.0),
        (true, Ok(share)) => (Exactness::Codes(share), f64::from(share)),
        (false, Ok(share)) => (Exactness::Target(share), f64::from(share)),
    };
    let data = Data::read();
    let dir = on_disk(&data);
    let (store, entries) = opened(dir.path());
    let mut found = 0;
    for (query, truth) in data.queries.chunks_exact(DIM).zip(data.truth.chunks_exact(K)) {
        let hits = entries.search_ids(asked(query, exactness)).unwrap();
        found += hits.iter().filter(|hit| truth.contains(&hit.id)).count();
    }
    let recall = found as f64 / data.truth.len() as f64;
    assert!(recall >= recall_min, "recall {recall} is below {recall_min}");
    let mut queries = data.queries.chunks_exact(DIM).cycle();
    bencher
        .with_inputs(|| asked(queries.next().unwrap_or_default(), exactness))
        .bench_local_values(|query| entries.search_ids(query).unwrap());
    store.close().unwrap();
}

/// A search counts no access: what is asked changes nothing for the next.
fn asked(query: &[f32], exactness: Exactness) -> Query {
    Query::vector(query).k(K).exactness(exactness).count_access(CountAccess::None)
}

fn options() -> Options {
    Options { background: false, budget_bytes: Some(BUDGET_BYTES), ..Options::default() }
}

fn in_memory() -> (Store, Collection) {
    let disk = Arc::new(MemoryDisk::new());
    let store = Store::builder("memory").disk(disk).options(options()).open().unwrap();
    let entries = store.collection(NAME).unwrap();
    (store, entries)
}

/// A folder with a store of all passages, packed as `Policy::Paper` packs, and closed.
fn on_disk(data: &Data) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (store, entries) = opened(dir.path());
    data.put_all(&store, &entries);
    store.compress_with(Policy::Paper).unwrap();
    assert_packed(&store, data.rows());
    store.close().unwrap();
    dir
}

fn opened(dir: &Path) -> (Store, Collection) {
    let store = Store::builder(dir.join("store")).options(options()).open().unwrap();
    let entries = store.collection(NAME).unwrap();
    (store, entries)
}

/// A fifth is protected; all others are packed.
fn assert_packed(store: &Store, rows: usize) {
    let tiers = store.stats().unwrap().tiers;
    let warm = tiers.iter().find(|tier| tier.tier == Tier::Warm).map_or(0, |tier| tier.entries);
    assert!(warm >= rows as u64 / 2, "{warm} of {rows} entries are packed");
}

/// A store that is closed when the time has been taken.
struct Closing(Option<Store>);

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(store) = self.0.take() {
            store.close().unwrap();
        }
    }
}

/// Passages, queries, and the ids of their ten nearest where passage `n` is put as the `n`-th.
struct Data {
    texts: Vec<String>,
    vectors: Vec<f32>,
    queries: Vec<f32>,
    truth: Vec<EntryId>,
}

impl Data {
    fn read() -> Data {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        // Files of version 1.0 with a header of 128 bytes, as their page says.
        let body = |name: &str| std::fs::read(folder.join(name)).unwrap().split_off(128);
        let halves = |name: &str| -> Vec<f32> {
            let pairs = body(name);
            pairs.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()
        };
        let truth = body("truth.i32.npy");
        let rows = truth.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b));
        Data {
            texts: std::fs::read_to_string(folder.join("passages.txt"))
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect(),
            vectors: halves("passages.f16.npy"),
            queries: halves("queries.f16.npy"),
            truth: rows.map(|row| EntryId(row as u64 + 1)).collect(),
        }
    }

    fn rows(&self) -> usize {
        self.texts.len()
    }

    /// The `n`-th passage, beyond the last from the first on.
    fn draft(&self, n: usize) -> Draft {
        let n = n % self.rows();
        Draft::text(self.texts[n].as_str()).vector(&self.vectors[n * DIM..][..DIM])
    }

    fn batch(&self, entries: &Collection, numbers: std::ops::Range<usize>) -> Batch {
        numbers.fold(Batch::new(), |batch, n| batch.put(entries, n.to_string(), self.draft(n)))
    }

    fn put_all(&self, store: &Store, entries: &Collection) {
        for first in (0..self.rows()).step_by(BATCH) {
            let numbers = first..self.rows().min(first + BATCH);
            store.write(self.batch(entries, numbers)).unwrap();
        }
    }
}
