//! What one flipped bit does to the index, with the checksummed pages and without them.
//!
//! `flips_are_never_believed` runs always, on a sample; `measure_flips` is the whole measurement
//! behind `docs/decisions/0005-catalog-trust.md`: run it with
//! `cargo test --release --lib measure_flips -- --ignored --nocapture`.

use std::sync::Arc;

use redb::StorageBackend;

use crate::io::memory::MemoryDisk;
use crate::io::{Disk, File, OpenMode};
use crate::organs::catalog::backend::{PAGE_BYTES, PagedBackend};
use crate::organs::catalog::overlay::OverlayFile;
use crate::organs::catalog::tables::{KeyRange, Located};
use crate::organs::catalog::{Catalog, FILE};
use crate::words::error::Result;
use crate::words::id::{CollectionId, EntryId, Lsn, Namespace};
use crate::words::record::Place;

const CACHE: usize = 1 << 20;
const ONE: CollectionId = CollectionId(1);
const KEYS: u64 = 150;

/// redb straight on the file: the index without its layer of checksums.
#[derive(Debug)]
struct Plain(Arc<dyn File>);

impl StorageBackend for Plain {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read_exact_at(out, offset)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.0.sync()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.write_at(data, offset)
    }
}

fn start(file: Arc<dyn File>, checked: bool) -> Result<Catalog> {
    if checked {
        return Catalog::start(file, CACHE, |file, health| {
            let backend = PagedBackend::new(FILE, file, health)?;
            backend.check_header()?;
            Ok(backend)
        });
    }
    Catalog::start(file, CACHE, |file, _| Ok(Plain(file)))
}

fn located(n: u64) -> Located {
    let place = Place { segment: 1, group: 0, row: n as u32 };
    Located { collection: ONE, version: Lsn(n), place: Some(place) }
}

fn key(n: u64) -> Vec<u8> {
    format!("conversation-{n:04}").into_bytes()
}

/// A small index after a few commits, closed cleanly or as a crash leaves it.
fn build(checked: bool, clean: bool) -> Arc<dyn File> {
    let disk = MemoryDisk::new();
    let file = disk.open(FILE, OpenMode::CreateNew).unwrap();
    let catalog = match checked {
        true => Catalog::start(file.clone(), CACHE, |file, health| {
            PagedBackend::new(FILE, file, health)
        }),
        false => Catalog::start(file.clone(), CACHE, |file, _| Ok(Plain(file))),
    };
    let catalog = catalog.unwrap();
    for commit in 0..3 {
        let update = catalog.begin().unwrap();
        update.create_tables().unwrap();
        for n in (0..KEYS).filter(|n| n % 3 == commit) {
            update.put_key(ONE, &Namespace::root(), &key(n), EntryId(n + 1)).unwrap();
            update.put_id(EntryId(n + 1), &located(n)).unwrap();
        }
        update.put_segment(1, &[5; 100]).unwrap();
        update.put_meta("applied_lsn", commit).unwrap();
        update.commit().unwrap();
    }
    if clean {
        catalog.close().unwrap();
        return file;
    }
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let crashed = disk.open("crashed", OpenMode::CreateNew).unwrap();
    crashed.write_at(&bytes, 0).unwrap();
    crashed
}

/// The worst that one damaged index answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// Every answer right.
    Harmless,
    /// A typed error; every answer beside it right.
    Refused,
    /// The same, and redb panicked.
    Panicked,
    /// A live row was not there, without an error.
    Missing,
    /// Something else was answered, without an error.
    Wrong,
}

const OUTCOMES: [Outcome; 5] =
    [Outcome::Harmless, Outcome::Refused, Outcome::Panicked, Outcome::Missing, Outcome::Wrong];

/// Holds one answer against the right one.
fn judge<T: PartialEq>(answer: Result<Option<T>>, right: T) -> Outcome {
    match answer {
        Ok(None) => Outcome::Missing,
        Ok(Some(found)) if found == right => Outcome::Harmless,
        Ok(Some(_)) => Outcome::Wrong,
        Err(error) if error.message().contains("gave up") => Outcome::Panicked,
        Err(_) => Outcome::Refused,
    }
}

/// Asks the index everything; the worst answer counts.
fn ask(file: &Arc<dyn File>, checked: bool) -> Outcome {
    let overlay: Arc<dyn File> = Arc::new(OverlayFile::new(file.clone()).unwrap());
    let started = start(overlay, checked).and_then(|catalog| Ok((catalog.snapshot()?, catalog)));
    let (view, _catalog) = match started {
        Ok(started) => started,
        Err(error) => return judge(Err(error), ()),
    };
    let root = Namespace::root();
    let mut worst = Outcome::Harmless;
    for n in 0..KEYS {
        worst = worst.max(judge(view.find(ONE, &root, &key(n)), EntryId(n + 1)));
        worst = worst.max(judge(view.locate(EntryId(n + 1)), located(n)));
    }
    let all = view.keys(ONE, &KeyRange::all(), false);
    let all: Result<Vec<_>> = all.and_then(|rows| rows.collect());
    let all = all.map(|rows| {
        let keys = rows.into_iter().map(|(path, id)| (path.key.as_bytes().to_vec(), id));
        Some(keys.collect::<Vec<_>>())
    });
    let right: Vec<_> = (0..KEYS).map(|n| (key(n), EntryId(n + 1))).collect();
    worst = worst.max(match &all {
        Ok(Some(rows)) if rows.len() < right.len() => Outcome::Missing,
        _ => judge(all, right),
    });
    worst = worst.max(judge(view.meta("applied_lsn"), 2));
    worst = worst.max(judge(view.key_count().map(Some), KEYS));
    worst = worst.max(judge(view.id_count().map(Some), KEYS));
    worst.max(judge(view.segment(1), vec![5; 100]))
}

/// Which bits are flipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Every bit of the header's first copy, one of every byte of the second: small, and everything
    /// hangs on it.
    Header,
    /// One bit of every n-th byte of the other pages that are not all zeros.
    Pages(usize),
}

fn bits_of(part: Part, bytes: &[u8]) -> Vec<(usize, usize)> {
    match part {
        Part::Header => {
            let first = (0..512 * 8).map(|n| (n / 8, n % 8));
            first.chain((0..512).map(|at| (PAGE_BYTES + at, at % 8))).collect()
        }
        Part::Pages(stride) => {
            let pages = bytes.chunks(PAGE_BYTES).enumerate().skip(1);
            let used = pages.filter(|(_, page)| page.iter().any(|b| *b != 0));
            let offsets = used.flat_map(|(number, _)| {
                let start = number * PAGE_BYTES;
                (start..start + PAGE_BYTES).step_by(stride)
            });
            offsets.map(|at| (at, at % 8)).collect()
        }
    }
}

/// Flips the bits one by one, from the `from`th on, and tells each outcome.
fn flip_each(checked: bool, clean: bool, part: Part, from: usize, told: &mut dyn FnMut(Outcome)) {
    let file = build(checked, clean);
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(ask(&file, checked), Outcome::Harmless, "the undamaged index answers");
    for (at, bit) in bits_of(part, &bytes).into_iter().skip(from) {
        file.write_at(&[bytes[at] ^ (1 << bit)], at as u64).unwrap();
        told(ask(&file, checked));
        file.write_at(&bytes[at..=at], at as u64).unwrap();
    }
}

#[test]
fn flips_are_never_believed() {
    for (clean, part) in [(true, Part::Pages(127)), (false, Part::Pages(509)), (true, Part::Header)]
    {
        let (mut flips, mut refused) = (0, 0);
        flip_each(true, clean, part, 0, &mut |outcome| {
            assert!(outcome <= Outcome::Refused, "{part:?}, flip {flips}: {outcome:?}");
            flips += 1;
            refused += usize::from(outcome == Outcome::Refused);
        });
        match part {
            // The header stands there twice, and one copy is enough.
            Part::Header => assert_eq!(refused, 0, "of {flips}"),
            _ => assert!(refused >= flips / 20, "{part:?}: {refused} of {flips}"),
        }
    }
}

/// Sectors that read as zeros, and pages in the place of others.
#[test]
fn lost_and_misplaced_sectors_are_never_believed() {
    let file = build(true, true);
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let mut refused = 0;
    let mut damage = |with: &[u8], at: usize| {
        file.write_at(with, at as u64).unwrap();
        let outcome = ask(&file, true);
        assert!(outcome <= Outcome::Refused, "at {at}: {outcome:?}");
        refused += usize::from(outcome == Outcome::Refused);
        file.write_at(&bytes[at..at + with.len()], at as u64).unwrap();
    };
    for (number, sector) in bytes.chunks(512).enumerate() {
        if sector.iter().any(|b| *b != 0) {
            damage(&[0; 512], number * 512);
        }
    }
    let pages: Vec<&[u8]> = bytes.chunks(PAGE_BYTES).collect();
    for (number, page) in pages.iter().enumerate() {
        for other in pages.iter().skip(number.saturating_sub(3)).take(7) {
            if page != other && page.iter().any(|b| *b != 0) {
                damage(other, number * PAGE_BYTES);
            }
        }
    }
    assert!(refused > 20, "{refused}");
    // A page together with its checksum in the place of another: the number under it tells.
    let (crcs, first) = (2 * PAGE_BYTES, 3 * PAGE_BYTES);
    let mut moved = 0;
    for (to, from) in (0..pages.len() - 4).flat_map(|n| [(n, n + 1), (n + 1, n)]) {
        let entry = |slot: usize| &bytes[crcs + slot * 4..crcs + slot * 4 + 4];
        let page = |slot: usize| &bytes[first + slot * PAGE_BYTES..first + (slot + 1) * PAGE_BYTES];
        if entry(from) == [0; 4] || page(from) == page(to) {
            continue;
        }
        file.write_at(entry(from), (crcs + to * 4) as u64).unwrap();
        file.write_at(page(from), (first + to * PAGE_BYTES) as u64).unwrap();
        let outcome = ask(&file, true);
        assert!(outcome <= Outcome::Refused, "page {from} at {to}: {outcome:?}");
        moved += usize::from(outcome == Outcome::Refused);
        file.write_at(entry(to), (crcs + to * 4) as u64).unwrap();
        file.write_at(page(to), (first + to * PAGE_BYTES) as u64).unwrap();
    }
    assert!(moved > 5, "{moved}");
    // Both copies of the header gone.
    file.write_at(&[0; 512], 0).unwrap();
    file.write_at(&[1; 1], PAGE_BYTES as u64 + 100).unwrap();
    assert_eq!(ask(&file, true), Outcome::Refused);
}

/// The part of the measurement that one process does: it says each outcome as one byte in a file,
/// since redb may take the whole process with it on unchecked pages.
#[test]
#[ignore = "started by measure_flips: cargo test --release --lib measure_flips -- --ignored"]
fn measure_flips_child() {
    let Ok(plan) = std::env::var("PMLL_FLIPS") else { return };
    let plan: Vec<&str> = plan.split(',').collect();
    let [checked, clean, stride, from, path] = plan[..] else { panic!("{plan:?}") };
    let part = match stride.parse() {
        Ok(stride) => Part::Pages(stride),
        Err(_) => Part::Header,
    };
    let mut out = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    std::panic::set_hook(Box::new(|_| {}));
    let from = from.parse().unwrap();
    flip_each(checked == "true", clean == "true", part, from, &mut |outcome| {
        std::io::Write::write_all(&mut out, &[outcome as u8]).unwrap();
    });
}

#[test]
#[ignore = "minutes, for docs/decisions/0005: cargo test --release --lib measure_flips -- --ignored"]
fn measure_flips() {
    let stride = std::env::var("STRIDE").unwrap_or_else(|_| "1".to_owned());
    let dir = tempfile::tempdir().unwrap();
    for stride in ["header", &stride] {
        for (checked, clean) in [(false, true), (false, false), (true, true), (true, false)] {
            let path = dir.path().join("outcomes");
            std::fs::write(&path, []).unwrap();
            let mut aborts = 0;
            let (outcomes, flips) = loop {
                let outcomes = std::fs::read(&path).unwrap();
                // A flip that ended the process has told no outcome.
                let from = outcomes.len() + aborts;
                let plan = format!("{checked},{clean},{stride},{from},{}", path.display());
                let ended = std::process::Command::new(std::env::current_exe().unwrap())
                    .args(["--ignored", "measure_flips_child", "-q"])
                    .env("PMLL_FLIPS", plan)
                    .stdout(std::process::Stdio::null())
                    .stderr(std::process::Stdio::null())
                    .status()
                    .unwrap();
                if ended.success() {
                    let outcomes = std::fs::read(&path).unwrap();
                    let flips = outcomes.len() + aborts;
                    break (outcomes, flips);
                }
                aborts += 1;
            };
            let count = |o: Outcome| outcomes.iter().filter(|b| **b == o as u8).count();
            let tally = OUTCOMES.map(|o| format!("{o:?} {}", count(o))).join(", ");
            println!(
                "{stride}: checked {checked}, closed {clean}: {flips} flips: {tally}, process aborted {aborts}"
            );
        }
    }
}
