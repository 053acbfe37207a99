//! What the simulated disk holds: what is durable, what a reader sees, and the changes in between.
//!
//! Each file (inode) has a durable content, a live content, and the changes that lead from one to
//! the other in order. Names are kept apart: durable names, live names, and pending changes of
//! names, one list for all folders. A sync of a file moves its changes into the durable content; a
//! sync of a folder moves the name changes of that folder into the durable names. A file that was
//! synced and whose name was not is therefore unreachable after a crash.
//!
//! The state changes through [`State::apply`] alone. The running disk and the replay of a recording
//! use that same function, so a replayed state is the state the run had.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::content::{Content, Hasher};

/// A mutating call as it took effect.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Create {
        name: Arc<str>,
        inode: u64,
    },
    MakeDir {
        name: Arc<str>,
    },
    Write {
        inode: u64,
        offset: u64,
        data: Arc<[u8]>,
    },
    SetLen {
        inode: u64,
        len: u64,
    },
    Sync {
        inode: u64,
    },
    /// A sync that failed and lost the changes.
    SyncLost {
        inode: u64,
    },
    Rename {
        from: Arc<str>,
        to: Arc<str>,
    },
    Remove {
        name: Arc<str>,
    },
    SyncDir {
        folder: Arc<str>,
    },
    /// A call that failed without effect; it keeps the numbering.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    File(u64),
    Folder,
}

impl Node {
    pub(super) fn inode(&self) -> Option<u64> {
        match self {
            Node::File(inode) => Some(*inode),
            Node::Folder => None,
        }
    }
}

pub(super) type Names = BTreeMap<Arc<str>, Node>;

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) durable: Arc<Content>,
    pub(super) live: Arc<Content>,
    pub(super) pending: Vec<Change>,
}

/// A change of a file that is not durable yet. `seq` orders changes of all files and names.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) seq: u64,
    pub(super) kind: ChangeKind,
}

#[derive(Clone, Debug)]
pub(super) enum ChangeKind {
    /// Bytes, and the length the file got by them if they made it longer.
    Data {
        offset: u64,
        data: Arc<[u8]>,
        grown: Option<u64>,
    },
    SetLen(u64),
}

/// A change of names that is not durable yet.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) seq: u64,
    pub(super) folder: Arc<str>,
    pub(super) kind: NameKind,
}

#[derive(Clone, Debug)]
pub(super) enum NameKind {
    Link { name: Arc<str>, node: Node },
    Unlink { name: Arc<str> },
    Rename { from: Arc<str>, to: Arc<str>, inode: u64 },
}

impl NameKind {
    pub(super) fn apply(&self, names: &mut Names) {
        match self {
            NameKind::Link { name, node } => {
                names.insert(Arc::clone(name), *node);
            }
            NameKind::Unlink { name } => {
                names.remove(name);
            }
            NameKind::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(Arc::clone(to), Node::File(*inode));
            }
        }
    }

    fn inode(&self) -> Option<u64> {
        match self {
            NameKind::Link { node: Node::File(inode), .. } | NameKind::Rename { inode, .. } => {
                Some(*inode)
            }
            _ => None,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) live: Names,
    pub(super) durable: Names,
    pub(super) pending: Vec<NameChange>,
    pub(super) next_inode: u64,
    /// Calls applied so far. Not the number callers see: a copy of a disk counts calls from zero,
    /// and its old pending changes must still come before its new ones.
    seq: u64,
}

impl State {
    /// A disk at rest with these durable names and contents.
    pub(super) fn at_rest(names: Names, contents: impl Fn(u64) -> Arc<Content>) -> State {
        let mut state = State { live: names.clone(), durable: names, ..State::default() };
        for node in state.durable.values() {
            if let Node::File(inode) = *node {
                let content = contents(inode);
                let file =
                    Inode { durable: Arc::clone(&content), live: content, pending: Vec::new() };
                state.inodes.insert(inode, file);
                state.next_inode = state.next_inode.max(inode.saturating_add(1));
            }
        }
        state
    }

    /// Applies the next call. Without `honest`, syncs do nothing: the disk lies about them.
    pub(super) fn apply(&mut self, op: &Op, honest: bool) {
        let seq = self.seq;
        self.seq += 1;
        match op {
            Op::Create { name, inode } => {
                self.inodes.insert(*inode, Inode::default());
                self.next_inode = inode.saturating_add(1);
                self.link(seq, name, Node::File(*inode));
            }
            Op::MakeDir { name } => self.link(seq, name, Node::Folder),
            Op::Write { inode, offset, data } => {
                if let Some(file) = self.inodes.get_mut(inode) {
                    file.write(seq, *offset, data);
                }
            }
            Op::SetLen { inode, len } => {
                if let Some(file) = self.inodes.get_mut(inode) {
                    Arc::make_mut(&mut file.live).set_len(*len);
                    file.pending.push(Change { seq, kind: ChangeKind::SetLen(*len) });
                }
            }
            Op::Sync { inode } => {
                if let Some(file) = self.inodes.get_mut(inode).filter(|_| honest) {
                    file.sync();
                }
            }
            Op::SyncLost { inode } => {
                if let Some(file) = self.inodes.get_mut(inode) {
                    file.pending.clear();
                }
            }
            Op::Rename { from, to } => {
                if let Some(Node::File(inode)) = self.live.get(from).copied() {
                    let (from, to) = (Arc::clone(from), Arc::clone(to));
                    self.rename_names(seq, NameKind::Rename { from, to, inode });
                }
            }
            Op::Remove { name } => {
                self.rename_names(seq, NameKind::Unlink { name: Arc::clone(name) });
            }
            Op::SyncDir { folder } => {
                if honest {
                    let durable = &mut self.durable;
                    self.pending.retain(|change| {
                        let here = change.folder == *folder;
                        if here {
                            change.kind.apply(durable);
                        }
                        !here
                    });
                }
            }
            Op::Nothing => {}
        }
    }

    fn link(&mut self, seq: u64, name: &Arc<str>, node: Node) {
        self.rename_names(seq, NameKind::Link { name: Arc::clone(name), node });
    }

    fn rename_names(&mut self, seq: u64, kind: NameKind) {
        let name = match &kind {
            NameKind::Link { name, .. } | NameKind::Unlink { name } => name,
            NameKind::Rename { to, .. } => to,
        };
        let folder = Arc::from(name.rsplit_once('/').map_or("", |(folder, _)| folder));
        kind.apply(&mut self.live);
        self.pending.push(NameChange { seq, folder, kind });
    }

    pub(super) fn is_folder(&self, folder: &str) -> bool {
        folder.is_empty() || self.live.get(folder) == Some(&Node::Folder)
    }

    /// The inodes that some name leads to, or may lead to after a crash.
    pub(super) fn reachable(&self) -> BTreeSet<u64> {
        let named = self.live.values().chain(self.durable.values()).filter_map(|node| match node {
            Node::File(inode) => Some(*inode),
            Node::Folder => None,
        });
        named.chain(self.pending.iter().filter_map(|change| change.kind.inode())).collect()
    }

    /// Forgets the files that no name and no handle leads to.
    pub(super) fn collect(&mut self, has_handle: impl Fn(u64) -> bool) {
        let reachable = self.reachable();
        self.inodes.retain(|inode, _| reachable.contains(inode) || has_handle(*inode));
    }

    /// Bytes of all files that a name or a handle leads to; what only a crash would bring back takes
    /// no room.
    pub(super) fn used_bytes(&self, has_handle: impl Fn(u64) -> bool) -> u64 {
        let named: BTreeSet<u64> = self.live.values().filter_map(Node::inode).collect();
        let used = self.inodes.iter().filter(|(n, _)| named.contains(n) || has_handle(**n));
        used.map(|(_, file)| file.live.len()).sum()
    }

    /// Changes that are not durable, files and names together.
    pub(super) fn pending_count(&self) -> usize {
        self.inodes.values().map(|file| file.pending.len()).sum::<usize>() + self.pending.len()
    }

    /// Hash over the durable names and contents.
    pub(super) fn durable_hash(&self) -> u128 {
        let mut hasher = Hasher::new();
        for (name, node) in &self.durable {
            hasher.bytes(name.as_bytes());
            match node {
                Node::Folder => hasher.word(1),
                Node::File(inode) => {
                    hasher.word(2);
                    hasher.wide(self.inodes.get(inode).map_or(0, |file| file.durable.hash()));
                }
            }
        }
        hasher.finish()
    }
}

impl Inode {
    fn write(&mut self, seq: u64, offset: u64, data: &Arc<[u8]>) {
        let live = Arc::make_mut(&mut self.live);
        live.put(data, offset);
        let end = offset.saturating_add(data.len() as u64);
        let grown = (end > live.len()).then_some(end);
        if let Some(len) = grown {
            live.set_len_only(len);
        }
        let kind = ChangeKind::Data { offset, data: Arc::clone(data), grown };
        self.pending.push(Change { seq, kind });
    }

    fn sync(&mut self) {
        if self.pending.is_empty() && self.durable.len() == self.live.len() {
            return;
        }
        let durable = Arc::make_mut(&mut self.durable);
        for change in self.pending.drain(..) {
            match change.kind {
                ChangeKind::Data { offset, data, grown } => {
                    durable.put(&data, offset);
                    if let Some(len) = grown {
                        durable.set_len_only(len);
                    }
                }
                ChangeKind::SetLen(len) => durable.set_len(len),
            }
        }
        // The length is one number, written whole: also what an earlier failed sync lost of it.
        durable.set_len_only(self.live.len());
        durable.trim();
    }
}
