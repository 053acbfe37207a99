//! One run of the script with one fault or two, told what it may expect.
//!
//! The model moves only when the store says that an act was done. Beside it stand the states the
//! disk may be in besides: those since the last durable one (`past`), and those that writes whose
//! outcome is unknown would have made (`doubts`).

use std::sync::Arc;

use pmll::io::sim::{Fault, Profile, SimDisk};
use pmll::{Clock, Draft, Error, ErrorKind, Store, Timestamp};

use pmll_torture::model::{Act, Model, Spot, State, difference};
use pmll_torture::oracle::{Expect, Oracle, Rigour, answers, observe};
use pmll_torture::script::{HandClock, Moment, Run, START, brief, open, perform, script};

use crate::faults::rig::{Armed, Case, Kind, Leg, Rig, Script};

/// Images of one power cut: all kept, nothing kept, and some of the others.
const IMAGES: usize = 4;
/// Acts that a short run plays on after its last fault.
const ACTS_BEHIND: usize = 6;
/// Tries of a look while reads fail; each uses one failure up.
const TRIES: usize = 64;

/// The entry whose time passes, and whose grace, during the script.
const EXPIRING: Spot = Spot("notes", "", "x1");

/// How far a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// From the leg of the fault to a few acts behind it; one image of a power cut, and a kill.
    Short,
    /// The whole script; all images, and those after the next owner's first checkpoint.
    Full,
}

/// A run under way.
pub(super) struct Play<'a> {
    script: &'a Script,
    cases: Vec<Case>,
    rig: Rig,
    clock: Arc<HandClock>,
    store: Store,
    /// Everything acknowledged.
    model: Model,
    /// What writes of unknown outcome would have made of it.
    doubts: Vec<Model>,
    /// What a power cut may leave: from the last durable state to the last one.
    past: Vec<Model>,
    /// A sync of the log has failed since the last open.
    poisoned: bool,
    /// The act that comes first.
    from: usize,
}

impl Script {
    /// Runs the script once, undisturbed.
    pub(super) fn measure() -> Result<Script, String> {
        let acts = script();
        let mut script = Script::of(acts.clone());
        let mut legs = Vec::new();
        let mut play = Play::begin(&script, &[], Reach::Full)?;
        for (n, act) in acts.iter().enumerate() {
            play.act(act).map_err(|e| format!("{}: {e}", brief(act)))?;
            if matches!(act, Act::Reopen | Act::Kill) {
                legs.push((n + 1, play.model.clone(), play.clock.now()));
            }
        }
        play.rig.count();
        play.check_live()?;
        let (counts, found) = (play.rig.before, std::mem::take(&mut play.rig.found));
        let calls = play.rig.calls.take().unwrap_or_default();
        script.legs = found
            .into_iter()
            .zip(legs)
            .map(|((disk, before), (act, model, now))| Leg { disk, before, act, model, now })
            .collect();
        Ok(Script { calls, counts, ..script })
    }
}

impl<'a> Play<'a> {
    /// A run with its judgement.
    pub(super) fn run(script: &'a Script, cases: &[Case], reach: Reach) -> Result<(), String> {
        let mut play = Play::begin(script, cases, reach).map_err(|e| format!("open: {e}"))?;
        let from = play.from;
        let (mut fired, mut behind) = (0, 0);
        for act in script.acts.iter().skip(from) {
            play.act(act).map_err(|e| format!("{}: {e}", brief(act)))?;
            if play.rig.fired() {
                behind += 1;
                if std::mem::replace(&mut fired, play.rig.fired_count()) != fired {
                    behind = behind.min(1);
                }
                // What a run shows is asked while things happen, and at its end.
                if reach == Reach::Full || behind <= 2 {
                    let live = play.check_live();
                    live.map_err(|e| format!("live, after {}: {e}", brief(act)))?;
                }
                if reach == Reach::Short && behind > ACTS_BEHIND {
                    break;
                }
            }
        }
        if !play.rig.fired() {
            return Err("the call was never reached".to_owned());
        }
        play.finish(reach)
    }

    fn begin(script: &'a Script, cases: &[Case], reach: Reach) -> Result<Play<'a>, String> {
        let leg = if reach == Reach::Short { script.leg_of(cases) } else { None };
        let is_measured = script.calls.is_empty();
        let mut rig = if is_measured { Rig::recording() } else { Rig::new(cases, leg) };
        let clock = HandClock::new(leg.map_or(START, |leg| leg.now));
        let store = open_in_spite(&mut rig, &clock)?;
        let mut play = Play {
            script,
            cases: cases.to_vec(),
            rig,
            clock,
            store,
            model: leg.map_or_else(Model::default, |leg| leg.model.clone()),
            doubts: Vec::new(),
            past: Vec::new(),
            poisoned: false,
            from: leg.map_or(0, |leg| leg.act),
        };
        play.opened()?;
        Ok(play)
    }

    fn act(&mut self, act: &Act) -> Result<(), String> {
        self.clock.advance(std::time::Duration::from_secs(1));
        match act {
            Act::Wait(time) => self.clock.advance(*time),
            Act::Reopen | Act::Kill => self.reopen(matches!(act, Act::Kill))?,
            _ => {
                let before = self.rig.armed();
                let done = perform(&self.store, act).map(drop);
                self.settle(act, done, &before)?;
            }
        }
        Ok(())
    }

    /// What an answer of the store means for the model.
    fn settle(
        &mut self,
        act: &Act,
        done: Result<(), Error>,
        before: &[Armed],
    ) -> Result<(), String> {
        let was_poisoned = self.poisoned;
        let is_single = self.cases.len() == 1;
        self.poisoned |= is_single && done.is_err() && self.syncs_failed_since(before);
        // The numbers of a second fault are those of another run: what it hit, the store must say.
        let says_so = |error: &Error| error.kind() == ErrorKind::Poisoned;
        self.poisoned |= !is_single && done.as_ref().is_err_and(says_so);
        let writes = !matches!(act, Act::Touch(_));
        match &done {
            Ok(()) if was_poisoned && writes && changes(&self.model.state, act) => {
                return Err("succeeded after a failed sync of the log".to_owned());
            }
            Ok(()) => {}
            Err(error) => self.check_error(error, before, was_poisoned && writes)?,
        }
        // A vacuum that failed leaves what it was to bury to a later one.
        let late = Act::Vacuum(vec![EXPIRING]);
        let act = if matches!(act, Act::Vacuum(_)) && self.rig.fired() { &late } else { act };
        let mut next = changes(&self.model.state, act).then(|| self.model.clone());
        if let Some(next) = &mut next {
            next.apply(act, self.clock.now())?;
        }
        for doubt in self.doubts.iter_mut().filter(|_| done.is_ok()) {
            if changes(&doubt.state, act) {
                doubt.apply(act, self.clock.now())?;
            }
        }
        match (act, next, done) {
            // Whether it came to burying anything shows.
            (Act::Vacuum(_), Some(next), done) if self.rig.fired() => {
                match self.look_in_spite() {
                    Ok(found) if found == next.state => self.acknowledge(next, true),
                    Ok(_)
                        if done.as_ref().map_or_else(|e| e.kind() != ErrorKind::Io, |()| true) => {}
                    // Or does not, as the look failed too.
                    _ => self.doubt(next, act)?,
                }
            }
            (_, Some(next), Ok(())) => {
                let durable = !matches!(act, Act::Buffer(..) | Act::Touch(_));
                self.acknowledge(next, durable);
            }
            (_, Some(next), Err(error)) if error.kind() == ErrorKind::Io => {
                self.doubt(next, act)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// With one fault, the last write of unknown outcome is the only one. With two, each of several may
    /// have come about or not, whatever became of the others.
    fn doubt(&mut self, next: Model, act: &Act) -> Result<(), String> {
        if self.cases.len() == 1 {
            self.doubts.clear();
        }
        let mut both = Vec::new();
        for doubt in self.doubts.iter().filter(|doubt| changes(&doubt.state, act)) {
            let mut doubt = doubt.clone();
            doubt.apply(act, self.clock.now())?;
            both.push(doubt);
        }
        self.doubts.append(&mut both);
        self.doubts.push(next);
        Ok(())
    }

    /// Whether a sync of the log was among the calls that failed.
    fn syncs_failed_since(&self, before: &[Armed]) -> bool {
        let now = self.rig.armed();
        now.iter().zip(before).any(|(now, before)| {
            now.fired > 0 && before.fired == 0 && self.script.fails_log_sync(now.case)
        })
    }

    fn acknowledge(&mut self, next: Model, durable: bool) {
        if durable {
            self.past.clear();
        }
        self.past.push(next.clone());
        self.model = next;
    }

    /// Whether an act may fail like this here.
    fn check_error(&self, error: &Error, before: &[Armed], poisoned: bool) -> Result<(), String> {
        use ErrorKind::{Exists, Full, Invalid, Io, NotFound, Poisoned};
        // An act that builds on one that failed.
        let follows = [NotFound, Invalid, Exists].contains(&error.kind());
        let allows = |(now, before): (&Armed, &Armed)| {
            let is_new = now.fired > before.fired;
            let may_fail = is_new || self.rig.fails_still();
            match now.case.kind {
                _ if now.fired == 0 => false,
                _ if follows => true,
                _ if poisoned && self.cases.len() == 1 => error.kind() == Poisoned,
                _ if poisoned && error.kind() == Poisoned => true,
                Kind::Write(Fault::Enospc) => error.kind() == Full && may_fail,
                // A half-written record of the log closes it: nothing may be written behind it.
                Kind::Write(_) => [Io, Poisoned].contains(&error.kind()),
                // One read that fails may be the index's: the next call opens it again.
                Kind::Read | Kind::Look => error.kind() == Io && may_fail,
            }
        };
        if self.rig.armed().iter().zip(before).any(allows) {
            return Ok(());
        }
        Err(format!("fails with {error:?}"))
    }

    fn reopen(&mut self, kill: bool) -> Result<(), String> {
        let now = self.clock.now();
        if kill {
            self.rig.fork();
        } else {
            let before = self.rig.armed();
            let closed = self.store.clone().close();
            if let Err(error) = closed {
                self.check_error(&error, &before, false)
                    .or_else(|e| if self.poisoned { Ok(()) } else { Err(e) })?;
            }
        }
        self.rig.mark();
        self.clock = HandClock::new(now);
        self.store = open_in_spite(&mut self.rig, &self.clock)?;
        self.opened()
    }

    /// An open settles what was in doubt.
    fn opened(&mut self) -> Result<(), String> {
        let is_strict = self.rig.fired() && !self.rig.fails_still();
        if is_strict || !self.doubts.is_empty() {
            match self.look_in_spite() {
                Ok(found) => {
                    let doubts = std::mem::take(&mut self.doubts);
                    match doubts.into_iter().find(|doubt| doubt.state == found) {
                        Some(doubt) => self.model = doubt,
                        None if self.model.state == found || !is_strict => {}
                        None => {
                            let why = difference(&found, &self.model.state);
                            return Err(format!("reopened: {why}"));
                        }
                    }
                }
                // The look itself may be the first to meet a fault.
                Err(why) if self.rig.fails_still() && why.contains("Io:") => {}
                Err(why) if is_strict => return Err(why),
                Err(_) => {}
            }
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

    /// The same, again and again while the look itself meets faults that come to an end.
    fn look_in_spite(&self) -> Result<State, String> {
        let mut tries = TRIES;
        loop {
            let ends = |armed: &Armed| ![0, u64::MAX].contains(&armed.left);
            let before = self.rig.armed();
            let may_fail = before.iter().any(|a| a.case.kind.is_read() && ends(a));
            tries -= 1;
            let found = self.look();
            // Of two faults the second may hit the way back from the first, whose error is the answer.
            let hit = |(now, before): (&Armed, &Armed)| now.fired > before.fired;
            let is_hit = self.cases.len() > 1 && self.rig.armed().iter().zip(&before).any(hit);
            match found {
                Err(why) if why.contains("Io:") && may_fail && tries > 0 => {}
                Err(_) if is_hit && tries > 0 => {}
                found => return found,
            }
        }
    }

    /// The live store shows what it acknowledged.
    fn check_live(&self) -> Result<(), String> {
        let reads_fail = self.cases.iter().any(|case| case.kind.is_read());
        let found = match self.look_in_spite() {
            // Of two faults, the answer may be the error of the first while the second keeps the index
            // from being opened again.
            Err(why)
                if reads_fail
                    && self.rig.fails_still()
                    && (why.contains("Io:") || (self.cases.len() > 1 && why.contains("Full:"))) =>
            {
                return Ok(());
            }
            found => found?,
        };
        match difference(&found, &self.model.state) {
            why if why.is_empty() => Ok(()),
            why => Err(why),
        }
    }

    fn finish(mut self, reach: Reach) -> Result<(), String> {
        self.rig.lift();
        let now = self.clock.now();
        let last = Act::Put(Spot("notes", "", "last"), Draft::text("space is back"));
        if self.model.state.shelves.contains_key("notes") {
            self.act(&last).map_err(|e| format!("the last put: {e}"))?;
        }
        self.check_live().map_err(|e| format!("live, at the end: {e}"))?;
        answers(&self.store, &self.model.state, &self.clock, now)?;

        let possible: Vec<&Model> = self.past.iter().chain(&self.doubts).collect();
        let mut images = self.rig.disk.crash_images(Profile::Posix, IMAGES);
        if reach == Reach::Short && !images.is_empty() {
            // Another one from case to case.
            let sum: u64 = self.cases.iter().map(|case| case.call).sum();
            images = vec![images.swap_remove(sum as usize % images.len())];
        }
        for image in images {
            judge(&image, &possible, now).map_err(|e| format!("power cut: {e}"))?;
        }
        let shown: Vec<&Model> = std::iter::once(&self.model).chain(&self.doubts).collect();
        judge(&self.rig.disk.fork_now(), &shown, now).map_err(|e| format!("killed: {e}"))?;
        if reach == Reach::Short {
            return Ok(());
        }

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
