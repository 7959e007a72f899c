//! Properties of an endpoint that receives any packets, from senders without keys and from a peer
//! with keys that violates the rules. The endpoint counts each packet, sends little, keeps its
//! connections, and never stays due without end.

use std::sync::Arc;

use bolero::check;
use strowger_connection::{
    Anyone, ConnectOptions, Destination, Endpoint, EndpointConfig, HEADROOM_BYTES, ListenOptions,
    ProtocolNames, Received, Sent, SocketId,
};
use strowger_crypto::{IdentityKey, Nanos, NetworkId, PeerId, Sealed, Secret, SeededEntropy};
use strowger_frame::{ChunkClass, Frame, Mark, Pool, PoolSpec};
use strowger_routing::NoRouting;
use strowger_wire::label::AnyLabel;
use strowger_wire::{Label, Scheme, Slot};

const NAME: &str = "/test/1";

/// Bytes of the switch header with a label of 64 bits.
const SWITCH_HEADER: usize = 16;

/// Maximum number of polls of one endpoint without a packet while the virtual time stands still.
const POLLS_MAX: usize = 100;

/// Endpoints on the slots 2, 3 and 4 of one switch that delivers at once. The switch passes a
/// packet to an endpoint unchanged (wire.md W1.3-3).
struct Net {
    ends: Vec<Endpoint>,
    now: Nanos,
    pool: Pool,
    /// Packets in flight: the sender, and the bytes.
    flying: Vec<(usize, Vec<u8>)>,
    /// Messages that each end has received.
    delivered: [u64; 3],
    /// Packets that each end has sent.
    sent: [usize; 3],
}

fn key(end: usize) -> IdentityKey {
    IdentityKey::from_seed(&Secret::from_bytes([end as u8 + 1; 32]))
}

fn peer(end: usize) -> PeerId {
    key(end).public().peer_id()
}

fn slot(end: usize) -> u32 {
    end as u32 + 2
}

fn label_to(end: usize) -> AnyLabel {
    let scheme = Scheme::named("v3x5x8").expect("a scheme");
    let director = scheme.encode_least(Slot::new(slot(end))).expect("it fits");
    AnyLabel::W64(Label::new(director.bits() | 1 << director.width()))
}

fn names() -> ProtocolNames {
    ProtocolNames::new([NAME]).expect("a name")
}

impl Net {
    /// End 0 has connections with end 1, which is hostile, and with end 2, which is not.
    fn connected() -> (Net, [SocketId; 2]) {
        let now = Nanos::from_secs(100);
        let scheme = *Scheme::named("v3x5x8").expect("a scheme");
        let ends = (0..3).map(|end| {
            let network = NetworkId::new(b"test").expect("short");
            let config = EndpointConfig::new(&key(end), network, scheme);
            let entropy = Box::new(SeededEntropy::new(end as u64));
            let routing = Box::new(NoRouting::default());
            Endpoint::new(config, routing, Arc::new(Anyone), entropy, now).expect("an endpoint")
        });
        let spec = PoolSpec { trains: 0, singles: 64, huge_pages: false };
        let pool = Pool::new(&spec).expect("memory");
        let ends = ends.collect();
        let (flying, delivered, sent) = (Vec::new(), [0; 3], [0; 3]);
        let mut net = Net { ends, now, pool, flying, delivered, sent };
        let listener = net.ends[0].listen(now, names(), ListenOptions::new());
        listener.expect("a listener");
        let mut sockets = [1, 2].map(|end: usize| {
            let to = Destination::from(peer(0)).label(label_to(0));
            let socket = net.ends[end].connect(now, to, names(), ConnectOptions::new());
            net.run(2_000);
            socket.expect("a socket")
        });
        for (end, socket) in [1, 2].into_iter().zip(&mut sockets) {
            net.send(end, *socket, b"hello");
            net.run(0);
            assert!(net.ends[0].connection(&peer(end)).is_some_and(|info| info.has_keys));
        }
        assert_eq!(net.delivered[0], 2);
        (net, sockets)
    }

    fn frame(&mut self, bytes: &[u8]) -> Frame {
        let chunk = self.pool.take(ChunkClass::Single).expect("a free frame");
        let mut frame = chunk.into_frame(HEADROOM_BYTES, bytes.len());
        frame.bytes_mut().copy_from_slice(bytes);
        frame
    }

    fn send(&mut self, end: usize, socket: SocketId, message: &[u8]) {
        let frame = self.frame(message);
        match self.ends[end].send(self.now, socket, frame) {
            Ok(Sent::Packet(frame)) => self.flying.push((end, frame.bytes().to_vec())),
            Ok(Sent::Queued) | Err(_) => {}
        }
    }

    /// Delivers a packet to an end.
    fn deliver(&mut self, from: usize, to: usize, bytes: &[u8]) -> bool {
        let mut frame = self.frame(bytes);
        frame.set_mark(Mark(slot(from)));
        let received = self.ends[to].receive(self.now, frame);
        let is_message = matches!(received, Received::Message { .. });
        self.delivered[to] += u64::from(is_message);
        is_message
    }

    /// Polls each end; returns whether one of them had work.
    fn poll(&mut self) -> bool {
        let mut is_busy = false;
        for end in 0..3 {
            let is_due =
                |endpoint: &Endpoint, now| endpoint.next_timeout().is_some_and(|due| due <= now);
            for round in 0.. {
                self.ends[end].poll(self.now);
                while let Some(packet) = self.ends[end].poll_transmit(self.now) {
                    self.flying.push((end, packet.to_vec()));
                    self.sent[end] += 1;
                    is_busy = true;
                }
                while self.ends[end].poll_event().is_some() {}
                if !is_due(&self.ends[end], self.now) {
                    break;
                }
                assert!(round < POLLS_MAX, "the time of end {end} stands still");
            }
        }
        is_busy
    }

    /// Runs for this time, and delivers packets at once to the end that their label names.
    fn run(&mut self, milliseconds: u64) {
        let end = self.now.plus(Nanos::from_millis(milliseconds));
        loop {
            for _ in 0..1_000 {
                self.poll();
                if self.flying.is_empty() {
                    break;
                }
                for (from, bytes) in std::mem::take(&mut self.flying) {
                    let label = bytes.get(8..16).and_then(AnyLabel::from_be_bytes);
                    let AnyLabel::W64(label) = label.expect("a header") else { continue };
                    let sent = label.forward(1);
                    let to = (0..3).find(|to| label_to(*to) == AnyLabel::W64(sent));
                    if let Some(to) = to {
                        self.deliver(from, to, &bytes);
                    }
                }
            }
            assert!(self.flying.is_empty(), "packets without end");
            let due = self.ends.iter().filter_map(|endpoint| endpoint.next_timeout()).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
        }
        self.now = end;
        for endpoint in &self.ends {
            assert!(endpoint.counters().are_balanced(), "R20: {:?}", endpoint.counters());
        }
    }

    /// Asserts that the connection of ends 0 and 2 carries a message.
    fn assert_unharmed(&mut self, socket: SocketId) {
        let before = self.delivered[0];
        self.send(2, socket, b"unharmed");
        self.run(0);
        assert_eq!(self.delivered[0], before + 1, "{:?}", self.ends[0].counters());
    }
}

/// Splits the input into pieces: a first byte, a length, and as many bytes.
fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let [first, length, rest @ ..] = bytes else { return None };
        let length = usize::from(*length).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        bytes = rest;
        Some((*first, piece))
    })
}

/// Passes an endpoint any packets: raw bytes, bytes after a valid switch header, and packets of its
/// peers that are changed, cut or repeated. No message is delivered twice, no answer is longer than
/// its cause, and both connections continue.
#[test]
fn packets_of_nobody_are_counted_and_change_nothing() {
    check!().for_each(|input: &[u8]| {
        let (mut net, [socket, other]) = Net::connected();
        net.send(1, socket, &[7; 40]);
        let (_, genuine) = net.flying.pop().expect("a packet");
        assert!(net.deliver(1, 0, &genuine), "it is delivered once");
        let header = genuine[..SWITCH_HEADER].to_vec();
        net.run(0);
        let (delivered, memory) = (net.delivered[0], net.ends[0].memory());
        for (first, piece) in pieces(input) {
            let packet = match first % 6 {
                0 => piece.to_vec(),
                1 => [&header, piece].concat(),
                // The index of the session, and anything behind it.
                2 => [&header, &[first & 0xf0][..], &genuine[17..20], piece].concat(),
                // A genuine packet, of which some bytes are changed.
                3 => {
                    let mut packet = genuine.clone();
                    for pair in piece.chunks_exact(2) {
                        let place = usize::from(pair[0]) % packet.len();
                        packet[place] ^= pair[1];
                    }
                    packet
                }
                4 => genuine[..piece.len().min(genuine.len())].to_vec(),
                _ => {
                    net.now = net.now.plus(Nanos::from_millis(u64::from(first)));
                    net.poll();
                    net.flying.clear();
                    continue;
                }
            };
            net.poll();
            net.flying.clear();
            if packet == genuine || !net.deliver(2, 0, &packet) {
                net.poll();
                let from_0 = net.flying.iter().filter(|(from, _)| *from == 0);
                for (_, sent) in from_0 {
                    // The endpoint's own challenges and handshakes are due at any time.
                    let is_answer = matches!(sent.get(16).map(|kind| kind >> 4), Some(2 | 3 | 7));
                    assert!(!is_answer || sent.len() <= packet.len(), "R17: {sent:?}");
                }
                net.flying.clear();
            }
            assert_eq!(net.delivered[0], delivered, "a forged message: {packet:?}");
        }
        assert!(net.ends[0].memory() <= memory + 4_096, "memory grows");
        net.run(10_000);
        net.assert_unharmed(other);
    });
}

/// Passes an endpoint packets with any content, sealed with the right keys. Each packet is counted,
/// the peer gets few answers, and the connection with another peer still works.
#[test]
fn a_peer_with_keys_that_keeps_no_rule_harms_only_itself() {
    check!().for_each(|input: &[u8]| {
        let (mut net, [_, other]) = Net::connected();
        let memory = net.ends[0].memory();
        let mut count = 0;
        for (first, piece) in pieces(input) {
            let sealed = |what, body: &[u8], net: &mut Net| {
                let _ = net.ends[1].send_sealed(net.now, &peer(0), what, body);
            };
            match first % 6 {
                // Control items: any bytes, or one item with a valid op and length.
                0 => sealed(Sealed::Data, &[&[0], piece].concat(), &mut net),
                1 => {
                    let (op, body) = piece.split_first().unwrap_or((&0, &[]));
                    let item = [0, op % 16, 0, body.len() as u8];
                    sealed(Sealed::Data, &[&item, body].concat(), &mut net);
                }
                // A message to any number, or a body without one.
                2 => sealed(Sealed::Data, piece, &mut net),
                3 => sealed(Sealed::PathChallenge, piece, &mut net),
                4 => sealed(Sealed::PathResponse, piece, &mut net),
                _ => net.run(4 * u64::from(first)),
            }
            count += 1;
            net.run(0);
        }
        // In each second of virtual time, timers send some packets.
        assert!(net.sent[0] <= 200 + 20 * count, "{} for {count}", net.sent[0]);
        assert!(net.ends[0].memory() <= memory + 65_536, "memory grows");
        net.run(3_000);
        net.assert_unharmed(other);
    });
}
