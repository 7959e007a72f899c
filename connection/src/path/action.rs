//! What the paths of a connection want from the endpoint, and what the endpoint tells them.

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
    /// The label. Labels that name one route must be equal: the caller gives each in the form in
    /// which it sends it.
    pub(crate) label: AnyLabel,
    /// The field of the switch header (W6-129).
    pub(crate) hops_left: u8,
    /// Bytes of the longest packet with its switch header, if the source says so.
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
    /// Whether its counter is above all earlier ones of its lane.
    pub(crate) is_newest: bool,
    /// What it contains.
    pub(crate) content: Content,
}

/// What an opened packet contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A message for a program, or items.
    Message,
    /// Nothing: it confirms the keys.
    Confirmation,
    /// A path challenge.
    Challenge,
    /// A path response.
    Response,
}

/// What is sent along the active path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// A message of a program. An answer is due.
    Message,
    /// Items that the peer answers, as `table`. An answer is due.
    Items,
    /// What the peer does not answer: acknowledgements, reports, confirmations.
    Unanswered,
}

/// Why nothing can be sent along the active path now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathRefused {
    /// There is no path, or the peer is gone: messages wait.
    NoPath,
    /// The label is not validated, and as many bytes as allowed went along it (W6-42).
    NoCredit,
    /// The packet is longer than the path takes.
    TooLong {
        /// Bytes of the longest connection packet.
        packet_bytes_max: u16,
    },
}

/// What the endpoint does for the paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathAction {
    /// Send a path challenge: a connection packet of this length, with the token and zeros.
    Challenge { along: Along, token: PathToken, packet_bytes: usize },
    /// Send the item `path`, for the lane of the active path and for the former one (W6-179).
    SendPathItem { active: Lane, former: Option<(Lane, PathUse)> },
    /// Look the peer up: there are too few labels that work.
    AskRouting,
    /// Tell routing about a label that it may have given.
    Feedback { label: AnyLabel, outcome: Outcome },
    /// Messages go along another label.
    Changed { label: AnyLabel, rtt: Option<Nanos> },
    /// The longest connection packet has changed.
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
    /// What it says.
    pub(crate) kind: HintKind,
    /// The label in the header that it contains.
    pub(crate) label: AnyLabel,
    /// The shift in that header.
    pub(crate) shift: u8,
}

impl Hint {
    /// Whether the header is that of a packet that went along this label: the forward part, below
    /// `shift` bits of return path, is that of the label, shifted right by the bits used since then
    /// (W5-67, W5-68). An endpoint sends with shift 1 (W1.3-6).
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

/// What a hint says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HintKind {
    /// The packet was too long for a link.
    TooBig {
        /// Bytes of the longest packet, with its switch header.
        packet_bytes_max: u16,
    },
    /// A queue is long.
    Congestion,
    /// The slot has another number. The former one works for a time.
    SlotMoved,
    /// The packet was dropped.
    Dropped(Reason),
}

/// What a hint has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HintEffect {
    /// It matches no packet that went along a label of this connection.
    Unsolicited,
    /// Too many hints came.
    OverBudget,
    /// It is about this label. A *slot moved* or a failure: the endpoint asks routing to repair the
    /// label. A *congestion*: the endpoint tells the program.
    About(AnyLabel),
}

/// Why no ping is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PingRefused {
    /// There is no validated path.
    NoPath,
    /// The path does not take a packet of this length.
    TooLong,
    /// Too many pings are without an answer.
    TooMany,
}

/// More challenges and responses came than are handled in a second (W3-47).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyChallenges;
