//! `delete`: entries by key, or all that match a condition.
//!
//! By condition it scans and deletes in batches. As a condition can match more than was meant,
//! `--dry-run` shows it first, and without `--yes` it asks on a terminal and refuses elsewhere.

use std::ffi::OsString;
use std::io::{BufRead, IsTerminal, Write};

use clap::Args;
use pmll::{Batch, Collection, Scan, Store};
use serde_json::json;

use crate::open::{Choice, Context, Place};
use crate::output::{Failure, Outcome, one_line};

/// Entries removed by one batch.
const BATCH: usize = 500;
/// Keys that a dry run shows.
const SHOWN: usize = 1000;

/// Delete entries by key, or all that match
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll delete memory notes n1 n2
  pmll delete memory notes --where 'conv=c26' --dry-run
  pmll delete memory notes --where '_at<2026-01-01' --yes")]
pub struct DeleteArgs {
    #[command(flatten)]
    place: Place,
    /// Keys of the entries
    #[arg(value_name = "KEY")]
    keys: Vec<OsString>,
    #[command(flatten)]
    choice: Choice,
    /// Show what would go; write nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub fn run(args: &DeleteArgs, context: &Context) -> Outcome {
    match (args.keys.is_empty(), args.choice.is_given()) {
        (true, false) => Err(Failure::usage("name keys, or a condition with --where")),
        (false, true) => Err(Failure::usage("give keys or a condition, not both")),
        (false, false) => by_key(args, context),
        (true, true) => by_condition(args, context),
    }
}

fn by_key(args: &DeleteArgs, context: &Context) -> Outcome {
    let mut missing = Vec::new();
    let mut deleted = 0u64;
    let mut count = |found: bool, key: &OsString| {
        deleted += u64::from(found);
        if !found {
            missing.push(key.to_string_lossy().into_owned());
        }
    };
    if args.dry_run {
        let collection = args.place.read(context)?;
        for key in &args.keys {
            count(collection.contains(key.as_encoded_bytes())?, key);
        }
    } else {
        let (store, collection) = args.place.write(context)?;
        for key in &args.keys {
            count(collection.delete(key.as_encoded_bytes())?, key);
        }
        store.close()?;
    }
    let object = json!({ "deleted": deleted, "missing": missing, "dry_run": args.dry_run });
    context.voice.say(&object, || told(deleted, args.dry_run))?;
    match missing.first() {
        None => Ok(()),
        Some(key) => Err(Failure::not_found(format!(
            "{} of {} keys have no entry in {}, such as {:?}",
            missing.len(),
            args.keys.len(),
            args.place.name,
            one_line(key, 200)
        ))),
    }
}

fn told(count: u64, dry_run: bool) -> String {
    let verb = if dry_run { "would delete" } else { "deleted" };
    format!("{verb} {count} {}", if count == 1 { "entry" } else { "entries" })
}

fn by_condition(args: &DeleteArgs, context: &Context) -> Outcome {
    let Some(filter) = args.choice.filter()? else {
        return Err(Failure::usage("name keys, or a condition with --where"));
    };
    let scan = Scan::new().filter(filter.clone()).with_payload(false).limit(BATCH);
    if args.dry_run {
        let collection = args.place.read(context)?;
        let count = collection.count(Some(&filter))?;
        let keys: Vec<String> = first_keys(&collection, scan)?;
        let object = json!({
            "deleted": count,
            "missing": [],
            "dry_run": true,
            "keys": keys,
            "keys_complete": keys.len() as u64 == count,
        });
        return context.voice.say(&object, || {
            let list: String = keys.iter().map(|k| format!("  {}\n", one_line(k, 200))).collect();
            format!("{}\n{list}", told(count, true))
        });
    }
    if !args.yes {
        let collection = args.place.read(context)?;
        let question = told(collection.count(Some(&filter))?, true);
        drop(collection);
        confirm(&format!("{question} of {}. Go on?", args.place.name))?;
    }
    let (store, collection) = args.place.write(context)?;
    let deleted = sweep(&store, &collection, scan, context)?;
    store.close()?;
    let object = json!({ "deleted": deleted, "missing": [], "dry_run": false });
    context.voice.say(&object, || told(deleted, false))
}

fn first_keys(collection: &Collection, scan: Scan) -> Result<Vec<String>, Failure> {
    let mut keys = Vec::new();
    crate::open::for_each(collection, scan, |entry| {
        keys.push(crate::render::path(&entry));
        Ok(keys.len() < SHOWN)
    })?;
    Ok(keys)
}

/// Deletes page by page; what is deleted is gone from the next page by itself.
fn sweep(
    store: &Store,
    collection: &Collection,
    scan: Scan,
    context: &Context,
) -> Result<u64, Failure> {
    let bar = context.voice.bar(None, "deleting");
    let mut deleted = 0u64;
    loop {
        let page = collection.scan(scan.clone())?;
        let mut batch = Batch::new();
        for entry in &page.entries {
            let place = collection.in_namespace(entry.namespace.clone());
            batch = batch.delete(&place, entry.key.as_bytes());
        }
        if batch.is_empty() {
            return Ok(deleted);
        }
        let removed = store.write(batch)?.iter().filter(|r| r.removed).count() as u64;
        deleted += removed;
        bar.set_position(deleted);
        if removed == 0 {
            return Err(Failure::bug("a scan found entries that a delete did not"));
        }
    }
}

/// Asks on a terminal; elsewhere nobody can answer.
pub fn confirm(question: &str) -> Outcome {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failure::usage(format!("{question} Nobody is there to answer"))
            .hint("--yes goes ahead, --dry-run only shows"));
    }
    let _ = write!(std::io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|e| Failure::io("read the answer", &e))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::interrupted("nothing was done"))
}
