//! Schemes: how a switch writes slot numbers as bits (wire.md 1.1).
//!
//! A scheme is a list of *forms*, narrowest first. A form has data bits, which hold the number, and
//! below them a prefix. No prefix is the beginning of another prefix, so the low bits of a label
//! identify the form. A switch with few neighbours uses a narrow form for them, so paths through
//! this switch need few bits.
//!
//! The four schemes of cjdns are constants: [`F4`], [`F8`], [`V3X5X8`] (the default) and [`V4X8`].
//! Any other valid list of forms is built by [`Scheme::new`] or read by [`Scheme::parse`].
//!
//! # How numbers are written
//!
//! Slot 1, the switch itself, is always written as the value 1: `0001` with zeros above it. If the
//! lowest 1 belongs to the prefix, the data of slot 1 is therefore 0, and the number 0 needs other
//! data. cjdns does this in two ways, and this crate does the same:
//! - in `v3x5x8` the narrow form swaps the numbers 0 and 1, and the wider forms omit the number 1
//!   (a number `n` above 1 is written as `n - 1`);
//! - in all other such schemes the lowest data bit is inverted in every form (`n` is written as `n
//!   ^ 1`). Only the form that matches `..01` can write the number 1.
//!
//! A scheme of one form without a prefix writes numbers as they are.
//!
//! ```
//! use strowger_wire::{Slot, scheme::V3X5X8};
//!
//! let narrow = V3X5X8.encode_least(Slot::new(2))?;
//! assert_eq!((narrow.bits(), narrow.width()), (0b010_1, 4));
//! let wide = V3X5X8.encode_least(Slot::new(100))?;
//! assert_eq!((wide.bits(), wide.width()), (99 << 2, 10));
//! assert_eq!(V3X5X8.decode(wide.bits())?.slot(), Slot::new(100));
//! # Ok::<(), strowger_wire::director::DirectorError>(())
//! ```

mod form;
mod serial;
mod tables;

use core::fmt;

use crate::director::{Director, DirectorError};
use crate::limits::{FORM_WIDTH_MAX, FORMS_MAX};
use crate::slot::Slot;

use form::low_mask;

pub use form::Form;
pub use serial::{Serialized, read_forms};

/// How the data bits of a form encode a slot number (see the module documentation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Numbering {
    /// `v3x5x8`: form 0 swaps the numbers 0 and 1, and the wider forms omit the number 1.
    SkipOne,
    /// All others: the number is the data XOR this value, which is 0 or 1.
    Xor(u32),
}

/// A valid list of forms: narrowest first, and no prefix is a prefix of another (wire.md 1.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scheme {
    forms: [Form; FORMS_MAX],
    count: u8,
    numbering: Numbering,
    /// The form in which the value 1 is a director, if any: the one that writes slot 1.
    self_form: Option<u8>,
}

/// Four bits, no prefix: slots 0 to 15 (cjdns' `f4`).
pub const F4: Scheme = known(&[Form::new(4, 0, 0)]);

/// Eight bits, no prefix: slots 0 to 255 (cjdns' `f8`).
pub const F8: Scheme = known(&[Form::new(8, 0, 0)]);

/// The default: `nnn1`, `nnnnn10`, `nnnnnnnn00`. Slots 0 to 7 take 4 bits, 8 to 32 take 7, 33 to
/// 256 take 10 (cjdns' `v3x5x8`).
pub const V3X5X8: Scheme = known(&FORMS_358);

/// `nnnn1`, `nnnnnnnn0`: slots 0 to 15 take 5 bits, 16 to 255 take 9 (cjdns' `v4x8`).
pub const V4X8: Scheme = known(&[Form::new(4, 1, 0b1), Form::new(8, 1, 0b0)]);

/// The schemes that have a name.
pub const NAMED: [(&str, &Scheme); 4] =
    [("f4", &F4), ("f8", &F8), ("v3x5x8", &V3X5X8), ("v4x8", &V4X8)];

const FORMS_358: [Form; 3] = [Form::new(3, 1, 0b1), Form::new(5, 2, 0b10), Form::new(8, 2, 0b00)];

/// This function is evaluated at compile time, so a compiled program does not contain the panic.
const fn known(forms: &[Form]) -> Scheme {
    match Scheme::new(forms) {
        Ok(scheme) => scheme,
        Err(_) => panic!("a named scheme is valid"),
    }
}

impl Default for Scheme {
    /// [`V3X5X8`].
    fn default() -> Scheme {
        V3X5X8
    }
}

impl fmt::Debug for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheme").field("forms", &self.forms()).finish_non_exhaustive()
    }
}

impl Scheme {
    /// The scheme with these forms, narrowest first.
    ///
    /// The rules are those of cjdns (`EncodingScheme`). A single form has no prefix. If there are
    /// several forms, each has a prefix of 1 to 31 bits, and no prefix is the beginning of another.
    /// Each form has 1 to 31 data bits, more than the form before it, and at most 59 bits in all.
    ///
    /// # Errors
    /// [`SchemeError`] names the first rule that the list breaks.
    pub const fn new(forms: &[Form]) -> Result<Scheme, SchemeError> {
        if forms.is_empty() {
            return Err(SchemeError::NoForms);
        }
        if forms.len() > FORMS_MAX {
            return Err(SchemeError::TooManyForms);
        }
        let single = forms.len() == 1;
        let mut kept = [Form::new(0, 0, 0); FORMS_MAX];
        let mut self_form = None;
        // This function uses `while`, because a const function cannot use `for`.
        let mut i = 0;
        while i < forms.len() {
            let form = forms[i];
            if single && form.prefix_bits != 0 {
                return Err(SchemeError::NeedlessPrefix);
            }
            if !single && form.prefix_bits == 0 {
                return Err(SchemeError::NoPrefix);
            }
            if form.prefix_bits > 31 || form.data_bits > 31 || form.width() > FORM_WIDTH_MAX {
                return Err(SchemeError::FormTooWide);
            }
            if form.data_bits == 0 {
                return Err(SchemeError::NoData);
            }
            if form.prefix as u64 > low_mask(form.prefix_bits as u32) {
                return Err(SchemeError::PrefixTooWide);
            }
            if i > 0 && form.data_bits <= forms[i - 1].data_bits {
                return Err(SchemeError::NotAscending);
            }
            let mut j = 0;
            while j < i {
                if form.begins(forms[j].prefix as u64) && form.prefix_bits <= forms[j].prefix_bits
                    || forms[j].begins(form.prefix as u64)
                        && forms[j].prefix_bits <= form.prefix_bits
                {
                    return Err(SchemeError::NotPrefixFree);
                }
                j += 1;
            }
            if form.begins(1) {
                self_form = Some(i as u8);
            }
            kept[i] = form;
            i += 1;
        }
        let numbering = if is_358(forms) {
            Numbering::SkipOne
        } else {
            match self_form {
                // In this form the value 1 consists of prefix bits only. Its data is 0, which must
                // therefore encode slot 1.
                Some(form) if kept[form as usize].prefix_bits > 0 => Numbering::Xor(1),
                _ => Numbering::Xor(0),
            }
        };
        Ok(Scheme { forms: kept, count: forms.len() as u8, numbering, self_form })
    }

    /// The scheme of this name: `f4`, `f8`, `v3x5x8` or `v4x8`.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Scheme> {
        NAMED.iter().find(|(known, _)| *known == name).map(|&(_, scheme)| scheme)
    }

    /// The name of the scheme, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        NAMED.iter().find(|(_, known)| *known == self).map(|&(name, _)| name)
    }

    /// The forms of the scheme, narrowest first: 1 to [`FORMS_MAX`].
    #[inline]
    #[must_use]
    pub fn forms(&self) -> &[Form] {
        self.forms.get(..usize::from(self.count)).unwrap_or(&[])
    }

    /// The width of the widest form, in bits.
    #[must_use]
    pub fn width_max(&self) -> u8 {
        self.forms().iter().map(Form::width).max().unwrap_or(0)
    }

    /// The director of slot 1 at its least width; its value is 1.
    ///
    /// # Errors
    /// [`DirectorError::NoSelf`] if no form matches the bits `..01`.
    pub fn self_director(&self) -> Result<Director, DirectorError> {
        let form = self.self_form.ok_or(DirectorError::NoSelf)?;
        let width = self.form(form)?.width();
        Ok(Director { slot: Slot::SWITCH, bits: 1, width, form })
    }

    /// Reads the director at the low end of a label. `low` is the label's low 64 bits.
    ///
    /// # Errors
    /// [`DirectorError::NoSuchDirector`] if the bits match no form, or their data encodes no slot.
    pub fn decode(&self, low: u64) -> Result<Director, DirectorError> {
        let form = self.form_at(low).ok_or(DirectorError::NoSuchDirector)?;
        let Form { data_bits, prefix_bits, .. } = *self.form(form)?;
        let data = (low >> prefix_bits & low_mask(u32::from(data_bits))) as u32;
        let slot = self.slot_at(form, data).ok_or(DirectorError::NoSuchDirector)?;
        let width = data_bits + prefix_bits;
        Ok(Director { slot, bits: low & low_mask(u32::from(width)), width, form })
    }

    /// Writes a slot in exactly `width` bits.
    ///
    /// Slot 1 can be written in every width of the scheme from its own width up: the higher bits
    /// are zero.
    ///
    /// # Errors
    /// [`NoSuchWidth`](DirectorError::NoSuchWidth) if no form has this width,
    /// [`SlotTooWide`](DirectorError::SlotTooWide) if the slot does not fit, or
    /// [`NoSelf`](DirectorError::NoSelf) for slot 1 in a scheme that cannot write it.
    pub fn encode(&self, slot: Slot, width: u8) -> Result<Director, DirectorError> {
        if !self.forms().iter().any(|form| form.width() == width) {
            return Err(DirectorError::NoSuchWidth);
        }
        if slot.is_switch() {
            let director = self.self_director()?;
            if width < director.width {
                return Err(DirectorError::SlotTooWide);
            }
            return Ok(Director { width, ..director });
        }
        // Two forms may have the same width. The first form that fits the slot is used.
        for (index, form) in (0u8..).zip(self.forms()) {
            if form.width() == width
                && let Ok(director) = self.encode_in(slot, index)
            {
                return Ok(director);
            }
        }
        Err(DirectorError::SlotTooWide)
    }

    /// Writes a slot in the form with this index, 0 being the narrowest. Slot 1 has one form only.
    ///
    /// # Errors
    /// [`NoSuchForm`](DirectorError::NoSuchForm), [`SlotTooWide`](DirectorError::SlotTooWide) if
    /// the form does not hold the slot, or [`NoSelf`](DirectorError::NoSelf).
    pub fn encode_in(&self, slot: Slot, form: u8) -> Result<Director, DirectorError> {
        let shape = *self.form(form)?;
        if slot.is_switch() {
            let director = self.self_director()?;
            return if director.form == form {
                Ok(director)
            } else {
                Err(DirectorError::SlotTooWide)
            };
        }
        let data = self.data_at(form, slot).ok_or(DirectorError::SlotTooWide)?;
        let bits = u64::from(data) << shape.prefix_bits | u64::from(shape.prefix);
        Ok(Director { slot, bits, width: shape.width(), form })
    }

    /// Writes a slot in the fewest bits that hold it.
    ///
    /// # Errors
    /// [`SlotTooWide`](DirectorError::SlotTooWide) if no form holds it, or
    /// [`NoSelf`](DirectorError::NoSelf).
    pub fn encode_least(&self, slot: Slot) -> Result<Director, DirectorError> {
        if slot.is_switch() {
            return self.self_director();
        }
        (0..self.count)
            .filter_map(|form| self.encode_in(slot, form).ok())
            .min_by_key(|director| director.width)
            .ok_or(DirectorError::SlotTooWide)
    }

    /// The fewest bits in which both slots can be written: the width of a director to `egress` for
    /// packets from `ingress` (W1.2-6).
    ///
    /// # Errors
    /// [`SlotTooWide`](DirectorError::SlotTooWide) if no width holds both, or
    /// [`NoSelf`](DirectorError::NoSelf).
    pub fn width_for(&self, egress: Slot, ingress: Slot) -> Result<u8, DirectorError> {
        if (egress.is_switch() || ingress.is_switch()) && self.self_form.is_none() {
            return Err(DirectorError::NoSelf);
        }
        self.forms()
            .iter()
            .map(Form::width)
            .filter(|&w| self.encode(egress, w).is_ok() && self.encode(ingress, w).is_ok())
            .min()
            .ok_or(DirectorError::SlotTooWide)
    }

    /// The return-path bits for a packet from `ingress` whose director has the form `form`: the
    /// ingress slot's director, reversed, at the **top** of a 64-bit word, for
    /// [`Label::advance`](crate::Label::advance).
    ///
    /// Returns `None` if the slot does not fit the form's width. In this case a switch discards the
    /// packet (`return_path`). Switches call this function to build their tables.
    #[must_use]
    pub fn back_bits(&self, ingress: Slot, form: u8) -> Option<u64> {
        let width = self.form(form).ok()?.width();
        self.encode(ingress, width).ok().map(|director| director.back_bits())
    }

    /// The form whose prefix equals the low bits of a label.
    #[must_use]
    pub fn form_at(&self, low: u64) -> Option<u8> {
        (0u8..).zip(self.forms()).find(|(_, form)| form.begins(low)).map(|(index, _)| index)
    }

    /// The slot that `data` encodes in form `form`, if any.
    ///
    /// Switches use this function to build the second of the two tables of a wide scheme
    /// ([`prefix_index_bits`](Scheme::prefix_index_bits)).
    #[must_use]
    pub fn slot_at(&self, form: u8, data: u32) -> Option<Slot> {
        if data > self.form(form).ok()?.data_max() {
            return None;
        }
        let number = match (self.numbering, form, data) {
            (Numbering::SkipOne, 0, 0 | 1) => data ^ 1,
            (Numbering::SkipOne, 0, _) | (Numbering::SkipOne, _, 0) => data,
            (Numbering::SkipOne, _, _) => data + 1,
            (Numbering::Xor(flip), _, _) => data ^ flip,
        };
        // Slot 1 has exactly one encoding, so only one form may write it.
        (number != 1 || self.self_form == Some(form)).then_some(Slot::new(number))
    }

    /// The data that encodes a slot other than 1 in form `form`, if the form holds it.
    fn data_at(&self, form: u8, slot: Slot) -> Option<u32> {
        let number = slot.number();
        let data = match (self.numbering, form, number) {
            (Numbering::SkipOne, 0, 0 | 1) => number ^ 1,
            (Numbering::SkipOne, 0, _) | (Numbering::SkipOne, _, 0) => number,
            (Numbering::SkipOne, _, _) => number - 1,
            (Numbering::Xor(flip), _, _) => number ^ flip,
        };
        (data <= self.form(form).ok()?.data_max()).then_some(data)
    }

    fn form(&self, index: u8) -> Result<&Form, DirectorError> {
        self.forms().get(usize::from(index)).ok_or(DirectorError::NoSuchForm)
    }
}

const fn is_358(forms: &[Form]) -> bool {
    if forms.len() != FORMS_358.len() {
        return false;
    }
    let mut i = 0;
    while i < forms.len() {
        let (a, b) = (forms[i], FORMS_358[i]);
        if a.data_bits != b.data_bits || a.prefix_bits != b.prefix_bits || a.prefix != b.prefix {
            return false;
        }
        i += 1;
    }
    true
}

/// Why a list of forms is not a scheme, or bytes are not a list of forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchemeError {
    /// The list is empty.
    NoForms,
    /// There are more than [`FORMS_MAX`] forms.
    TooManyForms,
    /// A single form has a prefix, which would carry no information.
    NeedlessPrefix,
    /// One of several forms has no prefix.
    NoPrefix,
    /// A prefix is a larger number than its width allows.
    PrefixTooWide,
    /// A form has no data bits.
    NoData,
    /// A form has more than 31 bits of prefix or of data, or more than [`FORM_WIDTH_MAX`] of both.
    FormTooWide,
    /// A form does not have more data bits than the one before it.
    NotAscending,
    /// A prefix is the beginning of another prefix.
    NotPrefixFree,
    /// The bytes end in the middle of a form.
    Truncated,
    /// The bytes continue after the last form.
    Trailing,
    /// More than [`PREFIX_INDEX_BITS_MAX`](crate::limits::PREFIX_INDEX_BITS_MAX) bits are needed to
    /// distinguish the forms, so a switch cannot decode them with two loads.
    PrefixesTooAlike,
}

impl SchemeError {
    /// A stable name in snake_case, as `strowger conform` prints it.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            SchemeError::NoForms => "no_forms",
            SchemeError::TooManyForms => "too_many_forms",
            SchemeError::NeedlessPrefix => "needless_prefix",
            SchemeError::NoPrefix => "no_prefix",
            SchemeError::PrefixTooWide => "prefix_too_wide",
            SchemeError::NoData => "no_data",
            SchemeError::FormTooWide => "form_too_wide",
            SchemeError::NotAscending => "not_ascending",
            SchemeError::NotPrefixFree => "not_prefix_free",
            SchemeError::Truncated => "truncated",
            SchemeError::Trailing => "trailing",
            SchemeError::PrefixesTooAlike => "prefixes_too_alike",
        }
    }
}

impl fmt::Display for SchemeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SchemeError::NoForms => "a scheme has at least one form",
            SchemeError::TooManyForms => "a scheme has at most 31 forms",
            SchemeError::NeedlessPrefix => "a scheme of one form has no prefix",
            SchemeError::NoPrefix => "each of several forms has a prefix",
            SchemeError::PrefixTooWide => "a prefix has more bits than its width says",
            SchemeError::NoData => "a form has at least one data bit",
            SchemeError::FormTooWide => {
                "a form has at most 31 bits of prefix, 31 of data, 59 in all"
            }
            SchemeError::NotAscending => "each form has more data bits than the one before it",
            SchemeError::NotPrefixFree => "no prefix may begin another",
            SchemeError::Truncated => "the serialisation ends inside a form",
            SchemeError::Trailing => "the serialisation goes on after the last form",
            SchemeError::PrefixesTooAlike => "the prefixes differ only above their eighth bit",
        })
    }
}

impl core::error::Error for SchemeError {}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOTS: core::ops::RangeInclusive<u32> = 0..=300;

    /// wire.md: W1.1-6, W1.4-9.
    #[test]
    fn small_numbers_have_short_codes() {
        let width = |number| V3X5X8.encode_least(Slot::new(number)).map(|d| d.width());
        for (number, bits) in [(0, 4), (1, 4), (7, 4), (8, 7), (32, 7), (33, 10), (256, 10)] {
            assert_eq!(width(number), Ok(bits), "{number}");
        }
        assert_eq!(width(257), Err(DirectorError::SlotTooWide));
    }

    /// wire.md: W1.1-26.
    #[test]
    fn v3x5x8_is_the_same_scheme_however_it_was_given() {
        let of_bytes = Scheme::parse(&[0x61, 0x14, 0x45, 0x81, 0x00]).unwrap();
        let of_forms = Scheme::new(&FORMS_358).unwrap();
        for scheme in [of_bytes, of_forms] {
            assert_eq!(scheme.name(), Some("v3x5x8"));
            for slot in SLOTS.map(Slot::new) {
                assert_eq!(scheme.encode_least(slot), V3X5X8.encode_least(slot), "{slot}");
            }
        }
        // Two forms of it have the widths and prefixes of `v3x5x8`, but not its numbers.
        let shorter = Scheme::new(&FORMS_358[..2]).unwrap();
        assert_ne!(shorter.encode(Slot::new(8), 7), V3X5X8.encode(Slot::new(8), 7));
    }

    /// wire.md: W1.1-1, W1.4-10.
    #[test]
    fn every_code_is_read_back_and_no_two_are_the_same() {
        for (name, scheme) in NAMED {
            for form in 0..scheme.forms().len() as u8 {
                let mut last = None;
                for slot in SLOTS.map(Slot::new) {
                    if let Ok(director) = scheme.encode_in(slot, form) {
                        assert_eq!(scheme.decode(director.bits()), Ok(director), "{name} {slot}");
                        assert_ne!(last, Some(director.bits()));
                        last = Some(director.bits());
                    }
                }
            }
        }
    }

    /// wire.md: W1.1-3, W1.1-16, W1.1-17, W1.1-24.
    #[test]
    fn slot_1_is_encoded_as_1_in_any_width() {
        for (_, scheme) in NAMED {
            for form in scheme.forms() {
                let director = scheme.encode(Slot::SWITCH, form.width()).unwrap();
                assert_eq!((director.bits(), director.width()), (1, form.width()));
                assert_eq!(scheme.decode(1).unwrap().slot(), Slot::SWITCH);
            }
        }
        // Slot 1 still has only one form: the data bits of the wider forms never encode it.
        assert_eq!(V4X8.encode_in(Slot::SWITCH, 1), Err(DirectorError::SlotTooWide));
        assert_eq!(V4X8.decode(0), Err(DirectorError::NoSuchDirector));
        assert_eq!(V3X5X8.decode(0).unwrap().slot(), Slot::new(0));
    }

    /// wire.md: W1.1-16, W1.1-17, W1.1-25.
    #[test]
    fn a_scheme_that_cannot_encode_slot_1_has_no_self() {
        let scheme = Scheme::new(&[Form::new(2, 2, 0b10), Form::new(4, 2, 0b00)]).unwrap();
        assert_eq!(scheme.self_director(), Err(DirectorError::NoSelf));
        assert_eq!(scheme.encode(Slot::SWITCH, 6), Err(DirectorError::NoSelf));
        assert_eq!(scheme.encode_least(Slot::new(2)).unwrap().bits(), 0b1010);
        assert_eq!(scheme.decode(0b01), Err(DirectorError::NoSuchDirector));
    }

    /// wire.md: W1.2-6.
    #[test]
    fn a_director_is_wide_enough_for_the_return_path() {
        let width = |egress, ingress| V3X5X8.width_for(Slot::new(egress), Slot::new(ingress));
        assert_eq!(width(2, 0), Ok(4));
        assert_eq!(width(2, 9), Ok(7));
        assert_eq!(width(9, 2), Ok(7));
        assert_eq!(width(1, 200), Ok(10));
        assert_eq!(width(2, 257), Err(DirectorError::SlotTooWide));
        assert_eq!(V3X5X8.back_bits(Slot::new(9), 0), None);
        assert_eq!(V3X5X8.back_bits(Slot::new(0), 0), Some(0b1100 << 60));
        assert_eq!(V3X5X8.back_bits(Slot::SWITCH, 1), Some(1 << 63));
        assert_eq!(V3X5X8.back_bits(Slot::new(0), 3), None);
    }

    /// wire.md: W1.1-2, W1.1-9, W1.1-10, W1.1-11, W1.1-12, W1.1-13, W1.1-14, W1.1-15.
    #[test]
    fn insane_sets_of_forms_are_refused() {
        use SchemeError::*;
        let cases: [(&[Form], SchemeError); 12] = [
            (&[], NoForms),
            (&[Form::new(4, 1, 1)], NeedlessPrefix),
            (&[Form::new(0, 0, 0)], NoData),
            (&[Form::new(32, 0, 0)], FormTooWide),
            (&[Form::new(255, 255, 0), Form::new(1, 1, 0)], FormTooWide),
            (&[Form::new(4, 0, 0), Form::new(8, 1, 0)], NoPrefix),
            (&[Form::new(4, 1, 2), Form::new(8, 1, 0)], PrefixTooWide),
            (&[Form::new(4, 1, 1), Form::new(4, 1, 0)], NotAscending),
            (&[Form::new(4, 1, 1), Form::new(31, 31, 0)], FormTooWide),
            (&[Form::new(4, 1, 1), Form::new(8, 2, 0b11)], NotPrefixFree),
            (&[Form::new(4, 2, 0b11), Form::new(8, 1, 1)], NotPrefixFree),
            (&[Form::new(1, 1, 0); FORMS_MAX + 1], TooManyForms),
        ];
        for (forms, why) in cases {
            assert_eq!(Scheme::new(forms), Err(why), "{forms:?}");
        }
        // 28 prefix bits and 31 data bits are exactly the maximum.
        assert!(Scheme::new(&[Form::new(4, 1, 1), Form::new(31, 28, 0)]).is_ok());
    }
}
