//! The demo's town: three switches with real UDP sockets between them, and an endpoint at each
//! end. It builds them and takes them down; it never touches a frame.
//!
//! ```text
//!   source ── left ══ udp ══ relay ══ udp ══ right ── sink
//! ```

use std::{net::SocketAddr, sync::Arc, time::Duration};

use strowger_engine::{
    control::{Attach, Balance, PortId, Switch, SwitchConfig},
    director::Slot,
    label::{Hop, Label},
    link::Behind,
};
use strowger_frame::{Address, BURST_MAX, Pool, PoolSpec, pool::PoolTally};
use strowger_io::{
    Doorbell, Endpoint, EndpointSpec, endpoint,
    udp::{self, Report, UdpSpec, limits::POSTED_BUFFERS},
};

use crate::{
    exit::{Exit, Failure},
    run::{Clock, Idle, Running, WorkerBell, start},
};

/// A switch that runs.
pub(super) struct Node {
    pub(super) switch: Switch,
    running: Vec<Running>,
    pools: Vec<Arc<PoolTally>>,
}

/// Everything between the two endpoints.
pub(super) struct Town {
    pub(super) left: Node,
    pub(super) relay: Node,
    pub(super) right: Node,
    /// What the ladder says of the relay's sockets.
    pub(super) ladder: Report,
    /// By flow: the way from the source to the sink.
    pub(super) labels: Vec<Label>,
    clock: Clock,
}

fn refused(what: &str) -> impl Fn(&dyn std::fmt::Display) -> Failure {
    move |why| Failure::new(Exit::Refused, format!("demo: {what}: {why}"))
}

/// A switch whose workers do not run yet: ports are plugged first.
struct Site {
    switch: Switch,
    workers: Vec<strowger_engine::worker::Worker>,
}

impl Site {
    /// A switch whose every worker will have `sockets` sockets.
    fn new(workers: usize, sockets: usize) -> Result<Self, Failure> {
        let posted = usize::from(POSTED_BUFFERS) * sockets;
        // A burst under way, and as much again that waits at exits or to be sent.
        let under_way = 2 * BURST_MAX;
        let trains = (posted + under_way) as u32;
        let spec = PoolSpec { trains, singles: 0, huge_pages: false };
        let pools = Pool::many(&spec, workers).map_err(|why| refused("memory")(&why))?;
        let (switch, workers) =
            Switch::new(SwitchConfig::default(), pools).map_err(|why| refused("switch")(&why))?;
        Ok(Self { switch, workers })
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
        let Self { mut switch, mut workers } = self;
        let doorbells: Vec<_> = workers
            .iter()
            .map(|_| Doorbell::new())
            .collect::<Result<_, _>>()
            .map_err(|why| refused("doorbell")(&why))?;
        for (number, doorbell) in doorbells.iter().enumerate() {
            let bell = Arc::new(WorkerBell(doorbell.ringer()));
            switch.set_bell(number, bell.clone());
            for worker in &mut workers {
                worker.set_bell(number, bell.clone());
            }
        }
        let pools = workers.iter_mut().map(|w| w.pool_mut().tally().clone()).collect();
        let running = workers
            .into_iter()
            .zip(doorbells)
            .map(|(worker, doorbell)| start(worker, doorbell, clock, Idle::ADAPTIVE, None))
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

    fn stop(self) -> Switch {
        for running in self.running {
            drop(running.stop());
        }
        self.switch
    }
}

/// Builds the town. With several workers in the relay there are several flows, each from a socket
/// of its own, since the kernel spreads flows over the relay's sockets by their addresses.
pub(super) fn build(
    relay_workers: usize,
    flows: usize,
    backend: udp::Choice,
    depth_frames: usize,
) -> Result<(Town, Endpoint, Endpoint), Failure> {
    let clock = Clock::start();
    let mut left = Site::new(1, flows)?;
    let mut relay = Site::new(relay_workers, 1)?;
    let mut right = Site::new(1, 1)?;
    let spec = EndpointSpec { depth_frames, ..EndpointSpec::default() };
    let (source_slot, source) = left.plug_endpoint(&spec)?;
    let (sink_slot, sink) = right.plug_endpoint(&spec)?;
    let (relay_port, ladder) = relay.plug_udp(backend)?;
    let (right_port, right_report) = right.plug_udp(backend)?;

    let relay_at = Address::Udp(ladder.local);
    let right_at = Address::Udp(right_report.local);
    let from_relay = right.attach(right_port, relay_at, Behind::Neighbour, "relay")?;
    let to_right = relay.attach(relay_port, right_at, Behind::Neighbour, "right")?;
    let mut labels = Vec::new();
    for flow in 0..flows {
        let (left_port, left_report) = left.plug_udp(backend)?;
        let to_relay = left.attach(left_port, relay_at, Behind::Neighbour, "relay")?;
        let left_at = Address::Udp(left_report.local);
        let name = format!("left, flow {flow}");
        let from_left = relay.attach(relay_port, left_at, Behind::Neighbour, &name)?;
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
    let left = left.start(clock)?;
    let relay = relay.start(clock)?;
    let right = right.start(clock)?;
    Ok((Town { left, relay, right, ladder, labels, clock }, source, sink))
}

impl Town {
    /// One turn of every slow path.
    pub(super) fn poll(&mut self) {
        for node in [&mut self.left, &mut self.relay, &mut self.right] {
            node.switch.poll(self.clock.now());
        }
    }

    /// Frames that are on their way inside one of the switches.
    pub(super) fn is_at_rest(&self) -> bool {
        [&self.left, &self.relay, &self.right].iter().all(|n| n.switch.balance().is_even())
    }

    /// Stops all workers; what is left are the counters: left, relay, right.
    pub(super) fn stop(self) -> [Balance; 3] {
        [self.left, self.relay, self.right].map(|node| {
            let mut switch = node.stop();
            switch.poll(self.clock.now());
            switch.balance()
        })
    }

    /// Frames whose payload was copied, anywhere.
    pub(super) fn frames_copied(&self) -> u64 {
        [&self.left, &self.relay, &self.right].iter().map(|node| node.frames_copied()).sum()
    }
}
