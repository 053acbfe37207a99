//! Numbers, checksums and lengths.
//!
//! The document has few rules for single bytes: numbers are little-endian, reserved bytes are zero,
//! nothing reaches beyond its file, and every checksum is CRC-32 over the bytes and over where they
//! belong. This module knows these rules and no file. A `Cursor` walks over bytes and refuses to run
//! out of them; every checksum of the other modules is computed here.

/// What was read, or what is wrong with it.
pub type Read<T> = Result<T, String>;

/// Fails with the words unless the condition holds.
pub fn hold(condition: bool, otherwise: impl FnOnce() -> String) -> Read<()> {
    if condition { Ok(()) } else { Err(otherwise()) }
}

/// Walks over bytes from the front.
pub struct Cursor<'a> {
    what: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(what: &'a str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    pub fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let bytes = part(self.what, self.bytes, self.at as u64, length as u64)?;
        self.at += length;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub fn u8(&mut self) -> Read<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub fn u16(&mut self) -> Read<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Read<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub fn f32(&mut self) -> Read<f32> {
        Ok(f32::from_le_bytes(self.array()?))
    }

    pub fn text(&mut self, length: usize) -> Read<String> {
        let bytes = self.take(length)?.to_vec();
        String::from_utf8(bytes).map_err(|_| format!("{}: not UTF-8", self.what))
    }

    /// Bytes that the document fixes: a magic, a version, the store's id.
    pub fn expect(&mut self, name: &str, bytes: &[u8]) -> Read<()> {
        let found = self.take(bytes.len())?;
        hold(found == bytes, || format!("{}: {name} is {found:02x?}", self.what))
    }

    /// Reserved bytes.
    pub fn zeros(&mut self, length: usize) -> Read<()> {
        let found = self.take(length)?;
        hold(all_zeros(found), || format!("{}: reserved bytes are not zero", self.what))
    }

    pub fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        rest
    }

    pub fn end(&self) -> Read<()> {
        let left = self.bytes.len() - self.at;
        hold(left == 0, || format!("{}: {left} bytes too many", self.what))
    }
}

/// `length` bytes from `offset`, held against what there is.
pub fn part<'a>(what: &str, bytes: &'a [u8], offset: u64, length: u64) -> Read<&'a [u8]> {
    let end = offset.checked_add(length).filter(|end| *end <= bytes.len() as u64);
    let end = end.ok_or_else(|| format!("{what}: {length} bytes at {offset} are not there"))?;
    Ok(&bytes[offset as usize..end as usize])
}

pub fn all_zeros(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// The number at the end of bytes, and the bytes before it.
pub fn split_crc<'a>(what: &str, bytes: &'a [u8]) -> Read<(&'a [u8], u32)> {
    let (before, crc) = bytes
        .split_last_chunk::<4>()
        .ok_or_else(|| format!("{what}: {} bytes are no checksum", bytes.len()))?;
    Ok((before, u32::from_le_bytes(*crc)))
}

/// CRC-32 over parts, one behind the other.
pub fn crc(parts: &[&[u8]]) -> u32 {
    crc_from(0, parts)
}

/// The same with the CRC of something else as the initial value.
pub fn crc_from(initial: u32, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(initial);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// Compares a stored checksum with the one that was computed.
pub fn same(what: &str, stored: u32, computed: u32) -> Read<()> {
    hold(stored == computed, || format!("{what}: CRC is {stored:08x}, bytes say {computed:08x}"))
}

/// A position in a section of an archive segment, which its checksums cover.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub seed: u32,
    pub kind: u8,
    pub group: u16,
}

impl Place {
    /// The CRC of bytes at an index of this section.
    pub fn crc(&self, index: u64, bytes: &[u8]) -> u32 {
        let (seed, group) = (self.seed.to_le_bytes(), self.group.to_le_bytes());
        crc(&[&seed, &[self.kind], &group, &index.to_le_bytes(), bytes])
    }

    pub fn of(self, kind: u8) -> Self {
        Self { kind, ..self }
    }
}
