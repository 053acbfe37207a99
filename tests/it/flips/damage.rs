//! What can happen to a file that rots, and the list of all of it for a small store.
//!
//! 1. A byte flips in one bit, or in each of several.
//! 2. A sector, of 512 bytes or of 4 KiB, becomes zeros: a page that was never written.
//! 3. A sector goes back to bytes that stood in its place at an earlier moment of the run, in this file
//!    or in one whose blocks it may have got: a write that the disk lost, or put somewhere else.
//! 4. Two sectors change places, in one file or in two of a kind: a write that went astray.
//!
//! Of the zeros behind the end of a log, and of a file that is nothing but zeros, the first stand for
//! all; of a page of the index that holds nothing any more, every sixteenth byte does. It never lists a
//! damage that leaves the bytes as they are, and none twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use pmll::io::sim::SimDisk;

use crate::flips::patient::{History, Patient};

/// What a disk may lose, or put elsewhere, as one.
pub(super) const SECTORS: [usize; 2] = [512, 4096];

/// Bytes that stand for a file of zeros.
const ZEROS: usize = 64;
/// One byte of so many is flipped in pages that nobody reads.
const UNUSED_STEP: usize = 16;

/// One damage.
#[derive(Clone)]
pub(super) enum Damage {
    /// A bit of a byte.
    Flip(u64, u8),
    /// Other bytes in the place of a sector: zeros, or what stood there before.
    Set(Kind, u64, Vec<u8>),
    /// Two sectors of this length change places; the second may be another file's.
    Swap(u64, String, u64, usize),
}

/// What a damage is, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Flip,
    Zero,
    Stale,
    Swap,
}

impl fmt::Debug for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Flip(at, bit) => write!(f, "bit {bit} of byte {at}"),
            Damage::Set(kind, at, bytes) => write!(f, "{kind:?} {at}..{}", at + bytes.len() as u64),
            Damage::Swap(at, file, other, len) => write!(f, "{len} at {at} with {file} at {other}"),
        }
    }
}

impl Damage {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Damage::Flip(..) => Kind::Flip,
            Damage::Set(kind, ..) => *kind,
            Damage::Swap(..) => Kind::Swap,
        }
    }

    /// Bytes of the file that are not what they were, from the first to behind the last, for each
    /// file that is hit.
    pub(super) fn ranges<'a>(&'a self, file: &'a str) -> Vec<(&'a str, u64, u64)> {
        match self {
            Damage::Flip(at, _) => vec![(file, *at, at + 1)],
            Damage::Set(_, at, bytes) => vec![(file, *at, at + bytes.len() as u64)],
            Damage::Swap(at, with, other, len) => {
                let len = *len as u64;
                vec![(file, *at, at + len), (with, *other, other + len)]
            }
        }
    }

    pub(super) fn hit(&self, disk: &SimDisk, file: &str) -> std::io::Result<()> {
        match self {
            Damage::Flip(at, bit) => disk.flip_bit(file, *at, *bit),
            Damage::Set(_, at, bytes) => disk.set_bytes(file, *at, bytes),
            Damage::Swap(at, with, other, len) => {
                let sector = |name: &str, at: u64| {
                    let bytes = disk.durable_bytes(name).unwrap_or_default();
                    bytes.get(at as usize..at as usize + len).map(<[u8]>::to_vec)
                };
                let (Some(ours), Some(theirs)) = (sector(file, *at), sector(with, *other)) else {
                    return Err(std::io::ErrorKind::NotFound.into());
                };
                disk.set_bytes(file, *at, &theirs)?;
                disk.set_bytes(with, *other, &ours)
            }
        }
    }
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Bits of every byte, 1 to 8.
    pub bits: u8,
    /// Earlier contents of a sector.
    pub versions: usize,
    /// Sectors that one changes places with.
    pub partners: usize,
}

impl Effort {
    /// `PMLL_FLIPS=8` is eight bits of every byte, and more of everything else.
    pub(super) fn from_env() -> Effort {
        let bits = std::env::var("PMLL_FLIPS").map_or(1, |text| match text.parse() {
            Ok(bits @ 1..=8) => bits,
            _ => panic!("PMLL_FLIPS={text} is no number from 1 to 8"),
        });
        let more = bits > 1;
        Effort {
            bits,
            versions: if more { usize::MAX } else { 3 },
            partners: if more { 12 } else { 3 },
        }
    }
}

/// Everything that happens to the files of a patient, one file after the other.
pub(super) fn damages(patient: &Patient, effort: Effort) -> Vec<(String, Damage)> {
    let files: BTreeMap<String, Vec<u8>> = patient
        .disk
        .file_names()
        .into_iter()
        .map(|name| (name.clone(), used(patient.disk.durable_bytes(&name).unwrap_or_default())))
        .collect();
    let (mut all, mut pairs) = (Vec::new(), BTreeSet::new());
    for (name, bytes) in &files {
        let unused: BTreeSet<usize> = match name.as_str() {
            "index.redb" => patient.pages_nobody_reads(name, bytes),
            _ => BTreeSet::new(),
        };
        let is_wanted =
            |at: &usize| !unused.contains(&(at / SECTORS[1])) || at.is_multiple_of(UNUSED_STEP);
        let mut found = flips((0..bytes.len()).filter(is_wanted), effort.bits);
        for size in SECTORS {
            // Where everything lies in one sector, the smaller size has said it already.
            if size == SECTORS[0] || bytes.len() > size {
                found.extend(zeros(bytes, size));
                found.extend(stale(name, bytes, size, &patient.history, effort.versions));
                found.extend(swaps(name, size, &files, effort.partners, &mut pairs));
            }
        }
        all.extend(found.into_iter().map(|damage| (name.clone(), damage)));
    }
    all
}

/// The bytes up to the last that is not zero, and two sectors of those behind it; few of a file that
/// is nothing but zeros.
fn used(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().rposition(|byte| *byte != 0);
    bytes.truncate(end.map_or(ZEROS, |at| at + 1 + 2 * SECTORS[0]));
    bytes
}

fn flips(places: impl Iterator<Item = usize>, bits: u8) -> Vec<Damage> {
    // One bit of eight is another one from byte to byte.
    let bit = |at: usize, n: u8| ((at * 5 + usize::from(n)) % 8) as u8;
    places.flat_map(|at| (0..bits).map(move |n| Damage::Flip(at as u64, bit(at, n)))).collect()
}

fn zeros(bytes: &[u8], size: usize) -> Vec<Damage> {
    let sectors = bytes.chunks(size).enumerate().filter(|(_, old)| old.iter().any(|b| *b != 0));
    let zero =
        |(n, old): (usize, &[u8])| Damage::Set(Kind::Zero, (n * size) as u64, vec![0; old.len()]);
    sectors.map(zero).collect()
}

/// Each sector as it was, and as it was in other files of the kind: last, first, and moments between.
fn stale(name: &str, bytes: &[u8], size: usize, history: &History, versions: usize) -> Vec<Damage> {
    let mut found = Vec::new();
    for (n, now) in bytes.chunks(size).enumerate() {
        let mut seen = BTreeSet::new();
        for old in history.versions(name, n, size) {
            let old = old.into_iter().rev().filter_map(|old| old.get(..now.len()));
            // What was zeros is among the zeroed ones.
            let is_other = |old: &&[u8]| *old != now && old.iter().any(|byte| *byte != 0);
            let old: Vec<&[u8]> = old.filter(is_other).filter(|old| seen.insert(*old)).collect();
            let wanted = versions.min(old.len());
            let chosen = (0..wanted).map(|i| old[i * (old.len() - 1) / (wanted - 1).max(1)]);
            found.extend(
                chosen.map(|old| Damage::Set(Kind::Stale, (n * size) as u64, old.to_vec())),
            );
        }
    }
    found
}

/// Each sector in the place of its neighbour, of others of its file, and of others of its kind.
fn swaps(
    name: &str,
    size: usize,
    files: &BTreeMap<String, Vec<u8>>,
    partners: usize,
    seen: &mut BTreeSet<(usize, [(String, usize); 2])>,
) -> Vec<Damage> {
    let folder = |name: &str| name.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    let own = &files[name];
    let others: Vec<&String> = files
        .keys()
        .filter(|other| *other != name && folder(other).is_some() && folder(other) == folder(name))
        .collect();
    let sectors = own.len().div_ceil(size);
    let mut found = Vec::new();
    for n in 0..sectors {
        let same = (1..=partners).map(|step| (name, (n + step * step) % sectors));
        let same: Vec<(&str, usize)> = same.take(partners.div_ceil(2)).collect();
        let places = others.iter().cycle().take(if others.is_empty() { 0 } else { partners / 2 });
        let away = places.enumerate().map(|(i, other)| {
            let theirs = files[*other].len().div_ceil(size).max(1);
            (other.as_str(), (n + i / others.len()) % theirs)
        });
        for (with, m) in same.into_iter().chain(away) {
            let piece = |name: &str, n: usize| {
                let bytes = &files[name];
                bytes.get(n * size..((n + 1) * size).min(bytes.len())).unwrap_or_default()
            };
            let (ours, theirs) = (piece(name, n), piece(with, m));
            let len = ours.len().min(theirs.len());
            let mut pair = [(name.to_owned(), n), (with.to_owned(), m)];
            pair.sort();
            if ours[..len] != theirs[..len] && seen.insert((size, pair)) {
                let (at, other) = ((n * size) as u64, (m * size) as u64);
                found.push(Damage::Swap(at, with.to_owned(), other, len));
            }
        }
    }
    found
}
