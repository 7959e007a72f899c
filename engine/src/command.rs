//! All that passes between the slow path and a worker: commands one way, reports the other. Neither
//! side ever waits for the other, and a worker never frees what a command brought.

use std::{net::IpAddr, sync::Arc};

use arrayvec::ArrayVec;
use crossbeam_queue::ArrayQueue;
use strowger_crypto::{Sealed, Sealer};
use strowger_frame::{
    Frame, Mark, Port,
    port::{Address, AdmitError},
    sync::{AtomicU32, Ordering},
};
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

/// Something attached to a worker: a port, and what is counted of it here.
pub(crate) struct PortQueue {
    /// The port's number in the switch.
    pub(crate) number: u16,
    /// The port itself.
    pub(crate) port: Box<dyn Port>,
    /// Discards of frames that came in by it, or were to leave by it.
    pub(crate) discards: Arc<DiscardTally>,
    /// Whether beacons that come in by it are punted.
    pub(crate) accepts_beacons: bool,
    /// Whether the worker has it on its list of ports to flush.
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

/// What the slow path tells a worker. Obeyed in order, at most a few a poll.
#[derive(Debug)]
pub(crate) enum Command {
    /// Poll this port from now on.
    Plug(Box<PortQueue>),
    /// Stop polling this port and give it back. Its links were detached before.
    Unplug(u16),
    /// A link exists from now on; where its port is this worker's, admit it there, if it is known
    /// where it is.
    Attach(Box<Link>, Option<Address>),
    /// A link exists no longer.
    Detach(Mark),
    /// Decide by this table from now on.
    Slots(Box<SlotTable>),
    /// Write this number into the return path of what comes in by the link.
    Renumber(Mark, u32, Box<ReturnPath>),
    /// Read and write slot numbers by another scheme from now on, all at once.
    Grow(Box<Growth>),
    /// Open frames of this session here from now on.
    Open(Box<RxSession>),
    /// Hand frames of this session to the worker that opens them.
    OpenAtWorker(SessionIndex, u8),
    /// Open no frames of this session any more, and give its keys back.
    Close(SessionIndex),
    /// Seal with this from now on.
    Seal(Mark, Box<Sealer>),
    /// Seal nothing any more by this link, and give the keys back: they are too old. What is to leave
    /// waits for new ones.
    Unseal(Mark),
    /// Nobody answers behind this link: nothing waits there any more.
    DropPending(Mark),
    /// Send a sealed message of the link itself, by its exit or to an address behind a port: empty, it
    /// is a keepalive.
    SendLinkMessage(Mark, Sealed, Option<(u16, Address)>, ArrayVec<u8, LINK_MESSAGE_BYTES_MAX>),
    /// Send a path challenge with this token to this address behind a port, in a frame of so many bytes
    /// in all.
    Probe(Mark, (u16, Address), [u8; 8], u16),
    /// Let data leave by a sealed link, or only the link's own messages: the link is down, or its
    /// peer has not answered from its address yet.
    AllowData(Mark, bool),
    /// Send a packet of the switch's own, header first: it departs from slot 1 (wire.md 1.3).
    Transmit(Vec<u8>),
    /// Send bytes to an address behind a port: a handshake message.
    Send(u16, Address, Vec<u8>),
    /// The link's neighbour has moved, perhaps behind another port.
    SetAddress {
        /// The link.
        link: Mark,
        /// The port that it is behind from now on.
        port: u16,
        /// The worker that owns the port's queue, if one worker does.
        home: Option<u8>,
        /// Where behind it.
        at: Address,
    },
    /// Give up the link's address: nobody is behind it for now.
    ClearAddress(Mark),
    /// From this port, punt what unknown peers send; or count it as such.
    AcceptUnknown(u16, bool),
    /// From this port, punt beacons; or discard them.
    AcceptBeacons(u16, bool),
    /// The path behind the link takes frames up to this many bytes.
    SetMtu(Mark, u16),
    /// Say what you have.
    Inventory(Box<Inventory>),
}

/// What a worker has, as it says itself: for a slow path that does not know what has become of the
/// commands it gave. The room is the asker's.
#[derive(Debug)]
pub(crate) struct Inventory {
    /// Which question this answers.
    pub(crate) number: u64,
    pub(crate) links: Vec<Mark>,
    /// Those it opens itself, and those it hands to another.
    pub(crate) sessions: Vec<SessionIndex>,
}

impl Inventory {
    /// Room for whatever a worker can have.
    pub(crate) fn new(number: u64) -> Self {
        let (links, sessions) =
            (Vec::with_capacity(ATTACHED_MAX), Vec::with_capacity(SESSIONS_MAX));
        Self { number, links, sessions }
    }
}

/// A scheme that has grown, as a worker needs it: the table that reads it, and what each link writes
/// in it. Both in one order, since a hop's form in the one is its place in the other.
#[derive(Debug)]
pub(crate) struct Growth {
    pub(crate) table: SlotTable,
    pub(crate) return_paths: Vec<(Mark, ReturnPath)>,
}

/// What a worker tells the slow path: one for each order, with what the order replaced or could not
/// place, to be freed there.
#[derive(Debug)]
#[allow(dead_code)] // some contents are only freed
pub(crate) enum Completion {
    /// The order was obeyed, and nothing is given back.
    Done,
    /// The table that was replaced.
    Slots(Box<SlotTable>),
    /// The link that was detached.
    Detached(Box<Link>),
    /// The port that was unplugged.
    Unplugged(Box<PortQueue>),
    /// The port would not have this neighbour.
    AttachRefused(Box<Link>, AdmitError),
    /// There was no such port, or no place for one: what the order brought comes back.
    PlugRefused(Box<PortQueue>),
    /// A session that was closed, or displaced by another.
    Session(Box<RxSession>),
    /// Keys that were replaced, or were for a link that is gone.
    Sealer(Box<Sealer>),
    /// The message that was sent.
    Sent(Vec<u8>),
    /// The return path that was replaced.
    ReturnPath(Box<ReturnPath>),
    /// The table and the return paths that were replaced.
    Grown(Box<Growth>),
    /// What the worker has.
    Inventoried(Box<Inventory>),
}

/// The longest message of a link itself: a path challenge's token and room to spare.
pub(crate) const LINK_MESSAGE_BYTES_MAX: usize = 32;

/// What is punted in queues of its own, each shared among links: of the places that are free, no link
/// takes the last ones (a dynamic threshold: A. Choudhury and E. Hahne, 1998).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum PuntKind {
    /// A packet for the switch itself.
    Packet,
    /// How a packet ended.
    DropNotice,
    /// A message of a link itself.
    LinkMessage,
    /// A handshake message from where a link is.
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
    /// What workers have noticed: no frames.
    pub(crate) notes: ArrayQueue<Punt>,
    /// Handshake messages from where links are.
    pub(crate) handshakes: ArrayQueue<HandshakeDatagram>,
    /// Those from elsewhere, and beacons.
    pub(crate) unknown_peers: UnknownSenders,
    /// What else the slow path wants to be woken for.
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

    /// Whether nothing waits for the slow path.
    pub(crate) fn is_empty(&self) -> bool {
        let punts = [&self.packets, &self.drop_notices, &self.link_messages, &self.notes];
        punts.iter().all(|queue| queue.is_empty())
            && self.handshakes.is_empty()
            && self.unknown_peers.len() == 0
    }

    /// Places of this kind that are free.
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

/// Handshake messages from addresses that no link has, and beacons. The places are shared by those who
/// send: each host holds at most as many as are left free, so another one finds a place.
#[derive(Debug)]
pub(crate) struct UnknownSenders {
    queue: ArrayQueue<HandshakeDatagram>,
    /// Places that are held, by a cell in each row that a host's hash names. Two hosts that share all their
    /// cells are rare, so the least of a host's cells is what it holds (a count-min sketch).
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

    /// Adds one, or gives it back: of so many places none is free, or its sender has its share.
    pub(crate) fn push(
        &self,
        datagram: HandshakeDatagram,
        places: usize,
    ) -> Result<(), HandshakeDatagram> {
        let from = datagram.from;
        // Relaxed: these are counts, and nothing is read behind them. Workers that count at the same time
        // may each take one place more.
        let held = self.cells_of(from).map(|cell| cell.load(Ordering::Relaxed)).min();
        if held.unwrap_or_default() as usize >= places.saturating_sub(self.len()) {
            return Err(datagram);
        }
        // Counted before it is there, so that what `pop` takes off was put on. Relaxed: the queue commands
        // the two.
        self.cells_of(from).for_each(|cell| _ = cell.fetch_add(1, Ordering::Relaxed));
        self.queue.push(datagram).inspect_err(|_| self.uncount(from))
    }

    /// Takes the oldest one.
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

/// A hash of what one sender has to itself: an IPv4 address, an IPv6 /64, a MAC address. The UDP port is no part
/// of it, since one host has all of them. It may be guessed: who forges one address can forge all.
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
    // The last step of MurmurHash3: every bit depends on all others.
    let hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

/// What a worker has seen and the slow path should know.
#[derive(Debug)]
pub(crate) enum Punt {
    /// A packet for the switch itself, as it came: label and shift untouched.
    Packet {
        /// The worker that it came through.
        worker: u8,
        /// The link that it came in by.
        ingress: Mark,
        /// The slot that it came in by.
        ingress_slot: u32,
        /// Where frames from there may go.
        rights: Rights,
        /// When it came.
        at: Now,
        /// The frame.
        frame: Frame,
    },
    /// A packet went no further, and its sender may want to be told. The frame itself is gone and
    /// counted.
    Dropped(DropNotice),
    /// An authenticated message of a link itself: a path challenge, or the answer to one.
    LinkMessage {
        /// The worker that opened it.
        worker: u8,
        /// The link.
        link: Mark,
        /// What kind.
        kind: Kind,
        /// The port that it came in by and the address that it came from.
        from: Option<(u16, Address)>,
        /// The frame: link header and message.
        frame: Frame,
    },
    /// The first frame under a session's keys was opened: the peer has them.
    FirstFrame(SessionIndex),
    /// An authenticated frame of a link came from another address than the link has.
    Roamed {
        /// The link.
        link: Mark,
        /// The port that it came in by.
        port: u16,
        /// Where it came from.
        from: Address,
        /// How long it was, tag included.
        bytes: u16,
    },
    /// A session's authenticated frames come in by this worker and are opened by another.
    Migrate(SessionIndex, u8),
    /// A link's sealer has sealed so much that new keys are wanted.
    RekeyDue(Mark),
    /// A frame was to leave by a link that is quiet: it wants keys.
    Unsealed(Mark),
    /// The kernel refused to send a handshake message.
    SendFailed {
        /// The port.
        port: u16,
        /// Where it was to go.
        to: Address,
        /// Why (`errno.h`).
        errno: i32,
    },
    /// A frame that came in by this link named a slot by a number that is retiring. Said seldom.
    AliasUsed {
        /// The number that its label named.
        slot: u32,
        /// What was seen of the frame, which went on.
        packet: DropNotice,
    },
}

impl Punt {
    /// The frame that it brings.
    pub(crate) fn into_frame(self) -> Option<Frame> {
        match self {
            Self::Packet { frame, .. } | Self::LinkMessage { frame, .. } => Some(frame),
            _ => None,
        }
    }
}

/// How a packet ended at a worker, and what else the worker saw: what errors and traces are made of.
#[derive(Clone, Debug)]
pub(crate) struct DropNotice {
    /// The worker where it ended.
    pub(crate) worker: u8,
    /// The link that it came in by.
    pub(crate) ingress: Mark,
    /// The slot that it came in by.
    pub(crate) ingress_slot: u32,
    /// Where frames from there may go.
    pub(crate) rights: Rights,
    /// When it came.
    pub(crate) at: Now,
    /// Why it went no further.
    pub(crate) discard: Discard,
    /// Of a trace's packet whose hops were spent: what it would have met next, if anything.
    pub(crate) dry_run: Option<Discard>,
    /// The exit it was to leave by, if it came so far.
    pub(crate) exit: Option<NextHopInfo>,
    /// How long the packet was, link header and tag left out.
    pub(crate) packet_bytes: u16,
    /// Its header, and what followed as far as there was room. Where the exit refused it, the header
    /// is as it was to leave.
    pub(crate) head: ArrayVec<u8, HEAD_BYTES_MAX>,
}

/// An exit, as a worker saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NextHopInfo {
    /// The link.
    pub(crate) link: Mark,
    /// Frames that waited there.
    pub(crate) queue_frames: u16,
    /// Bytes of the longest packet that goes by it, link header included and tag not.
    pub(crate) packet_bytes_max: u16,
}

/// A message that proves nothing yet: a handshake's, or a beacon. On its way to the slow path through a queue of
/// its own, so that unknown peers cannot crowd out those who are known.
#[derive(Debug)]
pub(crate) struct HandshakeDatagram {
    /// The worker that it came through: its sender's flow comes in there.
    pub(crate) worker: u8,
    /// The port that it came in by.
    pub(crate) port: u16,
    /// The link whose address it came from, if that is anybody's.
    pub(crate) link: Mark,
    /// Where it came from.
    pub(crate) from: Address,
    /// The frame.
    pub(crate) frame: Frame,
}

/// A frame on its way to another worker.
#[derive(Debug)]
pub(crate) enum Handoff {
    /// To the worker that owns its exit.
    Egress { to: Mark, ingress_slot: u32, is_control: bool, frame: Frame },
    /// To the worker that opens its session, by the one that received it.
    WrongWorker { by: u8, frame: Frame },
}

impl Handoff {
    /// Whether it is known to be control. Of a stray nothing is known before it is opened.
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
