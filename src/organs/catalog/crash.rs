//! The index under a disk that crashes and fails: a commit that returned is there, a commit that
//! did not is there whole or not at all, and the file always opens without a rebuild.

use std::collections::HashSet;
use std::sync::Arc;

use crate::io::Disk;
use crate::io::sim::{Fault, Limits, Profile, SimDisk};
use crate::organs::catalog::tables::Located;
use crate::organs::catalog::{Catalog, NewEntry};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::{CollectionId, EntryId, Lsn, Namespace};

const CACHE: usize = 1 << 20;
const ONE: CollectionId = CollectionId(1);
const COMMITS: u64 = 4;
const STEP: u64 = 40;

/// Commit `n` adds 40 entries, moves the 40 before them, and counts itself.
fn commit(catalog: &Catalog, n: u64) -> Result<()> {
    let root = Namespace::root();
    let located = |id: u64| Located { collection: ONE, version: Lsn(n * 1000 + id), place: None };
    let first = n * STEP;
    let keys: Vec<String> = (first..first + STEP).map(|id| format!("key {id:04}")).collect();
    let entries: Vec<NewEntry<'_>> = keys
        .iter()
        .zip(first..)
        .map(|(key, id)| NewEntry {
            namespace: &root,
            key: key.as_bytes(),
            id: EntryId(id),
            located: located(id),
        })
        .collect();
    let update = catalog.begin()?;
    update.put_entries(&entries)?;
    for id in first.saturating_sub(STEP)..first {
        update.put_id(EntryId(id), &located(id))?;
    }
    // Large values take pages of their own order.
    update.put_segment(n / 2, &vec![n as u8; 9000 * (n as usize % 3)])?;
    update.put_meta("commits", n + 1)?;
    update.commit()
}

/// Number of commits in an index, after checking that it is exactly their result.
fn commits_in(catalog: &Catalog) -> u64 {
    assert!(catalog.verify().is_empty(), "{:?}", catalog.verify());
    let view = catalog.snapshot().unwrap();
    let commits = view.meta("commits").unwrap().unwrap_or(0);
    assert_eq!(view.key_count().unwrap(), commits * STEP);
    let ids: Result<Vec<_>> = view.ids(EntryId(0)).unwrap().collect();
    let ids = ids.unwrap();
    assert_eq!(ids.len() as u64, commits * STEP);
    for (id, located) in ids {
        let writer = (id.0 / STEP + 1).min(commits - 1);
        assert_eq!(located.version, Lsn(writer * 1000 + id.0), "id {id}");
        let key = format!("key {:04}", id.0);
        assert_eq!(view.find(ONE, &Namespace::root(), key.as_bytes()).unwrap(), Some(id));
    }
    if let Some(last) = commits.checked_sub(1) {
        let bytes = vec![last as u8; 9000 * (last as usize % 3)];
        assert_eq!(view.segment(last / 2).unwrap(), Some(bytes));
    }
    commits
}

/// Creates, commits, reopens half way, closes; the number of disk calls made by each commit.
fn run(sim: &SimDisk) -> Result<Vec<u64>> {
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let mut catalog = Catalog::create(&disk, CACHE)?;
    let mut ends = vec![sim.op_count()];
    for n in 0..COMMITS {
        commit(&catalog, n)?;
        ends.push(sim.op_count());
        if n == COMMITS / 2 {
            catalog.close()?;
            catalog = Catalog::open(&disk, CACHE)?;
        }
    }
    catalog.close()?;
    Ok(ends)
}

#[test]
fn every_crash_leaves_the_last_commit_or_the_one_under_way() {
    let sim = SimDisk::new(11);
    sim.record();
    let ends = run(&sim).unwrap();
    let recording = sim.recording().unwrap();
    let mut seen = HashSet::new();
    let mut images = 0;
    for profile in [Profile::Kill, Profile::Prefix, Profile::Posix] {
        let limits = Limits { images: 8, random: 3, torn: 3, ..Limits::default() };
        for op in recording.first_op()..=recording.end_op() {
            let acked = ends.iter().take_while(|end| **end <= op).count() as u64;
            for image in recording.distinct_images_at(op, profile, &limits, &mut seen) {
                images += 1;
                let at = format!("{} acked {acked}", image.label());
                let disk: Arc<dyn Disk> = Arc::new(image);
                let first = Catalog::open(&disk, CACHE);
                // Before `create` returned there may be anything that asks for a rebuild.
                if acked == 0 {
                    let kind = first.as_ref().map_err(Error::kind).err();
                    let rebuilds = [None, Some(ErrorKind::NotFound), Some(ErrorKind::Corrupt)];
                    assert!(rebuilds.contains(&kind), "{at}: {kind:?}");
                    let again = Catalog::create(&disk, CACHE).unwrap();
                    assert_eq!(commits_in(&again), 0);
                    continue;
                }
                let catalog = first.unwrap_or_else(|e| panic!("{at}: {e:?}"));
                let found = commits_in(&catalog);
                assert!(found == acked - 1 || found == acked, "{at}: {found}");
                commit(&catalog, found).unwrap();
                assert_eq!(commits_in(&catalog), found + 1, "{at}");
            }
        }
    }
    assert!(images > 300, "{images}");
}

#[test]
fn every_failing_call_is_an_error_and_loses_no_commit() {
    let calls = {
        let sim = SimDisk::new(3);
        run(&sim).unwrap();
        sim.op_count()
    };
    for fault in Fault::ALL {
        for op in (0..calls).step_by(5) {
            let sim = SimDisk::new(3);
            sim.fail_at(op, fault, op % 2 == 0);
            let mut acked = None;
            let disk: Arc<dyn Disk> = Arc::new(sim.clone());
            let result = Catalog::create(&disk, CACHE).and_then(|catalog| {
                acked = Some(0);
                for n in 0..COMMITS {
                    if let Err(error) = commit(&catalog, n) {
                        assert!(catalog.failure().is_some(), "{fault:?} {op}: {error}");
                        return Err(error);
                    }
                    acked = Some(n + 1);
                }
                catalog.close()
            });
            if let Err(error) = &result {
                let wanted = [ErrorKind::Io, ErrorKind::Full];
                assert!(wanted.contains(&error.kind()), "{fault:?} at {op}: {error:?}");
            }
            sim.clear_faults();
            // The power goes as well; what was acknowledged is on the disk.
            for image in sim.crash_images(Profile::Posix, 4) {
                let Some(acked) = acked else { continue };
                let disk: Arc<dyn Disk> = Arc::new(image);
                let catalog = Catalog::open(&disk, CACHE);
                let catalog = catalog.unwrap_or_else(|e| panic!("{fault:?} at {op}: {e:?}"));
                let found = commits_in(&catalog);
                assert!(found == acked || found == acked + 1, "{fault:?} at {op}: {found}");
            }
        }
    }
}
