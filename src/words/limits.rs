//! Every limit of the store, said once, with its reason.
//!
//! A limit is checked before a write and again after a read: what a file claims is no more to be
//! trusted than what a caller passes.

/// Longest key. redb stores keys inline in its 4-KiB pages; 1 KiB keeps three to a page.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest namespace path.
pub const NAMESPACE_BYTES_MAX: usize = 1024;
/// Longest collection name.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest session name.
pub const SESSION_BYTES_MAX: usize = 255;
/// Largest payload of one entry.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// Payloads above this never stay in RAM: they are read from the log or the archive when asked for.
pub const PAYLOAD_RESIDENT_BYTES_MAX: usize = 64 << 10;
/// Largest attribute object, as JSON text.
pub const ATTRIBUTES_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of attributes and filters; a parser recurses once per level.
pub const JSON_DEPTH_MAX: usize = 16;
/// Most dimensions of a vector.
pub const DIM_MAX: usize = 65_536;
/// Largest batch, as encoded bytes: one batch is one unit of the log and is buffered on replay.
pub const BATCH_BYTES_MAX: usize = 64 << 20;
/// Most operations in one batch.
pub const BATCH_OPS_MAX: usize = 1 << 20;
/// Most hits a search may ask for.
pub const K_MAX: usize = 1 << 20;
/// Most collections in a store: their definitions are resident.
pub const COLLECTIONS_MAX: usize = 65_536;
/// Largest number that counts something for ever (LSNs, ids, segments, batches) and may come from a file.
/// A store that takes a million a second gets there in 146,000 years; above it additions could overflow.
pub const COUNT_MAX: u64 = 1 << 62;
/// Smallest memory budget.
pub const BUDGET_BYTES_MIN: u64 = 1 << 20;

// A batch must be able to hold the largest single operation: payload, vector, attributes, key,
// namespace and 4 KiB of headers.
const _: () = assert!(
    BATCH_BYTES_MAX
        >= PAYLOAD_BYTES_MAX
            + DIM_MAX * 4
            + ATTRIBUTES_BYTES_MAX
            + KEY_BYTES_MAX
            + NAMESPACE_BYTES_MAX
            + 4096
);
