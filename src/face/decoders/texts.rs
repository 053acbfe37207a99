//! The readers of texts (`store.toml`, settings, filters, times), and the promise, whose input is a list of
//! what two sides do to it.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::bytes::promise::{Counters, Promise, PromiseStats, Ticket, pair};
use crate::pure::filter::{FieldValue, Fields, Filter, Reserved};
use crate::verbs::layout;
use crate::words::error::{Error, ErrorKind};
use crate::words::id::Timestamp;
use crate::words::rule::{Rule, check};
use crate::words::tier::Tier;

use super::{Answer, disk, holds};

/// `store.toml`.
pub fn store_file(bytes: &[u8]) -> Answer {
    let disk = disk(&[], &[(layout::STORE_FILE, bytes)]).map_err(|e| e.to_string())?;
    match layout::identity(&disk) {
        Ok(_) => Ok(true),
        Err(error) => {
            let typed = [ErrorKind::Corrupt, ErrorKind::Version].contains(&error.kind());
            holds(typed, "an error of another kind").map(|_| false)
        }
    }
}

/// A setting: its name, a line feed, JSON.
pub fn rule(bytes: &[u8]) -> Answer {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(false) };
    let (name, value) = text.split_once('\n').unwrap_or((text, "null"));
    let Ok(value) = serde_json::from_str::<Value>(value) else { return Ok(false) };
    let taken = check(name, &value).is_ok();
    // What is stored all the same must do no harm.
    let rule = Rule::of(|asked| (asked == name).then_some(&value), "notes");
    let weights = [rule.weights.recency, rule.weights.frequency, rule.weights.semantic];
    let share = rule.protected_share > 0.0 && rule.protected_share <= 1.0;
    holds(weights.iter().all(|w| (0.0..=1.001).contains(w)), "weights outside 0 to 1")?;
    holds(rule.half_life_us >= 1_000_000 && share, "a rule outside its limits")?;
    Ok(taken)
}

struct Sample {
    attributes: Map<String, Value>,
    expires: Option<Timestamp>,
}

impl Fields for Sample {
    fn attributes(&self) -> Option<&Map<String, Value>> {
        Some(&self.attributes)
    }

    fn reserved(&self, field: Reserved) -> Option<FieldValue<'_>> {
        let time = Timestamp(1_700_000_000_000_000);
        Some(match field {
            Reserved::Key => FieldValue::Bytes(b"n\xff3"),
            Reserved::Namespace => FieldValue::Bytes(b"user/7"),
            Reserved::At | Reserved::Created | Reserved::Updated | Reserved::LastAccess => {
                FieldValue::Time(time)
            }
            Reserved::Tier => FieldValue::Tier(Tier::Cold),
            Reserved::Pinned => FieldValue::Flag(true),
            Reserved::Session => FieldValue::Bytes(b"s1"),
            Reserved::Expires => return self.expires.map(FieldValue::Time),
        })
    }
}

static SAMPLES: LazyLock<Vec<Sample>> = LazyLock::new(|| {
    let values = [
        json!({}),
        json!({"turn": 3, "half": 1.5, "tags": ["t1", "t2", 7], "conv": "c26", "a": {"b": {"c": null}}}),
        json!({"turn": -9_007_199_254_740_993_i64, "half": u64::MAX, "tags": {}, "a.b": true, "a": [[]]}),
    ];
    let attributes = values.into_iter().filter_map(|value| match value {
        Value::Object(attributes) => Some(attributes),
        _ => None,
    });
    attributes
        .zip([None, Some(Timestamp(i64::MIN)), Some(Timestamp(i64::MAX))])
        .map(|(attributes, expires)| Sample { attributes, expires })
        .collect()
});

/// A filter: after an even byte the JSON form, after an odd one clauses of the short form, a line each. It
/// is asked about three entries, printed, read again, and must answer the same.
pub fn filter(bytes: &[u8]) -> Answer {
    let Some((form, bytes)) = bytes.split_first() else { return Ok(false) };
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(false) };
    let filter = match form % 2 {
        0 => Filter::parse(text),
        _ => Filter::from_where(&text.lines().collect::<Vec<&str>>()),
    };
    let Ok(filter) = filter else { return Ok(false) };
    let shown = filter.to_string();
    let again = Filter::parse(&shown).map_err(|e| format!("printed as {shown}: {e}"))?;
    holds(again == filter && again.needs() == filter.needs(), "another filter when read again")?;
    let both = filter.clone().and(again.clone());
    for sample in SAMPLES.iter() {
        let answer = filter.matches(sample);
        holds(again.matches(sample) == answer, "another answer when read again")?;
        holds(both.matches(sample) == answer, "another answer together with itself")?;
    }
    Ok(true)
}

/// A time in a filter.
pub fn time(bytes: &[u8]) -> Answer {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(false) };
    let Ok(from) = Filter::from_json(&json!({"_at": {"$gte": text}})) else { return Ok(false) };
    let Ok(before) = Filter::from_json(&json!({"_at": {"$lt": text}})) else {
        return Err("a time that one operator takes and another does not".to_owned());
    };
    let one = |sample| from.matches(sample) != before.matches(sample);
    holds(SAMPLES.iter().all(one), "a moment on both sides of a time, or on none")
}

/// What a promise should be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Pending,
    Claimed,
    Done(Option<ErrorKind>),
}

struct Pair {
    promise: Promise,
    ticket: Option<Ticket>,
    stage: Stage,
}

impl Pair {
    fn act(&mut self, action: u8) -> Answer {
        let open = !matches!(self.stage, Stage::Done(_));
        let ends =
            [None, Some(ErrorKind::Io), Some(ErrorKind::Expired), Some(ErrorKind::Cancelled)];
        match (action % 8, &self.ticket) {
            (0, Some(ticket)) => {
                let pending = self.stage == Stage::Pending;
                holds(ticket.claim() == pending, "claimed what was not pending, or not what was")?;
                if pending {
                    self.stage = Stage::Claimed;
                }
            }
            (1, _) => {
                let pending = self.stage == Stage::Pending;
                holds(self.promise.cancel() == pending, "cancelled at the wrong time")?;
                if pending {
                    self.stage = Stage::Done(Some(ErrorKind::Cancelled));
                }
            }
            (which @ 2..=5, Some(ticket)) => {
                let end = ends.get(usize::from(which - 2)).copied().flatten();
                ticket.resolve(end.map_or(Ok(Vec::new()), |kind| Err(Error::new(kind, "ended"))));
                if open {
                    self.stage = Stage::Done(end);
                }
            }
            (6, Some(_)) => {
                self.ticket = None;
                if open {
                    self.stage = Stage::Done(Some(ErrorKind::Closed));
                }
            }
            _ => {}
        }
        self.looks_right()
    }

    fn looks_right(&self) -> Answer {
        let seen = self.promise.wait_timeout(Duration::ZERO);
        let mut waiting = self.promise.clone();
        let polled = pin!(&mut waiting).poll(&mut Context::from_waker(Waker::noop()));
        let kind = |end: Result<_, Error>| end.err().map(|e| e.kind());
        let polled = match polled {
            Poll::Ready(end) => Some(kind(end)),
            Poll::Pending => None,
        };
        let expected = match self.stage {
            Stage::Done(end) => Some(end),
            _ => None,
        };
        let done = self.promise.is_done() == expected.is_some();
        holds(done && seen.map(kind) == expected && polled == expected, "another end than its own")
    }
}

/// Acts on two promises, a byte each: bit 7 says which.
pub fn promise(bytes: &[u8]) -> Answer {
    let counters = Arc::new(Counters::default());
    let mut pairs: Vec<Pair> = (0..2)
        .map(|_| {
            let (promise, ticket) = pair(&counters);
            Pair { promise, ticket: Some(ticket), stage: Stage::Pending }
        })
        .collect();
    for action in bytes.iter().take(64) {
        if let Some(pair) = pairs.get_mut(usize::from(action >> 7)) {
            pair.act(*action)?;
        }
        let mut expected = PromiseStats::default();
        for pair in &pairs {
            match pair.stage {
                Stage::Pending | Stage::Claimed => expected.pending += 1,
                Stage::Done(None) => expected.committed += 1,
                Stage::Done(Some(ErrorKind::Cancelled)) => expected.cancelled += 1,
                Stage::Done(Some(ErrorKind::Expired)) => expected.expired += 1,
                Stage::Done(Some(_)) => expected.failed += 1,
            }
        }
        holds(counters.stats() == expected, "counted otherwise")?;
    }
    Ok(true)
}
