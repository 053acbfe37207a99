//! What binds the parts of a segment to each other: a row to its bytes, a frame to its table.

use super::*;
use crate::bytes::codec::row::ROW_BYTES;
use crate::pure::sketch::SketchLayout;

/// Writes a row in place of another, with the CRC that its writer would have given it.
fn replace(disk: &MemoryDisk, segment: &Segment, group: u16, row: &Row) {
    let rows = *segment.footer().groups[usize::from(group)].section(SectionKind::Rows).unwrap();
    let mut bytes = Vec::new();
    row.encode(segment.seed, group, &mut bytes);
    let file = disk.open(&file_name(segment.number()), OpenMode::ReadWrite).unwrap();
    file.write_at(&bytes, rows.offset + u64::from(row.number) * ROW_BYTES as u64).unwrap();
}

#[test]
fn a_row_that_points_at_the_bytes_of_another_is_corrupt() {
    let disk = with_folder(MemoryDisk::new());
    // Short payloads in one frame, and two in pieces that differ in their bytes alone.
    let long = |id| Record {
        payload: Payload::Inline(large(EntryId(id), 70_000).into()),
        ..record(5, id)
    };
    let truth = [record(1, 1), record(1, 2), long(3), long(4)];
    write(&disk, 3, &truth).unwrap();
    let segment = Segment::open(&disk, 3, STORE).unwrap();
    for group in 0..2 {
        let (row, other) = (segment.row(group, 0).unwrap(), segment.row(group, 1).unwrap());
        for (body, payload) in [(other.body, row.payload), (row.body, other.payload)] {
            replace(&disk, &segment, group, &Row { body, payload, ..row.clone() });
            let wrong = segment.row(group, 0).unwrap();
            let mut reader = BodyReader::new(&segment, group);
            let error = match payload == other.payload {
                true => reader.payload(&wrong).map(drop).unwrap_err(),
                false => reader.body(&wrong).map(drop).unwrap_err(),
            };
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains("not the one that was written"), "{error}");
        }
        replace(&disk, &segment, group, &row);
        assert!(BodyReader::new(&segment, group).record(&row).is_ok());
    }
}

#[test]
fn damage_of_a_frame_table_is_told_from_damage_of_a_frame() {
    let disk = with_folder(MemoryDisk::new());
    write(&disk, 3, &records()).unwrap();
    let segment = Segment::open(&disk, 3, STORE).unwrap();
    let row = segment.row(0, 0).unwrap();
    let file = disk.open(&file_name(3), OpenMode::ReadWrite).unwrap();
    for kind in [SectionKind::BodyTable, SectionKind::PayloadTable] {
        let table = *segment.footer().groups[0].section(kind).unwrap();
        for at in table.offset..table.end() {
            flip_byte(&*file, at, 1 << (at % 8));
            let error = BodyReader::new(&segment, 0).record(&row).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains("table entry of frame 0"), "byte {at}: {error}");
            flip_byte(&*file, at, 1 << (at % 8));
        }
    }
}

#[test]
fn a_flipped_byte_among_sketches_and_codes_is_never_believed() {
    let disk = with_folder(MemoryDisk::new());
    write(&disk, 3, &records()).unwrap();
    let segment = Segment::open(&disk, 3, STORE).unwrap();
    let group = &segment.footer().groups[0];
    let sketches = *group.section(SectionKind::Sketches).unwrap();
    let codes = *group.section(SectionKind::Codes).unwrap();
    let layout = SketchLayout::new(group.dim as usize, Metric::Cosine).unwrap();
    let read = || {
        segment.sketch_mean(0)?;
        segment.sketches(0, layout)?;
        let mut scratch = Vec::new();
        (0..group.vectors).try_for_each(|row| segment.code(0, row, &mut scratch).map(drop))
    };
    read().unwrap();
    let file = disk.open(&file_name(3), OpenMode::ReadWrite).unwrap();
    for at in (sketches.offset..sketches.end()).chain(codes.offset..codes.end()) {
        flip_byte(&*file, at, 1 << (at % 8));
        assert_eq!(read().unwrap_err().kind(), ErrorKind::Corrupt, "byte {at}");
        flip_byte(&*file, at, 1 << (at % 8));
    }
    read().unwrap();
}
