//! The demo's town: three switches with real UDP sockets between them, and an endpoint at each
//! end. It builds them and takes them down; it never touches a frame.
//!
//! ```text
//!   source ── left ══ udp ══ relay ══ udp ══ right ── sink
//! ```
//!
//! Links over UDP are sealed, with keys made at the start, unless plain ones are asked for. A peer has
//! one link, so several sealed flows come from as many switches on the left.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use strowger_crypto::{
    IdentityKey, LocalIdentity, NetworkId, OsEntropy, StaticPublic, aead::Provider,
};
use strowger_engine::{
    control::{
        Attach, Balance, PortId, Switch, SwitchConfig,
        peering::{PeerSpec, PeeringConfig},
    },
    link::Behind,
};
use strowger_frame::{Address, BURST_MAX, Pool, PoolSpec, pool::PoolTally};
use strowger_io::{
    Doorbell, Endpoint, EndpointSpec, endpoint,
    udp::{self, Report, UdpSpec, limits::POSTED_BUFFERS},
};
use strowger_runtime::{
    clock::Clock,
    worker_thread::{IdlePolicy, WorkerThread, start},
};
use strowger_wire::{Hop, Label, Slot};

use crate::exit::{Exit, Failure};

/// A switch that runs.
pub(super) struct Node {
    pub(super) switch: Switch,
    running: Vec<WorkerThread>,
    pools: Vec<Arc<PoolTally>>,
}

/// Everything between the two endpoints.
pub(super) struct Town {
    /// One, or one for each flow.
    pub(super) lefts: Vec<Node>,
    pub(super) relay: Node,
    pub(super) right: Node,
    /// What the ladder says of the relay's sockets.
    pub(super) ladder: Report,
    /// By flow: the way from the source to the sink.
    pub(super) labels: Vec<Label>,
    /// How long links took from nothing to all keys; `None` where they are plain.
    pub(super) sealed_after: Option<Duration>,
    clock: Clock,
}

fn refused(what: &str) -> impl Fn(&dyn std::fmt::Display) -> Failure {
    move |why| Failure::new(Exit::Refused, format!("demo: {what}: {why}"))
}

/// How long links may take to have keys.
const UP_MAX: Duration = Duration::from_secs(20);

/// A switch whose workers do not run yet: ports are plugged first.
struct Site {
    switch: Switch,
    workers: Vec<strowger_engine::worker::Worker>,
    /// What its peers know it by, where its links are sealed.
    key: Option<StaticPublic>,
}

impl Site {
    /// A switch whose every worker will have `sockets` sockets.
    fn new(workers: usize, sockets: usize) -> Result<Self, Failure> {
        let posted = usize::from(POSTED_BUFFERS) * sockets;
        // A burst under way, and as much again that waits at exits or to be sent.
        let under_way = 2 * BURST_MAX;
        let trains = (posted + under_way) as u32;
        let spec = PoolSpec { trains, singles: 0, huge_pages: false };
        let pools = Pool::group(&spec, workers).map_err(|why| refused("memory")(&why))?;
        let (switch, workers) =
            Switch::new(SwitchConfig::default(), pools).map_err(|why| refused("switch")(&why))?;
        Ok(Self { switch, workers, key: None })
    }

    /// The same with an identity that nobody has had before.
    fn identified(mut self, clock: Clock) -> Result<Self, Failure> {
        let refused = refused("identity");
        let key = IdentityKey::generate(&mut OsEntropy).map_err(|why| refused(&why))?;
        let network = NetworkId::new(b"strowger demo").ok_or_else(|| refused(&"its name"))?;
        let local = LocalIdentity::new(&key, network);
        self.key = Some(*local.static_public());
        let config = PeeringConfig {
            local,
            entropy: Box::new(OsEntropy),
            provider: Provider::DEFAULT,
            wall_at_zero: clock.wall_at_zero(SystemTime::now()),
            strangers: None,
        };
        self.switch.set_identity(config, clock.now()).map_err(|why| refused(&why))?;
        Ok(self)
    }

    /// A link to another switch: sealed, if that one has a key.
    fn link(
        &mut self,
        port: PortId,
        to: &Self,
        at: SocketAddr,
        name: &str,
        clock: Clock,
    ) -> Result<u32, Failure> {
        let Some(key) = to.key else {
            return self.attach(port, Address::Udp(at), Behind::Neighbour, name);
        };
        let mut spec = PeerSpec::new(name, key, port);
        spec.at = Some(Address::Udp(at));
        self.switch.add_peer(spec, clock.now()).map_err(|why| refused("peer")(&why))
    }

    /// One socket a worker, all under one address.
    fn plug_udp(&mut self, backend: udp::Choice) -> Result<(PortId, Report), Failure> {
        let mut at = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut ports = Vec::new();
        let mut first = None;
        for worker in 0..self.workers.len() {
            let mut spec = UdpSpec::new(at);
            spec.backend = backend;
            spec.reuse_port = self.workers.len() > 1;
            let opened = udp::open(&spec, worker)
                .map_err(|why| Failure::new(Exit::Refused, format!("demo: {why}")))?;
            let (port, report) = opened.boxed();
            at = report.local;
            ports.push(port);
            first.get_or_insert(report);
        }
        let port = self.switch.plug_everywhere(ports).map_err(|why| refused("plug")(&why))?;
        let report = first.ok_or_else(|| refused("plug")(&"there is no worker"))?;
        Ok((port, report))
    }

    fn plug_endpoint(&mut self, spec: &EndpointSpec) -> Result<(u32, Endpoint), Failure> {
        let (port, endpoint) = endpoint::pair(spec).map_err(|why| refused("endpoint")(&why))?;
        let port = self.switch.plug_at(0, Box::new(port)).map_err(|why| refused("plug")(&why))?;
        let slot = self.attach(port, Address::Only, Behind::Endpoint, "endpoint")?;
        Ok((slot, endpoint))
    }

    fn attach(
        &mut self,
        port: PortId,
        at: Address,
        behind: Behind,
        name: &str,
    ) -> Result<u32, Failure> {
        let attach = Attach::plain(port, at, behind, name);
        self.switch.attach(attach).map_err(|why| refused("attach")(&why))
    }

    /// Starts the workers and waits until they know all that is attached.
    fn start(self, clock: Clock) -> Result<Node, Failure> {
        let Self { mut switch, mut workers, key: _ } = self;
        let doorbells: Vec<_> = workers
            .iter()
            .map(|_| Doorbell::new())
            .collect::<Result<_, _>>()
            .map_err(|why| refused("doorbell")(&why))?;
        for (number, doorbell) in doorbells.iter().enumerate() {
            let waker = Arc::new(doorbell.waker());
            switch.set_waker(number, waker.clone());
            for worker in &mut workers {
                worker.set_waker(number, waker.clone());
            }
        }
        let pools = workers.iter_mut().map(|w| w.pool_mut().tally().clone()).collect();
        let running = workers
            .into_iter()
            .zip(doorbells)
            .map(|(worker, doorbell)| start(worker, doorbell, clock, IdlePolicy::ADAPTIVE, None))
            .collect::<Result<_, _>>()
            .map_err(|why| refused("thread")(&why))?;
        let mut node = Node { switch, running, pools };
        while !node.switch.is_settled() {
            node.switch.poll(clock.now());
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(node)
    }
}

impl Node {
    /// Frames whose payload was copied.
    pub(super) fn frames_copied(&self) -> u64 {
        self.pools.iter().map(|pool| pool.frames_copied.read()).sum()
    }

    fn is_up(&self) -> bool {
        self.switch.peers().iter().all(|peer| peer.is_up())
    }

    fn stop(self) -> Switch {
        for running in self.running {
            drop(running.stop());
        }
        self.switch
    }
}

/// Builds the town: it, its sources and its sink. With several workers in the relay there are several
/// flows, each from a socket of its own, since the kernel spreads flows over the relay's sockets by
/// their addresses.
pub(super) fn build(
    relay_workers: usize,
    flows: usize,
    is_sealed: bool,
    backend: udp::Choice,
    depth_frames: usize,
) -> Result<(Town, Vec<Endpoint>, Endpoint), Failure> {
    let clock = Clock::start();
    let site = |workers, sockets| {
        let site = Site::new(workers, sockets)?;
        if is_sealed { site.identified(clock) } else { Ok(site) }
    };
    let mut relay = site(relay_workers, 1)?;
    let mut right = site(1, 1)?;
    let spec = EndpointSpec { depth_frames, ..EndpointSpec::default() };
    let (sink_slot, sink) = right.plug_endpoint(&spec)?;
    let (relay_port, ladder) = relay.plug_udp(backend)?;
    let (right_port, right_report) = right.plug_udp(backend)?;
    let from_relay = right.link(right_port, &relay, ladder.local, "relay", clock)?;
    let to_right = relay.link(relay_port, &right, right_report.local, "right", clock)?;

    let count = if is_sealed { flows } else { 1 };
    let (mut lefts, mut sources, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..count {
        let mut left = site(1, flows / count)?;
        let (source_slot, source) = left.plug_endpoint(&spec)?;
        for flow in number * (flows / count)..(number + 1) * (flows / count) {
            let (left_port, left_report) = left.plug_udp(backend)?;
            let to_relay = left.link(left_port, &relay, ladder.local, "relay", clock)?;
            let name = format!("left, flow {flow}");
            let from_left = relay.link(relay_port, &left, left_report.local, &name, clock)?;
            let scheme = &left.switch.config().scheme;
            let hop = |ingress, egress| Hop {
                scheme,
                ingress: Slot::new(ingress),
                egress: Slot::new(egress),
            };
            let way =
                [hop(source_slot, to_relay), hop(from_left, to_right), hop(from_relay, sink_slot)];
            let (label, _back) = Label::build(&way).map_err(|why| refused("label")(&why))?;
            labels.push(label);
        }
        lefts.push(left);
        sources.push(source);
    }
    let began = Instant::now();
    let relay = relay.start(clock)?;
    let right = right.start(clock)?;
    let lefts = lefts.into_iter().map(|left| left.start(clock)).collect::<Result<_, _>>()?;
    let mut town = Town { lefts, relay, right, ladder, labels, sealed_after: None, clock };
    if is_sealed {
        town.until_up(began)?;
        town.sealed_after = Some(began.elapsed());
    }
    Ok((town, sources, sink))
}

impl Town {
    fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.lefts.iter().chain([&self.relay, &self.right])
    }

    /// Waits until every link has keys.
    fn until_up(&mut self, began: Instant) -> Result<(), Failure> {
        while !self.nodes().all(Node::is_up) {
            if began.elapsed() > UP_MAX {
                return Err(Failure::new(Exit::CheckFailed, "demo: the links do not come up"));
            }
            self.poll();
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    }

    /// One turn of every slow path.
    pub(super) fn poll(&mut self) {
        for node in self.lefts.iter_mut().chain([&mut self.relay, &mut self.right]) {
            node.switch.poll(self.clock.now());
        }
    }

    /// Whether no frame is on its way inside one of the switches.
    pub(super) fn is_at_rest(&self) -> bool {
        self.nodes().all(|node| node.switch.balance().is_even())
    }

    /// Stops all workers; what is left are the counters: those of the relay first.
    pub(super) fn stop(self) -> Vec<Balance> {
        let stop = |node: Node| {
            let mut switch = node.stop();
            switch.poll(self.clock.now());
            switch.balance()
        };
        [self.relay, self.right].into_iter().chain(self.lefts).map(stop).collect()
    }

    /// Frames whose payload was copied, anywhere.
    pub(super) fn frames_copied(&self) -> u64 {
        self.nodes().map(Node::frames_copied).sum()
    }
}
