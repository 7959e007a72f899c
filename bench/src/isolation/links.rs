//! Cases with a sealed link between two switches, while an offender floods slot 1 or forges
//! responses and cookie replies. Everything runs on one thread in steps of virtual time over real
//! UDP sockets. So minutes of virtual time take seconds, and the counts do not depend on the
//! scheduler.
//!
//! ```text
//! source --> peer ===== observer ===== relay --> sink
//!                                      relay <-- flood
//! ```
//! The observer is on the path: it forwards every datagram and reads the session indices, which are
//! not encrypted. It forges messages with the source addresses that the ends expect.

use std::{
    collections::VecDeque,
    io::IoSlice,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use strowger_engine::{
    Now,
    control::{Event, peering::Liveness},
};
use strowger_wire::{
    Label,
    link_header::{Kind, LINK_HEADER_BYTES, LinkHeader},
    switch_header::Flags,
};

use super::{
    Case, Half, Setup, drops,
    node::{Node, NodeSpec, drain, flagged},
};
use crate::{
    Failure, Options, packet,
    sockets::{address, socket},
    traffic::SINK_BUFFER_BYTES,
};

/// Bytes of each packet as the source sends it.
const BYTES: usize = 100;

const PEER: u8 = 21;
const RELAY: u8 = 22;

/// The slot of the sealed link at both ends. `END` is the slot of the source at the peer and of the
/// sink at the relay, and `FLOOD` is the slot of the flooding neighbour at the relay.
const LINK: u32 = 2;
const END: u32 = 3;
const FLOOD: u32 = 4;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// Maximum number of steps in which the link must come up before counting begins.
const UP_STEPS_MAX: u64 = 5_000;

/// The number of requests per flood, in trains of 64: twice the capacity of the punt queue. There
/// are two floods per poll of the slow path.
const REQUESTS: usize = 512;
const REQUESTS_PER_TRAIN: usize = 64;

/// A length of responses that passes the length check. `COOKIE_BYTES` is the length of a cookie
/// reply.
const RESPONSE_BYTES: usize = 300;
const COOKIE_BYTES: usize = 64;

/// Latency of a datagram between the two ends of the link.
const DELAY_NS: u64 = 20 * MS;

/// Liveness parameters with which a dead link is detected quickly.
const FAST_LIVENESS: Liveness =
    Liveness::new(std::time::Duration::from_nanos(100 * MS)).with_always(true);

/// The parameters of a run with an attack on the link.
#[derive(Clone, Copy)]
struct Attack {
    /// Virtual time of one step. `run_ns` is the virtual time of the run, and `up_first` says
    /// whether the link is up before the run.
    step_ns: u64,
    run_ns: u64,
    up_first: bool,
    /// The number of steps between two innocent packets.
    steps_per_packet: u64,
    requests: usize,
    /// The number of forged messages per step for each session index that the observer knows.
    /// `long` says whether they have the right length.
    forged: u64,
    long: bool,
    liveness: Liveness,
}

const SLOT_1: usize = 0;
const COMING_UP: usize = 1;
const RUNNING: usize = 2;
/// Variants with forged messages of the right length.
const LONG_COMING_UP: usize = 3;
const LONG_RUNNING: usize = 4;

fn attack(variant: usize) -> Attack {
    let liveness = Liveness::new(std::time::Duration::from_nanos(5 * SECOND));
    match variant {
        SLOT_1 => Attack {
            step_ns: MS,
            run_ns: 5 * SECOND,
            up_first: true,
            steps_per_packet: 1,
            requests: REQUESTS,
            forged: 0,
            long: false,
            liveness: FAST_LIVENESS,
        },
        COMING_UP | LONG_COMING_UP => Attack {
            step_ns: MS,
            run_ns: 10 * SECOND,
            up_first: false,
            steps_per_packet: 10,
            requests: 0,
            forged: 10,
            long: variant == LONG_COMING_UP,
            liveness,
        },
        // The run is longer than the lifetime of a key.
        _ => Attack {
            step_ns: 4 * MS,
            run_ns: 300 * SECOND,
            up_first: true,
            steps_per_packet: 5,
            requests: 0,
            forged: 4,
            long: variant == LONG_RUNNING,
            liveness,
        },
    }
}

pub(super) fn cases() -> Vec<Case> {
    let case = |name, offence: String, variant| Case {
        name,
        size: BYTES,
        offence,
        run,
        setup: Setup { offends: true, variant },
    };
    let forged = |variant, when: &str| {
        let Attack { forged, step_ns, run_ns, long, .. } = attack(variant);
        let length = if long { "the right length" } else { "8 bytes" };
        format!(
            "{} forged responses and cookies/s of {length} to each end, to the indices that are \
             visible, {when}, {} s of virtual time",
            forged * SECOND / step_ns,
            run_ns / SECOND
        )
    };
    let flood = format!(
        "{} requests to slot 1 for each poll of the slow path, by a neighbour with the \
         right control; the innocent link has {} ms to detect a dead peer, {} s of virtual time",
        2 * REQUESTS,
        FAST_LIVENESS.detection().as_millis() as u64,
        attack(SLOT_1).run_ns / SECOND
    );
    vec![
        case("slot_1_flood", flood, SLOT_1),
        case("junk_answers_coming_up", forged(COMING_UP, "from the first handshake on"), COMING_UP),
        case("junk_answers_running", forged(RUNNING, "until after a rekey"), RUNNING),
        case(
            "forged_answers_coming_up",
            forged(LONG_COMING_UP, "from the first handshake on"),
            LONG_COMING_UP,
        ),
        case("forged_answers_running", forged(LONG_RUNNING, "until after a rekey"), LONG_RUNNING),
    ]
}

fn run(options: &Options, setup: &Setup) -> Result<Half, Failure> {
    let attack = attack(setup.variant);
    let mut link = Link::new(attack)?;
    if attack.up_first {
        link.come_up()?;
    }
    let (mut sent, mut offender_sent) = (0, 0);

    let part = (options.seconds_per_run / 0.5).min(1.0);
    let steps = ((attack.run_ns / attack.step_ns) as f64 * part) as u64;
    link.offends = setup.offends;
    for step in 0..steps.max(500) {
        if step % attack.steps_per_packet == 0 {
            sent += u64::from(link.source.send(&link.packet).is_ok());
        }
        offender_sent += link.step()?;
    }
    link.offends = false;
    for _ in 0..2 * DELAY_NS / attack.step_ns {
        link.step()?;
    }
    let drops = drops(&link.relay.balance());
    Ok(Half {
        offered: sent,
        delivered: link.delivered,
        offender: offender_sent,
        drops,
        link_downs: Some(link.downs),
        ..Half::default()
    })
}

/// Both ends of the link, the observer, and the programs around them.
struct Link {
    attack: Attack,
    now: Now,
    peer: Node,
    relay: Node,
    observer: Observer,
    source: UdpSocket,
    sink: UdpSocket,
    flood: UdpSocket,
    packet: Vec<u8>,
    requests: Vec<u8>,
    request_bytes: usize,
    /// Whether the offender is active.
    offends: bool,
    delivered: u64,
    downs: u64,
}

impl Link {
    fn new(attack: Attack) -> Result<Self, Failure> {
        let node = |number| {
            let spec = NodeSpec { workers: 1, listeners: 1, clients: 0, identity: Some(number) };
            Node::new(spec)
        };
        let (mut peer, mut relay) = (node(PEER)?, node(RELAY)?);
        let (peer_port, peer_at) = peer.listen(Ipv4Addr::LOCALHOST, None, true)?;
        let (relay_port, relay_at) = relay.listen(Ipv4Addr::LOCALHOST, None, true)?;
        let observer = Observer::new(peer_at, relay_at)?;
        let (source, sink, flood) = (socket(0)?, socket(SINK_BUFFER_BYTES)?, socket(0)?);
        let at = Some(address(&observer.as_relay)?);
        peer.peer(peer_port, at, LINK, RELAY, attack.liveness)?;
        relay.peer(relay_port, None, LINK, PEER, attack.liveness)?;
        peer.neighbour(peer_port, address(&source)?, END)?;
        relay.neighbour(relay_port, address(&sink)?, END)?;
        relay.neighbour(relay_port, address(&flood)?, FLOOD)?;
        source.connect(peer_at).map_err(Failure::kernel("connect"))?;
        flood.connect(relay_at).map_err(Failure::kernel("connect"))?;
        let scheme = peer.switch.config().scheme();
        let label = packet::label(scheme, &[(END, LINK), (LINK, END)])?;
        let packet = packet::packet(BYTES, label, 0);
        // A ping (wire.md 5) with its id and a payload.
        let control = Flags { control: true, ..Flags::default() };
        let request = flagged(Label::here(), control, &[1, 1, 0, 0, 0, 0, 0, 9].repeat(5))?;
        let (request_bytes, requests) = (request.len(), request.repeat(REQUESTS_PER_TRAIN));
        Ok(Self {
            attack,
            now: Now(2),
            peer,
            relay,
            observer,
            source,
            sink,
            flood,
            packet,
            requests,
            request_bytes,
            offends: false,
            delivered: 0,
            downs: 0,
        })
    }

    fn come_up(&mut self) -> Result<(), Failure> {
        for _ in 0..UP_STEPS_MAX {
            self.step()?;
            if self.is_up() {
                return Ok(());
            }
        }
        Err(Failure::Wrong("no sealed link came up".to_owned()))
    }

    /// Whether both ends consider the link up.
    fn is_up(&self) -> bool {
        let peers = [&self.peer, &self.relay].map(|node| node.switch.peers());
        peers.iter().flatten().all(|peer| peer.is_up())
    }

    /// One step of virtual time: polls the workers until no datagram moves, and the slow paths
    /// once. Returns the number of packets that the offender sent; it floods both before and after
    /// the poll of the slow paths.
    fn step(&mut self) -> Result<u64, Failure> {
        self.now.0 += self.attack.step_ns;
        let mut offender_sent = 0;
        if self.offends {
            offender_sent += self.forge(self.attack.forged)? + self.flood(self.attack.requests)?;
        }
        self.deliver()?;
        for node in [&mut self.peer, &mut self.relay] {
            let events = node.switch.poll(self.now);
            let downs = events.iter().filter(|event| matches!(event, Event::LinkDown(_)));
            self.downs += downs.count() as u64;
        }
        if self.offends {
            offender_sent += self.flood(self.attack.requests)?;
        }
        self.deliver()?;
        // Packets are not counted while an end considers the link down, because no path uses such a
        // link.
        let arrived = drain(&self.sink);
        if self.is_up() {
            self.delivered += arrived;
        }
        drain(&self.source);
        drain(&self.flood);
        Ok(offender_sent)
    }

    fn deliver(&mut self) -> Result<(), Failure> {
        loop {
            let mut moved = self.observer.deliver(self.now)?;
            for node in [&mut self.peer, &mut self.relay] {
                moved += node.poll_workers(self.now);
            }
            if moved == 0 {
                return Ok(());
            }
        }
    }

    /// Sends `count` requests to the relay's slot 1.
    fn flood(&self, count: usize) -> Result<u64, Failure> {
        let bytes = self.request_bytes as u16;
        for _ in 0..count / REQUESTS_PER_TRAIN {
            let (vectors, segment) =
                ([IoSlice::new(&self.requests)], [ControlMessage::UdpGsoSegments(&bytes)]);
            let fd = self.flood.as_raw_fd();
            sendmsg::<()>(fd, &vectors, &segment, MsgFlags::empty(), None)
                .map_err(Failure::kernel("UDP_SEGMENT"))?;
        }
        Ok(count as u64)
    }

    /// Sends responses and cookie replies in which only the visible index is right: `each` messages
    /// for each known index of each end.
    fn forge(&self, each: u64) -> Result<u64, Failure> {
        let mut sent = 0;
        for (socket, to, indices) in self.observer.ends() {
            let known = indices.iter().flatten();
            for number in 0..each {
                for index in known.clone() {
                    let (kind, length) =
                        if number % 2 == 0 { (2, RESPONSE_BYTES) } else { (3, COOKIE_BYTES) };
                    let mut message = [0xa5; RESPONSE_BYTES];
                    message[0] = kind << 4;
                    message[1..4].copy_from_slice(index);
                    let length = if self.attack.long { length } else { LINK_HEADER_BYTES };
                    socket
                        .send_to(&message[..length], to)
                        .map_err(Failure::kernel("a forged answer"))?;
                    sent += 1;
                }
            }
        }
        Ok(sent)
    }
}

/// A session index as in a link header.
type Index = [u8; 3];

/// Forwards between both ends, and reads only what any node on the path can read.
struct Observer {
    /// The socket that acts as the relay towards the peer, and the peer's address.
    as_relay: UdpSocket,
    peer: SocketAddrV4,
    /// The socket that acts as the peer towards the relay, and the relay's address.
    as_peer: UdpSocket,
    relay: SocketAddrV4,
    /// Datagrams in flight: the time at which each is due, its bytes, and the end that receives it.
    in_flight: VecDeque<(Now, Vec<u8>, End)>,
    /// Indices of each end: of its last attempt, and of the session on which it receives data.
    peers: [Option<Index>; 2],
    relays: [Option<Index>; 2],
}

impl Observer {
    fn new(peer: SocketAddrV4, relay: SocketAddrV4) -> Result<Self, Failure> {
        let (as_relay, as_peer) = (socket(SINK_BUFFER_BYTES)?, socket(SINK_BUFFER_BYTES)?);
        let (peers, relays) = ([None; 2], [None; 2]);
        Ok(Self { as_relay, peer, as_peer, relay, in_flight: VecDeque::new(), peers, relays })
    }

    /// Receives datagrams and forwards those that are due; returns the number received plus the
    /// number forwarded.
    fn deliver(&mut self, now: Now) -> Result<usize, Failure> {
        let due = Now(now.0 + DELAY_NS);
        let mut buffer = [0; 2_048];
        let mut moved = 0;
        for to in [End::Relay, End::Peer] {
            let (from, sender, receiver) = match to {
                End::Relay => (&self.as_relay, &mut self.peers, &mut self.relays),
                End::Peer => (&self.as_peer, &mut self.relays, &mut self.peers),
            };
            while let Ok(length) = from.recv(&mut buffer) {
                let message = &buffer[..length];
                match LinkHeader::parse(message).map(|header| header.kind) {
                    Ok(Kind::Initiation) => sender[0] = Some([message[5], message[6], message[7]]),
                    Ok(_) => receiver[1] = Some([message[1], message[2], message[3]]),
                    Err(_) => {}
                }
                self.in_flight.push_back((due, message.to_vec(), to));
                moved += 1;
            }
        }
        while self.in_flight.front().is_some_and(|(due, ..)| *due <= now) {
            let Some((_, message, to)) = self.in_flight.pop_front() else { break };
            let (by, to) = match to {
                End::Relay => (&self.as_peer, self.relay),
                End::Peer => (&self.as_relay, self.peer),
            };
            by.send_to(&message, to).map_err(Failure::kernel("forwarding"))?;
            moved += 1;
        }
        Ok(moved)
    }

    /// For each end: the socket that sends to it, its address, and its indices.
    fn ends(&self) -> [(&UdpSocket, SocketAddrV4, &[Option<Index>; 2]); 2] {
        [(&self.as_relay, self.peer, &self.peers), (&self.as_peer, self.relay, &self.relays)]
    }
}

/// The destination of a datagram.
#[derive(Clone, Copy)]
enum End {
    Peer,
    Relay,
}
