//! A whole store from bytes: any of its files is changed, cut, removed, swapped, or new.
//!
//! The first byte: bit 0 makes checksums right afterwards, those of the index's pages included. Then, to the
//! end of the input, steps: what to do, to which file, how many bytes of the input say more, and those.

use crate::edits::{self, Input};
use crate::{base, pages, seal};

const STEPS_MAX: usize = 12;
/// Names that may appear: files of the store that the base has not, temporary ones, and foreign ones.
const NAMES: [&str; 12] = [
    "wal/0000000001.wal",
    "wal/9999999999.wal",
    "wal/0000000003.torn",
    "archive/0000000009.seg",
    "archive/9999999999.seg",
    "archive/0000000001.seg.tmp",
    "arena/0000000007.blk",
    "columns/0000000008.col",
    "columns/hot",
    "columns/moves",
    "store.toml",
    "notes.txt",
];

/// Opens the store.
pub fn body(data: &[u8]) {
    let mut input = Input::new(data);
    let sealed = input.u8() & 1 != 0;
    let mut files = base::files().clone();
    for _ in 0..STEPS_MAX {
        if input.is_empty() || files.is_empty() {
            break;
        }
        step(&mut files, &mut input, sealed);
    }
    base::ask_everything(&base::disk(&files));
}

fn step(files: &mut base::FileSet, input: &mut Input<'_>, sealed: bool) {
    let kind = input.u8();
    let at = usize::from(input.u8()) % files.len();
    let len = usize::from(input.u8());
    let mut more = Input::new(input.bytes(len));
    match kind % 6 {
        0 => drop(files.remove(at)),
        1 => {
            let name = NAMES.get(usize::from(more.u8()) % NAMES.len()).copied().unwrap_or("x");
            files.retain(|(other, _)| other != name);
            files.push((name.to_owned(), more.rest().to_vec()));
        }
        2 => {
            // Two files of a kind change places, or one stands where another belongs.
            let other = more.below(files.len());
            let bytes = files.get(other).map(|(_, bytes)| bytes.clone()).unwrap_or_default();
            if let Some(file) = files.get_mut(at) {
                file.1 = bytes;
            }
        }
        _ => {
            let Some((name, bytes)) = files.get_mut(at) else { return };
            match name.split('/').next().unwrap_or_default() {
                "index.redb" if sealed => {
                    if let Some(changed) = pages::edited(bytes, &mut more) {
                        *bytes = changed;
                    }
                }
                folder => {
                    edits::apply(bytes, 0..0, &mut more);
                    match folder {
                        "wal" if sealed => drop(seal::log(bytes)),
                        "archive" if sealed => seal::segment(bytes),
                        _ => {}
                    }
                }
            }
        }
    }
}

/// Every file changed, removed, and taken for its neighbour.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0]];
    for file in 0..base::files().len() as u8 {
        seeds.push(vec![0, 0, file, 0]);
        seeds.push(vec![0, 2, file, 2, file + 1, 0]);
        for kind in 0..8_u8 {
            seeds.push(vec![kind % 2, 3, file, 8, kind, 40 + kind * 8, file, 1, 2, 3, 4, 5]);
        }
    }
    seeds.extend((0..12).map(|name| vec![0, 1, 0, 4, name, b'a', b'b', b'c']));
    seeds
}
