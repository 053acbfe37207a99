//! Compression: one run of the recursive compressor, from scores to sealed blocks.
//!
//! [`Run::begin`] surveys and scores once; [`Run::plan`] asks the policy; [`Run::step`] carries a plan
//! out on the levels of a view and answers the next ones, for the caller to publish:
//! 1. entries that leave Level 0 lose their exact copy, entries that enter it are read back whole from
//!    the archive;
//! 2. Level 1 is packed (`tiers/packer`): new blocks are on disk before anybody sees them;
//! 3. the caller publishes, and only then removes the blocks that do not count any more.
//!
//! [`Run::sweep`] comes before the first plan: what is dead in blocks leaves RAM before anybody decides
//! how much of the living has to.
//!
//! A move that damage forbids is left out: the entry stays where it stands for the rest of the run, and
//! [`Run::damaged`] counts it. What is rotten keeps nothing else from moving.
//!
//! Nothing here is truth: the archive holds every entry whole before a run begins, so that a crash
//! anywhere costs rank, and a move that was not made is made by the next run.
//!
//! Never: deletes or changes an entry, or moves one that the log knows a newer version of.

pub mod census;
pub mod survey;

use std::sync::Arc;

use crate::organs::columns::Access;
use crate::pure::policy::{self, Plan, Policy, PolicyView, Seat, Standing};
use crate::pure::score::{self, Columns};
use crate::tiers::View;
use crate::tiers::levels::Levels;
use crate::tiers::packer::{self, Wanted, Yard};
use crate::words::error::{ErrorKind, Result};
use crate::words::id::{EntryId, Timestamp};
use survey::{Stretch, Survey};

/// A run: what is the same for all its passes.
pub struct Run {
    /// Every archived entry.
    pub survey: Survey,
    /// Their scores.
    pub scores: Vec<f32>,
    /// Entries that damage keeps where they are.
    stuck: Vec<bool>,
}

/// What a step made.
#[derive(Debug, Default)]
pub struct Stepped {
    /// The levels that follow.
    pub levels: Levels,
    /// Blocks to be removed once nobody new can see them.
    pub removed: Vec<u64>,
    /// Bytes written to new blocks.
    pub bytes: u64,
}

impl Run {
    /// Surveys and scores.
    pub fn begin(view: &View, now: Timestamp, access: &dyn Fn(EntryId) -> Access) -> Result<Run> {
        let survey = Survey::of(view, now, access)?;
        let mut scores = vec![0.0; survey.len()];
        for stretch in &survey.collections {
            let part = stretch.from..stretch.to;
            let columns = Columns {
                active_us: survey.active_us.get(part.clone()).unwrap_or_default(),
                heat: survey.heat.get(part.clone()).unwrap_or_default(),
                semantic: survey.semantic.get(part.clone()).unwrap_or_default(),
            };
            if let Some(scores) = scores.get_mut(part) {
                score::scores(&stretch.frame(), &columns, scores);
            }
        }
        let stuck = vec![false; survey.len()];
        Ok(Run { survey, scores, stuck })
    }

    /// What the policy wants, from where the entries stand. `counted` is all that counts against
    /// the budget now, these entries included.
    pub fn plan(&self, policy: Policy, counted_bytes: u64, budget_bytes: u64) -> Plan {
        policy::plan(policy, &self.policy_view(counted_bytes, budget_bytes))
    }

    /// Entries that damage kept from being looked at or moved, so far.
    pub fn damaged(&self) -> u64 {
        self.survey.damaged + self.stuck.iter().filter(|stuck| **stuck).count() as u64
    }

    fn policy_view(&self, counted_bytes: u64, budget_bytes: u64) -> PolicyView<'_> {
        let survey = &self.survey;
        PolicyView {
            ids: &survey.ids,
            scores: &self.scores,
            accessed_us: &survey.accessed_us,
            pinned: &survey.pinned,
            hit_twice: &survey.hit_twice,
            standing: &survey.standing,
            stuck: &self.stuck,
            hot_bytes: &survey.hot_bytes,
            warm8_bytes: &survey.warm8_bytes,
            warm4_bytes: &survey.warm4_bytes,
            other_bytes: counted_bytes.saturating_sub(self.bytes()),
            protected_max: self.protected_max(),
            budget_bytes,
        }
    }

    /// What the collections ask for, each for its share of its own unpinned entries.
    fn protected_max(&self) -> usize {
        let ask = |stretch: &Stretch| {
            let pinned = self.survey.pinned.get(stretch.from..stretch.to).unwrap_or_default();
            let unpinned = pinned.iter().filter(|pinned| !**pinned).count();
            unpinned as f64 * stretch.rule.protected_share
        };
        // The sum is a little off what it would be in one product.
        (self.survey.collections.iter().map(ask).sum::<f64>() - 1e-9).ceil().max(0.0) as usize
    }

    /// Bytes of all entries where they stand.
    fn bytes(&self) -> u64 {
        let survey = &self.survey;
        let columns = [&survey.hot_bytes, &survey.warm8_bytes, &survey.warm4_bytes];
        let cost = |(n, standing): (usize, &Standing)| {
            let column = match standing {
                Standing::Hot => columns[0],
                Standing::Warm8 => columns[1],
                Standing::Warm4 => columns[2],
                Standing::Cold => return 0,
            };
            u64::from(column.get(n).copied().unwrap_or(0))
        };
        survey.standing.iter().enumerate().map(cost).sum()
    }

    /// The score of one entry, term by term.
    pub fn terms(&self, at: usize) -> score::Score {
        let survey = &self.survey;
        let stretch = survey.collections.iter().find(|s| (s.from..s.to).contains(&at));
        let Some(stretch) = stretch else { return score::Score::default() };
        let inputs = score::Inputs {
            active_us: survey.active_us.get(at).copied().unwrap_or(0),
            heat: survey.heat.get(at).copied().unwrap_or(0.0),
            semantic: survey.semantic.get(at).copied().unwrap_or(0.0),
        };
        score::terms(&stretch.frame(), inputs)
    }

    /// Where one entry stands in the order, and where rank and width put it.
    pub fn seat(&self, at: usize, budget_bytes: u64) -> Seat {
        policy::seat(&self.policy_view(self.bytes(), budget_bytes), at)
    }

    /// The place of an entry in the columns.
    pub fn find(&self, id: EntryId) -> Option<usize> {
        self.survey.ids.iter().position(|known| *known == id)
    }

    /// Writes every block anew, as the entries stand. `next` is a number that no block has had.
    pub fn repack(&mut self, yard: &Yard<'_>, view: &View, next: u64) -> Result<Stepped> {
        let mut levels = (*view.levels).clone();
        let wanted = self.wanted();
        let packed = packer::pack_anew(yard, &view.cold, &levels.blocks, next, &wanted)?;
        self.strand(&packed.skipped);
        levels.blocks = packed.blocks;
        Ok(Stepped { levels, removed: packed.removed, bytes: packed.bytes })
    }

    /// Lets go what counts without being of use: blocks of which more than a quarter is dead, as
    /// those of removed, replaced and expired entries and of dropped collections, and ids in the hot
    /// set that may not be hot. `None` when there is nothing of the kind. `next` is a number that no
    /// block has had.
    pub fn sweep(&mut self, yard: &Yard<'_>, view: &View, next: u64) -> Result<Option<Stepped>> {
        let wanted = self.wanted();
        let idle: Vec<u64> = self.never_hot().filter(|id| view.levels.hot.contains(*id)).collect();
        if idle.is_empty() && !packer::has_victims(&view.levels.blocks, &wanted) {
            return Ok(None);
        }
        let mut levels = (*view.levels).clone();
        let hot = Arc::make_mut(&mut levels.hot);
        idle.iter().for_each(|id| {
            hot.remove(*id);
        });
        let packed = packer::pack(yard, &view.cold, &levels.blocks, next, &wanted)?;
        self.strand(&packed.skipped);
        levels.blocks = packed.blocks;
        Ok(Some(Stepped { levels, removed: packed.removed, bytes: packed.bytes }))
    }

    /// Entries that may not stand in Level 0.
    fn never_hot(&self) -> impl Iterator<Item = u64> {
        let rows = self.survey.ids.iter().zip(&self.survey.hot_bytes);
        rows.filter(|(_, bytes)| **bytes == u32::MAX).map(|(id, _)| id.0)
    }

    /// Damage keeps an entry where it is.
    fn hold(&mut self, at: usize) {
        if let Some(stuck) = self.stuck.get_mut(at) {
            *stuck = true;
        }
    }

    fn is_stuck(&self, at: usize) -> bool {
        self.stuck.get(at).copied().unwrap_or(false)
    }

    /// Entries that were to stand in Level 1 and cannot: the archive alone has them now.
    fn strand(&mut self, skipped: &[EntryId]) {
        for id in skipped {
            let Some(at) = self.find(*id) else { continue };
            self.hold(at);
            if let Some(standing) = self.survey.standing.get_mut(at) {
                *standing = Standing::Cold;
            }
        }
    }

    /// Carries a plan out on the levels of `view`. `next` is a number that no block has had.
    pub fn step(
        &mut self,
        yard: &Yard<'_>,
        view: &View,
        next: u64,
        plan: &Plan,
    ) -> Result<Stepped> {
        // 1. What goes up to RAM is read first: what cannot be read stays where it is.
        let mut levels = (*view.levels).clone();
        for change in plan.moves.iter().filter(|change| change.to == Standing::Hot) {
            match self.fetch(view, change.at, &mut levels) {
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    tracing::warn!(%error, "a damaged entry stays in its level");
                    self.hold(change.at);
                }
                read => read?,
            }
        }
        for change in &plan.moves {
            if self.is_stuck(change.at) {
                continue;
            }
            if let Some(standing) = self.survey.standing.get_mut(change.at) {
                *standing = change.to;
            }
        }
        // 2. What stands in Level 1 is written; what has no codes left stays in RAM if it was there.
        let packed = packer::pack(yard, &view.cold, &levels.blocks, next, &self.wanted())?;
        self.strand(&packed.skipped);
        levels.blocks = packed.blocks;
        // 3. Only then do exact copies go.
        let hot = Arc::make_mut(&mut levels.hot);
        let mut gone = Vec::new();
        for change in &plan.moves {
            let Some(id) = self.survey.ids.get(change.at) else { continue };
            let stuck = self.is_stuck(change.at);
            if change.to == Standing::Hot {
                if !stuck {
                    hot.insert(id.0);
                }
            } else if stuck && change.from == Standing::Hot {
                if let Some(standing) = self.survey.standing.get_mut(change.at) {
                    *standing = Standing::Hot;
                }
            } else {
                hot.remove(id.0);
                gone.push(*id);
            }
        }
        self.never_hot().for_each(|id| {
            hot.remove(id);
        });
        gone.into_iter().for_each(|id| levels.let_go(id));
        levels.hide(plan.hidden.as_ref().map(|hidden| {
            hidden.iter().filter_map(|n| Some(self.survey.ids.get(*n)?.0)).collect()
        }));
        Ok(Stepped { levels, removed: packed.removed, bytes: packed.bytes })
    }

    /// Reads an entry back into Level 0, exact as it was put.
    fn fetch(&self, view: &View, at: usize, levels: &mut Levels) -> Result<()> {
        let Some(place) = self.survey.places.get(at) else { return Ok(()) };
        let Some(segment) = view.cold.segments.get(&place.segment) else { return Ok(()) };
        let row = segment.segment.row(place.group, place.row)?;
        levels.keep(&Arc::new(segment.segment.record(place.group, &row)?));
        Ok(())
    }

    /// What shall stand in Level 1, in the order blocks are filled.
    fn wanted(&self) -> Vec<Wanted> {
        let survey = &self.survey;
        let mut wanted = Vec::new();
        for stretch in &survey.collections {
            for n in stretch.from..stretch.to {
                let bits = match survey.standing.get(n) {
                    Some(Standing::Warm8) => 8,
                    Some(Standing::Warm4) => 4,
                    _ => continue,
                };
                let (Some(id), Some(version), Some(place)) =
                    (survey.ids.get(n), survey.versions.get(n), survey.places.get(n))
                else {
                    continue;
                };
                let collection = stretch.collection;
                wanted.push(Wanted { collection, bits, id: *id, version: *version, place: *place });
            }
        }
        wanted.sort_unstable();
        wanted
    }
}
