//! Many stores in one process, as an agent that keeps one for each of its subjects has them.
//!
//! 1. One store is opened, asked and closed first: what the process allocates once is no store's.
//! 2. The stores are made and stay open; threads, descriptors, resident bytes and blocks on disk are
//!    what came on top, a store.
//! 3. Nobody calls for a while. Nothing may be written and no thread may wake up; the waiting thread
//!    itself is not counted.
//! 4. The same with one entry each, which is read back from every store.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use pmll::{Draft, Options, Store};

use super::{Figures, MIB, folder};
use crate::{Outcome, machine};

const DESCRIPTORS_MAX: f64 = 12.0;
const RESIDENT_MIB_MAX: f64 = 2.0;
const DISK_MIB_MAX: f64 = 2.0;
const COLLECTION: &str = "notes";
/// Name of the thread that each store has.
const OWN_THREAD: &str = "pmll-background";

#[derive(Args, Clone)]
pub struct StoresArgs {
    /// How many stores
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// How long nobody calls, in seconds, empty and once more with an entry each
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    idle: u64,
    /// Open them with this budget each; else with the default
    #[arg(long, value_name = "BYTES")]
    budget: Option<u64>,
    /// Where the stores lie; else in a temporary folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// What a process has at one moment.
struct Moment {
    threads: Vec<String>,
    descriptors: u64,
    resident: u64,
}

impl Moment {
    fn now() -> Moment {
        Moment {
            threads: machine::threads(),
            descriptors: machine::descriptors(),
            resident: machine::resident_bytes(),
        }
    }
}

pub fn run(args: &StoresArgs) -> Outcome<()> {
    let dir = folder(args.keep.as_ref())?;
    let options = Options { budget_bytes: args.budget, ..Options::default() };
    let open = |name: &str| Store::builder(dir.path().join(name)).options(options.clone()).open();
    let first = open("first")?;
    first.collection(COLLECTION)?.put("a", Draft::text("a").vector([1.0, 0.0]))?;
    first.collection(COLLECTION)?.search(&[1.0, 0.0][..])?;
    first.close()?;
    std::fs::remove_dir_all(dir.path().join("first"))?;

    let figures = Figures::begin("stores", dir.path());
    let before = Moment::now();
    let stores =
        (0..args.count).map(|n| open(&format!("store-{n}"))).collect::<Result<Vec<Store>, _>>()?;
    let case = Case { args, figures: &figures, before: &before, dir: &dir };
    case.tell("empty", &stores)?;
    for store in &stores {
        store.collection(COLLECTION)?.put("a", Draft::text("hello").vector([1.0, 0.0]))?;
    }
    case.tell("1 entry", &stores)?;
    for store in &stores {
        let entry = store.collection(COLLECTION)?.get("a")?.ok_or("an entry is not there")?;
        if entry.text() != Some("hello") || store.stats()?.entries != 1 {
            return Err("a store answers something else than was put".into());
        }
    }
    stores.into_iter().try_for_each(Store::close)?;
    Ok(())
}

struct Case<'a> {
    args: &'a StoresArgs,
    figures: &'a Figures,
    before: &'a Moment,
    dir: &'a tempfile::TempDir,
}

impl Case<'_> {
    fn tell(&self, what: &str, stores: &[Store]) -> Outcome<()> {
        let (figures, before) = (self.figures, self.before);
        // What the last call left to the background threads is done by then.
        std::thread::sleep(Duration::from_secs(2));
        let now = Moment::now();
        let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / stores.len() as f64;
        let count = |moment: &Moment, own: bool| {
            moment.threads.iter().filter(|name| (*name == OWN_THREAD) == own).count() as u64
        };
        let own = each(count(&now, true), count(before, true));
        figures.at_most(&format!("{what}: threads a store"), own, 1.0);
        let shared = now.threads.iter().filter(|name| *name != OWN_THREAD);
        let shared: Vec<_> = shared.map(String::as_str).collect();
        figures.note(&format!("{what}: threads beside them"), &shared.join(", "));
        let descriptors = each(now.descriptors, before.descriptors);
        figures.at_most(&format!("{what}: descriptors a store"), descriptors, DESCRIPTORS_MAX);
        let resident = each(now.resident, before.resident) / MIB;
        figures.at_most(&format!("{what}: MiB resident a store"), resident, RESIDENT_MIB_MAX);
        let disk = each(machine::disk_bytes(self.dir.path())?, 0) / MIB;
        figures.at_most(&format!("{what}: MiB on disk a store"), disk, DISK_MIB_MAX);

        let (waits, written) = (machine::waits_of_others(), machine::written_bytes());
        std::thread::sleep(Duration::from_secs(self.args.idle));
        let (waits_then, written_then) = (machine::waits_of_others(), machine::written_bytes());
        let idle = |figure: &str| format!("{what}: {figure} in {} s, all stores", self.args.idle);
        figures.at_most(&idle("wake-ups"), (waits_then - waits) as f64, 0.0);
        figures.at_most(&idle("bytes given to write"), (written_then.0 - written.0) as f64, 0.0);
        figures.at_most(&idle("bytes owed to disk"), (written_then.1 - written.1) as f64, 0.0);
        Ok(())
    }
}
