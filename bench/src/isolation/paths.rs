//! Dead next hops and a slow interface: frames that the kernel cannot send stay charged to the
//! socket that sent them.

use std::net::{Ipv4Addr, SocketAddr};

use super::{
    Case, Half, Setup,
    network::{DEAD_SIDE, SLOW, dead, in_namespace},
    node::{Node, NodeSpec},
    paced::{Flow, Paced},
    scaled,
};
use crate::{
    Failure, Options, packet,
    sockets::{address, socket},
    traffic::SINK_BUFFER_BYTES,
};

/// Bytes of each packet.
const BYTES: usize = 1_200;

/// The default of `net.core.wmem_max`.
const STOCK_BUFFER_BYTES: usize = 212_992;

/// Packets per second of the innocent pair and of the offender. If both share a small receive
/// buffer, both must be slow, because the buffer must hold all packets that arrive while the worker
/// is not scheduled.
const INNOCENT_PER_S: f64 = 1_000.0;
const TO_DEAD_PER_S: f64 = 500.0;
/// The rate in the cases in which the listener that receives has a large receive buffer.
const TO_DEAD_ELSEWHERE_PER_S: f64 = 4_000.0;
const TO_SLOW_PER_S: f64 = 10_000.0;

/// Packets of the offender before the innocent pair begins: more than the send buffer holds.
const HEAD_START_TO_DEAD: u64 = 500;
const HEAD_START_TO_DEAD_ELSEWHERE: u64 = 4_000;
const HEAD_START_TO_SLOW: u64 = 8_000;

/// The number of dead next hops: fewer than a listener has send sockets, and in
/// `dead_next_hops_many` more.
const DEAD_HOPS: u8 = 3;
const MANY_DEAD_HOPS: u8 = 48;
const PORT: u16 = 7_000;

/// The slot of the source. `SINK` and `OFFENDER` are the slots of the sink and the offender, and
/// `BEHIND` is the first slot of the dead or slow neighbours.
const SOURCE: u32 = 2;
const SINK: u32 = 3;
const OFFENDER: u32 = 4;
const BEHIND: u32 = 10;

/// The variants.
const SAME: usize = 0;
const OTHER: usize = 1;
const MANY: usize = 2;
const SLOW_PATH: usize = 3;

pub(super) fn cases() -> Vec<Case> {
    let case = |name, offence: String, variant| Case {
        name,
        size: BYTES,
        offence,
        run,
        setup: Setup { offends: true, variant },
    };
    let dead = |hops, listener, per_s| {
        format!(
            "{per_s:.0} packets/s to {hops} neighbours that do not answer ARP, by \
             {listener} with socket buffers of {STOCK_BUFFER_BYTES} bytes"
        )
    };
    let slow = format!(
        "{TO_SLOW_PER_S:.0} packets/s to a neighbour behind 10 Mbit/s with a deep queue, by the \
         same listener"
    );
    vec![
        case(
            "dead_next_hops_same_listener",
            dead(DEAD_HOPS, "the same listener", TO_DEAD_PER_S),
            SAME,
        ),
        case(
            "dead_next_hops_other_listener",
            dead(DEAD_HOPS, "another listener", TO_DEAD_ELSEWHERE_PER_S),
            OTHER,
        ),
        case(
            "dead_next_hops_many",
            dead(MANY_DEAD_HOPS, "both listeners, one", TO_DEAD_ELSEWHERE_PER_S),
            MANY,
        ),
        case("slow_interface", slow, SLOW_PATH),
    ]
}

fn run(options: &Options, setup: &Setup) -> Result<Half, Failure> {
    in_namespace(|| half(options, *setup))
}

fn half(options: &Options, setup: Setup) -> Result<Half, Failure> {
    let stock = Some(STOCK_BUFFER_BYTES);
    let (per_s, head_start, near_buffer, far_buffer) = match setup.variant {
        SLOW_PATH => (TO_SLOW_PER_S, HEAD_START_TO_SLOW, None, None),
        OTHER | MANY => (TO_DEAD_ELSEWHERE_PER_S, HEAD_START_TO_DEAD_ELSEWHERE, None, stock),
        _ => (TO_DEAD_PER_S, HEAD_START_TO_DEAD, stock, stock),
    };
    let spec = NodeSpec { workers: 1, listeners: 2, ..NodeSpec::default() };
    let mut node = Node::new(spec)?;
    let (near, at) = node.listen(Ipv4Addr::UNSPECIFIED, near_buffer, false)?;
    let (far, _) = node.listen(DEAD_SIDE, far_buffer, false)?;
    let relay = SocketAddr::from((Ipv4Addr::LOCALHOST, at.port()));
    let (source, sink, offender) = (socket(0)?, socket(SINK_BUFFER_BYTES)?, socket(0)?);
    for (end, slot) in [(&source, SOURCE), (&sink, SINK), (&offender, OFFENDER)] {
        node.neighbour(near, address(end)?, slot)?;
    }
    for end in [&source, &offender] {
        end.connect(relay).map_err(Failure::kernel("connect"))?;
    }
    let behind = match setup.variant {
        SLOW_PATH => vec![SLOW],
        MANY => (0..MANY_DEAD_HOPS).map(dead).collect(),
        _ => (0..DEAD_HOPS).map(dead).collect(),
    };
    // If there are many dead next hops, every second one is reached through the innocent pair's
    // listener.
    let listener_of = |slot: u32| match setup.variant {
        OTHER => far,
        MANY if slot % 2 == 1 => far,
        _ => near,
    };
    let mut packets = Vec::new();
    for (slot, at) in (BEHIND..).zip(behind) {
        node.neighbour(listener_of(slot), (at, PORT), slot)?;
        packets.push(packet::packet(BYTES, node.label((OFFENDER, slot))?, 1));
    }
    let innocent = vec![packet::packet(BYTES, node.label((SOURCE, SINK))?, 0)];
    Paced {
        options,
        node,
        innocent: Flow { socket: source, packets: innocent, per_s: INNOCENT_PER_S },
        sink,
        count: scaled(options, 1_000, 100),
        offender: setup.offends.then_some(Flow { socket: offender, packets, per_s }),
        head_start: scaled(options, head_start, 50),
        then_idle: false,
    }
    .run()
}
