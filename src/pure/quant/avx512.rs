//! The kernels on codes with AVX-512: 64 codes a step by `vpdpbusd`, which multiplies unsigned with
//! signed bytes and adds four neighbours to a lane of 32 bits.
//!
//! The query of 16 bits comes as its high and low bytes, so each step is done twice and the sums are
//! put together at the end. Neither sum leaves 31 bits: 65,536 values (the limit of the store) times
//! 255 times 128 is less. The last step reads through a mask, so no length is special.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::brief::{HIGH_BITS, LOW_BITS};
use super::panel::{FEW, Panel, RowOf, TOGETHER};
use super::query::{HALF, Halves, fetch};
use super::{Bits, CodeQuery};
use crate::words::limits::DIM_MAX;

const _: () = assert!(DIM_MAX * 255 * 128 <= i32::MAX as usize);

/// More bytes of rows than this are asked for from memory, so many fours before they are scored (a thousand centroids,
/// a scan of codes): the processor's own prefetching loses its way among four rows side by side. 64,287 rows of 384
/// values took 29 ns each without it on a Zen 4, and 20 with it, which is what memory gives; 178 rows, which the
/// second-level cache holds, took 2.4 us without and 3.0 with it.
const NEAR_BYTES: usize = 256 << 10;
const FOURS_AHEAD: usize = 2;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
pub(super) fn score_rows(query: &CodeQuery, rows: &[u8], scores: &mut [f32]) {
    let (layout, even, odd) = (query.layout(), &query.parts.even, &query.parts.odd);
    // Rows of one group go by four. A single one is not asked to divide.
    let by_four = if query.has_bytes_of_one_group() { scores.len() / 4 } else { 0 };
    let row_bytes = layout.row_bytes();
    let (four_rows, rows) = rows.split_at(4 * by_four * row_bytes);
    let (four_scores, scores) = scores.split_at_mut(4 * by_four);
    if by_four > 0 {
        let four_scores = four_scores.as_chunks_mut::<4>().0.iter_mut();
        let far = if four_rows.len() > NEAR_BYTES { four_rows } else { &[] };
        let mut ahead = far.chunks_exact(4 * row_bytes).skip(FOURS_AHEAD);
        for (four, scores) in four_rows.chunks_exact(4 * row_bytes).zip(four_scores) {
            if let Some(later) = ahead.next() {
                fetch(later);
            }
            let (first, last) = four.split_at(2 * row_bytes);
            let ((a, b), (c, d)) = (first.split_at(row_bytes), last.split_at(row_bytes));
            *scores = score_four(query, [a, b, c, d]);
        }
    }
    match layout.bits() {
        Bits::Eight => {
            query.each_row(rows, scores, |codes, i| eight(codes, even.group_halves(layout, i)));
        }
        Bits::Four => query.each_row(rows, scores, |codes, i| {
            four(codes, even.group_halves(layout, i), odd.group_halves(layout, i))
        }),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
fn eight(codes: &[u8], query: &[Halves]) -> i64 {
    let (codes, codes_tail) = codes.as_chunks::<HALF>();
    let (query, query_tail) = query.split_at(codes.len());
    let mut sums = [_mm512_setzero_si512(); 2];
    for (codes, query) in codes.iter().zip(query) {
        sums = add(sums, load_codes(codes), query);
    }
    if let (false, Some(query)) = (codes_tail.is_empty(), query_tail.first()) {
        sums = add(sums, load_some_codes(codes_tail), query);
    }
    together(sums)
}

/// Scores of four rows of bytes that share the loads of the query, and whose sums do not wait for each other.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
pub(super) fn score_four(query: &CodeQuery, rows: [&[u8]; 4]) -> [f32; 4] {
    let codes_at = query.layout().codes_at();
    let [a, b, c, d] = rows.map(|row| row.split_at(codes_at).1.as_chunks::<HALF>());
    let (halves, halves_tail) =
        query.parts.even.group_halves(query.layout(), 0).split_at(a.0.len());
    let mut sums = [[_mm512_setzero_si512(); 2]; 4];
    let codes = a.0.iter().zip(b.0).zip(c.0.iter().zip(d.0));
    for (((a, b), (c, d)), halves) in codes.zip(halves) {
        sums[0] = add(sums[0], load_codes(a), halves);
        sums[1] = add(sums[1], load_codes(b), halves);
        sums[2] = add(sums[2], load_codes(c), halves);
        sums[3] = add(sums[3], load_codes(d), halves);
    }
    if let (false, Some(halves)) = (a.1.is_empty(), halves_tail.first()) {
        sums[0] = add(sums[0], load_some_codes(a.1), halves);
        sums[1] = add(sums[1], load_some_codes(b.1), halves);
        sums[2] = add(sums[2], load_some_codes(c.1), halves);
        sums[3] = add(sums[3], load_some_codes(d.1), halves);
    }
    [
        query.of_one_group(rows[0], together(sums[0])),
        query.of_one_group(rows[1], together(sums[1])),
        query.of_one_group(rows[2], together(sums[2])),
        query.of_one_group(rows[3], together(sums[3])),
    ]
}

/// Rows and blocks of queries of a panel that are multiplied together.
const PANEL_ROWS: usize = 4;
const PANEL_BLOCKS: usize = 4;

/// Cosines of rows and the queries of a panel.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
pub(super) fn score_panel(panel: &Panel, rows: &[u8], scores: &mut [f32]) {
    let (row_bytes, stride) = (panel.layout().row_bytes(), panel.stride());
    if stride == 0 {
        return;
    }
    let several = rows.chunks(PANEL_ROWS * row_bytes).zip(scores.chunks_mut(PANEL_ROWS * stride));
    for (rows, scores) in several {
        let all = rows.chunks_exact(row_bytes).zip(scores.chunks_exact_mut(stride));
        if rows.len() == PANEL_ROWS * row_bytes {
            let mut all = all.map(|(row, scores)| (RowOf::new(row), scores));
            if let (Some(a), Some(b), Some(c), Some(d)) =
                (all.next(), all.next(), all.next(), all.next())
            {
                meet_panel(panel, [a.0, b.0, c.0, d.0], [a.1, b.1, c.1, d.1]);
            }
        } else {
            all.for_each(|(row, scores)| meet_panel(panel, [RowOf::new(row)], [scores]));
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
fn meet_panel<const R: usize>(panel: &Panel, rows: [RowOf<'_>; R], scores: [&mut [f32]; R]) {
    let mut scores = scores.map(|scores| scores.as_chunks_mut::<TOGETHER>().0);
    let blocks = panel.stride() / TOGETHER;
    let by_four = blocks / PANEL_BLOCKS * PANEL_BLOCKS;
    for from in (0..by_four).step_by(PANEL_BLOCKS) {
        meet_blocks::<R, PANEL_BLOCKS>(panel, &rows, from, &mut scores);
    }
    for from in by_four..blocks {
        meet_blocks::<R, 1>(panel, &rows, from, &mut scores);
    }
}

/// Cosines of rows and the queries of some blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
fn meet_blocks<const R: usize, const B: usize>(
    panel: &Panel,
    rows: &[RowOf<'_>; R],
    from: usize,
    scores: &mut [&mut [[f32; TOGETHER]]; R],
) {
    let blocks = panel.blocks::<B>(from);
    let codes: [_; R] = std::array::from_fn(|r| rows[r].codes.as_chunks::<FEW>());
    let whole = codes[0].0.len();
    let places = blocks.map(|block| block.split_at(whole));
    let mut sums = [[_mm512_setzero_si512(); B]; R];
    for at in 0..whole {
        let queries: [_; B] = std::array::from_fn(|b| load_codes(&places[b].0[at]));
        for r in 0..R {
            let codes = _mm512_set1_epi32(i32::from_le_bytes(codes[r].0[at]));
            for b in 0..B {
                sums[r][b] = _mm512_dpbusd_epi32(sums[r][b], codes, queries[b]);
            }
        }
    }
    if let (false, Some(_)) = (codes[0].1.is_empty(), places[0].1.first()) {
        for r in 0..R {
            let mut last = [0; FEW];
            last.iter_mut().zip(codes[r].1).for_each(|(to, from)| *to = *from);
            let codes = _mm512_set1_epi32(i32::from_le_bytes(last));
            for b in 0..B {
                let queries = load_codes(&places[b].1[0]);
                sums[r][b] = _mm512_dpbusd_epi32(sums[r][b], codes, queries);
            }
        }
    }
    for r in 0..R {
        let (min, step) = (_mm512_set1_ps(rows[r].min), _mm512_set1_ps(rows[r].step));
        for b in 0..B {
            let products = _mm512_cvtepi32_ps(sums[r][b]);
            let sum = load_floats(&panel.sums.as_chunks().0[from + b]);
            let weight = load_floats(&panel.weights.as_chunks().0[from + b]);
            let dot = _mm512_add_ps(_mm512_mul_ps(min, sum), _mm512_mul_ps(step, products));
            let cosine = _mm512_mul_ps(dot, weight);
            // SAFETY: the array has room for the 64 bytes written; the store needs no alignment.
            unsafe { _mm512_storeu_ps(scores[r][from + b].as_mut_ptr(), cosine) };
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
fn load_floats(values: &[f32; TOGETHER]) -> __m512 {
    // SAFETY: the array covers the 64 bytes read; the load needs no alignment.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
fn four(codes: &[u8], even: &[Halves], odd: &[Halves]) -> i64 {
    let (codes, codes_tail) = codes.as_chunks::<HALF>();
    let (even, even_tail) = even.split_at(codes.len());
    let (odd, odd_tail) = odd.split_at(codes.len());
    let mut sums = [[_mm512_setzero_si512(); 2]; 2];
    for (codes, (even, odd)) in codes.iter().zip(even.iter().zip(odd)) {
        sums = add_four(sums, load_codes(codes), even, odd);
    }
    if let (false, Some(even), Some(odd)) =
        (codes_tail.is_empty(), even_tail.first(), odd_tail.first())
    {
        sums = add_four(sums, load_some_codes(codes_tail), even, odd);
    }
    let [even, odd] = sums;
    together([_mm512_add_epi32(even[0], odd[0]), _mm512_add_epi32(even[1], odd[1])])
}

/// Adds the products of 64 codes with both halves of the query.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
fn add(sums: [__m512i; 2], codes: __m512i, query: &Halves) -> [__m512i; 2] {
    [
        _mm512_dpbusd_epi32(sums[0], codes, load_query(&query[0])),
        _mm512_dpbusd_epi32(sums[1], codes, load_query(&query[1])),
    ]
}

/// The same for the codes in both halves of 64 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
fn add_four(
    sums: [[__m512i; 2]; 2],
    codes: __m512i,
    even: &Halves,
    odd: &Halves,
) -> [[__m512i; 2]; 2] {
    let low_half = _mm512_set1_epi8(15);
    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low_half);
    [add(sums[0], _mm512_and_si512(codes, low_half), even), add(sums[1], high, odd)]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
fn together([highs, lows]: [__m512i; 2]) -> i64 {
    // Both are folded side by side: lanes 0 and 2 of the last register are sums of highs, 1 and 3
    // of lows. No partial sum is larger than the whole may be.
    let highs = halves(highs);
    let lows = halves(lows);
    let both =
        _mm256_add_epi32(_mm256_unpacklo_epi32(highs, lows), _mm256_unpackhi_epi32(highs, lows));
    let both = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256::<1>(both));
    let both = _mm_add_epi32(both, _mm_unpackhi_epi64(both, both));
    256 * i64::from(_mm_extract_epi32::<0>(both)) + i64::from(_mm_extract_epi32::<1>(both))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
fn halves(sums: __m512i) -> __m256i {
    _mm256_add_epi32(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64::<1>(sums))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
fn load_codes(codes: &[u8; HALF]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes read; the load needs no alignment.
    unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
fn load_some_codes(codes: &[u8]) -> __m512i {
    let absent = HALF - codes.len().min(HALF);
    let mask = u64::MAX.checked_shr(absent as u32).unwrap_or(0);
    // SAFETY: the mask has no more bits than the slice has bytes, and bytes outside the mask are
    // not read; the load needs no alignment.
    unsafe { _mm512_maskz_loadu_epi8(mask, codes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
fn load_query(query: &[i8; HALF]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes read; the load needs no alignment.
    unsafe { _mm512_loadu_si512(query.as_ptr().cast()) }
}

/// Sum of the products of the levels of a brief row and as many values of the query.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
pub(super) fn brief(low: &[u8], high: &[u8], query: &[i8]) -> i32 {
    let high = fields::<HIGH_BITS>(high, query);
    let sums =
        _mm512_add_epi32(fields::<LOW_BITS>(low, query), _mm512_slli_epi32::<LOW_BITS>(high));
    _mm512_reduce_add_epi32(sums)
}

/// The same in sixteen parts for the fields of so many bits that bytes hold: the n-th ones stand for as many values
/// after those of all before them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
fn fields<const BITS: u32>(bytes: &[u8], query: &[i8]) -> __m512i {
    let (mut sums, len) = ([_mm512_setzero_si512(); 2], bytes.len());
    let (whole, tail) = bytes.as_chunks::<HALF>();
    let mut add = |mut some: __m512i, at: usize| {
        let field = _mm512_set1_epi8((1 << BITS) - 1);
        for nth in 0..8 / BITS as usize {
            let [first, second] = sums;
            let values = load_values(query, nth * len + at);
            sums = [second, _mm512_dpbusd_epi32(first, _mm512_and_si512(some, field), values)];
            some = _mm512_srli_epi16::<BITS>(some);
        }
    };
    for (nth, bytes) in whole.iter().enumerate() {
        add(load_codes(bytes), nth * HALF);
    }
    if !tail.is_empty() {
        add(load_some_codes(tail), whole.len() * HALF);
    }
    _mm512_add_epi32(sums[0], sums[1])
}

/// 64 values of a query from one on. What a row has no values for, it has zeros for.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
fn load_values(query: &[i8], from: usize) -> __m512i {
    let values = &query[from..from + HALF];
    // SAFETY: the slice covers the 64 bytes read; the load needs no alignment.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}
