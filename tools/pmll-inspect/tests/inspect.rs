//! `pmll-inspect` on real stores: closed, in use, damaged.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pmll::{Draft, Store};
use serde_json::Value;

fn inspect(dir: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pmll-inspect")).arg(dir).args(words).output().unwrap()
}

fn json(dir: &Path, words: &[&str]) -> Value {
    let output = inspect(dir, &[words, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A store with an archived part and a logged one.
fn fill(dir: &Path) -> Store {
    let store = Store::open(dir).unwrap();
    let notes = store.collection("notes").unwrap();
    for n in 0..50_u8 {
        let draft = Draft::text(format!("note {n}")).vector([f32::from(n), 1.0]).attr("n", n);
        notes.put(format!("n{n}"), draft).unwrap();
    }
    store.compress_with(pmll::Policy::Paper).unwrap();
    notes.put("late", Draft::text("not archived")).unwrap();
    store
}

fn files_of(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for folder in [dir.to_path_buf(), dir.join("wal"), dir.join("archive"), dir.join("arena")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                all.push((path.clone(), std::fs::read(path).unwrap()));
            }
        }
    }
    all.sort();
    all
}

#[test]
fn a_closed_store_shows_everything_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    fill(&dir).close().unwrap();
    let before = files_of(&dir);
    let overview = json(&dir, &[]);
    assert_eq!(overview["entries"], 51);
    let tiers = overview["tiers"].as_array().unwrap();
    assert_eq!(tiers.iter().map(|t| t["entries"].as_u64().unwrap()).sum::<u64>(), 51);
    assert_eq!(
        tiers[1]["bits"]["int8"]["entries"], 40,
        "a fifth is protected, all scores are alike"
    );
    let bars = overview["scores"].as_array().unwrap();
    let bars =
        bars.iter().flat_map(|bin| ["hot", "warm", "cold"].map(|l| bin[l].as_u64().unwrap()));
    assert_eq!(bars.sum::<u64>(), 50);

    let entries = json(&dir, &["entries", "--sort", "key", "--where", "n>=48", "--limit", "1"]);
    assert_eq!((&entries["matching"], &entries["entries"][0]["key"]), (&2.into(), &"n48".into()));
    let entry = json(&dir, &["entry", "notes", "n7"]);
    assert_eq!(entry["why"]["of"], 50);
    assert_eq!(json(&dir, &["entry", "notes", "late"])["score"], Value::Null);
    assert_eq!(json(&dir, &["archive", "--deep"])[0]["facts"]["rows"], 50);
    assert_eq!(json(&dir, &["arena"])[0]["facts"]["bits"], 8);
    assert_eq!(json(&dir, &["catalog"])[0]["facts"]["ids"], 50);
    let log = json(&dir, &["wal"]);
    let last = log.as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["facts"]["operations"], &last["facts"]["closed_cleanly"]),
        (&1.into(), &true.into())
    );
    assert_eq!(json(&dir, &["columns"])[0]["problems"], Value::Array(Vec::new()));
    for words in [&[][..], &["entries"], &["entry", "notes", "n7"], &["wal"], &["archive"]] {
        let output = inspect(&dir, words);
        assert!(output.status.success() && !output.stdout.is_empty(), "{words:?}");
    }
    assert!(before == files_of(&dir), "an inspection writes nothing");
}

#[test]
fn a_store_in_use_shows_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let store = fill(&dir);
    let overview = json(&dir, &[]);
    assert_eq!(overview["in_use"], true);
    assert_eq!(overview["files"][1]["rows"], 50);
    assert_eq!(json(&dir, &["archive"])[0]["facts"]["rows"], 50);
    let output = inspect(&dir, &["catalog"]);
    assert_eq!(output.status.code(), Some(4), "the index changes under a reader");
    // Looking did not take the store away from its owner.
    store.collection("notes").unwrap().put("more", Draft::text("x")).unwrap();
    store.close().unwrap();
}

#[test]
fn damage_is_shown_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    fill(&dir).close().unwrap();
    let segment = dir.join("archive/0000000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[400] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let output = inspect(&dir, &["archive", "--deep", "--json"]);
    assert_eq!(output.status.code(), Some(5));
    let reports: Value = serde_json::from_slice(&output.stdout).unwrap();
    let problem = reports[0]["problems"][0].as_str().unwrap();
    assert!(problem.contains("archive/0000000001.seg"), "{problem}");
    assert_eq!(reports[0]["facts"]["rows"], 50, "what can be decoded is");

    bytes.truncate(100);
    std::fs::write(&segment, &bytes).unwrap();
    let overview = json(&dir, &[]);
    assert_eq!(overview["in_use"], false);
    assert_eq!(overview["files"][1]["problems"].as_array().unwrap().len(), 1);
    let output = inspect(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(1), "no store there");
}
