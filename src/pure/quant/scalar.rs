//! The specification of the kernels on codes: sums of integer products, in any order.
//!
//! Written so that the compiler packs them: sums of 32 bits over stretches too short to overflow
//! (128 products of at most 255 * 32,512), gathered in 64 bits.

use super::brief::{HIGH_BITS, LOW_BITS};
use super::{Bits, CodeQuery};

const STRETCH: usize = 128;

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
pub(super) fn products(codes: &[u8], queries: &[i16], products: &mut [i64]) {
    let queries = queries.chunks_exact(codes.len());
    products.iter_mut().zip(queries).for_each(|(product, query)| *product = eight(codes, query));
}

/// Sum of products of codes and query values, as many as there are codes.
pub(super) fn eight(codes: &[u8], query: &[i16]) -> i64 {
    let stretches = codes.chunks(STRETCH).zip(query.chunks(STRETCH));
    let products = |(codes, query): (&[u8], &[i16])| -> i64 {
        let sum: i32 = codes.iter().zip(query).map(|(c, t)| i32::from(*c) * i32::from(*t)).sum();
        i64::from(sum)
    };
    stretches.map(products).sum()
}

/// The same for two codes a byte: the low half meets `even`, the high half `odd`.
pub(super) fn four(codes: &[u8], even: &[i16], odd: &[i16]) -> i64 {
    let stretches = codes.chunks(STRETCH).zip(even.chunks(STRETCH).zip(odd.chunks(STRETCH)));
    let products = |(codes, (even, odd)): (&[u8], (&[i16], &[i16]))| -> i64 {
        let both = |(c, (e, o)): (&u8, (&i16, &i16))| {
            i32::from(*c & 15) * i32::from(*e) + i32::from(*c >> 4) * i32::from(*o)
        };
        let sum: i32 = codes.iter().zip(even.iter().zip(odd)).map(both).sum();
        i64::from(sum)
    };
    stretches.map(products).sum()
}

/// Sum of the products of the levels of a brief row and as many values of the query.
pub(super) fn brief(low: &[u8], high: &[u8], query: &[i8]) -> i32 {
    fields::<LOW_BITS>(low, query) + (fields::<HIGH_BITS>(high, query) << LOW_BITS)
}

/// The same for the fields of so many bits that bytes hold: the n-th ones stand for as many values after those of all
/// before them.
fn fields<const BITS: u32>(bytes: &[u8], query: &[i8]) -> i32 {
    let product = |(nth, query): (u32, &[i8])| -> i32 {
        let field = |byte: &u8| i32::from(byte >> (nth * BITS) & ((1 << BITS) - 1));
        bytes.iter().zip(query).map(|(byte, value)| field(byte) * i32::from(*value)).sum()
    };
    (0..8 / BITS).zip(query.chunks_exact(bytes.len())).map(product).sum()
}
