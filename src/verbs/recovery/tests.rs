//! Segments in an order that no store writes today: the highest version of an id wins, never file order.
//! And indexes and files that a crash, or somebody's hand, left beside each other.

use super::*;
use crate::bytes::codec::op::encode_op;
use crate::io::sim::SimDisk;
use crate::io::{Disk, OpenMode};
use crate::organs::archive::{NewSegment, PayloadReader, write_segment};
use crate::words::id::{CollectionId, Key, Namespace, Timestamp};
use crate::words::options::CollectionSpec;
use crate::words::record::{CollectionDef, Payload, Record, Removal};

mod replays;

pub const STORE: [u8; 16] = [4; 16];
const CACHE_BYTES: usize = 1 << 20;
pub const NOTES: CollectionId = CollectionId(1);

/// Payloads are all in RAM.
struct Nothing;

impl PayloadReader for Nothing {
    fn read(&self, _: &Record, _: u64, _: &mut [u8]) -> Result<()> {
        Err(Error::internal("no payload is anywhere else"))
    }
}

pub fn row(id: u64, version: u64) -> Record {
    Record {
        collection: NOTES,
        id: EntryId(id),
        version: Lsn(version),
        namespace: Namespace::root(),
        key: Key::new(format!("k{id}")).unwrap(),
        vector: None,
        half: false,
        payload: Payload::Inline(format!("version {version}").into_bytes().into()),
        attributes: "{}".into(),
        at: Timestamp(1),
        created: Timestamp(1),
        updated: Timestamp(1),
        expires: None,
        session: None,
        sequence: None,
        salience: None,
        pinned: false,
    }
}

pub fn encoded(op: &Op) -> (Lsn, Vec<u8>) {
    let mut bytes = Vec::new();
    encode_op(op, &[], &mut bytes);
    (op.lsn(), bytes)
}

pub fn delete(id: u64, version: u64) -> (Lsn, Vec<u8>) {
    delete_in(NOTES, id, version)
}

pub fn delete_in(collection: CollectionId, id: u64, version: u64) -> (Lsn, Vec<u8>) {
    let tombstone = Tombstone {
        collection,
        id: EntryId(id),
        version: Lsn(version),
        namespace: Namespace::root(),
        key: Key::new(format!("k{id}")).unwrap(),
        removal: Removal::Deleted,
    };
    encoded(&Op::Delete(tombstone))
}

pub fn define(name: &str, version: u64) -> Op {
    Op::Define(CollectionDef {
        id: NOTES,
        name: name.into(),
        spec: CollectionSpec::new(),
        version: Lsn(version),
        created: Timestamp(1),
    })
}

pub fn setting(value: &str, version: u64) -> Op {
    Op::Setting { name: "mine".into(), value: value.into(), version: Lsn(version) }
}

pub fn request(sequence: u64, version: u64) -> Op {
    Op::Request { client: 7, sequence, version: Lsn(version) }
}

/// A store's archive, written segment by segment.
pub struct Archive {
    pub disk: Arc<dyn Disk>,
    sealed: Vec<(u64, u32)>,
}

impl Archive {
    fn new() -> Archive {
        Archive::on(Arc::new(MemoryDisk::new()))
    }

    pub fn on(disk: Arc<dyn Disk>) -> Archive {
        disk.create_dir(archive::FOLDER).unwrap();
        Archive { disk, sealed: Vec::new() }
    }

    pub fn add(&mut self, covers: Option<(u64, u64)>, rows: &[Record], ops: &[(Lsn, Vec<u8>)]) {
        let number = self.sealed.len() as u64 + 1;
        self.seal(number, covers, rows, ops, &[]);
    }

    fn seal(
        &mut self,
        number: u64,
        covers: Option<(u64, u64)>,
        rows: &[Record],
        ops: &[(Lsn, Vec<u8>)],
        supersedes: &[(u64, u32)],
    ) {
        let new = NewSegment {
            number,
            store_id: STORE,
            covers: covers.map(|(first, last)| (Lsn(first), Lsn(last))),
            next_id: 100,
            next_collection: 2,
            rows: &rows.iter().collect::<Vec<_>>(),
            shapes: &|_| None,
            ops,
            beside: footer::digest(self.sealed.iter().copied()),
            supersedes,
        };
        let sealed = write_segment(&*self.disk, &new, &Nothing).unwrap();
        self.sealed.push((number, sealed.crc));
        self.sealed.sort_unstable();
    }

    fn try_recover(&self) -> Result<Shelves> {
        recover_archive(&self.disk, STORE, false, CACHE_BYTES, None)
    }

    /// Recovers; no mark of a deletion may be left.
    fn recovered(&self) -> Shelves {
        let shelves = self.try_recover().unwrap();
        for item in shelves.cold.catalog.ids(EntryId(0)).unwrap() {
            let (id, located) = item.unwrap();
            assert!(located.place.is_some(), "{id:?} is marked");
        }
        shelves
    }

    /// What the user is told of a recovery.
    fn warnings(&self) -> Vec<String> {
        self.recovered().warnings
    }

    /// The version of an entry after a recovery, if it lives.
    fn version(&self, id: u64) -> Option<u64> {
        version_in(&self.recovered().cold, id)
    }
}

fn version_in(cold: &Cold, id: u64) -> Option<u64> {
    cold.locate(EntryId(id)).unwrap().map(|(located, _)| located.version.0)
}

#[test]
fn the_highest_version_wins_whatever_file_it_is_in() {
    let mut archive = Archive::new();
    archive.add(Some((1, 9)), &[row(1, 9), row(3, 8)], &[delete(2, 4)]);
    archive.add(None, &[row(1, 5), row(2, 3)], &[delete(3, 6)]);
    assert_eq!(archive.version(1), Some(9), "an older row in a newer file");
    assert_eq!(archive.version(2), None, "an older row behind its tombstone");
    assert_eq!(archive.version(3), Some(8), "a tombstone that is older than the row");
    archive.add(Some((10, 12)), &[row(1, 12)], &[]);
    assert_eq!(archive.version(1), Some(12), "a newer row in a newer file");
}

#[test]
fn what_the_index_saw_deleted_does_not_come_back() {
    let mut archive = Archive::new();
    archive.add(Some((1, 2)), &[row(1, 1), row(2, 2)], &[]);
    archive.add(Some((3, 3)), &[], &[delete(1, 3)]);
    assert_eq!((archive.version(1), archive.version(2)), (None, Some(2)));
    // As a merge that was cut short would leave it. The index knows of everything up to LSN 3.
    archive.add(None, &[row(1, 1), row(5, 3)], &[]);
    assert_eq!((archive.version(1), archive.version(2)), (None, Some(2)));
    assert_eq!(archive.version(5), None);
}

/// Found by a drawn workload (seed 20260, workload 2) on a disk that lied about its syncs.
#[test]
fn an_index_that_is_ahead_of_its_archive_is_refused() {
    let mut archive = Archive::new();
    archive.add(Some((1, 2)), &[row(1, 1), row(2, 2)], &[]);
    assert_eq!(archive.version(2), Some(2));
    let catalog = Catalog::open(&archive.disk, CACHE_BYTES).unwrap();
    let update = catalog.begin().unwrap();
    update.put_meta(meta::APPLIED_LSN, 31).unwrap();
    update.commit().unwrap();
    drop(catalog);
    let refused = recover_archive(&archive.disk, STORE, false, CACHE_BYTES, None);
    let error = refused.err().expect("records are missing");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.message().contains("up to LSN 31, the archive ends at 2"), "{error}");
}

#[test]
fn the_newest_word_of_collections_settings_and_requests_wins() {
    let mut archive = Archive::new();
    let words = |names: [&str; 2], sequence: u64, version: u64| {
        let [name, value] = names;
        let ops =
            [define(name, version), setting(value, version + 1), request(sequence, version + 2)];
        ops.map(|op| encoded(&op))
    };
    let known = |archive: &Archive| {
        let cold = archive.recovered().cold;
        let collection = cold.catalog.collection(NOTES).unwrap().unwrap();
        let setting = cold.catalog.setting("mine").unwrap().unwrap();
        let version = |bytes: &[u8]| mover::decode_stored(bytes).unwrap().lsn().0;
        let request = cold.catalog.request(7).unwrap().unwrap();
        (version(&collection), version(&setting), request)
    };
    archive.add(Some((1, 13)), &[], &words(["b", "2"], 5, 11));
    assert_eq!(known(&archive), (11, 12, 5));
    archive.add(None, &[], &words(["a", "1"], 4, 1));
    assert_eq!(known(&archive), (11, 12, 5), "older ones in a newer file");
    archive.add(Some((14, 23)), &[], &words(["c", "3"], 6, 21));
    assert_eq!(known(&archive), (21, 22, 6));
}

#[test]
fn a_recovery_ends_with_the_numbers_of_the_archive_and_without_marks() {
    let mut archive = Archive::new();
    // As an attempt that was cut short may leave an index that has no numbers yet.
    let catalog = Catalog::create(&archive.disk, CACHE_BYTES).unwrap();
    let update = catalog.begin().unwrap();
    let located = Located { collection: NOTES, version: Lsn(1), place: None };
    update.put_id(EntryId(77), &located).unwrap();
    update.commit().unwrap();
    drop(catalog);
    archive.add(Some((1, 2)), &[row(1, 1), row(2, 2)], &[]);
    let shelves = archive.recovered();
    assert_eq!(shelves.warnings, [""; 0]);
    assert_eq!(shelves.cold.catalog.meta(meta::APPLIED_LSN).unwrap(), Some(2));
    drop(shelves);
    // A tombstone that moves nothing forward.
    archive.add(None, &[], &[delete(1, 9)]);
    assert_eq!((archive.version(1), archive.version(2)), (None, Some(2)));
}

/// A crash between the last segment and the end of a rebuild (known: 0) or of a roll-forward.
#[test]
fn what_a_recovery_that_was_cut_short_marked_is_unmarked_by_the_next() {
    for covers in [Some((3, 3)), None] {
        for known in [0, 2] {
            let mut archive = Archive::new();
            if known == 2 {
                archive.add(Some((1, 2)), &[row(1, 1), row(2, 2)], &[]);
            }
            let Shelves { catalog, cold, .. } = archive.recovered();
            if known == 0 {
                archive.add(Some((1, 2)), &[row(1, 1), row(2, 2)], &[]);
            }
            archive.add(covers, &[], &[delete(1, 3), delete(50, 3)]);
            let mut marks = BTreeSet::new();
            let mut cold = cold;
            for number in [1, 2] {
                if !cold.segments.contains_key(&number) {
                    let segment = Segment::open(&*archive.disk, number, STORE).unwrap();
                    cold = apply_segment(&catalog, cold, segment, Lsn(known), &mut marks).unwrap();
                }
            }
            assert_eq!(marks.len(), 2);
            drop((catalog, cold));
            assert_eq!((archive.version(1), archive.version(2)), (None, Some(2)));
            let cold = archive.recovered().cold;
            assert_eq!(cold.catalog.meta(meta::MARKED).unwrap(), Some(0));
        }
    }
}

#[test]
fn an_index_is_made_anew_when_it_cannot_be_of_this_archive_and_only_then() {
    let mut archive = Archive::new();
    assert_eq!(archive.warnings(), [""; 0], "a new store");
    archive.disk.remove(catalog::FILE).unwrap();
    archive.add(Some((1, 1)), &[row(1, 1)], &[]);
    let told = archive.warnings();
    assert_eq!(told, ["index.redb was missing and was rebuilt from the archive"]);
    archive.seal(3, Some((2, 2)), &[row(2, 2)], &[], &[]);
    for _ in 0..2 {
        assert_eq!(archive.warnings(), [""; 0], "a segment that is new, or known");
    }
    archive.seal(2, None, &[row(1, 1)], &[delete(9, 1)], &[]);
    archive.seal(4, Some((3, 3)), &[row(3, 3)], &[], &[]);
    let told = archive.warnings();
    assert!(told[0].contains("it lists segment 3 but not segment 2"), "{told:?}");
    assert_eq!([1, 2, 3].map(|id| archive.version(id)), [Some(1), Some(2), Some(3)]);
    // Empty, although there is more than the first checkpoint leaves.
    archive.disk.remove(catalog::FILE).unwrap();
    drop(Catalog::create(&archive.disk, CACHE_BYTES).unwrap());
    let told = archive.warnings();
    assert!(told[0].contains("it lacks its own numbers"), "{told:?}");
}

#[test]
fn files_that_no_store_leaves_are_refused() {
    let mut archive = Archive::new();
    archive.add(Some((1, 1)), &[row(1, 1)], &[]);
    drop(archive.recovered());
    // The running time stands in the index alone: a refusal leaves it as it is.
    let catalog = Catalog::open(&archive.disk, CACHE_BYTES).unwrap();
    let update = catalog.begin().unwrap();
    update.put_meta(meta::UPTIME_MS, 5).unwrap();
    update.commit().unwrap();
    drop(catalog);
    archive.add(None, &[], &[encoded(&Op::Put(row(2, 2)))]);
    let error = archive.try_recover().err().expect("a record among the operations");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let catalog = Catalog::open(&archive.disk, CACHE_BYTES).unwrap();
    assert_eq!(catalog.snapshot().unwrap().meta(meta::UPTIME_MS).unwrap(), Some(5));
    // Another file than the one that was merged.
    let mut archive = Archive::new();
    archive.add(Some((1, 1)), &[row(1, 1)], &[]);
    let crc = archive.sealed[0].1;
    archive.seal(2, Some((1, 1)), &[row(1, 1)], &[], &[(1, crc ^ 1)]);
    let error = archive.try_recover().err().expect("another file has this name");
    assert!(error.message().contains("with another CRC"), "{error}");
}

#[test]
fn a_catalog_that_cannot_be_opened_is_not_made_anew() {
    let told = Told::new();
    let mut archive = Archive::on(Arc::new(told.clone()));
    archive.add(Some((1, 1)), &[row(1, 1)], &[]);
    drop(archive.recovered());
    told.fail("index.redb", &[std::io::ErrorKind::PermissionDenied]);
    assert_eq!(archive.try_recover().err().expect("it is there").kind(), ErrorKind::Io);
    assert_eq!(archive.warnings(), [""; 0]);
}

#[test]
fn only_an_owner_syncs_names_and_removes_what_was_half_written() {
    let told = Told::new();
    let mut archive = Archive::on(Arc::new(told.clone()));
    archive.add(Some((1, 1)), &[row(1, 1)], &[]);
    let stray = format!("{}.tmp", archive::file_name(9));
    told.disk.open(&stray, OpenMode::CreateNew).unwrap();
    let before = told.syncs();
    let shelves = recover_archive(&archive.disk, STORE, true, CACHE_BYTES, None).unwrap();
    assert_eq!(version_in(&shelves.cold, 1), Some(1));
    assert_eq!(told.syncs(), before, "a reader");
    told.disk.remove(&stray).expect("a reader leaves it");
    assert_eq!(archive.version(1), Some(1));
    assert_eq!(told.syncs(), before + 1, "a segment that is new");
    assert_eq!(archive.version(1), Some(1));
    assert_eq!(told.syncs(), before + 1, "nothing is new");
    told.disk.open(&stray, OpenMode::CreateNew).unwrap();
    drop(archive.recovered());
    assert!(told.disk.remove(&stray).is_err(), "an owner removes it");
}

/// Syncs that were counted, and calls that fail.
type Plan = (usize, Vec<(String, std::io::ErrorKind)>);

/// A disk that counts the syncs of the archive's names, and fails calls as it is told.
#[derive(Clone, Debug)]
pub struct Told {
    pub disk: MemoryDisk,
    plan: Arc<parking_lot::Mutex<Plan>>,
}

impl Told {
    pub fn new() -> Told {
        Told { disk: MemoryDisk::new(), plan: Arc::default() }
    }

    fn syncs(&self) -> usize {
        self.plan.lock().0
    }

    /// The next calls for names that begin so fail so: openings of files, and syncs of folders.
    pub fn fail(&self, name: &str, kinds: &[std::io::ErrorKind]) {
        self.plan.lock().1.extend(kinds.iter().map(|kind| (name.to_owned(), *kind)));
    }

    fn check(&self, name: &str) -> std::io::Result<()> {
        let plan = &mut self.plan.lock().1;
        match plan.iter().position(|(start, _)| name.starts_with(start)) {
            Some(at) => Err(plan.remove(at).1.into()),
            None => Ok(()),
        }
    }
}

impl Disk for Told {
    fn open(&self, name: &str, mode: OpenMode) -> std::io::Result<Arc<dyn crate::io::File>> {
        match mode {
            OpenMode::Read => {}
            _ => self.check(name)?,
        }
        self.disk.open(name, mode)
    }

    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.disk.remove(name)
    }

    fn list(&self, folder: &str) -> std::io::Result<Vec<String>> {
        self.disk.list(folder)
    }

    fn create_dir(&self, folder: &str) -> std::io::Result<()> {
        self.disk.create_dir(folder)
    }

    fn sync_dir(&self, folder: &str) -> std::io::Result<()> {
        if folder == archive::FOLDER {
            self.check("names of the archive")?;
            self.plan.lock().0 += 1;
        }
        self.disk.sync_dir(folder)
    }

    fn free_bytes(&self) -> Option<u64> {
        self.disk.free_bytes()
    }
}
