//! Whose files these are: by `store.toml`, or by the first header that can be read without it.
//!
//! Every file but the index carries the identity of its store under a checksum. So a store whose
//! `store.toml` is damaged can still be looked at, though it does not open.
//!
//! Never: takes a format for this build's that `store.toml` says is another.

use serde_json::Map;

use crate::bytes::codec::block::{self, BlockHeader};
use crate::bytes::codec::segment::{self, Header};
use crate::io::{Disk, OpenMode};
use crate::organs::{archive, arena, wal};
use crate::verbs::inspect::FileReport;
use crate::words::error::{Error, ErrorKind, Result};

/// The identity of a store, and what `store.toml` says.
#[derive(Clone, Debug)]
pub struct Identity {
    /// What every file of the store carries.
    pub store_id: [u8; 16],
    /// `store.toml`, with the file that stood in for it as the fact `store_id_from`.
    pub report: FileReport,
}

/// Finds it. `file` is `store.toml`, `said` what it says; that error is answered when nothing else says
/// whose the files are either.
pub fn identity(disk: &dyn Disk, file: &str, said: Result<[u8; 16]>) -> Result<Identity> {
    let mut report = FileReport {
        file: file.to_owned(),
        bytes: disk.open(file, OpenMode::Read).and_then(|open| open.len()).unwrap_or(0),
        facts: Map::new(),
        problems: Vec::new(),
    };
    let (store_id, from) = match said {
        Ok(store_id) => (store_id, None),
        Err(error) if error.kind() == ErrorKind::Version => return Err(error),
        Err(error) => match by_headers(disk) {
            Some((store_id, from)) => {
                report.problem(&error);
                (store_id, Some(from))
            }
            None => return Err(error),
        },
    };
    report.fact("store_id", store_id.map(|byte| format!("{byte:02x}")).concat());
    if let Some(from) = from {
        report.fact("store_id_from", from);
    }
    Ok(Identity { store_id, report })
}

/// The store that the first readable header names, and its file.
fn by_headers(disk: &dyn Disk) -> Option<([u8; 16], String)> {
    let segments = archive::list(disk).unwrap_or_default().into_iter().map(archive::file_name);
    let archived =
        segments.filter_map(|name| Some((segment_header(disk, &name).ok()?.store_id, name))).next();
    let logged = || {
        let looks = wal::look::headers(disk).unwrap_or_default();
        looks.into_iter().find_map(|(name, header)| Some((header?.store_id, name)))
    };
    let packed = || {
        let blocks = arena::list(disk).unwrap_or_default().into_iter().map(arena::file_name);
        blocks.filter_map(|name| Some((block_header(disk, &name).ok()?.store_id, name))).next()
    };
    archived.or_else(logged).or_else(packed)
}

/// The header of an archive segment.
pub fn segment_header(disk: &dyn Disk, name: &str) -> Result<Header> {
    let damaged = |damage| Error::corrupt(format!("{name}: {damage} at offset 0"));
    segment::decode_header(&head(disk, name)?).map_err(damaged)
}

/// The header of an arena block.
pub fn block_header(disk: &dyn Disk, name: &str) -> Result<BlockHeader> {
    let damaged = |damage| Error::corrupt(format!("{name}: {damage} at offset 0"));
    let (format, header) = BlockHeader::decode(&head(disk, name)?).map_err(damaged)?;
    match format == block::FORMAT {
        true => Ok(header),
        false => Err(Error::new(ErrorKind::Version, format!("{name} has format {format}"))),
    }
}

fn head<const N: usize>(disk: &dyn Disk, name: &str) -> Result<[u8; N]> {
    let failed = |e| Error::io(format!("read {name}"), e);
    let mut bytes = [0; N];
    let file = disk.open(name, OpenMode::Read).map_err(failed)?;
    file.read_exact_at(&mut bytes, 0).map_err(failed)?;
    Ok(bytes)
}
