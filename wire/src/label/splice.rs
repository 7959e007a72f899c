//! Joins two labels into one, and separates them again.

use super::{Label, LabelError};
use crate::register::Register;

impl<R: Register> Label<R> {
    /// The label of both paths in sequence: first the path of `first`, then the path of `onward`
    /// (W1.4-2).
    ///
    /// The result is `((onward ^ 1) << log2(first)) ^ first`: the lowest bit of `onward` replaces
    /// the end marker of `first`.
    ///
    /// # Errors
    /// [`Zero`](LabelError::Zero) if either label is zero and so has no end marker;
    /// [`TooLong`](LabelError::TooLong) if the result has more than [`BITS_MAX`](Label::BITS_MAX)
    /// bits.
    pub fn splice(onward: Label<R>, first: Label<R>) -> Result<Label<R>, LabelError> {
        if onward.is_zero() || first.is_zero() {
            return Err(LabelError::Zero);
        }
        // The lowest bit of `onward` replaces the end marker of `first`, so the lengths add up to
        // one bit less.
        let first_bits = first.bits() - 1;
        if onward.bits() + first_bits > Self::BITS_MAX {
            return Err(LabelError::TooLong);
        }
        Ok(Label(onward.0.xor(R::ONE).shl(first_bits).xor(first.0)))
    }

    /// The part of this label after the path of `first`: the inverse of [`splice`](Label::splice).
    ///
    /// # Errors
    /// [`Zero`](LabelError::Zero) if either label is zero; [`NotThrough`](LabelError::NotThrough)
    /// if this label does not [route through](Label::routes_through) the end of `first`.
    pub fn unsplice(self, first: Label<R>) -> Result<Label<R>, LabelError> {
        if self.is_zero() || first.is_zero() {
            return Err(LabelError::Zero);
        }
        if !self.routes_through(first) {
            return Err(LabelError::NotThrough);
        }
        Ok(Label(self.0.xor(first.0).shr(first.bits() - 1).xor(R::ONE)))
    }

    /// Whether the path of this label begins with the path of `via` (W1.4-3).
    #[must_use]
    pub fn routes_through(self, via: Label<R>) -> bool {
        if self.is_zero() || via.is_zero() || self.bits() < via.bits() {
            return false;
        }
        // If both labels have the same length, this holds only if they are equal.
        self.0.xor(via.0).low_bits(via.bits() - 1) == R::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(text: &str) -> Label {
        text.parse().unwrap()
    }

    /// wire.md: W1.4-2, W1.4-11.
    #[test]
    fn splice_and_unsplice_undo_each_other() {
        let (first, onward) = (label("15"), label("13"));
        let whole = Label::splice(onward, first).unwrap();
        assert_eq!(whole, label("135"));
        assert!(whole.routes_through(first) && whole.routes_through(whole));
        assert_eq!(whole.unsplice(first), Ok(onward));
        assert_eq!(whole.unsplice(whole), Ok(Label::here()));
        assert_eq!(whole.unsplice(label("17")), Err(LabelError::NotThrough));
        assert_eq!(Label::splice(onward, Label::here()), Ok(onward));
        assert_eq!(Label::splice(label("0"), first), Err(LabelError::Zero));
        assert_eq!(label("0").unsplice(first), Err(LabelError::Zero));
        assert!(!label("0").routes_through(first) && !first.routes_through(label("0")));
    }

    /// wire.md: W1.3-7, W1.4-2.
    #[test]
    fn a_label_has_at_most_sixty_of_sixty_four_bits() {
        let (long, longer) = (label("0800000000000000"), label("1000000000000000"));
        assert_eq!(Label::<u64>::BITS_MAX, 60);
        assert_eq!(Label::splice(Label::here(), long), Ok(long));
        assert_eq!(Label::splice(Label::here(), longer), Err(LabelError::TooLong));
        assert_eq!(long.depart(), Ok((label("8800000000000000"), 1)));
        assert_eq!(longer.depart(), Err(LabelError::TooLong));
    }
}
