//! Tests of the arena: what is written comes back, and nothing else passes for it.

use super::*;
use crate::bytes::codec::codes;
use crate::io::memory::MemoryDisk;
use crate::io::sim::{Fault, Profile, SimDisk};
use crate::pure::quant::{Bits, encode, narrow};

const STORE: [u8; 16] = [7; 16];

/// A block of `rows` rows of 6 dimensions, ids 3, 6, 9, ...
fn made(number: u64, rows: u32, bits: u8) -> (BlockHeader, Vec<(EntryId, Lsn)>, Vec<u8>) {
    let eight = codes::layout(6).unwrap();
    let layout = eight.with_bits(if bits == 4 { Bits::Four } else { Bits::Eight });
    let mut all = Vec::new();
    for row in 0..rows {
        let vector: Vec<f32> = (0..6).map(|i| ((row * 7 + i * 3) % 11) as f32 - 5.0).collect();
        let (mut wide, mut packed) = (vec![0; eight.row_bytes()], vec![0; layout.row_bytes()]);
        encode(eight, &vector, &mut wide);
        match layout.bits() {
            Bits::Eight => packed = wide,
            Bits::Four => narrow(eight, &wide, &mut packed),
        }
        all.extend(packed);
    }
    let header = BlockHeader {
        store_id: STORE,
        number,
        collection: CollectionId(2),
        dim: 6,
        group: layout.group() as u32,
        bits,
        rows,
        row_bytes: layout.row_bytes() as u32,
    };
    let ids = (1..=u64::from(rows)).map(|n| (EntryId(3 * n), Lsn(100 + n))).collect();
    (header, ids, all)
}

fn write(disk: &dyn Disk, number: u64, rows: u32, bits: u8) -> Result<Vec<u8>> {
    // As the creation of a store leaves it.
    let ready = disk.create_dir(FOLDER).and_then(|()| disk.sync_dir(""));
    ready.map_err(|e| Error::io("make the folder", e))?;
    let (header, ids, codes) = made(number, rows, bits);
    write_block(disk, &NewBlock { header, rows: &ids, codes: &codes })?;
    Ok(codes)
}

fn is_same(block: &Block, rows: usize, codes: &[u8]) -> Result<bool> {
    for (row, expected) in codes.chunks_exact(codes.len() / rows).enumerate() {
        let id = 1 + row as u64;
        if block.id_version(row) != Some((EntryId(3 * id), Lsn(100 + id)))
            || block.row(row)? != expected
        {
            return Ok(false);
        }
    }
    Ok(block.rows() == rows && block.id_version(rows).is_none())
}

#[test]
fn a_block_comes_back_mapped_and_read() {
    let disk = MemoryDisk::new();
    let folder = tempfile::tempdir().unwrap();
    let files = crate::io::FileDisk::open(folder.path()).unwrap();
    for disk in [&disk as &dyn Disk, &files] {
        for (number, rows, bits) in [(1, 1, 8), (2, 5, 4), (3, 200, 8), (4, 63, 4)] {
            let codes = write(disk, number, rows, bits).unwrap();
            for access in [ArenaAccess::Map, ArenaAccess::Read] {
                let block = Block::open(disk, number, STORE, access).unwrap();
                assert!(is_same(&block, rows as usize, &codes).unwrap());
                assert_eq!((block.bits(), block.collection()), (bits, CollectionId(2)));
                assert!(block.row(rows as usize).is_err());
            }
        }
        assert_eq!(list(disk).unwrap(), [1, 2, 3, 4]);
        let open = Block::open(disk, 3, STORE, ArenaAccess::Map).unwrap();
        remove(disk, 3).unwrap();
        remove(disk, 3).unwrap();
        assert_eq!(list(disk).unwrap(), [1, 2, 4]);
        assert!(open.row(0).is_ok(), "a block that is open outlives its name");
    }
}

#[test]
fn a_flipped_byte_is_found_or_means_nothing() {
    let disk = SimDisk::new(1);
    let codes = write(&disk, 1, 9, 8).unwrap();
    let name = file_name(1);
    let len = disk.durable_bytes(&name).unwrap().len() as u64;
    let mut found = 0;
    for at in 0..len {
        disk.flip_bit(&name, at, (at % 8) as u8).unwrap();
        match Block::open(&disk, 1, STORE, ArenaAccess::Read) {
            Ok(block) => match is_same(&block, 9, &codes) {
                Ok(same) => assert!(same, "the flip at {at} changed a row"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt);
                    assert!(error.to_string().contains(&name));
                    assert!(block.row(0).is_err(), "once damaged, always");
                    found += 1;
                }
            },
            Err(error) => {
                assert!([ErrorKind::Corrupt, ErrorKind::Version].contains(&error.kind()));
                assert!(error.to_string().contains(&name), "{error}");
                found += 1;
            }
        }
        disk.flip_bit(&name, at, (at % 8) as u8).unwrap();
    }
    // Only the gap before the codes is nobody's.
    let header = made(1, 9, 8).0;
    let gap = header.codes_at() - (HEADER_BYTES + 9 * block::ENTRY_BYTES + 4);
    assert_eq!(found + gap as u64, len);
}

#[test]
fn what_is_cut_misnamed_or_foreign_is_refused() {
    let disk = SimDisk::new(1);
    write(&disk, 1, 9, 8).unwrap();
    let name = file_name(1);
    let kind = |number, store| {
        Block::open(&disk, number, store, ArenaAccess::Read).map_err(|e| e.kind()).err()
    };
    assert_eq!(kind(1, [8; 16]), Some(ErrorKind::Corrupt));
    disk.rename(&name, &file_name(2)).unwrap();
    assert_eq!(kind(2, STORE), Some(ErrorKind::Corrupt));
    assert_eq!(kind(1, STORE), Some(ErrorKind::Io));
    disk.rename(&file_name(2), &name).unwrap();
    assert_eq!(kind(1, STORE), None);
    let len = disk.durable_bytes(&file_name(1)).unwrap().len() as u64;
    for len in (0..len).rev() {
        disk.truncate(&name, len).unwrap();
        assert_eq!(kind(1, STORE), Some(ErrorKind::Corrupt), "{len} bytes");
    }
}

#[test]
fn a_write_that_fails_leaves_nothing_and_one_that_returned_survives_a_power_cut() {
    let undisturbed = SimDisk::new(1);
    write(&undisturbed, 1, 9, 8).unwrap();
    for image in undisturbed.crash_images(Profile::Posix, 200) {
        assert_eq!(list(&image).unwrap(), [1]);
        Block::open(&image, 1, STORE, ArenaAccess::Read).unwrap().row(8).unwrap();
    }
    for fault in [Fault::Eio, Fault::Enospc, Fault::ShortWrite, Fault::SyncFails] {
        for call in 0..undisturbed.op_count() {
            let disk = SimDisk::new(1);
            disk.fail_at(call, fault, false);
            if write(&disk, 1, 9, 8).is_ok() {
                continue;
            }
            assert!(list(&disk).unwrap_or_default().is_empty(), "{fault:?} at {call}");
            write(&disk, 1, 9, 8).unwrap();
            remove_strays(&disk).unwrap();
            assert_eq!(disk.list(FOLDER).unwrap(), ["0000000001.blk"]);
        }
    }
}
