//! Entries with what the compressor thinks of them.
//!
//! A list takes two walks: the first keeps an id and a number to sort by of each entry that matches, the
//! second fetches those of the page. So a store of any size is listed in little memory, and no payload
//! is read that is not shown.

use std::collections::HashMap;
use std::ops::ControlFlow;

use clap::Args;
use pmll::inspect::{Scored, scores};
use pmll::{Collection, Entry, EntryId, Filter, Namespace, Scan, Store};
use pmll_cli::output::{Failure, Outcome, Voice, one_line, size, table};
use pmll_cli::render;
use serde_json::{Map, Value, json};

/// How many scan pages hold at once.
const PAGE: usize = 512;

#[derive(Args, Debug)]
pub struct EntriesArgs {
    /// Only this collection
    #[arg(long, value_name = "NAME")]
    collection: Option<String>,
    /// Condition such as 'conv=c26' or '_tier=L2'; all must hold
    #[arg(long = "where", value_name = "COND")]
    conditions: Vec<String>,
    /// Order: key, score, size, tier, age, last-access, recency, frequency, semantic, accesses; a leading -
    /// turns it round
    #[arg(long, value_name = "FIELD", default_value = "-score", allow_hyphen_values = true)]
    sort: String,
    /// Entries to show
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Entries to pass over first
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: usize,
}

#[derive(Args, Debug)]
pub struct EntryArgs {
    /// Name of the collection
    #[arg(value_name = "NAME")]
    collection: String,
    /// Key of the entry
    #[arg(value_name = "KEY")]
    key: String,
    /// Namespace, such as user/7/notes
    #[arg(long, value_name = "PATH")]
    ns: Option<String>,
}

/// One row: an entry, and its score if it is archived.
struct Row {
    collection: String,
    entry: Entry,
    scored: Option<Scored>,
}

/// The number that a field sorts by.
fn number(field: &str, entry: &Entry, scored: Option<&Scored>) -> f64 {
    let score = scored.map(|s| s.score).unwrap_or_default();
    match field {
        "recency" => score.recency.into(),
        "frequency" => score.frequency.into(),
        "semantic" => score.semantic.into(),
        "accesses" => entry.access_count as f64,
        "size" => entry.payload_len as f64,
        "tier" => f64::from(entry.tier.level()),
        // The older its event, the greater.
        "age" => -(entry.at.0 as f64),
        "last-access" => entry.last_access.0 as f64,
        "score" => score.total.into(),
        _ => 0.0,
    }
}

impl Row {
    fn json(&self) -> Value {
        let mut object = Map::new();
        object.insert("collection".into(), self.collection.as_str().into());
        object.extend(render::entry(&self.entry, true));
        if let Some(scored) = &self.scored {
            object.insert("standing".into(), scored.standing.name().into());
            let score = &scored.score;
            let terms = json!({
                "total": render::number(score.total),
                "recency": render::number(score.recency),
                "frequency": render::number(score.frequency),
                "semantic": render::number(score.semantic),
            });
            object.insert("score".into(), terms);
        }
        Value::Object(object)
    }
}

/// What a list may be sorted by.
const FIELDS: [&str; 10] = [
    "key",
    "score",
    "size",
    "tier",
    "age",
    "last-access",
    "recency",
    "frequency",
    "semantic",
    "accesses",
];

/// Visits what matches, without payloads, by collection, namespace and key.
fn walk(
    store: &Store,
    args: &EntriesArgs,
    filter: &Filter,
    mut visit: impl FnMut(&Collection, Entry) -> Result<ControlFlow<()>, Failure>,
) -> Result<(), Failure> {
    for info in store.collections()? {
        if args.collection.as_ref().is_some_and(|name| *name != info.name) {
            continue;
        }
        let Some(collection) = store.find_collection(&info.name)? else { continue };
        let scan = || Scan::new().limit(PAGE).filter(filter.clone()).with_payload(false);
        let mut next = Some(scan());
        while let Some(scan_now) = next {
            let page = collection.scan(scan_now)?;
            for entry in page.entries {
                if visit(&collection, entry)?.is_break() {
                    return Ok(());
                }
            }
            next = page.cursor.map(|cursor| scan().cursor(cursor));
        }
    }
    Ok(())
}

/// Lists entries.
pub fn list(store: &Store, args: &EntriesArgs, voice: Voice) -> Outcome {
    let (field, turned) = match args.sort.strip_prefix('-') {
        Some(field) => (field, true),
        None => (args.sort.as_str(), false),
    };
    if !FIELDS.contains(&field) {
        return Err(Failure::usage(format!("cannot sort by {field:?}; see --help")));
    }
    let filter = Filter::from_where(&args.conditions)?;
    let mut scored = scores(store)?;
    scored.sort_unstable_by_key(|scored| scored.id);
    let score_of = |id: EntryId| -> Option<&Scored> {
        scored.get(scored.binary_search_by_key(&id, |scored| scored.id).ok()?)
    };
    let mut order: Vec<(f64, EntryId)> = Vec::new();
    walk(store, args, &filter, |_, entry| {
        order.push((number(field, &entry, score_of(entry.id)), entry.id));
        Ok(ControlFlow::Continue(()))
    })?;
    // Stable: equal ones stay in the order of collection, namespace and key.
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    if turned {
        order.reverse();
    }
    let all = order.len();
    let shown = order.iter().skip(args.skip).take(args.limit).map(|(_, id)| *id);
    let places: HashMap<EntryId, usize> = shown.zip(0..).collect();
    let mut page: Vec<Option<Row>> = places.iter().map(|_| None).collect();
    let mut left = places.len();
    walk(store, args, &filter, |collection, entry| {
        let Some(row) = places.get(&entry.id).and_then(|at| page.get_mut(*at)) else {
            return Ok(ControlFlow::Continue(()));
        };
        let namespaced = collection.in_namespace(entry.namespace.clone());
        // With its payload; what expired since it was listed is not there any more.
        *row = namespaced.peek(entry.key.as_bytes())?.map(|entry| Row {
            collection: collection.name().to_owned(),
            scored: score_of(entry.id).cloned(),
            entry,
        });
        left -= 1;
        Ok(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    let rows: Vec<Row> = page.into_iter().flatten().collect();
    let object = json!({
        "entries": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "matching": all,
        "skip": args.skip,
    });
    voice.say(&object, || {
        let mut cells = vec![
            [
                "",
                "stands in",
                "score",
                "recency",
                "frequency",
                "semantic",
                "accesses",
                "size",
                "text",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        for row in &rows {
            let mut line = vec![format!("{}/{}", row.collection, render::path(&row.entry))];
            match &row.scored {
                Some(scored) => {
                    line.push(scored.standing.name().to_owned());
                    let score = scored.score;
                    for term in [score.total, score.recency, score.frequency, score.semantic] {
                        line.push(format!("{term:.4}"));
                    }
                }
                None => line.extend(["log", "-", "-", "-", "-"].map(str::to_owned)),
            }
            line.push(row.entry.access_count.to_string());
            line.push(size(row.entry.payload_len));
            line.push(render::preview(&row.entry, 40));
            cells.push(line);
        }
        format!("{}{} of {all} entries", table(&cells), rows.len())
    })
}

/// Shows one entry.
pub fn one(store: &Store, args: &EntryArgs, voice: Voice) -> Outcome {
    let missing = |what: String| Failure::not_found(what);
    let collection = store
        .find_collection(&args.collection)?
        .ok_or_else(|| missing(format!("there is no collection {:?}", args.collection)))?;
    let collection = match &args.ns {
        Some(ns) => collection.in_namespace(Namespace::new(ns)?),
        None => collection,
    };
    let entry = collection
        .peek(&args.key)?
        .ok_or_else(|| missing(format!("there is no entry {:?}", one_line(&args.key, 80))))?;
    let why = collection.why(&args.key)?;
    let scored = scores(store)?.into_iter().find(|scored| scored.id == entry.id);
    let row = Row { collection: args.collection.clone(), entry, scored };
    let mut object = row.json();
    if let Some(why) = &why {
        object["why"] = json!({
            "rank": why.rank,
            "of": why.of,
            "protected": why.protected,
            "tau": render::number(why.tau),
            "home": why.home.name(),
            "planned": why.planned.name(),
            "rises_at": render::number(why.rises_at),
        });
    }
    voice.say(&object, || {
        let mut text = render::details(&row.entry);
        if !text.ends_with('\n') {
            text.push('\n');
        }
        match (&row.scored, &why) {
            (Some(scored), Some(why)) => {
                let rank = why.rank.map_or("pinned".to_owned(), |r| format!("{r} of {}", why.of));
                text += &format!(
                    "stands in {}; score {:.4} (recency {:.4}, frequency {:.4}, semantic {:.4}); rank {rank}; \
                     protected from {:.4} on; under pressure it goes to {}\n",
                    scored.standing.name(),
                    scored.score.total,
                    scored.score.recency,
                    scored.score.frequency,
                    scored.score.semantic,
                    why.tau,
                    why.home.name()
                );
            }
            _ => text += "in the log: what is not archived has no rank yet\n",
        }
        text
    })
}
