//! What a caller puts ([`Draft`], [`Patch`]) and what it gets back ([`Entry`]).
//!
//! All three are owned data: nothing borrows from the store, nothing changes behind the caller.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::words::error::{Error, Result};
use crate::words::id::{EntryId, Key, Lsn, Namespace, Timestamp};
use crate::words::limits;
use crate::words::tier::Tier;

/// A memory as the caller hands it in.
///
/// ```
/// use pmll::Draft;
/// let draft = Draft::text("Caroline plays the violin")
///     .vector([0.1, 0.2, 0.3])
///     .attr("speaker", "Caroline")
///     .session("2023-05-08");
/// assert_eq!(draft.payload, b"Caroline plays the violin");
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Draft {
    /// Payload bytes, at most 16 MiB.
    pub payload: Vec<u8>,
    /// The vector, if it has one.
    pub vector: Option<Vec<f32>>,
    /// Attributes to filter by.
    pub attributes: Map<String, Value>,
    /// Event time; the time of the write when `None`.
    pub at: Option<Timestamp>,
    /// When it hides.
    pub expires: Option<Timestamp>,
    /// When it hides, counted from the moment of the write; `expires` wins.
    pub ttl: Option<Duration>,
    /// Session it belongs to, at most 255 bytes.
    pub session: Option<String>,
    /// Position in its session.
    pub sequence: Option<u64>,
    /// The caller's semantic value, 0 to 1.
    pub salience: Option<f32>,
    /// Whether it may never be demoted below int8. `None` keeps what an existing entry has.
    pub pinned: Option<bool>,
}

impl Draft {
    /// A draft with a text payload.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Draft {
        Draft { payload: text.into().into_bytes(), ..Draft::default() }
    }

    /// A draft with any payload.
    #[must_use]
    pub fn bytes(payload: impl Into<Vec<u8>>) -> Draft {
        Draft { payload: payload.into(), ..Draft::default() }
    }

    /// Sets the vector.
    #[must_use]
    pub fn vector(mut self, vector: impl Into<Vec<f32>>) -> Self {
        self.vector = Some(vector.into());
        self
    }

    /// Sets one attribute.
    #[must_use]
    pub fn attr(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    /// Sets all attributes.
    #[must_use]
    pub fn attributes(mut self, attributes: Map<String, Value>) -> Self {
        self.attributes = attributes;
        self
    }

    /// Sets the event time.
    #[must_use]
    pub fn at(mut self, at: Timestamp) -> Self {
        self.at = Some(at);
        self
    }

    /// Hides the entry this long after the write.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Hides the entry from this moment on.
    #[must_use]
    pub fn expires(mut self, expires: Timestamp) -> Self {
        self.expires = Some(expires);
        self
    }

    /// Sets the session.
    #[must_use]
    pub fn session(mut self, session: impl Into<String>) -> Self {
        self.session = Some(session.into());
        self
    }

    /// Sets the position in the session.
    #[must_use]
    pub fn sequence(mut self, sequence: u64) -> Self {
        self.sequence = Some(sequence);
        self
    }

    /// Sets the semantic value.
    #[must_use]
    pub fn salience(mut self, salience: f32) -> Self {
        self.salience = Some(salience);
        self
    }

    /// Pins the entry, or takes the pin away.
    #[must_use]
    pub fn pinned(mut self, pinned: bool) -> Self {
        self.pinned = Some(pinned);
        self
    }

    /// Checks everything that needs no store. Errors with `Invalid`, naming value and limit.
    pub(crate) fn check(&self) -> Result<()> {
        check_payload(&self.payload)?;
        if let Some(vector) = &self.vector {
            check_vector(vector)?;
        }
        check_session(self.session.as_deref())?;
        check_salience(self.salience)
    }
}

/// A change of some fields of an existing entry; what it does not name stays.
///
/// ```
/// use pmll::Patch;
/// let patch = Patch::default().attr("seen", true).pinned(true);
/// assert!(patch.payload.is_none());
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Patch {
    /// New payload.
    pub payload: Option<Vec<u8>>,
    /// New vector, or `Some(None)` to take it away.
    pub vector: Option<Option<Vec<f32>>>,
    /// Attributes to set; a JSON null removes one.
    pub attributes: Map<String, Value>,
    /// New event time.
    pub at: Option<Timestamp>,
    /// New expiry, or `Some(None)` to take it away.
    pub expires: Option<Option<Timestamp>>,
    /// New session, or `Some(None)` to take it away.
    pub session: Option<Option<String>>,
    /// New semantic value, or `Some(None)` to take it away.
    pub salience: Option<Option<f32>>,
    /// Pin or unpin.
    pub pinned: Option<bool>,
}

impl Patch {
    /// Replaces the payload.
    #[must_use]
    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = Some(payload.into());
        self
    }

    /// Replaces the vector.
    #[must_use]
    pub fn vector(mut self, vector: impl Into<Vec<f32>>) -> Self {
        self.vector = Some(Some(vector.into()));
        self
    }

    /// Sets one attribute; a JSON null removes it.
    #[must_use]
    pub fn attr(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    /// Pins or unpins.
    #[must_use]
    pub fn pinned(mut self, pinned: bool) -> Self {
        self.pinned = Some(pinned);
        self
    }

    /// Sets or removes the expiry.
    #[must_use]
    pub fn expires(mut self, expires: Option<Timestamp>) -> Self {
        self.expires = Some(expires);
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        if let Some(payload) = &self.payload {
            check_payload(payload)?;
        }
        if let Some(Some(vector)) = &self.vector {
            check_vector(vector)?;
        }
        check_session(self.session.as_ref().and_then(|s| s.as_deref()))?;
        check_salience(self.salience.flatten())
    }
}

/// An entry as the store answers it.
///
/// ```
/// # use pmll::{Draft, Store};
/// # let dir = tempfile::tempdir()?;
/// let store = Store::open(dir.path().join("memory"))?;
/// let notes = store.collection("notes")?;
/// notes.put("a", Draft::text("hello").attr("lang", "en"))?;
/// let entry = notes.get("a")?.expect("just put");
/// assert_eq!(entry.text(), Some("hello"));
/// assert_eq!(entry.attributes["lang"], "en");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// Its identity.
    pub id: EntryId,
    /// Its key.
    pub key: Key,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its exact vector; `None` when it has none or the call did not ask for it.
    pub vector: Option<Vec<f32>>,
    /// Its payload; empty when the call did not ask for it.
    pub payload: Vec<u8>,
    /// Length of its payload, asked for or not.
    pub payload_len: u64,
    /// Its attributes.
    pub attributes: Map<String, Value>,
    /// Event time.
    pub at: Timestamp,
    /// Time of the first write.
    pub created: Timestamp,
    /// Time of the last write.
    pub updated: Timestamp,
    /// Time of the last counted access; `updated` when there was none. Soft state.
    pub last_access: Timestamp,
    /// Number of counted accesses. Soft state.
    pub access_count: u64,
    /// Session it belongs to.
    pub session: Option<String>,
    /// Position in its session.
    pub sequence: Option<u64>,
    /// The caller's semantic value.
    pub salience: Option<f32>,
    /// Whether it is pinned.
    pub pinned: bool,
    /// When it hides.
    pub expires: Option<Timestamp>,
    /// Version: the LSN of the last write. `put_if` takes it.
    pub version: Lsn,
    /// The collection's model name.
    pub model: Option<String>,
    /// Where it was answered from.
    pub tier: Tier,
}

impl Entry {
    /// The payload as text, when it is UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.payload).ok()
    }
}

/// What one step of a write did.
///
/// ```
/// # use pmll::{Draft, Store};
/// # let dir = tempfile::tempdir()?;
/// let notes = Store::open(dir.path().join("memory"))?.collection("notes")?;
/// let first = notes.put("a", Draft::text("one"))?;
/// let second = notes.put("a", Draft::text("two"))?;
/// assert!(first.created && !second.created);
/// assert_eq!(first.id, second.id);
/// assert!(second.version > first.version);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The entry; `EntryId(0)` when a delete met no entry.
    pub id: EntryId,
    /// Version after the step; `Lsn(0)` when a delete met no entry.
    pub version: Lsn,
    /// Whether the step made a new entry.
    pub created: bool,
    /// Whether the step removed an entry.
    pub removed: bool,
}

fn check_payload(payload: &[u8]) -> Result<()> {
    if payload.len() > limits::PAYLOAD_BYTES_MAX {
        return Err(Error::invalid(format!(
            "a payload has {} bytes; the limit is {} (16 MiB)",
            payload.len(),
            limits::PAYLOAD_BYTES_MAX
        )));
    }
    Ok(())
}

pub(crate) fn check_vector(vector: &[f32]) -> Result<()> {
    if vector.is_empty() || vector.len() > limits::DIM_MAX {
        return Err(Error::invalid(format!(
            "a vector has {} values; it takes 1 to {}",
            vector.len(),
            limits::DIM_MAX
        )));
    }
    if let Some(at) = vector.iter().position(|v| !v.is_finite()) {
        return Err(Error::invalid(format!(
            "value {at} of a vector is {}; every value must be finite",
            vector[at]
        )));
    }
    Ok(())
}

fn check_session(session: Option<&str>) -> Result<()> {
    match session {
        Some(s) if s.is_empty() || s.len() > limits::SESSION_BYTES_MAX => {
            Err(Error::invalid(format!(
                "a session name has {} bytes; it takes 1 to {}",
                s.len(),
                limits::SESSION_BYTES_MAX
            )))
        }
        _ => Ok(()),
    }
}

fn check_salience(salience: Option<f32>) -> Result<()> {
    match salience {
        Some(s) if !(0.0..=1.0).contains(&s) => {
            Err(Error::invalid(format!("salience {s} is outside 0 to 1")))
        }
        _ => Ok(()),
    }
}
