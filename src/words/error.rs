//! One error for the whole store: few kinds, each telling the caller what to do.
//!
//! The kind is the contract; the message is for people and says what happened, where (file,
//! offset, key) and what helps. Kinds are what a program may branch on.

use std::fmt;

/// Result with the store's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as a program needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The argument can never work: fix the call. Nothing was written.
    Invalid,
    /// `insert` met a live key, or `put_if` met another version.
    Exists,
    /// There is no such key, collection or version.
    NotFound,
    /// No room: memory, disk or a quota. Free some, then try again.
    Full,
    /// Another process or handle owns the store.
    Locked,
    /// The store was opened read-only.
    ReadOnly,
    /// The files are of a format this build does not know. They were left untouched.
    Version,
    /// Bytes on disk are damaged; the message names file and offset.
    Corrupt,
    /// The operating system refused; the message has its words.
    Io,
    /// A sync or write failed earlier: reads go on, writes need a reopen.
    Poisoned,
    /// The store was closed.
    Closed,
    /// The promise was cancelled before it was committed.
    Cancelled,
    /// The deadline passed before the write was committed. Nothing was written.
    Expired,
    /// A bug in the store. Please report it.
    Internal,
}

impl ErrorKind {
    /// Stable lower-case name, as the tools print it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ErrorKind::Invalid => "invalid",
            ErrorKind::Exists => "exists",
            ErrorKind::NotFound => "not_found",
            ErrorKind::Full => "full",
            ErrorKind::Locked => "locked",
            ErrorKind::ReadOnly => "read_only",
            ErrorKind::Version => "version",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::Io => "io",
            ErrorKind::Poisoned => "poisoned",
            ErrorKind::Closed => "closed",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::Expired => "expired",
            ErrorKind::Internal => "internal",
        }
    }
}

/// An error of the store: a [`ErrorKind`], a message, and the operating system's error below it.
///
/// ```
/// let error = pmll::Key::new("").unwrap_err();
/// assert_eq!(error.kind(), pmll::ErrorKind::Invalid);
/// ```
#[derive(Clone)]
pub struct Error(std::sync::Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<std::io::Error>,
}

impl Error {
    /// An error of this kind with this message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(std::sync::Arc::new(Inner { kind, message: message.into(), source: None }))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn corrupt(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Corrupt, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Internal, message)
    }

    /// An operating-system error met while doing `what` (a phrase such as "write wal/0001.wal").
    /// No space left becomes `Full`, everything else `Io`.
    pub(crate) fn io(what: impl fmt::Display, source: std::io::Error) -> Error {
        let kind = match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            _ => ErrorKind::Io,
        };
        let message = match kind {
            ErrorKind::Full => format!("disk full: cannot {what}; free space and try again"),
            _ => format!("cannot {what}"),
        };
        Error(std::sync::Arc::new(Inner { kind, message, source: Some(source) }))
    }

    /// What went wrong, for a program.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What went wrong, for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.source {
            Some(source) => write!(f, "{}: {source}", self.0.message),
            None => f.write_str(&self.0.message),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|e| e as _)
    }
}
