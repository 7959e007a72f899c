//! The step of one switch on a label (wire.md 1.2, 1.3), computed without lookup tables.

use core::fmt;

use super::Label;
use crate::director::Director;
use crate::register::Register;
use crate::scheme::Scheme;
use crate::slot::Slot;

/// The outcome of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<R: Register = u64> {
    /// The switch sends the packet to slot `to` with this label and shift.
    Forward {
        /// The egress slot; never slot 1.
        to: Slot,
        /// The label after the step.
        label: Label<R>,
        /// The number of label bits that have been used.
        shift: u16,
    },
    /// The packet is addressed to slot 1, the switch itself.
    Arrive {
        /// Label and shift with the ingress slot written into the return path; `None` if there are
        /// not enough bits for it. In that case the receiver computes the return path at full width
        /// from the ingress slot that is delivered with the packet ([`Label::reverse`]). So
        /// delivery never fails for lack of bits (W1.3-3).
        written: Option<(Label<R>, u16)>,
    },
}

/// Why a switch discards a packet because of its label (wire.md 1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepError {
    /// The forward part of the label is empty: it does not even contain an end marker.
    SpentLabel,
    /// The low bits are not a director of this scheme.
    NoSuchDirector,
    /// Nothing is attached to the slot.
    EmptySlot,
    /// The egress slot is the ingress slot.
    UTurn,
    /// The director names slot 1, and more than an end marker follows it (W1.3-9).
    BeyondSwitch,
    /// The ingress slot does not fit into the bits of the director.
    ReturnPath,
    /// The return path would fill the register.
    RegisterFull,
}

impl StepError {
    /// A stable name in snake_case, as `strowger conform` prints it.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            StepError::SpentLabel => "spent_label",
            StepError::NoSuchDirector => "no_such_director",
            StepError::EmptySlot => "empty_slot",
            StepError::UTurn => "u_turn",
            StepError::BeyondSwitch => "beyond_endpoint",
            StepError::ReturnPath => "return_path",
            StepError::RegisterFull => "register_full",
        }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StepError::SpentLabel => "nothing of the label is ahead",
            StepError::NoSuchDirector => "the low bits of the label are no director",
            StepError::EmptySlot => "nothing is attached to this slot",
            StepError::UTurn => "the packet would leave by the slot that it came in by",
            StepError::BeyondSwitch => "the label goes on behind the director of slot 1",
            StepError::ReturnPath => {
                "the return path cannot be written: the director is too narrow"
            }
            StepError::RegisterFull => "the label has no bits left for the return path",
        })
    }
}

impl core::error::Error for StepError {}

/// Computes the step of a switch with this scheme for a packet from slot `ingress` (wire.md 1.2,
/// 1.3).
///
/// The data plane looks up the same outcome in tables. Tests compare it with this function.
///
/// `taken` returns whether something is attached to a slot; it is not called for slot 1. `u_turns`
/// says whether the egress slot may be the ingress slot. Arriving at slot 1 is not a U-turn.
///
/// # Errors
/// The first that applies, in this order: [`SpentLabel`](StepError::SpentLabel),
/// [`NoSuchDirector`](StepError::NoSuchDirector), [`EmptySlot`](StepError::EmptySlot),
/// [`UTurn`](StepError::UTurn), [`BeyondSwitch`](StepError::BeyondSwitch),
/// [`ReturnPath`](StepError::ReturnPath), [`RegisterFull`](StepError::RegisterFull).
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
        let rest = label.forward(shift).0.shr(u32::from(director.width));
        if rest != R::ZERO && rest != R::ONE {
            return Err(StepError::BeyondSwitch);
        }
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

/// The label and the shift of a packet that has arrived at slot 1; `None` if there is no room for
/// the ingress slot. The ingress slot is written in the bits of the director of slot 1. If the slot
/// is too wide for them and all higher bits of the forward part are zero, the slot takes as many of
/// these bits as it needs.
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

/// The shift after `width` more bits have been used; `None` if no unused bit would remain in the
/// register.
fn shifted<R: Register>(shift: u16, width: u8) -> Option<u16> {
    let shift = shift.checked_add(u16::from(width))?;
    (u32::from(shift) < R::BITS).then_some(shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::{V3X5X8, V4X8};

    fn label(text: &str) -> Label {
        text.parse().unwrap()
    }

    fn everywhere(_: Slot) -> bool {
        true
    }

    fn stepped(label: Label, shift: u16, ingress: u32) -> Result<Step, StepError> {
        step(&V3X5X8, label, shift, Slot::new(ingress), everywhere, false)
    }

    /// wire.md: W1.2-13.
    #[test]
    fn a_director_may_reach_into_the_return_path() {
        // Two bits are left of the forward part, and two bits of the director 0101 (slot 2) or 1001
        // (slot 4) belong to the return path.
        for (bits, slot) in [(0b0101, 2), (0b1001, 4)] {
            let asked = core::cell::Cell::new(None);
            let taken = |slot| {
                asked.set(Some(slot));
                true
            };
            let result = step(&V3X5X8, Label::<u64>::new(bits), 62, Slot::new(3), taken, false);
            assert_eq!(asked.get(), Some(Slot::new(slot)));
            assert_eq!(result, Err(StepError::RegisterFull));
        }
    }

    /// wire.md: W1.2-1, W1.2-9.
    #[test]
    fn a_step_shifts_and_writes_the_return_path_at_the_top() {
        let wanted = Step::Forward { to: Slot::new(2), label: label("c800000000000001"), shift: 8 };
        assert_eq!(stepped(label("8000000000000015"), 4, 0), Ok(wanted));
    }

    #[test]
    fn a_spent_label_has_no_next_hop() {
        assert_eq!(stepped(label("0"), 0, 0), Err(StepError::SpentLabel));
        // The remaining bits belong to the return path.
        assert_eq!(stepped(label("c800000000000000"), 8, 0), Err(StepError::SpentLabel));
        assert_eq!(stepped(label("ffffffffffffffff"), 64, 0), Err(StepError::SpentLabel));
        assert_eq!(stepped(label("ffffffffffffffff"), u16::MAX, 0), Err(StepError::SpentLabel));
    }

    #[test]
    fn a_label_that_names_an_empty_slot_has_no_next_hop() {
        let taken = |slot: Slot| slot.number() != 2;
        let result = step(&V3X5X8, label("15"), 0, Slot::new(0), taken, false);
        assert_eq!(result, Err(StepError::EmptySlot));
    }

    #[test]
    fn bits_that_are_no_director_go_nowhere() {
        let result = step(&V4X8, label("200"), 0, Slot::new(0), everywhere, false);
        assert_eq!(result, Err(StepError::NoSuchDirector));
    }

    /// wire.md: W1.2-11.
    #[test]
    fn a_u_turn_needs_leave() {
        assert_eq!(stepped(label("15"), 0, 2), Err(StepError::UTurn));
        assert!(step(&V3X5X8, label("15"), 0, Slot::new(2), everywhere, true).is_ok());
        // Slot 1 may send packets to itself.
        assert!(matches!(stepped(label("1"), 0, 1), Ok(Step::Arrive { written: Some(_) })));
    }

    #[test]
    fn a_return_path_that_does_not_fit_is_refused() {
        assert_eq!(stepped(label("15"), 0, 9), Err(StepError::ReturnPath));
        assert!(stepped(label("86"), 0, 9).is_ok());
    }

    #[test]
    fn a_full_register_takes_no_more() {
        // Four forward bits are left, and the return path would take all of them.
        assert_eq!(stepped(label("5"), 60, 0), Err(StepError::RegisterFull));
        assert!(stepped(label("15"), 59, 0).is_ok());
    }

    /// wire.md: W1.3-8, W1.3-9.
    #[test]
    fn a_label_ends_behind_slot_1() {
        // The return path, here of 8 bits, does not count.
        for ends in ["c800000000000001", "c800000000000011"] {
            assert!(matches!(stepped(label(ends), 8, 0), Ok(Step::Arrive { .. })), "{ends}");
        }
        for goes_on in ["c800000000000021", "c800000000000031", "c880000000000001"] {
            assert_eq!(stepped(label(goes_on), 8, 0), Err(StepError::BeyondSwitch), "{goes_on}");
        }
    }

    /// wire.md: W1.3-3.
    #[test]
    fn arriving_never_fails_for_want_of_bits() {
        // All bits above the director are zero: the slot is written into as many of them as it
        // needs.
        let widened = Step::Arrive { written: Some((label("3f00000000000000"), 10)) };
        assert_eq!(stepped(label("1"), 0, 64), Ok(widened));
        // An end marker is above the director, so the slot is delivered with the packet and not in
        // the label.
        assert_eq!(stepped(label("11"), 6, 12), Ok(Step::Arrive { written: None }));
        // The register has no free bits.
        assert_eq!(stepped(label("1"), 63, 0), Ok(Step::Arrive { written: None }));
    }
}
