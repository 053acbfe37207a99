//! The session as a list of steps, made from a seed, and what must be remembered after each.
//!
//! [`Plan::new`] is a pure function: the process that is killed and the process that checks it make
//! the same plan from the same seed, so that nothing but the seed and the number of a step passes
//! between them. [`Model`] is the truth the store is held against: a plain map, changed by
//! [`apply`] the way each step says.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::data::Data;

/// Passages of one session.
const SESSION_PASSAGES: usize = 100;
/// Most passages remembered in one batch.
const BATCH_PASSAGES: u64 = 8;
/// Every so many notes one is large: above 64 KiB payloads take another way through the files.
const LARGE_NOTE_EVERY: usize = 12;
/// Event time of the first passage: 2026-01-05T08:00:00Z.
const START_MICROS: i64 = 1_767_600_000_000_000;
/// Event time between two passages.
const TURN_MICROS: i64 = 90_000_000;

/// One step of the session. All but the last three change what is remembered.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Puts passages, in one batch.
    Remember(Vec<usize>),
    /// Puts a note of this number, made of the passages of a range; an earlier one is replaced.
    Note(usize, std::ops::Range<usize>),
    /// Counts up how often a passage was read, by an update that sends no vector.
    Reread(usize),
    /// Pins a passage.
    Pin(usize),
    /// Deletes entries, in one batch.
    Forget(Vec<String>),
    /// Searches for one of the queries.
    Search(usize),
    /// Folds the log into the archive.
    Archive,
    /// Runs the compressor.
    Compress,
}

impl Step {
    /// Whether the step changes what is remembered.
    pub fn writes(&self) -> bool {
        !matches!(self, Step::Search(_) | Step::Archive | Step::Compress)
    }
}

/// What must be found under one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// Exact payload.
    pub payload: Vec<u8>,
    /// Row of its vector, if it has one.
    pub row: Option<usize>,
    /// Its attributes.
    pub attributes: Map<String, Value>,
    /// Its session.
    pub session: String,
    /// Its place in the session.
    pub sequence: u64,
    /// Its event time.
    pub at: i64,
    /// Whether it is pinned.
    pub pinned: bool,
}

/// Everything that must be found, by key.
pub type Model = BTreeMap<String, Memory>;

/// Key of a passage.
pub fn key(row: usize) -> String {
    format!("passage-{row:05}")
}

/// Row of a passage's key.
pub fn row(key: &[u8]) -> Option<usize> {
    std::str::from_utf8(key).ok()?.strip_prefix("passage-")?.parse().ok()
}

/// Key of a note.
pub fn note_key(number: usize) -> String {
    format!("note-{number:04}")
}

/// A passage as it is first remembered.
pub fn passage(data: &Data, row: usize) -> Memory {
    let text = data.passages.get(row).map_or("", String::as_str);
    let attributes = json!({
        "kind": "passage",
        "words": text.split_whitespace().count(),
        "opens": text.split_whitespace().next(),
        "read": { "times": 0 },
    });
    memory(text.as_bytes().to_vec(), Some(row), attributes, row)
}

/// A note over a range of passages.
pub fn note(data: &Data, range: &std::ops::Range<usize>) -> Memory {
    let text = data.passages.get(range.clone()).unwrap_or_default().join("\n");
    let attributes = json!({ "kind": "note", "from": range.start, "until": range.end });
    memory(text.into_bytes(), None, attributes, range.start)
}

fn memory(payload: Vec<u8>, row: Option<usize>, attributes: Value, turn: usize) -> Memory {
    let attributes = match attributes {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    Memory {
        payload,
        row,
        attributes,
        session: format!("session-{:03}", turn / SESSION_PASSAGES),
        sequence: (turn % SESSION_PASSAGES) as u64,
        at: START_MICROS + turn as i64 * TURN_MICROS,
        pinned: false,
    }
}

/// The attribute that counts readings, one higher than in `memory`.
pub fn read_again(memory: &Memory) -> Value {
    let times = memory.attributes.get("read").and_then(|read| read["times"].as_u64()).unwrap_or(0);
    json!({ "times": times + 1 })
}

/// What is remembered after `step`.
pub fn apply(model: &mut Model, step: &Step, data: &Data) {
    match step {
        Step::Remember(rows) => {
            for &row in rows {
                model.insert(key(row), passage(data, row));
            }
        }
        Step::Note(number, range) => {
            model.insert(note_key(*number), note(data, range));
        }
        Step::Reread(row) => {
            if let Some(memory) = model.get_mut(&key(*row)) {
                let read = read_again(memory);
                memory.attributes.insert("read".into(), read);
            }
        }
        Step::Pin(row) => {
            if let Some(memory) = model.get_mut(&key(*row)) {
                memory.pinned = true;
            }
        }
        Step::Forget(keys) => {
            for key in keys {
                model.remove(key);
            }
        }
        Step::Search(_) | Step::Archive | Step::Compress => {}
    }
}

/// The steps of one session.
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
}

impl Plan {
    /// A session over all passages. It forgets some on the way and learns them again at the end,
    /// so that the last state holds every passage and can be measured against the table of truth.
    pub fn new(seed: u64, data: &Data) -> Plan {
        let mut chance = Chance(seed);
        let passages = data.passages.len();
        let (mut steps, mut next, mut notes) = (Vec::new(), 0, 0);
        // Passages that are there now, in no particular order, and those forgotten.
        let (mut there, mut gone): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
        let mut live_notes: Vec<usize> = Vec::new();
        while next < passages {
            let step = match chance.below(100) {
                0..66 => {
                    let end = passages.min(next + 1 + chance.below(BATCH_PASSAGES) as usize);
                    there.extend(next..end);
                    let rows = (next..end).collect();
                    next = end;
                    Step::Remember(rows)
                }
                66..74 if next > 0 => {
                    let rewrite = chance.below(4) == 0;
                    let number = match chance.pick(&live_notes) {
                        Some(at) if rewrite => live_notes[at],
                        _ => {
                            notes += 1;
                            live_notes.push(notes);
                            notes
                        }
                    };
                    let most = if number % LARGE_NOTE_EVERY == 0 { 800 } else { 6 };
                    Step::Note(number, next.saturating_sub(most)..next)
                }
                74..84 => match chance.pick(&there) {
                    Some(at) => Step::Reread(there[at]),
                    None => continue,
                },
                84..86 => match chance.pick(&there) {
                    Some(at) => Step::Pin(there[at]),
                    None => continue,
                },
                86..91 => {
                    let mut keys = Vec::new();
                    for _ in 0..=chance.below(3) {
                        if let Some(at) = chance.pick(&there) {
                            let row = there.swap_remove(at);
                            gone.push(row);
                            keys.push(key(row));
                        }
                    }
                    if let (0, Some(at)) = (chance.below(2), chance.pick(&live_notes)) {
                        keys.push(note_key(live_notes.swap_remove(at)));
                    }
                    match keys.is_empty() {
                        true => continue,
                        false => Step::Forget(keys),
                    }
                }
                91..97 => Step::Search(chance.below(data.queries.len() as u64) as usize),
                97..99 => Step::Compress,
                _ => Step::Archive,
            };
            steps.push(step);
        }
        steps
            .extend(gone.chunks(BATCH_PASSAGES as usize).map(|rows| Step::Remember(rows.to_vec())));
        Plan { steps }
    }

    /// What is remembered when the first `count` steps are done.
    pub fn model(&self, count: usize, data: &Data) -> Model {
        let mut model = Model::new();
        self.steps.iter().take(count).for_each(|step| apply(&mut model, step, data));
        model
    }
}

/// A small generator (SplitMix64): the same numbers from the same seed on every machine.
pub struct Chance(pub u64);

impl Chance {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; the bias of the remainder is below one in 2^50 for small bounds.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A place in a list, or `None` when it is empty.
    fn pick<T>(&mut self, list: &[T]) -> Option<usize> {
        (!list.is_empty()).then(|| self.below(list.len() as u64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Data {
        Data {
            folder: "nowhere".into(),
            passages: (0..900).map(|n| format!("passage number {n}")).collect(),
            vectors: (0..900).map(|n| vec![n as f32, 1.0]).collect(),
            queries: vec![vec![1.0, 0.0]; 3],
            truth: Vec::new(),
        }
    }

    #[test]
    fn a_seed_gives_the_same_session_and_another_seed_another() {
        let data = data();
        assert_eq!(Plan::new(7, &data).steps, Plan::new(7, &data).steps);
        assert_ne!(Plan::new(7, &data).steps, Plan::new(8, &data).steps);
    }

    #[test]
    fn a_session_does_everything_and_ends_with_every_passage() {
        let data = data();
        for seed in 0..20 {
            let plan = Plan::new(seed, &data);
            let has = |f: fn(&Step) -> bool| plan.steps.iter().any(f);
            assert!(has(|s| matches!(s, Step::Forget(_))), "seed {seed}");
            assert!(has(|s| matches!(s, Step::Reread(_))), "seed {seed}");
            assert!(has(|s| matches!(s, Step::Note(..))), "seed {seed}");
            assert!(has(|s| matches!(s, Step::Search(_))), "seed {seed}");
            assert!(has(|s| *s == Step::Compress), "seed {seed}");
            let model = plan.model(plan.steps.len(), &data);
            for row in 0..data.passages.len() {
                assert_eq!(model[&key(row)].payload, data.passages[row].as_bytes());
            }
        }
    }

    #[test]
    fn a_step_names_only_what_is_there() {
        let data = data();
        let plan = Plan::new(3, &data);
        let mut model = Model::new();
        for step in &plan.steps {
            match step {
                Step::Reread(row) | Step::Pin(row) => assert!(model.contains_key(&key(*row))),
                Step::Forget(keys) => assert!(keys.iter().all(|key| model.contains_key(key))),
                _ => {}
            }
            apply(&mut model, step, &data);
        }
    }

    #[test]
    fn keys_come_back() {
        assert_eq!(row(key(17).as_bytes()), Some(17));
        assert_eq!(row(note_key(17).as_bytes()), None);
    }
}
