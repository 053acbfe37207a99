//! Opening an archive segment: the base store without its index, with a segment changed by the input,
//! from the footer on and in the tables before it, and its checksums made right again.
//!
//! The first byte: bit 0 seals, bit 1 chooses the segment, bit 2 keeps the index, bit 3 lets changes hit
//! all of the segment instead of its end.

use crate::edits::{self, Input};
use crate::{base, seal};

/// Opens the store.
pub fn body(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.u8();
    let mut files = base::files().clone();
    let archive = files.iter_mut().filter(|(name, _)| name.starts_with("archive/"));
    if let Some((_, segment)) = archive.take(1 + usize::from(flags >> 1 & 1)).last() {
        let start = seal::footer(segment).map_or(0, |footer| footer.start);
        let window = if flags & 8 == 0 { start..segment.len() } else { 0..segment.len() };
        edits::apply(segment, window, &mut input);
        if flags & 1 != 0 {
            seal::segment(segment);
        }
    }
    files.retain(|(name, _)| flags & 4 != 0 || name != "index.redb");
    base::ask_everything(&base::disk(&files));
}

/// No change, and a change of each kind to either segment.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![1], vec![3], vec![5]];
    for kind in 0..8_u8 {
        for flags in [1, 3, 9, 13] {
            seeds.push(vec![flags, kind, 60 + kind * 7, 0, 1, 0, 2, 9, 9, 9, 9]);
        }
    }
    seeds
}
