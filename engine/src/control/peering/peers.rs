//! The peers by link and by location. The module also lists the peers whose deadlines may have
//! changed since they were last computed. Code that modifies a peer must get it from
//! [`Peers::get_mut`], so that every changed deadline is computed again.

use std::collections::{BTreeMap, HashMap};

use strowger_crypto::Identity;
use strowger_frame::Mark;

use super::{Location, intake::HandshakeBudgets, lookup::Lookup, peer::Peer};

/// The peers of one switch.
#[derive(Default)]
pub(super) struct Peers {
    by_link: BTreeMap<Mark, Entry>,
    /// For each location, the only peer that the ports admit there.
    by_location: HashMap<Location, Mark>,
    lookup: Lookup,
    touched: Vec<Mark>,
}

struct Entry {
    peer: Peer,
    /// Whether the peer was changed since its deadline was last computed.
    is_touched: bool,
}

/// Other peers that are affected when a peer moves.
pub(super) struct Displaced {
    /// The peer that the ports admitted at the new location.
    pub(super) former: Option<Mark>,
    /// The peer that the ports admit at the old location from now on. The moving peer had displaced
    /// it there earlier.
    pub(super) heir: Option<(Mark, Location)>,
}

impl Peers {
    pub(super) fn get(&self, link: Mark) -> Option<&Peer> {
        self.by_link.get(&link).map(|entry| &entry.peer)
    }

    /// Returns a peer for modification. Its deadline is computed again afterwards.
    pub(super) fn get_mut(&mut self, link: Mark) -> Option<&mut Peer> {
        let entry = self.by_link.get_mut(&link)?;
        if !std::mem::replace(&mut entry.is_touched, true) {
            self.touched.push(link);
        }
        Some(&mut entry.peer)
    }

    /// Returns the budgets of a peer for modification. No deadline depends on them.
    pub(super) fn budgets_mut(&mut self, link: Mark) -> Option<&mut HandshakeBudgets> {
        self.by_link.get_mut(&link).map(|entry| entry.peer.budgets_mut())
    }

    /// Adds a peer at its configured location, if it has one.
    pub(super) fn insert(&mut self, link: Mark, peer: Peer) {
        self.lookup.add(link, peer.spec(), peer.is_unknown());
        let written = peer.reach().written();
        self.by_link.insert(link, Entry { peer, is_touched: true });
        self.touched.push(link);
        self.settle(link, written);
    }

    /// Removes a peer.
    pub(super) fn remove(&mut self, link: Mark) -> Option<Peer> {
        self.settle(link, None);
        let peer = self.by_link.remove(&link)?.peer;
        self.lookup.remove(peer.spec(), peer.is_unknown());
        Some(peer)
    }

    pub(super) fn contains(&self, link: Mark) -> bool {
        self.by_link.contains_key(&link)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Mark, &Peer)> {
        self.by_link.iter().map(|(&link, entry)| (link, &entry.peer))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Peer> {
        self.by_link.values().map(|entry| &entry.peer)
    }

    pub(super) fn links(&self) -> Vec<Mark> {
        self.by_link.keys().copied().collect()
    }

    /// Returns all peers for modification. The caller must compute their deadlines again.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Mark, &mut Peer)> {
        self.by_link.iter_mut().map(|(&link, entry)| (link, &mut entry.peer))
    }

    /// Keeps these peers, removes all others, and rebuilds all tables.
    pub(super) fn retain(&mut self, keeps: impl Fn(Mark) -> bool) {
        self.by_link.retain(|link, _| keeps(*link));
        self.lookup = Lookup::of(self.by_link.iter().map(|(&link, entry)| (link, &entry.peer)));
        let Self { by_link, by_location, .. } = self;
        // Keep the entries of peers that are still attached and still at this location: the ports
        // admit them there.
        by_location.retain(|&at, link| {
            by_link.get(link).is_some_and(|entry| entry.peer.reach().location() == Some(at))
        });
        for (link, entry) in by_link {
            if let Some(at) = entry.peer.reach().location() {
                by_location.entry(at).or_insert(*link);
            }
        }
    }

    /// The links whose peers were changed since the last call of
    /// [`take_touched`](Self::take_touched).
    pub(super) fn touched(&self) -> &[Mark] {
        &self.touched
    }

    /// Clears the list of changed peers, after their deadlines have been computed.
    pub(super) fn take_touched(&mut self) {
        for link in std::mem::take(&mut self.touched) {
            if let Some(entry) = self.by_link.get_mut(&link) {
                entry.is_touched = false;
            }
        }
    }

    /// The peer that is known only by this identity.
    pub(super) fn by_identity(&self, identity: &Identity) -> Option<Mark> {
        self.lookup.by_identity(&identity.to_bytes())
    }

    /// The tables of peers whose keys are not configured.
    pub(super) fn lookup(&self) -> &Lookup {
        &self.lookup
    }

    /// The peer whose address the ports admit at a location.
    pub(super) fn at(&self, location: Location) -> Option<Mark> {
        self.by_location.get(&location).copied()
    }

    /// Moves a peer to a location, or to none. If the ports admit another peer there, they continue
    /// to admit that peer.
    pub(super) fn settle(&mut self, link: Mark, to: Option<Location>) {
        let Some(peer) = self.get_mut(link) else { return };
        let was = peer.reach().location();
        peer.reach_mut().set_location(to);
        if let Some(was) = was
            && self.at(was) == Some(link)
        {
            self.by_location.remove(&was);
        }
        if let Some(to) = to {
            self.by_location.entry(to).or_insert(link);
        }
    }

    /// Moves a peer to a location. From now on, the ports admit this peer there, even if they
    /// admitted another one.
    pub(super) fn take_place(&mut self, link: Mark, to: Location) -> Option<Displaced> {
        let was = self.get(link)?.reach().location().filter(|was| *was != to);
        self.settle(link, Some(to));
        let former = self.by_location.insert(to, link).filter(|other| *other != link);
        let left = was.filter(|was| !self.by_location.contains_key(was));
        let heir = left.and_then(|left| {
            let is_there = |(_, peer): &(Mark, &Peer)| peer.reach().location() == Some(left);
            let (heir, _) = self.iter().find(is_there)?;
            self.by_location.insert(left, heir);
            Some((heir, left))
        });
        Some(Displaced { former, heir })
    }

    /// Whether the ports admit the peer at this location.
    pub(super) fn is_known_at(&self, link: Mark, at: Location) -> bool {
        let is_there = |peer: &Peer| peer.reach().location() == Some(at);
        self.get(link).is_some_and(is_there) && self.at(at) == Some(link)
    }

    /// Whether the peer has proved that it receives at this location, and the ports admit it there.
    pub(super) fn is_validated_at(&self, link: Mark, at: Location) -> bool {
        let is_validated = |peer: &Peer| peer.reach().is_validated();
        self.is_known_at(link, at) && self.get(link).is_some_and(is_validated)
    }
}
