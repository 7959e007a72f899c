//! Liveness detection (RFC 5880): computes when a silent peer is probed, and when its link goes
//! down.

use std::{mem, sync::Arc};

use strowger_crypto::Nanos;

use super::Liveness;
use crate::{Now, link::SlotTally};

/// The action that follows from a peer's silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LivenessStep {
    Wait,
    /// Send a probe.
    Probe,
    /// The detection time has passed: the link is down.
    Down,
}

/// The time at which the last frame arrived on a link, and the number of frames sent on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traffic {
    heard_ns: u64,
    frames_out: u64,
}

impl Traffic {
    pub(super) fn of(tallies: &[Arc<SlotTally>]) -> Self {
        let latest = tallies.iter().map(|tally| tally.heard_ns.read()).max();
        let frames_out = tallies.iter().map(|tally| tally.frames_out.read()).sum();
        Self { heard_ns: latest.unwrap_or(0), frames_out }
    }
}

/// The liveness of one peer.
#[derive(Debug, Default)]
pub(super) struct PeerLiveness {
    heard_ns: u64,
    /// The number of frames sent that need no answer.
    frames_out: u64,
    /// The number of frames sent until the last check.
    checked: u64,
    /// The number of probes sent since the last frame arrived.
    probes: u8,
    probed_at: u64,
    /// Whether a message of the link has arrived since the last check.
    is_heard: bool,
}

impl PeerLiveness {
    /// Restarts the detection time, after the slow path has recovered from a panic.
    pub(super) fn reset(&mut self) {
        *self = Self { is_heard: true, ..Self::default() };
    }

    /// Notes that a message of the link itself has arrived.
    pub(super) fn note_message(&mut self, now: Now) {
        self.heard_ns = now.0;
        self.probes = 0;
        self.is_heard = true;
    }

    /// Notes new keys: probes with the old keys no longer count.
    pub(super) fn note_keys(&mut self) {
        self.probes = 0;
    }

    /// Skips a check, because the link is not up. The peer need not answer the frames sent so far.
    pub(super) fn skip(&mut self, traffic: Traffic) {
        self.frames_out = traffic.frames_out;
        self.checked = traffic.frames_out;
    }

    /// Returns the action to take if the peer is silent although it should answer. The detection
    /// time is the interval times the multiplier (RFC 5880, section 6.8.4).
    pub(super) fn poll(
        &mut self,
        spec: Liveness,
        traffic: Traffic,
        keys_since: Option<Now>,
        now: Now,
    ) -> LivenessStep {
        // The worker's time may be from before the caller's clock was set back.
        let received = traffic.heard_ns.min(now.0);
        let checked = mem::replace(&mut self.checked, traffic.frames_out);
        if mem::take(&mut self.is_heard) {
            // A response to a probe answers all frames.
            self.frames_out = traffic.frames_out;
        }
        if received > self.heard_ns {
            (self.heard_ns, self.probes) = (received, 0);
            // Frames that were sent since the last check may have been sent after this frame
            // arrived, so they need an answer.
            self.frames_out = checked;
        }
        if !self.awaits_answer(spec, traffic) || now.0 < self.next_probe_ns(spec, keys_since) {
            return LivenessStep::Wait;
        }
        if self.probes >= intervals(spec) {
            return LivenessStep::Down;
        }
        self.probes += 1;
        self.probed_at = now.0;
        LivenessStep::Probe
    }

    /// The time at which [`poll`](Self::poll) has work, provided that the link carries no frame
    /// until then.
    pub(super) fn next_timeout(
        &self,
        spec: Liveness,
        traffic: impl FnOnce() -> Option<Traffic>,
        keys_since: Option<Now>,
    ) -> Option<Nanos> {
        if self.is_heard {
            return Some(Nanos::ZERO);
        }
        let awaits_answer = self.awaits_answer(spec, traffic()?);
        awaits_answer.then(|| Nanos(self.next_probe_ns(spec, keys_since)))
    }

    /// Whether a frame from the peer is expected: frames or a probe were sent to it, or `always` is
    /// set.
    fn awaits_answer(&self, spec: Liveness, traffic: Traffic) -> bool {
        spec.always || traffic.frames_out > self.frames_out || self.probes > 0
    }

    /// The time at which the next probe of a silent peer is due, or at which its link goes down.
    /// The first probe is sent after one interval of silence. Further probes are spread evenly over
    /// the rest of the detection time.
    fn next_probe_ns(&self, spec: Liveness, keys_since: Option<Now>) -> u64 {
        let intervals = u64::from(intervals(spec));
        let (since, pause) = match self.probes {
            0 => (self.heard_ns.max(keys_since.map_or(0, |since| since.0)), spec.interval_ns),
            _ => (self.probed_at, spec.interval_ns / intervals * (intervals - 1)),
        };
        since.saturating_add(pause)
    }
}

/// The number of silent intervals after which a link is down.
fn intervals(spec: Liveness) -> u8 {
    spec.multiplier.max(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const TENTH: u64 = SECOND / 10;

    /// The steps at each tenth of a second, for a peer whose only frame arrived at 1 s.
    /// `frames_out` is the number of frames sent to it until a time.
    fn steps(frames_out: impl Fn(u64) -> u64) -> Vec<LivenessStep> {
        let spec = Liveness { interval_ns: 5 * SECOND, multiplier: 3, always: false };
        let mut liveness = PeerLiveness::default();
        let mut poll = |tenth: u64| {
            let heard_ns = if tenth < 10 { 0 } else { SECOND };
            let traffic = Traffic { heard_ns, frames_out: frames_out(tenth) };
            liveness.poll(spec, traffic, None, Now(tenth * TENTH))
        };
        (0..200).map(&mut poll).collect()
    }

    /// wire.md: W4-108.
    #[test]
    fn a_frame_sent_at_about_the_time_of_the_last_one_received_needs_an_answer() {
        // The check at 1 s finds a frame of the peer and a frame to it. Their order is unknown.
        let steps = steps(|tenth| u64::from(tenth >= 10));
        let at = |step| steps.iter().position(|found| *found == step).expect("a step");
        assert_eq!(at(LivenessStep::Probe), 60);
        assert!((160..=162).contains(&at(LivenessStep::Down)), "{}", at(LivenessStep::Down));
    }

    /// wire.md: W4-108.
    #[test]
    fn a_peer_to_which_nothing_was_sent_since_is_not_probed() {
        let steps = steps(|tenth| u64::from(tenth >= 5));
        assert!(steps.iter().all(|step| *step == LivenessStep::Wait));
    }
}
