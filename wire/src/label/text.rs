//! A label as text: hex digits in groups of four (wire.md 1.4).

use core::fmt;
use core::str::FromStr;

use super::Label;
use crate::hex::Hex;
use crate::register::Register;

impl<R: Register> fmt::Display for Label<R> {
    /// All digits, in groups of four: `0000.4321.1234.4321`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, group) in self.0.to_be_bytes().as_ref().chunks(2).enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            fmt::Display::fmt(&Hex(group), f)?;
        }
        Ok(())
    }
}

impl<R: Register> fmt::LowerHex for Label<R> {
    /// All digits and no dots: `0000432112344321`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Hex(self.0.to_be_bytes().as_ref()), f)
    }
}

/// Why a text is not a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TextError {
    /// The position of the first wrong byte, from 0; the length of the text if the text ends too
    /// early.
    pub at: usize,
    /// The fault at that position.
    pub fault: TextFault,
}

/// The kind of error in the text of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TextFault {
    /// The text is empty.
    Empty,
    /// Neither a hex digit nor a dot.
    NotHex,
    /// A dot at a wrong position: groups have four digits, and the first group has one to four.
    Dot,
    /// More digits than the register has.
    TooLong,
    /// Neither 4, 8 nor 16 groups, where the number of groups determines the width ([`AnyLabel`]).
    ///
    /// [`AnyLabel`]: super::AnyLabel
    Groups,
}

impl TextError {
    /// A stable name in snake_case, as `strowger conform` prints it.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self.fault {
            TextFault::Empty => "label_empty",
            TextFault::NotHex => "label_not_hex",
            TextFault::Dot => "label_dot",
            TextFault::TooLong => "label_too_long",
            TextFault::Groups => "label_groups",
        }
    }
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = match self.fault {
            TextFault::Empty => "a label has at least one hex digit",
            TextFault::NotHex => "neither a hex digit nor a dot",
            TextFault::Dot => "dots stand between groups of four hex digits",
            TextFault::TooLong => "more digits than the label is wide",
            TextFault::Groups => "a label has 4, 8 or 16 groups of four hex digits",
        };
        write!(f, "byte {}: {fault}", self.at)
    }
}

impl core::error::Error for TextError {}

impl<R: Register> FromStr for Label<R> {
    type Err = TextError;

    /// Reads hex digits of either case, with dots between groups of four or without dots (W1.4-16).
    ///
    /// Leading zeros may be omitted, so the first group may be shorter: `15` is
    /// `0000.0000.0000.0015`.
    fn from_str(text: &str) -> Result<Label<R>, TextError> {
        Label::parse(text.as_bytes())
    }
}

impl<R: Register> Label<R> {
    /// Reads a label's text from bytes, which need not be UTF-8, with the same rules as
    /// [`FromStr`].
    ///
    /// # Errors
    /// [`TextError`] says which byte is wrong, and why.
    pub fn parse(text: &[u8]) -> Result<Label<R>, TextError> {
        let wrong = |at, fault| Err(TextError { at, fault });
        let (mut register, mut digits, mut group, mut dotted) = (R::ZERO, 0, 0, false);
        for (at, &byte) in text.iter().enumerate() {
            if byte == b'.' {
                // Only the first group may be shorter than four digits. The length of the first
                // group is checked here, because a text without dots may have more digits.
                if group == 0 || group > 4 || dotted && group < 4 {
                    return wrong(at, TextFault::Dot);
                }
                (group, dotted) = (0, true);
                continue;
            }
            let Some(digit) = char::from(byte).to_digit(16) else {
                return wrong(at, TextFault::NotHex);
            };
            if digits == R::BITS / 4 {
                return wrong(at, TextFault::TooLong);
            }
            if dotted && group == 4 {
                return wrong(at, TextFault::Dot);
            }
            register = register.shl(4).or(R::from_low(u64::from(digit)));
            (digits, group) = (digits + 1, group + 1);
        }
        if text.is_empty() {
            return wrong(0, TextFault::Empty);
        }
        if dotted && group < 4 {
            return wrong(text.len(), TextFault::Dot);
        }
        Ok(Label(register))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::U256;

    fn label(text: &str) -> Label {
        text.parse().unwrap()
    }

    /// wire.md: W1.4-17.
    #[test]
    fn text_errors_have_a_position() {
        let wrong = |text: &str| text.parse::<Label>().unwrap_err();
        assert_eq!(wrong(""), TextError { at: 0, fault: TextFault::Empty });
        assert_eq!(wrong("12g4"), TextError { at: 2, fault: TextFault::NotHex });
        assert_eq!(wrong("12é4"), TextError { at: 2, fault: TextFault::NotHex });
        assert_eq!(wrong(" 1"), TextError { at: 0, fault: TextFault::NotHex });
        assert_eq!(wrong("0x1"), TextError { at: 1, fault: TextFault::NotHex });
        assert_eq!(wrong(".1234"), TextError { at: 0, fault: TextFault::Dot });
        assert_eq!(wrong("12..3456"), TextError { at: 3, fault: TextFault::Dot });
        assert_eq!(wrong("1.12.3456"), TextError { at: 4, fault: TextFault::Dot });
        assert_eq!(wrong("12345.6789"), TextError { at: 5, fault: TextFault::Dot });
        assert_eq!(wrong("1.23456"), TextError { at: 6, fault: TextFault::Dot });
        assert_eq!(wrong("1234.123"), TextError { at: 8, fault: TextFault::Dot });
        assert_eq!(wrong("1234."), TextError { at: 5, fault: TextFault::Dot });
        assert_eq!(wrong("00000000000000000"), TextError { at: 16, fault: TextFault::TooLong });
        assert_eq!(wrong("1.0000.0000.0000.0000"), TextError { at: 20, fault: TextFault::TooLong });
        assert_eq!(wrong("12g4").kind(), "label_not_hex");
    }

    /// wire.md: W1.4-16.
    #[test]
    fn text_may_be_short_or_plain() {
        let wanted = label("0000.4321.1234.4321");
        for text in ["4321.1234.4321", "432112344321", "0000432112344321", "0.4321.1234.4321"] {
            assert_eq!(text.parse(), Ok(wanted), "{text}");
        }
        assert_eq!(label("00C0.FFEE"), label("c0ffee"));
        assert_eq!("15".parse(), Ok(Label::<U256>::new(U256::from_low(0x15))));
    }
}
