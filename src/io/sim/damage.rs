//! Rot on order: bytes changed behind the store's back, and a look at what is there.
//!
//! Damage hits what a reader sees and what is durable alike, counts as no call, and is no part of a
//! recording. It is meant for disks at rest.

use std::io;
use std::sync::Arc;

use super::SimDisk;
use super::content::{Content, FILE_BYTES_MAX};
use super::state::Node;

impl SimDisk {
    /// Paths of all files a reader would find, sorted; folders are not listed.
    #[must_use]
    pub fn file_names(&self) -> Vec<String> {
        let shell = self.shell.lock();
        let live = shell.state.live.iter();
        live.filter(|(_, node)| **node != Node::Folder).map(|(name, _)| name.to_string()).collect()
    }

    /// What a power cut would leave of a file if it dropped all pending changes; `None` if not even
    /// its name is durable.
    #[must_use]
    pub fn durable_bytes(&self, name: &str) -> Option<Vec<u8>> {
        let shell = self.shell.lock();
        match shell.state.durable.get(name)? {
            Node::File(inode) => Some(shell.state.inodes.get(inode)?.durable.to_vec()),
            Node::Folder => None,
        }
    }

    /// Flips bit 0 to 7 of one byte. The byte must exist.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) -> io::Result<()> {
        let mask = 1_u8.checked_shl(u32::from(bit)).ok_or(io::ErrorKind::InvalidInput)?;
        self.damage(name, |content| {
            let mut byte = [0];
            if content.read(&mut byte, offset) == 1 {
                content.put(&[byte[0] ^ mask], offset);
                return true;
            }
            false
        })
    }

    /// Overwrites bytes; the file must be long enough.
    pub fn set_bytes(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.damage(name, |content| {
            let end = offset.checked_add(bytes.len() as u64);
            let inside = end.is_some_and(|end| end <= content.len());
            if inside {
                content.put(bytes, offset);
            }
            inside
        })
    }

    /// Cuts a file, or extends it with zeros.
    pub fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        self.damage(name, |content| {
            if len <= FILE_BYTES_MAX {
                content.set_len(len);
            }
            len <= FILE_BYTES_MAX
        })
    }

    /// Changes the live content and, where it has those bytes, the durable one.
    fn damage(&self, name: &str, change: impl Fn(&mut Content) -> bool) -> io::Result<()> {
        let mut shell = self.shell.lock();
        let Some(Node::File(inode)) = shell.state.live.get(name).copied() else {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no file {name}")));
        };
        let Some(file) = shell.state.inodes.get_mut(&inode) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if !change(Arc::make_mut(&mut file.live)) {
            let message = format!("{name} has no such bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        change(Arc::make_mut(&mut file.durable));
        Ok(())
    }
}
