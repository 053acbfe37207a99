//! A second reader of the disk format, written from `docs/FORMAT.md` alone.
//!
//! It shares no code with the engine and knows only what the document says. It decodes the store in
//! `tests/fixtures/dev` down to every checksum, makes the entries of it, and compares them with what the
//! command line tool had said about the same store. When it fails after a change of the format, make
//! the store anew as `tests/fixtures/dev/README.md` tells; when it fails then, too, the document
//! does not say what the engine writes.

#![allow(clippy::unwrap_used)]

mod archive;
mod bytes;
mod codes;
mod expected;
mod log;
mod operations;
mod soft;
mod store;

use std::collections::BTreeMap;
use std::path::Path;

use store::{Files, Store};

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/dev"))
}

/// All files of the store, by name.
fn files() -> Files {
    let mut files = Files::new();
    let mut folders = vec![(String::new(), folder().join("store"))];
    while let Some((prefix, path)) = folders.pop() {
        for entry in std::fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                folders.push((format!("{name}/"), entry.path()));
            } else {
                files.insert(name, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

fn decoded() -> Store {
    store::read(&files()).unwrap()
}

fn expected_lines() -> Vec<expected::Line> {
    expected::lines(&std::fs::read_to_string(folder().join("expected.jsonl")).unwrap())
}

#[test]
fn a_reader_of_the_document_finds_every_entry() {
    let store = decoded();
    let mut found = BTreeMap::new();
    // What had expired when the last write was made is in no answer.
    let now = store.entries.values().map(|entry| entry.updated).max().unwrap();
    for entry in store.entries.values().filter(|entry| entry.expires.is_none_or(|at| at > now)) {
        let name = store.collections[&entry.collection].name.clone();
        let place = (name, entry.namespace.clone(), entry.key.clone());
        assert!(found.insert(place, entry).is_none(), "two entries under {}", entry.key);
    }
    let by_name =
        |name: &str| store.collections.values().find(|define| define.name == name).unwrap();
    let (mut collections, mut settings) = (0, false);
    for line in expected_lines() {
        if let Some(collection) = line.get("collection") {
            let collection = collection.as_object().unwrap();
            let name = collection["name"].as_str().unwrap();
            expected::compare_collection(by_name(name), collection);
            // The tool counts what has expired until it is removed.
            let number = by_name(name).collection;
            let entries = store.entries.values().filter(|entry| entry.collection == number).count();
            assert_eq!(collection["entries"], entries, "{name}");
            collections += 1;
        } else if let Some(all) = line.get("settings") {
            let ours = store
                .settings
                .iter()
                .map(|(name, value)| (name.clone(), serde_json::from_str(value).unwrap()));
            assert_eq!(*all.as_object().unwrap(), ours.collect());
            settings = true;
        }
    }
    assert_eq!((collections, settings), (store.collections.len(), true));

    for line in expected_lines().iter().filter(|line| line.contains_key("in")) {
        let text =
            |name: &str| line.get(name).map_or("", |value| value.as_str().unwrap()).to_owned();
        let place = (text("in"), text("ns"), text("key"));
        let entry = found.remove(&place).unwrap_or_else(|| panic!("{place:?} is not there"));
        expected::compare(entry, by_name(&place.0).model.as_deref(), line);
        levels(&store, entry.id, line);
    }
    assert!(found.is_empty(), "nobody expects {:?}", found.keys());
}

/// The level and the accesses of an entry, which are soft.
fn levels(store: &Store, id: u64, line: &expected::Line) {
    let key = &line["key"];
    if line["tier"] == "L1" {
        assert!(store.packed.contains_key(&id), "{key} is not in the arena");
    }
    if line["tier"] == "L0" && !store.logged.contains(&id) {
        assert!(store.hot.contains(&id), "{key} is not hot");
    }
    let (count, last) = store.accesses.get(&id).copied().unwrap_or((0, i64::MIN));
    assert_eq!(line["access_count"], count, "{key}");
    let updated = store.entries[&id].updated;
    let shown = expected::micros(line["last_access"].as_str().unwrap());
    assert_eq!(shown, last.max(updated), "{key}");
}

#[test]
fn the_store_has_all_of_the_format_in_it() {
    let store = decoded();
    let parts = [
        "log segments",
        "batches",
        "puts",
        "deletes",
        "drops",
        "defines",
        "settings",
        "archived deletes",
        "segments of the log",
        "vacuumed segments",
        "superseded segments",
        "rows",
        "rows with vectors",
        "8-bit blocks",
        "4-bit blocks",
        "columns",
        "moves",
        "index pages",
    ];
    for part in parts {
        assert!(
            store.seen.get(part).is_some_and(|count| *count > 0),
            "no {part}: {:?}",
            store.seen
        );
    }
    assert!(!store.hot.is_empty() && !store.accesses.is_empty() && store.last_lsn > 0);
    let vectors = |half: bool| {
        let of = |entry: &&operations::Entry| store.collections[&entry.collection].half == half;
        store.entries.values().filter(of).filter(|entry| entry.vector.is_some()).count()
    };
    assert!(vectors(true) > 20 && vectors(false) > 10);
    let long = |entry: &operations::Entry| entry.payload.len() > 512 << 10;
    assert!(store.entries.values().any(long), "no payload of three frames");
}

/// The example at the end of the document, which is a log segment without the zeros behind.
#[test]
fn the_worked_example_decodes() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/FORMAT.md");
    let page = std::fs::read_to_string(page).unwrap();
    let dump = page.split("```hex\n").nth(1).unwrap().split("```").next().unwrap();
    let digits = dump.lines().flat_map(|line| line[6..line.len().min(54)].split_whitespace());
    let bytes: Vec<u8> = digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let id = std::array::from_fn(|at| at as u8);
    let segment = log::read(&bytes, &id, 1).unwrap();
    let [(1, operations::Operation::Put(entry))] = &segment.operations[..] else {
        panic!("{} operations", segment.operations.len());
    };
    let expected = operations::Entry {
        collection: 1,
        id: 1,
        version: 1,
        key: "n1".to_owned(),
        attributes: "{}".to_owned(),
        payload: b"hi".to_vec(),
        vector: Some(vec![1.0, -2.0]),
        at: 1_000_000,
        created: 1_000_000,
        updated: 1_000_000,
        ..operations::Entry::default()
    };
    assert_eq!(**entry, expected);
}

/// One byte is changed at a time, in every file, and no change goes by.
#[test]
fn a_changed_byte_is_noticed() {
    let mut files = files();
    store::read(&files).unwrap();
    let names: Vec<String> = files.keys().cloned().collect();
    for name in names {
        let length = files[&name].len();
        // Of the index: both headers, the page of checksums, and the pages that have one.
        let pages = if name == "index.redb" { soft::index(&files[&name]).unwrap() } else { vec![] };
        let covered = |at: usize| {
            let (page, at_in_page) = (at as u64 / 4096, at % 4096);
            let header = page < 2 && at_in_page < 512;
            name != "index.redb" || header || page == 2 || pages.contains(&page)
        };
        // Every byte of a short file; of a longer one a start and a spread of the rest.
        let spread = (length / 50).max(1) | 1;
        let places = (0..length).filter(|at| *at < 64 || at % spread == 0 || *at + 40 > length);
        for at in places.filter(|at| covered(*at)) {
            let mut copy = files[&name].clone();
            copy[at] ^= 0x10;
            let whole = files.insert(name.clone(), copy).unwrap();
            assert!(store::read(&files).is_err(), "{name}: byte {at} of {length}");
            files.insert(name.clone(), whole);
        }
    }
}
