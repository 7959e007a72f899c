//! What the process tests share: waiting for something to come true, and a packet by its way. It never
//! sleeps.

pub(crate) mod homes;
pub(crate) mod wires;

use std::{
    thread,
    time::{Duration, Instant},
};

use strowger_engine::link::plain_header;
use strowger_wire::{
    Hop, Label, Scheme, Slot,
    link_header::LINK_HEADER_BYTES,
    scheme::V3X5X8,
    switch_header::{HEADER_64_BYTES, HeaderRepr},
};

/// How long anything may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// Asks again and again until there is an answer.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::yield_now();
    }
}

/// A packet that comes in and leaves by these slots, switch by switch.
pub(crate) fn packet(way: &[(u32, u32)], payload: &[u8]) -> Vec<u8> {
    packet_in(&V3X5X8, way, payload)
}

/// The same where all switches number by this scheme.
pub(crate) fn packet_in(scheme: &Scheme, way: &[(u32, u32)], payload: &[u8]) -> Vec<u8> {
    let hop =
        |&(ingress, egress)| Hop { scheme, ingress: Slot::new(ingress), egress: Slot::new(egress) };
    let way: Vec<Hop<'_>> = way.iter().map(hop).collect();
    let (label, _) = Label::<u64>::build(&way).expect("it fits");
    let (label, shift) = label.depart().expect("it fits");
    let mut bytes = vec![0; LINK_HEADER_BYTES + HEADER_64_BYTES];
    bytes[..LINK_HEADER_BYTES].copy_from_slice(&plain_header(1));
    HeaderRepr::new(label, shift, 8).emit(&mut bytes[LINK_HEADER_BYTES..]).expect("room");
    bytes.extend_from_slice(payload);
    bytes
}
