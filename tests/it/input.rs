//! Bad input, one test per case: what cannot work is refused with the kind that says so, with the
//! value and its limit in the message, and nothing is written.
//!
//! Arguments (vectors, keys, payloads, names, filters) first, then directories (not a store,
//! somebody else's). `files` goes on with what is in a directory.

use std::path::Path;
use std::time::{Duration, Instant};

use pmll::io::MemoryDisk;
use pmll::{
    Batch, Collection, CollectionSpec, Draft, Error, ErrorKind, Filter, Key, Metric, Namespace,
    Options, Patch, Query, Result, Scan, Store,
};
use serde_json::json;

use crate::support::{ManualClock, assert_same, dump, open, tiny, try_open};

mod files;

/// A store with one collection of dimension 3 and one entry, `a`.
fn small() -> (Store, Collection) {
    let store = open(&MemoryDisk::new(), &ManualClock::new());
    let notes = store.collection("notes").unwrap();
    notes.put("a", Draft::text("one").vector([1.0, 2.0, 3.0])).unwrap();
    (store, notes)
}

/// `call` must fail with this kind and these words, and must not move the store by one operation.
#[track_caller]
fn refused<T: std::fmt::Debug>(
    store: &Store,
    kind: ErrorKind,
    words: &[&str],
    call: impl FnOnce() -> Result<T>,
) {
    let before = (dump(store), store.stats().unwrap().last_lsn);
    let error = call().expect_err("it must be refused");
    expect_error(&error, kind, words);
    assert_same(&dump(store), &before.0, "nothing may change");
    assert_eq!(store.stats().unwrap().last_lsn, before.1, "nothing may be logged");
}

#[track_caller]
fn expect_error(error: &Error, kind: ErrorKind, words: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{error:?} should say {word:?}");
    }
}

#[test]
fn a_vector_of_another_dimension() {
    let (store, notes) = small();
    let four = || Draft::text("").vector([0.0; 4]);
    let both = &["4", "3", "notes"];
    refused(&store, ErrorKind::Invalid, both, || notes.put("b", four()));
    refused(&store, ErrorKind::Invalid, both, || notes.put("a", four()));
    let patch = || Patch::default().vector([0.0; 4]);
    refused(&store, ErrorKind::Invalid, both, || notes.update("a", patch()));
    refused(&store, ErrorKind::Invalid, both, || notes.search(vec![0.0; 4]));
    let batch = Batch::new().put(&notes, "ok", Draft::text("fine")).put(&notes, "b", four());
    refused(&store, ErrorKind::Invalid, both, || store.write(batch));
    let spec = CollectionSpec::new().dim(4);
    refused(&store, ErrorKind::Invalid, both, || store.collection_with("notes", spec));
    let spec = CollectionSpec::new().metric(Metric::L2);
    let words = &["cosine", "l2"];
    refused(&store, ErrorKind::Invalid, words, || store.collection_with("notes", spec));
    notes.set_model("one").unwrap();
    refused(&store, ErrorKind::Invalid, &["one", "two"], || notes.set_model("two"));
}

#[test]
fn values_that_are_not_finite() {
    let (store, notes) = small();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let vector = vec![0.0, bad, 0.0];
        let put = || notes.put("a", Draft::text("").vector(vector.clone()));
        refused(&store, ErrorKind::Invalid, &["value 1", "finite"], put);
        let update = || notes.update("a", Patch::default().vector(vector.clone()));
        refused(&store, ErrorKind::Invalid, &["value 1"], update);
        let search = || notes.search(Query::vector(vector.clone()));
        refused(&store, ErrorKind::Invalid, &["value 1"], search);
    }
    let query = || Query::vector([1.0, 0.0, 0.0]).min_score(f32::NAN);
    refused(&store, ErrorKind::Invalid, &["min_score"], || notes.search(query()));
    for salience in [f32::NAN, -0.1, 1.1] {
        let draft = || Draft::text("").salience(salience);
        refused(&store, ErrorKind::Invalid, &["salience"], || notes.put("b", draft()));
    }
}

#[test]
fn keys_that_are_empty_or_too_long() {
    let (store, notes) = small();
    let longest = vec![b'k'; 1024];
    notes.put(&longest, Draft::text("longest")).unwrap();
    assert!(notes.contains(&longest).unwrap());
    for (key, words) in [(Vec::new(), ["empty", "1024"]), (vec![b'k'; 1025], ["1025", "1024"])] {
        let draft = || Draft::text("");
        refused(&store, ErrorKind::Invalid, &words, || notes.put(&key, draft()));
        refused(&store, ErrorKind::Invalid, &words, || notes.insert(&key, draft()));
        refused(&store, ErrorKind::Invalid, &words, || notes.get(&key));
        refused(&store, ErrorKind::Invalid, &words, || notes.delete(&key));
        refused(&store, ErrorKind::Invalid, &words, || notes.touch(&key));
        refused(&store, ErrorKind::Invalid, &words, || notes.get_many(&[&key]));
        refused(&store, ErrorKind::Invalid, &words, || Key::new(&key));
        let batch = Batch::new().put(&notes, "ok", draft()).delete(&notes, &key);
        refused(&store, ErrorKind::Invalid, &words, || store.write(batch));
    }
}

#[test]
fn names_that_cannot_be() {
    let (store, notes) = small();
    for path in ["a//b", "/a", "a/", "a\0b"] {
        refused(&store, ErrorKind::Invalid, &["namespace"], || Namespace::new(path));
    }
    let long = "n".repeat(1025);
    refused(&store, ErrorKind::Invalid, &["1025", "1024"], || Namespace::new(&long));
    for name in ["", "a\0b", &"c".repeat(256)] {
        refused(&store, ErrorKind::Invalid, &["255"], || store.collection(name));
        refused(&store, ErrorKind::Invalid, &["255"], || store.set_setting(name, json!(1)));
    }
    for name in [String::new(), "s".repeat(256)] {
        let draft = || Draft::text("").session(name.clone());
        refused(&store, ErrorKind::Invalid, &["session", "255"], || notes.put("b", draft()));
    }
    assert_eq!(store.collections().unwrap().len(), 1);
}

#[test]
fn payloads_and_attributes_that_are_too_large() {
    let (store, notes) = small();
    let most = 16 << 20;
    let largest = Draft::bytes(vec![7; most]);
    notes.put("largest", largest).unwrap();
    assert_eq!(notes.get("largest").unwrap().unwrap().payload, vec![7; most]);
    notes.delete("largest").unwrap();
    let words = &["16777217", "16777216"];
    let draft = || Draft::bytes(vec![0; most + 1]);
    refused(&store, ErrorKind::Invalid, words, || notes.put("b", draft()));
    let patch = || Patch::default().payload(vec![0; most + 1]);
    refused(&store, ErrorKind::Invalid, words, || notes.update("a", patch()));
    let draft = || Draft::text("").attr("text", "x".repeat(1 << 20));
    refused(&store, ErrorKind::Invalid, &["1048576"], || notes.put("b", draft()));
    let deep = (0..17).fold(json!(1), |inner, _| json!([inner]));
    let draft = || Draft::text("").attr("deep", deep.clone());
    refused(&store, ErrorKind::Invalid, &["16"], || notes.put("b", draft()));
    let batch = (0..5).fold(Batch::new(), |batch, n| {
        batch.put(&notes, format!("{n}"), Draft::bytes(vec![0; 15 << 20]))
    });
    refused(&store, ErrorKind::Invalid, &["67108864"], || store.write(batch));
}

#[test]
fn dimensions_that_are_too_many() {
    let (store, notes) = small();
    let most = 65_536;
    let wide = store.collection("wide").unwrap();
    wide.put("most", Draft::text("").vector(vec![0.5; most])).unwrap();
    store.checkpoint().unwrap();
    let hits = wide.search(vec![0.5; most]).unwrap();
    assert!((hits[0].score - 1.0).abs() < 1e-4);
    let words = &["65537", "65536"];
    let draft = || Draft::text("").vector(vec![0.5; most + 1]);
    refused(&store, ErrorKind::Invalid, words, || notes.put("b", draft()));
    refused(&store, ErrorKind::Invalid, words, || wide.search(vec![0.5; most + 1]));
    let spec = || CollectionSpec::new().dim(65_537);
    refused(&store, ErrorKind::Invalid, words, || store.collection_with("w", spec()));
    let none = || Draft::text("").vector(Vec::new());
    refused(&store, ErrorKind::Invalid, &["0 values"], || notes.put("b", none()));
    let spec = || CollectionSpec::new().dim(0);
    refused(&store, ErrorKind::Invalid, &["0"], || store.collection_with("w", spec()));
}

#[test]
fn a_search_for_no_hits_or_too_many() {
    let (store, notes) = small();
    let query = |k| Query::vector([1.0, 0.0, 0.0]).k(k);
    refused(&store, ErrorKind::Invalid, &["k is 0"], || notes.search(query(0)));
    refused(&store, ErrorKind::Invalid, &["1048576"], || notes.search(query((1 << 20) + 1)));
    assert_eq!(notes.search(query(1 << 20)).unwrap().len(), 1);
}

#[test]
fn filters_budgets_and_cursors_that_mean_nothing() {
    let (store, notes) = small();
    for (text, word) in [
        (r#"{"a": {"$near": 1}}"#, "$near"),
        (r#"{"_nothing": 1}"#, "_nothing"),
        (r#"{"$or": 3}"#, "$or"),
        ("[1]", ""),
        ("{", ""),
    ] {
        refused(&store, ErrorKind::Invalid, &[word], || Filter::parse(text));
    }
    refused(&store, ErrorKind::Invalid, &["1048576"], || store.set_budget(1_048_575));
    let scan = || Scan::new().cursor("nonsense");
    refused(&store, ErrorKind::Invalid, &["nonsense"], || notes.scan(scan()));
    let options = Options { budget_bytes: Some(5), ..tiny() };
    let error = try_open(&MemoryDisk::new(), &ManualClock::new(), options).unwrap_err();
    expect_error(&error, ErrorKind::Invalid, &["5 bytes", "1048576"]);
    let (other, _) = small();
    let batch = Batch::new().put(&notes, "b", Draft::text(""));
    refused(&other, ErrorKind::Invalid, &["another store"], || other.write(batch));
}

#[test]
fn a_vector_of_zeros_is_stored_and_never_scores_nan() {
    let (store, notes) = small();
    notes.put("zero", Draft::text("nothing").vector([0.0; 3])).unwrap();
    notes.put("tiny", Draft::text("").vector([1e-44, 0.0, -0.0])).unwrap();
    notes.put("huge", Draft::text("").vector([f32::MAX, f32::MAX, f32::MIN])).unwrap();
    for _ in ["in RAM", "in the archive"] {
        for query in [[1.0, 2.0, 3.0], [0.0; 3], [f32::MAX; 3], [1e-44, 0.0, 0.0]] {
            let hits = notes.search(Query::vector(query).k(10).with_vector(true)).unwrap();
            assert_eq!(hits.len(), 4);
            for hit in hits.iter() {
                assert!(hit.score.is_finite() && hit.score.abs() <= 1.0, "{}", hit.score);
                if hit.entry.key.as_bytes() == b"zero" || query == [0.0; 3] {
                    assert_eq!(hit.score, 0.0);
                }
            }
        }
        let zero = notes.get("zero").unwrap().unwrap();
        assert_eq!(zero.vector, Some(vec![0.0; 3]));
        store.checkpoint().unwrap();
    }
}

/// Paths, contents and change times of everything in a directory.
fn tree(root: &Path) -> Vec<(String, Vec<u8>, std::time::SystemTime)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let changed = path.symlink_metadata().unwrap().modified().unwrap();
            if path.is_dir() {
                found.push((path.display().to_string(), Vec::new(), changed));
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                found.push((path.display().to_string(), bytes, changed));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_directory_that_is_not_a_store() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("home");
    std::fs::create_dir(&path).unwrap();
    let plant = |name: &str| std::fs::write(path.join(name), b"mine").unwrap();
    // With and without names that a store would use.
    plant("letter.txt");
    let open = || Store::open(&path);
    for name in ["wal", "archive", "columns"] {
        let before = tree(&path);
        for read_only in [false, true] {
            let options = Options { read_only, ..tiny() };
            let error = Store::builder(&path).options(options).open().unwrap_err();
            assert_eq!(tree(&path), before, "{error}");
            let kinds = [ErrorKind::Invalid, ErrorKind::NotFound];
            assert!(kinds.contains(&error.kind()), "{error:?}");
        }
        expect_error(&open().unwrap_err(), ErrorKind::Invalid, &["not a pmll store"]);
        assert_eq!(tree(&path), before);
        // A second round beside a folder of a store's name with somebody's file in it.
        std::fs::create_dir(path.join(name)).unwrap();
        plant(&format!("{name}/0000000001.{name}"));
        let _ = std::fs::remove_file(path.join("letter.txt"));
    }
    let file = parent.path().join("file");
    std::fs::write(&file, b"text").unwrap();
    expect_error(&Store::open(&file).unwrap_err(), ErrorKind::Invalid, &["directory"]);
    assert_eq!(std::fs::read(&file).unwrap(), b"text");
    let missing = parent.path().join("missing");
    let options = Options { create: false, ..tiny() };
    let error = Store::builder(&missing).options(options).open().unwrap_err();
    expect_error(&error, ErrorKind::NotFound, &["missing"]);
    assert!(!missing.exists());
    let orphan = parent.path().join("no/parent");
    assert!(Store::open(&orphan).is_err() && !parent.path().join("no").exists());
}

#[test]
fn a_second_owner_is_told_at_once_who_the_first_is() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    let first = Store::open(&path).unwrap();
    first.collection("notes").unwrap().put("a", Draft::text("one")).unwrap();
    let began = Instant::now();
    let pid = std::process::id().to_string();
    for read_only in [false, true] {
        let options = Options { read_only, ..tiny() };
        let error = Store::builder(&path).options(options).open().unwrap_err();
        expect_error(&error, ErrorKind::Locked, &[&pid]);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    first.collection("notes").unwrap().put("b", Draft::text("two")).unwrap();
    first.close().unwrap();
    let second = Store::open(&path).unwrap();
    assert_eq!(second.collection("notes").unwrap().count(None).unwrap(), 2);
}
