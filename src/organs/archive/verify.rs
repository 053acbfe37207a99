//! Reading a whole segment and naming everything that is wrong with it.
//!
//! Steps: header, trailer and footer again from the disk; every section against its CRC; the zeros
//! between sections; then the contents as a reader meets them: every row, body, payload and vector,
//! the order of the rows, what the footer claims about them; the operations.
//!
//! It goes on after a damage, so that one list names all that is lost, up to a limit. It never
//! writes, and reads through small buffers: memory does not depend on the segment's size.

use crate::bytes::codec::body::PIECE_BYTES;
use crate::bytes::codec::footer::Group;
use crate::bytes::codec::row::{Row, fingerprint};
use crate::bytes::codec::segment::HEADER_BYTES;
use crate::words::error::{Error, Result};
use crate::words::safeguard::Safeguard;

use super::frames::BodyReader;
use super::segment::{Segment, read_frame_of};

/// More damages than this are not listed: nobody reads them, and the list must not fill the RAM.
const PROBLEMS_MAX: usize = 1000;
const BUFFER_BYTES: usize = 256 << 10;
const BLOCK_ROWS: u32 = 256;

impl Segment {
    /// Reads and checks everything. An empty list means that every byte is as it was written.
    #[must_use]
    pub fn verify(&self) -> Vec<Error> {
        let mut problems = Problems(Vec::new());
        problems.note(self.verify_frame());
        self.verify_sections(&mut problems);
        for (group, number) in self.footer.groups.iter().zip(0..) {
            self.verify_group(group, number, &mut problems);
        }
        problems.note(self.visit_ops(&mut |_, _| Ok(())));
        problems.0
    }

    fn verify_frame(&self) -> Result<()> {
        let bytes = self.file.len().map_err(|e| Error::io(format!("read {}", self.name), e))?;
        let (number, store) = (self.number(), self.footer.store_id);
        let (footer, crc) = read_frame_of(&*self.file, &self.name, bytes, number, store)?;
        if bytes != self.bytes || crc != self.crc || footer != self.footer {
            return Err(Error::corrupt(format!("{}: changed since it was opened", self.name)));
        }
        Ok(())
    }

    fn verify_sections(&self, problems: &mut Problems) {
        let mut at = HEADER_BYTES as u64;
        for (_, section) in self.footer.sections() {
            problems.note(self.verify_gap(at, section.offset));
            let crc = self.crc_of(section.offset, section.len);
            problems.note(crc.and_then(|crc| {
                match Safeguard::ArchiveSectionCrc.finds(crc != section.crc) {
                    false => Ok(()),
                    true => {
                        let what = format!("CRC of the section of {:?} differs", section.kind);
                        Err(self.damaged(section.offset, what))
                    }
                }
            }));
            at = section.end();
        }
    }

    fn verify_gap(&self, from: u64, to: u64) -> Result<()> {
        let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0)];
        self.read(&mut bytes, from)?;
        match bytes.iter().position(|b| *b != 0) {
            Some(at) => Err(self.damaged(from + at as u64, "a byte between sections is not zero")),
            None => Ok(()),
        }
    }

    fn crc_of(&self, offset: u64, len: u64) -> Result<u32> {
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut done = 0;
        while done < len {
            let take = usize::try_from(len - done).unwrap_or(usize::MAX).min(BUFFER_BYTES);
            let part = buffer.get_mut(..take).unwrap_or_default();
            self.read(part, offset + done)?;
            hasher.update(part);
            done += take as u64;
        }
        Ok(hasher.finalize())
    }

    fn verify_group(&self, group: &Group, number: u16, problems: &mut Problems) {
        let mut reader = BodyReader::new(self, number);
        let mut scratch = Vec::new();
        let mut rows = Vec::new();
        let mut last: Option<Row> = None;
        let mut from = 0;
        while from < group.rows && problems.room() {
            let count = BLOCK_ROWS.min(group.rows - from);
            rows.clear();
            if self.rows(number, from, count, &mut rows).is_err() {
                // Row by row, so that one bad row does not hide the others of its block.
                for row in from..from + count {
                    match self.row(number, row) {
                        Ok(row) => rows.push(row),
                        Err(error) => problems.note(Err(error)),
                    }
                }
            }
            for row in rows.drain(..) {
                problems.note(self.verify_claims(group, last.as_ref(), &row));
                problems.note(verify_body(&mut reader, &row));
                problems.note(self.check_payload(&mut reader, number, &row));
                problems.note(self.vector(number, &row).map(|_| ()));
                if let Some(index) = row.vector_index {
                    problems.note(self.code(number, index, &mut scratch));
                }
                last = Some(row);
            }
            from += count;
        }
    }

    /// Order, and what the footer says about the rows of the group.
    fn verify_claims(&self, group: &Group, last: Option<&Row>, row: &Row) -> Result<()> {
        let wrong = |what: &str| {
            let number = row.number;
            Err(Error::corrupt(format!(
                "{}: row {number} of collection {}: {what}",
                self.name, group.collection.0
            )))
        };
        let same_kind = |last: &&Row| last.vector_index.is_some() == row.vector_index.is_some();
        if last.filter(same_kind).is_some_and(|last| last.id >= row.id) {
            return wrong("its id is not larger than the one before");
        }
        if row.id < group.min_id || row.id > group.max_id {
            return wrong("its id is outside what the footer says");
        }
        if row.version < group.min_version || row.version > group.max_version {
            return wrong("its version is outside what the footer says");
        }
        if row.id.0 >= self.footer.next_id {
            return wrong("its id was not given out yet");
        }
        Ok(())
    }

    /// Reads a payload and checks it; a large one piece by piece.
    pub fn check_payload(&self, reader: &mut BodyReader<'_>, group: u16, row: &Row) -> Result<()> {
        if !row.pieces {
            return reader.payload(row).map(|_| ());
        }
        let len = row.payload_len() as usize;
        let mut hasher = crc32fast::Hasher::new();
        let mut piece = Vec::new();
        for from in (0..len).step_by(PIECE_BYTES) {
            piece.resize(PIECE_BYTES.min(len - from), 0);
            self.payload_piece(group, row, from as u64, &mut piece)?;
            hasher.update(&piece);
        }
        match hasher.finalize() == row.payload_crc {
            true => Ok(()),
            false => Err(Error::corrupt(format!(
                "{}: CRC of the payload of row {} in group {group} differs",
                self.name, row.number
            ))),
        }
    }
}

fn verify_body(reader: &mut BodyReader<'_>, row: &Row) -> Result<()> {
    let body = reader.body(row)?;
    match fingerprint(&body.namespace, &body.key) == row.fingerprint {
        true => Ok(()),
        false => Err(Error::corrupt(format!(
            "row {} of entry {}: its fingerprint is not that of key {}",
            row.number, row.id, body.key
        ))),
    }
}

struct Problems(Vec<Error>);

impl Problems {
    fn note(&mut self, result: Result<()>) {
        if let (Err(error), true) = (result, self.room()) {
            self.0.push(error);
        }
    }

    fn room(&self) -> bool {
        self.0.len() < PROBLEMS_MAX
    }
}
