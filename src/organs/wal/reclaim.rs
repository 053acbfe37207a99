//! Giving back what the archive holds: the log's segments become spares or go, and nothing of them stays
//! where a vacuum has been.
//!
//! 1. A checkpoint gives back every segment whose records are all archived. Its name goes first, durably;
//!    a spare keeps the file.
//! 2. The next segment is made of a spare ([`Wal::append`]).
//! 3. A vacuum, a close and a full disk let go of the spares, and what stands of older segments behind
//!    the end of those that are in use is cut off.
//!
//! Never: writes to a file while a crash could bring back a name under which it was a segment.

use crate::words::error::{Error, Result};
use crate::words::id::Lsn;
use crate::words::safeguard::Safeguard;

use super::active::{Active, Failed};
use super::spares::{Spare, retire};
use super::writer::{Ended, Wal};
use super::{FOLDER, file_name};

impl Wal {
    /// Gives back the segments that hold nothing newer than `applied`, the current one included when
    /// anything stands in it: as spares, as many as are of use, the others are removed. The caller has
    /// made durable elsewhere everything up to `applied`. The result is how long they were, in bytes.
    pub fn reclaim(&mut self, applied: Lsn) -> Result<u64> {
        self.check_usable()?;
        self.note_applied(applied);
        // A checkpoint counts what is resident, and a log that nobody writes to needs no room to write
        // in: a store that idles takes what it would take after an open.
        self.buffer = Vec::new();
        let (mut freed, mut spares) = (0, Vec::new());
        let outcome = self.give_back(applied, &mut freed, &mut spares);
        if freed > 0 {
            // One that came back alone would be read as a log that a crash cut off, and its number given
            // out again. And no spare is written to while a crash could bring its old name back.
            let synced = Safeguard::LogReclaimDirSync.keep(|| self.disk.sync_dir(FOLDER));
            synced.map_err(|e| {
                self.failed(Failed::Fatal(Error::io(format_args!("sync {FOLDER}/"), e)))
            })?;
        }
        self.spares.keep(spares);
        outcome.map(|()| freed)
    }

    fn give_back(&mut self, applied: Lsn, freed: &mut u64, spares: &mut Vec<Spare>) -> Result<()> {
        let is_spent = |ended: &Ended| ended.sealed.last_lsn <= applied;
        let current = self.active.as_ref().filter(|a| !a.is_empty() && self.last_lsn <= applied);
        if !self.ended.front().is_some_and(is_spent) && current.is_none() {
            return Ok(());
        }
        self.spares.begin_cycle();
        while let Some(ended) = self.ended.front().filter(|ended| is_spent(ended)) {
            self.give_back_one(ended.sealed.number, ended.segment.as_ref(), spares)?;
            *freed += ended.sealed.bytes;
            self.ended.pop_front();
        }
        // The current segment goes without a footer: its removal is durable before a later one is
        // created, and whatever was not synced in it is applied.
        if let Some(active) =
            self.active.as_ref().filter(|a| !a.is_empty() && self.last_lsn <= applied)
        {
            let usable = Some(active).filter(|active| !active.is_broken);
            self.give_back_one(active.number, usable, spares)?;
            if let Some(active) = self.active.take() {
                self.retire(&active);
                *freed += active.file_bytes();
            }
            self.synced_batch = self.last_batch;
        }
        Ok(())
    }

    /// Makes a spare of a segment, or removes it.
    fn give_back_one(
        &self,
        number: u64,
        segment: Option<&Active>,
        spares: &mut Vec<Spare>,
    ) -> Result<()> {
        let segment = segment.filter(|_| spares.len() < self.spares.missing());
        let spare = segment.and_then(|s| retire(&*self.disk, s, self.options.segment_bytes));
        match spare {
            Some(spare) => spares.push(spare),
            None => self.remove(number)?,
        }
        Ok(())
    }

    /// Lets go of everything that was given back: the spares, and what recycled segments held before.
    /// Nothing written up to now is kept for another segment either.
    pub fn forget_old(&mut self) -> Result<()> {
        self.check_usable()?;
        let had_spares = self.spares.clear(&*self.disk)?;
        let ended = self.ended.iter_mut().filter_map(|ended| ended.segment.as_mut());
        let mut outcome = Ok(());
        for segment in ended.chain(self.active.as_mut()) {
            segment.may_recycle = false;
            outcome = outcome.and_then(|()| segment.forget_old());
        }
        if had_spares && outcome.is_ok() {
            let synced = Safeguard::LogForgetSync.keep(|| self.disk.sync_dir(FOLDER));
            outcome =
                synced.map_err(|e| Failed::Fatal(Error::io(format_args!("sync {FOLDER}/"), e)));
        }
        outcome.map_err(|failed| self.failed(failed))
    }

    /// Gives the spares' bytes to whoever finds no room. The result is whether there were any.
    pub fn give_up_spares(&mut self) -> bool {
        let cleared = self.spares.clear(&*self.disk);
        cleared.inspect_err(|error| tracing::warn!(%error, "a spare stays")).unwrap_or(false)
    }

    fn remove(&self, number: u64) -> Result<()> {
        let name = file_name(number);
        match self.disk.remove(&name) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format_args!("remove {name}"), e))
            }
            _ => Ok(()),
        }
    }

    fn note_applied(&mut self, applied: Lsn) {
        while let Some((_, total)) = self.marks.front().filter(|mark| mark.0 <= applied) {
            self.applied_bytes = *total;
            self.marks.pop_front();
        }
        if applied >= self.last_lsn {
            self.applied_bytes = self.total_bytes;
        }
    }
}
