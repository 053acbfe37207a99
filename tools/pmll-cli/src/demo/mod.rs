//! `pmll demo`: one long session of an agent, killed again and again, and held to account.
//!
//! 1. A plan of a session is made from a seed: passages are remembered with real embeddings, read
//!    again, pinned, forgotten and learned again, notes are taken, searches are made, the compressor
//!    is run; the budget is the least there is ([`plan`]).
//! 2. A process of its own plays it and prints an acknowledgement for each step ([`writer`]).
//! 3. At a random moment, the first time while the compressor runs, this process kills that one
//!    with SIGKILL, by its id; opens the store; holds every entry against the acknowledged steps,
//!    byte for byte ([`check`]); and lets a new process go on from there. The step that was on its
//!    way may be there whole or not at all.
//! 4. At the end everything is checked again, searches are held against the exact answers, all
//!    files are verified, and the derived files are thrown away and rebuilt.
//! 5. What happened is printed as a table, or as JSON ([`report`]).
//!
//! `kill -9` does not take the page cache away, so this shows what a killed process leaves behind,
//! not what a power cut does. Nothing outside the store's folder is written.

mod check;
mod data;
mod plan;
mod report;
mod writer;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use pmll::{Collection, Depth, Store};

use crate::open::Context;
use crate::output::{Failure, Outcome};

use data::Data;
use plan::{Chance, Model, Plan};
use report::{Ending, Life, Report};

pub use writer::WriterArgs;
pub use writer::run as run_writer;

/// Name of the hidden subcommand that plays the session.
pub const WRITER_COMMAND: &str = "demo-writer";

/// Longest wait between the chosen acknowledgement and the kill, so that it lands anywhere within
/// a step and not only between two.
const KILL_DELAY_MICROS_MAX: u64 = 3_000;
/// Most differences that are printed in full.
const WRONG_SHOWN: usize = 10;

type Result<T> = std::result::Result<T, Failure>;

/// Play an agent's long session, kill it again and again, and check what is left
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pmll demo
  pmll demo --kills 20 --seed 7
  pmll demo --dir session --json")]
pub struct DemoArgs {
    /// Keep the store in this folder (missing or empty); else it is a temporary one
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Keep the temporary store
    #[arg(long)]
    keep: bool,

    /// Play the session of this seed again; only the machine then moves the kills by microseconds
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// How many times to kill
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
    kills: u8,

    /// Folder of the excerpt, when it is not tests/data of the repository
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Runs the demonstration and prints its report. Fails when anything was not as it must be.
pub fn run(args: &DemoArgs, context: &Context) -> Outcome {
    let begun = Instant::now();
    let data = Data::load(args.data.as_deref())?;
    let seed = args.seed.unwrap_or_else(random_seed);
    let plan = Plan::new(seed, &data);
    let (dir, temporary) = match &args.dir {
        Some(dir) => (dir.clone(), false),
        None => {
            let name = format!("pmll-demo-{}-{seed:x}", std::process::id());
            (std::env::temp_dir().join(name), true)
        }
    };
    if std::fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::invalid(format!("{} is not empty: name a new folder", dir.display())));
    }
    let remove = temporary && !args.keep;

    let budget = context.budget.unwrap_or(writer::BUDGET_BYTES);
    let progress = context.voice.bar(Some(plan.steps.len() as u64), "");
    let mut demo = Demo { data, seed, plan, dir, budget, progress, chance: Chance(!seed) };
    let mut report = demo.play(args.kills)?;
    demo.finish(&mut report)?;
    report.seconds = begun.elapsed().as_secs_f64();
    report.removed = remove && report.is_whole();
    if report.removed {
        std::fs::remove_dir_all(&demo.dir)
            .map_err(|e| Failure::io(&format!("remove {}", demo.dir.display()), &e))?;
    }
    report.print(context.voice)?;
    match report.is_whole() {
        true => Ok(()),
        false => Err(Failure::corrupt(format!("not whole; the store is {}", demo.dir.display()))),
    }
}

/// A seed nobody chose: the standard library's per-process random keys, hashed.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() >> 32
}

struct Demo {
    data: Data,
    seed: u64,
    plan: Plan,
    dir: PathBuf,
    budget: u64,
    progress: ProgressBar,
    /// Chooses the moments of the kills, apart from the numbers that made the plan.
    chance: Chance,
}

/// What the lines of one process said.
#[derive(Default)]
struct Told {
    /// Steps it said were done.
    steps: usize,
    writes: Vec<Duration>,
    searches: Vec<Duration>,
    searches_wrong: usize,
    checkpoints: usize,
    compressions: usize,
    moves: u64,
}

impl Demo {
    /// Lives the session in as many lives as kills and one more.
    fn play(&mut self, kills: u8) -> Result<Report> {
        let total = self.plan.steps.len();
        let mut report = Report::new(self.seed, &self.dir, &self.data);
        let mut from = 0;
        for life in 0..=kills {
            let left = total - from;
            // Between a half and one and a half of an even share.
            let share = (left / usize::from(kills - life + 1)).max(1) as u64;
            let mut after = from + (share / 2 + self.chance.below(share)) as usize;
            if life == 0 {
                // The first kill hits the compressor at work.
                let rest = self.plan.steps.iter().enumerate().skip(after);
                let run = rest.clone().find(|(_, step)| **step == plan::Step::Compress);
                after = run.map_or(after, |(at, _)| at);
            }
            let kill_after = (life < kills && after < total).then_some(after);
            self.progress.set_message(format!("life {} of {}", life + 1, kills + 1));
            let (told, status) = self.live(from, kill_after)?;
            let acked = from + told.steps;
            let ending = ending(status, acked, total)?;

            self.progress.set_message(format!("life {} of {}: checking", life + 1, kills + 1));
            let begun = Instant::now();
            let (store, collection) = writer::open(&self.dir, &self.data, self.budget)?;
            let reopened = begun.elapsed();
            let begun = Instant::now();
            let (reached, doubt, wrong, checked) = self.settle(&collection, acked)?;
            let checking = begun.elapsed();
            store.close()?;
            for line in wrong.iter().take(WRONG_SHOWN) {
                self.progress.suspend(|| eprintln!("WRONG after step {reached}: {line}"));
            }
            let steps = self.plan.steps.get(from..reached).unwrap_or_default();
            let upkeep = (told.checkpoints, told.compressions, told.moves);
            report.add(told.writes, told.searches, upkeep, told.searches_wrong, steps);
            report.lives.push(Life {
                from,
                until: reached,
                ending,
                compressing: ending == Ending::Killed
                    && self.plan.steps.get(acked) == Some(&plan::Step::Compress),
                doubt,
                reopened_micros: report::micros(reopened),
                checked,
                checking_micros: report::micros(checking),
                wrong: wrong.len(),
            });
            from = reached;
            if from >= total || !wrong.is_empty() {
                break;
            }
        }
        self.progress.finish_and_clear();
        Ok(report)
    }

    /// One process: starts it, reads what it says, kills it when its moment has come.
    fn live(&mut self, from: usize, kill_after: Option<usize>) -> Result<(Told, ExitStatus)> {
        let failed = |what: &str| {
            let what = format!("{what} the process that plays the session");
            move |e: std::io::Error| Failure::io(&what, &e)
        };
        let program = std::env::current_exe().map_err(failed("find"))?;
        let child = Command::new(program)
            .arg(WRITER_COMMAND)
            .args([&self.dir, &self.data.folder])
            .args([self.seed, self.budget, from as u64].map(|number| number.to_string()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed("start"))?;
        let mut child = Reaped(child);
        let output = child.0.stdout.take();
        let lines =
            BufReader::new(output.ok_or_else(|| Failure::bug("a piped child has no pipe"))?);
        let mut told = Told::default();
        for line in lines.lines() {
            told.hear(&line.map_err(failed("hear"))?, from)?;
            self.progress.set_position((from + told.steps) as u64);
            if kill_after == Some(from + told.steps) {
                let delay = self.chance.below(KILL_DELAY_MICROS_MAX);
                std::thread::sleep(Duration::from_micros(delay));
                // SIGKILL to this child by its id. What it wrote before is still read to the end.
                child.0.kill().map_err(failed("kill"))?;
            }
        }
        let status = child.0.wait().map_err(failed("wait for"))?;
        Ok((told, status))
    }

    /// Finds out whether the step in doubt is there, and what is wrong if neither explains it.
    /// Returns steps done, what became of the step in doubt, differences and entries checked.
    fn settle(
        &self,
        collection: &Collection,
        acked: usize,
    ) -> Result<(usize, Option<bool>, Vec<String>, usize)> {
        let model = self.plan.model(acked, &self.data);
        let wrong = check::differences(collection, &model, &self.data)?;
        let step = self.plan.steps.get(acked).filter(|step| step.writes());
        if step.is_none() {
            return Ok((acked, None, wrong, model.len()));
        }
        if wrong.is_empty() {
            return Ok((acked, Some(false), wrong, model.len()));
        }
        let with: Model = self.plan.model(acked + 1, &self.data);
        match check::differences(collection, &with, &self.data)?.is_empty() {
            true => Ok((acked + 1, Some(true), Vec::new(), with.len())),
            false => Ok((acked, Some(false), wrong, model.len())),
        }
    }

    /// The last check, of everything there is to check.
    fn finish(&self, report: &mut Report) -> Result<()> {
        let reached = report.lives.last().map_or(0, |life| life.until);
        let model = self.plan.model(reached, &self.data);
        let (store, collection) = writer::open(&self.dir, &self.data, self.budget)?;
        if reached == self.plan.steps.len() {
            report.recall(check::recall(&collection, &self.data)?);
        }
        report.compressed(&store.compress()?);
        let verified = store.verify(Depth::Deep)?;
        report.problems =
            verified.problems.iter().map(|p| format!("{}: {}", p.file, p.message)).collect();
        report.files_verified = verified.files;
        report.bytes_verified = verified.bytes;
        report.state(&store.stats()?, &model, &self.data);
        store.close()?;

        let begun = Instant::now();
        let (store, collection) = self.rebuilt()?;
        report.rebuilt_micros = report::micros(begun.elapsed());
        report.wrong_rebuilt = check::differences(&collection, &model, &self.data)?.len();
        store.close()?;
        Ok(())
    }

    /// Opens the store after its derived files are gone.
    fn rebuilt(&self) -> Result<(Store, Collection)> {
        let gone = |result: std::io::Result<()>| match result {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::io("remove the derived files", &e))
            }
            _ => Ok(()),
        };
        gone(std::fs::remove_file(self.dir.join("index.redb")))?;
        gone(std::fs::remove_dir_all(self.dir.join("columns")))?;
        gone(std::fs::remove_dir_all(self.dir.join("arena")))?;
        writer::open(&self.dir, &self.data, self.budget)
    }
}

impl Told {
    fn hear(&mut self, line: &str, from: usize) -> Result<()> {
        let strange = || Failure::bug(format!("the process that plays the session said {line:?}"));
        let mut words = line.split(' ');
        let (verb, number, micros) = (words.next(), words.next(), words.next());
        let number: usize = number.and_then(|n| n.parse().ok()).ok_or_else(strange)?;
        let micros: u64 = micros.and_then(|n| n.parse().ok()).ok_or_else(strange)?;
        if number != from + self.steps {
            return Err(strange());
        }
        let time = Duration::from_micros(micros);
        match verb {
            Some("ack") => self.writes.push(time),
            Some("archived") => self.checkpoints += 1,
            Some("compressed") => {
                let moves: u64 = words.next().and_then(|n| n.parse().ok()).ok_or_else(strange)?;
                self.compressions += 1;
                self.moves += moves;
            }
            Some("found") => {
                self.searches.push(time);
                self.searches_wrong += usize::from(words.next() != Some("right"));
            }
            _ => return Err(strange()),
        }
        self.steps += 1;
        Ok(())
    }
}

/// A child that never outlives this process's interest in it.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a life ended. Anything but a kill or the end of the plan is an error.
fn ending(status: ExitStatus, acked: usize, total: usize) -> Result<Ending> {
    if was_killed(status) {
        return Ok(Ending::Killed);
    }
    if status.success() && acked == total {
        return Ok(Ending::Done);
    }
    Err(Failure::bug(format!(
        "the process that plays the session ended by itself after step {acked}: {status}"
    )))
}

#[cfg(unix)]
fn was_killed(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(9)
}

#[cfg(not(unix))]
fn was_killed(status: ExitStatus) -> bool {
    !status.success()
}
