//! The label: a register of directors, and all arithmetic on it (wire.md 1). Pure and total: never
//! allocates, never panics, and knows nothing of what is attached to a slot.
//!
//! Forward directors lie at the bottom and are taken from the least significant end; above the
//! last one stands a 1, the end marker. The way back grows, bit-reversed, from the top:
//! ```text
//!  63                 63-shift                                   0
//! +------------------+------------------+---+--------+-----------+
//! | way back so far  |        0 ...     | 1 | d2     | d1        |
//! +------------------+------------------+---+--------+-----------+
//!    `shift` bits       the forward part: the low (64 - shift) bits
//! ```
//! A marker that is all that is left reads `0001` in the schemes of cjdns, which is slot 1: such a
//! label ends at the switch itself, and no director for it is spent.
//!
//! ```
//! use strowger_wire::label::{LabelError, Step, step};
//! use strowger_wire::{Hop, Label, Slot, scheme::V3X5X8};
//!
//! let (slot, scheme) = (Slot::new, &V3X5X8);
//! // From slot 1 of one switch by its slot 2, in at slot 0 of the next, and to its slot 1.
//! let hops = [
//!     Hop { scheme, ingress: Slot::SWITCH, egress: slot(2) },
//!     Hop { scheme, ingress: slot(0), egress: Slot::SWITCH },
//! ];
//! let (label, back) = Label::<u64>::build(&hops)?;
//! assert_eq!(label.to_string(), "0000.0000.0000.0015");
//!
//! let first = step(scheme, label, 0, Slot::SWITCH, |_| true, false).unwrap();
//! let Step::Forward { to, label, shift } = first else { panic!("not yet there") };
//! assert_eq!((to, shift), (slot(2), 4));
//!
//! // It has arrived: the way back is in the label, but for the slot it came in by.
//! let ingress = scheme.encode_least(slot(0)).unwrap();
//! assert_eq!(label.reverse(shift, Some(ingress))?, back);
//! # Ok::<(), LabelError>(())
//! ```

mod build;
mod convert;
mod splice;
mod step;
mod text;

use core::fmt;

use crate::director::{Director, DirectorError};
use crate::scheme::Scheme;

use crate::register::Register;
pub use build::Hop;
pub use step::{Step, StepError, step};
pub use text::{TextError, TextFault};

/// A label: the rest of the way out and the way back so far (wire.md 1; a label stack of RFC 3031,
/// or a segment list of RFC 8402, folded into one register).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Label<R: Register = u64>(R);

impl<R: Register> Label<R> {
    /// The most bits that arithmetic lets a label have, end marker included: four fewer than the
    /// register, so that the marker and the three zeros above it, which spell slot 1, lie in it
    /// (cjdns' bound: the marker is at most bit 59 of 64).
    pub const BITS_MAX: u32 = R::BITS - 4;

    /// The label in this register. Any register is a label; whether a switch can use it, a step
    /// tells.
    #[inline]
    #[must_use]
    pub const fn new(register: R) -> Label<R> {
        Label(register)
    }

    /// The label of slot 1 of the switch one is at: only an end marker.
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

    /// Its low 64 bits, in which the first director lies whole.
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

    /// How many bits it has, up to and with its highest one bit. In a label that has not set out
    /// that is the end marker.
    #[inline]
    #[must_use]
    pub fn bits(self) -> u32 {
        R::BITS - self.0.leading_zeros()
    }

    /// The forward part: the low (register − `shift`) bits.
    #[inline]
    #[must_use]
    pub fn forward(self, shift: u16) -> Label<R> {
        Label(self.0.low_bits(R::BITS.saturating_sub(u32::from(shift))))
    }

    /// Whether no forward bits are left, not even a marker. Such a label goes nowhere.
    #[inline]
    #[must_use]
    pub fn is_spent(self, shift: u16) -> bool {
        self.forward(shift).is_zero()
    }

    /// Whether nothing but the end marker, or nothing at all, is left: a label that leaves by an
    /// endpoint's slot so has arrived (wire.md 1.3).
    #[inline]
    #[must_use]
    pub fn is_at_end(self, shift: u16) -> bool {
        let forward = self.forward(shift);
        forward.is_zero() || forward.0 == R::ONE
    }

    /// The data plane's rewrite, and nothing else (wire.md 1.2): `(L >> width) | back_bits`, with
    /// `back_bits` at the top of the word as [`Scheme::back_bits`] gives them. Checks nothing.
    #[inline]
    #[must_use]
    pub fn advance(self, width: u8, back_bits: u64) -> Label<R> {
        Label(self.0.shr(u32::from(width)).or(R::from_top(back_bits)))
    }

    fn fits(register: R) -> Result<Label<R>, LabelError> {
        let label = Label(register);
        if label.bits() > Self::BITS_MAX { Err(LabelError::TooLong) } else { Ok(label) }
    }

    /// `high << low_bits | low`, if that is no longer than a label may be.
    fn join(high: R, low: u64, low_bits: u32) -> Result<Label<R>, LabelError> {
        if high != R::ZERO && Label(high).bits().saturating_add(low_bits) > Self::BITS_MAX {
            return Err(LabelError::TooLong);
        }
        Label::fits(high.shl(low_bits).or(R::from_low(low)))
    }

    /// The first director.
    ///
    /// # Errors
    /// [`DirectorError::NoSuchDirector`].
    pub fn decode(self, scheme: &Scheme) -> Result<Director, LabelError> {
        Ok(scheme.decode(self.low())?)
    }

    /// Whether its first director names slot 1, the switch one is at.
    #[must_use]
    pub fn is_self(self, scheme: &Scheme) -> bool {
        scheme.decode(self.low()).is_ok_and(|director| director.slot.is_switch())
    }

    /// Whether nothing but the end marker follows its first director.
    #[must_use]
    pub fn is_one_hop(self, scheme: &Scheme) -> bool {
        scheme
            .decode(self.low())
            .is_ok_and(|director| self.0.shr(u32::from(director.width)) == R::ONE)
    }

    /// How many directors this label has until it ends, if every switch on its way has this
    /// scheme. It ends at its marker, or at a director of slot 1.
    ///
    /// # Errors
    /// [`Zero`](LabelError::Zero), or `NoSuchDirector` on the way.
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

/// Why a label could not be computed (wire.md 1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LabelError {
    /// A director could not be read or written.
    Director(DirectorError),
    /// The result has more bits than a label may have ([`Label::BITS_MAX`]).
    TooLong,
    /// A label without any one bit leads nowhere.
    Zero,
    /// The label does not lead through the other one's end.
    NotThrough,
    /// A path of no hops.
    NoHops,
    /// Slot 1 elsewhere than at the ends of a path.
    SwitchInside,
    /// A shift as wide as the register, or wider.
    ShiftTooLarge,
}

impl LabelError {
    /// A stable name in snake_case, as `strowger conform` answers it.
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
            LabelError::Zero => "a label of no bits leads nowhere",
            LabelError::NotThrough => "the label does not lead through the end of the other",
            LabelError::NoHops => "a path has at least one hop",
            LabelError::SwitchInside => {
                "slot 1 is the switch itself: a path can only begin or end there"
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

    #[test]
    fn hops_are_counted_up_to_the_end() {
        assert_eq!(label("a863").hop_count(&V3X5X8), Ok(3));
        assert_eq!(Label::<u64>::here().hop_count(&V3X5X8), Ok(0));
        // An endless switch itself, and what stands above it.
        assert_eq!(label("881").hop_count(&V3X5X8), Ok(0));
        assert_eq!(label("0").hop_count(&V3X5X8), Err(LabelError::Zero));
        assert_eq!(label("1000000000000000").hop_count(&F4), Ok(15));
    }
}
