//! Quiet links: a link that no data crosses gets no new keys, and sends nothing until there is data again. It
//! keeps its slot and its address. The first frame that wants to leave by it waits at the worker and begins a
//! handshake here, as in WireGuard (section 6.1).
//!
//! ```text
//!              data, or the peer's handshake
//!        up ◄───────────────────────────────── quiet
//!           ── keys are too old, no data ────►
//!        │                                       │ woken, and no answer
//!        │ silent, or no new keys                ▼
//!        └───────────────────────────────────► down ── a handshake ──► up
//! ```

use std::sync::Arc;

use strowger_crypto::{Nanos, limits};

use super::path_mtu::Crossed;
use crate::{Now, link::SlotTally};

/// A link is in use for this long after data crossed it, and gets new keys meanwhile: the time for which keys can
/// still be used when new ones are due. So of two packets that are no farther apart none waits for a handshake.
const IN_USE: Nanos = Nanos(limits::SEAL_REFUSED_AFTER.0 - limits::REKEY_AFTER.0);

/// A quiet link that was woken and has no keys after this long is down. Some seven attempts have failed by then
/// (at 30 % loss of handshake messages, once in a hundred times), and a packet that waits longer is of no use to
/// its sender.
const WAKE_PATIENCE: Nanos = limits::ATTEMPT_LIFE;

/// The state of a sealed link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkState {
    /// It has keys, and the peer has shown that it has them.
    Up,
    /// Nothing has crossed it for a while, and its keys are too old. The next packet brings it up.
    Quiet,
    /// It has no keys although some are wanted, or its peer is silent.
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

/// The step that follows from the use of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UsageStep {
    Nothing,
    /// A frame met the link without keys.
    Wake,
    /// Data crosses the link: keep its keys fresh.
    Want,
    /// No data crosses the link: let its keys grow old.
    Unwant,
    /// No keys came for the link that was woken.
    GiveUp,
}

/// Counters of a link's data.
#[derive(Clone, Copy, Debug)]
pub(super) struct DataFrames {
    /// Frames of data that have crossed the link.
    crossed: u64,
    /// Frames that met the link without keys.
    unsealed: u64,
}

impl DataFrames {
    pub(super) fn of(tallies: &[Arc<SlotTally>]) -> Self {
        let crossed = |tally: &SlotTally| {
            let frames = tally.frames_in.read() + tally.frames_out.read();
            frames.saturating_sub(tally.keepalives_in.read() + tally.link_messages_out.read())
        };
        let unsealed = tallies.iter().map(|tally| tally.unsealed.read());
        Self { crossed: tallies.iter().map(|tally| crossed(tally)).sum(), unsealed: unsealed.sum() }
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
    fn is_lately(&self, now: Now) -> bool {
        Nanos(now.0).since(self.seen) < IN_USE
    }

    /// How much data crosses the link, for path MTU discovery.
    pub(super) fn crossed(&self, now: Now) -> Crossed {
        Crossed { frames: self.frames, lately: self.is_lately(now) }
    }

    /// New keys have come.
    pub(super) fn note_keys(&mut self, now: Now) {
        self.wanted = self.wanted.map(|_| Nanos(now.0));
    }

    /// A frame met the link without keys.
    pub(super) fn note_call(&mut self, now: Now) {
        self.seen = Nanos(now.0);
    }

    /// Keys are wanted from now on. `false` if they were before.
    pub(super) fn want(&mut self, now: Now) -> bool {
        let is_new = self.wanted.is_none();
        self.wanted.get_or_insert(Nanos(now.0));
        is_new
    }

    /// Whether keys are wanted.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// Whether keys have been wanted for longer than a handshake takes.
    pub(super) fn has_waited(&self, now: Now) -> bool {
        self.wanted.is_some_and(|since| Nanos(now.0).since(since) >= WAKE_PATIENCE)
    }

    /// Reads the counters: a link in use gets new keys in time, another one none. `always` keeps the keys of a
    /// link without data fresh.
    pub(super) fn poll(
        &mut self,
        data: DataFrames,
        state: LinkState,
        always: bool,
        now: Now,
    ) -> UsageStep {
        let is_moving = data.crossed > self.frames;
        // Messages of the link are counted before they have left, so the difference may fall for a moment.
        self.frames = self.frames.max(data.crossed);
        let is_called = data.unsealed > self.unsealed;
        self.unsealed = data.unsealed;
        if is_moving {
            self.seen = Nanos(now.0);
        }
        let is_idle = !self.is_lately(now) && !always;
        match state {
            _ if is_called => UsageStep::Wake,
            LinkState::Up if is_moving => UsageStep::Want,
            LinkState::Up if is_idle && self.wanted.take().is_some() => UsageStep::Unwant,
            LinkState::Quiet if self.has_waited(now) => UsageStep::GiveUp,
            _ => UsageStep::Nothing,
        }
    }

    /// When [`poll`](Self::poll) has something to do, as long as no frame crosses the link.
    pub(super) fn next_timeout(&self, state: LinkState, always: bool) -> Option<Nanos> {
        let wanted = self.wanted?;
        match state {
            LinkState::Up if !always => Some(self.seen.plus(IN_USE)),
            LinkState::Quiet => Some(wanted.plus(WAKE_PATIENCE)),
            _ => None,
        }
    }
}
