//! Policies: from what entries are worth and cost to a plan of moves.
//!
//! Ranks go by (score, last access, id), best first. The K best unpinned entries are protected: K is
//! what the rules of their collections ask for, or as many as fit half the budget. The others have a width by
//! r = score / best score: above 0.8 8 bits, from 0.4 on 4 bits, below Cold. A pinned entry never
//! falls below 8 bits and takes no part in ranks; one without a vector has no codes, and leaves RAM
//! when nothing else is left that could.
//!
//! [`Policy::Watermark`], when more is counted than the target:
//! 1. from the lowest rank up, entries go towards where rank and width put them, a level at a time,
//!    until the target is met;
//! 2. pressure, level by level, each from the lowest rank up and until the target is met:
//!    unprotected to 4 bits, unprotected to Cold, then protected to 8 bits, to 4 bits, to Cold, pinned
//!    from RAM to 8 bits, and last pinned ones without a vector from RAM;
//! 3. what scores tau + 0.05 and more, or was hit twice within a half-life, goes up while there is
//!    room, the best first ([`rise`]).
//!
//! `Paper` places everything by rank and width in one go; `PaperLiteral` also hides all below tau
//! from search. Both are there to be compared with.
//!
//! A policy is a function: the same view gives the same plan, and a plan carried out leaves nothing
//! to do. It never deletes, and moves an entry at most once.

mod rise;

use crate::words::error::{Error, Result};
use crate::words::id::EntryId;

/// How far above tau an entry has to score to go up: less, and it would go up and down again.
pub const HYSTERESIS: f32 = 0.05;
/// Share of the budget above which a pass starts by itself.
pub const TRIGGER_SHARE: f64 = 0.80;
/// Share of the budget a pass aims at.
pub const TARGET_SHARE: f64 = 0.60;
/// Share of the budget that is never exceeded.
pub const CAP_SHARE: f64 = 0.95;

/// How entries are chosen.
///
/// ```
/// assert_eq!(pmll::Policy::parse("paper-literal")?, pmll::Policy::PaperLiteral);
/// assert_eq!(pmll::Policy::default().name(), "watermark");
/// # Ok::<(), pmll::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Move no more than the budget needs, the least important first.
    #[default]
    Watermark,
    /// Place everything by rank and width, whatever the budget needs.
    Paper,
    /// As `Paper`, and everything below tau is left out of searches (never deleted). For comparison.
    PaperLiteral,
}

impl Policy {
    /// `watermark`, `paper` or `paper-literal`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Policy::Watermark => "watermark",
            Policy::Paper => "paper",
            Policy::PaperLiteral => "paper-literal",
        }
    }

    /// Reads a name back. Errors with `Invalid` naming the choices.
    pub fn parse(name: &str) -> Result<Policy> {
        [Policy::Watermark, Policy::Paper, Policy::PaperLiteral]
            .into_iter()
            .find(|policy| policy.name() == name)
            .ok_or_else(|| {
                let choices = "watermark, paper or paper-literal";
                Error::invalid(format!("policy {name:?}: choose {choices}"))
            })
    }
}

/// Where an entry stands, hottest first.
///
/// ```
/// use pmll::Standing;
/// assert!(Standing::Hot < Standing::Cold);
/// assert_eq!(Standing::Warm4.name(), "warm4");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Level 0: exact, in RAM.
    Hot,
    /// Level 1 with 8 bits a value.
    Warm8,
    /// Level 1 with 4 bits a value.
    Warm4,
    /// Level 2.
    Cold,
}

impl Standing {
    /// The next colder one; Cold for Cold.
    #[must_use]
    pub fn below(self) -> Standing {
        match self {
            Standing::Hot => Standing::Warm8,
            Standing::Warm8 => Standing::Warm4,
            Standing::Warm4 | Standing::Cold => Standing::Cold,
        }
    }

    /// `hot`, `warm8`, `warm4` or `cold`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Standing::Hot => "hot",
            Standing::Warm8 => "warm8",
            Standing::Warm4 => "warm4",
            Standing::Cold => "cold",
        }
    }
}

/// What a policy looks at: one place of each column per entry.
#[derive(Clone, Copy, Debug)]
pub struct PolicyView<'a> {
    /// Identity, the last word on ties.
    pub ids: &'a [EntryId],
    /// Scores in [0, 1].
    pub scores: &'a [f32],
    /// Last access, in microseconds.
    pub accessed_us: &'a [i64],
    /// Pinned ones.
    pub pinned: &'a [bool],
    /// Ones that were hit twice within a half-life.
    pub hit_twice: &'a [bool],
    /// Where they stand.
    pub standing: &'a [Standing],
    /// Ones that no plan moves, as damage holds them.
    pub stuck: &'a [bool],
    /// Bytes in Level 0; `u32::MAX` for an entry that may not stand there.
    pub hot_bytes: &'a [u32],
    /// Bytes in Level 1 with 8 bits; 0 for an entry without a vector, which has no place there.
    pub warm8_bytes: &'a [u32],
    /// Bytes in Level 1 with 4 bits.
    pub warm4_bytes: &'a [u32],
    /// Entries that are protected if they fit half the budget.
    pub protected_max: usize,
    /// Bytes counted besides these entries.
    pub other_bytes: u64,
    /// The budget.
    pub budget_bytes: u64,
}

/// A move of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Its place in the columns.
    pub at: usize,
    /// Where it stands.
    pub from: Standing,
    /// Where it goes.
    pub to: Standing,
}

/// What shall be done, and what it was decided by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Moves, at most one per entry, in order of the columns.
    pub moves: Vec<Move>,
    /// Entries that searches leave out, in order; `None` when the policy hides nothing.
    pub hidden: Option<Vec<usize>>,
    /// Number of protected entries.
    pub protected: usize,
    /// Score of the last protected one; 0 when there is none.
    pub tau: f32,
    /// Best score of an unpinned entry.
    pub score_max: f32,
    /// Bytes counted before.
    pub bytes_before: u64,
    /// Bytes counted afterwards, as far as rows say; blocks add what is dead in them.
    pub bytes_after: u64,
}

/// Decides.
#[must_use]
pub fn plan(policy: Policy, view: &PolicyView<'_>) -> Plan {
    let mut work = Work::new(view);
    match policy {
        Policy::Watermark => {
            work.leave_impossible();
            work.lift_pinned();
            work.place();
            work.press();
            work.promote();
        }
        Policy::Paper | Policy::PaperLiteral => {
            for at in work.order.clone().into_iter().chain(work.pinned.clone()) {
                let home = work.home(at);
                work.send(at, home);
            }
        }
    }
    work.into_plan(policy)
}

/// Where an entry stands in the order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seat {
    /// 1 for the best of the unpinned entries; `None` for a pinned one.
    pub rank: Option<usize>,
    /// Unpinned entries.
    pub of: usize,
    /// Whether it is protected.
    pub protected: bool,
    /// Where rank and width put it.
    pub home: Standing,
    /// Score of the last protected one.
    pub tau: f32,
}

/// The seat of one entry.
#[must_use]
pub fn seat(view: &PolicyView<'_>, entry: usize) -> Seat {
    let work = Work::new(view);
    let rank = work.order.iter().position(|n| *n == entry);
    Seat {
        rank: rank.map(|rank| rank + 1),
        of: work.order.len(),
        protected: rank.is_some_and(|rank| rank < work.protected),
        home: work.possible(entry, work.home(entry)),
        tau: work.tau,
    }
}

struct Work<'a> {
    view: &'a PolicyView<'a>,
    /// Unpinned entries, best first.
    order: Vec<usize>,
    pinned: Vec<usize>,
    /// How many of `order` are protected.
    protected: usize,
    tau: f32,
    score_max: f32,
    to: Vec<Standing>,
    bytes_before: u64,
    bytes: u64,
    target_bytes: u64,
}

fn at<T: Copy>(column: &[T], at: usize, otherwise: T) -> T {
    column.get(at).copied().unwrap_or(otherwise)
}

/// The better of two entries first: by score, last access, id.
fn by_rank(view: &PolicyView<'_>, a: usize, b: usize) -> std::cmp::Ordering {
    let rank = |n: usize| {
        let id = at(view.ids, n, EntryId(0));
        (at(view.scores, n, 0.0), at(view.accessed_us, n, 0), id)
    };
    let (a, b) = (rank(a), rank(b));
    b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(b.2.cmp(&a.2))
}

impl<'a> Work<'a> {
    fn new(view: &'a PolicyView<'a>) -> Work<'a> {
        let all = 0..view.ids.len();
        let (pinned, mut order): (Vec<usize>, Vec<usize>) =
            all.partition(|n| at(view.pinned, *n, false));
        order.sort_unstable_by(|a, b| by_rank(view, *a, *b));
        let mut room = view.budget_bytes / 2;
        let mut protected = 0_usize;
        for n in order.iter().take(view.protected_max) {
            // One that may not stand in RAM takes no room there.
            let bytes = match at(view.hot_bytes, *n, u32::MAX) {
                u32::MAX => 0,
                bytes => u64::from(bytes),
            };
            let Some(left) = room.checked_sub(bytes) else { break };
            (room, protected) = (left, protected + 1);
        }
        let score = |n: Option<&usize>| n.map_or(0.0, |n| at(view.scores, *n, 0.0));
        let tau = score(protected.checked_sub(1).and_then(|last| order.get(last)));
        let score_max = score(order.first());
        let mut work = Work {
            view,
            protected,
            tau,
            score_max,
            to: view.standing.to_vec(),
            order,
            pinned,
            bytes_before: view.other_bytes,
            bytes: view.other_bytes,
            target_bytes: (view.budget_bytes as f64 * TARGET_SHARE) as u64,
        };
        for n in 0..view.ids.len() {
            work.bytes += work.cost(n, work.stands(n));
        }
        work.bytes_before = work.bytes;
        work
    }

    fn stands(&self, n: usize) -> Standing {
        at(&self.to, n, Standing::Cold)
    }

    fn cost(&self, n: usize, standing: Standing) -> u64 {
        u64::from(match standing {
            // One that may not stand there keeps nothing there, whatever a stale set of ids says.
            Standing::Hot => match at(self.view.hot_bytes, n, 0) {
                u32::MAX => 0,
                bytes => bytes,
            },
            Standing::Warm8 => at(self.view.warm8_bytes, n, 0),
            Standing::Warm4 => at(self.view.warm4_bytes, n, 0),
            Standing::Cold => 0,
        })
    }

    /// The nearest place to the wished one that the entry can stand in: without a vector it has no
    /// codes, and a large payload may not be in RAM.
    fn possible(&self, n: usize, wish: Standing) -> Standing {
        match wish {
            Standing::Hot if at(self.view.hot_bytes, n, u32::MAX) == u32::MAX => {
                self.possible(n, Standing::Warm8)
            }
            Standing::Warm8 | Standing::Warm4 if at(self.view.warm8_bytes, n, 0) == 0 => {
                Standing::Cold
            }
            wish => wish,
        }
    }

    fn is_stuck(&self, n: usize) -> bool {
        at(self.view.stuck, n, false)
    }

    /// Sends an entry to a place, or the nearest that is possible; not one that is stuck.
    fn send(&mut self, n: usize, wish: Standing) {
        if self.is_stuck(n) {
            return;
        }
        let to = self.possible(n, wish);
        let from = self.stands(n);
        self.bytes = self.bytes - self.cost(n, from) + self.cost(n, to);
        if let Some(place) = self.to.get_mut(n) {
            *place = to;
        }
    }

    /// Where rank and width put an entry.
    fn home(&self, n: usize) -> Standing {
        if at(self.view.pinned, n, false) {
            return self.stands(n).min(Standing::Warm8);
        }
        let protected = self.order.get(..self.protected).unwrap_or_default();
        // The order is a handful of compares away; a look-up table would cost n bytes more.
        if self.is_protected(n, protected) { Standing::Hot } else { self.width(n) }
    }

    fn is_protected(&self, n: usize, protected: &[usize]) -> bool {
        protected.last().is_some_and(|last| by_rank(self.view, n, *last).is_le())
    }

    fn width(&self, n: usize) -> Standing {
        let score = at(self.view.scores, n, 0.0);
        let r = if self.score_max > 0.0 { score / self.score_max } else { 1.0 };
        if r > 0.8 {
            Standing::Warm8
        } else if r >= 0.4 {
            Standing::Warm4
        } else {
            Standing::Cold
        }
    }

    fn is_met(&self) -> bool {
        self.bytes <= self.target_bytes
    }

    /// Unprotected entries, lowest rank first.
    fn unprotected(&self) -> Vec<usize> {
        self.order.get(self.protected..).unwrap_or_default().iter().rev().copied().collect()
    }

    /// What stands where it may not goes to the nearest place where it may.
    fn leave_impossible(&mut self) {
        for n in 0..self.view.ids.len() {
            self.send(n, self.stands(n));
        }
    }

    /// A pinned entry whose code was lost gets another.
    fn lift_pinned(&mut self) {
        for n in self.pinned.clone() {
            let home = self.home(n);
            self.send(n, home);
        }
    }

    /// Step 1: down towards where rank and width put them, a level at a time: one entry that became
    /// very important lowers r of all others at once, and shall not send them from RAM to Cold.
    fn place(&mut self) {
        let unprotected = self.unprotected();
        for _ in [Standing::Warm8, Standing::Warm4, Standing::Cold] {
            for n in &unprotected {
                if self.is_met() {
                    return;
                }
                let (stands, home) = (self.stands(*n), self.width(*n));
                if home > stands {
                    self.send(*n, stands.below().min(home));
                }
            }
        }
    }

    /// Step 2: pressure, level by level.
    fn press(&mut self) {
        let unprotected = self.unprotected();
        let protected: Vec<usize> = self.order.iter().take(self.protected).rev().copied().collect();
        let has_codes = |n: &usize| at(self.view.warm8_bytes, *n, 0) > 0;
        let (coded, bare): (Vec<usize>, Vec<usize>) =
            self.pinned.iter().partition(|n| has_codes(n));
        let levels = [
            (&unprotected, Standing::Warm4),
            (&unprotected, Standing::Cold),
            (&protected, Standing::Warm8),
            (&protected, Standing::Warm4),
            (&protected, Standing::Cold),
            (&coded, Standing::Warm8),
            (&bare, Standing::Cold),
        ];
        for (entries, level) in levels {
            for n in entries {
                if self.is_met() {
                    return;
                }
                if level > self.stands(*n) {
                    self.send(*n, level);
                }
            }
        }
    }

    fn into_plan(self, policy: Policy) -> Plan {
        let view = self.view;
        let moves = self
            .to
            .iter()
            .zip(view.standing)
            .enumerate()
            .filter(|(_, (to, from))| to != from)
            .map(|(at, (to, from))| Move { at, from: *from, to: *to })
            .collect();
        let hidden = (policy == Policy::PaperLiteral).then(|| {
            let mut below = self.unprotected();
            below.sort_unstable();
            below
        });
        Plan {
            moves,
            hidden,
            protected: self.protected,
            tau: self.tau,
            score_max: self.score_max,
            bytes_before: self.bytes_before,
            bytes_after: self.bytes,
        }
    }
}

#[cfg(test)]
mod tests;
