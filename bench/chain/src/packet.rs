//! Packets as on the wire: link header, switch header with a label, and a payload that holds the
//! number of the flow.

use strowger_engine::{limits::HOPS_MAX, link::plain_header};
use strowger_wire::{
    Hop, Label, Scheme, Slot,
    label::LabelError,
    link_header::LINK_HEADER_BYTES,
    switch_header::{HEADER_64_BYTES, HeaderRepr},
};

/// Offset of the payload.
pub const PAYLOAD_AT: usize = LINK_HEADER_BYTES + HEADER_64_BYTES;

/// The length of the shortest packet, whose payload is one byte with the number of the flow.
pub const PACKET_BYTES_MIN: usize = PAYLOAD_AT + 1;

/// The length of the longest packet: an Ethernet frame's payload less IPv6 and UDP headers.
pub const PACKET_BYTES_MAX: usize = 1452;

/// A label through these slots. Each pair is the ingress slot and the egress slot of one switch.
/// All switches use `scheme`.
///
/// # Errors
/// [`LabelError`] if a slot cannot be encoded or the path is too long.
pub fn label(scheme: &Scheme, slots: &[(u32, u32)]) -> Result<Label, LabelError> {
    let hop = |&(ingress, egress): &(u32, u32)| Hop {
        scheme,
        ingress: Slot::new(ingress),
        egress: Slot::new(egress),
    };
    let hops: Vec<Hop<'_>> = slots.iter().map(hop).collect();
    Label::build(&hops).map(|(label, _back)| label)
}

/// Fills `bytes` with a packet: headers with this label, then the flow's number to the end.
///
/// # Panics
/// If `bytes` is shorter than [`PACKET_BYTES_MIN`].
pub fn write(bytes: &mut [u8], label: Label, flow: u8) {
    assert!(bytes.len() >= PACKET_BYTES_MIN, "a packet has buffer for its headers");
    let (link, packet) = bytes.split_at_mut(LINK_HEADER_BYTES);
    link.copy_from_slice(&plain_header(0));
    let header = HeaderRepr::new(label, 0, HOPS_MAX).emit(packet);
    header.expect("the length was checked, and no bit is used yet").fill(flow);
}

/// A packet as a vector; see [`write()`].
///
/// # Panics
/// As [`write()`].
pub fn packet(size: usize, label: Label, flow: u8) -> Vec<u8> {
    let mut bytes = vec![0; size];
    write(&mut bytes, label, flow);
    bytes
}
