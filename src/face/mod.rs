//! Floor 7, face: what a program sees. Checks arguments, then calls the floors below.

pub mod batch;
pub mod builder;
pub mod collection;
#[cfg(feature = "sim")]
pub mod decoders;
pub mod inspect;
#[cfg(feature = "sim")]
pub mod kernels;
pub mod salvage;
pub mod stats;
pub mod store;
