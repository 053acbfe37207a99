//! What a leader does with its turn: one log batch of all that waits.
//!
//! Every request is staged on the view that the next one sees, its operations are put behind those before it,
//! all of them are appended and synced at once, and the view is published. Requests of several steps are staged
//! on a trial view, which is thrown away when a step fails; so that a change of the batch copies each node of the
//! maps once, and not once a request, those of one step go without ([`is_sure`]).
//!
//! The view before, and what was logged, are given up after everybody was told: that is work as well.
//!
//! Never: resolves a ticket, waits for a request.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::bytes::codec::log::{COMMIT_BYTES, FRAME_BYTES};
use crate::bytes::codec::op::encoded_len;
use crate::bytes::promise::Ticket;
use crate::controller::commit::Queued;
use crate::controller::engine::Engine;
use crate::controller::stage::{Logged, is_sure, stage};
use crate::organs::wal::Wal;
use crate::tiers::View;
use crate::words::entry::Receipt;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::limits;
use crate::words::options::Durability;
use crate::words::record::{Op, Payload, PayloadPlace};

/// Bytes of requests one leader takes at most: bounds what a batch encodes at once. One request
/// may be larger than that alone.
pub const LEAD_BYTES_MAX: u64 = 4 << 20;

/// What becomes one log batch.
struct Group {
    view: View,
    ops: Vec<Logged>,
    bytes: usize,
    accepted: Vec<(Ticket, Vec<Receipt>)>,
    sync: bool,
}

/// How a request ended, with the ticket to be told.
pub type Outcome = (Ticket, Result<Vec<Receipt>>);

/// What a turn leaves behind.
#[derive(Default)]
pub struct Led {
    /// Whom to tell what.
    pub outcomes: Vec<Outcome>,
    /// The views before, and what was logged: freed when nobody waits for it any more.
    pub spent: Vec<(Arc<View>, Vec<Logged>)>,
    /// How long its last sync took.
    pub sync: Duration,
}

impl Group {
    fn new(view: View) -> Group {
        Group { view, ops: Vec::new(), bytes: 0, accepted: Vec::new(), sync: false }
    }

    /// Takes a request whose operations are those from `before` on.
    fn accept(
        &mut self,
        ticket: Ticket,
        receipts: Vec<Receipt>,
        durability: Durability,
        before: usize,
    ) {
        self.bytes += logged_bytes(self.ops.get(before..).unwrap_or_default());
        self.sync |= durability == Durability::Sync;
        self.accepted.push((ticket, receipts));
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

impl Engine {
    /// Writes one turn's requests. Answers how each of them ended.
    pub(super) fn lead(&self, batch: Vec<Queued>) -> Led {
        let mut led = Led::default();
        let mut wal = self.wal.lock();
        let Some(log) = wal.as_mut() else {
            return led; // Dropped tickets resolve as Closed.
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
                led.outcomes.push((ticket, Err(Error::new(ErrorKind::Expired, message))));
                continue;
            }
            if is_sure(&request.steps) {
                let before = group.ops.len();
                match stage(&mut group.view, request.steps, now, &mut group.ops) {
                    Ok(receipts) => group.accept(ticket, receipts, request.durability, before),
                    Err(error) => led.outcomes.push((ticket, Err(error))),
                }
                // What a step brings along is known only now: a pin logs the whole record again.
                if group.bytes > LEAD_BYTES_MAX as usize {
                    let _ = self.finish(log, group, None, &mut led); // Its error is in the outcomes.
                    group = Group::new(View::clone(&self.view.load()));
                }
                continue;
            }
            let mut trial = group.view.clone();
            let mut ops = Vec::new();
            let staged = stage(&mut trial, request.steps, now, &mut ops).and_then(|receipts| {
                let bytes = logged_bytes(&ops);
                check_size(ops.len(), bytes)?;
                Ok((receipts, bytes))
            });
            let (receipts, bytes) = match staged {
                Ok(staged) => staged,
                Err(error) => {
                    led.outcomes.push((ticket, Err(error)));
                    continue;
                }
            };
            let ops_together = group.ops.len() + ops.len();
            let is_full = ops_together > limits::BATCH_OPS_MAX
                || group.bytes + bytes > LEAD_BYTES_MAX as usize;
            if !group.ops.is_empty() && is_full {
                let next = Group::new(group.view.clone());
                let full = std::mem::replace(&mut group, next);
                if let Err(error) = self.finish(log, full, Some(&mut trial), &mut led) {
                    // This request was staged on writes that failed.
                    led.outcomes.push((ticket, Err(error)));
                    group = Group::new(View::clone(&self.view.load()));
                    continue;
                }
            }
            group.view = trial;
            let before = group.ops.len();
            group.ops.append(&mut ops);
            group.accept(ticket, receipts, request.durability, before);
        }
        // Its error is in the outcomes.
        let _ = self.finish(log, group, None, &mut led);
        // Where others wait, their batch says the same; and if none comes of it, the end of their turn does.
        if !self.queue.lock().waits() {
            log.mark_acked();
        }
        self.log_bytes.store(log.unapplied_bytes(), Ordering::Release);
        // A log that is always being written to would never be found free to be counted.
        let [_, resident, _] = &self.last_seen;
        resident.store(log.resident_bytes() as u64, Ordering::Release);
        led
    }

    /// Logs, syncs and publishes one group. `next` was staged on its view, and learns as well where
    /// large payloads stand in the log.
    fn finish(
        &self,
        log: &mut Wal,
        group: Group,
        mut next: Option<&mut View>,
        led: &mut Led,
    ) -> Result<()> {
        let Group { mut view, ops, accepted, sync, .. } = group;
        let outcome = self.poison.check().and_then(|()| {
            let appending = self.clock.elapsed();
            let written = if sync { log.append_to_sync(&ops) } else { log.append(&ops) };
            let written = written.and_then(|offsets| {
                if sync {
                    // A batch that began a segment is synced already: who gathers goes by how long that took.
                    let begun = if log.is_synced() { appending } else { self.clock.elapsed() };
                    log.sync()?;
                    led.sync = self.clock.elapsed().saturating_sub(begun);
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
                led.outcomes.extend(failed);
                return Err(error);
            }
        };
        let mut gone = Vec::new();
        if !ops.is_empty() {
            let home = log.segment_file();
            for ((op, payload), offset) in ops.iter().zip(offsets) {
                match (op, &home) {
                    (Op::Delete(tombstone), _) => gone.push(tombstone.id),
                    (Op::Put(record), Some((segment, file)))
                        if payload.len() > limits::PAYLOAD_RESIDENT_BYTES_MAX =>
                    {
                        let place = PayloadPlace {
                            segment: *segment,
                            offset,
                            len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
                            crc: crc32fast::hash(payload),
                        };
                        if let Some(next) = &mut next {
                            next.active.relocate(record.clone(), Payload::InLog(place), file);
                        }
                        view.active.relocate(record.clone(), Payload::InLog(place), file);
                    }
                    _ => {}
                }
            }
            // What others change beside a leader: checkpoints and the compressor.
            let before = self.publish(|current| {
                view.frozen.clone_from(&current.frozen);
                view.cold = Arc::clone(&current.cold);
                view.levels = Arc::clone(&current.levels);
                view.alive = Arc::clone(&current.alive);
                view
            });
            led.spent.push((before, ops));
        }
        if !gone.is_empty() {
            self.forget_stuck();
        }
        for id in gone {
            self.columns.remove(id);
        }
        led.outcomes.extend(accepted.into_iter().map(|(ticket, receipts)| (ticket, Ok(receipts))));
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
