//! The peers by link, and which of them may have another deadline than was last computed. Code that changes
//! a peer gets it from [`Peers::get_mut`], so no deadline is missed.

use std::collections::{BTreeMap, btree_map};

use strowger_frame::Mark;

use super::{Peer, intake::Budgets};

/// See the module.
#[derive(Default)]
pub(super) struct Peers {
    by_link: BTreeMap<Mark, Peer>,
    touched: Vec<Mark>,
}

impl Peers {
    pub(super) fn get(&self, link: &Mark) -> Option<&Peer> {
        self.by_link.get(link)
    }

    /// A peer to be changed: its deadline is computed again.
    pub(super) fn get_mut(&mut self, link: &Mark) -> Option<&mut Peer> {
        let peer = self.by_link.get_mut(link)?;
        if !std::mem::replace(&mut peer.is_touched, true) {
            self.touched.push(*link);
        }
        Some(peer)
    }

    /// What may be read for a peer. No deadline depends on it.
    pub(super) fn budgets_mut(&mut self, link: Mark) -> Option<&mut Budgets> {
        self.by_link.get_mut(&link).map(|peer| &mut peer.budgets)
    }

    pub(super) fn insert(&mut self, link: Mark, mut peer: Peer) {
        peer.is_touched = true;
        self.by_link.insert(link, peer);
        self.touched.push(link);
    }

    pub(super) fn remove(&mut self, link: &Mark) -> Option<Peer> {
        self.by_link.remove(link)
    }

    pub(super) fn contains_key(&self, link: &Mark) -> bool {
        self.by_link.contains_key(link)
    }

    pub(super) fn iter(&self) -> btree_map::Iter<'_, Mark, Peer> {
        self.by_link.iter()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Peer> {
        self.by_link.values()
    }

    pub(super) fn links(&self) -> Vec<Mark> {
        self.by_link.keys().copied().collect()
    }

    /// All peers to be changed. The caller sees to their deadlines.
    pub(super) fn iter_mut(&mut self) -> btree_map::IterMut<'_, Mark, Peer> {
        self.by_link.iter_mut()
    }

    pub(super) fn retain(&mut self, keeps: impl Fn(&Mark) -> bool) {
        self.by_link.retain(|link, _| keeps(link));
    }

    /// The links whose peers were changed since [`take_touched`](Self::take_touched) was last called.
    pub(super) fn touched(&self) -> &[Mark] {
        &self.touched
    }

    /// The same, and empties the list.
    pub(super) fn take_touched(&mut self) -> Vec<Mark> {
        let touched = std::mem::take(&mut self.touched);
        for link in &touched {
            if let Some(peer) = self.by_link.get_mut(link) {
                peer.is_touched = false;
            }
        }
        touched
    }
}

impl<'p> IntoIterator for &'p Peers {
    type Item = (&'p Mark, &'p Peer);
    type IntoIter = btree_map::Iter<'p, Mark, Peer>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'p> IntoIterator for &'p mut Peers {
    type Item = (&'p Mark, &'p mut Peer);
    type IntoIter = btree_map::IterMut<'p, Mark, Peer>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}
