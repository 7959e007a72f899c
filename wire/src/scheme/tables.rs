//! The entries of a switch's decoding tables: one table for a narrow scheme, two for a wide one.

use super::{Scheme, SchemeError, form::low_mask};
use crate::director::Director;
use crate::limits::{INDEX_BITS_MAX, PREFIX_INDEX_BITS_MAX};

impl Scheme {
    /// The number of low label bits that index a table of slots and widths: the width of the widest
    /// form. One load from this table gives slot and width.
    ///
    /// `None` if this width is above [`INDEX_BITS_MAX`]. In this case a switch decodes with two
    /// loads ([`prefix_index_bits`](Scheme::prefix_index_bits)).
    #[must_use]
    pub fn index_bits(&self) -> Option<u32> {
        let bits = u32::from(self.width_max());
        (bits <= INDEX_BITS_MAX).then_some(bits)
    }

    /// Entry `index` of the table of slots and widths, which has `1 << index_bits` entries. `None`
    /// if the bits are not a director, or if the scheme has no such table.
    #[must_use]
    pub fn decode_index(&self, index: u16) -> Option<Director> {
        self.index_bits()?;
        self.decode(u64::from(index)).ok()
    }

    /// The number of low bits of a label that distinguish the forms: the index bits of the first of
    /// two tables.
    ///
    /// A table of `1 << prefix_index_bits` entries gives the form
    /// ([`form_near`](Scheme::form_near)). The switch compares the form's whole prefix, and looks
    /// the data up in the second table ([`slot_at`](Scheme::slot_at)).
    ///
    /// # Errors
    /// [`SchemeError::PrefixesTooAlike`] if more than [`PREFIX_INDEX_BITS_MAX`] bits are needed. A
    /// switch cannot use such a scheme for its own slots. Labels with directors of such a scheme
    /// can still be computed.
    pub fn prefix_index_bits(&self) -> Result<u32, SchemeError> {
        (0..=PREFIX_INDEX_BITS_MAX)
            .find(|&bits| {
                let forms = self.forms();
                forms.iter().enumerate().all(|(i, a)| {
                    forms.iter().skip(i + 1).all(|b| {
                        let seen = bits.min(u32::from(a.prefix_bits)).min(u32::from(b.prefix_bits));
                        u64::from(a.prefix ^ b.prefix) & low_mask(seen) != 0
                    })
                })
            })
            .ok_or(SchemeError::PrefixesTooAlike)
    }

    /// Entry `index` of the first table: the only form whose prefix can have these low bits. Prefix
    /// bits above [`prefix_index_bits`](Scheme::prefix_index_bits) remain to be compared.
    #[must_use]
    pub fn form_near(&self, index: u8) -> Option<u8> {
        let bits = self.prefix_index_bits().ok()?;
        (0u8..)
            .zip(self.forms())
            .find(|(_, form)| {
                let seen = low_mask(bits.min(u32::from(form.prefix_bits)));
                u64::from(index) & seen == u64::from(form.prefix) & seen
            })
            .map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::{Form, NAMED};

    #[test]
    fn named_schemes_need_one_load() {
        let bits = NAMED.map(|(_, scheme)| scheme.index_bits());
        assert_eq!(bits, [Some(4), Some(8), Some(10), Some(9)]);
        for (_, scheme) in NAMED {
            for low in 0..1 << INDEX_BITS_MAX {
                let index = (low & ((1 << scheme.index_bits().unwrap()) - 1)) as u16;
                assert_eq!(scheme.decode_index(index), scheme.decode(low).ok());
            }
        }
    }

    /// wire.md: W1.1-8.
    #[test]
    fn wide_schemes_need_two_loads() {
        let long =
            [Form::new(2, 15, 0x7ffd), Form::new(4, 20, 0xf_fffb), Form::new(8, 18, 0x3_fff7)];
        let scheme = Scheme::new(&long).unwrap();
        assert_eq!((scheme.index_bits(), scheme.decode_index(0)), (None, None));
        // The prefixes differ in their low three bits. The other bits of a prefix are compared, not
        // looked up.
        assert_eq!(scheme.prefix_index_bits(), Ok(3));
        assert_eq!(scheme.form_near(0b101), Some(0));
        assert_eq!(scheme.form_near(0b000), None);
        let alike = Scheme::new(&[Form::new(2, 10, 0x1ff), Form::new(4, 10, 0x3ff)]).unwrap();
        assert_eq!(alike.prefix_index_bits(), Err(SchemeError::PrefixesTooAlike));
    }
}
