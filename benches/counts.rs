//! Instructions that the kernels take for a row, beside those on record: a regression shows on a machine
//! whose times say nothing.
//!
//! `cargo bench --bench counts` compares with `benches/counts.toml`, and fails where a count is more than
//! 2 % off, either way; `cargo bench --bench counts -- --record` writes the file. It needs valgrind, and
//! says so where there is none.
//!
//! 1. This program starts itself under `valgrind --tool=callgrind` once for each kernel, with
//!    `--one NAME`; counting is on only inside `kernel_pass`.
//! 2. What was counted is divided by the rows of the pass.
//! 3. Counts belong to a compiler and an architecture, which stand in the file. Another compiler is
//!    said, and compared all the same; another architecture is not compared.
//!
//! Valgrind knows no AVX-512 and runs the best it knows, so those kernels have no counts. Instructions are
//! not time: a kernel that waits for memory shows in `scan` alone.

mod kernels;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use kernels::{Data, Outcome, all, kernel_pass};

/// Rows of a pass: whole blocks of sketches, and too few to be shared among threads.
const ROWS: usize = 1024;
const OFF_MAX: f64 = 0.02;
const UNKNOWN_TO_VALGRIND: &str = "Avx512";
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/counts.toml");
const HEAD: &str = "# Instructions that the kernels take for a row of 384 values, under callgrind.
# Written by `cargo bench --bench counts -- --record`.

";

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct Counts {
    compiler: String,
    target: String,
    instructions_a_row: BTreeMap<String, f64>,
}

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|arg| arg == "--one") {
        return one(args.get(at + 1).map_or("", String::as_str));
    }
    let Ok(version) = Command::new("valgrind").arg("--version").output() else {
        println!("skipped: valgrind is not installed");
        return Ok(());
    };
    let (compiler, target) = compiler()?;
    println!("{}, {compiler}, {target}", String::from_utf8_lossy(&version.stdout).trim());
    let mut now = Counts { compiler, target, instructions_a_row: BTreeMap::new() };
    let data = Data::new(ROWS)?;
    let names = all(&data)?.into_iter().filter(|k| k.level != UNKNOWN_TO_VALGRIND);
    for name in names.map(|kernel| kernel.name()) {
        now.instructions_a_row.insert(name.clone(), counted(&name)?);
    }
    if args.iter().any(|arg| arg == "--record") {
        std::fs::write(FILE, format!("{HEAD}{}", toml::to_string(&now)?))?;
        now.instructions_a_row
            .iter()
            .for_each(|(name, count)| println!("{name:<20} {count:>10.2}"));
        return Ok(());
    }
    if !Path::new(FILE).exists() {
        return Err("no counts on record: write them with --record".into());
    }
    compare(&toml::from_str(&std::fs::read_to_string(FILE)?)?, &now)
}

/// The compiler and what it compiles for.
fn compiler() -> Outcome<(String, String)> {
    let said = String::from_utf8(Command::new("rustc").arg("-vV").output()?.stdout)?;
    let target = said.lines().find_map(|line| line.strip_prefix("host: "));
    let version = said.lines().next().ok_or("rustc says nothing of itself")?;
    Ok((version.to_owned(), target.ok_or("rustc names no host")?.to_owned()))
}

/// One pass of one kernel, started under valgrind.
fn one(name: &str) -> Outcome<()> {
    let data = Data::new(ROWS)?;
    let mut kernels = all(&data)?;
    let kernel = kernels.iter_mut().find(|kernel| kernel.name() == name);
    kernel_pass(kernel.ok_or_else(|| format!("{name}: no such kernel here"))?, ROWS);
    Ok(())
}

/// Instructions a row of a kernel.
fn counted(name: &str) -> Outcome<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=*kernel_pass*")
        .arg(std::env::current_exe()?)
        .args(["--one", name])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{name}: {}", said.lines().last().unwrap_or("failed")).into());
    }
    let total =
        said.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, n)| n.trim());
    let total: u64 = total.ok_or("callgrind counted nothing")?.parse()?;
    if total < ROWS as u64 {
        return Err(format!("{name}: {total} instructions are no pass: was it inlined?").into());
    }
    // Hundredths are enough, and leave a short file.
    Ok((total as f64 / ROWS as f64 * 100.0).round() / 100.0)
}

fn compare(on_record: &Counts, now: &Counts) -> Outcome<()> {
    if on_record.target != now.target {
        println!("skipped: the counts on record are those of {}", on_record.target);
        return Ok(());
    }
    if on_record.compiler != now.compiler {
        println!(
            "the counts on record are those of {}: others may be its doing",
            on_record.compiler
        );
    }
    println!("{:<20} {:>10} {:>10} {:>8}", "instructions a row", "on record", "now", "change");
    let mut off = Vec::new();
    for (name, count) in &now.instructions_a_row {
        let Some(before) = on_record.instructions_a_row.get(name) else {
            println!("{name:<20} {:>10} {count:>10.2}", "none");
            off.push(name.as_str());
            continue;
        };
        let change = count / before - 1.0;
        println!("{name:<20} {before:>10.2} {count:>10.2} {:>+7.1}%", change * 100.0);
        if change.abs() > OFF_MAX {
            off.push(name);
        }
    }
    let gone = |name: &&String| !now.instructions_a_row.contains_key(*name);
    off.extend(on_record.instructions_a_row.keys().filter(gone).map(String::as_str));
    if off.is_empty() {
        return Ok(());
    }
    Err(format!("more than {} % off, or without a pair: {}", OFF_MAX * 100.0, off.join(", "))
        .into())
}
