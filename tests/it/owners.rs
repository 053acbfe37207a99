//! Several that want one store: two that make it at once, and readers beside each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pmll::inspect::Files;
use pmll::io::sim::SimDisk;
use pmll::io::{Disk, FileDisk, MemoryDisk};
use pmll::{Depth, Draft, ErrorKind, Options};

use crate::support::hooks::HookDisk;
use crate::support::{ManualClock, open, tiny, try_open};

/// The second owner makes the store, writes and leaves between the first one's look at the empty
/// directory and its lock.
#[test]
fn a_store_that_was_made_meanwhile_is_not_made_again() {
    let (below, clock) = (MemoryDisk::new(), ManualClock::new());
    let (other, other_clock) = (below.clone(), Arc::clone(&clock));
    let raced = AtomicBool::new(false);
    let disk = HookDisk::new(below.clone(), move |call, _| {
        if call == "lock" && !raced.swap(true, Ordering::SeqCst) {
            let store = open(&other, &other_clock);
            store.collection("notes").unwrap().put("a", Draft::text("acknowledged")).unwrap();
            store.close().unwrap();
        }
        Ok(())
    });
    let store = open(&disk, &clock);
    let entry = store.collection("notes").unwrap().get("a").unwrap().unwrap();
    assert_eq!(entry.text(), Some("acknowledged"));
    store.close().unwrap();
    let store = open(&below, &clock);
    assert!(store.verify(Depth::Deep).unwrap().is_whole());
}

/// Readers share a store with each other and with nobody who writes.
#[test]
fn readers_are_in_no_readers_way() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    let clock = ManualClock::new();
    FileDisk::create(&path).unwrap();
    let disk = || Arc::new(FileDisk::open(&path).unwrap()) as Arc<dyn Disk>;
    for disk in [disk(), Arc::new(MemoryDisk::new()), Arc::new(SimDisk::new(1))] {
        let disk = HookDisk::over(disk, |_, _| Ok(()));
        let store = open(&disk, &clock);
        store.collection("notes").unwrap().put("a", Draft::text("one")).unwrap();
        let files = || Files::on(Arc::new(disk.clone())).unwrap();
        assert!(files().in_use());
        store.close().unwrap();
        let reader = || try_open(&disk, &clock, Options { read_only: true, ..tiny() });
        let (first, second) = (reader().unwrap(), reader().unwrap());
        assert!(!files().in_use(), "nobody writes");
        for store in [&first, &second] {
            assert!(store.collection("notes").unwrap().contains("a").unwrap());
        }
        let refused = try_open(&disk, &clock, tiny()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Locked);
        assert!(refused.to_string().contains("for reading"), "{refused}");
        first.close().unwrap();
        assert_eq!(try_open(&disk, &clock, tiny()).unwrap_err().kind(), ErrorKind::Locked);
        second.close().unwrap();
        let store = open(&disk, &clock);
        assert_eq!(reader().unwrap_err().kind(), ErrorKind::Locked);
        store.close().unwrap();
    }
}
