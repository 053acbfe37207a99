//! Floor 6, controller: who may write when, and what happens behind the caller's back.

pub mod admission;
pub mod background;
pub mod commit;
pub mod counting;
pub mod engine;
pub mod gathering;
pub mod grouping;
pub mod lead;
pub mod maintenance;
pub mod opening;
pub mod piecing;
pub mod poison;
pub mod prepared;
pub mod pressure;
pub mod refill;
pub mod resize;
pub mod settling;
pub mod stage;
