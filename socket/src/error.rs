//! The errors of this crate, with their texts.

use std::io;

use strowger_connection::{BadProtocolName, CloseReason, ConfigError};
use strowger_io::unix::ClientError;

/// The node is closed: [`Node::close`](crate::Node::close) was called, or its relay has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node is closed, or its relay has ended")]
pub struct NodeClosed;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The builder has no identity.
    #[error("the node has no identity: call NodeBuilder::identity")]
    NoIdentity,
    /// The builder has no attachment.
    #[error("the node has no slot: call NodeBuilder::attach")]
    NoAttachment,
    /// The name of the network is too long.
    #[error("the name of the network is longer than {max} bytes")]
    NetworkName {
        /// Maximum length, in bytes.
        max: usize,
    },
    /// The socket of the unix port cannot be used.
    #[error("{path}: {why}")]
    Unix {
        /// The path of the socket.
        path: String,
        /// The reason why the socket cannot be used.
        #[source]
        why: ClientError,
    },
    /// The switch sent no greeting: it is older than the second form of unix ports, or serves
    /// another client.
    #[error(
        "{path}: the switch sent no greeting: it serves another client, or it is too old for sockets"
    )]
    NoGreeting {
        /// The path of the socket.
        path: String,
    },
    /// The switch sent a scheme that cannot be read.
    #[error("{path}: the switch sent a scheme that cannot be read")]
    BadScheme {
        /// The path of the socket.
        path: String,
    },
    /// The endpoint refuses the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The kernel refuses memory, a descriptor or a thread.
    #[error("the kernel refuses memory, a descriptor or a thread: {0}")]
    System(#[from] io::Error),
}

/// Why connecting failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A name that is no protocol name.
    #[error(transparent)]
    BadName(#[from] BadProtocolName),
    /// The endpoint could not connect: see [`crate::connection::ConnectError`].
    #[error(transparent)]
    Failed(#[from] crate::connection::ConnectError),
    /// Too many requests wait for the driver.
    #[error("too many requests wait: try again later")]
    Busy,
    /// The node is closed.
    #[error(transparent)]
    NodeClosed(#[from] NodeClosed),
}

/// Why listening failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// A name that is no protocol name.
    #[error(transparent)]
    BadName(#[from] BadProtocolName),
    /// The endpoint refuses the names: see [`crate::connection::ListenError`].
    #[error(transparent)]
    Failed(#[from] crate::connection::ListenError),
    /// Too many requests wait for the driver.
    #[error("too many requests wait: try again later")]
    Busy,
    /// The node is closed.
    #[error(transparent)]
    NodeClosed(#[from] NodeClosed),
}

/// Why a message was not queued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrySendError {
    /// The queue to the driver is full, or no transmit buffer is free. Try again later.
    #[error("the queue is full: send the message again later")]
    Full,
    /// The message is longer than the path allows.
    #[error("the message is too long: {max} bytes fit")]
    TooLong {
        /// Bytes of the longest message now.
        max: usize,
    },
    /// The connection has no label that works. Routing looks up another label.
    #[error("the connection has no path: try again later, or look at the relay")]
    NoPath,
    /// The peer does not accept the protocol now, or does not allow this node to use it.
    #[error("the peer does not accept the protocol of this socket")]
    Unsupported,
    /// The socket is closed.
    #[error("the socket is closed: {0}")]
    Closed(CloseReason),
}

/// Why a message was not sent, from a call that waits while the queue is full.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The queue stayed full for the whole timeout.
    #[error("the queue stayed full for the whole timeout")]
    Timeout,
    /// The message is longer than the path allows.
    #[error("the message is too long: {max} bytes fit")]
    TooLong {
        /// Bytes of the longest message now.
        max: usize,
    },
    /// The connection has no label that works. Routing looks up another label.
    #[error("the connection has no path: try again later, or look at the relay")]
    NoPath,
    /// The peer does not accept the protocol now, or does not allow this node to use it.
    #[error("the peer does not accept the protocol of this socket")]
    Unsupported,
    /// The socket is closed.
    #[error("the socket is closed: {0}")]
    Closed(CloseReason),
}

impl SendError {
    /// The error of an attempt that cannot succeed later; `None` if the queue was full.
    pub(crate) fn of(error: TrySendError) -> Option<Self> {
        Some(match error {
            TrySendError::Full => return None,
            TrySendError::TooLong { max } => Self::TooLong { max },
            TrySendError::NoPath => Self::NoPath,
            TrySendError::Unsupported => Self::Unsupported,
            TrySendError::Closed(reason) => Self::Closed(reason),
        })
    }
}

/// Why no message can be received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The socket is closed, and all messages that had arrived were received.
    #[error("the socket is closed: {0}")]
    Closed(CloseReason),
    /// The message is longer than the buffer of `recv_into`. The message stays, and the next call
    /// returns it.
    #[error("the message has {bytes} bytes, more than the buffer")]
    BufferTooShort {
        /// Bytes of the message.
        bytes: usize,
    },
}

impl From<SendError> for io::Error {
    fn from(error: SendError) -> Self {
        let kind = match error {
            SendError::Timeout => io::ErrorKind::TimedOut,
            SendError::TooLong { .. } => io::ErrorKind::InvalidInput,
            SendError::NoPath => io::ErrorKind::HostUnreachable,
            SendError::Unsupported => io::ErrorKind::Unsupported,
            SendError::Closed(_) => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}

impl From<RecvError> for io::Error {
    fn from(error: RecvError) -> Self {
        let kind = match error {
            RecvError::Closed(_) => io::ErrorKind::ConnectionAborted,
            RecvError::BufferTooShort { .. } => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}
