//! Secrets of 32 bytes: erased on drop, compared in constant time, never printed.

use core::fmt;

use blake2::Blake2sMac256;
use blake2::digest::{FixedOutput, KeyInit, Update};
use strowger_wire::limits::KEY_BYTES;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::entropy::{Entropy, EntropyFailed};

/// A symmetric key or a seed. It is not `Clone`: if there are two owners, each derives or receives
/// it independently.
pub struct Secret([u8; KEY_BYTES]);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Secret {}

impl Secret {
    /// Takes ownership of the bytes. If the caller keeps a copy, the caller must erase it.
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Secret {
        Secret(bytes)
    }

    /// Makes a secret of fresh random bytes.
    pub fn random(entropy: &mut dyn Entropy) -> Result<Secret, EntropyFailed> {
        let mut secret = Secret([0; KEY_BYTES]);
        entropy.fill(&mut secret.0)?;
        Ok(secret)
    }

    /// The bytes, for the few places that need them.
    #[inline]
    pub const fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Derives a secret that reveals nothing about this one.
    ///
    /// The result is keyed BLAKE2s over `label` and `parts`, each with its length.
    pub(crate) fn derive(&self, label: &str, parts: &[&[u8]]) -> Secret {
        Secret(mac(&self.0, label, parts))
    }
}

/// Keyed BLAKE2s-256; every input is framed by its length, so that no two lists of inputs collide.
pub(crate) fn mac(key: &[u8], label: &str, parts: &[&[u8]]) -> [u8; KEY_BYTES] {
    let mut mac = Blake2sMac256::new_from_slice(key).expect("a key has 16 or 32 bytes");
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

/// A pre-shared key that both operators configured. If there is none, all bytes are zero.
#[derive(PartialEq, Eq)]
pub struct Psk(Secret);

impl Psk {
    /// No psk: 32 zero bytes, because Noise_IKpsk2 always mixes in a psk (wire.md section 4).
    pub const NONE: Psk = Psk(Secret([0; KEY_BYTES]));

    /// Makes a psk of these bytes.
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Psk {
        Psk(Secret(bytes))
    }

    /// The bytes, for code that passes the psk on. Never log them.
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

    /// wire.md: W4-18.
    #[test]
    fn derivations_differ_by_label_and_by_part_boundaries() {
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
