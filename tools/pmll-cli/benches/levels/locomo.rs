//! LoCoMo: conversations of 2023 at their own times, a fifth of their bytes, and their questions.
//!
//! Recall is that of `pmll eval --questions`: of the turns that answer a question, how many are among
//! the ten nearest of its conversation, averaged over the questions that have any.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use pmll::inspect::scores;
use pmll::{
    Batch, Clock, CollectionSpec, CountAccess, Draft, Element, Filter, Options, Policy, Query,
    Store, SystemClock, Timestamp,
};
use pmll_cli::lines::{Line, Lines};
use pmll_cli::npy::NpyReader;
use serde_json::{Map, Value, json};

use super::{BATCH, Outcome};

const K: usize = 10;
/// What exact search finds, less half a point.
const RECALL_MIN: f64 = 0.4278;
/// Fewer distinct scores would not order 4,526 turns.
const DISTINCT_MIN: usize = 100;
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// The system's clock, and what was skipped.
#[derive(Debug, Default)]
struct Skipping {
    system: SystemClock,
    skipped_us: AtomicI64,
}

impl Skipping {
    fn skip(&self, time: Duration) -> Outcome<()> {
        self.skipped_us.fetch_add(i64::try_from(time.as_micros())?, Ordering::AcqRel);
        Ok(())
    }
}

impl Clock for Skipping {
    fn now(&self) -> Timestamp {
        Timestamp(self.system.now().0 + self.skipped_us.load(Ordering::Acquire))
    }

    fn elapsed(&self) -> Duration {
        self.system.elapsed()
    }
}

/// A turn of a conversation.
struct Turn {
    key: String,
    conv: String,
    at: Timestamp,
    text: String,
    vector: Vec<f32>,
}

/// A question, and the keys of its answers.
struct Question {
    conv: String,
    answers: Vec<String>,
    vector: Vec<f32>,
}

/// Prints a row a policy.
pub fn run(data: &Path) -> Outcome<()> {
    let (turns, questions) = (turns(data)?, questions(data)?);
    let f32_bytes = turns.iter().map(|turn| turn.vector.len() as u64 * 4).sum::<u64>();
    let budget_bytes = f32_bytes / 5;
    println!(
        "locomo: {} turns, {f32_bytes} bytes of f32, a budget of {budget_bytes}; evidence recall@{K} of {} \
         questions within their conversation",
        turns.len(),
        questions.len()
    );
    println!(
        "| policy | outcome | counted | L0 | L1 int8 | L1 int4 | L2 | recall@{K} | distinct scores | \
         after a search | planned moves, a month later as before |\n|---|---|---|---|---|---|---|---|---|---|---|"
    );
    let mut least_distinct = usize::MAX;
    for policy in [Policy::Watermark, Policy::Paper, Policy::PaperLiteral] {
        let dir = tempfile::tempdir()?;
        let clock = Arc::new(Skipping::default());
        let store = open(&dir.path().join("store"), budget_bytes, &clock)?;
        fill(&store, &turns)?;
        let report = store.compress_with(policy)?;
        // A run that is asked for may still fit a few entries where a large one was. What counts is
        // that a month in which nothing happens changes neither a score nor a plan.
        let planned = store.plan_with(policy)?.moves;
        let scored = totals(&store)?;
        clock.skip(MONTH)?;
        let later = store.plan_with(policy)?;
        assert!(scored == totals(&store)?, "an idle month changed scores");
        let stats = store.stats()?;
        let before = distinct(&store)?;
        let collection = store.collection("turns")?;
        let first = questions.first().ok_or("there is no question")?;
        collection.search(Query::vector(first.vector.as_slice()).k(K))?;
        let after = distinct(&store)?;
        let recall = recall(&store, &questions)?;
        let [hot, warm, cold] = &stats.tiers;
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {recall:.4} | {before} | {after} | {} |",
            policy.name(),
            report.outcome.name(),
            stats.counted_bytes,
            hot.entries,
            warm.int8.entries,
            warm.int4.entries,
            cold.entries,
            later.moves
        );
        least_distinct = least_distinct.min(before).min(after);
        assert_eq!(later.moves, planned, "an idle month changed a plan");
        if policy == Policy::Watermark {
            assert!(recall >= RECALL_MIN, "recall {recall}");
            assert!(report.counted_bytes_after <= report.target_bytes, "{report:?}");
        }
    }
    assert!(least_distinct >= DISTINCT_MIN, "{least_distinct} distinct scores order nothing");
    Ok(())
}

fn open(dir: &Path, budget_bytes: u64, clock: &Arc<Skipping>) -> Outcome<Store> {
    let options =
        Options { budget_bytes: Some(budget_bytes), background: false, ..Options::default() };
    let clock: Arc<dyn Clock> = Arc::clone(clock) as Arc<dyn Clock>;
    Ok(Store::builder(dir).options(options).clock(clock).open()?)
}

fn fill(store: &Store, turns: &[Turn]) -> Outcome<()> {
    let spec = CollectionSpec::new().element(Element::F32);
    let collection = store.collection_with("turns", spec)?;
    for turns in turns.chunks(BATCH) {
        let mut batch = Batch::new();
        for turn in turns {
            let draft = Draft::text(turn.text.as_str())
                .vector(turn.vector.as_slice())
                .attr("conv", turn.conv.as_str())
                .at(turn.at);
            batch = batch.put(&collection, &turn.key, draft);
        }
        store.write(batch)?;
    }
    Ok(())
}

/// The score of every entry, in order of id.
fn totals(store: &Store) -> Outcome<Vec<u32>> {
    Ok(scores(store)?.iter().map(|s| s.score.total.to_bits()).collect())
}

fn distinct(store: &Store) -> Outcome<usize> {
    let mut all = totals(store)?;
    all.sort_unstable();
    all.dedup();
    Ok(all.len())
}

fn recall(store: &Store, questions: &[Question]) -> Outcome<f64> {
    let collection = store.collection("turns")?;
    let mut sum = 0.0;
    for question in questions {
        let conv = json!({"conv": {"$eq": question.conv}});
        let query = Query::vector(question.vector.as_slice())
            .k(K)
            .filter(Filter::from_json(&conv)?)
            .with_payload(false)
            .count_access(CountAccess::None);
        let hits = collection.search(query)?;
        let is_hit =
            |key: &&String| hits.iter().any(|hit| hit.entry.key.as_bytes() == key.as_bytes());
        let found = question.answers.iter().filter(is_hit).count();
        sum += found as f64 / question.answers.len() as f64;
    }
    Ok(sum / questions.len() as f64)
}

/// An object of a file of lines, and the row of vectors that belongs to it.
type Row = (Map<String, Value>, Vec<f32>);

fn rows(lines: &Path, vectors: &Path) -> Outcome<Vec<Row>> {
    let (mut lines, mut vectors) = (Lines::open(lines)?, NpyReader::open(vectors)?);
    let mut rows = Vec::new();
    while let Some((row, line)) = lines.next_row()? {
        let Line::Object(object) = line else { return Err("a line is no object".into()) };
        rows.push((object, vectors.row(row)?));
    }
    Ok(rows)
}

fn word<'a>(object: &'a Map<String, Value>, field: &str) -> Outcome<&'a str> {
    object.get(field).and_then(Value::as_str).ok_or_else(|| format!("no text in {field}").into())
}

fn turns(data: &Path) -> Outcome<Vec<Turn>> {
    let rows = rows(&data.join("locomo_turns.jsonl"), &data.join("locomo_turns.f32.npy"))?;
    let turn = |(object, vector): Row| -> Outcome<Turn> {
        let (conv, when) = (word(&object, "conv")?, word(&object, "date_time")?);
        let at = DateTime::strptime("%I:%M %p on %d %B, %Y", when)?;
        let micros = at.to_zoned(TimeZone::UTC)?.timestamp().as_microsecond();
        Ok(Turn {
            key: format!("{conv}:{}", word(&object, "dia_id")?),
            conv: conv.to_owned(),
            at: Timestamp(micros),
            text: format!("{}: {}", word(&object, "speaker")?, word(&object, "text")?),
            vector,
        })
    };
    rows.into_iter().map(turn).collect()
}

fn questions(data: &Path) -> Outcome<Vec<Question>> {
    let vectors = data.join("locomo_questions.f16.npy");
    let mut questions = Vec::new();
    for (object, vector) in rows(&data.join("locomo_questions.jsonl"), &vectors)? {
        let conv = word(&object, "conv")?.to_owned();
        let evidence = object.get("evidence").and_then(Value::as_array);
        let evidence = evidence.into_iter().flatten().filter_map(Value::as_str);
        let answers: Vec<String> = evidence.map(|id| format!("{conv}:{id}")).collect();
        if !answers.is_empty() {
            questions.push(Question { conv, answers, vector });
        }
    }
    Ok(questions)
}
