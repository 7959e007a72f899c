//! The state that an endpoint keeps of peers without a connection: keys, tables, timestamps, and
//! results of early messages.

use std::collections::HashMap;
use std::hash::Hash;

use strowger_crypto::handshake::TimestampGuard;
use strowger_crypto::{Nanos, PeerId, StaticPublic};
use strowger_wire::connection::{
    ConnectionId, EarlyResult, EntryFlags, ProtocolName, TableEntries,
};
use strowger_wire::hello::Timestamp;

use crate::heap::map_bytes;
use crate::limits::{EARLY_KEPT, EARLY_RESULTS_MAX, PEERS_REMEMBERED_MAX, STAMPS_KEPT_MAX};

/// The state that is kept of a peer (wire.md W6-198).
#[derive(Clone, Debug)]
pub(crate) struct Remembered {
    pub(crate) key: StaticPublic,
    /// The entries of the peer's last table.
    pub(crate) table: Box<[u8]>,
}

impl Remembered {
    /// Whether the last table allowed an early message for a protocol.
    pub(crate) fn allows_early(&self, name: &str) -> bool {
        let entries = TableEntries::parse(&self.table).unwrap_or_default();
        let name = ProtocolName::new(name.as_bytes());
        let entry = name.and_then(|name| entries.find(name));
        entry.is_some_and(|(_, entry)| entry.flags.holds(EntryFlags::EARLY))
    }
}

/// The state that an endpoint keeps of peers without a connection.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    peers: HashMap<PeerId, (Remembered, Nanos)>,
    stamps: HashMap<PeerId, (Timestamp, Nanos)>,
    /// The greatest timestamp that was dropped for lack of room.
    floor: Timestamp,
    results: HashMap<(PeerId, ConnectionId), (EarlyResult, Nanos)>,
}

impl Memory {
    /// Remembers a peer.
    pub(crate) fn remember(&mut self, now: Nanos, peer: PeerId, remembered: Remembered) {
        make_room(&mut self.peers, PEERS_REMEMBERED_MAX, &peer, |(_, at)| *at);
        self.peers.insert(peer, (remembered, now));
    }

    /// The state that is kept of a peer.
    pub(crate) fn peer(&self, peer: &PeerId) -> Option<&Remembered> {
        self.peers.get(peer).map(|(remembered, _)| remembered)
    }

    /// Keeps the newest timestamp of a peer (wire.md W6-146).
    pub(crate) fn keep_stamp(&mut self, now: Nanos, peer: PeerId, guard: TimestampGuard) {
        let Some(stamp) = guard.newest else { return };
        let dropped = make_room(&mut self.stamps, STAMPS_KEPT_MAX, &peer, |(_, at)| *at);
        if let Some((stamp, _)) = dropped {
            self.floor = self.floor.max(stamp);
        }
        self.stamps.insert(peer, (stamp, now));
    }

    /// The newest timestamp of a peer.
    pub(crate) fn guard(&self, peer: &PeerId) -> TimestampGuard {
        TimestampGuard { newest: self.stamps.get(peer).map(|(stamp, _)| *stamp) }
    }

    /// Whether an early message with this timestamp may be a replay, if no timestamp of its
    /// identity is kept.
    pub(crate) fn is_below_floor(&self, stamp: Timestamp) -> bool {
        stamp <= self.floor
    }

    /// The result of the early message of a connection; `None` if no result is kept.
    pub(crate) fn result(
        &self,
        now: Nanos,
        peer: &PeerId,
        id: ConnectionId,
    ) -> Option<EarlyResult> {
        let (result, at) = self.results.get(&(*peer, id))?;
        (now.since(*at) <= EARLY_KEPT).then_some(*result)
    }

    /// Whether another result can be remembered.
    pub(crate) fn has_room(&mut self, now: Nanos) -> bool {
        if self.results.len() >= EARLY_RESULTS_MAX {
            self.results.retain(|_, (_, at)| now.since(*at) <= EARLY_KEPT);
        }
        self.results.len() < EARLY_RESULTS_MAX
    }

    /// Bytes of memory behind this value.
    pub(crate) fn memory_bytes(&self) -> usize {
        let tables = self.peers.values().map(|(remembered, _)| remembered.table.len());
        map_bytes(&self.peers)
            + tables.sum::<usize>()
            + map_bytes(&self.stamps)
            + map_bytes(&self.results)
    }

    /// Remembers the result of an early message.
    pub(crate) fn keep_result(
        &mut self,
        now: Nanos,
        peer: PeerId,
        id: ConnectionId,
        result: EarlyResult,
    ) {
        self.results.insert((peer, id), (result, now));
    }
}

/// Removes the oldest value if there is no room for a new key, and returns it.
fn make_room<K: Copy + Eq + Hash, V>(
    map: &mut HashMap<K, V>,
    most: usize,
    key: &K,
    at: impl Fn(&V) -> Nanos,
) -> Option<V> {
    if map.len() < most || map.contains_key(key) {
        return None;
    }
    let oldest = map.iter().min_by_key(|(_, value)| at(value)).map(|(key, _)| *key)?;
    map.remove(&oldest)
}
