//! Valid inputs for every decoder, written by the encoders, the same in every process.

use std::sync::Arc;

use roaring::RoaringTreemap;

use crate::bytes::codec::block::{self, BlockHeader};
use crate::bytes::codec::body::{FrameEntry, encode_body};
use crate::bytes::codec::cells::{CellsHeader, Source, Tables};
use crate::bytes::codec::codes::layout;
use crate::bytes::codec::log::{Commit, FRAME_BYTES, Frame, Kind};
use crate::bytes::codec::op::encode_op;
use crate::bytes::codec::row::{Row, Span};
use crate::bytes::codec::segment::{SectionKind, Seed};
use crate::io::{Disk, MemoryDisk, read_whole};
use crate::organs::archive::writer::PayloadReader;
use crate::organs::archive::{self, NewSegment, Segment, Shape, write_segment};
use crate::organs::arena;
use crate::organs::arena::cells::{self, CellsWriter};
use crate::organs::catalog::tables::{self, Located, Table};
use crate::organs::columns::moves::{LevelMove, Moves};
use crate::organs::columns::{hot, row, sealed};
use crate::pure::policy::Standing;
use crate::pure::sketch::{BLOCK_ROWS, SketchLayout, encode, place};
use crate::pure::{quant, quant::Bits};
use crate::tiers::cold::ColdSegment;
use crate::words::error::{Error, Result};
use crate::words::id::{CollectionId, EntryId, Key, Lsn, Namespace, Timestamp};
use crate::words::options::{CollectionSpec, Element, Metric};
use crate::words::record::{CollectionDef, Op, Payload, Place, Record, Removal, Tombstone};

use super::{STORE, archive::ends, head};

/// Inputs that the decoder of this name reads; none for a name that is not known.
#[must_use]
pub fn examples(name: &str) -> Vec<Vec<u8>> {
    let text = |prefix: &[u8], texts: &[&str]| -> Vec<Vec<u8>> {
        texts.iter().map(|text| [prefix, text.as_bytes()].concat()).collect()
    };
    match name {
        "log_header" => vec![log(&[]).into_iter().take(64).collect()],
        "log_frame" => {
            vec![frame(Kind::Close, b""), frame(Kind::Commit, &[1; 16]), frame(Kind::Op, b"op")]
        }
        "log_scan" => {
            let log = log(&ops());
            let (half, _) = log.split_at(log.len() / 2);
            vec![
                [&[0], &log[..]].concat(),
                [&[2], &log[..]].concat(),
                [&[0xa0], &log[..]].concat(),
                [&[0], half].concat(),
            ]
        }
        "op" => ops().iter().map(encoded).collect(),
        "archive_header" => vec![ends(&segment()).0],
        "archive_trailer" => {
            let segment = segment();
            vec![[&(segment.len() as u64).to_le_bytes()[..], &ends(&segment).1].concat()]
        }
        "archive_footer" => footer().into_iter().collect(),
        "archive_row" => rows(),
        "archive_body" => bodies(),
        "archive_frame_entry" => {
            vec![entry(0, SectionKind::BodyTable), entry(1, SectionKind::PayloadTable)]
        }
        "archive_segment" => vec![segment()],
        "segment_value" => dead(),
        "arena_block" => blocks(),
        "arena_cells" => vec![cells(1), cells(70)],
        "codes" => vec![codes(8, 0), codes(33, 0), codes(64, 1)],
        "sketches" => vec![sketches(8, 0), sketches(65, 1)],
        "columns_file" => vec![columns(5), columns(120)],
        "columns_hot" => {
            vec![saved_hot(0..3), saved_hot(0..5000), saved_hot((1 << 40)..(1 << 40) + 9)]
        }
        "columns_moves" => vec![saved_moves(0), saved_moves(3), saved_moves(40)],
        "index_value" => values(),
        "index_key" => vec![
            tables::key_row(CollectionId(1), "", b"n3"),
            tables::key_row(CollectionId(u32::MAX), "user/7", b"\0\xff"),
        ],
        "store_file" => {
            let id = "30313233343536373839616263646566";
            let crc = crc32fast::hash(format!("0-dev\0{id}\0").as_bytes());
            text(
                b"",
                &[&format!("format = \"0-dev\"\nid = \"{id}\"\nrequired = []\ncrc = {crc}\n")],
            )
        }
        "rule" => text(
            b"",
            &[
                "weights\n[0.4, 0.3, 0.3]",
                "half_life_s.notes\n86400",
                "age\n\"wall\"",
                "rho.notes\n0.5",
                "x\n{\"a\": [1]}",
            ],
        ),
        "filter" => [text(b"\0", FILTERS), text(b"\x01", CLAUSES)].concat(),
        "time" => text(
            b"",
            &[
                "2026-11-21",
                "2026-11-21T05:00:00Z",
                "2024-02-29 23:59:59.123456789+02:00",
                "0000-01-01",
                "9999-12-31T23:59:59-23:59",
            ],
        ),
        "promise" => {
            vec![vec![0, 2, 128, 130], vec![1, 129, 0], vec![0, 6, 134], vec![7, 4, 131, 5, 1]]
        }
        _ => Vec::new(),
    }
}

const FILTERS: &[&str] = &[
    r#"{"turn": {"$gt": 2, "$lte": 5}, "conv": "c26"}"#,
    r#"{"$or": [{"half": 1.5}, {"tags": {"$in": ["t1", 2, null]}}, {"$not": {"turn": 1}}]}"#,
    r#"{"$and": [{"_at": {"$gte": "2023-05-08"}}, {"_expires": {"$exists": true}}, {"_tier": {"$lt": 2}}]}"#,
    r#"{"_key": {"$prefix": "n"}, "_ns": {"$prefix": "user"}, "_pinned": true, "_session": {"$ne": "s1"}}"#,
    r#"{"a.b.c": null, "tags": {"$contains": 7}, "turn": {"$nin": [1, -2.5e3, 18446744073709551615]}}"#,
];

const CLAUSES: &[&str] = &[
    "conv=c26\nsession>=3",
    "speaker in Caroline,\"Melanie, Jr\"\n_at>=2023-05-08",
    "turn not in 1,2\nconv^=c\ntags~t1\nhalf exists\n!gone\nturn!=4",
];

fn record(id: u64) -> Option<Record> {
    Some(Record {
        collection: CollectionId(1),
        id: EntryId(id),
        version: Lsn(id),
        namespace: Namespace::new(if id.is_multiple_of(2) { "user/7" } else { "" }).ok()?,
        key: Key::new(format!("n{id}")).ok()?,
        vector: (id != 3).then(|| vec![id as f32, -0.5, 1e-3, 2.0].into()),
        half: false,
        payload: Payload::Inline(
            format!("note {id}: again and again and again").into_bytes().into(),
        ),
        attributes: format!("{{\"turn\":{id},\"tags\":[\"a\",\"b\"]}}").into(),
        at: Timestamp(1_700_000_000_000_000),
        created: Timestamp(1_700_000_000_000_001),
        updated: Timestamp(1_700_000_000_000_002),
        expires: (id == 1).then_some(Timestamp(i64::MAX)),
        session: (id != 2).then(|| Arc::from("s1")),
        sequence: (id == 1).then_some(4),
        salience: (id == 1).then_some(0.5),
        pinned: id == 1,
    })
}

fn records() -> Vec<Record> {
    (1..=3).filter_map(record).collect()
}

fn ops() -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
    let spec = CollectionSpec::new().dim(4).metric(Metric::Dot).element(Element::F16).model("m1");
    let def = CollectionDef {
        id: CollectionId(1),
        name: "notes".into(),
        spec,
        version: Lsn(1),
        created: Timestamp(5),
    };
    ops.push(Op::Define(def));
    ops.extend(records().into_iter().map(Op::Put));
    ops.extend(
        record(1).map(|r| Op::Put(Record { half: true, vector: Some([0.5, -2.0].into()), ..r })),
    );
    ops.extend(record(2).map(|r| {
        let removal = Removal::Expired;
        let (namespace, key) = (r.namespace, r.key);
        Op::Delete(Tombstone {
            collection: r.collection,
            id: r.id,
            version: Lsn(9),
            namespace,
            key,
            removal,
        })
    }));
    ops.push(Op::Setting { name: "rho".into(), value: "0.25".into(), version: Lsn(1) });
    ops.push(Op::Request { client: 5, sequence: 1, version: Lsn(1) });
    ops.push(Op::DropCollection { collection: CollectionId(1), version: Lsn(1) });
    ops
}

fn encoded(op: &Op) -> Vec<u8> {
    let payload = match op {
        Op::Put(Record { payload: Payload::Inline(bytes), .. }) => bytes.to_vec(),
        _ => Vec::new(),
    };
    let mut out = Vec::new();
    encode_op(op, &payload, &mut out);
    out
}

fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    framed(kind, 64, 1, 1, payload)
}

fn framed(kind: Kind, at: u64, lsn: u64, batch: u64, payload: &[u8]) -> Vec<u8> {
    let seed = head().seed();
    let payload_crc = seed.crc(at + FRAME_BYTES as u64, payload);
    let len = payload.len() as u32;
    let frame = Frame { kind, len, lag: 1, lsn: Lsn(lsn), batch, payload_crc };
    [&frame.encode(seed, at)[..], payload].concat()
}

/// A segment with batches of two operations, a close, and zeros.
fn log(ops: &[Op]) -> Vec<u8> {
    let mut out = Vec::new();
    head().encode(&mut out);
    let (mut lsn, mut batch) = (0, 0);
    for pair in ops.chunks(2) {
        batch += 1;
        let (first, mut heads) = (lsn + 1, Vec::new());
        for op in pair {
            lsn += 1;
            let bytes = framed(Kind::Op, out.len() as u64, lsn, batch, &encoded(op));
            heads.extend(bytes.iter().take(FRAME_BYTES));
            out.extend(bytes);
        }
        let batch_crc = crc32fast::hash(&heads);
        let mut commit = Vec::new();
        Commit { count: pair.len() as u32, first_lsn: Lsn(first), batch_crc }.encode(&mut commit);
        out.extend(framed(Kind::Commit, out.len() as u64, lsn, batch, &commit));
    }
    out.extend(framed(Kind::Close, out.len() as u64, lsn, batch, &[]));
    out.resize(out.len() + 200, 0);
    out
}

struct Resident;

impl PayloadReader for Resident {
    fn read(&self, record: &Record, _: u64, _: &mut [u8]) -> Result<()> {
        Err(Error::internal(format!("the payload of {} is in RAM", record.id)))
    }
}

fn folders() -> MemoryDisk {
    let disk = MemoryDisk::new();
    for folder in [archive::FOLDER, arena::FOLDER, sealed::FOLDER] {
        // A disk in memory refuses no folder.
        let _ = disk.create_dir(folder);
    }
    disk
}

fn sealed_segment(disk: &MemoryDisk) -> Result<Vec<u8>> {
    let records = records();
    let rows: Vec<&Record> = records.iter().collect();
    let shape = Shape { dim: 4, element: Element::F32, metric: Metric::Dot, mean: None };
    let ops: Vec<(Lsn, Vec<u8>)> = ops()
        .iter()
        .filter(|op| !matches!(op, Op::Put(_)))
        .map(|op| (op.lsn(), encoded(op)))
        .collect();
    let new = NewSegment {
        number: 1,
        store_id: STORE,
        covers: Some((Lsn(1), Lsn(9))),
        next_id: 9,
        next_collection: 3,
        rows: &rows,
        shapes: &|_| Some(shape.clone()),
        ops: &ops,
        beside: 0,
        supersedes: &[(7, 8)],
    };
    write_segment(disk, &new, &Resident)?;
    read_whole(disk, &archive::file_name(1), usize::MAX).map_err(|e| Error::io("read", e))
}

fn segment() -> Vec<u8> {
    sealed_segment(&folders()).unwrap_or_default()
}

fn footer() -> Option<Vec<u8>> {
    let disk = folders();
    let bytes = sealed_segment(&disk).ok()?;
    let trailer = bytes.len().checked_sub(32)?;
    let at = u64::from_le_bytes(*bytes.get(trailer..)?.first_chunk()?);
    let footer = bytes.get(usize::try_from(at).ok()?..trailer)?;
    Some([&at.to_le_bytes()[..], footer].concat())
}

fn rows() -> Vec<Vec<u8>> {
    let row = Row {
        number: 3,
        id: EntryId(7),
        version: Lsn(9),
        at: Timestamp(-5),
        fingerprint: 11,
        created: Timestamp(12),
        updated: Timestamp(13),
        expires: Some(Timestamp(0)),
        sequence: Some(4),
        salience: Some(0.5),
        norm: 1.0,
        vector_index: Some(3),
        vector_crc: 17,
        body: Span { frame: 0, offset: 5, len: 6 },
        body_crc: 18,
        payload: Some(Span { frame: 1, offset: 0, len: 70_000 }),
        payload_crc: 1,
        pinned: true,
        has_session: true,
        half: false,
        pieces: true,
    };
    let bare =
        Row { vector_index: None, payload: None, expires: None, salience: None, ..row.clone() };
    [(row, 4), (bare, 3)]
        .iter()
        .map(|(row, vectors)| {
            let mut out = vec![3, *vectors];
            row.encode(Seed::new(STORE, 1), 0, &mut out);
            out
        })
        .collect()
}

fn bodies() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for record in records() {
        let mut out = vec![u8::from(record.session.is_some())];
        if encode_body(&record, &mut out).is_ok() {
            all.push(out);
        }
    }
    all
}

fn entry(index: u8, kind: SectionKind) -> Vec<u8> {
    let mut out = vec![index, index];
    let entry = FrameEntry { offset: 640, len: 90, raw: 4000, crc: 12 };
    entry.encode(Seed::new(STORE, 1), kind, 0, u32::from(index), &mut out);
    out
}

fn dead() -> Vec<Vec<u8>> {
    let disk = folders();
    let Ok(segment) = sealed_segment(&disk).and_then(|_| Segment::open(&disk, 1, STORE)) else {
        return Vec::new();
    };
    let cold = ColdSegment::new(segment);
    let one = cold.with_dead(vec![[1_u32].into_iter().collect()]);
    vec![cold.encode(), one.encode()]
}

fn vector(dim: u8) -> Vec<f32> {
    (0..dim).map(|i| f32::from(i % 11) / 4.0 - 1.0).collect()
}

fn codes(dim: u8, width: u8) -> Vec<u8> {
    let Some(layout) = layout(u32::from(dim)) else { return Vec::new() };
    let layout = if width == 0 { layout } else { layout.with_bits(Bits::Four) };
    let mut row = vec![0; layout.row_bytes()];
    quant::encode(layout, &vector(dim), &mut row);
    [&[width, dim], &row[..]].concat()
}

fn sketches(dim: u8, metric: u8) -> Vec<u8> {
    let which = if metric == 0 { Metric::Cosine } else { Metric::Dot };
    let Some(layout) = SketchLayout::new(usize::from(dim), which) else { return Vec::new() };
    let mut block = vec![0; layout.blocks_bytes(BLOCK_ROWS)];
    let mut row = vec![0; layout.row_bytes()];
    for slot in 0..BLOCK_ROWS {
        encode(layout, &vec![0.1; usize::from(dim)], &vector(dim), &mut row);
        place(layout, &row, &mut block, slot);
    }
    [&[metric, dim], &block[..]].concat()
}

fn blocks() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (bits, width) in [(8, 0), (4, 1)] {
        let row = codes(8, width).split_off(2);
        let header = BlockHeader {
            store_id: STORE,
            number: 1,
            collection: CollectionId(1),
            dim: 8,
            group: 0,
            bits,
            rows: 3,
            row_bytes: row.len() as u32,
        };
        let rows: Vec<(EntryId, Lsn)> = (1..=3).map(|n| (EntryId(n), Lsn(n + 5))).collect();
        all.extend(block::encode(&header, &rows, &row.repeat(3)));
    }
    all
}

/// Three cells, the second one without rows.
fn cells(rows: u32) -> Vec<u8> {
    let disk = folders();
    let source = Source { segment: 4, group: 0, vectors: 2 * rows + 1, crc: 5 };
    let tables = Tables {
        sources: vec![source],
        rows: vec![rows, 0, 1],
        centroids: codes(8, 0).split_off(2).repeat(3),
        refs: (0..rows).map(|n| 2 * n).chain([1]).collect(),
        margins: [[0.75, 0.5, 0.25, 0.125, 1.0, 1.5, 0.0, 2.0]; 32],
    };
    let header = CellsHeader {
        store_id: STORE,
        number: 1,
        collection: CollectionId(1),
        dim: 8,
        cells: 3,
        rows: rows + 1,
        sources: 1,
    };
    let write = || {
        let layout = header.sketches().ok_or_else(|| Error::internal("no layout"))?;
        let mut writer = CellsWriter::create(&disk, header, &tables)?;
        for (cell, rows) in (0..).zip(&tables.rows) {
            writer.add(cell, vec![3; layout.blocks_bytes(*rows as usize)])?;
        }
        writer.finish()
    };
    let written: Result<u64> = write();
    let name = cells::file_name(1);
    written.ok().and_then(|_| read_whole(&disk, &name, usize::MAX).ok()).unwrap_or_default()
}

fn columns(rows: u64) -> Vec<u8> {
    let disk = folders();
    let rows = (1..=rows).map(|n| {
        let access = row::Row::access(EntryId(n), Timestamp(n as i64 * 1_000_000));
        if n.is_multiple_of(7) { row::Row::gone(EntryId(n)) } else { access }
    });
    let written = sealed::write(&disk, 1, 1, rows);
    let name = "columns/0000000001.col";
    written.ok().and_then(|_| read_whole(&disk, name, usize::MAX).ok()).unwrap_or_default()
}

fn saved_hot(ids: std::ops::Range<u64>) -> Vec<u8> {
    let (disk, set) = (folders(), ids.map(|id| id * 3).collect::<RoaringTreemap>());
    let saved = hot::save(&disk, STORE, &set);
    saved.ok().and_then(|_| read_whole(&disk, "columns/hot", usize::MAX).ok()).unwrap_or_default()
}

fn saved_moves(count: u64) -> Vec<u8> {
    let disk = folders();
    let mut moves = Moves::load(&disk, STORE);
    let (from, to) = (Standing::Hot, Standing::Warm4);
    moves.note(
        (0..count).map(|n| LevelMove { id: EntryId(n), at: Timestamp(n as i64), from, to }),
        1 << 20,
    );
    let saved = moves.save(&disk, STORE);
    saved.ok().and_then(|_| read_whole(&disk, "columns/moves", usize::MAX).ok()).unwrap_or_default()
}

fn values() -> Vec<Vec<u8>> {
    let (id, key) = (EntryId(3), 3_u64.to_le_bytes());
    let place = Some(Place { segment: 1, group: 0, row: 2 });
    let live = Located { collection: CollectionId(1), version: Lsn(9), place };
    let gone = Located { place: None, ..live };
    let of = |table: u8, key: &[u8], value: &[u8]| [&[table, key.len() as u8], key, value].concat();
    vec![
        of(0, b"\0\0\0\x01\0n3", &tables::seal_number(Table::Keys, b"\0\0\0\x01\0n3", 4)),
        of(1, &key, &tables::seal_number(Table::Requests, &key, 4)),
        of(3, b"applied_lsn", &tables::seal_number(Table::Meta, b"applied_lsn", 9)),
        of(4, b"\0\0\0\x01\0n3", &tables::seal_number(Table::Recent, b"\0\0\0\x01\0n3", 4)),
        of(5, &key, &tables::seal_bytes(Table::Segments, &key, &[1, 2, 3])),
        of(7, b"rho", &tables::seal_bytes(Table::Settings, b"rho", b"0.25")),
        of(8, &key, &tables::seal_located(id, &live)),
        of(8, &key, &tables::seal_located(id, &gone)),
    ]
}
