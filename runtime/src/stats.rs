//! Copies of the counters of a relay.

use std::time::Duration;

use strowger_engine::control::{Balance, PortView, SlotView, peering::PeerView};

/// The counters of a relay.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// The time since the relay started.
    pub uptime: Duration,
    /// The sums of all counters of frames, with the discards by reason. When no frame is in flight,
    /// frames in + frames made = frames out + discards.
    pub totals: Balance,
    /// The counters of each port.
    pub ports: Vec<PortStats>,
    /// The counters of each link and local user, in the order of their slots.
    pub links: Vec<LinkStats>,
    /// The number of frames whose payload was copied, by workers or by Ethernet ports.
    pub frames_copied: u64,
    /// The number of times the slow path has recovered from a panic.
    pub slow_path_restarts: u64,
}

/// The counters of one port.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PortStats {
    /// The port's name.
    pub name: String,
    /// The counters of the port's queues, and the number of dropped frames by reason.
    pub port: PortView,
}

/// The counters and state of one link or local user.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LinkStats {
    /// The slot: its name and state, and its counters of frames and bytes.
    pub slot: SlotView,
    /// The peer's keys and state; `None` if the slot has no sealed link.
    pub peer: Option<PeerView>,
}

impl LinkStats {
    /// Whether the link forwards. A sealed link forwards when it has keys, and a plain link when it
    /// is attached.
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
    /// The names of the ports, with their numbers.
    pub names: Vec<(u16, String)>,
    /// The sums of all counters.
    pub totals: Balance,
}
