//! A run, kept as its calls, and the crash images at every point of it.
//!
//! A recording holds the state of the disk when it began and every mutating call since, with the
//! bytes shared with the disk. The state at any call is replayed from there; walking forward through
//! a run replays each call once.

use std::collections::HashSet;

use parking_lot::Mutex;

use super::SimDisk;
use super::images::{self, Limits, Profile};
use super::state::{Node, Op, State};

/// The mutating calls of a run, from [`SimDisk::record`] to [`SimDisk::recording`].
///
/// ```
/// use pmll::io::sim::{Limits, Profile, SimDisk};
/// use pmll::io::{Disk, OpenMode};
/// let disk = SimDisk::new(1);
/// disk.record();
/// disk.open("a", OpenMode::CreateNew)?.write_at(b"text", 0)?; // calls 0 and 1
/// disk.sync_dir("")?; // call 2
/// let run = disk.recording().expect("it was recording");
/// for call in run.first_op()..=run.end_op() {
///     for image in run.images_at(call, Profile::Posix, &Limits::default()) {
///         // The name may be there without the bytes, and after call 2 it must be there.
///         assert!(call < 3 || image.file_names() == ["a"], "{}", image.label());
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Recording {
    base: State,
    first: u64,
    ops: Vec<Op>,
    seed: u64,
    /// The state last replayed, honest and lying: the next question is mostly about the next call.
    reached: [Mutex<Option<(u64, State)>>; 2],
}

/// What a recording disk keeps.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) base: State,
    pub(super) first: u64,
    pub(super) ops: Vec<Op>,
}

impl Recording {
    pub(super) fn new(log: &Log, seed: u64) -> Recording {
        let (base, ops) = (log.base.clone(), log.ops.clone());
        Recording {
            base,
            first: log.first,
            ops,
            seed,
            reached: [Mutex::new(None), Mutex::new(None)],
        }
    }

    /// Number of the first call recorded.
    #[must_use]
    pub fn first_op(&self) -> u64 {
        self.first
    }

    /// One more than the number of the last call recorded.
    #[must_use]
    pub fn end_op(&self) -> u64 {
        self.first + self.ops.len() as u64
    }

    /// The images that a crash may leave once all calls before number `op` have returned; calls
    /// that no sync has confirmed by then count as still under way. Numbers outside the run are
    /// moved to its ends.
    #[must_use]
    pub fn images_at(&self, op: u64, profile: Profile, limits: &Limits) -> Vec<SimDisk> {
        let op = op.clamp(self.first, self.end_op());
        self.with_state(op, profile != Profile::Lying, |state| {
            images::enumerate(state, profile, limits, self.seed ^ op)
                .into_iter()
                .map(|(plan, state)| SimDisk::image(state, self.seed, (op, profile, plan)))
                .collect()
        })
    }

    /// The same without images whose hash was seen before; new hashes are added to `seen`.
    #[must_use]
    pub fn distinct_images_at(
        &self,
        op: u64,
        profile: Profile,
        limits: &Limits,
        seen: &mut HashSet<u128>,
    ) -> Vec<SimDisk> {
        let mut images = self.images_at(op, profile, limits);
        images.retain(|image| seen.insert(image.image_hash()));
        images
    }

    /// Call number `op` in words, for reports; empty outside the run.
    #[must_use]
    pub fn describe(&self, op: u64) -> String {
        let index = op.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let Some(call) = index.and_then(|index| self.ops.get(index)) else {
            return String::new();
        };
        let file = |inode: &u64| {
            self.with_state(op, true, |state| {
                let named = state.live.iter().find(|(_, node)| **node == Node::File(*inode));
                named.map_or_else(|| format!("unnamed file {inode}"), |(name, _)| name.to_string())
            })
        };
        match call {
            Op::Create { name, .. } => format!("create {name}"),
            Op::MakeDir { name } => format!("create folder {name}"),
            Op::Write { inode, offset, data } => {
                format!("write {} bytes to {} at {offset}", data.len(), file(inode))
            }
            Op::SetLen { inode, len } => format!("set length of {} to {len}", file(inode)),
            Op::Sync { inode } => format!("sync {}", file(inode)),
            Op::SyncLost { inode } => format!("failed sync of {}", file(inode)),
            Op::Rename { from, to } => format!("rename {from} to {to}"),
            Op::Remove { name } => format!("remove {name}"),
            Op::SyncDir { folder } => format!("sync folder {folder:?}"),
            Op::Nothing => "a call that failed".to_owned(),
        }
    }

    fn with_state<T>(&self, op: u64, honest: bool, work: impl FnOnce(&State) -> T) -> T {
        let mut reached = self.reached[usize::from(honest)].lock();
        let (mut at, mut state) = match reached.take() {
            Some((at, state)) if at <= op => (at, state),
            _ => (self.first, self.base.clone()),
        };
        let skip = usize::try_from(at - self.first).unwrap_or(usize::MAX);
        for call in self.ops.iter().skip(skip).take(usize::try_from(op - at).unwrap_or(usize::MAX))
        {
            state.apply(call, honest);
            at += 1;
        }
        let answer = work(&state);
        *reached = Some((at, state));
        answer
    }
}

impl SimDisk {
    /// Starts a recording at this point; an earlier one is forgotten. What is pending now belongs
    /// to the state the recording begins with.
    pub fn record(&self) {
        let mut shell = self.shell.lock();
        shell.log = Some(Log { base: shell.state.clone(), first: shell.ops, ops: Vec::new() });
    }

    /// The run recorded so far, if [`record`](SimDisk::record) was called. The disk goes on
    /// recording.
    #[must_use]
    pub fn recording(&self) -> Option<Recording> {
        let shell = self.shell.lock();
        shell.log.as_ref().map(|log| Recording::new(log, shell.seed))
    }

    /// The images that a crash at this moment may leave, at most `limit`: disks at rest, with
    /// nothing pending, no lock held, no fault armed.
    #[must_use]
    pub fn crash_images(&self, profile: Profile, limit: usize) -> Vec<SimDisk> {
        let limits = Limits { images: limit, ..Limits::default() };
        if profile == Profile::Lying
            && let Some(run) = self.recording()
        {
            return run.images_at(run.end_op(), profile, &limits);
        }
        let (state, seed, op) = {
            let shell = self.shell.lock();
            (shell.state.clone(), shell.seed, shell.ops)
        };
        images::enumerate(&state, profile, &limits, seed ^ op)
            .into_iter()
            .map(|(plan, state)| SimDisk::image(state, seed, (op, profile, plan)))
            .collect()
    }
}

/// Where an image came from.
pub(super) type Origin = (u64, Profile, images::Plan);
