//! The paths of one connection: their labels, validation, failover and length (wire.md 6.8, *Paths*
//! to *Failover*).
//!
//! ```text
//!             response                     error, silence
//! validating ──────────► validated ───────────────────────► failing
//!      │  three copies       ▲              response           │
//!      ▼  unanswered         └──────────────────────────────── ┤ three copies unanswered
//!  abandoned ◄─────────────────────────────────────────────────┘
//! ```
//!
//! One path is active: messages go along it. Labels from routing, an operator or the program are
//! *chosen*; others are learnt from packets of the peer. A learnt label never displaces a chosen
//! one that works.

mod action;
mod entry;
mod length;
mod rtt;
mod states;
mod sync;
mod timers;

use std::collections::VecDeque;

use arrayvec::ArrayVec;
use strowger_crypto::{Entropy, Nanos};
use strowger_routing::RouteFailure;
use strowger_wire::{
    connection::{PathToken, item::PathUse},
    label::AnyLabel,
    link_header::Lane,
};

pub(crate) use action::{
    Content, Hint, HintEffect, HintKind, NewLabel, OpenedPacket, PathAction, PathRefused,
    PingRefused, TooManyChallenges, Traffic,
};
pub(crate) use entry::Along;
pub(crate) use sync::Noted;

use self::entry::{Entry, header_bytes};
use crate::{
    bucket::{Bucket, BucketRate},
    heap::{Few, Maybe},
    info::{PathInfo, PathState},
    limits::{
        CHALLENGES_AT_ONCE, CHALLENGES_HANDLED, HINT_TIME, HINTS, HOPS_LEFT, LABELS_LEARNT,
        LABELS_MAX, LENGTH_MIN, LENGTH_START_WITH_HEADER, PATH_ITEM_AT, PINGS_MAX,
        RACED_LABELS_MAX, SHORT_CHALLENGE_BYTES, TOKEN_TIME,
    },
};

const CHALLENGES: BucketRate =
    BucketRate { per_second: CHALLENGES_HANDLED, at_once: CHALLENGES_AT_ONCE };
const LEARNT: BucketRate = BucketRate { per_second: LABELS_LEARNT, at_once: LABELS_LEARNT };
const HINT: BucketRate = BucketRate { per_second: HINTS, at_once: HINTS };

/// The paths of one connection.
#[derive(Debug)]
pub(crate) struct PathSet {
    entries: Vec<Entry>,
    /// The index of the active entry.
    active: Option<usize>,
    /// The length limit of the active path, as last reported to the endpoint.
    reported_length: u16,
    /// The number of lanes on which this end seals.
    lanes: u8,
    next_lane: u8,
    /// Bytes of the longest packet of this end's port, with the switch header.
    port_bytes_max: u16,
    /// Bytes of the longest connection packet that the peer accepts.
    peer_bytes_max: u16,
    can_seal: bool,
    is_gone: bool,
    handshake_rtt: Maybe,
    /// The greatest [`Entry::order`].
    order: u32,
    /// The time at which this end sent the first message or item after the last opened packet; none
    /// if no answer is due.
    due: Maybe,
    /// Whether the validated paths are challenged because the peer is silent.
    is_silent: bool,
    /// The time at which a message or an item was last opened; at the start, the time at which the
    /// set was made.
    heard: Nanos,
    /// The times at which a message and a long message were last sent.
    message_sent: Maybe,
    long_sent: Maybe,
    challenges: Bucket,
    learnt: Bucket,
    hints: Bucket,
    asked_routing: Maybe,
    /// The time of the last poll.
    polled: Nanos,
    path_item: Option<PathItem>,
    pings: Few<Ping>,
    actions: VecDeque<PathAction>,
}

/// A `path` item, which is sent three times.
#[derive(Clone, Copy, Debug)]
struct PathItem {
    since: Nanos,
    copies: usize,
    former: Option<(Lane, PathUse)>,
}

/// A challenge that a program asked for.
#[derive(Clone, Copy, Debug)]
struct Ping {
    id: u64,
    packet_bytes: usize,
    sent: Option<(PathToken, Nanos)>,
}

impl PathSet {
    /// Makes an empty set. `port_bytes_max`: the longest packet of the port, with its switch
    /// header.
    pub(crate) fn new(now: Nanos, port_bytes_max: u16, lanes: u8) -> PathSet {
        PathSet {
            entries: Vec::new(),
            active: None,
            reported_length: 0,
            lanes: lanes.max(1),
            next_lane: 0,
            port_bytes_max,
            peer_bytes_max: u16::MAX,
            can_seal: false,
            is_gone: false,
            handshake_rtt: Maybe::NONE,
            order: 0,
            due: Maybe::NONE,
            is_silent: false,
            heard: now,
            message_sent: Maybe::NONE,
            long_sent: Maybe::NONE,
            challenges: Bucket::FULL,
            learnt: Bucket::FULL,
            hints: Bucket::FULL,
            asked_routing: Maybe::NONE,
            polled: now,
            path_item: None,
            pings: Few::new(),
            actions: VecDeque::new(),
        }
    }

    // Labels.

    /// Adds a chosen label. It is challenged when there are keys, and becomes a standby path when
    /// it is validated.
    pub(crate) fn add(&mut self, now: Nanos, new: &NewLabel) {
        let Some(index) = self.entry_for(now, new, true) else { return };
        self.challenge_unless_validated(now, index);
        // A learnt label may have become a chosen one.
        self.elect(now);
    }

    /// Adds a label that becomes active as soon as it is validated (W6-178): an operator, a program
    /// or routing prefers it.
    pub(crate) fn prefer(&mut self, now: Nanos, new: &NewLabel) {
        let Some(index) = self.entry_for(now, new, true) else { return };
        self.order += 1;
        self.entries[index].order = self.order;
        self.challenge_unless_validated(now, index);
        self.elect(now);
    }

    /// The labels along which an initiation goes, best first (W6-14).
    pub(crate) fn labels(&self) -> ArrayVec<Along, RACED_LABELS_MAX> {
        let mut order: ArrayVec<usize, LABELS_MAX> = (0..self.entries.len()).collect();
        order.sort_by_key(|index| {
            let entry = &self.entries[*index];
            let by_state = match entry.state {
                PathState::Validated => 0,
                PathState::Validating => 1,
                PathState::Failing => 2,
                PathState::Abandoned => 3,
            };
            let (is_chosen, preference) = entry.rank();
            let is_active = self.active == Some(*index);
            (by_state, !is_active, !is_chosen, u32::MAX - preference)
        });
        order.into_iter().take(RACED_LABELS_MAX).map(|index| self.entries[index].along).collect()
    }

    /// Notes that a finished handshake has validated a label (W6-135, W6-137).
    pub(crate) fn handshake_done(
        &mut self,
        now: Nanos,
        label: AnyLabel,
        is_chosen: bool,
        rtt: Option<Nanos>,
    ) {
        self.note_handshake(now, rtt);
        let new = NewLabel { label, hops_left: HOPS_LEFT, packet_bytes_max: None };
        let known = self.find(&label);
        let Some(index) = known.or_else(|| self.entry_for(now, &new, is_chosen)) else { return };
        let entry = &mut self.entries[index];
        entry.is_chosen |= is_chosen;
        if let Some(rtt) = rtt {
            entry.rtt.measure(rtt);
        }
        self.validated(now, index);
    }

    /// Notes a finished handshake whose initiation went along several labels, none of which is the
    /// response's return label `from`. `bytes` came by `from` (W6-135).
    pub(crate) fn handshake_unclear(
        &mut self,
        now: Nanos,
        from: AnyLabel,
        bytes: usize,
        rtt: Option<Nanos>,
    ) {
        self.note_handshake(now, rtt);
        for index in 0..self.entries.len() {
            let is_chosen = self.entries[index].is_chosen;
            if is_chosen {
                self.challenge_unless_validated(now, index);
            }
        }
        let new = NewLabel { label: from, hops_left: HOPS_LEFT, packet_bytes_max: None };
        let known = self.find(&from);
        let Some(index) = known.or_else(|| self.entry_for(now, &new, false)) else { return };
        self.entries[index].receive(now, bytes);
        self.challenge_unless_validated(now, index);
        let has_validated =
            self.active_entry().is_some_and(|entry| entry.state == PathState::Validated);
        if !has_validated {
            self.activate(now, index);
        }
    }

    /// Notes the keys of a handshake that this end answered along several return labels (W6-137).
    /// The first packet under them came by `from` and has `bytes` bytes. All labels are challenged.
    pub(crate) fn answered_along(
        &mut self,
        now: Nanos,
        labels: &[AnyLabel],
        from: AnyLabel,
        bytes: usize,
    ) {
        for label in labels {
            let new = NewLabel { label: *label, hops_left: HOPS_LEFT, packet_bytes_max: None };
            if let Some(index) = self.entry_for(now, &new, false) {
                self.challenge_unless_validated(now, index);
            }
        }
        self.handshake_unclear(now, from, bytes, None);
    }

    /// Handles a restart of the peer (W6-140): only the label of the handshake, which the caller
    /// passes to [`handshake_done`](PathSet::handshake_done), stays validated.
    pub(crate) fn restart(&mut self, now: Nanos, label: AnyLabel) {
        for index in 0..self.entries.len() {
            if self.entries[index].along.label != label {
                self.entries[index].close();
                self.entries[index].begin_challenge(now);
            }
        }
        self.elect(now);
    }

    /// Sets the length of the longest packet, which the peer's hello states (W6-181).
    pub(crate) fn set_peer_mtu(&mut self, packet_bytes_max: u16) {
        self.peer_bytes_max = packet_bytes_max;
        for index in 0..self.entries.len() {
            let top = self.length_top(&self.entries[index].along.label);
            self.entries[index].length.set_top(top);
        }
        self.report_length();
    }

    /// Sets whether this end has keys that seal. Without keys it sends no challenges and ignores
    /// silence.
    pub(crate) fn set_can_seal(&mut self, can_seal: bool) {
        self.can_seal = can_seal;
        if !can_seal {
            (self.due, self.is_silent) = (Maybe::NONE, false);
        }
    }

    // Packets that came.

    /// Handles an opened packet.
    #[inline]
    pub(crate) fn note_opened(&mut self, now: Nanos, packet: &OpenedPacket) {
        if packet.content == Content::Message {
            self.heard = now;
        }
        // A challenge does not show that the peer receives packets of this end (W6-203).
        match (packet.content, self.is_gone) {
            (Content::Challenge, true) => self.challenge_active(now),
            (Content::Challenge, false) => {}
            (_, is_gone) => {
                self.due = Maybe::NONE;
                if is_gone {
                    self.revive(now, packet.label);
                }
            }
        }
        let Some(label) = packet.label else { return };
        match self.find(&label) {
            Some(index) => {
                let entry = &mut self.entries[index];
                entry.receive(now, packet.bytes);
                if packet.is_newest {
                    entry.peer_lane = Some(packet.lane);
                    let teaches = packet.content != Content::Response;
                    if teaches
                        && entry.state == PathState::Abandoned
                        && self.learnt.take(now, LEARNT)
                    {
                        self.challenge_unless_validated(now, index);
                    }
                }
            }
            None => self.learn(now, label, packet),
        }
    }

    /// Handles an opened path challenge: the token to send back, if its body has one (W6-175).
    ///
    /// # Errors
    /// [`TooManyChallenges`].
    pub(crate) fn handle_challenge(
        &mut self,
        now: Nanos,
        body: &[u8],
    ) -> Result<Option<PathToken>, TooManyChallenges> {
        if !self.challenges.take(now, CHALLENGES) {
            return Err(TooManyChallenges);
        }
        Ok(PathToken::of_challenge(body))
    }

    /// Handles an opened path response.
    ///
    /// # Errors
    /// [`TooManyChallenges`].
    pub(crate) fn handle_response(
        &mut self,
        now: Nanos,
        body: &[u8],
    ) -> Result<(), TooManyChallenges> {
        if !self.challenges.take(now, CHALLENGES) {
            return Err(TooManyChallenges);
        }
        let Some(token) = PathToken::of_response(body) else { return Ok(()) };
        for index in 0..self.entries.len() {
            if self.entries[index].handle_response(now, token) {
                if self.is_silent {
                    // The first path that answers becomes or stays active (W6-45).
                    self.is_silent = false;
                    self.order += 1;
                    self.entries[index].order = self.order;
                }
                self.validated(now, index);
                return Ok(());
            }
            if self.entries[index].length.handle_response(now, token) {
                self.report_length();
                return Ok(());
            }
        }
        let is_answered = |ping: &Ping| ping.sent.is_some_and(|(sent, _)| sent == token);
        if let Some(place) = self.pings.iter().position(is_answered) {
            let ping = self.pings.swap_remove(place);
            if let Some((_, at)) = ping.sent {
                self.actions.push_back(PathAction::Pong { id: ping.id, rtt: now.since(at) });
            }
        }
        Ok(())
    }

    /// Handles an error or notice about a packet with a flow of this connection. It is not
    /// authenticated, so it abandons no path.
    pub(crate) fn handle_hint(&mut self, now: Nanos, hint: &Hint) -> HintEffect {
        let is_about = |entry: &Entry| {
            entry.sent.get().is_some_and(|sent| now.since(sent) <= HINT_TIME)
                && hint.is_about(&entry.along.label)
        };
        let Some(index) = self.entries.iter().position(is_about) else {
            return HintEffect::Unsolicited;
        };
        if !self.hints.take(now, HINT) {
            return HintEffect::OverBudget;
        }
        let label = self.entries[index].along.label;
        match hint.kind {
            HintKind::TooBig { packet_bytes_max } => {
                let header = header_bytes(&label) as u16;
                let bytes_max = packet_bytes_max.saturating_sub(header);
                self.entries[index].length.too_big(now, bytes_max);
                self.report_length();
            }
            HintKind::Congestion | HintKind::SlotMoved => {}
            HintKind::Dropped(reason) => self.fail(now, index, RouteFailure::Error(reason)),
        }
        HintEffect::About(label)
    }

    /// Handles the item `path` of a packet that came on `packet_lane` by the return label `label`
    /// (W6-180).
    pub(crate) fn handle_path_item(
        &mut self,
        now: Nanos,
        packet_lane: Lane,
        label: Option<AnyLabel>,
        lane: Lane,
        state: PathUse,
    ) {
        match state {
            PathUse::Active if lane == packet_lane => {
                let Some(index) = label.and_then(|label| self.find(&label)) else { return };
                if self.entries[index].is_chosen {
                    return;
                }
                self.order += 1;
                self.entries[index].order = self.order;
                self.challenge_unless_validated(now, index);
                self.elect(now);
            }
            PathUse::Abandoned if lane != packet_lane => {
                for index in 0..self.entries.len() {
                    let entry = &self.entries[index];
                    let is_of_lane = !entry.is_chosen && entry.peer_lane == Some(lane);
                    if is_of_lane && Some(entry.along.label) != label {
                        self.fail(now, index, RouteFailure::Silence);
                    }
                }
            }
            PathUse::Active | PathUse::Standby | PathUse::Abandoned => {}
        }
    }

    // Packets to send.

    /// The active path for a connection packet of `packet_bytes` bytes, header and tag included.
    /// Counts the packet as sent.
    ///
    /// # Errors
    /// [`PathRefused`]; nothing is changed.
    #[inline]
    pub(crate) fn take(
        &mut self,
        now: Nanos,
        packet_bytes: usize,
        traffic: Traffic,
    ) -> Result<&Along, PathRefused> {
        let index = self.active.filter(|_| !self.is_gone).ok_or(PathRefused::NoPath)?;
        let entry = &mut self.entries[index];
        let packet_bytes_max = entry.length.limit();
        if packet_bytes > usize::from(packet_bytes_max) {
            return Err(PathRefused::TooLong { packet_bytes_max });
        }
        let header = header_bytes(&entry.along.label);
        if !entry.take(now, header + packet_bytes) {
            return Err(PathRefused::NoCredit);
        }
        if traffic != Traffic::Unanswered {
            self.due = Maybe::some(self.due.get().unwrap_or(now));
        }
        if traffic == Traffic::Message {
            self.message_sent = Maybe::some(now);
            if header + packet_bytes >= usize::from(LENGTH_START_WITH_HEADER) {
                self.long_sent = Maybe::some(now);
            }
        }
        Ok(&self.entries[index].along)
    }

    /// The paths for the response to an opened challenge of `cause_bytes` bytes (W6-175): the
    /// challenge's return label, if it is validated or if its byte credit covers the response
    /// (W6-42); and the active path, if the return label is not validated. A relay may send a copy
    /// of a challenge, with another return path, ahead of the challenge itself. Then the challenge
    /// is a replay, and the response must arrive nevertheless. Lengths include the switch header.
    pub(crate) fn take_answer(
        &mut self,
        now: Nanos,
        label: AnyLabel,
        cause_bytes: usize,
        bytes: usize,
    ) -> ArrayVec<Along, 2> {
        let mut paths = ArrayVec::new();
        let (mut is_open, lane) =
            (false, self.active_entry().map_or(Lane::ZERO, |entry| entry.along.lane));
        match self.find(&label) {
            Some(index) => {
                let entry = &mut self.entries[index];
                is_open = entry.is_open;
                if entry.take(now, bytes) {
                    paths.push(entry.along);
                }
            }
            None if bytes <= cause_bytes => {
                paths.push(Along { label, lane, hops_left: HOPS_LEFT });
            }
            None => {}
        }
        if !is_open && let Some(active) = self.active_entry().filter(|entry| entry.is_open) {
            paths.push(active.along);
        }
        paths
    }

    /// Starts a challenge along the active path. The caller does this with each initiation while
    /// the peer is gone (W6-186).
    pub(crate) fn challenge_active(&mut self, now: Nanos) {
        if let Some(index) = self.active {
            self.entries[index].begin_challenge(now);
        }
    }

    /// Sends a challenge with padding along the active path. It may be longer than what is known to
    /// arrive: so a program can test a length without messages.
    ///
    /// # Errors
    /// [`PingRefused`].
    pub(crate) fn ping(&mut self, id: u64, padding: usize) -> Result<(), PingRefused> {
        let entry = self.active_entry().filter(|entry| entry.is_open && !self.is_gone);
        let entry = entry.ok_or(PingRefused::NoPath)?;
        let packet_bytes = SHORT_CHALLENGE_BYTES.saturating_add(padding);
        if packet_bytes > usize::from(entry.length.top()) {
            return Err(PingRefused::TooLong);
        }
        if self.pings.len() >= PINGS_MAX {
            return Err(PingRefused::TooMany);
        }
        self.pings.push(Ping { id, packet_bytes, sent: None });
        Ok(())
    }

    // Time.

    /// The next action. The caller repeats this until it returns `None`, after each other call and
    /// at [`next_timeout`](PathSet::next_timeout).
    pub(crate) fn poll(&mut self, now: Nanos, entropy: &mut dyn Entropy) -> Option<PathAction> {
        self.polled = now;
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            if self.poll_pings(now, entropy) {
                continue;
            }
            if !self.can_seal {
                return None;
            }
            self.poll_silence(now);
            let is_done = !self.poll_challenges(now, entropy)
                && !self.poll_path_item(now)
                && !self.poll_length(now, entropy);
            if is_done && self.actions.is_empty() {
                return None;
            }
        }
    }

    /// The time at which [`poll`](PathSet::poll) has something to do: `Nanos::ZERO` if it has now,
    /// `None` if it has nothing to do.
    pub(crate) fn next_timeout(&self) -> Option<Nanos> {
        if !self.actions.is_empty() {
            return Some(Nanos::ZERO);
        }
        let can_ping = self.can_seal && self.active.is_some();
        let pings = self.pings.iter().filter_map(|ping| match ping.sent {
            Some((_, at)) => Some(at.plus(TOKEN_TIME)),
            None => can_ping.then_some(Nanos::ZERO),
        });
        let pings = pings.min();
        if !self.can_seal {
            return pings;
        }
        let challenges = self.entries.iter().filter_map(Entry::challenge_timeout).min();
        let item = self.path_item.map(|item| item.since.plus(PATH_ITEM_AT[item.copies]));
        [pings, challenges, item, self.silence_at(), self.length_at()].into_iter().flatten().min()
    }

    // Queries.

    /// The active path.
    pub(crate) fn active(&self) -> Option<&Along> {
        self.active_entry().map(|entry| &entry.along)
    }

    /// Whether messages may be sent: there is an active path and the peer is not gone.
    pub(crate) fn is_usable(&self) -> bool {
        self.active.is_some() && !self.is_gone
    }

    /// Whether pass-through messages may be sent (W6-161): the active path is validated, and the
    /// peer is not gone.
    #[inline]
    pub(crate) fn is_validated(&self) -> bool {
        self.active_entry().is_some_and(|entry| entry.state == PathState::Validated)
            && !self.is_gone
    }

    /// Whether no path answers (W6-186).
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Bytes of the longest connection packet along the active path; without one, the limit that
    /// every path has at least.
    pub(crate) fn packet_bytes_max(&self) -> u16 {
        self.active_entry().map_or(LENGTH_MIN, |entry| entry.length.limit())
    }

    /// The smoothed round trip of the active path; without one, that of the handshake.
    #[cfg(test)]
    pub(crate) fn rtt(&self) -> Option<Nanos> {
        self.active_entry().and_then(|entry| entry.rtt.smoothed()).or(self.handshake_rtt.get())
    }

    /// All labels, the active one first.
    pub(crate) fn info(&self) -> Vec<PathInfo> {
        let mut all: Vec<PathInfo> = Vec::with_capacity(self.entries.len());
        for (index, entry) in self.entries.iter().enumerate() {
            let is_active = self.active == Some(index);
            let header = header_bytes(&entry.along.label) as u16;
            let info = PathInfo {
                label: entry.along.label,
                state: entry.state,
                is_active,
                rtt: entry.rtt.smoothed(),
                mtu: entry.length.limit() + header,
                mtu_max: entry.length.top() + header,
            };
            all.insert(if is_active { 0 } else { all.len() }, info);
        }
        all
    }

    /// Bytes of memory behind the paths.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.actions.capacity() * size_of::<PathAction>()
            + self.pings.memory_bytes()
    }
}

#[cfg(test)]
mod tests;
