//! Reading and writing little-endian bytes, without a way to run past the end.
//!
//! Every decoder of the store is built from [`Reader`]: it borrows the bytes, moves forward only,
//! and answers [`Short`] where an index would panic. A length read from a file goes through
//! [`Reader::bytes`], which compares before it slices, so no number in a file can ask for memory
//! that is not there.
//!
//! [`Put`] is the other direction: it appends to a `Vec` that the caller reuses. Nothing here
//! knows what the bytes mean, computes a checksum, or allocates on behalf of a number it read.

use std::fmt;

/// The bytes ended before the value did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// Where the value starts, from the first byte the reader was given.
    pub at: usize,
    /// Bytes the value needs.
    pub wanted: usize,
    /// Bytes that are left there.
    pub left: usize,
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "bytes end too early: {} wanted at byte {}, {} left",
            self.wanted, self.at, self.left
        )
    }
}

impl std::error::Error for Short {}

/// Text that a [`Reader`] could not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadText {
    /// It ends too early.
    Short(Short),
    /// It is there and is not UTF-8; the number is where it starts.
    NotUtf8(usize),
}

impl fmt::Display for BadText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadText::Short(short) => short.fmt(f),
            BadText::NotUtf8(at) => write!(f, "text at byte {at} is not UTF-8"),
        }
    }
}

impl std::error::Error for BadText {}

impl From<Short> for BadText {
    fn from(short: Short) -> BadText {
        BadText::Short(short)
    }
}

/// Reads values one after the other out of borrowed bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// How many bytes were read so far.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Whether everything was read. Decoders check it at their end: bytes too many are as wrong as
    /// bytes too few.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left() == 0
    }

    /// The next `len` bytes, borrowed.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Short> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match rest.get(..len) {
            Some(bytes) => {
                self.at += len;
                Ok(bytes)
            }
            None => Err(Short { at: self.at, wanted: len, left: rest.len() }),
        }
    }

    /// The next `N` bytes, copied.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match rest.first_chunk::<N>() {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => Err(Short { at: self.at, wanted: N, left: rest.len() }),
        }
    }

    /// Passes over `len` bytes.
    pub fn skip(&mut self, len: usize) -> Result<(), Short> {
        self.bytes(len).map(|_| ())
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Short> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, Short> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Short> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Short> {
        self.array().map(u64::from_le_bytes)
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self) -> Result<i64, Short> {
        self.array().map(i64::from_le_bytes)
    }

    /// Four bytes as a float, any bit pattern.
    pub fn f32(&mut self) -> Result<f32, Short> {
        self.array().map(f32::from_le_bytes)
    }

    /// The next `len` bytes as text.
    pub fn str(&mut self, len: usize) -> Result<&'a str, BadText> {
        let at = self.at;
        let bytes = self.bytes(len)?;
        std::str::from_utf8(bytes).map_err(|_| BadText::NotUtf8(at))
    }
}

/// Appends little-endian values to bytes that the caller owns and reuses.
pub trait Put {
    /// One byte.
    fn put_u8(&mut self, value: u8);
    /// Two bytes.
    fn put_u16(&mut self, value: u16);
    /// Four bytes.
    fn put_u32(&mut self, value: u32);
    /// Eight bytes.
    fn put_u64(&mut self, value: u64);
    /// Eight bytes, signed.
    fn put_i64(&mut self, value: i64);
    /// Four bytes, the float's bit pattern.
    fn put_f32(&mut self, value: f32);
    /// Bytes as they are, without a length.
    fn put_bytes(&mut self, bytes: &[u8]);
    /// Overwrites four bytes written earlier: tests make damaged bytes verify with it.
    #[cfg(test)]
    fn set_u32(&mut self, at: usize, value: u32);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_f32(&mut self, value: f32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[cfg(test)]
    fn set_u32(&mut self, at: usize, value: u32) {
        let place = self.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>());
        debug_assert!(place.is_some(), "set_u32 at {at} outside what was written");
        if let Some(place) = place {
            *place = value.to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_in_order() {
        let mut out = Vec::new();
        out.put_u8(1);
        out.put_u16(0x0203);
        out.put_u32(0);
        out.put_u64(u64::MAX - 1);
        out.put_i64(-7);
        out.put_f32(-0.5);
        out.put_bytes("gru\u{df}".as_bytes());
        out.set_u32(3, 0x0405_0607);
        assert_eq!(&out[..7], &[1, 3, 2, 7, 6, 5, 4]);

        let mut reader = Reader::new(&out);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(0x0203));
        assert_eq!(reader.u32(), Ok(0x0405_0607));
        assert_eq!(reader.u64(), Ok(u64::MAX - 1));
        assert_eq!(reader.i64(), Ok(-7));
        assert_eq!(reader.f32(), Ok(-0.5));
        assert_eq!(reader.str(5), Ok("gru\u{df}"));
        assert!(reader.is_empty());
    }

    #[test]
    fn a_short_read_says_where_and_takes_nothing() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u16(), Ok(0x0201));
        assert_eq!(reader.u32(), Err(Short { at: 2, wanted: 4, left: 1 }));
        assert_eq!(reader.bytes(usize::MAX), Err(Short { at: 2, wanted: usize::MAX, left: 1 }));
        assert_eq!(reader.position(), 2);
        assert_eq!(reader.u8(), Ok(3));
        assert_eq!(reader.skip(1), Err(Short { at: 3, wanted: 1, left: 0 }));
    }

    #[test]
    fn text_must_be_utf8() {
        let mut reader = Reader::new(&[b'a', 0xff]);
        assert_eq!(reader.str(2), Err(BadText::NotUtf8(0)));
        assert_eq!(
            Reader::new(b"a").str(2),
            Err(BadText::Short(Short { at: 0, wanted: 2, left: 1 }))
        );
    }
}
