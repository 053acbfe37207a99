//! Making pieces of the archive: of how many bits they are to be, and how one is made.
//!
//! A search says which ones it wants ([`WantedPieces`](crate::tiers::wanted::WantedPieces)); whoever has time makes
//! them, one by one. Made of a sealed segment, a piece is right as long as the segment is there.
//!
//! Damaged bytes: a piece whose codes are not whole, or cannot be read, is kept as one that knows nothing, so that
//! nobody tries again.
//!
//! Never: takes more than the share that pieces have.

use crate::bytes::codec::codes::{self, CHUNK_ROWS};
use crate::organs::archive::Segment;
use crate::pure::quant::RowLayout;
use crate::tiers::cold::Cold;
use crate::tiers::pieces::{Piece, Width};
use crate::tiers::probe::Stores;
use crate::tiers::wanted::PieceKey;
use crate::words::error::Result;

/// Of how many bits pieces are to be: codes as they are, where there is room for those of all rows of the store. What
/// one collection takes, the others have not.
pub(super) fn width(cold: &Cold, bytes_max: u64) -> Width {
    let groups = cold.segments.values().flat_map(|segment| &segment.segment.footer().groups);
    let bytes = groups
        .filter_map(|group| Some(Width::Whole.bytes_of(codes::layout(group.dim)?, group.vectors)));
    if bytes.sum::<u64>() <= bytes_max { Width::Whole } else { Width::Brief }
}

/// Makes a piece and keeps it, if its segment is there still, and there is room. `may_wait` says whether the disk may
/// be waited for; else what is not in memory is announced, and a piece that is wanted later is made then.
pub fn make_piece(cold: &Cold, stores: &Stores<'_>, key: &PieceKey, may_wait: bool) {
    let (pieces, bytes_max) = (&stores.caches.pieces, stores.shares.piece_bytes_max);
    let (group, from) = (key.0.group, key.1);
    let Some(segment) = cold.segments.get(&key.0.segment) else { return };
    let file = &segment.segment;
    let of = file.footer().groups.get(usize::from(group));
    let Some((vectors, layout)) = of.and_then(|of| Some((of.vectors, codes::layout(of.dim)?)))
    else {
        return;
    };
    let count = vectors.saturating_sub(from).min(CHUNK_ROWS as u32);
    let width = width(cold, bytes_max);
    // Its mean is there already, most likely; to find that out takes what there may be no room for.
    let bytes = width.bytes_of(layout, count) + width.mean_bytes(layout);
    let kept = pieces.get(&key.0);
    // Who wanted it may have looked before somebody made it.
    let is_there = kept.has(from)
        && kept.width_of(from).is_none_or(|there| there == width || there == Width::Whole);
    if is_there || !pieces.may_have_room(bytes, bytes_max, width) {
        return;
    }
    if !may_wait {
        let are_there = file.fetch_codes(group, from, count);
        if !file.fetch_rows(group, from, count) || !are_there {
            return;
        }
    }
    let made = read(file, group, from, count, (width, layout)).unwrap_or_else(|error| {
        // Whoever needs its bytes says what is wrong with them. To be tried again by every search it takes too long.
        tracing::warn!(%error, "codes of the archive are not kept in RAM");
        Piece::default()
    });
    if pieces.make_room(bytes, bytes_max, width) {
        pieces.add(&key.0, from, made, bytes_max);
    }
}

/// Reads some rows of a group, and what is known of them.
fn read(
    file: &Segment,
    group: u16,
    from: u32,
    count: u32,
    (width, layout): (Width, RowLayout),
) -> Result<Piece> {
    let (mut codes, mut rows) = (Vec::new(), Vec::new());
    file.codes(group, from, count, &mut codes)?;
    file.whole_rows(group, from..from + count, &mut rows)?;
    let mean = match width {
        Width::Whole => Vec::new(),
        Width::Brief => file.sketch_mean(group)?,
    };
    let fits = mean.len() == layout.dim() && mean.iter().all(|value| value.is_finite());
    if width == Width::Brief && !fits {
        // What a file says is no reason to panic, or to score rows by it: they have their codes read.
        return Ok(Piece::default());
    }
    Ok(Piece::new(width, layout, from, &codes, &rows, &mean))
}
