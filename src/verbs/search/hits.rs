//! What a search answers, and how it gathers it.
//!
//! [`Answers`] keeps the best k while the rows go by, and beside them what damaged bytes kept from
//! being an answer. At the end the entries of the best are read. Only damage that concerns the
//! answer is told: an entry that scores below the last hit is missed by nobody.
//!
//! Never: fails because of damaged bytes, or leaves something out without saying so.

use std::sync::Arc;

use crate::organs::archive;
use crate::pure::kernel;
use crate::pure::topk::TopK;
use crate::tiers::Copy;
use crate::tiers::assemble::{self, Want};
use crate::tiers::cold::ColdSegment;
use crate::tiers::hot::Hot;
use crate::words::entry::Entry;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::EntryId;
use crate::words::options::{Element, Metric};
use crate::words::record::Place;

use super::Search;
use super::ground::hottest;

/// Damaged entries that are named, at most: enough to see that it is not one, few enough to print.
const DAMAGED_MAX: usize = 32;

/// Hits whose bytes are asked for before the first of them is read.
const ASKED_AT_ONCE: usize = 64;

/// One answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Hit {
    /// The entry.
    pub entry: Entry,
    /// Its score under the collection's metric; higher is better.
    pub score: f32,
    /// Whether the score was computed from the exact vector. With `Target` and `Exact` it is,
    /// unless the vector's bytes are damaged.
    pub exact: bool,
    /// Bits a value of what the score was computed from: 32 or 16 when exact, else 8 or 4.
    pub bits: u8,
    /// Cosine to the query, for the semantic term of the score.
    pub(crate) cosine: Option<f32>,
}

/// One answer of [`Collection::search_ids`](crate::Collection::search_ids): which entry, and how near.
///
/// ```
/// # use pmll::{Draft, Store};
/// # let dir = tempfile::tempdir()?;
/// # let notes = Store::open(dir.path().join("memory"))?.collection("notes")?;
/// notes.put("a", Draft::text("north").vector([0.0, 1.0]))?;
/// let near = notes.search_ids(vec![0.1, 0.9])?;
/// let entry = notes.get_id(near[0].id)?.expect("nobody has deleted it");
/// assert_eq!(entry.text(), Some("north"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Near {
    /// The entry's identity.
    pub id: EntryId,
    /// Its score under the collection's metric; higher is better.
    pub score: f32,
    /// Whether the score was computed from the exact vector, as in [`Hit::exact`].
    pub exact: bool,
    /// Bits a value of what the score was computed from, as in [`Hit::bits`].
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
#[derive(Clone, Debug)]
pub struct Hits<T = Hit> {
    hits: Vec<T>,
    damaged: Vec<Error>,
}

impl<T> Default for Hits<T> {
    fn default() -> Hits<T> {
        Hits { hits: Vec::new(), damaged: Vec::new() }
    }
}

impl<T> Hits<T> {
    /// What would be among the hits, as far as one can tell, and cannot be read: one error for each
    /// such entry, naming file and offset. Empty means that nothing is missing. A damaged row does
    /// not say whose it is, so it is named even if the log has a newer version of its entry. The
    /// first 32 are named; [`Store::verify`](crate::Store::verify) finds every damaged place.
    ///
    /// ```
    /// # use pmll::{Draft, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let notes = Store::open(dir.path().join("memory"))?.collection("notes")?;
    /// notes.put("a", Draft::text("north").vector([0.0, 1.0]))?;
    /// let hits = notes.search(vec![0.9, 0.1])?;
    /// for error in hits.damaged() {
    ///     eprintln!("an entry is missing here: {error}");
    /// }
    /// assert!(hits.damaged().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn damaged(&self) -> &[Error] {
        &self.damaged
    }
}

impl<T> std::ops::Deref for Hits<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.hits
    }
}

impl<T> IntoIterator for Hits<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.hits.into_iter()
    }
}

/// Where a hit was found. A million of them may be kept, so not the row.
#[derive(Clone)]
pub(super) enum Found {
    /// In RAM.
    Hot(Hot),
    /// In the archive.
    Cold(Arc<ColdSegment>, Place),
}

impl From<Copy> for Found {
    fn from(copy: Copy) -> Found {
        match copy {
            Copy::Hot(hot) => Found::Hot(hot),
            Copy::Cold(cold) => Found::Cold(cold.segment, cold.place),
        }
    }
}

/// What a score was computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Score {
    /// Bits a value.
    pub bits: u8,
    /// Whether these are the exact values.
    pub exact: bool,
}

impl Score {
    /// From exact values.
    pub fn exact(element: Element) -> Score {
        let bits = match element {
            Element::F32 => 32,
            Element::F16 => 16,
        };
        Score { bits, exact: true }
    }

    /// From codes.
    pub fn coded(bits: u8) -> Score {
        Score { bits, exact: false }
    }
}

/// Tells damage from all other errors: those end a search.
pub(super) fn whole<T>(result: Result<T>) -> Result<Result<T, Error>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Err(error)),
        Err(error) => Err(error),
    }
}

/// What a search has found so far.
pub(super) struct Answers {
    best: TopK<(Found, Score)>,
    min_score: f32,
    /// Damage with the score that the entry would have. Ids are not always known: the order in
    /// which it was met stands for them.
    lost: TopK<Error>,
    met: u64,
    /// The first damage that something else stood in for.
    healed: Option<Error>,
}

impl Answers {
    /// Nothing yet.
    pub fn new(k: usize, min_score: Option<f32>) -> Answers {
        Answers {
            best: TopK::new(k),
            min_score: min_score.unwrap_or(f32::NEG_INFINITY),
            lost: TopK::new(DAMAGED_MAX),
            met: 0,
            healed: None,
        }
    }

    /// Makes room for the best at once.
    pub fn reserve(&mut self) {
        self.best.reserve();
    }

    /// Whether something with this score may become a hit.
    pub fn enters(&self, score: f32) -> bool {
        score >= self.min_score && score >= self.best.threshold()
    }

    /// Takes an answer if it is one of the best so far.
    pub fn offer(&mut self, score: f32, id: EntryId, found: Found, of: Score) {
        if score >= self.min_score {
            self.best.offer(score, id, (found, of));
        }
    }

    /// Notes what cannot be answered, with the score it would have; infinity if nobody can tell.
    pub fn lose(&mut self, score: f32, damage: Error) {
        if score >= self.min_score {
            self.met += 1;
            self.lost.offer(score, EntryId(self.met), damage);
        }
    }

    /// Notes damage that costs time or exactness, but no answer.
    pub fn heal(&mut self, damage: Error) {
        self.healed.get_or_insert(damage);
    }

    /// What is wanted of the best: `make` gets score, id and where it was found. If `ahead`, what it reads is asked for
    /// before, for some of them at a time.
    pub fn into_hits<T>(
        self,
        search: &Search<'_>,
        ahead: bool,
        make: impl Fn(f32, EntryId, Found, Score) -> Result<T>,
    ) -> Result<Hits<T>> {
        let last = self.best.threshold();
        let lost = self.lost.into_sorted().into_iter().filter(|(score, ..)| *score >= last);
        let mut damaged: Vec<Error> = lost.map(|(.., error)| error).collect();
        let mut hits = Vec::new();
        let mut sorted = self.best.into_sorted().into_iter();
        while !sorted.as_slice().is_empty() {
            if ahead {
                ask_for(search.query.want, sorted.as_slice());
            }
            for (score, id, (found, of)) in sorted.by_ref().take(ASKED_AT_ONCE) {
                match whole(make(score, id, found, of))? {
                    Ok(hit) => hits.push(hit),
                    Err(error) => damaged.push(error),
                }
            }
        }
        let missing = damaged.len();
        damaged.truncate(DAMAGED_MAX);
        if let Some(error) = damaged.first().or(self.healed.as_ref()) {
            let collection = &*search.scope.def.name;
            tracing::warn!(%error, collection, missing, "a search met damaged bytes");
        }
        Ok(Hits { hits, damaged })
    }
}

/// Asks for what the first of some hits are read from.
fn ask_for(want: Want, hits: &[(f32, EntryId, (Found, Score))]) {
    let cold = hits.iter().take(ASKED_AT_ONCE).filter_map(|(.., (found, _))| match found {
        Found::Hot(_) => None,
        Found::Cold(cold, place) => Some((&*cold.segment, place.group, place.row)),
    });
    archive::ask_for(&cold.collect::<Vec<_>>(), want.payload, want.vector);
}

fn copy_of(search: &Search<'_>, found: Found) -> Result<Copy> {
    Ok(match found {
        Found::Hot(hot) => Copy::Hot(hot),
        Found::Cold(segment, place) => {
            let row = segment.segment.row(place.group, place.row)?;
            hottest(search.scope.view, &segment, place, row)
        }
    })
}

/// Reads the entry.
pub(super) fn hit(search: &Search<'_>, score: f32, found: Found, of: Score) -> Result<Hit> {
    let (scope, query) = (search.scope, search.query);
    let copy = copy_of(search, found)?;
    let cosine = cosine(scope.def.spec.metric, score, &copy, search.prepared.norm());
    let entry = assemble::entry(scope.view, &copy, scope.def, scope.access, query.want)?;
    Ok(Hit { entry, score, exact: of.exact, bits: of.bits, cosine })
}

/// Reads nothing, or the norm where the score is no cosine.
pub(super) fn near(
    search: &Search<'_>,
    score: f32,
    id: EntryId,
    found: Found,
    of: Score,
) -> Result<Near> {
    let cosine = match search.scope.def.spec.metric {
        // A zero vector has no cosine, and a score of 0.
        Metric::Cosine => Some(score).filter(|score| *score != 0.0),
        metric => cosine(metric, score, &copy_of(search, found)?, search.prepared.norm()),
    };
    Ok(Near { id, score, exact: of.exact, bits: of.bits, cosine })
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
