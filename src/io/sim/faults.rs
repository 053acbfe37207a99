//! Errors on order: the n-th mutating call fails, once, some times, or from then on; so does the n-th
//! read, and the n-th look at names and lengths.
//!
//! A fault fires at the first call at or after its number that it fits: a short write waits for a
//! write, a failing sync for a sync. So a loop over all numbers and all faults meets every call
//! that can fail, and a fault is never lost on a call where it would mean nothing.

use std::io;

/// A way for a call to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The call fails with an unspecific I/O error and does nothing. Fits every mutating call.
    Eio,
    /// No space left, and nothing done. Fits writes, lengths, and the creation of names.
    Enospc,
    /// The first half of the bytes is written, then the call fails (`WriteZero`). Fits writes.
    ShortWrite,
    /// The sync fails. The writes of a file that it should have made durable are dropped: reads go on
    /// showing them, and no later sync brings them to the disk. The names of a folder stay pending:
    /// they are metadata, which file systems keep in a journal; one that cannot write its journal
    /// turns read-only, and then nothing later succeeds either. Fits syncs of files and folders.
    SyncFails,
    /// Interrupted, and nothing done. Fits every mutating call.
    Eintr,
}

impl Fault {
    /// All of them, for loops.
    pub const ALL: [Fault; 5] =
        [Fault::Eio, Fault::Enospc, Fault::ShortWrite, Fault::SyncFails, Fault::Eintr];

    pub(super) fn error(self) -> io::Error {
        let (kind, message) = match self {
            Fault::Eio => (io::ErrorKind::Other, "simulated I/O error"),
            Fault::Enospc => (io::ErrorKind::StorageFull, "simulated full disk"),
            Fault::ShortWrite => (io::ErrorKind::WriteZero, "simulated short write"),
            Fault::SyncFails => (io::ErrorKind::Other, "simulated sync failure"),
            Fault::Eintr => (io::ErrorKind::Interrupted, "simulated interruption"),
        };
        io::Error::new(kind, message)
    }

    fn fits(self, call: Call) -> bool {
        match self {
            Fault::Eio | Fault::Eintr => true,
            Fault::Enospc => matches!(call, Call::Write | Call::SetLen | Call::Create),
            Fault::ShortWrite => call == Call::Write,
            Fault::SyncFails => call == Call::Sync,
        }
    }
}

/// What a mutating call does, as far as faults care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Write,
    SetLen,
    Create,
    Move,
    Sync,
}

/// The faults that are armed, and those that were.
#[derive(Debug, Default)]
pub(super) struct Faults {
    armed: Vec<Armed>,
}

/// Which calls a fault is for; each kind has numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A mutating call.
    Call(Fault),
    Read,
    Look,
}

#[derive(Debug)]
struct Armed {
    from: u64,
    target: Target,
    fired: u64,
    left: u64,
}

impl Faults {
    pub(super) fn arm(&mut self, from: u64, target: Target, times: u64) {
        self.armed.push(Armed { from, target, fired: 0, left: times });
    }

    pub(super) fn clear(&mut self) {
        *self = Faults::default();
    }

    /// How often each fired and will fire, in the order in which they were armed.
    pub(super) fn counts(&self) -> Vec<(u64, u64)> {
        self.armed.iter().map(|armed| (armed.fired, armed.left)).collect()
    }

    /// The fault that mutating call number `op` meets, one time of it.
    pub(super) fn fire(&mut self, op: u64, call: Call) -> Option<Fault> {
        let fits = |target| matches!(target, Target::Call(fault) if fault.fits(call));
        match self.spend(op, fits)? {
            Target::Call(fault) => Some(fault),
            Target::Read | Target::Look => None,
        }
    }

    /// Whether read number `read` fails.
    pub(super) fn fire_read(&mut self, read: u64) -> bool {
        self.spend(read, |target| target == Target::Read).is_some()
    }

    /// Whether look number `look` fails.
    pub(super) fn fire_look(&mut self, look: u64) -> bool {
        self.spend(look, |target| target == Target::Look).is_some()
    }

    fn spend(&mut self, number: u64, fits: impl Fn(Target) -> bool) -> Option<Target> {
        let met = |a: &&mut Armed| a.left > 0 && number >= a.from && fits(a.target);
        let armed = self.armed.iter_mut().find(met)?;
        armed.fired += 1;
        // One for ever is never spent.
        armed.left = armed.left.saturating_sub(u64::from(armed.left != u64::MAX));
        Some(armed.target)
    }
}
