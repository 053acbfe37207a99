//! Numbers from a seed, and changes of an input that they choose. The same seed makes the same inputs.

/// A stream of numbers from a seed (splitmix64).
pub struct Chance(u64);

impl Chance {
    /// The stream of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// A number below `end`, or 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() as usize).checked_rem(end).unwrap_or(0)
    }

    /// Bytes of any value.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.number().to_le_bytes());
        words.take(len.div_ceil(8)).flatten().take(len).collect()
    }
}

/// A few changes of one input, with pieces of another; for inputs that say what to do, byte by byte.
#[must_use]
pub fn mutated(mut input: Vec<u8>, other: &[u8], chance: &mut Chance) -> Vec<u8> {
    const HOSTILE: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, 0x10, b'{', b'"'];
    for _ in 0..=chance.below(4) {
        let at = chance.below(input.len());
        let Some(byte) = input.get_mut(at) else { return other.to_vec() };
        match chance.below(7) {
            0 => *byte ^= 1 << chance.below(8),
            1 => *byte = HOSTILE.get(chance.below(8)).copied().unwrap_or(0),
            2 => *byte = chance.below(256) as u8,
            3 => input.insert(at, chance.below(256) as u8),
            4 => drop(input.drain(at..(at + 1 + chance.below(4)).min(input.len()))),
            5 => {
                let from = chance.below(other.len());
                let to = (from + 1 + chance.below(24)).min(other.len());
                input.splice(at..at, other.get(from..to).unwrap_or_default().iter().copied());
            }
            _ => input.truncate(at + 1),
        }
    }
    input
}

/// Changes the bytes of a file or a text: flipped bits, numbers that overflow or are one off, pieces of
/// another input, words, cuts. It grows to `len_max` bytes at most.
pub fn damage(
    input: &mut Vec<u8>,
    other: &[u8],
    words: &[&str],
    len_max: usize,
    chance: &mut Chance,
) {
    for _ in 0..=chance.below(4) {
        let at = chance.below(input.len());
        match chance.below(if words.is_empty() { 10 } else { 14 }) {
            0 | 1 => {
                let bit = 1 << chance.below(8);
                input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= bit);
            }
            2 => crate::edits::put(input, at, &chance.number().to_le_bytes()[..1]),
            3 => {
                let width = [1, 2, 4, 8].get(chance.below(4)).copied().unwrap_or(1);
                let len = input.len() as u64;
                let values = [
                    u64::MAX,
                    u64::MAX >> 1,
                    1 << 63,
                    1 << 62,
                    1 << 32,
                    1 << 31,
                    1 << 16,
                    255,
                    1,
                    0,
                    len,
                    len.wrapping_sub(1),
                    len + 1,
                    len - at.min(input.len()) as u64,
                ];
                let value = values.get(chance.below(values.len())).copied().unwrap_or(0);
                crate::edits::put(input, at, value.to_le_bytes().get(..width).unwrap_or_default());
            }
            4 => {
                // One more or less, of a number of four bytes.
                let more = if chance.below(2) == 0 { 1 } else { u32::MAX };
                if let Some(bytes) = input.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
                    let number = u32::from_le_bytes(*bytes).wrapping_add(more);
                    crate::edits::put(input, at, &number.to_le_bytes());
                }
            }
            5 => {
                let from = chance.below(other.len());
                let to = (from + 1 + chance.below(40)).min(other.len());
                crate::edits::put(input, at, other.get(from..to).unwrap_or_default());
            }
            6 => {
                let from = chance.below(other.len());
                let to = (from + 1 + chance.below(40)).min(other.len());
                input.splice(at..at, other.get(from..to).unwrap_or_default().iter().copied());
            }
            7 => {
                let end = (at + 1 + chance.below(16)).min(input.len());
                drop(input.drain(at.min(end)..end));
            }
            8 => {
                let fill = chance.below(256) as u8;
                drop(input.splice(at..at, std::iter::repeat_n(fill, 1 + chance.below(8))));
            }
            9 => {
                if chance.below(4) == 0 {
                    input.truncate(at);
                } else {
                    let end = (at + 1 + chance.below(32)).min(input.len());
                    input.get_mut(at..end).unwrap_or_default().fill(0);
                }
            }
            _ => {
                let word = words.get(chance.below(words.len())).copied().unwrap_or_default();
                if chance.below(2) == 0 {
                    crate::edits::put(input, at, word.as_bytes());
                } else {
                    drop(input.splice(at..at, word.bytes()));
                }
            }
        }
    }
    input.truncate(len_max);
}
