//! A scheme as bytes (wire.md 1.1): for each form 5 bits of prefix width, 5 bits of data width, and
//! the prefix. Bits fill bytes from the least significant end.

use super::{Form, Scheme, SchemeError};
use crate::limits::{FORMS_MAX, SERIALIZED_BYTES_MAX};

impl Scheme {
    /// Reads a scheme from bytes, as in a [hello](crate::hello) or a configuration.
    ///
    /// # Errors
    /// Those of [`read_forms`] and of [`Scheme::new`].
    pub fn parse(serialized: &[u8]) -> Result<Scheme, SchemeError> {
        let (forms, count) = read_forms(serialized)?;
        Scheme::new(forms.get(..count).unwrap_or(&[]))
    }

    /// The scheme as bytes; [`parse`](Scheme::parse) reads them.
    #[must_use]
    pub fn serialize(&self) -> Serialized {
        let mut out = Serialized { bytes: [0; SERIALIZED_BYTES_MAX], bits: 0 };
        for form in self.forms() {
            out.push(u32::from(form.prefix_bits), 5);
            out.push(u32::from(form.data_bits), 5);
            out.push(form.prefix, u32::from(form.prefix_bits));
        }
        out
    }
}

/// Reads a list of forms without checking that it is a scheme. Returns an array with the forms at
/// its front, and their number.
///
/// # Errors
/// [`Truncated`](SchemeError::Truncated) if the bytes end inside a form,
/// [`TooManyForms`](SchemeError::TooManyForms) above [`FORMS_MAX`], or
/// [`Trailing`](SchemeError::Trailing) if more than seven bits, or bits that are not zero, follow
/// the last form.
pub fn read_forms(serialized: &[u8]) -> Result<([Form; FORMS_MAX], usize), SchemeError> {
    let mut forms = [Form::new(0, 0, 0); FORMS_MAX];
    let mut count = 0;
    let bits_end = serialized.len().saturating_mul(8);
    let mut at = 0;
    while bits_end - at >= 10 {
        let prefix_bits = take(serialized, &mut at, 5);
        let data_bits = take(serialized, &mut at, 5);
        if bits_end - at < prefix_bits as usize {
            return Err(SchemeError::Truncated);
        }
        let prefix = take(serialized, &mut at, prefix_bits);
        *forms.get_mut(count).ok_or(SchemeError::TooManyForms)? =
            Form::new(data_bits as u8, prefix_bits as u8, prefix);
        count += 1;
    }
    let left = bits_end - at;
    if left >= 8 || take(serialized, &mut at, left as u32) != 0 {
        return Err(SchemeError::Trailing);
    }
    Ok((forms, count))
}

/// Takes `bits` (at most 31) bits from bit position `at`, lowest first; zeros past the end.
fn take(bytes: &[u8], at: &mut usize, bits: u32) -> u32 {
    let mut value = 0;
    for i in 0..bits {
        let byte = bytes.get(*at / 8).copied().unwrap_or(0);
        value |= u32::from(byte >> (*at % 8) & 1) << i;
        *at += 1;
    }
    value
}

/// A scheme as bytes.
#[derive(Clone, Copy, Debug)]
pub struct Serialized {
    bytes: [u8; SERIALIZED_BYTES_MAX],
    bits: usize,
}

impl Serialized {
    /// The bytes; at most [`SERIALIZED_BYTES_MAX`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.bits.div_ceil(8)).unwrap_or(&[])
    }

    fn push(&mut self, value: u32, bits: u32) {
        for i in 0..bits {
            if let Some(byte) = self.bytes.get_mut(self.bits / 8) {
                *byte |= ((value >> i & 1) as u8) << (self.bits % 8);
            }
            self.bits += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::NAMED;

    /// wire.md: W1.1-7, W1.1-20, W1.1-21, W1.1-22.
    #[test]
    fn a_serialisation_must_end_where_its_forms_do() {
        for (_, scheme) in NAMED {
            let serialized = scheme.serialize();
            let bytes = serialized.as_bytes();
            assert_eq!(Scheme::parse(bytes).as_ref(), Ok(scheme));
            assert!(Scheme::parse(&bytes[..bytes.len() - 1]).is_err());
        }
        assert_eq!(Scheme::parse(&[]), Err(SchemeError::NoForms));
        // An additional byte is either trailing data or a form without bits.
        let scheme = Scheme::new(&[Form::new(4, 1, 1), Form::new(8, 2, 0)]).unwrap();
        let [a, b, c] = *scheme.serialize().as_bytes() else { panic!("23 bits are three bytes") };
        assert_eq!(Scheme::parse(&[a, b, c, 0]), Err(SchemeError::Trailing));
        assert_eq!(Scheme::parse(&[0x80, 0x00, 0x00]), Err(SchemeError::NoPrefix));
        assert_eq!(Scheme::parse(&[0x80, 0x04]), Err(SchemeError::Trailing));
        assert_eq!(Scheme::parse(&[0x1f, 0x7c]), Err(SchemeError::Truncated));
        assert_eq!(Scheme::parse(&[0xff; 4096]), Err(SchemeError::TooManyForms));
        assert_eq!(Scheme::parse(&[0; 2]), Err(SchemeError::NoData));
    }

    #[test]
    fn the_largest_scheme_fits_its_serialisation() {
        let mut forms = [Form::new(0, 0, 0); FORMS_MAX];
        for (index, form) in (0u8..).zip(&mut forms) {
            // The prefixes are 1, 10, 100 and so on, with 1 to 28 bits.
            let prefix_bits = (index + 1).min(28);
            *form = Form::new(index + 1, prefix_bits, 1 << index.min(27));
        }
        let count = 28;
        let scheme = Scheme::new(&forms[..count]).unwrap();
        assert_eq!(Scheme::parse(scheme.serialize().as_bytes()), Ok(scheme));
        assert!(scheme.serialize().as_bytes().len() <= SERIALIZED_BYTES_MAX);
        assert_eq!(scheme.width_max(), 56);
    }
}
