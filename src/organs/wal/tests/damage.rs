//! Rot and cuts: whatever bytes a log is given, it answers with a prefix of what was written, or
//! refuses; and it refuses whenever something behind the damage says it had been acknowledged.

use super::*;
use crate::bytes::codec::log::{Commit, FRAME_BYTES, Frame, Kind, SegmentHeader};
use crate::bytes::codec::op::encode_op;

const FILE: &str = "wal/0000000001.wal";

/// A log of three batches (LSN 1-2, 3-5, 6-7), and where it ends.
fn three_batches(ending: Ending) -> (SimDisk, u64) {
    let disk = with_folder(SimDisk::new(1));
    let mut wal = open_on(&disk, 0);
    for (first, count) in [(1, 2), (3, 3), (6, 2)] {
        wal.append(&batch(first, count)).unwrap();
        wal.sync().unwrap();
    }
    ending.make(&mut wal);
    let end = wal.bytes_written().0;
    (disk.fork_now(), end)
}

/// Offsets where the second and the third batch start, and where the third ends.
fn batch_starts() -> [u64; 3] {
    let mut at = 64;
    [(1, 2), (3, 3), (6, 2)].map(|(first, count)| {
        at += active::batch_bytes(&batch(first, count));
        at
    })
}

/// Where a look finds damage, what it means, and how many operations it finds in all.
fn look_at(disk: &SimDisk, applied: u64) -> (Vec<(u64, look::Meaning)>, u64, look::Look) {
    let (file, found) = look::look(disk, Lsn(applied)).unwrap().remove(0);
    assert_eq!(file, FILE);
    let found = found.unwrap();
    let wounds = found.wounds.iter().map(|w| (w.offset, w.meaning)).collect();
    (wounds, found.whole.count() + found.behind.count() + found.loose, found)
}

#[test]
fn a_look_goes_on_behind_damage_and_says_of_it_what_a_replay_does() {
    let [second, _, end] = batch_starts();
    for ending in [Ending::Bare, Ending::Marked, Ending::Closed, Ending::Sealed] {
        let (disk, written) = three_batches(ending);
        let (wounds, ops, whole) = look_at(&disk, 0);
        assert_eq!(
            (wounds.len(), ops, whole.whole.batches, whole.loose),
            (0, 7, 3, 0),
            "{ending:?}"
        );
        assert_eq!(whole.whole.lsns, Some((Lsn(1), Lsn(7))));
        assert_eq!(whole.whole.ops, [("delete", 1), ("put", 6)].into());
        assert_eq!(whole.used_bytes, written, "{ending:?}");
        for at in 64..end {
            let image = disk.fork_now();
            image.flip_bit(FILE, at, (at % 8) as u8).unwrap();
            let context = format!("{ending:?} byte {at}");
            let (wounds, ops, found) = look_at(&image, 0);
            let (place, meaning) = wounds[0];
            assert!(place <= at && wounds.len() == 1, "{context}: {wounds:?}");
            assert!((6..=7).contains(&ops), "{context}: {ops} operations");
            match read(&image, 0) {
                Ok((scan, _)) => {
                    let torn = scan.torn.unwrap();
                    assert!(torn.offset <= place && torn.ambiguous, "{context}");
                    assert_eq!(meaning, look::Meaning::TornOrRotten, "{context}");
                }
                Err(_) => assert_eq!(meaning, look::Meaning::Rotten, "{context}"),
            }
            if at < second {
                assert_eq!(found.behind.lsns.unwrap().1, Lsn(7), "{context}");
            }
            // With everything applied, only a batch that nobody knows may have been there.
            let (scan, _) = read(&image, 7).unwrap();
            let meaning = match scan.torn.map(|torn| torn.ambiguous) {
                None => look::Meaning::Archived,
                Some(true) => look::Meaning::TornOrRotten,
                Some(false) => look::Meaning::Torn,
            };
            assert_eq!(look_at(&image, 7).0[0].1, meaning, "{context}");
        }
    }
}

#[test]
fn every_flipped_bit_gives_a_prefix_or_a_refusal() {
    let [second, third, end] = batch_starts();
    for ending in [Ending::Bare, Ending::Marked, Ending::Closed, Ending::Sealed] {
        let (disk, written) = three_batches(ending);
        for at in 0..written + 600 {
            for bit in [at % 8, (at + 3) % 8] {
                let image = disk.fork_now();
                image.flip_bit(FILE, at, bit as u8).unwrap();
                let context = format!("{ending:?} byte {at} bit {bit}");
                match read(&image, 0) {
                    Ok((scan, ops)) => {
                        let last = check(0, &scan, &ops);
                        // Only damage at the very end, with nothing behind it, is cut, and told.
                        if last < 7 {
                            assert_eq!((last, ending), (5, Ending::Bare), "{context}");
                            assert!((third..end).contains(&at), "{context}");
                            assert!(scan.torn.unwrap().ambiguous, "{context}");
                        } else if !scan.clean && scan.torn.is_none() && ending != Ending::Sealed {
                            assert!(ending != Ending::Closed, "{context}");
                        }
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Corrupt, "{context}: {error}");
                        assert!(at < end, "{context}: {error}");
                        assert!(ending != Ending::Bare || at < third, "{context}: {error}");
                        assert!(error.message().contains(FILE), "{error}");
                    }
                }
                if at >= 64 && at < second {
                    assert!(read(&image, 0).is_err(), "{context}");
                }
                // With everything applied, no damage stands in the way.
                if at >= 64 {
                    let (scan, ops) = read(&image, 7).unwrap();
                    assert_eq!((scan.last_lsn, ops.len()), (Lsn(7), 0), "{context}");
                    let wal = Wal::open(Arc::new(image.clone()), STORE, scan, SMALL);
                    wal.unwrap().append(&batch(8, 1)).unwrap();
                    assert_eq!(read(&image, 7).unwrap().1.len(), 1, "{context}");
                }
            }
        }
    }
}

#[test]
fn damage_among_applied_records_does_not_hide_the_rest() {
    let [second, third, _] = batch_starts();
    for (applied, range) in [(2, 64..second), (5, 64..third), (6, 64..third)] {
        for at in range {
            let (image, _) = three_batches(Ending::Bare);
            image.flip_bit(FILE, at, (at % 8) as u8).unwrap();
            let (scan, ops) = read(&image, applied).unwrap();
            assert_eq!(check(applied, &scan, &ops), 7, "byte {at}");
            assert_eq!(scan.notes.len(), 1);
            let mut wal = open_on(&image, applied);
            wal.append(&batch(8, 1)).unwrap();
            assert_eq!(wal.segment_file().unwrap().0, 2, "a damaged segment is not continued");
            wal.close().unwrap();
            let (scan, ops) = read(&image, applied).unwrap();
            assert_eq!(check(applied, &scan, &ops), 8);
        }
    }
}

/// Found by a drawn workload (seed 20260, workload 2): a buffered write was archived before the log
/// was ever synced, and the power cut that tore it was told as damage.
#[test]
fn an_archived_batch_that_no_sync_reached_is_torn_by_a_crash_not_damaged() {
    for synced in [false, true] {
        let disk = with_folder(SimDisk::new(1));
        let mut wal = open_on(&disk, 0);
        wal.append(&batch(1, 2)).unwrap();
        if synced {
            wal.sync().unwrap();
        }
        wal.append(&batch(3, 1)).unwrap();
        let image = disk.crash_images(crate::io::sim::Profile::Kill, 1).remove(0);
        image.flip_bit(FILE, 100, 1).unwrap();
        let (scan, ops) = read(&image, 3).unwrap();
        assert_eq!(check(3, &scan, &ops), 3);
        assert_eq!((scan.notes.len(), scan.torn.is_some()), (usize::from(synced), false));
        let mut wal = open_on(&image, 3);
        wal.append(&batch(4, 1)).unwrap();
        assert_eq!(wal.segment_file().unwrap().0, 2, "a torn segment is not continued");
    }
}

#[test]
fn a_torn_batch_that_is_partly_applied_is_cut_not_refused() {
    let [_, third, end] = batch_starts();
    for at in third..end {
        let (image, _) = three_batches(Ending::Bare);
        image.flip_bit(FILE, at, (at % 8) as u8).unwrap();
        let (scan, ops) = read(&image, 6).unwrap();
        assert_eq!(check(6, &scan, &ops), 6);
        assert!(scan.torn.is_some(), "byte {at}");
        let mut wal = open_on(&image, 6);
        wal.append(&batch(7, 2)).unwrap();
        wal.close().unwrap();
        let (scan, ops) = read(&image, 6).unwrap();
        assert_eq!(check(6, &scan, &ops), 8);
    }
}

#[test]
fn a_mark_that_still_stands_says_that_the_batch_over_it_was_cut_short() {
    let (image, end) = three_batches(Ending::Marked);
    image.set_bytes(FILE, end + 100, &[1; 2000]).unwrap();
    let (scan, ops) = read(&image, 0).unwrap();
    assert_eq!(check(0, &scan, &ops), 7);
    let torn = scan.torn.unwrap();
    assert_eq!((torn.offset, torn.ambiguous), (batch_starts()[2], false));
    // A mark on a sector of its own, and no sector without a byte of the next batch in it.
    let (image, end) = three_batches(Ending::Marked);
    image.set_bytes(FILE, end, &[1; 2000]).unwrap();
    assert!(!read(&image, 0).unwrap().0.torn.unwrap().ambiguous);
}

#[test]
fn every_truncation_gives_a_prefix_or_a_refusal() {
    let starts = batch_starts();
    for ending in [Ending::Bare, Ending::Marked, Ending::Closed] {
        let (disk, written) = three_batches(ending);
        for len in 0..written + 10 {
            let image = disk.fork_now();
            image.truncate(FILE, len).unwrap();
            let (scan, ops) = read(&image, 0).unwrap();
            let last = check(0, &scan, &ops);
            let whole = [2, 5, 7].iter().zip(starts).filter(|(_, end)| *end <= len).map(|w| *w.0);
            assert_eq!(last, whole.max().unwrap_or(0), "cut to {len}");
            assert!(scan.torn.is_none_or(|torn| !torn.ambiguous), "cut to {len}");
            let mut wal = open_on(&image, 0);
            wal.append(&batch(last + 1, 2)).unwrap();
            wal.close().unwrap();
            let (scan, ops) = read(&image, 0).unwrap();
            assert_eq!(check(0, &scan, &ops), last + 2);
        }
    }
}

#[test]
fn every_zeroed_sector_gives_a_prefix_or_a_refusal() {
    for ending in [Ending::Bare, Ending::Marked, Ending::Closed, Ending::Sealed] {
        let (disk, written) = three_batches(ending);
        for at in 0..written {
            let image = disk.fork_now();
            let len = 512.min(4096 - at) as usize;
            image.set_bytes(FILE, at, &vec![0; len]).unwrap();
            match read(&image, 0) {
                Ok((scan, ops)) => {
                    check(0, &scan, &ops);
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt),
            }
        }
    }
}

#[test]
fn a_batch_cut_short_is_torn_a_whole_one_is_ambiguous() {
    let [_, third, end] = batch_starts();
    let (disk, _) = three_batches(Ending::Bare);
    // Its last sector never arrived.
    let torn = disk.fork_now();
    let from = (end - 1) / 512 * 512;
    assert!(from > third);
    torn.set_bytes(FILE, from, &vec![0; (end - from) as usize]).unwrap();
    let (scan, ops) = read(&torn, 0).unwrap();
    assert_eq!(check(0, &scan, &ops), 5);
    let tail = scan.torn.clone().unwrap();
    assert_eq!((tail.offset, tail.ambiguous), (third, false));
    assert_eq!(tail.bytes, from - third);
    // All of it is there and one bit differs: cut, but the bytes are kept.
    let rotten = disk.fork_now();
    rotten.flip_bit(FILE, third + 40, 0).unwrap();
    let kept = rotten.durable_bytes(FILE).unwrap()[third as usize..end as usize].to_vec();
    let (scan, _) = read(&rotten, 0).unwrap();
    assert!(scan.torn.clone().unwrap().ambiguous);
    let mut wal = Wal::open(Arc::new(rotten.clone()), STORE, scan, SMALL).unwrap();
    assert_eq!(rotten.durable_bytes("wal/0000000001.torn").unwrap(), kept);
    wal.append(&batch(6, 1)).unwrap();
    wal.close().unwrap();
    let (scan, ops) = read(&rotten, 0).unwrap();
    assert_eq!(check(0, &scan, &ops), 6);
    assert!(scan.torn.is_none() && scan.clean);
}

#[test]
fn unsynced_batches_behind_a_torn_one_prove_nothing_synced_ones_do() {
    for synced in [false, true] {
        let disk = with_folder(SimDisk::new(1));
        let mut wal = open_on(&disk, 0);
        wal.append(&batch(1, 2)).unwrap();
        wal.sync().unwrap();
        let cut = 64 + active::batch_bytes(&batch(1, 2));
        wal.append(&batch(3, 3)).unwrap();
        if synced {
            wal.sync().unwrap();
        }
        wal.append(&batch(6, 3)).unwrap();
        let image = disk.crash_images(crate::io::sim::Profile::Kill, 1).remove(0);
        image.set_bytes(FILE, cut.next_multiple_of(512), &[0; 512]).unwrap();
        match read(&image, 0) {
            Ok((scan, ops)) => {
                assert!(!synced);
                assert_eq!(check(0, &scan, &ops), 2);
                assert!(!scan.torn.unwrap().ambiguous);
            }
            Err(error) => {
                assert!(synced, "{error}");
                assert!(error.message().contains("LSN 3 to 5"), "{error}");
            }
        }
    }
}

#[test]
fn a_missing_or_foreign_segment_is_refused_unless_it_is_applied() {
    for number in 1..=3 {
        let image = several_segments();
        image.remove(&file_name(number)).unwrap();
        let error = read(&image, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "segment {number}");
        assert!(error.message().contains("gap"), "{error}");
        let (scan, ops) = read(&image, number * 5).unwrap();
        assert_eq!(check(number * 5, &scan, &ops), 20);
    }
    // Swapped segments: each header names its own number.
    let image = several_segments();
    image.rename(&file_name(2), "wal/x").unwrap();
    image.rename(&file_name(3), &file_name(2)).unwrap();
    image.rename("wal/x", &file_name(3)).unwrap();
    assert_eq!(read(&image, 0).unwrap_err().kind(), ErrorKind::Corrupt);
    let other = replay(&several_segments(), [7; 16], Lsn(0), &mut |_| panic!());
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn any_damage_in_an_older_segment_is_refused_unless_it_is_applied() {
    let disk = several_segments();
    let bytes = disk.durable_bytes(&file_name(2)).unwrap();
    let end = bytes.iter().rposition(|b| *b != 0).unwrap() + 1;
    for at in 0..end {
        let image = disk.fork_now();
        image.flip_bit(&file_name(2), at as u64, (at % 8) as u8).unwrap();
        match read(&image, 0) {
            // The footer: the next segment shows that nothing is missing.
            Ok((scan, ops)) => {
                assert!(at >= end - 32, "byte {at}");
                assert_eq!(check(0, &scan, &ops), 20);
                assert_eq!(scan.notes.len(), 1);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt),
        }
        let (scan, ops) = read(&image, 10).unwrap();
        assert_eq!(check(10, &scan, &ops), 20);
        // Partly applied, and the damage lies in the applied part or not: never a wrong answer.
        if let Ok((scan, ops)) = read(&image, 8) {
            assert_eq!(check(8, &scan, &ops), 20);
        }
    }
}

#[test]
fn a_segment_that_was_never_finished_is_no_loss() {
    for len in [0, 10, 63, 64, 500, 4096] {
        let image = several_segments();
        let name = file_name(5);
        let file = image.open(&name, OpenMode::CreateNew).unwrap();
        file.set_len(len).unwrap();
        // The segment before it must have ended for this one to exist.
        assert_eq!(read(&image, 0).unwrap_err().kind(), ErrorKind::Corrupt);
        image.remove(&name).unwrap();

        let sealed = several_segments();
        open_on(&sealed, 0).rotate().unwrap();
        let file = sealed.open(&name, OpenMode::CreateNew).unwrap();
        file.set_len(len).unwrap();
        let mut wal = open_on(&sealed, 0);
        wal.append(&batch(21, 2)).unwrap();
        assert_eq!(wal.segment_file().unwrap().0, 5);
        wal.close().unwrap();
        let (scan, ops) = read(&sealed, 0).unwrap();
        assert_eq!(check(0, &scan, &ops), 22);
        // With something in it, a damaged header is damage.
        sealed.flip_bit(&name, 20, 1).unwrap();
        assert_eq!(read(&sealed, 0).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

/// A segment of frames that verify, in any order: kind, LSN, batch, payload.
fn forged(frames: &[(Kind, u64, u64, Vec<u8>)]) -> MemoryDisk {
    let disk = with_folder(MemoryDisk::new());
    disk.create_dir(FOLDER).unwrap();
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
    for (kind, lsn, batch, payload) in frames {
        let at = bytes.len() as u64;
        let payload_crc = seed.crc(at + FRAME_BYTES as u64, payload);
        let (len, lsn, batch) = (payload.len() as u32, Lsn(*lsn), *batch);
        let frame = Frame { kind: *kind, len, lag: 0, lsn, batch, payload_crc };
        bytes.extend_from_slice(&frame.encode(seed, at));
        bytes.extend_from_slice(payload);
    }
    disk.open(FILE, OpenMode::CreateNew).unwrap().write_at(&bytes, 0).unwrap();
    disk
}

#[test]
fn frames_that_verify_and_make_no_sense_are_refused() {
    let put = |lsn: u64, batch: u64| {
        let (op, payload) = op(lsn, 0);
        let mut bytes = Vec::new();
        encode_op(&op, &payload, &mut bytes);
        (Kind::Op, lsn, batch, bytes)
    };
    // The CRC over the headers of one forged operation, as `forged` will write it first.
    let crc_of = |frame: &(Kind, u64, u64, Vec<u8>)| {
        let file = forged(std::slice::from_ref(frame)).open(FILE, OpenMode::Read).unwrap();
        let mut header = [0; FRAME_BYTES];
        file.read_exact_at(&mut header, 64).unwrap();
        crc32fast::hash(&header)
    };
    let commit = |lsn: u64, batch: u64, count: u32, first: u64, batch_crc: u32| {
        let mut bytes = Vec::new();
        Commit { count, first_lsn: Lsn(first), batch_crc }.encode(&mut bytes);
        (Kind::Commit, lsn, batch, bytes)
    };
    let crc = crc_of(&put(1, 1));
    let good = [put(1, 1), commit(1, 1, 1, 1, crc)];
    let (scan, ops) = read(&forged(&good), 0).unwrap();
    assert_eq!(check(0, &scan, &ops), 1);
    let end = |kind: Kind, lsn: u64, batch: u64| (kind, lsn, batch, Vec::new());
    let longer = |frame| [good.to_vec(), vec![frame]].concat();
    for (what, frames) in [
        ("an LSN left out", vec![put(2, 1)]),
        ("a batch left out", vec![put(1, 2)]),
        ("an LSN twice", vec![put(1, 1), put(1, 1)]),
        ("a commit of nothing", vec![commit(0, 1, 0, 1, crc32fast::hash(&[]))]),
        ("a commit of more", vec![put(1, 1), commit(1, 1, 2, 1, crc)]),
        ("a commit of another start", vec![put(1, 1), commit(1, 1, 1, 2, crc)]),
        ("a commit of other headers", vec![put(1, 1), commit(1, 1, 1, 1, crc ^ 1)]),
        ("a commit of another end", vec![put(1, 1), commit(2, 1, 1, 1, crc)]),
        ("a commit of another batch", vec![put(1, 1), commit(1, 2, 1, 1, crc)]),
        ("a short commit", vec![put(1, 1), (Kind::Commit, 1, 1, vec![1; 15])]),
        ("a footer inside a batch", vec![put(1, 1), end(Kind::Footer, 0, 0)]),
        ("a footer of another LSN", longer(end(Kind::Footer, 2, 1))),
        ("a close of another batch", longer(end(Kind::Close, 1, 2))),
        ("a mark with a payload", longer((Kind::AckMark, 1, 1, vec![1]))),
        ("a record that is none", vec![(Kind::Op, 1, 1, vec![1, 1, 0, 0])]),
    ] {
        let error = read(&forged(&frames), 0).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
    }
    let newer = read(&forged(&[(Kind::Op, 1, 1, vec![1, 2, 0, 0])]), 0).unwrap_err();
    assert_eq!(newer.kind(), ErrorKind::Version);
}

#[test]
fn another_format_is_refused_by_its_own_kind() {
    use crate::bytes::codec::cursor::Put;
    let image = several_segments();
    let mut header = image.durable_bytes(&file_name(4)).unwrap()[..64].to_vec();
    header.set_u32(8, 0x77);
    let crc = crc32fast::hash(&header[..60]);
    header.set_u32(60, crc);
    image.set_bytes(&file_name(4), 0, &header).unwrap();
    assert_eq!(read(&image, 0).unwrap_err().kind(), ErrorKind::Version);
}
