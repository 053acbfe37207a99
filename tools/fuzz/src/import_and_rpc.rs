//! What comes in from outside: the files that `pmll import` reads, filters, times, vectors on a line.
//!
//! The first byte chooses the reader, the rest is what it reads. An entry that a reader makes is put into a
//! store in memory, so that what it lets through meets the store's own checks as well.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use pmll::io::{Disk, MemoryDisk};
use pmll::{Collection, CollectionSpec, Draft, Filter, Scan};
use pmll_cli::lines::{Line, Lines};
use pmll_cli::npy::{self, NpyReader};
use pmll_cli::time;
use serde_json::Value;
use tempfile::TempDir;

use crate::base::{self, check};

const ROWS_MAX: u64 = 64;
const NAMES: [&str; 4] = ["in.npy", "in.jsonl", "in.txt", "in.jsonl.zst"];

/// Reads the bytes.
pub fn body(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    match NAMES.get(usize::from(choice % 8)) {
        Some(name) => read_file(name, bytes),
        None => {
            let text = String::from_utf8_lossy(bytes);
            match choice % 8 {
                4 | 5 => filter(&text),
                6 => {
                    drop(time::parse(&text));
                    drop(time::parse_duration(&text));
                    drop(time::parse_size(&text));
                    let (format, value) = text.split_once('\n').unwrap_or(("%Y", &text));
                    drop(time::parse_with(format, value));
                    if let Ok(micros) = time::parse(&text) {
                        drop(time::format(micros));
                    }
                }
                _ => {
                    let (path, _) = npy::split_row(&text);
                    // A file is a matter of the other choices.
                    if !Path::new(path).exists() {
                        drop(npy::vector_argument(&text));
                    }
                }
            }
        }
    }
}

/// A folder of this process, away from disks where there is one.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let made = FOLDER.get_or_init(|| {
        let shared = PathBuf::from("/dev/shm");
        let made = tempfile::tempdir_in(shared).or_else(|_| tempfile::tempdir());
        match made {
            Ok(made) => made,
            Err(error) => panic!("no temporary folder: {error}"),
        }
    });
    made.path()
}

fn collection() -> Option<Collection> {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    check(base::open(&disk).ok()?.collection_with("in", CollectionSpec::new()))
}

fn read_file(name: &str, bytes: &[u8]) {
    let path = folder().join(format!("{:?}-{name}", std::thread::current().id()));
    let written = std::fs::write(&path, bytes);
    assert!(written.is_ok(), "{written:?}");
    if name == "in.npy" {
        read_vectors(&path);
    } else {
        read_lines(&path);
    }
}

fn read_vectors(path: &Path) {
    let Ok(mut reader) = NpyReader::open(path) else { return };
    let rows = reader.rows();
    let Some(collection) = collection() else { return };
    for row in (0..rows).take(ROWS_MAX as usize).chain([rows.saturating_sub(1), rows, u64::MAX]) {
        if let Ok(vector) = reader.row(row) {
            let _ = check(collection.put(row.to_le_bytes(), Draft::text("row").vector(vector)));
        }
        drop(reader.numbers(row));
    }
}

fn read_lines(path: &Path) {
    let Ok(mut lines) = Lines::open(path) else { return };
    let Some(collection) = collection() else { return };
    while let Ok(Some((row, line))) = lines.next_row() {
        if row >= ROWS_MAX {
            break;
        }
        let draft = match line {
            Line::Text(bytes) => Draft::bytes(bytes),
            Line::Object(object) => {
                if let Some(at) = object.get("time") {
                    drop(time::parse_value(at, None));
                }
                Draft::text("line").attributes(object)
            }
        };
        let _ = check(collection.put(row.to_le_bytes(), draft));
    }
    let _ = check(collection.scan(Scan::new()));
}

fn filter(text: &str) {
    let Some(filter) = check(Filter::parse(text)) else { return };
    static COLLECTION: OnceLock<Option<Collection>> = OnceLock::new();
    let collection = COLLECTION.get_or_init(|| {
        let collection = collection()?;
        for number in 0..6_i64 {
            let tags = Value::from(vec![format!("t{number}")]);
            let draft = Draft::text("x").attr("turn", number).attr("tags", tags);
            check(collection.put(number.to_le_bytes(), draft.attr("half", number as f64 / 2.0)))?;
        }
        Some(collection)
    });
    if let Some(collection) = collection {
        let _ = check(collection.count(Some(&filter)));
    }
}

/// A valid file of each kind, filters of every operator, times and vectors.
pub fn seeds() -> Vec<Vec<u8>> {
    let of = |choice: u8, bytes: &[u8]| [&[choice], bytes].concat();
    let mut header = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    header.extend_from_slice(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }");
    header.resize(127, b' ');
    header.push(b'\n');
    header.extend([1.0_f32, 2.0, 3.0, 4.0, -5.0, 0.5].iter().flat_map(|v| v.to_le_bytes()));
    let lines = b"{\"text\": \"one\", \"n\": 1, \"time\": \"2024-01-01T00:00:00Z\"}\n\n{\"a\": [1, null]}\n";
    let packed = zstd::bulk::compress(lines, 1).unwrap_or_default();
    // A few bytes that unpack to a line beyond every limit.
    let long = zstd::bulk::compress(&vec![b'a'; 8 << 20], 1).unwrap_or_default();
    let filters = [
        r#"{"turn": {"$gt": 2, "$lte": 5}}"#,
        r#"{"$or": [{"half": 1.5}, {"tags": {"$in": ["t1", "t2"]}}, {"$not": {"turn": 1}}]}"#,
        r#"{"$and": [{"turn": {"$ne": 3}}, {"half": {"$exists": true}}]}"#,
        r#"{"tags": {"$contains": "t3"}, "turn": {"$nin": [1, 2]}}"#,
    ];
    let mut seeds = vec![
        of(0, &header),
        of(1, lines),
        of(2, b"one\r\ntwo\n\nfour"),
        of(3, &packed),
        of(3, &long),
        of(6, b"2024-02-29T23:59:60.5+02:00"),
        of(6, b"%I:%M %p on %d %B, %Y\n1:56 pm on 8 May, 2023"),
        of(6, b"1h 30m"),
        of(6, b"64 MiB"),
        of(7, b"[0.5, 1e-3, -2]"),
        of(7, b"missing.npy[3]"),
    ];
    seeds.extend(filters.iter().map(|filter| of(4, filter.as_bytes())));
    seeds
}
