//! The switch header of packets that arrive and of packets that are sent.

use strowger_frame::Frame;
use strowger_wire::label::{AnyLabel, LabelError};
use strowger_wire::switch_header::{
    AnyHeader, Ecn, Flags, HEADER_BYTES_MAX, Header, HeaderError, HeaderRepr,
};
use strowger_wire::{Label, Register, Scheme, Slot, with_header, with_label};

/// The source of a packet: the label, shift and ingress slot with which the last switch delivered
/// it. The [return label](Source::return_label) is computed only if the source has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    label: AnyLabel,
    shift: u16,
    ingress: u32,
}

impl Source {
    /// The label of the return path (wire.md W1.3-17).
    pub(crate) fn return_label(&self, scheme: &Scheme) -> Result<AnyLabel, LabelError> {
        let (shift, ingress) = (self.shift, Slot::new(self.ingress));
        Ok(with_label!(self.label, label => {
            label.reverse_at_endpoint(shift, scheme, ingress)?.into()
        }))
    }

    /// The slot of the own switch by which the packet came.
    pub(crate) const fn ingress(&self) -> u32 {
        self.ingress
    }
}

/// The switch header of a packet that arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) source: Source,
    pub(crate) flags: Flags,
    pub(crate) ecn: Ecn,
    pub(crate) hops_left: u8,
    pub(crate) class: u8,
    pub(crate) flow: u16,
    /// Bytes of the header.
    pub(crate) header_bytes: usize,
    /// Bytes of the whole packet.
    pub(crate) bytes: usize,
}

impl Arrival {
    /// Reads the header. The packet is not changed.
    #[inline]
    pub(crate) fn read(frame: &mut Frame) -> Result<Arrival, HeaderError> {
        let (ingress, bytes) = (frame.mark().0, frame.len());
        let header = AnyHeader::parse(frame.bytes_mut())?;
        Ok(with_header!(header, header => Arrival::of(&header, ingress, bytes)))
    }

    #[inline]
    fn of<R: Register>(header: &Header<'_, R>, ingress: u32, bytes: usize) -> Arrival
    where
        AnyLabel: From<Label<R>>,
    {
        let source = Source { label: header.label().into(), shift: header.shift(), ingress };
        Arrival {
            source,
            flags: header.flags(),
            ecn: header.ecn(),
            hops_left: header.hops_left(),
            class: header.class(),
            flow: header.flow(),
            header_bytes: bytes - header.payload().len(),
            bytes,
        }
    }
}

/// The switch header of packets along one label, from this endpoint's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    bytes: [u8; HEADER_BYTES_MAX],
    length: u8,
}

impl Route {
    /// The header with this label and hops left; `None` if the label is too long.
    pub(crate) fn along(label: AnyLabel, hops_left: u8) -> Option<Route> {
        with_label!(label, label => {
            let (label, shift) = label.depart().ok()?;
            let mut route = Route { bytes: [0; HEADER_BYTES_MAX], length: 0 };
            let header = HeaderRepr::new(label, shift, hops_left);
            header.emit(&mut route.bytes).ok()?;
            route.length = header.wire_bytes() as u8;
            Some(route)
        })
    }

    /// Bytes of the header.
    #[inline]
    pub(crate) const fn header_bytes(&self) -> usize {
        self.length as usize
    }

    /// Writes the header to the front of a packet, which is long enough.
    #[inline]
    pub(crate) fn write(&self, packet: &mut [u8], mark: PacketMark) {
        let Some(header) = packet.get_mut(..self.header_bytes()) else { return };
        header.copy_from_slice(&self.bytes[..self.header_bytes()]);
        let PacketMark { flow, class, ecn, no_errors } = mark;
        let [high, low] = flow.to_be_bytes();
        if let [_, flags, _, class_at, _, _, flow_high, flow_low, ..] = header {
            *flags = u8::from(no_errors) << 7 | (ecn as u8) << 3;
            *class_at = class;
            *flow_high = high;
            *flow_low = low;
        }
    }
}

/// The fields of the switch header that do not depend on the path.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PacketMark {
    pub(crate) flow: u16,
    pub(crate) class: u8,
    pub(crate) ecn: Ecn,
    pub(crate) no_errors: bool,
}

impl PacketMark {
    /// The fields for this flow: class 0, no congestion mark.
    pub(crate) fn flow(flow: u16) -> PacketMark {
        PacketMark { flow, ..PacketMark::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet from slot 2 to the endpoint on slot 200 of one switch: the answer leaves by slot 2,
    /// and the director of slot 2 must have enough bits for the switch to write 200.
    #[test]
    fn the_label_of_an_answer_has_room_for_the_own_slot() {
        let scheme = Scheme::named("v3x5x8").expect("a scheme");
        for (own, ingress) in [(2, 3), (9, 2), (200, 2), (200, 9), (3, 200)] {
            let to_own = scheme.encode_least(Slot::new(own.max(ingress))).expect("it fits");
            let to_own = scheme.encode(Slot::new(own), to_own.width()).expect("it fits");
            let label = Label::new(to_own.bits() | 1 << to_own.width() | 1 << 63);
            let source = Source { label: label.into(), shift: 1, ingress };
            let answer = source.return_label(scheme).expect("an answer");
            let AnyLabel::W64(answer) = answer else { panic!("64 bits") };
            let (label, shift) = answer.depart().expect("short");
            let taken = |slot: Slot| slot.number() == ingress;
            let step =
                strowger_wire::label::step(scheme, label, shift, Slot::new(own), taken, false);
            assert!(step.is_ok(), "from {own} to {ingress}: {step:?}");
        }
    }

    #[test]
    fn a_route_writes_the_header_of_a_departing_packet() {
        let label: AnyLabel = "0000.0000.0000.0865".parse().expect("a label");
        let route = Route::along(label, 17).expect("short");
        let mut packet = [0xff; 20];
        let mark = PacketMark { flow: 0x1234, class: 7, ecn: Ecn::Capable0, no_errors: true };
        route.write(&mut packet, mark);
        let AnyHeader::W64(header) = AnyHeader::parse(&mut packet).expect("a header") else {
            panic!("64 bits")
        };
        let read = header.to_repr();
        assert_eq!((read.hops_left, read.class, read.flow, read.shift), (17, 7, 0x1234, 1));
        assert_eq!(read.ecn, Ecn::Capable0);
        assert!(read.flags.no_errors && !read.flags.control && !read.flags.telemetry);
        assert_eq!(read.label.forward(1), "0865".parse().expect("a label"));
        assert_eq!(header.payload(), [0xff; 4]);
        let long: AnyLabel = "1fff.ffff.ffff.ffff".parse().expect("a label");
        assert_eq!(Route::along(long, 17), None);
    }
}
