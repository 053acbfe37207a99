//! The frame of an archive segment: header, trailer, kinds of sections, the seed of all checksums.
//!
//! A segment is read from its end: the trailer (32 bytes, fixed place) gives the footer's place and
//! CRC, the footer ([`super::footer`]) names every section with place, length and CRC, and the
//! sections hold the data:
//!
//! ```text
//! header (64) | sections, each starting at a multiple of 64, zeros between | footer | trailer (32)
//! ```
//!
//! All numbers are little-endian. Every checksum below the footer is computed over a prefix (store,
//! segment number, section kind, group, index) and then the bytes, so a row, vector or frame that
//! comes from another place, another segment or another store never verifies.
//!
//! The decoders take bytes that a reader has fetched; they check every place against the file's
//! length before anybody reads by it. Nothing here opens a file.

use std::fmt;

use crate::bytes::codec::cursor::{Put, Reader, Short};
use crate::words::safeguard::Safeguard;

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
/// Longest footer: 65,535 groups of less than 400 bytes, and as much again for the list of
/// superseded segments.
pub const FOOTER_BYTES_MAX: usize = 64 << 20;

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
    /// 8-bit codes of the vectors, fixed stride, in row order.
    Codes = 8,
    /// Sign sketches of the vectors.
    Sketches = 9,
}

impl SectionKind {
    /// Reads a kind back.
    #[must_use]
    pub fn from_u8(byte: u8) -> Option<SectionKind> {
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
    let differs = reader.u32()? != crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
    if Safeguard::ArchiveHeaderCrc.finds(differs) {
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
    if Safeguard::ArchiveTrailerCrc.finds(crc != crc32fast::hash(&bytes[..20])) {
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
