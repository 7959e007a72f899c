//! The content of a connection packet after its header: messages, path challenges, and the answer
//! to an unknown index (wire.md 6.2).
//!
//! ```
//! use strowger_wire::connection::{SealedBody, UnknownConnection};
//!
//! // An opened sealed message to the protocol with number 3.
//! let Ok(SealedBody::Message { number, message }) = SealedBody::parse(b"\x03hello") else {
//!     panic!("a message");
//! };
//! assert_eq!((number.number(), message), (3, &b"hello"[..]));
//!
//! // The answer to a sealed packet whose index belongs to no session.
//! let packet = [0x41; 32];
//! let answer = UnknownConnection::answer_to(&packet).unwrap().to_bytes();
//! assert_eq!(answer[..8], [0x70, 0, 0, 0, 0, 0, 0, 0]);
//! assert_eq!(answer[8..], packet[..8]);
//! ```

use core::fmt;

use super::header::{CONNECTION_HEADER_BYTES, ConnectionHeader, ConnectionKind};
use super::item::ControlItems;
use super::table::EntryNumber;
use crate::limits::{PATH_TOKEN_BYTES, UNKNOWN_CONNECTION_BYTES, UNKNOWN_CONNECTION_CAUSE_BYTES};
use crate::link_header::{Lane, SessionIndex};

/// The protocol number of control items.
pub const CONTROL_NUMBER: u8 = 0;

/// The protocol number that is reserved for a longer form.
pub const RESERVED_NUMBER: u8 = 255;

/// The body of an opened sealed message: the bytes between header and tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedBody<'a> {
    /// Nothing. The packet confirms the keys.
    Empty,
    /// Control items.
    Items(ControlItems<'a>),
    /// A message to a protocol of the receiver's table.
    Message {
        /// The protocol's number in the receiver's table.
        number: EntryNumber,
        /// The message; may be empty.
        message: &'a [u8],
    },
}

impl<'a> SealedBody<'a> {
    /// Reads the body of an opened packet of kind
    /// [`SealedMessage`](ConnectionKind::SealedMessage).
    ///
    /// # Errors
    /// [`BadProtocolNumber`] if the number is 255.
    #[inline]
    pub fn parse(body: &'a [u8]) -> Result<SealedBody<'a>, BadProtocolNumber> {
        match body {
            [] => Ok(SealedBody::Empty),
            [CONTROL_NUMBER, items @ ..] => Ok(SealedBody::Items(ControlItems::new(items))),
            [number, message @ ..] => match EntryNumber::new(*number) {
                Some(number) => Ok(SealedBody::Message { number, message }),
                None => Err(BadProtocolNumber),
            },
        }
    }
}

/// The protocol number is 255, which is reserved. Counted as `bad_protocol_number`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BadProtocolNumber;

impl fmt::Display for BadProtocolNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the protocol number 255 is reserved")
    }
}

impl core::error::Error for BadProtocolNumber {}

/// Bytes of a pass-through packet in front of its message: header and protocol number.
pub const PASS_THROUGH_PREFIX_BYTES: usize = CONNECTION_HEADER_BYTES + 1;

/// A pass-through message: a QUIC packet with a short header, which QUIC has sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassThrough<'a> {
    /// The lane of the path.
    pub lane: Lane,
    /// The receiver's index.
    pub index: SessionIndex,
    /// The protocol's number in the receiver's table.
    pub number: EntryNumber,
    /// The message, without a tag. It is not empty, and its first bit is 0.
    pub message: &'a [u8],
}

impl<'a> PassThrough<'a> {
    /// Reads a packet of kind [`PassThrough`](ConnectionKind::PassThrough), header included.
    ///
    /// # Errors
    /// [`PassThroughError`].
    #[inline]
    pub fn parse(packet: &'a [u8]) -> Result<PassThrough<'a>, PassThroughError> {
        let header = ConnectionHeader::parse(packet)
            .ok()
            .filter(|header| header.kind == ConnectionKind::PassThrough)
            .ok_or(PassThroughError::OtherKind)?;
        let [number, message @ ..] = &packet[CONNECTION_HEADER_BYTES..] else {
            return Err(PassThroughError::TooShort);
        };
        let number = EntryNumber::new(*number).ok_or(PassThroughError::BadNumber)?;
        match message.first() {
            None => Err(PassThroughError::TooShort),
            Some(first) if !may_pass_through(*first) => Err(PassThroughError::LongHeader),
            Some(_) => Ok(PassThrough { lane: header.lane, index: header.index, number, message }),
        }
    }

    /// The bytes in front of the message. The counter is zero.
    #[inline]
    #[must_use]
    pub const fn prefix(&self) -> [u8; PASS_THROUGH_PREFIX_BYTES] {
        let header = ConnectionHeader {
            kind: ConnectionKind::PassThrough,
            lane: self.lane,
            index: self.index,
            low: 0,
        };
        let [a, b, c, d, e, f, g, h] = header.to_bytes();
        [a, b, c, d, e, f, g, h, self.number.number()]
    }
}

/// Whether a message with this first byte may pass through: the first bit of a QUIC packet with a
/// short header is 0 (RFC 8999, section 5.2).
#[inline]
#[must_use]
pub const fn may_pass_through(first: u8) -> bool {
    first & 0x80 == 0
}

/// Why a packet is not a pass-through message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PassThroughError {
    /// The header is incomplete, or the packet has another kind.
    OtherKind,
    /// There is no protocol number, or no message.
    TooShort,
    /// The number is 0 or 255.
    BadNumber,
    /// The message begins with a QUIC packet with a long header, which must be sealed.
    LongHeader,
}

impl fmt::Display for PassThroughError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PassThroughError::OtherKind => "the packet is not a pass-through message",
            PassThroughError::TooShort => "the pass-through message is empty",
            PassThroughError::BadNumber => "control items and number 255 cannot pass through",
            PassThroughError::LongHeader => "a QUIC packet with a long header must be sealed",
        })
    }
}

impl core::error::Error for PassThroughError {}

/// The answer to a sealed packet whose index belongs to no session of the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnknownConnection {
    received: ConnectionHeader,
}

impl UnknownConnection {
    const HEADER: ConnectionHeader = ConnectionHeader {
        kind: ConnectionKind::UnknownConnection,
        lane: Lane::ZERO,
        index: SessionIndex::NONE,
        low: 0,
    };

    /// The answer to this packet; `None` if it is not sealed or too short to be answered.
    #[must_use]
    pub fn answer_to(packet: &[u8]) -> Option<UnknownConnection> {
        let received = ConnectionHeader::parse(packet).ok()?;
        let is_answered =
            received.kind.is_sealed() && packet.len() >= UNKNOWN_CONNECTION_CAUSE_BYTES;
        is_answered.then_some(UnknownConnection { received })
    }

    /// Reads a packet of kind [`UnknownConnection`](ConnectionKind::UnknownConnection), header
    /// included.
    ///
    /// # Errors
    /// [`UnknownConnectionMalformed`] if the length or the first eight bytes are not those of such
    /// a packet, or if the header that it returns is not one of a sealed packet.
    pub fn parse(packet: &[u8]) -> Result<UnknownConnection, UnknownConnectionMalformed> {
        let bytes: &[u8; UNKNOWN_CONNECTION_BYTES] =
            packet.try_into().map_err(|_| UnknownConnectionMalformed)?;
        let (header, received) = bytes.split_at(CONNECTION_HEADER_BYTES);
        ConnectionHeader::parse(received)
            .ok()
            .filter(|received| header == Self::HEADER.to_bytes() && received.kind.is_sealed())
            .map(|received| UnknownConnection { received })
            .ok_or(UnknownConnectionMalformed)
    }

    /// The header of the packet whose index was not known.
    #[must_use]
    pub const fn received(&self) -> ConnectionHeader {
        self.received
    }

    /// The whole packet.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; UNKNOWN_CONNECTION_BYTES] {
        let [a, b, c, d, e, f, g, h] = Self::HEADER.to_bytes();
        let [i, j, k, l, m, n, o, p] = self.received.to_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }
}

/// The bytes are not a packet of kind 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnknownConnectionMalformed;

impl fmt::Display for UnknownConnectionMalformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the packet does not have the format of \"unknown connection\"")
    }
}

impl core::error::Error for UnknownConnectionMalformed {}

/// The token of a path challenge: random, and returned by the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PathToken(pub [u8; PATH_TOKEN_BYTES]);

impl PathToken {
    /// The token of an opened challenge, whose other bytes are padding; `None` if it is too short.
    #[inline]
    #[must_use]
    pub fn of_challenge(body: &[u8]) -> Option<PathToken> {
        body.first_chunk().map(|token| PathToken(*token))
    }

    /// The token of an opened response; `None` if the response has another length.
    #[inline]
    #[must_use]
    pub fn of_response(body: &[u8]) -> Option<PathToken> {
        body.try_into().ok().map(PathToken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_of_a_sealed_body_selects_its_receiver() {
        assert_eq!(SealedBody::parse(b""), Ok(SealedBody::Empty));
        for number in 0..=255 {
            let body = [number, 7, 8];
            let wanted = match EntryNumber::new(number) {
                Some(number) => Ok(SealedBody::Message { number, message: &[7, 8] }),
                None if number == 0 => Ok(SealedBody::Items(ControlItems::new(&[7, 8]))),
                None => Err(BadProtocolNumber),
            };
            assert_eq!(SealedBody::parse(&body), wanted);
            let is_refused = SealedBody::parse(&body[..1]).is_err();
            assert_eq!(is_refused, number == RESERVED_NUMBER);
        }
    }

    fn passing(message: &[u8]) -> PassThrough<'_> {
        PassThrough {
            lane: Lane::new(1).expect("below 16"),
            index: SessionIndex::new(0x0a_0b0c).expect("24 bits"),
            number: EntryNumber::new(3).expect("1 to 254"),
            message,
        }
    }

    #[test]
    fn only_short_headers_pass_through() {
        for first in 0..=255 {
            let message = [first, 1, 2];
            let mut packet = [0; PASS_THROUGH_PREFIX_BYTES + 3];
            packet[..9].copy_from_slice(&passing(&message).prefix());
            packet[9..].copy_from_slice(&message);
            let wanted = match first {
                0..0x80 => Ok(passing(&message)),
                0x80.. => Err(PassThroughError::LongHeader),
            };
            assert_eq!(PassThrough::parse(&packet), wanted);
        }
        let prefix = passing(b"").prefix();
        assert_eq!(prefix, [0x61, 0x0a, 0x0b, 0x0c, 0, 0, 0, 0, 3]);
        for length in 0..8 {
            let read = PassThrough::parse(&prefix[..length]);
            assert_eq!(read, Err(PassThroughError::OtherKind));
        }
        for length in 8..=9 {
            let read = PassThrough::parse(&prefix[..length]);
            assert_eq!(read, Err(PassThroughError::TooShort));
        }
        for number in [0, 255] {
            let packet = [0x61, 0, 0, 1, 0, 0, 0, 0, number, 0x40];
            assert_eq!(PassThrough::parse(&packet), Err(PassThroughError::BadNumber));
        }
        let sealed = [0x41, 0, 0, 1, 0, 0, 0, 0, 1, 0x40];
        assert_eq!(PassThrough::parse(&sealed), Err(PassThroughError::OtherKind));
    }

    #[test]
    fn only_sealed_packets_of_32_bytes_are_answered_and_the_answer_is_shorter() {
        for first in 0..=255_u8 {
            for length in 0..64 {
                let packet = [first; 64];
                let Some(answer) = UnknownConnection::answer_to(&packet[..length]) else {
                    let is_sealed = matches!(first >> 4, 4 | 8 | 9);
                    assert!(!is_sealed || length < 32, "{first:#x}, {length} bytes");
                    continue;
                };
                let bytes = answer.to_bytes();
                assert!(bytes.len() < length && length >= 32);
                assert_eq!(bytes[8..], packet[..8]);
                assert_eq!(UnknownConnection::parse(&bytes), Ok(answer));
            }
        }
    }

    #[test]
    fn a_malformed_unknown_connection_is_refused() {
        let answer = UnknownConnection::answer_to(&[0x41; 32]).expect("long enough");
        let bytes = answer.to_bytes();
        let mut longer = [0; 17];
        longer[..16].copy_from_slice(&bytes);
        assert!(UnknownConnection::parse(&longer).is_err());
        for length in 0..bytes.len() {
            assert!(UnknownConnection::parse(&bytes[..length]).is_err(), "{length} bytes");
        }
        for place in 0..8 {
            let mut changed = bytes;
            changed[place] ^= 1;
            assert!(UnknownConnection::parse(&changed).is_err(), "byte {place}");
        }
        for kind in 0..16_u8 {
            let mut changed = bytes;
            changed[8] = kind << 4;
            let is_read = UnknownConnection::parse(&changed).is_ok();
            assert_eq!(is_read, matches!(kind, 4 | 8 | 9), "kind {kind}");
        }
    }

    #[test]
    fn a_challenge_may_be_padded_and_a_response_may_not() {
        let body = [1, 2, 3, 4, 5, 6, 7, 8, 0, 0];
        let token = PathToken([1, 2, 3, 4, 5, 6, 7, 8]);
        for length in 0..=body.len() {
            let wanted = (length >= 8).then_some(token);
            assert_eq!(PathToken::of_challenge(&body[..length]), wanted);
            let wanted = (length == 8).then_some(token);
            assert_eq!(PathToken::of_response(&body[..length]), wanted);
        }
    }
}
