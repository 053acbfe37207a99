//! The log's scan: a store of nothing but `store.toml` and one log segment, whose frames are the input.
//!
//! The first byte of the input says what is made of the rest, which stands behind a valid header:
//! bit 0 makes the checksums of its frames right, bit 1 adds zeros behind it, bit 2 a later segment.

use crate::{base, seal};

const HEADER: usize = 64;

/// Opens the store.
pub fn body(data: &[u8]) {
    let Some((flags, frames)) = data.split_first() else { return };
    let log = base::named(base::files(), "wal/").next();
    // The first segment of a store, so that nothing has to be archived before it.
    let mut bytes = log
        .map(|(_, log)| log.as_slice())
        .unwrap_or_default()
        .get(..HEADER)
        .unwrap_or_default()
        .to_vec();
    crate::edits::put(&mut bytes, 28, &1_u64.to_le_bytes());
    crate::edits::put(&mut bytes, 36, &1_u64.to_le_bytes());
    crate::edits::put(&mut bytes, 44, &1_u64.to_le_bytes());
    let header = bytes.clone();
    bytes.extend_from_slice(frames);
    if flags & 2 != 0 {
        bytes.resize(bytes.len().next_multiple_of(4096), 0);
    }
    // Without the flag the header alone is right.
    let sealed = if flags & 1 != 0 { bytes.len() } else { HEADER };
    if let Some(part) = bytes.get_mut(..sealed) {
        let _ = seal::log(part);
    }
    let mut files: base::FileSet = base::named(base::files(), "store.toml").cloned().collect();
    files.push(("wal/0000000001.wal".to_owned(), bytes));
    if flags & 4 != 0 {
        let mut later = header;
        crate::edits::put(&mut later, 28, &2_u64.to_le_bytes());
        let _ = seal::log(&mut later);
        files.push(("wal/0000000002.wal".to_owned(), later));
    }
    base::ask_everything(&base::disk(&files));
}

/// A log from its first LSN on, written by a fresh store; and one frame made by hand.
pub fn seeds() -> Vec<Vec<u8>> {
    let frames = base::first_frames();
    let sealed = [&[1], frames.as_slice()].concat();
    let two = [&[7], frames.as_slice()].concat();
    let commit = [vec![1, 16, 0, 0, 0, 2, 1, 0, 0], vec![0; 8], vec![1], vec![0; 47]].concat();
    vec![sealed, two, commit]
}
