//! Counters of an endpoint. Every packet and every message is counted once.

/// Declares the reasons of a discard, and an array with a counter for each.
macro_rules! discards {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a packet was discarded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Discard {
            $($(#[$doc])* $name,)*
        }

        impl Discard {
            /// All reasons.
            pub const ALL: [Discard; [$(Discard::$name),*].len()] = [$(Discard::$name),*];

            /// A stable name in snake_case.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Discard::$name => $text,)*
                }
            }
        }
    };
}

discards! {
    /// No switch header, or a wrong one.
    BadHeader = "bad_header",
    /// Shorter than its kind requires.
    TooShort = "too_short",
    /// A kind that is not assigned.
    BadConnectionKind = "bad_connection_kind",
    /// The index belongs to no session.
    NoSession = "no_session",
    /// The tag is wrong, or the peer has not announced the lane.
    BadSeal = "bad_seal",
    /// The counter was seen before, or is older than the replay window.
    Replayed = "replayed",
    /// The keys are too old.
    KeysExpired = "keys_expired",
    /// Protocol number 255, or 0 in a pass-through message.
    BadProtocolNumber = "bad_protocol_number",
    /// The number or name is not in the table, or the peer may not use it.
    UnknownProtocol = "unknown_protocol",
    /// The connection is closed or closing.
    Closed = "closed",
    /// No socket accepts the message: the last socket of the protocol is closed, or the backlog of
    /// the listener is full.
    NoSocket = "no_socket",
    /// A pass-through message where none is accepted.
    PassThroughRefused = "pass_through_refused",
    /// A pass-through message with a long header.
    LongHeader = "long_header",
    /// A malformed message of a handshake, or of kind 7.
    Malformed = "malformed",
    /// mac1 of a handshake message is wrong.
    HandshakeMac = "handshake_mac",
    /// A handshake message cannot be read.
    HandshakeUnreadable = "handshake_unreadable",
    /// The hello of a handshake message is malformed.
    HandshakeMalformed = "handshake_malformed",
    /// A replay of a handshake message.
    HandshakeStale = "handshake_stale",
    /// A handshake message of another identity, or of this node itself.
    HandshakeIdentity = "handshake_identity",
    /// The offers of the two ends do not agree.
    HandshakeOffer = "handshake_offer",
    /// The source of randomness failed.
    HandshakeFailed = "handshake_failed",
    /// The policy does not allow the peer.
    NotAllowed = "not_allowed",
    /// A budget is spent.
    OverBudget = "over_budget",
    /// An *unknown connection* packet (W6-19) that quotes no packet of this end, or a control
    /// message that answers no packet or request of this end.
    Unsolicited = "unsolicited",
    /// A malformed control message.
    Unhandled = "unhandled",
    /// The return path cannot be computed, and an answer would be needed.
    NoReturnPath = "no_return_path",
}

/// Counters of an endpoint since its start. With nothing in flight (R20):
///
/// - `messages` = `sealed` + `passed` + `waited_lost` + refused, for messages sent, where `passed`
///   are pass-through messages;
/// - `arrived` = `delivered` + `items` + the sum of `discarded`, for packets, where `items` are
///   packets without a message for a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    pub(crate) messages: u64,
    pub(crate) sealed: u64,
    pub(crate) passed: u64,
    pub(crate) refused: u64,
    pub(crate) waiting: u64,
    pub(crate) waited_lost: u64,
    pub(crate) control_sent: u64,
    pub(crate) control_dropped: u64,
    pub(crate) arrived: u64,
    pub(crate) delivered: u64,
    pub(crate) items: u64,
    pub(crate) malformed_items: u64,
    pub(crate) table_conflicts: u64,
    pub(crate) unknown_answered: u64,
    pub(crate) cookies_sent: u64,
    pub(crate) handshakes: u64,
    pub(crate) events_dropped: u64,
    pub(crate) discarded: [u64; Discard::ALL.len()],
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            messages: 0,
            sealed: 0,
            passed: 0,
            refused: 0,
            waiting: 0,
            waited_lost: 0,
            control_sent: 0,
            control_dropped: 0,
            arrived: 0,
            delivered: 0,
            items: 0,
            malformed_items: 0,
            table_conflicts: 0,
            unknown_answered: 0,
            cookies_sent: 0,
            handshakes: 0,
            events_dropped: 0,
            discarded: [0; Discard::ALL.len()],
        }
    }
}

/// Declares a function that returns a counter.
macro_rules! readers {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        impl Counters {
            $($(#[$doc])* pub const fn $name(&self) -> u64 {
                self.$name
            })*
        }
    };
}

readers! {
    /// Messages that the program gave to `send`.
    messages,
    /// Messages that were sealed.
    sealed,
    /// Messages that were sent as pass-through messages.
    passed,
    /// Messages that were refused.
    refused,
    /// Messages that wait for keys or a path now.
    waiting,
    /// Messages that waited and were dropped: the connection failed, or their time was over.
    waited_lost,
    /// Packets that the control part sent.
    control_sent,
    /// Packets of the control part that were dropped because too many waited for the port.
    control_dropped,
    /// Packets that arrived.
    arrived,
    /// Packets whose message was delivered to a socket.
    delivered,
    /// Packets that were handled and had no message for a socket.
    items,
    /// Control items that were malformed.
    malformed_items,
    /// Connections that ended because an entry of the peer's table changed.
    table_conflicts,
    /// Answers of kind 7.
    unknown_answered,
    /// Cookie replies.
    cookies_sent,
    /// Handshakes that gave keys.
    handshakes,
    /// Events that were dropped because the program took none.
    events_dropped,
}

impl Counters {
    /// Packets that were discarded for this reason.
    pub const fn discarded(&self, why: Discard) -> u64 {
        self.discarded[why as usize]
    }

    /// Packets that were discarded, for any reason.
    pub fn all_discarded(&self) -> u64 {
        self.discarded.iter().sum()
    }

    /// Whether every packet and every message is counted (R20). Call it while no call of the
    /// endpoint is in progress.
    pub fn are_balanced(&self) -> bool {
        let sent = self.sealed + self.passed + self.refused + self.waiting + self.waited_lost;
        let arrived = self.delivered + self.items + self.all_discarded();
        self.messages == sent && self.arrived == arrived
    }

    pub(crate) fn discard(&mut self, why: Discard) {
        self.discarded[why as usize] += 1;
    }
}
