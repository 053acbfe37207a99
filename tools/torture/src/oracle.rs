//! The oracle: may a disk be in this state, given what was issued and acknowledged?
//!
//! 1. [`Oracle::window`] turns a point of a run into the range of states a crash there may leave:
//!    from the last one acknowledged as durable to the last one issued.
//! 2. [`Oracle::judge`] opens an image and takes it apart: recovered state, exact answers, deep
//!    verification, no file left over, one more write, close, and the same again.
//!
//! Many images recover to one and the same disk, byte for byte. What is asked after recovery (deep
//! verification, searches, the next write, close, open again) is asked once for each such disk in
//! each state, and of the repetitions every eighth time: the answers are worked out from what
//! recovery left. Opening and reading everything is done for every image.
//!
//! An image is looked at with the clock of the script's first moment, so that expired entries
//! show as well; then with the clock of the crash, when they must not.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use pmll::io::sim::{Profile, SimDisk};
use pmll::{Depth, Draft, Entry, ErrorKind, Exactness, Query, Salvage, Scan, Store, Timestamp};

use crate::derived::{Derived, INDEX};
use crate::model::{Act, Item, Shelf, Spot, State, bits, difference};
use crate::script::{HandClock, Moment, Run, START, Soft, at, batch, open};

/// What an image is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rigour {
    /// Everything.
    Full,
    /// Everything, and derived files are thrown away before the last look. Where all of them go, the
    /// image is salvaged beside, which costs as much as ten openings.
    Without(Derived),
    /// Some earlier state or a typed refusal: the disk lied about its syncs.
    Lying,
}

/// What else is known of an image.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expect {
    /// The act whose soft state must be there: none was under way.
    pub quiet: Option<usize>,
    /// Sectors hold what was there before or what was written, nothing else: then a crash damages nothing,
    /// and nothing may be taken for rot.
    pub whole_sectors: bool,
}

/// Of so many images whose recovered disk was judged before, one is judged in full again.
const AGAIN_EVERY: u64 = 8;

/// Judges disks by a run.
pub struct Oracle<'a> {
    /// The run.
    pub run: &'a Run,
    /// Recovered disks that were found good: hash of the bytes, state, wall clock.
    good: Mutex<HashSet<(u128, usize, Timestamp)>>,
    repeated: AtomicU64,
}

/// The name of the collection the oracle writes its own entry to.
const PROBE: &str = "probe";

impl<'a> Oracle<'a> {
    /// An oracle that has judged nothing yet.
    pub fn new(run: &'a Run) -> Oracle<'a> {
        Oracle { run, good: Mutex::default(), repeated: AtomicU64::new(0) }
    }

    /// Numbers of the states that a crash before call `op` of a leg may leave. `kept` means that
    /// the operating system lived on, so that buffered writes count as well.
    pub fn window(&self, leg: usize, op: u64, kept: bool) -> RangeInclusive<usize> {
        let mut moments = self.run.moments.iter().enumerate();
        let acked = |m: &Moment| m.leg < leg || (m.leg == leg && m.acked <= op);
        let issued = |m: &Moment| m.leg < leg || (m.leg == leg && m.issued < op);
        let low = moments.clone().rfind(|(_, m)| (m.durable || kept) && acked(m));
        let high = moments.rfind(|(_, m)| issued(m));
        let low = low.map_or(0, |(k, _)| k);
        low..=high.map_or(0, |(k, _)| k).max(low)
    }

    /// The act that has ended at that point, when none is under way.
    pub fn quiet(&self, leg: usize, op: u64) -> Option<usize> {
        let k = self.run.moments.iter().rposition(|m| m.leg == leg && m.acked == op)?;
        let next = self.run.moments.get(k + 1);
        next.is_none_or(|next| next.leg > leg || next.issued >= op).then_some(k)
    }

    /// The wall clock at that point.
    pub fn now(&self, leg: usize, op: u64) -> Timestamp {
        let mut moments = self.run.moments.iter();
        let begun = moments.rfind(|m| m.leg < leg || (m.leg == leg && m.issued < op));
        begun.map_or(START, |m| m.now)
    }

    /// Opens an image and asks it everything. Gives back the numbers of the states it is in, which
    /// are several when an act changed nothing; the disk is left as the second open left it.
    pub fn judge(
        &self,
        disk: &SimDisk,
        window: &RangeInclusive<usize>,
        now: Timestamp,
        rigour: Rigour,
        expect: Expect,
    ) -> Result<Vec<usize>, String> {
        let judged = catch_unwind(AssertUnwindSafe(|| self.ask(disk, window, now, rigour, expect)));
        judged.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("panicked: {}", text.unwrap_or("?")))
        })
    }

    fn ask(
        &self,
        disk: &SimDisk,
        window: &RangeInclusive<usize>,
        now: Timestamp,
        rigour: Rigour,
        expect: Expect,
    ) -> Result<Vec<usize>, String> {
        let clock = HandClock::new(START);
        let derived = match rigour {
            Rigour::Without(derived) => Some((derived, disk.fork_now())),
            Rigour::Full | Rigour::Lying => None,
        };
        let store = match open(disk, &clock) {
            Ok(store) => store,
            // `Invalid`: not even the file that makes a directory a store is left.
            Err(e)
                if rigour == Rigour::Lying
                    && [ErrorKind::Corrupt, ErrorKind::Invalid].contains(&e.kind()) =>
            {
                return Ok(Vec::new());
            }
            Err(e) => return Err(format!("does not open: {e:?}")),
        };
        let found = match observe(&store) {
            Ok(found) => found,
            // Bytes that were never written, under a name that was: said, not answered.
            Err(why) if rigour == Rigour::Lying && why.contains("Corrupt: archive/") => {
                return Ok(Vec::new());
            }
            Err(why) => return Err(why),
        };
        let equal: Vec<usize> = self.states_equal(&found);
        let Some(&k) = equal.iter().find(|k| window.contains(*k)) else {
            // An old page of the index with an old sector of its checksums passes for a whole one
            // (docs/decisions/0005): whoever looks through all of it sees that they do not fit.
            if rigour == Rigour::Lying
                && !store.verify(Depth::Deep).map_err(|e| format!("verify: {e:?}"))?.is_whole()
            {
                return Ok(Vec::new());
            }
            if equal.is_empty() {
                let warnings = store.stats().map(|s| s.warnings).unwrap_or_default();
                let nearest = self.nearest(&found, window);
                return Err(format!(
                    "is in no state of the run: {nearest}\n  warned: {warnings:?}"
                ));
            }
            return Err(format!("is in state {equal:?}, which is outside {window:?}"));
        };
        let moment = self.run.moments.get(k).ok_or("no such state")?;
        if rigour != Rigour::Lying {
            if expect.whole_sectors {
                looks_like_no_rot(&store)?;
            }
            if let Some(wanted) = expect.quiet.and_then(|k| self.run.moments.get(k)) {
                wanted.soft.is_kept_by(&Soft::of(&store)?)?;
            }
        }
        if let Some((Derived::All, image)) = &derived {
            salvage_agrees(image, &found)?;
        }
        let recovered = (live_hash(disk), k, now);
        if rigour == Rigour::Full && self.is_repetition(&recovered) {
            // Nobody looks at this disk any more: the store need not close in order.
            disk.kill_at(disk.op_count());
            return Ok(equal);
        }
        answers(&store, &moment.state, &clock, now)?;
        let report = store.verify(Depth::Deep).map_err(|e| format!("verify: {e:?}"))?;
        // On a disk that lied, what nobody asks for any more may be rotten.
        if !report.is_whole() && rigour != Rigour::Lying {
            return Err(format!("verify found {:?}", report.problems));
        }
        nothing_left_over(disk, &store)?;
        if rigour == Rigour::Lying {
            return Ok(equal);
        }
        self.requests_are_remembered(&store, moment)?;

        // Recovery of what was recovered, with one more record.
        let probe = store.collection(PROBE).and_then(|c| {
            c.put("probe", Draft::text("still writing").vector([1.0, 2.0, 3.0]).attr("k", k as u64))
        });
        let receipt = probe.map_err(|e| format!("the next write fails: {e:?}"))?;
        if receipt.id.0 != moment.next_id || receipt.version.0 <= moment.state.lsn {
            let (id, lsn) = (moment.next_id, moment.state.lsn);
            return Err(format!("the next write got {receipt:?}, not id {id} and LSN > {lsn}"));
        }
        survives(disk, &found, receipt.id.0)?;
        store.close().map_err(|e| format!("close: {e:?}"))?;
        if let Some((derived, _)) = &derived {
            derived.remove(disk).map_err(|e| format!("remove {derived:?}: {e}"))?;
        }
        let store = open(disk, &clock).map_err(|e| format!("does not open again: {e:?}"))?;
        let mut again = observe(&store)?;
        take_probe(&mut again, &found, receipt.id.0)
            .map_err(|why| format!("opened again: {why}"))?;
        if !store.stats().map_err(|e| format!("{e:?}"))?.warnings.is_empty() && derived.is_none() {
            return Err("a clean close is followed by a warning".to_owned());
        }
        nothing_left_over(disk, &store)?;
        store.close().map_err(|e| format!("second close: {e:?}"))?;
        self.good.lock().unwrap_or_else(|e| e.into_inner()).insert(recovered);
        Ok(equal)
    }

    /// Whether a recovered disk was judged before and is not to be judged again.
    fn is_repetition(&self, recovered: &(u128, usize, Timestamp)) -> bool {
        let known = self.good.lock().unwrap_or_else(|e| e.into_inner()).contains(recovered);
        known && !self.repeated.fetch_add(1, Ordering::AcqRel).is_multiple_of(AGAIN_EVERY)
    }

    /// How the state found differs from those it may be in, and from those of the same LSN.
    fn nearest(&self, found: &State, window: &RangeInclusive<usize>) -> String {
        let same_lsn = self.run.moments.iter().rposition(|m| m.state.lsn == found.lsn);
        let mut text = String::new();
        for k in [Some(*window.start()), Some(*window.end()), same_lsn].into_iter().flatten() {
            let Some(moment) = self.run.moments.get(k) else { continue };
            let why = difference(found, &moment.state);
            text.push_str(&format!("\n  against state {k} ({}): {why}", moment.name));
        }
        text
    }

    fn states_equal(&self, found: &State) -> Vec<usize> {
        let moments = self.run.moments.iter().enumerate();
        moments.filter(|(_, m)| *m.state == *found).map(|(k, _)| k).collect()
    }

    /// The last request that the state holds is not applied a second time.
    fn requests_are_remembered(&self, store: &Store, moment: &Moment) -> Result<(), String> {
        let Some(number) = moment.request else { return Ok(()) };
        if !moment.state.shelves.contains_key("notes") {
            return Ok(());
        }
        let act = Act::Delete(Spot("notes", "", "n1"));
        let again = batch(store, Some(number), &[act]).and_then(|batch| store.write(batch));
        match again {
            Ok(receipts) if receipts.is_empty() => Ok(()),
            other => Err(format!("request {number} was applied a second time: {other:?}")),
        }
    }
}

/// A power cut tears what was being written, and rots nothing: whatever warns of more than a write that
/// was cut off would alarm without a cause.
fn looks_like_no_rot(store: &Store) -> Result<(), String> {
    let warnings = store.stats().map_err(|e| format!("stats: {e:?}"))?.warnings;
    match warnings.iter().find(|text| !text.contains("the last write was cut off by a crash")) {
        Some(text) => Err(format!("a crash is taken for damage: {text}")),
        None => Ok(()),
    }
}

/// What recovery found, and the entry written after it, survive the next power cut: what was acknowledged
/// stands in files whose names are durable as well.
fn survives(disk: &SimDisk, found: &State, probe: u64) -> Result<(), String> {
    let images = disk.crash_images(Profile::Posix, 2);
    // The last of the two keeps nothing that was not synced.
    let cut = images.last().ok_or("no image")?;
    let store = open(cut, &HandClock::new(START))
        .map_err(|e| format!("does not open after the next power cut: {e:?}"))?;
    take_probe(&mut observe(&store)?, found, probe)
        .map_err(|why| format!("after the next power cut: {why}"))
}

/// Takes the oracle's own entry out of a state, which must be the one found before.
fn take_probe(state: &mut State, found: &State, id: u64) -> Result<(), String> {
    let shelf = state.shelves.remove(PROBE).ok_or("the entry written after recovery is gone")?;
    let kept = shelf.items.get(&(String::new(), b"probe".to_vec()));
    if kept.is_none_or(|item| item.id != id || *item.payload != *b"still writing") {
        return Err(format!("the entry written after recovery became {kept:?}"));
    }
    state.lsn = found.lsn;
    match difference(state, found) {
        why if why.is_empty() => Ok(()),
        why => Err(format!("it differs: {why}")),
    }
}

/// What a salvage saves of an image is what an open recovers from it.
fn salvage_agrees(image: &SimDisk, recovered: &State) -> Result<(), String> {
    let target = SimDisk::new(1);
    let salvage = Salvage::on(Arc::new(image.clone()))
        .and_then(|mut salvage| salvage.copy_onto(Arc::new(target.clone())));
    match salvage {
        Ok(_) => {}
        // A store that was never there cannot be saved.
        Err(e) if e.kind() == ErrorKind::NotFound && recovered.lsn == 0 => return Ok(()),
        Err(e) => return Err(format!("salvage: {e:?}")),
    }
    let store = open(&target, &HandClock::new(START)).map_err(|e| format!("salvaged: {e:?}"))?;
    let mut saved = observe(&store)?;
    saved.lsn = recovered.lsn;
    match difference(&saved, recovered) {
        why if why.is_empty() => Ok(()),
        why => Err(format!("salvaged: {why}")),
    }
}

/// Hash over what a reader of the disk finds now.
fn live_hash(disk: &SimDisk) -> u128 {
    disk.crash_images(Profile::Kill, 1).first().map_or(0, SimDisk::image_hash)
}

/// Everything there is to see in a store.
pub fn observe(store: &Store) -> Result<State, String> {
    let fail = |what: &str, e: pmll::Error| format!("{what}: {e:?}");
    let mut state =
        State { lsn: store.stats().map_err(|e| fail("stats", e))?.last_lsn.0, ..State::default() };
    state.settings = store.settings().map_err(|e| fail("settings", e))?.into_iter().collect();
    for info in store.collections().map_err(|e| fail("collections", e))? {
        let collection = store.find_collection(&info.name).map_err(|e| fail("find", e))?;
        let collection = collection.ok_or("a listed collection is not found")?;
        let mut items = BTreeMap::new();
        let mut scan = Scan::new().with_vector(true);
        loop {
            let page = collection.scan(scan).map_err(|e| fail("scan", e))?;
            for entry in page.entries {
                let place = (entry.namespace.as_str().to_owned(), entry.key.as_bytes().to_vec());
                items.insert(place, Arc::new(item(entry)));
            }
            match page.cursor {
                Some(cursor) => scan = Scan::new().with_vector(true).cursor(cursor),
                None => break,
            }
        }
        if info.entries != items.len() as u64 {
            let (listed, seen) = (info.entries, items.len());
            return Err(format!("{} is listed with {listed} entries, {seen} show", info.name));
        }
        state.shelves.insert(info.name, Shelf { spec: info.spec, items });
    }
    Ok(state)
}

/// An entry without its soft state.
pub fn item(entry: Entry) -> Item {
    Item {
        id: entry.id.0,
        version: entry.version.0,
        vector: entry.vector.as_deref().map(bits),
        payload: Arc::from(entry.payload),
        attributes: entry.attributes,
        at: entry.at.0,
        created: entry.created.0,
        updated: entry.updated.0,
        session: entry.session,
        sequence: entry.sequence,
        salience: entry.salience.map(f32::to_bits),
        pinned: entry.pinned,
        expires: entry.expires.map(|t| t.0),
    }
}

/// Gets, counts and exact searches agree with the model, at the first moment and now.
pub fn answers(
    store: &Store,
    state: &State,
    clock: &HandClock,
    now: Timestamp,
) -> Result<(), String> {
    let keep = pmll::Clock::now(clock);
    for (name, shelf) in &state.shelves {
        let fail = |what: &str, e: pmll::Error| format!("{name}: {what}: {e:?}");
        let collection = store.find_collection(name).map_err(|e| fail("find", e))?;
        let collection = collection.ok_or_else(|| format!("{name} is not found"))?;
        for when in [START, now] {
            clock.set(when);
            let count = collection.count(None).map_err(|e| fail("count", e))?;
            if count != shelf.count(when) {
                return Err(format!(
                    "{name} counts {count} at {when:?}, not {}",
                    shelf.count(when)
                ));
            }
        }
        clock.set(START);
        for (place, wanted) in &shelf.items {
            let namespace = pmll::Namespace::new(&place.0).map_err(|e| fail("namespace", e))?;
            let handle = collection.in_namespace(namespace);
            let found = handle.get(&place.1).map_err(|e| fail("get", e))?;
            if found.map(item).as_ref() != Some(&**wanted) {
                return Err(format!("{name}: get of {place:?} differs from the scan"));
            }
        }
        if let Some(dim) = shelf.spec.dim {
            search(&collection, shelf, dim as usize).map_err(|e| format!("{name}: {e}"))?;
        }
    }
    clock.set(keep);
    Ok(())
}

fn search(collection: &pmll::Collection, shelf: &Shelf, dim: usize) -> Result<(), String> {
    let query: Vec<f32> = (0..dim).map(|i| 1.0 - i as f32 * 0.3).collect();
    let wanted = shelf.best(&query);
    let hits =
        collection.search(Query::vector(query.clone()).k(1000)).map_err(|e| format!("{e:?}"))?;
    if hits.len() != wanted.len() {
        return Err(format!("search finds {} entries, not {}", hits.len(), wanted.len()));
    }
    // By codes alone: every entry is found, in whatever order their bits say.
    let by_codes = Query::vector(query).k(1000).exactness(Exactness::Codes(0.99));
    let hits_by_codes = collection.search(by_codes).map_err(|e| format!("{e:?}"))?;
    let ids = |ids: &mut dyn Iterator<Item = u64>| ids.collect::<BTreeSet<u64>>();
    let found = ids(&mut hits_by_codes.iter().map(|hit| hit.entry.id.0));
    if found != ids(&mut wanted.iter().map(|(id, _)| *id)) {
        return Err(format!("a search by codes finds {found:?}, not {wanted:?}"));
    }
    // Each with its own score, and in the order of those: two that an f32 cannot tell apart may
    // stand in either order.
    let exact: BTreeMap<u64, f64> = wanted.iter().copied().collect();
    let near = |score: f32, s: &f64| (f64::from(score) - s).abs() <= 1e-4 * s.abs().max(1.0);
    let is_near = |h: &pmll::Hit| exact.get(&h.entry.id.0).is_some_and(|s| near(h.score, s));
    let in_order = hits.is_sorted_by_key(|hit| (-hit.score, hit.entry.id.0));
    if !hits.iter().all(is_near) || !in_order {
        let found: Vec<_> = hits.iter().map(|hit| (hit.entry.id.0, hit.score)).collect();
        return Err(format!("search finds {found:?}, not {wanted:?}"));
    }
    Ok(())
}

/// No temporary file, no superseded segment, no log that is archived already, no litter.
pub fn nothing_left_over(disk: &SimDisk, store: &Store) -> Result<(), String> {
    let stats = store.stats().map_err(|e| format!("{e:?}"))?;
    let names = disk.file_names();
    let segments = names.iter().filter(|n| n.starts_with("archive/")).count() as u64;
    if segments != stats.archive_segments {
        let listed = stats.archive_segments;
        return Err(format!("archive/ has {segments} files for {listed} segments: {names:?}"));
    }
    for name in &names {
        let known = match name.split_once('/') {
            None => ["LOCK", "store.toml", INDEX, "RESERVE"].contains(&name.as_str()),
            // Spares are there while the store is open.
            Some(("wal", file)) => {
                [".wal", ".spare", ".torn"].iter().any(|suffix| file.ends_with(suffix))
            }
            Some(("archive", file)) => file.ends_with(".seg"),
            Some(("arena", file)) => file.ends_with(".blk") || file.ends_with(".cel"),
            Some(("columns", file)) => !file.ends_with(".tmp"),
            Some(_) => false,
        };
        if !known {
            return Err(format!("{name} is left over"));
        }
    }
    // Whoever needs it may read the handle once more.
    at(store, Spot("notes", "", "n1")).map(|_| ()).or_else(|e| match e.kind() {
        ErrorKind::NotFound => Ok(()),
        _ => Err(format!("{e:?}")),
    })
}
