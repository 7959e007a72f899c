//! Counters of a relay: a copy of one moment.

use std::time::Duration;

use strowger_engine::control::{Balance, PortView, SlotView, peering::PeerView};

/// The counters of a relay.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// How long the relay has run.
    pub uptime: Duration,
    /// The sums of all counters, by reason. If no frame is in flight: frames in + frames made = frames out + discards.
    pub totals: Balance,
    /// The counters of each port.
    pub ports: Vec<PortStats>,
    /// The counters of each link and local user, in the order of their slots.
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
    /// The counters of its queues, and the frames discarded by reason.
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

/// The final counters of a relay.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// The counters of each port.
    pub ports: Vec<PortView>,
    /// The names of the ports, by number.
    pub names: Vec<(u16, String)>,
    /// The sums of all counters.
    pub totals: Balance,
}
