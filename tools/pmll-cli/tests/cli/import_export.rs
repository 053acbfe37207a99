//! What goes in comes out: imports, acknowledgements, and exports that are taken back as they were.

use serde_json::json;

use crate::{Place, npy, rows};

/// Exports, imports into a fresh store, exports again; both exports must be the same bytes.
fn goes_around(place: &Place, name: &str) {
    place.ok(&["export", "store", name, "--out", "one"]);
    place.ok(&[
        "import",
        "again",
        name,
        "--entries",
        &format!("one/{name}.jsonl"),
        "--vectors",
        &format!("one/{name}.npy"),
    ]);
    place.ok(&["export", "again", name, "--out", "two"]);
    for end in ["jsonl", "npy"] {
        let file = format!("{name}.{end}");
        let read = |folder: &str| std::fs::read(place.path(folder).join(&file)).unwrap();
        assert!(read("one") == read("two"), "{file} differs after a round");
    }
    let names: Vec<_> = std::fs::read_dir(place.path("one")).unwrap().collect();
    assert_eq!(names.len(), 2, "no temporary file is left");
}

#[test]
fn export_import_export_is_the_same_bytes() {
    let place = Place::new();
    place.write("blob", [0xffu8, 0, 1]);
    place.write("v.npy", npy(&rows(3, 4)));
    place.ok(&["init", "store", "--collection", "c", "--metric", "dot", "--model", "m"]);
    for line in [
        &["a", "--text", "plain", "--no-embed"][..],
        &["b", "--vector", "v.npy:1"],
        &["c", "--text", "x", "--vector", "v.npy:2", "--attr", "key=1", "--attr", "text=[2]"],
        &[
            "d",
            "--file",
            "blob",
            "--attr",
            "_pmll={\"a\":1}",
            "--attr",
            "z=1.0",
            "--attr",
            "big=18446744073709551615",
        ],
        &[
            "e",
            "--text",
            "y",
            "--no-embed",
            "--at",
            "1969-12-31T23:59:59.999999Z",
            "--pin",
            "--salience",
            "0.1",
            "--session",
            "s",
        ],
        &[
            "e",
            "--text",
            "line\nbreak \u{1f600} \u{0}",
            "--no-embed",
            "--ns",
            "user/7",
            "--ttl",
            "9000d",
        ],
        &["0", "--text", "", "--vector", "v.npy:0", "--ns", "a"],
    ] {
        if line.iter().any(|word| word.contains('\0')) {
            // A NUL cannot stand on a command line; the import test below has one.
            let words: Vec<String> = line.iter().map(|w| w.replace('\0', "")).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            place.ok(&[&["put", "store", "c"], &words[..]].concat());
        } else {
            place.ok(&[&["put", "store", "c"], line].concat());
        }
    }
    goes_around(&place, "c");
    let info = place.json(&["collections", "again"])["collections"][0].clone();
    assert_eq!((&info["metric"], &info["model"]), (&json!("dot"), &json!("m")));
    assert_eq!((&info["dim"], &info["entries"]), (&json!(4), &json!(7)));
}

#[test]
fn keys_that_are_not_text_go_around() {
    use std::os::unix::ffi::OsStringExt;
    let place = Place::new();
    let key = std::ffi::OsString::from_vec(vec![0xff, b'k']);
    let word = |text: &str| std::ffi::OsString::from(text);
    let line = [word("put"), word("store"), word("c"), key.clone(), word("--text"), word("hi")];
    assert_eq!(place.run(&line).code, 0);
    goes_around(&place, "c");
    assert_eq!(place.run(&[word("get"), word("again"), word("c"), key]).code, 0);
}

#[test]
fn collections_of_halves_go_around() {
    let place = Place::new();
    place.write("v.npy", npy(&rows(50, 6)));
    place.ok(&["import", "store", "h", "--vectors", "v.npy", "--element", "f16"]);
    goes_around(&place, "h");
    let head = std::fs::read(place.path("one/h.npy")).unwrap();
    assert!(head.windows(3).any(|w| w == b"<f2"));
    let info = place.json(&["collections", "again"])["collections"][0].clone();
    assert_eq!(info["element"], "f16");
}

#[test]
fn empty_collections_go_around() {
    let place = Place::new();
    place.ok(&["init", "store", "--collection", "c", "--dim", "5"]);
    goes_around(&place, "c");
}

#[test]
fn fields_become_what_they_are_named() {
    let place = Place::new();
    let lines = [
        json!({
            "conv": "c1", "dia_id": "D1:1", "session": 1, "value": 0.5, "speaker": "Ann",
            "date_time": "1:56 pm on 8 May, 2023", "text": "hello \0 there",
        }),
        json!({
            "conv": "c1", "dia_id": "D1:2", "session": 1, "speaker": "Bob",
            "date_time": "1:57 pm on 8 May, 2023", "text": "hi",
        }),
    ];
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    place.write("t.jsonl", lines);
    place.write("t.npy", npy(&rows(2, 3)));
    let report = place.json(&[
        "import",
        "store",
        "t",
        "--vectors",
        "t.npy",
        "--entries",
        "t.jsonl",
        "--key",
        "conv,dia_id",
        "--time",
        "date_time",
        "--time-format",
        "%I:%M %p on %d %B, %Y",
        "--session",
        "session",
        "--salience",
        "value",
    ]);
    assert_eq!((&report["entries"], &report["vectors"]), (&json!(2), &json!(2)));
    let entry = place.json(&["get", "store", "t", "c1:D1:1", "--vector"]);
    assert_eq!(entry["at"], "2023-05-08T13:56:00Z");
    assert_eq!((&entry["session"], &entry["salience"]), (&json!("1"), &json!(0.5)));
    assert_eq!(entry["text"], "hello \0 there");
    assert_eq!(entry["vector"], json!(rows(2, 3)[0]));
    let names: Vec<_> = entry["attributes"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["conv", "dia_id", "session", "value", "speaker", "date_time"]);
    goes_around(&place, "t");
}

#[test]
fn packed_text_lines_are_payloads_of_their_rows() {
    let place = Place::new();
    let text: String = (0..1000).map(|n| format!("passage number {n}\n")).collect();
    place.write("p.txt.zst", zstd::encode_all(text.as_bytes(), 3).unwrap());
    place.write("p.npy", npy(&rows(1000, 4)));
    let report =
        place.json(&["import", "store", "p", "--vectors", "p.npy", "--entries", "p.txt.zst"]);
    assert_eq!((&report["entries"], &report["batches"]), (&json!(1000), &json!(4)));
    assert_eq!(place.json(&["get", "store", "p", "999"])["text"], "passage number 999");
    let again =
        place.json(&["import", "store", "p", "--vectors", "p.npy", "--entries", "p.txt.zst"]);
    assert_eq!((&again["created"], &again["replaced"]), (&json!(0), &json!(1000)));
}

#[test]
fn each_key_is_told_once_it_is_durable() {
    let place = Place::new();
    place.write("e.txt", "x\n".repeat(700));
    for durability in ["sync", "buffer"] {
        let run = place.ok(&[
            "import",
            "store",
            "c",
            "--entries",
            "e.txt",
            "--acks",
            "--durability",
            durability,
        ]);
        let want: Vec<String> = (0..700).map(|n| n.to_string()).collect();
        assert_eq!(run.stdout.lines().collect::<Vec<_>>(), want);
    }
    let run = place.ok(&["import", "store", "c", "--entries", "e.txt", "--acks", "--json"]);
    assert_eq!(run.stdout.lines().count(), 701);
    assert_eq!(run.objects().pop().unwrap()["entries"], 700);
}

#[test]
fn what_stands_before_a_wrong_line_is_imported() {
    let place = Place::new();
    let mut lines: String = (0..300).map(|n| format!("{{\"id\":{n}}}\n")).collect();
    lines += "{\"other\":1}\n{\"id\":301}\n";
    place.write("e.jsonl", lines);
    let error = place.fails(3, &["import", "store", "c", "--entries", "e.jsonl", "--key", "id"]);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("line 301") && message.contains("300 entries"), "{message}");
    assert_eq!(place.json(&["count", "store", "c"])["count"], 300);
}

#[test]
fn embedded_on_import_is_found_by_text() {
    let place = Place::new();
    place.write("e.txt", "the weather in Lisbon\nCaroline plays the violin\n");
    place.ok(&["import", "store", "c", "--entries", "e.txt", "--embed"]);
    let object = place.json(&["search", "store", "c", "violins"]);
    assert_eq!(object["hits"][0]["key"], "1");
}
