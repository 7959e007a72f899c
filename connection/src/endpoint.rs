//! All connections of one slot.

mod connect;
#[cfg(feature = "internals")]
mod internals;
mod receive;
mod sending;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use strowger_crypto::{Entropy, LocalIdentity, Nanos, PeerId};
use strowger_frame::{Burst, Frame};
use strowger_routing::{LookupTarget, PeerRouting, QuestionQueue};
use strowger_wire::connection::ControlItem;
use strowger_wire::label::AnyLabel;
use strowger_wire::limits::INITIATION_BYTES;
use strowger_wire::switch_header::{Ecn, HEADER_64_BYTES};

use crate::accepts::Accepts;
use crate::connections::Connections;
use crate::data_path::DataPath;
use crate::handshake::Handshakes;
use crate::info::SocketState;
use crate::limits::{GOODBYE_TIME, HOPS_LEFT};
use crate::outbox::Outbox;
use crate::path::{NewLabel, Traffic};
use crate::shared::Shared;
use crate::sockets::Sockets;
use crate::{
    CloseReason, ConfigError, ConnectError, ConnectOptions, ConnectionInfo, Counters, DatagramId,
    Destination, EndpointConfig, Event, Goodbye, GoodbyeCode, ListenError, ListenOptions,
    ListenerId, NoConnection, PingId, Policy, ProtocolNames, Received, SendRefused, Sent, SocketId,
    SocketInfo, Transmit,
};

/// A call of `connect` that waits until routing finds the PeerId of an address.
struct Unresolved {
    target: LookupTarget,
    socket: SocketId,
    deadline: Nanos,
}

/// All connections of one slot, and their sockets. The [crate](crate) says which calls a driver
/// makes.
///
/// An endpoint may move between threads. All times come from one clock, which never goes back.
pub struct Endpoint {
    shared: Shared,
    connections: Connections,
    handshakes: Handshakes,
    routing: Box<dyn PeerRouting>,
    questions: QuestionQueue,
    /// The targets that routing looks up.
    lookups: Vec<LookupTarget>,
    unresolved: Vec<Unresolved>,
    closing_since: Option<Nanos>,
}

impl Endpoint {
    /// Makes an endpoint without connections.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(
        config: EndpointConfig,
        routing: Box<dyn PeerRouting>,
        policy: Arc<dyn Policy>,
        mut entropy: Box<dyn Entropy + Send>,
        now: Nanos,
    ) -> Result<Endpoint, ConfigError> {
        let needed = (HEADER_64_BYTES + INITIATION_BYTES) as u16;
        if config.longest_packet < needed {
            let bytes = config.longest_packet;
            return Err(ConfigError::PacketTooShort { bytes, needed });
        }
        let mut key = [0; 8];
        entropy.fill(&mut key).map_err(|_| ConfigError::Entropy)?;
        let mut shared = Shared {
            config,
            policy,
            entropy,
            data: DataPath::new(),
            out: Outbox::default(),
            events: VecDeque::new(),
            counters: Counters::default(),
            sockets: Sockets::default(),
            accepts: Accepts::default(),
            by_key: HashMap::new(),
            peer_indices: BTreeSet::new(),
            flows: BTreeSet::new(),
            flow_key: u64::from_be_bytes(key),
            last_response: None,
            known_labels: crate::known_labels::KnownLabels::default(),
            goodbyes: HashMap::new(),
            memory: crate::memory::Memory::default(),
            wishes: Vec::new(),
            began: now,
        };
        let handshakes = Handshakes::new(&mut shared, now).map_err(|_| ConfigError::Entropy)?;
        Ok(Endpoint {
            shared,
            connections: Connections::default(),
            handshakes,
            routing,
            questions: QuestionQueue::new(),
            lookups: Vec::new(),
            unresolved: Vec::new(),
            closing_since: None,
        })
    }

    /// The identity of this endpoint.
    pub fn local(&self) -> &LocalIdentity {
        &self.shared.config.local
    }

    // Packets.

    /// Handles a packet from the slot's port: a frame that begins with the switch header, and whose
    /// [mark](Frame::mark) is the number of the packet's ingress slot at the own switch (wire.md
    /// W1.3-12). Opens in place and copies no payload.
    pub fn receive(&mut self, now: Nanos, frame: Frame) -> Received {
        self.receive_packet(now, frame)
    }

    /// Seals a message in place. The frame holds the message, with
    /// [`HEADROOM_BYTES`](crate::HEADROOM_BYTES) in front and
    /// [`TAILROOM_BYTES`](crate::TAILROOM_BYTES) behind it.
    ///
    /// # Errors
    /// The reason, with the frame unchanged.
    pub fn send(
        &mut self,
        now: Nanos,
        socket: SocketId,
        mut frame: Frame,
    ) -> Result<Sent, (SendRefused, Frame)> {
        self.shared.counters.messages += 1;
        let Some(hot) = self.shared.data.socket(socket).copied() else {
            return self.refuse(SendRefused::NoSocket, frame);
        };
        match self.shared.data.seal(now, &hot, &mut frame) {
            Ok(()) => {
                self.shared.counters.sealed += 1;
                Ok(Sent::Packet(frame))
            }
            Err(slow) => self.send_slowly(now, socket, slow, frame),
        }
    }

    /// Seals many messages of one socket in place, with one lookup. Packets are appended to
    /// `packets`, in order. The first refused message and those after it stay in `messages`.
    ///
    /// # Errors
    /// The reason for the first refusal. If `packets` is full, no error is returned.
    pub fn send_burst(
        &mut self,
        now: Nanos,
        socket: SocketId,
        messages: &mut Burst,
        packets: &mut Burst,
    ) -> Result<(), SendRefused> {
        let Some(hot) = self.shared.data.socket(socket).copied() else {
            let refused = messages.len() as u64;
            self.shared.counters.messages += refused;
            self.shared.counters.refused += refused;
            return if refused == 0 { Ok(()) } else { Err(SendRefused::NoSocket) };
        };
        let (mut rest, mut outcome) = (Burst::new(), Ok(()));
        for mut frame in messages.drain(..) {
            if outcome.is_err() || packets.is_full() {
                rest.push(frame);
                continue;
            }
            self.shared.counters.messages += 1;
            let sent = match self.shared.data.seal(now, &hot, &mut frame) {
                Ok(()) => {
                    self.shared.counters.sealed += 1;
                    Ok(Sent::Packet(frame))
                }
                Err(slow) => self.send_slowly(now, socket, slow, frame),
            };
            match sent {
                Ok(Sent::Packet(frame)) => packets.push(frame),
                Ok(Sent::Queued) => {}
                Err((why, frame)) => {
                    rest.push(frame);
                    outcome = Err(why);
                }
            }
        }
        *messages = rest;
        outcome
    }

    /// Sends a message that QUIC has sealed, without sealing it (wire.md W6-38).
    ///
    /// # Errors
    /// As [`send`](Self::send). A message with a long header, or to a peer that accepts no
    /// pass-through messages, is sealed.
    #[doc(hidden)]
    pub fn send_pass_through(
        &mut self,
        now: Nanos,
        socket: SocketId,
        frame: Frame,
    ) -> Result<Sent, (SendRefused, Frame)> {
        let is_short = frame.bytes().first().is_some_and(|first| first & 0x80 == 0);
        let Some(hot) = self.shared.data.socket(socket).copied() else {
            self.shared.counters.messages += 1;
            return self.refuse(SendRefused::NoSocket, frame);
        };
        let may = is_short && self.may_pass_through(&hot);
        let mut frame = frame;
        if !may || self.shared.data.pass_through(&hot, &mut frame).is_err() {
            return self.send(now, socket, frame);
        }
        self.shared.counters.messages += 1;
        self.shared.counters.passed += 1;
        Ok(Sent::Packet(frame))
    }

    /// Sends a message of a datagram socket to a peer, sealed in place. Connects if there is no
    /// connection.
    ///
    /// # Errors
    /// The reason, with the frame unchanged.
    pub fn send_to(
        &mut self,
        now: Nanos,
        socket: DatagramId,
        peer: &PeerId,
        frame: Frame,
    ) -> Result<Sent, (SendRefused, Frame)> {
        self.shared.counters.messages += 1;
        self.send_datagram(now, socket, peer, frame)
    }

    /// The next packet of the control part: handshakes, control items, challenges, and messages
    /// that waited.
    pub fn poll_transmit(&mut self, now: Nanos) -> Option<Transmit<'_>> {
        let _ = now;
        self.shared.counters.control_dropped = self.shared.out.dropped();
        let packet = self.shared.out.pop()?;
        self.shared.counters.control_sent += 1;
        Some(Transmit { packet })
    }

    // Sockets.

    /// Opens a socket to a peer, in the first of these protocols that the peer accepts. The outcome
    /// is [`Event::Connected`] or [`Event::ConnectFailed`]; until then messages wait.
    ///
    /// # Errors
    /// The reason of an immediate failure, which causes no event.
    pub fn connect(
        &mut self,
        now: Nanos,
        to: Destination,
        names: ProtocolNames,
        options: ConnectOptions,
    ) -> Result<SocketId, ConnectError> {
        self.connect_socket(now, &to, names, options)
    }

    /// Accepts protocols from the peers that the policy allows.
    ///
    /// # Errors
    /// [`ListenError`]; then none of the names is accepted.
    pub fn listen(
        &mut self,
        now: Nanos,
        names: ProtocolNames,
        options: ListenOptions,
    ) -> Result<ListenerId, ListenError> {
        if self.closing_since.is_some() {
            return Err(ListenError::Closed);
        }
        let listener = self.shared.accepts.listen(&names, &options)?;
        self.offer_everywhere(now);
        Ok(listener)
    }

    /// Accepts protocols from the peers that the policy allows, at one socket for all peers.
    ///
    /// # Errors
    /// [`ListenError`]; then none of the names is accepted.
    pub fn datagram_socket(
        &mut self,
        now: Nanos,
        names: ProtocolNames,
    ) -> Result<DatagramId, ListenError> {
        if self.closing_since.is_some() {
            return Err(ListenError::Closed);
        }
        let socket = self.shared.accepts.datagram(&names)?;
        self.offer_everywhere(now);
        Ok(socket)
    }

    /// Notes that the program has taken an accepted socket, which then leaves the listener's
    /// backlog.
    pub fn take_accepted(&mut self, socket: SocketId) {
        if let Some(socket) = self.shared.sockets.get_mut(socket)
            && let Some(listener) = socket.waits_in.take()
        {
            self.shared.accepts.note_taken(listener);
        }
    }

    /// Closes a socket. The peer gets a goodbye for its protocol. The name stays in the table of
    /// the connection, and a later message to it opens a new socket if a listener accepts it.
    pub fn close_socket(&mut self, now: Nanos, socket: SocketId) {
        let Some(open) = self.shared.sockets.get(socket) else { return };
        let place = open.connection;
        if let Some(at) = self.unresolved.iter().position(|waits| waits.socket == socket) {
            self.unresolved.swap_remove(at);
        }
        let number = self.shared.data.sockets[socket.index()].number;
        let Endpoint { connections, shared, .. } = self;
        let Some(connection) = connections.get_mut(place) else {
            shared.sockets.remove(&mut shared.data, socket);
            return;
        };
        let open = shared.sockets.get(socket).filter(|socket| socket.state == SocketState::Open);
        let name = open.and_then(|socket| socket.name().map(str::to_owned));
        connection.remove_socket(socket, shared);
        if let Some(number) = strowger_wire::connection::EntryNumber::new(number) {
            let goodbye = Goodbye::new(GoodbyeCode::UNSPECIFIED);
            connection.say_goodbye(now, &goodbye, number, shared);
        } else if let Some(name) = name {
            connection.say_goodbye_by_name(now, name, shared);
        }
        self.settle(now, place);
    }

    /// Stops accepting. Accepted sockets stay open.
    pub fn close_listener(&mut self, now: Nanos, listener: ListenerId) {
        if self.shared.accepts.close_listener(listener) {
            self.retarget(now);
        }
    }

    /// Closes a datagram socket.
    pub fn close_datagram_socket(&mut self, now: Nanos, socket: DatagramId) {
        if self.shared.accepts.close_datagram(socket) {
            self.retarget(now);
        }
    }

    /// Sets the traffic class of a socket's packets.
    pub fn set_class(&mut self, socket: SocketId, class: u8) {
        if self.shared.data.socket(socket).is_some() {
            self.shared.data.sockets[socket.index()].class = class;
        }
    }

    /// Sets the congestion mark of a socket's packets.
    pub fn set_ecn(&mut self, socket: SocketId, ecn: Ecn) {
        if self.shared.data.socket(socket).is_some() {
            self.shared.data.sockets[socket.index()].ecn = ecn;
        }
    }

    // Connections.

    /// Closes the connection with a peer, and its sockets. The peer gets the goodbye.
    pub fn close_connection(&mut self, now: Nanos, peer: &PeerId, goodbye: Goodbye) {
        let Some(place) = self.connections.of_peer(peer) else { return };
        let Endpoint { connections, shared, .. } = self;
        if let Some(connection) = connections.get_mut(place) {
            connection.close(now, goodbye, &CloseReason::ByUs, shared);
        }
        self.settle(now, place);
    }

    /// Closes all connections. [`is_closed`](Self::is_closed) is true when all peers have answered
    /// the goodbye, and after 1 s at the latest.
    pub fn close(&mut self, now: Nanos, goodbye: Goodbye) {
        self.closing_since.get_or_insert(now);
        for place in self.connections.places() {
            let Endpoint { connections, shared, .. } = self;
            if let Some(connection) = connections.get_mut(place) {
                connection.close(now, goodbye.clone(), &CloseReason::ByUs, shared);
            }
            self.settle(now, place);
        }
    }

    /// Whether closing, which [`close`](Self::close) starts, is complete.
    pub fn is_closed(&self) -> bool {
        self.closing_since.is_some()
            && self.connections.iter().all(|connection| connection.has_said_goodbye())
    }

    /// Asks a peer for its agent, and for the label and hops left with which the request arrived.
    /// The answer is [`Event::Identified`].
    ///
    /// # Errors
    /// [`NoConnection`].
    pub fn identify(&mut self, now: Nanos, peer: &PeerId) -> Result<(), NoConnection> {
        self.with_connection(now, peer, |connection, shared| {
            connection.asks_identify = true;
            connection.send_items(now, Traffic::Items, &[ControlItem::Identify], shared)
        })
    }

    /// Measures the round trip to a peer, with a packet that has `padding` bytes of padding. The
    /// result is [`Event::Pong`] or [`Event::PingLost`]. The packet may be longer than what is known
    /// to arrive.
    ///
    /// # Errors
    /// [`NoConnection`], also if there are no keys, if the packet is longer than both ends handle, or
    /// if too many pings are unanswered.
    pub fn ping(
        &mut self,
        now: Nanos,
        peer: &PeerId,
        padding: usize,
    ) -> Result<PingId, NoConnection> {
        let mut id = None;
        self.with_connection(now, peer, |connection, shared| {
            connection.next_ping += 1;
            let number = connection.next_ping;
            let is_sent = connection.paths.ping(number, padding).is_ok();
            id = is_sent.then_some(PingId(number));
            connection.run_paths(now, shared);
            is_sent
        })?;
        id.ok_or(NoConnection)
    }

    /// Tells a peer that this end will close the connection in `seconds` seconds, and why. The
    /// caller closes it.
    ///
    /// # Errors
    /// [`NoConnection`].
    pub fn leave(
        &mut self,
        now: Nanos,
        peer: &PeerId,
        seconds: u16,
        goodbye: &Goodbye,
    ) -> Result<(), NoConnection> {
        let (code, text) = (goodbye.code().0, goodbye.message());
        let item = ControlItem::Leaving { seconds, code, text };
        self.with_connection(now, peer, |connection, shared| {
            connection.send_items(now, Traffic::Unanswered, &[item], shared)
        })
    }

    /// Tells a peer how much this end wants to keep the connection: `weight` is from 0 to 255.
    ///
    /// # Errors
    /// [`NoConnection`].
    pub fn stay(&mut self, now: Nanos, peer: &PeerId, weight: u8) -> Result<(), NoConnection> {
        let item = ControlItem::Stay { weight };
        self.with_connection(now, peer, |connection, shared| {
            connection.send_items(now, Traffic::Unanswered, &[item], shared)
        })
    }

    /// Sends a peer a report on the packets of its lanes, for congestion control: at most once a
    /// second, and only if messages arrived.
    ///
    /// # Errors
    /// [`NoConnection`].
    pub fn report(&mut self, now: Nanos, peer: &PeerId) -> Result<(), NoConnection> {
        self.with_connection(now, peer, |connection, shared| connection.report(now, shared))
    }

    /// Moves a connection to another label: the label is validated, and then used.
    ///
    /// # Errors
    /// [`NoConnection`].
    pub fn set_label(
        &mut self,
        now: Nanos,
        peer: &PeerId,
        label: AnyLabel,
    ) -> Result<(), NoConnection> {
        let new = NewLabel { label, hops_left: HOPS_LEFT, packet_bytes_max: None };
        self.with_connection(now, peer, |connection, shared| {
            connection.paths.prefer(now, &new);
            connection.begin_if_wanted(now, shared);
            connection.run_paths(now, shared);
            true
        })
    }

    // Views.

    /// Information on the connection with a peer; `None` if there is no connection.
    pub fn connection(&self, peer: &PeerId) -> Option<ConnectionInfo> {
        let connection = self.connections.get(self.connections.of_peer(peer)?)?;
        Some(connection.info(&self.shared))
    }

    /// The peers with connections.
    pub fn peers(&self) -> Vec<PeerId> {
        self.connections.iter().map(|connection| connection.peer).collect()
    }

    /// Information on a socket; `None` if there is no such socket, or if it has no connection.
    pub fn socket(&self, socket: SocketId) -> Option<SocketInfo> {
        let open = self.shared.sockets.get(socket)?;
        let connection = self.connections.get(open.connection);
        Some(SocketInfo {
            peer: connection.map(|connection| connection.peer)?,
            protocol: open.name().unwrap_or_default().to_owned(),
            message_max: connection.map_or(0, |c| c.message_max(&self.shared)),
            state: open.state.clone(),
        })
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Approximate bytes of memory that the endpoint has allocated.
    pub fn memory(&self) -> usize {
        let each: usize = self.connections.iter().map(|c| c.memory(&self.shared)).sum();
        size_of::<Endpoint>()
            + each
            + self.connections.memory()
            + self.shared.memory()
            + self.handshakes.memory()
    }

    // Time and events.

    /// Does what is due. Call it after each other call and at [`next_timeout`](Self::next_timeout).
    pub fn poll(&mut self, now: Nanos) {
        self.handshakes.poll(now, &mut self.shared);
        self.poll_routing(now);
        self.poll_unresolved(now);
        let wakes = std::mem::take(&mut self.shared.data.wakes);
        for place in &wakes {
            let Endpoint { connections, shared, .. } = self;
            if let Some(connection) = connections.get_mut(*place) {
                connection.poll_use(now, shared);
            }
            self.settle(now, *place);
        }
        if self.shared.data.wakes.is_empty() {
            self.shared.data.wakes = wakes;
            self.shared.data.wakes.clear();
        }
        // The number of polls is bounded, so that a fault in one connection's timer cannot block
        // the loop.
        for _ in 0..=self.connections.len() {
            let Some(place) = self.connections.next_due(now) else { break };
            let Endpoint { connections, shared, .. } = self;
            if let Some(connection) = connections.get_mut(place) {
                connection.poll(now, shared);
            }
            self.settle(now, place);
        }
    }

    /// The time at which [`poll`](Self::poll) has work; `None` if only another call can cause work.
    pub fn next_timeout(&self) -> Option<Nanos> {
        let times = [
            self.connections.next_timeout(),
            self.handshakes.next_timeout(),
            self.routing.next_timeout(),
            self.unresolved.iter().map(|waits| waits.deadline).min(),
            self.shared.data.wakes.first().map(|_| Nanos::ZERO),
        ];
        times.into_iter().flatten().min()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shared.events.pop_front()
    }
}

const _: () = assert!(GOODBYE_TIME.0 <= 1_000_000_000);

impl core::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Endpoint").field("local", &self.shared.config.local).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
