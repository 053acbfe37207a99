//! A disk with an end: how much is used, and whether something still fits.

use super::{Shell, SimDisk};

impl SimDisk {
    /// Bounds the disk: a write or a length that would make all files together longer finds no
    /// space left and does nothing. Removed files count until their last handle goes. `None`, as at
    /// first, is a disk without an end.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.shell.lock().capacity_bytes = bytes;
    }

    /// Bytes of all files, as a bounded disk counts them.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.shell.lock().used_bytes()
    }
}

impl Shell {
    fn used_bytes(&self) -> u64 {
        self.state.used_bytes(|inode| self.handles.contains_key(&inode))
    }

    /// Whether a file of this new length fits beside the others.
    pub(super) fn has_room(&self, inode: u64, len: u64) -> bool {
        let Some(capacity) = self.capacity_bytes else { return true };
        let old = self.state.inodes.get(&inode).map_or(0, |file| file.live.len());
        len <= old || self.used_bytes() + (len - old) <= capacity
    }
}
