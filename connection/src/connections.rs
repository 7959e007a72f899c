//! The connections of an endpoint, indexed by place, by peer and by the time of the next poll.

use std::collections::{BTreeSet, HashMap};

use strowger_crypto::{Identity, Nanos, PeerId};

use crate::connection::Connection;
use crate::data_path::HotConnection;
use crate::goodbye::CloseReason;
use crate::heap::{map_bytes, push_tight, set_bytes, vec_bytes};
use crate::limits::{CONNECTIONS_MAX, UNKNOWN_CONNECTIONS_MAX, UNPROVEN_MAX};
use crate::shared::Shared;

/// The connections of an endpoint.
#[derive(Default)]
pub(crate) struct Connections {
    all: Vec<Option<Box<Connection>>>,
    turns: Vec<u32>,
    free: Vec<u32>,
    by_peer: HashMap<PeerId, u32>,
    schedule: BTreeSet<(Nanos, u32)>,
}

impl Connections {
    /// The connection at this place.
    pub(crate) fn get(&self, place: u32) -> Option<&Connection> {
        self.all.get(place as usize)?.as_deref()
    }

    /// As [`get`](Self::get), to change it.
    pub(crate) fn get_mut(&mut self, place: u32) -> Option<&mut Connection> {
        self.all.get_mut(place as usize)?.as_deref_mut()
    }

    /// The place of the connection with a peer.
    pub(crate) fn of_peer(&self, peer: &PeerId) -> Option<u32> {
        self.by_peer.get(peer).copied()
    }

    /// Adds the connection that `make` makes for a place and its turn.
    pub(crate) fn add(&mut self, make: impl FnOnce(u32, u32) -> Connection) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            push_tight(&mut self.all, None);
            push_tight(&mut self.turns, 0);
            self.all.len() as u32 - 1
        });
        let at = place as usize;
        self.turns[at] = self.turns[at].wrapping_add(1);
        let connection = make(place, self.turns[at]);
        self.by_peer.insert(connection.peer, place);
        self.all[at] = Some(Box::new(connection));
        place
    }

    /// Makes the connection with an identity; `None` if there is no room.
    pub(crate) fn make(
        &mut self,
        now: Nanos,
        identity: Identity,
        is_known: bool,
        shared: &mut Shared,
    ) -> Option<u32> {
        if !self.has_room(now, is_known, shared) {
            return None;
        }
        let place = self.add(|place, turn| {
            let mut connection = Connection::new(place, turn, identity, now, shared);
            connection.is_known = is_known;
            connection
        });
        let hot = HotConnection::new(now);
        match shared.data.connections.get_mut(place as usize) {
            Some(vacant) => *vacant = hot,
            None => push_tight(&mut shared.data.connections, hot),
        }
        let connection = self.get_mut(place)?;
        connection.offer_accepted(now, shared);
        connection.set_targets(shared);
        connection.is_hello_due = true;
        Some(place)
    }

    /// Whether there is room for another connection. Removes the oldest unproven connection if that
    /// makes room (wire.md W6-196). A connection that only an initiation made never displaces one
    /// in which a packet was opened.
    fn has_room(&mut self, now: Nanos, is_known: bool, shared: &mut Shared) -> bool {
        let is_full = self.len() >= CONNECTIONS_MAX;
        if !is_full && (is_known || self.len() < UNPROVEN_MAX) {
            return true;
        }
        let is_unproven = |connection: &&Connection| {
            !connection.is_proven && !connection.is_known && !connection.is_ended()
        };
        let unproven = self.iter().filter(is_unproven);
        let (count, oldest) = unproven.fold((0, None), |(count, oldest), connection| {
            let this = (connection.began, connection.place);
            (count + 1, Some(oldest.map_or(this, |oldest: (Nanos, u32)| oldest.min(this))))
        });
        if !is_full && (is_known || count < UNPROVEN_MAX) {
            return true;
        }
        let Some((_, place)) = oldest else { return false };
        if let Some(mut dropped) = self.remove(place) {
            dropped.close_sockets(&CloseReason::TooMany, shared);
            dropped.release(now, shared);
        }
        true
    }

    /// The proven connection with an unknown peer that was idle longest, if there are too many of
    /// these.
    pub(crate) fn idlest_beyond_limit(&self, shared: &Shared) -> Option<u32> {
        if self.len() <= UNKNOWN_CONNECTIONS_MAX {
            return None;
        }
        let unknown = self
            .iter()
            .filter(|c| c.is_proven && !c.is_known && !c.is_closing())
            .filter_map(|c| Some((shared.data.connections.get(c.place as usize)?.used(), c.place)));
        let (count, idlest) = unknown.fold((0, None), |(count, idlest), this| {
            (count + 1, Some(idlest.map_or(this, |idlest: (Nanos, u32)| idlest.min(this))))
        });
        idlest.filter(|_| count > UNKNOWN_CONNECTIONS_MAX).map(|(_, place)| place)
    }

    /// Removes the connection at this place.
    pub(crate) fn remove(&mut self, place: u32) -> Option<Box<Connection>> {
        let connection = self.all.get_mut(place as usize)?.take()?;
        self.by_peer.remove(&connection.peer);
        if let Some(due) = connection.due.get() {
            self.schedule.remove(&(due, place));
        }
        self.free.push(place);
        Some(connection)
    }

    /// Sets the time at which a connection is due; `None` if it has no timer.
    pub(crate) fn schedule(&mut self, place: u32, due: Option<Nanos>) {
        let Some(connection) = self.all.get_mut(place as usize).and_then(Option::as_deref_mut)
        else {
            return;
        };
        if connection.due.get() == due {
            return;
        }
        if let Some(former) = std::mem::replace(&mut connection.due, due.into()).get() {
            self.schedule.remove(&(former, place));
        }
        self.schedule.extend(due.map(|due| (due, place)));
    }

    /// The time at which the first connection is due; `None` if none is scheduled.
    pub(crate) fn next_timeout(&self) -> Option<Nanos> {
        self.schedule.first().map(|(due, _)| *due)
    }

    /// A connection that is due.
    pub(crate) fn next_due(&self, now: Nanos) -> Option<u32> {
        self.schedule.first().filter(|(due, _)| *due <= now).map(|(_, place)| *place)
    }

    /// The number of connections.
    pub(crate) fn len(&self) -> usize {
        self.by_peer.len()
    }

    /// All connections.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.all.iter().flatten().map(|connection| &**connection)
    }

    /// The places of all connections.
    pub(crate) fn places(&self) -> Vec<u32> {
        self.iter().map(|connection| connection.place).collect()
    }

    /// Bytes of memory, without the connections themselves.
    pub(crate) fn memory(&self) -> usize {
        vec_bytes(&self.all)
            + vec_bytes(&self.turns)
            + vec_bytes(&self.free)
            + map_bytes(&self.by_peer)
            + set_bytes(&self.schedule)
    }
}
