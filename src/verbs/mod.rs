//! Floor 5, verbs: what is done with the tiers as a whole. Verbs do not know each other.

pub mod browse;
pub mod compress;
pub mod inspect;
pub mod layout;
pub mod recovery;
pub mod salvage;
pub mod search;
pub mod vacuum;
pub mod verify;
