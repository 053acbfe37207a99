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
    assert_eq!(json(&dir, &["archive", "--deep"])["files"][0]["facts"]["rows"], 50);
    assert_eq!(json(&dir, &["arena"])["files"][0]["facts"]["bits"], 8);
    assert_eq!(json(&dir, &["catalog"])["files"][0]["facts"]["ids"], 50);
    let log = json(&dir, &["wal"]);
    assert_eq!((&log["in_use"], &log["store_id_from"]), (&false.into(), &Value::Null));
    let last = log["files"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["facts"]["operations"], &last["facts"]["closed_cleanly"]),
        (&1.into(), &true.into())
    );
    assert_eq!(json(&dir, &["columns"])["files"][0]["problems"], Value::Array(Vec::new()));
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
    assert_eq!(json(&dir, &["archive"])["files"][0]["facts"]["rows"], 50);
    let archive = json(&dir, &["archive"]);
    assert_eq!(
        (&archive["in_use"], &archive["files"][0]["facts"]["dead"]),
        (&true.into(), &Value::Null)
    );
    assert_eq!(overview["tiers"][0]["in_log"], 1);
    assert_eq!(
        (&overview["tiers"][1]["rows"], &overview["tiers"][2]["rows"]),
        (&40.into(), &50.into())
    );
    let log = inspect(&dir, &["wal"]);
    assert!(log.status.success() && String::from_utf8_lossy(&log.stderr).contains("open"));
    let output = inspect(&dir, &["catalog"]);
    assert_eq!(output.status.code(), Some(4), "the index changes under a reader");
    // Looking did not take the store away from its owner.
    store.collection("notes").unwrap().put("more", Draft::text("x")).unwrap();
    store.close().unwrap();
}

#[test]
fn dead_rows_are_counted_by_segment_and_group() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let store = Store::open(&dir).unwrap();
    for name in ["a", "b"] {
        let collection = store.collection(name).unwrap();
        for n in 0..3 {
            collection.put(format!("k{n}"), Draft::text("x")).unwrap();
        }
    }
    store.checkpoint().unwrap();
    let b = store.collection("b").unwrap();
    assert!(b.delete("k0").unwrap());
    b.put("k1", Draft::text("newer")).unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();
    let archive = json(&dir, &["archive"]);
    let facts = &archive["files"][0]["facts"];
    assert_eq!(
        (&facts["rows"], &facts["dead"], &facts["listed"]),
        (&6.into(), &2.into(), &true.into())
    );
    let groups = facts["groups"].as_array().unwrap();
    assert_eq!(
        groups.iter().map(|group| group["dead"].as_u64()).collect::<Vec<_>>(),
        [Some(0), Some(2)]
    );
    assert!(groups[0]["sections"]["rows"]["bytes"].as_u64().unwrap() >= 3 * 128);
    assert_eq!(archive["files"][1]["facts"]["dead"], 0);
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
    let problem = reports["files"][0]["problems"][0].as_str().unwrap();
    assert!(problem.contains("archive/0000000001.seg"), "{problem}");
    assert_eq!(reports["files"][0]["facts"]["rows"], 50, "what can be decoded is");

    bytes.truncate(100);
    std::fs::write(&segment, &bytes).unwrap();
    let overview = json(&dir, &[]);
    assert_eq!(overview["in_use"], false);
    assert_eq!(overview["files"][1]["problems"].as_array().unwrap().len(), 1);
    assert_eq!(overview["tiers"][0]["in_log"], 1);
    assert_eq!(
        (&overview["tiers"][1]["int8"], &overview["tiers"][1]["int4"]),
        (&40.into(), &0.into())
    );
    let text = String::from_utf8(inspect(&dir, &[]).stdout).unwrap();
    assert!(text.contains("archive/0000000001.seg"), "{text}");
    let output = inspect(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(1), "no store there");
}

#[test]
fn a_log_is_decoded_frame_by_frame_and_behind_damage() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let store = Store::open(&dir).unwrap();
    let notes = store.collection("notes").unwrap();
    for n in 0..20 {
        notes.put(format!("n{n}"), Draft::text("x".repeat(100))).unwrap();
    }
    notes.delete("n3").unwrap();
    store.close().unwrap();
    let log = json(&dir, &["wal"]);
    let facts = &log["files"][0]["facts"];
    let kinds = serde_json::json!({"define": 1, "put": 20, "delete": 1});
    assert_eq!(facts["by_kind"], kinds);
    assert_eq!((&facts["first_lsn"], &facts["last_lsn"]), (&1.into(), &22.into()));
    assert_eq!((&facts["operations"], &facts["batches"]), (&22.into(), &22.into()));
    assert_eq!(facts["last_frame"], "close");
    assert_eq!(facts["damage"], Value::Null);

    let file = dir.join("wal/0000000001.wal");
    let whole = std::fs::read(&file).unwrap();
    let mut bytes = whole.clone();
    bytes[1500] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let output = inspect(&dir, &["wal", "--json"]);
    assert_eq!(output.status.code(), Some(5));
    let log: Value = serde_json::from_slice(&output.stdout).unwrap();
    let facts = &log["files"][0]["facts"];
    let damage = &facts["damage"][0];
    assert_eq!((&damage["meaning"], &facts["damaged_places"]), (&"rotten".into(), &1.into()));
    assert!((1200..=1500).contains(&damage["offset"].as_u64().unwrap()), "{damage}");
    let behind = &facts["behind_damage"];
    assert_eq!(behind["last_lsn"], 22, "{facts}");
    let (before, behind) =
        (facts["batches"].as_u64().unwrap(), behind["batches"].as_u64().unwrap());
    assert!((21..=22).contains(&(before + behind)), "{facts}");
    assert!(log["problems"].as_u64().unwrap() >= 1);
    // The last batch cut short: a torn write, which an open cuts off.
    let used = json_of(&whole, &file, &dir)["used_bytes"].as_u64().unwrap() as usize;
    let mut bytes = whole.clone();
    bytes[used - 60..].fill(0);
    let facts = json_of(&bytes, &file, &dir);
    assert_eq!(facts["damage"][0]["meaning"], "torn", "{facts}");
    assert_eq!(facts["last_lsn"], 21, "{facts}");
}

/// The facts of the only segment of a log when it holds these bytes.
fn json_of(bytes: &[u8], file: &Path, dir: &Path) -> Value {
    std::fs::write(file, bytes).unwrap();
    json(dir, &["wal"])["files"][0]["facts"].clone()
}

#[test]
fn a_damaged_store_file_hides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    fill(&dir).close().unwrap();
    let id = json(&dir, &["arena"])["store_id"].clone();
    let toml = dir.join("store.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    for damaged in [Some("format = \"0-dev\"\nid = \"00\"\ncrc = 1\n"), Some("\u{0}"), None] {
        match damaged {
            Some(damaged) => std::fs::write(&toml, damaged).unwrap(),
            None => std::fs::remove_file(&toml).unwrap(),
        }
        for view in ["wal", "arena", "archive", "columns", "catalog"] {
            let output = inspect(&dir, &[view, "--json"]);
            assert_eq!(output.status.code(), Some(5), "{view}: it is damaged all the same");
            let object: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(object["store_id"], id);
            assert_eq!(object["store_id_from"], "archive/0000000001.seg");
            assert_eq!(object["problems"], 0, "{view}: {object}");
            let output = inspect(&dir, &[view]);
            assert!(String::from_utf8_lossy(&output.stderr).contains("archive/0000000001.seg"));
        }
        let overview = json(&dir, &[]);
        assert_eq!(overview["tiers"][2]["rows"], 50);
    }
    // Without an archive, the log says it, then the arena; and another version is not guessed at.
    std::fs::remove_file(dir.join("archive/0000000001.seg")).unwrap();
    let object = inspect(&dir, &["arena", "--json"]).stdout;
    let object: Value = serde_json::from_slice(&object).unwrap();
    assert!(object["store_id_from"].as_str().unwrap().starts_with("wal/"), "{object}");
    std::fs::write(&toml, text.replace("0-dev", "9")).unwrap();
    assert_eq!(inspect(&dir, &["arena"]).status.code(), Some(7));
}

#[test]
fn entries_sort_and_page_by_every_field() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let store = Store::open(&dir).unwrap();
    for (name, count) in [("a", 3_usize), ("b", 4)] {
        let collection = store.collection(name).unwrap();
        for n in 0..count {
            let at = pmll::Timestamp(1_000_000 * (10 - n as i64));
            let draft = Draft::text("x".repeat(10 * n + count)).at(at);
            collection.put(format!("k{n}"), draft).unwrap();
            (0..n).for_each(|_| assert!(collection.touch(format!("k{n}")).unwrap()));
        }
    }
    store.close().unwrap();
    let keys = |words: &[&str]| -> Vec<String> {
        let page = json(&dir, &[&["entries"], words].concat());
        assert_eq!(page["matching"], 7);
        let name = |e: &Value| format!("{}{}", e["collection"], e["key"]).replace('"', "");
        page["entries"].as_array().unwrap().iter().map(name).collect()
    };
    assert_eq!(keys(&["--sort", "key", "--limit", "4"]), ["ak0", "ak1", "ak2", "bk0"]);
    assert_eq!(keys(&["--sort", "-size", "--limit", "3"]), ["bk3", "bk2", "ak2"]);
    assert_eq!(keys(&["--sort", "size", "--skip", "5"]), ["bk2", "bk3"]);
    assert_eq!(keys(&["--sort", "-age", "--limit", "1"]), ["bk3"]);
    assert_eq!(keys(&["--sort", "-accesses", "--limit", "1"]), ["bk3"]);
    assert_eq!(keys(&["--sort", "-last-access", "--limit", "1"]), ["bk3"]);
    assert_eq!(keys(&["--sort", "tier"]).len(), 7);
    let page = json(&dir, &["entries", "--sort", "-size", "--limit", "1"]);
    assert_eq!(page["entries"][0]["text"], "x".repeat(34));
    assert_eq!(inspect(&dir, &["entries", "--sort", "colour"]).status.code(), Some(2));
}
