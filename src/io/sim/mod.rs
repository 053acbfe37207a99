//! A disk that remembers what was synced, and can crash, tear, reorder, rot and fail.
//!
//! It lives in RAM and answers as a real disk would. Beside what a reader sees it keeps what is
//! durable, and every change in between in order. From that it builds the disks a crash may leave.
//!
//! 1. Run the program on a [`SimDisk`], recording.
//! 2. At every call, build crash images ([`Recording::images_at`], [`SimDisk::crash_images`]) under
//!    a [`Profile`], and leave out the ones already seen ([`SimDisk::image_hash`]).
//! 3. Open each image with the program and compare with what it had acknowledged by then.
//! 4. Apart from crashes: let calls fail ([`SimDisk::fail_at`]), let the process die
//!    ([`SimDisk::kill_at`]), let bytes rot ([`SimDisk::flip_bit`]).
//!
//! Mutating calls are numbered from 0, failed ones included: create, write, set_len, sync, rename,
//! remove, create_dir, sync_dir. An operation that the disk cannot do (a missing name) keeps its
//! number and changes nothing.
//!
//! Everything follows from the seed and the calls: no clock, no randomness of the machine. Writing
//! costs a copy of the bytes and of the 4-KiB pages they touch, never of a file; images share the
//! pages they have in common.
//!
//! It never models damage to bytes a write did not touch, a rename that is half there, or a folder
//! that loses names it had synced.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::lock::{Hold, Lock};
use super::{Disk, File, OpenMode, name};

mod content;
mod damage;
mod faults;
mod handle;
mod images;
mod recording;
mod room;
mod state;
#[cfg(test)]
mod tests;

pub use faults::Fault;
pub use images::{Limits, Profile};
pub use recording::Recording;

use content::mix;
use faults::{Call, Faults, Target};
use handle::SimFile;
use recording::{Log, Origin};
use state::{Node, Op, State};

/// A simulated directory. Clones share it.
///
/// ```
/// use pmll::io::sim::{Profile, SimDisk};
/// use pmll::io::{Disk, OpenMode};
/// let disk = SimDisk::new(7);
/// let file = disk.open("a", OpenMode::CreateNew)?;
/// disk.sync_dir("")?;
/// file.write_at(b"never synced", 0)?;
/// let images = disk.crash_images(Profile::Posix, 100);
/// let lost = images.iter().filter(|image| image.durable_bytes("a").as_deref() == Some(b""));
/// assert!(lost.count() > 0, "a crash may lose it");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct SimDisk {
    shell: Arc<Mutex<Shell>>,
}

/// The state and what surrounds it in one process: counters, faults, handles, locks.
struct Shell {
    state: State,
    seed: u64,
    ops: u64,
    reads: u64,
    looks: u64,
    faults: Faults,
    capacity_bytes: Option<u64>,
    kill_at: Option<u64>,
    killed: bool,
    log: Option<Log>,
    handles: BTreeMap<u64, u32>,
    locks: BTreeMap<u64, Lock>,
    origin: Option<Origin>,
}

impl SimDisk {
    /// An empty disk. The seed decides every random choice of its crash images.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::with_state(State::default(), seed, None)
    }

    fn image(state: State, seed: u64, origin: Origin) -> SimDisk {
        SimDisk::with_state(state, mix(seed), Some(origin))
    }

    fn with_state(state: State, seed: u64, origin: Option<Origin>) -> SimDisk {
        let shell = Shell {
            state,
            seed,
            ops: 0,
            reads: 0,
            looks: 0,
            faults: Faults::default(),
            capacity_bytes: None,
            kill_at: None,
            killed: false,
            log: None,
            handles: BTreeMap::new(),
            locks: BTreeMap::new(),
            origin,
        };
        SimDisk { shell: Arc::new(Mutex::new(shell)) }
    }

    /// Mutating calls so far: the number the next one gets.
    #[must_use]
    pub fn op_count(&self) -> u64 {
        self.shell.lock().ops
    }

    /// Calls of `read_at` so far.
    #[must_use]
    pub fn read_count(&self) -> u64 {
        self.shell.lock().reads
    }

    /// Changes that no sync has made durable.
    #[must_use]
    pub fn pending_count(&self) -> usize {
        self.shell.lock().state.pending_count()
    }

    /// Looks so far: calls of `len` and `list`, and of `open` for what is there already.
    #[must_use]
    pub fn look_count(&self) -> u64 {
        self.shell.lock().looks
    }

    /// Lets the first mutating call at or after number `op` that the fault fits fail, and if
    /// `sticky` every later one too. Several may be armed; the one armed first wins.
    pub fn fail_at(&self, op: u64, fault: Fault, sticky: bool) {
        self.fail_times(op, fault, if sticky { u64::MAX } else { 1 });
    }

    /// The same for so many calls that it fits, after which the disk is well again; `u64::MAX` is for
    /// ever.
    pub fn fail_times(&self, op: u64, fault: Fault, times: u64) {
        self.shell.lock().faults.arm(op, Target::Call(fault), times);
    }

    /// Lets `read_at` calls from number `read` on fail with an I/O error, so many of them.
    pub fn fail_reads(&self, read: u64, times: u64) {
        self.shell.lock().faults.arm(read, Target::Read, times);
    }

    /// Lets looks from number `look` on (see [`look_count`](SimDisk::look_count)) fail with an I/O
    /// error, so many of them.
    pub fn fail_looks(&self, look: u64, times: u64) {
        self.shell.lock().faults.arm(look, Target::Look, times);
    }

    /// For every fault in the order in which they were armed: how often it fired, and how often it
    /// still will.
    #[must_use]
    pub fn fault_counts(&self) -> Vec<(u64, u64)> {
        self.shell.lock().faults.counts()
    }

    /// Disarms all faults: space was freed, the cable is back.
    pub fn clear_faults(&self) {
        self.shell.lock().faults.clear();
    }

    /// Lets the process die at mutating call number `op`: that call does nothing, and from it on
    /// every call on this disk and its files fails. Go on with [`fork_now`](SimDisk::fork_now) or
    /// [`crash_images`](SimDisk::crash_images).
    pub fn kill_at(&self, op: u64) {
        self.shell.lock().kill_at = Some(op);
    }

    /// Whether a call met the number given to [`kill_at`](SimDisk::kill_at).
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.shell.lock().killed
    }

    /// An independent copy as another process would find it: same contents, the same changes still
    /// pending, no lock held, no fault armed, counters at zero.
    #[must_use]
    pub fn fork_now(&self) -> SimDisk {
        let shell = self.shell.lock();
        let mut state = shell.state.clone();
        state.collect(|_| false);
        SimDisk::with_state(state, shell.seed, shell.origin)
    }

    /// A hash over the durable names and contents, the same on every machine: two images with one
    /// hash are one image.
    #[must_use]
    pub fn image_hash(&self) -> u128 {
        self.shell.lock().state.durable_hash()
    }

    /// Where a crash image came from (call, profile, plan), for reports; empty for other disks.
    #[must_use]
    pub fn label(&self) -> String {
        match self.shell.lock().origin {
            Some((op, profile, plan)) => format!("before call {op}, {profile:?}, {plan:?}"),
            None => String::new(),
        }
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shell = self.shell.lock();
        let pending = shell.state.pending_count();
        write!(f, "SimDisk({} calls, {pending} changes pending)", shell.ops)
    }
}

impl Shell {
    fn check_alive(&self) -> io::Result<()> {
        if self.killed { Err(io::Error::other("simulated crash of the process")) } else { Ok(()) }
    }

    /// Runs one mutating call: numbers it, asks the faults, applies and records what it did.
    /// `work` says what happens without a fault; `spoilt` what a fault leaves of it.
    fn call(
        &mut self,
        call: Call,
        work: impl FnOnce(&State) -> io::Result<Op>,
        spoilt: impl FnOnce(Op, Fault) -> Op,
    ) -> io::Result<()> {
        self.check_alive()?;
        if self.kill_at.is_some_and(|at| self.ops >= at) {
            self.killed = true;
            return self.check_alive();
        }
        let seq = self.ops;
        self.ops += 1;
        let (op, answer) = match (work(&self.state), self.faults.fire(seq, call)) {
            (Ok(op), None) => (op, Ok(())),
            (Ok(op), Some(fault)) => (spoilt(op, fault), Err(fault.error())),
            (Err(e), None) => (Op::Nothing, Err(e)),
            (Err(_), Some(fault)) => (Op::Nothing, Err(fault.error())),
        };
        self.state.apply(&op, true);
        if let Some(log) = &mut self.log {
            log.ops.push(op);
        }
        answer
    }

    /// A call that changes nothing and reads no bytes.
    fn look(&mut self) -> io::Result<()> {
        self.check_alive()?;
        let look = self.looks;
        self.looks += 1;
        if self.faults.fire_look(look) { Err(Fault::Eio.error()) } else { Ok(()) }
    }

    fn exchange(&mut self, inode: u64, held: &mut Hold, wanted: Hold) -> bool {
        self.locks.entry(inode).or_default().exchange(held, wanted)
    }

    fn check_folder(state: &State, folder: &str) -> io::Result<()> {
        if state.is_folder(folder) { Ok(()) } else { Err(missing(folder)) }
    }

    fn check_no_folder(state: &State, name: &str) -> io::Result<()> {
        if state.is_folder(name) {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, format!("{name} is a folder")));
        }
        Ok(())
    }
}

fn nothing(_: Op, _: Fault) -> Op {
    Op::Nothing
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no {name}"))
}

impl Disk for SimDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let (folder, _) = name::split(name)?;
        let mut shell = self.shell.lock();
        shell.check_alive()?;
        if mode == OpenMode::CreateNew {
            let create = |state: &State| {
                Shell::check_folder(state, folder)?;
                if state.live.contains_key(name) {
                    let message = format!("{name} is there already");
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
                }
                Ok(Op::Create { name: Arc::from(name), inode: state.next_inode })
            };
            shell.call(Call::Create, create, nothing)?;
        } else {
            shell.look()?;
        }
        Shell::check_no_folder(&shell.state, name)?;
        let Some(Node::File(inode)) = shell.state.live.get(name).copied() else {
            return Err(missing(name));
        };
        *shell.handles.entry(inode).or_insert(0) += 1;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            inode,
            writable: mode != OpenMode::Read,
            hold: Mutex::default(),
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (folder, ..) = name::split_rename(from, to)?;
        let rename = |state: &State| {
            Shell::check_folder(state, folder)?;
            Shell::check_no_folder(state, from)?;
            Shell::check_no_folder(state, to)?;
            if !state.live.contains_key(from) {
                return Err(missing(from));
            }
            if from == to {
                return Ok(Op::Nothing);
            }
            Ok(Op::Rename { from: Arc::from(from), to: Arc::from(to) })
        };
        self.shell.lock().call(Call::Move, rename, nothing)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        name::split(name)?;
        let remove = |state: &State| {
            Shell::check_no_folder(state, name)?;
            if !state.live.contains_key(name) {
                return Err(missing(name));
            }
            Ok(Op::Remove { name: Arc::from(name) })
        };
        self.shell.lock().call(Call::Move, remove, nothing)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        name::check_folder(folder)?;
        let mut shell = self.shell.lock();
        shell.look()?;
        let names = shell.state.live.keys().filter_map(|path| {
            let (parent, leaf) = path.rsplit_once('/').unwrap_or(("", path));
            (parent == folder).then(|| leaf.to_owned())
        });
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir(&self, folder: &str) -> io::Result<()> {
        name::check_folder(folder)?;
        let create = |state: &State| match state.live.get(folder) {
            Some(Node::File(_)) => {
                let message = format!("{folder} is a file");
                Err(io::Error::new(io::ErrorKind::NotADirectory, message))
            }
            Some(Node::Folder) => Ok(Op::Nothing),
            None if folder.is_empty() => Ok(Op::Nothing),
            None => Ok(Op::MakeDir { name: Arc::from(folder) }),
        };
        self.shell.lock().call(Call::Create, create, nothing)
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        name::check_folder(folder)?;
        let mut shell = self.shell.lock();
        let sync = |state: &State| {
            Shell::check_folder(state, folder)?;
            Ok(Op::SyncDir { folder: Arc::from(folder) })
        };
        let answer = shell.call(Call::Sync, sync, |_, _| Op::Nothing);
        let Shell { state, handles, .. } = &mut *shell;
        state.collect(|inode| handles.contains_key(&inode));
        answer
    }

    fn free_bytes(&self) -> Option<u64> {
        None
    }
}
