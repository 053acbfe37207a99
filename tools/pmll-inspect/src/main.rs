//! `pmll-inspect`: a look into a store, without touching it.
//!
//! `overview`, `entries` and `entry` open the store read-only; the others read its files one by one,
//! so that they show a store that does not open, and most of one that another process has open. The
//! identity that the files of a store share is read from any of them when `store.toml` is damaged.
//! It writes nothing anywhere.

mod entries;
mod files;
mod overview;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind as Usage;
use clap::{Args, Parser, Subcommand};
use pmll::{Options, Store};
use pmll_cli::output::{Failure, Outcome, Voice, code};

const AFTER: &str = "\
Examples:
  pmll-inspect memory
  pmll-inspect memory entries --sort -score --where 'tier=L2' --limit 20
  pmll-inspect memory entry notes n1
  pmll-inspect memory archive --deep
  pmll-inspect memory entries --sort -size --limit 5
  pmll-inspect memory wal --json | jq '.files[-1].facts'

Exit codes are those of pmll: 0 done, 1 no such store or entry, 2 wrong command line, 3 invalid value,
4 in use (only where the files alone do not say), 5 damaged, 6 the operating system refused, 7 another
version.";

/// Looks into a store: tiers and scores, and each kind of file, whole or damaged. Writes nothing
#[derive(Parser, Debug)]
#[command(name = "pmll-inspect", version, about, after_help = AFTER)]
struct Cli {
    /// Directory of the store
    #[arg(value_name = "DIR", env = "PMLL_STORE")]
    dir: PathBuf,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    view: Option<View>,
}

#[derive(Subcommand, Debug)]
enum View {
    /// Tiers, fidelity, scores (what is shown without a command)
    Overview,
    /// Entries with their scores
    Entries(entries::EntriesArgs),
    /// One entry: what it is, and why it stands where it stands
    Entry(entries::EntryArgs),
    /// The log, file by file, and what a replay finds
    Wal,
    /// Level 1, block by block
    Arena,
    /// Level 2, segment by segment
    Archive(ArchiveArgs),
    /// Access counts and hot ids, file by file
    Columns,
    /// The index
    Catalog,
}

#[derive(Args, Debug)]
struct ArchiveArgs {
    /// Read and check every byte
    #[arg(long)]
    deep: bool,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Fails only when stdout or stderr is gone.
            let _ = error.print();
            let help = matches!(error.kind(), Usage::DisplayHelp | Usage::DisplayVersion);
            return ExitCode::from(if help { 0 } else { code::USAGE });
        }
    };
    let voice = Voice { json: cli.json, quiet: false };
    match run(&cli, voice) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(voice.json),
    }
}

fn run(cli: &Cli, voice: Voice) -> Outcome {
    let dir = &cli.dir;
    match cli.view.as_ref().unwrap_or(&View::Overview) {
        View::Overview => overview::run(dir, voice),
        View::Entries(args) => entries::list(&open(dir)?, args, voice),
        View::Entry(args) => entries::one(&open(dir)?, args, voice),
        View::Wal => files::show(dir, files::Kind::Wal, voice),
        View::Arena => files::show(dir, files::Kind::Arena, voice),
        View::Archive(args) => files::show(dir, files::Kind::Archive { deep: args.deep }, voice),
        View::Columns => files::show(dir, files::Kind::Columns, voice),
        View::Catalog => files::show(dir, files::Kind::Catalog, voice),
    }
}

/// Opens read-only, and without a thread.
fn open(dir: &PathBuf) -> Result<Store, Failure> {
    let options = Options { read_only: true, background: false, ..Options::default() };
    Store::builder(dir).options(options).open().map_err(|error| {
        let hint = "wal, archive and arena show the files without opening the store";
        match error.kind() {
            pmll::ErrorKind::NotFound => Failure::from(error),
            _ => Failure::from(error).hint(hint),
        }
    })
}
