//! What a store can say about itself: sizes, counts, places. Plain data, gathered on demand.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::bytes::promise::PromiseStats;
use crate::controller::engine::Engine;
use crate::organs::{archive, arena, reserve};
use crate::verbs::compress::census;
use crate::words::error::Result;
use crate::words::id::Lsn;
use crate::words::tier::Tier;

pub use crate::verbs::compress::census::{Fidelity, Width};

/// State of a store at one moment. Byte counts are bytes, times microseconds.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let store = pmll::Store::open(dir.path().join("memory"))?;
/// let stats = store.stats()?;
/// assert_eq!(stats.entries, 0);
/// assert!(stats.counted_bytes <= stats.budget_bytes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// The memory budget.
    pub budget_bytes: u64,
    /// Bytes resident because of the data.
    pub counted_bytes: u64,
    /// `counted_bytes / budget_bytes`.
    pub utilisation: f64,
    /// Live entries, expired ones included until vacuum takes them.
    pub entries: u64,
    /// Of those, entries that only the log has in their newest version: they have no score yet.
    pub entries_not_archived: u64,
    /// Collections.
    pub collections: u64,
    /// Bytes of the log that are not archived.
    pub log_bytes: u64,
    /// Sealed archive segments.
    pub archive_segments: u64,
    /// Per tier, hottest first.
    pub tiers: [TierStats; 3],
    /// Share of the sum of all scores that belongs to Cold entries, in [0, 1].
    pub cold_score_mass: f64,
    /// Bytes on disk, by kind of file.
    pub disk: DiskStats,
    /// Bytes written since the store was opened, by kind of file.
    pub written: WrittenStats,
    /// What the compressor did.
    pub compressor: CompressorStats,
    /// How promises ended since the store was opened.
    pub promises: PromiseStats,
    /// LSN of the newest operation.
    pub last_lsn: Lsn,
    /// Every operation up to here is in the archive.
    pub applied_lsn: Lsn,
    /// What the user should know: repairs at open, failed checkpoints.
    pub warnings: Vec<String>,
}

/// One tier.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct TierStats {
    /// Which one.
    pub tier: Tier,
    /// Entries whose hottest copy it holds.
    pub entries: u64,
    /// Entries it holds in memory right now.
    pub resident: u64,
    /// Bytes of those copies: in memory for Hot and Warm, whole blocks for Warm, on disk for Cold.
    pub bytes: u64,
    /// Cosine of what it answers from to the exact vectors, over 64 entries of each width spread
    /// over it. `None` when it holds no vector.
    pub fidelity: Option<Fidelity>,
    /// Of its entries, those with 8 bits a value. None but in Warm.
    pub int8: Width,
    /// Those with 4 bits a value. None but in Warm.
    pub int4: Width,
}

/// Bytes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskStats {
    /// The log, preallocated room included.
    pub log: u64,
    /// The archive.
    pub archive: u64,
    /// The index.
    pub index: u64,
    /// Level 1.
    pub arena: u64,
    /// Soft state.
    pub columns: u64,
    /// Room that is kept for the day when the disk is full.
    pub reserve: u64,
    /// All of them.
    pub total: u64,
}

/// Bytes written since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WrittenStats {
    /// Log records.
    pub log: u64,
    /// Zeros that preallocate the log.
    pub zero_filling: u64,
    /// Archive segments.
    pub archive: u64,
    /// The index.
    pub index: u64,
    /// Arena blocks, and the set of hot ids.
    pub arena: u64,
    /// Soft state.
    pub columns: u64,
}

impl WrittenStats {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.log + self.zero_filling + self.archive + self.index + self.arena + self.columns
    }
}

/// What the compressor did since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompressorStats {
    /// Runs, those that found nothing to do included.
    pub runs: u64,
    /// Passes that moved something.
    pub passes: u64,
    /// Entries moved.
    pub moves: u64,
}

/// Gathers it. Cost: two passes over 128 bytes an archived entry, one look-up per record that is not
/// archived, one length per file, 192 vectors.
pub(crate) fn gather(engine: &Engine) -> Result<Stats> {
    let view = engine.view.load_full();
    let mut entries = 0;
    for id in view.collections.keys() {
        entries += view.entries(*id)?;
    }
    let (mut logged, mut logged_vectors) = (0, false);
    for hot in view.collections.keys().flat_map(|id| view.hot(*id)) {
        logged += 1;
        logged_vectors |= hot.record.vector.is_some();
    }
    let archive_bytes = view.cold.segments.values().map(|s| s.segment.bytes()).sum();
    let size = |name: &str| -> u64 {
        engine.disk.open(name, crate::io::OpenMode::Read).and_then(|file| file.len()).unwrap_or(0)
    };
    let folder = |folder: &str| -> u64 {
        let names = engine.disk.list(folder).unwrap_or_default();
        names.iter().map(|name| size(&crate::io::join(folder, name))).sum()
    };
    let mut disk = DiskStats {
        log: folder("wal"),
        archive: folder(archive::FOLDER),
        index: 0,
        arena: folder(arena::FOLDER),
        columns: engine.columns.file_bytes(),
        reserve: size(reserve::FILE),
        total: 0,
    };
    let mut written = WrittenStats {
        archive: engine.written.archive.load(Ordering::Acquire),
        arena: engine.written.arena.load(Ordering::Acquire),
        columns: engine.columns.bytes_written(),
        ..WrittenStats::default()
    };
    if let Some(wal) = engine.wal.lock().as_ref() {
        (written.log, written.zero_filling) = wal.bytes_written();
    }
    let applied = {
        let catalog = engine.catalog.lock();
        if let Some(catalog) = catalog.as_ref() {
            written.index = catalog.bytes_written();
            disk.index = catalog.file_bytes()?;
        }
        view.cold.catalog.meta(crate::tiers::mover::meta::APPLIED_LSN)?.unwrap_or(0)
    };
    disk.total = disk.log + disk.archive + disk.index + disk.arena + disk.columns + disk.reserve;
    let counted_bytes = engine.counted_bytes();
    let budget_bytes = engine.budget_bytes();
    let census = census::take(
        &view,
        &census::Scoring { now: engine.clock.now(), access: &|id| engine.columns.get(id) },
    )?;
    // A record that is not archived yet is itself the exact one.
    let hot_fidelity = census
        .hot
        .fidelity
        .or_else(|| (logged_vectors || census.hot_vectors).then_some(Fidelity::EXACT));
    let tier = |tier, entries, resident, bytes, fidelity| TierStats {
        tier,
        entries,
        resident,
        bytes,
        fidelity,
        int8: Width::default(),
        int4: Width::default(),
    };
    let load = |counter: &AtomicU64| counter.load(Ordering::Acquire);
    Ok(Stats {
        budget_bytes,
        counted_bytes,
        utilisation: counted_bytes as f64 / budget_bytes.max(1) as f64,
        entries,
        collections: view.collections.len() as u64,
        log_bytes: engine.log_bytes.load(Ordering::Acquire),
        archive_segments: view.cold.segments.len() as u64,
        entries_not_archived: logged,
        tiers: [
            tier(
                Tier::Hot,
                logged + census.hot.entries,
                logged + view.levels.resident_len() as u64,
                view.hot_bytes() + view.levels.hot_bytes(),
                hot_fidelity,
            ),
            TierStats {
                int8: census.warm8,
                int4: census.warm4,
                ..tier(
                    Tier::Warm,
                    census.warm(),
                    census.warm(),
                    view.levels.warm_bytes(),
                    census.warm_fidelity(),
                )
            },
            tier(
                Tier::Cold,
                census.cold,
                0,
                archive_bytes,
                census.cold_vectors.then_some(Fidelity::EXACT),
            ),
        ],
        cold_score_mass: census.cold_score_mass,
        compressor: CompressorStats {
            runs: load(&engine.runs),
            passes: load(&engine.passes),
            moves: load(&engine.moves),
        },
        disk,
        written,
        promises: engine.counters.stats(),
        last_lsn: view.lsn,
        applied_lsn: Lsn(applied),
        warnings: engine.warnings(),
    })
}
