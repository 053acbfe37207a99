//! Reading a segment whose directory is damaged: for a salvage.
//!
//! A footer that verifies is believed, whatever became of the header. Without one the rows are looked for: each says
//! under its CRC which row of which group it is, so one that verifies gives the place of its whole
//! table. In front of it stand the tables of the frames, whose entries are found in the same way, and
//! the vectors, whose CRCs stand in the rows. Behind the last rows come the operations.
//!
//! Two things of a group no byte but the footer's says: its collection, and the stride of its vectors.
//! Both are for the caller to find out: [`Carving::fits`] says whether a guess of the stride is right.
//! What is made of it all is a [`Segment`] that is read like any other, every piece under its CRC.
//!
//! Never: writes, guesses a byte, or takes a row whose CRC differs.

use std::sync::Arc;

use crate::bytes::codec::body::{FrameEntry, TABLE_ENTRY_BYTES};
use crate::bytes::codec::footer::{Footer, Group};
use crate::bytes::codec::row::{ROW_BYTES, Row};
use crate::bytes::codec::segment::{
    ALIGN, FORMAT, HEADER_BYTES, Section, SectionKind, Seed, TRAILER_BYTES, Trailer, decode_header,
    decode_trailer,
};
use crate::io::{Disk, File, OpenMode};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::{CollectionId, EntryId, Lsn};
use crate::words::limits;
use crate::words::options::Element;

use super::file_name;
use super::segment::{Segment, read_exact};
use super::vectors::Checked;

/// How much is searched at once.
const PIECE_BYTES: usize = 256 << 10;
/// A table is found by any of its first rows, an operation by any of so many behind a damaged one.
const TRIES: u32 = 64;
/// So many groups whose rows are all damaged may stand before one.
const GROUPS_SKIPPED: u16 = 4;
/// Rows that a stride is tried on.
const SAMPLES: usize = 16;

/// A segment without a directory.
pub struct Carving {
    segment: Segment,
    groups: Vec<Found>,
    ops_from: u64,
    /// Where the footer begins, when the trailer says so.
    footer_at: Option<u64>,
}

/// A group that was found by its rows.
#[derive(Clone, Debug)]
pub struct Found {
    /// Some of its ids.
    pub ids: Vec<EntryId>,
    /// Whether its rows have vectors.
    pub has_vectors: bool,
    samples: Vec<Row>,
    vectors_from: u64,
}

/// A segment as far as it can be read.
pub enum Opened {
    /// By its own directory; the error says what else is wrong with its frame.
    Listed(Segment, Option<Error>),
    /// By its rows; the error says what is wrong with its directory.
    Carved(Carving, Error),
}

/// Opens a segment by whatever of it is whole. Errors: `Version` when a newer build wrote it, `Corrupt`
/// when it is another store's, `Io` when it cannot be read.
pub fn open_damaged(disk: &dyn Disk, number: u64, store_id: [u8; 16]) -> Result<Opened> {
    let error = match Segment::open(disk, number, store_id) {
        Ok(segment) => return Ok(Opened::Listed(segment, None)),
        Err(error) if error.kind() == ErrorKind::Corrupt => error,
        Err(error) => return Err(error),
    };
    let name = file_name(number);
    let failed = |e| Error::io(format!("open {name}"), e);
    let file = disk.open(&name, OpenMode::Read).map_err(failed)?;
    let bytes = file.len().map_err(failed)?;
    let mut head = [0; HEADER_BYTES];
    if bytes >= HEADER_BYTES as u64 {
        read_exact(&*file, &name, &mut head, 0)?;
    }
    if decode_header(&head).is_ok_and(|h| h.store_id != store_id || h.number != number) {
        return Err(error);
    }
    if let Some((footer, crc)) = footer_alone(&*file, &name, bytes, number, store_id)? {
        return Ok(Opened::Listed(segment_of(file, number, bytes, footer, crc), Some(error)));
    }
    let footer = Footer {
        store_id,
        number,
        covers: None,
        next_id: 0,
        next_collection: 0,
        beside: 0,
        supersedes: Vec::new(),
        ops: None,
        groups: Vec::new(),
    };
    let footer_at = trailer_of(&*file, &name, bytes)?.map(|trailer| trailer.footer_offset);
    let segment = segment_of(file, number, bytes, footer, 0);
    let mut carving =
        Carving { segment, groups: Vec::new(), ops_from: HEADER_BYTES as u64, footer_at };
    carving.find_groups()?;
    carving.find_ops()?;
    Ok(Opened::Carved(carving, error))
}

fn segment_of(file: Arc<dyn File>, number: u64, bytes: u64, footer: Footer, crc: u32) -> Segment {
    let checked = footer.groups.iter().map(|g| Checked::new(g.vectors)).collect();
    let seed = Seed::new(footer.store_id, number);
    Segment { file, name: file_name(number), bytes, crc, seed, footer, checked }
}

fn trailer_of(file: &dyn File, name: &str, bytes: u64) -> Result<Option<Trailer>> {
    let Some(at) = bytes.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
    let mut tail = [0; TRAILER_BYTES];
    read_exact(file, name, &mut tail, at)?;
    Ok(decode_trailer(&tail, bytes).ok())
}

/// The footer, when trailer and footer are whole and of this segment.
fn footer_alone(
    file: &dyn File,
    name: &str,
    bytes: u64,
    number: u64,
    store_id: [u8; 16],
) -> Result<Option<(Footer, u32)>> {
    let Some(trailer) = trailer_of(file, name, bytes)? else { return Ok(None) };
    let mut buffer = vec![0; trailer.footer_len as usize];
    read_exact(file, name, &mut buffer, trailer.footer_offset)?;
    if crc32fast::hash(&buffer) != trailer.footer_crc || trailer.format != FORMAT {
        return Ok(None);
    }
    let footer = Footer::decode(&buffer, trailer.footer_offset).ok();
    let footer = footer.filter(|f| f.store_id == store_id && f.number == number);
    Ok(footer.map(|footer| (footer, trailer.footer_crc)))
}

impl Carving {
    /// The groups that were found, by number; one all of whose rows are lost is empty.
    #[must_use]
    pub fn groups(&self) -> &[Found] {
        &self.groups
    }

    /// Visits the operations; see [`Segment::visit_whole_ops`]. Answers whether everything up to the
    /// footer was found: a table or operations that are lost at an end leave no other trace.
    pub fn visit_ops(
        &self,
        visit: &mut dyn FnMut(Lsn, &[u8]),
        damaged: &mut dyn FnMut(u64),
    ) -> Result<bool> {
        let ops = self.segment.footer.ops;
        let read = self.segment.visit_whole_ops(visit, damaged)?;
        let (begin, end) = ops.map_or((self.ops_from, self.ops_from), |s| (s.offset, read));
        let rows = self.segment.footer.groups.iter().all(|group| group.rows > 0);
        Ok(rows && begin.saturating_sub(self.ops_from) < ALIGN && self.footer_at == Some(end))
    }

    /// Whether vectors of this kind stand where those of the group must.
    pub fn fits(&self, group: usize, dim: u32, element: Element) -> Result<bool> {
        Ok(self.vectors_at(group, dim, element)?.is_some())
    }

    /// The segment, given what each group holds; a group without is read without its vectors.
    pub fn finish(mut self, known: &[Option<(CollectionId, u32, Element)>]) -> Result<Segment> {
        for (index, known) in known.iter().enumerate() {
            let Some((collection, dim, element)) = *known else { continue };
            let at = self.vectors_at(index, dim, element)?;
            let Some(group) = self.segment.footer.groups.get_mut(index) else { continue };
            group.collection = collection;
            if let Some(at) = at.filter(|_| group.vectors > 0) {
                (group.dim, group.element) = (dim, element);
                let len = group.stride() as u64 * u64::from(group.vectors);
                group.sections.push(section(SectionKind::Vectors, at, len, group.vectors));
            }
        }
        let groups = &self.segment.footer.groups;
        self.segment.checked = groups.iter().map(|g| Checked::new(g.vectors)).collect();
        Ok(self.segment)
    }

    fn vectors_at(&self, group: usize, dim: u32, element: Element) -> Result<Option<u64>> {
        let Some(found) = self.groups.get(group) else { return Ok(None) };
        let number = u16::try_from(group).unwrap_or(u16::MAX);
        let value = match element {
            Element::F32 => 4,
            Element::F16 => 2,
        };
        let stride = u64::from(dim) * value;
        let mut bytes = vec![0; usize::try_from(stride).unwrap_or(0)];
        for row in found.samples.iter().filter(|_| stride > 0) {
            let at = found.vectors_from + u64::from(row.number) * stride;
            if at + stride > self.segment.bytes {
                return Ok(None);
            }
            self.segment.read(&mut bytes, at)?;
            if self.segment.check_vector(number, row, &bytes, at).is_ok() {
                return Ok(Some(found.vectors_from));
            }
        }
        Ok(None)
    }

    /// Calls `look` with every multiple of 64 in a range and the bytes from there on, as many as `len`
    /// where the file does not end before, until it answers true.
    fn scan(
        &self,
        from: u64,
        len: usize,
        look: &mut dyn FnMut(u64, &[u8]) -> Result<bool>,
    ) -> Result<bool> {
        let mut at = from.next_multiple_of(ALIGN);
        let mut piece = Vec::new();
        while at < self.segment.bytes {
            let left = usize::try_from(self.segment.bytes - at).unwrap_or(usize::MAX);
            piece.resize(left.min(PIECE_BYTES + len), 0);
            self.segment.read(&mut piece, at)?;
            for offset in (0..piece.len().min(PIECE_BYTES)).step_by(ALIGN as usize) {
                let bytes = piece.get(offset..).unwrap_or_default();
                let bytes = bytes.get(..len).unwrap_or(bytes);
                if look(at + offset as u64, bytes)? {
                    return Ok(true);
                }
            }
            at += PIECE_BYTES as u64;
        }
        Ok(false)
    }

    fn find_groups(&mut self) -> Result<()> {
        let mut from = HEADER_BYTES as u64;
        loop {
            let expected = u16::try_from(self.groups.len()).unwrap_or(u16::MAX);
            let seed = self.segment.seed;
            let mut found = None;
            self.scan(from, ROW_BYTES, &mut |at, bytes| {
                found = anchor(seed, expected, from, at, bytes);
                Ok(found.is_some())
            })?;
            let Some((group, rows_at)) = found else { break };
            while self.groups.len() < usize::from(group) {
                self.add_group(from, from, &[])?;
            }
            let rows = self.rows_from(group, rows_at)?;
            from = self.add_group(from, rows_at, &rows)?;
        }
        self.ops_from = from;
        Ok(())
    }

    /// The rows of a table that verify. A table ends where so many places in a row do not.
    fn rows_from(&self, group: u16, rows_at: u64) -> Result<Vec<Row>> {
        let mut rows: Vec<Row> = Vec::new();
        let mut bytes = [0; ROW_BYTES];
        for number in 0..u32::MAX {
            let at = rows_at + u64::from(number) * ROW_BYTES as u64;
            let last = rows.last().map_or(0, |row| row.number);
            if at + ROW_BYTES as u64 > self.segment.bytes || number.saturating_sub(last) > TRIES {
                break;
            }
            self.segment.read(&mut bytes, at)?;
            rows.extend(row_at(&bytes, self.segment.seed, group, number));
        }
        Ok(rows)
    }

    /// Adds a group with these rows, and answers where it ends.
    fn add_group(&mut self, from: u64, rows_at: u64, rows: &[Row]) -> Result<u64> {
        let number = u16::try_from(self.groups.len()).unwrap_or(u16::MAX);
        let count = rows.last().map_or(0, |row| row.number + 1);
        let vectors = rows.iter().rev().find_map(|row| row.vector_index).map_or(0, |v| v + 1);
        let rows_len = u64::from(count) * ROW_BYTES as u64;
        let whole = |kind| section(kind, 0, self.segment.bytes, 0);
        let mut sections = vec![
            whole(SectionKind::Bodies),
            whole(SectionKind::Payloads),
            section(SectionKind::Rows, rows_at, rows_len, count),
        ];
        let mut end = rows_at;
        for kind in [SectionKind::PayloadTable, SectionKind::BodyTable] {
            if let Some(at) = self.find_table(from, end, number, kind)? {
                let items = (end - at) / TABLE_ENTRY_BYTES as u64;
                sections.push(section(kind, at, end - at, u32::try_from(items).unwrap_or(0)));
                end = at;
            }
        }
        self.segment.footer.groups.push(Group {
            collection: CollectionId(0),
            dim: 0,
            element: Element::F32,
            rows: count,
            vectors,
            min_id: EntryId(0),
            max_id: EntryId(u64::MAX),
            min_version: Lsn(0),
            max_version: Lsn(u64::MAX),
            sections,
        });
        let with = rows.iter().filter(|row| row.vector_index.is_some());
        self.groups.push(Found {
            ids: rows.iter().map(|row| row.id).collect(),
            has_vectors: vectors > 0,
            samples: with.take(SAMPLES).cloned().collect(),
            vectors_from: from.next_multiple_of(ALIGN),
        });
        Ok(rows_at + rows_len)
    }

    /// The last place before `end` where a table of this kind begins.
    fn find_table(
        &self,
        from: u64,
        end: u64,
        group: u16,
        kind: SectionKind,
    ) -> Result<Option<u64>> {
        let seed = self.segment.seed;
        let mut found = None;
        let len = TABLE_ENTRY_BYTES * 8;
        self.scan(from, len, &mut |at, bytes| {
            let whole = |(bytes, index): (&[u8], u32)| {
                FrameEntry::decode(bytes, seed, kind, group, index).is_ok()
            };
            if at < end && bytes.chunks_exact(TABLE_ENTRY_BYTES).zip(0..).any(whole) {
                found = Some(at);
            }
            // The first one is the one: an entry says where in its table it stands.
            Ok(at >= end || found.is_some())
        })?;
        Ok(found)
    }

    /// Operations stand behind the last rows. Where they end nothing says, but each says how long it is.
    fn find_ops(&mut self) -> Result<()> {
        let (bytes, mut found) = (self.segment.bytes, None);
        self.scan(self.ops_from, 32, &mut |at, head| {
            let whole = self.segment.whole_op(at, bytes, 0..u64::from(TRIES), head)?;
            found = whole.map(|_| at);
            Ok(found.is_some())
        })?;
        self.segment.footer.ops =
            found.map(|at| section(SectionKind::Ops, at, bytes - at, u32::MAX));
        Ok(())
    }
}

fn section(kind: SectionKind, offset: u64, len: u64, items: u32) -> Section {
    Section { kind, offset, len, items, crc: 0 }
}

/// The row that stands here, with a vector or without.
fn row_at(bytes: &[u8], seed: Seed, group: u16, number: u32) -> Option<Row> {
    let with = Row::decode(bytes, seed, group, number, number.saturating_add(1)).ok();
    with.or_else(|| Row::decode(bytes, seed, group, number, 0).ok())
}

/// Whether a row stands here: its group, and where row 0 of it must be.
fn anchor(seed: Seed, expected: u16, from: u64, at: u64, bytes: &[u8]) -> Option<(u16, u64)> {
    let field = |from: usize| {
        let bytes = bytes.get(from..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes))
    };
    // Flags and reserved bytes first: they spare nearly every place the CRCs.
    if field(112)? > 0x7f || field(116)? != 0 || field(120)? != 0 || field(124)? == 0 {
        return None;
    }
    let vector = field(72)?;
    let numbers = if vector == u32::MAX { 0..TRIES } else { vector..vector.saturating_add(1) };
    for group in expected..expected.saturating_add(GROUPS_SKIPPED) {
        for number in numbers.clone() {
            let rows_at = at.checked_sub(u64::from(number) * ROW_BYTES as u64);
            if let Some(rows_at) = rows_at.filter(|rows_at| *rows_at >= from)
                && row_at(bytes, seed, group, number).is_some()
            {
                return Some((group, rows_at));
            }
        }
    }
    None
}

impl Segment {
    /// Visits the operations that are whole, also behind a damaged one; `damaged` gets the places of
    /// what is not. Answers where the last one ends.
    pub fn visit_whole_ops(
        &self,
        visit: &mut dyn FnMut(Lsn, &[u8]),
        damaged: &mut dyn FnMut(u64),
    ) -> Result<u64> {
        let Some(section) = self.footer.ops else { return Ok(0) };
        let is_carved = section.items == u32::MAX;
        let (mut at, mut index) = (section.offset, 0);
        while at < section.end() && index < u64::from(section.items) {
            let next = index..index.saturating_add(u64::from(TRIES));
            if let Some(whole) = self.whole_op(at, section.end(), next.clone(), &[])? {
                visit(whole.lsn, &whole.bytes);
                (at, index) = (whole.end, whole.index + 1);
                continue;
            }
            // Nothing says how long a damaged one is. Behind operations without a known end comes a
            // footer, which is not long.
            let until = if is_carved { at + PIECE_BYTES as u64 } else { section.end() };
            let mut resumed = None;
            for from in at + 1..until.min(section.end()) {
                if self.whole_op(from, section.end(), next.clone(), &[])?.is_some() {
                    resumed = Some(from);
                    break;
                }
            }
            if resumed.is_some() || !is_carved {
                damaged(at);
            }
            match resumed {
                Some(from) => at = from,
                None => break,
            }
        }
        Ok(at)
    }

    /// The operation that stands here, if it is whole and one of these.
    fn whole_op(
        &self,
        at: u64,
        end: u64,
        indexes: std::ops::Range<u64>,
        head: &[u8],
    ) -> Result<Option<WholeOp>> {
        const HEAD: usize = 12;
        let mut own = [0; HEAD + 8];
        let head = match head.first_chunk() {
            Some(head) => head,
            None if end.saturating_sub(at) < own.len() as u64 => return Ok(None),
            None => {
                self.read(&mut own, at)?;
                &own
            }
        };
        let (lsn, len, crc, kind) = (
            u64::from_le_bytes(*head.first_chunk().unwrap_or(&[0; 8])),
            u32::from_le_bytes([head[8], head[9], head[10], head[11]]),
            u32::from_le_bytes([head[12], head[13], head[14], head[15]]),
            [head[16], head[17]],
        );
        let room = end.saturating_sub(at).saturating_sub(HEAD as u64 + 4);
        // What cannot be one is not read to its end.
        if u64::from(len) > room
            || len as usize > limits::BATCH_BYTES_MAX
            || !(2..=6).contains(&kind[0])
            || kind[1] != 1
        {
            return Ok(None);
        }
        let mut covered = head[..HEAD].to_vec();
        covered.resize(HEAD + len as usize, 0);
        self.read(covered.get_mut(HEAD..).unwrap_or_default(), at + HEAD as u64 + 4)?;
        let index = indexes
            .into_iter()
            .find(|index| self.seed.crc(SectionKind::Ops, 0, *index, &covered) == crc);
        Ok(index.map(|index| WholeOp {
            lsn: Lsn(lsn),
            bytes: covered.split_off(HEAD),
            index,
            end: at + HEAD as u64 + 4 + u64::from(len),
        }))
    }
}

struct WholeOp {
    lsn: Lsn,
    bytes: Vec<u8>,
    index: u64,
    end: u64,
}
