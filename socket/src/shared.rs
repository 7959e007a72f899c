//! State that sockets and the driver share.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};

use crossbeam_queue::ArrayQueue;
use strowger_connection::{
    CloseReason, ConnectOptions, ConnectionInfo, Counters, Destination, Goodbye, ListenOptions,
    NoConnection, PingId, ProtocolNames,
};
use strowger_crypto::PeerId;
use strowger_frame::{Frame, Train, ready::ReadyBits, ring, waker::TaskBell};
use strowger_io::DoorbellWaker;
use strowger_wire::{label::AnyLabel, switch_header::Ecn};

use crate::{
    connection, datagram_socket::DatagramShared, error::NodeClosed, event::EventHub,
    listener::ListenerShared, message::Hold, reply::Responder, socket::Socket,
};

/// State that all handles of a node and its driver share.
pub(crate) struct NodeShared {
    pub(crate) peer: PeerId,
    /// One bit for each socket: its number is the socket's place.
    pub(crate) ready: ReadyBits,
    /// One bit for each datagram socket.
    pub(crate) ready_datagrams: ReadyBits,
    pub(crate) requests: ArrayQueue<Request>,
    pub(crate) driver: DoorbellWaker,
    /// Tells the driver to look for dropped handles: attempts to connect, listeners, datagram
    /// sockets, and the last handle of the node.
    pub(crate) sweep: AtomicBool,
    /// The driver has ended.
    pub(crate) is_over: AtomicBool,
    pub(crate) events: EventHub,
    pub(crate) tally: NodeTally,
    /// Whether the program drives the node itself, so that its threads must not wait for replies.
    pub(crate) is_manual: bool,
}

/// A request to the driver that cannot be queued.
pub(crate) enum NotQueued {
    Busy,
    Closed,
}

impl NodeShared {
    /// Reports that a socket has work for the driver.
    #[inline]
    pub(crate) fn signal(&self, place: usize) {
        self.ready.set(place);
        self.driver.wake();
    }

    /// Reports that a handle was dropped.
    pub(crate) fn request_sweep(&self) {
        // Release: pairs with Acquire in the driver, which then sees that the handle was dropped.
        self.sweep.store(true, Ordering::Release);
        self.driver.wake();
    }

    pub(crate) fn request(&self, request: Request) -> Result<(), NotQueued> {
        self.requests.push(request).map_err(|_| NotQueued::Busy)?;
        self.driver.wake();
        // SeqCst, as in `Driver::drop`: either the driver finds the request when it ends, or this
        // thread sees that the driver has ended.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.is_over.load(Ordering::SeqCst) {
            // Dropping a request answers it.
            while self.requests.pop().is_some() {}
            return Err(NotQueued::Closed);
        }
        Ok(())
    }
}

/// Counters of a node that its endpoint does not have.
#[derive(Debug, Default)]
pub(crate) struct NodeTally {
    pub(crate) rx_queue_full: AtomicU64,
    pub(crate) pass_through_full: AtomicU64,
    pub(crate) rx_hold_full: AtomicU64,
    pub(crate) messages_copied: AtomicU64,
    pub(crate) tx_refused: AtomicU64,
    pub(crate) tx_port_gone: AtomicU64,
    pub(crate) backlog_full: AtomicU64,
    pub(crate) no_memory: AtomicU64,
}

/// Adds to a counter that only the driver writes.
pub(crate) fn count(counter: &AtomicU64, n: u64) {
    // Relaxed: a statistic.
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Counters of a socket. Each message that arrived for the socket was received by the program, is
/// queued, or is counted here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketCounters {
    /// Messages that were dropped because the receive queue was full.
    pub rx_queue_full: u64,
    /// Pass-through messages that were dropped because half of the receive queue was taken.
    pub pass_through_full: u64,
    /// Messages that were dropped because the program holds, or has not yet received, too many
    /// messages of this socket, or because memory was low and no copy could be made.
    pub rx_hold_full: u64,
    /// Messages that were copied because the program holds many messages of this socket.
    pub messages_copied: u64,
    /// Messages that were queued and then refused: too long after a change of the path, no path, or
    /// the socket was closed.
    pub tx_refused: u64,
}

#[derive(Debug, Default)]
pub(crate) struct SocketTally {
    pub(crate) rx_queue_full: AtomicU64,
    pub(crate) pass_through_full: AtomicU64,
    pub(crate) rx_hold_full: AtomicU64,
    pub(crate) messages_copied: AtomicU64,
    pub(crate) tx_refused: AtomicU64,
}

impl SocketTally {
    pub(crate) fn read(&self) -> SocketCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SocketCounters {
            rx_queue_full: read(&self.rx_queue_full),
            pass_through_full: read(&self.pass_through_full),
            rx_hold_full: read(&self.rx_hold_full),
            messages_copied: read(&self.messages_copied),
            tx_refused: read(&self.tx_refused),
        }
    }
}

/// Messages may be sent.
pub(crate) const OPEN: u8 = 0;
/// The connection has no path.
pub(crate) const NO_PATH: u8 = 1;
/// The peer does not accept the protocol.
pub(crate) const UNSUPPORTED: u8 = 2;

/// State that a socket and the driver share, besides their rings.
pub(crate) struct SocketShared {
    /// The number of the socket's ready bit.
    pub(crate) place: usize,
    pub(crate) peer: PeerId,
    pub(crate) protocol: Box<str>,
    pub(crate) message_max: AtomicUsize,
    /// Bytes of link header, switch header, connection header and protocol number of a packet along
    /// the present path.
    pub(crate) headers: AtomicUsize,
    pub(crate) state: AtomicU8,
    /// Set once, after the last message was pushed. Receivers read the flag before they take
    /// messages.
    pub(crate) closed: AtomicBool,
    pub(crate) close_reason: OnceLock<CloseReason>,
    /// Both halves of the socket were dropped.
    pub(crate) is_dropped: AtomicBool,
    /// The program has taken the socket from its listener.
    pub(crate) is_taken: AtomicBool,
    /// The class, and in bits 8 and 9 the congestion mark, of packets to send.
    pub(crate) marking: AtomicUsize,
    pub(crate) tally: SocketTally,
    pub(crate) hold: Arc<Hold>,
    /// The driver rings it after it has pushed a message or closed the socket.
    pub(crate) rx_bell: TaskBell,
    /// The driver rings it when there is room in the ring or an empty chunk, or when the state has
    /// changed.
    pub(crate) tx_bell: TaskBell,
}

impl SocketShared {
    /// Ends the socket: the halves return the reason after the last message.
    pub(crate) fn close(&self, reason: CloseReason) {
        // The first reason stays.
        let _ = self.close_reason.set(reason);
        // Release: pairs with Acquire in `is_closed`.
        self.closed.store(true, Ordering::Release);
        self.rx_bell.ring();
        self.tx_bell.ring();
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn reason(&self) -> CloseReason {
        self.close_reason.get().cloned().unwrap_or(CloseReason::ByUs)
    }
}

/// A message in the ring of a socket.
pub(crate) struct Arrived {
    pub(crate) frame: Frame,
    pub(crate) info: strowger_connection::MessageInfo,
}

/// The socket's ends of the rings.
pub(crate) struct SocketEnds {
    pub(crate) chunks: ring::Consumer<Train>,
    pub(crate) filled: ring::Producer<Frame>,
    pub(crate) arrived: ring::Consumer<Arrived>,
}

/// The driver's ends of the rings.
pub(crate) struct DriverEnds {
    pub(crate) chunks: ring::Producer<Train>,
    pub(crate) filled: ring::Consumer<Frame>,
    pub(crate) arrived: ring::Producer<Arrived>,
}

pub(crate) fn rings(depth: usize) -> (SocketEnds, DriverEnds) {
    let (chunks_in, chunks) = ring::ring(crate::limits::CHUNKS_READY);
    let (filled, filled_out) = ring::ring(depth);
    let (arrived_in, arrived) = ring::ring(depth);
    let ours = SocketEnds { chunks, filled, arrived };
    (ours, DriverEnds { chunks: chunks_in, filled: filled_out, arrived: arrived_in })
}

/// Keeps a node running. When the last one is dropped, the driver sends goodbyes and ends.
pub(crate) struct Alive(pub(crate) Arc<NodeShared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.request_sweep();
    }
}

/// A request to the driver. Dropping one answers it with [`NodeClosed`].
pub(crate) enum Request {
    Connect {
        to: Box<Destination>,
        names: ProtocolNames,
        options: ConnectOptions,
        reply: Responder<Result<Socket, connection::ConnectError>>,
    },
    Listen {
        names: ProtocolNames,
        options: ListenOptions,
        listener: Arc<ListenerShared>,
        reply: Responder<Result<(), connection::ListenError>>,
    },
    DatagramSocket {
        names: ProtocolNames,
        socket: Arc<DatagramShared>,
        reply: Responder<Result<(), connection::ListenError>>,
    },
    Info {
        peer: PeerId,
        reply: Responder<Option<ConnectionInfo>>,
    },
    Peers {
        reply: Responder<Vec<PeerId>>,
    },
    Counters {
        reply: Responder<Counters>,
    },
    Identify {
        peer: PeerId,
        reply: Responder<Result<(), NoConnection>>,
    },
    Ping {
        peer: PeerId,
        padding: usize,
        reply: Responder<Result<PingId, NoConnection>>,
    },
    Leave {
        peer: PeerId,
        seconds: u16,
        goodbye: Goodbye,
        reply: Responder<Result<(), NoConnection>>,
    },
    Stay {
        peer: PeerId,
        weight: u8,
        reply: Responder<Result<(), NoConnection>>,
    },
    SetLabel {
        peer: PeerId,
        label: AnyLabel,
        reply: Responder<Result<(), NoConnection>>,
    },
    CloseConnection {
        peer: PeerId,
        goodbye: Goodbye,
        reply: Responder<()>,
    },
    Close {
        goodbye: Goodbye,
        reply: Responder<()>,
    },
}

/// Packs class and congestion mark into one number.
pub(crate) fn marking(class: u8, ecn: Ecn) -> usize {
    usize::from(class) | (ecn as usize) << 8
}

/// Unpacks a number made by [`marking`].
pub(crate) fn unpack_marking(marking: usize) -> (u8, Ecn) {
    let ecn = match marking >> 8 & 3 {
        1 => Ecn::Capable1,
        2 => Ecn::Capable0,
        3 => Ecn::Congested,
        _ => Ecn::NotCapable,
    };
    (marking as u8, ecn)
}

impl From<NotQueued> for crate::ConnectError {
    fn from(why: NotQueued) -> Self {
        match why {
            NotQueued::Busy => Self::Busy,
            NotQueued::Closed => Self::NodeClosed(NodeClosed),
        }
    }
}

impl From<NotQueued> for crate::ListenError {
    fn from(why: NotQueued) -> Self {
        match why {
            NotQueued::Busy => Self::Busy,
            NotQueued::Closed => Self::NodeClosed(NodeClosed),
        }
    }
}
