//! Segments in an order that no store writes today: the highest version of an id wins, never file order.

use super::*;
use crate::bytes::codec::op::encode_op;
use crate::io::Disk;
use crate::organs::archive::{NewSegment, PayloadReader, write_segment};
use crate::words::id::{CollectionId, Key, Namespace, Timestamp};
use crate::words::record::{Payload, Record, Removal};

const STORE: [u8; 16] = [4; 16];
const CACHE_BYTES: usize = 1 << 20;
const NOTES: CollectionId = CollectionId(1);

/// Payloads are all in RAM.
struct Nothing;

impl PayloadReader for Nothing {
    fn read(&self, _: &Record, _: u64, _: &mut [u8]) -> Result<()> {
        Err(Error::internal("no payload is anywhere else"))
    }
}

fn row(id: u64, version: u64) -> Record {
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

fn delete(id: u64, version: u64) -> (Lsn, Vec<u8>) {
    let tombstone = Tombstone {
        collection: NOTES,
        id: EntryId(id),
        version: Lsn(version),
        namespace: Namespace::root(),
        key: Key::new(format!("k{id}")).unwrap(),
        removal: Removal::Deleted,
    };
    let mut bytes = Vec::new();
    encode_op(&Op::Delete(tombstone), &[], &mut bytes);
    (Lsn(version), bytes)
}

/// A store's archive, written segment by segment.
struct Archive {
    disk: Arc<dyn Disk>,
    sealed: Vec<(u64, u32)>,
}

impl Archive {
    fn new() -> Archive {
        let disk = MemoryDisk::new();
        disk.create_dir(archive::FOLDER).unwrap();
        Archive { disk: Arc::new(disk), sealed: Vec::new() }
    }

    fn add(&mut self, covers: Option<(u64, u64)>, rows: &[Record], ops: &[(Lsn, Vec<u8>)]) {
        let number = self.sealed.len() as u64 + 1;
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
            supersedes: &[],
        };
        let sealed = write_segment(&*self.disk, &new, &Nothing).unwrap();
        self.sealed.push((number, sealed.crc));
    }

    /// The version of an entry after a recovery, if it lives.
    fn version(&self, id: u64) -> Option<u64> {
        let shelves = recover_archive(&self.disk, STORE, false, CACHE_BYTES, None).unwrap();
        shelves.cold.locate(EntryId(id)).unwrap().map(|(located, _)| located.version.0)
    }
}

#[test]
fn the_highest_version_wins_whatever_file_it_is_in() {
    let mut archive = Archive::new();
    archive.add(Some((1, 9)), &[row(1, 9), row(3, 8)], &[delete(2, 4)]);
    archive.add(None, &[row(1, 5), row(2, 3)], &[delete(3, 6)]);
    assert_eq!(archive.version(1), Some(9), "an older row in a newer file");
    assert_eq!(archive.version(2), None, "an older row behind its tombstone");
    assert_eq!(archive.version(3), Some(8), "a tombstone that is older than the row");
}

#[test]
fn what_the_index_saw_deleted_does_not_come_back() {
    let mut archive = Archive::new();
    archive.add(Some((1, 2)), &[row(1, 1), row(2, 2)], &[]);
    archive.add(Some((3, 3)), &[], &[delete(1, 3)]);
    assert_eq!((archive.version(1), archive.version(2)), (None, Some(2)));
    // As a merge that was cut short would leave it.
    archive.add(None, &[row(1, 1)], &[]);
    assert_eq!((archive.version(1), archive.version(2)), (None, Some(2)));
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
