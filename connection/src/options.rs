//! Options of connecting and listening.

use strowger_crypto::Nanos;

use crate::limits::{BACKLOG, CONNECT_TIMEOUT};

/// The options of `connect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    pub(crate) timeout: Nanos,
    pub(crate) early: Option<Vec<u8>>,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions { timeout: CONNECT_TIMEOUT, early: None }
    }
}

impl ConnectOptions {
    /// The defaults: 9 s, no early message.
    pub fn new() -> ConnectOptions {
        ConnectOptions::default()
    }

    /// Sets the time after which connecting fails.
    #[must_use]
    pub fn timeout(mut self, timeout: Nanos) -> ConnectOptions {
        self.timeout = timeout;
        self
    }

    /// Sends this message in the first handshake message, if the peer's static key is known and the
    /// protocol allowed it when its table was last seen. Otherwise, or if the peer refuses the
    /// early message, it is sent sealed, as the socket's first message. A relay may have recorded
    /// the packet and deliver a copy to a peer that has restarted, so the message must be
    /// idempotent.
    #[must_use]
    pub fn early(mut self, message: Vec<u8>) -> ConnectOptions {
        self.early = Some(message);
        self
    }
}

/// The options of `listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    pub(crate) idempotent: bool,
    pub(crate) pass_through: bool,
    pub(crate) backlog: u16,
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions { idempotent: false, pass_through: false, backlog: BACKLOG }
    }
}

impl ListenOptions {
    /// The defaults: no early messages, a backlog of 128.
    pub fn new() -> ListenOptions {
        ListenOptions::default()
    }

    /// Sets whether early messages are accepted: those in the first handshake message, which may be
    /// replays of a message to an earlier process of this node.
    #[must_use]
    pub fn idempotent(mut self, accepts: bool) -> ListenOptions {
        self.idempotent = accepts;
        self
    }

    /// Sets whether pass-through messages are accepted: messages that QUIC has sealed and that this
    /// crate does not authenticate. Only the adapter for QUIC may set it.
    #[doc(hidden)]
    #[must_use]
    pub fn pass_through(mut self, accepts: bool) -> ListenOptions {
        self.pass_through = accepts;
        self
    }

    /// Sets how many accepted sockets may wait until the program takes them
    /// ([`Endpoint::take_accepted`](crate::Endpoint::take_accepted)).
    #[must_use]
    pub fn backlog(mut self, sockets: u16) -> ListenOptions {
        self.backlog = sockets;
        self
    }
}
