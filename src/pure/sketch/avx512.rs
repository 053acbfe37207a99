//! The kernel on sketches with AVX-512: look-ups of six bits by `vpermb`, 64 rows a register, two
//! blocks side by side, which share the loads of the tables, and the last of an odd number by itself.
//!
//! Three bytes of signs are four indices: the low six bits of each, and the three pairs of high bits
//! put together. `vpermb` looks at the low six bits of an index only, so nothing need be masked away.
//! Eight look-ups (a window) are summed in bytes, windows in 16 bits, stretches of 256 windows in
//! 32 bits.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::BLOCK_ROWS;
use super::scorer::{
    Plane, SketchQuery, Sums, WINDOW_BYTES, WINDOWS_MAX, Window, fill_table, filled_up,
};

/// Entries of a table.
const ENTRIES: usize = 64;
/// Tables for three bytes of signs.
const TABLES: usize = 4;
/// Bytes of the tables of a window, which is twice three bytes.
const WINDOW_TABLES: usize = 2 * TABLES * ENTRIES;

/// Four tables for each three bytes of signs: one for the low six bits of each, one for all high bits.
pub(super) fn tables(rounded: &[i16]) -> Box<[u8]> {
    let mut tables = vec![[[0; ENTRIES]; TABLES]; rounded.len() / 24];
    for (values, four) in rounded.as_chunks::<24>().0.iter().zip(&mut tables) {
        let [a, b, c, d, e, f, ag, ah, g, h, i, j, k, l, gg, gh, m, n, o, p, q, r, mg, mh] =
            *values;
        let [first, second, third, pairs] = four;
        fill_table([a, b, c, d, e, f], first);
        fill_table([g, h, i, j, k, l], second);
        fill_table([m, n, o, p, q, r], third);
        fill_table([ag, ah, gg, gh, mg, mh], pairs);
    }
    tables.into_flattened().into_flattened().into()
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
pub(super) fn score_blocks(query: &SketchQuery, blocks: &[u8], next: &[u8], scores: &mut [f32]) {
    let block_bytes = query.layout().block_bytes();
    // A cell is a few blocks, too short a way for memory: while it is scored, the same places of the next one are
    // asked for. Where nothing comes next, its own blocks are.
    let mut ahead =
        if next.is_empty() { blocks.get(2 * block_bytes..).unwrap_or_default() } else { next };
    let mut blocks = blocks.chunks_exact(block_bytes);
    let mut scores = scores.chunks_mut(BLOCK_ROWS);
    while let (Some(first), Some(first_scores)) = (blocks.next(), scores.next()) {
        let (Some(second), Some(second_scores)) = (blocks.next(), scores.next()) else {
            let [sums] = sums(query, [query.windows(first)], ahead);
            return query.finish(first, &sums, first_scores);
        };
        let sums = sums(query, [query.windows(first), query.windows(second)], ahead);
        ahead = ahead.get(2 * block_bytes..).unwrap_or_default();
        query.finish(first, &sums[0], first_scores);
        query.finish(second, &sums[1], second_scores);
    }
}

type Half<'a> = (&'a [Window], &'a [Plane]);
/// Sums of 16 bits: of rows at even and at odd places.
type Words = [__m512i; 2];

/// The sums of blocks that share the loads of the tables.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
fn sums<const N: usize>(query: &SketchQuery, blocks: [Half<'_>; N], ahead: &[u8]) -> [Sums; N] {
    let windows = query.layout().sign_bytes() / WINDOW_BYTES;
    let (tables, last_tables) = query.tables.as_chunks::<WINDOW_TABLES>().0.split_at(windows);
    let none = [_mm512_setzero_si512(); 2];
    let mut sums = [[0; BLOCK_ROWS]; N];
    let mut ahead = ahead.as_chunks::<{ 2 * WINDOW_BYTES * BLOCK_ROWS }>().0.iter();
    for (stretch, tables) in tables.chunks(WINDOWS_MAX).enumerate() {
        let mut words = [none; N];
        for (tables, at) in tables.iter().zip(stretch * WINDOWS_MAX..) {
            if let Some(windows) = ahead.next() {
                fetch(windows);
            }
            let tables = load_tables(tables);
            for (words, (windows, _)) in words.iter_mut().zip(&blocks) {
                if let Some(window) = windows.get(at) {
                    *words = add_window(*words, window, tables);
                }
            }
        }
        words.iter().zip(&mut sums).for_each(|(words, sums)| add_words(*words, sums));
    }
    if let [tables] = last_tables {
        let tables = load_tables(tables);
        for ((_, planes), sums) in blocks.iter().zip(&mut sums) {
            add_words(add_window(none, &filled_up(planes), tables), sums);
        }
    }
    sums
}

/// Adds a window to the words of its block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
fn add_window(words: Words, window: &Window, tables: [[__m512i; TABLES]; 2]) -> Words {
    let low_byte = _mm512_set1_epi16(255);
    let [a, b, c, d, e, f] = window;
    let bytes = _mm512_add_epi8(look_up([a, b, c], tables[0]), look_up([d, e, f], tables[1]));
    [
        _mm512_add_epi16(words[0], _mm512_and_si512(bytes, low_byte)),
        _mm512_add_epi16(words[1], _mm512_srli_epi16::<8>(bytes)),
    ]
}

/// Asks for as many bytes as two windows have, in their order, but for the last few lines of what comes next.
/// The processor's own prefetching ends with each page of 4 KiB, and begins anew with each cell.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
#[allow(unused_unsafe)] // Prefetching is unsafe for the oldest compiler supported, safe for newer ones.
fn fetch(windows: &[u8; 2 * WINDOW_BYTES * BLOCK_ROWS]) {
    for line in windows.chunks(64) {
        // SAFETY: a prefetch reads nothing the program can see and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
}

/// Sum of the four look-ups of three bytes of signs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
fn look_up(signs: [&Plane; 3], tables: [__m512i; TABLES]) -> __m512i {
    /// A where the mask is set, B elsewhere.
    const CHOOSE: i32 = 0xCA;
    let (a, b, c) = (load(signs[0]), load(signs[1]), load(signs[2]));
    // Bits 0 and 1 from the first byte, 2 and 3 from the second, 4 and 5 from the third; the
    // rest is of no account.
    let two = _mm512_set1_epi8(0x03);
    let four = _mm512_set1_epi8(0x0F);
    let pairs = _mm512_ternarylogic_epi32::<CHOOSE>(
        two,
        _mm512_srli_epi16::<6>(a),
        _mm512_srli_epi16::<4>(b),
    );
    let pairs = _mm512_ternarylogic_epi32::<CHOOSE>(four, pairs, _mm512_srli_epi16::<2>(c));
    let first = _mm512_permutexvar_epi8(a, tables[0]);
    let second = _mm512_permutexvar_epi8(b, tables[1]);
    let third = _mm512_permutexvar_epi8(c, tables[2]);
    let fourth = _mm512_permutexvar_epi8(pairs, tables[3]);
    _mm512_add_epi8(_mm512_add_epi8(first, second), _mm512_add_epi8(third, fourth))
}

/// Adds sums of 16 bits to those of their rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
fn add_words([even, odd]: Words, sums: &mut Sums) {
    // Of each quarter of a register, rows 0 to 7 and rows 8 to 15.
    let low = _mm512_unpacklo_epi16(even, odd);
    let high = _mm512_unpackhi_epi16(even, odd);
    let first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    let second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    let (sums, second_sums) = sums.split_at_mut(BLOCK_ROWS / 2);
    add_rows(_mm512_permutex2var_epi64(low, first, high), sums);
    add_rows(_mm512_permutex2var_epi64(low, second, high), second_sums);
}

/// Adds 32 words to as many sums, in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
fn add_rows(rows: __m512i, sums: &mut [i32]) {
    let mut words = [0_u16; 32];
    // SAFETY: the array has room for the 64 bytes written; the store needs no alignment.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), rows) };
    sums.iter_mut().zip(words).for_each(|(sum, word)| *sum += i32::from(word));
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
fn load(plane: &[u8; BLOCK_ROWS]) -> __m512i {
    // SAFETY: the array covers the 64 bytes read; the load needs no alignment.
    unsafe { _mm512_loadu_si512(plane.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
fn load_tables(tables: &[u8; WINDOW_TABLES]) -> [[__m512i; TABLES]; 2] {
    let tables = tables.as_chunks::<ENTRIES>().0;
    [
        [load(&tables[0]), load(&tables[1]), load(&tables[2]), load(&tables[3])],
        [load(&tables[4]), load(&tables[5]), load(&tables[6]), load(&tables[7])],
    ]
}
