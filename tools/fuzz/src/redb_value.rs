//! Values of the index: rows that the input writes into its tables with redb itself, checksums right.
//!
//! The first byte, bit 0: leave the values without the right checksum. Then rows: table, length and bytes of
//! the key, length and bytes of the value, to the end of the input.

use crate::edits::Input;
use crate::{base, pages};

const ROWS_MAX: usize = 16;

/// Opens the store.
pub fn body(data: &[u8]) {
    let mut input = Input::new(data);
    let plain = input.u8() & 1 != 0;
    let mut rows = Vec::new();
    while !input.is_empty() && rows.len() < ROWS_MAX {
        let table = input.u8() % 9 + 1;
        let key = usize::from(input.u8() % 64);
        let key = input.bytes(key).to_vec();
        let value = usize::from(input.u8());
        rows.push((table, key, input.bytes(value).to_vec()));
    }
    let mut files = base::files().clone();
    if let Some((_, index)) = files.iter_mut().find(|(name, _)| name == "index.redb")
        && let Some(changed) = pages::with_rows(index, &rows, !plain)
    {
        *index = changed;
    }
    base::ask_everything(&base::disk(&files));
}

/// A row of each table: what stands there in the base, and something else.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Vec::new()];
    let id = 3_u64.to_le_bytes().to_vec();
    let located =
        [vec![1, 0, 0, 0], vec![9; 8], vec![1], vec![1], vec![0; 7], vec![0; 2], vec![2, 0, 0, 0]];
    let rows: [(u8, Vec<u8>, Vec<u8>); 9] = [
        (0, vec![0, 0, 0, 1, 0, b'n', b'3'], 4_u64.to_le_bytes().to_vec()),
        (1, id.clone(), located.concat()),
        (2, vec![1], [vec![0; 12], vec![1, 0, 0, 0, 4, 0, 0, 0], vec![0; 4]].concat()),
        (3, vec![1], [vec![0; 8], vec![3, 1, 3, 0], vec![1; 24]].concat()),
        (
            4,
            b"rho".to_vec(),
            [vec![0; 8], vec![5, 1, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0], b"rho1".to_vec()].concat(),
        ),
        (5, id.clone(), id.clone()),
        (6, id.clone(), id.clone()),
        (7, b"applied_lsn".to_vec(), vec![255; 8]),
        (8, vec![0, 0, 0, 1, 0, b'n', b'4'], 4_u64.to_le_bytes().to_vec()),
    ];
    for (table, key, value) in rows {
        for flags in [0, 1] {
            let lens = (key.len() as u8, value.len() as u8);
            let parts = [&[flags, table, lens.0][..], &key, &[lens.1], &value];
            seeds.push(parts.concat());
        }
    }
    seeds
}
