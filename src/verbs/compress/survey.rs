//! The survey: every archived entry as the compressor sees it, in columns.
//!
//! One walk over the row tables of the archive (128 bytes a row, read in blocks) and the soft state
//! of the columns. Nothing is decompressed: what an entry would cost in RAM is known from the
//! lengths in its row. An entry takes some 60 bytes here for the length of a pass.
//!
//! Entries in the log's tables are not archived, so nothing may be demoted there; a row that such
//! an entry supersedes is passed over. So are entries whose time has passed.
//!
//! Never: scores, decides, or reads a payload or vector.

use crate::bytes::codec::codes;
use crate::organs::archive::Row;
use crate::organs::columns::Access;
use crate::pure::policy::Standing;
use crate::pure::quant::Bits;
use crate::pure::score::{self, Inputs};
use crate::tiers::View;
use crate::tiers::hot::resident_bytes;
use crate::words::error::Result;
use crate::words::id::{CollectionId, EntryId, Lsn, Timestamp};
use crate::words::limits;
use crate::words::record::Place;
use crate::words::tier::Tier;

/// Id and version beside a row of codes in a block.
const ARENA_ROW_BYTES: usize = 16;
/// Rows read at once.
const ROWS_AT_ONCE: u32 = 1024;

/// Live archived entries, one place of each column per entry, in order of (collection, id).
#[derive(Debug, Default)]
pub struct Survey {
    /// Collections, in order, with the end of their stretch.
    pub collections: Vec<Stretch>,
    /// Identity.
    pub ids: Vec<EntryId>,
    /// Version that is archived.
    pub versions: Vec<Lsn>,
    /// Where it is.
    pub places: Vec<Place>,
    /// The later of event time and last access, in microseconds.
    pub active_us: Vec<i64>,
    /// Last access, in microseconds; time of the last write when there was none.
    pub accessed_us: Vec<i64>,
    /// Accesses counted.
    pub counts: Vec<u32>,
    /// The caller's salience, or else the greatest cosine to a query.
    pub semantic: Vec<f32>,
    /// Whether it is pinned.
    pub pinned: Vec<bool>,
    /// Bytes it takes in Level 0; `u32::MAX` when it may not stand there.
    pub hot_bytes: Vec<u32>,
    /// Bytes of a row of 8 bits in the arena; 0 without a vector.
    pub warm8_bytes: Vec<u32>,
    /// Bytes of a row of 4 bits.
    pub warm4_bytes: Vec<u32>,
    /// Where it stands.
    pub standing: Vec<Standing>,
}

/// The entries of one collection in a survey.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// Which collection.
    pub collection: CollectionId,
    /// First entry.
    pub from: usize,
    /// One after the last.
    pub to: usize,
    /// Its newest event, in microseconds: what age is counted back from.
    pub newest_us: i64,
}

impl Survey {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Looks at every archived entry of a view.
    pub fn of(view: &View, now: Timestamp, access: &dyn Fn(EntryId) -> Access) -> Result<Survey> {
        let mut survey = Survey::default();
        for collection in view.collections.keys() {
            let from = survey.len();
            let mut rows = Vec::new();
            for (segment, group) in view.cold.groups(*collection) {
                let file = &segment.segment;
                let Some(total) = file.footer().groups.get(usize::from(group)) else { continue };
                let Some(dead) = segment.dead.get(usize::from(group)) else { continue };
                let mut at = 0;
                while at < total.rows {
                    let count = ROWS_AT_ONCE.min(total.rows - at);
                    rows.clear();
                    file.rows(group, at, count, &mut rows)?;
                    for row in &rows {
                        let hidden = row.expires.is_some_and(|expires| expires <= now);
                        if dead.contains(row.number) || hidden || view.shadows(row.id) {
                            continue;
                        }
                        let place = Place { segment: file.number(), group, row: row.number };
                        survey.take(view, *collection, place, row, access(row.id));
                    }
                    at += count;
                }
            }
            survey.sort(from);
            let (collection, to) = (*collection, survey.len());
            let newest_us = score::newest_us(survey.active_us.get(from..).unwrap_or_default());
            survey.collections.push(Stretch { collection, from, to, newest_us });
        }
        Ok(survey)
    }

    fn take(
        &mut self,
        view: &View,
        collection: CollectionId,
        place: Place,
        row: &Row,
        access: Access,
    ) {
        let inputs = inputs(row, access);
        let payload = row.payload_len() as usize;
        let may_be_hot = payload <= limits::PAYLOAD_RESIDENT_BYTES_MAX;
        let dim = view.collections.get(&collection).and_then(|def| def.spec.dim).unwrap_or(0);
        let vector = if row.vector_index.is_some() { dim as usize * 4 } else { 0 };
        // A body holds key, namespace, session and attributes: what a record keeps in words.
        let bytes = resident_bytes(payload + vector + 2 * row.body.len as usize);
        self.ids.push(row.id);
        self.versions.push(row.version);
        self.places.push(place);
        self.active_us.push(inputs.active_us);
        self.accessed_us.push(inputs.accessed_us);
        self.counts.push(inputs.count);
        self.semantic.push(inputs.semantic);
        self.pinned.push(row.pinned);
        self.hot_bytes.push(match may_be_hot {
            true => u32::try_from(bytes).unwrap_or(u32::MAX - 1),
            false => u32::MAX,
        });
        let layout = codes::layout(dim).filter(|_| row.vector_index.is_some());
        let warm =
            |bits| layout.map_or(0, |l| l.with_bits(bits).row_bytes() + ARENA_ROW_BYTES) as u32;
        self.warm8_bytes.push(warm(Bits::Eight));
        self.warm4_bytes.push(warm(Bits::Four));
        self.standing.push(standing(view, collection, row.id, row.version));
    }

    /// Orders the entries from `from` on by id. Segments follow each other in time and ids rise, so
    /// mostly they are in order already.
    fn sort(&mut self, from: usize) {
        let ids = self.ids.get(from..).unwrap_or_default();
        if ids.is_sorted() {
            return;
        }
        let mut order: Vec<usize> = (from..self.len()).collect();
        order.sort_unstable_by_key(|at| self.ids.get(*at).copied());
        fn reorder<T: Copy>(column: &mut Vec<T>, from: usize, order: &[usize]) {
            let sorted: Vec<T> = order.iter().filter_map(|at| column.get(*at).copied()).collect();
            column.truncate(from);
            column.extend(sorted);
        }
        reorder(&mut self.ids, from, &order);
        reorder(&mut self.versions, from, &order);
        reorder(&mut self.places, from, &order);
        reorder(&mut self.active_us, from, &order);
        reorder(&mut self.accessed_us, from, &order);
        reorder(&mut self.counts, from, &order);
        reorder(&mut self.semantic, from, &order);
        reorder(&mut self.pinned, from, &order);
        reorder(&mut self.hot_bytes, from, &order);
        reorder(&mut self.warm8_bytes, from, &order);
        reorder(&mut self.warm4_bytes, from, &order);
        reorder(&mut self.standing, from, &order);
    }
}

/// What an archived entry is scored on.
pub fn inputs(row: &Row, access: Access) -> Inputs {
    Inputs {
        active_us: row.at.0.max(access.last.map_or(i64::MIN, |last| last.0)),
        accessed_us: access.last.unwrap_or(row.updated).0,
        count: u32::try_from(access.count).unwrap_or(u32::MAX),
        semantic: row.salience.unwrap_or(access.semantic),
    }
}

/// Where an archived entry stands now.
pub fn standing(view: &View, collection: CollectionId, id: EntryId, version: Lsn) -> Standing {
    match view.levels.tier(collection, id, version) {
        Tier::Hot => Standing::Hot,
        Tier::Cold => Standing::Cold,
        Tier::Warm => match view.levels.code(collection, id, version) {
            Some(code) if code.block.block.bits() == 4 => Standing::Warm4,
            _ => Standing::Warm8,
        },
    }
}
