//! Whether a peer still answers (RFC 5880): computes when the peer is probed, and when its link
//! goes down.

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
        let heard = tallies.iter().map(|tally| tally.heard_ns.read()).max();
        let frames_out = tallies.iter().map(|tally| tally.frames_out.read()).sum();
        Self { heard_ns: heard.unwrap_or(0), frames_out }
    }
}

/// The liveness of one peer.
#[derive(Debug, Default)]
pub(super) struct PeerLiveness {
    heard_ns: u64,
    frames_out: u64,
    /// The number of probes sent since the last frame arrived.
    probes: u8,
    probed_at: u64,
    /// Whether a frame has arrived since frames were last counted.
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

    /// Skips a check, because the link is not up: frames sent on it need no answer.
    pub(super) fn skip(&mut self, traffic: Traffic) {
        self.frames_out = traffic.frames_out;
    }

    /// Whether the peer is silent although it should answer. The detection time is the interval
    /// times the multiplier (RFC 5880, section 6.8.4).
    pub(super) fn poll(
        &mut self,
        spec: Liveness,
        traffic: Traffic,
        keys_since: Option<Now>,
        now: Now,
    ) -> LivenessStep {
        // A worker may have read the clock before the clock was set back.
        let heard = traffic.heard_ns.min(now.0);
        if heard > self.heard_ns {
            (self.heard_ns, self.probes) = (heard, 0);
            self.is_heard = true;
        }
        if mem::take(&mut self.is_heard) {
            self.frames_out = traffic.frames_out;
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

    /// Whether the peer must answer frames that were sent to it, or a probe.
    fn awaits_answer(&self, spec: Liveness, traffic: Traffic) -> bool {
        spec.always || traffic.frames_out > self.frames_out || self.probes > 0
    }

    /// The time at which the next probe of a silent peer is due, or at which its link goes down.
    /// The first probe is sent after one interval of silence. One further probe is sent in each
    /// remaining interval of the detection time.
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
