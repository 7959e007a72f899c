//! One form of a scheme: data bits above a prefix.

/// One way of writing a slot number: data bits above a prefix (wire.md 1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    /// Data bits: 1 to 31.
    pub data_bits: u8,
    /// Prefix bits, below the data: 1 to 31, or 0 in a scheme of one form.
    pub prefix_bits: u8,
    /// The prefix. Bits from `prefix_bits` on are zero.
    pub prefix: u32,
}

impl Form {
    /// A form of `data_bits` above the `prefix_bits` low bits of `prefix`. This function does not
    /// check the values; [`Scheme::new`](crate::Scheme::new) does.
    #[must_use]
    pub const fn new(data_bits: u8, prefix_bits: u8, prefix: u32) -> Form {
        Form { data_bits, prefix_bits, prefix }
    }

    /// Bits of a director in this form: prefix and data together.
    #[inline]
    #[must_use]
    pub const fn width(&self) -> u8 {
        self.data_bits.saturating_add(self.prefix_bits)
    }

    /// Whether the low bits of a label are this form's prefix.
    #[inline]
    pub(super) const fn begins(&self, low: u64) -> bool {
        low & low_mask(self.prefix_bits as u32) == self.prefix as u64
    }

    /// The largest value of the data bits.
    pub(super) const fn data_max(&self) -> u32 {
        low_mask(self.data_bits as u32) as u32
    }
}

/// A mask of the low `bits` bits of a word; a mask of all bits if `bits` is 64 or more.
pub(super) const fn low_mask(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}
