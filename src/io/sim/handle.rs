//! An open file of a simulated disk: its calls are the disk's, numbered, spoilt and recorded there.
//!
//! Never: keeps anything of its own but what it holds of the lock.

use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::content::FILE_BYTES_MAX;
use super::faults::{Call, Fault};
use super::state::{Node, Op, State};
use super::{Shell, SimDisk, nothing};
use crate::io::File;
use crate::io::lock::Hold;

/// A handle; it keeps its file alive, and its lock goes with it.
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) inode: u64,
    pub(super) writable: bool,
    pub(super) hold: Mutex<Hold>,
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "the file was opened to read"))
    }
}

impl SimFile {
    fn exchange(&self, wanted: Hold) -> io::Result<bool> {
        let mut shell = self.disk.shell.lock();
        shell.check_alive()?;
        Ok(shell.exchange(self.inode, &mut self.hold.lock(), wanted))
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut shell = self.disk.shell.lock();
        shell.check_alive()?;
        let read = shell.reads;
        shell.reads += 1;
        if shell.faults.fire_read(read) {
            return Err(Fault::Eio.error());
        }
        let file = shell.state.inodes.get(&self.inode);
        Ok(file.map_or(0, |file| file.live.read(buf, offset)))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        let data: Arc<[u8]> = Arc::from(bytes);
        let inode = self.inode;
        let mut shell = self.disk.shell.lock();
        let fits = end_of(offset, bytes.len()).is_none_or(|end| shell.has_room(inode, end));
        let write = |_: &State| {
            if data.is_empty() {
                return Ok(Op::Nothing);
            }
            if end_of(offset, data.len()).is_none() {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            if !fits {
                return Err(Fault::Enospc.error());
            }
            Ok(Op::Write { inode, offset, data })
        };
        let spoilt = |op, fault| match (op, fault) {
            (Op::Write { inode, offset, data }, Fault::ShortWrite) => {
                let half = data.get(..data.len() / 2).unwrap_or_default();
                if half.is_empty() {
                    return Op::Nothing;
                }
                Op::Write { inode, offset, data: Arc::from(half) }
            }
            _ => Op::Nothing,
        };
        shell.call(Call::Write, write, spoilt)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let inode = self.inode;
        let mut shell = self.disk.shell.lock();
        let fits = shell.has_room(inode, len);
        let set_len = |_: &State| {
            if len > FILE_BYTES_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            if !fits {
                return Err(Fault::Enospc.error());
            }
            Ok(Op::SetLen { inode, len })
        };
        shell.call(Call::SetLen, set_len, nothing)
    }

    fn sync(&self) -> io::Result<()> {
        let inode = self.inode;
        let spoilt = |_, fault| match fault {
            Fault::SyncFails => Op::SyncLost { inode },
            _ => Op::Nothing,
        };
        self.disk.shell.lock().call(Call::Sync, |_| Ok(Op::Sync { inode }), spoilt)
    }

    fn len(&self) -> io::Result<u64> {
        let mut shell = self.disk.shell.lock();
        shell.look()?;
        Ok(shell.state.inodes.get(&self.inode).map_or(0, |file| file.live.len()))
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.exchange(Hold::Exclusive)
    }

    fn try_lock_shared(&self) -> io::Result<bool> {
        self.exchange(Hold::Shared)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut shell = self.disk.shell.lock();
        shell.exchange(self.inode, self.hold.get_mut(), Hold::None);
        let Shell { state, handles, locks, .. } = &mut *shell;
        if let Some(count) = handles.get_mut(&self.inode) {
            *count -= 1;
            if *count == 0 {
                handles.remove(&self.inode);
                locks.remove(&self.inode);
                // Nearly always the name is still there, and there is nothing to collect.
                if !state.live.values().any(|node| *node == Node::File(self.inode)) {
                    state.collect(|inode| handles.contains_key(&inode));
                }
            }
        }
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({})", self.inode)
    }
}

/// Where a write ends, unless that is beyond the longest file.
fn end_of(offset: u64, bytes: usize) -> Option<u64> {
    offset.checked_add(bytes as u64).filter(|end| *end <= FILE_BYTES_MAX)
}
