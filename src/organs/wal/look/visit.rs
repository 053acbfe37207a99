//! Visiting what is whole in the log, wherever it stands: for a salvage.
//!
//! The walk is that of [`look`](super::look); here its operations are kept until the commit frame of
//! their batch has come, and handed out when every byte of the batch verified.

use crc32fast::Hasher;

use crate::bytes::codec::log::{Commit, Frame, SegmentHeader};
use crate::io::Disk;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::Lsn;
use crate::words::record::Op;

use super::{Meaning, file_name, list, look_at, read_header};

/// Who takes what a [`visit`] meets.
pub type Take<'a> = &'a mut dyn FnMut(Met<'_>) -> Result<()>;

/// An operation of the log, and where its bytes stand.
#[derive(Clone, Debug)]
pub struct Logged {
    /// The operation.
    pub op: Op,
    /// Number of the segment.
    pub segment: u64,
    /// Offset of its bytes there.
    pub offset: u64,
    /// Length of its bytes.
    pub len: u32,
}

/// What [`visit`] meets.
#[derive(Debug)]
pub enum Met<'a> {
    /// A batch every byte of which verifies.
    Batch(Vec<Logged>),
    /// Operations of a batch that is not whole; this is the last one's LSN.
    Loose(Lsn),
    /// A damaged place.
    Damage {
        /// The segment.
        file: &'a str,
        /// Where in it.
        offset: u64,
        /// What it means.
        meaning: Meaning,
    },
    /// A segment of another store, or another number, or nothing that can be read.
    Unreadable(&'a str, Error),
}

/// Visits what stands in the log of a store, oldest segment first, whole or not.
pub fn visit(disk: &dyn Disk, store_id: [u8; 16], applied: Lsn, take: Take<'_>) -> Result<()> {
    let mut heads = Vec::new();
    for number in list(disk)? {
        heads.push((number, read_header(disk, number)));
    }
    let is_ours = |number: u64, h: &SegmentHeader| {
        h.store_id == store_id && h.number == number && h.first_lsn.0 > 0 && h.first_batch > 0
    };
    for (at, (number, header)) in heads.iter().enumerate() {
        let later = heads.get(at + 1).map(|(number, later)| match later {
            Ok(Some(header)) if is_ours(*number, header) => header.first_lsn,
            _ => Lsn(0),
        });
        let file = file_name(*number);
        let looked = match header {
            Ok(Some(header)) if !is_ours(*number, header) => {
                let message = format!("{file}: the header names another store or segment");
                Err(Error::corrupt(message))
            }
            Ok(header) => look_at(disk, *number, *header, applied, later, Some(&mut *take)),
            Err(error) => Err(error.clone()),
        };
        match looked {
            Ok(look) if look.header.is_none() && !look.blank => {
                take(Met::Damage { file: &file, offset: 0, meaning: Meaning::Rotten })?;
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Io) => {
                take(Met::Unreadable(&file, error))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What becomes of the operations.
pub(super) struct Sink<'a> {
    pub(super) take: Take<'a>,
    /// Those since the last commit frame, and the CRC of their headers.
    ops: Vec<Logged>,
    crc: Hasher,
    /// Whether all of them verified, one behind the other.
    whole: bool,
}

impl<'a> Sink<'a> {
    pub(super) fn new(take: Take<'a>) -> Sink<'a> {
        Sink { take, ops: Vec::new(), crc: Hasher::new(), whole: true }
    }

    /// Keeps an operation until its batch is known to be whole.
    pub(super) fn keep(
        &mut self,
        segment: u64,
        offset: u64,
        frame: &Frame,
        header: &[u8],
        op: Option<Op>,
    ) {
        let before = self.ops.last().map(|logged| logged.op.lsn().0);
        let follows = before.is_none_or(|before| before.checked_add(1) == Some(frame.lsn.0));
        self.crc.update(header);
        match op {
            Some(op) if self.whole && follows => {
                self.ops.push(Logged { op, segment, offset, len: frame.len });
            }
            _ => self.tear(),
        }
    }

    /// What came since the last commit frame is no whole batch.
    pub(super) fn tear(&mut self) {
        self.ops.clear();
        self.whole = false;
    }

    /// Ends a batch: hands it out when it is whole.
    pub(super) fn hand_over(&mut self, frame: &Frame, commit: Option<Commit>) -> Result<()> {
        let ops = std::mem::take(&mut self.ops);
        let crc = std::mem::take(&mut self.crc).finalize();
        let whole = std::mem::replace(&mut self.whole, true);
        let (first, last) = (ops.first().map(|l| l.op.lsn()), ops.last().map(|l| l.op.lsn()));
        let fits = commit.is_some_and(|commit| {
            commit.count as usize == ops.len()
                && Some(commit.first_lsn) == first
                && commit.batch_crc == crc
        });
        match whole && fits && last == Some(frame.lsn) {
            true => (self.take)(Met::Batch(ops)),
            false => (self.take)(Met::Loose(frame.lsn)),
        }
    }
}
