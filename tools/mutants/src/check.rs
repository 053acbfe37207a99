//! The copy of the work tree: woven, rid of mutants that do not compile, built.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::list::{self, LeftOut, Mutant, Result};
use crate::run;
use crate::weave::weave;

/// Which mutant is alive. Stands in the copy only.
const SWITCH: &str = r#"
static MUTANT: std::sync::LazyLock<u32> = std::sync::LazyLock::new(|| {
    std::env::var("PMLL_MUTANT").ok().and_then(|id| id.parse().ok()).unwrap_or(0)
});
pub(crate) fn mutant(id: u32) -> bool {
    *MUTANT == id
}
"#;

/// Mutants may hold what the compiler can see is wrong: that is for the tests to notice.
const ALLOWED: &str =
    "#![allow(warnings, arithmetic_overflow, unconditional_panic, overflowing_literals)]\n";

/// Compiled at most so often: each time at least one mutant goes.
const ROUNDS_MAX: usize = 60;

pub fn weave_and_build(out: &Path, files: &[&str]) -> Result<()> {
    let mut mutants = list::all(files)?;
    copy_tree(out)?;
    for round in 0..ROUNDS_MAX {
        for file in files {
            write_if_changed(&out.join(file), &woven(file, &mut mutants)?)?;
        }
        let bad = bad_mutants(out)?;
        println!("round {round}: {} mutants do not compile", bad.len());
        if bad.is_empty() {
            break;
        }
        for mutant in mutants.iter_mut().filter(|mutant| bad.contains(&mutant.id)) {
            mutant.left_out = Some(LeftOut::Unviable);
        }
    }
    run::forget_missed(out, &mutants)?;
    list::write_lines(&out.join("mutants.jsonl"), &mutants)?;
    let built = cargo(out).args(["test", "--lib", "--test", "it", "--no-run"]).status()?;
    if built.success() { Ok(()) } else { Err("the tests do not build".into()) }
}

/// A file with those of the mutants that are its own.
fn woven(file: &str, mutants: &mut [Mutant]) -> Result<String> {
    let text = std::fs::read_to_string(file)?;
    let mut own: Vec<Mutant> =
        mutants.iter().filter(|mutant| mutant.file == file).cloned().collect();
    let woven = weave(&text, &mut own).map_err(|e| format!("{file}: {e}"))?;
    for changed in own {
        mutants
            .iter_mut()
            .filter(|m| m.id == changed.id)
            .for_each(|m| m.left_out = changed.left_out);
    }
    Ok(woven)
}

/// All files of the work tree, with the switch and without lints.
fn copy_tree(out: &Path) -> Result<()> {
    let listed = Command::new("git").args(["ls-files", "-z"]).output()?;
    for file in
        String::from_utf8(listed.stdout)?.split('\0').filter(|file| Path::new(file).is_file())
    {
        let to = out.join(file);
        std::fs::create_dir_all(to.parent().unwrap_or(out))?;
        match file {
            "src/lib.rs" => {
                let text = std::fs::read_to_string(file)?.replace("#![deny(missing_docs)]", "");
                let (story, code) = text.split_once("\n\n").ok_or("src/lib.rs: no story")?;
                write_if_changed(&to, &format!("{story}\n{ALLOWED}\n{code}{SWITCH}"))?;
            }
            _ => copy_if_changed(Path::new(file), &to)?,
        }
    }
    Ok(())
}

fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let bytes = std::fs::read(from)?;
    if std::fs::read(to).ok().as_ref() != Some(&bytes) {
        std::fs::copy(from, to)?;
    }
    Ok(())
}

fn write_if_changed(path: &Path, text: &str) -> Result<()> {
    if std::fs::read_to_string(path).ok().as_deref() != Some(text) {
        std::fs::write(path, text)?;
    }
    Ok(())
}

fn cargo(out: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(out).env("CARGO_TARGET_DIR", out.join("target"));
    command
}

/// Compiles, and answers which mutants the errors are in.
fn bad_mutants(out: &Path) -> Result<BTreeSet<usize>> {
    let output = cargo(out)
        .args(["check", "--lib", "--features", "sabotage", "--message-format", "json"])
        .output()?;
    let mut bad = BTreeSet::new();
    if output.status.success() {
        return Ok(bad);
    }
    let mut strangers = String::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Value = serde_json::from_str(line)?;
        let message = &message["message"];
        if message["level"] != "error" {
            continue;
        }
        let spans = message["spans"].as_array().cloned().unwrap_or_default();
        let found = spans.iter().filter(|span| span["is_primary"] == true).filter_map(|span| {
            let text = std::fs::read_to_string(out.join(span["file_name"].as_str()?)).ok()?;
            let at = usize::try_from(span["byte_start"].as_u64()?).ok()?;
            // A match that lost an arm is not exhaustive; the error is in front of the arm.
            let at = if message["code"]["code"] == "E0004" {
                at + text.get(at..)?.find("/*<")? + 3
            } else {
                at
            };
            mutant_at(&text, at)
        });
        let before = bad.len();
        bad.extend(found);
        if bad.len() == before && !spans.is_empty() {
            strangers.push_str(message["rendered"].as_str().unwrap_or_default());
        }
    }
    if bad.is_empty() {
        return Err(format!("errors outside of all mutants:\n{strangers}").into());
    }
    Ok(bad)
}

/// The mutant whose comments are around a place.
fn mutant_at(text: &str, at: usize) -> Option<usize> {
    let begin = text.get(..at)?.rfind("/*<")? + 3;
    let id: usize = text.get(begin..)?.split_once("*/")?.0.parse().ok()?;
    let end = begin + text.get(begin..)?.find(&format!("/*{id}>*/"))?;
    (at < end).then_some(id)
}
