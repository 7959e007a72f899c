//! Changes the states of paths, and chooses the active path.

use strowger_crypto::Nanos;
use strowger_routing::{Outcome, RouteFailure};
use strowger_wire::{connection::item::PathUse, label::AnyLabel, link_header::Lane};

use super::{
    Along, Content, LEARNT, NewLabel, OpenedPacket, PathAction, PathItem, PathSet,
    entry::{Entry, header_bytes},
    length::LengthSearch,
};
use crate::{
    heap::Maybe,
    info::PathState,
    limits::{ASK_ROUTING_AFTER, HOPS_LEFT, LABELS_MAX},
};

impl PathSet {
    pub(super) fn active_entry(&self) -> Option<&Entry> {
        self.active.map(|index| &self.entries[index])
    }

    #[inline]
    pub(super) fn find(&self, label: &AnyLabel) -> Option<usize> {
        // Nearly all packets come by the active label.
        match self.active {
            Some(index) if self.entries[index].along.label == *label => Some(index),
            _ => self.entries.iter().position(|entry| entry.along.label == *label),
        }
    }

    /// Finds or adds the entry of this label, and updates it. `None` if there is no room.
    pub(super) fn entry_for(
        &mut self,
        now: Nanos,
        new: &NewLabel,
        is_chosen: bool,
    ) -> Option<usize> {
        if let Some(index) = self.find(&new.label) {
            let entry = &mut self.entries[index];
            if is_chosen {
                entry.is_chosen = true;
                entry.along.hops_left = new.hops_left;
            }
            return Some(index);
        }
        let is_full = self.entries.len() >= LABELS_MAX;
        if is_full {
            let index = self.least_useful(is_chosen)?;
            self.remove(index);
        }
        let lane = Lane::new(self.next_lane).unwrap_or(Lane::ZERO);
        self.next_lane = (self.next_lane + 1) % self.lanes;
        let along = Along { label: new.label, lane, hops_left: new.hops_left };
        let header = header_bytes(&new.label) as u16;
        let hint = new.packet_bytes_max.map(|bytes| bytes.saturating_sub(header));
        let length = LengthSearch::new(header, self.length_top(&new.label), hint);
        let mut entry = Entry::new(now, along, is_chosen, length);
        if is_full {
            entry.replace_another(now);
        }
        self.entries.reserve_exact(1); // most connections have one label
        self.entries.push(entry);
        Some(self.entries.len() - 1)
    }

    /// The label to remove for a new one (W6-40). A learnt label never replaces a chosen one.
    fn least_useful(&self, for_chosen: bool) -> Option<usize> {
        let others = (0..self.entries.len()).filter(|index| self.active != Some(*index));
        others
            .filter(|index| {
                let entry = &self.entries[*index];
                entry.state == PathState::Abandoned || !entry.is_chosen || for_chosen
            })
            .min_by_key(|index| {
                let entry = &self.entries[*index];
                (entry.state != PathState::Abandoned, entry.is_chosen, entry.order, entry.used)
            })
    }

    fn remove(&mut self, index: usize) {
        self.entries.swap_remove(index);
        if self.active == Some(self.entries.len()) {
            self.active = Some(index);
        }
    }

    pub(super) fn length_top(&self, label: &AnyLabel) -> u16 {
        let of_port = self.port_bytes_max.saturating_sub(header_bytes(label) as u16);
        of_port.min(self.peer_bytes_max)
    }

    pub(super) fn challenge_unless_validated(&mut self, now: Nanos, index: usize) {
        let entry = &mut self.entries[index];
        if entry.state == PathState::Abandoned {
            entry.state = PathState::Validating;
        }
        if entry.state != PathState::Validated {
            entry.begin_challenge(now);
        }
    }

    pub(super) fn note_handshake(&mut self, now: Nanos, rtt: Option<Nanos>) {
        self.handshake_rtt = rtt.or(self.handshake_rtt.get()).into();
        (self.is_gone, self.is_silent, self.due, self.heard) = (false, false, Maybe::NONE, now);
    }

    /// Learns the return label of a packet (W6-173).
    pub(super) fn learn(&mut self, now: Nanos, label: AnyLabel, packet: &OpenedPacket) {
        if !packet.is_newest || packet.content == Content::Response {
            return;
        }
        if !self.learnt.take(now, LEARNT) {
            return;
        }
        let new = NewLabel { label, hops_left: HOPS_LEFT, packet_bytes_max: None };
        let Some(index) = self.entry_for(now, &new, false) else { return };
        let entry = &mut self.entries[index];
        entry.receive(now, packet.bytes);
        entry.peer_lane = Some(packet.lane);
        entry.begin_challenge(now);
        if self.active.is_none() {
            self.activate(now, index);
        }
    }

    /// Marks a label as validated.
    pub(super) fn validated(&mut self, now: Nanos, index: usize) {
        let entry = &mut self.entries[index];
        entry.open();
        let (label, rtt) = (entry.along.label, entry.rtt.smoothed());
        let outcome = Outcome::Validated { rtt: rtt.unwrap_or_default(), mtu: None };
        if entry.is_chosen {
            self.actions.push_back(PathAction::Feedback { label, outcome });
        }
        self.elect(now);
    }

    /// Marks a path as failing and challenges it. Messages go along another validated path, if
    /// there is one.
    pub(super) fn fail(&mut self, now: Nanos, index: usize, why: RouteFailure) {
        let entry = &mut self.entries[index];
        if !matches!(entry.state, PathState::Validated | PathState::Validating) {
            return;
        }
        if entry.state == PathState::Validated {
            entry.state = PathState::Failing;
        }
        entry.begin_challenge(now);
        entry.length.pause();
        self.feedback_failure(index, why);
        self.ask_routing(now);
        self.elect(now);
    }

    fn feedback_failure(&mut self, index: usize, why: RouteFailure) {
        let entry = &self.entries[index];
        if entry.is_chosen {
            let (label, outcome) = (entry.along.label, Outcome::Failed(why));
            self.actions.push_back(PathAction::Feedback { label, outcome });
        }
    }

    fn ask_routing(&mut self, now: Nanos) {
        let is_early = self.asked_routing.get().is_some_and(|at| now.since(at) < ASK_ROUTING_AFTER);
        if !is_early {
            self.asked_routing = Maybe::some(now);
            self.actions.push_back(PathAction::AskRouting);
        }
    }

    /// Handles a challenge all of whose copies are unanswered.
    pub(super) fn unanswered(&mut self, now: Nanos, index: usize) {
        let entry = &mut self.entries[index];
        entry.state = match entry.state {
            // No path answered during the silence. The labels stay for handshakes (W6-186).
            PathState::Validated => PathState::Failing,
            PathState::Failing if self.is_gone => PathState::Failing,
            _ => PathState::Abandoned,
        };
        entry.length.pause();
        self.feedback_failure(index, RouteFailure::Silence);
        self.ask_routing(now);
        self.elect(now);
        let has_validated =
            self.active_entry().is_some_and(|entry| entry.state == PathState::Validated);
        let is_tried = self.active_entry().is_some_and(Entry::is_challenged);
        if !has_validated && !is_tried && !self.is_gone {
            (self.is_gone, self.is_silent, self.due) = (true, false, Maybe::NONE);
            for entry in &mut self.entries {
                if entry.state == PathState::Validated {
                    entry.state = PathState::Failing;
                }
            }
            self.actions.push_back(PathAction::Gone);
        }
    }

    /// Handles a packet of a peer that was gone (W6-186).
    pub(super) fn revive(&mut self, now: Nanos, label: Option<AnyLabel>) {
        self.is_gone = false;
        let came_by = label.and_then(|label| self.find(&label));
        for index in 0..self.entries.len() {
            let entry = &mut self.entries[index];
            if entry.is_open && matches!(entry.state, PathState::Failing | PathState::Abandoned) {
                entry.state = PathState::Failing;
                entry.begin_challenge(now);
            }
        }
        if let Some(index) = came_by.filter(|index| self.entries[*index].is_open) {
            self.activate(now, index);
        }
    }

    /// Makes the best validated path active, if the active one is not validated or is worse.
    pub(super) fn elect(&mut self, now: Nanos) {
        let validated = |index: &usize| self.entries[*index].state == PathState::Validated;
        let rank = |index: usize| self.entries[index].rank();
        let fastest = |index: usize| {
            u64::MAX - self.entries[index].rtt.smoothed().map_or(u64::MAX, |rtt| rtt.0)
        };
        let candidates = (0..self.entries.len()).filter(validated);
        let Some(best) = candidates.max_by_key(|index| (rank(*index), fastest(*index))) else {
            return;
        };
        let is_kept =
            self.active.is_some_and(|active| validated(&active) && rank(active) >= rank(best));
        if !is_kept {
            self.activate(now, best);
        }
    }

    pub(super) fn activate(&mut self, now: Nanos, index: usize) {
        if self.active == Some(index) {
            return;
        }
        if let Some(former) = self.active {
            let lane = self.entries[index].along.lane;
            let former = &mut self.entries[former];
            former.length.pause();
            let state = match former.state {
                PathState::Failing | PathState::Abandoned => PathUse::Abandoned,
                PathState::Validated | PathState::Validating => PathUse::Standby,
            };
            let former = (former.along.lane != lane).then_some((former.along.lane, state));
            self.path_item = Some(PathItem { since: now, copies: 0, former });
        }
        self.active = Some(index);
        let entry = &self.entries[index];
        let (label, rtt) = (entry.along.label, entry.rtt.smoothed());
        self.actions.push_back(PathAction::Changed { label, rtt });
        self.report_length();
    }

    pub(super) fn report_length(&mut self) {
        let Some(entry) = self.active_entry() else { return };
        let packet_bytes_max = entry.length.limit();
        if packet_bytes_max != self.reported_length {
            self.reported_length = packet_bytes_max;
            self.actions.push_back(PathAction::LengthChanged { packet_bytes_max });
        }
    }
}
