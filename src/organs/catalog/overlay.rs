//! A file that is read but never written: what would be written stays in RAM.
//!
//! redb writes when it opens (its recovery flag, a repair after a crash) and when it closes. A
//! store that is opened read-only must not touch its files, so redb gets this in place of the
//! file: pages that it writes are kept beside the file and shadow it, and are forgotten with the
//! last handle.
//!
//! Never: passes a write, a length or a sync on to the file below.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::io::File;
use crate::organs::catalog::backend::PAGE_BYTES;

const PAGE: u64 = PAGE_BYTES as u64;

/// The file below, shadowed by pages in RAM.
#[derive(Debug)]
pub struct OverlayFile {
    base: Arc<dyn File>,
    shadow: Mutex<Shadow>,
}

#[derive(Debug)]
struct Shadow {
    pages: BTreeMap<u64, Box<[u8]>>,
    len: u64,
    /// Bytes of the file below that still count: the shortest length there ever was.
    base_bytes: u64,
}

impl OverlayFile {
    /// Shadows a file.
    pub fn new(base: Arc<dyn File>) -> io::Result<OverlayFile> {
        let len = base.len()?;
        let shadow = Shadow { pages: BTreeMap::new(), len, base_bytes: len };
        Ok(OverlayFile { base, shadow: Mutex::new(shadow) })
    }

    /// Bytes from the file below, zeros where it ends.
    fn read_base(&self, buf: &mut [u8], offset: u64, base_bytes: u64) -> io::Result<()> {
        let there = base_bytes.saturating_sub(offset).min(buf.len() as u64);
        let (from_file, beyond) = buf.split_at_mut(usize::try_from(there).unwrap_or(0));
        beyond.fill(0);
        if from_file.is_empty() {
            return Ok(());
        }
        self.base.read_exact_at(from_file, offset)
    }
}

impl File for OverlayFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let shadow = self.shadow.lock();
        let there = shadow.len.saturating_sub(offset).min(buf.len() as u64);
        let count = usize::try_from(there).unwrap_or(0);
        let mut done = 0;
        while done < count {
            let at = offset + done as u64;
            let within = (at % PAGE) as usize;
            let step = (PAGE_BYTES - within).min(count - done);
            let piece = &mut buf[done..done + step];
            match shadow.pages.get(&(at / PAGE)) {
                Some(page) => piece.copy_from_slice(&page[within..within + step]),
                None => self.read_base(piece, at, shadow.base_bytes)?,
            }
            done += step;
        }
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        let mut shadow = self.shadow.lock();
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let within = (at % PAGE) as usize;
            let step = (PAGE_BYTES - within).min(bytes.len() - done);
            let number = at / PAGE;
            if !shadow.pages.contains_key(&number) {
                let mut page = vec![0; PAGE_BYTES];
                self.read_base(&mut page, number * PAGE, shadow.base_bytes)?;
                shadow.pages.insert(number, page.into_boxed_slice());
            }
            if let Some(page) = shadow.pages.get_mut(&number) {
                page[within..within + step].copy_from_slice(&bytes[done..done + step]);
            }
            done += step;
        }
        shadow.len = shadow.len.max(end);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut shadow = self.shadow.lock();
        if len < shadow.len {
            shadow.base_bytes = shadow.base_bytes.min(len);
            shadow.pages.split_off(&len.div_ceil(PAGE));
            let within = (len % PAGE) as usize;
            if let Some(page) = shadow.pages.get_mut(&(len / PAGE)) {
                page[within..].fill(0);
            }
        }
        shadow.len = len;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.shadow.lock().len)
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.base.try_lock()
    }

    fn try_lock_shared(&self) -> io::Result<bool> {
        self.base.try_lock_shared()
    }
}
