//! An arena block: packed codes of one width of entries of one collection, and whose they are.
//!
//! ```text
//! header (64): magic (8) | format u32 | rows u32 | store id (16) | number u64 | collection u32
//!            | dim u32 | group u32 | row bytes u32 | bits u8 | zeros (3) | header CRC u32
//! table:       rows x (entry id u64, version u64), ascending by id | table CRC u32
//! codes:       at the next multiple of 64: rows x row bytes | codes CRC u32
//! ```
//!
//! Little-endian. The checksums of table and codes begin with store id, number and a kind, so that
//! neither verifies in another block or another store. The file ends with the last CRC.
//!
//! A block says by itself which version of which entry a row is, so nothing else has to point at it.
//! Decoders take bytes and look at every length before they go by it.

use crate::bytes::codec::cursor::{Put, Reader};
use crate::bytes::codec::segment::Damage;
use crate::words::id::{CollectionId, EntryId, Lsn};
use crate::words::limits;
use crate::words::safeguard::Safeguard;

/// First bytes of a block.
pub const MAGIC: [u8; 8] = *b"pmllBLK\n";
/// Format number; 0 is the development format, refused by every later build.
pub const FORMAT: u32 = 0;
/// Length of the header.
pub const HEADER_BYTES: usize = 64;
/// Length of an entry of the table.
pub const ENTRY_BYTES: usize = 16;
/// Codes begin at a multiple of this.
pub const ALIGN: usize = 64;
/// Longest block.
pub const BLOCK_BYTES_MAX: usize = 16 << 20;
const CRC_BYTES: usize = 4;

/// What a block says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// The store it belongs to.
    pub store_id: [u8; 16],
    /// Its number.
    pub number: u64,
    /// Whose entries it holds.
    pub collection: CollectionId,
    /// Values of a vector.
    pub dim: u32,
    /// Values that share constants.
    pub group: u32,
    /// Bits a value: 8 or 4.
    pub bits: u8,
    /// Number of rows, at least 1.
    pub rows: u32,
    /// Bytes of a row of codes.
    pub row_bytes: u32,
}

/// Parts of a block with a checksum of their own.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// Whose the rows are.
    Table = 1,
    /// The codes.
    Codes = 2,
}

impl BlockHeader {
    /// Where the codes begin.
    #[must_use]
    pub fn codes_at(&self) -> usize {
        let table = self.rows as usize * ENTRY_BYTES + CRC_BYTES;
        (HEADER_BYTES + table).next_multiple_of(ALIGN)
    }

    /// Bytes of all codes.
    #[must_use]
    pub fn codes_bytes(&self) -> usize {
        self.rows as usize * self.row_bytes as usize
    }

    /// Length of the file.
    #[must_use]
    pub fn file_bytes(&self) -> usize {
        self.codes_at() + self.codes_bytes() + CRC_BYTES
    }

    fn check(&self) -> Result<(), Damage> {
        let bytes = u64::from(self.rows) * (u64::from(self.row_bytes) + ENTRY_BYTES as u64);
        if self.rows == 0
            || self.row_bytes == 0
            || bytes > BLOCK_BYTES_MAX as u64
            || ![4, 8].contains(&self.bits)
            || self.dim == 0
            || self.dim as usize > limits::DIM_MAX
        {
            return Err(Damage::new("its counts contradict each other"));
        }
        Ok(())
    }

    /// The checksum of a part.
    #[must_use]
    pub fn crc(&self, part: Part, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.store_id);
        hasher.update(&self.number.to_le_bytes());
        hasher.update(&[part as u8]);
        hasher.update(bytes);
        hasher.finalize()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_bytes(&MAGIC);
        out.put_u32(FORMAT);
        out.put_u32(self.rows);
        out.put_bytes(&self.store_id);
        out.put_u64(self.number);
        out.put_u32(self.collection.0);
        out.put_u32(self.dim);
        out.put_u32(self.group);
        out.put_u32(self.row_bytes);
        out.put_u8(self.bits);
        out.put_bytes(&[0; 3]);
        let crc = crc32fast::hash(out.get(start..).unwrap_or_default());
        out.put_u32(crc);
    }

    /// Reads a header: format and fields. The format is told before the CRC is looked at, which a
    /// later one may compute otherwise.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<(u32, BlockHeader), Damage> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != MAGIC {
            return Err(Damage::new("it does not begin as an arena block"));
        }
        let format = reader.u32()?;
        let rows = reader.u32()?;
        let header = BlockHeader {
            rows,
            store_id: reader.array()?,
            number: reader.u64()?,
            collection: CollectionId(reader.u32()?),
            dim: reader.u32()?,
            group: reader.u32()?,
            row_bytes: reader.u32()?,
            bits: reader.u8()?,
        };
        if format != FORMAT {
            return Ok((format, header));
        }
        let (body, crc) = bytes.split_last_chunk::<CRC_BYTES>().unwrap_or((&[], &[0; 4]));
        if Safeguard::ArenaHeaderCrc.finds(crc32fast::hash(body).to_le_bytes() != *crc) {
            return Err(Damage::new("header CRC differs"));
        }
        header.check()?;
        Ok((format, header))
    }
}

/// The bytes of a whole block. `rows` are ascending by id and as many as the header says; `codes`
/// are theirs, one after the other.
pub fn encode(
    header: &BlockHeader,
    rows: &[(EntryId, Lsn)],
    codes: &[u8],
) -> Result<Vec<u8>, Damage> {
    header.check()?;
    let ascending = rows.is_sorted_by(|a, b| a.0 < b.0);
    if rows.len() != header.rows as usize || codes.len() != header.codes_bytes() || !ascending {
        return Err(Damage::new("rows and codes are not what the header says"));
    }
    let mut out = Vec::with_capacity(header.file_bytes());
    header.encode(&mut out);
    for (id, version) in rows {
        out.put_u64(id.0);
        out.put_u64(version.0);
    }
    let crc = header.crc(Part::Table, out.get(HEADER_BYTES..).unwrap_or_default());
    out.put_u32(crc);
    out.resize(header.codes_at(), 0);
    out.put_bytes(codes);
    out.put_u32(header.crc(Part::Codes, codes));
    Ok(out)
}

/// The table of a block: entries of 16 bytes, checked. `bytes` is the whole block.
pub fn table<'a>(header: &BlockHeader, bytes: &'a [u8]) -> Result<&'a [u8], Damage> {
    let len = header.rows as usize * ENTRY_BYTES;
    let table = bytes.get(HEADER_BYTES..HEADER_BYTES + len);
    let crc = bytes.get(HEADER_BYTES + len..HEADER_BYTES + len + CRC_BYTES);
    let (Some(table), Some(crc)) = (table, crc) else {
        return Err(Damage::new("the file ends too early"));
    };
    if Safeguard::ArenaTableCrc.finds(header.crc(Part::Table, table).to_le_bytes() != *crc) {
        return Err(Damage::new("table CRC differs"));
    }
    Ok(table)
}

/// The codes of a block, unchecked, and the CRC that stands behind them.
pub fn codes<'a>(header: &BlockHeader, bytes: &'a [u8]) -> Result<(&'a [u8], u32), Damage> {
    let (from, len) = (header.codes_at(), header.codes_bytes());
    let codes = bytes.get(from..from + len);
    let crc = bytes.get(from + len..).and_then(|rest| rest.first_chunk::<CRC_BYTES>());
    match (codes, crc) {
        (Some(codes), Some(crc)) if bytes.len() == header.file_bytes() => {
            Ok((codes, u32::from_le_bytes(*crc)))
        }
        _ => Err(Damage::new("the file is not as long as its header says")),
    }
}

/// One entry of a table.
#[must_use]
pub fn entry(table: &[u8], row: usize) -> Option<(EntryId, Lsn)> {
    let bytes = table.get(row * ENTRY_BYTES..)?.first_chunk::<ENTRY_BYTES>()?;
    let mut reader = Reader::new(bytes);
    Some((EntryId(reader.u64().ok()?), Lsn(reader.u64().ok()?)))
}
