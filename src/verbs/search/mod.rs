//! Search: the k best entries of a collection, over every level.
//!
//! Steps: check the query; go through what is archived, [`staged`] (sketches, codes, exact vectors)
//! or by [`scan`] (all vectors) as [`Exactness`] asks and the number of rows suggests; then the
//! records that only the log has, each by its exact vector; read the entries of the [`hits`]. Equal
//! scores go to the lower id, so the answer depends on nothing but the data.
//!
//! Damaged bytes are no reason to fail: what is whole stands in for them, and what nothing stands
//! in for is left out and named.

mod cells;
mod choose;
mod gather;
mod ground;
mod hits;
mod lookup;
mod piecer;
mod rank;
mod scan;
mod staged;

pub use hits::{Hit, Hits, Near};
pub use piecer::make_piece;

use std::cell::Cell;

use crate::bytes::codec::codes;
use crate::pure::filter::Filter;
use crate::pure::kernel::{self, PreparedQuery};
use crate::pure::quant::CodeQuery;
use crate::tiers::assemble::Want;
use crate::tiers::probe::Scope;
use crate::words::entry::check_vector;
use crate::words::error::{Error, Result};
use crate::words::id::EntryId;
use crate::words::limits;

use ground::Ground;
use hits::{Answers, Found, Score};

/// Up to so many archived rows of a collection are compared exactly whatever recall is asked: their
/// vectors take less time than the stages.
const EXACT_ROWS_MAX: u64 = 2048;

/// Dimensions and number of the vectors that candidates were counted with.
const MEASURED_DIM: f64 = 384.0;
const MEASURED_ROWS: f64 = 64_287.0;

/// How sure a search has to be that it found the best.
///
/// ```
/// use pmll::{Exactness, Query};
/// let query = Query::vector(vec![0.1, 0.2]).exactness(Exactness::Codes(0.95));
/// assert_eq!(Exactness::default(), Exactness::Target(0.99));
/// # let _ = query;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Exactness {
    /// Find this share of the true best k on average, in (0, 1], by codes of 8 bits alone: no exact vector is
    /// read, and scores are those of codes, but for entries that are exact in RAM, and where codes are damaged
    /// ([`Hit::exact`](crate::Hit::exact) and [`Hit::bits`](crate::Hit::bits) say which). Where codes of 8 bits
    /// are in RAM a search for 0.95 takes a fifth to a third less time than with `Target`, one for 0.99 from a
    /// seventh less to a fourteenth more; where only 3 or 4 bits are, `Target` takes less. For more than 0.99
    /// no more is done: of 64,287 passages of 384 values codes take another row for one of the best ten in 6 of
    /// 1,000 cases, and more where vectors are near copies of each other or have values far larger than the
    /// others. Figures: `docs/decisions/0020-codes-with-a-recall.md`.
    Codes(f32),
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
    /// How many candidates sketches choose for k hits. Measured on 64,287 passages of 384
    /// dimensions, k = 10: docs/decisions/0014-cells.md, point 9, and for codes 0020-codes-with-a-recall.md.
    fn candidates(self, k: usize, dim: usize, rows: u64, in_cells: bool) -> Option<usize> {
        let candidates = match self {
            Exactness::Exact => return None,
            Exactness::Codes(recall) if recall > 0.95 => 20,
            Exactness::Target(recall) if recall > 0.995 => 80,
            Exactness::Target(recall) if recall > 0.95 => 15,
            Exactness::Codes(_) | Exactness::Target(_) => 7,
        };
        // Few hits need more candidates each: the tail of one query is not averaged out.
        let wide = k.saturating_mul(candidates).max(candidates * 5) as f64;
        // A sketch of d bits errs by 1 / sqrt(d): fewer dimensions than those measured take more.
        let coarse = (MEASURED_DIM / dim.max(1) as f64).sqrt().max(1.0);
        // And the k best of more rows lie closer together; less so for sketches that say what centroids leave
        // over. At a million in cells the cube root found 0.9603 and 0.9953 where 0.95 and 0.99 were asked for, the
        // square root 0.9701 and 0.9981, the fourth root 0.9519 and 0.993.
        let more = (rows as f64 / MEASURED_ROWS).max(1.0);
        let dense = if in_cells { more.cbrt() } else { more.sqrt() };
        Some((wide * coarse * dense) as usize)
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

/// A query that is under way.
struct Search<'a> {
    scope: &'a Scope<'a>,
    query: &'a Query,
    prepared: PreparedQuery,
    /// The query for codes of 8 bits.
    by_eight: CodeQuery,
    /// Whether it had to wait for the disk, which it will have to again.
    waits: Cell<bool>,
}

impl<'a> Search<'a> {
    fn new(scope: &'a Scope<'a>, query: &'a Query) -> Result<Search<'a>> {
        let layout = u32::try_from(query.vector.len()).ok().and_then(codes::layout);
        let layout =
            layout.ok_or_else(|| Error::internal("a query that codes have no room for"))?;
        let by_eight = CodeQuery::new(layout, scope.def.spec.metric, &query.vector);
        let (prepared, waits) = (PreparedQuery::new(&query.vector), Cell::new(false));
        Ok(Search { scope, query, prepared, by_eight, waits })
    }

    fn dim(&self) -> usize {
        self.prepared.vector().len()
    }

    /// Whether no exact vector is to be read, unless nothing else is whole.
    fn by_codes(&self) -> bool {
        matches!(self.query.exactness, Exactness::Codes(_))
    }

    /// Whether every row of the collection is asked for.
    fn is_unmasked(&self) -> bool {
        self.query.filter.is_none() && self.scope.namespace.is_root()
    }

    /// How many of the best are looked for: some may turn out to be no answers.
    fn wanted(&self) -> usize {
        self.query.k.saturating_add(self.query.k / 4 + 2)
    }

    /// What a scan scores by.
    fn usual(&self) -> Score {
        if self.by_codes() { Score::coded(8) } else { Score::exact(self.scope.def.spec.element) }
    }

    fn answers(&self) -> Answers {
        Answers::new(self.query.k, self.query.min_score)
    }

    fn exact(&self, vector: &[f32]) -> f32 {
        let norm = kernel::norm(vector);
        kernel::score(self.scope.def.spec.metric, &self.prepared, vector, norm)
    }

    /// Score of an archived row by its exact vector, from RAM if it is there.
    fn exact_of(&self, ground: &Ground<'_>, at: u32) -> Result<f32> {
        let row = ground.segment.segment.row(ground.group, at)?;
        let hot = self.scope.view.levels.resident(row.id, row.version);
        if let Some(vector) = hot.and_then(|hot| hot.record.vector.as_deref()) {
            return Ok(self.exact(vector));
        }
        let vector = ground.segment.segment.vector(ground.group, &row)?;
        let missing = || Error::internal(format!("row {at} of a group of vectors has none"));
        Ok(self.exact(&vector.ok_or_else(missing)?))
    }

    /// Score of an archived row by its codes there; `code` is scratch.
    fn code_of(&self, ground: &Ground<'_>, at: u32, code: &mut Vec<u8>) -> Result<f32> {
        ground.segment.segment.code(ground.group, at, code)?;
        Ok(self.by_eight.score(code))
    }
}

/// Runs a query, and reads the entries of its hits.
pub fn run(scope: &Scope<'_>, query: &Query) -> Result<Hits> {
    finish(scope, query, true, |search, score, _, found, of| hits::hit(search, score, found, of))
}

/// Runs a query, and says which entries are its hits.
pub fn run_ids(scope: &Scope<'_>, query: &Query) -> Result<Hits<Near>> {
    finish(scope, query, false, hits::near)
}

/// Runs a query; `reads` says whether `make` reads the entries.
fn finish<T>(
    scope: &Scope<'_>,
    query: &Query,
    reads: bool,
    make: impl Fn(&Search<'_>, f32, EntryId, Found, Score) -> Result<T>,
) -> Result<Hits<T>> {
    check(scope, query)?;
    if scope.def.spec.dim.is_none() {
        return Ok(Hits::default());
    }
    let search = Search::new(scope, query)?;
    let mut answers = search.answers();
    let rows = scope.view.cold.live_rows(scope.def.id);
    let few = rows <= EXACT_ROWS_MAX;
    let in_cells = scope.view.levels.cells.contains_key(&scope.def.id);
    match query.exactness.candidates(query.k, search.dim(), rows, in_cells) {
        Some(candidates) if !few || search.by_codes() => {
            staged::run(&search, candidates, &mut answers)?
        }
        _ => scan::all(&search, &ground::grounds(&search), &mut answers)?,
    }
    scan::logged(&search, &mut answers)?;
    let ahead = reads && search.waits.get();
    answers.into_hits(&search, ahead, |score, id, found, of| make(&search, score, id, found, of))
}

/// Whether a query makes sense in this collection; without vectors in it any does.
fn check(scope: &Scope<'_>, query: &Query) -> Result<()> {
    check_vector(&query.vector)?;
    if query.k == 0 || query.k > limits::K_MAX {
        return Err(Error::invalid(format!("k is {}; it takes 1 to {}", query.k, limits::K_MAX)));
    }
    if query.min_score.is_some_and(f32::is_nan) {
        return Err(Error::invalid("min_score is not a number"));
    }
    if let Exactness::Target(recall) | Exactness::Codes(recall) = query.exactness
        && !(recall > 0.0 && recall <= 1.0)
    {
        return Err(Error::invalid(format!("a recall of {recall}: it takes more than 0, up to 1")));
    }
    match scope.def.spec.dim {
        Some(dim) if dim as usize != query.vector.len() => Err(Error::invalid(format!(
            "a query has {} values, but collection {} has dimension {dim}",
            query.vector.len(),
            scope.def.name
        ))),
        _ => Ok(()),
    }
}
