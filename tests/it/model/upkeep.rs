//! The calls that may change nothing a caller can see: checkpoint, vacuum, reopening, crashes.
//!
//! After each the whole content is read and compared with the map. Expired entries are
//! hidden from that, so they are looked at with the wall clock set back to before everything: all
//! that was not removed must show again. A vacuum may take an expired entry only if an earlier one
//! saw the same version expired at least 24 hours of running time ago.

use std::collections::BTreeSet;
use std::time::Duration;

use pmll::io::sim::{Profile, SimDisk};
use pmll::{Clock, Depth, EntryId, LevelReport, Policy, Timestamp};

use super::ops::{COLLECTIONS, Op};
use super::world::World;
use crate::support::{Model, assert_same, dump, open};

const GRACE: Duration = Duration::from_secs(24 * 3600);

impl World {
    pub(super) fn upkeep(&mut self, op: &Op) {
        match op {
            Op::Checkpoint => {
                let report = self.store().checkpoint().unwrap();
                assert_eq!(report.segment.is_none(), report.bytes == 0, "{report:?}");
            }
            Op::Compress(policy) => {
                let policy = [Policy::Watermark, Policy::Paper][usize::from(*policy)];
                let report = self.store().compress_with(policy).unwrap();
                let count = |levels: &[LevelReport]| levels.iter().map(|l| l.entries).sum::<u64>();
                assert_eq!(count(&report.before), count(&report.after), "{report:?}");
                let again = self.store().plan_with(policy).unwrap();
                assert_eq!(
                    again.moves, 0,
                    "a run leaves nothing to do: {report:?}, then {again:?}"
                );
            }
            Op::Recompress => {
                self.store().recompress().unwrap();
            }
            Op::Vacuum => self.vacuum(),
            Op::Reopen => {
                self.handles = [None, None, None];
                self.store.take().unwrap().close().unwrap();
                self.open_on(self.disk.clone());
            }
            Op::Kill => self.open_on(self.disk.fork_now()),
            Op::PowerLoss(n) => {
                let mut images = self.disk.crash_images(Profile::Posix, 8);
                let chosen = usize::try_from(*n % images.len() as u64).unwrap();
                self.open_on(images.swap_remove(chosen));
            }
            other => panic!("{other:?} is no upkeep"),
        }
        self.check(&format!("after {op:?}"));
    }

    /// Lets go of the store as it is and goes on with another disk.
    fn open_on(&mut self, disk: SimDisk) {
        self.handles = [None, None, None];
        self.store = None;
        self.disk = disk;
        self.store = Some(open(&self.disk, &self.clock));
        for (number, name) in COLLECTIONS.iter().enumerate() {
            self.handles[number] = self.store().find_collection(name).unwrap();
        }
    }

    fn vacuum(&mut self) {
        let (now, elapsed) = (self.now(), self.clock.elapsed());
        let report = self.store().vacuum().unwrap();
        let left: BTreeSet<EntryId> = self.everything().values().map(|entry| entry.id).collect();
        let mut taken = 0;
        let seen = std::mem::take(&mut self.seen_expired);
        self.model.retain(|path, entry| {
            let known = seen.get(&entry.id).filter(|(version, _)| *version == entry.version);
            if !left.contains(&entry.id) {
                assert!(entry.expired(now), "{path:?} went alive: {entry:?}");
                let since = known.map(|(_, at)| elapsed - *at);
                assert!(since >= Some(GRACE), "{path:?} went {since:?} after it was seen expired");
                taken += 1;
                return false;
            }
            if entry.expired(now) {
                let first = known.map_or(elapsed, |(_, at)| *at);
                self.seen_expired.insert(entry.id, (entry.version, first));
            }
            true
        });
        assert_eq!(report.expired, taken, "{report:?}");
        assert!(report.segments_after <= report.segments_before, "{report:?}");
    }

    /// Everything that is there, expired or not.
    fn everything(&self) -> Model {
        let now = self.now();
        self.clock.set_now(Timestamp(i64::MIN));
        let everything = dump(self.store());
        self.clock.set_now(now);
        everything
    }

    /// Compares the whole content with the map.
    pub(super) fn check(&self, context: &str) {
        assert_same(&self.everything(), &self.model, context);
        let seen = dump(self.store());
        let now = self.now();
        let expected: Model =
            self.model.clone().into_iter().filter(|(_, entry)| !entry.expired(now)).collect();
        assert_same(&seen, &expected, context);
        let mut total = 0;
        for info in self.store().collections().unwrap() {
            let entries = self.model.keys().filter(|path| path.0 == info.name).count() as u64;
            assert_eq!(info.entries, entries, "{context}: entries of {}", info.name);
            total += entries;
        }
        let stats = self.store().stats().unwrap();
        assert_eq!(stats.entries, total, "{context}");
        assert_eq!(
            stats.warnings.len(),
            stats.warnings.iter().filter(|w| w.contains("cut off")).count(),
            "{context}: {:?}",
            stats.warnings
        );
        let settings: Vec<_> = self.settings.clone().into_iter().collect();
        assert_eq!(self.store().settings().unwrap(), settings, "{context}");
    }

    /// Reads every byte of every file.
    pub(super) fn check_files(&self, context: &str) {
        let report = self.store().verify(Depth::Deep).unwrap();
        assert!(report.is_whole(), "{context}: {:?}", report.problems);
        assert_eq!(report.entries, self.model.len() as u64, "{context}");
    }
}
