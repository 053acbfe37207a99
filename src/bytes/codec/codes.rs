//! How a segment lays out what stands for its vectors: codes that rank them, sketches that find them.
//!
//! ```text
//! section Codes:    per vector, in row order: packed row of 8-bit codes (12 + dim bytes) | CRC u32
//! section Sketches: mean, dim x f32 | CRC u32 | per 1,024 rows: 16 blocks of 64 sketches | CRC u32
//! ```
//!
//! One set of constants serves a whole vector: on real embeddings groups of 64 gained nothing at
//! 8 bits. A row of codes stands by itself under its own CRC, because a candidate costs one small
//! read. Sketches are read by the thousand (50 KB at 384 dimensions), or all at once to be kept in
//! RAM. The last chunk has as many blocks as its rows take. Every CRC is bound to its place.

use crate::pure::quant::{Bits, RowLayout};
use crate::pure::sketch::{BLOCK_ROWS, SketchLayout};

/// Bytes of a CRC.
pub const CRC_BYTES: usize = 4;
/// Rows of a chunk of sketches.
pub const CHUNK_ROWS: usize = 16 * BLOCK_ROWS;
/// Index of the mean in the checksums of a section of sketches; chunk i has i.
pub const MEAN_INDEX: u64 = u64::MAX;

/// The packed rows of a group whose vectors have `dim` values; `None` for a group without any.
#[must_use]
pub fn layout(dim: u32) -> Option<RowLayout> {
    RowLayout::new(dim as usize, 0, Bits::Eight)
}

/// Bytes from one row to the next; 0 for a group without vectors.
#[must_use]
pub fn stride(dim: u32) -> usize {
    layout(dim).map_or(0, |layout| layout.row_bytes() + CRC_BYTES)
}

/// Where a chunk begins in its section.
#[must_use]
pub fn chunk_at(layout: SketchLayout, chunk: usize) -> u64 {
    let mean = layout.dim() * 4 + CRC_BYTES;
    let whole = layout.blocks_bytes(CHUNK_ROWS) + CRC_BYTES;
    mean as u64 + chunk as u64 * whole as u64
}

/// Length of a section of sketches.
#[must_use]
pub fn sketches_bytes(layout: SketchLayout, vectors: usize) -> u64 {
    let chunks = vectors.div_ceil(CHUNK_ROWS);
    let crcs = chunks * CRC_BYTES;
    chunk_at(layout, 0) + (layout.blocks_bytes(vectors) + crcs) as u64
}
