//! The errors of this crate, with their texts.

use strowger_crypto::PeerId;

use crate::goodbye::{CloseReason, Goodbye};

/// Why an endpoint cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The source of randomness failed.
    #[error("the source of randomness failed")]
    Entropy,
    /// The longest packet of the port cannot hold a handshake message.
    #[error(
        "the port takes packets of {bytes} bytes; a handshake needs {needed}: use a longer MTU"
    )]
    PacketTooShort {
        /// The longest packet of the port.
        bytes: u16,
        /// The shortest limit that works.
        needed: u16,
    },
}

/// The last stage that an attempt to connect has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectStage {
    /// Routing looks for a label.
    Lookup,
    /// A handshake waits for its response.
    Handshake,
    /// There are keys, but no label is validated.
    Path,
    /// The peer answered; this end waits for its protocol table.
    Protocols,
}

impl ConnectStage {
    /// A stable name in snake_case.
    pub const fn name(self) -> &'static str {
        match self {
            ConnectStage::Lookup => "lookup",
            ConnectStage::Handshake => "handshake",
            ConnectStage::Path => "path",
            ConnectStage::Protocols => "protocols",
        }
    }
}

impl core::fmt::Display for ConnectStage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            ConnectStage::Lookup => "no label to the peer was found",
            ConnectStage::Handshake => {
                "no answer to the handshake; the peer may not run, another node may be at the \
                 label, or the peer may not allow this PeerId or be in another network"
            }
            ConnectStage::Path => "no label is validated",
            ConnectStage::Protocols => "the peer's protocol table did not arrive",
        })
    }
}

/// Why connecting failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// No answer in time.
    #[error("no connection in time: {stage}")]
    Timeout {
        /// The last stage that the attempt has reached.
        stage: ConnectStage,
    },
    /// Only responses came that do not prove the PeerId.
    #[error(
        "no answer that proves this PeerId; {responses} responses did not authenticate: another \
         node may be at the label, or someone on the path answers"
    )]
    NotAuthenticated {
        /// The number of responses that do not prove the PeerId.
        responses: u32,
    },
    /// Routing found no label.
    #[error("no label to the peer is known: add it to the address book, or give one")]
    NoRoute,
    /// Another identity answered at every label.
    #[error("{found} answers at the label, not the wanted peer: the label is old or wrong")]
    WrongPeer {
        /// The identity that answered.
        found: PeerId,
    },
    /// The peer accepts none of the protocols, or this end may not use them.
    #[error("the peer accepts none of these protocols, or does not allow this node to use them")]
    Unsupported,
    /// The peer closed the connection.
    #[error("the peer refused the connection ({0})")]
    Refused(Goodbye),
    /// The path drops packets as long as a handshake.
    #[error("the path takes packets of {bytes} bytes; connecting needs {needed}")]
    PathTooNarrow {
        /// The longest packet that a switch on the path reported, in bytes of the link.
        bytes: u16,
        /// Bytes that a handshake needs.
        needed: u16,
    },
    /// A switch on the path dropped the handshake.
    #[error("a switch on the path drops packets ({why}): the label is old or wrong")]
    Dropped {
        /// The reason in the error, which is not authenticated.
        why: strowger_wire::control::Reason,
    },
    /// The versions, cipher suites or label widths of the two ends have nothing in common.
    #[error("the two ends have no version, cipher suite or label width in common: update one")]
    Disagreement,
    /// The policy of this node does not allow this peer.
    #[error("the policy of this node does not allow this peer")]
    NotAllowed,
    /// The peer asked this end to wait.
    #[error("the peer asked to wait for {seconds} s more before connecting again")]
    TooEarly {
        /// The seconds that are left.
        seconds: u32,
    },
    /// A socket for this peer and protocol is open.
    #[error("a socket for this peer and protocol is open")]
    AlreadyOpen,
    /// A listener or datagram socket has this protocol name with other flags, or the own protocol
    /// table of this connection is full.
    #[error("the protocol table of this connection is full: use fewer protocol names")]
    TableFull,
    /// The endpoint has reached its limit of connections.
    #[error("the endpoint has as many connections as it may have")]
    TooMany,
    /// The destination is this node itself.
    #[error("the peer is this node itself")]
    Ourselves,
    /// The early message does not fit, or the peer's key or protocol flags do not allow it.
    #[error("the early message has {bytes} bytes, and {max} fit")]
    EarlyTooLong {
        /// Bytes of the message.
        bytes: usize,
        /// Bytes that fit.
        max: usize,
    },
    /// The endpoint is closed.
    #[error("the endpoint is closed")]
    Closed,
}

/// Why listening failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// Another listener or datagram socket accepts this protocol.
    #[error("another listener accepts {0}")]
    AlreadyTaken(String),
    /// The protocol table would be too long.
    #[error("the node accepts as many protocols as fit its table")]
    TableFull,
    /// The endpoint is closed.
    #[error("the endpoint is closed")]
    Closed,
}

/// Why a message was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendRefused {
    /// There are no keys yet, and the queue of messages that wait for keys is full.
    #[error("too many messages wait for the connection")]
    Full,
    /// The message is longer than the path allows.
    #[error("the message is too long: {max} bytes fit")]
    TooLong {
        /// Bytes of the longest message now.
        max: usize,
    },
    /// The connection has no label that works.
    #[error("the connection has no path")]
    NoPath,
    /// The peer does not accept the protocol.
    #[error("the peer does not accept the protocol")]
    Unsupported,
    /// The socket is closed.
    #[error("the socket is closed: {0}")]
    Closed(CloseReason),
    /// There is no such socket.
    #[error("there is no such socket")]
    NoSocket,
    /// The frame has too little room for headers or tag.
    #[error("the frame has too little room in front of the message or behind it")]
    NoRoom,
    /// A new connection could not be started.
    #[error(transparent)]
    Connect(ConnectError),
}

/// Why a socket ended.
pub type SocketEnd = CloseReason;

/// There is no connection with this peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no connection with this peer")]
pub struct NoConnection;
