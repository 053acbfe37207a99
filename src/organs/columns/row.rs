//! One row of the columns, and how rows of the same id add up.
//!
//! Rows are increments: a file that is lost takes its own accesses with it and nothing else. A row and a
//! later one become one ([`Row::then`]):
//!
//! - counts add, exactly: that is what people are shown;
//! - heat, the count that scores go by, adds as well, once the earlier one has decayed to the later one's
//!   time: each access counts half after 30 days;
//! - the last access is the later row's, whatever its clock said: a clock that was wrong once is put right
//!   by the next access;
//! - the gap lies between the last two accesses;
//! - of the nearness to queries the greatest stays, with its own time, after both have decayed alike;
//! - a removal ends the id for good, as ids are never used again.
//!
//! Never: reads a clock or a file.

use crate::pure::score::decayed;
use crate::words::id::{EntryId, Timestamp};

/// The gap of an entry that was not accessed twice.
pub const NEVER: u32 = u32::MAX;

/// Accesses of one entry over some stretch of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Whose.
    pub id: EntryId,
    /// The last one.
    pub last: Timestamp,
    /// How many; stays at its maximum.
    pub count: u32,
    /// How many, each halved every 30 days up to the last one.
    pub heat: f32,
    /// Seconds between the last two; [`NEVER`] when there were none.
    pub gap_s: u32,
    /// When `near` was seen, in seconds since 1970.
    pub near_s: u32,
    /// Greatest cosine to a query that scored the entry, in units of 1/65,535; 0 when none did.
    pub near: u16,
    /// Whether the entry is gone.
    pub removed: bool,
}

impl Row {
    /// A row that says nothing yet.
    #[must_use]
    pub fn empty(id: EntryId) -> Row {
        let last = Timestamp(i64::MIN);
        Row { id, last, count: 0, heat: 0.0, gap_s: NEVER, near_s: 0, near: 0, removed: false }
    }

    /// One access.
    #[must_use]
    pub fn access(id: EntryId, now: Timestamp) -> Row {
        Row { last: now, count: 1, heat: 1.0, ..Row::empty(id) }
    }

    /// Nearness to a query, in [0, 1].
    #[must_use]
    pub fn nearness(id: EntryId, cosine: f32, now: Timestamp) -> Row {
        // In range, and NaN becomes 0.
        let near = (cosine.clamp(0.0, 1.0) * f32::from(u16::MAX)) as u16;
        Row { near, near_s: seconds(now.0), ..Row::empty(id) }
    }

    /// The end of an entry.
    #[must_use]
    pub fn gone(id: EntryId) -> Row {
        Row { removed: true, last: Timestamp(0), ..Row::empty(id) }
    }

    /// This row and a later one as one.
    #[must_use]
    pub fn then(self, later: Row) -> Row {
        if self.removed || later.removed {
            return Row::gone(self.id);
        }
        let (near, near_s) = self.nearest(later);
        let row = match (self.count, later.count) {
            (_, 0) => self,
            (0, _) => later,
            (count, more) => {
                let us = later.last.0.saturating_sub(self.last.0);
                // Between a clock that was set back lies nobody knows what.
                let gap_s = if us < 0 { NEVER } else { seconds(us) };
                Row {
                    count: count.saturating_add(more),
                    heat: decayed(self.heat, self.last.0, later.last.0) + later.heat,
                    gap_s: if more == 1 { gap_s } else { later.gap_s },
                    ..later
                }
            }
        };
        Row { near, near_s, ..row }
    }

    fn nearest(self, later: Row) -> (u16, u32) {
        let us = |seconds: u32| i64::from(seconds) * 1_000_000;
        let earlier = decayed(f32::from(self.near), us(self.near_s), us(later.near_s));
        if later.near == 0 {
            (self.near, self.near_s)
        } else if earlier > f32::from(later.near) {
            (self.near, self.near_s.min(later.near_s))
        } else {
            (later.near, later.near_s)
        }
    }
}

/// Whole seconds of some microseconds; below [`NEVER`].
fn seconds(us: i64) -> u32 {
    u32::try_from((us / 1_000_000).max(0)).unwrap_or(NEVER).min(NEVER - 1)
}

/// Two sorted streams of rows as one; rows of the same id are added up, the left one first.
pub struct Merge<A: Iterator<Item = Row>, B: Iterator<Item = Row>> {
    left: std::iter::Peekable<A>,
    right: std::iter::Peekable<B>,
}

/// Merges two sorted streams.
pub fn merge<A: Iterator<Item = Row>, B: Iterator<Item = Row>>(left: A, right: B) -> Merge<A, B> {
    Merge { left: left.peekable(), right: right.peekable() }
}

impl<A: Iterator<Item = Row>, B: Iterator<Item = Row>> Iterator for Merge<A, B> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        match (self.left.peek(), self.right.peek()) {
            (Some(a), Some(b)) if a.id == b.id => {
                let (a, b) = (self.left.next()?, self.right.next()?);
                Some(a.then(b))
            }
            (Some(a), Some(b)) if b.id < a.id => self.right.next(),
            (Some(_), _) => self.left.next(),
            (None, _) => self.right.next(),
        }
    }
}
