//! Commands from the slow path to a worker; completions, punts and notes from a worker to the slow
//! path.
//!
//! Neither side blocks on the other. A worker frees nothing that it receives with a command: the
//! completion returns it.

use std::{net::IpAddr, sync::Arc};

use arrayvec::ArrayVec;
use crossbeam_queue::ArrayQueue;
use strowger_crypto::{Sealed, Sealer};
use strowger_frame::{
    Frame, Mark, Port,
    port::{Address, AdmitError},
    sync::{AtomicU32, Ordering},
};
use strowger_wire::Slot;
use strowger_wire::link_header::{Kind, SessionIndex};

use crate::{
    Now,
    attention::Attention,
    discard::{Discard, DiscardTally},
    limits::{
        ATTACHED_MAX, DROP_NOTICES_MAX, HANDSHAKES_MAX, HEAD_BYTES_MAX, LINK_MESSAGES_MAX,
        NOTES_MAX, PUNTS_MAX, SESSIONS_MAX, UNKNOWN_SENDER_CELLS, UNKNOWN_SENDER_ROWS,
    },
    link::{Link, Rights},
    session::RxSession,
    slots::{ReturnPath, SlotTable},
};

/// One worker's queue of a port, and its drop counters.
pub(crate) struct PortQueue {
    /// The port's number in the switch.
    pub(crate) number: u16,
    /// The queue.
    pub(crate) port: Box<dyn Port>,
    /// Counts dropped frames that arrived on the port or were to be sent on it.
    pub(crate) discards: Arc<DiscardTally>,
    /// Whether the worker punts beacons that arrive on the port.
    pub(crate) accepts_beacons: bool,
    /// Whether the port is in the worker's list of ports to flush.
    pub(crate) is_listed: bool,
}

impl std::fmt::Debug for PortQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PortQueue")
            .field("number", &self.number)
            .field("port", &self.port.describe())
            .finish()
    }
}

/// A command from the slow path. The worker applies commands in order, a few in each poll.
#[derive(Debug)]
pub(crate) enum Command {
    /// Poll this port.
    Plug(Box<PortQueue>),
    /// Stop polling this port and return it. The slow path sends this command after it has detached
    /// the port's links.
    Unplug(u16),
    /// Add a link. If the link's port belongs to this worker and the link's address is known, the
    /// worker registers the address with the port.
    Attach(Box<Link>, Option<Address>),
    /// Remove a link.
    Detach(Mark),
    /// Use this slot table.
    Slots(Box<SlotTable>),
    /// Write this slot number into the return paths of packets that arrive on the link.
    Renumber(Mark, Slot, Box<ReturnPath>),
    /// Change the scheme by which slot numbers are read and written. The command replaces the table
    /// and all return paths together.
    Grow(Box<Growth>),
    /// Open the frames of this session.
    Open(Box<RxSession>),
    /// Hand off the frames of this session to the worker that opens them.
    OpenAtWorker(SessionIndex, u8),
    /// Remove this session and return its keys.
    Close(SessionIndex),
    /// Seal the link's frames with this sealer.
    Seal(Mark, Box<Sealer>),
    /// Return the link's sealer, because its keys are too old. A few frames to be sent on the link
    /// then wait for new keys; further ones are dropped.
    Unseal(Mark),
    /// Drop the frames that wait for keys, and queue no further ones, because the peer does not
    /// answer.
    DropPending(Mark),
    /// Send one of the link's own messages: through its egress queue, or through a port to an
    /// address. An empty message is a keepalive.
    SendLinkMessage(Mark, Sealed, Option<(u16, Address)>, ArrayVec<u8, LINK_MESSAGE_BYTES_MAX>),
    /// Send a path challenge with this token through a port to this address, in a frame of this
    /// length in bytes.
    Probe(Mark, (u16, Address), [u8; 8], u16),
    /// Set whether data may be sent on a sealed link, or only the link's own messages. Only the
    /// latter are sent while the link is down or its address is not validated.
    AllowData(Mark, bool),
    /// Send a packet that the switch itself made. The packet starts with its switch header, and its
    /// ingress is slot 1 (wire.md 1.3).
    Transmit(Vec<u8>),
    /// Send a handshake message through a port to an address.
    Send(u16, Address, Vec<u8>),
    /// Change the link's address, and perhaps its port.
    SetAddress {
        /// The link.
        link: Mark,
        /// Its port.
        port: u16,
        /// The worker that owns the port's queue, if only one worker has a queue of the port.
        home: Option<u8>,
        /// The link's address, which is reached through the port.
        at: Address,
    },
    /// Remove the link's address.
    ClearAddress(Mark),
    /// Set whether frames from unknown peers that arrive on this port are punted or dropped.
    AcceptUnknown(u16, bool),
    /// Set whether beacons that arrive on this port are punted or dropped.
    AcceptBeacons(u16, bool),
    /// Set the length in bytes of the longest frame that may be sent on the link.
    SetMtu(Mark, u16),
    /// Report all links and sessions.
    Inventory(Box<Inventory>),
}

/// All links and sessions of a worker. The slow path requests this list after a panic, because it
/// is then uncertain which commands the workers have applied.
///
/// The slow path allocates the list.
#[derive(Debug)]
pub(crate) struct Inventory {
    /// The number of the inventory.
    pub(crate) number: u64,
    pub(crate) links: Vec<Mark>,
    /// Sessions that the worker opens, and sessions whose frames it hands to other workers.
    pub(crate) sessions: Vec<SessionIndex>,
}

impl Inventory {
    /// Makes an inventory with capacity for every link and session that a worker can have.
    pub(crate) fn new(number: u64) -> Self {
        let (links, sessions) =
            (Vec::with_capacity(ATTACHED_MAX), Vec::with_capacity(SESSIONS_MAX));
        Self { number, links, sessions }
    }
}

/// The change to a larger scheme: the slot table for the scheme, and the new return path of each
/// link.
///
/// The table and the return paths number the scheme's forms in the same order.
#[derive(Debug)]
pub(crate) struct Growth {
    pub(crate) table: SlotTable,
    pub(crate) return_paths: Vec<(Mark, ReturnPath)>,
}

/// A worker's reply to one command. It contains the item that the command replaced, removed or
/// consumed, or that the worker could not use. The slow path frees the content.
#[derive(Debug)]
#[allow(dead_code)] // several contents are only freed
pub(crate) enum Completion {
    /// The command was applied, and there is nothing to return.
    Done,
    /// The replaced table.
    Slots(Box<SlotTable>),
    /// The removed link.
    Detached(Box<Link>),
    /// The removed port.
    Unplugged(Box<PortQueue>),
    /// The port refused this neighbour.
    AttachRefused(Box<Link>, AdmitError),
    /// The port's number was out of range, or the worker had no free entry for a port. Returns the
    /// queue of the command.
    PlugRefused(Box<PortQueue>),
    /// A session that was removed or replaced.
    Session(Box<RxSession>),
    /// A sealer that was replaced, or a sealer for a link that does not exist.
    Sealer(Box<Sealer>),
    /// The message that was sent.
    Sent(Vec<u8>),
    /// The replaced return path.
    ReturnPath(Box<ReturnPath>),
    /// The replaced table and return paths.
    Grown(Box<Growth>),
    /// The inventory.
    Inventoried(Box<Inventory>),
}

/// The maximum length of a link's own message: the token of a path challenge, with some reserve.
pub(crate) const LINK_MESSAGE_BYTES_MAX: usize = 32;

/// The kinds of punts whose queues are shared among links. A link may hold at most as many places
/// of a queue as are free (a dynamic threshold: A. Choudhury and E. Hahne, 1998).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum PuntKind {
    /// A packet addressed to this switch.
    Packet,
    /// A notice that a packet was dropped.
    DropNotice,
    /// One of a link's own messages.
    LinkMessage,
    /// A handshake message from the address of a link.
    HandshakeDatagram,
}

impl PuntKind {
    pub(crate) const COUNT: usize = 4;
}

/// The queues from the workers to the slow path.
#[derive(Debug)]
pub(crate) struct PuntQueues {
    pub(crate) packets: ArrayQueue<Punt>,
    pub(crate) drop_notices: ArrayQueue<Punt>,
    pub(crate) link_messages: ArrayQueue<Punt>,
    /// Notes, which hold no frames.
    pub(crate) notes: ArrayQueue<Punt>,
    /// Handshake messages from addresses of links.
    pub(crate) handshakes: ArrayQueue<HandshakeDatagram>,
    /// Handshake messages from other addresses, and beacons.
    pub(crate) unknown_peers: UnknownSenders,
    /// Whether the slow path also waits for completions or for frames.
    pub(crate) attention: Attention,
}

impl PuntQueues {
    pub(crate) fn new() -> Self {
        Self {
            packets: ArrayQueue::new(PUNTS_MAX),
            drop_notices: ArrayQueue::new(DROP_NOTICES_MAX),
            link_messages: ArrayQueue::new(LINK_MESSAGES_MAX),
            notes: ArrayQueue::new(NOTES_MAX),
            handshakes: ArrayQueue::new(HANDSHAKES_MAX),
            unknown_peers: UnknownSenders::new(),
            attention: Attention::default(),
        }
    }

    /// Whether all queues are empty.
    pub(crate) fn is_empty(&self) -> bool {
        let punts = [&self.packets, &self.drop_notices, &self.link_messages, &self.notes];
        punts.iter().all(|queue| queue.is_empty())
            && self.handshakes.is_empty()
            && self.unknown_peers.len() == 0
    }

    /// The number of free places in the queue of this kind.
    pub(crate) fn free(&self, kind: PuntKind) -> usize {
        let (places, used) = match kind {
            PuntKind::Packet => (self.packets.capacity(), self.packets.len()),
            PuntKind::DropNotice => (self.drop_notices.capacity(), self.drop_notices.len()),
            PuntKind::LinkMessage => (self.link_messages.capacity(), self.link_messages.len()),
            PuntKind::HandshakeDatagram => (self.handshakes.capacity(), self.handshakes.len()),
        };
        places.saturating_sub(used)
    }
}

/// Handshake messages from addresses that belong to no link, and beacons.
///
/// A host may hold at most as many places as are free, so a place remains for another host.
#[derive(Debug)]
pub(crate) struct UnknownSenders {
    queue: ArrayQueue<HandshakeDatagram>,
    /// A count-min sketch of the number of places that each host holds. A host's hash selects one
    /// cell in each row. The smallest of these cells is the host's number, or more if each of the
    /// cells is shared with another host, which is rare.
    held: [[AtomicU32; UNKNOWN_SENDER_CELLS]; UNKNOWN_SENDER_ROWS],
}

impl UnknownSenders {
    fn new() -> Self {
        let row = |_| std::array::from_fn(|_| AtomicU32::new(0));
        Self { queue: ArrayQueue::new(HANDSHAKES_MAX), held: std::array::from_fn(row) }
    }

    fn cells_of(&self, from: Address) -> impl Iterator<Item = &AtomicU32> {
        let hash = hash_of_host(from) as usize;
        let cell = move |row: usize| hash / UNKNOWN_SENDER_CELLS.pow(row as u32);
        self.held.iter().enumerate().map(move |(n, row)| &row[cell(n) % UNKNOWN_SENDER_CELLS])
    }

    /// Adds a datagram. Returns the datagram if none of the `places` is free, or if its sender
    /// already holds its share.
    pub(crate) fn push(
        &self,
        datagram: HandshakeDatagram,
        places: usize,
    ) -> Result<(), HandshakeDatagram> {
        let from = datagram.from;
        // Relaxed: these are counts, and no other data depends on them. Workers that count at the
        // same time may each admit one datagram too many.
        let held = self.cells_of(from).map(|cell| cell.load(Ordering::Relaxed)).min();
        if held.unwrap_or_default() as usize >= places.saturating_sub(self.len()) {
            return Err(datagram);
        }
        // A datagram is counted before it is pushed, so `pop` never subtracts more than was
        // counted. Relaxed: the queue orders this addition before the subtraction in `pop`.
        self.cells_of(from).for_each(|cell| _ = cell.fetch_add(1, Ordering::Relaxed));
        self.queue.push(datagram).inspect_err(|_| self.uncount(from))
    }

    /// Takes the oldest datagram.
    pub(crate) fn pop(&self) -> Option<HandshakeDatagram> {
        let datagram = self.queue.pop()?;
        self.uncount(datagram.from);
        Some(datagram)
    }

    fn uncount(&self, from: Address) {
        // Relaxed: as in `push`.
        self.cells_of(from).for_each(|cell| _ = cell.fetch_sub(1, Ordering::Relaxed));
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.queue.capacity()
    }
}

/// A hash of the part of an address that identifies one host: an IPv4 address, an IPv6 /64 or a MAC
/// address.
///
/// The UDP port is excluded, because one host can use all UDP ports. The hash is not keyed: a
/// sender that can forge one address can forge any address.
pub(crate) fn hash_of_host(from: Address) -> u32 {
    // FNV-1a.
    let hash = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
    };
    let hash = match from {
        Address::Only => 0,
        Address::Udp(at) => match at.ip().to_canonical() {
            IpAddr::V4(ip) => hash(&ip.octets()),
            IpAddr::V6(ip) => hash(&ip.octets()[..8]),
        },
        Address::Ether(mac) => hash(&mac),
    };
    // The final step of MurmurHash3: every output bit depends on every input bit.
    let hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

/// A message from a worker to the slow path.
#[derive(Debug)]
pub(crate) enum Punt {
    /// A packet addressed to this switch, with the label and the shift that it had on arrival.
    Packet {
        /// The worker that received it.
        worker: u8,
        /// The link that it arrived on.
        ingress: Mark,
        /// Its ingress slot.
        ingress_slot: Slot,
        /// The rights of the ingress link.
        rights: Rights,
        /// The time of its arrival.
        at: Now,
        /// The frame.
        frame: Frame,
    },
    /// A packet was dropped, and an error to its sender may be due. The frame itself is already
    /// freed and counted.
    Dropped(DropNotice),
    /// An authenticated path challenge or path response.
    LinkMessage {
        /// The worker that opened it.
        worker: u8,
        /// The link.
        link: Mark,
        /// Path challenge or path response.
        kind: Kind,
        /// The port that it arrived on, and its source address.
        from: Option<(u16, Address)>,
        /// The frame: link header and message.
        frame: Frame,
    },
    /// The worker has opened the first frame or a keepalive of a session. Either proves that the
    /// peer has the keys.
    FirstFrame(SessionIndex),
    /// An authenticated frame of a link arrived from an address other than the link's.
    Roamed {
        /// The link.
        link: Mark,
        /// The port that it arrived on.
        port: u16,
        /// Its source address.
        from: Address,
        /// Its length in bytes, including the tag.
        bytes: u16,
    },
    /// The frames of a session arrive at the worker with this number, but another worker opens
    /// them.
    Migrate(SessionIndex, u8),
    /// A link's sealer has sealed so many packets with its keys that a new handshake is due.
    RekeyDue(Mark),
    /// A frame was to be sent on an idle link that has no valid keys, so a handshake is due.
    Unsealed(Mark),
    /// The kernel refused to send a handshake message.
    SendFailed {
        /// The port.
        port: u16,
        /// The destination of the message.
        to: Address,
        /// The error number (`errno.h`).
        errno: i32,
    },
    /// A frame named a slot by an alias (a former number). The worker limits the rate of this punt.
    AliasUsed {
        /// The former number that the label named.
        slot: Slot,
        /// A copy of the start of the frame, which was forwarded.
        packet: DropNotice,
    },
}

impl Punt {
    /// Returns the frame that the message contains, if any.
    pub(crate) fn into_frame(self) -> Option<Frame> {
        match self {
            Self::Packet { frame, .. } | Self::LinkMessage { frame, .. } => Some(frame),
            _ => None,
        }
    }
}

/// The information about a dropped packet that errors and trace replies need.
#[derive(Clone, Debug)]
pub(crate) struct DropNotice {
    /// The worker that dropped it.
    pub(crate) worker: u8,
    /// The link that it arrived on.
    pub(crate) ingress: Mark,
    /// Its ingress slot.
    pub(crate) ingress_slot: Slot,
    /// The rights of the link that it arrived on.
    pub(crate) rights: Rights,
    /// The time of its arrival.
    pub(crate) at: Now,
    /// The drop reason.
    pub(crate) discard: Discard,
    /// For a trace packet whose hops are used up: the reason for which the packet would have been
    /// dropped if it had one more hop.
    pub(crate) dry_run: Option<Discard>,
    /// The packet's next hop, if the lookup found one.
    pub(crate) next_hop: Option<NextHopInfo>,
    /// The length of the packet in bytes, excluding link header and tag.
    pub(crate) packet_bytes: u16,
    /// The packet's header and the first bytes of its payload. If the next hop is a neighbour and
    /// refused the packet, the header is already rewritten for that neighbour.
    pub(crate) head: ArrayVec<u8, HEAD_BYTES_MAX>,
}

/// The state of a next hop at the time of the drop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NextHopInfo {
    /// The link.
    pub(crate) link: Mark,
    /// The number of frames in its egress queue.
    pub(crate) queue_frames: u16,
    /// The length of the longest packet that may be sent on the link, in bytes, including the link
    /// header and excluding the tag.
    pub(crate) packet_bytes_max: u16,
}

/// A handshake message or a beacon. No part of it is authenticated.
///
/// Handshake messages from unknown peers have a separate queue, so that they cannot take the places
/// of those from known peers.
#[derive(Debug)]
pub(crate) struct HandshakeDatagram {
    /// The worker that received it.
    pub(crate) worker: u8,
    /// The port that it arrived on.
    pub(crate) port: u16,
    /// The mark of the link that has this source address, or the mark of an unknown sender.
    pub(crate) link: Mark,
    /// Its source address.
    pub(crate) from: Address,
    /// The frame.
    pub(crate) frame: Frame,
}

/// A frame that one worker hands off to another.
#[derive(Debug)]
pub(crate) enum Handoff {
    /// A frame for the worker that owns the next hop's port.
    Egress { to: Mark, ingress_slot: Slot, is_control: bool, frame: Frame },
    /// A frame for the worker that opens the session; `by` is the worker that received it.
    WrongWorker { by: u8, frame: Frame },
}

impl Handoff {
    /// Whether the frame is known to be control. A frame that was not opened may also be control.
    #[inline]
    pub(crate) fn is_control(&self) -> bool {
        matches!(self, Self::Egress { is_control: true, .. })
    }

    pub(crate) fn into_frame(self) -> Frame {
        match self {
            Self::Egress { frame, .. } | Self::WrongWorker { frame, .. } => frame,
        }
    }
}
