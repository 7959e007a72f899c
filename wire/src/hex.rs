//! Bytes as hex digits: the text form of keys, schemes and other short lists of bytes.
//!
//! Digits are written in lower case and accepted in either case. A sign, a prefix or spaces are not
//! allowed.
//!
//! ```
//! use strowger_wire::hex::{self, Hex, HexError};
//!
//! assert_eq!(Hex(&[0x0f, 0xa0]).to_string(), "0fa0");
//! assert_eq!(hex::array("0FA0"), Ok([0x0f, 0xa0]));
//! assert_eq!(hex::array::<2>("0fa"), Err(HexError::Length));
//! let bytes: Result<Vec<u8>, HexError> = hex::bytes("0fax").collect();
//! assert_eq!(bytes, Err(HexError::NotHex { at: 3 }));
//! ```

use core::fmt::{self, Write as _};

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Shows bytes as hex digits, two per byte, in lower case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The digits are written one by one, so that no copy of a secret is left in a formatter's
        // buffer.
        let digit = |value: u8| char::from(DIGITS[usize::from(value & 15)]);
        self.0.iter().try_for_each(|byte| {
            f.write_char(digit(byte >> 4))?;
            f.write_char(digit(*byte))
        })
    }
}

impl fmt::Debug for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The bytes that these digits encode, one by one. The last item is an error if a digit is left
/// over.
pub fn bytes(text: &str) -> impl Iterator<Item = Result<u8, HexError>> {
    let pairs = text.as_bytes().chunks(2).enumerate();
    pairs.map(|(index, pair)| {
        let value = |at: usize, digit: u8| {
            let value = char::from(digit).to_digit(16).map(|value| value as u8);
            value.ok_or(HexError::NotHex { at: 2 * index + at })
        };
        match *pair {
            [high, low] => Ok(value(0, high)? << 4 | value(1, low)?),
            [high, ..] => value(0, high).and(Err(HexError::Length)),
            [] => Err(HexError::Length),
        }
    })
}

/// Reads exactly as many bytes as `out` has. Use it for secrets: the decoded bytes are written only
/// to `out`.
///
/// # Errors
/// [`HexError`]. In this case the content of `out` is undefined.
pub fn fill(text: &str, out: &mut [u8]) -> Result<(), HexError> {
    let mut read = bytes(text);
    for place in out {
        *place = read.next().ok_or(HexError::Length)??;
    }
    match read.next() {
        None => Ok(()),
        Some(more) => more.and(Err(HexError::Length)),
    }
}

/// Reads exactly `N` bytes.
///
/// # Errors
/// [`HexError`].
pub fn array<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    let mut out = [0; N];
    fill(text, &mut out).map(|()| out)
}

/// Why a text is not the expected hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HexError {
    /// The byte at this position of the text, from 0, is not a hex digit.
    NotHex {
        /// The position.
        at: usize,
    },
    /// The number of digits is odd, or the number of bytes is not the expected one.
    Length,
}

impl fmt::Display for HexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HexError::NotHex { at } => write!(f, "byte {at} is no hex digit"),
            HexError::Length => f.write_str("another number of hex digits than wanted"),
        }
    }
}

impl core::error::Error for HexError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_read_back_in_either_case() {
        for byte in 0..=u8::MAX {
            let digits =
                |table: &[u8; 16]| [table[usize::from(byte >> 4)], table[usize::from(byte & 15)]];
            for table in [b"0123456789abcdef", b"0123456789ABCDEF"] {
                let digits = digits(table);
                let text = core::str::from_utf8(&digits).expect("ASCII");
                assert_eq!(array(text), Ok([byte]));
            }
        }
    }

    #[test]
    fn hex_errors_have_a_position() {
        assert_eq!(array::<2>("00"), Err(HexError::Length));
        assert_eq!(array::<2>("000"), Err(HexError::Length));
        assert_eq!(array::<2>("000000"), Err(HexError::Length));
        assert_eq!(array::<0>(""), Ok([]));
        assert_eq!(array::<2>("00x0"), Err(HexError::NotHex { at: 2 }));
        assert_eq!(array::<1>("+1"), Err(HexError::NotHex { at: 0 }));
        assert_eq!(array::<1>("0x00"), Err(HexError::NotHex { at: 1 }));
        assert_eq!(array::<1>("00 "), Err(HexError::NotHex { at: 2 }));
        assert_eq!(array::<1>("é"), Err(HexError::NotHex { at: 0 }));
    }
}
