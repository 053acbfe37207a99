//! Where a segment's bytes go while it is written: one buffer in front of the file, and the packing
//! of bodies and payloads into compressed frames.
//!
//! [`Sink`] writes front to back, aligns sections and sums up their CRCs. [`FrameWriter`] fills a
//! frame with whole items until the next one does not fit, compresses it, stores the shorter of the
//! two forms, and keeps its table entry (24 bytes). Neither knows what the bytes mean.

use std::io;
use std::sync::Arc;

use crate::bytes::codec::body::{FRAME_BYTES, FrameEntry};
use crate::bytes::codec::row::Span;
use crate::bytes::codec::segment::{ALIGN, Section, SectionKind, Seed};
use crate::io::File;
use crate::words::error::{Error, Result};
use crate::words::safeguard::Safeguard;

/// zstd level. Measured: docs/decisions/0004-archive-segment-layout.md.
const LEVEL: i32 = 3;
const BUFFER_BYTES: usize = 256 << 10;

/// Packs bytes into frames, compresses full ones, and keeps the table.
pub(super) struct FrameWriter {
    seed: Seed,
    kind: SectionKind,
    group: u16,
    raw: Vec<u8>,
    pub(super) entries: Vec<FrameEntry>,
    compressor: zstd::bulk::Compressor<'static>,
}

impl FrameWriter {
    pub(super) fn new(seed: Seed, kind: SectionKind, group: u16) -> Result<FrameWriter> {
        let compressor =
            zstd::bulk::Compressor::new(LEVEL).map_err(|e| Error::io("start a compressor", e))?;
        Ok(FrameWriter { seed, kind, group, raw: Vec::new(), entries: Vec::new(), compressor })
    }

    /// Puts bytes whole into the frame at hand, or into a new one when they do not fit.
    pub(super) fn pack(&mut self, sink: &mut Sink, bytes: &[u8]) -> Result<Span> {
        if !self.raw.is_empty() && self.raw.len() + bytes.len() > FRAME_BYTES {
            self.flush(sink)?;
        }
        let frame = count(self.entries.len())?;
        let offset = count(self.raw.len())?;
        self.raw.extend_from_slice(bytes);
        Ok(Span { frame, offset, len: count(bytes.len())? })
    }

    pub(super) fn flush(&mut self, sink: &mut Sink) -> Result<()> {
        if self.raw.is_empty() {
            return Ok(());
        }
        let compressed =
            self.compressor.compress(&self.raw).map_err(|e| Error::io("compress a frame", e))?;
        let stored = if compressed.len() < self.raw.len() { &compressed } else { &self.raw };
        let index = self.entries.len() as u64;
        self.entries.push(FrameEntry {
            offset: sink.position(),
            len: count(stored.len())?,
            raw: count(self.raw.len())?,
            crc: self.seed.crc(self.kind, self.group, index, stored),
        });
        sink.write(stored)?;
        self.raw.clear();
        Ok(())
    }

    pub(super) fn write_table(&self, sink: &mut Sink, kind: SectionKind) -> Result<Section> {
        sink.begin()?;
        let mut bytes = Vec::new();
        for (entry, index) in self.entries.iter().zip(0..) {
            bytes.clear();
            entry.encode(self.seed, kind, self.group, index, &mut bytes);
            sink.write(&bytes)?;
        }
        sink.end(kind, self.entries.len())
    }
}

/// The file being written: one buffer, the position, and the CRC of the section at hand.
pub(super) struct Sink {
    file: Arc<dyn File>,
    name: String,
    buffer: Vec<u8>,
    written: u64,
    section: (u64, crc32fast::Hasher),
}

impl Sink {
    pub(super) fn new(file: Arc<dyn File>, name: &str) -> Sink {
        Sink {
            file,
            name: name.to_owned(),
            buffer: Vec::with_capacity(BUFFER_BYTES),
            written: 0,
            section: (0, crc32fast::Hasher::new()),
        }
    }

    pub(super) fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.section.1.update(bytes);
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() >= BUFFER_BYTES {
            return self.write_through(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        let bytes = std::mem::take(&mut self.buffer);
        self.write_through(&bytes)?;
        self.buffer = bytes;
        self.buffer.clear();
        Ok(())
    }

    fn write_through(&mut self, bytes: &[u8]) -> Result<()> {
        if !bytes.is_empty() {
            self.file.write_at(bytes, self.written).map_err(|e| self.failed("write", e))?;
            self.written += bytes.len() as u64;
        }
        Ok(())
    }

    /// Starts a section at the next aligned place.
    pub(super) fn begin(&mut self) -> Result<()> {
        let past = (self.position() % ALIGN) as usize;
        if past > 0 {
            self.write(&[0; ALIGN as usize][past..])?;
        }
        self.section = (self.position(), crc32fast::Hasher::new());
        Ok(())
    }

    pub(super) fn end(&mut self, kind: SectionKind, items: usize) -> Result<Section> {
        let (offset, hasher) = std::mem::take(&mut self.section);
        let len = self.position() - offset;
        Ok(Section { kind, offset, len, items: count(items)?, crc: hasher.finalize() })
    }

    pub(super) fn finish(mut self) -> Result<u64> {
        self.flush()?;
        Safeguard::ArchiveSync.keep(|| self.file.sync()).map_err(|e| self.failed("sync", e))?;
        Ok(self.written)
    }

    fn failed(&self, what: &str, e: io::Error) -> Error {
        Error::io(format!("{what} {}", self.name), e)
    }
}

pub(super) fn count(items: usize) -> Result<u32> {
    u32::try_from(items)
        .ok()
        .filter(|n| *n < u32::MAX)
        .ok_or_else(|| Error::internal(format!("{items} items are more than a segment numbers")))
}
