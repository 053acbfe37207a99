//! The f32 kernels with NEON: the sums of `scalar`, lane by lane, in eight registers of four.
//!
//! 1. 32 values of both sides make one step of all lanes; a tail is filled up with zeros.
//! 2. The lanes are folded in the halves of the specification: registers that are four, two and one
//!    apart, then the halves of the last register, then its two lanes.
//!
//! Multiplication and addition stay apart (`fmul` and `fadd`, never `fmla`, which rounds once where
//! the specification rounds twice), so that every result has the bits of the specification.
//!
//! Never: reads beyond either slice, or uses more than the first version of the architecture has.
#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::array::from_fn;

use super::scalar::LANES;

/// Values of a register.
const STEP: usize = 4;
const REGISTERS: usize = LANES / STEP;

#[target_feature(enable = "neon")]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    fold::<false>(a, b)
}

#[target_feature(enable = "neon")]
pub(super) fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    fold::<true>(a, b)
}

#[inline]
#[target_feature(enable = "neon")]
fn fold<const DISTANCE: bool>(a: &[f32], b: &[f32]) -> f32 {
    let len = a.len().min(b.len());
    let (a, a_tail) = a.split_at(len).0.as_chunks::<LANES>();
    let (b, b_tail) = b.split_at(len).0.as_chunks::<LANES>();
    let mut lanes = [vdupq_n_f32(0.0); REGISTERS];
    for (a, b) in a.iter().zip(b) {
        lanes = add::<DISTANCE>(lanes, a, b);
    }
    if !a_tail.is_empty() {
        // Zeros add +0 to lanes that are never -0: no bit changes.
        let (mut x, mut y) = ([0.0; LANES], [0.0; LANES]);
        x.iter_mut().zip(a_tail).for_each(|(x, a)| *x = *a);
        y.iter_mut().zip(b_tail).for_each(|(y, b)| *y = *b);
        lanes = add::<DISTANCE>(lanes, &x, &y);
    }
    let sixteen: [float32x4_t; 4] = from_fn(|i| vaddq_f32(lanes[i], lanes[i + 4]));
    let eight: [float32x4_t; 2] = from_fn(|i| vaddq_f32(sixteen[i], sixteen[i + 2]));
    let four = vaddq_f32(eight[0], eight[1]);
    let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    // One addition of two lanes: their order changes nothing.
    vaddv_f32(two)
}

/// One step of all lanes, which go in and out by value and so stay in registers.
#[inline]
#[target_feature(enable = "neon")]
fn add<const DISTANCE: bool>(
    lanes: [float32x4_t; REGISTERS],
    a: &[f32; LANES],
    b: &[f32; LANES],
) -> [float32x4_t; REGISTERS] {
    let (a, b) = (a.as_chunks().0, b.as_chunks().0);
    from_fn(|i| vaddq_f32(lanes[i], term::<DISTANCE>(load(&a[i]), load(&b[i]))))
}

#[inline]
#[target_feature(enable = "neon")]
fn term<const DISTANCE: bool>(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    if !DISTANCE {
        return vmulq_f32(a, b);
    }
    let difference = vsubq_f32(a, b);
    vmulq_f32(difference, difference)
}

#[inline]
#[target_feature(enable = "neon")]
fn load(values: &[f32; STEP]) -> float32x4_t {
    // SAFETY: the reference covers the four values read; an alignment of theirs is enough.
    unsafe { vld1q_f32(values.as_ptr()) }
}
