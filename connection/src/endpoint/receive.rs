//! Packets that arrive.

use strowger_crypto::Nanos;
use strowger_crypto::session::Input;
use strowger_frame::Frame;
use strowger_wire::Slot;
use strowger_wire::connection::header::CONNECTION_HEADER_BYTES;
use strowger_wire::connection::item::ProtocolRef;
use strowger_wire::connection::message::{PASS_THROUGH_PREFIX_BYTES, PassThroughError};
use strowger_wire::connection::{
    ConnectionHeader, ConnectionHeaderError, ConnectionKind, EntryFlags, EntryNumber, PassThrough,
    ProtocolName, UnknownConnection,
};
use strowger_wire::limits::TAG_BYTES;
use strowger_wire::switch_header::HeaderError;

use super::Endpoint;
use crate::connection::early::EarlyDelivery;
use crate::connection::items::ItemPacket;
use crate::connection::messages::AcceptRefused;
use crate::counters::Discard;
use crate::data_path::{self, OpenedBody, OpenedPacket, Target};
use crate::goodbye::{CloseReason, Goodbye, GoodbyeCode};
use crate::limits::HOPS_LEFT;
use crate::message::{MessageInfo, MessageTo, Received};
use crate::packet::{Arrival, PacketMark, Route};
use crate::path::{self, Content};
use crate::sessions::Found;
use crate::shared::By;

impl Endpoint {
    pub(super) fn receive_packet(&mut self, now: Nanos, mut frame: Frame) -> Received {
        self.shared.counters.arrived += 1;
        let arrival = match Arrival::read(&mut frame) {
            Ok(arrival) => arrival,
            Err(HeaderError::TooShort) => return self.discard(Discard::TooShort),
            Err(_) => return self.discard(Discard::BadHeader),
        };
        if arrival.flags.control {
            let handled = self.handle_control(now, &frame, &arrival);
            return self.consumed(handled);
        }
        let Some(packet) = frame.bytes_mut().get_mut(arrival.header_bytes..) else {
            return self.discard(Discard::TooShort);
        };
        let header = match ConnectionHeader::parse(packet) {
            Ok(header) => header,
            Err(ConnectionHeaderError::TooShort) => return self.discard(Discard::TooShort),
            Err(ConnectionHeaderError::BadKind) => {
                return self.discard(Discard::BadConnectionKind);
            }
        };
        match header.kind {
            ConnectionKind::SealedMessage
            | ConnectionKind::PathChallenge
            | ConnectionKind::PathResponse => {
                match self.shared.data.open(now, &header, &arrival, packet) {
                    Ok(opened) => self.handle_opened(now, frame, &arrival, opened),
                    Err(Discard::NoSession) => {
                        let why = self.answer_unknown(now, &frame, &arrival);
                        self.discard(why)
                    }
                    Err(why) => self.discard(why),
                }
            }
            ConnectionKind::PassThrough => self.handle_pass_through(frame, &arrival),
            ConnectionKind::UnknownConnection => {
                let handled = self.handle_unknown(now, &frame, &arrival);
                self.consumed(handled)
            }
            // A new connection would delay the end of the endpoint.
            ConnectionKind::Initiation if self.closing_since.is_some() => {
                self.discard(Discard::Closed)
            }
            ConnectionKind::Initiation | ConnectionKind::Response | ConnectionKind::Cookie => {
                self.handle_handshake(now, frame, &arrival)
            }
        }
    }

    fn discard(&mut self, why: Discard) -> Received {
        self.shared.counters.discard(why);
        Received::Discarded(why)
    }

    /// Counts a packet without a message for a program.
    fn consumed(&mut self, handled: Result<(), Discard>) -> Received {
        match handled {
            Ok(()) => {
                self.shared.counters.items += 1;
                Received::Consumed
            }
            Err(why) => self.discard(why),
        }
    }

    /// The return path of a packet; `None` if it cannot be computed.
    fn by(&self, arrival: &Arrival) -> Option<By> {
        let label = arrival.source.return_label(&self.shared.config.scheme).ok()?;
        let mark = PacketMark { flow: arrival.flow, class: arrival.class, ..PacketMark::default() };
        Some(By { label, mark, bytes: arrival.bytes, source: arrival.source })
    }

    fn handle_handshake(&mut self, now: Nanos, frame: Frame, arrival: &Arrival) -> Received {
        let Some(by) = self.by(arrival) else { return self.discard(Discard::NoReturnPath) };
        let message = &frame.bytes()[arrival.header_bytes..];
        let Endpoint { handshakes, connections, shared, .. } = self;
        match handshakes.handle(now, message, &by, connections, shared) {
            Ok(handled) => {
                let Some(place) = handled.place else { return self.consumed(Ok(())) };
                let received = match handled.early {
                    Some(early) => self.deliver_early(now, frame, arrival, place, &early),
                    None => self.consumed(Ok(())),
                };
                self.settle(now, place);
                received
            }
            Err(why) => self.discard(why),
        }
    }

    /// Delivers an early message in the frame of its initiation, which is longer.
    fn deliver_early(
        &mut self,
        now: Nanos,
        mut frame: Frame,
        arrival: &Arrival,
        place: u32,
        early: &EarlyDelivery,
    ) -> Received {
        let Ok(to) = self.target_of_name(now, place, &early.name) else {
            return self.consumed(Ok(()));
        };
        let Some(room) = frame.bytes_mut().get_mut(..early.message.len()) else {
            return self.consumed(Ok(()));
        };
        room.copy_from_slice(&early.message);
        frame.truncate(early.message.len());
        self.shared.counters.delivered += 1;
        let info = MessageInfo { early: true, pass_through: false, ecn: arrival.ecn };
        Received::Message { to, frame, info }
    }

    /// Handles a packet that was opened in `frame`.
    #[inline]
    fn handle_opened(
        &mut self,
        now: Nanos,
        mut frame: Frame,
        arrival: &Arrival,
        opened: OpenedPacket,
    ) -> Received {
        if opened.is_sign || opened.is_noted {
            self.note_opened(now, arrival, &opened);
        }
        let OpenedBody::Message(number) = opened.what else {
            return self.handle_inner(now, frame, arrival, &opened);
        };
        let to = match self.shared.data.target(now, opened.connection, number) {
            Some(Target::Socket(socket)) => MessageTo::Socket(socket),
            Some(Target::Datagram(socket)) => match self.peer_of(opened.connection) {
                Some(peer) => MessageTo::Datagram(socket, peer),
                None => return self.discard(Discard::Closed),
            },
            target => match self.handle_rare_target(now, opened.connection, number, target) {
                Ok(to) => to,
                Err(why) => return self.discard(why),
            },
        };
        data_path::strip(&mut frame, arrival.header_bytes);
        self.shared.counters.delivered += 1;
        let info = MessageInfo { ecn: arrival.ecn, ..MessageInfo::default() };
        Received::Message { to, frame, info }
    }

    fn peer_of(&self, connection: u32) -> Option<strowger_crypto::PeerId> {
        self.connections.get(connection).map(|connection| connection.peer)
    }

    /// Passes to the control part a packet that confirms the keys, changes the peer's label, or has
    /// bytes that the paths count.
    #[cold]
    fn note_opened(&mut self, now: Nanos, arrival: &Arrival, opened: &OpenedPacket) {
        let by = self.by(arrival);
        let mut has_grown = false;
        let Endpoint { connections, shared, .. } = self;
        let Some(connection) = connections.get_mut(opened.connection) else { return };
        if opened.is_sign {
            let was_proven = connection.is_proven;
            let input = Input::Opened(opened.index);
            let _ = connection.drive(now, input, by.as_ref(), shared);
            connection.note_first_opened(now, opened.index, shared);
            has_grown = !was_proven && connection.is_proven && !connection.is_known;
        }
        if opened.is_noted {
            let content = match opened.what {
                OpenedBody::Empty => Content::Confirmation,
                OpenedBody::Items | OpenedBody::Message(_) => Content::Message,
                OpenedBody::Challenge(_) => Content::Challenge,
                OpenedBody::Response(_) => Content::Response,
            };
            let packet = path::OpenedPacket {
                lane: opened.lane,
                label: by.as_ref().map(|by| by.label),
                bytes: arrival.bytes,
                is_newest: opened.is_newest,
                content,
            };
            connection.note_packet(now, &packet, shared);
        }
        self.settle(now, opened.connection);
        if has_grown {
            self.close_idlest(now);
        }
    }

    /// Closes a connection with an unknown peer if there are too many.
    #[cold]
    fn close_idlest(&mut self, now: Nanos) {
        let Some(place) = self.connections.idlest_beyond_limit(&self.shared) else { return };
        let Endpoint { connections, shared, .. } = self;
        if let Some(connection) = connections.get_mut(place) {
            let goodbye = Goodbye::new(GoodbyeCode::NO_RESOURCES);
            connection.close(now, goodbye, &CloseReason::TooMany, shared);
        }
        self.settle(now, place);
    }

    /// Handles a message to a listener, a closed socket or an unknown number.
    #[cold]
    fn handle_rare_target(
        &mut self,
        now: Nanos,
        place: u32,
        number: u8,
        target: Option<Target>,
    ) -> Result<MessageTo, Discard> {
        let number = EntryNumber::new(number).ok_or(Discard::BadProtocolNumber)?;
        let Endpoint { connections, shared, .. } = self;
        let connection = connections.get_mut(place).ok_or(Discard::Closed)?;
        if connection.is_closing() {
            return Err(Discard::Closed);
        }
        let done = match (target, connection.name_of(number)) {
            (Some(Target::Listener), Some(name)) => {
                match connection.accept_socket(now, &name, shared) {
                    Ok(socket) => Ok(MessageTo::Socket(socket)),
                    Err(AcceptRefused::BacklogFull) => Err(Discard::NoSocket),
                    Err(AcceptRefused::NoListener) => Err(Discard::NoSocket),
                }
            }
            (Some(_), Some(name)) => {
                if shared.accepts.get(&name).is_some() {
                    // The policy no longer allows the peer.
                    connection.refuse_protocol(now, ProtocolRef::Number(number), shared);
                    Err(Discard::UnknownProtocol)
                } else {
                    connection.refuse_closed(now, number, shared);
                    Err(Discard::NoSocket)
                }
            }
            _ => {
                connection.refuse_protocol(now, ProtocolRef::Number(number), shared);
                Err(Discard::UnknownProtocol)
            }
        };
        if done.is_ok() {
            let _ = shared.data.target(now, place, number.number());
        }
        self.settle(now, place);
        done
    }

    /// Handles items, challenges, responses and confirmations.
    #[cold]
    fn handle_inner(
        &mut self,
        now: Nanos,
        mut frame: Frame,
        arrival: &Arrival,
        opened: &OpenedPacket,
    ) -> Received {
        let by = self.by(arrival);
        let place = opened.connection;
        let Endpoint { connections, shared, .. } = self;
        let Some(connection) = connections.get_mut(place) else {
            return self.discard(Discard::Closed);
        };
        connection.own.note_opened();
        let mut handled = Ok(());
        match opened.what {
            OpenedBody::Challenge(token) => {
                let token = token.as_ref().map_or(&[][..], |token| &token.0);
                handled = connection.respond(now, token, by.as_ref(), shared);
            }
            OpenedBody::Response(token) => {
                let token = token.as_ref().map_or(&[][..], |token| &token.0);
                handled = connection.handle_response(now, token, shared);
            }
            OpenedBody::Items => {
                let from = arrival.header_bytes + CONNECTION_HEADER_BYTES + 1;
                let to = frame.len() - TAG_BYTES;
                let packet =
                    ItemPacket { index: opened.index, lane: opened.lane, arrival, by: by.as_ref() };
                let items = &frame.bytes()[from..to];
                let named = connection.handle_items(now, items, &packet, shared);
                if let Some(named) = named {
                    let to = self.target_of_name(now, place, &named.name);
                    self.settle(now, place);
                    return match to {
                        Ok(to) => {
                            frame.truncate(frame.len() - TAG_BYTES);
                            frame.shrink_front(frame.len() - named.bytes);
                            self.shared.counters.delivered += 1;
                            let info = MessageInfo { ecn: arrival.ecn, ..MessageInfo::default() };
                            Received::Message { to, frame, info }
                        }
                        Err(why) => self.discard(why),
                    };
                }
            }
            OpenedBody::Empty | OpenedBody::Message(_) => {}
        }
        self.settle(now, place);
        self.consumed(handled)
    }

    /// The target of a message that names its protocol.
    pub(super) fn target_of_name(
        &mut self,
        now: Nanos,
        place: u32,
        name: &str,
    ) -> Result<MessageTo, Discard> {
        let Endpoint { connections, shared, .. } = self;
        let connection = connections.get_mut(place).ok_or(Discard::Closed)?;
        let protocol = ProtocolName::new(name.as_bytes()).ok_or(Discard::UnknownProtocol)?;
        let Some(number) = connection.own.number_of(protocol) else {
            connection.refuse_protocol(now, ProtocolRef::Name(protocol), shared);
            return Err(Discard::UnknownProtocol);
        };
        let number = number.on_wire().number();
        match shared.data.target(now, place, number) {
            Some(Target::Socket(socket)) => Ok(MessageTo::Socket(socket)),
            Some(Target::Datagram(socket)) => Ok(MessageTo::Datagram(socket, connection.peer)),
            Some(Target::Closed) if !shared.may_use(&connection.peer, name) => {
                let is_ours = shared.accepts.get(name).is_none();
                if is_ours {
                    let number = EntryNumber::new(number).ok_or(Discard::BadProtocolNumber)?;
                    connection.refuse_closed(now, number, shared);
                    return Err(Discard::NoSocket);
                }
                connection.refuse_protocol(now, ProtocolRef::Name(protocol), shared);
                Err(Discard::UnknownProtocol)
            }
            target => self.handle_rare_target(now, place, number, target),
        }
    }

    /// Handles a message that QUIC has sealed.
    fn handle_pass_through(&mut self, mut frame: Frame, arrival: &Arrival) -> Received {
        let packet = &frame.bytes()[arrival.header_bytes..];
        let passed = match PassThrough::parse(packet) {
            Ok(passed) => passed,
            Err(why) => {
                return self.discard(match why {
                    PassThroughError::OtherKind => Discard::BadConnectionKind,
                    PassThroughError::TooShort => Discard::TooShort,
                    PassThroughError::BadNumber => Discard::BadProtocolNumber,
                    PassThroughError::LongHeader => Discard::LongHeader,
                });
            }
        };
        let Endpoint { connections, shared, .. } = self;
        let Found::Receiver(receiver) = shared.data.sessions.find(passed.index) else {
            return self.discard(Discard::NoSession);
        };
        let Some(place) = shared.data.sessions.receiver_mut(receiver).map(|r| r.connection) else {
            return self.discard(Discard::NoSession);
        };
        if !shared.config.accept_pass_through {
            return self.discard(Discard::PassThroughRefused);
        }
        let Some(connection) = connections.get_mut(place) else {
            return self.discard(Discard::Closed);
        };
        let Some(number) = connection.own.number(passed.number) else {
            return self.discard(Discard::UnknownProtocol);
        };
        if !connection.own.entry(number).flags.holds(EntryFlags::PASS_THROUGH) {
            return self.discard(Discard::PassThroughRefused);
        }
        // An unauthenticated message proves neither that the peer is alive nor that the connection
        // is in use. The data path's `target` notes both, so this does not call it.
        let target = shared
            .data
            .connections
            .get(place as usize)
            .and_then(|hot| hot.targets.get(number.index()).copied());
        let to = match target {
            Some(Target::Socket(socket)) => MessageTo::Socket(socket),
            Some(Target::Datagram(socket)) => MessageTo::Datagram(socket, connection.peer),
            _ if connection.is_closing() => return self.discard(Discard::Closed),
            _ => return self.discard(Discard::NoSocket),
        };
        frame.shrink_front(arrival.header_bytes + PASS_THROUGH_PREFIX_BYTES);
        self.shared.counters.delivered += 1;
        let info = MessageInfo { ecn: arrival.ecn, pass_through: true, early: false };
        Received::Message { to, frame, info }
    }

    /// Answers a sealed packet whose index belongs to no session (wire.md W6-19). Returns the
    /// discard reason.
    #[cold]
    fn answer_unknown(&mut self, now: Nanos, frame: &Frame, arrival: &Arrival) -> Discard {
        let packet = &frame.bytes()[arrival.header_bytes..];
        let answer = UnknownConnection::answer_to(packet).filter(|_| !arrival.flags.no_errors);
        let Some(answer) = answer else { return Discard::NoSession };
        let route = self.by(arrival).and_then(|by| Some((Route::along(by.label, HOPS_LEFT)?, by)));
        let Some((route, by)) = route else { return Discard::NoReturnPath };
        let ingress = Slot::new(arrival.source.ingress());
        if self.handshakes.admission.unknown_answer(now, ingress) {
            self.shared.counters.unknown_answered += 1;
            let mark = PacketMark { no_errors: true, ..by.mark };
            self.shared.out.push(&route, mark, &answer.to_bytes());
        }
        Discard::NoSession
    }

    /// Handles a packet of kind 7: the peer does not know an index (wire.md W6-143 to W6-145).
    fn handle_unknown(
        &mut self,
        now: Nanos,
        frame: &Frame,
        arrival: &Arrival,
    ) -> Result<(), Discard> {
        let packet = &frame.bytes()[arrival.header_bytes..];
        let unknown = UnknownConnection::parse(packet).map_err(|_| Discard::Malformed)?;
        let received = unknown.received();
        let range = (received.index, 0)..=(received.index, u32::MAX);
        let places: Vec<u32> =
            self.shared.peer_indices.range(range).take(4).map(|(_, place)| *place).collect();
        let Endpoint { connections, shared, .. } = self;
        let place = places.into_iter().find(|place| {
            connections.get(*place).is_some_and(|c| c.has_sent(now, &received, shared))
        });
        let place = place.ok_or(Discard::Unsolicited)?;
        let connection = connections.get_mut(place).ok_or(Discard::Unsolicited)?;
        if !connection.may_heed_unknown(now) {
            return Err(Discard::OverBudget);
        }
        let _ = connection.drive(now, Input::Lost, None, shared);
        let _ = connection.drive(now, Input::Wanted, None, shared);
        connection.is_wanted = true;
        self.settle(now, place);
        Ok(())
    }

    /// Handles a control message (C = 1): errors about packets of connections, and replies to
    /// routing.
    fn handle_control(
        &mut self,
        now: Nanos,
        frame: &Frame,
        arrival: &Arrival,
    ) -> Result<(), Discard> {
        let from = arrival.source.return_label(&self.shared.config.scheme);
        let from = from.map_err(|_| Discard::NoReturnPath)?;
        let payload = &frame.bytes()[arrival.header_bytes..];
        let reply = strowger_routing::ControlReply::parse(from, payload);
        let reply = reply.map_err(|_| Discard::Unhandled)?;
        self.handle_control_message(now, &reply)
    }
}
