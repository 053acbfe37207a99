//! What the log says of itself (bytes written, unapplied, held in memory, given back), its limits, and
//! what it does to its files beyond the batches.

use super::*;
use crate::bytes::codec::log::{FRAME_BYTES, HEADER_BYTES};

const HEADER: u64 = HEADER_BYTES as u64;
const FOOTER: u64 = FRAME_BYTES as u64;

fn open_with(disk: &(impl Disk + Clone + 'static), options: WalOptions) -> Wal {
    let (scan, _) = read(disk, 0).unwrap();
    Wal::open(Arc::new(disk.clone()), STORE, scan, options).unwrap()
}

fn file_len(disk: &dyn Disk, number: u64) -> u64 {
    disk.open(&file_name(number), OpenMode::Read).unwrap().len().unwrap()
}

#[test]
fn the_bytes_written_are_those_of_the_files() {
    let disk = with_folder(MemoryDisk::new());
    let options = WalOptions { segment_bytes: 64 << 10, zero_bytes: 40 << 10, salt: 5 };
    let mut wal = open_with(&disk, options);
    assert_eq!(wal.bytes_written(), (0, 0));
    // The first piece of zeros lies there before the batch does.
    wal.append(&batch(1, 2)).unwrap();
    assert_eq!(file_len(&disk, 1), 40 << 10);
    let mut log = HEADER + active::batch_bytes(&batch(1, 2));
    assert_eq!(wal.bytes_written(), (log, (40 << 10) - HEADER));
    let mut next = 3;
    while wal.segment_file().unwrap().0 == 1 {
        let before = log;
        log += active::batch_bytes(&batch(next, 10));
        wal.append(&batch(next, 10)).unwrap();
        next += 10;
        // The second piece reaches to the segment's end and no further.
        let len = file_len(&disk, 1);
        let (_, zeros) = wal.bytes_written();
        if before + FOOTER > 40 << 10 && wal.segment_file().unwrap().0 == 1 {
            assert_eq!((len, zeros), (64 << 10, (64 << 10) - HEADER));
        }
    }
    log += FOOTER + HEADER;
    assert_eq!(wal.bytes_written(), (log, (104 << 10) - 2 * HEADER));
    // A batch that is longer than a piece extends the file itself.
    let long = batch(next, 600);
    assert!(active::batch_bytes(&long) > 2 * (40 << 10));
    wal.append(&long).unwrap();
    log += FOOTER + HEADER + active::batch_bytes(&long);
    assert_eq!(wal.bytes_written(), (log, (144 << 10) - 3 * HEADER));
    wal.close().unwrap();
    assert_eq!(wal.bytes_written().0, log + FOOTER);
}

#[test]
fn a_segment_is_never_smaller_than_its_least() {
    let disk = with_folder(MemoryDisk::new());
    let mut wal = open_with(&disk, WalOptions { segment_bytes: 0, zero_bytes: 0, salt: 5 });
    wal.append(&batch(1, 1)).unwrap();
    wal.append(&batch(2, 1)).unwrap();
    assert_eq!(wal.segment_file().unwrap().0, 1);
    assert_eq!(file_len(&disk, 1), SEGMENT_BYTES_MIN);
}

#[test]
fn what_is_not_applied_is_known_to_within_a_mark() {
    let disk = with_folder(MemoryDisk::new());
    let mut wal = open_with(&disk, WalOptions::default());
    let mut ends = vec![0];
    for first in (1..2000).step_by(5) {
        wal.append(&batch(first, 5)).unwrap();
        ends.push(ends.last().unwrap() + active::batch_bytes(&batch(first, 5)));
    }
    let all = *ends.last().unwrap();
    assert!(all > 20 * (16 << 10));
    assert_eq!(wal.unapplied_bytes(), all);
    for applied in [0, 5, 500, 501, 1000, 1995, 1999] {
        assert_eq!(wal.reclaim(Lsn(applied)).unwrap(), 0);
        let rest = all - ends[applied as usize / 5];
        let known = wal.unapplied_bytes();
        assert!((rest..rest + (18 << 10)).contains(&known), "LSN {applied}: {known} for {rest}");
    }
    wal.reclaim(Lsn(2000)).unwrap();
    assert_eq!(wal.unapplied_bytes(), 0);
    drop(wal);
    // An opened log counts what its scan visited.
    let disk = with_folder(MemoryDisk::new());
    let mut wal = open_on(&disk, 0);
    for first in [1, 4, 7] {
        wal.append(&batch(first, 3)).unwrap();
    }
    wal.close().unwrap();
    let rest: u64 = [4, 7].iter().map(|first| active::batch_bytes(&batch(*first, 3))).sum();
    for applied in [3, 4, 5] {
        assert_eq!(open_on(&disk, applied).unapplied_bytes(), rest, "LSN {applied}");
    }
}

#[test]
fn the_memory_held_is_told_and_given_back() {
    let disk = with_folder(MemoryDisk::new());
    let mut wal = open_on(&disk, 0);
    assert_eq!(wal.resident_bytes(), 0);
    let half = wal.options.segment_bytes as usize / 2;
    wal.append(&batch(1, 10)).unwrap();
    assert!((1..=half).contains(&wal.buffer.capacity()), "a small buffer is kept");
    wal.append(&batch(11, 100)).unwrap();
    assert_eq!(wal.buffer.capacity(), 0, "one of more than half a segment is not");
    wal.options.segment_bytes = 16 << 20;
    wal.append(&batch(111, 100)).unwrap();
    let bytes = active::batch_bytes(&batch(111, 100)) as usize;
    assert!((bytes..256 << 10).contains(&wal.resident_bytes()), "a small buffer is kept");
    let before = wal.resident_bytes();
    wal.append(&batch(211, 2000)).unwrap();
    assert!(active::batch_bytes(&batch(211, 2000)) > 256 << 10);
    assert!(wal.resident_bytes() < before, "a large one is not");
    let mut next = 2211;
    for _ in 0..40 {
        wal.append(&batch(next, 100)).unwrap();
        next += 100;
        wal.rotate().unwrap();
    }
    // No mark is applied, no segment gone; a checkpoint gives back the buffer alone.
    wal.reclaim(Lsn(0)).unwrap();
    let least = 42 * size_of::<writer::Ended>() + 40 * size_of::<(Lsn, u64)>();
    let most = 64 * size_of::<writer::Ended>() + 64 * size_of::<(Lsn, u64)>();
    assert!((least..=most).contains(&wal.resident_bytes()), "{}", wal.resident_bytes());
}

#[test]
fn reclaiming_gives_back_the_bytes_of_the_files() {
    let disk = with_folder(SimDisk::new(1));
    let mut wal = open_on(&disk, 0);
    let mut lens = Vec::new();
    for number in 1..=4 {
        wal.append(&batch(number * 10 - 9, 10)).unwrap();
        lens.push(file_len(&disk, number));
        if number < 4 {
            wal.rotate().unwrap();
        }
    }
    let before = disk.op_count();
    assert_eq!(wal.reclaim(Lsn(9)).unwrap(), 0);
    assert_eq!(disk.op_count(), before, "nothing to remove, nothing to sync");
    assert_eq!(wal.reclaim(Lsn(20)).unwrap(), lens[0] + lens[1]);
    assert_eq!(wal.reclaim(Lsn(40)).unwrap(), lens[2] + lens[3]);
}

#[test]
fn a_segment_that_is_gone_is_no_hindrance_one_that_stays_is() {
    let disk = with_folder(SimDisk::new(1));
    let mut wal = open_on(&disk, 0);
    for first in [1, 11] {
        wal.append(&batch(first, 10)).unwrap();
        wal.rotate().unwrap();
    }
    disk.remove(&file_name(1)).unwrap();
    wal.reclaim(Lsn(10)).unwrap();
    // It can neither be renamed nor removed.
    disk.fail_times(disk.op_count(), Fault::Eio, 2);
    assert_eq!(wal.reclaim(Lsn(20)).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(disk.file_names(), [file_name(2)]);
    assert!(wal.reclaim(Lsn(20)).unwrap() > 0, "it is tried again");
    assert_eq!(disk.file_names(), [spare_name(2)]);
}

#[test]
fn the_last_segment_is_given_back_once_however_it_was_left() {
    let disk = with_folder(SimDisk::new(1));
    let mut wal = open_on(&disk, 0);
    wal.append(&batch(1, 5)).unwrap();
    wal.append(&batch(6, 5)).unwrap();
    wal.close().unwrap();
    let whole = disk.fork_now();
    let len = file_len(&whole, 1);
    assert_eq!(open_on(&whole, 5).reclaim(Lsn(10)).unwrap(), len);
    // Nobody continues a segment with damage in it: opening ends it with a footer.
    let image = disk.fork_now();
    image.flip_bit(&file_name(1), 100, 1).unwrap();
    let mended = image.fork_now();
    assert!(open_on(&mended, 5).reclaim(Lsn(10)).unwrap() > 0);
    assert!(mended.file_names().is_empty());
    drop(open_on(&image, 5));
    let len = file_len(&image, 1);
    assert_eq!(open_on(&image, 5).reclaim(Lsn(10)).unwrap(), len);
}

#[test]
fn a_batch_of_as_many_operations_as_may_be_is_taken_and_no_more() {
    let disk = with_folder(MemoryDisk::new());
    let mut wal = open_on(&disk, 0);
    let ops: Batch = (1..=limits::BATCH_OPS_MAX as u64 + 1).map(delete).collect();
    assert_eq!(wal.append(&ops).unwrap_err().kind(), ErrorKind::Invalid);
    wal.append(&ops[..limits::BATCH_OPS_MAX]).unwrap();
    let mut seen = 0;
    replay(&disk, STORE, Lsn(0), &mut |_| {
        seen += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, limits::BATCH_OPS_MAX);
}

/// An operation as small as any.
fn delete(lsn: u64) -> (Op, Arc<[u8]>) {
    let (Op::Delete(tombstone), payload) = op(7, 0) else { panic!() };
    (Op::Delete(Tombstone { version: Lsn(lsn), ..tombstone }), payload)
}

#[test]
fn appending_alone_syncs_nothing() {
    let disk = with_folder(SimDisk::new(1));
    let mut wal = open_on(&disk, 0);
    wal.append(&batch(1, 1)).unwrap();
    let before = disk.op_count();
    for lsn in 2..=5 {
        wal.append(&batch(lsn, 1)).unwrap();
    }
    assert_eq!(disk.op_count(), before + 4, "one write each");
}

#[test]
fn a_batch_that_begins_a_segment_is_synced_once_and_its_name_once() {
    let disk = with_folder(SimDisk::new(1));
    let mut wal = open_on(&disk, 0);
    let durably = |wal: &mut Wal, lsn| {
        wal.append_to_sync(&batch(lsn, 1)).unwrap();
        wal.sync().unwrap();
    };
    durably(&mut wal, 1);
    let before = disk.op_count();
    durably(&mut wal, 2);
    assert_eq!(disk.op_count() - before, 2, "a write and a sync");
    wal.append_to_sync(&batch(3, 1)).unwrap();
    assert!(!wal.is_synced(), "it is left to its caller");
    wal.sync().unwrap();
    // A spare and two segments, the older of which was never synced.
    wal.reclaim(Lsn(3)).unwrap();
    wal.append(&batch(4, 1)).unwrap();
    assert!(!wal.is_synced());
    wal.reclaim(Lsn(4)).unwrap();
    let before = disk.op_count();
    wal.append_to_sync(&batch(5, 1)).unwrap();
    assert!(wal.is_synced(), "with its header");
    wal.sync().unwrap();
    assert_eq!(disk.op_count() - before, 5, "header, batch, sync, name and its sync");
    wal.rotate().unwrap();
    assert_eq!(disk.op_count() - before, 6, "the footer is not synced");
    wal.append(&batch(6, 1)).unwrap();
    let before = disk.op_count();
    wal.rotate().unwrap();
    assert_eq!(disk.op_count() - before, 2, "behind a batch that was not, it is");
    assert!(disk.file_names().iter().all(|name| !name.ends_with(".tmp")));
}

#[test]
fn a_first_batch_without_room_leaves_no_segment_and_no_file() {
    for spares in [false, true] {
        let disk = with_folder(SimDisk::new(1));
        let mut wal = open_on(&disk, 0);
        wal.append_to_sync(&batch(1, 1)).unwrap();
        if spares {
            wal.reclaim(Lsn(1)).unwrap();
        } else {
            wal.rotate().unwrap();
        }
        let before = disk.file_names();
        // Room for a header and the zeros behind it, and none for a batch of sixty.
        disk.set_capacity(Some(disk.used_bytes() + 5000));
        let failed = wal.append_to_sync(&batch(2, 60)).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Full);
        let kept: Vec<_> = before.into_iter().filter(|name| !name.ends_with(".spare")).collect();
        assert_eq!(disk.file_names(), kept, "spares: {spares}");
        disk.set_capacity(None);
        wal.append_to_sync(&batch(2, 60)).unwrap();
        assert!(disk.file_names().contains(&format!("wal/{}", "0000000002.wal")));
        wal.close().unwrap();
        let applied = u64::from(spares);
        let (scan, ops) = read(&disk, applied).unwrap();
        assert_eq!(check(applied, &scan, &ops), 61, "spares: {spares}");
    }
}

#[test]
fn opening_removes_what_makers_of_segments_left() {
    let disk = with_folder(SimDisk::new(1));
    let mut wal = open_on(&disk, 0);
    wal.append(&batch(1, 1)).unwrap();
    wal.close().unwrap();
    for name in ["0000000002.wal.tmp", "2.wal.tmp", "notes.tmp"] {
        disk.open(&join(FOLDER, name), OpenMode::CreateNew).unwrap();
    }
    open_on(&disk, 0);
    // What is none of the log's stays.
    assert_eq!(disk.file_names(), ["wal/0000000001.wal", "wal/2.wal.tmp", "wal/notes.tmp"]);
}

#[test]
fn the_last_bytes_of_a_disk_are_for_records_not_for_zeros() {
    let disk = with_folder(SimDisk::new(1));
    let options = WalOptions { segment_bytes: 1 << 20, zero_bytes: 64 << 10, salt: 5 };
    let mut wal = open_with(&disk, options);
    let mut next = 1;
    let mut end = HEADER;
    while end < 60 << 10 {
        end += active::batch_bytes(&batch(next, 5));
        wal.append(&batch(next, 5)).unwrap();
        next += 5;
    }
    assert_eq!(file_len(&disk, 1), 64 << 10);
    // Room for the batch and a footer, and for a quarter of the next piece of zeros.
    disk.set_capacity(Some(disk.used_bytes() + (16 << 10)));
    let bytes = active::batch_bytes(&batch(next, 50));
    assert!(end + bytes > 64 << 10 && end + bytes + FOOTER < 80 << 10);
    wal.append(&batch(next, 50)).unwrap();
    (next, end) = (next + 50, end + bytes);
    assert_eq!(file_len(&disk, 1), end + FOOTER);
    // And none for the next one: it fails alone, and takes nothing.
    disk.set_capacity(Some(disk.used_bytes()));
    assert_eq!(wal.append(&batch(next, 50)).unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(file_len(&disk, 1), end + FOOTER);
    disk.set_capacity(None);
    wal.append(&batch(next, 50)).unwrap();
    wal.close().unwrap();
    let (scan, ops) = read(&disk, 0).unwrap();
    assert_eq!(check(0, &scan, &ops), next + 49);
}
