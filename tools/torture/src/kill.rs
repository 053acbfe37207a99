//! Real processes killed again and again over one real store, with what must be there kept outside.
//!
//! 1. Each round starts a writer ([`crate::writer`]) that goes on where the store stands. Every
//!    second one is killed by SIGKILL after a random time, by its id; the others die of their own
//!    hand at a random call of the disk.
//! 2. What it acknowledged is read to the end. Then the store is opened here and must be, byte for
//!    byte, in the state after the acknowledged steps, or with the one step more that was on its way.
//!    Every eighth round all files are verified.
//! 3. That state is what the next round builds on.
//!
//! A kill does not take the page cache away, so this shows what a dead process leaves behind, not
//! what a power cut does. The choices repeat with the seed, the moments of the kills do not.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::check::{Acks, check};
use crate::workload::{Random, State};
use crate::writer::WriterArgs;

/// Longest life of a writer that is killed from outside.
const LIFE_MICROS_MAX: u64 = 120_000;
/// Latest call at which a writer dies of its own hand. Opening takes some tens of them.
const DIE_AT_MAX: u64 = 600;
/// Steps after which a writer ends though nobody killed it.
const STEPS_MAX: u64 = 4_000;
const DEEP_EVERY: u64 = 8;

/// How to kill.
#[derive(Clone, Debug)]
pub struct KillOptions {
    /// The program that becomes a writer when the words below and those of
    /// [`WriterArgs`] follow.
    pub program: PathBuf,
    /// Its first words.
    pub words: Vec<OsString>,
    /// Directory of the store, missing or empty.
    pub dir: PathBuf,
    /// Seed of the workload and of the moments.
    pub seed: u64,
    /// Writers to start.
    pub rounds: u64,
}

/// What was killed and found.
#[derive(Clone, Debug, Default)]
pub struct KillReport {
    /// Writers that were started.
    pub rounds: u64,
    /// Those that were hit by SIGKILL while they ran.
    pub killed: u64,
    /// Those that died at a call of the disk.
    pub died: u64,
    /// Steps that were acknowledged.
    pub acknowledged: u64,
    /// Steps that were there without an acknowledgement.
    pub unacknowledged: u64,
    /// Entries that were compared, over all rounds.
    pub compared: u64,
    /// Entries at the end.
    pub entries: u64,
    /// What was wrong. The first ends the loop.
    pub violations: Vec<String>,
}

/// Ends and reaps its child whatever happens.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // Fails only when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Kills writers.
///
/// # Errors
/// A writer cannot be started or heard.
pub fn kill(options: &KillOptions, progress: &dyn Fn(u64)) -> Result<KillReport, String> {
    let mut random = Random(!options.seed);
    let mut state = State::default();
    let mut report = KillReport::default();
    for round in 0..options.rounds {
        let by_itself = round % 2 == 1;
        let args = WriterArgs {
            dir: options.dir.clone(),
            seed: options.seed,
            from: state.steps,
            until: state.steps + STEPS_MAX,
            die_at: if by_itself { random.within(1, DIE_AT_MAX) } else { 0 },
        };
        let life = (!by_itself).then(|| Duration::from_micros(random.within(0, LIFE_MICROS_MAX)));
        let (acks, last) = live(options, &args, life)?;
        report.rounds += 1;
        match (last.as_str(), by_itself) {
            ("", true) => report.died += 1,
            ("", false) => report.killed += 1,
            ("end", _) => {}
            (error, _) => report.violations.push(format!("round {round}: {error}")),
        }
        let done = acks.done.max(state.steps);
        report.acknowledged += done - state.steps;
        while state.steps < done {
            state.advance(options.seed);
        }
        let deep = round % DEEP_EVERY == DEEP_EVERY - 1 || round + 1 == options.rounds;
        match check(&options.dir, options.seed, &state, done + 1, deep) {
            Ok(found) => {
                report.unacknowledged += found.steps - done;
                report.compared += found.entries;
                report.entries = found.entries;
                while state.steps < found.steps {
                    state.advance(options.seed);
                }
            }
            Err(why) => report.violations.push(format!("round {round}, {args:?}: {why}")),
        }
        if !report.violations.is_empty() {
            break;
        }
        progress(round + 1);
    }
    Ok(report)
}

/// One writer: what it acknowledged, and its last words if it had any.
fn live(
    options: &KillOptions,
    args: &WriterArgs,
    life: Option<Duration>,
) -> Result<(Acks, String), String> {
    let mut command = Command::new(&options.program);
    command.args(&options.words).args(args.words());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Reaped(command.spawn().map_err(|e| format!("cannot start a writer: {e}"))?);
    let output = child.0.stdout.take().ok_or("a piped child has no pipe")?;
    std::thread::scope(|scope| {
        let heard = scope.spawn(move || hear(&mut BufReader::new(output)));
        if let Some(life) = life {
            std::thread::sleep(life);
            // SIGKILL to this child by its id; what it wrote before is still read to the end.
            child.0.kill().map_err(|e| format!("cannot kill a writer: {e}"))?;
        }
        let heard = heard.join().map_err(|_| "the reader of a writer died".to_owned())?;
        child.0.wait().map_err(|e| format!("cannot wait for a writer: {e}"))?;
        heard.map_err(|e| format!("cannot hear a writer: {e}"))
    })
}

/// Reads the lines of a writer to the end.
///
/// # Errors
/// Those of reading.
pub fn hear(lines: &mut dyn BufRead) -> std::io::Result<(Acks, String)> {
    let (mut acks, mut last, mut line) = (Acks::default(), String::new(), String::new());
    while lines.read_line(&mut line)? > 0 {
        // A line without its end was cut off by the kill.
        if let Some(whole) = line.strip_suffix('\n')
            && !acks.hear(whole)
        {
            last = whole.to_owned();
        }
        line.clear();
    }
    Ok((acks, last))
}
