//! The engine: one opened store, with its locks and their order.
//!
//! Lock order, outermost first: `grouping` (one grouping at a time) > `maintenance` (one checkpoint or
//! vacuum at a time) > `wal` (held by the leader, and by a freeze) > `publishing` (the swap of the view).
//! `queue` is taken alone or inside none of them. Readers take none: they load the view.
//!
//! Never: waits for a reader; writes after it was poisoned or closed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::bytes::promise::Counters;
use crate::controller::background::{Background, Signal, Wake};
use crate::controller::commit::Queue;
use crate::controller::opening::open_levels;
use crate::controller::poison::Poison;
use crate::io::file::{memory_bytes, random_bytes};
use crate::io::{Disk, File};
use crate::organs::catalog::Catalog;
use crate::organs::columns::Columns;
use crate::organs::columns::moves::Moves;
use crate::organs::reserve::Reserve;
use crate::organs::wal::{Wal, WalOptions};
use crate::tiers::View;
use crate::tiers::caches::Caches;
use crate::tiers::mover::meta;
use crate::verbs::layout;
use crate::verbs::recovery::{self, Recovered};
use crate::words::clock::Clock;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::id::CollectionId;
use crate::words::limits;
use crate::words::options::Options;
use crate::words::sync::{self, Condvar, Mutex};

/// Name of the setting that holds the budget.
pub const BUDGET_SETTING: &str = "budget_bytes";

/// One opened store.
#[derive(Debug)]
pub struct Engine {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) store_id: [u8; 16],
    pub(crate) view: ArcSwap<View>,
    publishing: Mutex<()>,
    pub(crate) maintenance: Mutex<()>,
    pub(crate) wal: Mutex<Option<Wal>>,
    pub(crate) queue: Mutex<Queue>,
    pub(crate) progress: Condvar,
    pub(crate) counters: Arc<Counters>,
    pub(crate) catalog: Mutex<Option<Catalog>>,
    /// Answers the readers while the catalog cannot be opened for writing.
    pub(crate) stand_in: Mutex<Option<Catalog>>,
    /// Superseded segments whose files could not be removed so far.
    pub(crate) leftovers: Mutex<Vec<u64>>,
    pub(crate) columns: Columns,
    /// The last moves between levels.
    pub(crate) moved: Mutex<Moves>,
    pub(crate) caches: Caches,
    /// Held by the one grouping that is under way; taken before `maintenance`.
    pub(crate) grouping: Mutex<()>,
    /// Living rows of each collection when it was last to be grouped.
    pub(crate) grouped: Mutex<BTreeMap<CollectionId, u64>>,
    pub(crate) poison: Poison,
    pub(crate) reserve: Reserve,
    pub(crate) wake: Wake,
    pub(crate) room: Signal,
    pub(crate) closed: AtomicBool,
    pub(crate) log_bytes: AtomicU64,
    /// A number that no arena block has had.
    pub(crate) next_block: AtomicU64,
    /// Runs of the compressor, passes that moved something, and entries they moved.
    pub(crate) runs: AtomicU64,
    pub(crate) passes: AtomicU64,
    pub(crate) moves: AtomicU64,
    pub(crate) written: Written,
    /// What catalog and log kept resident, and what the catalog's cache might still take, when
    /// somebody last looked: whoever counts while one of them is at work does not wait for it.
    pub(crate) last_seen: [AtomicU64; 3],
    budget_bytes: AtomicU64,
    background: Background,
    checkpoint_error: Mutex<Option<Error>>,
    /// Until when, by the monotonic clock, no write starts a run of the compressor.
    pub(crate) stuck_until: Mutex<Option<Duration>>,
    /// Until when, by the monotonic clock, no pieces are made behind searches.
    pub(crate) pieces_rest_until: Mutex<Duration>,
    /// Where the refill of Level 0 goes on.
    pub(crate) refilled_to: Mutex<u64>,
    closing: Mutex<()>,
    warnings: Mutex<Vec<String>>,
    uptime_before_ms: u64,
    /// What the monotonic clock said at open: it may have started long before.
    opened_at: Duration,
    lock: Mutex<Option<Arc<dyn File>>>,
}

/// Bytes written since the store was opened, by kind of file, where the organ does not count them.
#[derive(Debug, Default)]
pub struct Written {
    /// Archive segments.
    pub archive: AtomicU64,
    /// Arena blocks, and the set of hot ids.
    pub arena: AtomicU64,
}

impl Engine {
    /// Opens the store on a disk, recovering whatever the last owner left.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Result<Arc<Engine>> {
        if let Some(bytes) = options.budget_bytes {
            check_budget(bytes)?;
        }
        let (store_id, lock) = layout::enter(&*disk, &options)?;
        let (given, otherwise) = (options.budget_bytes, default_budget_bytes());
        let budget_by = |view: Option<&View>| {
            let set = || view?.settings.get(BUDGET_SETTING)?.as_u64();
            given.or_else(set).unwrap_or(otherwise)
        };
        let shares = recovery::Shares {
            budget: &budget_by,
            cache_bytes: catalog_cache_bytes,
            freeze_bytes: |budget| budget / 8,
        };
        let recovered = recovery::recover(&disk, store_id, options.read_only, &shares)?;
        let Recovered { mut view, catalog, is_stand_in, leftovers, scan, mut warnings } = recovered;
        let budget = budget_by(Some(&view));
        let (catalog, stand_in) =
            if is_stand_in { (None, Some(catalog)) } else { (Some(catalog), None) };
        let uptime = view.cold.catalog.meta(meta::UPTIME_MS)?.unwrap_or(0);
        let opened_at = clock.elapsed();
        let moved = Mutex::new(Moves::load(&*disk, store_id));
        let columns = Columns::open(Arc::clone(&disk), options.read_only)?;
        // What a replay under a small budget has archived already counts until the next reclaim.
        let log_bytes = scan.bytes;
        let wal = if options.read_only {
            None
        } else {
            let [a, b, c, d, e, f, g, h, ..] =
                random_bytes().map_err(|e| Error::io("get random bytes", e))?;
            let options = WalOptions {
                segment_bytes: (budget / 32).clamp(64 << 10, 4 << 20),
                zero_bytes: (budget / 32).clamp(64 << 10, 1 << 20),
                salt: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            };
            Some(Wal::open(Arc::clone(&disk), store_id, scan, options)?)
        };
        let reserve = Reserve::found(&*disk);
        let (levels, next_block) =
            open_levels(&*disk, store_id, &options, &view, budget, &mut warnings)?;
        view.levels = Arc::new(levels);
        let engine = Arc::new(Engine {
            disk,
            clock,
            store_id,
            view: ArcSwap::from_pointee(view),
            publishing: Mutex::new(()),
            log_bytes: AtomicU64::new(log_bytes),
            next_block: AtomicU64::new(next_block),
            runs: AtomicU64::new(0),
            passes: AtomicU64::new(0),
            moves: AtomicU64::new(0),
            maintenance: Mutex::new(()),
            wal: Mutex::new(wal),
            queue: Mutex::default(),
            progress: Condvar::new(),
            counters: Arc::default(),
            catalog: Mutex::new(catalog),
            stand_in: Mutex::new(stand_in),
            leftovers: Mutex::new(leftovers),
            columns,
            moved,
            caches: Caches::default(),
            grouping: Mutex::new(()),
            grouped: Mutex::default(),
            poison: Poison::default(),
            reserve,
            wake: Wake::default(),
            room: Signal::default(),
            closed: AtomicBool::new(false),
            written: Written::default(),
            last_seen: Default::default(),
            budget_bytes: AtomicU64::new(budget),
            background: Background::default(),
            checkpoint_error: Mutex::new(None),
            stuck_until: Mutex::new(None),
            pieces_rest_until: Mutex::default(),
            refilled_to: Mutex::new(0),
            closing: Mutex::new(()),
            warnings: Mutex::new(warnings),
            uptime_before_ms: uptime,
            opened_at,
            lock: Mutex::new(lock),
            options,
        });
        if engine.options.background && !engine.options.read_only {
            engine
                .background
                .start(&engine)
                .map_err(|e| Error::io("start the background thread", e))?;
            if !engine.view.load().levels.hot.is_empty() {
                engine.wake.notify(|wish| wish.refill = true);
            }
            // Whoever wrote last may have closed before there was time for it.
            engine.group_if_due();
        }
        Ok(engine)
    }

    /// Exchanges the view. Only the fields the maker changed differ from the current one, because
    /// it gets the current one to start from. Answers the one before: to give it up takes a while.
    pub fn publish(&self, next: impl FnOnce(&View) -> View) -> Arc<View> {
        let _guard = self.publishing.lock();
        let view = next(&self.view.load());
        self.view.swap(Arc::new(view))
    }

    /// Errors unless reads are allowed.
    pub fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the store is closed"));
        }
        self.heal_if_broken();
        Ok(())
    }

    /// Errors unless writes are allowed.
    pub fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.options.read_only {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                "the store was opened read-only; open it without read_only to write",
            ));
        }
        self.poison.check()
    }

    /// The budget in force.
    pub fn budget_bytes(&self) -> u64 {
        self.budget_bytes.load(Ordering::Acquire)
    }

    /// Changes the budget for this process.
    pub fn use_budget(&self, bytes: u64) -> Result<()> {
        check_budget(bytes)?;
        self.budget_bytes.store(bytes, Ordering::Release);
        self.forget_stuck();
        // What searches filled under a larger budget no run of the compressor can move.
        self.caches.shrink(bytes);
        if let Err(error) = self.fit_catalog() {
            tracing::warn!(%error, "the index keeps its cache until the next open");
        }
        self.fit_cells();
        self.checkpoint_if_due();
        self.compress_if_due();
        Ok(())
    }

    /// Bytes of redb's page cache.
    pub fn catalog_cache_bytes(&self) -> usize {
        catalog_cache_bytes(self.budget_bytes())
    }

    /// Most bytes of records that are not archived: a quarter of the budget.
    pub fn log_bytes_max(&self) -> u64 {
        self.budget_bytes() / 4
    }

    /// Milliseconds this store has been open, over all opens.
    pub fn uptime_ms(&self) -> u64 {
        let open = self.clock.elapsed().saturating_sub(self.opened_at);
        let open = u64::try_from(open.as_millis()).unwrap_or(u64::MAX);
        self.uptime_before_ms.saturating_add(open)
    }

    /// Saves the running time if somebody goes by it: the grace of entries seen expired.
    fn save_uptime(&self, catalog: &Catalog) -> Result<()> {
        if catalog.snapshot()?.expiring()?.next().is_some() {
            let update = catalog.begin()?;
            update.put_meta(meta::UPTIME_MS, self.uptime_ms())?;
            update.commit()?;
        }
        Ok(())
    }

    /// Remembers what the user should know: each thing once, the newest where they are many.
    pub fn warn(&self, message: String) {
        tracing::warn!("{message}");
        let mut warnings = self.warnings.lock();
        warnings.retain(|known| *known != message);
        if warnings.len() >= WARNINGS_MAX {
            warnings.remove(0);
        }
        warnings.push(message);
    }

    /// What the user should know.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().clone()
    }

    /// Remembers why the last checkpoint failed, for whoever waits for its room.
    pub fn note_checkpoint_error(&self, error: Error) {
        tracing::warn!(%error, "a checkpoint failed");
        *self.checkpoint_error.lock() = Some(error);
        self.room.notify();
    }

    /// Takes that reason.
    pub fn last_checkpoint_error(&self) -> Option<Error> {
        self.checkpoint_error.lock().take()
    }

    /// Writes what is queued, marks the log as cleanly closed and lets go of every file.
    /// A second close does nothing.
    pub fn close(&self) -> Result<()> {
        // A second one waits for the first: who is told "closed" may open the store again.
        let _closing = self.closing.lock();
        {
            let mut queue = self.queue.lock();
            if std::mem::replace(&mut queue.closed, true) {
                return Ok(());
            }
        }
        if !self.options.read_only {
            self.drain();
        }
        self.background.stop(self);
        self.closed.store(true, Ordering::Release);
        self.room.notify();
        // A caller's thread may be at it: it writes until it sees that the queue is closed.
        let _grouping = self.grouping.lock();
        let _maintenance = self.maintenance.lock();
        if !self.outlasts_readers() {
            self.warn("calls were still reading when the store closed; they get Closed".to_owned());
        }
        let mut outcome = Ok(());
        if let Some(mut wal) = self.wal.lock().take() {
            if self.poison.is_set() {
                outcome = self.poison.check();
            } else {
                self.save_hot(&self.view.load());
                outcome = self.columns.checkpoint().and(wal.close());
            }
        }
        if let Some(catalog) = self.catalog.lock().take() {
            if outcome.is_ok() && !self.options.read_only {
                // Losing it makes expired entries stay longer, no more.
                if let Err(error) = self.save_uptime(&catalog) {
                    tracing::warn!(%error, "the running time was not saved");
                }
            }
            outcome = outcome.and(match catalog.close() {
                // Nothing is lost by it. A checkpoint reads the same pages, and has the index made anew.
                Err(rot) if rot.kind() == ErrorKind::Corrupt => {
                    tracing::warn!(%rot, "the index is damaged; the next checkpoint makes it anew");
                    Ok(())
                }
                closed => closed,
            });
        }
        self.stand_in.lock().take();
        // Last: whoever gets the lock next finds everything written.
        self.lock.lock().take();
        outcome
    }
}

impl Engine {
    /// Waits, a bounded time, until the calls that are reading now are done: a catalog answers nobody
    /// once it is closed. False when some are not.
    pub fn outlasts_readers(&self) -> bool {
        let before = Arc::clone(&self.view.load().alive);
        self.publish(|view| View { alive: Arc::new(()), ..view.clone() });
        for _ in 0..READER_WAIT_MS_MAX {
            if Arc::strong_count(&before) <= 1 {
                return true;
            }
            sync::pause(Duration::from_millis(1));
        }
        false
    }
}

/// Warnings that are kept.
const WARNINGS_MAX: usize = 64;

/// How long is waited for calls that are still reading.
const READER_WAIT_MS_MAX: u32 = 10_000;

/// Errors with `Invalid` when a budget is below the least one.
pub fn check_budget(bytes: u64) -> Result<()> {
    if bytes < limits::BUDGET_BYTES_MIN {
        return Err(Error::invalid(format!(
            "a budget of {bytes} bytes is below the least one, {} (1 MiB)",
            limits::BUDGET_BYTES_MIN
        )));
    }
    Ok(())
}

/// redb's cache gets an eighth of the budget: its upper pages stay resident, leaves come and go.
fn catalog_cache_bytes(budget: u64) -> usize {
    usize::try_from(budget / 8).unwrap_or(usize::MAX).clamp(128 << 10, 64 << 20)
}

/// min(64 MiB, 1/16 of the memory this process may use).
pub fn default_budget_bytes() -> u64 {
    let memory = memory_bytes().unwrap_or(1 << 30);
    (memory / 16).clamp(limits::BUDGET_BYTES_MIN, 64 << 20)
}
