//! SIGKILL of the real command at random moments, round after round on one store.
//!
//! 1. A round starts one of `import --acks`, `delete` (by key and by condition), `vacuum` and
//!    `checkpoint`, and kills it after 5 to 150 ms, counted from its start or from its first
//!    acknowledgement.
//! 2. What must be there is kept outside the store: what the last round left, the operations this
//!    round issued in their order, and how many of them were acknowledged.
//! 3. Then the collection is read (`list --json` or `export`). It must be what was left plus the
//!    first n operations, for an n that is not below the acknowledged ones and cuts no batch in two.
//!    So nothing acknowledged is lost, nothing deleted comes back, nothing is half done. Every text
//!    must be byte for byte that of its version. What was read is what the next round builds on.
//! 4. Every fourth round and at the end `verify` must call the store whole.
//!
//! `PMLL_KILL_ROUNDS` says how many rounds (100 when unset), `PMLL_KILL_SEED` repeats the choices of
//! an earlier run; the moments at which the kills hit can never be repeated. It never fakes a crash
//! and never loses power: what the operating system holds survives. A failed run keeps its folder.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at the first surprise")]
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Rounds of a run that is not told otherwise.
const ROUNDS: u64 = 100;
/// Keys there can be: few enough that most writes replace something.
const KEYS: u64 = 1500;
/// Entries that `import` writes at once.
const BATCH: usize = 4;
/// Values of the attribute by which whole groups are deleted.
const GROUPS: u64 = 12;
const SIGKILL: i32 = 9;

/// What a collection holds: the version of each key.
type State = BTreeMap<String, u64>;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `low..high`.
    fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }
}

/// The only text that this version of this key can have: a head that says which, and a tail that no
/// other version has. One in 150 is so long that it is kept in pieces.
fn text_of(key: &str, version: u64) -> String {
    let mut random = Random(version);
    let length = match random.within(0, 150) {
        0 => random.within(60_000, 200_000),
        _ => random.within(0, 900),
    };
    let mut text = format!("{version} {key} ");
    while (text.len() as u64) < length {
        text += &format!("{:x} \u{e9}\"\\\n", random.next());
    }
    text
}

fn group_of(key: &str) -> u64 {
    key.bytes().map(u64::from).sum::<u64>() % GROUPS
}

/// One issued operation: a version written, or `None` for a delete.
#[derive(Clone, Debug)]
struct Op {
    key: String,
    version: Option<u64>,
}

impl Op {
    fn apply(&self, state: &mut State) {
        match self.version {
            Some(version) => state.insert(self.key.clone(), version),
            None => state.remove(&self.key),
        };
    }
}

/// What a round does.
struct Plan {
    line: Vec<String>,
    ops: Vec<Op>,
    /// Operations that happen together or not at all.
    step: usize,
    /// Whether each operation is acknowledged by itself, else all by the end of the command.
    told: bool,
}

/// How the command of a round ended.
struct End {
    killed: bool,
    acked: usize,
}

#[derive(Default)]
struct Tally {
    acks: usize,
    hits: usize,
    unacked: usize,
    by_command: BTreeMap<String, [usize; 2]>,
}

struct Run {
    dir: tempfile::TempDir,
    seed: u64,
    random: Random,
    /// The last version given away; none is used twice.
    version: u64,
    /// Whether the collection was ever seen.
    born: bool,
    settled: State,
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("seed {}; kept: {}", self.seed, self.dir.path().display());
        }
    }
}

impl Run {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command<S: AsRef<str>>(&self, line: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pmll"));
        command.args(["--budget", "1MiB"]).args(line.iter().map(AsRef::as_ref));
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        for name in ["PMLL_STORE", "PMLL_LOG"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a command to its end.
    fn read(&self, line: &[&str]) -> Output {
        self.command(line).output().unwrap()
    }

    fn plan(&mut self) -> Plan {
        let words = |line: &[&str]| line.iter().map(ToString::to_string).collect::<Vec<_>>();
        match self.random.within(0, 8) {
            choice if choice < 4 || self.settled.len() < 50 => self.plan_import(),
            4 => {
                let count = self.random.within(1, 60) as usize;
                let mut keys: Vec<String> = self.settled.keys().cloned().collect();
                for at in 0..count {
                    let other = self.random.within(at as u64, keys.len() as u64 - 1) as usize;
                    keys.swap(at, other);
                }
                keys.truncate(count);
                let mut line = words(&["delete", "store", "notes", "--yes"]);
                line.extend(keys.iter().cloned());
                let ops = keys.into_iter().map(|key| Op { key, version: None }).collect();
                Plan { line, ops, step: 1, told: false }
            }
            5 => {
                let group = self.random.within(0, GROUPS);
                let keys = self.settled.keys().filter(|key| group_of(key) == group);
                let ops = keys.map(|key| Op { key: key.clone(), version: None }).collect();
                let only = format!("group={group}");
                let line = words(&["delete", "store", "notes", "--where", &only, "--yes"]);
                Plan { line, ops, step: 1, told: false }
            }
            6 => Plan { line: words(&["vacuum", "store"]), ops: vec![], step: 1, told: false },
            _ => Plan { line: words(&["checkpoint", "store"]), ops: vec![], step: 1, told: false },
        }
    }

    fn plan_import(&mut self) -> Plan {
        let mut ops = Vec::new();
        let mut file = Vec::new();
        for _ in 0..self.random.within(40, 1200) {
            self.version += 1;
            let (key, version) = (format!("k{}", self.random.within(0, KEYS)), self.version);
            let text = text_of(&key, version);
            let line =
                json!({"id": key, "text": text, "version": version, "group": group_of(&key)});
            writeln!(file, "{line}").unwrap();
            ops.push(Op { key, version: Some(version) });
        }
        std::fs::write(self.path("new.jsonl"), file).unwrap();
        let line = "import store notes --entries new.jsonl --key id --acks --quiet --batch";
        let mut line: Vec<String> = line.split(' ').map(str::to_owned).collect();
        line.push(BATCH.to_string());
        Plan { line, ops, step: BATCH, told: true }
    }

    /// Starts the command, kills it, and says what it had acknowledged.
    fn kill(&mut self, plan: &Plan) -> End {
        let after_first_ack = plan.told && self.random.within(0, 2) == 0;
        // The other commands are short: half of their kills crowd towards the beginning.
        let share = self.random.within(0, 1000) as f64 / 1000.0;
        let early = !plan.told && self.random.within(0, 2) == 0;
        let share = if early { share.powi(3) } else { share };
        let wait = Duration::from_secs_f64(0.005 + 0.145 * share);
        let mut command = self.command(&plan.line);
        command.stdout(Stdio::piped()).stderr(File::create(self.path("stderr")).unwrap());
        let mut child = command.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (sender, first) = channel();
        let reader = std::thread::spawn(move || {
            let mut told = Vec::new();
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut piece) {
                told.extend_from_slice(&piece[..count]);
                let _ = sender.send(());
            }
            told
        });
        if after_first_ack {
            // Also goes on when the command ends without any.
            let _ = first.recv_timeout(Duration::from_secs(60));
        }
        std::thread::sleep(wait);
        child.kill().unwrap();
        let status = child.wait().unwrap();
        let told = String::from_utf8(reader.join().unwrap()).unwrap();
        let stderr = std::fs::read_to_string(self.path("stderr")).unwrap();
        let killed = status.signal() == Some(SIGKILL);
        assert!(killed || status.success(), "{:?}: {status}: {stderr}", plan.line);
        let mut acked = if killed { 0 } else { plan.ops.len() };
        if plan.told {
            // A line without its end was not told.
            let whole = &told[..told.rfind('\n').map_or(0, |end| end + 1)];
            let keys: Vec<&str> = whole.lines().collect();
            let issued = plan.ops.iter().map(|op| op.key.as_str());
            assert!(keys.iter().copied().eq(issued.take(keys.len())), "acks are not in order");
            assert!(killed || keys.len() == plan.ops.len(), "ended with acks missing: {stderr}");
            acked = keys.len();
        }
        End { killed, acked }
    }

    /// Reads the whole collection; every text must be that of its version.
    fn look(&mut self, export: bool) -> State {
        let output = match export {
            true => self.read(&["export", "store", "notes", "--out", "out", "--quiet"]),
            false => self.read(&["list", "store", "notes", "--json"]),
        };
        let stderr = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(1) && !self.born {
            // Killed before the collection was made: there is none.
            return State::new();
        }
        assert!(output.status.success(), "cannot read: {}: {stderr}", output.status);
        self.born = true;
        let text = match export {
            true => std::fs::read_to_string(self.path("out/notes.jsonl")).unwrap(),
            false => String::from_utf8(output.stdout).unwrap(),
        };
        let mut state = State::new();
        for line in text.lines() {
            let entry: Value = serde_json::from_str(line).unwrap();
            let (key, text) = (entry["key"].as_str().unwrap(), entry["text"].as_str().unwrap());
            let head = text.split(' ').next().unwrap();
            let version = head.parse().unwrap_or_else(|_| panic!("{key} holds {head:?}"));
            assert!(text == text_of(key, version), "{key}: the text is not that of {version}");
            let attributes = if export { &entry } else { &entry["attributes"] };
            assert_eq!(attributes["version"], version, "{key}: attributes of another version");
            assert!(state.insert(key.to_owned(), version).is_none(), "{key} is there twice");
        }
        state
    }

    /// How many operations of the round are in the store; panics when no number can be.
    fn settle(&mut self, plan: &Plan, acked: usize, seen: &State) -> usize {
        let mut state = self.settled.clone();
        for (at, op) in plan.ops.iter().enumerate() {
            if at >= acked && at.is_multiple_of(plan.step) && state == *seen {
                return at;
            }
            op.apply(&mut state);
        }
        if state == *seen {
            return plan.ops.len();
        }
        panic!("{}", self.wrong(plan, acked, seen));
    }

    /// What is wrong, key by key.
    fn wrong(&self, plan: &Plan, acked: usize, seen: &State) -> String {
        let mut must = self.settled.clone();
        plan.ops.iter().take(acked).for_each(|op| op.apply(&mut must));
        let mut can: BTreeMap<&str, Vec<Option<u64>>> = BTreeMap::new();
        for key in self.settled.keys().chain(seen.keys()).chain(plan.ops.iter().map(|o| &o.key)) {
            can.insert(key, vec![must.get(key).copied()]);
        }
        for op in plan.ops.iter().skip(acked) {
            can.entry(&op.key).or_default().push(op.version);
        }
        let wrong = can.iter().filter_map(|(key, can)| {
            let seen = seen.get(*key).copied();
            let before = self.settled.get(*key);
            (!can.contains(&seen))
                .then(|| format!("\n  {key}: {seen:?}, may be {can:?}, was {before:?}"))
        });
        let wrong: Vec<String> = wrong.collect();
        let what = match wrong.is_empty() {
            true => "each key may be so, but together they cut the order or a batch".to_owned(),
            false => format!("{} keys (None is absent):", wrong.len()),
        };
        let (command, issued) = (&plan.line[0], plan.ops.len());
        let shown: String = wrong.into_iter().take(20).collect();
        format!("after {command}, {acked} of {issued} acknowledged: {what}{shown}")
    }

    fn verify(&self) {
        let output = self.read(&["verify", "store", "--json"]);
        let text = String::from_utf8_lossy(&output.stdout);
        let report: Value = serde_json::from_str(&text).unwrap_or_default();
        let whole = output.status.success() && report["whole"] == true;
        assert!(whole, "{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
        assert_eq!(report["entries"], self.settled.len(), "verify counts other entries");
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn what_was_acknowledged_outlives_sigkill() {
    let rounds = number("PMLL_KILL_ROUNDS").unwrap_or(ROUNDS);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("PMLL_KILL_SEED").unwrap_or(clock);
    let mut run = Run {
        dir: tempfile::tempdir().unwrap(),
        seed,
        random: Random(seed),
        version: 0,
        born: false,
        settled: State::new(),
    };
    let mut tally = Tally::default();
    for round in 0..rounds {
        let plan = run.plan();
        let end = run.kill(&plan);
        let seen = run.look(round % 3 == 2);
        let done = run.settle(&plan, end.acked, &seen);
        run.settled = seen;
        if run.born && (round % 4 == 3 || round + 1 == rounds) {
            run.verify();
        }
        tally.acks += end.acked;
        tally.hits += usize::from(end.killed);
        tally.unacked += done - end.acked;
        let count = tally.by_command.entry(plan.line[0].clone()).or_default();
        count[0] += 1;
        count[1] += usize::from(end.killed);
    }
    let commands: Vec<String> = tally
        .by_command
        .iter()
        .map(|(name, [started, hit])| format!("{name} {hit}/{started}"))
        .collect();
    println!(
        "kill: {rounds} rounds, {} acknowledged, {} kills hit a running process ({}), {} done \
         without an acknowledgement, {} entries at the end, seed {seed}",
        tally.acks,
        tally.hits,
        commands.join(", "),
        tally.unacked,
        run.settled.len(),
    );
}
