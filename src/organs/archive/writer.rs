//! Writing a segment: once, front to back, under a temporary name.
//!
//! Steps: header; per collection its vectors, then all bodies, then all payloads (each packed into
//! frames and compressed), then the two frame tables and the row table; the operations; footer;
//! trailer; sync; rename; sync of the folder. Rows with a vector come first in their group, so that
//! vector number and row number are the same.
//!
//! The bytes go through one buffer of 256 KiB; payloads that are not in RAM are fetched piece by
//! piece. What stays in memory is the row table and 24 bytes per frame of the group at hand.
//!
//! A writer never replaces a sealed segment, never syncs half a file under its final name, and
//! takes its file away when it fails: a temporary one, so that a full disk gets its room back; a
//! named one whose name could not be synced, so that nobody relies on it.

use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt;
use half::vec::HalfFloatVecExt;

use crate::bytes::codec::body::{self, PIECE_BYTES};
use crate::bytes::codec::footer::{Footer, Group};
use crate::bytes::codec::row::{Row, Span, fingerprint};
use crate::bytes::codec::segment::{
    FOOTER_BYTES_MAX, FORMAT, Section, SectionKind, Seed, Trailer, encode_header, encode_trailer,
};
use crate::io::{Disk, OpenMode, join};
use crate::pure::kernel;
use crate::words::error::{Error, Result};
use crate::words::id::{CollectionId, Lsn};
use crate::words::limits;
use crate::words::options::{Element, Metric};
use crate::words::record::{Payload, Place, Record};

use super::sink::{FrameWriter, Sink, count};
use super::stand_ins;
use super::{FOLDER, NUMBER_MAX, TEMPORARY, file_name, remove_if_there, sync_names};

/// What goes into a segment.
pub struct NewSegment<'a> {
    /// Its number, larger than every number used before.
    pub number: u64,
    /// The store it belongs to.
    pub store_id: [u8; 16],
    /// The log range it archives, both ends included; `None` when vacuum writes it.
    pub covers: Option<(Lsn, Lsn)>,
    /// The next entry id the store would give.
    pub next_id: u64,
    /// The next collection number the store would give.
    pub next_collection: u32,
    /// The entries, strictly ascending by (collection, id).
    pub rows: &'a [&'a Record],
    /// What is known of a collection that has vectors.
    pub shapes: &'a dyn Fn(CollectionId) -> Option<Shape>,
    /// Encoded operations that are not rows, in the order they shall be read back.
    pub ops: &'a [(Lsn, Vec<u8>)],
    /// [`digest`](crate::bytes::codec::footer::digest) of the segments that count beside this one.
    pub beside: u32,
    /// Segments this one replaces: number and [`Sealed::crc`].
    pub supersedes: &'a [(u64, u32)],
}

/// What a segment has to know of the vectors of a collection.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Values of a vector.
    pub dim: u32,
    /// How exact values are stored.
    pub element: Element,
    /// How vectors are compared: dot product and distance need norms beside the sketches.
    pub metric: Metric,
    /// The mean that earlier segments took away before the signs; `None` lets this one find its own.
    pub mean: Option<Arc<[f32]>>,
}

/// Where payloads that are not in RAM come from.
pub trait PayloadReader {
    /// Fills `buf` with the payload of `record` from byte `offset` on.
    fn read(&self, record: &Record, offset: u64, buf: &mut [u8]) -> Result<()>;
}

/// A segment that is on disk for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Its number.
    pub number: u64,
    /// Length of its file.
    pub bytes: u64,
    /// CRC of its footer, which covers the CRCs of everything else: the identity of its contents.
    pub crc: u32,
    /// Where each row of [`NewSegment::rows`] went, in their order.
    pub places: Vec<Place>,
}

/// Writes and seals a segment; when it returns Ok, the segment survives a power cut.
pub fn write_segment(
    disk: &dyn Disk,
    new: &NewSegment<'_>,
    payloads: &dyn PayloadReader,
) -> Result<Sealed> {
    check(new)?;
    let name = file_name(new.number);
    let temporary = format!("{name}{TEMPORARY}");
    let present = disk.list(FOLDER).map_err(|e| Error::io(format!("list {FOLDER}"), e))?;
    if present.iter().any(|leaf| join(FOLDER, leaf) == name) {
        return Err(Error::internal(format!("{name} is sealed already and must not be replaced")));
    }
    remove_if_there(disk, &temporary)?;
    let sealed = write_temporary(disk, &temporary, new, payloads).and_then(|sealed| {
        disk.rename(&temporary, &name).map_err(|e| Error::io(format!("rename {temporary}"), e))?;
        Ok(sealed)
    });
    // Best effort from here on: the failure that is told is the first one.
    if sealed.is_err() {
        let _ = disk.remove(&temporary);
        return sealed;
    }
    sync_names(disk).inspect_err(|_| {
        // The name shows, and a power cut may take it. The next attempt writes another file of this
        // number; nobody may have applied this one meanwhile.
        let _ = disk.remove(&name);
        let _ = sync_names(disk);
    })?;
    sealed
}

fn check(new: &NewSegment<'_>) -> Result<()> {
    if new.number == 0 || new.number > NUMBER_MAX {
        return Err(Error::internal(format!("segment number {} has no name", new.number)));
    }
    if new.covers.is_some_and(|(first, last)| first > last) {
        return Err(Error::internal(format!("a segment covers {:?}", new.covers)));
    }
    let sorted =
        |pair: &[&Record]| (pair[0].collection, pair[0].id) < (pair[1].collection, pair[1].id);
    if !new.rows.windows(2).all(sorted) {
        return Err(Error::internal("rows of a segment are not ascending by collection and id"));
    }
    if u32::try_from(new.rows.len()).is_err() || u32::try_from(new.ops.len()).is_err() {
        return Err(Error::internal("more rows than one segment numbers; split them"));
    }
    Ok(())
}

fn write_temporary(
    disk: &dyn Disk,
    name: &str,
    new: &NewSegment<'_>,
    payloads: &dyn PayloadReader,
) -> Result<Sealed> {
    let file =
        disk.open(name, OpenMode::CreateNew).map_err(|e| Error::io(format!("create {name}"), e))?;
    let seed = Seed::new(new.store_id, new.number);
    let mut sink = Sink::new(file, name);
    sink.write(&encode_header(new.store_id, new.number))?;

    let mut places = Vec::with_capacity(new.rows.len());
    let mut groups = Vec::new();
    for rows in new.rows.chunk_by(|a, b| a.collection == b.collection) {
        let number = u16::try_from(groups.len())
            .ok()
            .filter(|n| *n < u16::MAX)
            .ok_or_else(|| Error::internal("more collections than one segment has groups"))?;
        groups.push(write_group(&mut sink, new, seed, number, rows, payloads)?);
        places.extend(row_numbers(rows).into_iter().map(|row| Place {
            segment: new.number,
            group: number,
            row,
        }));
    }
    let ops = write_ops(&mut sink, seed, new.ops)?;

    let footer = Footer {
        store_id: new.store_id,
        number: new.number,
        covers: new.covers,
        next_id: new.next_id,
        next_collection: new.next_collection,
        beside: new.beside,
        supersedes: new.supersedes.to_vec(),
        ops,
        groups,
    };
    let mut bytes = Vec::new();
    footer.encode(&mut bytes);
    let footer_len = u32::try_from(bytes.len())
        .ok()
        .filter(|_| bytes.len() <= FOOTER_BYTES_MAX)
        .ok_or_else(|| Error::internal("the footer of a segment is too long"))?;
    let footer_offset = sink.position();
    // What cannot be read back must not be sealed.
    Footer::decode(&bytes, footer_offset)
        .map_err(|damage| Error::internal(format!("{name}: a footer of our own: {damage}")))?;
    let crc = crc32fast::hash(&bytes);
    sink.write(&bytes)?;
    sink.write(&encode_trailer(Trailer {
        format: FORMAT,
        footer_offset,
        footer_len,
        footer_crc: crc,
    }))?;
    let bytes = sink.finish()?;
    Ok(Sealed { number: new.number, bytes, crc, places })
}

/// Row number of each of these rows: those with a vector first, each kind in the given order.
fn row_numbers(rows: &[&Record]) -> Vec<u32> {
    let mut with = 0;
    let mut without = rows.iter().map(|r| u32::from(r.vector.is_some())).sum::<u32>();
    let mut take = |has: bool| {
        let next = if has { &mut with } else { &mut without };
        *next += 1;
        *next - 1
    };
    rows.iter().map(|r| take(r.vector.is_some())).collect()
}

fn write_group(
    sink: &mut Sink,
    new: &NewSegment<'_>,
    seed: Seed,
    number: u16,
    rows: &[&Record],
    payloads: &dyn PayloadReader,
) -> Result<Group> {
    let collection = rows.first().map(|r| r.collection).unwrap_or(CollectionId(0));
    let (with, without): (Vec<_>, Vec<_>) = rows.iter().partition(|r| r.vector.is_some());
    let vectors = with.len();
    let records: Vec<&Record> = with.into_iter().chain(without).collect();
    let shape = match (new.shapes)(collection) {
        Some(shape) if vectors > 0 => shape,
        None if vectors > 0 => {
            return Err(Error::internal(format!("collection {} has no dimension", collection.0)));
        }
        _ => Shape { dim: 0, element: Element::F32, metric: Metric::Cosine, mean: None },
    };
    let (dim, element) = (shape.dim, shape.element);
    let mut table: Vec<Row> = records.iter().zip(0..).map(|(r, n)| fixed_part(r, n)).collect();
    let mut sections = Vec::new();

    if vectors > 0 {
        sink.begin()?;
        let mut bytes = Vec::new();
        for (record, row) in records.iter().zip(&mut table).take(vectors) {
            let values = record.vector.as_deref().unwrap_or_default();
            encode_vector(values, dim, element, &mut bytes)
                .map_err(|what| Error::internal(format!("entry {}: {what}", record.id)))?;
            row.vector_index = Some(row.number);
            row.norm = kernel::norm(values);
            row.vector_crc = seed.crc(SectionKind::Vectors, number, u64::from(row.number), &bytes);
            sink.write(&bytes)?;
        }
        sections.push(sink.end(SectionKind::Vectors, vectors)?);
        let with = records.get(..vectors).unwrap_or_default();
        sections.push(stand_ins::write_codes(sink, seed, number, dim, with)?);
        sections.push(stand_ins::write_sketches(sink, seed, number, &shape, with)?);
    }

    sink.begin()?;
    let mut frames = FrameWriter::new(seed, SectionKind::Bodies, number)?;
    let mut bytes = Vec::new();
    for (record, row) in records.iter().zip(&mut table) {
        bytes.clear();
        body::encode_body(record, &mut bytes)
            .map_err(|what| Error::internal(format!("entry {}: {what}", record.id)))?;
        row.body_crc = crc32fast::hash(&bytes);
        row.body = frames.pack(sink, &bytes)?;
    }
    frames.flush(sink)?;
    sections.push(sink.end(SectionKind::Bodies, frames.entries.len())?);
    let body_table = frames;

    let mut frames = FrameWriter::new(seed, SectionKind::Payloads, number)?;
    sink.begin()?;
    for (record, row) in records.iter().zip(&mut table) {
        write_payload(sink, &mut frames, record, row, payloads)?;
    }
    frames.flush(sink)?;
    if !frames.entries.is_empty() {
        sections.push(sink.end(SectionKind::Payloads, frames.entries.len())?);
    }
    sections.push(body_table.write_table(sink, SectionKind::BodyTable)?);
    if !frames.entries.is_empty() {
        sections.push(frames.write_table(sink, SectionKind::PayloadTable)?);
    }

    sink.begin()?;
    for row in &table {
        bytes.clear();
        row.encode(seed, number, &mut bytes);
        sink.write(&bytes)?;
    }
    sections.push(sink.end(SectionKind::Rows, table.len())?);

    let first = rows.first().map(|r| r.id);
    let last = rows.last().map(|r| r.id);
    let versions = || rows.iter().map(|r| r.version);
    let (Some(min_id), Some(max_id), Some(min_version), Some(max_version)) =
        (first, last, versions().min(), versions().max())
    else {
        return Err(Error::internal("a group without rows"));
    };
    Ok(Group {
        collection,
        dim,
        element,
        rows: count(table.len())?,
        vectors: count(vectors)?,
        min_id,
        max_id,
        min_version,
        max_version,
        sections,
    })
}

fn fixed_part(record: &Record, number: u32) -> Row {
    Row {
        number,
        id: record.id,
        version: record.version,
        at: record.at,
        fingerprint: fingerprint(&record.namespace, &record.key),
        created: record.created,
        updated: record.updated,
        expires: record.expires,
        sequence: record.sequence,
        salience: record.salience,
        norm: 0.0,
        vector_index: None,
        vector_crc: 0,
        body: Span::default(),
        body_crc: 0,
        payload: None,
        payload_crc: 0,
        pinned: record.pinned,
        has_session: record.session.is_some(),
        half: record.half,
        pieces: false,
    }
}

fn encode_vector(
    values: &[f32],
    dim: u32,
    element: Element,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    if values.len() != dim as usize {
        return Err(format!("a vector of {} values in a collection of {dim}", values.len()));
    }
    out.clear();
    match element {
        Element::F32 => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        Element::F16 => {
            let halves = Vec::<f16>::from_f32_slice(values);
            if halves.to_f32_vec() != values {
                return Err("its vector was not rounded to f16 when it was put".to_owned());
            }
            out.extend(halves.iter().flat_map(|v| v.to_le_bytes()));
        }
    }
    Ok(())
}

fn write_payload(
    sink: &mut Sink,
    frames: &mut FrameWriter,
    record: &Record,
    row: &mut Row,
    payloads: &dyn PayloadReader,
) -> Result<()> {
    let len = record.payload.len();
    if len == 0 {
        return Ok(());
    }
    if len > limits::PAYLOAD_BYTES_MAX {
        return Err(Error::internal(format!("entry {}: a payload of {len} bytes", record.id)));
    }
    let mut scratch = Vec::new();
    let mut hasher = crc32fast::Hasher::new();
    if len <= limits::PAYLOAD_RESIDENT_BYTES_MAX {
        let bytes = payload_part(record, payloads, 0, len, &mut scratch)?;
        hasher.update(bytes);
        row.payload = Some(frames.pack(sink, bytes)?);
    } else {
        row.pieces = true;
        frames.flush(sink)?;
        let span = Span { frame: count(frames.entries.len())?, offset: 0, len: count(len)? };
        for from in (0..len).step_by(PIECE_BYTES) {
            let to = len.min(from + PIECE_BYTES);
            let bytes = payload_part(record, payloads, from, to, &mut scratch)?;
            hasher.update(bytes);
            frames.pack(sink, bytes)?;
            frames.flush(sink)?;
        }
        row.payload = Some(span);
    }
    row.payload_crc = hasher.finalize();
    match &record.payload {
        Payload::InLog(place) | Payload::InArchive(place) if place.crc != row.payload_crc => {
            Err(Error::corrupt(format!(
                "payload of entry {}, {} bytes in segment {} at {}: CRC differs",
                record.id, place.len, place.segment, place.offset
            )))
        }
        _ => Ok(()),
    }
}

/// Bytes `from..to` of a payload, wherever it lies.
fn payload_part<'a>(
    record: &'a Record,
    payloads: &dyn PayloadReader,
    from: usize,
    to: usize,
    scratch: &'a mut Vec<u8>,
) -> Result<&'a [u8]> {
    if let Payload::Inline(bytes) = &record.payload {
        return Ok(bytes.get(from..to).unwrap_or_default());
    }
    scratch.resize(to.saturating_sub(from), 0);
    payloads.read(record, from as u64, scratch)?;
    Ok(scratch)
}

/// Operations, one behind the other: LSN u64, length u32, CRC u32, bytes.
fn write_ops(sink: &mut Sink, seed: Seed, ops: &[(Lsn, Vec<u8>)]) -> Result<Option<Section>> {
    if ops.is_empty() {
        return Ok(None);
    }
    sink.begin()?;
    let mut covered = Vec::new();
    for ((lsn, bytes), index) in ops.iter().zip(0u64..) {
        if bytes.len() > limits::BATCH_BYTES_MAX {
            return Err(Error::internal(format!("operation {lsn} has {} bytes", bytes.len())));
        }
        covered.clear();
        covered.extend_from_slice(&lsn.0.to_le_bytes());
        covered.extend_from_slice(&count(bytes.len())?.to_le_bytes());
        sink.write(&covered)?;
        covered.extend_from_slice(bytes);
        let crc = seed.crc(SectionKind::Ops, 0, index, &covered);
        sink.write(&crc.to_le_bytes())?;
        sink.write(bytes)?;
    }
    sink.end(SectionKind::Ops, ops.len()).map(Some)
}
