//! The hash of the formats, BLAKE2s-256 without a key (HASH of wire.md, W4-19).

use blake2::{Blake2s256, Digest};

/// Bytes of a hash.
const HASH_BYTES: usize = 32;

/// The unkeyed BLAKE2s-256 hash of `bytes` (RFC 7693).
#[must_use]
pub fn hash(bytes: &[u8]) -> [u8; HASH_BYTES] {
    Blake2s256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7693, appendix B.
    #[test]
    fn the_hash_is_that_of_the_rfc() {
        let wanted = [
            0x50, 0x8c, 0x5e, 0x8c, 0x32, 0x7c, 0x14, 0xe2, 0xe1, 0xa7, 0x2b, 0xa3, 0x4e, 0xeb,
            0x45, 0x2f, 0x37, 0x45, 0x8b, 0x20, 0x9e, 0xd6, 0x3a, 0x29, 0x4d, 0x99, 0x9b, 0x4c,
            0x86, 0x67, 0x59, 0x82,
        ];
        assert_eq!(hash(b"abc"), wanted);
    }
}
