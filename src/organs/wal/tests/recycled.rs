//! Segments that are made of older ones: they cost no zeros, what stood in them never comes out again,
//! their end is seen as that of any other, and nothing acknowledged passes for old bytes.

use super::*;
use crate::bytes::codec::log::{FRAME_BYTES, HEADER_BYTES, SegmentHeader};
use crate::io::sim::Limits;

const OLD: u64 = 20;
const FRAME: u64 = FRAME_BYTES as u64;
/// What the second segment holds, batch by batch.
const BATCHES: [(u64, u64); 3] = [(OLD + 1, 2), (OLD + 3, 3), (OLD + 6, 2)];
const LAST: u64 = OLD + 7;

/// A log whose first segment was given back, and whose second is to be made of it.
fn with_a_spare() -> (SimDisk, Wal) {
    let disk = with_folder(SimDisk::new(1));
    let mut wal = open_on(&disk, 0);
    wal.append(&batch(1, OLD)).unwrap();
    wal.sync().unwrap();
    wal.reclaim(Lsn(OLD)).unwrap();
    assert_eq!(disk.file_names(), [spare_name(1)]);
    (disk, wal)
}

/// Three batches in a recycled segment that held more before.
fn recycled(ending: Ending) -> SimDisk {
    let (disk, mut wal) = with_a_spare();
    for (first, count) in BATCHES {
        wal.append(&batch(first, count)).unwrap();
        wal.sync().unwrap();
    }
    ending.make(&mut wal);
    let image = disk.crash_images(Profile::Kill, 1).remove(0);
    let file = if ending == Ending::Closed { 0 } else { 2000 };
    let bytes = image.durable_bytes(&file_name(2)).unwrap();
    assert!(SegmentHeader::decode(&bytes).unwrap().recycled);
    let behind = bytes.get(ends()[2] as usize + 3 * FRAME_BYTES..).unwrap_or_default();
    assert!(behind.iter().filter(|byte| **byte != 0).count() >= file, "old bytes behind the end");
    image
}

/// Where each batch ends.
fn ends() -> [u64; 3] {
    let mut at = HEADER_BYTES as u64;
    BATCHES.map(|(first, count)| {
        at += active::batch_bytes(&batch(first, count));
        at
    })
}

#[test]
fn in_the_steady_state_nothing_is_filled_with_zeros() {
    let disk = with_folder(SimDisk::new(1));
    let mut wal = open_on(&disk, 0);
    let (mut next, mut zeros, mut appended) = (1, 0, 0);
    let mut numbers = std::collections::BTreeSet::new();
    for cycle in 0..12 {
        for _ in 0..12 {
            wal.append(&batch(next, 5)).unwrap();
            wal.sync().unwrap();
            (next, appended) = (next + 5, appended + 1);
            let (number, _) = wal.segment_file().unwrap();
            numbers.insert(number);
            let bytes = disk.durable_bytes(&file_name(number)).unwrap();
            assert!(SegmentHeader::decode(&bytes).unwrap().recycled || cycle < 3, "cycle {cycle}");
        }
        // All of it, or all but what came meanwhile.
        wal.reclaim(Lsn(next - 1 - 5 * (cycle % 2))).unwrap();
        if cycle == 2 {
            (zeros, appended) = (wal.bytes_written().1, 0);
        }
    }
    assert!(numbers.len() > 24, "{numbers:?}");
    let most = 2 * FRAME * (appended + numbers.len() as u64);
    let more = wal.bytes_written().1 - zeros;
    assert!(more <= most, "{more} bytes of zeros, {most} stand behind batches");
    assert!(disk.file_names().len() < 8, "{:?}", disk.file_names());
    wal.close().unwrap();
    assert!(disk.file_names().iter().all(|name| name.ends_with(".wal")), "a close keeps none");
}

#[test]
fn a_log_of_many_segments_keeps_few_files() {
    let disk = with_folder(MemoryDisk::new());
    let mut wal = open_on(&disk, 0);
    let spares = || disk.list(FOLDER).unwrap().iter().filter(|n| n.ends_with(".spare")).count();
    let mut next = 1;
    for cycle in 0..3 {
        for _ in 0..100 {
            wal.append(&batch(next, 1)).unwrap();
            next += 1;
            wal.rotate().unwrap();
        }
        let held = wal.ended.iter().filter(|ended| ended.segment.is_some()).count();
        assert!((60..=64).contains(&(held + spares())), "cycle {cycle}: {held} and {}", spares());
        // What is not held has no old bytes.
        for ended in wal.ended.iter().filter(|ended| ended.segment.is_none()) {
            let file = disk.open(&file_name(ended.sealed.number), OpenMode::Read).unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            let recycled = SegmentHeader::decode(&bytes).unwrap().recycled;
            assert!(!recycled || bytes.len() < 1000, "cycle {cycle}");
        }
        wal.reclaim(Lsn(next - 1)).unwrap();
        assert!((60..=64).contains(&spares()), "cycle {cycle}: {}", spares());
    }
}

#[test]
fn what_stood_in_a_segment_never_comes_out_of_the_next_one() {
    let disk = with_folder(SimDisk::new(1));
    let mut wal = open_on(&disk, 0);
    let (mut next, mut applied) = (1, 0);
    for round in 0..120u64 {
        let count = 1 + round * 7 % 11;
        wal.append(&batch(next, count)).unwrap();
        next += count;
        wal.sync().unwrap();
        if round.is_multiple_of(3) {
            wal.mark_acked();
        }
        let image = disk.fork_now();
        let (scan, ops) = read(&image, applied).unwrap();
        assert_eq!(check(applied, &scan, &ops), next - 1);
        assert!(scan.torn.is_none() && scan.notes.is_empty(), "{scan:?}");
        for (name, look) in look::look(&image, Lsn(applied)).unwrap() {
            let look = look.unwrap();
            assert_eq!((look.wounds_total, look.loose), (0, 0), "{name}");
        }
        if round.is_multiple_of(5) {
            drop(open_on(&image, applied));
            let names = image.file_names();
            assert!(names.iter().all(|name| name.ends_with(".wal")), "no spare stays: {names:?}");
            let (scan, ops) = read(&image, applied).unwrap();
            assert_eq!(check(applied, &scan, &ops), next - 1);
        }
        if round.is_multiple_of(8) {
            applied = next - 1 - round % 3;
            wal.reclaim(Lsn(applied)).unwrap();
        }
    }
    wal.close().unwrap();
    let (number, _) = wal.segment_file().unwrap();
    let (scan, _) = read(&disk, applied).unwrap();
    assert!(scan.clean);
    let len = disk.durable_bytes(&file_name(number)).unwrap().len() as u64;
    assert_eq!(len, scan.tail.unwrap().at + FRAME, "a closed log holds nothing but its own");
}

#[test]
fn every_flipped_bit_of_a_recycled_segment_gives_a_prefix_or_a_refusal() {
    let [_, third, end] = ends();
    for ending in [Ending::Bare, Ending::Marked, Ending::Closed, Ending::Sealed] {
        let disk = recycled(ending);
        let len = disk.durable_bytes(&file_name(2)).unwrap().len() as u64;
        for at in 0..(end + 600).min(len) {
            let image = disk.fork_now();
            image.flip_bit(&file_name(2), at, (at % 8) as u8).unwrap();
            let context = format!("{ending:?} byte {at}");
            match read(&image, OLD) {
                Ok((scan, ops)) => {
                    let last = check(OLD, &scan, &ops);
                    if last < LAST {
                        assert_eq!((last, ending), (OLD + 5, Ending::Bare), "{context}");
                        assert!((third..end).contains(&at), "{context}");
                        let torn = scan.torn.unwrap();
                        assert!(torn.ambiguous, "{context}");
                        assert_eq!((torn.offset, torn.bytes), (third, end - third), "{context}");
                    } else {
                        assert!(at >= end, "{context}");
                        assert!(!scan.clean || ending == Ending::Closed, "{context}");
                    }
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{context}: {error}");
                    assert!(
                        at < end && (ending != Ending::Bare || at < third),
                        "{context}: {error}"
                    );
                }
            }
            let found = look::look(&image, Lsn(OLD)).unwrap().remove(0).1.unwrap();
            if let Some(wound) = found.wounds.first() {
                let told = wound.meaning == look::Meaning::Rotten;
                assert_eq!(read(&image, OLD).is_err(), told, "{context}: {wound:?}");
            }
        }
    }
}

#[test]
fn zeros_where_a_batch_begins_are_no_end_when_something_stands_behind() {
    let [_, third, end] = ends();
    for ending in [Ending::Bare, Ending::Marked] {
        for len in [FRAME, 2 * FRAME, end - third - FRAME] {
            let image = recycled(ending);
            image.set_bytes(&file_name(2), third, &vec![0; len as usize]).unwrap();
            match read(&image, OLD) {
                Ok((scan, ops)) => {
                    assert_eq!((check(OLD, &scan, &ops), ending), (OLD + 5, Ending::Bare));
                    let left = end - third - len;
                    assert!(scan.torn.is_some() || left < 48, "{len} zeros pass for the end");
                }
                Err(error) => assert_eq!(ending, Ending::Marked, "{len}: {error}"),
            }
            if ending == Ending::Marked {
                assert!(read(&image, OLD).is_err(), "{len} zeros before a mark");
            }
        }
    }
}

#[test]
fn a_batch_torn_over_old_bytes_is_cut_off_and_none_of_them_is_kept_with_it() {
    let [_, third, end] = ends();
    let image = recycled(Ending::Bare);
    let before = with_a_spare().0.durable_bytes(&spare_name(1)).unwrap();
    // Its last sector holds what it held before.
    let from = (end - 1) / 512 * 512;
    assert!(from > third);
    let old = &before[from as usize..end as usize + 64];
    image.set_bytes(&file_name(2), from, old).unwrap();
    let (scan, ops) = read(&image, OLD).unwrap();
    assert_eq!(check(OLD, &scan, &ops), OLD + 5);
    let torn = scan.torn.clone().unwrap();
    assert_eq!((torn.offset, torn.ambiguous), (third, true), "nothing tells it from rot");
    assert!(torn.bytes <= end - third, "{torn:?}");
    let mut wal = Wal::open(Arc::new(image.clone()), STORE, scan, SMALL).unwrap();
    let kept = image.durable_bytes("wal/0000000002.torn").unwrap();
    assert_eq!(kept.len() as u64, torn.bytes);
    wal.append(&batch(OLD + 6, 1)).unwrap();
    wal.close().unwrap();
    let (scan, ops) = read(&image, OLD).unwrap();
    assert_eq!(check(OLD, &scan, &ops), OLD + 6);
    // What was written anew has no old bytes.
    assert!(image.durable_bytes(&file_name(2)).unwrap().len() as u64 <= third + FRAME);
}

#[test]
fn a_file_that_somebody_reads_is_not_written_over() {
    let disk = with_folder(SimDisk::new(1));
    let mut wal = open_on(&disk, 0);
    let (_, payload) = op(1, 0);
    let places = wal.append(&batch(1, 1)).unwrap();
    let (number, held) = wal.segment_file().unwrap();
    wal.sync().unwrap();
    wal.reclaim(Lsn(1)).unwrap();
    let mut next = 2;
    for held in [Some(held), None] {
        wal.append(&batch(next, 3)).unwrap();
        next += 3;
        let (made, _) = wal.segment_file().unwrap();
        let header = SegmentHeader::decode(
            &disk.fork_now().crash_images(Profile::Kill, 1)[0]
                .durable_bytes(&file_name(made))
                .unwrap(),
        )
        .unwrap();
        assert_eq!(header.recycled, held.is_none(), "segment {made}");
        if let Some(held) = held {
            let mut bytes = vec![0; payload.len()];
            held.read_exact_at(&mut bytes, places[0]).unwrap();
            assert_eq!(bytes, payload[..], "segment {number} is gone, and can be read");
        }
        wal.rotate().unwrap();
    }
}

#[test]
fn what_is_forgotten_is_on_the_disk_no_more_whatever_a_crash_leaves() {
    // A payload of a record that is given back, as it stands in the log.
    let (Op::Put(_), secret) = op(OLD - 2, 0) else { panic!() };
    let holds = |image: &SimDisk| {
        image.file_names().iter().any(|name| {
            let bytes = image.durable_bytes(name).unwrap_or_default();
            bytes.windows(secret.len()).any(|part| part == &secret[..])
        })
    };
    let (disk, mut wal) = with_a_spare();
    assert!(holds(&disk));
    // Behind the end of a segment that ended, behind the end of the current one, and in a spare.
    wal.append(&batch(OLD + 1, 1)).unwrap();
    assert!(holds(&disk));
    wal.rotate().unwrap();
    wal.append(&batch(OLD + 2, OLD - 1)).unwrap();
    wal.sync().unwrap();
    wal.forget_old().unwrap();
    assert!(!disk.file_names().iter().any(|name| !name.ends_with(".wal")));
    let mut next = 2 * OLD + 1;
    for round in 0..4 {
        for image in disk.crash_images(Profile::Posix, 64) {
            assert!(!holds(&image), "round {round}, {}", image.label());
            let (scan, ops) = read(&image, OLD).unwrap();
            let last = check(OLD, &scan, &ops);
            assert!(last >= next - 1 - round && last < next, "{}", image.label());
        }
        wal.append(&batch(next, 1)).unwrap();
        next += 1;
    }
    // What stood in the log by then is kept for no other segment: it may have been deleted, too.
    wal.sync().unwrap();
    wal.reclaim(Lsn(next - 1)).unwrap();
    assert_eq!(disk.file_names(), Vec::<String>::new());
}

#[test]
fn a_full_disk_takes_the_spares_first() {
    let (disk, mut wal) = with_a_spare();
    let mut next = OLD + 1;
    wal.append(&batch(next, 20)).unwrap();
    next += 20;
    wal.rotate().unwrap();
    wal.append(&batch(next, 20)).unwrap();
    next += 20;
    wal.sync().unwrap();
    wal.reclaim(Lsn(next - 1)).unwrap();
    assert_eq!(disk.file_names().len(), 2, "two spares: {:?}", disk.file_names());
    disk.set_capacity(Some(disk.used_bytes()));
    // The first segment takes one, and is as long. A batch that is longer finds the room of the other.
    wal.append(&batch(next, 3)).unwrap();
    next += 3;
    assert_eq!(disk.file_names().len(), 2);
    assert!(wal.give_up_spares() && !wal.give_up_spares());
    wal.append(&batch(next, 20)).unwrap();
    next += 20;
    wal.sync().unwrap();
    let image = disk.fork_now();
    let (scan, ops) = read(&image, 2 * OLD + OLD).unwrap();
    assert_eq!(check(3 * OLD, &scan, &ops), next - 1);
}

#[test]
fn a_crash_between_any_two_steps_of_recycling_leaves_a_log_or_a_stray() {
    let disk = with_folder(SimDisk::new(1));
    let mut wal = open_on(&disk, 0);
    wal.append(&batch(1, OLD)).unwrap();
    wal.sync().unwrap();
    disk.record();
    wal.reclaim(Lsn(OLD)).unwrap();
    let given_back = disk.op_count();
    wal.append(&batch(OLD + 1, 3)).unwrap();
    let appended = disk.op_count();
    wal.sync().unwrap();
    let recording = disk.recording().unwrap();
    let steps: Vec<String> =
        (recording.first_op()..recording.end_op()).map(|op| recording.describe(op)).collect();
    assert!(appended - given_back <= 5, "one write, a sync, a name, its sync, a batch: {steps:?}");
    let limits = Limits { images: 200, torn: 60, noise: true, ..Limits::default() };
    for op in recording.first_op()..=recording.end_op() {
        for profile in [Profile::Kill, Profile::Prefix, Profile::Posix] {
            for image in recording.images_at(op, profile, &limits) {
                let context = format!("{}, {steps:?}", image.label());
                let (scan, ops) = read(&image, OLD).unwrap_or_else(|e| panic!("{e}: {context}"));
                let last = check(OLD, &scan, &ops);
                assert!(last == OLD || last == OLD + 3, "{context}");
                assert!(last == OLD + 3 || op < recording.end_op(), "{context}");
                drop(Wal::open(Arc::new(image.clone()), STORE, scan, SMALL).unwrap());
                let names = image.file_names();
                let is_stray = |name: &String| name.ends_with(".spare") || name.ends_with(".tmp");
                assert!(!names.iter().any(is_stray), "{names:?} {context}");
            }
        }
    }
}
