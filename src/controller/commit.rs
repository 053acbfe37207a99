//! Commit: leader/follower group commit over one log.
//!
//! A caller puts its request into the queue. If nobody leads, it leads: takes the whole queue,
//! stages every request against the current view, writes all their operations as one log batch,
//! syncs once, publishes the next view and resolves the tickets. If somebody leads, it waits; the
//! leader that takes the queue next serves it. So a single writer syncs on its own thread without
//! a hand-off, and n writers share one sync.
//!
//! Order, and why: log, sync, publish, resolve. A reader never sees what a crash would take back,
//! and a resolved promise is visible.
//!
//! Rules of failure: a request that fails staging fails alone. A full disk fails the batch and
//! nothing else; a request that only removes is tried once more with the bytes of the reserve, and
//! until that is whole again no other is taken. Any other failed write, and every failed sync,
//! poisons (see [`super::poison`]).

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
use crate::pure::policy::Policy;
use crate::tiers::View;
use crate::words::entry::Receipt;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::limits;
use crate::words::options::Durability;
use crate::words::record::{Op, Payload, PayloadPlace};

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
    fn makes_room(&self) -> bool {
        self.steps.iter().all(Step::makes_room)
    }
}

/// A request in the queue.
#[derive(Debug)]
pub struct Queued {
    request: Request,
    ticket: Ticket,
    until: Option<Duration>,
}

/// Requests that wait for a leader.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Queued>,
    /// Bytes of the waiting requests.
    pub bytes: u64,
    leading: bool,
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
        self.0.queue.lock().leading = false;
        self.0.progress.notify_all();
    }
}

impl Engine {
    /// Queues a request and returns at once; somebody else writes it.
    pub fn submit(&self, request: Request) -> Result<Promise> {
        let promise = self.enqueue(request)?;
        if self.options.background {
            self.wake.notify(|wish| wish.drain = true);
        } else {
            self.lead_until(|_| promise.is_done());
        }
        Ok(promise)
    }

    /// Queues a request and sees it through on this thread, leading or following. On a full disk
    /// one that makes room gets the bytes of the reserve, after a checkpoint had them: that gives
    /// back the log's.
    pub fn write(&self, request: Request) -> Result<Vec<Receipt>> {
        let again = request.makes_room().then(|| request.clone());
        match (self.see_through(request), again) {
            (Err(error), Some(request)) if error.kind() == ErrorKind::Full => {
                self.reserve.give_up(&*self.disk);
                if let Err(error) = self.archive_all() {
                    self.note_checkpoint_error(error);
                }
                self.see_through(request)
            }
            (outcome, _) => outcome,
        }
    }

    fn see_through(&self, request: Request) -> Result<Vec<Receipt>> {
        let promise = self.enqueue(request)?;
        self.lead_until(|_| promise.is_done());
        promise.wait()
    }

    fn enqueue(&self, request: Request) -> Result<Promise> {
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
            self.wait_for_room(request.bytes)?;
        }
        let (promise, ticket) = promise::pair(&self.counters);
        let until = request.deadline.map(|d| self.clock.elapsed().saturating_add(d));
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(Error::new(ErrorKind::Closed, "the store is closed"));
        }
        queue.bytes += request.bytes;
        queue.waiting.push_back(Queued { request, ticket, until });
        Ok(promise)
    }

    /// Leads while nobody else does, until `done`.
    fn lead_until(&self, done: impl Fn(&Queue) -> bool) {
        let mut queue = self.queue.lock();
        while !done(&queue) {
            if queue.leading || queue.waiting.is_empty() {
                // Either a leader will serve us and notify, or our request was taken by one that
                // has not resolved it yet.
                self.progress.wait(&mut queue);
                continue;
            }
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
            self.lead(batch);
            drop(turn);
            queue = self.queue.lock();
        }
        drop(queue);
        self.checkpoint_if_due();
    }

    /// Writes everything that is queued, or sees it written by whoever leads; for promises that
    /// nobody waits for.
    pub fn drain(&self) {
        self.lead_until(|queue| queue.waiting.is_empty() && !queue.leading);
    }

    fn lead(&self, batch: Vec<Queued>) {
        let mut wal = self.wal.lock();
        let Some(log) = wal.as_mut() else {
            return; // Dropped tickets resolve as Closed.
        };
        let now = self.clock.now();
        let mut group = Group::new(View::clone(&self.view.load()));
        for Queued { request, ticket, until } in batch {
            if !ticket.claim() {
                continue;
            }
            if until.is_some_and(|until| self.clock.elapsed() >= until) {
                ticket.resolve(Err(Error::new(
                    ErrorKind::Expired,
                    "the deadline passed before the write was taken up; nothing was written",
                )));
                continue;
            }
            let mut trial = group.view.clone();
            let mut ops = Vec::new();
            let receipts = match stage(&mut trial, request.steps, now, &mut ops) {
                Ok(receipts) => receipts,
                Err(error) => {
                    ticket.resolve(Err(error));
                    continue;
                }
            };
            let bytes = logged_bytes(&ops);
            if let Err(error) = check_size(ops.len(), bytes) {
                ticket.resolve(Err(error));
                continue;
            }
            if check_size(group.ops.len() + ops.len(), group.bytes + bytes).is_err() {
                // Together they are more than one log batch holds: write what there is first. (Its
                // large payloads then stay in RAM until the next checkpoint; rare, and counted.)
                let base = group.view.clone();
                if let Err(error) =
                    self.finish(log, std::mem::replace(&mut group, Group::new(base)))
                {
                    // This request was staged on writes that failed.
                    ticket.resolve(Err(error));
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
        // Its error is in the tickets.
        let _ = self.finish(log, group);
        self.log_bytes.store(log.unapplied_bytes(), Ordering::Release);
    }

    /// Logs, syncs, publishes and resolves one group.
    fn finish(&self, log: &mut Wal, group: Group) -> Result<()> {
        let Group { mut view, ops, accepted, sync, .. } = group;
        let outcome = self.poison.check().and_then(|()| {
            let written = if ops.is_empty() { Ok(Vec::new()) } else { log.append(&ops) };
            let offsets = written.inspect_err(|e| {
                if !matches!(e.kind(), ErrorKind::Full | ErrorKind::Invalid) {
                    self.poison.set(e);
                }
            })?;
            if sync {
                log.sync().inspect_err(|e| self.poison.set(e))?;
            }
            Ok(offsets)
        });
        let offsets = match outcome {
            Ok(offsets) => offsets,
            Err(error) => {
                for (ticket, _) in accepted {
                    ticket.resolve(Err(error.clone()));
                }
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
                view
            });
        }
        if sync {
            log.mark_acked();
        }
        for id in gone {
            self.columns.remove(id);
        }
        for (ticket, receipts) in accepted {
            ticket.resolve(Ok(receipts));
        }
        Ok(())
    }

    /// Above the hard cap a write compresses first. What no compression can move, as caches that went
    /// on filling, keeps no write out.
    fn wait_below_cap(&self) -> Result<()> {
        if self.options.read_only || !self.is_capped() {
            return Ok(());
        }
        let mut waited = Duration::ZERO;
        if !self.options.background {
            self.compress(Policy::Watermark)?;
        }
        while self.options.background && self.is_capped() && waited < self.options.full_wait_max {
            let runs = self.runs.load(Ordering::Acquire);
            self.wake.notify(|wish| wish.compress = true);
            let step = Duration::from_millis(20);
            self.room.wait(step);
            waited += step;
            self.poison.check()?;
            if self.closed.load(Ordering::Acquire) {
                return Err(Error::new(ErrorKind::Closed, "the store is closed"));
            }
            if self.runs.load(Ordering::Acquire) != runs {
                break;
            }
        }
        if self.is_over(1.0) {
            return Err(self.last_checkpoint_error().unwrap_or_else(|| {
                let counted = self.counted_bytes();
                let budget = self.budget_bytes();
                Error::new(
                    ErrorKind::Full,
                    format!(
                        "{counted} bytes are counted against a budget of {budget}, and no entry can \
                         go down any more; raise the budget, or unpin entries"
                    ),
                )
            }));
        }
        Ok(())
    }

    /// Blocks while the log's tables are over their share of the budget and a checkpoint is on its
    /// way to empty them. Fails with `Full` when that takes too long.
    fn wait_for_room(&self, bytes: u64) -> Result<()> {
        let cap = self.log_bytes_max();
        let mut waited = Duration::ZERO;
        loop {
            let view = self.view.load();
            let resident = view.hot_bytes() + self.queue.lock().bytes;
            // An empty table takes any request: a batch larger than the cap must go somewhere.
            if resident == 0 || resident + bytes <= cap {
                drop(view);
                return self.wait_below_cap();
            }
            drop(view);
            if !self.options.background {
                self.checkpoint()?;
                return Ok(());
            }
            self.wake.notify(|wish| wish.checkpoint = true);
            let step = Duration::from_millis(20);
            self.room.wait(step);
            waited += step;
            self.poison.check()?;
            if waited >= self.options.full_wait_max {
                return Err(self.last_checkpoint_error().unwrap_or_else(|| {
                    Error::new(
                        ErrorKind::Full,
                        format!(
                            "records in RAM take {resident} bytes, their share of the budget is \
                             {cap}, and no checkpoint made room in {:?}; raise the budget or \
                             write slower",
                            self.options.full_wait_max
                        ),
                    )
                }));
            }
            if self.closed.load(Ordering::Acquire) {
                return Err(Error::new(ErrorKind::Closed, "the store is closed"));
            }
        }
    }
}
