//! Checksums made right again after a change, by docs/FORMAT.md, so that what a file claims gets past
//! them. A checksum finds damage; it keeps no forger out, and the decoders have to bear that.
//!
//! Everything here believes nothing: a length that leads out of the file ends the work.

use std::ops::Range;

use crc32fast::Hasher;

const LOG_HEADER: usize = 64;
const FRAME: usize = 32;
const TRAILER: usize = 32;
const SECTION: usize = 25;
const GROUPS_MAX: u32 = 64;

/// A section as the footer lists it.
#[derive(Clone, Copy)]
struct Section {
    /// Where its entry stands in the file.
    entry: usize,
    kind: u8,
    offset: usize,
    len: usize,
    items: usize,
}

pub(crate) fn get(bytes: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    bytes.get(at..at.checked_add(len)?)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(get(bytes, at, 4)?.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(get(bytes, at, 8)?.try_into().ok()?))
}

pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    crate::edits::put(bytes, at, &value.to_le_bytes());
}

pub(crate) fn crc(initial: u32, pieces: &[&[u8]]) -> u32 {
    let mut hasher = Hasher::new_with_initial(initial);
    for piece in pieces {
        hasher.update(piece);
    }
    hasher.finalize()
}

/// Seals a log segment: its header, and frame by frame as far as their lengths lead.
pub(crate) fn log(file: &mut [u8]) -> Option<()> {
    let head = crc(0, &[get(file, 0, 60)?]);
    put_u32(file, 60, head);
    let seed =
        crc(0, &[get(file, 12, 16)?, get(file, 52, 8)?, get(file, 28, 8)?, get(file, 36, 8)?]);
    let bound = |at: usize, bytes: &[u8]| crc(seed, &[&(at as u64).to_le_bytes(), bytes]);
    let mut heads = Vec::new();
    let mut at = LOG_HEADER;
    loop {
        let len = u32_at(file, at)? as usize;
        let kind = *file.get(at + 4)?;
        let behind = at + FRAME;
        get(file, behind, len)?;
        if kind == 0 {
            return None;
        }
        if kind == 2 && len == 16 {
            put_u32(file, behind + 12, crc(0, &[&heads]));
            heads.clear();
        }
        let payload = bound(behind, get(file, behind, len)?);
        put_u32(file, at + 24, payload);
        let head = bound(at, get(file, at, FRAME - 4)?);
        put_u32(file, at + 28, head);
        if kind == 1 {
            heads.extend_from_slice(get(file, at, FRAME)?);
        }
        at = behind + len;
    }
}

/// Where the footer of an archive segment stands.
pub(crate) fn footer(file: &[u8]) -> Option<Range<usize>> {
    let trailer = file.len().checked_sub(TRAILER)?;
    let start = usize::try_from(u64_at(file, trailer)?).ok()?;
    let len = u32_at(file, trailer + 8)? as usize;
    get(file, start, len)?;
    Some(start..start + len)
}

/// Seals an archive segment from the inside to the outside, as far as its footer can be read.
pub(crate) fn segment(file: &mut [u8]) {
    let _ = sections(file);
    let _ = ends(file);
}

fn section(file: &[u8], entry: usize) -> Option<Section> {
    Some(Section {
        entry,
        kind: *file.get(entry)?,
        // Behind the file there is nothing to seal; sums with a place beyond all places overflow.
        offset: usize::try_from(u64_at(file, entry + 1)?).ok()?.min(file.len()),
        len: usize::try_from(u64_at(file, entry + 9)?).ok()?,
        items: u32_at(file, entry + 17)? as usize,
    })
}

/// A group as the footer lists it.
struct Group {
    number: u16,
    dim: usize,
    stride: usize,
    sections: Vec<Section>,
}

impl Group {
    fn of(&self, kind: u8) -> Option<Section> {
        self.sections.iter().find(|section| section.kind == kind).copied()
    }
}

/// The seed of the segment, the section of operations, and the groups.
fn layout(file: &[u8]) -> Option<(u32, Option<Section>, Vec<Group>)> {
    let start = footer(file)?.start;
    let seed = crc(0, &[get(file, start, 16)?, get(file, start + 16, 8)?]);
    let supersedes = u32_at(file, start + 57)? as usize;
    let mut at = start.checked_add(61)?.checked_add(supersedes.checked_mul(12)?)?;
    let ops = if *file.get(at)? == 1 { Some(section(file, at + 1)?) } else { None };
    at += 1 + ops.map_or(0, |_| SECTION);
    let count = u32_at(file, at)?;
    at += 4;
    let mut groups = Vec::new();
    for number in 0..count.min(GROUPS_MAX) {
        let dim = u32_at(file, at + 4)? as usize;
        let value_bytes = if *file.get(at + 8)? == 2 { 2 } else { 4 };
        let listed = usize::from(*file.get(at + 49)?);
        at += 50;
        let sections: Option<Vec<_>> =
            (0..listed).map(|n| section(file, at + n * SECTION)).collect();
        at += listed * SECTION;
        let stride = dim.checked_mul(value_bytes)?;
        groups.push(Group { number: number as u16, dim, stride, sections: sections? });
    }
    Some((seed, ops, groups))
}

fn sections(file: &mut [u8]) -> Option<()> {
    let (seed, ops, groups) = layout(file)?;
    if let Some(ops) = ops {
        let _ = seal_ops(file, seed, ops);
        let _ = seal_section(file, ops);
    }
    for group in &groups {
        let place = Place { seed, group: group.number };
        for (table, frames) in [(group.of(4), 3), (group.of(6), 5)] {
            let _ = table.and_then(|table| place.frames(file, table, frames));
        }
        let _ = group.of(8).and_then(|codes| place.codes(file, codes, group.dim));
        let _ = group.of(9).and_then(|sketches| place.sketches(file, sketches, group.dim));
        let _ = group.of(2).and_then(|rows| place.rows(file, rows, group.of(1), group.stride));
        for part in &group.sections {
            let _ = seal_section(file, *part);
        }
    }
    Some(())
}

/// Where the first frame of payloads stands.
pub(crate) fn first_payload_frame(file: &[u8]) -> Option<Range<usize>> {
    let (_, _, groups) = layout(file)?;
    let table = groups.iter().find_map(|group| group.of(6))?;
    let start = usize::try_from(u64_at(file, table.offset)?).ok()?;
    Some(start..start.checked_add(u32_at(file, table.offset.checked_add(8)?)? as usize)?)
}

/// A group's checksums.
pub(crate) struct Place {
    pub(crate) seed: u32,
    pub(crate) group: u16,
}

impl Place {
    pub(crate) fn crc(&self, kind: u8, index: usize, bytes: &[u8]) -> u32 {
        let (seed, group) = (self.seed.to_le_bytes(), self.group.to_le_bytes());
        crc(0, &[&seed, &[kind], &group, &(index as u64).to_le_bytes(), bytes])
    }

    fn frames(&self, file: &mut [u8], table: Section, kind: u8) -> Option<()> {
        for index in 0..table.items {
            let at = table.offset.checked_add(index.checked_mul(24)?)?;
            let from = usize::try_from(u64_at(file, at)?).ok()?;
            let len = u32_at(file, at + 8)? as usize;
            if let Some(stored) = get(file, from, len) {
                let crc = self.crc(kind, index, stored);
                put_u32(file, at + 16, crc);
            }
            let crc = self.crc(kind + 1, index, get(file, at, 20)?);
            put_u32(file, at + 20, crc);
        }
        Some(())
    }

    fn codes(&self, file: &mut [u8], codes: Section, dim: usize) -> Option<()> {
        let len = dim.checked_add(12)?;
        for index in 0..codes.items {
            let at = codes.offset.checked_add(index.checked_mul(len + 4)?)?;
            let crc = self.crc(8, index, get(file, at, len)?);
            put_u32(file, at + len, crc);
        }
        Some(())
    }

    /// The mean, and what is behind it: one chunk, as far as 1,024 rows.
    fn sketches(&self, file: &mut [u8], sketches: Section, dim: usize) -> Option<()> {
        let mean = dim.checked_mul(4)?;
        let behind = sketches.offset.checked_add(mean)?;
        let crc = self.crc(9, usize::MAX, get(file, sketches.offset, mean)?);
        put_u32(file, behind, crc);
        let (at, len) = (behind.checked_add(4)?, sketches.len.checked_sub(mean.checked_add(8)?)?);
        let crc = self.crc(9, 0, get(file, at, len)?);
        put_u32(file, at + len, crc);
        Some(())
    }

    fn rows(
        &self,
        file: &mut [u8],
        rows: Section,
        vectors: Option<Section>,
        stride: usize,
    ) -> Option<()> {
        for index in 0..rows.items {
            let at = rows.offset.checked_add(index * 128)?;
            let vector = u32_at(file, at + 72)? as usize;
            let bytes = vectors.and_then(|section| {
                get(file, section.offset.checked_add(vector.checked_mul(stride)?)?, stride)
            });
            if let Some(bytes) = bytes {
                let crc = self.crc(1, vector, bytes);
                put_u32(file, at + 76, crc);
            }
            let crc = self.crc(2, index, get(file, at, 124)?);
            put_u32(file, at + 124, crc);
        }
        Some(())
    }
}

fn seal_ops(file: &mut [u8], seed: u32, ops: Section) -> Option<()> {
    let place = Place { seed, group: 0 };
    let mut at = ops.offset;
    for index in 0..ops.items {
        let len = u32_at(file, at + 8)? as usize;
        let body = get(file, at.checked_add(16)?, len)?;
        let covered = [get(file, at, 12)?, body].concat();
        put_u32(file, at + 12, place.crc(7, index, &covered));
        at += 16 + len;
    }
    Some(())
}

fn seal_section(file: &mut [u8], section: Section) -> Option<()> {
    let crc = crc(0, &[get(file, section.offset, section.len)?]);
    put_u32(file, section.entry + 21, crc);
    Some(())
}

/// Header, footer and trailer.
fn ends(file: &mut [u8]) -> Option<()> {
    let head = crc(0, &[get(file, 0, 60)?]);
    put_u32(file, 60, head);
    let trailer = file.len().checked_sub(TRAILER)?;
    if let Some(footer) = footer(file) {
        let crc = crc(0, &[file.get(footer)?]);
        put_u32(file, trailer + 12, crc);
    }
    let crc = crc(0, &[get(file, trailer, 20)?]);
    put_u32(file, trailer + 20, crc);
    Some(())
}
