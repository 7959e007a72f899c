//! The actions that the paths of a connection request of the endpoint, and the inputs of the paths.

use strowger_crypto::Nanos;
use strowger_routing::Outcome;
use strowger_wire::{
    Label, Register,
    connection::{PathToken, item::PathUse},
    control::Reason,
    label::AnyLabel,
    link_header::Lane,
};

use super::entry::Along;

/// A label for a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewLabel {
    /// The label. Two labels of the same route must compare as equal, so the caller gives each
    /// label in the form in which it is sent.
    pub(crate) label: AnyLabel,
    /// The value of the field `hops_left` of the switch header (W6-129).
    pub(crate) hops_left: u8,
    /// Bytes of the longest packet with its switch header, if the source states it.
    pub(crate) packet_bytes_max: Option<u16>,
}

/// A packet that was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenedPacket {
    /// The peer's lane.
    pub(crate) lane: Lane,
    /// The return label; `None` if no answer is possible (W6-130).
    pub(crate) label: Option<AnyLabel>,
    /// Bytes with the switch header.
    pub(crate) bytes: usize,
    /// Whether the packet's counter is above all earlier ones of its lane.
    pub(crate) is_newest: bool,
    /// The content of the packet.
    pub(crate) content: Content,
}

/// The content of an opened packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A message for a program, or items.
    Message,
    /// Nothing: the packet confirms the keys.
    Confirmation,
    /// A path challenge.
    Challenge,
    /// A path response.
    Response,
}

/// The kind of traffic that is sent along the active path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// A message of a program. An answer is due.
    Message,
    /// Items that the peer answers, such as `table`. An answer is due.
    Items,
    /// Packets that the peer does not answer: acknowledgements, reports, confirmations.
    Unanswered,
}

/// Why nothing can be sent along the active path now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathRefused {
    /// There is no path, or the peer is gone: messages wait.
    NoPath,
    /// The label is not validated, and its byte credit is used up (W6-42).
    NoCredit,
    /// The packet is longer than the path allows.
    TooLong {
        /// Bytes of the longest connection packet.
        packet_bytes_max: u16,
    },
}

/// An action that the paths request of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathAction {
    /// Send a path challenge: a connection packet of this length, with the token and zeros.
    Challenge { along: Along, token: PathToken, packet_bytes: usize },
    /// Send the item `path`, for the lane of the active path and for the former one (W6-179).
    SendPathItem { active: Lane, former: Option<(Lane, PathUse)> },
    /// Look the peer up: too few labels work.
    AskRouting,
    /// Tell routing about a label that it may have given.
    Feedback { label: AnyLabel, outcome: Outcome },
    /// Messages are now sent along another label.
    Changed { label: AnyLabel, rtt: Option<Nanos> },
    /// The limit of connection packets has changed.
    LengthChanged { packet_bytes_max: u16 },
    /// No path answers (W6-186). Messages wait, and a handshake is needed.
    Gone,
    /// A ping was answered.
    Pong { id: u64, rtt: Nanos },
    /// A ping was not answered in time.
    PingLost { id: u64 },
}

/// An error or notice about a packet with a flow of this connection (W6-44).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hint {
    /// The content of the error or notice.
    pub(crate) kind: HintKind,
    /// The label in the packet header that the error contains.
    pub(crate) label: AnyLabel,
    /// The shift in that header.
    pub(crate) shift: u8,
}

impl Hint {
    /// Whether the header can belong to a packet that was sent along this label: the bits below the
    /// `shift` bits of return path equal the sent label, shifted right by the used bits (W5-67,
    /// W5-68). An endpoint sends with shift 1 (W1.3-6).
    pub(super) fn is_about(&self, sent: &AnyLabel) -> bool {
        fn is_forward_part<R: Register>(sent: Label<R>, received: Label<R>, shift: u32) -> bool {
            if shift == 0 || shift >= R::BITS || shift > sent.bits() {
                return false;
            }
            let forward = R::BITS - shift;
            let left = sent.register().shr(shift - 1).low_bits(forward);
            left == received.register().low_bits(forward)
        }
        let shift = u32::from(self.shift);
        match (*sent, self.label) {
            (AnyLabel::W64(sent), AnyLabel::W64(label)) => is_forward_part(sent, label, shift),
            (AnyLabel::W128(sent), AnyLabel::W128(label)) => is_forward_part(sent, label, shift),
            (AnyLabel::W256(sent), AnyLabel::W256(label)) => is_forward_part(sent, label, shift),
            _ => false,
        }
    }
}

/// The content of a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HintKind {
    /// The packet was too long for a link.
    TooBig {
        /// Bytes of the longest packet, with its switch header.
        packet_bytes_max: u16,
    },
    /// A switch reports congestion.
    Congestion,
    /// The slot has another number. The former number still works for a time.
    SlotMoved,
    /// The packet was dropped.
    Dropped(Reason),
}

/// The effect of a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HintEffect {
    /// The hint matches no packet that went along a label of this connection.
    Unsolicited,
    /// Hints come faster than the limit.
    OverBudget,
    /// The hint is about this label. After *slot moved* or a failure, the endpoint asks routing to
    /// repair the label. It reports *congestion* to the program.
    About(AnyLabel),
}

/// Why no ping is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PingRefused {
    /// There is no validated path.
    NoPath,
    /// A packet of this length is too long for the path.
    TooLong,
    /// Too many pings have no answer yet.
    TooMany,
}

/// Challenges and responses come faster than the limit per second (W3-47).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyChallenges;
