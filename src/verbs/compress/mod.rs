//! Compression: one run of the recursive compressor, from scores to sealed blocks.
//!
//! [`Run::begin`] surveys and scores once; [`Run::plan`] asks the policy; [`Run::step`] carries a plan
//! out on the levels of a view and answers the next ones, for the caller to publish:
//! 1. entries that leave Level 0 lose their exact copy, entries that enter it are read back whole from
//!    the archive;
//! 2. Level 1 is packed (`tiers/packer`): new blocks are on disk before anybody sees them;
//! 3. the caller publishes, and only then removes the blocks that do not count any more.
//!
//! Nothing here is truth: the archive holds every entry whole before a run begins, so that a crash
//! anywhere costs rank, and a move that was not made is made by the next run.
//!
//! Never: deletes or changes an entry, or moves one that the log knows a newer version of.

pub mod census;
pub mod survey;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::organs::columns::Access;
use crate::pure::policy::{self, Plan, Policy, PolicyView, Seat, Standing};
use crate::pure::score::{self, Columns, Frame};
use crate::tiers::View;
use crate::tiers::levels::Levels;
use crate::tiers::packer::{self, Wanted, Yard};
use crate::words::error::Result;
use crate::words::id::{EntryId, Timestamp};
use crate::words::options::{Options, Weights};
use survey::Survey;

/// A run: what is the same for all its passes.
pub struct Run {
    /// Every archived entry.
    pub survey: Survey,
    /// Their scores.
    pub scores: Vec<f32>,
    hit_twice: Vec<bool>,
    rule: Rule,
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

/// How entries are scored: the same for all collections of a store.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// How the terms are weighed.
    pub weights: Weights,
    /// Time in which recency halves, in microseconds.
    pub half_life_us: i64,
}

impl Rule {
    /// What the options of a store say.
    pub fn of(options: &Options) -> Rule {
        let least = Duration::from_secs(1);
        let half_life = options.half_life.max(least).as_micros();
        Rule {
            weights: options.weights,
            half_life_us: i64::try_from(half_life).unwrap_or(i64::MAX),
        }
    }

    fn frame(self, newest_us: i64) -> Frame {
        Frame { weights: self.weights, newest_us, half_life_us: self.half_life_us }
    }
}

impl Run {
    /// Surveys and scores.
    pub fn begin(
        view: &View,
        rule: Rule,
        now: Timestamp,
        access: &dyn Fn(EntryId) -> Access,
    ) -> Result<Run> {
        let survey = Survey::of(view, now, access)?;
        let mut scores = vec![0.0; survey.len()];
        let mut hit_twice = vec![false; survey.len()];
        for stretch in &survey.collections {
            let part = stretch.from..stretch.to;
            let columns = Columns {
                active_us: survey.active_us.get(part.clone()).unwrap_or_default(),
                accessed_us: survey.accessed_us.get(part.clone()).unwrap_or_default(),
                counts: survey.counts.get(part.clone()).unwrap_or_default(),
                semantic: survey.semantic.get(part.clone()).unwrap_or_default(),
            };
            let newest = stretch.newest_us;
            if let Some(scores) = scores.get_mut(part.clone()) {
                score::scores(&rule.frame(newest), &columns, scores);
            }
            let inputs = columns.counts.iter().zip(columns.accessed_us);
            let hits = hit_twice.get_mut(part).unwrap_or_default();
            for (hit, (count, accessed)) in hits.iter_mut().zip(inputs) {
                *hit = *count >= 2 && newest.saturating_sub(*accessed) <= rule.half_life_us;
            }
        }
        Ok(Run { survey, scores, hit_twice, rule })
    }

    /// What the policy wants, from where the entries stand. `counted` is all that counts against
    /// the budget now, these entries included.
    pub fn plan(&self, policy: Policy, counted_bytes: u64, budget_bytes: u64) -> Plan {
        policy::plan(policy, &self.policy_view(counted_bytes, budget_bytes))
    }

    fn policy_view(&self, counted_bytes: u64, budget_bytes: u64) -> PolicyView<'_> {
        let survey = &self.survey;
        PolicyView {
            ids: &survey.ids,
            scores: &self.scores,
            accessed_us: &survey.accessed_us,
            pinned: &survey.pinned,
            hit_twice: &self.hit_twice,
            standing: &survey.standing,
            hot_bytes: &survey.hot_bytes,
            warm8_bytes: &survey.warm8_bytes,
            warm4_bytes: &survey.warm4_bytes,
            other_bytes: counted_bytes.saturating_sub(self.bytes()),
            budget_bytes,
        }
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
        let newest = stretch.map_or(0, |s| s.newest_us);
        let inputs = score::Inputs {
            active_us: survey.active_us.get(at).copied().unwrap_or(0),
            accessed_us: survey.accessed_us.get(at).copied().unwrap_or(0),
            count: survey.counts.get(at).copied().unwrap_or(0),
            semantic: survey.semantic.get(at).copied().unwrap_or(0.0),
        };
        score::terms(&self.rule.frame(newest), inputs)
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
    pub fn repack(&self, yard: &Yard<'_>, view: &View, next: u64) -> Result<Stepped> {
        let mut levels = (*view.levels).clone();
        let packed = packer::pack(yard, &view.cold, &BTreeMap::new(), next, &self.wanted())?;
        let removed = levels.blocks.keys().copied().collect();
        levels.blocks = packed.blocks;
        Ok(Stepped { levels, removed, bytes: packed.bytes })
    }

    /// Carries a plan out on the levels of `view`. `next` is a number that no block has had.
    pub fn step(
        &mut self,
        yard: &Yard<'_>,
        view: &View,
        next: u64,
        plan: &Plan,
    ) -> Result<Stepped> {
        let mut levels = (*view.levels).clone();
        let hot = Arc::make_mut(&mut levels.hot);
        for change in &plan.moves {
            let Some(id) = self.survey.ids.get(change.at) else { continue };
            match change.to {
                Standing::Hot => hot.insert(id.0),
                _ => hot.remove(id.0),
            };
            if let Some(standing) = self.survey.standing.get_mut(change.at) {
                *standing = change.to;
            }
        }
        for change in &plan.moves {
            let Some(id) = self.survey.ids.get(change.at) else { continue };
            if change.from == Standing::Hot {
                levels.let_go(*id);
            } else if change.to == Standing::Hot {
                self.fetch(view, change.at, &mut levels)?;
            }
        }
        levels.hide(plan.hidden.as_ref().map(|hidden| {
            hidden.iter().filter_map(|n| Some(self.survey.ids.get(*n)?.0)).collect()
        }));
        let packed = packer::pack(yard, &view.cold, &levels.blocks, next, &self.wanted())?;
        levels.blocks = packed.blocks;
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
