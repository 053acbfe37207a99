//! Bytes that begin where a line of the cache does.
//!
//! A register of 64 bytes that is filled from two lines takes two loads: sketches, 64 rows a register, are scored
//! a tenth faster where each load is a line (Zen 4; `docs/bench/2026-11-30-zen4.md`).
//!
//! Never: gets longer or shorter.

use std::ops::{Deref, DerefMut};

/// Bytes of a line.
const LINE: usize = 64;

/// Bytes whose first one is the first of a line.
#[derive(Debug)]
pub struct Lines {
    bytes: Vec<u8>,
    from: usize,
    len: usize,
}

impl Lines {
    /// So many zeros.
    #[must_use]
    pub fn zeros(len: usize) -> Lines {
        let bytes = vec![0; len + LINE - 1];
        let from = bytes.as_ptr().align_offset(LINE).min(LINE - 1);
        Lines { bytes, from, len }
    }
}

impl Clone for Lines {
    fn clone(&self) -> Lines {
        let mut clone = Lines::zeros(self.len);
        clone.copy_from_slice(self);
        clone
    }
}

impl From<&[u8]> for Lines {
    fn from(bytes: &[u8]) -> Lines {
        let mut lines = Lines::zeros(bytes.len());
        lines.copy_from_slice(bytes);
        lines
    }
}

impl Deref for Lines {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.from..][..self.len]
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_begin_with_a_line_and_hold_what_they_were_made_of() {
        for len in [0, 1, 63, 64, 65, 1000] {
            let bytes: Vec<u8> = (0..len).map(|n| n as u8 | 1).collect();
            let lines = Lines::from(bytes.as_slice());
            for lines in [lines.clone(), lines] {
                assert_eq!(&*lines, bytes);
                assert_eq!(lines.as_ptr().addr() % LINE, 0, "{len}");
            }
            assert!(Lines::zeros(len).iter().all(|byte| *byte == 0));
        }
    }
}
