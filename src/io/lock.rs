//! The lock of a file on a disk that lives in RAM: held by one handle alone, or shared by several.
//!
//! Handles are told apart by what each remembers of its own hold; the lock only counts. A handle
//! that holds it shared and wants it alone gets it when no other handle has it, as with `flock`.

/// What a handle holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Hold {
    /// Nothing.
    #[default]
    None,
    /// The lock, together with others.
    Shared,
    /// The lock, alone.
    Exclusive,
}

/// The lock of one file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lock {
    shared: u32,
    exclusive: bool,
}

impl Lock {
    /// Lets a handle exchange what it holds for what it wants; false when another handle is in the
    /// way, and then it holds what it held.
    pub(super) fn exchange(&mut self, held: &mut Hold, wanted: Hold) -> bool {
        let mut others = *self;
        match held {
            Hold::None => {}
            Hold::Shared => others.shared = others.shared.saturating_sub(1),
            Hold::Exclusive => others.exclusive = false,
        }
        match wanted {
            Hold::None => {}
            Hold::Shared if others.exclusive => return false,
            Hold::Shared => others.shared += 1,
            Hold::Exclusive if others.exclusive || others.shared > 0 => return false,
            Hold::Exclusive => others.exclusive = true,
        }
        (*self, *held) = (others, wanted);
        true
    }
}
