//! `eval`: how well and how fast a collection is searched, against known answers.
//!
//! Two kinds of truth:
//! - `--truth`: row i names the true neighbours of query i as row numbers, best first; entries were
//!   imported under their row numbers. recall@k = |found and among the first k| / k.
//! - `--questions`: line i is the question of query i, with the entries that answer it. Each
//!   search is limited to the entries whose `--scope` field equals the question's; recall of a
//!   question = found / number of its answers, averaged over questions that have any.
//!
//! Each query is one `search` for k entries without payloads; its time is the whole call. With
//! several threads the queries are dealt out in turn.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use pmll::{Collection, CountAccess, Exactness, Filter, Query};
use pmll_cli::lines::{Line, Lines};
use pmll_cli::npy::NpyReader;
use serde_json::{Map, Value, json};

use crate::cmd_search::exactness;
use crate::open::{Context, Place};
use crate::output::{Failure, Outcome, table};
use crate::record::word;

/// Measure recall and speed of search against known answers
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pmll eval memory passages --queries queries.npy --truth truth.npy -k 10 --json
  pmll eval memory turns --queries questions.npy --questions questions.jsonl \\
      --scope conv --relevant evidence --key conv,dia_id -k 10 --json")]
pub struct EvalArgs {
    #[command(flatten)]
    place: Place,
    /// Query vectors, one a row
    #[arg(long, value_name = "Q.npy")]
    queries: PathBuf,
    /// True neighbours as row numbers, best first
    #[arg(
        long,
        value_name = "T.npy",
        required_unless_present = "questions",
        conflicts_with = "questions"
    )]
    truth: Option<PathBuf>,
    /// Questions with their answers, one a line
    #[arg(long, value_name = "Q.jsonl", requires = "relevant")]
    questions: Option<PathBuf>,
    /// Field of question and entry that must be equal
    #[arg(long, value_name = "FIELD", requires = "questions")]
    scope: Option<String>,
    /// Field of a question that lists its answers
    #[arg(long, value_name = "FIELD", requires = "questions")]
    relevant: Option<String>,
    /// Fields that make an answer's key, joined by ':'; what the question has not is the answer
    #[arg(long, value_name = "FIELD[,FIELD]", value_delimiter = ',', requires = "questions")]
    key: Vec<String>,
    /// Give the recall of each value of this field of the questions as well
    #[arg(long, value_name = "FIELD", requires = "questions")]
    by: Option<String>,
    /// Entries to find
    #[arg(short, default_value_t = 10)]
    k: usize,
    /// How sure to be: a share such as 0.95 or 0.99, codes, codes:SHARE, or exact
    #[arg(long, value_name = "SHARE|codes[:SHARE]|exact", default_value = "0.99", value_parser = exactness)]
    exactness: Exactness,
    /// Threads that search
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
}

/// One query and what it should find.
struct Case {
    vector: Vec<f32>,
    filter: Option<Filter>,
    /// Keys that count.
    relevant: Vec<Vec<u8>>,
    /// What recall is divided by.
    of: usize,
    group: Option<String>,
}

/// What one query gave.
struct Answer {
    recall: f64,
    time: Duration,
    group: Option<String>,
}

pub fn run(args: &EvalArgs, context: &Context) -> Outcome {
    if args.k == 0 {
        return Err(Failure::invalid("k is 0; it takes 1 or more"));
    }
    let mut queries = NpyReader::open(&args.queries)?;
    let total = queries.rows();
    let (cases, skipped) = match (&args.truth, &args.questions) {
        (Some(path), _) => (with_truth(args, &mut queries, path)?, 0),
        (None, Some(path)) => with_questions(args, &mut queries, path)?,
        (None, None) => return Err(Failure::usage("give --truth or --questions")),
    };
    if cases.is_empty() {
        return Err(Failure::invalid("there is no query with an answer"));
    }
    let collection = args.place.read(context)?;
    let threads = usize::from(args.threads).min(cases.len());
    let started = Instant::now();
    let answers = search_all(&collection, &cases, (args.k, args.exactness), threads, context)?;
    let wall = started.elapsed().as_secs_f64();

    let mut times: Vec<Duration> = answers.iter().map(|a| a.time).collect();
    times.sort_unstable();
    let micros = |share: f64| percentile(&times, share).as_secs_f64() * 1e6;
    let (p50, p99) = ((micros(0.50) * 10.0).round() / 10.0, (micros(0.99) * 10.0).round() / 10.0);
    let recall = mean(answers.iter().map(|a| a.recall));
    let qps = (answers.len() as f64 / wall.max(1e-9) * 10.0).round() / 10.0;
    let mut object = json!({
        "collection": args.place.name,
        "k": args.k,
        "queries": total,
        "evaluated": answers.len(),
        "skipped": skipped,
        "threads": threads,
        "recall": recall,
        "p50_us": p50,
        "p99_us": p99,
        "qps": qps,
    });
    let by = groups(&answers);
    if args.by.is_some() {
        let of = |(name, (recall, n)): (&String, &(f64, usize))| {
            (name.clone(), json!({ "recall": recall, "evaluated": n }))
        };
        object["by"] = Value::Object(by.iter().map(of).collect::<Map<_, _>>());
    }
    context.voice.say(&object, || {
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let mut rows = vec![
            row(&format!("recall@{}", args.k), format!("{recall:.4}")),
            row("p50", format!("{p50:.1} us")),
            row("p99", format!("{p99:.1} us")),
            row("qps", format!("{qps:.0} ({threads} threads)")),
            row("queries", format!("{} ({skipped} without an answer)", answers.len())),
        ];
        for (name, (recall, n)) in &by {
            rows.push(row(&format!("  {name}"), format!("{recall:.4} ({n})")));
        }
        table(&rows)
    })
}

fn with_truth(
    args: &EvalArgs,
    queries: &mut NpyReader,
    path: &std::path::Path,
) -> Result<Vec<Case>, Failure> {
    let mut truth = NpyReader::open(path)?;
    if truth.rows() != queries.rows() || truth.dim() < args.k {
        return Err(Failure::invalid(format!(
            "{} has {} rows of {} neighbours; {} queries with k = {} need as many rows and at \
             least k neighbours",
            path.display(),
            truth.rows(),
            truth.dim(),
            queries.rows(),
            args.k
        )));
    }
    let mut cases = Vec::new();
    for row in 0..queries.rows() {
        let best = truth.numbers(row)?;
        let relevant = best.iter().take(args.k).map(|n| n.to_string().into_bytes()).collect();
        let vector = queries.row(row)?;
        cases.push(Case { vector, filter: None, relevant, of: args.k, group: None });
    }
    Ok(cases)
}

/// The questions that have answers, and how many have none.
fn with_questions(
    args: &EvalArgs,
    queries: &mut NpyReader,
    path: &std::path::Path,
) -> Result<(Vec<Case>, u64), Failure> {
    let mut lines = Lines::open(path)?;
    let (mut cases, mut skipped) = (Vec::new(), 0);
    while let Some((row, line)) = lines.next_row()? {
        if row >= queries.rows() {
            break;
        }
        let Line::Object(question) = line else {
            return Err(Failure::invalid(format!("{} is not JSON lines", path.display())));
        };
        let case = case(args, &question, queries.row(row)?).map_err(|what| lines.wrong(what))?;
        match case {
            Some(case) => cases.push(case),
            None => skipped += 1,
        }
    }
    if lines.rows() != queries.rows() {
        return Err(Failure::invalid(format!(
            "{} has {} rows, but there are {} questions in {}",
            queries.path().display(),
            queries.rows(),
            if lines.rows() > queries.rows() { "more".into() } else { lines.rows().to_string() },
            path.display()
        )));
    }
    Ok((cases, skipped))
}

fn case(
    args: &EvalArgs,
    question: &Map<String, Value>,
    vector: Vec<f32>,
) -> Result<Option<Case>, String> {
    let field = args.relevant.as_deref().unwrap_or_default();
    let answers = match question.get(field) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => {
            list.iter().map(|v| word(field, v)).collect::<Result<_, _>>()?
        }
        Some(one) => vec![word(field, one)?],
    };
    let mut relevant = Vec::new();
    for answer in answers {
        let key = key(&args.key, question, &answer)?.into_bytes();
        if !relevant.contains(&key) {
            relevant.push(key);
        }
    }
    if relevant.is_empty() {
        return Ok(None);
    }
    let filter = match &args.scope {
        None => None,
        Some(scope) => {
            let value = question.get(scope).ok_or_else(|| format!("there is no field {scope}"))?;
            let equal = json!({ scope: { "$eq": value } });
            Some(Filter::from_json(&equal).map_err(|e| e.to_string())?)
        }
    };
    let group = match &args.by {
        None => None,
        Some(by) => question.get(by).map(|v| word(by, v)).transpose()?,
    };
    Ok(Some(Case { vector, filter, of: relevant.len(), relevant, group }))
}

/// The key of an answer: fields the question has stand as they are, the others are the answer.
fn key(fields: &[String], question: &Map<String, Value>, answer: &str) -> Result<String, String> {
    if fields.is_empty() {
        return Ok(answer.to_owned());
    }
    let part = |field: &String| match question.get(field) {
        Some(value) => word(field, value),
        None => Ok(answer.to_owned()),
    };
    let parts: Result<Vec<String>, String> = fields.iter().map(part).collect();
    Ok(parts?.join(":"))
}

/// Searches every case; answers in the order of the cases.
fn search_all(
    collection: &Collection,
    cases: &[Case],
    asked: (usize, Exactness),
    threads: usize,
    context: &Context,
) -> Result<Vec<Answer>, Failure> {
    let bar = context.voice.bar(Some(cases.len() as u64), "searching");
    let work = |first: usize| {
        let mut answers = Vec::new();
        for (at, case) in cases.iter().enumerate().skip(first).step_by(threads) {
            answers.push((at, search(collection, case, asked)?));
            bar.inc(1);
        }
        Ok::<_, Failure>(answers)
    };
    let mut all = Vec::new();
    if threads == 1 {
        all = work(0)?;
    } else {
        let parts: Vec<_> = std::thread::scope(|scope| {
            let handles: Vec<_> =
                (0..threads).map(|first| scope.spawn(move || work(first))).collect();
            handles
                .into_iter()
                .map(|h| h.join().unwrap_or_else(|_| Err(Failure::bug("a search panicked"))))
                .collect()
        });
        for part in parts {
            all.extend(part?);
        }
    }
    bar.finish_and_clear();
    all.sort_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, answer)| answer).collect())
}

fn search(
    collection: &Collection,
    case: &Case,
    (k, exactness): (usize, Exactness),
) -> Result<Answer, Failure> {
    let query = Query::vector(case.vector.clone()).k(k).exactness(exactness);
    // What is measured shall not learn from being measured.
    let mut query = query.with_payload(false).count_access(CountAccess::None);
    if let Some(filter) = &case.filter {
        query = query.filter(filter.clone());
    }
    let started = Instant::now();
    let hits = collection.search(query)?;
    let time = started.elapsed();
    let found = case
        .relevant
        .iter()
        .filter(|key| hits.iter().any(|hit| hit.entry.key.as_bytes() == key.as_slice()))
        .count();
    let recall = found as f64 / case.of.max(1) as f64;
    Ok(Answer { recall, time, group: case.group.clone() })
}

/// The least time that this share of all times does not exceed.
fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut n) = (0.0, 0u64);
    for value in values {
        sum += value;
        n += 1;
    }
    if n == 0 { 0.0 } else { sum / n as f64 }
}

fn groups(answers: &[Answer]) -> BTreeMap<String, (f64, usize)> {
    let mut by: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for answer in answers {
        if let Some(group) = &answer.group {
            by.entry(group.clone()).or_default().push(answer.recall);
        }
    }
    by.into_iter().map(|(name, all)| (name, (mean(all.iter().copied()), all.len()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_micros).collect();
        assert_eq!(percentile(&times, 0.5), Duration::from_micros(50));
        assert_eq!(percentile(&times, 0.99), Duration::from_micros(99));
        assert_eq!(percentile(&times[..1], 0.99), Duration::from_micros(1));
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }

    #[test]
    fn keys_of_answers() {
        let question: Map<String, Value> =
            serde_json::from_str(r#"{"conv":"c1","evidence":["D1:2"]}"#).unwrap();
        let fields = ["conv".to_owned(), "dia_id".to_owned()];
        assert_eq!(key(&fields, &question, "D1:2").unwrap(), "c1:D1:2");
        assert_eq!(key(&[], &question, "D1:2").unwrap(), "D1:2");
    }
}
