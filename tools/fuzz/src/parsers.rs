//! The decoders one by one: what they are called, and how the checksums of their inputs are made right.
//!
//! `pmll::decoders` holds each to its rules: no panic, and what was read comes back when it is written. Here
//! are the inputs: examples, words for texts, and for each format with checksums a function that sets them
//! right after a change, by docs/FORMAT.md, so that hostile numbers get past them.

use pmll::decoders::{ALL, Answer, STORE, examples};
use pmll_cli::{npy, time};

use crate::chance::{Chance, damage};
use crate::seal::{self, Place, crc, get, put_u32, u32_at, u64_at};

/// Makes the checksums of an input right; `None` where a length leads out of it.
pub type Seal = fn(&mut [u8]) -> Option<()>;

/// One parser.
pub struct Parser {
    /// Its name; its kept inputs are in `corpus/parsers/NAME`.
    pub name: &'static str,
    /// Reads the bytes; an error is a broken rule.
    pub read: fn(&[u8]) -> Answer,
    /// Makes checksums right, as far as lengths lead.
    pub seal: Option<Seal>,
    /// Inputs to start from.
    pub seeds: Vec<Vec<u8>>,
    /// Longest input that is made.
    pub len_max: usize,
    /// Words of its language.
    pub words: &'static [&'static str],
    /// Bytes of memory it may take beside some for each byte of its input.
    pub room: usize,
    /// It runs once where others run so many times: it is slow.
    pub every: u64,
}

/// Inputs that are kept to be changed, for each parser; the first are its examples, and stay.
const POOL: usize = 64;
const EXAMPLES: usize = 16;

/// Memory for each byte of an input.
pub const BYTES_A_BYTE: usize = 64;

/// All parsers: those of the store, and the readers of the command's texts.
#[must_use]
pub fn all() -> Vec<Parser> {
    let mut all: Vec<Parser> =
        ALL.iter().map(|(name, read)| parser(name, *read, examples(name))).collect();
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    let times = [
        "2024-02-29T23:59:59.5+02:00",
        "2023-05-08",
        "1h 30m",
        "64 MiB",
        "1715000000",
        "%I:%M %p on %d %B, %Y\n1:56 pm on 8 May, 2023",
    ];
    all.push(parser("cli_time", cli_time, texts(&times)));
    all.push(parser("cli_vector", cli_vector, texts(&["[0.5, 1e-3, -2]", "[1]"])));
    all
}

/// The parser of this name.
#[must_use]
pub fn find(name: &str) -> Option<Parser> {
    all().into_iter().find(|parser| parser.name == name)
}

/// Reads an input of cargo-fuzz: bit 0 of the first byte makes the checksums of the rest right.
///
/// # Panics
/// When a rule is broken.
pub fn body(parser: &Parser, data: &[u8]) {
    let Some((flags, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if let (1, Some(seal)) = (flags & 1, parser.seal) {
        let _ = seal(&mut bytes);
    }
    let answer = (parser.read)(&bytes);
    assert!(answer.is_ok(), "{}: {answer:?}", parser.name);
}

/// An input: one that is kept, changed, or random bytes; half of them with checksums made right.
#[must_use]
pub fn next(parser: &Parser, chance: &mut Chance) -> Vec<u8> {
    let mut input = if chance.below(32) == 0 {
        let len = chance.below(96);
        chance.bytes(len)
    } else {
        let mut pick = || parser.seeds.get(chance.below(parser.seeds.len()));
        let (mut input, other) = (pick().cloned().unwrap_or_default(), pick());
        let other = other.map(Vec::as_slice).unwrap_or_default();
        damage(&mut input, other, parser.words, parser.len_max, chance);
        input
    };
    if let Some(seal) = parser.seal.filter(|_| chance.below(2) == 0) {
        let _ = seal(&mut input);
    }
    input
}

/// Keeps an input that was read, so that it is changed further.
pub fn keep(parser: &mut Parser, input: Vec<u8>, chance: &mut Chance) {
    if parser.seeds.len() < POOL {
        parser.seeds.push(input);
    } else if let Some(place) = parser.seeds.get_mut(EXAMPLES + chance.below(POOL - EXAMPLES)) {
        *place = input;
    }
}

fn parser(name: &'static str, read: fn(&[u8]) -> Answer, seeds: Vec<Vec<u8>>) -> Parser {
    let seal: Option<Seal> = match name {
        "log_header" | "archive_header" => Some(header),
        "log_frame" => Some(frame),
        "log_scan" => Some(|bytes| seal::log(bytes.get_mut(1..)?)),
        "op" => Some(put),
        "archive_trailer" => Some(|bytes| {
            let crc = crc(0, &[get(bytes, 8, 20)?]);
            put_u32(bytes, 28, crc);
            Some(())
        }),
        "archive_row" => Some(|bytes| {
            let number = usize::from(bytes.first()? % 8);
            let crc = place().crc(2, number, get(bytes, 2, 124)?);
            put_u32(bytes, 126, crc);
            Some(())
        }),
        "archive_frame_entry" => Some(|bytes| {
            let kind = if bytes.first()? & 1 == 0 { 4 } else { 6 };
            let crc = place().crc(kind, usize::from(*bytes.get(1)?), get(bytes, 2, 20)?);
            put_u32(bytes, 22, crc);
            Some(())
        }),
        "archive_segment" => Some(|bytes| {
            seal::segment(bytes);
            Some(())
        }),
        "arena_block" => Some(block),
        "arena_cells" => Some(cells),
        "columns_file" => Some(columns),
        "columns_hot" => Some(hot),
        "columns_moves" => Some(ending),
        "index_value" => Some(value),
        "store_file" => Some(store_file),
        _ => None,
    };
    let words: &'static [&'static str] = match name {
        "filter" => &FILTER_WORDS,
        "rule" => &[
            "weights",
            "half_life_s",
            "age",
            "rho",
            ".notes",
            "\n",
            "1e308",
            "-1",
            "[",
            "]",
            "0.3",
            "\"wall\"",
            "null",
        ],
        "time" | "cli_time" => &[
            "2024-02-29",
            "T",
            "Z",
            "+23:59",
            "-",
            ":",
            ".123456789",
            "00",
            "9999",
            "%",
            "%Y",
            "%j",
            "KiB",
            "d",
            "h",
            "1e9",
            "\n",
        ],
        "store_file" => &[
            "format = \"0-dev\"\n",
            "id = ",
            "required = [\"x\"]\n",
            "crc = ",
            "\"",
            "[",
            "]",
            "\n",
            "{a=1}",
            "1979-05-27",
        ],
        "cli_vector" => &["[", "]", ",", "1e39", "-0", "nan", ".npy", "18446744073709551615"],
        _ => &[],
    };
    let (room, every) = match name {
        // A decoder of zstd, its longest frame twice, and a table of 64 rows.
        "archive_segment" => (8 << 20, 8),
        // A window of the file and the buffers of a search.
        "segment_value" | "log_scan" => (1 << 20, 2),
        "columns_file" => (2 << 20, 2),
        _ => (256 << 10, 1),
    };
    let len_max = seeds.iter().map(Vec::len).max().unwrap_or(0).max(64) + 64;
    Parser { name, read, seal, seeds, len_max, words, room, every }
}

const FILTER_WORDS: [&str; 40] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "$and",
    "$or",
    "$not",
    "$eq",
    "$ne",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$in",
    "$nin",
    "$exists",
    "$prefix",
    "$contains",
    "_key",
    "_ns",
    "_at",
    "_tier",
    "_pinned",
    "_session",
    "_expires",
    "\"turn\"",
    "a.b",
    "1e400",
    "-0.0",
    "18446744073709551616",
    "null",
    "true",
    " in ",
    " not in ",
    " exists",
    "!",
    "^=",
];

fn cli_time(bytes: &[u8]) -> Answer {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(false) };
    let (format, value) = text.split_once('\n').unwrap_or(("%Y", text));
    let size = time::parse_size(text).is_ok();
    let other = time::parse_duration(text).is_ok() || time::parse_with(format, value).is_ok();
    let Ok(micros) = time::parse(text) else { return Ok(size || other) };
    let shown = time::format(micros);
    // What no calendar names is shown as the number it is.
    if shown.is_number() {
        return if shown.as_i64() == Some(micros) {
            Ok(true)
        } else {
            Err(format!("{micros} is shown as {shown}"))
        };
    }
    match time::parse(shown.as_str().unwrap_or_default()) {
        Ok(again) if again == micros => Ok(true),
        again => Err(format!("{micros:?} is shown as {shown}, which is {again:?}")),
    }
}

fn cli_vector(bytes: &[u8]) -> Answer {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(false) };
    let (path, _) = npy::split_row(text);
    // Only vectors that stand on the line: a file is another matter.
    if !path.trim_start().starts_with('[') || std::path::Path::new(path).exists() {
        return Ok(false);
    }
    Ok(npy::vector_argument(text).is_ok())
}

fn place() -> Place {
    Place { seed: crc(0, &[&STORE, &1_u64.to_le_bytes()]), group: 0 }
}

fn header(bytes: &mut [u8]) -> Option<()> {
    let crc = crc(0, &[get(bytes, 0, 60)?]);
    put_u32(bytes, 60, crc);
    Some(())
}

fn frame(bytes: &mut [u8]) -> Option<()> {
    let (one, salt) = (1_u64.to_le_bytes(), 0x0101_0202_0303_0404_u64.to_le_bytes());
    let seed = crc(0, &[&STORE, &salt, &one, &one]);
    let payload = bytes.len().checked_sub(32)?;
    put_u32(bytes, 0, payload as u32);
    let crc_of_payload = crc(seed, &[&96_u64.to_le_bytes(), get(bytes, 32, payload)?]);
    put_u32(bytes, 24, crc_of_payload);
    let head = crc(seed, &[&64_u64.to_le_bytes(), get(bytes, 0, 28)?]);
    put_u32(bytes, 28, head);
    Some(())
}

/// The CRC of a payload in an operation that puts.
fn put(bytes: &mut [u8]) -> Option<()> {
    let flags = u32_at(bytes, 0)? >> 16;
    let optional = [(4, 8), (16, 8), (32, 4), (8, 4), (1, 4)];
    let more: usize =
        optional.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, len)| len).sum();
    let len = u32_at(bytes, 48 + more)? as usize;
    let start = bytes.len().checked_sub(len)?;
    let crc = crc(0, &[get(bytes, start, len)?]);
    put_u32(bytes, 52 + more, crc);
    Some(())
}

fn block(bytes: &mut [u8]) -> Option<()> {
    header(bytes)?;
    let (rows, row_bytes) = (u32_at(bytes, 12)? as usize, u32_at(bytes, 52)? as usize);
    let bound = |kind: u8, part: &[u8], id: &[u8]| crc(0, &[id, &[kind], part]);
    let id = get(bytes, 16, 24)?.to_vec();
    let table = rows.checked_mul(16)?;
    let crc = bound(1, get(bytes, 64, table)?, &id);
    put_u32(bytes, 64 + table, crc);
    let (from, len) = ((64 + table + 4).next_multiple_of(64), rows.checked_mul(row_bytes)?);
    let crc = bound(2, get(bytes, from, len)?, &id);
    put_u32(bytes, from + len, crc);
    Some(())
}

fn cells(bytes: &mut [u8]) -> Option<()> {
    let head = crc(0, &[get(bytes, 0, 60)?]);
    put_u32(bytes, 60, head);
    let [cells, dim, rows, sources] =
        [12, 44, 48, 52].map(|at| u32_at(bytes, at).map(|number| number as usize));
    let (cells, dim, rows) = (cells?, dim?, rows?);
    let id = get(bytes, 16, 24)?.to_vec();
    let bound = |part: u64, body: &[u8]| crc(0, &[&id, &part.to_le_bytes(), body]);
    let counts_at = 64 + sources?.checked_mul(20)?;
    let tables = counts_at + cells.checked_mul(16 + dim)? + rows.checked_mul(4)? + 1024;
    let crc = bound(u64::MAX, get(bytes, 64, tables.checked_sub(64)?)?);
    put_u32(bytes, tables, crc);
    let mut at = tables + 4;
    for cell in 0..cells {
        let rows = u32_at(bytes, counts_at + 4 * cell)? as usize;
        if rows > 0 {
            let len = rows.div_ceil(64).checked_mul(64 * (dim.div_ceil(8) + 1))?;
            let crc = bound(cell as u64, get(bytes, at, len)?);
            put_u32(bytes, at + len, crc);
            at += len + 4;
        }
    }
    Some(())
}

fn columns(bytes: &mut [u8]) -> Option<()> {
    let tail = bytes.len().checked_sub(40)?;
    let (number, blocks) = (u64_at(bytes, tail + 8)?, u32_at(bytes, tail + 32)? as usize);
    for block in 0..blocks {
        let at = block.checked_mul(4096)?;
        let place = [number.to_le_bytes(), (block as u64).to_le_bytes()].concat();
        let crc = crc(0, &[&place, get(bytes, at, 4092)?]);
        put_u32(bytes, at + 4092, crc);
    }
    let index = blocks.checked_mul(4096)?;
    let crc = crc(0, &[bytes.get(index..tail + 36)?]);
    put_u32(bytes, tail + 36, crc);
    Some(())
}

/// The length of the set, and the CRC at the end.
fn hot(bytes: &mut [u8]) -> Option<()> {
    let len = bytes.len().checked_sub(32)?;
    put_u32(bytes, 24, len as u32);
    ending(bytes)
}

fn ending(bytes: &mut [u8]) -> Option<()> {
    let at = bytes.len().checked_sub(4)?;
    let crc = crc(0, &[get(bytes, 0, at)?]);
    put_u32(bytes, at, crc);
    Some(())
}

fn value(bytes: &mut [u8]) -> Option<()> {
    let which = bytes.first()? % 9;
    let len = usize::from(*bytes.get(1)?);
    let table = [1, 6, 7, 8, 9, 3, 4, 5, 2].get(usize::from(which)).copied()?;
    let mut key = get(bytes, 2, len)?.to_vec();
    let start = 2 + len;
    let body = match which {
        0..5 => 8,
        8 => {
            key = key.first_chunk::<8>().copied().unwrap_or(3_u64.to_le_bytes()).to_vec();
            27
        }
        _ => bytes.len().checked_sub(start + 4)?,
    };
    let crc =
        crc(0, &[&[table], &(key.len() as u32).to_le_bytes(), &key, get(bytes, start, body)?]);
    put_u32(bytes, start + body, crc);
    Some(())
}

/// The digits of the CRC, as many as there are: the sum of format and id.
fn store_file(bytes: &mut [u8]) -> Option<()> {
    let text = std::str::from_utf8(bytes).ok()?;
    let quoted = |name: &str| text.split(name).nth(1)?.split('"').nth(1);
    let (format, id) = (quoted("format =")?, quoted("id =")?);
    let crc = crc(0, &[format.as_bytes(), &[0], id.as_bytes(), &[0]]).to_string();
    let at = text.find("crc = ")? + 6;
    let room = text.get(at..)?.bytes().take_while(u8::is_ascii_digit).count();
    if room >= crc.len() {
        bytes.get_mut(at..at + room)?.fill(b' ');
        crate::edits::put(bytes, at, crc.as_bytes());
    }
    Some(())
}
