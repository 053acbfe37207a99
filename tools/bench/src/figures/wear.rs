//! What a byte that is put costs the disk in its whole life.
//!
//! 1. Passages with texts are put under keys in no order, durable, in batches of `--batch` (1 is the
//!    worst case: each put has a frame and a sync of its own). The background thread archives and
//!    compresses meanwhile, under the budget.
//! 2. A last run of the compressor, then the store is closed.
//! 3. What was written to each kind of file, as the disk saw it, is divided by the bytes of vectors
//!    and texts. Zeros are counted apart: they are there so that a put overwrites blocks that exist.
//!
//! Checked: the store's own count of written bytes is the disk's up to what closing adds, the kernel's
//! count of bytes given to writing calls agrees, and a sample of the entries is read back after a reopen.

use std::path::PathBuf;

use clap::Args;
use pmll::{Batch, Draft, Options, Store};

use super::{Figures, MIB, folder, has_data};
use crate::disk::{Watched, Writes};
use crate::{Outcome, data, machine};

const WEAR_MAX: f64 = 2.6;
const WEAR_WITH_ZEROS_MAX: f64 = 3.4;
const COLLECTION: &str = "passages";
/// How far the counts of engine, disk and kernel may differ.
const SLACK: f64 = 0.02;
/// One entry in so many is read back.
const SAMPLE: usize = 97;

#[derive(Args, Clone)]
pub struct WearArgs {
    /// Folder of the passages
    #[arg(long, value_name = "DIR", env = "PMLL_DATA", default_value = "../shared/data")]
    data: PathBuf,
    /// Entries
    #[arg(long, value_name = "N", default_value_t = 64_287)]
    rows: usize,
    /// Entries of one durable batch
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: usize,
    /// Open with this budget; else with the default
    #[arg(long, value_name = "BYTES")]
    budget: Option<u64>,
    /// Where the store lies; else in a temporary folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

pub fn run(args: &WearArgs) -> Outcome<()> {
    if !has_data(&args.data) {
        return Ok(());
    }
    let (vectors, texts) =
        (data::passages(&args.data, args.rows)?, data::texts(&args.data, args.rows)?);
    let rows: Vec<_> = vectors.iter().zip(&texts).enumerate().collect();
    let put_bytes: usize = rows.iter().map(|(_, (v, text))| v.len() * 4 + text.len()).sum();
    let dir = folder(args.keep.as_ref())?;
    let path = dir.path().join("store");
    let figures = Figures::begin("wear", dir.path());
    let disk = Watched::create(&path)?;
    let given_before = machine::written_bytes().0;
    let options = Options { budget_bytes: args.budget, ..Options::default() };
    let store = Store::builder(&path).options(options.clone()).disk(disk.clone()).open()?;
    let collection = store.collection(COLLECTION)?;
    for chunk in rows.chunks(args.batch.max(1)) {
        let mut batch = Batch::new();
        for (row, (vector, text)) in chunk {
            let draft = Draft::text(text.as_str()).vector(vector.as_slice());
            batch = batch.put(&collection, key(*row), draft);
        }
        store.write(batch)?;
    }
    store.compress()?;
    let stats = store.stats()?;
    drop(collection);
    store.close()?;
    let given = machine::written_bytes().0 - given_before;

    let writes = disk.writes();
    let sum = |of: fn(&Writes) -> u64| writes.values().map(of).sum::<u64>();
    let (bytes, zeros) = (sum(|w| w.bytes), sum(|w| w.zeros));
    agree("engine and disk", stats.written.total(), bytes + zeros)?;
    agree("kernel and disk", given, bytes + zeros)?;
    let share = |bytes: u64| bytes as f64 / put_bytes as f64;
    figures.plain("MiB of vectors and texts", put_bytes as f64 / MIB);
    for (kind, count) in &writes {
        let words = format!(
            "{:.3}, zeros {:.3}, set aside {:.3}; {} syncs",
            share(count.bytes),
            share(count.zeros),
            share(count.aside),
            count.syncs
        );
        figures.note(&format!("{kind}: bytes a byte put"), &words);
    }
    figures.at_most("bytes written a byte put, without zeros", share(bytes), WEAR_MAX);
    figures.at_most("with zeros", share(bytes + zeros), WEAR_WITH_ZEROS_MAX);
    figures.plain("with zeros and room set aside", share(bytes + zeros + sum(|w| w.aside)));
    figures.plain("bytes on disk a byte put, at the end", share(machine::disk_bytes(&path)?));
    let [hot, warm, cold] = stats.tiers.map(|tier| tier.entries);
    let words = format!(
        "hot {hot}, warm {warm}, cold {cold}; {} segments; runs {}, passes {}, moves {}; budget {:.0} MiB",
        stats.archive_segments,
        stats.compressor.runs,
        stats.compressor.passes,
        stats.compressor.moves,
        stats.budget_bytes as f64 / MIB
    );
    figures.note("entries, runs of the compressor", &words);

    let store = Store::builder(&path).options(options).open()?;
    let collection = store.collection(COLLECTION)?;
    for (row, (vector, text)) in rows.iter().step_by(SAMPLE) {
        let entry = collection.get(key(*row))?.ok_or("an entry is not there")?;
        if entry.text() != Some(text.as_str()) || entry.vector.as_ref() != Some(*vector) {
            return Err(format!("row {row} came back as something else").into());
        }
    }
    drop(collection);
    Ok(store.close()?)
}

/// A key that says nothing about the order of the puts.
fn key(row: usize) -> String {
    let mut mixed = (row as u64).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    format!("{:016x}", mixed ^ (mixed >> 27))
}

fn agree(who: &str, one: u64, other: u64) -> Outcome<()> {
    let apart = one.abs_diff(other) as f64;
    if apart > other as f64 * SLACK + MIB {
        return Err(format!("{who} count {one} and {other} written bytes").into());
    }
    Ok(())
}
