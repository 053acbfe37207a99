//! An endless random workload whose n-th step is known without playing the others.
//!
//! [`step`] is a pure function of seed and number, so that a writer that was killed, the process
//! that killed it and a later check agree on what was to happen without speaking to each other.
//! [`State`] is what a store must hold after so many steps; every text carries the number of the
//! step that wrote it, so that no two states with a write between them look alike.

use std::collections::BTreeMap;

use pmll::Policy;

/// Keys there can be: few, so that most writes replace something.
const KEYS: u64 = 300;
/// Name of the collection.
pub const COLLECTION: &str = "notes";
/// Dimension of its vectors.
pub const DIM: usize = 16;

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `low..high`.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.bits() % (high - low).max(1)
    }
}

/// A change of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Puts the text of this step.
    Put(u64),
    /// Changes an attribute, if the entry is there.
    Update(u64),
    /// Removes the entry, if it is there.
    Delete(u64),
}

/// What happens at once.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Changes that happen together or not at all.
    Write(Vec<Change>),
    /// A put with `Durability::Buffer`.
    Buffer(u64),
    /// Counts an access.
    Touch(u64),
    /// Makes what was buffered durable.
    Sync,
    /// Archives the log.
    Checkpoint,
    /// Runs the compressor.
    Compress(Policy),
    /// Packs Level 1 anew.
    Recompress,
    /// Gives dead bytes back.
    Vacuum,
    /// Changes the memory budget.
    Budget(u64),
}

impl Step {
    /// Whether its return means that everything up to it is on disk. A write that may have found
    /// nothing to change need not have synced anything.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        match self {
            Step::Write(changes) => changes.iter().any(|c| matches!(c, Change::Put(_))),
            Step::Sync | Step::Budget(_) | Step::Checkpoint => true,
            _ => false,
        }
    }
}

/// Step number `n`, counted from 1.
#[must_use]
pub fn step(seed: u64, n: u64) -> Step {
    let mut random = Random(seed ^ n.wrapping_mul(0xA076_1D64_78BD_642F));
    let key = random.within(0, KEYS);
    match random.within(0, 100) {
        0..40 => Step::Write(vec![Change::Put(key)]),
        40..52 => Step::Write(vec![Change::Update(key)]),
        52..66 => Step::Write(vec![Change::Delete(key)]),
        66..80 => {
            let mut keys: Vec<u64> =
                (0..random.within(2, 9)).map(|i| (key + i * 7) % KEYS).collect();
            keys.dedup();
            Step::Write(keys.into_iter().map(|key| change(&mut random, key)).collect())
        }
        80..86 => Step::Buffer(key),
        86..91 => Step::Touch(key),
        91 => Step::Sync,
        92..94 => Step::Checkpoint,
        94 => Step::Compress(Policy::Paper),
        95 => Step::Compress(Policy::Watermark),
        96 => Step::Recompress,
        97 => Step::Vacuum,
        _ => Step::Budget(random.within(1, 3) << 20),
    }
}

fn change(random: &mut Random, key: u64) -> Change {
    match random.within(0, 4) {
        0 => Change::Delete(key),
        _ => Change::Put(key),
    }
}

/// The key in the store.
#[must_use]
pub fn name(key: u64) -> String {
    format!("k{key}")
}

/// The only text that this step can have given this key: a head that says which, and a tail that no
/// other step writes. One in 150 is so long that it is kept in pieces.
#[must_use]
pub fn text(key: u64, n: u64) -> String {
    let mut random = Random(n ^ (key << 40));
    let length = match random.within(0, 150) {
        0 => random.within(60_000, 160_000),
        _ => random.within(0, 900),
    };
    let mut text = format!("{n} {key} ");
    while (text.len() as u64) < length {
        text += &format!("{:x} \u{e9}\"\\\n", random.bits());
    }
    text
}

/// The vector of the same.
#[must_use]
pub fn vector(key: u64, n: u64) -> Vec<f32> {
    let mut random = Random(n ^ (key << 40) ^ 1);
    (0..DIM).map(|_| (random.within(0, 255) as f32 - 127.0) / 16.0).collect()
}

/// What an entry holds: the steps that put it and that last updated it (0 for none).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Step of the last put.
    pub put: u64,
    /// Step of the last update since.
    pub seen: u64,
}

/// What a store must hold after some steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Steps played.
    pub steps: u64,
    /// By key.
    pub items: BTreeMap<u64, Item>,
}

impl State {
    /// The state after so many steps.
    #[must_use]
    pub fn after(seed: u64, steps: u64) -> State {
        let mut state = State::default();
        while state.steps < steps {
            state.advance(seed);
        }
        state
    }

    /// Plays the next step.
    pub fn advance(&mut self, seed: u64) {
        self.steps += 1;
        match step(seed, self.steps) {
            Step::Write(changes) => changes.into_iter().for_each(|change| self.apply(change)),
            Step::Buffer(key) => self.apply(Change::Put(key)),
            _ => {}
        }
    }

    fn apply(&mut self, change: Change) {
        let n = self.steps;
        match change {
            Change::Put(key) => drop(self.items.insert(key, Item { put: n, seen: 0 })),
            Change::Update(key) => {
                if let Some(item) = self.items.get_mut(&key) {
                    item.seen = n;
                }
            }
            Change::Delete(key) => drop(self.items.remove(&key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_everything() {
        let steps = |seed| (1..2000).map(|n| step(seed, n)).collect::<Vec<_>>();
        assert_eq!(steps(1), steps(1));
        assert_ne!(steps(1), steps(2));
        let mut walked = State::after(1, 500);
        (0..500).for_each(|_| walked.advance(1));
        assert_eq!(walked, State::after(1, 1000));
        assert_ne!(text(1, 2), text(1, 3));
    }

    #[test]
    fn a_thousand_steps_do_everything() {
        for kind in ["Write", "Buffer", "Touch", "Sync", "Checkpoint", "Compress", "Recompress"] {
            assert!((1..1000).any(|n| format!("{:?}", step(3, n)).starts_with(kind)), "{kind}");
        }
        assert!((1..1000).any(|n| matches!(step(3, n), Step::Vacuum)));
        assert!((1..1000).any(|n| matches!(step(3, n), Step::Budget(_))));
    }
}
