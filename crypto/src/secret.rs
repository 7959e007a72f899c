//! Thirty-two secret bytes: erased when dropped, compared in constant time, never printed.

use core::fmt;

use blake2::Blake2sMac256;
use blake2::digest::{FixedOutput, KeyInit, Update};
use strowger_wire::limits::KEY_BYTES;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::entropy::{Entropy, EntropyFailed};

/// A symmetric key or a seed. Not `Clone`: where two owners need it, each gets it by its own way.
pub struct Secret([u8; KEY_BYTES]);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Secret {}

impl Secret {
    /// Takes the bytes over. The caller's own copy, if it is a copy, is the caller's to erase.
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Secret {
        Secret(bytes)
    }

    /// Fresh random bytes.
    pub fn random(entropy: &mut dyn Entropy) -> Result<Secret, EntropyFailed> {
        let mut secret = Secret([0; KEY_BYTES]);
        entropy.fill(&mut secret.0)?;
        Ok(secret)
    }

    /// The bytes, for whoever must have them.
    #[inline]
    pub const fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// A secret that this one and `label` and `parts` determine, and that tells nothing of this one.
    /// Keyed BLAKE2s over the label's length and text, then each part with its length.
    pub(crate) fn derive(&self, label: &str, parts: &[&[u8]]) -> Secret {
        Secret(mac(&self.0, label, parts))
    }
}

/// Keyed BLAKE2s-256 with every input framed by its length, so that no two lists of inputs collide.
pub(crate) fn mac(key: &[u8], label: &str, parts: &[&[u8]]) -> [u8; KEY_BYTES] {
    let mut mac = Blake2sMac256::new_from_slice(key).expect("keys here are 16 or 32 bytes");
    for part in core::iter::once(label.as_bytes()).chain(parts.iter().copied()) {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize_fixed().into()
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A key that both ends of a link were given by their operators; all zero where none was.
#[derive(PartialEq, Eq)]
pub struct Psk(Secret);

impl Psk {
    /// No psk: 32 zero bytes, as Noise_IKpsk2 needs some (wire.md section 4).
    pub const NONE: Psk = Psk(Secret([0; KEY_BYTES]));

    /// A psk of these bytes.
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Psk {
        Psk(Secret(bytes))
    }

    /// The bytes, for whoever hands the psk on; they never belong in a log.
    pub const fn expose(&self) -> &[u8; KEY_BYTES] {
        self.0.expose()
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivations_differ_by_label_and_by_where_parts_are_cut() {
        let secret = Secret::from_bytes([1; 32]);
        let all = [
            secret.derive("a", &[b"bc"]),
            secret.derive("a", &[b"b", b"c"]),
            secret.derive("ab", &[b"c"]),
            secret.derive("abc", &[]),
            secret.derive("a", &[b"bc", b""]),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(all[place + 1..].iter().all(|other| one != other));
        }
        assert_eq!(secret.derive("a", &[b"bc"]), all[0]);
    }
}
