//! The overview: tiers, budget, disk, and how the scores lie.
//!
//! A store that is in use or does not open is shown by its files, and says why.

use std::path::Path;

use pmll::inspect::{Files, Scored, scores};
use pmll::{ErrorKind, Standing, Stats};
use pmll_cli::output::{Outcome, Voice, size, table};
use pmll_cli::render;
use serde_json::{Value, json};

/// Bars of the histogram: a tenth of the scores' range each.
const BINS: usize = 10;
const BAR_WIDTH: usize = 40;

/// Shows it.
pub fn run(dir: &Path, voice: Voice) -> Outcome {
    let options = pmll::Options { read_only: true, background: false, ..Default::default() };
    let store = match pmll::Store::builder(dir).options(options).open() {
        Ok(store) => store,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(error.into()),
        Err(error) => return by_files(dir, &error, voice),
    };
    let (stats, scored) = (store.stats()?, scores(&store)?);
    let bins = histogram(&scored);
    let object = json!({
        "in_use": false,
        "budget_bytes": stats.budget_bytes,
        "counted_bytes": stats.counted_bytes,
        "entries": stats.entries,
        "tiers": stats.tiers.iter().map(render::tier).collect::<Vec<_>>(),
        "cold_score_mass": stats.cold_score_mass,
        "scores": bins,
        "disk_bytes": stats.disk.total,
        "warnings": stats.warnings,
    });
    voice.say(&object, || text(&stats, &bins))
}

/// What the files alone say.
fn by_files(dir: &Path, error: &pmll::Error, voice: Voice) -> Outcome {
    let files = Files::open(dir)?;
    let kinds = [("log", files.log()), ("archive", files.archive()), ("arena", files.arena())];
    let sum = |reports: &[pmll::inspect::FileReport], fact: &str| -> u64 {
        reports.iter().filter_map(|report| report.facts.get(fact)?.as_u64()).sum()
    };
    let object = json!({
        "in_use": files.in_use(),
        "opens": error.to_string(),
        "files": kinds
            .iter()
            .map(|(kind, reports)| {
                json!({
                    "kind": kind,
                    "files": reports.len(),
                    "bytes": reports.iter().map(|r| r.bytes).max().unwrap_or(0).max(
                        reports.iter().filter(|r| r.file.contains('/')).map(|r| r.bytes).sum()),
                    "rows": sum(reports, "rows"),
                    "problems": reports.iter().flat_map(|r| &r.problems).collect::<Vec<_>>(),
                })
            })
            .collect::<Vec<Value>>(),
    });
    voice.say(&object, || {
        let mut rows = Vec::new();
        for (kind, reports) in &kinds {
            let files: Vec<_> = reports.iter().filter(|r| r.file.contains('/')).collect();
            let bytes = files.iter().map(|r| r.bytes).sum();
            let problems = reports.iter().map(|r| r.problems.len()).sum::<usize>();
            rows.push(vec![
                (*kind).to_owned(),
                format!("{} files", files.len()),
                size(bytes),
                format!("{} rows", sum(reports, "rows")),
                if problems > 0 { format!("{problems} DAMAGED places") } else { String::new() },
            ]);
        }
        let why = match files.in_use() {
            true => "another process has this store open: log, archive and arena by their files",
            false => "this store does not open: log, archive and arena by their files",
        };
        format!("{why}\n({error})\n\n{}", table(&rows))
    })
}

/// Entries by tenths of [0, 1]: from, to, and how many of each level.
fn histogram(scored: &[Scored]) -> Vec<Value> {
    let mut bins = vec![[0_u64; 3]; BINS];
    for entry in scored {
        let at = ((entry.score.total * BINS as f32) as usize).min(BINS - 1);
        let level = match entry.standing {
            Standing::Hot => 0,
            Standing::Warm8 | Standing::Warm4 => 1,
            Standing::Cold => 2,
        };
        if let Some(count) = bins.get_mut(at).and_then(|bin| bin.get_mut(level)) {
            *count += 1;
        }
    }
    let bin = |(at, [hot, warm, cold]): (usize, &[u64; 3])| {
        let from = at as f64 / BINS as f64;
        json!({"from": from, "to": from + 0.1, "hot": hot, "warm": warm, "cold": cold})
    };
    bins.iter().enumerate().map(bin).collect()
}

fn text(stats: &Stats, bins: &[Value]) -> String {
    let mut rows = vec![["", "entries", "bytes", "bits", "fidelity"].map(str::to_owned).to_vec()];
    for tier in &stats.tiers {
        rows.push(vec![
            tier.tier.to_string(),
            tier.entries.to_string(),
            size(tier.bytes),
            render::bits_text(tier),
            render::fidelity_text(tier.fidelity),
        ]);
    }
    let mut text = format!(
        "{} entries, {} of {} counted ({:.0} %), {} on disk\n\n{}",
        stats.entries,
        size(stats.counted_bytes),
        size(stats.budget_bytes),
        stats.utilisation * 100.0,
        size(stats.disk.total),
        table(&rows)
    );
    let all = |bin: &Value| -> u64 {
        ["hot", "warm", "cold"].iter().filter_map(|level| bin[level].as_u64()).sum()
    };
    let most = bins.iter().map(all).max().unwrap_or(0);
    if most > 0 {
        text += "\nscores (hot #, warm +, cold .)\n";
        for bin in bins {
            let width = |level: &str| {
                let n = bin[level].as_u64().unwrap_or(0);
                // Whatever is there shows.
                (n as usize * BAR_WIDTH).div_ceil(most as usize)
            };
            text += &format!(
                "{:.1} {:>8}  {}{}{}\n",
                bin["from"].as_f64().unwrap_or(0.0),
                all(bin),
                "#".repeat(width("hot")),
                "+".repeat(width("warm")),
                ".".repeat(width("cold"))
            );
        }
    }
    for warning in &stats.warnings {
        text += &format!("warning: {warning}\n");
    }
    text
}
