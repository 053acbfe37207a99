//! The set of hot ids on disk: which entries belong in Level 0 when the store is opened again.
//!
//! ```text
//! columns/hot   magic (8) | store id (16) | length u32 | roaring bitmap of ids | CRC u32 over all
//! ```
//!
//! Little-endian; written whole under a temporary name. It is soft state: what is missing, damaged
//! or of another store counts as empty, and what is out of date names entries that are gone or
//! could stay cold; either costs rank until the next pass.

use std::io;

use roaring::RoaringTreemap;

use crate::bytes::codec::cursor::{Put, Reader};
use crate::io::{Disk, join, read_whole, write_atomic};
use crate::organs::columns::sealed::FOLDER;
use crate::words::error::{Error, Result};
use crate::words::safeguard::Safeguard;

/// Name of the file in its folder.
pub const NAME: &str = "hot";
const MAGIC: &[u8; 8] = b"pmllhot0";
/// No set is read that is longer: 2^26 ids that do not compress at all.
const BYTES_MAX: usize = 1 << 30;

/// Writes the set; durable when it returns.
pub fn save(disk: &dyn Disk, store_id: [u8; 16], hot: &RoaringTreemap) -> Result<u64> {
    let mut bytes = Vec::with_capacity(hot.serialized_size() + 32);
    bytes.put_bytes(MAGIC);
    bytes.put_bytes(&store_id);
    bytes.put_u32(u32::try_from(hot.serialized_size()).unwrap_or(u32::MAX));
    // Writing into a Vec cannot fail.
    let _ = hot.serialize_into(&mut bytes);
    let crc = crc32fast::hash(&bytes);
    bytes.put_u32(crc);
    let name = join(FOLDER, NAME);
    write_atomic(disk, FOLDER, NAME, &bytes).map_err(|e| Error::io(format!("write {name}"), e))?;
    Ok(bytes.len() as u64)
}

/// Removes what writers of this file and of the last moves left behind when they were cut off.
pub fn remove_strays(disk: &dyn Disk) -> Result<()> {
    for name in [NAME, super::moves::NAME] {
        let name = join(FOLDER, &format!("{name}.tmp"));
        match disk.remove(&name) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(format!("remove {name}"), e));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Reads the set. Errors with `Io`, or `Corrupt` when it cannot be believed.
pub fn read(disk: &dyn Disk, store_id: [u8; 16]) -> Result<RoaringTreemap> {
    let name = join(FOLDER, NAME);
    let bytes =
        read_whole(disk, &name, BYTES_MAX).map_err(|e| Error::io(format!("read {name}"), e))?;
    decode(&bytes, store_id)
        .ok_or_else(|| Error::corrupt(format!("{name}: damaged, or of another store")))
}

/// Reads the set; empty when there is none, or none that can be believed.
pub fn load(disk: &dyn Disk, store_id: [u8; 16]) -> RoaringTreemap {
    let name = join(FOLDER, NAME);
    match read_whole(disk, &name, BYTES_MAX) {
        Ok(bytes) => decode(&bytes, store_id).unwrap_or_else(|| {
            tracing::warn!("{name} is damaged; which entries are hot is found out again");
            RoaringTreemap::new()
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => RoaringTreemap::new(),
        Err(error) => {
            tracing::warn!(%error, "cannot read {name}");
            RoaringTreemap::new()
        }
    }
}

fn decode(bytes: &[u8], store_id: [u8; 16]) -> Option<RoaringTreemap> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if Safeguard::HotCrc.finds(crc32fast::hash(body).to_le_bytes() != *crc) {
        return None;
    }
    let mut reader = Reader::new(body);
    let (magic, store): ([u8; 8], [u8; 16]) = (reader.array().ok()?, reader.array().ok()?);
    let len = reader.u32().ok()? as usize;
    if &magic != MAGIC || store != store_id || reader.left() != len {
        return None;
    }
    RoaringTreemap::deserialize_from(reader.bytes(len).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::OpenMode;
    use crate::io::memory::MemoryDisk;

    #[test]
    fn a_set_comes_back_and_a_damaged_one_is_empty() {
        let disk = MemoryDisk::new();
        disk.create_dir(FOLDER).unwrap();
        let hot: RoaringTreemap = (0..5000).map(|n| n * 7).collect();
        assert!(load(&disk, [1; 16]).is_empty());
        let len = save(&disk, [1; 16], &hot).unwrap();
        assert_eq!(load(&disk, [1; 16]), hot);
        assert!(load(&disk, [2; 16]).is_empty(), "another store's");
        let file = disk.open("columns/hot", OpenMode::ReadWrite).unwrap();
        for at in 0..len {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_at(&[byte[0] ^ 4], at).unwrap();
            assert!(load(&disk, [1; 16]).is_empty(), "byte {at}");
            file.write_at(&byte, at).unwrap();
        }
        assert_eq!(load(&disk, [1; 16]), hot);
    }
}
