//! The archive's decoders: header, trailer, footer, rows, bodies, tables, and a segment as a whole.

use crate::bytes::codec::body::{FrameEntry, TABLE_ENTRY_BYTES, decode_body, encode_body};
use crate::bytes::codec::footer::Footer;
use crate::bytes::codec::op::decode_op;
use crate::bytes::codec::row::{ROW_BYTES, Row};
use crate::bytes::codec::segment::{
    self, FORMAT, HEADER_BYTES, SectionKind, Seed, TRAILER_BYTES, decode_header, decode_trailer,
    encode_header, encode_trailer,
};
use crate::organs::archive::{self, BodyReader, Segment};
use crate::pure::sketch::SketchLayout;
use crate::tiers::cold::ColdSegment;
use crate::words::error::Error;
use crate::words::id::{CollectionId, EntryId, Lsn, Timestamp};
use crate::words::options::Metric;
use crate::words::record::{Payload, Record};

use super::{Answer, STORE, disk, examples, holds, same};

const NAME: &str = "archive/0000000001.seg";

/// The header of a segment.
pub fn archive_header(bytes: &[u8]) -> Answer {
    let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(false) };
    let Ok(header) = decode_header(bytes) else { return Ok(false) };
    if header.format != FORMAT {
        return Ok(true);
    }
    // Reserved bytes are for later formats: they are not read, and written as zeros.
    let again = encode_header(header.store_id, header.number);
    let read = again.first_chunk().map(decode_header);
    holds(read == Some(Ok(header)), "a header that does not come back")
}

/// The length of a file (8 bytes), and its trailer.
pub fn archive_trailer(bytes: &[u8]) -> Answer {
    let Some((len, rest)) = bytes.split_first_chunk::<8>() else { return Ok(false) };
    let Some(bytes) = rest.first_chunk::<TRAILER_BYTES>() else { return Ok(false) };
    let Ok(trailer) = decode_trailer(bytes, u64::from_le_bytes(*len)) else { return Ok(false) };
    same(bytes, &encode_trailer(trailer))
}

/// Where a footer begins (8 bytes), and the footer.
pub fn archive_footer(bytes: &[u8]) -> Answer {
    let Some((end, bytes)) = bytes.split_first_chunk::<8>() else { return Ok(false) };
    let end = u64::from_le_bytes(*end);
    let Ok(footer) = Footer::decode(bytes, end) else { return Ok(false) };
    for group in &footer.groups {
        holds(footer.group_of(group.collection).is_some(), "a group that is not found")?;
    }
    let mut again = Vec::new();
    footer.encode(&mut again);
    if footer.covers.is_some() {
        return same(bytes, &again);
    }
    // A range that is said not to be there has numbers all the same.
    holds(Footer::decode(&again, end) == Ok(footer), "a footer that does not come back")
}

/// Number of the row, number of vectors, both below 8, and the row.
pub fn archive_row(bytes: &[u8]) -> Answer {
    let Some(([number, vectors], bytes)) = bytes.split_first_chunk::<2>() else { return Ok(false) };
    let (number, vectors) = (u32::from(number % 8), u32::from(vectors % 8));
    let seed = Seed::new(STORE, 1);
    let Ok(row) = Row::decode(bytes, seed, 0, number, vectors) else { return Ok(false) };
    let mut again = Vec::new();
    row.encode(seed, 0, &mut again);
    holds(again.len() == ROW_BYTES, "a row of another length")?;
    // Fields whose flag is not set are not read, and written as zeros.
    let read = Row::decode(&again, seed, 0, number, vectors);
    holds(read == Ok(row), "a row that does not come back")
}

/// Whether the row has a session (1 byte), and its body.
pub fn archive_body(bytes: &[u8]) -> Answer {
    let Some((session, bytes)) = bytes.split_first() else { return Ok(false) };
    let Ok(body) = decode_body(bytes, session & 1 != 0) else { return Ok(false) };
    let Ok(body) = body.to_body() else { return Ok(false) };
    let record = Record {
        collection: CollectionId(1),
        id: EntryId(1),
        version: Lsn(1),
        namespace: body.namespace,
        key: body.key,
        vector: None,
        half: false,
        payload: Payload::Inline([].into()),
        attributes: body.attributes,
        at: Timestamp(0),
        created: Timestamp(0),
        updated: Timestamp(0),
        expires: None,
        session: body.session,
        sequence: None,
        salience: None,
        pinned: false,
    };
    let mut again = Vec::new();
    match encode_body(&record, &mut again) {
        Ok(()) => same(bytes, &again),
        Err(_) => Ok(false),
    }
}

/// Which table, which entry (a byte each), and the entry.
pub fn archive_frame_entry(bytes: &[u8]) -> Answer {
    let Some(([kind, index], bytes)) = bytes.split_first_chunk::<2>() else { return Ok(false) };
    let kind = if kind & 1 == 0 { SectionKind::BodyTable } else { SectionKind::PayloadTable };
    let (seed, index) = (Seed::new(STORE, 1), u32::from(*index));
    let Ok(entry) = FrameEntry::decode(bytes, seed, kind, 0, index) else { return Ok(false) };
    let mut again = Vec::new();
    entry.encode(seed, kind, 0, index, &mut again);
    same(bytes.get(..TABLE_ENTRY_BYTES).unwrap_or_default(), &again)
}

/// A whole segment: everything in it is read, also as salvage reads it.
pub fn archive_segment(bytes: &[u8]) -> Answer {
    let disk = disk(&[archive::FOLDER], &[(NAME, bytes)]).map_err(|e| e.to_string())?;
    // Without a directory the rows are looked for; both ways end in a segment.
    drop(archive::carve::open_damaged(&disk, 1, STORE));
    let Ok(segment) = Segment::open(&disk, 1, STORE) else { return Ok(false) };
    let whole = segment.verify().is_empty();
    for (group, number) in segment.footer().groups.iter().zip(0..) {
        let mut reader = BodyReader::new(&segment, number);
        let (mut rows, mut scratch) = (Vec::new(), Vec::new());
        let listed = segment.rows(number, 0, group.rows.min(64), &mut rows);
        holds(!whole || listed.is_ok(), "a whole segment with rows that cannot be read")?;
        for row in &rows {
            let record = reader.record(row);
            holds(!whole || record.is_ok(), "a whole segment with a record that cannot be read")?;
            let mut start = [0; 16];
            let len = start.len().min(row.payload_len() as usize);
            drop(segment.payload_piece(number, row, 0, start.get_mut(..len).unwrap_or_default()));
            if let Some(index) = row.vector_index {
                drop(segment.code(number, index, &mut scratch));
            }
        }
        drop(segment.vectors(number, 0, group.vectors.min(64), &mut Vec::new()));
        for metric in [Metric::Cosine, Metric::Dot] {
            if let Some(layout) = SketchLayout::new(group.dim as usize, metric) {
                drop(segment.sketches(number, layout));
            }
        }
        drop(segment.sketch_mean(number));
    }
    let mut order = Ok(());
    segment
        .visit_ops(&mut |lsn, bytes| {
            order = decode_op(lsn, bytes, None).map(drop);
            Ok(())
        })
        .map_or_else(|_: Error| Ok(false), |()| Ok(order.is_ok()))
}

/// What the index keeps of the example's segment: the rows in it that are dead.
pub fn segment_value(bytes: &[u8]) -> Answer {
    thread_local! {
        static EXAMPLE: Vec<u8> = examples("archive_segment").swap_remove(0);
    }
    let segment = EXAMPLE.with(|example| {
        let disk = disk(&[archive::FOLDER], &[(NAME, example)]).map_err(|e| e.to_string())?;
        Segment::open(&disk, 1, STORE).map_err(|e| e.to_string())
    })?;
    let Ok(cold) = ColdSegment::decode(segment, bytes) else { return Ok(false) };
    holds(cold.live_rows() <= cold.rows(), "more rows alive than there are")?;
    let (live, again) = (cold.live_rows(), cold.encode());
    let segment = EXAMPLE.with(|example| {
        let disk = disk(&[archive::FOLDER], &[(NAME, example)]).map_err(|e| e.to_string())?;
        Segment::open(&disk, 1, STORE).map_err(|e| e.to_string())
    })?;
    // Sets of numbers can be written in several ways.
    let read = ColdSegment::decode(segment, &again).map_err(|e| e.to_string())?;
    holds(read.live_rows() == live && read.encode() == again, "a value that does not come back")
}

/// An example's segment for other modules: its header and trailer, by themselves.
pub(super) fn ends(segment: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let header = segment.first_chunk::<{ segment::HEADER_BYTES }>().map(|b| b.to_vec());
    let trailer = segment.last_chunk::<TRAILER_BYTES>().map(|b| b.to_vec());
    (header.unwrap_or_default(), trailer.unwrap_or_default())
}
