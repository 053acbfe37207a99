//! Crashes and failing calls at every point of a run: what was acknowledged is read back, what was
//! not is there whole or not at all, and the log goes on from there.

use std::collections::HashSet;

use super::*;
use crate::io::sim::{Limits, Profile};

/// The sweep must not shrink unnoticed.
const IMAGES_MIN: usize = 9_000;
const NESTED_MIN: usize = 50_000;
/// Images with a segment that was made of an older one.
const RECYCLED_MIN: usize = 2_300;

/// What the caller of the log knew at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Calls the disk had seen by then.
    op: u64,
    acked: u64,
    applied: u64,
}

/// One run: sizes of batches, how often they are synced, whether the log knows it before, and how often it is
/// rotated.
#[derive(Clone, Copy, Debug)]
struct Script {
    counts: [u64; 7],
    sync_every: u64,
    at_once: bool,
    rotate_every: u64,
}

const SCRIPTS: [Script; 7] = [
    Script { counts: [1, 4, 2, 9, 1, 1, 6], sync_every: 1, at_once: false, rotate_every: 6 },
    Script { counts: [1, 4, 2, 9, 1, 1, 6], sync_every: 1, at_once: true, rotate_every: 6 },
    Script { counts: [1, 1, 3, 1, 2, 12, 1], sync_every: 3, at_once: false, rotate_every: 5 },
    Script { counts: [1, 1, 3, 1, 2, 12, 1], sync_every: 3, at_once: true, rotate_every: 5 },
    Script { counts: [8, 7, 9, 6, 10, 5, 11], sync_every: 2, at_once: false, rotate_every: 99 },
    Script { counts: [8, 7, 9, 6, 10, 5, 11], sync_every: 1, at_once: true, rotate_every: 99 },
    Script { counts: [1, 2, 1, 3, 1, 1, 2], sync_every: 6, at_once: false, rotate_every: 9 },
];

/// The run of one process: it writes until the log refuses, and remembers what it was told.
struct Run {
    disk: SimDisk,
    known: Vec<Known>,
    /// Every operation ever handed to the log; the last attempt of an LSN stands last.
    issued: Vec<Op>,
    attempts: u64,
}

impl Run {
    fn new(disk: &SimDisk) -> Run {
        let known = vec![Known::default()];
        Run { disk: disk.clone(), known, issued: Vec::new(), attempts: 0 }
    }

    fn now(&self) -> Known {
        *self.known.last().unwrap()
    }

    fn learn(&mut self, change: impl FnOnce(&mut Known)) {
        let mut known = self.now();
        known.op = self.disk.op_count();
        change(&mut known);
        self.known.push(known);
    }

    fn append(&mut self, wal: &mut Wal, count: u64, durably: bool) -> Result<()> {
        self.attempts += 1;
        let first = wal.last_lsn().0 + 1;
        let ops: Batch = (first..first + count).map(|lsn| op(lsn, self.attempts)).collect();
        self.issued.extend(ops.iter().map(|(op, _)| op.clone()));
        if !durably {
            return wal.append(&ops).map(|_| ());
        }
        wal.append_to_sync(&ops)?;
        self.sync(wal)
    }

    fn sync(&mut self, wal: &mut Wal) -> Result<()> {
        wal.sync()?;
        self.learn(|known| known.acked = wal.last_lsn().0);
        Ok(())
    }

    /// Durable and buffered batches of many sizes, rotation, reclaiming. Room that runs out is
    /// tried once more; the first other error ends the run.
    fn script(&mut self, script: &Script) -> Result<()> {
        let (scan, _) = read(&self.disk, self.now().applied)?;
        let mut wal = Wal::open(Arc::new(self.disk.clone()), STORE, scan, SMALL)?;
        for step in 0..14u64 {
            let count = script.counts[step as usize % 7];
            let is_synced = (step + 1).is_multiple_of(script.sync_every);
            let at_once = is_synced && script.at_once;
            if let Err(error) = self.append(&mut wal, count, at_once) {
                if error.kind() == ErrorKind::Poisoned {
                    return Err(error);
                }
                self.append(&mut wal, count, at_once)?;
            }
            if is_synced && !at_once {
                self.sync(&mut wal)?;
            }
            if (step + 1).is_multiple_of(script.rotate_every) {
                wal.rotate()?;
            }
            match step {
                3 | 5 | 9 => wal.mark_acked(),
                7 | 11 => {
                    // A checkpoint: durable elsewhere first, then reclaimed.
                    let applied = if step == 7 { wal.last_lsn().0 - 3 } else { wal.last_lsn().0 };
                    self.learn(|known| {
                        known.applied = applied;
                        known.acked = known.acked.max(applied);
                    });
                    wal.reclaim(Lsn(applied))?;
                }
                _ => {}
            }
        }
        wal.close()?;
        self.learn(|known| known.acked = wal.last_lsn().0);
        if !script.at_once {
            return Ok(());
        }
        // What closed it stands where its footer goes, and is all that a crash may leave there.
        let (scan, _) = read(&self.disk, self.now().applied)?;
        let mut wal = Wal::open(Arc::new(self.disk.clone()), STORE, scan, SMALL)?;
        for count in [99, 1] {
            self.append(&mut wal, count, true)?;
        }
        Ok(())
    }

    /// What a process finds that opens this image, of a crash when `known` held.
    fn verify(&self, image: &SimDisk, known: Known, context: &str) {
        let context = format!("{context}: {}, {known:?}", image.label());
        let (scan, ops) =
            read(image, known.applied).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(scan.last_lsn.0 >= known.acked, "{context}: lost, {scan:?}");
        // A footer that was not synced is no damage, to an open or to a look.
        assert!(scan.notes.is_empty(), "{context}: {:?}", scan.notes);
        for (file, look) in look::look(image, Lsn(known.applied)).unwrap() {
            let wounds = look.unwrap().wounds;
            let is_footer = |wound: &look::Wound| wound.meaning == look::Meaning::Footer;
            assert!(!wounds.iter().any(is_footer), "{context}: {file}, {wounds:?}");
        }
        for (i, got) in ops.iter().enumerate() {
            assert_eq!(got.lsn().0, known.applied + 1 + i as u64, "{context}");
            let mut tries = self.issued.iter().filter(|op| op.lsn() == got.lsn());
            // An acknowledged operation is the last attempt; any other may be any of them.
            let is_right = match got.lsn().0 <= known.acked {
                true => tries.next_back() == Some(got),
                false => tries.any(|op| op == got),
            };
            assert!(is_right, "{context}: {got:?}");
        }
        let last = scan.last_lsn;
        let wal = Wal::open(Arc::new(image.clone()), STORE, scan, SMALL);
        let mut wal = wal.unwrap_or_else(|error| panic!("{context}: {error}"));
        let ops = batch(last.0 + 1, 2);
        wal.append_to_sync(&ops).unwrap();
        wal.close().unwrap();
        let (scan, read_back) = read(image, known.applied).unwrap();
        assert!(scan.clean, "{context}");
        assert_eq!(scan.last_lsn.0, last.0 + 2, "{context}");
        assert!(read_back.ends_with(&[ops[0].0.clone(), ops[1].0.clone()]), "{context}");
    }
}

/// Whether a segment was made of an older one.
fn has_recycled(image: &SimDisk) -> bool {
    let heads = look::headers(image).unwrap();
    heads.iter().any(|(_, header)| header.is_some_and(|header| header.recycled))
}

fn known_at(known: &[Known], op: u64) -> Known {
    *known.iter().rev().find(|known| known.op <= op).unwrap()
}

#[test]
fn a_crash_at_any_call_loses_nothing_acknowledged() {
    let limits = Limits { images: 80, torn: 40, noise: true, ..Limits::default() };
    let (mut images, mut nested, mut recycled) = (0, 0, 0);
    for (seed, script) in (0..4).flat_map(|seed| SCRIPTS.iter().map(move |s| (seed, s))) {
        let disk = with_folder(SimDisk::new(seed));
        disk.record();
        let mut run = Run::new(&disk);
        run.script(script).unwrap();
        let recording = disk.recording().unwrap();
        let mut seen = HashSet::new();
        for profile in [Profile::Kill, Profile::Prefix, Profile::Posix] {
            for op in recording.first_op()..=recording.end_op() {
                let known = known_at(&run.known, op);
                for image in recording.distinct_images_at(op, profile, &limits, &mut seen) {
                    images += 1;
                    recycled += usize::from(has_recycled(&image));
                    if images % 2 == 0 {
                        nested += crash_while_opening(&run, &image.fork_now(), known);
                    }
                    run.verify(&image, known, "crash");
                }
            }
        }
    }
    assert!(images > IMAGES_MIN, "{images} images");
    assert!(nested > NESTED_MIN, "{nested} nested images");
    assert!(recycled > RECYCLED_MIN, "{recycled} images with a recycled segment");
}

/// Crashes again at every call of the first opening after a crash.
fn crash_while_opening(run: &Run, image: &SimDisk, known: Known) -> usize {
    let (scan, _) = read(image, known.applied).unwrap();
    // What was found once may be relied on: it must be there after the second crash, too, once
    // opening has returned.
    let found = scan.last_lsn.0;
    image.record();
    let wal = Wal::open(Arc::new(image.clone()), STORE, scan, SMALL).unwrap();
    drop(wal);
    let recording = image.recording().unwrap();
    let limits = Limits { images: 12, random: 2, torn: 4, noise: true, ..Limits::default() };
    let mut seen = HashSet::new();
    for op in recording.first_op()..=recording.end_op() {
        for again in recording.distinct_images_at(op, Profile::Posix, &limits, &mut seen) {
            if op == recording.end_op() {
                let (scan, _) = read(&again, known.applied).unwrap();
                assert_eq!(scan.last_lsn.0, found, "{} then {}", image.label(), again.label());
            }
            run.verify(&again, known, "second crash");
        }
    }
    seen.len()
}

#[test]
fn a_failing_call_at_any_point_loses_nothing_acknowledged() {
    let mut ended = 0;
    for script in &SCRIPTS {
        let calls = {
            let disk = with_folder(SimDisk::new(4));
            Run::new(&disk).script(script).unwrap();
            disk.op_count()
        };
        for fault in Fault::ALL {
            for (at, sticky) in (0..calls).flat_map(|at| [(at, false), (at, true)]) {
                let disk = with_folder(SimDisk::new(4));
                disk.fail_at(at, fault, sticky);
                let mut run = Run::new(&disk);
                let result = run.script(script);
                ended += u64::from(result.is_err());
                disk.clear_faults();
                let context = format!("{script:?}, {fault:?} at {at}, {sticky}, {result:?}");
                for image in disk.crash_images(Profile::Posix, 8) {
                    run.verify(&image, run.now(), &context);
                }
                // A folder whose sync failed cannot be made durable by any later call.
                if !(fault == Fault::SyncFails && context.contains("cannot create wal/")) {
                    go_on_and_crash(&mut run, &context, at % 2 == 0);
                }
            }
        }
    }
    assert!(ended > 300, "{ended} runs met an error");
}

/// The machine stays up: a new process finds what the page cache shows, a failed sync's pages
/// included, goes on with it, and only then the power fails.
fn go_on_and_crash(run: &mut Run, context: &str, is_full: bool) {
    let (scan, found) = read(&run.disk, run.now().applied).unwrap();
    // What is found now is what the store answers with: it is acknowledged from the first sync on.
    run.issued = found;
    // A full disk has no room for the last segment anew, and may have none for what is kept aside.
    run.disk.set_capacity(is_full.then(|| run.disk.used_bytes()));
    let opened = Wal::open(Arc::new(run.disk.clone()), STORE, scan, SMALL);
    run.disk.set_capacity(None);
    let mut wal = opened.unwrap_or_else(|error| {
        assert!(is_full && error.kind() == ErrorKind::Full, "{context}: {error}");
        let (scan, _) = read(&run.disk, run.now().applied).unwrap();
        Wal::open(Arc::new(run.disk.clone()), STORE, scan, SMALL).unwrap()
    });
    run.learn(|known| known.acked = wal.last_lsn().0);
    for image in run.disk.crash_images(Profile::Posix, 8) {
        run.verify(&image, run.now(), &format!("{context}, after opening"));
    }
    run.append(&mut wal, 2, false).unwrap();
    run.sync(&mut wal).unwrap();
    for image in run.disk.crash_images(Profile::Posix, 8) {
        run.verify(&image, run.now(), &format!("{context}, after going on"));
    }
}

#[test]
fn a_crash_while_the_pages_of_a_failed_sync_are_written_again_is_no_rot() {
    let disk = with_folder(SimDisk::new(6));
    let mut wal = open_on(&disk, 0);
    wal.append(&batch(1, 2)).unwrap();
    wal.sync().unwrap();
    wal.append(&batch(3, 2)).unwrap();
    disk.fail_at(disk.op_count(), Fault::SyncFails, false);
    wal.sync().unwrap_err();
    // Part of a third batch reached the page cache: the segment must be cut, not continued.
    let (_, file) = wal.segment_file().unwrap();
    let tail = 64 + [batch(1, 2), batch(3, 2)].iter().map(|b| active::batch_bytes(b)).sum::<u64>();
    file.write_at(&[1; 40], tail).unwrap();
    drop(wal);
    let (scan, ops) = read(&disk, 0).unwrap();
    assert_eq!(check(0, &scan, &ops), 4);
    assert!(scan.torn.is_some());
    disk.record();
    drop(Wal::open(Arc::new(disk.clone()), STORE, scan, SMALL).unwrap());
    let recording = disk.recording().unwrap();
    for op in recording.first_op()..=recording.end_op() {
        for image in recording.images_at(op, Profile::Posix, &Limits::default()) {
            let (scan, ops) = read(&image, 0).unwrap();
            let last = check(0, &scan, &ops);
            assert!(last == 4 || (last == 2 && op < recording.end_op()), "{}", image.label());
        }
    }
}

#[test]
fn a_disk_that_lies_about_syncs_gives_a_prefix_or_a_refusal() {
    let disk = with_folder(SimDisk::new(5));
    disk.record();
    let mut run = Run::new(&disk);
    run.script(&SCRIPTS[4]).unwrap();
    let recording = disk.recording().unwrap();
    let limits = Limits { images: 30, noise: true, ..Limits::default() };
    let mut seen = HashSet::new();
    for op in recording.first_op()..=recording.end_op() {
        let known = known_at(&run.known, op);
        for image in recording.distinct_images_at(op, Profile::Lying, &limits, &mut seen) {
            match read(&image, known.applied) {
                Ok((_, ops)) => assert!(ops.iter().all(|op| run.issued.contains(op))),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}"),
            }
        }
    }
}
