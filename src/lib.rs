//! pmll: a persistent, tiered memory store that an agent process opens as a directory.
//!
//! An agent remembers entries (a vector, a payload, attributes), finds them again by key, by
//! filter or by nearness, is killed, opens the directory again and finds everything. Every
//! acknowledged write is on disk; memory stays inside a byte budget; nothing is deleted but what
//! the caller deletes.
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! use pmll::{Draft, Filter, Query, Store};
//!
//! let store = Store::open(dir.path().join("memory"))?;
//! let notes = store.collection("notes")?;
//! notes.put("n1", Draft::text("Caroline plays the violin")
//!     .vector([0.9, 0.1, 0.0])
//!     .attr("speaker", "Caroline"))?;
//!
//! let query = Query::vector([1.0, 0.0, 0.0]).k(3)
//!     .filter(Filter::parse(r#"{"speaker": "Caroline"}"#)?);
//! for hit in notes.search(query)? {
//!     println!("{:.3} {}", hit.score, hit.entry.text().unwrap_or("?"));
//! }
//! store.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Where to go on: [`Store`] opens and keeps up, [`Collection`] reads and writes, [`Draft`] is what
//! you put, [`Entry`] what you get, [`Query`] and [`Filter`] find, [`Error`] says what to do.
//! `docs/ARCHITECTURE.md` in the repository walks one record through the files.
#![deny(missing_docs)]

mod bytes;
mod controller;
mod face;
pub mod io;
mod organs;
mod pure;
mod tiers;
mod verbs;
mod words;

pub use bytes::promise::{Promise, PromiseStats};
pub use controller::maintenance::CheckpointReport;
pub use controller::pressure::{CompressReport, LevelReport, Outcome, Why};
pub use face::batch::Batch;
pub use face::builder::Builder;
pub use face::collection::Collection;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub use face::decoders;
pub use face::inspect;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub use face::kernels;
pub use face::salvage::{Lost, Older, Salvage, SalvageProgress, SalvageReport, salvage};
pub use face::stats::{
    CompressorStats, DiskStats, Fidelity, Stats, TierStats, Width, WrittenStats,
};
pub use face::store::{CollectionInfo, Store};
pub use organs::columns::moves::LevelMove;
pub use pure::filter::Filter;
pub use pure::policy::{Policy, Standing};
pub use pure::score::Score;
pub use verbs::browse::{Scan, ScanPage};
pub use verbs::search::{CountAccess, Exactness, Hit, Hits, Near, Query};
pub use verbs::vacuum::VacuumReport;
pub use verbs::verify::{Depth, Problem, VerifyReport};
pub use words::clock::{Clock, SystemClock};
pub use words::entry::{Draft, Entry, Patch, Receipt};
pub use words::error::{Error, ErrorKind, Result};
pub use words::id::{EntryId, Key, Lsn, Namespace, Timestamp};
pub use words::options::{ArenaAccess, CollectionSpec, Durability, Element, Metric, Options};
#[cfg(feature = "sabotage")]
#[doc(hidden)]
pub use words::safeguard::Safeguard;
pub use words::tier::Tier;

/// The program of the README, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
