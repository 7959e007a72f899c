//! The link header: the eight bytes that begin every packet on a link (wire.md section 3).
//!
//! ```text
//!  0               1               2               3
//! +-------+-------+---------------+---------------+---------------+
//! | kind  | lane  |  receiver's session index                     |
//! +-------+-------+---------------+---------------+---------------+
//! |  low 32 bits of the counter                                   |
//! +---------------+---------------+---------------+---------------+
//! ```
//!
//! The kind determines what follows the header. In a handshake message, the lane says which step it
//! is ([`Step`]). In an initiation or response, the last four bytes hold the *sender's* session
//! index, so that the receiver can address a cookie reply before it decrypts anything (W4-2).
//!
//! ```
//! use strowger_wire::link_header::{Kind, Lane, LinkHeader, LinkHeaderError, SessionIndex};
//!
//! let header = LinkHeader {
//!     kind: Kind::SealedData,
//!     lane: Lane::new(2).unwrap(),
//!     index: SessionIndex::new(0x010203).unwrap(),
//!     low: 7,
//! };
//! assert_eq!(header.to_bytes(), [0x42, 1, 2, 3, 0, 0, 0, 7]);
//! assert_eq!(LinkHeader::parse(&header.to_bytes()), Ok(header));
//! assert_eq!(LinkHeader::parse(&[0xf0; 8]), Err(LinkHeaderError::UnknownKind));
//! ```

use core::fmt;

use crate::limits::LANES_MAX;

/// Bytes of a link header.
pub const LINK_HEADER_BYTES: usize = 8;

/// The kind of a packet on a link (W3-1). The numbers are those on the wire; 0 and 10 to 15 are not
/// assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A handshake message of the initiator: the first one, and in XX the third.
    Initiation = 1,
    /// A handshake message of the responder.
    Response = 2,
    /// A cookie reply. The initiator repeats its message with the cookie (as in WireGuard, section
    /// 5.4.7).
    Cookie = 3,
    /// Data; all bytes after the link header are encrypted and authenticated.
    SealedData = 4,
    /// Data; only the first 64 bytes after the link header are encrypted and authenticated (W3-6).
    SealedHeaderData = 5,
    /// Data in the clear; accepted only on links that the operator configured as plain.
    PlainData = 6,
    /// A [beacon](crate::beacon): suggests a peer and is no proof of its identity.
    Beacon = 7,
    /// A sealed token. The peer returns it, which shows that the peer can be reached at an address
    /// (W3-21).
    PathChallenge = 8,
    /// The sealed reply to a path challenge.
    PathResponse = 9,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Kind; 9] = [
        Kind::Initiation,
        Kind::Response,
        Kind::Cookie,
        Kind::SealedData,
        Kind::SealedHeaderData,
        Kind::PlainData,
        Kind::Beacon,
        Kind::PathChallenge,
        Kind::PathResponse,
    ];

    /// The kind with this number, if one is assigned.
    #[inline]
    pub const fn from_number(number: u8) -> Option<Kind> {
        match number {
            1 => Some(Kind::Initiation),
            2 => Some(Kind::Response),
            3 => Some(Kind::Cookie),
            4 => Some(Kind::SealedData),
            5 => Some(Kind::SealedHeaderData),
            6 => Some(Kind::PlainData),
            7 => Some(Kind::Beacon),
            8 => Some(Kind::PathChallenge),
            9 => Some(Kind::PathResponse),
            _ => None,
        }
    }

    /// Whether a packet of this kind is sealed, in full or in part.
    #[inline]
    pub const fn is_sealed(self) -> bool {
        matches!(
            self,
            Kind::SealedData | Kind::SealedHeaderData | Kind::PathChallenge | Kind::PathResponse
        )
    }

    /// Whether a packet of this kind is a message of a handshake.
    #[inline]
    pub const fn is_handshake(self) -> bool {
        matches!(self, Kind::Initiation | Kind::Response | Kind::Cookie)
    }
}

/// The handshake pattern and the step of a handshake message, which its lane encodes (W4-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Step {
    /// IKpsk2: the first message, its response, or a cookie reply to it.
    Known = 0,
    /// XX: the first message, its response, or a cookie reply to it.
    Discover = 1,
    /// XX: the third message, or a cookie reply to it.
    Finish = 2,
}

impl Step {
    /// The handshake step that this lane identifies, if any.
    pub const fn from_lane(lane: Lane) -> Option<Step> {
        match lane.0 {
            0 => Some(Step::Known),
            1 => Some(Step::Discover),
            2 => Some(Step::Finish),
            _ => None,
        }
    }

    /// The lane that identifies this step.
    pub const fn lane(self) -> Lane {
        Lane(self as u8)
    }
}

/// The number of a lane, 0 to 15: one sending worker of a link, or one path of a connection. Each
/// lane has its own key and counter (W3-4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(u8);

impl Lane {
    /// The first lane.
    pub const ZERO: Lane = Lane(0);

    /// The lane with this number; `None` from [`LANES_MAX`] on.
    #[inline]
    pub const fn new(number: u8) -> Option<Lane> {
        if (number as usize) < LANES_MAX { Some(Lane(number)) } else { None }
    }

    /// The number as an integer.
    #[inline]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// The number that identifies a session to its receiver: 24 bits, chosen by the receiver.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionIndex(u32);

impl SessionIndex {
    /// No session. An initiation without a key hint has this index (W4-17).
    pub const NONE: SessionIndex = SessionIndex(0);

    /// One more than the largest index.
    pub const END: u32 = 1 << 24;

    /// The index with this number; `None` from [`SessionIndex::END`] on.
    #[inline]
    pub const fn new(number: u32) -> Option<SessionIndex> {
        if number < SessionIndex::END { Some(SessionIndex(number)) } else { None }
    }

    /// The number as an integer.
    #[inline]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for SessionIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Why bytes do not begin with a link header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkHeaderError {
    /// Fewer than eight bytes.
    Runt,
    /// A kind that is not assigned.
    UnknownKind,
}

impl fmt::Display for LinkHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LinkHeaderError::Runt => "shorter than a link header",
            LinkHeaderError::UnknownKind => "unknown kind of link packet",
        })
    }
}

impl core::error::Error for LinkHeaderError {}

/// The fields of a link header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkHeader {
    /// The kind of the packet.
    pub kind: Kind,
    /// The sender's lane; in a handshake message, the [`Step`].
    pub lane: Lane,
    /// The receiver's session index; in an initiation of IK, the key hint (W4-17).
    pub index: SessionIndex,
    /// The low 32 bits of the counter; in an initiation or response, the sender's session index.
    pub low: u32,
}

impl LinkHeader {
    /// Reads the header at the front of `packet`.
    ///
    /// # Errors
    /// [`Runt`](LinkHeaderError::Runt) below eight bytes, or
    /// [`UnknownKind`](LinkHeaderError::UnknownKind).
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<LinkHeader, LinkHeaderError> {
        let Some(bytes) = packet.first_chunk::<LINK_HEADER_BYTES>() else {
            return Err(LinkHeaderError::Runt);
        };
        let first = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let Some(kind) = Kind::from_number(bytes[0] >> 4) else {
            return Err(LinkHeaderError::UnknownKind);
        };
        Ok(LinkHeader {
            kind,
            lane: Lane(bytes[0] & 0x0f),
            index: SessionIndex(first & 0x00ff_ffff),
            low: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
    }

    /// The header as bytes.
    #[inline]
    pub const fn to_bytes(self) -> [u8; LINK_HEADER_BYTES] {
        let first = (self.kind as u32) << 28 | (self.lane.0 as u32) << 24 | self.index.0;
        let [a, b, c, d] = first.to_be_bytes();
        let [e, f, g, h] = self.low.to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// wire.md: W3-1, W3-24.
    #[test]
    fn every_first_byte_parses_to_itself_or_is_refused() {
        for first in 0..=255u8 {
            let bytes = [first, 1, 2, 3, 4, 5, 6, 7, 99];
            match LinkHeader::parse(&bytes) {
                Ok(header) => {
                    assert_eq!(header.to_bytes(), bytes[..8]);
                    assert_eq!(header.index.number(), 0x010203);
                    assert_eq!(header.low, 0x04050607);
                }
                Err(error) => {
                    assert_eq!(error, LinkHeaderError::UnknownKind);
                    assert!(!(1..=9).contains(&(first >> 4)));
                }
            }
        }
    }

    /// wire.md: W3-25.
    #[test]
    fn seven_bytes_are_a_runt() {
        for length in 0..LINK_HEADER_BYTES {
            assert_eq!(LinkHeader::parse(&[0x40; 8][..length]), Err(LinkHeaderError::Runt));
        }
    }

    /// wire.md: W3-1.
    #[test]
    fn numbers_of_kinds_are_those_of_the_wire() {
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number + 1);
            assert_eq!(Kind::from_number(kind as u8), Some(kind));
            assert!(!(kind.is_sealed() && kind.is_handshake()));
        }
    }

    /// wire.md: W3-4, W3-26, W4-2.
    #[test]
    fn bounds_of_lane_and_index() {
        assert_eq!(Lane::new(15).map(Lane::number), Some(15));
        assert_eq!(Lane::new(16), None);
        assert_eq!(SessionIndex::new(SessionIndex::END), None);
        assert!(SessionIndex::new(SessionIndex::END - 1).is_some());
        for step in [Step::Known, Step::Discover, Step::Finish] {
            assert_eq!(Step::from_lane(step.lane()), Some(step));
        }
        assert_eq!(Step::from_lane(Lane(3)), None);
    }
}
