//! Two and more endpoints on the slots of one switch, in virtual time.

mod abuse;
mod basic;
mod bounds;
mod reports;
mod rules;

use std::collections::VecDeque;
use std::sync::Arc;

use strowger_crypto::{IdentityKey, Nanos, NetworkId, PeerId, Secret, SeededEntropy};
use strowger_frame::{ChunkClass, Frame, Mark, Pool, PoolSpec};
use strowger_routing::{NoRouting, PeerRouting};
use strowger_wire::label::AnyLabel;
use strowger_wire::switch_header::AnyHeader;
use strowger_wire::{Label, Scheme, Slot, with_header};

use crate::*;

/// The network of the tests.
pub(super) const NETWORK: &[u8] = b"test";

/// A packet in flight.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) at: Nanos,
    pub(super) from: u32,
    pub(super) bytes: Vec<u8>,
}

/// A message that a node has received.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) to: MessageTo,
    pub(super) message: Vec<u8>,
    pub(super) info: String,
}

/// A node on a slot of the switch.
pub(super) struct Node {
    pub(super) key: IdentityKey,
    pub(super) endpoint: Endpoint,
    pub(super) slot: u32,
    pub(super) events: Vec<Event>,
    pub(super) got: Vec<Got>,
    /// Packets that this node sent.
    pub(super) sent: u64,
}

/// Nodes on the slots of one switch.
pub(super) struct Net {
    pub(super) now: Nanos,
    pub(super) nodes: Vec<Node>,
    pub(super) flying: VecDeque<Packet>,
    pub(super) delay: Nanos,
    pool: Pool,
    /// Decides which packets are lost.
    pub(super) is_lost: Box<dyn FnMut(&Packet) -> bool>,
    /// Every packet that was sent.
    pub(super) capture: Vec<Packet>,
}

pub(super) fn key(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&Secret::from_bytes([seed; 32]))
}

pub(super) fn scheme() -> Scheme {
    *Scheme::named("v3x5x8").expect("a scheme")
}

/// The label of one hop to a slot.
pub(super) fn label_to(slot: u32) -> AnyLabel {
    let director = scheme().encode_least(Slot::new(slot)).expect("it fits");
    AnyLabel::W64(Label::new(director.bits() | 1 << director.width()))
}

pub(super) fn config(seed: u8) -> EndpointConfig {
    EndpointConfig::new(&key(seed), NetworkId::new(NETWORK).expect("short"), scheme())
        .wall_at_zero(1_700_000_000_000_000_000)
}

pub(super) fn names<const N: usize>(names: [&str; N]) -> ProtocolNames {
    ProtocolNames::new(names).expect("names")
}

impl Net {
    /// A net whose packets take `delay_ms`, with nodes on slots 2, 3, ...
    pub(super) fn new(nodes: usize, delay_ms: u64) -> Net {
        let mut net = Net {
            now: Nanos::from_secs(100),
            nodes: Vec::new(),
            flying: VecDeque::new(),
            delay: Nanos::from_millis(delay_ms),
            pool: Pool::new(&PoolSpec { trains: 0, singles: 256, huge_pages: false })
                .expect("memory"),
            is_lost: Box::new(|_| false),
            capture: Vec::new(),
        };
        for node in 0..nodes {
            let seed = node as u8 + 1;
            net.add(seed, config(seed), Arc::new(Anyone), Box::new(NoRouting::default()));
        }
        net
    }

    pub(super) fn add(
        &mut self,
        seed: u8,
        config: EndpointConfig,
        policy: Arc<dyn Policy>,
        routing: Box<dyn PeerRouting>,
    ) {
        let entropy = Box::new(SeededEntropy::new(u64::from(seed) << 8 | self.nodes.len() as u64));
        let endpoint =
            Endpoint::new(config, routing, policy, entropy, self.now).expect("an endpoint");
        let slot = self.nodes.len() as u32 + 2;
        let node =
            Node { key: key(seed), endpoint, slot, events: Vec::new(), got: Vec::new(), sent: 0 };
        self.nodes.push(node);
    }

    /// Replaces a node with a restarted one.
    pub(super) fn restart(&mut self, node: usize, config: EndpointConfig) {
        let seed = 1_000 + self.now.0;
        let entropy = Box::new(SeededEntropy::new(seed));
        let (routing, policy) = (Box::new(NoRouting::default()), Arc::new(Anyone));
        let endpoint =
            Endpoint::new(config, routing, policy, entropy, self.now).expect("an endpoint");
        self.nodes[node].endpoint = endpoint;
    }

    pub(super) fn peer(&self, node: usize) -> PeerId {
        self.nodes[node].key.public().peer_id()
    }

    pub(super) fn frame(&mut self, bytes: &[u8]) -> Frame {
        let chunk = self.pool.take(ChunkClass::Single).expect("free");
        let mut frame = chunk.into_frame(128, bytes.len());
        frame.bytes_mut().copy_from_slice(bytes);
        frame
    }

    /// A destination with the label of a node.
    pub(super) fn destination(&self, node: usize) -> Destination {
        Destination::from(self.peer(node)).label(label_to(self.nodes[node].slot))
    }

    /// A destination with label and certificate of a node.
    pub(super) fn destination_by_key(&self, node: usize) -> Destination {
        let network = NetworkId::new(NETWORK).expect("short");
        let certificate = self.nodes[node].key.certify_connection_key(1, &network);
        Destination::from(self.peer(node))
            .label_with_key(label_to(self.nodes[node].slot), certificate)
    }

    pub(super) fn connect(&mut self, from: usize, to: usize, name: &str) -> SocketId {
        let to = self.destination(to);
        let options = ConnectOptions::new();
        let socket = self.nodes[from].endpoint.connect(self.now, to, names([name]), options);
        self.drive(from);
        socket.expect("a socket")
    }

    pub(super) fn listen(&mut self, node: usize, name: &str) -> ListenerId {
        let options = ListenOptions::new();
        let listener = self.nodes[node].endpoint.listen(self.now, names([name]), options);
        self.drive(node);
        listener.expect("a listener")
    }

    /// Sends a message.
    pub(super) fn send(&mut self, node: usize, socket: SocketId, message: &[u8]) {
        self.try_send(node, socket, message).expect("sent");
    }

    pub(super) fn try_send(
        &mut self,
        node: usize,
        socket: SocketId,
        message: &[u8],
    ) -> Result<(), SendRefused> {
        let frame = self.frame(message);
        let sent = self.nodes[node].endpoint.send(self.now, socket, frame);
        let sent = sent.map_err(|(why, _)| why)?;
        self.launch(node, sent);
        self.drive(node);
        Ok(())
    }

    pub(super) fn launch(&mut self, node: usize, sent: Sent) {
        if let Sent::Packet(frame) = sent {
            self.fly(node, frame.bytes().to_vec());
        }
    }

    fn fly(&mut self, node: usize, bytes: Vec<u8>) {
        let from = self.nodes[node].slot;
        self.nodes[node].sent += 1;
        let packet = Packet { at: self.now.plus(self.delay), from, bytes };
        self.capture.push(packet.clone());
        if !(self.is_lost)(&packet) {
            self.flying.push_back(packet);
        }
    }

    /// Polls a node as a driver does after each call.
    pub(super) fn drive(&mut self, node: usize) {
        for _ in 0..100 {
            let Node { endpoint, events, .. } = &mut self.nodes[node];
            endpoint.poll(self.now);
            events.extend(std::iter::from_fn(|| endpoint.poll_event()));
            let endpoint = &mut self.nodes[node].endpoint;
            let mut packets = Vec::new();
            while let Some(packet) = endpoint.poll_transmit(self.now) {
                packets.push(packet.to_vec());
            }
            let is_done =
                packets.is_empty() && endpoint.next_timeout().is_none_or(|due| due > self.now);
            packets.into_iter().for_each(|packet| self.fly(node, packet));
            if is_done {
                return;
            }
        }
        panic!("node {node} has work at the same time for ever");
    }

    /// Delivers a packet to the node whose slot its label names.
    pub(super) fn deliver(&mut self, packet: &Packet) {
        let mut bytes = packet.bytes.clone();
        let header = AnyHeader::parse(&mut bytes).expect("a header");
        let director = with_header!(header, header => header.label().decode(&scheme()));
        let slot = director.expect("a director").slot().number();
        let Some(node) = self.nodes.iter().position(|node| node.slot == slot) else { return };
        let mut frame = self.frame(&packet.bytes);
        frame.set_mark(Mark(packet.from));
        match self.nodes[node].endpoint.receive(self.now, frame) {
            Received::Message { to, frame, info } => {
                let (message, info) = (frame.bytes().to_vec(), format!("{info:?}"));
                self.nodes[node].got.push(Got { to, message, info });
            }
            Received::Consumed | Received::Discarded(_) => {}
        }
        self.drive(node);
    }

    /// Runs the net for this time.
    pub(super) fn run(&mut self, milliseconds: u64) {
        let end = self.now.plus(Nanos::from_millis(milliseconds));
        loop {
            let packet = self.flying.front().map(|packet| packet.at);
            let timers = self.nodes.iter().filter_map(|node| node.endpoint.next_timeout()).min();
            let Some(next) = packet.into_iter().chain(timers).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            while self.flying.front().is_some_and(|packet| packet.at <= self.now) {
                let packet = self.flying.pop_front().expect("one");
                self.deliver(&packet);
            }
            for node in 0..self.nodes.len() {
                if self.nodes[node].endpoint.next_timeout().is_some_and(|due| due <= self.now) {
                    self.drive(node);
                }
            }
        }
        self.now = end;
        for node in &self.nodes {
            let counters = node.endpoint.counters();
            assert!(counters.are_balanced(), "R20: {counters:?}");
        }
    }

    /// The messages that a node has received since the last call.
    pub(super) fn take(&mut self, node: usize) -> Vec<Vec<u8>> {
        self.nodes[node].got.drain(..).map(|got| got.message).collect()
    }

    pub(super) fn has_event(&self, node: usize, is_it: impl Fn(&Event) -> bool) -> bool {
        self.nodes[node].events.iter().any(is_it)
    }

    /// The socket that a listener accepted last.
    pub(super) fn accepted(&self, node: usize) -> SocketId {
        let accepted = self.nodes[node].events.iter().rev().find_map(|event| match event {
            Event::Accepted { socket, .. } => Some(*socket),
            _ => None,
        });
        accepted.expect("an accepted socket")
    }
}
