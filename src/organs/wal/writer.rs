//! The log's writing side: numbers batches, decides when to sync, rotate and give up.
//!
//! One batch is written at a time. What a failure does:
//! - A write that finds no room, or writes less than all, fails its batch alone. Parts of it may
//!   stand behind the tail, so a footer cuts them off and the next batch starts a new segment; its
//!   LSNs and number are used again there.
//! - Any other failed write, and every failed sync, poisons: each later write answers `Poisoned`
//!   until the store is opened again. Nothing is retried, since the kernel may have marked the
//!   unwritten pages clean.
//!
//! The log is not thread safe by itself: whoever owns it lets one caller at a time write.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::bytes::codec::log::{Kind, LAG_MAX, SegmentHeader};
use crate::bytes::codec::op::encoded_len;
use crate::io::{Disk, File};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::Lsn;
use crate::words::limits;
use crate::words::record::Op;
use crate::words::safeguard::Safeguard;

use super::active::{Active, Failed, NewBatch, batch_bytes};
use super::mend::mend;
use super::spares::{Spare, Spares};
use super::{SEGMENT_BYTES_MIN, Scan, Sealed, WalOptions, remove_strays};

/// The write buffer is given back after a larger batch than this, or than half a segment: segments go
/// by the budget, and the buffer counts against it.
const BUFFER_BYTES_KEPT: u64 = 256 << 10;
/// How finely the log remembers which LSN stands where: `unapplied_bytes` is exact to this.
const MARK_BYTES: u64 = 16 << 10;

/// So many files of segments are kept open for use again; of a larger log the others are removed.
const FILES_MAX: usize = 64;

/// A segment that nothing is appended to any more.
#[derive(Debug)]
pub struct Ended {
    pub sealed: Sealed,
    /// As it was written, when this process has done so.
    pub segment: Option<Active>,
}

impl From<Sealed> for Ended {
    fn from(sealed: Sealed) -> Ended {
        Ended { sealed, segment: None }
    }
}

/// A log that is open for writing.
#[derive(Debug)]
pub struct Wal {
    pub(super) disk: Arc<dyn Disk>,
    store_id: [u8; 16],
    pub(super) options: WalOptions,
    pub(super) ended: VecDeque<Ended>,
    pub(super) active: Option<Active>,
    pub(super) spares: Spares,
    next_number: u64,
    pub(super) last_lsn: Lsn,
    pub(super) last_batch: u64,
    /// Every batch up to this one is on disk.
    pub(super) synced_batch: u64,
    pub(super) buffer: Vec<u8>,
    /// Why nothing may be written any more.
    poison: Option<String>,
    is_closed: bool,
    /// Bytes of batches since opening and before, how much of it is applied, and which LSN ended
    /// at which total.
    pub(super) total_bytes: u64,
    pub(super) applied_bytes: u64,
    pub(super) marks: VecDeque<(Lsn, u64)>,
    /// Bytes written to segments that are no longer active.
    written: (u64, u64),
}

impl Wal {
    /// Goes on where a scan ended, after mending what it found. The first write of an opened store.
    ///
    /// Errors with `Io` or `Full`; the scan stays valid then, and opening may be tried again.
    pub fn open(
        disk: Arc<dyn Disk>,
        store_id: [u8; 16],
        scan: Scan,
        options: WalOptions,
    ) -> Result<Wal> {
        let options = WalOptions {
            segment_bytes: options.segment_bytes.max(SEGMENT_BYTES_MIN),
            zero_bytes: options.zero_bytes.max(SEGMENT_BYTES_MIN),
            ..options
        };
        remove_strays(&*disk)?;
        let active = mend(&*disk, &scan)?;
        let mut ended: VecDeque<Ended> = scan.sealed.into_iter().map(Ended::from).collect();
        if let Some(tail) = scan.tail.filter(|tail| tail.spent && !tail.footer) {
            let (number, bytes) = (tail.header.number, tail.bytes.max(tail.at));
            ended.push_back(Sealed { number, last_lsn: tail.last_lsn, bytes }.into());
        }
        Ok(Wal {
            disk,
            store_id,
            options,
            ended,
            active,
            spares: Spares::default(),
            next_number: scan.next_number,
            last_lsn: scan.last_lsn,
            last_batch: scan.last_batch,
            synced_batch: scan.last_batch,
            buffer: Vec::new(),
            poison: None,
            is_closed: false,
            total_bytes: scan.bytes,
            applied_bytes: 0,
            marks: VecDeque::new(),
            written: (0, 0),
        })
    }

    /// Writes a batch: its operations, whose LSNs must follow the last one without a gap, each with
    /// its payload (empty for operations that have none). Nothing is durable before [`Wal::sync`].
    /// The result is, per operation, the offset of its payload in [`Wal::segment_file`].
    ///
    /// Errors: `Invalid` when the batch is too large, `Full` or `Io` when it could not be written
    /// (nothing of it counts, the log goes on), `Poisoned` and `Closed`.
    pub fn append(&mut self, ops: &[(Op, Arc<[u8]>)]) -> Result<Vec<u64>> {
        self.put(ops, false)
    }

    /// The same for a caller that syncs next: a batch that begins a segment is synced here, with its
    /// header and before the segment has its name. That is one sync less, and on a slow disk each counts.
    ///
    /// Errors as [`append`](Wal::append), and `Io` when it could not be synced, which poisons the log.
    pub fn append_to_sync(&mut self, ops: &[(Op, Arc<[u8]>)]) -> Result<Vec<u64>> {
        self.put(ops, true)
    }

    /// `durably` says that the caller syncs at once: a segment may take its name with the batch then.
    fn put(&mut self, ops: &[(Op, Arc<[u8]>)], durably: bool) -> Result<Vec<u64>> {
        self.check_usable()?;
        let last = self.check_batch(ops)?;
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        if self.lag() >= LAG_MAX - 1 {
            self.sync()?;
        }
        let bytes = batch_bytes(ops);
        self.make_room(bytes, durably)?;
        let number = self.last_batch.saturating_add(1);
        let lag = self.lag() + 1;
        let batch = NewBatch { ops, number, before: self.last_lsn, lag };
        let Some(active) = &mut self.active else {
            return Err(Error::internal("the log has no segment to append to"));
        };
        let was_unnamed = active.is_unnamed();
        let appended = active.append(&batch, &mut self.buffer);
        let appended = appended.and_then(|places| active.take_name(&*self.disk).map(|()| places));
        if self.buffer.capacity() as u64 > BUFFER_BYTES_KEPT.min(self.options.segment_bytes / 2) {
            self.buffer = Vec::new();
        }
        match appended {
            Ok(places) => {
                self.last_lsn = last;
                self.last_batch = number;
                if was_unnamed {
                    self.synced_batch = number;
                }
                self.total_bytes += bytes;
                if self.total_bytes >= self.marks.back().map_or(0, |m| m.1) + MARK_BYTES {
                    self.marks.push_back((last, self.total_bytes));
                }
                Ok(places)
            }
            Err(failed) => {
                if failed.is_full() {
                    self.give_up_spares(); // For the next one.
                }
                if matches!(failed, Failed::Write(_)) {
                    self.cut_off();
                }
                Err(self.failed(failed))
            }
        }
    }

    /// Cuts off what a failed batch has left, right away if that works; rotating does it again, with a
    /// sync. A segment without a name goes as a whole, and its number is used again.
    fn cut_off(&mut self) {
        let lag = self.lag();
        let Some(active) = &mut self.active else { return };
        if !active.is_unnamed() {
            drop(active.put_frame(Kind::Footer, lag, self.last_lsn, self.last_batch));
            return;
        }
        active.drop_unnamed(&*self.disk);
        self.next_number = active.number;
        if let Some(active) = self.active.take() {
            self.retire(&active);
        }
    }

    /// Number and file of the segment that holds the batch appended last; `None` before the first
    /// append to a new segment. The file stays readable after the segment is removed.
    #[must_use]
    pub fn segment_file(&self) -> Option<(u64, Arc<dyn File>)> {
        self.active.as_ref().map(|active| (active.number, Arc::clone(&active.file)))
    }

    /// Whether every appended batch is durable.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced_batch == self.last_batch
    }

    /// Makes every appended batch durable. A failure poisons the log.
    pub fn sync(&mut self) -> Result<()> {
        self.check_usable()?;
        if self.is_synced() {
            return Ok(());
        }
        let synced = match &self.active {
            Some(active) => active.sync(Safeguard::LogSync),
            None => Ok(()), // Rotating has synced it.
        };
        synced.map_err(|failed| self.failed(failed))?;
        self.synced_batch = self.last_batch;
        Ok(())
    }

    /// Leaves a mark that the last batch was synced: evidence, should the batch be found damaged
    /// with nothing behind it. Not synced, best effort, overwritten by the next batch. Costs one
    /// small write, so it is for moments when no next batch waits: that one says the same.
    pub fn mark_acked(&mut self) {
        let is_synced = self.is_synced();
        if let Some(active) = &mut self.active
            && is_synced
            && self.poison.is_none()
            && !self.is_closed
            && !active.is_broken
            && !active.is_empty()
            && active.at_tail.is_none()
        {
            drop(active.put_frame(Kind::AckMark, 0, self.last_lsn, self.last_batch));
        }
    }

    /// Ends the segment with a footer; the next append starts a new one. It is synced if anything beside
    /// the footer is not: that the next segment goes on where this one ends says as much as a footer.
    /// Does nothing when no batch stands in it.
    pub fn rotate(&mut self) -> Result<()> {
        self.check_usable()?;
        let lag = self.lag();
        let held = self.ended.iter().filter(|ended| ended.segment.is_some()).count();
        let is_kept = held + self.spares.len() < FILES_MAX;
        let Some(active) = &mut self.active else { return Ok(()) };
        if active.is_empty() {
            if active.is_broken {
                // Nothing in it counts: it is created again, under the same number.
                self.next_number = active.number;
                if let Some(active) = self.active.take() {
                    self.retire(&active);
                }
            }
            return Ok(());
        }
        let ended =
            active.put_frame(Kind::Footer, lag, self.last_lsn, self.last_batch).and_then(|()| {
                if !is_kept {
                    drop(active.drop_old()); // What stays goes with the segment.
                }
                match lag > 0 || active.is_broken || !is_kept {
                    true => active.sync(Safeguard::LogFooterSync),
                    false => Ok(()),
                }
            });
        if let Err(failed) = ended {
            // The footer may stand there in part: no batch may follow it.
            active.is_broken = true;
            return Err(self.failed(failed));
        }
        self.synced_batch = self.last_batch;
        if let Some(mut active) = self.active.take() {
            self.retire(&active);
            // Parts of a failed batch may stand behind what it takes for its end.
            active.may_recycle &= !active.is_broken;
            let (number, bytes) = (active.number, active.file_bytes());
            let sealed = Sealed { number, last_lsn: self.last_lsn, bytes };
            let segment = Some(active).filter(|_| is_kept);
            self.ended.push_back(Ended { sealed, segment });
        }
        Ok(())
    }

    /// Whether a failure has ended all writing until the log is opened again.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_some()
    }

    /// LSN of the last operation written.
    #[must_use]
    #[cfg(test)]
    pub fn last_lsn(&self) -> Lsn {
        self.last_lsn
    }

    /// Bytes of batches that are not known to be applied, exact to about 16 KiB.
    #[must_use]
    pub fn unapplied_bytes(&self) -> u64 {
        self.total_bytes - self.applied_bytes
    }

    /// Bytes written since opening: log proper, zero filling.
    #[must_use]
    pub fn bytes_written(&self) -> (u64, u64) {
        let (log, zeros) = self.active.as_ref().map_or((0, 0), |active| active.written);
        (self.written.0 + log, self.written.1 + zeros)
    }

    /// Bytes of memory that the log holds.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        self.buffer.capacity()
            + self.marks.capacity() * size_of::<(Lsn, u64)>()
            + self.ended.capacity() * size_of::<Ended>()
            + self.spares.resident_bytes()
    }

    /// Syncs, and leaves a frame that says the log was closed in order. Nothing can be written
    /// afterwards; closing twice does nothing.
    pub fn close(&mut self) -> Result<()> {
        if self.is_closed {
            return Ok(());
        }
        // Before the frame, not with it: it may be seen although its own sync failed.
        self.sync()?;
        if self.active.as_ref().is_some_and(|active| active.is_broken) {
            self.rotate()?;
        } else if let Some(active) = &mut self.active
            && active.at_tail != Some(Kind::Close)
        {
            let closed =
                active.put_frame(Kind::Close, 0, self.last_lsn, self.last_batch).and_then(|()| {
                    // What stays if that fails is told from the log, and goes with the segment.
                    drop(active.drop_old());
                    active.sync(Safeguard::LogCloseSync)
                });
            closed.map_err(|failed| self.failed(failed))?;
        }
        // What stays is removed at the next open.
        self.give_up_spares();
        self.is_closed = true;
        Ok(())
    }

    /// Batches that are written and not synced.
    fn lag(&self) -> u32 {
        u32::try_from(self.last_batch - self.synced_batch).unwrap_or(LAG_MAX)
    }

    pub(super) fn check_usable(&self) -> Result<()> {
        if let Some(cause) = &self.poison {
            return Err(Error::new(
                ErrorKind::Poisoned,
                format!("the log takes no writes since an earlier failure ({cause}); reopen it"),
            ));
        }
        if self.is_closed {
            return Err(Error::new(ErrorKind::Closed, "the log is closed"));
        }
        Ok(())
    }

    /// The LSN of the last operation, when all of them follow each other and fit the limits.
    fn check_batch(&self, ops: &[(Op, Arc<[u8]>)]) -> Result<Lsn> {
        let mut last = self.last_lsn;
        let mut bytes = 0usize;
        for (op, payload) in ops {
            if last.0.checked_add(1) != Some(op.lsn().0) {
                return Err(Error::internal(format!(
                    "the log was handed LSN {} after LSN {last}",
                    op.lsn()
                )));
            }
            last = op.lsn();
            bytes = bytes.saturating_add(encoded_len(op, payload));
        }
        if bytes > limits::BATCH_BYTES_MAX || ops.len() > limits::BATCH_OPS_MAX {
            return Err(Error::invalid(format!(
                "a batch of {} operations has {bytes} bytes; the limits are {} and {}",
                ops.len(),
                limits::BATCH_OPS_MAX,
                limits::BATCH_BYTES_MAX,
            )));
        }
        Ok(last)
    }

    /// Makes sure that there is a segment with room for so many bytes.
    fn make_room(&mut self, bytes: u64, durably: bool) -> Result<()> {
        let segment_bytes = self.options.segment_bytes;
        let is_spent = |active: &Active| {
            active.is_broken || (!active.is_empty() && !active.has_room(bytes, segment_bytes))
        };
        if self.active.as_ref().is_some_and(is_spent) {
            self.rotate()?;
        }
        if self.active.is_none() {
            let header = SegmentHeader {
                store_id: self.store_id,
                number: self.next_number,
                first_lsn: Lsn(self.last_lsn.0.saturating_add(1)),
                first_batch: self.last_batch.saturating_add(1),
                salt: self.options.salt,
                recycled: false,
            };
            let spare = self.spares.take();
            let mut created = self.create(&header, spare, durably);
            if created.as_ref().is_err_and(Failed::is_full) && self.give_up_spares() {
                created = self.create(&header, None, durably);
            }
            self.active = Some(created.map_err(|failed| self.failed(failed))?);
            self.next_number = self.next_number.saturating_add(1);
            self.spares.note_made();
        }
        let Some(mut active) = self.active.take() else { return Ok(()) };
        let mut filled = active.fill(bytes, &self.options);
        if filled.as_ref().is_err_and(Failed::is_full) && self.give_up_spares() {
            filled = active.fill(bytes, &self.options);
        }
        let is_unnamed = active.is_unnamed();
        self.active = Some(active);
        filled.map_err(|failed| {
            if is_unnamed {
                self.cut_off();
            }
            self.failed(failed)
        })
    }

    /// A new segment, durable, or without a name if that is to come with its first batch.
    fn create(
        &self,
        header: &SegmentHeader,
        spare: Option<Spare>,
        durably: bool,
    ) -> Result<Active, Failed> {
        let mut active = Active::begin(&*self.disk, header, &self.options, spare)?;
        if !durably {
            active.take_name(&*self.disk).inspect_err(|_| active.drop_unnamed(&*self.disk))?;
        }
        Ok(active)
    }

    pub(super) fn retire(&mut self, active: &Active) {
        self.written.0 += active.written.0;
        self.written.1 += active.written.1;
    }

    /// Remembers what is fatal and hands the error on.
    pub(super) fn failed(&mut self, failed: Failed) -> Error {
        match failed {
            Failed::Write(error) => error,
            Failed::Fatal(error) => {
                if !Safeguard::Poison.is_off() {
                    self.poison = Some(error.to_string());
                }
                error
            }
        }
    }
}
