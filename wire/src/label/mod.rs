//! The label of a packet, and arithmetic on labels (wire.md 1.2 to 1.5).
//!
//! A label is one register of 64, 128 or 256 bits. Its low bits hold the *directors* of the
//! remaining hops: slot numbers, each encoded in the scheme of the switch at that hop. A switch
//! removes the director at the least significant end. Above the last director is a 1, the *end
//! marker*. For each director that a switch removes, it writes the ingress slot at the top,
//! bit-reversed. So when the packet arrives, the top bits are the return path.
//! ```text
//!  63                 63-shift                                   0
//! +------------------+------------------+---+--------+-----------+
//! | return path      |        0 ...     | 1 | d2     | d1        |
//! +------------------+------------------+---+--------+-----------+
//!    `shift` bits       the forward part: the low (64 - shift) bits
//! ```
//! `shift` counts the bits that have been used; it is a field of the [switch
//! header](crate::switch_header).
//!
//! If only the marker is left, the low bits are `0001`. The schemes of cjdns decode these bits as
//! slot 1, the switch itself. So a label that ends at a switch needs no director for its last hop.
//!
//! All operations are arithmetic on the register, and none allocates or panics. Only [`step`]
//! depends on which slots are in use; the caller passes this as an argument. `strowger conform`
//! offers the same operations as JSON lines, for comparison with other implementations. The
//! arithmetic is that of cjdns.
//!
//! # Example
//!
//! ```
//! use strowger_wire::label::{LabelError, Step, step};
//! use strowger_wire::{Hop, Label, Slot, scheme::V3X5X8};
//!
//! let (slot, scheme) = (Slot::new, &V3X5X8);
//! // First switch: from slot 1 to slot 2. Second switch: from slot 0 to slot 1.
//! let hops = [
//!     Hop { scheme, ingress: Slot::SWITCH, egress: slot(2) },
//!     Hop { scheme, ingress: slot(0), egress: Slot::SWITCH },
//! ];
//! let (label, back) = Label::<u64>::build(&hops)?;
//! assert_eq!(label.to_string(), "0000.0000.0000.0015");
//!
//! let first = step(scheme, label, 0, Slot::SWITCH, |_| true, false).unwrap();
//! let Step::Forward { to, label, shift } = first else { panic!("one hop is ahead") };
//! assert_eq!((to, shift), (slot(2), 4));
//!
//! // The packet has arrived. The label holds the return path without the last ingress slot.
//! let ingress = scheme.encode_least(slot(0)).unwrap();
//! assert_eq!(label.reverse(shift, Some(ingress))?, back);
//! # Ok::<(), LabelError>(())
//! ```

mod any;
mod build;
mod convert;
mod splice;
mod step;
mod text;

use core::fmt;

use crate::director::{Director, DirectorError};
use crate::scheme::Scheme;

use crate::register::Register;
pub use any::AnyLabel;
pub use build::Hop;
pub use step::{Step, StepError, step};
pub use text::{TextError, TextFault};

/// The remaining path of a packet and its return path so far, in one register (wire.md 1).
///
/// It corresponds to a label stack (RFC 3031) or a segment list (RFC 8402), packed into 64, 128 or
/// 256 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Label<R: Register = u64>(R);

impl<R: Register> Label<R> {
    /// Maximum length of the label of a path, in bits, including the end marker (W1.3-7).
    ///
    /// It is four bits less than the register, so that the marker and the three zeros above it fit
    /// into the register. These four bits together encode slot 1. cjdns has the same bound: the
    /// marker is at most bit 59 of 64.
    pub const BITS_MAX: u32 = R::BITS - 4;

    /// The label with this register. Every value is a label. [`step`] decides whether a switch can
    /// forward it.
    #[inline]
    #[must_use]
    pub const fn new(register: R) -> Label<R> {
        Label(register)
    }

    /// The label that ends at the switch where it starts: only the end marker.
    #[must_use]
    pub const fn here() -> Label<R> {
        Label(R::ONE)
    }

    /// The register.
    #[inline]
    #[must_use]
    pub const fn register(self) -> R {
        self.0
    }

    /// The low 64 bits of the label. They contain the whole first director, which has at most 59
    /// bits.
    #[inline]
    #[must_use]
    pub fn low(self) -> u64 {
        self.0.low()
    }

    /// Whether all bits are zero.
    #[inline]
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == R::ZERO
    }

    /// The length of the label in bits, up to and including the highest 1. In a label that no
    /// switch has forwarded yet, that bit is the end marker.
    #[inline]
    #[must_use]
    pub fn bits(self) -> u32 {
        R::BITS - self.0.leading_zeros()
    }

    /// The forward part: the bits below the return path, which occupies the top `shift` bits.
    #[inline]
    #[must_use]
    pub fn forward(self, shift: u16) -> Label<R> {
        Label(self.0.low_bits(R::BITS.saturating_sub(u32::from(shift))))
    }

    /// Whether the forward part is empty: it does not even contain an end marker. A switch discards
    /// such a packet (`label_spent`).
    #[inline]
    #[must_use]
    pub fn is_spent(self, shift: u16) -> bool {
        self.forward(shift).is_zero()
    }

    /// Whether the forward part holds at most the end marker. After the director of an endpoint's
    /// slot was removed, this means that the packet has arrived (W1.3-2).
    #[inline]
    #[must_use]
    pub fn is_at_end(self, shift: u16) -> bool {
        let forward = self.forward(shift);
        forward.is_zero() || forward.0 == R::ONE
    }

    /// The rewrite of one step (wire.md 1.2): `(label >> width) | back_bits`.
    ///
    /// `back_bits` are the director of the ingress slot, bit-reversed, at the top of a 64-bit word,
    /// as [`Scheme::back_bits`] returns them. This function checks nothing: the caller has looked
    /// up both arguments in its tables.
    #[inline]
    #[must_use]
    pub fn advance(self, width: u8, back_bits: u64) -> Label<R> {
        Label(self.0.shr(u32::from(width)).or(R::from_top(back_bits)))
    }

    fn fits(register: R) -> Result<Label<R>, LabelError> {
        let label = Label(register);
        if label.bits() > Self::BITS_MAX { Err(LabelError::TooLong) } else { Ok(label) }
    }

    /// `high << low_bits | low`, if that is at most [`BITS_MAX`](Label::BITS_MAX) bits long.
    fn join(high: R, low: u64, low_bits: u32) -> Result<Label<R>, LabelError> {
        if high != R::ZERO && Label(high).bits().saturating_add(low_bits) > Self::BITS_MAX {
            return Err(LabelError::TooLong);
        }
        Label::fits(high.shl(low_bits).or(R::from_low(low)))
    }

    /// The first director, as a switch with this scheme decodes it.
    ///
    /// # Errors
    /// [`DirectorError::NoSuchDirector`] if the low bits are not a director of the scheme.
    pub fn decode(self, scheme: &Scheme) -> Result<Director, LabelError> {
        Ok(scheme.decode(self.low())?)
    }

    /// Whether the first director names slot 1: the packet is addressed to the switch that holds it
    /// now.
    #[must_use]
    pub fn is_self(self, scheme: &Scheme) -> bool {
        scheme.decode(self.low()).is_ok_and(|director| director.slot.is_switch())
    }

    /// Whether only the end marker follows the first director.
    #[must_use]
    pub fn is_one_hop(self, scheme: &Scheme) -> bool {
        scheme
            .decode(self.low())
            .is_ok_and(|director| self.0.shr(u32::from(director.width)) == R::ONE)
    }

    /// The number of directors, if every switch on the path has this scheme. The count ends at the
    /// end marker or at a director of slot 1.
    ///
    /// # Errors
    /// [`Zero`](LabelError::Zero) for a label of zeros; [`DirectorError::NoSuchDirector`] if bits
    /// before the end are not a director of the scheme.
    pub fn hop_count(self, scheme: &Scheme) -> Result<u32, LabelError> {
        if self.is_zero() {
            return Err(LabelError::Zero);
        }
        let (mut rest, mut hops) = (self.0, 0);
        while rest != R::ZERO && rest != R::ONE {
            let director = scheme.decode(rest.low())?;
            if director.slot.is_switch() {
                break;
            }
            rest = rest.shr(u32::from(director.width));
            hops += 1;
        }
        Ok(hops)
    }
}

/// Why an operation on labels has no result (wire.md 1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LabelError {
    /// A director could not be decoded or encoded.
    Director(DirectorError),
    /// The result has more bits than a label may have ([`Label::BITS_MAX`]).
    TooLong,
    /// A label of zeros has no end marker, so it names no path.
    Zero,
    /// The label does not begin with the directors of the other label.
    NotThrough,
    /// The path has no hops.
    NoHops,
    /// Slot 1, the switch itself, occurs inside the path. It is allowed only at the ends.
    SwitchInside,
    /// The shift is not less than the width of the register.
    ShiftTooLarge,
}

impl LabelError {
    /// A stable name in snake_case, as `strowger conform` prints it.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            LabelError::Director(error) => error.kind(),
            LabelError::TooLong => "too_long",
            LabelError::Zero => "zero_label",
            LabelError::NotThrough => "not_through",
            LabelError::NoHops => "no_hops",
            LabelError::SwitchInside => "switch_inside",
            LabelError::ShiftTooLarge => "shift_too_large",
        }
    }
}

impl From<DirectorError> for LabelError {
    fn from(error: DirectorError) -> LabelError {
        LabelError::Director(error)
    }
}

impl fmt::Display for LabelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LabelError::Director(error) => return error.fmt(f),
            LabelError::TooLong => "the label would be too long for its register",
            LabelError::Zero => "a label of zeros names no path",
            LabelError::NotThrough => {
                "the label does not begin with the directors of the other one"
            }
            LabelError::NoHops => "a path has at least one hop",
            LabelError::SwitchInside => {
                "slot 1 is the switch itself: a path can begin or end there, not pass through it"
            }
            LabelError::ShiftTooLarge => "the shift is as wide as the register",
        })
    }
}

impl core::error::Error for LabelError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::{F4, V3X5X8};

    fn label(text: &str) -> Label {
        text.parse().unwrap()
    }

    /// wire.md: W1.4-12.
    #[test]
    fn hops_are_counted_up_to_the_end() {
        assert_eq!(label("a863").hop_count(&V3X5X8), Ok(3));
        assert_eq!(Label::<u64>::here().hop_count(&V3X5X8), Ok(0));
        // Bits above a director of slot 1 are not counted.
        assert_eq!(label("881").hop_count(&V3X5X8), Ok(0));
        assert_eq!(label("0").hop_count(&V3X5X8), Err(LabelError::Zero));
        assert_eq!(label("1000000000000000").hop_count(&F4), Ok(15));
    }
}
