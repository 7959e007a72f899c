//! Goodbyes, and the reasons why sockets and connections end.

use core::fmt;

use strowger_wire::limits::GOODBYE_TEXT_BYTES_MAX;

/// The code of a goodbye (wire.md W6-89). Codes that this version does not know are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GoodbyeCode(pub u8);

impl GoodbyeCode {
    /// No reason is given.
    pub const UNSPECIFIED: GoodbyeCode = GoodbyeCode(0);
    /// The program stops.
    pub const STOPPING: GoodbyeCode = GoodbyeCode(1);
    /// The program restarts.
    pub const RESTARTING: GoodbyeCode = GoodbyeCode(2);
    /// Closed by the operator.
    pub const BY_OPERATOR: GoodbyeCode = GoodbyeCode(3);
    /// No free resources.
    pub const NO_RESOURCES: GoodbyeCode = GoodbyeCode(4);
    /// The connection or the protocol is not wanted.
    pub const NOT_WANTED: GoodbyeCode = GoodbyeCode(5);
    /// The peer has moved to another identity or network.
    pub const MOVED: GoodbyeCode = GoodbyeCode(6);
}

impl fmt::Display for GoodbyeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            0 => "unspecified",
            1 => "stopping",
            2 => "restarting",
            3 => "closed by the operator",
            4 => "no free resources",
            5 => "not wanted",
            6 => "moved",
            other => return write!(f, "code {other}"),
        };
        f.write_str(text)
    }
}

/// The content of a goodbye, which closes a connection or a protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Goodbye {
    code: GoodbyeCode,
    retry_after_s: u32,
    text: Box<str>,
}

impl Goodbye {
    /// A goodbye with this code; the receiver may choose when to connect again.
    pub fn new(code: GoodbyeCode) -> Goodbye {
        Goodbye { code, retry_after_s: 0, text: "".into() }
    }

    /// Sets the seconds for which the receiver does not connect again. Receivers wait at most one
    /// hour.
    #[must_use]
    pub fn retry_after_s(mut self, seconds: u32) -> Goodbye {
        self.retry_after_s = seconds;
        self
    }

    /// Sets a text for human readers. A longer text is cut to 128 bytes at a character boundary.
    #[must_use]
    pub fn text(mut self, text: &str) -> Goodbye {
        let mut end = text.len().min(GOODBYE_TEXT_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.text = text[..end].into();
        self
    }

    /// The code.
    pub const fn code(&self) -> GoodbyeCode {
        self.code
    }

    /// Seconds for which the receiver does not connect again; 0 lets it choose.
    pub const fn seconds(&self) -> u32 {
        self.retry_after_s
    }

    /// The text for human readers.
    pub fn message(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Goodbye {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text) }
    }
}

/// Why a socket or a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// This end closed it.
    #[error("closed by this end")]
    ByUs,
    /// The peer closed it.
    #[error("closed by the peer ({0})")]
    ByPeer(Goodbye),
    /// The peer repeated an entry of its protocol table with other bytes (wire.md W6-36).
    #[error("the peer changed an entry of its protocol table")]
    TableConflict,
    /// Nothing was exchanged for the idle time, and no socket is open.
    #[error("idle")]
    Idle,
    /// The number of connections reached its limit, and this one was idle longest.
    #[error("too many connections: the one that was idle longest was closed")]
    TooMany,
    /// The peer did not confirm the keys of a connection by PeerId within the time limit of the
    /// connect (wire.md W6-201).
    #[error(
        "the peer did not confirm the connection: it may not allow this PeerId (not_allowed), or \
         it is no longer reachable"
    )]
    NotConfirmed,
    /// The policy no longer allows the peer.
    #[error("the policy does not allow this peer")]
    NotAllowed,
}
