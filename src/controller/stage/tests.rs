//! Staging by itself: that a step which fails leaves the view as it was.

use serde_json::Map;

use super::*;
use crate::controller::commit::Request;
use crate::controller::engine::Engine;
use crate::io::MemoryDisk;
use crate::words::clock::SystemClock;
use crate::words::entry::Draft;
use crate::words::options::{Durability, Options};

fn put(key: &str, vector: &[f32], condition: Condition) -> Step {
    let draft = Draft::text("text").vector(vector);
    Step::Put {
        collection: CollectionId(1),
        namespace: Namespace::root(),
        key: Some(Key::new(key).unwrap()),
        entry: Box::new(Prepared::new(draft, Element::F32).unwrap()),
        condition,
    }
}

fn update(key: &str, patch: Patch) -> Step {
    let (collection, namespace) = (CollectionId(1), Namespace::root());
    let path = KeyPath { collection, namespace, key: Key::new(key).unwrap() };
    Step::Update { path, patch: Box::new(patch) }
}

#[test]
fn a_step_alone_that_fails_changes_nothing() {
    let (disk, clock) = (Arc::new(MemoryDisk::new()), Arc::new(SystemClock::default()));
    let engine = Engine::open(disk, clock, Options::default()).unwrap();
    let write = |steps| {
        let durability = Durability::Sync;
        engine.write(Request { steps, durability, deadline: None, bytes: 0 }).unwrap();
    };
    let spec = CollectionSpec::new();
    write(vec![Step::Define { name: "notes".to_owned(), spec }]);
    let nested = (0..limits::JSON_DEPTH_MAX).fold(Value::Null, |v, _| Value::Array(vec![v]));
    let deep = Patch { attributes: Map::from_iter([("a".to_owned(), nested)]), ..Patch::default() };
    let vector = |values: &[f32]| Patch { vector: Some(Some(values.into())), ..Patch::default() };
    let of_halves = {
        let entry = Prepared::new(Draft::text("x"), Element::F16).unwrap();
        match put("new", &[1.0], Condition::Any) {
            Step::Put { collection, namespace, key, condition, .. } => {
                Step::Put { collection, namespace, key, entry: Box::new(entry), condition }
            }
            other => other,
        }
    };
    let version = Condition::Version(Lsn(7));
    // Before there is a dimension, which a put that fails must not settle, and after.
    let before = [put("new", &[1.0, 2.0], version), update("new", vector(&[1.0, 2.0])), of_halves];
    let after = [
        put("there", &[1.0], Condition::Absent),
        put("new", &[1.0, 2.0], Condition::Any),
        put("there", &[1.0], Condition::Version(Lsn(1))),
        update("there", vector(&[1.0, 2.0])),
        update("there", deep),
        update("new", Patch::default()),
    ];
    let fails = |step: Step| {
        let mut view = View::clone(&engine.view.load());
        let marks = |view: &View| {
            let spec = view.collections.get(&CollectionId(1)).map(|def| def.spec.clone());
            (view.lsn, view.next_id, view.hot_bytes(), view.active.len(), spec)
        };
        let (before, mut ops) = (marks(&view), Vec::new());
        assert!(is_sure(std::slice::from_ref(&step)));
        stage(&mut view, vec![step], Timestamp(0), &mut ops).unwrap_err();
        assert!(ops.is_empty() && marks(&view) == before);
    };
    before.into_iter().for_each(fails);
    write(vec![put("there", &[1.0], Condition::Any)]);
    after.into_iter().for_each(fails);
}
