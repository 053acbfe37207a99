//! One run of the script with one fault, told what it may expect.
//!
//! The model moves only when the store says that an act was done. Beside it stand the states the
//! disk may be in besides: those since the last durable one (`past`), and the one that a write whose
//! outcome is unknown would have made (`doubt`).

use std::sync::Arc;

use pmll::io::sim::{Fault, Profile, SimDisk};
use pmll::{Clock, Draft, Error, ErrorKind, Store, Timestamp};

use pmll_torture::model::{Act, Model, Spot, State, difference};
use pmll_torture::oracle::{Expect, Oracle, Rigour, answers, observe};
use pmll_torture::script::{HandClock, Moment, Run, START, brief, open, perform, script};

/// Seed of the disks.
const SEED: u64 = 4_711;
/// Images of one power cut: all kept, nothing kept, and some of the others.
const IMAGES: usize = 4;

/// The entry whose time passes, and whose grace, during the script.
const EXPIRING: Spot = Spot("notes", "", "x1");

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Write(Fault),
    Read,
}

/// Which call fails, how, and whether every later one does too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub call: u64,
    pub kind: Kind,
    pub sticky: bool,
}

/// The script, and what an undisturbed run of it does.
pub(super) struct Script {
    acts: Vec<Act>,
    /// Every mutating call in words.
    pub calls: Vec<String>,
    /// Reads of files.
    pub reads: u64,
}

impl Script {
    /// Runs the script once.
    pub(super) fn measure() -> Result<Script, String> {
        let script = Script { acts: script(), calls: Vec::new(), reads: 0 };
        let never = Case { call: u64::MAX, kind: Kind::Write(Fault::Eio), sticky: false };
        let mut play = Play::begin(&script, never)?;
        for act in &script.acts {
            play.act(act).map_err(|e| format!("{}: {e}", brief(act)))?;
        }
        play.rig.count();
        let (calls, reads) = (std::mem::take(&mut play.rig.calls), play.rig.reads);
        play.check_live()?;
        Ok(Script { calls, reads, ..script })
    }

    /// A case in words.
    pub(super) fn describe(&self, case: Case) -> String {
        let often = if case.sticky { "for ever" } else { "once" };
        match case.kind {
            Kind::Read => format!("read {} fails {often}", case.call),
            Kind::Write(fault) => {
                format!("call {} ({}), {fault:?} {often}", case.call, self.words(case))
            }
        }
    }

    /// The mutating call of a case in words.
    fn words(&self, case: Case) -> &str {
        let index = usize::try_from(case.call).unwrap_or(usize::MAX);
        self.calls.get(index).map_or("", String::as_str)
    }

    /// Whether a case lets a sync of the log fail: of a segment, or of the folder.
    fn fails_log_sync(&self, case: Case) -> bool {
        let words = self.words(case);
        case.kind != Kind::Read && (words.starts_with("sync wal/") || words.contains("\"wal\""))
    }
}

/// The disk of a run, over all its legs, with the fault armed.
struct Rig {
    disk: SimDisk,
    case: Case,
    lifted: bool,
    /// Calls of earlier legs, in words, and reads.
    calls: Vec<String>,
    reads: u64,
}

impl Rig {
    fn new(case: Case) -> Rig {
        let disk = SimDisk::new(SEED);
        let rig = Rig { disk, case, lifted: false, calls: Vec::new(), reads: 0 };
        rig.arm();
        rig
    }

    fn arm(&self) {
        self.disk.record();
        let before = match self.case.kind {
            Kind::Read => self.reads,
            Kind::Write(_) => self.calls.len() as u64,
        };
        let spent = self.case.call < before && !self.case.sticky;
        if self.lifted || spent {
            return;
        }
        let at = self.case.call.saturating_sub(before);
        match self.case.kind {
            Kind::Read => self.disk.fail_read_at(at, self.case.sticky),
            Kind::Write(fault) => self.disk.fail_at(at, fault, self.case.sticky),
        }
    }

    /// Whether the call of the case was reached.
    fn fired(&self) -> bool {
        let count = match self.case.kind {
            Kind::Read => self.reads + self.disk.read_count(),
            Kind::Write(_) => self.calls.len() as u64 + self.disk.op_count(),
        };
        count > self.case.call
    }

    /// Whether calls go on failing.
    fn fails_still(&self) -> bool {
        self.case.sticky && !self.lifted && self.fired()
    }

    /// Space was freed, the cable is back.
    fn lift(&mut self) {
        self.lifted = true;
        self.disk.clear_faults();
    }

    /// The process dies: its successor finds a disk of its own.
    fn fork(&mut self) {
        let next = self.disk.fork_now();
        self.count();
        self.disk = next;
        self.arm();
    }

    fn count(&mut self) {
        self.reads += self.disk.read_count();
        if let Some(run) = self.disk.recording() {
            self.calls.extend((run.first_op()..run.end_op()).map(|op| run.describe(op)));
        }
    }
}

/// A run under way.
pub(super) struct Play<'a> {
    script: &'a Script,
    rig: Rig,
    clock: Arc<HandClock>,
    store: Store,
    /// Everything acknowledged.
    model: Model,
    /// What a write of unknown outcome would have made of it.
    doubt: Option<Model>,
    /// What a power cut may leave: from the last durable state to the last one.
    past: Vec<Model>,
    /// A sync of the log has failed since the last open.
    poisoned: bool,
}

impl<'a> Play<'a> {
    /// A whole run with its judgement.
    pub(super) fn run(script: &'a Script, case: Case) -> Result<(), String> {
        let mut play = Play::begin(script, case).map_err(|e| format!("create: {e}"))?;
        for act in &script.acts {
            play.act(act).map_err(|e| format!("{}: {e}", brief(act)))?;
            if play.rig.fired() {
                play.check_live().map_err(|e| format!("live, after {}: {e}", brief(act)))?;
            }
        }
        if !play.rig.fired() {
            return Err("the call was never reached".to_owned());
        }
        play.finish()
    }

    fn begin(script: &'a Script, case: Case) -> Result<Play<'a>, String> {
        let mut rig = Rig::new(case);
        let clock = HandClock::new(START);
        let store = open_in_spite(&mut rig, &clock)?;
        let model = Model::default();
        let past = vec![model.clone()];
        Ok(Play { script, rig, clock, store, model, doubt: None, past, poisoned: false })
    }

    fn act(&mut self, act: &Act) -> Result<(), String> {
        self.clock.advance(std::time::Duration::from_secs(1));
        match act {
            Act::Wait(time) => self.clock.advance(*time),
            Act::Reopen | Act::Kill => self.reopen(matches!(act, Act::Kill))?,
            _ => {
                let before = self.rig.fired();
                let done = perform(&self.store, act).map(drop);
                let fired_now = !before && self.rig.fired();
                self.settle(act, done, fired_now)?;
            }
        }
        Ok(())
    }

    /// What an answer of the store means for the model.
    fn settle(
        &mut self,
        act: &Act,
        done: Result<(), Error>,
        fired_now: bool,
    ) -> Result<(), String> {
        let was_poisoned = self.poisoned;
        self.poisoned |= fired_now && done.is_err() && self.script.fails_log_sync(self.rig.case);
        let writes = !matches!(act, Act::Touch(_));
        match &done {
            Ok(()) if was_poisoned && writes && changes(&self.model.state, act) => {
                return Err("succeeded after a failed sync of the log".to_owned());
            }
            Ok(()) => {}
            Err(error) => self.check_error(error, fired_now, was_poisoned && writes)?,
        }
        // A vacuum that failed leaves what it was to bury to a later one.
        let late = Act::Vacuum(vec![EXPIRING]);
        let act = if matches!(act, Act::Vacuum(_)) && self.rig.fired() { &late } else { act };
        let mut next = changes(&self.model.state, act).then(|| self.model.clone());
        if let Some(next) = &mut next {
            next.apply(act, self.clock.now())?;
        }
        if let (Ok(()), Some(doubt)) = (&done, &mut self.doubt)
            && changes(&doubt.state, act)
        {
            doubt.apply(act, self.clock.now())?;
        }
        match (act, next, done) {
            // Whether it came to burying anything shows.
            (Act::Vacuum(_), Some(next), done) if self.rig.fired() => {
                if self.look().is_ok_and(|found| found == next.state) {
                    self.acknowledge(next, true);
                } else if done.is_err_and(|e| e.kind() == ErrorKind::Io) {
                    self.doubt = Some(next);
                }
            }
            (_, Some(next), Ok(())) => {
                let durable = !matches!(act, Act::Buffer(..) | Act::Touch(_));
                self.acknowledge(next, durable);
            }
            (_, Some(next), Err(error)) if error.kind() == ErrorKind::Io => {
                self.doubt = Some(next);
            }
            _ => {}
        }
        Ok(())
    }

    fn acknowledge(&mut self, next: Model, durable: bool) {
        if durable {
            self.past.clear();
        }
        self.past.push(next.clone());
        self.model = next;
    }

    /// Whether an act may fail like this here.
    fn check_error(&self, error: &Error, fired_now: bool, poisoned: bool) -> Result<(), String> {
        use ErrorKind::{Exists, Full, Invalid, Io, NotFound, Poisoned};
        let case = self.rig.case;
        // An act that builds on one that failed.
        let follows = [NotFound, Invalid, Exists].contains(&error.kind());
        let allowed = match case.kind {
            _ if !self.rig.fired() => false,
            _ if follows => true,
            _ if poisoned => error.kind() == Poisoned,
            Kind::Write(Fault::Enospc) => {
                error.kind() == Full && (fired_now || self.rig.fails_still())
            }
            // A half-written record of the log closes it: nothing may be written behind it.
            Kind::Write(_) => [Io, Poisoned].contains(&error.kind()),
            // One read that fails may be the index's: the next call opens it again.
            Kind::Read => error.kind() == Io && (fired_now || self.rig.fails_still()),
        };
        if allowed { Ok(()) } else { Err(format!("fails with {error:?}")) }
    }

    fn reopen(&mut self, kill: bool) -> Result<(), String> {
        let now = self.clock.now();
        if kill {
            self.rig.fork();
        } else {
            let before = self.rig.fired();
            let closed = self.store.clone().close();
            if let Err(error) = closed {
                let fired_now = !before && self.rig.fired();
                self.check_error(&error, fired_now, false)
                    .or_else(|e| if self.poisoned { Ok(()) } else { Err(e) })?;
            }
        }
        self.clock = HandClock::new(now);
        self.store = open_in_spite(&mut self.rig, &self.clock)?;
        if self.rig.fired() && !self.rig.fails_still() {
            let found = self.look()?;
            match self.doubt.take().filter(|doubt| doubt.state == found) {
                Some(doubt) => self.model = doubt,
                None if self.model.state == found => {}
                None => return Err(format!("reopened: {}", difference(&found, &self.model.state))),
            }
        } else if let Some(doubt) = self.doubt.take()
            && self.look().is_ok_and(|found| found == doubt.state)
        {
            self.model = doubt;
        }
        self.past = vec![self.model.clone()];
        self.poisoned = false;
        Ok(())
    }

    /// Everything to see, with the clock at the beginning, when nothing was expired.
    fn look(&self) -> Result<State, String> {
        let now = self.clock.now();
        self.clock.set(START);
        let found = observe(&self.store);
        self.clock.set(now);
        found
    }

    /// The live store shows what it acknowledged.
    fn check_live(&self) -> Result<(), String> {
        let found = match (self.rig.case.kind, self.look()) {
            (Kind::Read, Err(why)) if why.contains("Io:") => {
                if self.rig.fails_still() {
                    return Ok(());
                }
                // The look itself met the fault.
                self.look()?
            }
            (_, found) => found?,
        };
        match difference(&found, &self.model.state) {
            why if why.is_empty() => Ok(()),
            why => Err(why),
        }
    }

    fn finish(mut self) -> Result<(), String> {
        self.rig.lift();
        let now = self.clock.now();
        let last = Act::Put(Spot("notes", "", "last"), Draft::text("space is back"));
        if self.model.state.shelves.contains_key("notes") {
            self.act(&last).map_err(|e| format!("the last put: {e}"))?;
        }
        self.check_live().map_err(|e| format!("live, at the end: {e}"))?;
        answers(&self.store, &self.model.state, &self.clock, now)?;

        let possible: Vec<&Model> = self.past.iter().chain(&self.doubt).collect();
        for image in self.rig.disk.crash_images(Profile::Posix, IMAGES) {
            judge(&image, &possible, now).map_err(|e| format!("power cut: {e}"))?;
        }
        let shown: Vec<&Model> = std::iter::once(&self.model).chain(&self.doubt).collect();
        judge(&self.rig.disk.fork_now(), &shown, now).map_err(|e| format!("killed: {e}"))?;

        let disk = self.rig.disk.fork_now();
        let clock = HandClock::new(START);
        let store = open(&disk, &clock).map_err(|e| format!("next owner: {e:?}"))?;
        let found = observe(&store).map_err(|e| format!("next owner: {e}"))?;
        let Some(same) = shown.iter().find(|model| model.state == found) else {
            return Err(format!("next owner: {}", difference(&found, &self.model.state)));
        };
        store.checkpoint().map_err(|e| format!("next owner's checkpoint: {e:?}"))?;
        for image in disk.crash_images(Profile::Posix, IMAGES) {
            judge(&image, &[same], now)
                .map_err(|e| format!("power cut after the next owner's checkpoint: {e}"))?;
        }
        Ok(())
    }
}

/// Opens, and after a failure opens again when its reason is gone.
fn open_in_spite(rig: &mut Rig, clock: &Arc<HandClock>) -> Result<Store, String> {
    let first = match open(&rig.disk, clock) {
        Ok(store) => return Ok(store),
        Err(error) => error,
    };
    let expected = [ErrorKind::Io, ErrorKind::Full].contains(&first.kind());
    if !rig.fired() || !expected {
        return Err(format!("does not open: {first:?}"));
    }
    rig.lift();
    open(&rig.disk, clock).map_err(|e| format!("does not open after {first:?}: {e:?}"))
}

/// Asks the crash suite's oracle whether a disk is in one of these states.
fn judge(disk: &SimDisk, models: &[&Model], now: Timestamp) -> Result<(), String> {
    let moments = models.iter().map(|model| Moment {
        name: "one of the possible states".to_owned(),
        leg: 0,
        issued: 0,
        acked: 0,
        durable: true,
        now,
        state: Arc::new(model.state.clone()),
        next_id: model.next_id,
        request: model.request,
        soft: Arc::default(),
    });
    let run = Run { disks: Vec::new(), moments: moments.collect() };
    let window = 0..=run.moments.len() - 1;
    let label = disk.label();
    Oracle::new(&run)
        .judge(disk, &window, now, Rigour::Full, Expect::default())
        .map(drop)
        .map_err(|e| format!("{label}: {e}"))
}

/// Whether an act that succeeds changes this state. What an earlier act failed to make, it cannot.
fn changes(state: &State, act: &Act) -> bool {
    let shelf = |spot: &Spot| state.shelves.get(spot.0);
    let item = |spot: &Spot| shelf(spot).is_some_and(|s| s.items.contains_key(&spot.place()));
    match act {
        Act::Define(name, _) => !state.shelves.contains_key(*name),
        Act::Put(spot, _) | Act::Buffer(spot, _) | Act::Submit(spot, _) => shelf(spot).is_some(),
        Act::Update(spot, _) | Act::Pin(spot, _) | Act::Delete(spot) => item(spot),
        Act::Batch(request, acts) => {
            let possible = |act: &Act| match act {
                Act::Update(spot, _) => item(spot),
                Act::Put(spot, _) | Act::Delete(spot) => shelf(spot).is_some(),
                _ => false,
            };
            acts.iter().all(possible)
                && (request.is_some() || acts.iter().any(|act| changes(state, act)))
        }
        Act::Set(..) => true,
        Act::Drop(name) => state.shelves.contains_key(*name),
        Act::Vacuum(buried) => buried.iter().any(item),
        Act::Sync => true,
        Act::Compress(_) | Act::Recompress | Act::Late(..) => false,
        Act::Touch(_) | Act::Checkpoint | Act::Wait(_) | Act::Reopen | Act::Kill => false,
    }
}
