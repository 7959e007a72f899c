//! Idle links: a link that carries no data gets no new keys, and sends nothing until it carries
//! data again. It keeps its slot and its address. The worker holds the first frames that are to be
//! sent on an idle link, and they trigger a handshake here, as in WireGuard.
//!
//! ```text
//!              data, or the peer's handshake
//!        up ◄───────────────────────────────── idle
//!           ── keys have expired, no data ───►
//!        │                                       │ woken, and no answer
//!        │ silent, or no new keys                ▼
//!        └───────────────────────────────────► down ── a handshake ──► up
//! ```

use std::sync::Arc;

use strowger_crypto::{Nanos, limits};

use super::path_mtu::Crossed;
use crate::{Now, link::SlotTally};

/// The time for which a link counts as in use after its last data, and gets new keys. It equals the
/// time from the rekey of a key to the end of its use. If the gap between two packets is not longer
/// than this, the second packet does not wait for a handshake.
const IN_USE: Nanos = Nanos(limits::SEAL_REFUSED_AFTER.0 - limits::REKEY_AFTER.0);

/// The time after which a woken idle link without keys is down. By then about seven attempts have
/// failed (at 30 % loss of handshake messages, this happens once in a hundred times). Packets that
/// wait longer are hardly of use to their senders.
const WAKE_PATIENCE: Nanos = limits::ATTEMPT_LIFE;

/// The state of a sealed link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkState {
    /// The link has keys. The peer has proved that it has them, and that it receives at its
    /// address.
    Up,
    /// The link has carried no data for some time, and its keys have expired. The next packet to be
    /// sent begins a handshake.
    Idle,
    /// The link is neither up nor idle: for example, it has no keys although keys are needed, or
    /// its peer is silent.
    #[default]
    Down,
}

impl LinkState {
    /// Whether the state is [`Up`](Self::Up).
    pub(super) const fn is_up(self) -> bool {
        matches!(self, Self::Up)
    }

    /// The name of the state in JSON: lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Idle => "idle",
            Self::Down => "down",
        }
    }
}

/// The action that a link's data, or the lack of it, requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UsageStep {
    Nothing,
    /// A frame was to be sent on the link while the link had no keys: begin a handshake.
    Wake,
    /// The link carries data: renew its keys.
    Want,
    /// The link carries no data: let its keys expire.
    Unwant,
    /// The link was woken and got no keys: it goes down.
    GiveUp,
}

/// Counters of a link's data.
#[derive(Clone, Copy, Debug)]
pub(super) struct DataFrames {
    /// The number of data frames that the link has carried.
    crossed: u64,
    /// The number of frames that found the link without keys.
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
    /// The number of data frames, in and out, as last read.
    frames: u64,
    /// The number of frames that found the link without keys, as last read.
    unsealed: u64,
    /// The time at which either number last increased.
    seen: Nanos,
    /// The time since which keys have been needed; `None` if they are not needed. New keys set
    /// it to the present time.
    wanted: Option<Nanos>,
}

impl Usage {
    /// Whether the link has carried data recently.
    fn is_lately(&self, now: Now) -> bool {
        Nanos(now.0).since(self.seen) < IN_USE
    }

    /// The counters of the link's data, for path MTU discovery.
    pub(super) fn crossed(&self, now: Now) -> Crossed {
        Crossed { frames: self.frames, lately: self.is_lately(now) }
    }

    /// Notes new keys.
    pub(super) fn note_keys(&mut self, now: Now) {
        self.wanted = self.wanted.map(|_| Nanos(now.0));
    }

    /// Notes that a frame found the link without keys.
    pub(super) fn note_call(&mut self, now: Now) {
        self.seen = Nanos(now.0);
    }

    /// Notes that keys are needed from now on. Returns `false` if they were already needed.
    pub(super) fn want(&mut self, now: Now) -> bool {
        let is_new = self.wanted.is_none();
        self.wanted.get_or_insert(Nanos(now.0));
        is_new
    }

    /// Whether keys are needed.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// Whether keys have been needed for longer than a handshake takes.
    pub(super) fn has_waited(&self, now: Now) -> bool {
        self.wanted.is_some_and(|since| Nanos(now.0).since(since) >= WAKE_PATIENCE)
    }

    /// Reads the counters, and decides whether the link gets new keys. A link in use gets them in
    /// time; an idle link gets none. If `always` is set, every link gets them.
    pub(super) fn poll(
        &mut self,
        data: DataFrames,
        state: LinkState,
        always: bool,
        now: Now,
    ) -> UsageStep {
        let is_moving = data.crossed > self.frames;
        // Take the greater value: the link's own messages are counted before they are sent, so the
        // count of data may decrease for a moment.
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
            LinkState::Idle if self.has_waited(now) => UsageStep::GiveUp,
            _ => UsageStep::Nothing,
        }
    }

    /// The time at which [`poll`](Self::poll) has work, provided that the link carries no frame
    /// until then.
    pub(super) fn next_timeout(&self, state: LinkState, always: bool) -> Option<Nanos> {
        let wanted = self.wanted?;
        match state {
            LinkState::Up if !always => Some(self.seen.plus(IN_USE)),
            LinkState::Idle => Some(wanted.plus(WAKE_PATIENCE)),
            _ => None,
        }
    }
}
