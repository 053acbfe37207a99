//! Holds a real store against the workload: which of the possible states is it in?

use std::collections::BTreeMap;
use std::path::Path;

use pmll::{Depth, Entry, Scan, Store};

use crate::workload::{Item, State, name, text, vector};
use crate::writer::open;

/// What the lines of a writer say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acks {
    /// Steps it said were done.
    pub done: u64,
    /// Steps it said were on disk.
    pub durable: u64,
    /// Whether it came as far as to say anything.
    pub any: bool,
}

impl Acks {
    /// Takes one whole line in. False for a line that is no acknowledgement.
    pub fn hear(&mut self, line: &str) -> bool {
        let mut words = line.split(' ');
        let (Some("ack"), Some(n), Some(kind)) = (words.next(), words.next(), words.next()) else {
            return false;
        };
        let Ok(n) = n.parse() else { return false };
        self.done = n;
        if kind == "sync" {
            self.durable = n;
        }
        self.any = true;
        true
    }
}

/// What a check found.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Steps that are in the store.
    pub steps: u64,
    /// Entries that were compared byte for byte.
    pub entries: u64,
}

/// Opens the store and finds the state it is in: one of those from `low` on, which must hold, up to
/// `high` steps. With `deep`, every file is verified as well.
///
/// # Errors
/// What is wrong, in words.
pub fn check(dir: &Path, seed: u64, low: &State, high: u64, deep: bool) -> Result<Found, String> {
    let (store, collection) = open(dir, None).map_err(|e| format!("does not open: {e:?}"))?;
    let mut seen = BTreeMap::new();
    let mut scan = Scan::new().with_vector(true);
    loop {
        let page = collection.scan(scan).map_err(|e| format!("scan: {e:?}"))?;
        for entry in &page.entries {
            let (key, item) = read(entry)?;
            if seen.insert(key, item).is_some() {
                return Err(format!("{} is there twice", name(key)));
            }
        }
        match page.cursor {
            Some(cursor) => scan = Scan::new().with_vector(true).cursor(cursor),
            None => break,
        }
    }
    let count = collection.count(None).map_err(|e| format!("count: {e:?}"))?;
    if count != seen.len() as u64 {
        return Err(format!("counts {count} entries, {} show", seen.len()));
    }
    let mut state = low.clone();
    // The latest possible: steps that change nothing to see do not matter.
    let mut found = (state.items == seen).then_some(state.steps);
    while state.steps < high {
        state.advance(seed);
        if state.items == seen {
            found = Some(state.steps);
        }
    }
    let steps = found.ok_or_else(|| wrong(&seen, low, high))?;
    if deep {
        verify(&store)?;
    }
    store.close().map_err(|e| format!("close: {e:?}"))?;
    Ok(Found { steps, entries: seen.len() as u64 })
}

/// Which steps made an entry, if every byte of it says the same.
fn read(entry: &Entry) -> Result<(u64, Item), String> {
    let shown = format!("{:?}", entry.key);
    let key = entry.key.as_str().and_then(|key| key.strip_prefix('k')?.parse().ok());
    let key: u64 = key.ok_or_else(|| format!("{shown} was never written"))?;
    let found = entry.text().ok_or_else(|| format!("{shown} is no text"))?;
    let put = found.split(' ').next().and_then(|head| head.parse().ok());
    let put: u64 = put.ok_or_else(|| format!("{shown} begins with no number"))?;
    if found != text(key, put) {
        return Err(format!("{shown}: the text is not that of step {put}"));
    }
    if entry.vector.as_deref() != Some(vector(key, put).as_slice()) {
        return Err(format!("{shown}: the vector is not that of step {put}"));
    }
    let attribute = |name: &str| entry.attributes.get(name).and_then(serde_json::Value::as_u64);
    if attribute("put") != Some(put) {
        return Err(format!("{shown}: the attributes are not those of step {put}"));
    }
    Ok((key, Item { put, seen: attribute("seen").unwrap_or(0) }))
}

fn verify(store: &Store) -> Result<(), String> {
    let report = store.verify(Depth::Deep).map_err(|e| format!("verify: {e:?}"))?;
    match report.is_whole() {
        true => Ok(()),
        false => Err(format!("verify found {:?}", report.problems)),
    }
}

/// Where the entries differ from the least state.
fn wrong(seen: &BTreeMap<u64, Item>, low: &State, high: u64) -> String {
    let keys: std::collections::BTreeSet<u64> =
        seen.keys().chain(low.items.keys()).copied().collect();
    let differ = keys.iter().filter(|key| seen.get(key) != low.items.get(key));
    let differ: Vec<String> = differ
        .map(|key| format!("{}: {:?}, not {:?}", name(*key), seen.get(key), low.items.get(key)))
        .collect();
    let shown = differ.iter().take(10).cloned().collect::<Vec<_>>().join("; ");
    format!(
        "is in no state from step {} to {high}; against the first, {} entries differ: {shown}",
        low.steps,
        differ.len()
    )
}
