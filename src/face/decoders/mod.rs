//! The decoders by themselves, for fuzzing (feature `sim`): bytes in, an [`Answer`] out, no store around.
//!
//! A whole store opens some hundred times a second, a decoder answers up to millions of times. Each
//! function here takes what its decoder would be given from a file. What else the decoder needs is fixed
//! ([`STORE`], segment number 1), or stands in the first bytes.
//!
//! 1. The bytes are decoded; refused is one good answer.
//! 2. What was read is used the way the store uses it: rows lead to bodies, filters are asked.
//! 3. Where an encoder exists, it writes again what was read: the same bytes where a format has one
//!    writing for each value, else bytes that mean the same.
//!
//! `examples` has valid inputs for each. Never: part of the interface of the crate, or of a store at work.

use crate::bytes::codec::log::{COMMIT_BYTES, Commit, FRAME_BYTES, Frame, Kind, SegmentHeader};
use crate::bytes::codec::op::{decode_op, encode_op, encoded_len};
use crate::io::{Disk, MemoryDisk, OpenMode};
use crate::organs::wal;
use crate::words::id::Lsn;
use crate::words::record::{Op, Payload, PayloadPlace, Record};

mod archive;
mod derived;
mod examples;
mod texts;

pub use archive::*;
pub use derived::*;
pub use examples::examples;
pub use texts::*;

/// The store that all bytes belong to.
pub const STORE: [u8; 16] = *b"0123456789abcdef";

/// Whether the bytes were read; an error says which rule was broken, and is a bug.
pub type Answer = Result<bool, String>;

/// A decoder and what it is called.
pub type Decoder = (&'static str, fn(&[u8]) -> Answer);

/// All decoders.
pub const ALL: &[Decoder] = &[
    ("log_header", log_header),
    ("log_frame", log_frame),
    ("log_scan", log_scan),
    ("op", op),
    ("archive_header", archive_header),
    ("archive_trailer", archive_trailer),
    ("archive_footer", archive_footer),
    ("archive_row", archive_row),
    ("archive_body", archive_body),
    ("archive_frame_entry", archive_frame_entry),
    ("archive_segment", archive_segment),
    ("segment_value", segment_value),
    ("arena_block", arena_block),
    ("arena_cells", arena_cells),
    ("codes", codes),
    ("sketches", sketches),
    ("columns_file", columns_file),
    ("columns_hot", columns_hot),
    ("columns_moves", columns_moves),
    ("index_value", index_value),
    ("index_key", index_key),
    ("store_file", store_file),
    ("rule", rule),
    ("filter", filter),
    ("time", time),
    ("promise", promise),
];

fn same(bytes: &[u8], again: &[u8]) -> Answer {
    if bytes == again {
        return Ok(true);
    }
    Err(format!("was read, and is written again as {}", again.escape_ascii()))
}

fn holds(rule: bool, what: &str) -> Answer {
    if rule { Ok(true) } else { Err(what.to_owned()) }
}

/// A disk with these files in these folders.
fn disk(folders: &[&str], files: &[(&str, &[u8])]) -> std::io::Result<MemoryDisk> {
    let disk = MemoryDisk::new();
    for folder in folders {
        disk.create_dir(folder)?;
    }
    for (name, bytes) in files {
        disk.open(name, OpenMode::CreateNew)?.write_at(bytes, 0)?;
    }
    Ok(disk)
}

fn head() -> SegmentHeader {
    let salt = 0x0101_0202_0303_0404;
    SegmentHeader {
        store_id: STORE,
        number: 1,
        first_lsn: Lsn(1),
        first_batch: 1,
        salt,
        recycled: false,
    }
}

/// The header of a log segment.
pub fn log_header(bytes: &[u8]) -> Answer {
    let Ok(header) = SegmentHeader::decode(bytes) else { return Ok(false) };
    let mut again = Vec::new();
    header.encode(&mut again);
    same(bytes.get(..again.len()).unwrap_or_default(), &again)
}

/// A frame of the log at offset 64, with its payload behind it.
pub fn log_frame(bytes: &[u8]) -> Answer {
    let (seed, at) = (head().seed(), 64);
    let Some(frame) = Frame::decode(seed, at, bytes) else { return Ok(false) };
    same(bytes.get(..FRAME_BYTES).unwrap_or_default(), &frame.encode(seed, at))?;
    let payload = bytes.get(FRAME_BYTES..).unwrap_or_default();
    if !frame.has_payload(seed, at, payload) {
        return Ok(false);
    }
    holds(frame.synced_through() <= frame.batch, "synced further than its batch")?;
    if frame.kind == Kind::Commit
        && let Ok(commit) = Commit::decode(payload)
    {
        let mut again = Vec::new();
        commit.encode(&mut again);
        same(payload.get(..COMMIT_BYTES).unwrap_or_default(), &again)?;
    }
    Ok(true)
}

/// A whole log segment behind one byte: its low four bits are the applied LSN, the high four, if any, the
/// first LSN of a later segment.
pub fn log_scan(bytes: &[u8]) -> Answer {
    let Some((choice, log)) = bytes.split_first() else { return Ok(false) };
    let later = u64::from(choice >> 4);
    let mut second = Vec::new();
    SegmentHeader { number: 2, first_lsn: Lsn(later), ..head() }.encode(&mut second);
    let mut files = vec![("wal/0000000001.wal", log)];
    if later > 0 {
        files.push(("wal/0000000002.wal", &second));
    }
    let disk = disk(&["wal"], &files).map_err(|e| e.to_string())?;
    let applied = Lsn(u64::from(choice & 15));
    let (mut last, mut ops, mut in_order) = (applied, 0, true);
    let scan = wal::replay(&disk, STORE, applied, &mut |op| {
        in_order &= op.lsn() > last;
        (last, ops) = (op.lsn(), ops + 1);
        Ok(())
    });
    drop(wal::look::look(&disk, applied));
    holds(in_order, "operations out of order")?;
    let Ok(scan) = scan else { return Ok(false) };
    holds(scan.ops == ops && scan.last_lsn >= last, "a scan that counts otherwise")
}

/// One operation.
pub fn op(bytes: &[u8]) -> Answer {
    let inside = decode_op(Lsn(7), bytes, None);
    let placed = decode_op(Lsn(7), bytes, Some((3, 96)));
    match (&inside, &placed) {
        (Ok(inside), Ok(placed)) => holds(agree(inside, placed), "a place changes the operation")?,
        (inside, placed) => holds(inside.is_err() && placed.is_err(), "a place changes who reads")?,
    };
    let Ok(op) = inside else { return Ok(false) };
    let payload = match &op {
        Op::Put(Record { payload: Payload::Inline(payload), .. }) => payload.to_vec(),
        _ => Vec::new(),
    };
    let mut again = Vec::new();
    encode_op(&op, &payload, &mut again);
    holds(encoded_len(&op, &payload) == again.len(), "a length that is not the one written")?;
    same(bytes, &again)
}

/// Whether two readings differ in where the payload is, and in nothing else.
fn agree(inside: &Op, placed: &Op) -> bool {
    let (Op::Put(inside), Op::Put(placed)) = (inside, placed) else { return inside == placed };
    match (&inside.payload, &placed.payload) {
        (Payload::Inline(bytes), Payload::InLog(place)) => {
            let PayloadPlace { segment: 3, len, crc, .. } = *place else { return false };
            len as usize == bytes.len()
                && crc == crc32fast::hash(bytes)
                && Record { payload: inside.payload.clone(), ..placed.clone() } == *inside
        }
        _ => inside == placed,
    }
}
