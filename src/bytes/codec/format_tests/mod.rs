//! `docs/FORMAT.md` against the encoders: every table with offsets, and the worked example.
//!
//! Each check encodes something whose fields all differ, and compares the bytes at the offsets the
//! page gives with the bytes the fields must have. A table must also have no gap, and end where
//! the length constant says. Layouts of files whose encoders live in one organ are checked on real
//! files by `tests/it/format.rs`.

use std::sync::Arc;

use crate::bytes::codec::log::{self, Commit, Frame, Kind, SegmentHeader};
use crate::bytes::codec::op::encode_op;
use crate::words::id::{CollectionId, EntryId, Key, Lsn, Namespace, Timestamp};
use crate::words::options::{CollectionSpec, Element, Metric};
use crate::words::record::{CollectionDef, Op, Payload, Record, Removal, Tombstone};

mod archive;

const STORE: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/FORMAT.md");
    std::fs::read_to_string(path).unwrap()
}

/// The table under a heading: offset, size and name of each field. It has no gaps.
fn table(heading: &str) -> Vec<(usize, usize, String)> {
    let page = page();
    let mark = format!("\n### {heading}\n");
    let start = page.find(&mark).unwrap_or_else(|| panic!("no heading {heading:?}")) + mark.len();
    let mut fields = Vec::new();
    for line in page[start..].lines().skip_while(|l| !l.starts_with('|')).skip(2) {
        if !line.starts_with('|') {
            break;
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        fields.push((cells[1].parse().unwrap(), cells[2].parse().unwrap(), cells[3].to_owned()));
    }
    let mut at = 0;
    for (offset, size, name) in &fields {
        assert_eq!(*offset, at, "{heading}: {name} does not stand behind the field before it");
        at = offset + size;
    }
    fields
}

fn end(fields: &[(usize, usize, String)]) -> usize {
    fields.last().map_or(0, |(offset, size, _)| offset + size)
}

/// Compares `bytes` with what the fields must be. A field without an expectation must be named
/// `crc` (checked where it is computed) or `reserved` (zero).
#[track_caller]
fn check(heading: &str, bytes: &[u8], expected: &[(&str, &[u8])]) {
    let fields = table(heading);
    for (name, _) in expected {
        assert!(fields.iter().any(|(.., field)| field == name), "{heading} lacks {name}");
    }
    for (offset, size, name) in &fields {
        let found = &bytes[*offset..offset + size];
        match expected.iter().find(|(field, _)| field == name) {
            Some((_, value)) => assert_eq!(found, *value, "{heading}: {name} at {offset}"),
            None if name.starts_with("reserved") => assert!(found.iter().all(|b| *b == 0)),
            None => assert_eq!(name, "crc", "{heading}: {name} is not checked"),
        }
    }
}

fn header() -> SegmentHeader {
    SegmentHeader {
        store_id: STORE,
        number: 1,
        first_lsn: Lsn(1),
        first_batch: 1,
        salt: 0x1122_3344_5566_7788,
        recycled: false,
    }
}

#[test]
fn format_of_the_log() {
    let header =
        SegmentHeader { number: 7, first_lsn: Lsn(8), first_batch: 9, recycled: true, ..header() };
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    assert_eq!(end(&table("Log segment header")), log::HEADER_BYTES);
    check(
        "Log segment header",
        &bytes,
        &[
            ("magic", b"pmll-wal"),
            ("format", &0xde01u16.to_le_bytes()),
            ("flags", &1u16.to_le_bytes()),
            ("store", &STORE),
            ("segment", &7u64.to_le_bytes()),
            ("first_lsn", &8u64.to_le_bytes()),
            ("first_batch", &9u64.to_le_bytes()),
            ("salt", &header.salt.to_le_bytes()),
            ("crc", &crc32fast::hash(&bytes[..60]).to_le_bytes()),
        ],
    );

    // The seed and a bound CRC, computed here the way the page says.
    let mut seed = crc32fast::Hasher::new();
    seed.update(&STORE);
    for number in [header.salt, 7, 8] {
        seed.update(&number.to_le_bytes());
    }
    let seed = seed.finalize();
    let bound = |offset: u64, bytes: &[u8]| {
        let mut crc = crc32fast::Hasher::new_with_initial(seed);
        crc.update(&offset.to_le_bytes());
        crc.update(bytes);
        crc.finalize().to_le_bytes()
    };
    let payload_crc = u32::from_le_bytes(bound(96, b"payload"));
    let frame = Frame {
        kind: Kind::Commit,
        len: 7,
        lag: 0x0003_0201,
        lsn: Lsn(11),
        batch: 12,
        payload_crc,
    };
    assert!(frame.has_payload(header.seed(), 64, b"payload"));
    let bytes = frame.encode(header.seed(), 64);
    assert_eq!(end(&table("Log frame")), log::FRAME_BYTES);
    check(
        "Log frame",
        &bytes,
        &[
            ("len", &7u32.to_le_bytes()),
            ("kind", &[2]),
            ("lag", &[1, 2, 3]),
            ("lsn", &11u64.to_le_bytes()),
            ("batch", &12u64.to_le_bytes()),
            ("payload_crc", &payload_crc.to_le_bytes()),
            ("crc", &bound(64, &bytes[..28])),
        ],
    );

    let mut bytes = Vec::new();
    Commit { count: 3, first_lsn: Lsn(4), batch_crc: 5 }.encode(&mut bytes);
    assert_eq!(end(&table("Payload of a commit frame")), log::COMMIT_BYTES);
    check(
        "Payload of a commit frame",
        &bytes,
        &[
            ("count", &3u32.to_le_bytes()),
            ("first_lsn", &4u64.to_le_bytes()),
            ("batch_crc", &5u32.to_le_bytes()),
        ],
    );
}

fn record() -> Record {
    Record {
        collection: CollectionId(1),
        id: EntryId(1),
        version: Lsn(1),
        namespace: Namespace::root(),
        key: Key::new("n1").unwrap(),
        vector: Some(Arc::from([1.0, -2.0])),
        half: false,
        payload: Payload::Inline(Arc::from(*b"hi")),
        attributes: "{}".into(),
        at: Timestamp(1_000_000),
        created: Timestamp(1_000_000),
        updated: Timestamp(1_000_000),
        expires: None,
        session: None,
        sequence: None,
        salience: None,
        pinned: false,
    }
}

fn encoded(op: &Op, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_op(op, payload, &mut out);
    out
}

#[test]
fn format_of_a_put() {
    let full = Record {
        collection: CollectionId(2),
        id: EntryId(3),
        namespace: Namespace::new("a/b").unwrap(),
        half: true,
        at: Timestamp(4),
        created: Timestamp(5),
        updated: Timestamp(6),
        expires: Some(Timestamp(7)),
        sequence: Some(8),
        salience: Some(0.5),
        session: Some("s".into()),
        pinned: true,
        ..record()
    };
    let bytes = encoded(&Op::Put(full), b"hi");
    check("Operation head", &bytes, &[("kind", &[1]), ("version", &[1]), ("flags", &[127, 0])]);
    check(
        "Put",
        &bytes,
        &[
            ("head", &[1, 1, 127, 0]),
            ("collection", &2u32.to_le_bytes()),
            ("id", &3u64.to_le_bytes()),
            ("at", &4u64.to_le_bytes()),
            ("created", &5u64.to_le_bytes()),
            ("updated", &6u64.to_le_bytes()),
        ],
    );
    // The rest in the order of the page's prose.
    let rest: Vec<u8> = [
        &7u64.to_le_bytes()[..],
        &8u64.to_le_bytes(),
        &0.5f32.to_le_bytes(),
        &1u32.to_le_bytes(),
        &2u32.to_le_bytes(),
        &[3, 0, 2, 0, 2, 0, 0, 0, 2, 0, 0, 0],
        &crc32fast::hash(b"hi").to_le_bytes(),
        b"a/bn1s{}",
        &[0x00, 0x3c, 0x00, 0xc0],
        b"hi",
    ]
    .concat();
    assert_eq!(bytes[end(&table("Put"))..], rest);
    for (flag, change) in [
        (1, Record { vector: None, ..record() }),
        (2, Record { half: true, ..record() }),
        (4, Record { expires: Some(Timestamp(1)), ..record() }),
        (8, Record { session: Some("s".into()), ..record() }),
        (16, Record { sequence: Some(1), ..record() }),
        (32, Record { salience: Some(1.0), ..record() }),
        (64, Record { pinned: true, ..record() }),
    ] {
        assert_eq!(encoded(&Op::Put(change), b"")[2], 1 ^ flag, "flag {flag}");
    }
}

#[test]
fn format_of_the_other_operations() {
    let tombstone = Tombstone {
        collection: CollectionId(2),
        id: EntryId(3),
        version: Lsn(4),
        namespace: Namespace::new("ns").unwrap(),
        key: Key::new("key").unwrap(),
        removal: Removal::Expired,
    };
    let bytes = encoded(&Op::Delete(tombstone), b"");
    check(
        "Delete",
        &bytes,
        &[
            ("head", &[2, 1, 0, 0]),
            ("collection", &2u32.to_le_bytes()),
            ("id", &3u64.to_le_bytes()),
            ("removal", &[1]),
            ("namespace_len", &[2, 0]),
            ("key_len", &[3, 0]),
        ],
    );
    assert_eq!(&bytes[end(&table("Delete"))..], b"nskey");

    let spec = CollectionSpec::new().dim(9).metric(Metric::L2).element(Element::F16).model("m");
    let def = CollectionDef {
        id: CollectionId(2),
        name: "name".into(),
        spec,
        version: Lsn(4),
        created: Timestamp(5),
    };
    let bytes = encoded(&Op::Define(def), b"");
    check(
        "Define",
        &bytes,
        &[
            ("head", &[3, 1, 3, 0]),
            ("collection", &2u32.to_le_bytes()),
            ("created", &5u64.to_le_bytes()),
            ("metric", &[2]),
            ("element", &[1]),
        ],
    );
    assert_eq!(&bytes[end(&table("Define"))..], b"\x09\0\0\0\x01\0\0\0\x04\0\0\0mname");

    let op = Op::DropCollection { collection: CollectionId(2), version: Lsn(1) };
    let bytes = encoded(&op, b"");
    check("Drop", &bytes, &[("head", &[4, 1, 0, 0]), ("collection", &2u32.to_le_bytes())]);
    assert_eq!(bytes.len(), end(&table("Drop")));

    let op = Op::Setting { name: "n".into(), value: "17".into(), version: Lsn(1) };
    let bytes = encoded(&op, b"");
    check(
        "Setting",
        &bytes,
        &[("head", &[5, 1, 0, 0]), ("name_len", &[1, 0, 0, 0]), ("value_len", &[2, 0, 0, 0])],
    );
    assert_eq!(&bytes[end(&table("Setting"))..], b"n17");

    let bytes = encoded(&Op::Request { client: 2, sequence: 3, version: Lsn(1) }, b"");
    check(
        "Request",
        &bytes,
        &[
            ("head", &[6, 1, 0, 0]),
            ("client", &2u64.to_le_bytes()),
            ("sequence", &3u64.to_le_bytes()),
        ],
    );
    assert_eq!(bytes.len(), end(&table("Request")));
}

#[test]
fn format_example() {
    let header = header();
    let seed = header.seed();
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    let payload = encoded(&Op::Put(record()), b"hi");
    let at = bytes.len() as u64;
    let frame = Frame {
        kind: Kind::Op,
        len: payload.len() as u32,
        lag: 1,
        lsn: Lsn(1),
        batch: 1,
        payload_crc: seed.crc(at + 32, &payload),
    };
    let head = frame.encode(seed, at);
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&payload);
    let mut payload = Vec::new();
    let batch_crc = crc32fast::hash(&head);
    Commit { count: 1, first_lsn: Lsn(1), batch_crc }.encode(&mut payload);
    let at = bytes.len() as u64;
    let payload_crc = seed.crc(at + 32, &payload);
    let commit = Frame { kind: Kind::Commit, len: 16, payload_crc, ..frame };
    bytes.extend_from_slice(&commit.encode(seed, at));
    bytes.extend_from_slice(&payload);

    let page = page();
    let example = page.split("\n## Worked example\n").nth(1).unwrap();
    let shown: Vec<u8> = example
        .split("```")
        .nth(1)
        .unwrap()
        .lines()
        .filter_map(|line| line.get(6..53))
        .flat_map(str::split_whitespace)
        .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    let ours: Vec<String> = bytes
        .chunks(16)
        .zip((0..).step_by(16))
        .map(|(row, at)| {
            let hex: Vec<String> = row.iter().map(|b| format!("{b:02x}")).collect();
            format!("{at:04x}  {}", hex.join(" "))
        })
        .collect();
    assert_eq!(shown, bytes, "the example should read\n{}\n", ours.join("\n"));
}
