//! Checksummed pages under redb: no byte of the index is believed before its CRC-32 was checked.
//!
//! redb verifies its own checksums only when it repairs; an ordinary read believes the page. This
//! layer stands between redb and the disk and makes every read of a damaged page an error of kind
//! `InvalidData`, so that a flipped bit can never turn a live key into "not found".
//!
//! Layout of the file, in pages of 4,096 bytes:
//!
//! ```text
//! page 0        header: the start of redb's page 0, in one sector of 512 bytes with a CRC
//! page 1        the same header again
//! page 2        CRC page of group 0: 1,024 little-endian u32, one for each data page
//! page 3..1026  redb's pages 1..1024
//! page 1027     CRC page of group 1, and so on
//!
//! header sector magic 8, sequence u64, redb's first 480 bytes, zeros, CRC u32
//! ```
//!
//! The steps: a write stores the page and sets its entry in RAM; a sync writes the CRC pages that
//! changed and then syncs everything together; a read compares page and entry. The CRC covers the
//! page's number as well, so a page that was written to the wrong place does not verify. Entry 0
//! means "never written"; redb never reads such a page, so reading one is an error too, which is
//! what makes lost extents (zeros on both sides) visible.
//!
//! Why updating CRC pages in place survives a crash: redb copies on write, so a page that the last
//! durable commit reaches is not written again before a later commit is durable; its entry keeps
//! its value in the old and in the new version of the CRC page, whichever of the two the disk
//! kept, sector by sector. Pages that a crash leaves without a matching entry belong to no durable
//! commit. redb's header is the exception: it is rewritten in place. So it stands there twice. At
//! every sync both copies become equal; in between one may be torn and the other is then whole, the
//! old one or the new one, and redb can start from either. After a sync a rotten copy has a whole
//! one beside it that says the same. Both rotten: refused.
//!
//! Never: retries a failed write, or knows what redb keeps in its pages.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use redb::StorageBackend;

use crate::io::File;
use crate::words::safeguard::Safeguard;

/// Bytes of a page, redb's and ours.
pub const PAGE_BYTES: usize = 4096;
const PAGE: u64 = PAGE_BYTES as u64;
/// Entries of a CRC page.
const GROUP_PAGES: usize = PAGE_BYTES / 4;
const GROUP: u64 = GROUP_PAGES as u64;
/// The header sector: magic, what redb wrote at the start of its page 0, CRC.
const HEADER_SECTOR_BYTES: usize = 512;
const MAGIC: &[u8; 8] = b"pmllidx1";
const HEADER_COPIES: u64 = 2;
const HEADER_AT: usize = MAGIC.len() + 8;
/// redb 4 uses 320 bytes of its page 0.
const HEADER_BYTES: usize = 480;
const HEADER_CRC_AT: usize = HEADER_SECTOR_BYTES - 4;

/// What happened below redb since the file was opened; shared with the catalog.
#[derive(Debug, Default)]
pub struct Health {
    /// Bytes written to the file, CRC pages included.
    pub written: AtomicU64,
    /// Bytes read from the file.
    pub read: AtomicU64,
    /// CRC pages held in RAM.
    pub crc_pages: AtomicU64,
    /// Pages that hold something, as far as their CRC pages are in RAM.
    pub used_pages: AtomicU64,
    /// The first failure, with the kind of its error. redb answers everything after it with one
    /// word, and this is what that word stands for.
    pub failure: Mutex<Option<(io::ErrorKind, String)>>,
    /// Whether there was one.
    pub is_broken: AtomicBool,
    /// Whether a page was met that is damaged, or cannot be read.
    pub is_rotten: AtomicBool,
}

/// A read that the disk refused. A bad sector answers so, not with wrong bytes: it stays what it is
/// until the file is made anew, as a damaged page does.
#[derive(Debug, thiserror::Error)]
#[error("{name} at offset {offset}: {error}")]
pub struct Unreadable {
    name: String,
    offset: u64,
    error: io::Error,
}

/// The layer: redb's backend over one open file.
#[derive(Debug)]
pub struct PagedBackend {
    name: String,
    file: Arc<dyn File>,
    state: RwLock<State>,
    health: Arc<Health>,
}

#[derive(Debug)]
struct State {
    /// Pages as redb counts them, page 0 included.
    pages: u64,
    groups: Vec<Option<Box<Group>>>,
    /// Sequence and bytes of the header, once read or written.
    header: Option<(u64, [u8; HEADER_BYTES])>,
    /// The file was empty when it was opened, and no header was written yet.
    blank: bool,
}

#[derive(Debug)]
struct Group {
    entries: [u32; GROUP_PAGES],
    dirty: bool,
}

impl PagedBackend {
    /// Takes an open file: an empty one, or one that this layer wrote. `name` is for messages.
    pub fn new(name: &str, file: Arc<dyn File>, health: Arc<Health>) -> io::Result<PagedBackend> {
        let file_len = file.len()?;
        let pages = pages_of(file_len);
        let groups = group_count(pages)?;
        let mut empty = Vec::new();
        empty.resize_with(groups, || None);
        let state = RwLock::new(State { pages, groups: empty, header: None, blank: file_len == 0 });
        Ok(PagedBackend { name: name.to_owned(), file, state, health })
    }

    /// Checks that there is a header, before redb is let near the file.
    pub fn check_header(&self) -> io::Result<()> {
        self.read_header().map(drop)
    }

    fn rotten(&self, what: &str, offset: u64) -> io::Error {
        let message = format!("{}: {what} at offset {offset}", self.name);
        io::Error::new(io::ErrorKind::InvalidData, message)
    }

    /// Remembers the first error, for the words of the later ones.
    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            let is_rot = error.kind() == io::ErrorKind::InvalidData;
            self.health.is_rotten.fetch_or(is_rot, Ordering::AcqRel);
            self.health.is_broken.store(true, Ordering::Release);
            let mut failure = self.health.failure.lock();
            failure.get_or_insert_with(|| (error.kind(), error.to_string()));
        }
        result
    }

    fn read_file(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.health.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.file.read_exact_at(buf, offset).map_err(|error| {
            self.health.is_rotten.store(true, Ordering::Release);
            io::Error::new(error.kind(), Unreadable { name: self.name.clone(), offset, error })
        })
    }

    fn write_file(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.health.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.file.write_at(bytes, offset)
    }

    fn read_header(&self) -> io::Result<[u8; HEADER_BYTES]> {
        let known = self.state.read().header;
        if let Some((_, header)) = known {
            return Ok(header);
        }
        let (first, second) = (self.read_copy(0)?, self.read_copy(1)?);
        if first.is_none() != second.is_none() {
            tracing::warn!(
                "{}: one of two copies of its header is damaged; using the other",
                self.name
            );
        }
        // The higher sequence; `None` is below every `Some`.
        let found = std::cmp::max_by_key(first, second, |copy| copy.map(|(sequence, _)| sequence));
        let found =
            found.ok_or_else(|| self.rotten("the header does not match its checksum", 0))?;
        self.state.write().header = Some(found);
        Ok(found.1)
    }

    /// A copy of the header; `None` when it is damaged.
    fn read_copy(&self, copy: u64) -> io::Result<Option<(u64, [u8; HEADER_BYTES])>> {
        let mut sector = [0; HEADER_SECTOR_BYTES];
        self.read_file(&mut sector, copy * PAGE)?;
        let body = sector.get(..HEADER_CRC_AT).unwrap_or_default();
        let stored = u32::from_le_bytes(last_four(&sector));
        let differs = stored != page_crc(copy, body);
        if !body.starts_with(MAGIC) || Safeguard::CatalogHeaderCrc.finds(differs) {
            return Ok(None);
        }
        let sequence = body.get(MAGIC.len()..).and_then(|b| b.first_chunk::<8>());
        let header = body.get(HEADER_AT..).and_then(|b| b.first_chunk::<HEADER_BYTES>());
        Ok(sequence.zip(header).map(|(s, header)| (u64::from_le_bytes(*s), *header)))
    }

    /// Overlays `bytes` on page 0 at `within` and writes both copies.
    fn write_header(&self, within: usize, bytes: &[u8]) -> io::Result<()> {
        let end = within.checked_add(bytes.len()).filter(|end| *end <= HEADER_BYTES);
        let Some(end) = end else {
            let message = format!("{}: redb wrote past the header's {HEADER_BYTES}", self.name);
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        };
        let (sequence, mut header) = if self.state.read().blank {
            (0, [0; HEADER_BYTES])
        } else {
            let header = self.read_header()?;
            (self.state.read().header.map_or(0, |(sequence, _)| sequence), header)
        };
        header[within..end].copy_from_slice(bytes);
        let next = (sequence.saturating_add(1), header);
        for copy in 0..HEADER_COPIES {
            let mut sector = [0; HEADER_SECTOR_BYTES];
            sector[..MAGIC.len()].copy_from_slice(MAGIC);
            sector[MAGIC.len()..HEADER_AT].copy_from_slice(&next.0.to_le_bytes());
            sector[HEADER_AT..HEADER_AT + HEADER_BYTES].copy_from_slice(&next.1);
            let crc = page_crc(copy, &sector[..HEADER_CRC_AT]);
            sector[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
            self.write_file(&sector, copy * PAGE)?;
        }
        let mut state = self.state.write();
        state.header = Some(next);
        state.blank = false;
        Ok(())
    }

    /// Makes sure that the CRC page of a group is in RAM.
    fn load_group(&self, group: usize) -> io::Result<()> {
        if self.state.read().groups.get(group).is_some_and(Option::is_some) {
            return Ok(());
        }
        let mut state = self.state.write();
        self.load_group_in(&mut state, group).map(drop)
    }

    fn load_group_in<'s>(&self, state: &'s mut State, group: usize) -> io::Result<&'s mut Group> {
        let slot = state.groups.get_mut(group);
        let slot = slot.ok_or_else(|| self.rotten("a page beyond the end was asked for", 0))?;
        if slot.is_none() {
            let mut page = vec![0; PAGE_BYTES];
            self.read_file(&mut page, crc_page_offset(group))?;
            let mut entries = [0; GROUP_PAGES];
            for (entry, bytes) in entries.iter_mut().zip(page.chunks_exact(4)) {
                *entry = u32::from_le_bytes(last_four(bytes));
            }
            let used = entries.iter().filter(|entry| **entry != 0).count() as u64;
            self.health.used_pages.fetch_add(used, Ordering::Relaxed);
            *slot = Some(Box::new(Group { entries, dirty: false }));
            self.health.crc_pages.fetch_add(1, Ordering::Relaxed);
        }
        slot.as_deref_mut().ok_or_else(|| self.rotten("a CRC page is missing", 0))
    }

    /// Reads whole pages of one group and checks each.
    fn read_run(&self, page: u64, buf: &mut [u8]) -> io::Result<()> {
        let (group, slot) = place_of(page)?;
        self.load_group(group)?;
        self.read_file(buf, data_offset(page))?;
        let state = self.state.read();
        let loaded = state.groups.get(group).and_then(Option::as_deref);
        for (i, bytes) in buf.chunks_exact(PAGE_BYTES).enumerate() {
            let number = page + i as u64;
            let entry = loaded.and_then(|g| g.entries.get(slot + i)).copied().unwrap_or(0);
            if entry == 0 {
                return Err(
                    self.rotten("a page that was never written was read", data_offset(number))
                );
            }
            if Safeguard::CatalogPageCrc.finds(entry != page_crc(number, bytes)) {
                return Err(self.rotten("a page does not match its checksum", data_offset(number)));
            }
        }
        Ok(())
    }

    fn write_run(&self, page: u64, bytes: &[u8]) -> io::Result<()> {
        let (group, slot) = place_of(page)?;
        self.load_group(group)?;
        self.write_file(bytes, data_offset(page))?;
        let mut state = self.state.write();
        let loaded = self.load_group_in(&mut state, group)?;
        for (i, bytes) in bytes.chunks_exact(PAGE_BYTES).enumerate() {
            if let Some(entry) = loaded.entries.get_mut(slot + i) {
                self.health.used_pages.fetch_add(u64::from(*entry == 0), Ordering::Relaxed);
                *entry = page_crc(page + i as u64, bytes);
            }
        }
        loaded.dirty = true;
        Ok(())
    }

    /// A page for an overlay: zeros when it was never written.
    fn read_page_or_zeros(&self, page: u64) -> io::Result<Vec<u8>> {
        let (group, slot) = place_of(page)?;
        self.load_group(group)?;
        let written = {
            let state = self.state.read();
            let loaded = state.groups.get(group).and_then(Option::as_deref);
            loaded.and_then(|g| g.entries.get(slot)).is_some_and(|entry| *entry != 0)
        };
        let mut buf = vec![0; PAGE_BYTES];
        if written {
            self.read_run(page, &mut buf)?;
        }
        Ok(buf)
    }

    fn check_range(&self, offset: u64, len: usize) -> io::Result<()> {
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| end > self.state.read().pages * PAGE) {
            let message = format!("{}: bytes beyond the end were asked for", self.name);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        Ok(())
    }

    fn read_all(&self, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        self.check_range(offset, out.len())?;
        while !out.is_empty() {
            let piece = piece_at(offset, out.len());
            let (now, rest) = out.split_at_mut(piece.len);
            if piece.page == 0 {
                let header = self.read_header()?;
                let known = now.len().min(HEADER_BYTES.saturating_sub(piece.within));
                let (inside, beyond) = now.split_at_mut(known);
                if known > 0 {
                    inside.copy_from_slice(&header[piece.within..piece.within + known]);
                }
                beyond.fill(0);
            } else if piece.whole {
                self.read_run(piece.page, now)?;
            } else {
                let mut page = vec![0; PAGE_BYTES];
                self.read_run(piece.page, &mut page)?;
                now.copy_from_slice(&page[piece.within..piece.within + now.len()]);
            }
            offset += piece.len as u64;
            out = rest;
        }
        Ok(())
    }

    fn write_all(&self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        self.check_range(offset, bytes.len())?;
        while !bytes.is_empty() {
            let piece = piece_at(offset, bytes.len());
            let (now, rest) = bytes.split_at(piece.len);
            if piece.page == 0 {
                self.write_header(piece.within, now)?;
            } else if piece.whole {
                self.write_run(piece.page, now)?;
            } else {
                let mut page = self.read_page_or_zeros(piece.page)?;
                page[piece.within..piece.within + now.len()].copy_from_slice(now);
                self.write_run(piece.page, &page)?;
            }
            offset += piece.len as u64;
            bytes = rest;
        }
        Ok(())
    }

    fn resize(&self, len: u64) -> io::Result<()> {
        if !len.is_multiple_of(PAGE) {
            let message = format!("{}: length {len} is not a number of pages", self.name);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let pages = len / PAGE;
        let mut state = self.state.write();
        let groups = group_count(pages)?;
        self.file.set_len(file_bytes(pages))?;
        if pages < state.pages && groups > 0 {
            // The pages cut off are unwritten again, should the file grow back over them.
            let kept = usize::try_from((pages - 1) - (groups as u64 - 1) * GROUP)
                .map_err(|_| self.rotten("a length out of range", len))?;
            let last = self.load_group_in(&mut state, groups - 1)?;
            if let Some(cut) = last.entries.get_mut(kept..) {
                cut.fill(0);
                last.dirty = true;
            }
        }
        state.groups.resize_with(groups, || None);
        state.pages = pages;
        let loaded = || state.groups.iter().flatten();
        let used = loaded().flat_map(|group| group.entries).filter(|entry| *entry != 0).count();
        self.health.crc_pages.store(loaded().count() as u64, Ordering::Relaxed);
        self.health.used_pages.store(used as u64, Ordering::Relaxed);
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut page = Vec::new();
        {
            let mut state = self.state.write();
            for (number, group) in state.groups.iter_mut().enumerate() {
                let Some(group) = group.as_deref_mut().filter(|g| g.dirty) else { continue };
                page.clear();
                page.extend(group.entries.iter().flat_map(|entry| entry.to_le_bytes()));
                self.write_file(&page, crc_page_offset(number))?;
                group.dirty = false;
            }
        }
        Safeguard::CatalogSync.keep(|| self.file.sync())
    }
}

impl StorageBackend for PagedBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.read().pages * PAGE)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.note(self.read_all(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.note(self.resize(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.note(self.sync_all())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.note(self.write_all(offset, data))
    }
}

/// What one step of a read or write covers: the header, a run of whole pages of one group, or a
/// part of one page.
struct Piece {
    page: u64,
    within: usize,
    len: usize,
    whole: bool,
}

fn piece_at(offset: u64, len: usize) -> Piece {
    let page = offset / PAGE;
    // Both fit: a remainder of 4,096, and at most 1,024 pages of 4,096 bytes.
    let within = (offset % PAGE) as usize;
    if page == 0 || within > 0 || len < PAGE_BYTES {
        return Piece { page, within, len: len.min(PAGE_BYTES - within), whole: false };
    }
    let left_in_group = (GROUP - (page - 1) % GROUP) as usize;
    let pages = (len / PAGE_BYTES).min(left_in_group);
    Piece { page, within, len: pages * PAGE_BYTES, whole: true }
}

/// CRC-32 of a page, seeded with its number; never 0, which stands for "never written".
fn page_crc(page: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&page.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize().max(1)
}

fn last_four(bytes: &[u8]) -> [u8; 4] {
    bytes.last_chunk::<4>().copied().unwrap_or_default()
}

/// Group and slot of a data page; page 0 has none.
fn place_of(page: u64) -> io::Result<(usize, usize)> {
    let data = page.checked_sub(1).ok_or(io::ErrorKind::InvalidInput)?;
    let group = usize::try_from(data / GROUP).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok((group, (data % GROUP) as usize))
}

fn group_count(pages: u64) -> io::Result<usize> {
    let groups = pages.saturating_sub(1).div_ceil(GROUP);
    usize::try_from(groups).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn crc_page_offset(group: usize) -> u64 {
    (HEADER_COPIES + group as u64 * (GROUP + 1)) * PAGE
}

fn data_offset(page: u64) -> u64 {
    let data = page.saturating_sub(1);
    (HEADER_COPIES + 1 + data / GROUP * (GROUP + 1) + data % GROUP) * PAGE
}

/// Length of the file that holds this many of redb's pages.
fn file_bytes(pages: u64) -> u64 {
    match pages.checked_sub(1) {
        None => 0,
        Some(data) => (HEADER_COPIES + data + data.div_ceil(GROUP)) * PAGE,
    }
}

/// Number of redb's pages in a file of this length; a rest is ignored, redb then asks for repair.
fn pages_of(file_len: u64) -> u64 {
    match (file_len / PAGE).checked_sub(HEADER_COPIES) {
        None => 0,
        Some(rest) => 1 + rest / (GROUP + 1) * GROUP + (rest % (GROUP + 1)).saturating_sub(1),
    }
}
