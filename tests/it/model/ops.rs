//! What may be done to a store, as data: generated, shrunk and printed by proptest.
//!
//! Small worlds on purpose: three collections, four namespaces, forty keys, so that calls meet on
//! the same entries. Vector values are halves of small integers: sums of their products are exact
//! in f32 in any order, so that equal scores are equal to the bit and ties are frequent.

use std::time::Duration;

use pmll::{CollectionSpec, Draft, Element, Lsn, Metric, Namespace, Patch, Timestamp};
use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::support::START;

/// Names of the collections; each has its own metric, dimension and element type.
pub(super) const COLLECTIONS: [&str; 3] = ["cosine", "dot", "l2"];
/// `ab` is not below `a`, and orders between `a` and `a/b`'s children only if somebody sorts wrong.
pub(super) const NAMESPACES: [&str; 4] = ["", "a", "a/b", "ab"];
/// Keys by number: short, binary, with a common prefix, with a NUL, and a long one.
pub(super) const KEYS: usize = 40;

const DIMS: [u32; 3] = [3, 5, 17];

/// What a collection is made with.
pub(super) fn spec(collection: usize) -> CollectionSpec {
    let spec = CollectionSpec::new().dim(DIMS[collection]);
    match collection {
        0 => spec,
        1 => spec.metric(Metric::Dot).element(Element::F16),
        _ => spec.metric(Metric::L2),
    }
}

/// The bytes of key number `n`.
pub(super) fn key(n: usize) -> Vec<u8> {
    match n {
        0 => vec![0],
        1 => vec![0, 0],
        2 => vec![0xff; 3],
        3 => vec![b'k'; 1024],
        4 => "schl\u{fc}ssel/\u{e9}".into(),
        n if n < 20 => format!("key-{n}").into(),
        n => format!("key-{n}\0{n}").into(),
    }
}

/// One entry's address.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) collection: usize,
    pub(super) namespace: usize,
    pub(super) key: usize,
}

impl At {
    pub(super) fn namespace(self) -> Namespace {
        Namespace::new(NAMESPACES[self.namespace]).unwrap()
    }
}

/// Which version a `put_if` asks for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Guess {
    Absent,
    Right,
    Wrong,
    /// One of the above, looked up when the write began.
    Version(Option<Lsn>),
}

/// One step of a write. Vectors are cut to the dimension when it runs.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Put(At, Draft),
    Insert(At, Draft),
    PutIf(At, Guess, Draft),
    Update(At, Patch),
    Delete(At),
    Add(At, Draft),
    /// A put of the wrong dimension: the whole write must fail.
    Bad(At),
}

impl Step {
    pub(super) fn at(&self) -> At {
        match self {
            Step::Put(at, _)
            | Step::Insert(at, _)
            | Step::PutIf(at, ..)
            | Step::Update(at, _)
            | Step::Delete(at)
            | Step::Add(at, _)
            | Step::Bad(at) => *at,
        }
    }

    /// The same step with vectors of the right length.
    pub(super) fn fitted(mut self) -> Step {
        let collection = self.at().collection;
        let fit = |vector: &mut Vec<f32>| {
            vector.truncate(DIMS[collection] as usize);
            vector.iter_mut().for_each(|value| *value /= 2.0);
        };
        match &mut self {
            Step::Put(_, draft)
            | Step::Insert(_, draft)
            | Step::PutIf(_, _, draft)
            | Step::Add(_, draft) => draft.vector.iter_mut().for_each(fit),
            Step::Update(_, patch) => patch.vector.iter_mut().flatten().for_each(fit),
            Step::Delete(_) | Step::Bad(_) => {}
        }
        self
    }
}

/// A filter with its own meaning beside it, see `passes`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question {
    NumberIs(i64),
    NumberAtLeast(i64),
    TagIn,
    NoTag,
    Pinned,
    InSession,
    KeyPrefix,
    Updated,
    Either(i64),
}

impl Question {
    /// The filter, in JSON.
    pub(super) fn json(self, now: Timestamp) -> Value {
        match self {
            Question::NumberIs(n) => json!({ "n": n }),
            Question::NumberAtLeast(n) => json!({ "n": { "$gte": n } }),
            Question::TagIn => json!({ "tag": { "$in": ["red", "green"] } }),
            Question::NoTag => json!({ "tag": { "$exists": false } }),
            Question::Pinned => json!({ "_pinned": true }),
            Question::InSession => json!({ "_session": "s1" }),
            Question::KeyPrefix => json!({ "_key": { "$prefix": "key-1" } }),
            Question::Updated => json!({ "_updated": { "$lt": now.0 } }),
            Question::Either(n) => json!({ "$or": [{ "n": n }, { "$not": { "tag": "red" } }] }),
        }
    }
}

/// One call.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Write(Step),
    Batch(Vec<Step>),
    /// Deletes the n-th entry there is.
    DeleteNth(usize),
    Touch(At),
    Pin(At, bool),
    Get(At),
    GetMany(usize, usize, Vec<usize>),
    Scan {
        at: At,
        question: Option<Question>,
        prefix: bool,
        from: bool,
        until: bool,
        reverse: bool,
        limit: usize,
    },
    Count(At, Option<Question>),
    Search {
        at: At,
        question: Option<Question>,
        k: usize,
        min_score: Option<i8>,
        vector: Vec<i8>,
    },
    Advance(Duration),
    /// Somebody sets the wall clock back.
    Back(Duration),
    Set(u8, Option<u32>),
    Drop(usize),
    Checkpoint,
    /// A run of the compressor by one of its policies.
    Compress(u8),
    Recompress,
    Vacuum,
    Reopen,
    /// The process dies.
    Kill,
    /// The power fails; which image is left is chosen by the number.
    PowerLoss(u64),
}

fn at() -> impl Strategy<Value = At> {
    let place = (0..COLLECTIONS.len(), 0..NAMESPACES.len(), 0..KEYS);
    place.prop_map(|(collection, namespace, key)| At { collection, namespace, key })
}

/// Halves of small integers, as many as the largest dimension takes.
fn halves() -> impl Strategy<Value = Vec<i8>> {
    vec(-3_i8..=3, 17)
}

pub(super) fn vector(halves: &[i8], collection: usize) -> Vec<f32> {
    let dim = DIMS[collection] as usize;
    halves.iter().take(dim).map(|half| f32::from(*half) / 2.0).collect()
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => Just(Vec::new()),
        16 => "[a-z ]{1,60}".prop_map(String::into_bytes),
        2 => (any::<u8>(), 1_000..6_000_usize).prop_map(|(byte, len)| vec![byte; len]),
        // Beyond what may stay in RAM.
        1 => (any::<u8>(), 65_500..80_000_usize).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn attributes() -> impl Strategy<Value = Map<String, Value>> {
    let tag = prop::sample::select(vec!["red", "green", "blue"]);
    (of(0..6_i64), of(tag), any::<bool>()).prop_map(|(n, tag, deep)| {
        let mut map = Map::new();
        if let Some(n) = n {
            map.insert("n".into(), n.into());
        }
        if let Some(tag) = tag {
            map.insert("tag".into(), tag.into());
        }
        if deep {
            map.insert("deep".into(), json!({ "list": [1, null, 2.5], "text": "\u{fc}" }));
        }
        map
    })
}

fn session() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["s1".to_owned(), "s2".to_owned()])
}

fn draft() -> impl Strategy<Value = Draft> {
    let content = (payload(), weighted(0.8, halves()), attributes());
    let time = (weighted(0.2, any::<i32>()), weighted(0.15, 1..150_000_u64));
    let rest = (of(session()), of(any::<u64>()), of(0..=10_u8), weighted(0.2, any::<bool>()));
    (content, time, rest).prop_map(|((payload, vector, attributes), (at, ttl), rest)| {
        let mut draft = Draft::bytes(payload).attributes(attributes);
        draft.vector = vector.map(|halves| halves.into_iter().map(f32::from).collect());
        draft.at = at.map(|at| Timestamp(START.0 + i64::from(at)));
        draft.ttl = ttl.map(Duration::from_secs);
        (draft.session, draft.sequence, draft.pinned) = (rest.0, rest.1, rest.3);
        draft.salience = rest.2.map(|tenths| f32::from(tenths) / 10.0);
        draft
    })
}

fn patch() -> impl Strategy<Value = Patch> {
    let expires = weighted(0.2, of((-10_i64..200_000).prop_map(|s| START.0 + s * 1_000_000)));
    let content = (weighted(0.3, payload()), weighted(0.3, of(halves())), attributes());
    let rest = (any::<bool>(), weighted(0.2, of(session())), of(any::<bool>()));
    (content, expires, rest).prop_map(|((payload, vector, attributes), expires, rest)| {
        let mut patch = Patch::default();
        patch.payload = payload;
        patch.vector = vector.map(|v| v.map(|halves| halves.into_iter().map(f32::from).collect()));
        patch.attributes = attributes;
        if rest.0 {
            patch.attributes.insert("tag".into(), Value::Null);
        }
        patch.expires = expires.map(|at| at.map(Timestamp));
        (patch.session, patch.pinned) = (rest.1, rest.2);
        patch
    })
}

fn step() -> impl Strategy<Value = Step> {
    let guess = prop::sample::select(vec![Guess::Absent, Guess::Right, Guess::Wrong]);
    prop_oneof![
        10 => (at(), draft()).prop_map(|(at, draft)| Step::Put(at, draft)),
        3 => (at(), draft()).prop_map(|(at, draft)| Step::Insert(at, draft)),
        3 => (at(), guess, draft()).prop_map(|(at, guess, draft)| Step::PutIf(at, guess, draft)),
        4 => (at(), patch()).prop_map(|(at, patch)| Step::Update(at, patch)),
        4 => at().prop_map(Step::Delete),
        1 => (at(), draft()).prop_map(|(at, draft)| Step::Add(at, draft)),
    ]
}

fn question() -> impl Strategy<Value = Question> {
    prop_oneof![
        (0..6_i64).prop_map(Question::NumberIs),
        (0..6_i64).prop_map(Question::NumberAtLeast),
        Just(Question::TagIn),
        Just(Question::NoTag),
        Just(Question::Pinned),
        Just(Question::InSession),
        Just(Question::KeyPrefix),
        Just(Question::Updated),
        (0..6_i64).prop_map(Question::Either),
    ]
}

/// Any call, writes most often.
pub(super) fn op() -> impl Strategy<Value = Op> {
    let bad = (vec(step(), 0..3), at()).prop_map(|(mut steps, at)| {
        steps.push(Step::Bad(at));
        Op::Batch(steps)
    });
    let scan = (at(), of(question()), any::<[bool; 4]>(), 1..40_usize);
    let search = (at(), of(question()), 1..30_usize, of(-8_i8..8), halves());
    let writes = prop_oneof![
        380 => step().prop_map(Op::Write),
        80 => vec(step(), 1..8).prop_map(Op::Batch),
        10 => bad,
        20 => any::<usize>().prop_map(Op::DeleteNth),
        20 => (at(), any::<bool>()).prop_map(|(at, pinned)| Op::Pin(at, pinned)),
        10 => (0..3_u8, of(any::<u32>())).prop_map(|(name, value)| Op::Set(name, value)),
    ];
    let reads = prop_oneof![
        10 => at().prop_map(Op::Touch),
        60 => at().prop_map(Op::Get),
        20 => (0..3_usize, 0..4_usize, vec(0..KEYS, 0..6))
            .prop_map(|(collection, namespace, keys)| Op::GetMany(collection, namespace, keys)),
        40 => scan.prop_map(|(at, question, [prefix, from, until, reverse], limit)| Op::Scan {
            at, question, prefix, from, until, reverse, limit,
        }),
        30 => (at(), of(question())).prop_map(|(at, question)| Op::Count(at, question)),
        80 => search.prop_map(|(at, question, k, min_score, vector)| Op::Search {
            at, question, k, min_score, vector,
        }),
    ];
    let seconds = prop_oneof![8 => 0..5_u64, 2 => 3_000..4_000_u64, 1 => Just(25 * 3600)];
    let upkeep = prop_oneof![
        30 => seconds.prop_map(|s| Op::Advance(Duration::from_secs(s))),
        3 => (1..10_000_u64).prop_map(|s| Op::Back(Duration::from_secs(s))),
        2 => (0..3_usize).prop_map(Op::Drop),
        12 => Just(Op::Checkpoint),
        10 => (0_u8..2).prop_map(Op::Compress),
        3 => Just(Op::Recompress),
        6 => Just(Op::Vacuum),
        6 => Just(Op::Reopen),
        4 => Just(Op::Kill),
        6 => any::<u64>().prop_map(Op::PowerLoss),
    ];
    prop_oneof![520 => writes, 240 => reads, 60 => upkeep]
}
