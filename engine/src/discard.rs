//! Why a frame goes no further: one closed enum, each reason counted per port. A discard is a
//! value of one byte; it is never logged and never answered from the data path.

use strowger_frame::{Loss, tally::Counter};
use strowger_wire::control::Reason;

macro_rules! discards {
    ($( $(#[doc = $doc:literal])+ $variant:ident = $name:literal, )+) => {
        /// Why a frame went no further. Closed; every way out of the switch that is not a slot is here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Discard {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl Discard {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),+];

            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The reason's name in counters, captures and JSON: lower case, underscores.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )+ }
            }
        }
    };
}

discards! {
    /// Shorter than a link header and the narrowest switch header.
    TooShort = "too_short",
    /// Longer than any path takes ([`crate::limits::FRAME_BYTES_MAX`]).
    TooLong = "too_long",
    /// A link header of a kind that this link does not speak.
    BadLinkKind = "bad_link_kind",
    /// A switch header of a version that does not exist.
    BadVersion = "bad_version",
    /// A label width that does not exist.
    BadWidth = "bad_width",
    /// A header that contradicts itself: more bits used than the label has.
    BadHeader = "bad_header",
    /// It names a session that does not exist.
    NoSession = "no_session",
    /// Authentication failed.
    BadSeal = "bad_seal",
    /// Seen before, or older than the replay window.
    Replayed = "replayed",
    /// The keys are too old to open or to seal with.
    KeysExpired = "keys_expired",
    /// The exit's link has no keys: its handshake has not been finished, or they have expired.
    LinkDown = "link_down",
    /// The neighbour that it came from has no right to go there.
    NotAllowed = "not_allowed",
    /// Longer than the exit's path takes.
    TooBig = "too_big",
    /// No forward bits are left, and this is no endpoint.
    LabelSpent = "label_spent",
    /// The low bits of the label are no director of this switch's scheme.
    NoDirector = "no_director",
    /// Nothing has ever been attached to the slot.
    EmptySlot = "empty_slot",
    /// What was attached to the slot is gone, and the number rests in quarantine.
    SlotGone = "slot_gone",
    /// The ingress slot cannot be written in as many bits as the director took.
    ReturnPath = "return_path",
    /// The hop would leave by the slot that it came in by.
    UTurn = "u_turn",
    /// The hop would shift past the label's register.
    LabelFull = "label_full",
    /// No hops are left.
    HopsSpent = "hops_spent",
    /// The label goes on where an endpoint is.
    BeyondEndpoint = "beyond_endpoint",
    /// The exit's queue is full: the newest frame of the ingress that holds most of it goes no further.
    EgressFull = "egress_full",
    /// The slow path's queue for it is full, or this link's share of it.
    PuntFull = "punt_full",
    /// The handoff ring to the worker that owns the exit is full, or this ingress' share of it.
    HandoffFull = "handoff_full",
    /// The slow path has made a message, and the worker that is to send it is behind with its commands.
    CommandsFull = "commands_full",
    /// It waited at an exit that was taken away.
    ExitGone = "exit_gone",
    /// It came from a neighbour that is being taken away.
    IngressGone = "ingress_gone",
    /// A handshake message that has not the form of one, or whose hello cannot be read.
    HandshakeMalformed = "handshake_malformed",
    /// A handshake message whose first mac is wrong: it is for another static key, or is noise.
    HandshakeMac = "handshake_mac",
    /// A handshake message for our static key in a network of another name.
    HandshakeNetwork = "handshake_network",
    /// A handshake message that cannot be decrypted: another psk, or a forgery.
    HandshakeUnreadable = "handshake_unreadable",
    /// An initiation that is not newer than what its peer sent before: a replay, or a clock that is behind.
    HandshakeStale = "handshake_stale",
    /// A handshake message with a wrong identity proof, or of another identity than the expected one.
    HandshakeIdentity = "handshake_identity",
    /// The two ends have no version, suite, label width or seal mode in common.
    HandshakeDisagreement = "handshake_disagreement",
    /// Our own handshake message came back, or the peer has our key.
    HandshakeOurselves = "handshake_ourselves",
    /// A handshake of a node that is not configured, where unknown peers are not accepted.
    UnknownPeer = "unknown_peer",
    /// More handshakes, packets for the switch itself or beacons than are taken in a second, or no room for one
    /// more unknown peer.
    OverBudget = "over_budget",
    /// The slow path does not know what to do with it.
    Unhandled = "unhandled",
    /// An answer, an error or a notice about nothing that this switch has sent lately.
    Unsolicited = "unsolicited",
    /// The slow path failed while it had it, and began anew.
    Abandoned = "abandoned",
    /// It was for this switch itself, which has taken it: a handshake, a beacon, a keepalive, a
    /// control message. No failure.
    Handled = "handled",
    /// The port: it came from an address that no neighbour has.
    UnknownSender = "unknown_sender",
    /// The port: longer than the memory for it.
    Truncated = "truncated",
    /// The port: the kernel's message about it made no sense.
    Malformed = "malformed",
    /// The port: no neighbour stands where it was to go.
    NoNeighbour = "no_neighbour",
    /// The port: too long for the path.
    PathTooNarrow = "path_too_narrow",
    /// The port: a probe of the path's width that is too long for it, which is its answer and no failure.
    PathProbe = "path_probe",
    /// The port: the kernel refused to send it.
    SendRefused = "send_refused",
    /// The port: what went to this neighbour before has not left the machine, and it has its share.
    SendStalled = "send_stalled",
    /// The port: its far side is gone.
    PeerGone = "peer_gone",
    /// No memory for it: at a port, or for a message that the switch itself was to send.
    PoolEmpty = "pool_empty",
    /// The port: a fault wrapper lost it on purpose.
    Injected = "injected",
}

impl Discard {
    /// Whether the frame ended as it was meant to. Counters keep such ends apart from failures.
    pub const fn is_handled(self) -> bool {
        matches!(self, Self::Handled | Self::PathProbe)
    }

    /// Whether the sender of a packet that met it may be told: a switch decided so, about a packet
    /// that it could read (wire.md 5). Whom and how often, the slow path decides.
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

/// Which discards are reported to senders, and by which number (W5-5).
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
    /// Its number in control messages; `None` where it is not reported to senders.
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

/// Discards of one port on one worker, by reason. Written by that worker alone.
#[derive(Debug)]
pub(crate) struct DiscardTally([Counter; Discard::COUNT]);

impl Default for DiscardTally {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl DiscardTally {
    /// Counts one.
    #[inline]
    pub(crate) fn count(&self, discard: Discard) {
        self.0[discard as usize].add(1);
    }

    /// Counts `n`.
    #[inline]
    pub(crate) fn count_many(&self, discard: Discard, n: u64) {
        self.0[discard as usize].add(n);
    }

    /// How many frames met this reason.
    pub(crate) fn read(&self, discard: Discard) -> u64 {
        self.0[discard as usize].read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_number_and_a_name_of_its_own() {
        let mut names: Vec<_> = Discard::ALL.iter().map(|d| d.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Discard::COUNT);
        assert!(Discard::ALL.iter().enumerate().all(|(n, &d)| d as usize == n));
    }

    #[test]
    fn w5_5_a_reason_on_the_wire_has_the_name_of_its_discard() {
        assert_eq!(REASONS.map(|(reason, _)| reason), Reason::ALL);
        for (reason, discard) in REASONS {
            assert_eq!((discard.reason(), discard.name()), (Some(reason), reason.name()));
        }
        assert_eq!(Discard::NotAllowed.reason(), None);
    }

    #[test]
    fn a_port_s_loss_keeps_its_name_as_a_discard() {
        for loss in Loss::ALL {
            assert_eq!(Discard::from(loss).name(), loss.name());
        }
    }
}
