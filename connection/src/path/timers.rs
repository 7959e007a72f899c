//! The timers of the paths: silences, challenges, items, lengths and pings.

use strowger_crypto::{Entropy, Nanos};
use strowger_wire::connection::PathToken;

use super::{PathAction, PathSet, Ping, entry::Due};
use crate::{
    heap::Maybe,
    info::PathState,
    limits::{LENGTH_IN_USE, ONE_WAY_AFTER, PATH_ITEM_AT, TOKEN_TIME},
};

impl PathSet {
    /// The time at which the silence of the peer makes the active path suspect; `None` if no answer
    /// is due.
    pub(crate) fn silence_at(&self) -> Option<Nanos> {
        if self.is_silent || self.is_gone {
            return None;
        }
        let due = self.due.get()?;
        // Traffic may become one-way during the silence; then the limit is longer.
        let rtt = &self.active_entry()?.rtt;
        let soon = due.plus(rtt.silence(false));
        let is_one_way = soon.since(self.heard) > ONE_WAY_AFTER;
        Some(due.plus(rtt.silence(is_one_way)))
    }

    pub(super) fn poll_silence(&mut self, now: Nanos) {
        if self.silence_at().is_none_or(|at| now < at) {
            return;
        }
        self.is_silent = true;
        for entry in &mut self.entries {
            if entry.state == PathState::Validated {
                entry.begin_challenge(now);
            }
        }
        if let Some(index) = self.active {
            self.entries[index].begin_challenge(now);
        }
    }

    /// Sends copies of challenges. Returns whether something was done.
    pub(super) fn poll_challenges(&mut self, now: Nanos, entropy: &mut dyn Entropy) -> bool {
        for index in 0..self.entries.len() {
            let fallback = self.handshake_rtt.get();
            let entry = &mut self.entries[index];
            match entry.poll_challenge(now, fallback, || draw(entropy)) {
                Due::Nothing => {}
                Due::Copy { token, packet_bytes } => {
                    let along = entry.along;
                    let challenge = PathAction::Challenge { along, token, packet_bytes };
                    self.actions.push_back(challenge);
                    return true;
                }
                Due::Unanswered => {
                    self.unanswered(now, index);
                    return true;
                }
            }
        }
        false
    }

    pub(super) fn poll_path_item(&mut self, now: Nanos) -> bool {
        let Some(active) = self.active().copied() else { return false };
        let Some(item) = self.path_item.as_mut() else { return false };
        if now < item.since.plus(PATH_ITEM_AT[item.copies]) {
            return false;
        }
        let former = item.former;
        item.copies += 1;
        if item.copies >= PATH_ITEM_AT.len() {
            self.path_item = None;
        }
        self.actions.push_back(PathAction::SendPathItem { active: active.lane, former });
        true
    }

    /// Whether messages were sent lately, and whether long ones were.
    fn in_use(&self, now: Nanos) -> (bool, bool) {
        let lately = |at: Option<Nanos>| at.is_some_and(|at| now.since(at) <= LENGTH_IN_USE);
        (lately(self.message_sent.get()), lately(self.long_sent.get()))
    }

    pub(super) fn poll_length(&mut self, now: Nanos, entropy: &mut dyn Entropy) -> bool {
        let (is_used, is_long) = self.in_use(now);
        let Some(index) = self.active.filter(|_| is_used && !self.is_silent && !self.is_gone)
        else {
            return false;
        };
        let entry = &mut self.entries[index];
        let at = entry.length.next_timeout(now, is_long);
        if entry.state != PathState::Validated || at.is_none_or(|at| now < at) {
            return false;
        }
        let Some(token) = draw(entropy) else { return false };
        let probe = entry.length.poll(now, token, is_long);
        if let Some(probe) = probe {
            let (along, packet_bytes) = (entry.along, usize::from(probe.bytes));
            entry.sent = Maybe::some(now);
            let challenge = PathAction::Challenge { along, token: probe.token, packet_bytes };
            self.actions.push_back(challenge);
        }
        self.report_length();
        probe.is_some()
    }

    pub(super) fn length_at(&self) -> Option<Nanos> {
        let entry = self.active_entry()?;
        let sent = self.message_sent.get()?;
        if entry.state != PathState::Validated || self.is_silent || self.is_gone {
            return None;
        }
        let is_long = self.long_sent == Maybe::some(sent);
        let at = entry.length.next_timeout(sent, is_long)?;
        // After this time the path is not in use, and no length is tried until the next message.
        let end = sent.plus(LENGTH_IN_USE);
        (at <= end && self.polled <= end).then_some(at.max(self.polled))
    }

    pub(super) fn poll_pings(&mut self, now: Nanos, entropy: &mut dyn Entropy) -> bool {
        let is_lost = |ping: &Ping| ping.sent.is_some_and(|(_, at)| at.plus(TOKEN_TIME) <= now);
        if let Some(place) = self.pings.iter().position(is_lost) {
            let id = self.pings.swap_remove(place).id;
            self.actions.push_back(PathAction::PingLost { id });
            return true;
        }
        let Some(along) = self.active().copied().filter(|_| self.can_seal) else { return false };
        let Some(ping) = self.pings.iter_mut().find(|ping| ping.sent.is_none()) else {
            return false;
        };
        let Some(token) = draw(entropy) else { return false };
        ping.sent = Some((token, now));
        let packet_bytes = ping.packet_bytes;
        self.actions.push_back(PathAction::Challenge { along, token, packet_bytes });
        true
    }
}

/// A new token; `None` if there are no random bytes now.
fn draw(entropy: &mut dyn Entropy) -> Option<PathToken> {
    let mut token = PathToken([0; 8]);
    entropy.fill(&mut token.0).ok().map(|()| token)
}
