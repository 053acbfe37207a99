//! The overview: tiers, budget, disk, and how the scores lie.
//!
//! A store that is in use or does not open is shown by its files, and says why.

use std::path::Path;

use pmll::inspect::{FileReport, Scored, scores};
use pmll::{Standing, Stats};
use pmll_cli::output::{Outcome, Voice, one_line, size, table};
use pmll_cli::render;
use serde_json::{Value, json};

use crate::files::{problems, store_id_from};

/// Bars of the histogram: a tenth of the scores' range each.
const BINS: usize = 10;
const BAR_WIDTH: usize = 40;
/// Damaged places that are shown of each kind of file.
const PROBLEMS_SHOWN: usize = 5;

/// Shows it.
pub fn run(dir: &Path, voice: Voice) -> Outcome {
    let options = pmll::Options { read_only: true, background: false, ..Default::default() };
    let store = match pmll::Store::builder(dir).options(options).open() {
        Ok(store) => store,
        Err(error) => return by_files(dir, &error, voice),
    };
    let (stats, scored) = match (store.stats(), scores(&store)) {
        (Ok(stats), Ok(scored)) => (stats, scored),
        // It opens, and a part that is read only now is damaged.
        (Err(error), _) | (_, Err(error)) => {
            store.close()?;
            return by_files(dir, &error, voice);
        }
    };
    let bins = histogram(&scored);
    let object = json!({
        "in_use": false,
        "budget_bytes": stats.budget_bytes,
        "counted_bytes": stats.counted_bytes,
        "entries": stats.entries,
        "entries_not_archived": stats.entries_not_archived,
        "tiers": stats.tiers.iter().map(render::tier).collect::<Vec<_>>(),
        "cold_score_mass": stats.cold_score_mass,
        "scores": bins,
        "disk_bytes": stats.disk.total,
        "warnings": stats.warnings,
    });
    voice.say(&object, || text(&stats, &bins))
}

/// The files of a kind, and what they hold together.
struct Kind {
    name: &'static str,
    reports: Vec<FileReport>,
}

impl Kind {
    /// Those that are files: the log has a row about all of them as well.
    fn files(&self) -> impl Iterator<Item = &FileReport> {
        self.reports.iter().filter(|report| report.file != "wal")
    }

    fn bytes(&self) -> u64 {
        self.files().map(|report| report.bytes).sum()
    }

    fn sum(&self, fact: &str) -> u64 {
        self.files().filter_map(|report| report.facts.get(fact)?.as_u64()).sum()
    }

    fn json(&self) -> Value {
        json!({
            "kind": self.name,
            "files": self.files().count(),
            "bytes": self.bytes(),
            "rows": self.sum("rows"),
            "gone_meanwhile": self.files().filter(|report| report.is_gone()).count(),
            "problems": problems(&self.reports).collect::<Vec<_>>(),
        })
    }
}

/// What the files alone say.
fn by_files(dir: &Path, error: &pmll::Error, voice: Voice) -> Outcome {
    let files = crate::files::open(dir, voice)?;
    let kind = |name, reports| Kind { name, reports };
    let mut kinds = vec![
        kind("log", files.log()),
        kind("archive", files.archive()),
        kind("arena", files.arena()),
        kind("columns", files.columns()),
    ];
    if !files.in_use() {
        kinds.push(kind("index", vec![files.catalog()?]));
    }
    let tiers = tiers_by_files(&kinds);
    let object = json!({
        "in_use": files.in_use(),
        "opens": error.to_string(),
        "store_id": files.store_id(),
        "store_id_from": store_id_from(&files),
        "tiers": tiers,
        "files": kinds.iter().map(Kind::json).collect::<Vec<Value>>(),
    });
    voice.say(&object, || {
        let mut levels = Vec::new();
        for tier in &tiers {
            let number = |name: &str| tier[name].as_u64().unwrap_or(0);
            levels.push(vec![
                tier["tier"].as_str().unwrap_or_default().to_owned(),
                format!("{} {}", number("rows"), tier["of"].as_str().unwrap_or_default()),
                size(number("bytes")),
            ]);
        }
        let mut rows = Vec::new();
        for kind in &kinds {
            let damaged = problems(&kind.reports).count();
            rows.push(vec![
                kind.name.to_owned(),
                format!("{} files", kind.files().count()),
                size(kind.bytes()),
                if damaged > 0 { format!("{damaged} DAMAGED places") } else { String::new() },
            ]);
            for problem in problems(&kind.reports).take(PROBLEMS_SHOWN) {
                rows.push(vec![String::new(), one_line(problem, 200)]);
            }
        }
        let why = match files.in_use() {
            true => "another process has this store open: log, archive and arena by their files",
            false => "this store cannot be read as a whole: what its files say",
        };
        format!("{why}\n({error})\n\n{}\n{}", table(&levels), table(&rows))
    })
}

/// What the files hold of each tier. Rows of older versions are among them where only the index knows.
fn tiers_by_files(kinds: &[Kind]) -> Vec<Value> {
    let find = |name: &str| kinds.iter().find(|kind| kind.name == name);
    let all = |name: &str| find(name).into_iter().flat_map(|kind| &kind.reports);
    let number = |report: &FileReport, fact: &str| report.facts.get(fact).and_then(Value::as_u64);
    let puts_of = |facts: &Value| facts["by_kind"]["put"].as_u64().unwrap_or(0);
    let replayed = all("log").find(|report| report.file == "wal");
    let (puts, bytes) = match replayed.filter(|replayed| replayed.problems.is_empty()) {
        Some(it) => (puts_of(&json!(it.facts)), number(it, "operation_bytes").unwrap_or(0)),
        // A log that an open would refuse: every put that can be decoded, archived or not.
        None => {
            let files = || find("log").into_iter().flat_map(Kind::files);
            let facts = files().map(|report| json!(report.facts));
            let puts = facts.map(|facts| puts_of(&facts) + puts_of(&facts["behind_damage"])).sum();
            (puts, files().filter_map(|report| number(report, "used_bytes")).sum())
        }
    };
    let hot = all("columns").filter(|report| report.facts.get("kind") == Some(&json!("hot")));
    let hot: u64 = hot.filter_map(|report| number(report, "rows")).sum();
    let width = |bits: u64| -> u64 {
        let blocks = all("arena").filter(|report| number(report, "bits") == Some(bits));
        blocks.filter_map(|report| number(report, "rows")).sum()
    };
    let of = |name: &str| find(name).map_or((0, 0), |kind| (kind.sum("rows"), kind.bytes()));
    let (warm, archive) = (of("arena"), of("archive"));
    let dead = find("archive").map_or(0, |kind| kind.sum("dead"));
    vec![
        json!({
            "tier": "L0", "rows": puts + hot, "bytes": bytes, "in_log": puts, "hot": hot,
            "of": "entries in the log, or meant to be in memory",
        }),
        json!({
            "tier": "L1", "rows": warm.0, "bytes": warm.1, "int8": width(8), "int4": width(4),
            "of": "rows of codes",
        }),
        json!({
            "tier": "L2", "rows": archive.0, "bytes": archive.1, "dead": dead,
            "of": "archived rows, those of all levels",
        }),
    ]
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
