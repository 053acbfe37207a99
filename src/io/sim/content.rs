//! The bytes of one simulated file: pages that are shared until somebody writes to them.
//!
//! A crash image differs from its neighbours in a few pages only. So contents are cut into pages
//! behind reference counts: cloning a file copies pointers, a write copies the pages it touches and
//! nothing else, and each page remembers its hash, which makes hashing a whole image cheap.
//!
//! Bytes beyond the length may be present ("hidden"): a data block can reach the disk before the
//! length that covers it does. [`Content::trim`] clears them once an image is finished.

use std::sync::{Arc, OnceLock};

pub(super) const PAGE_BYTES: usize = 4096;

/// Longest simulated file: the table of pages is held whole in RAM.
pub(super) const FILE_BYTES_MAX: u64 = 16 << 30;

#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    len: u64,
    /// Missing pages, inside the table and beyond it, are zeros.
    pages: Vec<Option<Arc<Page>>>,
}

#[derive(Debug)]
struct Page {
    bytes: [u8; PAGE_BYTES],
    hash: OnceLock<u128>,
}

impl Page {
    fn zero() -> Page {
        Page { bytes: [0; PAGE_BYTES], hash: OnceLock::new() }
    }
}

impl Clone for Page {
    /// Pages are cloned to be changed, so the hash stays behind.
    fn clone(&self) -> Page {
        Page { bytes: self.bytes, hash: OnceLock::new() }
    }
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Reads what there is; the count is short only at the end of the file.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let left = self.len.saturating_sub(offset);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let mut done = 0;
        while done < count {
            let (page, start) = locate(offset + done as u64);
            let piece = (PAGE_BYTES - start).min(count - done);
            let Some(to) = buf.get_mut(done..done + piece) else { break };
            match self.pages.get(page).and_then(Option::as_ref) {
                Some(page) => {
                    if let Some(from) = page.bytes.get(start..start + piece) {
                        to.copy_from_slice(from);
                    }
                }
                None => to.fill(0),
            }
            done += piece;
        }
        done
    }

    /// The whole file.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len).unwrap_or(0)];
        self.read(&mut bytes, 0);
        bytes
    }

    /// Writes bytes without touching the length; the caller keeps `offset` plus their count within
    /// [`FILE_BYTES_MAX`].
    pub(super) fn put(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let (index, start) = locate(offset + done as u64);
            let piece = (PAGE_BYTES - start).min(bytes.len() - done);
            let page = self.page_mut(index);
            if let (Some(to), Some(from)) =
                (page.bytes.get_mut(start..start + piece), bytes.get(done..done + piece))
            {
                to.copy_from_slice(from);
            }
            done += piece;
        }
    }

    /// Sets the length and leaves bytes beyond it hidden.
    pub(super) fn set_len_only(&mut self, len: u64) {
        self.len = len;
    }

    /// Cuts or extends as a caller asks for it: bytes beyond the new length are gone for good.
    pub(super) fn set_len(&mut self, len: u64) {
        self.len = len;
        self.trim();
    }

    /// Clears hidden bytes.
    pub(super) fn trim(&mut self) {
        let (index, start) = locate(self.len);
        let whole = if start == 0 { index } else { index + 1 };
        if self.pages.len() > whole {
            self.pages.truncate(whole);
        }
        let partly = self.pages.get(index).and_then(Option::as_ref);
        let hidden = partly.and_then(|page| page.bytes.get(start..)).unwrap_or_default();
        if hidden.iter().any(|&byte| byte != 0)
            && let Some(tail) = self.page_mut(index).bytes.get_mut(start..)
        {
            tail.fill(0);
        }
    }

    /// Hash of length and bytes, the same whether zeros are stored or missing.
    pub(super) fn hash(&self) -> u128 {
        let mut hasher = Hasher::new();
        hasher.word(self.len);
        let zero = zero_hash();
        for (index, page) in self.pages.iter().enumerate() {
            let hash = page.as_ref().map_or(zero, |p| *p.hash.get_or_init(|| hash_bytes(&p.bytes)));
            if hash != zero {
                hasher.word(index as u64);
                hasher.wide(hash);
            }
        }
        hasher.finish()
    }

    fn page_mut(&mut self, index: usize) -> &mut Page {
        if self.pages.len() <= index {
            self.pages.resize(index + 1, None);
        }
        // The index is inside the table after the resize above.
        let page = self.pages[index].get_or_insert_with(|| Arc::new(Page::zero()));
        let page = Arc::make_mut(page);
        page.hash.take();
        page
    }
}

fn locate(offset: u64) -> (usize, usize) {
    let page = offset / PAGE_BYTES as u64;
    (usize::try_from(page).unwrap_or(usize::MAX - 1), (offset % PAGE_BYTES as u64) as usize)
}

fn zero_hash() -> u128 {
    static ZERO: OnceLock<u128> = OnceLock::new();
    *ZERO.get_or_init(|| hash_bytes(&[0; PAGE_BYTES]))
}

fn hash_bytes(bytes: &[u8]) -> u128 {
    let mut hasher = Hasher::new();
    hasher.bytes(bytes);
    hasher.finish()
}

/// A 128-bit hash that is the same on every machine and in every release: two lanes of multiply
/// and rotate. It tells images apart; it does not withstand an adversary.
#[derive(Debug)]
pub(super) struct Hasher(u64, u64);

impl Hasher {
    pub(super) fn new() -> Hasher {
        Hasher(0x9E37_79B9_7F4A_7C15, 0xD1B5_4A32_D192_ED03)
    }

    pub(super) fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0xFF51_AFD7_ED55_8CCD).rotate_left(29);
        self.1 = (self.1.rotate_left(23) ^ word).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    }

    pub(super) fn wide(&mut self, word: u128) {
        self.word(word as u64);
        self.word((word >> 64) as u64);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.word(u64::from_le_bytes(word));
        }
    }

    pub(super) fn finish(self) -> u128 {
        let low = mix(self.0 ^ self.1.rotate_left(32));
        let high = mix(self.1 ^ low);
        (u128::from(high) << 64) | u128::from(low)
    }
}

/// Scrambles a word so that every input bit reaches every output bit (the finisher of SplitMix64).
pub(super) fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves_as_a_vector() {
        let (mut content, mut model) = (Content::default(), Vec::new());
        let mut random = 1;
        for _ in 0..2000 {
            random = mix(random);
            let offset = (random % 20_000) as usize;
            let count = (mix(random) % 6000) as usize;
            if random % 5 == 0 {
                content.set_len(offset as u64);
                model.resize(offset, 0);
            } else {
                let bytes = vec![random as u8; count];
                content.put(&bytes, offset as u64);
                if model.len() < offset + count {
                    model.resize(offset + count, 0);
                    content.set_len_only(model.len() as u64);
                }
                model[offset..offset + count].copy_from_slice(&bytes);
            }
            assert_eq!(content.to_vec(), model);
        }
        let mut buf = vec![7; 10];
        assert_eq!(content.read(&mut buf, model.len() as u64 + 5), 0);
    }

    #[test]
    fn hidden_bytes_appear_with_the_length_and_go_with_a_trim() {
        let mut content = Content::default();
        content.put(b"abc", 10);
        assert_eq!(content.to_vec(), b"");
        let mut trimmed = content.clone();
        trimmed.trim();
        trimmed.set_len_only(13);
        assert_eq!(trimmed.to_vec(), [0; 13]);
        content.set_len_only(12);
        assert_eq!(&content.to_vec()[10..], b"ab");
        content.trim();
        content.set_len_only(13);
        assert_eq!(&content.to_vec()[10..], b"ab\0");
    }

    #[test]
    fn hash_tells_contents_and_not_their_history() {
        let mut written = Content::default();
        written.put(&[1; 9000], 0);
        written.set_len(9000);
        let shared = written.clone();
        let before = shared.hash();
        written.put(&[0; 9000], 0);
        assert_ne!(written.hash(), before);
        assert_eq!(shared.hash(), before);
        let mut empty = Content::default();
        empty.set_len(9000);
        assert_eq!(written.hash(), empty.hash(), "stored and missing zeros are the same file");
        empty.set_len(9001);
        assert_ne!(written.hash(), empty.hash());
        let mut moved = Content::default();
        moved.put(&[1; 4096], 4096);
        moved.set_len(9000);
        let mut first = Content::default();
        first.put(&[1; 4096], 0);
        first.set_len(9000);
        assert_ne!(first.hash(), moved.hash());
    }
}
