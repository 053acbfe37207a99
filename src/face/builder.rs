//! Opening: settings and components come together here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::controller::engine::Engine;
use crate::face::store::Store;
use crate::io::{Disk, FileDisk};
use crate::words::clock::{Clock, SystemClock};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::options::Options;

/// Opens a store with other settings or components than the default ones.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use pmll::{Options, Store};
/// let store = Store::builder(dir.path().join("memory"))
///     .options(Options { budget_bytes: Some(16 << 20), ..Options::default() })
///     .open()?;
/// assert_eq!(store.stats()?.budget_bytes, 16 << 20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Builder {
    path: PathBuf,
    options: Options,
    disk: Option<Arc<dyn Disk>>,
    clock: Option<Arc<dyn Clock>>,
}

impl Builder {
    pub(crate) fn new(path: &Path) -> Builder {
        Builder { path: path.to_owned(), options: Options::default(), disk: None, clock: None }
    }

    /// Settings.
    #[must_use]
    pub fn options(mut self, options: Options) -> Builder {
        self.options = options;
        self
    }

    /// Another disk than the operating system's; the path then only names the store in messages.
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Builder {
        self.disk = Some(disk);
        self
    }

    /// Another clock than the operating system's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Builder {
        self.clock = Some(clock);
        self
    }

    /// Opens, recovering what the last owner left; creates the directory if allowed.
    ///
    /// Errors: `Invalid` (not a store, not empty), `NotFound`, `Locked`, `Version`, `Corrupt`
    /// (damage before acknowledged records), `Io`. Cost: reads the footers of the archive and at
    /// most a quarter of the budget of log.
    pub fn open(self) -> Result<Store> {
        let disk = match self.disk {
            Some(disk) => disk,
            None => open_directory(&self.path, &self.options)?,
        };
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock::default()));
        Ok(Store::new(Engine::open(disk, clock, self.options)?))
    }
}

fn open_directory(path: &Path, options: &Options) -> Result<Arc<dyn Disk>> {
    let opened = match FileDisk::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if options.read_only || !options.create {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("there is no store at {}", path.display()),
                ));
            }
            create_directory(path)
        }
        opened => opened,
    };
    match opened {
        Ok(disk) => Ok(Arc::new(disk)),
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => Err(Error::invalid(format!(
            "{} is a file, not a directory; a store is a directory",
            path.display()
        ))),
        Err(e) => Err(Error::io(format!("open {}", path.display()), e)),
    }
}

fn create_directory(path: &Path) -> std::io::Result<FileDisk> {
    match FileDisk::create(path) {
        // Somebody else made it since we looked.
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => FileDisk::open(path),
        created => created,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_somebody_else_made_meanwhile_is_opened() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("store");
        create_directory(&path).unwrap();
        create_directory(&path).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = create_directory(file.path()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotADirectory);
    }
}
