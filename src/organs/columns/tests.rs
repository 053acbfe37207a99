//! Tests of the columns: the model, reopening, damage, failures.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::io::memory::MemoryDisk;
use crate::io::sim::{Fault, Limits, Profile, SimDisk};
use crate::io::{Disk, OpenMode};
use crate::organs::columns::row::Row;
use crate::organs::columns::{Access, Columns, sealed};
use crate::words::error::ErrorKind;
use crate::words::id::{EntryId, Timestamp};

fn disk() -> Arc<dyn Disk> {
    Arc::new(MemoryDisk::new())
}

fn open(disk: &Arc<dyn Disk>) -> Columns {
    Columns::open(disk.clone(), false).unwrap()
}

fn random(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 33) % below
}

/// `None` once removed: an id is never used again.
type Model = BTreeMap<u64, Option<Access>>;

fn check(columns: &Columns, model: &Model) {
    for id in 0..6000 {
        let wanted = model.get(&id).copied().flatten().unwrap_or_default();
        let found = columns.get(EntryId(id));
        // Sums of floats depend on their order by a little.
        assert!((found.heat - wanted.heat).abs() <= 1e-4 * wanted.heat, "id {id}: {found:?}");
        assert_eq!(Access { heat: wanted.heat, ..found }, wanted, "id {id}");
    }
}

#[test]
fn counts_equal_a_map_through_checkpoints_and_reopenings() {
    let disk = disk();
    let mut columns = open(&disk);
    let (mut model, mut saved) = (Model::new(), Model::new());
    let seed = &mut 7;
    let (mut snapshots, mut files_max, mut deltas_replaced) = (0, 0, 0);
    let mut before = Vec::new();
    for round in 0..150 {
        for touch in 0..random(seed, 300) {
            // Rounds of ten days, touches of a minute.
            let id = random(seed, 6000).min(random(seed, 6000));
            let now = round * 864_000_000_000 + touch as i64 * 60_000_000;
            let Some(access) = model.entry(id).or_insert(Some(Access::default())) else { continue };
            columns.touch(EntryId(id), Timestamp(now));
            let last = access.last.map(|last| last.0);
            access.count += 1;
            access.gap_s = last.map(|last| ((now - last) / 1_000_000) as u32);
            let days = last.map_or(0.0, |last| (now - last) as f64 / 86.4e9);
            access.heat = access.heat * (-days / 30.0).exp2() as f32 + 1.0;
            access.last = Some(Timestamp(now));
        }
        let gone = random(seed, 6000);
        columns.remove(EntryId(gone));
        model.insert(gone, None);
        if random(seed, 4) > 0 {
            assert!(columns.checkpoint().unwrap() > 0);
            saved = model.clone();
            let names = disk.list("columns").unwrap();
            files_max = files_max.max(names.len());
            if names.len() == 1 {
                snapshots += 1;
            } else if names.len() < before.len() {
                deltas_replaced += 1;
            }
            before = names;
        }
        if random(seed, 10) == 0 {
            check(&columns, &model);
            columns = open(&disk);
            model = saved.clone();
            check(&columns, &model);
        }
    }
    columns.checkpoint().unwrap();
    check(&columns, &model);
    assert!(snapshots > 1 && deltas_replaced > 1 && files_max <= 9, "{snapshots} {files_max}");
    assert!(columns.file_bytes() > 0 && columns.bytes_written() > 0);
    assert!(columns.resident_bytes() > 0);
    assert_eq!(columns.checkpoint().unwrap(), 0, "nothing new, nothing written");
    drop(columns);
    check(&open(&disk), &model);
}

#[test]
fn a_large_snapshot_is_found_in_block_by_block() {
    let disk = disk();
    let rows = (0..10_000u64).map(|n| Row {
        count: 1 + n as u32,
        gap_s: n as u32,
        ..Row::access(EntryId(n * 3), Timestamp(n as i64))
    });
    disk.create_dir("columns").unwrap();
    let file = sealed::write(disk.as_ref(), 5, 0, rows).unwrap();
    assert_eq!((file.blocks(), file.rows()), (89, 10_000));
    let columns = open(&disk);
    assert!(columns.resident_bytes() < 1024);
    for n in 0..10_000u64 {
        let (last, gap_s) = (Some(Timestamp(n as i64)), Some(n as u32));
        let wanted = Access { count: 1 + n, last, gap_s, heat: 1.0, ..Access::default() };
        assert_eq!(columns.get(EntryId(n * 3)), wanted);
        assert_eq!(columns.get(EntryId(n * 3 + 1)), Access::default());
    }
    assert_eq!(columns.get(EntryId(u64::MAX)), Access::default());
}

#[test]
fn left_over_files_of_a_crash_count_for_nothing_and_go() {
    let disk = disk();
    let row = |id, count| Row { count, ..Row::access(EntryId(id), Timestamp(1)) };
    disk.create_dir("columns").unwrap();
    let write = |number, covers, rows: Vec<Row>| {
        sealed::write(disk.as_ref(), number, covers, rows.into_iter()).unwrap();
    };
    write(1, 0, vec![row(1, 1)]);
    write(2, 2, vec![row(1, 10)]);
    write(3, 3, vec![row(1, 100)]);
    write(4, 3, vec![row(1, 200)]);
    for name in ["0000000005.col.tmp", "notes.txt", "x.col"] {
        disk.open(&format!("columns/{name}"), OpenMode::CreateNew).unwrap();
    }
    let reader = Columns::open(disk.clone(), true).unwrap();
    assert_eq!(reader.get(EntryId(1)).count, 211);
    assert_eq!(reader.checkpoint().unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(disk.list("columns").unwrap().len(), 7);
    let columns = open(&disk);
    assert_eq!(columns.get(EntryId(1)).count, 211);
    let kept = ["0000000001.col", "0000000002.col", "0000000004.col", "notes.txt", "x.col"];
    assert_eq!(disk.list("columns").unwrap(), kept);
    write(5, 0, vec![row(2, 7)]);
    let columns = open(&disk);
    assert_eq!((columns.get(EntryId(1)).count, columns.get(EntryId(2)).count), (0, 7));
}

/// Every byte of a delta and of a snapshot, one bit flipped: the count is the right one or that
/// without the damaged piece, and opening never fails.
#[test]
fn a_flipped_bit_costs_counts_and_nothing_else() {
    let disk = disk();
    disk.create_dir("columns").unwrap();
    let rows =
        |count| (0..180u64).map(move |n| Row { count, ..Row::access(EntryId(n), Timestamp(5)) });
    sealed::write(disk.as_ref(), 1, 0, rows(1)).unwrap();
    sealed::write(disk.as_ref(), 2, 2, rows(10)).unwrap();
    let mut harmless = 0;
    for (name, own) in [("columns/0000000001.col", 1), ("columns/0000000002.col", 10)] {
        let file = disk.open(name, OpenMode::ReadWrite).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        // Every byte of the ends, every seventh of the blocks.
        let ends = bytes.len() - 80;
        for at in (0..bytes.len()).filter(|at| at % 7 == 0 || *at >= ends) {
            file.write_at(&[bytes[at] ^ (1 << (at % 8))], at as u64).unwrap();
            let columns = Columns::open(disk.clone(), true).unwrap();
            let counts: Vec<u64> = (0..180).map(|n| columns.get(EntryId(n)).count).collect();
            assert!(counts.iter().all(|c| *c == 11 || *c == 11 - own), "byte {at}: {counts:?}");
            harmless += usize::from(counts.iter().all(|c| *c == 11));
            file.write_at(&bytes[at..=at], at as u64).unwrap();
        }
        for cut in [0, 39, 40, 4096, bytes.len() - 1] {
            file.set_len(cut as u64).unwrap();
            let columns = Columns::open(disk.clone(), true).unwrap();
            assert_eq!(columns.get(EntryId(3)).count, 11 - own);
            file.set_len(0).unwrap();
            file.write_at(&bytes, 0).unwrap();
        }
    }
    assert_eq!(harmless, 0, "every byte of a file is under a checksum");
}

#[test]
fn counts_saturate_and_stay_removed() {
    let row = |count| Row { count, ..Row::access(EntryId(1), Timestamp(9)) };
    assert_eq!(row(u32::MAX).then(row(5)).count, u32::MAX);
    assert!(Row::gone(EntryId(1)).then(row(5)).removed);
    assert!(row(5).then(Row::gone(EntryId(1))).removed);
}

const DAY: i64 = 86_400_000_000;

#[test]
fn a_touch_does_not_revive_an_old_total() {
    let columns = open(&disk());
    let id = EntryId(1);
    (0..64).for_each(|_| columns.touch(id, Timestamp(0)));
    columns.touch(id, Timestamp(180 * DAY));
    let access = columns.get(id);
    // Six half-lives later 64 count as 1.
    assert_eq!((access.count, access.gap_s), (65, Some(180 * 86_400)));
    assert!((access.heat - 2.0).abs() < 1e-3, "{access:?}");
    columns.touch(id, Timestamp(180 * DAY + 5_000_000));
    assert_eq!(columns.get(id).gap_s, Some(5));
}

#[test]
fn increments_add_up_however_they_are_gathered() {
    let id = EntryId(1);
    let rows: Vec<Row> = (0..40)
        .map(|n| match n % 3 {
            0 => Row::nearness(id, 1.0 / (1.0 + n as f32), Timestamp(n * 9 * DAY)),
            _ => Row::access(id, Timestamp(n * 7 * DAY)),
        })
        .collect();
    let sum = |rows: &[Row]| rows.iter().copied().reduce(Row::then).unwrap();
    let one = sum(&rows);
    for at in 1..rows.len() {
        let two = sum(&rows[..at]).then(sum(&rows[at..]));
        assert!((two.heat - one.heat).abs() < 1e-4, "{two:?} {one:?}");
        assert_eq!(Row { heat: one.heat, ..two }, one, "cut at {at}");
    }
}

#[test]
fn nearness_to_old_queries_counts_less() {
    let columns = open(&disk());
    let id = EntryId(1);
    columns.resemble([(id, 0.8)], Timestamp(0));
    columns.resemble([(id, 0.5)], Timestamp(10 * DAY));
    let near = |columns: &Columns| (columns.get(id).near * 100.0).round();
    assert_eq!((near(&columns), columns.get(id).near_at.0), (80.0, 0), "0.63 after ten days");
    columns.resemble([(id, 0.5)], Timestamp(30 * DAY));
    assert_eq!((near(&columns), columns.get(id).near_at.0), (50.0, 30 * DAY), "0.4 after thirty");
    columns.resemble([(id, f32::NAN)], Timestamp(31 * DAY));
    assert_eq!((near(&columns), columns.get(id).last), (50.0, None));
}

#[test]
fn a_clock_that_was_wrong_once_is_put_right_by_the_next_access() {
    let columns = open(&disk());
    let id = EntryId(1);
    for us in [100 * DAY, 26_000 * DAY, 101 * DAY] {
        columns.touch(id, Timestamp(us));
    }
    let access = columns.get(id);
    assert_eq!((access.last, access.gap_s), (Some(Timestamp(101 * DAY)), None));
    assert!((1.9..=3.0).contains(&access.heat), "{access:?}");
    columns.touch(id, Timestamp(102 * DAY));
    assert_eq!(columns.get(id).gap_s, Some(86_400));
}

/// Checkpoint `n` adds one access to each of `WIDE` ids, so the count of every id is the number of
/// checkpoints that are there; enough of them to pass through every kind of file.
const WIDE: u64 = 150;
const ROUNDS: u64 = 14;

fn round(columns: &Columns) {
    (0..WIDE).for_each(|id| columns.touch(EntryId(id), Timestamp(1)));
}

#[test]
fn a_crash_leaves_the_last_checkpoint_or_the_one_under_way() {
    let sim = SimDisk::new(5);
    sim.record();
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let columns = Columns::open(disk.clone(), false).unwrap();
    disk.sync_dir("").unwrap();
    let mut ends = Vec::new();
    for _ in 0..ROUNDS {
        round(&columns);
        columns.checkpoint().unwrap();
        ends.push(sim.op_count());
    }
    assert!(columns.state.lock().snapshot.is_none());
    (0..2000).for_each(|id| columns.touch(EntryId(WIDE + id), Timestamp(1)));
    round(&columns);
    columns.checkpoint().unwrap();
    ends.push(sim.op_count());
    assert!(columns.state.lock().snapshot.is_some());
    let recording = sim.recording().unwrap();
    let limits = Limits { images: 12, ..Limits::default() };
    for op in recording.first_op()..=recording.end_op() {
        let acked = ends.iter().filter(|end| **end <= op).count() as u64;
        for image in recording.images_at(op, Profile::Posix, &limits) {
            let label = image.label();
            let columns = Columns::open(Arc::new(image), false).unwrap();
            let counts: Vec<u64> = (0..WIDE).map(|id| columns.get(EntryId(id)).count).collect();
            let same = counts.iter().all(|count| *count == counts[0]);
            let known = counts[0] == acked || counts[0] == acked + 1;
            assert!(same && known, "{label}: acked {acked}, found {counts:?}");
        }
    }
}

#[test]
fn a_failed_checkpoint_keeps_everything_for_the_next() {
    for fault in Fault::ALL {
        for op in 0..70 {
            let sim = SimDisk::new(6);
            let disk: Arc<dyn Disk> = Arc::new(sim.clone());
            let columns = Columns::open(disk.clone(), false).unwrap();
            sim.fail_at(sim.op_count() + op, fault, op % 2 == 0);
            let mut failed = 0;
            for n in 1..=ROUNDS {
                round(&columns);
                failed += u64::from(columns.checkpoint().is_err());
                assert_eq!(columns.get(EntryId(3)).count, n, "{fault:?} at {op}");
            }
            sim.clear_faults();
            round(&columns);
            columns.checkpoint().unwrap();
            assert_eq!(columns.get(EntryId(3)).count, ROUNDS + 1);
            drop(columns);
            let found = open(&disk).get(EntryId(3)).count;
            assert_eq!(found, ROUNDS + 1, "{fault:?} at {op}, {failed} failed");
        }
    }
}
