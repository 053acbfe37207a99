//! `pmll crash-test`: the project's crash suite as a command.
//!
//! 1. The simulator plays a fixed workload on a simulated disk, cuts it off at every call, builds the
//!    disks a crash may leave there, and opens each ([`pmll_torture::simulate`]).
//! 2. The kill loop starts this program again as a writer on a real directory, kills it, or lets it
//!    die at a call of the disk, and holds the store against what was acknowledged
//!    ([`pmll_torture::kill`]).
//!
//! It prints what was tried, the seed, and pass or fail. It never touches a store of the user: the
//! directory must be missing or empty.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use pmll_torture::kill::{KillOptions, KillReport, kill};
use pmll_torture::writer::{self, WriterArgs};
use pmll_torture::{SimulateOptions, SimulateReport, simulate};
use serde_json::json;

use crate::open::Context;
use crate::output::{Failure, Outcome, table};

/// Name of the hidden subcommand that is killed.
pub const WRITER_COMMAND: &str = "crash-test-writer";

/// Crash pmll in every way a machine may, and check what is left
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll crash-test
  pmll crash-test --effort 4 --rounds 1000
  pmll crash-test --effort 0 --rounds 200 --dir /mnt/disk/here --seed 7
  pmll crash-test --json

Effort 1 takes minutes; each more adds images at every call. Exit code 5: something acknowledged was
lost or wrong; the line says how to repeat it.")]
pub struct CrashTestArgs {
    /// Repeat the choices of this seed
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// How many simulated disks to build at each call, in multiples; 0 for none
    #[arg(long, value_name = "N", default_value_t = 1)]
    effort: u32,

    /// Look only at every n-th call of the simulated run
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,

    /// How many real processes to kill; 0 for none
    #[arg(long, value_name = "N", default_value_t = 100)]
    rounds: u64,

    /// Directory for the store of the killed processes (missing or empty) [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What the writing process is told.
#[derive(Args, Debug)]
pub struct WriterWords {
    words: Vec<OsString>,
}

/// The life that is killed.
pub fn run_writer(args: &WriterWords) -> Outcome {
    let args = WriterArgs::parse(&args.words).ok_or_else(|| Failure::usage("not for people"))?;
    match writer::run(&args)? {
        true => Ok(()),
        false => Err(Failure::corrupt("the store refused a step")),
    }
}

/// Everything, then the table.
pub fn run(args: &CrashTestArgs, context: &Context) -> Outcome {
    let seed = args.seed.unwrap_or_else(random_seed);
    let begun = Instant::now();
    let simulated = match args.effort {
        0 => None,
        _ => Some(simulated(args, seed, context)?),
    };
    let killed = match args.rounds {
        0 => None,
        _ => Some(killed(args, seed, context)?),
    };
    let violations: Vec<&String> = simulated
        .iter()
        .flat_map(|r| &r.violations)
        .chain(killed.iter().flat_map(|r| &r.violations))
        .collect();
    let passed = violations.is_empty();
    let object = json!({
        "passed": passed,
        "seed": seed,
        "effort": args.effort,
        "simulated": simulated.as_ref().map(|r| json!({
            "images": r.distinct,
            "crashed_again": r.nested,
            "lying_disk": r.lying,
            "calls": r.calls,
            "acts": r.acts,
        })),
        "killed": killed.as_ref().map(|r| json!({
            "rounds": r.rounds,
            "by_sigkill": r.killed,
            "at_a_disk_call": r.died,
            "acknowledged": r.acknowledged,
            "there_unacknowledged": r.unacknowledged,
            "entries_compared": r.compared,
        })),
        "violations": violations,
        "seconds": begun.elapsed().as_secs_f64(),
    });
    context.voice.say(&object, || {
        let mut rows = Vec::new();
        let mut row = |what: &str, count: u64| rows.push(vec![what.to_owned(), count.to_string()]);
        if let Some(r) = &simulated {
            row("calls of the simulated disk", r.calls);
            row("distinct disks after a crash, opened and checked", r.distinct);
            row("crashed again during recovery", r.nested);
            row("of a disk that lies about syncs", r.lying);
        }
        if let Some(r) = &killed {
            row("real processes", r.rounds);
            row("  ended by SIGKILL", r.killed);
            row("  ended at a call of the disk", r.died);
            row("steps they acknowledged", r.acknowledged);
            row("entries compared byte for byte", r.compared);
        }
        row("violations", violations.len() as u64);
        let seconds = begun.elapsed().as_secs();
        let verdict = if passed { "passed" } else { "FAILED" };
        let mut text = format!("{}{verdict}, seed {seed}, {seconds} s\n", table(&rows));
        for why in &violations {
            text.push_str(&format!("\n{why}\n"));
        }
        text
    })?;
    match violations.first() {
        None => Ok(()),
        Some(_) => Err(Failure::corrupt(format!("{} violations, seed {seed}", violations.len()))
            .hint("this is a bug in pmll or a broken disk; please report it with the seed")),
    }
}

fn simulated(
    args: &CrashTestArgs,
    seed: u64,
    context: &Context,
) -> Result<SimulateReport, Failure> {
    let bar = context.voice.bar(Some(0), "simulated crashes");
    let options = SimulateOptions {
        effort: args.effort,
        seed,
        every_call: args.every,
        ..SimulateOptions::default()
    };
    // A damaged index lets its reader panic, which the store catches: thousands of times nobody wants
    // to read that. A panic that is not caught becomes a violation.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let report = simulate(&options, &|progress| {
        bar.set_length(progress.points_of);
        bar.set_position(progress.points);
        bar.set_message(format!("{} simulated disks, call", progress.images));
    });
    std::panic::set_hook(hook);
    bar.finish_and_clear();
    report.map_err(Failure::bug)
}

fn killed(args: &CrashTestArgs, seed: u64, context: &Context) -> Result<KillReport, Failure> {
    let (dir, temporary) = match &args.dir {
        Some(dir) => (dir.clone(), false),
        None => {
            let name = format!("pmll-crash-test-{}-{seed:x}", std::process::id());
            (std::env::temp_dir().join(name), true)
        }
    };
    if std::fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::invalid(format!("{} is not empty: name a new folder", dir.display())));
    }
    let program = std::env::current_exe().map_err(|e| Failure::io("find this program", &e))?;
    let bar = context.voice.bar(Some(args.rounds), "killed processes");
    let words = vec![WRITER_COMMAND.into()];
    let options = KillOptions { program, words, dir, seed, rounds: args.rounds };
    let report = kill(&options, &|round| bar.set_position(round));
    bar.finish_and_clear();
    let report = report.map_err(Failure::bug)?;
    if report.violations.is_empty() && temporary {
        remove(&options.dir)?;
    } else if !report.violations.is_empty() {
        context.voice.note(&format!("the store is kept: {}", options.dir.display()));
    }
    Ok(report)
}

fn remove(dir: &Path) -> Outcome {
    std::fs::remove_dir_all(dir).map_err(|e| Failure::io(&format!("remove {}", dir.display()), &e))
}

/// A seed nobody chose: the standard library's per-process random keys, hashed.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() >> 32
}
