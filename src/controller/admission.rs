//! Admission: which writes may join the queue, and what the others wait for.
//!
//! Three things have an end, and a write that would go beyond one waits, a bounded time, for the
//! thread that makes room; then it fails with `Full`:
//! 1. records in RAM that are not archived, and the log's bytes: a checkpoint empties both;
//! 2. bytes counted against the budget: above the hard cap the compressor runs first;
//! 3. the disk: the reserve has to be whole (see `organs/reserve`).
//!
//! A batch counts with at most an eighth of the budget, or one larger than its share would never be
//! let in: it may exceed the cap by the rest of its size, until the checkpoint that it causes.
//!
//! A run that found nothing left to move, above the cap, is not repeated at every write: for a while, ten times as
//! long as it took and at least a second, writes fail at once. Whatever may change its outcome (a
//! removal, another budget, a run that was asked for) ends that.
//!
//! Never: keeps a removal out.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::controller::commit::Request;
use crate::controller::engine::Engine;
use crate::pure::policy::CAP_SHARE;
use crate::words::error::{Error, ErrorKind, Result};

/// Waiters look again at least this often.
const STEP: Duration = Duration::from_millis(20);
/// How long a run that came to nothing keeps the next one away, at least.
const STUCK_MIN: Duration = Duration::from_secs(1);

/// What keeps a write out.
enum Wanting {
    /// A checkpoint.
    Checkpoint,
    /// A run of the compressor.
    Compress,
}

impl Engine {
    /// Blocks until there is room for a request.
    pub fn wait_for_room(&self, request: &Request) -> Result<()> {
        if self.options.background {
            self.wait_for_others(request)
        } else {
            self.make_room(request)
        }
    }

    /// What a request lacks, if anything.
    fn lacks(&self, request: &Request) -> Option<Wanting> {
        let cap = self.log_bytes_max();
        let share = request.bytes.min(cap / 2);
        let queued = self.queue.lock().bytes;
        let unarchived = self.view.load().hot_bytes().max(self.log_bytes.load(Ordering::Acquire));
        if unarchived + queued + share > cap && unarchived + queued > 0 {
            return Some(Wanting::Checkpoint);
        }
        self.is_over_with(share, CAP_SHARE).then_some(Wanting::Compress)
    }

    /// Makes room on this thread, where there is no other.
    fn make_room(&self, request: &Request) -> Result<()> {
        if matches!(self.lacks(request), Some(Wanting::Checkpoint)) {
            self.checkpoint()?;
        }
        if !matches!(self.lacks(request), Some(Wanting::Compress)) {
            return Ok(());
        }
        if !self.is_stuck() {
            self.make_fit()?;
        }
        match self.lacks(request) {
            Some(Wanting::Compress) => Err(self.over_budget()),
            _ => Ok(()),
        }
    }

    /// Waits for the background thread.
    fn wait_for_others(&self, request: &Request) -> Result<()> {
        let begun = self.clock.elapsed();
        let mut slept = Duration::ZERO;
        while let Some(wanting) = self.lacks(request) {
            // A clock that stands still is no reason to wait for ever.
            let waited = self.clock.elapsed().saturating_sub(begun).max(slept);
            match wanting {
                Wanting::Checkpoint if waited >= self.options.full_wait_max => {
                    return Err(self.unarchived());
                }
                // Whoever waits asks again and again, also while one is made.
                Wanting::Checkpoint if self.checkpoint_is_due() => {
                    self.wake.notify(|wish| wish.due = true);
                }
                Wanting::Checkpoint => self.wake.notify(|wish| wish.checkpoint = true),
                Wanting::Compress if self.is_stuck() || waited >= self.options.full_wait_max => {
                    return Err(self.over_budget());
                }
                Wanting::Compress => self.wake.notify(|wish| wish.compress = true),
            }
            if !self.room.wait(STEP) {
                slept += STEP;
            }
            self.poison.check()?;
            if self.closed.load(Ordering::Acquire) {
                return Err(Error::new(ErrorKind::Closed, "the store is closed"));
            }
        }
        Ok(())
    }

    fn is_stuck(&self) -> bool {
        self.stuck_until.lock().is_some_and(|until| self.clock.elapsed() < until)
    }

    /// A run took so long. If nothing can go down any more (`is_spent`), and what stays leaves less room
    /// than the largest share of a request, the next one has to wait. What others wrote meanwhile it
    /// could not move yet: what was unarchived before or after counting, as either may change beside it.
    pub fn note_run(&self, is_spent: bool, took: Duration) {
        let unarchived = || self.view.load().hot_bytes() + self.queue.lock().bytes;
        let before = unarchived();
        let counted = self.counted_bytes();
        let others = before.max(unarchived()) + self.caches.pieces.bytes();
        let settled = counted.saturating_sub(others);
        let share = self.log_bytes_max() / 2;
        let is_over = (settled + share) as f64 > self.budget_bytes() as f64 * CAP_SHARE;
        let until = self.clock.elapsed() + STUCK_MIN.max(took.saturating_mul(10));
        *self.stuck_until.lock() = (is_spent && is_over).then_some(until);
    }

    /// Something happened that the next run may profit from.
    pub fn forget_stuck(&self) {
        *self.stuck_until.lock() = None;
    }

    fn over_budget(&self) -> Error {
        self.last_checkpoint_error().unwrap_or_else(|| {
            let (counted, budget) = (self.counted_bytes(), self.budget_bytes());
            let why = match self.is_stuck() {
                true => "no entry can go down any more",
                false => "the compressor made no room in time",
            };
            let message = format!(
                "{counted} bytes are counted against a budget of {budget}, and {why}; raise the \
                 budget, remove entries or unpin some"
            );
            Error::new(ErrorKind::Full, message)
        })
    }

    fn unarchived(&self) -> Error {
        self.last_checkpoint_error().unwrap_or_else(|| {
            let message = format!(
                "the log holds {} bytes, its share of the budget is {}, and no checkpoint made \
                 room in {:?}; raise the budget or write slower",
                self.log_bytes.load(Ordering::Acquire),
                self.log_bytes_max(),
                self.options.full_wait_max
            );
            Error::new(ErrorKind::Full, message)
        })
    }
}
