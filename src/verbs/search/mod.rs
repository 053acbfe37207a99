//! Search: the k best entries of a collection, over every level.
//!
//! Steps: check the query; go through what is archived, [`staged`] (sketches, codes, exact vectors)
//! or [`exact`] (all vectors) as [`Exactness`] asks and the number of rows suggests; then the
//! records that only the log has, each by its exact vector; read the entries of the hits. Equal
//! scores go to the lower id, so the answer depends on nothing but the data.

mod exact;
mod staged;

use std::sync::Arc;

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
use crate::words::options::{Element, Metric};
use crate::words::record::Place;

/// Up to so many archived rows of a collection are compared exactly whatever recall is asked: their
/// vectors take less time than the stages.
const EXACT_ROWS_MAX: u64 = 2048;

/// How sure a search has to be that it found the best.
///
/// ```
/// use pmll::{Exactness, Query};
/// let query = Query::vector(vec![0.1, 0.2]).exactness(Exactness::Exact);
/// assert_eq!(Exactness::default(), Exactness::Target(0.99));
/// # let _ = query;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Exactness {
    /// Rank by codes alone, and answer with their scores: no exact vector is read.
    Codes,
    /// Find this share of the true best k on average, in (0, 1]; every score is exact.
    Target(f32),
    /// Compare every vector.
    Exact,
}

impl Default for Exactness {
    fn default() -> Exactness {
        Exactness::Target(0.99)
    }
}

impl Exactness {
    /// How many candidates each stage takes for k hits. Measured on 64,287 passages of 384
    /// dimensions, k = 10: docs/decisions/0010-staged-search.md.
    fn widths(self, k: usize) -> Option<staged::Widths> {
        let (candidates, settled) = match self {
            Exactness::Exact => return None,
            Exactness::Codes => (30, 0),
            Exactness::Target(recall) if recall > 0.995 => (80, 8),
            Exactness::Target(recall) if recall > 0.95 => (30, 4),
            Exactness::Target(_) => (10, 3),
        };
        // Few hits need more candidates each: the tail of one query is not averaged out.
        let wide = k.saturating_mul(candidates).max(candidates * 5);
        Some(staged::Widths { candidates: wide, settled: k.saturating_mul(settled).min(wide) })
    }
}

/// Which hits of a search count as accessed.
///
/// ```
/// use pmll::{CountAccess, Query};
/// let query = Query::vector(vec![0.1, 0.2]).count_access(CountAccess::None);
/// assert_eq!(CountAccess::default(), CountAccess::Top1);
/// # let _ = query;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CountAccess {
    /// None: for searches that nobody's memory shall learn from.
    None,
    /// The best one. Counting all would let entries that are near to many questions, and of no use
    /// to most, reinforce themselves.
    #[default]
    Top1,
    /// All of them.
    All,
}

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
    pub(crate) exactness: Exactness,
    pub(crate) count_access: CountAccess,
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
            exactness: Exactness::default(),
            count_access: CountAccess::default(),
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

    /// How sure to be; 0.99 of the true best unless set.
    pub fn exactness(mut self, exactness: Exactness) -> Query {
        self.exactness = exactness;
        self
    }

    /// Which hits count as accessed; the first one unless set.
    pub fn count_access(mut self, which: CountAccess) -> Query {
        self.count_access = which;
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
    /// Bits a value of what the score was computed from: 32 or 16 when exact, else 8 or 4.
    pub bits: u8,
    /// Cosine to the query, for the semantic term of the score.
    pub(crate) cosine: Option<f32>,
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

/// Where a hit was found.
#[derive(Clone)]
enum Found {
    /// Only in the log so far.
    Logged(EntryId),
    /// In the archive, with an exact copy in RAM.
    Resident(Copy),
    /// In the archive.
    Cold(Arc<ColdSegment>, Place),
}

/// What a score was computed from.
#[derive(Clone, Copy)]
struct Score {
    bits: u8,
    exact: bool,
}

/// Bits of an exact value.
fn exact_bits(element: Element) -> u8 {
    match element {
        Element::F32 => 32,
        Element::F16 => 16,
    }
}

/// The cosine behind a score: `q.v / (|q| |v|)`, where `L2` scores are `-(|q|^2 + |v|^2 - 2 q.v)`.
fn cosine(metric: Metric, score: f32, copy: &Copy, query_norm: f32) -> Option<f32> {
    let norm = match copy {
        Copy::Hot(hot) => kernel::norm(hot.record.vector.as_deref()?),
        Copy::Cold(cold) => cold.row.norm,
    };
    let product = f64::from(norm) * f64::from(query_norm);
    if product <= 0.0 {
        return None;
    }
    let squares = f64::from(norm).powi(2) + f64::from(query_norm).powi(2);
    Some(match metric {
        Metric::Cosine => score,
        Metric::Dot => (f64::from(score) / product) as f32,
        Metric::L2 => ((f64::from(score) + squares) / 2.0 / product) as f32,
    })
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
    if let Exactness::Target(recall) = query.exactness
        && !(recall > 0.0 && recall <= 1.0)
    {
        return Err(Error::invalid(format!("a recall of {recall}: it takes more than 0, up to 1")));
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
    let mut best = TopK::new(query.k);
    let few = scope.view.cold.live_rows(scope.def.id) <= EXACT_ROWS_MAX;
    match query.exactness.widths(query.k) {
        Some(widths) if !few || query.exactness == Exactness::Codes => {
            staged::run(scope, query, &prepared, widths, &mut best)?;
        }
        _ => exact::archived(scope, query, &prepared, &mut best)?,
    }
    exact::logged(scope, query, &prepared, &mut best)?;

    let mut hits = Vec::new();
    for (score, id, (found, Score { bits, exact })) in best.into_sorted() {
        let copy = match found {
            Found::Logged(id) => scope.view.copy(id)?,
            Found::Resident(copy) => Some(copy),
            Found::Cold(segment, place) => {
                let row = segment.segment.row(place.group, place.row)?;
                Some(Copy::Cold(ColdRow { segment, place, row }))
            }
        };
        let copy = copy.ok_or_else(|| Error::internal(format!("hit {id} vanished")))?;
        let cosine = cosine(scope.def.spec.metric, score, &copy, prepared.norm());
        let entry = assemble::entry(scope.view, &copy, scope.def, scope.access, query.want)?;
        hits.push(Hit { entry, score, exact, bits, cosine });
    }
    Ok(Hits(hits))
}
