//! A switch with its workers, on the simulated network or without a port.

use std::{
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
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
    link::Behind,
    worker::Worker,
};
use strowger_frame::{Address, ChunkClass, Pool, PoolSpec, Port};
use strowger_io::{Endpoint, EndpointSpec, endpoint};

use super::{SimNet, host};

/// The payload of the [`Fuse`]'s panic.
const INJECTED: &str = "injected";

/// The identity of the node with this seed, in the network "test".
pub fn identity(seed: u8) -> LocalIdentity {
    let key = IdentityKey::from_seed(&Secret::from_bytes([seed; 32]));
    LocalIdentity::new(&key, NetworkId::new(b"test").expect("short"))
}

/// The static public key of the node with this seed.
pub fn key(seed: u8) -> StaticPublic {
    *identity(seed).static_public()
}

/// Panics once, at the n-th call of [`tick`](Fuse::tick) after [`arm`](Fuse::arm). Clones share one
/// count.
#[derive(Clone, Debug, Default)]
pub struct Fuse(Arc<AtomicU64>);

impl Fuse {
    /// Sets the number of the call that panics, from 1. With 0 no call panics.
    pub fn arm(&self, calls: u64) {
        self.0.store(calls, Ordering::Relaxed);
    }

    /// Whether a later call will panic.
    pub fn is_armed(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// Counts a call. Panics if it is the chosen one. The panic prints nothing.
    pub fn tick(&self) {
        let left = self.0.load(Ordering::Relaxed);
        self.0.store(left.saturating_sub(1), Ordering::Relaxed);
        if left == 1 {
            // Unlike `panic!`, this does not call the panic hook.
            resume_unwind(Box::new(INJECTED));
        }
    }
}

/// A source of randomness that panics when its fuse does, to simulate a bug in the slow path.
struct Fused(SeededEntropy, Fuse);

impl Entropy for Fused {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EntropyFailed> {
        self.1.tick();
        self.0.fill(bytes)
    }
}

/// The properties of a new node.
#[derive(Clone, Copy, Debug)]
pub struct NodeSpec {
    /// The seed of its identity, its address and its randomness.
    pub seed: u8,
    /// Number of workers.
    pub workers: usize,
    /// The policy for unknown peers. Without a policy they are refused.
    pub unknown_peers: Option<UnknownPeerPolicy>,
    /// The number of earlier starts of the node. The wall clock and the random numbers depend on
    /// it.
    pub restarts_before: u64,
    /// The time of its wall clock at time 0, in nanoseconds since 1970.
    pub wall: u64,
    /// The switch's configuration.
    pub config: SwitchConfig,
}

impl NodeSpec {
    /// A specification with one worker. Unknown peers are refused.
    pub fn new(seed: u8) -> Self {
        let config = SwitchConfig::default();
        Self { seed, workers: 1, unknown_peers: None, restarts_before: 0, wall: 1, config }
    }
}

/// A switch on the network, at the address that its seed determines.
#[derive(Debug)]
pub struct Node {
    /// The slow path.
    pub switch: Switch,
    /// The workers.
    pub workers: Vec<Worker>,
    /// The events since the start. A test may remove them.
    pub events: Vec<Event>,
    /// Its address.
    pub at: SocketAddr,
    /// Its port on the network.
    pub port: PortId,
    /// The fuse that panics in its source of randomness.
    pub fuse: Fuse,
    /// The number of times that its slow path has recovered from a panic.
    pub restarts: u32,
}

impl Node {
    /// A node with a port on the network that accepts unknown senders.
    pub fn new(net: &SimNet, spec: &NodeSpec, now: Now) -> Self {
        let mut node = Self::without_port(spec, now);
        let ports = (0..spec.workers).map(|w| Box::new(net.port(node.at, w)) as Box<dyn Port>);
        node.port = node.switch.plug_everywhere(ports.collect()).expect("a place");
        node.switch.accept_unknown(node.port, true);
        node
    }

    /// A node without a port.
    pub fn without_port(spec: &NodeSpec, now: Now) -> Self {
        let pool_spec = PoolSpec { trains: 8, singles: 700, huge_pages: false };
        let pools = (0..spec.workers).map(|_| Pool::new(&pool_spec).expect("memory")).collect();
        let (mut switch, workers) = Switch::new(spec.config, pools).expect("sane");
        let fuse = Fuse::default();
        let config = PeeringConfig::new(
            identity(spec.seed),
            Box::new(Fused(
                SeededEntropy::new(u64::from(spec.seed) | spec.restarts_before << 8),
                fuse.clone(),
            )),
        )
        .with_wall_at_zero(spec.wall + spec.restarts_before)
        .with_unknown_peers(spec.unknown_peers);
        switch.set_identity(config, now).expect("an identity");
        let at = host(spec.seed);
        let (events, port, restarts) = (Vec::new(), PortId(0), 0);
        Self { switch, workers, events, at, port, fuse, restarts }
    }

    /// Polls the workers, then the slow path, which recovers from a panic of the [`Fuse`].
    pub fn poll(&mut self, now: Now) {
        for worker in &mut self.workers {
            worker.poll(now);
        }
        match catch_unwind(AssertUnwindSafe(|| self.switch.poll(now))) {
            Ok(events) => self.events.extend(events),
            Err(panic) if panic.downcast_ref() != Some(&INJECTED) => resume_unwind(panic),
            Err(_) => {
                self.restarts += 1;
                self.switch.recover(now);
            }
        }
    }

    /// The specification of the peer with this seed, with its address or without one.
    pub fn peer_spec(&self, of: u8, is_known: bool) -> PeerSpec {
        let mut spec = PeerSpec::new(format!("peer {of}"), key(of), self.port);
        spec = spec.with_address(is_known.then(|| Address::Udp(host(of))));
        spec
    }

    /// Adds the peer with this seed. Returns its slot.
    pub fn add_peer(&mut self, of: u8, is_known: bool, now: Now) -> u32 {
        (self.switch.add_peer(self.peer_spec(of, is_known), now).expect("a slot")).number()
    }

    /// Attaches an endpoint. Returns its slot, and the end that the program uses.
    pub fn add_endpoint(&mut self) -> (u32, Endpoint) {
        let (port, endpoint) = endpoint::pair(&EndpointSpec::default()).expect("memory");
        let port = self.switch.plug_at(0, Box::new(port)).expect("room");
        let attach = Attach::plain(port, Address::Only, Behind::Endpoint, "endpoint");
        ((self.switch.attach(attach).expect("a slot")).number(), endpoint)
    }

    /// The node's view of the peer with this seed.
    pub fn peer_view(&self, of: u8) -> PeerView {
        let views = self.switch.peers();
        views.into_iter().find(|view| view.key == Some(key(of))).expect("it is a peer")
    }

    /// Whether the links to all peers are up.
    pub fn is_up(&self) -> bool {
        self.switch.peers().iter().all(|peer| peer.is_up())
    }

    /// The number of frames that it has dropped for this reason.
    pub fn count(&self, discard: Discard) -> u64 {
        self.switch.balance().discards[discard as usize]
    }

    /// Asserts R3: each frame that it received was sent, is queued or is counted.
    #[track_caller]
    pub fn assert_even(&self) {
        let balance = self.switch.balance();
        let counts: Vec<_> = balance.by_reason().collect();
        assert!(balance.is_even(), "R3 at {}: {balance:?} {counts:?}", self.at);
    }

    /// The number of free chunks (single, train) of each worker's pool.
    pub fn free_chunks(&mut self) -> Vec<(usize, usize)> {
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
