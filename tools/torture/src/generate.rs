//! Workloads drawn at random: as many as there are seeds, to try what nobody thought of.
//!
//! 1. Acts are drawn by weight over a few keys, so that entries are written, changed and removed again
//!    and again, in and out of the archive.
//! 2. The model plays each act first; one that it refuses (an update of what is not there) is drawn anew.
//!    So every act of a workload succeeds, and what the store must hold is known.
//!
//! Expiry stays within its grace: which entries a vacuum buries then needs no second calculation.
//! Equal seeds make equal workloads.

use std::time::Duration;

use pmll::{CollectionSpec, Draft, Element, Metric, Patch, Policy};
use serde_json::json;

use crate::model::{Act, Model, Spot};
use crate::script::{START, noise, vector};

const NAMES: [&str; 2] = ["notes", "people"];
const NAMESPACES: [&str; 3] = ["", "", "user/7"];
const KEYS: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
/// Dimension of each collection.
const DIMS: [usize; 2] = [8, 4];
/// Payloads: mostly short, some that fill a sector, few that stay in the log as a file's bytes.
const PAYLOAD_BYTES: [usize; 8] = [0, 20, 60, 200, 600, 2_000, 9_000, 70_000];
/// So much time may pass in all: expired entries are within their grace.
const WAITS_MAX: u32 = 8;

/// A source of numbers: splitmix64.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn one<T: Copy>(&mut self, of: &[T], unset: T) -> T {
        of.get(self.below(of.len() as u64) as usize).copied().unwrap_or(unset)
    }
}

/// A workload of about so many acts.
pub fn generate(seed: u64, acts: usize) -> Vec<Act> {
    let mut draw = Draw(seed);
    let mut model = Model::default();
    let mut waits = 0;
    let mut request = 0;
    let dotted = CollectionSpec::new().dim(4).metric(Metric::Dot).element(Element::F16);
    let mut list = vec![Act::Define("notes", CollectionSpec::new()), Act::Define("people", dotted)];
    for act in &list {
        // Both are new.
        let _ = model.apply(act, START);
    }
    while list.len() < acts {
        let act = match draw.below(100) {
            0..34 => write(&mut draw),
            34..42 => Act::Delete(spot(&mut draw)),
            42..46 => Act::Pin(spot(&mut draw), draw.below(2) == 0),
            46..54 => {
                request += draw.below(2);
                let number = (draw.below(2) == 0 && request > 0).then_some(request);
                let count = 1 + draw.below(9);
                Act::Batch(number, (0..count).map(|_| put(&mut draw)).collect())
            }
            54..60 => Act::Touch(spot(&mut draw)),
            60..72 => Act::Checkpoint,
            72..80 => Act::Compress(draw.one(&[Policy::Paper, Policy::Watermark], Policy::Paper)),
            80..82 => Act::Recompress,
            82..86 => Act::Vacuum(Vec::new()),
            86..88 => Act::Set("policy.rho", json!(draw.below(100))),
            88..90 => Act::Set("budget_bytes", json!((1 + draw.below(2)) << 20)),
            90..92 => Act::Sync,
            92..94 if waits < WAITS_MAX => Act::Wait(Duration::from_secs(3600)),
            94..97 => Act::Reopen,
            97..99 => Act::Kill,
            _ => Act::Late(spot(&mut draw), note(&mut draw, 8)),
        };
        // A request number counts once; the model does not look at that.
        let is_old = matches!(&act, Act::Batch(Some(n), _) if model.request == Some(*n));
        let fits = match &act {
            Act::Touch(spot) => is_there(&model, *spot),
            act => !is_old && model.clone().apply(act, START).is_ok(),
        };
        if !fits {
            continue;
        }
        waits += u32::from(matches!(act, Act::Wait(_)));
        // It fits, as was just seen.
        let _ = model.apply(&act, START);
        list.push(act);
    }
    list
}

fn is_there(model: &Model, spot: Spot) -> bool {
    model.state.shelves.get(spot.0).is_some_and(|shelf| shelf.items.contains_key(&spot.place()))
}

fn spot(draw: &mut Draw) -> Spot {
    Spot(draw.one(&NAMES, "notes"), draw.one(&NAMESPACES, ""), draw.one(&KEYS, "a"))
}

fn dim_of(spot: Spot) -> usize {
    DIMS[usize::from(spot.0 == "people")]
}

fn put(draw: &mut Draw) -> Act {
    let spot = spot(draw);
    Act::Put(spot, note(draw, dim_of(spot)))
}

/// One of the ways to write an entry.
fn write(draw: &mut Draw) -> Act {
    let spot = spot(draw);
    let draft = note(draw, dim_of(spot));
    match draw.below(10) {
        0 => Act::Buffer(spot, draft),
        1 => Act::Submit(spot, draft),
        2..5 => Act::Update(spot, patch(draw, dim_of(spot))),
        _ => Act::Put(spot, draft),
    }
}

fn note(draw: &mut Draw, dim: usize) -> Draft {
    let number = draw.next();
    let bytes = noise(number, draw.one(&PAYLOAD_BYTES, 20));
    let mut draft = Draft::bytes(bytes).attr("n", number % 1000);
    if draw.below(8) > 0 {
        draft = draft.vector(vector(number, dim));
    }
    match draw.below(8) {
        0 => draft.ttl(Duration::from_secs(1 + draw.below(20_000))),
        1 => draft.pinned(true),
        2 => draft.session("s1").sequence(number % 100).salience(0.5),
        _ => draft,
    }
}

fn patch(draw: &mut Draw, dim: usize) -> Patch {
    let number = draw.next();
    let patch = Patch::default().attr("seen", number % 100);
    match draw.below(4) {
        0 => patch.payload(noise(number, draw.one(&PAYLOAD_BYTES, 20))),
        1 => patch.vector(vector(number, dim)),
        _ => patch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_make_equal_workloads_and_every_kind_of_act_is_met() {
        let text = |seed| format!("{:?}", generate(seed, 60));
        assert_eq!(text(3), text(3));
        assert_ne!(text(3), text(4));
        let all: String = (0..20).map(text).collect();
        for kind in [
            "Put",
            "Buffer",
            "Submit",
            "Late",
            "Update",
            "Delete",
            "Batch",
            "Pin",
            "Touch",
            "Checkpoint",
            "Compress",
            "Recompress",
            "Vacuum",
            "Set",
            "Sync",
            "Wait",
            "Reopen",
            "Kill",
        ] {
            assert!(all.contains(kind), "{kind}");
        }
    }
}
