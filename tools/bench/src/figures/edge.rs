//! A session as a small device has it: little memory, page cache included, and syncs of 10 ms.
//!
//! 1. The command makes a memory control group below its own, with a limit of the budget and 48 MiB (`--beside`), and
//!    starts itself in it. Where it may not, it prints a line and ends.
//! 2. Turns of LoCoMo are put one by one, durable. After every third a question is asked, and what it
//!    finds first is touched.
//! 3. Passages of WikiText are put in durable batches, one every 16th of them alone; after every fourth
//!    write a query is asked.
//! 4. The store is closed and opened again, and its entries are counted, and a sample is read back.
//!
//! Syncs are made slow by [`crate::disk`]. After each call the counted bytes are compared with the budget.
//! Data is read a row at a time: the bench's own memory lies in the same group.

use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;
use pmll::{Batch, Collection, Draft, Options, Query, Store};
use pmll_cli::lines::{Line, Lines};
use pmll_cli::npy::NpyReader;

use super::{Figures, MIB, folder, has_data};
use crate::disk::Watched;
use crate::times::percentile;
use crate::{Outcome, data, machine};

const SEARCH_MS_MAX: f64 = 5.0;
/// Passages of a durable batch, and every so many writes one passage alone.
const BATCH: usize = 32;
const ALONE_EVERY: usize = 16;

#[derive(Args, Clone)]
pub struct EdgeArgs {
    /// Folder of turns, questions, passages and queries
    #[arg(long, value_name = "DIR", env = "PMLL_DATA", default_value = "../shared/data")]
    data: PathBuf,
    /// Memory budget of the store
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    budget: u64,
    /// What the group may take beside the budget
    #[arg(long, value_name = "BYTES", default_value_t = 48 << 20)]
    beside: u64,
    /// How long a sync takes, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10)]
    sync: u64,
    /// Passages after the turns
    #[arg(long, value_name = "N", default_value_t = 64_287)]
    rows: usize,
    /// Where the store lies; else in a temporary folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The group that was made for this process
    #[arg(long, value_name = "DIR", hide = true)]
    group: Option<PathBuf>,
}

pub fn run(args: &EdgeArgs) -> Outcome<()> {
    if !has_data(&args.data) {
        return Ok(());
    }
    if let Some(group) = &args.group {
        return inside(args, group);
    }
    let limit = args.budget + args.beside;
    let Some(group) = Group::make(limit) else {
        println!("skipped: no memory control group can be made here");
        return Ok(());
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("edge").arg("--group").arg(&group.path).arg("--data").arg(&args.data);
    command.arg("--budget").arg(args.budget.to_string()).arg("--sync").arg(args.sync.to_string());
    command.arg("--rows").arg(args.rows.to_string());
    if let Some(keep) = &args.keep {
        command.arg("--keep").arg(keep);
    }
    let status = command.status()?;
    println!("| completes | {status} | exit status: 0 | |");
    println!(
        "| most bytes of the group, MiB of {:.0} | {} | | |",
        limit as f64 / MIB,
        group.peak()
    );
    if status.success() { Ok(()) } else { Err("the session did not complete".into()) }
}

/// A memory control group, of either version of them, removed when it is dropped.
struct Group {
    path: PathBuf,
    peak_file: &'static str,
}

impl Group {
    fn make(limit: u64) -> Option<Group> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = fs::read_to_string("/proc/mounts").ok()?;
        let leaf = format!("pmll-bench-{}", std::process::id());
        let of = |kind: &str, has: &dyn Fn(&str) -> bool, line: &dyn Fn(&str) -> Option<String>| {
            let mount = mounts.lines().find_map(|mount| {
                let words: Vec<&str> = mount.split(' ').collect();
                let [_, at, found, options, ..] = words.as_slice() else { return None };
                (*found == kind && has(options)).then(|| PathBuf::from(at))
            })?;
            let below = own.lines().find_map(line)?;
            Some(mount.join(below.trim_start_matches('/')).join(&leaf))
        };
        let has_memory = |options: &str| options.split(',').any(|option| option == "memory");
        let of_memory = |line: &str| {
            let (_, rest) = line.split_once(':')?;
            let (names, path) = rest.split_once(':')?;
            has_memory(names).then(|| path.to_owned())
        };
        let of_both = |line: &str| line.strip_prefix("0::").map(str::to_owned);
        let first = of("cgroup", &has_memory, &of_memory);
        let second = of("cgroup2", &|_| true, &of_both);
        let first = first.map(|path| (path, "memory.limit_in_bytes", "memory.max_usage_in_bytes"));
        let second = second.map(|path| (path, "memory.max", "memory.peak"));
        [first, second].into_iter().flatten().find_map(|(path, limit_file, peak_file)| {
            fs::create_dir(&path).ok()?;
            let group = Group { path, peak_file };
            // A folder of a hierarchy without this controller lacks the file: the group goes again.
            fs::OpenOptions::new().write(true).open(group.path.join(limit_file)).ok()?;
            fs::write(group.path.join(limit_file), limit.to_string()).ok()?;
            Some(group)
        })
    }

    fn peak(&self) -> String {
        let text = fs::read_to_string(self.path.join(self.peak_file)).unwrap_or_default();
        text.trim().parse::<f64>().map_or("unknown".to_owned(), |peak| format!("{:.1}", peak / MIB))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Only an empty group can be removed; one that is left holds nothing.
        drop(fs::remove_dir(&self.path));
    }
}

fn inside(args: &EdgeArgs, group: &Path) -> Outcome<()> {
    fs::write(group.join("cgroup.procs"), std::process::id().to_string())?;
    let dir = folder(args.keep.as_ref())?;
    let path = dir.path().join("store");
    let figures = Figures::begin("edge", dir.path());
    let disk = Watched::create(&path)?;
    let options = Options { budget_bytes: Some(args.budget), ..Options::default() };
    let store = Store::builder(&path).options(options.clone()).disk(disk.clone()).open()?;
    disk.slow_syncs(Duration::from_millis(args.sync));
    let mut session = Session { store: &store, budget: args.budget, ..Session::of(&store) };
    session.turns(&args.data)?;
    session.passages(&args.data, args.rows)?;

    let syncs_ms = 2.0 * args.sync as f64;
    let Session { alone_ms, batches_ms, searches_ms, counted_max, puts, sample, .. } = session;
    let missed = session.missed_bytes as f64 / 1024.0 / searches_ms.len().max(1) as f64;
    figures.plain("KiB read from disk during a search", missed);
    for (what, mut times, bar) in [
        ("put", alone_ms, syncs_ms),
        ("put of a batch", batches_ms, syncs_ms),
        ("search", searches_ms, SEARCH_MS_MAX),
    ] {
        times.sort_by(f64::total_cmp);
        figures.note(&format!("{what}: calls"), &times.len().to_string());
        figures.plain(&format!("{what}: p50 ms"), percentile(&times, 50));
        figures.at_most(&format!("{what}: p99 ms"), percentile(&times, 99), bar);
        figures.plain(&format!("{what}: longest ms"), times.last().copied().unwrap_or_default());
    }
    figures.at_most("most counted MiB", counted_max as f64 / MIB, args.budget as f64 / MIB);
    figures.plain("MiB resident at the end", machine::resident_bytes() as f64 / MIB);
    let stats = store.stats()?;
    let [hot, warm, cold] = stats.tiers.map(|tier| tier.entries);
    figures.note("entries", &format!("hot {hot}, warm {warm}, cold {cold}"));
    stats.warnings.iter().for_each(|warning| figures.note("warning", warning));
    store.close()?;

    disk.slow_syncs(Duration::ZERO);
    let store = Store::builder(&path).options(options).open()?;
    let count =
        store.collection("turns")?.count(None)? + store.collection("passages")?.count(None)?;
    if count != puts {
        return Err(format!("{puts} entries were put, {count} are there").into());
    }
    for (collection, key, text) in sample {
        let entry = store.collection(collection)?.peek(&key)?.ok_or("an entry is not there")?;
        if entry.text() != Some(text.as_str()) {
            return Err(format!("{key} came back as something else").into());
        }
    }
    Ok(store.close()?)
}

struct Session<'a> {
    store: &'a Store,
    budget: u64,
    alone_ms: Vec<f64>,
    batches_ms: Vec<f64>,
    searches_ms: Vec<f64>,
    /// Bytes that searches had to wait for, or that others read meanwhile.
    missed_bytes: u64,
    counted_max: u64,
    puts: u64,
    /// Collection, key and text of entries to be read back.
    sample: Vec<(&'static str, String, String)>,
}

impl<'a> Session<'a> {
    fn of(store: &'a Store) -> Session<'a> {
        let (alone_ms, batches_ms, searches_ms) = (Vec::new(), Vec::new(), Vec::new());
        let (missed_bytes, counted_max, puts, sample) = (0, 0, 0, Vec::new());
        Session {
            store,
            budget: 0,
            alone_ms,
            batches_ms,
            searches_ms,
            missed_bytes,
            counted_max,
            puts,
            sample,
        }
    }

    fn turns(&mut self, data: &Path) -> Outcome<()> {
        let collection = self.store.collection("turns")?;
        let mut vectors = NpyReader::open(&data.join("locomo_turns.f32.npy"))?;
        let mut questions = NpyReader::open(&data.join("locomo_questions.f16.npy"))?;
        let file = std::io::BufReader::new(fs::File::open(data.join("locomo_turns.jsonl"))?);
        for (row, line) in file.lines().enumerate() {
            let turn: serde_json::Value = serde_json::from_str(&line?)?;
            let word = |name: &str| turn.get(name).and_then(|v| v.as_str()).unwrap_or_default();
            let (key, text) = (format!("{}/{}", word("conv"), word("dia_id")), word("text"));
            let draft = Draft::text(text).vector(vectors.row(row as u64)?.as_slice());
            let draft = draft.attr("conv", word("conv")).attr("speaker", word("speaker"));
            if row % 97 == 0 {
                self.sample.push(("turns", key.clone(), text.to_owned()));
            }
            self.alone_ms.push(timed(|| Ok(collection.put(&key, draft).map(drop)?))?);
            self.puts += 1;
            if row % 3 == 2 {
                let question = questions.row(row as u64 / 3 % questions.rows())?;
                self.search(&collection, &question, true)?;
            }
            self.look()?;
        }
        Ok(())
    }

    fn passages(&mut self, data: &Path, rows: usize) -> Outcome<()> {
        let collection = self.store.collection("passages")?;
        let mut vectors = NpyReader::open(&data.join("wikitext_passages.f16.npy"))?;
        let queries = NpyReader::open(&data.join("wikitext_queries.f16.npy"));
        let mut queries = queries?;
        let mut texts = Lines::open(&data.join("wikitext_passages.txt.zst"))?;
        let rows = rows.min(vectors.rows() as usize);
        let (mut row, mut nth) = (0, 0);
        while row < rows {
            let length = if nth % ALONE_EVERY == 0 { 1 } else { BATCH.min(rows - row) };
            let mut batch = Batch::new();
            for row in row..row + length {
                let Some((_, Line::Text(text))) = texts.next_row()? else {
                    return Err("there are fewer texts than vectors".into());
                };
                let (key, text) = (format!("p{row}"), String::from_utf8(text)?);
                let draft = Draft::text(text.as_str()).vector(vectors.row(row as u64)?.as_slice());
                batch = batch.put(&collection, &key, draft);
                if row % 997 == 0 {
                    self.sample.push(("passages", key, text));
                }
            }
            let took = timed(|| Ok(self.store.write(batch).map(drop)?))?;
            if length == 1 {
                self.alone_ms.push(took)
            } else {
                self.batches_ms.push(took)
            }
            self.puts += length as u64;
            row += length;
            if nth % 4 == 3 {
                let query = queries.row(nth as u64 / 4 % queries.rows())?;
                self.search(&collection, &query, false)?;
            }
            self.look()?;
            nth += 1;
        }
        Ok(())
    }

    fn search(&mut self, collection: &Collection, vector: &[f32], touch: bool) -> Outcome<()> {
        let missed = machine::missed_bytes();
        let before = Instant::now();
        let hits = collection.search(Query::vector(vector).k(data::K))?;
        self.searches_ms.push(before.elapsed().as_secs_f64() * 1e3);
        self.missed_bytes += machine::missed_bytes() - missed;
        let expected = collection.count(None)?.min(data::K as u64);
        if hits.len() as u64 != expected {
            return Err(format!("{} hits, {expected} were to be found", hits.len()).into());
        }
        if touch && let Some(best) = hits.iter().next() {
            collection.touch(best.entry.key.as_bytes())?;
        }
        Ok(())
    }

    /// Whether the budget holds right now.
    fn look(&mut self) -> Outcome<()> {
        let counted = self.store.counted_bytes()?;
        self.counted_max = self.counted_max.max(counted);
        if counted > self.budget {
            eprintln!(
                "{counted} bytes are counted after {} entries, more than the budget",
                self.puts
            );
        }
        Ok(())
    }
}

fn timed(call: impl FnOnce() -> Outcome<()>) -> Outcome<f64> {
    let before = Instant::now();
    call()?;
    Ok(before.elapsed().as_secs_f64() * 1e3)
}
