//! Entries with what the compressor thinks of them.

use std::collections::HashMap;

use clap::Args;
use pmll::inspect::{Scored, scores};
use pmll::{Entry, EntryId, Filter, Namespace, Scan, Store};
use pmll_cli::output::{Failure, Outcome, Voice, one_line, table};
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
    /// Order: key, score, recency, frequency, semantic, accesses; a leading - turns it round
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

impl Row {
    fn number(&self, field: &str) -> f64 {
        let score = self.scored.as_ref().map(|s| s.score).unwrap_or_default();
        match field {
            "recency" => score.recency.into(),
            "frequency" => score.frequency.into(),
            "semantic" => score.semantic.into(),
            "accesses" => self.entry.access_count as f64,
            _ => score.total.into(),
        }
    }

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

/// Lists entries.
pub fn list(store: &Store, args: &EntriesArgs, voice: Voice) -> Outcome {
    let (field, turned) = match args.sort.strip_prefix('-') {
        Some(field) => (field, true),
        None => (args.sort.as_str(), false),
    };
    if !["key", "score", "recency", "frequency", "semantic", "accesses"].contains(&field) {
        return Err(Failure::usage(format!("cannot sort by {field:?}; see --help")));
    }
    let filter = Filter::from_where(&args.conditions)?;
    let mut scored: HashMap<EntryId, Scored> =
        scores(store)?.into_iter().map(|scored| (scored.id, scored)).collect();
    let mut rows = Vec::new();
    for info in store.collections()? {
        if args.collection.as_ref().is_some_and(|name| *name != info.name) {
            continue;
        }
        let Some(collection) = store.find_collection(&info.name)? else { continue };
        let mut scan = Scan::new().limit(PAGE).filter(filter.clone());
        loop {
            let page = collection.scan(scan)?;
            rows.extend(page.entries.into_iter().map(|entry| Row {
                collection: info.name.clone(),
                scored: scored.remove(&entry.id),
                entry,
            }));
            let Some(cursor) = page.cursor else { break };
            scan = Scan::new().limit(PAGE).filter(filter.clone()).cursor(cursor);
        }
    }
    // Stable: equal ones stay in the order of collection, namespace and key.
    if field != "key" {
        rows.sort_by(|a, b| a.number(field).total_cmp(&b.number(field)));
    }
    if turned {
        rows.reverse();
    }
    let (all, rows) = (rows.len(), rows.into_iter().skip(args.skip).take(args.limit));
    let rows: Vec<Row> = rows.collect();
    let object = json!({
        "entries": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "matching": all,
        "skip": args.skip,
    });
    voice.say(&object, || {
        let mut cells = vec![
            ["", "stands in", "score", "recency", "frequency", "semantic", "accesses", "text"]
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
