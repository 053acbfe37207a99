//! Each command does what its help says.

use serde_json::{Value, json};

use crate::{Place, Run, npy};

#[test]
fn a_first_memory_is_put_and_found_with_two_commands() {
    let place = Place::new();
    place.ok(&["put", "store", "notes", "--text", "Caroline plays the violin"]);
    let found = place.ok(&["search", "store", "notes", "who plays violins?"]);
    assert!(found.stdout.starts_with("embedder: hash-384\n"), "{}", found.stdout);
    assert!(found.stdout.contains("Caroline plays the violin"));
    let object = place.json(&["search", "store", "notes", "who plays violins?"]);
    assert_eq!(object["embedder"], "hash-384");
    assert_eq!(object["hits"][0]["text"], "Caroline plays the violin");
    assert_eq!(object["hits"][0]["model"], "hash-384");
}

#[test]
fn the_nearer_text_comes_first() {
    let place = Place::new();
    for (key, text) in [
        ("a", "the weather in Lisbon is mild"),
        ("b", "Caroline plays the violin"),
        ("c", "lunch with Ann in Rome"),
    ] {
        place.ok(&["put", "store", "notes", key, "--text", text]);
    }
    let object = place.json(&["search", "store", "notes", "violin player", "-k", "2"]);
    assert_eq!(object["hits"][0]["key"], "b");
    assert_eq!(object["hits"].as_array().unwrap().len(), 2);
    let none = place.json(&["search", "store", "notes", "violin", "--min-score", "0.99"]);
    assert_eq!(none["hits"], json!([]));
    let only = place.json(&["search", "store", "notes", "violin", "--where", "_key=c"]);
    assert_eq!(only["hits"][0]["key"], "c");
    assert_eq!(only["hits"].as_array().unwrap().len(), 1);
}

#[test]
fn everything_put_comes_back() {
    let place = Place::new();
    place.write("v.npy", npy(&[vec![1.0, 2.0], vec![0.5, 0.25]]));
    place.ok(&[
        "put",
        "store",
        "notes",
        "n1",
        "--text",
        "- buy milk",
        "--attr",
        "place=Rome",
        "--attr",
        "people=2",
        "--attr",
        "tags=[\"x\"]",
        "--at",
        "2026-11-21",
        "--ttl",
        "7d",
        "--pin",
        "--salience",
        "0.3",
        "--session",
        "s1",
        "--ns",
        "user/7",
        "--vector",
        "v.npy:1",
    ]);
    let entry = place.json(&["get", "store", "notes", "n1", "--ns", "user/7", "--vector"]);
    assert_eq!(entry["key"], "n1");
    assert_eq!(entry["ns"], "user/7");
    assert_eq!(entry["text"], "- buy milk");
    assert_eq!(entry["attributes"], json!({"place": "Rome", "people": 2, "tags": ["x"]}));
    assert_eq!(entry["at"], "2026-11-21T00:00:00Z");
    assert_eq!((&entry["pinned"], &entry["session"]), (&json!(true), &json!("s1")));
    assert_eq!(entry["salience"], 0.3);
    assert_eq!(entry["vector"], json!([0.5, 0.25]));
    assert!(entry["expires"].is_string());
    place.fails(1, &["get", "store", "notes", "n1"]);
}

#[test]
fn payloads_of_any_bytes_from_files_and_stdin() {
    use std::io::Write;
    let place = Place::new();
    let bytes: Vec<u8> = (0..=255).collect();
    place.write("blob", &bytes);
    place.ok(&["put", "store", "blobs", "b", "--file", "blob"]);
    let raw = place.command(&["get", "store", "blobs", "b", "--raw"]).output().unwrap();
    assert_eq!(raw.stdout, bytes);
    assert!(place.json(&["get", "store", "blobs", "b"])["payload_base64"].is_string());

    for (line, key) in
        [(&["put", "store", "blobs", "p", "-"][..], "p"), (&["put", "store", "blobs", "-"], "")]
    {
        let mut child = place
            .command(line)
            .arg("--json")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"from a pipe").unwrap();
        let run = Run::of(child.wait_with_output().unwrap());
        let told = run.objects().remove(0);
        let told = told["key"].as_str().unwrap();
        assert!(key.is_empty() || key == told);
        assert_eq!(place.json(&["get", "store", "blobs", told])["text"], "from a pipe");
    }
}

#[test]
fn lists_filter_sort_and_page() {
    let place = Place::new();
    let mut lines = String::new();
    for n in 0..7 {
        lines += &format!("{{\"id\":\"k{n}\",\"n\":{},\"text\":\"t{n}\"}}\n", (n * 3) % 7);
    }
    place.write("e.jsonl", lines);
    place.ok(&["import", "store", "c", "--entries", "e.jsonl", "--key", "id"]);
    let keys = |line: &[&str]| -> Vec<String> {
        let run = place.ok(&[&["list", "store", "c", "--json"], line].concat());
        run.objects().iter().map(|o| o["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys(&[]), ["k0", "k1", "k2", "k3", "k4", "k5", "k6"]);
    assert_eq!(keys(&["--sort", "n"]), ["k0", "k5", "k3", "k1", "k6", "k4", "k2"]);
    assert_eq!(keys(&["--sort", "-n", "--limit", "2"]), ["k2", "k4"]);
    assert_eq!(keys(&["--where", "n>=5"]), ["k2", "k4"]);
    assert_eq!(keys(&["--filter", "{\"n\":{\"$in\":[0,1]}}", "--where", "n>0"]), ["k5"]);
    for sort in [&[][..], &["--sort", "n"]] {
        let whole = keys(sort);
        let (mut paged, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let mut line = [&["list", "store", "c", "--json", "--limit", "3"], sort].concat();
            if let Some(cursor) = &cursor {
                line.extend(["--cursor", cursor]);
            }
            let run = place.ok(&line);
            paged.extend(run.objects().iter().map(|o| o["key"].as_str().unwrap().to_owned()));
            if run.stderr.is_empty() {
                break;
            }
            let told: serde_json::Value = serde_json::from_str(&run.stderr).unwrap();
            cursor = Some(told["cursor"].as_str().unwrap().to_owned());
        }
        assert_eq!(paged, whole);
    }
    assert_eq!(place.json(&["count", "store", "c", "--where", "n<3"])["count"], 3);
}

#[test]
fn deletes_by_key_and_by_condition() {
    let place = Place::new();
    place.write("e.txt", "a\nb\nc\nd\n");
    place.ok(&["import", "store", "c", "--entries", "e.txt"]);
    let count = || place.json(&["count", "store", "c"])["count"].as_u64().unwrap();
    assert_eq!(place.json(&["delete", "store", "c", "0", "--dry-run"])["deleted"], 1);
    assert_eq!(count(), 4);
    assert_eq!(place.json(&["delete", "store", "c", "0"])["deleted"], 1);
    place.fails(1, &["delete", "store", "c", "0", "1"]);
    assert_eq!(count(), 2);
    let shown = place.json(&["delete", "store", "c", "--where", "_key>=2", "--dry-run"]);
    assert_eq!(shown["keys"], json!(["2", "3"]));
    assert_eq!(place.fails(2, &["delete", "store", "c", "--where", "_key>=2"])["kind"], "usage");
    assert_eq!(count(), 2);
    assert_eq!(place.json(&["delete", "store", "c", "--where", "_key>=2", "--yes"])["deleted"], 2);
    assert_eq!(count(), 0);
    assert_eq!(place.json(&["drop", "store", "c"])["dropped"], "c");
    place.fails(1, &["count", "store", "c"]);
}

#[test]
fn touches_pins_and_settings_last() {
    let place = Place::new();
    place.ok(&[
        "init",
        "store",
        "--collection",
        "c",
        "--dim",
        "3",
        "--metric",
        "l2",
        "--budget",
        "2MiB",
    ]);
    place.ok(&["put", "store", "c", "k", "--vector", "[1,2,3]"]);
    place.ok(&["touch", "store", "c", "k"]);
    place.ok(&["touch", "store", "c", "k"]);
    place.ok(&["pin", "store", "c", "k"]);
    let entry = place.json(&["get", "store", "c", "k"]);
    assert_eq!((&entry["access_count"], &entry["pinned"]), (&json!(2), &json!(true)));
    place.ok(&["unpin", "store", "c", "k"]);
    assert_eq!(place.json(&["get", "store", "c", "k"])["pinned"], false);
    place.fails(1, &["pin", "store", "c", "nobody"]);
    let info = place.json(&["collections", "store"])["collections"][0].clone();
    assert_eq!((&info["metric"], &info["dim"]), (&json!("l2"), &json!(3)));

    assert_eq!(place.json(&["stats", "store"])["budget_bytes"], 2 << 20);
    assert_eq!(place.json(&["config", "set", "store", "budget", "3MiB"])["value"], 3 << 20);
    assert_eq!(place.json(&["config", "get", "store", "budget"])["value"], 3 << 20);
    assert_eq!(place.json(&["stats", "store"])["budget_bytes"], 3 << 20);
    assert_eq!(place.json(&["stats", "store", "--budget", "4MiB"])["budget_bytes"], 4 << 20);
    place.ok(&["config", "set", "store", "colour", "\"red\""]);
    assert_eq!(place.json(&["config", "get", "store"])["settings"]["colour"], "red");
    place.fails(1, &["config", "get", "store", "nothing"]);
}

#[test]
fn upkeep_reports_what_it_did() {
    let place = Place::new();
    place.write("e.txt", "a\n".repeat(300));
    place.ok(&["import", "store", "c", "--entries", "e.txt"]);
    place.json(&["checkpoint", "store"]);
    place.ok(&["delete", "store", "c", "--where", "_key>=2", "--yes"]);
    let report = place.json(&["vacuum", "store"]);
    assert!(report["bytes_after"].as_u64() <= report["bytes_before"].as_u64());
    let report = place.json(&["verify", "store"]);
    assert_eq!((&report["whole"], &report["depth"]), (&json!(true), &json!("deep")));
    let stats = place.json(&["stats", "store"]);
    assert_eq!(stats["entries"], report["entries"]);
    assert!(stats["disk_bytes"]["total"].as_u64().unwrap() > 0);
    assert_eq!(stats["tiers"][0]["fidelity"], Value::Null, "lines of text have no vector");
    assert_eq!(stats["tiers"][1]["bits"]["int8"], json!({"entries": 0, "fidelity": null}));
    assert_eq!(stats["cold_score_mass"], 0.0);
    let text = place.ok(&["stats", "store"]);
    assert!(text.stdout.contains("reserve"), "{}", text.stdout);
    let doctor = place.json(&["doctor", "store"]);
    assert_eq!(doctor["ok"], true);
}

#[test]
fn what_is_only_in_the_log_is_archived_to_say_why() {
    let place = Place::new();
    place.ok(&["put", "store", "c", "k", "--text", "just written"]);
    let plan = place.json(&["compress", "store", "--plan"]);
    assert_eq!((&plan["not_archived"], &plan["plan"]), (&json!(1), &json!(true)));
    let text = place.ok(&["compress", "store", "--plan"]).stdout;
    assert!(text.contains("1 entries are not archived yet"), "{text}");
    let why = place.json(&["why", "store", "c", "k"]);
    assert_eq!((&why["archived"], &why["rank"], &why["of"]), (&json!(true), &json!(1), &json!(1)));
    assert_eq!((&why["checkpointed"], &why["not_archived"]), (&json!(true), &json!(0)));
    assert!(why["score"]["total"].is_number() && why["tau"].is_number(), "{why}");
    assert_eq!(place.json(&["stats", "store"])["entries_not_archived"], 0);
    // From then on it is a read like any other.
    let before = place.files();
    assert_eq!(place.json(&["why", "store", "c", "k"])["checkpointed"], false);
    assert!(before == place.files());
}

#[test]
fn reads_write_nothing() {
    let place = Place::new();
    place.write("e.txt", "violin\npiano\n");
    place.ok(&["import", "store", "c", "--entries", "e.txt", "--embed"]);
    let before = place.files();
    for line in [
        &["get", "store", "c", "0", "--vector"][..],
        &["list", "store", "c"],
        &["count", "store", "c"],
        &["search", "store", "c", "violin"],
        &["export", "store", "c", "--out", "out"],
        &["stats", "store"],
        &["verify", "store"],
        &["collections", "store"],
        &["config", "get", "store"],
        &["doctor", "store"],
        &["delete", "store", "c", "0", "--dry-run"],
    ] {
        place.ok(line);
    }
    assert!(place.files() == before, "a reading command changed a file of the store");
}

#[test]
fn the_store_may_be_named_by_option_or_environment() {
    let place = Place::new();
    place.ok(&["--store", "store", "put", "c", "k", "--text", "x"]);
    place.ok(&["get", "c", "k", "--store=store"]);
    let run =
        |line: &[&str]| Run::of(place.command(line).env("PMLL_STORE", "store").output().unwrap());
    assert_eq!(run(&["get", "c", "k"]).code, 0);
    assert_eq!(run(&["config", "set", "budget", "2MiB"]).code, 0);
    assert_eq!(run(&["config", "get", "budget"]).stdout.trim(), "2.0 MiB");
    assert_eq!(run(&["get", "--store", "elsewhere", "c", "k"]).code, 1);
    let error = run(&["get", "store", "c"]);
    assert_eq!(error.code, 1, "store is taken as the collection's name: {}", error.stderr);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    use std::io::Read;
    let place = Place::new();
    place.write("e.txt", "some text that fills the pipe\n".repeat(3000));
    place.ok(&["import", "store", "c", "--entries", "e.txt"]);
    let mut child = place
        .command(&["list", "store", "c"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 64];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

#[test]
fn eval_finds_known_answers() {
    let place = Place::new();
    let rows = crate::rows(40, 8);
    place.write("v.npy", npy(&rows));
    place.ok(&["import", "store", "v", "--vectors", "v.npy", "--metric", "l2"]);
    // Each query is a row itself; the second neighbour asked for is wrong on purpose.
    place.write("q.npy", npy(&rows[..5]));
    let mut truth = npy(&vec![vec![0.0; 2]; 5]);
    let data = truth.len() - 40;
    truth.truncate(data);
    for row in 0..5i32 {
        truth.extend_from_slice(&row.to_le_bytes());
        truth.extend_from_slice(&1000i32.to_le_bytes());
    }
    let at = truth.windows(3).position(|w| w == b"<f4").unwrap();
    truth[at + 1] = b'i';
    place.write("t.npy", truth);
    for threads in ["1", "3"] {
        let line = ["eval", "store", "v", "--queries", "q.npy", "--truth", "t.npy", "-k"];
        let report = place.json(&[&line[..], &["2", "--threads", threads]].concat());
        assert_eq!(report["recall"], 0.5);
        let best = place.json(&[&line[..], &["1", "--threads", threads]].concat());
        assert_eq!(best["recall"], 1.0);
        for field in ["p50_us", "p99_us", "qps"] {
            assert!(best[field].as_f64().unwrap() > 0.0, "{field}");
        }
    }
}

#[test]
fn eval_of_evidence_is_scoped() {
    let place = Place::new();
    let turns = "{\"conv\":\"a\",\"dia_id\":\"D1\",\"text\":\"x\"}\n\
                 {\"conv\":\"b\",\"dia_id\":\"D1\",\"text\":\"x\"}\n\
                 {\"conv\":\"b\",\"dia_id\":\"D2\",\"text\":\"x\"}\n";
    place.write("t.jsonl", turns);
    // The nearest of all is always a:D1; in its own scope each question finds its answer.
    place.write("t.npy", npy(&[vec![1.0, 0.0], vec![0.8, 0.6], vec![0.0, 1.0]]));
    place.ok(&[
        "import",
        "store",
        "t",
        "--vectors",
        "t.npy",
        "--entries",
        "t.jsonl",
        "--key",
        "conv,dia_id",
    ]);
    let questions = "{\"conv\":\"a\",\"evidence\":[\"D1\"],\"category\":1}\n\
                     {\"conv\":\"b\",\"evidence\":[\"D1\",\"D2\"],\"category\":2}\n\
                     {\"conv\":\"b\",\"evidence\":[],\"category\":2}\n";
    place.write("q.jsonl", questions);
    place.write("q.npy", npy(&[vec![1.0, 0.0], vec![1.0, 0.0], vec![1.0, 0.0]]));
    let report = place.json(&[
        "eval",
        "store",
        "t",
        "--queries",
        "q.npy",
        "--questions",
        "q.jsonl",
        "--scope",
        "conv",
        "--relevant",
        "evidence",
        "--key",
        "conv,dia_id",
        "-k",
        "1",
        "--by",
        "category",
    ]);
    assert_eq!((&report["recall"], &report["evaluated"]), (&json!(0.75), &json!(2)));
    assert_eq!(report["skipped"], 1);
    assert_eq!(report["by"]["2"]["recall"], 0.5);
}

#[test]
fn completions_and_help_need_no_store() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(place.ok(&["completions", shell]).stdout.contains("pmll"));
    }
    assert!(place.ok(&["--help"]).stdout.contains("Exit codes"));
    assert!(place.ok(&["import", "--help"]).stdout.contains("pmll import memory"));
    assert!(place.ok(&["--version"]).stdout.starts_with("pmll "));
}

#[test]
fn payloads_are_never_logged() {
    let place = Place::new();
    let run = place
        .command(&["put", "store", "c", "k", "--text", "secret-payload"])
        .env("PMLL_LOG", "trace")
        .output()
        .unwrap();
    let run = Run::of(run);
    assert_eq!(run.code, 0);
    assert!(!run.stderr.is_empty(), "PMLL_LOG has no effect");
    assert!(!run.stderr.contains("secret"), "{}", run.stderr);
    assert!(!run.stderr.contains('\x1b'), "no colours when stderr is no terminal");
}
