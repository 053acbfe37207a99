//! A draft as its record will hold it, made on the thread of whoever writes.
//!
//! What of a put depends on no other write (copies of vector and payload of their exact length, attributes
//! as text) is no work for a leader, who holds up everybody: it is done before the request is queued.
//!
//! Never: looks at a view, takes an id, a version or a time.

use std::sync::Arc;
use std::time::Duration;

use half::f16;
use serde_json::{Map, Value};

use crate::words::entry::Draft;
use crate::words::error::{Error, Result};
use crate::words::id::Timestamp;
use crate::words::limits;
use crate::words::options::Element;

/// What a put brings along.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Payload bytes.
    pub payload: Arc<[u8]>,
    /// The vector as every tier will hold it.
    pub vector: Option<Arc<[f32]>>,
    /// What its values were rounded to.
    pub element: Element,
    /// Attributes as text.
    pub attributes: Arc<str>,
    /// Event time, unless it is that of the write.
    pub at: Option<Timestamp>,
    /// When it hides.
    pub expires: Option<Timestamp>,
    /// When it hides, counted from the write.
    pub ttl: Option<Duration>,
    /// Session it belongs to.
    pub session: Option<Arc<str>>,
    /// Position in its session.
    pub sequence: Option<u64>,
    /// The caller's semantic value.
    pub salience: Option<f32>,
    /// Whether it is pinned, unless that stays as it is.
    pub pinned: Option<bool>,
}

impl Prepared {
    /// Checks a draft and makes copies of it. Errors with `Invalid`, naming value and limit.
    pub fn new(draft: Draft, element: Element) -> Result<Prepared> {
        draft.check()?;
        Ok(Prepared {
            attributes: attributes_text(&draft.attributes)?,
            payload: Arc::from(draft.payload),
            vector: draft.vector.map(|vector| exact(vector, element)),
            element,
            at: draft.at,
            expires: draft.expires,
            ttl: draft.ttl,
            session: draft.session.map(Arc::from),
            sequence: draft.sequence,
            salience: draft.salience,
            pinned: draft.pinned,
        })
    }
}

/// The values as every tier will hold them: an f16 collection rounds here, before the log.
pub fn exact(mut vector: Vec<f32>, element: Element) -> Arc<[f32]> {
    if element == Element::F16 {
        for value in &mut vector {
            // Beyond the range of f16 the nearest value is the largest finite one.
            *value = f16::from_f32(value.clamp(f16::MIN.to_f32(), f16::MAX.to_f32())).to_f32();
        }
    }
    Arc::from(vector)
}

/// Attributes as text; errors with `Invalid` when they are too deep or too long.
pub fn attributes_text(attributes: &Map<String, Value>) -> Result<Arc<str>> {
    if attributes.values().any(|value| depth(value) >= limits::JSON_DEPTH_MAX) {
        return Err(Error::invalid(format!(
            "attributes are nested deeper than {} levels",
            limits::JSON_DEPTH_MAX
        )));
    }
    let text = serde_json::to_string(attributes)
        .map_err(|e| Error::invalid(format!("attributes do not form JSON: {e}")))?;
    if text.len() > limits::ATTRIBUTES_BYTES_MAX {
        return Err(Error::invalid(format!(
            "attributes take {} bytes as JSON; the limit is {}",
            text.len(),
            limits::ATTRIBUTES_BYTES_MAX
        )));
    }
    Ok(Arc::from(text))
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
