//! Entries in text files, one a line: `.jsonl` (an object a line) or `.txt` (a payload a line),
//! plain or packed with zstd (`.zst`).
//!
//! One line is in memory at a time, and a line has a limit, so a broken file cannot fill it. Empty
//! lines of a `.jsonl` file are skipped and take no row; every line of a `.txt` file is a row.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::fault::{Fault, Result};

/// Longest line: the largest payload (16 MiB) with every byte escaped as `\u00NN`, and some more.
pub const LINE_BYTES_MAX: u64 = 104 << 20;

/// What one line means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Jsonl,
    /// The line is the payload.
    Text,
}

/// One line of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// An object of a `.jsonl` file, fields in their order.
    Object(Map<String, Value>),
    /// The bytes of a line of a `.txt` file, without its end.
    Text(Vec<u8>),
}

/// Reads a file line by line.
pub struct Lines {
    path: PathBuf,
    format: Format,
    reader: Box<dyn BufRead + Send>,
    number: u64,
    row: u64,
    buffer: Vec<u8>,
}

impl Lines {
    /// Opens a file; its name says what it is: `.txt` is text, everything else JSON lines, and a
    /// further `.zst` is unpacked on the way.
    pub fn open(path: &Path) -> Result<Lines> {
        let file = File::open(path).map_err(|e| Fault::io("open", path, e))?;
        let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
        let (inner, packed) = match name.strip_suffix(".zst") {
            Some(inner) => (inner, true),
            None => (name.as_str(), false),
        };
        let format = if inner.ends_with(".txt") { Format::Text } else { Format::Jsonl };
        let reader: Box<dyn BufRead + Send> = if packed {
            let decoder =
                zstd::stream::read::Decoder::new(file).map_err(|e| Fault::io("read", path, e))?;
            Box::new(BufReader::with_capacity(64 << 10, decoder))
        } else {
            Box::new(BufReader::with_capacity(64 << 10, file))
        };
        Ok(Lines { path: path.to_owned(), format, reader, number: 0, row: 0, buffer: Vec::new() })
    }

    /// What a line of this file means.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Number of the line read last, counted from 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Number of rows read so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.row
    }

    /// A fault that names the file and the line read last.
    #[must_use]
    pub fn wrong(&self, what: impl std::fmt::Display) -> Fault {
        Fault::invalid(format!("{}, line {}: {what}", self.path.display(), self.number))
    }

    /// The next row and its number, counted from 0; `None` at the end of the file.
    pub fn next_row(&mut self) -> Result<Option<(u64, Line)>> {
        while self.read_line()? {
            let line = match self.format {
                Format::Text => Line::Text(self.buffer.clone()),
                Format::Jsonl if self.buffer.iter().all(u8::is_ascii_whitespace) => continue,
                Format::Jsonl => match serde_json::from_slice(&self.buffer) {
                    Ok(Value::Object(object)) => Line::Object(object),
                    Ok(_) => return Err(self.wrong("this is not a JSON object")),
                    Err(e) => return Err(self.wrong(format_args!("this is not JSON: {e}"))),
                },
            };
            // One huge line must not hold its memory for the rest of the file.
            self.buffer.shrink_to(1 << 20);
            let row = self.row;
            self.row += 1;
            return Ok(Some((row, line)));
        }
        Ok(None)
    }

    /// Fills the buffer with the next line without its end; false at the end of the file.
    fn read_line(&mut self) -> Result<bool> {
        self.buffer.clear();
        let read = (&mut self.reader)
            .take(LINE_BYTES_MAX + 1)
            .read_until(b'\n', &mut self.buffer)
            .map_err(|e| Fault::io("read", &self.path, e))?;
        if read == 0 {
            return Ok(false);
        }
        self.number += 1;
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
            if self.buffer.last() == Some(&b'\r') {
                self.buffer.pop();
            }
        }
        if self.buffer.len() as u64 > LINE_BYTES_MAX {
            return Err(self.wrong(format_args!("longer than {LINE_BYTES_MAX} bytes")));
        }
        Ok(true)
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("path", &self.path).field("number", &self.number).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(name: &str, bytes: &[u8]) -> Result<Vec<(u64, Line)>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let mut lines = Lines::open(&path)?;
        let mut out = Vec::new();
        while let Some(row) = lines.next_row()? {
            out.push(row);
        }
        Ok(out)
    }

    #[test]
    fn text_lines_are_rows() {
        let text = b"one\n\nthree\r\nlast";
        let packed = zstd::encode_all(&text[..], 3).unwrap();
        for (name, bytes) in [("a.txt", &text[..]), ("a.txt.zst", &packed[..])] {
            let got = rows(name, bytes).unwrap();
            let want = ["one", "", "three", "last"];
            assert_eq!(got.len(), 4, "{name}");
            for (at, (row, line)) in got.iter().enumerate() {
                assert_eq!(*row, at as u64);
                assert_eq!(*line, Line::Text(want[at].into()));
            }
        }
    }

    #[test]
    fn objects_keep_their_order_and_empty_lines_take_no_row() {
        let got = rows("a.jsonl", b"{\"z\":1,\"a\":2}\n\n{\"b\":1.0}\n").unwrap();
        assert_eq!(got.len(), 2);
        let Line::Object(first) = &got[0].1 else { panic!("an object") };
        assert_eq!(first.keys().collect::<Vec<_>>(), ["z", "a"]);
        assert_eq!(got[1].0, 1);
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (bytes, word) in [
            (&b"{}\n[1]\n"[..], "line 2: this is not a JSON object"),
            (b"{}\n\n{\n", "line 3: this is not JSON"),
            (b"{\"a\":\"\xff\"}\n", "line 1: this is not JSON"),
        ] {
            let error = rows("a.jsonl", bytes).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(rows("a.jsonl.zst", b"not packed").is_err());
    }
}
