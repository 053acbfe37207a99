//! The decoders of files that are made anew when they are lost: arena, codes, columns, index.

use crate::bytes::codec::block::{self, BlockHeader};
use crate::bytes::codec::cells::HEADER_BYTES;
use crate::bytes::codec::codes::layout;
use crate::io::Disk;
use crate::organs::arena::cells::{self, Cells, CellsWriter};
use crate::organs::arena::{self, Block};
use crate::organs::catalog::tables::{
    self, LOCATED_BYTES, NUMBER_BYTES, Table, key_row, open_bytes, open_key_row, open_located,
    open_number, seal_bytes, seal_located, seal_number,
};
use crate::organs::columns::moves::{self, Moves};
use crate::organs::columns::sealed::{self, Sealed};
use crate::organs::columns::{hot, row};
use crate::pure::quant::{Bits, CodeQuery, RowLayout, decode, narrow};
use crate::pure::sketch::{BLOCK_ROWS, SketchLayout, SketchQuery};
use crate::words::id::{EntryId, KeyPath};
use crate::words::options::{ArenaAccess, Metric};

use super::{Answer, STORE, disk, holds, same};

/// A block of the arena.
pub fn arena_block(bytes: &[u8]) -> Answer {
    let files = [("arena/0000000001.blk", bytes)];
    let disk = disk(&[arena::FOLDER], &files).map_err(|e| e.to_string())?;
    let Ok(block) = Block::open(&disk, 1, STORE, ArenaAccess::Read) else { return Ok(false) };
    let (mut rows, mut codes) = (Vec::new(), Vec::new());
    for row in 0..block.rows() {
        rows.extend(block.id_version(row));
        match block.row(row) {
            Ok(bytes) => codes.extend_from_slice(bytes),
            Err(_) => return Ok(false),
        }
    }
    holds(rows.len() == block.rows(), "a row that is nobody's")?;
    holds(block.row(block.rows()).is_err(), "a row behind the last one")?;
    let head = bytes.first_chunk().ok_or("no header")?;
    let (_, header) = BlockHeader::decode(head).map_err(|e| e.to_string())?;
    let Ok(again) = block::encode(&header, &rows, &codes) else { return Ok(false) };
    // Bytes between the parts are not read, and written as zeros.
    holds(again.len() == bytes.len(), "a block of another length")?;
    let table = block::table(&header, &again).map(<[u8]>::to_vec).map_err(|e| e.to_string())?;
    same(block::table(&header, bytes).map_err(|e| e.to_string())?, &table)
}

/// A file of cells.
pub fn arena_cells(bytes: &[u8]) -> Answer {
    let name = cells::file_name(1);
    let first = disk(&[arena::FOLDER], &[(&name, bytes)]).map_err(|e| e.to_string())?;
    let Ok(file) = Cells::open(&first, 1, STORE) else { return Ok(false) };
    let Ok(all) = file.all_blocks() else { return Ok(false) };
    let second = disk(&[arena::FOLDER], &[]).map_err(|e| e.to_string())?;
    let writer = CellsWriter::create(&second, file.header, &file.tables);
    let mut writer = writer.map_err(|e| e.to_string())?;
    let mut blocks = Vec::new();
    for cell in 0..file.header.cells {
        file.read(cell as usize, &mut blocks).map_err(|e| e.to_string())?;
        same(file.blocks(cell as usize, &all), &blocks)?;
        writer.add(cell, blocks.clone()).map_err(|e| e.to_string())?;
    }
    writer.finish().map_err(|e| e.to_string())?;
    let again = crate::io::read_whole(&second as &dyn Disk, &name, usize::MAX);
    let again = again.map_err(|e| e.to_string())?;
    // What is reserved in the header is not read, and written as zeros.
    let behind = |bytes: &'_ [u8]| bytes.get(HEADER_BYTES..).unwrap_or_default().to_vec();
    same(&behind(bytes), &behind(&again))
}

/// Bits and dimension (a byte each), and a row of codes, which is scored, decoded and narrowed.
pub fn codes(bytes: &[u8]) -> Answer {
    let Some(([bits, dim], bytes)) = bytes.split_first_chunk::<2>() else { return Ok(false) };
    let Some(eight) = layout(u32::from(*dim)) else { return Ok(false) };
    let layout: RowLayout = if bits & 1 == 0 { eight } else { eight.with_bits(Bits::Four) };
    let Some(row) = bytes.get(..layout.row_bytes()) else { return Ok(false) };
    let mut vector = vec![0.0; layout.dim()];
    decode(layout, row, &mut vector);
    if bits & 1 == 0 {
        let mut less = vec![0; eight.with_bits(Bits::Four).row_bytes()];
        narrow(eight, row, &mut less);
        // A code of 4 bits is the nearest of its 17 neighbours: 8 steps away at most.
        let step = row.get(8..12).and_then(|b| b.first_chunk().copied()).map(f32::from_le_bytes);
        let (wide, step) = (vector.clone(), step.unwrap_or(0.0).abs());
        decode(eight.with_bits(Bits::Four), &less, &mut vector);
        let near = wide.iter().zip(&vector).all(|(a, b)| {
            let off = (a - b).abs();
            !off.is_finite() || off <= 8.0 * step + 1e-3 * (a.abs() + b.abs() + step)
        });
        holds(near, "values that narrowing moves too far")?;
    }
    let query: Vec<f32> = (0..layout.dim()).map(|i| (i % 7) as f32 - 3.0).collect();
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let query = CodeQuery::new(layout, metric, &query);
        let mut scores = [0.0];
        query.score_rows(row, &mut scores);
        let alone = query.score(row);
        holds(alone.to_bits() == scores[0].to_bits() || alone.is_nan(), "a score of its own")?;
    }
    Ok(true)
}

/// Metric and dimension (a byte each), and a block of sketches, which is scored.
pub fn sketches(bytes: &[u8]) -> Answer {
    let Some(([metric, dim], bytes)) = bytes.split_first_chunk::<2>() else { return Ok(false) };
    let metric = if metric & 1 == 0 { Metric::Cosine } else { Metric::Dot };
    let Some(layout) = SketchLayout::new(usize::from(*dim), metric) else { return Ok(false) };
    let Some(blocks) = bytes.get(..layout.blocks_bytes(BLOCK_ROWS)) else { return Ok(false) };
    let (mean, query) = (vec![0.0; layout.dim()], vec![0.5; layout.dim()]);
    let mut scores = vec![0.0; BLOCK_ROWS];
    SketchQuery::new(layout, &mean, &query).score_blocks(blocks, &[], &mut scores);
    Ok(true)
}

/// A sealed file of the columns.
pub fn columns_file(bytes: &[u8]) -> Answer {
    let files = [("columns/0000000001.col", bytes)];
    let first = disk(&[sealed::FOLDER], &files).map_err(|e| e.to_string())?;
    let Ok(file) = Sealed::open(&first, 1) else { return Ok(false) };
    let rows = |file: &Sealed| {
        let mut rows: Vec<row::Row> = Vec::new();
        (0..file.blocks()).try_for_each(|block| file.block(block, &mut rows)).map(|()| rows)
    };
    let Ok(found) = rows(&file) else { return Ok(false) };
    for row in found.iter().take(4) {
        drop(file.find(row.id));
    }
    if !found.is_sorted_by_key(|row| row.id) || found.len() as u64 != file.rows() {
        return Ok(true);
    }
    let second = disk(&[sealed::FOLDER], &[]).map_err(|e| e.to_string())?;
    let again = sealed::write(&second, 1, file.covers(), found.iter().copied());
    let again = again.and_then(|file| rows(&file)).map_err(|e| e.to_string())?;
    holds(again == found, "rows that do not come back")
}

/// The set of hot ids.
pub fn columns_hot(bytes: &[u8]) -> Answer {
    let disk = disk(&[sealed::FOLDER], &[("columns/hot", bytes)]).map_err(|e| e.to_string())?;
    let Ok(set) = hot::read(&disk, STORE) else { return Ok(false) };
    hot::save(&disk, STORE, &set).map_err(|e| e.to_string())?;
    // A set can be written in several ways.
    let again = hot::read(&disk, STORE).map_err(|e| e.to_string())?;
    holds(again == set, "a set that does not come back")
}

/// The last moves.
pub fn columns_moves(bytes: &[u8]) -> Answer {
    let disk = disk(&[sealed::FOLDER], &[("columns/moves", bytes)]).map_err(|e| e.to_string())?;
    if moves::read(&disk, STORE).is_err() {
        return Ok(false);
    }
    Moves::load(&disk, STORE).save(&disk, STORE).map_err(|e| e.to_string())?;
    let again = crate::io::read_whole(&disk as &dyn Disk, "columns/moves", usize::MAX);
    same(bytes, &again.map_err(|e| e.to_string())?)
}

/// A table of the index and the length of a key (a byte each), the key, and the value.
pub fn index_value(bytes: &[u8]) -> Answer {
    let Some(([table, len], rest)) = bytes.split_first_chunk::<2>() else { return Ok(false) };
    let Some((key, value)) = rest.split_at_checked(usize::from(*len)) else { return Ok(false) };
    let number = [Table::Keys, Table::Requests, Table::Expiring, Table::Meta, Table::Recent];
    let bytes = [Table::Segments, Table::Collections, Table::Settings];
    match table % 9 {
        which @ 0..5 => {
            let table = number.get(usize::from(which)).copied().unwrap_or(Table::Meta);
            let Some(value) = value.first_chunk::<NUMBER_BYTES>() else { return Ok(false) };
            let Ok(read) = open_number(table, key, value) else { return Ok(false) };
            same(value, &seal_number(table, key, read))
        }
        which @ 5..8 => {
            let table = bytes.get(usize::from(which - 5)).copied().unwrap_or(Table::Settings);
            let Ok(read) = open_bytes(table, key, value) else { return Ok(false) };
            same(value, &seal_bytes(table, key, read))
        }
        _ => {
            let id = EntryId(key.first_chunk().map_or(3, |id| u64::from_le_bytes(*id)));
            let Some(value) = value.first_chunk::<LOCATED_BYTES>() else { return Ok(false) };
            let Ok(read) = open_located(id, value) else { return Ok(false) };
            let again = seal_located(id, &read);
            if read.place.is_some() {
                return same(value, &again);
            }
            // The place of what is gone is not read, and written as zeros.
            let back = open_located(id, &again).map_err(|e| e.to_string())?;
            holds(back == read, "a place that does not come back")
        }
    }
}

/// A key of the table of keys.
pub fn index_key(bytes: &[u8]) -> Answer {
    let Ok(KeyPath { collection, namespace, key }) = open_key_row(bytes) else { return Ok(false) };
    let range = tables::KeyRange::all().starting(&namespace, key.as_bytes());
    let inside = range.before(&namespace, key.as_bytes()).rows(collection).is_none();
    holds(inside, "a range before its own start")?;
    same(bytes, &key_row(collection, namespace.as_str(), key.as_bytes()))
}
