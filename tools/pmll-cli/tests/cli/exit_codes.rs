//! Every documented exit code, and errors as JSON.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::{Place, npy, rows};

#[test]
fn one_what_is_not_there() {
    let place = Place::new();
    for line in [
        &["get", "none", "c", "k"][..],
        &["list", "none", "c"],
        &["search", "none", "c", "text"],
        &["export", "none", "c", "--out", "out"],
        &["stats", "none"],
        &["verify", "none"],
        &["delete", "none", "c", "k"],
        &["checkpoint", "none"],
        &["doctor", "none"],
    ] {
        let error = place.fails(1, line);
        assert_eq!(error["kind"], "not_found", "{line:?}");
        assert!(error["hint"].as_str().unwrap().contains("pmll init"), "{line:?}");
        assert!(!place.path("none").exists(), "{line:?} made a store");
    }
    std::fs::create_dir(place.path("empty")).unwrap();
    place.fails(1, &["get", "empty", "c", "k"]);
    place.ok(&["init", "store"]);
    assert!(place.fails(1, &["get", "store", "c", "k"])["hint"].is_string());
    place.ok(&["put", "store", "c", "k", "--text", "x"]);
    place.fails(1, &["get", "store", "c", "other"]);
    let run = place.run(&["get", "store", "c", "k", "other", "--json"]);
    assert_eq!((run.code, run.objects().len()), (1, 1), "what is there is shown all the same");
}

#[test]
fn two_wrong_lines() {
    let place = Place::new();
    for line in [
        &["get", "store"][..],
        &["frobnicate"],
        &["put", "store", "c", "k"],
        &["put", "store", "c", "k", "--text", "x", "--file", "y"],
        &["search", "store", "c"],
        &["import", "store", "c"],
        &["import", "store", "c", "--entries", "e", "--batch", "0"],
        &["stats", "store", "--budget", "many"],
        &["put", "store", "c", "k", "--text", "x", "--ttl", "soon"],
    ] {
        assert_eq!(place.fails(2, line)["kind"], "usage", "{line:?}");
    }
    assert!(!place.path("store").exists());
    let run = place.run(&["get", "store"]);
    assert!(run.code == 2 && run.stderr.starts_with("error:"), "{}", run.stderr);
}

#[test]
fn three_wrong_values() {
    let place = Place::new();
    place.ok(&["put", "store", "c", "k", "--text", "x"]);
    place.write("v.npy", npy(&rows(3, 4)));
    place.write("junk.npy", "junk");
    place.write("bad.jsonl", "{}\nnot json\n");
    place.write("more.txt", "1\n2\n3\n4\n");
    place.write("less.txt", "1\n2\n");
    for line in [
        &["list", "store", "c", "--filter", "{\"a\":{\"$huh\":1}}"][..],
        &["list", "store", "c", "--sort", "_nothing"],
        &["search", "store", "c", "--vector", "v.npy:0"],
        &["search", "store", "c", "--vector", "v.npy:9"],
        &["search", "store", "c", "x", "-k", "0"],
        &["put", "store", "c", "k", "--vector", "[1,2]"],
        &["put", "store", "c", "", "--text", "x"],
        &["put", "store", "c", "k", "--text", "x", "--at", "soon"],
        &["put", "store", "c", "k", "--text", "x", "--salience", "2"],
        &["import", "store", "d", "--vectors", "junk.npy"],
        &["import", "store", "d", "--entries", "bad.jsonl"],
        &["import", "store", "d", "--vectors", "v.npy", "--entries", "more.txt"],
        &["import", "store", "d", "--vectors", "v.npy", "--entries", "less.txt"],
        &["config", "set", "store", "budget", "1"],
    ] {
        let error = place.fails(3, line);
        assert_eq!(error["kind"], "invalid", "{line:?}");
    }
    let error = place.fails(3, &["import", "store", "e", "--entries", "bad.jsonl"]);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("bad.jsonl, line 2"), "{message}");
    std::fs::create_dir(place.path("other")).unwrap();
    place.write("other/file", "not a store");
    place.fails(3, &["put", "other", "c", "k", "--text", "x"]);
    assert_eq!(std::fs::read_dir(place.path("other")).unwrap().count(), 1);
}

#[test]
fn texts_are_not_compared_with_vectors_of_a_model() {
    let place = Place::new();
    place.write("v.npy", npy(&rows(3, 384)));
    place.ok(&["import", "store", "v", "--vectors", "v.npy"]);
    let error = place.fails(3, &["search", "store", "v", "some text"]);
    assert!(error["hint"].as_str().unwrap().contains("--vector"));
    let put = place.json(&["put", "store", "v", "k", "--text", "some text"]);
    assert!(put["embedder"].is_null());
    assert!(place.json(&["get", "store", "v", "k", "--vector"]).get("vector").is_none());
}

#[test]
fn four_another_owner() {
    let place = Place::new();
    place.ok(&["put", "store", "c", "k", "--text", "x"]);
    let owner = pmll::Store::open(place.path("store")).unwrap();
    assert_eq!(place.fails(4, &["put", "store", "c", "k", "--text", "y"])["kind"], "locked");
    owner.close().unwrap();
    place.ok(&["put", "store", "c", "k", "--text", "y"]);
}

#[test]
fn five_damage() {
    let place = Place::new();
    place.write("e.txt", "some text\n".repeat(500));
    place.write("v.npy", npy(&rows(500, 16)));
    place.ok(&["import", "store", "c", "--vectors", "v.npy", "--entries", "e.txt"]);
    place.ok(&["checkpoint", "store"]);
    place.ok(&["verify", "store"]);
    let (path, mut bytes) = place
        .files()
        .into_iter()
        .find(|(path, _)| path.extension().is_some_and(|e| e == "seg"))
        .unwrap();
    let middle = bytes.len() / 4;
    bytes[middle] ^= 0x10;
    std::fs::write(&path, &bytes).unwrap();
    let run = place.run(&["verify", "store", "--json"]);
    assert_eq!(run.code, 5, "{}{}", run.stdout, run.stderr);
    let report = &run.objects()[0];
    assert_eq!(report["whole"], false);
    let file = report["problems"][0]["file"].as_str().unwrap();
    assert!(file.contains("archive/"), "{file}");
}

#[test]
fn five_when_a_salvage_lost_something() {
    let place = Place::new();
    for (key, text) in [("a", "zebra"), ("b", "violin"), ("c", "oboe")] {
        place.ok(&["put", "store", "notes", key, "--text", text]);
    }
    place.fails(2, &["salvage", "store"]);
    let whole = place.json(&["salvage", "store", "--out", "whole"]);
    assert_eq!((&whole["complete"], &whole["entries"]), (&true.into(), &3.into()));
    assert!(place.ok(&["list", "whole", "notes"]).stdout.contains("zebra"));
    assert_eq!(place.fails(3, &["salvage", "store", "--out", "whole"])["kind"], "invalid");
    let (path, mut bytes) = place
        .files()
        .into_iter()
        .find(|(path, _)| path.extension().is_some_and(|e| e == "wal"))
        .unwrap();
    let at = bytes.windows(6).position(|part| part == b"violin").unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(&path, &bytes).unwrap();
    place.fails(5, &["get", "store", "notes", "a"]);
    let before = place.files();
    let run = place.run(&["salvage", "store", "--dry-run", "--json"]);
    assert_eq!(run.code, 5, "{}{}", run.stdout, run.stderr);
    let report = &run.objects()[0];
    assert_eq!((&report["entries"], &report["lost_total"]), (&2.into(), &1.into()));
    assert!(report["lost"][0]["lsns"][0].is_u64(), "{report}");
    let run = place.run(&["salvage", "store", "--out", "saved"]);
    assert!(run.code == 5 && run.stdout.contains("LSN"), "{}{}", run.stdout, run.stderr);
    assert_eq!(place.files(), before, "the source was touched");
    place.ok(&["verify", "saved"]);
    place.ok(&["get", "saved", "notes", "a", "c"]);
    place.fails(1, &["get", "saved", "notes", "b"]);
}

#[test]
fn five_when_damage_leaves_a_search_with_nothing() {
    let place = Place::new();
    place.ok(&["put", "store", "c", "a", "--text", "zebra"]);
    place.ok(&["put", "store", "c", "b", "--text", &"violin and oboe ".repeat(6000)]);
    place.ok(&["checkpoint", "store"]);
    let (path, mut bytes) = place
        .files()
        .into_iter()
        .find(|(path, _)| path.extension().is_some_and(|e| e == "seg"))
        .unwrap();
    let at = bytes.windows(5).position(|window| window == b"zebra").unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(&path, &bytes).unwrap();

    let line = ["search", "store", "c", "zebra", "-k", "1"];
    let error = place.fails(5, &line);
    assert!(error["message"].as_str().unwrap().contains("archive/"), "{error}");
    let line = ["search", "store", "c", "zebra", "--quiet"];
    let object = place.json(&line);
    assert_eq!(object["hits"].as_array().unwrap().len(), 1, "{object}");
    assert_eq!(object["hits"][0]["key"], "b");
    assert!(object["damaged"][0].as_str().unwrap().contains("archive/"), "{object}");
    let run = place.run(&line);
    assert_eq!(run.code, 0);
    assert!(run.stderr.contains("left out: archive/"), "{}", run.stderr);
}

#[test]
fn six_input_that_cannot_be_read() {
    let place = Place::new();
    for line in [
        &["import", "store", "c", "--vectors", "none.npy"][..],
        &["put", "store", "c", "k", "--file", "none"],
        &["search", "store", "c", "--vector", "none.npy:0"],
    ] {
        let error = place.fails(6, line);
        assert!(error["kind"] == "io" && error["message"].as_str().unwrap().contains("none"));
        assert!(!place.path("store").exists(), "{line:?} made a store");
    }
}

#[test]
fn seven_another_version() {
    let place = Place::new();
    place.ok(&["init", "store"]);
    let path = place.path("store/store.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let id = text.lines().find_map(|l| l.strip_prefix("id = ")).unwrap().trim_matches('"');
    let crc = crc32(format!("99\0{id}\0").as_bytes());
    let newer: String = text
        .lines()
        .map(|line| match line.split(" = ").next() {
            Some("format") => "format = \"99\"\n".to_owned(),
            Some("crc") => format!("crc = {crc}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    std::fs::write(&path, newer).unwrap();
    assert_eq!(place.fails(7, &["stats", "store"])["kind"], "version");
    assert_eq!(place.fails(7, &["put", "store", "c", "k", "--text", "x"])["kind"], "version");
}

/// CRC-32 as zlib has it, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

#[test]
fn ctrl_c_loses_nothing_that_was_told() {
    let place = Place::new();
    place.write("e.txt", "a line of text\n".repeat(200_000));
    let mut child = place
        .command(&[
            "import",
            "store",
            "c",
            "--entries",
            "e.txt",
            "--batch",
            "50",
            "--acks",
            "--json",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told: Vec<String> = (0..120).map(|_| lines.next().unwrap().unwrap()).collect();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    told.extend(lines.map(Result::unwrap));
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["kind"], "interrupted");

    let report: serde_json::Value = serde_json::from_str(&told.pop().unwrap()).unwrap();
    assert_eq!(report["interrupted"], true);
    assert_eq!(report["entries"], told.len());
    assert!(told.len() < 200_000, "it ended before the signal");
    assert_eq!(place.json(&["count", "store", "c"])["count"], told.len());
    place.ok(&["get", "store", "c", &told[0], &told[told.len() - 1]]);
}
