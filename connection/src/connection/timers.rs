//! The timers of a connection.

use strowger_crypto::Nanos;
use strowger_crypto::session::Input;
use strowger_wire::connection::ConnectionId;

use super::Connection;
use crate::error::{ConnectError, ConnectStage};
use crate::goodbye::{CloseReason, Goodbye};
use crate::ids::SocketId;
use crate::info::SocketState;
use crate::limits::{IN_USE, RACE_STAGGER, UNPROVEN_TIME};
use crate::shared::Shared;

impl Connection {
    /// Does what is due.
    pub(crate) fn poll(&mut self, now: Nanos, shared: &mut Shared) {
        if self.has_conflict && !self.is_closing() {
            self.reopen_after_conflict(now, shared);
        }
        if self.sealed.as_ref().is_some_and(|sealed| sealed.until <= now) {
            self.forget_sealed(shared);
        }
        while self.waiting.pop_expired(now).is_some() {
            shared.counters.waiting -= 1;
            shared.counters.waited_lost += 1;
            self.report_writable(shared);
        }
        self.poll_connects(now, shared);
        self.poll_use(now, shared);
        if self.session.next_timeout().is_some_and(|due| due <= now) {
            let _ = self.drive(now, Input::Tick, None, shared);
        }
        self.poll_race(now, shared);
        self.sync_paths(now, shared);
        self.run_paths(now, shared);
        if !self.is_closing() {
            self.poll_table(now, shared);
            self.flush(now, shared);
        }
        self.poll_goodbyes(now, shared);
        if !self.is_closing() && self.ends_at(shared).is_some_and(|end| end <= now) {
            self.end(&CloseReason::Idle, shared);
        }
    }

    /// The time at which [`poll`](Self::poll) has work; `None` if there is no such time.
    pub(crate) fn next_timeout(&mut self, now: Nanos, shared: &mut Shared) -> Option<Nanos> {
        self.watch_silence(now, shared);
        let paths = self.paths.next_timeout();
        let mut due: Option<Nanos> = None;
        let mut at = |time: Option<Nanos>| {
            due = match (due, time) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        };
        at(self.session.next_timeout());
        at(self.watch.get());
        at(paths);
        at(self.waiting.next_timeout());
        at(self.goodbyes_due());
        at(self.race.as_ref().map(|race| race.at));
        if !self.is_closing() {
            if self.has_conflict {
                at(Some(now));
            }
            at(self.ends_at(shared));
            if self.can_send(shared) {
                at(self.own.next_timeout());
            }
        }
        let deadlines = self.sockets.iter().filter_map(|id| shared.sockets.get(*id)?.fails_at());
        at(deadlines.min());
        if self.is_wanted && !self.has_demand(shared) {
            at(shared.data.connections.get(self.place as usize).map(|hot| hot.used().plus(IN_USE)));
        }
        due
    }

    /// Sets the time of the next check for a silent peer. The time stays while answers arrive, so
    /// that the data path need not wake the control part for each message.
    fn watch_silence(&mut self, now: Nanos, shared: &mut Shared) {
        self.sync_paths(now, shared);
        let watch = self.watch.get().filter(|at| *at > now).or(self.paths.silence_at());
        self.watch = watch.into();
        if let Some(hot) = shared.data.connections.get_mut(self.place as usize) {
            hot.is_watched = watch.is_some();
        }
    }

    /// The time at which the connection ends if nothing happens; `None` if it does not end.
    fn ends_at(&self, shared: &Shared) -> Option<Nanos> {
        let hot = shared.data.connections.get(self.place as usize)?;
        if !self.is_proven {
            // Sockets that wait for a confirmation end at their own time limits (W6-201), and keys
            // by static key are proof enough for open ones (W6-170).
            let has_socket = self.sockets.iter().any(|id| {
                let fails_at = shared.sockets.get(*id).and_then(|socket| socket.fails_at());
                fails_at.is_some() || self.session.is_up() || self.is_reopening
            });
            let is_asking = self.is_wanted || self.has_demand(shared) || has_socket;
            return (!is_asking).then(|| self.began.max(hot.used()).plus(UNPROVEN_TIME));
        }
        if !self.sockets.is_empty() || !self.waiting.is_empty() {
            return None;
        }
        let ours = shared.config.idle_time_s;
        let idle_s = self.peer_idle_s.filter(|theirs| *theirs > 0).map_or(ours, |t| t.min(ours));
        Some(hot.used().plus(Nanos::from_secs(u64::from(idle_s.max(1)))))
    }

    /// Fails the connects whose time is over.
    fn poll_connects(&mut self, now: Nanos, shared: &mut Shared) {
        let is_late = |id: &SocketId| {
            let fails_at = shared.sockets.get(*id).and_then(|socket| socket.fails_at());
            fails_at.is_some_and(|at| at <= now)
        };
        // This runs while messages are sent: while no connect is late, `collect` allocates nothing.
        let late: Vec<SocketId> = self.sockets.iter().copied().filter(is_late).collect();
        for id in late {
            if shared.sockets.get(id).is_some_and(|s| s.state == SocketState::Open) {
                self.remove_socket(id, shared);
                let reason = CloseReason::NotConfirmed;
                shared.report(crate::event::Event::SocketClosed { socket: id, reason });
                self.end_unconfirmed(shared);
                continue;
            }
            let trouble = self.trouble.as_deref().cloned();
            let error =
                trouble.unwrap_or_else(|| ConnectError::Timeout { stage: self.stage(shared) });
            self.fail_socket(id, error, shared);
        }
    }

    /// Ends an unused connection whose keys the peer has not confirmed, because the peer could open
    /// no message under these keys. The next connect starts a new handshake.
    fn end_unconfirmed(&mut self, shared: &mut Shared) {
        let is_wanted = !self.sockets.is_empty() || !self.waiting.is_empty();
        if !self.is_proven && !is_wanted && !self.is_closing() {
            self.end(&CloseReason::NotConfirmed, shared);
        }
    }

    /// Ends the connection without a goodbye.
    fn end(&mut self, reason: &CloseReason, shared: &mut Shared) {
        self.close_sockets(reason, shared);
        if self.handshakes > 0 {
            let (peer, reason) = (self.peer, reason.clone());
            shared.report(crate::event::Event::PeerClosed { peer, reason });
        }
        self.closing = super::closing::Closing::Ended;
    }

    /// Removes the time limits of open sockets, because the peer has confirmed the keys.
    pub(super) fn end_deadlines(&self, shared: &mut Shared) {
        for id in &self.sockets {
            if let Some(socket) = shared.sockets.get_mut(*id)
                && socket.state == SocketState::Open
            {
                socket.deadline = None;
            }
        }
    }

    /// The stage that connecting has reached.
    fn stage(&self, shared: &Shared) -> ConnectStage {
        if self.session.is_up() && self.can_send(shared) {
            ConnectStage::Protocols
        } else if self.session.is_up() {
            ConnectStage::Path
        } else if self.paths.labels().is_empty() {
            ConnectStage::Lookup
        } else {
            ConnectStage::Handshake
        }
    }

    /// Whether a connect or a message waits for keys.
    fn has_demand(&self, shared: &Shared) -> bool {
        let is_connecting = |id: &crate::ids::SocketId| {
            shared.sockets.get(*id).is_some_and(|s| s.state == SocketState::Connecting)
        };
        !self.waiting.is_empty() || self.sockets.iter().any(is_connecting)
    }

    /// Decides whether the connection needs fresh keys (wire.md W6-132).
    pub(crate) fn poll_use(&mut self, now: Nanos, shared: &mut Shared) {
        let Some(hot) = shared.data.connections.get(self.place as usize) else { return };
        let is_in_use = self.is_proven && now < hot.used().plus(IN_USE);
        let has_label = !self.paths.labels().is_empty();
        let is_wanted = !self.is_closing() && has_label && (self.has_demand(shared) || is_in_use);
        if let Some(hot) = shared.data.connections.get_mut(self.place as usize) {
            hot.is_quiet = !is_wanted;
        }
        if is_wanted == self.is_wanted {
            return;
        }
        self.is_wanted = is_wanted;
        let input = if is_wanted { Input::Wanted } else { Input::Unwanted };
        let _ = self.drive(now, input, None, shared);
    }

    /// Sends the initiation along the next label, if no label has answered (wire.md W6-14).
    fn poll_race(&mut self, now: Nanos, shared: &mut Shared) {
        let Some(race) = &self.race else { return };
        if race.at > now {
            return;
        }
        let index = race.index;
        let is_open = self.session.awaits(index);
        let asked = self.asked.iter_mut().find(|asked| asked.index == index);
        let (Some(asked), true) = (asked, is_open) else {
            self.race = None;
            return;
        };
        let labels = self.paths.labels();
        let next = labels.iter().find(|along| !asked.labels.contains(&along.label)).copied();
        let next = next.filter(|along| asked.labels.try_push(along.label).is_ok());
        let (Some(along), Some(mut race)) = (next, self.race.take()) else { return };
        self.send_initiation(now, &along, &race.message, shared);
        race.at = now.plus(RACE_STAGGER);
        self.race = Some(race);
    }

    /// Handles a protocol number that the peer has announced with two names: drops the keys, the
    /// peer's table and the id. Sockets and waiting messages stay, and start another handshake when
    /// they need keys (wire.md W6-36).
    fn reopen_after_conflict(&mut self, now: Nanos, shared: &mut Shared) {
        self.has_conflict = false;
        shared.counters.table_conflicts += 1;
        self.send_goodbye(now, &Goodbye::default(), None, shared);
        self.drop_all_keys(now, shared);
        self.theirs.reset();
        self.own.forget_acknowledgement();
        self.goodbyes.clear();
        self.closed_names.clear();
        (self.is_proven, self.is_reopening, self.began) = (false, true, now);
        self.id = shared.draw_id().unwrap_or(ConnectionId::UNKNOWN);
        // The next use decides again whether keys are wanted.
        self.is_wanted = false;
        for id in &self.sockets {
            shared.data.sockets[id.index()].number = 0;
            if let Some(socket) = shared.sockets.get_mut(*id) {
                socket.refused_number = 0;
            }
        }
        let (peer, reason) = (self.peer, CloseReason::TableConflict);
        shared.report(crate::event::Event::PeerClosed { peer, reason });
        // The next keys belong to another connection.
        self.handshakes = 0;
        self.state_hello(shared);
        self.publish(shared);
    }
}
