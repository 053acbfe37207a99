//! The kernel on sketches with AVX2: look-ups of four bits by `vpshufb`, 32 rows a register, the two
//! halves of a block side by side.
//!
//! Twelve look-ups (a window) are summed in bytes, windows in 16 bits, stretches of 256 windows in
//! 32 bits.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::BLOCK_ROWS;
use super::scorer::{
    HALF_ENTRIES, Plane, SketchQuery, Sums, WINDOW_BYTES, WINDOWS_MAX, Window, filled_up,
};

/// Bytes of the tables of a window.
const WINDOW_TABLES: usize = 2 * WINDOW_BYTES * HALF_ENTRIES;

#[target_feature(enable = "avx2")]
pub(super) fn score_blocks(query: &SketchQuery, blocks: &[u8], scores: &mut [f32]) {
    query.each_block(blocks, scores, |(windows, rest)| sums(query, windows, rest));
}

#[inline]
#[target_feature(enable = "avx2")]
fn sums(query: &SketchQuery, windows: &[Window], rest: &[Plane]) -> Sums {
    let (tables, last_tables) = query.tables.as_chunks::<WINDOW_TABLES>().0.split_at(windows.len());
    let zero = _mm256_setzero_si256();
    let mut sums = [0; BLOCK_ROWS];
    for (windows, tables) in windows.chunks(WINDOWS_MAX).zip(tables.chunks(WINDOWS_MAX)) {
        let mut words = [zero; 4];
        for (window, tables) in windows.iter().zip(tables) {
            words = add_window(words, window, tables);
        }
        add_words(words, &mut sums);
    }
    if let [tables] = last_tables {
        add_words(add_window([zero; 4], &filled_up(rest), tables), &mut sums);
    }
    sums
}

/// Adds a window to sums of 16 bits: of rows at even and at odd places, of the first and of the
/// second half of a block.
#[inline]
#[target_feature(enable = "avx2")]
fn add_window(words: [__m256i; 4], window: &Window, tables: &[u8; WINDOW_TABLES]) -> [__m256i; 4] {
    let low_half = _mm256_set1_epi8(15);
    let low_byte = _mm256_set1_epi16(255);
    let (mut bytes, mut second_bytes) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    for (plane, tables) in window.iter().zip(tables.as_chunks().0) {
        let (low, high) = load_tables(tables);
        let look_up = |signs| {
            let first = _mm256_and_si256(signs, low_half);
            let second = _mm256_and_si256(_mm256_srli_epi16::<4>(signs), low_half);
            _mm256_add_epi8(_mm256_shuffle_epi8(low, first), _mm256_shuffle_epi8(high, second))
        };
        bytes = _mm256_add_epi8(bytes, look_up(load::<0>(plane)));
        second_bytes = _mm256_add_epi8(second_bytes, look_up(load::<1>(plane)));
    }
    [
        _mm256_add_epi16(words[0], _mm256_and_si256(bytes, low_byte)),
        _mm256_add_epi16(words[1], _mm256_srli_epi16::<8>(bytes)),
        _mm256_add_epi16(words[2], _mm256_and_si256(second_bytes, low_byte)),
        _mm256_add_epi16(words[3], _mm256_srli_epi16::<8>(second_bytes)),
    ]
}

/// Adds sums of 16 bits to those of their rows.
#[inline]
#[target_feature(enable = "avx2")]
fn add_words(words: [__m256i; 4], sums: &mut Sums) {
    let (first, second) = sums.split_at_mut(BLOCK_ROWS / 2);
    add_half(words[0], words[1], first);
    add_half(words[2], words[3], second);
}

/// The same for half a block, from its even and its odd rows.
#[inline]
#[target_feature(enable = "avx2")]
fn add_half(even: __m256i, odd: __m256i, sums: &mut [i32]) {
    // Of each half of a register, rows 0 to 7 and rows 8 to 15.
    let low = _mm256_unpacklo_epi16(even, odd);
    let high = _mm256_unpackhi_epi16(even, odd);
    let (sums, second_sums) = sums.split_at_mut(BLOCK_ROWS / 4);
    add_rows(_mm256_permute2x128_si256::<0x20>(low, high), sums);
    add_rows(_mm256_permute2x128_si256::<0x31>(low, high), second_sums);
}

/// Adds 16 words to as many sums, in order.
#[inline]
#[target_feature(enable = "avx2")]
fn add_rows(rows: __m256i, sums: &mut [i32]) {
    let mut words = [0_u16; 16];
    // SAFETY: the array has room for the 32 bytes written; the store needs no alignment.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), rows) };
    sums.iter_mut().zip(words).for_each(|(sum, word)| *sum += i32::from(word));
}

#[inline]
#[target_feature(enable = "avx2")]
fn load<const HALF: usize>(plane: &[u8; BLOCK_ROWS]) -> __m256i {
    const { assert!(32 * HALF + 32 <= BLOCK_ROWS) };
    // SAFETY: the array covers the 32 bytes read, as asserted; the load needs no alignment.
    unsafe { _mm256_loadu_si256(plane.as_ptr().add(32 * HALF).cast()) }
}

/// Both tables of a byte of signs, each in both halves of its register.
#[inline]
#[target_feature(enable = "avx2")]
fn load_tables(tables: &[u8; 2 * HALF_ENTRIES]) -> (__m256i, __m256i) {
    // SAFETY: the array covers the 32 bytes read; the load needs no alignment.
    let both = unsafe { _mm256_loadu_si256(tables.as_ptr().cast()) };
    (_mm256_permute2x128_si256::<0x00>(both, both), _mm256_permute2x128_si256::<0x11>(both, both))
}
