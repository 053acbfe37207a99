//! `doctor`: what could be in the way of a store, in one look; `completions` for shells.
//!
//! The doctor only reads. It checks one thing after the other and goes on after a failure as far as
//! that makes sense, so that one run shows everything.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use pmll::Depth;
use serde_json::{Value, json};

use crate::open::{self, Context};
use crate::output::{Failure, Outcome, one_line, size};

/// Check a store and the machine it is on; never writes
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll doctor memory
  pmll doctor memory --json")]
pub struct DoctorArgs {
    /// Directory of the store
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// One thing that was looked at.
struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
}

pub fn doctor(args: &DoctorArgs, context: &Context) -> Outcome {
    let mut checks = Vec::new();
    let failure = examine(&args.dir, context, &mut checks).err();
    let ok = failure.is_none() && checks.iter().all(|c| c.ok);
    let objects: Vec<Value> =
        checks.iter().map(|c| json!({ "name": c.name, "ok": c.ok, "detail": c.detail })).collect();
    let object = json!({
        "ok": ok,
        "version": env!("CARGO_PKG_VERSION"),
        "store": args.dir.to_string_lossy(),
        "checks": objects,
    });
    context.voice.say(&object, || {
        let mut text = format!("pmll {}\n", env!("CARGO_PKG_VERSION"));
        for check in &checks {
            let sign = if check.ok { "ok  " } else { "FAIL" };
            text += &format!("{sign} {}: {}\n", check.name, one_line(&check.detail, 300));
        }
        text
    })?;
    match failure {
        Some(failure) => Err(failure),
        None if ok => Ok(()),
        None => {
            let bad = checks.iter().filter(|c| !c.ok).count();
            Err(Failure::corrupt(format!("{bad} of {} checks failed", checks.len())))
        }
    }
}

/// Looks at everything; an error that ends the examination is also the last check.
fn examine(dir: &Path, context: &Context, checks: &mut Vec<Check>) -> Outcome {
    let mut add = |name: &'static str, ok: bool, detail: String| {
        checks.push(Check { name, ok, detail });
    };
    match std::fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => {
            let writable = if meta.permissions().readonly() { "read-only" } else { "writable" };
            add("directory", true, format!("{} is there ({writable})", dir.display()));
        }
        Ok(_) => add("directory", false, format!("{} is not a directory", dir.display())),
        Err(e) => add("directory", false, format!("{}: {e}", dir.display())),
    }
    let store = match open::read(context, dir) {
        Ok(store) => store,
        Err(failure) => {
            add("open", false, failure.message.clone());
            return Err(failure);
        }
    };
    add("open", true, "opens, and the log replays".into());
    match store.verify(Depth::Fast) {
        Ok(report) => {
            let first = report.problems.first();
            let detail = match first {
                None => format!("{} entries in {} files", report.entries, report.files),
                Some(p) => {
                    format!("{} problems, first {}: {}", report.problems.len(), p.file, p.message)
                }
            };
            add("files", report.is_whole(), detail);
        }
        Err(e) => add("files", false, e.to_string()),
    }
    let stats = store.stats()?;
    add(
        "memory",
        stats.utilisation <= 0.95,
        format!("{} of {} in use", size(stats.counted_bytes), size(stats.budget_bytes)),
    );
    if let Some(total) = machine_memory() {
        add(
            "budget",
            stats.budget_bytes <= total,
            format!("{} of {} on this machine", size(stats.budget_bytes), size(total)),
        );
    }
    add(
        "log",
        stats.log_bytes <= stats.budget_bytes / 4,
        format!("{} not archived yet", size(stats.log_bytes)),
    );
    for warning in &stats.warnings {
        add("warning", false, warning.clone());
    }
    Ok(())
}

/// Memory of the machine, where the system says it in the usual place.
fn machine_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Print a completion script for a shell
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll completions bash > ~/.local/share/bash-completion/completions/pmll
  pmll completions zsh > ~/.zfunc/_pmll
  pmll completions fish > ~/.config/fish/completions/pmll.fish")]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub fn completions(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::cli::Cli::command(), "pmll", &mut script);
    Ok(std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?)
}
