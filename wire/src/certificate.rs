//! The bytes of an identity certificate: "this key belongs to this identity" (wire.md 6.7).
//!
//! ```text
//!  0      1       2           10            42             74                 138
//! +------+-------+-----------+-------------+--------------+------------------+
//! | role | flags | stamp     | Ed25519 key | the key      | signature        |
//! +------+-------+-----------+-------------+--------------+------------------+
//! ```
//!
//! This module reads and writes the fields. The signature is computed and checked in
//! `strowger-crypto`, over the bytes that [`CertificateFields::signed`] gives.
//!
//! ```
//! use strowger_wire::certificate::{CertificateFields, KeyRole};
//!
//! let fields = CertificateFields {
//!     role: KeyRole::Connection,
//!     flags: 0,
//!     stamp: 7,
//!     identity: &[1; 32],
//!     key: &[2; 32],
//! };
//! let signed = fields.signed(b"home").unwrap();
//! assert_eq!(signed[..28], *b"strowger-certificate-1:\x04home");
//! let bytes = fields.emit(&[3; 64]);
//! assert_eq!(signed[28..], bytes[..74]);
//! assert_eq!(CertificateFields::parse(&bytes), Ok((fields, &[3; 64])));
//! ```

use core::fmt;
use core::ops::Deref;

use crate::fields::{Reader, Writer};
use crate::limits::{KEY_BYTES, NETWORK_ID_BYTES_MAX, SIGNATURE_BYTES};

/// Bytes of an identity certificate.
pub const CERTIFICATE_BYTES: usize = CERTIFICATE_FIELDS_BYTES + SIGNATURE_BYTES;

/// Bytes before the signature.
pub const CERTIFICATE_FIELDS_BYTES: usize = 1 + 1 + 8 + 2 * KEY_BYTES;

/// The domain of the signature. The length of the network's name and the name follow.
pub const CERTIFICATE_DOMAIN: &[u8; 23] = b"strowger-certificate-1:";

/// Bytes of the longest text that is signed.
const SIGNED_BYTES_MAX: usize =
    CERTIFICATE_DOMAIN.len() + 1 + NETWORK_ID_BYTES_MAX + CERTIFICATE_FIELDS_BYTES;

const _: () = assert!(CERTIFICATE_BYTES == 138 && NETWORK_ID_BYTES_MAX <= u8::MAX as usize);

/// The role of the certified key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum KeyRole {
    /// The X25519 static key of links.
    Link = 1,
    /// The X25519 static key of connections.
    Connection = 2,
    /// The Ed25519 key with which a node signs statements about its links.
    Node = 3,
}

impl KeyRole {
    /// The role with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<KeyRole> {
        match number {
            1 => Some(KeyRole::Link),
            2 => Some(KeyRole::Connection),
            3 => Some(KeyRole::Node),
            _ => None,
        }
    }
}

/// The fields of an identity certificate before the signature. This module does not verify them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateFields<'a> {
    /// The role of the key.
    pub role: KeyRole,
    /// No flag is defined for the roles of this version. Bits are kept, because they are signed.
    pub flags: u8,
    /// The time of signing in nanoseconds since 1970. Of two certificates of one identity and role,
    /// the one with the greater stamp is the newer one.
    pub stamp: u64,
    /// The Ed25519 key of the identity, which signs.
    pub identity: &'a [u8; KEY_BYTES],
    /// The key that belongs to the identity.
    pub key: &'a [u8; KEY_BYTES],
}

impl<'a> CertificateFields<'a> {
    /// Reads a certificate: its fields, and the signature. Returns a certificate or an error for
    /// any bytes.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn parse(
        bytes: &'a [u8],
    ) -> Result<(CertificateFields<'a>, &'a [u8; SIGNATURE_BYTES]), CertificateError> {
        if bytes.len() != CERTIFICATE_BYTES {
            return Err(CertificateError::Length);
        }
        let mut rest = Reader(bytes);
        let role = rest.u8().ok_or(CertificateError::Length)?;
        let fields = CertificateFields {
            role: KeyRole::from_number(role).ok_or(CertificateError::Role)?,
            flags: rest.u8().ok_or(CertificateError::Length)?,
            stamp: rest.u64().ok_or(CertificateError::Length)?,
            identity: rest.take().ok_or(CertificateError::Length)?,
            key: rest.take().ok_or(CertificateError::Length)?,
        };
        Ok((fields, rest.take().ok_or(CertificateError::Length)?))
    }

    /// The bytes that the signature covers, in the network of this name. `None` if the name is
    /// longer than [`NETWORK_ID_BYTES_MAX`].
    #[must_use]
    pub fn signed(&self, network: &[u8]) -> Option<SignedBytes> {
        if network.len() > NETWORK_ID_BYTES_MAX {
            return None;
        }
        let mut bytes = [0; SIGNED_BYTES_MAX];
        let left = Writer(&mut bytes)
            .put(CERTIFICATE_DOMAIN)?
            // The name has at most 32 bytes.
            .put(&[network.len() as u8])?
            .put(network)
            .and_then(|out| self.write(out))?
            .0
            .len();
        Some(SignedBytes { bytes, length: SIGNED_BYTES_MAX - left })
    }

    /// The whole certificate.
    #[must_use]
    pub fn emit(&self, signature: &[u8; SIGNATURE_BYTES]) -> [u8; CERTIFICATE_BYTES] {
        let mut bytes = [0; CERTIFICATE_BYTES];
        let (fields, place) = bytes.split_at_mut(CERTIFICATE_FIELDS_BYTES);
        let written = self.write(Writer(fields));
        debug_assert!(written.is_some_and(|left| left.0.is_empty()), "the fields have 74 bytes");
        place.copy_from_slice(signature);
        bytes
    }

    fn write<'o>(&self, out: Writer<'o>) -> Option<Writer<'o>> {
        out.put(&[self.role as u8, self.flags])?
            .put(&self.stamp.to_be_bytes())?
            .put(self.identity)?
            .put(self.key)
    }
}

/// The bytes that the signature of a certificate covers.
#[derive(Clone, Copy)]
pub struct SignedBytes {
    bytes: [u8; SIGNED_BYTES_MAX],
    length: usize,
}

impl Deref for SignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Debug for SignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::hex::Hex(self).fmt(f)
    }
}

/// Why bytes are not an identity certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateError {
    /// Not 138 bytes.
    Length,
    /// A role that this version does not know.
    Role,
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CertificateError::Length => "an identity certificate has 138 bytes",
            CertificateError::Role => "the identity certificate has an unknown role",
        })
    }
}

impl core::error::Error for CertificateError {}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: CertificateFields<'_> = CertificateFields {
        role: KeyRole::Connection,
        flags: 0x81,
        stamp: 0x0102_0304_0506_0708,
        identity: &[0xaa; 32],
        key: &[0xbb; 32],
    };

    #[test]
    fn the_bytes_lie_as_they_are_drawn() {
        let bytes = FIELDS.emit(&[0xcc; 64]);
        assert_eq!(bytes[..10], [2, 0x81, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!((&bytes[10..42], &bytes[42..74]), (&[0xaa; 32][..], &[0xbb; 32][..]));
        assert_eq!(bytes[74..], [0xcc; 64]);
        assert_eq!(CertificateFields::parse(&bytes), Ok((FIELDS, &[0xcc; 64])));
    }

    #[test]
    fn other_lengths_and_roles_are_refused() {
        let bytes = FIELDS.emit(&[0; 64]);
        let mut longer = [0; 139];
        longer[..138].copy_from_slice(&bytes);
        assert_eq!(CertificateFields::parse(&longer), Err(CertificateError::Length));
        for length in 0..bytes.len() {
            let read = CertificateFields::parse(&bytes[..length]);
            assert_eq!(read, Err(CertificateError::Length), "{length} bytes");
        }
        for role in 0..=255 {
            let mut changed = bytes;
            changed[0] = role;
            let read = CertificateFields::parse(&changed).map(|(fields, _)| fields.role as u8);
            let wanted = if matches!(role, 1..=3) { Ok(role) } else { Err(CertificateError::Role) };
            assert_eq!(read, wanted);
        }
    }

    #[test]
    fn every_byte_before_the_signature_and_the_network_are_signed() {
        let bytes = FIELDS.emit(&[0; 64]);
        for length in 0..=NETWORK_ID_BYTES_MAX {
            let network = &[b'n'; NETWORK_ID_BYTES_MAX][..length];
            let signed = FIELDS.signed(network).expect("short");
            assert_eq!(signed[..23], *CERTIFICATE_DOMAIN);
            assert_eq!(usize::from(signed[23]), length);
            assert_eq!((&signed[24..24 + length], &signed[24 + length..]), (network, &bytes[..74]));
        }
        assert!(FIELDS.signed(&[0; NETWORK_ID_BYTES_MAX + 1]).is_none());
    }
}
