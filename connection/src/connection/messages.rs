//! Sockets and messages of one connection.

use strowger_crypto::{Nanos, Sealed};
use strowger_wire::connection::header::CONNECTION_HEADER_BYTES;
use strowger_wire::connection::{ControlItem, EntryFlags, EntryNumber, ProtocolName};
use strowger_wire::limits::{CONNECTION_OVERHEAD_BYTES, TAG_BYTES};
use strowger_wire::link_header::Lane;

use super::{Connection, Owner};
use crate::accepts::Acceptor;
use crate::data_path::Target;
use crate::error::{ConnectError, SendRefused};
use crate::event::Event;
use crate::goodbye::CloseReason;
use crate::ids::{ListenerId, SocketId};
use crate::info::SocketState;
use crate::names::ProtocolNames;
use crate::packet::PacketMark;
use crate::path::Traffic;
use crate::protocol_table::OwnTableFull;
use crate::shared::Shared;

impl Connection {
    /// Adds the protocols that this peer may use to the own table.
    pub(crate) fn offer_accepted(&mut self, now: Nanos, shared: &Shared) {
        for (name, accepted) in shared.accepts.iter() {
            if shared.policy.may_use(&self.peer, name)
                && let Some(name) = ProtocolName::new(name.as_bytes())
            {
                // A full table is no error here: this end does not announce the protocol to the
                // peer.
                let _ = self.own.add(now, name, accepted.flags);
            }
        }
    }

    /// Adds a name that this end uses to the own table, so that answers have a number.
    pub(crate) fn offer_name(
        &mut self,
        now: Nanos,
        name: &str,
        shared: &Shared,
    ) -> Result<(), OwnTableFull> {
        let flags = shared.accepts.get(name).map_or(EntryFlags::NONE, |accepted| accepted.flags);
        match ProtocolName::new(name.as_bytes()) {
            Some(name) => self.own.add(now, name, flags).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Updates the data path's target of each own number.
    pub(crate) fn set_targets(&self, shared: &mut Shared) {
        let entries = self.own.entries();
        let mut targets = Vec::with_capacity(usize::from(entries.count().number()));
        targets.extend(entries.iter().map(|entry| self.target_of(entry.name.as_str(), shared)));
        if let Some(hot) = shared.data.connections.get_mut(self.place as usize) {
            hot.targets = targets;
        }
    }

    /// The target of messages to a name of the own table.
    fn target_of(&self, name: &str, shared: &Shared) -> Target {
        if let Some(socket) = self.socket_for(name, shared) {
            return Target::Socket(socket);
        }
        match shared.accepts.get(name) {
            Some(accepted) if shared.policy.may_use(&self.peer, name) => match accepted.by {
                Acceptor::Listener(_) => Target::Listener,
                Acceptor::Datagram(id) => Target::Datagram(id),
            },
            _ => Target::Closed,
        }
    }

    /// The open socket for a name.
    pub(crate) fn socket_for(&self, name: &str, shared: &Shared) -> Option<SocketId> {
        let is_it = |id: &&SocketId| {
            shared.sockets.get(**id).is_some_and(|s| s.is_open() && s.name() == Some(name))
        };
        self.sockets.iter().find(is_it).copied()
    }

    /// Opens the socket of a listener for the first message of this peer.
    pub(crate) fn accept_socket(
        &mut self,
        now: Nanos,
        name: &str,
        shared: &mut Shared,
    ) -> Result<SocketId, AcceptRefused> {
        let accepted = shared.accepts.get(name).ok_or(AcceptRefused::NoListener)?;
        let Acceptor::Listener(listener) = accepted.by else {
            return Err(AcceptRefused::NoListener);
        };
        if !shared.accepts.has_room(listener) {
            return Err(AcceptRefused::BacklogFull);
        }
        let names = ProtocolNames::new([name]).map_err(|_| AcceptRefused::NoListener)?;
        let id = self.open_socket(names, shared);
        self.note_accepted(now, id, listener, shared);
        Ok(id)
    }

    fn note_accepted(
        &mut self,
        now: Nanos,
        id: SocketId,
        listener: ListenerId,
        shared: &mut Shared,
    ) {
        shared.accepts.note_waiting(listener);
        if let Some(socket) = shared.sockets.get_mut(id) {
            socket.waits_in = Some(listener);
            socket.state = SocketState::Open;
            socket.chosen = Some(0);
        }
        self.choose(now, shared);
        self.set_targets(shared);
        shared.report(Event::Accepted { listener, socket: id, peer: self.peer });
    }

    /// Adds a socket.
    pub(crate) fn open_socket(&mut self, names: ProtocolNames, shared: &mut Shared) -> SocketId {
        let id = shared.sockets.open(&mut shared.data, self.place, names).id;
        if self.sockets.is_empty() {
            self.sockets.reserve_exact(1); // most connections have one
        }
        self.sockets.push(id);
        id
    }

    /// Removes a socket, and drops its messages that wait.
    pub(crate) fn remove_socket(&mut self, id: SocketId, shared: &mut Shared) {
        self.sockets.retain(|socket| *socket != id);
        let lost = self.waiting.remove_where(|owner| *owner == Owner::Socket(id));
        shared.counters.waiting -= lost as u64;
        shared.counters.waited_lost += lost as u64;
        if let Some(socket) = shared.sockets.remove(&mut shared.data, id)
            && let Some(listener) = socket.waits_in
        {
            shared.accepts.note_taken(listener);
        }
        self.set_targets(shared);
    }

    /// Whether messages can be sent now: there are keys and a usable path.
    pub(crate) fn can_send(&self, shared: &Shared) -> bool {
        let hot = shared.data.connections.get(self.place as usize);
        hot.is_some_and(|hot| hot.tx.is_some()) && self.paths.is_usable()
    }

    /// Bytes of the longest message that fits now, when sent by number.
    pub(crate) fn message_max(&self, shared: &Shared) -> usize {
        let hot = shared.data.connections.get(self.place as usize);
        let max = self.paths.packet_bytes_max().saturating_sub(CONNECTION_OVERHEAD_BYTES as u16);
        hot.and_then(|hot| hot.tx.as_deref()).map_or(0, |_| usize::from(max))
    }

    /// After a change of keys, path or table: chooses the names of sockets, and sends messages that
    /// wait.
    pub(crate) fn progress(&mut self, now: Nanos, shared: &mut Shared) {
        self.choose(now, shared);
        self.number_goodbyes(now, shared);
        self.send_early_sealed(now, shared);
        self.flush(now, shared);
    }

    /// Chooses the name and the number of each socket, as far as the peer's table is known.
    pub(crate) fn choose(&mut self, now: Nanos, shared: &mut Shared) {
        let can_send = self.can_send(shared);
        let is_confirmed = self.is_proven || !self.session.awaits_confirmation();
        let (mut failed, mut is_chosen) = (Vec::new(), false);
        for place in 0..self.sockets.len() {
            let id = self.sockets[place];
            let Some(socket) = shared.sockets.get(id) else { continue };
            let chosen = self.choice(&socket.names, socket.chosen);
            let taken = chosen.and_then(|chosen| socket.names.get(chosen)).is_some_and(|name| {
                let other = self.socket_for(name, shared);
                other.is_some_and(|other| other != id)
            });
            let number = chosen
                .and_then(|chosen| socket.names.get(chosen))
                .and_then(|name| self.theirs.number_of(ProtocolName::new(name.as_bytes())?));
            let is_refused = chosen.is_none() && self.theirs.is_complete();
            let flow_number = number.map_or(0, |number| number.on_wire().number());
            let flow = shared.flow(self.place, self.turn, Lane::ZERO, flow_number);
            let peer = self.peer;
            let Some(socket) = shared.sockets.get_mut(id) else { continue };
            let was_chosen = socket.chosen.is_some();
            if taken && socket.state == SocketState::Connecting {
                failed.push((id, ConnectError::AlreadyOpen));
                continue;
            }
            socket.chosen = chosen.or(socket.chosen);
            is_chosen |= !was_chosen && socket.chosen.is_some();
            let mut report = None;
            match socket.state {
                SocketState::Connecting if is_refused && can_send => {
                    failed.push((id, ConnectError::Unsupported));
                    continue;
                }
                SocketState::Connecting if can_send && chosen.is_some() => {
                    socket.state = SocketState::Open;
                    // After a handshake by PeerId, the peer may still refuse the third message.
                    socket.deadline = socket.deadline.filter(|_| !is_confirmed);
                    let name = chosen.unwrap_or(0);
                    report = Some(Event::Connected { socket: id, peer, name });
                }
                SocketState::Unsupported
                    if flow_number != 0 && flow_number != socket.refused_number =>
                {
                    socket.state = SocketState::Open;
                    report = Some(Event::Writable { socket: id });
                }
                _ => {}
            }
            let is_open = socket.state == SocketState::Open;
            let hot = &mut shared.data.sockets[id.index()];
            hot.number = if is_open { flow_number } else { 0 };
            hot.flow = flow;
            shared.flows.insert((flow, self.place));
            if let Some(event) = report {
                shared.report(event);
            }
        }
        for (id, error) in failed {
            self.fail_socket(id, error, shared);
        }
        if is_chosen {
            let names: Vec<String> = self
                .sockets
                .iter()
                .filter_map(|id| shared.sockets.get(*id)?.name().map(str::to_owned))
                .collect();
            for name in names {
                let _ = self.offer_name(now, &name, shared);
            }
            self.set_targets(shared);
        }
    }

    /// The name of a socket: the only one, or the first one that the peer accepts, if no better one
    /// can follow (wire.md W6-34).
    fn choice(&self, names: &ProtocolNames, chosen: Option<usize>) -> Option<usize> {
        if chosen.is_some() || names.len() == 1 {
            return chosen.or(Some(0));
        }
        let (best, _) = self.theirs.choose(names)?;
        (best == 0 || self.theirs.is_complete()).then_some(best)
    }

    /// Ends a connect that has failed.
    pub(crate) fn fail_socket(&mut self, id: SocketId, error: ConnectError, shared: &mut Shared) {
        self.remove_socket(id, shared);
        shared.report(Event::ConnectFailed { socket: id, error });
    }

    /// Ends all sockets.
    pub(crate) fn close_sockets(&mut self, reason: &CloseReason, shared: &mut Shared) {
        for id in std::mem::take(&mut self.sockets) {
            let state = shared.sockets.get(id).map(|socket| socket.state.clone());
            self.remove_socket(id, shared);
            let event = match (state, reason) {
                (None, _) => continue,
                (Some(SocketState::Connecting), CloseReason::ByPeer(goodbye)) => {
                    let error = ConnectError::Refused(goodbye.clone());
                    Event::ConnectFailed { socket: id, error }
                }
                (Some(_), reason) => Event::SocketClosed { socket: id, reason: reason.clone() },
            };
            shared.report(event);
        }
    }

    /// Handles a message that the data path could not seal: sends it as `named`, or queues it.
    pub(crate) fn send_slowly(
        &mut self,
        now: Nanos,
        owner: Owner,
        message: &[u8],
        shared: &mut Shared,
    ) -> Result<(), SendRefused> {
        if self.waiting.is_empty() && self.can_send(shared) {
            match self.send_owned(now, owner, message, shared) {
                SentSlowly::Sent => return Ok(()),
                SentSlowly::Refused(why) => return Err(why),
                SentSlowly::Waits => {}
            }
        }
        self.waiting.push(now, owner, message).map_err(|_| SendRefused::Full)?;
        shared.counters.waiting += 1;
        Ok(())
    }

    /// Sends a message ahead of those that wait.
    pub(crate) fn send_first(
        &mut self,
        now: Nanos,
        owner: Owner,
        message: &[u8],
        shared: &mut Shared,
    ) -> Result<(), SendRefused> {
        match self.send_owned(now, owner, message, shared) {
            SentSlowly::Sent => Ok(()),
            SentSlowly::Refused(why) => Err(why),
            SentSlowly::Waits => Err(SendRefused::Full),
        }
    }

    /// Sends the messages that wait, as far as possible and in their order.
    pub(crate) fn flush(&mut self, now: Nanos, shared: &mut Shared) {
        if self.waiting.is_empty() || !self.can_send(shared) {
            return;
        }
        let mut waiting =
            std::mem::replace(&mut self.waiting, crate::waiting::WaitingMessages::new());
        let mut blocked: Vec<Owner> = Vec::new();
        waiting.remove_if(|owner, message| {
            let waits_for_early = matches!(owner, Owner::Socket(id)
                if shared.sockets.get(*id).is_some_and(|socket| socket.early.is_some()));
            if waits_for_early || blocked.contains(owner) {
                return false;
            }
            match self.send_owned(now, *owner, message, shared) {
                SentSlowly::Sent => {
                    shared.counters.waiting -= 1;
                    true
                }
                SentSlowly::Refused(_) => {
                    shared.counters.waiting -= 1;
                    shared.counters.waited_lost += 1;
                    true
                }
                SentSlowly::Waits => {
                    blocked.push(*owner);
                    false
                }
            }
        });
        self.waiting = waiting;
        self.report_writable(shared);
    }

    /// Reports the sockets that refused a message as `Full`, as soon as no message waits.
    pub(crate) fn report_writable(&self, shared: &mut Shared) {
        if !self.waiting.is_empty() {
            return;
        }
        for id in &self.sockets {
            if let Some(socket) = shared.sockets.get_mut(*id)
                && std::mem::take(&mut socket.was_refused)
            {
                shared.report(Event::Writable { socket: *id });
            }
        }
    }

    /// Sends a message by number, or as `named`.
    fn send_owned(
        &mut self,
        now: Nanos,
        owner: Owner,
        message: &[u8],
        shared: &mut Shared,
    ) -> SentSlowly {
        let (name, mark) = match owner {
            Owner::Socket(id) => {
                let Some(socket) = shared.sockets.get(id) else {
                    return SentSlowly::Refused(SendRefused::NoSocket);
                };
                if socket.state == SocketState::Unsupported {
                    return SentSlowly::Refused(SendRefused::Unsupported);
                }
                let Some(name) = socket.name() else { return SentSlowly::Waits };
                let hot = &shared.data.sockets[id.index()];
                let (class, ecn) = (hot.class, hot.ecn);
                (name.to_owned(), PacketMark { flow: 0, class, ecn, no_errors: false })
            }
            Owner::Datagram(id) => {
                let Some(name) = shared.accepts.names_of(id).first() else {
                    return SentSlowly::Refused(SendRefused::NoSocket);
                };
                (name.to_string(), PacketMark::default())
            }
        };
        let Some(protocol) = ProtocolName::new(name.as_bytes()) else {
            return SentSlowly::Refused(SendRefused::Unsupported);
        };
        let max = self.message_max(shared);
        if message.len() > max {
            return SentSlowly::Refused(SendRefused::TooLong { max });
        }
        let number = self.theirs.number_of(protocol);
        let body = match number {
            Some(number) => {
                let mut body = vec![number.on_wire().number()];
                body.extend_from_slice(message);
                body
            }
            None => {
                let item = ControlItem::Named { name: protocol, message };
                let mut body = vec![0; 1 + item.wire_bytes()];
                if body.len() > max + 1 || item.emit(&mut body[1..]).is_err() {
                    return SentSlowly::Waits;
                }
                body
            }
        };
        let flow_number = number.map_or(0, |number| number.on_wire().number());
        let bytes = CONNECTION_HEADER_BYTES + body.len() + TAG_BYTES;
        let Ok(along) = self.paths.take(now, bytes, Traffic::Message) else {
            return SentSlowly::Waits;
        };
        let along = *along;
        let flow = shared.flow(self.place, self.turn, along.lane, flow_number);
        let mark = PacketMark { flow, ..mark };
        if !self.seal_along(now, Sealed::Data, &along, mark, &body, shared) {
            return SentSlowly::Waits;
        }
        shared.counters.sealed += 1;
        if let Some(hot) = shared.data.connections.get_mut(self.place as usize) {
            hot.message_sent = now;
            hot.due_since.get_or_insert(now);
        }
        SentSlowly::Sent
    }

    /// The name for a number of the own table.
    pub(crate) fn name_of(&self, number: EntryNumber) -> Option<String> {
        let number = self.own.number(number)?;
        Some(self.own.entry(number).name.as_str().to_owned())
    }
}

/// The result of sending a message on the control path.
#[derive(Debug, PartialEq, Eq)]
enum SentSlowly {
    Sent,
    Refused(SendRefused),
    Waits,
}

/// Why a message opened no socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptRefused {
    NoListener,
    BacklogFull,
}
