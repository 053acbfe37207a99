//! Rot in the log: what may be evidence of it is never thrown away, a log that was closed in order says
//! so after any power cut, and a payload that is read from the log is checked each time.

use std::sync::Arc;

use pmll::ErrorKind;
use pmll::io::sim::{Limits, Profile, SimDisk};
use pmll::{Draft, Store};

use crate::support::{ManualClock, open, tiny, try_open};

const EVIDENCE: &str = "this payload is what somebody may want to see again";

fn put(store: &Store, key: &str, text: &str) {
    store.collection("notes").unwrap().put(key, Draft::text(text)).unwrap();
}

/// The segment of the log that holds the evidence, and where.
fn find(disk: &SimDisk) -> Option<(String, u64)> {
    disk.file_names().into_iter().filter(|name| name.starts_with("wal/")).find_map(|name| {
        let bytes = disk.durable_bytes(&name)?;
        // But for its first letter, which was damaged.
        let wanted = &EVIDENCE.as_bytes()[1..];
        let at = bytes.windows(wanted.len()).position(|part| part == wanted)?;
        Some((name, at as u64 - 1))
    })
}

/// A killed store whose last batch is all there, unacknowledged, with one bit wrong.
fn ambiguous(clock: &Arc<ManualClock>) -> SimDisk {
    let disk = SimDisk::new(5);
    let store = open(&disk, clock);
    put(&store, "a", "one");
    disk.record();
    put(&store, "b", EVIDENCE);
    let recording = disk.recording().unwrap();
    let synced = (recording.first_op()..recording.end_op())
        .find(|op| recording.describe(*op).starts_with("sync wal/"))
        .unwrap();
    let image = recording.images_at(synced, Profile::Kill, &Limits::default()).remove(0);
    let (name, at) = find(&image).unwrap();
    image.flip_bit(&name, at, 0).unwrap();
    image
}

#[test]
fn what_is_cut_off_and_may_be_rot_is_on_disk_somewhere_at_every_moment() {
    let clock = ManualClock::new();
    let disk = ambiguous(&clock);
    disk.record();
    let store = try_open(&disk, &clock, tiny()).unwrap();
    let warnings = store.stats().unwrap().warnings;
    assert!(warnings.iter().any(|text| text.contains("kept aside")), "{warnings:?}");
    put(&store, "c", "three");
    drop(store);
    let recording = disk.recording().unwrap();
    let limits = Limits { images: 64, ..Limits::default() };
    let mut images = 0;
    for op in recording.first_op()..=recording.end_op() {
        for image in recording.images_at(op, Profile::Posix, &limits) {
            let before = recording.describe(op);
            assert!(find(&image).is_some(), "before {before}, {}", image.label());
            images += 1;
        }
    }
    assert!(images > 100, "{images}");
}

#[test]
fn a_clean_close_is_evidence_that_a_power_cut_does_not_take() {
    let clock = ManualClock::new();
    let disk = SimDisk::new(6);
    let store = open(&disk, &clock);
    put(&store, "a", "one");
    put(&store, "b", EVIDENCE);
    store.close().unwrap();
    for image in disk.crash_images(Profile::Posix, 64) {
        let (name, at) = find(&image).unwrap();
        image.flip_bit(&name, at, 0).unwrap();
        // Without the close it could be a write that was cut off, and would go.
        let error = try_open(&image, &clock, tiny()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{}: {error}", image.label());
        assert!(find(&image).is_some(), "nothing is cut off");
    }
}

#[test]
fn a_large_payload_that_rots_in_the_log_is_not_answered() {
    let clock = ManualClock::new();
    let disk = SimDisk::new(7);
    let store = open(&disk, &clock);
    // It does not stay in RAM: the log has the only copy until the next checkpoint.
    let large = format!("{EVIDENCE}{}", "x".repeat(100_000));
    put(&store, "large", &large);
    let notes = store.collection("notes").unwrap();
    assert_eq!(notes.get("large").unwrap().unwrap().payload, large.as_bytes());
    let (name, at) = find(&disk).unwrap();
    disk.flip_bit(&name, at + 50_000, 3).unwrap();
    assert_eq!(notes.get("large").unwrap_err().kind(), ErrorKind::Corrupt);
}
