//! The kernels on codes with AVX2: 16 codes widened to 16 bits and multiplied with the query by
//! `vpmaddwd`, which adds neighbours.
//!
//! A lane takes at most 2 * 255 * 32,512 a step, so 64 steps fit into 31 bits; after each such
//! stretch the lanes are gathered in 64 bits. What is shorter than a register goes the scalar
//! way: the sums are of integers, so the split changes nothing.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::brief::{HIGH_BITS, LOW_BITS};
use super::{Bits, CodeQuery, scalar};

/// Codes a register holds once widened.
const STEP: usize = 16;
const STEPS_MAX: usize = 64;

#[target_feature(enable = "avx2")]
pub(super) fn score_rows(query: &CodeQuery, rows: &[u8], scores: &mut [f32]) {
    let (layout, even, odd) = (query.layout(), &query.parts.even, &query.parts.odd);
    match layout.bits() {
        Bits::Eight => {
            query.each_row(rows, scores, |codes, i| eight(codes, even.group(layout, i)));
        }
        Bits::Four => query.each_row(rows, scores, |codes, i| {
            four(codes, even.group(layout, i), odd.group(layout, i))
        }),
    }
}

/// The sums of products of a row's codes with queries of as many values, which stand one after the other.
#[target_feature(enable = "avx2")]
pub(super) fn products(codes: &[u8], queries: &[i16], products: &mut [i64]) {
    for (product, query) in products.iter_mut().zip(queries.chunks_exact(codes.len())) {
        *product = eight(codes, query);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn eight(codes: &[u8], query: &[i16]) -> i64 {
    let (codes, codes_tail) = codes.as_chunks::<STEP>();
    let (query, query_tail) = query.split_at(codes.len() * STEP);
    let query = query.as_chunks::<STEP>().0;
    let mut total = scalar::eight(codes_tail, query_tail);
    for (codes, query) in codes.chunks(STEPS_MAX).zip(query.chunks(STEPS_MAX)) {
        let mut sums = _mm256_setzero_si256();
        for (codes, query) in codes.iter().zip(query) {
            let widened = _mm256_cvtepu8_epi16(load_codes(codes));
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(widened, load_query(query)));
        }
        total += gather(sums);
    }
    total
}

#[inline]
#[target_feature(enable = "avx2")]
fn four(codes: &[u8], even: &[i16], odd: &[i16]) -> i64 {
    let (codes, codes_tail) = codes.as_chunks::<STEP>();
    let (even, even_tail) = even.split_at(codes.len() * STEP);
    let (odd, odd_tail) = odd.split_at(codes.len() * STEP);
    let query = even.as_chunks::<STEP>().0.iter().zip(odd.as_chunks::<STEP>().0);
    let mut total = scalar::four(codes_tail, even_tail, odd_tail);
    let low_half = _mm256_set1_epi16(15);
    let mut steps = codes.iter().zip(query);
    while steps.len() > 0 {
        let mut sums = _mm256_setzero_si256();
        for (codes, (even, odd)) in steps.by_ref().take(STEPS_MAX) {
            let widened = _mm256_cvtepu8_epi16(load_codes(codes));
            let low = _mm256_and_si256(widened, low_half);
            let high = _mm256_srli_epi16::<4>(widened);
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(low, load_query(even)));
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(high, load_query(odd)));
        }
        total += gather(sums);
    }
    total
}

/// Sum of eight lanes of 32 bits, in 64 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn gather(sums: __m256i) -> i64 {
    let low = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(sums));
    let high = _mm256_cvtepi32_epi64(_mm256_extracti128_si256::<1>(sums));
    let four = _mm256_add_epi64(low, high);
    let two = _mm_add_epi64(_mm256_castsi256_si128(four), _mm256_extracti128_si256::<1>(four));
    _mm_extract_epi64::<0>(two) + _mm_extract_epi64::<1>(two)
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_codes(codes: &[u8; STEP]) -> __m128i {
    // SAFETY: the reference covers the 16 bytes read; the load needs no alignment.
    unsafe { _mm_loadu_si128(codes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_query(query: &[i16; STEP]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes read; the load needs no alignment.
    unsafe { _mm256_loadu_si256(query.as_ptr().cast()) }
}

/// Bytes of a register.
const BYTES: usize = 32;

/// Sum of the products of the levels of a brief row and as many values of the query.
#[target_feature(enable = "avx2")]
pub(super) fn brief(low: &[u8], high: &[u8], query: &[i8]) -> i32 {
    let high = fields::<HIGH_BITS>(high, query);
    let sums = _mm256_add_epi32(
        fields::<LOW_BITS>(low, query),
        _mm256_slli_epi32::<{ LOW_BITS as i32 }>(high),
    );
    gather(sums) as i32
}

/// The same in eight parts for the fields of so many bits that bytes hold: the n-th ones stand for as many values
/// after those of all before them. Two products of at most 3 * 127 have room in 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn fields<const BITS: u32>(bytes: &[u8], query: &[i8]) -> __m256i {
    let (mut sums, len) = (_mm256_setzero_si256(), bytes.len());
    for (nth, part) in bytes.chunks(BYTES).enumerate() {
        let mut some = [0; BYTES];
        some[..part.len()].copy_from_slice(part);
        let (field, ones) = (_mm256_set1_epi8((1 << BITS) - 1), _mm256_set1_epi16(1));
        let mut some = load_bytes(&some);
        for shifted in 0..8 / BITS as usize {
            let values = load_values(query, shifted * len + nth * BYTES);
            let pairs = _mm256_maddubs_epi16(_mm256_and_si256(some, field), values);
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, ones));
            some = match BITS {
                LOW_BITS => _mm256_srli_epi16::<{ LOW_BITS as i32 }>(some),
                _ => _mm256_srli_epi16::<{ HIGH_BITS as i32 }>(some),
            };
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_bytes(bytes: &[u8; BYTES]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes read; the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// 32 values of a query from one on. What a row has no values for, it has zeros for.
#[inline]
#[target_feature(enable = "avx2")]
fn load_values(query: &[i8], from: usize) -> __m256i {
    let values = &query[from..from + BYTES];
    // SAFETY: the slice covers the 32 bytes read; the load needs no alignment.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}
