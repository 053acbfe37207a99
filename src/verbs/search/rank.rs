//! Ranking: what candidates are worth before any exact vector is read.
//!
//! 1. Where a candidate's bytes are: codes in the arena, or codes of the archive that are kept in RAM, or an
//!    exact copy in RAM, or else one small read of the archive. The [`Places`] of its group say so without a
//!    look at its row. Each search may take one piece of the archive's codes to be kept, as far as there
//!    is room and the system has it in memory: all at once would make the first one wait.
//! 2. Its score by them, and the bound that its exact score will not exceed.
//!
//! Candidates come in the order of their sketches; while some are scored, the bytes of the next ones
//! arrive, from memory or, all at once, from the disk. It ends where a sketch says that none of those left can
//! be among the best.
//!
//! Never: says whether a candidate is an answer.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::bytes::codec::codes::CHUNK_ROWS;
use crate::organs::archive::Row;
use crate::pure::quant::{self, Bits, CodeQuery};
use crate::pure::topk::TopK;
use crate::tiers::levels::WarmBlock;
use crate::tiers::places::{Known, PLACE_BYTES, Places, Shelf};
use crate::words::error::{ErrorKind, Result};
use crate::words::id::EntryId;
use crate::words::options::Metric;

use super::Search;
use super::choose::key;
use super::gather::Candidate;
use super::ground::Ground;
use super::hits::whole;

/// Candidates whose codes are asked for before the first of them is scored: codes stand anywhere in the
/// arena, and the processor fetches about as many lines at a time.
const AHEAD: usize = 16;
/// And so many more candidates ahead, where its codes stand is asked for.
const PLACES_AHEAD: usize = 8;
/// Candidates that are scored together.
const TOGETHER: usize = 4;
/// What places take besides four bytes and a bit a row: numbers of a few hundred blocks, and the heads of sets.
const PLACES_MORE_BYTES: u64 = 4096;
/// Standard deviations that a sketch is trusted to.
const SKETCH_TRUST: f32 = 2.1;

/// What is found out about a candidate.
pub(super) struct Ranked<'a> {
    pub candidate: Candidate,
    /// Its score by codes of so many bits; or why there is none.
    pub coded: Result<(f32, u8)>,
    pub copy: FastCopy<'a>,
}

/// What settles a candidate without a look at its row.
#[derive(Clone, Copy)]
pub(super) enum FastCopy<'a> {
    /// Its id, by which an exact copy in RAM is found, if there is one.
    Id(EntryId),
    /// Its block in the arena and the row there, where its row has no more to say than the block.
    Arena(&'a WarmBlock, usize),
    /// Nothing.
    None,
}

/// The candidates that may be among the best, and for each what its exact score will not exceed, but for a case
/// in some hundred.
pub(super) struct Ranking<'a> {
    pub ranked: Vec<Ranked<'a>>,
    pub bounds: Vec<(f32, u32)>,
}

/// How far a cosine may lie above what its sketch says. The estimate `f * (s . q)` errs by what of the query
/// lies along the difference of signs and values, at random directions with a standard deviation of
/// `sqrt(pi / 2 - 1) / sqrt(dim)` at most. Other metrics scale it by norms: there every candidate is ranked.
fn sketch_slack(search: &Search<'_>) -> f32 {
    match search.scope.def.spec.metric {
        Metric::Cosine => {
            SKETCH_TRUST * (std::f32::consts::FRAC_PI_2 - 1.0).sqrt() / (search.dim() as f32).sqrt()
        }
        Metric::Dot | Metric::L2 => f32::INFINITY,
    }
}

/// Where the codes of a group stand, or the ids of those without, if that is known or may be kept. Who asks
/// first is sent to the archive: an open store answers before it has read all rows.
fn kept_places(
    search: &Search<'_>,
    ground: &Ground<'_>,
    shelf: &Shelf<'_>,
) -> Result<Option<Arc<Places>>> {
    let (scope, key) = (search.scope, key(ground));
    let (cache, bytes_max) = (&scope.stores.caches.places, scope.stores.shares.place_bytes_max);
    match cache.get(&key) {
        _ if shelf.is_empty() && scope.view.levels.resident_len() == 0 => return Ok(None),
        Some(places) if places.fits(shelf) => return Ok(Some(places)),
        Some(_) => {}
        None => {
            cache.replace(&key, Arc::default(), 0, bytes_max);
            return Ok(None);
        }
    }
    // The set of rows that expire is a bit a row at most. What cannot be kept is not looked for.
    let rows = u64::from(ground.vectors);
    if !cache.has_room(rows * PLACE_BYTES + rows / 8 + PLACES_MORE_BYTES, bytes_max) {
        return Ok(None);
    }
    let rows = |from, end, out: &mut Vec<Row>| ground.whole_rows(from..end, out);
    let collection = scope.def.id;
    let places = Places::find(&scope.view.levels, shelf, collection, ground.vectors, rows)?;
    let (bytes, places) = (places.bytes(), Arc::new(places));
    cache.replace(&key, Arc::clone(&places), bytes, bytes_max);
    Ok(Some(places))
}

/// A candidate of which bytes were asked for.
struct Asked<'a> {
    candidate: Candidate,
    bytes: Bytes<'a>,
    copy: FastCopy<'a>,
}

/// What a candidate is scored by.
enum Bytes<'a> {
    /// Its codes in the arena, of so many bits.
    Arena(&'a [u8], u8),
    /// Its codes of 8 bits in a piece of the archive's that is kept.
    Piece,
    /// Its exact vector in RAM.
    Ram(&'a [f32]),
    /// Its codes as they were read from the archive, without a wait.
    Read(Vec<u8>),
    /// Its codes in the archive, which are on their way.
    Archive,
}

/// Codes of the archive that are kept.
type Piece = Arc<Vec<u8>>;
/// What a look found, once there was one.
type Looked<T> = Option<Option<T>>;

/// Where the bytes of candidates are looked up.
struct Lookup<'a, 'b> {
    search: &'b Search<'a>,
    grounds: &'b [Ground<'a>],
    shelf: Shelf<'a>,
    /// Of each ground, once it was asked for.
    places: Vec<Looked<Arc<Places>>>,
    /// Pieces of each ground, once they were asked for.
    pieces: Vec<Vec<Looked<Piece>>>,
    /// Whether a piece was read for this search.
    has_read: bool,
}

impl<'a> Lookup<'a, '_> {
    /// Finds what a candidate is scored by, and asks for the bytes.
    fn ask(&mut self, candidate: Candidate) -> Result<Asked<'a>> {
        let (bytes, copy) = self.find(candidate)?;
        Ok(Asked { candidate, bytes, copy })
    }

    /// Asks for what says where a candidate's codes stand, if that is known.
    fn look_ahead(&self, (number, at): Candidate) {
        if let Some(Some(Some(places))) = self.places.get(number as usize) {
            places.fetch(at);
        }
    }

    fn find(&mut self, (number, at): Candidate) -> Result<(Bytes<'a>, FastCopy<'a>)> {
        let Some(ground) = self.grounds.get(number as usize) else {
            return Ok((Bytes::Archive, FastCopy::None));
        };
        let mut copy = FastCopy::None;
        self.look_for_places(number, ground)?;
        if let Some(Some(Some(places))) = self.places.get(number as usize) {
            match places.known(&self.shelf, at) {
                Some(Known::Code(block, row)) => {
                    if let Ok(codes) = block.block.row(row) {
                        quant::fetch(codes);
                        if places.lasts(at) {
                            copy = FastCopy::Arena(block, row);
                        }
                        return Ok((Bytes::Arena(codes, block.block.bits()), copy));
                    }
                }
                Some(Known::Id(id)) => copy = FastCopy::Id(id),
                None => {}
            }
        }
        self.look_for_piece(number, ground, at / CHUNK_ROWS as u32)?;
        if let Some(codes) = self.in_piece((number, at)) {
            quant::fetch(codes);
            return Ok((Bytes::Piece, copy));
        }
        // Who asks for scores by codes has everybody ranked by them.
        let levels = &self.search.scope.view.levels;
        if let (FastCopy::Id(id), false) = (copy, self.search.by_codes())
            && let Some(hot) = levels.resident_of(id, &ground.versions())
            && let Some(vector) = hot.record.vector.as_deref()
        {
            quant::fetch(bytemuck::cast_slice(vector));
            return Ok((Bytes::Ram(vector), copy));
        }
        let mut code = Vec::new();
        match ground.segment.segment.code_if_cached(ground.group, at, &mut code) {
            Ok(true) => Ok((Bytes::Read(code), copy)),
            // What is wrong with them is said when it is their turn, if that comes.
            Ok(false) | Err(_) => Ok((Bytes::Archive, copy)),
        }
    }

    fn look_for_places(&mut self, number: u32, ground: &Ground<'_>) -> Result<()> {
        if let Some(known) = self.places.get_mut(number as usize)
            && known.is_none()
        {
            *known = Some(kept_places(self.search, ground, &self.shelf)?);
        }
        Ok(())
    }

    /// The codes of 8 bits of a candidate, if they are at hand.
    fn eight_bit_codes<'c>(&'c self, one: &'c Asked<'_>) -> Option<&'c [u8]> {
        match &one.bytes {
            Bytes::Arena(codes, bits) => (*bits == 8).then_some(*codes),
            Bytes::Piece => self.in_piece(one.candidate),
            Bytes::Read(codes) => Some(codes),
            Bytes::Ram(_) | Bytes::Archive => None,
        }
    }

    /// The codes of a candidate in a piece that was looked for, if it is kept.
    fn in_piece(&self, (number, at): Candidate) -> Option<&[u8]> {
        let pieces = self.pieces.get(number as usize)?;
        let piece = pieces.get(at as usize / CHUNK_ROWS)?.as_ref()?.as_ref()?;
        let row_bytes = self.search.by_eight.layout().row_bytes();
        let from = at as usize % CHUNK_ROWS * row_bytes;
        piece.get(from..from + row_bytes)
    }

    /// Codes of the archive that are kept. A piece of damaged ones is kept as an empty one.
    fn look_for_piece(&mut self, number: u32, ground: &Ground<'_>, piece: u32) -> Result<()> {
        let Some(pieces) = self.pieces.get_mut(number as usize) else { return Ok(()) };
        if pieces.is_empty() {
            pieces.resize(ground.vectors.div_ceil(CHUNK_ROWS as u32) as usize, None);
        }
        let Some(known) = pieces.get_mut(piece as usize).filter(|known| known.is_none()) else {
            return Ok(());
        };
        let stores = self.search.scope.stores;
        let (cache, bytes_max) = (&stores.caches.codes, stores.shares.code_bytes_max);
        let key = (key(ground), piece);
        let mut kept = cache.get(&key);
        let from = piece.saturating_mul(CHUNK_ROWS as u32);
        let count = ground.vectors.saturating_sub(from).min(CHUNK_ROWS as u32);
        let bytes = (count as usize * self.search.by_eight.layout().row_bytes()) as u64;
        if kept.is_none() && !self.has_read && cache.has_room(bytes, bytes_max) {
            self.has_read = true;
            let (file, mut codes) = (&ground.segment.segment, Vec::new());
            let last =
                file.code_if_cached(ground.group, from + count.saturating_sub(1), &mut codes);
            let made = match last {
                // A piece is for later: nobody waits for 400 KB now, the next search finds them.
                Ok(false) => {
                    file.will_read_codes(ground.group, from, count);
                    Ok(None)
                }
                _ => file.codes(ground.group, from, count, &mut codes).map(|()| Some(codes)),
            };
            let made = match made {
                Ok(made) => made,
                Err(error) if error.kind() == ErrorKind::Corrupt => Some(Vec::new()),
                // It may go another time, and whoever needs it now says what is wrong.
                Err(_) => None,
            };
            if let Some(codes) = made {
                let bytes = codes.len() as u64;
                kept = Some(cache.get_or_make(&key, bytes_max, || Ok((codes, bytes)))?);
            }
        }
        *known = Some(kept);
        Ok(())
    }
}

/// Stage 2: what the candidates are worth by their codes. Candidates come in order of their sketches; it
/// ends where a sketch says that none of those left can be among the best `wanted`.
pub(super) fn rank<'a>(
    search: &Search<'a>,
    grounds: &[Ground<'a>],
    chosen: &[(f32, Candidate)],
    wanted: usize,
) -> Result<Ranking<'a>> {
    let (scope, metric) = (search.scope, search.scope.def.spec.metric);
    let shelf = Shelf::new(&scope.view.levels, scope.def.id);
    let mut lookup = Lookup {
        search,
        grounds,
        shelf,
        places: vec![None; grounds.len()],
        pieces: vec![Vec::new(); grounds.len()],
        has_read: false,
    };
    let slack_of_sketches = sketch_slack(search);
    let mut best = TopK::new(wanted);
    let (mut ranked, mut bounds) = (Vec::new(), Vec::new());
    let four = || {
        let layout = search.by_eight.layout().with_bits(Bits::Four);
        CodeQuery::new(layout, metric, search.prepared.vector())
    };
    let (mut by_four, mut code) = (None, Vec::new());
    let may_enter = |sketch: f32, best: &TopK<()>| sketch + slack_of_sketches >= best.threshold();
    let (mut coming, mut asked) = (chosen.iter().enumerate(), VecDeque::with_capacity(AHEAD));
    let mut some: Vec<(f32, Asked<'_>)> = Vec::with_capacity(TOGETHER);
    loop {
        // While some are scored, the bytes of the next ones arrive.
        while asked.len() < AHEAD
            && let Some((nth, (sketch, candidate))) = coming.next()
            && may_enter(*sketch, &best)
        {
            if let Some((_, later)) = chosen.get(nth + PLACES_AHEAD) {
                lookup.look_ahead(*later);
            }
            asked.push_back((*sketch, lookup.ask(*candidate)?));
        }
        some.clear();
        some.extend(asked.drain(..TOGETHER.min(asked.len())));
        if !some.first().is_some_and(|(sketch, _)| may_enter(*sketch, &best)) {
            break;
        }
        let mut rows = [None; TOGETHER];
        for (row, (_, one)) in rows.iter_mut().zip(&some) {
            *row = lookup.eight_bit_codes(one);
        }
        let mut scores = [None; TOGETHER];
        if let [Some(a), Some(b), Some(c), Some(d)] = rows {
            scores = search.by_eight.score_four([a, b, c, d]).map(Some);
        }
        for ((_, one), (row, score)) in some.iter().zip(rows.into_iter().zip(scores)) {
            let Some(ground) = grounds.get(one.candidate.0 as usize) else { continue };
            let by_eight = |codes: &[u8]| {
                let score = score.unwrap_or_else(|| search.by_eight.score(codes));
                (Ok((score, 8)), search.by_eight.slack(codes))
            };
            let (coded, slack) = match (row, &one.bytes) {
                (Some(codes), _) => by_eight(codes),
                (None, Bytes::Arena(codes, _)) => {
                    let query = by_four.get_or_insert_with(four);
                    (Ok((query.score(codes), 4)), query.slack(codes))
                }
                (None, Bytes::Ram(vector)) => (Ok((search.exact(vector), 8)), 0.0),
                (None, Bytes::Piece | Bytes::Read(_) | Bytes::Archive) => {
                    let file = &ground.segment.segment;
                    match whole(file.code(ground.group, one.candidate.1, &mut code))? {
                        Ok(()) => by_eight(&code),
                        Err(damage) => (Err(damage), 0.0),
                    }
                }
            };
            // An exact vector stands for itself: who has no codes comes first.
            let bound = coded.as_ref().map_or(f32::INFINITY, |(score, _)| {
                // Which of equal ones counts, ids decide: here they need not be told apart.
                best.offer(score - slack, EntryId(0), ());
                if search.by_codes() { *score } else { score + slack }
            });
            // As many as are wanted are better for sure.
            if bound >= best.threshold() {
                bounds.push((bound, ranked.len() as u32));
                ranked.push(Ranked { candidate: one.candidate, coded, copy: one.copy });
            }
        }
    }
    Ok(Ranking { ranked, bounds })
}
