//! The result of a lookup: a route to a peer, with the known properties of the route.

use core::net::IpAddr;

use arrayvec::ArrayVec;
use strowger_crypto::{Certificate, Nanos, PeerId, StaticPublic};
use strowger_wire::label::AnyLabel;

use crate::{
    address::{PeerAddress, UdpAddress},
    limits::CANDIDATES_MAX,
};

/// A route to a peer, with its known properties. The route is a hint: only the handshake
/// authenticates the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// The peer to which the route is said to lead.
    pub peer: PeerId,
    /// The route.
    pub route: Route,
    /// A smaller cost is better. Costs of one source are comparable, with 1,000 for one millisecond
    /// of delay where the delay is known.
    pub cost: u32,
    /// Bytes of the longest packet that fits, with the switch header; `None` if unknown.
    pub mtu: Option<u16>,
    /// The time at which the route expires; `None` if it does not expire.
    pub expires: Option<Nanos>,
    /// The certificate of the peer's connection key, with which a handshake by static key is
    /// possible; `None` if it is unknown.
    pub certificate: Option<Certificate>,
    /// The source.
    pub source: Source,
}

/// Candidates of one result, best first.
pub type Candidates = ArrayVec<Candidate, CANDIDATES_MAX>;

impl Candidate {
    /// A candidate of cost 0 that does not expire.
    pub const fn new(peer: PeerId, route: Route, source: Source) -> Candidate {
        Candidate { peer, route, cost: 0, mtu: None, expires: None, certificate: None, source }
    }

    /// The candidate that an address describes. `None` if the address names no peer, if it has
    /// neither an underlay nor a label, or if it has both but does not name the peer of the link.
    pub fn of_address(address: &PeerAddress, source: Source) -> Option<Candidate> {
        let parts = address.parts();
        let peer = parts.peer?;
        let route = match (parts.underlay, parts.label) {
            (None, None) => return None,
            (None, Some(label)) => Route::Label(label),
            (Some(address), label) => {
                let node = match label {
                    Some(_) => parts.link_peer?,
                    None => peer,
                };
                Route::Underlay(UnderlayRoute { address, node: NodeId::PeerId(node), label })
            }
        };
        Some(Candidate::new(peer, route, source))
    }

    /// The sort key of a candidate: a better candidate has a smaller key. At equal cost, a label is
    /// better than an underlay address, which needs a new link.
    pub(crate) fn rank(&self) -> (u32, bool) {
        (self.cost, matches!(self.route, Route::Underlay(_)))
    }

    /// Whether the route is no longer valid.
    pub fn is_expired(&self, now: Nanos) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}

/// A route to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// A label that begins at this node's own switch.
    Label(AnyLabel),
    /// A node that may become a neighbour: a new link must be made first.
    Underlay(UnderlayRoute),
}

/// A route over a link that does not exist yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnderlayRoute {
    /// The address of the node.
    pub address: UdpAddress,
    /// The node that must answer at this address.
    pub node: NodeId,
    /// The label to the peer, from the switch of that node; `None` if the node is the peer.
    pub label: Option<AnyLabel>,
}

impl Route {
    /// The IP address to which packets would be sent before any node is authenticated; `None` for a
    /// label.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Route::Label(_) => None,
            Route::Underlay(underlay) => Some(underlay.address.ip),
        }
    }
}

/// How a node is authenticated in the handshake of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeId {
    /// By its static key of links: the handshake is IKpsk2.
    LinkKey(StaticPublic),
    /// By its identity: the handshake is XX.
    PeerId(PeerId),
}

/// The source of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The address book, or another table that an operator wrote.
    StaticTable,
    /// A neighbour that answered `find`.
    Neighbour,
    /// This node's own switch, which answered `resolve`.
    Relay,
    /// A program that embeds this library.
    Program,
}

impl Source {
    /// A stable name in snake_case.
    pub const fn name(self) -> &'static str {
        match self {
            Source::StaticTable => "static_table",
            Source::Neighbour => "neighbour",
            Source::Relay => "relay",
            Source::Program => "program",
        }
    }
}
