//! The demo's testbed: three relays with UDP sockets between them, and an endpoint at each end.
//!
//! ```text
//!   source ── left ══ udp ══ relay ══ udp ══ right ── sink
//! ```
//!
//! Links over UDP are sealed with new keys, unless `--plain` is given. Two relays have only one
//! sealed link with each other, so several sealed flows need one relay per flow on the left.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use strowger_crypto::{IdentityKey, OsEntropy};
use strowger_engine::control::Balance;
use strowger_frame::BURST_MAX;
use strowger_io::{
    Endpoint, EndpointSpec, endpoint,
    udp::{self, UdpReport, limits::POSTED_BUFFERS},
};
use strowger_runtime::{
    CustomPort, Memory, Neighbor, Peer, PortKind, Relay, RelayHandle, ShutdownError, StaticPublic,
    Stats, Summary, UdpListener,
};
use strowger_wire::{Hop, Label, Scheme, Slot};

use crate::exit::{Exit, Failure};

/// The name and slot of the endpoint of a relay.
const ENDPOINT: (&str, u32) = ("endpoint", 2);
/// The first slot number of a link.
const LINKS_FROM: u32 = 3;
/// The maximum time until all links are up.
const UP_MAX: Duration = Duration::from_secs(20);

/// A running relay.
pub(super) struct Node {
    handle: RelayHandle,
    /// The relay's static key; `None` if its links are plain.
    key: Option<StaticPublic>,
    /// For each listener: its name, its address, and the report about its sockets.
    listeners: Vec<(String, SocketAddr, UdpReport)>,
    /// The names of the relay's links.
    links: Vec<String>,
}

/// The relays and links between the two endpoints.
pub(super) struct Testbed {
    /// The relays on the left: one if links are plain, otherwise one per flow.
    lefts: Vec<Node>,
    pub(super) relay: Node,
    right: Node,
    /// The report about the relay's sockets.
    pub(super) report: UdpReport,
    /// The label from the source to the sink, for each flow.
    pub(super) labels: Vec<Label>,
    /// The time until all sealed links were up; `None` if the links are plain.
    pub(super) sealed_after: Option<Duration>,
}

fn refused(what: &str) -> impl Fn(&dyn std::fmt::Display) -> Failure {
    move |why| Failure::new(Exit::Refused, format!("demo: {what}: {why}"))
}

/// The description of a relay.
#[derive(Clone, Copy)]
struct NodeSpec {
    workers: usize,
    listeners: usize,
    is_sealed: bool,
    backend: udp::BackendChoice,
}

impl Node {
    fn start(spec: NodeSpec, endpoint: Option<CustomPort>) -> Result<Self, Failure> {
        let NodeSpec { workers, listeners, is_sealed, backend } = spec;
        // Two bursts: one in the switch, and one in egress queues or waiting to be sent.
        let trains = usize::from(POSTED_BUFFERS) * listeners + 2 * BURST_MAX;
        let memory = Memory::default().trains(Some(trains as u32)).huge_pages(false);
        let mut builder = Relay::builder().network("strowger demo").workers(workers).memory(memory);
        let mut key = None;
        if is_sealed {
            let made = IdentityKey::generate(&mut OsEntropy);
            let made = made.map_err(|why| refused("identity")(&why))?;
            key = Some(*made.static_key().public());
            builder = builder.identity(made);
        }
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        for number in 0..listeners {
            let listener = UdpListener::new(anywhere).name(format!("udp {number}"));
            builder = builder.udp_listener(listener.plain(!is_sealed).backend(backend));
        }
        if let Some(port) = endpoint {
            let (name, slot) = ENDPOINT;
            let neighbor = Neighbor::endpoint(name).behind(name).slot(slot);
            builder = builder.custom_port(port).neighbor(neighbor);
        }
        let handle = builder.start().map_err(|why| refused("relay")(&why))?;
        let ports = handle.ports().map_err(|why| refused("relay")(&why))?;
        let listeners = ports.iter().filter_map(|port| match &port.kind {
            PortKind::Udp { local, reports, .. } => {
                Some((port.name.clone(), *local, reports.first()?.clone()))
            }
            _ => None,
        });
        let listeners = listeners.collect();
        Ok(Self { handle, key, listeners, links: Vec::new() })
    }

    /// Starts a relay with an endpoint, and returns the program's half of the endpoint.
    fn with_endpoint(spec: NodeSpec, depth_frames: usize) -> Result<(Self, Endpoint), Failure> {
        let of_endpoint = EndpointSpec { depth_frames, ..EndpointSpec::default() };
        let (port, endpoint) =
            endpoint::pair(&of_endpoint).map_err(|why| refused("endpoint")(&why))?;
        let port = CustomPort::at_worker(ENDPOINT.0, 0, Box::new(port));
        Ok((Self::start(spec, Some(port))?, endpoint))
    }

    /// Adds a link to another relay through a listener, and returns the slot of the link. The link
    /// is sealed if that relay has a key. If `waits`, this end leaves the handshake to the other
    /// end. The other end must then be added later, because a handshake whose receiver does not
    /// know the peer yet is retried only after a second.
    fn link(
        &mut self,
        (listener, waits): (usize, bool),
        to: &Self,
        at: SocketAddr,
        name: &str,
    ) -> Result<Slot, Failure> {
        let slot = LINKS_FROM + self.links.len() as u32;
        let (behind, _, _) = &self.listeners[listener];
        let added = match to.key {
            Some(key) => {
                let peer = Peer::new(key).name(name).behind(behind).slot(slot);
                self.handle.attach(if waits { peer } else { peer.at(at) })
            }
            None => self.handle.attach_neighbor(Neighbor::new(name, at).behind(behind).slot(slot)),
        };
        self.links.push(name.to_owned());
        added.map_err(|why| refused("link")(&why))
    }

    fn address(&self, listener: usize) -> SocketAddr {
        self.listeners[listener].1
    }

    /// The current counters; `None` if the relay has ended. In that case `stop` returns the reason.
    pub(super) fn stats(&self) -> Option<Stats> {
        self.handle.stats().ok()
    }

    fn is_up(&self) -> bool {
        self.links.iter().all(|name| self.handle.is_up(name).unwrap_or(false))
    }

    fn stop(&self) -> Result<Balance, Failure> {
        match self.handle.shutdown() {
            Ok(Summary { totals, .. }) => Ok(totals),
            // The demo checks the balance itself, so an uneven one is no error here.
            Err(ShutdownError::Uneven(summary) | ShutdownError::Unfinished(summary)) => {
                Ok(summary.totals)
            }
            Err(why) => Err(Failure::new(Exit::Died, format!("demo: {why}"))),
        }
    }
}

/// Builds the testbed, its sources and its sink. With several workers in the relay there are
/// several flows, each from its own socket, because the kernel distributes datagrams over the
/// relay's sockets by source address and port.
pub(super) fn build(
    relay_workers: usize,
    flows: usize,
    is_sealed: bool,
    backend: udp::BackendChoice,
    depth_frames: usize,
) -> Result<(Testbed, Vec<Endpoint>, Endpoint), Failure> {
    let spec = |workers, listeners| NodeSpec { workers, listeners, is_sealed, backend };
    let began = Instant::now();
    let mut relay = Node::start(spec(relay_workers, 1), None)?;
    let (mut right, sink) = Node::with_endpoint(spec(1, 1), depth_frames)?;
    let to_right = relay.link((0, true), &right, right.address(0), "right")?;
    let from_relay = right.link((0, false), &relay, relay.address(0), "relay")?;

    let count = if is_sealed { flows } else { 1 };
    let (mut lefts, mut sources, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..count {
        let (mut left, source) = Node::with_endpoint(spec(1, flows / count), depth_frames)?;
        for listener in 0..flows / count {
            let flow = number * (flows / count) + listener;
            let name = format!("left, flow {flow}");
            let from_left = relay.link((0, true), &left, left.address(listener), &name)?;
            let name = format!("relay, flow {flow}");
            let to_relay = left.link((listener, false), &relay, relay.address(0), &name)?;
            let scheme = &Scheme::default();
            let hop = |ingress, egress| Hop {
                scheme,
                ingress: Slot::new(ingress),
                egress: Slot::new(egress),
            };
            let hops = [
                hop(ENDPOINT.1, to_relay.number()),
                hop(from_left.number(), to_right.number()),
                hop(from_relay.number(), ENDPOINT.1),
            ];
            let (label, _back) = Label::build(&hops).map_err(|why| refused("label")(&why))?;
            labels.push(label);
        }
        lefts.push(left);
        sources.push(source);
    }
    let report = relay.listeners[0].2.clone();
    let mut testbed = Testbed { lefts, relay, right, report, labels, sealed_after: None };
    testbed.until_up(began)?;
    testbed.sealed_after = is_sealed.then(|| began.elapsed());
    Ok((testbed, sources, sink))
}

impl Testbed {
    fn nodes(&self) -> impl Iterator<Item = &Node> {
        [&self.relay, &self.right].into_iter().chain(&self.lefts)
    }

    /// Blocks until every link forwards.
    fn until_up(&self, began: Instant) -> Result<(), Failure> {
        while !self.nodes().all(Node::is_up) {
            if began.elapsed() > UP_MAX {
                return Err(Failure::new(Exit::CheckFailed, "demo: the links do not come up"));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    }

    /// The number of links of the relay.
    pub(super) fn relay_links(&self) -> usize {
        self.relay.links.len()
    }

    /// Whether no relay has frames in flight.
    pub(super) fn is_at_rest(&self) -> bool {
        self.nodes().all(|node| node.stats().is_none_or(|stats| stats.totals.is_even()))
    }

    /// Stops all relays, and returns their counters. Those of the relay in the middle come first.
    pub(super) fn stop(self) -> Result<Vec<Balance>, Failure> {
        self.nodes().map(Node::stop).collect()
    }

    /// The number of frames whose payload a relay copied.
    pub(super) fn frames_copied(&self) -> u64 {
        self.nodes().filter_map(Node::stats).map(|stats| stats.frames_copied).sum()
    }
}
