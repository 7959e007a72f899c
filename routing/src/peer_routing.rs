//! [`PeerRouting`]: finds routes to peers.

use core::net::Ipv6Addr;

use strowger_crypto::{Nanos, PeerId};
use strowger_wire::control::Reason;

use crate::{
    candidate::{Candidates, Route},
    question::{ControlReply, QuestionQueue},
};

/// Finds routes to peers. It is polled, never blocks, and reads no clock.
///
/// A caller starts a lookup, sends the questions in `out`, passes the replies to `handle_reply`,
/// and polls until a result has an [end](LookupResult::end).
///
/// Every implementation keeps these rules, and the combinators rely on them:
///
/// 1. Each lookup that is not cancelled has exactly one end, at the latest when the caller has
///    polled at each [`next_timeout`](PeerRouting::next_timeout).
/// 2. There is no result for a target that is not being looked up.
/// 3. A lookup of a target that is already being looked up changes nothing.
/// 4. After `poll` has returned `None`, it returns `None` until another method is called or the
///    next timeout is reached.
/// 5. The candidates of one result are sorted, best first, and none is expired.
pub trait PeerRouting: Send {
    /// Starts a lookup. Results come from [`poll`](PeerRouting::poll).
    fn lookup(&mut self, now: Nanos, target: LookupTarget, out: &mut QuestionQueue);

    /// Ends a lookup: no result for it comes afterwards.
    fn cancel(&mut self, target: &LookupTarget);

    /// Handles a control message that may belong to a lookup: a reply, or an error about a
    /// question.
    fn handle_reply(&mut self, now: Nanos, reply: &ControlReply<'_>, out: &mut QuestionQueue);

    /// The next result. After each call of another method and at each timeout, call `poll` until it
    /// returns `None`.
    fn poll(&mut self, now: Nanos, out: &mut QuestionQueue) -> Option<LookupResult>;

    /// Reports the outcome of a route that a lookup found.
    fn feedback(&mut self, now: Nanos, route: &Route, outcome: &Outcome);

    /// The time at which `poll` must be called next; `None` if only other calls can cause a result.
    fn next_timeout(&self) -> Option<Nanos>;
}

impl<P: PeerRouting + ?Sized> PeerRouting for Box<P> {
    fn lookup(&mut self, now: Nanos, target: LookupTarget, out: &mut QuestionQueue) {
        (**self).lookup(now, target, out);
    }

    fn cancel(&mut self, target: &LookupTarget) {
        (**self).cancel(target);
    }

    fn handle_reply(&mut self, now: Nanos, reply: &ControlReply<'_>, out: &mut QuestionQueue) {
        (**self).handle_reply(now, reply, out);
    }

    fn poll(&mut self, now: Nanos, out: &mut QuestionQueue) -> Option<LookupResult> {
        (**self).poll(now, out)
    }

    fn feedback(&mut self, now: Nanos, route: &Route, outcome: &Outcome) {
        (**self).feedback(now, route, outcome);
    }

    fn next_timeout(&self) -> Option<Nanos> {
        (**self).next_timeout()
    }
}

/// The peer to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LookupTarget {
    /// The peer with this PeerId.
    Peer(PeerId),
    /// The peer with this address in `fd53::/16` ([`PeerId::ip6`]).
    Address(Ipv6Addr),
}

impl LookupTarget {
    /// Whether this peer is the target.
    pub fn is(&self, peer: &PeerId) -> bool {
        match self {
            LookupTarget::Peer(wanted) => wanted == peer,
            LookupTarget::Address(wanted) => *wanted == peer.ip6(),
        }
    }
}

impl From<PeerId> for LookupTarget {
    fn from(peer: PeerId) -> LookupTarget {
        LookupTarget::Peer(peer)
    }
}

/// A result of a lookup: the routes found since the last result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupResult {
    /// The target of the lookup.
    pub target: LookupTarget,
    /// Routes to the target, best first; may be empty.
    pub candidates: Candidates,
    /// The end of the lookup in its last result; `None` in all others.
    pub end: Option<LookupEnd>,
}

impl LookupResult {
    /// An end without candidates.
    pub fn ended(target: LookupTarget, end: LookupEnd) -> LookupResult {
        LookupResult { target, candidates: Candidates::new(), end: Some(end) }
    }
}

/// Why a lookup has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LookupEnd {
    /// All sources have answered, or the time for answers is over.
    #[error("all sources were asked")]
    Complete,
    /// Too many other lookups are in progress. Nothing was asked.
    #[error("too many lookups are in progress: wait for one of them")]
    TooMany,
    /// The budget of lookups is spent. Nothing was asked.
    #[error("too many lookups in a short time: wait a second")]
    TooOften,
}

/// The outcome of a route that a lookup found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer has confirmed that it receives packets sent along this route.
    Validated {
        /// The round trip.
        rtt: Nanos,
        /// Bytes of the longest packet that arrived, with the switch header; `None` if unknown.
        mtu: Option<u16>,
    },
    /// The route did not lead to the peer.
    Failed(RouteFailure),
}

/// Why a route did not lead to its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteFailure {
    /// A switch reported a dropped packet. Such a report is not authenticated.
    Error(Reason),
    /// The peer did not answer in time.
    Silence,
    /// Another identity answered.
    WrongPeer,
}

/// Routing that knows no peer. Every lookup ends immediately.
#[derive(Debug, Default)]
pub struct NoRouting {
    ends: crate::ends::Ends,
}

impl PeerRouting for NoRouting {
    fn lookup(&mut self, _: Nanos, target: LookupTarget, _: &mut QuestionQueue) {
        self.ends.push(LookupResult::ended(target, LookupEnd::Complete));
    }

    fn cancel(&mut self, target: &LookupTarget) {
        self.ends.cancel(target);
    }

    fn handle_reply(&mut self, _: Nanos, _: &ControlReply<'_>, _: &mut QuestionQueue) {}

    fn poll(&mut self, _: Nanos, _: &mut QuestionQueue) -> Option<LookupResult> {
        self.ends.pop()
    }

    fn feedback(&mut self, _: Nanos, _: &Route, _: &Outcome) {}

    fn next_timeout(&self) -> Option<Nanos> {
        None
    }
}
