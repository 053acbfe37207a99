//! Files of cells: sketches of a collection grouped by nearness, sealed like blocks.
//!
//! `arena/NNNNNNNNNN.cel` is written front to back by a [`CellsWriter`]: header and tables, then one
//! body a cell; temporary name, sync, rename, sync of the folder. It names rows of the archive by
//! segment, group and place, which never change, so it stays right for as long as their segments are
//! there, and what comes later is simply not in it.
//!
//! Header and tables are read and checked when the file is opened; a body when it is asked for, or
//! all at once by whoever keeps them.
//!
//! Never: knows which rows live, or which cells are worth a look.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bytes::codec::cells::{
    CellsHeader, FORMAT, HEADER_BYTES, Tables, body_bytes, open_body, seal_body,
};
use crate::bytes::codec::codes;
use crate::io::{Disk, File, OpenMode};
use crate::pure::quant;
use crate::words::error::{Error, ErrorKind, Result};

use super::{Bodies, FOLDER, TEMPORARY, list_of, remove_file, remove_if_there, seal};

pub(super) const SUFFIX: &str = ".cel";

/// Name of a file of cells.
#[must_use]
pub fn file_name(number: u64) -> String {
    format!("{FOLDER}/{number:010}{SUFFIX}")
}

/// Numbers of all sealed files of cells, ascending.
pub fn list(disk: &dyn Disk) -> Result<Vec<u64>> {
    list_of(disk, SUFFIX)
}

/// Removes a file of cells. One that is gone already is no error.
pub fn remove(disk: &dyn Disk, number: u64) -> Result<()> {
    remove_file(disk, &file_name(number))
}

/// Bytes that are gathered before they are written.
const WRITE_BYTES: usize = 256 << 10;

/// A file of cells that is being written.
pub struct CellsWriter<'a> {
    disk: &'a dyn Disk,
    header: CellsHeader,
    name: String,
    file: Arc<dyn File>,
    gathered: Vec<u8>,
    at: u64,
    sealed: bool,
}

impl<'a> CellsWriter<'a> {
    /// Begins a file with its header and tables.
    pub fn create(
        disk: &'a dyn Disk,
        header: CellsHeader,
        tables: &Tables,
    ) -> Result<CellsWriter<'a>> {
        let name = file_name(header.number);
        let damaged = |damage| Error::internal(format!("{name}: {damage}"));
        let mut gathered = header.encode().map_err(damaged)?;
        gathered.extend_from_slice(&tables.encode(&header).map_err(damaged)?);
        let temporary = format!("{name}{TEMPORARY}");
        let opened = remove_if_there(disk, &temporary)
            .and_then(|()| disk.open(&temporary, OpenMode::CreateNew));
        let file = opened.map_err(|e| Error::io(format!("create {temporary}"), e))?;
        Ok(CellsWriter { disk, header, name, file, gathered, at: 0, sealed: false })
    }

    /// Adds the sketches of the next cell, whole blocks; none for one without rows.
    pub fn add(&mut self, cell: u32, mut blocks: Vec<u8>) -> Result<()> {
        if !blocks.is_empty() {
            seal_body(&self.header, cell, &mut blocks);
            self.gathered.append(&mut blocks);
        }
        if self.gathered.len() < WRITE_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<()> {
        let written = self.file.write_at(&self.gathered, self.at);
        written.map_err(|e| Error::io(format!("write {}", self.name), e))?;
        self.at += self.gathered.len() as u64;
        self.gathered.clear();
        Ok(())
    }

    /// Seals the file; when it returns Ok, it survives a power cut. Answers its bytes.
    pub fn finish(mut self) -> Result<u64> {
        self.flush()?;
        let sealed = seal(self.disk, &*self.file, &self.name);
        sealed.map_err(|e| Error::io(format!("write {}", self.name), e))?;
        self.sealed = true;
        Ok(self.at)
    }
}

impl Drop for CellsWriter<'_> {
    fn drop(&mut self) {
        if !self.sealed {
            // Best effort, so that a full disk gets its room back; what stays is no harm.
            let _ = self.disk.remove(&format!("{}{TEMPORARY}", self.name));
            let _ = self.disk.remove(&self.name);
        }
    }
}

/// A sealed file of cells, open for reading. `Send + Sync`; goes on working when its name is removed.
#[derive(Debug)]
pub struct Cells {
    /// What it says of itself.
    pub header: CellsHeader,
    /// Sources, centroids, references.
    pub tables: Tables,
    /// Norms of the centroids.
    norms: Box<[f32]>,
    /// First reference of each cell, and the end of the last one.
    starts: Box<[u32]>,
    /// First byte of each body counted from the first one, and the end of the last one.
    offsets: Box<[u64]>,
    /// The same for blocks with no CRC between them.
    blocks_at: Box<[usize]>,
    file: Arc<dyn File>,
    broken: AtomicBool,
}

impl Cells {
    /// Opens a file of this store. Errors: `Io`, `Version` when a newer build wrote it, `Corrupt` when it
    /// is cut, damaged, misnamed or another store's.
    pub fn open(disk: &dyn Disk, number: u64, store_id: [u8; 16]) -> Result<Cells> {
        let name = file_name(number);
        let failed = |e| Error::io(format!("open {name}"), e);
        let damaged = |what: &dyn std::fmt::Display, at: usize| {
            Error::corrupt(format!("{name}: {what} at offset {at}"))
        };
        let file = disk.open(&name, OpenMode::Read).map_err(failed)?;
        let len = file.len().map_err(failed)?;
        let short = || damaged(&"the file is not as long as its header says", 0);
        let mut head = [0; HEADER_BYTES];
        if len < HEADER_BYTES as u64 {
            return Err(short());
        }
        file.read_exact_at(&mut head, 0).map_err(failed)?;
        let (format, header) = CellsHeader::decode(&head).map_err(|d| damaged(&d, 0))?;
        if format != FORMAT {
            let message = format!("{name} has format {format}; this build reads {FORMAT}");
            return Err(Error::new(ErrorKind::Version, message));
        }
        if header.store_id != store_id || header.number != number {
            return Err(damaged(&"the header names another store or file", 0));
        }
        let (Some(sketches), Some(layout)) = (header.sketches(), codes::layout(header.dim)) else {
            return Err(damaged(&"vectors that no sketch is made of", 0));
        };
        // Compared with the file before anything of that length is asked for.
        if header.bodies_at() > len {
            return Err(short());
        }
        let mut bytes = vec![0; usize::try_from(header.tables_bytes()).map_err(|_| short())?];
        file.read_exact_at(&mut bytes, HEADER_BYTES as u64).map_err(failed)?;
        let tables = Tables::decode(&header, &bytes).map_err(|d| damaged(&d, HEADER_BYTES))?;
        let (mut starts, mut offsets, mut blocks_at) = (vec![0], vec![0], vec![0]);
        let (mut start, mut offset, mut block_at) = (0_u32, 0_u64, 0);
        for rows in &tables.rows {
            start = start.saturating_add(*rows);
            offset += body_bytes(sketches, *rows) as u64;
            block_at += sketches.blocks_bytes(*rows as usize);
            starts.push(start);
            offsets.push(offset);
            blocks_at.push(block_at);
        }
        if header.bodies_at() + offset != len {
            return Err(short());
        }
        let centroids = tables.centroids.chunks_exact(layout.row_bytes());
        let norms: Box<[f32]> = centroids.map(quant::norm).collect();
        if !norms.iter().all(|norm| norm.is_finite()) {
            return Err(damaged(&"a centroid without a length", HEADER_BYTES));
        }
        let (starts, offsets, blocks_at) = (starts.into(), offsets.into(), blocks_at.into());
        let broken = AtomicBool::new(false);
        Ok(Cells { header, tables, norms, starts, offsets, blocks_at, file, broken })
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.header.number
    }

    /// Whether somebody met damage in it, or could not read it.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Notes that it cannot be gone by any more.
    pub fn set_broken(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Bytes of RAM it keeps.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let (cells, tables) = (self.norms.len() as u64, self.header.tables_bytes());
        tables + cells * (4 + 4 + 8 + 8) + size_of::<Cells>() as u64
    }

    /// Bytes of all bodies.
    #[must_use]
    pub fn bodies_bytes(&self) -> u64 {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// Length of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.header.bodies_at() + self.bodies_bytes()
    }

    /// Norms of the centroids.
    #[must_use]
    pub fn norms(&self) -> &[f32] {
        &self.norms
    }

    /// References of a cell, in the order of its sketches.
    #[must_use]
    pub fn refs(&self, cell: usize) -> &[u32] {
        let places = self.places(cell);
        self.tables.refs.get(places.start as usize..places.end as usize).unwrap_or_default()
    }

    /// Where they stand among all references.
    #[must_use]
    pub fn places(&self, cell: usize) -> Range<u32> {
        let bounds = (self.starts.get(cell), self.starts.get(cell + 1));
        let (Some(from), Some(to)) = bounds else { return 0..0 };
        *from..*to
    }

    /// The blocks of a cell in what [`all_blocks`](Self::all_blocks) read.
    #[must_use]
    pub fn blocks<'a>(&self, cell: usize, all: &'a [u8]) -> &'a [u8] {
        let bounds = (self.blocks_at.get(cell), self.blocks_at.get(cell + 1));
        let (Some(from), Some(to)) = bounds else { return &[] };
        all.get(*from..*to).unwrap_or_default()
    }

    /// Replaces `blocks` by the sketches of a cell, whole blocks of 64.
    pub fn read(&self, cell: usize, blocks: &mut Vec<u8>) -> Result<()> {
        let (from, to) = match (self.offsets.get(cell), self.offsets.get(cell + 1)) {
            (Some(from), Some(to)) => (*from, *to),
            _ => (0, 0),
        };
        blocks.clear();
        blocks.resize((to - from) as usize, 0);
        if blocks.is_empty() {
            return Ok(());
        }
        self.fill(blocks, from)?;
        let whole = self.check(cell, blocks)?.len();
        blocks.truncate(whole);
        Ok(())
    }

    /// The blocks of all cells, checked, in [`bodies_bytes`](Self::bodies_bytes): one behind the other, so that
    /// each begins with a line of the cache.
    pub fn all_blocks(&self) -> Result<Bodies> {
        let mut bodies = Bodies::zeros(usize::try_from(self.bodies_bytes()).unwrap_or(0));
        self.fill(&mut bodies, 0)?;
        for (cell, (bounds, to)) in self.offsets.windows(2).zip(&self.blocks_at).enumerate() {
            if let [from, end] = bounds
                && from < end
            {
                let body = bodies.get(*from as usize..*end as usize).unwrap_or_default();
                let blocks = self.check(cell, body)?.len();
                // Never to behind where it was: up to here there were as many blocks, and CRCs.
                bodies.copy_within(*from as usize..*from as usize + blocks, *to);
            }
        }
        Ok(bodies)
    }

    fn fill(&self, bytes: &mut [u8], from: u64) -> Result<()> {
        let at = self.header.bodies_at() + from;
        let read = self.file.read_exact_at(bytes, at);
        read.map_err(|e| Error::io(format!("read {} at {at}", file_name(self.number())), e))
    }

    fn check<'a>(&self, cell: usize, body: &'a [u8]) -> Result<&'a [u8]> {
        let at = self.offsets.get(cell).copied().unwrap_or(0) + self.header.bodies_at();
        open_body(&self.header, cell as u32, body).map_err(|damage| {
            Error::corrupt(format!("{}: {damage} at offset {at}", file_name(self.number())))
        })
    }
}
