//! The last moves between levels: what `why` tells of an entry's past.
//!
//! ```text
//! columns/moves   magic (8) | store id (16) | count u32 | count times: id u64, time i64, from u8,
//!                 to u8 | CRC u32 over all
//! ```
//!
//! Little-endian; from and to are 0 hot, 1 warm with 8 bits, 2 warm with 4, 3 cold. Written whole
//! under a temporary name, after each run that moved something. It is soft state, and short: when
//! it is full the oldest go, and what is damaged or of another store counts as empty.
//!
//! Never: decides anything.

use std::collections::VecDeque;
use std::io;

use crate::bytes::codec::cursor::{Put, Reader};
use crate::io::{Disk, join, read_whole, write_atomic};
use crate::organs::columns::sealed::FOLDER;
use crate::pure::policy::Standing;
use crate::words::error::{Error, Result};
use crate::words::id::{EntryId, Timestamp};
use crate::words::safeguard::Safeguard;

/// Name of the file in its folder.
pub const NAME: &str = "moves";
const MAGIC: &[u8; 8] = b"pmllmov0";
const HEAD_BYTES: usize = 8 + 16 + 4;
const ROW_BYTES: usize = 8 + 8 + 1 + 1;
/// Most moves that are remembered, whatever the budget.
const MOVES_MAX: usize = 4096;
/// No file is read that is longer.
const BYTES_MAX: usize = HEAD_BYTES + MOVES_MAX * ROW_BYTES + 4;

/// One move of one entry.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let store = pmll::Store::open(dir.path().join("memory"))?;
/// # let notes = store.collection("notes")?;
/// notes.put("a", pmll::Draft::text("one").vector([1.0]))?;
/// store.compress_with(pmll::Policy::Paper)?;
/// let moves = notes.moves("a")?;
/// assert!(moves.iter().all(|m| m.from != m.to));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelMove {
    /// Which entry.
    pub id: EntryId,
    /// When.
    pub at: Timestamp,
    /// Where it stood.
    pub from: Standing,
    /// Where it went.
    pub to: Standing,
}

/// The newest moves, oldest first.
#[derive(Debug)]
pub struct Moves {
    list: VecDeque<LevelMove>,
    len_max: usize,
}

/// How many the file holds. Errors with `Io`, or `Corrupt` when it cannot be believed.
pub fn read(disk: &dyn Disk, store_id: [u8; 16]) -> Result<u64> {
    let name = join(FOLDER, NAME);
    let bytes = read_whole(disk, &name, BYTES_MAX);
    let bytes = bytes.map_err(|e| Error::io(format!("read {name}"), e))?;
    let list = decode(&bytes, store_id);
    let list =
        list.ok_or_else(|| Error::corrupt(format!("{name}: damaged, or of another store")))?;
    Ok(list.len() as u64)
}

impl Moves {
    /// Reads what the last owner left.
    pub fn load(disk: &dyn Disk, store_id: [u8; 16]) -> Moves {
        let name = join(FOLDER, NAME);
        let list = match read_whole(disk, &name, BYTES_MAX) {
            Ok(bytes) => decode(&bytes, store_id),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Some(VecDeque::new()),
            Err(_) => None,
        };
        let list = list.unwrap_or_else(|| {
            tracing::warn!("{name} cannot be read; moves are remembered from now on");
            VecDeque::new()
        });
        Moves { list, len_max: MOVES_MAX }
    }

    /// Writes them; durable when it returns. Answers the bytes.
    pub fn save(&self, disk: &dyn Disk, store_id: [u8; 16]) -> Result<u64> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.list.len() * ROW_BYTES + 4);
        bytes.put_bytes(MAGIC);
        bytes.put_bytes(&store_id);
        bytes.put_u32(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
        for moved in &self.list {
            bytes.put_u64(moved.id.0);
            bytes.put_i64(moved.at.0);
            bytes.put_bytes(&[encode(moved.from), encode(moved.to)]);
        }
        let crc = crc32fast::hash(&bytes);
        bytes.put_u32(crc);
        let failed = |e| Error::io(format!("write {FOLDER}/{NAME}"), e);
        write_atomic(disk, FOLDER, NAME, &bytes).map_err(failed)?;
        Ok(bytes.len() as u64)
    }

    /// Remembers moves, and as many as a budget of so many bytes allows: at most a 128th of it.
    pub fn note(&mut self, moves: impl Iterator<Item = LevelMove>, budget_bytes: u64) {
        let room = usize::try_from(budget_bytes / 128).unwrap_or(usize::MAX);
        self.len_max = (room / size_of::<LevelMove>()).clamp(64, MOVES_MAX);
        for moved in moves {
            if self.list.len() >= self.len_max {
                self.list.pop_front();
            }
            self.list.push_back(moved);
        }
        self.list.drain(..self.list.len().saturating_sub(self.len_max));
        self.list.shrink_to(self.len_max);
    }

    /// Those of one entry, oldest first.
    pub fn of(&self, id: EntryId) -> Vec<LevelMove> {
        self.list.iter().filter(|moved| moved.id == id).copied().collect()
    }

    /// Bytes they take in RAM.
    pub fn resident_bytes(&self) -> u64 {
        (self.list.capacity() * size_of::<LevelMove>()) as u64
    }
}

fn encode(standing: Standing) -> u8 {
    match standing {
        Standing::Hot => 0,
        Standing::Warm8 => 1,
        Standing::Warm4 => 2,
        Standing::Cold => 3,
    }
}

fn standing(byte: u8) -> Option<Standing> {
    [Standing::Hot, Standing::Warm8, Standing::Warm4, Standing::Cold]
        .get(usize::from(byte))
        .copied()
}

fn decode(bytes: &[u8], store_id: [u8; 16]) -> Option<VecDeque<LevelMove>> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if Safeguard::MovesCrc.finds(crc32fast::hash(body).to_le_bytes() != *crc) {
        return None;
    }
    let mut reader = Reader::new(body);
    let (magic, store): ([u8; 8], [u8; 16]) = (reader.array().ok()?, reader.array().ok()?);
    let count = reader.u32().ok()? as usize;
    if &magic != MAGIC || store != store_id || reader.left() != count.checked_mul(ROW_BYTES)? {
        return None;
    }
    let mut list = VecDeque::with_capacity(count);
    for _ in 0..count {
        let (id, at) = (EntryId(reader.u64().ok()?), Timestamp(reader.i64().ok()?));
        let [from, to]: [u8; 2] = reader.array().ok()?;
        list.push_back(LevelMove { id, at, from: standing(from)?, to: standing(to)? });
    }
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::OpenMode;
    use crate::io::memory::MemoryDisk;

    fn moved(n: u64) -> LevelMove {
        let at = Timestamp(n as i64 * 1000);
        LevelMove { id: EntryId(n), at, from: Standing::Hot, to: Standing::Warm4 }
    }

    #[test]
    fn the_newest_come_back_and_damaged_ones_are_none() {
        let disk = MemoryDisk::new();
        disk.create_dir(FOLDER).unwrap();
        let mut moves = Moves::load(&disk, [1; 16]);
        moves.note((0..200).map(moved), 1 << 10);
        assert_eq!(moves.list.len(), 64, "a small budget remembers few");
        assert!(moves.of(EntryId(0)).is_empty());
        assert_eq!(moves.of(EntryId(199)), [moved(199)]);
        let len = moves.save(&disk, [1; 16]).unwrap();
        assert_eq!(Moves::load(&disk, [1; 16]).list, moves.list);
        assert!(Moves::load(&disk, [2; 16]).list.is_empty(), "another store's");
        let file = disk.open("columns/moves", OpenMode::ReadWrite).unwrap();
        for at in 0..len {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_at(&[byte[0] ^ 1], at).unwrap();
            assert!(Moves::load(&disk, [1; 16]).list.is_empty(), "byte {at}");
            file.write_at(&byte, at).unwrap();
        }
    }
}
