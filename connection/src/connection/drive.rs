//! Passes inputs to the session of a connection, and applies the session's outputs.

use arrayvec::ArrayVec;
use strowger_crypto::handshake::{HandshakeError, Refused};
use strowger_crypto::session::{Context, Input, NewKeys, Output, Session};
use strowger_crypto::{Nanos, Sealed, Sealer, StaticPublic};
use strowger_wire::connection::EntryCount;
use strowger_wire::connection::header::CONNECTION_HEADER_BYTES;
use strowger_wire::limits::TAG_BYTES;
use strowger_wire::link_header::{Kind, Lane, LinkHeader, SessionIndex, Step};

use super::{Connection, Race, SealedBefore, SealedLane};
use crate::counters::Discard;
use crate::data_path::Tx;
use crate::event::Event;
use crate::heap::Maybe;
use crate::limits::{ATTEMPTS_NOTED, RACE_STAGGER, SEALED_KNOWN, SENDING_LANES};
use crate::packet::{PacketMark, Route};
use crate::path::{Along, Traffic};
use crate::shared::{By, Shared};

/// The role of this end in a handshake that gave keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Initiator, by static key.
    AskedByKey,
    /// Initiator, by PeerId.
    AskedByPeerId,
    Answered,
}

impl Connection {
    /// Passes an input to the session, and applies the outputs.
    pub(crate) fn drive(
        &mut self,
        now: Nanos,
        input: Input<'_>,
        by: Option<&By>,
        shared: &mut Shared,
    ) -> Result<(), HandshakeError> {
        self.with_session(now, by, shared, |session, context, outputs| {
            session.handle(context, input, outputs)
        })
    }

    /// Calls `work` with the session, and applies the outputs.
    pub(crate) fn with_session(
        &mut self,
        now: Nanos,
        by: Option<&By>,
        shared: &mut Shared,
        work: impl FnOnce(
            &mut Session,
            &mut Context<'_>,
            &mut Vec<Output>,
        ) -> Result<(), HandshakeError>,
    ) -> Result<(), HandshakeError> {
        if self.session.is_idle() {
            self.session.restore(&self.peer, &shared.config);
            self.is_hello_due = true;
        }
        // A responder has set its hello; the session begins no handshake that is not wanted.
        if self.is_hello_due && (self.is_wanted || self.session.has_attempt()) {
            self.state_hello(shared);
        }
        let former_key = self.session.peer().copied();
        let (mut outputs, mut drawn) = (Vec::new(), None);
        let stated = self.stated_entries();
        {
            let Shared { config, entropy, data, by_key, .. } = shared;
            let place = self.place;
            let sessions = &mut data.sessions;
            let mut context = Context {
                now,
                local: &config.local,
                entropy: &mut **entropy,
                indices: &mut |entropy| {
                    drawn = sessions.draw(entropy);
                    drawn
                },
                is_free: &|key| by_key.get(key).is_none_or(|owner| *owner == place),
            };
            let taken = work(self.session.restore(&self.peer, config), &mut context, &mut outputs);
            if let Some(index) = drawn.filter(|index| self.session.awaits(*index)) {
                shared.data.sessions.await_answer(index, self.place);
                self.note_asked(now, index, stated);
            }
            self.note_key(former_key, shared);
            let mut has_keys = false;
            for output in outputs {
                has_keys |= matches!(output, Output::Seal(_));
                self.apply(now, output, by, shared);
            }
            if has_keys {
                self.progress(now, shared);
                // The responder of XX sends its table after it has opened a packet, so this end
                // sends a packet at once.
                if self.id_due.is_some() && !self.has_sealed(shared) {
                    self.confirm(now, shared);
                }
            }
            self.run_paths(now, shared);
            self.shrink();
            taken
        }
    }

    /// Notes a static key that a handshake has revealed, or that was suggested before it.
    fn note_key(&mut self, former: Option<StaticPublic>, shared: &mut Shared) {
        let key = self.session.peer().copied();
        if key == former && self.is_key_noted {
            return;
        }
        if let Some(former) = former
            && shared.by_key.get(&former) == Some(&self.place)
        {
            shared.by_key.remove(&former);
        }
        if let Some(key) = key {
            shared.by_key.insert(key, self.place);
        }
        self.is_key_noted = key.is_some();
    }

    fn apply(&mut self, now: Nanos, output: Output, by: Option<&By>, shared: &mut Shared) {
        match output {
            Output::Send(message) => self.send_handshake(now, &message, by, shared),
            Output::Open { index, openers } => {
                shared.data.sessions.open(index, self.place, openers);
                if self.session.only_opens(index) {
                    self.note_crossed(index, shared);
                }
                if let Some(mut answering) = self.answering.take() {
                    answering.index = index;
                    if self.answered.len() >= ATTEMPTS_NOTED {
                        self.answered.remove(0);
                    }
                    self.answered.push(*answering);
                }
            }
            Output::Seal(keys) => self.install(now, *keys, by, shared),
            Output::Confirm => self.confirm(now, shared),
            Output::Close(index) => self.close_index(index, shared),
            Output::Expired => {
                self.drop_sealers(now, shared);
                let hot = shared.data.connections.get(self.place as usize);
                let heard = hot.map_or(now, |hot| hot.message_heard);
                self.note_known_label(heard, None, shared);
            }
        }
    }

    fn close_index(&mut self, index: SessionIndex, shared: &mut Shared) {
        shared.data.sessions.close(index);
        self.asked.retain(|asked| asked.index != index);
        self.answered.retain(|answered| answered.index != index);
    }

    /// Drops the previous keys (wire.md W6-140).
    pub(super) fn drop_former_keys(&mut self, shared: &mut Shared) {
        let mut outputs = Vec::new();
        self.session.drop_former(&mut outputs);
        self.close_indices(outputs, shared);
    }

    /// Drops all keys and attempts; the session can begin again.
    pub(super) fn drop_all_keys(&mut self, now: Nanos, shared: &mut Shared) {
        let mut outputs = Vec::new();
        self.session.close(&mut outputs);
        self.session.reset();
        self.close_indices(outputs, shared);
        self.drop_sealers(now, shared);
        (self.race, self.finish_along, self.stated_by_xx) = (None, None, None);
        (self.id_due, self.id_answer, self.tables_since) = (None, None, None);
        (self.early_stated, self.keys_since) = (None, Maybe::NONE);
    }

    fn close_indices(&mut self, outputs: Vec<Output>, shared: &mut Shared) {
        for output in outputs {
            if let Output::Close(index) = output {
                self.close_index(index, shared);
            }
        }
    }

    /// Installs new keys, with which this end seals from now on.
    fn install(&mut self, now: Nanos, keys: NewKeys, by: Option<&By>, shared: &mut Shared) {
        let index = keys.index;
        let role = if self.answered.iter().any(|answered| answered.index == index) {
            Role::Answered
        } else if keys.confirmed {
            Role::AskedByKey
        } else {
            Role::AskedByPeerId
        };
        self.keys_since = Maybe::some(now);
        self.trouble = None;
        if self.handshakes == 0 {
            shared.report(Event::PeerConnected { peer: self.peer });
        }
        self.handshakes += 1;
        shared.counters.handshakes += 1;
        self.drop_sealers(now, shared);
        let their_offer = keys.their_offer;
        let sealers: ArrayVec<_, _> =
            keys.sealers.into_iter().take(usize::from(SENDING_LANES)).collect();
        for sealer in &sealers {
            shared.peer_indices.insert((sealer.to(), self.place));
        }
        if role != Role::AskedByPeerId {
            self.end_deadlines(shared);
        }
        self.peer_accepts_pass_through = their_offer.accepts_pass_through();
        let tx = Tx { sealers, route: None, message_max: 0, may_pass_through: false };
        if let Some(hot) = shared.data.connections.get_mut(self.place as usize) {
            hot.tx = Some(Box::new(tx));
        }
        self.paths.set_peer_mtu(their_offer.mtu.bytes());
        self.paths.set_can_seal(true);
        self.note_label_of_keys(now, index, role, by);
        self.take_hello(now, index, role, &their_offer, shared);
        self.publish(shared);
    }

    /// Marks the keys of this index as older than the sealing keys, which both ends keep.
    fn note_crossed(&self, index: SessionIndex, shared: &mut Shared) {
        let current = self.session.current_index();
        let current = current.and_then(|current| shared.data.sessions.receiver_of(current));
        let generation = current.map(|receiver| receiver.generation.wrapping_sub(1));
        if let (Some(generation), Some(crossed)) =
            (generation, shared.data.sessions.receiver_of(index))
        {
            crossed.generation = generation;
        }
    }

    /// Drops the keys that seal. Keeps the record of their last packets for a time (wire.md
    /// W6-143).
    pub(crate) fn drop_sealers(&mut self, now: Nanos, shared: &mut Shared) {
        self.paths.set_can_seal(false);
        let Some(hot) = shared.data.connections.get_mut(self.place as usize) else { return };
        hot.due_since = None;
        if let Some(tx) = hot.tx.take() {
            self.forget_sealed(shared);
            let lane = |sealer: &Sealer| SealedLane {
                to: sealer.to(),
                lane: sealer.lane(),
                packets: sealer.packets(),
            };
            let lanes = tx.sealers.iter().map(lane).collect();
            self.sealed = Some(Box::new(SealedBefore { lanes, until: now.plus(SEALED_KNOWN) }));
        }
    }

    /// Drops the record of packets that former keys sealed.
    pub(crate) fn forget_sealed(&mut self, shared: &mut Shared) {
        let Some(sealed) = self.sealed.take() else { return };
        let hot = shared.data.connections.get(self.place as usize);
        let tx = hot.and_then(|hot| hot.tx.as_deref());
        for lane in &sealed.lanes {
            let is_used = tx.is_some_and(|tx| tx.sealers.iter().any(|s| s.to() == lane.to));
            if !is_used {
                shared.peer_indices.remove(&(lane.to, self.place));
            }
        }
    }

    /// Sends a handshake message: a response to the source of its initiation, the third message of
    /// XX along the path of XX, and an initiation along the labels of the connection.
    fn send_handshake(&mut self, now: Nanos, message: &[u8], by: Option<&By>, shared: &mut Shared) {
        let Ok(header) = LinkHeader::parse(message) else { return };
        if header.kind == Kind::Response {
            let Some(by) = by else { return };
            crate::handshake::reply(by, message, shared);
            shared.last_response = Some(message.to_vec());
            return;
        }
        if Step::from_lane(header.lane) == Some(Step::Finish) {
            if let Some(along) = self.finish_along.as_deref().copied() {
                self.send_initiation(now, &along, message, shared);
            }
            return;
        }
        if self.paths.is_gone() {
            self.paths.challenge_active(now);
        }
        let labels = self.paths.labels();
        let Some(along) = labels.first() else { return };
        self.send_initiation(now, along, message, shared);
        let index = SessionIndex::new(header.low);
        if let Some(asked) = self.asked.iter_mut().find(|asked| Some(asked.index) == index) {
            let _ = asked.labels.try_push(along.label);
            let (index, message) = (asked.index, message.to_vec());
            let at = now.plus(RACE_STAGGER);
            self.race = (labels.len() > 1).then(|| Box::new(Race { index, message, at }));
        }
    }

    /// Sends an initiation, or a third message, along one path.
    pub(crate) fn send_initiation(
        &mut self,
        now: Nanos,
        along: &Along,
        message: &[u8],
        shared: &mut Shared,
    ) {
        let Some(route) = Route::along(along.label, along.hops_left) else { return };
        let flow = shared.flow(self.place, self.turn, Lane::ZERO, 0);
        shared.out.push(&route, PacketMark::flow(flow), message);
        self.paths.note_handshake_sent(now, &along.label);
    }

    /// Sends an empty packet under the newest keys.
    fn confirm(&mut self, now: Nanos, shared: &mut Shared) {
        self.seal_control(now, Traffic::Unanswered, &[], shared);
    }

    /// Seals a packet of the control part along the active path. Returns whether it was sent.
    pub(crate) fn seal_control(
        &mut self,
        now: Nanos,
        traffic: Traffic,
        body: &[u8],
        shared: &mut Shared,
    ) -> bool {
        let bytes = CONNECTION_HEADER_BYTES + body.len() + TAG_BYTES;
        let Ok(along) = self.paths.take(now, bytes, traffic) else { return false };
        let along = *along;
        let flow = shared.flow(self.place, self.turn, along.lane, 0);
        self.seal_along(now, Sealed::Data, &along, PacketMark::flow(flow), body, shared)
    }

    /// Seals a packet, and queues it along a label. Returns whether it was sealed.
    pub(crate) fn seal_along(
        &mut self,
        now: Nanos,
        what: Sealed,
        along: &Along,
        mark: PacketMark,
        body: &[u8],
        shared: &mut Shared,
    ) -> bool {
        let Some(hot) = shared.data.connections.get_mut(self.place as usize) else { return false };
        let Some(tx) = hot.tx.as_deref_mut() else { return false };
        let Some(route) = Route::along(along.label, along.hops_left) else { return false };
        let at = route.header_bytes();
        let mut packet = vec![0; at + CONNECTION_HEADER_BYTES + body.len() + TAG_BYTES];
        route.write(&mut packet, mark);
        packet[at + CONNECTION_HEADER_BYTES..][..body.len()].copy_from_slice(body);
        let lane = usize::from(along.lane.number()).min(tx.sealers.len().saturating_sub(1));
        let Some(sealer) = tx.sealers.get_mut(lane) else { return false };
        if sealer.seal(now, what, &mut packet[at..]).is_err() {
            return false;
        }
        shared.out.push_packet(packet);
        true
    }

    /// The number of entries that the hello of this end states now.
    fn stated_entries(&self) -> EntryCount {
        self.stated
    }
}

/// The discard reason under which a refused handshake message is counted.
pub(crate) fn discard_of(why: HandshakeError) -> Discard {
    match why {
        HandshakeError::Local(_) => Discard::HandshakeFailed,
        HandshakeError::Peer(why) => discard_of_refusal(why),
    }
}

/// The discard reason for a message that the session refused.
pub(crate) fn discard_of_refusal(why: Refused) -> Discard {
    match why {
        Refused::Malformed => Discard::Malformed,
        Refused::Hello(_) => Discard::HandshakeMalformed,
        Refused::NotOurs => Discard::NoSession,
        Refused::WrongMac | Refused::OtherNetwork => Discard::HandshakeMac,
        Refused::Unreadable | Refused::OtherIndex => Discard::HandshakeUnreadable,
        Refused::Stale => Discard::HandshakeStale,
        Refused::Identity(_)
        | Refused::OtherIdentity(_)
        | Refused::OtherPeer
        | Refused::Ourselves => Discard::HandshakeIdentity,
        Refused::Disagreement(_) | Refused::OwnHelloTooLong => Discard::HandshakeOffer,
        Refused::Busy | Refused::XxMemoryFull => Discard::OverBudget,
    }
}
