//! `pmll crash-test` from outside, with little effort.

// Helpers of tests may unwrap; clippy grants it by itself in `#[test]` functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::{Command, Output};

use serde_json::Value;

fn crash_test(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pmll")).arg("crash-test").args(args).output().unwrap()
}

#[test]
fn it_says_what_was_tried_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let line = ["--json", "--every", "150", "--rounds", "4", "--seed", "3", "--dir"];
    let output = crash_test(&[&line[..], &[store.to_str().unwrap()]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(errors, "", "with --json stderr holds errors alone");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["passed"], &report["seed"]), (&true.into(), &3.into()), "{report}");
    assert!(report["simulated"]["images"].as_u64().unwrap() > 100, "{report}");
    assert_eq!(report["killed"]["rounds"], 4);
    assert_eq!(report["violations"], serde_json::json!([]));
    assert!(store.join("store.toml").exists(), "a folder that was named is kept");

    let output = crash_test(&["--effort", "0", "--dir", store.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3), "a folder that is not empty is refused");
}

#[test]
fn people_get_a_table() {
    let output = crash_test(&["--effort", "0", "--rounds", "2", "--seed", "5"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("passed, seed 5"), "{text}");
    assert!(text.contains("ended by SIGKILL"), "{text}");
}
