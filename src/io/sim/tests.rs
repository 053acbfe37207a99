//! The simulated disk, judged by what POSIX would allow a real one.

use std::collections::{BTreeSet, HashSet};

use super::*;
use crate::io::write_atomic;

fn create(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = disk.open(name, OpenMode::CreateNew).unwrap();
    file.write_at(bytes, 0).unwrap();
    file
}

/// A file that is there for good.
fn settled(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = create(disk, name, bytes);
    file.sync().unwrap();
    disk.sync_dir(name.rsplit_once('/').map_or("", |(folder, _)| folder)).unwrap();
    file
}

fn contents(disks: &[SimDisk], name: &str) -> BTreeSet<Option<Vec<u8>>> {
    disks.iter().map(|disk| disk.durable_bytes(name)).collect()
}

fn text(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(bytes.to_vec())
}

#[test]
fn what_was_synced_survives_every_crash() {
    let disk = SimDisk::new(1);
    disk.create_dir("wal").unwrap();
    disk.sync_dir("").unwrap();
    let file = settled(&disk, "wal/1", b"kept");
    file.write_at(b"more", 4).unwrap();
    for profile in Profile::ALL {
        for image in disk.crash_images(profile, 100) {
            assert_eq!(&image.durable_bytes("wal/1").unwrap()[..4], b"kept", "{}", image.label());
            assert_eq!(image.pending_count(), 0);
            assert_eq!(image.fork_now().image_hash(), image.image_hash());
        }
    }
    assert_eq!(disk.pending_count(), 1);
}

#[test]
fn length_and_bytes_go_their_own_ways() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "a", b"12");
    file.write_at(b"34", 2).unwrap();
    let found = contents(&disk.crash_images(Profile::Posix, 100), "a");
    // Bytes without the length are invisible: that image is the old file.
    assert_eq!(found, BTreeSet::from([text(b"12"), text(b"12\0\0"), text(b"1234")]));
    for image in disk.crash_images(Profile::Posix, 100) {
        // Nor do they come to light when somebody extends the file afterwards.
        if image.durable_bytes("a") == text(b"12") {
            image.open("a", OpenMode::ReadWrite).unwrap().set_len(4).unwrap();
            let later = contents(&image.crash_images(Profile::Kill, 1), "a");
            assert_eq!(later, [text(b"12\0\0")].into());
        }
    }
    let kill = contents(&disk.crash_images(Profile::Kill, 100), "a");
    assert_eq!(kill, BTreeSet::from([text(b"1234")]));
    file.set_len(1).unwrap();
    let found = contents(&disk.crash_images(Profile::Posix, 100), "a");
    assert!(found.contains(&text(b"1")) && found.contains(&text(b"1234")));
    file.sync().unwrap();
    assert_eq!(contents(&disk.crash_images(Profile::Posix, 100), "a"), [text(b"1")].into());
}

#[test]
fn bytes_of_a_lost_length_appear_with_a_later_one() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "a", b"");
    file.write_at(b"x", 0).unwrap();
    file.write_at(b"y", 1).unwrap();
    let posix = contents(&disk.crash_images(Profile::Posix, 100), "a");
    assert!(posix.contains(&text(b"x\0")) && posix.contains(&text(b"\0y")));
    let images = disk.crash_images(Profile::Prefix, 100);
    let firm: Vec<_> = images[..3].iter().map(|image| image.durable_bytes("a")).collect();
    assert_eq!(firm, [text(b"xy"), text(b""), text(b"x")], "all, none, the first alone");
    let prefix = contents(&images, "a");
    assert!(prefix.contains(&text(b"x")) && !prefix.contains(&text(b"\0y")), "{prefix:?}");
}

#[test]
fn names_are_apart_from_contents() {
    let disk = SimDisk::new(1);
    create(&disk, "a", b"text").sync().unwrap();
    let found = contents(&disk.crash_images(Profile::Posix, 100), "a");
    assert_eq!(found, [None, text(b"text")].into(), "a synced file may have no name yet");
    disk.sync_dir("").unwrap();
    disk.rename("a", "b").unwrap();
    let images = disk.crash_images(Profile::Posix, 100);
    let names: BTreeSet<_> = images.iter().map(SimDisk::file_names).collect();
    assert_eq!(names, [vec!["a".to_owned()], vec!["b".to_owned()]].into(), "a rename is atomic");
    disk.sync_dir("").unwrap();
    disk.remove("b").unwrap();
    let images = disk.crash_images(Profile::Posix, 100);
    assert_eq!(contents(&images, "b"), [None, text(b"text")].into());
}

#[test]
fn a_folder_that_is_lost_takes_its_files_along() {
    let disk = SimDisk::new(1);
    disk.create_dir("wal").unwrap();
    create(&disk, "wal/1", b"x").sync().unwrap();
    disk.sync_dir("wal").unwrap();
    let images = disk.crash_images(Profile::Posix, 100);
    assert_eq!(contents(&images, "wal/1"), [None, text(b"x")].into());
    disk.sync_dir("").unwrap();
    assert_eq!(contents(&disk.crash_images(Profile::Posix, 100), "wal/1"), [text(b"x")].into());
}

#[test]
fn atomic_writes_are_atomic_and_each_sync_in_them_is_needed() {
    let disk = SimDisk::new(1);
    write_atomic(&disk, "", "a", b"old").unwrap();
    disk.record();
    write_atomic(&disk, "", "a", b"new").unwrap();
    let run = disk.recording().unwrap();
    let mut found = BTreeSet::new();
    for op in run.first_op()..=run.end_op() {
        found.extend(contents(&run.images_at(op, Profile::Posix, &Limits::default()), "a"));
    }
    assert_eq!(found, [text(b"old"), text(b"new")].into());
    let done = run.images_at(run.end_op(), Profile::Posix, &Limits::default());
    assert_eq!(contents(&done, "a"), [text(b"new")].into());

    // Without the sync of the file, the name can be there before the bytes.
    let careless = SimDisk::new(1);
    write_atomic(&careless, "", "a", b"old").unwrap();
    create(&careless, "a.tmp", b"new");
    careless.rename("a.tmp", "a").unwrap();
    let found = contents(&careless.crash_images(Profile::Posix, 1000), "a");
    assert!(found.contains(&text(b"")) && found.contains(&text(b"\0\0\0")), "{found:?}");
}

#[test]
fn writes_tear_at_sectors() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "a", &[1; 16_384]);
    file.write_at(&[2; 9000], 300).unwrap();
    let (mut torn, mut whole_pages, mut noisy) = (0, 0, 0);
    disk.record();
    let run = disk.recording().unwrap();
    let noise = Limits { images: 1000, torn: 40, noise: true, ..Limits::default() };
    let whole = disk.crash_images(Profile::Posix, 1000);
    let noisy_images = run.images_at(run.end_op(), Profile::Posix, &noise);
    for (nth, image) in whole.iter().chain(&noisy_images).enumerate() {
        let bytes = image.durable_bytes("a").unwrap();
        assert!(bytes[..300].iter().chain(&bytes[9300..]).all(|&b| b == 1));
        let sectors: Vec<BTreeSet<u8>> =
            bytes[..9300].chunks(512).map(|s| s.iter().copied().collect()).collect();
        // Old, new, noise, or what stood in the sector before: of which sector 0 alone is mixed.
        let is_known = |s: &BTreeSet<u8>| s.len() == 1 || s.len() > 50 || *s == sectors[0];
        assert!(sectors[1..].iter().all(is_known), "a sector is never torn: {sectors:?}");
        let has_noise = sectors.iter().any(|s| s.len() > 50);
        assert!(nth >= whole.len() || !has_noise, "noise nobody asked for");
        noisy += usize::from(has_noise);
        let kept: Vec<bool> = sectors[1..].iter().map(|s| s.contains(&2)).collect();
        if kept.contains(&true) && kept.contains(&false) {
            torn += 1;
            // Sector 0 is left out, so the first page has seven here.
            let pages = [&kept[..7], &kept[7..15], &kept[15..]];
            let uniform = pages.iter().all(|page| page.iter().all(|k| k == &page[0]));
            whole_pages += usize::from(uniform);
        }
    }
    assert!(torn >= 8, "{torn} of the images are torn");
    assert!(noisy >= 1, "what was being written may be noise");
    assert!(whole_pages >= 1, "some devices tear at 4096");
    file.sync().unwrap();
    file.write_at(&[3; 512], 512).unwrap();
    assert_eq!(disk.crash_images(Profile::Posix, 1000).len(), 2, "one sector is there or not");
}

#[test]
fn many_changes_give_a_bounded_choice_of_images() {
    let disk = SimDisk::new(3);
    let file = settled(&disk, "a", &[0; 4096]);
    for i in 0..40 {
        file.write_at(&[1], i * 7).unwrap();
    }
    let images = disk.crash_images(Profile::Posix, usize::MAX);
    assert_eq!(images.len(), 2 + 40 + 40 + 16);
    let hashes: Vec<u128> = images.iter().map(SimDisk::image_hash).collect();
    let distinct: HashSet<&u128> = hashes.iter().collect();
    assert!(distinct.len() > 95, "{} distinct", distinct.len());
    let few = disk.crash_images(Profile::Posix, 10);
    assert_eq!(few.len(), 10);
    assert_eq!(few[0].image_hash(), hashes[0], "all kept is always among them");
    assert_eq!(few[1].image_hash(), hashes[1], "and none kept");
    let again: Vec<u128> =
        disk.crash_images(Profile::Posix, 10).iter().map(SimDisk::image_hash).collect();
    let first: Vec<u128> = few.iter().map(SimDisk::image_hash).collect();
    assert_eq!(first, again, "the seed decides");
    assert_eq!(disk.crash_images(Profile::Prefix, usize::MAX).len(), 1 + 40 + 40);
}

#[test]
fn a_recording_replays_the_run() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "a", b"0");
    let fate = disk.fork_now();
    disk.record();
    let mut seen = Vec::new();
    for i in 0..30_u8 {
        file.write_at(&[i; 700], u64::from(i) * 100).unwrap();
        if i % 7 == 3 {
            file.sync().unwrap();
        }
        if i == 20 {
            disk.rename("a", "b").unwrap();
        }
        let op = disk.op_count();
        seen.push((op, disk.crash_images(Profile::Kill, 1)[0].image_hash()));
        seen.push((op, disk.fork_now().image_hash()));
    }
    let run = disk.recording().unwrap();
    assert_eq!(run.end_op(), disk.op_count());
    let check = |&(op, hash): &(u64, u128), none: bool| {
        let images = run.images_at(op, Profile::Posix, &Limits::default());
        assert_eq!(images[usize::from(none && images.len() > 1)].image_hash(), hash, "call {op}");
    };
    for (index, pair) in seen.iter().enumerate() {
        check(pair, index % 2 == 1);
    }
    for (index, pair) in seen.iter().enumerate().rev() {
        check(pair, index % 2 == 1);
    }
    assert_eq!(run.describe(run.first_op()), "write 700 bytes to a at 0");
    assert_eq!(run.describe(run.end_op()), "");
    let mut known = HashSet::new();
    let first = run.distinct_images_at(9, Profile::Posix, &Limits::default(), &mut known);
    let again = run.distinct_images_at(9, Profile::Posix, &Limits::default(), &mut known);
    assert!(!first.is_empty() && again.is_empty());
    assert_eq!(fate.durable_bytes("a"), text(b"0"), "a copy does not follow");
}

#[test]
fn a_lying_disk_may_lose_what_was_synced() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "a", b"0");
    disk.record();
    file.write_at(b"1", 0).unwrap();
    file.sync().unwrap();
    let found = contents(&disk.crash_images(Profile::Lying, 100), "a");
    assert_eq!(found, [text(b"0"), text(b"1")].into());
    assert_eq!(contents(&disk.crash_images(Profile::Posix, 100), "a"), [text(b"1")].into());
}

#[test]
fn faults_hit_the_calls_they_fit() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "a", b"0000");
    let next = disk.op_count();
    disk.fail_at(next, Fault::Eio, false);
    assert_eq!(file.write_at(b"1", 0).unwrap_err().kind(), io::ErrorKind::Other);
    file.write_at(b"1", 0).unwrap();
    disk.fail_at(0, Fault::Enospc, true);
    for _ in 0..2 {
        assert_eq!(file.write_at(b"2", 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.set_len(9).unwrap_err().kind(), io::ErrorKind::StorageFull);
        let created = disk.open("b", OpenMode::CreateNew).unwrap_err();
        assert_eq!(created.kind(), io::ErrorKind::StorageFull);
        file.sync().unwrap();
    }
    disk.clear_faults();
    disk.fail_at(0, Fault::ShortWrite, false);
    file.sync().unwrap();
    assert_eq!(file.write_at(b"wxyz", 0).unwrap_err().kind(), io::ErrorKind::WriteZero);
    let mut buf = [0; 4];
    file.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"wx00");
    disk.fail_at(0, Fault::Eintr, false);
    assert_eq!(disk.remove("a").unwrap_err().kind(), io::ErrorKind::Interrupted);
    assert_eq!(disk.list("").unwrap(), ["a"]);
    disk.fail_reads(disk.read_count() + 1, 1);
    file.read_exact_at(&mut buf, 0).unwrap();
    assert!(file.read_exact_at(&mut buf, 0).is_err());
    file.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(disk.op_count(), next + 2 + 8 + 3);
}

#[test]
fn faults_end_after_their_number_of_times_and_looks_fail_too() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "a", b"0000");
    disk.fail_times(0, Fault::Enospc, 2);
    disk.fail_looks(disk.look_count() + 1, 3);
    for left in [1, 0] {
        assert!(file.write_at(b"1", 0).is_err());
        file.sync().unwrap();
        assert_eq!(disk.fault_counts()[0], (2 - left, left));
    }
    file.write_at(b"1", 0).unwrap();
    assert_eq!(disk.list("").unwrap(), ["a"]);
    assert!(file.len().is_err() && disk.list("").is_err());
    assert!(disk.open("a", OpenMode::Read).is_err());
    assert_eq!(disk.fault_counts(), [(2, 0), (3, 0)]);
    disk.open("a", OpenMode::Read).unwrap();
    disk.fail_times(0, Fault::Eio, u64::MAX);
    for _ in 0..9 {
        assert!(file.sync().is_err());
    }
    assert_eq!(disk.fault_counts()[2], (9, u64::MAX));
}

#[test]
fn a_failed_sync_loses_the_pages_and_shows_them_still() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "a", b"0000");
    file.write_at(b"lost", 0).unwrap();
    disk.fail_at(0, Fault::SyncFails, false);
    assert!(file.sync().is_err());
    let mut buf = [0; 4];
    file.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"lost");
    file.sync().unwrap();
    assert_eq!(contents(&disk.crash_images(Profile::Posix, 100), "a"), [text(b"0000")].into());
    file.write_at(b"tail", 4).unwrap();
    file.sync().unwrap();
    assert_eq!(disk.durable_bytes("a"), text(b"0000tail"));
    file.write_at(b"gone", 8).unwrap();
    disk.fail_at(0, Fault::SyncFails, false);
    assert!(file.sync().is_err());
    assert_eq!(disk.durable_bytes("a"), text(b"0000tail"));
    file.write_at(b"T", 4).unwrap();
    file.sync().unwrap();
    assert_eq!(disk.durable_bytes("a"), text(b"0000Tail\0\0\0\0"), "the length is written whole");
    file.set_len(8).unwrap();
    create(&disk, "b", b"").sync().unwrap();
    disk.fail_at(0, Fault::SyncFails, false);
    assert!(disk.sync_dir("").is_err());
    assert_eq!(disk.list("").unwrap(), ["a", "b"]);
    assert_eq!(disk.durable_bytes("b"), None);
    disk.sync_dir("").unwrap();
    assert_eq!(disk.durable_bytes("b"), text(b""), "names stay pending");
}

#[test]
fn a_killed_process_does_nothing_more() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "a", b"0");
    assert!(file.try_lock().unwrap());
    file.write_at(b"1", 0).unwrap();
    disk.kill_at(disk.op_count() + 1);
    file.write_at(b"2", 0).unwrap();
    assert!(!disk.is_killed());
    assert!(file.write_at(b"3", 0).is_err());
    assert!(disk.is_killed());
    assert!(file.read_at(&mut [0], 0).is_err() && file.sync().is_err() && file.len().is_err());
    assert!(disk.list("").is_err() && disk.open("a", OpenMode::Read).is_err());
    let next = disk.fork_now();
    let again = next.open("a", OpenMode::ReadWrite).unwrap();
    assert!(again.try_lock().unwrap(), "the lock died with its process");
    let mut byte = [0];
    again.read_exact_at(&mut byte, 0).unwrap();
    assert_eq!(&byte, b"2");
    assert_eq!(contents(&next.crash_images(Profile::Posix, 9), "a").len(), 3);
    again.write_at(b"4", 0).unwrap();
    let kept = next.crash_images(Profile::Prefix, 100);
    assert_eq!(contents(&kept, "a").len(), 4, "0, 1, 2, 4 in this order");
    assert_eq!(kept[0].durable_bytes("a"), text(b"4"));
}

#[test]
fn damage_is_what_was_asked_for() {
    let disk = SimDisk::new(1);
    settled(&disk, "a", b"abc");
    let clean = disk.image_hash();
    disk.flip_bit("a", 1, 0).unwrap();
    assert_eq!(disk.durable_bytes("a"), text(b"acc"));
    assert_ne!(disk.image_hash(), clean);
    disk.flip_bit("a", 1, 0).unwrap();
    assert_eq!(disk.image_hash(), clean);
    disk.set_bytes("a", 2, b"Z").unwrap();
    disk.truncate("a", 4).unwrap();
    assert_eq!(disk.durable_bytes("a"), text(b"abZ\0"));
    assert!(disk.flip_bit("a", 4, 0).is_err() && disk.flip_bit("a", 0, 8).is_err());
    assert!(disk.set_bytes("a", 3, b"xy").is_err() && disk.truncate("b", 0).is_err());
    assert_eq!(disk.pending_count(), 0);
}

#[test]
fn removed_files_are_forgotten() {
    let disk = SimDisk::new(1);
    for _ in 0..50 {
        settled(&disk, "a", &[1; 10_000]);
        disk.remove("a").unwrap();
        disk.sync_dir("").unwrap();
    }
    let kept = create(&disk, "b", b"x");
    disk.remove("b").unwrap();
    disk.sync_dir("").unwrap();
    kept.write_at(b"y", 1).unwrap();
    assert_eq!(kept.len().unwrap(), 2);
    assert_eq!(disk.shell.lock().state.inodes.len(), 1);
    drop(kept);
    assert_eq!(disk.shell.lock().state.inodes.len(), 0);
}

/// Not a measurement, a tripwire: if a write or an image copied its whole file, this would move
/// some 200 GB instead of 200 MB.
#[test]
fn small_writes_into_a_large_file_stay_small() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "a", &vec![1; 16 << 20]);
    disk.record();
    for i in 0..10_000_u64 {
        file.write_at(&i.to_le_bytes(), i * 1600).unwrap();
        if i % 100 == 99 {
            file.sync().unwrap();
            assert_eq!(disk.crash_images(Profile::Posix, 4).len(), 1);
        }
    }
    assert_eq!(disk.op_count(), 4 + 10_100);
}

#[test]
fn a_journal_keeps_the_order_of_names_and_lengths_and_no_length_comes_before_its_bytes() {
    let disk = SimDisk::new(9);
    let old = settled(&disk, "old", &[b'o'; 2048]);
    for (nth, name) in ["a", "b", "c"].iter().enumerate() {
        create(&disk, name, &[b'0' + nth as u8; 1500]);
        old.write_at(&[b'n'; 700], nth as u64 * 600).unwrap();
    }
    let limits = Limits { random: 200, ..Limits::default() };
    disk.record();
    let run = disk.recording().unwrap();
    let mut seen = BTreeSet::new();
    for image in run.images_at(run.end_op(), Profile::Ext4, &limits) {
        let names = image.file_names();
        assert!(
            ["a", "b", "c", "old"]
                .iter()
                .take(names.len() - 1)
                .all(|n| names.contains(&n.to_string()))
        );
        for (nth, name) in ["a", "b", "c"].iter().enumerate() {
            let bytes = image.durable_bytes(name);
            let whole = bytes.as_ref().is_none_or(|b| b.iter().all(|b| *b == b'0' + nth as u8));
            assert!(whole, "{}: {name} shows what was never in it", image.label());
            // The length of one file is there before the name of the next.
            let next = ["a", "b", "c"].get(nth + 1).and_then(|next| image.durable_bytes(next));
            assert!(next.is_none() || bytes.is_some_and(|b| b.len() == 1500), "{}", image.label());
        }
        assert_eq!(image.durable_bytes("old").unwrap().len(), 2048);
        seen.insert((names.len(), image.durable_bytes("old")));
    }
    assert!(seen.len() > 20, "{} different disks", seen.len());
}
