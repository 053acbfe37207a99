//! Large pages: RAM for bytes that are looked at anywhere.
//!
//! Who looks at a few dozen places of many megabytes waits for the tables of pages before each of them: at a million
//! rows that is a tenth of a search (docs/bench/2026-11-30-brief.md). Linux is asked for pages of 2 MiB; it may give
//! others. Elsewhere there is nothing to ask.
//!
//! Never: a file's. What is dropped is the system's again at once.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// Bytes on pages that are as large as the system has them; the first one is the first of a page.
#[derive(Debug)]
pub struct LargePages(MmapMut);

impl LargePages {
    /// So many zeros; `None` where large pages cannot be asked for, and for no bytes.
    #[must_use]
    pub fn zeros(len: usize) -> Option<LargePages> {
        ask(len).map(LargePages)
    }
}

#[cfg(target_os = "linux")]
fn ask(len: usize) -> Option<MmapMut> {
    if len == 0 {
        return None;
    }
    let map = MmapMut::map_anon(len).ok()?;
    map.advise(memmap2::Advice::HugePage).ok()?;
    Some(map)
}

#[cfg(not(target_os = "linux"))]
fn ask(_: usize) -> Option<MmapMut> {
    None
}

impl Deref for LargePages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for LargePages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_zeros_until_they_are_written() {
        assert!(LargePages::zeros(0).is_none());
        for len in [1, 4097, 5 << 20] {
            // A system without large pages has none of these.
            let Some(mut pages) = LargePages::zeros(len) else { continue };
            assert_eq!((pages.len(), pages.as_ptr().addr() % 4096), (len, 0));
            assert!(pages.iter().all(|byte| *byte == 0), "{len}");
            pages.fill(7);
            assert!(pages.iter().all(|byte| *byte == 7), "{len}");
        }
    }
}
