//! The census: how many archived entries stand in which level, and how true Level 1 is.
//!
//! One walk over the row tables of the archive. Fidelity is the mean cosine between what codes decode
//! to and the exact vectors, over [`SAMPLES`] warm entries at equal distances: enough to see a codec
//! that is broken, few enough to be asked for every second.
//!
//! Never: counts an entry that is dead, or superseded by the log.

use crate::bytes::codec::codes;
use crate::pure::kernel::{self, PreparedQuery};
use crate::pure::quant::{self, Bits};
use crate::tiers::View;
use crate::words::error::Result;
use crate::words::id::CollectionId;
use crate::words::options::Metric;
use crate::words::record::Place;
use crate::words::tier::Tier;

/// Warm entries whose codes are compared with their vectors.
const SAMPLES: usize = 64;
/// Rows read at once.
const ROWS_AT_ONCE: u32 = 1024;

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Census {
    /// Entries of Level 0.
    pub hot: u64,
    /// Entries of Level 1.
    pub warm: u64,
    /// Entries of Level 2 alone.
    pub cold: u64,
    /// Mean cosine of sampled codes to the exact vectors.
    pub fidelity: Option<f64>,
}

/// Counts the archived entries of a view, expired ones included.
pub fn take(view: &View) -> Result<Census> {
    let mut census = Census::default();
    let mut warm: Vec<(CollectionId, Place)> = Vec::new();
    let mut stride = 1;
    let mut rows = Vec::new();
    for collection in view.collections.keys() {
        for (segment, group) in view.cold.groups(*collection) {
            let file = &segment.segment;
            let total = file.footer().groups.get(usize::from(group)).map_or(0, |g| g.rows);
            let Some(dead) = segment.dead.get(usize::from(group)) else { continue };
            for from in (0..total).step_by(ROWS_AT_ONCE as usize) {
                rows.clear();
                file.rows(group, from, ROWS_AT_ONCE.min(total - from), &mut rows)?;
                for row in &rows {
                    if dead.contains(row.number) || view.shadows(row.id) {
                        continue;
                    }
                    match view.levels.tier(*collection, row.id, row.version) {
                        Tier::Hot => census.hot += 1,
                        Tier::Cold => census.cold += 1,
                        Tier::Warm => {
                            if census.warm.is_multiple_of(stride) {
                                let place =
                                    Place { segment: file.number(), group, row: row.number };
                                warm.push((*collection, place));
                            }
                            census.warm += 1;
                        }
                    }
                }
                // Half of the samples go when there are twice too many, and every second comes.
                if warm.len() >= 2 * SAMPLES {
                    let mut keep = false;
                    warm.retain(|_| {
                        keep = !keep;
                        keep
                    });
                    stride *= 2;
                }
            }
        }
    }
    let mut sum = 0.0;
    let mut seen = 0_u32;
    for (collection, place) in warm {
        if let Some(cosine) = fidelity(view, collection, place)? {
            (sum, seen) = (sum + f64::from(cosine), seen + 1);
        }
    }
    census.fidelity = (seen > 0).then(|| sum / f64::from(seen));
    Ok(census)
}

/// How near the codes of an entry are to its vector; `None` when either cannot be read.
fn fidelity(view: &View, collection: CollectionId, place: Place) -> Result<Option<f32>> {
    let Some(segment) = view.cold.segments.get(&place.segment) else { return Ok(None) };
    let row = segment.segment.row(place.group, place.row)?;
    let Some(code) = view.levels.code(collection, row.id, row.version) else { return Ok(None) };
    let (Ok(Some(vector)), Ok(bytes)) =
        (segment.segment.vector(place.group, &row), code.block.block.row(code.row))
    else {
        return Ok(None);
    };
    let bits = if code.block.block.bits() == 4 { Bits::Four } else { Bits::Eight };
    let Some(layout) = codes::layout(vector.len() as u32).map(|l| l.with_bits(bits)) else {
        return Ok(None);
    };
    let mut decoded = vec![0.0; vector.len()];
    quant::decode(layout, bytes, &mut decoded);
    let norm = kernel::norm(&decoded);
    Ok(Some(kernel::score(Metric::Cosine, &PreparedQuery::new(&vector), &decoded, norm)))
}
