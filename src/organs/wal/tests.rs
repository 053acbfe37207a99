//! The log against disks that hold, rot, fill up, fail and crash.
//!
//! Operations are made from their LSN and an attempt number, so every reading can be compared with
//! what was written, and a batch that failed can be told from the one that took its LSNs.

use std::sync::Arc;

use super::*;
use crate::io::MemoryDisk;
use crate::io::sim::{Fault, Profile, SimDisk};
use crate::words::error::ErrorKind;
use crate::words::id::{CollectionId, EntryId, Key, Namespace, Timestamp};
use crate::words::limits;
use crate::words::record::{Op, Payload, Record, Removal, Tombstone};

mod accounts;
mod crash;
mod damage;
mod edges;
mod looks;
mod recycled;

const STORE: [u8; 16] = *b"store under test";
const SMALL: WalOptions = WalOptions { segment_bytes: 8192, zero_bytes: 4096, salt: 5 };

type Batch = Vec<(Op, Arc<[u8]>)>;

/// How a log ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Bare,
    Marked,
    Closed,
    Sealed,
}

impl Ending {
    fn make(self, wal: &mut Wal) {
        match self {
            Ending::Bare => {}
            Ending::Marked => wal.mark_acked(),
            Ending::Closed => wal.close().unwrap(),
            Ending::Sealed => wal.rotate().unwrap(),
        }
    }
}

/// A put (or, every seventh time, a delete) that its LSN and attempt decide.
fn op(lsn: u64, attempt: u64) -> (Op, Arc<[u8]>) {
    let key = Key::new(format!("k{}", lsn % 10)).unwrap();
    let (collection, id, version) = (CollectionId(1), EntryId(lsn), Lsn(lsn));
    let namespace = Namespace::root();
    if lsn.is_multiple_of(7) {
        let removal = if attempt == 0 { Removal::Deleted } else { Removal::Expired };
        let tombstone = Tombstone { collection, id, version, namespace, key, removal };
        return (Op::Delete(tombstone), Arc::from([]));
    }
    let byte = (lsn % 255) as u8 + 1;
    let payload: Arc<[u8]> = vec![byte; 20 + (lsn as usize * 37) % 300].into();
    let record = Record {
        collection,
        id,
        version,
        namespace,
        key,
        vector: Some(Arc::from([lsn as f32, 1.5])),
        half: false,
        payload: Payload::Inline(Arc::clone(&payload)),
        attributes: Arc::from(format!(r#"{{"attempt":{attempt}}}"#)),
        at: Timestamp(1),
        created: Timestamp(2),
        updated: Timestamp(3),
        expires: None,
        session: None,
        sequence: None,
        salience: None,
        pinned: false,
    };
    (Op::Put(record), payload)
}

fn batch(first: u64, count: u64) -> Batch {
    (first..first + count).map(|lsn| op(lsn, 0)).collect()
}

fn read(disk: &dyn Disk, applied: u64) -> Result<(Scan, Vec<Op>)> {
    let mut ops = Vec::new();
    let scan = replay(disk, STORE, Lsn(applied), &mut |op| {
        ops.push(op);
        Ok(())
    })?;
    Ok((scan, ops))
}

/// What is read must be what was written, from `applied` on without a gap; how far it goes.
fn check(applied: u64, scan: &Scan, ops: &[Op]) -> u64 {
    for (i, got) in ops.iter().enumerate() {
        assert_eq!(*got, op(applied + 1 + i as u64, 0).0);
    }
    assert_eq!(scan.ops, ops.len() as u64);
    let last = applied + ops.len() as u64;
    assert_eq!(scan.last_lsn, Lsn(last));
    last
}

fn open_on(disk: &(impl Disk + Clone + 'static), applied: u64) -> Wal {
    let (scan, _) = read(disk, applied).unwrap();
    Wal::open(Arc::new(disk.clone()), STORE, scan, SMALL).unwrap()
}

/// What a segment is called once it was given back.
fn spare_name(number: u64) -> String {
    format!("{}.spare", file_name(number))
}

/// The folder is there before anything of it: whoever enters a store makes it.
fn with_folder<D: Disk>(disk: D) -> D {
    disk.create_dir(FOLDER).unwrap();
    disk.sync_dir("").unwrap();
    disk
}

/// Four segments, the first three ended, of five records each; closed in order.
fn several_segments() -> SimDisk {
    let disk = with_folder(SimDisk::new(1));
    let mut wal = open_on(&disk, 0);
    for first in [1, 6, 11] {
        wal.append(&batch(first, 5)).unwrap();
        wal.rotate().unwrap();
    }
    wal.append(&batch(16, 5)).unwrap();
    wal.close().unwrap();
    disk.fork_now()
}

#[test]
fn what_was_written_is_read_back_across_segments_and_openings() {
    let disk = with_folder(MemoryDisk::new());
    let mut next = 1;
    for round in 0..6 {
        let (scan, ops) = read(&disk, 0).unwrap();
        assert_eq!(check(0, &scan, &ops), next - 1);
        assert_eq!(scan.clean, round != 4, "round {round}");
        let mut wal = Wal::open(Arc::new(disk.clone()), STORE, scan, SMALL).unwrap();
        for count in [1, 3, 20, 2] {
            wal.append(&batch(next, count)).unwrap();
            next += count;
            if count != 3 {
                wal.sync().unwrap();
                wal.mark_acked();
            }
        }
        assert_eq!(wal.last_lsn(), Lsn(next - 1));
        if round != 3 {
            wal.close().unwrap();
            assert_eq!(wal.append(&batch(next, 1)).unwrap_err().kind(), ErrorKind::Closed);
        }
    }
    let (scan, ops) = read(&disk, 0).unwrap();
    assert_eq!(check(0, &scan, &ops), next - 1);
    assert!(scan.sealed.len() > 3);
    // Reading on from the middle visits the rest only.
    let (scan, ops) = read(&disk, 50).unwrap();
    assert_eq!(check(50, &scan, &ops), next - 1);
    assert!(scan.torn.is_none() && scan.notes.is_empty());
}

#[test]
fn one_durable_put_is_one_write_and_one_sync() {
    let disk = with_folder(SimDisk::new(1));
    let mut wal = open_on(&disk, 0);
    wal.append(&batch(1, 1)).unwrap();
    wal.sync().unwrap();
    let before = disk.op_count();
    wal.append(&batch(2, 1)).unwrap();
    assert_eq!(disk.op_count(), before + 1);
    wal.sync().unwrap();
    assert_eq!(disk.op_count(), before + 2);
    wal.sync().unwrap();
    assert_eq!(disk.op_count(), before + 2, "nothing left to sync");
}

#[test]
fn opening_after_a_clean_close_writes_nothing() {
    let disk = with_folder(SimDisk::new(1));
    let mut wal = open_on(&disk, 0);
    wal.append(&batch(1, 3)).unwrap();
    wal.close().unwrap();
    assert_eq!(disk.pending_count(), 0, "a power cut now leaves a clean log");
    let before = disk.op_count();
    let mut wal = open_on(&disk, 0);
    wal.close().unwrap();
    wal.close().unwrap();
    assert_eq!(disk.op_count(), before);
    let mut wal = open_on(&disk, 0);
    wal.append(&batch(4, 1)).unwrap();
    assert_eq!(wal.segment_file().unwrap().0, 1, "the same segment goes on");
    assert_eq!(read(&disk, 0).unwrap().1.len(), 4);
}

#[test]
fn payloads_lie_where_append_and_replay_say() {
    let disk = with_folder(MemoryDisk::new());
    let mut wal = open_on(&disk, 0);
    let mut ops = Vec::new();
    for (lsn, len) in [(1, 10), (2, 300 << 10), (3, limits::PAYLOAD_RESIDENT_BYTES_MAX + 1), (4, 0)]
    {
        let (Op::Put(record), _) = op(lsn, 0) else { panic!() };
        let payload: Arc<[u8]> = (0..len).map(|i| (i * 7 + lsn as usize) as u8).collect();
        ops.push((Op::Put(record), payload));
    }
    let places = wal.append(&ops).unwrap();
    wal.sync().unwrap();
    let (number, file) = wal.segment_file().unwrap();
    for ((_, payload), place) in ops.iter().zip(&places) {
        let mut bytes = vec![0; payload.len()];
        file.read_exact_at(&mut bytes, *place).unwrap();
        assert_eq!(bytes, payload[..]);
    }
    // A batch longer than a segment is one segment of its own; the next one goes on behind it.
    wal.append(&batch(5, 1)).unwrap();
    assert_eq!(wal.segment_file().unwrap().0, number + 1);
    let (scan, read) = read(&disk, 0).unwrap();
    assert_eq!(scan.last_lsn, Lsn(5));
    for (i, ((_, payload), place)) in ops.iter().zip(&places).enumerate() {
        let Op::Put(record) = &read[i] else { panic!() };
        match &record.payload {
            Payload::Inline(bytes) => assert_eq!(bytes, payload),
            Payload::InLog(found) => {
                assert_eq!((found.segment, found.offset), (number, *place));
                assert_eq!(found.crc, crc32fast::hash(payload));
                let mut bytes = vec![0; found.len as usize];
                let file = open_segment(&disk, number).unwrap();
                file.read_exact_at(&mut bytes, found.offset).unwrap();
                assert_eq!(bytes, payload[..]);
            }
            Payload::InArchive(_) => panic!(),
        }
        let is_large = payload.len() > limits::PAYLOAD_RESIDENT_BYTES_MAX;
        assert_eq!(is_large, matches!(record.payload, Payload::InLog(_)));
    }
    assert!(wal.resident_bytes() < 300 << 10, "a large batch gives its buffer back");
}

#[test]
fn batches_out_of_order_or_too_large_are_refused_and_cost_nothing() {
    let disk = with_folder(MemoryDisk::new());
    let mut wal = open_on(&disk, 0);
    assert_eq!(wal.append(&batch(2, 1)).unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(wal.append(&[]).unwrap(), Vec::<u64>::new());
    let huge: Arc<[u8]> = vec![0; limits::PAYLOAD_BYTES_MAX].into();
    let ops: Batch = (1..=5).map(|lsn| (op(lsn, 0).0, Arc::clone(&huge))).collect();
    assert_eq!(wal.append(&ops).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(wal.bytes_written(), (0, 0));
    wal.append(&batch(1, 1)).unwrap();
    assert_eq!(read(&disk, 0).unwrap().1.len(), 1);
}

#[test]
fn reclaiming_removes_what_is_applied_and_no_more() {
    let disk = with_folder(SimDisk::new(1));
    let mut wal = open_on(&disk, 0);
    let mut lasts = Vec::new();
    for i in 0..3 {
        wal.append(&batch(i * 10 + 1, 10)).unwrap();
        lasts.push(wal.last_lsn());
        wal.rotate().unwrap();
        wal.rotate().unwrap();
    }
    wal.append(&batch(31, 2)).unwrap();
    wal.sync().unwrap();
    let all = wal.unapplied_bytes();
    assert_eq!(wal.reclaim(Lsn(9)).unwrap(), 0);
    assert!(wal.reclaim(Lsn(20)).unwrap() > 0);
    let names = [spare_name(1), spare_name(2), file_name(3), file_name(4)];
    assert_eq!(disk.file_names(), names);
    let (scan, ops) = read(&disk, 20).unwrap();
    assert_eq!(check(20, &scan, &ops), 32);
    assert_eq!(read(&disk, 19).unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(wal.unapplied_bytes() <= all);
    assert!(wal.reclaim(Lsn(32)).unwrap() > 0);
    assert_eq!(disk.file_names(), [1, 2, 3, 4].map(spare_name));
    for image in disk.crash_images(Profile::Posix, 64) {
        assert!(list(&image).unwrap().is_empty(), "a power cut brings none of them back");
    }
    assert_eq!(wal.unapplied_bytes(), 0);
    assert_eq!(wal.reclaim(Lsn(32)).unwrap(), 0);
    wal.append(&batch(33, 1)).unwrap();
    wal.sync().unwrap();
    assert!(wal.unapplied_bytes() > 0);
    let (scan, ops) = read(&disk, 32).unwrap();
    assert_eq!(check(32, &scan, &ops), 33);
    assert_eq!(scan.tail.unwrap().header.number, 5);
}

#[test]
fn a_log_that_ends_before_the_applied_lsn_goes_on_after_it() {
    let disk = with_folder(MemoryDisk::new());
    let mut wal = open_on(&disk, 0);
    wal.append(&batch(1, 3)).unwrap();
    wal.close().unwrap();
    // The rest of the log was lost unsynced; the archive has it.
    let mut wal = open_on(&disk, 8);
    assert_eq!(wal.last_lsn(), Lsn(8));
    wal.append(&batch(9, 2)).unwrap();
    wal.close().unwrap();
    let (scan, ops) = read(&disk, 8).unwrap();
    assert_eq!(check(8, &scan, &ops), 10);
    assert_eq!(read(&disk, 3).unwrap_err().kind(), ErrorKind::Corrupt, "4 to 8 are nowhere");
}

#[test]
fn a_full_disk_fails_the_batch_and_nothing_else() {
    for fault in [Fault::Enospc, Fault::ShortWrite] {
        let disk = with_folder(SimDisk::new(1));
        let mut wal = open_on(&disk, 0);
        // The first batches of a segment fail: it is created again, and again, as number 1.
        for calls_of_creation in [5, 5, 5] {
            disk.fail_at(disk.op_count() + calls_of_creation, fault, false);
            wal.append(&batch(1, 2)).unwrap_err();
            disk.clear_faults();
        }
        wal.append(&batch(1, 2)).unwrap();
        wal.sync().unwrap();
        assert_eq!(wal.segment_file().unwrap().0, 1);
        disk.fail_at(disk.op_count(), fault, false);
        let error = wal.append(&batch(3, 2)).unwrap_err();
        let kind = if fault == Fault::Enospc { ErrorKind::Full } else { ErrorKind::Io };
        assert_eq!(error.kind(), kind);
        assert_eq!(wal.last_lsn(), Lsn(2));
        wal.append(&batch(3, 1)).unwrap();
        wal.sync().unwrap();
        assert_eq!(wal.segment_file().unwrap().0, 2, "the part of a batch was cut off");
        let (scan, ops) = read(&disk.fork_now(), 0).unwrap();
        assert_eq!(check(0, &scan, &ops), 3);
        assert!(scan.torn.is_none());
        // The disk stays full for a while: each try fails the same way, then it works again.
        disk.fail_at(disk.op_count(), Fault::Enospc, true);
        for _ in 0..5 {
            assert_eq!(wal.append(&batch(4, 1)).unwrap_err().kind(), ErrorKind::Full);
        }
        disk.clear_faults();
        wal.append(&batch(4, 1)).unwrap();
        wal.close().unwrap();
        let (scan, ops) = read(&disk.fork_now(), 0).unwrap();
        assert_eq!(check(0, &scan, &ops), 4);
    }
}

#[test]
fn a_failed_sync_poisons_and_opening_again_writes_the_tail_anew() {
    let disk = with_folder(SimDisk::new(1));
    let mut wal = open_on(&disk, 0);
    wal.append(&batch(1, 2)).unwrap();
    wal.sync().unwrap();
    wal.append(&batch(3, 2)).unwrap();
    disk.fail_at(disk.op_count(), Fault::SyncFails, false);
    assert!(!wal.is_poisoned());
    assert_eq!(wal.sync().unwrap_err().kind(), ErrorKind::Io);
    assert!(wal.is_poisoned());
    let before = disk.op_count();
    assert_eq!(wal.sync().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(wal.append(&batch(5, 1)).unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(wal.rotate().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(wal.reclaim(Lsn(1)).unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(wal.close().unwrap_err().kind(), ErrorKind::Poisoned);
    wal.mark_acked();
    assert_eq!(disk.op_count(), before, "a poisoned log touches nothing");
    drop(wal);
    // The page cache still shows the second batch, the disk does not have it, and a mere sync
    // would not bring it there.
    let (scan, ops) = read(&disk, 0).unwrap();
    assert_eq!(check(0, &scan, &ops), 4);
    let wal = Wal::open(Arc::new(disk.clone()), STORE, scan, SMALL).unwrap();
    assert_eq!(wal.last_lsn(), Lsn(4));
    let after = disk.crash_images(crate::io::sim::Profile::Posix, 100);
    for image in &after {
        let (scan, ops) = read(image, 0).unwrap();
        assert_eq!(check(0, &scan, &ops), 4, "{}", image.label());
    }
}

#[test]
fn other_names_in_the_folder_are_ignored() {
    let disk = with_folder(MemoryDisk::new());
    let mut wal = open_on(&disk, 0);
    wal.append(&batch(1, 1)).unwrap();
    wal.close().unwrap();
    for name in
        ["1.wal", "0000000002.wal.tmp", "00000000003.wal", "+000000004.wal", "0000000000.wal"]
    {
        disk.open(&join(FOLDER, name), OpenMode::CreateNew).unwrap().write_at(b"x", 0).unwrap();
    }
    assert_eq!(list(&disk).unwrap(), [1]);
    assert_eq!(read(&disk, 0).unwrap().1.len(), 1);
}
