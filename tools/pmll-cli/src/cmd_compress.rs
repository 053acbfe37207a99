//! `compress` and `why`: what stands where, and what a run of the compressor makes of it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use pmll::{CompressReport, Entry, LevelMove, LevelReport, Policy, Store, Why};
use serde_json::{Value, json};

use crate::open::{self, Context, Place};
use crate::output::{Failure, Outcome, size, table};
use crate::render;

/// Move entries down until 60 % of the budget is counted; deletes nothing
///
/// Every entry stays exact in the archive, whichever level it stands in.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll compress memory
  pmll compress memory --plan
  pmll compress memory --budget 16MiB --json
  pmll compress memory --policy paper --plan --json | jq .after")]
pub struct CompressArgs {
    /// Directory of the store
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// How entries are chosen; paper-literal also hides what it does not protect from searches
    #[arg(long, value_enum, default_value_t = PolicyArg::Watermark)]
    policy: PolicyArg,
    /// Say what would be done, and do nothing
    #[arg(long)]
    plan: bool,
}

/// A policy by its name.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PolicyArg {
    Watermark,
    Paper,
    PaperLiteral,
}

impl From<PolicyArg> for Policy {
    fn from(policy: PolicyArg) -> Policy {
        match policy {
            PolicyArg::Watermark => Policy::Watermark,
            PolicyArg::Paper => Policy::Paper,
            PolicyArg::PaperLiteral => Policy::PaperLiteral,
        }
    }
}

pub fn compress(args: &CompressArgs, context: &Context) -> Outcome {
    let policy = args.policy.into();
    // A plan writes nothing, so it needs no more than reading.
    let store = match args.plan {
        true => open::read(context, &args.dir)?,
        false => open::write(context, &args.dir)?,
    };
    let report = match args.plan {
        true => store.plan_with(policy)?,
        false => store.compress_with(policy)?,
    };
    let not_archived = store.stats()?.entries_not_archived;
    let mut object = report_json(&report, policy, args.plan);
    object["not_archived"] = not_archived.into();
    store.close()?;
    context.voice.say(&object, || {
        let mut text = report_text(&report, args.plan);
        if args.plan && not_archived > 0 {
            text += &format!(
                "{not_archived} entries are not archived yet: a run archives them first, and may move \
                 them as well\n"
            );
        }
        text
    })
}

fn report_json(report: &CompressReport, policy: Policy, plan: bool) -> Value {
    let levels = |levels: &[LevelReport]| -> Value {
        let one = |level: &LevelReport| {
            json!({
                "tier": level.tier.to_string(),
                "entries": level.entries,
                "entries_int8": level.entries_int8,
                "bytes": level.bytes,
            })
        };
        levels.iter().map(one).collect()
    };
    json!({
        "outcome": report.outcome.name(),
        "reason": report.reason,
        "damaged": report.damaged,
        "plan": plan,
        "policy": policy.name(),
        "passes": report.passes,
        "moves": report.moves,
        "promoted": report.promoted,
        "budget_bytes": report.budget_bytes,
        "target_bytes": report.target_bytes,
        "counted_bytes_before": report.counted_bytes_before,
        "counted_bytes_after": report.counted_bytes_after,
        "before": levels(&report.before),
        "after": levels(&report.after),
        "tau": report.tau,
        "score_max": report.score_max,
        "protected": report.protected,
        "cold_score_mass": report.cold_score_mass,
        "bytes_written": report.bytes_written,
    })
}

fn report_text(report: &CompressReport, plan: bool) -> String {
    let mut rows = vec![vec![String::new(), "before".to_owned(), "after".to_owned()]];
    for (before, after) in report.before.iter().zip(&report.after) {
        let cell =
            |level: &LevelReport| format!("{} entries, {}", level.entries, size(level.bytes));
        rows.push(vec![before.tier.to_string(), cell(before), cell(after)]);
    }
    let (before, after) = (report.counted_bytes_before, report.counted_bytes_after);
    rows.push(vec!["counted".to_owned(), size(before), size(after)]);
    let (did, budget) = (if plan { "would move" } else { "moved" }, size(report.budget_bytes));
    let mut text = format!(
        "{}: {did} {} entries in {} passes; budget {budget}, target {}\n{}",
        report.outcome.name(),
        report.moves,
        report.passes,
        size(report.target_bytes),
        table(&rows)
    );
    if !report.reason.is_empty() {
        text += &format!("{}\n", report.reason);
    }
    if report.damaged > 0 {
        text += &format!(
            "{} entries stayed where they stand, as bytes of them are damaged; see pmll verify\n",
            report.damaged
        );
    }
    text
}

/// Why an entry stands where it stands: score, rank, threshold, last moves, and what would move it
///
/// Only what is archived has a score and a rank. An entry that was written since the last checkpoint is
/// archived first, for which the store is opened for writing; all else is read only. When that is not
/// possible, as on a read-only mount, it says so and answers without them.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll why memory notes n1
  pmll why memory notes n1 --json | jq .score")]
pub struct WhyArgs {
    #[command(flatten)]
    place: Place,
    /// Key of the entry
    #[arg(value_name = "KEY")]
    key: String,
}

/// Last moves that are shown to people; `--json` has all.
const MOVES_SHOWN: usize = 3;

/// An entry, why it stands where it stands, and what the store has not archived.
struct Asked {
    entry: Entry,
    why: Option<Why>,
    moves: Vec<LevelMove>,
    not_archived: u64,
}

fn ask(args: &WhyArgs, store: &Store) -> Result<Asked, Failure> {
    let collection = args.place.find(store)?;
    let missing = || Failure::not_found(format!("there is no entry {:?}", args.key));
    let entry = collection.peek(&args.key)?.ok_or_else(missing)?;
    let (why, moves) = (collection.why(&args.key)?, collection.moves(&args.key)?);
    Ok(Asked { entry, why, moves, not_archived: store.stats()?.entries_not_archived })
}

pub fn why(args: &WhyArgs, context: &Context) -> Outcome {
    let store = open::read(context, &args.place.dir)?;
    let mut asked = ask(args, &store)?;
    store.close()?;
    let mut checkpointed = false;
    if asked.why.is_none() {
        match open::write(context, &args.place.dir) {
            Ok(store) => {
                store.checkpoint()?;
                asked = ask(args, &store)?;
                store.close()?;
                checkpointed = true;
            }
            Err(failure) => {
                context.voice.note(&format!("note: not archived first: {}", failure.message));
            }
        }
    }
    let Asked { entry, why, moves, not_archived } = asked;
    let Some(why) = why else {
        let object = json!({
            "key": args.key,
            "tier": entry.tier.to_string(),
            "archived": false,
            "not_archived": not_archived,
            "checkpointed": checkpointed,
            "access_count": entry.access_count,
        });
        return context.voice.say(&object, || {
            format!(
                "hot: written since the last checkpoint, as {not_archived} entries were; what is not \
                 archived has no rank yet\n"
            )
        });
    };
    let object = json!({
        "key": args.key,
        "tier": entry.tier.to_string(),
        "archived": true,
        "not_archived": not_archived,
        "checkpointed": checkpointed,
        "standing": why.standing.name(),
        "score": {
            "total": why.score.total,
            "recency": why.score.recency,
            "frequency": why.score.frequency,
            "semantic": why.score.semantic,
        },
        "rank": why.rank,
        "of": why.of,
        "pinned": entry.pinned,
        "protected": why.protected,
        "tau": why.tau,
        "rises_at": why.rises_at,
        "home": why.home.name(),
        "planned": why.planned.name(),
        "access_count": entry.access_count,
        "last_access": render::moment(entry.last_access),
        "moves": moves.iter().map(move_json).collect::<Vec<Value>>(),
    });
    context.voice.say(&object, || {
        let mut text = why_text(&why, &moves);
        if not_archived > 0 {
            text += &format!(
                "{not_archived} entries of the store are not archived and not ranked yet\n"
            );
        }
        text
    })
}

fn move_json(moved: &LevelMove) -> Value {
    json!({
        "at": render::moment(moved.at),
        "from": moved.from.name(),
        "to": moved.to.name(),
    })
}

fn why_text(why: &Why, moves: &[LevelMove]) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let score = &why.score;
    let rank = match why.rank {
        None => "pinned: never below 8 bits, and not ranked".to_owned(),
        Some(rank) => {
            let guard = if why.protected { "protected" } else { "not protected" };
            format!("{rank} of {}, {guard} (from score {:.4} on)", why.of, why.tau)
        }
    };
    let next = match why.planned == why.standing {
        true => "a run now would leave it there".to_owned(),
        false => format!("a run now would move it to {}", why.planned.name()),
    };
    let rises = format!("score {:.4}, or two accesses within a half-life", why.rises_at);
    let mut rows = vec![
        row("stands in", why.standing.name().to_owned()),
        row(
            "score",
            format!(
                "{:.4} (recency {:.4}, frequency {:.4}, semantic {:.4})",
                score.total, score.recency, score.frequency, score.semantic
            ),
        ),
        row("rank", rank),
        row("next", next),
        row("under pressure", format!("goes to {}", why.home.name())),
    ];
    if why.standing != pmll::Standing::Hot {
        rows.push(row("goes up at", rises));
    }
    for moved in moves.iter().rev().take(MOVES_SHOWN) {
        let when = render::moment(moved.at);
        rows.push(row(
            "moved",
            format!("from {} to {} at {when}", moved.from.name(), moved.to.name()),
        ));
    }
    table(&rows)
}
