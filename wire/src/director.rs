//! Directors: the codes of slot numbers in a label (wire.md 1.1).

use core::fmt;

use crate::slot::Slot;

/// One slot number, encoded in one form of one scheme. A switch removes this code from the low end
/// of a label (wire.md 1.1; compare the top label of an MPLS label stack, RFC 3031).
///
/// Only a [`Scheme`](crate::scheme::Scheme) makes directors, so slot, bits and width always agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Director {
    pub(crate) slot: Slot,
    pub(crate) bits: u64,
    pub(crate) width: u8,
    pub(crate) form: u8,
}

impl Director {
    /// The slot that this director names.
    #[inline]
    #[must_use]
    pub const fn slot(self) -> Slot {
        self.slot
    }

    /// The bits of the director, with the prefix lowest. Bits from [`width`](Director::width) on
    /// are zero.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.bits
    }

    /// The number of bits that a switch removes from a label with this director: 1 to 59.
    ///
    /// The director of slot 1 may be wider than its form: the bits above `0001` are zero, so it can
    /// have any width of the scheme that is not below the width of that form (wire.md 1.3).
    #[inline]
    #[must_use]
    pub const fn width(self) -> u8 {
        self.width
    }

    /// The index of this director's form in the scheme; 0 is the narrowest form.
    #[inline]
    #[must_use]
    pub const fn form(self) -> u8 {
        self.form
    }

    /// The bits of the director in reverse order, at the **top** of a 64-bit word. A step writes
    /// this value into the return path (wire.md 1.2).
    /// [`Register::from_top`](crate::register::Register::from_top) puts the value at the top of a
    /// register of any width.
    #[inline]
    #[must_use]
    pub const fn back_bits(self) -> u64 {
        self.bits.reverse_bits()
    }
}

/// Why a slot cannot be encoded, or bits are not a director (W1.4-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DirectorError {
    /// The bits are not a director of this scheme, or encode slot 1 in a form other than its own.
    NoSuchDirector,
    /// The scheme has no form with this index.
    NoSuchForm,
    /// The scheme has no form of this width.
    NoSuchWidth,
    /// The slot number does not fit the requested form or width, or it fits no form of the scheme.
    SlotTooWide,
    /// The scheme cannot encode slot 1: the prefix of no form equals the low bits of the value 1.
    NoSelf,
}

impl DirectorError {
    /// A stable name in snake_case, as `strowger conform` prints it.
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
            DirectorError::NoSuchDirector => {
                "the low bits of the label are no director of the scheme"
            }
            DirectorError::NoSuchForm => "the scheme has no such form",
            DirectorError::NoSuchWidth => "the scheme has no form of this width",
            DirectorError::SlotTooWide => {
                "the slot's number does not fit any form that was asked for"
            }
            DirectorError::NoSelf => "the scheme cannot write slot 1",
        })
    }
}

impl core::error::Error for DirectorError {}
