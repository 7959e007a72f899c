//! Tables that find peers by static key or identity, and counts of the peers of each kind. Every
//! change of the peers updates them, so that handshake messages rarely require a search of all
//! peers.

use std::collections::HashMap;

use strowger_crypto::{LocalIdentity, StaticPublic};
use strowger_frame::Mark;

use super::{PeerSpec, peer::Peer};

/// The peers whose static key is not configured, by identity, and counts of peers.
#[derive(Default)]
pub(super) struct Lookup {
    by_identity: HashMap<[u8; 32], Mark>,
    without_key: usize,
    any: usize,
    unknown: usize,
}

impl Lookup {
    /// Makes the tables for these peers.
    pub(super) fn of<'p>(peers: impl Iterator<Item = (Mark, &'p Peer)>) -> Self {
        let mut lookup = Self::default();
        peers.for_each(|(mark, peer)| lookup.add(mark, peer.spec(), peer.is_unknown()));
        lookup
    }

    /// Adds a peer.
    pub(super) fn add(&mut self, mark: Mark, spec: &PeerSpec, is_unknown: bool) {
        self.unknown += usize::from(is_unknown);
        self.any += usize::from(spec.is_any());
        if spec.key.is_none() {
            self.without_key += 1;
            let identity = spec.identity.map(|identity| (identity.to_bytes(), mark));
            self.by_identity.extend(identity);
        }
    }

    /// Removes a peer.
    pub(super) fn remove(&mut self, spec: &PeerSpec, is_unknown: bool) {
        self.unknown -= usize::from(is_unknown);
        self.any -= usize::from(spec.is_any());
        if spec.key.is_none() {
            self.without_key -= 1;
            if let Some(identity) = &spec.identity {
                self.by_identity.remove(&identity.to_bytes());
            }
        }
    }

    /// The peer that is known only by this identity.
    pub(super) fn by_identity(&self, identity: &[u8; 32]) -> Option<Mark> {
        self.by_identity.get(identity).copied()
    }

    /// Whether there is a peer whose key is not configured.
    pub(super) fn has_peers_without_key(&self) -> bool {
        self.without_key > 0
    }

    /// Whether there is a peer whose configuration accepts any node at its address.
    pub(super) fn has_any(&self) -> bool {
        self.any > 0
    }

    /// The number of peers that are not in the configuration.
    pub(super) fn unknown(&self) -> usize {
        self.unknown
    }
}

/// The peers with a known static key, by key.
#[derive(Default)]
pub(super) struct Keys {
    by_key: HashMap<[u8; 32], Mark>,
}

impl Keys {
    /// The peer with this key.
    pub(super) fn get(&self, key: &StaticPublic) -> Option<Mark> {
        self.by_key.get(&key.0).copied()
    }

    /// Removes the peer's former key and adds its new key. Each is optional.
    pub(super) fn replace(
        &mut self,
        local: &LocalIdentity,
        mark: Mark,
        former: Option<StaticPublic>,
        key: Option<StaticPublic>,
    ) {
        if let Some(former) = former {
            self.by_key.remove(&former.0);
            local.remove_peer(&former);
        }
        if let Some(key) = key {
            self.by_key.insert(key.0, mark);
            local.add_peer(&key);
        }
    }

    /// Removes all keys.
    pub(super) fn clear(&mut self) {
        self.by_key.clear();
    }
}

#[cfg(test)]
mod tests {
    use strowger_crypto::{Identity, IdentityKey, Secret, StaticPublic};

    use super::*;
    use crate::control::PortId;

    fn identity(seed: u8) -> Identity {
        IdentityKey::from_seed(&Secret::from_bytes([seed; 32])).public()
    }

    #[test]
    fn what_is_added_is_found_and_counted_until_it_is_removed() {
        let port = PortId(0);
        let key = *IdentityKey::from_seed(&Secret::from_bytes([9; 32])).static_key().public();
        let specs: [(PeerSpec, bool); 4] = [
            (PeerSpec::new("known", key, port), false),
            (PeerSpec::new("unknown", StaticPublic::clone(&key), port), true),
            (PeerSpec::discovered("named", Some(identity(1)), port), false),
            (PeerSpec::discovered("any", None, port), false),
        ];
        let mut lookup = Lookup::default();
        let state = |lookup: &Lookup| {
            let found = lookup.by_identity(&identity(1).to_bytes());
            let has = (lookup.has_peers_without_key(), lookup.has_any());
            (found.map(Mark::index), has, lookup.unknown())
        };
        for (index, (spec, is_unknown)) in (0..).zip(&specs) {
            lookup.add(Mark::new(index, 1), spec, *is_unknown);
        }
        assert_eq!(state(&lookup), (Some(2), (true, true), 1));
        assert_eq!(lookup.by_identity(&identity(2).to_bytes()), None);
        lookup.remove(&specs[3].0, false);
        assert_eq!(state(&lookup), (Some(2), (true, false), 1));
        lookup.remove(&specs[1].0, true);
        lookup.remove(&specs[2].0, false);
        assert_eq!(state(&lookup), (None, (false, false), 0));
    }
}
