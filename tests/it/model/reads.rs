//! Reading calls, each compared with the slow and obvious answer from the map.
//!
//! Scores are computed by the definition in f32. The values are halves of small integers, so the
//! sums are exact and the order of summation does not matter: the store's scores must be the same
//! to the bit, and so must the order of equal ones.

use pmll::{Entry, EntryId, Filter, Metric, Query, Scan};
use serde_json::Value;

use super::ops::{self, At, COLLECTIONS, NAMESPACES, Op, Question};
use super::world::World;
use crate::support::{ModelEntry, Path, pages, path_of};

impl World {
    pub(super) fn read(&mut self, op: &Op) {
        match op {
            Op::Touch(at) => {
                let seen = self.visible(&World::path(*at)).is_some();
                assert_eq!(self.handle_at(*at).touch(ops::key(at.key)).unwrap(), seen);
            }
            Op::Get(at) => self.get(*at),
            Op::GetMany(collection, namespace, keys) => {
                let at = |key| At { collection: *collection, namespace: *namespace, key };
                let names: Vec<Vec<u8>> = keys.iter().map(|key| ops::key(*key)).collect();
                let found = self.handle_at(at(0)).get_many(&names).unwrap();
                assert_eq!(found.len(), keys.len());
                for (key, entry) in keys.iter().zip(found) {
                    let expected = self.visible(&World::path(at(*key)));
                    assert_eq!(entry.map(ModelEntry::of).as_ref(), expected);
                }
            }
            Op::Scan { .. } => self.scan(op),
            Op::Count(at, question) => {
                let filter = question.map(|question| self.filter(question));
                let expected = self.matching(*at, *question).len() as u64;
                assert_eq!(self.handle_at(*at).count(filter.as_ref()).unwrap(), expected, "{op:?}");
            }
            Op::Search { .. } => self.search(op),
            other => panic!("{other:?} does not read"),
        }
    }

    fn get(&mut self, at: At) {
        let (handle, key) = (self.handle_at(at), ops::key(at.key));
        let found = handle.get(&key).unwrap();
        let peeked = handle.peek(&key).unwrap();
        let expected = self.visible(&World::path(at));
        assert_eq!(handle.contains(&key).unwrap(), expected.is_some());
        assert_eq!(peeked.as_ref().map(|entry| entry.id), expected.map(|entry| entry.id));
        assert!(peeked.is_none_or(|entry| entry.vector.is_none()));
        assert_eq!(found.map(ModelEntry::of).as_ref(), expected);
    }

    fn filter(&self, question: Question) -> Filter {
        Filter::from_json(&question.json(self.now())).unwrap()
    }

    /// What the handle at a place sees of its collection, in order.
    fn matching(&self, at: At, question: Option<Question>) -> Vec<(Path, ModelEntry)> {
        let namespace = NAMESPACES[at.namespace];
        let below = format!("{namespace}/");
        self.model
            .iter()
            .filter(|(path, entry)| {
                path.0 == COLLECTIONS[at.collection]
                    && (namespace.is_empty() || path.1 == namespace || path.1.starts_with(&below))
                    && !entry.expired(self.now())
                    && question.is_none_or(|question| self.passes(question, path, entry))
            })
            .map(|(path, entry)| (path.clone(), entry.clone()))
            .collect()
    }

    fn passes(&self, question: Question, path: &Path, entry: &ModelEntry) -> bool {
        let number = entry.attributes.get("n").and_then(Value::as_i64);
        let tag = entry.attributes.get("tag").and_then(Value::as_str);
        match question {
            Question::NumberIs(n) => number == Some(n),
            Question::NumberAtLeast(n) => number >= Some(n),
            Question::TagIn => tag == Some("red") || tag == Some("green"),
            Question::NoTag => tag.is_none(),
            Question::Pinned => entry.pinned,
            Question::InSession => entry.session.as_deref() == Some("s1"),
            Question::KeyPrefix => path.2.starts_with(b"key-1"),
            Question::Updated => entry.updated < self.now(),
            Question::Either(n) => number == Some(n) || tag != Some("red"),
        }
    }

    fn scan(&mut self, op: &Op) {
        let Op::Scan { at, question, prefix, from, until, reverse, limit } = op else { return };
        let mut expected = self.matching(*at, *question);
        let mut scan = Scan::new().with_vector(true).reverse(*reverse).limit(*limit);
        if let Some(question) = question {
            scan = scan.filter(self.filter(*question));
        }
        let key = ops::key(at.key);
        if *prefix {
            let prefix = key[..key.len().min(5)].to_vec();
            expected.retain(|(path, _)| path.2.starts_with(&prefix));
            scan = scan.prefix(prefix);
        }
        if *from {
            expected.retain(|(path, _)| path.2 >= key);
            scan = scan.from(&key);
        }
        if *until {
            let end = ops::key((at.key + 10) % ops::KEYS);
            expected.retain(|(path, _)| path.2 < end);
            scan = scan.until(end);
        }
        if *reverse {
            expected.reverse();
        }
        let found = pages(&self.handle_at(*at), &scan).unwrap();
        let name = COLLECTIONS[at.collection];
        let found: Vec<(Path, ModelEntry)> =
            found.into_iter().map(|e| (path_of(name, &e), ModelEntry::of(e))).collect();
        let ids = |list: &[(Path, ModelEntry)]| -> Vec<EntryId> {
            list.iter().map(|(_, entry)| entry.id).collect()
        };
        assert_eq!(ids(&found), ids(&expected), "{op:?}");
        assert_eq!(found, expected);
    }

    fn search(&mut self, op: &Op) {
        let Op::Search { at, question, k, min_score, vector } = op else { return };
        let spec = ops::spec(at.collection);
        let query = ops::vector(vector, at.collection);
        let min_score = min_score.map(|quarters| f32::from(quarters) / 4.0);
        let mut expected: Vec<(f32, ModelEntry)> = self
            .matching(*at, *question)
            .into_iter()
            .filter_map(|(_, entry)| {
                let score = score(spec.metric, &query, entry.vector.as_ref()?);
                min_score.is_none_or(|min| score >= min).then_some((score, entry))
            })
            .collect();
        expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.id.cmp(&b.1.id)));
        expected.truncate(*k);
        let mut asked = Query::vector(query).k(*k).with_vector(true);
        if let Some(question) = question {
            asked = asked.filter(self.filter(*question));
        }
        if let Some(min) = min_score {
            asked = asked.min_score(min);
        }
        let hits = self.handle_at(*at).search(asked).unwrap();
        let ids = |list: &[(f32, EntryId)]| format!("{list:?}");
        let found: Vec<(f32, EntryId)> = hits.iter().map(|h| (h.score, h.entry.id)).collect();
        let wanted: Vec<(f32, EntryId)> = expected.iter().map(|(s, e)| (*s, e.id)).collect();
        assert_eq!(ids(&found), ids(&wanted), "{op:?}");
        let found: Vec<Entry> = hits.into_iter().map(|hit| hit.entry).collect();
        for (entry, (_, expected)) in found.into_iter().zip(expected) {
            assert_eq!(ModelEntry::of(entry), expected);
        }
    }
}

/// How near two vectors are, by the definition.
fn score(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(x, y)| x * y).sum() };
    let score = match metric {
        Metric::Dot => dot(a, b),
        Metric::L2 => -a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum::<f32>(),
        Metric::Cosine => {
            let norms = dot(a, a).sqrt() * dot(b, b).sqrt();
            if norms == 0.0 { 0.0 } else { (dot(a, b) / norms).clamp(-1.0, 1.0) }
        }
    };
    // No score is a negative zero: it would not compare as equal everywhere.
    score + 0.0
}
