//! The archive's and the arena's part of `docs/FORMAT.md` against its encoders.

use super::{STORE, check, end, record, table};
use crate::bytes::codec::block::{self, BlockHeader};
use crate::bytes::codec::body::{self, FrameEntry};
use crate::bytes::codec::codes;
use crate::bytes::codec::footer::{Footer, Group};
use crate::bytes::codec::row::{self, Row, Span};
use crate::bytes::codec::segment::{self, Section, SectionKind, Seed, Trailer};
use crate::pure::quant::{self, Bits};
use crate::words::id::{CollectionId, EntryId, Lsn, Timestamp};
use crate::words::options::Element;
use crate::words::record::Record;

#[test]
fn format_of_an_archive_segments_frame() {
    let bytes = segment::encode_header(STORE, 7);
    assert_eq!(end(&table("Archive header")), segment::HEADER_BYTES);
    check(
        "Archive header",
        &bytes,
        &[
            ("magic", b"pmllSEG\n"),
            ("format", &[0; 4]),
            ("store", &STORE),
            ("segment", &7u64.to_le_bytes()),
            ("crc", &crc32fast::hash(&bytes[..60]).to_le_bytes()),
        ],
    );
    let trailer = Trailer { format: 0, footer_offset: 2, footer_len: 3, footer_crc: 4 };
    let bytes = segment::encode_trailer(trailer);
    assert_eq!(end(&table("Archive trailer")), segment::TRAILER_BYTES);
    check(
        "Archive trailer",
        &bytes,
        &[
            ("footer_offset", &2u64.to_le_bytes()),
            ("footer_len", &3u32.to_le_bytes()),
            ("footer_crc", &4u32.to_le_bytes()),
            ("format", &[0; 4]),
            ("crc", &crc32fast::hash(&bytes[..20]).to_le_bytes()),
            ("magic", b"pmllEND\n"),
        ],
    );
}

#[test]
fn format_of_an_archive_footer() {
    let section = |kind, offset| Section { kind, offset, len: 21, items: 22, crc: 23 };
    let group = Group {
        collection: CollectionId(10),
        dim: 11,
        element: Element::F16,
        rows: 12,
        vectors: 13,
        min_id: EntryId(14),
        max_id: EntryId(15),
        min_version: Lsn(16),
        max_version: Lsn(17),
        sections: vec![section(SectionKind::Rows, 128), section(SectionKind::Bodies, 192)],
    };
    let footer = Footer {
        store_id: STORE,
        number: 2,
        covers: Some((Lsn(3), Lsn(4))),
        next_id: 5,
        next_collection: 6,
        beside: 9,
        supersedes: vec![(7, 8)],
        ops: Some(section(SectionKind::Ops, 64)),
        groups: vec![group],
    };
    let mut bytes = Vec::new();
    footer.encode(&mut bytes);
    check(
        "Archive footer",
        &bytes,
        &[
            ("store", &STORE),
            ("segment", &2u64.to_le_bytes()),
            ("covers", &[1]),
            ("first_lsn", &3u64.to_le_bytes()),
            ("last_lsn", &4u64.to_le_bytes()),
            ("next_id", &5u64.to_le_bytes()),
            ("next_collection", &6u32.to_le_bytes()),
            ("beside", &9u32.to_le_bytes()),
            ("supersedes", &1u32.to_le_bytes()),
        ],
    );
    let rest = &bytes[end(&table("Archive footer"))..];
    let (list, rest) = rest.split_at(12);
    assert_eq!(list, [&7u64.to_le_bytes()[..], &8u32.to_le_bytes()].concat());
    let (flag, rest) = rest.split_at(1);
    assert_eq!(flag, [1]);
    let entry_bytes = end(&table("Archive section entry"));
    let check_section = |bytes: &[u8], kind: u8, offset: u64| {
        check(
            "Archive section entry",
            bytes,
            &[
                ("kind", &[kind]),
                ("offset", &offset.to_le_bytes()),
                ("len", &21u64.to_le_bytes()),
                ("items", &22u32.to_le_bytes()),
                ("crc", &23u32.to_le_bytes()),
            ],
        );
    };
    check_section(rest, 7, 64);
    let (count, rest) = rest[entry_bytes..].split_at(4);
    assert_eq!(count, 1u32.to_le_bytes());
    check(
        "Archive group",
        rest,
        &[
            ("collection", &10u32.to_le_bytes()),
            ("dim", &11u32.to_le_bytes()),
            ("element", &[2]),
            ("rows", &12u32.to_le_bytes()),
            ("vectors", &13u32.to_le_bytes()),
            ("min_id", &14u64.to_le_bytes()),
            ("max_id", &15u64.to_le_bytes()),
            ("min_version", &16u64.to_le_bytes()),
            ("max_version", &17u64.to_le_bytes()),
            ("sections", &[2]),
        ],
    );
    let rest = &rest[end(&table("Archive group"))..];
    check_section(rest, 2, 128);
    check_section(&rest[entry_bytes..], 3, 192);
    assert_eq!(rest.len(), 2 * entry_bytes);
}

/// A CRC at a place, computed the way the page says.
fn at_place(kind: u8, group: u16, index: u64, bytes: &[u8]) -> [u8; 4] {
    let seed = crc32fast::hash(&[&STORE[..], &7u64.to_le_bytes()].concat());
    let all = [&seed.to_le_bytes()[..], &[kind], &group.to_le_bytes(), &index.to_le_bytes(), bytes]
        .concat();
    crc32fast::hash(&all).to_le_bytes()
}

#[test]
fn format_of_archive_items() {
    let seed = Seed::new(STORE, 7);
    let row = Row {
        number: 3,
        id: EntryId(1),
        version: Lsn(2),
        at: Timestamp(3),
        fingerprint: 4,
        created: Timestamp(5),
        updated: Timestamp(6),
        expires: Some(Timestamp(7)),
        sequence: Some(8),
        salience: Some(0.5),
        norm: 1.5,
        vector_index: Some(3),
        vector_crc: 10,
        body: Span { frame: 11, offset: 12, len: 13 },
        body_crc: 14,
        payload: Some(Span { frame: 15, offset: 16, len: 17 }),
        payload_crc: 18,
        pinned: true,
        has_session: true,
        half: true,
        pieces: true,
    };
    let mut bytes = Vec::new();
    row.encode(seed, 2, &mut bytes);
    assert_eq!(end(&table("Archive row")), row::ROW_BYTES);
    check(
        "Archive row",
        &bytes,
        &[
            ("id", &1u64.to_le_bytes()),
            ("version", &2u64.to_le_bytes()),
            ("at", &3u64.to_le_bytes()),
            ("fingerprint", &4u64.to_le_bytes()),
            ("created", &5u64.to_le_bytes()),
            ("updated", &6u64.to_le_bytes()),
            ("expires", &7u64.to_le_bytes()),
            ("sequence", &8u64.to_le_bytes()),
            ("salience", &0.5f32.to_le_bytes()),
            ("norm", &1.5f32.to_le_bytes()),
            ("vector", &3u32.to_le_bytes()),
            ("vector_crc", &10u32.to_le_bytes()),
            ("body_frame", &11u32.to_le_bytes()),
            ("body_offset", &12u32.to_le_bytes()),
            ("body_len", &13u32.to_le_bytes()),
            ("payload_frame", &15u32.to_le_bytes()),
            ("payload_offset", &16u32.to_le_bytes()),
            ("payload_len", &17u32.to_le_bytes()),
            ("payload_crc", &18u32.to_le_bytes()),
            ("body_crc", &14u32.to_le_bytes()),
            ("flags", &127u32.to_le_bytes()),
            ("crc", &at_place(2, 2, 3, &bytes[..124])),
        ],
    );

    let mut bytes = Vec::new();
    let session = Record { session: Some("s".into()), ..record() };
    body::encode_body(&session, &mut bytes).unwrap();
    check(
        "Archive body",
        &bytes,
        &[("namespace_len", &[0, 0]), ("key_len", &[2, 0]), ("session_len", &[1])],
    );
    assert_eq!(&bytes[end(&table("Archive body"))..], b"n1s{}");

    let mut bytes = Vec::new();
    let entry = FrameEntry { offset: 1, len: 2, raw: 3, crc: 4 };
    entry.encode(seed, SectionKind::PayloadTable, 5, 6, &mut bytes);
    assert_eq!(end(&table("Archive frame table entry")), body::TABLE_ENTRY_BYTES);
    check(
        "Archive frame table entry",
        &bytes,
        &[
            ("offset", &1u64.to_le_bytes()),
            ("len", &2u32.to_le_bytes()),
            ("raw", &3u32.to_le_bytes()),
            ("frame_crc", &4u32.to_le_bytes()),
            ("crc", &at_place(6, 5, 6, &bytes[..20])),
        ],
    );
}

#[test]
fn format_of_an_arena_block() {
    let header = BlockHeader {
        store_id: STORE,
        number: 7,
        collection: CollectionId(8),
        dim: 6,
        group: 6,
        bits: 8,
        rows: 1,
        row_bytes: 18,
    };
    let bytes = block::encode(&header, &[(EntryId(21), Lsn(22))], &[9; 18]).unwrap();
    assert_eq!(end(&table("Arena header")), block::HEADER_BYTES);
    check(
        "Arena header",
        &bytes[..block::HEADER_BYTES],
        &[
            ("magic", b"pmllBLK\n"),
            ("format", &[0; 4]),
            ("rows", &1u32.to_le_bytes()),
            ("store", &STORE),
            ("block", &7u64.to_le_bytes()),
            ("collection", &8u32.to_le_bytes()),
            ("dim", &6u32.to_le_bytes()),
            ("group", &6u32.to_le_bytes()),
            ("row_bytes", &18u32.to_le_bytes()),
            ("bits", &[8]),
            ("crc", &crc32fast::hash(&bytes[..60]).to_le_bytes()),
        ],
    );
    let crc = |part: u8, of: &[u8]| {
        let seen = [&STORE[..], &7u64.to_le_bytes(), &[part], of].concat();
        crc32fast::hash(&seen).to_le_bytes()
    };
    assert_eq!(bytes[64..72], 21u64.to_le_bytes());
    assert_eq!(bytes[72..80], 22u64.to_le_bytes());
    assert_eq!(bytes[80..84], crc(1, &bytes[64..80]));
    assert_eq!(bytes[128..146], [9; 18]);
    assert_eq!(bytes[146..], crc(2, &[9; 18]));
}

#[test]
fn format_of_a_packed_row() {
    let layout = codes::layout(4).unwrap();
    let fields = table("Packed row");
    assert_eq!(end(&fields), 12);
    let mut row = vec![0; layout.row_bytes()];
    quant::encode(layout, &[-1.0, 0.0, 1.0, 3.0], &mut row);
    let float = |at: usize| f32::from_le_bytes(row[at..at + 4].try_into().unwrap());
    let (min, step) = (float(4), float(8));
    assert_eq!((min, step.to_bits() % 32), (-1.0, 0));
    assert!((4.0 / 255.0..4.0 / 255.0 * 1.000_01).contains(&step));
    assert_eq!(row[12..], [0, 64, 127, 255]);
    let values = row[12..].iter().map(|code| min + step * f32::from(*code));
    assert!((float(0) - values.map(|v| v * v).sum::<f32>().sqrt()).abs() < 1e-5);
    let mut narrow = vec![0; layout.with_bits(Bits::Four).row_bytes()];
    quant::narrow(layout, &row, &mut narrow);
    assert_eq!(f32::from_le_bytes(narrow[8..12].try_into().unwrap()), 17.0 * step);
    // (0 + 8) / 17, (64 + 8) / 17, (127 + 8) / 17, (255 + 8) / 17
    assert_eq!(narrow[12..], [0x40, 0xF7]);
}
