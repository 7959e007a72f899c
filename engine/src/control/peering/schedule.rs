//! The schedule of timers: the time at which each peer has work. Every part of a peer that runs a
//! timer has a deadline. The slow path polls the peers again at the earliest of all deadlines.
//!
//! A deadline changes in two cases. Either the slow path modifies a peer, which
//! [`Peers::get_mut`](super::peers::Peers::get_mut) notes, or a worker forwards frames, which only
//! counters show. Each poll of the peers reads the counters. While the counters change, the next
//! poll follows after a pause. When they stop changing, the worker that forwards the next frame
//! wakes the slow path ([`Attention`](crate::attention::Attention)).

use std::mem;

use strowger_crypto::Nanos;
use strowger_frame::Mark;

use super::{LinkState, nanos, peer::Peer, peers::Peers, table::LinkTable};
use crate::{Now, control::base::Base, limits::LOOK_EVERY_MAX_NS};

/// The minimum time between two polls of a session. If the deadline of a session is still in the
/// past after a poll, the session cannot do its work yet.
const SESSION_PAUSE: Nanos = Nanos::from_millis(1);

/// The times at which all peers are polled.
pub(super) struct Schedule {
    due: Option<Nanos>,
    looked: Nanos,
    /// The minimum time between two polls of all peers.
    pause: Nanos,
    /// The number of frames of all peers at the last poll.
    frames: u64,
    /// Whether the worker that forwards the next frame wakes the slow path.
    watches: bool,
    /// Whether a recovery has removed the keys of the sessions, so that new handshakes must begin
    /// in the next poll.
    is_recovering: bool,
}

impl Default for Schedule {
    /// A schedule in which all peers are due in the next poll.
    fn default() -> Self {
        let (due, pause) = (Some(Nanos::ZERO), Nanos(LOOK_EVERY_MAX_NS));
        let (looked, frames, watches, is_recovering) = (Nanos::ZERO, 0, false, false);
        Self { due, looked, pause, frames, watches, is_recovering }
    }
}

impl Schedule {
    /// The schedule after a recovery: the links that were up or needed keys begin new handshakes in
    /// the next poll.
    pub(super) fn recovering() -> Self {
        Self { is_recovering: true, ..Self::default() }
    }

    /// Polls the peers if a deadline has passed. After a recovery, begins handshakes first.
    pub(super) fn poll(&mut self, table: &mut LinkTable, now: Now, base: &mut Base) {
        if mem::take(&mut self.is_recovering) {
            table.request_all_keys(now, base);
        }
        self.due = self.next_timeout(table, base);
        table.peers_mut().take_touched();
        if self.due.is_some_and(|due| due <= nanos(now)) {
            self.look(table, now, base);
        }
    }

    fn look(&mut self, table: &mut LinkTable, now: Now, base: &mut Base) {
        table.shared_mut().sessions.close_retired(now, &mut base.out);
        for mark in table.peers().links() {
            table.poll(mark, now, base);
        }
        table.peers_mut().take_touched();
        let (peers, looked) = (table.peers(), nanos(now));
        (self.looked, self.pause) = (looked, pause_after(peers));
        let frames = frames_of(peers, base);
        let has_keys = peers.values().any(|peer| peer.state() != LinkState::Down);
        let mut moves = mem::replace(&mut self.frames, frames) != frames;
        let attention = base.out.workers.attention();
        if has_keys && !moves {
            attention.want_frames();
            // This comparison detects frames that were counted before it. For a later frame, the
            // worker wakes the slow path.
            moves = frames_of(peers, base) != frames;
        }
        if moves || !has_keys {
            attention.ignore_frames();
        }
        self.watches = has_keys && !moves;
        let due = peers.iter().filter_map(|(mark, peer)| self.peer_due(mark, peer, base));
        let again = moves.then(|| looked.plus(self.pause));
        self.due = due.chain(table.shared().sessions.next_timeout()).chain(again).min();
    }

    /// The time at which [`poll`](Self::poll) has work.
    pub(super) fn next_timeout(&self, table: &LinkTable, base: &Base) -> Option<Nanos> {
        if self.is_recovering {
            return Some(Nanos::ZERO);
        }
        let is_called = self.watches && !base.out.workers.attention().wants_frames();
        let called = is_called.then(|| self.looked.plus(self.pause));
        let peers = table.peers();
        let touched = peers.touched().iter();
        let touched = touched.filter_map(|&mark| self.peer_due(mark, peers.get(mark)?, base));
        self.due.into_iter().chain(called).chain(touched).min()
    }

    /// The time at which one peer has work. If work was already due in the last poll, it is due
    /// again after a pause.
    fn peer_due(&self, mark: Mark, peer: &Peer, base: &Base) -> Option<Nanos> {
        let session = peer.session_due().map(|due| due.max(self.looked.plus(SESSION_PAUSE)));
        let parts = peer.next_timeout(mark, base).map(|due| due.max(self.looked.plus(self.pause)));
        session.into_iter().chain(parts).min()
    }
}

/// The minimum time between two polls of these peers.
fn pause_after(peers: &Peers) -> Nanos {
    let mut intervals = peers.values().map(|peer| peer.spec().liveness.interval_ns);
    let shortest = intervals.try_fold(u64::MAX, |least, ns| Some(least.min(ns)));
    Nanos((shortest.unwrap_or(u64::MAX) / 8).clamp(SESSION_PAUSE.0, LOOK_EVERY_MAX_NS))
}

/// The number of frames of all peers so far.
fn frames_of(peers: &Peers, base: &Base) -> u64 {
    let users = peers.iter().filter_map(|(mark, _)| base.slots.user(mark));
    let tallies = users.flat_map(|user| &user.tallies);
    tallies.fold(0, |sum, tally| {
        sum.wrapping_add(tally.frames_in.read()).wrapping_add(tally.frames_out.read())
    })
}
