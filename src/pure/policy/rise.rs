//! Promotion: what goes up, and what makes room for it.
//!
//! The best first, each to the highest place it may stand in. Room is what is left below the target;
//! an entry that needs more than that gets it from hot entries of lower rank, the lowest first, each of
//! which goes a level down. The room is added up before anything moves: when it does not suffice the
//! entry stays, everything else stays too, and the next one is looked at.
//!
//! Why plans come to rest: let F be what the hot entries below some entry could free, and B what is
//! counted. A promotion, with or without room made for it, never lowers B - F, as an entry frees no more
//! by going a level down than it took by coming up. So an entry that found B + its cost - F above the
//! target finds it so in the next plan.
//!
//! Never: lets a warm entry go to make room, or makes room for what goes down in the same plan (by then
//! everything hot below it has gone down already).

use super::{HYSTERESIS, Standing, Work, at, by_rank};

/// Hot entries that can make room, lowest rank first.
struct Room {
    entries: Vec<usize>,
    /// Bytes that the first n of them free; one longer than `entries`.
    freed: Vec<u64>,
    /// How many have gone.
    gone: usize,
}

impl Work<'_> {
    /// Step 3: up, while there is room.
    pub(super) fn promote(&mut self) {
        let stay: Vec<bool> =
            self.to.iter().zip(self.view.standing).map(|(to, from)| to <= from).collect();
        let mut room = self.room(&stay);
        let mut best_first: Vec<usize> = self.order.iter().chain(&self.pinned).copied().collect();
        best_first.sort_unstable_by(|a, b| by_rank(self.view, *a, *b));
        for n in best_first {
            let top = self.possible(n, Standing::Hot);
            if !self.rises(n) || top >= self.stands(n) || self.is_stuck(n) {
                continue;
            }
            let after = self.bytes + self.cost(n, top).saturating_sub(self.cost(n, self.stands(n)));
            let need = after.saturating_sub(self.target_bytes);
            if need > 0 {
                // For what goes down in this plan nobody makes room; it comes back if it fits.
                let Some(gone) = self.enough(&room, n, need).filter(|_| at(&stay, n, false)) else {
                    continue;
                };
                for victim in room.entries.get(room.gone..gone).unwrap_or_default() {
                    self.send(*victim, Standing::Warm8);
                }
                room.gone = gone;
            }
            self.send(n, top);
        }
    }

    /// What proved important; and a pinned entry that is in the archive alone, where it never belongs.
    fn rises(&self, n: usize) -> bool {
        at(self.view.scores, n, 0.0) >= self.tau + HYSTERESIS
            || at(self.view.hit_twice, n, false)
            || (at(self.view.pinned, n, false) && self.stands(n) == Standing::Cold)
    }

    fn room(&self, stay: &[bool]) -> Room {
        let hot = |n: &usize| {
            self.stands(*n) == Standing::Hot && at(stay, *n, false) && !self.is_stuck(*n)
        };
        let entries: Vec<usize> = self.order.iter().rev().copied().filter(hot).collect();
        let mut freed = Vec::with_capacity(entries.len() + 1);
        let mut sum = 0_u64;
        freed.push(sum);
        for n in &entries {
            let down = self.possible(*n, Standing::Warm8);
            sum += self.cost(*n, Standing::Hot).saturating_sub(self.cost(*n, down));
            freed.push(sum);
        }
        Room { entries, freed, gone: 0 }
    }

    /// How many entries have to be gone for `need` bytes more, all of a lower score than `n`; `None`
    /// when those are not enough.
    fn enough(&self, room: &Room, n: usize, need: u64) -> Option<usize> {
        let score = at(self.view.scores, n, 0.0);
        let below = |victim: &usize| at(self.view.scores, *victim, 0.0) < score;
        let end = room.entries.partition_point(below).max(room.gone);
        let wanted = room.freed.get(room.gone)?.checked_add(need)?;
        let gone = room.freed.partition_point(|freed| *freed < wanted);
        (gone <= end).then_some(gone)
    }
}
