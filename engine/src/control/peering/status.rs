//! The state of one link: the present state and the time of its last change, the reported state,
//! and the reason why the link is down.

use strowger_crypto::{Nanos, handshake::HandshakeError, handshake::Refused};
use strowger_frame::Address;

use super::{
    DownReason, LinkState,
    alternate::WANTED_AFTER_NS,
    context::LinkContext,
    diagnosis::{Diagnosis, Refusals, discard_of},
    nanos,
};
use crate::{Now, command::Command, control::Event, discard::Discard};

/// The state of one link.
pub(super) struct LinkStatus {
    state: LinkState,
    /// The reported state: up only when every worker forwards data.
    shown: LinkState,
    /// The time at which the state last changed.
    since: Now,
    diagnosis: Diagnosis,
    refusals: Refusals,
}

impl LinkStatus {
    /// Makes the state of a link that has been down since `now`.
    pub(super) fn new(now: Now) -> Self {
        Self {
            state: LinkState::Down,
            shown: LinkState::Down,
            since: now,
            diagnosis: Diagnosis::default(),
            refusals: Refusals::default(),
        }
    }

    pub(super) fn state(&self) -> LinkState {
        self.state
    }

    pub(super) fn is_up(&self) -> bool {
        self.state.is_up()
    }

    pub(super) fn is_down(&self) -> bool {
        self.state == LinkState::Down
    }

    /// The reported state.
    pub(super) fn shown(&self) -> LinkState {
        self.shown
    }

    /// The time at which the state last changed.
    pub(super) fn since(&self) -> Now {
        self.since
    }

    /// The time for which the link has been in its present state.
    pub(super) fn age_ns(&self, now: Now) -> u64 {
        now.0.saturating_sub(self.since.0)
    }

    /// Whether the link has been down for the time after which an alternate port is tried.
    pub(super) fn is_silent(&self, now: Now) -> bool {
        self.is_down() && self.age_ns(now) >= WANTED_AFTER_NS
    }

    /// Changes the state, and makes the workers start or stop forwarding data. Returns whether the
    /// state has changed.
    pub(super) fn change(&mut self, state: LinkState, link: &mut LinkContext<'_>) -> bool {
        if std::mem::replace(&mut self.state, state) == state {
            return false;
        }
        let (mark, is_up) = (link.mark, state.is_up());
        self.since = link.now;
        link.command_all(|_| Command::AllowData(mark, is_up));
        if is_up {
            self.diagnosis.clear();
            link.base.out.workers.note_opening(mark);
        } else {
            link.base.out.workers.cancel_opening(mark);
            self.show(state, link);
        }
        true
    }

    /// Reports a state. [`LinkState::Up`] is reported only when every worker forwards data.
    pub(super) fn show(&mut self, state: LinkState, link: &mut LinkContext<'_>) {
        if std::mem::replace(&mut self.shown, state) == state {
            return;
        }
        link.report(match state {
            LinkState::Up => Event::LinkUp,
            LinkState::Idle => Event::LinkIdle,
            LinkState::Down => Event::LinkDown,
        });
    }

    /// Resets the reported state after a recovery. Returns whether the link is up and has not been
    /// reported as up. A state other than up counts as reported, without an event.
    pub(super) fn recover(&mut self) -> bool {
        if !self.is_up() {
            self.shown = self.state;
        }
        self.is_up() && !self.shown.is_up()
    }

    /// Notes that an initiation is sent to this address.
    pub(super) fn note_attempt(&mut self, to: Address, now: Now) {
        self.diagnosis.note_attempt(to, now);
    }

    /// Notes that a response to the peer's initiation is sent.
    pub(super) fn note_answer(&mut self) {
        self.diagnosis.note_answer();
    }

    /// Notes evidence that explains why the link is down.
    pub(super) fn note_reason(&mut self, reason: DownReason, now: Now) {
        self.diagnosis.note(reason, now);
    }

    /// Notes why the session refused a message; returns the drop reason to count.
    pub(super) fn note_refusal(
        &mut self,
        why: HandshakeError,
        link: &mut LinkContext<'_>,
    ) -> Discard {
        let HandshakeError::Peer(why) = why else { return Discard::Unhandled };
        if let Some(reason) = DownReason::of_refusal(why) {
            self.note_reason(reason, link.now);
        }
        if let Refused::OtherIdentity(peer_id) = why
            && let Some(slot) = link.base.slots.slot_of(link.mark)
            && self.refusals.may_report(link.now)
        {
            link.base.out.events.push(Event::PeerRefused(slot, peer_id));
        }
        discard_of(why)
    }

    /// The reason why the link is down, if it is reported as down.
    pub(super) fn reason(&self, has_address: bool, now: Now) -> Option<DownReason> {
        let is_down = self.shown == LinkState::Down;
        is_down.then(|| self.diagnosis.reason(has_address, now))
    }

    /// Reports why the link is down, if the reason is not the one that was reported last.
    pub(super) fn report_trouble(&mut self, has_address: bool, link: &mut LinkContext<'_>) {
        let slot = link.base.slots.slot_of(link.mark).filter(|_| self.is_down());
        if let Some(slot) = slot
            && let Some(reason) = self.diagnosis.news(has_address, link.now)
        {
            link.base.out.events.push(Event::LinkTrouble(slot, reason));
        }
    }

    /// The time at which [`report_trouble`](Self::report_trouble) has work.
    pub(super) fn trouble_due(&self, has_address: bool, now: Now) -> Option<Nanos> {
        let news = self.is_down().then(|| self.diagnosis.news_at(has_address, now));
        news.flatten().map(nanos)
    }
}
