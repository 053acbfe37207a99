//! Writing what was found into a new store: oldest LSN first, a table at a time, by the mover.
//!
//! In the order of the LSNs, so that the new store's files are such as it would have written itself:
//! each segment covers a stretch of the history, and a rebuild of its index finds the same.
//!
//! Two entries under one key are there when the removal of the first one is lost. The later one stays.
//!
//! Never: holds more than one table, and one large payload's piece.

use std::io;
use std::sync::Arc;

use crate::bytes::codec::op::decode_op;
use crate::io::{Disk, File};
use crate::organs::archive::{self, BodyReader, Row, Segment};
use crate::organs::wal;
use crate::tiers::View;
use crate::tiers::mover::{self, Ground};
use crate::words::error::{Error, Result};
use crate::words::id::{CollectionId, EntryId, KeyPath, Lsn};
use crate::words::record::{Op, Payload, PayloadPlace, Place, Record, Removal, Tombstone};

use super::sources::{Best, Sources, Where};
use super::{Older, SalvageReport};

/// Bytes of a table that is archived.
const TABLE_BYTES_MAX: u64 = 8 << 20;

/// Carries everything into an empty store. `progress` is called with the number of entries written.
pub fn copy(
    source: &dyn Disk,
    sources: &Sources,
    ground: &Ground<'_>,
    mut view: View,
    progress: &mut dyn FnMut(u64),
) -> Result<SalvageReport> {
    let mut report = sources.report.clone();
    let mut ledger: Vec<Op> = sources.collections.values().cloned().map(Op::Define).collect();
    // Rows may be older than the definition that counts, and are archived by it all the same.
    ledger.iter().for_each(|op| view.apply_ledger(op));
    ledger.extend(sources.settings.values().cloned());
    ledger.extend(sources.requests.values().cloned());
    view.next_id = view.next_id.max(EntryId(sources.next_id));
    view.next_collection = view.next_collection.max(CollectionId(sources.next_collection));

    let mut order: Vec<(Lsn, Item)> = Vec::new();
    order.extend(ledger.into_iter().map(|op| (op.lsn(), Item::Ledger(op))));
    let live = sources.best.iter().filter(|(_, best)| best.at != Where::Gone);
    order.extend(live.map(|(id, best)| (best.version, Item::Entry(*id, *best))));
    order.sort_by_key(|(lsn, _)| *lsn);
    let newest = order.last().map_or(Lsn(0), |(lsn, _)| *lsn);
    // The last LSN was given out, whatever became of its entry.
    if let Some(last) = sources.last_removal.clone().filter(|last| last.version > newest) {
        order.push((last.version, Item::Ledger(Op::Delete(last))));
    }

    let mut reader = Reader { source, sources, bodies: None, log: None };
    let mut written = 0;
    for (_, item) in order {
        let (op, file) = match item {
            Item::Ledger(op) => (op, None),
            Item::Entry(id, best) => {
                let (record, file) = reader.record(id, &best)?;
                if let Some(elder) = namesake(&view, &record)? {
                    report.entries = report.entries.saturating_sub(1);
                    let older = Older {
                        id: elder.id,
                        key: Some(elder.key.clone()),
                        version: elder.version,
                        damaged: record.version,
                    };
                    report.notes.push(format!(
                        "entry {} gave way to entry {id} of the same key: its removal is lost",
                        older.id
                    ));
                    view.apply(Op::Delete(elder), None);
                }
                written += 1;
                (Op::Put(record), file)
            }
        };
        view.apply(op, file);
        if view.active.bytes() >= TABLE_BYTES_MAX {
            view = archive_table(ground, view)?;
            progress(written);
        }
    }
    if !view.active.is_empty() {
        archive_table(ground, view)?;
    }
    progress(written);
    Ok(report)
}

enum Item {
    Entry(EntryId, Best),
    Ledger(Op),
}

fn archive_table(ground: &Ground<'_>, mut view: View) -> Result<View> {
    view.frozen = Some(Arc::new(std::mem::take(&mut view.active)));
    let (cold, _) = mover::archive(ground, &view, 0)?;
    view.cold = Arc::new(cold);
    view.frozen = None;
    Ok(view)
}

/// The removal of another entry that stands under the key of this one.
fn namesake(view: &View, record: &Record) -> Result<Option<Tombstone>> {
    let (namespace, key) = (record.namespace.clone(), record.key.clone());
    let path = KeyPath { collection: record.collection, namespace, key };
    let other = view.find(&path)?.filter(|id| *id != record.id);
    let KeyPath { collection, namespace, key } = path;
    let version = record.version;
    Ok(other.map(|id| Tombstone {
        collection,
        id,
        version,
        namespace,
        key,
        removal: Removal::Deleted,
    }))
}

/// Reads records again, with what was opened last at hand.
struct Reader<'a> {
    source: &'a dyn Disk,
    sources: &'a Sources,
    bodies: Option<((u64, u16), BodyReader<'a>)>,
    log: Option<(u64, Arc<dyn File>)>,
}

impl<'a> Reader<'a> {
    fn record(&mut self, id: EntryId, best: &Best) -> Result<(Record, Option<Arc<dyn File>>)> {
        let read = match best.at {
            Where::Row(place) => self.archived(place)?,
            Where::Log(segment, offset, len) => self.logged(best.version, segment, offset, len)?,
            Where::Gone => return Err(Error::internal(format!("entry {id} was removed"))),
        };
        match (read.0.id, read.0.version) == (id, best.version) {
            true => Ok(read),
            false => Err(Error::corrupt(format!("entry {id} changed while it was copied"))),
        }
    }

    fn archived(&mut self, place: Place) -> Result<(Record, Option<Arc<dyn File>>)> {
        let sources: &'a Sources = self.sources;
        let segment = sources.segments.get(&place.segment).ok_or_else(|| {
            let file = archive::file_name(place.segment);
            Error::internal(format!("{file} was not opened"))
        })?;
        let of = (place.segment, place.group);
        if self.bodies.as_ref().is_none_or(|(at, _)| *at != of) {
            self.bodies = Some((of, BodyReader::new(segment, place.group)));
        }
        let row = segment.row(place.group, place.row)?;
        let (_, bodies) =
            self.bodies.as_mut().ok_or_else(|| Error::internal("a reader was not made"))?;
        let mut record = bodies.record(&row)?;
        let Payload::InArchive(PayloadPlace { len, crc, .. }) = record.payload else {
            return Ok((record, None));
        };
        // The mover reads large payloads from a file; this one stands for the row's.
        let (segment, group) = (Arc::clone(segment), place.group);
        let place = PayloadPlace { segment: place.segment, offset: 0, len, crc };
        record.payload = Payload::InLog(place);
        Ok((record, Some(Arc::new(PayloadFile { segment, group, row }))))
    }

    fn logged(
        &mut self,
        lsn: Lsn,
        number: u64,
        offset: u64,
        len: u32,
    ) -> Result<(Record, Option<Arc<dyn File>>)> {
        let name = wal::file_name(number);
        let file = match &self.log {
            Some((open, file)) if *open == number => Arc::clone(file),
            _ => {
                let file = wal::open_segment(self.source, number)?;
                self.log = Some((number, Arc::clone(&file)));
                file
            }
        };
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, offset)
            .map_err(|e| Error::io(format!("read {name} at offset {offset}"), e))?;
        match decode_op(lsn, &bytes, Some((number, offset))) {
            Ok(Op::Put(record)) => Ok((record, Some(file))),
            _ => Err(Error::corrupt(format!("{name}: record {lsn} changed at offset {offset}"))),
        }
    }
}

/// A payload of the archive as a file.
#[derive(Debug)]
struct PayloadFile {
    segment: Arc<Segment>,
    group: u16,
    row: Row,
}

impl File for PayloadFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = u64::from(self.row.payload_len()).saturating_sub(offset);
        let len = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let part = buf.get_mut(..len).unwrap_or_default();
        self.segment
            .payload_piece(self.group, &self.row, offset, part)
            .map_err(io::Error::other)?;
        Ok(len)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(u64::from(self.row.payload_len()))
    }
}
