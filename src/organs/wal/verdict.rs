//! What a frame that does not verify means: a pure decision over gathered evidence.
//!
//! The log keeps one promise: an acknowledged record is never dropped in silence. A batch is
//! acknowledged only after a sync, and every frame written later says how far syncing had come
//! ([`Frame::synced_through`](crate::bytes::codec::log::Frame::synced_through)). So:
//!
//! | evidence about batch b, the first that is not whole | verdict |
//! |---|---|
//! | a later segment exists | rot: it was created after a sync of this one |
//! | a frame behind says that b was synced, and its LSN is beyond the applied one | rot |
//! | none of these; the file is short, or part of the batch is still zeros | torn |
//! | none of these; all of it is there | ambiguous: cut as well, but saved aside and told |
//!
//! Damage whose every record is applied never comes here: the scan resumes behind it. Honest
//! residue: rot in the very last batch, after a crash, with nothing behind it, looks like a torn
//! write; it is reported, never silent.

use crate::words::id::Lsn;

/// What was found at and behind the first frame that does not verify.
#[derive(Clone, Copy, Debug)]
pub struct Evidence {
    /// LSN of the last record before it.
    pub last_lsn: Lsn,
    /// Number of the batch that is not whole.
    pub batch: u64,
    /// Everything up to here is in the archive.
    pub applied: Lsn,
    /// First LSN of the next segment, when a later segment exists; 0 when its header cannot be
    /// read.
    pub later_segment: Option<Lsn>,
    /// Among the valid frames behind: up to which batch the log was synced.
    pub synced_through: u64,
    /// Among the frames that say so: the newest record that may have been acknowledged.
    pub acked_lsn: Lsn,
    /// The file ends before the batch does.
    pub is_short: bool,
    /// Part of the batch was never written: it is still zeros.
    pub has_hole: bool,
}

/// What it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Acknowledged records are damaged: from this LSN to that one, at least.
    Rot(Lsn, Lsn),
    /// A write was cut short before anybody was told that it succeeded.
    Torn,
    /// Probably torn, but it may be rot of the last batch.
    Ambiguous,
}

/// Decides. See the table above.
#[must_use]
pub fn judge(evidence: &Evidence) -> Verdict {
    let from = Lsn(evidence.last_lsn.0.saturating_add(1));
    if let Some(next) = evidence.later_segment {
        return Verdict::Rot(from, Lsn(next.0.saturating_sub(1)).max(from));
    }
    if evidence.synced_through >= evidence.batch && evidence.acked_lsn > evidence.applied {
        return Verdict::Rot(from, evidence.acked_lsn.max(from));
    }
    if evidence.is_short || evidence.has_hole { Verdict::Torn } else { Verdict::Ambiguous }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Evidence = Evidence {
        last_lsn: Lsn(10),
        batch: 5,
        applied: Lsn(3),
        later_segment: None,
        synced_through: 4,
        acked_lsn: Lsn(0),
        is_short: false,
        has_hole: false,
    };

    #[test]
    fn the_table() {
        for (evidence, verdict) in [
            (NOTHING, Verdict::Ambiguous),
            (Evidence { is_short: true, ..NOTHING }, Verdict::Torn),
            (Evidence { has_hole: true, ..NOTHING }, Verdict::Torn),
            (
                Evidence { later_segment: Some(Lsn(20)), has_hole: true, ..NOTHING },
                Verdict::Rot(Lsn(11), Lsn(19)),
            ),
            (
                Evidence { synced_through: 5, acked_lsn: Lsn(12), has_hole: true, ..NOTHING },
                Verdict::Rot(Lsn(11), Lsn(12)),
            ),
            // What was synced is archived: nothing acknowledged is at stake.
            (
                Evidence {
                    synced_through: 5,
                    acked_lsn: Lsn(12),
                    applied: Lsn(12),
                    has_hole: true,
                    ..NOTHING
                },
                Verdict::Torn,
            ),
            // Frames of later batches that were written without a sync in between prove nothing.
            (
                Evidence { synced_through: 4, acked_lsn: Lsn(99), has_hole: true, ..NOTHING },
                Verdict::Torn,
            ),
        ] {
            assert_eq!(judge(&evidence), verdict, "{evidence:?}");
        }
    }
}
