//! The `pmll` command as its users run it: the real binary, real folders, real exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at the first surprise")]

mod commands;
mod exit_codes;
mod import_export;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A folder to work in, with a store in `store`.
pub struct Place {
    dir: tempfile::TempDir,
}

/// What a run gave.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    #[allow(clippy::new_without_default, reason = "a default that makes a folder would surprise")]
    pub fn new() -> Place {
        Place { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The command, to be run in the folder.
    pub fn command(&self, line: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pmll"));
        command.args(line).current_dir(self.dir.path()).stdin(Stdio::null());
        for name in ["PMLL_STORE", "PMLL_LOG", "NO_COLOR"] {
            command.env_remove(name);
        }
        command
    }

    pub fn run(&self, line: &[impl AsRef<OsStr>]) -> Run {
        Run::of(self.command(line).output().unwrap())
    }

    /// Runs a line that must succeed.
    pub fn ok(&self, line: &[&str]) -> Run {
        let run = self.run(line);
        assert_eq!(run.code, 0, "{line:?}: {}{}", run.stdout, run.stderr);
        run
    }

    /// Runs a line with `--json` that must succeed, and reads its object.
    pub fn json(&self, line: &[&str]) -> Value {
        let run = self.ok(&[line, &["--json"]].concat());
        assert_eq!(run.stderr, "", "{line:?}");
        serde_json::from_str(&run.stdout).unwrap()
    }

    /// Runs a line with `--json` that must fail with this code, and reads the error.
    pub fn fails(&self, code: i32, line: &[&str]) -> Value {
        let run = self.run(&[line, &["--json"]].concat());
        assert_eq!(run.code, code, "{line:?}: {}{}", run.stdout, run.stderr);
        let object: Value = serde_json::from_str(&run.stderr)
            .unwrap_or_else(|e| panic!("{line:?}: {e}: {:?}", run.stderr));
        assert!(object["error"]["message"].is_string() && object["error"]["kind"].is_string());
        object["error"].clone()
    }

    /// Every file of the store with its bytes.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        collect(&self.path("store"), &mut files);
        files.sort();
        files
    }
}

fn collect(folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for item in std::fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
}

impl Run {
    pub fn of(output: Output) -> Run {
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Objects of an output of one object a line.
    pub fn objects(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The bytes of an `.npy` file of f32 rows.
pub fn npy(rows: &[Vec<f32>]) -> Vec<u8> {
    let dim = rows.first().map_or(0, Vec::len);
    let mut text =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {dim}), }}", rows.len());
    while (text.len() + 11) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    for value in rows.iter().flatten() {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// Rows that differ from each other.
pub fn rows(count: usize, dim: usize) -> Vec<Vec<f32>> {
    (0..count).map(|r| (0..dim).map(|c| ((r * 31 + c * 17) % 97) as f32 - 48.0).collect()).collect()
}
