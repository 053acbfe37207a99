//! Packing and unpacking of rows.
//!
//! 1. [`encode`] finds minimum and maximum of each group, rounds the step up to a multiple of 32
//!    units in its last place, and writes constants and codes.
//! 2. [`narrow`] makes the 4-bit row from an 8-bit row alone.
//! 3. [`decode`] gives the values back, [`norm`] and [`constants`] read the header.
//!
//! All arithmetic is in f64, so that a range wider than the largest f32 is no special case. It
//! allocates nothing. Slices whose length is not the layout's are a mistake of the caller and panic.

use super::{Bits, CONSTANTS_BYTES, NORM_BYTES, RowLayout};
use crate::words::limits::DIM_MAX;

/// A step has these bits zero: 24 bits of an f32 less the five that a factor of 17 adds.
const STEP_LOW_BITS: u32 = 31;

/// Writes `vector` as a packed row.
///
/// # Panics
/// When `vector` or `row` has not the length of the layout.
pub fn encode(layout: RowLayout, vector: &[f32], row: &mut [u8]) {
    assert_eq!((vector.len(), row.len()), (layout.dim, layout.row_bytes()), "lengths of a row");
    let (header, codes) = row.split_at_mut(layout.codes_at());
    let (norm, header) = header.split_at_mut(NORM_BYTES);
    let mut square = Square::default();
    let groups = vector.chunks(layout.group).zip(header.chunks_exact_mut(CONSTANTS_BYTES));
    let code_groups = codes.chunks_mut(layout.bits.code_bytes(layout.group));
    for ((values, header), codes) in groups.zip(code_groups) {
        let (min, step) = range(layout.bits, values);
        put_constants(header, min, step);
        let coder = Coder::new(layout.bits, min, step);
        match layout.bits {
            Bits::Eight => {
                codes.iter_mut().zip(values).for_each(|(code, v)| *code = coder.code(*v));
            }
            Bits::Four => {
                for (byte, pair) in codes.iter_mut().zip(values.chunks(2)) {
                    let high = pair.get(1).map_or(0, |v| coder.code(*v));
                    *byte = coder.code(pair[0]) | high << 4;
                }
            }
        }
        square.add(layout.bits, min, step, values.len(), codes);
    }
    norm.copy_from_slice(&square.norm().to_le_bytes());
}

/// Writes the 4-bit row of an 8-bit row: the very bytes [`encode`] would write for the original.
///
/// `layout` is that of the 8-bit row; the new row is laid out by `layout.with_bits(Bits::Four)`.
///
/// # Panics
/// When a row has not the length of its layout, or `layout` is not of 8 bits.
pub fn narrow(layout: RowLayout, row: &[u8], narrowed: &mut [u8]) {
    let four = layout.with_bits(Bits::Four);
    assert_eq!(layout.bits, Bits::Eight, "only 8-bit rows can be narrowed");
    assert_eq!((row.len(), narrowed.len()), (layout.row_bytes(), four.row_bytes()), "row lengths");
    let (header, codes) = row.split_at(layout.codes_at());
    let (new_header, new_codes) = narrowed.split_at_mut(layout.codes_at());
    let (norm, new_header) = new_header.split_at_mut(NORM_BYTES);
    let mut square = Square::default();
    let old = header[NORM_BYTES..].chunks_exact(CONSTANTS_BYTES).zip(codes.chunks(layout.group));
    let new = new_header
        .chunks_exact_mut(CONSTANTS_BYTES)
        .zip(new_codes.chunks_mut(Bits::Four.code_bytes(layout.group)));
    for ((header, codes), (new_header, new_codes)) in old.zip(new) {
        let (min, step) = take_constants(header);
        let step = 17.0 * step;
        put_constants(new_header, min, step);
        let narrow = |code: u8| ((u16::from(code) + 8) / 17) as u8;
        let (pairs, last) = codes.as_chunks::<2>();
        for (byte, [low, high]) in new_codes.iter_mut().zip(pairs) {
            *byte = narrow(*low) | narrow(*high) << 4;
        }
        if let ([last], Some(byte)) = (last, new_codes.last_mut()) {
            *byte = narrow(*last);
        }
        square.add(Bits::Four, min, step, codes.len(), new_codes);
    }
    norm.copy_from_slice(&square.norm().to_le_bytes());
}

/// Reads a row back into values.
///
/// # Panics
/// When `row` or `vector` has not the length of the layout.
pub fn decode(layout: RowLayout, row: &[u8], vector: &mut [f32]) {
    assert_eq!((vector.len(), row.len()), (layout.dim, layout.row_bytes()), "lengths of a row");
    let codes = row[layout.codes_at()..].chunks(layout.bits.code_bytes(layout.group));
    for (index, (values, codes)) in vector.chunks_mut(layout.group).zip(codes).enumerate() {
        let (min, step) = constants(row, index);
        match layout.bits {
            Bits::Eight => {
                values.iter_mut().zip(codes).for_each(|(v, code)| *v = value(min, step, *code));
            }
            Bits::Four => {
                for (pair, byte) in values.chunks_mut(2).zip(codes) {
                    let both = [byte & 15, byte >> 4];
                    pair.iter_mut().zip(both).for_each(|(v, code)| *v = value(min, step, code));
                }
            }
        }
    }
}

/// Norm of the decoded row, as its header keeps it.
///
/// # Panics
/// When the row is shorter than its header.
#[must_use]
pub fn norm(row: &[u8]) -> f32 {
    f32_at(row, 0)
}

/// `(min, step)` of one group of a row.
///
/// # Panics
/// When the row is shorter than its header.
#[must_use]
pub fn constants(row: &[u8], group: usize) -> (f32, f32) {
    take_constants(&row[NORM_BYTES + CONSTANTS_BYTES * group..])
}

/// What a code stands for. Rounded once to f32, and kept inside it: the step was rounded up, so the
/// highest code may lie a little above the largest value.
fn value(min: f32, step: f32, code: u8) -> f32 {
    let value = f64::from(min) + f64::from(step) * f64::from(code);
    value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
}

/// Minimum and step of a group; (0, 0) when they would not be finite.
fn range(bits: Bits, values: &[f32]) -> (f32, f32) {
    let least = |a: f32, b: &f32| if *b < a { *b } else { a };
    let most = |a: f32, b: &f32| if *b > a { *b } else { a };
    let min = values.iter().fold(f32::INFINITY, least);
    let max = values.iter().fold(f32::NEG_INFINITY, most);
    let range = f64::from(max) - f64::from(min);
    if !range.is_finite() {
        return (0.0, 0.0);
    }
    // Found for 8 bits in both cases: the 4-bit step is 17 times that of 8 bits by definition.
    let mut step = f32::from_bits(((range / 255.0) as f32).to_bits() & !STEP_LOW_BITS);
    if f64::from(step) * 255.0 < range {
        step = f32::from_bits(step.to_bits() + (STEP_LOW_BITS + 1));
    }
    match bits {
        Bits::Eight => (min, step),
        Bits::Four => (min, 17.0 * step),
    }
}

/// Finds codes with the constants of one group.
struct Coder {
    min: f64,
    step: f64,
    inverse: f64,
    code_max: i32,
}

impl Coder {
    fn new(bits: Bits, min: f32, step: f32) -> Coder {
        let (min, step) = (f64::from(min), f64::from(step));
        let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
        Coder { min, step, inverse, code_max: i32::from(bits.code_max()) }
    }

    /// The reciprocal may put a value on the wrong side of a midpoint by a rounding; the products
    /// below are exact (at most 9 + 24 bits), and put it back.
    fn code(&self, value: f32) -> u8 {
        let above = f64::from(value) - self.min;
        // The cast cuts toward zero, which is the floor: `above` is never negative.
        let code = ((above * self.inverse + 0.5) as i32).clamp(0, self.code_max);
        let up = above >= (f64::from(code) + 0.5) * self.step && self.step > 0.0;
        let down = above < (f64::from(code) - 0.5) * self.step;
        (code + i32::from(up) - i32::from(down)).clamp(0, self.code_max) as u8
    }
}

const _: () = assert!(DIM_MAX * 255 * 255 <= u32::MAX as usize);

/// Sum of squares of the decoded values, from integer sums of codes and their squares. In f64 the
/// cancellation is harmless: the minimum itself is one of the values, so the sum is at least min^2.
#[derive(Default)]
struct Square(f64);

impl Square {
    fn add(&mut self, bits: Bits, min: f32, step: f32, values: usize, codes: &[u8]) {
        // 65,536 values of 255: their squares have room in 32 bits, and twice as many lanes.
        let (mut sum, mut squares) = (0_u32, 0_u32);
        let mut count = |code: u8| {
            sum += u32::from(code);
            squares += u32::from(code) * u32::from(code);
        };
        match bits {
            Bits::Eight => codes.iter().for_each(|code| count(*code)),
            Bits::Four => codes.iter().for_each(|byte| {
                count(byte & 15);
                count(byte >> 4);
            }),
        }
        let (min, step) = (f64::from(min), f64::from(step));
        self.0 += values as f64 * min * min
            + 2.0 * min * step * f64::from(sum)
            + step * step * f64::from(squares);
    }

    fn norm(&self) -> f32 {
        self.0.max(0.0).sqrt().min(f64::from(f32::MAX)) as f32
    }
}

fn put_constants(header: &mut [u8], min: f32, step: f32) {
    header[..4].copy_from_slice(&min.to_le_bytes());
    header[4..8].copy_from_slice(&step.to_le_bytes());
}

pub(super) fn take_constants(header: &[u8]) -> (f32, f32) {
    (f32_at(header, 0), f32_at(header, 4))
}

fn f32_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
