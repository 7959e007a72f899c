//! Early messages: those in the first handshake message (wire.md 6.8).

use strowger_crypto::Nanos;
use strowger_crypto::handshake::ik::Initiation;
use strowger_wire::connection::{
    ConnectionId, EarlyMessage, EarlyResult, EntryFlags, HelloFields, ProtocolName,
};

use super::{Connection, Owner};
use crate::accepts::Acceptor;
use crate::error::SendRefused;
use crate::event::Event;
use crate::ids::SocketId;
use crate::info::SocketState;
use crate::limits::EARLY_CLOCK_NS;
use crate::shared::Shared;

/// An early message to deliver.
#[derive(Debug)]
pub(crate) struct EarlyDelivery {
    pub(crate) name: String,
    pub(crate) message: Vec<u8>,
}

/// How this end handles the early message of an initiation.
#[derive(Debug)]
pub(crate) struct EarlyVerdict {
    pub(crate) result: EarlyResult,
    /// The message to deliver, if this is the first copy.
    pub(crate) delivery: Option<EarlyDelivery>,
    pub(crate) id: ConnectionId,
}

impl Connection {
    /// The socket whose early message the next initiations carry.
    fn early_socket(&self, shared: &Shared) -> Option<SocketId> {
        if self.is_proven || self.session.is_up() || shared.config.hide_identity {
            return None;
        }
        let remembered = self.remembered.as_ref()?;
        self.sockets.iter().copied().find(|id| {
            let socket = shared.sockets.get(*id);
            socket.is_some_and(|socket| {
                socket.early.is_some()
                    && socket.names.len() == 1
                    && remembered.allows_early(socket.names.first())
            })
        })
    }

    /// Calls `state` with the early message that the next initiations carry.
    pub(super) fn with_early<T>(
        &mut self,
        shared: &Shared,
        state: impl FnOnce(&mut Connection, Option<EarlyMessage<'_>>) -> T,
    ) -> T {
        let id = self.early_socket(shared);
        let socket = id.and_then(|id| shared.sockets.get(id));
        let early = socket.and_then(|socket| {
            let name = ProtocolName::new(socket.names.first().as_bytes())?;
            Some(EarlyMessage { name, message: socket.early.as_deref()? })
        });
        self.early_stated = id.filter(|_| early.is_some());
        // A message that was delivered early must not arrive again after a handshake by PeerId.
        self.session.insist_on_key(self.early_stated.is_some());
        state(self, early)
    }

    /// Handles the result that a response states for the early message.
    pub(super) fn take_early_result(&mut self, result: Option<EarlyResult>, shared: &mut Shared) {
        let Some(id) = self.early_stated.take() else { return };
        let Some(socket) = shared.sockets.get_mut(id) else { return };
        match result {
            Some(EarlyResult::Delivered) => socket.early = None,
            Some(EarlyResult::UnknownProtocol) => {
                (socket.early, socket.deadline) = (None, None);
                socket.state = SocketState::Unsupported;
                // The program waits for `Connected` first, as after a sealed message that the peer
                // refuses.
                let name = *socket.chosen.get_or_insert(0);
                shared.report(Event::Connected { socket: id, peer: self.peer, name });
                shared.report(Event::Unsupported { socket: id });
            }
            Some(EarlyResult::Refused) | None => {
                shared.report(Event::EarlyRefused { socket: id });
            }
        }
    }

    /// Sends the early messages that were not delivered early, as the first messages of their
    /// sockets.
    pub(super) fn send_early_sealed(&mut self, now: Nanos, shared: &mut Shared) {
        for id in self.sockets.clone() {
            let Some(socket) = shared.sockets.get_mut(id) else { continue };
            if socket.state != SocketState::Open || self.early_stated == Some(id) {
                continue;
            }
            let Some(message) = socket.early.take() else { continue };
            shared.counters.messages += 1;
            let sent = self.send_first(now, Owner::Socket(id), &message, shared);
            if let Err(SendRefused::Full) = sent
                && let Some(socket) = shared.sockets.get_mut(id)
            {
                shared.counters.messages -= 1;
                socket.early = Some(message);
            } else if sent.is_err() {
                shared.counters.refused += 1;
            }
        }
    }

    /// Decides whether to deliver the early message of an initiation (wire.md W6-21, W6-148).
    pub(crate) fn judge_early(
        &self,
        now: Nanos,
        initiation: &Initiation,
        shared: &mut Shared,
    ) -> Option<EarlyVerdict> {
        let fields = HelloFields::parse(initiation.offer().fields.as_bytes()).ok()?;
        let early = fields.early?;
        let id = fields.id.unwrap_or(ConnectionId::UNKNOWN);
        let verdict = |result| Some(EarlyVerdict { result, delivery: None, id });
        if let Some(result) = shared.memory.result(now, &self.peer, id) {
            return verdict(result);
        }
        let name = early.name.as_str();
        if !shared.may_use(&self.peer, name) {
            return verdict(EarlyResult::UnknownProtocol);
        }
        let Some(accepted) = shared.accepts.get(name).copied() else {
            return verdict(EarlyResult::UnknownProtocol);
        };
        let has_room = match accepted.by {
            Acceptor::Listener(listener) => {
                self.socket_for(name, shared).is_some() || shared.accepts.has_room(listener)
            }
            Acceptor::Datagram(_) => true,
        };
        let stamp = initiation.timestamp();
        let wall = shared.config.wall_at_zero;
        let (wall_now, began) = (wall.saturating_add(now.0), wall.saturating_add(shared.began.0));
        let is_taken = accepted.flags.holds(EntryFlags::EARLY)
            && has_room
            && !self.is_proven
            && id != ConnectionId::UNKNOWN
            && stamp.0 >= began.saturating_add(EARLY_CLOCK_NS)
            && stamp.0.abs_diff(wall_now) <= EARLY_CLOCK_NS
            && (self.session.guard().newest.is_some() || !shared.memory.is_below_floor(stamp))
            && shared.memory.has_room(now);
        if !is_taken {
            return verdict(EarlyResult::Refused);
        }
        let (name, message) = (name.to_owned(), early.message.to_vec());
        let delivery = Some(EarlyDelivery { name, message });
        Some(EarlyVerdict { result: EarlyResult::Delivered, delivery, id })
    }
}
