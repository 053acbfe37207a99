//! The whole store: its files, and the one rule that makes entries of them.
//!
//! The record with the highest LSN of an id wins, whether a row of the archive or a put or delete of
//! the log; a dropped collection takes along what was in it. Everything derived is held against that.

use std::collections::{BTreeMap, BTreeSet};

use super::archive::{self, Segment};
use super::bytes::{Read, crc, hold};
use super::codes::{self, Packed};
use super::operations::{Define, Entry, Operation};
use super::{log, soft};

/// Names with a slash between folder and file, and contents.
pub type Files = BTreeMap<String, Vec<u8>>;

#[derive(Default)]
pub struct Store {
    pub collections: BTreeMap<u32, Define>,
    pub settings: BTreeMap<String, String>,
    /// By id: what is neither deleted nor replaced nor dropped, expired or not.
    pub entries: BTreeMap<u64, Entry>,
    pub accesses: BTreeMap<u64, (u64, i64)>,
    pub hot: BTreeSet<u64>,
    /// By id: the width of its codes in the arena.
    pub packed: BTreeMap<u64, u8>,
    /// Ids of the log's puts, which are in RAM once it was read.
    pub logged: BTreeSet<u64>,
    pub last_lsn: u64,
    /// How much of what was there, for the test that all of the format is.
    pub seen: BTreeMap<&'static str, usize>,
}

impl Store {
    pub fn saw(&mut self, what: &'static str, count: usize) {
        *self.seen.entry(what).or_default() += count;
    }
}

pub fn read(files: &Files) -> Read<Store> {
    let toml = files.get("store.toml").ok_or("no store.toml: not a store")?;
    let id = identity(toml)?;
    let mut store = Store::default();
    let segments = numbered(files, "archive/", ".seg")
        .map(|(number, file)| archive::read(file, &id, number))
        .collect::<Read<Vec<_>>>()?;
    let logs = numbered(files, "wal/", ".wal")
        .map(|(number, file)| log::read(file, &id, number))
        .collect::<Read<Vec<_>>>()?;
    let segments = counting(&mut store, segments)?;
    let mut operations = Vec::new();
    for segment in &logs {
        store.saw("log segments", 1);
        store.saw("batches", segment.batches as usize);
    }
    for two in logs.windows(2) {
        let (number, next) = (two[1].number, two[0].next());
        hold(two[0].footer, || format!("log segment {number} behind one without a footer"))?;
        let follows = two[0].number + 1 == number && (two[1].first_lsn, two[1].first_batch) == next;
        hold(follows, || format!("log segment {number} does not follow"))?;
    }
    for segment in segments.iter().flat_map(|segment| &segment.operations) {
        operations.push((true, segment));
    }
    for operation in logs.iter().flat_map(|segment| &segment.operations) {
        operations.push((false, operation));
    }
    operations.sort_by_key(|(_, (lsn, _))| *lsn);
    apply(&mut store, &segments, &operations);
    derived(&mut store, files, &id, &segments)?;
    Ok(store)
}

/// `store.toml`, line by line: format, id, features and the CRC over them.
fn identity(toml: &[u8]) -> Read<[u8; 16]> {
    let text = str::from_utf8(toml).map_err(|error| format!("store.toml: {error}"))?;
    let value = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(" = "));
        let mut values = lines.filter(|(key, _)| *key == name).map(|(_, value)| value);
        values.next().ok_or_else(|| format!("store.toml: no {name}"))
    };
    let quoted = |name: &str| Ok::<_, String>(value(name)?.trim_matches('"').to_owned());
    let (format, id) = (quoted("format")?, quoted("id")?);
    hold(format == "0-dev", || format!("store.toml: format {format}"))?;
    let required = value("required")?;
    hold(required == "[]", || format!("store.toml: required {required}"))?;
    let covered = format!("{format}\0{id}\0");
    let stored = value("crc")?.to_owned();
    hold(stored == crc(&[covered.as_bytes()]).to_string(), || "store.toml: CRC".to_owned())?;
    let number = u128::from_str_radix(&id, 16).map_err(|error| format!("store.toml: {error}"))?;
    // Digits in the order of the bytes: what counts is their order, not a number.
    Ok(number.to_be_bytes())
}

/// Files of one folder, ascending, with the numbers in their names.
fn numbered<'a>(
    files: &'a Files,
    folder: &'a str,
    ending: &'a str,
) -> impl Iterator<Item = (u64, &'a [u8])> {
    files.iter().filter_map(move |(name, file)| {
        let digits = name.strip_prefix(folder)?.strip_suffix(ending)?;
        (digits.len() == 10).then_some((digits.parse().ok()?, file.as_slice()))
    })
}

/// The segments that no other one replaces.
fn counting(store: &mut Store, segments: Vec<Segment>) -> Read<Vec<Segment>> {
    let replaced: Vec<(u64, u32)> =
        segments.iter().flat_map(|segment| segment.supersedes.clone()).collect();
    let counts = |one: &Segment| !replaced.contains(&(one.number, one.footer_crc));
    let segments: Vec<Segment> = segments.into_iter().filter(counts).collect();
    store.saw("superseded segments", replaced.len());
    if let Some((newest, others)) = segments.split_last() {
        let mut beside = Vec::new();
        for other in others {
            beside.extend(other.number.to_le_bytes());
            beside.extend(other.footer_crc.to_le_bytes());
        }
        let found = crc(&[&beside]);
        hold(newest.beside == found, || {
            format!("beside is {:08x}, not {found:08x}", newest.beside)
        })?;
    }
    for segment in &segments {
        // One that vacuum made may carry a range as well: that of the newest it replaces.
        let vacuumed = !segment.supersedes.is_empty();
        store.saw(if vacuumed { "vacuumed segments" } else { "segments of the log" }, 1);
        for group in &segment.groups {
            let next = group.collection < segment.next_collection
                && group.rows.iter().all(|row| row.entry.id < segment.next_id);
            hold(next, || format!("segment {}: next id or collection", segment.number))?;
        }
        if let (false, Some((first, last))) = (vacuumed, segment.covers) {
            let rows = segment.groups.iter().flat_map(|group| &group.rows);
            let versions = rows.map(|row| row.entry.version);
            let mut lsns = versions.chain(segment.operations.iter().map(|(lsn, _)| *lsn));
            let within = lsns.all(|lsn| (first..=last).contains(&lsn));
            hold(within, || format!("segment {}: not of {first} to {last}", segment.number))?;
        }
    }
    Ok(segments)
}

fn apply(store: &mut Store, segments: &[Segment], operations: &[(bool, &(u64, Operation))]) {
    // By id: the highest LSN, and what it left there.
    let mut newest: BTreeMap<u64, (u64, Option<Entry>)> = BTreeMap::new();
    let mut note = |id: u64, lsn: u64, entry: Option<Entry>| {
        let place = newest.entry(id).or_default();
        if lsn > place.0 {
            *place = (lsn, entry);
        }
    };
    for row in segments.iter().flat_map(|segment| &segment.groups).flat_map(|group| &group.rows) {
        store.saw("rows", 1);
        store.saw("rows with vectors", usize::from(row.entry.vector.is_some()));
        store.last_lsn = store.last_lsn.max(row.entry.version);
        note(row.entry.id, row.entry.version, Some(row.entry.clone()));
    }
    let mut dropped = Vec::new();
    for (archived, (lsn, operation)) in operations {
        store.last_lsn = store.last_lsn.max(*lsn);
        let kind = match operation {
            Operation::Put(entry) => {
                store.logged.insert(entry.id);
                note(entry.id, *lsn, Some((**entry).clone()));
                "puts"
            }
            Operation::Delete { id, expired } => {
                note(*id, *lsn, None);
                match (expired, archived) {
                    (true, _) => "expiries",
                    (false, true) => "archived deletes",
                    (false, false) => "deletes",
                }
            }
            Operation::Define(define) => {
                store.collections.insert(define.collection, define.clone());
                "defines"
            }
            Operation::Drop { collection } => {
                store.collections.remove(collection);
                dropped.push(*collection);
                "drops"
            }
            Operation::Setting { name, value } if value == "null" => {
                store.settings.remove(name);
                "settings"
            }
            Operation::Setting { name, value } => {
                store.settings.insert(name.clone(), value.clone());
                "settings"
            }
            Operation::Request => "requests",
        };
        store.saw(kind, 1);
    }
    let live = newest.into_iter().filter_map(|(id, (_, entry))| Some((id, entry?)));
    store.entries = live.filter(|(_, entry)| !dropped.contains(&entry.collection)).collect();
}

/// Holds everything derived against the archive.
fn derived(store: &mut Store, files: &Files, id: &[u8; 16], segments: &[Segment]) -> Read<()> {
    let mut archived: BTreeMap<(u64, u64), (u32, &Packed)> = BTreeMap::new();
    // A dropped collection had a metric, too.
    let mut metrics = BTreeMap::new();
    for (_, operation) in segments.iter().flat_map(|segment| &segment.operations) {
        if let Operation::Define(define) = operation {
            metrics.insert(define.collection, define.metric);
        }
    }
    let mut fingerprints: BTreeMap<(String, String), u64> = BTreeMap::new();
    for group in segments.iter().flat_map(|segment| &segment.groups) {
        let metric = metrics.get(&group.collection);
        let metric = metric.ok_or_else(|| format!("no define of {}", group.collection))?;
        codes::check(group, *metric)?;
        for (row, codes) in group.rows.iter().zip(&group.codes) {
            archived.insert((row.entry.id, row.entry.version), (group.collection, codes));
        }
        for row in &group.rows {
            let name = (row.entry.namespace.clone(), row.entry.key.clone());
            let known = *fingerprints.entry(name).or_insert(row.fingerprint);
            hold(known == row.fingerprint, || format!("fingerprint of {}", row.entry.key))?;
        }
    }
    for (number, file) in numbered(files, "arena/", ".blk") {
        let block = soft::arena(file, id, number)?;
        store.saw(if block.bits == 8 { "8-bit blocks" } else { "4-bit blocks" }, 1);
        for (id, version, codes) in &block.rows {
            let Some((collection, exact)) = archived.get(&(*id, *version)) else { continue };
            let same =
                if block.bits == 8 { codes == *exact } else { codes.agrees(&exact.narrowed()) };
            hold(same && *collection == block.collection, || {
                format!("arena block {number}: {id} is {codes:?}, of {exact:?}")
            })?;
            store.packed.insert(*id, block.bits);
        }
    }
    let columns = numbered(files, "columns/", ".col")
        .map(|(number, file)| soft::columns(file, number))
        .collect::<Read<Vec<_>>>()?;
    store.saw("columns", columns.len());
    store.accesses = soft::accesses(&columns);
    if let Some(file) = files.get("columns/hot") {
        store.hot = soft::hot(file, id)?;
    }
    if let Some(file) = files.get("columns/moves") {
        let moves = soft::moves(file, id)?;
        store.saw("moves", moves.len());
        for (id, bits) in &store.packed {
            let last = moves.iter().rev().find(|(moved, ..)| moved == id);
            let to = if *bits == 8 { 1 } else { 2 };
            let agrees = last.is_none_or(|(_, _, _, last)| *last == to);
            hold(agrees, || format!("{id} has {bits} bits, but moved {last:?}"))?;
        }
    }
    if let Some(file) = files.get("index.redb") {
        store.saw("index pages", soft::index(file)?.len());
    }
    Ok(())
}
