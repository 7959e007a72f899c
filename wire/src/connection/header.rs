//! The header of a connection packet: eight bytes in the format of a link header (wire.md 6.1).
//!
//! ```text
//!  0               1               2               3
//! +-------+-------+---------------+---------------+---------------+
//! | kind  | lane  |  receiver's connection index                  |
//! +-------+-------+---------------+---------------+---------------+
//! |  low 32 bits of the counter                                   |
//! +---------------------------------------------------------------+
//! ```
//!
//! ```
//! use strowger_wire::connection::{ConnectionHeader, ConnectionHeaderError, ConnectionKind};
//! use strowger_wire::link_header::{Lane, SessionIndex};
//!
//! let header = ConnectionHeader {
//!     kind: ConnectionKind::SealedMessage,
//!     lane: Lane::new(1).unwrap(),
//!     index: SessionIndex::new(0x010203).unwrap(),
//!     low: 7,
//! };
//! assert_eq!(header.to_bytes(), [0x41, 1, 2, 3, 0, 0, 0, 7]);
//! assert_eq!(ConnectionHeader::parse(&header.to_bytes()), Ok(header));
//! assert_eq!(ConnectionHeader::parse(&[0x50; 8]), Err(ConnectionHeaderError::BadKind));
//! ```

use core::fmt;

use crate::link_header::{Kind, LINK_HEADER_BYTES, Lane, LinkHeader, SessionIndex};

/// Bytes of a connection header.
pub const CONNECTION_HEADER_BYTES: usize = LINK_HEADER_BYTES;

/// The kind of a connection packet. The numbers are those on the wire; 0, 5 and 10 to 15 are not
/// assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ConnectionKind {
    /// A handshake message of the initiator: the first one, and in XX the third.
    Initiation = 1,
    /// A handshake message of the responder.
    Response = 2,
    /// A cookie reply.
    Cookie = 3,
    /// A protocol number and a message, or nothing; encrypted and authenticated.
    SealedMessage = 4,
    /// A protocol number and a message that QUIC has encrypted; no tag.
    PassThrough = 6,
    /// The receiver of a sealed packet does not know the packet's index. This answer is not
    /// authenticated.
    UnknownConnection = 7,
    /// A sealed token. The peer returns it, which shows that packets with this label reach the
    /// peer.
    PathChallenge = 8,
    /// The sealed reply to a path challenge.
    PathResponse = 9,
}

impl ConnectionKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [ConnectionKind; 8] = [
        ConnectionKind::Initiation,
        ConnectionKind::Response,
        ConnectionKind::Cookie,
        ConnectionKind::SealedMessage,
        ConnectionKind::PassThrough,
        ConnectionKind::UnknownConnection,
        ConnectionKind::PathChallenge,
        ConnectionKind::PathResponse,
    ];

    /// The kind with this number, if one is assigned.
    #[inline]
    #[must_use]
    pub const fn from_number(number: u8) -> Option<ConnectionKind> {
        match number {
            1 => Some(ConnectionKind::Initiation),
            2 => Some(ConnectionKind::Response),
            3 => Some(ConnectionKind::Cookie),
            4 => Some(ConnectionKind::SealedMessage),
            6 => Some(ConnectionKind::PassThrough),
            7 => Some(ConnectionKind::UnknownConnection),
            8 => Some(ConnectionKind::PathChallenge),
            9 => Some(ConnectionKind::PathResponse),
            _ => None,
        }
    }

    /// Whether a packet of this kind is sealed. It then has at least a header and a tag.
    #[inline]
    #[must_use]
    pub const fn is_sealed(self) -> bool {
        matches!(
            self,
            ConnectionKind::SealedMessage
                | ConnectionKind::PathChallenge
                | ConnectionKind::PathResponse
        )
    }

    /// Whether a packet of this kind is a message of a handshake.
    #[inline]
    #[must_use]
    pub const fn is_handshake(self) -> bool {
        matches!(
            self,
            ConnectionKind::Initiation | ConnectionKind::Response | ConnectionKind::Cookie
        )
    }

    /// The kind of link packet that is sealed or read in the same way; `None` for the two kinds
    /// that links do not have. The numbers are equal.
    #[inline]
    #[must_use]
    pub const fn link_kind(self) -> Option<Kind> {
        match self {
            ConnectionKind::Initiation => Some(Kind::Initiation),
            ConnectionKind::Response => Some(Kind::Response),
            ConnectionKind::Cookie => Some(Kind::Cookie),
            ConnectionKind::SealedMessage => Some(Kind::SealedData),
            ConnectionKind::PathChallenge => Some(Kind::PathChallenge),
            ConnectionKind::PathResponse => Some(Kind::PathResponse),
            ConnectionKind::PassThrough | ConnectionKind::UnknownConnection => None,
        }
    }
}

/// The fields of a connection header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionHeader {
    /// The kind of the packet.
    pub kind: ConnectionKind,
    /// The lane of the packet's path; in a handshake message, its step.
    pub lane: Lane,
    /// The index that the receiver has given to the session.
    pub index: SessionIndex,
    /// The low 32 bits of the counter; in an initiation or response, the sender's index; 0 in
    /// pass-through messages and "unknown connection".
    pub low: u32,
}

impl ConnectionHeader {
    /// Reads the header at the front of `packet`. It does not check the length of what follows.
    ///
    /// # Errors
    /// [`TooShort`](ConnectionHeaderError::TooShort) below eight bytes, or
    /// [`BadKind`](ConnectionHeaderError::BadKind).
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<ConnectionHeader, ConnectionHeaderError> {
        let Some(&[first, a, b, c, low @ ..]) = packet.first_chunk::<CONNECTION_HEADER_BYTES>()
        else {
            return Err(ConnectionHeaderError::TooShort);
        };
        let Some(kind) = ConnectionKind::from_number(first >> 4) else {
            return Err(ConnectionHeaderError::BadKind);
        };
        let index = SessionIndex::new(u32::from_be_bytes([0, a, b, c]));
        let (Some(lane), Some(index)) = (Lane::new(first & 0x0f), index) else {
            // This cannot happen: any four bits are a lane, and any 24 bits are an index.
            return Err(ConnectionHeaderError::BadKind);
        };
        Ok(ConnectionHeader { kind, lane, index, low: u32::from_be_bytes(low) })
    }

    /// The header as bytes.
    #[inline]
    #[must_use]
    pub const fn to_bytes(self) -> [u8; CONNECTION_HEADER_BYTES] {
        let first = (self.kind as u32) << 28 | (self.lane.number() as u32) << 24;
        let [a, b, c, d] = (first | self.index.number()).to_be_bytes();
        let [e, f, g, h] = self.low.to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }

    /// The link header with the same bytes; `None` for the two kinds that links do not have.
    #[inline]
    #[must_use]
    pub const fn to_link_header(self) -> Option<LinkHeader> {
        match self.kind.link_kind() {
            Some(kind) => {
                Some(LinkHeader { kind, lane: self.lane, index: self.index, low: self.low })
            }
            None => None,
        }
    }
}

/// Why bytes do not begin with a connection header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionHeaderError {
    /// Fewer than eight bytes.
    TooShort,
    /// A kind that is not assigned; counted as `bad_connection_kind`.
    BadKind,
}

impl fmt::Display for ConnectionHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConnectionHeaderError::TooShort => "the packet is shorter than a connection header",
            ConnectionHeaderError::BadKind => "the kind of the connection packet is not assigned",
        })
    }
}

impl core::error::Error for ConnectionHeaderError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte_parses_to_itself_or_is_refused() {
        for first in 0..=255u8 {
            let bytes = [first, 1, 2, 3, 4, 5, 6, 7, 99];
            match ConnectionHeader::parse(&bytes) {
                Ok(header) => {
                    assert_eq!(header.to_bytes(), bytes[..8]);
                    assert_eq!((header.index.number(), header.low), (0x010203, 0x04050607));
                    assert!((0x10..=0x9f).contains(&first) && first >> 4 != 5, "{first:#x}");
                    let link = header.to_link_header();
                    assert_eq!(link.is_none(), matches!(first >> 4, 6 | 7));
                    assert!(link.is_none_or(|link| link.to_bytes() == header.to_bytes()));
                }
                Err(error) => {
                    assert_eq!(error, ConnectionHeaderError::BadKind);
                    assert!(matches!(first >> 4, 0 | 5 | 10..=15), "{first:#x}");
                }
            }
        }
    }

    #[test]
    fn seven_bytes_are_too_short() {
        for length in 0..CONNECTION_HEADER_BYTES {
            let read = ConnectionHeader::parse(&[0x40; 8][..length]);
            assert_eq!(read, Err(ConnectionHeaderError::TooShort));
        }
    }

    #[test]
    fn kinds_have_their_numbers_and_those_of_links_the_same() {
        for (kind, number) in ConnectionKind::ALL.into_iter().zip([1, 2, 3, 4, 6, 7, 8, 9]) {
            assert_eq!(kind as u8, number);
            assert_eq!(ConnectionKind::from_number(number), Some(kind));
            assert!(kind.link_kind().is_none_or(|link| link as u8 == number));
            assert!(!(kind.is_sealed() && kind.is_handshake()));
            let is_sealed = kind.link_kind().is_some_and(Kind::is_sealed);
            assert_eq!(kind.is_sealed(), is_sealed);
        }
    }
}
