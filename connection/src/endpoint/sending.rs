//! Messages that the data path cannot seal, and changes to many connections.

use strowger_crypto::{Nanos, PeerId};
use strowger_frame::Frame;
use strowger_wire::link_header::Lane;

use super::Endpoint;
use crate::connection::{Connection, Owner};
use crate::data_path::Slow;
use crate::packet::PacketMark;
use crate::shared::Shared;
use crate::{CloseReason, DatagramId, NoConnection, SendRefused, Sent, SocketId, SocketState};

impl Endpoint {
    pub(super) fn refuse(
        &mut self,
        why: SendRefused,
        frame: Frame,
    ) -> Result<Sent, (SendRefused, Frame)> {
        self.shared.counters.refused += 1;
        Err((why, frame))
    }

    /// Sends a message that the data path could not seal.
    #[cold]
    pub(super) fn send_slowly(
        &mut self,
        now: Nanos,
        socket: SocketId,
        slow: Slow,
        frame: Frame,
    ) -> Result<Sent, (SendRefused, Frame)> {
        let why = match slow {
            Slow::TooLong { max } => Some(SendRefused::TooLong { max }),
            Slow::NoRoom => Some(SendRefused::NoRoom),
            Slow::Ask => None,
        };
        let Some(open) = self.shared.sockets.get(socket) else {
            return self.refuse(SendRefused::NoSocket, frame);
        };
        let place = open.connection;
        let why = match (&open.state, why) {
            (_, Some(why)) => Some(why),
            (SocketState::Unsupported, None) => Some(SendRefused::Unsupported),
            (SocketState::Closed(reason), None) => Some(SendRefused::Closed(reason.clone())),
            _ => None,
        };
        if let Some(why) = why {
            return self.refuse(why, frame);
        }
        self.queue(now, place, Owner::Socket(socket), frame)
    }

    fn queue(
        &mut self,
        now: Nanos,
        place: u32,
        owner: Owner,
        frame: Frame,
    ) -> Result<Sent, (SendRefused, Frame)> {
        let Endpoint { connections, shared, .. } = self;
        let Some(connection) = connections.get_mut(place) else {
            return self.refuse(SendRefused::NoPath, frame);
        };
        let sent = connection.send_slowly(now, owner, frame.bytes(), shared);
        if let (Err(SendRefused::Full), Owner::Socket(socket)) = (&sent, owner)
            && let Some(socket) = shared.sockets.get_mut(socket)
        {
            socket.was_refused = true;
        }
        connection.begin_if_wanted(now, shared);
        self.seek(now, place);
        self.settle(now, place);
        match sent {
            Ok(()) => Ok(Sent::Queued),
            Err(why) => self.refuse(why, frame),
        }
    }

    pub(super) fn send_datagram(
        &mut self,
        now: Nanos,
        socket: DatagramId,
        peer: &PeerId,
        mut frame: Frame,
    ) -> Result<Sent, (SendRefused, Frame)> {
        if self.shared.accepts.names_of(socket).is_empty() {
            return self.refuse(SendRefused::NoSocket, frame);
        }
        let place = match self.connections.of_peer(peer) {
            Some(place) => place,
            None => match self.reach(now, peer, &[]) {
                Ok(place) => place,
                Err(why) => return self.refuse(SendRefused::Connect(why), frame),
            },
        };
        let Endpoint { connections, shared, .. } = self;
        if let Some(connection) = connections.get_mut(place) {
            if connection.is_closing() {
                return self.refuse(SendRefused::Closed(CloseReason::ByUs), frame);
            }
            if let Some(number) = connection.datagram_number(socket, shared) {
                let mark =
                    PacketMark::flow(shared.flow(place, connection.turn, Lane::ZERO, number));
                match shared.data.seal_to(now, place, number, mark, &mut frame) {
                    Ok(()) => {
                        shared.counters.sealed += 1;
                        return Ok(Sent::Packet(frame));
                    }
                    Err(Slow::TooLong { max }) => {
                        return self.refuse(SendRefused::TooLong { max }, frame);
                    }
                    Err(Slow::NoRoom) => return self.refuse(SendRefused::NoRoom, frame),
                    Err(Slow::Ask) => {}
                }
            }
        }
        self.queue(now, place, Owner::Datagram(socket), frame)
    }

    pub(super) fn may_pass_through(&self, hot: &crate::data_path::HotSocket) -> bool {
        let connection = self.connections.get(hot.connection);
        connection.is_some_and(|connection| connection.accepts_pass_through(hot.number))
    }

    /// Calls `work` with the connection of a peer. Fails if there is none, if it is closing, or if
    /// `work` returns `false`.
    pub(super) fn with_connection(
        &mut self,
        now: Nanos,
        peer: &PeerId,
        work: impl FnOnce(&mut Connection, &mut Shared) -> bool,
    ) -> Result<(), NoConnection> {
        let place = self.connections.of_peer(peer).ok_or(NoConnection)?;
        let Endpoint { connections, shared, .. } = self;
        let connection = connections.get_mut(place).ok_or(NoConnection)?;
        let is_done = !connection.is_closing() && work(connection, shared);
        self.settle(now, place);
        if is_done { Ok(()) } else { Err(NoConnection) }
    }

    /// Adds new protocols to the tables of all connections.
    pub(super) fn offer_everywhere(&mut self, now: Nanos) {
        for place in self.connections.places() {
            let Endpoint { connections, shared, .. } = self;
            if let Some(connection) = connections.get_mut(place)
                && !connection.is_closing()
            {
                connection.offer_accepted(now, shared);
                connection.set_targets(shared);
                connection.state_hello(shared);
            }
            self.settle(now, place);
        }
    }

    /// Updates the data path after a listener or datagram socket was closed.
    pub(super) fn retarget(&mut self, now: Nanos) {
        for place in self.connections.places() {
            let Endpoint { connections, shared, .. } = self;
            if let Some(connection) = connections.get_mut(place)
                && !connection.is_closing()
            {
                connection.set_targets(shared);
            }
            self.settle(now, place);
        }
    }

    /// Schedules the next poll of a changed connection, and removes a connection that has ended.
    pub(super) fn settle(&mut self, now: Nanos, place: u32) {
        let Endpoint { connections, shared, .. } = self;
        let Some(connection) = connections.get_mut(place) else { return };
        if connection.is_ended() {
            connection.release(now, shared);
            connections.remove(place);
            return;
        }
        let due = connection.next_timeout(now, shared);
        connections.schedule(place, due);
        self.grant_wishes(now);
    }
}
