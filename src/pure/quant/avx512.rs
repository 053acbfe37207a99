//! The kernels on codes with AVX-512: 64 codes a step by `vpdpbusd`, which multiplies unsigned with
//! signed bytes and adds four neighbours to a lane of 32 bits.
//!
//! The query of 16 bits comes as its high and low bytes, so each step is done twice and the sums are
//! put together at the end. Neither sum leaves 31 bits: 65,536 values (the limit of the store) times
//! 255 times 128 is less. The last step reads through a mask, so no length is special.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::query::{HALF, Halves};
use super::{Bits, CodeQuery};
use crate::words::limits::DIM_MAX;

const _: () = assert!(DIM_MAX * 255 * 128 <= i32::MAX as usize);

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
pub(super) fn score_rows(query: &CodeQuery, rows: &[u8], scores: &mut [f32]) {
    let (layout, even, odd) = (query.layout(), &query.parts.even, &query.parts.odd);
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
