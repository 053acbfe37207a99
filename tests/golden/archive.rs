//! The archive: sealed segments, read from their end.
//!
//! Trailer, footer, groups, sections. Every checksum is compared: that of each row, body, payload,
//! vector, frame and table entry at its place, and that of each section as a whole. Every byte of the
//! file belongs to something, or is zero.

use super::bytes::{Cursor, Place, Read, all_zeros, crc, hold, part, same, split_crc};
use super::codes::{Packed, packed_rows};
use super::operations::{Entry, Operation, vector};

const NONE: u32 = u32::MAX;
/// Payloads up to this length share frames.
const SHARED: u32 = 64 << 10;
/// Length of each frame but the last of a longer payload.
const PIECE: u32 = 256 << 10;

#[derive(Debug)]
pub struct Segment {
    pub number: u64,
    pub footer_crc: u32,
    /// First and last LSN, of a segment that archives a range of the log.
    pub covers: Option<(u64, u64)>,
    pub next_id: u64,
    pub next_collection: u32,
    pub beside: u32,
    pub supersedes: Vec<(u64, u32)>,
    pub operations: Vec<(u64, Operation)>,
    pub groups: Vec<Group>,
}

#[derive(Debug)]
pub struct Group {
    pub collection: u32,
    pub dim: usize,
    pub rows: Vec<Row>,
    /// A packed row for each vector.
    pub codes: Vec<Packed>,
    /// The section of sketches as it stands; how it is read depends on the metric.
    pub sketches: Vec<u8>,
    pub place: Place,
}

#[derive(Debug)]
pub struct Row {
    pub entry: Entry,
    pub norm: f32,
    pub fingerprint: u64,
}

struct Section<'a> {
    kind: u8,
    items: u32,
    bytes: &'a [u8],
    from: u64,
}

pub fn read(file: &[u8], store: &[u8; 16], number: u64) -> Read<Segment> {
    let what = format!("archive segment {number}");
    let header = part(&what, file, 0, 64)?;
    let mut cursor = Cursor::new(&what, header);
    cursor.expect("magic", b"pmllSEG\n")?;
    cursor.expect("format", &[0; 4])?;
    cursor.zeros(4)?;
    cursor.expect("store", store)?;
    cursor.expect("number", &number.to_le_bytes())?;
    cursor.zeros(20)?;
    same(&what, cursor.u32()?, crc(&[&header[..60]]))?;

    let end = file.len() as u64 - 32;
    let trailer = part(&what, file, end, 32)?;
    let mut cursor = Cursor::new(&what, trailer);
    let (offset, length, footer_crc) = (cursor.u64()?, cursor.u32()?, cursor.u32()?);
    cursor.expect("format of the trailer", &[0; 4])?;
    same(&format!("{what}: trailer"), cursor.u32()?, crc(&[&trailer[..20]]))?;
    cursor.expect("magic of the trailer", b"pmllEND\n")?;
    let footer = part(&what, file, offset, u64::from(length))?;
    same(&format!("{what}: footer"), footer_crc, crc(&[footer]))?;

    // What belongs to something; the rest is zeros.
    let mut taken = vec![(0, 64), (offset, offset + u64::from(length)), (end, end + 32)];
    let seed = crc(&[store, &number.to_le_bytes()]);
    let mut cursor = Cursor::new(&what, footer);
    cursor.expect("store of the footer", store)?;
    cursor.expect("number of the footer", &number.to_le_bytes())?;
    let covers = flag(&what, cursor.u8()?)?;
    let range = (cursor.u64()?, cursor.u64()?);
    let (next_id, next_collection) = (cursor.u64()?, cursor.u32()?);
    let (beside, count) = (cursor.u32()?, cursor.u32()?);
    let mut supersedes = Vec::new();
    for _ in 0..count {
        supersedes.push((cursor.u64()?, cursor.u32()?));
    }
    let mut operations = Vec::new();
    if flag(&what, cursor.u8()?)? {
        let section = section(&what, file, &mut cursor, &mut taken)?;
        hold(section.kind == 7, || format!("{what}: operations are of kind {}", section.kind))?;
        operations = operations_of(&section, Place { seed, kind: 7, group: 0 })?;
    }
    let groups = cursor.u32()?;
    let groups = (0..groups)
        .map(|number| {
            let place = Place { seed, kind: 0, group: number as u16 };
            group(&what, file, &mut cursor, &mut taken, place)
        })
        .collect::<Read<Vec<Group>>>()?;
    cursor.end()?;
    hold(groups.is_sorted_by(|a, b| a.collection < b.collection), || {
        format!("{what}: groups do not ascend")
    })?;

    taken.sort_unstable();
    for two in taken.windows(2) {
        let gap = file.get(two[0].1 as usize..two[1].0 as usize);
        let gap = gap.ok_or_else(|| format!("{what}: sections overlap"))?;
        hold(all_zeros(gap), || format!("{what}: bytes at {} belong to nothing", two[0].1))?;
    }
    Ok(Segment {
        number,
        footer_crc,
        covers: covers.then_some(range),
        next_id,
        next_collection,
        beside,
        supersedes,
        operations,
        groups,
    })
}

fn flag(what: &str, byte: u8) -> Read<bool> {
    hold(byte < 2, || format!("{what}: a flag is {byte}"))?;
    Ok(byte == 1)
}

fn section<'a>(
    what: &str,
    file: &'a [u8],
    cursor: &mut Cursor,
    taken: &mut Vec<(u64, u64)>,
) -> Read<Section<'a>> {
    let (kind, from, length) = (cursor.u8()?, cursor.u64()?, cursor.u64()?);
    let (items, section_crc) = (cursor.u32()?, cursor.u32()?);
    let bytes = part(what, file, from, length)?;
    hold(from % 64 == 0, || format!("{what}: section {kind} at {from}"))?;
    same(&format!("{what}: section {kind}"), section_crc, crc(&[bytes]))?;
    taken.push((from, from + length));
    Ok(Section { kind, items, bytes, from })
}

fn operations_of(section: &Section, place: Place) -> Read<Vec<(u64, Operation)>> {
    let mut operations: Vec<(u64, Operation)> = Vec::new();
    let mut cursor = Cursor::new("archived operations", section.bytes);
    for index in 0..u64::from(section.items) {
        let head = cursor.take(16)?;
        let (lsn, length) = (u64_at(head, 0), u32_at(head, 8));
        let bytes = cursor.take(length as usize)?;
        let what = format!("archived operation {index}");
        same(&what, u32_at(head, 12), place.crc(index, &[&head[..12], bytes].concat()))?;
        let operation = Operation::read(bytes, lsn)?;
        hold(!matches!(operation, Operation::Put(_)), || format!("{what} is a put"))?;
        operations.push((lsn, operation));
    }
    cursor.end()?;
    Ok(operations)
}

fn group(
    what: &str,
    file: &[u8],
    cursor: &mut Cursor,
    taken: &mut Vec<(u64, u64)>,
    place: Place,
) -> Read<Group> {
    let (collection, dim) = (cursor.u32()?, cursor.u32()? as usize);
    let element = cursor.u8()?;
    hold((1..=2).contains(&element), || format!("{what}: element {element}"))?;
    let (rows, vectors) = (cursor.u32()?, cursor.u32()?);
    hold(vectors <= rows, || format!("{what}: {vectors} vectors in {rows} rows"))?;
    let ids = (cursor.u64()?, cursor.u64()?);
    let versions = (cursor.u64()?, cursor.u64()?);
    let mut sections = Vec::new();
    for _ in 0..cursor.u8()? {
        sections.push(section(what, file, cursor, taken)?);
    }
    let find = |kind: u8| sections.iter().find(|section| section.kind == kind);
    let bytes = |kind: u8| find(kind).map_or(&[][..], |section| section.bytes);
    let count = |kind: u8, items: u32| {
        let found = find(kind).map_or(0, |section| section.items);
        hold(found == items, || format!("{what}: {found} items in section {kind} of {items}"))
    };
    for kind in [1, 8, 9] {
        count(kind, vectors)?;
    }
    count(2, rows)?;

    let stride = dim * if element == 2 { 2 } else { 4 };
    let vectors = Vectors { bytes: bytes(1), stride, half: element == 2, count: vectors };
    hold(vectors.bytes.len() == stride * vectors.count as usize, || {
        format!("{what}: {} bytes of vectors", vectors.bytes.len())
    })?;
    let bodies = frames(file, find(3), bytes(4), place.of(3), place.of(4))?;
    let payloads = frames(file, find(5), bytes(6), place.of(5), place.of(6))?;
    let (read, none) = bytes(2).as_chunks::<128>();
    hold(read.len() == rows as usize && none.is_empty(), || format!("{what}: not {rows} rows"))?;
    let parts = Parts { vectors, bodies, payloads, place };
    let read: Vec<Row> = (0..)
        .zip(read)
        .map(|(index, bytes)| row(bytes, index, collection, &parts))
        .collect::<Read<_>>()?;
    let span = |number: fn(&Entry) -> u64| {
        let numbers = || read.iter().map(|row| number(&row.entry));
        (numbers().min().unwrap_or(0), numbers().max().unwrap_or(0))
    };
    hold(span(|entry| entry.id) == ids, || format!("{what}: ids are not from {ids:?}"))?;
    hold(span(|entry| entry.version) == versions, || format!("{what}: not {versions:?}"))?;
    let codes = packed_rows(bytes(8), dim, parts.vectors.count as usize, place.of(8))?;
    Ok(Group {
        collection,
        dim,
        rows: read,
        codes,
        sketches: bytes(9).to_vec(),
        place: place.of(9),
    })
}

struct Vectors<'a> {
    bytes: &'a [u8],
    stride: usize,
    half: bool,
    count: u32,
}

/// What the rows of a group point into.
struct Parts<'a> {
    vectors: Vectors<'a>,
    bodies: Vec<Vec<u8>>,
    payloads: Vec<Vec<u8>>,
    place: Place,
}

/// All frames of a section, unpacked.
fn frames(
    file: &[u8],
    section: Option<&Section>,
    table: &[u8],
    place: Place,
    table_place: Place,
) -> Read<Vec<Vec<u8>>> {
    let (entries, none) = table.as_chunks::<24>();
    hold(none.is_empty(), || "a frame table ends inside of an entry".to_owned())?;
    let Some(section) = section else {
        hold(entries.is_empty(), || "a frame table without frames".to_owned())?;
        return Ok(Vec::new());
    };
    hold(section.items as usize == entries.len(), || format!("{} frames", section.items))?;
    let mut unpacked = Vec::new();
    let mut end = section.from;
    for (index, entry) in (0_u64..).zip(entries) {
        let what = format!("frame {index} of section {}", section.kind);
        let (entry, entry_crc) = split_crc(&what, entry)?;
        same(&what, entry_crc, table_place.crc(index, entry))?;
        let mut cursor = Cursor::new(&what, entry);
        let (offset, length, raw, frame_crc) =
            (cursor.u64()?, cursor.u32()?, cursor.u32()?, cursor.u32()?);
        hold(offset == end, || format!("{what}: at {offset}, not at {end}"))?;
        end = offset + u64::from(length);
        let stored = part(&what, file, offset, u64::from(length))?;
        same(&what, frame_crc, place.crc(index, stored))?;
        unpacked.push(if length == raw {
            stored.to_vec()
        } else {
            zstd::bulk::decompress(stored, raw as usize).map_err(|e| format!("{what}: {e}"))?
        });
        let length = unpacked[index as usize].len();
        hold(length == raw as usize, || format!("{what}: unpacks to {length} bytes"))?;
    }
    let size = end - section.from;
    hold(size == section.bytes.len() as u64, || format!("section {}: spare bytes", section.kind))?;
    Ok(unpacked)
}

fn row(bytes: &[u8; 128], index: u32, collection: u32, parts: &Parts) -> Read<Row> {
    let what = format!("row {index} of collection {collection}");
    let (covered, row_crc) = split_crc(&what, bytes)?;
    same(&what, row_crc, parts.place.of(2).crc(u64::from(index), covered))?;
    let mut cursor = Cursor::new(&what, covered);
    let mut entry = Entry { collection, id: cursor.u64()?, ..Entry::default() };
    entry.version = cursor.u64()?;
    entry.at = cursor.i64()?;
    let fingerprint = cursor.u64()?;
    entry.created = cursor.i64()?;
    entry.updated = cursor.i64()?;
    let (expires, sequence, salience) = (cursor.i64()?, cursor.u64()?, cursor.f32()?);
    let norm = cursor.f32()?;
    let (number, vector_crc) = (cursor.u32()?, cursor.u32()?);
    let (body_frame, body_offset, body_len) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
    let (frame, offset, length) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
    let (payload_crc, body_crc, flags) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
    cursor.zeros(8)?;
    hold(flags < 128, || format!("{what}: flags {flags:#x}"))?;
    let has = |flag: u32| flags & flag != 0;
    entry.pinned = has(1);
    entry.expires = has(4).then_some(expires);
    entry.sequence = has(8).then_some(sequence);
    entry.salience = has(16).then_some(salience);
    let absent = (has(4) || expires == 0) && (has(8) || sequence == 0);
    hold(absent && (has(16) || salience == 0.0), || format!("{what}: a part without its flag"))?;

    let vectors = &parts.vectors;
    if index < vectors.count {
        hold(number == index, || format!("{what}: vector {number}"))?;
        hold(has(32) == vectors.half, || format!("{what}: flags {flags:#x} of its vector"))?;
        let bytes = &vectors.bytes[index as usize * vectors.stride..][..vectors.stride];
        let found = parts.place.of(1).crc(u64::from(index), bytes);
        same(&format!("{what}: vector"), vector_crc, found)?;
        entry.vector = Some(vector(bytes, vectors.half));
    } else {
        hold(number == NONE && vector_crc == 0, || format!("{what}: vector {number}"))?;
    }

    let frames = &parts.bodies;
    let body = frames.get(body_frame as usize).ok_or_else(|| format!("{what}: no body"))?;
    let body = part(&what, body, u64::from(body_offset), u64::from(body_len))?;
    same(&format!("{what}: body"), body_crc, crc(&[body]))?;
    let mut cursor = Cursor::new(&what, body);
    let (namespace, key, session) = (cursor.u16()?, cursor.u16()?, cursor.u8()?);
    entry.namespace = cursor.text(namespace as usize)?;
    entry.key = cursor.text(key as usize)?;
    let session = cursor.text(session as usize)?;
    entry.session = has(2).then_some(session);
    let attributes = cursor.rest().to_vec();
    entry.attributes = String::from_utf8(attributes).map_err(|e| format!("{what}: {e}"))?;

    entry.payload = if has(64) {
        hold(length > SHARED && offset == 0, || format!("{what}: payload of {length}"))?;
        pieces(&what, &parts.payloads, frame as usize, length)?
    } else if frame == NONE {
        hold(length == 0, || format!("{what}: {length} bytes in no frame"))?;
        Vec::new()
    } else {
        hold(length <= SHARED, || format!("{what}: payload of {length}"))?;
        let frame = parts.payloads.get(frame as usize);
        let frame = frame.ok_or_else(|| format!("{what}: no payload"))?;
        part(&what, frame, u64::from(offset), u64::from(length))?.to_vec()
    };
    same(&format!("{what}: payload"), payload_crc, crc(&[&entry.payload]))?;
    Ok(Row { entry, norm, fingerprint })
}

/// A payload that has frames of its own.
fn pieces(what: &str, frames: &[Vec<u8>], first: usize, length: u32) -> Read<Vec<u8>> {
    let mut payload = Vec::new();
    for piece in 0..length.div_ceil(PIECE) {
        let frame = frames.get(first + piece as usize);
        let frame = frame.ok_or_else(|| format!("{what}: no piece {piece}"))?;
        let expected = PIECE.min(length - piece * PIECE);
        let found = frame.len();
        hold(found == expected as usize, || format!("{what}: piece {piece} has {found} bytes"))?;
        payload.extend_from_slice(frame);
    }
    Ok(payload)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
