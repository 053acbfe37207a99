//! Asking ahead: all that some entries are read from, told to the system before the first of them is read.
//!
//! An entry is read step by step, since each says where the next stands: its row, the places of two frames, and
//! the frames with its body and payload. On a disk that has to be waited for, ten entries one after the other are fifty
//! waits. So each step is asked for all entries before it is taken: five waits at most.
//!
//! Never: has an error. What is wrong, the read says.

use crate::bytes::codec::body::TABLE_ENTRY_BYTES;
use crate::bytes::codec::row::ROW_BYTES;
use crate::bytes::codec::segment::SectionKind;

use super::segment::Segment;

/// Asks for what entries are read from, each given by its segment, its group and its row there. Large payloads are not
/// asked for.
pub fn ask_for(entries: &[(&Segment, u16, u32)], payloads: bool, vectors: bool) {
    for (segment, group, row) in entries {
        if let Ok(offset) = segment.row_offset(*group, *row, 1) {
            segment.file.will_read(offset, ROW_BYTES);
        }
        if vectors && let Ok((offset, len)) = segment.vector_place(*group, *row) {
            segment.file.will_read(offset, len);
        }
    }
    let mut frames = Vec::new();
    for (segment, group, number) in entries {
        let Ok(row) = segment.row(*group, *number) else { continue };
        frames.push((*segment, *group, SectionKind::Bodies, row.body.frame));
        if let Some(span) = row.payload.filter(|_| payloads && !row.pieces) {
            frames.push((*segment, *group, SectionKind::Payloads, span.frame));
        }
    }
    for (segment, group, kind, frame) in &frames {
        if let Ok(at) = segment.frame_entry_at(*group, *kind, *frame) {
            segment.file.will_read(at, TABLE_ENTRY_BYTES);
        }
    }
    for (segment, group, kind, frame) in frames {
        if let Ok(entry) = segment.frame_entry(group, kind, frame) {
            segment.file.will_read(entry.offset, entry.len as usize);
        }
    }
}
