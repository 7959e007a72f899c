//! What can be asked of a switch, what it may answer, and what it tells of itself. Plain data: nothing
//! here does anything.

use std::fmt;

use strowger_crypto::{PeerId, StaticPublic};
use strowger_frame::port::{Address, AdmitError};
use strowger_wire::{Scheme, scheme};

use super::{
    messages::{Answer, QuestionId},
    peering::DownReason,
};
use crate::{
    limits::{ATTACHED_MAX, FRAME_BYTES_MAX, HOPS_MAX, PORTS_MAX},
    link::{Behind, Rights},
};

/// How a switch is to behave. Plain data; [`Switch::new`](crate::control::Switch::new) checks it.
#[derive(Clone, Copy, Debug)]
pub struct SwitchConfig {
    /// How slot numbers are written (wire.md 1.1).
    pub scheme: Scheme,
    /// The highest slot number that is given out.
    pub slot_max: u32,
    /// Hops that a frame may have left after this switch, whatever its sender wrote: 1 to
    /// [`HOPS_MAX`].
    pub hops_max: u8,
    /// Whether a frame may leave by the slot that it came in by.
    pub u_turns: bool,
    /// How long a slot's number rests after it was detached, in nanoseconds: longer than a packet
    /// with a label that names it can be on its way.
    pub quarantine_ns: u64,
    /// How long a slot's former number goes on leading to its user, in nanoseconds.
    pub alias_ns: u64,
}

impl Default for SwitchConfig {
    fn default() -> Self {
        Self {
            scheme: scheme::V3X5X8,
            slot_max: 256,
            hops_max: HOPS_MAX,
            u_turns: false,
            quarantine_ns: 60_000_000_000,
            alias_ns: 600_000_000_000,
        }
    }
}

/// Why a switch could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The scheme has no spelling for slot 1, so nobody could speak to the switch itself.
    SchemeWithoutSelf,
    /// The scheme's prefixes are too alike for a table: no switch can number its slots by it.
    SchemeTooAlike,
    /// `slot_max` is not writable in the scheme, or below 2; the highest that is, if any.
    SlotMax(Option<u32>),
    /// `hops_max` is 0 or above [`HOPS_MAX`].
    HopsMax,
    /// No worker, or more than 64.
    Workers,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SchemeWithoutSelf => f.write_str("the scheme cannot spell slot 1"),
            Self::SchemeTooAlike => f.write_str("the scheme's prefixes are too alike for a table"),
            Self::SlotMax(Some(max)) => write!(f, "the highest slot number must be 2 to {max}"),
            Self::SlotMax(None) => f.write_str("the scheme can write no slot but 1"),
            Self::HopsMax => write!(f, "the hop limit must be 1 to {HOPS_MAX}"),
            Self::Workers => f.write_str("a switch has 1 to 64 workers"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// A port's number in its switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

/// Why a port could not be plugged in. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlugError {
    /// A port that is to be everywhere needs one queue for each worker.
    QueueCount {
        /// Queues that were given.
        queues: usize,
        /// Workers that there are.
        workers: usize,
    },
    /// There is no worker with this number.
    NoWorker(usize),
    /// [`PORTS_MAX`] ports are plugged in.
    Full,
    /// There is no such port to give a handshake socket.
    NoPort,
}

impl fmt::Display for PlugError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QueueCount { queues, workers } => {
                write!(f, "{queues} queues were given for {workers} workers")
            }
            Self::NoWorker(number) => write!(f, "there is no worker {number}"),
            Self::Full => write!(f, "{PORTS_MAX} ports are plugged in"),
            Self::NoPort => f.write_str("there is no such port"),
        }
    }
}

impl std::error::Error for PlugError {}

/// What is to be attached.
#[derive(Clone, Debug)]
pub struct Attach {
    /// The port that it is behind.
    pub port: PortId,
    /// Where behind it; nobody knows yet where a sealed peer is that has still to come by itself.
    pub at: Option<Address>,
    /// Another switch, or a local user.
    pub behind: Behind,
    /// Whether its frames are sealed. Plain ones are for endpoints of this machine, and for links
    /// whose operator wrote so; sealed ones are made by [`Switch::add_peer`](crate::control::Switch::add_peer).
    pub sealed: bool,
    /// Where its frames may go.
    pub rights: Rights,
    /// The longest frame in bytes, link header and tag included, that its path takes.
    pub frame_bytes_max: u16,
    /// The slot number wanted; the lowest free one if none is named.
    pub slot: Option<u32>,
    /// What people call it.
    pub name: String,
    /// The static key of a sealed peer: by it, and by the name of anything else, its slot number is
    /// known again after a restart.
    pub key: Option<[u8; 32]>,
    /// For an unknown peer, one that no operator wrote: how many numbers such peers may have together,
    /// those in quarantine and those kept over a restart included.
    pub unknown_max: Option<usize>,
}

impl Attach {
    /// A plain attachment with all rights, at the lowest free slot.
    pub fn plain(port: PortId, at: Address, behind: Behind, name: impl Into<String>) -> Self {
        Self {
            port,
            at: Some(at),
            behind,
            sealed: false,
            rights: Rights::ALL,
            frame_bytes_max: FRAME_BYTES_MAX as u16,
            slot: None,
            name: name.into(),
            key: None,
            unknown_max: None,
        }
    }

    /// The same at this slot.
    #[must_use]
    pub fn at_slot(mut self, slot: u32) -> Self {
        self.slot = Some(slot);
        self
    }
}

/// Why a slot number to which nothing is attached cannot be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFree {
    /// Its last user was detached a short while ago.
    Quarantined,
    /// It is kept for its user of before the restart.
    Kept,
    /// It is the former number of something that has another one now, and leads there.
    Former,
}

/// Why something could not be attached. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// No such port.
    NoPort,
    /// The slot number is 1 (the switch itself), or above the highest that is given out.
    NoSuchSlot(u32),
    /// Something is attached to the slot.
    SlotTaken(u32),
    /// Nothing is attached to the slot, but labels that name it may still be on their way.
    SlotNotFree {
        /// The slot.
        slot: u32,
        /// Why not.
        why: NotFree,
        /// For how long, in nanoseconds, as far as that is known already.
        in_ns: Option<u64>,
    },
    /// No slot number is free.
    SlotsFull,
    /// The address already has a slot.
    AddressTaken(u32),
    /// [`ATTACHED_MAX`] things are attached.
    Full,
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPort => f.write_str("there is no such port"),
            Self::NoSuchSlot(1) => f.write_str("slot 1 is the switch itself"),
            Self::NoSuchSlot(slot) => write!(f, "slot {slot} is above the highest given out"),
            Self::SlotTaken(slot) => write!(f, "slot {slot} is taken"),
            Self::SlotNotFree { slot, why, in_ns } => {
                let (what, then) = match why {
                    NotFree::Quarantined => (
                        "was given up a short while ago, and labels that name it may still be on \
                         their way",
                        "it is free",
                    ),
                    NotFree::Kept => (
                        "is kept over the restart, since labels that name its last user may still \
                         be on their way",
                        "it is free",
                    ),
                    NotFree::Former => (
                        "is the former number of something attached, and leads to it",
                        "it goes into quarantine",
                    ),
                };
                write!(f, "slot {slot} {what}")?;
                match in_ns {
                    Some(ns) => write!(f, "; {then} in {} s", ns.div_ceil(1_000_000_000)),
                    None => Ok(()),
                }
            }
            Self::SlotsFull => f.write_str("no slot number is free"),
            Self::AddressTaken(slot) => write!(f, "the address already has slot {slot}"),
            Self::Full => write!(f, "{ATTACHED_MAX} links and endpoints are attached"),
        }
    }
}

impl std::error::Error for AttachError {}

/// Why something could not be detached or unplugged. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetachError {
    /// Nothing is attached to the slot, or it is on its way out already.
    EmptySlot(u32),
    /// No such port, or it is on its way out already.
    NoPort,
    /// The port still has something attached to this slot.
    PortInUse(u32),
}

impl fmt::Display for DetachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptySlot(1) => f.write_str("slot 1 is the switch itself"),
            Self::EmptySlot(slot) => write!(f, "nothing is attached to slot {slot}"),
            Self::NoPort => f.write_str("there is no such port"),
            Self::PortInUse(slot) => write!(f, "slot {slot} is still attached behind the port"),
        }
    }
}

impl std::error::Error for DetachError {}

/// Why a slot could not be given another number, or be drained. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenumberError {
    /// Nothing is attached to the slot, or not yet, or it is on its way out.
    EmptySlot(u32),
    /// Its last change of number is still under way.
    Moving(u32),
    /// The new number cannot be given.
    Number(AttachError),
}

impl fmt::Display for RenumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptySlot(1) => f.write_str("slot 1 is the switch itself"),
            Self::EmptySlot(slot) => write!(f, "nothing is attached to slot {slot}"),
            Self::Moving(slot) => write!(f, "slot {slot} is just getting another number"),
            Self::Number(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for RenumberError {}

/// Why a scheme could not grow. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrowError {
    /// No switch can number its slots so.
    Config(ConfigError),
    /// The highest number that is given out would fall.
    SlotMax(u32),
    /// The new scheme does not read the old one's spelling of this slot in this form as the same
    /// slot in as many bits.
    CodeChanges {
        /// The slot.
        slot: u32,
        /// The old scheme's form.
        form: u8,
    },
}

impl fmt::Display for GrowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(why) => why.fmt(f),
            Self::SlotMax(max) => write!(f, "slots up to {max} are given out already"),
            Self::CodeChanges { slot, form } => {
                write!(f, "labels that name slot {slot} in form {form} would not any more")
            }
        }
    }
}

impl std::error::Error for GrowError {}

/// What has come true since the last [`Switch::poll`](crate::control::Switch::poll).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Every worker forwards to the slot.
    SlotAttached(u32),
    /// A port would not have the neighbour. Its number rests: what came in meanwhile by workers
    /// whose port had it bears it in its return path.
    AttachRefused(u32, AdmitError),
    /// No worker knows the slot's user any more; its number rests.
    SlotDetached(u32),
    /// The slot's number may be given again.
    SlotFree(u32),
    /// No new label should name the slot: it is given up when its drain time is over.
    SlotDraining(u32),
    /// The user of the first slot has the second number now, and every worker writes it; the first
    /// one leads to it for a while.
    SlotMoved(u32, u32),
    /// Somebody behind the first slot still names the second, which is an alias; its user's number
    /// is the third. Seldom told, however often it is done.
    AliasUsed {
        /// The slot that the frame came in by.
        ingress: u32,
        /// The former number, which its label named.
        named: u32,
        /// The number of today.
        slot: u32,
    },
    /// The alias is over; the number rests.
    AliasEnded(u32),
    /// Every worker reads the new scheme, and writes it.
    SchemeGrown,
    /// No worker has the port any more.
    PortUnplugged(PortId),
    /// The slow path was reset ([`Switch::recover`](crate::control::Switch::recover)). Events of
    /// the moment before may not have been told; what is so now can be asked.
    SlowPathRestarted,
    /// The link behind the slot has keys, its peer has shown that it has them, too, and every worker lets
    /// data pass.
    LinkUp(u32),
    /// Nothing has crossed the link behind the slot for so long that its keys have grown old. The next
    /// packet brings it up again.
    LinkQuiet(u32),
    /// The link behind the slot has no keys though some are wanted, or its peer has not been heard for
    /// too long.
    LinkDown(u32),
    /// The path behind the slot was found to take frames of so many bytes and no longer ones, link header
    /// and tag included; or as long as both ends take.
    PathMtu(u32, u16),
    /// The peer behind the slot was proved to be at another address.
    Roamed(u32, Address),
    /// Peers behind this UDP port are asked and answer nothing; handshakes from another local port may reach
    /// them ([`Switch::set_alternate`](crate::control::Switch::set_alternate)).
    WantsAlternate(PortId),
    /// Two nodes at these addresses have the key of the peer behind the slot, and take its link from each
    /// other.
    KeyOnTwoNodes(u32, [Address; 2]),
    /// The link behind the slot has new keys.
    Rekeyed(u32),
    /// Whoever has the static key of the peer behind the slot has proved to be this one, which is not
    /// whom it must be: it gets no link. Seldom told, however often it is tried.
    PeerRefused(u32, PeerId),
    /// Why the link behind the slot is down: once for each reason, until the link is up again.
    LinkTrouble(u32, DownReason),
    /// A node that is not configured was refused. Reported at most once in ten seconds.
    UnknownRefused {
        /// The port that its handshake came in by.
        port: PortId,
        /// Where the handshake came from.
        at: Address,
        /// The static key of the node that made it.
        key: StaticPublic,
    },
    /// A beacon says that this node is there, and a handshake begins, which will show it.
    PeerSuggested {
        /// The slot of the peer, if it has one.
        slot: Option<u32>,
        /// The port that it is said to be behind.
        port: PortId,
        /// Where the beacon came from.
        at: Address,
        /// Who has signed it.
        peer_id: PeerId,
    },
    /// What has come of a question of ours ([`Switch::ask`](crate::control::Switch::ask)).
    Answered(QuestionId, Answer),
    /// The far side of the link behind the slot says that it will end it.
    Goodbye {
        /// The slot.
        slot: u32,
        /// Why (wire.md 5).
        code: u8,
        /// Come again after so many seconds; 0 if that does not matter.
        retry_after_s: u32,
        /// For people.
        text: String,
    },
    /// A switch on the way says that one of its slots has another number from now on.
    SlotMovedAway {
        /// Our slot that its word came in by.
        by: u32,
        /// Its number so far.
        from: u32,
        /// Its number from now on.
        to: u32,
    },
}
