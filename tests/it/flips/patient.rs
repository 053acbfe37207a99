//! The store that is damaged, what its files held before, and what it must answer.
//!
//! 1. The crash suite's script makes it, on a disk that records, with some writes more at the end so
//!    that several batches stand in the log. Payloads that cannot be compressed are cut short: the
//!    formats stay, the bytes that are all alike go.
//! 2. From the recording comes every content that a sector had at any sync.
//! 3. `examine` damages a copy, opens it, asks everything, and says what came of it.
//!
//! What may be missing is worked out from the bytes alone: only damage that leaves no whole frame
//! behind it at the end of the open log can pass for a write that a power cut tore.

use std::collections::{BTreeMap, BTreeSet};

use pmll::io::sim::{Limits, Profile, SimDisk};
use pmll::{Collection, Depth, Draft, Error, ErrorKind, Exactness, Query, Scan, Store};

use pmll_torture::model::{Act, Shelf, Spot, State, difference};
use pmll_torture::oracle::{item, observe};
use pmll_torture::script::{HandClock, START, open, perform, script};

use crate::flips::damage::{Damage, SECTORS};

/// Payloads longer than this are longer than a frame: they are filled with text, not with noise.
const PAYLOAD_BYTES_MAX: usize = 1 << 10;
/// A header without payload, which a mark or a close is: the least that says what was synced.
const FRAME_BYTES: u64 = 32;

/// What came of a damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answer {
    /// As if nothing had happened.
    Right,
    /// Some entries answer an error that names the file, all others are right.
    Named,
    /// The store does not open, and says why.
    Refused,
    /// The end of the log passes for a torn write.
    Cut,
}

/// What stood in each sector at the syncs of the run, for each size of a sector.
#[derive(Default)]
pub(super) struct History {
    sectors: BTreeMap<(usize, String), Vec<Vec<Vec<u8>>>>,
}

impl History {
    fn add(&mut self, disk: &SimDisk) {
        for name in disk.file_names() {
            let bytes = disk.durable_bytes(&name).unwrap_or_default();
            for size in SECTORS {
                let sectors = self.sectors.entry((size, name.clone())).or_default();
                for (n, now) in bytes.chunks(size).enumerate() {
                    sectors.resize(sectors.len().max(n + 1), Vec::new());
                    if !sectors[n].iter().any(|old| old == now) {
                        sectors[n].push(now.to_vec());
                    }
                }
            }
        }
    }

    /// Everything that stood in a sector, in order: of this file, and of the other files of its folder,
    /// whose blocks a later file gets once they are removed.
    pub(super) fn versions(&self, name: &str, sector: usize, size: usize) -> [Vec<&[u8]>; 2] {
        let folder = name.rsplit_once('/').map(|(folder, _)| folder);
        let is_kin = |other: &str| {
            let theirs = other.rsplit_once('/').map(|(folder, _)| folder);
            other != name && folder.is_some() && theirs == folder
        };
        let of = |wanted: &dyn Fn(&str) -> bool| {
            let files = self.sectors.iter().filter(|((s, other), _)| *s == size && wanted(other));
            files.filter_map(|(_, all)| all.get(sector)).flatten().map(Vec::as_slice).collect()
        };
        [of(&|other| other == name), of(&is_kin)]
    }
}

/// The store and the right answers.
pub(super) struct Patient {
    pub disk: SimDisk,
    pub history: History,
    /// Everything acknowledged.
    state: State,
    /// The log segment that is open, and where its last frame ends.
    log: (String, u64),
    /// For each act whose batch stands in it: where the batch ends, and the state before.
    batches: Vec<(u64, State)>,
}

/// The script, with less to flip, and a longer end.
fn acts() -> Vec<Act> {
    let mut acts: Vec<Act> = script().into_iter().map(lighter).collect();
    for (n, key) in ["n3", "end", "n5", "last"].into_iter().enumerate() {
        acts.push(Act::Put(Spot("notes", "", key), Draft::text(format!("a batch at the end {n}"))));
    }
    acts
}

fn lighter(mut act: Act) -> Act {
    match &mut act {
        Act::Put(_, draft) | Act::Buffer(_, draft) if draft.payload.len() > PAYLOAD_BYTES_MAX => {
            let text = b"as long, and short when it is compressed; ";
            let long = draft.payload.len();
            draft.payload = text.iter().copied().cycle().take(long).collect();
            act
        }
        Act::Batch(request, acts) => Act::Batch(*request, acts.drain(..).map(lighter).collect()),
        _ => act,
    }
}

/// The last segment of the log, and where its bytes end.
fn end_of_log(disk: &SimDisk) -> (String, u64) {
    let names = disk.file_names();
    let name = names.into_iter().rfind(|name| name.ends_with(".wal")).unwrap_or_default();
    let bytes = disk.durable_bytes(&name).unwrap_or_default();
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    (name, end as u64)
}

impl Patient {
    pub(super) fn make() -> Patient {
        let disk = SimDisk::new(1);
        disk.record();
        let clock = HandClock::new(START);
        let mut store = open(&disk, &clock).unwrap();
        let (mut state, mut log) = (State::default(), end_of_log(&disk));
        let mut batches: Vec<(u64, State)> = Vec::new();
        for act in acts() {
            match act {
                // What expires is for other tests.
                Act::Wait(_) => {}
                Act::Kill | Act::Reopen => {
                    store.close().unwrap();
                    store = open(&disk, &clock).unwrap();
                }
                act => drop(perform(&store, &act).unwrap()),
            }
            let before = std::mem::replace(&mut state, observe(&store).unwrap());
            let now = end_of_log(&disk);
            if now.0 != log.0 {
                batches.clear();
            }
            if state.lsn > before.lsn {
                batches.push((now.1, before));
            }
            log = now;
        }
        assert!(state.shelves.len() == 2 && batches.len() > 4, "{} batches", batches.len());
        let run = disk.recording().unwrap();
        let mut history = History::default();
        let one = Limits { images: 1, ..Limits::default() };
        for call in run.first_op()..run.end_op() {
            if run.describe(call).starts_with("sync ") {
                // The first image has everything that was written.
                run.images_at(call, Profile::Posix, &one).iter().for_each(|disk| history.add(disk));
            }
        }
        // Nothing pending: a killed process leaves all of it to the next one.
        let disk = disk.crash_images(Profile::Kill, 1).remove(0);
        Patient { disk, history, state, log, batches }
    }

    /// Pages of a file without which nothing is missing: a page that is zeroed is noticed by an open,
    /// which reads all that count after a kill, or by a deep verification. Nobody can miss zeros.
    pub(super) fn pages_nobody_reads(&self, file: &str, bytes: &[u8]) -> BTreeSet<usize> {
        let size = SECTORS[1];
        let is_read = |(n, page): &(usize, &[u8])| {
            if page.iter().all(|byte| *byte == 0) {
                return false;
            }
            let disk = self.disk.fork_now();
            disk.set_bytes(file, (n * size) as u64, &vec![0; page.len()]).unwrap();
            let Ok(store) = open(&disk, &HandClock::new(START)) else { return true };
            let is_whole = observe(&store).is_ok()
                && store.verify(Depth::Deep).is_ok_and(|report| report.is_whole());
            !is_whole || !store.stats().unwrap().warnings.is_empty()
        };
        let pages = || bytes.chunks(size).enumerate();
        let unread: BTreeSet<usize> =
            pages().filter(|page| !is_read(page)).map(|(n, _)| n).collect();
        let written = pages().filter(|(_, page)| page.iter().any(|byte| *byte != 0)).count();
        let read = pages().count() - unread.len();
        assert!(read * 4 > written, "{read} of {written} pages of {file} are read");
        unread
    }

    /// Whether a damage to these bytes may have cost the batches that are missing in a state.
    fn may_be_cut(&self, found: &State, damage: &Damage, file: &str) -> bool {
        let (log, end) = &self.log;
        let last = self.batches.last().map_or(0, |(_, before)| before.lsn);
        damage.ranges(file).iter().any(|(name, from, to)| {
            // What is behind the damage could say that it had been synced.
            let nothing_behind = to + FRAME_BYTES > *end || found.lsn == last;
            name == log
                && nothing_behind
                && self.batches.iter().any(|(ends, before)| before == found && ends > from)
        })
    }

    /// Searches, by exact vectors and by codes, find every entry that has a vector, but for those
    /// that cannot be read whole; and they say so when one is missing.
    fn search(
        &self,
        collection: &Collection,
        shelf: &Shelf,
        dim: u32,
        unread: &BTreeSet<u64>,
    ) -> Result<(), String> {
        let vector: Vec<f32> = (0..dim).map(|i| 1.0 - i as f32 * 0.3).collect();
        let wanted = shelf.best(&vector);
        let query = || Query::vector(vector.clone()).k(1000);
        for exactness in [Exactness::default(), Exactness::Codes(0.99)] {
            let hits = collection.search(query().exactness(exactness));
            let hits = hits.map_err(|error| format!("a search fails: {error:?}"))?;
            let ids: Vec<u64> = hits.iter().map(|hit| hit.entry.id.0).collect();
            let wrong = |why: &str| {
                let answer = format!("{exactness:?}: {ids:?} for {wanted:?}: {why}");
                Err(format!("{answer}; {:?}", hits.damaged()))
            };
            let found: BTreeSet<u64> = ids.iter().copied().collect();
            let missing: BTreeSet<u64> =
                wanted.iter().map(|(id, _)| *id).filter(|id| !found.contains(id)).collect();
            if found.len() + missing.len() != wanted.len() || found.len() != ids.len() {
                return wrong("more than there is");
            }
            if !missing.is_subset(unread) {
                return wrong("an entry that is whole is missing");
            }
            if !missing.is_empty() && hits.damaged().is_empty() {
                return wrong("one is missing silently");
            }
            let exact = hits.iter().all(|hit| hit.exact);
            let order = wanted.iter().map(|(id, _)| id).filter(|id| found.contains(*id));
            if exact && !matches!(exactness, Exactness::Codes(_)) && !order.eq(&ids) {
                return wrong("another order");
            }
        }
        Ok(())
    }

    /// Damages a copy and asks it everything.
    pub(super) fn examine(&self, file: &str, damage: &Damage) -> Result<Answer, String> {
        let disk = self.disk.fork_now();
        damage.hit(&disk, file).map_err(|e| format!("no damage done: {e}"))?;
        let clock = HandClock::new(START);
        let store = match open(&disk, &clock) {
            Ok(store) => store,
            Err(error) => return refusal(file, &error).map(|()| Answer::Refused),
        };
        let mut problems = Vec::new();
        let found = match observe(&store) {
            Ok(found) => {
                if found != self.state && !self.may_be_cut(&found, damage, file) {
                    return Err(difference(&found, &self.state));
                }
                found
            }
            Err(why) => {
                let hit = damage.ranges(file);
                if !why.contains("Corrupt") || !hit.iter().any(|(name, ..)| why.contains(name)) {
                    return Err(format!("a scan fails without naming the file: {why}"));
                }
                problems.push(why);
                self.state.clone()
            }
        };
        for (name, shelf) in &found.shelves {
            let collection = match store.find_collection(name) {
                Ok(Some(collection)) => collection,
                Ok(None) => return Err(format!("{name} is gone")),
                Err(error) => {
                    refusal(file, &error)?;
                    continue;
                }
            };
            let mut unread = BTreeSet::new();
            for (place, wanted) in &shelf.items {
                let namespace = pmll::Namespace::new(&place.0).map_err(|e| format!("{e:?}"))?;
                match collection.in_namespace(namespace).get(&place.1) {
                    Ok(Some(entry)) if item(entry.clone()) == **wanted => {}
                    Ok(other) => return Err(format!("{place:?} became {other:?}")),
                    Err(error) => {
                        refusal(file, &error)?;
                        unread.insert(wanted.id);
                        problems.push(format!("{error:?}"));
                    }
                }
            }
            if let Some(dim) = shelf.spec.dim {
                self.search(&collection, shelf, dim, &unread)
                    .map_err(|why| format!("{name}: {why}"))?;
            }
            // Counting and paging end in an answer or an error, too.
            let page = collection.scan(Scan::new().limit(3).reverse(true));
            page.map(drop).or_else(|e| refusal(file, &e))?;
        }
        let report = store.verify(Depth::Deep).map_err(|e| format!("verify: {e:?}"))?;
        if !problems.is_empty() && report.is_whole() {
            return Err(format!("verify finds nothing, but {}", problems[0]));
        }
        keep_working(store)?;
        Ok(match problems.is_empty() {
            true if found != self.state => Answer::Cut,
            true => Answer::Right,
            false => Answer::Named,
        })
    }
}

/// A write and a clean end: they succeed, or say why not.
fn keep_working(store: Store) -> Result<(), String> {
    let wrote =
        store.collection("notes").and_then(|c| c.put("fresh", Draft::text("after the rot")));
    let typed = |error: Error| match error.kind() {
        ErrorKind::Corrupt | ErrorKind::Io | ErrorKind::Poisoned => Ok(()),
        _ => Err(format!("a write fails with {error:?}")),
    };
    wrote.map(drop).or_else(typed)?;
    store.close().or_else(typed)
}

/// An error that a damaged file may be answered with.
fn refusal(file: &str, error: &Error) -> Result<(), String> {
    let text = error.to_string();
    // A store file that names another format is read as such before its checksum is asked.
    let typed = error.kind() == ErrorKind::Corrupt
        || (file == "store.toml" && error.kind() == ErrorKind::Version);
    // Damage to a segment's word for the others shows as a contradiction between the two.
    let folder = file.split('/').next().unwrap_or(file);
    if typed && text.contains(folder) {
        return Ok(());
    }
    Err(format!("answers {error:?}"))
}
