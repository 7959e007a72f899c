//! Views of a switch: copies of its state and counters, for display and for other programs.

use core::time::Duration;
use std::collections::HashMap;

use strowger_frame::{
    Loss, Mark,
    port::{Address, KernelDrop, PortTally},
};
use strowger_wire::Slot;

use super::{
    PortId,
    attachments::{Attachment, Attachments},
    messages::AnnouncementView,
    slot_allocator::{Numbers, Standing},
};
use crate::{
    Now,
    discard::{Discard, DiscardTally},
    link::Behind,
};

/// The state of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotState {
    /// The number is allocated, but is not in every worker's table yet.
    Coming,
    /// Every worker forwards frames to the slot, or will soon.
    Attached,
    /// The slot's user is being detached.
    Leaving,
    /// Every worker forwards frames to the slot, but no new label should name it.
    Draining,
    /// A former number that still leads to its user.
    Retiring,
    /// Detached; the number is in quarantine before it is allocated again.
    Quarantined,
    /// Kept for the user that had it before the restart.
    Kept,
}

impl SlotState {
    /// The name of the state in JSON: lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Coming => "coming",
            Self::Attached => "attached",
            Self::Leaving => "leaving",
            Self::Draining => "draining",
            Self::Retiring => "retiring",
            Self::Quarantined => "quarantined",
            Self::Kept => "kept",
        }
    }
}

/// One slot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SlotView {
    /// The slot number.
    pub slot: Slot,
    /// The state of the slot.
    pub state: SlotState,
    /// The switch's count of allocations when it allocated this number. The count includes
    /// allocations before restarts, so each use of a number has a different generation.
    pub generation: u64,
    /// The name of the slot's user; empty if there is none.
    pub name: String,
    /// The port through which the slot's user is reached; `None` if the slot has no user.
    pub port: Option<PortId>,
    /// The user's address on this port; `None` if there is no user, or if its address is unknown.
    pub at: Option<Address>,
    /// The kind of user: another switch, or an endpoint; `None` if there is no user.
    pub behind: Option<Behind>,
    /// Frames that arrived on the slot.
    pub frames_in: u64,
    /// The bytes of these frames.
    pub bytes_in: u64,
    /// Frames that were sent on the slot.
    pub frames_out: u64,
    /// The bytes of these frames.
    pub bytes_out: u64,
    /// Frames that arrived on the slot and were dropped, and frames that were dropped at its egress
    /// queue.
    pub discards: u64,
    /// Frames that arrived on the slot and carry a former number of the slot in their return paths.
    pub by_former: u64,
    /// The time at which the last frame arrived on the slot; `None` if none has arrived from its
    /// user.
    pub last_received: Option<Now>,
    /// The time until the state ends, if that is known. It can be known of a slot that waits until
    /// its number is free, drains, retires, is in quarantine or is kept.
    pub left: Option<Duration>,
    /// Whether the number belongs to an unknown peer, or last belonged to one.
    pub is_unknown: bool,
    /// The identities that the slot's user has announced.
    pub announcements: Vec<AnnouncementView>,
}

/// One queue of a port: its queue at one worker, or its handshake socket.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueueView {
    /// The worker that owns the queue; `None` for a handshake socket, which the slow path reads.
    pub worker: Option<usize>,
    /// Frames that arrived, including lost ones.
    pub frames_in: u64,
    /// The bytes of these frames.
    pub bytes_in: u64,
    /// Frames that were sent.
    pub frames_out: u64,
    /// The bytes of these frames.
    pub bytes_out: u64,
    /// Frames that were generated at the port.
    pub frames_made: u64,
    /// The number of receive operations that returned frames. One operation may return a train
    /// (GRO).
    pub trains_in: u64,
    /// The number of send operations. One operation may send a train (GSO).
    pub trains_out: u64,
    /// The number of trains that the kernel refused to send to a neighbour. For some time after
    /// that, the port sends frames to this neighbour one by one.
    pub trains_refused: u64,
    /// The number of times that the port tried a train again after a refusal.
    pub trains_retried: u64,
    /// Packets that the kernel dropped before the port received them as frames.
    pub kernel_drops: u64,
    /// The kernel's counters that are not zero, by reason.
    pub kernel: Vec<(KernelDrop, u64)>,
    /// Discards that are not zero, by reason.
    pub discards: Vec<(Discard, u64)>,
}

/// One port.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PortView {
    /// The port number.
    pub id: PortId,
    /// The port's description.
    pub describe: String,
    /// The port's queues, by worker. The handshake socket is last, if there is one.
    pub queues: Vec<QueueView>,
    /// The outcomes of the handshakes and beacons that arrived on the port, as counted by the slow
    /// path. Counters that are zero are omitted.
    pub handshakes: Vec<(Discard, u64)>,
}

/// The balance of frames (R3). When the switch is idle, frames in + frames made = frames out +
/// discards.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Balance {
    /// Frames that arrived on ports.
    pub frames_in: u64,
    /// Frames that this switch generated, and messages that were dropped before they became frames.
    pub frames_made: u64,
    /// Frames that were sent through ports.
    pub frames_out: u64,
    /// Discards by reason, in the order of [`Discard::ALL`].
    pub discards: [u64; Discard::COUNT],
    /// Packets that the kernel dropped before a port received them as frames. They are not part of
    /// the balance.
    pub kernel_drops: u64,
    /// The kernel's counters by reason, in the order of [`KernelDrop::ALL`].
    pub kernel: [u64; KernelDrop::COUNT],
}

impl Default for Balance {
    fn default() -> Self {
        Self {
            frames_in: 0,
            frames_made: 0,
            frames_out: 0,
            discards: [0; Discard::COUNT],
            kernel_drops: 0,
            kernel: [0; KernelDrop::COUNT],
        }
    }
}

impl Balance {
    /// The sum of discards for all reasons.
    pub fn discarded(&self) -> u64 {
        self.discards.iter().sum()
    }

    /// The number of frames inside the switch: those that arrived or were generated, minus those
    /// that were sent or dropped. 0 when the switch is idle.
    pub fn on_their_way(&self) -> i128 {
        i128::from(self.frames_in) + i128::from(self.frames_made)
            - i128::from(self.frames_out)
            - i128::from(self.discarded())
    }

    /// Whether the two sides of the balance are equal.
    pub fn is_even(&self) -> bool {
        self.on_their_way() == 0
    }

    /// Frames that this switch consumes: frames addressed to it, and path probes. They are counted
    /// among the discards, but are not failures.
    pub fn handled(&self) -> u64 {
        self.by_reason().filter(|(reason, _)| reason.is_handled()).map(|(_, count)| count).sum()
    }

    /// The reasons with a count that is not zero, and their counts.
    pub fn by_reason(&self) -> impl Iterator<Item = (Discard, u64)> + '_ {
        let counts = Discard::ALL.iter().copied().zip(self.discards.iter().copied());
        counts.filter(|&(_, count)| count > 0)
    }

    /// The kernel's counters that are not zero, by reason.
    pub fn kernel_by_reason(&self) -> impl Iterator<Item = (KernelDrop, u64)> + '_ {
        let counts = KernelDrop::ALL.into_iter().zip(self.kernel);
        counts.filter(|&(_, count)| count > 0)
    }

    pub(super) fn add_queue(&mut self, tally: &PortTally, discards: &DiscardTally) {
        self.add_tally(tally);
        self.add_discards(discards);
    }

    pub(super) fn add_tally(&mut self, tally: &PortTally) {
        self.frames_in += tally.frames_in.read();
        self.frames_made += tally.frames_made.read();
        self.frames_out += tally.frames_out.read();
        self.kernel_drops += tally.kernel_drops.read();
        for (sum, drop) in self.kernel.iter_mut().zip(KernelDrop::ALL) {
            *sum += tally.kernel_drops.of(drop);
        }
        for (discard, count) in losses(tally) {
            self.discards[discard as usize] += count;
        }
    }

    pub(super) fn add_discards(&mut self, discards: &DiscardTally) {
        for (sum, &discard) in self.discards.iter_mut().zip(Discard::ALL) {
            *sum += discards.read(discard);
        }
    }
}

impl SlotView {
    /// All slot numbers that are not free, in order.
    pub(super) fn all(attachments: &Attachments, numbers: &Numbers, now: Now) -> Vec<Self> {
        // Make one pass for all slots: when a relay stops, all of them are being detached.
        let by_slot: HashMap<Slot, &Attachment> =
            attachments.iter().map(|(_, user)| (user.slot, user)).collect();
        let leaving = |slot| by_slot.get(&slot).copied();
        numbers
            .all()
            .map(|(slot, generation, standing, is_unknown)| {
                let by_mark = |mark: Mark| attachments.get(mark);
                let left = match standing {
                    Standing::Coming(_, until)
                    | Standing::Draining(_, until)
                    | Standing::Alias(_, Some(until))
                    | Standing::Quarantined(until)
                    | Standing::Kept(until) => Some(until.0.saturating_sub(now.0)),
                    Standing::Live(_) | Standing::Alias(_, None) | Standing::Withdrawn => None,
                };
                let (state, user) = match standing {
                    Standing::Coming(mark, _) => (SlotState::Coming, by_mark(mark)),
                    Standing::Live(mark) => (SlotState::Attached, by_mark(mark)),
                    Standing::Draining(mark, _) => (SlotState::Draining, by_mark(mark)),
                    Standing::Alias(mark, _) => (SlotState::Retiring, by_mark(mark)),
                    Standing::Withdrawn => (SlotState::Leaving, leaving(slot)),
                    Standing::Quarantined(_) => (SlotState::Quarantined, None),
                    Standing::Kept(_) => (SlotState::Kept, None),
                };
                let name = user.map(|user| user.name.clone()).unwrap_or_default();
                // The counters of a user are shown once, at its own number.
                let user = user.filter(|user| user.slot == slot);
                let sum = |read: fn(&crate::link::SlotTally) -> u64| {
                    user.iter().flat_map(|user| &user.tallies).map(|tally| read(tally)).sum()
                };
                let received =
                    user.iter().flat_map(|user| &user.tallies).map(|t| t.heard_ns.read());
                Self {
                    slot,
                    state,
                    generation,
                    name,
                    port: user.map(|user| user.port),
                    at: user.and_then(|user| user.at),
                    behind: user.map(|user| user.behind),
                    frames_in: sum(|tally| tally.frames_in.read()),
                    bytes_in: sum(|tally| tally.bytes_in.read()),
                    frames_out: sum(|tally| tally.frames_out.read()),
                    bytes_out: sum(|tally| tally.bytes_out.read()),
                    discards: sum(|tally| tally.discards.read()),
                    by_former: sum(|tally| tally.by_former.read()),
                    last_received: received.max().filter(|&ns| ns > 0).map(Now),
                    left: left.filter(|&ns| ns > 0).map(Duration::from_nanos),
                    is_unknown,
                    announcements: Vec::new(),
                }
            })
            .collect()
    }
}

pub(super) fn queue_view(worker: Option<usize>, tally: &PortTally, sums: &Balance) -> QueueView {
    QueueView {
        worker,
        frames_in: tally.frames_in.read(),
        bytes_in: tally.bytes_in.read(),
        frames_out: tally.frames_out.read(),
        bytes_out: tally.bytes_out.read(),
        frames_made: tally.frames_made.read(),
        trains_in: tally.trains_in.read(),
        trains_out: tally.trains_out.read(),
        trains_refused: tally.trains_refused.read(),
        trains_retried: tally.trains_retried.read(),
        kernel_drops: sums.kernel_drops,
        kernel: sums.kernel_by_reason().collect(),
        discards: sums.by_reason().collect(),
    }
}

/// Frames that a port lost, by drop reason.
fn losses(tally: &PortTally) -> impl Iterator<Item = (Discard, u64)> {
    Loss::ALL.into_iter().map(|loss| (Discard::from(loss), tally.lost(loss)))
}
