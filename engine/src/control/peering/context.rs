//! The context in which a peer handles an event: the state that all links share, and the means to
//! send commands and report events for its link.

use arrayvec::ArrayVec;
use strowger_crypto::{LocalIdentity, Sealed, Sealer, handshake::Offer};
use strowger_frame::{Address, Mark};
use strowger_wire::Slot;

use super::{
    HandshakeOrigin, Location, PeeringConfig,
    alternate::Alternates,
    location::{Destinations, PROBE_BYTES, SendChallenge},
    lookup::Keys,
    path_mtu::{SendProbe, TOKEN_BYTES},
    sessions::Sessions,
};
use crate::{
    Now,
    command::Command,
    control::{Event, PortId, base::Base},
};

/// The state that all links share.
pub(super) struct Shared {
    pub(super) config: PeeringConfig,
    pub(super) offer: Offer,
    pub(super) keys: Keys,
    pub(super) sessions: Sessions,
    pub(super) alternates: Alternates,
    /// Responses to handshakes. The handshake sockets send them after the keys were sent to the
    /// workers.
    pub(super) answers: Vec<(PortId, Address, Vec<u8>)>,
}

impl Shared {
    /// This node's identity and keys.
    pub(super) fn local(&self) -> &LocalIdentity {
        &self.config.local
    }
}

/// The link of a peer that handles an event, and the shared state that the peer uses.
pub(super) struct LinkContext<'a> {
    pub(super) mark: Mark,
    pub(super) now: Now,
    pub(super) shared: &'a mut Shared,
    pub(super) base: &'a mut Base,
}

impl LinkContext<'_> {
    /// Sends a command to every worker.
    pub(super) fn command_all(&mut self, command: impl FnMut(usize) -> Command) {
        self.base.out.workers.command_all(command);
    }

    /// Reports an event about the link's slot, if it has one.
    pub(super) fn report(&mut self, event: impl FnOnce(Slot) -> Event) {
        let slot = self.base.slots.slot_of(self.mark);
        self.base.out.events.extend(slot.map(event));
    }

    /// Sends each worker its sealer and the maximum length of a frame.
    pub(super) fn seal(&mut self, sealers: Vec<Sealer>, limit: u16) {
        let workers = &mut self.base.out.workers;
        for (worker, sealer) in sealers.into_iter().enumerate() {
            workers.command(worker, Command::SetMtu(self.mark, limit));
            workers.command(worker, Command::Seal(self.mark, Box::new(sealer)));
        }
    }

    /// Sends a handshake message to these destinations.
    pub(super) fn send_all(&mut self, owner: u8, to: Destinations, message: &[u8]) {
        for (Location { port, at }, worker) in to {
            let sender = self.base.ports.sender(owner, port);
            let worker = worker.map_or(sender, usize::from);
            let send = Command::Send(port.0, at, message.to_vec());
            self.base.out.workers.command(worker, send);
        }
    }

    /// Sends a response to the source of the initiation, if this is known, otherwise to the peer's
    /// location.
    pub(super) fn answer(
        &mut self,
        owner: u8,
        here: Option<Location>,
        by: Option<HandshakeOrigin>,
        message: Vec<u8>,
    ) {
        let ports = &self.base.ports;
        // Use the socket that received the initiation. It has the local address to which the peer
        // has sent the initiation.
        if let Some(by) = by.filter(|by| ports.has_handshake_socket(by.from.port)) {
            self.shared.answers.push((by.from.port, by.from.at, message));
            return;
        }
        let back = by.map(|by| (by.from, usize::from(by.worker)));
        let to = back.or(here.map(|here| (here, ports.sender(owner, here.port))));
        if let Some((Location { port, at }, worker)) = to {
            self.base.out.workers.command(worker, Command::Send(port.0, at, message));
        }
    }

    /// Sends a sealed message of the link: to an address on a port, or to the destination of the
    /// link's data.
    pub(super) fn say(
        &mut self,
        owner: u8,
        kind: Sealed,
        port: PortId,
        to: Option<Location>,
        token: &[u8],
    ) {
        let to = to.map(|to| (to.port.0, to.at));
        let message: ArrayVec<u8, _> = token.iter().copied().collect();
        self.send_by(owner, port, Command::SendLinkMessage(self.mark, kind, to, message));
    }

    /// Sends a path challenge.
    pub(super) fn challenge(&mut self, owner: u8, challenge: SendChallenge) {
        let SendChallenge { token, to, is_validated } = challenge;
        let bytes = if is_validated { PROBE_BYTES } else { 0 };
        self.probe(owner, to, SendProbe { token, bytes });
    }

    /// Sends a path challenge in a frame of a given length.
    pub(super) fn probe(&mut self, owner: u8, to: Location, probe: SendProbe) {
        let SendProbe { token, bytes } = probe;
        if bytes == 0 {
            return self.say(owner, Sealed::PathChallenge, to.port, Some(to), &token);
        }
        let probe = Command::Probe(self.mark, (to.port.0, to.at), token, bytes);
        self.send_by(owner, to.port, probe);
    }

    /// Sends the response to a path challenge.
    pub(super) fn respond(&mut self, owner: u8, to: Location, token: &[u8; TOKEN_BYTES]) {
        self.say(owner, Sealed::PathResponse, to.port, Some(to), token);
    }

    /// A random token; `None` if the random source fails.
    pub(super) fn token(&mut self) -> Option<[u8; TOKEN_BYTES]> {
        let mut token = [0; TOKEN_BYTES];
        self.shared.config.entropy.fill(&mut token).ok()?;
        Some(token)
    }

    /// Sends a command to the worker that sends through a port for this link.
    fn send_by(&mut self, owner: u8, port: PortId, command: Command) {
        let worker = self.base.ports.sender(owner, port);
        self.base.out.workers.command(worker, command);
    }
}
