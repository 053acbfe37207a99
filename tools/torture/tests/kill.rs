//! The kill loop: `PMLL_TORTURE_ROUNDS` and `PMLL_TORTURE_SEED` make more rounds and others. Half of the
//! writers are hit by SIGKILL at a random time, the others end at a random call of the disk.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::Path;
use std::time::Instant;

use pmll_torture::check::check;
use pmll_torture::kill::{KillOptions, kill};
use pmll_torture::workload::State;

/// Rounds of a run that is not told otherwise.
const ROUNDS: u64 = 150;

fn number(name: &str, unset: u64) -> u64 {
    std::env::var(name).map_or(unset, |text| text.parse().unwrap())
}

#[test]
fn what_was_acknowledged_outlives_every_kill() {
    let begun = Instant::now();
    let dir = tempfile::tempdir().unwrap();
    let options = KillOptions {
        program: Path::new(env!("CARGO_BIN_EXE_pmll-torture")).to_owned(),
        words: vec!["writer".into()],
        dir: dir.path().join("store"),
        seed: number("PMLL_TORTURE_SEED", 1),
        rounds: number("PMLL_TORTURE_ROUNDS", ROUNDS),
    };
    let report = kill(&options, &|_| {}).unwrap();
    println!(
        "kill: {} writers ended, {} by SIGKILL, {} at a call of the disk, {} steps acknowledged, {} there \
         without, {} entries compared, seed {}, {:.0} s, {} violations",
        report.rounds,
        report.killed,
        report.died,
        report.acknowledged,
        report.unacknowledged,
        report.compared,
        options.seed,
        begun.elapsed().as_secs_f64(),
        report.violations.len()
    );
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    assert_eq!(report.rounds, options.rounds);
    assert!(report.killed > 0 && report.died > 0 && report.acknowledged > 0, "{report:?}");
}

#[test]
fn a_step_too_few_or_too_many_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let options = KillOptions {
        program: Path::new(env!("CARGO_BIN_EXE_pmll-torture")).to_owned(),
        words: vec!["writer".into()],
        dir: dir.path().join("store"),
        seed: 7,
        rounds: 2,
    };
    let report = kill(&options, &|_| {}).unwrap();
    let there = report.acknowledged + report.unacknowledged;
    let late = State::after(7, there + 50);
    assert!(check(&options.dir, 7, &late, there + 51, false).is_err());
    let other = State::after(8, there);
    assert!(there == 0 || check(&options.dir, 8, &other, there + 1, false).is_err());
}
