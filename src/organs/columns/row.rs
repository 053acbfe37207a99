//! One row of the columns, and how rows of the same id add up.
//!
//! Rows are increments: a file that is lost takes its own accesses with it and nothing else. The
//! latest access wins, counts add, the greatest cosine stays, a removal ends the id for good, as ids
//! are never used again.
//!
//! Never: reads a clock or a file.

use crate::words::id::{EntryId, Timestamp};

/// Accesses of one entry over some stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Whose.
    pub id: EntryId,
    /// The last one.
    pub last: Timestamp,
    /// How many; stays at its maximum.
    pub count: u32,
    /// Greatest cosine to a query that scored the entry, in units of 1/65,535; 0 when none did.
    pub semantic: u16,
    /// Whether the entry is gone.
    pub removed: bool,
}

impl Row {
    /// This row and a later one as one.
    #[must_use]
    pub fn then(self, later: Row) -> Row {
        if self.removed || later.removed {
            return Row { removed: true, count: 0, semantic: 0, last: Timestamp(0), ..self };
        }
        Row {
            last: self.last.max(later.last),
            count: self.count.saturating_add(later.count),
            semantic: self.semantic.max(later.semantic),
            ..self
        }
    }
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
