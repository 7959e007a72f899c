//! The events of an endpoint.

use strowger_crypto::{Nanos, PeerId};
use strowger_wire::label::AnyLabel;
use strowger_wire::link_header::Lane;

use crate::error::ConnectError;
use crate::goodbye::{CloseReason, Goodbye};
use crate::ids::{ListenerId, PingId, SocketId};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A socket is connected: its messages no longer wait.
    Connected {
        /// The socket.
        socket: SocketId,
        /// The peer.
        peer: PeerId,
        /// The index of the chosen name in the list that was given to `connect`.
        name: usize,
    },
    /// Connecting failed; the socket is closed.
    ConnectFailed {
        /// The socket.
        socket: SocketId,
        /// The reason why connecting failed.
        error: ConnectError,
    },
    /// A peer's first message to a listener opened a socket. The socket counts in the listener's
    /// backlog until [`take_accepted`](crate::Endpoint::take_accepted).
    Accepted {
        /// The listener.
        listener: ListenerId,
        /// The socket.
        socket: SocketId,
        /// The peer.
        peer: PeerId,
    },
    /// The length limit of a socket's messages has changed.
    MessageMax {
        /// The socket.
        socket: SocketId,
        /// Bytes of the longest message.
        bytes: usize,
    },
    /// A socket that refused messages as `Full`, `NoPath` or `Unsupported` takes them again.
    Writable {
        /// The socket.
        socket: SocketId,
    },
    /// The peer does not accept the protocol of this socket, or no longer allows it.
    Unsupported {
        /// The socket.
        socket: SocketId,
    },
    /// A socket was closed by the peer or with its connection.
    SocketClosed {
        /// The socket.
        socket: SocketId,
        /// Why.
        reason: CloseReason,
    },
    /// There is a connection with this peer.
    PeerConnected {
        /// The peer.
        peer: PeerId,
    },
    /// The connection with this peer is closed.
    PeerClosed {
        /// The peer.
        peer: PeerId,
        /// Why.
        reason: CloseReason,
    },
    /// The peer has restarted: it has forgotten the connection. Sockets stay open.
    PeerRestarted {
        /// The peer.
        peer: PeerId,
    },
    /// Messages are sent along another label.
    PathChanged {
        /// The peer.
        peer: PeerId,
        /// The label.
        label: AnyLabel,
        /// The round trip, if it is known.
        rtt: Option<Nanos>,
    },
    /// The connection has lost its last path; the endpoint asks routing for labels.
    PathLost {
        /// The peer.
        peer: PeerId,
    },
    /// The peer did not take the early message; it was sent again, sealed.
    EarlyRefused {
        /// The socket.
        socket: SocketId,
    },
    /// The answer to `identify`.
    Identified {
        /// The peer.
        peer: PeerId,
        /// The name and version of the peer's program.
        agent: String,
        /// The hops left of the request when it arrived at the peer.
        hops_left: u8,
        /// The label from the peer to this node: the return label of the request.
        label: AnyLabel,
        /// Bytes of the longest connection packet that the peer accepts.
        mtu: u16,
    },
    /// The answer to a ping.
    Pong {
        /// The peer.
        peer: PeerId,
        /// The ping.
        id: PingId,
        /// The round trip.
        rtt: Nanos,
    },
    /// No answer to a ping came in time.
    PingLost {
        /// The peer.
        peer: PeerId,
        /// The ping.
        id: PingId,
    },
    /// The peer will close the connection.
    Leaving {
        /// The peer.
        peer: PeerId,
        /// The number of seconds until the peer closes the connection.
        seconds: u16,
        /// The code and the text that the peer stated.
        goodbye: Goodbye,
    },
    /// The peer wants the connection to stay.
    Stay {
        /// The peer.
        peer: PeerId,
        /// The strength of this wish, from 0 to 255.
        weight: u8,
    },
    /// The peer's report of packets received on a lane, under the present keys.
    Report {
        /// The peer.
        peer: PeerId,
        /// The lane.
        lane: Lane,
        /// The number of received packets.
        packets: u64,
        /// The number of received packets with a congestion mark.
        marked_ce: u64,
        /// The greatest counter of a received packet.
        newest: u64,
    },
    /// A switch on the path reported congestion. The report is not authenticated.
    Congestion {
        /// The peer.
        peer: PeerId,
    },
}
