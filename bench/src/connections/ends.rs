//! Endpoints in memory: one connecting endpoint, and the endpoints that it connects to.

use std::sync::Arc;

use strowger_connection::{
    Anyone, ConnectOptions, Destination, Endpoint, EndpointConfig, Event, HEADROOM_BYTES,
    ListenOptions, ProtocolNames, Received, Sent, SocketId,
};
use strowger_crypto::{IdentityKey, Nanos, NetworkId, OsEntropy, Secret};
use strowger_frame::{Burst, ChunkClass, Frame, Mark, Pool, PoolSpec};
use strowger_routing::NoRouting;
use strowger_wire::{Label, Scheme, Slot, label::AnyLabel};

use crate::Failure;

/// The name of the network of all endpoints.
const NETWORK: &[u8] = b"bench";
/// The protocol of the sockets.
const PROTOCOL: &str = "/bench/1";
/// The slots of the connecting endpoint and of all others.
pub(super) const SLOTS: [u32; 2] = [3, 2];
/// The longest packet of the ports, with the switch header.
const PACKET_BYTES: u16 = 1_500;
/// The wall clock at the zero of the virtual time, in nanoseconds since 1970.
const WALL_AT_ZERO: u64 = 1_700_000_000_000_000_000;
/// Exchanges of packets after which a connection must be open.
const EXCHANGES_MAX: usize = 64;
/// Virtual seconds in which the search for the length of a path must end.
const SEARCH_SECONDS_MAX: usize = 60;

/// The information about the peer with which the initiator starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The static key, from a certificate: IKpsk2.
    StaticKey,
    /// The PeerId: XX.
    PeerId,
}

/// An endpoint in memory, with its slot and keys.
pub(crate) struct End {
    pub(crate) endpoint: Endpoint,
    key: IdentityKey,
    slot: u32,
}

impl End {
    pub(super) fn new(number: u32, slot: u32, now: Nanos) -> Result<Self, Failure> {
        let mut seed = [0x5a; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        let key = IdentityKey::from_seed(&Secret::from_bytes(seed));
        let config = EndpointConfig::new(&key, network()?, Scheme::default())
            .wall_at_zero(WALL_AT_ZERO)
            .longest_packet(PACKET_BYTES);
        let routing = Box::new(NoRouting::default());
        let entropy = Box::new(OsEntropy);
        let endpoint = Endpoint::new(config, routing, Arc::new(Anyone), entropy, now);
        let endpoint = endpoint.map_err(|error| Failure::Refused(error.to_string()))?;
        Ok(Self { endpoint, key, slot })
    }

    /// An endpoint that accepts connections.
    pub(super) fn accepting(number: u32, slot: u32, now: Nanos) -> Result<Self, Failure> {
        let mut end = Self::new(number, slot, now)?;
        let listening = end.endpoint.listen(now, names()?, ListenOptions::new());
        listening.map_err(|error| Failure::Refused(error.to_string()))?;
        Ok(end)
    }

    /// Starts a connection to the other end.
    pub(crate) fn connect(&mut self, now: Nanos, to: &End, by: By) -> Result<SocketId, Failure> {
        let director = Scheme::default().encode_least(Slot::new(to.slot));
        let director = director.map_err(|_| Failure::Bug("the slot fits the scheme"))?;
        let label = AnyLabel::W64(Label::new(director.bits() | 1 << director.width()));
        let destination = Destination::from(to.key.public().peer_id());
        let destination = match by {
            By::PeerId => destination.label(label),
            By::StaticKey => {
                let certificate = to.key.certify_connection_key(1, &network()?);
                destination.label_with_key(label, certificate)
            }
        };
        let options = ConnectOptions::new();
        let socket = self.endpoint.connect(now, destination, names()?, options);
        socket.map_err(|error| Failure::Refused(error.to_string()))
    }

    /// Polls the endpoint, and returns the packets to send.
    pub(crate) fn packets(&mut self, now: Nanos) -> Vec<Vec<u8>> {
        self.endpoint.poll(now);
        let mut packets = Vec::new();
        while let Some(packet) = self.endpoint.poll_transmit(now) {
            packets.push(packet.to_vec());
        }
        packets
    }
}

fn network() -> Result<NetworkId, Failure> {
    NetworkId::new(NETWORK).ok_or(Failure::Bug("the name is short"))
}

fn names() -> Result<ProtocolNames, Failure> {
    ProtocolNames::new([PROTOCOL]).map_err(|_| Failure::Bug("the name is valid"))
}

/// An endpoint that has connected to others, and those others with their sockets.
pub(crate) struct Ends {
    pub(crate) now: Nanos,
    pub(crate) near: End,
    pub(crate) far: Vec<(End, SocketId)>,
    pub(super) pool: Pool,
    waiting: Vec<Burst>,
}

impl Ends {
    /// The number of messages in a burst.
    pub(crate) const BURST: usize = 64;

    /// Opens `connections` connections whose paths carry messages of `size` bytes.
    pub(crate) fn new(connections: u32, by: By, size: usize) -> Result<Self, Failure> {
        let now = Nanos::from_secs(100);
        let pool = PoolSpec { trains: 0, singles: 512, huge_pages: false };
        let pool = Pool::new(&pool).map_err(Failure::kernel("memory"))?;
        let near = End::new(0, SLOTS[0], now)?;
        let mut ends = Self { now, near, far: Vec::new(), pool, waiting: Vec::new() };
        for number in 1..=connections {
            ends.open(number, by)?;
        }
        ends.widen(size)?;
        Ok(ends)
    }

    /// Connects to one more endpoint.
    fn open(&mut self, number: u32, by: By) -> Result<(), Failure> {
        let mut far = End::accepting(number, SLOTS[1], self.now)?;
        let socket = self.near.connect(self.now, &far, by)?;
        // The first message opens the socket of the far end.
        let first = self.frame(1)?;
        let sent = self.near.endpoint.send(self.now, socket, first);
        if !matches!(sent, Ok(Sent::Queued)) {
            return Err(Failure::Bug("messages wait while there are no keys"));
        }
        let mut accepted = None;
        for _ in 0..EXCHANGES_MAX {
            let mut is_idle = self.exchange(&mut far)?;
            while let Some(event) = far.endpoint.poll_event() {
                if let Event::Accepted { socket, .. } = event {
                    far.endpoint.take_accepted(socket);
                    accepted = Some(socket);
                    is_idle = false;
                }
            }
            while self.near.endpoint.poll_event().is_some() {}
            if is_idle && accepted.is_some() {
                break;
            }
            self.now = self.now.plus(Nanos(100_000));
        }
        let unopened = || Failure::Wrong("a connection in memory did not open".to_owned());
        self.far.push((far, accepted.ok_or_else(unopened)?));
        Ok(())
    }

    /// Runs until all paths have found that they carry messages of this size: the search sends one
    /// probe a second while messages are sent.
    fn widen(&mut self, size: usize) -> Result<(), Failure> {
        for _ in 0..SEARCH_SECONDS_MAX {
            let fits = |(end, socket): &(End, SocketId)| {
                end.endpoint.socket(*socket).is_some_and(|socket| socket.message_max >= size)
            };
            if self.far.iter().all(fits) {
                return Ok(());
            }
            self.now = self.now.plus(Nanos::from_secs(1));
            for far in 0..self.far.len() {
                let mut messages = Burst::new();
                messages.push(self.frame(1)?);
                let mut packets = self.seal(far, &mut messages)?;
                Self::mark(&mut packets);
                self.open_burst(&mut packets);
                self.settle(far)?;
            }
        }
        Err(Failure::Wrong(format!("no path in memory takes messages of {size} bytes")))
    }

    /// Round trips before the first message of a new connection leaves, in virtual time: the number
    /// of times that packets reach the far end before the message does.
    pub(crate) fn round_trips(&mut self, number: u32, by: By) -> Result<usize, Failure> {
        let mut far = End::accepting(number, SLOTS[1], self.now)?;
        let socket = self.near.connect(self.now, &far, by)?;
        let first = self.frame(1)?;
        let sent = self.near.endpoint.send(self.now, socket, first);
        sent.map_err(|(error, _)| Failure::Refused(error.to_string()))?;
        for round_trips in 0..EXCHANGES_MAX {
            let mut is_message = false;
            for packet in self.near.packets(self.now) {
                is_message |= self.hand(&packet, &mut Some(&mut far))?;
            }
            if is_message {
                return Ok(round_trips);
            }
            for packet in far.packets(self.now) {
                self.hand(&packet, &mut None)?;
            }
            self.now = self.now.plus(Nanos::from_millis(1));
        }
        Err(Failure::Wrong("a message in memory did not arrive".to_owned()))
    }

    /// Passes a packet to the end `to`, or to the connecting end if `to` is `None`. Returns whether
    /// a message arrived.
    fn hand(&mut self, packet: &[u8], to: &mut Option<&mut End>) -> Result<bool, Failure> {
        let mut frame = self.frame(packet.len())?;
        frame.bytes_mut().copy_from_slice(packet);
        let (end, from) = match to {
            Some(end) => (&mut **end, SLOTS[0]),
            None => (&mut self.near, SLOTS[1]),
        };
        frame.set_mark(Mark(from));
        let received = end.endpoint.receive(self.now, frame);
        Ok(matches!(received, Received::Message { .. }))
    }

    /// A frame of this length with headroom for the headers of a connection.
    fn frame(&mut self, len: usize) -> Result<Frame, Failure> {
        self.pool.reclaim();
        let chunk = self.pool.take(ChunkClass::Single);
        let chunk = chunk.ok_or(Failure::Bug("the frames of a round fit the pool"))?;
        Ok(chunk.into_frame(HEADROOM_BYTES, len))
    }

    /// One message of one byte.
    pub(super) fn one_byte(&mut self) -> Result<Burst, Failure> {
        let mut burst = Burst::new();
        burst.push(self.frame(1)?);
        Ok(burst)
    }

    /// Whether the endpoint `end` opens a packet that arrives from this slot as a message.
    pub(super) fn opens(&mut self, end: &mut Endpoint, packet: &[u8], slot: u32) -> bool {
        let Ok(mut frame) = self.frame(packet.len()) else { return false };
        frame.bytes_mut().copy_from_slice(packet);
        frame.set_mark(Mark(slot));
        matches!(end.receive(self.now, frame), Received::Message { .. })
    }

    /// A burst of messages of this length. No measurement includes filling the memory.
    pub(crate) fn messages(&mut self, len: usize) -> Result<Burst, Failure> {
        let mut burst = self.waiting.pop().unwrap_or_default();
        for _ in 0..Self::BURST {
            burst.push(self.frame(len)?);
        }
        Ok(burst)
    }

    /// Seals a burst of messages of one connection, and returns the packets.
    pub(crate) fn seal(&mut self, far: usize, messages: &mut Burst) -> Result<Burst, Failure> {
        let mut packets = self.waiting.pop().unwrap_or_default();
        let (end, socket) = &mut self.far[far];
        let sent = end.endpoint.send_burst(self.now, *socket, messages, &mut packets);
        sent.map_err(|error| Failure::Refused(error.to_string()))?;
        Ok(packets)
    }

    /// Opens a burst of packets at the connecting endpoint. Returns the number of messages.
    pub(crate) fn open_burst(&mut self, packets: &mut Burst) -> usize {
        let mut messages = 0;
        for frame in packets.drain(..) {
            let received = self.near.endpoint.receive(self.now, frame);
            messages += usize::from(matches!(received, Received::Message { .. }));
        }
        messages
    }

    /// Marks packets as the switch of the connecting endpoint does.
    pub(crate) fn mark(packets: &mut Burst) {
        packets.iter_mut().for_each(|frame| frame.set_mark(Mark(SLOTS[1])));
    }

    /// Keeps an empty burst for later rounds.
    pub(crate) fn keep(&mut self, burst: Burst) {
        self.waiting.push(burst);
    }

    /// Exchanges the control packets of both ends of a connection: confirmations and path
    /// challenges.
    pub(crate) fn settle(&mut self, far: usize) -> Result<(), Failure> {
        let (mut end, socket) = self.far.swap_remove(far);
        while !self.exchange(&mut end)? {}
        while end.endpoint.poll_event().is_some() {}
        while self.near.endpoint.poll_event().is_some() {}
        self.far.push((end, socket));
        let last = self.far.len() - 1;
        self.far.swap(far, last);
        Ok(())
    }

    /// Exchanges the packets of both ends once. Returns whether there were none.
    fn exchange(&mut self, far: &mut End) -> Result<bool, Failure> {
        let to_far = self.near.packets(self.now);
        let to_near = far.packets(self.now);
        for packet in &to_far {
            self.hand(packet, &mut Some(far))?;
        }
        for packet in &to_near {
            self.hand(packet, &mut None)?;
        }
        Ok(to_far.is_empty() && to_near.is_empty())
    }
}
