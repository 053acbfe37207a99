//! `pmll-torture`: crash tests by hand.
//!
//! `pmll crash-test` is the same for users, with help and a table; this one has besides the parts that
//! `power-cut.sh` puts together.

use std::ffi::OsString;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pmll_torture::check::check;
use pmll_torture::kill::{KillOptions, hear, kill};
use pmll_torture::model::Act;
use pmll_torture::shrink::shrink;
use pmll_torture::simulate::{simulate_acts, workload};
use pmll_torture::workload::State;
use pmll_torture::writer::{self, WriterArgs};
use pmll_torture::{SimulateOptions, simulate};

const USAGE: &str = "\
usage:
  pmll-torture simulate [EFFORT] [SEED] [NESTED_EVERY] [FROM] [UNTIL]
      power cuts on a simulated disk: of the script (FROM 0), and of workloads drawn from
      the numbers FROM to UNTIL
  pmll-torture kill DIR [ROUNDS] [SEED]                  killed processes on a real one
  pmll-torture writer DIR SEED FROM UNTIL DIE_AT         plays, prints what is done
  pmll-torture check DIR SEED ACKS                       DIR against what a writer printed
exit codes: 0 nothing wrong, 2 wrong command line, 5 a violation, 6 it could not be tried";

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (command, words) = words
        .split_first()
        .map_or(("", &[][..]), |(first, rest)| (first.to_str().unwrap_or_default(), rest));
    let number = |at: usize, unset: u64| match words.get(at) {
        None => Some(unset),
        Some(word) => word.to_str()?.parse().ok(),
    };
    let done = match (command, words.len()) {
        ("simulate", 0..=5) => match [number(0, 1), number(1, 20_260), number(2, 160)] {
            [Some(effort), Some(seed), Some(nested_every)] => {
                let effort = u32::try_from(effort).unwrap_or(u32::MAX);
                let options = SimulateOptions { effort, seed, nested_every, ..Default::default() };
                let from = number(3, 0);
                let range = from.and_then(|from| Some(from..=number(4, from)?));
                range.map(|range| run_simulate(&options, range))
            }
            _ => None,
        },
        ("kill", 1..=3) => match (words.first(), number(1, 200), number(2, 1)) {
            (Some(dir), Some(rounds), Some(seed)) => Some(run_kill(dir.into(), rounds, seed)),
            _ => None,
        },
        ("writer", 5) => WriterArgs::parse(words)
            .map(|args| writer::run(&args).map_err(|e| format!("stdout: {e}"))),
        ("check", 3) => match (words.first(), number(1, 0), words.get(2)) {
            (Some(dir), Some(seed), Some(acks)) => {
                Some(run_check(dir.as_ref(), seed, acks.as_ref()))
            }
            _ => None,
        },
        _ => None,
    };
    match done {
        Some(Ok(true)) => ExitCode::SUCCESS,
        Some(Ok(false)) => ExitCode::from(5),
        Some(Err(why)) => {
            eprintln!("error: {why}");
            ExitCode::from(6)
        }
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Prints what was wrong; true for nothing.
fn nothing_wrong(violations: &[String]) -> bool {
    violations.iter().for_each(|why| println!("VIOLATION {why}"));
    violations.is_empty()
}

fn run_simulate(
    options: &SimulateOptions,
    workloads: std::ops::RangeInclusive<u64>,
) -> Result<bool, String> {
    let (mut distinct, mut nested, mut lying, mut right) = (0, 0, 0, true);
    let begun = std::time::Instant::now();
    for workload in workloads.clone() {
        let started = std::time::Instant::now();
        let report = simulate(&SimulateOptions { workload, ..options.clone() }, &|_| {})
            .map_err(|why| format!("workload {workload}: {why}"))?;
        println!(
            "simulate: {} distinct images, {} crashed again, {} of a lying disk, {} calls in {} \
             legs, {} acts, workload {workload}, effort {}, seed {}, {:.0} s, {} violations",
            report.distinct,
            report.nested,
            report.lying,
            report.calls,
            report.legs,
            report.acts,
            options.effort,
            options.seed,
            started.elapsed().as_secs_f64(),
            report.violations.len()
        );
        if !nothing_wrong(&report.violations) {
            right = false;
            tell_shortest(&SimulateOptions { workload, ..options.clone() });
        }
        distinct += report.distinct;
        nested += report.nested;
        lying += report.lying;
    }
    println!(
        "simulate: in all {distinct} distinct images, {nested} crashed again, {lying} of a lying \
         disk, workloads {} to {}, {:.0} s",
        workloads.start(),
        workloads.end(),
        begun.elapsed().as_secs_f64()
    );
    Ok(right)
}

/// Prints the shortest workload that fails as well.
fn tell_shortest(options: &SimulateOptions) {
    let acts = workload(options);
    // One violation is enough, and a workload that does not even run is another failure.
    let mut fails = |acts: &[Act]| {
        let report = simulate_acts(options, acts, &|_| {});
        report.is_ok_and(|report| !report.violations.is_empty())
    };
    let short = shrink(&acts, &mut fails);
    println!("of {} acts these are enough:", acts.len());
    short.iter().for_each(|act| println!("  {act:?}"));
}

fn run_kill(dir: PathBuf, rounds: u64, seed: u64) -> Result<bool, String> {
    let program = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let options = KillOptions { program, words: vec!["writer".into()], dir, seed, rounds };
    let report = kill(&options, &|_| {})?;
    println!(
        "kill: {} rounds ({} by SIGKILL, {} at a call of the disk), {} steps acknowledged, {} there \
         without, {} entries compared, seed {seed}, {} violations",
        report.rounds,
        report.killed,
        report.died,
        report.acknowledged,
        report.unacknowledged,
        report.compared,
        report.violations.len()
    );
    Ok(nothing_wrong(&report.violations))
}

/// After a power cut: everything up to the last step that was on disk must be there.
fn run_check(dir: &Path, seed: u64, acks: &Path) -> Result<bool, String> {
    let file = File::open(acks).map_err(|e| format!("{}: {e}", acks.display()))?;
    let (acks, last) = hear(&mut BufReader::new(file)).map_err(|e| format!("acks: {e}"))?;
    if !last.is_empty() {
        println!("VIOLATION the writer said: {last}");
        return Ok(false);
    }
    if !acks.any {
        println!("acknowledged 0 durable 0 found 0 lost 0");
        return Ok(true);
    }
    let (done, durable) = (acks.done, acks.durable);
    match check(dir, seed, &State::after(seed, durable), done + 1, true) {
        Ok(found) => {
            println!("acknowledged {done} durable {durable} found {} lost 0", found.steps);
            Ok(true)
        }
        Err(why) => {
            let earlier = check(dir, seed, &State::default(), done + 1, false);
            let lost = earlier.map_or(durable, |found| durable.saturating_sub(found.steps));
            println!("acknowledged {done} durable {durable} lost {lost}: {why}");
            Ok(false)
        }
    }
}
