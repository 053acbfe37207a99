//! Columns: the soft state of entries, kept by id: how often and when last accessed, and how near
//! to a query.
//!
//! It is soft: losing it costs rank, never data. So a touch goes to RAM only, a checkpoint writes
//! what came since the last one, and damage is answered by dropping the damaged piece with a
//! warning, never by an error for the caller's entry.
//!
//! The files (see [`sealed`]) hold increments. Each says which earlier numbers it stands for, so
//! that the newest readable file decides what else counts, whatever a crash left lying around:
//!
//! 1. most checkpoints write a small delta: the accesses since the last one;
//! 2. every eighth one writes a delta that stands for all deltas before it;
//! 3. when the deltas together pass a quarter of the snapshot (or 65,536 rows, as they are in
//!    RAM), all is merged into a new snapshot, which stands for everything before it, and the
//!    rows of removed entries go.
//!
//! RAM holds the deltas and eight bytes per block of the snapshot; the snapshot is read a block at
//! a time.
//!
//! Never: reads a clock, blocks a touch on the disk, or fails an open because a file is damaged.

use std::collections::BTreeMap;
use std::io::ErrorKind as IoKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::io::{Disk, join};
use crate::organs::columns::row::{NEVER, Row, merge};
use crate::organs::columns::sealed::{FOLDER, Sealed};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::{EntryId, Timestamp};

pub mod hot;
pub mod moves;
pub mod row;
pub mod sealed;
#[cfg(test)]
mod tests;

/// Deltas are folded into the snapshot from this many rows on, however small it is.
const DELTA_ROWS_MIN: usize = 1024;
/// And at this many, however large it is: they are resident.
const DELTA_ROWS_MAX: usize = 65_536;
/// Delta files that may stand beside each other before one replaces them.
const DELTA_FILES_MAX: usize = 8;
/// Estimate of a row in the ordered map, with its share of the nodes.
pub const MAP_ROW_BYTES: usize = 84;

/// What is known about the accesses of an entry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Access {
    /// How many were counted.
    pub count: u64,
    /// The last one; `None` when there was none.
    pub last: Option<Timestamp>,
    /// How many, each halved every 30 days up to the last one.
    pub heat: f32,
    /// Seconds between the last two; `None` when there were none.
    pub gap_s: Option<u32>,
    /// Greatest cosine to a query that scored the entry, in [0, 1].
    pub near: f32,
    /// When that was seen, to the second.
    pub near_at: Timestamp,
}

impl Default for Access {
    fn default() -> Access {
        let near_at = Timestamp(0);
        Access { count: 0, last: None, heat: 0.0, gap_s: None, near: 0.0, near_at }
    }
}

/// The columns of one store. All methods take `&self`.
#[derive(Debug)]
pub struct Columns {
    disk: Arc<dyn Disk>,
    read_only: bool,
    state: Mutex<State>,
    /// Held by the one checkpoint that is under way.
    checkpoint: Mutex<()>,
    written: AtomicU64,
    warned: AtomicBool,
}

type Fresh = BTreeMap<EntryId, Row>;

#[derive(Debug, Default)]
struct State {
    snapshot: Option<Arc<Sealed>>,
    /// Sum of the deltas on disk, sorted by id.
    deltas: Arc<Vec<Row>>,
    /// The delta files on disk, ascending.
    delta_files: Vec<DeltaFile>,
    /// What a checkpoint is writing.
    writing: Arc<Fresh>,
    /// Since the last checkpoint.
    fresh: Fresh,
    /// Number of the next file.
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct DeltaFile {
    number: u64,
    /// Lowest number that it stands for.
    covers: u64,
    bytes: u64,
}

impl DeltaFile {
    fn of(file: &Sealed) -> DeltaFile {
        DeltaFile { number: file.number(), covers: file.covers(), bytes: file.bytes() }
    }
}

impl State {
    fn add(&mut self, row: Row) {
        let sum = self.fresh.entry(row.id).and_modify(|old| *old = old.then(row));
        sum.or_insert(row);
    }
}

impl Columns {
    /// Opens the columns of a store; without any files they are empty. What is damaged or
    /// unreadable is left out with a warning. Left-over files are removed, unless read-only.
    /// Errors with `Io` when the folder cannot be listed or made.
    pub fn open(disk: Arc<dyn Disk>, read_only: bool) -> Result<Columns> {
        if !read_only {
            disk.create_dir(FOLDER).map_err(|e| Error::io(format!("create {FOLDER}/"), e))?;
        }
        let names = disk.list(FOLDER).map_err(|e| Error::io(format!("list {FOLDER}/"), e))?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|n| sealed::number_of(n)).collect();
        numbers.sort_unstable();
        let mut state = State { next: 1, ..State::default() };
        if let Some(last) = numbers.last() {
            state.next = last.saturating_add(1);
        }
        // From the newest down: a file counts until a newer one stands for it.
        let mut limit = u64::MAX;
        let mut left_over = Vec::new();
        for number in numbers.into_iter().rev() {
            if number >= limit {
                left_over.push(sealed::file_name(number));
                continue;
            }
            match load(disk.as_ref(), number, &mut state) {
                Ok(covers) => limit = covers,
                Err(error) => {
                    tracing::warn!("left out of the access counts: {error}");
                    if error.kind() == ErrorKind::Corrupt {
                        left_over.push(sealed::file_name(number));
                    }
                }
            }
        }
        state.delta_files.reverse();
        left_over.extend(names.into_iter().filter(|name| sealed::is_temporary(name)));
        if !read_only {
            remove_files(disk.as_ref(), &left_over);
        }
        Ok(Columns {
            disk,
            read_only,
            state: Mutex::new(state),
            checkpoint: Mutex::new(()),
            written: AtomicU64::new(0),
            warned: AtomicBool::new(false),
        })
    }

    /// Counts one access. RAM only; never fails.
    pub fn touch(&self, id: EntryId, now: Timestamp) {
        self.add(Row::access(id, now));
    }

    /// Remembers how near entries were to a query; only the greatest cosine counts, where older ones
    /// count less. RAM only.
    pub fn resemble(&self, near: impl IntoIterator<Item = (EntryId, f32)>, now: Timestamp) {
        let rows = near.into_iter().map(|(id, cosine)| Row::nearness(id, cosine, now));
        let rows: Vec<Row> = rows.filter(|row| row.near > 0).collect();
        // A search may have a million hits, and others wait for the lock.
        for some in rows.chunks(1024) {
            let mut state = self.state.lock();
            some.iter().for_each(|row| state.add(*row));
        }
    }

    /// Forgets an entry that was removed; its row goes with the next snapshot.
    pub fn remove(&self, id: EntryId) {
        self.add(Row::gone(id));
    }

    fn add(&self, row: Row) {
        self.state.lock().add(row);
    }

    /// What is known about an entry. Reads at most one block of 4 KiB; a damaged one counts as
    /// empty, with a warning.
    pub fn get(&self, id: EntryId) -> Access {
        let (snapshot, newer) = {
            let state = self.state.lock();
            let delta = state.deltas.binary_search_by_key(&id, |row| row.id).ok();
            let delta = delta.and_then(|at| state.deltas.get(at)).copied();
            let newer = [delta, state.writing.get(&id).copied(), state.fresh.get(&id).copied()];
            (state.snapshot.clone(), newer)
        };
        let older = snapshot.and_then(|file| {
            file.find(id).unwrap_or_else(|error| {
                self.warn(&error);
                None
            })
        });
        let sum = std::iter::once(older).chain(newer).flatten().reduce(Row::then);
        match sum {
            Some(row) if !row.removed => Access {
                count: u64::from(row.count),
                last: (row.count > 0).then_some(row.last),
                heat: row.heat,
                gap_s: (row.gap_s != NEVER).then_some(row.gap_s),
                near: f32::from(row.near) / f32::from(u16::MAX),
                near_at: Timestamp(i64::from(row.near_s) * 1_000_000),
            },
            _ => Access::default(),
        }
    }

    /// Said once, not once for every entry of a damaged block.
    fn warn(&self, error: &Error) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!("some access counts are lost: {error}");
        }
    }

    /// Makes every access so far durable; how many bytes that took. After an error everything is
    /// still in RAM and the next checkpoint tries again. Errors with `Full`, `Io` or `ReadOnly`.
    pub fn checkpoint(&self) -> Result<u64> {
        if self.read_only {
            let message = "the access counts were opened read-only";
            return Err(Error::new(ErrorKind::ReadOnly, message));
        }
        let _one_at_a_time = self.checkpoint.lock();
        let job = {
            let mut state = self.state.lock();
            if state.fresh.is_empty() {
                return Ok(0);
            }
            state.writing = Arc::new(std::mem::take(&mut state.fresh));
            Job::of(&state)
        };
        let result = job.write(self.disk.as_ref(), &|error| self.warn(error));
        let mut state = self.state.lock();
        let writing = std::mem::take(&mut state.writing);
        let file = match result {
            Ok(file) => file,
            // The next one takes the same number, and so replaces a file that may be there after
            // all.
            Err(error) => {
                let newer = std::mem::take(&mut state.fresh);
                let older = writing.values().copied();
                let all = merge(older, newer.into_values()).map(|row| (row.id, row));
                state.fresh = all.collect();
                return Err(error);
            }
        };
        state.next = state.next.saturating_add(1);
        let bytes = file.bytes();
        self.written.fetch_add(bytes, Ordering::Relaxed);
        let left_over = job.finish(&mut state, file);
        drop(state);
        remove_files(self.disk.as_ref(), &left_over);
        Ok(bytes)
    }

    /// Entries touched since the last checkpoint, which makes them durable and lets most of their RAM
    /// go.
    #[must_use]
    pub fn fresh_rows(&self) -> usize {
        self.state.lock().fresh.len()
    }

    /// RAM that grows with the number of entries and touches.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let state = self.state.lock();
        let maps = (state.fresh.len() + state.writing.len()) * MAP_ROW_BYTES;
        let deltas = state.deltas.capacity() * size_of::<Row>();
        let snapshot = state.snapshot.as_ref().map_or(0, |file| file.resident_bytes());
        (maps + deltas) as u64 + snapshot
    }

    /// Bytes of the files that count.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        let state = self.state.lock();
        let deltas: u64 = state.delta_files.iter().map(|file| file.bytes).sum();
        deltas + state.snapshot.as_ref().map_or(0, |file| file.bytes())
    }

    /// Bytes written since the open.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

/// Takes a file into the state; the lowest number that it stands for.
fn load(disk: &dyn Disk, number: u64, state: &mut State) -> Result<u64> {
    let file = Sealed::open(disk, number)?;
    let covers = file.covers();
    if covers == 0 {
        state.snapshot = Some(Arc::new(file));
        return Ok(covers);
    }
    let mut rows = Vec::new();
    for block in 0..file.blocks() {
        file.block(block, &mut rows)?;
    }
    if !rows.is_sorted_by(|a, b| a.id < b.id) {
        let name = sealed::file_name(number);
        return Err(Error::corrupt(format!("{FOLDER}/{name}: its rows are not sorted")));
    }
    // Files come newest first.
    state.deltas = Arc::new(merge(rows.into_iter(), state.deltas.iter().copied()).collect());
    state.delta_files.push(DeltaFile::of(&file));
    Ok(covers)
}

/// Best effort: what stays is ignored by the next open and removed then.
fn remove_files(disk: &dyn Disk, names: &[String]) {
    for name in names {
        match disk.remove(&join(FOLDER, name)) {
            Ok(()) => {}
            Err(e) if e.kind() == IoKind::NotFound => {}
            Err(e) => tracing::warn!("cannot remove {FOLDER}/{name}: {e}"),
        }
    }
}

/// What one checkpoint writes, and the state it was planned on.
struct Job {
    number: u64,
    covers: u64,
    snapshot: Option<Arc<Sealed>>,
    deltas: Arc<Vec<Row>>,
    writing: Arc<Fresh>,
}

impl Job {
    fn of(state: &State) -> Job {
        let quarter = state.snapshot.as_ref().map_or(0, |file| file.rows() / 4);
        let quarter = usize::try_from(quarter).unwrap_or(usize::MAX);
        let rows_max = quarter.clamp(DELTA_ROWS_MIN, DELTA_ROWS_MAX);
        // Not the first number but what that file stands for: files that should be gone may be
        // there still, and must never count again.
        let first = state.delta_files.first().map(|file| file.covers);
        let covers = if state.deltas.len() + state.writing.len() > rows_max {
            0
        } else if state.delta_files.len() + 1 >= DELTA_FILES_MAX {
            first.unwrap_or(state.next)
        } else {
            state.next
        };
        Job {
            number: state.next,
            covers,
            snapshot: state.snapshot.clone().filter(|_| covers == 0),
            deltas: state.deltas.clone(),
            writing: state.writing.clone(),
        }
    }

    fn write(&self, disk: &dyn Disk, warn: &dyn Fn(&Error)) -> Result<Sealed> {
        let new = self.writing.values().copied();
        if self.covers == self.number {
            return sealed::write(disk, self.number, self.covers, new);
        }
        let newer = merge(self.deltas.iter().copied(), new);
        if self.covers > 0 {
            return sealed::write(disk, self.number, self.covers, newer);
        }
        let blocks = self.snapshot.as_ref().map_or(0, |file| file.blocks());
        let older = (0..blocks).flat_map(|block| {
            let mut rows = Vec::with_capacity(sealed::BLOCK_ROWS);
            if let Some(Err(error)) = self.snapshot.as_ref().map(|f| f.block(block, &mut rows)) {
                warn(&error);
            }
            rows
        });
        let all = merge(older, newer).filter(|row| !row.removed);
        sealed::write(disk, self.number, self.covers, all)
    }

    /// Puts the new file in place of what it stands for; the names that are left over.
    fn finish(&self, state: &mut State, file: Sealed) -> Vec<String> {
        let mut left_over = Vec::new();
        if self.covers < self.number {
            let replaced = state.delta_files.drain(..);
            left_over.extend(replaced.map(|file| sealed::file_name(file.number)));
        }
        if self.covers == 0 {
            let old = state.snapshot.replace(Arc::new(file));
            left_over.extend(old.map(|file| sealed::file_name(file.number())));
            state.deltas = Arc::default();
        } else {
            let new = self.writing.values().copied();
            let all: Vec<Row> = merge(self.deltas.iter().copied(), new).collect();
            state.deltas = Arc::new(all);
            state.delta_files.push(DeltaFile::of(&file));
        }
        left_over
    }
}
