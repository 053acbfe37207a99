//! Level 2: the sealed segments of the archive and the catalog that says which rows live.
//!
//! A [`Cold`] is one consistent state of both, as of a checkpoint or vacuum: the catalog part is a
//! redb read transaction, the segments are open files, the dead rows a bitmap per segment group.
//! It never changes; the mover makes the next one. A superseded segment whose file is gone from
//! the folder stays readable through the handle for whoever still holds an older `Cold`.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::bytes::codec::body::Body;
use crate::bytes::codec::cursor::Reader;
use crate::bytes::codec::footer;
use crate::bytes::codec::segment::SectionKind;
use crate::organs::archive::{Row, Segment};
use crate::organs::catalog::{Located, Snapshot};
use crate::words::error::{Error, Result};
use crate::words::id::{CollectionId, EntryId, KeyPath};
use crate::words::record::{Place, Record};
use crate::words::safeguard::Safeguard;

/// A sealed segment and its rows that are superseded or deleted.
#[derive(Debug)]
pub struct ColdSegment {
    /// The file.
    pub segment: Arc<Segment>,
    /// Dead rows, one bitmap per group.
    pub dead: Vec<RoaringBitmap>,
}

impl ColdSegment {
    /// A segment all of whose rows live.
    pub fn new(segment: Segment) -> ColdSegment {
        let dead = vec![RoaringBitmap::new(); segment.footer().groups.len()];
        ColdSegment { segment: Arc::new(segment), dead }
    }

    /// The same segment with other dead rows.
    pub fn with_dead(&self, dead: Vec<RoaringBitmap>) -> ColdSegment {
        ColdSegment { segment: Arc::clone(&self.segment), dead }
    }

    /// Rows that live, over all groups.
    pub fn live_rows(&self) -> u64 {
        self.rows().saturating_sub(self.dead.iter().map(RoaringBitmap::len).sum())
    }

    /// All rows.
    pub fn rows(&self) -> u64 {
        self.segment.footer().groups.iter().map(|g| u64::from(g.rows)).sum()
    }

    /// The form the catalog keeps: length and CRC of the file, then the bitmaps.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.segment.bytes().to_le_bytes());
        out.extend_from_slice(&self.segment.crc().to_le_bytes());
        out.extend_from_slice(&(self.dead.len() as u32).to_le_bytes());
        for dead in &self.dead {
            let size = dead.serialized_size();
            out.extend_from_slice(&(size as u32).to_le_bytes());
            // Writing into a Vec cannot fail.
            let _ = dead.serialize_into(&mut out);
        }
        out
    }

    /// Reads the catalog's form back and checks that it speaks of this very file.
    pub fn decode(segment: Segment, bytes: &[u8]) -> Result<ColdSegment> {
        let number = segment.number();
        let wrong = |what: &str| {
            Error::corrupt(format!("index.redb: row of archive segment {number}: {what}"))
        };
        let mut reader = Reader::new(bytes);
        let mut parse = || -> Option<(u64, u32, Vec<RoaringBitmap>)> {
            let len = reader.u64().ok()?;
            let crc = reader.u32().ok()?;
            let groups = reader.u32().ok()? as usize;
            let mut dead = Vec::new();
            for _ in 0..groups.min(1 << 16) {
                let size = reader.u32().ok()? as usize;
                dead.push(RoaringBitmap::deserialize_from(reader.bytes(size).ok()?).ok()?);
            }
            (dead.len() == groups).then_some((len, crc, dead))
        };
        let (len, crc, dead) = parse().ok_or_else(|| wrong("does not decode"))?;
        let is_other = len != segment.bytes() || crc != segment.crc();
        if Safeguard::CatalogNamesFile.finds(is_other) {
            return Err(wrong("names another file of that number"));
        }
        if dead.len() != segment.footer().groups.len() {
            return Err(wrong("has another number of groups"));
        }
        Ok(ColdSegment { segment: Arc::new(segment), dead })
    }
}

/// Vectors whose mean is good enough for all that follow. With n of them each value of the mean is
/// off by about 1/sqrt(n) of its spread: 3 % at 1,024.
const MEAN_ROWS_MIN: u32 = 1024;

/// One consistent state of the archive.
#[derive(Debug)]
pub struct Cold {
    /// The catalog as of this state.
    pub catalog: Snapshot,
    /// The segments, by number.
    pub segments: BTreeMap<u64, Arc<ColdSegment>>,
}

/// A row of the archive that lives, with the segment it is in.
#[derive(Clone, Debug)]
pub struct ColdRow {
    /// The segment.
    pub segment: Arc<ColdSegment>,
    /// Where in it.
    pub place: Place,
    /// The fixed part of the row.
    pub row: Row,
}

impl ColdRow {
    /// Namespace, key, session and attributes.
    pub fn body(&self) -> Result<Body> {
        self.segment.segment.body(self.place.group, &self.row)
    }

    /// The whole payload.
    pub fn payload(&self) -> Result<Vec<u8>> {
        self.segment.segment.payload(self.place.group, &self.row)
    }

    /// The exact vector.
    pub fn vector(&self) -> Result<Option<Vec<f32>>> {
        self.segment.segment.vector(self.place.group, &self.row)
    }

    /// The whole record; a payload above 64 KiB stays where it is.
    pub fn record(&self) -> Result<Record> {
        self.segment.segment.record(self.place.group, &self.row)
    }
}

impl Cold {
    /// The id of a path, if the archive has it.
    pub fn find(&self, path: &KeyPath) -> Result<Option<EntryId>> {
        self.catalog.find(path.collection, &path.namespace, path.key.as_bytes())
    }

    /// Where an id is, if the archive has it.
    pub fn locate(&self, id: EntryId) -> Result<Option<(Located, Place)>> {
        Ok(self.catalog.locate(id)?.and_then(|l| l.place.map(|place| (l, place))))
    }

    /// The row of an id. The row must say the same id and version as the catalog: a catalog that
    /// is older than the archive, or names the wrong file, is caught here.
    pub fn row(&self, id: EntryId) -> Result<Option<ColdRow>> {
        let Some((located, place)) = self.locate(id)? else { return Ok(None) };
        let segment = self.segment(place.segment)?;
        let row = segment.segment.row(place.group, place.row)?;
        if row.id != id || row.version != located.version {
            return Err(Error::corrupt(format!(
                "index.redb: entry {id} should be row {} of group {} in archive segment {}, \
                 which holds entry {}; delete index.redb to have it rebuilt",
                place.row, place.group, place.segment, row.id
            )));
        }
        Ok(Some(ColdRow { segment: Arc::clone(segment), place, row }))
    }

    fn segment(&self, number: u64) -> Result<&Arc<ColdSegment>> {
        self.segments.get(&number).ok_or_else(|| {
            Error::corrupt(format!("index.redb names archive segment {number}, which is missing"))
        })
    }

    /// Live rows of a collection, not counting what newer records supersede.
    pub fn live_rows(&self, collection: CollectionId) -> u64 {
        self.groups(collection)
            .map(|(segment, group)| {
                let footer = &segment.segment.footer().groups;
                let rows = footer.get(usize::from(group)).map_or(0, |g| u64::from(g.rows));
                let dead = segment.dead.get(usize::from(group)).map_or(0, RoaringBitmap::len);
                rows.saturating_sub(dead)
            })
            .sum()
    }

    /// The groups that hold rows of a collection.
    pub fn groups(
        &self,
        collection: CollectionId,
    ) -> impl Iterator<Item = (&Arc<ColdSegment>, u16)> {
        self.segments.values().flat_map(move |segment| {
            let groups = &segment.segment.footer().groups;
            groups
                .iter()
                .enumerate()
                .filter(move |(_, g)| g.collection == collection)
                .filter_map(move |(i, _)| Some((segment, u16::try_from(i).ok()?)))
        })
    }

    /// The mean that the newest large group of a collection took away from its sketches. One that
    /// all segments share lets a search prepare its query once; a group of fewer than
    /// [`MEAN_ROWS_MIN`] vectors says too little about those to come. `None` as well when it is
    /// damaged: a new segment then finds its own.
    pub fn sketch_mean(&self, collection: CollectionId) -> Option<Arc<[f32]>> {
        let groups: Vec<_> = self.groups(collection).collect();
        groups
            .into_iter()
            .rev()
            .find_map(|(segment, group)| {
                let known = segment.segment.footer().groups.get(usize::from(group))?;
                (known.vectors >= MEAN_ROWS_MIN).then(|| segment.segment.sketch_mean(group).ok())?
            })
            .map(Arc::from)
    }

    /// What a new segment says of those of its elders that go on counting.
    pub fn digest(&self, counts: impl Fn(u64) -> bool) -> u32 {
        let segments = self.segments.iter().filter(|(number, _)| counts(**number));
        footer::digest(segments.map(|(number, s)| (*number, s.segment.crc())))
    }

    /// Bytes of all sketches.
    pub fn sketch_bytes(&self) -> u64 {
        let groups = self.segments.values().flat_map(|s| &s.segment.footer().groups);
        groups.filter_map(|g| g.section(SectionKind::Sketches)).map(|section| section.len).sum()
    }

    /// Rows with a vector, dead ones included.
    pub fn vector_rows(&self) -> u64 {
        let groups = self.segments.values().flat_map(|s| &s.segment.footer().groups);
        groups.map(|group| u64::from(group.vectors)).sum()
    }

    /// Bytes it keeps resident besides the catalog's cache: footers and bitmaps.
    pub fn resident_bytes(&self) -> u64 {
        self.segments
            .values()
            .map(|s| {
                let bitmaps: usize = s.dead.iter().map(RoaringBitmap::serialized_size).sum();
                s.segment.resident_bytes() + bitmaps as u64
            })
            .sum()
    }
}
