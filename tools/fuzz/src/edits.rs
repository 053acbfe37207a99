//! Fuzz bytes as numbers, and as changes to a file.
//!
//! [`Input`] takes numbers from the front of the bytes; when they run out it answers zeros, so that
//! every input means something. [`apply`] takes changes until the input ends: few, and each small or a
//! move of a block, so that a mutation of the input stays a mutation of the file.

/// Changes that one input may make at most.
const EDITS_MAX: usize = 64;

/// The fuzz bytes that are left.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next bytes; fewer when the input ends.
    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        head
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn number(&mut self, bytes: usize) -> u64 {
        let mut wide = [0; 8];
        for (to, from) in wide.iter_mut().zip(self.bytes(bytes)) {
            *to = *from;
        }
        u64::from_le_bytes(wide)
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.number(1) as u8
    }

    /// A number below `end`, or 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let bytes = if end > 1 << 16 { 4 } else { 2 };
        (self.number(bytes) as usize).checked_rem(end).unwrap_or(0)
    }
}

/// Changes a file as the input says, at places of `window` (all of the file when it is empty).
pub(crate) fn apply(file: &mut Vec<u8>, window: std::ops::Range<usize>, input: &mut Input<'_>) {
    for _ in 0..EDITS_MAX {
        if input.is_empty() || file.is_empty() {
            return;
        }
        let kind = input.u8();
        let end = if window.end > window.start { window.end.min(file.len()) } else { file.len() };
        let at = window.start + input.below(end.saturating_sub(window.start));
        match kind % 8 {
            0 => put(file, at, &[input.u8()]),
            1 => {
                let bit = 1 << (input.u8() % 8);
                if let Some(byte) = file.get_mut(at) {
                    *byte ^= bit;
                }
            }
            2 => put(file, at, input.bytes(4)),
            3 => put(file, at, input.bytes(8)),
            // The numbers that overflow.
            4 => {
                let values = [u64::MAX, 1 << 63, 1 << 32, (1 << 32) - 1, 1 << 31, 0, 1, 1 << 16];
                let value = values.get(usize::from(input.u8() % 8)).copied().unwrap_or(0);
                let len = if input.u8().is_multiple_of(2) { 4 } else { 8 };
                put(file, at, value.to_le_bytes().get(..len).unwrap_or_default());
            }
            5 => {
                let len = usize::from(input.u8());
                let from = input.below(file.len());
                let piece = file.iter().skip(from).take(len).copied().collect::<Vec<u8>>();
                put(file, at, &piece);
            }
            6 => {
                let len = usize::from(input.u8());
                put(file, at, input.bytes(len));
            }
            _ => {
                // Cut out, or make room for zeros.
                let len = usize::from(input.u8());
                let end = at.saturating_add(len).min(file.len());
                match input.u8() % 4 {
                    0 => drop(file.drain(at..end)),
                    1 => file.truncate(at),
                    _ => drop(file.splice(at..at, vec![0; len])),
                }
            }
        }
    }
}

/// Overwrites what the file has of these bytes.
pub(crate) fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in file.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}
