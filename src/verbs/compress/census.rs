//! The census: how many archived entries stand in which level, how true each level is, and what share of
//! the scores is Cold.
//!
//! Two walks over the row tables of the archive: ages are counted back from the newest event, which
//! only the first finds out. No entry is kept, so a census costs time and no memory.
//!
//! Fidelity is the cosine between what a level holds in memory and the exact vectors, over [`SAMPLES`]
//! entries at equal distances for each width: enough to see a codec that is broken, few enough to be
//! asked for every second.
//!
//! Never: counts an entry that is dead, or superseded by the log.

use crate::bytes::codec::codes;
use crate::organs::archive::Row;
use crate::organs::columns::Access;
use crate::pure::kernel::{self, PreparedQuery};
use crate::pure::policy::Standing;
use crate::pure::quant::{self, Bits};
use crate::pure::score::{self, Frame};
use crate::tiers::View;
use crate::verbs::compress::survey::{Epoch, inputs, standing};
use crate::words::error::Result;
use crate::words::id::{CollectionId, EntryId, Timestamp};
use crate::words::options::Metric;
use crate::words::record::Place;
use crate::words::rule::Rule;

/// Entries of a width whose copies are compared with their vectors.
const SAMPLES: usize = 64;
/// Rows read at once.
const ROWS_AT_ONCE: u32 = 1024;

/// How near the copies in memory are to the exact vectors.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let store = pmll::Store::open(dir.path().join("memory"))?;
/// # store.collection("notes")?.put("a", pmll::Draft::text("one").vector([1.0, 2.0]))?;
/// let fidelity = store.stats()?.tiers[0].fidelity.expect("it holds a vector");
/// assert_eq!((fidelity.mean, fidelity.worst), (1.0, 1.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Fidelity {
    /// Mean cosine to the exact vectors.
    pub mean: f64,
    /// The least of them.
    pub worst: f64,
    /// Copies that were compared; 0 where all are exact by what they are.
    pub samples: u32,
}

impl Fidelity {
    /// That of exact vectors themselves.
    pub const EXACT: Fidelity = Fidelity { mean: 1.0, worst: 1.0, samples: 0 };

    fn of(cosines: &[f64]) -> Option<Fidelity> {
        let samples = u32::try_from(cosines.len()).ok().filter(|n| *n > 0)?;
        let mean = cosines.iter().sum::<f64>() / f64::from(samples);
        let worst = cosines.iter().copied().fold(f64::INFINITY, f64::min);
        Some(Fidelity { mean, worst, samples })
    }
}

/// Entries of one width, and how true they are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Width {
    /// Entries.
    pub entries: u64,
    /// Over 64 of them; `None` when there is none.
    pub fidelity: Option<Fidelity>,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Census {
    /// Entries of Level 0.
    pub hot: Width,
    /// Whether any of them has a vector.
    pub hot_vectors: bool,
    /// Entries of Level 1 with 8 bits a value.
    pub warm8: Width,
    /// Entries of Level 1 with 4 bits a value.
    pub warm4: Width,
    /// Entries of Level 2 alone.
    pub cold: u64,
    /// Whether any of them has a vector.
    pub cold_vectors: bool,
    /// Share of the sum of all scores that belongs to entries of Level 2 alone, in [0, 1].
    pub cold_score_mass: f64,
}

/// What scores are made of besides the rows.
pub struct Scoring<'a> {
    /// What time it is: expired entries have no score.
    pub now: Timestamp,
    /// Accesses of an entry.
    pub access: &'a dyn Fn(EntryId) -> Access,
}

impl Census {
    /// Entries of Level 1.
    pub fn warm(&self) -> u64 {
        self.warm8.entries + self.warm4.entries
    }

    /// Fidelity of Level 1: each width weighs as much as it has entries.
    pub fn warm_fidelity(&self) -> Option<Fidelity> {
        let widths = [self.warm8, self.warm4];
        let known = widths.iter().filter_map(|w| Some((w.entries as f64, w.fidelity?)));
        let weight: f64 = known.clone().map(|(entries, _)| entries).sum();
        let sum: f64 = known.clone().map(|(entries, f)| entries * f.mean).sum();
        let worst = known.clone().map(|(_, f)| f.worst).fold(f64::INFINITY, f64::min);
        let samples = known.map(|(_, f)| f.samples).sum();
        (weight > 0.0).then(|| Fidelity { mean: sum / weight, worst, samples })
    }
}

/// Entries at equal distances out of a stream of unknown length.
struct Sample {
    places: Vec<(CollectionId, Place)>,
    stride: u64,
    seen: u64,
}

impl Sample {
    fn new() -> Sample {
        Sample { places: Vec::new(), stride: 1, seen: 0 }
    }

    fn take(&mut self, collection: CollectionId, place: Place) {
        if self.seen.is_multiple_of(self.stride) {
            self.places.push((collection, place));
            // Half of the samples go when there are twice too many, and every second comes.
            if self.places.len() >= 2 * SAMPLES {
                let mut keep = false;
                self.places.retain(|_| {
                    keep = !keep;
                    keep
                });
                self.stride *= 2;
            }
        }
        self.seen += 1;
    }

    fn measure(&self, view: &View) -> Result<Width> {
        let mut cosines = Vec::new();
        for (collection, place) in &self.places {
            cosines.extend(cosine(view, *collection, *place)?);
        }
        Ok(Width { entries: self.seen, fidelity: Fidelity::of(&cosines) })
    }
}

/// Counts the archived entries of a view, expired ones included.
pub fn take(view: &View, scoring: &Scoring<'_>) -> Result<Census> {
    let mut census = Census::default();
    let (mut hot, mut warm8, mut warm4) = (Sample::new(), Sample::new(), Sample::new());
    let (mut cold_score, mut all_scores) = (0.0, 0.0);
    let expired = |row: &Row| row.expires.is_some_and(|expires| expires <= scoring.now);
    for (collection, def) in &view.collections {
        let mut epoch = Epoch::new(scoring.now);
        walk(view, *collection, &mut |_, row| {
            if !expired(row) {
                epoch.see(row, &(scoring.access)(row.id));
            }
        })?;
        let Rule { weights, half_life_us, age, .. } =
            Rule::of(|name| view.settings.get(name), &def.name);
        let (newest_us, newest_access_us) = epoch.newest_us(age);
        let frame = Frame { weights, newest_us, half_life_us };
        walk(view, *collection, &mut |place, row| {
            let standing = standing(view, *collection, row.id, row.version);
            match standing {
                Standing::Hot => {
                    hot.take(*collection, place);
                    census.hot_vectors |= row.vector_index.is_some();
                }
                Standing::Warm8 => warm8.take(*collection, place),
                Standing::Warm4 => warm4.take(*collection, place),
                Standing::Cold => {
                    census.cold += 1;
                    census.cold_vectors |= row.vector_index.is_some();
                }
            }
            if !expired(row) {
                let inputs = inputs(row, &(scoring.access)(row.id), newest_access_us);
                let score = f64::from(score::terms(&frame, inputs).total);
                all_scores += score;
                cold_score += if standing == Standing::Cold { score } else { 0.0 };
            }
        })?;
    }
    census.hot = hot.measure(view)?;
    census.warm8 = warm8.measure(view)?;
    census.warm4 = warm4.measure(view)?;
    census.cold_score_mass = if all_scores > 0.0 { cold_score / all_scores } else { 0.0 };
    Ok(census)
}

/// Visits every live archived entry of a collection.
fn walk(view: &View, collection: CollectionId, visit: &mut dyn FnMut(Place, &Row)) -> Result<()> {
    let mut rows = Vec::new();
    for (segment, group) in view.cold.groups(collection) {
        let file = &segment.segment;
        let total = file.footer().groups.get(usize::from(group)).map_or(0, |g| g.rows);
        let Some(dead) = segment.dead.get(usize::from(group)) else { continue };
        for from in (0..total).step_by(ROWS_AT_ONCE as usize) {
            rows.clear();
            file.rows(group, from, ROWS_AT_ONCE.min(total - from), &mut rows)?;
            for row in rows.iter().filter(|row| !dead.contains(row.number) && !view.shadows(row.id))
            {
                visit(Place { segment: file.number(), group, row: row.number }, row);
            }
        }
    }
    Ok(())
}

/// How near the copy of an entry in memory is to its vector; `None` when there is no copy, or either
/// cannot be read.
fn cosine(view: &View, collection: CollectionId, place: Place) -> Result<Option<f64>> {
    let Some(segment) = view.cold.segments.get(&place.segment) else { return Ok(None) };
    let row = segment.segment.row(place.group, place.row)?;
    let Ok(Some(exact)) = segment.segment.vector(place.group, &row) else { return Ok(None) };
    let Some(copy) = copy(view, collection, &row, exact.len()) else { return Ok(None) };
    // Also a vector of length 0, which has no cosine to anything.
    if copy == exact {
        return Ok(Some(1.0));
    }
    let norm = kernel::norm(&copy);
    let cosine = kernel::score(Metric::Cosine, &PreparedQuery::new(&exact), &copy, norm);
    Ok(Some(f64::from(cosine)))
}

/// The vector that Level 0 or 1 has of a row, as a search would see it.
fn copy(view: &View, collection: CollectionId, row: &Row, dim: usize) -> Option<Vec<f32>> {
    if let Some(hot) = view.levels.resident(row.id, row.version) {
        return hot.record.vector.as_ref().map(|vector| vector.to_vec());
    }
    let code = view.levels.code(collection, row.id, row.version)?;
    let bytes = code.block.block.row(code.row).ok()?;
    let bits = if code.block.block.bits() == 4 { Bits::Four } else { Bits::Eight };
    let layout = codes::layout(u32::try_from(dim).ok()?).map(|l| l.with_bits(bits))?;
    let mut decoded = vec![0.0; dim];
    quant::decode(layout, bytes, &mut decoded);
    Some(decoded)
}
