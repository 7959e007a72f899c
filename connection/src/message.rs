//! Results of a packet that arrived and of a message that is sent.

use strowger_crypto::PeerId;
use strowger_frame::Frame;
use strowger_wire::switch_header::Ecn;

use crate::counters::Discard;
use crate::ids::{DatagramId, SocketId};

/// The result of a received packet.
#[derive(Debug)]
pub enum Received {
    /// A message: the frame holds exactly the message.
    Message {
        /// The socket that receives it.
        to: MessageTo,
        /// The message, in the frame in which its packet arrived.
        frame: Frame,
        /// The properties of the message.
        info: MessageInfo,
    },
    /// The packet was handled and has no message for a program: for example a handshake message,
    /// control items or a control message.
    Consumed,
    /// Discarded, and counted.
    Discarded(Discard),
}

/// The receiver of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageTo {
    /// A socket.
    Socket(SocketId),
    /// A datagram socket, and the sender.
    Datagram(DatagramId, PeerId),
}

/// The properties of a received message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageInfo {
    pub(crate) early: bool,
    pub(crate) pass_through: bool,
    pub(crate) ecn: Ecn,
}

impl MessageInfo {
    /// Whether the message came in a handshake message. Such a message may be a replay of a message
    /// to an earlier process of this node.
    pub const fn is_early(&self) -> bool {
        self.early
    }

    /// Whether the connection has not authenticated the message.
    pub const fn is_pass_through(&self) -> bool {
        self.pass_through
    }

    /// The congestion mark with which the packet arrived.
    pub const fn ecn(&self) -> Ecn {
        self.ecn
    }
}

/// The result of sending a message.
#[derive(Debug)]
pub enum Sent {
    /// The packet, sealed in the message's frame: hand it to the port.
    Packet(Frame),
    /// There are no keys or no path yet. The message was copied and waits;
    /// [`poll_transmit`](crate::Endpoint::poll_transmit) returns its packet later.
    Queued,
}
