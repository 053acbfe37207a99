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
//! Order, and why: log, sync, publish, resolve. A reader never sees what a crash would take back,
//! and a resolved promise is visible. Tickets are resolved when the turn is over and no lock is
//! held: a waker may call the store.
//!
//! Rules of failure: a request that fails staging fails alone. A full disk fails the batch and
//! nothing else; a request that only removes is tried once more with the bytes of the reserve, and
//! until that is whole again no other is taken. A write that the log cannot take back, and every
//! failed sync, poisons (see [`super::poison`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::bytes::codec::log::{COMMIT_BYTES, FRAME_BYTES};
use crate::bytes::codec::op::encoded_len;
use crate::bytes::promise::{self, Promise, Ticket};
use crate::controller::engine::Engine;
use crate::controller::stage::{Logged, Step, stage};
use crate::organs::wal::Wal;
use crate::tiers::View;
use crate::verbs::vacuum::VacuumReport;
use crate::words::entry::Receipt;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::limits;
use crate::words::options::Durability;
use crate::words::record::{Op, Payload, PayloadPlace};
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
    request: Request,
    ticket: Ticket,
    until: Option<Duration>,
    /// A thread waits for it, and leads when it is called to.
    is_waited_for: bool,
}

/// Requests that wait for a leader.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Queued>,
    /// Bytes of the waiting requests.
    pub bytes: u64,
    leading: bool,
    /// Threads that wait for the end of turns.
    draining: usize,
    /// No more requests are taken.
    pub closed: bool,
}

/// What becomes one log batch.
struct Group {
    view: View,
    ops: Vec<Logged>,
    bytes: usize,
    accepted: Vec<(Ticket, Vec<Receipt>)>,
    sync: bool,
}

/// How a request ended, with the ticket to be told.
type Outcome = (Ticket, Result<Vec<Receipt>>);

impl Queue {
    /// Whether any request waits.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Group {
    fn new(view: View) -> Group {
        Group { view, ops: Vec::new(), bytes: 0, accepted: Vec::new(), sync: false }
    }
}

/// Bytes of these operations in the log, frames included.
fn logged_bytes(ops: &[Logged]) -> usize {
    ops.iter().map(|(op, payload)| encoded_len(op, payload) + FRAME_BYTES).sum()
}

fn check_size(ops: usize, bytes: usize) -> Result<()> {
    // The commit frame has to fit as well.
    let bytes = bytes.saturating_add(FRAME_BYTES + COMMIT_BYTES);
    if ops > limits::BATCH_OPS_MAX || bytes > limits::BATCH_BYTES_MAX {
        return Err(Error::invalid(format!(
            "a batch has {ops} operations and {bytes} bytes; the limits are {} and {}",
            limits::BATCH_OPS_MAX,
            limits::BATCH_BYTES_MAX
        )));
    }
    Ok(())
}

/// Bytes of requests one leader takes at most: bounds what a batch encodes at once. One request
/// may be larger than that alone.
const LEAD_BYTES_MAX: u64 = 4 << 20;

/// The turn of a leader. It ends in any case: a leader that panics must not leave the others
/// waiting for ever, nor may anybody write behind what it left half done.
struct Turn<'a>(&'a Engine);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison.set(&Error::internal("a writing thread panicked"));
        }
        let mut queue = self.0.queue.lock();
        queue.leading = false;
        // Who is called may find that another came first: that one calls the next.
        if let Some(next) = queue.waiting.iter().find(|queued| queued.is_waited_for) {
            next.ticket.call();
        }
        if queue.draining > 0 {
            self.0.progress.notify_all();
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
        queue.waiting.push_back(Queued { request, ticket, until, is_waited_for });
        Ok(promise)
    }

    /// Sees a queued request through: leads if nobody does, else waits to be served or called. Whoever was
    /// served leads no more: its caller waits. That is after one turn, unless more stood before it in the
    /// queue than a turn takes.
    fn lead_or_follow(&self, promise: &Promise) -> Result<Vec<Receipt>> {
        let mut has_led = false;
        loop {
            let queue = self.queue.lock();
            if promise.is_done() {
                drop(queue);
                if has_led {
                    self.checkpoint_if_due();
                }
                return promise.wait();
            }
            if queue.leading || queue.waiting.is_empty() {
                // Taken by a leader that has not resolved it yet, or waiting for the end of a turn.
                drop(queue);
                promise.wait_to_lead();
                continue;
            }
            self.take_turn(queue);
            has_led = true;
        }
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
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(next) = queue.waiting.front() {
            if !batch.is_empty() && bytes + next.request.bytes > LEAD_BYTES_MAX {
                break;
            }
            bytes += next.request.bytes;
            batch.extend(queue.waiting.pop_front());
        }
        queue.bytes = queue.bytes.saturating_sub(bytes);
        drop(queue);
        let turn = Turn(self);
        let outcomes = self.lead(batch);
        drop(turn);
        // Whoever is woken may call anything, so no lock is held.
        for (ticket, outcome) in outcomes {
            ticket.resolve(outcome);
        }
    }

    /// Writes one turn's requests. Answers how each of them ended.
    fn lead(&self, batch: Vec<Queued>) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut wal = self.wal.lock();
        let Some(log) = wal.as_mut() else {
            return outcomes; // Dropped tickets resolve as Closed.
        };
        let now = self.clock.now();
        let mut group = Group::new(View::clone(&self.view.load()));
        for Queued { request, ticket, until, .. } in batch {
            if !ticket.claim() {
                continue;
            }
            if until.is_some_and(|until| self.clock.elapsed() >= until) {
                let message =
                    "the deadline passed before the write was taken up; nothing was written";
                outcomes.push((ticket, Err(Error::new(ErrorKind::Expired, message))));
                continue;
            }
            let mut trial = group.view.clone();
            let mut ops = Vec::new();
            let receipts = match stage(&mut trial, request.steps, now, &mut ops) {
                Ok(receipts) => receipts,
                Err(error) => {
                    outcomes.push((ticket, Err(error)));
                    continue;
                }
            };
            let bytes = logged_bytes(&ops);
            if let Err(error) = check_size(ops.len(), bytes) {
                outcomes.push((ticket, Err(error)));
                continue;
            }
            // What a step brings along is known only now: a pin logs the whole record again.
            let ops_together = group.ops.len() + ops.len();
            let is_full = ops_together > limits::BATCH_OPS_MAX
                || group.bytes + bytes > LEAD_BYTES_MAX as usize;
            if !group.ops.is_empty() && is_full {
                let next = Group::new(group.view.clone());
                let full = std::mem::replace(&mut group, next);
                if let Err(error) = self.finish(log, full, Some(&mut trial), &mut outcomes) {
                    // This request was staged on writes that failed.
                    outcomes.push((ticket, Err(error)));
                    group = Group::new(View::clone(&self.view.load()));
                    continue;
                }
            }
            group.view = trial;
            group.ops.append(&mut ops);
            group.bytes += bytes;
            group.sync |= request.durability == Durability::Sync;
            group.accepted.push((ticket, receipts));
        }
        // Its error is in the outcomes.
        let _ = self.finish(log, group, None, &mut outcomes);
        // Where others wait, their batch says the same; and if none comes of it, the end of their turn does.
        if self.queue.lock().waiting.is_empty() {
            log.mark_acked();
        }
        self.log_bytes.store(log.unapplied_bytes(), Ordering::Release);
        outcomes
    }

    /// Logs, syncs and publishes one group. `next` was staged on its view, and learns as well where
    /// large payloads stand in the log.
    fn finish(
        &self,
        log: &mut Wal,
        group: Group,
        mut next: Option<&mut View>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<()> {
        let Group { mut view, ops, accepted, sync, .. } = group;
        let outcome = self.poison.check().and_then(|()| {
            let written = if ops.is_empty() { Ok(Vec::new()) } else { log.append(&ops) };
            let written = written.and_then(|offsets| {
                if sync {
                    log.sync()?;
                }
                Ok(offsets)
            });
            // The log knows after which errors it may go on.
            written.inspect_err(|e| {
                if log.is_poisoned() {
                    self.poison.set(e);
                }
            })
        });
        let offsets = match outcome {
            Ok(offsets) => offsets,
            Err(error) => {
                let failed = accepted.into_iter().map(|(ticket, _)| (ticket, Err(error.clone())));
                outcomes.extend(failed);
                return Err(error);
            }
        };
        let mut gone = Vec::new();
        if !ops.is_empty() {
            let home = log.segment_file();
            for ((op, payload), offset) in ops.into_iter().zip(offsets) {
                match (op, &home) {
                    (Op::Delete(tombstone), _) => gone.push(tombstone.id),
                    (Op::Put(record), Some((segment, file)))
                        if payload.len() > limits::PAYLOAD_RESIDENT_BYTES_MAX =>
                    {
                        let place = PayloadPlace {
                            segment: *segment,
                            offset,
                            len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
                            crc: crc32fast::hash(&payload),
                        };
                        if let Some(next) = &mut next {
                            next.active.relocate(record.clone(), Payload::InLog(place), file);
                        }
                        view.active.relocate(record, Payload::InLog(place), file);
                    }
                    _ => {}
                }
            }
            // What others change beside a leader: checkpoints and the compressor.
            self.publish(|current| {
                view.frozen.clone_from(&current.frozen);
                view.cold = Arc::clone(&current.cold);
                view.levels = Arc::clone(&current.levels);
                view.alive = Arc::clone(&current.alive);
                view
            });
        }
        if !gone.is_empty() {
            self.forget_stuck();
        }
        for id in gone {
            self.columns.remove(id);
        }
        outcomes.extend(accepted.into_iter().map(|(ticket, receipts)| (ticket, Ok(receipts))));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::codec::op::encode_op;
    use crate::words::id::Lsn;

    #[test]
    fn operations_count_as_long_as_the_log_writes_them() {
        let mut written = 0;
        let ops: Vec<Logged> = [3, 40]
            .map(|len| {
                let (name, value) = (Arc::from("budget_bytes"), Arc::from("1".repeat(len)));
                let op = Op::Setting { name, value, version: Lsn(1) };
                let mut bytes = Vec::new();
                encode_op(&op, &[], &mut bytes);
                written += FRAME_BYTES + bytes.len();
                (op, Arc::from([]))
            })
            .into();
        assert_eq!(logged_bytes(&ops), written);
    }

    #[test]
    fn a_batch_of_the_limits_is_taken_and_one_more_is_not() {
        let most = limits::BATCH_BYTES_MAX - FRAME_BYTES - COMMIT_BYTES;
        check_size(limits::BATCH_OPS_MAX, most).unwrap();
        for (ops, bytes) in [(limits::BATCH_OPS_MAX + 1, 0), (1, most + 1)] {
            assert_eq!(check_size(ops, bytes).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
}
