//! Which instruction set the kernels may use on this machine.
//!
//! Asked once, answered from then on by one load. Few levels are enough: each kernel has a
//! scalar version, which is its specification, one for AVX2 (any x86-64 of the last ten years), one
//! for AVX-512 with byte permutes and dot products (Ice Lake, Zen 4 and later), and one for NEON (any
//! aarch64 with floating point). An older AVX-512 machine counts as AVX2. Elsewhere the scalar version
//! runs, written so that the compiler packs it where it can.
//!
//! The bytes of a store are little-endian everywhere. The kernels of NEON are tried on little-endian
//! machines only; a big-endian aarch64 counts as scalar.
//!
//! A [`Simd`] can only be made by asking the machine: whoever holds one may call what it allows.

#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected;
use std::sync::OnceLock;

/// An instruction set this machine was seen to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Simd(Level);

/// What a [`Simd`] allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What every machine has.
    Scalar,
    /// AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, VL, VBMI and VNNI, AVX2 and POPCNT.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// NEON, as the first version of the architecture has it.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Simd {
    /// The best this machine has.
    #[inline]
    #[must_use]
    pub fn best() -> Simd {
        static BEST: OnceLock<Simd> = OnceLock::new();
        *BEST.get_or_init(|| Simd::all().last().copied().unwrap_or(Simd(Level::Scalar)))
    }

    /// Everything this machine has, the scalar level first, the best last.
    #[must_use]
    pub fn all() -> Vec<Simd> {
        #[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), expect(unused_mut))]
        let mut all = vec![Simd(Level::Scalar)];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            all.push(Simd(Level::Avx2));
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vbmi")
                && is_x86_feature_detected!("avx512vnni")
                && is_x86_feature_detected!("popcnt")
            {
                all.push(Simd(Level::Avx512));
            }
        }
        #[cfg(target_arch = "aarch64")]
        if cfg!(target_endian = "little") && is_aarch64_feature_detected!("neon") {
            all.push(Simd(Level::Neon));
        }
        all
    }

    /// What it allows.
    #[inline]
    #[must_use]
    pub fn level(self) -> Level {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_the_last_of_all() {
        let all = Simd::all();
        assert_eq!(all[0].level(), Level::Scalar);
        assert_eq!(all.last(), Some(&Simd::best()));
    }
}
