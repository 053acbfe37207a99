//! Reading rows and frames of an archive segment: the base store, with the sections of a segment changed by
//! the input and every checksum made right again, so that rows, tables, zstd frames, codes and operations
//! say what the input wants them to.
//!
//! The first byte: bit 0 chooses the segment, bit 1 replaces the first payload frame by one that is packed
//! here and unpacks to more than its table says.

use crate::edits::{self, Input};
use crate::{base, seal};

/// Opens the store and reads every row.
pub fn body(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.u8();
    let mut files = base::files().clone();
    let archive = files.iter_mut().filter(|(name, _)| name.starts_with("archive/"));
    if let Some((_, segment)) = archive.take(1 + usize::from(flags & 1)).last() {
        let end = seal::footer(segment).map_or(segment.len(), |footer| footer.start);
        if flags & 2 != 0
            && let Some(frame) = seal::first_payload_frame(segment)
            && let Ok(bomb) = zstd::bulk::compress(&vec![0; usize::from(input.u8()) << 16], 1)
        {
            let room = frame.len();
            edits::put(segment, frame.start, bomb.get(..room).unwrap_or(&bomb));
        }
        // Places are spread over 64 KiB at most; the sections of the base are smaller.
        edits::apply(segment, 64..end, &mut input);
        seal::segment(segment);
    }
    files.retain(|(name, _)| name != "index.redb");
    base::ask_everything(&base::disk(&files));
}

/// No change, changes of each kind, and frames that unpack to 1 and 15 MiB.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0], vec![1], vec![2, 16], vec![2, 240], vec![3, 16]];
    for kind in 0..7_u8 {
        for at in [0_u8, 1, 2, 3, 4, 5, 6, 7, 8] {
            seeds.push(vec![at % 2, kind, kind * 29, at, 1, 0, 2, 9, 9, 9, 9]);
        }
    }
    seeds
}
