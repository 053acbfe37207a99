//! The checks: what the store answers against what it must answer.
//!
//! [`differences`] holds every entry against the model, byte for byte, and the list of keys against
//! the keys of the model, so that nothing is missing and nothing is too much. [`recall`] holds
//! searches against the table of truth, which was computed elsewhere.

use std::time::{Duration, Instant};

use pmll::{Collection, Entry, Scan};

use super::Result;
use super::data::{Data, K};
use super::plan::{self, Memory, Model};
use super::writer::query_of;

/// Everything that is not as it must be; empty when all is well.
pub fn differences(collection: &Collection, model: &Model, data: &Data) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (key, memory) in model {
        match collection.get(key)? {
            None => wrong.push(format!("{key} is missing")),
            Some(entry) => {
                if let Some(field) = difference(&entry, memory, data) {
                    wrong.push(format!("{key} has another {field}"));
                }
            }
        }
    }
    let mut scan = Scan::new().with_payload(false);
    loop {
        let page = collection.scan(scan)?;
        for entry in &page.entries {
            let key = entry.key.display();
            if !model.contains_key(&key) {
                wrong.push(format!("{key} should not be there"));
            }
        }
        match page.cursor {
            Some(cursor) => scan = Scan::new().with_payload(false).cursor(cursor),
            None => return Ok(wrong),
        }
    }
}

/// The first field that differs.
fn difference(entry: &Entry, memory: &Memory, data: &Data) -> Option<&'static str> {
    let vector = memory.row.and_then(|row| data.vectors.get(row));
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
    let checks = [
        ("payload", entry.payload == memory.payload),
        ("vector", entry.vector.as_deref().map(bits) == vector.map(|v| bits(v))),
        ("attribute", entry.attributes == memory.attributes),
        ("session", entry.session.as_deref() == Some(&memory.session)),
        ("sequence", entry.sequence == Some(memory.sequence)),
        ("time", entry.at.0 == memory.at),
        ("pin", entry.pinned == memory.pinned),
    ];
    checks.into_iter().find(|(_, same)| !same).map(|(field, _)| field)
}

/// What searching against the table of truth gave.
pub struct Recall {
    /// Answers that stand in the table of truth.
    pub right: usize,
    /// Answers there are in it.
    pub of: usize,
    /// Time of each search.
    pub times: Vec<Duration>,
}

/// Searches for every query of the excerpt.
pub fn recall(collection: &Collection, data: &Data) -> Result<Recall> {
    let mut recall = Recall { right: 0, of: data.truth.len() * K, times: Vec::new() };
    for (query, truth) in data.truth.iter().enumerate() {
        let query = query_of(data, query);
        let begun = Instant::now();
        let hits = collection.search(query)?;
        recall.times.push(begun.elapsed());
        // Counted over the truth, so that an answer given twice counts once.
        let answers: Vec<usize> =
            hits.iter().filter_map(|hit| plan::row(hit.entry.key.as_bytes())).collect();
        recall.right += truth.iter().filter(|row| answers.contains(row)).count();
    }
    Ok(recall)
}

#[cfg(test)]
mod tests {
    use pmll::{Draft, Patch};

    use super::*;
    use crate::demo::plan::{Plan, Step, key};
    use crate::demo::writer;

    /// What the check says after the store and the model have gone apart by `change`.
    fn said(change: impl Fn(&Collection)) -> Vec<String> {
        let data = Data {
            folder: "nowhere".into(),
            passages: vec!["one".into(), "two".into()],
            vectors: vec![vec![1.0, 0.0], vec![0.0, 1.0]],
            queries: vec![vec![1.0, 0.0]],
            truth: Vec::new(),
        };
        let dir = tempfile::tempdir().unwrap();
        let (store, collection) =
            writer::open(&dir.path().join("memory"), &data, writer::BUDGET_BYTES).unwrap();
        let plan = Plan { steps: vec![Step::Remember(vec![0, 1])] };
        for row in 0..2 {
            let memory = plan::passage(&data, row);
            collection.put(key(row), writer::draft(&memory, &data)).unwrap();
        }
        change(&collection);
        let said = differences(&collection, &plan.model(1, &data), &data).unwrap();
        store.close().unwrap();
        said
    }

    #[test]
    fn every_kind_of_difference_is_said() {
        assert_eq!(said(|_| {}), [""; 0]);
        let gone = said(|c| assert!(c.delete(key(0)).unwrap()));
        assert_eq!(gone, ["passage-00000 is missing"]);
        let more = said(|c| {
            c.put("more", Draft::text("x")).unwrap();
        });
        assert_eq!(more, ["more should not be there"]);
        for (patch, field) in [
            (Patch::default().payload(*b"onf"), "payload"),
            (Patch::default().vector([1.0, 0.001]), "vector"),
            (Patch::default().attr("words", 2), "attribute"),
            (Patch::default().pinned(true), "pin"),
        ] {
            let other = said(|c| {
                c.update(key(0), patch.clone()).unwrap();
            });
            assert_eq!(other, [format!("passage-00000 has another {field}")]);
        }
    }
}
