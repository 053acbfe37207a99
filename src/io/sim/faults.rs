//! Errors on order: the n-th mutating call fails, once or from then on.
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

/// The faults that are armed.
#[derive(Debug, Default)]
pub(super) struct Faults {
    armed: Vec<Armed>,
    reads: Option<(u64, bool)>,
}

#[derive(Debug)]
struct Armed {
    from: u64,
    fault: Fault,
    sticky: bool,
}

impl Faults {
    pub(super) fn arm(&mut self, from: u64, fault: Fault, sticky: bool) {
        self.armed.push(Armed { from, fault, sticky });
    }

    pub(super) fn arm_reads(&mut self, from: u64, sticky: bool) {
        self.reads = Some((from, sticky));
    }

    pub(super) fn clear(&mut self) {
        *self = Faults::default();
    }

    /// The fault that mutating call number `op` meets. One that is not sticky is spent by it.
    pub(super) fn fire(&mut self, op: u64, call: Call) -> Option<Fault> {
        let at = self.armed.iter().position(|a| op >= a.from && a.fault.fits(call))?;
        let fault = self.armed.get(at)?.fault;
        if self.armed.get(at).is_some_and(|armed| !armed.sticky) {
            self.armed.remove(at);
        }
        Some(fault)
    }

    /// Whether read number `read` fails.
    pub(super) fn fire_read(&mut self, read: u64) -> bool {
        match self.reads {
            Some((from, sticky)) if read >= from => {
                if !sticky {
                    self.reads = None;
                }
                true
            }
            _ => false,
        }
    }
}
