//! Sealed links after the slow path has reset: workers go on with the keys they have, and every
//! session makes new ones at once. It never touches a key: those of before are the workers' until
//! they are too old, and no counter of theirs is known here (R5).

use strowger_crypto::{
    Nanos,
    limits::{OPEN_REFUSED_AFTER, SEAL_REFUSED_AFTER},
    session::Input,
};
use strowger_frame::Mark;
use strowger_wire::link_header::SessionIndex;

use super::{
    super::base::Base, LinkState, Links, Peer, PeerLiveness, Peering, Schedule, Suggested,
    lookup::Lookup, nanos,
};
use crate::{Now, command::Command};

impl Peering {
    /// Keeps what is a fact about each peer, and begins the rest anew.
    fn reset(&mut self, is_there: impl Fn(Mark) -> bool, workers: usize, now: Now) {
        self.peers.retain(|mark| is_there(*mark));
        self.lookup = Lookup::of(self.peers.iter());
        self.by_key.clear();
        for (mark, peer) in &mut self.peers {
            peer.key = peer.session.peer().copied();
            if let Some(key) = &peer.key {
                self.by_key.insert(key.0, *mark);
                self.config.local.add_peer(key);
            }
            peer.session.reset();
            peer.challenge = None;
            peer.reach.reset();
            peer.suggested = Suggested::default();
            peer.liveness = PeerLiveness { answered: true, ..PeerLiveness::default() };
            if usize::from(peer.owner) >= workers {
                peer.owner = 0;
            }
        }
        let Self { peers, by_address, .. } = self;
        // Whom the ports know there, if it is there yet.
        by_address
            .retain(|&at, mark| peers.get(mark).is_some_and(|peer| peer.location() == Some(at)));
        for (mark, peer) in &self.peers {
            if let Some(at) = peer.location() {
                self.by_address.entry(at).or_insert(*mark);
            }
        }
        self.waning.clear();
        self.beacons.forget_calls();
        self.indices.reset();
        let indices: Vec<SessionIndex> = self.by_index.keys().copied().collect();
        self.retire_all(&indices, now);
        self.schedule = Schedule::default();
        self.begins_anew = true;
    }

    /// Whether the peer behind a link is known.
    pub(in crate::control) fn has_peer(&self, mark: Mark) -> bool {
        self.peers.contains_key(&mark)
    }

    /// No session knows of these: what comes under them is opened as long as keys may live.
    fn retire_all(&mut self, indices: &[SessionIndex], now: Now) {
        let until = nanos(now).plus(OPEN_REFUSED_AFTER);
        for &index in indices {
            let is_known = self.waning.iter().any(|&(_, other)| other == index)
                || self.peers.values().any(|peer| peer.session.owns(index));
            // A place that is not free is another session's by now, whose keys take this one's.
            if !is_known && self.indices.take_index(index) {
                self.waning.push((until, index));
            }
        }
    }
}

impl Links {
    /// Begins all sessions anew. Handshakes begin with the next turn.
    pub(in crate::control) fn recover(&mut self, now: Now, base: &mut Base) {
        let (slots, workers) = (&base.slots, base.out.workers.len());
        let is_there = |mark: Mark| slots.user_of(mark).is_some();
        let Some(peering) = &mut self.peering else { return };
        peering.reset(is_there, workers, now);
        let states: Vec<_> =
            peering.peers.iter().map(|(&mark, peer)| (mark, peer.state.is_up())).collect();
        let reachable =
            peering.peers.iter().filter_map(|(&mark, peer)| Some((mark, peer.location()?)));
        let (there, displaced): (Vec<_>, Vec<_>) =
            reachable.partition(|&(mark, at)| peering.is_known_at(mark, at));
        for worker in 0..workers {
            // They may have been told where each is, or not.
            for &(mark, _) in &displaced {
                base.out.workers.command(worker, Command::ClearAddress(mark));
            }
            for &(mark, is_up) in &states {
                base.out.workers.command(worker, Command::AllowData(mark, is_up));
            }
        }
        if let Some(peering) = &mut self.peering {
            let is_opening = |peer: &Peer| peer.state.is_up() && !peer.shown.is_up();
            let opening = peering.peers.iter().filter(|(_, peer)| is_opening(peer));
            opening.for_each(|(&mark, _)| base.out.workers.note_opening(mark));
            for (_, peer) in peering.peers.iter_mut().filter(|(_, peer)| !peer.state.is_up()) {
                peer.shown = peer.state;
            }
        }
        for (mark, at) in there {
            self.readdress(mark, at, base);
        }
        self.tell_beacons(base);
    }

    /// Every peer that had a link and whose address is known is asked for new keys, once where we would
    /// wait for it otherwise.
    pub(super) fn ask_all_anew(&mut self, now: Now, base: &mut Base) {
        let Some(peering) = &self.peering else { return };
        let mut all = Vec::new();
        for (&mark, peer) in peering.peers.iter().filter(|(_, peer)| peer.is_somewhere()) {
            let is_wanted = peer.usage.is_wanted();
            if is_wanted || peer.state == LinkState::Up {
                all.push((mark, is_wanted));
            }
        }
        for (mark, is_wanted) in all {
            if is_wanted {
                // `Wanted` carries no message that could be refused.
                let _ = self.drive(mark, Input::Wanted, None, now, base);
            } else {
                self.ask_anew(mark, now, base);
            }
        }
    }

    /// One handshake begins, which renews nothing later.
    pub(super) fn ask_anew(&mut self, mark: Mark, now: Now, base: &mut Base) {
        let is_there = self.peering.as_ref().and_then(|p| p.peers.get(&mark));
        if is_there.is_some_and(|peer| !peer.is_unknown && peer.is_somewhere()) {
            let _ = self.drive(mark, Input::Wanted, None, now, base);
            let _ = self.drive(mark, Input::Unwanted, None, now, base);
        }
    }

    /// What workers say that they have, and no session knows of, ends when it is too old.
    pub(in crate::control) fn retire_unknown(&mut self, sessions: &[SessionIndex], now: Now) {
        if let Some(peering) = &mut self.peering {
            let known = |index: &&SessionIndex| !peering.by_index.contains_key(*index);
            let unknown: Vec<_> = sessions.iter().filter(known).copied().collect();
            peering.retire_all(&unknown, now);
        }
    }

    /// Drops keys that outlived the session that knew them.
    pub(super) fn end_waning(&mut self, now: Now, base: &mut Base) {
        let Some(peering) = &mut self.peering else { return };
        let is_over = |&(until, _): &(Nanos, SessionIndex)| until <= nanos(now);
        let (over, rest): (Vec<_>, Vec<_>) = peering.waning.drain(..).partition(is_over);
        peering.waning = rest;
        for (_, index) in over {
            self.close_session(index, base);
        }
    }

    /// A link whose newest keys are too old to seal with is down, whether or not its session knows
    /// of them.
    pub(super) fn check_age(&mut self, mark: Mark, now: Now, base: &mut Base) {
        let Some(peer) = self.peering.as_ref().and_then(|p| p.peers.get(&mark)) else { return };
        let end =
            peer.keys_since.map_or(Nanos::ZERO, |since| nanos(since).plus(SEAL_REFUSED_AFTER));
        if peer.state == LinkState::Up && !peer.session.is_up() && end <= nanos(now) {
            self.take_expiry(mark, now, base);
        }
    }
}

impl Peer {
    /// When [`Links::check_age`] has something to do.
    pub(super) fn age_due(&self) -> Option<Nanos> {
        let is_unknown = self.state == LinkState::Up && !self.session.is_up();
        let since = self.keys_since.map_or(Nanos::ZERO, nanos);
        is_unknown.then(|| since.plus(SEAL_REFUSED_AFTER))
    }
}
