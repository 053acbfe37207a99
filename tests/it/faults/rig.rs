//! The disk of a run over all its legs, with faults armed, and the cases there are.
//!
//! A case is a call that fails: a mutating one, a read, or a look at names and lengths; once, some times
//! in a row, or for ever. Calls are numbered over the whole script, whichever leg they fall into. A leg
//! begins where the store is opened; what is on disk there is kept, so that a run need not play the
//! legs before its fault again.

use pmll::Timestamp;
use pmll::io::sim::{Fault, SimDisk};

use pmll_torture::model::{Act, Model};

/// Seed of the disks.
const SEED: u64 = 4_711;
/// A fault that goes on for a while: space that somebody else frees, a cable that is put back.
const A_WHILE: u64 = 7;

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Write(Fault),
    Read,
    Look,
}

impl Kind {
    /// Whether calls fail that change nothing.
    pub(super) fn is_read(self) -> bool {
        !matches!(self, Kind::Write(_))
    }
}

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Times {
    Once,
    Some,
    ForEver,
}

impl Times {
    pub(super) const ALL: [Times; 3] = [Times::Once, Times::Some, Times::ForEver];

    fn number(self) -> u64 {
        match self {
            Times::Once => 1,
            Times::Some => A_WHILE,
            Times::ForEver => u64::MAX,
        }
    }
}

/// Which call fails, how, and how many of those that follow do too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub call: u64,
    pub kind: Kind,
    pub times: Times,
}

/// Calls of each kind: mutating ones, reads, looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub calls: u64,
    pub reads: u64,
    pub looks: u64,
}

impl Counts {
    fn of_disk(disk: &SimDisk) -> Counts {
        Counts { calls: disk.op_count(), reads: disk.read_count(), looks: disk.look_count() }
    }

    pub(super) fn of(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Write(_) => self.calls,
            Kind::Read => self.reads,
            Kind::Look => self.looks,
        }
    }

    fn add(&mut self, other: Counts) {
        self.calls += other.calls;
        self.reads += other.reads;
        self.looks += other.looks;
    }
}

/// A moment before an open.
pub(super) struct Leg {
    pub disk: SimDisk,
    /// Calls before it.
    pub before: Counts,
    /// The act that comes next.
    pub act: usize,
    pub model: Model,
    pub now: Timestamp,
}

/// The script, and what an undisturbed run of it does.
pub(super) struct Script {
    pub acts: Vec<Act>,
    /// Every mutating call in words.
    pub calls: Vec<String>,
    pub counts: Counts,
    pub legs: Vec<Leg>,
}

impl Script {
    pub(super) fn of(acts: Vec<Act>) -> Script {
        Script { acts, calls: Vec::new(), counts: Counts::default(), legs: Vec::new() }
    }

    /// Cases in words.
    pub(super) fn describe(&self, cases: &[Case]) -> String {
        let words = cases.iter().map(|case| {
            let Case { call, kind, times } = case;
            match kind {
                Kind::Read => format!("read {call} fails, {times:?}"),
                Kind::Look => format!("look {call} fails, {times:?}"),
                Kind::Write(fault) => {
                    format!("call {call} ({}), {fault:?}, {times:?}", self.words(*case))
                }
            }
        });
        words.collect::<Vec<_>>().join("; ")
    }

    /// The mutating call of a case in words.
    fn words(&self, case: Case) -> &str {
        let index = usize::try_from(case.call).unwrap_or(usize::MAX);
        self.calls.get(index).map_or("", String::as_str)
    }

    /// Whether a case lets a sync of the log fail: of a segment, or of the folder.
    pub(super) fn fails_log_sync(&self, case: Case) -> bool {
        let words = self.words(case);
        matches!(case.kind, Kind::Write(_))
            && (words.starts_with("sync wal/") || words.contains("\"wal\""))
    }

    /// The last leg that begins before all of the cases.
    pub(super) fn leg_of(&self, cases: &[Case]) -> Option<&Leg> {
        let behind = |leg: &&Leg| cases.iter().all(|case| leg.before.of(case.kind) <= case.call);
        self.legs.iter().rev().find(behind)
    }

    /// Every case there is, for one number of times after the other.
    pub(super) fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for times in Times::ALL {
            for fault in Fault::ALL {
                for (call, words) in (0..).zip(&self.calls) {
                    if fits(fault, words) {
                        cases.push(Case { call, kind: Kind::Write(fault), times });
                    }
                }
            }
            for kind in [Kind::Read, Kind::Look] {
                cases.extend((0..self.counts.of(kind)).map(|call| Case { call, kind, times }));
            }
        }
        cases
    }
}

/// Whether a fault would fire at a call, going by its words.
fn fits(fault: Fault, call: &str) -> bool {
    let is = |word: &str| call.starts_with(word);
    match fault {
        Fault::Eio | Fault::Eintr => true,
        Fault::Enospc => is("write") || is("create") || is("set length"),
        Fault::ShortWrite => is("write"),
        Fault::SyncFails => is("sync"),
    }
}

/// A case of a run: how often it fired, and how often it still will.
#[derive(Clone, Copy, Debug)]
pub(super) struct Armed {
    pub case: Case,
    pub fired: u64,
    pub left: u64,
}

/// The disk of a run, over all its legs.
pub(super) struct Rig {
    pub disk: SimDisk,
    /// The cases as they stood when this leg began.
    cases: Vec<Armed>,
    lifted: bool,
    /// Calls of earlier legs.
    pub before: Counts,
    /// The mutating ones in words, when that was asked for.
    pub calls: Option<Vec<String>>,
    /// And then what every later leg found.
    pub found: Vec<(SimDisk, Counts)>,
}

impl Rig {
    /// A run from the beginning that is written down.
    pub(super) fn recording() -> Rig {
        let rig = Rig { calls: Some(Vec::new()), ..Rig::new(&[], None) };
        rig.arm();
        rig
    }

    /// A run from the beginning, or from a leg.
    pub(super) fn new(cases: &[Case], leg: Option<&Leg>) -> Rig {
        let cases = cases
            .iter()
            .map(|case| Armed { case: *case, fired: 0, left: case.times.number() })
            .collect();
        let disk = leg.map_or_else(|| SimDisk::new(SEED), |leg| leg.disk.fork_now());
        let before = leg.map_or_else(Counts::default, |leg| leg.before);
        let rig = Rig { disk, cases, lifted: false, before, calls: None, found: Vec::new() };
        rig.arm();
        rig
    }

    fn arm(&self) {
        if self.calls.is_some() {
            self.disk.record();
        }
        if self.lifted {
            return;
        }
        for armed in &self.cases {
            let at = armed.case.call.saturating_sub(self.before.of(armed.case.kind));
            match armed.case.kind {
                Kind::Read => self.disk.fail_reads(at, armed.left),
                Kind::Look => self.disk.fail_looks(at, armed.left),
                Kind::Write(fault) => self.disk.fail_times(at, fault, armed.left),
            }
        }
    }

    /// The cases as they stand now.
    pub(super) fn armed(&self) -> Vec<Armed> {
        let mut cases = self.cases.clone();
        if !self.lifted {
            for (armed, (fired, left)) in cases.iter_mut().zip(self.disk.fault_counts()) {
                armed.fired += fired;
                armed.left = left;
            }
        }
        cases
    }

    /// Whether a call of the cases was reached.
    pub(super) fn fired(&self) -> bool {
        self.armed().iter().any(|armed| armed.fired > 0)
    }

    /// How often calls have failed.
    pub(super) fn fired_count(&self) -> u64 {
        self.armed().iter().map(|armed| armed.fired).sum()
    }

    /// Whether calls go on failing.
    pub(super) fn fails_still(&self) -> bool {
        !self.lifted && self.armed().iter().any(|armed| armed.fired > 0 && armed.left > 0)
    }

    /// Space was freed, the cable is back.
    pub(super) fn lift(&mut self) {
        self.cases = self.armed();
        self.lifted = true;
        self.disk.clear_faults();
    }

    /// The process dies: its successor finds a disk of its own.
    pub(super) fn fork(&mut self) {
        let next = self.disk.fork_now();
        self.cases = self.armed();
        self.count();
        self.disk = next;
        self.arm();
    }

    /// Calls from the beginning of the script to now.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = self.before;
        counts.add(Counts::of_disk(&self.disk));
        counts
    }

    /// Takes the calls of this leg to those of the earlier ones.
    pub(super) fn count(&mut self) {
        self.before = self.counts();
        if let (Some(calls), Some(run)) = (&mut self.calls, self.disk.recording()) {
            calls.extend((run.first_op()..run.end_op()).map(|op| run.describe(op)));
        }
    }

    /// Keeps what the next owner of the disk finds, for runs that begin here.
    pub(super) fn mark(&mut self) {
        if self.calls.is_some() {
            self.found.push((self.disk.fork_now(), self.counts()));
        }
    }
}
