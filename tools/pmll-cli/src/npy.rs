//! Vectors in `.npy` files, row by row.
//!
//! The header is parsed by `npyz`; the rows are read here, one `read` of one row at a time through
//! a buffer, so that a file of any length takes the memory of one row. [`NpyReader::row`] goes to
//! any row; rows in order cost no seek. [`NpyWriter`] writes the header first with an empty shape and
//! puts the true shape in its place at the end, so that the number of rows need not be known.
//!
//! Taken: one or two axes, C order, `f2 f4 f8` for vectors and `i4 i8 u4 u8` for row numbers, little
//! or big endian. Never: pickled objects, structured types, Fortran order of two axes.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::f16;
use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};

use crate::fault::{Fault, Result};

/// Bytes of the header this writer makes: version 1.0, padded so that the data starts aligned.
const HEADER_BYTES: usize = 128;
/// Longest header text that is read.
const HEADER_TEXT_BYTES_MAX: usize = 64 << 10;
/// Most values of one row: above any vector a store takes.
const ROW_VALUES_MAX: u64 = 1 << 20;

/// Type of one value in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IEEE half, 2 bytes.
    F16,
    /// IEEE single, 4 bytes.
    F32,
    /// IEEE double, 8 bytes.
    F64,
    /// Signed, 4 or 8 bytes.
    Int(usize),
    /// Unsigned, 4 or 8 bytes.
    Uint(usize),
}

impl Kind {
    fn bytes(self) -> usize {
        match self {
            Kind::F16 => 2,
            Kind::F32 => 4,
            Kind::F64 => 8,
            Kind::Int(n) | Kind::Uint(n) => n,
        }
    }
}

/// Reads the rows of one `.npy` file.
#[derive(Debug)]
pub struct NpyReader {
    path: PathBuf,
    file: BufReader<File>,
    kind: Kind,
    big_endian: bool,
    rows: u64,
    dim: usize,
    data_start: u64,
    /// The row the file position stands at.
    next: u64,
    bytes: Vec<u8>,
}

impl NpyReader {
    /// Opens a file and checks that its length fits its header. A one-dimensional array is one row.
    pub fn open(path: &Path) -> Result<NpyReader> {
        let file = File::open(path).map_err(|e| Fault::io("open", path, e))?;
        let len = file.metadata().map_err(|e| Fault::io("read", path, e))?.len();
        let mut file = BufReader::with_capacity(64 << 10, file);
        let wrong = |what: String| Fault::invalid(format!("{}: {what}", path.display()));
        let head =
            read_header(&mut file).map_err(|e| wrong(format!("this is not an .npy file: {e}")))?;
        let header = NpyHeader::from_reader(&mut head.as_slice())
            .map_err(|e| wrong(format!("this is not an .npy file: {e}")))?;
        let data_start = head.len() as u64;

        let DType::Plain(ty) = header.dtype() else {
            return Err(wrong("structured types cannot be read as vectors".into()));
        };
        let kind = match (ty.type_char(), ty.size_field()) {
            (TypeChar::Float, 2) => Kind::F16,
            (TypeChar::Float, 4) => Kind::F32,
            (TypeChar::Float, 8) => Kind::F64,
            (TypeChar::Int, n @ (4 | 8)) => Kind::Int(n as usize),
            (TypeChar::Uint, n @ (4 | 8)) => Kind::Uint(n as usize),
            _ => {
                return Err(wrong(format!("values of type {ty}; save them as f4 or f2")));
            }
        };
        let (rows, dim) = match *header.shape() {
            [dim] => (u64::from(dim > 0), dim),
            [rows, dim] => (rows, dim),
            ref shape => {
                return Err(wrong(format!("{} axes; it takes rows x values", shape.len())));
            }
        };
        if header.order() == Order::Fortran && header.shape().len() > 1 {
            return Err(wrong("Fortran order; save it with numpy.ascontiguousarray".into()));
        }
        if dim > ROW_VALUES_MAX {
            return Err(wrong(format!("rows of {dim} values; the limit is {ROW_VALUES_MAX}")));
        }
        let data = rows.checked_mul(dim).and_then(|n| n.checked_mul(kind.bytes() as u64));
        match data.and_then(|d| d.checked_add(data_start)) {
            Some(need) if need <= len => {}
            _ => {
                return Err(wrong(format!(
                    "the header promises {rows} rows of {dim} values, but the file has only {} \
                     bytes of data",
                    len.saturating_sub(data_start)
                )));
            }
        }
        let dim = dim as usize;
        Ok(NpyReader {
            path: path.to_owned(),
            file,
            kind,
            big_endian: ty.endianness() == Endianness::Big,
            rows,
            dim,
            data_start,
            next: 0,
            bytes: vec![0; dim * kind.bytes()],
        })
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Values in a row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Type of the values.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The file, as it was named.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One row of a float file as f32. Doubles are rounded.
    pub fn row(&mut self, row: u64) -> Result<Vec<f32>> {
        let kind = self.kind;
        if !matches!(kind, Kind::F16 | Kind::F32 | Kind::F64) {
            return Err(Fault::invalid(format!(
                "{} holds whole numbers, not vectors",
                self.path.display()
            )));
        }
        self.read(row)?;
        let values = self.bytes.chunks_exact(kind.bytes()).map(|b| match kind {
            Kind::F16 => f16::from_le_bytes(fixed(b)).to_f32(),
            Kind::F64 => f64::from_le_bytes(fixed(b)) as f32,
            _ => f32::from_le_bytes(fixed(b)),
        });
        Ok(values.collect())
    }

    /// One row of a file of whole numbers, such as row numbers of true neighbours.
    pub fn numbers(&mut self, row: u64) -> Result<Vec<i64>> {
        let kind = self.kind;
        if !matches!(kind, Kind::Int(_) | Kind::Uint(_)) {
            return Err(Fault::invalid(format!(
                "{} holds fractions, not whole numbers",
                self.path.display()
            )));
        }
        self.read(row)?;
        let values = self.bytes.chunks_exact(kind.bytes()).map(|b| match kind {
            Kind::Int(4) => i64::from(i32::from_le_bytes(fixed(b))),
            Kind::Uint(4) => i64::from(u32::from_le_bytes(fixed(b))),
            Kind::Uint(_) => i64::try_from(u64::from_le_bytes(fixed(b))).unwrap_or(i64::MAX),
            _ => i64::from_le_bytes(fixed(b)),
        });
        Ok(values.collect())
    }

    /// Brings the bytes of a row into `self.bytes`, each value little-endian.
    fn read(&mut self, row: u64) -> Result<()> {
        if row >= self.rows {
            return Err(Fault::invalid(format!(
                "{} has {} rows, numbered from 0; there is no row {row}",
                self.path.display(),
                self.rows
            )));
        }
        let width = self.bytes.len() as u64;
        if row != self.next {
            // Both factors were checked against the length of the file when it was opened.
            self.file
                .seek(SeekFrom::Start(self.data_start + row * width))
                .map_err(|e| Fault::io("read", &self.path, e))?;
        }
        self.file.read_exact(&mut self.bytes).map_err(|e| Fault::io("read", &self.path, e))?;
        self.next = row + 1;
        if self.big_endian {
            for value in self.bytes.chunks_exact_mut(self.kind.bytes()) {
                value.reverse();
            }
        }
        Ok(())
    }
}

/// The bytes before the data. Their shape is looked at here first: npyz multiplies its numbers
/// without asking whether they fit.
fn read_header(file: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let wrong = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let mut head = vec![0; 10];
    file.read_exact(&mut head)?;
    let len = match *head.as_slice() {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b] => usize::from(u16::from_le_bytes([a, b])),
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b] => {
            let mut high = [0; 2];
            file.read_exact(&mut high)?;
            head.extend_from_slice(&high);
            u32::from_le_bytes([a, b, high[0], high[1]]) as usize
        }
        _ => return Err(wrong("its first bytes are others")),
    };
    if len > HEADER_TEXT_BYTES_MAX {
        return Err(wrong("its header is too long"));
    }
    let start = head.len();
    head.resize(start + len, 0);
    let text = &mut head[start..];
    file.read_exact(text)?;
    let mut values = 1u64;
    let digits = text.split(|b| !b.is_ascii_digit()).filter(|d| !d.is_empty());
    for number in digits.map(|d| String::from_utf8_lossy(d).parse::<u64>()) {
        values = number
            .ok()
            .and_then(|n| values.checked_mul(n.max(1)))
            .filter(|v| *v < 1 << 62)
            .ok_or_else(|| wrong("its numbers are too large"))?;
    }
    Ok(head)
}

/// `N` bytes of a slice that has as many; `chunks_exact` sees to it.
fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

/// Writes an `.npy` file of unknown length, f32 or f16.
#[derive(Debug)]
pub struct NpyWriter {
    path: PathBuf,
    file: BufWriter<File>,
    half: bool,
    dim: usize,
    rows: u64,
}

impl NpyWriter {
    /// Creates or replaces the file. `half` writes f16, to which the values are rounded.
    pub fn create(path: &Path, dim: usize, half: bool) -> Result<NpyWriter> {
        let file = File::create(path).map_err(|e| Fault::io("create", path, e))?;
        let mut file = BufWriter::with_capacity(64 << 10, file);
        file.write_all(&header(0, dim, half)).map_err(|e| Fault::io("write", path, e))?;
        Ok(NpyWriter { path: path.to_owned(), file, half, dim, rows: 0 })
    }

    /// Number of rows written.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Appends one row; every row has the length given at the start.
    pub fn push(&mut self, row: &[f32]) -> Result<()> {
        if row.len() != self.dim {
            return Err(Fault::invalid(format!(
                "a vector has {} values where {} has {}",
                row.len(),
                self.path.display(),
                self.dim
            )));
        }
        for value in row {
            let written = if self.half {
                self.file.write_all(&f16::from_f32(*value).to_le_bytes())
            } else {
                self.file.write_all(&value.to_le_bytes())
            };
            written.map_err(|e| Fault::io("write", &self.path, e))?;
        }
        self.rows += 1;
        Ok(())
    }

    /// Puts the final shape into the header and syncs the file.
    pub fn finish(mut self) -> Result<()> {
        let done = (|| {
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&header(self.rows, self.dim, self.half))?;
            self.file.flush()?;
            self.file.get_ref().sync_all()
        })();
        done.map_err(|e| Fault::io("write", &self.path, e))
    }
}

/// The fixed-length header. The longest text of it, with two 20-digit numbers, takes 114 bytes.
fn header(rows: u64, dim: usize, half: bool) -> Vec<u8> {
    let descr = if half { "<f2" } else { "<f4" };
    let text =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(HEADER_BYTES as u16 - 10).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.resize(HEADER_BYTES - 1, b' ');
    bytes.push(b'\n');
    bytes
}

/// Splits `F.npy:ROW` into file and row. A name without `:ROW` has no row.
#[must_use]
pub fn split_row(text: &str) -> (&str, Option<u64>) {
    match text.rsplit_once(':') {
        Some((file, row)) if !row.is_empty() && row.bytes().all(|b| b.is_ascii_digit()) => {
            match row.parse() {
                Ok(row) => (file, Some(row)),
                Err(_) => (text, None),
            }
        }
        _ => (text, None),
    }
}

/// One vector as an argument names it: a JSON array, `F.npy:ROW`, or a file of one row.
pub fn vector_argument(text: &str) -> Result<Vec<f32>> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text)
            .map_err(|e| Fault::invalid(format!("the vector is not an array of numbers: {e}")));
    }
    let (file, row) = split_row(text);
    let mut reader = NpyReader::open(Path::new(file))?;
    match row {
        Some(row) => reader.row(row),
        None if reader.rows() == 1 => reader.row(0),
        None => Err(Fault::invalid(format!(
            "{file} has {} rows; name one of them like {file}:0",
            reader.rows()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let mut text =
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        while (text.len() + 11) % 64 != 0 {
            text.push(' ');
        }
        text.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    #[test]
    fn writes_what_it_reads() {
        for half in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("v.npy");
            let rows: Vec<Vec<f32>> =
                (0..70).map(|r| (0..5).map(|c| (r * 5 + c) as f32 * 0.25).collect()).collect();
            let mut writer = NpyWriter::create(&path, 5, half).unwrap();
            rows.iter().for_each(|r| writer.push(r).unwrap());
            assert!(writer.push(&[1.0]).is_err());
            writer.finish().unwrap();

            let mut reader = NpyReader::open(&path).unwrap();
            assert_eq!((reader.rows(), reader.dim()), (70, 5));
            assert_eq!(reader.kind(), if half { Kind::F16 } else { Kind::F32 });
            for (at, row) in rows.iter().enumerate() {
                assert_eq!(&reader.row(at as u64).unwrap(), row);
            }
            assert_eq!(reader.row(3).unwrap(), rows[3]);
            assert_eq!(reader.row(69).unwrap(), rows[69]);
            assert!(reader.row(70).is_err());
        }
    }

    #[test]
    fn an_empty_file_keeps_its_width() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.npy");
        NpyWriter::create(&path, 7, false).unwrap().finish().unwrap();
        let reader = NpyReader::open(&path).unwrap();
        assert_eq!((reader.rows(), reader.dim()), (0, 7));
    }

    #[test]
    fn the_longest_header_fits() {
        assert_eq!(header(u64::MAX, usize::MAX, true).len(), HEADER_BYTES);
    }

    #[test]
    fn both_byte_orders_and_all_types() {
        let check = |descr: &str, data: &[u8]| {
            let (_dir, path) = file("x.npy", &npy(descr, "(1, 2)", data));
            NpyReader::open(&path).unwrap().row(0).unwrap()
        };
        let little: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let big: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|v| v.to_be_bytes()).collect();
        let double: Vec<u8> = [1.5f64, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        for (descr, data) in [("<f4", &little), (">f4", &big), ("<f8", &double)] {
            assert_eq!(check(descr, data), [1.5, -2.0], "{descr}");
        }
        let (_dir, path) = file("t.npy", &npy("<i4", "(1, 2)", &[1, 0, 0, 0, 255, 255, 255, 255]));
        let mut reader = NpyReader::open(&path).unwrap();
        assert_eq!(reader.numbers(0).unwrap(), [1, -1]);
        assert!(reader.row(0).is_err());
    }

    #[test]
    fn wrong_files_are_named() {
        for (bytes, word) in [
            (b"hello".to_vec(), "not an .npy file"),
            (npy("<f4", "(3, 2)", &[0; 8]), "promises 3 rows"),
            (npy("<f4", "(1, 2, 3)", &[0; 24]), "3 axes"),
            (npy("<f4", "(9223372036854775807, 1000)", &[]), "too large"),
            (npy("<f4", "(1000000000, 1000)", &[]), "promises"),
            (npy("|b1", "(1, 2)", &[0; 2]), "f4 or f2"),
        ] {
            let (_dir, path) = file("bad.npy", &bytes);
            let error = NpyReader::open(&path).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("bad.npy"), "{error}");
        }
    }

    #[test]
    fn damaged_headers_never_panic() {
        let whole = npy("<f4", "(2, 3)", &[0; 24]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        for at in 0..whole.len().min(80) {
            for bits in [1u8, 4, 16, 64, 255] {
                let mut bytes = whole.clone();
                bytes[at] ^= bits;
                std::fs::write(&path, &bytes).unwrap();
                if let Ok(mut reader) = NpyReader::open(&path) {
                    let _ = reader.row(0);
                }
            }
        }
    }

    #[test]
    fn arguments() {
        assert_eq!(split_row("a/b.npy:12"), ("a/b.npy", Some(12)));
        assert_eq!(split_row("c:b.npy"), ("c:b.npy", None));
        assert_eq!(split_row("b.npy"), ("b.npy", None));
        assert_eq!(vector_argument("[1, 2.5]").unwrap(), [1.0, 2.5]);
        assert!(vector_argument("[1, \"x\"]").is_err());
        let (_dir, path) = file("one.npy", &npy("<f4", "(1,)", &1.0f32.to_le_bytes()));
        assert_eq!(vector_argument(path.to_str().unwrap()).unwrap(), [1.0]);
    }
}
