//! Several that want one store: two that make it at once, and readers beside each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pmll::io::MemoryDisk;
use pmll::{Depth, Draft};

use crate::support::hooks::HookDisk;
use crate::support::{ManualClock, open};

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
