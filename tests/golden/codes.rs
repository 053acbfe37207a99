//! Vectors in short: packed rows of codes, and sketches.
//!
//! Both are made from the exact vectors and stand beside them, so each is held here against what the
//! document says it is made of: a code lies within half a step of its value, a 4-bit row follows from
//! the 8-bit one, a sign of a sketch says on which side of the mean a value lies.

use super::archive::Group;
use super::bytes::{Cursor, Place, Read, hold, same, split_crc};
use super::operations::Metric;

/// Vectors in a chunk of sketches, and in a block of one.
const CHUNK: usize = 1024;
const BLOCK: usize = 64;

#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    pub norm: f32,
    pub min: f32,
    pub step: f32,
    pub codes: Vec<u8>,
}

impl Packed {
    /// Reads one row of `dim` codes of 8 or 4 bits.
    pub fn read(what: &str, bytes: &[u8], dim: usize, bits: u8) -> Read<Self> {
        let mut cursor = Cursor::new(what, bytes);
        let (norm, min, step) = (cursor.f32()?, cursor.f32()?, cursor.f32()?);
        hold(bits == 4 || step.to_bits() & 31 == 0, || format!("{what}: step {step:e}"))?;
        let codes = if bits == 8 {
            cursor.take(dim)?.to_vec()
        } else {
            let bytes = cursor.take(dim.div_ceil(2))?;
            let mut codes: Vec<u8> = bytes.iter().flat_map(|two| [two & 15, two >> 4]).collect();
            let odd = codes.split_off(dim);
            hold(odd.iter().all(|half| *half == 0), || format!("{what}: last half {odd:?}"))?;
            codes
        };
        cursor.end()?;
        Ok(Self { norm, min, step, codes })
    }

    pub fn values(&self) -> Vec<f64> {
        let (min, step) = (f64::from(self.min), f64::from(self.step));
        self.codes.iter().map(|code| min + step * f64::from(*code)).collect()
    }

    /// The 4-bit row that is made of this 8-bit one; its norm is that of what it decodes to.
    pub fn narrowed(&self) -> Self {
        let codes = self.codes.iter().map(|code| ((u16::from(*code) + 8) / 17) as u8).collect();
        let mut narrow = Self { norm: 0.0, min: self.min, step: 17.0 * self.step, codes };
        narrow.norm = length(narrow.values()) as f32;
        narrow
    }

    /// Equal in everything but the last bits of the norm, whose sum has no order of its own.
    pub fn agrees(&self, other: &Self) -> bool {
        near(f64::from(self.norm), f64::from(other.norm))
            && Self { norm: 0.0, ..self.clone() } == Self { norm: 0.0, ..other.clone() }
    }

    fn check(&self, what: &str, vector: &[f32]) -> Read<()> {
        let (values, step) = (self.values(), f64::from(self.step));
        for (value, decoded) in vector.iter().zip(&values) {
            let off = (f64::from(*value) - decoded).abs();
            let most = step / 2.0 + 1e-6 * f64::from(value.abs());
            hold(off <= most, || format!("{what}: {value} became {decoded}, step {step}"))?;
        }
        let norm = length(values);
        hold(near(norm, f64::from(self.norm)), || format!("{what}: norm {}, not {norm}", self.norm))
    }
}

pub fn length(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().map(|value| value * value).sum::<f64>().sqrt()
}

pub fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-5 * a.abs().max(b.abs())
}

/// The packed rows of an archive group, each followed by its CRC.
pub fn packed_rows(bytes: &[u8], dim: usize, count: usize, place: Place) -> Read<Vec<Packed>> {
    let mut cursor = Cursor::new("codes", bytes);
    let rows = (0..count as u64).map(|index| {
        let what = format!("codes of row {index}");
        let (row, row_crc) = split_crc(&what, cursor.take(12 + dim + 4)?)?;
        same(&what, row_crc, place.crc(index, row))?;
        Packed::read(&what, row, dim, 8)
    });
    let rows = rows.collect();
    cursor.end()?;
    rows
}

/// Codes, norms and sketches of a group against its vectors.
pub fn check(group: &Group, metric: Metric) -> Read<()> {
    let vectors: Vec<&[f32]> =
        group.rows.iter().map_while(|row| row.entry.vector.as_deref()).collect();
    for (index, (vector, codes)) in vectors.iter().zip(&group.codes).enumerate() {
        let what = format!("row {index} of collection {}", group.collection);
        codes.check(&what, vector)?;
        let (norm, stored) = (length(wide(vector)), f64::from(group.rows[index].norm));
        hold(near(norm, stored), || format!("{what}: norm {stored}, not {norm}"))?;
    }
    if vectors.is_empty() {
        return hold(group.sketches.is_empty(), || "sketches of no vectors".to_owned());
    }
    sketches(group, metric, &vectors)
}

fn wide(vector: &[f32]) -> impl Iterator<Item = f64> + '_ {
    vector.iter().map(|value| f64::from(*value))
}

fn sketches(group: &Group, metric: Metric, vectors: &[&[f32]]) -> Read<()> {
    let what = format!("sketches of collection {}", group.collection);
    let mut cursor = Cursor::new(&what, &group.sketches);
    let mean = cursor.take(group.dim * 4)?;
    same(&what, cursor.u32()?, group.place.crc(u64::MAX, mean))?;
    let mean = super::operations::vector(mean, false);
    let signs = group.dim.div_ceil(8);
    let norms = metric != Metric::Cosine;
    let size = BLOCK * (signs + 1 + if norms { 4 } else { 0 });
    for (index, chunk) in vectors.chunks(CHUNK).enumerate() {
        let blocks = cursor.take(size * chunk.len().div_ceil(BLOCK))?;
        same(&what, cursor.u32()?, group.place.crc(index as u64, blocks))?;
        for (block, bytes) in blocks.chunks(size).enumerate() {
            let in_block = &chunk[block * BLOCK..chunk.len().min((block + 1) * BLOCK)];
            for place in 0..BLOCK {
                let column: Vec<u8> = (0..=signs).map(|j| bytes[BLOCK * j + place]).collect();
                let norm = if norms {
                    let at = BLOCK * (signs + 1) + 4 * place;
                    Cursor::new(&what, &bytes[at..at + 4]).f32()?
                } else {
                    0.0
                };
                let Some(vector) = in_block.get(place) else {
                    let empty = column.iter().all(|byte| *byte == 0) && norm == 0.0;
                    hold(empty, || format!("{what}: a sketch of no vector"))?;
                    continue;
                };
                let what = format!("{what}, {place} of block {block}");
                sketch(&what, &column, vector, &mean)?;
                let length = length(wide(vector));
                let same = !norms || near(length, f64::from(norm));
                hold(same, || format!("{what}: norm {norm}, not {length}"))?;
            }
        }
    }
    cursor.end()
}

/// Signs and factor of one vector. One of zeros stays as it is when it is scaled.
fn sketch(what: &str, column: &[u8], vector: &[f32], mean: &[f32]) -> Read<()> {
    let (factor, signs) = column.split_last().ok_or("no sketch")?;
    let norm = length(wide(vector));
    let scale = if norm == 0.0 { 0.0 } else { 1.0 / norm };
    let apart: Vec<f64> = wide(vector).zip(wide(mean)).map(|(v, mean)| v * scale - mean).collect();
    for (i, apart) in apart.iter().enumerate() {
        let set = signs[i / 8] >> (i % 8) & 1 == 1;
        // So near to the mean either sign may have come out.
        let either = apart.abs() < 1e-6;
        hold(either || set == (*apart >= 0.0), || format!("{what}: sign {i}, {apart}"))?;
    }
    let behind = signs.iter().flat_map(|byte| (0..8).map(move |i| byte >> i & 1));
    let behind = behind.skip(vector.len()).any(|bit| bit == 1);
    hold(!behind, || format!("{what}: signs of no value"))?;
    if norm == 0.0 {
        return hold(*factor == 0, || format!("{what}: factor {factor} of zeros"));
    }
    // Exactly on the mean: the least there is.
    let sum: f64 = apart.iter().map(|value| value.abs()).sum::<f64>().max(f64::MIN_POSITIVE);
    let exact = (vector.len() as f64).sqrt() * apart.iter().map(|r| r * r).sum::<f64>() / sum;
    // The float is rounded to the bits that are kept. What it was before its last bits, is not known.
    let kept = |exact: f64| {
        let bits = |value: f32| (i64::from(value.to_bits()) + (1 << 17)) >> 18;
        (bits(exact as f32) - bits(1.0 / 16.0)).clamp(1, 255)
    };
    let range = kept(exact * (1.0 - 1e-5))..=kept(exact * (1.0 + 1e-5));
    hold(range.contains(&i64::from(*factor)), || format!("{what}: factor {factor} of {range:?}"))
}
