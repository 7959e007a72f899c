//! The slot table, which maps the low bits of a label to the next hop with one indexed load. If the
//! scheme's widest form has more than ten bits, two loads are needed.

use strowger_frame::Mark;
use strowger_wire::{Scheme, Slot, limits::FORMS_MAX, scheme::SchemeError};

use crate::discard::Discard;

/// The meaning of a director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// The neighbour with this mark. It processes the rest of the label.
    Neighbour(Mark),
    /// The endpoint with this mark. The label ends there.
    Endpoint(Mark),
    /// This switch: the packet goes to its slow path.
    Switch,
    /// A former number of a slot, which still leads to the slot's user for a time.
    Alias {
        /// The user.
        to: Mark,
        /// The former number. The worker reports its use at a limited rate.
        slot: u16,
        /// Whether the user is an endpoint.
        is_endpoint: bool,
    },
    /// No next hop. The worker drops the packet for this reason ([`Discard::EmptySlot`],
    /// [`Discard::SlotGone`], [`Discard::NoDirector`]).
    Drop(Discard),
}

/// A table entry. [`NextHop`] has eight bytes, so an entry has twelve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    next_hop: NextHop,
    width: u8,
    form: u8,
}

const _: () = assert!(size_of::<Entry>() == 12);

impl Entry {
    const NO_DIRECTOR: Self =
        Self { next_hop: NextHop::Drop(Discard::NoDirector), width: 0, form: 0 };

    /// The meaning of the director.
    #[inline]
    pub fn next_hop(self) -> NextHop {
        self.next_hop
    }

    /// The width of the director in bits.
    #[inline]
    pub fn width(self) -> u8 {
        self.width
    }

    /// The form of the director, which indexes [`ReturnPath`].
    #[inline]
    pub fn form(self) -> u8 {
        self.form
    }
}

/// One form of a scheme whose widest form has too many bits for a flat table.
#[derive(Clone, Copy, Debug)]
struct NearForm {
    prefix_mask: u64,
    prefix: u64,
    prefix_bits: u32,
    data_mask: u64,
    /// The first entry of this form, and the number of its entries.
    first: u32,
    count: u32,
    /// The entry for data bits of `count` or more. Such a director belongs to a slot without a
    /// user.
    beyond: Entry,
}

#[derive(Debug)]
enum Shape {
    /// Indexed by the label's low bits.
    Flat { mask: u64 },
    /// The label's low bits select the form, and the form's data bits select the entry.
    ByForm { mask: u64, near: Box<[Option<NearForm>]> },
}

/// The table that maps directors to next hops. Each worker has a copy, which the slow path replaces
/// as a whole.
#[derive(Debug)]
pub struct SlotTable {
    shape: Shape,
    hops: Box<[Entry]>,
}

impl SlotTable {
    /// Makes the table for `scheme`. `next_hop` gives the meaning of each slot number up to
    /// `slot_max`; higher ones are [`NextHop::Drop`] with [`Discard::EmptySlot`].
    ///
    /// # Errors
    /// [`SchemeError::PrefixesTooAlike`]: the scheme has too many prefix bits for a table.
    pub fn new(
        scheme: &Scheme,
        slot_max: u32,
        next_hop: impl Fn(Slot) -> NextHop,
    ) -> Result<Self, SchemeError> {
        let next_hop_of = |slot: Slot| match slot {
            Slot::SWITCH => NextHop::Switch,
            slot if slot.number() <= slot_max => next_hop(slot),
            _ => NextHop::Drop(Discard::EmptySlot),
        };
        if let Some(bits) = scheme.index_bits() {
            let hops = (0..1_u16 << bits)
                .map(|index| match scheme.decode_index(index) {
                    Some(director) => {
                        let (width, form) = (director.width(), director.form());
                        Entry { next_hop: next_hop_of(director.slot()), width, form }
                    }
                    None => Entry::NO_DIRECTOR,
                })
                .collect();
            return Ok(Self { shape: Shape::Flat { mask: (1 << bits) - 1 }, hops });
        }

        let bits = scheme.prefix_index_bits()?;
        let mut hops = Vec::new();
        let forms: Vec<NearForm> = (0_u8..)
            .zip(scheme.forms())
            .map(|(form, shape)| {
                let first = hops.len() as u32;
                let data_max = (1_u64 << shape.data_bits) - 1;
                // The slot number differs from the data value by at most one: a form skips the number
                // 1, or exchanges neighbouring numbers.
                let count = data_max.min(u64::from(slot_max) + 1) as u32 + 1;
                hops.extend((0..count).map(|data| match scheme.slot_at(form, data) {
                    Some(slot) => Entry { next_hop: next_hop_of(slot), width: shape.width(), form },
                    None => Entry::NO_DIRECTOR,
                }));
                NearForm {
                    prefix_mask: (1 << shape.prefix_bits) - 1,
                    prefix: u64::from(shape.prefix),
                    prefix_bits: u32::from(shape.prefix_bits),
                    data_mask: data_max,
                    first,
                    count,
                    beyond: Entry {
                        next_hop: NextHop::Drop(Discard::EmptySlot),
                        width: shape.width(),
                        form,
                    },
                }
            })
            .collect();
        let near = (0..1_u16 << bits)
            .map(|index| scheme.form_near(index as u8).map(|form| forms[usize::from(form)]))
            .collect();
        let shape = Shape::ByForm { mask: (1 << bits) - 1, near };
        Ok(Self { shape, hops: hops.into() })
    }

    /// Looks up the director in the low bits of a label.
    #[inline(always)] // a load and a mask, for each packet
    pub fn lookup(&self, low: u64) -> Entry {
        match &self.shape {
            Shape::Flat { mask } => {
                self.hops.get((low & mask) as usize).copied().unwrap_or(Entry::NO_DIRECTOR)
            }
            Shape::ByForm { mask, near } => {
                let Some(Some(form)) = near.get((low & mask) as usize) else {
                    return Entry::NO_DIRECTOR;
                };
                if low & form.prefix_mask != form.prefix {
                    return Entry::NO_DIRECTOR;
                }
                let data = low >> form.prefix_bits & form.data_mask;
                if data >= u64::from(form.count) {
                    return form.beyond;
                }
                let index = form.first as usize + data as usize;
                self.hops.get(index).copied().unwrap_or(Entry::NO_DIRECTOR)
            }
        }
    }
}

/// The return path that a link writes. It contains the directors of the link's slot in all forms,
/// each reversed and at the top of 64 bits, so that one OR inserts it.
#[derive(Clone, Copy, Debug)]
pub struct ReturnPath {
    bits: [u64; FORMS_MAX],
    /// Bit `f` is set if form `f` can write the slot.
    fits: u32,
    /// Bit `f` is set if form `f` can write only a former number of the slot.
    former: u32,
}

const _: () = assert!(FORMS_MAX <= 32);

impl ReturnPath {
    /// Makes the directors of `slot` in all forms of `scheme`.
    pub fn new(scheme: &Scheme, slot: Slot) -> Self {
        let mut return_path = Self { bits: [0; FORMS_MAX], fits: 0, former: 0 };
        for (form, bits) in (0_u8..).zip(&mut return_path.bits) {
            if let Some(back) = scheme.back_bits(slot, form) {
                *bits = back;
                return_path.fits |= 1 << form;
            }
        }
        return_path
    }

    /// Adds the directors of a former number, in the forms that can write neither the slot nor an
    /// earlier former number.
    #[must_use]
    pub fn or_former(mut self, scheme: &Scheme, former: Slot) -> Self {
        for (form, bits) in (0_u8..).zip(&mut self.bits) {
            let is_open = (self.fits | self.former) >> form & 1 == 0;
            if is_open && let Some(back) = scheme.back_bits(former, form) {
                *bits = back;
                self.former |= 1 << form;
            }
        }
        self
    }

    /// The reversed director in this form, at the top of the word; `None` if the form cannot write
    /// the slot.
    #[inline]
    pub fn in_form(&self, form: u8) -> Option<u64> {
        let bits = *self.bits.get(usize::from(form))?;
        (self.fits >> form & 1 == 1).then_some(bits)
    }

    /// The reversed director of a former number, if the form cannot write the slot's present
    /// number.
    #[cold]
    pub fn former_in_form(&self, form: u8) -> Option<u64> {
        let bits = *self.bits.get(usize::from(form))?;
        (self.former >> form & 1 == 1).then_some(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strowger_wire::scheme::{self, Form};

    fn agrees_with_the_scheme(scheme: &Scheme, slot_max: u32, lows: impl Iterator<Item = u64>) {
        let next_hop = |slot: Slot| {
            if slot.number().is_multiple_of(3) {
                NextHop::Drop(Discard::EmptySlot)
            } else {
                NextHop::Neighbour(Mark(slot.number()))
            }
        };
        let table = SlotTable::new(scheme, slot_max, next_hop).expect("a scheme with a table");
        for low in lows {
            let hop = table.lookup(low);
            match scheme.decode(low) {
                Err(_) => {
                    assert_eq!(hop.next_hop(), NextHop::Drop(Discard::NoDirector), "{low:x}")
                }
                Ok(director) => {
                    let slot = director.slot().number();
                    let expected = match slot {
                        1 => NextHop::Switch,
                        slot if slot > slot_max => NextHop::Drop(Discard::EmptySlot),
                        slot => next_hop(Slot::new(slot)),
                    };
                    assert_eq!(hop.next_hop(), expected, "{low:x} is slot {slot}");
                    assert_eq!(hop.width(), director.width());
                    assert_eq!(hop.form(), director.form());
                }
            }
        }
    }

    #[test]
    fn one_load_gives_what_the_scheme_decodes() {
        for (_, scheme) in scheme::NAMED {
            agrees_with_the_scheme(scheme, 300, 0..1 << 12);
            agrees_with_the_scheme(scheme, 5, 0..1 << 12);
        }
    }

    #[test]
    fn two_loads_give_what_the_scheme_decodes() {
        let wide = Scheme::new(&[Form::new(4, 1, 1), Form::new(8, 2, 2), Form::new(16, 2, 0)])
            .expect("prefix-free");
        assert_eq!(wide.index_bits(), None);
        agrees_with_the_scheme(&wide, 20, 0..1 << 18);
        agrees_with_the_scheme(&wide, 60_000, 0..1 << 18);
    }

    #[test]
    fn a_return_path_knows_which_forms_hold_it() {
        let return_path = ReturnPath::new(&scheme::V3X5X8, Slot::new(9));
        assert_eq!(return_path.in_form(0), None);
        // Slot 9 in 7 bits is the number 8 in five bits, and the prefix 10.
        assert_eq!(return_path.in_form(1), Some(0b010_0010_u64.reverse_bits()));
        assert!(return_path.in_form(2).is_some());
        assert_eq!(return_path.in_form(3), None);
        assert_eq!(return_path.in_form(255), None);
        assert_eq!(return_path.former_in_form(0), None);
        // Where the slot does not fit, the first former number that fits is used.
        let return_path =
            [7, 2, 8].map(Slot::new).into_iter().fold(return_path, |return_path, former| {
                return_path.or_former(&scheme::V3X5X8, former)
            });
        assert_eq!(return_path.in_form(0), None);
        assert_eq!(return_path.former_in_form(0), Some(0b1111_u64.reverse_bits()));
        assert_eq!(return_path.former_in_form(1), None, "slot 9 fits");
        assert_eq!(return_path.former_in_form(255), None);
    }
}
