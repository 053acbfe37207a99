//! A sealed file in memory: mapped by the operating system, or read.
//!
//! Mapped pages are the page cache's: they cost a process its budget while they are touched, and the
//! system may take them back. A file is mapped only when it is sealed: written whole under a
//! temporary name, synced, renamed, never written again. One of two places of unsafe code; the
//! other are the SIMD kernels.
#![allow(unsafe_code)]

use std::io;
use std::ops::Deref;

use memmap2::{Mmap, MmapAsRawDesc, MmapOptions};

/// The bytes of a sealed file.
pub struct Bytes(Kind);

enum Kind {
    Mapped(Mmap),
    Read(Vec<u8>),
}

impl Bytes {
    /// Bytes that were read.
    #[must_use]
    pub fn read(bytes: Vec<u8>) -> Bytes {
        Bytes(Kind::Read(bytes))
    }

    /// Maps a sealed file of this length for reading.
    pub(super) fn map(file: impl MmapAsRawDesc, len: usize) -> io::Result<Bytes> {
        // SAFETY: a map is unsound when the file changes or shrinks under it. The store maps only
        // files that were sealed, which no code of it opens for writing again (they are replaced
        // by new files under new names and unlinked), in a folder of mode 0700. Somebody who
        // writes into the folder by hand may crash the process (SIGBUS) or make it read other
        // bytes, which are checked against a CRC; `ArenaAccess::Read` serves where that is feared.
        let map = unsafe { MmapOptions::new().len(len).map(file)? };
        Ok(Bytes(Kind::Mapped(map)))
    }

    /// Whether they are mapped.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        matches!(self.0, Kind::Mapped(_))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kind::Mapped(map) => map,
            Kind::Read(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bytes")
            .field("len", &self.len())
            .field("mapped", &self.is_mapped())
            .finish()
    }
}
