//! When which peer has something to do by the clock. Every part of a peer that waits for a time says for
//! which; the earliest of all is when the slow path looks at the peers again.
//!
//! Two things change a deadline: code that changes a peer ([`Peers::get_mut`](super::peers::Peers::get_mut)
//! notes it), and frames that a worker moves, of which only counters tell. The counters are read at each
//! look. While they move, looks follow each other after a pause; once they rest, the next frame's worker
//! rings ([`Attention`](crate::attention::Attention)).

use strowger_crypto::{Nanos, session::Input};
use strowger_frame::Mark;

use super::{super::base::Base, LinkState, Links, Peer, nanos};
use crate::{Now, limits::LOOK_EVERY_MAX_NS};

/// A session whose deadline has passed again at once is polled no sooner than this: it has nothing to do then.
const SESSION_PAUSE: Nanos = Nanos::from_millis(1);

/// When all peers are looked at.
pub(super) struct Schedule {
    due: Option<Nanos>,
    looked: Nanos,
    /// The least time between two looks.
    pause: Nanos,
    /// Frames of all peers at the last look.
    frames: u64,
    /// The next frame's worker rings.
    watches: bool,
}

impl Default for Schedule {
    /// All peers are looked at once at the next turn.
    fn default() -> Self {
        let (due, pause) = (Some(Nanos::ZERO), Nanos(LOOK_EVERY_MAX_NS));
        Self { due, looked: Nanos::ZERO, pause, frames: 0, watches: false }
    }
}

impl Schedule {
    fn pause_after(mut intervals_ns: impl Iterator<Item = u64>) -> Nanos {
        let shortest = intervals_ns.try_fold(u64::MAX, |least, ns| Some(least.min(ns)));
        Nanos((shortest.unwrap_or(u64::MAX) / 8).clamp(SESSION_PAUSE.0, LOOK_EVERY_MAX_NS))
    }
}

impl Links {
    /// Does what is due by the clock: keys that grow old, peers that are silent.
    pub(in crate::control) fn turn_peering(&mut self, now: Now, base: &mut Base) {
        let Some(peering) = &mut self.peering else { return };
        if std::mem::take(&mut peering.begins_anew) {
            self.ask_all_anew(now, base);
        }
        let due = self.peers_due(base);
        let Some(peering) = &mut self.peering else { return };
        peering.peers.take_touched();
        peering.schedule.due = due;
        if due.is_some_and(|due| due <= nanos(now)) {
            self.look_at_peers(now, base);
        }
    }

    fn look_at_peers(&mut self, now: Now, base: &mut Base) {
        self.end_waning(now, base);
        let links = self.peering.as_ref().map(|peering| peering.peers.links()).unwrap_or_default();
        for mark in links {
            let session_due = self.peering.as_ref().and_then(|p| p.peers.get(&mark)?.session_due());
            if session_due.is_some_and(|due| due <= nanos(now)) {
                let _ = self.drive(mark, Input::Tick, None, now, base);
            }
            self.check_age(mark, now, base);
            self.update_idle(mark, now, base);
            self.turn_path(mark, now, base);
            self.check_liveness(mark, now, base);
            self.seek_validation(mark, now, base);
            self.return_to_written(mark, now, base);
            self.tell_trouble(mark, now, base);
            self.expire(mark, now, base);
        }
        self.schedule_peers(now, base);
    }

    /// All peers have been looked at: when that is due again.
    fn schedule_peers(&mut self, now: Now, base: &mut Base) {
        let frames = self.frames_of_peers(base);
        let Some(peering) = &mut self.peering else { return };
        peering.peers.take_touched();
        let intervals = peering.peers.values().map(|peer| peer.spec.liveness.interval_ns);
        let pause = Schedule::pause_after(intervals);
        let has_keys = peering.peers.values().any(|peer| peer.state != LinkState::Down);
        let mut moves = std::mem::replace(&mut peering.schedule.frames, frames) != frames;
        (peering.schedule.looked, peering.schedule.pause) = (nanos(now), pause);
        let attention = base.out.workers.attention();
        if has_keys && !moves {
            attention.want_frames();
            // A frame that was counted before this is seen by us, and a later one by its worker.
            moves = self.frames_of_peers(base) != frames;
        }
        if moves || !has_keys {
            attention.ignore_frames();
        }
        let watches = has_keys && !moves;
        let Some(peering) = &self.peering else { return };
        let peers =
            peering.peers.iter().filter_map(|(mark, peer)| self.peer_due(*mark, peer, base));
        let again = moves.then(|| nanos(now).plus(pause));
        let due = peers.chain(peering.waning.iter().map(|(until, _)| *until)).chain(again).min();
        let Some(peering) = &mut self.peering else { return };
        (peering.schedule.due, peering.schedule.watches) = (due, watches);
    }

    fn frames_of_peers(&self, base: &Base) -> u64 {
        let Some(peering) = &self.peering else { return 0 };
        let users = peering.peers.iter().filter_map(|(mark, _)| base.slots.user_of(*mark));
        let tallies = users.flat_map(|user| &user.tallies);
        tallies.fold(0, |sum, tally| {
            sum.wrapping_add(tally.frames_in.read()).wrapping_add(tally.frames_out.read())
        })
    }

    /// When peers are to be looked at, as of now.
    pub(in crate::control) fn peers_due(&self, base: &Base) -> Option<Nanos> {
        let peering = self.peering.as_ref()?;
        if peering.begins_anew {
            return Some(Nanos::ZERO);
        }
        let Schedule { due, looked, pause, watches, .. } = peering.schedule;
        let rung =
            (watches && !base.out.workers.attention().wants_frames()).then(|| looked.plus(pause));
        let touched = peering.peers.touched().iter();
        let touched =
            touched.filter_map(|mark| self.peer_due(*mark, peering.peers.get(mark)?, base));
        due.into_iter().chain(rung).chain(touched).min()
    }

    /// When one peer has something to do. What could have been done at the last look is not tried again
    /// before the next one may be.
    fn peer_due(&self, mark: Mark, peer: &Peer, base: &Base) -> Option<Nanos> {
        let Schedule { looked, pause, .. } = self.peering.as_ref()?.schedule;
        let now = base.clock.now();
        let session = peer.session_due().map(|due| due.max(looked.plus(SESSION_PAUSE)));
        let parts = [
            peer.age_due(),
            peer.usage_due(),
            peer.path_due(now),
            self.liveness_due(mark, peer, base),
            peer.validation_due(),
            peer.return_due(),
            peer.trouble_due(now),
            peer.expire_due(),
        ];
        let parts = parts.into_iter().flatten().min().map(|due| due.max(looked.plus(pause)));
        session.into_iter().chain(parts).min()
    }
}

impl Peer {
    fn session_due(&self) -> Option<Nanos> {
        self.session.next_timeout()
    }
}
