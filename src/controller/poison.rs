//! The poison mark: set once, when a sync or a log write failed, and never taken back.
//!
//! After a failed sync nobody knows which pages reached the disk, and asking again lies (the
//! kernel marks pages clean). So reads go on, every later write fails, and only a reopen, which
//! reads what is really there and persists it anew, lifts it.

use std::sync::OnceLock;

use crate::words::error::{Error, ErrorKind, Result};

/// Whether the store still takes writes.
#[derive(Debug, Default)]
pub struct Poison(OnceLock<String>);

impl Poison {
    /// Errors with `Poisoned` when the mark is set.
    pub fn check(&self) -> Result<()> {
        match self.0.get() {
            None => Ok(()),
            Some(cause) => Err(Error::new(
                ErrorKind::Poisoned,
                format!("writes are off since an earlier failure ({cause}); reopen the store"),
            )),
        }
    }

    /// Sets the mark; the first cause stays.
    pub fn set(&self, cause: &Error) {
        if self.0.set(cause.to_string()).is_ok() {
            tracing::error!(%cause, "the store takes no more writes until it is reopened");
        }
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.0.get().is_some()
    }
}
