//! `pmll demo` from outside: a process is really killed, and what it was told is really there.

// Helpers of tests may unwrap; clippy grants it by itself in `#[test]` functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn demo(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pmll")).arg("demo").args(args).output().unwrap()
}

#[test]
fn a_killed_session_is_whole_and_says_so() {
    if !Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/README.md").exists() {
        return; // A published crate does not carry the excerpt.
    }
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("memory");
    let output = demo(&["--json", "--kills", "2", "--dir", store.to_str().unwrap()]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{}", String::from_utf8_lossy(&output.stdout));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["whole"], true, "{report}");
    let lives = report["lives"].as_array().unwrap();
    let killed = lives.iter().filter(|life| life["ending"] == "killed").count();
    assert_eq!((killed, lives.len()), (2, 3), "{report}");
    // What a search promises unless asked for more: which of the last few it misses, the kill decides.
    let count = |name: &str| report[name].as_u64().unwrap();
    assert!(count("recall_right") * 100 >= count("recall_of") * 99, "{report}");
    assert!(store.join("store.toml").exists(), "a folder that was named is kept");

    let output = demo(&["--dir", store.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3), "a folder that is not empty is refused");
}

#[test]
fn without_its_data_it_says_what_to_do() {
    let output = demo(&["--data", "no/such/folder"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no/such/folder"));
}
