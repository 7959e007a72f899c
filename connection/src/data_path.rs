//! The path of every message: from a socket to its packet, and from a packet to its socket.
//!
//! A send finds its connection by the socket's place, and a packet finds its connection by the low
//! bits of its index and its socket by the protocol number. Nothing here allocates, locks or copies
//! a message.

use arrayvec::ArrayVec;
use strowger_crypto::{Nanos, OpenRefused, SealRefused, Sealed, Sealer};
use strowger_frame::Frame;
use strowger_wire::connection::header::CONNECTION_HEADER_BYTES;
use strowger_wire::connection::message::{CONTROL_NUMBER, PASS_THROUGH_PREFIX_BYTES, PassThrough};
use strowger_wire::connection::{ConnectionHeader, PathToken};
use strowger_wire::limits::{CONNECTION_OVERHEAD_BYTES, TAG_BYTES};
use strowger_wire::link_header::{Kind, Lane, SessionIndex};
use strowger_wire::switch_header::Ecn;

use crate::counters::Discard;
use crate::heap::vec_bytes;
use crate::ids::{DatagramId, SocketId};
use crate::limits::{LENGTH_START_WITH_HEADER, SENDING_LANES};
use crate::packet::{Arrival, PacketMark, Route};
use crate::path::Noted;
use crate::sessions::{Found, Sessions};

/// The target of received messages with one protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// To a socket of the connection.
    Socket(SocketId),
    /// To a datagram socket.
    Datagram(DatagramId),
    /// A listener accepts the protocol: the control part opens a socket.
    Listener,
    /// The protocol's last socket was closed.
    Closed,
}

/// The sealing side of a connection.
pub(crate) struct Tx {
    /// The sealers of all lanes.
    pub(crate) sealers: ArrayVec<Sealer, { SENDING_LANES as usize }>,
    /// The header of packets along the active path; `None` while no path may be used.
    pub(crate) route: Option<Route>,
    /// Bytes of the longest message.
    pub(crate) message_max: u16,
    /// Whether the peer accepts pass-through messages.
    pub(crate) may_pass_through: bool,
}

/// The data path's state of a connection.
pub(crate) struct HotConnection {
    pub(crate) tx: Option<Box<Tx>>,
    /// The targets of the own protocol numbers, from number 1.
    pub(crate) targets: Vec<Target>,
    /// The times at which a message was last sent, a message of at least the search's start length
    /// was last sent, and a message was last delivered.
    pub(crate) message_sent: Nanos,
    pub(crate) long_sent: Nanos,
    pub(crate) message_heard: Nanos,
    /// The time of the first message, or of the first items that the peer answers, after the last
    /// opened packet; `None` if no answer is due.
    pub(crate) due_since: Option<Nanos>,
    /// Whether the next message must wake the control part.
    pub(crate) is_quiet: bool,
    /// Whether the control part has a timer for `due_since`.
    pub(crate) is_watched: bool,
    /// Whether the control part must see each opened packet, to count its bytes.
    pub(crate) has_ledger: bool,
    /// The generation of the newest keys under which a packet was opened.
    pub(crate) generation: u32,
}

impl HotConnection {
    pub(crate) fn new(now: Nanos) -> HotConnection {
        HotConnection {
            tx: None,
            targets: Vec::new(),
            message_sent: Nanos::ZERO,
            long_sent: Nanos::ZERO,
            message_heard: now,
            due_since: None,
            is_quiet: true,
            is_watched: false,
            has_ledger: false,
            generation: 0,
        }
    }

    /// Notes a message that is sent. Returns whether the control part must be woken.
    #[inline]
    fn note_message_sent(&mut self, now: Nanos, packet_bytes: usize) -> bool {
        self.message_sent = now;
        if packet_bytes >= usize::from(LENGTH_START_WITH_HEADER) {
            self.long_sent = now;
        }
        let is_first = self.due_since.is_none();
        if is_first {
            self.due_since = Some(now);
        }
        let wakes = self.is_quiet || (is_first && !self.is_watched);
        self.is_quiet = false;
        self.is_watched |= is_first;
        wakes
    }

    /// The time at which a message was last sent or delivered.
    pub(crate) fn used(&self) -> Nanos {
        self.message_sent.max(self.message_heard)
    }

    /// The times that the path set copies from the data path.
    pub(crate) fn noted(&self) -> Noted {
        let some = |at: Nanos| (at != Nanos::ZERO).then_some(at);
        Noted {
            due: self.due_since,
            heard: self.message_heard,
            message_sent: some(self.message_sent),
            long_sent: some(self.long_sent),
        }
    }

    /// Bytes of memory behind this value.
    pub(crate) fn memory(&self) -> usize {
        let tx = self.tx.as_ref().map_or(0, |_| size_of::<Tx>());
        tx + vec_bytes(&self.targets)
    }
}

/// The data path's state of a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HotSocket {
    /// The turn of the socket's handle, so that handles of earlier sockets find nothing.
    pub(crate) turn: u32,
    pub(crate) connection: u32,
    pub(crate) flow: u16,
    /// The protocol's number in the peer's table; 0 while it is not known, or if messages are
    /// refused.
    pub(crate) number: u8,
    pub(crate) class: u8,
    pub(crate) ecn: Ecn,
    pub(crate) is_open: bool,
}

/// An opened packet, and what the control part must do before its message is delivered.
#[derive(Debug)]
pub(crate) struct OpenedPacket {
    pub(crate) connection: u32,
    pub(crate) index: SessionIndex,
    pub(crate) lane: Lane,
    /// Whether the packet is empty, or the first under these keys.
    pub(crate) is_sign: bool,
    /// Whether the paths must see the packet: its source differs from that of the last packet, or
    /// the paths count bytes.
    pub(crate) is_noted: bool,
    /// Whether the packet has the greatest counter of its lane.
    pub(crate) is_newest: bool,
    pub(crate) what: OpenedBody,
}

/// The body of an opened packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OpenedBody {
    Empty,
    /// Control items, behind the protocol number.
    Items,
    /// A message to this number.
    Message(u8),
    Challenge(Option<PathToken>),
    Response(Option<PathToken>),
}

/// Why a message is not sealed on the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slow {
    /// Keys, path or number are missing: the control part decides.
    Ask,
    /// The message is too long.
    TooLong { max: usize },
    /// The frame has too little room.
    NoRoom,
}

/// The data path of all connections.
pub(crate) struct DataPath {
    pub(crate) sessions: Sessions,
    pub(crate) connections: Vec<HotConnection>,
    pub(crate) sockets: Vec<HotSocket>,
    /// Connections whose control part must be polled.
    pub(crate) wakes: Vec<u32>,
}

impl DataPath {
    pub(crate) fn new() -> DataPath {
        DataPath {
            sessions: Sessions::new(),
            connections: Vec::new(),
            sockets: Vec::new(),
            wakes: Vec::new(),
        }
    }

    /// Bytes of memory of the tables.
    pub(crate) fn memory(&self) -> usize {
        self.sessions.memory()
            + vec_bytes(&self.connections)
            + vec_bytes(&self.sockets)
            + vec_bytes(&self.wakes)
    }

    /// The open socket with this handle.
    #[inline]
    pub(crate) fn socket(&self, socket: SocketId) -> Option<&HotSocket> {
        self.sockets.get(socket.index()).filter(|hot| hot.turn == socket.turn() && hot.is_open)
    }

    /// Seals the message in `frame` in place.
    #[inline]
    pub(crate) fn seal(
        &mut self,
        now: Nanos,
        hot: &HotSocket,
        frame: &mut Frame,
    ) -> Result<(), Slow> {
        if hot.number == 0 {
            return Err(Slow::Ask);
        }
        let mark = PacketMark { flow: hot.flow, class: hot.class, ecn: hot.ecn, no_errors: false };
        self.seal_to(now, hot.connection, hot.number, mark, frame)
    }

    /// Seals the message in `frame` in place, for a number of the peer's table.
    #[inline]
    pub(crate) fn seal_to(
        &mut self,
        now: Nanos,
        connection: u32,
        number: u8,
        mark: PacketMark,
        frame: &mut Frame,
    ) -> Result<(), Slow> {
        let connection_at = connection as usize;
        let Some(hot) = self.connections.get_mut(connection_at) else { return Err(Slow::Ask) };
        let Some(tx) = hot.tx.as_deref_mut() else { return Err(Slow::Ask) };
        let Some(route) = &tx.route else { return Err(Slow::Ask) };
        let Some(sealer) = tx.sealers.first_mut() else { return Err(Slow::Ask) };
        let bytes = frame.len();
        if bytes > usize::from(tx.message_max) {
            return Err(Slow::TooLong { max: usize::from(tx.message_max) });
        }
        let front = route.header_bytes() + CONNECTION_HEADER_BYTES + 1;
        if frame.headroom() < front || !frame.grow_back(TAG_BYTES) {
            return Err(Slow::NoRoom);
        }
        if !frame.grow_front(front) {
            frame.truncate(bytes);
            return Err(Slow::NoRoom);
        }
        let packet = frame.bytes_mut();
        route.write(packet, mark);
        let at = route.header_bytes();
        if let Some(place) = packet.get_mut(at + CONNECTION_HEADER_BYTES) {
            *place = number;
        }
        let sealed = match packet.get_mut(at..) {
            Some(packet) => sealer.seal(now, Sealed::Data, packet),
            None => Err(SealRefused::NoRoom),
        };
        if sealed.is_err() {
            // The keys are too old: the control part starts a handshake.
            frame.shrink_front(front);
            frame.truncate(bytes);
            return Err(Slow::Ask);
        }
        if hot.note_message_sent(now, front + bytes + TAG_BYTES) {
            self.wakes.push(connection);
        }
        Ok(())
    }

    /// Writes the header of a pass-through message in front of it.
    pub(crate) fn pass_through(&mut self, hot: &HotSocket, frame: &mut Frame) -> Result<(), Slow> {
        let connection = self.connections.get_mut(hot.connection as usize).ok_or(Slow::Ask)?;
        let tx = connection.tx.as_deref_mut().filter(|tx| tx.may_pass_through).ok_or(Slow::Ask)?;
        let (Some(route), Some(sealer)) = (&tx.route, tx.sealers.first()) else {
            return Err(Slow::Ask);
        };
        if frame.len() > usize::from(tx.message_max) + TAG_BYTES {
            return Err(Slow::TooLong { max: usize::from(tx.message_max) });
        }
        let number = strowger_wire::connection::EntryNumber::new(hot.number).ok_or(Slow::Ask)?;
        let head =
            PassThrough { lane: sealer.lane(), index: sealer.to(), number, message: &[] }.prefix();
        if !frame.grow_front(route.header_bytes() + PASS_THROUGH_PREFIX_BYTES) {
            return Err(Slow::NoRoom);
        }
        let mark = PacketMark { flow: hot.flow, class: hot.class, ecn: hot.ecn, no_errors: false };
        let packet = frame.bytes_mut();
        route.write(packet, mark);
        if let Some(place) =
            packet.get_mut(route.header_bytes()..).and_then(|rest| rest.get_mut(..head.len()))
        {
            place.copy_from_slice(&head);
        }
        Ok(())
    }

    /// Opens a sealed packet in place. `packet` begins with the connection header.
    #[inline]
    pub(crate) fn open(
        &mut self,
        now: Nanos,
        header: &ConnectionHeader,
        arrival: &Arrival,
        packet: &mut [u8],
    ) -> Result<OpenedPacket, Discard> {
        if packet.len() < CONNECTION_OVERHEAD_BYTES - 1 {
            return Err(Discard::TooShort);
        }
        let Found::Receiver(number) = self.sessions.find(header.index) else {
            return Err(Discard::NoSession);
        };
        let Some(receiver) = self.sessions.receiver_mut(number) else {
            return Err(Discard::NoSession);
        };
        let opened = receiver.openers.open(now, packet).map_err(discard_of)?;
        let (counter, lane, kind, is_first) =
            (opened.counter(), opened.lane(), opened.kind(), opened.first());
        let body = opened.into_body();
        let what = match (kind, &*body) {
            (Kind::PathChallenge, body) => OpenedBody::Challenge(PathToken::of_challenge(body)),
            (Kind::PathResponse, body) => OpenedBody::Response(PathToken::of_response(body)),
            (_, []) => OpenedBody::Empty,
            (_, [CONTROL_NUMBER, ..]) => OpenedBody::Items,
            (_, [number, ..]) => OpenedBody::Message(*number),
        };
        let (mut teaches, mut is_newest) = (false, false);
        if let Some(seen) = receiver.lanes.get_mut(usize::from(lane.number())) {
            seen.packets += 1;
            seen.marked_ce += u64::from(arrival.ecn == Ecn::Congested);
            seen.is_news |= matches!(what, OpenedBody::Message(_));
            if counter >= seen.next {
                seen.next = counter + 1;
                is_newest = true;
                // A path response says nothing about the peer's location, because it follows the
                // path of its challenge.
                if kind != Kind::PathResponse && seen.source != Some(arrival.source) {
                    seen.source = Some(arrival.source);
                    teaches = true;
                }
            }
        }
        let (connection, index) = (receiver.connection, receiver.index);
        let mut has_ledger = false;
        if let Some(hot) = self.connections.get_mut(connection as usize) {
            // A relay may have held back a packet of former keys. After a packet of newer keys it
            // teaches no label (W6-173).
            if hot.generation.wrapping_sub(receiver.generation) as i32 <= 0 {
                hot.generation = receiver.generation;
            } else {
                (teaches, is_newest) = (false, false);
            }
            // A challenge is no answer: the peer may challenge because it receives nothing from
            // this end.
            if kind != Kind::PathChallenge {
                hot.due_since = None;
            }
            has_ledger = hot.has_ledger;
        }
        let is_sign = is_first || what == OpenedBody::Empty;
        let is_noted = teaches || has_ledger;
        Ok(OpenedPacket { connection, index, lane, is_sign, is_noted, is_newest, what })
    }

    /// The target of a message to this number of a connection. Notes the time of the message.
    #[inline]
    pub(crate) fn target(&mut self, now: Nanos, connection: u32, number: u8) -> Option<Target> {
        let hot = self.connections.get_mut(connection as usize)?;
        let target = *hot.targets.get(usize::from(number).wrapping_sub(1))?;
        if matches!(target, Target::Socket(_) | Target::Datagram(_)) {
            hot.message_heard = now;
            if core::mem::replace(&mut hot.is_quiet, false) {
                self.wakes.push(connection);
            }
        }
        Some(target)
    }
}

/// Leaves only the message in the frame of an opened packet.
#[inline]
pub(crate) fn strip(frame: &mut Frame, header_bytes: usize) {
    frame.shrink_front(header_bytes + CONNECTION_HEADER_BYTES + 1);
    frame.truncate(frame.len().saturating_sub(TAG_BYTES));
}

fn discard_of(why: OpenRefused) -> Discard {
    match why {
        OpenRefused::Runt => Discard::TooShort,
        OpenRefused::WrongKind => Discard::BadConnectionKind,
        OpenRefused::NoSuchLane | OpenRefused::Forged => Discard::BadSeal,
        OpenRefused::Expired => Discard::KeysExpired,
        OpenRefused::Replayed | OpenRefused::TooOld => Discard::Replayed,
    }
}
