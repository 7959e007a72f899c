//! A slot: the number under which something is attached to a switch.

use core::fmt;
use core::num::ParseIntError;
use core::str::FromStr;

/// A number under which something is attached to a switch (wire.md 1.1; called the identifier of an
/// adjacency segment in RFC 8402, and an interface number in cjdns).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u32);

impl Slot {
    /// Slot 1, the switch itself: its slow path (wire.md 1.3).
    pub const SWITCH: Slot = Slot(1);

    /// The slot with this number. Any number is valid here. The scheme decides whether it can
    /// encode the slot.
    #[inline]
    #[must_use]
    pub const fn new(number: u32) -> Slot {
        Slot(number)
    }

    /// The number.
    #[inline]
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The number as an index into a table.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Whether this is slot 1, the switch itself.
    #[inline]
    #[must_use]
    pub const fn is_switch(self) -> bool {
        self.0 == Slot::SWITCH.0
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u32> for Slot {
    fn from(number: u32) -> Slot {
        Slot(number)
    }
}

impl From<Slot> for u32 {
    fn from(slot: Slot) -> u32 {
        slot.0
    }
}

impl FromStr for Slot {
    type Err = ParseIntError;

    /// Parses a decimal number, as [`Display`](fmt::Display) writes it.
    fn from_str(text: &str) -> Result<Slot, ParseIntError> {
        text.parse().map(Slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_its_number_in_text_and_in_integers() {
        let slot = Slot::from(300);
        assert_eq!((u32::from(slot), slot.number(), "300".parse()), (300, 300, Ok(slot)));
        assert!("-1".parse::<Slot>().is_err() && "".parse::<Slot>().is_err());
        assert!(Slot::SWITCH.is_switch() && !slot.is_switch() && Slot::SWITCH < slot);
    }
}
