//! The hellos of a connection: builds those of this end, and handles those of the peer.

use strowger_crypto::Nanos;
use strowger_crypto::handshake::{FieldBytes, LISTS_BYTES_MAX, Offer, ProtocolBytes};
use strowger_wire::connection::{
    ConnectionId, EarlyMessage, EarlyResult, EntryCount, HelloFields, TableEntries,
};
use strowger_wire::limits::PROTOCOLS_BYTES_MAX;
use strowger_wire::link_header::SessionIndex;

use super::Connection;
use super::drive::Role;
use crate::event::Event;
use crate::protocol_table::PeerTableRefused;
use crate::shared::Shared;

/// The fields of a hello besides the table.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stated<'a> {
    pub(crate) id: Option<ConnectionId>,
    pub(crate) early: Option<EarlyMessage<'a>>,
    pub(crate) early_result: Option<EarlyResult>,
}

impl Connection {
    /// Sets the hello for the next handshakes that this end starts.
    pub(crate) fn state_hello(&mut self, shared: &Shared) {
        if self.session.is_idle() {
            self.is_hello_due = true;
            return;
        }
        let id = Some(self.id).filter(|id| *id != ConnectionId::UNKNOWN);
        self.with_early(shared, |connection, early| {
            connection.set_hello(Stated { id, early, early_result: None }, shared);
        });
    }

    /// Sets the hello.
    pub(crate) fn set_hello(&mut self, stated: Stated<'_>, shared: &Shared) {
        let fields = HelloFields {
            id: stated.id,
            table: Some(self.own.state()),
            early: stated.early,
            early_result: stated.early_result,
            idle_s: Some(shared.config.idle_time_s),
        };
        let mut fields = fields;
        if fields.wire_bytes() > LISTS_BYTES_MAX {
            // The early message does not fit: this end sends it sealed (W6-20).
            (fields.early, self.early_stated) = (None, None);
        }
        let mut bytes = vec![0; fields.wire_bytes()];
        let fits = fields.emit(&mut bytes).is_ok();
        debug_assert!(fits, "the buffer has the length of the fields");
        let room = LISTS_BYTES_MAX.saturating_sub(bytes.len()).min(PROTOCOLS_BYTES_MAX);
        let entries = self.own.hello_entries(room);
        let (Ok(protocols), Ok(fields)) =
            (ProtocolBytes::new(entries.as_bytes()), FieldBytes::new(&bytes))
        else {
            return;
        };
        let count = entries.count();
        self.is_hello_due = false;
        let session = self.session.restore(&self.peer, &shared.config);
        if session.set_hello(protocols, fields).is_ok() {
            self.stated = count;
        }
    }

    /// Handles the peer's hello after a handshake that gave keys.
    pub(crate) fn take_hello(
        &mut self,
        now: Nanos,
        index: SessionIndex,
        role: Role,
        offer: &Offer,
        shared: &mut Shared,
    ) {
        // The crypto crate refuses hellos whose table or fields are malformed.
        let fields = HelloFields::parse(offer.fields.as_bytes()).unwrap_or_default();
        let entries = TableEntries::parse(offer.protocols.as_bytes()).unwrap_or_default();
        self.id_due = None;
        self.id_answer = None;
        self.note_generation(index, shared);
        match role {
            Role::AskedByKey => {
                let asked = self.asked.iter().find(|asked| asked.index == index);
                let (id, stated) =
                    asked.map_or((self.id, EntryCount::ZERO), |asked| (asked.id, asked.entries));
                let is_known = fields.id == Some(id);
                let has_restarted = !is_known && self.is_proven && id == self.id;
                self.id = id;
                if has_restarted {
                    self.peer_restarted(now, index, shared);
                }
                let _ = self.own.handle_ack(now, stated);
                self.take_early_result(fields.early_result, shared);
            }
            Role::AskedByPeerId => {
                self.early_stated = None;
                let asked = self.asked.iter().find(|asked| asked.index == index);
                let (id, stated) =
                    asked.map_or((self.id, EntryCount::ZERO), |asked| (asked.id, asked.entries));
                // The id may have changed since XX 1, and XX 3 states the newest one.
                let _ = id;
                self.id_due = Some((index, self.is_proven));
                self.stated_by_xx = Some((index, stated.max(self.stated)));
                if self.is_proven {
                    // A restarted peer may have given the numbers of its table to other protocols.
                    // This end uses the numbers again when the peer has sent its table.
                    self.theirs.reset();
                }
                self.tables_since = generation_of(index, shared);
            }
            Role::Answered => {
                self.early_stated = None;
                let place = self.answered.iter().position(|answered| answered.index == index);
                let answered = place.map(|place| &self.answered[place]);
                let (was_proven, stated, answer) = answered
                    .map_or((false, EntryCount::ZERO, None), |answered| {
                        (answered.was_proven, answered.entries, answered.answer)
                    });
                let id = fields.id.unwrap_or(ConnectionId::UNKNOWN);
                let has_restarted = was_proven && self.is_proven && id != self.id;
                self.id = id;
                if has_restarted {
                    self.peer_restarted(now, index, shared);
                }
                self.id_answer = answer;
                if answer.is_some() {
                    // `connection_id` goes with the first `table` item, so send the table again.
                    self.own.forget_acknowledgement();
                } else {
                    let _ = self.own.handle_ack(now, stated);
                }
            }
        }
        self.peer_idle_s = fields.idle_s;
        if role != Role::AskedByPeerId {
            match self.theirs.handle_hello(entries, fields.table) {
                Err(PeerTableRefused::Conflict) => self.has_conflict = true,
                Err(PeerTableRefused::TooLong) | Ok(_) => {}
            }
        }
        if role == Role::Answered {
            self.is_proven = true;
        }
        if role != Role::AskedByPeerId {
            self.own.announce(now);
        }
        self.state_hello(shared);
    }

    /// Handles a restart of the peer: forgets what the peer stated or acknowledged.
    fn peer_restarted(&mut self, now: Nanos, index: SessionIndex, shared: &mut Shared) {
        self.reset_paths(now);
        self.drop_former_keys(shared);
        self.is_proven = false;
        self.forget_table(index, shared);
        self.own.forget_acknowledgement();
        shared.report(Event::PeerRestarted { peer: self.peer });
    }

    /// Forgets the peer's table. Only items under the keys of this index, or under newer keys, fill
    /// the table again.
    fn forget_table(&mut self, index: SessionIndex, shared: &mut Shared) {
        self.theirs.reset();
        self.tables_since = generation_of(index, shared);
    }

    /// Lowers `tables_since` to the generation of these keys. If both ends began a handshake, the
    /// keys that they keep may be older than other keys of this end.
    fn note_generation(&mut self, index: SessionIndex, shared: &mut Shared) {
        if let (Some(since), Some(now)) = (self.tables_since, generation_of(index, shared))
            && (now.wrapping_sub(since) as i32) < 0
        {
            self.tables_since = Some(now);
        }
    }
}

fn generation_of(index: SessionIndex, shared: &mut Shared) -> Option<u32> {
    shared.data.sessions.receiver_of(index).map(|receiver| receiver.generation)
}
