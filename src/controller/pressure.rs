//! Pressure: when the compressor runs, and how a run goes.
//!
//! Steps of [`Engine::compress`]:
//! 1. a checkpoint, so that everything that may move is archived;
//! 2. small segments are merged when there are many, as the directory of each stays in RAM, and
//!    expired entries leave it;
//! 3. one survey with one timestamp;
//! 4. at most three passes of plan and step, each published before the next and each after its
//!    blocks are on disk; the set of hot ids is saved.
//!
//! It ends when the target is met, when three passes were made, or when a plan moves nothing.
//!
//! A run starts when a caller asks, and by itself when more than 80 % of the budget is counted: on
//! the background thread, or in the writing call where there is none. Readers go on by the view
//! they have; a block that a reader still uses is unlinked, not unmapped.
//!
//! Never: moves what is not archived, deletes an entry, runs twice at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::controller::engine::Engine;
use crate::organs::columns::moves::LevelMove;
use crate::organs::{arena, columns};
use crate::pure::policy::{HYSTERESIS, Move, Plan, Policy, Standing, TRIGGER_SHARE};
use crate::pure::score::Score;
use crate::tiers::View;
use crate::tiers::grouper::Missed;
use crate::tiers::packer::Yard;
use crate::verbs::compress::{Run, Stepped};
use crate::words::error::Result;
use crate::words::id::EntryId;
use crate::words::tier::Tier;

/// Passes of a run at most; one that met damage alone is none, as the next plan knows of that.
const PASSES_MAX: u32 = 3;

/// How a run ended.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let store = pmll::Store::open(dir.path().join("memory"))?;
/// let report = store.compress()?;
/// assert_eq!(report.outcome, pmll::Outcome::TargetMet);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// No more than the target is counted.
    #[default]
    TargetMet,
    /// Three passes were made, and more than the target is counted.
    DepthReached,
    /// No entry can go down any more: what is left over counts without them.
    NoProgress,
}

impl Outcome {
    /// `target_met`, `depth_reached` or `no_progress`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Outcome::TargetMet => "target_met",
            Outcome::DepthReached => "depth_reached",
            Outcome::NoProgress => "no_progress",
        }
    }
}

/// Entries and bytes of one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelReport {
    /// Which one.
    pub tier: Tier,
    /// Archived entries that stand there.
    pub entries: u64,
    /// Of those in Level 1: entries with 8 bits a value; the others have 4.
    pub entries_int8: u64,
    /// Bytes it keeps in memory.
    pub bytes: u64,
}

/// What a run did, or would do.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let store = pmll::Store::open(dir.path().join("memory"))?;
/// # store.collection("notes")?.put("a", pmll::Draft::text("one"))?;
/// let plan = store.plan()?;
/// assert!(plan.counted_bytes_after <= plan.counted_bytes_before);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CompressReport {
    /// How it ended.
    pub outcome: Outcome,
    /// Why more than the target is still counted; empty when it is met.
    pub reason: String,
    /// Passes that moved something.
    pub passes: u32,
    /// Entries moved.
    pub moves: u64,
    /// Of those, up.
    pub promoted: u64,
    /// The budget.
    pub budget_bytes: u64,
    /// What a run aims at.
    pub target_bytes: u64,
    /// Counted before.
    pub counted_bytes_before: u64,
    /// Counted afterwards.
    pub counted_bytes_after: u64,
    /// Levels before, hottest first.
    pub before: Vec<LevelReport>,
    /// Levels afterwards.
    pub after: Vec<LevelReport>,
    /// Score from which on an entry is protected.
    pub tau: f32,
    /// Best score of an entry that is not pinned.
    pub score_max: f32,
    /// Protected entries.
    pub protected: u64,
    /// Share of the scores' sum that belongs to Cold entries, in [0, 1].
    pub cold_score_mass: f64,
    /// Bytes written to blocks.
    pub bytes_written: u64,
    /// Entries that could not be looked at or moved, as their bytes in the archive are damaged.
    pub damaged: u64,
    /// Whether the last plan was above the target and found nothing that could go down.
    pub(super) is_spent: bool,
}

/// Why an entry stands where it stands, and what would move it.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let store = pmll::Store::open(dir.path().join("memory"))?;
/// # let notes = store.collection("notes")?;
/// notes.put("a", pmll::Draft::text("one"))?;
/// let why = notes.why("a")?.expect("it is there");
/// assert_eq!((why.rank, why.of), (Some(1), 1));
/// assert_eq!(why.standing, pmll::Standing::Hot);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Why {
    /// Its score, with the terms.
    pub score: Score,
    /// 1 for the best of the unpinned entries; `None` when it is pinned.
    pub rank: Option<u64>,
    /// Unpinned entries.
    pub of: u64,
    /// Whether it is among those that stay in RAM as long as the budget can.
    pub protected: bool,
    /// Score of the last protected entry.
    pub tau: f32,
    /// Where it stands.
    pub standing: Standing,
    /// Where rank and width put it when the budget presses.
    pub home: Standing,
    /// Where a run would put it now.
    pub planned: Standing,
    /// The score from which on it would go up.
    pub rises_at: f32,
}

impl Engine {
    /// Starts a run if more than the trigger is counted.
    pub fn compress_if_due(&self) {
        if self.options.read_only || self.poison.is_set() || !self.is_over(TRIGGER_SHARE) {
            return;
        }
        if self.options.background {
            self.wake.notify(|wish| wish.compress = true);
        } else if let Err(error) = self.make_fit() {
            self.note_checkpoint_error(error);
        }
    }

    /// What a run would do now, without doing it.
    pub fn plan(&self, policy: Policy) -> Result<CompressReport> {
        self.check_open()?;
        let view = self.view.load_full();
        let run = self.survey(&view)?;
        let mut report = self.begin_report(&run, &view);
        let plan = run.plan(policy, self.claimed_bytes(&view), self.budget_bytes());
        let mut after = run.survey.standing.clone();
        for change in &plan.moves {
            if let Some(standing) = after.get_mut(change.at) {
                *standing = change.to;
            }
        }
        report.note(&plan);
        report.passes = u32::from(!plan.moves.is_empty());
        let gone = plan.bytes_before.saturating_sub(plan.bytes_after);
        let come = plan.bytes_after.saturating_sub(plan.bytes_before);
        let after_bytes = (report.counted_bytes_before + come).saturating_sub(gone);
        // A run lets go of what is spare.
        let spare_bytes = self.caches.pieces.bytes();
        let spared_bytes = after_bytes.saturating_sub(report.target_bytes).min(spare_bytes);
        report.counted_bytes_after = after_bytes - spared_bytes;
        report.after = levels(&run, &after, None);
        report.outcome = match report.counted_bytes_after <= report.target_bytes {
            true => Outcome::TargetMet,
            false => Outcome::NoProgress,
        };
        report.cold_score_mass = cold_score_mass(&run, &after);
        Ok(report)
    }

    /// A run that somebody asked for; cells are put in order with the rest.
    pub fn compress(&self, policy: Policy) -> Result<CompressReport> {
        let outcome = self.run_alone(policy);
        self.group(Missed::Little);
        outcome
    }

    /// A run that nobody but the budget asked for.
    pub fn make_fit(&self) -> Result<CompressReport> {
        let outcome = self.run_alone(Policy::Watermark);
        self.group_if_due();
        outcome
    }

    /// A run that counts as one.
    fn run_alone(&self, policy: Policy) -> Result<CompressReport> {
        let begun = self.clock.elapsed();
        let outcome = self.run(policy);
        // One that failed came to nothing as well.
        let is_spent = outcome.as_ref().map_or(true, |report| report.is_spent);
        self.note_run(is_spent, self.clock.elapsed().saturating_sub(begun));
        self.runs.fetch_add(1, Ordering::AcqRel);
        self.room.notify();
        outcome
    }

    /// A run, with nothing around it.
    pub(super) fn run(&self, policy: Policy) -> Result<CompressReport> {
        self.archive_all()?;
        let _one_at_a_time = self.maintenance.lock();
        // It may have been closed, and opened by somebody else, while this waited.
        self.check_writable()?;
        // What it saves are a few bytes of directories: no reason to do without the run itself.
        if let Err(error) = self.merge_small() {
            tracing::warn!(%error, "small archive segments were not merged");
        }
        let now = self.clock.now();
        self.publish(|view| {
            let mut levels = (*view.levels).clone();
            levels.let_go_of_expired(now);
            View { levels: Arc::new(levels), ..view.clone() }
        });
        let mut view = self.view.load_full();
        let mut run = self.survey(&view)?;
        let mut report = self.begin_report(&run, &view);
        let next = self.next_block.load(Ordering::Acquire);
        if let Some(swept) = run.sweep(&self.yard(), &view, next)? {
            self.take(swept, &mut report);
            view = self.view.load_full();
        }
        let mut deep = false;
        while !deep {
            let plan = run.plan(policy, self.claimed_bytes(&view), self.budget_bytes());
            report.note(&plan);
            if plan.moves.is_empty() && plan.hidden.is_none() {
                report.is_spent = plan.bytes_before > report.target_bytes;
                break;
            }
            let known = (report.moves, run.damaged());
            view = self.step(&mut run, &plan, &mut report)?;
            report.passes += u32::from(report.moves > known.0 || run.damaged() == known.1);
            deep = report.passes == PASSES_MAX || policy != Policy::Watermark;
        }
        self.spare_after_run(report.target_bytes);
        report.outcome = match self.counted_bytes() <= report.target_bytes {
            true => Outcome::TargetMet,
            false if deep && policy == Policy::Watermark => Outcome::DepthReached,
            false => Outcome::NoProgress,
        };
        if policy != Policy::PaperLiteral && self.view.load().levels.hides_any() {
            self.publish(|view| {
                let mut levels = (*view.levels).clone();
                levels.hide(None);
                View { levels: Arc::new(levels), ..view.clone() }
            });
        }
        if report.passes > 0 {
            self.save_hot(&view);
            self.note_saved(self.moved.lock().save(&*self.disk, self.store_id));
        }
        report.damaged = run.damaged();
        report.counted_bytes_after = self.counted_bytes();
        report.after = levels(&run, &run.survey.standing, Some(&view));
        report.give_reason(&run);
        report.cold_score_mass = cold_score_mass(&run, &run.survey.standing);
        self.passes.fetch_add(u64::from(report.passes), Ordering::AcqRel);
        self.moves.fetch_add(report.moves, Ordering::AcqRel);
        tracing::debug!(outcome = report.outcome.name(), moves = report.moves, "compressed");
        Ok(report)
    }

    /// Writes every block of Level 1 anew from the archive.
    pub fn recompress(&self) -> Result<CompressReport> {
        self.archive_all()?;
        let _one_at_a_time = self.maintenance.lock();
        self.check_writable()?;
        let view = self.view.load_full();
        let mut run = self.survey(&view)?;
        let mut report = self.begin_report(&run, &view);
        let stepped = run.repack(&self.yard(), &view, self.next_block.load(Ordering::Acquire))?;
        self.take(stepped, &mut report);
        report.passes = 1;
        report.damaged = run.damaged();
        report.outcome = match self.counted_bytes() <= report.target_bytes {
            true => Outcome::TargetMet,
            false => Outcome::NoProgress,
        };
        report.counted_bytes_after = self.counted_bytes();
        report.after = levels(&run, &run.survey.standing, Some(&self.view.load()));
        report.cold_score_mass = cold_score_mass(&run, &run.survey.standing);
        Ok(report)
    }

    /// Why an archived entry stands where it stands.
    pub fn why(&self, id: EntryId) -> Result<Option<Why>> {
        let view = self.view.load_full();
        let run = self.survey(&view)?;
        let Some(at) = run.find(id) else { return Ok(None) };
        let budget = self.budget_bytes();
        let plan = run.plan(Policy::Watermark, self.claimed_bytes(&view), budget);
        let planned = plan.moves.iter().find(|m| m.at == at).map(|m| m.to);
        let seat = run.seat(at, budget);
        let standing = run.survey.standing.get(at).copied().unwrap_or(Standing::Cold);
        let score = run.terms(at);
        Ok(Some(Why {
            score,
            rank: seat.rank.map(|rank| rank as u64),
            of: seat.of as u64,
            protected: seat.protected,
            tau: seat.tau,
            standing,
            home: seat.home,
            planned: planned.unwrap_or(standing),
            rises_at: seat.tau + HYSTERESIS,
        }))
    }

    /// The view, and its archived entries with their scores.
    pub fn scored(&self) -> Result<(Arc<View>, Run)> {
        let view = self.view.load_full();
        let run = self.survey(&view)?;
        Ok((view, run))
    }

    fn survey(&self, view: &View) -> Result<Run> {
        Run::begin(view, self.clock.now(), &|id| self.columns.get(id))
    }

    /// Carries a plan out and publishes what follows; the caller holds `maintenance`, which every
    /// change of the levels does.
    fn step(&self, run: &mut Run, plan: &Plan, report: &mut CompressReport) -> Result<Arc<View>> {
        let view = self.view.load_full();
        let next = self.next_block.load(Ordering::Acquire);
        let stepped = run.step(&self.yard(), &view, next, plan)?;
        // What damage kept back stands where it stood.
        let made = |m: &&Move| run.survey.standing.get(m.at) == Some(&m.to);
        let made: Vec<&Move> = plan.moves.iter().filter(made).collect();
        report.moves += made.len() as u64;
        report.promoted += made.iter().filter(|m| m.to < m.from).count() as u64;
        let at = self.clock.now();
        let moves = made.into_iter().filter_map(|m| {
            let id = run.survey.ids.get(m.at).copied()?;
            Some(LevelMove { id, at, from: m.from, to: m.to })
        });
        self.moved.lock().note(moves, self.budget_bytes());
        self.take(stepped, report);
        Ok(self.view.load_full())
    }

    fn yard(&self) -> Yard<'_> {
        Yard {
            disk: &*self.disk,
            store_id: self.store_id,
            access: self.options.arena_access,
            block_bytes_max: block_bytes_max(self.budget_bytes()),
        }
    }

    /// Publishes what a step made, and only then removes what does not count any more.
    fn take(&self, stepped: Stepped, report: &mut CompressReport) {
        let next = self.next_block.load(Ordering::Acquire);
        let last = stepped.levels.blocks.keys().next_back().copied().unwrap_or(0);
        self.next_block.store(next.max(last.saturating_add(1)), Ordering::Release);
        let levels = Arc::new(stepped.levels);
        self.publish(|view| View { levels: Arc::clone(&levels), ..view.clone() });
        // What came up took the place of what is spare.
        self.spare_down_to(self.target_bytes());
        self.written.arena.fetch_add(stepped.bytes, Ordering::AcqRel);
        report.bytes_written += stepped.bytes;
        for number in stepped.removed {
            // What stays is a stale copy, and goes with a later pass or the next open.
            if let Err(error) = arena::remove(&*self.disk, number) {
                tracing::warn!(%error, "an arena block was left behind");
            }
        }
    }

    /// Saves which entries are hot. Soft state: a failure costs rank only.
    pub fn save_hot(&self, view: &View) {
        self.note_saved(columns::hot::save(&*self.disk, self.store_id, &view.levels.hot));
    }

    fn note_saved(&self, saved: Result<u64>) {
        match saved {
            Ok(bytes) => {
                self.written.arena.fetch_add(bytes, Ordering::AcqRel);
            }
            Err(error) => self.warn(format!("not all soft state was saved: {error}")),
        }
    }

    fn begin_report(&self, run: &Run, view: &View) -> CompressReport {
        let counted = self.counted_bytes();
        CompressReport {
            budget_bytes: self.budget_bytes(),
            target_bytes: self.target_bytes(),
            counted_bytes_before: counted,
            counted_bytes_after: counted,
            before: levels(run, &run.survey.standing, Some(view)),
            ..CompressReport::default()
        }
    }
}

impl CompressReport {
    fn give_reason(&mut self, run: &Run) {
        if self.outcome == Outcome::TargetMet {
            return;
        }
        let entries: u64 = self.after.iter().map(|level| level.bytes).sum();
        let pinned = run.survey.pinned.iter().filter(|pinned| **pinned).count();
        self.reason = format!(
            "{entries} of {} counted bytes are copies of entries ({pinned} pinned), the others the \
             index's cache, sketches, directories and records of the log",
            self.counted_bytes_after
        );
    }

    fn note(&mut self, plan: &Plan) {
        self.tau = plan.tau;
        self.score_max = plan.score_max;
        self.protected = plan.protected as u64;
    }
}

/// Bytes of a block at most: a thirty-second of the budget, so that repacking one needs little, and
/// not above 1 MiB, so that a map holds many rows.
fn block_bytes_max(budget_bytes: u64) -> usize {
    usize::try_from(budget_bytes / 32).unwrap_or(usize::MAX).clamp(32 << 10, 1 << 20)
}

/// Entries and bytes by level. Bytes are those of the view's levels, or of the rows without one.
fn levels(run: &Run, standing: &[Standing], view: Option<&View>) -> Vec<LevelReport> {
    let survey = &run.survey;
    let sum = |wanted: &[Standing], column: &[u32]| -> u64 {
        let rows = standing.iter().zip(column).filter(|(s, _)| wanted.contains(s));
        rows.map(|(_, bytes)| u64::from(*bytes)).sum()
    };
    let count = |wanted: &[Standing]| standing.iter().filter(|s| wanted.contains(s)).count() as u64;
    let hot_bytes = sum(&[Standing::Hot], &survey.hot_bytes);
    let warm_bytes =
        sum(&[Standing::Warm8], &survey.warm8_bytes) + sum(&[Standing::Warm4], &survey.warm4_bytes);
    let report = |tier, wanted: &[Standing], bytes| LevelReport {
        tier,
        entries: count(wanted),
        entries_int8: if tier == Tier::Warm { count(&[Standing::Warm8]) } else { 0 },
        bytes,
    };
    vec![
        report(Tier::Hot, &[Standing::Hot], view.map_or(hot_bytes, |v| v.levels.hot_bytes())),
        report(
            Tier::Warm,
            &[Standing::Warm8, Standing::Warm4],
            view.map_or(warm_bytes, |v| v.levels.warm_bytes()),
        ),
        report(Tier::Cold, &[Standing::Cold], 0),
    ]
}

fn cold_score_mass(run: &Run, standing: &[Standing]) -> f64 {
    let sum = |cold_only: bool| -> f64 {
        let rows = run.scores.iter().zip(standing);
        rows.filter(|(_, s)| !cold_only || **s == Standing::Cold).map(|(s, _)| f64::from(*s)).sum()
    };
    let all = sum(false);
    if all > 0.0 { sum(true) / all } else { 0.0 }
}
