//! Connects the path set with handshakes, packets and errors, and applies the actions of the paths.

use strowger_crypto::session::Input;
use strowger_crypto::{Nanos, Sealed};
use strowger_routing::{PathError, PathErrorKind};
use strowger_wire::connection::header::CONNECTION_HEADER_BYTES;
use strowger_wire::connection::item::PathUse;
use strowger_wire::connection::{ControlItem, PathToken};
use strowger_wire::label::AnyLabel;
use strowger_wire::limits::{CONNECTION_OVERHEAD_BYTES, INITIATION_BYTES, TAG_BYTES};
use strowger_wire::link_header::{LINK_HEADER_BYTES, Lane, SessionIndex};
use strowger_wire::switch_header::HEADER_64_BYTES;

use super::Connection;
use super::drive::Role;
use super::items::ItemPacket;
use crate::counters::Discard;
use crate::error::ConnectError;
use crate::event::Event;
use crate::ids::PingId;
use crate::limits::{HOPS_LEFT, SLOT_MOVED_QUESTIONS};
use crate::packet::{PacketMark, Route};
use crate::path::{
    Along, Content, Hint, HintEffect, HintKind, NewLabel, OpenedPacket, PathAction, Traffic,
};
use crate::shared::{By, Shared, Wish};

impl Connection {
    /// Adds a label that this end chose.
    pub(crate) fn add_label(&mut self, now: Nanos, label: AnyLabel, mtu: Option<u16>) {
        let new = NewLabel { label, hops_left: HOPS_LEFT, packet_bytes_max: mtu };
        self.paths.add(now, &new);
    }

    /// Updates the paths from the labels of a handshake that gave keys (wire.md W6-135, W6-137).
    pub(super) fn note_label_of_keys(
        &mut self,
        now: Nanos,
        index: SessionIndex,
        role: Role,
        by: Option<&By>,
    ) {
        let from = by.map(|by| by.label);
        let (labels, rtt) = match role {
            Role::Answered => {
                let answered = self.answered.iter().find(|answered| answered.index == index);
                (answered.map(|answered| answered.labels.clone()), None)
            }
            _ => {
                let asked = self.asked.iter().find(|asked| asked.index == index);
                let rtt = asked.map(|asked| now.since(asked.sent));
                (asked.map(|asked| asked.labels.clone()), rtt)
            }
        };
        let labels = labels.unwrap_or_default();
        let is_chosen = role != Role::Answered;
        if role == Role::AskedByPeerId {
            // The second message of XX is bound to the path by which the first came (wire.md
            // W6-13).
            let equal = labels.iter().find(|label| labels.len() == 1 || Some(**label) == from);
            let label = equal.copied().or(from);
            let along = |label| Along { label, lane: Lane::ZERO, hops_left: HOPS_LEFT };
            let known = label.and_then(|label| self.paths.along(&label)).copied();
            self.finish_along = known.or(label.map(along)).map(Box::new);
        } else {
            self.finish_along = None;
        }
        match (&labels[..], by) {
            ([label], _) => self.paths.handshake_done(now, *label, is_chosen, rtt),
            // A relay may have forged the return paths of a copy of the initiation and of the first
            // packet.
            (labels, Some(by)) if role == Role::Answered => {
                self.paths.answered_along(now, labels, by.label, by.bytes);
            }
            (labels, Some(by)) => match labels.iter().find(|label| Some(**label) == from) {
                Some(label) => self.paths.handshake_done(now, *label, is_chosen, rtt),
                None => self.paths.handshake_unclear(now, by.label, by.bytes, rtt),
            },
            (_, None) => {}
        }
    }

    /// Keeps only the active path validated, after a handshake with a peer that has restarted.
    pub(super) fn reset_paths(&mut self, now: Nanos) {
        if let Some(along) = self.paths.active().copied() {
            self.paths.restart(now, along.label);
        }
    }

    /// Handles an opened packet that changes the state of the paths.
    pub(crate) fn note_packet(&mut self, now: Nanos, packet: &OpenedPacket, shared: &mut Shared) {
        self.sync_paths(now, shared);
        self.paths.note_opened(now, packet);
        if packet.is_newest && packet.content != Content::Response {
            self.note_known_label(now, packet.label, shared);
        }
        // The response to a challenge goes first, in `respond`: the challenge of this end, which
        // goes along the same label, would use the bytes that came by it (W6-42).
        if packet.content != Content::Challenge {
            self.run_paths(now, shared);
        }
    }

    /// Copies the times that the data path has noted.
    pub(crate) fn sync_paths(&mut self, now: Nanos, shared: &Shared) {
        if let Some(hot) = shared.data.connections.get(self.place as usize) {
            self.paths.sync(now, &hot.noted());
        }
    }

    /// Applies the pending actions of the paths.
    pub(crate) fn run_paths(&mut self, now: Nanos, shared: &mut Shared) {
        let mut has_changed = false;
        while let Some(action) = self.paths.poll(now, &mut *shared.entropy) {
            match action {
                PathAction::Challenge { along, token, packet_bytes } => {
                    self.send_challenge(now, &along, token, packet_bytes, shared);
                }
                PathAction::SendPathItem { active, former } => {
                    let active = ControlItem::Path { lane: active, state: PathUse::Active };
                    let former = former.map(|(lane, state)| ControlItem::Path { lane, state });
                    let items: Vec<ControlItem<'_>> =
                        std::iter::once(active).chain(former).collect();
                    self.send_items(now, Traffic::Unanswered, &items, shared);
                }
                PathAction::AskRouting => shared.wishes.push(Wish::LookUp(self.peer)),
                PathAction::Feedback { label, outcome } => {
                    shared.wishes.push(Wish::Feedback(label, outcome));
                }
                PathAction::Changed { label, rtt } => {
                    has_changed = true;
                    shared.report(Event::PathChanged { peer: self.peer, label, rtt });
                }
                PathAction::LengthChanged { .. } => has_changed = true,
                PathAction::Gone => {
                    has_changed = true;
                    if let Some(hot) = shared.data.connections.get_mut(self.place as usize) {
                        hot.due_since = None;
                    }
                    shared.report(Event::PathLost { peer: self.peer });
                    self.publish(shared);
                    let _ = self.drive(now, Input::Lost, None, shared);
                }
                PathAction::Pong { id, rtt } => {
                    shared.report(Event::Pong { peer: self.peer, id: PingId(id), rtt });
                }
                PathAction::PingLost { id } => {
                    shared.report(Event::PingLost { peer: self.peer, id: PingId(id) });
                }
            }
        }
        self.paths.shrink();
        let hot = shared.data.connections.get(self.place as usize);
        let tx = hot.and_then(|hot| hot.tx.as_deref());
        let may_pass_through = self.may_pass_through();
        let is_stale = tx.is_some_and(|tx| {
            tx.route.is_some() != self.paths.is_open() || tx.may_pass_through != may_pass_through
        });
        let is_noted = hot.is_some_and(|hot| hot.has_ledger == self.paths.needs_packets());
        if has_changed || is_stale || !is_noted {
            self.publish(shared);
            self.progress(now, shared);
        }
    }

    fn send_challenge(
        &mut self,
        now: Nanos,
        along: &Along,
        token: PathToken,
        packet_bytes: usize,
        shared: &mut Shared,
    ) {
        let bytes = packet_bytes.saturating_sub(CONNECTION_HEADER_BYTES + TAG_BYTES);
        let mut body = token.0.to_vec();
        body.resize(bytes.max(body.len()), 0);
        let flow = shared.flow(self.place, self.turn, along.lane, 0);
        let mark = PacketMark::flow(flow);
        self.seal_along(now, Sealed::PathChallenge, along, mark, &body, shared);
    }

    /// Answers a path challenge along the return label of the challenge (wire.md W6-175). After
    /// that, this end may challenge a label that the packet taught.
    pub(crate) fn respond(
        &mut self,
        now: Nanos,
        body: &[u8],
        by: Option<&By>,
        shared: &mut Shared,
    ) -> Result<(), Discard> {
        let responded = self.send_response(now, body, by, shared);
        self.run_paths(now, shared);
        responded
    }

    fn send_response(
        &mut self,
        now: Nanos,
        body: &[u8],
        by: Option<&By>,
        shared: &mut Shared,
    ) -> Result<(), Discard> {
        let token = self.paths.handle_challenge(now, body).map_err(|_| Discard::OverBudget)?;
        let (Some(token), Some(by)) = (token, by) else { return Ok(()) };
        let header = Route::along(by.label, HOPS_LEFT).map_or(0, |route| route.header_bytes());
        let bytes = header + CONNECTION_HEADER_BYTES + token.0.len() + TAG_BYTES;
        for along in self.paths.take_answer(now, by.label, by.bytes, bytes) {
            let flow = shared.flow(self.place, self.turn, along.lane, 0);
            let mark = PacketMark::flow(flow);
            self.seal_along(now, Sealed::PathResponse, &along, mark, &token.0, shared);
        }
        Ok(())
    }

    /// Handles the response to a challenge.
    pub(crate) fn handle_response(
        &mut self,
        now: Nanos,
        body: &[u8],
        shared: &mut Shared,
    ) -> Result<(), Discard> {
        let handled = self.paths.handle_response(now, body);
        self.run_paths(now, shared);
        handled.map_err(|_| Discard::OverBudget)
    }

    /// Handles the item `path`.
    pub(super) fn handle_path_item(
        &mut self,
        now: Nanos,
        lane: Lane,
        state: PathUse,
        packet: &ItemPacket<'_>,
        shared: &mut Shared,
    ) {
        let label = packet.by.map(|by| by.label);
        self.paths.handle_path_item(now, packet.lane, label, lane, state);
        self.run_paths(now, shared);
    }

    /// Handles an error about a packet with a flow of this connection.
    pub(crate) fn handle_hint(
        &mut self,
        now: Nanos,
        error: &PathError,
        shared: &mut Shared,
    ) -> Result<(), Discard> {
        self.sync_paths(now, shared);
        let kind = match error.kind {
            PathErrorKind::Discarded(why) => HintKind::Dropped(why),
            PathErrorKind::TooBig(bytes) => {
                // The error counts the link header.
                let packet_bytes_max = bytes.saturating_sub(LINK_HEADER_BYTES as u16);
                HintKind::TooBig { packet_bytes_max }
            }
            PathErrorKind::SlotMoved { .. } => HintKind::SlotMoved,
            PathErrorKind::SlotGone(_) => {
                HintKind::Dropped(strowger_wire::control::Reason::SLOT_GONE)
            }
            PathErrorKind::Congestion => HintKind::Congestion,
        };
        let Ok(shift) = u8::try_from(error.offending.shift) else {
            return Err(Discard::Unsolicited);
        };
        let hint = Hint { kind, label: error.offending.label, shift };
        let effect = self.paths.handle_hint(now, &hint);
        self.run_paths(now, shared);
        match effect {
            HintEffect::Unsolicited => return Err(Discard::Unsolicited),
            HintEffect::OverBudget => return Err(Discard::OverBudget),
            HintEffect::About(_) => {}
        }
        match kind {
            HintKind::TooBig { packet_bytes_max } => {
                let needed = (HEADER_64_BYTES + INITIATION_BYTES) as u16;
                if !self.session.is_up() && packet_bytes_max < needed {
                    let bytes = packet_bytes_max;
                    self.trouble = Some(Box::new(ConnectError::PathTooNarrow { bytes, needed }));
                }
            }
            HintKind::Congestion => shared.report(Event::Congestion { peer: self.peer }),
            HintKind::SlotMoved => {
                shared.wishes.push(Wish::LookUp(self.peer));
                // The return label of the answer has the present slot number. Without a request,
                // the peer may have nothing to send.
                if self.moved_budget.take(now, SLOT_MOVED_QUESTIONS) {
                    self.send_items(now, Traffic::Items, &[ControlItem::Identify], shared);
                }
            }
            HintKind::Dropped(why) => {
                if !self.session.is_up() {
                    self.trouble = Some(Box::new(ConnectError::Dropped { why }));
                }
            }
        }
        Ok(())
    }

    /// Sets the route and the limits of the data path, and reports a changed message length to
    /// sockets.
    pub(crate) fn publish(&mut self, shared: &mut Shared) {
        let active = self.paths.active().copied().filter(|_| self.paths.is_open());
        let route = active.and_then(|along| Route::along(along.label, along.hops_left));
        let packet_bytes_max = self.paths.packet_bytes_max();
        let message_max = packet_bytes_max.saturating_sub(CONNECTION_OVERHEAD_BYTES as u16);
        let needs_packets = self.paths.needs_packets();
        let may_pass_through = self.may_pass_through();
        let Some(hot) = shared.data.connections.get_mut(self.place as usize) else { return };
        hot.has_ledger = needs_packets;
        if let Some(tx) = hot.tx.as_deref_mut() {
            (tx.route, tx.message_max) = (route, message_max);
            tx.may_pass_through = may_pass_through;
        }
        self.tell_message_max(usize::from(message_max), shared);
    }

    /// Whether pass-through messages may be sent: only along a validated path (wire.md W6-161).
    fn may_pass_through(&self) -> bool {
        self.peer_accepts_pass_through && self.paths.is_validated()
    }

    /// Notes the newest return label of the connection. Initiations that come by it count as those
    /// of a known peer, and so do those by a former one for a time (wire.md W6-188).
    pub(super) fn note_known_label(
        &mut self,
        now: Nanos,
        label: Option<AnyLabel>,
        shared: &mut Shared,
    ) {
        if label.as_ref() == self.known_label.as_deref() {
            return;
        }
        if let Some(former) = std::mem::replace(&mut self.known_label, label.map(Box::new)) {
            shared.known_labels.leave(now, &former);
        }
        if let Some(label) = label {
            shared.known_labels.enter(label);
        }
    }

    fn tell_message_max(&mut self, bytes: usize, shared: &mut Shared) {
        if bytes == self.told_max as usize {
            return;
        }
        self.told_max = bytes as u32; // a packet is shorter
        for socket in self.sockets.clone() {
            shared.report(Event::MessageMax { socket, bytes });
        }
    }
}
