//! An established connection allocates nothing for a message.

use std::sync::Arc;

use strowger_connection::{
    Anyone, ConnectOptions, Destination, Endpoint, EndpointConfig, Event, HEADROOM_BYTES,
    ListenOptions, MessageTo, ProtocolNames, Received, Sent, SocketId,
};
use strowger_crypto::{IdentityKey, Nanos, NetworkId, PeerId, Secret, SeededEntropy};
use strowger_frame::{
    Burst, ChunkClass, Frame, Mark, Pool, PoolSpec,
    alloc::{GuardedAlloc, forbid, installed},
};
use strowger_routing::NoRouting;
use strowger_wire::{Label, Scheme, Slot, label::AnyLabel};

#[global_allocator]
static ALLOC: GuardedAlloc = GuardedAlloc;

const NAME: &str = "/test/1";
const SLOTS: [u32; 2] = [2, 3];

/// Two endpoints on the slots 2 and 3 of one switch, which delivers at once. The switch passes a
/// packet to an endpoint unchanged (wire.md W1.3-3).
struct Pair {
    ends: [Endpoint; 2],
    sockets: [Option<SocketId>; 2],
    now: Nanos,
    pool: Pool,
    delivered: u64,
}

fn key(end: usize) -> IdentityKey {
    IdentityKey::from_seed(&Secret::from_bytes([end as u8 + 1; 32]))
}

fn peer(end: usize) -> PeerId {
    key(end).public().peer_id()
}

impl Pair {
    fn connected() -> Pair {
        let scheme = *Scheme::named("v3x5x8").expect("a scheme");
        let now = Nanos::from_secs(100);
        let ends = [0, 1].map(|end| {
            let network = NetworkId::new(b"test").expect("short");
            let config = EndpointConfig::new(&key(end), network, scheme);
            let entropy = Box::new(SeededEntropy::new(end as u64));
            let routing = Box::new(NoRouting::default());
            Endpoint::new(config, routing, Arc::new(Anyone), entropy, now).expect("an endpoint")
        });
        let spec = PoolSpec { trains: 0, singles: 256, huge_pages: false };
        let pool = Pool::new(&spec).expect("memory");
        let mut pair = Pair { ends, sockets: [None; 2], now, pool, delivered: 0 };
        let names = || ProtocolNames::new([NAME]).expect("a name");
        pair.ends[1].listen(now, names(), ListenOptions::new()).expect("a listener");
        let director = scheme.encode_least(Slot::new(SLOTS[1])).expect("it fits");
        let label = AnyLabel::W64(Label::new(director.bits() | 1 << director.width()));
        let to = Destination::from(peer(1)).label(label);
        let socket = pair.ends[0].connect(now, to, names(), ConnectOptions::new());
        pair.sockets[0] = Some(socket.expect("a socket"));
        for _ in 0..20 {
            pair.settle();
            pair.now = pair.now.plus(Nanos::from_millis(100));
        }
        pair.send(0, b"first");
        pair.settle();
        pair
    }

    fn frame(&mut self, bytes: &[u8]) -> Frame {
        let chunk = self.pool.take(ChunkClass::Single).expect("a free frame");
        let mut frame = chunk.into_frame(HEADROOM_BYTES, bytes.len());
        frame.bytes_mut().copy_from_slice(bytes);
        frame
    }

    /// Sends a message, which arrives at once.
    fn send(&mut self, from: usize, message: &[u8]) {
        let frame = self.frame(message);
        let socket = self.sockets[from].expect("a socket");
        match self.ends[from].send(self.now, socket, frame) {
            Ok(Sent::Packet(frame)) => self.arrive(from, frame),
            Ok(Sent::Queued) => {}
            Err((why, _)) => panic!("{why}"),
        }
    }

    fn arrive(&mut self, from: usize, mut frame: Frame) {
        frame.set_mark(Mark(SLOTS[from]));
        let received = self.ends[1 - from].receive(self.now, frame);
        if let Received::Message { to: MessageTo::Socket(socket), frame, .. } = received {
            self.delivered += 1;
            self.sockets[1 - from].get_or_insert(socket);
            assert!(!frame.bytes().is_empty());
        }
    }

    /// Polls both endpoints, as a driver does after each call.
    fn poll(&mut self) {
        for end in &mut self.ends {
            end.poll(self.now);
        }
    }

    /// Polls both ends and exchanges their packets, 20 times.
    fn settle(&mut self) {
        for _ in 0..20 {
            for end in 0..2 {
                self.ends[end].poll(self.now);
                while let Some(packet) = self.ends[end].poll_transmit(self.now) {
                    let chunk = self.pool.take(ChunkClass::Single).expect("a free frame");
                    let mut frame = chunk.into_frame(HEADROOM_BYTES, packet.len());
                    frame.bytes_mut().copy_from_slice(&packet);
                    self.arrive(end, frame);
                }
                while let Some(event) = self.ends[end].poll_event() {
                    assert!(!matches!(event, Event::ConnectFailed { .. }), "{event:?}");
                }
            }
        }
    }
}

/// 100,000 messages, half of them in each direction, of different lengths and in bursts, over
/// two seconds of virtual time: no call of the allocator in `send`, `receive` and `poll`.
#[test]
fn an_established_connection_allocates_nothing_for_a_message() {
    assert!(installed(), "the allocator of the test counts");
    let mut pair = Pair::connected();
    let message = [7; 1_100];
    // The first seconds of use: the search for the length, and buffers that grow once.
    for _ in 0..1_000 {
        pair.send(0, &message);
        pair.send(1, &message);
        pair.settle();
        pair.now = pair.now.plus(Nanos::from_millis(10));
    }
    let before = pair.delivered;
    let guard = forbid();
    for round in 0..50_000_usize {
        pair.send(0, &message[..1 + round % 1_100]);
        pair.poll();
        pair.send(1, &message[..1 + round % 700]);
        pair.poll();
        pair.now = pair.now.plus(Nanos(40_000));
    }
    let calls = guard.calls();
    drop(guard);
    assert_eq!((calls, pair.delivered - before), (0, 100_000));
}

/// Bursts of 64 messages, each sent with one call, cause no call of the allocator.
#[test]
fn a_burst_allocates_nothing() {
    let mut pair = Pair::connected();
    let socket = pair.sockets[0].expect("a socket");
    for round in 0..200 {
        let (mut messages, mut packets) = (Burst::new(), Burst::new());
        for _ in 0..64 {
            let frame = pair.frame(&[1; 900]);
            messages.push(frame);
        }
        // The first rounds may grow buffers.
        let guard = (round >= 100).then(forbid);
        let sent = pair.ends[0].send_burst(pair.now, socket, &mut messages, &mut packets);
        assert!(sent.is_ok() && messages.is_empty() && packets.len() == 64);
        for frame in packets.drain(..) {
            pair.arrive(0, frame);
        }
        drop(guard);
        pair.settle();
        pair.now = pair.now.plus(Nanos::from_millis(1));
    }
    assert!(pair.delivered >= 200 * 64);
}
