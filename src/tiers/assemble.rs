//! Assembling: from a copy in some tier to the [`Entry`] a caller gets.
//!
//! Reads no more than asked: without payload and vector an archived entry costs one row and one
//! frame of bodies.

use serde_json::{Map, Value};

use crate::organs::columns::Access;
use crate::tiers::{Copy, View};
use crate::words::entry::Entry;
use crate::words::error::{Error, Result};
use crate::words::id::EntryId;
use crate::words::record::CollectionDef;

/// What a caller wants of an entry besides its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The exact vector.
    pub vector: bool,
    /// The payload.
    pub payload: bool,
}

/// Looks the accesses of an entry up.
pub type Accesses<'a> = &'a dyn Fn(EntryId) -> Access;

/// Builds the entry.
pub fn entry(
    view: &View,
    copy: &Copy,
    def: &CollectionDef,
    access: Accesses<'_>,
    want: Want,
) -> Result<Entry> {
    let tier = view.tier(def.id, copy);
    let mut entry = match copy {
        Copy::Hot(hot) => {
            let record = &hot.record;
            Entry {
                id: record.id,
                key: record.key.clone(),
                namespace: record.namespace.clone(),
                vector: record.vector.as_ref().filter(|_| want.vector).map(|v| v.to_vec()),
                payload: if want.payload { hot.payload()? } else { Vec::new() },
                payload_len: record.payload.len() as u64,
                attributes: attributes(&record.attributes)?,
                at: record.at,
                created: record.created,
                updated: record.updated,
                last_access: record.updated,
                access_count: 0,
                session: record.session.as_deref().map(str::to_owned),
                sequence: record.sequence,
                salience: record.salience,
                pinned: record.pinned,
                expires: record.expires,
                version: record.version,
                model: def.spec.model.clone(),
                tier,
            }
        }
        Copy::Cold(cold) => {
            let (row, body) = (&cold.row, cold.body()?);
            Entry {
                id: row.id,
                key: body.key,
                namespace: body.namespace,
                vector: if want.vector { cold.vector()? } else { None },
                payload: if want.payload { cold.payload()? } else { Vec::new() },
                payload_len: u64::from(row.payload_len()),
                attributes: attributes(&body.attributes)?,
                at: row.at,
                created: row.created,
                updated: row.updated,
                last_access: row.updated,
                access_count: 0,
                session: body.session.as_deref().map(str::to_owned),
                sequence: row.sequence,
                salience: row.salience,
                pinned: row.pinned,
                expires: row.expires,
                version: row.version,
                model: def.spec.model.clone(),
                tier,
            }
        }
    };
    let Access { count, last, .. } = access(entry.id);
    entry.access_count = count;
    entry.last_access = last.unwrap_or(entry.updated);
    Ok(entry)
}

/// Attributes as the store keeps them, as a map.
pub fn attributes(text: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(text)
        .map_err(|e| Error::corrupt(format!("attributes of an entry are not a JSON object: {e}")))
}
