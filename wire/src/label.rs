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
//! use strowger_wire::director::Slot;
//! use strowger_wire::label::{Hop, Label, LabelError, Step, step};
//! use strowger_wire::scheme::V3X5X8;
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
        // 32 bytes are two chunks of 16; the other arm is compiled away.
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
    /// has more than [`BITS_MAX`](Label::BITS_MAX) bits, and
    /// [`ShiftTooLarge`](LabelError::ShiftTooLarge) if the register has no `shift` bits.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::{F4, F8, V3X5X8, V4X8};

    fn label(text: &str) -> Label {
        text.parse().unwrap()
    }

    fn everywhere(_: Slot) -> bool {
        true
    }

    fn stepped(label: Label, shift: u16, ingress: u32) -> Result<Step, StepError> {
        step(&V3X5X8, label, shift, Slot::new(ingress), everywhere, false)
    }

    #[test]
    fn a_step_shifts_and_writes_the_way_back_at_the_top() {
        let wanted = Step::Forward { to: Slot::new(2), label: label("c800000000000001"), shift: 8 };
        assert_eq!(stepped(label("8000000000000015"), 4, 0), Ok(wanted));
    }

    #[test]
    fn a_spent_label_goes_nowhere() {
        assert_eq!(stepped(label("0"), 0, 0), Err(StepError::SpentLabel));
        // What is left are bits of the way back.
        assert_eq!(stepped(label("c800000000000000"), 8, 0), Err(StepError::SpentLabel));
        assert_eq!(stepped(label("ffffffffffffffff"), 64, 0), Err(StepError::SpentLabel));
        assert_eq!(stepped(label("ffffffffffffffff"), u16::MAX, 0), Err(StepError::SpentLabel));
    }

    #[test]
    fn a_label_that_names_an_empty_slot_goes_nowhere() {
        let taken = |slot: Slot| slot.number() != 2;
        let result = step(&V3X5X8, label("15"), 0, Slot::new(0), taken, false);
        assert_eq!(result, Err(StepError::EmptySlot));
    }

    #[test]
    fn bits_that_are_no_director_go_nowhere() {
        let result = step(&V4X8, label("200"), 0, Slot::new(0), everywhere, false);
        assert_eq!(result, Err(StepError::NoSuchDirector));
    }

    #[test]
    fn a_u_turn_needs_leave() {
        assert_eq!(stepped(label("15"), 0, 2), Err(StepError::UTurn));
        assert!(step(&V3X5X8, label("15"), 0, Slot::new(2), everywhere, true).is_ok());
        // The switch may write to itself.
        assert!(matches!(stepped(label("1"), 0, 1), Ok(Step::Arrive { written: Some(_) })));
    }

    #[test]
    fn a_way_back_that_does_not_fit_is_refused() {
        assert_eq!(stepped(label("15"), 0, 9), Err(StepError::ReturnPath));
        assert!(stepped(label("86"), 0, 9).is_ok());
    }

    #[test]
    fn a_full_register_takes_no_more() {
        // Four forward bits are left, and the way back would take them all.
        assert_eq!(stepped(label("5"), 60, 0), Err(StepError::RegisterFull));
        assert!(stepped(label("15"), 59, 0).is_ok());
    }

    #[test]
    fn arriving_never_fails_for_want_of_bits() {
        // Nothing above the director: the slot is written in as many zeros as it needs.
        let widened = Step::Arrive { written: Some((label("3f00000000000000"), 10)) };
        assert_eq!(stepped(label("1"), 0, 64), Ok(widened));
        // Something above it: the slot stays beside the packet.
        assert_eq!(stepped(label("1a1"), 6, 12), Ok(Step::Arrive { written: None }));
        // No room in the register at all.
        assert_eq!(stepped(label("1"), 63, 0), Ok(Step::Arrive { written: None }));
    }

    #[test]
    fn the_way_back_is_the_same_whether_written_or_computed() {
        let before = label("8000000000000001");
        let Ok(Step::Arrive { written: Some((after, shift)) }) = stepped(before, 4, 0) else {
            panic!("it arrives");
        };
        let ingress = V3X5X8.encode_least(Slot::new(0)).unwrap();
        assert_eq!(after.reverse(shift, None), Ok(label("13")));
        assert_eq!(before.reverse(4, Some(ingress)), Ok(label("13")));
    }

    #[test]
    fn no_way_back_is_an_error() {
        assert_eq!(label("15").reverse(0, None), Err(LabelError::Zero));
        assert_eq!(label("15").reverse(64, None), Err(LabelError::ShiftTooLarge));
        assert_eq!(label("2").reverse(63, None), Err(LabelError::TooLong));
        let ingress = V3X5X8.encode_least(Slot::new(100)).unwrap();
        assert_eq!(label("8").reverse(61, Some(ingress)), Err(LabelError::TooLong));
    }

    #[test]
    fn an_endpoint_departs_with_the_end_of_its_way_back() {
        let hop = |egress, ingress| Hop {
            scheme: &V3X5X8,
            egress: Slot::new(egress),
            ingress: Slot::new(ingress),
        };
        let hops = [hop(2, 5), hop(40, 3)];
        let (there, back) = Label::<u64>::build(&hops).unwrap();
        let (mut on_wire, mut shift) = there.depart().unwrap();
        for hop in hops {
            let Ok(Step::Forward { label, shift: used, to }) =
                stepped(on_wire, shift, hop.ingress.number())
            else {
                panic!("it goes on");
            };
            assert_eq!(to, hop.egress);
            (on_wire, shift) = (label, used);
        }
        assert!(on_wire.is_at_end(shift));
        assert_eq!(on_wire.reverse(shift, None), Ok(back));
    }

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

    #[test]
    fn a_label_has_at_most_sixty_of_sixty_four_bits() {
        let (long, longer) = (label("0800000000000000"), label("1000000000000000"));
        assert_eq!(Label::<u64>::BITS_MAX, 60);
        assert_eq!(Label::splice(Label::here(), long), Ok(long));
        assert_eq!(Label::splice(Label::here(), longer), Err(LabelError::TooLong));
        assert_eq!(long.depart(), Ok((label("8800000000000000"), 1)));
        assert_eq!(longer.depart(), Err(LabelError::TooLong));
    }

    #[test]
    fn a_narrow_register_is_full_at_fourteen_hops() {
        let hop = |scheme| Hop { scheme, egress: Slot::new(2), ingress: Slot::new(3) };
        assert!(Label::<u64>::build(&[hop(&F4); 14]).is_ok());
        assert_eq!(Label::<u64>::build(&[hop(&F4); 15]), Err(LabelError::TooLong));
        assert!(Label::<u128>::build(&[hop(&F4); 30]).is_ok());
        assert_eq!(Label::<u128>::build(&[hop(&F4); 31]), Err(LabelError::TooLong));
        assert!(Label::<U256>::build(&[hop(&F4); 62]).is_ok());
        assert_eq!(Label::<U256>::build(&[hop(&F4); 63]), Err(LabelError::TooLong));
    }

    #[test]
    fn a_path_goes_through_the_switch_itself_only_at_its_ends() {
        let hop = |egress, ingress| Hop {
            scheme: &V3X5X8,
            egress: Slot::new(egress),
            ingress: Slot::new(ingress),
        };
        assert_eq!(Label::<u64>::build(&[]), Err(LabelError::NoHops));
        let inside = [hop(1, 2), hop(2, 3)];
        assert_eq!(Label::<u64>::build(&inside), Err(LabelError::SwitchInside));
        let inside = [hop(2, 3), hop(2, 1)];
        assert_eq!(Label::<u64>::build(&inside), Err(LabelError::SwitchInside));
        let alone = Label::<u64>::build(&[hop(1, 1)]).unwrap();
        assert_eq!(alone, (Label::here(), Label::here()));
        let unknown = [hop(300, 2)];
        let error = LabelError::Director(DirectorError::SlotTooWide);
        assert_eq!(Label::<u64>::build(&unknown), Err(error));
    }

    #[test]
    fn schemes_may_differ_on_the_way() {
        let hop = |scheme, egress, ingress| Hop {
            scheme,
            egress: Slot::new(egress),
            ingress: Slot::new(ingress),
        };
        let hops = [hop(&V3X5X8, 2, 1), hop(&F8, 7, 9), hop(&V4X8, 3, 20), hop(&F4, 1, 4)];
        let (there, back) = Label::<u64>::build(&hops).unwrap();
        // The marker, 3 in nine bits of v4x8, 7 in eight of f8, 2 in four of v3x5x8.
        assert_eq!(there.register(), 1 << 21 | 4 << 12 | 7 << 4 | 5);
        // The marker, which is the slot the first hop came in by, 9 in f8, 20 in v4x8, 4 in f4.
        assert_eq!(back.register(), 1 << 21 | 9 << 13 | 42 << 4 | 4);
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

    #[test]
    fn text_says_where_it_is_wrong() {
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

    #[test]
    fn text_may_be_short_or_plain() {
        let wanted = label("0000.4321.1234.4321");
        for text in ["4321.1234.4321", "432112344321", "0000432112344321", "0.4321.1234.4321"] {
            assert_eq!(text.parse(), Ok(wanted), "{text}");
        }
        assert_eq!(label("00C0.FFEE"), label("c0ffee"));
        assert_eq!("15".parse(), Ok(Label::<U256>::new(U256::from_low(0x15))));
    }

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
