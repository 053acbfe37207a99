//! The mutants, as cargo-mutants lists them and as this tool keeps them; files of JSON lines.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What goes wrong ends the program with a message.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Span {
    pub start: Place,
    pub end: Place,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Mutant {
    /// Its number in `PMLL_MUTANT`; from 1.
    #[serde(default)]
    pub id: usize,
    pub name: String,
    pub file: String,
    pub genre: String,
    /// What is replaced, and by what.
    pub span: Span,
    pub replacement: String,
    /// Why no test is run for it.
    #[serde(default)]
    pub left_out: Option<LeftOut>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum LeftOut {
    /// It does not compile.
    Unviable,
    /// It cannot be a branch: cargo-mutants has to build it.
    OwnBuild,
}

/// All mutants of some files, numbered.
pub fn all(files: &[&str]) -> Result<Vec<Mutant>> {
    let mut command = Command::new("cargo");
    command.args(["mutants", "--list", "--json"]);
    for file in files {
        command.args(["-f", file]);
    }
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let mut mutants: Vec<Mutant> = serde_json::from_slice(&output.stdout)?;
    for (index, mutant) in mutants.iter_mut().enumerate() {
        mutant.id = index + 1;
    }
    Ok(mutants)
}

pub fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

pub fn write_lines(path: &Path, values: &[impl Serialize]) -> Result<()> {
    let mut text = String::new();
    for value in values {
        text.push_str(&serde_json::to_string(value)?);
        text.push('\n');
    }
    Ok(std::fs::write(path, text)?)
}

pub fn append_line(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{}", serde_json::to_string(value)?)?;
    Ok(())
}
