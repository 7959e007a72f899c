//! Control items, by which the ends manage the connection itself (wire.md 6.6).

use std::collections::{BTreeMap, BTreeSet};

use strowger_crypto::Nanos;
use strowger_wire::connection::item::{ProtocolRef, UnsupportedCode};
use strowger_wire::connection::{
    ConnectionId, ControlItem, ControlItems, EntryNumber, ProtocolName,
};
use strowger_wire::limits::AGENT_BYTES_MAX;
use strowger_wire::link_header::{Lane, SessionIndex};

use super::Connection;
use crate::event::Event;
use crate::goodbye::{CloseReason, Goodbye, GoodbyeCode};
use crate::info::SocketState;
use crate::limits::{IDENTIFY_ANSWERS, UNSUPPORTED_ANSWERS};
use crate::packet::Arrival;
use crate::path::Traffic;
use crate::protocol_table::PeerTableRefused;
use crate::shared::{By, Shared};

/// The packet that contained items.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ItemPacket<'a> {
    pub(crate) index: SessionIndex,
    pub(crate) lane: Lane,
    pub(crate) arrival: &'a Arrival,
    /// `None` if the return path cannot be computed.
    pub(crate) by: Option<&'a By>,
}

/// The message of a `named` item: the protocol, and the length of the message, which ends the
/// packet's body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NamedMessage {
    pub(crate) name: String,
    pub(crate) bytes: usize,
}

/// The items of a packet that only the program uses. Only the last item of each kind and lane
/// becomes an event, so a packet with many items causes few events (wire.md W6-215).
#[derive(Debug, Default)]
struct Advice {
    leaving: Option<Event>,
    stay: Option<Event>,
    reports: BTreeMap<Lane, Event>,
}

impl Advice {
    fn into_events(self) -> impl Iterator<Item = Event> {
        self.leaving.into_iter().chain(self.stay).chain(self.reports.into_values())
    }
}

impl Connection {
    /// Handles the items of a packet, and returns the message that it contains, if any.
    pub(crate) fn handle_items(
        &mut self,
        now: Nanos,
        items: &[u8],
        packet: &ItemPacket<'_>,
        shared: &mut Shared,
    ) -> Option<NamedMessage> {
        let mut named = None;
        let mut has_table = false;
        let mut goodbyes = BTreeSet::new();
        let mut advice = Advice::default();
        for item in ControlItems::new(items).iter() {
            let Ok(item) = item else {
                shared.counters.malformed_items += 1;
                continue;
            };
            if let ControlItem::Goodbye { code, protocol, .. } = item {
                goodbyes.insert((protocol, code));
            }
            if self.is_closing() {
                if let ControlItem::GoodbyeAck { protocol: None, code } = item {
                    self.goodbye_answered(now, code);
                }
                continue;
            }
            match item {
                ControlItem::Padding { .. } => {}
                ControlItem::Table { .. } if !self.is_of_this_table(packet.index, shared) => {}
                ControlItem::Table { first, entries } => {
                    match self.theirs.handle_item(first, entries) {
                        Err(PeerTableRefused::Conflict) => self.has_conflict = true,
                        Err(PeerTableRefused::TooLong) => shared.counters.malformed_items += 1,
                        Ok(_) => {}
                    }
                    has_table = true;
                }
                ControlItem::TableAck { count } => {
                    if self.own.handle_ack(now, count).is_err() {
                        shared.counters.malformed_items += 1;
                    }
                    if self.own.is_acknowledged() {
                        self.id_answer = None;
                    }
                }
                ControlItem::Named { name, message } => {
                    let name = name.as_str().to_owned();
                    named = Some(NamedMessage { name, bytes: message.len() });
                }
                ControlItem::Unsupported { code, protocol } => {
                    self.handle_unsupported(code, &protocol, shared);
                }
                ControlItem::Leaving { seconds, code, text } => {
                    let goodbye = Goodbye::new(GoodbyeCode(code)).text(text);
                    advice.leaving = Some(Event::Leaving { peer: self.peer, seconds, goodbye });
                }
                ControlItem::Stay { weight } => {
                    advice.stay = Some(Event::Stay { peer: self.peer, weight });
                }
                ControlItem::Goodbye { retry_after_s, code, protocol, text } => {
                    let goodbye =
                        Goodbye::new(GoodbyeCode(code)).retry_after_s(retry_after_s).text(text);
                    self.handle_goodbye(now, goodbye, protocol, shared);
                }
                ControlItem::GoodbyeAck { protocol, .. } => {
                    self.goodbyes.retain(|pending| Some(pending.number) != protocol);
                }
                ControlItem::Identify => self.answer_identify(now, packet, shared),
                ControlItem::IdentifyAnswer { hops_left, mtu, label, agent } => {
                    let label = strowger_wire::label::AnyLabel::from_be_bytes(label.as_bytes());
                    if let Some(label) = label
                        && std::mem::take(&mut self.asks_identify)
                    {
                        let (peer, agent) = (self.peer, agent.to_owned());
                        shared.report(Event::Identified { peer, agent, hops_left, label, mtu });
                    }
                }
                ControlItem::Path { lane, state } => {
                    self.handle_path_item(now, lane, state, packet, shared);
                }
                ControlItem::ReceiveReport { lane, packets, marked_ce, newest } => {
                    let peer = self.peer;
                    let report = Event::Report { peer, lane, packets, marked_ce, newest };
                    advice.reports.insert(lane, report);
                }
                ControlItem::ConnectionId(id) => self.handle_id(now, id, packet.index, shared),
            }
        }
        advice.into_events().for_each(|event| shared.report(event));
        self.acknowledge(now, has_table, &goodbyes, shared);
        if has_table {
            self.progress(now, shared);
        }
        named
    }

    /// Acknowledges the `table` items and goodbyes of a packet. All acknowledgements go in one
    /// packet, which is not longer than the packet with the items (wire.md W6-97, W6-214).
    fn acknowledge(
        &mut self,
        now: Nanos,
        has_table: bool,
        goodbyes: &BTreeSet<(Option<EntryNumber>, u8)>,
        shared: &mut Shared,
    ) {
        let mut items = Vec::new();
        if has_table {
            items.push(ControlItem::TableAck { count: self.theirs.count() });
        }
        items.extend(
            goodbyes.iter().map(|&(protocol, code)| ControlItem::GoodbyeAck { code, protocol }),
        );
        if !items.is_empty() {
            self.send_items(now, Traffic::Unanswered, &items, shared);
        }
    }

    /// Whether `table` items under these keys come from the process whose table this end stores
    /// (wire.md W6-202).
    fn is_of_this_table(&self, index: SessionIndex, shared: &mut Shared) -> bool {
        let Some(since) = self.tables_since else { return true };
        let receiver = shared.data.sessions.receiver_of(index);
        receiver.is_some_and(|receiver| receiver.generation.wrapping_sub(since) as i32 >= 0)
    }

    /// Handles the id that the responder of XX states (wire.md W6-141).
    fn handle_id(
        &mut self,
        now: Nanos,
        id: ConnectionId,
        index: SessionIndex,
        shared: &mut Shared,
    ) {
        let Some((due, was_proven)) = self.id_due else { return };
        if due != index {
            return;
        }
        self.id_due = None;
        if id != self.id && was_proven {
            // This end forgot the peer's table when these keys arrived.
            if id != ConnectionId::UNKNOWN {
                self.id = id;
                self.state_hello(shared);
            }
            self.reset_paths(now);
            self.drop_former_keys(shared);
            self.own.forget_acknowledgement();
            self.own.announce(now);
            shared.report(Event::PeerRestarted { peer: self.peer });
        }
    }

    fn handle_unsupported(
        &mut self,
        code: UnsupportedCode,
        protocol: &ProtocolRef<'_>,
        shared: &mut Shared,
    ) {
        let _ = code; // other codes have the effect of 1 (wire.md W6-85)
        let refused = self.sockets.iter().copied().find(|id| {
            let Some(socket) = shared.sockets.get(*id) else { return false };
            let number = shared.data.sockets[id.index()].number;
            match protocol {
                ProtocolRef::Number(refused) => number == refused.number(),
                ProtocolRef::Name(name) => {
                    number == 0
                        && socket.name() == Some(name.as_str())
                        && self.theirs.number_of(*name).is_none()
                }
            }
        });
        let Some(id) = refused else { return };
        let Some(socket) = shared.sockets.get_mut(id) else { return };
        if socket.state != SocketState::Open {
            return;
        }
        (socket.state, socket.deadline) = (SocketState::Unsupported, None);
        if let ProtocolRef::Number(number) = protocol {
            socket.refused_number = number.number();
        }
        shared.data.sockets[id.index()].number = 0;
        shared.report(Event::Unsupported { socket: id });
    }

    /// Sends `unsupported` for a message to a number or name that this end does not accept (wire.md
    /// W6-35).
    pub(crate) fn refuse_protocol(
        &mut self,
        now: Nanos,
        protocol: ProtocolRef<'_>,
        shared: &mut Shared,
    ) {
        let key: Box<str> = match protocol {
            ProtocolRef::Number(number) => number.number().to_string().into(),
            ProtocolRef::Name(name) => name.as_str().into(),
        };
        if !self.may_refuse(now, key) {
            return;
        }
        let code = UnsupportedCode::UNKNOWN_PROTOCOL;
        self.send_items(
            now,
            Traffic::Unanswered,
            &[ControlItem::Unsupported { code, protocol }],
            shared,
        );
    }

    /// Whether a message to this number or name may be answered now. The limit is one answer a
    /// second for each, and 8 a second for the connection (wire.md W6-35).
    fn may_refuse(&mut self, now: Nanos, key: Box<str>) -> bool {
        let is_recent = |(_, at): &(Box<str>, Nanos)| now.since(*at) < Nanos::from_secs(1);
        self.refusals.retain(is_recent);
        let is_repeated = self.refusals.iter().any(|(refused, _)| *refused == key);
        if is_repeated || !self.refusal_budget.take(now, UNSUPPORTED_ANSWERS) {
            return false;
        }
        self.refusals.push((key, now));
        true
    }

    /// Answers a message to a protocol whose last socket is closed (wire.md W6-167).
    pub(crate) fn refuse_closed(&mut self, now: Nanos, number: EntryNumber, shared: &mut Shared) {
        let name = self.name_of(number);
        let theirs = name
            .as_deref()
            .and_then(|name| ProtocolName::new(name.as_bytes()))
            .and_then(|name| self.theirs.number_of(name));
        match theirs {
            None => self.refuse_protocol(now, ProtocolRef::Number(number), shared),
            Some(theirs) => {
                let theirs = theirs.on_wire();
                if self.may_refuse(now, number.number().to_string().into()) {
                    let goodbye = Goodbye::new(GoodbyeCode::NOT_WANTED);
                    self.say_goodbye(now, &goodbye, theirs, shared);
                }
            }
        }
    }

    fn answer_identify(&mut self, now: Nanos, packet: &ItemPacket<'_>, shared: &mut Shared) {
        let Some(by) = packet.by else { return };
        if !self.identify_budget.take(now, IDENTIFY_ANSWERS) {
            return;
        }
        let mtu = Shared::base_offer(&shared.config).mtu.bytes();
        let agent = shared.config.agent.clone();
        debug_assert!(agent.len() <= AGENT_BYTES_MAX);
        let hops_left = packet.arrival.hops_left;
        by.label.with_be_bytes(|label| {
            let Some(label) = strowger_wire::connection::item::LabelBytes::new(label) else {
                return;
            };
            let answer = ControlItem::IdentifyAnswer { hops_left, mtu, label, agent: &agent };
            self.send_items(now, Traffic::Unanswered, &[answer], shared);
        });
    }

    /// Sends items in one packet along the active path. Returns whether they were sent.
    pub(crate) fn send_items(
        &mut self,
        now: Nanos,
        traffic: Traffic,
        items: &[ControlItem<'_>],
        shared: &mut Shared,
    ) -> bool {
        let mut body = vec![0];
        for item in items {
            let at = body.len();
            body.resize(at + item.wire_bytes(), 0);
            if item.emit(&mut body[at..]).is_err() {
                return false;
            }
        }
        self.send_body(now, traffic, &body, shared)
    }

    /// Sends the body of a packet of items.
    fn send_body(
        &mut self,
        now: Nanos,
        traffic: Traffic,
        body: &[u8],
        shared: &mut Shared,
    ) -> bool {
        let sent = self.seal_control(now, traffic, body, shared);
        if sent
            && traffic != Traffic::Unanswered
            && let Some(hot) = shared.data.connections.get_mut(self.place as usize)
        {
            hot.due_since.get_or_insert(now);
        }
        sent
    }

    /// Sends the `table` items that are due, and `connection_id` with the first of them.
    pub(crate) fn poll_table(&mut self, now: Nanos, shared: &mut Shared) {
        if !self.can_send(shared) || self.own.next_timeout().is_none_or(|due| due > now) {
            return;
        }
        let room = self.message_max(shared);
        let mut body = vec![0];
        if let Some(id) = self.id_answer {
            push_item(&mut body, &ControlItem::ConnectionId(id));
        }
        let Some(part) = self.own.poll_part(now, room.saturating_sub(body.len())) else { return };
        part.items().for_each(|item| push_item(&mut body, &item));
        self.send_body(now, Traffic::Items, &body, shared);
    }

    fn handle_goodbye(
        &mut self,
        now: Nanos,
        goodbye: Goodbye,
        protocol: Option<EntryNumber>,
        shared: &mut Shared,
    ) {
        let Some(number) = protocol else {
            return self.closed_by_peer(now, goodbye, shared);
        };
        let Some(name) = self.name_of(number) else { return };
        let Some(id) = self.socket_for(&name, shared) else { return };
        let is_connecting =
            shared.sockets.get(id).is_some_and(|s| s.state == SocketState::Connecting);
        self.remove_socket(id, shared);
        shared.report(match is_connecting {
            true => {
                let error = crate::error::ConnectError::Refused(goodbye);
                Event::ConnectFailed { socket: id, error }
            }
            false => Event::SocketClosed { socket: id, reason: CloseReason::ByPeer(goodbye) },
        });
    }
}

fn push_item(body: &mut Vec<u8>, item: &ControlItem<'_>) {
    let at = body.len();
    body.resize(at + item.wire_bytes(), 0);
    let fits = item.emit(&mut body[at..]).is_ok();
    debug_assert!(fits, "the buffer has the length of the item");
}
