//! The comparing process: it measures nothing itself.
//!
//! 1. Indexes and stores are built, each by a process of its own, unless they stand there already.
//! 2. Round by round every subject of a group is started once, in turn (A B C, A B C), so that a
//!    machine whose speed drifts drifts for all. Work of one thread is pinned to one core.
//! 3. The line of JSON that a subject prints is kept; one that fails leaves an error instead.
//! 4. A table of medians is printed.
//!
//! One subject that fails stops no other.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::plan::{By, Group, Part, Subject, groups};
use crate::report::{Report, Row};
use crate::table::table;
use crate::{CompareArgs, Outcome, data, machine};

/// Longest message of a failed subject that a table shows.
const MESSAGE_CHARS_MAX: usize = 200;

pub fn run(args: &CompareArgs) -> Outcome<()> {
    if !data::is_there(&args.data) {
        println!("skipped: no data at {}; give --data or set PMLL_DATA", args.data.display());
        return Ok(());
    }
    let temporary = if args.keep.is_none() { Some(tempfile::tempdir()?) } else { None };
    let state = match (&args.keep, &temporary) {
        (Some(kept), _) => kept.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => return Err("no folder for state".into()),
    };
    std::fs::create_dir_all(&state)?;
    let mut runner = Runner {
        args,
        state: std::fs::canonicalize(state)?,
        core: machine::core_to_pin(),
        built: HashMap::new(),
        json: args.json.as_ref().map(File::create).transpose()?,
    };
    runner.introduce();
    for part in &args.parts {
        for group in groups(*part, &args.rows, args.python.is_some()) {
            let rows = runner.measure(&group)?;
            println!("\n{}\n{}", group.title, table(&group, &rows));
        }
    }
    Ok(())
}

struct Runner<'a> {
    args: &'a CompareArgs,
    state: PathBuf,
    /// The core that work of one thread is pinned to.
    core: Option<u32>,
    /// What was built in this run, by rows and name, and how that went.
    built: HashMap<(usize, &'static str), Result<(), String>>,
    json: Option<File>,
}

impl Runner<'_> {
    fn introduce(&self) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let kind = machine::file_system(&self.state).unwrap_or_else(|| "unknown".to_owned());
        println!("{}, {cores} core(s), state on {kind}", machine::processor());
        if kind == "tmpfs" || kind == "ramfs" {
            println!("warning: {kind} syncs nothing; give --keep a folder on a disk for puts");
        }
        match self.core {
            Some(core) => println!("work of one thread is pinned to core {core}"),
            None => println!("no taskset: nothing is pinned"),
        }
        println!("medians of {} round(s), subjects in turn", self.args.rounds);
        if !cfg!(feature = "rivals") {
            println!("built without the feature `rivals`: pmll and the bare file alone");
        }
        if self.args.python.is_none() {
            println!("no --python: its rivals are left out");
        }
    }

    fn measure(&mut self, group: &Group) -> Outcome<Vec<Row>> {
        let folder = self.state.join(group.rows.to_string());
        std::fs::create_dir_all(&folder)?;
        self.prepare(group, &folder)?;
        for subject in &group.subjects {
            if let Some(name) = subject.build
                && !self.built.contains_key(&(group.rows, name))
            {
                eprintln!("building {name}, {} rows", group.rows);
                let asked = Asked { work: "build", name, by: subject.by, threads: 1 };
                let done = self.start(&asked, group.rows, &folder, None).map(drop);
                self.built.insert((group.rows, name), done);
            }
        }
        if group.part != Part::Puts && group.part != Part::Bulk {
            machine::warm(&folder)?;
        }
        let mut rows = Vec::new();
        for round in 1..=self.args.rounds {
            for subject in &group.subjects {
                eprintln!("round {round}: {} {}", group.title, subject.name);
                let row = self.once(round, group, subject, &folder);
                if let Some(json) = &mut self.json {
                    writeln!(json, "{}", serde_json::to_string(&row)?)?;
                }
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// Writes what the subjects read: the truth where it is not shared, and texts for Python.
    fn prepare(&self, group: &Group, folder: &Path) -> Outcome<()> {
        let data = &self.args.data;
        match group.part {
            Part::Search | Part::Open => drop(data::truth(data, folder, group.rows, false)?),
            Part::Filter => drop(data::truth(data, folder, group.rows, true)?),
            Part::Bulk => data::unpack_texts(data, folder, group.rows)?,
            Part::Puts => {}
        }
        Ok(())
    }

    /// One measurement of one subject; whatever goes wrong is in the row.
    fn once(&self, round: u32, group: &Group, subject: &Subject, folder: &Path) -> Row {
        let built = match subject.build.map(|name| self.built.get(&(group.rows, name))) {
            Some(Some(Err(error))) => Err(format!("not built: {error}")),
            _ => Ok(()),
        };
        let core = if group.threads == 1 { self.core } else { None };
        let Group { work, threads, .. } = *group;
        let asked = Asked { work, name: subject.name, by: subject.by, threads };
        let report =
            built.and_then(|()| self.start(&asked, group.rows, folder, core)).and_then(|printed| {
                serde_json::from_str::<Report>(printed.trim())
                    .map_err(|e| format!("what it printed is no report: {e}"))
            });
        match report {
            Ok(report) => Row { round, error: None, report },
            Err(error) => {
                eprintln!("  failed: {error}");
                let work = match group.part {
                    Part::Puts => format!("{}-{}", group.work, group.threads),
                    _ => group.work.to_owned(),
                };
                let report = Report::new(work, subject.name);
                Row { round, error: Some(error), report }
            }
        }
    }

    /// Starts a process and waits for it. Answers what it printed, or why it failed.
    fn start(
        &self,
        asked: &Asked<'_>,
        rows: usize,
        folder: &Path,
        core: Option<u32>,
    ) -> Result<String, String> {
        let mut command = self.command(asked.by, core)?;
        command.args([asked.work, asked.name]);
        command.arg("--data").arg(&self.args.data).arg("--state").arg(folder);
        command.arg("--rows").arg(rows.to_string()).arg("--threads").arg(asked.threads.to_string());
        let output = command.output().map_err(|e| format!("it cannot be started: {e}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        let message: String =
            last.trim_start_matches("error: ").chars().take(MESSAGE_CHARS_MAX).collect();
        Err(if message.is_empty() { output.status.to_string() } else { message })
    }

    fn command(&self, by: By, core: Option<u32>) -> Result<Command, String> {
        let mut words: Vec<PathBuf> = Vec::new();
        if let Some(core) = core {
            words.extend(["taskset".into(), "-c".into(), core.to_string().into()]);
        }
        match (by, &self.args.python) {
            (By::Here, _) => {
                words.push(std::env::current_exe().map_err(|e| e.to_string())?);
                words.push("run".into());
            }
            (By::Python, Some(python)) => {
                words.push(python.clone());
                words.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("rivals.py"));
            }
            (By::Python, None) => return Err("no --python was given".to_owned()),
        }
        let (program, rest) = words.split_first().ok_or("nothing to start")?;
        let mut command = Command::new(program);
        command.args(rest);
        Ok(command)
    }
}

/// What a process is to do.
struct Asked<'a> {
    work: &'a str,
    name: &'a str,
    by: By,
    threads: usize,
}
