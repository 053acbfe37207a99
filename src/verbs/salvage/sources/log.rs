//! The log of a salvage: every batch that is whole, and which LSNs are missing between them.

use crate::io::Disk;
use crate::organs::wal::look::{self, Logged, Meaning, Met};
use crate::words::error::Result;
use crate::words::id::Lsn;
use crate::words::options::Element;
use crate::words::record::Op;

use super::super::Lost;
use super::{Best, Sources, Where};

/// How far the log was read.
struct Progress {
    /// The next LSN that must come.
    next: Lsn,
    /// The highest one that a frame named.
    seen: Lsn,
    /// The last damage, unless a whole batch came behind it.
    damage: Option<(String, u64, Meaning)>,
}

/// Reads it. `is_carved` says that nobody knows for sure how far the archive goes.
pub fn read(
    sources: &mut Sources,
    disk: &dyn Disk,
    store_id: [u8; 16],
    is_carved: bool,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let applied = sources.applied;
    let heads = look::headers(disk)?;
    sources.report.files += heads.len() as u64;
    let begins = heads.iter().find_map(|(_, header)| Some(header.as_ref()?.first_lsn));
    let floor = match begins.filter(|_| is_carved) {
        Some(first) => applied.max(Lsn(first.0.saturating_sub(1))),
        None => applied,
    };
    let mut at = Progress { next: floor.next(), seen: Lsn(0), damage: None };
    look::visit(disk, store_id, applied, &mut |met| {
        match met {
            Met::Batch(ops) => {
                if let (Some(first), Some(last)) = (ops.first(), ops.last()) {
                    let (first, last) = (first.op.lsn(), last.op.lsn());
                    if first > at.next {
                        let lost = Some(Lsn(first.0.saturating_sub(1)));
                        sources.lose_batches(&at, lost);
                    }
                    at.next = at.next.max(last.next());
                    at.damage = None;
                }
                ops.iter().for_each(|logged| sources.take_logged(logged));
                progress(sources.best.len() as u64);
            }
            Met::Loose(lsn) => at.seen = at.seen.max(lsn),
            Met::Damage { file, offset, meaning } => {
                // The first one of a row says where the loss begins.
                at.damage.get_or_insert((file.to_owned(), offset, meaning));
            }
            Met::Unreadable(file, error) => {
                sources.report.lose_file(file, error.to_string());
                at.damage = None;
            }
        }
        Ok(())
    })?;
    match &at.damage {
        Some((_, _, Meaning::Rotten | Meaning::TornOrRotten)) => {
            sources.lose_batches(&at, Some(at.seen).filter(|seen| *seen >= at.next));
        }
        Some((file, offset, Meaning::Torn)) => sources.report.notes.push(format!(
            "{file}: the last write was cut off at offset {offset}; nobody was told it succeeded"
        )),
        _ => {}
    }
    Ok(())
}

impl Sources {
    fn take_logged(&mut self, logged: &Logged) {
        let Logged { op, segment, offset, len } = logged;
        // The archive has said all there is to say, and what it left out was removed.
        if op.lsn() <= self.applied && self.archive_is_whole {
            return;
        }
        let Op::Put(record) = op else {
            self.take_op(op);
            return;
        };
        let dim = record.vector.as_ref().map_or(0, |vector| vector.len());
        let element = if record.half { Element::F16 } else { Element::F32 };
        let dim = u32::try_from(dim).unwrap_or(0);
        self.shape(record.collection, dim, element, record.version);
        let best = Best {
            version: record.version,
            collection: record.collection,
            at: Where::Log(*segment, *offset, *len),
        };
        self.note(record.id, best);
    }

    fn lose_batches(&mut self, at: &Progress, last: Option<Lsn>) {
        let (file, offset, meaning) = match &at.damage {
            Some((file, offset, meaning)) => (file.clone(), *offset, Some(*meaning)),
            None => (crate::organs::wal::FOLDER.to_owned(), 0, None),
        };
        let what = match (meaning, last) {
            (Some(Meaning::TornOrRotten), _) => {
                "the last batch, or a write that was cut short: nothing tells"
            }
            (Some(_), Some(_)) => "batches of the log are damaged",
            (Some(_), None) => "the log is damaged, and nothing tells how far it went",
            (None, _) => "operations are missing from the log",
        };
        let (what, lsns) = (what.to_owned(), Some((at.next, last)));
        self.report.lose(Lost { file, offset, what, lsns, id: None, key: None });
    }
}
