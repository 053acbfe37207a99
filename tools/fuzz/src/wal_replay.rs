//! The log's replay: the whole base store, with its last log segment changed by the input.
//!
//! The first byte: bit 0 makes checksums right after the changes, bit 1 takes the index away, so that the
//! replay runs over a rebuild. The rest are changes, at places of the part of the log that holds frames.

use crate::edits::{self, Input};
use crate::{base, seal};

/// Opens the store.
pub fn body(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.u8();
    let mut files = base::files().clone();
    if let Some((_, log)) = files.iter_mut().rfind(|(name, _)| name.starts_with("wal/")) {
        let used = log.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        edits::apply(log, 0..used + 64, &mut input);
        if flags & 1 != 0 {
            let _ = seal::log(log);
        }
    }
    files.retain(|(name, _)| flags & 2 == 0 || name != "index.redb");
    base::ask_everything(&base::disk(&files));
}

/// No change, and a change of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![1], vec![3]];
    for kind in 0..8_u8 {
        seeds.push(vec![1, kind, 70, 0, 1, 0, 2, 9, 9, 9, 9, 9]);
        seeds.push(vec![3, kind, 100, 1, 1, 0, 2, kind, 200, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
    seeds
}
