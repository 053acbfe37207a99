//! What can be wrong with an outside file or an argument: its contents, or the reading of it.

use std::fmt;
use std::io;
use std::path::Path;

/// Result with a [`Fault`].
pub type Result<T> = std::result::Result<T, Fault>;

/// Why an outside file or value cannot be used.
#[derive(Debug)]
pub enum Fault {
    /// Its contents are wrong; the message names file and place.
    Invalid(String),
    /// The operating system refused; the first part says what was tried.
    Io(String, io::Error),
}

impl Fault {
    /// Contents that are wrong.
    pub fn invalid(message: impl Into<String>) -> Fault {
        Fault::Invalid(message.into())
    }

    /// An operating-system error met while doing `verb` to `path`.
    pub fn io(verb: &str, path: &Path, source: io::Error) -> Fault {
        Fault::Io(format!("{verb} {}", path.display()), source)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Invalid(message) => f.write_str(message),
            Fault::Io(what, source) => write!(f, "cannot {what}: {source}"),
        }
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Fault::Invalid(_) => None,
            Fault::Io(_, source) => Some(source),
        }
    }
}
