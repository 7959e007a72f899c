//! Nodes: an identity on a slot, and its connections.

use std::{
    net::Ipv6Addr,
    sync::{Arc, Weak, atomic::AtomicBool},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crossbeam_queue::ArrayQueue;
use strowger_connection::{
    Counters, Destination, Endpoint, EndpointConfig, Goodbye, ListenOptions, Only, Policy,
    limits::LONGEST_PACKET,
};
use strowger_crypto::{Entropy, IdentityKey, NetworkId, OsEntropy, PeerId, aead::Provider};
use strowger_frame::{Pool, PoolSpec, ready::ReadyBits, reserve::Chunks};
use strowger_io::Doorbell;
use strowger_routing::{NoRouting, PeerRouting, StaticTable};
use strowger_wire::{Scheme, limits::NETWORK_ID_BYTES_MAX};

use crate::{
    announce::Announcing,
    attach::{Attachment, RECEIVES},
    connecting::{Connecting, IntoProtocolNames, answer_of},
    datagram_socket::{DatagramShared, DatagramSocket, Inner},
    driver::{Clock, Driver, Settings},
    error::{ListenError, StartError},
    event::{EventHub, Events},
    handle::ConnectionHandle,
    limits::{
        COPY_CHUNKS, DATAGRAM_SOCKETS_MAX, HOLD_MAX, RECEIVE_CHUNKS, REQUESTS_MAX, RING_DEPTH,
        RING_DEPTH_MAX, SOCKETS_MAX, TRAIN_CHUNKS,
    },
    listener::{Listener, ListenerShared},
    reply::{Reply, reply},
    shared::{Alive, NodeShared, NodeTally, Request},
};

/// The settings of a node, and the calls that start it.
#[must_use = "call start"]
pub struct NodeBuilder {
    identity: Option<IdentityKey>,
    network: Vec<u8>,
    attachment: Option<Attachment>,
    routing: Routes,
    policy: Option<Arc<dyn Policy>>,
    entropy: Box<dyn Entropy + Send>,
    provider: Provider,
    hold_max: usize,
    ring_depth: usize,
    longest_packet: u16,
    hide_identity: bool,
    accept_without_peer_id: bool,
    idle_time_s: u16,
    agent: Option<String>,
    announces: bool,
}

/// The facts about the slot and its switch, for [`NodeBuilder::routing_from`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SlotFacts {
    /// The scheme of the switch.
    pub scheme: Scheme,
    /// The number of the slot, if it is known. It may change while the node runs.
    pub slot: Option<u32>,
}

/// Makes routing from the facts of the slot.
type MakeRouting = dyn FnOnce(&SlotFacts) -> Box<dyn PeerRouting>;

/// The source of routes.
enum Routes {
    Given(Box<dyn PeerRouting>),
    Made(Box<MakeRouting>),
}

impl NodeBuilder {
    fn new() -> Self {
        Self {
            identity: None,
            network: Vec::new(),
            attachment: None,
            routing: Routes::Given(Box::new(NoRouting::default())),
            policy: None,
            entropy: Box::new(OsEntropy),
            provider: Provider::DEFAULT,
            hold_max: HOLD_MAX,
            ring_depth: RING_DEPTH,
            longest_packet: LONGEST_PACKET,
            hide_identity: false,
            accept_without_peer_id: false,
            idle_time_s: strowger_connection::limits::IDLE_TIME_S,
            agent: None,
            announces: false,
        }
    }

    /// Sets the identity. Its PeerId is the address of this node.
    pub fn identity(mut self, key: IdentityKey) -> Self {
        self.identity = Some(key);
        self
    }

    /// Sets the name of the network, which is equal at both ends of a connection. The default is
    /// empty.
    pub fn network(mut self, name: impl AsRef<[u8]>) -> Self {
        self.network = name.as_ref().to_vec();
        self
    }

    /// Sets the slot: a [`LocalPort`](strowger_runtime::LocalPort) of a relay in this process, or
    /// [`Unix::at`](crate::attach::Unix::at) the socket of a relay in another process.
    pub fn attach(mut self, port: impl Into<Attachment>) -> Self {
        self.attachment = Some(port.into());
        self
    }

    /// Sets the address book: it finds labels for peers. Without [`policy`](Self::policy), the
    /// peers of the book with the purpose `accept` may connect to this node.
    pub fn address_book(mut self, table: StaticTable) -> Self {
        if self.policy.is_none() {
            let entries = table.book().entries().iter();
            let accepted = entries.filter(|entry| entry.purposes.accept);
            self.policy = Some(Arc::new(Only::new(accepted.map(|entry| entry.peer_id))));
        }
        self.routing = Routes::Given(Box::new(table));
        self
    }

    /// Sets the routing, which finds labels for peers. Without routing, `connect` needs a
    /// [`Destination`] with a label.
    pub fn routing(mut self, routing: impl PeerRouting + 'static) -> Self {
        self.routing = Routes::Given(Box::new(routing));
        self
    }

    /// As [`routing`](Self::routing), for routing that depends on the slot: the closure makes it
    /// when the node is attached.
    pub fn routing_from(
        mut self,
        make: impl FnOnce(&SlotFacts) -> Box<dyn PeerRouting> + 'static,
    ) -> Self {
        self.routing = Routes::Made(Box::new(make));
        self
    }

    /// Sets whether this node announces itself to its switch while it runs, so that nodes that ask
    /// the switch find this node by PeerId. Without an announcement only peers that know a label
    /// reach it. A switch without an identity accepts no announcements, and a port in this process
    /// has no switch to ask.
    pub fn announce(mut self, announces: bool) -> Self {
        self.announces = announces;
        self
    }

    /// Sets who may connect to this node, and who may use which protocol. Without a policy and an
    /// address book, no peer may connect.
    pub fn policy(mut self, policy: impl Policy + 'static) -> Self {
        self.policy = Some(Arc::new(policy));
        self
    }

    /// Sets the number of messages of a socket that the program may hold in the frames in which
    /// they arrived; 256 without this call. The driver copies up to 256 further messages and counts
    /// `messages_copied`; it drops messages beyond these and counts `rx_hold_full`.
    pub fn hold_max(mut self, messages: usize) -> Self {
        self.hold_max = messages;
        self
    }

    /// Sets the number of messages that wait in each direction of a socket; 64 without this call,
    /// at most 4,096. The number is rounded up to a power of two.
    pub fn ring_depth(mut self, messages: usize) -> Self {
        self.ring_depth = messages.clamp(1, RING_DEPTH_MAX);
        self
    }

    /// Sets the longest packet, in bytes with the switch header; 1,428 without this call. A unix
    /// port may set a lower limit.
    pub fn longest_packet(mut self, bytes: u16) -> Self {
        self.longest_packet = bytes;
        self
    }

    /// Sets whether this node always connects by PeerId. Then the identity of this node stays
    /// hidden from an attacker who later gets the static key of the peer. Early messages are not
    /// possible.
    pub fn hide_identity(mut self, hides: bool) -> Self {
        self.hide_identity = hides;
        self
    }

    /// Sets whether this node answers handshakes of nodes that know only a label of this node
    /// (wire.md W6-10).
    pub fn accept_without_peer_id(mut self, accepts: bool) -> Self {
        self.accept_without_peer_id = accepts;
        self
    }

    /// Sets the time after which a connection without sockets and without traffic is closed; 300 s
    /// without this call. Fractions of a second are ignored.
    pub fn idle_time(mut self, time: Duration) -> Self {
        self.idle_time_s = u16::try_from(time.as_secs()).unwrap_or(u16::MAX);
        self
    }

    /// Sets name and version of the program, for peers that ask with `identify`; at most 32 bytes.
    pub fn agent(mut self, agent: &str) -> Self {
        self.agent = Some(agent.to_owned());
        self
    }

    /// Sets the provider of the cipher.
    pub fn provider(mut self, provider: Provider) -> Self {
        self.provider = provider;
        self
    }

    /// Sets the source of randomness; that of the kernel without this call.
    pub fn entropy(mut self, entropy: impl Entropy + Send + 'static) -> Self {
        self.entropy = Box::new(entropy);
        self
    }

    /// Starts the node and its driver thread.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(self) -> Result<Node, StartError> {
        let (node, driver) = self.build(false)?;
        std::thread::Builder::new().name("strowger-node".into()).spawn(move || driver.run())?;
        Ok(node)
    }

    /// Starts the node without a thread: the program drives it, with [`Driver::poll`] and
    /// [`Driver::sleep`], or with its own `ppoll` and [`Driver::arm`].
    ///
    /// Then [`Node::listen`] and [`Node::datagram_socket`] do not wait for the driver. If the
    /// endpoint refuses the names, the listener or socket is closed.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start_manual(self) -> Result<(Node, Driver), StartError> {
        self.build(true)
    }

    fn build(self, is_manual: bool) -> Result<(Node, Driver), StartError> {
        let key = self.identity.ok_or(StartError::NoIdentity)?;
        let network = NetworkId::new(&self.network)
            .ok_or(StartError::NetworkName { max: NETWORK_ID_BYTES_MAX })?;
        let (port, facts) = self.attachment.ok_or(StartError::NoAttachment)?.open()?;
        let clock = Clock::start();
        let now = clock.now();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let longest_packet =
            facts.longest_packet.map_or(self.longest_packet, |port| port.min(self.longest_packet));
        let mut config = EndpointConfig::new(&key, network, facts.scheme)
            .provider(self.provider)
            .wall_at_zero(wall.as_nanos() as u64)
            .longest_packet(longest_packet)
            .hide_identity(self.hide_identity)
            .accept_without_peer_id(self.accept_without_peer_id)
            .idle_time_s(self.idle_time_s);
        if let Some(agent) = &self.agent {
            config = config.agent(agent);
        }
        let policy = self.policy.unwrap_or_else(|| Arc::new(Only::default()));
        let place = facts.place.get();
        let slot = SlotFacts { scheme: facts.scheme, slot: place.map(|place| place.slot) };
        let peer = key.public().peer_id();
        let mut routing = match self.routing {
            Routes::Given(routing) => routing,
            Routes::Made(make) => make(&slot),
        };
        if self.announces {
            let wall = wall.as_nanos() as u64;
            routing = Box::new(Announcing::new(routing, key, network, facts.place, wall));
        }
        let endpoint = Endpoint::new(config, routing, policy, self.entropy, now)?;
        let spec = PoolSpec { trains: TRAIN_CHUNKS, singles: COPY_CHUNKS, huge_pages: false };
        let mut pool = Pool::new(&spec)?;
        pool.reserve(RECEIVES, Chunks { trains: RECEIVE_CHUNKS, singles: 0 });
        let doorbell = Doorbell::new()?;
        let shared = Arc::new(NodeShared {
            peer,
            ready: ReadyBits::new(SOCKETS_MAX),
            ready_datagrams: ReadyBits::new(DATAGRAM_SOCKETS_MAX),
            requests: ArrayQueue::new(REQUESTS_MAX),
            driver: doorbell.waker(),
            sweep: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            events: EventHub::default(),
            tally: NodeTally::default(),
            is_manual,
        });
        let alive = Arc::new(Alive(shared.clone()));
        let settings = Settings { depth: self.ring_depth, hold_max: self.hold_max };
        let weak: Weak<Alive> = Arc::downgrade(&alive);
        let driver = Driver::new(shared, weak, endpoint, port, pool, clock, settings, doorbell);
        Ok((Node { alive, depth: self.ring_depth }, driver))
    }
}

impl std::fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeBuilder").field("attachment", &self.attachment).finish_non_exhaustive()
    }
}

/// An identity on a slot, with all its connections. A clone is another handle of the same node.
///
/// The node runs until [`close`](Self::close), or until all its handles, sockets and listeners are
/// dropped. Then it sends goodbyes to its peers. A program that exits should call `close` and wait,
/// so that the goodbyes are sent.
#[derive(Clone)]
pub struct Node {
    alive: Arc<Alive>,
    depth: usize,
}

impl Node {
    /// Makes a builder with the default settings.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::new()
    }

    /// The PeerId of this node, by which others connect to it.
    pub fn peer_id(&self) -> PeerId {
        self.alive.0.peer
    }

    /// The IPv6 address of this node in adapters and gateways (wire.md W6-120).
    pub fn ip(&self) -> Ipv6Addr {
        self.alive.0.peer.ip6()
    }

    /// Opens a socket to this peer, in the first of these protocols that the peer accepts.
    ///
    /// Connecting takes one round trip, or none if there is a connection. With several names, or if
    /// only the peer's PeerId is known, connecting takes two.
    pub fn connect(
        &self,
        to: impl Into<Destination>,
        protocols: impl IntoProtocolNames,
    ) -> Connecting {
        Connecting::new(self.alive.clone(), to.into(), protocols.into_names())
    }

    /// Accepts these protocols from peers that the policy allows.
    ///
    /// # Errors
    /// [`ListenError`]: another listener or datagram socket accepts one of the protocols, or a text
    /// is no name.
    pub fn listen(&self, protocols: impl IntoProtocolNames) -> Result<Listener, ListenError> {
        self.listen_with(protocols, ListenOptions::new())
    }

    /// As [`listen`](Self::listen), with options.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn listen_with(
        &self,
        protocols: impl IntoProtocolNames,
        options: ListenOptions,
    ) -> Result<Listener, ListenError> {
        let names = protocols.into_names()?;
        let shared = Arc::new(ListenerShared::new());
        let (responder, waiting) = reply();
        let listener = shared.clone();
        self.alive.0.request(Request::Listen { names, options, listener, reply: responder })?;
        answer_of(&self.alive, waiting)?;
        Ok(Listener { shared, alive: self.alive.clone() })
    }

    /// Opens one socket for these protocols and all peers that the policy allows, for gossip, hash
    /// tables and UDP.
    ///
    /// # Errors
    /// As [`listen`](Self::listen).
    pub fn datagram_socket(
        &self,
        protocols: impl IntoProtocolNames,
    ) -> Result<DatagramSocket, ListenError> {
        let names = protocols.into_names()?;
        let shared = Arc::new(DatagramShared::new(self.depth));
        let (responder, waiting) = reply();
        let socket = shared.clone();
        self.alive.0.request(Request::DatagramSocket { names, socket, reply: responder })?;
        answer_of(&self.alive, waiting)?;
        Ok(DatagramSocket(Arc::new(Inner { shared, alive: self.alive.clone() })))
    }

    /// The connection with a peer, for paths, round trips, `identify` and closing.
    pub fn connection(&self, peer: &PeerId) -> ConnectionHandle {
        ConnectionHandle { alive: self.alive.clone(), peer: *peer }
    }

    /// The peers with connections.
    pub fn peers(&self) -> Reply<Vec<PeerId>> {
        let (responder, waiting) = reply();
        let _ = self.alive.0.request(Request::Peers { reply: responder });
        waiting
    }

    /// The counters of the endpoint: every packet and every message is counted once.
    pub fn counters(&self) -> Reply<Counters> {
        let (responder, waiting) = reply();
        let _ = self.alive.0.request(Request::Counters { reply: responder });
        waiting
    }

    /// The counters of queues and memory, for all sockets together.
    pub fn queue_counters(&self) -> QueueCounters {
        self.alive.0.tally.read()
    }

    /// A subscription to the events of the node, from now on.
    pub fn events(&self) -> Events {
        self.alive.0.events.subscribe()
    }

    /// Closes the node: all peers get this goodbye, and all sockets end. Takes 1 s at most.
    pub fn close(self, goodbye: Goodbye) -> Reply<()> {
        let (responder, waiting) = reply();
        let _ = self.alive.0.request(Request::Close { goodbye, reply: responder });
        waiting
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("peer_id", &self.peer_id()).finish_non_exhaustive()
    }
}

/// Counters of queues and memory of a node. Each message that the endpoint delivered was received
/// by the program, is queued, or is counted here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueCounters {
    /// Messages that were dropped because a receive queue was full, or its socket was closed.
    pub rx_queue_full: u64,
    /// Pass-through messages that were dropped because half of a receive queue was taken.
    pub pass_through_full: u64,
    /// Messages that were dropped because the program holds too many messages of a socket.
    pub rx_hold_full: u64,
    /// Messages that were copied because the program holds many messages of a socket.
    pub messages_copied: u64,
    /// Messages that were queued and that the endpoint then refused.
    pub tx_refused: u64,
    /// Packets that were dropped because the switch was gone.
    pub tx_port_gone: u64,
    /// Sockets that peers opened and that were closed, because too many waited at their listener.
    pub backlog_full: u64,
    /// Packets of the control part, and packets that needed a copy, that were dropped for lack of
    /// memory.
    pub no_memory: u64,
}

impl NodeTally {
    fn read(&self) -> QueueCounters {
        use std::sync::atomic::{AtomicU64, Ordering};
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        QueueCounters {
            rx_queue_full: read(&self.rx_queue_full),
            pass_through_full: read(&self.pass_through_full),
            rx_hold_full: read(&self.rx_hold_full),
            messages_copied: read(&self.messages_copied),
            tx_refused: read(&self.tx_refused),
            tx_port_gone: read(&self.tx_port_gone),
            backlog_full: read(&self.backlog_full),
            no_memory: read(&self.no_memory),
        }
    }
}
