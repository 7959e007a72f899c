//! What the tests of sealed links stand on: an air that carries datagrams between addresses and keeps
//! a copy of each, and switches in it, driven by hand. It never reads a clock.

// Each test file uses another part of it.
#![allow(dead_code)]

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use strowger_crypto::{
    Entropy, EntropyFailed, IdentityKey, LocalIdentity, NetworkId, Secret, SeededEntropy,
    StaticPublic,
};
use strowger_engine::{
    Now,
    control::{
        Attach, Event, PortId, Switch, SwitchConfig,
        peering::{PeerSpec, PeerView, PeeringConfig, UnknownPeerPolicy},
    },
    discard::Discard,
    link::{Behind, plain_header},
    worker::Worker,
};
use strowger_frame::{
    Address, Burst, ChunkClass, Frame, Loss, Mark, Pool, PoolSpec, Port,
    port::{AdmitError, Arm, PortTally},
};
use strowger_io::{Endpoint, EndpointSpec, endpoint};
use strowger_wire::{Hop, Label, Slot, scheme::V3X5X8, switch_header::HeaderRepr};

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const MS: u64 = 1_000_000;

/// A frame's bytes before the payload, as an endpoint sees them.
pub(crate) const HEAD: usize = 24;

/// SlotAllocator that look random (SplitMix64); the seed is printed when a test fails.
pub(crate) struct Dice {
    seed: u64,
    state: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.word()) * end as u128) >> 64) as usize
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.word() as u8).collect()
    }
}

impl Drop for Dice {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {:#x}", self.seed);
        }
    }
}

/// The address with this last byte.
pub(crate) fn host(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 7_000))
}

#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Default)]
struct Sky {
    queues: HashMap<(SocketAddr, usize), VecDeque<Datagram>>,
    /// By receiver and sender: the worker whose queue the kernel would choose.
    steer: HashMap<(SocketAddr, SocketAddr), usize>,
    /// Sockets that sit behind a changing address: by inner, the outer one.
    moved: HashMap<SocketAddr, SocketAddr>,
    cut: BTreeSet<SocketAddr>,
    /// How long what a switch sends is under way, if it is; and what is, with when it arrives.
    delay_ns: u64,
    sent_at: u64,
    flying: VecDeque<(u64, Datagram)>,
    /// Longer datagrams vanish.
    bytes_max: Option<usize>,
    loss_per_million: usize,
    /// Only handshake messages are lost.
    loses_handshakes: bool,
    dice: Option<Dice>,
    log: Vec<Datagram>,
    logging: bool,
}

/// Where datagrams fly.
#[derive(Clone, Default)]
pub(crate) struct Air(Arc<Mutex<Sky>>);

impl Air {
    fn sky(&self) -> MutexGuard<'_, Sky> {
        self.0.lock().expect("one thread")
    }

    /// From now on keeps a copy of whatever a switch sends.
    pub(crate) fn listen(&self) {
        self.sky().logging = true;
    }

    /// The copies since the last call.
    pub(crate) fn heard(&self) -> Vec<Datagram> {
        std::mem::take(&mut self.sky().log)
    }

    /// Loses so many in a million.
    pub(crate) fn lose(&self, per_million: usize, seed: u64) {
        let mut sky = self.sky();
        sky.loss_per_million = per_million;
        sky.loses_handshakes = false;
        sky.dice = Some(Dice::new(seed));
    }

    /// Loses so many handshake messages in a million, and nothing else.
    pub(crate) fn lose_handshakes(&self, per_million: usize, seed: u64) {
        self.lose(per_million, seed);
        self.sky().loses_handshakes = true;
    }

    /// From now on loses whatever is longer.
    pub(crate) fn narrow(&self, bytes_max: usize) {
        self.sky().bytes_max = Some(bytes_max);
    }

    /// From now on whatever a switch sends is under way so long; [`arrive`](Self::arrive) moves it on.
    pub(crate) fn delay(&self, ns: u64) {
        self.sky().delay_ns = ns;
    }

    /// It is this late: what should have arrived has.
    pub(crate) fn arrive(&self, now_ns: u64) {
        let mut sky = self.sky();
        sky.sent_at = now_ns;
        while sky.flying.front().is_some_and(|(at, _)| *at <= now_ns) {
            let (_, datagram) = sky.flying.pop_front().expect("looked at");
            sky.carry(datagram);
        }
    }

    /// Nothing comes from there or goes there, or it does again.
    pub(crate) fn cut(&self, at: SocketAddr, cut: bool) {
        let mut sky = self.sky();
        if cut {
            sky.cut.insert(at)
        } else {
            sky.cut.remove(&at)
        };
    }

    /// The socket is seen elsewhere from now on.
    pub(crate) fn move_to(&self, inner: SocketAddr, outer: SocketAddr) {
        self.sky().moved.insert(inner, outer);
    }

    /// Frames from `from` come in at `to` by this worker.
    pub(crate) fn steer(&self, to: SocketAddr, from: SocketAddr, worker: usize) {
        self.sky().steer.insert((to, from), worker);
    }

    /// Puts a datagram on its way, from wherever one says.
    pub(crate) fn throw(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.sky().carry(Datagram { from, to, bytes: bytes.to_vec() });
    }

    /// What has come to an address that is no switch's.
    pub(crate) fn taken(&self, at: SocketAddr) -> Vec<Datagram> {
        self.sky().queues.get_mut(&(at, 0)).map(|q| q.drain(..).collect()).unwrap_or_default()
    }

    pub(crate) fn port(&self, local: SocketAddr, worker: usize) -> AirPort {
        self.sky().queues.insert((local, worker), VecDeque::new());
        AirPort {
            air: self.clone(),
            local,
            worker,
            marks: HashMap::new(),
            unknown_peers: Vec::new(),
            welcome: false,
            tally: Arc::default(),
        }
    }
}

impl Sky {
    fn carry(&mut self, datagram: Datagram) {
        let Datagram { from, to, bytes } = datagram;
        // Behind a changed address: reached by the outer one alone.
        let inner = self.moved.iter().find(|(_, outer)| **outer == to).map(|(inner, _)| *inner);
        if inner.is_none() && self.moved.contains_key(&to) {
            return;
        }
        let at = inner.unwrap_or(to);
        let worker = self.steer.get(&(at, from)).copied().unwrap_or(0);
        let queue = self.queues.entry((at, worker)).or_default();
        if queue.len() < 8_192 {
            queue.push_back(Datagram { from, to, bytes });
        }
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if self.cut.contains(&from) || self.cut.contains(&to) {
            return;
        }
        let from = self.moved.get(&from).copied().unwrap_or(from);
        let datagram = Datagram { from, to, bytes: bytes.to_vec() };
        if self.logging {
            self.log.push(datagram.clone());
        }
        if self.bytes_max.is_some_and(|most| bytes.len() > most) {
            return;
        }
        let loss = self.loss_per_million;
        if self.loses_handshakes && bytes[0] >> 4 > 3 {
            return self.carry(datagram);
        }
        if self.dice.as_mut().is_some_and(|dice| dice.below(1_000_000) < loss) {
            return;
        }
        if self.delay_ns > 0 {
            return self.flying.push_back((self.sent_at + self.delay_ns, datagram));
        }
        self.carry(datagram);
    }
}

/// One worker's queue of a socket in the air.
pub(crate) struct AirPort {
    air: Air,
    local: SocketAddr,
    worker: usize,
    marks: HashMap<Mark, SocketAddr>,
    unknown_peers: Vec<SocketAddr>,
    welcome: bool,
    tally: Arc<PortTally>,
}

impl Port for AirPort {
    fn rx_burst(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.unknown_peers.clear();
        while !burst.is_full() {
            let queue = (self.local, self.worker);
            let next = self.air.sky().queues.get_mut(&queue).and_then(VecDeque::pop_front);
            let Some(Datagram { from, bytes, .. }) = next else { return };
            self.tally.frames_in.add(1);
            let mark = self.marks.iter().find(|(_, at)| **at == from).map(|(mark, _)| *mark);
            let mark = match mark {
                Some(mark) => mark,
                None if !self.welcome => {
                    self.tally.count_loss(Loss::UnknownSender, 1);
                    continue;
                }
                None => {
                    self.unknown_peers.push(from);
                    Mark::unknown((self.unknown_peers.len() - 1) as u8)
                }
            };
            let class = if bytes.len() <= 2_048 { ChunkClass::Single } else { ChunkClass::Train };
            let Some(chunk) = pool.take(class) else {
                self.tally.count_loss(Loss::PoolEmpty, 1);
                continue;
            };
            let mut frame = chunk.into_frame(256, bytes.len());
            frame.bytes_mut().copy_from_slice(&bytes);
            frame.set_mark(mark);
            burst.push(frame);
        }
    }

    fn tx_burst(&mut self, to: Mark, frames: &mut Burst) {
        let Some(&at) = self.marks.get(&to) else {
            self.tally.count_loss(Loss::NoNeighbour, frames.len() as u64);
            return frames.clear();
        };
        for frame in frames.drain(..) {
            self.tally.frames_out.add(1);
            self.air.sky().send(self.local, at, frame.bytes());
        }
    }

    fn flush(&mut self) {}

    fn admit(&mut self, mark: Mark, at: Address) -> Result<(), AdmitError> {
        let Address::Udp(at) = at else { return Err(AdmitError::WrongKind) };
        if self.marks.iter().any(|(other, taken)| *other != mark && *taken == at) {
            return Err(AdmitError::Taken);
        }
        self.marks.insert(mark, at);
        Ok(())
    }

    fn forget(&mut self, mark: Mark) {
        self.marks.remove(&mark);
    }

    fn accept_unknown(&mut self, accept: bool) {
        self.welcome = accept;
    }

    fn address_of(&self, mark: Mark) -> Option<Address> {
        let stranger = mark.is_unknown().then(|| self.unknown_peers.get(mark.index() & 0xff));
        stranger.flatten().or_else(|| self.marks.get(&mark)).map(|at| Address::Udp(*at))
    }

    fn send_to(&mut self, to: Address, frame: Frame) {
        let Address::Udp(to) = to else { return self.tally.count_loss(Loss::NoNeighbour, 1) };
        self.tally.frames_out.add(1);
        self.air.sky().send(self.local, to, frame.bytes());
    }

    fn arm(&mut self) -> Arm {
        Arm::Poll
    }

    fn frame_bytes_max(&self) -> usize {
        9_216
    }

    fn tally(&self) -> &Arc<PortTally> {
        &self.tally
    }

    fn describe(&self) -> &str {
        "air"
    }
}

/// Who the node with this seed is.
pub(crate) fn local(seed: u8) -> LocalIdentity {
    let key = IdentityKey::from_seed(&Secret::from_bytes([seed; 32]));
    LocalIdentity::new(&key, NetworkId::new(b"test").expect("short"))
}

pub(crate) fn key(seed: u8) -> StaticPublic {
    *local(seed).static_public()
}

/// Panics when it was asked for the n-th time, once; 0 is never.
#[derive(Clone, Default)]
pub(crate) struct Fuse(Arc<AtomicU64>);

impl Fuse {
    pub(crate) fn light(&self, calls: u64) {
        self.0.store(calls, Ordering::Relaxed);
    }

    pub(crate) fn is_lit(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn burn(&self) {
        let left = self.0.load(Ordering::Relaxed);
        self.0.store(left.saturating_sub(1), Ordering::Relaxed);
        if left == 1 {
            resume_unwind(Box::new("injected")); // says nothing on standard error
        }
    }
}

/// A source of randomness that can fail as a bug does.
struct Fused(SeededEntropy, Fuse);

impl Entropy for Fused {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EntropyFailed> {
        self.1.burn();
        self.0.fill(bytes)
    }
}

/// How a node begins.
#[derive(Clone, Copy)]
pub(crate) struct Birth {
    pub(crate) seed: u8,
    pub(crate) workers: usize,
    pub(crate) unknown_peers: Option<UnknownPeerPolicy>,
    /// How often it was born before: another clock, other randomness, the same identity.
    pub(crate) lives: u64,
    /// What its wall clock shows at time 0.
    pub(crate) wall: u64,
    pub(crate) config: SwitchConfig,
}

impl Birth {
    pub(crate) fn new(seed: u8) -> Self {
        let config = SwitchConfig::default();
        Self { seed, workers: 1, unknown_peers: None, lives: 0, wall: 1, config }
    }
}

/// A switch in the air, at the address of its seed.
pub(crate) struct Node {
    pub(crate) switch: Switch,
    pub(crate) workers: Vec<Worker>,
    pub(crate) events: Vec<Event>,
    pub(crate) at: SocketAddr,
    pub(crate) port: PortId,
    pub(crate) fuse: Fuse,
    /// How often its slow path was reset.
    pub(crate) restarts: u32,
}

impl Node {
    pub(crate) fn new(air: &Air, birth: &Birth, now: Now) -> Self {
        let mut node = Self::bare(birth, now);
        let ports = (0..birth.workers).map(|w| Box::new(air.port(node.at, w)) as Box<dyn Port>);
        node.port = node.switch.plug_everywhere(ports.collect()).expect("a place");
        node.switch.accept_unknown(node.port, true);
        node
    }

    /// One without a socket.
    pub(crate) fn bare(birth: &Birth, now: Now) -> Self {
        let spec = PoolSpec { trains: 8, singles: 700, huge_pages: false };
        let pools = (0..birth.workers).map(|_| Pool::new(&spec).expect("memory")).collect();
        let (mut switch, workers) = Switch::new(birth.config, pools).expect("sane");
        let fuse = Fuse::default();
        let config = PeeringConfig::new(
            local(birth.seed),
            Box::new(Fused(
                SeededEntropy::new(u64::from(birth.seed) | birth.lives << 8),
                fuse.clone(),
            )),
        )
        .with_wall_at_zero(birth.wall + birth.lives)
        .with_unknown_peers(birth.unknown_peers);
        switch.set_identity(config, now).expect("an identity");
        let at = host(birth.seed);
        let (events, port, restarts) = (Vec::new(), PortId(0), 0);
        Self { switch, workers, events, at, port, fuse, restarts }
    }

    pub(crate) fn turn(&mut self, now: Now) {
        for worker in &mut self.workers {
            worker.poll(now);
        }
        match catch_unwind(AssertUnwindSafe(|| self.switch.poll(now))) {
            Ok(events) => self.events.extend(events),
            Err(panic) if panic.downcast_ref() != Some(&"injected") => resume_unwind(panic),
            Err(_) => {
                self.restarts += 1;
                self.switch.recover(now);
            }
        }
    }

    /// The peer with this seed, at its address or wherever it comes from.
    pub(crate) fn spec(&self, of: u8, is_known: bool) -> PeerSpec {
        let mut spec = PeerSpec::new(format!("peer {of}"), key(of), self.port);
        spec = spec.with_address(is_known.then(|| Address::Udp(host(of))));
        spec
    }

    pub(crate) fn peer(&mut self, of: u8, is_known: bool, now: Now) -> u32 {
        self.switch.add_peer(self.spec(of, is_known), now).expect("a slot")
    }

    pub(crate) fn endpoint(&mut self) -> (u32, Endpoint) {
        let (port, endpoint) = endpoint::pair(&EndpointSpec::default()).expect("memory");
        let port = self.switch.plug_at(0, Box::new(port)).expect("room");
        let attach = Attach::plain(port, Address::Only, Behind::Endpoint, "endpoint");
        (self.switch.attach(attach).expect("a slot"), endpoint)
    }

    /// How the node sees the peer with this seed.
    pub(crate) fn view(&self, of: u8) -> PeerView {
        let views = self.switch.peers();
        views.into_iter().find(|view| view.key == Some(key(of))).expect("a peer of it")
    }

    pub(crate) fn is_up(&self) -> bool {
        self.switch.peers().iter().all(|peer| peer.is_up())
    }

    pub(crate) fn count(&self, discard: Discard) -> u64 {
        self.switch.balance().discards[discard as usize]
    }

    #[track_caller]
    pub(crate) fn assert_even(&self) {
        let balance = self.switch.balance();
        let counts: Vec<_> = balance.by_reason().collect();
        assert!(balance.is_even(), "R3 at {}: {balance:?} {counts:?}", self.at);
    }

    /// Memory that is free, by worker: the same at rest, whatever was.
    pub(crate) fn free(&mut self) -> Vec<(usize, usize)> {
        let workers = self.workers.iter_mut();
        workers
            .map(|worker| {
                let pool = worker.pool_mut();
                pool.reclaim();
                (pool.free(ChunkClass::Single), pool.free(ChunkClass::Train))
            })
            .collect()
    }
}

pub(crate) fn hop(ingress: u32, egress: u32) -> Hop<'static> {
    Hop { scheme: &V3X5X8, ingress: Slot::new(ingress), egress: Slot::new(egress) }
}

pub(crate) fn path(hops: &[Hop<'static>]) -> Label {
    Label::build(hops).expect("it fits").0
}

/// A packet as an endpoint sends it.
pub(crate) fn packet(label: Label, payload: &[u8]) -> Vec<u8> {
    let (label, shift) = label.depart().expect("short");
    let mut bytes = vec![0; HEAD];
    bytes[..8].copy_from_slice(&plain_header(0));
    HeaderRepr::new(label, shift, 64).emit(&mut bytes[8..]).expect("room");
    bytes.extend_from_slice(payload);
    bytes
}

pub(crate) fn send(from: &mut Endpoint, label: Label, payload: &[u8]) {
    let bytes = packet(label, payload);
    let mut frame = from.frame(bytes.len()).expect("memory");
    frame.bytes_mut().copy_from_slice(&bytes);
    from.send(frame).expect("room");
}

pub(crate) fn receive(at: &mut Endpoint) -> Option<Vec<u8>> {
    let frame = at.receive().expect("the switch is there")?;
    Some(frame.bytes()[HEAD..].to_vec())
}

/// Two switches in the air, an endpoint on each, and the ways between them.
pub(crate) struct Pair {
    pub(crate) air: Air,
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) at_a: Endpoint,
    pub(crate) at_b: Endpoint,
    pub(crate) to_b: Label,
    pub(crate) to_a: Label,
    pub(crate) now: Now,
}

impl Pair {
    /// Both know each other's addresses.
    pub(crate) fn new() -> Self {
        Self::with(Birth::new(1), Birth::new(2), |_, spec| spec)
    }

    pub(crate) fn with(a: Birth, b: Birth, tune: impl Fn(u8, PeerSpec) -> PeerSpec) -> Self {
        let (air, now) = (Air::default(), Now(1));
        let (mut a, mut b) = (Node::new(&air, &a, now), Node::new(&air, &b, now));
        let add = |node: &mut Node, of: u8, own: u8| {
            let spec = tune(own, node.spec(of, true));
            node.switch.add_peer(spec, now).expect("a slot")
        };
        let (b_at_a, a_at_b) = (add(&mut a, 2, 1), add(&mut b, 1, 2));
        let ((slot_a, at_a), (slot_b, at_b)) = (a.endpoint(), b.endpoint());
        let to_b = path(&[hop(slot_a, b_at_a), hop(a_at_b, slot_b)]);
        let to_a = path(&[hop(slot_b, a_at_b), hop(b_at_a, slot_a)]);
        Self { air, a, b, at_a, at_b, to_b, to_a, now }
    }

    /// Time goes on by `ns`, and all that follows from it happens.
    pub(crate) fn pass(&mut self, ns: u64) {
        self.now.0 += ns;
        for _ in 0..4 {
            self.a.turn(self.now);
            self.b.turn(self.now);
        }
    }

    pub(crate) fn wait(&mut self, seconds: u64) {
        for _ in 0..10 * seconds {
            self.pass(100 * MS);
        }
    }

    /// The same, while both ends now and then have something to say.
    pub(crate) fn chat(&mut self, seconds: u64) {
        for second in 0..seconds {
            if second % 20 == 0 {
                send(&mut self.at_a, self.to_b, b"small talk");
                send(&mut self.at_b, self.to_a, b"small talk");
            }
            self.wait(1);
        }
    }

    /// Until both ends say that the link is up; how long it took.
    #[track_caller]
    pub(crate) fn until_up(&mut self) -> u64 {
        let began = self.now.0;
        for _ in 0..3_000 {
            if self.a.is_up() && self.b.is_up() && self.talks() {
                return self.now.0 - began;
            }
            self.pass(100 * MS);
        }
        panic!("no link: {:?} {:?}", self.a.switch.peers(), self.b.switch.peers());
    }

    /// Whether a packet goes through, there and back.
    pub(crate) fn talks(&mut self) -> bool {
        while receive(&mut self.at_a).is_some() || receive(&mut self.at_b).is_some() {}
        send(&mut self.at_a, self.to_b, b"there");
        send(&mut self.at_b, self.to_a, b"back");
        self.pass(1_000);
        self.pass(1_000);
        let there = receive(&mut self.at_b).as_deref() == Some(b"there");
        let back = receive(&mut self.at_a).as_deref() == Some(b"back");
        there && back
    }

    #[track_caller]
    pub(crate) fn assert_even(&self) {
        self.a.assert_even();
        self.b.assert_even();
    }
}
