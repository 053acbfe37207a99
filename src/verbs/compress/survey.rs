//! The survey: every archived entry as the compressor sees it, in columns.
//!
//! One walk over the row tables of the archive (128 bytes a row, read in blocks) and the soft state
//! of the columns. Nothing is decompressed: what an entry would cost in RAM is known from the
//! lengths in its row. An entry takes 71 bytes here for the length of a run.
//!
//! Entries in the log's tables are not archived, so nothing may be demoted there; a row that such
//! an entry supersedes is passed over. So are entries whose time has passed, and rows that are
//! damaged: those are counted, and their entries stay where they are.
//!
//! Never: scores, decides, or reads a payload or vector.

use crate::bytes::codec::codes;
use crate::organs::archive::{Row, Segment};
use crate::organs::columns::Access;
use crate::pure::policy::Standing;
use crate::pure::quant::Bits;
use crate::pure::score::{Frame, Inputs, Newest, decayed};
use crate::tiers::View;
use crate::tiers::hot::resident_bytes;
use crate::words::error::{ErrorKind, Result};
use crate::words::id::{CollectionId, EntryId, Lsn, Timestamp};
use crate::words::limits;
use crate::words::record::Place;
use crate::words::rule::{Age, Rule};
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
    /// Accesses, decayed to the newest of the collection.
    pub heat: Vec<f32>,
    /// Whether the last two accesses lie within a half-life, and lately.
    pub hit_twice: Vec<bool>,
    /// The caller's salience, or else the greatest cosine to a query, decayed likewise.
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
    /// Rows that could not be read.
    pub damaged: u64,
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
    /// How it is scored.
    pub rule: Rule,
    /// What age is counted back from, in microseconds: its newest event, or now.
    pub newest_us: i64,
    /// What accesses are counted back from: its newest access or query, or now.
    pub newest_access_us: i64,
}

impl Stretch {
    /// What its entries are measured by.
    pub fn frame(&self) -> Frame {
        let Rule { weights, half_life_us, .. } = self.rule;
        Frame { weights, newest_us: self.newest_us, half_life_us }
    }

    /// Whether an entry was hit twice within a half-life, and lately.
    fn hit_twice(&self, gap_s: u32, accessed_us: i64) -> bool {
        let within = |us: i64| us <= self.rule.half_life_us;
        gap_s != u32::MAX
            && within(i64::from(gap_s).saturating_mul(1_000_000))
            && within(self.newest_access_us.saturating_sub(accessed_us))
    }
}

/// What is newest in a collection.
#[derive(Clone, Copy, Default)]
pub struct Epoch {
    now_us: i64,
    event: Newest,
    access: Newest,
}

impl Epoch {
    /// Nothing seen yet.
    pub fn new(now: Timestamp) -> Epoch {
        Epoch { now_us: now.0, ..Epoch::default() }
    }

    /// Looks at an entry.
    pub fn see(&mut self, row: &Row, access: &Access) {
        self.event.see(row.at.0, self.now_us);
        access.last.into_iter().for_each(|last| self.access.see(last.0, self.now_us));
        if access.near > 0.0 {
            self.access.see(access.near_at.0, self.now_us);
        }
    }

    /// What age is counted back from, and what accesses are, in microseconds.
    pub fn newest_us(&self, age: Age) -> (i64, i64) {
        match age {
            Age::Activity => (self.event.us(), self.access.us()),
            Age::Wall => (self.now_us, self.now_us),
        }
    }
}

/// What an entry is scored on, when its collection's newest access was at `newest_access_us`.
pub fn inputs(row: &Row, access: &Access, newest_access_us: i64) -> Inputs {
    let accessed = access.last.unwrap_or(row.updated).0;
    // To the second, as a survey keeps it.
    let near_at = access.near_at.0.div_euclid(1_000_000) * 1_000_000;
    let near = || decayed(access.near, near_at, newest_access_us);
    Inputs {
        active_us: row.at.0.max(access.last.map_or(i64::MIN, |last| last.0)),
        heat: decayed(access.heat, accessed, newest_access_us),
        semantic: row.salience.unwrap_or_else(near),
    }
}

/// What the entries of a collection are decayed by once the newest is known.
#[derive(Default)]
struct Times {
    epoch: Epoch,
    /// When the greatest cosine was seen, in seconds; `u32::MAX` for a salience, which never decays.
    near_s: Vec<u32>,
    /// Seconds between the last two accesses; `u32::MAX` when there were no two.
    gaps_s: Vec<u32>,
}

impl Survey {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Looks at every archived entry of a view.
    pub fn of(view: &View, now: Timestamp, access: &dyn Fn(EntryId) -> Access) -> Result<Survey> {
        let mut survey = Survey::default();
        for (collection, def) in &view.collections {
            let from = survey.len();
            let rule = Rule::of(|name| view.settings.get(name), &def.name);
            let mut times = Times { epoch: Epoch::new(now), ..Times::default() };
            let mut rows = Vec::new();
            for (segment, group) in view.cold.groups(*collection) {
                let file = &segment.segment;
                let Some(total) = file.footer().groups.get(usize::from(group)) else { continue };
                let Some(dead) = segment.dead.get(usize::from(group)) else { continue };
                let mut at = 0;
                while at < total.rows {
                    let count = ROWS_AT_ONCE.min(total.rows - at);
                    rows.clear();
                    survey.damaged += read_rows(file, group, at, count, &mut rows)?;
                    for row in &rows {
                        let hidden = row.expires.is_some_and(|expires| expires <= now);
                        if dead.contains(row.number) || hidden || view.shadows(row.id) {
                            continue;
                        }
                        let place = Place { segment: file.number(), group, row: row.number };
                        survey.take(view, *collection, place, row, access(row.id), &mut times);
                    }
                    at += count;
                }
            }
            let (newest_us, newest_access_us) = times.epoch.newest_us(rule.age);
            let (collection, to) = (*collection, survey.len());
            let stretch = Stretch { collection, from, to, rule, newest_us, newest_access_us };
            survey.decay(&stretch, &times);
            survey.sort(from);
            survey.collections.push(stretch);
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
        times: &mut Times,
    ) {
        let accessed = access.last.unwrap_or(row.updated).0;
        times.epoch.see(row, &access);
        let near_s = u32::try_from(access.near_at.0 / 1_000_000).unwrap_or(0);
        times.near_s.push(if row.salience.is_some() { u32::MAX } else { near_s });
        let payload = row.payload_len() as usize;
        let may_be_hot = payload <= limits::PAYLOAD_RESIDENT_BYTES_MAX;
        let dim = view.collections.get(&collection).and_then(|def| def.spec.dim).unwrap_or(0);
        let vector = if row.vector_index.is_some() { dim as usize * 4 } else { 0 };
        let bytes = resident_bytes(payload, vector, row.body.len as usize);
        self.ids.push(row.id);
        self.versions.push(row.version);
        self.places.push(place);
        self.active_us.push(row.at.0.max(access.last.map_or(i64::MIN, |last| last.0)));
        self.accessed_us.push(accessed);
        self.heat.push(access.heat);
        times.gaps_s.push(access.gap_s.unwrap_or(u32::MAX));
        self.hit_twice.push(false);
        self.semantic.push(row.salience.unwrap_or(access.near));
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
        let stands = match standing(view, collection, row.id, row.version) {
            Standing::Hot if !may_be_hot => coded(view, collection, row.id, row.version),
            stands => stands,
        };
        self.standing.push(stands);
    }

    /// Heat and nearness of a collection, each as of its own time, as of the newest access.
    fn decay(&mut self, stretch: &Stretch, times: &Times) {
        let (from, newest_us) = (stretch.from, stretch.newest_access_us);
        let accessed = self.accessed_us.get(from..).unwrap_or_default();
        let heat = self.heat.get_mut(from..).unwrap_or_default();
        for (heat, accessed) in heat.iter_mut().zip(accessed) {
            *heat = decayed(*heat, *accessed, newest_us);
        }
        let hits = self.hit_twice.get_mut(from..).unwrap_or_default();
        for (hit, (gap_s, accessed)) in hits.iter_mut().zip(times.gaps_s.iter().zip(accessed)) {
            *hit = stretch.hit_twice(*gap_s, *accessed);
        }
        let semantic = self.semantic.get_mut(from..).unwrap_or_default();
        for (near, at) in semantic.iter_mut().zip(&times.near_s).filter(|(_, at)| **at != u32::MAX)
        {
            *near = decayed(*near, i64::from(*at) * 1_000_000, newest_us);
        }
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
        reorder(&mut self.heat, from, &order);
        reorder(&mut self.hit_twice, from, &order);
        reorder(&mut self.semantic, from, &order);
        reorder(&mut self.pinned, from, &order);
        reorder(&mut self.hot_bytes, from, &order);
        reorder(&mut self.warm8_bytes, from, &order);
        reorder(&mut self.warm4_bytes, from, &order);
        reorder(&mut self.standing, from, &order);
    }
}

/// Appends the rows that can be read, and answers how many cannot: a stretch with a damaged row in it
/// is read row by row.
fn read_rows(
    file: &Segment,
    group: u16,
    from: u32,
    count: u32,
    rows: &mut Vec<Row>,
) -> Result<u64> {
    match file.rows(group, from, count, rows) {
        Err(error) if error.kind() == ErrorKind::Corrupt => {}
        read => return read.map(|()| 0),
    }
    let mut damaged = 0;
    for number in from..from.saturating_add(count) {
        match file.row(group, number) {
            Ok(row) => rows.push(row),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!(%error, "a row takes no part in compression");
                damaged += 1;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(damaged)
}

/// Where an archived entry stands now.
pub fn standing(view: &View, collection: CollectionId, id: EntryId, version: Lsn) -> Standing {
    match view.levels.tier(collection, id, version) {
        Tier::Hot => Standing::Hot,
        Tier::Warm | Tier::Cold => coded(view, collection, id, version),
    }
}

/// Where an entry stands by its codes alone.
fn coded(view: &View, collection: CollectionId, id: EntryId, version: Lsn) -> Standing {
    match view.levels.code(collection, id, version).map(|code| code.block.block.bits()) {
        Some(4) => Standing::Warm4,
        Some(_) => Standing::Warm8,
        None => Standing::Cold,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hit_twice_goes_by_the_gap_and_by_how_long_ago() {
        const DAY: i64 = 86_400_000_000;
        let stretch = Stretch {
            collection: CollectionId(1),
            from: 0,
            to: 1,
            rule: Rule::default(),
            newest_us: 0,
            newest_access_us: 100 * DAY,
        };
        let day = 86_400;
        assert!(stretch.hit_twice(7 * day, 93 * DAY));
        assert!(!stretch.hit_twice(7 * day + 1, 100 * DAY), "too far apart");
        assert!(!stretch.hit_twice(1, 92 * DAY), "too long ago");
        assert!(!stretch.hit_twice(u32::MAX, 100 * DAY), "once");
    }
}
