//! Control messages: requests, replies, errors and notices between switches (wire.md 5).
//!
//! ```text
//!  0               1               2               3
//! +---------------+---------------+---------------+---------------+
//! |  version      |  kind         |  code         |  zero         |
//! +---------------+---------------+---------------+---------------+
//! |  fields of this kind ...
//! ```
//!
//! A message follows a [switch header](crate::switch_header) with the control flag. It is modelled
//! on ICMP (RFC 792, RFC 4443) and on LSP ping (RFC 8029). Each switch decides to which senders it
//! replies, and limits the rate of its replies.
//!
//! ```
//! use strowger_wire::control::{Message, MessageError};
//!
//! let ping = Message::Ping { id: 7, payload: b"hello" };
//! let bytes = ping.to_bytes();
//! assert_eq!(bytes[..], *b"\x01\x01\0\0\0\0\0\x07hello");
//! assert_eq!(Message::parse(&bytes), Ok(ping));
//! assert_eq!(Message::parse(&bytes[..3]), Err(MessageError::TooShort));
//! ```

mod emit;
mod lookup;
mod parse;
mod reason;
mod trace;

use core::fmt;
use core::net::SocketAddr;

use crate::fields::Reader;
use crate::limits::{FIND_NONCE_BYTES, FIND_TAG_BYTES};

pub use emit::{MessageBytes, NoRoom};
pub use lookup::{
    ANNOUNCE_BYTES, ANNOUNCED_BYTES, AnnounceVerdict, Announcement, FIND_BYTES, Host,
    OBSERVED_BYTES, RESOLVE_BYTES, Resolution, ResolveTarget, ResolvedLabel,
};
pub use reason::Reason;
pub use trace::{Behind, HopWord};

/// The version that this crate describes. Messages of other versions are not answered.
pub const VERSION: u8 = 1;

/// Bytes of the fields at the start of every message.
pub const PREFIX_BYTES: usize = 4;

/// Bytes of a trace reply and of a trace request: no reply may be longer than its request (W5-6).
pub const TRACE_BYTES: usize = PREFIX_BYTES + 4 + 4 + 4 + 8 + 8 + 2 + 2;

/// Bytes of an identity reply and of an identity request.
pub const IDENTITY_BYTES: usize = PREFIX_BYTES + 4 + 64;

/// A control message (W5-2). Borrowed parts point into the parsed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a message exists during one call, on the stack")]
pub enum Message<'a> {
    /// Echo request (RFC 792).
    Ping {
        /// An identifier that the requester chooses.
        id: u32,
        /// Returned unchanged in the reply.
        payload: &'a [u8],
    },
    /// Echo reply.
    Pong {
        /// The value from the ping.
        id: u32,
        /// The value from the ping.
        payload: &'a [u8],
    },
    /// Asks what the switch at which `hops_left` reaches zero would have done with the packet
    /// (W5-4).
    TraceRequest {
        /// An identifier that the requester chooses.
        id: u32,
    },
    /// The reply of one switch to a trace request (compare RFC 8029, section 3.3).
    TraceReply {
        /// The value from the request.
        id: u32,
        /// The switch's report.
        hop: HopWord,
    },
    /// Asks a node for its public keys.
    IdentityRequest {
        /// An identifier that the requester chooses.
        id: u32,
    },
    /// The public keys of a node.
    IdentityReply {
        /// The value from the request.
        id: u32,
        /// The Ed25519 key.
        identity: &'a [u8; 32],
        /// The X25519 static key that the node uses in handshakes.
        link_key: &'a [u8; 32],
    },
    /// A packet was discarded.
    Error {
        /// The reason of the discard.
        why: Reason,
        /// The switch header of the discarded packet, as the reporting switch received it.
        offending: &'a [u8],
    },
    /// A packet was discarded because it was longer than the path MTU of its egress link.
    TooBig {
        /// Bytes of the longest packet that the egress can send, with the link header, without the
        /// tag.
        packet_bytes_max: u16,
        /// The switch header of that packet.
        offending: &'a [u8],
    },
    /// A packet was forwarded, but a slot number in its label will soon be invalid.
    SlotMoved {
        /// The number in the packet's label.
        from: u32,
        /// The number to use from now on.
        to: u32,
        /// The switch header of that packet.
        offending: &'a [u8],
    },
    /// A packet was discarded because its slot was in use earlier and is empty now.
    SlotGone {
        /// The number in the packet's label.
        slot: u32,
        /// The switch header of that packet.
        offending: &'a [u8],
    },
    /// A packet was discarded because its egress queue was full.
    Congestion {
        /// The switch header of that packet.
        offending: &'a [u8],
    },
    /// The sender, a neighbour, will end the link.
    Goodbye {
        /// The reason: 0 unspecified, 1 stopping, 2 restarting, 3 closed by the operator, 4 no free
        /// resources.
        code: u8,
        /// Seconds that the receiver should wait before a new handshake; 0 lets the receiver
        /// choose.
        retry_after_s: u32,
        /// A text for human readers; at most
        /// [`GOODBYE_TEXT_BYTES_MAX`](crate::limits::GOODBYE_TEXT_BYTES_MAX) bytes.
        text: &'a str,
    },
    /// An endpoint announces to its own switch which identity is at its slot.
    Announce {
        /// An identifier that the requester chooses.
        id: u32,
        /// The announcement.
        announcement: Announcement<'a>,
    },
    /// The answer to an announcement.
    Announced {
        /// The value from the announcement.
        id: u32,
        /// Whether the announcement was taken, or why it was not.
        verdict: AnnounceVerdict,
        /// Seconds for which the announcement is valid.
        seconds: u32,
    },
    /// Asks a switch whether it hosts a peer, without naming the peer.
    Find {
        /// Random bytes. The first four are the identifier of the request.
        nonce: &'a [u8; FIND_NONCE_BYTES],
        /// The keyed hash of the wanted peer under the nonce.
        tag: &'a [u8; FIND_TAG_BYTES],
    },
    /// The answer to a find message.
    Found {
        /// The value from the request.
        nonce: &'a [u8; FIND_NONCE_BYTES],
        /// The location of the peer; `None` if the peer is not at this switch.
        host: Option<Host<'a>>,
    },
    /// Asks a neighbour for the address at which it reaches the requester.
    ObservedRequest {
        /// An identifier that the requester chooses.
        id: u32,
    },
    /// The answer: the address that the link has at the neighbour.
    ObservedReply {
        /// The value from the request.
        id: u32,
        /// The UDP address; `None` if the link has none. An IPv6 address has no scope here.
        address: Option<SocketAddr>,
    },
    /// Asks the own switch for labels that lead to a peer.
    Resolve {
        /// An identifier that the requester chooses.
        id: u32,
        /// The peer.
        target: ResolveTarget<'a>,
    },
    /// The answer: labels from the slot of the node that asked.
    Resolved {
        /// The value from the request.
        id: u32,
        /// The peer and its labels.
        resolution: Resolution<'a>,
    },
}

/// The slot of a trace reply that means "no slot". Only its low three bytes are sent.
const NO_SLOT: u32 = u32::MAX;

mod kind {
    pub(super) const PING: u8 = 1;
    pub(super) const PONG: u8 = 2;
    pub(super) const TRACE_REQUEST: u8 = 3;
    pub(super) const TRACE_REPLY: u8 = 4;
    pub(super) const IDENTITY_REQUEST: u8 = 5;
    pub(super) const IDENTITY_REPLY: u8 = 6;
    pub(super) const ERROR: u8 = 7;
    pub(super) const TOO_BIG: u8 = 8;
    pub(super) const SLOT_MOVED: u8 = 9;
    pub(super) const SLOT_GONE: u8 = 10;
    pub(super) const CONGESTION: u8 = 11;
    pub(super) const GOODBYE: u8 = 12;
    // 13 to 17 are reserved for routing.
    pub(super) const ANNOUNCE: u8 = 18;
    pub(super) const FIND: u8 = 19;
    pub(super) const FOUND: u8 = 20;
    pub(super) const OBSERVED_REQUEST: u8 = 21;
    pub(super) const OBSERVED_REPLY: u8 = 22;
    pub(super) const RESOLVE: u8 = 23;
    pub(super) const RESOLVED: u8 = 24;
    pub(super) const ANNOUNCED: u8 = 25;
}

/// Whether the first bytes of this payload are those of a request. Among control packets, only
/// requests may cause errors (W5-56).
pub fn is_request(payload: &[u8]) -> bool {
    const REQUESTS: [u8; 7] = [
        kind::PING,
        kind::TRACE_REQUEST,
        kind::IDENTITY_REQUEST,
        kind::ANNOUNCE,
        kind::FIND,
        kind::OBSERVED_REQUEST,
        kind::RESOLVE,
    ];
    matches!(payload, [VERSION, kind, ..] if REQUESTS.contains(kind))
}

/// The identifier of a trace request. `payload` may be truncated: a worker keeps only the first
/// bytes of a packet.
pub fn trace_id(payload: &[u8]) -> Option<u32> {
    match payload {
        [VERSION, kind::TRACE_REQUEST, _, _, rest @ ..] => Reader(rest).u32(),
        _ => None,
    }
}

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// The message is shorter than its kind requires.
    TooShort,
    /// The message is longer than its kind allows.
    TooLong,
    /// A version other than [`VERSION`].
    Version,
    /// The kind is not defined in this version.
    Kind,
    /// A field has a value that is not allowed.
    Field,
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "the message is shorter than its kind",
            Self::TooLong => "the message is longer than its kind",
            Self::Version => "the message has another version",
            Self::Kind => "the message is of a kind that does not exist",
            Self::Field => "a field of the message contradicts itself",
        })
    }
}

impl core::error::Error for MessageError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::{AnyLabel, Label};
    use crate::limits::{CONTROL_BYTES_MAX, GOODBYE_TEXT_BYTES_MAX};

    const HEADER: [u8; 16] = [0x10, 0, 9, 0, 0, 4, 0xbe, 0xef, 0, 0, 0, 0, 0, 0, 1, 0x15];

    #[test]
    fn w5_2_the_bytes_lie_as_the_specification_draws_them() {
        let ping = Message::Ping { id: 0x0102_0304, payload: b"abc" };
        assert_eq!(ping.to_bytes()[..], *b"\x01\x01\0\0\x01\x02\x03\x04abc");
        let error = Message::Error { why: Reason::EMPTY_SLOT, offending: &HEADER };
        assert_eq!(error.to_bytes()[..4], [1, 7, 4, 0]);
        assert_eq!(error.to_bytes()[4..], HEADER);
        let bye = Message::Goodbye { code: 2, retry_after_s: 30, text: "new version" };
        assert_eq!(bye.to_bytes()[..], *b"\x01\x0c\x02\0\0\0\0\x1enew version");
    }

    /// wire.md: W5-5.
    #[test]
    fn what_is_emitted_is_read_back() {
        let hop = HopWord {
            slot_in: 7,
            slot_out: Some(300),
            behind: Behind::Endpoint,
            discard: Some(Reason::TOO_BIG),
            held_ns: 1 << 40,
            worker_ns: u64::MAX,
            queue_frames: 64,
            packet_bytes_max: 1400,
        };
        let none = HopWord { slot_out: None, behind: Behind::Nothing, discard: None, ..hop };
        for message in [
            Message::Ping { id: 1, payload: b"" },
            Message::Pong { id: u32::MAX, payload: b"x" },
            Message::TraceRequest { id: 5 },
            Message::TraceReply { id: 6, hop },
            Message::TraceReply { id: 6, hop: none },
            Message::IdentityRequest { id: 7 },
            Message::IdentityReply { id: 8, identity: &[1; 32], link_key: &[2; 32] },
            Message::Error { why: Reason::new(200), offending: &HEADER },
            Message::TooBig { packet_bytes_max: 1280, offending: &HEADER },
            Message::SlotMoved { from: 4, to: 5, offending: &HEADER },
            Message::SlotGone { slot: 4, offending: &HEADER },
            Message::Congestion { offending: &HEADER },
            Message::Goodbye { code: 1, retry_after_s: 0, text: "grüße" },
        ] {
            assert_eq!(Message::parse(&message.to_bytes()), Ok(message), "{message:?}");
        }
    }

    /// wire.md: W5-6, W5-82.
    #[test]
    fn no_answer_about_endpoints_is_longer_than_its_question() {
        let announcement = ANNOUNCEMENT;
        let long = Message::Announce { id: 1, announcement }.wire_bytes();
        let verdict = AnnounceVerdict::TAKEN;
        assert!(Message::Announced { id: 1, verdict, seconds: 1 }.wire_bytes() <= long);
        let (nonce, tag) = (&[1; 16], &[2; 16]);
        let question = Message::Find { nonce, tag }.to_bytes();
        for host in [None, Some(HOST)] {
            assert_eq!(Message::Found { nonce, host }.to_bytes().len(), question.len());
        }
        let question = Message::ObservedRequest { id: 1 }.to_bytes();
        for address in [None, "192.0.2.1:7".parse().ok(), "[2001:db8::1]:7".parse().ok()] {
            let answer = Message::ObservedReply { id: 1, address }.to_bytes();
            assert_eq!(answer.len(), question.len());
        }
        let question = Message::Resolve { id: 1, target: ResolveTarget::Peer(&[1; 32]) }.to_bytes();
        let none = Resolution { identity: &[0; 32], certificate: None, labels: [None; 4] };
        for resolution in [none, RESOLUTION] {
            let answer = Message::Resolved { id: 1, resolution }.to_bytes();
            assert_eq!(answer.len(), question.len());
        }
    }

    /// wire.md: W5-16, W5-90.
    #[test]
    fn wrong_lengths_and_fields_of_lookups_are_refused() {
        let (nonce, tag) = (&[1; 16], &[2; 16]);
        for message in [
            Message::Announce { id: 1, announcement: ANNOUNCEMENT },
            Message::Announced { id: 1, verdict: AnnounceVerdict::FULL, seconds: 0 },
            Message::Find { nonce, tag },
            Message::Found { nonce, host: Some(HOST) },
            Message::ObservedRequest { id: 1 },
            Message::ObservedReply { id: 1, address: None },
            Message::Resolve { id: 1, target: ResolveTarget::Address(&[1; 16]) },
            Message::Resolved { id: 1, resolution: RESOLUTION },
        ] {
            let mut bytes = [0; 400];
            message.emit(&mut bytes).expect("room");
            let length = message.wire_bytes();
            assert_eq!(Message::parse(&bytes[..length]), Ok(message));
            assert_eq!(Message::parse(&bytes[..length - 1]), Err(MessageError::TooShort));
            assert_eq!(Message::parse(&bytes[..length + 1]), Err(MessageError::TooLong));
        }
        let changed = |message: Message<'_>, at: usize, to: u8| {
            let mut bytes = message.to_bytes().to_vec();
            bytes[at] = to;
            Message::parse(&bytes).err()
        };
        let bad = Some(MessageError::Field);
        let found = Message::Found { nonce, host: Some(Host { width: 59, ..HOST }) };
        assert_eq!(changed(found, 20, 59), None);
        assert_eq!(changed(found, 20, 60), bad);
        assert_eq!(changed(found, 20, 3), bad, "the director has 4 bits");
        for family in 0..=255 {
            let seen = Message::ObservedReply { id: 1, address: None };
            assert_eq!(changed(seen, 8, family).is_some(), !matches!(family, 0 | 4 | 6));
            let target = Message::Resolve { id: 1, target: ResolveTarget::Address(&[1; 16]) };
            assert_eq!(changed(target, 8, family).is_some(), !matches!(family, 1 | 2));
            let resolved = Message::Resolved { id: 1, resolution: RESOLUTION };
            assert_eq!(
                changed(resolved, 178, family).is_some(),
                !matches!(family, 0 | 8 | 16 | 32)
            );
        }
    }

    const ANNOUNCEMENT: Announcement<'_> = Announcement {
        slot: 4,
        seconds: 300,
        stamp: 7,
        certificate: &[2; 138],
        signature: &[3; 64],
    };

    const HOST: Host<'_> =
        Host { width: 4, director: 9, seconds: 299, mtu: 2_048, certificate: &[2; 138] };

    const RESOLUTION: Resolution<'_> = Resolution {
        identity: &[1; 32],
        certificate: Some(&[2; 138]),
        labels: [
            Some(ResolvedLabel {
                label: AnyLabel::W64(Label::here()),
                cost: 1,
                mtu: 2,
                seconds: 3,
            }),
            Some(ResolvedLabel {
                label: AnyLabel::W256(Label::here()),
                cost: 4,
                mtu: 0,
                seconds: 0,
            }),
            None,
            None,
        ],
    };

    /// wire.md: W5-6.
    #[test]
    fn w5_6_a_request_is_as_long_as_its_reply() {
        let hop = HopWord {
            slot_in: 0,
            slot_out: None,
            behind: Behind::Nothing,
            discard: None,
            held_ns: 0,
            worker_ns: 0,
            queue_frames: 0,
            packet_bytes_max: 0,
        };
        let reply = Message::TraceReply { id: 1, hop }.to_bytes();
        assert_eq!(Message::TraceRequest { id: 1 }.to_bytes().len(), reply.len());
        let reply = Message::IdentityReply { id: 1, identity: &[0; 32], link_key: &[0; 32] };
        let request = Message::IdentityRequest { id: 1 };
        assert_eq!(request.to_bytes().len(), reply.to_bytes().len());
    }

    /// wire.md: W5-1, W5-15, W5-16, W5-17, W5-31, W5-75, W5-76.
    #[test]
    fn bytes_that_are_no_message_say_why() {
        assert_eq!(Message::parse(&[]), Err(MessageError::TooShort));
        assert_eq!(Message::parse(&[2, 1, 0, 0, 0, 0, 0, 0]), Err(MessageError::Version));
        assert_eq!(Message::parse(&[1, 99, 0, 0]), Err(MessageError::Kind));
        assert_eq!(Message::parse(&[1, 7, 1, 0, 0x13, 0]), Err(MessageError::Field));
        assert_eq!(Message::parse(&[1, 12, 0, 0, 0, 0, 0, 0, 0xff]), Err(MessageError::Field));
        let mut long = [0; 4 + HEADER.len() + 1];
        Message::Congestion { offending: &HEADER }.emit(&mut long).expect("room");
        assert_eq!(Message::parse(&long), Err(MessageError::TooLong));
        let mut goodbye = [b'x'; PREFIX_BYTES + 4 + GOODBYE_TEXT_BYTES_MAX + 1];
        goodbye[..PREFIX_BYTES + 4].copy_from_slice(&[1, 12, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Message::parse(&goodbye), Err(MessageError::TooLong));
        assert!(Message::parse(&goodbye[..goodbye.len() - 1]).is_ok());
        let mut trace = [0; TRACE_BYTES];
        trace[..2].copy_from_slice(&[1, 4]);
        for behind in 0..=255 {
            trace[12] = behind;
            let is_known = Behind::from_number(behind).is_some();
            assert_eq!((Message::parse(&trace).is_ok(), is_known), (behind < 4, behind < 4));
        }
    }

    /// Coverage-guided fuzzing found the first case: the parser accepted a trace reply of 1,429
    /// bytes, and the emitted copy had 36 bytes.
    ///
    /// wire.md: W5-16, W5-22, W5-23, W5-24, W5-25.
    #[test]
    fn w5_1_a_message_of_a_fixed_length_has_that_length() {
        let hop = HopWord {
            slot_in: 1,
            slot_out: None,
            behind: Behind::Nothing,
            discard: None,
            held_ns: 0,
            worker_ns: 0,
            queue_frames: 0,
            packet_bytes_max: 0,
        };
        for message in [
            Message::TraceReply { id: 6, hop },
            Message::TraceRequest { id: 5 },
            Message::IdentityRequest { id: 7 },
            Message::IdentityReply { id: 8, identity: &[1; 32], link_key: &[2; 32] },
        ] {
            let exact = message.to_bytes();
            assert_eq!(Message::parse(&exact), Ok(message));
            let short = &exact[..exact.len() - 1];
            assert_eq!(Message::parse(short), Err(MessageError::TooShort), "{message:?}");
            for more in [1, 1_429 - exact.len()] {
                let mut long = [0; 1_429];
                message.emit(&mut long).expect("room");
                let long = &long[..exact.len() + more];
                assert_eq!(Message::parse(long), Err(MessageError::TooLong), "{message:?}");
            }
        }
    }

    #[test]
    fn a_message_is_written_whole_or_not_at_all() {
        for message in [
            Message::Ping { id: 1, payload: &[7; 2_000] },
            Message::TraceRequest { id: 5 },
            Message::SlotMoved { from: 4, to: 5, offending: &HEADER },
        ] {
            let mut room = [0; 2_100];
            let length = message.wire_bytes();
            let left = message.emit(&mut room).expect("room").len();
            assert_eq!(room.len() - left, length);
            assert_eq!(Message::parse(&room[..length]), Ok(message));
            assert_eq!(message.emit(&mut room[..length - 1]), Err(NoRoom));
        }
    }

    /// wire.md: W5-31, W5-37.
    #[test]
    fn what_is_too_long_for_a_message_is_cut_off() {
        let ping = Message::Ping { id: 1, payload: &[7; CONTROL_BYTES_MAX] }.to_bytes();
        assert_eq!(ping.len(), CONTROL_BYTES_MAX);
        assert!(matches!(Message::parse(&ping), Ok(Message::Ping { id: 1, .. })));
        // 127 bytes of ASCII, then a character of two bytes. The limit would split that character,
        // so it is left out.
        let mut text = [b'x'; GOODBYE_TEXT_BYTES_MAX + 1];
        text[GOODBYE_TEXT_BYTES_MAX - 1..].copy_from_slice("ü".as_bytes());
        let text = core::str::from_utf8(&text).expect("UTF-8");
        let bye = Message::Goodbye { code: 1, retry_after_s: 0, text }.to_bytes();
        let Ok(Message::Goodbye { text: read, .. }) = Message::parse(&bye) else {
            panic!("{bye:?}")
        };
        assert_eq!(read, &text[..GOODBYE_TEXT_BYTES_MAX - 1]);
    }
}
