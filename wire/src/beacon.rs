//! The bytes of a link beacon: "a node with this key is here" (wire.md section 10).
//!
//! ```text
//!  0                 8         12            44              76          140            880   896
//! +-----------------+---------+-------------+---------------+-----------+--------------+-----+
//! | link header     | version | X25519 key  | Ed25519 key   | signature | zeros        | mac |
//! | 70 00 00 00 ... | 1, 0, 0, 0            |               |           |              |     |
//! +-----------------+---------+-------------+---------------+-----------+--------------+-----+
//! ```
//!
//! This module reads and writes the fields. The signature and the mac are computed and checked in
//! `strowger-crypto`. A beacon has the length of a handshake initiation. So an initiation that a
//! beacon triggers is never longer than the beacon (R8).
//!
//! ```
//! use strowger_wire::beacon::{Beacon, Fields};
//!
//! let fields = Fields { static_key: &[1; 32], identity: &[2; 32], signature: &[3; 64] };
//! let bytes = fields.emit(|covered| [covered.len() as u8; 16]);
//! let beacon = Beacon::parse(&bytes)?;
//! assert_eq!((beacon.fields(), beacon.mac()), (fields, &[112; 16])); // 880 % 256
//! # Ok::<(), strowger_wire::beacon::BeaconError>(())
//! ```

use core::fmt;

use crate::fields::Reader;
use crate::limits::{INITIATION_BYTES, KEY_BYTES, MAC_BYTES, SIGNATURE_BYTES};
use crate::link_header::{Kind, LINK_HEADER_BYTES, Lane, LinkHeader, SessionIndex};

/// Bytes of every beacon: the same number as of a handshake initiation.
pub const BEACON_BYTES: usize = INITIATION_BYTES;

/// The first byte of every beacon, and of no other packet: its kind, and lane 0.
pub const FIRST_BYTE: u8 = (Kind::Beacon as u8) << 4;

/// The version that this crate describes. Beacons of other versions are refused.
pub const VERSION: u8 = 1;

const HEADER: LinkHeader =
    LinkHeader { kind: Kind::Beacon, lane: Lane::ZERO, index: SessionIndex::NONE, low: 0 };

/// The mac covers all bytes before it.
const COVERED_BYTES: usize = BEACON_BYTES - MAC_BYTES;

const _: () = assert!(LINK_HEADER_BYTES + 4 + 2 * KEY_BYTES + SIGNATURE_BYTES <= COVERED_BYTES);

/// The fields of a beacon. This module does not verify them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields<'a> {
    /// The node's X25519 static key, which it uses in the handshakes of its links.
    pub static_key: &'a [u8; KEY_BYTES],
    /// The node's Ed25519 key.
    pub identity: &'a [u8; KEY_BYTES],
    /// The node's Ed25519 signature over its X25519 key and the network's name (W10-3).
    pub signature: &'a [u8; SIGNATURE_BYTES],
}

impl Fields<'_> {
    /// The beacon with these fields. `mac` computes the last 16 bytes from all bytes before them.
    pub fn emit(&self, mac: impl FnOnce(&[u8]) -> [u8; MAC_BYTES]) -> [u8; BEACON_BYTES] {
        let mut bytes = [0; BEACON_BYTES];
        let parts = [
            &HEADER.to_bytes()[..],
            &[VERSION, 0, 0, 0],
            self.static_key,
            self.identity,
            self.signature,
        ];
        let bytes_of_parts = parts.into_iter().flatten();
        bytes.iter_mut().zip(bytes_of_parts).for_each(|(byte, part)| *byte = *part);
        let (covered, place) = bytes.split_at_mut(COVERED_BYTES);
        place.copy_from_slice(&mac(covered));
        bytes
    }
}

/// A beacon with the right length, link header and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beacon<'a> {
    fields: Fields<'a>,
    covered: &'a [u8],
    mac: &'a [u8; MAC_BYTES],
}

impl<'a> Beacon<'a> {
    /// Reads a beacon. Returns a beacon or an error for any bytes.
    ///
    /// # Errors
    /// [`BeaconError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Beacon<'a>, BeaconError> {
        let (covered, mac) = bytes.split_last_chunk().ok_or(BeaconError::Malformed)?;
        let mut rest = Reader(covered);
        let header = rest.take::<LINK_HEADER_BYTES>();
        if bytes.len() != BEACON_BYTES || header != Some(&HEADER.to_bytes()) {
            return Err(BeaconError::Malformed);
        }
        let [version, ..] = *rest.take::<4>().ok_or(BeaconError::Malformed)?;
        if version != VERSION {
            return Err(BeaconError::UnknownVersion);
        }
        let fields = Fields {
            static_key: rest.take().ok_or(BeaconError::Malformed)?,
            identity: rest.take().ok_or(BeaconError::Malformed)?,
            signature: rest.take().ok_or(BeaconError::Malformed)?,
        };
        Ok(Beacon { fields, covered, mac })
    }

    /// The fields of this beacon.
    #[must_use]
    pub const fn fields(&self) -> Fields<'a> {
        self.fields
    }

    /// The bytes that the mac covers: all before it.
    #[must_use]
    pub const fn covered(&self) -> &'a [u8] {
        self.covered
    }

    /// The mac, which is keyed with the network's name (W10-4).
    #[must_use]
    pub const fn mac(&self) -> &'a [u8; MAC_BYTES] {
        self.mac
    }
}

/// Why bytes are not a beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BeaconError {
    /// The length or the link header is not that of a beacon.
    Malformed,
    /// A version other than [`VERSION`].
    UnknownVersion,
}

impl fmt::Display for BeaconError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BeaconError::Malformed => "not shaped like a beacon",
            BeaconError::UnknownVersion => "a beacon of an unknown version",
        })
    }
}

impl core::error::Error for BeaconError {}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: Fields<'_> =
        Fields { static_key: &[1; 32], identity: &[2; 32], signature: &[3; 64] };

    #[test]
    fn the_bytes_lie_as_they_are_drawn() {
        let bytes = FIELDS.emit(|covered| {
            assert_eq!(covered.len(), 880);
            [4; MAC_BYTES]
        });
        assert_eq!(bytes[..12], [0x70, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!((&bytes[12..44], &bytes[44..76]), (&[1; 32][..], &[2; 32][..]));
        assert_eq!(bytes[76..140], [3; 64]);
        assert!(bytes[140..880].iter().all(|byte| *byte == 0));
        assert_eq!(bytes[880..], [4; MAC_BYTES]);
        let beacon = Beacon::parse(&bytes).expect("our own");
        assert_eq!((beacon.fields(), beacon.mac()), (FIELDS, &[4; MAC_BYTES]));
        assert_eq!((bytes[0], beacon.covered()), (FIRST_BYTE, &bytes[..880]));
    }

    #[test]
    fn other_lengths_headers_and_versions_are_refused() {
        let bytes = FIELDS.emit(|_| [4; MAC_BYTES]);
        for length in 0..BEACON_BYTES {
            assert_eq!(Beacon::parse(&bytes[..length]), Err(BeaconError::Malformed), "{length}");
        }
        let mut longer = [0; BEACON_BYTES + 1];
        longer[..BEACON_BYTES].copy_from_slice(&bytes);
        assert_eq!(Beacon::parse(&longer), Err(BeaconError::Malformed));
        for place in 0..BEACON_BYTES {
            let mut touched = bytes;
            touched[place] ^= 1;
            let wanted = match place {
                0..8 => Err(BeaconError::Malformed),
                8 => Err(BeaconError::UnknownVersion),
                _ => Ok(()),
            };
            assert_eq!(Beacon::parse(&touched).map(|_| ()), wanted, "byte {place}");
        }
    }
}
