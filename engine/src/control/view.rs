//! What people and programs are shown of a switch: copies of counters, never the switch itself.

use std::collections::HashMap;

use strowger_frame::{
    Loss, Mark,
    port::{Address, KernelDrop, PortTally},
};
use strowger_wire::Slot;

use super::{
    PortId,
    attachments::{Attachment, Attachments},
    slot_allocator::{SlotAllocator, Standing},
};
use crate::{
    Now,
    discard::{Discard, DiscardTally},
    link::Behind,
};

/// How far along a slot's user is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// Allocated out; not every worker knows it yet.
    Coming,
    /// Every worker forwards to it, or is about to.
    Attached,
    /// Being taken away.
    Leaving,
    /// Every worker forwards to it, but no new label should name it.
    Draining,
    /// The former number of something that has another one now, to which it still leads.
    Retiring,
    /// Gone; the number rests before it is given again.
    Quarantined,
    /// Nobody has it; it is kept for who had it before the restart.
    Kept,
}

impl SlotState {
    /// Its name in JSON: lower case.
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
pub struct SlotView {
    /// Its number.
    pub slot: Slot,
    /// How far along.
    pub state: SlotState,
    /// How many numbers this switch had given when it gave this one, over restarts: tells one use
    /// of a number from the next.
    pub generation: u64,
    /// What people call what is attached; empty in quarantine.
    pub name: String,
    /// The port that it is behind.
    pub port: Option<PortId>,
    /// Where behind it.
    pub at: Option<Address>,
    /// Another switch, or a local user.
    pub behind: Option<Behind>,
    /// Frames that came in by the slot.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames that left by the slot.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Frames that came in by the slot and went no further, or met a full queue here.
    pub discards: u64,
    /// Frames that came in by the slot and bear its former number in their return path.
    pub by_former: u64,
    /// When a frame last came in, in the switch's nanoseconds; 0 if none ever did.
    pub heard_ns: u64,
    /// How long it stays in this state, in nanoseconds, where that is known: a slot that waits for its
    /// number to be free, drains, retires, is in quarantine or is kept.
    pub left_ns: Option<u64>,
    /// Whether an unknown peer has or had the number.
    pub is_unknown: bool,
}

/// One queue of a port: its half on one worker, or its handshake socket.
#[derive(Clone, Debug)]
pub struct QueueView {
    /// The worker that owns it; of a handshake socket none, since the slow path reads it.
    pub worker: Option<usize>,
    /// Frames that arrived, lost ones included.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames that left.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Frames that the port made itself.
    pub frames_made: u64,
    /// Receives, each a train where the kernel coalesced.
    pub trains_in: u64,
    /// Sends, each a train where frames rode together.
    pub trains_out: u64,
    /// Trains that the way to a neighbour refused, so that frames went there one by one.
    pub trains_refused: u64,
    /// Times that trains were tried there again.
    pub trains_retried: u64,
    /// Packets that the kernel dropped before they were frames.
    pub kernel_drops: u64,
    /// What the kernel counted, as far as it is not zero, by reason.
    pub kernel: Vec<(KernelDrop, u64)>,
    /// Discards that are not zero, by reason.
    pub discards: Vec<(Discard, u64)>,
}

/// One port.
#[derive(Clone, Debug)]
pub struct PortView {
    /// Its number.
    pub id: PortId,
    /// What it is.
    pub describe: String,
    /// Its queues, by worker; its handshake socket last, if it has one.
    pub queues: Vec<QueueView>,
    /// How the handshakes and beacons that came in by it ended at the slow path, as far as it is not zero.
    pub handshakes: Vec<(Discard, u64)>,
}

/// R3: at rest, frames in + frames made = frames out + discards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Frames that arrived at ports.
    pub frames_in: u64,
    /// Frames that were made here.
    pub frames_made: u64,
    /// Frames that left by ports.
    pub frames_out: u64,
    /// By reason, in the order of [`Discard::ALL`].
    pub discards: [u64; Discard::COUNT],
    /// Packets that the kernel dropped before they were frames: no part of the balance, since no
    /// port ever had them.
    pub kernel_drops: u64,
    /// What the kernel counted, by reason, in the order of [`KernelDrop::ALL`].
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
    /// Discards for any reason.
    pub fn discarded(&self) -> u64 {
        self.discards.iter().sum()
    }

    /// Frames that came or were made, less those that left or were discarded: those still on
    /// their way. 0 at rest.
    pub fn on_their_way(&self) -> i128 {
        i128::from(self.frames_in) + i128::from(self.frames_made)
            - i128::from(self.frames_out)
            - i128::from(self.discarded())
    }

    /// Whether the two sides are equal.
    pub fn is_even(&self) -> bool {
        self.on_their_way() == 0
    }

    /// Frames that ended as they were meant to, for a switch itself or as a probe of a path: counted
    /// among the discards, and no failure.
    pub fn handled(&self) -> u64 {
        self.by_reason().filter(|(reason, _)| reason.is_handled()).map(|(_, count)| count).sum()
    }

    /// The reasons that were met, with their counts.
    pub fn by_reason(&self) -> impl Iterator<Item = (Discard, u64)> + '_ {
        let counts = Discard::ALL.iter().copied().zip(self.discards.iter().copied());
        counts.filter(|&(_, count)| count > 0)
    }

    /// What the kernel counted, as far as it is not zero, by reason.
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
    /// All slots in use or in quarantine, in order of their numbers.
    pub(super) fn all(attachments: &Attachments, numbers: &SlotAllocator, now: Now) -> Vec<Self> {
        // Once for all: everything leaves when a relay ends.
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
                // What is counted of a user is shown once, at its own number.
                let user = user.filter(|user| user.slot == slot);
                let sum = |read: fn(&crate::link::SlotTally) -> u64| {
                    user.iter().flat_map(|user| &user.tallies).map(|tally| read(tally)).sum()
                };
                let heard = user.iter().flat_map(|user| &user.tallies).map(|t| t.heard_ns.read());
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
                    heard_ns: heard.max().unwrap_or(0),
                    left_ns: left.filter(|&left| left > 0),
                    is_unknown,
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
