//! Which disks a crash may leave behind: from what is durable and what is pending, to images.
//!
//! 1. Pending changes are cut into atoms that reach the disk each for itself: bytes of a write, the
//!    length that write gave the file, a cut or extension, a change of a name.
//! 2. A plan gives every atom its fate: kept, dropped, or (bytes only) torn, where each sector of
//!    512 or 4096 bytes is kept or dropped on its own. With [`Limits::noise`] a sector that was
//!    dropped may hold noise, or what stands in the sector before it, in place of its old bytes.
//! 3. The kept atoms are applied, oldest first, to the durable state. That is the image: a new disk
//!    at rest.
//!
//! Orders need no plan of their own: an older write that reaches the disk after a newer one over
//! the same bytes leaves what dropping those sectors of the newer one leaves.
//!
//! Files that no name can lead to are left out, so that a removed temporary file does not double
//! the number of images.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::content::{Content, mix};
use super::state::{ChangeKind, NameKind, Names, Node, State};

/// Up to this many atoms every subset is an image; above it, a choice of them.
const EXHAUSTIVE_ATOMS_MAX: usize = 10;

/// What a crash may do to changes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// The process died, the machine did not: everything is kept. One image.
    Kill,
    /// Power loss on a disk that keeps order: a prefix of all pending calls, whichever files they
    /// went to, and the first call beyond it possibly torn.
    Prefix,
    /// Power loss on ext4 as it is mounted by default (`data=ordered`): names and lengths are in a
    /// journal that keeps their order, a length is there only after the bytes that it covers, and
    /// bytes over old ones go in any order, torn at sectors.
    Ext4,
    /// Power loss with the least that POSIX promises: any subset of the pending changes; names
    /// apart from contents, lengths apart from bytes, writes torn at sectors.
    Posix,
    /// Power loss on a disk that answers syncs without doing them: prefixes and subsets of
    /// everything since the recording began. Acknowledged data may be gone; a store can only be
    /// asked to stay consistent. Without a recording this is `Posix`.
    Lying,
}

impl Profile {
    /// All of them, for loops.
    pub const ALL: [Profile; 5] =
        [Profile::Kill, Profile::Prefix, Profile::Ext4, Profile::Posix, Profile::Lying];
}

/// How many images to build at one point of a run.
///
/// ```
/// use pmll::io::sim::Limits;
/// let few = Limits { images: 20, ..Limits::default() };
/// assert!(few.random > 0);
/// ```
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most images at one point (default 2048). "All kept" and "none kept" always come first; of
    /// the others a random choice is made if they are too many.
    pub images: usize,
    /// Random subsets, where not every subset is tried (default 16).
    pub random: usize,
    /// Images with torn writes (default 16).
    pub torn: usize,
    /// Whether sectors of torn writes may hold neither old nor new bytes (default false): a disk whose
    /// sectors are not written whole or not at all. What is overwritten in place is lost on it.
    pub noise: bool,
    /// Seed of all choices (default 0); it is mixed with that of the disk.
    pub seed: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { images: 2048, random: 16, torn: 16, noise: false, seed: 0 }
    }
}

/// How one image came about. Its `Debug` form, with seed and number of the call, is the way back to
/// a failing case.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plan {
    All,
    None,
    /// All but this atom.
    Drop(usize),
    /// This atom alone.
    Only(usize),
    /// The calls up to (not including) this one.
    Prefix(u64),
    /// The same, and some sectors of the call itself.
    PrefixTorn(u64, u64),
    /// Bit n says whether atom n is kept.
    Subset(u64),
    /// Each atom kept or dropped at random.
    Random(u64),
    /// Each atom kept, dropped or torn at random.
    Torn(u64),
    /// All kept, this atom torn.
    TornOne(usize, u64),
    /// Names and lengths up to (not including) this call; the bytes they cover, and a random choice
    /// of the others, some of them torn.
    Journal(u64, u64),
}

enum Fate {
    Keep,
    Drop,
    Torn(u64),
}

struct Atom<'a> {
    seq: u64,
    what: What<'a>,
}

enum What<'a> {
    Data {
        inode: u64,
        offset: u64,
        data: &'a [u8],
    },
    /// The length a write gave the file; bytes beyond it may be on disk already.
    Grow {
        inode: u64,
        len: u64,
    },
    SetLen {
        inode: u64,
        len: u64,
    },
    Name(&'a NameKind),
}

/// The images that a crash in this state may leave, with the plan of each.
pub(super) fn enumerate(
    state: &State,
    profile: Profile,
    limits: &Limits,
    seed: u64,
) -> Vec<(Plan, State)> {
    let atoms = atoms(state);
    let seed = mix(limits.seed ^ mix(seed));
    let plans = choose(plans(&atoms, profile, limits, seed), limits.images, seed);
    plans.into_iter().map(|plan| (plan, build(state, &atoms, plan, limits.noise))).collect()
}

fn atoms(state: &State) -> Vec<Atom<'_>> {
    let reachable = state.reachable();
    let mut atoms = Vec::new();
    for (&inode, file) in state.inodes.iter().filter(|(inode, _)| reachable.contains(inode)) {
        for change in &file.pending {
            let seq = change.seq;
            match &change.kind {
                ChangeKind::Data { offset, data, grown } => {
                    let what = What::Data { inode, offset: *offset, data };
                    atoms.push(Atom { seq, what });
                    if let Some(len) = *grown {
                        atoms.push(Atom { seq, what: What::Grow { inode, len } });
                    }
                }
                ChangeKind::SetLen(len) => {
                    atoms.push(Atom { seq, what: What::SetLen { inode, len: *len } });
                }
            }
        }
    }
    let names = state.pending.iter();
    atoms.extend(names.map(|change| Atom { seq: change.seq, what: What::Name(&change.kind) }));
    atoms.sort_by_key(|atom| atom.seq);
    atoms
}

fn plans(atoms: &[Atom<'_>], profile: Profile, limits: &Limits, seed: u64) -> Vec<Plan> {
    let count = atoms.len();
    let mut plans = vec![Plan::All];
    if profile == Profile::Kill || count == 0 {
        return plans;
    }
    plans.push(Plan::None);
    if profile == Profile::Ext4 {
        let mut calls: Vec<u64> = atoms.iter().map(|atom| atom.seq).collect();
        calls.push(u64::MAX);
        calls.dedup();
        for (i, &call) in calls.iter().enumerate() {
            let tries = 1 + limits.random / calls.len().max(1);
            let seeds = (0..tries as u64).map(|n| mix(seed ^ mix((i as u64) << 8 | n)));
            plans.extend(seeds.map(|seed| Plan::Journal(call, seed)));
        }
        return plans;
    }
    if profile != Profile::Posix {
        let mut calls: Vec<u64> = atoms.iter().map(|atom| atom.seq).collect();
        calls.dedup();
        // The prefix before the first call is `None`.
        plans.extend(calls.iter().skip(1).map(|&call| Plan::Prefix(call)));
        plans.extend(calls.iter().map(|&call| Plan::PrefixTorn(call, mix(seed ^ call))));
    }
    if profile != Profile::Prefix {
        if count <= EXHAUSTIVE_ATOMS_MAX {
            plans.extend((1..(1_u64 << count) - 1).map(Plan::Subset));
        } else {
            plans.extend((0..count).map(Plan::Drop));
            plans.extend((0..count).map(Plan::Only));
            plans.extend((0..limits.random as u64).map(|i| Plan::Random(mix(seed ^ (i << 1)))));
        }
        let torn: Vec<usize> = (0..count).filter(|&i| can_tear(atoms, i)).collect();
        for i in 0..limits.torn as u64 {
            let seed = mix(seed ^ (i << 1 | 1));
            let one = usize::try_from(seed % torn.len().max(1) as u64).unwrap_or(0);
            match torn.get(one) {
                Some(&atom) if i % 2 == 0 || torn.len() == 1 => {
                    plans.push(Plan::TornOne(atom, seed))
                }
                Some(_) => plans.push(Plan::Torn(seed)),
                None => break,
            }
        }
    }
    plans
}

/// Whether an atom spans more than one sector.
fn can_tear(atoms: &[Atom<'_>], index: usize) -> bool {
    match atoms.get(index).map(|atom| &atom.what) {
        Some(What::Data { offset, data, .. }) => offset % 512 + data.len() as u64 > 512,
        _ => false,
    }
}

/// Keeps the first two plans and a random choice of the others.
fn choose(mut plans: Vec<Plan>, most: usize, seed: u64) -> Vec<Plan> {
    if plans.len() > most {
        let mut random = seed;
        for i in 2..plans.len().min(most) {
            random = mix(random);
            let left = (plans.len() - i) as u64;
            plans.swap(i, i + usize::try_from(random % left).unwrap_or(0));
        }
        plans.truncate(most);
    }
    plans
}

/// What becomes of one atom when the journal was written up to a call.
fn journalled(atom: &Atom<'_>, grows: bool, index: usize, call: u64, seed: u64) -> Fate {
    let in_journal = atom.seq < call;
    match &atom.what {
        What::Data { .. } if grows && in_journal => Fate::Keep,
        // Blocks that no length covers yet may be on the disk, and nobody sees them.
        What::Data { .. } => match mix(seed ^ mix(index as u64)) % 4 {
            0 => Fate::Drop,
            1 => Fate::Torn(mix(seed ^ index as u64)),
            _ => Fate::Keep,
        },
        What::Grow { .. } | What::SetLen { .. } | What::Name(_) if in_journal => Fate::Keep,
        What::Grow { .. } | What::SetLen { .. } | What::Name(_) => Fate::Drop,
    }
}

fn fate(plan: Plan, index: usize, seq: u64) -> Fate {
    let keep = |kept: bool| if kept { Fate::Keep } else { Fate::Drop };
    match plan {
        Plan::All => Fate::Keep,
        Plan::None => Fate::Drop,
        Plan::Drop(atom) => keep(index != atom),
        Plan::Only(atom) => keep(index == atom),
        Plan::Prefix(call) => keep(seq < call),
        Plan::PrefixTorn(call, seed) if seq == call => Fate::Torn(mix(seed ^ index as u64)),
        Plan::PrefixTorn(call, _) => keep(seq < call),
        Plan::Subset(bits) => keep(bits >> index & 1 == 1),
        Plan::Random(seed) => {
            // The share of kept atoms differs from image to image: 1/8 to 7/8.
            let share = mix(seed) % 7 + 1;
            keep(mix(seed ^ mix(index as u64)) % 8 < share)
        }
        Plan::Torn(seed) => match mix(seed ^ mix(index as u64)) % 3 {
            0 => Fate::Keep,
            1 => Fate::Drop,
            _ => Fate::Torn(mix(seed ^ index as u64)),
        },
        Plan::TornOne(atom, seed) if index == atom => Fate::Torn(seed),
        // Of a journal, `build` knows more.
        Plan::TornOne(..) | Plan::Journal(..) => Fate::Keep,
    }
}

fn build(state: &State, atoms: &[Atom<'_>], plan: Plan, noise: bool) -> State {
    let mut names = state.durable.clone();
    let mut changed: BTreeMap<u64, Arc<Content>> = BTreeMap::new();
    let durable = |inode: u64| {
        state.inodes.get(&inode).map(|file| Arc::clone(&file.durable)).unwrap_or_default()
    };
    for (index, atom) in atoms.iter().enumerate() {
        let fate = match plan {
            Plan::Journal(call, seed) => {
                // The length that a write gave its file is the next atom.
                let grows = atoms.get(index + 1).is_some_and(|next| {
                    next.seq == atom.seq && matches!(next.what, What::Grow { .. })
                });
                journalled(atom, grows, index, call, seed)
            }
            _ => fate(plan, index, atom.seq),
        };
        let torn = match (fate, &atom.what) {
            (Fate::Drop, _) => continue,
            (Fate::Keep, _) => None,
            (Fate::Torn(seed), What::Data { .. }) => Some(seed),
            // What is one number or one name cannot be torn: it is there or not.
            (Fate::Torn(seed), _) if seed % 2 == 0 => continue,
            (Fate::Torn(_), _) => None,
        };
        let inode = match &atom.what {
            What::Name(kind) => {
                kind.apply(&mut names);
                continue;
            }
            What::Data { inode, .. } | What::Grow { inode, .. } | What::SetLen { inode, .. } => {
                *inode
            }
        };
        let content = Arc::make_mut(changed.entry(inode).or_insert_with(|| durable(inode)));
        match (&atom.what, torn) {
            (What::Data { offset, data, .. }, None) => content.put(data, *offset),
            (What::Data { offset, data, .. }, Some(seed)) => {
                tear(content, data, *offset, seed, noise);
            }
            (What::Grow { len, .. }, _) => content.set_len_only(*len),
            (What::SetLen { len, .. }, _) => content.set_len(*len),
            (What::Name(_), _) => {}
        }
    }
    for content in changed.values_mut() {
        Arc::make_mut(content).trim();
    }
    State::at_rest(within_folders(names), |inode| {
        changed.get(&inode).map_or_else(|| durable(inode), Arc::clone)
    })
}

/// Writes some of the sectors of a write. One that is not written keeps its old bytes, or when all
/// of it was to be written, holds noise or what stands in the sector before.
fn tear(content: &mut Content, data: &[u8], offset: u64, seed: u64, noisy: bool) {
    let sector: u64 = if mix(seed).is_multiple_of(2) { 512 } else { 4096 };
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        let at = offset + done as u64;
        let piece = usize::try_from(sector - at % sector).unwrap_or(1).min(rest.len());
        let is_whole = noisy && piece as u64 == sector;
        match (mix(seed ^ mix(at / sector)) % 8, rest.get(..piece)) {
            (0..4, Some(bytes)) => content.put(bytes, at),
            (4, _) if is_whole => content.put(&noise(seed ^ at, piece), at),
            (5, _) if is_whole && at >= sector => {
                let mut stale = vec![0; piece];
                content.read(&mut stale, at - sector);
                content.put(&stale, at);
            }
            _ => {}
        }
        done += piece;
    }
}

/// Bytes that mean nothing.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| mix(seed ^ n).to_le_bytes()[0]).collect()
}

/// Names in a folder that did not survive went with it.
fn within_folders(mut names: Names) -> Names {
    let lost: Vec<Arc<str>> = names
        .keys()
        .filter(|name| {
            let folder = name.rsplit_once('/').map(|(folder, _)| folder);
            folder.is_some_and(|folder| names.get(folder) != Some(&Node::Folder))
        })
        .cloned()
        .collect();
    for name in lost {
        names.remove(&name);
    }
    names
}
