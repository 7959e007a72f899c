//! A network of model switches and endpoints, in virtual time.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
};

use strowger_connection::{
    ConnectOptions, ConnectionInfo, DatagramId, Destination, Endpoint, EndpointConfig, Event,
    ListenOptions, ListenerId, MessageTo, Policy, ProtocolNames, Received, SendRefused, Sent,
    SocketId,
    crypto::{
        Certificate, Entropy, IdentityKey, LocalIdentity, Nanos, NetworkId, PeerId, Secret,
        SeededEntropy,
    },
    frame::{ChunkClass, Frame, Mark, Pool, PoolSpec},
    routing::{
        Candidate, Candidates, ControlReply, LookupEnd, LookupResult, LookupTarget, Outcome,
        PeerRouting, QuestionQueue, Route, Source,
    },
    wire::{
        Scheme, Slot,
        control::{Message, Reason},
        label::{AnyLabel, Hop, Label, Step, StepError, step},
        scheme::V3X5X8,
        switch_header::{AnyHeader, Flags, Header, HeaderRepr},
    },
};
use strowger_testkit::Rng;

/// A millisecond in nanoseconds.
pub(crate) const MS: u64 = 1_000_000;
/// A second in nanoseconds.
pub(crate) const SECOND: u64 = 1_000 * MS;
/// The wall clock at the zero of virtual time.
const WALL: u64 = 1_700_000_000 * SECOND;
/// Bytes of a switch header with a 64-bit label.
pub(crate) const SWITCH_HEADER_BYTES: usize = 16;
/// The scheme of all switches.
const SCHEME: &Scheme = &V3X5X8;

/// The seeds of a test: `STROWGER_SEEDS` of them, or `few` by default.
pub(crate) fn seeds(few: u64) -> impl Iterator<Item = u64> {
    let count = std::env::var("STROWGER_SEEDS").ok().and_then(|text| text.parse().ok());
    (0..count.unwrap_or(few)).map(|seed| seed.wrapping_mul(0x9e37_79b9) + 1)
}

/// A place at which packets arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// At a switch, by this slot.
    Switch(usize, u32),
    /// At an endpoint.
    End(usize),
    /// At a program that never answers. The log of the sink keeps the packets.
    Sink(usize),
}

/// One direction of a link.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    to: Place,
    /// The delay in nanoseconds.
    pub(crate) delay: u64,
    /// A random part of the delay, up to this many nanoseconds.
    pub(crate) jitter: u64,
    /// Packets lost, per thousand.
    pub(crate) loss: usize,
    /// Packets repeated, per thousand.
    pub(crate) repeats: usize,
    /// The longest packet, with the switch header.
    pub(crate) mtu: usize,
    /// Whether all packets are lost.
    pub(crate) is_cut: bool,
}

#[derive(Default)]
struct ModelSwitch {
    slots: BTreeMap<u32, Wire>,
}

/// A packet in flight.
struct Arrival {
    at: Place,
    /// The slot by which the packet came in at the last switch.
    ingress: u32,
    packet: Vec<u8>,
}

/// A message that was delivered to a program.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    /// The peer that the socket belongs to.
    pub(crate) peer: PeerId,
    /// The protocol name of the socket; empty at a datagram socket.
    pub(crate) protocol: String,
    /// The message.
    pub(crate) bytes: Vec<u8>,
    /// Whether it was an early message.
    pub(crate) early: bool,
    /// Whether the connection has not sealed it.
    pub(crate) pass_through: bool,
}

/// A packet that an endpoint sent or received, with the label to its receiver or sender.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The time of the packet.
    pub(crate) at: u64,
    /// The slot by which a received packet entered the endpoint's switch; 0 for a sent packet.
    pub(crate) ingress: u32,
    /// The label: as sent without the marker, or the return label as received.
    #[expect(dead_code)]
    pub(crate) label: u64,
    /// The whole packet.
    pub(crate) packet: Vec<u8>,
}

/// One endpoint, with its routing and the record of its traffic.
pub(crate) struct End {
    /// The endpoint; `None` while its process has ended.
    pub(crate) endpoint: Option<Endpoint>,
    /// The seed of its identity.
    pub(crate) seed: u8,
    /// The endpoint's switch and slot.
    pub(crate) at: (usize, u32),
    /// The reported events.
    pub(crate) events: Vec<Event>,
    /// The delivered messages.
    pub(crate) got: Vec<Got>,
    /// Packets that it sent.
    pub(crate) sent: Vec<Seen>,
    /// Packets that it received.
    pub(crate) received: Vec<Seen>,
    /// The labels that its routing knows.
    pub(crate) labels: Labels,
    /// The offset of the wall clock of later processes, in nanoseconds.
    pub(crate) skew: i64,
    /// Whether later processes hide their identity.
    pub(crate) hides_identity: bool,
    policy: Arc<dyn Policy>,
    accepts_pass_through: bool,
}

/// Routing that returns labels at once.
#[derive(Clone, Default)]
pub(crate) struct Labels(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    labels: BTreeMap<PeerId, Vec<AnyLabel>>,
    wanted: Vec<LookupTarget>,
}

impl Labels {
    /// Sets the labels to a peer.
    pub(crate) fn set(&self, peer: PeerId, labels: Vec<AnyLabel>) {
        self.0.lock().unwrap().labels.insert(peer, labels);
    }
}

impl PeerRouting for Labels {
    fn lookup(&mut self, _: Nanos, target: LookupTarget, _: &mut QuestionQueue) {
        let mut known = self.0.lock().unwrap();
        if !known.wanted.contains(&target) {
            known.wanted.push(target);
        }
    }

    fn cancel(&mut self, target: &LookupTarget) {
        self.0.lock().unwrap().wanted.retain(|wanted| wanted != target);
    }

    fn handle_reply(&mut self, _: Nanos, _: &ControlReply<'_>, _: &mut QuestionQueue) {}

    fn poll(&mut self, _: Nanos, _: &mut QuestionQueue) -> Option<LookupResult> {
        let mut known = self.0.lock().unwrap();
        let target = known.wanted.pop()?;
        let mut candidates = Candidates::new();
        for (peer, labels) in &known.labels {
            for label in labels.iter().filter(|_| target.is(peer)) {
                let route = Route::Label(*label);
                let _ = candidates.try_push(Candidate::new(*peer, route, Source::Program));
            }
        }
        Some(LookupResult { target, candidates, end: Some(LookupEnd::Complete) })
    }

    fn feedback(&mut self, _: Nanos, _: &Route, _: &Outcome) {}

    fn next_timeout(&self) -> Option<Nanos> {
        (!self.0.lock().unwrap().wanted.is_empty()).then_some(Nanos(0))
    }
}

/// The key of the identity with this seed.
pub(crate) fn key(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&Secret::from_bytes([seed; 32]))
}

/// The PeerId of the identity with this seed.
pub(crate) fn peer(seed: u8) -> PeerId {
    key(seed).public().peer_id()
}

/// The network of all endpoints.
pub(crate) fn network() -> NetworkId {
    NetworkId::new(b"test").unwrap()
}

/// One protocol name.
pub(crate) fn names(name: &str) -> ProtocolNames {
    ProtocolNames::new([name]).unwrap()
}

/// An attacker on a wire: returns the packets that arrive at a place instead of a given packet.
pub(crate) type Tap = Box<dyn FnMut(Place, &[u8]) -> Vec<Vec<u8>>>;

/// The network.
pub(crate) struct World {
    /// Virtual time in nanoseconds.
    pub(crate) now: u64,
    /// The random numbers of the test.
    pub(crate) rng: Rng,
    /// The endpoints.
    pub(crate) ends: Vec<End>,
    /// The packets that arrived at each sink.
    pub(crate) sinks: Vec<Vec<Seen>>,
    /// If set, each packet as it arrived at each switch.
    pub(crate) log: Option<Vec<Vec<u8>>>,
    /// The attacker on the wires, if any.
    pub(crate) tap: Option<Tap>,
    /// Whether switches answer discarded packets with errors.
    pub(crate) sends_errors: bool,
    switches: Vec<ModelSwitch>,
    queue: BTreeMap<(u64, u64), Arrival>,
    sequence: u64,
    processes: u64,
    pool: Pool,
}

impl World {
    /// A network without switches.
    pub(crate) fn new(seed: u64) -> World {
        let spec = PoolSpec { trains: 0, singles: 4_096, huge_pages: false };
        World {
            now: SECOND,
            rng: Rng::new(seed),
            ends: Vec::new(),
            sinks: Vec::new(),
            log: None,
            tap: None,
            sends_errors: true,
            switches: Vec::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            processes: seed << 16,
            pool: Pool::new(&spec).unwrap(),
        }
    }

    /// Two endpoints, 0 and 1, with two paths between them:
    ///
    /// ```text
    ///              3      2        3      2
    /// end 0 ─2─ sw 0 ───── sw 1 ───── sw 2 ─3─ end 1
    ///             │4    2        3    4│
    ///             └────── sw 3 ────────┘
    /// ```
    pub(crate) fn two_paths(seed: u64) -> World {
        let mut world = World::new(seed);
        for _ in 0..4 {
            world.switches.push(ModelSwitch::default());
        }
        world.link((0, 3), (1, 2));
        world.link((1, 3), (2, 2));
        world.link((0, 4), (3, 2));
        world.link((3, 3), (2, 4));
        world.end(1, (0, 2));
        world.end(2, (2, 3));
        world
    }

    /// Three switches in a row, as 0, 1 and 2 of [`World::two_paths`], without endpoints.
    pub(crate) fn three_switches(&mut self) {
        self.switches.extend((0..3).map(|_| ModelSwitch::default()));
        self.link((0, 3), (1, 2));
        self.link((1, 3), (2, 2));
    }

    /// Links two slots of two switches, with 5 ms each way.
    pub(crate) fn link(&mut self, a: (usize, u32), b: (usize, u32)) {
        self.attach(a, Place::Switch(b.0, b.1), 5 * MS);
        self.attach(b, Place::Switch(a.0, a.1), 5 * MS);
    }

    fn attach(&mut self, at: (usize, u32), to: Place, delay: u64) {
        let wire = Wire { to, delay, jitter: 0, loss: 0, repeats: 0, mtu: 1_428, is_cut: false };
        self.switches[at.0].slots.insert(at.1, wire);
    }

    /// Adds an endpoint of the identity with this seed, and starts it.
    pub(crate) fn end(&mut self, seed: u8, at: (usize, u32)) -> usize {
        self.end_with(seed, at, Arc::new(strowger_connection::Anyone), true)
    }

    /// Adds an endpoint with this policy.
    pub(crate) fn end_with(
        &mut self,
        seed: u8,
        at: (usize, u32),
        policy: Arc<dyn Policy>,
        accepts_pass_through: bool,
    ) -> usize {
        let index = self.ends.len();
        self.attach(at, Place::End(index), 0);
        self.ends.push(End {
            endpoint: None,
            seed,
            at,
            events: Vec::new(),
            got: Vec::new(),
            sent: Vec::new(),
            received: Vec::new(),
            labels: Labels::default(),
            skew: 0,
            hides_identity: false,
            policy,
            accepts_pass_through,
        });
        self.restart(index);
        index
    }

    /// Adds a program that never answers, and returns the number of its sink.
    pub(crate) fn sink(&mut self, at: (usize, u32)) -> usize {
        let index = self.sinks.len();
        self.attach(at, Place::Sink(index), 0);
        self.sinks.push(Vec::new());
        index
    }

    /// Ends the process of an endpoint without a goodbye, and starts another one.
    pub(crate) fn restart(&mut self, index: usize) {
        self.processes += 1;
        let now = Nanos(self.now);
        let entropy = SeededEntropy::new(self.processes);
        let end = &mut self.ends[index];
        let local = LocalIdentity::for_connections(&key(end.seed), network());
        let config = EndpointConfig::of(local, *SCHEME)
            .wall_at_zero(WALL.saturating_add_signed(end.skew))
            .hide_identity(end.hides_identity)
            .accept_pass_through(end.accepts_pass_through);
        let routing = Box::new(end.labels.clone());
        let entropy: Box<dyn Entropy + Send> = Box::new(entropy);
        let endpoint = Endpoint::new(config, routing, end.policy.clone(), entropy, now);
        end.endpoint = Some(endpoint.unwrap());
    }

    /// Every wire.
    pub(crate) fn wires(&mut self) -> impl Iterator<Item = &mut Wire> {
        self.switches.iter_mut().flat_map(|switch| switch.slots.values_mut())
    }

    /// The wires between switches.
    pub(crate) fn links(&mut self) -> impl Iterator<Item = &mut Wire> {
        self.wires().filter(|wire| matches!(wire.to, Place::Switch(..)))
    }

    /// The wire out of a slot.
    pub(crate) fn wire(&mut self, switch: usize, slot: u32) -> &mut Wire {
        self.switches[switch].slots.get_mut(&slot).unwrap()
    }

    /// Renumbers a slot. The old number leads nowhere.
    pub(crate) fn renumber(&mut self, switch: usize, from: u32, to: u32) {
        let wire = self.switches[switch].slots.remove(&from).unwrap();
        let back = wire.to;
        self.switches[switch].slots.insert(to, wire);
        let place = |old| Place::Switch(switch, old);
        match back {
            Place::Switch(..) => {
                for wire in self.wires().filter(|wire| wire.to == place(from)) {
                    wire.to = place(to);
                }
            }
            Place::End(index) => self.ends[index].at.1 = to,
            Place::Sink(_) => {}
        }
    }

    /// The label of an endpoint along these egress slots.
    pub(crate) fn label(&self, from: usize, egresses: &[u32]) -> AnyLabel {
        AnyLabel::from(self.label64(from, egresses))
    }

    /// The label along these egress slots, in 64 bits.
    pub(crate) fn label64(&self, from: usize, egresses: &[u32]) -> Label<u64> {
        self.label_from(self.ends[from].at, egresses)
    }

    /// The label of a program on this slot along these egress slots.
    pub(crate) fn label_from(&self, at: (usize, u32), egresses: &[u32]) -> Label<u64> {
        let mut at = Place::Switch(at.0, at.1);
        let mut hops = Vec::new();
        for egress in egresses {
            let Place::Switch(switch, ingress) = at else { panic!("the path ends early") };
            let (ingress, egress) = (Slot::new(ingress), Slot::new(*egress));
            hops.push(Hop { scheme: SCHEME, ingress, egress });
            at = self.switches[switch].slots[&egress.number()].to;
        }
        Label::build(&hops).unwrap().0
    }

    /// The label from end 0 to end 1 by switch 1, or by switch 3.
    pub(crate) fn ahead(&self, by: usize) -> AnyLabel {
        self.label(0, if by == 1 { &[3, 3, 3] } else { &[4, 3, 3] })
    }

    /// The label from end 1 to end 0 by switch 1, or by switch 3.
    pub(crate) fn behind(&self, by: usize) -> AnyLabel {
        self.label(1, if by == 1 { &[2, 2, 2] } else { &[4, 2, 2] })
    }

    /// The endpoint.
    pub(crate) fn endpoint(&mut self, end: usize) -> &mut Endpoint {
        self.ends[end].endpoint.as_mut().expect("the process runs")
    }

    /// The connection with a peer.
    pub(crate) fn info(&mut self, end: usize, peer: &PeerId) -> ConnectionInfo {
        self.endpoint(end).connection(peer).expect("there is a connection")
    }

    /// Accepts a protocol.
    pub(crate) fn listen(&mut self, end: usize, name: &str, options: ListenOptions) -> ListenerId {
        let now = Nanos(self.now);
        self.endpoint(end).listen(now, names(name), options).unwrap()
    }

    /// Connects by PeerId along a label.
    pub(crate) fn connect(
        &mut self,
        from: usize,
        to: usize,
        label: AnyLabel,
        name: &str,
    ) -> SocketId {
        let destination = Destination::from(peer(self.ends[to].seed)).label(label);
        self.connect_to(from, destination, name, ConnectOptions::new())
    }

    /// Connects by static key along a label.
    pub(crate) fn connect_by_key(
        &mut self,
        from: usize,
        to: usize,
        label: AnyLabel,
        name: &str,
        options: ConnectOptions,
    ) -> SocketId {
        let certificate = self.certificate(to);
        let peer = Destination::from(peer(self.ends[to].seed));
        self.connect_to(from, peer.label_with_key(label, certificate), name, options)
    }

    /// The certificate of an endpoint's connection key.
    pub(crate) fn certificate(&self, end: usize) -> Certificate {
        let key = key(self.ends[end].seed);
        key.certify_connection_key(WALL, &network())
    }

    /// Connects.
    pub(crate) fn connect_to(
        &mut self,
        from: usize,
        to: Destination,
        name: &str,
        options: ConnectOptions,
    ) -> SocketId {
        let now = Nanos(self.now);
        let socket = self.endpoint(from).connect(now, to, names(name), options).unwrap();
        self.drive(from);
        socket
    }

    /// Sends a message.
    pub(crate) fn send(
        &mut self,
        end: usize,
        socket: SocketId,
        message: &[u8],
    ) -> Result<(), SendRefused> {
        let now = Nanos(self.now);
        let frame = self.frame(strowger_connection::HEADROOM_BYTES, message, 0);
        let sent = self.endpoint(end).send(now, socket, frame);
        self.finish_send(end, sent)
    }

    /// Sends a message of a datagram socket.
    pub(crate) fn send_to(
        &mut self,
        end: usize,
        socket: DatagramId,
        to: &PeerId,
        message: &[u8],
    ) -> Result<(), SendRefused> {
        let now = Nanos(self.now);
        let frame = self.frame(strowger_connection::HEADROOM_BYTES, message, 0);
        let sent = self.endpoint(end).send_to(now, socket, to, frame);
        self.finish_send(end, sent)
    }

    /// Sends a message that QUIC has sealed.
    pub(crate) fn send_pass_through(
        &mut self,
        end: usize,
        socket: SocketId,
        message: &[u8],
    ) -> Result<(), SendRefused> {
        let now = Nanos(self.now);
        let frame = self.frame(strowger_connection::HEADROOM_BYTES, message, 0);
        let sent = self.endpoint(end).send_pass_through(now, socket, frame);
        self.finish_send(end, sent)
    }

    fn finish_send(
        &mut self,
        end: usize,
        sent: Result<Sent, (SendRefused, Frame)>,
    ) -> Result<(), SendRefused> {
        let result = match sent {
            Ok(Sent::Packet(frame)) => {
                self.leave(end, frame.bytes().to_vec());
                Ok(())
            }
            Ok(Sent::Queued) => Ok(()),
            Err((why, _)) => Err(why),
        };
        self.drive(end);
        result
    }

    fn frame(&mut self, headroom: usize, bytes: &[u8], mark: u32) -> Frame {
        self.pool.reclaim();
        let mut chunk = self.pool.take(ChunkClass::Single).expect("the test frees its frames");
        chunk.bytes_mut()[headroom..][..bytes.len()].copy_from_slice(bytes);
        let mut frame = chunk.into_frame(headroom, bytes.len());
        frame.set_mark(Mark(mark));
        frame
    }

    /// Sends a packet of an endpoint into its switch.
    fn leave(&mut self, end: usize, packet: Vec<u8>) {
        let (switch, slot) = self.ends[end].at;
        let label = u64::from_be_bytes(packet[8..16].try_into().unwrap()) & !(1 << 63);
        let seen = Seen { at: self.now, ingress: 0, label, packet: packet.clone() };
        self.ends[end].sent.push(seen);
        self.arrive_after(0, Place::Switch(switch, slot), 0, packet);
    }

    /// Sends a packet as if it came into a switch by this slot, after a delay.
    pub(crate) fn inject(&mut self, delay: u64, switch: usize, slot: u32, packet: &[u8]) {
        self.arrive_after(delay, Place::Switch(switch, slot), 0, packet.to_vec());
    }

    /// Lets a packet arrive at a place, after a delay.
    pub(crate) fn arrive_at(&mut self, delay: u64, at: Place, ingress: u32, packet: Vec<u8>) {
        self.arrive_after(delay, at, ingress, packet);
    }

    fn arrive_after(&mut self, delay: u64, at: Place, ingress: u32, packet: Vec<u8>) {
        self.sequence += 1;
        let key = (self.now + delay, self.sequence);
        self.queue.insert(key, Arrival { at, ingress, packet });
    }

    /// Polls an endpoint and sends its packets, as a driver does.
    pub(crate) fn drive(&mut self, index: usize) {
        let now = Nanos(self.now);
        let mut packets = Vec::new();
        let Some(endpoint) = self.ends[index].endpoint.as_mut() else { return };
        endpoint.poll(now);
        while let Some(packet) = endpoint.poll_transmit(now) {
            packets.push(packet.to_vec());
            assert!(packets.len() < 10_000, "the endpoint sends without end");
        }
        let mut events = Vec::new();
        while let Some(event) = endpoint.poll_event() {
            if let Event::Accepted { socket, .. } = &event {
                endpoint.take_accepted(*socket);
            }
            events.push(event);
        }
        self.ends[index].events.extend(events);
        for packet in packets {
            self.leave(index, packet);
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, duration: u64) {
        let end = self.now + duration;
        let mut steps_now = 0;
        loop {
            let arrival = self.queue.keys().next().map(|(at, _)| *at);
            let timeout = (0..self.ends.len()).filter_map(|at| self.timeout(at)).min();
            let next = arrival.into_iter().chain(timeout).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            steps_now = if next > self.now { 0 } else { steps_now + 1 };
            assert!(
                steps_now < 20_000,
                "time stands still at {} ns; timeouts: {:?}; {:?}",
                self.now,
                (0..self.ends.len()).map(|end| self.timeout(end)).collect::<Vec<_>>(),
                self.ends.iter().map(|end| &end.events).collect::<Vec<_>>(),
            );
            self.now = self.now.max(next);
            while let Some(entry) = self.queue.first_entry().filter(|e| e.key().0 <= self.now) {
                let arrival = entry.remove();
                self.arrive(arrival);
            }
            for index in 0..self.ends.len() {
                if self.timeout(index).is_some_and(|at| at <= self.now) {
                    self.drive(index);
                }
            }
        }
        self.now = end;
    }

    /// Lets time pass until a condition holds, at most this long. Returns whether it held.
    pub(crate) fn run_until(
        &mut self,
        duration: u64,
        mut is_true: impl FnMut(&World) -> bool,
    ) -> bool {
        let end = self.now + duration;
        while self.now < end && !is_true(self) {
            self.run(MS.min(end - self.now));
        }
        is_true(self)
    }

    fn timeout(&self, end: usize) -> Option<u64> {
        self.ends[end].endpoint.as_ref()?.next_timeout().map(|at| at.0)
    }

    fn arrive(&mut self, Arrival { at, ingress, mut packet }: Arrival) {
        match at {
            Place::Switch(switch, slot) => self.switch(switch, slot, &mut packet),
            Place::Sink(sink) => {
                let label = return_label(&mut packet, ingress).unwrap_or(0);
                self.sinks[sink].push(Seen { at: self.now, ingress, label, packet });
            }
            Place::End(index) => self.receive(index, ingress, packet),
        }
    }

    fn receive(&mut self, index: usize, ingress: u32, mut packet: Vec<u8>) {
        if self.ends[index].endpoint.is_none() {
            return;
        }
        let label = return_label(&mut packet, ingress).unwrap_or(0);
        let frame = self.frame(64, &packet, ingress);
        let now = Nanos(self.now);
        self.ends[index].received.push(Seen { at: self.now, ingress, label, packet });
        let endpoint = self.ends[index].endpoint.as_mut().unwrap();
        if let Received::Message { to, frame, info } = endpoint.receive(now, frame) {
            let (peer, protocol) = match to {
                MessageTo::Socket(id) => {
                    let socket = endpoint.socket(id).expect("a message has a socket");
                    (socket.peer, socket.protocol)
                }
                MessageTo::Datagram(_, peer) => (peer, String::new()),
            };
            let bytes = frame.bytes().to_vec();
            let (early, pass_through) = (info.is_early(), info.is_pass_through());
            self.ends[index].got.push(Got { peer, protocol, bytes, early, pass_through });
        }
        self.drive(index);
    }

    /// Makes one step of a switch (wire.md 1.2 and 1.3).
    fn switch(&mut self, switch: usize, slot: u32, packet: &mut [u8]) {
        if let Some(log) = &mut self.log {
            log.push(packet.to_vec());
        }
        let Ok(AnyHeader::W64(mut header)) = AnyHeader::parse(packet) else {
            return; // an answer to a packet whose width an attacker has changed
        };
        let ingress = Slot::new(slot);
        let (label, shift, hops) = (header.label(), header.shift(), header.hops_left());
        if hops == 0 {
            return self.error(switch, slot, packet, Reason::new(1));
        }
        let slots = &self.switches[switch].slots;
        let taken = |slot: Slot| slots.contains_key(&slot.number());
        let (to, next) = match step(SCHEME, label, shift, ingress, taken, slot == 1) {
            Ok(Step::Forward { to, label, shift }) => (to.number(), (label, shift)),
            Ok(Step::Arrive { .. }) => return,
            Err(why) => {
                let number = match why {
                    StepError::SpentLabel => 2,
                    StepError::NoSuchDirector => 3,
                    StepError::EmptySlot => 4,
                    StepError::UTurn => 6,
                    StepError::BeyondSwitch => 7,
                    StepError::ReturnPath => 8,
                    StepError::RegisterFull => 9,
                };
                return self.error(switch, slot, packet, Reason::new(number));
            }
        };
        let wire = slots[&to].clone();
        match wire.to {
            Place::Switch(..) => header.advance(next.0, next.1, hops - 1),
            Place::End(_) | Place::Sink(_) => {
                let director = SCHEME.decode(label.low()).expect("the step decoded it");
                let rest = label.forward(shift).register() >> director.width();
                if rest > 1 {
                    return self.error(switch, slot, packet, Reason::new(7));
                }
            }
        }
        if packet.len() > wire.mtu {
            return self.too_big(switch, slot, packet, wire.mtu);
        }
        self.transmit(&wire, slot, packet);
    }

    fn transmit(&mut self, wire: &Wire, ingress: u32, packet: &[u8]) {
        if wire.is_cut || self.rng.below(1_000) < wire.loss {
            return;
        }
        let copies = if self.rng.below(1_000) < wire.repeats { 2 } else { 1 };
        let mut packets = vec![packet.to_vec(); copies];
        if let Some(tap) = &mut self.tap {
            packets = packets.iter().flat_map(|packet| tap(wire.to, packet)).collect();
        }
        for packet in packets {
            let jitter = match wire.jitter {
                0 => 0,
                jitter => self.rng.next_u64() % jitter,
            };
            self.arrive_after(wire.delay + jitter, wire.to, ingress, packet);
        }
    }

    fn error(&mut self, switch: usize, slot: u32, packet: &mut [u8], why: Reason) {
        let offending: Vec<u8> = packet[..SWITCH_HEADER_BYTES].to_vec();
        let message = Message::Error { why, offending: &offending };
        self.answer(switch, slot, packet, &message);
    }

    fn too_big(&mut self, switch: usize, slot: u32, packet: &mut [u8], mtu: usize) {
        let offending: Vec<u8> = packet[..SWITCH_HEADER_BYTES].to_vec();
        let packet_bytes_max = (mtu + 8) as u16;
        let message = Message::TooBig { packet_bytes_max, offending: &offending };
        self.answer(switch, slot, packet, &message);
    }

    /// Sends an error of a switch about a packet that came in by a slot (W5-32 to W5-36, W5-51).
    fn answer(&mut self, switch: usize, slot: u32, packet: &mut [u8], message: &Message<'_>) {
        let bytes = message.to_bytes().to_vec();
        let AnyHeader::W64(header) = AnyHeader::parse(packet).unwrap() else { return };
        let flags = header.flags();
        let payload = header.payload().len();
        if !self.sends_errors || flags.no_errors || flags.control || payload < bytes.len() {
            return;
        }
        let Some(back) = back(&header, slot) else { return };
        let mut header = HeaderRepr::new(back, 0, 64);
        header.flags = Flags { no_errors: true, control: true, telemetry: false };
        header.flow = u16::from_be_bytes([packet[6], packet[7]]);
        let mut answer = vec![0; SWITCH_HEADER_BYTES];
        header.emit(&mut answer).unwrap();
        answer.extend(bytes);
        self.arrive_after(0, Place::Switch(switch, 1), 0, answer);
    }

    /// Sends an error as a switch would send it about a packet that came in by this slot.
    pub(crate) fn forge_error(&mut self, switch: usize, slot: u32, packet: &[u8], why: Reason) {
        self.error(switch, slot, &mut packet.to_vec(), why);
    }

    /// Sends a `too big` as a switch would send it about a packet that came in by this slot.
    pub(crate) fn forge_too_big(&mut self, switch: usize, slot: u32, packet: &[u8], mtu: usize) {
        self.too_big(switch, slot, &mut packet.to_vec(), mtu);
    }

    /// Fails if an endpoint did not count a message or a packet (R20).
    pub(crate) fn assert_balanced(&self) {
        for (index, end) in self.ends.iter().enumerate() {
            if let Some(endpoint) = &end.endpoint {
                let counters = endpoint.counters();
                assert!(counters.are_balanced(), "R20 at end {index}: {counters:#?}");
            }
        }
    }

    /// The packets of the log in which 8 bytes of one of the secrets occur.
    pub(crate) fn leaks(&self, secrets: &[&[u8]]) -> Vec<String> {
        let windows: HashSet<&[u8]> = secrets.iter().flat_map(|bytes| bytes.windows(8)).collect();
        let log = self.log.as_ref().expect("the world keeps a log");
        let leaked = |packet: &&Vec<u8>| packet.windows(8).any(|part| windows.contains(part));
        log.iter().filter(leaked).map(|packet| format!("{packet:02x?}")).collect()
    }

    /// Whether this event was reported.
    pub(crate) fn has(&self, end: usize, is_it: impl FnMut(&Event) -> bool) -> bool {
        self.ends[end].events.iter().any(is_it)
    }

    /// Whether the socket is connected.
    pub(crate) fn is_connected(&self, end: usize, socket: SocketId) -> bool {
        self.has(end, |event| matches!(event, Event::Connected { socket: s, .. } if *s == socket))
    }
}

/// The return label of a packet that came in by this slot (W1.3-4).
fn back(header: &Header<'_, u64>, slot: u32) -> Option<Label<u64>> {
    let director = SCHEME.encode_least(Slot::new(slot)).ok()?;
    header.label().reverse(header.shift(), Some(director)).ok()
}

/// The return label of a packet at an endpoint.
pub(crate) fn return_label(packet: &mut [u8], ingress: u32) -> Option<u64> {
    let AnyHeader::W64(header) = AnyHeader::parse(packet).ok()? else { return None };
    Some(back(&header, ingress)?.register())
}

/// A data packet of an endpoint with these bytes behind the switch header.
pub(crate) fn packet(world: &World, end: usize, label: AnyLabel, payload: &[u8]) -> Vec<u8> {
    let _ = (world, end);
    let AnyLabel::W64(label) = label else { panic!("the model has labels of 64 bits") };
    packet_along(label, payload)
}

/// A data packet of a program on this slot, along these egress slots.
pub(crate) fn packet_from(
    world: &World,
    at: (usize, u32),
    egresses: &[u32],
    payload: &[u8],
) -> Vec<u8> {
    packet_along(world.label_from(at, egresses), payload)
}

fn packet_along(label: Label<u64>, payload: &[u8]) -> Vec<u8> {
    let (label, shift) = label.depart().unwrap();
    let mut packet = vec![0; SWITCH_HEADER_BYTES];
    HeaderRepr::new(label, shift, 64).emit(&mut packet).unwrap();
    packet.extend(payload);
    packet
}

/// The packet with another return path: `back` is a label from the switch that the packet came
/// from last.
pub(crate) fn with_return_path(packet: &[u8], back: Label<u64>) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let AnyHeader::W64(mut header) = AnyHeader::parse(&mut packet).unwrap() else {
        panic!("the model has labels of 64 bits")
    };
    let forward = header.label().forward(header.shift()).register();
    header.set_label(Label::new(forward | back.register().reverse_bits()));
    header.set_shift(back.bits() as u16);
    packet
}
