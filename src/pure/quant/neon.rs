//! The kernels on codes with NEON: 16 bytes of codes a step, widened to 16 bits and multiplied with the
//! query by `smlal`, which adds each product to a lane of 32 bits.
//!
//! 1. A step has 16 lanes, in four registers. Each takes one product of at most 255 * 32,512 (8-bit
//!    codes), or two of at most 15 * 32,512 (4-bit codes), so 256 steps fit into 31 bits.
//! 2. After each such stretch neighbours are added in 64 bits; the two lanes of these are the sum.
//! 3. What is shorter than a step goes the scalar way: the sums are of integers, so the split changes
//!    nothing.
//!
//! Dot products of bytes (`sdot`) would take the query as its high and low bytes, as AVX-512 does, but
//! the oldest compiler supported offers them to nobody; products of bytes that are then widened
//! (`smull`, `sadalp`) would be needed twice, once for each half of the query, and gain nothing over
//! products of 16 bits.
//!
//! Never: reads beyond a slice, or uses more than the first version of the architecture has.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

use super::brief::{HIGH_BITS, LOW_BITS};
use super::query::QUERY_MAX;
use super::{Bits, CodeQuery, scalar};

/// Bytes of codes of a step.
const STEP: usize = 16;
const STEPS_MAX: usize = 256;

const _: () = assert!(STEPS_MAX as i64 * 255 * QUERY_MAX as i64 <= i32::MAX as i64);
const _: () = assert!(STEPS_MAX as i64 * 2 * 15 * QUERY_MAX as i64 <= i32::MAX as i64);

/// 16 sums of a stretch.
type Lanes = [int32x4_t; 4];

#[target_feature(enable = "neon")]
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
#[target_feature(enable = "neon")]
pub(super) fn products(codes: &[u8], queries: &[i16], products: &mut [i64]) {
    for (product, query) in products.iter_mut().zip(queries.chunks_exact(codes.len())) {
        *product = eight(codes, query);
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn eight(codes: &[u8], query: &[i16]) -> i64 {
    let (codes, codes_tail) = codes.as_chunks::<STEP>();
    let (query, query_tail) = query.split_at(codes.len() * STEP);
    let query = query.as_chunks::<STEP>().0;
    let mut total = vdupq_n_s64(0);
    for (codes, query) in codes.chunks(STEPS_MAX).zip(query.chunks(STEPS_MAX)) {
        let mut sums = [vdupq_n_s32(0); 4];
        for (codes, query) in codes.iter().zip(query) {
            sums = add(sums, load_codes(codes), query);
        }
        total = gather(total, sums);
    }
    vaddvq_s64(total) + scalar::eight(codes_tail, query_tail)
}

#[inline]
#[target_feature(enable = "neon")]
fn four(codes: &[u8], even: &[i16], odd: &[i16]) -> i64 {
    let (codes, codes_tail) = codes.as_chunks::<STEP>();
    let (even, even_tail) = even.split_at(codes.len() * STEP);
    let (odd, odd_tail) = odd.split_at(codes.len() * STEP);
    let (even, odd) = (even.as_chunks::<STEP>().0, odd.as_chunks::<STEP>().0);
    let low_half = vdupq_n_u8(15);
    let mut total = vdupq_n_s64(0);
    let stretches = even.chunks(STEPS_MAX).zip(odd.chunks(STEPS_MAX));
    for (codes, (even, odd)) in codes.chunks(STEPS_MAX).zip(stretches) {
        let mut sums = [vdupq_n_s32(0); 4];
        for (codes, (even, odd)) in codes.iter().zip(even.iter().zip(odd)) {
            let codes = load_codes(codes);
            sums = add(sums, vandq_u8(codes, low_half), even);
            sums = add(sums, vshrq_n_u8::<4>(codes), odd);
        }
        total = gather(total, sums);
    }
    vaddvq_s64(total) + scalar::four(codes_tail, even_tail, odd_tail)
}

/// Adds the products of 16 codes with as many values of the query.
#[inline]
#[target_feature(enable = "neon")]
fn add(sums: Lanes, codes: uint8x16_t, query: &[i16; STEP]) -> Lanes {
    let low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(codes)));
    let high = vreinterpretq_s16_u16(vmovl_high_u8(codes));
    let [first, second] = load_query(query);
    [
        vmlal_s16(sums[0], vget_low_s16(low), vget_low_s16(first)),
        vmlal_high_s16(sums[1], low, first),
        vmlal_s16(sums[2], vget_low_s16(high), vget_low_s16(second)),
        vmlal_high_s16(sums[3], high, second),
    ]
}

/// Adds sums of 32 bits, neighbours together, to sums of 64 bits.
#[inline]
#[target_feature(enable = "neon")]
fn gather(total: int64x2_t, sums: Lanes) -> int64x2_t {
    let first = vpadalq_s32(vpaddlq_s32(sums[0]), sums[1]);
    vpadalq_s32(vpadalq_s32(vaddq_s64(total, first), sums[2]), sums[3])
}

#[inline]
#[target_feature(enable = "neon")]
fn load_codes(codes: &[u8; STEP]) -> uint8x16_t {
    // SAFETY: the reference covers the 16 bytes read; bytes need no alignment.
    unsafe { vld1q_u8(codes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_query(query: &[i16; STEP]) -> [int16x8_t; 2] {
    // SAFETY: the reference covers the 16 values read; an alignment of theirs is enough.
    unsafe { [vld1q_s16(query.as_ptr()), vld1q_s16(query.as_ptr().add(STEP / 2))] }
}

/// Sum of the products of the levels of a brief row and as many values of the query.
#[target_feature(enable = "neon")]
pub(super) fn brief(low: &[u8], high: &[u8], query: &[i8]) -> i32 {
    let high = fields::<HIGH_BITS>(high, query);
    vaddvq_s32(vaddq_s32(fields::<LOW_BITS>(low, query), vshlq_n_s32::<{ LOW_BITS as i32 }>(high)))
}

/// The same in four parts for the fields of so many bits that bytes hold: the n-th ones stand for as many values after
/// those of all before them. Two products of at most 3 * 127 have room in 16 bits.
#[inline]
#[target_feature(enable = "neon")]
fn fields<const BITS: u32>(bytes: &[u8], query: &[i8]) -> int32x4_t {
    let (mut sums, len) = (vdupq_n_s32(0), bytes.len());
    for (nth, part) in bytes.chunks(STEP).enumerate() {
        let mut some = [0; STEP];
        some[..part.len()].copy_from_slice(part);
        let (field, shift) = (vdupq_n_u8((1 << BITS) - 1), vdupq_n_s8(-(BITS as i8)));
        let mut some = load_codes(&some);
        for shifted in 0..8 / BITS as usize {
            let values = load_values(query, shifted * len + nth * STEP);
            let levels = vreinterpretq_s8_u8(vandq_u8(some, field));
            let pairs = vmlal_s8(
                vmull_s8(vget_low_s8(levels), vget_low_s8(values)),
                vget_high_s8(levels),
                vget_high_s8(values),
            );
            sums = vpadalq_s16(sums, pairs);
            some = vshlq_u8(some, shift);
        }
    }
    sums
}

/// 16 values of a query from one on. What a row has no values for, it has zeros for.
#[inline]
#[target_feature(enable = "neon")]
fn load_values(query: &[i8], from: usize) -> int8x16_t {
    let values = &query[from..from + STEP];
    // SAFETY: the slice covers the 16 bytes read; bytes need no alignment.
    unsafe { vld1q_s8(values.as_ptr()) }
}
