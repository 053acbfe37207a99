//! Writing what stands in for a group's vectors: their codes and their sketches.
//!
//! Both come from the exact vectors at hand, once, as the segment is written; a vacuum that merges
//! segments makes them anew from the same vectors. The mean of the sketches is the one that earlier
//! segments used, if there is one, else that of the group's own directions.

use crate::bytes::codec::codes::{self, CHUNK_ROWS, MEAN_INDEX};
use crate::bytes::codec::segment::{Section, SectionKind, Seed};
use crate::pure::quant;
use crate::pure::sketch::{self, BLOCK_ROWS, SketchLayout};
use crate::words::error::{Error, Result};
use crate::words::record::Record;

use super::sink::Sink;
use super::writer::Shape;

/// Codes of the vectors of `records`, each row under its own CRC.
pub(super) fn write_codes(
    sink: &mut Sink,
    seed: Seed,
    group: u16,
    dim: u32,
    records: &[&Record],
) -> Result<Section> {
    let layout = codes::layout(dim).ok_or_else(|| no_such(dim))?;
    sink.begin()?;
    let mut row = vec![0; layout.row_bytes()];
    for (record, index) in records.iter().zip(0u64..) {
        quant::encode(layout, record.vector.as_deref().unwrap_or_default(), &mut row);
        sink.write(&row)?;
        sink.write(&seed.crc(SectionKind::Codes, group, index, &row).to_le_bytes())?;
    }
    sink.end(SectionKind::Codes, records.len())
}

/// Sketches of the vectors of `records`, behind their mean.
pub(super) fn write_sketches(
    sink: &mut Sink,
    seed: Seed,
    group: u16,
    shape: &Shape,
    records: &[&Record],
) -> Result<Section> {
    let layout =
        SketchLayout::new(shape.dim as usize, shape.metric).ok_or_else(|| no_such(shape.dim))?;
    let vector = |record: &'_ &Record| record.vector.clone().unwrap_or_default();
    let mean = match &shape.mean {
        Some(mean) if mean.len() == layout.dim() => mean.to_vec(),
        _ => mean_of(layout.dim(), records),
    };
    let put = |sink: &mut Sink, index, bytes: &[u8]| {
        sink.write(bytes)?;
        sink.write(&seed.crc(SectionKind::Sketches, group, index, bytes).to_le_bytes())
    };
    sink.begin()?;
    let bytes: Vec<u8> = mean.iter().flat_map(|value| value.to_le_bytes()).collect();
    put(sink, MEAN_INDEX, &bytes)?;
    let mut row = vec![0; layout.row_bytes()];
    for (chunk, index) in records.chunks(CHUNK_ROWS).zip(0u64..) {
        let mut blocks = vec![0; layout.blocks_bytes(chunk.len())];
        let parts = blocks.chunks_exact_mut(layout.block_bytes());
        for (block, records) in parts.zip(chunk.chunks(BLOCK_ROWS)) {
            for (slot, record) in records.iter().enumerate() {
                sketch::encode(layout, &mean, &vector(record), &mut row);
                sketch::place(layout, &row, block, slot);
            }
        }
        put(sink, index, &blocks)?;
    }
    sink.end(SectionKind::Sketches, records.len())
}

/// Mean of the directions of the vectors; a zero vector has none.
fn mean_of(dim: usize, records: &[&Record]) -> Vec<f32> {
    let mut sums = vec![0.0_f64; dim];
    for vector in records.iter().filter_map(|record| record.vector.as_deref()) {
        let norm = vector.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
        if norm > 0.0 {
            sums.iter_mut().zip(vector).for_each(|(sum, value)| *sum += f64::from(*value) / norm);
        }
    }
    let count = records.len().max(1) as f64;
    sums.iter().map(|sum| (sum / count) as f32).collect()
}

fn no_such(dim: u32) -> Error {
    Error::internal(format!("vectors have no codes with a dimension of {dim}"))
}
