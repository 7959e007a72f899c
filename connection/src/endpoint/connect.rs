//! Connecting: sockets, lookups and labels.

use strowger_crypto::session::Input;
use strowger_crypto::{Nanos, PeerId};
use strowger_routing::{
    Candidate, ControlReply, LookupResult, LookupTarget, PathError, PeerRouting, Route as Way,
};
use strowger_wire::connection::ConnectionId;
use strowger_wire::control::Message;
use strowger_wire::switch_header::{Flags, HeaderRepr};
use strowger_wire::with_label;

use super::{Endpoint, Unresolved};
use crate::counters::Discard;
use crate::destination::Destination;
use crate::error::{ConnectError, ConnectStage};
use crate::event::Event;
use crate::ids::SocketId;
use crate::info::SocketState;
use crate::limits::{FLOW_USERS_MAX, HOPS_LEFT, UNRESOLVED_MAX};
use crate::names::ProtocolNames;
use crate::options::ConnectOptions;
use crate::shared::Wish;

impl Endpoint {
    pub(super) fn connect_socket(
        &mut self,
        now: Nanos,
        to: &Destination,
        names: ProtocolNames,
        options: ConnectOptions,
    ) -> Result<SocketId, ConnectError> {
        if self.closing_since.is_some() {
            return Err(ConnectError::Closed);
        }
        let peer = match to.target() {
            LookupTarget::Peer(peer) => Some(*peer),
            LookupTarget::Address(address) => {
                to.routes().first().map(|candidate| candidate.peer).or_else(|| {
                    self.connections.iter().map(|c| c.peer).find(|p| p.ip6() == *address)
                })
            }
        };
        let Some(peer) = peer else {
            return self.connect_later(now, *to.target(), names, options);
        };
        let place = self.reach(now, &peer, to.routes())?;
        let Endpoint { connections, shared, .. } = self;
        let connection = connections.get_mut(place).ok_or(ConnectError::TooMany)?;
        if connection.is_closing() {
            return Err(ConnectError::Closed);
        }
        if names.len() == 1 {
            if connection.socket_for(names.first(), shared).is_some() {
                return Err(ConnectError::AlreadyOpen);
            }
            connection
                .offer_name(now, names.first(), shared)
                .map_err(|_| ConnectError::TableFull)?;
        }
        let id = connection.open_socket(names, shared);
        if let Some(socket) = shared.sockets.get_mut(id) {
            socket.deadline = Some(now.plus(options.timeout));
            socket.early = options.early;
        }
        connection.set_targets(shared);
        connection.state_hello(shared);
        connection.progress(now, shared);
        connection.begin_if_wanted(now, shared);
        self.seek(now, place);
        self.settle(now, place);
        Ok(id)
    }

    /// Returns the connection with a peer, after adding these routes. Starts a connection if there
    /// is none.
    pub(super) fn reach(
        &mut self,
        now: Nanos,
        peer: &PeerId,
        routes: &[Candidate],
    ) -> Result<u32, ConnectError> {
        let identity = peer.identity().map_err(|_| ConnectError::NoRoute)?;
        if identity == *self.shared.config.local.identity() {
            return Err(ConnectError::Ourselves);
        }
        if let Some((until, goodbye)) = self.shared.goodbyes.get(peer) {
            if now < *until {
                return Err(ConnectError::Refused(goodbye.clone()));
            }
            self.shared.goodbyes.remove(peer);
        }
        let place = match self.connections.of_peer(peer) {
            Some(place) => place,
            None => {
                let made = self.connections.make(now, identity, true, &mut self.shared);
                made.ok_or(ConnectError::TooMany)?
            }
        };
        // A connection that so far has only the peer's initiation has no id, either.
        if self.connections.get(place).is_some_and(|c| c.id == ConnectionId::UNKNOWN) {
            let id = self.shared.draw_id().map_err(|_| ConnectError::TooMany)?;
            if let Some(connection) = self.connections.get_mut(place) {
                connection.id = id;
                connection.state_hello(&self.shared);
            }
        }
        self.add_routes(now, place, routes);
        Ok(place)
    }

    /// Starts a lookup if a connection has neither a path nor a label to try.
    pub(super) fn seek(&mut self, now: Nanos, place: u32) {
        let peer = self.connections.get(place).map(|connection| connection.peer);
        if let Some(peer) = peer.filter(|_| self.needs_lookup(place)) {
            self.look_up(now, LookupTarget::Peer(peer));
        }
    }

    /// Whether a connection has neither a path nor a label to try.
    fn needs_lookup(&self, place: u32) -> bool {
        self.connections.get(place).is_some_and(|connection| {
            !connection.can_send(&self.shared) && connection.paths.labels().is_empty()
        })
    }

    /// Adds the labels of candidates to a connection.
    fn add_routes(&mut self, now: Nanos, place: u32, routes: &[Candidate]) {
        let Endpoint { connections, shared, .. } = self;
        let Some(connection) = connections.get_mut(place) else { return };
        connection.is_known = true;
        for candidate in routes {
            if candidate.peer != connection.peer || candidate.is_expired(now) {
                continue;
            }
            if let Some(certificate) = &candidate.certificate
                && certificate.identity().peer_id() == connection.peer
                && let Some(key) = certificate.static_key()
            {
                connection.session.suggest_key(&key);
            }
            let Way::Label(label) = candidate.route else { continue };
            connection.add_label(now, label, candidate.mtu);
        }
        connection.begin_if_wanted(now, shared);
    }

    /// Connects to a peer of which only the address is known: its PeerId is looked up first.
    fn connect_later(
        &mut self,
        now: Nanos,
        target: LookupTarget,
        names: ProtocolNames,
        options: ConnectOptions,
    ) -> Result<SocketId, ConnectError> {
        if self.unresolved.len() >= UNRESOLVED_MAX {
            return Err(ConnectError::TooMany);
        }
        let Endpoint { shared, .. } = self;
        let socket = shared.sockets.open(&mut shared.data, u32::MAX, names);
        let deadline = now.plus(options.timeout);
        (socket.deadline, socket.early) = (Some(deadline), options.early);
        let socket = socket.id;
        self.unresolved.push(Unresolved { target, socket, deadline });
        self.look_up(now, target);
        Ok(socket)
    }

    /// Starts a lookup.
    pub(super) fn look_up(&mut self, now: Nanos, target: LookupTarget) {
        if !self.lookups.contains(&target) {
            self.lookups.push(target);
            self.routing.lookup(now, target, &mut self.questions);
        }
        self.poll_routing(now);
    }

    /// Handles the results of lookups, and sends the requests of routing.
    pub(super) fn poll_routing(&mut self, now: Nanos) {
        while let Some(result) = self.routing.poll(now, &mut self.questions) {
            self.handle_result(now, &result);
        }
        while let Some(question) = self.questions.pop() {
            let mut packet = Vec::new();
            let written = with_label!(question.to, label => {
                label.depart().ok().and_then(|(label, shift)| {
                    let flags = Flags { control: true, ..Flags::default() };
                    let header = HeaderRepr { flags, ..HeaderRepr::new(label, shift, HOPS_LEFT) };
                    packet.resize(header.wire_bytes() + question.message.len(), 0);
                    let rest = header.emit(&mut packet).ok()?;
                    rest.copy_from_slice(&question.message);
                    Some(())
                })
            });
            if written.is_some() {
                self.shared.out.push_packet(packet);
            }
        }
    }

    fn handle_result(&mut self, now: Nanos, result: &LookupResult) {
        let is_last = result.end.is_some();
        if is_last {
            self.lookups.retain(|target| *target != result.target);
        }
        let peer = match result.target {
            LookupTarget::Peer(peer) => Some(peer),
            LookupTarget::Address(_) => result.candidates.first().map(|candidate| candidate.peer),
        };
        self.resolve(now, &result.target, peer, is_last);
        let Some(place) = peer.and_then(|peer| self.connections.of_peer(&peer)) else { return };
        self.add_routes(now, place, &result.candidates);
        if is_last && self.needs_lookup(place) {
            let Endpoint { connections, shared, .. } = self;
            if let Some(connection) = connections.get_mut(place) {
                connection.no_route(shared);
            }
        }
        self.settle(now, place);
    }

    /// Continues the connects that waited for a PeerId.
    fn resolve(&mut self, now: Nanos, target: &LookupTarget, peer: Option<PeerId>, is_last: bool) {
        if peer.is_none() && !is_last {
            return;
        }
        let unresolved = std::mem::take(&mut self.unresolved);
        let (found, others): (Vec<_>, _) =
            unresolved.into_iter().partition(|waits| waits.target == *target);
        self.unresolved = others;
        for Unresolved { socket, .. } in found {
            let reached = match peer {
                Some(peer) => self.reach(now, &peer, &[]),
                None => Err(ConnectError::NoRoute),
            };
            match reached {
                Ok(place) => self.hand_over(now, socket, place),
                Err(error) => self.fail_unresolved(socket, error),
            }
        }
    }

    /// Moves a socket to the connection that it waited for.
    fn hand_over(&mut self, now: Nanos, id: SocketId, place: u32) {
        let Endpoint { connections, shared, .. } = self;
        let Some(socket) = shared.sockets.get_mut(id) else { return };
        socket.connection = place;
        shared.data.sockets[id.index()].connection = place;
        let Some(connection) = connections.get_mut(place) else { return };
        if connection.sockets.is_empty() {
            connection.sockets.reserve_exact(1); // most connections have one
        }
        connection.sockets.push(id);
        let only = shared.sockets.get(id).filter(|s| s.names.len() == 1);
        if let Some(name) = only.map(|socket| socket.names.first().to_owned()) {
            let _ = connection.offer_name(now, &name, shared);
        }
        connection.set_targets(shared);
        connection.state_hello(shared);
        connection.progress(now, shared);
        connection.begin_if_wanted(now, shared);
        self.seek(now, place);
        self.settle(now, place);
    }

    fn fail_unresolved(&mut self, id: SocketId, error: ConnectError) {
        let Endpoint { shared, .. } = self;
        shared.sockets.remove(&mut shared.data, id);
        shared.report(Event::ConnectFailed { socket: id, error });
    }

    /// Fails the connects whose time is over before the peer was known.
    pub(super) fn poll_unresolved(&mut self, now: Nanos) {
        while let Some(at) = self.unresolved.iter().position(|waits| waits.deadline <= now) {
            let Unresolved { target, socket, .. } = self.unresolved.swap_remove(at);
            self.fail_unresolved(socket, ConnectError::Timeout { stage: ConnectStage::Lookup });
            if self.unresolved.iter().all(|waits| waits.target != target) {
                self.routing.cancel(&target);
                self.lookups.retain(|other| *other != target);
            }
        }
    }

    /// Passes the lookups and feedback of connections to routing.
    pub(super) fn grant_wishes(&mut self, now: Nanos) {
        for wish in std::mem::take(&mut self.shared.wishes) {
            match wish {
                Wish::LookUp(peer) => self.look_up(now, LookupTarget::Peer(peer)),
                Wish::Feedback(label, outcome) => {
                    self.routing.feedback(now, &Way::Label(label), &outcome);
                }
            }
        }
    }

    /// Handles a control message that arrived: an error about a packet of a connection, or a reply
    /// to routing.
    pub(super) fn handle_control_message(
        &mut self,
        now: Nanos,
        reply: &ControlReply<'_>,
    ) -> Result<(), Discard> {
        self.routing.handle_reply(now, reply, &mut self.questions);
        self.poll_routing(now);
        // Routing may announce the node at any time.
        let is_reply = !self.lookups.is_empty() && is_answer(&reply.message)
            || matches!(reply.message, Message::Announced { .. });
        let Some(error) = PathError::of(&reply.message) else {
            return if is_reply { Ok(()) } else { Err(Discard::Unsolicited) };
        };
        let flow = error.offending.flow;
        let places: Vec<u32> = self
            .shared
            .flows
            .range((flow, 0)..=(flow, u32::MAX))
            .take(FLOW_USERS_MAX)
            .map(|(_, place)| *place)
            .collect();
        let mut outcome = Err(Discard::Unsolicited);
        for place in places {
            let Endpoint { connections, shared, .. } = self;
            let Some(connection) = connections.get_mut(place) else { continue };
            let handled = connection.handle_hint(now, &error, shared);
            self.settle(now, place);
            match handled {
                Err(Discard::Unsolicited) => {}
                other => outcome = other,
            }
        }
        outcome
    }
}

/// Whether a control message answers a request of routing.
fn is_answer(message: &Message<'_>) -> bool {
    matches!(
        message,
        Message::Found { .. }
            | Message::Resolved { .. }
            | Message::Pong { .. }
            | Message::IdentityReply { .. }
            | Message::ObservedReply { .. }
    )
}

impl crate::connection::Connection {
    /// Fails the connects of this connection, because routing knows no label.
    fn no_route(&mut self, shared: &mut crate::shared::Shared) {
        for id in self.sockets.clone() {
            let state = shared.sockets.get(id).map(|socket| &socket.state);
            if state == Some(&SocketState::Connecting) {
                self.fail_socket(id, ConnectError::NoRoute, shared);
            }
        }
    }

    /// Starts a handshake if a connect or a message waits for keys and a label is known.
    pub(crate) fn begin_if_wanted(&mut self, now: Nanos, shared: &mut crate::shared::Shared) {
        self.poll_use(now, shared);
        if self.is_wanted && !self.session.is_up() {
            let _ = self.drive(now, Input::Tick, None, shared);
        }
    }
}
