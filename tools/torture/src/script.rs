//! The scripted workload, and a run of it on a disk that records.
//!
//! 1. [`script`] is one fixed list of acts that meets every way the store changes its files.
//! 2. [`play`] runs it with a clock moved by hand, beside the model, and keeps for every act the
//!    state after it and the calls of the disk between which it was issued and acknowledged.
//! 3. A kill in the middle starts a new leg: another disk, on which the old one's unsynced changes
//!    are still pending, and whose first calls are the recovery.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use pmll::io::sim::SimDisk;
use pmll::{
    Batch, Clock, Collection, CollectionSpec, Draft, Durability, Element, Error, ErrorKind, Metric,
    Namespace, Options, Patch, Policy, Receipt, Scan, Standing, Store, Timestamp,
};
use serde_json::json;

use crate::model::{Act, CLIENT, Model, Spot, State};

/// The moment every script begins: 2023-11-14.
pub const START: Timestamp = Timestamp(1_700_000_000_000_000);

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct HandClock {
    wall: AtomicI64,
    ran: AtomicI64,
}

impl HandClock {
    pub fn new(now: Timestamp) -> Arc<HandClock> {
        Arc::new(HandClock { wall: AtomicI64::new(now.0), ran: AtomicI64::new(0) })
    }

    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(0);
        self.wall.fetch_add(micros, Ordering::AcqRel);
        self.ran.fetch_add(micros, Ordering::AcqRel);
    }

    /// Sets the wall clock, as a person would: no time passes.
    pub fn set(&self, now: Timestamp) {
        self.wall.store(now.0, Ordering::Release);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall.load(Ordering::Acquire))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.ran.load(Ordering::Acquire)).unwrap_or(0))
    }
}

/// The smallest budget, and no thread of its own: every run makes the same calls.
pub fn options() -> Options {
    // Few rows are enough to be grouped: files of cells come and go as well.
    let cells_rows_min = 6;
    Options { background: false, budget_bytes: Some(1 << 20), cells_rows_min, ..Options::default() }
}

/// Opens the store on a disk.
pub fn open(disk: &SimDisk, clock: &Arc<HandClock>) -> Result<Store, Error> {
    let clock: Arc<dyn Clock> = Arc::clone(clock) as Arc<dyn Clock>;
    Store::builder("sim").disk(Arc::new(disk.clone())).clock(clock).options(options()).open()
}

/// Bytes that zstd cannot shorten, the same for the same number.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// A vector that is exact in f16 as well, the same for the same number.
pub fn vector(seed: u64, dim: usize) -> Vec<f32> {
    // Sixteenths.
    noise(seed, dim).into_iter().map(|byte| (f32::from(byte) - 127.0) / 16.0).collect()
}

fn note(number: u64) -> Draft {
    Draft::text(format!("note {number}: {}", "the violin was played again ".repeat(4)))
        .vector(vector(number, 8))
        .attr("conv", format!("c{}", number % 3))
        .attr("turn", number)
        .session("s1")
        .sequence(number)
        .salience(0.5)
}

fn person(number: u64) -> Draft {
    Draft::bytes(noise(number, 40)).vector(vector(number, 4)).attr("age", number)
}

/// The workload: about eighty acts.
pub fn script() -> Vec<Act> {
    use Act::{
        Batch, Buffer, Checkpoint, Compress, Define, Delete, Drop, Kill, Late, Pin, Put,
        Recompress, Reopen, Set, Submit, Sync, Touch, Update, Vacuum, Wait,
    };
    let n = |key| Spot("notes", "", key);
    let u = |key| Spot("notes", "user/7", key);
    let p = |key| Spot("people", "", key);
    let dotted = CollectionSpec::new().dim(4).metric(Metric::Dot).element(Element::F16);
    let hour = Duration::from_secs(3600);
    vec![
        Define("notes", CollectionSpec::new()),
        Put(n("n1"), note(1)),
        Define("people", dotted.model("m1")),
        Put(n("n2"), note(2)),
        Put(u("n1"), note(3).pinned(true)),
        Batch(
            Some(1),
            vec![Put(p("p1"), person(1)), Put(n("n3"), note(4)), Update(n("n1"), seen(1))],
        ),
        Touch(n("n2")),
        Pin(n("n2"), true),
        Delete(u("n1")),
        Set("policy.rho", json!(0.25)),
        Buffer(n("b1"), note(5)),
        Buffer(n("b2"), Draft::text("no vector")),
        Sync,
        Checkpoint,
        Put(n("n1"), note(6)),
        Delete(n("n2")),
        Put(n("x1"), note(7).ttl(hour)),
        Update(n("n3"), Patch::default().attr("conv", serde_json::Value::Null).payload("short")),
        Touch(n("n3")),
        Checkpoint,
        // Down: what ranks low has its codes packed, or leaves memory.
        Compress(Policy::Paper),
        Touch(n("x1")),
        Touch(n("x1")),
        Touch(n("b1")),
        // Up again, and others down.
        Compress(Policy::Paper),
        Update(n("n1"), seen(2)),
        Recompress,
        Put(n("large"), Draft::bytes(noise(8, 70 << 10)).vector(vector(8, 8))),
        Update(n("large"), seen(2)),
        Batch(Some(2), vec![Delete(p("p1")), Put(p("p2"), person(2)), Put(p("p3"), person(3))]),
        Reopen,
        Put(u("deep"), note(9)),
        Set("policy.rho", json!({"hot": [1, 2.5, "x"]})),
        Set("tau", json!("gone soon")),
        Drop("people"),
        Put(n("n4"), note(10)),
        Define("people", CollectionSpec::new().metric(Metric::L2)),
        Put(p("p2"), person(4)),
        Wait(2 * hour),
        Vacuum(vec![]),
        Set("tau", serde_json::Value::Null),
        Buffer(n("b3"), note(11)),
        Kill,
        Submit(n("n5"), note(12)),
        Late(n("n6"), note(15)),
        // More than the budget's trigger: a run by itself, then back again.
        Set("budget_bytes", json!(2 << 20)),
        Batch(None, (0..).zip(HEAVY).map(|(i, key)| Put(n(key), heavy(i))).collect()),
        Checkpoint,
        Set("budget_bytes", json!(1 << 20)),
        Compress(Policy::Watermark),
        Recompress,
        Batch(None, HEAVY.into_iter().map(|key| Delete(n(key))).collect()),
        Set("budget_bytes", serde_json::Value::Null),
        Compress(Policy::Paper),
        Batch(None, (20..).zip(KEYS).map(|(i, key)| Put(n(key), note(i))).collect()),
        Delete(n("b1")),
        Checkpoint,
        Batch(None, KEYS.into_iter().take(8).map(|key| Delete(n(key))).collect()),
        Wait(26 * hour),
        Put(n("y1"), Draft::text("expires as well").expires(Timestamp(START.0 + 1))),
        Vacuum(vec![n("x1")]),
        Put(n("after"), note(13)),
        Reopen,
        Delete(n("large")),
        Put(p("p2"), person(5)),
        Vacuum(vec![]),
        Put(n("n1"), note(14)),
    ]
}

const KEYS: [&str; 12] =
    ["k00", "k01", "k02", "k03", "k04", "k05", "k06", "k07", "k08", "k09", "k10", "k11"];

const HEAVY: [&str; 9] = ["h0", "h1", "h2", "h3", "h4", "h5", "h6", "h7", "h8"];

/// As much as may stand in RAM at all.
fn heavy(number: u64) -> Draft {
    Draft::bytes(noise(number, 60 << 10)).vector(vector(number, 8))
}

fn seen(times: u64) -> Patch {
    Patch::default().attr("seen", times)
}

/// An act of a run: when it was issued and acknowledged, and what the store holds after it.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The act in words.
    pub name: String,
    /// The leg it belongs to.
    pub leg: usize,
    /// Calls of the leg's disk before it began.
    pub issued: u64,
    /// Calls of the leg's disk when it returned.
    pub acked: u64,
    /// Whether its return means that everything up to here is on disk.
    pub durable: bool,
    /// The wall clock then.
    pub now: Timestamp,
    /// What there is to see after it.
    pub state: Arc<State>,
    /// The id the next entry gets.
    pub next_id: u64,
    /// The client's last request.
    pub request: Option<u64>,
    /// What was durable beside the entries.
    pub soft: Arc<Soft>,
}

/// A finished run.
pub struct Run {
    /// The disk of each leg.
    pub disks: Vec<SimDisk>,
    /// Every act in order; the first is the creation of the store.
    pub moments: Vec<Moment>,
}

/// Plays acts beside the model, recording. The live store is compared with the model by `look`
/// after every act.
pub fn play(
    seed: u64,
    acts: &[Act],
    look: &dyn Fn(&Store, &Moment, &HandClock) -> Result<(), String>,
) -> Result<Run, String> {
    let disk = SimDisk::new(seed);
    disk.record();
    let mut clock = HandClock::new(START);
    let mut store = open(&disk, &clock).map_err(|e| format!("create: {e:?}"))?;
    let mut run = Run { disks: vec![disk], moments: Vec::new() };
    let mut model = Model::default();
    run.add("create the store".to_owned(), 0, true, START, &model, Soft::of(&store)?);
    for act in acts {
        let name = brief(act);
        clock.advance(Duration::from_secs(1));
        let now = clock.now();
        let mut issued = run.disk().op_count();
        model.apply(act, now).map_err(|e| format!("{name}: {e}"))?;
        match act {
            Act::Wait(time) => clock.advance(*time),
            Act::Reopen => {
                store.close().map_err(|e| format!("{name}: close: {e:?}"))?;
                clock = HandClock::new(now);
                store = open(run.disk(), &clock).map_err(|e| format!("{name}: {e:?}"))?;
            }
            Act::Kill => {
                let disk = run.disk().fork_now();
                disk.record();
                issued = 0;
                run.disks.push(disk);
                // Only now: what the old owner does while it goes is on its own disk.
                drop(store);
                clock = HandClock::new(now);
                store = open(run.disk(), &clock).map_err(|e| format!("{name}: {e:?}"))?;
            }
            _ => {
                perform(&store, act).map_err(|e| format!("{name}: {e:?}"))?;
            }
        }
        let durable = !matches!(act, Act::Buffer(..) | Act::Touch(_) | Act::Wait(_));
        let mut soft = Soft::of(&store)?;
        if !matches!(act, Act::Checkpoint | Act::Reopen) {
            // Counts since the last checkpoint are in RAM.
            soft.accesses = run.moments.last().map(|m| m.soft.accesses.clone()).unwrap_or_default();
        }
        run.add(name, issued, durable, clock.now(), &model, soft);
        let last = run.moments.last().ok_or("no moment")?;
        look(&store, last, &clock).map_err(|e| format!("live, after {}: {e}", last.name))?;
    }
    let issued = run.disk().op_count();
    let soft = Soft::of(&store)?;
    store.close().map_err(|e| format!("close: {e:?}"))?;
    run.add("close".to_owned(), issued, true, clock.now(), &model, soft);
    Ok(run)
}

impl Run {
    fn disk(&self) -> &SimDisk {
        &self.disks[self.disks.len() - 1]
    }

    fn add(
        &mut self,
        name: String,
        issued: u64,
        durable: bool,
        now: Timestamp,
        model: &Model,
        soft: Soft,
    ) {
        let (leg, acked) = (self.disks.len() - 1, self.disk().op_count());
        // An act that changes nothing shares its state with the one before.
        let state = match self.moments.last() {
            Some(last) if *last.state == model.state => Arc::clone(&last.state),
            _ => Arc::new(model.state.clone()),
        };
        let (next_id, request) = (model.next_id, model.request);
        self.moments.push(Moment {
            name,
            leg,
            issued,
            acked,
            durable,
            now,
            state,
            next_id,
            request,
            soft: Arc::new(soft),
        });
    }
}

/// What is kept beside the entries, and costs rank or time when it is lost, not data. Yet a power cut
/// takes nothing of it that an act had made durable.
#[derive(Clone, Debug, Default)]
pub struct Soft {
    /// Entries that have codes in Level 1.
    pub warm: BTreeSet<u64>,
    /// Accesses by entry, as the last checkpoint counted them.
    pub accesses: BTreeMap<u64, u64>,
}

impl Soft {
    /// That of a live store.
    pub fn of(store: &Store) -> Result<Soft, String> {
        let fail = |e: Error| format!("soft state: {e:?}");
        let is_warm = |s: Standing| matches!(s, Standing::Warm8 | Standing::Warm4);
        let scored = pmll::inspect::scores(store).map_err(fail)?;
        let warm = scored.iter().filter(|entry| is_warm(entry.standing));
        let mut soft =
            Soft { warm: warm.map(|entry| entry.id.0).collect(), accesses: BTreeMap::new() };
        for info in store.collections().map_err(fail)? {
            let Some(collection) = store.find_collection(&info.name).map_err(fail)? else {
                continue;
            };
            let page = collection.scan(Scan::new().limit(1000)).map_err(fail)?;
            soft.accesses.extend(page.entries.iter().map(|e| (e.id.0, e.access_count)));
        }
        Ok(soft)
    }

    /// Whether nothing of it is missing in another one.
    pub fn is_kept_by(&self, later: &Soft) -> Result<(), String> {
        let lost: Vec<u64> = self.warm.difference(&later.warm).copied().collect();
        if !lost.is_empty() {
            return Err(format!("entries {lost:?} have left Level 1"));
        }
        for (id, count) in &self.accesses {
            if later.accesses.get(id).is_some_and(|now| now < count) {
                let now = later.accesses.get(id);
                return Err(format!("entry {id} had {count} accesses, now {now:?}"));
            }
        }
        Ok(())
    }
}

/// Does one act on a store. Receipts are given back for those that write entries.
pub fn perform(store: &Store, act: &Act) -> Result<Vec<Receipt>, Error> {
    match act {
        Act::Define(name, spec) => store.collection_with(name, spec.clone()).map(|_| ())?,
        Act::Touch(spot) => at(store, *spot)?.touch(spot.2).map(|_| ())?,
        Act::Pin(spot, pinned) => at(store, *spot)?.pin(spot.2, *pinned).map(|_| ())?,
        Act::Set(name, value) => store.set_setting(name, value.clone())?,
        Act::Drop(name) => store.drop_collection(name).map(|_| ())?,
        Act::Sync => store.sync()?,
        Act::Checkpoint => store.checkpoint().map(|_| ())?,
        Act::Vacuum(_) => store.vacuum().map(|_| ())?,
        Act::Compress(policy) => store.compress_with(*policy).map(|_| ())?,
        Act::Recompress => store.recompress().map(|_| ())?,
        Act::Put(..) | Act::Update(..) | Act::Delete(_) => {
            return store.write(stage(store, Batch::new(), act)?);
        }
        Act::Buffer(spot, draft) => {
            let batch = stage(store, Batch::new(), &Act::Put(*spot, draft.clone()))?;
            return store.write(batch.durability(Durability::Buffer));
        }
        Act::Submit(spot, draft) => {
            let batch = stage(store, Batch::new(), &Act::Put(*spot, draft.clone()))?;
            return store.submit(batch)?.wait();
        }
        Act::Late(spot, draft) => {
            let batch = stage(store, Batch::new(), &Act::Put(*spot, draft.clone()))?;
            return match store.submit(batch.deadline(Duration::ZERO))?.wait() {
                Err(error) if error.kind() == ErrorKind::Expired => Ok(Vec::new()),
                Err(error) => Err(error),
                Ok(_) => Err(Error::new(ErrorKind::Internal, "written after its deadline")),
            };
        }
        Act::Batch(request, acts) => return store.write(batch(store, *request, acts)?),
        Act::Wait(_) | Act::Reopen | Act::Kill => {}
    }
    Ok(Vec::new())
}

/// The batch of a [`Act::Batch`].
pub fn batch(store: &Store, request: Option<u64>, acts: &[Act]) -> Result<Batch, Error> {
    let mut batch = Batch::new();
    if let Some(number) = request {
        batch = batch.request(CLIENT, number);
    }
    acts.iter().try_fold(batch, |batch, act| stage(store, batch, act))
}

fn stage(store: &Store, batch: Batch, act: &Act) -> Result<Batch, Error> {
    Ok(match act {
        Act::Put(spot, draft) => batch.put(&at(store, *spot)?, spot.2, draft.clone()),
        Act::Update(spot, patch) => batch.update(&at(store, *spot)?, spot.2, patch.clone()),
        Act::Delete(spot) => batch.delete(&at(store, *spot)?, spot.2),
        other => {
            let text = format!("{other:?} is no part of a batch");
            return Err(Error::new(pmll::ErrorKind::Invalid, text));
        }
    })
}

/// The handle an act of the script works through.
pub fn at(store: &Store, spot: Spot) -> Result<Collection, Error> {
    let found = store.find_collection(spot.0)?;
    let collection = found.ok_or_else(|| {
        Error::new(pmll::ErrorKind::NotFound, format!("the script needs collection {}", spot.0))
    })?;
    Ok(collection.in_namespace(Namespace::new(spot.1)?))
}

/// An act in a few words.
pub fn brief(act: &Act) -> String {
    match act {
        Act::Put(spot, _) => format!("put {}/{}/{}", spot.0, spot.1, spot.2),
        Act::Buffer(spot, _) => format!("buffer {}/{}/{}", spot.0, spot.1, spot.2),
        Act::Submit(spot, _) => format!("submit {}/{}/{}", spot.0, spot.1, spot.2),
        Act::Late(spot, _) => format!("late put of {}/{}/{}", spot.0, spot.1, spot.2),
        Act::Batch(_, acts) => format!("batch of {}", acts.len()),
        other => format!("{other:?}").chars().take(60).collect(),
    }
}
