//! The kernel on sketches with AVX-512: look-ups of six bits by `vpermb`, 64 rows a register.
//!
//! Three bytes of signs are four indices: the low six bits of each, and the three pairs of high bits
//! put together. `vpermb` looks at the low six bits of an index only, so nothing need be masked away.
//! Eight look-ups (a window) are summed in bytes, windows in 16 bits, stretches of 256 windows in
//! 32 bits.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::scorer::{Plane, SketchQuery, WINDOWS_MAX, Window, fill_table, filled_up};
use super::{BLOCK_ROWS, FACTOR_BASE, FACTOR_SHIFT};
use crate::pure::Lines;
use crate::words::options::Metric;

/// Entries of a table.
const ENTRIES: usize = 64;
/// Tables for three bytes of signs.
const TABLES: usize = 4;
/// So many blocks before it is scored a block is asked for from memory, for the second-level cache. The processor's own
/// prefetching ends with each page of 4 KiB, of which a block of 384 values fills three quarters, and begins anew with
/// each cell. A block of cells that the first two levels did not have took, without, one, four and eight ahead, 56, 51,
/// 52 and 53 ns of 3.1 MB in all, and 162, 190, 118 and 115 ns of 50 MB on a Zen 4 (a trial; one ahead for the first
/// level).
const BLOCKS_AHEAD: usize = 4;
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
pub(super) fn score_blocks(query: &SketchQuery, blocks: &[u8], next: &[u8], scores: &mut [f32]) {
    let block_bytes = query.layout().block_bytes();
    let all = blocks.chunks_exact(block_bytes);
    let mut ahead = all.clone().chain(next.chunks_exact(block_bytes)).skip(BLOCKS_AHEAD);
    for (block, scores) in all.zip(scores.chunks_mut(BLOCK_ROWS)) {
        let sums = match ahead.next() {
            Some(later) => sums::<true>(query, block, later),
            None => sums::<false>(query, block, block),
        };
        finish(query, block, sums, scores);
    }
}

/// Sums of 16 bits: of rows at even and at odd places.
type Words = [__m512i; 2];
/// Sums of 32 bits of the rows of a block, in order.
type Rows = [__m512i; 4];

/// Sums of the rows of a block. If `AHEAD`, a later one is asked for from memory meanwhile.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
fn sums<const AHEAD: bool>(query: &SketchQuery, block: &[u8], later: &[u8]) -> Rows {
    let (windows, last) = query.windows(block);
    let (later, later_rest) = later.as_chunks::<{ size_of::<Window>() }>();
    if AHEAD {
        fetch(later_rest);
    }
    let (tables, last_tables) = query.tables.as_chunks().0.split_at(windows.len());
    let mut sums = [_mm512_setzero_si512(); 4];
    let stretches = windows.chunks(WINDOWS_MAX).zip(later.chunks(WINDOWS_MAX));
    for ((windows, later), tables) in stretches.zip(tables.chunks(WINDOWS_MAX)) {
        let mut words = [_mm512_setzero_si512(); 2];
        for ((window, later), tables) in windows.iter().zip(later).zip(tables) {
            if AHEAD {
                fetch(later);
            }
            words = add_window(words, window, tables);
        }
        sums = add_words(words, sums);
    }
    if let [tables] = last_tables {
        let words = add_window([_mm512_setzero_si512(); 2], &filled_up(last), tables);
        sums = add_words(words, sums);
    }
    sums
}

/// Turns the sums of a block into scores; a last block may have fewer scores than rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
fn finish(query: &SketchQuery, block: &[u8], rows: Rows, scores: &mut [f32]) {
    if query.layout().metric != Metric::Cosine {
        let mut sums = [0; BLOCK_ROWS];
        for (sums, rows) in sums.as_chunks_mut::<16>().0.iter_mut().zip(rows) {
            // SAFETY: the array has room for the 64 bytes written; the store needs no alignment.
            unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), rows) };
        }
        query.finish(block, &sums, scores);
    } else if let Ok(scores) = scores.try_into() {
        cosines(query, block, rows, scores);
    } else {
        let mut all = [0.0; BLOCK_ROWS];
        cosines(query, block, rows, &mut all);
        scores.iter_mut().zip(all).for_each(|(score, of_all)| *score = of_all);
    }
}

/// What [`SketchQuery::finish`] does for the cosine, step by step the same, sixteen rows at once.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
fn cosines(query: &SketchQuery, block: &[u8], rows: Rows, scores: &mut [f32; BLOCK_ROWS]) {
    let factors = block[query.layout().factors_at()..].as_chunks::<16>().0;
    let offset = _mm512_set1_epi32(query.offset);
    let (base, scale) = (_mm512_set1_ps(query.base), _mm512_set1_ps(query.scale));
    let factor_base = _mm512_set1_epi32(FACTOR_BASE.cast_signed());
    let scores = scores.as_chunks_mut::<16>().0;
    let factors = &factors[..scores.len()];
    for at in 0..scores.len() {
        let signed = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32::<1>(rows[at]), offset));
        // SAFETY: the array covers the 16 bytes read; the load needs no alignment.
        let codes = unsafe { _mm_loadu_si128(factors[at].as_ptr().cast()) };
        let codes = _mm512_cvtepu8_epi32(codes);
        let factor = _mm512_add_epi32(_mm512_slli_epi32::<FACTOR_SHIFT>(codes), factor_base);
        let along = _mm512_mul_ps(_mm512_mul_ps(_mm512_castsi512_ps(factor), signed), scale);
        let is_row = _mm512_test_epi32_mask(codes, codes);
        let estimate = _mm512_maskz_add_ps(is_row, base, along);
        let estimate = _mm512_add_ps(estimate, _mm512_setzero_ps());
        // SAFETY: the array has room for the 64 bytes written; the store needs no alignment.
        unsafe { _mm512_storeu_ps(scores[at].as_mut_ptr(), estimate) };
    }
}

/// Adds a window to the words of its block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
fn add_window(words: Words, window: &Window, tables: &[u8; WINDOW_TABLES]) -> Words {
    let low_byte = _mm512_set1_epi16(255);
    let [a, b, c, d, e, f] = window;
    let tables = load_tables(tables);
    let bytes = _mm512_add_epi8(look_up([a, b, c], tables[0]), look_up([d, e, f], tables[1]));
    [
        _mm512_add_epi16(words[0], _mm512_and_si512(bytes, low_byte)),
        _mm512_add_epi16(words[1], _mm512_srli_epi16::<8>(bytes)),
    ]
}

/// Asks for some bytes from memory.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
#[allow(unused_unsafe)] // Prefetching is unsafe for the oldest compiler supported, safe for newer ones.
fn fetch(bytes: &[u8]) {
    for line in bytes.chunks(64) {
        // SAFETY: a prefetch reads nothing the program can see and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
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
