//! What a connection costs in memory, by the bytes that the allocator hands out.

use std::sync::Arc;

use strowger_connection::{
    Anyone, ConnectOptions, Destination, Endpoint, EndpointConfig, Event, HEADROOM_BYTES,
    ListenOptions, MessageTo, ProtocolNames, Received, Sent, SocketId,
};
use strowger_crypto::{IdentityKey, Nanos, NetworkId, Secret, SeededEntropy};
use strowger_frame::{
    ChunkClass, Frame, Mark, Pool, PoolSpec,
    alloc::{GuardedAlloc, count, installed},
};
use strowger_routing::NoRouting;
use strowger_wire::{Label, Scheme, Slot, label::AnyLabel};

#[global_allocator]
static ALLOC: GuardedAlloc = GuardedAlloc;

/// Maximum number of bytes of an idle connection without keys.
const WITHOUT_KEYS_MAX: i64 = 1_536;
/// Maximum number of bytes of an idle connection with keys.
const WITH_KEYS_MAX: i64 = 6 * 1_024;
/// Maximum number of bytes of an open socket, in addition to its connection.
const SOCKET_MAX: i64 = 256;
/// Hash tables double when seven in eight of their places are used. The first number leaves them full,
/// the second nearly half empty.
const CONNECTIONS: [u32; 2] = [224, 250];
/// A time that is longer than keys are valid.
const KEYS_LAPSE: Nanos = Nanos::from_secs(200);

const NAME: &str = "/test/1";
const NETWORK: NetworkId = NetworkId::new(b"test").expect("short");
const HUB_SLOT: u32 = 2;
const PEER_SLOT: u32 = 3;

/// Which end begins, and what it knows of the other one.
#[derive(Clone, Copy, Debug)]
enum Begins {
    PeerByKey,
    PeerByPeerId,
    HubByKey,
    HubByPeerId,
}

/// An endpoint with connections to many peers. All peers were behind one slot, and are gone.
struct Hub {
    endpoint: Endpoint,
    now: Nanos,
    pool: Pool,
}

fn key(number: u32) -> IdentityKey {
    let mut seed = [1; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    IdentityKey::from_seed(&Secret::from_bytes(seed))
}

fn names() -> ProtocolNames {
    ProtocolNames::new([NAME]).expect("a name")
}

fn endpoint(number: u32, now: Nanos) -> Endpoint {
    let config = EndpointConfig::new(&key(number), NETWORK, Scheme::default());
    let entropy = Box::new(SeededEntropy::new(u64::from(number)));
    let routing = Box::new(NoRouting::default());
    let made = Endpoint::new(config, routing, Arc::new(Anyone), entropy, now);
    let mut made = made.expect("an endpoint");
    made.listen(now, names(), ListenOptions::new()).expect("a listener");
    made
}

/// The destination of the endpoint with this number, with the certificate of its connection key if
/// `by_key` is set.
fn destination(number: u32, slot: u32, by_key: bool) -> Destination {
    let director = Scheme::default().encode_least(Slot::new(slot)).expect("it fits");
    let label = AnyLabel::W64(Label::new(director.bits() | 1 << director.width()));
    let to = Destination::from(key(number).public().peer_id());
    if by_key {
        to.label_with_key(label, key(number).certify_connection_key(1, &NETWORK))
    } else {
        to.label(label)
    }
}

impl Hub {
    fn new() -> Hub {
        let now = Nanos::from_secs(100);
        let spec = PoolSpec { trains: 0, singles: 64, huge_pages: false };
        let pool = Pool::new(&spec).expect("memory");
        Hub { endpoint: endpoint(0, now), now, pool }
    }

    fn frame(&mut self, bytes: &[u8]) -> Frame {
        self.pool.reclaim();
        let chunk = self.pool.take(ChunkClass::Single).expect("a free frame");
        let mut frame = chunk.into_frame(HEADROOM_BYTES, bytes.len());
        frame.bytes_mut().copy_from_slice(bytes);
        frame
    }

    fn send(&mut self, from: &mut Option<&mut Endpoint>, socket: SocketId) -> Option<Frame> {
        let (now, frame) = (self.now, self.frame(b"a message"));
        let end = from.as_deref_mut().unwrap_or(&mut self.endpoint);
        match end.send(now, socket, frame).map_err(|(why, _)| why).expect("it is sent") {
            Sent::Packet(frame) => Some(frame),
            Sent::Queued => None,
        }
    }

    /// Hands a packet to the peer, or to the hub. Returns the socket of its message.
    fn arrive(&mut self, to: Option<&mut Endpoint>, mut frame: Frame) -> Option<SocketId> {
        frame.set_mark(Mark(if to.is_some() { HUB_SLOT } else { PEER_SLOT }));
        match to.unwrap_or(&mut self.endpoint).receive(self.now, frame) {
            Received::Message { to: MessageTo::Socket(socket), .. } => Some(socket),
            _ => None,
        }
    }

    /// Makes one more peer, which exchanges a message in each direction with the hub and is gone.
    /// The hub keeps its socket if `keeps_socket` is set, and otherwise closes it.
    fn meet(&mut self, number: u32, begins: Begins, keeps_socket: bool) {
        let mut peer = endpoint(number, self.now);
        let (by_hub, by_key) = match begins {
            Begins::PeerByKey => (false, true),
            Begins::PeerByPeerId => (false, false),
            Begins::HubByKey => (true, true),
            Begins::HubByPeerId => (true, false),
        };
        let options = ConnectOptions::new();
        let mut sockets = [None; 2];
        if by_hub {
            let to = destination(number, PEER_SLOT, by_key);
            sockets[0] = Some(self.endpoint.connect(self.now, to, names(), options).expect("room"));
        } else {
            let to = destination(0, HUB_SLOT, by_key);
            sockets[1] = Some(peer.connect(self.now, to, names(), options).expect("room"));
        }
        let first = sockets[usize::from(!by_hub)].expect("one end has connected");
        let mut is_answered = false;
        assert!(self.send(&mut (!by_hub).then_some(&mut peer), first).is_none());
        let mut is_closed = keeps_socket;
        for _ in 0..60 {
            let packets = packets(&mut self.endpoint, self.now);
            for packet in packets {
                let frame = self.frame(&packet);
                let socket = self.arrive(Some(&mut peer), frame);
                sockets[1] = sockets[1].or(socket);
                is_answered |= !by_hub && socket.is_some();
            }
            for packet in self::packets(&mut peer, self.now) {
                let frame = self.frame(&packet);
                let socket = self.arrive(None, frame);
                sockets[0] = sockets[0].or(socket);
                is_answered |= by_hub && socket.is_some();
            }
            if let [Some(ours), Some(theirs)] = sockets
                && !is_answered
            {
                let answer = if by_hub { theirs } else { ours };
                let packet = self.send(&mut by_hub.then_some(&mut peer), answer);
                if let Some(frame) = packet {
                    let arrived = self.arrive((!by_hub).then_some(&mut peer), frame);
                    is_answered |= arrived.is_some();
                }
            }
            if is_answered && !std::mem::replace(&mut is_closed, true) {
                self.endpoint.close_socket(self.now, sockets[0].expect("it was used"));
            }
            self.now = self.now.plus(Nanos::from_millis(1));
        }
        assert!(is_answered && is_closed, "{number}: {begins:?}");
    }

    /// Lets time pass, in which nobody sends a message.
    fn rest(&mut self, time: Nanos) {
        let end = self.now.plus(time);
        while let Some(due) = self.endpoint.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            packets(&mut self.endpoint, self.now);
        }
        self.now = end;
        packets(&mut self.endpoint, self.now);
    }

    /// Drops the endpoint. Returns the bytes that it stated as allocated, and the bytes that it
    /// freed.
    fn end(self) -> (i64, i64) {
        let said = self.endpoint.memory() as i64 - size_of::<Endpoint>() as i64;
        let guard = count();
        drop(self.endpoint);
        (said, -guard.held_bytes())
    }
}

/// Returns the packets that an endpoint sends now, and drops its events.
fn packets(end: &mut Endpoint, now: Nanos) -> Vec<Vec<u8>> {
    end.poll(now);
    let mut packets = Vec::new();
    while let Some(packet) = end.poll_transmit(now) {
        packets.push(packet.to_vec());
    }
    while let Some(event) = end.poll_event() {
        assert!(!matches!(event, Event::ConnectFailed { .. }), "{event:?}");
        if let Event::Accepted { socket, .. } = event {
            end.take_accepted(socket);
        }
    }
    packets
}

/// The bytes of each of `connections` connections, as the endpoint says and as the allocator counts,
/// after `rest` without a message.
fn bytes_each(connections: u32, begins: Begins, rest: Nanos, with_socket: bool) -> (i64, i64) {
    let mut hub = Hub::new();
    for number in 1..=connections {
        hub.meet(number, begins, with_socket);
    }
    hub.rest(rest);
    let peers = hub.endpoint.peers();
    assert_eq!(peers.len(), connections as usize);
    let has_keys = |peer| hub.endpoint.connection(peer).is_some_and(|info| info.has_keys);
    let with_keys = peers.iter().filter(|peer| has_keys(peer)).count();
    assert_eq!(with_keys, if rest < KEYS_LAPSE { connections as usize } else { 0 });
    let (said, held) = hub.end();
    let (said_empty, held_empty) = Hub::new().end();
    let each = i64::from(connections);
    ((said - said_empty) / each, (held - held_empty) / each)
}

/// Checks the bytes of a connection, without a socket and with one.
fn check(rest: Nanos, most: i64) {
    assert!(installed(), "the allocator of the test counts");
    for begins in [Begins::PeerByKey, Begins::PeerByPeerId, Begins::HubByKey, Begins::HubByPeerId] {
        for connections in CONNECTIONS {
            let mut both = [0; 2];
            for with_socket in [false, true] {
                let (said, held) = bytes_each(connections, begins, rest, with_socket);
                let case = format!("{begins:?}, {connections} connections, socket: {with_socket}");
                println!("{case}: {held} bytes each; the endpoint says {said}");
                assert!((said - held).abs() <= held / 100, "{case}: {held} bytes, not {said}");
                both[usize::from(with_socket)] = held;
            }
            let [without, with] = both;
            assert!(without <= most, "{begins:?}, {connections} connections: {without} bytes each");
            assert!(
                with - without <= SOCKET_MAX,
                "{begins:?}: a socket of {} bytes",
                with - without
            );
        }
    }
}

#[test]
fn an_idle_connection_without_keys_takes_at_most_1536_bytes() {
    check(KEYS_LAPSE, WITHOUT_KEYS_MAX);
}

#[test]
fn an_idle_connection_with_keys_takes_at_most_6_kib() {
    check(Nanos::from_secs(5), WITH_KEYS_MAX);
}
