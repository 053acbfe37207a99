//! Round trips, and damage of every byte: the answer is right or `Corrupt`, never a third thing.

use std::sync::Arc;

use super::*;
use crate::bytes::codec::segment::SectionKind;
use crate::io::{Disk, File, MemoryDisk, OpenMode};
use crate::words::error::ErrorKind;
use crate::words::id::{CollectionId, EntryId, Key, Lsn, Namespace, Timestamp};
use crate::words::options::{Element, Metric};
use crate::words::record::{Payload, PayloadPlace, Place, Record};

mod bound;

const STORE: [u8; 16] = [7; 16];

/// Payloads that are not in RAM: 'large' bytes made from the entry's id.
struct Large;

fn large(id: EntryId, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let value = (bytes.len() / 1000) as u8 ^ id.0 as u8;
        bytes.resize(len.min(bytes.len() + 1000), value);
    }
    bytes
}

impl PayloadReader for Large {
    fn read(&self, record: &Record, offset: u64, buf: &mut [u8]) -> Result<()> {
        let whole = large(record.id, record.payload.len());
        buf.copy_from_slice(&whole[offset as usize..offset as usize + buf.len()]);
        Ok(())
    }
}

struct Nothing;

impl PayloadReader for Nothing {
    fn read(&self, _: &Record, _: u64, _: &mut [u8]) -> Result<()> {
        Err(Error::corrupt("gone"))
    }
}

fn record(collection: u32, id: u64) -> Record {
    Record {
        collection: CollectionId(collection),
        id: EntryId(id),
        version: Lsn(100_000 - id),
        namespace: Namespace::root(),
        key: Key::new(format!("key-{id}")).unwrap(),
        vector: None,
        half: false,
        payload: Payload::Inline(format!("payload of {id}").into_bytes().into()),
        attributes: "{}".into(),
        at: Timestamp(id as i64),
        created: Timestamp(-2),
        updated: Timestamp(3),
        expires: None,
        session: None,
        sequence: None,
        salience: None,
        pinned: false,
    }
}

/// Two collections (f32 of 3 values, f16 of 5), a third without vectors; every optional part both
/// there and not, an empty payload, one of two pieces in RAM and one in the log.
fn records() -> Vec<Record> {
    let mut all = Vec::new();
    for id in 1..=5 {
        all.push(Record {
            vector: (id % 2 == 0).then(|| vec![id as f32, -0.3, 1e-7].into()),
            session: (id == 1).then(|| "s-1".into()),
            sequence: (id == 2).then_some(0),
            expires: (id == 3).then_some(Timestamp(i64::MIN)),
            salience: (id == 4).then_some(0.25),
            pinned: id == 5,
            attributes: format!("{{\"n\":{id}}}").into(),
            ..record(1, id)
        });
    }
    let vector = Some(Arc::from([0.5, -2.0, 0.0, 65504.0, 0.25]));
    all.push(Record { vector, half: true, ..record(4, 6) });
    let place = PayloadPlace {
        segment: 9,
        offset: 77,
        len: 263_000,
        crc: crc32fast::hash(&large(EntryId(7), 263_000)),
    };
    all.push(Record { half: true, payload: Payload::InLog(place), ..record(4, 7) });
    all.push(Record {
        namespace: Namespace::new("user/7").unwrap(),
        payload: Payload::Inline(Arc::from([])),
        ..record(5, 2)
    });
    all.push(Record { payload: Payload::Inline(large(EntryId(8), 70_000).into()), ..record(5, 8) });
    all
}

fn ops() -> Vec<(Lsn, Vec<u8>)> {
    vec![(Lsn(4), b"first".to_vec()), (Lsn(3), Vec::new()), (Lsn(9), vec![0; 40])]
}

fn shapes(collection: CollectionId) -> Option<Shape> {
    let (metric, mean) = (Metric::Cosine, None);
    match collection.0 {
        1 => Some(Shape { dim: 3, element: Element::F32, metric, mean }),
        4 => Some(Shape { dim: 5, element: Element::F16, metric: Metric::Dot, mean }),
        _ => None,
    }
}

fn write(disk: &MemoryDisk, number: u64, records: &[Record]) -> Result<Sealed> {
    let rows: Vec<&Record> = records.iter().collect();
    let new = NewSegment {
        number,
        store_id: STORE,
        covers: Some((Lsn(1), Lsn(1000))),
        next_id: 90,
        next_collection: 6,
        rows: &rows,
        shapes: &shapes,
        ops: &ops(),
        beside: 0,
        supersedes: &[(1, 0xdead_beef), (2, 5)],
    };
    write_segment(disk, &new, &Large)
}

/// What a record looks like when it comes from the archive.
fn archived(record: &Record, place: Place) -> Record {
    let mut record = record.clone();
    let bytes = bytes_of(&record);
    if bytes.len() > 64 << 10 {
        record.payload = Payload::InArchive(PayloadPlace {
            segment: place.segment,
            offset: u64::from(place.row),
            len: bytes.len() as u32,
            crc: crc32fast::hash(&bytes),
        });
    }
    record
}

fn bytes_of(record: &Record) -> Vec<u8> {
    match &record.payload {
        Payload::Inline(bytes) => bytes.to_vec(),
        _ => large(record.id, record.payload.len()),
    }
}

/// Reads everything in every way there is; `right` sees each answer, true when it is the truth.
fn read_all(
    segment: &Segment,
    truth: &[Record],
    sealed: &Sealed,
    right: &mut dyn FnMut(&str, Result<bool>),
) {
    for (record, place) in truth.iter().zip(&sealed.places) {
        let row = match segment.row(place.group, place.row) {
            Ok(row) => row,
            Err(error) => {
                right("row", Err(error));
                continue;
            }
        };
        let group = place.group;
        right("row", Ok(row.id == record.id && row.version == record.version));
        let got = segment.record(group, &row);
        right("record", got.map(|got| got == archived(record, *place)));
        let whole = bytes_of(record);
        right("payload", segment.payload(group, &row).map(|got| got == whole));
        let mut part = vec![0; whole.len().min(60_000)];
        let from = whole.len() - part.len();
        let got = segment.payload_piece(group, &row, from as u64, &mut part);
        right("piece", got.map(|()| part == whole[from..]));
        if let Payload::InArchive(at) = archived(record, *place).payload {
            let mut byte = [0];
            let got = segment.payload_at(record.collection, &at, 65_000, &mut byte);
            right("payload_at", got.map(|()| byte[0] == whole[65_000]));
        }
    }
    for (group, number) in segment.footer().groups.iter().zip(0..) {
        let mut rows = Vec::new();
        let got = segment.rows(number, 0, group.rows, &mut rows);
        let ids = |rows: &[Row]| {
            rows.iter().all(|row| {
                let place = Place { segment: segment.number(), group: number, row: row.number };
                let at = sealed.places.iter().position(|p| *p == place).unwrap();
                truth[at].id == row.id
            })
        };
        right("rows", got.map(|()| rows.len() == group.rows as usize && ids(&rows)));
        let mut values = vec![1.5];
        let got = segment.vectors(number, 0, group.vectors, &mut values);
        let mut expected = vec![1.5];
        for record in truth.iter().filter(|r| r.collection == group.collection) {
            expected.extend(record.vector.iter().flat_map(|v| v.iter()));
        }
        right("vectors", got.map(|()| values == expected));
    }
    right("ops", segment.ops().map(|got| got == ops()));
}

fn must_be_right(what: &str, answer: Result<bool>) {
    assert!(answer.unwrap(), "{what}");
}

/// The folder is there before anything of it: whoever enters a store makes it.
fn with_folder<D: Disk>(disk: D) -> D {
    disk.create_dir(FOLDER).unwrap();
    disk.sync_dir("").unwrap();
    disk
}

#[test]
fn everything_comes_back() {
    let disk = with_folder(MemoryDisk::new());
    let truth = records();
    let sealed = write(&disk, 3, &truth).unwrap();
    let segment = Segment::open(&disk, 3, STORE).unwrap();
    read_all(&segment, &truth, &sealed, &mut must_be_right);
    assert_eq!(segment.verify().len(), 0, "{:?}", segment.verify());

    assert_eq!((segment.number(), segment.bytes(), segment.crc()), (3, sealed.bytes, sealed.crc));
    let footer = segment.footer();
    assert_eq!(footer.covers, Some((Lsn(1), Lsn(1000))));
    assert_eq!((footer.next_id, footer.next_collection), (90, 6));
    assert_eq!(footer.supersedes, [(1, 0xdead_beef), (2, 5)]);
    assert_eq!(footer.groups.len(), 3);
    let first = &footer.groups[0];
    assert_eq!((first.rows, first.vectors, first.dim), (5, 2, 3));
    assert_eq!((first.min_id, first.max_id), (EntryId(1), EntryId(5)));
    assert_eq!((first.min_version, first.max_version), (Lsn(99_995), Lsn(99_999)));
    assert_eq!(footer.groups[1].element, Element::F16);
    // Rows with a vector stand first, whatever their id.
    let rows: Vec<u32> = sealed.places.iter().map(|p| p.row).collect();
    assert_eq!(rows, [2, 0, 3, 1, 4, 0, 1, 0, 1]);
    let norm = segment.row(0, 0).unwrap().norm;
    assert!((norm - (4.0f32 + 0.09).sqrt()).abs() < 1e-6, "{norm}");
}

#[test]
fn many_rows_use_many_frames_and_blocks() {
    let disk = with_folder(MemoryDisk::new());
    let truth: Vec<Record> = (1..=1500)
        .map(|id| {
            let noise = (id as u32).wrapping_mul(2_654_435_761);
            let words = format!("{noise} ").repeat(1 + id as usize % 30);
            Record {
                vector: (id % 3 > 0).then(|| vec![id as f32, noise as f32, 0.5].into()),
                payload: Payload::Inline(words.into_bytes().into()),
                ..record(1, id)
            }
        })
        .map(|r| Record { version: Lsn(r.id.0), ..r })
        .collect();
    let rows: Vec<&Record> = truth.iter().collect();
    let new = NewSegment {
        number: 1,
        store_id: STORE,
        covers: None,
        next_id: 2000,
        next_collection: 2,
        rows: &rows,
        shapes: &shapes,
        ops: &[],
        beside: 0,
        supersedes: &[],
    };
    let sealed = write_segment(&disk, &new, &Nothing).unwrap();
    let segment = Segment::open(&disk, 1, STORE).unwrap();
    assert_eq!(segment.verify().len(), 0);
    let group = &segment.footer().groups[0];
    assert!(group.section(SectionKind::Payloads).unwrap().items > 5);
    assert!(group.section(SectionKind::Bodies).unwrap().items > 2);
    let mut reader = BodyReader::new(&segment, 0);
    for (record, place) in truth.iter().zip(&sealed.places) {
        let row = segment.row(0, place.row).unwrap();
        assert_eq!(reader.record(&row).unwrap(), *record);
    }
    // Blocks that begin and end anywhere, before and after they were checked.
    let with: Vec<f32> =
        truth.iter().filter_map(|r| r.vector.clone()).flat_map(|v| v.to_vec()).collect();
    for (from, count) in [(10, 5), (0, 1000), (60, 70), (999, 1), (0, 0), (128, 64)] {
        let mut values = Vec::new();
        segment.vectors(0, from, count, &mut values).unwrap();
        assert_eq!(values, with[from as usize * 3..(from + count) as usize * 3]);
    }
    assert!(segment.vectors(0, 999, 2, &mut Vec::new()).is_err());
    assert!(segment.vectors(0, u32::MAX, u32::MAX, &mut Vec::new()).is_err());
    assert!(segment.row(0, 1500).is_err() && segment.row(1, 0).is_err());
    assert!(segment.rows(0, u32::MAX, u32::MAX, &mut Vec::new()).is_err());
    assert!(segment.resident_bytes() < 2000, "{}", segment.resident_bytes());
}

#[test]
fn every_flipped_byte_is_right_or_corrupt() {
    let disk = with_folder(MemoryDisk::new());
    let truth = records();
    let sealed = write(&disk, 3, &truth).unwrap();
    let clean = Segment::open(&disk, 3, STORE).unwrap();
    let footer = clean.footer().clone();
    let file = disk.open(&file_name(3), OpenMode::ReadWrite).unwrap();
    assert!(sealed.bytes < 16 << 10, "{} bytes: too slow", sealed.bytes);
    for at in 0..sealed.bytes {
        let flip = 1 << (at % 8);
        flip_byte(&*file, at, flip);
        match Segment::open(&disk, 3, STORE) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error}"),
            Ok(segment) => {
                assert_eq!(*segment.footer(), footer);
                read_all(&segment, &truth, &sealed, &mut |what, answer| match answer {
                    Ok(right) => assert!(right, "{what} is wrong after a flip of byte {at}"),
                    Err(e) => assert_eq!(e.kind(), ErrorKind::Corrupt, "{what}, byte {at}: {e}"),
                });
                assert!(!segment.verify().is_empty(), "verify passes over byte {at}");
            }
        }
        flip_byte(&*file, at, flip);
        if at % 64 == 0 {
            // A handle that was open before the damage sees it as well.
            flip_byte(&*file, at, 4);
            assert!(!clean.verify().is_empty(), "verify of an open segment passes over byte {at}");
            flip_byte(&*file, at, 4);
        }
    }
    read_all(&clean, &truth, &sealed, &mut must_be_right);
}

#[test]
fn a_damaged_row_costs_that_row_alone() {
    let disk = with_folder(MemoryDisk::new());
    let truth = records();
    let sealed = write(&disk, 3, &truth).unwrap();
    let segment = Segment::open(&disk, 3, STORE).unwrap();
    let rows = *segment.footer().groups[0].section(SectionKind::Rows).unwrap();
    let file = disk.open(&file_name(3), OpenMode::ReadWrite).unwrap();
    flip_byte(&*file, rows.offset + 128 + 20, 1);
    let mut wrong = 0;
    read_all(&segment, &truth, &sealed, &mut |_, answer| wrong += u32::from(answer.is_err()));
    // The row itself, the block of rows around it, and the block of vectors it is the check of.
    assert_eq!(wrong, 3);
    let message = segment.row(0, 1).unwrap_err().to_string();
    assert!(message.contains("archive/0000000003.seg"), "{message}");
    assert!(message.contains(&(rows.offset + 128).to_string()), "{message}");
    // verify: the section, and the row.
    assert_eq!(segment.verify().len(), 2, "{:?}", segment.verify());
}

#[test]
fn a_cut_or_grown_file_is_refused() {
    let disk = with_folder(MemoryDisk::new());
    let sealed = write(&disk, 3, &records()).unwrap();
    let open = Segment::open(&disk, 3, STORE).unwrap();
    let file = disk.open(&file_name(3), OpenMode::ReadWrite).unwrap();
    file.set_len(sealed.bytes + 1).unwrap();
    assert_eq!(Segment::open(&disk, 3, STORE).unwrap_err().kind(), ErrorKind::Corrupt);
    for len in (0..sealed.bytes).rev() {
        file.set_len(len).unwrap();
        assert_eq!(Segment::open(&disk, 3, STORE).unwrap_err().kind(), ErrorKind::Corrupt);
    }
    // Cut while open: an error of that kind, too.
    assert_eq!(open.row(0, 0).unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(!open.verify().is_empty());
}

#[test]
fn another_store_or_number_is_refused() {
    let disk = with_folder(MemoryDisk::new());
    write(&disk, 3, &records()).unwrap();
    assert_eq!(Segment::open(&disk, 3, [8; 16]).unwrap_err().kind(), ErrorKind::Corrupt);
    disk.rename(&file_name(3), &file_name(4)).unwrap();
    assert_eq!(Segment::open(&disk, 4, STORE).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(Segment::open(&disk, 3, STORE).unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn names_are_kept_apart() {
    let disk = with_folder(MemoryDisk::new());
    assert!(list(&disk).unwrap().is_empty());
    assert_eq!(remove_strays(&disk).unwrap(), 0);
    write(&disk, 12, &records()).unwrap();
    write(&disk, 3, &records()).unwrap();
    let litter =
        ["x.seg", "12.seg", "0000000001.seg.tmp", "0000000001.tmp", "00000000a1.seg", "12.seg.tmp"];
    for name in litter {
        disk.open(&format!("{FOLDER}/{name}"), OpenMode::CreateNew).unwrap();
    }
    assert_eq!(list(&disk).unwrap(), [3, 12]);
    assert_eq!(remove_strays(&disk).unwrap(), 1);
    assert_eq!(disk.list(FOLDER).unwrap().len(), 2 + litter.len() - 1);
    assert_eq!(write(&disk, 3, &[]).unwrap_err().kind(), ErrorKind::Internal);
    remove(&disk, 3).unwrap();
    remove(&disk, 3).unwrap();
    assert_eq!(list(&disk).unwrap(), [12]);
}

#[test]
fn a_failed_write_leaves_nothing() {
    let disk = with_folder(MemoryDisk::new());
    let truth = records();
    let check = |rows: &[&Record], payloads: &dyn PayloadReader, kind| {
        let new = NewSegment {
            number: 1,
            store_id: STORE,
            covers: None,
            next_id: 90,
            next_collection: 6,
            rows,
            shapes: &shapes,
            ops: &[],
            beside: 0,
            supersedes: &[],
        };
        assert_eq!(write_segment(&disk, &new, payloads).unwrap_err().kind(), kind);
        assert!(disk.list(FOLDER).unwrap().is_empty());
    };
    let rows: Vec<&Record> = truth.iter().collect();
    check(&rows, &Nothing, ErrorKind::Corrupt);
    check(&[rows[1], rows[0]], &Large, ErrorKind::Internal);
    check(&[rows[1], rows[1]], &Large, ErrorKind::Internal);
    let wrong = Record { vector: Some(Arc::from([1.0])), ..record(1, 1) };
    check(&[&wrong], &Large, ErrorKind::Internal);
    let unrounded = Record { vector: Some(Arc::from([0.1; 5])), ..record(4, 1) };
    check(&[&unrounded], &Large, ErrorKind::Internal);
    let place = PayloadPlace { segment: 1, offset: 0, len: 70_000, crc: 1 };
    let rotten = Record { payload: Payload::InLog(place), ..record(1, 1) };
    check(&[&rotten], &Large, ErrorKind::Corrupt);
}

#[test]
fn an_empty_segment_is_a_segment() {
    let disk = with_folder(MemoryDisk::new());
    let new = NewSegment {
        number: 1,
        store_id: STORE,
        covers: None,
        next_id: 1,
        next_collection: 1,
        rows: &[],
        shapes: &shapes,
        ops: &[],
        beside: 0,
        supersedes: &[],
    };
    write_segment(&disk, &new, &Nothing).unwrap();
    let segment = Segment::open(&disk, 1, STORE).unwrap();
    assert!(segment.ops().unwrap().is_empty());
    assert_eq!(segment.verify().len(), 0);
}

fn flip_byte(file: &dyn File, at: u64, flip: u8) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_at(&[byte[0] ^ flip], at).unwrap();
}
