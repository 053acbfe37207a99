//! `pmll-bench`: pmll beside what users would pick instead, on the same data in one run.
//!
//! `compare` is the command for people: it starts every subject of every part in a process of its
//! own, one after the other and round by round, and prints tables of medians. `run` is the command
//! it starts itself with, hidden from the help: one subject, one measurement, one line of JSON.
//! `stores`, `wear`, `passes`, `edge` and `busy` measure pmll alone against figures it is to keep to.
//!
//! Nothing here is part of the product, and nothing is downloaded.

mod compare;
mod data;
mod disk;
mod figures;
mod machine;
mod plan;
mod puts;
mod raw;
mod report;
#[cfg(feature = "rivals")]
mod rivals;
mod search;
mod store;
mod table;
mod times;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Parser, Subcommand};

use crate::plan::Part;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[derive(Parser)]
#[command(name = "pmll-bench", about = "pmll beside what users would pick instead", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures pmll and its rivals in turn and prints tables of medians
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(CompareArgs),
    /// Many empty stores in one process: threads, descriptors, memory, disk, and what idling costs
    Stores(figures::stores::StoresArgs),
    /// Bytes written for each byte put, by kind of file
    Wear(figures::wear::WearArgs),
    /// Rates of a compression run: entries planned, and bytes of f32 packed, a second
    Passes(figures::passes::PassesArgs),
    /// A session with little memory and slow syncs, in a control group
    Edge(figures::edge::EdgeArgs),
    /// Searches while the compressor runs without pause
    Busy(figures::busy::BusyArgs),
    /// One measurement of one subject, as a line of JSON
    #[command(hide = true)]
    Run(RunArgs),
}

const COMPARE_EXAMPLES: &str = "\
Examples:
  pmll-bench compare --data ../shared/data
  pmll-bench compare --parts search,open --rows 10000 --rounds 3
  pmll-bench compare --python venv/bin/python --keep bench-state --json rows.jsonl
  pmll-bench compare --parts puts --keep /mnt/disk/bench   # puts are as durable as that disk";

#[derive(Args, Clone)]
struct CompareArgs {
    /// Folder of the passages, queries and true neighbours
    #[arg(long, value_name = "DIR", env = "PMLL_DATA", default_value = "../shared/data")]
    data: PathBuf,
    /// What to measure
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "search,filter,puts,bulk,open"
    )]
    parts: Vec<Part>,
    /// Passages in the searched stores; bulk takes the largest
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "10000,64287")]
    rows: Vec<usize>,
    /// How often each subject is measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Write every single measurement there, a JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// An interpreter that has the packages of tools/bench/README.md; its rivals then take part
    #[arg(long, value_name = "PYTHON")]
    python: Option<PathBuf>,
    /// Where built indexes and stores stay for the next run; else a temporary folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

#[derive(Args, Clone)]
struct RunArgs {
    /// build, search, filter, puts, bulk or open
    work: String,
    subject: String,
    #[arg(long)]
    data: PathBuf,
    #[arg(long, default_value_t = 10_000)]
    rows: usize,
    /// Folder of built indexes and stores
    #[arg(long)]
    state: PathBuf,
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

fn main() -> ExitCode {
    let started = Instant::now();
    let done = match Cli::parse().command {
        Command::Compare(args) => compare::run(&args),
        Command::Stores(args) => figures::stores::run(&args),
        Command::Wear(args) => figures::wear::run(&args),
        Command::Passes(args) => figures::passes::run(&args),
        Command::Edge(args) => figures::edge::run(&args),
        Command::Busy(args) => figures::busy::run(&args),
        Command::Run(args) => run(&args, started),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &RunArgs, started: Instant) -> Outcome<()> {
    let report = match args.work.as_str() {
        "build" => return search::build(args),
        "search" => search::search(args)?,
        "filter" => search::filter(args)?,
        "open" => search::open(args, started)?,
        "puts" => puts::puts(args)?,
        "bulk" => puts::bulk(args)?,
        other => return Err(format!("{other}: no such work").into()),
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
