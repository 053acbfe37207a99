//! `list` and `count`: entries in order, one JSON object a line.
//!
//! Without `--sort` the order is that of (namespace, key) and memory stays that of one page. With
//! `--sort` the sort values and keys of what is asked for are held, never payloads; each entry is read
//! again as it is printed.

use std::io::{IsTerminal, Write};

use clap::Args;
use pmll::{Entry, Key, Namespace, Scan};
use serde_json::{Value, json};

use crate::open::{self, Choice, Context, Place};
use crate::output::{Failure, Outcome};
use crate::render;
use crate::sort::{Order, Rank};

/// List entries, one JSON object a line (on a terminal: one line each)
///
/// With --limit the cursor of the next page goes to stderr.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll list memory notes
  pmll list memory notes --where 'speaker=Caroline' --sort -_at --limit 10 --json
  pmll list memory notes --filter '{\"_at\":{\"$gte\":\"2026-11-01\"}}'")]
pub struct ListArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    choice: Choice,
    /// Order by an attribute or a field such as _at; with - in front, descending
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true)]
    sort: Option<String>,
    /// Entries to show
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Go on where an earlier list ended
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Show the vectors as well
    #[arg(long)]
    vector: bool,
}

pub fn list(args: &ListArgs, context: &Context) -> Outcome {
    let order = args.sort.as_deref().map(Order::parse).transpose()?;
    let filter = args.choice.filter()?;
    let collection = args.place.read(context)?;
    let mut scan = Scan::new().with_vector(args.vector);
    if let Some(filter) = filter {
        scan = scan.filter(filter);
    }
    let mut lines = Lines { json: context.voice.json || !std::io::stdout().is_terminal() };
    let next = match order {
        None => in_key_order(args, &collection, scan, &mut lines)?,
        Some(order) => sorted(args, &collection, scan, &order, &mut lines)?,
    };
    std::io::stdout().lock().flush()?;
    if let Some(cursor) = next {
        let text = match context.voice.json {
            true => json!({ "cursor": cursor }).to_string(),
            false => format!("more: --cursor {cursor}"),
        };
        // The entries are told; where the rest goes on is talk.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
    Ok(())
}

struct Lines {
    json: bool,
}

impl Lines {
    fn print(&mut self, entry: &Entry) -> Outcome {
        let mut stdout = std::io::stdout().lock();
        if self.json {
            writeln!(stdout, "{}", Value::Object(render::entry(entry, true)))?;
        } else {
            let at = render::moment(entry.at);
            let at = at.as_str().unwrap_or("?").get(..16).unwrap_or("?").to_owned();
            writeln!(stdout, "{at}  {}  {}", render::path(entry), render::preview(entry, 100))?;
        }
        Ok(())
    }
}

/// Prints in the order of (namespace, key); the cursor of the rest.
fn in_key_order(
    args: &ListArgs,
    collection: &pmll::Collection,
    scan: Scan,
    lines: &mut Lines,
) -> Result<Option<String>, Failure> {
    let mut left = args.limit.unwrap_or(usize::MAX);
    let mut cursor = args.cursor.clone();
    while left > 0 {
        let mut scan = scan.clone().limit(left);
        if let Some(cursor) = &cursor {
            scan = scan.cursor(cursor.as_str());
        }
        let page = collection.scan(scan)?;
        left -= page.entries.len().min(left);
        for entry in &page.entries {
            lines.print(entry)?;
        }
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(None);
        }
    }
    Ok(cursor)
}

/// Prints in the order of a field; the cursor is how many were printed so far.
fn sorted(
    args: &ListArgs,
    collection: &pmll::Collection,
    scan: Scan,
    order: &Order,
    lines: &mut Lines,
) -> Result<Option<String>, Failure> {
    let skip: usize = match &args.cursor {
        None => 0,
        Some(cursor) => cursor
            .strip_prefix("sorted.")
            .and_then(|n| n.parse().ok())
            .ok_or_else(|| Failure::invalid(format!("{cursor:?} is no cursor of a sorted list")))?,
    };
    let keep = args.limit.map_or(usize::MAX, |limit| skip.saturating_add(limit));
    let mut found: Vec<(Rank, Namespace, Key)> = Vec::new();
    let mut more = false;
    let cut = |found: &mut Vec<(Rank, Namespace, Key)>| {
        // A stable sort: equal values stay in the order of the scan.
        found.sort_by(|a, b| order.compare(&a.0, &b.0));
        found.truncate(keep);
    };
    open::for_each(collection, scan.with_payload(false).with_vector(false), |entry| {
        found.push((order.rank(&entry), entry.namespace, entry.key));
        if found.len() >= keep.saturating_mul(2).max(1000) {
            more |= found.len() > keep;
            cut(&mut found);
        }
        Ok(true)
    })?;
    more |= found.len() > keep;
    cut(&mut found);
    let shown = found.len();
    for (_, namespace, key) in found.into_iter().skip(skip) {
        let place = collection.in_namespace(namespace);
        let entry =
            if args.vector { place.get(key.as_bytes())? } else { place.peek(key.as_bytes())? };
        // Gone since the scan: expired a moment ago.
        if let Some(entry) = entry {
            lines.print(&entry)?;
        }
    }
    Ok(more.then(|| format!("sorted.{shown}")))
}

/// Count entries, all or those that match
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll count memory notes
  pmll count memory notes --where 'conv=c26' --json")]
pub struct CountArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    choice: Choice,
}

pub fn count(args: &CountArgs, context: &Context) -> Outcome {
    let filter = args.choice.filter()?;
    let count = args.place.read(context)?.count(filter.as_ref())?;
    let object = json!({ "collection": args.place.name, "count": count });
    context.voice.say(&object, || count.to_string())
}
