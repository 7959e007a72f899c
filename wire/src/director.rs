//! Directors: slot numbers as a scheme writes them.

use core::fmt;

use crate::slot::Slot;

/// One slot number written in one form of one scheme: what a switch takes off the low end of a
/// label (wire.md 1.1; the top of the stack in RFC 3031's words).
///
/// Only a [`Scheme`](crate::scheme::Scheme) makes one, so the bits, the width and the slot agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Director {
    pub(crate) slot: Slot,
    pub(crate) bits: u64,
    pub(crate) width: u8,
    pub(crate) form: u8,
}

impl Director {
    /// The slot it names.
    #[inline]
    #[must_use]
    pub const fn slot(self) -> Slot {
        self.slot
    }

    /// Its bits, prefix lowest; those at and above [`width`](Director::width) are zero.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.bits
    }

    /// How many bits it takes off a label: 1 to 59.
    ///
    /// The director of slot 1 may be wider than its form: the bits above `0001` are zero there, so
    /// any width the scheme has will do (wire.md 1.3).
    #[inline]
    #[must_use]
    pub const fn width(self) -> u8 {
        self.width
    }

    /// The index of its form in the scheme, narrowest first.
    #[inline]
    #[must_use]
    pub const fn form(self) -> u8 {
        self.form
    }

    /// Its bits in reverse order at the **top** of a 64-bit word: what a step writes into the way
    /// back (wire.md 1.2). [`Register::from_top`](crate::register::Register::from_top) puts them at
    /// the top of a register of any width.
    #[inline]
    #[must_use]
    pub const fn back_bits(self) -> u64 {
        self.bits.reverse_bits()
    }
}

/// Why a slot could not be written, or a director not read (wire.md 1.4, encode and decode).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DirectorError {
    /// The bits begin no director of this scheme, or spell slot 1 in a form that is not its own.
    NoSuchDirector,
    /// The scheme has no form with this index.
    NoSuchForm,
    /// The scheme has no form of this width.
    NoSuchWidth,
    /// The slot's number cannot be written in this form or width, or in none of the scheme's.
    SlotTooWide,
    /// The scheme has no spelling for slot 1: no form of it begins a director whose value is 1.
    NoSelf,
}

impl DirectorError {
    /// A stable name in snake_case, as `strowger conform` answers it.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            DirectorError::NoSuchDirector => "no_such_director",
            DirectorError::NoSuchForm => "no_such_form",
            DirectorError::NoSuchWidth => "no_such_width",
            DirectorError::SlotTooWide => "slot_too_wide",
            DirectorError::NoSelf => "no_self",
        }
    }
}

impl fmt::Display for DirectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DirectorError::NoSuchDirector => "the low bits of the label are no director",
            DirectorError::NoSuchForm => "the scheme has no such form",
            DirectorError::NoSuchWidth => "the scheme has no form of this width",
            DirectorError::SlotTooWide => "the slot's number does not fit",
            DirectorError::NoSelf => "the scheme cannot spell slot 1",
        })
    }
}

impl core::error::Error for DirectorError {}
