//! Gathering: whether whoever could lead gives the others a moment to come back first.
//!
//! Eight writers that wait for their syncs write again as soon as they are told. Without a moment the first of them
//! syncs for itself alone, the seven others wait for that sync and then share one: two syncs for eight writes, of
//! which one would do. Traces showed turns of one and of seven writes, in turn, for seconds.
//!
//! How many come back is known from the turn before: those it wrote, and those that waited when it ended. Of many
//! it is enough that as many are there as come back within a sync: the others come during the next one, and two
//! groups that take turns keep the disk busy. (Eight writers of a disk that syncs in 60 us: 33,000 puts a second with
//! no moment, 28,000 when all are waited for.) How long is waited is bounded by the last sync, so that a moment in vain
//! costs no more than being late for a turn. After one in vain some turns go without, twice as many each time.
//! A lone writer never waits, nor does anybody where nothing is synced.
//!
//! Never: reads a clock, waits by itself.

use std::time::Duration;

/// Whether it pays to wait for others before leading, by what the last turns were like.
#[derive(Debug, Default)]
pub struct Gathering {
    /// Threads that wrote in the last turn, or waited when it ended.
    pub writers: usize,
    /// How long its sync took; nothing when it had none.
    pub sync: Duration,
    /// Moments in a row that were in vain, and turns that are not waited for because of them.
    in_vain: u32,
    turns_off: u32,
}

/// What coming back takes, for tens of writers; a sync that takes longer is no reason to wait longer.
const GATHER_MAX: Duration = Duration::from_micros(200);
/// What coming back takes one of them: being woken, returning, and making the next record.
const RETURN_US: u128 = 12;
/// After so many moments in vain, 64 turns go without one.
const IN_VAIN_MAX: u32 = 6;

impl Gathering {
    /// How long to wait when so many are there; `None` when there is no reason to.
    pub fn moment(&self, there: usize) -> Option<Duration> {
        let is_few = there < self.writers && (there as u128) < self.sync.as_micros() / RETURN_US;
        (is_few && self.turns_off == 0).then_some(self.sync.min(GATHER_MAX))
    }

    /// A turn begins with so many.
    pub fn begin(&mut self, there: usize) {
        if self.turns_off > 0 {
            self.turns_off -= 1;
        } else if self.moment(there).is_none() {
            self.in_vain = 0;
        } else {
            self.in_vain = (self.in_vain + 1).min(IN_VAIN_MAX);
            self.turns_off = 1 << self.in_vain;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: Duration = Duration::from_micros(60);

    #[test]
    fn only_a_part_of_several_writers_waits_and_only_for_a_sync() {
        let last = |writers, sync| Gathering { writers, sync, ..Gathering::default() };
        assert_eq!(Gathering::default().moment(1), None);
        assert_eq!(last(1, SYNC).moment(1), None, "a lone writer");
        assert_eq!(last(8, SYNC).moment(1), Some(SYNC));
        assert_eq!(last(8, SYNC).moment(4), Some(SYNC));
        assert_eq!(last(8, SYNC).moment(5), None, "three others come within a sync");
        assert_eq!(last(3, SYNC).moment(2), Some(SYNC));
        assert_eq!(last(3, SYNC).moment(3), None);
        assert_eq!(last(3, SYNC).moment(4), None);
        assert_eq!(last(8, Duration::ZERO).moment(1), None, "nothing is synced");
        assert_eq!(last(8, Duration::from_millis(40)).moment(7), Some(GATHER_MAX));
        assert_eq!(last(8, Duration::from_millis(40)).moment(8), None);
    }

    #[test]
    fn moments_in_vain_become_rare_and_one_that_was_not_ends_that() {
        let mut gathering = Gathering { writers: 2, sync: SYNC, ..Gathering::default() };
        let turns_without = |gathering: &mut Gathering| {
            gathering.begin(1);
            let mut turns = 0;
            while gathering.moment(1).is_none() {
                gathering.begin(1);
                turns += 1;
            }
            turns
        };
        let found = [(); 8].map(|()| turns_without(&mut gathering));
        assert_eq!(found, [2, 4, 8, 16, 32, 64, 64, 64]);
        gathering.begin(2);
        assert_eq!(turns_without(&mut gathering), 2);
    }
}
