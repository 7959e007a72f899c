//! ChaCha20-Poly1305 (RFC 8439) and its providers. The caller chooses every nonce.
//!
//! All providers produce the same bytes. [`Provider::Portable`] is pure Rust, always compiled in,
//! and the reference. `Provider::Ring` (feature `ring`, on by default) is C and assembly, and is
//! three to seven times as fast in a default build; the README of this crate has the figures.
//!
//! # What the buffer holds after a failed open
//! The content is unusable. The portable provider checks the tag first and leaves the ciphertext
//! unchanged; ring decrypts while it checks and may leave zeros. Neither leaves plaintext; a test
//! checks both. Drop the packet. Do not forward it, do not answer it, and do not try another key.

use core::fmt;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
#[cfg(feature = "ring")]
use ring::aead as ring_aead;
use strowger_wire::limits::{KEY_BYTES, TAG_BYTES};

use crate::limits::NONCE_BYTES;
use crate::secret::Secret;

/// Four zero bytes, then the counter, little-endian.
pub type Nonce = [u8; NONCE_BYTES];

/// The authentication tag of a packet.
pub type Tag = [u8; TAG_BYTES];

/// The tag is wrong. The error intentionally carries no further details.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tag is wrong")]
pub struct BadTag;

/// A key ready for use. All methods work in place and do not allocate. The tag is separate from the
/// body.
pub trait Aead: Send + Sync {
    /// Encrypts `body` in place and returns the tag over `aad` and the ciphertext.
    ///
    /// The caller must use each nonce once per key; [`Sealer`](crate::Sealer) guarantees that by
    /// its type.
    fn seal(&self, nonce: &Nonce, aad: &[u8], body: &mut [u8]) -> Tag;

    /// Decrypts `body` in place if `tag` is right.
    ///
    /// # Errors
    /// The tag is wrong. The content of `body` is then unusable.
    fn open(&self, nonce: &Nonce, aad: &[u8], body: &mut [u8], tag: &Tag) -> Result<(), BadTag>;
}

/// An implementation of the AEAD. All implementations produce the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    /// The `chacha20poly1305` crate: pure Rust, the reference.
    Portable,
    /// The `ring` crate.
    #[cfg(feature = "ring")]
    Ring,
}

impl Provider {
    /// All providers of this build, the reference first.
    pub const ALL: &'static [Provider] = &[
        Provider::Portable,
        #[cfg(feature = "ring")]
        Provider::Ring,
    ];

    /// The fastest provider of this build: ring if compiled in.
    pub const DEFAULT: Provider = Provider::ALL[Provider::ALL.len() - 1];

    /// Name of the provider, as the benchmark prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Provider::Portable => "chacha20poly1305",
            #[cfg(feature = "ring")]
            Provider::Ring => "ring",
        }
    }

    /// Prepares a key for use.
    pub fn key(self, secret: &Secret) -> AeadKey {
        match self {
            Provider::Portable => AeadKey(Inner::Portable(portable(secret.expose()))),
            #[cfg(feature = "ring")]
            Provider::Ring => AeadKey(Inner::Ring(RingKey(less_safe_key(secret.expose())))),
        }
    }
}

impl Default for Provider {
    fn default() -> Self {
        Provider::DEFAULT
    }
}

/// A key of one provider: an enum, so that a call needs no vtable.
///
/// It is not `Clone` and is erased on drop. Its `Debug` shows only the provider.
pub struct AeadKey(Inner);

// ring's key has room for AES-GCM tables. The key is not boxed, because a box would cost a cache
// miss per packet.
#[allow(clippy::large_enum_variant)]
enum Inner {
    Portable(ChaCha20Poly1305), // erases itself (feature `zeroize`)
    #[cfg(feature = "ring")]
    Ring(RingKey),
}

impl AeadKey {
    /// Provider of the key.
    pub const fn provider(&self) -> Provider {
        match self.0 {
            Inner::Portable(_) => Provider::Portable,
            #[cfg(feature = "ring")]
            Inner::Ring(_) => Provider::Ring,
        }
    }
}

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AeadKey({}, ..)", self.provider().name())
    }
}

impl Aead for AeadKey {
    #[inline]
    fn seal(&self, nonce: &Nonce, aad: &[u8], body: &mut [u8]) -> Tag {
        match &self.0 {
            Inner::Portable(key) => key
                .encrypt_inout_detached(&(*nonce).into(), aad, body.into())
                .expect("a packet is shorter than 256 GiB, the limit of one nonce")
                .into(),
            #[cfg(feature = "ring")]
            Inner::Ring(key) => key.seal(nonce, aad, body),
        }
    }

    #[inline]
    fn open(&self, nonce: &Nonce, aad: &[u8], body: &mut [u8], tag: &Tag) -> Result<(), BadTag> {
        match &self.0 {
            Inner::Portable(key) => key
                .decrypt_inout_detached(&(*nonce).into(), aad, body.into(), &(*tag).into())
                .map_err(|_| BadTag),
            #[cfg(feature = "ring")]
            Inner::Ring(key) => key.open(nonce, aad, body, tag),
        }
    }
}

fn portable(key: &[u8; KEY_BYTES]) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(key.into())
}

/// ring does not erase its keys; this type overwrites the key in place on drop.
#[cfg(feature = "ring")]
struct RingKey(ring_aead::LessSafeKey);

#[cfg(feature = "ring")]
fn less_safe_key(key: &[u8; KEY_BYTES]) -> ring_aead::LessSafeKey {
    let unbound = ring_aead::UnboundKey::new(&ring_aead::CHACHA20_POLY1305, key)
        .expect("a ChaCha20-Poly1305 key has 32 bytes");
    ring_aead::LessSafeKey::new(unbound)
}

#[cfg(feature = "ring")]
impl Drop for RingKey {
    fn drop(&mut self) {
        self.0 = less_safe_key(&[0; KEY_BYTES]);
        core::hint::black_box(&mut self.0); // keeps the compiler from removing the write above
    }
}

#[cfg(feature = "ring")]
impl RingKey {
    #[inline]
    fn seal(&self, nonce: &Nonce, aad: &[u8], body: &mut [u8]) -> Tag {
        let nonce = ring_aead::Nonce::assume_unique_for_key(*nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, ring_aead::Aad::from(aad), body)
            .expect("a packet is shorter than 256 GiB, the limit of one nonce");
        let mut bytes = [0; TAG_BYTES];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    #[inline]
    fn open(&self, nonce: &Nonce, aad: &[u8], body: &mut [u8], tag: &Tag) -> Result<(), BadTag> {
        let nonce = ring_aead::Nonce::assume_unique_for_key(*nonce);
        let tag = ring_aead::Tag::from(*tag);
        match self.0.open_in_place_separate_tag(nonce, ring_aead::Aad::from(aad), tag, body, 0..) {
            Ok(_) => Ok(()),
            Err(_) => Err(BadTag),
        }
    }
}

/// The nonce of a counter.
#[inline]
pub const fn nonce_of(counter: u64) -> Nonce {
    let [a, b, c, d, e, f, g, h] = counter.to_le_bytes();
    [0, 0, 0, 0, a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::hex;

    fn key_of(provider: Provider, bytes: [u8; 32]) -> AeadKey {
        provider.key(&Secret::from_bytes(bytes))
    }

    /// RFC 8439, section 2.8.2: seal.
    #[test]
    fn rfc_8439_section_2_8_2() {
        let key: [u8; 32] = core::array::from_fn(|place| 0x80 + place as u8);
        let nonce: Nonce = hex("070000004041424344454647").try_into().expect("12 bytes");
        let aad = hex("50515253c0c1c2c3c4c5c6c7");
        let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
        let sealed = hex(
            "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b6116",
        );
        let tag = hex("1ae10b594f09e26a7e902ecbd0600691");
        for provider in Provider::ALL {
            let aead = key_of(*provider, key);
            let mut body = text.to_vec();
            let got = aead.seal(&nonce, &aad, &mut body);
            assert_eq!((&body, &got[..]), (&sealed, &tag[..]), "{}", provider.name());
            assert_eq!(aead.open(&nonce, &aad, &mut body, &got), Ok(()));
            assert_eq!(body, text);
        }
    }

    /// RFC 8439, appendix A.5: open.
    #[test]
    fn rfc_8439_appendix_a_5() {
        let key: [u8; 32] = hex("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0")
            .try_into()
            .expect("32 bytes");
        let nonce: Nonce = hex("000000000102030405060708").try_into().expect("12 bytes");
        let aad = hex("f33388860000000000004e91");
        let sealed = hex(
            "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb24c6cfc18755d43eea09ee94e382d26b0bdb7b73c321b0100d4f03b7f355894cf332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c8559797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4b9166c767b804d46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523eaf4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a1049e617d91d361094fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29a6ad5cb4022b02709b",
        );
        let tag: Tag = hex("eead9d67890cbb22392336fea1851f38").try_into().expect("16 bytes");
        let begins = "Internet-Drafts are draft documents valid for a maximum of six months";
        for provider in Provider::ALL {
            let mut body = sealed.clone();
            assert_eq!(key_of(*provider, key).open(&nonce, &aad, &mut body, &tag), Ok(()));
            assert!(body.starts_with(begins.as_bytes()), "{}", provider.name());
        }
    }

    /// Flips every bit once and tries every truncation, as the Wycheproof tests do.
    #[test]
    fn every_alteration_is_refused_and_leaves_no_plaintext() {
        let text: Vec<u8> = (0..75u8).collect();
        let aad = *b"strowger";
        let nonce = nonce_of(77);
        for provider in Provider::ALL {
            let aead = key_of(*provider, [5; 32]);
            let mut sealed = text.clone();
            let tag = aead.seal(&nonce, &aad, &mut sealed);
            let refused = |nonce: &Nonce, aad: &[u8], body: &[u8], tag: &Tag, what: &str| {
                let mut body = body.to_vec();
                assert_eq!(aead.open(nonce, aad, &mut body, tag), Err(BadTag), "{what}");
                let leaked = body.windows(8).any(|piece| text.windows(8).any(|t| t == piece));
                assert!(!leaked, "{}: plaintext after a failed open, {what}", provider.name());
            };
            for place in 0..TAG_BYTES * 8 {
                let mut tag = tag;
                tag[place / 8] ^= 1 << (place % 8);
                refused(&nonce, &aad, &sealed, &tag, "tag");
            }
            for place in 0..sealed.len() * 8 {
                let mut sealed = sealed.clone();
                sealed[place / 8] ^= 1 << (place % 8);
                refused(&nonce, &aad, &sealed, &tag, "body");
            }
            for place in 0..aad.len() * 8 {
                let mut aad = aad;
                aad[place / 8] ^= 1 << (place % 8);
                refused(&nonce, &aad, &sealed, &tag, "aad");
            }
            for place in 0..NONCE_BYTES * 8 {
                let mut nonce = nonce;
                nonce[place / 8] ^= 1 << (place % 8);
                refused(&nonce, &aad, &sealed, &tag, "nonce");
            }
            for length in 0..sealed.len() {
                refused(&nonce, &aad, &sealed[..length], &tag, "cut");
            }
            for length in 0..aad.len() {
                refused(&nonce, &aad[..length], &sealed, &tag, "aad cut");
            }
            let mut longer = sealed.clone();
            longer.push(0);
            refused(&nonce, &aad, &longer, &tag, "one zero more");
            for special in [[0; TAG_BYTES], [0xff; TAG_BYTES], [0x80; TAG_BYTES]] {
                refused(&nonce, &aad, &sealed, &special, "special tag");
            }
            refused(&nonce, &sealed[..8], &sealed[8..], &tag, "aad moved into body");
        }
    }

    #[test]
    fn every_provider_opens_what_every_other_seals() {
        let mut state = 1u64;
        for length in (0..300).chain([575, 576, 1400, 8192]) {
            let mut body = vec![0u8; length];
            for byte in &mut body {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            let secret: [u8; 32] = core::array::from_fn(|place| place as u8 ^ length as u8);
            let nonce = nonce_of(state);
            let aad = &state.to_be_bytes()[..length % 9];
            let reference = {
                let mut reference = body.clone();
                let tag = key_of(Provider::Portable, secret).seal(&nonce, aad, &mut reference);
                (reference, tag)
            };
            for one in Provider::ALL {
                let mut sealed = body.clone();
                let tag = key_of(*one, secret).seal(&nonce, aad, &mut sealed);
                assert_eq!((&sealed, tag), (&reference.0, reference.1), "{}", one.name());
                for other in Provider::ALL {
                    let mut sealed = sealed.clone();
                    let opened = key_of(*other, secret).open(&nonce, aad, &mut sealed, &tag);
                    assert_eq!(opened, Ok(()));
                    assert_eq!(sealed, body);
                }
            }
        }
    }
}
