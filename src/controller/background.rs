//! The one background thread: drains promises nobody waits for, checkpoints, compresses, keeps codes that searches
//! want, and reads hot entries back into RAM after an open.
//!
//! It sleeps on a condition variable without a timeout, so an idle store wakes nobody and writes
//! nothing. It starts with the first wish, not with the store. A panic in it poisons the store
//! instead of passing unnoticed.

use std::sync::Arc;
use std::time::Duration;

use crate::controller::engine::Engine;
use crate::controller::piecing::PIECES_A_SEARCH;
use crate::pure::policy::TRIGGER_SHARE;
use crate::tiers::grouper::Missed;
use crate::words::error::Error;
use crate::words::sync::{Condvar, Mutex};

/// What the thread is asked to do.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Write what is queued.
    pub drain: bool,
    /// Make a checkpoint.
    pub checkpoint: bool,
    /// Make one if it is still due: who wrote while the last one ran counted what that archived.
    pub due: bool,
    /// Run the compressor.
    pub compress: bool,
    /// Read hot entries back into RAM.
    pub refill: bool,
    /// Group sketches into cells.
    pub group: bool,
    /// Make the pieces that searches want.
    pub pieces: bool,
    /// Save the columns.
    pub columns: bool,
    /// Make the index anew.
    pub heal: bool,
    stop: bool,
}

impl Wishes {
    fn any(&self) -> bool {
        let work = self.drain || self.checkpoint || self.due || self.compress || self.group;
        work || self.refill || self.pieces || self.columns || self.heal
    }
}

/// Where wishes are left.
#[derive(Debug, Default)]
pub struct Wake {
    wishes: Mutex<Wishes>,
    changed: Condvar,
}

impl Wake {
    /// Leaves a wish.
    pub fn notify(&self, wish: impl FnOnce(&mut Wishes)) {
        wish(&mut self.wishes.lock());
        self.changed.notify_all();
    }
}

/// A condition without data: "something made room".
#[derive(Debug, Default)]
pub struct Signal {
    lock: Mutex<()>,
    changed: Condvar,
}

impl Signal {
    /// Wakes all waiters.
    pub fn notify(&self) {
        let _guard = self.lock.lock();
        self.changed.notify_all();
    }

    /// Waits for a notification, at most this long; false when none came.
    pub fn wait(&self, at_most: Duration) -> bool {
        let mut guard = self.lock.lock();
        !self.changed.wait_for(&mut guard, at_most).timed_out()
    }
}

/// The thread's handle, kept by the store.
#[derive(Debug, Default)]
pub struct Background(Mutex<Option<std::thread::JoinHandle<()>>>);

impl Background {
    /// Starts the thread.
    pub fn start(&self, engine: &Arc<Engine>) -> std::io::Result<()> {
        let engine = Arc::clone(engine);
        let handle = std::thread::Builder::new()
            .name("pmll-background".to_owned())
            .spawn(move || run(&engine))?;
        *self.0.lock() = Some(handle);
        Ok(())
    }

    /// Stops the thread after what it is doing, and waits for it.
    pub fn stop(&self, engine: &Engine) {
        engine.wake.notify(|wishes| wishes.stop = true);
        if let Some(handle) = self.0.lock().take()
            && handle.join().is_err()
        {
            engine.poison.set(&Error::internal("the background thread panicked"));
        }
    }
}

fn run(engine: &Engine) {
    loop {
        let wishes = {
            let mut wishes = engine.wake.wishes.lock();
            loop {
                if wishes.any() {
                    break;
                }
                if wishes.stop {
                    return;
                }
                engine.wake.changed.wait(&mut wishes);
            }
            let stop = wishes.stop;
            std::mem::replace(&mut *wishes, Wishes { stop, ..Wishes::default() })
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            if wishes.heal {
                engine.heal();
            }
            if wishes.drain {
                engine.drain();
            }
            if (wishes.checkpoint || wishes.due && engine.checkpoint_is_due())
                && let Err(error) = engine.checkpoint()
            {
                engine.note_checkpoint_error(error);
            }
            // A checkpoint may have asked for it as well: once is enough.
            if wishes.compress
                && engine.is_over(TRIGGER_SHARE)
                && let Err(error) = engine.make_fit()
            {
                engine.note_checkpoint_error(error);
            }
            if wishes.columns && !engine.poison.is_set() {
                engine.save_columns();
            }
            // What is hot comes first: it takes less time, and is asked for at once.
            if wishes.refill && engine.refill() {
                engine.wake.notify(|wish| {
                    wish.refill = true;
                    wish.group |= wishes.group;
                });
            } else if wishes.group {
                engine.group(Missed::Much);
            }
            if wishes.pieces {
                engine.make_pieces(PIECES_A_SEARCH, true);
            }
        }));
        if outcome.is_err() {
            engine.poison.set(&Error::internal("the background thread panicked"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::commit::Request;
    use crate::controller::stage::Step;
    use crate::io::MemoryDisk;
    use crate::words::clock::SystemClock;
    use crate::words::options::{CollectionSpec, Durability, Options};

    #[test]
    fn a_checkpoint_that_is_due_no_more_is_not_made() {
        let segments_after = |wish: fn(&mut Wishes)| {
            let (disk, clock) = (Arc::new(MemoryDisk::new()), Arc::new(SystemClock::default()));
            let engine = Engine::open(disk, clock, Options::default()).unwrap();
            let (name, spec) = ("notes".to_owned(), CollectionSpec::new());
            let steps = vec![Step::Define { name, spec }];
            let durability = Durability::Sync;
            engine.write(Request { steps, durability, deadline: None, bytes: 0 }).unwrap();
            engine.wake.notify(wish);
            // The thread sees to its wishes before it stops.
            engine.close().unwrap();
            engine.view.load().cold.segments.len()
        };
        assert_eq!(segments_after(|wish| wish.due = true), 0);
        assert_eq!(segments_after(|wish| wish.checkpoint = true), 1);
    }
}
