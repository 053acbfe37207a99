//! The model: what a store must hold after each act of a script, computed without the store.
//!
//! 1. A [`State`] is everything a reader can see: collections, entries byte for byte, settings; and
//!    beside it the counters that must never fall back: the last LSN and the next id.
//! 2. [`Model::apply`] plays one [`Act`] on it, by the rules of the documentation, not by the
//!    store's code: ids dense from 1, one LSN per operation, upserts that keep id and creation time.
//! 3. [`Shelf::best`] says what an exact search answers, by the textbook formula.
//!
//! It never asks the store, and knows nothing of files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pmll::{CollectionSpec, Draft, Metric, Patch, Policy, Timestamp};
use serde_json::{Map, Value};

/// One thing a script does.
#[derive(Clone, Debug)]
pub enum Act {
    /// Creates a collection.
    Define(&'static str, CollectionSpec),
    /// Puts an entry.
    Put(Spot, Draft),
    /// Puts an entry with `Durability::Buffer`.
    Buffer(Spot, Draft),
    /// Puts an entry through a promise.
    Submit(Spot, Draft),
    /// Means to put an entry, and its deadline has passed: nothing is written.
    Late(Spot, Draft),
    /// Changes an entry.
    Update(Spot, Patch),
    /// Removes an entry.
    Delete(Spot),
    /// Several of the above at once, as a request of a client when a number is given.
    Batch(Option<u64>, Vec<Act>),
    /// Counts an access: soft state, no change to see.
    Touch(Spot),
    /// Pins or unpins.
    Pin(Spot, bool),
    /// Sets a setting; null removes it.
    Set(&'static str, Value),
    /// Removes a collection.
    Drop(&'static str),
    /// Makes everything durable.
    Sync,
    /// Archives the log.
    Checkpoint,
    /// Runs the compressor.
    Compress(Policy),
    /// Packs Level 1 anew.
    Recompress,
    /// Gives dead bytes back, and buries these expired entries.
    Vacuum(Vec<Spot>),
    /// Time passes.
    Wait(Duration),
    /// Closes cleanly and opens again.
    Reopen,
    /// The process dies, the machine goes on; opened again.
    Kill,
}

/// Where an entry stands: collection, namespace, key.
#[derive(Clone, Copy, Debug)]
pub struct Spot(pub &'static str, pub &'static str, pub &'static str);

/// The number the script's one client writes requests under.
pub const CLIENT: u64 = 77;

/// All there is to see, and the counters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub shelves: BTreeMap<String, Shelf>,
    pub settings: BTreeMap<String, Value>,
    /// The LSN of the last operation.
    pub lsn: u64,
}

/// A collection.
#[derive(Clone, Debug, PartialEq)]
pub struct Shelf {
    pub spec: CollectionSpec,
    /// By namespace and key.
    pub items: BTreeMap<(String, Vec<u8>), Arc<Item>>,
}

/// An entry without its soft state. Floats are held as bits: equal means equal.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub id: u64,
    pub version: u64,
    pub vector: Option<Vec<u32>>,
    pub payload: Arc<[u8]>,
    pub attributes: Map<String, Value>,
    pub at: i64,
    pub created: i64,
    pub updated: i64,
    pub session: Option<String>,
    pub sequence: Option<u64>,
    pub salience: Option<u32>,
    pub pinned: bool,
    pub expires: Option<i64>,
}

/// What a script's model carries along beside the visible state.
#[derive(Clone, Debug)]
pub struct Model {
    pub state: State,
    pub next_id: u64,
    /// The last request of the client, and the acts it made.
    pub request: Option<u64>,
}

impl Default for Model {
    fn default() -> Model {
        Model { state: State::default(), next_id: 1, request: None }
    }
}

impl Model {
    /// Plays one act at a moment. An error is a mistake in the script.
    pub fn apply(&mut self, act: &Act, now: Timestamp) -> Result<(), String> {
        match act {
            Act::Define(name, spec) => {
                self.state.lsn += 1;
                let shelf = Shelf { spec: spec.clone(), items: BTreeMap::new() };
                self.state.shelves.insert((*name).to_owned(), shelf);
            }
            Act::Put(spot, draft) | Act::Buffer(spot, draft) | Act::Submit(spot, draft) => {
                self.put(*spot, draft, now)?;
            }
            Act::Update(spot, patch) => self.update(*spot, patch, now)?,
            Act::Pin(spot, pinned) => {
                self.update(*spot, &Patch::default().pinned(*pinned), now)?;
            }
            Act::Delete(spot) => self.bury(*spot)?,
            Act::Batch(request, acts) => {
                if let Some(number) = request {
                    self.state.lsn += 1;
                    self.request = Some(*number);
                }
                for act in acts {
                    self.apply(act, now)?;
                }
            }
            Act::Set(name, value) => {
                self.state.lsn += 1;
                match value {
                    Value::Null => self.state.settings.remove(*name),
                    value => self.state.settings.insert((*name).to_owned(), value.clone()),
                };
            }
            Act::Drop(name) => {
                self.state.lsn += 1;
                self.state.shelves.remove(*name);
            }
            Act::Vacuum(buried) => buried.iter().try_for_each(|spot| self.bury(*spot))?,
            Act::Late(..) | Act::Touch(_) | Act::Sync | Act::Checkpoint => {}
            Act::Compress(_) | Act::Recompress => {}
            Act::Wait(_) | Act::Reopen | Act::Kill => {}
        }
        Ok(())
    }

    fn shelf(&mut self, spot: Spot) -> Result<&mut Shelf, String> {
        self.state.shelves.get_mut(spot.0).ok_or_else(|| format!("no collection for {spot:?}"))
    }

    fn agree(&mut self, spot: Spot, vector: Option<&Vec<f32>>) -> Result<(), String> {
        let Some(vector) = vector else { return Ok(()) };
        let spec = &mut self.shelf(spot)?.spec;
        if spec.dim.is_none() {
            spec.dim = u32::try_from(vector.len()).ok();
            // The collection is defined anew, with its dimension.
            self.state.lsn += 1;
        }
        Ok(())
    }

    fn put(&mut self, spot: Spot, draft: &Draft, now: Timestamp) -> Result<(), String> {
        self.agree(spot, draft.vector.as_ref())?;
        self.state.lsn += 1;
        let version = self.state.lsn;
        let place = spot.place();
        let old = self.shelf(spot)?.items.get(&place).cloned();
        let id = old.as_ref().map_or(self.next_id, |old| old.id);
        if old.is_none() {
            self.next_id += 1;
        }
        let expires = draft.expires.or_else(|| draft.ttl.map(|ttl| now.plus(ttl)));
        let item = Item {
            id,
            version,
            vector: draft.vector.as_deref().map(bits),
            payload: Arc::from(&*draft.payload),
            attributes: draft.attributes.clone(),
            at: draft.at.unwrap_or(now).0,
            created: old.as_ref().map_or(now.0, |old| old.created),
            updated: now.0,
            session: draft.session.clone(),
            sequence: draft.sequence,
            salience: draft.salience.map(f32::to_bits),
            pinned: draft.pinned.unwrap_or(old.is_some_and(|old| old.pinned)),
            expires: expires.map(|t| t.0),
        };
        self.shelf(spot)?.items.insert(place, Arc::new(item));
        Ok(())
    }

    fn update(&mut self, spot: Spot, patch: &Patch, now: Timestamp) -> Result<(), String> {
        self.agree(spot, patch.vector.as_ref().and_then(Option::as_ref))?;
        self.state.lsn += 1;
        let version = self.state.lsn;
        let Some(item) = self.shelf(spot)?.items.get_mut(&spot.place()) else {
            return Err(format!("the script updates {spot:?}, which is not there"));
        };
        let item = Arc::make_mut(item);
        item.version = version;
        item.updated = now.0;
        if let Some(payload) = &patch.payload {
            item.payload = Arc::from(&**payload);
        }
        if let Some(vector) = &patch.vector {
            item.vector = vector.as_deref().map(bits);
        }
        for (name, value) in &patch.attributes {
            match value {
                Value::Null => item.attributes.shift_remove(name),
                value => item.attributes.insert(name.clone(), value.clone()),
            };
        }
        item.pinned = patch.pinned.unwrap_or(item.pinned);
        if let Some(expires) = patch.expires {
            item.expires = expires.map(|t| t.0);
        }
        Ok(())
    }

    fn bury(&mut self, spot: Spot) -> Result<(), String> {
        let gone = self.shelf(spot)?.items.remove(&spot.place());
        if gone.is_some() {
            self.state.lsn += 1;
        }
        Ok(())
    }
}

impl Spot {
    pub fn place(self) -> (String, Vec<u8>) {
        (self.1.to_owned(), self.2.as_bytes().to_vec())
    }
}

pub fn bits(vector: &[f32]) -> Vec<u32> {
    vector.iter().map(|v| v.to_bits()).collect()
}

impl Shelf {
    /// Number of entries that are not expired at a moment.
    pub fn count(&self, now: Timestamp) -> u64 {
        self.items.values().filter(|item| item.expires.is_none_or(|t| t > now.0)).count() as u64
    }

    /// Ids and scores of all entries with a vector, best first, ties by id; nothing expired.
    pub fn best(&self, query: &[f32]) -> Vec<(u64, f64)> {
        let mut best: Vec<(u64, f64)> = Vec::new();
        for item in self.items.values() {
            let Some(vector) = &item.vector else { continue };
            let pairs = vector.iter().zip(query).map(|(b, q)| (f64::from(f32::from_bits(*b)), *q));
            let (mut dot, mut norm, mut square, mut far) = (0.0, 0.0, 0.0, 0.0);
            for (v, q) in pairs {
                let q = f64::from(q);
                dot += v * q;
                norm += v * v;
                square += q * q;
                far += (v - q) * (v - q);
            }
            let score = match self.spec.metric {
                Metric::Cosine if norm == 0.0 || square == 0.0 => 0.0,
                Metric::Cosine => dot / (norm.sqrt() * square.sqrt()),
                Metric::Dot => dot,
                Metric::L2 => -far,
            };
            best.push((item.id, score));
        }
        best.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        best
    }
}

/// The first difference between two states, in words.
pub fn difference(found: &State, wanted: &State) -> String {
    if found.lsn != wanted.lsn {
        return format!("last LSN is {}, not {}", found.lsn, wanted.lsn);
    }
    if found.settings != wanted.settings {
        return format!("settings are {:?}, not {:?}", found.settings, wanted.settings);
    }
    let names = |state: &State| state.shelves.keys().cloned().collect::<Vec<_>>();
    if names(found) != names(wanted) {
        return format!("collections are {:?}, not {:?}", names(found), names(wanted));
    }
    for (name, wanted) in &wanted.shelves {
        let Some(found) = found.shelves.get(name) else { return format!("{name} is missing") };
        if found.spec != wanted.spec {
            return format!("{name} is {:?}, not {:?}", found.spec, wanted.spec);
        }
        for (place, item) in &wanted.items {
            match found.items.get(place) {
                None => return format!("{name}: {place:?} is missing"),
                Some(other) if other != item => {
                    return format!("{name}: {place:?} is {}, not {}", brief(other), brief(item));
                }
                Some(_) => {}
            }
        }
        if let Some(place) = found.items.keys().find(|place| !wanted.items.contains_key(*place)) {
            return format!("{name}: {place:?} is there and should not be");
        }
    }
    String::new()
}

fn brief(item: &Item) -> String {
    let text = format!("{item:?}");
    match text.char_indices().nth(600) {
        Some((at, _)) => format!("{}.. ({} bytes of payload)", &text[..at], item.payload.len()),
        None => text,
    }
}
