//! Edges: what stands exactly at a limit, at the end of a file or of a sector, and what an opening does
//! with a log that is whole but was not closed.

use super::*;
use crate::bytes::codec::log::{FRAME_BYTES, Frame, Kind, SegmentHeader};

const FILE: &str = "wal/0000000001.wal";
const TORN: &str = "wal/0000000001.torn";

/// A log of some batches, all synced, not closed.
fn synced(batches: &[Batch], options: WalOptions) -> SimDisk {
    let disk = with_folder(SimDisk::new(1));
    let (scan, _) = read(&disk, 0).unwrap();
    let mut wal = Wal::open(Arc::new(disk.clone()), STORE, scan, options).unwrap();
    for batch in batches {
        wal.append(batch).unwrap();
        wal.sync().unwrap();
    }
    disk.fork_now()
}

#[test]
fn segments_before_the_applied_record_go_each_at_its_own_end() {
    let disk = several_segments();
    let image = disk.fork_now();
    assert!(open_on(&image, 15).reclaim(Lsn(15)).unwrap() > 0);
    assert_eq!(image.file_names(), [file_name(4)]);
    // The last one as well, when a footer ends it.
    let mut wal = open_on(&disk, 0);
    wal.rotate().unwrap();
    wal.close().unwrap();
    let image = disk.fork_now();
    assert!(open_on(&image, 0).reclaim(Lsn(20)).unwrap() > 0);
    assert_eq!(image.file_names(), Vec::<String>::new());
}

#[test]
fn a_closed_log_that_is_all_applied_goes_on_where_it_was() {
    let disk = with_folder(SimDisk::new(1));
    let mut wal = open_on(&disk, 0);
    wal.append(&batch(1, 3)).unwrap();
    wal.close().unwrap();
    let before = disk.op_count();
    let mut wal = open_on(&disk, 3);
    assert_eq!(disk.op_count(), before, "opening writes nothing");
    wal.append(&batch(4, 1)).unwrap();
    assert_eq!(wal.segment_file().unwrap().0, 1);
}

#[test]
fn a_header_that_counts_from_nothing_is_no_header() {
    let [lsn, number] = [(0, 1), (1, 0)].map(|(first_lsn, first_batch)| {
        let first_lsn = Lsn(first_lsn);
        let header = SegmentHeader {
            store_id: STORE,
            number: 1,
            first_lsn,
            first_batch,
            salt: 9,
            recycled: false,
        };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        bytes.resize(200, 1);
        let disk = with_folder(MemoryDisk::new());
        disk.open(FILE, OpenMode::CreateNew).unwrap().write_at(&bytes, 0).unwrap();
        read(&disk, 0).unwrap_err().kind()
    });
    assert_eq!((lsn, number), (ErrorKind::Corrupt, ErrorKind::Corrupt));
}

#[test]
fn a_batch_that_is_longer_than_any_may_be_is_refused_before_it_is_held() {
    // Two operations of a batch, applied long ago: their bytes are passed over, not decoded.
    let of = |len: usize| {
        let header = SegmentHeader {
            store_id: STORE,
            number: 1,
            first_lsn: Lsn(1),
            first_batch: 1,
            salt: 9,
            recycled: false,
        };
        let seed = header.seed();
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        for (lsn, len) in [(1, 1 << 10), (2, len - (1 << 10))] {
            let (at, payload) = (bytes.len() as u64, vec![0; len]);
            let payload_crc = seed.crc(at + FRAME_BYTES as u64, &payload);
            let (kind, lsn) = (Kind::Op, Lsn(lsn));
            let frame = Frame { kind, len: len as u32, lag: 1, lsn, batch: 1, payload_crc };
            bytes.extend_from_slice(&frame.encode(seed, at));
            bytes.extend_from_slice(&payload);
        }
        let disk = with_folder(MemoryDisk::new());
        disk.open(FILE, OpenMode::CreateNew).unwrap().write_at(&bytes, 0).unwrap();
        read(&disk, 2)
    };
    let error = of(limits::BATCH_BYTES_MAX + 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    // What is as long as may be only lacks its commit frame.
    assert!(of(limits::BATCH_BYTES_MAX).unwrap().0.torn.is_some());
}

#[test]
fn a_damaged_footer_costs_nothing_when_the_next_segment_goes_on() {
    let disk = with_folder(SimDisk::new(1));
    let mut wal = open_on(&disk, 0);
    wal.append(&batch(1, 5)).unwrap();
    let footer = 64 + active::batch_bytes(&batch(1, 5));
    wal.rotate().unwrap();
    wal.append(&batch(6, 5)).unwrap();
    wal.close().unwrap();
    for at in footer..footer + FRAME_BYTES as u64 {
        let image = disk.fork_now();
        image.flip_bit(FILE, at, (at % 8) as u8).unwrap();
        let (scan, ops) = read(&image, 0).unwrap();
        assert_eq!(check(0, &scan, &ops), 10, "byte {at}");
        assert_eq!(scan.notes.len(), 1);
    }
}

#[test]
fn a_rotten_batch_at_the_very_end_of_its_file_is_kept_aside() {
    let batches = [batch(1, 2), batch(3, 3)];
    let disk = synced(&batches, SMALL);
    let [start, end] = [1, 2].map(|n: usize| {
        64 + batches.iter().take(n).map(|batch| active::batch_bytes(batch)).sum::<u64>()
    });
    disk.truncate(FILE, end).unwrap();
    disk.flip_bit(FILE, start + 40, 1).unwrap();
    let torn = read(&disk, 0).unwrap().0.torn.unwrap();
    assert_eq!((torn.offset, torn.bytes, torn.ambiguous), (start, end - start, true));
    // One byte less is a write that was cut short.
    disk.truncate(FILE, end - 1).unwrap();
    assert!(!read(&disk, 0).unwrap().0.torn.unwrap().ambiguous);
}

#[test]
fn what_is_cut_off_is_counted_from_the_batch_on() {
    let disk = synced(&[batch(1, 2), batch(3, 3)], SMALL);
    let start = 64 + active::batch_bytes(&batch(1, 2));
    let first = active::batch_bytes(&batch(3, 1)) - active::batch_bytes(&[]);
    // The first operation of the batch is whole, the rest never came.
    disk.truncate(FILE, start + first).unwrap();
    disk.truncate(FILE, 4096).unwrap();
    let torn = read(&disk, 0).unwrap().0.torn.unwrap();
    assert_eq!((torn.offset, torn.bytes, torn.ambiguous), (start, first, false));
}

#[test]
fn damage_in_the_last_batch_is_nothing_when_it_is_archived() {
    let disk = synced(&[batch(1, 2), batch(3, 3)], SMALL);
    let start = 64 + active::batch_bytes(&batch(1, 2));
    for at in start..start + FRAME_BYTES as u64 {
        let image = disk.fork_now();
        image.flip_bit(FILE, at, (at % 8) as u8).unwrap();
        let (scan, ops) = read(&image, 5).unwrap();
        assert_eq!(check(5, &scan, &ops), 5);
        assert!(scan.torn.is_none(), "byte {at}: the commit frame says what stood there");
        assert!(read(&image, 4).unwrap().0.torn.is_some(), "byte {at}: one record is not archived");
    }
}

#[test]
fn all_of_a_long_batch_is_kept_aside() {
    let disk = synced(&[batch(1, 2), batch(3, 3000)], WalOptions::default());
    let start = 64 + active::batch_bytes(&batch(1, 2));
    let end = start + active::batch_bytes(&batch(3, 3000));
    assert!(end - start > 600 << 10);
    disk.flip_bit(FILE, end - 300, 1).unwrap();
    let bytes = disk.durable_bytes(FILE).unwrap()[start as usize..end as usize].to_vec();
    assert!(read(&disk, 0).unwrap().0.torn.unwrap().ambiguous);
    drop(open_on(&disk, 0));
    assert!(disk.durable_bytes(TORN).unwrap() == bytes, "byte for byte");
    // What is left is whole, and says nothing more of it.
    let (scan, ops) = read(&disk, 0).unwrap();
    assert_eq!(check(0, &scan, &ops), 2);
    assert!(scan.torn.is_none() && scan.notes.is_empty());
}

#[test]
fn a_log_that_was_not_closed_is_written_anew_and_goes_on_in_its_segment() {
    // Zeros in small pieces, so that the file ends soon behind the batches.
    let options = WalOptions { zero_bytes: 4096, ..WalOptions::default() };
    let disk = synced(&[batch(1, 2), batch(3, 3000)], options);
    let end = 64 + active::batch_bytes(&batch(1, 2)) + active::batch_bytes(&batch(3, 3000));
    assert!(end > 600 << 10);
    let before = disk.durable_bytes(FILE).unwrap()[..end as usize].to_vec();
    for full in [false, true] {
        let image = disk.fork_now();
        image.set_capacity(full.then(|| image.used_bytes()));
        let (scan, _) = read(&image, 0).unwrap();
        let mut wal = Wal::open(Arc::new(image.clone()), STORE, scan, options).unwrap();
        let after = image.durable_bytes(FILE).unwrap()[..end as usize].to_vec();
        assert!(after == before, "full: {full}");
        assert_eq!(image.file_names(), [FILE]);
        let (scan, _) = read(&image, 0).unwrap();
        assert!(!scan.tail.unwrap().footer, "no end where it goes on");
        image.set_capacity(None);
        wal.append(&batch(3003, 1)).unwrap();
        assert_eq!(wal.segment_file().unwrap().0, 1);
        wal.close().unwrap();
        let (scan, ops) = read(&image, 0).unwrap();
        assert_eq!(check(0, &scan, &ops), 3003);
        assert!(scan.notes.is_empty());
    }
}

#[test]
fn a_torn_segment_ends_in_a_footer() {
    let disk = synced(&[batch(1, 2), batch(3, 3)], SMALL);
    let end = 64 + active::batch_bytes(&batch(1, 2)) + active::batch_bytes(&batch(3, 3));
    disk.truncate(FILE, end - 8).unwrap();
    drop(open_on(&disk, 0));
    let (scan, ops) = read(&disk, 0).unwrap();
    assert_eq!(check(0, &scan, &ops), 2);
    assert!(scan.tail.unwrap().footer);
}

/// There is no room for a copy, and a sync that failed may have left pages that no later sync writes.
#[test]
fn on_a_full_disk_all_that_was_never_synced_is_written_over_itself() {
    for rotated in [false, true] {
        let disk = with_folder(SimDisk::new(1));
        let mut wal = open_on(&disk, 0);
        wal.append(&batch(1, 2)).unwrap();
        wal.sync().unwrap();
        wal.append(&batch(3, 2)).unwrap();
        wal.append(&batch(5, 2)).unwrap();
        disk.fail_at(disk.op_count() + u64::from(rotated), Fault::SyncFails, false);
        let failed = if rotated { wal.rotate() } else { wal.sync() };
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Io);
        drop(wal);
        disk.set_capacity(Some(disk.used_bytes()));
        drop(open_on(&disk, 0));
        for image in disk.crash_images(Profile::Posix, 100) {
            let (scan, ops) = read(&image, 0).unwrap();
            assert_eq!(check(0, &scan, &ops), 6, "rotated: {rotated}, {}", image.label());
        }
    }
}

/// The name of a segment may still be lost when its creation failed, however often it is synced later.
#[test]
fn a_segment_without_a_batch_is_created_again_although_the_disk_was_full() {
    let mut failed = 0;
    for at in 0..12 {
        let disk = with_folder(SimDisk::new(1));
        let mut wal = open_on(&disk, 0);
        disk.fail_at(disk.op_count() + at, Fault::SyncFails, false);
        if wal.append(&batch(1, 1)).is_ok() {
            continue;
        }
        failed += 1;
        drop(wal);
        disk.fail_at(disk.op_count(), Fault::Enospc, false);
        let mut wal = open_on(&disk, 0);
        assert!((0..3).any(|_| wal.append(&batch(1, 1)).is_ok()));
        wal.sync().unwrap();
        for image in disk.crash_images(Profile::Posix, 30) {
            let (scan, ops) = read(&image, 0).unwrap();
            assert_eq!(check(0, &scan, &ops), 1, "sync {at} failed");
        }
    }
    assert!(failed > 1, "{failed} creations failed");
}
