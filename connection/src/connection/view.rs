//! The status of a connection, for operators and for other modules.

use strowger_crypto::Nanos;
use strowger_crypto::session::Output;
use strowger_wire::connection::{ConnectionHeader, EntryFlags, EntryNumber};
use strowger_wire::link_header::SessionIndex;

use super::{Closing, Connection, SealedLane};
use crate::heap::{Maybe, vec_bytes};
use crate::ids::DatagramId;
use crate::info::ConnectionInfo;
use crate::limits::UNKNOWN_HEEDED_AFTER;
use crate::memory::Remembered;
use crate::shared::Shared;

impl Connection {
    /// The status of the connection, for operators.
    pub(crate) fn info(&self, shared: &Shared) -> ConnectionInfo {
        let names = |entries: strowger_wire::connection::TableEntries<'_>| {
            entries.iter().map(|entry| entry.name.as_str().to_owned()).collect()
        };
        ConnectionInfo {
            peer: self.peer,
            has_keys: self.session.is_up(),
            keys_since: self.keys_since.get().filter(|_| self.session.is_up()),
            handshakes: u64::from(self.handshakes),
            paths: self.paths.info(),
            our_protocols: names(self.own.entries()),
            their_protocols: names(self.theirs.entries()),
            are_their_protocols_complete: self.theirs.is_complete(),
            message_max: self.message_max(shared),
            sockets: self.sockets.len(),
            memory: self.memory(shared),
        }
    }

    /// Approximate bytes of memory.
    pub(crate) fn memory(&self, shared: &Shared) -> usize {
        let hot = shared.data.connections.get(self.place as usize);
        let goodbyes = self.closed_names.iter().map(String::capacity);
        let refusals = self.refusals.iter().map(|(name, _)| name.len());
        let remembered =
            self.remembered.as_deref().map(|it| size_of::<Remembered>() + it.table.len());
        let race = self.race.as_deref().map(|race| size_of_val(race) + race.message.capacity());
        size_of::<Connection>()
            + self.session.memory_bytes()
            + self.asked.memory_bytes()
            + self.answered.memory_bytes()
            + self.goodbyes.memory_bytes()
            + self.closed_names.memory_bytes()
            + goodbyes.sum::<usize>()
            + self.refusals.memory_bytes()
            + refusals.sum::<usize>()
            + vec_bytes(&self.sockets)
            + self.reported.memory_bytes()
            + remembered.unwrap_or(0)
            + race.unwrap_or(0)
            + self.finish_along.as_deref().map_or(0, size_of_val)
            + self.answering.as_deref().map_or(0, size_of_val)
            + self.known_label.as_deref().map_or(0, size_of_val)
            + self.sealed.as_deref().map_or(0, size_of_val)
            + self.trouble.as_deref().map_or(0, size_of_val)
            + self.own.memory_bytes()
            + self.theirs.memory_bytes()
            + self.waiting.memory_bytes()
            + self.paths.memory_bytes()
            + hot.map_or(0, |hot| hot.memory())
    }

    /// Handles the first opened packet under keys, or an empty one.
    pub(crate) fn note_first_opened(
        &mut self,
        now: Nanos,
        index: SessionIndex,
        shared: &mut Shared,
    ) {
        self.own.note_opened();
        if !self.is_proven && self.session.current_index() == Some(index) {
            self.is_proven = true;
            self.end_deadlines(shared);
            self.state_hello(shared);
        }
        if let Some((stated, entries)) = self.stated_by_xx
            && stated == index
        {
            self.stated_by_xx = None;
            let _ = self.own.handle_ack(now, entries);
            self.own.announce(now);
        }
    }

    /// Whether a packet was sealed under the newest keys.
    pub(super) fn has_sealed(&self, shared: &Shared) -> bool {
        let hot = shared.data.connections.get(self.place as usize);
        let tx = hot.and_then(|hot| hot.tx.as_deref());
        tx.is_some_and(|tx| tx.sealers.iter().any(|sealer| sealer.packets() > 0))
    }

    /// Whether this end has recently sent a packet with this header.
    pub(crate) fn has_sent(&self, now: Nanos, header: &ConnectionHeader, shared: &Shared) -> bool {
        let hot = shared.data.connections.get(self.place as usize);
        let tx = hot.and_then(|hot| hot.tx.as_deref());
        let has_now = tx.is_some_and(|tx| {
            tx.sealers.iter().any(|sealer| {
                let (to, lane, packets) = (sealer.to(), sealer.lane(), sealer.packets());
                SealedLane { to, lane, packets }.has(header)
            })
        });
        let before = self.sealed.as_ref().filter(|sealed| now < sealed.until);
        has_now || before.is_some_and(|sealed| sealed.lanes.iter().any(|lane| lane.has(header)))
    }

    /// Whether a packet of kind 7 may start a handshake now.
    pub(crate) fn may_heed_unknown(&mut self, now: Nanos) -> bool {
        let is_early =
            self.heeded_unknown.get().is_some_and(|at| now.since(at) < UNKNOWN_HEEDED_AFTER);
        if is_early || self.session.repeats_msg3() || self.session.has_attempt() {
            return false;
        }
        self.heeded_unknown = Maybe::some(now);
        true
    }

    /// The number of a datagram socket's best name in the peer's table; `None` if the table does
    /// not have the name.
    pub(crate) fn datagram_number(&self, id: DatagramId, shared: &Shared) -> Option<u8> {
        let name = shared.accepts.names_of(id).first()?;
        let name = strowger_wire::connection::ProtocolName::new(name.as_bytes())?;
        self.theirs.number_of(name).map(|number| number.on_wire().number())
    }

    /// Whether the peer accepts pass-through messages to this number of its table.
    pub(crate) fn accepts_pass_through(&self, number: u8) -> bool {
        let entries = self.theirs.entries();
        let place = EntryNumber::new(number).map(|number| usize::from(number.number()) - 1);
        let entry = place.and_then(|place| entries.iter().nth(place));
        entry.is_some_and(|entry| entry.flags.holds(EntryFlags::PASS_THROUGH))
    }

    /// Whether the connection is closed and waits for no answer to its goodbye, so that the
    /// endpoint can end.
    pub(crate) fn has_said_goodbye(&self) -> bool {
        matches!(self.closing, Closing::Ended | Closing::ByPeer { .. })
    }

    /// Removes everything that the connection holds in shared tables, and keeps what must outlast
    /// it.
    pub(crate) fn release(&mut self, now: Nanos, shared: &mut Shared) {
        shared.memory.keep_stamp(now, self.peer, self.session.guard());
        if self.is_proven
            && let Some(key) = self.session.peer()
        {
            let table = self.theirs.entries().as_bytes().into();
            shared.memory.remember(now, self.peer, Remembered { key: *key, table });
        }
        let mut outputs = Vec::new();
        self.session.close(&mut outputs);
        for output in outputs {
            if let Output::Close(index) = output {
                shared.data.sessions.close(index);
            }
        }
        self.drop_sealers(now, shared);
        self.forget_sealed(shared);
        self.note_known_label(now, None, shared);
        for id in std::mem::take(&mut self.sockets) {
            shared.sockets.remove(&mut shared.data, id);
        }
        let lost = self.waiting.remove_where(|_| true);
        shared.counters.waiting -= lost as u64;
        shared.counters.waited_lost += lost as u64;
        if let Some(key) = self.session.peer()
            && shared.by_key.get(key) == Some(&self.place)
        {
            shared.by_key.remove(key);
        }
        shared.flows.retain(|(_, place)| *place != self.place);
        if let Some(hot) = shared.data.connections.get_mut(self.place as usize) {
            *hot = crate::data_path::HotConnection::new(Nanos::ZERO);
        }
    }
}
