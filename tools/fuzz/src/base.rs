//! The store that is damaged: small, with everything in it; and a reader that asks a store everything.
//!
//! It has two collections, two archive segments, codes, columns, an index, and a log that is not archived:
//! its process died. It is built once a process. Its id and the salts of its log are random, so an input
//! that changes those very bytes means something else in each run; no other does.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pmll::inspect::{self, Files};
use pmll::io::{Disk, MemoryDisk, OpenMode};
use pmll::{
    Batch, Clock, Collection, CollectionSpec, Depth, Draft, Element, Entry, Error, ErrorKind,
    Exactness, Filter, Metric, Namespace, Options, Patch, Policy, Query, Scan, Store, Timestamp,
};

/// Files by name.
pub(crate) type FileSet = Vec<(String, Vec<u8>)>;

const FOLDERS: [&str; 5] = ["", "wal", "archive", "arena", "columns"];
const START: i64 = 1_700_000_000_000_000;

/// A clock whose wall stands still: the same input takes the same way.
#[derive(Debug)]
struct StillClock(Instant);

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        Timestamp(START)
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Opens a store with the smallest budget and no thread of its own.
pub(crate) fn open(disk: &Arc<dyn Disk>) -> Result<Store, Error> {
    let options = Options {
        background: false,
        budget_bytes: Some(1 << 20),
        full_wait_max: Duration::ZERO,
        ..Options::default()
    };
    let clock = Arc::new(StillClock(Instant::now()));
    Store::builder("fuzz").disk(Arc::clone(disk)).clock(clock).options(options).open()
}

/// The store's files.
pub(crate) fn files() -> &'static FileSet {
    static FILES: OnceLock<FileSet> = OnceLock::new();
    FILES.get_or_init(|| match build() {
        Ok(files) => files,
        Err(error) => panic!("the base store cannot be built: {error:?}"),
    })
}

/// The files of one folder, or the one of that name.
pub(crate) fn named<'a>(
    files: &'a FileSet,
    start: &str,
) -> impl Iterator<Item = &'a (String, Vec<u8>)> {
    files.iter().filter(move |(name, _)| name.starts_with(start))
}

pub(crate) fn vector(seed: usize, dim: usize) -> Vec<f32> {
    (0..dim).map(|i| ((seed * 31 + i * 17) % 23) as f32 / 4.0 - 2.5).collect()
}

fn note(number: usize) -> Draft {
    Draft::text(format!("note {number}: {}", "the violin was played again ".repeat(4)))
        .vector(vector(number, 8))
        .attr("conv", format!("c{}", number % 3))
        .attr("turn", number)
        .session("s1")
        .sequence(number as u64)
        .salience(0.5)
}

fn build() -> Result<FileSet, Box<dyn std::error::Error>> {
    let memory: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let store = open(&memory)?;
    let notes = store.collection("notes")?;
    let dotted = CollectionSpec::new().dim(4).metric(Metric::Dot).element(Element::F16);
    let people = store.collection_with("people", dotted.model("m1"))?;
    for number in 0..8 {
        notes.put(format!("n{number}"), note(number))?;
        people
            .put(format!("p{number}"), Draft::bytes(vec![7; number]).vector(vector(number, 4)))?;
    }
    // A payload in frames of its own, which the archive packs to little.
    notes.put("large", Draft::bytes(vec![b'x'; 300 << 10]))?;
    store.set_setting("rho", 0.25.into())?;
    store.checkpoint()?;
    let mine = notes.in_namespace(Namespace::new("user/7")?);
    mine.put("m1", note(20).pinned(true))?;
    notes.delete("n1")?;
    notes.put("n2", note(21).ttl(Duration::from_secs(3600)))?;
    store.checkpoint()?;
    store.compress_with(Policy::Paper)?;
    notes.touch("n3")?;
    store.checkpoint()?;
    notes.put("n4", note(22))?;
    notes.update("n5", Patch::default().attr("conv", "c9").payload("short"))?;
    notes.delete("n6")?;
    store.collection("late")?.put("l1", Draft::text("no vector"))?;
    let batch = Batch::new().put(&notes, "b1", note(23)).put(&people, "b2", Draft::text("b"));
    store.write(batch.request(5, 1))?;
    store.set_setting("mine", "yes".into())?;
    let files = copy_of(&*memory)?;
    store.close()?;
    Ok(files)
}

/// The frames of the log of a fresh store, from its first LSN on.
pub(crate) fn first_frames() -> Vec<u8> {
    let memory: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let written = open(&memory).and_then(|store| {
        let notes = store.collection("notes")?;
        notes.put("a", note(1))?;
        notes.put("b", Draft::text("two"))?;
        notes.delete("a")?;
        store.set_setting("mine", 7.into())?;
        Ok(copy_of(&*memory).unwrap_or_default())
    });
    let files = written.unwrap_or_default();
    let log = named(&files, "wal/").map(|(_, bytes)| bytes.as_slice()).next().unwrap_or_default();
    let used = log.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
    log.get(64..used).unwrap_or_default().to_vec()
}

fn copy_of(disk: &dyn Disk) -> std::io::Result<FileSet> {
    let mut files = FileSet::new();
    for folder in FOLDERS {
        for name in disk.list(folder)? {
            let path = pmll::io::join(folder, &name);
            // Locks and the reserve hold nothing.
            if FOLDERS.contains(&path.as_str()) || path == "RESERVE" || path == "LOCK" {
                continue;
            }
            let bytes = pmll::io::read_whole(disk, &path, usize::MAX)?;
            files.push((path, bytes));
        }
    }
    Ok(files)
}

/// A disk with these files.
pub(crate) fn disk(files: &FileSet) -> Arc<dyn Disk> {
    let disk = MemoryDisk::new();
    let filled = FOLDERS.iter().try_for_each(|folder| disk.create_dir(folder)).and_then(|()| {
        files
            .iter()
            .try_for_each(|(name, bytes)| disk.open(name, OpenMode::CreateNew)?.write_at(bytes, 0))
    });
    assert!(filled.is_ok(), "the disk cannot be filled: {filled:?}");
    Arc::new(disk)
}

/// Holds an answer against the contract: no error is a bug of the store.
#[track_caller]
pub(crate) fn check<T>(answer: Result<T, Error>) -> Option<T> {
    match answer {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(error.kind() != ErrorKind::Internal, "{error:?}");
            None
        }
    }
}

/// Opens a store, asks it everything, writes, checkpoints, closes. True when it opened.
pub(crate) fn ask_everything(disk: &Arc<dyn Disk>) -> bool {
    if let Some(files) = check(Files::on(Arc::clone(disk))) {
        for rows in [files.log(), files.archive_deep(), files.arena(), files.columns()] {
            drop(rows);
        }
        let _ = check(files.catalog());
    }
    let Some(store) = check(open(disk)) else { return false };
    let _ = check(store.stats());
    let _ = check(store.settings());
    for info in check(store.collections()).unwrap_or_default() {
        if let Some(Some(collection)) = check(store.find_collection(&info.name)) {
            ask(&collection, info.spec.dim);
        }
    }
    let _ = check(inspect::scores(&store));
    let _ = check(store.plan());
    let _ = check(store.verify(Depth::Deep));
    if let Some(notes) = check(store.collection("notes")) {
        let _ = check(notes.put("fresh", Draft::text("after the rot")));
        let _ = check(notes.why("n3"));
    }
    let _ = check(store.checkpoint());
    let _ = check(store.close());
    true
}

fn ask(collection: &Collection, dim: Option<u32>) {
    let page = check(collection.scan(Scan::new().limit(64).with_vector(true)));
    for entry in page.map(|page| page.entries).unwrap_or_default() {
        let Entry { key, namespace, .. } = entry;
        let _ = check(collection.in_namespace(namespace).get(key.as_bytes()));
    }
    let _ = check(collection.scan(Scan::new().limit(3).reverse(true)));
    if let Some(filter) = check(Filter::parse(r#"{"turn": {"$gt": 2}}"#)) {
        let _ = check(collection.count(Some(&filter)));
    }
    // Wider than any vector of the base: a file claims it, so nothing is asked of it.
    let Some(dim) = dim.filter(|dim| *dim <= 4096) else { return };
    let by_codes = [Exactness::Codes(0.99), Exactness::Codes(0.5)];
    for exactness in by_codes.into_iter().chain([Exactness::default(), Exactness::Exact]) {
        let query = Query::vector(vector(3, dim as usize)).exactness(exactness);
        let _ = check(collection.search(query));
    }
}
