//! The promise: what `submit` returns, and the ticket the writer keeps.
//!
//! A write that is submitted is Pending until exactly one of four ends: Committed (with the asked
//! durability), Failed, Cancelled (by the caller, before the writer took it) or Expired (its
//! deadline passed while it was queued). Dropping a promise cancels nothing. The writer claims a
//! ticket before it writes; from then on neither a cancel nor a deadline can change the outcome,
//! so an Expired or Cancelled write was never written.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::words::entry::Receipt;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::sync::{Condvar, Mutex};

/// How many promises ended how, since the store was opened.
#[derive(Debug, Default)]
pub struct Counters {
    submitted: AtomicU64,
    committed: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    expired: AtomicU64,
}

/// The counters at one moment: `submitted = pending + committed + failed + cancelled + expired`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PromiseStats {
    /// Queued or being written.
    pub pending: u64,
    /// Written with the asked durability.
    pub committed: u64,
    /// Refused or failed; nothing of them is visible.
    pub failed: u64,
    /// Cancelled by the caller before they were written.
    pub cancelled: u64,
    /// Ended by their deadline before they were written.
    pub expired: u64,
}

impl Counters {
    /// Reads them all.
    pub fn stats(&self) -> PromiseStats {
        let committed = self.committed.load(Ordering::Acquire);
        let failed = self.failed.load(Ordering::Acquire);
        let cancelled = self.cancelled.load(Ordering::Acquire);
        let expired = self.expired.load(Ordering::Acquire);
        let ended = committed + failed + cancelled + expired;
        let pending = self.submitted.load(Ordering::Acquire).saturating_sub(ended);
        PromiseStats { pending, committed, failed, cancelled, expired }
    }
}

#[derive(Debug)]
enum State {
    Pending,
    /// Pending, and its caller shall lead.
    Called,
    Claimed,
    Done(Result<Vec<Receipt>>),
}

#[derive(Debug)]
struct Cell {
    state: Mutex<(State, Vec<Waker>)>,
    done: Condvar,
    counters: Arc<Counters>,
    sequence: u64,
}

impl Cell {
    fn finish(&self, allowed: fn(&State) -> bool, outcome: Result<Vec<Receipt>>) -> bool {
        let mut guard = self.state.lock();
        if !allowed(&guard.0) {
            return false;
        }
        let counter = match &outcome {
            Ok(_) => &self.counters.committed,
            Err(e) if e.kind() == ErrorKind::Cancelled => &self.counters.cancelled,
            Err(e) if e.kind() == ErrorKind::Expired => &self.counters.expired,
            Err(_) => &self.counters.failed,
        };
        counter.fetch_add(1, Ordering::AcqRel);
        guard.0 = State::Done(outcome);
        let wakers = std::mem::take(&mut guard.1);
        drop(guard);
        self.done.notify_all();
        for waker in wakers {
            waker.wake();
        }
        true
    }
}

/// A write on its way; resolves when the write is durable as asked, or failed.
///
/// Wait for it with [`Promise::wait`] or as a `Future`. Dropping it cancels nothing.
///
/// ```
/// # use pmll::{Draft, Store};
/// # let dir = tempfile::tempdir()?;
/// let notes = Store::open(dir.path().join("memory"))?.collection("notes")?;
/// let promise = notes.submit_put("a", Draft::text("one"))?;
/// let receipts = promise.wait()?;
/// assert!(receipts[0].created && promise.is_done());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a promise says whether the write succeeded; wait for it or keep it"]
pub struct Promise(Arc<Cell>);

impl Promise {
    /// Number of this promise in the order of submission, from 1.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.0.sequence
    }

    /// Whether it has ended, one way or the other.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.0.state.lock().0, State::Done(_))
    }

    /// Blocks until it ends. One receipt per step of the batch.
    pub fn wait(&self) -> Result<Vec<Receipt>> {
        let mut guard = self.0.state.lock();
        loop {
            if let State::Done(outcome) = &guard.0 {
                return outcome.clone();
            }
            self.0.done.wait(&mut guard);
        }
    }

    /// Blocks until it ends, or until its caller is called to lead or has waited so long; `None` then.
    pub(crate) fn wait_to_lead(&self, at_most: Option<Duration>) -> Option<Result<Vec<Receipt>>> {
        let mut guard = self.0.state.lock();
        loop {
            match (&guard.0, at_most) {
                (State::Pending | State::Claimed, None) => self.0.done.wait(&mut guard),
                (State::Pending | State::Claimed, Some(time)) => {
                    if self.0.done.wait_for(&mut guard, time).timed_out() {
                        return None;
                    }
                }
                (State::Called, _) => {
                    guard.0 = State::Pending;
                    return None;
                }
                (State::Done(outcome), _) => return Some(outcome.clone()),
            }
        }
    }

    /// Blocks until it ends, at most this long; `None` when it is still on its way.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<Vec<Receipt>>> {
        let mut guard = self.0.state.lock();
        let is_on_its_way = |inner: &mut (State, _)| !matches!(inner.0, State::Done(_));
        self.0.done.wait_while_for(&mut guard, is_on_its_way, timeout);
        match &guard.0 {
            State::Done(outcome) => Some(outcome.clone()),
            _ => None,
        }
    }

    /// Takes the write back if the writer has not started it; true when it did.
    pub fn cancel(&self) -> bool {
        self.0.finish(
            |state| matches!(state, State::Pending | State::Called),
            Err(Error::new(ErrorKind::Cancelled, "the write was cancelled by its caller")),
        )
    }
}

impl Future for Promise {
    type Output = Result<Vec<Receipt>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut guard = self.0.state.lock();
        if let State::Done(outcome) = &guard.0 {
            return Poll::Ready(outcome.clone());
        }
        if !guard.1.iter().any(|w| w.will_wake(context.waker())) {
            guard.1.push(context.waker().clone());
        }
        Poll::Pending
    }
}

/// The writer's end of a promise.
#[derive(Debug)]
pub struct Ticket(Arc<Cell>);

/// A new promise with its ticket.
pub fn pair(counters: &Arc<Counters>) -> (Promise, Ticket) {
    let sequence = counters.submitted.fetch_add(1, Ordering::AcqRel) + 1;
    let cell = Arc::new(Cell {
        state: Mutex::new((State::Pending, Vec::new())),
        done: Condvar::new(),
        counters: Arc::clone(counters),
        sequence,
    });
    (Promise(Arc::clone(&cell)), Ticket(cell))
}

impl Ticket {
    /// Takes the write for writing; false when it was cancelled meanwhile.
    pub fn claim(&self) -> bool {
        let mut guard = self.0.state.lock();
        match guard.0 {
            State::Pending | State::Called => {
                guard.0 = State::Claimed;
                true
            }
            State::Claimed | State::Done(_) => false,
        }
    }

    /// Calls whoever waits for it to lead.
    pub fn call(&self) {
        let mut guard = self.0.state.lock();
        if matches!(guard.0, State::Pending) {
            guard.0 = State::Called;
            drop(guard);
            self.0.done.notify_all();
        }
    }

    /// Ends the promise; a second end is ignored.
    pub fn resolve(&self, outcome: Result<Vec<Receipt>>) {
        self.0.finish(|state| !matches!(state, State::Done(_)), outcome);
    }
}

impl Drop for Ticket {
    // A ticket that is dropped unresolved (a writer that panicked) must not leave a waiter for ever.
    fn drop(&mut self) {
        self.resolve(Err(Error::new(
            ErrorKind::Closed,
            "the store closed before the write was taken up; nothing was written",
        )));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_exactly_once_and_counts() {
        let counters = Arc::new(Counters::default());
        let (a, ticket_a) = pair(&counters);
        let (b, ticket_b) = pair(&counters);
        let (c, ticket_c) = pair(&counters);
        assert_eq!(counters.stats().pending, 3);
        assert!(ticket_a.claim());
        assert!(!a.cancel(), "a claimed write cannot be taken back");
        ticket_a.resolve(Ok(Vec::new()));
        ticket_a.resolve(Err(Error::internal("second end")));
        assert!(a.wait().is_ok());
        assert!(b.cancel() && !b.cancel());
        assert!(!ticket_b.claim());
        drop(ticket_c);
        assert_eq!(c.wait().unwrap_err().kind(), ErrorKind::Closed);
        let stats = counters.stats();
        assert_eq!((stats.pending, stats.committed, stats.cancelled, stats.failed), (0, 1, 1, 1));
    }

    #[test]
    fn calls_its_waiter_once_and_still_ends() {
        let counters = Arc::new(Counters::default());
        let (promise, ticket) = pair(&counters);
        ticket.call();
        assert!(promise.wait_to_lead(None).is_none());
        assert!(promise.wait_to_lead(Some(Duration::from_millis(1))).is_none());
        assert!(!promise.is_done());
        ticket.call();
        assert!(ticket.claim(), "a call takes nothing away");
        ticket.call();
        ticket.resolve(Ok(Vec::new()));
        ticket.call();
        assert!(promise.wait_to_lead(None).is_some_and(|outcome| outcome.is_ok()));
        assert!(promise.is_done() && promise.wait().is_ok());
        let (promise, ticket) = pair(&counters);
        ticket.call();
        assert!(promise.cancel() && !ticket.claim());
    }

    #[test]
    fn wakes_waiters_and_times_out() {
        let counters = Arc::new(Counters::default());
        let (promise, ticket) = pair(&counters);
        assert!(promise.wait_timeout(Duration::from_millis(5)).is_none());
        let waiter = promise.clone();
        let thread = std::thread::spawn(move || waiter.wait().is_ok());
        assert!(ticket.claim());
        ticket.resolve(Ok(Vec::new()));
        assert!(thread.join().unwrap());
    }
}
