//! Durable single puts beside the least a disk can do: a preallocated write and fdatasync.
//!
//! `cargo bench --bench durable_put [-- DIR]`. Both sides write records of 1,736 bytes (a vector of
//! 384 values and a payload of 200 bytes) on the same file system, in turn (A B A B ..), so that a
//! machine whose speed drifts drifts for both. The store's answer is checked before a time is
//! printed: every put that returned is counted again after a reopen.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pmll::{Draft, Store};

const ROUNDS: usize = 21;
const ROUND: Duration = Duration::from_millis(500);
const RECORD_BYTES: usize = 1736;
const FILE_BYTES: usize = 64 << 20;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let base = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let base = base.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").to_owned());
    println!("durable puts of {RECORD_BYTES} bytes in {base}; medians of {ROUNDS} rounds in turn");
    for threads in [1, 8] {
        let (mut raw, mut store, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let dir = tempfile::tempdir_in(&base)?;
            let a = raw_round(dir.path(), threads)?;
            let b = store_round(dir.path(), threads, round as u64)?;
            ratios.push(b.rate / a.rate);
            raw.push(a);
            store.push(b);
        }
        println!(
            "{threads} thread(s): raw {}   store {}   ratio store/raw {:.3} (min {:.3}, max {:.3})",
            summary(&mut raw),
            summary(&mut store),
            median(&mut ratios),
            ratios[0],
            ratios[ratios.len() - 1],
        );
    }
    Ok(())
}

struct Round {
    rate: f64,
    p50_us: f64,
    p99_us: f64,
}

fn summary(rounds: &mut [Round]) -> String {
    let of = |f: fn(&Round) -> f64| median(&mut rounds.iter().map(f).collect::<Vec<_>>());
    let (rate, p50, p99) = (of(|r| r.rate), of(|r| r.p50_us), of(|r| r.p99_us));
    format!("{rate:.0}/s (p50 {p50:.0} us, p99 {p99:.0} us)")
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs `call` on every thread until the time is up; `call` gets thread and turn.
fn timed(threads: usize, call: impl Fn(usize, u64) -> Outcome<()> + Sync) -> Outcome<Round> {
    let done = AtomicU64::new(0);
    let start = Instant::now();
    let mut times: Vec<f64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (call, done) = (&call, &done);
                scope.spawn(move || {
                    let mut times = Vec::new();
                    let mut turn = 0;
                    while start.elapsed() < ROUND {
                        let before = Instant::now();
                        call(thread, turn).map_err(|e| e.to_string())?;
                        times.push(before.elapsed().as_secs_f64() * 1e6);
                        done.fetch_add(1, Ordering::Relaxed);
                        turn += 1;
                    }
                    Ok::<_, String>(times)
                })
            })
            .collect();
        let joined =
            workers.into_iter().map(|w| w.join().map_err(|_| "a worker panicked".to_owned()));
        joined.collect::<Result<Result<Vec<_>, _>, _>>().and_then(|all| all).map(|all| all.concat())
    })?;
    let rate = done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    Ok(Round { rate, p50_us: at(0.5), p99_us: at(0.99) })
}

/// A file of written zeros, overwritten from front to back; all threads share one lock, as the
/// disk would have them do without a log that groups.
fn raw_round(dir: &Path, threads: usize) -> Outcome<Round> {
    let file = File::create(dir.join("raw"))?;
    for at in (0..FILE_BYTES).step_by(1 << 20) {
        file.write_all_at(&vec![0; 1 << 20], at as u64)?;
    }
    file.sync_all()?;
    let record = vec![0xa5; RECORD_BYTES];
    let next = std::sync::Mutex::new(0);
    timed(threads, |_, _| {
        let mut at = next.lock().map_err(|_| "poisoned")?;
        file.write_all_at(&record, *at)?;
        file.sync_data()?;
        *at = (*at + RECORD_BYTES as u64) % (FILE_BYTES - RECORD_BYTES) as u64;
        Ok(())
    })
}

fn store_round(dir: &Path, threads: usize, seed: u64) -> Outcome<Round> {
    let path = dir.join("store");
    let store = Store::open(&path)?;
    let entries = store.collection("bench")?;
    // The first put settles the dimension and makes the log's first segment.
    entries.put("first", draft(0))?;
    let count = AtomicU64::new(1);
    let round = timed(threads, |thread, turn| {
        entries.put(format!("{seed}-{thread}-{turn}"), draft(turn))?;
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    })?;
    drop(entries);
    store.close()?;
    let found = Store::open(&path)?.collection("bench")?.count(None)?;
    let put = count.load(Ordering::Relaxed);
    if found != put {
        return Err(format!("{put} puts returned, {found} entries are there").into());
    }
    Ok(round)
}

fn draft(turn: u64) -> Draft {
    // Any values do: nothing on the way of a put depends on them.
    let vector: Vec<f32> = (0..384).map(|i| ((turn + i) % 997) as f32 / 997.0 - 0.5).collect();
    Draft::bytes(vec![b'x'; 200]).vector(vector)
}
