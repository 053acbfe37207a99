//! The bodies of a file of cells in RAM: on large pages, if there are enough of them.
//!
//! Never: gets longer or shorter.

use std::ops::{Deref, DerefMut};

use crate::io::pages::LargePages;
use crate::pure::Lines;

/// From so many bytes on large pages are asked for. Of fewer the processor knows all small pages by heart.
const LARGE_MIN: usize = 4 << 20;

/// Bytes whose first one is the first of a line of the cache.
#[derive(Debug)]
pub struct Bodies(Kind);

#[derive(Debug)]
enum Kind {
    Large(LargePages),
    Small(Lines),
}

impl Bodies {
    /// So many zeros.
    #[must_use]
    pub fn zeros(len: usize) -> Bodies {
        let large = if len < LARGE_MIN { None } else { LargePages::zeros(len) };
        Bodies(large.map_or_else(|| Kind::Small(Lines::zeros(len)), Kind::Large))
    }
}

impl Deref for Bodies {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kind::Large(pages) => pages,
            Kind::Small(lines) => lines,
        }
    }
}

impl DerefMut for Bodies {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Kind::Large(pages) => pages,
            Kind::Small(lines) => lines,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_begin_with_a_line_and_hold_what_is_written_whatever_they_stand_on() {
        for len in [0, 1, 1000, LARGE_MIN - 1, LARGE_MIN, LARGE_MIN + 1] {
            let mut bodies = Bodies::zeros(len);
            assert_eq!((bodies.len(), bodies.as_ptr().addr() % 64), (len, 0));
            assert!(bodies.iter().all(|byte| *byte == 0), "{len}");
            bodies.fill(7);
            assert!(bodies.iter().all(|byte| *byte == 7), "{len}");
        }
    }
}
