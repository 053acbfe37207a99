//! The specification of the kernels on sketches: for each row, the sum of the query's rounded values
//! whose bits are set, started at minus the sum of the negative ones.
//!
//! It goes value by value over 64 rows at once, without tables: the compiler turns the inner loop
//! into packed bytes (a test of a bit, a mask, an addition) on any machine.

use super::BLOCK_ROWS;
use super::scorer::{Plane, SketchQuery, Sums, WINDOW};

pub(super) fn score_blocks(query: &SketchQuery, blocks: &[u8], scores: &mut [f32]) {
    query.each_block(blocks, scores, |(windows, rest)| {
        let mut sums = [0; BLOCK_ROWS];
        let mut values = query.rounded.chunks(WINDOW);
        for (window, values) in windows.iter().zip(&mut values) {
            add_window(window, values, &mut sums);
        }
        values.for_each(|values| add_window(rest, values, &mut sums));
        sums
    });
}

fn add_window(planes: &[Plane], values: &[i16], sums: &mut Sums) {
    let negative: i16 = values.iter().map(|t| t.min(&0)).sum();
    let mut bytes = [negative.unsigned_abs() as u8; BLOCK_ROWS];
    for (plane, values) in planes.iter().zip(values.chunks(8)) {
        for (bit, value) in values.iter().enumerate() {
            for (sum, signs) in bytes.iter_mut().zip(plane) {
                let mask = 0_u8.wrapping_sub(signs >> bit & 1);
                *sum = sum.wrapping_add(*value as u8 & mask);
            }
        }
    }
    sums.iter_mut().zip(bytes).for_each(|(sum, byte)| *sum += i32::from(byte));
}
