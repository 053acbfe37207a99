//! The kernel on sketches with AVX-512: look-ups of six bits by `vpermb`, 64 rows a register, two
//! blocks side by side, which share the loads of the tables, and the last of an odd number by itself.
//!
//! Three bytes of signs are four indices: the low six bits of each, and the three pairs of high bits
//! put together. `vpermb` looks at the low six bits of an index only, so nothing need be masked away.
//! Eight look-ups (a window) are summed in bytes, windows in 16 bits, stretches of 256 windows in
//! 32 bits.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::scorer::{Plane, SketchQuery, WINDOW_BYTES, WINDOWS_MAX, Window, fill_table, filled_up};
use super::{BLOCK_ROWS, FACTOR_BASE, FACTOR_SHIFT};
use crate::pure::Lines;
use crate::words::options::Metric;

/// Entries of a table.
const ENTRIES: usize = 64;
/// Tables for three bytes of signs.
const TABLES: usize = 4;
/// More bytes of blocks than this are asked for from memory two blocks before they are scored.
const NEAR_BYTES: usize = 32 << 10;
/// Bytes of the tables of a window, which is twice three bytes.
const WINDOW_TABLES: usize = 2 * TABLES * ENTRIES;

/// Four tables for each three bytes of signs: one for the low six bits of each, one for all high bits.
pub(super) fn tables(rounded: &[i16]) -> Lines {
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
    tables.as_flattened().as_flattened().into()
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
pub(super) fn score_blocks(query: &SketchQuery, blocks: &[u8], scores: &mut [f32]) {
    let block_bytes = query.layout().block_bytes();
    // Few blocks, as a cell has, come as fast without: they end before it pays.
    let far = if blocks.len() > NEAR_BYTES { blocks } else { &[] };
    let mut ahead = far.chunks(2 * block_bytes).skip(1);
    let mut blocks = blocks.chunks_exact(block_bytes);
    let mut scores = scores.chunks_mut(BLOCK_ROWS);
    while let (Some(first), Some(first_scores)) = (blocks.next(), scores.next()) {
        let later = ahead.next().unwrap_or_default();
        match (blocks.next(), scores.next()) {
            (Some(second), Some(second_scores)) => {
                score(query, [first, second], [first_scores, second_scores], later);
            }
            _ => score(query, [first], [first_scores], later),
        }
    }
}

/// Sums of 16 bits: of rows at even and at odd places.
type Words = [__m512i; 2];
/// Sums of 32 bits of the rows of a block, in order.
type Rows = [__m512i; 4];

/// Scores of blocks that share the loads of the tables.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
fn score<const N: usize>(
    query: &SketchQuery,
    blocks: [&[u8]; N],
    scores: [&mut [f32]; N],
    later: &[u8],
) {
    let mut later = later.chunks(2 * size_of::<Window>());
    let all = blocks.map(|block| query.windows(block));
    let windows = query.layout().sign_bytes() / WINDOW_BYTES;
    let (tables, last_tables) = query.tables.as_chunks::<WINDOW_TABLES>().0.split_at(windows);
    let none = [_mm512_setzero_si512(); 2];
    let mut sums = [[_mm512_setzero_si512(); 4]; N];
    for (stretch, tables) in tables.chunks(WINDOWS_MAX).enumerate() {
        let mut words = [none; N];
        for (tables, at) in tables.iter().zip(stretch * WINDOWS_MAX..) {
            if let Some(windows) = later.next() {
                fetch(windows);
            }
            let tables = load_tables(tables);
            for n in 0..N {
                if let Some(window) = all[n].0.get(at) {
                    words[n] = add_window(words[n], window, tables);
                }
            }
        }
        for n in 0..N {
            sums[n] = add_words(words[n], sums[n]);
        }
    }
    if let [tables] = last_tables {
        let tables = load_tables(tables);
        for n in 0..N {
            let words = add_window(none, &filled_up(all[n].1), tables);
            sums[n] = add_words(words, sums[n]);
        }
    }
    for ((sums, block), scores) in sums.into_iter().zip(blocks).zip(scores) {
        if query.layout().metric == Metric::Cosine
            && let Ok(scores) = scores.try_into()
        {
            cosines(query, block, sums, scores);
        } else {
            finish(query, block, &sums, scores);
        }
    }
}

/// Turns the sums of a block into scores: those of any metric, and of a block that is not full.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
fn finish(query: &SketchQuery, block: &[u8], rows: &Rows, scores: &mut [f32]) {
    let mut sums = [0; BLOCK_ROWS];
    for (sums, rows) in sums.as_chunks_mut::<16>().0.iter_mut().zip(rows) {
        // SAFETY: the array has room for the 64 bytes written; the store needs no alignment.
        unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), *rows) };
    }
    query.finish(block, &sums, scores);
}

/// What [`SketchQuery::finish`] does for the cosine, step by step the same, sixteen rows at once.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
fn cosines(query: &SketchQuery, block: &[u8], rows: Rows, scores: &mut [f32; BLOCK_ROWS]) {
    let factors = block[query.layout().factors_at()..].as_chunks::<16>().0;
    let offset = _mm512_set1_epi32(query.offset);
    let (base, scale) = (_mm512_set1_ps(query.base), _mm512_set1_ps(query.scale));
    let factor_base = _mm512_set1_epi32(FACTOR_BASE.cast_signed());
    let scores = scores.as_chunks_mut::<16>().0.iter_mut();
    for ((sums, codes), scores) in rows.into_iter().zip(factors).zip(scores) {
        let signed = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32::<1>(sums), offset));
        // SAFETY: the array covers the 16 bytes read; the load needs no alignment.
        let codes = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(codes.as_ptr().cast()) });
        let factor = _mm512_add_epi32(_mm512_slli_epi32::<FACTOR_SHIFT>(codes), factor_base);
        let along = _mm512_mul_ps(_mm512_mul_ps(_mm512_castsi512_ps(factor), signed), scale);
        let is_row = _mm512_test_epi32_mask(codes, codes);
        let estimate = _mm512_maskz_add_ps(is_row, base, along);
        let estimate = _mm512_add_ps(estimate, _mm512_setzero_ps());
        // SAFETY: the array has room for the 64 bytes written; the store needs no alignment.
        unsafe { _mm512_storeu_ps(scores.as_mut_ptr(), estimate) };
    }
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

/// Asks for as many bytes as two windows have. The processor's own prefetching ends with each page of 4 KiB.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
#[allow(unused_unsafe)] // Prefetching is unsafe for the oldest compiler supported, safe for newer ones.
fn fetch(windows: &[u8]) {
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
fn add_words([even, odd]: Words, sums: Rows) -> Rows {
    // Of each quarter of a register, rows 0 to 7 and rows 8 to 15.
    let low = _mm512_unpacklo_epi16(even, odd);
    let high = _mm512_unpackhi_epi16(even, odd);
    let first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    let second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    let first = _mm512_permutex2var_epi64(low, first, high);
    let second = _mm512_permutex2var_epi64(low, second, high);
    [
        _mm512_add_epi32(sums[0], _mm512_cvtepu16_epi32(_mm512_castsi512_si256(first))),
        _mm512_add_epi32(sums[1], _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(first))),
        _mm512_add_epi32(sums[2], _mm512_cvtepu16_epi32(_mm512_castsi512_si256(second))),
        _mm512_add_epi32(sums[3], _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(second))),
    ]
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
