//! What a search asks of a disk that has to be waited for.
//!
//! The disk says that it has everything in memory, or nothing, and notes the calls for the archive's bytes:
//! answers are the same, what is not there is announced before it is read, and codes are kept piece by piece
//! only once they are there.

use std::io;
use std::sync::{Arc, Mutex};

use super::*;
use crate::support::hooks::HookDisk;

/// A disk that has everything in memory, or nothing, and the calls for the archive's bytes that it got.
fn watched(below: SimDisk, is_cached: bool) -> (HookDisk, Arc<Mutex<Vec<String>>>) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&calls);
    let disk = HookDisk::new(below, move |call, name| {
        if name.starts_with("archive/") {
            noted.lock().unwrap().push(call.to_owned());
        }
        match call {
            "read_if_cached" if !is_cached => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    });
    (disk, calls)
}

#[test]
fn a_disk_that_has_to_be_waited_for_answers_alike_and_is_asked_for_much_at_once() {
    let (disk, calls) = watched(patient(), false);
    // A budget without room for codes of the archive.
    let options = Options { background: false, budget_bytes: Some(1 << 20), ..Options::default() };
    let store = try_open(&disk, &ManualClock::new(), options).unwrap();
    let notes = store.collection("notes").unwrap();
    // Whether candidates are ranked by codes, and whether exact vectors settle: 0.999 takes so many that a scan is
    // quicker.
    let kinds = [
        (Exactness::Exact, false, false),
        (Exactness::Target(0.999), false, false),
        (Exactness::Target(0.99), true, true),
        (Exactness::Codes, true, false),
    ];
    for (exactness, ranks, settles) in kinds {
        calls.lock().unwrap().clear();
        assert_eq!(keys(&search(&notes, exactness, 10)), near(0..10), "{exactness:?}");
        // How many were announced before each read: for codes at least sixteen, one call each; for exact
        // vectors ten, with their rows two calls each.
        let calls = calls.lock().unwrap();
        let reads = calls.split(|call| call == "read");
        let told = reads.map(|calls| calls.iter().filter(|call| *call == "will_read").count());
        let told: Vec<usize> = told.filter(|count| *count > 0).collect();
        assert_eq!(
            told.first().is_some_and(|first| *first >= 16),
            ranks,
            "{exactness:?}: {told:?}"
        );
        let last = told.last().copied().unwrap_or(0);
        assert_eq!(told.len() > 1 && last >= 20 && last.is_multiple_of(2), settles, "{told:?}");
    }
}

#[test]
fn codes_are_kept_piece_by_piece_once_they_are_in_memory() {
    let options = Options { background: false, budget_bytes: Some(64 << 20), ..Options::default() };
    for is_cached in [true, false] {
        let (disk, calls) = watched(patient(), is_cached);
        let store = try_open(&disk, &ManualClock::new(), options.clone()).unwrap();
        let notes = store.collection("notes").unwrap();
        // Three pieces of 1,024 rows, one a search.
        for _ in 0..4 {
            calls.lock().unwrap().clear();
            assert_eq!(keys(&search(&notes, Exactness::Codes, 10)), near(0..10));
        }
        let calls = calls.lock().unwrap();
        let asked = calls.iter().filter(|call| *call == "read_if_cached").count();
        assert_eq!(asked == 0, is_cached, "{calls:?}");
        // What was not there is announced: the codes of candidates, and a piece.
        assert_eq!(calls.iter().any(|call| call == "will_read"), !is_cached);
    }
}
