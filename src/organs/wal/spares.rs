//! Spares: files of segments that were given back, kept to make the next segments of.
//!
//! A new segment has to be filled with zeros before it is used, which is more than half of what a log
//! writes. The blocks of a spare are written already: a header is all that it needs. What it held stays
//! in it, behind the end of the new segment, under CRCs of another seed.
//!
//! A spare has a name of its own. One that a crash leaves is removed at the next open, like a file that
//! was not finished. There are as many as the log has needed between two checkpoints lately.
//!
//! Never: hands out a file that somebody may still read a payload from, or one of another opening, whose
//! readers this one cannot know.

use std::io;
use std::sync::Arc;

use crate::io::{Disk, File};
use crate::words::error::{Error, Result};
use crate::words::safeguard::Safeguard;

use super::active::Active;
use super::{SPARE, file_name};

/// A file that the next segment may be made of.
#[derive(Debug)]
pub struct Spare {
    /// Its name, not that of a segment.
    pub name: String,
    /// The file, open for reading and writing.
    pub file: Arc<dyn File>,
    /// Its length.
    pub bytes: u64,
}

/// Those that there are.
#[derive(Debug, Default)]
pub struct Spares {
    list: Vec<Spare>,
    /// Segments made since the last time that some were given back.
    made: usize,
    /// As many are kept.
    wanted: usize,
}

impl Spares {
    /// Notes that a segment was made.
    pub fn note_made(&mut self) {
        self.made += 1;
    }

    /// Notes that segments are about to be given back: as many spares are of use as segments were made
    /// since the last time, and one for that which is in use meanwhile. A quiet while takes them one by one.
    pub fn begin_cycle(&mut self) {
        self.wanted = (self.made + 1).max(self.wanted.saturating_sub(1));
        self.made = 0;
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// How many more are of use.
    pub fn missing(&self) -> usize {
        self.wanted.saturating_sub(self.list.len())
    }

    /// Keeps files whose old names are gone for good.
    pub fn keep(&mut self, spares: Vec<Spare>) {
        self.list.extend(spares);
    }

    /// One that nobody reads any more. A view that is held may hold a file for the large payloads in it.
    pub fn take(&mut self) -> Option<Spare> {
        let is_free = |spare: &mut Spare| {
            !Safeguard::LogSpareHeld.finds(Arc::get_mut(&mut spare.file).is_none())
        };
        let free = self.list.iter_mut().position(is_free)?;
        Some(self.list.swap_remove(free))
    }

    /// Removes all of them. The result is whether there were any.
    pub fn clear(&mut self, disk: &dyn Disk) -> Result<bool> {
        let had = !self.list.is_empty();
        while let Some(spare) = self.list.last() {
            match disk.remove(&spare.name) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io(format_args!("remove {}", spare.name), e));
                }
                _ => drop(self.list.pop()),
            }
        }
        Ok(had)
    }

    /// Bytes of memory that they take.
    pub fn resident_bytes(&self) -> usize {
        self.list.capacity() * size_of::<Spare>()
    }
}

/// Makes a spare of a segment that nothing needs, if it may be one. Its new name is not durable yet.
pub fn retire(disk: &dyn Disk, segment: &Active, segment_bytes: u64) -> Option<Spare> {
    if !segment.may_recycle || segment.file_bytes() > segment_bytes {
        return None;
    }
    let name = format!("{}{SPARE}", file_name(segment.number));
    // One that cannot be renamed is removed, as if there were no spares.
    disk.rename(&file_name(segment.number), &name).ok()?;
    Some(Spare { name, file: Arc::clone(&segment.file), bytes: segment.file_bytes() })
}
