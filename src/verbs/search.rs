//! Search: the k best entries of a collection, exact, over RAM and archive.
//!
//! Steps: prepare the query once; go through the exact vectors of every archive group in blocks of
//! at most 1 MiB (cold vectors are read, never loaded whole); a row whose score would enter the
//! best k is then looked at: is it live, not superseded in RAM, not expired, does it pass the
//! filter. Looking only at would-be hits keeps filters and row reads off the path of the many.
//! Then the same over the records in RAM. Equal scores go to the lower id, so the answer depends
//! on nothing but the data.

use std::sync::Arc;

use crate::organs::archive::BodyReader;
use crate::pure::filter::Filter;
use crate::pure::kernel::{self, PreparedQuery};
use crate::pure::topk::TopK;
use crate::tiers::Copy;
use crate::tiers::assemble::{self, Want};
use crate::tiers::cold::{ColdRow, ColdSegment};
use crate::tiers::probe::Scope;
use crate::words::entry::{Entry, check_vector};
use crate::words::error::{Error, Result};
use crate::words::id::EntryId;
use crate::words::limits;
use crate::words::record::Place;

/// Vectors of a block take at most this much scratch.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Rows of a block at most: the row table of a block is 128 bytes a row.
const BLOCK_ROWS_MAX: u32 = 512;

/// What to search for.
///
/// ```
/// use pmll::{Filter, Query};
/// let query = Query::vector(vec![0.1, 0.2, 0.3])
///     .k(5)
///     .filter(Filter::parse(r#"{"speaker": "Caroline"}"#)?)
///     .min_score(0.2);
/// # Ok::<(), pmll::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a query does nothing until it is searched for"]
pub struct Query {
    pub(crate) vector: Vec<f32>,
    pub(crate) k: usize,
    pub(crate) filter: Option<Filter>,
    pub(crate) min_score: Option<f32>,
    pub(crate) want: Want,
}

impl Query {
    /// The ten entries nearest to a vector.
    pub fn vector(vector: impl Into<Vec<f32>>) -> Query {
        Query {
            vector: vector.into(),
            k: 10,
            filter: None,
            min_score: None,
            want: Want { vector: false, payload: true },
        }
    }

    /// How many hits, 1 to 1,048,576; 10 unless set.
    pub fn k(mut self, k: usize) -> Query {
        self.k = k;
        self
    }

    /// Only entries that match.
    pub fn filter(mut self, filter: Filter) -> Query {
        self.filter = Some(match self.filter {
            Some(already) => already.and(filter),
            None => filter,
        });
        self
    }

    /// Only hits with at least this score.
    pub fn min_score(mut self, score: f32) -> Query {
        self.min_score = Some(score);
        self
    }

    /// Whether hits carry their exact vector; not unless set.
    pub fn with_vector(mut self, yes: bool) -> Query {
        self.want.vector = yes;
        self
    }

    /// Whether hits carry their payload; they do unless set to false.
    pub fn with_payload(mut self, yes: bool) -> Query {
        self.want.payload = yes;
        self
    }
}

impl From<&[f32]> for Query {
    fn from(vector: &[f32]) -> Query {
        Query::vector(vector)
    }
}

impl From<&Vec<f32>> for Query {
    fn from(vector: &Vec<f32>) -> Query {
        Query::vector(vector.clone())
    }
}

impl From<Vec<f32>> for Query {
    fn from(vector: Vec<f32>) -> Query {
        Query::vector(vector)
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Hit {
    /// The entry.
    pub entry: Entry,
    /// Its score under the collection's metric; higher is better.
    pub score: f32,
    /// Whether the score was computed from the exact vector.
    pub exact: bool,
}

/// The answers, best first.
///
/// ```
/// # use pmll::{Draft, Store};
/// # let dir = tempfile::tempdir()?;
/// # let notes = Store::open(dir.path().join("memory"))?.collection("notes")?;
/// notes.put("a", Draft::text("north").vector([0.0, 1.0]))?;
/// notes.put("b", Draft::text("east").vector([1.0, 0.0]))?;
/// let hits = notes.search(vec![0.9, 0.1])?;
/// assert_eq!(hits[0].entry.text(), Some("east"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Hits(pub(crate) Vec<Hit>);

impl std::ops::Deref for Hits {
    type Target = [Hit];
    fn deref(&self) -> &[Hit] {
        &self.0
    }
}

impl IntoIterator for Hits {
    type Item = Hit;
    type IntoIter = std::vec::IntoIter<Hit>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[derive(Clone)]
enum Found {
    Hot(EntryId),
    Cold(Arc<ColdSegment>, Place),
}

/// Runs a query.
pub fn run(scope: &Scope<'_>, query: &Query) -> Result<Hits> {
    check_vector(&query.vector)?;
    if query.k == 0 || query.k > limits::K_MAX {
        return Err(Error::invalid(format!("k is {}; it takes 1 to {}", query.k, limits::K_MAX)));
    }
    if query.min_score.is_some_and(f32::is_nan) {
        return Err(Error::invalid("min_score is not a number"));
    }
    let Some(dim) = scope.def.spec.dim else { return Ok(Hits::default()) };
    if dim as usize != query.vector.len() {
        return Err(Error::invalid(format!(
            "a query has {} values, but collection {} has dimension {dim}",
            query.vector.len(),
            scope.def.name
        )));
    }
    let prepared = PreparedQuery::new(&query.vector);
    let score_of = |vector: &[f32]| {
        kernel::score(scope.def.spec.metric, &prepared, vector, kernel::norm(vector))
    };
    let mut best: TopK<Found> = TopK::new(query.k);
    let enters = |best: &TopK<Found>, score: f32| {
        query.min_score.is_none_or(|min| score >= min) && score >= best.threshold()
    };

    let stride = dim as usize * 4;
    let block = u32::try_from(BLOCK_BYTES_MAX / stride).unwrap_or(1).clamp(1, BLOCK_ROWS_MAX);
    let mut vectors = Vec::new();
    let mut rows = Vec::new();
    let mut scores: Vec<f32> = Vec::new();
    for (segment, group) in scope.view.cold.groups(scope.def.id) {
        let Some(dead) = segment.dead.get(usize::from(group)) else { continue };
        let count =
            segment.segment.footer().groups.get(usize::from(group)).map_or(0, |g| g.vectors);
        let mut bodies = BodyReader::new(&segment.segment, group);
        let mut from = 0;
        while from < count {
            let take = block.min(count - from);
            vectors.clear();
            segment.segment.vectors(group, from, take, &mut vectors)?;
            scores.clear();
            scores.extend(vectors.chunks_exact(dim as usize).map(score_of));
            rows.clear();
            for (score, at) in scores.iter().copied().zip(from..) {
                if !enters(&best, score) || dead.contains(at) {
                    continue;
                }
                if rows.is_empty() {
                    segment.segment.rows(group, from, take, &mut rows)?;
                }
                let Some(row) = rows.get((at - from) as usize) else { continue };
                if scope.view.shadows(row.id) {
                    continue;
                }
                let place = Place { segment: segment.segment.number(), group, row: at };
                let copy =
                    Copy::Cold(ColdRow { segment: Arc::clone(segment), place, row: row.clone() });
                if scope.admits(&copy, query.filter.as_ref(), Some(&mut bodies))? {
                    best.offer(score, row.id, Found::Cold(Arc::clone(segment), place));
                }
            }
            from += take;
        }
    }
    for hot in scope.view.hot(scope.def.id) {
        let Some(vector) = &hot.record.vector else { continue };
        // A record logged before its collection settled on another dimension cannot exist; one
        // from a damaged file can, and has no score.
        if vector.len() != dim as usize {
            continue;
        }
        let score = score_of(vector);
        if enters(&best, score)
            && scope.admits(&Copy::Hot(hot.clone()), query.filter.as_ref(), None)?
        {
            best.offer(score, hot.record.id, Found::Hot(hot.record.id));
        }
    }

    let mut hits = Vec::new();
    for (score, id, found) in best.into_sorted() {
        let copy = match found {
            Found::Hot(id) => scope.view.copy(id)?,
            Found::Cold(segment, place) => {
                let row = segment.segment.row(place.group, place.row)?;
                Some(Copy::Cold(ColdRow { segment, place, row }))
            }
        };
        let copy = copy.ok_or_else(|| Error::internal(format!("hit {id} vanished")))?;
        let entry = assemble::entry(&copy, scope.def, scope.access, query.want)?;
        hits.push(Hit { entry, score, exact: true });
    }
    Ok(Hits(hits))
}
