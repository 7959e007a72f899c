//! The configuration of a switch, attachments, errors and events.

use core::time::Duration;
use std::{error::Error, fmt};

use strowger_crypto::{PeerId, StaticPublic};
use strowger_frame::port::{Address, AdmitError};
use strowger_wire::{Scheme, Slot, control::AnnounceVerdict, scheme};

use super::{
    messages::{ControlReply, RequestId},
    peering::DownReason,
};
use crate::{
    limits::{ATTACHED_MAX, FRAME_BYTES_MAX, HOPS_MAX, PORTS_MAX},
    link::{Behind, Rights},
};

/// The configuration of a switch. [`Switch::new`](crate::control::Switch::new) checks it.
///
/// The default is scheme v3x5x8 with slots up to 256, [`HOPS_MAX`] hops, no U-turns, a quarantine
/// of one minute and aliases for ten minutes.
#[derive(Clone, Copy, Debug)]
pub struct SwitchConfig {
    pub(crate) scheme: Scheme,
    pub(crate) slot_max: u32,
    pub(crate) hops_max: u8,
    pub(crate) u_turns: bool,
    pub(crate) quarantine_ns: u64,
    pub(crate) alias_ns: u64,
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

impl SwitchConfig {
    /// Sets the scheme in which slot numbers are written (wire.md 1.1).
    #[must_use]
    pub fn with_scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = scheme;
        self
    }

    /// Sets the highest slot number that is allocated.
    #[must_use]
    pub fn with_slot_max(mut self, slot_max: u32) -> Self {
        self.slot_max = slot_max;
        self
    }

    /// Sets the maximum number of hops that a frame may have left after this switch, whatever its
    /// sender wrote: 1 to [`HOPS_MAX`].
    #[must_use]
    pub fn with_hops_max(mut self, hops_max: u8) -> Self {
        self.hops_max = hops_max;
        self
    }

    /// Sets whether a frame may be sent on the slot on which it arrived.
    #[must_use]
    pub fn with_u_turns(mut self, u_turns: bool) -> Self {
        self.u_turns = u_turns;
        self
    }

    /// Sets the time for which a slot number is not allocated again after its user was detached.
    /// This time must be longer than the lifetime of packets whose labels name the number.
    #[must_use]
    pub fn with_quarantine(mut self, quarantine: Duration) -> Self {
        self.quarantine_ns = nanoseconds(quarantine);
        self
    }

    /// Sets the time for which the former number of a slot still leads to its user.
    #[must_use]
    pub fn with_alias(mut self, alias: Duration) -> Self {
        self.alias_ns = nanoseconds(alias);
        self
    }

    /// The scheme in which slot numbers are written.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// The highest slot number that is allocated.
    pub fn slot_max(&self) -> u32 {
        self.slot_max
    }

    /// The maximum number of hops that a frame may have left after this switch.
    pub fn hops_max(&self) -> u8 {
        self.hops_max
    }

    /// Whether a frame may be sent on the slot on which it arrived.
    pub fn u_turns(&self) -> bool {
        self.u_turns
    }

    /// The time for which a slot number is not allocated again after its user was detached.
    pub fn quarantine(&self) -> Duration {
        Duration::from_nanos(self.quarantine_ns)
    }

    /// The time for which the former number of a slot still leads to its user.
    pub fn alias(&self) -> Duration {
        Duration::from_nanos(self.alias_ns)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The reason why a switch could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The scheme cannot write slot 1. No label could then lead to the switch itself.
    SchemeWithoutSelf,
    /// The scheme's prefixes are too similar to build a table.
    SchemeTooAlike,
    /// The scheme cannot write `slot_max`, or `slot_max` is below 2 or above [`ATTACHED_MAX`]. The
    /// field contains the highest possible value, if there is one.
    SlotMax(Option<u32>),
    /// `hops_max` is 0 or above [`HOPS_MAX`].
    HopsMax,
    /// There is no worker, or there are more than 64.
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

impl Error for ConfigError {}

/// A port's number in its switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

/// The reason why a port could not be plugged in. The switch is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlugError {
    /// The number of queues differs from the number of workers. A port on all workers needs one
    /// queue per worker.
    QueueCount {
        /// The number of queues in the call.
        queues: usize,
        /// The number of workers of the switch.
        workers: usize,
    },
    /// There is no worker with this number.
    NoWorker(usize),
    /// [`PORTS_MAX`] ports are plugged in.
    Full,
    /// There is no such port.
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

impl Error for PlugError {}

/// The configuration of an attachment: a neighbour, or an endpoint on this machine.
#[derive(Clone, Debug)]
pub struct Attach {
    pub(super) port: PortId,
    /// The address; `None` for a sealed peer that must begin the handshake.
    pub(super) at: Option<Address>,
    pub(super) behind: Behind,
    /// Whether the link is sealed. Only links to peers are sealed.
    pub(super) sealed: bool,
    pub(super) rights: Rights,
    pub(super) frame_bytes_max: u16,
    pub(super) slot: Option<Slot>,
    pub(super) name: String,
    /// The static key of a sealed peer, or the key that [`with_key`](Self::with_key) has set. After
    /// a restart, the slot number of the attachment is found by this key or, without a key, by the
    /// name.
    pub(super) key: Option<[u8; 32]>,
    /// For an unknown peer: the maximum number of slot numbers that all unknown peers may have
    /// together, including those in quarantine and those kept over a restart.
    pub(super) unknown_max: Option<usize>,
    /// Whether the slot number is not kept for the attachment over a restart, and must be free.
    pub(super) is_passing: bool,
}

impl Attach {
    /// Makes an unsealed attachment with all rights. It gets the slot number that is kept for it
    /// or, if there is none, the lowest free one.
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
            is_passing: false,
        }
    }

    /// Makes the attachment one that does not return after a restart. Its slot number is then in
    /// quarantine after a restart, and no later attachment is taken for it. It does not wait for a
    /// number that is not free.
    #[must_use]
    pub fn passing(mut self) -> Self {
        self.is_passing = true;
        self
    }

    /// Sets the slot number. By default, the attachment gets the number that is kept for it or, if
    /// there is none, the lowest free one.
    #[must_use]
    pub fn with_slot(mut self, slot: impl Into<Option<Slot>>) -> Self {
        self.slot = slot.into();
        self
    }

    /// Sets the rights of frames from the attachment.
    #[must_use]
    pub fn with_rights(mut self, rights: Rights) -> Self {
        self.rights = rights;
        self
    }

    /// Sets the length of the longest frame that the path to the attachment accepts, in bytes
    /// including the link header.
    #[must_use]
    pub fn with_frame_bytes_max(mut self, bytes: u16) -> Self {
        self.frame_bytes_max = bytes;
        self
    }

    /// Sets the address of the attachment. It replaces the address that was passed to
    /// [`plain`](Self::plain).
    #[must_use]
    pub fn with_address(mut self, at: Address) -> Self {
        self.at = Some(at);
        self
    }

    /// Sets a key. After a restart, the slot number of the attachment is then found by this key
    /// instead of by its name.
    #[must_use]
    pub fn with_key(mut self, key: [u8; 32]) -> Self {
        self.key = Some(key);
        self
    }

    /// The slot number that was requested.
    pub fn slot(&self) -> Option<Slot> {
        self.slot
    }

    /// The name of the attachment.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The reason why a slot number without a user cannot be allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotFree {
    /// The number is in quarantine: its last user was detached recently.
    Quarantined,
    /// The number is kept for the user that had it before the restart.
    Kept,
    /// The number is an alias: the former number of a user that now has another number.
    Former,
}

/// The reason why a neighbour or an endpoint could not be attached. The switch is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttachError {
    /// There is no such port.
    NoPort,
    /// The slot number is 1 (the switch itself), or is above the highest number that may be
    /// allocated.
    NoSuchSlot {
        /// The slot number.
        slot: Slot,
        /// The highest number that may be allocated.
        slot_max: Slot,
    },
    /// The slot has a user.
    SlotTaken(Slot),
    /// The slot has no user, but packets whose labels name it may still be in flight.
    SlotNotFree {
        /// The slot.
        slot: Slot,
        /// The reason why it cannot be allocated.
        why: NotFree,
        /// The time until it can be allocated, if that is known.
        opens_in: Option<Duration>,
    },
    /// No slot number is free.
    SlotsFull,
    /// A user with this address is already attached to the port, on this slot.
    AddressTaken(Slot),
    /// [`ATTACHED_MAX`] links and endpoints are attached.
    Full,
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPort => f.write_str("there is no such port"),
            Self::NoSuchSlot { slot: Slot::SWITCH, .. } => {
                f.write_str("slot 1 is the switch itself")
            }
            Self::NoSuchSlot { slot, slot_max } => {
                write!(
                    f,
                    "slot {slot} is above the highest number of this switch, slot_max = {slot_max}"
                )
            }
            Self::SlotTaken(slot) => write!(f, "slot {slot} is taken"),
            Self::SlotNotFree { slot, why, opens_in } => {
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
                match opens_in {
                    Some(time) => {
                        write!(f, "; {then} in {} s", time.as_nanos().div_ceil(1_000_000_000))
                    }
                    None => Ok(()),
                }
            }
            Self::SlotsFull => f.write_str("no slot number is free"),
            Self::AddressTaken(slot) => write!(f, "the address already has slot {slot}"),
            Self::Full => write!(f, "{ATTACHED_MAX} links and endpoints are attached"),
        }
    }
}

impl Error for AttachError {}

/// The reason why a slot could not be detached, or a port unplugged. The switch is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DetachError {
    /// The slot has no user, or its user is already being detached.
    EmptySlot(Slot),
    /// There is no such port, or it is already being unplugged.
    NoPort,
    /// The user of this slot is still attached to the port.
    PortInUse(Slot),
}

impl fmt::Display for DetachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptySlot(Slot::SWITCH) => f.write_str("slot 1 is the switch itself"),
            Self::EmptySlot(slot) => write!(f, "nothing is attached to slot {slot}"),
            Self::NoPort => f.write_str("there is no such port"),
            Self::PortInUse(slot) => write!(f, "slot {slot} is still attached behind the port"),
        }
    }
}

impl Error for DetachError {}

/// The reason why a slot could not be renumbered or drained. The switch is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RenumberError {
    /// The slot has no user, or its user is being attached or detached.
    EmptySlot(Slot),
    /// The last change of the slot's number is not finished.
    Moving(Slot),
    /// The new number cannot be allocated.
    Number(AttachError),
}

impl fmt::Display for RenumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptySlot(Slot::SWITCH) => f.write_str("slot 1 is the switch itself"),
            Self::EmptySlot(slot) => write!(f, "nothing is attached to slot {slot}"),
            Self::Moving(slot) => write!(f, "slot {slot} is just getting another number"),
            Self::Number(why) => why.fmt(f),
        }
    }
}

impl Error for RenumberError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Number(why) => Some(why),
            Self::EmptySlot(_) | Self::Moving(_) => None,
        }
    }
}

/// The reason why a scheme could not be replaced by a larger one. The switch is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GrowError {
    /// A switch cannot use the new scheme with the new highest slot number.
    Config(ConfigError),
    /// The new highest slot number is below the present one, which the field contains.
    SlotMax(u32),
    /// The new scheme reads a director of the old one as another slot, or with another width.
    CodeChanges {
        /// The slot that the director names in the old scheme.
        slot: Slot,
        /// The form of the director in the old scheme.
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

impl Error for GrowError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Config(why) => Some(why),
            Self::SlotMax(_) | Self::CodeChanges { .. } => None,
        }
    }
}

/// A change that a switch reports ([`Switch::poll`](crate::control::Switch::poll)).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Every worker forwards frames to the slot.
    SlotAttached(Slot),
    /// The port at some worker refused the neighbour of this slot. The number goes into quarantine,
    /// because frames that other workers received in the meantime may carry it in their return
    /// paths.
    AttachRefused(Slot, AdmitError),
    /// Every worker has removed the slot's user. The number goes into quarantine.
    SlotDetached(Slot),
    /// The slot number can be allocated again.
    SlotFree(Slot),
    /// No new label should name the slot. It is detached when its drain time ends.
    SlotDraining(Slot),
    /// The user of the first slot number now has the second one, and every worker writes the second
    /// one into return paths. The first number still leads to the user for a limited time.
    SlotMoved(Slot, Slot),
    /// A sender that is reached through `ingress` still names a slot by a former number. The rate
    /// of this event is limited.
    AliasUsed {
        /// The slot on which the frame arrived.
        ingress: Slot,
        /// The former number, which the frame's label named.
        named: Slot,
        /// The present number.
        slot: Slot,
    },
    /// The lifetime of this former number has ended. The number goes into quarantine.
    AliasEnded(Slot),
    /// Every worker reads and writes slot numbers in the new scheme.
    SchemeGrown,
    /// Every worker has removed the port.
    PortUnplugged(PortId),
    /// The slow path was reset ([`Switch::recover`](crate::control::Switch::recover)). Earlier
    /// events may be missing; the views show the present state.
    SlowPathRestarted,
    /// The link of the slot is up: its peer has proved that it has the keys, and every worker
    /// forwards data.
    LinkUp(Slot),
    /// The link of the slot is idle: no data has crossed it for so long that its keys have expired.
    /// The next packet to be sent on it begins a handshake.
    LinkIdle(Slot),
    /// The link of the slot is down: it has no keys although keys are needed, or its peer has been
    /// silent for too long or has sent a goodbye.
    LinkDown(Slot),
    /// The path of the slot's link accepts frames of up to this length in bytes, including link
    /// header and tag.
    PathMtu(Slot, u16),
    /// The peer of the slot has proved that it receives at another address.
    Roamed(Slot, Address),
    /// The link to a peer that is reached through this UDP port has been down for a minute.
    /// Handshakes from another local port may reach the peer
    /// ([`Switch::set_alternate`](crate::control::Switch::set_alternate)).
    WantsAlternate(PortId),
    /// Two nodes, at these addresses, have the key of the slot's peer and alternately take over its
    /// link.
    KeyOnTwoNodes(Slot, [Address; 2]),
    /// The link of the slot has new keys.
    Rekeyed(Slot),
    /// A node with the static key of the slot's peer has proved this identity, which is not the
    /// expected one. The node gets no link. The rate of this event is limited.
    PeerRefused(Slot, PeerId),
    /// The reason why the link of the slot is down. The same reason is not reported twice in
    /// succession, unless the link was up in between.
    LinkTrouble(Slot, DownReason),
    /// The switch refused a node that is not in the configuration. This is reported at most once in
    /// ten seconds.
    UnknownRefused {
        /// The port on which its handshake arrived.
        port: PortId,
        /// The source address of the handshake.
        at: Address,
        /// The static key of the node.
        key: StaticPublic,
    },
    /// A beacon suggested an address of a peer. This node sends an initiation there. The handshake
    /// will prove the peer's identity.
    PeerSuggested {
        /// The slot of the peer, if it has one.
        slot: Option<Slot>,
        /// The port on which the beacon arrived.
        port: PortId,
        /// The source address of the beacon.
        at: Address,
        /// The identity that signed the beacon.
        peer_id: PeerId,
    },
    /// The result of a request ([`Switch::send_request`](crate::control::Switch::send_request)).
    Replied(RequestId, ControlReply),
    /// The neighbour of the slot announces that it will end the link.
    Goodbye {
        /// The slot.
        slot: Slot,
        /// The reason (wire.md 5).
        code: u8,
        /// Seconds after which the switch should begin a handshake again; 0 if the neighbour does
        /// not specify it.
        retry_after_s: u32,
        /// A text for operators.
        text: String,
    },
    /// An endpoint has announced an identity at its slot. Repetitions are not reported.
    Announced {
        /// The slot.
        slot: Slot,
        /// The identity.
        peer: PeerId,
    },
    /// An announcement has expired or was withdrawn. Those of a slot that is detached end with it,
    /// without this event.
    AnnouncementEnded {
        /// The slot.
        slot: Slot,
        /// The identity.
        peer: PeerId,
    },
    /// An announcement was refused. The rate of this event is limited.
    AnnounceRefused {
        /// The slot on which it arrived.
        slot: Slot,
        /// The reason, which its sender gets too.
        verdict: AnnounceVerdict,
    },
    /// A switch on a path reports that the number of one of its slots has changed.
    SlotMovedAway {
        /// This switch's slot on which the message arrived.
        by: Slot,
        /// The former number.
        from: Slot,
        /// The present number.
        to: Slot,
    },
}

impl Event {
    /// The event's name in JSON, in snake_case.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SlotAttached(_) => "slot_attached",
            Self::AttachRefused(..) => "attach_refused",
            Self::SlotDetached(_) => "slot_detached",
            Self::SlotFree(_) => "slot_free",
            Self::SlotDraining(_) => "slot_draining",
            Self::SlotMoved(..) => "slot_moved",
            Self::AliasUsed { .. } => "alias_used",
            Self::AliasEnded(_) => "alias_ended",
            Self::SchemeGrown => "scheme_grown",
            Self::PortUnplugged(_) => "port_unplugged",
            Self::SlowPathRestarted => "slow_path_restarted",
            Self::LinkUp(_) => "link_up",
            Self::LinkIdle(_) => "link_idle",
            Self::LinkDown(_) => "link_down",
            Self::LinkTrouble(..) => "link_trouble",
            Self::UnknownRefused { .. } => "unknown_peer_refused",
            Self::PathMtu(..) => "path_mtu",
            Self::Roamed(..) => "roamed",
            Self::Rekeyed(_) => "rekeyed",
            Self::WantsAlternate(_) => "wants_alternate",
            Self::KeyOnTwoNodes(..) => "key_on_two_nodes",
            Self::PeerRefused(..) => "peer_refused",
            Self::PeerSuggested { .. } => "peer_suggested",
            Self::Replied(..) => "replied",
            Self::Goodbye { .. } => "goodbye",
            Self::Announced { .. } => "announced",
            Self::AnnouncementEnded { .. } => "announcement_ended",
            Self::AnnounceRefused { .. } => "announce_refused",
            Self::SlotMovedAway { .. } => "slot_moved_away",
        }
    }

    /// The slot that the event is about.
    pub fn slot(&self) -> Option<Slot> {
        match *self {
            Self::SlotAttached(slot)
            | Self::AttachRefused(slot, _)
            | Self::SlotDetached(slot)
            | Self::SlotFree(slot)
            | Self::SlotDraining(slot)
            | Self::SlotMoved(slot, _)
            | Self::AliasUsed { slot, .. }
            | Self::AliasEnded(slot)
            | Self::LinkUp(slot)
            | Self::LinkIdle(slot)
            | Self::LinkDown(slot)
            | Self::LinkTrouble(slot, _)
            | Self::PathMtu(slot, _)
            | Self::Roamed(slot, _)
            | Self::Rekeyed(slot)
            | Self::KeyOnTwoNodes(slot, _)
            | Self::PeerRefused(slot, _)
            | Self::Goodbye { slot, .. }
            | Self::Announced { slot, .. }
            | Self::AnnouncementEnded { slot, .. }
            | Self::AnnounceRefused { slot, .. }
            | Self::SlotMovedAway { by: slot, .. } => Some(slot),
            Self::PeerSuggested { slot, .. } => slot,
            Self::SchemeGrown
            | Self::PortUnplugged(_)
            | Self::SlowPathRestarted
            | Self::UnknownRefused { .. }
            | Self::WantsAlternate(_)
            | Self::Replied(..) => None,
        }
    }
}
