//! One sealed segment, open for reading.
//!
//! `open` reads three small pieces (header, trailer, footer) and checks them; everything else is
//! read when it is asked for and checked before it is used. A handle is `Send + Sync`, holds the
//! footer and one bit a vector, and goes on working when the file's name is removed.
//!
//! Single rows cost one read each; their body and payload two more (table entry, frame). Scans use
//! [`Segment::rows`], [`Segment::vectors`] and a [`BodyReader`](super::BodyReader), which read in
//! blocks. Nothing here writes, and nothing knows which rows are still alive.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::bytes::codec::body::Body;
use crate::bytes::codec::cursor::{Reader, Short};
use crate::bytes::codec::footer::{Footer, Group};
use crate::bytes::codec::row::{ROW_BYTES, Row};
use crate::bytes::codec::segment::{
    FORMAT, HEADER_BYTES, Section, SectionKind, Seed, TRAILER_BYTES, decode_header, decode_trailer,
};
use crate::io::{Disk, File, OpenMode};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::{CollectionId, Lsn};
use crate::words::limits;
use crate::words::record::{Payload, PayloadPlace, Record};
use crate::words::safeguard::Safeguard;

use super::file_name;
use super::frames::BodyReader;
use super::vectors::Checked;

/// A sealed segment.
pub struct Segment {
    pub(super) file: Arc<dyn File>,
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) crc: u32,
    pub(super) seed: Seed,
    pub(super) footer: Footer,
    /// Per group: which vectors were checked since `open`.
    pub(super) checked: Vec<Checked>,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("name", &self.name).field("bytes", &self.bytes).finish()
    }
}

impl Segment {
    /// Opens a segment of this store. Errors: `Io` when the file cannot be opened, `Version` when a
    /// newer build wrote it, `Corrupt` when it is cut, damaged, misnamed or another store's.
    pub fn open(disk: &dyn Disk, number: u64, store_id: [u8; 16]) -> Result<Segment> {
        let name = file_name(number);
        let failed = |e| Error::io(format!("open {name}"), e);
        let file = disk.open(&name, OpenMode::Read).map_err(failed)?;
        let bytes = file.len().map_err(failed)?;
        let (footer, crc) = read_frame_of(&*file, &name, bytes, number, store_id)?;
        let checked = footer.groups.iter().map(|g| Checked::new(g.vectors)).collect();
        let seed = Seed::new(store_id, number);
        Ok(Segment { file, name, bytes, crc, seed, footer, checked })
    }

    /// The directory of the segment.
    #[must_use]
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.footer.number
    }

    /// Length of its file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// CRC of its footer: the identity of its contents.
    #[must_use]
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// Bytes of RAM this handle keeps because of the data.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let groups = self.footer.groups.iter();
        let sections: usize = groups.map(|g| g.sections.capacity() * size_of::<Section>()).sum();
        let checked: usize = self.checked.iter().map(Checked::resident_bytes).sum();
        let fixed = size_of::<Segment>()
            + self.footer.groups.capacity() * (size_of::<Group>() + size_of::<Checked>())
            + self.footer.supersedes.capacity() * size_of::<(u64, u32)>();
        (fixed + sections + checked) as u64
    }

    /// Appends rows `from .. from + count` of a group to `out`. On an error `out` is as before.
    pub fn rows(&self, group: u16, from: u32, count: u32, out: &mut Vec<Row>) -> Result<()> {
        const BLOCK_ROWS: u32 = 512;
        let there = out.len();
        let mut bytes = Vec::new();
        let end = u64::from(from) + u64::from(count);
        let mut at = u64::from(from);
        while at < end {
            let block = (end - at).min(u64::from(BLOCK_ROWS)) as u32;
            let result = u32::try_from(at)
                .map_err(|_| self.no_row(group, at))
                .and_then(|first| self.row_block(group, first, block, &mut bytes, out));
            if let Err(error) = result {
                out.truncate(there);
                return Err(error);
            }
            at += u64::from(block);
        }
        Ok(())
    }

    /// Whether some rows can be read without a wait for the medium, as the last of them says. If not, they will be
    /// read soon.
    pub fn fetch_rows(&self, group: u16, from: u32, count: u32) -> bool {
        // What is wrong, the read says.
        let Ok(first) = self.row_offset(group, from, count) else { return true };
        self.fetch(first, count as usize * ROW_BYTES)
    }

    /// Whether some bytes can be read without a wait for the medium, as the last of them says. If not, they will be
    /// read soon.
    pub(super) fn fetch(&self, offset: u64, len: usize) -> bool {
        let last = offset.saturating_add(len.saturating_sub(1) as u64);
        let waits = matches!(self.file.read_if_cached(&mut [0], last), Ok(false));
        if waits {
            self.file.will_read(offset, len);
        }
        !waits
    }

    /// Replaces `out` by those of some rows that are whole.
    pub fn whole_rows(&self, group: u16, numbers: Range<u32>, out: &mut Vec<Row>) -> Result<()> {
        out.clear();
        let count = numbers.end.saturating_sub(numbers.start);
        match self.rows(group, numbers.start, count, out) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {}
            other => return other,
        }
        for number in numbers {
            match self.row(group, number) {
                Ok(row) => out.push(row),
                Err(error) if error.kind() == ErrorKind::Corrupt => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One row.
    pub fn row(&self, group: u16, row: u32) -> Result<Row> {
        let mut bytes = [0; ROW_BYTES];
        let offset = self.row_offset(group, row, 1)?;
        self.read(&mut bytes, offset)?;
        self.decode_row(group, row, &bytes, offset)
    }

    fn row_block(
        &self,
        group: u16,
        first: u32,
        count: u32,
        bytes: &mut Vec<u8>,
        out: &mut Vec<Row>,
    ) -> Result<()> {
        let offset = self.row_offset(group, first, count)?;
        bytes.resize(count as usize * ROW_BYTES, 0);
        self.read(bytes, offset)?;
        for (bytes, number) in bytes.chunks_exact(ROW_BYTES).zip(first..) {
            let at = offset + u64::from(number - first) * ROW_BYTES as u64;
            out.push(self.decode_row(group, number, bytes, at)?);
        }
        Ok(())
    }

    /// Where rows stand in the file.
    pub fn row_offset(&self, group: u16, first: u32, count: u32) -> Result<u64> {
        let rows = self.group(group)?.rows;
        if u64::from(first) + u64::from(count) > u64::from(rows) {
            return Err(self.no_row(group, u64::from(first) + u64::from(count)));
        }
        let section = self.section(group, SectionKind::Rows)?;
        Ok(section.offset + u64::from(first) * ROW_BYTES as u64)
    }

    fn decode_row(&self, group: u16, row: u32, bytes: &[u8], offset: u64) -> Result<Row> {
        let vectors = self.group(group)?.vectors;
        Row::decode(bytes, self.seed, group, row, vectors).map_err(|d| self.damaged(offset, d))
    }

    /// Namespace, key, session and attributes of a row.
    pub fn body(&self, group: u16, row: &Row) -> Result<Body> {
        BodyReader::new(self, group).body(row)
    }

    /// The payload of a row, whole; up to 16 MiB.
    pub fn payload(&self, group: u16, row: &Row) -> Result<Vec<u8>> {
        BodyReader::new(self, group).payload(row)
    }

    /// The exact record of a row. A payload that may not stay in RAM comes as its place.
    pub fn record(&self, group: u16, row: &Row) -> Result<Record> {
        BodyReader::new(self, group).record(row)
    }

    /// Bytes of a payload that [`Segment::record`] answered as [`Payload::InArchive`]: fills `buf`
    /// from byte `offset` of the payload on.
    pub fn payload_at(
        &self,
        collection: CollectionId,
        place: &PayloadPlace,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        let group = self.footer.group_of(collection).ok_or_else(|| {
            Error::corrupt(format!("{}: nothing of collection {}", self.name, collection.0))
        })?;
        let number = u32::try_from(place.offset).map_err(|_| self.no_row(group, place.offset))?;
        let row = self.row(group, number)?;
        if place.segment != self.number()
            || row.payload_len() != place.len
            || row.payload_crc != place.crc
        {
            return Err(Error::corrupt(format!(
                "{}: row {number} of group {group} holds another payload than asked for",
                self.name
            )));
        }
        self.payload_piece(group, &row, offset, buf)
    }

    /// Visits all operations that are not rows, in the order they were written, one in memory at a
    /// time.
    pub fn visit_ops(&self, visit: &mut dyn FnMut(Lsn, &[u8]) -> Result<()>) -> Result<()> {
        const HEAD: usize = 12;
        let Some(section) = self.footer.ops else { return Ok(()) };
        let mut at = section.offset;
        let mut bytes = Vec::new();
        for index in 0..u64::from(section.items) {
            let cut = || self.damaged(at, format!("operation {index} is cut off"));
            let left = section.end().checked_sub(at).ok_or_else(cut)?;
            let mut head = [0; HEAD + 4];
            if left < head.len() as u64 {
                return Err(cut());
            }
            self.read(&mut head, at)?;
            let (lsn, len, crc) = op_head(&head).map_err(|short| self.damaged(at, short))?;
            if u64::from(len) > left - head.len() as u64 || len as usize > limits::BATCH_BYTES_MAX {
                return Err(cut());
            }
            bytes.clear();
            bytes.extend_from_slice(&head[..HEAD]);
            bytes.resize(HEAD + len as usize, 0);
            let body = bytes.get_mut(HEAD..).unwrap_or_default();
            self.read(body, at + head.len() as u64)?;
            let differs = self.seed.crc(SectionKind::Ops, 0, index, &bytes) != crc;
            if Safeguard::ArchiveOpCrc.finds(differs) {
                return Err(self.damaged(at, format!("CRC of operation {index} differs")));
            }
            visit(Lsn(lsn), bytes.get(HEAD..).unwrap_or_default())?;
            at += head.len() as u64 + u64::from(len);
        }
        if at != section.end() {
            return Err(self.damaged(at, "bytes behind the last operation"));
        }
        Ok(())
    }

    /// All operations that are not rows.
    pub fn ops(&self) -> Result<Vec<(Lsn, Vec<u8>)>> {
        let mut ops = Vec::new();
        self.visit_ops(&mut |lsn, bytes| {
            ops.push((lsn, bytes.to_vec()));
            Ok(())
        })?;
        Ok(ops)
    }

    pub(super) fn group(&self, group: u16) -> Result<&Group> {
        self.footer
            .groups
            .get(usize::from(group))
            .ok_or_else(|| Error::corrupt(format!("{}: there is no group {group}", self.name)))
    }

    pub(super) fn section(&self, group: u16, kind: SectionKind) -> Result<Section> {
        self.group(group)?.section(kind).copied().ok_or_else(|| {
            Error::corrupt(format!("{}: group {group} has no section of {kind:?}", self.name))
        })
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        read_exact(&*self.file, &self.name, buf, offset)
    }

    pub(super) fn read_if_cached(&self, buf: &mut [u8], offset: u64) -> Result<bool> {
        let read = self.file.read_if_cached(buf, offset);
        read.map_err(|e| Error::io(format!("read {} at offset {offset}", self.name), e))
    }

    pub(super) fn damaged(&self, offset: u64, what: impl fmt::Display) -> Error {
        Error::corrupt(format!("{}: {what} at offset {offset}", self.name))
    }

    /// Where the row stands in the file, for messages.
    pub(super) fn row_at(&self, group: u16, row: &Row) -> u64 {
        let table = self.section(group, SectionKind::Rows);
        table.map_or(0, |t| t.offset + u64::from(row.number) * ROW_BYTES as u64)
    }

    fn no_row(&self, group: u16, row: u64) -> Error {
        Error::corrupt(format!("{}: group {group} has no row {row}", self.name))
    }
}

fn op_head(bytes: &[u8]) -> Result<(u64, u32, u32), Short> {
    let mut reader = Reader::new(bytes);
    Ok((reader.u64()?, reader.u32()?, reader.u32()?))
}

/// Reads and checks header, trailer and footer; answers the footer and its CRC.
pub(super) fn read_frame_of(
    file: &dyn File,
    name: &str,
    bytes: u64,
    number: u64,
    store_id: [u8; 16],
) -> Result<(Footer, u32)> {
    let damaged = |offset: u64, what: &dyn fmt::Display| {
        Error::corrupt(format!("{name}: {what} at offset {offset}"))
    };
    let trailer_at = bytes
        .checked_sub(TRAILER_BYTES as u64)
        .filter(|at| *at >= HEADER_BYTES as u64)
        .ok_or_else(|| damaged(bytes, &"the file ends too early"))?;
    let mut head = [0; HEADER_BYTES];
    read_exact(file, name, &mut head, 0)?;
    let header = decode_header(&head).map_err(|d| damaged(0, &d))?;
    if header.format != FORMAT {
        return Err(Error::new(
            ErrorKind::Version,
            format!("{name} has format {}; this build reads {FORMAT}", header.format),
        ));
    }
    if header.store_id != store_id || header.number != number {
        return Err(damaged(0, &"the header names another store or segment"));
    }
    let mut tail = [0; TRAILER_BYTES];
    read_exact(file, name, &mut tail, trailer_at)?;
    let trailer = decode_trailer(&tail, bytes).map_err(|d| damaged(trailer_at, &d))?;
    let mut buffer = vec![0; trailer.footer_len as usize];
    read_exact(file, name, &mut buffer, trailer.footer_offset)?;
    if Safeguard::ArchiveFooterCrc.finds(crc32fast::hash(&buffer) != trailer.footer_crc) {
        return Err(damaged(trailer.footer_offset, &"footer CRC differs"));
    }
    let footer = Footer::decode(&buffer, trailer.footer_offset)
        .map_err(|d| damaged(trailer.footer_offset, &d))?;
    if footer.store_id != store_id || footer.number != number || trailer.format != FORMAT {
        return Err(damaged(trailer.footer_offset, &"the footer names another store or segment"));
    }
    Ok((footer, trailer.footer_crc))
}

pub(super) fn read_exact(file: &dyn File, name: &str, buf: &mut [u8], offset: u64) -> Result<()> {
    file.read_exact_at(buf, offset).map_err(|e| match e.kind() {
        // A sealed file never ends early: it was cut.
        io::ErrorKind::UnexpectedEof => Error::corrupt(format!(
            "{name}: the file ends within {} bytes at offset {offset}",
            buf.len()
        )),
        _ => Error::io(format!("read {name} at offset {offset}"), e),
    })
}

/// A payload as a record carries it: its bytes, or its place when they may not stay in RAM.
pub(super) fn payload_of(
    segment: u64,
    row: &Row,
    bytes: impl FnOnce() -> Result<Vec<u8>>,
) -> Result<Payload> {
    let len = row.payload_len();
    if len as usize > limits::PAYLOAD_RESIDENT_BYTES_MAX {
        let offset = u64::from(row.number);
        return Ok(Payload::InArchive(PayloadPlace { segment, offset, len, crc: row.payload_crc }));
    }
    Ok(Payload::Inline(bytes()?.into()))
}
