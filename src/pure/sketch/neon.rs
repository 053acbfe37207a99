//! The kernel on sketches with NEON: look-ups of four bits by `tbl`, 16 rows a register, the four
//! quarters of a block one after the other.
//!
//! 1. Each byte of signs has two tables, one for each of its halves. The twelve of a window stay in
//!    registers for all 64 rows.
//! 2. Twelve look-ups (a window) are summed in bytes, which cannot wrap.
//! 3. Bytes are added to words of 16 bits by widening additions (`uaddw`), in the order of the rows;
//!    after a stretch of 256 windows these go to sums of 32 bits.
//!
//! Look-ups of six bits (`tbl` over four registers) would be four instead of six for each three bytes of
//! signs, but each of them takes most processors more than one and a half times as long, and the tables
//! of a window would fill all 32 registers.
//!
//! Never: reads beyond a block, or uses more than the first version of the architecture has.
#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::array::from_fn;

use super::BLOCK_ROWS;
use super::scorer::{
    HALF_ENTRIES, Plane, SketchQuery, Sums, WINDOW_BYTES, WINDOWS_MAX, Window, filled_up,
};

/// Bytes of the tables of a window.
const WINDOW_TABLES: usize = 2 * WINDOW_BYTES * HALF_ENTRIES;
/// Rows of a register of bytes.
const STEP: usize = 16;
const QUARTERS: usize = BLOCK_ROWS / STEP;

/// Sums of 16 bits of a quarter of a block: its first eight rows, its last eight.
type Words = [uint16x8_t; 2];

#[target_feature(enable = "neon")]
pub(super) fn score_blocks(query: &SketchQuery, blocks: &[u8], scores: &mut [f32]) {
    query.each_block(blocks, scores, |(windows, rest)| sums(query, windows, rest));
}

#[inline]
#[target_feature(enable = "neon")]
fn sums(query: &SketchQuery, windows: &[Window], rest: &[Plane]) -> Sums {
    let (tables, last_tables) = query.tables.as_chunks::<WINDOW_TABLES>().0.split_at(windows.len());
    let zero = [[vdupq_n_u16(0); 2]; QUARTERS];
    let mut sums = [0; BLOCK_ROWS];
    for (windows, tables) in windows.chunks(WINDOWS_MAX).zip(tables.chunks(WINDOWS_MAX)) {
        let mut words = zero;
        for (window, tables) in windows.iter().zip(tables) {
            words = add_window(words, window, tables);
        }
        add_words(words, &mut sums);
    }
    if let [tables] = last_tables {
        add_words(add_window(zero, &filled_up(rest), tables), &mut sums);
    }
    sums
}

/// Adds a window to sums of 16 bits.
#[inline]
#[target_feature(enable = "neon")]
fn add_window(
    words: [Words; QUARTERS],
    window: &Window,
    tables: &[u8; WINDOW_TABLES],
) -> [Words; QUARTERS] {
    let low_half = vdupq_n_u8(15);
    let tables = tables.as_chunks::<HALF_ENTRIES>().0.as_chunks::<2>().0;
    from_fn(|quarter| {
        let mut bytes = vdupq_n_u8(0);
        for (plane, [low, high]) in window.iter().zip(tables) {
            let signs = load(&plane.as_chunks().0[quarter]);
            let first = vqtbl1q_u8(load(low), vandq_u8(signs, low_half));
            let second = vqtbl1q_u8(load(high), vshrq_n_u8::<4>(signs));
            bytes = vaddq_u8(bytes, vaddq_u8(first, second));
        }
        let [first, second] = words[quarter];
        [vaddw_u8(first, vget_low_u8(bytes)), vaddw_high_u8(second, bytes)]
    })
}

/// Adds sums of 16 bits to those of their rows.
#[inline]
#[target_feature(enable = "neon")]
fn add_words(words: [Words; QUARTERS], sums: &mut Sums) {
    let rows = sums.as_chunks_mut::<8>().0;
    for (words, sums) in words.as_flattened().iter().zip(rows) {
        let mut eight = [0_u16; 8];
        // SAFETY: the array has room for the eight words written; an alignment of theirs is enough.
        unsafe { vst1q_u16(eight.as_mut_ptr(), *words) };
        sums.iter_mut().zip(eight).for_each(|(sum, word)| *sum += i32::from(word));
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8; STEP]) -> uint8x16_t {
    // SAFETY: the reference covers the 16 bytes read; bytes need no alignment.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}
