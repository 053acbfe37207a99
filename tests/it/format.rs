//! `docs/FORMAT.md` against the files of a real store: names, and the layouts whose encoders live in
//! one organ. The layouts of log, operations and archive are compared with their encoders by
//! `src/bytes/codec/format_tests`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pmll::{Draft, Options, Store};

type Fields = BTreeMap<String, (usize, usize)>;

fn page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/FORMAT.md")).unwrap()
}

/// Offset and size of each field in the table under a heading; the end stands under "end".
fn fields(heading: &str) -> Fields {
    let page = page();
    let (_, after) = page.split_once(&format!("\n### {heading}\n")).unwrap();
    let mut fields = Fields::new();
    let mut end = 0;
    for line in after.lines().skip_while(|l| !l.starts_with('|')).skip(2) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, offset, size, name, ..] = cells[..] else { break };
        let (offset, size) = (offset.parse().unwrap(), size.parse().unwrap());
        assert_eq!(offset, end, "{heading}: {name} does not stand behind the field before it");
        end = offset + size;
        fields.insert(name.to_owned(), (offset, size));
    }
    fields.insert("end".to_owned(), (end, 0));
    fields
}

fn bytes<'a>(file: &'a [u8], fields: &Fields, name: &str) -> &'a [u8] {
    let (offset, size) = fields[name];
    &file[offset..offset + size]
}

fn number(file: &[u8], fields: &Fields, name: &str) -> u64 {
    bytes(file, fields, name).iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

fn crc(parts: &[&[u8]]) -> u64 {
    u64::from(crc32fast::hash(&parts.concat()))
}

/// A store with every kind of file in it. It stays open, so that its last note stays in the log.
fn store(path: &Path) -> Store {
    let options = Options { cells_rows_min: 100, background: false, ..Options::default() };
    let store = Store::builder(path).options(options).open().unwrap();
    let notes = store.collection("notes").unwrap();
    for n in 0..200 {
        let draft = Draft::text(format!("note {n}")).vector([1.0, n as f32]);
        notes.put(format!("n{n:03}"), draft).unwrap();
    }
    for n in 0..190 {
        notes.get(format!("n{n:03}")).unwrap();
    }
    store.checkpoint().unwrap();
    notes.put("late", Draft::text("in the log")).unwrap();
    store
}

fn names(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no {suffix} in {}", folder.display());
    found
}

#[test]
fn format_of_the_files_of_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("memory");
    let store = store(&path);
    let page = page();

    // Every name is in the table of files.
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        if !entry.path().is_dir() {
            assert!(page.contains(&format!("| `{name}` |")), "{name} is not in docs/FORMAT.md");
            continue;
        }
        for inner in std::fs::read_dir(entry.path()).unwrap() {
            let inner = inner.unwrap().file_name().to_string_lossy().into_owned();
            let shape = inner.trim_start_matches(|c: char| c.is_ascii_digit());
            assert_eq!(inner.len() - shape.len(), 10, "{inner}");
            let row = format!("| `{name}/NNNNNNNNNN{shape}` |");
            assert!(page.contains(&row), "{name}/{inner} is not in docs/FORMAT.md");
        }
    }

    // The store's own file, and the id that everything is bound to.
    let text = std::fs::read_to_string(path.join("store.toml")).unwrap();
    let line = |name: &str| {
        let start = format!("{name} = ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start)).unwrap();
        line.trim_matches('"').to_owned()
    };
    let id = line("id");
    let stored: u64 = line("crc").parse().unwrap();
    assert_eq!(stored, crc(&[line("format").as_bytes(), b"\0", id.as_bytes(), b"\0"]));
    let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let value = |name: &str| {
        let start = format!("{name} = ");
        example.lines().find_map(|l| l.strip_prefix(&start)).unwrap().trim_matches('"')
    };
    let ours = crc(&[value("format").as_bytes(), b"\0", value("id").as_bytes(), b"\0"]);
    assert_eq!(value("crc"), ours.to_string(), "the example's own CRC");
    let id: Vec<u8> =
        (0..32).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap()).collect();

    // Log and archive say whose they are where the page says it.
    for file in names(&path.join("wal"), ".wal") {
        let fields = fields("Log segment header");
        let file = std::fs::read(file).unwrap();
        assert_eq!(bytes(&file, &fields, "magic"), b"pmll-wal");
        assert_eq!(bytes(&file, &fields, "store"), id);
    }
    for file in names(&path.join("archive"), ".seg") {
        let file = std::fs::read(file).unwrap();
        assert_eq!(bytes(&file, &fields("Archive header"), "store"), id);
        let trailer = fields("Archive trailer");
        let end = &file[file.len() - trailer["end"].0..];
        let offset = number(end, &trailer, "footer_offset") as usize;
        let footer = &file[offset..offset + number(end, &trailer, "footer_len") as usize];
        assert_eq!(number(end, &trailer, "footer_crc"), crc(&[footer]));
        assert_eq!(bytes(footer, &fields("Archive footer"), "store"), id);
    }

    cells(&path, &id);
    columns(&path);
    index(&path);
    drop(store);
}

fn cells(path: &Path, id: &[u8]) {
    let header = fields("Cells header");
    for name in names(&path.join("arena"), ".cel") {
        let file = std::fs::read(&name).unwrap();
        assert_eq!(bytes(&file, &header, "magic"), b"pmllCEL\n");
        assert_eq!(bytes(&file, &header, "store"), id);
        let own = number(&file, &header, "file");
        assert!(name.to_string_lossy().ends_with(&format!("{own:010}.cel")));
        let covered = &file[..header["crc"].0];
        assert_eq!(number(&file, &header, "crc"), crc(&[covered]));
        let [cells, dim, rows, sources] =
            ["cells", "dim", "rows", "sources"].map(|name| number(&file, &header, name) as usize);
        let margins = 32 * 8 * 4;
        let tables = 20 * sources + cells * (4 + 12 + dim) + 4 * rows + margins;
        let (tables, bodies) = file[header["end"].0..].split_at(tables);
        let bound = |part: u64, bytes: &[u8]| {
            crc(&[id, &own.to_le_bytes(), &part.to_le_bytes(), bytes]).to_le_bytes()
        };
        assert_eq!(bodies[..4], bound(u64::MAX, tables)[..4]);
        for margin in tables[tables.len() - margins..].as_chunks().0 {
            assert!((0.0..=2.0).contains(&f32::from_le_bytes(*margin)));
        }
        let mut at = 4;
        for (cell, rows) in tables[20 * sources..].chunks(4).take(cells).enumerate() {
            let rows = u32::from_le_bytes(rows.try_into().unwrap()) as usize;
            if rows > 0 {
                let len = rows.div_ceil(64) * 64 * (dim.div_ceil(8) + 1);
                let crc = &bodies[at + len..at + len + 4];
                assert_eq!(*crc, bound(cell as u64, &bodies[at..at + len])[..4]);
                at += len + 4;
            }
        }
        assert_eq!(at, bodies.len());
    }
}

fn columns(path: &Path) {
    let (block, row, tail) =
        (fields("Columns block"), fields("Columns row"), fields("Columns tail"));
    assert_eq!(block["rows"].1 / row["end"].0, 113);
    for name in names(&path.join("columns"), ".col") {
        let file = std::fs::read(&name).unwrap();
        let end = &file[file.len() - tail["end"].0..];
        assert_eq!(bytes(end, &tail, "magic"), b"pmllcol2");
        let own = number(end, &tail, "number");
        assert!(name.to_string_lossy().ends_with(&format!("{own:010}.col")));
        let blocks = number(end, &tail, "blocks") as usize;
        let index = &file[blocks * block["end"].0..file.len() - end.len()];
        assert_eq!(index.len(), blocks * 8);
        assert_eq!(number(end, &tail, "crc"), crc(&[index, &end[..tail["crc"].0]]));
        let mut rows = 0;
        for (at, bytes_of) in file.chunks(block["end"].0).take(blocks).enumerate() {
            let covered = &bytes_of[..block["crc"].0];
            let expected = crc(&[&own.to_le_bytes(), &(at as u64).to_le_bytes(), covered]);
            assert_eq!(number(bytes_of, &block, "crc"), expected);
            assert_eq!(bytes(bytes_of, &row, "id"), &index[at * 8..at * 8 + 8]);
            rows += number(bytes_of, &block, "count");
        }
        assert_eq!(rows, number(end, &tail, "rows"));
    }
}

fn index(path: &Path) {
    let header = fields("Index header");
    let file = std::fs::read(path.join("index.redb")).unwrap();
    assert_eq!(header["end"].0, 512);
    for (at, copy) in [(0u64, &file[..]), (1, &file[4096..])] {
        assert_eq!(bytes(copy, &header, "magic"), b"pmllidx1");
        assert!(bytes(copy, &header, "page").starts_with(b"redb"));
        assert_eq!(number(copy, &header, "reserved"), 0);
        let covered = &copy[..header["crc"].0];
        assert_eq!(number(copy, &header, "crc"), crc(&[&at.to_le_bytes(), covered]));
    }

    // Pages of the first group against the CRC page before them.
    let mut verified = 0;
    for (slot, page) in file.chunks_exact(4096).skip(3).take(1024).enumerate() {
        let at = 2 * 4096 + slot * 4;
        let stored = u64::from(u32::from_le_bytes(file[at..at + 4].try_into().unwrap()));
        if stored != 0 {
            let number = slot as u64 + 1;
            assert_eq!(stored, crc(&[&number.to_le_bytes(), page]).max(1), "page {number}");
            verified += 1;
        }
    }
    assert!(verified > 4, "{verified} pages");
}
