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

use core::fmt;
use core::str::FromStr;

use crate::director::{Director, DirectorError, Slot};
use crate::scheme::Scheme;

/// A register a label can live in: 64, 128 or 256 bits (wire.md 1.5). Sealed: `u64`, `u128`,
/// [`U256`]. All operations are total; shifting by the width or more gives zero.
pub trait Register: sealed::Sealed + Copy + Eq + fmt::Debug + Send + Sync + 'static {
    /// Its width in bits.
    const BITS: u32;
    /// The width code in the switch header (wire.md 2): 0, 1, 2 for 64, 128, 256 bits.
    const WIDTH_CODE: u8;
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// Its bytes, big-endian: an array of `BITS / 8`.
    type Bytes: AsRef<[u8]> + AsMut<[u8]> + Copy + Eq + fmt::Debug + Default + Send + Sync;

    /// The register whose low 64 bits are these.
    #[must_use]
    fn from_low(low: u64) -> Self;
    /// The register whose top 64 bits are these.
    #[must_use]
    fn from_top(top: u64) -> Self;
    /// Its low 64 bits.
    #[must_use]
    fn low(self) -> u64;
    /// Shifted towards the top.
    #[must_use]
    fn shl(self, bits: u32) -> Self;
    /// Shifted towards the low end.
    #[must_use]
    fn shr(self, bits: u32) -> Self;
    /// Bitwise or.
    #[must_use]
    fn or(self, other: Self) -> Self;
    /// Bitwise exclusive or.
    #[must_use]
    fn xor(self, other: Self) -> Self;
    /// The low `bits` of it.
    #[must_use]
    fn low_bits(self, bits: u32) -> Self;
    /// The lowest bit at the top, and so on.
    #[must_use]
    fn reverse_bits(self) -> Self;
    /// Zero bits above the highest one bit.
    #[must_use]
    fn leading_zeros(self) -> u32;
    /// Big-endian bytes.
    #[must_use]
    fn to_be_bytes(self) -> Self::Bytes;
    /// From big-endian bytes.
    #[must_use]
    fn from_be_bytes(bytes: Self::Bytes) -> Self;
    /// Takes the bytes of one register off the front of a buffer; `None` if it is too short.
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

/// A register of 256 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct U256 {
    high: u128,
    low: u128,
}

impl U256 {
    /// The register with these halves.
    #[must_use]
    pub const fn from_halves(high: u128, low: u128) -> U256 {
        U256 { high, low }
    }

    /// Its halves, the high one first.
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
        let half = |from: usize| {
            bytes.iter().skip(from).take(16).fold(0, |sum: u128, &byte| sum << 8 | u128::from(byte))
        };
        U256 { high: half(0), low: half(16) }
    }
    #[inline]
    fn split_first(bytes: &mut [u8]) -> Option<(&mut [u8; 32], &mut [u8])> {
        bytes.split_first_chunk_mut()
    }
}

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

    /// The label an **endpoint** sends, and the shift it starts with: a marker in the top bit, so
    /// that the way back, too, has its end marker, and ends at this endpoint's slot. A label from
    /// slot 1 sets out as it is, with shift 0, since slot 1 is written `0001`.
    ///
    /// # Errors
    /// [`LabelError::TooLong`] above [`BITS_MAX`](Label::BITS_MAX).
    pub fn depart(self) -> Result<(Label<R>, u16), LabelError> {
        let marker = R::ONE.shl(R::BITS - 1);
        Ok((Label(Label::fits(self.0)?.0.or(marker)), 1))
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

    /// The way to where `onward` leads from the end of `first`: `first`, then `onward`. It is
    /// `((onward ^ 1) << log2(first)) ^ first`: onward's lowest bit falls on first's marker.
    ///
    /// # Errors
    /// [`Zero`](LabelError::Zero) if either has no marker, [`TooLong`](LabelError::TooLong).
    pub fn splice(onward: Label<R>, first: Label<R>) -> Result<Label<R>, LabelError> {
        if onward.is_zero() || first.is_zero() {
            return Err(LabelError::Zero);
        }
        // The markers fall on one bit, hence the one bit less.
        let first_bits = first.bits() - 1;
        if onward.bits() + first_bits > Self::BITS_MAX {
            return Err(LabelError::TooLong);
        }
        Ok(Label(onward.0.xor(R::ONE).shl(first_bits).xor(first.0)))
    }

    /// The way on from the end of `first` to where this label leads: what was spliced to it.
    ///
    /// # Errors
    /// [`Zero`](LabelError::Zero), or [`NotThrough`](LabelError::NotThrough) if this label does
    /// not [route through](Label::routes_through) the end of `first`.
    pub fn unsplice(self, first: Label<R>) -> Result<Label<R>, LabelError> {
        if self.is_zero() || first.is_zero() {
            return Err(LabelError::Zero);
        }
        if !self.routes_through(first) {
            return Err(LabelError::NotThrough);
        }
        Ok(Label(self.0.xor(first.0).shr(first.bits() - 1).xor(R::ONE)))
    }

    /// Whether this label leads through the end of `via`: via's directors are its first ones.
    #[must_use]
    pub fn routes_through(self, via: Label<R>) -> bool {
        if self.is_zero() || via.is_zero() || self.bits() < via.bits() {
            return false;
        }
        // Equally long labels agree below their markers only if they are the same.
        self.0.xor(via.0).low_bits(via.bits() - 1) == R::ZERO
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

    /// The same way with the first director in another form.
    ///
    /// # Errors
    /// `NoSuchDirector`, `NoSuchForm`, `SlotTooWide` (slot 1 has one form only), or
    /// [`TooLong`](LabelError::TooLong).
    pub fn convert(self, scheme: &Scheme, form: u8) -> Result<Label<R>, LabelError> {
        let director = self.decode(scheme)?;
        let wanted = scheme.encode_in(director.slot, form)?;
        self.with_first(director, wanted)
    }

    /// The same way with the first director in the least form that holds it.
    ///
    /// # Errors
    /// `NoSuchDirector`, or [`TooLong`](LabelError::TooLong) for a label that was too long before.
    pub fn canonical(self, scheme: &Scheme) -> Result<Label<R>, LabelError> {
        let director = self.decode(scheme)?;
        self.with_first(director, scheme.encode_least(director.slot)?)
    }

    /// The same way with the first director wide enough that a packet that came in by `ingress`
    /// can write its way back (wire.md 1.2). A director that is wide enough is left as it is. For
    /// slot 1, too: `0001` with zeros above it.
    ///
    /// # Errors
    /// `NoSuchDirector`, `SlotTooWide`, or [`TooLong`](LabelError::TooLong).
    pub fn widen(self, scheme: &Scheme, ingress: Slot) -> Result<Label<R>, LabelError> {
        let director = self.decode(scheme)?;
        if scheme.encode(ingress, director.width).is_ok() {
            return Ok(self);
        }
        let width = scheme.width_for(director.slot, ingress)?;
        self.with_first(director, scheme.encode(director.slot, width)?)
    }

    /// The same way with the first director at least as wide as the first one of `asker`, the
    /// label that leads to whoever is to use it: a packet of theirs comes in by that slot. (cjdns:
    /// `getLabelFor`.)
    ///
    /// # Errors
    /// `NoSuchDirector`, `SlotTooWide`, or [`TooLong`](LabelError::TooLong).
    pub fn widen_for(self, scheme: &Scheme, asker: Label<R>) -> Result<Label<R>, LabelError> {
        let (director, theirs) = (self.decode(scheme)?, asker.decode(scheme)?);
        if theirs.width <= director.width {
            return Ok(self);
        }
        self.with_first(director, scheme.encode(director.slot, theirs.width)?)
    }

    /// Puts `new` in the place of `old`, its first director.
    fn with_first(self, old: Director, new: Director) -> Result<Label<R>, LabelError> {
        if new == old {
            // Not a matter of length: nothing changes.
            return Ok(self);
        }
        Label::join(self.0.shr(u32::from(old.width)), new.bits, u32::from(new.width))
    }

    /// The label through these switches, and the label of the way back (wire.md 1.4).
    ///
    /// Each director is as narrow as its slot **and** the slot the packet comes in by allow. Above
    /// the last director stands the end marker; where the last hop leaves by slot 1, its director
    /// is the end marker. The way back ends likewise above the slot of the first hop's ingress.
    ///
    /// # Errors
    /// [`NoHops`](LabelError::NoHops), [`SwitchInside`](LabelError::SwitchInside) where slot 1 is
    /// neither the first ingress nor the last egress, `SlotTooWide`, `NoSelf`, or
    /// [`TooLong`](LabelError::TooLong) for either way.
    pub fn build(hops: &[Hop<'_>]) -> Result<(Label<R>, Label<R>), LabelError> {
        let last = hops.len().checked_sub(1).ok_or(LabelError::NoHops)?;
        let (mut label, mut width_sum) = (R::ZERO, 0);
        let mut back = Label::here();
        for (index, hop) in hops.iter().enumerate() {
            let ends = hop.egress.is_switch();
            if ends && index != last || hop.ingress.is_switch() && index != 0 {
                return Err(LabelError::SwitchInside);
            }
            // At the end the receiver writes the way back at full width (wire.md 1.3), so the
            // self director need not be widened for the ingress slot.
            let width = if ends {
                hop.scheme.self_director()?;
                hop.scheme.encode_least(hop.ingress)?.width
            } else {
                hop.scheme.width_for(hop.egress, hop.ingress)?
            };
            if !hop.ingress.is_switch() {
                let ingress = hop.scheme.encode(hop.ingress, width)?;
                back = Label::join(back.0, ingress.bits, u32::from(width))?;
            }
            if !ends {
                let egress = hop.scheme.encode(hop.egress, width)?;
                label = label.or(R::from_low(egress.bits).shl(width_sum));
                width_sum += u32::from(width);
            }
            if width_sum >= Self::BITS_MAX {
                return Err(LabelError::TooLong);
            }
        }
        // The marker, which is also the director of slot 1.
        Ok((Label(label.or(R::ONE.shl(width_sum))), back))
    }

    /// The way back of a packet that arrived with this label and `shift`: the top `shift` bits,
    /// reversed. `ingress` is the director of the slot it came in by at the switch it arrived at,
    /// at the least width that holds it ([`Scheme::encode_least`]), if the last step has not
    /// written it (wire.md 1.3): a packet punted to slot 1 comes with its slot beside it.
    ///
    /// # Errors
    /// [`Zero`](LabelError::Zero) if there is no way back, [`TooLong`](LabelError::TooLong) if it
    /// has more than [`BITS_MAX`](Label::BITS_MAX) bits, [`ShiftTooLarge`](LabelError::ShiftTooLarge)
    /// if the register has no `shift` bits.
    pub fn reverse(self, shift: u16, ingress: Option<Director>) -> Result<Label<R>, LabelError> {
        if u32::from(shift) >= R::BITS {
            return Err(LabelError::ShiftTooLarge);
        }
        let back = self.0.reverse_bits().low_bits(u32::from(shift));
        let back = match ingress {
            Some(director) => Label::join(back, director.bits, u32::from(director.width))?,
            None => Label::fits(back)?,
        };
        if back.is_zero() { Err(LabelError::Zero) } else { Ok(back) }
    }
}

/// One switch on a way: how it writes numbers, and the slots by which a packet enters and leaves.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// The scheme of this switch.
    pub scheme: &'a Scheme,
    /// The slot by which the packet leaves; slot 1 only at the last switch.
    pub egress: Slot,
    /// The slot by which it came in; slot 1 only at the first.
    pub ingress: Slot,
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

/// What one switch does with a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<R: Register = u64> {
    /// The packet leaves by `to` with this label and shift.
    Forward {
        /// The slot by which it leaves; never slot 1.
        to: Slot,
        /// The label after the step.
        label: Label<R>,
        /// Bits used so far.
        shift: u16,
    },
    /// The packet is for slot 1, the switch itself.
    Arrive {
        /// The label and the shift with the ingress slot in the way back, where it can be written
        /// there. Where not, the receiver has the slot beside the packet and computes the way back
        /// at full width ([`Label::reverse`]): arriving never fails for want of bits (wire.md 1.3).
        written: Option<(Label<R>, u16)>,
    },
}

/// Why a switch discards a packet for its label (wire.md 1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepError {
    /// No forward bits are left.
    SpentLabel,
    /// The low bits are no director of this scheme.
    NoSuchDirector,
    /// Nothing is attached to the slot.
    EmptySlot,
    /// The packet would leave by the slot it came in by.
    UTurn,
    /// The ingress slot cannot be written in the bits that the director frees.
    ReturnPath,
    /// The step would shift past the register.
    RegisterFull,
}

impl StepError {
    /// A stable name in snake_case, as `strowger conform` answers it.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            StepError::SpentLabel => "spent_label",
            StepError::NoSuchDirector => "no_such_director",
            StepError::EmptySlot => "empty_slot",
            StepError::UTurn => "u_turn",
            StepError::ReturnPath => "return_path",
            StepError::RegisterFull => "register_full",
        }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StepError::SpentLabel => "no forward bits are left",
            StepError::NoSuchDirector => "the low bits of the label are no director",
            StepError::EmptySlot => "nothing is attached to this slot",
            StepError::UTurn => "the packet would leave by the slot it came in by",
            StepError::ReturnPath => "the way back cannot be written: the director is too narrow",
            StepError::RegisterFull => "the label has no bits left for the way back",
        })
    }
}

impl core::error::Error for StepError {}

/// One step of one switch, in plain arithmetic (wire.md 1.2, 1.3): what the data plane's tables are
/// built from and tested against. Decides first and changes nothing: a discarded packet keeps its
/// label.
///
/// `taken` tells whether something is attached to a slot; slot 1 always is. `u_turns` is the
/// operator's leave for a packet to go back where it came from; to arrive at slot 1 is no U-turn.
///
/// # Errors
/// The first of: spent label, no such director, empty slot, U-turn, return path, register full.
pub fn step<R: Register>(
    scheme: &Scheme,
    label: Label<R>,
    shift: u16,
    ingress: Slot,
    taken: impl Fn(Slot) -> bool,
    u_turns: bool,
) -> Result<Step<R>, StepError> {
    if label.is_spent(shift) {
        return Err(StepError::SpentLabel);
    }
    let director = scheme.decode(label.low()).map_err(|_| StepError::NoSuchDirector)?;
    if director.slot.is_switch() {
        return Ok(Step::Arrive { written: arrive(scheme, label, shift, ingress, director) });
    }
    if !taken(director.slot) {
        return Err(StepError::EmptySlot);
    }
    if director.slot == ingress && !u_turns {
        return Err(StepError::UTurn);
    }
    let back = scheme.encode(ingress, director.width).map_err(|_| StepError::ReturnPath)?;
    let shift = shifted::<R>(shift, director.width).ok_or(StepError::RegisterFull)?;
    let label = label.advance(director.width, back.back_bits());
    Ok(Step::Forward { to: director.slot, label, shift })
}

/// The label of a packet that has arrived at slot 1. The ingress slot is written in the bits of the
/// self director; if it is too wide for them and nothing but zeros lies above, in as many of those
/// as it needs.
fn arrive<R: Register>(
    scheme: &Scheme,
    label: Label<R>,
    shift: u16,
    ingress: Slot,
    director: Director,
) -> Option<(Label<R>, u16)> {
    let narrow = scheme.encode(ingress, director.width).ok();
    let back = match narrow {
        Some(back) => back,
        None if label.forward(shift).0 == R::ONE => scheme
            .width_for(Slot::SWITCH, ingress)
            .and_then(|width| scheme.encode(ingress, width))
            .ok()?,
        None => return None,
    };
    let shift = shifted::<R>(shift, back.width)?;
    Some((label.advance(back.width, back.back_bits()), shift))
}

/// The shift after `width` more bits; `None` when no bit of the register would be left.
fn shifted<R: Register>(shift: u16, width: u8) -> Option<u16> {
    let shift = shift.checked_add(u16::from(width))?;
    (u32::from(shift) < R::BITS).then_some(shift)
}

impl<R: Register> fmt::Display for Label<R> {
    /// All digits, in groups of four: `0000.4321.1234.4321`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, pair) in self.0.to_be_bytes().as_ref().chunks(2).enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            for byte in pair {
                write!(f, "{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl<R: Register> fmt::LowerHex for Label<R> {
    /// All digits and no dots: `0000432112344321`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.to_be_bytes().as_ref() {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// Where a text is no label: the byte, from 0, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TextError {
    /// The first byte that is wrong; the length of the text if it ends too early.
    pub at: usize,
    /// What is wrong there.
    pub fault: TextFault,
}

/// What is wrong with the text of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TextFault {
    /// There is nothing.
    Empty,
    /// Neither a hex digit nor a dot.
    NotHex,
    /// A dot that does not stand before four digits, after one to four.
    Dot,
    /// More digits than the register has.
    TooLong,
}

impl TextError {
    /// A stable name in snake_case, as `strowger conform` answers it.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self.fault {
            TextFault::Empty => "label_empty",
            TextFault::NotHex => "label_not_hex",
            TextFault::Dot => "label_dot",
            TextFault::TooLong => "label_too_long",
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
        };
        write!(f, "byte {}: {fault}", self.at)
    }
}

impl core::error::Error for TextError {}

impl<R: Register> FromStr for Label<R> {
    type Err = TextError;

    /// Reads hex digits of either case, with dots between groups of four or with none. Leading
    /// zeros may be left out: `15` is `0000.0000.0000.0015`, and the first group may be shorter.
    fn from_str(text: &str) -> Result<Label<R>, TextError> {
        Label::parse(text.as_bytes())
    }
}

impl<R: Register> Label<R> {
    /// Reads a label's text from bytes, which need not be UTF-8; see [`FromStr`].
    ///
    /// # Errors
    /// Says which byte is wrong.
    pub fn parse(text: &[u8]) -> Result<Label<R>, TextError> {
        let wrong = |at, fault| Err(TextError { at, fault });
        let (mut register, mut digits, mut group, mut dotted) = (R::ZERO, 0, 0, false);
        for (at, &byte) in text.iter().enumerate() {
            if byte == b'.' {
                // Only the first group may be short; before the first dot any digit counts.
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
