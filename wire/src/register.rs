//! The registers that hold a label: unsigned integers of 64, 128 and 256 bits (wire.md 1.5).

use core::fmt;

/// A register that can hold a label: `u64`, `u128` or [`U256`] (wire.md 1.5). The trait is sealed.
///
/// Code that is generic over the register is compiled once per width. No operation can fail: a
/// shift by the width or more results in zero.
pub trait Register: sealed::Sealed + Copy + Eq + fmt::Debug + Send + Sync + 'static {
    /// The width of the register in bits.
    const BITS: u32;
    /// The width code in the switch header (W2-3): 0, 1, 2 for 64, 128, 256 bits.
    const WIDTH_CODE: u8;
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// An array of `BITS / 8` bytes.
    type Bytes: AsRef<[u8]> + AsMut<[u8]> + Copy + Eq + fmt::Debug + Default + Send + Sync;

    /// The register with these low 64 bits and zeros above them.
    #[must_use]
    fn from_low(low: u64) -> Self;
    /// The register with these top 64 bits and zeros below them.
    #[must_use]
    fn from_top(top: u64) -> Self;
    /// The low 64 bits of the register.
    #[must_use]
    fn low(self) -> u64;
    /// The register, shifted by `bits` towards the most significant end.
    #[must_use]
    fn shl(self, bits: u32) -> Self;
    /// The register, shifted by `bits` towards the least significant end.
    #[must_use]
    fn shr(self, bits: u32) -> Self;
    /// Bitwise or.
    #[must_use]
    fn or(self, other: Self) -> Self;
    /// Bitwise exclusive or.
    #[must_use]
    fn xor(self, other: Self) -> Self;
    /// The low `bits` bits, with zeros above them.
    #[must_use]
    fn low_bits(self, bits: u32) -> Self;
    /// The register with its bits in reverse order.
    #[must_use]
    fn reverse_bits(self) -> Self;
    /// The number of zeros above the highest 1. For zero, this is the width of the register.
    #[must_use]
    fn leading_zeros(self) -> u32;
    /// Big-endian bytes.
    #[must_use]
    fn to_be_bytes(self) -> Self::Bytes;
    /// Reads a register from big-endian bytes.
    #[must_use]
    fn from_be_bytes(bytes: Self::Bytes) -> Self;
    /// Splits the bytes of one register from the front of a slice; `None` if there are too few.
    #[must_use]
    fn split_first(bytes: &mut [u8]) -> Option<(&mut Self::Bytes, &mut [u8])>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u64 {}
    impl Sealed for u128 {}
    impl Sealed for super::U256 {}
}

macro_rules! register {
    ($int:ty, $code:literal) => {
        impl Register for $int {
            const BITS: u32 = <$int>::BITS;
            const WIDTH_CODE: u8 = $code;
            const ZERO: Self = 0;
            const ONE: Self = 1;
            type Bytes = [u8; (<$int>::BITS / 8) as usize];

            #[inline]
            fn from_low(low: u64) -> Self {
                Self::from(low)
            }
            #[inline]
            fn from_top(top: u64) -> Self {
                Self::from(top) << (Self::BITS - u64::BITS)
            }
            #[inline]
            fn low(self) -> u64 {
                self as u64
            }
            #[inline]
            fn shl(self, bits: u32) -> Self {
                self.checked_shl(bits).unwrap_or(0)
            }
            #[inline]
            fn shr(self, bits: u32) -> Self {
                self.checked_shr(bits).unwrap_or(0)
            }
            #[inline]
            fn or(self, other: Self) -> Self {
                self | other
            }
            #[inline]
            fn xor(self, other: Self) -> Self {
                self ^ other
            }
            #[inline]
            fn low_bits(self, bits: u32) -> Self {
                self & !Self::MAX.checked_shl(bits).unwrap_or(0)
            }
            #[inline]
            fn reverse_bits(self) -> Self {
                <$int>::reverse_bits(self)
            }
            #[inline]
            fn leading_zeros(self) -> u32 {
                <$int>::leading_zeros(self)
            }
            #[inline]
            fn to_be_bytes(self) -> Self::Bytes {
                <$int>::to_be_bytes(self)
            }
            #[inline]
            fn from_be_bytes(bytes: Self::Bytes) -> Self {
                <$int>::from_be_bytes(bytes)
            }
            #[inline]
            fn split_first(bytes: &mut [u8]) -> Option<(&mut Self::Bytes, &mut [u8])> {
                bytes.split_first_chunk_mut()
            }
        }
    };
}

register!(u64, 0);
register!(u128, 1);

/// An unsigned integer of 256 bits, with the operations of a [`Register`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct U256 {
    high: u128,
    low: u128,
}

impl U256 {
    /// The integer with these halves.
    #[must_use]
    pub const fn from_halves(high: u128, low: u128) -> U256 {
        U256 { high, low }
    }

    /// The two halves of the integer: high, low.
    #[must_use]
    pub const fn halves(self) -> (u128, u128) {
        (self.high, self.low)
    }
}

impl fmt::Debug for U256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:032x}{:032x}", self.high, self.low)
    }
}

impl Register for U256 {
    const BITS: u32 = 256;
    const WIDTH_CODE: u8 = 2;
    const ZERO: Self = U256 { high: 0, low: 0 };
    const ONE: Self = U256 { high: 0, low: 1 };
    type Bytes = [u8; 32];

    #[inline]
    fn from_low(low: u64) -> Self {
        U256 { high: 0, low: u128::from(low) }
    }
    #[inline]
    fn from_top(top: u64) -> Self {
        U256 { high: u128::from(top) << 64, low: 0 }
    }
    #[inline]
    fn low(self) -> u64 {
        self.low as u64
    }
    #[inline]
    fn shl(self, bits: u32) -> Self {
        match bits {
            0 => self,
            1..=127 => {
                U256 { high: self.high << bits | self.low >> (128 - bits), low: self.low << bits }
            }
            _ => U256 { high: Register::shl(self.low, bits - 128), low: 0 },
        }
    }
    #[inline]
    fn shr(self, bits: u32) -> Self {
        match bits {
            0 => self,
            1..=127 => {
                U256 { high: self.high >> bits, low: self.low >> bits | self.high << (128 - bits) }
            }
            _ => U256 { high: 0, low: Register::shr(self.high, bits - 128) },
        }
    }
    #[inline]
    fn or(self, other: Self) -> Self {
        U256 { high: self.high | other.high, low: self.low | other.low }
    }
    #[inline]
    fn xor(self, other: Self) -> Self {
        U256 { high: self.high ^ other.high, low: self.low ^ other.low }
    }
    #[inline]
    fn low_bits(self, bits: u32) -> Self {
        U256 {
            high: self.high.low_bits(bits.saturating_sub(128)),
            low: Register::low_bits(self.low, bits),
        }
    }
    #[inline]
    fn reverse_bits(self) -> Self {
        U256 { high: self.low.reverse_bits(), low: self.high.reverse_bits() }
    }
    #[inline]
    fn leading_zeros(self) -> u32 {
        if self.high == 0 { 128 + self.low.leading_zeros() } else { self.high.leading_zeros() }
    }
    #[inline]
    fn to_be_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let (high, low) = bytes.split_at_mut(16);
        high.copy_from_slice(&self.high.to_be_bytes());
        low.copy_from_slice(&self.low.to_be_bytes());
        bytes
    }
    #[inline]
    fn from_be_bytes(bytes: [u8; 32]) -> Self {
        // 32 bytes are always two chunks of 16, so the compiler removes the other arm.
        match bytes.as_chunks() {
            (&[high, low], _) => {
                U256 { high: u128::from_be_bytes(high), low: u128::from_be_bytes(low) }
            }
            _ => U256::ZERO,
        }
    }
    #[inline]
    fn split_first(bytes: &mut [u8]) -> Option<(&mut [u8; 32], &mut [u8])> {
        bytes.split_first_chunk_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_registers_shift_across_their_halves() {
        let one = U256::ONE;
        for bits in [0, 1, 127, 128, 129, 255] {
            assert_eq!(one.shl(bits).leading_zeros(), 255 - bits);
            assert_eq!(one.shl(bits).shr(bits), one);
            assert_eq!(one.shl(bits).reverse_bits(), one.shl(255 - bits));
            assert_eq!(one.shl(bits).low_bits(bits), U256::ZERO);
            assert_eq!(one.shl(bits).low_bits(bits + 1), one.shl(bits));
        }
        for bits in [256, 257, u32::MAX] {
            assert_eq!((one.shl(bits), one.shr(bits)), (U256::ZERO, U256::ZERO));
            assert_eq!(one.low_bits(bits), one);
            assert_eq!((Register::shl(1u64, bits), Register::shr(1u128, bits)), (0, 0));
        }
        let bytes: [u8; 32] = core::array::from_fn(|index| index as u8);
        assert_eq!(U256::from_be_bytes(bytes).to_be_bytes(), bytes);
        assert_eq!(U256::from_top(1 << 63).leading_zeros(), 0);
        assert_eq!(u128::from_top(1), 1 << 64);
    }
}
