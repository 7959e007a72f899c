//! Builds labels: from a list of hops, for packets that an endpoint sends, and for replies.

use super::{Label, LabelError};
use crate::director::Director;
use crate::register::Register;
use crate::scheme::Scheme;
use crate::slot::Slot;

/// One switch on a path: its scheme, its ingress slot and its egress slot.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// The scheme of this switch.
    pub scheme: &'a Scheme,
    /// The egress slot of the packet. Slot 1 is allowed only at the last switch.
    pub egress: Slot,
    /// The ingress slot of the packet. Slot 1 is allowed only at the first switch.
    pub ingress: Slot,
}

impl<R: Register> Label<R> {
    /// The label of the path through these switches, and the label of the return path (W1.4-6).
    ///
    /// Each director has the least width in which both slots of its hop fit, because the switch
    /// writes the ingress slot into the bits of the director. Above the last director is the end
    /// marker. If the egress of the last hop is slot 1, the marker is also its director. The label
    /// of the return path has its marker above the first hop's ingress slot; if that is slot 1, the
    /// marker is also its director.
    ///
    /// # Errors
    /// [`NoHops`](LabelError::NoHops) for an empty list; [`SwitchInside`](LabelError::SwitchInside)
    /// if slot 1 occurs elsewhere than as the first ingress or the last egress;
    /// [`SlotTooWide`](crate::director::DirectorError::SlotTooWide) or
    /// [`NoSelf`](crate::director::DirectorError::NoSelf) if a scheme cannot write a slot;
    /// [`TooLong`](LabelError::TooLong) if either label would have more than
    /// [`BITS_MAX`](Label::BITS_MAX) bits.
    pub fn build(hops: &[Hop<'_>]) -> Result<(Label<R>, Label<R>), LabelError> {
        let last = hops.len().checked_sub(1).ok_or(LabelError::NoHops)?;
        let (mut label, mut width_sum) = (R::ZERO, 0);
        let mut back = Label::here();
        for (index, hop) in hops.iter().enumerate() {
            let ends = hop.egress.is_switch();
            if ends && index != last || hop.ingress.is_switch() && index != 0 {
                return Err(LabelError::SwitchInside);
            }
            // At the end the receiver writes the ingress slot at full width (W1.3-4), so the
            // director of slot 1 need not be widened for it.
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

    /// The label and the shift in a packet that an endpoint sends (W1.3-6).
    ///
    /// The top bit is set, so that the return path has an end marker as well and ends at the
    /// endpoint's slot. A packet from slot 1 is sent with the unchanged label and shift 0 (W1.3-5).
    ///
    /// # Errors
    /// [`LabelError::TooLong`] if the label has more than [`BITS_MAX`](Label::BITS_MAX) bits.
    pub fn depart(self) -> Result<(Label<R>, u16), LabelError> {
        let marker = R::ONE.shl(R::BITS - 1);
        Ok((Label(Label::fits(self.0)?.0.or(marker)), 1))
    }

    /// The label of the reply to a packet that arrived with this label and `shift`: the top `shift`
    /// bits, reversed (W1.3-4).
    ///
    /// `ingress` is the director of the packet's ingress slot at the last switch, in the narrowest
    /// form ([`Scheme::encode_least`]). It is `None` if the last step has written this slot into
    /// the label.
    ///
    /// # Errors
    /// [`Zero`](LabelError::Zero) if there is no return path; [`TooLong`](LabelError::TooLong) if
    /// it has more than [`BITS_MAX`](Label::BITS_MAX) bits;
    /// [`ShiftTooLarge`](LabelError::ShiftTooLarge) if `shift` is not below the register's width.
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

    /// The label of the reply of an endpoint to a packet that arrived at it with this label and
    /// `shift`, by the slot `ingress` of the endpoint's switch (W1.3-17).
    ///
    /// The reply leaves from the endpoint's own slot, and its first director must hold that slot as
    /// well as `ingress`. The endpoint's slot is that of the label's director.
    ///
    /// # Errors
    /// As [`reverse`](Label::reverse); the errors of [`Scheme::width_for`].
    pub fn reverse_at_endpoint(
        self,
        shift: u16,
        scheme: &Scheme,
        ingress: Slot,
    ) -> Result<Label<R>, LabelError> {
        let director = match self.decode(scheme) {
            Ok(own) if !own.slot.is_switch() => {
                scheme.encode(ingress, scheme.width_for(ingress, own.slot)?)?
            }
            _ => scheme.encode_least(ingress)?,
        };
        self.reverse(shift, Some(director))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::DirectorError;
    use crate::label::{Step, StepError, step};
    use crate::register::U256;
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

    /// A reply from a wide slot to a narrow one has a director that holds both, so the switch can
    /// write the endpoint's slot into the return path.
    ///
    /// wire.md: W1.3-17.
    #[test]
    fn the_reply_of_an_endpoint_holds_the_endpoint_s_own_slot() {
        for own in [2, 7, 8, 31, 40, 200] {
            for ingress in [0, 3, 9, 100] {
                let hop = |ingress, egress| Hop {
                    scheme: &V3X5X8,
                    ingress: Slot::new(ingress),
                    egress: Slot::new(egress),
                };
                // An endpoint at slot 2 of the first switch sends out of slot 0.
                let (label, _) = Label::<u64>::build(&[hop(2, 0), hop(ingress, own)]).unwrap();
                let (label, shift) = label.depart().unwrap();
                let first = step(&V3X5X8, label, shift, Slot::new(2), everywhere, false);
                let Ok(Step::Forward { label, shift, .. }) = first else { panic!("{first:?}") };
                let back = label.reverse_at_endpoint(shift, &V3X5X8, Slot::new(ingress)).unwrap();
                let (reply, shift) = back.depart().unwrap();
                let next = step(&V3X5X8, reply, shift, Slot::new(own), everywhere, false);
                assert!(matches!(next, Ok(Step::Forward { .. })), "{own} {ingress}: {next:?}");
            }
        }
        // From slot 1 the narrowest director suffices.
        let arrived = label("8000000000000001");
        let least = V3X5X8.encode_least(Slot::new(3)).unwrap();
        assert_eq!(
            arrived.reverse_at_endpoint(4, &V3X5X8, Slot::new(3)),
            arrived.reverse(4, Some(least))
        );
    }

    /// wire.md: W1.3-4.
    #[test]
    fn a_return_path_is_the_same_written_or_computed() {
        let before = label("8000000000000001");
        let Ok(Step::Arrive { written: Some((after, shift)) }) = stepped(before, 4, 0) else {
            panic!("it arrives");
        };
        let ingress = V3X5X8.encode_least(Slot::new(0)).unwrap();
        assert_eq!(after.reverse(shift, None), Ok(label("13")));
        assert_eq!(before.reverse(4, Some(ingress)), Ok(label("13")));
    }

    /// wire.md: W1.3-13, W1.4-7.
    #[test]
    fn a_missing_return_path_is_an_error() {
        assert_eq!(label("15").reverse(0, None), Err(LabelError::Zero));
        assert_eq!(label("15").reverse(64, None), Err(LabelError::ShiftTooLarge));
        assert_eq!(label("2").reverse(63, None), Err(LabelError::TooLong));
        let ingress = V3X5X8.encode_least(Slot::new(100)).unwrap();
        assert_eq!(label("8").reverse(61, Some(ingress)), Err(LabelError::TooLong));
    }

    /// wire.md: W1.3-6, W1.3-7.
    #[test]
    fn a_label_from_an_endpoint_has_the_end_of_its_return_path() {
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

    /// wire.md: W1.5-2.
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

    /// wire.md: W1.4-6.
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

    /// wire.md: W1.4-6.
    #[test]
    fn schemes_may_differ_on_the_way() {
        let hop = |scheme, egress, ingress| Hop {
            scheme,
            egress: Slot::new(egress),
            ingress: Slot::new(ingress),
        };
        let hops = [hop(&V3X5X8, 2, 1), hop(&F8, 7, 9), hop(&V4X8, 3, 20), hop(&F4, 1, 4)];
        let (there, back) = Label::<u64>::build(&hops).unwrap();
        // From the top bit down, the label is the marker, 3 in nine bits (v4x8), 7 in eight bits
        // (f8), and 2 in four bits (v3x5x8).
        assert_eq!(there.register(), 1 << 21 | 4 << 12 | 7 << 4 | 5);
        // From the top bit down, the label is the marker (also the director of slot 1, the first
        // hop's ingress), 9 (f8), 20 (v4x8), and 4 (f4).
        assert_eq!(back.register(), 1 << 21 | 9 << 13 | 42 << 4 | 4);
    }
}
