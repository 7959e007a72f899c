//! Network namespaces, relays as processes, and packets built from the slots on their path.

pub mod netns;
pub mod relay;

use strowger_engine::link::plain_header;
use strowger_wire::{
    Hop, Label, Scheme, Slot,
    link_header::LINK_HEADER_BYTES,
    scheme::V3X5X8,
    switch_header::{HEADER_64_BYTES, HeaderRepr},
};

/// The number of bytes before a packet's payload: link header and 64-bit switch header.
pub const HEADERS_BYTES: usize = LINK_HEADER_BYTES + HEADER_64_BYTES;

/// The label of a packet along this path: the ingress and egress slot of each switch.
pub fn label(scheme: &Scheme, path: &[(u32, u32)]) -> Label<u64> {
    let hop =
        |&(ingress, egress)| Hop { scheme, ingress: Slot::new(ingress), egress: Slot::new(egress) };
    let hops: Vec<Hop<'_>> = path.iter().map(hop).collect();
    Label::build(&hops).expect("the hops fit into a label").0
}

/// A packet along this path: the ingress and egress slot of each switch.
pub fn packet(path: &[(u32, u32)], payload: &[u8]) -> Vec<u8> {
    packet_in(&V3X5X8, path, payload)
}

/// Like `packet`, for switches with this scheme.
pub fn packet_in(scheme: &Scheme, path: &[(u32, u32)], payload: &[u8]) -> Vec<u8> {
    let (label, shift) = label(scheme, path).depart().expect("the first hop fits");
    let mut bytes = vec![0; HEADERS_BYTES];
    bytes[..LINK_HEADER_BYTES].copy_from_slice(&plain_header(1));
    HeaderRepr::new(label, shift, 8).emit(&mut bytes[LINK_HEADER_BYTES..]).expect("room");
    bytes.extend_from_slice(payload);
    bytes
}
