//! What a salvage asks the index: only what archive and log do not say any more.
//!
//! Its values are under CRCs of their own, so what it answers was written once. It may be old: a higher
//! LSN wins as everywhere.

use std::collections::BTreeMap;

use crate::organs::catalog::Snapshot;
use crate::tiers::mover::{self, meta};
use crate::words::error::Result;
use crate::words::id::EntryId;

use super::{Sources, Wound};

/// Definitions and settings that neither archive nor log has any more.
pub fn ask(sources: &mut Sources, index: &Snapshot) {
    let mut rows: Vec<Vec<u8>> = Vec::new();
    rows.extend(index.collections().unwrap_or_default().into_iter().map(|(_, bytes)| bytes));
    rows.extend(index.settings().unwrap_or_default().into_iter().map(|(_, bytes)| bytes));
    for bytes in rows {
        if let Ok(op) = mover::decode_stored(&bytes) {
            sources.take_op(&op);
        }
    }
    let number = |name| index.meta(name).ok().flatten().unwrap_or(0);
    sources.next_id = sources.next_id.max(number(meta::NEXT_ID));
    let next = u32::try_from(number(meta::NEXT_COLLECTION)).unwrap_or(0);
    sources.next_collection = sources.next_collection.max(next);
}

/// Asks the index whose the rows are that do not say so themselves. A row that it points nowhere at, of
/// a segment that it lists, is dead.
pub fn identify(wounds: &mut Vec<Wound>, index: &Snapshot) {
    let mut owners = BTreeMap::new();
    let Ok(ids) = index.ids(EntryId(0)) else { return };
    for item in ids {
        let Ok((id, located)) = item else { return };
        if let Some(place) = located.place {
            owners.insert(place, (id, located.version));
        }
    }
    let Ok(listed) = index.segments().and_then(|s| s.collect::<Result<BTreeMap<_, _>>>()) else {
        return;
    };
    wounds.retain_mut(|wound| {
        if wound.of.is_none() {
            wound.of = owners.get(&wound.place).copied();
        }
        wound.of.is_some() || !listed.contains_key(&wound.place.segment)
    });
}
