//! What happened, as a table for people or as one JSON object for programs.
//!
//! Every figure was counted or measured in this run. Times are of this machine and this moment;
//! the table says how many there are of each, so that nobody takes a handful for a law.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pmll::Stats;
use serde::Serialize;
use serde_json::Value;

use super::check::Recall;
use super::data::Data;
use super::plan::{Memory, Model, Step};
use crate::output::{Failure, Outcome, Voice, colour, size, table};

/// How one process ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// By SIGKILL.
    Killed,
    /// At the end of the plan.
    Done,
}

/// One process that played a part of the session.
#[derive(Debug, Serialize)]
pub struct Life {
    /// First step of it.
    pub from: usize,
    /// First step after it.
    pub until: usize,
    /// How it ended.
    pub ending: Ending,
    /// Whether the compressor was at work when it ended.
    pub compressing: bool,
    /// The write that was on its way: there whole, not at all, or none was.
    pub doubt: Option<bool>,
    /// Time to open the store afterwards.
    pub reopened_micros: u64,
    /// Entries held against what was acknowledged.
    pub checked: usize,
    /// Time that took.
    pub checking_micros: u64,
    /// Differences.
    pub wrong: usize,
}

/// Times of one kind of call, in microseconds.
#[derive(Debug, Default, Serialize)]
pub struct Times {
    count: usize,
    p50_micros: u64,
    p99_micros: u64,
    max_micros: u64,
    #[serde(skip)]
    all: Vec<u64>,
}

impl Times {
    fn add(&mut self, times: Vec<Duration>) {
        self.all.extend(times.into_iter().map(micros));
        self.all.sort_unstable();
        let at = |share: usize| {
            let place = (self.all.len() * share).div_ceil(100).saturating_sub(1);
            self.all.get(place).copied().unwrap_or(0)
        };
        (self.count, self.p50_micros) = (self.all.len(), at(50));
        (self.p99_micros, self.max_micros) = (at(99), at(100));
    }
}

/// One level before and after a run of the compressor.
#[derive(Debug, Serialize)]
pub struct Level {
    tier: String,
    entries_before: u64,
    bytes_before: u64,
    entries_after: u64,
    bytes_after: u64,
}

/// Bytes on disk by kind of file.
#[derive(Debug, Default, Serialize)]
struct Disk {
    log: u64,
    archive: u64,
    index: u64,
    arena: u64,
    columns: u64,
    total: u64,
}

/// Everything the demonstration found out.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    seed: u64,
    dir: PathBuf,
    /// Whether the store was removed at the end.
    pub removed: bool,
    passages: usize,
    dim: usize,
    /// Time of the whole run.
    pub seconds: f64,
    /// One for each process.
    pub lives: Vec<Life>,
    remembered: usize,
    notes: usize,
    changed: usize,
    forgotten: usize,
    writes: Times,
    searches: Times,
    searches_wrong: usize,
    checkpoints: usize,
    compressions: usize,
    moves: u64,
    recall_right: usize,
    recall_of: usize,
    final_searches: Times,
    entries: u64,
    caller_bytes: u64,
    budget_bytes: u64,
    counted_bytes: u64,
    disk: Disk,
    /// Levels before and after the last run of the compressor, hottest first.
    pub levels: Vec<Level>,
    /// What a deep look at all files found.
    pub problems: Vec<String>,
    /// Files of that look.
    pub files_verified: u64,
    /// Bytes of that look.
    pub bytes_verified: u64,
    /// Time to open after the derived files were thrown away.
    pub rebuilt_micros: u64,
    /// Differences found after that.
    pub wrong_rebuilt: usize,
}

impl Report {
    /// A report in which nothing has happened.
    pub fn new(seed: u64, dir: &Path, data: &Data) -> Report {
        let (passages, dim) = (data.passages.len(), data.dim());
        Report { seed, dir: dir.to_owned(), passages, dim, ..Report::default() }
    }

    /// Adds what one process said, and the steps that are in the store because of it.
    pub fn add(
        &mut self,
        writes: Vec<Duration>,
        searches: Vec<Duration>,
        (checkpoints, compressions, moves): (usize, usize, u64),
        searches_wrong: usize,
        steps: &[Step],
    ) {
        self.writes.add(writes);
        self.searches.add(searches);
        self.checkpoints += checkpoints;
        self.compressions += compressions;
        self.moves += moves;
        self.searches_wrong += searches_wrong;
        for step in steps {
            match step {
                Step::Remember(rows) => self.remembered += rows.len(),
                Step::Note(..) => self.notes += 1,
                Step::Reread(_) | Step::Pin(_) => self.changed += 1,
                Step::Forget(keys) => self.forgotten += keys.len(),
                Step::Search(_) | Step::Archive | Step::Compress => {}
            }
        }
    }

    /// Adds the searches against the table of truth.
    pub fn recall(&mut self, recall: Recall) {
        (self.recall_right, self.recall_of) = (recall.right, recall.of);
        self.final_searches.add(recall.times);
    }

    /// Adds the last run of the compressor.
    pub fn compressed(&mut self, run: &pmll::CompressReport) {
        let levels = run.before.iter().zip(&run.after).map(|(before, after)| Level {
            tier: before.tier.to_string(),
            entries_before: before.entries,
            bytes_before: before.bytes,
            entries_after: after.entries,
            bytes_after: after.bytes,
        });
        self.levels = levels.collect();
    }

    /// Adds what the store says of itself at the end.
    pub fn state(&mut self, stats: &Stats, model: &Model, data: &Data) {
        // Two bytes a value: what the caller handed over in an f16 collection.
        let vector = 2 * data.dim() as u64;
        let bytes = |m: &Memory| m.payload.len() as u64 + m.row.map_or(0, |_| vector);
        self.caller_bytes = model.values().map(bytes).sum();
        self.entries = stats.entries;
        (self.budget_bytes, self.counted_bytes) = (stats.budget_bytes, stats.counted_bytes);
        self.disk = Disk {
            log: stats.disk.log,
            archive: stats.disk.archive,
            index: stats.disk.index,
            arena: stats.disk.arena,
            columns: stats.disk.columns,
            total: stats.disk.total,
        };
    }

    fn wrong(&self) -> usize {
        self.lives.iter().map(|life| life.wrong).sum()
    }

    /// Whether nothing was lost, nothing changed, and every answer was right.
    pub fn is_whole(&self) -> bool {
        self.wrong() == 0
            && self.searches_wrong == 0
            && self.problems.is_empty()
            && self.wrong_rebuilt == 0
            && self.recall_of > 0
            && self.recall_right * 100 >= self.recall_of * 99
            && self.counted_bytes <= self.budget_bytes
    }

    /// Prints to standard output.
    pub fn print(&self, voice: Voice) -> Outcome {
        let mut value = serde_json::to_value(self)
            .map_err(|e| Failure::bug(format!("the report does not encode: {e}")))?;
        if let Value::Object(fields) = &mut value {
            fields.insert("whole".into(), self.is_whole().into());
        }
        voice.say(&value, || self.table())
    }

    fn table(&self) -> String {
        let ink = Ink(colour() && std::io::stdout().is_terminal());
        let kills = self.lives.iter().filter(|life| life.ending == Ending::Killed).count();
        let mut out = Vec::new();
        out.push(ink.bold("An agent's long session, killed again and again"));
        out.push(String::new());
        let mut line = |name: &str, value: String| out.push(format!("  {name:<14}{value}"));
        line("seed", format!("{}   (pmll demo --seed {0} plays it again)", self.seed));
        let kept = if self.removed { "   (removed; --keep keeps it)" } else { "" };
        line("store", format!("{}{kept}", self.dir.display()));
        line("text", format!("{} passages, {} dimensions, f16", self.passages, self.dim));
        out.push(String::new());
        let heads =
            ["life", "steps", "ended by", "write on its way", "reopened", "checked", "in", "wrong"];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        rows.extend(self.lives.iter().zip(1..).map(|(life, number)| {
            let ending = if life.ending == Ending::Killed { "kill -9" } else { "its end" };
            let doubt = match life.doubt {
                Some(true) => "there, whole",
                Some(false) => "not there",
                None if life.compressing => "a compression",
                None => "-",
            };
            let wrong = ink.verdict(life.wrong == 0, &life.wrong.to_string());
            let steps = format!("{}-{}", life.from, life.until);
            let (reopened, took) = (span(life.reopened_micros), span(life.checking_micros));
            let row = [number.to_string(), steps, ending.into(), doubt.into(), reopened];
            row.into_iter().chain([life.checked.to_string(), took, wrong]).collect()
        }));
        let lives = table(&rows);
        let (head, lives) = lives.split_once('\n').unwrap_or_default();
        out.push(ink.bold(&format!("  {head}")));
        out.extend(lives.lines().map(|life| format!("  {life}")));
        out.push(String::new());
        let mut line = |name: &str, value: String| out.push(format!("  {name:<14}{value}"));
        line(
            "remembered",
            format!("{} passages, {} notes; {} changes", self.remembered, self.notes, self.changed),
        );
        line("forgotten", format!("{} entries", self.forgotten));
        line("now", format!("{} entries", self.entries));
        line(
            "acknowledged",
            format!("{} writes, each synced: {}", self.writes.count, times(&self.writes)),
        );
        line(
            "searches",
            format!(
                "{} on the way, {} wrong: {}",
                self.searches.count,
                ink.verdict(self.searches_wrong == 0, &self.searches_wrong.to_string()),
                times(&self.searches)
            ),
        );
        line("checkpoints", format!("{} asked for", self.checkpoints));
        line(
            "compressions",
            format!("{} asked for, {} entries moved", self.compressions, self.moves),
        );
        line(
            "recall@10",
            match self.recall_of {
                0 => "not measured: the session did not reach its end".into(),
                of => format!(
                    "{} ({} of {of} exact answers): {}",
                    ink.verdict(
                        self.recall_right * 100 >= of * 99,
                        &format!("{:.3}", self.recall_right as f64 / of as f64)
                    ),
                    self.recall_right,
                    times(&self.final_searches)
                ),
            },
        );
        line(
            "memory",
            format!("{} of a budget of {}", size(self.counted_bytes), size(self.budget_bytes)),
        );
        for level in &self.levels {
            line(
                &format!("  {}", level.tier),
                format!(
                    "{} entries, {} -> {} entries, {}",
                    level.entries_before,
                    size(level.bytes_before),
                    level.entries_after,
                    size(level.bytes_after)
                ),
            );
        }
        line(
            "disk",
            format!(
                "{} (log {}, archive {}, index {}, arena {}, columns {}) for {} of text and vectors",
                size(self.disk.total),
                size(self.disk.log),
                size(self.disk.archive),
                size(self.disk.index),
                size(self.disk.arena),
                size(self.disk.columns),
                size(self.caller_bytes)
            ),
        );
        line(
            "verified",
            format!(
                "{} files, {}: {}",
                self.files_verified,
                size(self.bytes_verified),
                ink.verdict(self.problems.is_empty(), &format!("{} problems", self.problems.len()))
            ),
        );
        line(
            "index thrown",
            format!(
                "away: rebuilt and open in {}, {} wrong",
                span(self.rebuilt_micros),
                ink.verdict(self.wrong_rebuilt == 0, &self.wrong_rebuilt.to_string())
            ),
        );
        out.extend(self.problems.iter().map(|problem| format!("    {problem}")));
        out.push(String::new());
        let checked: usize = self.lives.iter().map(|life| life.checked).sum();
        let verdict = match self.is_whole() {
            true => {
                format!("Killed {kills} times; {checked} entries checked byte for byte, none lost.")
            }
            false => format!("NOT WHOLE: the store is kept in {}", self.dir.display()),
        };
        out.push(format!("  {} {:.1} s.", ink.verdict(self.is_whole(), &verdict), self.seconds));
        out.join("\n") + "\n"
    }
}

/// Colours, or none.
struct Ink(bool);

impl Ink {
    fn with(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }

    fn verdict(&self, good: bool, text: &str) -> String {
        self.with(if good { "32" } else { "1;31" }, text)
    }
}

/// A duration in whole microseconds.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn times(times: &Times) -> String {
    format!("p50 {}, p99 {}", span(times.p50_micros), span(times.p99_micros))
}

fn span(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}
