//! What a search asks of a disk that has to be waited for.
//!
//! The disk says that it has everything in memory, or nothing, and notes the calls for the archive's bytes:
//! answers are the same, what is not there is announced before it is read, and pieces of codes are made behind a
//! search, for those after it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
        (Exactness::Codes(0.99), true, false),
    ];
    for (exactness, ranks, settles) in kinds {
        calls.lock().unwrap().clear();
        assert_eq!(keys(&search(&notes, exactness, 10)), near(0..10), "{exactness:?}");
        // How many were announced before each read: for codes at least sixteen, one call each; for exact
        // vectors twelve, with their rows two calls each; of ten hits the rows, and the places of two frames each.
        let calls = calls.lock().unwrap();
        let reads = calls.split(|call| call == "read");
        let told = reads.map(|calls| calls.iter().filter(|call| *call == "will_read").count());
        let told: Vec<usize> = told.filter(|count| *count > 0).collect();
        let (first, later) = told.split_first().map_or((0, [].as_slice()), |(a, b)| (*a, b));
        assert_eq!(first >= 16, ranks, "{exactness:?}: {told:?}");
        assert_eq!(later.iter().any(|count| *count >= 24), settles, "{exactness:?}: {told:?}");
        assert_eq!(later.windows(2).any(|two| two == [10, 20]), ranks, "{exactness:?}: {told:?}");
        assert!(ranks || told.is_empty(), "{exactness:?}: {told:?}");
    }
}

#[test]
fn the_pieces_that_a_search_misses_are_made_for_the_next_ones() {
    for (is_cached, background) in [(true, false), (true, true), (false, true)] {
        let options = Options { background, budget_bytes: Some(64 << 20), ..Options::default() };
        let (disk, calls) = watched(patient(), is_cached);
        let store = try_open(&disk, &ManualClock::new(), options).unwrap();
        let notes = store.collection("notes").unwrap();
        let searched = || {
            calls.lock().unwrap().clear();
            assert_eq!(keys(&search(&notes, Exactness::Codes(0.99), 10)), near(0..10));
            let calls = calls.lock().unwrap();
            let count = |name| calls.iter().filter(|call| *call == name).count();
            (count("read_if_cached"), count("will_read"))
        };
        // The first one finds none, and has its candidates' codes read one by one.
        let (asked, announced) = searched();
        assert!(asked >= 20 && (announced == 0) == is_cached, "{asked} {announced}");
        // Three pieces of 1,024 rows: one after each search, or four for each by the background thread.
        let mut searches = 1;
        while searched() != (0, 0) {
            searches += 1;
            assert!(background || searches < 4, "three searches see to three pieces");
            assert!(searches < 10_000, "the background thread sees to none");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(background || searches == 3, "{searches}");
        store.close().unwrap();
    }
}

/// Calls of one kind that each of some searches made, of a store without a background thread.
fn counts(disk: SimDisk, is_cached: bool, budget_bytes: u64, what: &str) -> Vec<usize> {
    let (disk, calls) = watched(disk, is_cached);
    let options =
        Options { background: false, budget_bytes: Some(budget_bytes), ..Options::default() };
    let store = try_open(&disk, &ManualClock::new(), options).unwrap();
    let notes = store.collection("notes").unwrap();
    let searched = |_| {
        calls.lock().unwrap().clear();
        let query = Query::vector(question()).exactness(Exactness::Codes(0.99));
        assert_eq!(notes.search_ids(query.count_access(CountAccess::None)).unwrap().len(), 10);
        calls.lock().unwrap().iter().filter(|call| *call == what).count()
    };
    (0..6).map(searched).collect()
}

#[test]
fn no_search_waits_for_a_piece() {
    // In memory: a piece is two reads, of codes and of rows, behind each of three searches.
    let reads = counts(patient(), true, 64 << 20, "read");
    let last = reads[5];
    assert!(reads[3..].iter().all(|reads| *reads == last), "{reads:?}");
    assert!(reads[..3].iter().all(|reads| *reads >= last + 2), "{reads:?}");
    // Not in memory: it is announced, and nobody reads it.
    let told = counts(patient(), false, 64 << 20, "will_read");
    let reads = counts(patient(), false, 64 << 20, "read");
    assert!(told.iter().all(|told| *told > 20), "{told:?}");
    assert!(reads[1..].iter().all(|count| *count == reads[1]), "{reads:?}");
}

#[test]
fn a_store_that_has_codes_of_all_rows_in_the_arena_keeps_no_pieces() {
    let disk = patient();
    let store = open(&disk);
    // All but one leave RAM for the arena.
    store.set_setting("rho", 1e-6.into()).unwrap();
    store.compress_with(Policy::Paper).unwrap();
    store.close().unwrap();
    let store = open(&disk);
    let [hot, warm, cold] = store.stats().unwrap().tiers;
    assert!(warm.entries + 10 > ENTRIES as u64, "{hot:?} {warm:?} {cold:?}");
    let before = store.counted_bytes().unwrap();
    let notes = store.collection("notes").unwrap();
    for _ in 0..6 {
        for exactness in [Exactness::Codes(0.99), Exactness::Target(0.99)] {
            assert_eq!(keys(&search(&notes, exactness, 10)), near(0..10));
        }
    }
    // Sketches of 5 bytes a row, in blocks of 64, and four that say where its codes stand; a piece has 48 for each.
    let kept = store.counted_bytes().unwrap() - before;
    assert!((9..15).contains(&(kept / ENTRIES as u64)), "{kept}");
}

#[test]
fn what_the_background_thread_cannot_read_it_tries_once() {
    let fails = Arc::new(AtomicBool::new(false));
    let (told, tries) = (Arc::clone(&fails), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&tries);
    let disk = HookDisk::new(patient(), move |call, name| {
        let is_background = std::thread::current().name() == Some("pmll-background");
        let fails = is_background && told.load(Ordering::SeqCst) && name.starts_with("archive/");
        if !fails || call != "read" {
            return Ok(());
        }
        counted.fetch_add(1, Ordering::SeqCst);
        Err(io::Error::other("a bad sector"))
    });
    let options = Options { background: true, budget_bytes: Some(64 << 20), ..Options::default() };
    let store = try_open(&disk, &ManualClock::new(), options).unwrap();
    let notes = store.collection("notes").unwrap();
    // An open has that thread read back what is hot.
    while {
        let [hot, ..] = store.stats().unwrap().tiers;
        hot.resident < hot.entries
    } {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    fails.store(true, Ordering::SeqCst);
    for _ in 0..100 {
        let hits = search(&notes, Exactness::Codes(0.99), 10);
        assert!(hits.damaged().is_empty());
        assert_eq!(keys(&hits), near(0..10));
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    // Three pieces; the first read of each fails.
    assert_eq!(tries.load(Ordering::SeqCst), 3);
    store.close().unwrap();
}
