//! Commit: leader/follower group commit over one log.
//!
//! A caller puts its request into the queue. If nobody leads, it leads: takes the whole queue,
//! stages every request against the current view, writes all their operations as one log batch,
//! syncs once, publishes the next view and resolves the tickets. If somebody leads, it waits for its own
//! promise; the leader that takes the queue next serves it. So a single writer syncs on its own thread
//! without a hand-off, and n writers share one sync. Who may join the queue, `admission` says.
//!
//! A leader whose turn is over calls one of those that wait to lead, then resolves its tickets: each
//! writer is woken once for its write, and one of a batch once more to lead. To wake all of them after
//! each turn, for seven of eight to find nothing to do, took most of the time that eight writers had.
//!
//! Who writes comes back soon: of eight writers one would come first, and sync for itself alone while seven wait
//! for the next sync. So whoever could lead counts first. While fewer wait than wrote or waited at the end of the
//! last turn, it gives the others a moment, no longer than a sync takes: the one that makes the group whole leads
//! it. A lone writer is a whole group. A moment that was in vain is not given again for some turns ([`Gathering`]).
//!
//! Order, and why: log, sync, publish, resolve. A reader never sees what a crash would take back,
//! and a resolved promise is visible. Tickets are resolved when the turn is over and no lock is
//! held: a waker may call the store.
//!
//! Rules of failure: a request that fails staging fails alone. A full disk fails the batch and
//! nothing else; a request that only removes is tried once more with the bytes of the reserve, and
//! until that is whole again no other is taken. A write that the log cannot take back, and every
//! failed sync, poisons (see [`super::poison`]).

use std::collections::VecDeque;
use std::time::Duration;

use crate::bytes::promise::{self, Promise, Ticket};
use crate::controller::engine::Engine;
use crate::controller::gathering::Gathering;
use crate::controller::lead::LEAD_BYTES_MAX;
use crate::controller::stage::Step;
use crate::verbs::vacuum::VacuumReport;
use crate::words::entry::Receipt;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::limits;
use crate::words::options::Durability;
use crate::words::sync::Guard;

/// Steps that shall happen together.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to do, in order.
    pub steps: Vec<Step>,
    /// When it counts as written.
    pub durability: Durability,
    /// How long it may stay in the queue.
    pub deadline: Option<Duration>,
    /// Bytes it brings along: payloads, vectors, attributes.
    pub bytes: u64,
}

impl Request {
    /// Whether the store gets no larger by it.
    pub fn makes_room(&self) -> bool {
        self.steps.iter().all(Step::makes_room)
    }
}

/// A request in the queue.
#[derive(Debug)]
pub struct Queued {
    /// What is asked for.
    pub request: Request,
    /// Who is told.
    pub ticket: Ticket,
    /// When it is too late, by the monotonic clock.
    pub until: Option<Duration>,
    /// A thread waits for it, and leads when it is called to.
    is_waited_for: bool,
}

/// Requests that wait for a leader.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Queued>,
    /// Bytes of the waiting requests.
    pub bytes: u64,
    /// Those of them that a thread waits for.
    waited_for: usize,
    gathering: Gathering,
    leading: bool,
    /// Threads that wait for the end of turns.
    draining: usize,
    /// No more requests are taken.
    pub closed: bool,
}

impl Queue {
    /// Whether any request waits.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How long whoever could lead waits for others.
    fn moment(&self) -> Option<Duration> {
        self.gathering.moment(self.waited_for).filter(|_| self.bytes < LEAD_BYTES_MAX)
    }
}

/// The turn of a leader. It ends in any case: a leader that panics must not leave the others
/// waiting for ever, nor may anybody write behind what it left half done.
struct Turn<'a> {
    engine: &'a Engine,
    /// Threads that wait for what it writes.
    writers: usize,
    sync: Duration,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.engine.poison.set(&Error::internal("a writing thread panicked"));
        }
        let mut queue = self.engine.queue.lock();
        queue.leading = false;
        queue.gathering.writers = self.writers + queue.waited_for;
        queue.gathering.sync = self.sync;
        // Who is called may find that another came first: that one calls the next.
        if let Some(next) = queue.waiting.iter().find(|queued| queued.is_waited_for) {
            next.ticket.call();
        }
        if queue.draining > 0 {
            self.engine.progress.notify_all();
        }
    }
}

impl Engine {
    /// Queues a request and returns at once; somebody else writes it.
    pub fn submit(&self, request: Request) -> Result<Promise> {
        let background = self.options.background;
        let promise = self.enqueue(request, !background)?;
        if background {
            self.wake.notify(|wish| wish.drain = true);
        } else {
            // Its outcome is the promise's.
            let _ = self.lead_or_follow(&promise);
        }
        Ok(promise)
    }

    /// Queues a request and sees it through on this thread, leading or following. On a full disk
    /// one that makes room gets the bytes of the reserve, after a checkpoint had them: that gives
    /// back the log's. When that is not enough, what was removed before gives its bytes back.
    pub fn write(&self, request: Request) -> Result<Vec<Receipt>> {
        let again = request.makes_room() && !request.steps.is_empty();
        let again = again.then(|| request.clone());
        match (self.see_through(request), again) {
            (Err(error), Some(request)) if error.kind() == ErrorKind::Full => {
                self.make_room_for(&request)
            }
            (Ok(receipts), Some(_)) if self.reserve.is_due() => {
                self.regain_reserve();
                Ok(receipts)
            }
            (outcome, _) => outcome,
        }
    }

    fn make_room_for(&self, request: &Request) -> Result<Vec<Receipt>> {
        self.give_up_reserve();
        if let Err(error) = self.archive_all() {
            self.note_checkpoint_error(error);
        }
        let mut outcome = self.see_through(request.clone());
        if outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::Full) {
            self.try_vacuum();
            outcome = self.see_through(request.clone());
            // For the next time. There may be no room for it: then the next one comes back here.
            let _ = self.keep_reserve();
        } else if self.keep_reserve().is_err() {
            self.regain_reserve();
        }
        outcome
    }

    /// Gives back what was removed while there is still room to do so, and makes the reserve of it.
    fn regain_reserve(&self) {
        self.try_vacuum();
        // What keeps it from being made is told to whoever writes.
        let _ = self.keep_reserve();
    }

    /// What of it fails is no failure of the removal that needs the room.
    fn try_vacuum(&self) {
        let given = self.archive_all().and_then(|_| self.give_back(VacuumReport::default()));
        if let Err(error) = given {
            tracing::warn!(%error, "the disk is full, and not all dead bytes can be given back");
        }
    }

    /// Queues a request and sees it through; a full disk is the caller's matter.
    pub(super) fn see_through(&self, request: Request) -> Result<Vec<Receipt>> {
        let promise = self.enqueue(request, true)?;
        self.lead_or_follow(&promise)
    }

    fn enqueue(&self, request: Request, is_waited_for: bool) -> Result<Promise> {
        self.check_writable()?;
        if request.bytes > limits::BATCH_BYTES_MAX as u64
            || request.steps.len() > limits::BATCH_OPS_MAX
        {
            return Err(Error::invalid(format!(
                "a batch has {} steps and {} bytes; the limits are {} and {}",
                request.steps.len(),
                request.bytes,
                limits::BATCH_OPS_MAX,
                limits::BATCH_BYTES_MAX
            )));
        }
        // Removals are let through whatever is full: they are the way out of it.
        if !request.makes_room() {
            self.keep_reserve()?;
            self.wait_for_room(&request)?;
        }
        let (promise, ticket) = promise::pair(&self.counters);
        let until = request.deadline.map(|d| self.clock.elapsed().saturating_add(d));
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(Error::new(ErrorKind::Closed, "the store is closed"));
        }
        queue.bytes += request.bytes;
        queue.waited_for += usize::from(is_waited_for);
        queue.waiting.push_back(Queued { request, ticket, until, is_waited_for });
        Ok(promise)
    }

    /// Sees a queued request through: leads if nobody does, else waits to be served or called. Whoever was
    /// served leads no more: its caller waits. That is after one turn, unless more stood before it in the
    /// queue than a turn takes.
    fn lead_or_follow(&self, promise: &Promise) -> Result<Vec<Receipt>> {
        let (mut has_led, mut has_waited) = (false, false);
        let outcome = loop {
            let queue = self.queue.lock();
            let ended = if promise.is_done() || queue.leading || queue.waiting.is_empty() {
                // Taken by a leader that has not resolved it yet, or waiting for the end of a turn.
                drop(queue);
                promise.wait_to_lead(None)
            } else if let Some(moment) = queue.moment().filter(|_| !has_waited) {
                drop(queue);
                has_waited = true;
                promise.wait_to_lead(Some(moment))
            } else {
                self.take_turn(queue);
                has_led = true;
                continue;
            };
            if let Some(outcome) = ended {
                break outcome;
            }
        };
        if has_led {
            self.checkpoint_if_due();
        }
        outcome
    }

    /// Writes everything that is queued, or sees it written by whoever leads; for promises that
    /// nobody waits for.
    pub fn drain(&self) {
        let mut queue = self.queue.lock();
        while queue.leading || !queue.waiting.is_empty() {
            if queue.leading {
                queue.draining += 1;
                self.progress.wait(&mut queue);
                queue.draining -= 1;
            } else {
                self.take_turn(queue);
                queue = self.queue.lock();
            }
        }
        drop(queue);
        self.checkpoint_if_due();
    }

    /// Leads for one turn.
    fn take_turn(&self, mut queue: Guard<'_, Queue>) {
        queue.leading = true;
        let there = queue.waited_for;
        queue.gathering.begin(there);
        let mut batch = Vec::new();
        let (mut bytes, mut writers) = (0, 0);
        while let Some(next) = queue.waiting.front() {
            if !batch.is_empty() && bytes + next.request.bytes > LEAD_BYTES_MAX {
                break;
            }
            bytes += next.request.bytes;
            writers += usize::from(next.is_waited_for);
            batch.extend(queue.waiting.pop_front());
        }
        queue.bytes = queue.bytes.saturating_sub(bytes);
        queue.waited_for = queue.waited_for.saturating_sub(writers);
        drop(queue);
        let mut turn = Turn { engine: self, writers, sync: Duration::ZERO };
        let led = self.lead(batch);
        turn.sync = led.sync;
        drop(turn);
        // Whoever is woken may call anything, so no lock is held.
        for (ticket, outcome) in led.outcomes {
            ticket.resolve(outcome);
        }
        drop(led.spent);
    }
}
