//! `pmll-mutants`: which changes of the code would no test notice?
//!
//! cargo-mutants lists the changes, and would build the crate once for each of them. This builds it once:
//! 1. `weave` copies the work tree and rewrites the files asked for, so that each mutant is a branch
//!    (`weave.rs`), leaves out what does not compile (`check.rs`), and builds the tests.
//! 2. `run` plays the tests for one mutant after the other, named in the environment variable
//!    `PMLL_MUTANT`, from the tests that are near to it to those that take long (`run.rs`).
//!
//! What cannot be chosen at run time, such as the value of a constant, is listed as such and left to
//! cargo-mutants. The work tree itself is read and never written.

mod check;
mod list;
mod run;
mod weave;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage:
  pmll-mutants weave OUT FILE...   a copy of this work tree in OUT with all mutants of FILES, built
  pmll-mutants run OUT STAGES      plays STAGES for every mutant that has no result yet
  pmll-mutants report OUT          counts for each file, and what no test noticed
STAGES is a file of lines `FILES PROGRAM [ARGUMENT...]`, in the order to try them: for mutants of files whose
path begins with FILES, the tests of PROGRAM (lib or it) that ARGUMENTS choose.
It needs cargo-mutants and git. OUT/mutants.jsonl lists the mutants, OUT/results.jsonl what became of them.";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["weave", out, files @ ..] if !files.is_empty() => {
            check::weave_and_build(Path::new(out), files)
        }
        ["run", out, stages] => run::run(Path::new(out), Path::new(stages)),
        ["report", out] => run::report(Path::new(out)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pmll-mutants: {error}");
            ExitCode::from(6)
        }
    }
}
