//! [`SwitchRouting`]: makes labels from the results of lookups, and repairs labels.

use arrayvec::ArrayVec;
use strowger_crypto::Nanos;
use strowger_wire::{
    Label, Slot, U256,
    control::{Message, Reason},
    label::AnyLabel,
    switch_header::FIXED_BYTES,
    with_label,
};

use crate::{
    candidate::{Candidate, Source},
    limits::PATHS_MAX,
};

/// Finds the labels that lead to a candidate, and repairs labels. It is polled and never blocks.
pub trait SwitchRouting: Send {
    /// The paths to a candidate, best first. If the result is pending, the caller calls this method
    /// again, at the latest at [`next_timeout`](SwitchRouting::next_timeout).
    fn paths(&mut self, now: Nanos, to: &Candidate, constraints: &Constraints) -> Paths;

    /// The label to use instead of `label`, about which a switch has reported an error; `None` if
    /// no other label is known.
    ///
    /// Errors are not authenticated, so the returned label must be validated before data is sent
    /// with it.
    fn repair(&mut self, now: Nanos, label: &AnyLabel, error: &PathError) -> Option<AnyLabel>;

    /// The time at which the result of `paths` may change without another call; `None` if it
    /// cannot.
    fn next_timeout(&self) -> Option<Nanos>;
}

impl<S: SwitchRouting + ?Sized> SwitchRouting for Box<S> {
    fn paths(&mut self, now: Nanos, to: &Candidate, constraints: &Constraints) -> Paths {
        (**self).paths(now, to, constraints)
    }

    fn repair(&mut self, now: Nanos, label: &AnyLabel, error: &PathError) -> Option<AnyLabel> {
        (**self).repair(now, label, error)
    }

    fn next_timeout(&self) -> Option<Nanos> {
        (**self).next_timeout()
    }
}

/// The constraints on a path. The default is no constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Constraints {
    /// The widest label that the sender can write: 64, 128 or 256 bits.
    pub width_bits_max: u32,
    /// Bytes of the longest packet that must fit, with the switch header. A path whose MTU is
    /// unknown fulfils this constraint.
    pub packet_bytes_min: u16,
}

impl Default for Constraints {
    fn default() -> Constraints {
        Constraints { width_bits_max: 256, packet_bytes_min: 0 }
    }
}

impl Constraints {
    /// Whether a path fulfils the constraints.
    pub fn allow(&self, path: &Path) -> bool {
        path.label.width_bits() <= self.width_bits_max
            && path.mtu.is_none_or(|mtu| mtu >= self.packet_bytes_min)
    }
}

/// A label with its known properties.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Path {
    /// The label, from this node's slot.
    pub label: AnyLabel,
    /// As in [`Candidate`].
    pub cost: u32,
    /// As in [`Candidate`].
    pub mtu: Option<u16>,
    /// As in [`Candidate`].
    pub expires: Option<Nanos>,
    /// The number of switches on the path; `None` if unknown.
    pub switches: Option<u8>,
    /// As in [`Candidate`].
    pub source: Source,
}

impl Path {
    /// The path of a label to this candidate.
    pub const fn to(candidate: &Candidate, label: AnyLabel) -> Path {
        let Candidate { cost, mtu, expires, source, .. } = *candidate;
        Path { label, cost, mtu, expires, switches: None, source }
    }

    /// The field `hops_left` of packets on this path: the number of switches on the path plus 2, or
    /// 64 if this number is unknown.
    pub fn hops_left(&self) -> u8 {
        self.switches.map_or(64, |switches| switches.saturating_add(2))
    }
}

/// The result of [`SwitchRouting::paths`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// Paths that can be used now, best first.
    pub paths: ArrayVec<Path, PATHS_MAX>,
    /// Whether more paths may follow.
    pub is_pending: bool,
}

/// Uses the labels of candidates unchanged. A candidate without a label has no path.
#[derive(Clone, Copy, Debug, Default)]
pub struct GivenLabels;

impl SwitchRouting for GivenLabels {
    fn paths(&mut self, now: Nanos, to: &Candidate, constraints: &Constraints) -> Paths {
        let mut paths = Paths::default();
        if let crate::candidate::Route::Label(label) = to.route {
            let path = Path::to(to, label);
            if !to.is_expired(now) && constraints.allow(&path) {
                paths.paths.push(path);
            }
        }
        paths
    }

    fn repair(&mut self, _: Nanos, _: &AnyLabel, _: &PathError) -> Option<AnyLabel> {
        None
    }

    fn next_timeout(&self) -> Option<Nanos> {
        None
    }
}

/// An error or notice of a switch about a packet on a path (W5-7). It is not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathError {
    /// The kind of the error or notice.
    pub kind: PathErrorKind,
    /// The header of the packet, as the switch received it.
    pub offending: OffendingHeader,
}

/// The report of a switch about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathErrorKind {
    /// The packet was discarded.
    Discarded(Reason),
    /// The packet was longer than this many bytes, with the link header and without the tag.
    TooBig(u16),
    /// The packet was forwarded, but its slot number will soon cease to be valid.
    SlotMoved {
        /// The number in the label.
        from: u32,
        /// The number to use from now on.
        to: u32,
    },
    /// The packet was discarded because its slot is empty now.
    SlotGone(u32),
    /// The packet was discarded because its egress queue was full.
    Congestion,
}

impl PathError {
    /// Reads the error in a control message; `None` if the message is no error, or if its offending
    /// header is not whole.
    pub fn of(message: &Message<'_>) -> Option<PathError> {
        let (kind, offending) = match *message {
            Message::Error { why, offending } => (PathErrorKind::Discarded(why), offending),
            Message::TooBig { packet_bytes_max, offending } => {
                (PathErrorKind::TooBig(packet_bytes_max), offending)
            }
            Message::SlotMoved { from, to, offending } => {
                (PathErrorKind::SlotMoved { from, to }, offending)
            }
            Message::SlotGone { slot, offending } => (PathErrorKind::SlotGone(slot), offending),
            Message::Congestion { offending } => (PathErrorKind::Congestion, offending),
            _ => return None,
        };
        Some(PathError { kind, offending: OffendingHeader::parse(offending)? })
    }
}

/// The switch header of a packet about which a switch has sent an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffendingHeader {
    /// The label as that switch received it.
    pub label: AnyLabel,
    /// The number of label bits that the switches before that switch had used.
    pub shift: u16,
    /// The flow of the packet.
    pub flow: u16,
}

impl OffendingHeader {
    /// Reads a switch header (wire.md 2); `None` if the bytes are not exactly one.
    pub fn parse(header: &[u8]) -> Option<OffendingHeader> {
        let (fixed, label) = header.split_first_chunk::<FIXED_BYTES>()?;
        let [version_width, _, _, _, shift_high, shift_low, flow_high, flow_low] = *fixed;
        let label = AnyLabel::from_be_bytes(label)?;
        let expected = strowger_wire::switch_header::VERSION << 4 | label.width_code();
        let shift = u16::from_be_bytes([shift_high, shift_low]);
        let is_whole = version_width == expected && u32::from(shift) < label.width_bits();
        let flow = u16::from_be_bytes([flow_high, flow_low]);
        is_whole.then_some(OffendingHeader { label, shift, flow })
    }

    /// Whether the packet can have been sent from the slot `own_slot` with this label: the rest of
    /// the packet's label equals `sent` without the used directors.
    ///
    /// An endpoint sends with shift 1, and the switch itself, at slot 1, with shift 0 ([W1.3-6,
    /// W1.3-5](Label::depart)).
    pub fn was_sent_with(&self, own_slot: Slot, sent: &AnyLabel) -> bool {
        fn is_rest<R: strowger_wire::Register>(
            left: Label<R>,
            (shift, used): (u16, u16),
            sent: Label<R>,
        ) -> bool {
            // At least the end marker is left.
            let rest = Label::new(sent.register().shr(u32::from(used)));
            !rest.is_zero() && left.forward(shift) == rest
        }
        let Some(used) = self.used(own_slot) else { return false };
        let at = (self.shift, used);
        match (self.label, *sent) {
            (AnyLabel::W64(left), AnyLabel::W64(sent)) => is_rest::<u64>(left, at, sent),
            (AnyLabel::W128(left), AnyLabel::W128(sent)) => is_rest::<u128>(left, at, sent),
            (AnyLabel::W256(left), AnyLabel::W256(sent)) => is_rest::<U256>(left, at, sent),
            _ => false,
        }
    }

    /// The number of bits of the label that switches had used, if the packet was sent from
    /// `own_slot`.
    pub fn used(&self, own_slot: Slot) -> Option<u16> {
        self.shift.checked_sub(u16::from(!own_slot.is_switch()))
    }

    /// The number of bits that were left of the label, with the end marker.
    pub fn bits_left(&self) -> u32 {
        with_label!(self.label, label => label.forward(self.shift).bits())
    }
}

#[cfg(test)]
mod tests {
    use strowger_wire::{
        Hop,
        label::{Step, step},
        scheme::V3X5X8,
        switch_header::{HEADER_BYTES_MAX, HeaderRepr},
    };

    use super::*;

    /// The label after each hop of a real path matches the label that was sent, and does not match
    /// another label.
    #[test]
    fn an_offending_header_matches_the_label_that_was_sent() {
        fn along<R: strowger_wire::Register>()
        where
            AnyLabel: From<Label<R>>,
        {
            let hop = |ingress, egress| Hop {
                scheme: &V3X5X8,
                ingress: Slot::new(ingress),
                egress: Slot::new(egress),
            };
            let hops = [hop(4, 2), hop(9, 3), hop(2, 200), hop(7, 5)];
            let (sent, _) = Label::<R>::build(&hops).unwrap();
            let (other, _) = Label::<R>::build(&hops[1..]).unwrap();
            for (own_slot, start) in
                [(Slot::SWITCH, (sent, 0)), (Slot::new(4), sent.depart().unwrap())]
            {
                let (mut label, mut shift) = start;
                for hop in hops {
                    let mut bytes = [0; HEADER_BYTES_MAX];
                    let header = HeaderRepr { flow: 7, ..HeaderRepr::new(label, shift, 9) };
                    let left = header.emit(&mut bytes).unwrap().len();
                    let bytes = &bytes[..HEADER_BYTES_MAX - left];
                    let message = Message::Congestion { offending: bytes };
                    let error = PathError::of(&message).unwrap();
                    assert_eq!((error.kind, error.offending.flow), (PathErrorKind::Congestion, 7));
                    assert!(error.offending.was_sent_with(own_slot, &sent.into()));
                    assert!(!error.offending.was_sent_with(own_slot, &other.into()));
                    let used = error.offending.used(own_slot).unwrap();
                    assert_eq!(error.offending.bits_left(), sent.bits() - u32::from(used));
                    let elsewhere = if own_slot.is_switch() { Slot::new(4) } else { Slot::SWITCH };
                    assert!(!error.offending.was_sent_with(elsewhere, &sent.into()));
                    for cut in 0..bytes.len() {
                        assert_eq!(OffendingHeader::parse(&bytes[..cut]), None);
                    }
                    match step(&V3X5X8, label, shift, hop.ingress, |_| true, false).unwrap() {
                        Step::Forward { label: next, shift: used, .. } => {
                            (label, shift) = (next, used);
                        }
                        Step::Arrive { .. } => panic!("the path has four hops"),
                    }
                }
            }
        }
        along::<u64>();
        along::<u128>();
        along::<U256>();
        let narrow = OffendingHeader { label: Label::<u64>::here().into(), shift: 0, flow: 0 };
        assert!(!narrow.was_sent_with(Slot::SWITCH, &Label::<u128>::here().into()));
        assert!(narrow.was_sent_with(Slot::SWITCH, &Label::<u64>::here().into()));
    }
}
