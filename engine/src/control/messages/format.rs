//! The bytes of control messages (wire.md 5): one enum, its parser and its emitter. The parser is total;
//! nothing here decides who is answered.
//!
//! ```text
//!  0               1               2               3
//! +---------------+---------------+---------------+---------------+
//! |  version      |  kind         |  code         |  zero         |
//! +---------------+---------------+---------------+---------------+
//! |  what the kind says ...
//! ```

use arrayvec::ArrayVec;

use crate::{
    discard::Discard,
    header::HEADER_BYTES_MAX,
    limits::{CONTROL_BYTES_MAX, GOODBYE_TEXT_BYTES_MAX},
};

/// The version this code speaks; messages of others are not answered.
pub const VERSION: u8 = 1;

/// Bytes before what a kind says of its own.
pub const PREFIX_BYTES: usize = 4;

/// Bytes of a trace answer, and so at least of what asks for it (W5-6).
pub const TRACE_BYTES: usize = PREFIX_BYTES + 4 + 4 + 4 + 8 + 8 + 2 + 2;

/// Bytes of an identity's answer, and so at least of what asks for it.
pub const IDENTITY_BYTES: usize = PREFIX_BYTES + 4 + 64;

/// A message, as its sender's bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Are you there? (RFC 792, echo.)
    Ping {
        /// The asker's number for it.
        id: u32,
        /// Comes back as it is.
        payload: &'a [u8],
    },
    /// I am.
    Pong {
        /// The ping's.
        id: u32,
        /// The ping's.
        payload: &'a [u8],
    },
    /// What became of this packet, or would have? The answer is no longer than the padding makes
    /// the question.
    TraceRequest {
        /// The asker's number for it.
        id: u32,
    },
    /// One hop's answer (RFC 8029, section 3.3, in spirit).
    TraceAnswer {
        /// The request's.
        id: u32,
        /// What this hop says.
        hop: HopWord,
    },
    /// Who are you?
    IdentityRequest {
        /// The asker's number for it.
        id: u32,
    },
    /// Keys that are public.
    IdentityAnswer {
        /// The request's.
        id: u32,
        /// The Ed25519 key.
        identity: &'a [u8; 32],
        /// The X25519 key of links.
        link_key: &'a [u8; 32],
    },
    /// A packet went no further.
    Error {
        /// Why.
        why: Reason,
        /// Its header as it came to the switch that says so.
        offending: &'a [u8],
    },
    /// A packet was longer than the path behind its exit takes.
    TooBig {
        /// Bytes of the longest packet that goes there, link header included and tag not.
        packet_bytes_max: u16,
        /// The packet's header.
        offending: &'a [u8],
    },
    /// A packet was delivered by a number that will stop working.
    SlotMoved {
        /// The number that was named.
        from: u32,
        /// The number to name from now on.
        to: u32,
        /// The packet's header.
        offending: &'a [u8],
    },
    /// A packet named a slot whose user is gone.
    SlotGone {
        /// The number that was named.
        slot: u32,
        /// The packet's header.
        offending: &'a [u8],
    },
    /// A packet met a full queue.
    Congestion {
        /// The packet's header.
        offending: &'a [u8],
    },
    /// The link's far side will end it.
    Goodbye {
        /// Why: 0 unsaid, 1 stopping, 2 restarting, 3 told by its operator, 4 has no room.
        code: u8,
        /// Come again after this many seconds; 0 if that does not matter.
        retry_after_s: u32,
        /// For people.
        text: &'a str,
    },
}

/// What one hop says of a traced packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopWord {
    /// The slot that it came in by.
    pub slot_in: u32,
    /// The slot that it leaves by, where its label names one.
    pub slot_out: Option<u32>,
    /// What stands there.
    pub behind: Behind,
    /// Why it would go no further.
    pub discard: Option<Reason>,
    /// From its arrival until the answer was made.
    pub held_ns: u64,
    /// The worker's time when it came in: for differences, not a time of day.
    pub worker_ns: u64,
    /// Frames that waited at the exit.
    pub queue_frames: u16,
    /// Bytes of the longest packet that the exit takes, link header included and tag not; 0 if there
    /// is no exit.
    pub packet_bytes_max: u16,
}

/// What a traced packet would meet behind this switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Behind {
    /// Nothing: it ends in a discard.
    Nothing = 0,
    /// Another switch.
    Neighbour = 1,
    /// An endpoint: the label ends there.
    Endpoint = 2,
    /// This switch: the label ends here.
    Switch = 3,
}

impl Behind {
    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Neighbour => "neighbour",
            Self::Endpoint => "endpoint",
            Self::Switch => "switch",
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Nothing),
            1 => Some(Self::Neighbour),
            2 => Some(Self::Endpoint),
            3 => Some(Self::Switch),
            _ => None,
        }
    }
}

/// A discard's number on the wire, which outlives the enum's order. A number that this version does not know
/// is kept as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason(u8);

/// Which discards are told, and by which number (W5-5).
const REASONS: [(u8, Discard); 14] = [
    (1, Discard::HopsSpent),
    (2, Discard::LabelSpent),
    (3, Discard::NoDirector),
    (4, Discard::EmptySlot),
    (5, Discard::SlotGone),
    (6, Discard::UTurn),
    (7, Discard::BeyondEndpoint),
    (8, Discard::ReturnPath),
    (9, Discard::LabelFull),
    (10, Discard::TooBig),
    (11, Discard::EgressFull),
    (12, Discard::LinkDown),
    (13, Discard::KeysExpired),
    (14, Discard::ExitGone),
];

impl Reason {
    /// The number of a discard that may be told.
    pub fn of(discard: Discard) -> Option<Self> {
        REASONS.iter().find(|(_, told)| *told == discard).map(|(number, _)| Self(*number))
    }

    /// The discard, in the words of the counters; `None` for a number of a later version.
    pub fn discard(self) -> Option<Discard> {
        REASONS.iter().find(|(number, _)| *number == self.0).map(|(_, discard)| *discard)
    }

    /// The name in counters.
    pub fn name(self) -> &'static str {
        self.discard().map_or("unknown", Discard::name)
    }

    /// The number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// Bytes of one message.
pub type MessageBytes = ArrayVec<u8, CONTROL_BYTES_MAX>;

/// No slot, in a trace answer.
const NO_SLOT: u32 = u32::MAX;

mod kind {
    pub(super) const PING: u8 = 1;
    pub(super) const PONG: u8 = 2;
    pub(super) const TRACE_REQUEST: u8 = 3;
    pub(super) const TRACE_ANSWER: u8 = 4;
    pub(super) const IDENTITY_REQUEST: u8 = 5;
    pub(super) const IDENTITY_ANSWER: u8 = 6;
    pub(super) const ERROR: u8 = 7;
    pub(super) const TOO_BIG: u8 = 8;
    pub(super) const SLOT_MOVED: u8 = 9;
    pub(super) const SLOT_GONE: u8 = 10;
    pub(super) const CONGESTION: u8 = 11;
    pub(super) const GOODBYE: u8 = 12;
}

/// Whether an error may be sent about a control packet that begins so: only about questions (W5-8).
pub fn is_question(payload: &[u8]) -> bool {
    const QUESTIONS: [u8; 3] = [kind::PING, kind::TRACE_REQUEST, kind::IDENTITY_REQUEST];
    matches!(payload, [VERSION, kind, ..] if QUESTIONS.contains(kind))
}

/// The number that a trace request carries, read from as much of it as the worker keeps.
pub fn trace_id(payload: &[u8]) -> Option<u32> {
    match payload {
        [VERSION, kind::TRACE_REQUEST, _, _, rest @ ..] => {
            rest.first_chunk().map(|id| u32::from_be_bytes(*id))
        }
        _ => None,
    }
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// Shorter than its kind.
    TooShort,
    /// Longer than its kind.
    TooLong,
    /// A version other than [`VERSION`].
    Version,
    /// A kind that this version does not know.
    Kind,
    /// A field that contradicts itself.
    Field,
}

impl std::fmt::Display for MessageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TooShort => "the message is shorter than its kind",
            Self::TooLong => "the message is longer than its kind",
            Self::Version => "the message has another version",
            Self::Kind => "the message is of a kind that does not exist",
            Self::Field => "a field of the message contradicts itself",
        })
    }
}

impl std::error::Error for MessageError {}

/// Reads big-endian fields off the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], MessageError> {
        let (field, rest) = self.0.split_first_chunk().ok_or(MessageError::TooShort)?;
        self.0 = rest;
        Ok(field)
    }

    fn u16(&mut self) -> Result<u16, MessageError> {
        self.take().map(|field| u16::from_be_bytes(*field))
    }

    fn u32(&mut self) -> Result<u32, MessageError> {
        self.take().map(|field| u32::from_be_bytes(*field))
    }

    fn u64(&mut self) -> Result<u64, MessageError> {
        self.take().map(|field| u64::from_be_bytes(*field))
    }

    /// Checks the length of a message of a kind that has `message_bytes`, neither more nor fewer
    /// (W5-1). Call it behind the prefix.
    fn check_length(&self, message_bytes: usize) -> Result<(), MessageError> {
        match (PREFIX_BYTES + self.0.len()).cmp(&message_bytes) {
            std::cmp::Ordering::Less => Err(MessageError::TooShort),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(MessageError::TooLong),
        }
    }

    /// A packet's header, whole: its first byte tells its length.
    fn header(&mut self) -> Result<&'a [u8], MessageError> {
        let bytes = match self.0.first().map(|first| first & 0x0f) {
            None => return Err(MessageError::TooShort),
            Some(0) => 16,
            Some(1) => 24,
            Some(2) => HEADER_BYTES_MAX,
            Some(_) => return Err(MessageError::Field),
        };
        match self.0.len() {
            len if len < bytes => Err(MessageError::TooShort),
            len if len > bytes => Err(MessageError::TooLong),
            _ => Ok(std::mem::take(&mut self.0)),
        }
    }
}

impl<'a> Message<'a> {
    /// Reads a message: all bytes behind the switch header.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MessageError> {
        let mut fields = Fields(bytes);
        let [version, kind, code, _] = *fields.take::<PREFIX_BYTES>()?;
        if version != VERSION {
            return Err(MessageError::Version);
        }
        Ok(match kind {
            kind::PING => Self::Ping { id: fields.u32()?, payload: fields.0 },
            kind::PONG => Self::Pong { id: fields.u32()?, payload: fields.0 },
            kind::TRACE_REQUEST => {
                fields.check_length(TRACE_BYTES)?;
                Self::TraceRequest { id: fields.u32()? }
            }
            kind::TRACE_ANSWER => {
                fields.check_length(TRACE_BYTES)?;
                Self::trace_answer(code, &mut fields)?
            }
            kind::IDENTITY_REQUEST => {
                fields.check_length(IDENTITY_BYTES)?;
                Self::IdentityRequest { id: fields.u32()? }
            }
            kind::IDENTITY_ANSWER => {
                fields.check_length(IDENTITY_BYTES)?;
                Self::IdentityAnswer {
                    id: fields.u32()?,
                    identity: fields.take()?,
                    link_key: fields.take()?,
                }
            }
            kind::ERROR => Self::Error { why: Reason(code), offending: fields.header()? },
            kind::TOO_BIG => {
                let packet_bytes_max = fields.u16()?;
                Self::TooBig { packet_bytes_max, offending: fields.header()? }
            }
            kind::SLOT_MOVED => {
                let (from, to) = (fields.u32()?, fields.u32()?);
                Self::SlotMoved { from, to, offending: fields.header()? }
            }
            kind::SLOT_GONE => Self::SlotGone { slot: fields.u32()?, offending: fields.header()? },
            kind::CONGESTION => Self::Congestion { offending: fields.header()? },
            kind::GOODBYE => {
                let retry_after_s = fields.u32()?;
                if fields.0.len() > GOODBYE_TEXT_BYTES_MAX {
                    return Err(MessageError::TooLong);
                }
                let text = std::str::from_utf8(fields.0).map_err(|_| MessageError::Field)?;
                Self::Goodbye { code, retry_after_s, text }
            }
            _ => return Err(MessageError::Kind),
        })
    }

    fn trace_answer(code: u8, fields: &mut Fields<'_>) -> Result<Self, MessageError> {
        let id = fields.u32()?;
        let slot_in = fields.u32()?;
        // The high byte of what would be no slot number says what stands there.
        let [behind, slot @ ..] = *fields.take::<4>()?;
        let [a, b, c] = slot;
        let slot_out = u32::from_be_bytes([0, a, b, c]);
        let behind = Behind::from_number(behind).ok_or(MessageError::Field)?;
        Ok(Self::TraceAnswer {
            id,
            hop: HopWord {
                slot_in,
                slot_out: (slot_out != NO_SLOT >> 8).then_some(slot_out),
                behind,
                discard: (code != 0).then_some(Reason(code)),
                held_ns: fields.u64()?,
                worker_ns: fields.u64()?,
                queue_frames: fields.u16()?,
                packet_bytes_max: fields.u16()?,
            },
        })
    }

    /// Writes the message behind what `out` holds already. A ping's or pong's payload is cut off where
    /// `out` has no more room; every other kind is shorter than [`CONTROL_BYTES_MAX`].
    pub fn emit(&self, out: &mut MessageBytes) {
        let mut put = |bytes: &[u8]| {
            let room = out.remaining_capacity().min(bytes.len());
            out.extend(bytes[..room].iter().copied());
        };
        match *self {
            Self::Ping { id, payload } => {
                put(&[VERSION, kind::PING, 0, 0]);
                put(&id.to_be_bytes());
                put(payload);
            }
            Self::Pong { id, payload } => {
                put(&[VERSION, kind::PONG, 0, 0]);
                put(&id.to_be_bytes());
                put(payload);
            }
            Self::TraceRequest { id } => {
                put(&[VERSION, kind::TRACE_REQUEST, 0, 0]);
                put(&id.to_be_bytes());
                put(&[0; TRACE_BYTES - PREFIX_BYTES - 4]);
            }
            Self::TraceAnswer { id, hop } => {
                let code = hop.discard.map_or(0, Reason::number);
                put(&[VERSION, kind::TRACE_ANSWER, code, 0]);
                put(&id.to_be_bytes());
                put(&hop.slot_in.to_be_bytes());
                let [_, slot @ ..] = hop.slot_out.unwrap_or(NO_SLOT).to_be_bytes();
                put(&[hop.behind as u8]);
                put(&slot);
                put(&hop.held_ns.to_be_bytes());
                put(&hop.worker_ns.to_be_bytes());
                put(&hop.queue_frames.to_be_bytes());
                put(&hop.packet_bytes_max.to_be_bytes());
            }
            Self::IdentityRequest { id } => {
                put(&[VERSION, kind::IDENTITY_REQUEST, 0, 0]);
                put(&id.to_be_bytes());
                put(&[0; IDENTITY_BYTES - PREFIX_BYTES - 4]);
            }
            Self::IdentityAnswer { id, identity, link_key } => {
                put(&[VERSION, kind::IDENTITY_ANSWER, 0, 0]);
                put(&id.to_be_bytes());
                put(identity);
                put(link_key);
            }
            Self::Error { why, offending } => {
                put(&[VERSION, kind::ERROR, why.number(), 0]);
                put(offending);
            }
            Self::TooBig { packet_bytes_max, offending } => {
                put(&[VERSION, kind::TOO_BIG, 0, 0]);
                put(&packet_bytes_max.to_be_bytes());
                put(offending);
            }
            Self::SlotMoved { from, to, offending } => {
                put(&[VERSION, kind::SLOT_MOVED, 0, 0]);
                put(&from.to_be_bytes());
                put(&to.to_be_bytes());
                put(offending);
            }
            Self::SlotGone { slot, offending } => {
                put(&[VERSION, kind::SLOT_GONE, 0, 0]);
                put(&slot.to_be_bytes());
                put(offending);
            }
            Self::Congestion { offending } => {
                put(&[VERSION, kind::CONGESTION, 0, 0]);
                put(offending);
            }
            Self::Goodbye { code, retry_after_s, text } => {
                put(&[VERSION, kind::GOODBYE, code, 0]);
                put(&retry_after_s.to_be_bytes());
                put(text.as_bytes());
            }
        }
    }

    /// The message alone.
    pub fn to_bytes(&self) -> MessageBytes {
        let mut out = MessageBytes::new();
        self.emit(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [u8; 16] = [0x10, 0, 9, 0, 0, 4, 0xbe, 0xef, 0, 0, 0, 0, 0, 0, 1, 0x15];

    #[test]
    fn w5_2_the_bytes_lie_as_the_specification_draws_them() {
        let ping = Message::Ping { id: 0x0102_0304, payload: b"abc" };
        assert_eq!(ping.to_bytes().as_slice(), b"\x01\x01\0\0\x01\x02\x03\x04abc");
        let error = Message::Error { why: Reason(4), offending: &HEADER };
        assert_eq!(error.to_bytes()[..4], [1, 7, 4, 0]);
        assert_eq!(error.to_bytes()[4..], HEADER);
        let bye = Message::Goodbye { code: 2, retry_after_s: 30, text: "new version" };
        assert_eq!(bye.to_bytes().as_slice(), b"\x01\x0c\x02\0\0\0\0\x1enew version");
    }

    #[test]
    fn what_is_emitted_is_read_back() {
        let hop = HopWord {
            slot_in: 7,
            slot_out: Some(300),
            behind: Behind::Endpoint,
            discard: Reason::of(Discard::TooBig),
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
            Message::TraceAnswer { id: 6, hop },
            Message::TraceAnswer { id: 6, hop: none },
            Message::IdentityRequest { id: 7 },
            Message::IdentityAnswer { id: 8, identity: &[1; 32], link_key: &[2; 32] },
            Message::Error { why: Reason(200), offending: &HEADER },
            Message::TooBig { packet_bytes_max: 1280, offending: &HEADER },
            Message::SlotMoved { from: 4, to: 5, offending: &HEADER },
            Message::SlotGone { slot: 4, offending: &HEADER },
            Message::Congestion { offending: &HEADER },
            Message::Goodbye { code: 1, retry_after_s: 0, text: "grüße" },
        ] {
            assert_eq!(Message::parse(&message.to_bytes()), Ok(message.clone()), "{message:?}");
        }
    }

    #[test]
    fn w5_6_a_question_is_as_long_as_its_answer() {
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
        let answer = Message::TraceAnswer { id: 1, hop }.to_bytes();
        assert_eq!(Message::TraceRequest { id: 1 }.to_bytes().len(), answer.len());
        let answer = Message::IdentityAnswer { id: 1, identity: &[0; 32], link_key: &[0; 32] };
        let question = Message::IdentityRequest { id: 1 };
        assert_eq!(question.to_bytes().len(), answer.to_bytes().len());
    }

    #[test]
    fn bytes_that_are_no_message_say_why() {
        assert_eq!(Message::parse(&[]), Err(MessageError::TooShort));
        assert_eq!(Message::parse(&[2, 1, 0, 0, 0, 0, 0, 0]), Err(MessageError::Version));
        assert_eq!(Message::parse(&[1, 99, 0, 0]), Err(MessageError::Kind));
        assert_eq!(Message::parse(&[1, 7, 1, 0, 0x13, 0]), Err(MessageError::Field));
        assert_eq!(Message::parse(&[1, 12, 0, 0, 0, 0, 0, 0, 0xff]), Err(MessageError::Field));
        let mut long = Message::Congestion { offending: &HEADER }.to_bytes();
        long.push(0);
        assert_eq!(Message::parse(&long), Err(MessageError::TooLong));
    }

    /// Coverage-guided fuzzing found the first one: a trace answer of 1,429 bytes was read, and its
    /// copy was 36 bytes long.
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
            Message::TraceAnswer { id: 6, hop },
            Message::TraceRequest { id: 5 },
            Message::IdentityRequest { id: 7 },
            Message::IdentityAnswer { id: 8, identity: &[1; 32], link_key: &[2; 32] },
        ] {
            let exact = message.to_bytes();
            assert_eq!(Message::parse(&exact), Ok(message.clone()));
            let short = &exact[..exact.len() - 1];
            assert_eq!(Message::parse(short), Err(MessageError::TooShort), "{message:?}");
            for more in [1, 1_429 - exact.len()] {
                let mut long = exact.to_vec();
                long.extend(std::iter::repeat_n(0, more));
                assert_eq!(Message::parse(&long), Err(MessageError::TooLong), "{message:?}");
            }
        }
    }

    #[test]
    fn w5_5_each_reason_has_one_number_and_what_is_not_allowed_has_none() {
        for (number, discard) in REASONS {
            assert_eq!(Reason::of(discard), Some(Reason(number)));
            assert_eq!(Reason(number).discard(), Some(discard));
        }
        assert_eq!(Reason::of(Discard::NotAllowed), None);
        assert_eq!(Reason(255).name(), "unknown");
    }
}
