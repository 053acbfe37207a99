//! The three levels an entry can be answered from.

use std::fmt;

/// Where the hottest copy of an entry lives.
///
/// ```
/// assert_eq!(pmll::Tier::Cold.level(), 2);
/// assert_eq!(pmll::Tier::Hot.to_string(), "L0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Level 0: exact, in RAM.
    Hot,
    /// Level 1: int8 or int4 codes in the mapped arena.
    Warm,
    /// Level 2: the archive on disk; exact as well, but read when asked for.
    Cold,
}

impl Tier {
    /// 0, 1 or 2.
    #[must_use]
    pub fn level(self) -> u8 {
        match self {
            Tier::Hot => 0,
            Tier::Warm => 1,
            Tier::Cold => 2,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}", self.level())
    }
}
