//! Plays tests for one mutant after the other until one fails.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::list::{self, LeftOut, Mutant, Result};

/// A mutant may ask for memory for ever.
const MEMORY_KIB_MAX: u64 = 6 << 20;
/// A mutant may write for ever.
const FILE_KIB_MAX: u64 = 1 << 20;

/// What became of a mutant in one stage.
#[derive(Debug, Deserialize, Serialize)]
struct Outcome {
    id: usize,
    /// The stage's line of the file of stages.
    stage: String,
    /// The test that failed, or how it ended; `None` when all tests passed.
    caught: Option<String>,
    seconds: f64,
}

struct Stage {
    line: String,
    /// For mutants of these files.
    files: String,
    program: PathBuf,
    arguments: Vec<String>,
    patience: Duration,
}

pub fn run(out: &Path, stages: &Path) -> Result<()> {
    let mutants: Vec<Mutant> = list::read_lines(&out.join("mutants.jsonl"))?;
    let results = out.join("results.jsonl");
    let outcomes: Vec<Outcome> = list::read_lines(&results).unwrap_or_default();
    let mut caught: HashSet<usize> =
        outcomes.iter().filter(|o| o.caught.is_some()).map(|o| o.id).collect();
    let played: HashSet<_> =
        outcomes.into_iter().map(|outcome| (outcome.id, outcome.stage)).collect();
    for line in std::fs::read_to_string(stages)?.lines().filter(|line| !line.is_empty()) {
        let stage = prepare(out, line)?;
        for mutant in mutants.iter().filter(|mutant| mutant.left_out.is_none()) {
            if !mutant.file.starts_with(&stage.files) {
                continue;
            }
            if caught.contains(&mutant.id) || played.contains(&(mutant.id, line.to_owned())) {
                continue;
            }
            let outcome = play(out, &stage, mutant.id)?;
            println!("{}: {:?} in {:.1} s", mutant.name, outcome.caught, outcome.seconds);
            list::append_line(&results, &outcome)?;
            if outcome.caught.is_some() {
                caught.insert(mutant.id);
            }
        }
    }
    Ok(())
}

/// Before other tests are built: what was caught stays caught, what was missed is tried again. Where the
/// mutants are others than before, nothing stays.
pub fn forget_missed(out: &Path, mutants: &[Mutant]) -> Result<()> {
    let before: Vec<Mutant> = list::read_lines(&out.join("mutants.jsonl")).unwrap_or_default();
    let same = before.iter().map(|m| &m.name).eq(mutants.iter().map(|m| &m.name));
    let results = out.join("results.jsonl");
    let mut outcomes: Vec<Outcome> = list::read_lines(&results).unwrap_or_default();
    outcomes.retain(|outcome| same && outcome.caught.is_some());
    list::write_lines(&results, &outcomes)
}

/// Plays a stage without a mutant, which must pass and tells how long to wait for it.
fn prepare(out: &Path, line: &str) -> Result<Stage> {
    let mut words = line.split_whitespace().map(str::to_owned);
    let files = words.next().unwrap_or_default();
    let program = match words.next().as_deref() {
        Some("lib") => newest(out, "pmll-")?,
        Some("it") => newest(out, "it-")?,
        _ => return Err(format!("{line}: names neither lib nor it").into()),
    };
    let patience = Duration::from_secs(1200);
    let mut stage =
        Stage { line: line.to_owned(), files, program, arguments: words.collect(), patience };
    let outcome = play(out, &stage, 0)?;
    if let Some(failed) = outcome.caught {
        return Err(format!("{line}: fails without a mutant: {failed}").into());
    }
    println!("== {line}: {:.1} s without a mutant", outcome.seconds);
    stage.patience = Duration::from_secs_f64(outcome.seconds * 3.0 + 8.0);
    Ok(stage)
}

/// The newest program of tests, as a build leaves older ones.
fn newest(out: &Path, prefix: &str) -> Result<PathBuf> {
    let files = std::fs::read_dir(out.join("target/debug/deps"))?;
    let paths = files.filter_map(|file| Some(file.ok()?.path()));
    let named = paths.filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix(prefix).is_some_and(|hash| hash.chars().all(|c| c.is_ascii_hexdigit()))
    });
    let newest = named.max_by_key(|path| path.metadata().and_then(|meta| meta.modified()).ok());
    newest.ok_or_else(|| format!("no program {prefix}* was built").into())
}

fn play(out: &Path, stage: &Stage, id: usize) -> Result<Outcome> {
    let begun = Instant::now();
    let limits = format!("ulimit -v {MEMORY_KIB_MAX} -f {FILE_KIB_MAX} -c 0; exec \"$0\" \"$@\"");
    let mut child = Command::new("bash")
        .args(["-c", &limits])
        .arg(&stage.program)
        .args(&stage.arguments)
        .env("PMLL_MUTANT", id.to_string())
        .env("PROPTEST_FAILURE_PERSISTENCE", "off")
        .current_dir(out)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let caught = first_failure(&mut child, begun + stage.patience)?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Outcome { id, stage: stage.line.clone(), caught, seconds })
}

/// Waits for the first test that fails, or for the end.
fn first_failure(child: &mut Child, deadline: Instant) -> Result<Option<String>> {
    let stdout = child.stdout.take().ok_or("no standard output")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(stdout)
            .lines()
            .map_while(std::io::Result::ok)
            .try_for_each(|line| sender.send(line))
    });
    let failed = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(test) = line.strip_suffix(" ... FAILED") {
                    break Some(test.trim_start_matches("test ").to_owned());
                }
            }
            Err(RecvTimeoutError::Timeout) => break Some("time".to_owned()),
            Err(RecvTimeoutError::Disconnected) => break None,
        }
    };
    if failed.is_some() {
        // The whole group: tests start programs of their own.
        Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status()?;
    }
    let status = child.wait()?;
    Ok(failed.or_else(|| (!status.success()).then(|| status.to_string())))
}

pub fn report(out: &Path) -> Result<()> {
    let mutants: Vec<Mutant> = list::read_lines(&out.join("mutants.jsonl"))?;
    let outcomes: Vec<Outcome> = list::read_lines(&out.join("results.jsonl"))?;
    let caught: HashSet<usize> =
        outcomes.iter().filter(|o| o.caught.is_some()).map(|o| o.id).collect();
    let mut counts: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    for mutant in &mutants {
        let column = match mutant.left_out {
            None if caught.contains(&mutant.id) => 0,
            Some(LeftOut::Unviable) => 1,
            Some(LeftOut::OwnBuild) => 2,
            None => 3,
        };
        for file in [mutant.file.as_str(), "all"] {
            if let Some(count) = counts.entry(file).or_default().get_mut(column) {
                *count += 1;
            }
        }
        if column >= 2 {
            println!("{} {}", ["own build", "missed"][column - 2], mutant.name);
        }
    }
    println!("| File | Caught | Does not compile | Own build | Missed |\n|---|---|---|---|---|");
    for (file, [caught, unviable, own, missed]) in counts {
        println!("| {file} | {caught} | {unviable} | {own} | {missed} |");
    }
    Ok(())
}
