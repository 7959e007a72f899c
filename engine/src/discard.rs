//! The reasons for which a frame is dropped. Each reason is one byte and has a counter for each
//! port.

use strowger_frame::{Loss, tally::Counter};
use strowger_wire::control::Reason;

macro_rules! discards {
    ($( $(#[doc = $doc:literal])+ $variant:ident = $name:literal, )+) => {
        /// The reason for which a frame is dropped.
        ///
        /// Every frame that is not sent through a slot has exactly one of these reasons.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Discard {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl Discard {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),+];

            /// The number of reasons.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in counters, captures and JSON, in lower case with underscores.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )+ }
            }
        }
    };
}

discards! {
    /// The frame is too short for its link header, its tag or its switch header.
    TooShort = "too_short",
    /// The frame is longer than [`crate::limits::FRAME_BYTES_MAX`].
    TooLong = "too_long",
    /// The frame's link header has a kind that is not valid on this link.
    BadLinkKind = "bad_link_kind",
    /// The switch header has an unknown version.
    BadVersion = "bad_version",
    /// The switch header has an unknown label width.
    BadWidth = "bad_width",
    /// The switch header's count of used bits is not below the label width.
    BadHeader = "bad_header",
    /// The frame's session index belongs to no session, or to no handshake for whose response the
    /// switch waits.
    NoSession = "no_session",
    /// The frame's tag is wrong, its lane does not exist, or the MAC or signature of a beacon is
    /// wrong.
    BadSeal = "bad_seal",
    /// The frame's counter was received before, or is older than the replay window.
    Replayed = "replayed",
    /// The keys are too old to open or seal the frame, or have sealed as many frames as they may.
    KeysExpired = "keys_expired",
    /// The next hop's link may carry no data: it has no keys, it is down, or its peer's address is
    /// not validated.
    LinkDown = "link_down",
    /// The neighbour that sent the frame has no right to send to this destination, or the switch
    /// accepts no beacon or handshake of this kind from the peer.
    NotAllowed = "not_allowed",
    /// The frame is longer than the next hop's path accepts.
    TooBig = "too_big",
    /// The label has no bits left, and the packet has not reached an endpoint.
    LabelSpent = "label_spent",
    /// The low bits of the label are not a director in this switch's scheme.
    NoDirector = "no_director",
    /// The slot has no user, and its number is not in quarantine.
    EmptySlot = "empty_slot",
    /// The slot's user was detached, and the number is in quarantine.
    SlotGone = "slot_gone",
    /// Neither the ingress slot's number nor a former number of the slot fits into the width of the
    /// director.
    ReturnPath = "return_path",
    /// The frame would be sent back through its ingress slot.
    UTurn = "u_turn",
    /// After this hop, the count of used bits would reach the label width.
    LabelFull = "label_full",
    /// The packet has no hops left.
    HopsSpent = "hops_spent",
    /// The label continues after the director of an endpoint.
    BeyondEndpoint = "beyond_endpoint",
    /// The egress queue is full and refused the frame, or a frame of an ingress with a smaller
    /// share displaced it, or no chunk is left in which the frame could wait.
    EgressFull = "egress_full",
    /// The queue to the slow path is full, or this link's share of the queue is used up.
    PuntFull = "punt_full",
    /// The handoff ring to another worker is full, or this ingress' share of the ring is used up.
    HandoffFull = "handoff_full",
    /// The queue of commands to the worker that should send the frame is full.
    CommandsFull = "commands_full",
    /// The frame's next hop was detached, or moved to another worker's port, while the frame
    /// waited.
    ExitGone = "exit_gone",
    /// The frame's ingress link is being detached.
    IngressGone = "ingress_gone",
    /// The handshake message is malformed, or its hello cannot be parsed.
    HandshakeMalformed = "handshake_malformed",
    /// The first mac of the handshake message is wrong: the message is for another static key, or
    /// is invalid.
    HandshakeMac = "handshake_mac",
    /// The handshake message is for this static key in a network with another name.
    HandshakeNetwork = "handshake_network",
    /// The handshake message cannot be decrypted: the psk differs, or the message is forged.
    HandshakeUnreadable = "handshake_unreadable",
    /// The timestamp of the initiation is not later than that of an earlier initiation of the same
    /// peer. The message is a replay, or the peer's clock is behind.
    HandshakeStale = "handshake_stale",
    /// The handshake message has a wrong identity proof, or proves another identity than the
    /// expected one.
    HandshakeIdentity = "handshake_identity",
    /// The two ends have no common version, suite, label width or seal mode.
    HandshakeDisagreement = "handshake_disagreement",
    /// The handshake message is one that the switch itself sent, or its sender has the switch's
    /// key.
    HandshakeOurselves = "handshake_ourselves",
    /// The handshake is from a node that is not configured, and the switch accepts no unknown
    /// peers.
    UnknownPeer = "unknown_peer",
    /// A rate limit is used up (for handshakes, beacons, path challenges and responses, or packets
    /// addressed to this switch), or the limit of unknown peers is reached.
    OverBudget = "over_budget",
    /// The slow path cannot process the frame, for example because a control message is malformed.
    Unhandled = "unhandled",
    /// The control message is a reply, error or notice that belongs to no packet that this switch
    /// has sent recently.
    Unsolicited = "unsolicited",
    /// The slow path panicked while it processed the frame, and was reset.
    Abandoned = "abandoned",
    /// The switch itself has processed the frame: a handshake message, a beacon, a keepalive, a
    /// control message. This is not a failure.
    Handled = "handled",
    /// The frame's source address belongs to no neighbour.
    UnknownSender = "unknown_sender",
    /// Port: the frame is longer than the buffer.
    Truncated = "truncated",
    /// The kernel's metadata of the frame is invalid, or the length or format of a handshake
    /// message or beacon is wrong.
    Malformed = "malformed",
    /// Port: the frame's destination mark belongs to no neighbour.
    NoNeighbour = "no_neighbour",
    /// Port: the frame is longer than the path accepts.
    PathTooNarrow = "path_too_narrow",
    /// Port: a path probe was longer than the path accepts. This is a result of the probe, and not
    /// a failure.
    PathProbe = "path_probe",
    /// Port: the kernel refused to send the frame.
    SendRefused = "send_refused",
    /// Port: earlier frames to this neighbour are not transmitted yet, and use up its share of the
    /// send buffers.
    SendStalled = "send_stalled",
    /// Port: the far end is closed.
    PeerGone = "peer_gone",
    /// The pool has no free chunk for the frame, at a port or for one of the switch's own messages.
    PoolEmpty = "pool_empty",
    /// Port: a test dropped the frame on purpose.
    Injected = "injected",
}

impl Discard {
    /// Whether the reason is not a failure: the switch has processed the frame, or a path probe has
    /// found its result.
    pub const fn is_handled(self) -> bool {
        matches!(self, Self::Handled | Self::PathProbe)
    }

    /// Whether the sender of the packet may get an error. This requires that the switch could parse
    /// the packet (wire.md 5).
    pub const fn is_reported(self) -> bool {
        matches!(
            self,
            Self::HopsSpent
                | Self::LabelSpent
                | Self::NoDirector
                | Self::EmptySlot
                | Self::SlotGone
                | Self::NotAllowed
                | Self::UTurn
                | Self::BeyondEndpoint
                | Self::ReturnPath
                | Self::LabelFull
                | Self::TooBig
                | Self::EgressFull
                | Self::LinkDown
                | Self::KeysExpired
        )
    }
}

/// The discard reasons that control messages can carry, with their numbers (W5-5).
const REASONS: [(Reason, Discard); 14] = [
    (Reason::HOPS_SPENT, Discard::HopsSpent),
    (Reason::LABEL_SPENT, Discard::LabelSpent),
    (Reason::NO_DIRECTOR, Discard::NoDirector),
    (Reason::EMPTY_SLOT, Discard::EmptySlot),
    (Reason::SLOT_GONE, Discard::SlotGone),
    (Reason::U_TURN, Discard::UTurn),
    (Reason::BEYOND_ENDPOINT, Discard::BeyondEndpoint),
    (Reason::RETURN_PATH, Discard::ReturnPath),
    (Reason::LABEL_FULL, Discard::LabelFull),
    (Reason::TOO_BIG, Discard::TooBig),
    (Reason::EGRESS_FULL, Discard::EgressFull),
    (Reason::LINK_DOWN, Discard::LinkDown),
    (Reason::KEYS_EXPIRED, Discard::KeysExpired),
    (Reason::EXIT_GONE, Discard::ExitGone),
];

impl Discard {
    /// The number in control messages; `None` if no control message carries this reason.
    pub fn reason(self) -> Option<Reason> {
        REASONS.iter().find(|(_, discard)| *discard == self).map(|(reason, _)| *reason)
    }
}

impl From<Loss> for Discard {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::UnknownSender => Self::UnknownSender,
            Loss::Truncated => Self::Truncated,
            Loss::Malformed => Self::Malformed,
            Loss::NoNeighbour => Self::NoNeighbour,
            Loss::PathTooNarrow => Self::PathTooNarrow,
            Loss::PathProbe => Self::PathProbe,
            Loss::SendRefused => Self::SendRefused,
            Loss::SendStalled => Self::SendStalled,
            Loss::PeerGone => Self::PeerGone,
            Loss::PoolEmpty => Self::PoolEmpty,
            Loss::Injected => Self::Injected,
        }
    }
}

impl std::fmt::Display for Discard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The drops of one port on one worker, by reason. Only that worker writes them.
#[derive(Debug)]
pub(crate) struct DiscardTally([Counter; Discard::COUNT]);

impl Default for DiscardTally {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl DiscardTally {
    /// Counts one frame.
    #[inline]
    pub(crate) fn count(&self, discard: Discard) {
        self.0[discard as usize].add(1);
    }

    /// Counts `n` frames.
    #[inline]
    pub(crate) fn count_many(&self, discard: Discard, n: u64) {
        self.0[discard as usize].add(n);
    }

    /// The number of frames dropped for this reason.
    pub(crate) fn read(&self, discard: Discard) -> u64 {
        self.0[discard as usize].read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_unique_number_and_name() {
        let mut names: Vec<_> = Discard::ALL.iter().map(|d| d.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Discard::COUNT);
        assert!(Discard::ALL.iter().enumerate().all(|(n, &d)| d as usize == n));
    }

    /// wire.md: W5-5.
    #[test]
    fn w5_5_a_reason_on_the_wire_has_the_name_of_its_discard() {
        assert_eq!(REASONS.map(|(reason, _)| reason), Reason::ALL);
        for (reason, discard) in REASONS {
            assert_eq!((discard.reason(), discard.name()), (Some(reason), reason.name()));
        }
        assert_eq!(Discard::NotAllowed.reason(), None);
    }

    /// wire.md: W5-78.
    #[test]
    fn errors_are_sent_about_discards_with_a_number_but_not_about_an_exit_that_is_gone() {
        for &discard in Discard::ALL {
            let wanted = match discard {
                Discard::NotAllowed => true,
                Discard::ExitGone => false,
                other => other.reason().is_some(),
            };
            assert_eq!(discard.is_reported(), wanted, "{discard}");
        }
    }

    #[test]
    fn a_port_s_loss_has_the_same_name_as_a_discard() {
        for loss in Loss::ALL {
            assert_eq!(Discard::from(loss).name(), loss.name());
        }
    }
}
