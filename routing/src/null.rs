//! Null routing: a link to the peer itself, and a label of one hop.

use std::collections::VecDeque;

use strowger_crypto::Nanos;
use strowger_wire::{
    Hop, Label, Register, Scheme, Slot,
    label::{AnyLabel, LabelError},
    with_label,
};

use crate::{
    address::UdpAddress,
    candidate::{Candidate, NodeId, Route, UnderlayRoute},
    limits::{LINK_OPEN_S, LINK_RETRY_S},
    switch_routing::{Constraints, Path, PathError, PathErrorKind, Paths, SwitchRouting},
};

/// Null routing: requests a link to the node of an underlay candidate. When the link is up, the
/// path is one hop over this link, followed by the label of the candidate, if it has one.
///
/// Null routing opens no link itself: the caller executes the requests of
/// [`next_request`](NullRouting::next_request) at its switch, and reports the results. The number
/// of links is limited, and a link that was not used for the idle time is closed. Links that were
/// made in another way are not used.
///
/// ```
/// use strowger_routing::{
///     Candidate, Constraints, LinkRequest, NodeId, NullConfig, NullRouting, PeerAddress, Route,
///     Source, SwitchRouting, crypto::Nanos, wire::{Slot, scheme::V3X5X8},
/// };
///
/// let config = NullConfig { links_max: 8, idle: Nanos::from_secs(300), own_slot: Slot::new(4) };
/// let mut routing = NullRouting::new(V3X5X8, config);
/// let address: PeerAddress =
///     "/ip4/192.0.2.1/udp/4737/strowger/p2p/12D3KooWN1hpF14DNzraYWzE2HQH1zK7hNtYy7HALnB9s3gE79TY"
///         .parse()?;
/// let peer = Candidate::of_address(&address, Source::StaticTable).expect("who answers is known");
///
/// let (now, any) = (Nanos::ZERO, Constraints::default());
/// assert!(routing.paths(now, &peer, &any).is_pending);
/// let Some(LinkRequest::Open { node, .. }) = routing.next_request() else { panic!("a request") };
/// routing.link_up(now, node, Slot::new(2));
/// assert_eq!(routing.paths(now, &peer, &any).paths[0].label.to_string(), "0000.0000.0000.0015");
/// # Ok::<(), strowger_routing::address::AddressError>(())
/// ```
#[derive(Debug)]
pub struct NullRouting {
    scheme: Scheme,
    config: NullConfig,
    links: Vec<NullLink>,
    requests: VecDeque<LinkRequest>,
}

/// The configuration of null routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NullConfig {
    /// Maximum number of links, including those that are being opened.
    pub links_max: usize,
    /// The time after which a link that is not used is closed.
    pub idle: Nanos,
    /// The slot of this node's own switch on which the user's packets arrive; slot 1 if the switch
    /// itself sends them.
    pub own_slot: Slot,
}

/// A request of null routing to the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkRequest {
    /// Make a link to this node at this address. Another node at the address must not get the link.
    Open {
        /// The address.
        address: UdpAddress,
        /// The node.
        node: NodeId,
    },
    /// End the link to this node, or the attempt to make it.
    Close {
        /// The node.
        node: NodeId,
    },
}

/// A link, or the record of a failed attempt to make it.
#[derive(Debug)]
struct NullLink {
    node: NodeId,
    state: LinkState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkState {
    /// The link was requested. The attempt is abandoned at this time.
    Opening { until: Nanos },
    /// The link is up on this slot, and was last used at this time.
    Up { slot: Slot, used: Nanos },
    /// The link could not be made, or went down. It is not requested again before this time, as
    /// long as the record is kept.
    Failed { until: Nanos },
}

impl NullRouting {
    /// Null routing of a switch with this scheme.
    pub const fn new(scheme: Scheme, config: NullConfig) -> NullRouting {
        NullRouting { scheme, config, links: Vec::new(), requests: VecDeque::new() }
    }

    /// The next request to the switch. After each call of another method, call this method until it
    /// returns `None`.
    pub fn next_request(&mut self) -> Option<LinkRequest> {
        self.requests.pop_front()
    }

    /// Notes that the link to this node is up on this slot. The caller also calls this method when
    /// the link has got another slot.
    ///
    /// The call has no effect for a link that was not requested, and for a link that counts as failed:
    /// its attempt was abandoned, or `link_failed` was called for it in the last 30 seconds
    /// (`LINK_RETRY_S`).
    pub fn link_up(&mut self, now: Nanos, node: NodeId, slot: Slot) {
        if let Some(link) = self.link(&node)
            && !matches!(link.state, LinkState::Failed { .. })
        {
            link.state = LinkState::Up { slot, used: now };
        }
    }

    /// Notes that the link to this node could not be made, or went down.
    pub fn link_failed(&mut self, now: Nanos, node: NodeId) {
        if let Some(link) = self.link(&node) {
            link.state = LinkState::Failed { until: now.plus(Nanos::from_secs(LINK_RETRY_S)) };
        }
    }

    /// Notes that the link to this node is used, so that it does not count as idle.
    pub fn link_used(&mut self, now: Nanos, node: &NodeId) {
        if let Some(NullLink { state: LinkState::Up { used, .. }, .. }) = self.link(node) {
            *used = (*used).max(now);
        }
    }

    /// Replaces the scheme, after the scheme of the switch has changed. Earlier labels stay valid
    /// as long as the switch accepts them.
    pub fn set_scheme(&mut self, scheme: Scheme) {
        self.scheme = scheme;
    }

    /// Abandons attempts that take too long, and closes links that are idle.
    pub fn poll(&mut self, now: Nanos) {
        let idle = self.config.idle;
        for link in &mut self.links {
            match link.state {
                LinkState::Opening { until } if until <= now => {
                    self.requests.push_back(LinkRequest::Close { node: link.node });
                    let until = now.plus(Nanos::from_secs(LINK_RETRY_S));
                    link.state = LinkState::Failed { until };
                }
                LinkState::Up { used, .. } if used.plus(idle) <= now => {
                    self.requests.push_back(LinkRequest::Close { node: link.node });
                    link.state = LinkState::Failed { until: now };
                }
                LinkState::Opening { .. } | LinkState::Up { .. } | LinkState::Failed { .. } => {}
            }
        }
        self.links
            .retain(|link| !matches!(link.state, LinkState::Failed { until } if until <= now));
    }

    fn link(&mut self, node: &NodeId) -> Option<&mut NullLink> {
        self.links.iter_mut().find(|link| link.node == *node)
    }

    /// Requests a link, if the limit allows it. Returns whether a link was requested.
    fn open(&mut self, now: Nanos, route: &UnderlayRoute) -> bool {
        if self.links.len() >= self.config.links_max {
            // To make room, remove the failure record that would expire first.
            let oldest =
                self.links.iter().enumerate().filter_map(|(place, link)| match link.state {
                    LinkState::Failed { until } => Some((until, place)),
                    LinkState::Opening { .. } | LinkState::Up { .. } => None,
                });
            let Some((_, place)) = oldest.min() else { return false };
            self.links.remove(place);
        }
        let until = now.plus(Nanos::from_secs(LINK_OPEN_S));
        self.links.push(NullLink { node: route.node, state: LinkState::Opening { until } });
        let UnderlayRoute { address, node, .. } = *route;
        self.requests.push_back(LinkRequest::Open { address, node });
        true
    }

    /// The label that leads over the link on `slot`, and then along `behind`.
    fn label(&self, slot: Slot, behind: Option<AnyLabel>) -> Result<AnyLabel, LabelError> {
        match behind {
            None => Ok(AnyLabel::W64(self.one_hop(slot)?)),
            Some(behind) => with_label!(behind, behind => {
                Ok(AnyLabel::from(Label::splice(behind, self.one_hop(slot)?)?))
            }),
        }
    }

    fn one_hop<R: Register>(&self, slot: Slot) -> Result<Label<R>, LabelError> {
        let hop = Hop { scheme: &self.scheme, ingress: self.config.own_slot, egress: slot };
        Label::build(&[hop]).map(|(label, _)| label)
    }

    fn is_up_at(&self, slot: Slot) -> bool {
        let is_there =
            |link: &NullLink| matches!(link.state, LinkState::Up { slot: at, .. } if at == slot);
        self.links.iter().any(is_there)
    }
}

impl SwitchRouting for NullRouting {
    fn paths(&mut self, now: Nanos, to: &Candidate, constraints: &Constraints) -> Paths {
        self.poll(now);
        let mut paths = Paths::default();
        let Route::Underlay(route) = to.route else { return paths };
        if to.is_expired(now) {
            return paths;
        }
        match self.link(&route.node).map(|link| &mut link.state) {
            Some(LinkState::Up { slot, used }) => {
                *used = now;
                let slot = *slot;
                if let Ok(label) = self.label(slot, route.label) {
                    let path = Path::to(to, label);
                    if constraints.allow(&path) {
                        paths.paths.push(path);
                    }
                }
            }
            Some(LinkState::Opening { .. }) => paths.is_pending = true,
            Some(LinkState::Failed { .. }) => {}
            None => paths.is_pending = self.open(now, &route),
        }
        paths
    }

    /// Repairs a label whose first slot, at this node's own switch, has got another number. The new
    /// number must be that of a link that is up.
    ///
    /// An error is not authenticated, so it does not change the slot of a link. Only
    /// [`link_up`](NullRouting::link_up) changes it.
    fn repair(&mut self, _: Nanos, label: &AnyLabel, error: &PathError) -> Option<AnyLabel> {
        let PathErrorKind::SlotMoved { from, to } = error.kind else { return None };
        let (from, to) = (Slot::new(from), Slot::new(to));
        let (own_slot, offending) = (self.config.own_slot, &error.offending);
        let is_about_us =
            offending.used(own_slot) == Some(0) && offending.was_sent_with(own_slot, label);
        if !is_about_us || !self.is_up_at(to) {
            return None;
        }
        let behind = with_label!(*label, label => {
            let first = label.decode(&self.scheme).ok().filter(|first| first.slot() == from)?;
            AnyLabel::from(Label::new(label.register().shr(u32::from(first.width()))))
        });
        self.label(to, Some(behind)).ok()
    }

    fn next_timeout(&self) -> Option<Nanos> {
        let times = self.links.iter().map(|link| match link.state {
            LinkState::Opening { until } | LinkState::Failed { until } => until,
            LinkState::Up { used, .. } => used.plus(self.config.idle),
        });
        times.min()
    }
}
