//! A label of one of the three widths (wire.md 1.5).

use core::fmt;
use core::str::FromStr;

use super::Label;
use super::text::{TextError, TextFault};
use crate::register::{Register, U256};

/// A label whose width is known only at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AnyLabel {
    /// 64 bits.
    W64(Label<u64>),
    /// 128 bits.
    W128(Label<u128>),
    /// 256 bits.
    W256(Label<U256>),
}

/// Evaluates an expression with the [`Label`] inside an
/// [`AnyLabel`](crate::label::AnyLabel), for any width. The expression is compiled once per width.
///
/// ```
/// use strowger_wire::{label::AnyLabel, with_label};
///
/// let label: AnyLabel = "0000.4321.1234.4321".parse()?;
/// assert_eq!(with_label!(label, label => label.bits()), 47);
/// # Ok::<(), strowger_wire::label::TextError>(())
/// ```
#[macro_export]
macro_rules! with_label {
    ($any:expr, $label:ident => $body:expr) => {
        match $any {
            $crate::label::AnyLabel::W64($label) => $body,
            $crate::label::AnyLabel::W128($label) => $body,
            $crate::label::AnyLabel::W256($label) => $body,
        }
    };
}

impl AnyLabel {
    /// The width of the register in bits: 64, 128 or 256.
    #[must_use]
    pub const fn width_bits(self) -> u32 {
        match self {
            AnyLabel::W64(_) => u64::BITS,
            AnyLabel::W128(_) => u128::BITS,
            AnyLabel::W256(_) => <U256 as Register>::BITS,
        }
    }

    /// The width code of the switch header (W2-3): 0, 1, 2 for 64, 128, 256 bits.
    #[must_use]
    pub const fn width_code(self) -> u8 {
        match self {
            AnyLabel::W64(_) => u64::WIDTH_CODE,
            AnyLabel::W128(_) => u128::WIDTH_CODE,
            AnyLabel::W256(_) => <U256 as Register>::WIDTH_CODE,
        }
    }

    /// The length in bits, up to and including the highest 1.
    #[must_use]
    pub fn bits(self) -> u32 {
        with_label!(self, label => label.bits())
    }

    /// Whether all bits are zero. Such a label names no path.
    #[must_use]
    pub fn is_zero(self) -> bool {
        with_label!(self, label => label.is_zero())
    }

    /// Reads a label from big-endian bytes: 8, 16 or 32 of them. `None` for any other number.
    #[must_use]
    pub fn from_be_bytes(bytes: &[u8]) -> Option<AnyLabel> {
        if let Ok(bytes) = bytes.try_into() {
            return Some(AnyLabel::W64(Label::new(u64::from_be_bytes(bytes))));
        }
        if let Ok(bytes) = bytes.try_into() {
            return Some(AnyLabel::W128(Label::new(u128::from_be_bytes(bytes))));
        }
        let bytes = bytes.try_into().ok()?;
        Some(AnyLabel::W256(Label::new(<U256 as Register>::from_be_bytes(bytes))))
    }

    /// Passes the big-endian bytes, 8, 16 or 32 of them, to `take`.
    pub fn with_be_bytes<T>(self, take: impl FnOnce(&[u8]) -> T) -> T {
        with_label!(self, label => take(label.register().to_be_bytes().as_ref()))
    }
}

impl From<Label<u64>> for AnyLabel {
    fn from(label: Label<u64>) -> AnyLabel {
        AnyLabel::W64(label)
    }
}

impl From<Label<u128>> for AnyLabel {
    fn from(label: Label<u128>) -> AnyLabel {
        AnyLabel::W128(label)
    }
}

impl From<Label<U256>> for AnyLabel {
    fn from(label: Label<U256>) -> AnyLabel {
        AnyLabel::W256(label)
    }
}

impl fmt::Display for AnyLabel {
    /// All digits, in 4, 8 or 16 groups of four: `0000.4321.1234.4321`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        with_label!(self, label => fmt::Display::fmt(label, f))
    }
}

impl FromStr for AnyLabel {
    type Err = TextError;

    /// Reads a label with all its digits: 4, 8 or 16 groups of four hex digits of either case, with
    /// dots between them. The number of groups determines the width, so no digit may be omitted.
    fn from_str(text: &str) -> Result<AnyLabel, TextError> {
        let groups = 1 + text.bytes().filter(|byte| *byte == b'.').count();
        let label = match groups {
            0..=4 => text.parse().map(AnyLabel::W64),
            5..=8 => text.parse().map(AnyLabel::W128),
            _ => text.parse().map(AnyLabel::W256),
        }?;
        let wanted = label.width_bits() as usize / 4;
        let digits = text.len() - (groups - 1);
        match (groups, digits) {
            (4 | 8 | 16, digits) if digits == wanted => Ok(label),
            // The first group is the only one that can be short.
            (4 | 8 | 16, digits) => {
                Err(TextError { at: 4 - (wanted - digits), fault: TextFault::Dot })
            }
            _ => Err(TextError { at: text.len(), fault: TextFault::Groups }),
        }
    }
}
