//! The status of an endpoint's connections and sockets.

use strowger_crypto::{Nanos, PeerId};
use strowger_wire::label::AnyLabel;

use crate::goodbye::CloseReason;

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The peer.
    pub peer: PeerId,
    /// Whether there are keys to seal with.
    pub has_keys: bool,
    /// The time at which the newest keys were made; `None` without keys.
    pub keys_since: Option<Nanos>,
    /// The number of handshakes that gave keys.
    pub handshakes: u64,
    /// The paths, the active one first.
    pub paths: Vec<PathInfo>,
    /// The protocols of this end, in the order of their numbers.
    pub our_protocols: Vec<String>,
    /// The protocols of the peer, as far as they are known.
    pub their_protocols: Vec<String>,
    /// Whether the peer has stated all of its protocols: it does not accept another one now.
    pub are_their_protocols_complete: bool,
    /// Bytes of the longest message; 0 without keys.
    pub message_max: usize,
    /// The number of open sockets.
    pub sockets: usize,
    /// Bytes of memory, keys included.
    pub memory: usize,
}

/// A path of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathInfo {
    /// The label.
    pub label: AnyLabel,
    /// The state.
    pub state: PathState,
    /// Whether messages are sent along this path.
    pub is_active: bool,
    /// The smoothed round trip; `None` if none was measured.
    pub rtt: Option<Nanos>,
    /// Bytes of the longest packet that this end sends along the path, with the switch header.
    pub mtu: u16,
    /// Bytes of the longest packet that both ends handle, with the switch header.
    pub mtu_max: u16,
}

/// The state of a path (wire.md W6-40).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathState {
    /// This end does not know yet whether packets along the path arrive.
    Validating,
    /// The peer has shown that it receives packets along it.
    Validated,
    /// After an error or silence, this end challenges the path.
    Failing,
    /// This end no longer uses the path.
    Abandoned,
}

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketInfo {
    /// The peer.
    pub peer: PeerId,
    /// The name of the protocol.
    pub protocol: String,
    /// Bytes of the longest message now; 0 without keys.
    pub message_max: usize,
    /// The state.
    pub state: SocketState,
}

/// The state of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// The socket waits for keys, or for the peer's protocol table.
    Connecting,
    /// Messages may be sent.
    Open,
    /// The peer does not accept the protocol now.
    Unsupported,
    /// The socket is closed.
    Closed(CloseReason),
}
