//! Unix clients that connect and never read. Frames that wait for them must not use chunks or CPU
//! time that other traffic needs.

use std::net::Ipv4Addr;

use strowger_wire::switch_header::Flags;

use super::{
    Case, Half, Setup,
    node::{Node, NodeSpec, flagged},
    paced::{Flow, Paced},
    scaled,
};
use crate::{
    Failure, Options, packet,
    sockets::{address, socket},
    traffic::SINK_BUFFER_BYTES,
};

/// Bytes of each packet, and of its payload.
const BYTES: usize = 1_200;
const PAYLOAD_BYTES: usize = BYTES - packet::PAYLOAD_AT;

/// Packets per second of the innocent pair, and of the offender.
const INNOCENT_PER_S: f64 = 4_000.0;
const OFFENDER_PER_S: f64 = 20_000.0;

/// The number of packets sent to each client before the innocent pair begins: more than the kernel
/// and the egress queue hold for one client.
const TO_EACH: u64 = 1_500;

const SOURCE: u32 = 2;
const SINK: u32 = 3;
const OFFENDER: u32 = 4;
const CLIENTS: u32 = 10;

pub(super) fn cases() -> Vec<Case> {
    let names = [(1, "stalled_clients_1"), (9, "stalled_clients_9"), (40, "stalled_clients_40")];
    let case = |(clients, name)| Case {
        name,
        size: BYTES,
        offence: format!(
            "{OFFENDER_PER_S:.0} packets/s, half of them with C, to {clients} unix clients that do \
             not read, {TO_EACH} to each before the innocent pair begins; CPU time is measured when all \
             is idle"
        ),
        run,
        setup: Setup { offends: true, variant: clients },
    };
    names.into_iter().map(case).collect()
}

fn run(options: &Options, setup: &Setup) -> Result<Half, Failure> {
    let clients = setup.variant as u32;
    let mut node = Node::new(NodeSpec { workers: 1, listeners: 1, clients, identity: None })?;
    let (port, at) = node.listen(Ipv4Addr::LOCALHOST, None, false)?;
    let (source, sink, offender) = (socket(0)?, socket(SINK_BUFFER_BYTES)?, socket(0)?);
    for (end, slot) in [(&source, SOURCE), (&sink, SINK), (&offender, OFFENDER)] {
        node.neighbour(port, address(end)?, slot)?;
    }
    for end in [&source, &offender] {
        end.connect(at).map_err(Failure::kernel("connect"))?;
    }
    let (mut packets, mut stalled) = (Vec::new(), Vec::new());
    for slot in CLIENTS..CLIENTS + clients {
        stalled.push(node.client(0, slot)?);
        let label = node.label((OFFENDER, slot))?;
        for control in [true, false] {
            let flags = Flags { control, ..Flags::default() };
            packets.push(flagged(label, flags, &[1; PAYLOAD_BYTES])?);
        }
    }
    let innocent = vec![packet::packet(BYTES, node.label((SOURCE, SINK))?, 0)];
    Paced {
        options,
        node,
        innocent: Flow { socket: source, packets: innocent, per_s: INNOCENT_PER_S },
        sink,
        count: scaled(options, INNOCENT_PER_S as u64 / 2, 100),
        offender: setup.offends.then_some(Flow {
            socket: offender,
            packets,
            per_s: OFFENDER_PER_S,
        }),
        head_start: scaled(options, TO_EACH * u64::from(clients), 100),
        then_idle: true,
    }
    .run()
}
