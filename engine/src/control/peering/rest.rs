//! Quiet links: one that no data crosses lets its keys grow old, and costs nothing until there is
//! something to say. It keeps its slot and its address; the first frame that wants to leave by it waits
//! at the worker and begins a handshake here (WireGuard, section 6.1, does so, too).
//!
//! ```text
//!              data, or the peer's handshake
//!        up ◄───────────────────────────────── quiet
//!           ── keys are too old, no data ────►
//!        │                                       │ woken, and nobody answers
//!        │ silent, or no new keys                ▼
//!        └───────────────────────────────────► down ── a handshake ──► up
//! ```

use strowger_crypto::{Nanos, limits, session::Input};
use strowger_frame::Mark;

use super::{
    super::{Event, base::Base, messages::Goodbye},
    DownReason, HEARD_WITHIN_NS, Links, Peer,
    path_mtu::Crossed,
};
use crate::{
    Now,
    command::Command,
    limits::{GOODBYE_RETRY_S_MAX, GOODBYE_RETRY_S_MIN},
    link::SlotTally,
};

/// A link that data has crossed since so long is in use, and its keys are renewed: as long as keys
/// can still be used when new ones are due, so that between two packets that are no farther apart
/// none has to wait for a handshake.
const IN_USE: Nanos = Nanos(limits::SEAL_REFUSED_AFTER.0 - limits::REKEY_AFTER.0);

/// A quiet link that was woken and has no keys after this long is down: some seven attempts have failed
/// (at 30 % loss of handshake messages, once in a hundred times), and a packet that waited longer would
/// be of no use to its sender.
const WAKE_PATIENCE: Nanos = limits::ATTEMPT_LIFE;

/// How a sealed link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkState {
    /// It has keys that the peer has shown to have, too.
    Up,
    /// Nothing has crossed it for a while, so its keys have grown old. The next packet brings it up.
    Quiet,
    /// It has no keys though some are wanted, or its peer is silent.
    #[default]
    Down,
}

impl LinkState {
    /// Whether it is [`Up`](Self::Up).
    pub(super) const fn is_up(self) -> bool {
        matches!(self, Self::Up)
    }

    /// Its name in JSON: lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Quiet => "quiet",
            Self::Down => "down",
        }
    }
}

/// Whether a link is in use.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Frames of data, in and out, as last seen.
    frames: u64,
    /// Frames that met a link without keys, as last seen.
    unsealed: u64,
    /// When any of them was seen.
    seen: Nanos,
    /// Since when keys are wanted and have not come.
    wanted: Option<Nanos>,
}

impl Usage {
    /// Whether data has crossed the link lately.
    pub(super) fn is_lately(&self, now: Now) -> bool {
        Nanos(now.0).since(self.seen) < IN_USE
    }

    /// Whether data crosses the link, for who asks what its path takes.
    pub(super) fn crossed(&self, now: Now) -> Crossed {
        Crossed { frames: self.frames, lately: self.is_lately(now) }
    }

    /// New keys are there.
    pub(super) fn note_keys(&mut self, now: Now) {
        self.wanted = self.wanted.map(|_| Nanos(now.0));
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    fn has_waited(&self, now: Now) -> bool {
        self.wanted.is_some_and(|since| Nanos(now.0).since(since) >= WAKE_PATIENCE)
    }
}

/// Frames of data that have crossed a link.
fn data_frames(tally: &SlotTally) -> u64 {
    let frames = tally.frames_in.read() + tally.frames_out.read();
    frames.saturating_sub(tally.keepalives_in.read() + tally.link_messages_out.read())
}

impl Links {
    /// Looks whether a link is in use: one that is gets new keys in time, one that is not gets none.
    pub(super) fn update_idle(&mut self, mark: Mark, now: Now, base: &mut Base) {
        let Some(attachment) = base.slots.user_of(mark) else { return };
        let frames: u64 = attachment.tallies.iter().map(|tally| data_frames(tally)).sum();
        let unsealed: u64 = attachment.tallies.iter().map(|tally| tally.unsealed.read()).sum();
        let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&mark)) else { return };
        let usage = &mut peer.usage;
        let is_moving = frames > usage.frames;
        // What a link says is counted before it has left, so the difference may fall for a moment.
        usage.frames = usage.frames.max(frames);
        let is_called = unsealed > usage.unsealed;
        usage.unsealed = unsealed;
        if is_moving {
            usage.seen = Nanos(now.0);
        }
        let is_idle = !usage.is_lately(now) && !peer.spec.liveness.always;
        match peer.state {
            _ if is_called => self.wake(mark, now, base),
            LinkState::Up if is_moving => self.want(mark, now, base),
            LinkState::Up if is_idle && usage.wanted.take().is_some() => {
                let _ = self.drive(mark, Input::Unwanted, None, now, base);
            }
            LinkState::Quiet if usage.has_waited(now) => {
                self.set_state(mark, LinkState::Down, now, base)
            }
            _ => (),
        }
    }

    /// Keys are wanted for a link: a handshake begins when one is due. Unknown peers have to come by
    /// themselves, and where a peer has never been nobody can ask for it.
    pub(super) fn want(&mut self, mark: Mark, now: Now, base: &mut Base) {
        let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&mark)) else { return };
        if !peer.is_unknown && peer.is_somewhere() {
            self.seek(mark, now, base);
        }
    }

    /// The same where there may be somebody to ask although nobody has said where the peer is.
    pub(super) fn seek(&mut self, mark: Mark, now: Now, base: &mut Base) {
        let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&mark)) else { return };
        if peer.usage.wanted.is_some() {
            return;
        }
        peer.usage.wanted = Some(Nanos(now.0));
        // `Wanted` carries no message that could be refused.
        let _ = self.drive(mark, Input::Wanted, None, now, base);
    }

    /// The peer on a slot ends the link: it is down, and no handshake begins before the peer wants to be
    /// asked again.
    pub(in crate::control) fn handle_goodbye(
        &mut self,
        goodbye: Goodbye,
        now: Now,
        base: &mut Base,
    ) {
        let Goodbye { slot, retry_after_s } = goodbye;
        let Some(mark) = base.slots.mark_of(slot) else { return };
        if !self.peering.as_ref().is_some_and(|peering| peering.peers.contains_key(&mark)) {
            return; // a plain neighbour has no handshakes
        }
        let rest_s = retry_after_s.clamp(GOODBYE_RETRY_S_MIN, GOODBYE_RETRY_S_MAX);
        let until = Nanos(now.0).plus(Nanos::from_secs(u64::from(rest_s)));
        let _ = self.with_session(
            mark,
            None,
            now,
            |session, _, outputs| {
                session.back_off_until(until, outputs);
                Ok(())
            },
            base,
        );
        self.set_state(mark, LinkState::Down, now, base);
        self.note_reason(mark, DownReason::Goodbye { until: Now(until.0) }, now);
        self.want(mark, now, base);
        let _ = self.drive(mark, Input::Lost, None, now, base);
    }

    /// A frame was to leave by a link that has no keys.
    pub(in crate::control) fn wake(&mut self, mark: Mark, now: Now, base: &mut Base) {
        let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&mark)) else { return };
        peer.usage.seen = Nanos(now.0);
        self.want(mark, now, base);
    }

    /// A link's keys are too old to seal with.
    pub(super) fn take_expiry(&mut self, mark: Mark, now: Now, base: &mut Base) {
        base.out.workers.command_all(|_| Command::Unseal(mark));
        let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&mark)) else { return };
        // Keys that were asked for a moment ago may still come.
        let may_come = !peer.is_unknown && peer.is_somewhere() && !peer.usage.has_waited(now);
        if peer.state == LinkState::Up && may_come {
            return self.set_state(mark, LinkState::Quiet, now, base);
        }
        peer.reach.is_validated = false;
        self.set_state(mark, LinkState::Down, now, base);
        self.give_up(mark, base);
    }

    /// Nothing waits for keys of this link any more.
    pub(super) fn give_up(&mut self, mark: Mark, base: &mut Base) {
        base.out.workers.command_all(|_| Command::DropPending(mark));
    }

    /// An unknown peer that has had no link for the time in which its death is noticed gives its slot back,
    /// be it dead or never heard: it may come again.
    pub(super) fn expire(&mut self, mark: Mark, now: Now, base: &mut Base) {
        let Some(peer) = self.peering.as_ref().and_then(|p| p.peers.get(&mark)) else { return };
        let is_gone = peer.is_unknown
            && peer.state != LinkState::Up
            && peer.has_waited(now)
            && now.0.saturating_sub(peer.down_since.0) >= peer.spec.liveness.detection_ns();
        if let (true, Some(slot)) = (is_gone, base.slots.slot_of(mark)) {
            // Refused only where it is leaving already.
            let _ = base.slots.detach(slot, &mut base.out);
            self.drop_detached(base);
        }
    }

    pub(super) fn set_state(&mut self, mark: Mark, state: LinkState, now: Now, base: &mut Base) {
        let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&mark)) else { return };
        if std::mem::replace(&mut peer.state, state) == state {
            return;
        }
        peer.down_since = now;
        if state.is_up() {
            peer.diagnosis.clear();
        }
        peer.reach.forget_attempts();
        peer.suggested.next = None;
        base.out.workers.command_all(|_| Command::AllowData(mark, state.is_up()));
        if state.is_up() {
            base.out.workers.note_opening(mark);
        } else {
            base.out.workers.cancel_opening(mark);
            self.show_state(mark, state, base);
        }
        if state == LinkState::Down {
            self.give_up(mark, base);
        }
    }

    /// Shows the links that have come up and whose data every worker lets pass now.
    pub(in crate::control) fn show_opened(&mut self, base: &mut Base) {
        while let Some(mark) = base.out.workers.next_opened() {
            self.show_state(mark, LinkState::Up, base);
        }
    }

    fn show_state(&mut self, mark: Mark, state: LinkState, base: &mut Base) {
        let slot = base.slots.slot_of(mark);
        let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&mark)) else { return };
        if std::mem::replace(&mut peer.shown, state) == state {
            return;
        }
        let event = match state {
            LinkState::Up => Event::LinkUp,
            LinkState::Quiet => Event::LinkQuiet,
            LinkState::Down => Event::LinkDown,
        };
        base.out.events.extend(slot.map(event));
    }
}

impl Peer {
    /// When [`Links::update_idle`] has something to do, as long as no frame crosses the link.
    pub(super) fn usage_due(&self) -> Option<Nanos> {
        let Usage { seen, wanted, .. } = self.usage;
        let wanted = wanted?;
        match self.state {
            LinkState::Up if !self.spec.liveness.always => Some(seen.plus(IN_USE)),
            LinkState::Quiet => Some(wanted.plus(WAKE_PATIENCE)),
            _ => None,
        }
    }

    /// When [`Links::expire`] has something to do.
    pub(super) fn expire_due(&self) -> Option<Nanos> {
        let waits = self.is_unknown && self.state != LinkState::Up;
        let for_ns = self.spec.liveness.detection_ns().max(HEARD_WITHIN_NS);
        waits.then(|| Nanos(self.down_since.0).plus(Nanos(for_ns)))
    }
}
