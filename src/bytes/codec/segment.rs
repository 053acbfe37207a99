//! The frame of an archive segment: header, footer, trailer, and the seed of all its checksums.
//!
//! A segment is read from its end: the trailer (32 bytes, fixed place) gives the footer's place and
//! CRC, the footer names every section with place, length and CRC, and the sections hold the data:
//!
//! ```text
//! header (64) | sections, each starting at a multiple of 64, zeros between | footer | trailer (32)
//! ```
//!
//! All numbers are little-endian. Every checksum below the footer is computed over a prefix (store,
//! segment number, section kind, group, index) and then the bytes, so a row, vector or frame that
//! comes from another place, another segment or another store never verifies.
//!
//! The decoders take bytes that a reader has fetched; they check every count and place against the
//! file's length before anybody allocates or reads by it. Nothing here opens a file.

use std::fmt;

use crate::bytes::codec::body::TABLE_ENTRY_BYTES;
use crate::bytes::codec::cursor::{Put, Reader, Short};
use crate::bytes::codec::row::ROW_BYTES;
use crate::words::id::{CollectionId, EntryId, Lsn};
use crate::words::limits;
use crate::words::options::Element;

/// First bytes of a segment.
pub const HEAD_MAGIC: [u8; 8] = *b"pmllSEG\n";
/// Last bytes of a segment.
pub const TAIL_MAGIC: [u8; 8] = *b"pmllEND\n";
/// Format number; 0 is the development format, refused by every later build.
pub const FORMAT: u32 = 0;
/// Length of the header.
pub const HEADER_BYTES: usize = 64;
/// Length of the trailer.
pub const TRAILER_BYTES: usize = 32;
/// Sections start at multiples of this, so that vectors and rows are aligned for mapped reads.
pub const ALIGN: u64 = 64;
/// Longest footer: [`limits::COLLECTIONS_MAX`] groups of less than 400 bytes, and as much again for
/// the list of superseded segments.
pub const FOOTER_BYTES_MAX: usize = 64 << 20;

const GROUP_FIXED_BYTES: usize = 4 + 4 + 1 + 4 + 4 + 4 * 8 + 1;
const SECTION_BYTES: usize = 1 + 8 + 8 + 4 + 4;

/// What is wrong with bytes that a decoder was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage(String);

impl Damage {
    /// A damage with these words; the reader adds file and offset.
    pub fn new(what: impl Into<String>) -> Damage {
        Damage(what.into())
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Short> for Damage {
    fn from(short: Short) -> Damage {
        Damage(short.to_string())
    }
}

/// The start of every checksum in one segment: binds it to the store and the segment's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u32);

impl Seed {
    /// The seed of one segment.
    #[must_use]
    pub fn new(store_id: [u8; 16], number: u64) -> Seed {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&store_id);
        hasher.update(&number.to_le_bytes());
        Seed(hasher.finalize())
    }

    /// The checksum of `bytes` at this place: item `index` of a section of `group`.
    #[must_use]
    pub fn crc(self, kind: SectionKind, group: u16, index: u64, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.0.to_le_bytes());
        hasher.update(&[kind as u8]);
        hasher.update(&group.to_le_bytes());
        hasher.update(&index.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SectionKind {
    /// Exact vectors, fixed stride, in row order.
    Vectors = 1,
    /// The row table.
    Rows = 2,
    /// Compressed frames of bodies.
    Bodies = 3,
    /// Table of the body frames.
    BodyTable = 4,
    /// Compressed frames of payloads.
    Payloads = 5,
    /// Table of the payload frames.
    PayloadTable = 6,
    /// Operations that are not rows; belongs to no group.
    Ops = 7,
    /// Reserved: int8 codes of the vectors, fixed stride. Passed over by this build.
    Codes = 8,
    /// Reserved: sign sketches of the vectors, fixed stride. Passed over by this build.
    Sketches = 9,
}

impl SectionKind {
    fn from_u8(byte: u8) -> Option<SectionKind> {
        Some(match byte {
            1 => SectionKind::Vectors,
            2 => SectionKind::Rows,
            3 => SectionKind::Bodies,
            4 => SectionKind::BodyTable,
            5 => SectionKind::Payloads,
            6 => SectionKind::PayloadTable,
            7 => SectionKind::Ops,
            8 => SectionKind::Codes,
            9 => SectionKind::Sketches,
            _ => return None,
        })
    }
}

/// Where a section lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Number of vectors, rows, frames or operations in it.
    pub items: u32,
    /// CRC-32 of all its bytes, for `verify`; reads check the finer ones inside.
    pub crc: u32,
}

impl Section {
    /// The byte after the last one.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.len)
    }
}

/// The rows of one collection in one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which collection.
    pub collection: CollectionId,
    /// Values in a vector; 0 when no row has one.
    pub dim: u32,
    /// How values are stored.
    pub element: Element,
    /// Number of rows.
    pub rows: u32,
    /// Number of rows with a vector. They come first: vector number and row number are the same.
    pub vectors: u32,
    /// Smallest id.
    pub min_id: EntryId,
    /// Largest id.
    pub max_id: EntryId,
    /// Smallest version.
    pub min_version: Lsn,
    /// Largest version.
    pub max_version: Lsn,
    /// Its sections, in file order.
    pub sections: Vec<Section>,
}

impl Group {
    /// The section of this kind, if the group has one.
    #[must_use]
    pub fn section(&self, kind: SectionKind) -> Option<&Section> {
        self.sections.iter().find(|s| s.kind == kind)
    }

    /// Bytes of one stored vector.
    #[must_use]
    pub fn stride(&self) -> usize {
        let value = match self.element {
            Element::F32 => 4,
            Element::F16 => 2,
        };
        self.dim as usize * value
    }
}

/// The directory of a segment, and what it says about the store's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The store it belongs to.
    pub store_id: [u8; 16],
    /// Its number.
    pub number: u64,
    /// First and last LSN of the log range it archives; `None` for a segment that vacuum wrote.
    pub covers: Option<(Lsn, Lsn)>,
    /// No entry has this id or a larger one yet.
    pub next_id: u64,
    /// No collection has this number or a larger one yet.
    pub next_collection: u32,
    /// Segments this one replaces: number and footer CRC.
    pub supersedes: Vec<(u64, u32)>,
    /// Operations that are not rows.
    pub ops: Option<Section>,
    /// One group per collection, ascending by collection.
    pub groups: Vec<Group>,
}

/// The header of this segment.
#[must_use]
pub fn encode_header(store_id: [u8; 16], number: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.put_bytes(&HEAD_MAGIC);
    out.put_u32(FORMAT);
    out.put_u32(0);
    out.put_bytes(&store_id);
    out.put_u64(number);
    out.resize(HEADER_BYTES - 4, 0);
    let crc = crc32fast::hash(&out);
    out.put_u32(crc);
    out
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Format number.
    pub format: u32,
    /// The store it belongs to.
    pub store_id: [u8; 16],
    /// Its number.
    pub number: u64,
}

/// Reads a header. The caller compares format, store and number with what it expects.
pub fn decode_header(bytes: &[u8; HEADER_BYTES]) -> Result<Header, Damage> {
    let mut reader = Reader::new(bytes);
    if reader.array::<8>()? != HEAD_MAGIC {
        return Err(Damage::new("this is no archive segment: its first bytes differ"));
    }
    let format = reader.u32()?;
    reader.skip(4)?;
    let store_id = reader.array()?;
    let number = reader.u64()?;
    reader.skip(HEADER_BYTES - 4 - reader.position())?;
    if reader.u32()? != crc32fast::hash(&bytes[..HEADER_BYTES - 4]) {
        return Err(Damage::new("header CRC differs"));
    }
    Ok(Header { format, store_id, number })
}

/// Where the footer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Format number.
    pub format: u32,
    /// First byte of the footer.
    pub footer_offset: u64,
    /// Length of the footer.
    pub footer_len: u32,
    /// CRC-32 of the footer.
    pub footer_crc: u32,
}

/// The trailer that stands behind a footer.
#[must_use]
pub fn encode_trailer(trailer: Trailer) -> Vec<u8> {
    let mut out = Vec::with_capacity(TRAILER_BYTES);
    out.put_u64(trailer.footer_offset);
    out.put_u32(trailer.footer_len);
    out.put_u32(trailer.footer_crc);
    out.put_u32(trailer.format);
    let crc = crc32fast::hash(&out);
    out.put_u32(crc);
    out.put_bytes(&TAIL_MAGIC);
    out
}

/// Reads the trailer of a file of `file_len` bytes and checks that the footer lies where it must:
/// behind the header and right before the trailer.
pub fn decode_trailer(bytes: &[u8; TRAILER_BYTES], file_len: u64) -> Result<Trailer, Damage> {
    let mut reader = Reader::new(bytes);
    let footer_offset = reader.u64()?;
    let footer_len = reader.u32()?;
    let footer_crc = reader.u32()?;
    let format = reader.u32()?;
    let crc = reader.u32()?;
    if reader.array::<8>()? != TAIL_MAGIC {
        return Err(Damage::new("the file does not end as a segment does"));
    }
    if crc != crc32fast::hash(&bytes[..20]) {
        return Err(Damage::new("trailer CRC differs"));
    }
    let end = footer_offset.checked_add(u64::from(footer_len));
    if footer_offset < HEADER_BYTES as u64
        || footer_len as usize > FOOTER_BYTES_MAX
        || end.and_then(|end| end.checked_add(TRAILER_BYTES as u64)) != Some(file_len)
    {
        return Err(Damage::new(format!(
            "a footer of {footer_len} bytes at {footer_offset} does not fit a file of {file_len}"
        )));
    }
    Ok(Trailer { format, footer_offset, footer_len, footer_crc })
}

impl Footer {
    /// Appends the footer's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_bytes(&self.store_id);
        out.put_u64(self.number);
        out.put_u8(u8::from(self.covers.is_some()));
        let (first, last) = self.covers.unwrap_or_default();
        out.put_u64(first.0);
        out.put_u64(last.0);
        out.put_u64(self.next_id);
        out.put_u32(self.next_collection);
        // Counts fit: the writer refuses more groups or superseded segments than this.
        out.put_u32(u32::try_from(self.supersedes.len()).unwrap_or(u32::MAX));
        for (number, crc) in &self.supersedes {
            out.put_u64(*number);
            out.put_u32(*crc);
        }
        out.put_u8(u8::from(self.ops.is_some()));
        if let Some(section) = &self.ops {
            encode_section(section, out);
        }
        out.put_u32(u32::try_from(self.groups.len()).unwrap_or(u32::MAX));
        for group in &self.groups {
            out.put_u32(group.collection.0);
            out.put_u32(group.dim);
            out.put_u8(match group.element {
                Element::F32 => 1,
                Element::F16 => 2,
            });
            out.put_u32(group.rows);
            out.put_u32(group.vectors);
            out.put_u64(group.min_id.0);
            out.put_u64(group.max_id.0);
            out.put_u64(group.min_version.0);
            out.put_u64(group.max_version.0);
            out.put_u8(u8::try_from(group.sections.len()).unwrap_or(u8::MAX));
            for section in &group.sections {
                encode_section(section, out);
            }
        }
    }

    /// Reads a footer whose CRC was checked, and checks that all it says fits a file whose sections
    /// end before `end`.
    pub fn decode(bytes: &[u8], end: u64) -> Result<Footer, Damage> {
        let mut reader = Reader::new(bytes);
        let store_id = reader.array()?;
        let number = reader.u64()?;
        let covered = flag(&mut reader)?;
        let (first, last) = (Lsn(reader.u64()?), Lsn(reader.u64()?));
        if first > last {
            return Err(Damage::new(format!("covers LSN {first} to {last}")));
        }
        let next_id = reader.u64()?;
        let next_collection = reader.u32()?;
        let count = counted(&mut reader, 12)?;
        let mut supersedes = Vec::with_capacity(count);
        for _ in 0..count {
            supersedes.push((reader.u64()?, reader.u32()?));
        }
        let ops = match flag(&mut reader)? {
            true => Some(decode_section(&mut reader)?),
            false => None,
        };
        let count = counted(&mut reader, GROUP_FIXED_BYTES)?;
        if count > usize::from(u16::MAX) {
            return Err(Damage::new(format!("{count} groups are more than a segment may have")));
        }
        let mut groups = Vec::with_capacity(count);
        for _ in 0..count {
            groups.push(decode_group(&mut reader)?);
        }
        if !reader.is_empty() {
            return Err(Damage::new(format!("{} bytes too many in the footer", reader.left())));
        }
        let covers = covered.then_some((first, last));
        let footer =
            Footer { store_id, number, covers, next_id, next_collection, supersedes, ops, groups };
        footer.check(end)?;
        Ok(footer)
    }

    /// The group of a collection.
    #[must_use]
    pub fn group_of(&self, collection: CollectionId) -> Option<u16> {
        let at = self.groups.binary_search_by_key(&collection, |g| g.collection).ok()?;
        u16::try_from(at).ok()
    }

    /// All sections, in file order, with the group they belong to.
    pub fn sections(&self) -> impl Iterator<Item = (u16, &Section)> {
        let groups = self.groups.iter().zip(0u16..);
        groups
            .flat_map(|(group, number)| group.sections.iter().map(move |s| (number, s)))
            .chain(self.ops.iter().map(|s| (0, s)))
    }

    fn check(&self, end: u64) -> Result<(), Damage> {
        let mut at = HEADER_BYTES as u64;
        for (_, section) in self.sections() {
            if section.offset < at
                || section.offset % ALIGN != 0
                || section.offset - at >= ALIGN
                || section.len == 0
                || section.offset.checked_add(section.len).is_none_or(|e| e > end)
            {
                return Err(Damage::new(format!(
                    "a section of {} bytes at {} cannot lie there",
                    section.len, section.offset
                )));
            }
            at = section.end();
        }
        if at != end {
            return Err(Damage::new(format!("nothing is known about bytes {at} to {end}")));
        }
        if self.ops.is_some_and(|s| s.kind != SectionKind::Ops) {
            return Err(Damage::new("the section of operations is of another kind"));
        }
        if self.groups.windows(2).any(|pair| pair[0].collection >= pair[1].collection) {
            return Err(Damage::new("the groups are not in order"));
        }
        self.groups.iter().try_for_each(check_group)
    }
}

fn check_group(group: &Group) -> Result<(), Damage> {
    let wrong = |what: &str| {
        Err(Damage::new(format!("group of collection {}: {what}", group.collection.0)))
    };
    if group.rows == 0
        || group.rows == u32::MAX
        || group.vectors > group.rows
        || group.dim as usize > limits::DIM_MAX
        || (group.vectors > 0) != (group.dim > 0)
        || group.min_id > group.max_id
        || group.min_version > group.max_version
    {
        return wrong("its counts contradict each other");
    }
    let mut seen = [false; 16];
    for section in &group.sections {
        match seen.get_mut(section.kind as usize) {
            Some(seen) if !*seen && section.kind != SectionKind::Ops => *seen = true,
            _ => return wrong("a section it cannot have"),
        }
        let item_bytes = match section.kind {
            SectionKind::Rows => ROW_BYTES,
            SectionKind::BodyTable | SectionKind::PayloadTable => TABLE_ENTRY_BYTES,
            SectionKind::Vectors => group.stride(),
            _ => continue,
        };
        let items = u64::from(section.items);
        if items.checked_mul(item_bytes as u64) != Some(section.len) {
            return wrong("a section whose length is not its items'");
        }
    }
    let items = |kind| group.section(kind).map_or(0, |s| s.items);
    if items(SectionKind::Rows) != group.rows
        || items(SectionKind::Vectors) != group.vectors
        || items(SectionKind::Bodies) != items(SectionKind::BodyTable)
        || items(SectionKind::Bodies) == 0
        || items(SectionKind::Payloads) != items(SectionKind::PayloadTable)
    {
        return wrong("its sections do not hold what it says");
    }
    Ok(())
}

fn encode_section(section: &Section, out: &mut Vec<u8>) {
    out.put_u8(section.kind as u8);
    out.put_u64(section.offset);
    out.put_u64(section.len);
    out.put_u32(section.items);
    out.put_u32(section.crc);
}

fn decode_section(reader: &mut Reader<'_>) -> Result<Section, Damage> {
    let kind = reader.u8()?;
    let kind = SectionKind::from_u8(kind)
        .ok_or_else(|| Damage::new(format!("section kind {kind} is unknown")))?;
    let (offset, len) = (reader.u64()?, reader.u64()?);
    Ok(Section { kind, offset, len, items: reader.u32()?, crc: reader.u32()? })
}

fn decode_group(reader: &mut Reader<'_>) -> Result<Group, Damage> {
    let collection = CollectionId(reader.u32()?);
    let dim = reader.u32()?;
    let element = match reader.u8()? {
        1 => Element::F32,
        2 => Element::F16,
        other => return Err(Damage::new(format!("element type {other} is unknown"))),
    };
    let (rows, vectors) = (reader.u32()?, reader.u32()?);
    let (min_id, max_id) = (EntryId(reader.u64()?), EntryId(reader.u64()?));
    let (min_version, max_version) = (Lsn(reader.u64()?), Lsn(reader.u64()?));
    let count = usize::from(reader.u8()?);
    if count > reader.left() / SECTION_BYTES {
        return Err(Damage::new("a group with more sections than bytes"));
    }
    let mut sections = Vec::with_capacity(count);
    for _ in 0..count {
        sections.push(decode_section(reader)?);
    }
    Ok(Group {
        collection,
        dim,
        element,
        rows,
        vectors,
        min_id,
        max_id,
        min_version,
        max_version,
        sections,
    })
}

/// A count, refused when that many items of at least `item_bytes` cannot follow.
fn counted(reader: &mut Reader<'_>, item_bytes: usize) -> Result<usize, Damage> {
    let count = reader.u32()? as usize;
    if count > reader.left() / item_bytes {
        return Err(Damage::new(format!("a list of {count} is longer than its bytes")));
    }
    Ok(count)
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, Damage> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Damage::new(format!("flag byte {other}"))),
    }
}
