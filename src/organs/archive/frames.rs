//! Reading what is compressed: bodies and payloads.
//!
//! Steps for one frame: its table entry (24 bytes, own CRC), the bounds, the stored bytes, their
//! CRC, and only then the decoder, into a buffer of exactly the promised length. Then the CRC of
//! the body or payload itself, from the row: a whole frame that belongs to another row is seen.
//!
//! [`BodyReader`] remembers the last frame of each kind, so that a walk over rows in order
//! decompresses every frame once. One decoder per thread is kept for all segments; it is scratch
//! of the thread (some 160 KiB), not memory that grows with the data.

use std::cell::RefCell;
use std::sync::Arc;

use crate::bytes::codec::body::{
    Body, BodyRef, FrameEntry, PIECE_BYTES, TABLE_ENTRY_BYTES, decode_body,
};
use crate::bytes::codec::row::{Row, Span};
use crate::bytes::codec::segment::SectionKind;
use crate::words::error::{Error, Result};
use crate::words::record::Record;
use crate::words::safeguard::Safeguard;

use super::segment::{Segment, payload_of};

type Decoder = RefCell<Option<zstd::bulk::Decompressor<'static>>>;

thread_local! {
    static DECODER: Decoder = const { RefCell::new(None) };
}

impl Segment {
    /// Reads frame `index` into `out`, whose length becomes the frame's. `stored` is scratch.
    pub(super) fn frame(
        &self,
        group: u16,
        kind: SectionKind,
        index: u32,
        stored: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let entry = self.frame_entry(group, kind, index)?;
        stored.resize(entry.len as usize, 0);
        self.read(stored, entry.offset)?;
        let differs = self.seed.crc(kind, group, u64::from(index), stored) != entry.crc;
        if Safeguard::ArchiveFrameCrc.finds(differs) {
            return Err(self.damaged(entry.offset, format!("CRC of frame {index} differs")));
        }
        if entry.len == entry.raw {
            std::mem::swap(stored, out);
            return Ok(());
        }
        out.resize(entry.raw as usize, 0);
        match decompress(stored, out) {
            Ok(len) if len == out.len() => Ok(()),
            Ok(len) => Err(self.damaged(
                entry.offset,
                format!("frame {index} has {len} bytes instead of {}", entry.raw),
            )),
            Err(e) => Err(self.damaged(entry.offset, format!("frame {index}: {e}"))),
        }
    }

    /// Where the place of a frame is said.
    pub(super) fn frame_entry_at(&self, group: u16, kind: SectionKind, index: u32) -> Result<u64> {
        let table = self.section(group, table_of(kind))?;
        if index >= table.items {
            return Err(self.damaged(table.offset, format!("there is no frame {index}")));
        }
        Ok(table.offset + u64::from(index) * TABLE_ENTRY_BYTES as u64)
    }

    /// The place of a frame.
    pub(super) fn frame_entry(
        &self,
        group: u16,
        kind: SectionKind,
        index: u32,
    ) -> Result<FrameEntry> {
        let at = self.frame_entry_at(group, kind, index)?;
        let (table_kind, section) = (table_of(kind), self.section(group, kind)?);
        let mut bytes = [0; TABLE_ENTRY_BYTES];
        self.read(&mut bytes, at)?;
        let entry = FrameEntry::decode(&bytes, self.seed, table_kind, group, index)
            .map_err(|d| self.damaged(at, d))?;
        let end = entry.offset.checked_add(u64::from(entry.len));
        if entry.offset < section.offset || end.is_none_or(|end| end > section.end()) {
            return Err(self.damaged(at, format!("frame {index} lies outside its section")));
        }
        Ok(entry)
    }

    /// Fills `buf` with the payload of a row from byte `offset` on; for large payloads only the
    /// pieces touched are read. Errors with `Invalid` when the payload is shorter.
    pub fn payload_piece(&self, group: u16, row: &Row, offset: u64, buf: &mut [u8]) -> Result<()> {
        let len = u64::from(row.payload_len());
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > len) {
            return Err(Error::invalid(format!(
                "{} bytes at {offset} of a payload of {len}",
                buf.len()
            )));
        }
        let Some(span) = row.payload else { return Ok(()) };
        if !row.pieces {
            let payload = self.payload(group, row)?;
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            let part = payload.get(from..).and_then(|rest| rest.get(..buf.len()));
            buf.copy_from_slice(part.ok_or_else(|| {
                self.damaged(self.row_at(group, row), "its payload is too short")
            })?);
            return Ok(());
        }
        let (mut stored, mut piece) = (Vec::new(), Vec::new());
        let mut at = offset;
        let mut left = buf;
        while !left.is_empty() {
            self.piece(group, row, span, at / PIECE_BYTES as u64, &mut stored, &mut piece)?;
            let skip = (at % PIECE_BYTES as u64) as usize;
            let bytes = piece.get(skip..).unwrap_or_default();
            let (now, later) = left.split_at_mut(bytes.len().min(left.len()));
            let Some(bytes) = bytes.get(..now.len()).filter(|b| !b.is_empty()) else {
                return Err(self.damaged(self.row_at(group, row), "a payload piece is too short"));
            };
            now.copy_from_slice(bytes);
            at += bytes.len() as u64;
            left = later;
        }
        Ok(())
    }

    fn piece(
        &self,
        group: u16,
        row: &Row,
        span: Span,
        number: u64,
        stored: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let from = number.saturating_mul(PIECE_BYTES as u64);
        let expected = u64::from(span.len).saturating_sub(from).min(PIECE_BYTES as u64);
        let index = u64::from(span.frame)
            .checked_add(number)
            .and_then(|index| u32::try_from(index).ok())
            .ok_or_else(|| {
                self.damaged(self.row_at(group, row), "a payload piece has no number")
            })?;
        self.frame(group, SectionKind::Payloads, index, stored, out)?;
        if out.len() as u64 != expected {
            return Err(self.damaged(
                self.row_at(group, row),
                format!("piece {number} of row {} has {} bytes", row.number, out.len()),
            ));
        }
        Ok(())
    }
}

fn table_of(kind: SectionKind) -> SectionKind {
    match kind {
        SectionKind::Bodies => SectionKind::BodyTable,
        _ => SectionKind::PayloadTable,
    }
}

fn decompress(stored: &[u8], out: &mut [u8]) -> std::io::Result<usize> {
    let run = |slot: &Decoder| {
        let mut slot = slot.try_borrow_mut().map_err(std::io::Error::other)?;
        let decoder = match &mut *slot {
            Some(decoder) => decoder,
            empty => empty.insert(zstd::bulk::Decompressor::new()?),
        };
        decoder.decompress_to_buffer(stored, out)
    };
    DECODER.try_with(run).map_err(std::io::Error::other)?
}

/// The last decompressed frame of one kind.
#[derive(Default)]
struct Last {
    frame: Option<u32>,
    bytes: Vec<u8>,
}

/// Bodies, payloads and records of one group, best asked for in row order.
pub struct BodyReader<'a> {
    segment: &'a Segment,
    group: u16,
    stored: Vec<u8>,
    bodies: Last,
    payloads: Last,
}

impl<'a> BodyReader<'a> {
    /// A reader of this group.
    #[must_use]
    pub fn new(segment: &'a Segment, group: u16) -> BodyReader<'a> {
        BodyReader {
            segment,
            group,
            stored: Vec::new(),
            bodies: Last::default(),
            payloads: Last::default(),
        }
    }

    /// The body of a row, borrowed from the frame at hand.
    pub fn body_ref(&mut self, row: &Row) -> Result<BodyRef<'_>> {
        self.load(SectionKind::Bodies, row.body.frame)?;
        let bytes = self.span(&self.bodies, row.body, row.body_crc, row, "body")?;
        decode_body(bytes, row.has_session)
            .map_err(|d| self.foreign(row, format!("body is no body: {d}")))
    }

    /// The body of a row.
    pub fn body(&mut self, row: &Row) -> Result<Body> {
        let (segment, at) = (self.segment, self.segment.row_at(self.group, row));
        let body = self.body_ref(row)?.to_body();
        body.map_err(|d| segment.damaged(at, format!("body of row {}: {d}", row.number)))
    }

    /// The payload of a row, whole.
    pub fn payload(&mut self, row: &Row) -> Result<Vec<u8>> {
        let Some(span) = row.payload else { return Ok(Vec::new()) };
        if !row.pieces {
            self.load(SectionKind::Payloads, span.frame)?;
            return self
                .span(&self.payloads, span, row.payload_crc, row, "payload")
                .map(<[u8]>::to_vec);
        }
        // The length was checked against the limit; a frame that is not there ends the loop early.
        let (mut out, mut piece) = (Vec::new(), Vec::new());
        for number in 0..u64::from(span.len).div_ceil(PIECE_BYTES as u64) {
            self.segment.piece(self.group, row, span, number, &mut self.stored, &mut piece)?;
            out.extend_from_slice(&piece);
        }
        match Safeguard::ArchivePiecesCrc.finds(crc32fast::hash(&out) != row.payload_crc) {
            false => Ok(out),
            true => Err(self.foreign(row, "payload is not the one that was written")),
        }
    }

    /// The exact record of a row. A payload that may not stay in RAM comes as its place.
    pub fn record(&mut self, row: &Row) -> Result<Record> {
        let body = self.body(row)?;
        let number = self.segment.number();
        let payload = payload_of(number, row, || self.payload(row))?;
        let vector = self.segment.vector(self.group, row)?.map(Arc::from);
        Ok(Record {
            collection: self.segment.group(self.group)?.collection,
            id: row.id,
            version: row.version,
            namespace: body.namespace,
            key: body.key,
            vector,
            half: row.half,
            payload,
            attributes: body.attributes,
            at: row.at,
            created: row.created,
            updated: row.updated,
            expires: row.expires,
            session: body.session,
            sequence: row.sequence,
            salience: row.salience,
            pinned: row.pinned,
        })
    }

    fn load(&mut self, kind: SectionKind, frame: u32) -> Result<()> {
        let last = match kind {
            SectionKind::Bodies => &mut self.bodies,
            _ => &mut self.payloads,
        };
        if last.frame == Some(frame) {
            return Ok(());
        }
        last.frame = None;
        self.segment.frame(self.group, kind, frame, &mut self.stored, &mut last.bytes)?;
        last.frame = Some(frame);
        Ok(())
    }

    fn span<'b>(
        &self,
        last: &'b Last,
        span: Span,
        crc: u32,
        row: &Row,
        what: &str,
    ) -> Result<&'b [u8]> {
        let rest = last.bytes.get(span.offset as usize..);
        match rest.and_then(|rest| rest.get(..span.len as usize)) {
            Some(bytes) if !Safeguard::ArchiveSpanCrc.finds(crc32fast::hash(bytes) != crc) => {
                Ok(bytes)
            }
            _ => Err(self.foreign(row, format!("{what} is not the one that was written"))),
        }
    }

    fn foreign(&self, row: &Row, what: impl std::fmt::Display) -> Error {
        let at = self.segment.row_at(self.group, row);
        self.segment.damaged(at, format!("row {} of group {}: its {what}", row.number, self.group))
    }
}
