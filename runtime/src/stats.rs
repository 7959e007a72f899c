//! Counters of a relay, copied at one moment.

use std::time::Duration;

use strowger_engine::control::{Balance, PortView, SlotView, peering::PeerView};

/// The counters of a relay.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// How long the relay has run.
    pub uptime: Duration,
    /// The sums of all counters, by reason: frames in + frames made = frames out + discards, at rest.
    pub totals: Balance,
    /// Of each port.
    pub ports: Vec<PortStats>,
    /// Of each link and local user, in order of their slots.
    pub links: Vec<LinkStats>,
    /// Frames whose payload was copied.
    pub frames_copied: u64,
    /// How often the slow path has recovered from a panic.
    pub slow_path_restarts: u64,
}

/// The counters of one port.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PortStats {
    /// Its name.
    pub name: String,
    /// Its queues' counters, and the reasons why frames were discarded.
    pub port: PortView,
}

/// The counters and state of one link or local user.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LinkStats {
    /// The slot: name, state, frames and bytes.
    pub slot: SlotView,
    /// The peer's keys and state, for a sealed link.
    pub peer: Option<PeerView>,
}

impl LinkStats {
    /// Whether the link forwards: a sealed one has keys, a plain one is attached.
    pub fn is_up(&self) -> bool {
        match &self.peer {
            Some(peer) => peer.is_up(),
            None => self.slot.state == strowger_engine::control::SlotState::Attached,
        }
    }
}

/// The counters of a relay when it ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// Of each port.
    pub ports: Vec<PortView>,
    /// The ports' names, by number.
    pub names: Vec<(u16, String)>,
    /// The sums of all counters.
    pub totals: Balance,
}
