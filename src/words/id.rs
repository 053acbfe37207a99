//! Identities: what names an entry, a version, a collection and a place in time.
//!
//! All of them are newtypes so that an id is never passed where a version is meant. Their byte
//! forms on disk are decided in `bytes/codec`, not here.

use std::fmt;
use std::sync::Arc;

use crate::words::error::{Error, Result};
use crate::words::limits;

/// Identity of an entry: unique in its store for ever, never reused, dense from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub u64);

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Log sequence number: the position of one operation in the history of the store.
///
/// Every operation takes the next one, without gaps. The version of an entry is the LSN of the
/// operation that wrote it last, so a larger version is always the newer one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The LSN after this one.
    #[must_use]
    pub fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Number of a collection in its store: never reused, dense from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionId(pub u32);

/// The caller's name of an entry: 1 to 1,024 bytes, unique in its collection and namespace.
///
/// Bytes, not text: most keys are UTF-8, and [`Key::display`] shows those as they are and others
/// with `\xNN` escapes.
///
/// ```
/// use pmll::Key;
/// let key = Key::new("conv-26:D1:3")?;
/// assert_eq!(key.as_bytes(), b"conv-26:D1:3");
/// assert!(Key::new("").is_err());
/// # Ok::<(), pmll::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// Checks the length and takes the bytes. Errors with `Invalid` when empty or too long.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Key> {
        let bytes = bytes.as_ref();
        if bytes.is_empty() {
            return Err(Error::invalid("a key is empty; it takes 1 to 1024 bytes"));
        }
        if bytes.len() > limits::KEY_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a key has {} bytes; the limit is {}",
                bytes.len(),
                limits::KEY_BYTES_MAX
            )));
        }
        Ok(Key(bytes.into()))
    }

    /// Stands before every key; only a bound of a range, never a key.
    pub(crate) fn least() -> Key {
        Key(Arc::default())
    }

    /// The bytes of the key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key as text, when it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The key for people: text as it is, other bytes escaped.
    #[must_use]
    pub fn display(&self) -> String {
        match self.as_str() {
            Some(text) => text.to_owned(),
            None => self.0.escape_ascii().to_string(),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.display())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display())
    }
}

/// A path of names inside a collection, such as `user/7/notes`; the empty path is the root.
///
/// Segments are separated by `/`, none is empty, none holds a NUL; at most 1,024 bytes in all.
///
/// ```
/// use pmll::Namespace;
/// let ns = Namespace::new("user/7")?;
/// assert!(Namespace::new("user/7/notes")?.is_under(&ns));
/// assert!(!Namespace::new("user/77")?.is_under(&ns));
/// # Ok::<(), pmll::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// The root: the namespace of entries that were given none.
    #[must_use]
    pub fn root() -> Namespace {
        Namespace::default()
    }

    /// Parses a path. Errors with `Invalid` on an empty segment, a NUL or too many bytes.
    pub fn new(path: &str) -> Result<Namespace> {
        if path.len() > limits::NAMESPACE_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a namespace has {} bytes; the limit is {}",
                path.len(),
                limits::NAMESPACE_BYTES_MAX
            )));
        }
        if !path.is_empty() && path.split('/').any(|s| s.is_empty() || s.contains('\0')) {
            return Err(Error::invalid(format!(
                "namespace {path:?} has an empty segment or a NUL; write it like user/7/notes"
            )));
        }
        Ok(Namespace(path.into()))
    }

    /// The path as text; empty for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this namespace is `parent` or lies below it.
    #[must_use]
    pub fn is_under(&self, parent: &Namespace) -> bool {
        parent.is_root()
            || self
                .0
                .strip_prefix(&*parent.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The full path of an entry: what is unique in a store. Orders as (collection, namespace, key).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPath {
    /// The collection.
    pub collection: CollectionId,
    /// The namespace in it.
    pub namespace: Namespace,
    /// The key in that.
    pub key: Key,
}

/// Microseconds since 1970-01-01T00:00:00 UTC; negative before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This moment plus a duration, saturating at the ends of the range.
    #[must_use]
    pub fn plus(self, duration: std::time::Duration) -> Timestamp {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_add(micros))
    }
}
