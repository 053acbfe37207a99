//! Floor 0: the words every other floor speaks. Plain data and its limits.
//!
//! Nothing here opens a file, reads a clock (apart from the system [`clock`] implementation that a
//! builder may replace), spawns a thread or decides anything. Words may use other words; that is
//! the one exception to "siblings never import each other".

pub mod clock;
pub mod entry;
pub mod error;
pub mod id;
pub mod limits;
pub mod options;
pub mod record;
pub mod rule;
pub mod safeguard;
pub mod sync;
pub mod tier;
