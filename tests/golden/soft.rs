//! What may be lost without loss: arena blocks, columns, hot ids, last moves, and the layer of
//! checksums under the index.
//!
//! A block of the arena repeats codes of the archive, or narrows them to four bits. The columns count
//! accesses. The index is not decoded beyond its pages, since all of it follows from log and archive.

use std::collections::{BTreeMap, BTreeSet};

use super::bytes::{Cursor, Read, all_zeros, crc, hold, part, same, split_crc};
use super::codes::Packed;

pub struct Block {
    pub collection: u32,
    pub bits: u8,
    /// Id, version and codes.
    pub rows: Vec<(u64, u64, Packed)>,
}

pub fn arena(file: &[u8], store: &[u8; 16], number: u64) -> Read<Block> {
    let what = format!("arena block {number}");
    let header = part(&what, file, 0, 64)?;
    let mut cursor = Cursor::new(&what, header);
    cursor.expect("magic", b"pmllBLK\n")?;
    cursor.expect("format", &[0; 4])?;
    let rows = u64::from(cursor.u32()?);
    cursor.expect("store", store)?;
    cursor.expect("number", &number.to_le_bytes())?;
    let (collection, dim) = (cursor.u32()?, cursor.u32()?);
    let (group, row_bytes, bits) = (cursor.u32()?, cursor.u32()?, cursor.u8()?);
    cursor.zeros(3)?;
    same(&what, cursor.u32()?, crc(&[&header[..60]]))?;
    hold(rows > 0, || format!("{what}: no rows"))?;
    hold(group == dim, || format!("{what}: {group} of {dim} values share constants"))?;
    let width = match bits {
        8 => dim,
        4 => dim.div_ceil(2),
        other => return Err(format!("{what}: {other} bits")),
    };
    hold(row_bytes == 12 + width, || format!("{what}: rows of {row_bytes} bytes"))?;

    let bound = |part: u8, bytes: &[u8]| crc(&[store, &number.to_le_bytes(), &[part], bytes]);
    let table = part(&what, file, 64, rows * 16 + 4)?;
    let (table, table_crc) = split_crc(&what, table)?;
    same(&format!("{what}: table"), table_crc, bound(1, table))?;
    let end = 64 + rows * 16 + 4;
    let start = end.next_multiple_of(64);
    let gap = part(&what, file, end, start - end)?;
    hold(all_zeros(gap), || format!("{what}: bytes behind the table"))?;
    let (codes, codes_crc) = split_crc(&what, &file[start as usize..])?;
    same(&format!("{what}: codes"), codes_crc, bound(2, codes))?;
    let length = rows * u64::from(row_bytes);
    hold(codes.len() as u64 == length, || format!("{what}: {} bytes of codes", codes.len()))?;

    let mut table = Cursor::new(&what, table);
    let rows = codes
        .chunks_exact(row_bytes as usize)
        .map(|row| {
            let (id, version) = (table.u64()?, table.u64()?);
            Ok((id, version, Packed::read(&what, row, dim as usize, bits)?))
        })
        .collect::<Read<Vec<_>>>()?;
    hold(rows.is_sorted_by(|a, b| a.0 < b.0), || format!("{what}: ids do not ascend"))?;
    Ok(Block { collection, bits, rows })
}

pub struct Access {
    pub id: u64,
    pub last: i64,
    pub count: u32,
    pub gone: bool,
}

pub struct Columns {
    pub number: u64,
    pub covers: u64,
    pub rows: Vec<Access>,
}

pub fn columns(file: &[u8], number: u64) -> Read<Columns> {
    let what = format!("columns {number}");
    let length = file.len() as u64;
    let tail = part(&what, file, length.saturating_sub(40), 40)?;
    let mut cursor = Cursor::new(&what, tail);
    cursor.expect("magic", b"pmllcol2")?;
    cursor.expect("number", &number.to_le_bytes())?;
    let (covers, rows, blocks) = (cursor.u64()?, cursor.u64()?, u64::from(cursor.u32()?));
    let tail_crc = cursor.u32()?;
    hold(length == blocks * (4096 + 8) + 40, || format!("{what}: {blocks} blocks"))?;
    let firsts = part(&what, file, blocks * 4096, blocks * 8)?;
    same(&what, tail_crc, crc(&[firsts, &tail[..36]]))?;
    hold((1..=number).contains(&covers), || format!("{what}: covers from {covers}"))?;

    let mut firsts = Cursor::new(&what, firsts);
    let mut found = Vec::new();
    for (index, block) in (0..blocks).zip(file.chunks_exact(4096)) {
        let what = format!("{what}, block {index}");
        let (covered, block_crc) = split_crc(&what, block)?;
        let bound = crc(&[&number.to_le_bytes(), &index.to_le_bytes(), covered]);
        same(&what, block_crc, bound)?;
        let (room, behind) = covered.split_at(4068);
        let mut cursor = Cursor::new(&what, behind);
        let count = cursor.u32()? as usize;
        cursor.zeros(20)?;
        hold((1..=113).contains(&count), || format!("{what}: {count} rows"))?;
        let (used, free) = room.split_at(count * 36);
        hold(all_zeros(free), || format!("{what}: bytes behind the rows"))?;
        hold(firsts.u64()? == Cursor::new(&what, used).u64()?, || format!("{what}: first id"))?;
        for row in used.chunks_exact(36) {
            found.push(access(&what, row)?);
        }
    }
    hold(found.len() as u64 == rows, || format!("{what}: {} rows of {rows}", found.len()))?;
    hold(found.is_sorted_by(|a, b| a.id < b.id), || format!("{what}: ids do not ascend"))?;
    Ok(Columns { number, covers, rows: found })
}

fn access(what: &str, row: &[u8]) -> Read<Access> {
    let mut cursor = Cursor::new(what, row);
    let (id, last, count) = (cursor.u64()?, cursor.i64()?, cursor.u32()?);
    let heat = cursor.f32()?;
    let (_gap, _near_seen, _near) = (cursor.u32()?, cursor.u32()?, cursor.u16()?);
    let flags = cursor.u16()?;
    hold(flags < 2, || format!("{what}: flags {flags}"))?;
    hold(heat >= 0.0 && f64::from(heat) <= f64::from(count), || format!("{what}: heat {heat}"))?;
    Ok(Access { id, last, count, gone: flags == 1 })
}

/// Accesses and the last of them by id, from the files that count.
pub fn accesses(files: &[Columns]) -> BTreeMap<u64, (u64, i64)> {
    let mut sums = BTreeMap::new();
    for file in files {
        let replaced = files.iter().any(|by| by.covers <= file.number && file.number < by.number);
        for row in file.rows.iter().filter(|_| !replaced) {
            if row.gone {
                sums.remove(&row.id);
                continue;
            }
            let sum = sums.entry(row.id).or_insert((0, row.last));
            *sum = (sum.0 + u64::from(row.count), row.last);
        }
    }
    sums
}

/// The ids in `columns/hot`.
pub fn hot(file: &[u8], store: &[u8; 16]) -> Read<BTreeSet<u64>> {
    let (covered, file_crc) = split_crc("hot", file)?;
    same("hot", file_crc, crc(&[covered]))?;
    let mut cursor = Cursor::new("hot", covered);
    cursor.expect("magic", b"pmllhot0")?;
    cursor.expect("store", store)?;
    let length = cursor.u32()?;
    let bitmap = cursor.take(length as usize)?;
    cursor.end()?;
    roaring(&mut Cursor::new("hot ids", bitmap))
}

/// A 64-bit Roaring bitmap in the portable form of its specification: a count of parts, each with the
/// upper half of its ids and a 32-bit bitmap.
fn roaring(cursor: &mut Cursor) -> Read<BTreeSet<u64>> {
    let mut ids = BTreeSet::new();
    for _ in 0..cursor.u64()? {
        let high = u64::from(cursor.u32()?) << 32;
        let cookie = cursor.u32()?;
        let (count, runs) = match cookie & 0xffff {
            12346 => (cursor.u32()?, Vec::new()),
            12347 => {
                let count = (cookie >> 16) + 1;
                (count, cursor.take(count.div_ceil(8) as usize)?.to_vec())
            }
            _ => return Err(format!("hot ids: cookie {cookie}")),
        };
        let mut containers = Vec::new();
        for _ in 0..count {
            containers.push((u64::from(cursor.u16()?) << 16, u32::from(cursor.u16()?) + 1));
        }
        if runs.is_empty() || count >= 4 {
            cursor.take(count as usize * 4)?;
        }
        for (at, (middle, members)) in containers.into_iter().enumerate() {
            let base = high | middle;
            if runs.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1) {
                for _ in 0..cursor.u16()? {
                    let (first, more) = (u64::from(cursor.u16()?), u64::from(cursor.u16()?));
                    ids.extend((first..=first + more).map(|id| base | id));
                }
            } else if members > 4096 {
                let bits = cursor.take(8192)?;
                let set = |id: &u64| bits[(id / 8) as usize] >> (id % 8) & 1 == 1;
                ids.extend((0..65536).filter(set).map(|id| base | id));
            } else {
                for _ in 0..members {
                    ids.insert(base | u64::from(cursor.u16()?));
                }
            }
        }
    }
    cursor.end()?;
    Ok(ids)
}

/// Id, time, from and to, as they stand in `columns/moves`.
pub fn moves(file: &[u8], store: &[u8; 16]) -> Read<Vec<(u64, i64, u8, u8)>> {
    let (covered, file_crc) = split_crc("moves", file)?;
    same("moves", file_crc, crc(&[covered]))?;
    let mut cursor = Cursor::new("moves", covered);
    cursor.expect("magic", b"pmllmov0")?;
    cursor.expect("store", store)?;
    let mut moves = Vec::new();
    for _ in 0..cursor.u32()? {
        let (id, time, from, to) = (cursor.u64()?, cursor.i64()?, cursor.u8()?, cursor.u8()?);
        hold(from < 4 && to < 4 && from != to, || format!("moves: {id} from {from} to {to}"))?;
        moves.push((id, time, from, to));
    }
    cursor.end()?;
    Ok(moves)
}

/// Compares the checksums of the index. Says which pages of the file they cover.
pub fn index(file: &[u8]) -> Read<Vec<u64>> {
    let page = |number: u64| part("index", file, number * 4096, 4096);
    let mut whole = 0;
    for copy in 0..2_u64 {
        let (covered, copy_crc) = split_crc("index", &page(copy)?[..512])?;
        let mut cursor = Cursor::new("index", covered);
        let magic = cursor.take(8)? == b"pmllidx1";
        cursor.take(8 + 480)?;
        cursor.zeros(12)?;
        whole += usize::from(magic && copy_crc == crc(&[&copy.to_le_bytes(), covered]));
    }
    // One copy may be torn after a crash. This store was closed.
    hold(whole == 2, || format!("index: {whole} whole headers"))?;
    let pages = file.len() as u64 / 4096;
    let mut covered = Vec::new();
    for group in 0..pages.saturating_sub(2).div_ceil(1025) {
        let first = 2 + group * 1025;
        let mut crcs = Cursor::new("index", page(first)?);
        for slot in 0..1024 {
            let (stored, number) = (crcs.u32()?, group * 1024 + slot + 1);
            if stored == 0 {
                continue;
            }
            let found = crc(&[&number.to_le_bytes(), page(first + 1 + slot)?]).max(1);
            same(&format!("index: page {number}"), stored, found)?;
            covered.push(first + 1 + slot);
        }
    }
    Ok(covered)
}
